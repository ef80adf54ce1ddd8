//! `struct cgroup` and `kernfs_node`: which cgroup, in the one hierarchy whose cgroups stand for containers. That is
//! the default one (v2), or where a host has controllers in hierarchies of version 1, one of these.

use aya_ebpf::Global;

use super::{
    mem::{self, Addr},
    offsets::*,
};

/// The number of the hierarchy; the default one has 0 (`cgroup_init`, kernel/cgroup/cgroup.c).
#[unsafe(no_mangle)]
static HIERARCHY: Global<u32> = Global::new(0);
/// Where a `css_set` points to the state of a controller that is in the hierarchy, in bytes from its start; 0: the
/// hierarchy is the default one.
#[unsafe(no_mangle)]
static HIERARCHY_STATE: Global<u64> = Global::new(0);

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
        id(match HIERARCHY_STATE.load() {
            0 => mem::read(set, OFF_CSS_SET_CGROUP.load()),
            at => mem::read(mem::read::<Addr>(set, at), OFF_CSS_CGROUP.load()),
        })
    }
}

/// The id of the cgroup above; 0 for the root.
#[inline(always)]
pub fn parent(cgroup: Addr) -> u64 {
    // SAFETY: a pointer; `self.parent` points to the `self` of the cgroup above.
    let above: Addr = unsafe { mem::read(cgroup, OFF_CGROUP_SELF_PARENT.load()) };
    if above == 0 { 0 } else { id(above.wrapping_sub(OFF_CGROUP_SELF.load())) }
}

/// Whether the cgroup is in the hierarchy.
#[inline(always)]
pub fn counts(cgroup: Addr) -> bool {
    // SAFETY: a pointer and an `int`, which is not negative.
    unsafe {
        let root: Addr = mem::read(cgroup, OFF_CGROUP_ROOT.load());
        mem::read::<u32>(root, OFF_CGROUP_ROOT_ID.load()) == HIERARCHY.load()
    }
}
