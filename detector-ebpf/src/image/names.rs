//! Names: made, removed, changed.

use detector_common::record::{OP_CREATE, OP_EXCHANGE, OP_LINK, OP_RENAME, OP_RMDIR, OP_UNLINK};

use super::{
    Image, content_key, image_at, is_on_overlay, number,
    pending::{self, Pending},
    report::{Change, EACH},
    seen,
};
use crate::{
    kernel::{file, mem::Addr},
    maps::SEEN,
};

/// Whether this is asked of names, and may be refused by overlayfs: directories with something in them stay.
#[inline(always)]
pub(super) fn is_of_names(op: u32) -> bool {
    matches!(op, OP_RENAME | OP_EXCHANGE | OP_RMDIR)
}

/// Something gets its first name.
#[inline(always)]
pub fn made(dentry: Addr, op: u32) -> Option<Change> {
    let image = image_at(dentry)?;
    pending::ask(dentry, 0, 0, 0);
    let directory = file::inode_at(file::parent(dentry));
    Some(Change { is_new: 1, ..Change::of(image, directory, dentry, op, EACH) })
}

/// A name is removed. That of a file which the container has itself made is no news.
#[inline(always)]
pub fn removed(dentry: Addr, op: u32) -> Option<Change> {
    let image = image_at(dentry)?;
    if op == OP_RMDIR && is_on_overlay(dentry) && pending::ask(dentry, 0, op, 0) {
        return None;
    }
    pending::ask(dentry, 0, 0, 0);
    let inode = file::inode_at(dentry);
    let key = content_key(image, number(inode));
    if op == OP_UNLINK
        && let Some(content) = seen(key)
    {
        // The next file with this number is another one. What is not reported yet must stay.
        if file::links(inode) == 1 && content.reported != 0 {
            let _gone_already = SEEN.remove(key);
        }
        if content.op == OP_CREATE {
            return None;
        }
    }
    Some(Change::of(image, inode, dentry, op, EACH))
}

/// What has the name `dentry` gets the name `new` besides.
#[inline(always)]
pub fn linked(dentry: Addr, new: Addr) -> Option<Change> {
    let image = image_at(dentry)?;
    pending::ask(dentry, new, 0, 0);
    moved(image, dentry, new, OP_LINK)
}

/// What has the name `dentry` is to get the name `new` instead, or gets it in the upper layer for something else that
/// was asked for.
#[inline(always)]
pub fn renamed(dentry: Addr, new: Addr, op: u32) -> Option<Change> {
    let Some(image) = image_at(dentry) else {
        return granted(dentry, new);
    };
    if is_on_overlay(dentry) && pending::ask(dentry, new, op, 0) {
        return None;
    }
    moved(image, dentry, new, op)
}

/// Something is renamed in an upper layer. If the running thread has asked for that name to be changed, or for the
/// directory of that name to be removed, then it is: overlayfs puts a mark over a directory of a lower layer. A
/// directory that it removes from the upper layer alone was made by the container itself, and is no news.
#[inline(always)]
fn granted(dentry: Addr, new: Addr) -> Option<Change> {
    let asked = pending::asked()?;
    let is_granted = match asked.op {
        OP_RENAME | OP_EXCHANGE => file::upper_dentry(file::inode_at(asked.dentry)) == dentry,
        OP_RMDIR => file::upper_dentry(file::inode_at(file::parent(asked.dentry))) == file::parent(new),
        _ => false,
    };
    is_granted.then(pending::forget)?;
    changed(asked)
}

/// Names that the running thread has asked to change are being changed.
#[inline(always)]
pub(super) fn changed(asked: Pending) -> Option<Change> {
    let image = image_at(asked.dentry)?;
    if asked.op == OP_RMDIR {
        return Some(Change::of(image, file::inode_at(asked.dentry), asked.dentry, OP_RMDIR, EACH));
    }
    moved(image, asked.dentry, asked.other, asked.op)
}

#[inline(always)]
fn moved(image: Image, dentry: Addr, new: Addr, op: u32) -> Option<Change> {
    let inode = file::inode_at(dentry);
    let is_new = u32::from(file::links(inode) == 0);
    Some(Change { new_dentry: new, is_new, ..Change::of(image, inode, dentry, op, EACH) })
}
