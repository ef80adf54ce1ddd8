//! `struct task_struct` and the structs that it refers to: the process that acts.

use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_current_task, bpf_get_current_task_btf,
};
use detector_common::{
    offsets::ABSENT,
    record::{COMM_LEN, NO_LOGIN, Peer, Stdio, TEXT_TRUNCATED},
};

use super::{
    cgroup::is_hierarchy_default,
    offsets::*,
    path::Place,
    pointer::{Access, Direct, File, NsProxy, Ptr, Task, kind},
};
use crate::mem::{self, UserAddress};

/// Returns the id of the running process (thread group), in the host's pid namespace.
#[inline(always)]
pub fn current_process() -> u32 {
    (current_thread() >> 32) as u32
}

/// Returns the running thread in the host's pid namespace: the id of its process (thread group) in the upper half, and
/// its own id in the lower half.
#[inline(always)]
pub fn current_thread() -> u64 {
    // SAFETY: the helper takes no argument and changes nothing.
    unsafe { bpf_get_current_pid_tgid() }
}

/// Returns the running task as one whose type the verifier knows, so that it is read without a helper, if the kernel
/// can tell it. Otherwise, the verifier does not look at the call of the helper, which may not exist.
///
/// A program must do this seldom. The verifier searches all types of the kernel several times by name for each pointer
/// that is read from such a task (`btf_nested_type_is_trusted`, kernel/bpf/btf.c, 6.18).
#[inline(always)]
pub fn typed_current() -> Option<Task<Direct>> {
    if HELPER_TYPED_TASK.load() == ABSENT {
        return None;
    }
    // SAFETY: the helper takes no argument and changes nothing, and the verifier knows the type of the result.
    Some(unsafe { Ptr::trust(bpf_get_current_task_btf() as u64) })
}

/// Returns the id of the cgroup that the running task is in.
#[inline(always)]
pub fn current_cgroup_id() -> u64 {
    if is_hierarchy_default() {
        // SAFETY: the helper takes no argument and changes nothing.
        return unsafe { bpf_get_current_cgroup_id() };
    }
    Task::current().cgroup_id()
}

impl<A: Access> Task<A> {
    /// Returns the id of the process (thread group), in the host's pid namespace.
    #[inline(always)]
    pub fn process(self) -> u32 {
        self.read(&OFF_TASK_TGID)
    }

    /// Returns the namespaces, or null for a task that has none any more because it is exiting.
    #[inline(always)]
    pub fn namespaces(self) -> NsProxy<A> {
        self.follow(&OFF_TASK_NSPROXY)
    }

    /// Returns the inode number of the mount namespace, or 0 for a task that has no namespaces any more because it is
    /// exiting.
    #[inline(always)]
    pub fn mount_namespace(self) -> u32 {
        self.namespaces().mount_namespace()
    }

    /// Returns the inode number of the network namespace, or 0 for a task that has no namespaces any more.
    #[inline(always)]
    pub fn network_namespace(self) -> u32 {
        self.namespaces().probed().follow::<kind::Network>(&OFF_NSPROXY_NET).read(&OFF_NET_INUM)
    }

    #[inline(always)]
    fn signal(self) -> Ptr<kind::Signal, A> {
        self.follow(&OFF_TASK_SIGNAL)
    }

    /// Returns whether no thread of the process lives any more. This is the case when the last one exits.
    #[inline(always)]
    pub fn is_last_of_process(self) -> bool {
        self.signal().read::<u32>(&OFF_SIGNAL_LIVE) == 0
    }
}

impl<A: Access> NsProxy<A> {
    /// Returns the inode number of the mount namespace, or 0 for a task that has no namespaces any more.
    #[inline(always)]
    pub fn mount_namespace(self) -> u32 {
        if self.is_null() {
            return 0;
        }
        self.follow::<kind::MountNamespace>(&OFF_NSPROXY_MNT).read(&OFF_MNT_NS_INUM)
    }
}

impl Task {
    /// Returns the running task.
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: the helper takes no argument and changes nothing.
        Self::new(unsafe { bpf_get_current_task() })
    }

    /// Returns the first thread of the process.
    #[inline(always)]
    pub fn leader(self) -> Self {
        self.follow(&OFF_TASK_LEADER)
    }

    /// Returns the first thread of the process's parent. All threads of a process have the same parent
    /// (`copy_process`, kernel/fork.c; `forget_original_parent`, kernel/exit.c, 5.10 to 7.3).
    #[inline(always)]
    pub fn parent(self) -> Self {
        self.follow::<kind::Task>(&OFF_TASK_PARENT).leader()
    }

    /// Returns the time when the thread started, in nanoseconds of `CLOCK_BOOTTIME`.
    #[inline(always)]
    pub fn start_time(self) -> u64 {
        self.read(&OFF_TASK_START)
    }

    /// Copies `comm`, the name that the thread can choose.
    #[inline(always)]
    pub fn copy_comm(self, to: &mut [u8; COMM_LEN]) {
        self.copy(&OFF_TASK_COMM, to);
    }

    /// Returns the controlling terminal, or null.
    #[inline(always)]
    pub fn terminal(self) -> Ptr<kind::Tty> {
        self.signal().follow(&OFF_SIGNAL_TTY)
    }

    /// Copies the start of the name of the controlling terminal, or zeros if there is none.
    #[inline(always)]
    pub fn copy_terminal(self, to: &mut [u8; COMM_LEN]) {
        // `tty_struct.name` has 64 bytes.
        self.terminal().copy(&OFF_TTY_NAME, to);
    }

    /// Returns how the process has ended, in the encoding of wait(2), once its last thread exits (`wait_task_zombie`,
    /// kernel/exit.c, 5.10 to 7.3).
    #[inline(always)]
    pub fn exit_status(self) -> u32 {
        const SIGNAL_GROUP_EXIT: u32 = 4;
        let signal = self.signal();
        if signal.read::<u32>(&OFF_SIGNAL_FLAGS) & SIGNAL_GROUP_EXIT != 0 {
            return signal.read(&OFF_SIGNAL_EXIT);
        }
        self.leader().read(&OFF_TASK_EXIT)
    }

    /// Returns `real_cred`. `cred` is not used, because overlayfs changes it while it works for the process
    /// (`ovl_override_creds`).
    #[inline(always)]
    pub fn credentials(self) -> Credentials {
        Credentials(self.follow(&OFF_TASK_CRED))
    }

    /// Returns the id of the user who logged in, which does not change with the process's user id. Returns [`NO_LOGIN`]
    /// if nobody logged in or the kernel does not record it.
    #[inline(always)]
    pub fn login_user(self) -> u32 {
        match OFF_TASK_LOGINUID.load() {
            ABSENT => NO_LOGIN,
            at => self.read_at(at),
        }
    }

    /// Returns the kernel's number of the mount namespace, which is never given to another one (`alloc_mnt_ns`,
    /// fs/namespace.c, 5.10 to 6.17; `__ns_tree_gen_id`, kernel/nstree.c, from 6.18).
    #[inline(always)]
    pub fn mount_namespace_id(self) -> u64 {
        self.namespaces().follow::<kind::MountNamespace>(&OFF_NSPROXY_MNT).read(&OFF_MNT_NS_ID)
    }

    /// Returns the namespaces and cgroups.
    #[inline(always)]
    pub fn surroundings(self) -> Surroundings {
        Surroundings { namespaces: self.namespaces(), cgroups: self.follow(&OFF_TASK_CGROUPS) }
    }

    #[inline(always)]
    fn fs(self) -> Ptr<kind::FsStruct> {
        self.follow(&OFF_TASK_FS)
    }

    /// Returns the root directory.
    #[inline(always)]
    pub fn root(self) -> Place {
        let fs = self.fs();
        Place { dentry: fs.follow(&OFF_FS_ROOT_DENTRY), mount: fs.follow(&OFF_FS_ROOT_MNT) }
    }

    /// Returns the working directory.
    #[inline(always)]
    pub fn working_directory(self) -> Place {
        let fs = self.fs();
        Place { dentry: fs.follow(&OFF_FS_PWD_DENTRY), mount: fs.follow(&OFF_FS_PWD_MNT) }
    }

    /// Returns whether memory that is mapped readable becomes executable too (`READ_IMPLIES_EXEC`, personality(2)).
    #[inline(always)]
    pub fn executes_what_it_reads(self) -> bool {
        const READ_IMPLIES_EXEC: u32 = 0x40_0000;
        self.read::<u32>(&OFF_TASK_PERSONALITY) & READ_IMPLIES_EXEC != 0
    }

    #[inline(always)]
    fn memory(self) -> Ptr<kind::Memory> {
        self.follow(&OFF_TASK_MM)
    }

    /// Returns whether this is a thread of the kernel, which has no memory of its own. What it writes was asked for by
    /// a process, as by one that has attached a file to a loop device.
    #[inline(always)]
    pub fn is_of_kernel(self) -> bool {
        self.memory().is_null()
    }

    /// Returns the executable (`mm->exe_file`).
    #[inline(always)]
    pub fn executable(self) -> File {
        self.memory().follow(&OFF_MM_EXE)
    }

    /// Returns the process's id in its own pid namespace, and the depth of that namespace, which is 0 for the host's.
    #[inline(always)]
    pub fn namespace_pid(self) -> (u32, u32) {
        let pid: Ptr<kind::Pid> = self.leader().follow(&OFF_TASK_PID_STRUCT);
        let level: u32 = pid.read(&OFF_PID_LEVEL);
        // `numbers` is an array of `struct upid` with one element for each level (`pid_nr_ns`, kernel/pid.c).
        let number = OFF_PID_NUMBERS.load() + u64::from(level) * SIZE_UPID.load() + OFF_UPID_NR.load();
        (pid.read_at(number), level)
    }

    /// Returns the table of descriptors. The RCU read lock need not be taken to read it, because BPF programs run in an
    /// RCU read-side critical section.
    #[inline(always)]
    fn descriptors(self) -> Ptr<kind::FdTable> {
        self.follow::<kind::FilesStruct>(&OFF_TASK_FILES).follow(&OFF_FILES_FDT)
    }

    /// Returns the file that a descriptor of the running task refers to, or null.
    #[inline(always)]
    pub fn descriptor(self, number: u32) -> File {
        let table = self.descriptors();
        let files: Ptr<kind::FileArray> = table.follow(&OFF_FDT_FD);
        if number < table.read::<u32>(&OFF_FDT_MAX) { files.get(number) } else { File::NULL }
    }

    /// Describes the first three descriptors, and the other end of the first one, if that is a socket.
    #[inline(always)]
    pub fn describe_standard_descriptors(self, out: &mut [Stdio; 3], peer: &mut Peer) {
        let table = self.descriptors();
        let files: Ptr<kind::FileArray> = table.follow(&OFF_FDT_FD);
        let size: u32 = table.read(&OFF_FDT_MAX);
        for fd in 0..3_u32 {
            // Everything reads as zero for a closed descriptor.
            let open = if fd < size { files.get(fd) } else { File::NULL };
            let inode = open.inode();
            if fd == 0 {
                open.describe_peer(peer);
            }
            let stdio = &mut out[fd as usize];
            stdio.inode = inode.number();
            stdio.mode = inode.mode();
            stdio.rdev = inode.represented_device();
        }
    }

    /// Returns a hash of the first bytes of the arguments. See [`copy_arguments`](Self::copy_arguments).
    #[inline(always)]
    pub fn hash_arguments(self) -> u32 {
        let mut start = [0_u8; 32];
        let (from, len) = self.arguments();
        // All arguments that cannot be read have the same hash.
        let _unreadable = from.copy(&mut start, len);
        let (words, _) = start.as_chunks::<8>();
        let hash = words
            .iter()
            .fold(0_u64, |hash, word| (hash ^ u64::from_ne_bytes(*word)).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        (hash >> 32) as u32
    }

    /// Copies the arguments of the running process from the place where the kernel put them for the new program: the
    /// process has not run yet and cannot have changed them. Returns the number of bytes, and the flags of the text.
    #[inline(always)]
    pub fn copy_arguments<const N: usize>(self, to: &mut [u8; N]) -> (u32, u32) {
        let (from, len) = self.arguments();
        let copied = from.copy(to, len);
        let flags = if copied.is_none() || len > N as u64 { TEXT_TRUNCATED } else { 0 };
        (copied.unwrap_or(0), flags)
    }

    /// Returns the address of the arguments and their length in bytes.
    #[inline(always)]
    fn arguments(self) -> (UserAddress, u64) {
        let memory = self.memory();
        let start: UserAddress = memory.read(&OFF_MM_ARG_START);
        let end: UserAddress = memory.read(&OFF_MM_ARG_END);
        (start, end.since(start))
    }
}

/// What decides which container a task is in. Processes that are forked share it with their parent, until they change
/// it.
#[derive(Clone, Copy)]
pub struct Surroundings {
    namespaces: NsProxy,
    cgroups: Ptr<kind::CssSet>,
}

impl Surroundings {
    /// The surroundings of no task.
    pub const NONE: Self = Self { namespaces: Ptr::NULL, cgroups: Ptr::NULL };
}

impl PartialEq for Surroundings {
    /// This is one comparison, for the reason that [`mem::is_same`] gives.
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        let namespaces = self.namespaces.address() ^ other.namespaces.address();
        let cgroups = self.cgroups.address() ^ other.cgroups.address();
        mem::is_same(namespaces | cgroups, 0)
    }
}

/// The credentials of a task: `struct cred`.
#[derive(Clone, Copy)]
pub struct Credentials(Ptr<kind::Credentials>);

impl Credentials {
    /// Returns the user id in the host's user namespace.
    #[inline(always)]
    pub fn user(self) -> u32 {
        self.0.read(&OFF_CRED_UID)
    }

    /// Returns the group id in the host's user namespace.
    #[inline(always)]
    pub fn group(self) -> u32 {
        self.0.read(&OFF_CRED_GID)
    }

    /// Returns the effective capabilities, one bit for each.
    #[inline(always)]
    pub fn capabilities(self) -> u64 {
        self.0.read(&OFF_CRED_CAPABILITIES)
    }

    /// Returns the inode number of the user namespace.
    #[inline(always)]
    pub fn user_namespace(self) -> u32 {
        self.0.follow::<kind::UserNamespace>(&OFF_CRED_USER_NS).read(&OFF_USER_NS_INUM)
    }

    /// Returns whether the task has `CAP_SYS_ADMIN` in its own user namespace, and so may mount file systems there.
    #[inline(always)]
    pub fn may_mount(self) -> bool {
        /// The number of the capability (include/uapi/linux/capability.h).
        const CAP_SYS_ADMIN: u64 = 21;
        self.capabilities() & 1 << CAP_SYS_ADMIN != 0
    }
}
