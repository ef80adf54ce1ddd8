//! `struct task_struct` and what hangs on it: who acts.

use aya_ebpf::helpers::generated::{bpf_get_current_pid_tgid, bpf_get_current_task, bpf_probe_read_user};
use detector_common::{
    offsets::ABSENT,
    record::{ANCESTORS, Ancestor, NO_LOGIN, Process, Stdio, TEXT_TRUNCATED, Text},
};

use super::{
    file,
    mem::{self, Addr},
    offsets::*,
    path::Place,
};

/// The running task.
#[inline(always)]
pub fn current() -> Addr {
    // SAFETY: no argument, no effect.
    unsafe { bpf_get_current_task() }
}

/// The running process's id (thread group), in the host's pid namespace.
#[inline(always)]
pub fn current_tgid() -> u32 {
    (current_thread() >> 32) as u32
}

/// A task's process id (thread group), in the host's pid namespace.
#[inline(always)]
pub fn tgid(task: Addr) -> u32 {
    // SAFETY: a `pid_t`.
    unsafe { mem::read(task, OFF_TASK_TGID.load()) }
}

/// The running thread: its process (thread group) in the upper half, itself in the lower.
#[inline(always)]
pub fn current_thread() -> u64 {
    // SAFETY: no argument, no effect.
    unsafe { bpf_get_current_pid_tgid() }
}

/// Whether no thread of a task's process lives any more, as is so when the last one exits.
#[inline(always)]
pub fn is_last(task: Addr) -> bool {
    // SAFETY: a pointer and an `int`.
    unsafe {
        let signal: Addr = mem::read(task, OFF_TASK_SIGNAL.load());
        mem::read::<u32>(signal, OFF_SIGNAL_LIVE.load()) == 0
    }
}

/// Whether a task may mount in its own user namespace: it has `CAP_SYS_ADMIN` there.
#[inline(always)]
pub fn may_mount(task: Addr) -> bool {
    /// Number of the capability (include/uapi/linux/capability.h).
    const CAP_SYS_ADMIN: u32 = 21;
    // SAFETY: a pointer and the lower half of a set of 64 bits, which is in front in both of its forms (an array of two
    // `__u32` to 6.2, one `u64` from 6.3).
    unsafe {
        let credentials: Addr = mem::read(task, OFF_TASK_CRED.load());
        mem::read::<u32>(credentials, OFF_CRED_CAPABILITIES.load()) & 1 << CAP_SYS_ADMIN != 0
    }
}

/// The leader of the thread group of a task's parent.
#[inline(always)]
pub fn parent(task: Addr) -> Addr {
    // SAFETY: pointers.
    unsafe {
        let leader: Addr = mem::read(task, OFF_TASK_LEADER.load());
        let parent: Addr = mem::read(leader, OFF_TASK_PARENT.load());
        mem::read(parent, OFF_TASK_LEADER.load())
    }
}

/// Inode number of a task's mount namespace; 0 for a task that has exited.
#[inline(always)]
pub fn mount_namespace(task: Addr) -> u32 {
    // SAFETY: pointers and an `unsigned int`.
    unsafe {
        let proxy: Addr = mem::read(task, OFF_TASK_NSPROXY.load());
        if proxy == 0 {
            return 0;
        }
        let namespace: Addr = mem::read(proxy, OFF_NSPROXY_MNT.load());
        mem::read(namespace, OFF_MNT_NS_INUM.load())
    }
}

/// The kernel's number of a task's mount namespace, which no other one gets (`alloc_mnt_ns`, fs/namespace.c, 5.10 to
/// 6.17; `__ns_tree_gen_id`, kernel/nstree.c, from 6.18).
#[inline(always)]
pub fn mount_namespace_id(task: Addr) -> u64 {
    // SAFETY: pointers and a `u64`.
    unsafe {
        let proxy: Addr = mem::read(task, OFF_TASK_NSPROXY.load());
        let namespace: Addr = mem::read(proxy, OFF_NSPROXY_MNT.load());
        mem::read(namespace, OFF_MNT_NS_ID.load())
    }
}

/// The root directory of a task.
#[inline(always)]
pub fn root(task: Addr) -> Place {
    // SAFETY: pointers.
    unsafe {
        let fs: Addr = mem::read(task, OFF_TASK_FS.load());
        Place { dentry: mem::read(fs, OFF_FS_ROOT_DENTRY.load()), mnt: mem::read(fs, OFF_FS_ROOT_MNT.load()) }
    }
}

/// The working directory of a task.
#[inline(always)]
pub fn cwd(task: Addr) -> Place {
    // SAFETY: pointers.
    unsafe {
        let fs: Addr = mem::read(task, OFF_TASK_FS.load());
        Place { dentry: mem::read(fs, OFF_FS_PWD_DENTRY.load()), mnt: mem::read(fs, OFF_FS_PWD_MNT.load()) }
    }
}

/// The executable of a task (`mm->exe_file`), as dentry and vfsmount.
#[inline(always)]
pub fn executable(task: Addr) -> Place {
    // SAFETY: pointers.
    let (dentry, mnt) = unsafe {
        let mm: Addr = mem::read(task, OFF_TASK_MM.load());
        file::path(mem::read(mm, OFF_MM_EXE.load()))
    };
    Place { dentry, mnt }
}

/// Process id of the running task in its own pid namespace, and the depth of that namespace (0: the host's).
#[inline(always)]
pub fn namespace_pid(task: Addr) -> (u32, u32) {
    // SAFETY: pointers and integers. `numbers` is an array of `struct upid` with one element a level
    // (`pid_nr_ns`, kernel/pid.c).
    unsafe {
        let leader: Addr = mem::read(task, OFF_TASK_LEADER.load());
        let pid: Addr = mem::read(leader, OFF_TASK_PID_STRUCT.load());
        let level: u32 = mem::read(pid, OFF_PID_LEVEL.load());
        let number = OFF_PID_NUMBERS.load() + u64::from(level) * SIZE_UPID.load() + OFF_UPID_NR.load();
        (mem::read(pid, number), level)
    }
}

/// Fills `out` with the running process; `in_container` tells whether an ancestor is in its container.
#[inline(always)]
pub fn describe(task: Addr, origin: u32, container: u64, in_container: fn(Addr, u64) -> bool, out: *mut Process) {
    // SAFETY: `out` is a record in the ring buffer; the helpers have no effect.
    unsafe {
        let ids = bpf_get_current_pid_tgid();
        // Not `cred`, which overlayfs changes while it works for the process (`ovl_override_creds`).
        let credentials: Addr = mem::read(task, OFF_TASK_CRED.load());
        let leader: Addr = mem::read(task, OFF_TASK_LEADER.load());
        (*out).start_time = mem::read(leader, OFF_TASK_START.load());
        (*out).pid = (ids >> 32) as u32;
        (*out).tid = ids as u32;
        (*out).ns_pid = namespace_pid(task).0;
        (*out).ppid = tgid(parent(task));
        (*out).uid = mem::read(credentials, OFF_CRED_UID.load());
        (*out).gid = mem::read(credentials, OFF_CRED_GID.load());
        (*out).origin = origin;
        (*out).login_uid = match OFF_TASK_LOGINUID.load() {
            ABSENT => NO_LOGIN,
            at => mem::read(task, at),
        };
        (*out).capabilities = mem::read(credentials, OFF_CRED_CAPABILITIES.load());
        mem::copy(&raw mut (*out).comm, leader, OFF_TASK_COMM.load());
        // `tty_struct.name` has 64 bytes; without a terminal, zeroes come of it.
        let signal: Addr = mem::read(task, OFF_TASK_SIGNAL.load());
        let tty: Addr = mem::read(signal, OFF_SIGNAL_TTY.load());
        mem::copy(&raw mut (*out).tty, tty, OFF_TTY_NAME.load());
    }
    standard_descriptors(task, out);
    ancestors(task, container, in_container, out);
}

/// What the descriptors 0 to 2 are.
#[inline(always)]
fn standard_descriptors(task: Addr, out: *mut Process) {
    // SAFETY: pointers and integers; `out` is a record in the ring buffer. The table is read without RCU's lock, as BPF
    // programs run inside an RCU read section.
    unsafe {
        let files: Addr = mem::read(task, OFF_TASK_FILES.load());
        let table: Addr = mem::read(files, OFF_FILES_FDT.load());
        let array: Addr = mem::read(table, OFF_FDT_FD.load());
        let size: u32 = mem::read(table, OFF_FDT_MAX.load());
        for fd in 0..3_u32 {
            let open: Addr = if fd < size { mem::read(array, u64::from(fd) * size_of::<Addr>() as u64) } else { 0 };
            // Of a closed descriptor everything reads as zero.
            let inode = file::inode::<mem::Untyped>(open);
            let stdio: *mut Stdio = &raw mut (*out).stdio[fd as usize];
            (*stdio).inode = file::number::<mem::Untyped>(inode);
            (*stdio).mode = u32::from(mem::read::<u16>(inode, OFF_INODE_MODE.load()));
            (*stdio).rdev = mem::read(inode, OFF_INODE_RDEV.load());
        }
    }
}

/// The processes above.
#[inline(always)]
fn ancestors(task: Addr, container: u64, in_container: fn(Addr, u64) -> bool, out: *mut Process) {
    let mut above = task;
    for level in 0..ANCESTORS {
        above = parent(above);
        let pid = tgid(above);
        // SAFETY: an integer and a name; `out` is a record in the ring buffer.
        unsafe {
            let ancestor: *mut Ancestor = &raw mut (*out).ancestors[level];
            (*ancestor).pid = pid;
            (*ancestor).start_time = mem::read(above, OFF_TASK_START.load());
            (*ancestor).in_container = u32::from(in_container(above, container));
            mem::copy(&raw mut (*ancestor).comm, above, OFF_TASK_COMM.load());
        }
    }
}

/// A hash of the first bytes of the running process's arguments; see [`arguments`].
#[inline(always)]
pub fn hash_of_arguments(task: Addr) -> u32 {
    let mut start = [0_u64; 4];
    // SAFETY: pointers and integers; `start` has room for the bytes.
    unsafe {
        let mm: Addr = mem::read(task, OFF_TASK_MM.load());
        let from: u64 = mem::read(mm, OFF_MM_ARG_START.load());
        let whole = mem::read::<u64>(mm, OFF_MM_ARG_END.load()).wrapping_sub(from);
        let room = size_of_val(&start) as u64;
        let len = if whole > room { room } else { whole };
        // What cannot be read is no difference.
        let _unreadable = bpf_probe_read_user((&raw mut start).cast(), len as u32, from as *const _);
    }
    let hash = start.iter().fold(0_u64, |hash, part| (hash ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (hash >> 32) as u32
}

/// Fills `out` with the running process's arguments, from the place where the kernel put them for the new program: the
/// process has not run yet and cannot have changed them.
#[inline(always)]
pub fn arguments<const N: usize>(task: Addr, out: *mut Text<N>) {
    // SAFETY: pointers and integers; `out` is in a record, or an element of a map, and has room for `N` bytes.
    unsafe {
        let mm: Addr = mem::read(task, OFF_TASK_MM.load());
        let start: u64 = mem::read(mm, OFF_MM_ARG_START.load());
        let end: u64 = mem::read(mm, OFF_MM_ARG_END.load());
        let whole = end.wrapping_sub(start);
        let len = if whole > N as u64 { N as u64 } else { whole };
        let failed = bpf_probe_read_user((&raw mut (*out).bytes).cast(), len as u32, start as *const _) != 0;
        (*out).len = if failed { 0 } else { len as u32 };
        (*out).flags = if failed || whole > len { TEXT_TRUNCATED } else { 0 };
    }
}
