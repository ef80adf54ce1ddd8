//! The calls of bpf(2) that aya does not make for this project.

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// `BPF_MAP_FREEZE` of include/uapi/linux/bpf.h.
const MAP_FREEZE: libc::c_long = 22;
/// `BPF_OBJ_GET_INFO_BY_FD` of the same file.
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;

/// The beginning of `struct bpf_prog_info` of include/uapi/linux/bpf.h, up to the last member that is read. It is all
/// zero when it is passed to the kernel, so the kernel finds no buffers into which it could copy instructions or
/// tables.
#[repr(C)]
struct ProgramInfo {
    /// The members from `type` to `run_time_ns`.
    before: [u64; 25],
    run_cnt: u64,
    recursion_misses: u64,
}

/// The part of `union bpf_attr` that the command uses.
#[repr(C)]
struct Attributes {
    fd: u32,
    length: u32,
    info: u64,
}

/// How often the kernel has run a program while it counted runs: `bpf_prog_info.run_cnt` (from 5.1). It counts while a
/// descriptor is open that `BPF_ENABLE_STATS` returned.
pub(super) fn runs(program: BorrowedFd<'_>) -> io::Result<u64> {
    let (info, _) = information(program)?;
    Ok(info.run_cnt)
}

/// How many calls of a program the kernel has skipped because the program, or another BPF program that cannot run at
/// the same time, was running on that CPU: `bpf_prog_info.recursion_misses` (`bpf_prog_get_info_by_fd`,
/// kernel/bpf/syscall.c, from 5.12). Returns `None` on an older kernel, which does not count them.
pub(super) fn skipped_calls(program: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    let (info, length) = information(program)?;
    let is_counted = length >= offset_of!(ProgramInfo, recursion_misses) + size_of::<u64>();
    Ok(is_counted.then_some(info.recursion_misses))
}

/// The kernel's information about a program, and how many bytes of it the kernel has filled in.
#[expect(unsafe_code, reason = "aya does not expose all of bpf_prog_info")]
fn information(program: BorrowedFd<'_>) -> io::Result<(ProgramInfo, usize)> {
    let mut info = ProgramInfo { before: [0; 25], run_cnt: 0, recursion_misses: 0 };
    let mut attributes = Attributes {
        fd: program.as_raw_fd().cast_unsigned(),
        length: size_of::<ProgramInfo>() as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: the attributes are those of the command and have the given size. The kernel writes at most `length` bytes
    // to `info`, which is the size of `info`, and sets `length`; both live until the call returns.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, OBJ_GET_INFO_BY_FD, &raw mut attributes, size_of::<Attributes>()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((info, attributes.length as usize))
}

/// Makes a map read-only for all processes, but not for the probes (`map_freeze`, kernel/bpf/syscall.c).
#[expect(unsafe_code, reason = "aya makes only maps of constants read-only")]
pub(super) fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = [map.as_raw_fd()];
    // SAFETY: the only attribute of the command is the descriptor, and the size is that of the attribute.
    let result = unsafe { libc::syscall(libc::SYS_bpf, MAP_FREEZE, attributes.as_ptr(), size_of_val(&attributes)) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
