//! Permissions, owners, times, attributes: what a file has besides its content.

use detector_common::{
    map::{CLASS_CONTENT, Seen, SeenKey, class},
    record::{OP_CHMOD, OP_COPY_UP, OP_CREATE, OP_MKNOD, OP_SET_CAPABILITY, OP_TRUNCATE, OP_UTIMES},
};

use super::{content, content_key, image_at, is_on_overlay, is_repeated, names, number, pending, report::Change, seen};
use crate::kernel::{
    file,
    mem::{Addr, Untyped},
};

/// The permissions that make a file more dangerous: to execute it, and to act as its owner or group.
const POWER: u32 = 0o6111;

/// The file with this name is to be changed, or is being changed in the upper layer for one that is.
#[inline(always)]
pub fn changing(dentry: Addr, op: u32, value: u32) -> Option<Change> {
    if image_at(dentry).is_none() {
        return granted(dentry);
    }
    if is_on_overlay(dentry) && pending::ask(dentry, 0, op, value) {
        return None;
    }
    changed(dentry, op, value)
}

/// The file with this name is being changed. If it is the one in the upper layer of what the thread has asked to
/// change, then it may.
#[inline(always)]
fn granted(dentry: Addr) -> Option<Change> {
    let asked = pending::asked_above(dentry)?;
    if names::is_of_names(asked.op) {
        return None;
    }
    pending::forget();
    changed(asked.dentry, asked.op, asked.value)
}

/// What the running thread has asked for, with this `OP_` constant, is at its end. If it has come to a copy of the file
/// to the upper layer, that is reported already.
#[inline(always)]
pub fn ended(op: u32, is_done: bool) -> Option<Change> {
    let asked = pending::take(op)?;
    if is_done { changed(asked.dentry, asked.op, asked.value) } else { None }
}

/// A file of an image is copied up. Whatever another hook does not report is reported here: nothing of the image is
/// changed otherwise.
#[inline(always)]
pub fn copied_up(dentry: Addr) -> Option<Change> {
    let image = image_at(dentry)?;
    let inode = file::inode_at(dentry);
    // SAFETY: `inode` is one, or reads as zero.
    let mode = unsafe { file::mode::<Untyped>(inode) };
    let content = seen(content_key(image, number(inode)));
    if let Some(asked) = pending::asked_by(dentry, content) {
        return match asked.op {
            0 => None,
            op if names::is_of_names(op) && file::is_directory(mode) => None,
            op if names::is_of_names(op) => {
                // An exchange copies both files up.
                pending::ask(asked.dentry, asked.other, 0, 0);
                names::changed(asked)
            }
            op => {
                pending::forget();
                changed(dentry, op, asked.value)
            }
        };
    }
    if !file::is_directory(mode) {
        // What was asked for was refused: this is for something else.
        pending::forget();
    }
    if content.is_some() || !file::is_regular(mode) {
        return None;
    }
    Some(Change::of(image, inode, dentry, OP_COPY_UP, CLASS_CONTENT))
}

/// A regular file is to be made without being opened, or is being made: both hooks come here, in this order.
#[inline(always)]
pub fn creating(dentry: Addr, is_asked: bool) -> Option<Change> {
    image_at(dentry)?;
    if is_asked {
        if pending::ask(dentry, 0, OP_MKNOD, 0) {
            return None;
        }
    } else if !matches!(pending::asked_by(dentry, None), Some(asked) if asked.op == OP_MKNOD) {
        // Made by an open, of which the hook comes later. What was asked for before is done, or was refused.
        pending::forget();
        return None;
    }
    names::made(dentry, OP_MKNOD)
}

#[inline(always)]
fn changed(dentry: Addr, op: u32, value: u32) -> Option<Change> {
    let image = image_at(dentry)?;
    let inode = file::inode_at(dentry);
    let number = number(inode);
    if op == OP_TRUNCATE {
        return content::changed(image, inode, number, dentry, op, 0);
    }
    let content = seen(content_key(image, number));
    let class = class(op, if op == OP_CHMOD { value } else { 0 });
    // SAFETY: `inode` is one, or reads as zero.
    let mode = unsafe { file::mode::<Untyped>(inode) };
    if is_part_of(content, op, value, mode) || is_repeated(SeenKey { class, ..content_key(image, number) }, content) {
        return None;
    }
    Some(Change { value, ..Change::of(image, inode, dentry, op, class) })
}

/// Whether this belongs to a change of the content that was reported: to the making of the file, unless it gives power;
/// times also to a write.
#[inline(always)]
fn is_part_of(content: Option<Seen>, op: u32, value: u32, mode: u32) -> bool {
    let Some(content) = content else { return false };
    if op == OP_UTIMES {
        return true;
    }
    let gives_power = op == OP_SET_CAPABILITY || op == OP_CHMOD && value & POWER & !mode != 0;
    content.op == OP_CREATE && !gives_power
}
