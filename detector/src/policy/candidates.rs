//! The exceptions that can hold for a finding: all that the act fulfils. Which of them holds is decided when it is
//! known what the runtime tells of the container, or that it tells nothing. What is not known fulfils no condition.

use std::fmt;
use std::sync::Arc;

use super::{Exception, Policy};
use crate::finding::{Container, Severity, Time};

/// The exceptions of a policy that an act fulfils, in their order, apart from what they demand of the container and of
/// the severity.
#[derive(Clone, PartialEq, Eq)]
pub struct Candidates {
    policy: Arc<Policy>,
    /// Their positions in the policy.
    numbers: Vec<u16>,
}

impl Candidates {
    /// Those of the exceptions that pass the test, or `None` if there are none.
    pub(crate) fn of(policy: &Arc<Policy>, is_fulfilled: impl Fn(&Exception) -> bool) -> Option<Self> {
        let numbered = (0..).zip(&policy.exceptions);
        let numbers: Vec<u16> =
            numbered.filter(|(_, exception)| is_fulfilled(exception)).map(|(number, _)| number).collect();
        (!numbers.is_empty()).then(|| Self { policy: Arc::clone(policy), numbers })
    }

    /// Their positions in the policy.
    pub(crate) fn numbers(&self) -> &[u16] {
        &self.numbers
    }

    /// The exceptions that two acts of one finding both fulfil.
    pub(crate) fn and(mut self, other: &Self) -> Option<Self> {
        let policy = Arc::clone(&self.policy);
        if Arc::ptr_eq(&policy, &other.policy) {
            self.numbers.retain(|number| other.numbers.contains(number));
        } else {
            // Another policy was loaded between the acts. What it has not changed still holds for both.
            let own = |number: u16| &policy.exceptions[usize::from(number)];
            self.numbers.retain(|&number| other.exceptions().any(|exception| exception == own(number)));
        }
        (!self.numbers.is_empty()).then_some(self)
    }

    fn exceptions(&self) -> impl Iterator<Item = &Exception> {
        self.numbers.iter().map(|&number| &self.policy.exceptions[usize::from(number)])
    }

    /// The first exception that holds for an act of this severity at this time in this container. `is_told_by_user`:
    /// what is known of the container comes from the runtime of an ordinary user.
    pub(crate) fn first(
        &self,
        severity: Severity,
        time: Time,
        container: &Container,
        is_told_by_user: bool,
    ) -> Option<&Exception> {
        self.exceptions()
            .find(|exception| exception.unfulfilled_in(severity, time, container, is_told_by_user).next().is_none())
    }
}

/// Without the policy, which is long.
impl fmt::Debug for Candidates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Candidates").field(&self.numbers).finish()
    }
}
