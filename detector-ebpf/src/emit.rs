//! Records into the ring buffer.

use aya_ebpf::{
    helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_boot_ns},
    maps::ring_buf::RingBufEntry,
};
use detector_common::{
    map::Loss,
    record::{Header, Kind},
};

use crate::maps::{EVENTS, NUMBERS, lost};

/// Nanoseconds of `CLOCK_BOOTTIME`.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: no argument, no effect.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// What names an act: see `Header::number`. Taken before there is room for a record, so that what is kept in a map for
/// lack of room has it too.
#[derive(Clone, Copy)]
pub struct Stamp {
    /// When it happened.
    pub time: u64,
    /// The number.
    pub number: u64,
}

impl Stamp {
    /// Takes the next number.
    #[inline(always)]
    pub fn take() -> Self {
        let mut count = 0;
        if let Some(next) = NUMBERS.get_ptr_mut(0) {
            // SAFETY: a live element of a per-CPU array. A program that interrupts this one may take the same number.
            unsafe {
                count = next.read_volatile();
                next.write_volatile(count + 1);
            }
        }
        // SAFETY: no argument, no effect.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        Self { time: now(), number: u64::from(cpu) << 48 | count }
    }
}

/// Room for a record in the ring buffer, its header filled. `None`, and counted: the ring buffer is full.
///
/// The caller writes every other field of `T`, except the bytes of a text behind its length, and submits it.
#[inline(always)]
pub fn reserve<T: 'static>(
    kind: Kind,
    stamp: Stamp,
    cgroup: u64,
    container: u64,
    loss: Loss,
) -> Option<RingBufEntry<T>> {
    let Some(mut record) = EVENTS.reserve::<T>(0) else {
        lost(loss);
        return None;
    };
    let header = Header {
        kind: kind.number(),
        size: size_of::<T>() as u32,
        number: stamp.number,
        time: stamp.time,
        cgroup,
        container,
    };
    // SAFETY: each record starts with a header.
    unsafe { record.as_mut_ptr().cast::<Header>().write(header) };
    Some(record)
}
