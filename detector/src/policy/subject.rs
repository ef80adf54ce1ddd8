//! What the conditions of exceptions and overrides are compared with, and the comparison. It is the same for an act
//! that has just happened and for a finding that is read back: both have the same evidence.

use super::{Conditions, Exception, PathPattern};
use crate::finding::{Container, Evidence, Finding, Kind, Op, Origin, Severity, Text, Time, Via};

/// What an act shows about itself, apart from its severity and its container.
#[derive(Debug)]
pub(crate) struct Subject {
    kind: Kind,
    op: Option<Op>,
    origin: Origin,
    via: Option<Via>,
    /// The path of the file, and the new one if it gets another one. There are none if they are no evidence.
    paths: Vec<Vec<u8>>,
    exe: Option<Vec<u8>>,
    script: Option<Vec<u8>>,
    ancestors: Vec<Vec<u8>>,
}

impl Subject {
    /// What this finding shows, or `None` if neither an exception nor an override can hold for it.
    pub(crate) fn of(finding: &Finding) -> Option<Self> {
        let (evidence, process) = (finding.evidence.as_deref()?, finding.process.as_ref()?);
        let file = finding.file.as_ref();
        let paths = file.into_iter().filter(|_| evidence.path).flat_map(|file| [&file.path, &file.new_path]).flatten();
        Some(Self {
            op: file.and_then(|file| file.op),
            paths: paths.filter_map(Text::to_bytes).collect(),
            ..Self::by(finding.finding, process.origin, evidence)
        })
    }

    /// What a session shows whose first process came into the container like this.
    pub(crate) fn of_session(origin: Origin, evidence: &Evidence) -> Self {
        Self::by(Kind::Session, origin, evidence)
    }

    fn by(kind: Kind, origin: Origin, evidence: &Evidence) -> Self {
        let Evidence { path: _, exe, script, ancestors, via } = evidence;
        Self {
            kind,
            op: None,
            origin,
            via: *via,
            paths: Vec::new(),
            exe: exe.as_ref().and_then(Text::to_bytes),
            script: script.as_ref().and_then(Text::to_bytes),
            ancestors: ancestors.iter().filter_map(Text::to_bytes).collect(),
        }
    }
}

/// The key of a condition, and whether it is fulfilled.
type Check = (&'static str, fn(&Conditions, &Subject) -> bool);

/// The conditions about an act.
const OF_ACT: [Check; 8] = [
    ("finding", |conditions, subject| conditions.finding.contains(&subject.kind)),
    ("operation", |conditions, subject| allow(&conditions.operation, subject.op.as_ref())),
    ("origin", |conditions, subject| allow(&conditions.origin, Some(&subject.origin))),
    ("via", |conditions, subject| allow(&conditions.via, subject.via.as_ref())),
    ("path", |Conditions { path, .. }, Subject { paths, .. }| {
        path.is_empty() || !paths.is_empty() && paths.iter().all(|own| is_like(path, own))
    }),
    ("exe", |Conditions { exe, .. }, subject| exe.is_empty() || subject.exe.iter().any(|own| is_like(exe, own))),
    ("ancestor", |Conditions { ancestor, .. }, subject| {
        ancestor.is_empty() || subject.ancestors.iter().any(|own| is_like(ancestor, own))
    }),
    ("script", |Conditions { script, .. }, subject| {
        script.is_empty() || subject.script.iter().any(|own| is_like(script, own))
    }),
];

impl Conditions {
    /// Whether an act fulfils the conditions about it.
    pub(crate) fn allow_act(&self, subject: &Subject) -> bool {
        self.unfulfilled_by_act(subject).next().is_none()
    }

    /// The keys of the conditions about an act that this one does not fulfil.
    pub(crate) fn unfulfilled_by_act<'a>(&'a self, subject: &'a Subject) -> impl Iterator<Item = &'static str> + 'a {
        OF_ACT.iter().filter(|(_, is_fulfilled)| !is_fulfilled(self, subject)).map(|(key, _)| *key)
    }

    /// The keys of the other conditions that are not fulfilled by a finding that has this severity by the detector's
    /// rules, in this container. `is_told_by_user`: what is known of the container comes from the runtime of an
    /// ordinary user, who can make it say anything.
    pub(crate) fn unfulfilled_in<'a>(
        &'a self,
        severity: Severity,
        container: &'a Container,
        is_told_by_user: bool,
    ) -> impl Iterator<Item = &'static str> + 'a {
        let is_too_high = severity > self.severity_at_most;
        let of_container = self.selection.unfulfilled_by((!is_told_by_user).then_some(container));
        is_too_high.then_some("severity_at_most").into_iter().chain(of_container)
    }
}

impl Exception {
    /// The keys of what is not fulfilled at this time, apart from what the exception demands of the act: see
    /// [`Conditions::unfulfilled_in`].
    pub(crate) fn unfulfilled_in<'a>(
        &'a self,
        severity: Severity,
        time: Time,
        container: &'a Container,
        is_told_by_user: bool,
    ) -> impl Iterator<Item = &'static str> + 'a {
        let has_expired = self.has_expired(time).then_some("expires");
        has_expired.into_iter().chain(self.conditions.unfulfilled_in(severity, container, is_told_by_user))
    }
}

/// Whether there is no such condition, or this value is one of those that it allows.
fn allow<T: PartialEq>(allowed: &[T], value: Option<&T>) -> bool {
    allowed.is_empty() || value.is_some_and(|value| allowed.contains(value))
}

fn is_like(patterns: &[PathPattern], path: &[u8]) -> bool {
    patterns.iter().any(|pattern| pattern.matches(path))
}
