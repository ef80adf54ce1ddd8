//! The texts of a record: strings whose bytes follow the record, one after the other.

use detector_common::record::{ARGS_CAPACITY, NAME_CAPACITY, PATH_CAPACITY, Span, TEXT_TRUNCATED};

use crate::mem;

/// The last position at which a text can begin. It is a mask, so that the verifier knows that a position fits.
const LAST_START: usize = 16_383;

/// The length of the longest path that is written. It exceeds the capacity, because the last name of a path can exceed
/// it.
const LONGEST_PATH: usize = PATH_CAPACITY + NAME_CAPACITY;

// There is room for each text of a record, however long its texts are, because no record has more than three.
const _: () = assert!(3 * LONGEST_PATH <= LAST_START && ARGS_CAPACITY <= PATH_CAPACITY);

/// The bytes of the texts.
#[repr(C)]
pub struct Texts {
    bytes: [u8; LAST_START + 1 + PATH_CAPACITY],
    /// The number of bytes in use. It is kept in memory and loaded again at each step, so that the verifier knows
    /// nothing about it except for the mask. All ways through a step then look the same to the verifier, and it checks
    /// them once.
    used: u32,
}

impl Texts {
    /// Returns the number of bytes in use.
    #[inline(always)]
    pub fn used(&self) -> u32 {
        mem::load(&self.used)
    }

    /// Returns the number of bytes in use, with a bound that the verifier knows. See [`mem::mask`].
    #[inline(always)]
    pub fn bounded(&self) -> u64 {
        mem::mask::<{ LAST_START as u64 }>(u64::from(self.used()))
    }

    /// Removes all texts.
    #[inline(always)]
    pub fn clear(&mut self) {
        mem::store(&mut self.used, 0);
    }

    /// Returns the next `N` bytes. There are always enough, but the verifier needs to see the check.
    #[inline(always)]
    pub fn room<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        let used = u64::from(self.used());
        mem::window::<{ LAST_START as u64 }, N, _>(&mut self.bytes, used)
    }

    /// Adds the first `count` bytes of the [room](Self::room) to the bytes in use.
    #[inline(always)]
    pub fn grow(&mut self, count: u32) {
        let used = self.used().wrapping_add(count);
        mem::store(&mut self.used, used);
    }

    /// Adds a text of at most `N` bytes. `copy` writes it, and returns the number of its bytes and the flags of the
    /// [`Span`].
    #[inline(always)]
    pub fn add<const N: usize>(&mut self, out: &mut Span, copy: impl FnOnce(&mut [u8; N]) -> (u32, u32)) {
        let (len, flags) = self.room().map_or((0, TEXT_TRUNCATED), copy);
        self.grow(len);
        mem::store(&mut out.len, len);
        mem::store(&mut out.flags, flags);
    }
}
