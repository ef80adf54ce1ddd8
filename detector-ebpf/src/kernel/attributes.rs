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
/// The kernel does this by itself: it removes the set-id bits of a file that is written to.
const ATTR_FORCE: u32 = 1 << 9;

/// Which change of attributes is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum AttributeChange {
    /// Nothing that matters.
    None,
    /// The length.
    Size,
    /// The owner or the group; the kernel may remove set-id bits in the same step.
    Ownership,
    /// The permissions.
    Mode,
    /// The timestamps, and nothing else.
    Timestamps,
}

impl Attributes {
    /// Which change is asked for, the most telling if there are several.
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

    /// The permissions that are asked for.
    #[inline(always)]
    pub fn permissions(self) -> u32 {
        // A `umode_t`, which has 16 bits.
        u32::from(self.read::<u16>(&OFF_IATTR_MODE)) & 0o7777
    }
}

/// What an extended attribute is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum XattrKind {
    /// Any that is none of the following.
    Other,
    /// File capabilities.
    Capability,
    /// An access control list.
    Acl,
}

impl XattrKind {
    /// What the extended attribute with this name is. The name is in a buffer of `XATTR_NAME_MAX` bytes, or a constant.
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
