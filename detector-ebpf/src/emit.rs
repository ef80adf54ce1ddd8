//! Records into the ring buffer.

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use detector_common::{map::Loss, record::Header};

use crate::maps::{EVENTS, lost};

/// Nanoseconds of `CLOCK_BOOTTIME`.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: no argument, no effect.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Sends a record that `fill` writes in place. `false`, and counted: the ring buffer is full.
///
/// `fill` must write every field of `T`, except the bytes of a text behind its length.
#[inline(always)]
pub fn emit<T: 'static>(kind: u32, cgroup: u64, container: u64, loss: Loss, fill: impl FnOnce(*mut T)) -> bool {
    let Some(mut record) = EVENTS.reserve::<T>(0) else {
        lost(loss);
        return false;
    };
    let at = record.as_mut_ptr();
    let header = Header { kind, size: size_of::<T>() as u32, time: now(), cgroup, container };
    // SAFETY: each record starts with a header.
    unsafe { at.cast::<Header>().write(header) };
    fill(at);
    record.submit(0);
    true
}
