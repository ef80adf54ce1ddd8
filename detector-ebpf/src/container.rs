//! Determines which container a task belongs to, and when a cgroup becomes a container.
//!
//! A new cgroup is in set-up, and nothing is kept about it. The first program that is executed in it from a root of its
//! own, in a mount namespace of its own, starts the container. This program is the entrypoint, because a runtime
//! prepares the root before it executes the program. From this moment on, before the new program runs, the container's
//! image is watched. There is no polling, so there is no gap.

use aya_ebpf::{
    Global,
    bindings::{BPF_ANY, BPF_NOEXIST},
    macros::map,
    maps::{Array, HashMap, LruHashMap},
};
use detector_common::{
    map::{self, HOST, MOST_INSIDE, PHASE_HOST, PHASE_STARTED, ROOTS_SHARED, is_unsent_if_unwatched},
    record::{Ancestor, COMM_LEN, ExitRecord, Kind, PATH_DEPTH, Session, SocketRecord},
    vocabulary::{Loss, Origin, Via},
};

use crate::{
    actor,
    emit::{Draft, Stamp, count_loss},
    kernel::{Access, Cgroup, Dentry, NsProxy, Sock, Task, current_cgroup_id, current_process, typed_current},
    mem::{self, Counter, Lookup, Word},
};

/// The inode number of the host's mount namespace.
#[unsafe(no_mangle)]
static HOST_MNT_NS: Global<u32> = Global::new(0);
/// The `s_dev` of the host's root file system.
#[unsafe(no_mangle)]
static HOST_ROOT_DEV: Global<u32> = Global::new(0);
/// The inode number of the host's root directory.
#[unsafe(no_mangle)]
static HOST_ROOT_INODE: Global<u64> = Global::new(0);

/// The inode number of the host's user namespace: `PROC_USER_INIT_INO` (include/linux/proc_ns.h, 5.10 to 7.3).
const HOST_USER_NS: u32 = 0xefff_fffd;

/// The state of each cgroup that belongs to a container or had processes of the host in it when the sensor started, by
/// its id. All others have no entry, so that nobody can fill the map by making cgroups, except in a container.
#[map]
static CGROUPS: HashMap<u64, map::Cgroup> = HashMap::with_max_entries(16_384, 0);

/// The owner of each file system that holds a container's root, by its `super_block.s_dev`: the container, or
/// `ROOTS_SHARED`. An entry is added when the container has started, so that the set-up of the root by a runtime is no
/// finding. It is removed when the container's cgroup is removed, before the number can be used again.
#[map]
static ROOTS: HashMap<u32, u64> = HashMap::with_max_entries(8_192, 0);

/// One element: whether there are containers whose root is not on an overlay, so that any file system may hold an
/// image. 0 means no.
#[map]
static OTHER_ROOTS: Array<u32> = Array::with_max_entries(1, 0);

/// The container of each mount namespace in which a container started, by the inode number of the namespace. This is
/// for processes that enter the namespace but stay in a cgroup of the host, as those of `nsenter` do.
#[map]
static MNT_NS: HashMap<u32, map::MountNamespace> = HashMap::with_max_entries(8_192, 0);

/// The number of containers that were started in each network namespace, by the inode number of the namespace. Who else
/// is in a namespace without an entry is not known.
#[map]
static NETWORKS: HashMap<u32, u64> = HashMap::with_max_entries(8_192, 0);

/// The containers whose upper directories are known, by the address of the directory's dentry. An overlay keeps the
/// dentry of its upper directory, so an entry is right as long as its container runs.
#[map]
static UPPERS: LruHashMap<u64, u64> = LruHashMap::with_max_entries(8_192, 0);

/// The containers that are not watched, by their ids. Only the daemon changes this.
#[map]
static UNWATCHED: HashMap<u64, u32> = HashMap::with_max_entries(16_384, 0);

/// The processes of sessions, by the id (thread group id) of the process: those that were brought into a container from
/// outside or began a session in it, and their descendants.
#[map]
static ENTERED: HashMap<u32, map::Entered> = HashMap::with_max_entries(16_384, 0);

/// Who has moved processes into the cgroups of running containers, by the ids of these (thread group ids).
#[map]
static MOVERS: LruHashMap<u32, Mover> = LruHashMap::with_max_entries(4_096, 0);

/// An element of [`MOVERS`]: a process that was moved, and which process has moved it.
#[derive(Clone, Copy)]
#[repr(C)]
struct Mover {
    /// The `task_struct.start_boottime` of the process that was moved.
    moved: u64,
    /// The process that has moved it.
    by: Ancestor,
}

/// One element: how many elements of [`ENTERED`] are processes of sessions that began inside containers. The daemon
/// corrects the number.
#[map]
static INSIDE: Array<u64> = Array::with_max_entries(1, 0);

/// The number of processes in each session, as far as they are in [`ENTERED`].
#[map]
static SESSIONS: HashMap<Session, u64> = HashMap::with_max_entries(16_384, 0);

/// Returns whether a task with this mount namespace sees the host's mounts. It is then not in a container, whatever its
/// cgroup is. The namespace 0 is that of a task that has given up its namespaces because it is exiting.
#[inline(always)]
fn is_host(namespace: u32) -> bool {
    namespace == 0 || namespace == HOST_MNT_NS.load()
}

/// The address of the namespaces (`struct nsproxy`) that the sensor has, if it is in the host's mount namespace. Most
/// processes of the host share them. They are not freed as long as the sensor runs.
static SENSOR_NAMESPACES: Word = Word::new(0);

/// Learns the namespaces of the sensor, which is the running task.
#[inline(always)]
pub fn learn_namespaces(task: Task) {
    if is_host(task.mount_namespace()) {
        SENSOR_NAMESPACES.set(task.namespaces().address());
    }
}

/// Returns whether the running task is known to be in no container without a call of a helper that reads memory. Where
/// there is no typed task, such a call is necessary, and the result is `false`: a look at a file costs as much.
#[inline(always)]
pub fn is_clearly_elsewhere() -> bool {
    typed_current().is_some_and(|task| task.namespaces().address() == SENSOR_NAMESPACES.get())
}

/// Returns whether the mount namespace of the running task suffices to show that the task is in no container. This
/// check is cheaper than [`of_current`].
#[inline(always)]
pub fn is_elsewhere() -> bool {
    match typed_current() {
        Some(task) => are_host(task.namespaces()),
        None => are_host(Task::current().namespaces()),
    }
}

/// Returns whether a task with these namespaces sees the host's mounts.
#[inline(always)]
fn are_host<A: Access>(namespaces: NsProxy<A>) -> bool {
    namespaces.address() == SENSOR_NAMESPACES.get() || is_host(namespaces.mount_namespace())
}

/// Returns what is known about a cgroup.
#[inline(always)]
fn known(id: u64) -> Option<map::Cgroup> {
    CGROUPS.copied(&id)
}

/// Returns the container that a task runs in, or `None` if the task belongs to the host or its container is still being
/// set up.
#[inline(always)]
fn of(task: Task) -> Option<map::Cgroup> {
    let namespace = task.mount_namespace();
    if namespace == HOST_MNT_NS.load() { None } else { in_namespace(task, namespace, task.cgroup_id()) }
}

/// Returns the container that the running task runs in. Where that is possible, this takes fewer helpers than [`of`].
#[inline(always)]
pub fn of_current() -> Option<map::Cgroup> {
    let task = Task::current();
    let namespace = task.mount_namespace();
    if namespace == HOST_MNT_NS.load() {
        return None;
    }
    in_namespace(task, namespace, current_cgroup_id())
}

/// Returns the container that a task with this mount namespace, which is not the host's, and this cgroup runs in.
#[inline(always)]
fn in_namespace(task: Task, namespace: u32, cgroup: u64) -> Option<map::Cgroup> {
    match started(cgroup) {
        // The task is exiting and has no namespaces any more, but it is still in its cgroup.
        None if namespace == 0 => None,
        None => known(of_namespace(task, namespace)?),
        cgroup => cgroup,
    }
}

/// Returns the running container whose cgroup a task is in.
#[inline(always)]
fn of_cgroup(task: Task) -> Option<map::Cgroup> {
    started(task.cgroup_id())
}

/// Returns the running container to which the cgroup with this id belongs.
#[inline(always)]
fn started(id: u64) -> Option<map::Cgroup> {
    known(id).filter(|cgroup| cgroup.phase == PHASE_STARTED)
}

/// Returns the id of the container that started in the mount namespace of a task. A namespace can end before its
/// container, and its inode number is then given to another one: that of the next container, or of a service of the
/// host. The namespace of a container that was running before the sensor started is known only by its inode number, so
/// the root of the task must not be the host's either.
#[inline(always)]
fn of_namespace(task: Task, namespace: u32) -> Option<u64> {
    let started = MNT_NS.copied(&namespace)?;
    let is_same = match started.id {
        0 => !Root::of(task).is_host(),
        id => id == task.mount_namespace_id(),
    };
    is_same.then_some(started.container)
}

/// The root directory of a task.
struct Root {
    dentry: Dentry,
    device: u32,
    inode: u64,
}

impl Root {
    #[inline(always)]
    fn of(task: Task) -> Self {
        let dentry = task.root().dentry;
        let inode = dentry.inode();
        Self { dentry, device: inode.device(), inode: inode.number() }
    }

    #[inline(always)]
    fn is_host(&self) -> bool {
        self.device == HOST_ROOT_DEV.load() && self.inode == HOST_ROOT_INODE.load()
    }

    /// Returns the running container whose root is on this file system, or `None` if there is none or the file system
    /// is shared.
    #[inline(always)]
    fn container(&self) -> Option<map::Cgroup> {
        known(ROOTS.copied(&self.device)?)
    }
}

/// Returns the container in which the running task, which does not see the host's mounts, is about to execute a
/// program. It can be a container that this exec is going to start.
#[inline(always)]
pub fn of_executing(task: Task) -> Option<u64> {
    if let Some(cgroup) = of_current() {
        return Some(cgroup.container);
    }
    let (root, id) = (Root::of(task), current_cgroup_id());
    if let Some(cgroup) = entered_by_root(task, id, &root) {
        return Some(cgroup.container);
    }
    (!root.is_host() && !is_of_host(id)).then_some(id)
}

/// Returns the container that a task acts for: the one that it runs in or, if it has taken the host's mounts, the one
/// whose cgroup it is still in. Returns 0 if the task belongs to the host.
#[inline(always)]
pub fn responsible(task: Task) -> u64 {
    of(task).or_else(|| of_cgroup(task)).map_or(0, |cgroup| cgroup.container)
}

/// Notes that the running task, which is in no container, moves a task into the cgroup `to` of a running container, or
/// creates it there. It may have ended when the task executes a program there.
#[inline(always)]
pub fn note_mover(task: Task, to: u64) {
    if started(to).is_none() || of_current().is_some() {
        return;
    }
    let (moved, current) = (task.leader(), Task::current().leader());
    let mut by =
        Ancestor { start_time: current.start_time(), pid: current_process(), in_container: 0, comm: [0; COMM_LEN] };
    current.copy_comm(&mut by.comm);
    // If it cannot be kept, the task's parent is all that is known.
    let _unknown = MOVERS.insert(moved.process(), Mover { moved: moved.start_time(), by }, BPF_ANY.into());
}

/// Describes the process that has moved the one with this id and start time into the cgroup of a running container.
#[inline(always)]
pub fn describe_mover(process: u32, start_time: u64, out: &mut Ancestor) {
    mem::store(&mut out.pid, 0);
    let Some(mover) = MOVERS.copied(&process) else { return };
    if mover.moved == start_time {
        out.start_time = mover.by.start_time;
        out.comm = mover.by.comm;
        mem::store(&mut out.in_container, 0);
        mem::store(&mut out.pid, mover.by.pid);
    }
}

/// Returns the container that a task leaves when the running task moves it to the cgroup `to`, or creates it there.
/// Returns `None` if one of the two tasks is not a container's, or if the cgroup belongs to the same container.
#[inline(always)]
pub fn escaped(task: Task, to: u64) -> Option<u64> {
    of_current().map(|cgroup| cgroup.container).or_else(|| left(Task::current()))?;
    let container = left(task)?;
    match known(to) {
        Some(cgroup) if cgroup.container == container => None,
        _ => Some(container),
    }
}

/// Returns the container that a task belongs to by its mount namespace or, if the task has created a mount namespace of
/// its own, by its root.
#[inline(always)]
fn left(task: Task) -> Option<u64> {
    let namespace = task.mount_namespace();
    if is_host(namespace) {
        return None;
    }
    match of_namespace(task, namespace) {
        None => Some(Root::of(task).container()?.container),
        container => container,
    }
}

/// Returns whether a task runs in the container with this id, or for 0, whether it runs in none.
#[inline(always)]
pub fn contains(task: Task, container: u64) -> bool {
    // Without the 0, the compiler compares a register that is not initialised if there is no container, because the
    // result does not matter then. The verifier refuses such a program.
    of(task).map_or(0, |cgroup| cgroup.container) == container
}

/// Returns whether a task is in a user namespace that the rest of its container is not in, as sandboxes are. What it
/// mounts is then seen only by itself and its descendants, because a process with such credentials may mount only in a
/// mount namespace that belongs to its user namespace or to one below (`may_mount`, fs/namespace.c, 5.10 to 7.3), and
/// mounts there are not propagated to other namespaces (`copy_mnt_ns`, in the same file). A process that has entered
/// from outside can be in the host's user namespace.
#[inline(always)]
pub fn is_private(task: Task, container: &map::Cgroup) -> bool {
    let namespace = task.credentials().user_namespace();
    container.user_ns != 0 && namespace != container.user_ns && namespace != HOST_USER_NS
}

/// Returns whether a task was started in the container with this id: it is in the container's cgroup, and does not see
/// the host's mounts. A task that is only in the container's mount namespace came from outside, such as that of
/// `nsenter --mount --pid`, which forks to enter the pid namespace too.
#[inline(always)]
fn is_member(task: Task, container: u64) -> bool {
    task.mount_namespace() != HOST_MNT_NS.load() && of_cgroup(task).map_or(0, |cgroup| cgroup.container) == container
}

/// Returns the container of the running task, which has just executed a program, and the origin of the process. If this
/// exec is the first one from a root of its own, it starts the container.
#[inline(always)]
pub fn register_exec(task: Task) -> Option<(u64, Origin)> {
    actor::forget(current_process());
    if is_elsewhere() {
        // The task belongs to a container nevertheless if it has escaped from one, as with
        // `nsenter --target 1 --mount`.
        return started(current_cgroup_id()).map(|cgroup| (cgroup.container, Origin::Outside));
    }
    let (namespace, root, id) = (task.mount_namespace(), Root::of(task), current_cgroup_id());
    if let Some(cgroup) = entered(task, id, &root) {
        if cgroup.root == 0 && cgroup.root_dev == root.device {
            // The container was running before the probes were attached.
            note_upper(root.dentry, cgroup.container);
        }
        start_nested(task, id, namespace, &root);
        let origin = register_origin(task, cgroup.container);
        register_session(task, cgroup.container, origin);
        return Some((cgroup.container, origin));
    }
    if root.is_host() || is_of_host(id) {
        return None;
    }
    let new = map::Cgroup {
        container: id,
        root_dev: root.device,
        mnt_ns: namespace,
        phase: PHASE_STARTED,
        init: current_process(),
        root: root.dentry.address(),
        user_ns: task.credentials().user_namespace(),
        net_ns: task.network_namespace(),
        has_listened: 0,
        has_accepted: 0,
    };
    // If the container cannot be kept, nothing distinguishes this exec from the next ones.
    let is_kept = start(task, id, &new);
    let origin = if is_kept { Origin::Entrypoint } else { Origin::Unknown };
    register_session(task, id, origin);
    Some((id, origin))
}

/// Starts a container that runs inside another container, in a cgroup below. Its own image is watched as that of the
/// outer container.
#[inline(always)]
fn start_nested(task: Task, id: u64, namespace: u32, root: &Root) {
    let Some(outer) = started(id) else { return };
    if id == outer.container || root.device == outer.root_dev || !is_first(task) {
        return;
    }
    if root.dentry.superblock().is_overlay() {
        let nested = map::Cgroup { root_dev: root.device, mnt_ns: namespace, root: root.dentry.address(), ..outer };
        // If it cannot be kept, it is part of the outer container nevertheless.
        let _is_kept = start(task, id, &nested);
    }
}

/// Returns the running container that the running task is in. `id` is the id of the task's cgroup.
#[inline(always)]
fn entered(task: Task, id: u64, root: &Root) -> Option<map::Cgroup> {
    let entered = of_current();
    if entered.is_some() { entered } else { entered_by_root(task, id, root) }
}

/// Returns the running container whose root the running task has. If the task has created a mount namespace of its own,
/// its root can be all that shows the container. But in a cgroup that is not the host's, such a task starts another
/// container if it is the first process of its pid namespace, or if its root is a different directory, whose file
/// system has the device number of one that is gone.
#[inline(always)]
fn entered_by_root(task: Task, id: u64, root: &Root) -> Option<map::Cgroup> {
    let owner = root.container()?;
    let is_same = owner.root == 0 || owner.root == root.dentry.address();
    (is_of_host(id) || is_same && !is_first(task)).then_some(owner)
}

/// Returns whether a cgroup belongs to the host.
#[inline(always)]
fn is_of_host(id: u64) -> bool {
    matches!(known(id), Some(cgroup) if cgroup.phase == PHASE_HOST)
}

/// Returns whether a task belongs to the first process of a pid namespace other than the host's.
#[inline(always)]
fn is_first(task: Task) -> bool {
    matches!(task.namespace_pid(), (1, 1..))
}

/// Marks the container of a cgroup as started, and its image as watched. If another container already has the same
/// root, the image remains that container's. Returns `false` if there is no room for the container.
#[inline(always)]
fn start(task: Task, id: u64, cgroup: &map::Cgroup) -> bool {
    let before = ROOTS.copied(&cgroup.root_dev).and_then(known);
    let is_taken = matches!(before, Some(before) if before.root == cgroup.root && before.container != cgroup.container);
    let is_kept = CGROUPS.insert(id, cgroup, BPF_ANY.into()).is_ok();
    if !is_kept {
        count_loss(Loss::CgroupsFull);
    } else if id == cgroup.container {
        join_network(cgroup.net_ns);
    }
    note_upper(Dentry::new(cgroup.root), cgroup.container);
    let namespace = map::MountNamespace { container: cgroup.container, id: task.mount_namespace_id() };
    if !is_taken && ROOTS.insert(cgroup.root_dev, watch_root(cgroup), BPF_ANY.into()).is_err()
        || MNT_NS.insert(cgroup.mnt_ns, namespace, BPF_ANY.into()).is_err()
    {
        count_loss(Loss::RootsFull);
    }
    is_kept
}

/// Counts a container in a network namespace. If there is no room, it is not known who is in the namespace.
#[inline(always)]
fn join_network(network: u32) {
    let _is_known = NETWORKS.insert(network, 0, BPF_NOEXIST.into());
    if let Some(count) = NETWORKS.get_ptr_mut(network) {
        // SAFETY: the pointer is to a live element of the map, which is aligned to 8.
        unsafe { Counter::new(count) }.add(1);
    }
}

/// Counts a container less in a network namespace. If another one joins the namespace at the same time, the entry can
/// be missing afterwards.
#[inline(always)]
fn leave_network(network: u32) {
    let Some(count) = NETWORKS.get_ptr_mut(network) else { return };
    // SAFETY: the pointer is to a live element of the map, which is aligned to 8.
    let count = unsafe { Counter::new(count) };
    count.subtract(1);
    if count.get() == 0 {
        let _gone_already = NETWORKS.remove(network);
    }
}

/// Makes sure that the type of file system that a container's root is on is watched, and returns the owner of the
/// image: the container, or [`ROOTS_SHARED`] if the root is not the top of its file system. Such a root shares the file
/// system with other files, as the roots in btrfs subvolumes and plain directories do.
#[inline(always)]
fn watch_root(cgroup: &map::Cgroup) -> u64 {
    let root = Dentry::new(cgroup.root);
    let superblock = root.superblock();
    let (is_overlay, top) = (superblock.is_overlay(), superblock.top());
    if !is_overlay {
        // The array has one element. The update of an array element cannot fail.
        let _always_there = OTHER_ROOTS.set(0, 1, BPF_ANY.into());
    }
    if top == root { cgroup.container } else { ROOTS_SHARED }
}

/// Returns whether there are containers whose root is not on an overlay.
#[inline(always)]
pub fn has_other_roots() -> bool {
    matches!(OTHER_ROOTS.get(0), Some(others) if *others != 0)
}

/// Returns the container whose image is on the file system with this number. `dentry` is called only if images share
/// the file system.
#[inline(always)]
pub fn owner_of(device: u32, dentry: impl FnOnce() -> Dentry) -> Option<u64> {
    match ROOTS.copied(&device)? {
        ROOTS_SHARED => sharing(Task::current(), device, dentry()),
        owner => Some(owner),
    }
}

/// Notes where the upper directory of a container's root is, if the root is on an overlay.
#[inline(always)]
fn note_upper(root: Dentry, container: u64) {
    let superblock = root.superblock();
    if superblock.is_overlay() {
        // The map makes room by itself.
        let _always_fits = UPPERS.insert(superblock.top().inode().upper_dentry().address(), container, BPF_ANY.into());
    }
}

/// Returns the running container in whose upper directory a file is. The kernel reuses addresses, so a directory of a
/// running container can have the address that the upper directory of a removed container had. The search goes on then.
#[inline(always)]
pub fn owner_of_upper(file: Dentry) -> Option<u64> {
    let mut dentry = file;
    for _ in 0..PATH_DEPTH {
        let parent = dentry.parent();
        if parent == dentry || parent.is_null() {
            return None;
        }
        if let Some(container) = UPPERS.get_ptr(parent.address()) {
            // SAFETY: the pointer is to a live element of the map, which is aligned to 8.
            let container = unsafe { container.read_volatile() };
            if let Some(cgroup) = known(container) {
                return Some(cgroup.container);
            }
        }
        dentry = parent;
    }
    None
}

/// Returns the container of a task, if `dentry`, which is on a shared file system, is at or below the container's root.
#[inline(always)]
fn sharing(task: Task, device: u32, dentry: Dentry) -> Option<u64> {
    let cgroup = of(task)?;
    (cgroup.root_dev == device && dentry.is_below(root_of(cgroup.container, device))).then_some(cgroup.container)
}

/// Returns the root of a container on a device, or null for the top of the device's file system. The root is not known
/// if the container was running before the probes were attached. The device may then contain other files too. In this
/// case, only processes of the container are watched, so the container's root is that of the running task.
#[inline(always)]
pub fn root_of(container: u64, device: u32) -> Dentry {
    match known(container).map_or(0, |cgroup| cgroup.root) {
        0 if ROOTS.copied(&device) == Some(ROOTS_SHARED) => Task::current().root().dentry,
        root => Dentry::new(root),
    }
}

/// Registers a new cgroup. Below a running container, it belongs to that container; elsewhere, it may become a
/// container.
#[inline(always)]
pub fn add_cgroup(cgroup: Cgroup) {
    let Some(parent) = known(cgroup.parent_id()).filter(|parent| parent.phase == PHASE_STARTED) else { return };
    let state = known(parent.container).unwrap_or(parent);
    if CGROUPS.insert(cgroup.id(), state, BPF_ANY.into()).is_err() {
        count_loss(Loss::CgroupsFull);
    }
}

/// Forgets a cgroup that was removed, and that no task is in any more. If it was the cgroup of a container, or of a
/// container inside another one, the entries for its root and its mount namespace are removed before their numbers can
/// be used again.
#[inline(always)]
pub fn remove_cgroup(id: u64) {
    if let Some(cgroup) = known(id)
        && (cgroup.container == id
            || matches!(known(cgroup.container), Some(outer) if outer.root_dev != cgroup.root_dev))
    {
        if ROOTS.copied(&cgroup.root_dev) == Some(cgroup.container) {
            let _gone_already = ROOTS.remove(cgroup.root_dev);
        }
        if matches!(MNT_NS.copied(&cgroup.mnt_ns), Some(namespace) if namespace.container == cgroup.container) {
            let _gone_already = MNT_NS.remove(cgroup.mnt_ns);
        }
        if cgroup.container == id {
            leave_network(cgroup.net_ns);
        }
    }
    let _never_known = CGROUPS.remove(id);
}

/// Returns the container in which the running task changes a file on the image of the container `owner`, and the origin
/// of the process. Containers can share an image (one root directory that is mounted once); a task in any of them acts
/// in its own container. When a runtime prepares a container, this does not change the image of a running one, because
/// the root is not in `ROOTS` yet.
#[inline(always)]
pub fn register_actor(task: Task, owner: u64, root_dev: u32) -> (u64, Origin) {
    match of_current() {
        Some(cgroup) if cgroup.container == owner || cgroup.root_dev == root_dev => {
            (cgroup.container, register_origin(task, cgroup.container))
        }
        _ if has_entered(current_process(), owner) => (owner, Origin::Entered),
        _ if !is_elsewhere() && known(owner).is_none() => (owner, Origin::Unknown),
        _ => (owner, Origin::Outside),
    }
}

/// Returns which actor the running process is, and remembers it. `container` and `origin` are what [`register_actor`]
/// has found.
#[inline(always)]
pub fn actor(task: Task, container: u64, origin: Origin) -> u64 {
    let process = current_process();
    let actor = match ENTERED.copied(&process) {
        Some(entered) => map::visit(entered.session.start_time),
        None => match origin {
            // The map is full.
            Origin::Entered => map::visit(task.leader().start_time()),
            // A process of a container that has got out to the host's mounts is still in its cgroup.
            Origin::Outside if is_elsewhere() => started(current_cgroup_id()).map_or(HOST, |cgroup| cgroup.container),
            // This is another container, or a service of the host that has its own mounts.
            Origin::Outside | Origin::Unknown => current_cgroup_id(),
            Origin::Entrypoint | Origin::Application => container,
        },
    };
    actor::remember(process, actor);
    actor
}

/// Returns whether a process was brought into a container from outside, or descends from such a process.
#[inline(always)]
fn has_entered(process: u32, container: u64) -> bool {
    matches!(ENTERED.copied(&process), Some(entered)
        if entered.container == container && Via::from_number(entered.session.via).is_some_and(Via::is_entry))
}

/// Returns the session of the running process.
#[inline(always)]
pub fn session() -> Session {
    ENTERED.copied(&current_process()).map_or(Session::NONE, |entered| entered.session)
}

/// Returns whether no record is sent of an act of the running process in a container, because that is not watched.
#[inline(always)]
pub fn is_unsent(container: u64, kind: Kind) -> bool {
    UNWATCHED.get_ptr(container).is_some() && is_unsent_if_unwatched(kind, session().via)
}

/// Begins a session if the program that the running process has just executed has a terminal that the container was
/// started with or has opened, or a socket as its standard input. All descendants of the process are in the session.
#[inline(always)]
fn register_session(task: Task, container: u64, origin: Origin) {
    let terminal = task.terminal();
    let via = match origin {
        Origin::Entrypoint if !terminal.is_null() => Via::Entrypoint,
        Origin::Application if task.descriptor(0).inode().is_socket() => Via::Socket,
        Origin::Application if !terminal.is_null() && terminal != task.parent().terminal() => Via::Terminal,
        _ => return,
    };
    if ENTERED.get_ptr(current_process()).is_none() {
        begin_session(task, container, via);
    }
}

/// Begins a session whose first process is the running one.
#[inline(always)]
fn begin_session(task: Task, container: u64, via: Via) {
    let session = Session { start_time: task.leader().start_time(), pid: current_process(), via: via.number() };
    keep_entered(current_process(), map::Entered { container, session });
}

/// Returns the origin of the running process in its container. If the process came from outside, this is kept for its
/// descendants.
#[inline(always)]
pub fn register_origin(task: Task, container: u64) -> Origin {
    let process = current_process();
    if has_entered(process, container) {
        return Origin::Entered;
    }
    let init = known(container).map_or(0, |cgroup| cgroup.init);
    let is_init = if init == 0 { is_first(task) } else { init == process };
    if is_init {
        return Origin::Entrypoint;
    }
    if is_member(task.parent(), container) {
        return Origin::Application;
    }
    let is_in_cgroup = started(current_cgroup_id()).map_or(0, |cgroup| cgroup.container) == container;
    begin_session(task, container, if is_in_cgroup { Via::Exec } else { Via::Nsenter });
    Origin::Entered
}

/// Returns the number in [`INSIDE`] if the session began inside a container.
#[inline(always)]
fn inside(session: Session) -> Option<Counter> {
    if Via::from_number(session.via).is_some_and(Via::is_entry) {
        return None;
    }
    // SAFETY: the pointer is to a live element of the map, which is aligned to 8.
    INSIDE.get_ptr_mut(0).map(|count| unsafe { Counter::new(count) })
}

/// Keeps that a process is in a session in which it was not before.
#[inline(always)]
fn keep_entered(process: u32, entered: map::Entered) {
    let inside = inside(entered.session);
    // The daemon can correct the number to one that is too low, because processes begin and end meanwhile.
    if matches!(&inside, Some(inside) if inside.get().cast_signed() >= MOST_INSIDE.cast_signed()) {
        count_loss(Loss::SessionProcesses);
        return;
    }
    if ENTERED.insert(process, entered, BPF_ANY.into()).is_err() {
        count_loss(Loss::EnteredFull);
        return;
    }
    if let Some(inside) = inside {
        inside.add(1);
    }
    match SESSIONS.get_ptr_mut(entered.session) {
        // SAFETY: the pointer is to a live element of the map, which is aligned to 8.
        Some(count) => unsafe { Counter::new(count) }.add(1),
        // If there is no room, the daemon finds out that the session has ended.
        None => {
            let _full = SESSIONS.insert(entered.session, 1, BPF_ANY.into());
        }
    }
}

/// Registers a fork. The child of a process of a session is in the session too, even if it outlives its parent and is
/// reparented to the container's init.
#[inline(always)]
pub fn register_fork(parent: u32, child: u32) {
    actor::forget(child);
    if let Some(entered) = ENTERED.copied(&parent) {
        keep_entered(child, entered);
    }
}

/// Forgets a process whose last thread, the running task, exits. If the process is in a session, this reports its end.
#[inline(always)]
pub fn forget_process(process: u32) {
    actor::forget(process);
    let Some(entered) = ENTERED.copied(&process) else { return };
    let _was_there = ENTERED.remove(process);
    if let Some(inside) = inside(entered.session) {
        inside.subtract(1);
    }
    let is_last = leave_session(entered.session);
    let (task, stamp) = (Task::current(), Stamp::take());
    let cgroup = task.cgroup_id();
    let Some(mut draft) = Draft::<ExitRecord>::begin(Kind::Exit, stamp, cgroup, entered.container, Loss::Exit) else {
        return;
    };
    let (record, _) = draft.parts();
    record.session = entered.session;
    record.start_time = task.leader().start_time();
    record.pid = process;
    record.status = task.exit_status();
    record.is_last = u32::from(is_last);
    record.reserved = 0;
    // If it is not sent, the loss is counted.
    let _is_sent = draft.send();
}

/// Reports that the running task listens on a socket, if it is the first one of its container that does.
#[inline(always)]
pub fn report_listening(task: Task) {
    // SAFETY: `report_first` passes pointers to live elements and variables.
    let has_listened = |cgroup: *mut map::Cgroup| unsafe { &raw mut (*cgroup).has_listened };
    report_first(task, Kind::Listen, Loss::Listen, has_listened, |_| true);
}

/// Reports that the running task accepts a connection, if it is the first one of its container that does. What comes
/// from the container itself does not count. This is known if both ends are in a network namespace in which no other
/// container is, and none of the processes that forward ports into the containers of a user's runtime.
#[inline(always)]
pub fn report_accepting(task: Task, sock: Sock) {
    let is_from_elsewhere = |cgroup: &map::Cgroup| match sock.only_network() {
        Some(network) => {
            network != cgroup.net_ns || cgroup.user_ns != HOST_USER_NS || NETWORKS.copied(&network) != Some(1)
        }
        None => true,
    };
    // SAFETY: as in `report_listening`.
    let has_accepted = |cgroup: *mut map::Cgroup| unsafe { &raw mut (*cgroup).has_accepted };
    report_first(task, Kind::Accept, Loss::Accept, has_accepted, is_from_elsewhere);
}

/// Reports what the running task does, if `counts` says so, and if it is the first one of its container that does it.
/// `flag` is where the container's entry says whether that was reported. The task is in the container's cgroup or one
/// below, so the entry stays that of this container meanwhile.
#[inline(always)]
fn report_first(
    task: Task,
    kind: Kind,
    loss: Loss,
    flag: impl Fn(*mut map::Cgroup) -> *mut u32,
    counts: impl FnOnce(&map::Cgroup) -> bool,
) {
    let Some(mut cgroup) = of_cgroup(task) else { return };
    // SAFETY: the pointer is to a variable.
    if unsafe { *flag(&raw mut cgroup) } != 0 {
        return;
    }
    let Some(container) = CGROUPS.get_ptr_mut(cgroup.container) else { return };
    let flag = flag(container);
    // SAFETY: the number is in a live element of the map and aligned to 4, and the load does not tear.
    if unsafe { flag.read_volatile() } != 0 || !counts(&cgroup) {
        return;
    }
    let (stamp, id) = (Stamp::take(), task.cgroup_id());
    let Some(mut draft) = Draft::<SocketRecord>::begin(kind, stamp, id, cgroup.container, loss) else { return };
    let (record, _) = draft.parts();
    record.start_time = task.leader().start_time();
    record.pid = current_process();
    record.reserved = 0;
    if draft.send() {
        // SAFETY: as above, and the store does not tear.
        unsafe { flag.write_volatile(1) };
    }
}

/// Counts one process less in a session. Returns whether none is left.
#[inline(always)]
fn leave_session(session: Session) -> bool {
    let Some(count) = SESSIONS.get_ptr_mut(session) else { return false };
    // SAFETY: the pointer is to a live element of the map, which is aligned to 8.
    let count = unsafe { Counter::new(count) };
    count.subtract(1);
    let is_last = count.get() == 0;
    if is_last {
        let _gone_already = SESSIONS.remove(session);
    }
    is_last
}
