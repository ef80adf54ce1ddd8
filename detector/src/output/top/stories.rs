//! The stories of the live view, as they are told where every line can be replaced.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};

use super::containers::Key;
use crate::finding::{Container, Finding, Kind, Line, Notice, NoticeEvent, Time};
use crate::output::fit::Run;
use crate::output::live::{Last, is_last};
use crate::output::terminal::{self, Drawn, Look};
use crate::recent::Recent;

/// How many lines are kept at most, and how many bytes of the daemon's lines they are made of.
pub(super) const MOST_LINES: usize = 500;
pub(super) const MOST_BYTES: usize = 2 << 20;
/// How many findings are remembered at most, so that an update is known as one.
const MOST_FINDINGS: usize = 8192;
/// An update replaces one of so many last lines. What is above them may not be seen any more.
const NEAR: usize = 8;

/// The lines of the stories, the last one at the end.
#[derive(Debug)]
pub(super) struct Stories {
    told: VecDeque<Told>,
    bytes: usize,
    known: Recent<String, Known>,
    hasher: RandomState,
    /// How many lines there was no room for.
    pub(super) left_out: u64,
}

/// What is known of a finding that was told.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// The time in its first line.
    first: Time,
    /// A hash of what was said.
    said: u64,
}

#[derive(Debug)]
struct Told {
    what: What,
    /// How long the line of the daemon was.
    bytes: usize,
}

#[derive(Debug)]
enum What {
    Finding(Box<Finding>),
    /// An update of a finding whose first line has this time.
    Update(Box<Finding>, Time),
    Notice(Box<Notice>),
    Remark(String),
}

impl Told {
    fn finding(&self) -> Option<&Finding> {
        match &self.what {
            What::Finding(finding) | What::Update(finding, _) => Some(finding),
            What::Notice(_) | What::Remark(_) => None,
        }
    }

    fn is_of_session(&self, id: &str) -> bool {
        matches!(&self.what, What::Finding(finding) if finding.session.as_deref() == Some(id))
    }

    /// Whether it is about this container, or about the detector itself.
    fn is_about(&self, wanted: &Key) -> bool {
        let of = |container: Option<&Container>| Key::of(container) == *wanted;
        match &self.what {
            What::Finding(finding) | What::Update(finding, _) => of(finding.container.as_ref()),
            What::Notice(notice) => match &notice.event {
                NoticeEvent::SessionEnded { container, .. }
                | NoticeEvent::Watched { container }
                | NoticeEvent::Unwatched { container, .. } => of(Some(container)),
                _ => true,
            },
            What::Remark(_) => true,
        }
    }

    /// What the line below need not say again.
    fn last(&self) -> Last {
        match &self.what {
            What::Finding(finding) => Last::of(finding),
            _ => Last::default(),
        }
    }

    fn draw(&self, last: &Last, look: Look) -> Drawn {
        match &self.what {
            What::Finding(finding) => terminal::finding(finding, last.above(finding), look),
            What::Update(finding, first) => terminal::update(finding, *first, look),
            What::Notice(notice) => terminal::notice(notice, look),
            What::Remark(text) => terminal::remark(text, look),
        }
    }
}

impl Default for Stories {
    fn default() -> Self {
        Self {
            told: VecDeque::new(),
            bytes: 0,
            known: Recent::new(MOST_FINDINGS),
            hasher: RandomState::new(),
            left_out: 0,
        }
    }
}

impl Stories {
    /// How many lines are kept.
    pub(super) fn len(&self) -> usize {
        self.told.len()
    }

    /// Whether the finding was told before.
    pub(super) fn has_told(&mut self, finding: &Finding) -> bool {
        self.known.get(&finding.id).is_some()
    }

    /// Tells a line, which is so many bytes long.
    pub(super) fn tell(&mut self, line: Line, bytes: usize) {
        match line {
            Line::Finding(finding) => self.finding(finding, bytes),
            Line::Notice(notice) => self.push(What::Notice(Box::new(notice)), bytes),
        }
    }

    /// Makes a remark about the view itself.
    pub(super) fn remark(&mut self, text: String) {
        let bytes = text.len();
        self.push(What::Remark(text), bytes);
    }

    fn finding(&mut self, finding: Box<Finding>, bytes: usize) {
        let said = self.hasher.hash_one((finding.severity, &finding.message));
        let known = self.known.get(&finding.id).copied();
        let first = known.map_or(finding.time, |known| known.first);
        self.known.insert(finding.id.clone(), Known { first, said });
        if let Some(known) = known {
            return self.update(finding, first, known.said != said, bytes);
        }
        let place = self.told.iter().position(|told| told.is_of_session(&finding.id));
        match place.filter(|_| finding.finding == Kind::Session) {
            Some(place) => {
                self.told.insert(place, Told { what: What::Finding(finding), bytes });
                self.bytes += bytes;
                self.make_room();
            }
            None => self.push(What::Finding(finding), bytes),
        }
    }

    fn update(&mut self, mut finding: Box<Finding>, first: Time, is_news: bool, bytes: usize) {
        let near = self.told.len().saturating_sub(NEAR);
        let is_it = |told: &Told| told.finding().is_some_and(|told| told.id == finding.id);
        if let Some(told) = self.told.range_mut(near..).rev().find(|told| is_it(told)) {
            self.bytes = self.bytes - told.bytes + bytes;
            told.bytes = bytes;
            match &mut told.what {
                What::Update(update, _) => *update = finding,
                what => {
                    // As if this had been known from the beginning.
                    (finding.time, finding.revision) = (first, 1);
                    *what = What::Finding(finding);
                }
            }
            self.make_room();
        } else if is_news && !is_last(&finding) {
            self.push(What::Update(finding, first), bytes);
        }
    }

    fn push(&mut self, what: What, bytes: usize) {
        self.told.push_back(Told { what, bytes });
        self.bytes += bytes;
        self.make_room();
    }

    fn make_room(&mut self) {
        while self.told.len() > MOST_LINES || self.bytes > MOST_BYTES && self.told.len() > 1 {
            if let Some(oldest) = self.told.pop_front() {
                self.bytes -= oldest.bytes;
                self.left_out += 1;
            }
        }
    }

    /// The last rows of the stories of this container, or of all, that fit into so many.
    pub(super) fn rows(&self, wanted: Option<&Key>, look: Look, most: usize) -> Vec<Vec<Run>> {
        let mut told =
            self.told.iter().rev().filter(|told| wanted.is_none_or(|wanted| told.is_about(wanted))).peekable();
        let mut rows = VecDeque::new();
        while let Some(line) = told.next().filter(|_| rows.len() < most) {
            let last = told.peek().map(|above| above.last()).unwrap_or_default();
            line.draw(&last, look).0.into_iter().rev().for_each(|row| rows.push_front(row));
        }
        let hidden = rows.len().saturating_sub(most);
        rows.into_iter().skip(hidden).collect()
    }
}
