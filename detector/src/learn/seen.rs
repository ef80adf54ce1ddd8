//! What the lines that the detector has written show: its findings, each as its last line says, and what is missing.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, Read as _};

use crate::finding::{Container, Finding, Kind, Line, NoticeEvent, Time};
use crate::output::json::LONGEST;

/// How many findings there can be.
const MOST: usize = 200_000;

/// Why lines cannot be taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// They cannot be read.
    #[error("cannot read it: {0}; check the file")]
    System(#[from] io::Error),
    /// A line is too long.
    #[error(
        "line {0} is longer than {LONGEST} bytes, so the detector has not written it; give lines that `detector \
        run` or `tail --json` has written"
    )]
    TooLong(u64),
    /// There are too many findings.
    #[error("there are more than {MOST} findings; give less of the log at a time")]
    TooMany,
}

/// A container on its node.
pub(super) type Place = (String, u64);

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The findings, by their ids.
    findings: BTreeMap<String, Finding>,
    /// What runtimes have told of containers after findings about these were written.
    told: BTreeMap<Place, Container>,
    /// The nodes that lines are from.
    pub(super) nodes: BTreeSet<String>,
    /// When the first and the last line was written.
    pub(super) times: Option<(Time, Time)>,
    /// How many lines there were.
    pub(super) lines: u64,
    /// How many of them the detector has not written.
    pub(super) foreign: u64,
    /// How many events were lost.
    pub(super) losses: u64,
    /// How often exceptions have suppressed something that is in no line.
    pub(super) suppressed: u64,
    /// Since when containers are not as they were, because something was changed or executed in them in a session.
    pub(super) changed: BTreeMap<Place, Time>,
}

impl Seen {
    /// Takes lines.
    pub(crate) fn read(&mut self, mut lines: impl BufRead) -> Result<(), Error> {
        let (mut line, mut number) = (Vec::new(), 0);
        loop {
            line.clear();
            number += 1;
            let read = lines.by_ref().take(LONGEST).read_until(b'\n', &mut line)?;
            if read == 0 {
                return Ok(());
            }
            if read as u64 == LONGEST && !line.ends_with(b"\n") {
                return Err(Error::TooLong(number));
            }
            self.take(&line)?;
        }
    }

    /// Takes a line.
    pub(crate) fn take(&mut self, line: &[u8]) -> Result<(), Error> {
        self.lines += 1;
        let (time, node) = match serde_json::from_slice(line) {
            Ok(Line::Finding(finding)) => {
                let seen = (finding.time, finding.node.name.clone());
                self.note_change(&finding);
                let is_known = self.findings.get(&finding.id).is_some_and(|known| known.revision > finding.revision);
                if !is_known {
                    self.findings.insert(finding.id.clone(), *finding);
                }
                if self.findings.len() > MOST {
                    return Err(Error::TooMany);
                }
                seen
            }
            Ok(Line::Notice(notice)) => {
                match notice.event {
                    NoticeEvent::Loss { count, .. } => self.losses += count,
                    NoticeEvent::Suppressed { count, .. } => self.suppressed += count,
                    NoticeEvent::ContainerInfo { container } => {
                        let place = (notice.node.name.clone(), container.cgroup_id);
                        self.told.insert(place, *container);
                    }
                    _ => {}
                }
                (notice.time, notice.node.name)
            }
            Err(_) => {
                self.foreign += 1;
                return Ok(());
            }
        };
        let (first, last) = self.times.unwrap_or((time, time));
        self.times = Some((first.min(time), last.max(time)));
        self.nodes.insert(node);
        Ok(())
    }

    /// The findings, with what runtimes have told later.
    pub(super) fn findings(&self) -> impl ExactSizeIterator<Item = Cow<'_, Finding>> {
        self.findings.values().map(|finding| match place(finding).and_then(|place| self.told.get(&place)) {
            // Another boot can have another container with the same number.
            Some(told) if finding.container.as_ref().is_some_and(|it| it.image.is_none() && it.id == told.id) => {
                Cow::Owned(Finding { container: Some(told.clone()), ..finding.clone() })
            }
            _ => Cow::Borrowed(finding),
        })
    }

    /// Notes that a session changes a container.
    fn note_change(&mut self, finding: &Finding) {
        let since = match (finding.finding, &finding.summary) {
            (Kind::Session, Some(summary)) if !summary.files.is_empty() => summary.started,
            (Kind::Session | Kind::ShellInContainer, _) => return,
            _ if finding.session.is_some() => start(finding),
            _ => return,
        };
        let Some(place) = place(finding) else { return };
        let known = self.changed.entry(place).or_insert(since);
        *known = since.min(*known);
    }
}

/// The container that a finding is about.
pub(super) fn place(finding: &Finding) -> Option<Place> {
    let container = finding.container.as_ref()?;
    Some((finding.node.name.clone(), container.cgroup_id))
}

/// When the first of the acts that a finding is about happened.
pub(super) fn start(finding: &Finding) -> Time {
    finding.repeated.as_ref().map_or(finding.time, |repeated| repeated.first)
}
