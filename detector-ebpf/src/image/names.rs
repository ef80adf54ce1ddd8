//! Names that are created, removed and changed.

use detector_common::vocabulary::ImageOp;

use super::{
    locate::Image,
    pending::{self, Request},
    report::{Change, EACH},
    seen,
};
use crate::kernel::{Dentry, Inode};

/// Returns whether an operation changes names and may be refused by overlayfs, for instance because a directory is not
/// empty.
#[inline(always)]
pub(super) fn is_of_names(op: ImageOp) -> bool {
    matches!(op, ImageOp::Rename | ImageOp::Exchange | ImageOp::Rmdir)
}

/// Checks a file or directory that is being created.
#[inline(always)]
pub fn made(dentry: Dentry, op: ImageOp) -> Option<Change> {
    let image = Image::at(dentry)?;
    pending::note_reported(dentry, Dentry::NULL);
    let directory = dentry.parent().inode();
    Some(Change { is_new: 1, ..Change::of_image(image, directory, dentry, op, EACH) })
}

/// Checks a FIFO, socket or device that is being created with this type and these permissions.
#[inline(always)]
pub fn made_node(dentry: Dentry, mode: u32) -> Option<Change> {
    made(dentry, ImageOp::Mknod).map(|change| Change { value: mode, ..change })
}

/// Checks a name that is being removed. If the actor itself has created the file, this does not change the image.
#[inline(always)]
pub fn removed(dentry: Dentry, op: ImageOp) -> Option<Change> {
    let image = Image::at(dentry)?;
    let inode = dentry.inode();
    let creator = lose_name(image, inode);
    if op == ImageOp::Rmdir && dentry.superblock().is_overlay() && Request::to_change(dentry, op, 0).defer() {
        return None;
    }
    pending::note_reported(dentry, Dentry::NULL);
    Change { creator, ..Change::of_image(image, inode, dentry, op, EACH) }.unless_repeated()
}

/// Forgets a file or directory that is about to lose its last name. If that is refused, its next change is reported
/// again. Returns who created it.
#[inline(always)]
fn lose_name(image: Image, inode: Inode) -> u64 {
    let file = seen::get(image, inode.number());
    if inode.is_directory() || inode.links() == 1 {
        file.forget();
    }
    file.creator
}

/// Checks the file `dentry`, which gets the additional name `new`.
#[inline(always)]
pub fn linked(dentry: Dentry, new: Dentry) -> Option<Change> {
    let image = Image::at(dentry)?;
    pending::note_reported(dentry, new);
    Some(moved(image, dentry, new, ImageOp::Link))
}

/// Checks a rename of `dentry` to `new`. It is requested by a process, or made by overlayfs in the upper layer on some
/// request.
#[inline(always)]
pub fn renamed(dentry: Dentry, new: Dentry, op: ImageOp) -> Option<Change> {
    let Some(image) = Image::at(dentry) else {
        return granted(dentry, new);
    };
    let replaced = new.inode();
    if op == ImageOp::Rename && !replaced.is_null() {
        lose_name(image, replaced);
    }
    if dentry.superblock().is_overlay() && Request::to_move(dentry, new, op).defer() {
        return None;
    }
    Some(moved(image, dentry, new, op))
}

/// Checks a rename in an upper layer. If the running thread has requested the rename of that file, or the removal of a
/// directory with that name, the request was granted: overlayfs removes a directory of a lower layer by renaming a
/// whiteout to its name. A directory that overlayfs removes only from the upper layer was created by the container
/// itself, and is not reported.
#[inline(always)]
fn granted(dentry: Dentry, new: Dentry) -> Option<Change> {
    let request = pending::request()?;
    let op = request.op()?;
    let is_granted = match op {
        ImageOp::Rename | ImageOp::Exchange => request.dentry.inode().is_above(dentry),
        ImageOp::Rmdir => request.dentry.parent().inode().is_above(new.parent()),
        _ => false,
    };
    is_granted.then(pending::forget)?;
    changed(&request, op)
}

/// Returns the change of the names that the running thread has requested to change.
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
