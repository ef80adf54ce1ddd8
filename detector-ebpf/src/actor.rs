//! Who acts, as far as it decides whether an act is a repeat: see `detector_common::map::HOST`. To find out which actor
//! a process is takes several look-ups, so the result is remembered.

use aya_ebpf::{macros::map, maps::Array};
use detector_common::map::NOBODY;

use crate::mem::Counter;

/// The number of elements of [`ACTORS`].
const SLOTS: u32 = 4_096;

/// The actors that processes were last found to be. Processes whose ids have the same lower bits share an element, and
/// replace each other there.
#[map]
static ACTORS: Array<Slot> = Array::with_max_entries(SLOTS, 0);

/// An element of [`ACTORS`].
#[repr(C)]
struct Slot {
    /// The actor, combined with the process. If another CPU has stored only one of the two members yet, they do not
    /// match any process.
    check: u64,
    /// The actor.
    actor: u64,
}

/// Returns the actor that a process is, or [`NOBODY`] if it is not remembered.
#[inline(always)]
pub fn remembered(process: u32) -> u64 {
    let Some(slot) = ACTORS.get_ptr_mut(process % SLOTS) else { return NOBODY };
    let (check, actor) = members(slot);
    let actor = actor.get();
    if check.get() == mark(process) ^ actor { actor } else { NOBODY }
}

/// Remembers the actor that a process is. It is the same one until the process executes a program.
#[inline(always)]
pub fn remember(process: u32, actor: u64) {
    set(process, mark(process) ^ actor, actor);
}

/// Forgets the actor that a process is, because it begins, has executed a program, or has ended.
#[inline(always)]
pub fn forget(process: u32) {
    // This matches only process 0, which is the kernel itself: it has the mark 0, and is the actor 0.
    set(process, 0, 0);
}

#[inline(always)]
fn set(process: u32, check: u64, actor: u64) {
    if let Some(slot) = ACTORS.get_ptr_mut(process % SLOTS) {
        let (checked, kept) = members(slot);
        kept.set(actor);
        checked.set(check);
    }
}

/// Returns the two members of an element.
#[inline(always)]
fn members(slot: *mut Slot) -> (Counter, Counter) {
    // SAFETY: the pointers are to members of a live element of the map, and aligned to 8.
    unsafe { (Counter::new(&raw mut (*slot).check), Counter::new(&raw mut (*slot).actor)) }
}

/// Returns a number that distinguishes a process from all others.
#[inline(always)]
fn mark(process: u32) -> u64 {
    u64::from(process).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
