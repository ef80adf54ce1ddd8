//! Keeps the table of this node's containers, and the list of ended containers whose state must be freed.
//!
//! The table learns only what it is told. The hierarchy is asked for what the table [does not know](Containers::find)
//! and for what [has gone](Containers::missing), and whoever asks tells the table.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::container::table::{Table, TrackedContainer};
use crate::event::Cgroup;
use crate::sensor::hierarchy::Hierarchy;

/// The interval at which the state of ended containers is freed. All containers that ended in it are handled at once.
/// It is also the time after which what a sweep did not find, such as the processes of a session, is looked for again.
const SWEEP: Duration = Duration::from_secs(10);
/// The interval at which the probes' state is freed of what has gone while its container runs.
const SWEEP_RUNNING: Duration = Duration::from_secs(60);

/// The table of containers, and the cgroup hierarchy in which unknown containers are looked up.
pub(super) struct Containers {
    table: Table,
    hierarchy: Option<Hierarchy>,
    ended: HashSet<u64>,
    swept: Instant,
    is_sweep_urgent: bool,
    /// Whether the last sweep had a reason other than the time.
    had_reason: bool,
}

impl Containers {
    pub(super) fn new(hierarchy: Option<Hierarchy>) -> Self {
        Self {
            table: Table::default(),
            hierarchy,
            ended: HashSet::new(),
            swept: Instant::now(),
            is_sweep_urgent: false,
            had_reason: false,
        }
    }

    /// Adds a cgroup that was just created, or that existed before the detector started.
    pub(super) fn add(&mut self, cgroup: Cgroup) {
        self.table.add(cgroup);
    }

    /// Records the device of a container's root file system.
    pub(super) fn set_root_dev(&mut self, id: u64, root_dev: u32) {
        self.table.set_root_dev(id, root_dev);
    }

    /// Records when a container started.
    pub(super) fn set_started(&mut self, id: u64, time: u64) {
        self.table.set_started(id, time);
    }

    /// Removes a cgroup, and marks its container as ended.
    pub(super) fn remove(&mut self, cgroup: &Cgroup) {
        self.ended.insert(cgroup.id);
        self.table.remove(cgroup);
    }

    /// The cgroups of the table that no longer exist. There are some after removal records were lost.
    pub(super) fn missing(&self) -> Vec<u64> {
        let mut missing: Vec<_> = self.table.ids().filter(|&id| self.path_of(id).is_none()).collect();
        missing.sort_unstable();
        missing
    }

    /// The container with this cgroup id.
    pub(super) fn lookup(&mut self, id: u64) -> &TrackedContainer {
        self.table.lookup(id)
    }

    /// A cgroup that exists although the table does not know it.
    pub(super) fn find(&self, id: u64) -> Option<Cgroup> {
        if self.table.knows(id) {
            return None;
        }
        Some(Cgroup { time: 0, id, path: self.path_of(id)? })
    }

    /// The path of a cgroup from the root of the hierarchy, or `None` if the cgroup no longer exists.
    fn path_of(&self, id: u64) -> Option<Vec<u8>> {
        self.hierarchy.as_ref()?.path_of(id)
    }

    /// The directory of the cgroup with this path, or `None` if the path is not known.
    pub(super) fn directory(&self, path: &[u8]) -> Option<PathBuf> {
        let hierarchy = self.hierarchy.as_ref().filter(|_| !path.is_empty())?;
        Some(hierarchy.directory(path))
    }

    /// Makes the state of the probes be freed at the next opportunity, because one of their maps is full, or because
    /// sessions may have ended unseen.
    pub(super) fn sweep_soon(&mut self) {
        self.is_sweep_urgent = true;
    }

    /// Returns the containers that have ended since the last time, if the state of the probes must be freed now.
    pub(super) fn take_ended(&mut self) -> Option<HashSet<u64>> {
        let has_reason = self.is_sweep_urgent || !self.ended.is_empty();
        let interval = if has_reason || self.had_reason { SWEEP } else { SWEEP_RUNNING };
        let is_due = self.is_sweep_urgent || self.swept.elapsed() >= interval;
        is_due.then(|| {
            self.had_reason = has_reason;
            self.is_sweep_urgent = false;
            self.swept = Instant::now();
            std::mem::take(&mut self.ended)
        })
    }
}
