//! `struct iattr`, and the names of extended attributes.

use super::{
    mem::{self, Addr},
    offsets::*,
};

/// `ATTR_` flags of `ia_valid` (include/linux/fs.h, 5.10 to 7.3).
const ATTR_MODE: u32 = 1 << 0;
const ATTR_UID: u32 = 1 << 1;
const ATTR_GID: u32 = 1 << 2;
const ATTR_SIZE: u32 = 1 << 3;
const ATTR_ATIME: u32 = 1 << 4;
const ATTR_MTIME: u32 = 1 << 5;
/// Not asked for by a process: the kernel takes set-id bits from a file that is written to.
const ATTR_FORCE: u32 = 1 << 9;

/// Nothing that matters.
pub const NONE: u32 = 0;
/// The length.
pub const SIZE: u32 = 1;
/// Owner or group; the kernel may take set-id bits away in the same step.
pub const OWNER: u32 = 2;
/// The permissions.
pub const MODE: u32 = 3;
/// The times, and nothing else.
pub const TIMES: u32 = 4;

/// Which change a `struct iattr` asks for, the most telling if there are several.
#[inline(always)]
pub fn change(attributes: Addr) -> u32 {
    // SAFETY: an `unsigned int`.
    let valid: u32 = unsafe { mem::read(attributes, OFF_IATTR_VALID.load()) };
    if valid & ATTR_SIZE != 0 {
        SIZE
    } else if valid & ATTR_FORCE != 0 {
        NONE
    } else if valid & (ATTR_UID | ATTR_GID) != 0 {
        OWNER
    } else if valid & ATTR_MODE != 0 {
        MODE
    } else if valid & (ATTR_ATIME | ATTR_MTIME) != 0 {
        TIMES
    } else {
        NONE
    }
}

/// The permissions that a `struct iattr` asks for.
#[inline(always)]
pub fn permissions(attributes: Addr) -> u32 {
    // SAFETY: a `umode_t`, which is 16 bits.
    u32::from(unsafe { mem::read::<u16>(attributes, OFF_IATTR_MODE.load()) }) & 0o7777
}

/// An extended attribute that is neither of the following.
pub const OTHER: u32 = 0;
/// File capabilities.
pub const CAPABILITY: u32 = 1;
/// An access control list.
pub const ACL: u32 = 2;

/// What an extended attribute of this name is.
#[inline(always)]
pub fn kind(name: Addr) -> u32 {
    // SAFETY: bytes of a string of the kernel, which is in a buffer of `XATTR_NAME_MAX` bytes or a constant.
    let start: u64 = unsafe { mem::read(name, 0) };
    // SAFETY: as above.
    let next: u64 = unsafe { mem::read(name, 8) };
    if start == u64::from_ne_bytes(*b"security") && next == u64::from_ne_bytes(*b".capabil") {
        CAPABILITY
    } else if start == u64::from_ne_bytes(*b"system.p") && next == u64::from_ne_bytes(*b"osix_acl") {
        ACL
    } else {
        OTHER
    }
}
