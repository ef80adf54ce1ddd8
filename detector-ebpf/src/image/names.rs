//! Names: made, removed, changed.

use detector_common::record::{OP_CREATE, OP_UNLINK};

use super::{
    content_key, image_at, number, pending,
    report::{Change, EACH},
    seen,
};
use crate::{
    kernel::{file, mem::Addr},
    maps::SEEN,
};

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

/// What has the name `dentry` gets the name `new`, besides or instead.
#[inline(always)]
pub fn moved(dentry: Addr, new: Addr, op: u32) -> Option<Change> {
    let image = image_at(dentry)?;
    pending::ask(dentry, new, 0, 0);
    let inode = file::inode_at(dentry);
    let is_new = u32::from(file::links(inode) == 0);
    Some(Change { new_dentry: new, is_new, ..Change::of(image, inode, dentry, op, EACH) })
}
