//! What is known, as far as it is shown.

use super::census::Census;
use super::containers::{Containers, Key, Order};
use super::stories::Stories;
use crate::finding::{Line, Loss, Notice, NoticeEvent, Severity, Time};
use crate::output::health;
use crate::protocol::Status;

/// What a person wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Press {
    /// The container above the chosen one.
    Up,
    /// The one below.
    Down,
    /// The first one.
    First,
    /// The last one.
    Last,
    /// The stories of the chosen container only, or those of all again.
    Only,
    /// Another order.
    Order(Order),
    /// What the keys do and the columns are, or the stories again.
    Help,
}

/// All that is shown.
#[derive(Debug)]
pub(crate) struct Model {
    /// What matters less is not shown.
    pub(super) least: Severity,
    /// What the daemon has told last.
    pub(super) status: Option<Box<Status>>,
    /// Why it does not tell anything at the moment.
    pub(super) status_failure: Option<String>,
    /// How many events there were at a time.
    counted: Option<(u64, Time)>,
    /// How many there were in each second between the last two answers.
    pub(super) events_per_second: Option<u64>,
    /// Since when there is no stream.
    pub(super) alone: Option<Time>,
    pub(super) has_said_goodbye: bool,
    /// How many lines the daemon did not send, because they were not taken in time.
    pub(super) missed: u64,
    /// How many were not understood.
    pub(super) unknown: u64,
    /// How many findings matter too little to be shown.
    pub(super) low: u64,
    /// Why nothing is known of the ledger.
    pub(super) ledger_failure: Option<String>,
    pub(super) containers: Containers,
    pub(super) stories: Stories,
    pub(super) order: Order,
    pub(super) chosen: Option<Key>,
    /// Whether only the stories of the chosen container are shown.
    pub(super) is_only: bool,
    pub(super) has_help: bool,
}

impl Model {
    /// Nothing is known yet. Findings of a lower severity than this are only counted.
    pub(crate) fn new(least: Severity) -> Self {
        Self {
            least,
            status: None,
            status_failure: None,
            counted: None,
            events_per_second: None,
            alone: None,
            has_said_goodbye: false,
            missed: 0,
            unknown: 0,
            low: 0,
            ledger_failure: None,
            containers: Containers::default(),
            stories: Stories::default(),
            order: Order::default(),
            chosen: None,
            is_only: false,
            has_help: false,
        }
    }

    /// Takes a line of the stream or the log. Returns whether it is shown.
    pub(crate) fn line(&mut self, line: &[u8], now: Time) -> bool {
        let Ok(parsed) = serde_json::from_slice(line) else {
            self.unknown += 1;
            return true;
        };
        if let Line::Notice(Notice { event, .. }) = &parsed {
            self.has_said_goodbye = matches!(event, NoticeEvent::Stopped { .. });
        }
        let is_told = self.note(&parsed, now);
        if is_told {
            self.stories.tell(parsed, line.len());
        }
        is_told
    }

    /// Notes what a line says. Returns whether it is part of the stories.
    fn note(&mut self, line: &Line, now: Time) -> bool {
        match line {
            Line::Finding(finding) => {
                let is_known = self.stories.has_told(finding);
                if finding.severity < self.least && !is_known {
                    self.low += 1;
                    return false;
                }
                self.containers.finding(finding, !is_known, now);
            }
            Line::Notice(Notice { event: NoticeEvent::SessionEnded { session, severity, container, .. }, .. }) => {
                self.containers.session_ended(container, session);
                return *severity >= self.least;
            }
            Line::Notice(Notice { event: NoticeEvent::ContainerInfo { container }, .. }) => {
                self.containers.learn(container);
                return false;
            }
            Line::Notice(Notice { event: NoticeEvent::Loss { kind: Loss::Client, count, .. }, .. }) => {
                self.missed += count;
            }
            Line::Notice(Notice { event: NoticeEvent::FileHash { .. } | NoticeEvent::Heartbeat { .. }, .. }) => {
                return false;
            }
            Line::Notice(_) => {}
        }
        true
    }

    /// Makes a remark among the stories.
    pub(crate) fn remark(&mut self, text: String) {
        self.stories.remark(text);
    }

    /// The daemon has ended the stream.
    pub(crate) fn stop(&mut self, now: Time) {
        self.alone = Some(now);
        self.stories.remark(health::stopped(self.has_said_goodbye));
    }

    /// A daemon sends a stream again.
    pub(crate) fn resume(&mut self, now: Time) {
        let gap = self.alone.take().map_or(0.0, |since| now.0.duration_since(since.0).as_secs_f32());
        self.has_said_goodbye = false;
        self.containers.forget_sessions();
        self.stories.remark(health::back(gap));
    }

    /// Whether there is no stream.
    pub(crate) fn is_alone(&self) -> bool {
        self.alone.is_some()
    }

    /// Takes what the daemon tells of itself, or why it does not.
    pub(crate) fn status(&mut self, status: Result<Box<Status>, String>, now: Time) {
        match status {
            Ok(status) => {
                let events = status.counters.events;
                self.events_per_second = self.counted.and_then(|(before, time)| {
                    let seconds = now.0.duration_since(time.0).as_secs_f64();
                    // The counter begins with the daemon.
                    let more = events.checked_sub(before).filter(|_| seconds > 0.0)?;
                    Some((more as f64 / seconds).round() as u64)
                });
                self.counted = Some((events, now));
                (self.status, self.status_failure) = (Some(status), None);
            }
            Err(why) => {
                (self.counted, self.events_per_second) = (None, None);
                self.status_failure = Some(why);
            }
        }
    }

    /// Takes what the ledger says, or why it says nothing.
    pub(crate) fn census(&mut self, census: Result<Census, String>, now: Time) {
        match census {
            Ok(census) => {
                self.containers.census(census, now);
                self.ledger_failure = None;
            }
            Err(why) => self.ledger_failure = Some(why),
        }
    }

    /// Does what a person wants.
    pub(crate) fn press(&mut self, press: Press, now: Time) {
        match press {
            Press::Only => self.is_only = !self.is_only && self.chosen.is_some(),
            Press::Order(order) => self.order = order,
            Press::Help => self.has_help = !self.has_help,
            Press::Up | Press::Down | Press::First | Press::Last => self.choose(press, now),
        }
    }

    fn choose(&mut self, press: Press, now: Time) {
        let rows = self.containers.rows(self.order, now);
        let last = rows.len().saturating_sub(1);
        let at = self.chosen.as_ref().and_then(|chosen| rows.iter().position(|(key, _)| *key == chosen));
        let next = match (press, at) {
            (Press::Up, Some(at)) => at.saturating_sub(1),
            (Press::Down, Some(at)) => last.min(at + 1),
            (Press::Last, _) => last,
            _ => 0,
        };
        self.chosen = rows.get(next).map(|(key, _)| (*key).clone());
    }
}
