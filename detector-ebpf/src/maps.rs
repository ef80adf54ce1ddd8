//! The maps. Their sizes are the most that the sensor keeps in the kernel; a full map is counted in [`LOSS`].

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, PerCpuArray, ProgramArray, RingBuf},
};
use detector_common::map::{Cgroup, KeptExec, KeptExecKey, Loss, MountNamespace, Seen, SeenKey};

use crate::image::{pending::Pending, report::Change};

/// Records for user space: see `detector_common::record`.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(16 << 20, 0);

/// One element: how many records were numbered on this CPU.
#[map]
pub static NUMBERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Cgroup id → where it is in the life of a container. Absent: unknown.
#[map]
pub static CGROUPS: HashMap<u64, Cgroup> = HashMap::with_max_entries(16_384, 0);

/// `super_block.s_dev` of a container's root → the container, or `ROOTS_SHARED`. Filled when it has started, so that a
/// runtime's set-up of the root is no finding; emptied when its cgroup goes, before the number can be used again.
#[map]
pub static ROOTS: HashMap<u32, u64> = HashMap::with_max_entries(8_192, 0);

/// One element. Not 0: there are containers whose root is not an overlay, and every file system may be an image's.
#[map]
pub static OTHER_ROOTS: Array<u32> = Array::with_max_entries(1, 0);

/// Inode number of a container's mount namespace → the container. For processes that enter it but stay in a cgroup of
/// the host (`nsenter`).
#[map]
pub static MNT_NS: HashMap<u32, MountNamespace> = HashMap::with_max_entries(8_192, 0);

/// Files that containers changed.
#[map]
pub static SEEN: HashMap<SeenKey, Seen> = HashMap::with_max_entries(65_536, 0);

/// Programs that were executed while the ring buffer was full.
#[map]
pub static KEPT_EXECS: HashMap<KeptExecKey, KeptExec> = HashMap::with_max_entries(1_024, 0);

/// One element, all zero: a value for [`KEPT_EXECS`] is too large for the stack.
#[map]
pub static NO_EXEC: Array<KeptExec> = Array::with_max_entries(1, 0);

/// Processes (thread group ids) that were brought into a container from outside, and their descendants.
#[map]
pub static ENTERED: HashMap<u32, u64> = HashMap::with_max_entries(8_192, 0);

/// Thread → the change of a file that it has asked for, until it is known whether it may.
#[map]
pub static PENDING: HashMap<u64, Pending> = HashMap::with_max_entries(8_192, 0);

/// Processes (thread group ids) that execute a dynamic linker as their program, until it has mapped the real one.
#[map]
pub static LOADERS: HashMap<u32, u32> = HashMap::with_max_entries(1_024, 0);

/// What a kprobe hands to a program of [`REPORTERS`]. The kernel runs kprobes' programs with preemption disabled, and
/// no second one on the same CPU (`trace_call_bpf`, kernel/trace/bpf_trace.c), so that the two belong together.
#[map]
pub static CHANGE: PerCpuArray<Change> = PerCpuArray::with_max_entries(1, 0);

/// The programs of `hooks::report`, which the loader puts here.
#[map]
pub static REPORTERS: ProgramArray = ProgramArray::with_max_entries(3, 0);

/// What could not be kept or sent: see [`Loss`].
#[map]
pub static LOSS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Loss::ALL.len() as u32, 0);

/// Counts one loss.
#[inline(always)]
pub fn lost(kind: Loss) {
    if let Some(count) = LOSS.get_ptr_mut(kind as u32) {
        // SAFETY: a live element of a per-CPU array. An interrupting program on the same CPU may add to it too: hence
        // the atomic add.
        unsafe { crate::kernel::mem::add(count, 1) };
    }
}
