//! Detects the time windows in which the kernel skipped calls of an eBPF program.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// A time window in which the kernel skipped calls.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BlindWindow {
    /// When the calls were counted the previous time, in nanoseconds since boot.
    pub(super) from: u64,
    /// When they were counted this time, in nanoseconds since boot.
    pub(super) until: u64,
    /// The number of skipped calls in the window, by program.
    pub(super) skipped: BTreeMap<Cow<'static, str>, u64>,
}

/// The number of skipped calls of each program at the last count.
#[derive(Debug)]
pub(super) struct BlindWindows {
    counted: u64,
    counts: BTreeMap<&'static str, u64>,
}

impl BlindWindows {
    /// Starts with no skipped calls at `since`, in nanoseconds since boot.
    pub(super) fn new(since: u64) -> Self {
        Self { counted: since, counts: BTreeMap::new() }
    }

    /// Stores the numbers of skipped calls at `now`, and returns a window if any of them has grown.
    pub(super) fn update(
        &mut self,
        counts: impl IntoIterator<Item = (&'static str, u64)>,
        now: u64,
    ) -> Option<BlindWindow> {
        let from = std::mem::replace(&mut self.counted, now);
        let mut skipped = BTreeMap::new();
        for (program, count) in counts {
            let before = self.counts.insert(program, count).unwrap_or(0);
            if count > before {
                skipped.insert(program.into(), count - before);
            }
        }
        (!skipped.is_empty()).then_some(BlindWindow { from, until: now, skipped })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_contains_the_calls_skipped_since_the_last_count() {
        let mut windows = BlindWindows::new(5);
        assert_eq!(windows.update([("open", 0), ("exec", 0)], 10), None);
        let window = windows.update([("open", 3), ("exec", 0)], 20);
        assert_eq!(window, Some(BlindWindow { from: 10, until: 20, skipped: [("open".into(), 3)].into() }));
        assert_eq!(windows.update([("open", 3), ("exec", 0)], 30), None);
        let window = windows.update([("open", 4), ("exec", 2)], 40);
        let skipped = [("open".into(), 1), ("exec".into(), 2)].into();
        assert_eq!(window, Some(BlindWindow { from: 30, until: 40, skipped }));
    }
}
