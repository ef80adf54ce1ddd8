//! Which container's image a file is in.

use crate::{
    container,
    kernel::{Access, Dentry, Superblock},
};

/// A container's image.
#[derive(Clone, Copy)]
pub struct Image {
    /// The container.
    pub owner: u64,
    /// Device number of the file system that the image is on.
    pub device: u32,
}

impl Image {
    /// The image that something on a file system is in. `dentry` is asked for where images share a file system.
    #[inline(always)]
    pub fn on<A: Access>(superblock: Superblock<A>, dentry: impl FnOnce() -> Dentry) -> Option<Self> {
        if !superblock.is_overlay() && !container::has_other_roots() {
            return None;
        }
        let device = superblock.device();
        let owner = container::owner_of(device, dentry)?;
        Some(Self { owner, device })
    }

    /// The image that a name is in.
    #[inline(always)]
    pub fn at(dentry: Dentry) -> Option<Self> {
        Self::on(dentry.superblock(), || dentry)
    }
}
