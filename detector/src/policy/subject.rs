//! What the conditions of exceptions are compared with, and the comparison. It is the same for an act that has just
//! happened and for a finding that is read back: both have the same evidence.

use super::{Conditions, PathPattern, Pattern};
use crate::finding::{Container, Evidence, Finding, Kind, Op, Origin, Text, Via};

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
    /// What this finding shows, or `None` if no exception can hold for it.
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
type Check<T> = (&'static str, fn(&Conditions, &T) -> bool);

/// The conditions about an act.
const OF_ACT: [Check<Subject>; 8] = [
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

/// The conditions about a container, of which a runtime has told this.
const OF_CONTAINER: [Check<Container>; 5] = [
    ("image", |conditions, container| {
        let names = container.image.iter().flat_map(|image| [&image.name, &image.digest]).flatten();
        is_one_of(&conditions.image, names)
    }),
    ("container", |conditions, container| is_one_of(&conditions.container, &container.name)),
    ("pod", |conditions, container| {
        is_one_of(&conditions.pod, container.pod.as_ref().and_then(|pod| pod.name.as_ref()))
    }),
    ("namespace", |conditions, container| {
        is_one_of(&conditions.namespace, container.pod.as_ref().and_then(|pod| pod.namespace.as_ref()))
    }),
    ("labels", |conditions, container| {
        conditions.labels.iter().all(|(name, pattern)| {
            // A label of the pod has precedence: those of the container include what its image says.
            let all = container.pod.iter().map(|pod| &pod.labels).chain([&container.labels]);
            let mut values = all.filter_map(|labels| labels.values.get(&Text::from(name.as_bytes())));
            values.next().is_some_and(|value| pattern.matches(value.as_str().as_bytes()))
        })
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

    /// Whether the conditions about the container are fulfilled. `is_told_by_user`: what is known of the container
    /// comes from the runtime of an ordinary user, who can make it say anything.
    pub(crate) fn allow_container(&self, container: &Container, is_told_by_user: bool) -> bool {
        self.unfulfilled_by_container(container, is_told_by_user).next().is_none()
    }

    /// The keys of the conditions about the container that are not fulfilled.
    pub(crate) fn unfulfilled_by_container<'a>(
        &'a self,
        container: &'a Container,
        is_told_by_user: bool,
    ) -> impl Iterator<Item = &'static str> + 'a {
        let is_fulfilled = move |is_fulfilled: fn(&Self, &Container) -> bool| match is_told_by_user {
            true => is_fulfilled(self, &Container::default()),
            false => is_fulfilled(self, container),
        };
        OF_CONTAINER.iter().filter(move |(_, check)| !is_fulfilled(*check)).map(|(key, _)| *key)
    }
}

/// Whether there is no such condition, or this value is one of those that it allows.
fn allow<T: PartialEq>(allowed: &[T], value: Option<&T>) -> bool {
    allowed.is_empty() || value.is_some_and(|value| allowed.contains(value))
}

fn is_like(patterns: &[PathPattern], path: &[u8]) -> bool {
    patterns.iter().any(|pattern| pattern.matches(path))
}

/// Whether there are no patterns, or one of these names is like one of them.
fn is_one_of<'a>(patterns: &[Pattern], names: impl IntoIterator<Item = &'a Text>) -> bool {
    let is_one = |name: &Text| patterns.iter().any(|pattern| pattern.matches(name.as_str().as_bytes()));
    patterns.is_empty() || names.into_iter().any(is_one)
}
