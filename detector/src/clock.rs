//! Reads the clock of the kernel's records, and measures its offset from the wall clock.
//!
//! The kernel's records have its own time since boot (`ktime_get_boot_ns`). A process in a time namespace can see
//! another `CLOCK_BOOTTIME` (time_namespaces(7)), and other start times in /proc/PID/stat. This module converts both to
//! the kernel's time.

use std::fs;
use std::sync::OnceLock;

use rustix::time::ClockId;

/// The change of the offset that counts as a change of the wall clock, in nanoseconds. A smaller change may be an error
/// of the measurement.
const STEP: i64 = 1_000_000;
/// The maximum time between two clock readings of a valid measurement, in nanoseconds.
const PROMPT: i64 = 100_000;

/// The kernel's time since boot, in nanoseconds.
pub(crate) fn since_boot() -> u64 {
    u64::try_from(read(ClockId::Boottime) - namespace_offset()).unwrap_or(0)
}

/// The offset that this process's time namespace adds to the kernel's time since boot, in nanoseconds. It is read once,
/// because it cannot change: a process with several threads cannot enter another time namespace, and the offsets of a
/// namespace are fixed once a process is in it.
pub(crate) fn namespace_offset() -> i64 {
    static OFFSET: OnceLock<i64> = OnceLock::new();
    *OFFSET.get_or_init(|| {
        // A kernel without CONFIG_TIME_NS does not have this file. The file describes the namespace of this process's
        // future children, which is its own unless it has just created another one for them.
        let offsets = fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
        let is_own = fs::read_link("/proc/self/ns/time").ok() == fs::read_link("/proc/self/ns/time_for_children").ok();
        if is_own { boottime_offset(&offsets) } else { 0 }
    })
}

/// Parses the offset of `CLOCK_BOOTTIME` from a timens_offsets file, in nanoseconds. A line of the file has the name of
/// the clock, seconds and nanoseconds.
fn boottime_offset(text: &str) -> i64 {
    let offset = text.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        if fields.next()? != "boottime" {
            return None;
        }
        let (seconds, nanoseconds): (i64, i64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
    });
    offset.unwrap_or(0)
}

/// The offset of the wall clock from the time since boot. It follows changes of the wall clock.
#[derive(Debug)]
pub(crate) struct WallClock {
    ahead: i64,
}

impl WallClock {
    /// Measures the current offset.
    pub(crate) fn read() -> Self {
        Self { ahead: measure() }
    }

    /// The number of nanoseconds to add to a time since boot to get wall-clock time.
    pub(crate) fn ahead(&self) -> i64 {
        self.ahead
    }

    /// Measures again. Returns the new offset if the wall clock was changed.
    pub(crate) fn follow(&mut self) -> Option<i64> {
        self.adopt(measure())
    }

    fn adopt(&mut self, measured: i64) -> Option<i64> {
        let has_moved = measured.abs_diff(self.ahead) >= STEP.unsigned_abs();
        has_moved.then(|| {
            self.ahead = measured;
            measured
        })
    }
}

/// Measures how far the wall clock is ahead of the kernel's time since boot, in nanoseconds.
fn measure() -> i64 {
    let once = || {
        let before = read(ClockId::Boottime);
        let wall = read(ClockId::Realtime);
        let took = read(ClockId::Boottime) - before;
        (took, wall - before - took / 2 + namespace_offset())
    };
    // The thread can be preempted between two readings, so this tries several times and uses the best measurement.
    let mut best = once();
    for _ in 0..8 {
        if best.0 <= PROMPT {
            break;
        }
        best = best.min(once());
    }
    best.1
}

fn read(clock: ClockId) -> i64 {
    let time = rustix::time::clock_gettime(clock);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_of_time_namespaces_are_read() {
        assert_eq!(boottime_offset("monotonic           0         0\nboottime            0         0\n"), 0);
        assert_eq!(boottime_offset("monotonic  5 0\nboottime  864000  7\n"), 864_000_000_000_007);
        assert_eq!(boottime_offset("monotonic 5 0\nboottime -1 500000000\n"), -500_000_000);
        for odd in ["", "boottime", "boottime x 0", "boottime 9223372036854775807 0", "monotonic 1 1"] {
            assert_eq!(boottime_offset(odd), 0, "{odd:?}");
        }
    }

    #[test]
    fn changes_of_the_wall_clock_are_followed() {
        let mut clock = WallClock { ahead: 1_000_000_000 };
        assert_eq!(clock.adopt(1_000_000_000 + STEP - 1), None);
        assert_eq!(clock.adopt(1_000_000_000 - STEP), Some(1_000_000_000 - STEP));
        assert_eq!(clock.ahead(), 1_000_000_000 - STEP);
        assert_eq!(clock.adopt(3_600_000_000_000), Some(3_600_000_000_000));
    }

    #[test]
    fn the_clocks_of_this_machine_are_read() {
        let clock = WallClock::read();
        assert!(clock.ahead() > 0, "this machine was booted before 1970");
        let wall = i128::from(since_boot()) + i128::from(clock.ahead());
        let now = jiff::Timestamp::now().as_nanosecond();
        assert!((now - wall).abs() < 1_000_000_000, "{wall} is not {now}");
    }

    #[test]
    fn a_time_namespace_does_not_shift_the_time_since_boot() {
        let test = std::env::current_exe().expect("this is a program");
        let before = since_boot();
        let output = std::process::Command::new("unshare")
            .args(["--time", "--boottime", "86400"])
            .arg(test)
            .args(["--exact", "clock::tests::print_the_time", "--ignored", "--nocapture"])
            .output();
        // Not every machine has unshare(1), and not every user may create namespaces.
        let Ok(output) = output else { return };
        if !output.status.success() {
            return eprintln!("not tested: {}", String::from_utf8_lossy(&output.stderr));
        }
        let after = since_boot();
        let text = String::from_utf8_lossy(&output.stdout);
        let times = text.lines().find_map(|line| line.split_once("times: ")).expect("it shows the times").1;
        let times: Vec<u64> = times.split(' ').map(|time| time.parse().expect("a number")).collect();
        let [started, now] = times[..] else { panic!("{times:?}") };
        assert!(before <= now && now <= after, "{before} {now} {after}");
        // Start times have a resolution of 10 ms.
        assert!(before <= started + 10_000_000 && started <= now, "{before} {started} {now}");
    }

    #[test]
    #[ignore = "a_time_namespace_does_not_shift_the_time_since_boot runs this in a time namespace"]
    fn print_the_time() {
        let stat = crate::procfs::Process::open("self").and_then(|this| this.read("stat")).expect("it can be read");
        let started = crate::procfs::Stat::parse(&stat).expect("it has the kernel's form").start_time();
        println!("times: {} {}", started.nanoseconds(), since_boot());
    }
}
