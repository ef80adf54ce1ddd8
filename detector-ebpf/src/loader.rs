//! Dynamic linkers that are executed as programs, and that map the real program next.

use aya_ebpf::{bindings::BPF_ANY, macros::map, maps::HashMap};
use detector_common::vocabulary::Loss;

use crate::{
    emit::count_loss,
    kernel::{Dentry, current_process},
};

/// The processes (thread group ids) that have executed a dynamic linker as their program and have not mapped the real
/// program yet.
#[map]
static LOADERS: HashMap<u32, u32> = HashMap::with_max_entries(1_024, 0);

/// Notes whether the program that the running process has executed is a dynamic linker. A dynamic linker is recognised
/// by its name, `ld-linux-….so.2`, `ld-musl-….so.1` or `ld.so`: under another name, it would not be the one of the
/// image.
#[inline(always)]
pub fn note_exec(executed: Dentry) {
    let name: [u8; 3] = executed.name().start();
    if name == *b"ld-" || name == *b"ld." {
        // If the map is full, the exec of the linker is still reported, but the program that the linker runs is not.
        if LOADERS.insert(current_process(), 1, BPF_ANY.into()).is_err() {
            count_loss(Loss::LoadersFull);
        }
    } else {
        forget(current_process());
    }
}

/// Returns whether a process is a dynamic linker that has not mapped its program yet.
#[inline(always)]
pub fn is_loading(process: u32) -> bool {
    LOADERS.get_ptr(process).is_some()
}

/// Forgets a process that has mapped its program, has executed another program, or has ended.
#[inline(always)]
pub fn forget(process: u32) {
    // A look is cheaper than a removal, and nearly always enough.
    if is_loading(process) {
        let _gone_already = LOADERS.remove(process);
    }
}
