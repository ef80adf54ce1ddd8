//! The containers: what has drifted, how much is found in them, and in which order they are shown.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::census::{Census, Known, note};
use super::is_recent;
use crate::finding::{Container, Finding, Labels, Severity, Time};
use crate::ledger::entry::State;
use crate::ledger::page::{Page, Verdict};
use crate::output::terminal::pod_or_name;

/// How many containers are kept at most.
pub(super) const MOST_CONTAINERS: usize = 1000;
/// How many open sessions of a container are counted at most.
const MOST_SESSIONS: usize = 1000;
/// Of how many seconds findings are counted.
const SECONDS: i64 = 60;

/// What a container is known by. What no container has done is the host's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Host,
    Id(String),
    Cgroup(u64),
}

impl Key {
    pub(super) fn of(container: Option<&Container>) -> Self {
        match container {
            None => Self::Host,
            Some(Container { id: Some(id), .. }) => Self::Id(id.to_string()),
            Some(Container { cgroup_id, .. }) => Self::Cgroup(*cgroup_id),
        }
    }
}

/// In which order containers are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Order {
    /// Those first that have drifted, then those in which the worst was found.
    #[default]
    Drift,
    /// Those first in which most is found at the moment.
    Rate,
    /// By their names.
    Name,
}

/// The findings of the last minute.
#[derive(Debug, Default)]
struct Rate(VecDeque<(i64, u32)>);

impl Rate {
    /// Counts a finding. Times come in about their order.
    fn add(&mut self, time: Time) {
        let second = self.0.back().map_or(i64::MIN, |(last, _)| *last).max(time.0.as_second());
        match self.0.back_mut() {
            Some((last, count)) if *last == second => *count = count.saturating_add(1),
            _ => self.0.push_back((second, 1)),
        }
        while self.0.front().is_some_and(|(first, _)| *first <= second - SECONDS) {
            self.0.pop_front();
        }
    }

    fn per_minute(&self, now: Time) -> u64 {
        let since = now.0.as_second() - SECONDS;
        self.0.iter().filter(|(second, _)| *second > since).map(|(_, count)| u64::from(*count)).sum()
    }
}

/// A container, or the host.
#[derive(Debug, Default)]
pub(super) struct Row {
    pub(super) container: Option<Container>,
    /// What the ledger says.
    pub(super) page: Option<Page>,
    /// Whether there can be more than what is known.
    pub(super) is_doubtful: bool,
    /// When each severity was found last.
    worst: BTreeMap<Severity, Time>,
    rate: Rate,
    open: BTreeSet<String>,
    /// When something was found last.
    pub(super) last: Option<Time>,
}

impl Row {
    pub(super) fn name(&self) -> String {
        self.container.as_ref().map_or_else(|| "host".to_owned(), pod_or_name)
    }

    /// The highest severity of the last hour.
    pub(super) fn severity(&self, now: Time) -> Option<Severity> {
        let recent = self.worst.iter().filter(|(_, time)| is_recent(**time, now));
        recent.map(|(severity, _)| *severity).max()
    }

    pub(super) fn per_minute(&self, now: Time) -> u64 {
        self.rate.per_minute(now)
    }

    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// How many paths are not as in the image.
    pub(super) fn different(&self) -> u64 {
        let is_now = |(state, _): &(&State, &u64)| !state.is_over();
        self.page.iter().flat_map(|page| page.states.iter().filter(is_now)).map(|(_, count)| count).sum()
    }

    pub(super) fn has_drifted(&self) -> bool {
        self.page.as_ref().is_some_and(|page| page.verdict() == Verdict::Drifted)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.page.as_ref().is_some_and(|page| page.ended.is_some())
    }

    /// Whether it runs, as far as that is known, or something was found only now.
    fn is_shown(&self, now: Time) -> bool {
        let runs = self.page.as_ref().is_some_and(|page| page.ended.is_none());
        runs || self.last.is_some_and(|last| is_recent(last, now))
    }

    /// Takes what is known of the container. What was known before is not forgotten.
    fn learn(&mut self, container: &Container) {
        let Some(known) = &mut self.container else {
            self.container = Some(Container { labels: Labels::default(), ..container.clone() });
            return;
        };
        let Container { name, image, pod, .. } = container.clone();
        known.name = name.or(known.name.take());
        known.image = image.or(known.image.take());
        known.pod = pod.filter(|pod| pod.name.is_some()).or(known.pod.take());
    }

    fn know(&mut self, known: Known) {
        self.learn(&known.page.container);
        known.worst.into_iter().for_each(|(severity, time)| note(&mut self.worst, severity, time));
        self.last = self.last.max(known.page.last);
        self.open.extend(known.open);
        if known.page.ended.is_some() {
            self.open.clear();
        }
        (self.page, self.is_doubtful) = (Some(known.page), known.is_doubtful);
    }
}

/// All containers that are shown.
#[derive(Debug, Default)]
pub(super) struct Containers {
    rows: BTreeMap<Key, Row>,
    /// How many were left out, because there was no room for them.
    pub(super) left_out: u64,
}

impl Containers {
    /// Those that are shown, in this order.
    pub(super) fn rows(&self, order: Order, now: Time) -> Vec<(&Key, &Row)> {
        let mut rows: Vec<_> = self.rows.iter().filter(|(_, row)| row.is_shown(now)).collect();
        rows.sort_by_cached_key(|(_, row)| row.name());
        match order {
            Order::Name => {}
            Order::Rate => {
                rows.sort_by_cached_key(|(_, row)| Reverse((row.per_minute(now), row.severity(now), row.last)))
            }
            Order::Drift => rows.sort_by_cached_key(|(_, row)| {
                let executed = row.page.as_ref().map_or(0, |page| page.executed);
                let drift = (row.has_drifted(), row.severity(now), executed > 0, row.different());
                Reverse((drift, row.per_minute(now), row.last))
            }),
        }
        rows
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Row> {
        self.rows.get(key)
    }

    /// Takes a finding, which is a new one or an update.
    pub(super) fn finding(&mut self, finding: &Finding, is_new: bool, now: Time) {
        let row = self.row(finding.container.as_ref(), now);
        note(&mut row.worst, finding.severity, finding.time);
        row.last = row.last.max(Some(finding.time));
        if is_new {
            row.rate.add(finding.time);
        }
        if let Some(summary) = &finding.summary {
            if summary.ended.is_some() {
                row.open.remove(&finding.id);
            } else if row.open.len() < MOST_SESSIONS {
                row.open.insert(finding.id.clone());
            }
        }
    }

    /// Takes the end of a session.
    pub(super) fn session_ended(&mut self, container: &Container, session: &str) {
        if let Some(row) = self.rows.get_mut(&Key::of(Some(container))) {
            row.open.remove(session);
        }
    }

    /// Takes what a runtime has told about a container.
    pub(super) fn learn(&mut self, container: &Container) {
        if let Some(row) = self.rows.get_mut(&Key::of(Some(container))) {
            row.learn(container);
        }
    }

    /// Nothing is known any more of the sessions that last: another daemon watches.
    pub(super) fn forget_sessions(&mut self) {
        self.rows.values_mut().for_each(|row| row.open.clear());
    }

    /// Takes all that the ledger says.
    pub(super) fn census(&mut self, census: Census, now: Time) {
        self.rows.values_mut().for_each(|row| row.page = None);
        self.left_out = census.left_out;
        for known in census.known {
            let container = known.page.container.clone();
            self.row(Some(&container), now).know(known);
        }
        self.rows.retain(|_, row| row.is_shown(now));
    }

    /// The row of a container. If there is no room for it, the one that matters least is left out.
    fn row(&mut self, container: Option<&Container>, now: Time) -> &mut Row {
        let key = Key::of(container);
        if !self.rows.contains_key(&key) && self.rows.len() >= MOST_CONTAINERS {
            self.rows.retain(|_, row| row.is_shown(now));
            let least = self.rows.iter().min_by_key(|(_, row)| (row.has_drifted(), row.severity(now), row.last));
            let least = least.map(|(key, _)| key.clone()).filter(|_| self.rows.len() >= MOST_CONTAINERS);
            self.left_out += u64::from(least.is_some());
            least.iter().for_each(|key| drop(self.rows.remove(key)));
        }
        let row = self.rows.entry(key).or_default();
        container.iter().for_each(|container| row.learn(container));
        row
    }
}
