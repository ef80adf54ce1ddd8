//! The beginning of the life of each container, in which some of what it does is expected.

use crate::container::table::TrackedContainer;
use crate::recent::Recent;

/// When the span of each container ends, by the id of its cgroup.
#[derive(Debug)]
pub(super) struct Spans(Recent<u64, u64>);

impl Spans {
    /// Remembers this many containers at most.
    pub(super) fn new(most: usize) -> Self {
        Self(Recent::new(most))
    }

    /// Records that a container starts, whose span is this long.
    pub(super) fn begin(&mut self, container: &TrackedContainer, longest: u64) {
        if let Some(started) = container.started {
            self.0.insert(container.cgroup_id, started.saturating_add(longest));
        }
    }

    /// Ends the span of the container, if that has not ended before.
    pub(super) fn end(&mut self, container: &TrackedContainer, time: u64) {
        if let Some(&until) = self.0.get(&container.cgroup_id) {
            self.0.insert(container.cgroup_id, until.min(time));
        }
    }

    /// Whether this time was in the span of the container.
    pub(super) fn has(&mut self, container: &TrackedContainer, time: u64) -> bool {
        self.0.get(&container.cgroup_id).is_some_and(|&until| time < until)
    }
}
