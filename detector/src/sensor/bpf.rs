//! The one call of bpf(2) that aya does not make for us.

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// `BPF_OBJ_GET_INFO_BY_FD` of include/uapi/linux/bpf.h.
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;

/// `struct bpf_prog_info` of include/uapi/linux/bpf.h, up to what is read of it. All of it is zero when the kernel gets
/// it, so that it has no place to put instructions or tables into.
#[repr(C)]
struct ProgramInfo {
    /// From `type` to `run_cnt`.
    before: [u64; 26],
    recursion_misses: u64,
}

/// The part of `union bpf_attr` that the command is about.
#[repr(C)]
struct Attributes {
    fd: u32,
    length: u32,
    info: u64,
}

/// How many calls of a program the kernel has skipped because the program, or another BPF program that cannot run at the
/// same time, was running on that CPU: `bpf_prog_info.recursion_misses` (`bpf_prog_get_info_by_fd`, kernel/bpf/syscall.c,
/// from 5.12). `None`: an older kernel, which does not count.
#[expect(unsafe_code, reason = "aya does not expose this member of bpf_prog_info")]
pub(super) fn skipped_calls(program: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    let mut info = ProgramInfo { before: [0; 26], recursion_misses: 0 };
    let mut attributes = Attributes {
        fd: program.as_raw_fd().cast_unsigned(),
        length: size_of::<ProgramInfo>() as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: the attributes are the command's, of the size that is given. The kernel writes `length` bytes to `info` at
    // most, which is what `info` has, and sets `length`; both live until the call returns.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, OBJ_GET_INFO_BY_FD, &raw mut attributes, size_of::<Attributes>()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let is_counted = attributes.length as usize >= offset_of!(ProgramInfo, recursion_misses) + size_of::<u64>();
    Ok(is_counted.then_some(info.recursion_misses))
}
