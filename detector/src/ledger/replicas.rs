//! Replicas: containers that should be alike, because they have the same image and, in Kubernetes, the same owner. What
//! all of them did is the image's own doing; what only some did is told. A container that has ended still counts.
//!
//! Replicas are compared at the same age: one that has not become as old as another was when it did something cannot
//! tell whether it would have done the same, and neither can one that ran before it was watched.

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
    /// At how many paths all of them did the same.
    pub in_common: u64,
    /// At how many paths something was done at an age at which there is no other replica to compare with.
    pub alone: u64,
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
    /// Those that did something that most of the others did not.
    pub fn deviants(&self) -> usize {
        let deviates = |replica: &&&Account| {
            let is = |other: &&Account| std::ptr::eq(*other, **replica);
            self.differences.iter().any(|difference| {
                let few =
                    if difference.by.len() <= difference.not_by.len() { &difference.by } else { &difference.not_by };
                few.iter().any(is)
            })
        };
        self.replicas.iter().filter(deviates).count()
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
    let mut group = Group { name: name(replicas[0]), replicas, differences: Vec::new(), in_common: 0, alone: 0 };
    for done in acts.into_values() {
        let by: Vec<_> = done.iter().map(|(replica, _)| *replica).collect();
        let does = |replica: &Account| by.iter().any(|other| std::ptr::eq(*other, replica));
        let earliest = done.iter().map(|(replica, entry)| age(replica, entry.first)).min().unwrap_or_default();
        let could = |replica: &&&Account| !does(replica) && has_reached(replica, earliest, now);
        let not_by: Vec<_> = group.replicas.iter().filter(could).copied().collect();
        // What every one of them does not expect matters, even if the others do not matter.
        let own = done.iter().find(|(_, entry)| !entry.is_expected());
        match own {
            _ if not_by.is_empty() && by.len() > 1 => group.in_common += 1,
            None => {}
            Some(_) if not_by.is_empty() => group.alone += 1,
            Some((_, entry)) => group.differences.push(Difference { entry, by, not_by }),
        }
    }
    group
        .differences
        .sort_by_key(|difference| std::cmp::Reverse((difference.entry.severity(), difference.entry.last())));
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
