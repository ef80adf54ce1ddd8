//! The load plan: which hooks there are, and which kinds of program can serve each, best first.
//!
//! Not every kernel allows every kind, and not every kind sees everything:
//!
//! - An fentry program keeps a counter per CPU and is skipped while an instance of it is preempted there
//!   (`bpf_prog_enter_recur`, kernel/bpf/trampoline.c, 5.12 to 7.3; for tracepoints `__bpf_trace_run`,
//!   kernel/trace/bpf_trace.c, once tracepoints are preemptible). On a kernel that preempts, an attacker can aim for it.
//! - An LSM program is never skipped, but it is only called where `bpf` is in the list of active LSMs; attaching it
//!   succeeds all the same.
//! - A kprobe is never skipped by preemption, and costs the most.

use super::host::Host;

/// A way to attach a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Attach {
    /// LSM hook of this name.
    Lsm(&'static str),
    /// Entry of this function, through its trampoline.
    Fentry(&'static str),
    /// Entry of this function, through a breakpoint or ftrace.
    Kprobe(&'static str),
    /// BTF-enabled raw tracepoint of this name.
    TpBtf(&'static str),
}

impl Attach {
    /// Short name of the kind.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Lsm(_) => "lsm",
            Self::Fentry(_) => "fentry",
            Self::Kprobe(_) => "kprobe",
            Self::TpBtf(_) => "tp_btf",
        }
    }

    /// What it is attached to.
    pub fn target(self) -> &'static str {
        let (Self::Lsm(name) | Self::Fentry(name) | Self::Kprobe(name) | Self::TpBtf(name)) = self;
        name
    }

    /// Whether the kernel skips the program while an instance of it is preempted on the same CPU.
    pub fn can_be_blinded(self, host: &Host) -> bool {
        host.preemption.is_preemptible() && matches!(self, Self::Fentry(_) | Self::TpBtf(_))
    }
}

/// What is lost when a hook cannot be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The sensor is of no use without it: refuse to start.
    Essential,
    /// The sensor sees less, and says so.
    Wanted,
}

/// A thing to watch, and the programs that can.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// Name in reports.
    pub name: &'static str,
    /// What it is for, and so what is not seen without it.
    pub purpose: &'static str,
    /// How much depends on it.
    pub need: Need,
    /// Hot: it runs on calls that are made all the time, so what it costs comes first.
    pub hot: bool,
    /// Programs of the BPF object, with the way to attach each.
    pub programs: &'static [(&'static str, Attach)],
}

/// All hooks. Their prototypes are documented at the programs, in `detector-ebpf/src/hooks`.
pub const HOOKS: &[Hook] = &[
    Hook {
        name: "cgroup_mkdir",
        purpose: "containers as they are made",
        need: Need::Essential,
        hot: false,
        programs: &[("cgroup_mkdir", Attach::TpBtf("cgroup_mkdir"))],
    },
    Hook {
        name: "cgroup_rmdir",
        purpose: "containers as they go",
        need: Need::Essential,
        hot: false,
        programs: &[("cgroup_rmdir", Attach::TpBtf("cgroup_rmdir"))],
    },
    Hook {
        name: "fork",
        purpose: "descent of processes that were brought into a container",
        need: Need::Wanted,
        hot: false,
        programs: &[("process_fork", Attach::TpBtf("sched_process_fork"))],
    },
    Hook {
        name: "exit",
        purpose: "end of processes that were brought into a container",
        need: Need::Wanted,
        hot: false,
        programs: &[("process_exit", Attach::TpBtf("sched_process_exit"))],
    },
    Hook {
        name: "exec",
        purpose: "programs executed, and containers as they start",
        need: Need::Essential,
        hot: false,
        programs: &[("exec_tp", Attach::TpBtf("sched_process_exec")), ("exec_kprobe", Attach::Kprobe("finalize_exec"))],
    },
    Hook {
        name: "open",
        purpose: "files opened for writing and created: every way to change content passes here",
        need: Need::Essential,
        hot: false,
        programs: &[
            ("open_lsm", Attach::Lsm("file_open")),
            ("open_fentry", Attach::Fentry("security_file_open")),
            ("open_kprobe", Attach::Kprobe("security_file_open")),
        ],
    },
    Hook {
        name: "write",
        purpose: "bytes written, also through descriptors that were open before the sensor",
        need: Need::Wanted,
        hot: true,
        programs: &[("write_fentry", Attach::Fentry("vfs_write")), ("write_kprobe", Attach::Kprobe("vfs_write"))],
    },
];

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
