//! Delivers the pipeline's messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::clock;
use crate::finding::{Container, Finding, Line, Node, Notice, Time};
use crate::policy::WatchRule;
use crate::sensor::EventBuffer;
use crate::sensor::report::Report;

/// How long a self-test can take that does not hang.
const LONGEST_TEST: Duration = Duration::from_secs(30);

/// A message of the pipeline.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    /// A finding or a notice.
    Line(Line),
    /// A container that has started, or that already ran when the pipeline started.
    ContainerStarted(Box<Container>),
    /// A container that runs, at the latest since this time.
    ContainerRuns(Box<Container>, Time),
    /// The id of a cgroup that was removed, which can be that of a container.
    CgroupRemoved(u64),
    /// By which rules containers are watched since this time.
    Rules(Vec<WatchRule>, Time),
    /// The report after a self-test whose result differs from that of the one before.
    Tested(Box<Report>),
    /// Why executed files are not inspected from now on, or that they are inspected again.
    InspectionFailure(Option<String>),
}

/// The counters of a pipeline.
#[derive(Debug, Default)]
pub struct Counters {
    /// The number of records that were read from the kernel.
    pub events: AtomicU64,
    /// How many files the probes have only counted.
    pub counted: AtomicU64,
    /// The [buffers of events](EventBuffer), as they were when the reader last looked.
    buffered: AtomicU64,
    buffer_size: AtomicU64,
    moved: AtomicU64,
    /// How often the reader has begun to look for records. It does so at least every ten seconds, unless it hangs.
    pub turns: AtomicU64,
    /// The time since boot, in nanoseconds, at which a self-test began that has not ended. 0 if none runs.
    pub(super) testing_since: AtomicU64,
}

impl Counters {
    /// How full the buffers of events were when the reader last looked.
    pub(crate) fn buffer(&self) -> EventBuffer {
        let [bytes, size, moved] = [&self.buffered, &self.buffer_size, &self.moved].map(|number| number.load(Relaxed));
        EventBuffer { bytes, size, moved }
    }

    /// Says so if a self-test hangs in the kernel.
    pub(crate) fn stuck_test(&self) -> Option<String> {
        let since = self.testing_since.load(Relaxed);
        let lasts = Duration::from_nanos(clock::since_boot().saturating_sub(since));
        (since != 0 && lasts > LONGEST_TEST).then(|| {
            format!("the self-test has not ended for {} s, and nothing is reported meanwhile", lasts.as_secs())
        })
    }
}

/// Sends messages to the sink, and counts the records that were read.
pub(super) struct Outlet<S> {
    sink: S,
    node: Node,
    counters: Arc<Counters>,
}

impl<S: FnMut(Message)> Outlet<S> {
    pub(super) fn new(sink: S, node: Node, counters: Arc<Counters>) -> Self {
        Self { sink, node, counters }
    }

    /// Counts a record that was read from the kernel.
    pub(super) fn count_event(&self) {
        self.counters.events.fetch_add(1, Relaxed);
    }

    /// Counts files that the probes have only counted.
    pub(super) fn count_counted(&self, files: u64) {
        self.counters.counted.fetch_add(files, Relaxed);
    }

    /// Records that the reader looks for records again.
    pub(super) fn count_turn(&self) {
        self.counters.turns.fetch_add(1, Relaxed);
    }

    /// Records how full the buffers of events are.
    pub(super) fn set_buffer(&self, buffer: EventBuffer) {
        let Counters { buffered, buffer_size, moved, .. } = &*self.counters;
        buffered.store(buffer.bytes, Relaxed);
        buffer_size.store(buffer.size, Relaxed);
        moved.store(buffer.moved, Relaxed);
    }

    /// Records that a self-test begins at this time since boot, or ends, if it is 0.
    pub(super) fn set_testing_since(&self, boot: u64) {
        self.counters.testing_since.store(boot, Relaxed);
    }

    /// The node in findings and notices.
    pub(super) fn node(&self) -> &Node {
        &self.node
    }

    pub(super) fn finding(&mut self, finding: Finding) {
        (self.sink)(Message::Line(Line::Finding(Box::new(finding))));
    }

    pub(super) fn line(&mut self, line: Line) {
        (self.sink)(Message::Line(line));
    }

    pub(super) fn notice(&mut self, notice: Notice) {
        self.line(Line::Notice(notice));
    }

    pub(super) fn tested(&mut self, report: Report) {
        (self.sink)(Message::Tested(Box::new(report)));
    }

    pub(super) fn inspection_failure(&mut self, failure: Option<String>) {
        (self.sink)(Message::InspectionFailure(failure));
    }

    pub(super) fn container_started(&mut self, container: Container) {
        (self.sink)(Message::ContainerStarted(Box::new(container)));
    }

    pub(super) fn container_runs(&mut self, container: Container, time: Time) {
        (self.sink)(Message::ContainerRuns(Box::new(container), time));
    }

    pub(super) fn rules(&mut self, rules: Vec<WatchRule>, time: Time) {
        (self.sink)(Message::Rules(rules, time));
    }

    pub(super) fn cgroup_removed(&mut self, id: u64) {
        (self.sink)(Message::CgroupRemoved(id));
    }
}
