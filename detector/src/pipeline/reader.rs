//! The reader thread: handles events as they arrive, and regularly checks for lost events.

use std::collections::BTreeSet;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use detector_common::map::CountedKey;
use detector_common::vocabulary::Loss;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Options;
use super::blindness::BlindWindows;
use super::intake::Intake;
use super::losses::Losses;
use super::orders::{Order, Ordered};
use super::outlet::{Message, Outlet};
use super::pulse::Pulse;
use super::threads::{Error, Flag};
use crate::clock;
use crate::event::{Event, TamperingAct};
use crate::finding::NoticeEvent;
use crate::memory;
use crate::policy::Policy;
use crate::runtime::Unwatching;
use crate::sensor::plan::EXIT_PROGRAMS;
use crate::sensor::{self, Decoded, Retest, Sensor};

/// How often lost events are checked for while records arrive, or when the last check found some. The probes lose
/// records only when the ring buffer is full, and then there are records to read.
const BUSY: Duration = Duration::from_secs(1);
/// How often lost events are checked for otherwise, and how often the kernel is asked for skipped calls.
const QUIET: Duration = Duration::from_secs(10);
/// How soon the self-test is repeated to confirm a worse result.
const SOON: Duration = Duration::from_secs(30);
/// How many records are handled at most before the next check for lost events.
const BATCH: usize = 4096;
/// After how many records memory is returned to the system as soon as it is quiet, and not only [now and
/// then](memory::INTERVAL).
const MANY: u64 = 4096;
/// After how many records the probes are told what they are to count.
const FEW: usize = 64;

/// The state of the reader thread.
pub(super) struct Reader<S> {
    sensor: Sensor,
    intake: Intake,
    outlet: Outlet<S>,
    /// Raised to stop the thread.
    stop: Flag,
    ordered: Ordered,
    unwatching: Arc<Unwatching>,
    /// The [changes](Unwatching::changes) that the probes know of.
    told_changes: u64,
    /// What the probes know that they are to count.
    told_counted: BTreeSet<CountedKey>,
    /// The losses that were already reported.
    losses: Losses,
    blind_windows: BlindWindows,
    /// The number of records that could not be decoded.
    undecoded: u64,
    /// The number of records since memory was returned to the system, and when that is to be done.
    since_release: u64,
    release_at: Instant,
    /// Whether another process has changed the maps of the probes.
    must_refill: bool,
    pulse: Pulse,
    /// When all hooks were last seen to fire.
    proven: Instant,
    schedule: Schedule,
}

impl<S: FnMut(Message)> Reader<S> {
    /// `stop` is raised to stop the thread.
    pub(super) fn new(
        mut sensor: Sensor,
        options: Options,
        mut outlet: Outlet<S>,
        (stop, ordered): (Flag, Ordered),
    ) -> Result<Self, Error> {
        let (test_interval, unwatching) = (options.test_interval, Arc::clone(&options.unwatching));
        let intake = Intake::start(&mut sensor, options, &mut outlet)?;
        Ok(Self {
            sensor,
            intake,
            outlet,
            stop,
            ordered,
            unwatching,
            told_changes: 0,
            told_counted: BTreeSet::new(),
            losses: Losses::default(),
            blind_windows: BlindWindows::new(clock::since_boot()),
            undecoded: 0,
            since_release: 0,
            // The start has needed much.
            release_at: Instant::now(),
            must_refill: false,
            pulse: Pulse::new(Instant::now()),
            proven: Instant::now(),
            schedule: Schedule::new(Instant::now(), test_interval),
        })
    }

    /// Runs until it is stopped, then handles the remaining records.
    pub(super) fn run(mut self) {
        while self.wait() {
            self.outlet.count_turn();
            self.intake.follow_wall_clock();
            self.drain();
            self.intake.take_contents(&mut self.outlet);
            self.intake.take_time(&mut self.outlet);
            let now = Instant::now();
            if now >= self.schedule.losses_due() {
                self.do_housekeeping(now >= self.schedule.skipped_calls_due());
            }
            if now >= self.schedule.test_due() {
                self.test_again();
            }
        }
        // Later events are not reported: on a busy node the loop might never end.
        let stopped = clock::since_boot();
        while self.take_record().is_some_and(|time| time <= stopped) {}
        self.take_counts();
        self.intake.take_last_contents(&mut self.outlet);
        self.intake.stop(&mut self.outlet);
        self.do_housekeeping(true);
    }

    /// Waits until there is work to do. Returns `false` if the thread must stop.
    fn wait(&mut self) -> bool {
        self.note_pause(Duration::ZERO);
        let fds = [self.stop.as_fd(), self.sensor.as_fd(), self.intake.contents_ready(), self.ordered.as_fd()];
        let mut fds = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        let left = if self.sensor.has_backlog() {
            Duration::ZERO
        } else {
            let due = self.intake.contents_due().into_iter().chain([self.schedule.next()]).min();
            let left = due.unwrap_or_else(Instant::now).saturating_duration_since(Instant::now());
            self.intake.time_left().map_or(left, |until| left.min(until))
        };
        let limit = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        let goes_on = match poll(&mut fds, Some(&limit)) {
            Ok(_) => {
                if !fds[3].revents().is_empty() {
                    self.ordered.lower();
                }
                fds[0].revents().is_empty()
            }
            Err(rustix::io::Errno::INTR) => true,
            Err(error) => {
                tracing::error!(%error, "cannot wait for records; trying again in 100 ms");
                std::thread::sleep(Duration::from_millis(100));
                true
            }
        };
        self.note_pause(left);
        goes_on
    }

    /// Reports it if this process did not run although it should have. It may have waited for this long.
    fn note_pause(&mut self, waited: Duration) {
        let pause = self.pulse.beat(Instant::now(), waited);
        self.report_pause(pause);
    }

    fn report_pause(&mut self, pause: Option<Duration>) {
        let Some(pause) = pause else { return };
        let now = clock::since_boot();
        let from = now.saturating_sub(u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX));
        let (from, until) = (self.intake.wall(from), self.intake.wall(now));
        self.notice(NoticeEvent::Paused { from, until });
    }

    fn carry_out_orders(&mut self) {
        while let Some(order) = self.ordered.take() {
            match order {
                Order::Policy(policy) => self.set_policy(policy),
                Order::Notice(event) => self.notice(event),
                Order::TestAlert(alert) => self.intake.test_alert(alert, &mut self.outlet),
            }
        }
        if self.unwatching.changes() != self.told_changes {
            self.tell_unwatched();
        }
    }

    /// Judges what happens from now on by another policy. What the probes send is for this policy to decide about, so
    /// they send everything again before it holds.
    fn set_policy(&mut self, policy: Policy) {
        self.set_unwatched(&BTreeSet::new());
        self.set_counted(BTreeSet::new());
        self.intake.set_policy(policy, &mut self.outlet);
        self.tell_unwatched();
    }

    /// Tells the probes which containers are not watched. What makes a container watched goes through this thread, so
    /// that none is told to be unwatched that is not any more.
    fn tell_unwatched(&mut self) {
        // If they change meanwhile, the number is another one, and they are told again.
        self.told_changes = self.unwatching.changes();
        let containers = self.unwatching.containers();
        self.intake.unwatch(containers.iter().copied().filter(|id| !self.sensor.is_unwatched(*id)).collect());
        self.set_unwatched(&containers);
    }

    fn set_unwatched(&mut self, containers: &BTreeSet<u64>) {
        if self.sensor.set_unwatched(containers) {
            self.outlet.tested(self.sensor.report().clone());
        }
    }

    /// Tells the probes which files they are to count.
    fn tell_counted(&mut self) {
        if let Some(wanted) = self.intake.wanted_counts(&self.told_counted) {
            self.set_counted(wanted);
        }
    }

    fn set_counted(&mut self, wanted: BTreeSet<CountedKey>) {
        match self.sensor.set_counted(&wanted) {
            Ok(()) => self.told_counted = wanted,
            Err(error) => tracing::warn!(%error, "the probes still count some files that they should report; trying \
                again"),
        }
    }

    /// Takes what the probes have counted.
    fn take_counts(&mut self) {
        if !self.sensor.is_counting() {
            return;
        }
        self.schedule.mark_busy();
        match self.sensor.take_counts() {
            Ok(counts) => {
                self.outlet.count_counted(counts.iter().map(|(_, count)| count.files).sum());
                self.intake.take_counts(&counts, &mut self.outlet);
            }
            Err(error) => tracing::error!(%error, "cannot read what the probes have counted; trying again"),
        }
    }

    /// Tells the probes what they are to count, and others how full the buffers are.
    fn keep_pace(&mut self) {
        self.tell_counted();
        self.outlet.set_buffer(self.sensor.buffer());
    }

    /// Handles the available records, [`BATCH`] at most.
    fn drain(&mut self) {
        for number in 0..BATCH {
            self.carry_out_orders();
            // A flood must not go on as long as a batch.
            if number % FEW == 0 {
                self.keep_pace();
            }
            if self.take_record().is_none() {
                self.keep_pace();
                self.pulse.set_drained(true);
                return;
            }
            self.schedule.mark_busy();
        }
    }

    /// Handles the next record, and returns the time of its event, or 0 if it could not be decoded.
    fn take_record(&mut self) -> Option<u64> {
        let decoded = self.sensor.next_event()?;
        self.outlet.count_event();
        self.since_release += 1;
        if self.since_release == MANY {
            self.release_at = Instant::now();
        }
        let time = decoded.as_ref().map_or(0, |event| event.time());
        if time != 0 {
            let pause = self.pulse.read(|| Duration::from_nanos(clock::since_boot().saturating_sub(time)));
            self.report_pause(pause);
        }
        self.take_event(decoded);
        Some(time)
    }

    fn take_event(&mut self, decoded: Decoded) {
        match decoded {
            Ok(event) => {
                self.must_refill |= matches!(&event, Event::Tampering(done)
                    if matches!(done.act, TamperingAct::MapChange { .. }));
                // An event that happened after the clock was set gets the new time, even if others are read with it.
                self.intake.follow_wall_clock();
                self.intake.take_event(event, &mut self.sensor, &mut self.outlet);
            }
            Err(error) => {
                if self.undecoded == 0 {
                    tracing::error!(%error, "cannot decode a record from the kernel; further ones are counted as lost, \
                        not logged");
                }
                self.undecoded += 1;
            }
        }
    }

    /// Reports lost events and, if `with_skipped_calls`, skipped calls, and frees the probes' state of what has gone.
    fn do_housekeeping(&mut self, with_skipped_calls: bool) {
        #[cfg(feature = "probe-log")]
        self.sensor.pass_on_log();
        let now = Instant::now();
        if self.release_at <= now && !self.schedule.is_busy() {
            (self.since_release, self.release_at) = (0, now + memory::INTERVAL);
            memory::release();
        }
        match self.report_losses() {
            Ok(has_lost) => self.schedule.mark_losses_reported(now, has_lost),
            Err(error) => {
                tracing::error!(%error, "cannot read the loss counters of the probes");
                self.schedule.mark_losses_reported(now, true);
            }
        }
        self.take_counts();
        if std::mem::take(&mut self.must_refill) {
            self.refill();
        }
        if self.sensor.report().unwatching.is_err() {
            self.tell_unwatched();
        }
        if with_skipped_calls {
            self.schedule.mark_skipped_calls_reported(now);
            self.report_skipped_calls();
        }
        if let Some(ended) = self.intake.containers().take_ended() {
            match self.sensor.sweep(&ended) {
                Ok(living) => self.intake.sweep(&living),
                Err(error) => tracing::error!(%error, "cannot remove what has gone from the BPF maps"),
            }
        }
    }

    /// Fills the maps of the probes again, because another process has changed some.
    fn refill(&mut self) {
        let refilled = self.sensor.refill();
        self.tell_unwatched();
        match refilled {
            Ok(()) => self.notice(NoticeEvent::Healed {
                what: "another process called bpf(2) to change maps of the probes; they were filled again".to_owned(),
            }),
            Err(error) => {
                tracing::error!(%error, "cannot fill the maps of the probes again; trying again");
                self.must_refill = true;
            }
        }
    }

    /// Publishes a notice about the sensor.
    fn notice(&mut self, event: NoticeEvent) {
        self.intake.notice(event, &mut self.outlet);
    }

    /// Repeats the self-test, which tells whether somebody has switched the probes off. Hooks that do not fire are
    /// attached again. A worse result is reported only if a second test confirms it, because a busy host can disturb a
    /// test.
    fn test_again(&mut self) {
        self.note_pause(Duration::ZERO);
        let started = Instant::now();
        self.outlet.set_testing_since(clock::since_boot());
        let Retest { healed, result } = self.sensor.test_again();
        self.outlet.set_testing_since(0);
        let took = started.elapsed();
        self.pulse = Pulse::new(Instant::now());
        if !healed.is_empty() {
            self.notice(NoticeEvent::Healed {
                what: format!(
                    "hooks did not fire any more and were attached again ({}); what they see may have been missed for \
                    up to {} s",
                    healed.join(", "),
                    self.proven.elapsed().as_secs()
                ),
            });
        }
        if result.is_ok() && self.sensor.report().is_complete() {
            self.proven = Instant::now();
        }
        tracing::debug!(?took, "repeated the self-test");
        let next = self.schedule.mark_tested(Instant::now(), result.is_ok());
        match result {
            Ok(false) => {}
            Ok(true) => {
                let undetected = self.sensor.report().undetected();
                undetected.iter().for_each(|reason| tracing::warn!("{reason}"));
                if undetected.is_empty() {
                    tracing::info!("the self-test saw the hooks fire again");
                }
                self.outlet.tested(self.sensor.report().clone());
            }
            Err(why) => tracing::warn!("the self-test failed: {why}; it is repeated in {next:?} to confirm this"),
        }
    }

    /// Reports the losses since the last call. Returns whether the probes have kept short versions of some of the lost
    /// events.
    fn report_losses(&mut self) -> Result<bool, sensor::Error> {
        let losses =
            Losses { kernel: self.sensor.losses()?, undecoded: self.undecoded, analysis: self.intake.losses() };
        let new = losses.since(&self.losses);
        self.losses = losses;
        for &(kind, count) in &new {
            self.notice(NoticeEvent::loss(kind, count));
        }
        let is_new = |wanted: Loss| new.iter().any(|&(kind, _)| kind == wanted);
        if is_new(Loss::Cgroup) {
            self.intake.remove_missing(clock::since_boot(), &mut self.outlet);
        }
        if is_new(Loss::SeenFull) {
            self.intake.containers().sweep_soon();
        }
        // The probes count a lost event before they store its short version, so a version that is missing now is found
        // the next time.
        let is_kept = is_new(Loss::Exec) || is_new(Loss::ImageWrite);
        if is_kept || self.schedule.has_lost() {
            for event in self.sensor.take_kept_events()? {
                self.take_event(event);
            }
        }
        Ok(is_kept)
    }

    /// Reports the calls that the kernel skipped since the last check.
    fn report_skipped_calls(&mut self) {
        let counts = match self.sensor.skipped_calls() {
            Ok(counts) => counts,
            Err(error) => return tracing::error!(%error, "cannot read the numbers of skipped calls from the kernel"),
        };
        if let Some(window) = self.blind_windows.update(counts, clock::since_boot()) {
            // Sessions can have ended unseen.
            if EXIT_PROGRAMS.iter().any(|program| window.skipped.contains_key(*program)) {
                self.intake.containers().sweep_soon();
            }
            let (from, until) = (self.intake.wall(window.from), self.intake.wall(window.until));
            self.notice(NoticeEvent::BlindWindow { from, until, skipped: window.skipped });
        }
    }
}

/// Decides when to check for lost events.
#[derive(Debug)]
struct Schedule {
    losses_reported: Instant,
    skipped_calls_reported: Instant,
    test_interval: Duration,
    test_due: Instant,
    /// Whether records have arrived since the last check.
    is_busy: bool,
    /// Whether the last check found losses of events that the probes keep short versions of.
    has_lost: bool,
}

impl Schedule {
    fn new(now: Instant, test_interval: Duration) -> Self {
        Self {
            losses_reported: now,
            skipped_calls_reported: now,
            test_interval,
            test_due: now + test_interval,
            is_busy: true,
            has_lost: false,
        }
    }

    /// The time of the next regular work.
    fn next(&self) -> Instant {
        self.losses_due().min(self.test_due)
    }

    fn losses_due(&self) -> Instant {
        self.losses_reported + if self.is_busy() { BUSY } else { QUIET }
    }

    fn skipped_calls_due(&self) -> Instant {
        self.skipped_calls_reported + QUIET
    }

    fn test_due(&self) -> Instant {
        self.test_due
    }

    /// Schedules the next test, and returns the time until then.
    fn mark_tested(&mut self, now: Instant, is_certain: bool) -> Duration {
        let next = if is_certain { self.test_interval } else { SOON.min(self.test_interval) };
        self.test_due = now + next;
        next
    }

    fn has_lost(&self) -> bool {
        self.has_lost
    }

    fn is_busy(&self) -> bool {
        self.is_busy || self.has_lost
    }

    fn mark_busy(&mut self) {
        self.is_busy = true;
    }

    fn mark_losses_reported(&mut self, now: Instant, has_lost: bool) {
        (self.losses_reported, self.is_busy, self.has_lost) = (now, false, has_lost);
    }

    fn mark_skipped_calls_reported(&mut self, now: Instant) {
        self.skipped_calls_reported = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_checked_often_while_records_arrive_and_seldom_otherwise() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now, 100 * QUIET);
        schedule.mark_losses_reported(now, false);
        assert_eq!((schedule.losses_due(), schedule.is_busy()), (now + QUIET, false));
        schedule.mark_busy();
        assert_eq!((schedule.losses_due(), schedule.is_busy()), (now + BUSY, true));
        schedule.mark_losses_reported(now, true);
        assert_eq!(schedule.losses_due(), now + BUSY);
        assert_eq!(schedule.skipped_calls_due(), now + QUIET);

        assert_eq!(schedule.test_due(), now + 100 * QUIET);
        schedule.mark_tested(now, false);
        assert_eq!(schedule.test_due(), now + SOON);
        schedule.mark_tested(now, true);
        assert_eq!((schedule.test_due(), schedule.next()), (now + 100 * QUIET, now + BUSY));
    }
}
