//! The kinds of machines on which a kernel is tested, and the cases that each of them runs.

/// What the result of a case depends on besides the kernel. Machines that differ in it run the case too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependence {
    /// The cgroup hierarchies. The sensor uses them to find containers, and to tell which processes are in one, have
    /// entered one, or have left one.
    Cgroups,
    /// Preemption and LSM programs. With preemption the kernel can skip fentry and LSM programs, so the programs for
    /// `open` and `exec` differ there. All other programs are kprobes on every machine, which are never preempted.
    Preemption,
    /// Container engines, interpreters and a lot of memory, which only the node machine has. Engines and interpreters
    /// behave in the same way on all kernels.
    Node,
}

/// A kind of machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Debian's default configuration. Runs every case except those that [need a node](Dependence::Node).
    Ordinary,
    /// Preemption that makes tracing programs miss calls, and no LSM programs.
    Preempt,
    /// Only cgroups of version 1.
    Cgroup1,
    /// Cgroups of both versions.
    Hybrid,
    /// The disk with container engines and interpreters.
    Node,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Ordinary, Self::Preempt, Self::Cgroup1, Self::Hybrid, Self::Node];

    /// The suffix of the machine's name after the name of its kernel.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Ordinary => "",
            Self::Preempt => "-preempt",
            Self::Cgroup1 => "-cgroup1",
            Self::Hybrid => "-hybrid",
            Self::Node => "-node",
        }
    }

    /// The additional options on the kernel's command line.
    pub fn command_line(self) -> &'static str {
        match self {
            Self::Ordinary | Self::Node => "",
            Self::Preempt => "preempt=full lsm=capability",
            Self::Cgroup1 => "lab.cgroups=v1",
            Self::Hybrid => "lab.cgroups=hybrid",
        }
    }

    /// The kind with this suffix, which is how the guest learns it.
    pub fn of_suffix(suffix: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.suffix() == suffix)
    }

    /// Whether this kind of machine runs a case whose result depends on these.
    pub fn runs(self, dependences: &[Dependence]) -> bool {
        let depends_on = |dependence| dependences.contains(&dependence);
        match self {
            Self::Ordinary => !depends_on(Dependence::Node),
            Self::Preempt => depends_on(Dependence::Preemption),
            Self::Cgroup1 | Self::Hybrid => depends_on(Dependence::Cgroups),
            Self::Node => depends_on(Dependence::Node),
        }
    }
}
