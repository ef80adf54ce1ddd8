//! Turns events into findings: finds the event's container, runs the detections, and adds the content of executed
//! files. What it is told, and in which order, decides what it finds: it asks nobody and reads no clock.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use detector_common::map::{Count, CountedKey};
use detector_common::vocabulary::Loss;

use super::containers::Containers;
use super::input::{Ran, Start};
use super::inspection::{Inspected, Wanted};
use super::outlet::{Message, Outlet};
use crate::container::cgroup;
use crate::container::table::TrackedContainer;
use crate::detect::{self, Context, Detector, TestAlert, needs_content};
use crate::event::{At, Cgroup, Event, Origin, ServingSign};
use crate::finding::{Notice, NoticeEvent, Time};
use crate::policy::Policy;
use crate::sensor::hierarchy::Hierarchy;

/// The state of the analysis: the known containers, and the detector.
pub(super) struct Analysis {
    containers: Containers,
    detector: Detector,
    context: Context,
}

impl Analysis {
    /// Starts the analysis. `hierarchy` is that of the containers, which is only asked for [its](Self::containers)
    /// housekeeping.
    pub(super) fn new(start: Start, hierarchy: Option<Hierarchy>) -> Self {
        let Start { node, boot_id, ahead, redactor, is_counting, policy } = start;
        let mut detector = if is_counting { Detector::counting() } else { Detector::default() };
        detector.set_policy(policy);
        Self {
            containers: Containers::new(hierarchy),
            detector,
            context: Context::new(node, &boot_id, ahead, redactor),
        }
    }

    /// Adds a container that already ran when the sensor started.
    pub(super) fn add_running(&mut self, running: Ran, outlet: &mut Outlet<impl FnMut(Message)>) {
        let Ran { container: id, path, root_dev, processes, firsts, time } = running;
        let container = TrackedContainer::new(id, path.clone());
        outlet.container_started(detect::container(&container));
        outlet.container_runs(detect::container(&container), self.context.wall(time));
        self.containers.add(Cgroup { time: 0, id, path });
        self.containers.set_root_dev(id, root_dev);
        if let Some(started) = processes.iter().map(|process| process.start_time).min() {
            self.containers.set_started(id, started);
        }
        self.detector.resume_container(&container);
        processes.into_iter().for_each(|process| self.detector.remember(process));
        let at = At { time, number: 0, cgroup: id, container: id };
        for (process, exe) in &firsts {
            self.detector.resume(process, exe, at, (&container, &self.context));
        }
    }

    /// Updates the state by an event and runs the detections on it. `root_dev` is the device of the root of the
    /// container that the event starts, if it starts one; `serving`: what will show that this container serves others.
    /// Returns the event if more must be found out about the content of its file, and what.
    pub(super) fn take_event(
        &mut self,
        mut event: Event,
        root_dev: Option<u32>,
        serving: Option<ServingSign>,
        outlet: &mut Outlet<impl FnMut(Message)>,
    ) -> Option<(Event, Wanted)> {
        match &mut event {
            Event::CgroupCreated(created) => {
                if cgroup::is_container(&created.path) {
                    let container = TrackedContainer::new(created.id, created.path.clone());
                    outlet.container_started(detect::container(&container));
                }
                self.containers.add(created.clone());
            }
            Event::CgroupRemoved(removed) => {
                self.containers.remove(removed);
                let found = |finding| outlet.finding(finding);
                self.detector.end_container(removed.id, removed.time, &self.context, found);
                outlet.cgroup_removed(removed.id);
            }
            Event::CgroupEscape(escape) if escape.cgroup.is_empty() => {
                escape.cgroup.clone_from(&self.containers.lookup(escape.at.cgroup).path);
            }
            Event::Exec(exec) if exec.process.origin == Origin::Entrypoint => {
                let container = self.containers.lookup(exec.at.container);
                if container.started.is_none() {
                    outlet.container_runs(detect::container(container), self.context.wall(exec.at.time));
                }
                // Of one that ran before, at least the root is known.
                let is_first = container.started.is_none() && container.root_dev.is_none();
                self.containers.set_started(exec.at.container, exec.at.time);
                if let Some(root_dev) = root_dev {
                    self.containers.set_root_dev(exec.at.container, root_dev);
                    if is_first {
                        let container = self.containers.lookup(exec.at.container);
                        self.detector.start_container(container);
                        // If the record was lost, so may have been what followed it.
                        if let Some(sign) = serving.filter(|_| exec.head.is_some()) {
                            self.detector.begin_startup(container, sign);
                        }
                    }
                }
            }
            _ => {}
        }
        self.detect(&event, event.at()?, outlet);
        let wanted = Wanted { look: needs_content(&event), hash: self.detector.asks_for_hash(&event) };
        (wanted.look || wanted.hash).then_some((event, wanted))
    }

    fn detect(&mut self, event: &Event, at: At, outlet: &mut Outlet<impl FnMut(Message)>) {
        let container = self.containers.lookup(at.container);
        self.detector.detect(event, container, &self.context, |finding| outlet.finding(finding));
    }

    /// The files that the probes are to count and not to report, if these are not what they know.
    pub(super) fn wanted_counts(&self, known: &BTreeSet<CountedKey>) -> Option<BTreeSet<CountedKey>> {
        self.detector.wanted_counts(known)
    }

    /// Takes what the probes have counted until this time, in nanoseconds since boot.
    pub(super) fn take_counts(
        &mut self,
        counts: &[(CountedKey, Count)],
        now: u64,
        outlet: &mut Outlet<impl FnMut(Message)>,
    ) {
        let lost = self.detector.take_counts(counts, now);
        if lost > 0 {
            let loss = NoticeEvent::loss(Loss::ImageWrite, lost);
            outlet.notice(Notice::at(self.context.wall(now), outlet.node().clone(), loss));
        }
    }

    /// Publishes what is due at this time, in nanoseconds since boot.
    pub(super) fn take_time(&mut self, now: u64, outlet: &mut Outlet<impl FnMut(Message)>) {
        self.detector.take_time(now, &self.context, |line| outlet.line(line));
    }

    /// How long after this time [`take_time`](Self::take_time) must be called.
    pub(super) fn time_left(&self, now: u64) -> Option<Duration> {
        self.detector.due().map(|due| Duration::from_nanos(due.saturating_sub(now)))
    }

    /// Publishes what waits for its time, because the pipeline stops.
    pub(super) fn stop(&mut self, now: u64, outlet: &mut Outlet<impl FnMut(Message)>) {
        self.detector.stop(now, &self.context, |line| outlet.line(line));
    }

    /// Ends the sessions of which no process is left. `living` has the first processes of those with any.
    pub(super) fn sweep(&mut self, living: &HashSet<(u32, u64)>, now: u64) {
        self.detector.sweep(living, now, &self.context);
    }

    /// The number of sessions for which there was no room.
    pub(super) fn refused_sessions(&self) -> u64 {
        self.detector.refused_sessions()
    }

    /// Takes what was found out about the file of an event.
    pub(super) fn take_content(&mut self, inspected: &Inspected, outlet: &mut Outlet<impl FnMut(Message)>) {
        let Some(at) = inspected.event.at() else { return };
        let container = self.containers.lookup(at.container);
        let Inspected { event, look, hashed } = inspected;
        if let Some(look) = look.filter(|_| needs_content(event)) {
            self.detector.detect_by_content(event, look, container, &self.context, |finding| outlet.finding(finding));
        }
        let hash = hashed.and_then(|hashed| self.detector.take_hash(event, hashed, &self.context));
        hash.into_iter().for_each(|notice| outlet.notice(notice));
    }

    /// The table of containers, for the housekeeping.
    pub(super) fn containers(&mut self) -> &mut Containers {
        &mut self.containers
    }

    /// Sets by how many nanoseconds the wall clock is ahead of the time since boot.
    pub(super) fn set_wall_clock(&mut self, ahead: i64) {
        self.context.set_boot_to_wall(ahead);
    }

    /// Publishes the finding that somebody asks for at this time, in nanoseconds since boot.
    pub(super) fn test_alert(&mut self, alert: TestAlert, time: u64, outlet: &mut Outlet<impl FnMut(Message)>) {
        outlet.finding(Detector::test_alert(alert, time, self.containers.lookup(0), &self.context));
    }

    /// Sets what is decided about findings and containers from this time on, in nanoseconds since boot.
    pub(super) fn set_policy(&mut self, policy: Policy, time: u64, outlet: &mut Outlet<impl FnMut(Message)>) {
        outlet.rules(policy.rules.clone(), self.context.wall(time));
        self.detector.set_policy(policy);
    }

    /// Learns that not everything is seen any more that is done to these containers.
    pub(super) fn unwatch(&mut self, containers: &[u64]) {
        containers.iter().for_each(|&container| self.detector.unwatch(container));
    }

    /// Publishes a notice about the sensor.
    pub(super) fn take_notice(&mut self, notice: Notice, outlet: &mut Outlet<impl FnMut(Message)>) {
        self.detector.learn(&notice.event);
        outlet.notice(notice);
    }

    /// Removes cgroups that no longer exist. `now`: nanoseconds since boot.
    pub(super) fn remove_gone(&mut self, now: u64, cgroups: Vec<u64>, outlet: &mut Outlet<impl FnMut(Message)>) {
        for id in cgroups {
            self.containers.remove(&Cgroup { time: now, id, path: Vec::new() });
            outlet.cgroup_removed(id);
        }
    }

    /// Converts `boot`, in nanoseconds since boot, to wall-clock time.
    pub(super) fn wall(&self, boot: u64) -> Time {
        self.context.wall(boot)
    }
}
