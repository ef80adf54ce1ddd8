//! Changes files with io_uring, where kernel threads make the calls.

#![expect(unsafe_code, reason = "the kernel keeps pointers to what is in the queue")]

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Error, Result, bail};
use io_uring::types::{DestinationSlot, Fd, Fixed};
use io_uring::{IoUring, opcode, squeue};
use rustix::io::Errno;

use super::answer::unless_older;

/// The current directory, for relative paths.
const CWD: Fd = Fd(libc::AT_FDCWD);
/// How long the polling thread looks for work before it sleeps, in milliseconds.
const POLLING: u32 = 100;

/// A way to write with io_uring.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// The default.
    Plain,
    /// By a worker thread.
    Async,
    /// With a registered file and a registered buffer.
    Fixed,
    /// With both registered, and submitted by a kernel thread without a system call.
    Polled,
}

/// Submits an entry, and waits for its completion.
///
/// # Safety
///
/// The memory that the entry refers to must live until this returns.
unsafe fn perform(ring: &mut IoUring, entry: &squeue::Entry) -> Result<u32, Errno> {
    let error = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    // SAFETY: the caller keeps the memory alive, and `submit_and_wait` returns after the completion.
    unsafe { ring.submission().push(entry) }.map_err(|_| Errno::BUSY)?;
    ring.submit_and_wait(1).map_err(error)?;
    let answer = ring.completion().next().ok_or(Errno::IO)?.result();
    u32::try_from(answer).map_err(|_| Errno::from_raw_os_error(-answer))
}

/// Writes to the start of a file.
pub(super) fn write(file: &File, bytes: &[u8], how: How) -> Result<usize> {
    // A registered buffer must be writable.
    let mut copy = bytes.to_vec();
    let mut builder = IoUring::builder();
    if how == How::Polled {
        builder.setup_sqpoll(POLLING);
    }
    let mut ring = builder.build(1).context("cannot set up io_uring")?;
    let (start, length) = (bytes.as_ptr(), u32::try_from(bytes.len())?);
    let entry = match how {
        How::Plain => opcode::Write::new(Fd(file.as_raw_fd()), start, length).build(),
        How::Async => opcode::Write::new(Fd(file.as_raw_fd()), start, length).build().flags(squeue::Flags::ASYNC),
        How::Fixed | How::Polled => {
            ring.submitter().register_files(&[file.as_raw_fd()])?;
            let memory = libc::iovec { iov_base: copy.as_mut_ptr().cast(), iov_len: copy.len() };
            // SAFETY: the copy lives longer than the ring.
            unsafe { ring.submitter().register_buffers(&[memory])? };
            opcode::WriteFixed::new(Fixed(0), copy.as_ptr(), length, 0).build()
        }
    };
    // SAFETY: the caller keeps the bytes alive, and the copy is dropped after the ring.
    Ok(unsafe { perform(&mut ring, &entry)? } as usize)
}

/// Registers a buffer, which locks its memory.
pub(super) fn register(buffer: &mut [u8]) -> Result<()> {
    let ring = IoUring::new(1)?;
    let memory = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: the buffer lives longer than the ring.
    unsafe { ring.submitter().register_buffers(&[memory]) }.map_err(Error::from)
}

/// Opens a file for writing.
pub(super) fn open(path: &Path) -> Result<File> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let flags = libc::O_WRONLY | libc::O_CLOEXEC;
    let entry = opcode::OpenAt::new(CWD, path.as_ptr()).flags(flags).build();
    // SAFETY: the path lives until the end of the function.
    let number = unsafe { perform(&mut IoUring::new(1)?, &entry)? };
    // SAFETY: the descriptor is new, so nothing else owns it.
    Ok(unsafe { File::from_raw_fd(number.cast_signed()) })
}

/// Opens a file and writes to it without adding it to the process's descriptors.
pub(super) fn open_direct(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut ring = IoUring::new(1)?;
    ring.submitter().register_files(&[-1])?;
    let path = CString::new(path.as_os_str().as_bytes())?;
    let slot = DestinationSlot::try_from_slot_target(0).ok().context("there is a slot 0")?;
    let open = opcode::OpenAt::new(CWD, path.as_ptr()).flags(libc::O_WRONLY).file_index(Some(slot)).build();
    let write = opcode::Write::new(Fixed(0), bytes.as_ptr(), u32::try_from(bytes.len())?).build();
    // SAFETY: the path and the bytes live until the end of the function.
    unsafe {
        perform(&mut ring, &open)
            .map_err(|error| unless_older(error, &[Errno::INVAL], "io_uring's open without descriptor", (5, 15)))?;
        perform(&mut ring, &write)?;
    }
    Ok(())
}

/// Creates, renames or removes a name.
pub(super) fn name(operation: &str, path: &Path, other: &Path) -> Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let other = CString::new(other.as_os_str().as_bytes())?;
    let (one, two) = (path.as_ptr(), other.as_ptr());
    let (entry, since) = match operation {
        "rename" => (opcode::RenameAt::new(CWD, one, CWD, two).build(), (5, 11)),
        "unlink" => (opcode::UnlinkAt::new(CWD, one).build(), (5, 11)),
        "rmdir" => (opcode::UnlinkAt::new(CWD, one).flags(libc::AT_REMOVEDIR).build(), (5, 11)),
        "mkdir" => (opcode::MkDirAt::new(CWD, one).mode(0o755).build(), (5, 15)),
        "symlink" => (opcode::SymlinkAt::new(CWD, one, two).build(), (5, 15)),
        "link" => (opcode::LinkAt::new(CWD, one, CWD, two).build(), (5, 15)),
        _ => bail!("io_uring has no {operation}"),
    };
    // SAFETY: the paths live until the end of the function.
    let done = unsafe { perform(&mut IoUring::new(1)?, &entry) };
    done.map(drop).map_err(|error| unless_older(error, &[Errno::INVAL], &format!("io_uring's {operation}"), since))
}
