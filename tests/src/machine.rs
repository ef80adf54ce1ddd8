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
    /// systemd as the first process of the machine, and dpkg.
    Systemd,
    /// A long time, which only the machine with the busy servers is given.
    Software,
    /// A cluster of Kubernetes, which only one machine can have.
    Kubernetes,
    /// What the daemon does with events, and not what the kernel makes of an act. Unless all cases are wanted, one
    /// kernel runs the case.
    UserSpace,
}

/// What the guest gets instead of the names of cases, if it runs all but those of [user space](Dependence::UserSpace).
pub const OF_THE_KERNEL: &str = "of-the-kernel";

/// A kind of machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Debian's default configuration. Runs every case except those that need a [node](Dependence::Node),
    /// [systemd](Dependence::Systemd), a [long time](Dependence::Software) or a [cluster](Dependence::Kubernetes).
    Ordinary,
    /// Preemption that makes tracing programs miss calls, and no LSM programs.
    Preempt,
    /// Only cgroups of version 1.
    Cgroup1,
    /// Cgroups of both versions.
    Hybrid,
    /// The disk with container engines and interpreters.
    Node,
    /// The disk with more servers, which are busy. It is not tested by default.
    Software,
    /// The disk with container engines and the parts of a Kubernetes cluster. It is not tested by default.
    Kubernetes,
    /// A Debian that systemd has started, for what is installed on one.
    Systemd,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::Ordinary,
        Self::Preempt,
        Self::Cgroup1,
        Self::Hybrid,
        Self::Node,
        Self::Software,
        Self::Kubernetes,
        Self::Systemd,
    ];

    /// The suffix of the machine's name after the name of its kernel.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Ordinary => "",
            Self::Preempt => "-preempt",
            Self::Cgroup1 => "-cgroup1",
            Self::Hybrid => "-hybrid",
            Self::Node => "-node",
            Self::Software => "-software",
            Self::Kubernetes => "-kubernetes",
            Self::Systemd => "-systemd",
        }
    }

    /// The additional options on the kernel's command line.
    pub fn command_line(self) -> &'static str {
        match self {
            Self::Ordinary | Self::Node | Self::Software | Self::Kubernetes | Self::Systemd => "",
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
            Self::Ordinary => {
                use Dependence::*;
                ![Node, Software, Kubernetes, Systemd].into_iter().any(depends_on)
            }
            Self::Preempt => depends_on(Dependence::Preemption),
            Self::Cgroup1 | Self::Hybrid => depends_on(Dependence::Cgroups),
            Self::Node => depends_on(Dependence::Node),
            Self::Software => depends_on(Dependence::Software),
            Self::Kubernetes => depends_on(Dependence::Kubernetes),
            Self::Systemd => depends_on(Dependence::Systemd),
        }
    }
}

/// Parses the name of a machine, such as `6.12-node`, or of all that are tested by default with a kernel: `6.12`.
/// Returns the kernel, and the kind of the one machine.
pub fn parse(name: &str) -> Option<(&str, Option<Kind>)> {
    let Some(at) = name.find('-') else { return Some((name, None)) };
    Some((&name[..at], Some(Kind::of_suffix(&name[at..])?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_one_machine_or_for_those_of_a_kernel() {
        assert_eq!(parse("6.12"), Some(("6.12", None)));
        assert_eq!(parse("latest"), Some(("latest", None)));
        assert_eq!(parse("6.12-software"), Some(("6.12", Some(Kind::Software))));
        assert_eq!(parse("6.12-other"), None);
        assert_eq!(parse("6.12-"), None);
    }
}
