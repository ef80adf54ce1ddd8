//! Records into the ring buffer.

use aya_ebpf::{helpers::generated::bpf_ktime_get_boot_ns, maps::ring_buf::RingBufEntry};
use detector_common::{map::Loss, record::Header};

use crate::maps::{EVENTS, lost};

/// Nanoseconds of `CLOCK_BOOTTIME`.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: no argument, no effect.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Room for a record in the ring buffer, its header filled. `None`, and counted: the ring buffer is full.
///
/// The caller writes every other field of `T`, except the bytes of a text behind its length, and submits it.
#[inline(always)]
pub fn reserve<T: 'static>(kind: u32, cgroup: u64, container: u64, loss: Loss) -> Option<RingBufEntry<T>> {
    let Some(mut record) = EVENTS.reserve::<T>(0) else {
        lost(loss);
        return None;
    };
    let header = Header { kind, size: size_of::<T>() as u32, time: now(), cgroup, container };
    // SAFETY: each record starts with a header.
    unsafe { record.as_mut_ptr().cast::<Header>().write(header) };
    Some(record)
}
