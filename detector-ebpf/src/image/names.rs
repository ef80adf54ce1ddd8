//! Names: made, removed, changed.

use detector_common::vocabulary::ImageOp;

use super::{
    locate::Image,
    pending::{self, Request},
    report::{Change, EACH},
    seen,
};
use crate::kernel::Dentry;

/// Whether this is asked of names, and may be refused by overlayfs: directories with something in them stay.
#[inline(always)]
pub(super) fn is_of_names(op: ImageOp) -> bool {
    matches!(op, ImageOp::Rename | ImageOp::Exchange | ImageOp::Rmdir)
}

/// Something gets its first name.
#[inline(always)]
pub fn made(dentry: Dentry, op: ImageOp) -> Option<Change> {
    let image = Image::at(dentry)?;
    pending::note_reported(dentry, Dentry::NULL);
    let directory = dentry.parent().inode();
    Some(Change { is_new: 1, ..Change::of_image(image, directory, dentry, op, EACH) })
}

/// A name is being removed. If it is that of a file which the container has itself created, this changes nothing of the
/// image.
#[inline(always)]
pub fn removed(dentry: Dentry, op: ImageOp) -> Option<Change> {
    let image = Image::at(dentry)?;
    if op == ImageOp::Rmdir && dentry.superblock().is_overlay() && Request::to_change(dentry, op, 0).defer() {
        return None;
    }
    pending::note_reported(dentry, Dentry::NULL);
    let inode = dentry.inode();
    let key = seen::content_key(image, inode.number());
    if op == ImageOp::Unlink {
        let content = seen::get(key);
        // The next file with this number is another one. What is not reported yet must stay.
        if content.is_reported() && inode.links() == 1 {
            seen::forget(key);
        }
        if content.is_creation() {
            return None;
        }
    }
    Some(Change::of_image(image, inode, dentry, op, EACH))
}

/// What has the name `dentry` gets the name `new` besides.
#[inline(always)]
pub fn linked(dentry: Dentry, new: Dentry) -> Option<Change> {
    let image = Image::at(dentry)?;
    pending::note_reported(dentry, new);
    Some(moved(image, dentry, new, ImageOp::Link))
}

/// What has the name `dentry` is to get the name `new` instead, or gets it in the upper layer for something else that
/// was asked for.
#[inline(always)]
pub fn renamed(dentry: Dentry, new: Dentry, op: ImageOp) -> Option<Change> {
    let Some(image) = Image::at(dentry) else {
        return granted(dentry, new);
    };
    if dentry.superblock().is_overlay() && Request::to_move(dentry, new, op).defer() {
        return None;
    }
    Some(moved(image, dentry, new, op))
}

/// Something is renamed in an upper layer. If the running thread has asked for that name to be changed, or for the
/// directory of that name to be removed, then it is: overlayfs puts a mark over a directory of a lower layer. A
/// directory that it removes from the upper layer alone was made by the container itself, and is not reported.
#[inline(always)]
fn granted(dentry: Dentry, new: Dentry) -> Option<Change> {
    let request = pending::request()?;
    let op = request.op()?;
    let is_granted = match op {
        ImageOp::Rename | ImageOp::Exchange => request.dentry.inode().upper_dentry() == dentry,
        ImageOp::Rmdir => request.dentry.parent().inode().upper_dentry() == new.parent(),
        _ => false,
    };
    is_granted.then(pending::forget)?;
    changed(&request, op)
}

/// Names that the running thread has asked to change are being changed.
#[inline(always)]
pub(super) fn changed(request: &Request, op: ImageOp) -> Option<Change> {
    let dentry = request.dentry;
    let image = Image::at(dentry)?;
    Some(match op {
        ImageOp::Rmdir => Change::of_image(image, dentry.inode(), dentry, op, EACH),
        _ => moved(image, dentry, request.new_dentry, op),
    })
}

#[inline(always)]
fn moved(image: Image, dentry: Dentry, new_dentry: Dentry, op: ImageOp) -> Change {
    let inode = dentry.inode();
    let is_new = u32::from(inode.links() == 0);
    Change { new_dentry, is_new, ..Change::of_image(image, inode, dentry, op, EACH) }
}
