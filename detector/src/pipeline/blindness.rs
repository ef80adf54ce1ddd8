//! Windows of time in which the kernel has skipped calls of a program.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// A window of time in which calls were skipped.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BlindWindow {
    /// When the calls were last counted before, in nanoseconds of the kernel's time since boot.
    pub(super) from: u64,
    /// When they were counted.
    pub(super) until: u64,
    /// How many calls of each program were skipped in between.
    pub(super) skipped: BTreeMap<Cow<'static, str>, u64>,
}

/// How many calls of each program had been skipped when that was last asked.
#[derive(Debug)]
pub(super) struct BlindWindows {
    counted: u64,
    counts: BTreeMap<&'static str, u64>,
}

impl BlindWindows {
    /// At this time since boot, in nanoseconds, none had been skipped.
    pub(super) fn new(since: u64) -> Self {
        Self { counted: since, counts: BTreeMap::new() }
    }

    /// Takes in how many were skipped until `now`, and gives the window if there are more than before.
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
    fn a_window_has_what_was_skipped_since_the_last_count() {
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
