//! Operations that are no attack: those on files outside the image, those that only read, and those that fail.

use std::ffi::CStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::fs::{Access, CWD, Mode, OFlags, RenameFlags, Timespec, Timestamps, XattrFlags};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde_json::Value;

use super::effect::verify;
use super::operation::Operation;
use super::{raw, uring};
use crate::image::MARK;
use crate::program::wait_for;

/// The operations of this module.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation::plain("harmless", "writes to everything that is not the image", everything),
    Operation::plain("lock-memory", "locks some memory for io_uring and for sending without a copy", lock_memory),
    Operation::plain("make-map", "makes a BPF map", make_map),
    Operation::on("look", "does everything with a file that does not change it", look),
    Operation::on("denied", "tries to change a file, and lacks the permission", |path| denied(path, true)),
    Operation::on("read-only", "tries to change a file of a read-only file system", |path| denied(path, false)),
    Operation::on_two("fail", "FILE DIRECTORY", "tries changes that are allowed and cannot succeed", fail),
    Operation::on("elsewhere", "makes every change in a directory that is not the image's", elsewhere),
    Operation::on("mount-elsewhere", "mounts in a directory that is not the image's", mount_elsewhere),
];

fn everything() -> Result<Value> {
    for path in ["/data/file", "/dev/shm/file"] {
        fs::write(path, MARK)?;
        verify(Path::new(path))?;
    }
    fs::write("/dev/null", MARK)?;
    fs::write("/proc/self/comm", "renamed")?;
    ensure!(fs::read("/proc/self/comm")? == b"renamed\n", "comm was not written");
    let mut content = vec![0; MARK.len()];
    let (mut reader, mut writer) = std::io::pipe()?;
    writer.write_all(MARK)?;
    reader.read_exact(&mut content)?;
    let (one, mut other) = UnixStream::pair()?;
    // This is a file because the socket type has its own sending methods.
    File::from(OwnedFd::from(one)).write_all(MARK)?;
    other.read_exact(&mut content)?;
    ensure!(content == MARK, "the socket gave something else");
    let mut memory = File::from(rustix::fs::memfd_create(c"memory", rustix::fs::MemfdFlags::CLOEXEC)?);
    memory.write_all(MARK)?;
    Ok(Value::Null)
}

/// Allows this process to lock only a little memory, as is usual.
fn limit_locked_memory() -> Result<()> {
    const USUAL: Option<u64> = Some(64 << 10);
    Ok(setrlimit(Resource::Memlock, Rlimit { current: USUAL, maximum: USUAL })?)
}

fn lock_memory() -> Result<Value> {
    limit_locked_memory()?;
    let receiver = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let sender = TcpStream::connect(receiver.local_addr()?)?;
    let mut bytes = [0; 4096];
    let mut lock = || {
        let sent = raw::send_without_copy(&sender, &bytes).context("cannot send without a copy")?;
        ensure!(sent > 0, "nothing was sent");
        uring::register(&mut bytes).context("cannot register a buffer with io_uring")
    };
    // What earlier programs of the user have locked is freed some time after they have ended.
    let mut last = Ok(());
    wait_for("memory that can be locked", Duration::from_secs(10), || {
        last = lock();
        Ok(last.is_ok().then_some(()))
    })
    .or(last)?;
    Ok(Value::Null)
}

fn make_map() -> Result<Value> {
    limit_locked_memory()?;
    raw::make_map().context("cannot make a BPF map")?;
    Ok(Value::Null)
}

fn look(path: &Path) -> Result<Value> {
    let before = (fs::read(path)?, fs::metadata(path)?.ctime_nsec());
    fs::read_dir("/srv")?.count();
    rustix::fs::access(path, Access::WRITE_OK)?;
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let file = File::open(path)?;
    let mut map = raw::Map::private(&file, MARK.len())?;
    map.store(MARK);
    raw::Map::shared(&file, MARK.len(), rustix::mm::ProtFlags::READ)?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)?;
    file.sync_all()?;
    ensure!((fs::read(path)?, fs::metadata(path)?.ctime_nsec()) == before, "{} was changed", path.display());
    Ok(Value::Null)
}

/// The error of an attempt that had to fail.
fn refused<T>(what: &str, attempt: std::io::Result<T>) -> Result<()> {
    let Err(error) = attempt else { anyhow::bail!("{what} was not refused") };
    let kinds = [
        ErrorKind::PermissionDenied,
        ErrorKind::ReadOnlyFilesystem,
        ErrorKind::AlreadyExists,
        ErrorKind::NotFound,
        ErrorKind::DirectoryNotEmpty,
        ErrorKind::NotADirectory,
        ErrorKind::IsADirectory,
        ErrorKind::ExecutableFileBusy,
        ErrorKind::CrossesDevices,
        ErrorKind::InvalidInput,
    ];
    // `ErrorKind` has no variant for EBADF.
    let is_bad_descriptor = error.raw_os_error() == Some(rustix::io::Errno::BADF.raw_os_error());
    ensure!(kinds.contains(&error.kind()) || is_bad_descriptor, "{what} failed otherwise: {error}");
    Ok(())
}

/// Tries to change a file without permission: with `by_mode` because of its owner and mode, otherwise because the file
/// system is read-only.
fn denied(path: &Path, by_mode: bool) -> Result<Value> {
    let before = (fs::read(path)?, fs::metadata(path)?.ctime_nsec());
    let folder = path.parent().unwrap_or(path);
    let new = folder.join("denied");
    let now = Timestamps {
        last_access: Timespec { tv_sec: 1, tv_nsec: 0 },
        last_modification: Timespec { tv_sec: 1, tv_nsec: 0 },
    };
    let no_flags = rustix::fs::AtFlags::empty();
    let write = || OpenOptions::new().write(true).clone();
    refused("an open", write().open(path))?;
    refused("an open that truncates", write().truncate(true).open(path))?;
    refused("an open that creates", write().create_new(true).open(&new))?;
    refused("an open below a file", write().open(path.join("missing")))?;
    // This reaches vfs_write and fails there.
    refused("a write to a descriptor that reads", File::open(path)?.write(MARK))?;
    refused("truncate", raw::truncate(path, 0).map_err(Into::into))?;
    refused("chmod", fs::set_permissions(path, Permissions::from_mode(0o777)))?;
    refused("chown", chown(path, Some(1), Some(1)))?;
    refused("utimensat", rustix::fs::utimensat(CWD, path, &now, no_flags).map_err(Into::into))?;
    let set = |name, value: &[u8]| rustix::fs::setxattr(path, name, value, XattrFlags::empty()).map_err(Into::into);
    refused("setxattr", set("trusted.attacker", b"x"))?;
    refused("unlink", fs::remove_file(path))?;
    refused("rename", fs::rename(path, &new))?;
    refused("link", fs::hard_link(path, &new))?;
    refused("mkdir", fs::create_dir(&new))?;
    refused("symlink", symlink("x", &new))?;
    if by_mode {
        refused("mount", mount("x", folder, "tmpfs", MountFlags::empty(), None::<&CStr>).map_err(Into::into))?;
        refused("umount", unmount("/data", UnmountFlags::DETACH).map_err(Into::into))?;
        refused("chroot", rustix::process::chroot(folder).map_err(Into::into))?;
    }
    ensure!((fs::read(path)?, fs::metadata(path)?.ctime_nsec()) == before, "{} was changed", path.display());
    Ok(Value::Null)
}

/// Tries changes that are permitted but cannot succeed. `path` is a file, and `directory` is not empty.
fn fail(path: &Path, directory: &Path) -> Result<Value> {
    let missing = directory.join("missing");
    let exclusive = |from: &Path, to: &Path| {
        rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE).map_err(Into::into)
    };
    refused("an exclusive open", OpenOptions::new().write(true).create_new(true).open(path))?;
    refused("an open of a directory", OpenOptions::new().write(true).open(directory))?;
    refused("unlink of a missing file", fs::remove_file(&missing))?;
    refused("rename of a missing file", fs::rename(&missing, path))?;
    refused("rename to what is there", exclusive(path, Path::new("/etc/passwd")))?;
    refused("link to what is there", fs::hard_link(path, "/etc/passwd"))?;
    refused("mkdir of what is there", fs::create_dir(directory))?;
    refused("rmdir of a file", fs::remove_dir(path))?;
    refused("rmdir of a directory that is not empty", fs::remove_dir(directory))?;
    refused("rename over a directory that is not empty", fs::rename("/srv/places", directory))?;
    refused("rename of a file over a directory", fs::rename(path, directory))?;
    Ok(Value::Null)
}

fn elsewhere(directory: &Path) -> Result<Value> {
    let folder = directory.join("elsewhere");
    fs::create_dir(&folder)?;
    let at = |name: &str| folder.join(name);
    let file = at("file");
    fs::write(&file, MARK)?;
    let mut opened = OpenOptions::new().read(true).write(true).open(&file)?;
    raw::Map::shared(&opened, MARK.len(), rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE)?.store(MARK);
    opened.write_all(MARK)?;
    opened.set_len(1)?;
    fs::set_permissions(&file, Permissions::from_mode(0o755))?;
    chown(&file, Some(1), Some(1))?;
    fs::create_dir(at("directory"))?;
    symlink("x", at("symlink"))?;
    fs::hard_link(&file, at("link"))?;
    drop(UnixDatagram::bind(at("socket"))?);
    fs::rename(&file, at("renamed"))?;
    fs::remove_dir(at("directory"))?;
    for name in ["symlink", "link", "socket", "renamed"] {
        fs::remove_file(at(name))?;
    }
    fs::remove_dir(&folder)?;
    Ok(Value::Null)
}

fn mount_elsewhere(directory: &Path) -> Result<Value> {
    let at = directory.join("mounted");
    fs::create_dir(&at)?;
    let before = fs::metadata(&at)?.dev();
    mount("x", &at, "tmpfs", MountFlags::empty(), None::<&CStr>)?;
    ensure!(fs::metadata(&at)?.dev() != before, "nothing is mounted");
    unmount(&at, UnmountFlags::DETACH)?;
    fs::remove_dir(&at)?;
    Ok(Value::Null)
}
