//! The source of events: first those of others that the self-test has read, then the [records](Records).

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};

use aya::Ebpf;

use super::canary::Canary;
use super::decode::{self, DecodeError};
use super::error::Error;
use super::records::{EventBuffer, Records};
use crate::event::Event;

/// The maximum number of events that the self-test sets aside. Further events stay in the ring buffer.
const BACKLOG: usize = 4096;

/// An event, or the reason why a record could not be decoded.
pub(crate) type Decoded = Result<Event, DecodeError>;

/// The events, in the order in which they happened.
pub(super) struct Events {
    records: Records,
    sieve: Sieve,
}

impl Events {
    /// Takes the ring buffer out of a loaded object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self { records: Records::take(ebpf)?, sieve: Sieve::default() })
    }

    /// The next event, if there is one.
    pub(super) fn next(&mut self) -> Option<Decoded> {
        self.sieve.next(|| self.records.next(decode::decode))
    }

    /// Reads the records to find the events of the canary, and keeps all other events in the backlog. Returns
    /// `false` if there are too many; the rest stay where they are.
    pub(super) fn read_past(&mut self) -> bool {
        self.sieve.read_past(|| self.records.next(decode::decode))
    }

    /// Whether there are events, or records, that do not make the descriptor readable.
    pub(super) fn has_backlog(&self) -> bool {
        !self.sieve.backlog.is_empty() || self.records.has_moved()
    }

    /// How full the buffers are.
    pub(super) fn buffer(&self) -> EventBuffer {
        self.records.buffer()
    }

    /// From now on, filters out the events of this canary, until its cgroup is removed.
    pub(super) fn arm(&mut self, canary: Canary) {
        self.sieve.canary = Some(canary);
    }

    /// The canary, while it is armed.
    pub(super) fn canary(&mut self) -> Option<&mut Canary> {
        self.sieve.canary.as_mut()
    }
}

/// Separates the events of the canary from all others, of which none is lost.
#[derive(Default)]
struct Sieve {
    /// The events of others that the self-test has read. They are returned first.
    backlog: VecDeque<Decoded>,
    /// The canary of the self-test, as long as its events can arrive.
    canary: Option<Canary>,
}

impl Sieve {
    fn next(&mut self, read: impl FnMut() -> Option<Decoded>) -> Option<Decoded> {
        let event = self.backlog.pop_front().or_else(|| self.next_of_others(read));
        self.canary.take_if(|canary| canary.is_gone());
        event
    }

    fn read_past(&mut self, mut read: impl FnMut() -> Option<Decoded>) -> bool {
        while self.backlog.len() < BACKLOG {
            match self.next_of_others(&mut read) {
                Some(event) => self.backlog.push_back(event),
                None => return true,
            }
        }
        false
    }

    /// The next event that is not the canary's.
    fn next_of_others(&mut self, mut read: impl FnMut() -> Option<Decoded>) -> Option<Decoded> {
        loop {
            let decoded = read()?;
            let canary = self.canary.as_mut();
            let is_taken = canary.is_some_and(|canary| decoded.as_ref().is_ok_and(|event| canary.take(event)));
            if !is_taken {
                return Some(decoded);
            }
        }
    }
}

/// The descriptor is readable when there are events in the ring buffer.
impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.records.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Cgroup;

    const CANARY: &[u8] = b"/canary";

    fn created(id: u64, path: &[u8]) -> Event {
        Event::CgroupCreated(Cgroup { time: id, id, path: path.into() })
    }

    /// The events of the canary, and this many events of others.
    fn events(others: usize) -> impl Iterator<Item = Decoded> {
        let others = (0..others as u64).map(|id| Ok(created(id, b"/other")));
        let removed = Event::CgroupRemoved(Cgroup { time: 0, id: 1, path: CANARY.into() });
        std::iter::once(Ok(created(1, CANARY))).chain(others).chain([Ok(removed), Err(DecodeError::Misaligned)])
    }

    #[test]
    fn what_is_not_the_canarys_comes_out_whole_and_in_order() {
        for (others, fits) in [(0, true), (BACKLOG - 2, true), (BACKLOG, false), (3 * BACKLOG, false)] {
            let mut ring = events(others);
            let mut sieve = Sieve { canary: Some(Canary::new(CANARY.into())), ..Sieve::default() };
            assert_eq!(sieve.read_past(|| ring.next()), fits, "{others}");
            assert!(sieve.backlog.len() <= BACKLOG);
            assert_eq!(sieve.canary.as_ref().map(Canary::is_gone), Some(fits), "{others}");
            let out: Vec<_> = std::iter::from_fn(|| sieve.next(|| ring.next())).collect();
            let expected = (0..others as u64).map(|id| Ok(created(id, b"/other")));
            assert!(out.into_iter().eq(expected.chain([Err(DecodeError::Misaligned)])), "{others}");
            assert!(sieve.canary.is_none(), "it is gone, so that nothing is compared with it any more");
        }
    }
}
