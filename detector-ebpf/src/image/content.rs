//! The content of files.

use detector_common::{
    map::{CLASS_CONTENT, CLASS_DEVICE_OPEN, CLASS_HANDLE_OPEN, class},
    record::Kind,
    vocabulary::ImageOp,
};

use super::{controls, interpreted, locate::Image, report::Change, seen};
use crate::{
    container,
    kernel::{Access, Dentry, File, Inode, Place, Str, Task},
};

/// Checks a file that is being opened.
#[inline(always)]
pub fn opened<A: Access>(file: File<A>) -> Option<Change> {
    // open(2) can truncate a file without opening it for writing.
    let is_truncating = file.is_truncating();
    if !file.is_writable() && !is_truncating {
        return interpreted::opened(file);
    }
    let inode = file.inode();
    if !inode.is_regular() {
        return None;
    }
    let superblock = inode.superblock();
    let dentry = || file.probed().dentry();
    let Some(image) = Image::on(superblock, dentry) else {
        let magic = superblock.magic();
        return if controls::are_on(magic) { controls::opened(file.probed(), magic) } else { None };
    };
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
    let container = container::of_current()?.container;
    let image = Image { owner: container, device: inode.device() };
    // The node of another device may get the inode number of a removed node, so the class depends on the device.
    let device = inode.represented_device();
    let class = class(CLASS_DEVICE_OPEN, (device ^ device >> 16) & 0xffff);
    Change::at_place(Kind::DeviceOpen, image, inode, file.place(), class).unless_repeated()
}

/// Checks a file that is being opened by its handle, unless it has a `name`, by which it is looked for. It is reported
/// if a container opens it. Handles of cgroups are nothing but their ids, from which tools find their paths.
#[inline(always)]
pub fn opened_by_handle(place: Place, name: Str) -> Option<Change> {
    /// `CGROUP_SUPER_MAGIC` and `CGROUP2_SUPER_MAGIC` (include/uapi/linux/magic.h).
    const CGROUPS: [u64; 2] = [0x0027_e0eb, 0x6367_7270];
    if name.start() != [0_u8] {
        return None;
    }
    let owner = container::responsible(Task::current());
    let inode = place.dentry.inode();
    let superblock = inode.superblock();
    let magic = superblock.magic();
    if owner == 0 || magic == CGROUPS[0] || magic == CGROUPS[1] {
        return None;
    }
    // The place of a file whose directory is not in memory is not known, except in a mount of the whole file system.
    let top = place.mount.top();
    let is_inside = u32::from(top == superblock.top() || place.dentry.is_below(top));
    let image = Image { owner, device: superblock.device() };
    let class = class(CLASS_HANDLE_OPEN, is_inside);
    Change { op: is_inside, ..Change::at_place(Kind::HandleOpen, image, inode, place, class) }.unless_repeated()
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
