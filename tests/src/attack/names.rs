//! Ways to make, change and remove names.

use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::fs::{AtFlags, CWD, Dev, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use serde_json::{Value, json};

use super::answer::unless_older;
use super::{MARK, identity, uring, verify};

/// Where a symbolic link points.
const TARGET: &str = "/data/elsewhere";

pub(super) fn perform(operation: &str, paths: &[&Path]) -> Option<Result<Value>> {
    let (operation, by_uring) = match operation.strip_prefix("uring-") {
        Some(operation) => (operation, true),
        None => (operation, false),
    };
    Some(match (operation, paths) {
        ("mkdir" | "mknod" | "mknod-file" | "mknod-device" | "bind-socket", [path]) => make(operation, path, by_uring),
        ("symlink", [path]) => link_symbolically(path, by_uring),
        ("link", [path, new]) => link(path, new, by_uring),
        ("tmpfile", [folder, new]) => temporary(folder, Some(new)),
        ("tmpfile", [folder]) => temporary(folder, None),
        ("rename", [path, new]) => rename(path, new, by_uring),
        ("exchange", [path, other]) => exchange(path, other),
        ("unlink" | "rmdir", [path]) => remove(operation, path, by_uring),
        _ => return None,
    })
}

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

/// The number of /dev/null.
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

/// A file without a name, which then gets one.
fn temporary(folder: &Path, new: Option<&Path>) -> Result<Value> {
    let file = rustix::fs::open(folder, OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::from(0o600))
        .map_err(|error| unless_older(error, &[Errno::OPNOTSUPP], "O_TMPFILE on an overlay", (6, 10)))?;
    rustix::io::write(&file, MARK)?;
    let Some(new) = new else { return Ok(Value::Null) };
    let name = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
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
