//! Mounts and roots: the image's files stay as they are, and are no longer what is found at their paths.

use detector_common::{
    map::{SeenKey, class},
    record::OP_CHROOT,
};

use super::{
    Image, content_key, image_at, is_repeated, number,
    report::{Change, EACH},
};
use crate::{
    container,
    kernel::{file, mem::Addr, path::Place, task},
};

/// Something is mounted over a name, or unmounted from it. It counts where the container's processes see it: mounts are a
/// matter of the namespace.
#[inline(always)]
pub fn mounted(dentry: Addr, op: u32) -> Option<Change> {
    let image = image_at(dentry)?;
    container::of(task::current())?;
    Some(Change::of(image, file::inode_at(dentry), dentry, op, EACH))
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
    Some(Change { mnt: place.mnt, ..Change::of(image, inode, place.dentry, op, class) })
}
