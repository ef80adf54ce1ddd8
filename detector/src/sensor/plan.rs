//! The load plan: which hooks there are, which kinds of program can serve each of them, the prototypes of the functions
//! that the programs are attached to, and how the self-test verifies that each hook fires. [`HOOKS`] is the only place
//! for these facts.
//!
//! Not every kernel allows every kind of program, and not every kind sees every call:
//!
//! - The kernel counts the running instances of an fentry program per CPU and skips the program while an instance of it
//!   is preempted on that CPU (`bpf_prog_enter_recur`, kernel/bpf/trampoline.c, 5.12 to 7.3; for tracepoints
//!   `__bpf_trace_run`, kernel/trace/bpf_trace.c, once tracepoints are preemptible). On a preemptible kernel, an
//!   attacker can provoke this on purpose. Only the tracepoints of cgroups are safe from it, because the kernel holds a
//!   lock around them.
//! - An LSM program is never skipped, but it is called only if `bpf` is in the list of active LSMs. Attaching it
//!   succeeds even if it is not.
//! - A kprobe is skipped only while a call of bpf(2) on a map, whichever program makes it, is preempted on that CPU.
//!   The daemon's own calls are not preempted (`realtime.rs`). A kprobe costs the most.

mod hook;
mod hooks;

use super::host::Host;

pub use hook::{Attach, Hook, Need, Proof, Prototype, Series};
pub(crate) use hooks::EXIT_PROGRAMS;
pub use hooks::HOOKS;

/// The programs that other kprobe programs call, in the order of the map `REPORTERS`. See
/// `detector-ebpf/src/image/report.rs`.
pub const REPORTERS: [&str; 4] = ["report_name", "report_names", "report_place", "report_tampering"];

/// The programs that can serve a hook on some host.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    /// The programs that can be attached, and how, best first.
    pub usable: Vec<(&'static str, Attach)>,
    /// The ways to attach a program that cannot work, each with the reason.
    pub refused: Vec<(Attach, String)>,
}

/// The programs of a hook, in the order in which they are to be tried on this host.
pub fn candidates(hook: &Hook, host: &Host) -> Candidates {
    let mut candidates = Candidates::default();
    for &(program, attach) in hook.programs {
        if matches!(attach, Attach::Lsm(_)) && !host.has_bpf_lsm() {
            let active = host.lsms.as_deref().map_or_else(|| "not known".to_owned(), |names| names.join(","));
            let why = format!("`bpf` is not an active LSM (active: {active}); boot with lsm={active},bpf");
            candidates.refused.push((attach, why));
        } else {
            candidates.usable.push((program, attach));
        }
    }
    // The sort is stable: programs that are equal here stay in the order of the table.
    if !hook.hot {
        candidates.usable.sort_by_key(|&(_, attach)| attach.can_be_blinded(host));
    }
    candidates
}
