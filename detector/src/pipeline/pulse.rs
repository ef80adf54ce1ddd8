//! Notices when this process did not run, because somebody stopped it or the host had no time for it.

use std::time::{Duration, Instant};

/// How late the reader can be without a notice.
const LATE: Duration = Duration::from_secs(5);

/// When the reader last ran.
#[derive(Debug)]
pub(super) struct Pulse {
    last: Instant,
    /// Whether the reader has handled all records that there were. A record that it finds next is a new one.
    is_drained: bool,
}

impl Pulse {
    pub(super) fn new(now: Instant) -> Self {
        Self { last: now, is_drained: false }
    }

    /// The reader runs, and has waited for at most `allowed` since the last call. Returns for how long it should have
    /// run and did not, if that is long.
    pub(super) fn beat(&mut self, now: Instant, allowed: Duration) -> Option<Duration> {
        let elapsed = now.saturating_duration_since(std::mem::replace(&mut self.last, now));
        let late = elapsed.saturating_sub(allowed);
        (late > LATE).then_some(late)
    }

    /// The reader has handled all records, or it has not.
    pub(super) fn set_drained(&mut self, is_drained: bool) {
        self.is_drained = is_drained;
    }

    /// The reader has read a record with this age, which is only asked for if it matters. Returns for how long it
    /// should have run and did not, if that is long.
    pub(super) fn read(&mut self, age: impl FnOnce() -> Duration) -> Option<Duration> {
        std::mem::take(&mut self.is_drained).then(age).filter(|age| *age > LATE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_was_stopped_is_noticed_and_one_that_waits_or_is_busy_is_not() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        let at = |seconds| start + Duration::from_secs(seconds);
        let seconds = Duration::from_secs;
        assert_eq!(pulse.beat(at(10), seconds(10)), None);
        assert_eq!(pulse.beat(at(27), seconds(10)), Some(seconds(7)));
        assert_eq!(pulse.beat(at(31), seconds(0)), None);
        assert_eq!(pulse.beat(at(37), seconds(0)), Some(seconds(6)));

        assert_eq!(pulse.read(|| seconds(7)), None, "it is late with a queue of records");
        pulse.set_drained(true);
        assert_eq!(pulse.read(|| seconds(7)), Some(seconds(7)));
        assert_eq!(pulse.read(|| seconds(7)), None, "the next records are from the same time");
        pulse.set_drained(true);
        assert_eq!(pulse.read(|| seconds(1)), None);
    }
}
