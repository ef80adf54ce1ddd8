//! Finds out what the analysis must be told, and tells it: each thing in a turn, in which it is recorded first.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use detector_common::map::{Count, CountedKey};
use detector_common::vocabulary::Loss;

use super::Options;
use super::analysis::Analysis;
use super::containers::Containers;
use super::input::{Input, Ran, Start};
use super::inspection::{Inspected, Inspector};
use super::outlet::{Message, Outlet};
use super::threads::Error;
use crate::clock::{self, WallClock};
use crate::detect::{TestAlert, content_by_name};
use crate::event::{Event, Origin};
use crate::finding::{Notice, NoticeEvent, Time};
use crate::policy::Policy;
use crate::recording::{Journal, Turn};
use crate::sensor::Sensor;

/// The analysis, and what knows more than the events tell.
pub(super) struct Intake {
    analysis: Analysis,
    inspector: Inspector,
    /// Why executed files are not inspected, as it was reported last.
    inspection_failure: Option<String>,
    wall_clock: WallClock,
    journal: Journal,
}

impl Intake {
    /// Starts the analysis with the containers and processes that already ran when the sensor started.
    pub(super) fn start(
        sensor: &mut Sensor,
        options: Options,
        outlet: &mut Outlet<impl FnMut(Message)>,
    ) -> Result<Self, Error> {
        let Options { node, redactor, journal, is_counting, policy, .. } = options;
        let wall_clock = WallClock::read();
        let host = &sensor.report().host;
        let boot_id = host.boot_id.clone();
        let start = Start { node, boot_id, ahead: wall_clock.ahead(), redactor, is_counting, policy };
        let hierarchy = host.hierarchy.clone();
        let mut turn = journal.turn();
        turn.record(Input::Start(Cow::Borrowed(&start)).entry());
        let mut analysis = Analysis::new(start, hierarchy);
        let now = clock::since_boot();
        for running in sensor.take_running().containers {
            let running = Ran::new(running, now);
            turn.record(Input::Running(Cow::Borrowed(&running)).entry());
            analysis.add_running(running, outlet);
        }
        drop(turn);
        let inspector = Inspector::start()?;
        Ok(Self { analysis, inspector, inspection_failure: None, wall_clock, journal })
    }

    /// Takes an event.
    pub(super) fn take_event(&mut self, event: Event, sensor: &mut Sensor, outlet: &mut Outlet<impl FnMut(Message)>) {
        let journal = self.journal.clone();
        let mut turn = journal.turn();
        self.find_cgroups(&event, &mut turn);
        let (root_dev, serving) = match &event {
            Event::Exec(exec) if exec.process.origin == Origin::Entrypoint => {
                (sensor.root_dev(exec.at.container), sensor.serving_sign())
            }
            _ => (None, None),
        };
        turn.record(Input::Event { event: Cow::Borrowed(&event), root_dev, serving }.entry());
        if let Some(content) = content_by_name(&event) {
            self.inspector.learn(&event, content);
        }
        let Some((event, wanted)) = self.analysis.take_event(event, root_dev, serving, outlet) else { return };
        let containers = self.analysis.containers();
        let path = event.at().map_or_else(Vec::new, |at| containers.lookup(at.container).path.clone());
        if let Some(inspected) = self.inspector.inspect(event, wanted, || containers.directory(&path)) {
            self.take_content(&inspected, &mut turn, outlet);
        }
    }

    /// Finds the cgroups of an event that the analysis does not know.
    fn find_cgroups(&mut self, event: &Event, turn: &mut Turn<'_>) {
        let moved_to = match event {
            Event::CgroupEscape(escape) if escape.cgroup.is_empty() => Some(escape.at.cgroup),
            _ => None,
        };
        for id in event.at().map(|at| at.container).into_iter().chain(moved_to) {
            if let Some(cgroup) = self.analysis.containers().find(id) {
                turn.record(Input::Cgroup(Cow::Borrowed(&cgroup)).entry());
                self.analysis.containers().add(cgroup);
            }
        }
    }

    /// Takes all files that the inspector has finished since the last call.
    pub(super) fn take_contents(&mut self, outlet: &mut Outlet<impl FnMut(Message)>) {
        self.inspector.reset();
        self.inspector.abandon_stuck();
        while let Some(inspected) = self.inspector.next_inspected() {
            self.take_content(&inspected, &mut self.journal.clone().turn(), outlet);
        }
        let failure = self.inspector.failure();
        if failure != self.inspection_failure {
            self.inspection_failure.clone_from(&failure);
            outlet.inspection_failure(failure);
        }
    }

    /// Like [`take_contents`](Self::take_contents), but for the end: waits for the inspections that are still running.
    pub(super) fn take_last_contents(&mut self, outlet: &mut Outlet<impl FnMut(Message)>) {
        let since = Instant::now();
        while let Some(inspected) = self.inspector.last_inspected(since) {
            self.take_content(&inspected, &mut self.journal.clone().turn(), outlet);
        }
    }

    fn take_content(&mut self, inspected: &Inspected, turn: &mut Turn<'_>, outlet: &mut Outlet<impl FnMut(Message)>) {
        let Some(at) = inspected.event.at() else { return };
        self.find_cgroups(&inspected.event, turn);
        turn.record(Input::content(at, inspected).entry());
        self.analysis.take_content(inspected, outlet);
    }

    /// When [`take_contents`](Self::take_contents) must be called, at the latest.
    pub(super) fn contents_due(&self) -> Option<Instant> {
        self.inspector.due()
    }

    /// A descriptor that becomes readable when contents can be [taken](Self::take_contents).
    pub(super) fn contents_ready(&self) -> BorrowedFd<'_> {
        self.inspector.ready()
    }

    /// The files that the probes are to count and not to report, if these are not what they know.
    pub(super) fn wanted_counts(&self, known: &BTreeSet<CountedKey>) -> Option<BTreeSet<CountedKey>> {
        self.analysis.wanted_counts(known)
    }

    /// Takes what the probes have counted.
    pub(super) fn take_counts(&mut self, counts: &[(CountedKey, Count)], outlet: &mut Outlet<impl FnMut(Message)>) {
        let time = clock::since_boot();
        let mut turn = self.journal.turn();
        turn.record(Input::Counted { time, counts: Cow::Borrowed(counts) }.entry());
        self.analysis.take_counts(counts, time, outlet);
    }

    /// Publishes what is due.
    pub(super) fn take_time(&mut self, outlet: &mut Outlet<impl FnMut(Message)>) {
        let now = clock::since_boot();
        if self.analysis.time_left(now) == Some(Duration::ZERO) {
            let mut turn = self.journal.turn();
            turn.record(Input::Time(now).entry());
            self.analysis.take_time(now, outlet);
        }
    }

    /// How long it is until [`take_time`](Self::take_time) must be called.
    pub(super) fn time_left(&self) -> Option<Duration> {
        self.analysis.time_left(clock::since_boot())
    }

    /// Publishes what waits for its time, because the pipeline stops.
    pub(super) fn stop(&mut self, outlet: &mut Outlet<impl FnMut(Message)>) {
        let now = clock::since_boot();
        let mut turn = self.journal.turn();
        turn.record(Input::Stop(now).entry());
        self.analysis.stop(now, outlet);
    }

    /// Ends the sessions of which no process is left. `living` has the first processes of those with any.
    pub(super) fn sweep(&mut self, living: &HashSet<(u32, u64)>) {
        let time = clock::since_boot();
        let mut turn = self.journal.turn();
        let mut sorted: Vec<_> = living.iter().copied().collect();
        sorted.sort_unstable();
        turn.record(Input::Swept { time, living: sorted }.entry());
        self.analysis.sweep(living, time);
    }

    /// What was lost since the start: executed files that were not inspected, by reason, and sessions.
    pub(super) fn losses(&self) -> BTreeMap<Loss, u64> {
        let mut losses = self.inspector.unread().clone();
        losses.insert(Loss::SessionsFull, self.analysis.refused_sessions());
        losses
    }

    /// The table of containers, for the reader's housekeeping.
    pub(super) fn containers(&mut self) -> &mut Containers {
        self.analysis.containers()
    }

    /// Removes all cgroups that no longer exist. Needed after removal records were lost. `now`: nanoseconds since boot.
    pub(super) fn remove_missing(&mut self, now: u64, outlet: &mut Outlet<impl FnMut(Message)>) {
        let cgroups = self.analysis.containers().missing();
        let mut turn = self.journal.turn();
        turn.record(Input::Gone { time: now, cgroups: cgroups.clone() }.entry());
        self.analysis.remove_gone(now, cgroups, outlet);
    }

    /// Publishes a finding that somebody has asked for.
    pub(super) fn test_alert(&mut self, alert: TestAlert, outlet: &mut Outlet<impl FnMut(Message)>) {
        let time = clock::since_boot();
        let mut turn = self.journal.turn();
        turn.record(Input::TestAlert { time, alert }.entry());
        self.analysis.test_alert(alert, time, outlet);
    }

    /// Judges what happens from now on by another policy.
    pub(super) fn set_policy(&mut self, policy: Policy, outlet: &mut Outlet<impl FnMut(Message)>) {
        let time = clock::since_boot();
        let mut turn = self.journal.turn();
        turn.record(Input::Policy { time, policy: Cow::Borrowed(&policy) }.entry());
        self.analysis.set_policy(policy, time, outlet);
    }

    /// Learns that containers are not watched, so that not everything is seen that is done to them.
    pub(super) fn unwatch(&mut self, containers: Vec<u64>) {
        if containers.is_empty() {
            return;
        }
        let mut turn = self.journal.turn();
        turn.record(Input::Unwatched(Cow::Borrowed(&containers[..])).entry());
        self.analysis.unwatch(&containers);
    }

    /// Publishes a notice about the sensor.
    pub(super) fn notice(&mut self, event: NoticeEvent, outlet: &mut Outlet<impl FnMut(Message)>) {
        let mut turn = self.journal.turn();
        let notice = Notice::now(outlet.node().clone(), event);
        turn.record(Input::Notice(Cow::Borrowed(&notice)).entry());
        self.analysis.take_notice(notice, outlet);
    }

    /// Adjusts the times in findings if the wall clock was set.
    pub(super) fn follow_wall_clock(&mut self) {
        if let Some(ahead) = self.wall_clock.follow() {
            let mut turn = self.journal.turn();
            turn.record(Input::Clock(ahead).entry());
            self.analysis.set_wall_clock(ahead);
        }
    }

    /// Converts `boot`, in nanoseconds since boot, to wall-clock time.
    pub(super) fn wall(&self, boot: u64) -> Time {
        self.analysis.wall(boot)
    }
}
