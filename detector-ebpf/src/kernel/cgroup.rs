//! `struct cgroup` and `kernfs_node`: the cgroup of a task, in the hierarchy that identifies containers. This is the
//! default hierarchy (version 2) or, if the controllers of a host are in hierarchies of version 1, one of these.

use aya_ebpf::Global;

use super::{
    offsets::*,
    pointer::{Access, Cgroup, Ptr, Task, kind},
};

/// The number of the hierarchy. The default hierarchy has the number 0 (`cgroup_init`, kernel/cgroup/cgroup.c).
#[unsafe(no_mangle)]
static HIERARCHY: Global<u32> = Global::new(0);
/// The offset in bytes, from the start of a `css_set`, of the pointer to the state of a controller that is in the
/// hierarchy. 0 if the hierarchy is the default one.
#[unsafe(no_mangle)]
static HIERARCHY_STATE: Global<u64> = Global::new(0);

/// Returns whether the default hierarchy is the one that identifies containers.
#[inline(always)]
pub(super) fn is_hierarchy_default() -> bool {
    HIERARCHY_STATE.load() == 0
}

impl<A: Access> Cgroup<A> {
    /// Returns the id: that of the kernfs node, which user space sees as the inode number of the cgroup's directory.
    #[inline(always)]
    pub fn id(self) -> u64 {
        let node: Ptr<kind::KernfsNode, A> = self.follow(&OFF_CGROUP_KN);
        node.read(&OFF_KN_ID)
    }
}

impl Cgroup {
    /// Returns the id of the parent cgroup, or 0 for the root.
    #[inline(always)]
    pub fn parent_id(self) -> u64 {
        // `self.parent` points to the `self` of the parent cgroup.
        let above: Ptr<kind::CgroupState> = self.follow(&OFF_CGROUP_SELF_PARENT);
        if above.is_null() { 0 } else { above.before::<kind::Cgroup>(&OFF_CGROUP_SELF).id() }
    }

    /// Returns whether the cgroup is in the hierarchy that identifies containers.
    #[inline(always)]
    pub fn is_in_hierarchy(self) -> bool {
        let root: Ptr<kind::CgroupRoot> = self.follow(&OFF_CGROUP_ROOT);
        // The member is an `int` that is not negative.
        root.read::<u32>(&OFF_CGROUP_ROOT_ID) == HIERARCHY.load()
    }
}

impl<A: Access> Task<A> {
    /// Returns the id of the cgroup that the task is in.
    #[inline(always)]
    pub fn cgroup_id(self) -> u64 {
        let set: Ptr<kind::CssSet, A> = self.follow(&OFF_TASK_CGROUPS);
        let cgroup: Cgroup<A> = match HIERARCHY_STATE.load() {
            0 => set.follow(&OFF_CSS_SET_CGROUP),
            at => set.follow_at::<kind::CgroupState>(at).follow(&OFF_CSS_CGROUP),
        };
        cgroup.id()
    }
}
