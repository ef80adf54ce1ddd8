//! The containers of this node by cgroup id.

use std::collections::{HashMap, VecDeque};

use super::cgroup::{ContainerRef, parse_known};
use crate::event::{Cgroup, Layer};

/// How long a container is kept after its cgroup was removed, in nanoseconds. Its last events may arrive later.
const KEEP: u64 = 60 * 1_000_000_000;
/// How many removed cgroups are kept at most.
const KEEP_COUNT: usize = 10_000;

/// A container and its cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackedContainer {
    /// The id of the container's outermost cgroup.
    pub cgroup_id: u64,
    /// The path of that cgroup. Empty if it is not known.
    pub path: Vec<u8>,
    /// The container that the path names. `None` if it names none or is not known.
    pub reference: Option<ContainerRef>,
    /// The device number of the container's root file system, in the kernel's encoding. `None` if it is not known or
    /// the container has not started.
    pub root_dev: Option<u32>,
    /// When the container started, in nanoseconds since boot. `None` if it is not known or the container has not
    /// started.
    pub started: Option<u64>,
}

impl TrackedContainer {
    /// The container of a cgroup.
    pub fn new(cgroup_id: u64, path: Vec<u8>) -> Self {
        let reference = parse_known(&path);
        Self { cgroup_id, path, reference, root_dev: None, started: None }
    }

    /// Whether a file on this device and in this layer is in a lower layer of the container's own overlay. A container
    /// can make other overlays.
    pub(crate) fn has_in_image(&self, dev: u32, layer: Option<Layer>) -> bool {
        layer == Some(Layer::Lower) && self.root_dev == Some(dev)
    }
}

/// The cgroups that may be containers. The probes decide which of them are containers and report one with each event;
/// only those are looked up.
#[derive(Debug, Default)]
pub(crate) struct Table {
    live: HashMap<u64, TrackedContainer>,
    removed: HashMap<u64, TrackedContainer>,
    /// The time and id of each removed cgroup, the oldest first.
    removals: VecDeque<(u64, u64)>,
    /// The last cgroup that was not known. It is not in `live`, because nothing would report its removal.
    unknown: Option<TrackedContainer>,
}

impl Table {
    /// Adds a cgroup that was created, or that the scan at the start found.
    pub(crate) fn add(&mut self, cgroup: Cgroup) {
        self.expire(cgroup.time);
        self.live.insert(cgroup.id, TrackedContainer::new(cgroup.id, cgroup.path));
    }

    /// Records the device of a container's root file system.
    pub(crate) fn set_root_dev(&mut self, cgroup_id: u64, root_dev: u32) {
        if let Some(container) = self.live.get_mut(&cgroup_id) {
            container.root_dev = Some(root_dev);
        }
    }

    /// Records when a container started, at its first exec.
    pub(crate) fn set_started(&mut self, cgroup_id: u64, time: u64) {
        if let Some(container) = self.live.get_mut(&cgroup_id) {
            container.started.get_or_insert(time);
        }
    }

    /// Moves a cgroup to those that were removed.
    pub(crate) fn remove(&mut self, cgroup: &Cgroup) {
        if let Some(container) = self.live.remove(&cgroup.id) {
            self.removed.insert(cgroup.id, container);
            self.removals.push_back((cgroup.time, cgroup.id));
        }
        self.expire(cgroup.time);
    }

    /// Whether the cgroup is in the table, also if it was removed a while ago.
    pub(crate) fn knows(&self, cgroup_id: u64) -> bool {
        self.live.contains_key(&cgroup_id) || self.removed.contains_key(&cgroup_id)
    }

    /// The container of an event. If it is not known, it has only a cgroup id.
    pub(crate) fn lookup(&mut self, cgroup_id: u64) -> &TrackedContainer {
        let known = self.live.get(&cgroup_id).or_else(|| self.removed.get(&cgroup_id));
        known.unwrap_or_else(|| self.unknown.insert(TrackedContainer::new(cgroup_id, Vec::new())))
    }

    /// The ids of the cgroups that exist.
    pub(crate) fn ids(&self) -> impl Iterator<Item = u64> {
        self.live.keys().copied()
    }

    fn expire(&mut self, now: u64) {
        while let Some(&(time, id)) = self.removals.front()
            && (self.removals.len() > KEEP_COUNT || now.saturating_sub(time) > KEEP)
        {
            self.removals.pop_front();
            self.removed.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cgroup(id: u64, time: u64) -> Cgroup {
        Cgroup { time, id, path: format!("/mine/c{id}").into_bytes() }
    }

    fn known(table: &mut Table, id: u64) -> bool {
        !table.lookup(id).path.is_empty()
    }

    #[test]
    fn removed_containers_are_kept_for_a_while() {
        let mut table = Table::default();
        table.add(cgroup(1, 10));
        table.remove(&cgroup(1, 20));
        assert_eq!(table.ids().count(), 0);
        assert!(known(&mut table, 1));
        table.add(cgroup(2, 20 + KEEP));
        assert!(known(&mut table, 1));
        table.add(cgroup(3, 21 + KEEP));
        assert!(!known(&mut table, 1));
        assert!(known(&mut table, 2));
    }

    #[test]
    fn the_number_of_removed_containers_is_limited() {
        let mut table = Table::default();
        for id in 0..3 * KEEP_COUNT as u64 {
            table.add(cgroup(id, id));
            table.remove(&cgroup(id, id));
        }
        assert_eq!((table.live.len(), table.removed.len(), table.removals.len()), (0, KEEP_COUNT, KEEP_COUNT));
        assert!(known(&mut table, 3 * KEEP_COUNT as u64 - 1));
    }

    #[test]
    fn a_container_that_is_not_known_has_only_an_id() {
        let mut table = Table::default();
        let container = table.lookup(7).clone();
        let unknown =
            TrackedContainer { cgroup_id: 7, path: Vec::new(), reference: None, root_dev: None, started: None };
        assert_eq!(container, unknown);
        assert_eq!(table.ids().count(), 0);
        assert!(!table.knows(7));
        table.add(Cgroup { time: 0, id: 7, path: b"/mine/web".to_vec() });
        assert!(table.knows(7));
        let container = table.lookup(7).clone();
        assert_eq!(container.reference.map(|found| found.id), Some(b"web".to_vec()));
    }

    proptest! {
        /// The kernel uses the id of a cgroup once.
        #[test]
        fn a_container_is_known_from_its_start_until_a_while_after_its_end(
            steps in prop::collection::vec((any::<prop::sample::Index>(), 0..KEEP / 2), 0..64),
        ) {
            let (mut table, mut now) = (Table::default(), 0);
            // The time of the removal of each cgroup, by id.
            let mut removed: Vec<Option<u64>> = Vec::new();
            for (choice, passed) in steps {
                now += passed;
                let at = choice.index(removed.len() + 1);
                match removed.get_mut(at) {
                    None => {
                        table.add(cgroup(at as u64, now));
                        removed.push(None);
                    }
                    Some(time) if time.is_none() => {
                        table.remove(&cgroup(at as u64, now));
                        *time = Some(now);
                    }
                    // Time passes only with an event.
                    Some(_) => table.expire(now),
                }
                for (id, time) in removed.iter().enumerate() {
                    let is_kept = time.is_none_or(|time| now - time <= KEEP);
                    prop_assert_eq!(known(&mut table, id as u64), is_kept, "{}", id);
                }
                let live = removed.iter().filter(|time| time.is_none()).count();
                prop_assert_eq!(table.ids().count(), live);
            }
        }
    }
}
