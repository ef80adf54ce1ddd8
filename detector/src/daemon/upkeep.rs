//! Notices exceptions that somebody should look at: those that have expired, and those that have suppressed nothing for
//! a long time.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::finding::{NoticeEvent, Time};
use crate::policy::{Exception, Policy};

/// How long an exception can suppress nothing until that is told.
const UNUSED: Duration = Duration::from_secs(7 * 24 * 3600);

/// The exceptions that hold now.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    exceptions: Vec<Kept>,
}

#[derive(Debug)]
struct Kept {
    exception: Exception,
    /// Since when it holds: on the wall, and since boot.
    since: Time,
    start: Duration,
    /// How many acts an exception of this name had suppressed before.
    suppressed: u64,
    /// Whether it was told that it has expired, or that it is not used.
    is_told: bool,
}

impl Upkeep {
    /// Goes by another policy from now on: a time on the wall, and since boot. What has expired already was told when
    /// the policy was loaded. `suppressed` has how many acts were suppressed so far, by the names of exceptions.
    pub(super) fn load(&mut self, policy: &Policy, suppressed: &BTreeMap<String, u64>, now: Time, boot: Duration) {
        let mut before = std::mem::take(&mut self.exceptions);
        let keep = |exception: &Exception| match before.iter().position(|kept| kept.exception == *exception) {
            Some(same) => before.swap_remove(same),
            None => Kept {
                exception: exception.clone(),
                since: now,
                start: boot,
                suppressed: suppressed.get(&exception.name).copied().unwrap_or_default(),
                is_told: exception.has_expired(now),
            },
        };
        self.exceptions = policy.exceptions.iter().map(keep).collect();
    }

    /// What there is to say at this time. `suppressed` has how many acts were suppressed, by the names of exceptions.
    pub(super) fn check(&mut self, suppressed: &BTreeMap<String, u64>, now: Time, boot: Duration) -> Vec<NoticeEvent> {
        let mut notices = Vec::new();
        for kept in self.exceptions.iter_mut().filter(|kept| !kept.is_told) {
            let Exception { name, reason, owner, expires, .. } = &kept.exception;
            let own = || (name.clone(), reason.clone(), owner.clone());
            let is_unused = suppressed.get(name).copied().unwrap_or_default() == kept.suppressed;
            let notice = match expires {
                Some(expired) if kept.exception.has_expired(now) => {
                    let (exception, reason, owner) = own();
                    NoticeEvent::ExceptionExpired { exception, reason, owner, expired: *expired }
                }
                _ if is_unused && boot.saturating_sub(kept.start) >= UNUSED => {
                    let (exception, reason, owner) = own();
                    NoticeEvent::ExceptionUnused { exception, reason, owner, since: kept.since }
                }
                _ => continue,
            };
            kept.is_told = true;
            notices.push(notice);
        }
        notices
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Conditions;

    const HOUR: Duration = Duration::from_secs(3600);

    fn exception(name: &str, expires: Option<Time>) -> Exception {
        let conditions = Conditions::default();
        Exception { name: name.to_owned(), reason: "r".to_owned(), owner: "o".to_owned(), expires, conditions }
    }

    fn at(text: &str) -> Time {
        text.parse().expect("it is a time")
    }

    /// What is told: the names of the exceptions that are not used, and of those that have expired.
    fn told(notices: Vec<NoticeEvent>) -> (Vec<String>, Vec<String>) {
        let (mut unused, mut expired) = (Vec::new(), Vec::new());
        for notice in notices {
            match notice {
                NoticeEvent::ExceptionUnused { exception, .. } => unused.push(exception),
                NoticeEvent::ExceptionExpired { exception, .. } => expired.push(exception),
                other => panic!("{other:?}"),
            }
        }
        (unused, expired)
    }

    #[test]
    fn an_exception_that_suppresses_nothing_is_told_once() {
        let now = at("2026-01-01T00:00:00Z");
        let exceptions = vec![exception("used", None), exception("unused", None)];
        let policy = Policy { exceptions, ..Policy::default() };
        let mut upkeep = Upkeep::default();
        upkeep.load(&policy, &BTreeMap::new(), now, HOUR);
        let suppressed = [("used".to_owned(), 1)].into();
        assert_eq!(told(upkeep.check(&suppressed, now, UNUSED)), (vec![], vec![]));
        // Loading the same again changes nothing, and the time on the wall does not count.
        upkeep.load(&policy, &suppressed, now, UNUSED);
        assert_eq!(told(upkeep.check(&suppressed, at("2027-01-01T00:00:00Z"), UNUSED)), (vec![], vec![]));
        assert_eq!(told(upkeep.check(&suppressed, now, UNUSED + HOUR)), (vec!["unused".to_owned()], vec![]));
        assert_eq!(told(upkeep.check(&suppressed, now, 2 * UNUSED)), (vec![], vec![]));
    }

    #[test]
    fn an_exception_that_expires_is_told_once_unless_it_had_expired_before() {
        let (before, after) = (at("2026-01-01T00:00:00Z"), at("2026-01-03T00:00:00Z"));
        let exceptions = ["2026-01-02T00:00:00Z", "2025-01-01T00:00:00Z"];
        let exceptions = exceptions.map(|expires| exception(expires, Some(at(expires))));
        let mut upkeep = Upkeep::default();
        upkeep.load(&Policy { exceptions: exceptions.to_vec(), ..Policy::default() }, &BTreeMap::new(), before, HOUR);
        assert_eq!(told(upkeep.check(&BTreeMap::new(), before, HOUR)), (vec![], vec![]));
        let expired = vec!["2026-01-02T00:00:00Z".to_owned()];
        assert_eq!(told(upkeep.check(&BTreeMap::new(), after, HOUR)), (vec![], expired));
        assert_eq!(told(upkeep.check(&BTreeMap::new(), after, HOUR)), (vec![], vec![]));
    }
}
