//! Dynamic linkers that are executed as programs: they map the real program next.

use aya_ebpf::{bindings::BPF_ANY, macros::map, maps::HashMap};

use crate::kernel::{Dentry, current_process};

/// Processes (thread group ids) that execute a dynamic linker as their program, until it has mapped the real one.
#[map]
static LOADERS: HashMap<u32, u32> = HashMap::with_max_entries(1_024, 0);

/// Notes whether the program that the running process has executed is a dynamic linker. It is known by its name,
/// `ld-linux-….so.2`, `ld-musl-….so.1` or `ld.so`: under another name it would not be the image's.
#[inline(always)]
pub fn note_exec(executed: Dentry) {
    let name: [u8; 3] = executed.name().start();
    if name == *b"ld-" || name == *b"ld." {
        // A full map costs the name of the program that the linker runs, not the finding that it was run.
        let _full = LOADERS.insert(current_process(), 1, BPF_ANY.into());
    } else {
        forget(current_process());
    }
}

/// Whether a process is a dynamic linker that has not mapped its program yet.
#[inline(always)]
pub fn is_loading(process: u32) -> bool {
    LOADERS.get_ptr(process).is_some()
}

/// Forgets a process that has mapped its program, executes another one, or has ended.
#[inline(always)]
pub fn forget(process: u32) {
    let _never_known = LOADERS.remove(process);
}
