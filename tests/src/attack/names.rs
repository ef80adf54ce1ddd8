//! Creates, changes and removes names of files.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::fs::{AtFlags, CWD, Dev, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use serde_json::{Value, json};

use super::answer::unless_older;
use super::effect::{identity, verify};
use super::operation::Operation;
use super::uring;
use crate::image::MARK;

/// The target of a symbolic link.
const TARGET: &str = "/data/elsewhere";

/// The operations of this module.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation::on("mkdir", "makes a directory", |path| make("mkdir", path, false)),
    Operation::on("uring-mkdir", "makes a directory with io_uring", |path| make("mkdir", path, true)),
    Operation::on("mknod", "makes a named pipe", |path| make("mknod", path, false)),
    Operation::on("mknod-file", "makes a file with mknod(2)", |path| make("mknod-file", path, false)),
    Operation::on("mknod-device", "makes a device", |path| make("mknod-device", path, false)),
    Operation::on("bind-socket", "binds a socket to a new name", |path| make("bind-socket", path, false)),
    Operation::on("symlink", "makes a symbolic link", |path| link_symbolically(path, false)),
    Operation::on("uring-symlink", "makes a symbolic link with io_uring", |path| link_symbolically(path, true)),
    Operation::on_two("link", "PATH NEW", "makes a hard link", |path, new| link(path, new, false)),
    Operation::on_two("uring-link", "PATH NEW", "makes a hard link with io_uring", |path, new| link(path, new, true)),
    Operation::on("make-unnamed", "makes a file without a name in a directory, with O_TMPFILE", |folder| {
        make_unnamed(folder)?;
        Ok(Value::Null)
    }),
    Operation::on_two("tmpfile", "DIRECTORY NEW", "makes a file without a name, which then gets one", name_later),
    Operation::on_two("rename", "PATH NEW", "renames a file or directory", |path, new| rename(path, new, false)),
    Operation::on_two("uring-rename", "PATH NEW", "renames with io_uring", |path, new| rename(path, new, true)),
    Operation::on_two("exchange", "PATH PATH", "exchanges two names", exchange),
    Operation::on("unlink", "removes a file", |path| remove("unlink", path, false)),
    Operation::on("uring-unlink", "removes a file with io_uring", |path| remove("unlink", path, true)),
    Operation::on("rmdir", "removes a directory", |path| remove("rmdir", path, false)),
    Operation::on("uring-rmdir", "removes a directory with io_uring", |path| remove("rmdir", path, true)),
];

fn make(operation: &str, path: &Path, by_uring: bool) -> Result<Value> {
    let node = |kind, device| rustix::fs::mknodat(CWD, path, kind, Mode::RUSR | Mode::WUSR, device);
    match operation {
        _ if by_uring => uring::name(operation, path, path)?,
        "mkdir" => fs::create_dir(path)?,
        "mknod" => node(FileType::Fifo, 0)?,
        "mknod-file" => node(FileType::RegularFile, 0)?,
        "mknod-device" => node(FileType::CharacterDevice, null_device())?,
        _ => drop(UnixListener::bind(path)?),
    }
    let found = fs::symlink_metadata(path)?.file_type();
    let is_made = match operation {
        "mkdir" => found.is_dir(),
        "mknod" => found.is_fifo(),
        "mknod-file" => found.is_file(),
        "mknod-device" => found.is_char_device(),
        _ => found.is_socket(),
    };
    ensure!(is_made, "{} is {found:?}", path.display());
    identity(path)
}

/// The device number of /dev/null.
fn null_device() -> Dev {
    rustix::fs::makedev(1, 3)
}

fn link_symbolically(path: &Path, by_uring: bool) -> Result<Value> {
    match by_uring {
        true => uring::name("symlink", Path::new(TARGET), path)?,
        false => symlink(TARGET, path)?,
    }
    ensure!(fs::read_link(path)? == Path::new(TARGET), "{} leads elsewhere", path.display());
    identity(path)
}

fn link(path: &Path, new: &Path, by_uring: bool) -> Result<Value> {
    match by_uring {
        true => uring::name("link", path, new)?,
        false => fs::hard_link(path, new)?,
    }
    ensure!(identity(path)? == identity(new)?, "{} is another file", new.display());
    identity(new)
}

fn make_unnamed(folder: &Path) -> Result<OwnedFd> {
    let file = rustix::fs::open(folder, OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::from(0o600))
        .map_err(|error| unless_older(error, &[Errno::OPNOTSUPP], "O_TMPFILE on an overlay", (6, 10)))?;
    rustix::io::write(&file, MARK)?;
    Ok(file)
}

fn name_later(folder: &Path, new: &Path) -> Result<Value> {
    let file = make_unnamed(folder)?;
    let name = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, name, CWD, new, AtFlags::SYMLINK_FOLLOW)?;
    verify(new)
}

fn rename(path: &Path, new: &Path, by_uring: bool) -> Result<Value> {
    let before = identity(path)?;
    match by_uring {
        true => uring::name("rename", path, new)?,
        false => fs::rename(path, new)?,
    }
    ensure!(!exists(path)? && identity(new)? == before, "{} was not moved", path.display());
    Ok(before)
}

fn exchange(path: &Path, other: &Path) -> Result<Value> {
    let before = (identity(path)?, identity(other)?);
    rustix::fs::renameat_with(CWD, path, CWD, other, RenameFlags::EXCHANGE)?;
    let after = (identity(path)?, identity(other)?);
    ensure!(after.0 == before.1 && after.1 == before.0, "{} was not exchanged", path.display());
    Ok(json!([before.0, before.1]))
}

fn remove(operation: &str, path: &Path, by_uring: bool) -> Result<Value> {
    let before = identity(path)?;
    match operation {
        _ if by_uring => uring::name(operation, path, path)?,
        "unlink" => fs::remove_file(path)?,
        _ => fs::remove_dir(path)?,
    }
    ensure!(!exists(path)?, "{} is still there", path.display());
    Ok(before)
}

fn exists(path: &Path) -> Result<bool> {
    path.try_exists().with_context(|| format!("cannot look at {}", path.display()))
}
