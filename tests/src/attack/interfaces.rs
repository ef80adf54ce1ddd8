//! Safe functions for what tracers, debuggers and watchers ask of the kernel.

#![expect(unsafe_code, reason = "no library makes these system calls safe")]

use std::ffi::{CStr, CString, c_long, c_void};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;

use super::raw::{bpf, checked, halves, make_map};

/// A kprobe of this process, made with perf_event_open(2). It counts how often this thread calls the function.
pub(super) struct Kprobe(File);

impl Kprobe {
    pub(super) fn on(function: &CStr) -> Result<Self> {
        /// The size of the attributes that all kernels know (`PERF_ATTR_SIZE_VER5`, include/uapi/linux/perf_event.h).
        const SIZE: u64 = 112;
        let kind = std::fs::read_to_string("/sys/bus/event_source/devices/kprobe/type")?;
        let kind: u64 = kind.trim().parse()?;
        // `struct perf_event_attr` in words: the type and the size, and in the eighth word the address of the name.
        let mut attributes = [0_u64; SIZE as usize / 8];
        attributes[0] = kind | SIZE << 32;
        attributes[7] = function.as_ptr() as u64;
        /// `PERF_FLAG_FD_CLOEXEC` (include/uapi/linux/perf_event.h).
        const CLOSE_AT_EXEC: c_long = 8;
        // SAFETY: the attributes have the given size, and they and the name live until the call returns.
        let event = unsafe { libc::syscall(libc::SYS_perf_event_open, attributes.as_ptr(), 0, -1, -1, CLOSE_AT_EXEC) };
        let event = checked(event).context("perf_event_open")?;
        // SAFETY: the descriptor is new, so nothing else owns it.
        Ok(Self(unsafe { File::from_raw_fd(i32::try_from(event)?) }))
    }

    /// How often it was called.
    pub(super) fn count(&mut self) -> Result<u64> {
        let mut count = [0; 8];
        self.0.read_exact(&mut count)?;
        Ok(u64::from_ne_bytes(count))
    }

    /// Attaches a BPF program.
    pub(super) fn attach(&self, program: &OwnedFd) -> Result<()> {
        /// `PERF_EVENT_IOC_SET_BPF` (include/uapi/linux/perf_event.h).
        const SET_BPF: libc::c_ulong = 0x4004_2408;
        // SAFETY: the argument is a descriptor.
        checked(unsafe { libc::ioctl(self.0.as_raw_fd(), SET_BPF, program.as_raw_fd()) }).context("SET_BPF")?;
        Ok(())
    }
}

/// A BPF program for kprobes that counts its runs, and the map with the number.
pub(super) struct Counter {
    pub(super) program: OwnedFd,
    map: OwnedFd,
}

impl Counter {
    pub(super) fn load() -> Result<Self> {
        const PROGRAM_LOAD: c_long = 5;
        const KPROBE: u32 = 2;
        let map = make_map().context("cannot make a map")?;
        // `struct bpf_insn`: the operation, the registers, an offset and a number.
        let word = |operation: u8, registers: u8, offset: i16, number: u32| {
            u64::from(operation)
                | u64::from(registers) << 8
                | u64::from(offset.cast_unsigned()) << 16
                | u64::from(number) << 32
        };
        let instructions = [
            // The key 0 is put on the stack.
            word(0xb7, 0x01, 0, 0),
            word(0x63, 0x1a, -4, 0),
            word(0xbf, 0xa2, 0, 0),
            word(0x07, 0x02, 0, (-4_i32).cast_unsigned()),
            // bpf_map_lookup_elem(map, key)
            word(0x18, 0x11, 0, map.as_raw_fd().cast_unsigned()),
            0,
            word(0x85, 0, 0, 1),
            // One is added to what it has found.
            word(0x15, 0x00, 2, 0),
            word(0xb7, 0x01, 0, 1),
            word(0xdb, 0x10, 0, 0),
            // The program returns 0.
            word(0xb7, 0x00, 0, 0),
            word(0x95, 0, 0, 0),
        ];
        let ([low, high], [licence, licence_high]) =
            (halves(instructions.as_ptr() as u64), halves(c"MIT".as_ptr() as u64));
        let mut attributes = [KPROBE, instructions.len() as u32, low, high, licence, licence_high, 0, 0, 0, 0, 0, 0];
        let program = bpf(PROGRAM_LOAD, &mut attributes).context("cannot load a program")?;
        // SAFETY: the descriptor is new, so nothing else owns it.
        Ok(Self { program: unsafe { OwnedFd::from_raw_fd(i32::try_from(program)?) }, map })
    }

    /// How often the program ran.
    pub(super) fn count(&self) -> Result<u64> {
        const LOOKUP: c_long = 1;
        let (key, mut value) = (0_u32, 0_u64);
        let ([key, key_high], [low, high]) =
            (halves((&raw const key) as u64), halves((&raw mut value).expose_provenance() as u64));
        bpf(LOOKUP, &mut [self.map.as_raw_fd().cast_unsigned(), 0, key, key_high, low, high, 0, 0])?;
        Ok(value)
    }
}

/// Executes a program and traces its system calls as strace does. Returns their numbers.
pub(super) fn trace(command: &mut Command) -> Result<Vec<i64>> {
    /// The offset of `orig_rax` in `struct user`.
    const NUMBER: usize = 15 * 8;
    let nothing = std::ptr::null_mut::<c_void>();
    // SAFETY: the child only asks to be traced, which needs no memory.
    unsafe {
        command.pre_exec(|| {
            let nothing = std::ptr::null_mut::<c_void>();
            checked(libc::ptrace(libc::PTRACE_TRACEME, 0, nothing, nothing)).map(drop).map_err(Into::into)
        });
    }
    let pid = command.spawn()?.id().cast_signed();
    let (mut calls, mut status, mut is_entry) = (Vec::new(), 0, true);
    loop {
        // SAFETY: these calls change only the child, and the status is a number.
        unsafe {
            checked(libc::waitpid(pid, &raw mut status, 0))?;
            if libc::WIFEXITED(status) {
                ensure!(libc::WEXITSTATUS(status) == 0, "the traced program failed: {status}");
                return Ok(calls);
            }
            ensure!(libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGTRAP, "it has the status {status}");
            // The first stop is that of the exec.
            if is_entry {
                calls.push(libc::ptrace(libc::PTRACE_PEEKUSER, pid, NUMBER as *mut c_void, nothing));
            }
            is_entry = !is_entry;
            checked(libc::ptrace(libc::PTRACE_SYSCALL, pid, nothing, nothing))?;
        }
    }
}

/// Decides with fanotify about the opening of a file, and watches what is done to it, until it is closed. `act` opens,
/// writes and closes it. Returns the events.
pub(super) fn permit(file: &Path, act: impl FnOnce() -> Result<()> + Send) -> Result<u64> {
    let name = CString::new(file.as_os_str().as_bytes())?;
    // SAFETY: the call takes numbers.
    let group = unsafe { libc::fanotify_init(libc::FAN_CLASS_CONTENT | libc::FAN_CLOEXEC, libc::O_RDONLY as u32) };
    checked(group).context("fanotify_init")?;
    // SAFETY: the descriptor is new, so nothing else owns it.
    let mut group = unsafe { File::from_raw_fd(group) };
    let wanted = libc::FAN_OPEN_PERM | libc::FAN_MODIFY | libc::FAN_CLOSE_WRITE;
    // SAFETY: the name is a string that lives until the call returns.
    let marked =
        unsafe { libc::fanotify_mark(group.as_raw_fd(), libc::FAN_MARK_ADD, wanted, libc::AT_FDCWD, name.as_ptr()) };
    checked(marked).context("fanotify_mark")?;
    std::thread::scope(|scope| {
        let actor = scope.spawn(act);
        let mut all = 0;
        while all & libc::FAN_CLOSE_WRITE == 0 {
            // `struct fanotify_event_metadata` has 24 bytes: the mask is at 8, and the descriptor of the file at 16.
            let mut event = [0; 24];
            ensure!(group.read(&mut event)? == event.len(), "an event is too short");
            let (words, _) = event.as_chunks::<8>();
            let mask = u64::from_ne_bytes(words[1]);
            let descriptor = u64::from_ne_bytes(words[2]) as i32;
            // SAFETY: the kernel has opened it for this event.
            let opened = unsafe { OwnedFd::from_raw_fd(descriptor) };
            if mask & libc::FAN_OPEN_PERM != 0 {
                let answer = u64::from(opened.as_raw_fd().cast_unsigned()) | u64::from(libc::FAN_ALLOW) << 32;
                group.write_all(&answer.to_ne_bytes())?;
            }
            all |= mask;
        }
        match actor.join() {
            Ok(done) => done.map(|()| all),
            Err(_) => bail!("the actor panicked"),
        }
    })
}

/// Locks memory with mlock(2).
pub(super) fn lock(memory: &mut [u8]) -> Result<(), Errno> {
    // SAFETY: the memory is this process's, and stays as it is.
    unsafe { rustix::mm::mlock(memory.as_mut_ptr().cast(), memory.len()) }
}
