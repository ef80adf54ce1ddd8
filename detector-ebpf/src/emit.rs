//! The ring buffer: records for user space, their numbers, and the count of what is lost.

use core::ops::{Deref, DerefMut};

use aya_ebpf::{
    helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_boot_ns},
    macros::map,
    maps::{PerCpuArray, RingBuf, ring_buf::RingBufEntry},
};
use detector_common::{
    record::{CgroupEscapeRecord, CgroupRecord, ExecRecord, FileRecord, Header, Kind, MoveRecord, ScriptRecord},
    vocabulary::Loss,
};

use crate::mem::{Counter, Plain};

/// Records for user space: see `detector_common::record`.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(16 << 20, 0);

/// One element: how many acts were numbered on this CPU.
#[map]
static NUMBERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// What could not be kept or sent, by the number of its [`Loss`].
#[map]
static LOSS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Loss::KERNEL_KINDS, 0);

/// Counts one loss.
#[inline(always)]
pub fn count_loss(kind: Loss) {
    if let Some(count) = LOSS.get_ptr_mut(kind.number()) {
        // SAFETY: a live element of a per-CPU array, which a program that interrupts this one may change too.
        unsafe { Counter::new(count) }.add(1);
    }
}

/// Nanoseconds of `CLOCK_BOOTTIME`.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper takes no argument and changes nothing.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// What names an act: see [`Header::number`]. It is taken before there is room for a record, so that what is kept in a
/// map for lack of room has it too.
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
            // SAFETY: a live element of a per-CPU array. A program that interrupts this one here takes the same number,
            // and another time.
            unsafe {
                count = next.read_volatile();
                next.write_volatile(count + 1);
            }
        }
        // SAFETY: the helper takes no argument and changes nothing.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        Self { time: now(), number: u64::from(cpu) << 48 | count }
    }
}

/// A record, which starts with a header.
pub trait Record: Plain + 'static {
    /// The header.
    fn header(&mut self) -> &mut Header;
}

macro_rules! records {
    ($($record:ident: $($field:ident).+;)*) => {
        $(impl Record for $record {
            #[inline(always)]
            fn header(&mut self) -> &mut Header {
                &mut self.$($field).+
            }
        })*
    };
}

records! {
    CgroupEscapeRecord: header;
    CgroupRecord: header;
    ExecRecord: header;
    FileRecord: header;
    MoveRecord: change.header;
    ScriptRecord: header;
}

/// Room for a record in the ring buffer. It must be submitted or discarded: the verifier insists.
#[must_use = "the verifier refuses a program that keeps it"]
pub struct Reserved<T: 'static>(RingBufEntry<T>);

/// Reserves room for a record, and fills its header. `None`, and counted: the ring buffer is full.
///
/// The caller fills every other field of `T`, except the bytes of a text behind its length: they hold what an earlier
/// record left there.
#[inline(always)]
pub fn reserve<T: Record>(kind: Kind, stamp: Stamp, cgroup: u64, container: u64, loss: Loss) -> Option<Reserved<T>> {
    let Some(room) = EVENTS.reserve::<T>(0) else {
        count_loss(loss);
        return None;
    };
    let mut record = Reserved(room);
    let size = size_of::<T>() as u32;
    *record.header() = Header { kind: kind.number(), size, number: stamp.number, time: stamp.time, cgroup, container };
    Some(record)
}

impl<T> Reserved<T> {
    /// Hands the record to user space.
    #[inline(always)]
    pub fn submit(self) {
        self.0.submit(0);
    }

    /// Gives the room back.
    #[inline(always)]
    pub fn discard(self) {
        self.0.discard(0);
    }
}

impl<T: Plain> Deref for Reserved<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: the pages of the ring buffer were zeroed when it was made, and any bytes are a `T`.
        unsafe { self.0.assume_init_ref() }
    }
}

impl<T: Plain> DerefMut for Reserved<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as for `deref`; nobody else has the room before it is submitted.
        unsafe { self.0.assume_init_mut() }
    }
}
