//! The maps. Their sizes are the most that the sensor keeps in the kernel; a full map is counted in [`LOSS`].

use aya_ebpf::{
    macros::map,
    maps::{HashMap, PerCpuArray, RingBuf},
};
use detector_common::map::{Cgroup, Loss, Seen, SeenKey};

/// Records for user space: see `detector_common::record`.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(16 << 20, 0);

/// Cgroup id → where it is in the life of a container. Absent: unknown.
#[map]
pub static CGROUPS: HashMap<u64, Cgroup> = HashMap::with_max_entries(16_384, 0);

/// `super_block.s_dev` of a container's root → the container. Filled when it has started, so that a runtime's set-up of
/// the root is no finding; emptied when its cgroup goes, before the number can be used again.
#[map]
pub static ROOTS: HashMap<u32, u64> = HashMap::with_max_entries(8_192, 0);

/// Inode number of a container's mount namespace → the container. For processes that enter it but stay in a cgroup of
/// the host (`nsenter`).
#[map]
pub static MNT_NS: HashMap<u32, u64> = HashMap::with_max_entries(8_192, 0);

/// Files that containers changed.
#[map]
pub static SEEN: HashMap<SeenKey, Seen> = HashMap::with_max_entries(65_536, 0);

/// Processes (thread group ids) that were brought into a container from outside, and their descendants.
#[map]
pub static ENTERED: HashMap<u32, u64> = HashMap::with_max_entries(8_192, 0);

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
