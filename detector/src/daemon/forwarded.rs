//! What the daemon knows about its forwarders.

use std::time::Duration;

use crate::finding::Time;
use crate::forward::Forwarder;
use crate::forward::progress::{Failing, Progress};
use crate::protocol::ForwarderStatus;

/// How long a receiver may take nothing until that makes the daemon degraded.
const PATIENCE: Duration = Duration::from_secs(60);

/// The forwarders of a daemon.
#[derive(Debug, Default)]
pub(super) struct Forwarded {
    all: Vec<One>,
    /// Why there is no process that forwards.
    failure: Option<String>,
}

#[derive(Debug)]
struct One {
    name: String,
    to: String,
    /// What its process has told last.
    progress: Progress,
    /// The counters of processes that have ended.
    before: Counted,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    sent: u64,
    unlogged: u64,
    given_up: u64,
    refused: u64,
}

impl Forwarded {
    /// These forwarders, which have not sent anything yet.
    pub(super) fn new(forwarders: &[Forwarder]) -> Self {
        let one = |forwarder: &Forwarder| One {
            name: forwarder.name.clone(),
            to: forwarder.to.to_string(),
            progress: Progress::default(),
            before: Counted::default(),
        };
        Self { all: forwarders.iter().map(one).collect(), failure: None }
    }

    /// Takes what a forwarder tells. Returns how many more lines it has given up.
    pub(super) fn take(&mut self, progress: Progress) -> u64 {
        let Some(one) = self.all.iter_mut().find(|one| one.name == progress.forwarder) else { return 0 };
        let more = progress.given_up.saturating_sub(one.progress.given_up);
        one.progress = progress;
        more
    }

    /// The process has ended, for this reason, or has been started.
    pub(super) fn ended(&mut self, failure: Option<String>) {
        self.failure = failure;
        for One { progress, before, .. } in &mut self.all {
            before.sent += std::mem::take(&mut progress.sent);
            before.unlogged += std::mem::take(&mut progress.unlogged);
            before.given_up += std::mem::take(&mut progress.given_up);
            before.refused += std::mem::take(&mut progress.refused);
        }
    }

    /// Why less is forwarded than could be, at this time.
    pub(super) fn failures(&self, now: Time) -> Vec<String> {
        let of_one = |One { name, to, progress, .. }: &One| {
            let is_long = |failing: &&Failing| now.0.duration_since(failing.since.0).unsigned_abs() >= PATIENCE;
            let failing = progress.failure.as_ref().filter(is_long).map(|Failing { why, since }| {
                format!(
                    "forwarder {name}: {to} has received nothing since {:.0}: {why}; lines wait in the log",
                    since.0
                )
            });
            let is_giving_up = progress.is_giving_up.then(|| {
                format!(
                    "forwarder {name}: lines were removed from the log before {to} had received them, and others still \
                    wait; keep more old files (--rotate-keep)"
                )
            });
            failing.into_iter().chain(is_giving_up)
        };
        self.failure.iter().cloned().chain(self.all.iter().flat_map(of_one)).collect()
    }

    /// The status of each, if the log has so many lines by now.
    pub(super) fn status(&self, written: u64) -> Vec<ForwarderStatus> {
        let status = |One { name, to, progress, before }: &One| ForwarderStatus {
            name: name.clone(),
            to: to.clone(),
            seq: progress.seq,
            waiting: written.saturating_sub(progress.seq),
            oldest: progress.waiting,
            sent: before.sent + progress.sent,
            unlogged: before.unlogged + progress.unlogged,
            given_up: before.given_up + progress.given_up,
            refused: before.refused + progress.refused,
            failure: progress.failure.as_ref().map(|failing| failing.why.clone()),
            failing_since: progress.failure.as_ref().map(|failing| failing.since),
        };
        self.all.iter().map(status).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded() -> Forwarded {
        let to = "tcp://localhost:601".parse().expect("it is one");
        let (format, batch, tls) = Default::default();
        Forwarded::new(&[Forwarder { name: "siem".to_owned(), to, format, batch, headers: None, tls }])
    }

    fn at(text: &str) -> Time {
        text.parse().expect("it is a time")
    }

    #[test]
    fn what_was_counted_before_is_added() {
        let mut forwarded = forwarded();
        let progress = Progress { forwarder: "siem".to_owned(), seq: 7, sent: 5, given_up: 2, ..Progress::default() };
        assert_eq!(forwarded.take(progress.clone()), 2);
        assert_eq!(forwarded.take(progress.clone()), 0, "it was told before");
        forwarded.ended(Some("it died".to_owned()));
        forwarded.ended(None);
        assert_eq!(forwarded.take(Progress { seq: 9, refused: 1, ..progress.clone() }), 2);
        assert_eq!(forwarded.take(Progress { forwarder: "other".to_owned(), ..progress }), 0);
        let status = &forwarded.status(10)[0];
        assert_eq!((status.seq, status.waiting), (9, 1));
        assert_eq!((status.sent, status.given_up, status.refused), (10, 4, 1));
        assert_eq!(forwarded.status(1)[0].waiting, 0, "the log is another one");
    }

    #[test]
    fn only_what_lasts_is_a_reason() {
        let mut forwarded = forwarded();
        let since = at("2027-01-15T08:00:00Z");
        let failure = Some(Failing { why: "refused".to_owned(), since });
        let progress = Progress { forwarder: "siem".to_owned(), failure, ..Progress::default() };
        forwarded.take(progress.clone());
        assert_eq!(forwarded.failures(at("2027-01-15T08:00:59Z")), Vec::<String>::new());
        let reasons = forwarded.failures(at("2027-01-15T08:01:00Z"));
        assert!(reasons[0].contains("nothing since 2027-01-15T08:00:00Z: refused"), "{reasons:?}");
        forwarded.take(Progress { is_giving_up: true, failure: None, ..progress.clone() });
        assert!(forwarded.failures(since)[0].contains("removed from the log"));
        forwarded.take(Progress { failure: None, ..progress });
        forwarded.ended(Some("it died".to_owned()));
        assert_eq!(forwarded.failures(since), ["it died"]);
    }
}
