//! Which container a task belongs to, and when a cgroup becomes one.
//!
//! A new cgroup is in set-up. The first program that runs in it from a root of its own, in a mount namespace of its own,
//! starts the container: that is the entrypoint, since a runtime prepares the root and only then executes. From this
//! moment, before the new program runs, the container's image is watched. There is no polling and so no gap.

use aya_ebpf::{Global, bindings::BPF_ANY};
use detector_common::{
    map::{Cgroup, Loss, PHASE_HOST, PHASE_SETUP, PHASE_STARTED, ROOTS_SHARED},
    record::{ORIGIN_APPLICATION, ORIGIN_ENTERED, ORIGIN_ENTRYPOINT, ORIGIN_OUTSIDE},
};

use crate::{
    kernel::{
        cgroup, file,
        mem::{self, Addr},
        path, task,
    },
    maps::{CGROUPS, ENTERED, LOADERS, MNT_NS, OTHER_ROOTS, ROOTS, lost},
};

/// Inode number of the host's mount namespace.
#[unsafe(no_mangle)]
static HOST_MNT_NS: Global<u32> = Global::new(0);
/// `s_dev` of the host's root file system.
#[unsafe(no_mangle)]
static HOST_ROOT_DEV: Global<u32> = Global::new(0);
/// Inode number of the host's root directory.
#[unsafe(no_mangle)]
static HOST_ROOT_INODE: Global<u64> = Global::new(0);

/// Whether a task sees the host's mounts. It then is not in a container, whatever its cgroup.
#[inline(always)]
fn is_host(namespace: u32) -> bool {
    namespace == 0 || namespace == HOST_MNT_NS.load()
}

/// Whether a task is in no container, as far as that can be told cheaply.
#[inline(always)]
pub fn is_elsewhere(task: Addr) -> bool {
    is_host(task::mount_namespace(task))
}

/// What is known of a cgroup.
#[inline(always)]
fn known(id: u64) -> Option<Cgroup> {
    // SAFETY: the value is copied at once; a concurrent change can only mix two valid values of one cgroup.
    unsafe { CGROUPS.get(id).copied() }
}

/// The container that a task runs in; `None`: it is the host's, or in set-up.
#[inline(always)]
pub fn of(task: Addr) -> Option<Cgroup> {
    let namespace = task::mount_namespace(task);
    if is_host(namespace) {
        return None;
    }
    match known(cgroup::of_task(task)) {
        Some(cgroup) if cgroup.phase == PHASE_STARTED => Some(cgroup),
        _ => known(of_namespace(namespace)?),
    }
}

/// The container that started in a mount namespace.
#[inline(always)]
fn of_namespace(namespace: u32) -> Option<u64> {
    // SAFETY: as in `known`.
    unsafe { MNT_NS.get(namespace).copied() }
}

/// The container in which the running task is about to execute a program, also if that is the one that starts it.
#[inline(always)]
pub fn of_executing(task: Addr) -> Option<u64> {
    if let Some(cgroup) = of(task) {
        return Some(cgroup.container);
    }
    let id = cgroup::of_task(task);
    match known(id) {
        Some(cgroup) if cgroup.phase == PHASE_SETUP && !is_host(task::mount_namespace(task)) => Some(id),
        _ => None,
    }
}

/// The container that a task leaves, if it is moved to the cgroup `to`, or born there, by a task of a container.
#[inline(always)]
pub fn escaped(task: Addr, to: u64) -> Option<u64> {
    of(task::current())?;
    let container = of_namespace(task::mount_namespace(task))?;
    match known(to) {
        Some(cgroup) if cgroup.container == container => None,
        _ => Some(container),
    }
}

/// Whether a task runs in the container with this id.
#[inline(always)]
pub fn contains(task: Addr, container: u64) -> bool {
    matches!(of(task), Some(found) if found.container == container)
}

/// The container of a task that has just executed a program, started by this exec if it is the first. The flag says so.
#[inline(always)]
pub fn of_exec(task: Addr) -> Option<(u64, bool)> {
    let namespace = task::mount_namespace(task);
    if is_host(namespace) {
        return None;
    }
    if let Some(cgroup) = of(task) {
        return Some((cgroup.container, false));
    }
    let id = cgroup::of_task(task);
    let root = task::root(task).dentry;
    let inode = file::inode_at(root);
    let root_dev = file::device(inode);
    // SAFETY: `inode_at` gives an inode, or 0, which reads as zero.
    let root_inode = unsafe { file::number::<mem::Untyped>(inode) };
    if root_dev == HOST_ROOT_DEV.load() && root_inode == HOST_ROOT_INODE.load() {
        return None;
    }
    if matches!(known(id), Some(cgroup) if cgroup.phase == PHASE_HOST) {
        // From the host, with a container's root: in a mount namespace of its own, which `of` does not know.
        // SAFETY: as in `known`.
        return known(unsafe { ROOTS.get(root_dev).copied() }?).map(|cgroup| (cgroup.container, false));
    }
    let init = task::current_tgid();
    start(&Cgroup { container: id, root_dev, mnt_ns: namespace, phase: PHASE_STARTED, init, root });
    Some((id, true))
}

/// Marks a container as started and its image as watched.
#[inline(always)]
fn start(cgroup: &Cgroup) {
    if CGROUPS.insert(cgroup.container, cgroup, BPF_ANY.into()).is_err() {
        lost(Loss::CgroupsFull);
    }
    if ROOTS.insert(cgroup.root_dev, owner(cgroup), BPF_ANY.into()).is_err()
        || MNT_NS.insert(cgroup.mnt_ns, cgroup.container, BPF_ANY.into()).is_err()
    {
        lost(Loss::RootsFull);
    }
}

/// Whose image changes on the device of a container's root are of. A root that is not the top of its file system shares it
/// with others, as those of btrfs subvolumes and of plain directories do.
#[inline(always)]
fn owner(cgroup: &Cgroup) -> u64 {
    let sb = file::superblock_at(cgroup.root);
    // SAFETY: `sb` is a superblock, or 0, which reads as zero.
    let (is_overlay, top) = unsafe { (file::is_overlay::<mem::Untyped>(sb), file::top(sb)) };
    if !is_overlay && let Some(others) = OTHER_ROOTS.get_ptr_mut(0) {
        // SAFETY: a live map element; a single aligned store.
        unsafe { others.write_volatile(1) };
    }
    if top == cgroup.root { cgroup.container } else { ROOTS_SHARED }
}

/// Whether there are containers whose root is not on an overlay.
#[inline(always)]
pub fn has_other_roots() -> bool {
    matches!(OTHER_ROOTS.get(0), Some(others) if *others != 0)
}

/// The container of a task, if something on a shared file system is below the container's root.
#[inline(always)]
pub fn sharing(task: Addr, device: u32, dentry: Addr) -> Option<u64> {
    let cgroup = of(task)?;
    (cgroup.root_dev == device && path::is_below(dentry, root_of(cgroup.container, device))).then_some(cgroup.container)
}

/// The dentry of the root of a container, on a device; 0: the top of that. Where it is not known, since the container was
/// there before the probes, the device can be one that has other files too: then only the container's processes are
/// watched, and the root is theirs.
#[inline(always)]
pub fn root_of(container: u64, device: u32) -> Addr {
    match known(container).map_or(0, |cgroup| cgroup.root) {
        // SAFETY: the value is copied at once.
        0 if unsafe { ROOTS.get(device).copied() } == Some(ROOTS_SHARED) => task::root(task::current()).dentry,
        root => root,
    }
}

/// A cgroup was made: below a container it belongs to that, elsewhere it may become one.
#[inline(always)]
pub fn created(cgroup: Addr) {
    let state = match known(cgroup::parent(cgroup)) {
        Some(parent) if parent.phase == PHASE_STARTED => parent,
        _ => Cgroup { container: 0, root_dev: 0, mnt_ns: 0, phase: PHASE_SETUP, init: 0, root: 0 },
    };
    if CGROUPS.insert(cgroup::id(cgroup), state, BPF_ANY.into()).is_err() {
        lost(Loss::CgroupsFull);
    }
}

/// A cgroup was removed: no task is left in it. If it was a container's, its root and namespace are forgotten before
/// their numbers can be used again.
#[inline(always)]
pub fn removed(id: u64) {
    if let Some(cgroup) = known(id)
        && cgroup.container == id
    {
        // SAFETY: as in `known`.
        unsafe {
            if ROOTS.get(cgroup.root_dev).copied() == Some(id) {
                let _gone_already = ROOTS.remove(cgroup.root_dev);
            }
            if MNT_NS.get(cgroup.mnt_ns).copied() == Some(id) {
                let _gone_already = MNT_NS.remove(cgroup.mnt_ns);
            }
        }
    }
    let _never_known = CGROUPS.remove(id);
}

/// Who changes a file on the image of the container `owner`.
pub enum Actor {
    /// A runtime that sets a container up: not a finding.
    Setup,
    /// A process; the container whose image it is, and the process's origin there.
    Process(u64, u32),
}

/// Decides about the running task. An image can be shared by containers (one root directory, mounted once): a task
/// in any of them acts in its own.
#[inline(always)]
pub fn actor(task: Addr, owner: u64, root_dev: u32) -> Actor {
    if let Some(cgroup) = of(task) {
        return if cgroup.container == owner || cgroup.root_dev == root_dev {
            Actor::Process(cgroup.container, origin(task, cgroup.container, false))
        } else {
            Actor::Process(owner, ORIGIN_OUTSIDE)
        };
    }
    match known(cgroup::of_task(task)) {
        Some(cgroup) if cgroup.phase == PHASE_SETUP && !is_host(task::mount_namespace(task)) => Actor::Setup,
        _ => Actor::Process(owner, ORIGIN_OUTSIDE),
    }
}

/// How the running process came into its container. `first`: its exec has just started the container.
#[inline(always)]
pub fn origin(task: Addr, container: u64, first: bool) -> u32 {
    let tgid = task::current_tgid();
    if first {
        return ORIGIN_ENTRYPOINT;
    }
    // SAFETY: the value is not read.
    if unsafe { ENTERED.get(tgid) }.is_some() {
        return ORIGIN_ENTERED;
    }
    let init = known(container).map_or(0, |cgroup| cgroup.init);
    let is_init = if init == 0 { matches!(task::namespace_pid(task), (1, 1..)) } else { init == tgid };
    if is_init {
        return ORIGIN_ENTRYPOINT;
    }
    if contains(task::parent(task), container) {
        return ORIGIN_APPLICATION;
    }
    if ENTERED.insert(tgid, container, BPF_ANY.into()).is_err() {
        lost(Loss::EnteredFull);
    }
    ORIGIN_ENTERED
}

/// A process forked: the child of one that came from outside came from outside too, also when it outlives its parent
/// and is handed to the container's init.
#[inline(always)]
pub fn forked(parent: Addr, child: Addr) {
    let (above, tgid) = (task::tgid(parent), task::tgid(child));
    if above == tgid {
        return;
    }
    // SAFETY: the value is copied at once.
    if let Some(container) = unsafe { ENTERED.get(above).copied() }
        && ENTERED.insert(tgid, container, BPF_ANY.into()).is_err()
    {
        lost(Loss::EnteredFull);
    }
}

/// The running task exits.
#[inline(always)]
pub fn exited() {
    let thread = task::current_thread();
    let process = (thread >> 32) as u32;
    if process == thread as u32 {
        let _never_known = ENTERED.remove(process);
        let _never_known = LOADERS.remove(process);
    }
}
