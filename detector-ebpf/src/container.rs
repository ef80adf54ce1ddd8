//! Which container a task belongs to, and when a cgroup becomes one.
//!
//! A new cgroup is in set-up. The first program that runs in it from a root of its own, in a mount namespace of its
//! own, starts the container: that is the entrypoint, since a runtime prepares the root and only then executes. From
//! this moment, before the new program runs, the container's image is watched. There is no polling and so no gap.

use aya_ebpf::{Global, bindings::BPF_ANY};
use detector_common::{
    map::{Cgroup, Loss, MountNamespace, PHASE_HOST, PHASE_SETUP, PHASE_STARTED, ROOTS_SHARED},
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
    if namespace == HOST_MNT_NS.load() {
        return None;
    }
    match of_cgroup(task) {
        // Its namespaces are gone, for it is exiting; its cgroup is not.
        None if namespace == 0 => None,
        None => known(of_namespace(task, namespace)?),
        cgroup => cgroup,
    }
}

/// The running container whose cgroup a task is in.
#[inline(always)]
fn of_cgroup(task: Addr) -> Option<Cgroup> {
    known(cgroup::of_task(task)).filter(|cgroup| cgroup.phase == PHASE_STARTED)
}

/// The container that started in the mount namespace of a task. A namespace can end before its container, and its inode
/// number is then given to another one: that of the next container, or of a service of the host. The namespace of a
/// container that ran before the sensor is known only by its inode number, so the root of the task must not be the host's.
#[inline(always)]
fn of_namespace(task: Addr, namespace: u32) -> Option<u64> {
    // SAFETY: as in `known`.
    let started = unsafe { MNT_NS.get(namespace).copied() }?;
    let is_same = match started.id {
        0 => !Root::of(task).is_host(),
        id => id == task::mount_namespace_id(task),
    };
    is_same.then_some(started.container)
}

/// The root directory of a task.
struct Root {
    dentry: Addr,
    device: u32,
    inode: u64,
}

impl Root {
    #[inline(always)]
    fn of(task: Addr) -> Self {
        let dentry = task::root(task).dentry;
        let inode = file::inode_at(dentry);
        // SAFETY: `inode_at` gives an inode, or 0, which reads as zero.
        let number = unsafe { file::number::<mem::Untyped>(inode) };
        Self { dentry, device: file::device(inode), inode: number }
    }

    #[inline(always)]
    fn is_host(&self) -> bool {
        self.device == HOST_ROOT_DEV.load() && self.inode == HOST_ROOT_INODE.load()
    }

    /// The running container that has the file system for its root alone.
    #[inline(always)]
    fn container(&self) -> Option<Cgroup> {
        // SAFETY: as in `known`.
        known(unsafe { ROOTS.get(self.device).copied() }?)
    }
}

/// The container in which the running task is about to execute a program, also if that is the one that starts it.
#[inline(always)]
pub fn of_executing(task: Addr) -> Option<u64> {
    if is_elsewhere(task) {
        return None;
    }
    let id = cgroup::of_task(task);
    if let Some(cgroup) = entered(task, id, &Root::of(task)) {
        return Some(cgroup.container);
    }
    matches!(known(id), Some(cgroup) if cgroup.phase == PHASE_SETUP).then_some(id)
}

/// The container that a task leaves, if it is moved to the cgroup `to`, or born there, by a task of a container.
#[inline(always)]
pub fn escaped(task: Addr, to: u64) -> Option<u64> {
    of(task::current()).map(|cgroup| cgroup.container).or_else(|| left(task::current()))?;
    let container = left(task)?;
    match known(to) {
        Some(cgroup) if cgroup.container == container => None,
        _ => Some(container),
    }
}

/// The container that a task belongs to by its mount namespace or, if it has made one for itself, by its root.
#[inline(always)]
fn left(task: Addr) -> Option<u64> {
    let namespace = task::mount_namespace(task);
    if is_host(namespace) {
        return None;
    }
    of_namespace(task, namespace).or_else(|| Some(Root::of(task).container()?.container))
}

/// Whether a task runs in the container with this id.
#[inline(always)]
pub fn contains(task: Addr, container: u64) -> bool {
    matches!(of(task), Some(found) if found.container == container)
}

/// The container of the running task, which has just executed a program, and how it came there. The first exec starts
/// the container.
#[inline(always)]
pub fn of_exec(task: Addr) -> Option<(u64, u32)> {
    let namespace = task::mount_namespace(task);
    if is_host(namespace) {
        // Of a container all the same, if it has got out of it, as with `nsenter --target 1 --mount`.
        return of_cgroup(task).map(|cgroup| (cgroup.container, ORIGIN_OUTSIDE));
    }
    let (root, id) = (Root::of(task), cgroup::of_task(task));
    if let Some(cgroup) = entered(task, id, &root) {
        nest(task, id, namespace, &root);
        return Some((cgroup.container, origin(task, cgroup.container)));
    }
    if root.is_host() || is_of_host(id) {
        return None;
    }
    let started = Cgroup {
        container: id,
        root_dev: root.device,
        mnt_ns: namespace,
        phase: PHASE_STARTED,
        init: task::current_tgid(),
        root: root.dentry,
    };
    start(task, id, &started);
    Some((id, ORIGIN_ENTRYPOINT))
}

/// What a container starts as a container, in a cgroup below its own, has an image of its own, which is watched as the
/// outer one's.
#[inline(always)]
fn nest(task: Addr, id: u64, namespace: u32, root: &Root) {
    let Some(outer) = of_cgroup(task) else { return };
    if id == outer.container || root.device == outer.root_dev || !is_first(task) {
        return;
    }
    // SAFETY: `superblock_at` gives a superblock, or 0, which reads as zero.
    if unsafe { file::is_overlay::<mem::Untyped>(file::superblock_at(root.dentry)) } {
        start(task, id, &Cgroup { root_dev: root.device, mnt_ns: namespace, root: root.dentry, ..outer });
    }
}

/// The running container that the running task of a cgroup is in, also if only its root says so, for it has a mount
/// namespace of its own. It starts another container all the same if it is the first of its pid namespace, or if that
/// root is another one by now, whose file system has the number of one that is gone.
#[inline(always)]
fn entered(task: Addr, id: u64, root: &Root) -> Option<Cgroup> {
    of(task).or_else(|| {
        let owner = root.container()?;
        let is_same = owner.root == 0 || owner.root == root.dentry;
        (is_of_host(id) || is_same && !is_first(task)).then_some(owner)
    })
}

/// Whether a cgroup belongs to the host.
#[inline(always)]
fn is_of_host(id: u64) -> bool {
    matches!(known(id), Some(cgroup) if cgroup.phase == PHASE_HOST)
}

/// Whether a task is the first of a pid namespace of its own.
#[inline(always)]
fn is_first(task: Addr) -> bool {
    matches!(task::namespace_pid(task), (1, 1..))
}

/// Marks the container of a cgroup as started and its image as watched. An image that another one has already as its
/// root stays that one's.
#[inline(always)]
fn start(task: Addr, id: u64, cgroup: &Cgroup) {
    // SAFETY: as in `known`.
    let before = unsafe { ROOTS.get(cgroup.root_dev).copied() }.and_then(known);
    let is_taken = matches!(before, Some(before) if before.root == cgroup.root && before.container != cgroup.container);
    if CGROUPS.insert(id, cgroup, BPF_ANY.into()).is_err() {
        lost(Loss::CgroupsFull);
    }
    let namespace = MountNamespace { container: cgroup.container, id: task::mount_namespace_id(task) };
    if !is_taken && ROOTS.insert(cgroup.root_dev, owner(cgroup), BPF_ANY.into()).is_err()
        || MNT_NS.insert(cgroup.mnt_ns, namespace, BPF_ANY.into()).is_err()
    {
        lost(Loss::RootsFull);
    }
}

/// Whose image changes on the device of a container's root are of. A root that is not the top of its file system shares
/// it with others, as those of btrfs subvolumes and of plain directories do.
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

/// The dentry of the root of a container, on a device; 0: the top of that. Where it is not known, since the container
/// was there before the probes, the device can be one that has other files too: then only the container's processes are
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
        Some(parent) if parent.phase == PHASE_STARTED => known(parent.container).unwrap_or(parent),
        _ => Cgroup { container: 0, root_dev: 0, mnt_ns: 0, phase: PHASE_SETUP, init: 0, root: 0 },
    };
    if CGROUPS.insert(cgroup::id(cgroup), state, BPF_ANY.into()).is_err() {
        lost(Loss::CgroupsFull);
    }
}

/// A cgroup was removed: no task is left in it. If it was a container's, or one's in a container, its root and
/// namespace are forgotten before their numbers can be used again.
#[inline(always)]
pub fn removed(id: u64) {
    if let Some(cgroup) = known(id)
        && (cgroup.container == id
            || matches!(known(cgroup.container), Some(outer) if outer.root_dev != cgroup.root_dev))
    {
        // SAFETY: as in `known`.
        unsafe {
            if ROOTS.get(cgroup.root_dev).copied() == Some(cgroup.container) {
                let _gone_already = ROOTS.remove(cgroup.root_dev);
            }
            if matches!(MNT_NS.get(cgroup.mnt_ns), Some(namespace) if namespace.container == cgroup.container) {
                let _gone_already = MNT_NS.remove(cgroup.mnt_ns);
            }
        }
    }
    let _never_known = CGROUPS.remove(id);
}

/// The container in which the running task changes a file on the image of the container `owner`, and how it came there.
/// An image can be shared by containers (one root directory, mounted once): a task in any of them acts in its own. What
/// a runtime does to prepare a container is no change of one that runs: its root is not in `ROOTS` yet.
#[inline(always)]
pub fn actor(task: Addr, owner: u64, root_dev: u32) -> (u64, u32) {
    match of(task) {
        Some(cgroup) if cgroup.container == owner || cgroup.root_dev == root_dev => {
            (cgroup.container, origin(task, cgroup.container))
        }
        _ if has_entered(task::current_tgid(), owner) => (owner, ORIGIN_ENTERED),
        _ => (owner, ORIGIN_OUTSIDE),
    }
}

/// Whether a process was brought into a container from outside, or descends from one that was.
#[inline(always)]
fn has_entered(process: u32, container: u64) -> bool {
    // SAFETY: as in `known`.
    unsafe { ENTERED.get(process).copied() == Some(container) }
}

/// How the running process came into its container.
#[inline(always)]
pub fn origin(task: Addr, container: u64) -> u32 {
    let tgid = task::current_tgid();
    if has_entered(tgid, container) {
        return ORIGIN_ENTERED;
    }
    let init = known(container).map_or(0, |cgroup| cgroup.init);
    let is_init = if init == 0 { is_first(task) } else { init == tgid };
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

/// The running task exits. Its process is what it was until the last of its threads does, which need not be the first
/// one.
#[inline(always)]
pub fn exited() {
    let process = task::current_tgid();
    if task::is_last(task::current()) {
        let _never_known = ENTERED.remove(process);
        let _never_known = LOADERS.remove(process);
    }
}
