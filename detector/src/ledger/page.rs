//! What the ledger says about a container besides its entries: which one it is, since when it is watched, and whether
//! it is still its image.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::entry::{Entry, State};
use crate::finding::{Container, Finding, Kind, Labels, Pod, Severity, Summary, Text, Time, Via};

/// A container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// What is known of it, without labels.
    pub container: Container,
    /// Since when it is watched.
    pub since: Time,
    /// Whether it ran before that.
    pub ran_before: bool,
    /// How often it was started while it was watched.
    pub starts: u64,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Time>,
    /// Whether its end was not seen. `ended` is when it was noticed.
    #[serde(default)]
    pub end_not_seen: bool,
    /// The name of the rule by which it is not watched now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unwatched: Option<String>,
    /// Whether it was not watched for a time.
    #[serde(default)]
    pub was_unwatched: bool,
    /// How many paths there are in each state that are not expected.
    pub states: BTreeMap<State, u64>,
    /// How many paths there are about which everything is expected.
    pub expected: u64,
    /// How many of those that are not expected were executed.
    pub executed: u64,
    /// How many sessions are listed.
    pub sessions: u64,
    /// How many further sessions there were in which nothing was done that matters.
    pub quiet_sessions: u64,
    /// When something was changed or executed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Time>,
    /// How many findings there was no room for.
    #[serde(default)]
    pub left_out: u64,
    /// How many entries there are.
    pub entries: u64,
    /// How many bytes the ledger keeps about it.
    pub bytes: u64,
}

/// Whether a container is still its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is not watched.
    Unwatched,
    /// Nothing was changed.
    Image,
    /// Only what is expected was changed.
    Expected,
    /// What was added or shadowed is not there any more.
    Restored,
    /// It is not its image any more.
    Drifted,
}

impl Verdict {
    /// All verdicts.
    pub const ALL: [Self; 5] = [Self::Unwatched, Self::Image, Self::Expected, Self::Restored, Self::Drifted];

    /// The name, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unwatched => "unwatched",
            Self::Image => "image",
            Self::Expected => "expected",
            Self::Restored => "restored",
            Self::Drifted => "drifted",
        }
    }

    /// The words for it.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Unwatched => "not watched",
            Self::Image => "its image",
            Self::Expected => "as expected",
            Self::Restored => "its image again",
            Self::Drifted => "drifted",
        }
    }
}

impl Page {
    /// The page of a container that is watched since this time.
    pub(super) fn new(container: &Container, since: Time, ran_before: bool) -> Self {
        let mut page = Self {
            container: Container { cgroup_id: container.cgroup_id, ..Container::default() },
            since,
            ran_before,
            starts: 0,
            ended: None,
            end_not_seen: false,
            unwatched: None,
            was_unwatched: false,
            states: BTreeMap::new(),
            expected: 0,
            executed: 0,
            sessions: 0,
            quiet_sessions: 0,
            last: None,
            left_out: 0,
            entries: 0,
            bytes: 0,
        };
        page.learn(container);
        page
    }

    /// Takes what is known of the container now. What is not known any more is kept.
    pub(super) fn learn(&mut self, container: &Container) {
        let Container { id, name, runtime, image, pod, cgroup, cgroup_id, labels: _ } = container.clone();
        let known = &mut self.container;
        known.cgroup_id = cgroup_id;
        known.id = id.or(known.id.take());
        known.name = name.or(known.name.take());
        known.runtime = runtime.or(known.runtime.take());
        known.image = image.or(known.image.take());
        known.cgroup = cgroup.or(known.cgroup.take());
        let is_told = |pod: &Pod| pod.name.is_some();
        if !known.pod.as_ref().is_some_and(is_told) || pod.as_ref().is_some_and(is_told) {
            let pod = pod.map(|pod| Pod { labels: Labels::default(), ..pod });
            known.pod = pod.or(known.pod.take());
        }
    }

    /// Counts an entry, or takes that back.
    pub(super) fn count(&mut self, entry: &Entry, is_added: bool) {
        let step = |number: &mut u64| *number = if is_added { *number + 1 } else { number.saturating_sub(1) };
        step(&mut self.entries);
        if entry.is_expected() {
            return step(&mut self.expected);
        }
        if let Some(state) = entry.state() {
            step(self.states.entry(state).or_default());
            self.states.retain(|_, count| *count > 0);
        }
        if entry.executed().is_some() {
            step(&mut self.executed);
        }
    }

    /// Whether a user means this container: by the beginning of its id, its name, or its pod.
    pub fn is_called(&self, wanted: &str) -> bool {
        let Container { id, name, pod, .. } = &self.container;
        let is = |text: &Option<Text>| text.as_ref().is_some_and(|text| text.as_str() == wanted);
        let is_pod = |pod: &Pod| {
            let (namespace, name) =
                wanted.split_once('/').map_or((None, wanted), |(before, name)| (Some(before), name));
            let is_in = |namespace| pod.namespace.as_ref().is_some_and(|own| own.as_str() == namespace);
            pod.name.as_ref().is_some_and(|own| own.as_str() == name) && namespace.is_none_or(is_in)
        };
        is(name)
            || id.as_ref().is_some_and(|id| !wanted.is_empty() && id.as_str().starts_with(wanted))
            || pod.as_ref().is_some_and(is_pod)
    }

    /// Whether it is still its image, as far as that is known.
    pub fn verdict(&self) -> Verdict {
        if self.states.keys().any(|state| !state.is_over()) {
            Verdict::Drifted
        } else if self.unwatched.is_some() {
            Verdict::Unwatched
        } else if !self.states.is_empty() {
            Verdict::Restored
        } else if self.expected > 0 {
            Verdict::Expected
        } else {
            Verdict::Image
        }
    }

    /// Why there can be more than what is known, one sentence each, given the times that the ledger lacks.
    pub fn doubts(&self, gaps: &[Gap]) -> Vec<String> {
        let mut doubts = Vec::new();
        if self.ran_before {
            doubts.push(format!("it ran before {:.0}, and what was changed until then is not known", self.since.0));
        }
        if self.was_unwatched {
            doubts.push("it was not watched for a while, because a rule said so".to_owned());
        }
        if self.left_out > 0 {
            doubts.push(format!("there was no room for {} findings", self.left_out));
        }
        let is_in_life = |gap: &&Gap| gap.until >= self.since && self.ended.is_none_or(|ended| gap.from <= ended);
        doubts.extend(gaps.iter().filter(is_in_life).map(|gap| gap.to_string()));
        doubts
    }
}

/// A time of which something may be missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// When it began.
    pub from: Time,
    /// When it ended.
    pub until: Time,
    /// What may be missing, and why.
    pub why: String,
}

impl std::fmt::Display for Gap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { from, until, why } = self;
        if from == until {
            return write!(f, "until {:.0}: {why}", until.0);
        }
        write!(f, "from {:.0} to {:.0}: {why}", from.0, until.0)
    }
}

/// A session in which something was done that matters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The id of its finding.
    pub id: String,
    /// The revision of the last line about it.
    pub revision: u32,
    /// How much it matters.
    pub severity: Severity,
    /// How it began.
    pub via: Via,
    /// When it began.
    pub started: Time,
    /// When it ended. `None` while it lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Time>,
    /// The executable of its first process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<Text>,
    /// The user id of that process on the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The id of the user who logged in on the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_uid: Option<u32>,
    /// The address and port from which it takes commands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// How many findings about changes of the image there were in it.
    pub changes: u64,
    /// How many programs were executed.
    pub programs: u64,
}

impl Session {
    /// The session that a finding is about.
    pub(super) fn of(finding: &Finding, summary: &Summary) -> Self {
        let process = finding.process.as_ref();
        let changes = [Kind::ImageWrite, Kind::ImageShadowed];
        Self {
            id: finding.id.clone(),
            revision: finding.revision,
            severity: finding.severity,
            via: summary.via,
            started: summary.started,
            ended: summary.ended,
            exe: process.and_then(|process| process.exe.clone()),
            uid: process.map(|process| process.uid),
            login_uid: process.and_then(|process| process.login_uid),
            peer: summary.peer.clone(),
            changes: changes.iter().filter_map(|kind| summary.findings.get(kind)).sum(),
            programs: summary.programs.len() as u64 + summary.programs_omitted,
        }
    }
}
