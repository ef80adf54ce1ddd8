//! The texts of a record: strings whose bytes follow it, one behind the other.

use detector_common::record::{ARGS_CAPACITY, PATH_CAPACITY, Span};

use crate::mem;

/// A text can begin at the positions up to this one, and has room to the end of [`ROOM`].
const LAST_START: usize = 8191;
/// Room for all texts. A power of two, so that a mask tells the verifier that a length fits.
const ROOM: usize = 16_384;

const _: () = assert!(LAST_START + PATH_CAPACITY <= ROOM && LAST_START + ARGS_CAPACITY <= ROOM);

/// The bytes of the texts.
#[repr(C)]
pub struct Texts {
    bytes: [u8; ROOM],
    /// How many bytes are in use. It lives in memory and is loaded again at each step: the verifier then knows nothing
    /// of it beyond what a mask says, so that all ways through a step look the same to it and are checked once.
    used: u32,
    reserved: u32,
}

impl Texts {
    /// The number of bytes in use.
    #[inline(always)]
    pub fn used(&self) -> u32 {
        mem::load(&self.used)
    }

    /// The number of bytes in use, bounded for the verifier: see [`mem::mask`].
    #[inline(always)]
    pub fn bounded(&self) -> u64 {
        mem::mask::<{ ROOM as u64 - 1 }>(u64::from(self.used()))
    }

    /// Forgets all texts.
    #[inline(always)]
    pub fn clear(&mut self) {
        mem::store(&mut self.used, 0);
    }

    /// The next `N` bytes. `None`: too much is in use.
    #[inline(always)]
    pub fn room<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        let used = u64::from(self.used());
        mem::window::<{ LAST_START as u64 }, N, ROOM>(&mut self.bytes, used)
    }

    /// Adds the first `count` bytes of the [room](Self::room) to the bytes in use.
    #[inline(always)]
    pub fn grow(&mut self, count: u32) {
        let used = self.used().wrapping_add(count);
        mem::store(&mut self.used, used);
    }

    /// Adds a text of at most `N` bytes. `copy` writes it, and returns the number of its bytes and the flags of the
    /// [`Span`]. `flags` are those of a text for which there is no room.
    #[inline(always)]
    pub fn add<const N: usize>(&mut self, out: &mut Span, flags: u32, copy: impl FnOnce(&mut [u8; N]) -> (u32, u32)) {
        let (len, flags) = match self.room() {
            Some(room) => copy(room),
            None => (0, flags),
        };
        self.grow(len);
        mem::store(&mut out.len, len);
        mem::store(&mut out.flags, flags);
    }
}
