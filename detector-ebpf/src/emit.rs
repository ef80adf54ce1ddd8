//! The ring buffer: the records for user space, their numbers, and the counts of losses.

use core::marker::PhantomData;

use aya_ebpf::{
    Global,
    bindings::BPF_RB_AVAIL_DATA,
    helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_boot_ns},
    macros::map,
    maps::{Array, PerCpuArray, RingBuf},
};
use detector_common::{
    map::{DRAFTS_PER_CPU, DRAFTS_TRIED, ring_size},
    record::{
        CgroupEscapeRecord, CgroupRecord, ExecRecord, ExitRecord, FileRecord, Header, Kind, ScriptRecord, SocketRecord,
        TamperingRecord,
    },
    vocabulary::Loss,
};

use crate::{
    mem::{Counter, Plain},
    texts::Texts,
};

/// The records for user space: see `detector_common::record`. The loader sets the size.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(ring_size(1), 0);

/// With how many bytes the ring buffer counts as [full](detector_common::map::full_ring).
#[unsafe(no_mangle)]
static EVENTS_FULL: Global<u64> = Global::new(0);

/// One element: the number of acts that were numbered on this CPU.
#[map]
static NUMBERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// The number of losses of each kind, by the number of the [`Loss`].
#[map]
static LOSS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Loss::KERNEL_KINDS, 0);

/// Counts one loss.
#[inline(always)]
pub fn count_loss(kind: Loss) {
    if let Some(count) = LOSS.get_ptr_mut(kind.number()) {
        // SAFETY: the pointer is to a live element of a per-CPU array, which is aligned to 8. A program that interrupts
        // this one can change it too, but the addition is atomic.
        unsafe { Counter::new(count) }.add(1);
    }
}

/// Returns the time, in nanoseconds of `CLOCK_BOOTTIME`.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper takes no argument and changes nothing.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Returns the number of the CPU that the program runs on.
#[inline(always)]
fn cpu() -> u32 {
    // SAFETY: the helper takes no argument and changes nothing.
    unsafe { bpf_get_smp_processor_id() }
}

/// What identifies an act: see [`Header::number`]. It is taken before there is room for a record, so that an act that
/// is kept in a map for lack of room has it too.
#[derive(Clone, Copy)]
pub struct Stamp {
    /// The time of the act.
    pub time: u64,
    /// The number of the act.
    pub number: u64,
}

impl Stamp {
    /// Takes the next number.
    #[inline(always)]
    pub fn take() -> Self {
        let mut count = 0;
        if let Some(next) = NUMBERS.get_ptr_mut(0) {
            // SAFETY: the pointer is to a live element of a per-CPU array, which is aligned to 8. A program that
            // interrupts this one here takes the same number, but another time.
            unsafe {
                count = next.read_volatile();
                next.write_volatile(count + 1);
            }
        }
        Self { time: now(), number: u64::from(cpu()) << 48 | count }
    }
}

/// A record, which starts with a header.
pub trait Record: Plain + 'static {
    /// Returns the header.
    fn header(&mut self) -> &mut Header;
}

macro_rules! records {
    ($($record:ident)*) => {
        $(
            impl Record for $record {
                #[inline(always)]
                fn header(&mut self) -> &mut Header {
                    &mut self.header
                }
            }

            const _: () = assert!(size_of::<$record>() <= RECORD_SIZE && size_of::<$record>() % 8 == 0);
        )*
    };
}

records! { CgroupEscapeRecord CgroupRecord ExecRecord ExitRecord FileRecord SocketRecord TamperingRecord ScriptRecord }

/// The size of the largest record without its texts.
const RECORD_SIZE: usize = size_of::<ExecRecord>();

/// Where records are put together before their size is known. The loader sets the number of elements.
#[map]
static DRAFTS: Array<Memory> = Array::with_max_entries(1, 0);

/// The memory of a draft.
#[repr(C)]
struct Memory {
    /// The number of programs that have claimed the draft. It belongs to the program that was alone when it looked.
    claims: u64,
    /// The record is at the end of this array, so that its texts follow it.
    record: [u8; RECORD_SIZE],
    /// The texts of the record.
    texts: Texts,
}

/// A record that is being put together.
pub struct Draft<T> {
    memory: *mut Memory,
    loss: Loss,
    record: PhantomData<T>,
}

impl<T: Record> Draft<T> {
    /// Begins a record, and fills its header. If the ring buffer is full, this counts a `loss` and returns `None`.
    ///
    /// The caller must fill all other fields, because the memory contains an earlier record. Texts must be added in the
    /// order of the fields.
    #[inline(always)]
    pub fn begin(kind: Kind, stamp: Stamp, cgroup: u64, container: u64, loss: Loss) -> Option<Self> {
        let memory = if EVENTS.query(BPF_RB_AVAIL_DATA.into()) > EVENTS_FULL.load() { None } else { claim() };
        let Some(memory) = memory else {
            count_loss(loss);
            return None;
        };
        let mut draft = Self { memory, loss, record: PhantomData };
        let (record, texts) = draft.parts();
        texts.clear();
        *record.header() =
            Header { kind: kind.number(), size: 0, number: stamp.number, time: stamp.time, cgroup, container };
        Some(draft)
    }

    /// Returns the record and its texts.
    #[inline(always)]
    pub fn parts(&mut self) -> (&mut T, &mut Texts) {
        // SAFETY: the memory is a live element of the map. It belongs to this draft until the draft is dropped. Any
        // bytes are valid as a `T` and as texts, and both are aligned.
        unsafe { (&mut *record(self.memory), &mut (*self.memory).texts) }
    }

    /// Sends the record. If the ring buffer is full by now, this counts a loss and returns `false`.
    #[inline(always)]
    pub fn send(mut self) -> bool {
        let (record, texts) = self.parts();
        record.header().size = size_of::<T>() as u32 + texts.used();
        let size = size_of::<T>() as u64 + texts.bounded();
        // SAFETY: the texts directly follow the record in the same element, and their array is longer than any number
        // that `bounded` returns. Every byte of a map is initialised.
        let bytes = unsafe { core::slice::from_raw_parts(core::ptr::from_mut(record).cast::<u8>(), size as usize) };
        let is_sent = EVENTS.output::<[u8]>(bytes, 0).is_ok();
        if !is_sent {
            count_loss(self.loss);
        }
        is_sent
    }
}

impl<T> Drop for Draft<T> {
    /// Frees the draft. A program on another CPU that finds it free also sees all that was written to it, because
    /// `bpf_ringbuf_output` has passed a full barrier (`bpf_ringbuf_commit`, kernel/bpf/ringbuf.c) or, if the buffer is
    /// full, has released its lock.
    #[inline(always)]
    fn drop(&mut self) {
        claims(self.memory).subtract(1);
    }
}

/// Returns the place of the record in the memory of a draft, directly before the texts.
#[inline(always)]
fn record<T>(memory: *mut Memory) -> *mut T {
    // SAFETY: the place is within the memory, because no record is larger than `RECORD_SIZE`.
    unsafe { (&raw mut (*memory).record).cast::<u8>().add(RECORD_SIZE - size_of::<T>()).cast() }
}

/// Returns the counter of the programs that have claimed a draft.
#[inline(always)]
fn claims(memory: *mut Memory) -> Counter {
    // SAFETY: the number is in a live element of the map, and aligned to 8.
    unsafe { Counter::new(&raw mut (*memory).claims) }
}

/// Claims a draft that no other program has claimed. This looks at the drafts of this CPU first and then at those of
/// the next CPUs, because any number of programs can be preempted while they have a draft. If another program claims
/// the same draft before the look at the number of claims, both may go on to the next draft, but they never both get
/// it.
#[inline(always)]
fn claim() -> Option<*mut Memory> {
    let first = DRAFTS_PER_CPU.wrapping_mul(cpu());
    for number in 0..DRAFTS_TRIED {
        let memory = DRAFTS.get_ptr_mut(first.wrapping_add(number))?;
        let claims = claims(memory);
        claims.add(1);
        if claims.get() == 1 {
            return Some(memory);
        }
        claims.subtract(1);
    }
    None
}
