//! Changes the metadata of files.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, fchown};
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use rustix::fs::{CWD, IFlags, XattrFlags};
use rustix::io::Errno;
use serde_json::Value;

use super::answer::unless_older;
use super::effect::identity;
use super::operation::Operation;
use super::raw;

/// A mode that no file of the image has.
pub(super) const MODE: u32 = 0o640;
/// An owner that no file of the image has.
const OWNER: u32 = 1234;
/// An extended attribute without a meaning.
const ATTRIBUTE: &str = "trusted.attacker";
const CAPABILITY: &str = "security.capability";
const ACL: &str = "system.posix_acl_access";
/// `struct vfs_cap_data` (include/uapi/linux/capability.h), version 2, with `CAP_NET_RAW` as the only permitted
/// capability.
const CAPABILITY_VALUE: [u8; 20] = [0, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// `FS_XFLAG_NOATIME` (include/uapi/linux/fs.h).
const XFLAG_NOATIME: u64 = 0x40;

/// The operations of this module.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation::on("chmod", "changes permissions", |path| changed("chmod", path, chmod(path, MODE))),
    Operation::on("chmod-executable", "makes a file executable", |path| {
        changed("chmod-executable", path, chmod(path, 0o755))
    }),
    Operation::on("chmod-set-id", "gives a file the set-user-id bit", |path| {
        changed("chmod-set-id", path, chmod(path, 0o4755))
    }),
    Operation::on("fchmod", "changes permissions through a descriptor", |path| {
        changed("fchmod", path, File::open(path)?.set_permissions(Permissions::from_mode(MODE)).map_err(Into::into))
    }),
    Operation::on("fchmodat2", "changes permissions with fchmodat2(2)", |path| {
        let done = raw::fchmodat2(path, MODE);
        let done = done.map_err(|error| unless_older(error, &[Errno::NOSYS], "fchmodat2(2)", (6, 6)));
        changed("fchmodat2", path, done)
    }),
    Operation::on("chown", "changes the owner", |path| {
        changed("chown", path, chown(path, Some(OWNER), Some(OWNER)).map_err(Into::into))
    }),
    Operation::on("fchown", "changes the owner through a descriptor", |path| {
        changed("fchown", path, fchown(File::open(path)?, Some(OWNER), Some(OWNER)).map_err(Into::into))
    }),
    Operation::on("utimes", "changes the timestamps", |path| changed("utimes", path, utimes(path))),
    Operation::on("set-xattr", "sets an extended attribute", |path| {
        changed("set-xattr", path, set(path, ATTRIBUTE, b"x"))
    }),
    Operation::on("remove-xattr", "removes that extended attribute", |path| {
        changed("remove-xattr", path, remove(path, ATTRIBUTE))
    }),
    Operation::on("set-capability", "gives a file capabilities", |path| {
        changed("set-capability", path, set(path, CAPABILITY, &CAPABILITY_VALUE))
    }),
    Operation::on("set-acl", "sets an access control list", |path| changed("set-acl", path, set(path, ACL, &acl()))),
    Operation::on("remove-acl", "removes the access control list", |path| {
        changed("remove-acl", path, remove(path, ACL))
    }),
    Operation::on("set-flags", "sets an inode flag with FS_IOC_SETFLAGS", |path| {
        changed("set-flags", path, set_flags(path))
    }),
    Operation::on("file-setattr", "sets an inode flag with file_setattr(2)", |path| {
        let done = raw::file_setattr(path, XFLAG_NOATIME);
        let done = done.map_err(|error| unless_older(error, &[Errno::NOSYS], "file_setattr(2)", (6, 17)));
        changed("file-setattr", path, done)
    }),
];

/// Checks that a file was changed as the operation says.
fn changed(operation: &str, path: &Path, done: Result<()>) -> Result<Value> {
    done?;
    ensure!(is_changed(operation, path)?, "{operation} did not change {}", path.display());
    identity(path)
}

fn set(path: &Path, attribute: &str, value: &[u8]) -> Result<()> {
    Ok(rustix::fs::setxattr(path, attribute, value, XattrFlags::empty())?)
}

fn remove(path: &Path, attribute: &str) -> Result<()> {
    Ok(rustix::fs::removexattr(path, attribute)?)
}

fn chmod(path: &Path, mode: u32) -> Result<()> {
    Ok(fs::set_permissions(path, Permissions::from_mode(mode))?)
}

/// A timestamp that no file of the image has.
fn moment() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)
}

fn utimes(path: &Path) -> Result<()> {
    let time = rustix::fs::Timespec { tv_sec: 1_000_000_000, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::empty())?)
}

/// An access control list in the kernel's format (include/uapi/linux/posix_acl_xattr.h): version 2, followed by the
/// tag, permissions and id of each entry: owner, a user, group, mask, others.
fn acl() -> Vec<u8> {
    let entries: [(u16, u16, u32); 5] =
        [(0x01, 6, u32::MAX), (0x02, 6, OWNER), (0x04, 4, u32::MAX), (0x10, 6, u32::MAX), (0x20, 4, u32::MAX)];
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        list.extend(tag.to_le_bytes().into_iter().chain(permissions.to_le_bytes()).chain(id.to_le_bytes()));
    }
    list
}

/// `FS_IOC_SETFLAGS`, which needs only a descriptor open for reading.
fn set_flags(path: &Path) -> Result<()> {
    Ok(rustix::fs::ioctl_setflags(File::open(path)?, IFlags::NOATIME)?)
}

fn is_changed(operation: &str, path: &Path) -> Result<bool> {
    let stat = fs::metadata(path)?;
    let attribute = |name| -> Result<Option<Vec<u8>>> {
        let mut value = [0; 256];
        match rustix::fs::getxattr(path, name, &mut value) {
            Ok(length) => Ok(Some(value[..length].to_vec())),
            Err(Errno::NODATA) => Ok(None),
            Err(error) => Err(error.into()),
        }
    };
    Ok(match operation {
        "chmod-executable" => stat.mode() & 0o7777 == 0o755,
        "chmod-set-id" => stat.mode() & 0o7777 == 0o4755,
        "chmod" | "fchmod" | "fchmodat2" => stat.mode() & 0o7777 == MODE,
        "chown" | "fchown" => (stat.uid(), stat.gid()) == (OWNER, OWNER),
        "utimes" => stat.modified()? == moment(),
        "set-xattr" => attribute(ATTRIBUTE)?.as_deref() == Some(b"x"),
        "remove-xattr" => attribute(ATTRIBUTE)?.is_none(),
        "set-capability" => attribute(CAPABILITY)?.as_deref() == Some(&CAPABILITY_VALUE),
        "set-acl" => attribute(ACL)? == Some(acl()),
        "remove-acl" => attribute(ACL)?.is_none(),
        _ => rustix::fs::ioctl_getflags(File::open(path)?)?.contains(IFlags::NOATIME),
    })
}
