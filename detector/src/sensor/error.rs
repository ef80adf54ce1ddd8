//! Why the sensor cannot start or continue.

use std::path::PathBuf;

use super::report::HookReport;
use super::{btf, host};

/// Why the sensor cannot start or continue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Loading BPF programs needs privileges.
    #[error("missing privileges: {missing}; run as root, or grant them")]
    Privilege {
        /// The missing capabilities.
        missing: String,
    },
    /// A fact of this host could not be read.
    #[error(transparent)]
    Host(#[from] host::Error),
    /// Containers are told apart by their cgroups.
    #[error("no cgroups are mounted, by which containers are told apart; mount cgroup2 at /sys/fs/cgroup")]
    NoCgroups,
    /// The kernel refuses BPF programs that read its memory.
    #[error(
        "the kernel is locked down for confidentiality, so BPF programs must not read its memory; boot with \
        lockdown=integrity, or without lockdown"
    )]
    Lockdown,
    /// This process may have too few files open.
    #[error("this process may open only {limit} files, and the sensor needs {needed}; raise the limit (ulimit -n)")]
    FileLimit {
        /// The limit.
        limit: u64,
        /// How many the sensor needs.
        needed: u64,
    },
    /// The kernel has no type information, or none that can be read.
    #[error("the kernel's BTF: {0}; a kernel built with CONFIG_DEBUG_INFO_BTF=y is needed (5.10 or later)")]
    KernelBtf(String),
    /// The kernel's types are not what the probes need.
    #[error(transparent)]
    Offsets(#[from] btf::Error),
    /// The given BPF object cannot be used.
    #[error("BPF object {path}: {why}; leave --bpf-object out to use the embedded one", path = path.display())]
    Object {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The kernel refused a map or the object as a whole.
    #[error("loading the BPF object: {0}")]
    Load(#[source] Box<aya::EbpfError>),
    /// An essential hook cannot be attached.
    #[error("hook {}: no way to attach it: {}; `detector doctor` shows what this kernel allows", .0.hook.name, .0.refusals())]
    Hook(Box<HookReport>),
    /// A map of the object could not be used.
    #[error("BPF map {name}: {why}")]
    Map {
        /// The map.
        name: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The system refused something that does not depend on the kernel's features.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The error that the system returned.
        source: std::io::Error,
    },
}

/// Whether the kernel refused something for lack of privileges.
pub(super) fn is_denied(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.any(|cause| {
        let cause = cause.downcast_ref::<std::io::Error>();
        cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::PermissionDenied)
    })
}
