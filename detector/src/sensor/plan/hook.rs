//! What the load plan says about a hook.

use crate::sensor::host::Host;

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

    /// Name of what it is attached to.
    pub fn target(self) -> &'static str {
        let (Self::Lsm(name) | Self::Fentry(name) | Self::Kprobe(name) | Self::TpBtf(name)) = self;
        name
    }

    /// Whether the kernel skips the program while an instance of it is preempted on the same CPU.
    pub fn can_be_blinded(self, host: &Host) -> bool {
        host.preemption.is_preemptible() && matches!(self, Self::Fentry(_) | Self::TpBtf(_))
    }
}

/// How much depends on a hook, and so what follows if it cannot be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The sensor is of no use without it and refuses to start.
    Essential,
    /// The sensor starts without it and reports what it does not see.
    Wanted,
    /// As [`Wanted`](Self::Wanted) where the kernel has the function. On other kernels, another hook sees what it does.
    WherePresent,
}

/// How the self-test proves that a hook fires, when its canary does the act of the given name (`selftest/attack.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A record of the act comes through the ring buffer.
    Record(&'static str),
    /// The kernel counts runs of the hook's program meanwhile. This is for hooks that send no record of their own, or
    /// none on the canary's files. Other processes can set the hook off too: what is proven is that the kernel calls
    /// the program.
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

/// The oldest kernel that is supported.
const OLDEST: Series = (5, 10);

/// What a function that a hook is attached to takes and returns on some kernels. `tests/btf.rs` compares it with the
/// types of each kernel that the project is tested on, where these are described (those of modules are from 5.11 on).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prototype {
    /// The first series that has the function in this form.
    pub since: Series,
    /// The last series that has it in this form. `None`: the newest one still does.
    pub until: Option<Series>,
    /// As in the kernel's source; `...` stands for parameters that no program reads and that differ between kernels. A
    /// tracepoint is the function that callers use (`trace_…`), an LSM hook the one that programs are attached to
    /// (`bpf_lsm_…`).
    pub text: &'static str,
    /// The parameters that the hook's programs read, by position (from 0) and name.
    pub reads: &'static [(usize, &'static str)],
}

/// A prototype that all supported kernels have.
pub(super) const fn always(text: &'static str, reads: &'static [(usize, &'static str)]) -> Prototype {
    since(OLDEST, text, reads)
}

/// A prototype that kernels have from a series on.
pub(super) const fn since(since: Series, text: &'static str, reads: &'static [(usize, &'static str)]) -> Prototype {
    Prototype { since, until: None, text, reads }
}

/// A prototype that kernels have from a series to another one.
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
    /// Its name in reports.
    pub name: &'static str,
    /// What it sees, and so what is not seen without it.
    pub purpose: &'static str,
    /// How much depends on it.
    pub need: Need,
    /// It runs on calls that are made all the time, so its cost decides between its programs.
    pub hot: bool,
    /// Programs of the BPF object, with the way to attach each, best first.
    pub programs: &'static [(&'static str, Attach)],
    /// Prototypes of the functions that the programs are attached to.
    pub prototypes: &'static [Prototype],
    /// How the self-test proves that it fires.
    pub proof: Proof,
}
