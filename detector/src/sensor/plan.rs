//! The load plan: which hooks there are, which kinds of program can serve each, what the functions that they are
//! attached to look like, and how the self-test proves that they fire. [`HOOKS`] is the only place for these facts.
//!
//! Not every kernel allows every kind, and not every kind sees everything:
//!
//! - An fentry program keeps a counter per CPU and is skipped while an instance of it is preempted there
//!   (`bpf_prog_enter_recur`, kernel/bpf/trampoline.c, 5.12 to 7.3; for tracepoints `__bpf_trace_run`,
//!   kernel/trace/bpf_trace.c, once tracepoints are preemptible). On a kernel that preempts, an attacker can aim for
//!   it.
//! - An LSM program is never skipped, but it is only called where `bpf` is in the list of active LSMs; attaching it
//!   succeeds all the same.
//! - A kprobe is only skipped while a call of bpf(2) on a map, of whatever program, is preempted on that CPU. The
//!   daemon's own are not (`realtime.rs`). It costs the most.

mod hook;
mod hooks;

use super::host::Host;

pub use hook::{Attach, Hook, Need, Proof, Prototype, Series};
pub use hooks::HOOKS;

/// The programs that other kprobes call, in the order of the map `REPORTERS`: see `detector-ebpf/src/image/report.rs`.
pub const REPORTERS: [&str; 3] = ["report_name", "report_names", "report_place"];

/// The programs of a hook on some host.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    /// Program and way to attach it, best first.
    pub usable: Vec<(&'static str, Attach)>,
    /// What cannot work, with the reason.
    pub refused: Vec<(Attach, String)>,
}

/// The programs of a hook in the order to try them on this host.
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
    // A stable sort: the table's order decides between equals.
    if !hook.hot {
        candidates.usable.sort_by_key(|&(_, attach)| attach.can_be_blinded(host));
    }
    candidates
}
