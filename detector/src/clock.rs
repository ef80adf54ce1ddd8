//! The clock of the kernel's records, and how far the wall clock is from it.
//!
//! Records carry the kernel's own time since boot (`ktime_get_boot_ns`). A process in a time namespace sees another
//! `CLOCK_BOOTTIME` (time_namespaces(7)), also in the start times of /proc/PID/stat. Here both are the kernel's.

use std::fs;
use std::sync::OnceLock;

use rustix::time::ClockId;

/// How far the wall clock has to move against the time since boot to be set anew, in nanoseconds: what is below may be an
/// error of the measurement.
const STEP: i64 = 1_000_000;
/// How long reading the clocks one after the other may take, in nanoseconds, so that the result is believed.
const PROMPT: i64 = 100_000;

/// The kernel's time since boot, in nanoseconds.
pub(crate) fn since_boot() -> u64 {
    u64::try_from(read(ClockId::Boottime) - namespace_offset()).unwrap_or(0)
}

/// What the time namespace of this process adds to the kernel's time since boot, in nanoseconds. It is read once: a
/// process with several threads cannot enter another time namespace, and the offsets of one are fixed once it is in use.
pub(crate) fn namespace_offset() -> i64 {
    static OFFSET: OnceLock<i64> = OnceLock::new();
    *OFFSET.get_or_init(|| {
        // Without CONFIG_TIME_NS there are none. The file is about the namespace of this process's
        // children, in which it is itself unless it has just made one for them.
        let offsets = fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
        let is_own = fs::read_link("/proc/self/ns/time").ok() == fs::read_link("/proc/self/ns/time_for_children").ok();
        if is_own { boottime_offset(&offsets) } else { 0 }
    })
}

/// The offset of `CLOCK_BOOTTIME` in the text of a timens_offsets file, in nanoseconds: lines of the clock's name, seconds
/// and nanoseconds.
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

/// How far the wall clock is ahead of the time since boot. It follows the wall clock when that is set or slewed.
#[derive(Debug)]
pub(crate) struct WallClock {
    ahead: i64,
}

impl WallClock {
    /// As it is now.
    pub(crate) fn read() -> Self {
        Self { ahead: measure() }
    }

    /// What to add to a time since boot to get one of the wall clock, in nanoseconds.
    pub(crate) fn ahead(&self) -> i64 {
        self.ahead
    }

    /// Looks at the clocks again, and gives the new distance if the wall clock has moved.
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
    // Between two readings the thread can be preempted. One that was not will do, or else the best of some.
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
    fn the_wall_clock_is_followed_when_it_moves() {
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
            .args(["--exact", "clock::tests::the_time_is_shown", "--ignored", "--nocapture"])
            .output();
        // Not every machine has the program, nor every user the right to make namespaces.
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
        // Start times are shown in hundredths of a second.
        assert!(before <= started + 10_000_000 && started <= now, "{before} {started} {now}");
    }

    #[test]
    #[ignore = "the test above runs it, in a time namespace"]
    fn the_time_is_shown() {
        let stat = crate::procfs::Process::open("self").and_then(|this| this.read("stat")).expect("it can be read");
        let started = crate::procfs::Stat::parse(&stat).expect("it has the kernel's form").start_time();
        println!("times: {} {}", started.nanoseconds(), since_boot());
    }
}
