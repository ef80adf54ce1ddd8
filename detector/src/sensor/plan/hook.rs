//! What the load plan says about a hook.

use std::fmt;

use crate::sensor::host::Host;

/// A way to attach a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Attach {
    /// At the LSM hook of this name.
    Lsm(&'static str),
    /// At the entry of this function, through the function's trampoline.
    Fentry(&'static str),
    /// At the entry of this function, through a breakpoint or ftrace.
    Kprobe(&'static str),
    /// At the BTF-enabled raw tracepoint of this name.
    TpBtf(&'static str),
}

impl Attach {
    /// The short name of the kind.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Lsm(_) => "lsm",
            Self::Fentry(_) => "fentry",
            Self::Kprobe(_) => "kprobe",
            Self::TpBtf(_) => "tp_btf",
        }
    }

    /// The name of the hook, function or tracepoint.
    pub fn target(self) -> &'static str {
        let (Self::Lsm(name) | Self::Fentry(name) | Self::Kprobe(name) | Self::TpBtf(name)) = self;
        name
    }

    /// Whether the kernel skips the program while an instance of it is preempted on the same CPU. A program at a
    /// tracepoint of cgroups has one instance at most, because the kernel holds `trace_cgroup_path_lock` around it
    /// (`TRACE_CGROUP_PATH`, kernel/cgroup/cgroup-internal.h, 5.10 to 7.3).
    pub fn can_be_blinded(self, host: &Host) -> bool {
        let has_instances = match self {
            Self::Fentry(_) => true,
            Self::TpBtf(name) => !name.starts_with("cgroup_"),
            Self::Lsm(_) | Self::Kprobe(_) => false,
        };
        has_instances && host.preemption.is_preemptible()
    }
}

/// The kind and the target, such as `kprobe vfs_create`.
impl fmt::Display for Attach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.target())
    }
}

/// How important a hook is, which decides what happens if it cannot be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The sensor is useless without it and refuses to start.
    Essential,
    /// The sensor starts without it and reports what it does not see.
    Wanted,
    /// Like [`Wanted`](Self::Wanted) if the kernel has the function. On other kernels, another hook sees what this one
    /// would see.
    WherePresent,
}

/// How the self-test verifies that a hook fires: the canary performs the act of the given name (`selftest/attack.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A record of the act arrives through the ring buffer.
    Record(&'static str),
    /// The kernel counts a run of the hook's program during the self-test. This is for hooks that send no record of
    /// their own, or none about the canary's files. Other processes can trigger the hook too, so this shows only that
    /// the kernel calls the program.
    Run(&'static str),
}

impl Proof {
    /// The name of the act.
    pub fn act(self) -> &'static str {
        let (Self::Record(act) | Self::Run(act)) = self;
        act
    }
}

/// A kernel series, such as `(6, 12)`.
pub type Series = (u16, u16);

/// The oldest supported series.
const OLDEST: Series = (5, 10);

/// The prototype of a function that a hook is attached to, on some kernels. `tests/btf.rs` compares it with the type
/// information of each kernel that the project is tested on. Kernels describe the functions of modules only from 5.11
/// on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prototype {
    /// The first series that has the function in this form.
    pub since: Series,
    /// The last series that has it in this form. `None` if the newest series still has it.
    pub until: Option<Series>,
    /// The prototype as in the kernel's source. `...` replaces parameters that no program reads and that differ between
    /// kernels. For a tracepoint, this is the function that callers use (`trace_…`); for an LSM hook, it is the
    /// function that programs are attached to (`bpf_lsm_…`).
    pub text: &'static str,
    /// The parameters that the hook's programs read, by position (from 0) and name.
    pub reads: &'static [(usize, &'static str)],
}

/// A prototype that all supported kernels have.
pub(super) const fn always(text: &'static str, reads: &'static [(usize, &'static str)]) -> Prototype {
    since(OLDEST, text, reads)
}

/// A prototype that kernels have from this series on.
pub(super) const fn since(since: Series, text: &'static str, reads: &'static [(usize, &'static str)]) -> Prototype {
    Prototype { since, until: None, text, reads }
}

/// A prototype that kernels have from one series to another, including both.
pub(super) const fn between(
    since: Series,
    until: Series,
    text: &'static str,
    reads: &'static [(usize, &'static str)],
) -> Prototype {
    Prototype { since, until: Some(until), text, reads }
}

/// Something to watch, and the programs that can watch it.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// The hook's name in reports.
    pub name: &'static str,
    /// What it sees, and therefore what is not seen without it.
    pub purpose: &'static str,
    /// How important it is.
    pub need: Need,
    /// Whether it runs on very frequent calls. The cost then decides the order of its programs.
    pub hot: bool,
    /// The programs of the BPF object that can serve the hook, and how to attach each of them, best first.
    pub programs: &'static [(&'static str, Attach)],
    /// The prototypes of the functions that the programs are attached to.
    pub prototypes: &'static [Prototype],
    /// How the self-test verifies that it fires.
    pub proof: Proof,
}
