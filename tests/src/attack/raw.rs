//! Safe functions for system calls that no library wraps safely.

#![expect(unsafe_code, reason = "no library makes these system calls safe")]

use std::ffi::{CString, c_long, c_void};
use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use rustix::pipe::{IoSliceRaw, SpliceFlags};
use rustix::process::Pid;
use rustix::thread::UnshareFlags;

/// Converts the result of a libc call.
pub(super) fn checked(answer: impl TryInto<i64>) -> Result<u64, Errno> {
    match answer.try_into() {
        Ok(answer @ 0..) => Ok(answer.cast_unsigned()),
        _ => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}

fn path(path: &Path) -> Result<CString, Errno> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::INVAL)
}

/// Sends with `MSG_ZEROCOPY`, which locks the memory until it is sent.
pub(super) fn send_without_copy(socket: &TcpStream, bytes: &[u8]) -> Result<u64, Errno> {
    let (fd, yes) = (socket.as_raw_fd(), 1_i32);
    let size = libc::socklen_t::try_from(size_of_val(&yes)).map_err(|_| Errno::INVAL)?;
    // SAFETY: the option is a number of this size, which lives until the call returns.
    checked(unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_ZEROCOPY, (&raw const yes).cast(), size) })?;
    // SAFETY: the bytes live until the call returns. If they change before they are sent, something else is sent.
    checked(unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_ZEROCOPY) })
}

/// Makes a BPF map, which is an array with one element.
pub(super) fn make_map() -> Result<OwnedFd, Errno> {
    // These are `BPF_MAP_CREATE` and `BPF_MAP_TYPE_ARRAY`, and the first members of `union bpf_attr`: the type, the
    // size of a key, the size of a value, and the number of elements (include/uapi/linux/bpf.h).
    const BPF_MAP_CREATE: c_long = 0;
    let attributes: [u32; 4] = [2, 4, 8, 1];
    let size = size_of_val(&attributes);
    // SAFETY: the attributes live until the call returns, and the call reads only the given size.
    let map = checked(unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_CREATE, attributes.as_ptr(), size) })?;
    // SAFETY: the descriptor is new, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(map).map_err(|_| Errno::BADF)?) })
}

/// truncate(2).
pub(super) fn truncate(file: &Path, length: i64) -> Result<(), Errno> {
    let file = path(file)?;
    // SAFETY: the path is a string that lives until the call returns.
    checked(unsafe { libc::truncate(file.as_ptr(), length) }).map(drop)
}

/// fchmodat2(2).
pub(super) fn fchmodat2(file: &Path, mode: u32) -> Result<(), Errno> {
    let file = path(file)?;
    // SAFETY: the path is a string that lives until the call returns.
    checked(unsafe { libc::syscall(libc::SYS_fchmodat2, libc::AT_FDCWD, file.as_ptr(), mode, 0) }).map(drop)
}

/// Sets a flag of an inode with file_setattr(2).
pub(super) fn file_setattr(file: &Path, flags: u64) -> Result<(), Errno> {
    /// The number of the system call, which is the same on all architectures.
    const SYS_FILE_SETATTR: c_long = 469;
    let file = path(file)?;
    // `struct file_attr` (include/uapi/linux/fs.h, 7.3) has 64-bit flags and four 32-bit numbers.
    let attributes = [flags, 0, 0];
    let size = size_of_val(&attributes);
    // SAFETY: the path and the attributes live until the call returns, and the call reads only the given size.
    let answer = unsafe {
        libc::syscall(
            SYS_FILE_SETATTR,
            libc::AT_FDCWD,
            file.as_ptr(),
            attributes.as_ptr(),
            size,
            libc::AT_SYMLINK_NOFOLLOW,
        )
    };
    checked(answer).map(drop)
}

/// Sets and clears options of a mount with mount_setattr(2).
pub(super) fn mount_setattr(at: &Path, set: u64, clear: u64) -> Result<(), Errno> {
    let at = path(at)?;
    // `struct mount_attr` (include/uapi/linux/mount.h, 5.12) has the options to set, the options to clear, the
    // propagation, and a user namespace.
    let attributes = [set, clear, 0, 0];
    let size = size_of_val(&attributes);
    // SAFETY: the path and the attributes live until the call returns, and the call reads only the given size.
    let answer =
        unsafe { libc::syscall(libc::SYS_mount_setattr, libc::AT_FDCWD, at.as_ptr(), 0, attributes.as_ptr(), size) };
    checked(answer).map(drop)
}

/// A handle that identifies a file by its number.
pub(super) struct Handle {
    /// `struct file_handle`, in words for the alignment: the size, the type, and the bytes.
    words: [u32; 2 + libc::MAX_HANDLE_SZ as usize / 4],
}

impl Handle {
    /// Calls name_to_handle_at(2).
    pub(super) fn of(file: &Path) -> Result<Self, Errno> {
        let file = path(file)?;
        let mut handle = Self { words: [0; 2 + libc::MAX_HANDLE_SZ as usize / 4] };
        handle.words[0] = libc::MAX_HANDLE_SZ.cast_unsigned();
        let mut mount = 0;
        // SAFETY: the handle has room for the number of bytes in its first word.
        let answer = unsafe {
            libc::name_to_handle_at(libc::AT_FDCWD, file.as_ptr(), handle.words.as_mut_ptr().cast(), &raw mut mount, 0)
        };
        checked(answer).map(|_| handle)
    }

    /// All words of the handle, which a process can guess.
    pub(super) fn words(&self) -> &[u32] {
        &self.words[..2 + (self.words[0] as usize).div_ceil(4)]
    }

    /// The handle with these words.
    pub(super) fn from_words(words: &[u32]) -> Self {
        let mut handle = Self { words: [0; 2 + libc::MAX_HANDLE_SZ as usize / 4] };
        handle.words.iter_mut().zip(words).for_each(|(to, from)| *to = *from);
        handle
    }

    /// Calls open_by_handle_at(2) for reading and writing. `mount` is any open file of the file system.
    pub(super) fn open(&self, mount: &File) -> Result<File, Errno> {
        let mut words = self.words;
        let flags = libc::O_RDWR | libc::O_CLOEXEC;
        // SAFETY: the kernel has filled the handle.
        let answer = unsafe { libc::open_by_handle_at(mount.as_raw_fd(), words.as_mut_ptr().cast(), flags) };
        // SAFETY: the descriptor is new, so nothing else owns it.
        checked(answer).map(|number| unsafe { File::from_raw_fd(number as i32) })
    }
}

/// A BPF map of the host.
pub(super) struct BpfMap {
    file: OwnedFd,
    /// The sizes of its keys and values in bytes, and its name.
    sizes: [usize; 2],
    name: String,
}

impl BpfMap {
    /// All maps.
    pub(super) fn all() -> Result<Vec<Self>, Errno> {
        ids(BPF_MAP_GET_NEXT_ID)?.into_iter().map(Self::open).collect()
    }

    fn open(id: u32) -> Result<Self, Errno> {
        // SAFETY: the descriptor is new, so nothing else owns it.
        let file = unsafe { OwnedFd::from_raw_fd(bpf(BPF_MAP_GET_FD_BY_ID, &mut [id, 0, 0])? as i32) };
        // `struct bpf_map_info`: the type, the id, the sizes of keys and values, the number of entries, the flags, and
        // the name, which has 16 bytes.
        let mut info = [0_u32; 10];
        let [low, high] = halves(info.as_mut_ptr() as u64);
        bpf(BPF_OBJ_GET_INFO_BY_FD, &mut [file.as_raw_fd().cast_unsigned(), size_of_val(&info) as u32, low, high])?;
        let name: Vec<u8> =
            info[6..].iter().flat_map(|word| word.to_ne_bytes()).take_while(|byte| *byte != 0).collect();
        let sizes = [info[2] as usize, info[3] as usize];
        Ok(Self { file, sizes, name: String::from_utf8_lossy(&name).into_owned() })
    }

    /// The name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The keys of a map that is not for each CPU.
    pub(super) fn keys(&self) -> Result<Vec<Vec<u8>>, Errno> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        loop {
            let mut next = vec![0; self.sizes[0]];
            let before = keys.last().map_or(0, |key| key.as_ptr() as u64);
            match self.call(BPF_MAP_GET_NEXT_KEY, before, next.as_mut_ptr() as u64) {
                Ok(()) => keys.push(next),
                Err(Errno::NOENT) => return Ok(keys),
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads an entry.
    pub(super) fn look_up(&self, key: &[u8]) -> Result<Vec<u8>, Errno> {
        let mut value = vec![0; self.sizes[1]];
        self.call(BPF_MAP_LOOKUP_ELEM, key.as_ptr() as u64, value.as_mut_ptr() as u64).map(|()| value)
    }

    /// Changes an entry.
    pub(super) fn update(&self, key: &[u8], value: &[u8]) -> Result<(), Errno> {
        self.call(BPF_MAP_UPDATE_ELEM, key.as_ptr() as u64, value.as_ptr() as u64)
    }

    /// Deletes an entry.
    pub(super) fn delete(&self, key: &[u8]) -> Result<(), Errno> {
        self.call(BPF_MAP_DELETE_ELEM, key.as_ptr() as u64, 0)
    }

    fn call(&self, command: c_long, key: u64, value: u64) -> Result<(), Errno> {
        let ([key, key_high], [value, value_high]) = (halves(key), halves(value));
        let file = self.file.as_raw_fd().cast_unsigned();
        bpf(command, &mut [file, 0, key, key_high, value, value_high, 0, 0]).map(drop)
    }
}

/// Tries to detach all BPF links. Returns the errors.
pub(super) fn detach_links() -> Result<Vec<Errno>, Errno> {
    let mut errors = Vec::new();
    for id in ids(BPF_LINK_GET_NEXT_ID)? {
        // SAFETY: the descriptor is new, so nothing else owns it.
        let link = unsafe { OwnedFd::from_raw_fd(bpf(BPF_LINK_GET_FD_BY_ID, &mut [id, 0, 0])? as i32) };
        errors.extend(bpf(BPF_LINK_DETACH, &mut [link.as_raw_fd().cast_unsigned()]).err());
    }
    Ok(errors)
}

/// The ids of all BPF objects of a kind. `next` is the command that returns the next id of this kind.
fn ids(next: c_long) -> Result<Vec<u32>, Errno> {
    let (mut ids, mut id) = (Vec::new(), 0);
    loop {
        let mut attributes = [id, 0, 0];
        match bpf(next, &mut attributes) {
            Ok(_) => id = attributes[1],
            Err(Errno::NOENT) => return Ok(ids),
            Err(error) => return Err(error),
        }
        ids.push(id);
    }
}

/// Commands of bpf(2) (include/uapi/linux/bpf.h).
const BPF_MAP_LOOKUP_ELEM: c_long = 1;
const BPF_MAP_UPDATE_ELEM: c_long = 2;
const BPF_MAP_DELETE_ELEM: c_long = 3;
const BPF_MAP_GET_NEXT_KEY: c_long = 4;
const BPF_MAP_GET_NEXT_ID: c_long = 12;
const BPF_MAP_GET_FD_BY_ID: c_long = 14;
const BPF_OBJ_GET_INFO_BY_FD: c_long = 15;
const BPF_LINK_GET_FD_BY_ID: c_long = 30;
const BPF_LINK_GET_NEXT_ID: c_long = 31;
const BPF_LINK_DETACH: c_long = 34;

/// The lower and the upper half of a number.
pub(super) fn halves(address: u64) -> [u32; 2] {
    [address as u32, (address >> 32) as u32]
}

/// Calls bpf(2).
pub(super) fn bpf<const N: usize>(command: c_long, attributes: &mut [u32; N]) -> Result<u64, Errno> {
    // The kernel wants addresses at multiples of eight.
    let mut aligned: Vec<u64> =
        attributes.chunks(2).map(|pair| u64::from(pair[0]) | u64::from(*pair.get(1).unwrap_or(&0)) << 32).collect();
    // SAFETY: the attributes have the given size, and the callers' buffers have the sizes that the command demands.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, aligned.as_mut_ptr(), size_of_val(attributes)) };
    for (pair, word) in attributes.chunks_mut(2).zip(aligned) {
        pair.iter_mut().zip(halves(word)).for_each(|(half, value)| *half = value);
    }
    checked(answer)
}

/// Calls clone3(2), with a cgroup for the child. Returns `None` in the child.
pub(super) fn fork_into(cgroup: &File) -> Result<Option<Pid>, Errno> {
    /// `struct clone_args` (include/uapi/linux/sched.h).
    #[repr(C)]
    #[derive(Default)]
    struct CloneArgs {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
        set_tid: u64,
        set_tid_size: u64,
        cgroup: u64,
    }
    const CLONE_INTO_CGROUP: u64 = 1 << 33;
    let args = CloneArgs {
        flags: CLONE_INTO_CGROUP,
        exit_signal: libc::SIGCHLD as u64,
        cgroup: u64::from(cgroup.as_raw_fd().cast_unsigned()),
        ..CloneArgs::default()
    };
    // SAFETY: like fork(2), in a process with one thread.
    let child = checked(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) })?;
    Ok(i32::try_from(child).ok().and_then(Pid::from_raw))
}

/// Makes memory that is mapped readable from now on executable too (personality(2)).
pub(super) fn execute_what_is_readable() -> Result<(), Errno> {
    // SAFETY: the call changes only a flag of this thread.
    checked(unsafe { libc::personality(libc::READ_IMPLIES_EXEC as libc::c_ulong) }).map(drop)
}

/// Creates a mount namespace and a user namespace, in which the process is root.
pub(super) fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: the descriptor table stays shared.
    unsafe { rustix::thread::unshare_unsafe(flags.difference(UnshareFlags::FILES)) }
}

/// A mapped part of a file.
pub(super) struct Map {
    start: *mut c_void,
    length: usize,
    is_writable: bool,
}

impl Map {
    /// Maps the beginning of a file.
    pub(super) fn shared(file: &File, length: usize, protection: ProtFlags) -> Result<Self, Errno> {
        Self::of(file, length, protection, MapFlags::SHARED)
    }

    /// Maps the beginning of a file privately, so that writes do not change the file.
    pub(super) fn private(file: &File, length: usize) -> Result<Self, Errno> {
        Self::of(file, length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
    }

    /// Maps the beginning of a file as loaders do.
    pub(super) fn code(file: &File, length: usize) -> Result<Self, Errno> {
        Self::of(file, length, ProtFlags::READ | ProtFlags::EXEC, MapFlags::PRIVATE)
    }

    fn of(file: &File, length: usize, protection: ProtFlags, flags: MapFlags) -> Result<Self, Errno> {
        // SAFETY: the kernel chooses an unused address, to which no reference exists.
        let start = unsafe { rustix::mm::mmap(std::ptr::null_mut(), length, protection, flags, file, 0)? };
        Ok(Self { start, length, is_writable: protection.contains(ProtFlags::WRITE) })
    }

    /// Calls mprotect(2).
    pub(super) fn allow_writing(&mut self) -> Result<(), Errno> {
        // SAFETY: `of` made this mapping, and nothing else uses it.
        unsafe { rustix::mm::mprotect(self.start, self.length, MprotectFlags::READ | MprotectFlags::WRITE)? };
        self.is_writable = true;
        Ok(())
    }

    /// Maps the beginning of a file privately, for reading only.
    pub(super) fn readable(file: &File, length: usize) -> Result<Self, Errno> {
        Self::of(file, length, ProtFlags::READ, MapFlags::PRIVATE)
    }

    /// Maps anonymous memory, as just-in-time compilers do.
    pub(super) fn anonymous(length: usize) -> Result<Self, Errno> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses an unused address, to which no reference exists.
        let start = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), length, protection, MapFlags::PRIVATE)? };
        Ok(Self { start, length, is_writable: true })
    }

    /// Calls mprotect(2).
    pub(super) fn allow_executing(&mut self) -> Result<(), Errno> {
        self.is_writable = false;
        // SAFETY: one of the functions above made this mapping, and nothing else uses it.
        unsafe { rustix::mm::mprotect(self.start, self.length, MprotectFlags::READ | MprotectFlags::EXEC) }
    }

    /// Calls the function at the start of the mapping, which must be [`CODE`](crate::image::CODE) and executable.
    pub(super) fn call(&self) -> u32 {
        // SAFETY: the memory has the size of the code, and the kernel keeps it mapped while `self` lives.
        let code = unsafe { std::slice::from_raw_parts(self.start.cast::<u8>(), crate::image::CODE.len()) };
        assert_eq!(code, crate::image::CODE, "this is another function");
        // SAFETY: the code is that of a function without arguments that returns a number.
        let function: extern "C" fn() -> u32 = unsafe { std::mem::transmute(self.start) };
        function()
    }

    /// Writes to the mapping.
    pub(super) fn store(&mut self, bytes: &[u8]) {
        assert!(self.is_writable && bytes.len() <= self.length, "this would be a fault");
        // SAFETY: the mapping is writable and long enough.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.cast(), bytes.len()) };
    }

    /// The address of the mapping.
    pub(super) fn address(&self) -> u64 {
        self.start as u64
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: `of` made this mapping, and no reference to it remains.
        unsafe { rustix::mm::munmap(self.start, self.length) }.expect("what was mapped can be unmapped");
    }
}

/// Writes to the start of a file with the kernel's asynchronous I/O (io_submit(2)).
pub(super) fn aio_write(file: &File, bytes: &[u8]) -> Result<usize, Errno> {
    /// `IOCB_CMD_PWRITE` (include/uapi/linux/aio_abi.h).
    const PWRITE: u16 = 1;
    let mut context: libc::c_ulong = 0;
    // SAFETY: the kernel stores a number at this address.
    checked(unsafe { libc::syscall(libc::SYS_io_setup, 1, &raw mut context) })?;
    // SAFETY: the structure consists of numbers, for which zero is valid.
    let mut call: libc::iocb = unsafe { std::mem::zeroed() };
    call.aio_lio_opcode = PWRITE;
    call.aio_fildes = file.as_raw_fd().cast_unsigned();
    call.aio_buf = bytes.as_ptr() as u64;
    call.aio_nbytes = bytes.len() as u64;
    let calls = [&raw mut call];
    // `struct io_event` (include/uapi/linux/aio_abi.h) has the data, the call, the result and a second result.
    let mut event = [0_i64; 4];
    let nothing = std::ptr::null::<c_void>();
    // SAFETY: the second call waits until the request has ended, and the request and its bytes live that long. The
    // event has the size of its structure.
    let written = unsafe {
        checked(libc::syscall(libc::SYS_io_submit, context, 1, calls.as_ptr()))
            .and_then(|_| checked(libc::syscall(libc::SYS_io_getevents, context, 1, 1, event.as_mut_ptr(), nothing)))
            .and_then(|_| usize::try_from(event[2]).map_err(|_| Errno::from_raw_os_error(-event[2] as i32)))
    };
    // SAFETY: the kernel returned this number.
    unsafe { checked(libc::syscall(libc::SYS_io_destroy, context))? };
    written
}

/// Calls vmsplice(2), after which the pipe refers to the memory itself.
pub(super) fn vmsplice(pipe: &OwnedFd, bytes: &'static [u8]) -> Result<usize, Errno> {
    // SAFETY: the bytes never change, and live as long as the pipe.
    unsafe { rustix::pipe::vmsplice(pipe, &[IoSliceRaw::from_slice(bytes)], SpliceFlags::empty()) }
}

/// process_vm_writev(2).
pub(super) fn process_vm_writev(pid: u32, address: u64, bytes: &[u8]) -> Result<usize, Errno> {
    let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let remote = libc::iovec { iov_base: address as *mut c_void, iov_len: bytes.len() };
    // SAFETY: the call reads these bytes, and writes only to another process.
    let written = unsafe { libc::process_vm_writev(pid.cast_signed(), &raw const local, 1, &raw const remote, 1, 0) };
    checked(written as i64).map(|written| written as usize)
}

/// Writes to another process as a debugger does.
pub(super) fn ptrace_write(pid: u32, address: u64, bytes: &[u8]) -> Result<(), Errno> {
    let pid = pid.cast_signed();
    let nothing = std::ptr::null_mut::<c_void>();
    // SAFETY: these calls change only another process, and the status is a number.
    unsafe {
        checked(libc::ptrace(libc::PTRACE_ATTACH, pid, nothing, nothing))?;
        checked(libc::waitpid(pid, &mut 0, libc::__WALL))?;
        let written = bytes.chunks_exact(size_of::<c_long>()).zip(0..).try_for_each(|(word, number)| {
            let word = c_long::from_ne_bytes(word.try_into().map_err(|_| Errno::INVAL)?);
            let at = address + number * size_of::<c_long>() as u64;
            checked(libc::ptrace(libc::PTRACE_POKEDATA, pid, at as *mut c_void, word)).map(drop)
        });
        checked(libc::ptrace(libc::PTRACE_DETACH, pid, nothing, nothing))?;
        written
    }
}

/// Makes another process close descriptors, which is at a system call and has stopped there.
pub(super) fn make_close(pid: u32, descriptors: &[i32]) -> Result<(), Errno> {
    /// The length of the instruction that makes a system call.
    const INSTRUCTION: u64 = 2;
    let pid = pid.cast_signed();
    let nothing = std::ptr::null_mut::<c_void>();
    // SAFETY: these calls change only another process. The status is a number, and the registers have the size that the
    // kernel expects; they consist of numbers, for which zero is valid.
    unsafe {
        checked(libc::ptrace(libc::PTRACE_ATTACH, pid, nothing, nothing))?;
        checked(libc::waitpid(pid, &mut 0, libc::__WALL))?;
        let mut before: libc::user_regs_struct = std::mem::zeroed();
        checked(libc::ptrace(libc::PTRACE_GETREGS, pid, nothing, &raw mut before))?;
        let closed = descriptors.iter().try_for_each(|descriptor| {
            let mut registers = before;
            registers.rip -= INSTRUCTION;
            registers.rax = libc::SYS_close.cast_unsigned();
            registers.rdi = u64::from(descriptor.cast_unsigned());
            // The kernel must not repeat the call that was interrupted.
            registers.orig_rax = u64::MAX;
            checked(libc::ptrace(libc::PTRACE_SETREGS, pid, nothing, &raw const registers))?;
            checked(libc::ptrace(libc::PTRACE_SINGLESTEP, pid, nothing, nothing))?;
            checked(libc::waitpid(pid, &mut 0, libc::__WALL))?;
            checked(libc::ptrace(libc::PTRACE_GETREGS, pid, nothing, &raw mut registers))?;
            if registers.rax == 0 { Ok(()) } else { Err(Errno::BADF) }
        });
        checked(libc::ptrace(libc::PTRACE_SETREGS, pid, nothing, &raw const before))?;
        checked(libc::ptrace(libc::PTRACE_DETACH, pid, nothing, nothing))?;
        closed
    }
}

/// Disables a perf event.
pub(super) fn disable_event(event: OwnedFd) -> Result<(), Errno> {
    /// `PERF_EVENT_IOC_DISABLE` (include/uapi/linux/perf_event.h).
    const DISABLE: libc::c_ulong = 0x2401;
    // SAFETY: the operation has no argument but a flag.
    checked(unsafe { libc::ioctl(event.as_raw_fd(), DISABLE, 0) }).map(drop)
}

/// Ends the calling thread, and not its process (exit(2)).
pub(super) fn end_thread() -> ! {
    // SAFETY: the thread's resources are not freed, so other threads can still use them.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    unreachable!("the thread has ended")
}

/// Attaches a file to a loop device.
pub(super) fn attach_loop(device: impl AsFd, file: &File) -> Result<(), Errno> {
    /// `LOOP_SET_FD` (include/uapi/linux/loop.h).
    const SET_FD: libc::c_ulong = 0x4c00;
    // SAFETY: the argument is a descriptor.
    checked(unsafe { libc::ioctl(device.as_fd().as_raw_fd(), SET_FD, file.as_raw_fd()) }).map(drop)
}

/// Detaches the file that [`attach_loop`] has attached.
pub(super) fn detach_loop(device: impl AsFd) -> Result<(), Errno> {
    /// `LOOP_CLR_FD` (include/uapi/linux/loop.h).
    const CLEAR_FD: libc::c_ulong = 0x4c01;
    // SAFETY: the operation has no argument.
    checked(unsafe { libc::ioctl(device.as_fd().as_raw_fd(), CLEAR_FD, 0) }).map(drop)
}
