//! Where events come from: the ring buffer, and before it what the self-test had to read past.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};

use aya::Ebpf;
use aya::maps::{MapData, RingBuf};

use super::canary::Canary;
use super::decode::{self, DecodeError};
use super::error::Error;
use super::maps;
use crate::event::Event;

/// How many events the self-test reads past at most. The others stay in the ring buffer, which has room for less.
const BACKLOG: usize = 4096;

/// An event, or why a record is none.
pub(crate) type Decoded = Result<Event, DecodeError>;

/// The events, in the order in which they happened.
pub(super) struct Events {
    records: RingBuf<MapData>,
    /// What was read past, and comes first.
    backlog: VecDeque<Decoded>,
    /// The canary of the self-test, while events of it can come.
    canary: Option<Canary>,
}

impl Events {
    /// Takes the ring buffer out of a loaded object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        const MAP: &str = "EVENTS";
        let records =
            RingBuf::try_from(maps::raw(ebpf, MAP)?).map_err(|e| Error::Map { name: MAP, why: e.to_string() })?;
        Ok(Self { records, backlog: VecDeque::new(), canary: None })
    }

    /// The next event, if there is one.
    pub(super) fn next(&mut self) -> Option<Decoded> {
        let event = self.backlog.pop_front().or_else(|| self.next_record());
        self.canary.take_if(|canary| canary.is_gone());
        event
    }

    /// Whether events were read past that nobody has had yet: they do not make the descriptor readable.
    pub(super) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// From now on, the events of this canary are taken out, until its cgroup is gone.
    pub(super) fn arm(&mut self, canary: Canary) {
        self.canary = Some(canary);
    }

    /// The canary, while it is armed.
    pub(super) fn canary(&mut self) -> Option<&mut Canary> {
        self.canary.as_mut()
    }

    /// Reads what is in the ring buffer for the sake of the canary, and keeps what is not the canary's. `false`: there are
    /// too many; the others stay where they are.
    pub(super) fn read_past(&mut self) -> bool {
        while self.backlog.len() < BACKLOG {
            match self.next_record() {
                Some(event) => self.backlog.push_back(event),
                None => return true,
            }
        }
        false
    }

    /// The next event of the ring buffer that is not the canary's.
    fn next_record(&mut self) -> Option<Decoded> {
        loop {
            let decoded = decode::decode(&self.records.next()?);
            let canary = self.canary.as_mut();
            let is_taken = canary.is_some_and(|canary| decoded.as_ref().is_ok_and(|event| canary.take(event)));
            if !is_taken {
                return Some(decoded);
            }
        }
    }
}

/// Readable when there are events in the ring buffer.
impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.records.as_fd()
    }
}
