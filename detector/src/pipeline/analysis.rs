//! Turns events into findings: finds the event's container, runs the detections, and adds the content of executed
//! files.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use detector_common::vocabulary::Loss;

use super::containers::Containers;
use super::inspection::{Inspected, Inspector};
use super::outlet::{Message, Outlet};
use super::threads::Error;
use crate::clock::WallClock;
use crate::container::cgroup;
use crate::container::table::TrackedContainer;
use crate::detect::{self, Context, Detector, content_by_name, needs_content};
use crate::event::{At, Cgroup, Event, Origin};
use crate::finding::Time;
use crate::redact::Redactor;
use crate::sensor::Sensor;

/// The state of the analysis: the known containers, the detector, and the inspector of executed files.
pub(super) struct Analysis {
    containers: Containers,
    detector: Detector,
    inspector: Inspector,
    /// Why executed files are not inspected, as it was reported last.
    inspection_failure: Option<String>,
    wall_clock: WallClock,
    context: Context,
}

impl Analysis {
    /// Starts the analysis with the containers and processes that already ran when the sensor started.
    pub(super) fn start(
        sensor: &mut Sensor,
        redactor: Redactor,
        outlet: &mut Outlet<impl FnMut(Message)>,
    ) -> Result<Self, Error> {
        let mut containers = Containers::new(sensor.report().host.hierarchy.clone());
        let mut detector = Detector::default();
        for running in sensor.take_running().containers {
            let container = TrackedContainer::new(running.container, running.cgroup_path.clone());
            outlet.container_started(detect::container(&container));
            containers.add(Cgroup { time: 0, id: running.container, path: running.cgroup_path });
            containers.set_root_dev(running.container, running.root_dev);
            if let Some(started) = running.processes.iter().map(|process| process.start_time).min() {
                containers.set_started(running.container, started);
            }
            running.processes.into_iter().for_each(|process| detector.remember(process));
        }
        let wall_clock = WallClock::read();
        let boot_id = &sensor.report().host.boot_id;
        let context = Context::new(outlet.node().to_owned(), boot_id, wall_clock.ahead(), redactor);
        let inspector = Inspector::start()?;
        Ok(Self { containers, detector, inspector, inspection_failure: None, wall_clock, context })
    }

    /// Updates the state by an event and runs the detections on it.
    pub(super) fn take_event(
        &mut self,
        mut event: Event,
        sensor: &mut Sensor,
        outlet: &mut Outlet<impl FnMut(Message)>,
    ) {
        match &mut event {
            Event::CgroupCreated(created) => {
                if cgroup::is_container(&created.path) {
                    let container = TrackedContainer::new(created.id, created.path.clone());
                    outlet.container_started(detect::container(&container));
                }
                self.containers.add(created.clone());
            }
            Event::CgroupRemoved(removed) => self.containers.remove(removed),
            Event::CgroupEscape(escape) if escape.cgroup.is_empty() => {
                escape.cgroup.clone_from(&self.containers.lookup(escape.at.cgroup).path);
            }
            Event::Exec(exec) if exec.process.origin == Origin::Entrypoint => {
                self.containers.set_started(exec.at.container, exec.at.time);
                if let Some(root_dev) = sensor.root_dev(exec.at.container) {
                    self.containers.set_root_dev(exec.at.container, root_dev);
                }
            }
            _ => {}
        }
        if let Some(at) = event.at() {
            self.detect(event, at, outlet);
        }
    }

    fn detect(&mut self, event: Event, at: At, outlet: &mut Outlet<impl FnMut(Message)>) {
        let container = self.containers.lookup(at.container);
        self.detector.detect(&event, container, &self.context, |finding| outlet.finding(finding));
        if let Some(content) = content_by_name(&event) {
            self.inspector.learn(&event, content);
        }
        if needs_content(&event) {
            let path = container.path.clone();
            let cgroup = || self.containers.directory(&path);
            if let Some(inspected) = self.inspector.inspect(event, cgroup) {
                self.take_content(&inspected, outlet);
            }
        }
    }

    /// Runs the detections on all files that the inspector has finished since the last call.
    pub(super) fn take_contents(&mut self, outlet: &mut Outlet<impl FnMut(Message)>) {
        self.inspector.reset();
        self.inspector.abandon_stuck();
        while let Some(inspected) = self.inspector.next_inspected() {
            self.take_content(&inspected, outlet);
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
            self.take_content(&inspected, outlet);
        }
    }

    fn take_content(&mut self, inspected: &Inspected, outlet: &mut Outlet<impl FnMut(Message)>) {
        let Some(at) = inspected.event.at() else { return };
        let container = self.containers.lookup(at.container);
        let Inspected { event, look } = inspected;
        self.detector.detect_by_content(event, *look, container, &self.context, |finding| outlet.finding(finding));
    }

    /// When [`take_contents`](Self::take_contents) must be called, at the latest.
    pub(super) fn contents_due(&self) -> Option<Instant> {
        self.inspector.due()
    }

    /// A descriptor that becomes readable when contents can be [taken](Self::take_contents).
    pub(super) fn contents_ready(&self) -> BorrowedFd<'_> {
        self.inspector.ready()
    }

    /// The number of executed files that were not inspected, by reason.
    pub(super) fn unread(&self) -> &BTreeMap<Loss, u64> {
        self.inspector.unread()
    }

    /// The table of containers, for the reader's housekeeping.
    pub(super) fn containers(&mut self) -> &mut Containers {
        &mut self.containers
    }

    /// Adjusts the times in findings if the wall clock was set.
    pub(super) fn follow_wall_clock(&mut self) {
        if let Some(ahead) = self.wall_clock.follow() {
            self.context.set_boot_to_wall(ahead);
        }
    }

    /// Converts `boot`, in nanoseconds since boot, to wall-clock time.
    pub(super) fn wall(&self, boot: u64) -> Time {
        self.context.wall(boot)
    }
}
