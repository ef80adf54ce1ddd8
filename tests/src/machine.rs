//! The kinds of machine as which a kernel is tested, and which cases each of them runs.

use crate::cases::Case;

/// What decides what becomes of a case, beside the kernel. The machines on which that differs run the case too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependence {
    /// The cgroup hierarchies: by them the sensor finds containers, and knows who is in one, has entered one or left
    /// one.
    Cgroups,
    /// Preemption, and whether there are LSM programs. Preemption lets the kernel skip fentry and LSM programs, so the
    /// programs for `open` and `exec` are other ones there; all others are kprobes everywhere, which are not preempted.
    Preemption,
    /// Container engines and much memory, which only the machine like a node has. What engines do is the same on all
    /// kernels.
    Node,
}

/// A kind of machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What Debian boots. It runs every case but those that [need a node](Dependence::Node).
    Ordinary,
    /// With the preemption that makes tracing programs miss calls, and no LSM programs.
    Preempt,
    /// With cgroups of version 1 alone.
    Cgroup1,
    /// With cgroups of both versions.
    Hybrid,
    /// With the disk of container engines.
    Node,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Ordinary, Self::Preempt, Self::Cgroup1, Self::Hybrid, Self::Node];

    /// What the name of a machine has behind that of its kernel.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Ordinary => "",
            Self::Preempt => "-preempt",
            Self::Cgroup1 => "-cgroup1",
            Self::Hybrid => "-hybrid",
            Self::Node => "-node",
        }
    }

    /// What is added to the kernel's command line.
    pub fn command_line(self) -> &'static str {
        match self {
            Self::Ordinary | Self::Node => "",
            Self::Preempt => "preempt=full lsm=capability",
            Self::Cgroup1 => "lab.cgroups=v1",
            Self::Hybrid => "lab.cgroups=hybrid",
        }
    }

    /// The kind with this suffix, as the guest is told.
    pub fn of_suffix(suffix: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.suffix() == suffix)
    }

    /// Whether such a machine runs a case.
    pub fn runs(self, case: &Case) -> bool {
        let depends_on = |dependence| case.depends_on.contains(&dependence);
        match self {
            Self::Ordinary => !depends_on(Dependence::Node),
            Self::Preempt => depends_on(Dependence::Preemption),
            Self::Cgroup1 | Self::Hybrid => depends_on(Dependence::Cgroups),
            Self::Node => depends_on(Dependence::Node),
        }
    }
}
