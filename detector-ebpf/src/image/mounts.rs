//! Mounts and roots: the image's files stay as they are, and are no longer what is found at their paths.

use detector_common::{
    map::{SeenKey, class},
    record::{Kind, OP_CHROOT, OP_MOUNT_SETATTR, OP_REMOUNT},
};

use super::{
    Image, content_key, image_at, is_repeated, number, pending,
    report::{Change, EACH},
};
use crate::{
    container,
    kernel::{
        file,
        mem::Addr,
        path::{self, Place},
        task,
    },
};

/// Something is mounted over a name, or unmounted from it. It counts where the container's processes see it: mounts are
/// a matter of the namespace.
#[inline(always)]
pub fn mounted(dentry: Addr, op: u32) -> Option<Change> {
    let image = image_at(dentry)?;
    container::of(task::current())?;
    Some(Change::new(Kind::MountChange, image, file::inode_at(dentry), dentry, op, EACH))
}

/// A file system gets other options: the one of the running task's root, or another, of which that is not known better
/// than by its top.
#[inline(always)]
pub fn remounted(sb: Addr) -> Option<Change> {
    let root = task::root(task::current()).dentry;
    mounted(if file::superblock_at(root) == sb { root } else { file::top(sb) }, OP_REMOUNT)
}

/// The running thread is about to give a mount other options. Which mount, the hook cannot tell; what matters is the
/// one that its root is on, since no other shows the image at its place.
#[inline(always)]
pub fn changing_mounts() -> Option<Change> {
    let task = task::current();
    container::of(task)?;
    if !task::may_mount(task) {
        return None;
    }
    let mnt = task::root(task).mnt;
    let top = path::top(mnt);
    if pending::ask(top, mnt, OP_MOUNT_SETATTR, path::options(mnt)) {
        return None;
    }
    mounted(top, OP_MOUNT_SETATTR)
}

/// It has done so, or was refused.
#[inline(always)]
pub fn changed_mounts() -> Option<Change> {
    let asked = pending::take(OP_MOUNT_SETATTR)?;
    if path::options(asked.other) == asked.value {
        return None;
    }
    mounted(asked.dentry, OP_MOUNT_SETATTR)
}

/// A directory becomes the root of the running process, or of its namespace.
#[inline(always)]
pub fn rooted(place: Place, op: u32) -> Option<Change> {
    let container = container::of(task::current())?.container;
    let inode = file::inode_at(place.dentry);
    let image = Image { owner: container, device: file::device(inode) };
    let class = if op == OP_CHROOT { class(op, 0) } else { EACH };
    if class != EACH && is_repeated(SeenKey { class, ..content_key(image, number(inode)) }, None) {
        return None;
    }
    Some(Change { mnt: place.mnt, ..Change::new(Kind::MountChange, image, inode, place.dentry, op, class) })
}
