//! Mounts and roots: the image's files stay as they are, and are no longer what is found at their paths.

use detector_common::{
    map::{SeenKey, class},
    vocabulary::MountOp,
};

use super::{
    locate::Image,
    pending::{self, Request},
    report::{Change, EACH},
    seen,
};
use crate::{
    container,
    kernel::{Dentry, Place, Superblock, Task},
};

/// Something is mounted over a name, or unmounted from it. It counts where the container's processes see it: mounts are
/// a matter of the namespace.
#[inline(always)]
pub fn mounted(dentry: Dentry, op: MountOp) -> Option<Change> {
    let image = Image::at(dentry)?;
    container::of(Task::current())?;
    Some(Change::of_mount(image, dentry, op, EACH))
}

/// A file system gets other options: the one of the running task's root, or another, of which no name is known but its
/// top.
#[inline(always)]
pub fn remounted(superblock: Superblock) -> Option<Change> {
    let root = Task::current().root().dentry;
    mounted(if root.superblock() == superblock { root } else { superblock.top() }, MountOp::Remount)
}

/// The running thread is about to give a mount other options. Which mount, the hook cannot tell; what matters is the
/// one that its root is on, since no other shows the image at its place.
#[inline(always)]
pub fn setting_attributes() -> Option<Change> {
    let task = Task::current();
    container::of(task)?;
    if !task.credentials().may_mount() {
        return None;
    }
    let request = Request::to_set_attributes(task.root().mount);
    if request.defer() {
        return None;
    }
    mounted(request.dentry, MountOp::MountSetattr)
}

/// The running thread has given a mount other options, or was refused.
#[inline(always)]
pub fn set_attributes() -> Option<Change> {
    let request = pending::take_of_mount(MountOp::MountSetattr)?;
    if request.mount.options() == request.value {
        return None;
    }
    mounted(request.dentry, MountOp::MountSetattr)
}

/// A directory becomes the root of the running process, or of its namespace.
#[inline(always)]
pub fn rooted(place: Place, op: MountOp) -> Option<Change> {
    let container = container::of(Task::current())?.container;
    let inode = place.dentry.inode();
    let image = Image { owner: container, device: inode.device() };
    let class = if op == MountOp::Chroot { class(op.number(), 0) } else { EACH };
    if class != EACH && seen::is_known(SeenKey { class, ..seen::content_key(image, inode.number()) }) {
        return None;
    }
    Some(Change { mount: place.mount, ..Change::of_mount(image, place.dentry, op, class) })
}
