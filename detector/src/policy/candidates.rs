//! The exceptions and overrides that can hold for a finding: all that the act fulfils. Which of them holds is decided
//! when it is known what the runtime tells of the container, or that it tells nothing. What is not known fulfils no
//! condition.

use std::fmt;
use std::sync::Arc;

use super::{Conditions, Exception, Override, Policy};
use crate::finding::{Container, Severity, Time};

/// The exceptions and overrides of a policy that an act fulfils, in their order, apart from what they demand of the
/// container and of the severity.
#[derive(Clone, PartialEq, Eq)]
pub struct Candidates {
    policy: Arc<Policy>,
    /// Their positions in the policy. Those of the overrides follow those of all exceptions.
    numbers: Vec<u16>,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry<'a> {
    Exception(&'a Exception),
    Override(&'a Override),
}

impl Candidates {
    /// Those whose conditions pass the test, or `None` if there are none.
    pub(crate) fn of(policy: &Arc<Policy>, is_fulfilled: impl Fn(&Conditions) -> bool) -> Option<Self> {
        let numbered = (0..).zip(entries(policy));
        let numbers: Vec<u16> =
            numbered.filter(|(_, entry)| is_fulfilled(entry.conditions())).map(|(number, _)| number).collect();
        (!numbers.is_empty()).then(|| Self { policy: Arc::clone(policy), numbers })
    }

    /// Their positions in the policy.
    pub(crate) fn numbers(&self) -> &[u16] {
        &self.numbers
    }

    /// The candidates that two acts of one finding both fulfil.
    pub(crate) fn and(mut self, other: &Self) -> Option<Self> {
        let policy = Arc::clone(&self.policy);
        if Arc::ptr_eq(&policy, &other.policy) {
            self.numbers.retain(|number| other.numbers.contains(number));
        } else {
            // Another policy was loaded between the acts. What it has not changed still holds for both.
            self.numbers.retain(|&number| other.entries().any(|entry| entry == numbered(&policy, number)));
        }
        (!self.numbers.is_empty()).then_some(self)
    }

    /// Whether there are overrides among them.
    pub(crate) fn has_overrides(&self) -> bool {
        self.entries().any(|entry| matches!(entry, Entry::Override(_)))
    }

    fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.numbers.iter().map(|&number| numbered(&self.policy, number))
    }

    /// The first exception that holds for an act of this severity at this time in this container. `is_told_by_user`:
    /// what is known of the container comes from the runtime of an ordinary user.
    pub(crate) fn exception(
        &self,
        severity: Severity,
        time: Time,
        container: &Container,
        is_told_by_user: bool,
    ) -> Option<&Exception> {
        self.entries().find_map(|entry| match entry {
            Entry::Exception(exception) => {
                let mut missed = exception.unfulfilled_in(severity, time, container, is_told_by_user);
                missed.next().is_none().then_some(exception)
            }
            Entry::Override(_) => None,
        })
    }

    /// The first override that holds for an act that has this severity by the detector's rules.
    pub(crate) fn overriding(
        &self,
        severity: Severity,
        container: &Container,
        is_told_by_user: bool,
    ) -> Option<&Override> {
        self.entries().find_map(|entry| match entry {
            Entry::Exception(_) => None,
            Entry::Override(overriding) => {
                let mut missed = overriding.conditions.unfulfilled_in(severity, container, is_told_by_user);
                missed.next().is_none().then_some(overriding)
            }
        })
    }
}

impl<'a> Entry<'a> {
    fn conditions(self) -> &'a Conditions {
        match self {
            Self::Exception(exception) => &exception.conditions,
            Self::Override(overriding) => &overriding.conditions,
        }
    }
}

/// What can be a candidate, in the order of the positions.
fn entries(policy: &Policy) -> impl Iterator<Item = Entry<'_>> {
    policy.exceptions.iter().map(Entry::Exception).chain(policy.overrides.iter().map(Entry::Override))
}

/// What has this position.
fn numbered(policy: &Policy, number: u16) -> Entry<'_> {
    let number = usize::from(number);
    match number.checked_sub(policy.exceptions.len()) {
        None => Entry::Exception(&policy.exceptions[number]),
        Some(number) => Entry::Override(&policy.overrides[number]),
    }
}

/// Without the policy, which is long.
impl fmt::Debug for Candidates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Candidates").field(&self.numbers).finish()
    }
}
