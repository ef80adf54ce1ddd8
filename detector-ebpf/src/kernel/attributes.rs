//! `struct iattr`, and the names of extended attributes.

use super::{
    offsets::*,
    pointer::{Attributes, Str},
};

/// `ATTR_` flags of `ia_valid` (include/linux/fs.h, 5.10 to 7.3).
const ATTR_MODE: u32 = 1 << 0;
const ATTR_UID: u32 = 1 << 1;
const ATTR_GID: u32 = 1 << 2;
const ATTR_SIZE: u32 = 1 << 3;
const ATTR_ATIME: u32 = 1 << 4;
const ATTR_MTIME: u32 = 1 << 5;
/// The flag of a change that the kernel makes by itself: it removes the set-id bits of a file that is written to.
const ATTR_FORCE: u32 = 1 << 9;

/// The change of attributes that is requested.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum AttributeChange {
    /// No change that matters.
    None,
    /// A change of the length.
    Size,
    /// A change of the owner or the group. The kernel may remove set-id bits in the same step.
    Ownership,
    /// A change of the permissions.
    Mode,
    /// A change of the timestamps only.
    Timestamps,
}

impl Attributes {
    /// Returns the requested change. If there are several, this is the most significant one.
    #[inline(always)]
    pub fn change(self) -> AttributeChange {
        let valid: u32 = self.read(&OFF_IATTR_VALID);
        if valid & ATTR_SIZE != 0 {
            AttributeChange::Size
        } else if valid & ATTR_FORCE != 0 {
            AttributeChange::None
        } else if valid & (ATTR_UID | ATTR_GID) != 0 {
            AttributeChange::Ownership
        } else if valid & ATTR_MODE != 0 {
            AttributeChange::Mode
        } else if valid & (ATTR_ATIME | ATTR_MTIME) != 0 {
            AttributeChange::Timestamps
        } else {
            AttributeChange::None
        }
    }

    /// Returns the requested permissions.
    #[inline(always)]
    pub fn permissions(self) -> u32 {
        // The member is a `umode_t`, which has 16 bits.
        u32::from(self.read::<u16>(&OFF_IATTR_MODE)) & 0o7777
    }
}

/// The kinds of extended attributes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum XattrKind {
    /// Any other attribute.
    Other,
    /// File capabilities.
    Capability,
    /// An access control list.
    Acl,
}

impl XattrKind {
    /// Returns the kind of the extended attribute with this name. The name is in a buffer of `XATTR_NAME_MAX` bytes, or
    /// a constant.
    #[inline(always)]
    pub fn of(name: Str) -> Self {
        let (start, next) = (name.word(0), name.word(8));
        if start == u64::from_ne_bytes(*b"security") && next == u64::from_ne_bytes(*b".capabil") {
            Self::Capability
        } else if start == u64::from_ne_bytes(*b"system.p") && next == u64::from_ne_bytes(*b"osix_acl") {
            Self::Acl
        } else {
            Self::Other
        }
    }
}
