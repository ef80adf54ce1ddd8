//! The records of the probes: those in the ring buffer, and those that were moved out of it before it was full.
//!
//! The ring buffer is memory that is always there, so it is small. When records come faster than they are handled, they
//! are moved to memory that is there only as long.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

use aya::Ebpf;
use aya::maps::{Map, MapData, RingBuf};
use rustix::mm::{MapFlags, ProtFlags};
use serde::{Deserialize, Serialize};
use zerocopy::IntoBytes as _;

use super::error::Error;
use super::maps;

/// The name of the ring buffer's map.
const MAP: &str = "EVENTS";
/// Records are moved to chunks of this many bytes, or of their own size.
const CHUNK: usize = 256 << 10;
/// How many chunks there are at most. Further records stay in the ring buffer.
const MOST_CHUNKS: usize = 64;
/// The alignment of records, in bytes.
const WORD: usize = size_of::<u64>();

/// How full the buffers of events are: the kernel's ring buffer, and the memory that its events are moved to when it is
/// more than half full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventBuffer {
    /// How many bytes the events take that were not read yet.
    pub bytes: u64,
    /// How many bytes they can take before some are lost.
    pub size: u64,
    /// How many events were moved.
    pub moved: u64,
}

/// The records, in the order in which the probes have sent them.
pub(super) struct Records {
    ring: RingBuf<MapData>,
    positions: Positions,
    /// The size of the ring buffer, in bytes.
    size: usize,
    moved: Moved,
}

impl Records {
    /// Takes the ring buffer out of a loaded object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        let refused = |why: String| Error::Map { name: MAP, why };
        let map = maps::raw(ebpf, MAP)?;
        let Map::RingBuf(data) = &map else { return Err(refused("it is no ring buffer".to_owned())) };
        let size = data.info().map_err(|e| refused(e.to_string()))?.max_entries() as usize;
        let positions = Positions::of(data.fd().as_fd());
        let positions = positions.map_err(|e| refused(format!("mapping its positions: {e}")))?;
        let ring = RingBuf::try_from(map).map_err(|e| refused(e.to_string()))?;
        Ok(Self { ring, positions, size, moved: Moved::default() })
    }

    /// Lets `read` take the next record, if there is one. It is aligned to 8 bytes.
    pub(super) fn next<T>(&mut self, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
        if self.positions.filled() > self.size / 2 {
            self.move_out();
        }
        if self.moved.is_empty() { self.ring.next().map(|record| read(&record)) } else { self.moved.next(read) }
    }

    /// Moves records out of the ring buffer.
    fn move_out(&mut self) {
        while self.moved.has_room()
            && let Some(record) = self.ring.next()
        {
            self.moved.push(&record);
        }
    }

    /// Whether there are records that do not make the descriptor readable.
    pub(super) fn has_moved(&self) -> bool {
        !self.moved.is_empty()
    }

    /// How full the buffers are.
    pub(super) fn buffer(&self) -> EventBuffer {
        EventBuffer {
            bytes: (self.positions.filled() + self.moved.len()) as u64,
            size: (self.size + MOST_CHUNKS * CHUNK) as u64,
            moved: self.moved.count,
        }
    }
}

/// The descriptor is readable when there are records in the ring buffer.
impl AsFd for Records {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

/// Records that were moved out of the ring buffer, in chunks of memory that are freed one by one.
#[derive(Default)]
struct Moved {
    /// Each record after the number of its bytes, in whole words, so that all are aligned. No chunk is empty.
    chunks: VecDeque<Vec<u64>>,
    /// How many words of the first chunk were taken.
    taken: usize,
    /// How many records have been moved.
    count: u64,
}

impl Moved {
    fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The bytes of what was not taken.
    fn len(&self) -> usize {
        (self.chunks.iter().map(Vec::len).sum::<usize>() - self.taken) * WORD
    }

    fn has_room(&self) -> bool {
        self.chunks.len() < MOST_CHUNKS
    }

    fn push(&mut self, record: &[u8]) {
        let words = 1 + record.len().div_ceil(WORD);
        if self.chunks.back().is_none_or(|chunk| chunk.capacity() - chunk.len() < words) {
            self.chunks.push_back(Vec::with_capacity(words.max(CHUNK / WORD)));
        }
        let chunk = self.chunks.back_mut().expect("there is one with room");
        chunk.push(record.len() as u64);
        let first = chunk.len();
        chunk.resize(first - 1 + words, 0);
        chunk[first..].as_mut_bytes()[..record.len()].copy_from_slice(record);
        self.count += 1;
    }

    /// Lets `read` take the first record, if there is one.
    fn next<T>(&mut self, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let chunk = self.chunks.front()?;
        let (first, size) = (self.taken + 1, chunk[self.taken] as usize);
        let result = read(&chunk[first..].as_bytes()[..size]);
        self.taken = first + size.div_ceil(WORD);
        if self.taken == chunk.len() {
            self.chunks.pop_front();
            self.taken = 0;
        }
        Some(result)
    }
}

/// How far the ring buffer was written and read: the pages before its data, which nobody writes to through this
/// mapping (`struct bpf_ringbuf`, kernel/bpf/ringbuf.c, 5.8 to 7.3).
struct Positions {
    pages: NonNull<c_void>,
    page_size: usize,
}

// SAFETY: the pages belong to this value alone, and can be read by any thread.
#[expect(unsafe_code, reason = "a mapping is a pointer")]
unsafe impl Send for Positions {}

#[expect(unsafe_code, reason = "the kernel tells the positions in memory that it shares")]
impl Positions {
    /// Maps the positions of a ring buffer.
    fn of(map: BorrowedFd<'_>) -> io::Result<Self> {
        let page_size = rustix::param::page_size();
        // SAFETY: the kernel chooses a free address.
        let pages = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), 2 * page_size, ProtFlags::READ, MapFlags::SHARED, map, 0)?
        };
        Ok(Self { pages: NonNull::new(pages).expect("the kernel maps nothing at address 0"), page_size })
    }

    /// How many bytes of the ring buffer are filled.
    fn filled(&self) -> usize {
        // The consumer's position is read first, so that it is never ahead.
        let consumer = self.at(0).load(Ordering::Acquire);
        self.at(self.page_size).load(Ordering::Acquire).wrapping_sub(consumer)
    }

    /// The position in the page at `offset`.
    fn at(&self, offset: usize) -> &AtomicUsize {
        // SAFETY: both pages are mapped as long as this value lives, and each begins with an aligned position, an
        // `unsigned long`, which is only read and written as a whole.
        unsafe { self.pages.byte_add(offset).cast::<AtomicUsize>().as_ref() }
    }
}

#[expect(unsafe_code, reason = "a mapping is a pointer")]
impl Drop for Positions {
    fn drop(&mut self) {
        // SAFETY: this value has made the mapping, and nothing borrows from it any more. It cannot fail.
        let _ = unsafe { rustix::mm::munmap(self.pages.as_ptr(), 2 * self.page_size) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_moved_comes_out_whole_aligned_and_in_order() {
        let mut moved = Moved::default();
        let record = |number: usize| vec![number as u8; number % 5000];
        let mut next = 0;
        let mut take = |moved: &mut Moved| {
            moved.next(|bytes| {
                assert!(bytes.as_ptr().addr().is_multiple_of(WORD));
                assert_eq!(bytes, record(next));
            });
            next += 1;
        };
        let mut pushed = 0;
        while moved.has_room() {
            moved.push(&record(pushed));
            pushed += 1;
            if pushed.is_multiple_of(3) {
                take(&mut moved);
            }
        }
        // Each chunk can lack less than what a record takes, and one record in three was taken.
        let least = MOST_CHUNKS * (CHUNK - 5008) * 2 / 3 - CHUNK;
        assert!((least..=MOST_CHUNKS * CHUNK).contains(&moved.len()), "{}", moved.len());
        (pushed / 3..pushed).for_each(|_| take(&mut moved));
        assert!(moved.is_empty() && moved.next(|_| ()).is_none());
        assert_eq!((moved.len(), moved.count, next), (0, pushed as u64, pushed));
        moved.push(&[]);
        moved.push(&vec![1; 2 * CHUNK]);
        assert_eq!(moved.next(<[u8]>::len), Some(0));
        assert_eq!(moved.next(<[u8]>::len), Some(2 * CHUNK));
        assert!(moved.is_empty());
    }
}
