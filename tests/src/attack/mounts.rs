//! Puts something else at a path of the image. Operations that change the root need a process of their own, which ends
//! with them.

use std::ffi::{CStr, CString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    mount, mount_bind, mount_move, mount_remount, unmount,
};
use rustix::process::{chdir, chroot, pivot_root};
use serde_json::Value;

use super::answer::unless_older;
use super::effect::identity;
use super::operation::Operation;
use super::raw;

/// The operations of this module.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation::on("mount-tmpfs", "mounts a tmpfs over a directory", |at| covered(at, || tmpfs(at))),
    Operation::on_two("mount-overlay", "WORK AT", "mounts an overlay over a directory", |work, at| {
        covered(at, || overlay(at, work))
    }),
    Operation::on_two("bind", "FROM AT", "bind-mounts something over a path", |from, at| {
        covered(at, || Ok(mount_bind(from, at)?))
    }),
    Operation::on("remount", "changes the options of a mount", |at| {
        switched(at, StatVfsMountFlags::NOSUID, || Ok(mount_remount(at, MountFlags::BIND | MountFlags::NOSUID, c"")?))
    }),
    Operation::on("mount-setattr", "makes a mount writable or read-only with mount_setattr(2)", |at| {
        switched(at, StatVfsMountFlags::RDONLY, || {
            raw::mount_setattr(at, 0, MountAttrFlags::MOUNT_ATTR_RDONLY.bits().into())
                .map_err(|error| unless_older(error, &[Errno::NOSYS], "mount_setattr(2)", (5, 12)))
        })
    }),
    Operation::on("remount-file-system", "changes the options of a file system", |at| {
        switched(at, StatVfsMountFlags::RDONLY, || Ok(mount_remount(at, MountFlags::RDONLY, c"")?))
    }),
    Operation::on("fspick", "changes the options of a file system with fsconfig(2)", |at| {
        switched(at, StatVfsMountFlags::RDONLY, || fspick(at))
    }),
    Operation::on_two("move", "FROM AT", "moves a mount over a path", |from, at| {
        covered(at, || Ok(mount_move(from, at)?))
    }),
    Operation::on_two("move-mount", "FROM AT", "moves a mount over a path with move_mount(2)", |from, at| {
        covered(at, || move_mount(from, at))
    }),
    Operation::on("fsmount", "mounts a tmpfs over a directory with fsmount(2)", |at| covered(at, || fsmount(at))),
    Operation::on_two("open-tree", "FROM AT", "bind-mounts something over a path with open_tree(2)", |from, at| {
        covered(at, || open_tree(from, at))
    }),
    Operation::on("umount", "unmounts what is at a path", |at| covered(at, || Ok(unmount(at, UnmountFlags::DETACH)?))),
    Operation::on("pivot-root", "makes a directory the root with pivot_root(2)", pivot_to),
    Operation::on("chroot", "makes a directory the root with chroot(2)", |at| rooted(at, || Ok(chroot(at)?))),
];

/// Makes a directory the root with pivot_root(2).
pub(super) fn pivot_to(at: &Path) -> Result<Value> {
    rooted(at, || {
        mount_bind(at, at)?;
        chdir(at)?;
        Ok(pivot_root(".", ".")?)
    })
}

/// Checks that a change puts something else at the path. Returns what was there before.
fn covered(at: &Path, cover: impl FnOnce() -> Result<()>) -> Result<Value> {
    let before = identity(at)?;
    cover()?;
    ensure!(identity(at)? != before, "{} is as it was", at.display());
    Ok(before)
}

/// Checks that a change makes the directory at the path the root.
fn rooted(at: &Path, change: impl FnOnce() -> Result<()>) -> Result<Value> {
    let before = identity(at)?;
    change().with_context(|| format!("{} cannot be the root", at.display()))?;
    ensure!(identity(Path::new("/"))? == before, "the root is another one");
    Ok(before)
}

fn tmpfs(at: &Path) -> Result<()> {
    Ok(mount("attacker", at, "tmpfs", MountFlags::empty(), None::<&CStr>)?)
}

/// `work` must be a directory that is not on an overlay.
fn overlay(at: &Path, work: &Path) -> Result<()> {
    for name in ["lower", "upper", "work"] {
        fs::create_dir_all(work.join(name))?;
    }
    let work = work.as_os_str().as_bytes();
    let options = [&b"lowerdir="[..], work, b"/lower,upperdir=", work, b"/upper,workdir=", work, b"/work"].concat();
    Ok(mount("attacker", at, "overlay", MountFlags::empty(), Some(CString::new(options)?.as_c_str()))?)
}

fn has(at: &Path, flag: StatVfsMountFlags) -> Result<bool> {
    Ok(rustix::fs::statvfs(at)?.f_flag.contains(flag))
}

/// Sets or clears an option of a mount or of its file system, for example to make it writable.
fn switched(at: &Path, option: StatVfsMountFlags, switch: impl FnOnce() -> Result<()>) -> Result<Value> {
    let before = has(at, option)?;
    switch()?;
    ensure!(has(at, option)? != before, "{} is as it was", at.display());
    identity(at)
}

fn fspick(at: &Path) -> Result<()> {
    let context = rustix::mount::fspick(CWD, at, FsPickFlags::FSPICK_CLOEXEC)?;
    rustix::mount::fsconfig_set_flag(&context, c"ro")?;
    Ok(rustix::mount::fsconfig_reconfigure(&context)?)
}

fn move_mount(from: &Path, at: &Path) -> Result<()> {
    Ok(rustix::mount::move_mount(CWD, from, CWD, at, MoveMountFlags::empty())?)
}

fn fsmount(at: &Path) -> Result<()> {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    let loose = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    Ok(rustix::mount::move_mount(loose, c"", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

fn open_tree(from: &Path, at: &Path) -> Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let loose = rustix::mount::open_tree(CWD, from, flags)?;
    Ok(rustix::mount::move_mount(loose, c"", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}
