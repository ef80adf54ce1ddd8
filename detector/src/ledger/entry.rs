//! What is known of a path of a container: what was done there, how often, by whom, and what it is now. Nothing here
//! depends on the order in which it is learnt.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::finding::{Device, Difference, Origin, Severity, Sha256, Text, Time};

/// How many of those who did something at a path are listed: the first ones.
const MOST_ACTORS: usize = 4;

/// What an entry is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A file, directory or mount.
    Path(Text),
    /// Files that were only counted together: a pattern of their paths, as in `repeated.paths`.
    Paths(Text),
    /// A file or directory whose path was lost, as device and inode number.
    Inode(String),
    /// What a package manager or a step of a build did, with its arguments.
    Installation(Vec<Text>),
}

impl Subject {
    /// A file whose path was lost.
    pub(super) fn inode(dev: Device, inode: Option<u64>) -> Self {
        Self::Inode(inode.map_or_else(|| dev.to_string(), |inode| format!("{dev} {inode}")))
    }

    /// What the entry of a container is found by.
    pub(super) fn key(&self) -> String {
        serde_json::to_string(self).expect("it has only texts, and writing to memory does not fail")
    }
}

/// What can be done at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// A file, directory or other object was created.
    Created,
    /// A file got this name: it was renamed, exchanged or linked.
    Arrived,
    /// The content was opened for writing, or changed.
    Written,
    /// Permissions, ownership, timestamps, attributes or flags were changed.
    Described,
    /// It was removed.
    Removed,
    /// It got another name.
    Left,
    /// Something was mounted over it, it got other mount options, or it became the root.
    Covered,
    /// What was mounted over it was unmounted.
    Uncovered,
    /// It was executed, or loaded into a process, when it was not as in the image.
    Executed,
}

/// How often something was done, and when last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// How often.
    pub count: u64,
    /// When last.
    pub last: Time,
}

/// What a path is, in comparison with the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The image does not have it.
    Added,
    /// A file got this name. Whether the image has another one there was not seen.
    AddedOrReplaced,
    /// The content of the image's file was changed, or opened for writing.
    Changed,
    /// Only permissions, ownership, timestamps, attributes or flags were changed.
    Metadata,
    /// What the image has there was removed.
    Removed,
    /// Something was mounted over it.
    Shadowed,
    /// It was executed and is not as in the image. What has made it so was not seen.
    Unlike,
    /// It was added and removed again.
    AddedAndRemoved,
    /// Something was mounted over it for a while.
    WasShadowed,
}

impl State {
    /// All states.
    pub const ALL: [Self; 9] = [
        Self::Added,
        Self::AddedOrReplaced,
        Self::Changed,
        Self::Metadata,
        Self::Removed,
        Self::Shadowed,
        Self::Unlike,
        Self::AddedAndRemoved,
        Self::WasShadowed,
    ];

    /// The words for it.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::AddedOrReplaced => "added or replaced",
            Self::Changed => "changed",
            Self::Metadata => "metadata changed",
            Self::Removed => "removed",
            Self::Shadowed => "shadowed",
            Self::Unlike => "not as in the image",
            Self::AddedAndRemoved => "added and removed again",
            Self::WasShadowed => "shadowed for a while",
        }
    }

    /// Whether the path is as in the image again.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::AddedAndRemoved | Self::WasShadowed)
    }
}

/// Who did something at a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Actor {
    /// When the act happened by which it is known: the first one that was learnt.
    pub time: Time,
    /// Whether they executed what is there, instead of changing it.
    pub has_executed: bool,
    /// The executable, which is what is there if they executed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<Text>,
    /// The user id on the node.
    pub uid: u32,
    /// The id of the user who logged in on the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_uid: Option<u32>,
    /// How the process came into the container.
    pub origin: Origin,
    /// The names of the ancestors in the container, nearest first. Processes choose them, so they are no evidence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<Text>,
    /// The id of the finding of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

impl Actor {
    fn is_same(&self, other: &Self) -> bool {
        let facts = |actor: &Self| (actor.has_executed, actor.uid, actor.origin);
        (facts(self), &self.exe, &self.session) == (facts(other), &other.exe, &other.session)
    }
}

/// What a line says about a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) subject: Subject,
    pub(super) deeds: BTreeMap<Deed, Done>,
    pub(super) first: Time,
    pub(super) severity: Severity,
    /// Why it is expected, if it is.
    pub(super) expected: Option<String>,
    /// Whether the file was in a lower layer.
    pub(super) is_in_image: bool,
    pub(super) actor: Option<Actor>,
    pub(super) differs: Option<Difference>,
    pub(super) sha256: Option<Sha256>,
    /// Some of the paths that are counted.
    pub(super) names: Vec<Text>,
    pub(super) counted_in_kernel: u64,
}

impl Share {
    /// What is taken back when a later line about the same act says something else.
    pub(super) fn kept(&self) -> KeptShare {
        KeptShare {
            key: self.subject.key(),
            deeds: self.deeds.iter().map(|(deed, done)| (*deed, done.count)).collect(),
            severity: self.severity,
            expected: self.expected.clone(),
            is_in_image: self.is_in_image,
            counted_in_kernel: self.counted_in_kernel,
        }
    }
}

/// What a line has added to an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptShare {
    pub(super) key: String,
    deeds: BTreeMap<Deed, u64>,
    severity: Severity,
    expected: Option<String>,
    is_in_image: bool,
    counted_in_kernel: u64,
}

/// What is known of a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The path.
    pub subject: Subject,
    /// What was done there.
    pub deeds: BTreeMap<Deed, Done>,
    /// When something was done there first.
    pub first: Time,
    /// How many findings are about it, by severity.
    pub findings: BTreeMap<Severity, u64>,
    /// How many of them are expected, by the reason or the exception.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub expected: BTreeMap<String, u64>,
    /// How many findings tell that the image has the path.
    pub in_image: u64,
    /// Who did it: the first ones.
    pub actors: Vec<Actor>,
    /// Whether there were others.
    pub has_more_actors: bool,
    /// How an executed file differed from the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub differs: Option<Difference>,
    /// The SHA-256 of the file when it was executed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    /// Some of the paths that are counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<Text>,
    /// How many files the kernel has only counted.
    #[serde(default)]
    pub counted_in_kernel: u64,
}

impl Entry {
    /// The entry that a line begins.
    pub(super) fn new(share: &Share) -> Self {
        Self {
            subject: share.subject.clone(),
            deeds: BTreeMap::new(),
            first: share.first,
            findings: BTreeMap::new(),
            expected: BTreeMap::new(),
            in_image: 0,
            actors: Vec::new(),
            has_more_actors: false,
            differs: None,
            sha256: None,
            names: Vec::new(),
            counted_in_kernel: 0,
        }
    }

    /// Adds what a line says.
    pub(super) fn add(&mut self, share: &Share) {
        for (deed, more) in &share.deeds {
            let done = self.deeds.entry(*deed).or_insert(Done { count: 0, last: more.last });
            done.count += more.count;
            done.last = done.last.max(more.last);
        }
        self.first = self.first.min(share.first);
        *self.findings.entry(share.severity).or_default() += 1;
        if let Some(reason) = &share.expected {
            *self.expected.entry(reason.clone()).or_default() += 1;
        }
        self.in_image += u64::from(share.is_in_image);
        self.counted_in_kernel += share.counted_in_kernel;
        share.actor.iter().for_each(|actor| self.add_actor(actor));
        self.differs = share.differs.or(self.differs);
        self.sha256 = share.sha256.or(self.sha256);
        if !share.names.is_empty() {
            self.names.clone_from(&share.names);
        }
    }

    /// Takes back what a line has added. Returns whether anything is left.
    pub(super) fn take_back(&mut self, share: &KeptShare) -> bool {
        for (deed, count) in &share.deeds {
            if let Some(done) = self.deeds.get_mut(deed) {
                done.count = done.count.saturating_sub(*count);
            }
        }
        self.deeds.retain(|_, done| done.count > 0);
        subtract(&mut self.findings, &share.severity);
        if let Some(reason) = &share.expected {
            subtract(&mut self.expected, reason);
        }
        self.in_image = self.in_image.saturating_sub(share.is_in_image.into());
        self.counted_in_kernel = self.counted_in_kernel.saturating_sub(share.counted_in_kernel);
        !self.findings.is_empty()
    }

    fn add_actor(&mut self, actor: &Actor) {
        if let Some(known) = self.actors.iter_mut().find(|known| known.is_same(actor)) {
            if actor.time < known.time {
                known.clone_from(actor);
            }
        } else {
            self.actors.push(actor.clone());
        }
        self.actors.sort_unstable();
        self.has_more_actors |= self.actors.len() > MOST_ACTORS;
        self.actors.truncate(MOST_ACTORS);
    }

    /// What it is now. `None` if nothing was done there.
    pub fn state(&self) -> Option<State> {
        let last = |deeds: &[Deed]| deeds.iter().filter_map(|deed| Some(self.deeds.get(deed)?.last)).max();
        let has = |deed| self.deeds.contains_key(&deed);
        let is_there = last(&[Deed::Created, Deed::Arrived, Deed::Written, Deed::Described]);
        let is_gone = last(&[Deed::Removed, Deed::Left]);
        let is_absent = if let Subject::Path(_) | Subject::Inode(_) = self.subject {
            is_gone.is_some() && is_gone >= is_there
        } else {
            self.are_gone()
        };
        let is_in_image = self.in_image > 0;
        Some(if is_absent {
            let was_added = !is_in_image && (has(Deed::Created) || has(Deed::Arrived));
            if was_added { State::AddedAndRemoved } else { State::Removed }
        } else if is_there.is_some() {
            match (has(Deed::Created), has(Deed::Arrived), has(Deed::Written)) {
                (true, ..) | (_, true, _) if is_in_image => State::Changed,
                (true, ..) => State::Added,
                (_, true, _) => State::AddedOrReplaced,
                (.., true) => State::Changed,
                _ => State::Metadata,
            }
        } else if let Some(covered) = last(&[Deed::Covered, Deed::Uncovered]) {
            let is_covered = self.deeds.get(&Deed::Uncovered).is_none_or(|done| done.last < covered);
            if is_covered { State::Shadowed } else { State::WasShadowed }
        } else {
            last(&[Deed::Executed]).map(|_| State::Unlike)?
        })
    }

    /// Whether of files that are counted together all are gone.
    fn are_gone(&self) -> bool {
        let count = |deed| self.deeds.get(&deed).map_or(0, |done| done.count);
        let (added, removed) = (count(Deed::Created).max(count(Deed::Arrived)), count(Deed::Removed));
        removed > 0 && removed >= added && count(Deed::Written) + count(Deed::Described) == 0
    }

    /// When something was done there last.
    pub fn last(&self) -> Time {
        self.deeds.values().map(|done| done.last).max().unwrap_or(self.first)
    }

    /// How often something was done there, apart from executing it.
    pub fn changes(&self) -> u64 {
        self.deeds.iter().filter(|(deed, _)| **deed != Deed::Executed).map(|(_, done)| done.count).sum()
    }

    /// How often it was executed, and when last.
    pub fn executed(&self) -> Option<Done> {
        self.deeds.get(&Deed::Executed).copied()
    }

    /// The highest severity of the findings about it.
    pub fn severity(&self) -> Severity {
        self.findings.keys().max().copied().unwrap_or(Severity::Info)
    }

    /// Whether all findings about it are expected.
    pub fn is_expected(&self) -> bool {
        self.findings.values().sum::<u64>() <= self.expected.values().sum()
    }
}

/// Makes a number smaller by one, and leaves none that is 0.
fn subtract<K: Ord>(counts: &mut BTreeMap<K, u64>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}
