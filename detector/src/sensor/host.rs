//! The facts about this machine, read once at the start: those on which the load plan depends, and those that
//! distinguish containers from the host.
//!
//! The host is what process 1 sees. The sensor itself may run in a container, if it shares the host's pid namespace.

use std::path::Path;
use std::{fs, io};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use rustix::thread::CapabilitySet;

use super::hierarchy::{CgroupMode, Hierarchy};
use crate::procfs::{self, Process, RootDirectory};

/// The inode number of the initial pid namespace (`PROC_PID_INIT_INO`, include/linux/proc_ns.h; part of the ABI).
const INITIAL_PID_NAMESPACE: u32 = 0xefff_fffc;

/// Why the facts could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of the kernel cannot be read.
    #[error("cannot read {path}: {source}{}", remedy(.source))]
    Read {
        /// The file.
        path: String,
        /// The error that the system returned.
        source: io::Error,
    },
    /// The content of a file is not understood.
    #[error("{path} says {text:?}, which this version does not understand")]
    Format {
        /// The file.
        path: String,
        /// The content of the file.
        text: String,
    },
    /// Process 1 is not that of the host.
    #[error(
        "this process is in a pid namespace of its own and cannot see the host; use `hostPID: true` (Kubernetes) or `--pid=host` (Docker, Podman)"
    )]
    PidNamespace,
}

/// How a kernel preempts its own code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preemption {
    /// Not at all, or voluntarily if the kernel does not say which of the two. Only code that waits is interrupted.
    None,
    /// At explicit points.
    Voluntary,
    /// Everywhere.
    Full,
    /// Everywhere, but mostly at the end of a time slice.
    Lazy,
    /// The model was chosen at boot, and the choice cannot be read.
    Unknown,
}

impl Preemption {
    /// Whether a probe can be preempted. If this is not known, it is assumed.
    pub fn is_preemptible(self) -> bool {
        matches!(self, Self::Full | Self::Lazy | Self::Unknown)
    }

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Voluntary => "voluntary",
            Self::Full => "full",
            Self::Lazy => "lazy",
            Self::Unknown => "unknown",
        }
    }
}

/// Facts about this machine.
#[derive(Clone, Debug)]
pub struct Host {
    /// The host name (`uname -n`).
    pub node: String,
    /// The id that the kernel chose at random for this boot: `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// The kernel release (`uname -r`).
    pub kernel_release: String,
    /// The kernel version, which names build options (`uname -v`).
    pub kernel_version: String,
    /// How the kernel preempts its own code. This is `sched/preempt` in debugfs if the model was chosen at boot, else
    /// the kernel version shows it.
    pub preemption: Preemption,
    /// The active LSMs in their order: `lsm` in securityfs. `None` if the file cannot be read.
    pub lsms: Option<Vec<String>>,
    /// The lockdown mode: `lockdown` in securityfs. `None` if the file cannot be read, or lockdown is not built in.
    pub lockdown: Option<String>,
    /// Which cgroup hierarchies process 1 has mounted.
    pub cgroup_mode: CgroupMode,
    /// The hierarchy whose cgroups identify containers. `None` if none is mounted.
    pub hierarchy: Option<Hierarchy>,
    /// The inode number of process 1's mount namespace. 0 if [privileges are missing](Self::missing_capabilities).
    pub mount_namespace: u32,
    /// The `s_dev` of process 1's root. 0 if privileges are missing.
    pub root_dev: u32,
    /// The inode number of process 1's root directory. 0 if privileges are missing.
    pub root_inode: u64,
    capabilities: CapabilitySet,
}

impl Host {
    /// Reads all facts. This does not change anything: file systems that are not mounted are read through mounts that
    /// no other process sees.
    ///
    /// # Errors
    ///
    /// A file that exists on every Linux cannot be read, or this process cannot see the host's processes.
    pub fn read() -> Result<Self, Error> {
        if namespace("/proc/self/ns/pid")? != INITIAL_PID_NAMESPACE {
            return Err(Error::PidNamespace);
        }
        let capabilities = rustix::thread::capabilities(None)
            .map_err(|e| Error::Read { path: "this process's capabilities".to_owned(), source: e.into() })?
            .effective;
        let kernel = rustix::system::uname();
        let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
        let kernel_version = text(kernel.version());
        let boot_choice = kernel_file("debugfs", "/sys/kernel/debug", "sched/preempt").ok();
        let (mount_namespace, root) = match first_process() {
            Err(_) if !missing(capabilities, &NEEDED).is_empty() => (0, RootDirectory { dev: 0, inode: 0 }),
            known => known?,
        };
        let (cgroup_mode, mut hierarchy) = Hierarchy::find(&read("1", "mountinfo")?);
        if let Some(Hierarchy { mount, .. }) = &mut hierarchy
            && !namespace("/proc/self/ns/mnt").is_ok_and(|ours| ours == mount_namespace)
        {
            *mount = Path::new("/proc/1/root").join(mount.strip_prefix("/").unwrap_or(mount));
        }
        Ok(Self {
            node: text(kernel.nodename()),
            boot_id: boot_id()?,
            kernel_release: text(kernel.release()),
            preemption: preemption(boot_choice.as_deref(), &kernel_version),
            kernel_version,
            lsms: kernel_file("securityfs", "/sys/kernel/security", "lsm").ok().map(|list| lsms(&list)),
            lockdown: kernel_file("securityfs", "/sys/kernel/security", "lockdown")
                .ok()
                .and_then(|modes| chosen(&modes, '[', ']').map(str::to_owned)),
            cgroup_mode,
            hierarchy,
            mount_namespace,
            root_dev: root.dev,
            root_inode: root.inode,
            capabilities,
        })
    }

    /// The capabilities that the sensor needs and this process lacks, in one line.
    pub fn missing_capabilities(&self) -> Option<String> {
        let missing = missing(self.capabilities, &NEEDED);
        (!missing.is_empty()).then(|| missing.join(", "))
    }

    /// The capabilities that only the self-test needs and this process lacks, in one line.
    pub(crate) fn missing_for_selftest(&self) -> Option<String> {
        let missing = missing(self.capabilities, &NEEDED_BY_SELFTEST);
        (!missing.is_empty()).then(|| missing.join(" and "))
    }

    /// Whether this process holds `CAP_SYS_ADMIN`.
    pub(crate) fn is_admin(&self) -> bool {
        self.capabilities.contains(CapabilitySet::SYS_ADMIN)
    }

    /// Whether BPF programs on LSM hooks are called.
    pub fn has_bpf_lsm(&self) -> bool {
        self.lsms.as_deref().is_some_and(|names| names.iter().any(|name| name == "bpf"))
    }
}

/// Determines the preemption model. `boot_choice` is `sched/preempt` of debugfs, which exists if the model is chosen at
/// boot (`PREEMPT_DYNAMIC`). It is then the only reliable source: the command line can name a model that this kernel
/// does not offer and therefore ignores.
fn preemption(boot_choice: Option<&str>, kernel_version: &str) -> Preemption {
    if let Some(choice) = boot_choice.and_then(|text| chosen(text, '(', ')')) {
        return match choice {
            "none" => Preemption::None,
            "voluntary" => Preemption::Voluntary,
            "full" => Preemption::Full,
            "lazy" => Preemption::Lazy,
            _ => Preemption::Unknown,
        };
    }
    let has = |flag| kernel_version.split_whitespace().any(|word| word == flag);
    if has("PREEMPT") || has("PREEMPT_RT") {
        Preemption::Full
    } else if has("PREEMPT_DYNAMIC") || has("PREEMPT_LAZY") {
        Preemption::Unknown
    } else {
        Preemption::None
    }
}

/// The word between brackets, by which the kernel marks the chosen one of several words.
fn chosen(choices: &str, open: char, close: char) -> Option<&str> {
    let (_, rest) = choices.split_once(open)?;
    rest.split_once(close).map(|(choice, _)| choice)
}

fn lsms(list: &str) -> Vec<String> {
    list.trim().split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// A capability that is needed, and the capabilities that include it.
type Needed = (&'static str, CapabilitySet);

/// The capabilities that the sensor needs. `CAP_SYS_ADMIN` includes the two that were split off from it.
const NEEDED: [Needed; 4] = [
    ("CAP_BPF", CapabilitySet::BPF.union(CapabilitySet::SYS_ADMIN)),
    ("CAP_PERFMON", CapabilitySet::PERFMON.union(CapabilitySet::SYS_ADMIN)),
    ("CAP_SYS_PTRACE", CapabilitySet::SYS_PTRACE),
    ("CAP_DAC_READ_SEARCH", CapabilitySet::DAC_READ_SEARCH),
];

/// The capabilities that the self-test needs to make a container.
const NEEDED_BY_SELFTEST: [Needed; 2] =
    [("CAP_SYS_ADMIN", CapabilitySet::SYS_ADMIN), ("CAP_DAC_OVERRIDE", CapabilitySet::DAC_OVERRIDE)];

/// The needed capabilities that are not held.
fn missing(held: CapabilitySet, needed: &[Needed]) -> Vec<&'static str> {
    needed.iter().filter(|(_, any)| !held.intersects(*any)).map(|&(name, _)| name).collect()
}

/// The mount namespace and root directory of process 1.
///
/// A hardened host may hide these facts about process 1 even from root. Those of this process are used instead if it
/// shares its mount namespace with the kernel's own threads (process 2), because that is the namespace that the host
/// started with.
fn first_process() -> Result<(u32, RootDirectory), Error> {
    match mount_namespace_and_root("1") {
        Err(Error::Read { source, .. })
            if source.kind() == io::ErrorKind::PermissionDenied
                && namespace("/proc/2/ns/mnt").ok() == namespace("/proc/self/ns/mnt").ok() =>
        {
            mount_namespace_and_root("self")
        }
        result => result,
    }
}

fn mount_namespace_and_root(process: &str) -> Result<(u32, RootDirectory), Error> {
    let path = format!("/proc/{process}/root");
    let failed = |e: rustix::io::Errno| Error::Read { path: path.clone(), source: e.into() };
    let root = Process::open(process).and_then(|process| process.root()).map_err(failed)?;
    let root = root.ok_or_else(|| Error::Format {
        path: format!("/proc/{process}/mountinfo"),
        text: "no mount that the root is on".to_owned(),
    })?;
    Ok((namespace(&format!("/proc/{process}/ns/mnt"))?, root))
}

fn namespace(path: &str) -> Result<u32, Error> {
    let link = fs::read_link(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    procfs::namespace_number(link.as_os_str().as_encoded_bytes())
        .ok_or_else(|| Error::Format { path: path.to_owned(), text: link.display().to_string() })
}

fn boot_id() -> Result<String, Error> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(PATH).map_err(|source| Error::Read { path: PATH.to_owned(), source })?;
    Ok(text.trim_end().to_owned())
}

fn read(process: &str, name: &str) -> Result<Vec<u8>, Error> {
    let text = Process::open(process).and_then(|process| process.read(name));
    text.map_err(|e| Error::Read { path: format!("/proc/{process}/{name}"), source: e.into() })
}

/// Reads a file of a kernel file system, either where the file system is usually mounted or through a mount that only
/// this function sees.
fn kernel_file(file_system: &str, usually_at: &str, file: &str) -> io::Result<String> {
    fs::read_to_string(Path::new(usually_at).join(file)).or_else(|_| {
        let context = rustix::mount::fsopen(file_system, FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_create(&context)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        let file = rustix::fs::openat(&mount, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        io::read_to_string(fs::File::from(file))
    })
}

/// What to do about an error, if that is known.
fn remedy(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied { "; run as root, or grant CAP_SYS_PTRACE" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preemption_models_are_told_apart() {
        let dynamic = "#1 SMP PREEMPT_DYNAMIC Debian 6.12.94-1 (2026-07-01)";
        for (choice, version, model) in [
            (Some("none voluntary (full)\n"), dynamic, Preemption::Full),
            (Some("none (voluntary) full \n"), dynamic, Preemption::Voluntary),
            (Some("(none) voluntary full lazy\n"), dynamic, Preemption::None),
            (Some("full (lazy)\n"), dynamic, Preemption::Lazy),
            (Some("full (new)\n"), dynamic, Preemption::Unknown),
            (Some("(undefined)\n"), dynamic, Preemption::Unknown),
            (None, dynamic, Preemption::Unknown),
            (None, "#1 SMP Debian 5.10.262-1 (2026-06-01)", Preemption::None),
            (None, "#1 SMP PREEMPT Debian 5.10.262-1", Preemption::Full),
            (None, "#1 SMP PREEMPT_RT Debian 6.1.176-1", Preemption::Full),
        ] {
            assert_eq!(preemption(choice, version), model, "{choice:?} {version}");
        }
        assert!(Preemption::Unknown.is_preemptible() && !Preemption::Voluntary.is_preemptible());
    }

    #[test]
    fn choices_and_lists_are_read() {
        assert_eq!(chosen("none [integrity] confidentiality\n", '[', ']'), Some("integrity"));
        assert_eq!(chosen("", '[', ']'), None);
        assert_eq!(lsms("lockdown,capability,landlock,yama,apparmor,bpf\n").len(), 6);
        assert!(lsms("\n").is_empty());
    }

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(missing(CapabilitySet::empty(), &NEEDED).len(), 4);
        assert_eq!(missing(CapabilitySet::SYS_ADMIN, &NEEDED), ["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"]);
        let split = CapabilitySet::BPF | CapabilitySet::SYS_PTRACE | CapabilitySet::DAC_READ_SEARCH;
        assert_eq!(missing(split, &NEEDED), ["CAP_PERFMON"]);
    }

    #[test]
    fn this_host_is_read() {
        let host = match Host::read() {
            Ok(host) => host,
            // Tests may run in a container, where this is the right result.
            Err(Error::PidNamespace) => return,
            Err(error) => panic!("{error}"),
        };
        assert!(!host.kernel_release.is_empty());
        if host.missing_capabilities().is_none() {
            assert!(host.mount_namespace != 0 && host.root_dev != 0 && host.root_inode != 0);
        }
    }
}
