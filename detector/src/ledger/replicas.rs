//! Replicas: containers that should be alike, because they have the same image and, in Kubernetes, the same owner. What
//! all of them did is the image's own doing; what only some did is told. A container that has ended still counts.
//!
//! Replicas are compared at the same age: one that has not become as old as another was when it did something cannot
//! tell whether it would have done the same, and neither can one that ran before it was watched.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use super::account::Account;
use super::entry::{Entry, State, Subject};
use crate::finding::{OwnerKind, Sha256, Text, Time};

/// How much later than the others a replica may do the same.
const LATE: Duration = Duration::from_secs(10);

/// Replicas, of which there are at least two.
#[derive(Debug)]
pub struct Group<'a> {
    /// The owner of their pods, or the image.
    pub name: String,
    /// The replicas.
    pub replicas: Vec<&'a Account>,
    /// What only some of them did, what matters most first.
    pub differences: Vec<Difference<'a>>,
    /// What all of them did, what matters most first, each by the entry of one of them.
    pub in_common: Vec<&'a Entry>,
    /// What one of them did at an age at which there is no other replica to compare with, what matters most first.
    pub alone: Vec<(&'a Account, &'a Entry)>,
}

/// Something that only some replicas did.
#[derive(Debug)]
pub struct Difference<'a> {
    /// The entry of the first one that did.
    pub entry: &'a Entry,
    /// Those that did it.
    pub by: Vec<&'a Account>,
    /// Those that did not.
    pub not_by: Vec<&'a Account>,
}

impl Group<'_> {
    /// How many of them are different.
    pub fn deviants(&self) -> usize {
        self.replicas.iter().filter(|replica| self.deviates(replica)).count()
    }

    /// Whether a replica did something that most of the others did not, or did not do what most of them did. Of two
    /// that differ, nobody can tell which one it is: both do.
    pub fn deviates(&self, replica: &Account) -> bool {
        if self.replicas.len() == 2 {
            return !self.differences.is_empty();
        }
        let is = |other: &&Account| std::ptr::eq(*other, replica);
        self.differences.iter().any(|Difference { by, not_by, .. }| {
            let few = if by.len() <= not_by.len() { by } else { not_by };
            few.iter().any(is)
        })
    }
}

/// What makes containers replicas: the owner and the name in its pods, if there is one, and the image.
type Identity<'a> = (Option<(Option<&'a Text>, OwnerKind, &'a Text, Option<&'a Text>)>, &'a Text);

/// What must be the same if two replicas did the same.
type Act<'a> = (&'a Subject, Like, bool, Option<[u8; 32]>);

/// What a path is like, however it came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Like {
    Other,
    Removed,
    Shadowed,
    Image,
}

/// The replicas among these containers, at this time.
pub fn groups(accounts: &[Account], now: Time) -> Vec<Group<'_>> {
    let mut groups = BTreeMap::<Identity<'_>, Vec<&Account>>::new();
    for account in accounts {
        if let Some(identity) = identity(account) {
            groups.entry(identity).or_default().push(account);
        }
    }
    groups.retain(|_, replicas| replicas.len() > 1);
    groups.into_values().map(|replicas| compare(replicas, now)).collect()
}

fn identity(account: &Account) -> Option<Identity<'_>> {
    let container = &account.page.container;
    let image = container.image.as_ref()?;
    let owner = container.pod.as_ref().and_then(|pod| {
        let owner = pod.owner.as_ref()?;
        Some((pod.namespace.as_ref(), owner.kind, &owner.name, container.name.as_ref()))
    });
    Some((owner, image.digest.as_ref().or(image.id.as_ref())?))
}

fn name(account: &Account) -> String {
    let container = &account.page.container;
    let owner = container.pod.as_ref().and_then(|pod| Some((pod.namespace.as_ref(), pod.owner.as_ref()?)));
    match owner {
        Some((Some(namespace), owner)) => format!("{namespace}/{}", owner.name),
        Some((None, owner)) => owner.name.to_string(),
        None => {
            let image = container.image.as_ref();
            let text = image.and_then(|image| image.name.as_ref().or(image.digest.as_ref()).or(image.id.as_ref()));
            text.map(ToString::to_string).unwrap_or_default()
        }
    }
}

fn compare(replicas: Vec<&Account>, now: Time) -> Group<'_> {
    let mut acts = BTreeMap::<Act<'_>, Vec<(&Account, &Entry)>>::new();
    for replica in &replicas {
        for entry in &replica.entries {
            if let Some(act) = act(entry) {
                acts.entry(act).or_default().push((replica, entry));
            }
        }
    }
    let name = name(replicas[0]);
    let mut group = Group { name, replicas, differences: Vec::new(), in_common: Vec::new(), alone: Vec::new() };
    for done in acts.into_values() {
        let by: Vec<_> = done.iter().map(|(replica, _)| *replica).collect();
        let does = |replica: &Account| by.iter().any(|other| std::ptr::eq(*other, replica));
        let earliest = done.iter().map(|(replica, entry)| age(replica, entry.first)).min().unwrap_or_default();
        let could = |replica: &&&Account| !does(replica) && has_reached(replica, earliest, now);
        let not_by: Vec<_> = group.replicas.iter().filter(could).copied().collect();
        // What every one of them does not expect matters, even if the others do not matter.
        let own = done.iter().find(|(_, entry)| !entry.is_expected());
        match own {
            _ if not_by.is_empty() && by.len() > 1 => group.in_common.push(own.unwrap_or(&done[0]).1),
            None => {}
            Some(own) if not_by.is_empty() => group.alone.push(*own),
            Some((_, entry)) => group.differences.push(Difference { entry, by, not_by }),
        }
    }
    let first = |entry: &Entry| Reverse((entry.severity(), entry.last()));
    group.differences.sort_by_key(|difference| first(difference.entry));
    group.in_common.sort_by_key(|entry| first(entry));
    group.alone.sort_by_key(|(_, entry)| first(entry));
    group
}

fn act(entry: &Entry) -> Option<Act<'_>> {
    let like = match entry.state()? {
        State::Removed => Like::Removed,
        State::Shadowed => Like::Shadowed,
        State::AddedAndRemoved | State::WasShadowed => Like::Image,
        State::Added | State::AddedOrReplaced | State::Changed | State::Metadata | State::Unlike => Like::Other,
    };
    let Entry { subject, sha256, .. } = entry;
    Some((subject, like, entry.executed().is_some(), sha256.map(|Sha256(hash)| hash)))
}

/// How old a container was at a time.
fn age(account: &Account, time: Time) -> Duration {
    Duration::try_from(time.0.duration_since(account.page.since.0)).unwrap_or_default()
}

/// Whether a container has become so old that it would have done what others did at this age.
fn has_reached(account: &Account, earliest: Duration, now: Time) -> bool {
    !account.page.ran_before && age(account, account.page.ended.unwrap_or(now)) >= earliest + LATE
}
