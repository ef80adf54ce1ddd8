//! Supervises system calls with seccomp, which can put a descriptor into another process.

#![expect(unsafe_code, reason = "no library has seccomp's notifications")]

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::ioctl::{Opcode, opcode};

/// The supervised system call, which nothing else uses.
const CALL: libc::c_long = libc::SYS_getppid;
/// The ioctls of the supervising descriptor (include/uapi/linux/seccomp.h).
const RECEIVE: Opcode = opcode::read_write::<libc::seccomp_notif>(b'!', 0);
const SEND: Opcode = opcode::read_write::<libc::seccomp_notif_resp>(b'!', 1);
const ADD_DESCRIPTOR: Opcode = opcode::write::<libc::seccomp_notif_addfd>(b'!', 3);

/// Makes the owner of the returned descriptor answer this thread's [`CALL`].
pub(super) fn be_supervised() -> Result<OwnedFd> {
    rustix::thread::set_no_new_privs(true)?;
    let statement = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        // The number of the system call is at the beginning of `struct seccomp_data`.
        statement((libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, 0, 0, 0),
        statement((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, 0, 1, CALL as u32),
        statement((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, libc::SECCOMP_RET_USER_NOTIF),
        statement((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program lives until the call returns.
    let listener = unsafe {
        let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
        libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program)
    };
    descriptor(listener).context("cannot supervise system calls")
}

/// Makes the supervised call, which returns a descriptor.
pub(super) fn ask() -> Result<OwnedFd> {
    // SAFETY: the call has no arguments.
    descriptor(unsafe { libc::syscall(CALL) })
}

fn descriptor(answer: libc::c_long) -> Result<OwnedFd> {
    let number = i32::try_from(answer)?;
    if number < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    // SAFETY: the kernel has just created the descriptor for this process.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Waits for the supervised call, puts the file into the calling process, and answers with the descriptor's number.
pub(super) fn answer_with(listener: &OwnedFd, file: &File) -> Result<()> {
    let call = |opcode: Opcode, argument: *mut libc::c_void| -> Result<i32> {
        // SAFETY: each argument below has the type for which its opcode was made.
        match unsafe { libc::ioctl(listener.as_raw_fd(), opcode.into(), argument) } {
            answer @ 0.. => Ok(answer),
            _ => Err(std::io::Error::last_os_error().into()),
        }
    };
    // SAFETY: the structure consists of numbers, for which zero is valid.
    let mut notice: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    call(RECEIVE, (&raw mut notice).cast()).context("cannot receive the supervised call")?;
    let mut added = libc::seccomp_notif_addfd {
        id: notice.id,
        flags: 0,
        srcfd: file.as_raw_fd().cast_unsigned(),
        newfd: 0,
        newfd_flags: 0,
    };
    let number = call(ADD_DESCRIPTOR, (&raw mut added).cast()).context("cannot add a descriptor")?;
    let mut answer = libc::seccomp_notif_resp { id: notice.id, val: number.into(), error: 0, flags: 0 };
    call(SEND, (&raw mut answer).cast()).context("cannot answer the supervised call")?;
    Ok(())
}
