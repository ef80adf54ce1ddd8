//! Changes of mounts and roots. They do not change the files of the image, but other files are then found at their
//! paths.

use detector_common::{map::class, vocabulary::MountOp};

use super::{
    locate::Image,
    pending::{self, Request},
    report::{Change, EACH},
};
use crate::{
    container,
    kernel::{Dentry, Place, Superblock, Task},
};

/// Checks a mount over a name, or the unmount of one. It counts if a process of a container does it, because only
/// processes in the same mount namespace see it.
#[inline(always)]
pub fn mounted(dentry: Dentry, op: MountOp) -> Option<Change> {
    let image = Image::at(dentry)?;
    let task = Task::current();
    let container = container::of_current()?;
    Some(Change::of_mount(image, dentry, op, EACH, container::is_private(task, &container)))
}

/// Checks a file system that gets other options. If it is not the one of the running task's root, the only name that is
/// known of it is its top.
#[inline(always)]
pub fn remounted(superblock: Superblock) -> Option<Change> {
    let root = Task::current().root().dentry;
    mounted(if root.superblock() == superblock { root } else { superblock.top() }, MountOp::Remount)
}

/// Checks a mount whose options the running thread is about to change. The hook does not know which mount this is. What
/// matters is the mount of the thread's root, because only this one shows the image at its place.
#[inline(always)]
pub fn setting_attributes() -> Option<Change> {
    let task = Task::current();
    container::of_current()?;
    if !task.credentials().may_mount() {
        return None;
    }
    let request = Request::to_set_attributes(task.root().mount);
    if request.defer() {
        return None;
    }
    mounted(request.dentry, MountOp::MountSetattr)
}

/// Checks the end of a call that was to change the options of a mount. Nothing is reported if they are still the same,
/// because the change was refused.
#[inline(always)]
pub fn set_attributes() -> Option<Change> {
    let request = pending::take_of_mount(MountOp::MountSetattr)?;
    if request.mount.options() == request.value {
        return None;
    }
    mounted(request.dentry, MountOp::MountSetattr)
}

/// Checks a directory that becomes the root of the running process, or of its mount namespace.
#[inline(always)]
pub fn rooted(place: Place, op: MountOp) -> Option<Change> {
    let task = Task::current();
    let container = container::of_current()?;
    let inode = place.dentry.inode();
    let image = Image { owner: container.container, device: inode.device() };
    let is_private = container::is_private(task, &container);
    let class = if op == MountOp::Chroot { class(op.number(), u32::from(is_private)) } else { EACH };
    Change { mount: place.mount, ..Change::of_mount(image, place.dentry, op, class, is_private) }.unless_repeated()
}
