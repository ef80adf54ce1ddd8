//! What the canary does to its image: one change for each hook, of the file with the hook's name.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Command,
};

use rustix::{
    fs::{CWD, FallocateFlags, FileType, IFlags, Mode, OFlags, RenameFlags, XattrFlags},
    mm::{MapFlags, ProtFlags},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags},
    pipe::SpliceFlags,
};

/// Files that are written to through descriptors from before.
const HELD: [&str; 6] = ["write", "splice", "fallocate", "copy_range", "clone_range", "mmap"];
/// Files that are there to be changed otherwise.
const FILES: [&str; 8] = ["link", "unlink", "rename", "setattr", "setxattr", "removexattr", "set_acl", "fileattr"];
const DIRECTORIES: [&str; 6] = ["rmdir", "mount", "move_mount", "umount", "pivot_root", "chroot"];
/// An attribute that has no meaning.
const ATTRIBUTE: &str = "trusted.detector";
const ACL: &str = "system.posix_acl_access";
/// An access list in the kernel's form (include/uapi/linux/posix_acl_xattr.h): version 2, then tag, permissions and id of
/// each entry. Owner, user 1, group, mask, others.
const ACL_VALUE: [u8; 44] = {
    let entries = [(0x01, 6, u32::MAX), (0x02, 4, 1), (0x04, 4, u32::MAX), (0x10, 4, u32::MAX), (0x20, 4, u32::MAX)];
    let mut value = [0; 44];
    value[0] = 2;
    let mut index = 0;
    while index < entries.len() {
        let (tag, permissions, id): (u8, u8, u32) = entries[index];
        let (at, id) = (4 + index * 8, id.to_le_bytes());
        value[at] = tag;
        value[at + 2] = permissions;
        let mut byte = 0;
        while byte < 4 {
            value[at + 4 + byte] = id[byte];
            byte += 1;
        }
        index += 1;
    }
    value
};

/// A change, by the hook that it is to set off.
pub(super) type Outcome = (&'static str, io::Result<()>);

/// Fills the image; gives what was refused of it, by the hook that is thereby not reached.
pub(super) fn prepare(lower: &Path) -> Vec<(&'static str, io::Error)> {
    let mut outcomes: Vec<Outcome> = Vec::new();
    outcomes.extend(HELD.into_iter().chain(FILES).map(|name| (name, fs::write(lower.join(name), "canary"))));
    outcomes.extend(DIRECTORIES.map(|name| (name, fs::create_dir(lower.join(name)))));
    outcomes.push(("script", script(&lower.join("script"))));
    outcomes.push(("remove_acl", fs::write(lower.join("remove_acl"), "")));
    outcomes.push(("removexattr", set(&lower.join("removexattr"), ATTRIBUTE, b"x")));
    outcomes.push(("remove_acl", set(&lower.join("remove_acl"), ACL, &ACL_VALUE)));
    outcomes.into_iter().filter_map(|(hook, result)| Some((hook, result.err()?))).collect()
}

fn script(path: &Path) -> io::Result<()> {
    fs::write(path, "#!/nowhere/interpreter\n")?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// What the canary opens and mounts before it is watched.
pub(super) struct Before {
    held: Vec<(&'static str, File)>,
}

impl Before {
    pub(super) fn open(image: &Path) -> io::Result<Self> {
        let open = |name| Ok((name, File::options().read(true).write(true).open(image.join(name))?));
        let held = HELD.into_iter().map(open).collect::<io::Result<_>>()?;
        rustix::mount::mount("detector", image.join("umount"), "tmpfs", MountFlags::empty(), None::<&std::ffi::CStr>)?;
        Ok(Self { held })
    }

    fn file(&self, name: &str) -> io::Result<&File> {
        let found = self.held.iter().find(|(held, _)| *held == name);
        found.map(|(_, file)| file).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Changes everything. The root of the process is another one afterwards.
pub(super) fn all(image: &Path, before: &Before) -> Vec<Outcome> {
    let at = |name: &str| image.join(name);
    let mut outcomes: Vec<Outcome> = HELD.into_iter().map(|name| (name, write(name, before))).collect();
    outcomes.extend([
        ("open", fs::write(at("open"), "canary")),
        ("create", make(&at("create"), FileType::RegularFile)),
        ("mknod", make(&at("mknod"), FileType::Fifo)),
        ("mkdir", fs::create_dir(at("mkdir"))),
        ("symlink", symlink("target", at("symlink"))),
        ("link", fs::hard_link(at("link"), at("linked"))),
        ("unlink", fs::remove_file(at("unlink"))),
        ("rmdir", fs::remove_dir(at("rmdir"))),
        ("rename", rename(&at("rename"), &at("renamed"))),
        ("setattr", fs::set_permissions(at("setattr"), fs::Permissions::from_mode(0o600))),
        ("setxattr", set(&at("setxattr"), ATTRIBUTE, b"x")),
        ("removexattr", rustix::fs::removexattr(at("removexattr"), ATTRIBUTE).map_err(Into::into)),
        ("set_acl", set(&at("set_acl"), ACL, &ACL_VALUE)),
        ("remove_acl", rustix::fs::removexattr(at("remove_acl"), ACL).map_err(Into::into)),
        ("fileattr", set_flags(&at("fileattr"))),
        ("mount", mount(&at("mount"))),
        ("move_mount", move_mount(&at("move_mount"))),
        ("umount", rustix::mount::unmount(at("umount"), UnmountFlags::empty()).map_err(Into::into)),
        ("script", Command::new(at("script")).spawn().map(drop)),
        ("pivot_root", rustix::process::pivot_root(at("pivot_root"), at("pivot_root")).map_err(Into::into)),
        ("chroot", rustix::process::chroot(at("chroot")).map_err(Into::into)),
    ]);
    outcomes
}

/// Writes through a descriptor from before.
#[expect(unsafe_code, reason = "mmap(2) is unsafe in rustix")]
fn write(name: &str, before: &Before) -> io::Result<()> {
    let file = before.file(name)?;
    match name {
        "splice" => {
            let (reader, writer) = rustix::pipe::pipe()?;
            rustix::io::write(&writer, b"canary")?;
            rustix::pipe::splice(reader, None, file, None, 6, SpliceFlags::empty())?;
        }
        "fallocate" => rustix::fs::fallocate(file, FallocateFlags::empty(), 0, 8192)?,
        "copy_range" => {
            rustix::fs::copy_file_range(before.file("write")?, Some(&mut 0), file, Some(&mut 0), 6)?;
        }
        "clone_range" => rustix::fs::ioctl_ficlone(file, before.file("write")?)?,
        "mmap" => {
            // SAFETY: the kernel chooses where; nothing refers to what was there.
            let mapped = unsafe {
                rustix::mm::mmap(
                    std::ptr::null_mut(),
                    4096,
                    ProtFlags::READ | ProtFlags::WRITE,
                    MapFlags::SHARED,
                    file,
                    0,
                )?
            };
            // SAFETY: mapped above, and used by nobody.
            unsafe { rustix::mm::munmap(mapped, 4096)? };
        }
        _ => {
            rustix::io::write(file, b"canary")?;
        }
    }
    Ok(())
}

fn make(path: &Path, kind: FileType) -> io::Result<()> {
    Ok(rustix::fs::mknodat(CWD, path, kind, Mode::RUSR | Mode::WUSR, 0)?)
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    Ok(rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
}

fn set(path: &Path, attribute: &str, value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::setxattr(path, attribute, value, XattrFlags::empty())?)
}

fn set_flags(path: &Path) -> io::Result<()> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(rustix::fs::ioctl_setflags(file, IFlags::NOATIME)?)
}

fn mount(path: &Path) -> io::Result<()> {
    Ok(rustix::mount::mount("detector", path, "tmpfs", MountFlags::empty(), None::<&std::ffi::CStr>)?)
}

fn move_mount(path: &Path) -> io::Result<()> {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    Ok(rustix::mount::move_mount(mount, c"", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}
