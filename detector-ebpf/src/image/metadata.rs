//! Changes of a file's metadata: permissions, ownership, timestamps and attributes.

use detector_common::{
    map::{CLASS_CONTENT, class},
    vocabulary::ImageOp,
};

use super::{
    content,
    locate::Image,
    names,
    pending::{self, Request},
    report::Change,
    seen,
};
use crate::{kernel::Dentry, mem};

/// Checks a change of the file with this name. The change is requested by a process, or made by overlayfs in the upper
/// layer on such a request.
#[inline(always)]
pub fn changing(dentry: Dentry, op: ImageOp, value: u32) -> Option<Change> {
    let change = if Image::at(dentry).is_none() {
        granted(dentry)?
    } else if dentry.superblock().is_overlay() && Request::to_change(dentry, op, value).defer() {
        return None;
    } else {
        (dentry, op, value)
    };
    // The verifier is to check what follows once, and not once for each operation.
    let (dentry, op, value) = mem::forget(change);
    changed(dentry, op, value)
}

/// Returns the change that the running thread has requested, if it is granted: it is then made to the file with this
/// name, in the upper layer.
#[inline(always)]
fn granted(dentry: Dentry) -> Option<(Dentry, ImageOp, u32)> {
    let request = pending::request_above(dentry)?;
    let op = request.op()?;
    if names::is_of_names(op) {
        return None;
    }
    pending::forget();
    Some((request.dentry, op, request.value))
}

/// Checks the end of a call that requested a change. If overlayfs has copied the file to the upper layer for it, the
/// change is reported already.
#[inline(always)]
pub fn ended(op: ImageOp, is_done: bool) -> Option<Change> {
    let request = pending::take(op)?;
    if is_done { changed(request.dentry, op, request.value) } else { None }
}

/// Checks a file of an image that is being copied up. A change of the image that no other hook reports is reported
/// here, because no file of a lower layer is changed without a copy-up.
#[inline(always)]
pub fn copied_up(dentry: Dentry) -> Option<Change> {
    let image = Image::at(dentry)?;
    let inode = dentry.inode();
    let file = if inode.is_regular() { seen::note_copy_up(image, inode) } else { seen::get(image, inode.number()) };
    if let Some(request) = pending::request_by_name(dentry, file) {
        return match request.op() {
            None => None,
            Some(op) if names::is_of_names(op) && inode.is_directory() => None,
            Some(op) if names::is_of_names(op) => {
                // An exchange copies both files up.
                pending::note_reported(request.dentry, request.new_dentry);
                names::changed(&request, op)
            }
            Some(op) => {
                pending::forget();
                changed(dentry, op, request.value)
            }
        };
    }
    if !inode.is_directory() {
        // The request was refused: this copy-up is for something else.
        pending::forget();
    }
    if !inode.is_regular() {
        return None;
    }
    Change::of_image(image, inode, dentry, ImageOp::CopyUp, CLASS_CONTENT).unless_repeated()
}

/// Checks a regular file that is requested to be created without an open.
#[inline(always)]
pub fn to_create(dentry: Dentry) -> Option<Change> {
    Image::at(dentry)?;
    if Request::to_change(dentry, ImageOp::Mknod, 0).defer() {
        return None;
    }
    names::made(dentry, ImageOp::Mknod)
}

/// Checks a regular file that is being created. If this is done by an open, the hook for opens follows. Otherwise
/// [`to_create`] was called before.
#[inline(always)]
pub fn creating(dentry: Dentry) -> Option<Change> {
    Image::at(dentry)?;
    let is_asked =
        pending::request().is_some_and(|request| request.is_by_name(dentry) && request.is_to(ImageOp::Mknod));
    if !is_asked {
        // The previous request was performed or refused.
        pending::forget();
        return None;
    }
    names::made(dentry, ImageOp::Mknod)
}

#[inline(always)]
fn changed(dentry: Dentry, op: ImageOp, value: u32) -> Option<Change> {
    let image = Image::at(dentry)?;
    let inode = dentry.inode();
    let number = inode.number();
    if op == ImageOp::Truncate {
        return content::changed(image, inode, number, dentry, op, 0);
    }
    let class = class(op.number(), if op == ImageOp::Chmod { value } else { 0 });
    Change { value, ..Change::of_image(image, inode, dentry, op, class) }.unless_repeated()
}
