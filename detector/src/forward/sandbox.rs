//! Takes away from this process what forwarding does not need: what receivers send is parsed here.

use std::fs;
use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};

/// Gives up all capabilities for ever. No other thread may run yet.
pub(super) fn enter() -> io::Result<()> {
    set_no_new_privs(true)?;
    for capability in CapabilitySet::all().iter() {
        // Not every process may do this, and not every kernel has all of them. What is left gives nothing to anybody:
        // no program that this process executes gets more than the process has.
        let _ = remove_capability_from_bounding_set(capability);
    }
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    // The daemon is the last that the kernel should kill for lack of memory, but this process need not be.
    if fs::read_to_string("/proc/self/oom_score_adj").is_ok_and(|text| text.starts_with('-')) {
        fs::write("/proc/self/oom_score_adj", "0")?;
    }
    Ok(())
}
