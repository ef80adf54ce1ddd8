//! The content of files.

use detector_common::{
    map::{CLASS_CONTENT, CLASS_DEVICE_OPEN, class},
    record::Kind,
    vocabulary::ImageOp,
};

use super::{locate::Image, report::Change, seen};
use crate::{
    container,
    kernel::{Access, Dentry, File, Inode, Task},
};

/// Checks a file that is being opened.
#[inline(always)]
pub fn opened<A: Access>(file: File<A>) -> Option<Change> {
    // open(2) can truncate a file without opening it for writing.
    let is_truncating = file.is_truncating();
    if !file.is_writable() && !is_truncating {
        return None;
    }
    let inode = file.inode();
    if !inode.is_regular() {
        return None;
    }
    let superblock = inode.superblock();
    let dentry = || file.probed().dentry();
    let image = Image::on(superblock, dentry)?;
    if superblock.is_overlay() {
        file.learn_overlay_operations();
    }
    let op = if file.probed().is_created() {
        ImageOp::Create
    } else if is_truncating {
        ImageOp::Truncate
    } else {
        ImageOp::OpenWrite
    };
    changed(image, inode.probed(), inode.number(), dentry(), op, 0)
}

/// Checks a block device that is being opened. It is reported if a container opens it for writing.
#[inline(always)]
pub fn device_opened(file: File) -> Option<Change> {
    if !file.is_writable() {
        return None;
    }
    let inode = file.inode();
    let container = container::of(Task::current())?.container;
    let image = Image { owner: container, device: inode.device() };
    // The node of another device may get the inode number of a removed node, so the class depends on the device.
    let device = inode.represented_device();
    let class = class(CLASS_DEVICE_OPEN, (device ^ device >> 16) & 0xffff);
    Change::at_place(Kind::DeviceOpen, image, inode, file.place(), class).unless_repeated()
}

/// Checks a write to a file, seen by a hook that sees every write on the machine. `bytes` returns the number of bytes,
/// and is called only if the file may matter.
#[inline(always)]
pub fn written<A: Access>(file: File<A>, bytes: impl FnOnce() -> u64) -> Option<Change> {
    // `vfs_write` is called for descriptors without write access too, and refuses the write later.
    if file.may_be_on_overlay() && file.is_writable() { stored(file.probed(), ImageOp::Write, bytes()) } else { None }
}

/// Checks a write of this many bytes to a file that is open for writing.
#[inline(always)]
pub fn stored(file: File, op: ImageOp, bytes: u64) -> Option<Change> {
    let inode = file.inode();
    let dentry = file.dentry();
    let image = Image::on(inode.superblock(), || dentry)?;
    changed(image, inode, inode.number(), dentry, op, bytes)
}

/// Returns the change of the content if it is the first one of this file by this actor, or the creation of the file. A
/// file without a name is no longer part of the image, so a change of it is not reported.
#[inline(always)]
pub(super) fn changed(
    image: Image,
    inode: Inode,
    number: u64,
    dentry: Dentry,
    op: ImageOp,
    bytes: u64,
) -> Option<Change> {
    if seen::repeats(image, number, op) || inode.links() == 0 {
        return None;
    }
    let is_new = u32::from(op == ImageOp::Create);
    Some(Change { bytes, is_new, ..Change::of_image(image, inode, dentry, op, CLASS_CONTENT) })
}
