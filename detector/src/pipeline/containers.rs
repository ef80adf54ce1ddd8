//! The containers of this node, and what is to be forgotten of those that have ended.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::container::table::{Table, TrackedContainer};
use crate::event::Cgroup;
use crate::sensor::hierarchy::Hierarchy;

/// How long after a container's end its changed files are forgotten, all ended containers at once.
const SWEEP: Duration = Duration::from_secs(10);

/// The table of containers, and the hierarchy in which unknown ones are looked up.
pub(super) struct Containers {
    table: Table,
    hierarchy: Option<Hierarchy>,
    ended: HashSet<u64>,
    swept: Instant,
}

impl Containers {
    pub(super) fn new(hierarchy: Option<Hierarchy>) -> Self {
        Self { table: Table::default(), hierarchy, ended: HashSet::new(), swept: Instant::now() }
    }

    /// Takes in a cgroup that was made, or that was there before.
    pub(super) fn created(&mut self, cgroup: Cgroup) {
        self.table.created(cgroup);
    }

    /// Takes in where a container has its root.
    pub(super) fn started(&mut self, id: u64, root_dev: u32) {
        self.table.started(id, root_dev);
    }

    /// Takes in that a cgroup was removed.
    pub(super) fn removed(&mut self, cgroup: &Cgroup) {
        self.ended.insert(cgroup.id);
        self.table.removed(cgroup);
    }

    /// Finds out which cgroups are gone, after records of that were lost. `now`: nanoseconds since boot.
    pub(super) fn find_removed(&mut self, now: u64) {
        let gone: Vec<_> = self.table.ids().filter(|&id| self.path_of(id).is_none()).collect();
        for id in gone {
            self.removed(&Cgroup { time: now, id, path: Vec::new() });
        }
    }

    /// The container of an event.
    pub(super) fn lookup(&mut self, id: u64) -> &TrackedContainer {
        let hierarchy = self.hierarchy.as_ref();
        self.table.lookup(id, |id| hierarchy?.path_of(id))
    }

    /// The path of a cgroup from the root of the hierarchy. `None`: it is gone.
    pub(super) fn path_of(&self, id: u64) -> Option<Vec<u8>> {
        self.hierarchy.as_ref()?.path_of(id)
    }

    /// The directory of the cgroup with this path. `None`: the path is not known.
    pub(super) fn directory(&self, path: &[u8]) -> Option<PathBuf> {
        let hierarchy = self.hierarchy.as_ref().filter(|_| !path.is_empty())?;
        Some(hierarchy.directory(path))
    }

    /// The containers that have ended, if it is time to forget them.
    pub(super) fn take_ended(&mut self) -> Option<HashSet<u64>> {
        let is_due = !self.ended.is_empty() && self.swept.elapsed() >= SWEEP;
        is_due.then(|| {
            self.swept = Instant::now();
            std::mem::take(&mut self.ended)
        })
    }
}
