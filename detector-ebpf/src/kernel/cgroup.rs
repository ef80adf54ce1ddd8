//! `struct cgroup` and `kernfs_node`: which cgroup. Only the default (v2) hierarchy.

use super::{
    mem::{self, Addr},
    offsets::*,
};

/// The id of a cgroup: that of its kernfs node, which user space sees as the inode number of its directory.
#[inline(always)]
pub fn id(cgroup: Addr) -> u64 {
    // SAFETY: a pointer and a 64-bit integer.
    unsafe {
        let node: Addr = mem::read(cgroup, OFF_CGROUP_KN.load());
        mem::read(node, OFF_KN_ID.load())
    }
}

/// The id of the cgroup that a task is in.
#[inline(always)]
pub fn of_task(task: Addr) -> u64 {
    // SAFETY: pointers.
    unsafe {
        let set: Addr = mem::read(task, OFF_TASK_CGROUPS.load());
        id(mem::read(set, OFF_CSS_SET_CGROUP.load()))
    }
}

/// The id of the cgroup above; 0 for the root.
#[inline(always)]
pub fn parent(cgroup: Addr) -> u64 {
    // SAFETY: a pointer; `self.parent` points to the `self` of the cgroup above.
    let above: Addr = unsafe { mem::read(cgroup, OFF_CGROUP_SELF_PARENT.load()) };
    if above == 0 { 0 } else { id(above.wrapping_sub(OFF_CGROUP_SELF.load())) }
}

/// Whether the cgroup is in the default hierarchy: that one has number 0 (`cgroup_init`, kernel/cgroup/cgroup.c).
#[inline(always)]
pub fn is_default_hierarchy(cgroup: Addr) -> bool {
    // SAFETY: a pointer and an `int`.
    unsafe {
        let root: Addr = mem::read(cgroup, OFF_CGROUP_ROOT.load());
        mem::read::<i32>(root, OFF_CGROUP_ROOT_ID.load()) == 0
    }
}
