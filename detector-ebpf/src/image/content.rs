//! The content of files.

use detector_common::{
    map::{CLASS_CONTENT, CLASS_DEVICE_OPEN, SeenKey, class},
    record::{Kind, OP_CREATE, OP_OPEN_WRITE, OP_TRUNCATE, OP_WRITE},
};

use super::{Image, content_key, image_of, is_repeated, number, report::Change};
use crate::{
    container, emit,
    kernel::{
        file,
        mem::{self, Addr, Read, Untyped},
        task,
    },
    maps::SEEN,
};

/// A file is being opened.
///
/// # Safety
///
/// `file` must be a `struct file` of the kind that `R` reads.
#[inline(always)]
pub unsafe fn opened<R: Read>(file: Addr) -> Option<Change> {
    // SAFETY: as for the caller; what a typed pointer leads to is typed too.
    unsafe {
        // open(2) can cut a file without opening it for writing.
        let is_truncating = file::is_truncating::<R>(file);
        if !file::is_writable::<R>(file) && !is_truncating {
            return None;
        }
        let inode = file::inode::<R>(file);
        if !file::is_regular(file::mode::<R>(inode)) {
            return None;
        }
        let sb = file::superblock::<R>(inode);
        let image = image_of::<R>(sb, || file::path(file).0)?;
        if file::is_overlay::<R>(sb) {
            file::learn_overlay_operations::<R>(file);
        }
        let op = if file::is_created(file) {
            OP_CREATE
        } else if is_truncating {
            OP_TRUNCATE
        } else {
            OP_OPEN_WRITE
        };
        changed(image, inode, file::number::<R>(inode), file::path(file).0, op, 0)
    }
}

/// A block device is being opened. For writing, by a container, that is worth a finding.
#[inline(always)]
pub fn device_opened(file: Addr) -> Option<Change> {
    // SAFETY: `file` is a `struct file`.
    let inode = unsafe {
        if !file::is_writable::<Untyped>(file) {
            return None;
        }
        file::inode::<Untyped>(file)
    };
    let container = container::of(task::current())?.container;
    let image = Image { owner: container, device: file::device(inode) };
    // A name for another device may get the inode number of one that is gone.
    let device = file::represented(inode);
    let class = class(CLASS_DEVICE_OPEN, (device ^ device >> 16) & 0xffff);
    let key = SeenKey { class, ..content_key(image, number(inode)) };
    if is_repeated(key, None) {
        return None;
    }
    let (dentry, mnt) = file::path(file);
    Some(Change { mnt, ..Change::new(Kind::DeviceOpen, image, inode, dentry, 0, class) })
}

/// As many bytes as `bytes` gives are being written to a file, by a hook that sees every write of the machine. It is
/// only asked when the file may matter.
///
/// # Safety
///
/// `file` must be a `struct file` of the kind that `R` reads.
#[inline(always)]
pub unsafe fn written<R: Read>(file: Addr, bytes: impl FnOnce() -> u64) -> Option<Change> {
    // SAFETY: as for the caller. `vfs_write` is called for descriptors without write access too, and refuses later.
    unsafe {
        if file::may_be_on_overlay::<R>(file) && file::is_writable::<R>(file) {
            stored(file, OP_WRITE, bytes())
        } else {
            None
        }
    }
}

/// `bytes` are being stored to a file that is open for writing.
#[inline(always)]
pub fn stored(file: Addr, op: u32, bytes: u64) -> Option<Change> {
    // SAFETY: `file` is a `struct file`, or reads as zero.
    let (inode, sb) = unsafe {
        let inode = file::inode::<Untyped>(file);
        (inode, file::superblock::<Untyped>(inode))
    };
    let dentry = file::path(file).0;
    // SAFETY: `sb` is a superblock, or 0, which reads as zero.
    let image = unsafe { image_of::<Untyped>(sb, || dentry)? };
    changed(image, inode, number(inode), dentry, op, bytes)
}

/// Counts a change of the content; gives it if it is the first of this file, or a creation. A file without a name is no
/// longer part of the image.
#[inline(always)]
pub(super) fn changed(image: Image, inode: Addr, number: u64, dentry: Addr, op: u32, bytes: u64) -> Option<Change> {
    // A created file is a new one, even if its inode number was seen before.
    if let Some(seen) = SEEN.get_ptr_mut(content_key(image, number))
        && op != OP_CREATE
    {
        // SAFETY: a live map element; `last` is a single aligned store.
        unsafe {
            if op == OP_WRITE {
                mem::add(&raw mut (*seen).count, 1);
                mem::add(&raw mut (*seen).bytes, bytes);
            }
            (&raw mut (*seen).last).write_volatile(emit::now());
        }
        return None;
    }
    if file::links(inode) == 0 {
        return None;
    }
    Some(Change { bytes, is_new: u32::from(op == OP_CREATE), ..Change::of(image, inode, dentry, op, CLASS_CONTENT) })
}
