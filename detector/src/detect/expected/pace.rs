//! At what pace a command is run in a container.

use super::super::pace::SECOND;
use crate::recent::Recent;

/// How many commands are remembered at most.
const MOST: usize = 2048;
/// How many times in a row a command must have kept its pace to be steady.
const TIMES: u64 = 5;

/// The shortest and the longest interval of a steady pace.
const SHORTEST: u64 = SECOND;
const LONGEST: u64 = 3600 * SECOND;

/// The runs of a command at the same pace.
#[derive(Clone, Copy, Debug)]
struct Runs {
    first: u64,
    last: u64,
    /// How many intervals there are between these.
    intervals: u64,
}

/// The commands that were run from outside, by container.
#[derive(Debug)]
pub(super) struct Paces(Recent<(u64, Vec<Vec<u8>>), Runs>);

impl Default for Paces {
    fn default() -> Self {
        Self(Recent::new(MOST))
    }
}

impl Paces {
    /// Records that a command is run in the container with this cgroup, in nanoseconds since boot. Returns whether it
    /// has kept a steady pace until now: each interval differs from the average of those before by at most a fifth, or
    /// by a second.
    pub(super) fn run(&mut self, cgroup: u64, args: &[Vec<u8>], now: u64) -> bool {
        let key = (cgroup, args.to_vec());
        let runs = match self.0.get(&key) {
            None => Runs { first: now, last: now, intervals: 0 },
            Some(&Runs { first, last, intervals }) => {
                let interval = now.saturating_sub(last);
                let average = last.saturating_sub(first).checked_div(intervals).unwrap_or(interval);
                let is_kept = interval.abs_diff(average) <= SECOND.max(average / 5);
                match is_kept && (SHORTEST..=LONGEST).contains(&interval) {
                    true => Runs { first, last: now, intervals: intervals + 1 },
                    false => Runs { first: last, last: now, intervals: 1 },
                }
            }
        };
        self.0.insert(key, runs);
        // The first interval is the one that the others keep.
        runs.intervals > TIMES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the command is steady at each of these times, in tenths of a second.
    fn steady(times: &[u64]) -> Vec<bool> {
        let mut paces = Paces::default();
        times.iter().map(|time| paces.run(1, &[b"true".to_vec()], time * SECOND / 10)).collect()
    }

    #[test]
    fn a_pace_must_be_kept() {
        // The first interval keeps nothing yet.
        let times: Vec<_> = (1..=8).map(|nth| nth * 100).collect();
        assert_eq!(steady(&times), [false, false, false, false, false, false, true, true]);
        // A run in between, by somebody else.
        assert_eq!(steady(&[&times[..], &[840, 900, 1000]].concat())[8..], [false, false, false]);
        // It wavers a little.
        assert!(steady(&[100, 200, 303, 400, 501, 598, 700])[6]);
        assert!(!steady(&[100, 200, 303, 400, 501, 598, 760])[6]);
        // Too fast, or too slow.
        for pace in [5, 40_000] {
            assert!(!steady(&(1..20).map(|nth| nth * pace).collect::<Vec<_>>()).contains(&true), "{pace}");
        }
    }

    #[test]
    fn each_command_of_each_container_has_a_pace() {
        let mut paces = Paces::default();
        for nth in 0..20 {
            let (cgroup, args) = (nth % 2, vec![vec![b'0' + (nth / 2 % 4) as u8]]);
            assert!(!paces.run(cgroup, &args, nth * 10 * SECOND) || nth > 7 * 8);
        }
    }
}
