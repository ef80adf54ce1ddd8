//! Determines which container's image a file is in.

use crate::{
    container,
    kernel::{Access, Dentry, Superblock},
};

/// A container's image.
#[derive(Clone, Copy)]
pub struct Image {
    /// The container that owns the image.
    pub owner: u64,
    /// The device number of the file system that the image is on.
    pub device: u32,
}

impl Image {
    /// Returns the image that a file on this file system is in. `dentry` is called only if images share the file
    /// system.
    #[inline(always)]
    pub fn on<A: Access>(superblock: Superblock<A>, dentry: impl FnOnce() -> Dentry) -> Option<Self> {
        if !superblock.is_overlay() && !container::has_other_roots() {
            return None;
        }
        let device = superblock.device();
        let owner = container::owner_of(device, dentry)?;
        Some(Self { owner, device })
    }

    /// Returns the image that a name is in.
    #[inline(always)]
    pub fn at(dentry: Dentry) -> Option<Self> {
        Self::on(dentry.superblock(), || dentry)
    }
}
