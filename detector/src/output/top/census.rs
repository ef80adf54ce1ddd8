//! What the ledger says about the containers, as far as the table of containers has it.

use std::collections::BTreeMap;

use super::containers::MOST_CONTAINERS;
use super::is_recent;
use crate::finding::{Severity, Time};
use crate::ledger::Row;
use crate::ledger::entry::Entry;
use crate::ledger::page::{Gap, Page, Session};

/// The containers of an answer of the ledger that run, or have ended only now.
#[derive(Debug)]
pub(crate) struct Census {
    now: Time,
    /// Since when the daemon watches.
    since: Time,
    gaps: Vec<Gap>,
    pub(super) known: Vec<Known>,
    /// Whether the container of the last page is among them.
    is_wanted: bool,
    /// How many there was no room for.
    pub(super) left_out: u64,
}

/// What is known of a container.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) page: Page,
    /// Whether there can be more than what is known.
    pub(super) is_doubtful: bool,
    /// When each severity was found last.
    pub(super) worst: BTreeMap<Severity, Time>,
    /// The sessions that last.
    pub(super) open: Vec<String>,
}

impl Known {
    fn entry(&mut self, entry: &Entry) {
        let last = entry.deeds.values().map(|done| done.last).max();
        if let Some(last) = last.filter(|_| !entry.is_expected()) {
            note(&mut self.worst, entry.severity(), last);
        }
    }

    /// Takes a session. The end of one from before the daemon may not have been seen.
    fn session(&mut self, session: Session, since: Time) {
        note(&mut self.worst, session.severity, session.ended.unwrap_or(session.started));
        if session.ended.is_none() && session.started >= since {
            self.open.push(session.id);
        }
    }
}

/// Notes that a severity was found at this time.
pub(super) fn note(worst: &mut BTreeMap<Severity, Time>, severity: Severity, time: Time) {
    let last = worst.entry(severity).or_insert(time);
    *last = time.max(*last);
}

impl Census {
    /// An answer of which nothing has come yet, by a daemon that watches since then.
    pub(crate) fn new(now: Time, since: Time) -> Self {
        Self { now, since, gaps: Vec::new(), known: Vec::new(), is_wanted: false, left_out: 0 }
    }

    /// Takes the next row.
    pub(crate) fn take(&mut self, row: Row) {
        match row {
            Row::Gap(gap) => self.gaps.push(gap),
            Row::Page(page) => self.page(*page),
            Row::Entry(entry) => self.wanted().into_iter().for_each(|known| known.entry(&entry)),
            Row::Session(session) => {
                let since = self.since;
                if let Some(known) = self.wanted() {
                    known.session(*session, since);
                }
            }
            Row::End => {}
        }
    }

    fn page(&mut self, page: Page) {
        let is_here = page.ended.is_none_or(|ended| is_recent(ended, self.now));
        self.is_wanted = is_here && self.known.len() < MOST_CONTAINERS;
        if self.is_wanted {
            let is_doubtful = !page.doubts(&self.gaps).is_empty();
            self.known.push(Known { page, is_doubtful, worst: BTreeMap::new(), open: Vec::new() });
        } else if is_here {
            self.left_out += 1;
        }
    }

    fn wanted(&mut self) -> Option<&mut Known> {
        self.known.last_mut().filter(|_| self.is_wanted)
    }
}
