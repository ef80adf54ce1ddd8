//! How long a forwarder waits before it tries again what has failed.

use std::time::{Duration, Instant};

/// The shortest and the longest wait.
const SHORTEST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(60);
/// After this time without a failure, the next one counts as the first.
const CALM: Duration = Duration::from_secs(60);

/// The failures so far.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    last: Option<Instant>,
}

impl Backoff {
    /// Notes a failure, and returns how long to wait: twice as long after each one, and half of it by chance, so that
    /// a receiver that returns is not asked by all nodes at once.
    pub(super) fn failed(&mut self, now: Instant) -> Duration {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) >= CALM + LONGEST) {
            self.failures = 0;
        }
        self.last = Some(now);
        let longest = SHORTEST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures += 1;
        longest.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// Notes that the receiver has acknowledged lines.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_become_longer_but_not_too_long() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        for longest in [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000] {
            let wait = backoff.failed(now).as_millis();
            assert!((longest / 2..=longest).contains(&wait), "{wait} of {longest}");
        }
        assert!(backoff.failed(now + CALM) > Duration::from_secs(29));
        assert!(backoff.failed(now + 2 * CALM + LONGEST) <= SHORTEST);
        backoff.failed(now + 2 * CALM + LONGEST);
        backoff.succeeded();
        assert!(backoff.failed(now + 2 * CALM + LONGEST) <= SHORTEST);
    }

    #[test]
    fn nodes_do_not_wait_for_the_same_time() {
        let now = Instant::now();
        let waits: std::collections::BTreeSet<_> = (0..10).map(|_| Backoff::default().failed(now)).collect();
        assert!(waits.len() > 1);
    }
}
