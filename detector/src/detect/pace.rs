//! When the finding of something that goes on is published again: after intervals that grow.

/// A second, in nanoseconds.
pub(super) const SECOND: u64 = 1_000_000_000;

/// The pace at which a finding is published.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// How long after its last line the finding is published again, if there is something new: after the first line,
    /// after the second one, and so on.
    intervals: &'static [u64],
    /// When the last line was published.
    last: u64,
    /// How many lines were published because of the time.
    updates: usize,
}

impl Pace {
    /// The first line is due after the first interval, and so is the line after it.
    pub(super) const fn new(intervals: &'static [u64], now: u64) -> Self {
        Self { intervals, last: now, updates: 0 }
    }

    /// When the next line is due, if there is something new.
    pub(super) fn due(&self) -> u64 {
        self.last.saturating_add(self.intervals[self.updates.min(self.intervals.len() - 1)])
    }

    /// A line is published. `is_update`: because it is time for it.
    pub(super) fn note(&mut self, now: u64, is_update: bool) {
        self.last = now;
        self.updates += usize::from(is_update);
    }
}
