//! Changes the content of files through descriptors.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{IoSlice, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FallocateFlags, MemfdFlags};
use rustix::io::ReadWriteFlags;
use rustix::mm::ProtFlags;
use rustix::pipe::SpliceFlags;
use serde_json::Value;

use super::effect::{identity, is_marked, verify};
use super::operation::Operation;
use super::{raw, uring};
use crate::image::{MARK, SOURCE};

/// The operations of this module.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation::with("write", "METHOD PATH", "opens a file, and changes it by a method", 2, |args| {
        opened(&args[0], Path::new(&args[1]))
    }),
    Operation::on_held("write-held", "METHOD PATH", "changes a file that is held open by a method", 2, |args, held| {
        through(&args[0], held.get(&args[1]).context("the file is not held open")?, Path::new(&args[1]))
    }),
];

fn opened(method: &OsStr, path: &Path) -> Result<Value> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    through(method, &file, path)
}

/// Changes the file at `path` through a descriptor.
fn through(method: &OsStr, file: &File, path: &Path) -> Result<Value> {
    let method = method.to_str().unwrap_or_default();
    let before = fs::read(path)?;
    ensure!(!is_marked(path)? && !before.is_empty(), "{} is not as it should be", path.display());
    store(method, file).with_context(|| format!("{method} failed"))?;
    let after = fs::read(path)?;
    let is_changed = match method {
        "fallocate" => after.len() == LONGER as usize,
        "punch_hole" => after == vec![0; before.len()],
        "ftruncate" => after == before[..1],
        _ => return verify(path),
    };
    ensure!(is_changed, "{} was not changed", path.display());
    identity(path)
}

/// A length that no file has.
const LONGER: u64 = 12_345;

fn store(method: &str, mut file: &File) -> Result<()> {
    file.rewind()?;
    match method {
        "write" => file.write_all(MARK)?,
        "pwrite" => file.write_all_at(MARK, 0)?,
        "writev" => whole(file.write_vectored(&[IoSlice::new(&MARK[..4]), IoSlice::new(&MARK[4..])])?)?,
        "pwritev2" => whole(rustix::io::pwritev2(file, &[IoSlice::new(MARK)], 0, ReadWriteFlags::DSYNC)?)?,
        "uring" => whole(uring::write(file, MARK, uring::How::Plain)?)?,
        "uring_fixed" => whole(uring::write(file, MARK, uring::How::Fixed)?)?,
        "uring_async" => whole(uring::write(file, MARK, uring::How::Async)?)?,
        "uring_sqpoll" => whole(uring::write(file, MARK, uring::How::Polled)?)?,
        "aio" => whole(raw::aio_write(file, MARK)?)?,
        "splice" => {
            let (reader, writer) = rustix::pipe::pipe()?;
            rustix::io::write(writer, MARK)?;
            whole(rustix::pipe::splice(reader, None, file, None, MARK.len(), SpliceFlags::empty())?)?;
        }
        "vmsplice" => {
            let (reader, writer) = rustix::pipe::pipe()?;
            whole(raw::vmsplice(&writer, MARK)?)?;
            whole(rustix::pipe::splice(reader, None, file, None, MARK.len(), SpliceFlags::empty())?)?;
        }
        "sendfile" => {
            let memory = File::from(rustix::fs::memfd_create(c"memory", MemfdFlags::CLOEXEC)?);
            memory.write_all_at(MARK, 0)?;
            whole(rustix::fs::sendfile(file, memory, Some(&mut 0), MARK.len())?)?;
        }
        "copy_range" => {
            let source = File::open(SOURCE)?;
            whole(rustix::fs::copy_file_range(source, Some(&mut 0), file, Some(&mut 0), MARK.len())?)?;
        }
        "clone" => rustix::fs::ioctl_ficlone(file, File::open(SOURCE)?)?,
        "fallocate" => rustix::fs::fallocate(file, FallocateFlags::empty(), 0, LONGER)?,
        "punch_hole" => {
            rustix::fs::fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, LONGER)?;
        }
        "ftruncate" => file.set_len(1)?,
        "mmap" => mapped(file, ProtFlags::READ | ProtFlags::WRITE)?.store(MARK),
        "mprotect" => {
            let mut map = mapped(file, ProtFlags::READ)?;
            map.allow_writing()?;
            map.store(MARK);
        }
        "process_vm_writev" | "ptrace" | "proc_mem" => by_another_process(method, file)?,
        _ => bail!("unknown way to write"),
    }
    Ok(())
}

fn whole(written: usize) -> Result<()> {
    ensure!(written == MARK.len(), "only {written} bytes were written");
    Ok(())
}

/// Writes through a shared mapping of the beginning of a file.
fn mapped(file: &File, protection: ProtFlags) -> Result<raw::Map> {
    // Writes behind the end of a file are not stored.
    ensure!(file.metadata()?.len() >= MARK.len() as u64, "the file is too short");
    Ok(raw::Map::shared(file, MARK.len(), protection)?)
}

/// Maps a file in this process, and writes to the memory in a child.
fn by_another_process(method: &str, file: &File) -> Result<()> {
    let map = mapped(file, ProtFlags::READ | ProtFlags::WRITE)?;
    let mut child = Command::new("/proc/self/exe");
    child.args(["poke", method, &std::process::id().to_string(), &map.address().to_string()]);
    let output = child.stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Writes to the memory of another process.
pub(super) fn poke(method: &OsStr, pid: u32, address: u64) -> Result<Value> {
    match method.to_str().unwrap_or_default() {
        "process_vm_writev" => whole(raw::process_vm_writev(pid, address, MARK)?)?,
        "ptrace" => raw::ptrace_write(pid, address, MARK)?,
        _ => OpenOptions::new().write(true).open(format!("/proc/{pid}/mem"))?.write_all_at(MARK, address)?,
    }
    Ok(Value::Null)
}
