//! What is a change of a container's image. Each function here is asked by a hook about one call, from the cheapest
//! check to the dearest, and gives the [`Change`] to report, if there is one.
//!
//! One change of a file is reported once, whichever hooks it passes: an open for writing stands for all writes that
//! follow it, and for the copy-up; what is done to the metadata of a file that the container has itself made belongs to
//! its making. What has been reported is in `SEEN`.

mod code;
mod content;
mod metadata;
mod mounts;
mod names;
pub mod pending;
pub mod report;

use detector_common::{
    map::{CLASS_CONTENT, ROOTS_SHARED, Seen, SeenKey},
    record::OP_CREATE,
};

use crate::{
    container,
    kernel::{
        file,
        mem::{self, Addr, Read, Untyped},
        task,
    },
    maps::{ROOTS, SEEN},
};

pub use code::mapped;
pub use content::{device_opened, opened, stored, written};
pub use metadata::{changing, copied_up, creating, ended};
pub use mounts::{changed_mounts, changing_mounts, mounted, remounted, rooted};
pub use names::{linked, made, removed, renamed};

/// A container's image.
#[derive(Clone, Copy)]
struct Image {
    /// The container.
    owner: u64,
    /// Device number of the file system that the image is on.
    device: u32,
}

/// The image that something on a file system is on. `dentry` is asked for where images share a file system.
///
/// # Safety
///
/// `sb` must be a `struct super_block` of the kind that `R` reads.
#[inline(always)]
unsafe fn image_of<R: Read>(sb: Addr, dentry: impl FnOnce() -> Addr) -> Option<Image> {
    // SAFETY: as for the caller; the map's value is copied at once.
    let (device, owner) = unsafe {
        if !file::is_overlay::<R>(sb) && !container::has_other_roots() {
            return None;
        }
        let device = file::superblock_device::<R>(sb);
        (device, ROOTS.get(device).copied()?)
    };
    let owner = if owner == ROOTS_SHARED { container::sharing(task::current(), device, dentry())? } else { owner };
    Some(Image { owner, device })
}

/// The image that a name is in.
#[inline(always)]
fn image_at(dentry: Addr) -> Option<Image> {
    // SAFETY: `superblock_at` gives a superblock, or 0, which reads as zero.
    unsafe { image_of::<Untyped>(file::superblock_at(dentry), || dentry) }
}

/// Whether a name is on an overlay.
#[inline(always)]
fn is_on_overlay(dentry: Addr) -> bool {
    // SAFETY: as above.
    unsafe { file::is_overlay::<Untyped>(file::superblock_at(dentry)) }
}

/// What `SEEN` keeps of the content of a file.
#[inline(always)]
fn content_key(image: Image, inode: u64) -> SeenKey {
    SeenKey { container: image.owner, inode, dev: image.device, class: CLASS_CONTENT }
}

/// What is in `SEEN`.
#[inline(always)]
fn seen(key: SeenKey) -> Option<Seen> {
    // SAFETY: the value is copied at once; a concurrent change can only mix two valid values of one file.
    unsafe { SEEN.get(key).copied() }
}

/// Whether a change of this class was reported of this file, and not of one that had its number before.
#[inline(always)]
fn is_repeated(key: SeenKey, content: Option<Seen>) -> bool {
    match (seen(key), content) {
        (Some(before), Some(content)) => content.op != OP_CREATE || before.first >= content.first,
        (before, None) => before.is_some(),
        (None, _) => false,
    }
}

/// The number of a file.
#[inline(always)]
fn number(inode: Addr) -> u64 {
    // SAFETY: `inode` is one, or reads as zero.
    unsafe { file::number::<mem::Untyped>(inode) }
}
