//! Facts of this machine, read once at start: what the load plan decides on and what tells containers from the host.
//!
//! The host is what process 1 sees. The sensor itself may run in a container of its own, with the host's pid namespace.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, StatxFlags},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags},
    thread::CapabilitySet,
    time::ClockId,
};

use super::btf::{self, Btf};

/// Number of the initial pid namespace (`PROC_PID_INIT_INO`, include/linux/proc_ns.h; part of the ABI).
const INITIAL_PID_NAMESPACE: u32 = 0xefff_fffc;

/// Why the facts are incomplete.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of the kernel's cannot be read.
    #[error("cannot read {path}: {source}{}", remedy(.source))]
    Read {
        /// The file.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
    /// What it says is not understood.
    #[error("{path} says {text:?}, which this version does not understand")]
    Format {
        /// The file.
        path: String,
        /// What it says.
        text: String,
    },
    /// Process 1 is not the host's.
    #[error(
        "this process is in a pid namespace of its own and cannot see the host; use `hostPID: true` (Kubernetes) or `--pid=host` (Docker, Podman)"
    )]
    PidNamespace,
}

/// How a kernel preempts its own code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preemption {
    /// Not at all, or voluntarily where the kernel does not say which: only code that waits is interrupted.
    None,
    /// At explicit points.
    Voluntary,
    /// Everywhere.
    Full,
    /// Everywhere, but mostly at the end of a time slice.
    Lazy,
    /// It was decided at boot, and how cannot be read.
    Unknown,
}

impl Preemption {
    /// Whether a probe can be preempted. When not known, it is assumed.
    pub fn is_preemptible(self) -> bool {
        matches!(self, Self::Full | Self::Lazy | Self::Unknown)
    }

    /// Name in reports.
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

/// Which cgroup hierarchies are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupMode {
    /// cgroup2 alone.
    V2,
    /// cgroup2 beside hierarchies of version 1.
    Hybrid,
    /// Version 1 alone.
    V1,
    /// None.
    Unmounted,
}

/// Controllers of version 1 with which every runtime makes cgroups, the best to tell containers by first.
const CONTROLLERS: [&str; 4] = ["pids", "memory", "devices", "cpu"];

/// A hierarchy of cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted as a whole, as a path that this process can use.
    pub mount: PathBuf,
    /// Of version 1: a controller that is in it. `None`: it is cgroup2.
    pub controller: Option<&'static str>,
}

impl Hierarchy {
    /// What /proc/PID/cgroup says of it: its number, and the path of the process's cgroup.
    pub(super) fn entry<'a>(&self, text: &'a [u8]) -> Option<(u32, &'a [u8])> {
        text.split(|&byte| byte == b'\n').find_map(|line| {
            let mut fields = line.splitn(3, |&byte| byte == b':');
            let (number, mut names, path) =
                (fields.next()?, fields.next()?.split(|&byte| byte == b','), fields.next()?);
            let number = u32::try_from(self::number(number)?).ok()?;
            let is_it = match self.controller {
                Some(controller) => names.any(|name| name == controller.as_bytes()),
                None => number == 0,
            };
            is_it.then_some((number, path))
        })
    }

    /// Its number in the kernel.
    pub(super) fn number(&self) -> Result<u32, Error> {
        let path = PathBuf::from("/proc/self/cgroup");
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("nothing of {}", self.mount.display()));
        let found = self.entry(&read(path.clone())?).map(|(number, _)| number);
        found.ok_or_else(|| Error::Read { path: path.display().to_string(), source: missing() })
    }

    /// Where a `css_set` points to the state of its controller, in bytes from its start; 0: it is cgroup2, and needs none.
    pub(super) fn state_offset(&self, kernel: &Btf) -> Result<u64, btf::Error> {
        let Some(controller) = self.controller else { return Ok(0) };
        let index = kernel.enumerator("cgroup_subsys_id", &format!("{controller}_cgrp_id"))?;
        Ok(kernel.member_offset("css_set", "subsys")? + u64::from(index) * size_of::<u64>() as u64)
    }
}

/// Facts of this machine.
#[derive(Clone, Debug)]
pub struct Host {
    /// Host name (`uname -n`).
    pub node: String,
    /// Kernel release (`uname -r`).
    pub kernel_release: String,
    /// Kernel version, which names build options (`uname -v`).
    pub kernel_version: String,
    /// How the kernel preempts: `sched/preempt` in debugfs where it was chosen at boot, else the kernel version.
    pub preemption: Preemption,
    /// Active LSMs in their order: `lsm` in securityfs. `None`: cannot be read.
    pub lsms: Option<Vec<String>>,
    /// Lockdown mode: `lockdown` in securityfs. `None`: cannot be read, or not built in.
    pub lockdown: Option<String>,
    /// Which cgroup hierarchies process 1 has mounted.
    pub cgroup_mode: CgroupMode,
    /// The hierarchy whose cgroups stand for containers. `None`: none is mounted.
    pub hierarchy: Option<Hierarchy>,
    /// Inode number of process 1's mount namespace; 0 if [privileges are missing](Self::missing_capabilities).
    pub mount_namespace: u32,
    /// `s_dev` of process 1's root; 0 if privileges are missing.
    pub root_dev: u32,
    /// Inode number of process 1's root directory; 0 if privileges are missing.
    pub root_inode: u64,
    /// What to add to a time of `CLOCK_BOOTTIME` to get one of the wall clock, in nanoseconds.
    pub boot_to_wall: i64,
    /// CPUs that can ever be online: `/sys/devices/system/cpu/possible`.
    pub possible_cpus: usize,
    capabilities: CapabilitySet,
}

impl Host {
    /// Reads everything. Does not change anything: file systems that are not mounted are read through mounts that
    /// nobody else sees.
    ///
    /// # Errors
    ///
    /// What belongs to every Linux is unreadable, or this process cannot see the host's processes.
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
            Err(_) if !missing(capabilities).is_empty() => (0, Root { dev: 0, inode: 0 }),
            known => known?,
        };
        let init = Path::new("/proc/1");
        let mounts = read(init.join("mountinfo"))?;
        let (cgroup_mode, mut hierarchy) = cgroups(&mounts);
        if let Some(Hierarchy { mount, .. }) = &mut hierarchy
            && !namespace("/proc/self/ns/mnt").is_ok_and(|ours| ours == mount_namespace)
        {
            *mount = init.join("root").join(mount.strip_prefix("/").unwrap_or(mount));
        }
        let possible = "/sys/devices/system/cpu/possible";
        Ok(Self {
            node: text(kernel.nodename()),
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
            boot_to_wall: nanoseconds(ClockId::Realtime) - nanoseconds(ClockId::Boottime),
            possible_cpus: aya::util::nr_cpus()
                .map_err(|(_, source)| Error::Read { path: possible.to_owned(), source })?,
            capabilities,
        })
    }

    /// The capabilities that the sensor cannot do without and this process lacks, in one line.
    pub fn missing_capabilities(&self) -> Option<String> {
        let missing = missing(self.capabilities);
        (!missing.is_empty()).then(|| missing.join(", "))
    }

    /// Whether BPF programs on LSM hooks are called.
    pub fn has_bpf_lsm(&self) -> bool {
        self.lsms.as_deref().is_some_and(|names| names.iter().any(|name| name == "bpf"))
    }
}

/// The root directory of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Root {
    /// `super_block.s_dev`.
    pub(super) dev: u32,
    /// `inode.i_ino`.
    pub(super) inode: u64,
}

/// A line of mountinfo (Documentation/filesystems/proc.rst, 3.5).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) id: u64,
    /// `super_block.s_dev`, which `stat` does not show on every file system (btrfs has one number for each subvolume).
    pub(super) dev: u32,
    /// The directory of the file system that is mounted.
    pub(super) root: Vec<u8>,
    pub(super) mount_point: Vec<u8>,
    pub(super) fs_type: Vec<u8>,
    /// The file system's own options, separated by commas.
    pub(super) options: Vec<u8>,
}

/// The lines of mountinfo. A line of another form is left out.
pub(super) fn mounts(text: &[u8]) -> impl Iterator<Item = Mount> {
    text.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ');
        let id = number(fields.next()?)?;
        let (_parent, dev) = (fields.next()?, fields.next()?);
        let colon = dev.iter().position(|&byte| byte == b':')?;
        let dev = u32::try_from(number(&dev[..colon])? << 20 | number(&dev[colon + 1..])?).ok()?;
        let (root, mount_point) = (unescape(fields.next()?), unescape(fields.next()?));
        // Behind the options, any number of tags up to a dash.
        let mut fields = fields.skip_while(|field| field != b"-").skip(1);
        let (fs_type, _source, options) = (fields.next()?.to_vec(), fields.next()?, fields.next()?.to_vec());
        Some(Mount { id, dev, root, mount_point, fs_type, options })
    })
}

fn number(digits: &[u8]) -> Option<u64> {
    str::from_utf8(digits).ok()?.parse().ok()
}

/// Undoes the kernel's `\040` for blanks and the like.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = (byte == b'\\').then(|| tail.get(..3)).flatten();
        match octal.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok()) {
            Some(value) => (plain.push(value), rest = &tail[3..]).1,
            None => (plain.push(byte), rest = tail).1,
        }
    }
    plain
}

/// Which hierarchies are mounted, and which of them stands for containers: beside hierarchies of version 1 with controllers
/// in them, a runtime need not make cgroups in cgroup2.
fn cgroups(mountinfo: &[u8]) -> (CgroupMode, Option<Hierarchy>) {
    use std::os::unix::ffi::OsStringExt as _;
    let path = |mount: &Mount| PathBuf::from(std::ffi::OsString::from_vec(mount.mount_point.clone()));
    // Seen from a cgroup namespace, the root of the hierarchy is `/..`.
    let is_whole = |mount: &Mount| mount.root.split(|&byte| byte == b'/').all(|name| matches!(name, b"" | b".."));
    let (mut old, mut unified) = (Vec::new(), None);
    for mount in mounts(mountinfo).filter(is_whole) {
        match mount.fs_type.as_slice() {
            b"cgroup" => old.push(mount),
            b"cgroup2" => unified = unified.or(Some(mount)),
            _ => {}
        }
    }
    let has =
        |mount: &&Mount, name: &str| mount.options.split(|&byte| byte == b',').any(|option| option == name.as_bytes());
    let controlled = CONTROLLERS.into_iter().find_map(|controller| {
        let mount = old.iter().find(|mount| has(mount, controller))?;
        Some(Hierarchy { mount: path(mount), controller: Some(controller) })
    });
    let mode = match (old.is_empty(), unified.is_some()) {
        (true, true) => CgroupMode::V2,
        (false, true) => CgroupMode::Hybrid,
        (false, false) => CgroupMode::V1,
        (true, false) => CgroupMode::Unmounted,
    };
    (mode, controlled.or_else(|| unified.map(|mount| Hierarchy { mount: path(&mount), controller: None })))
}

/// `boot_choice` is `sched/preempt` of debugfs, which exists where the model is chosen at boot (`PREEMPT_DYNAMIC`) and is
/// then the only word on it: the command line can name a model that this kernel does not offer, and is ignored.
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

/// The word between brackets: how the kernel shows a choice among others.
fn chosen(choices: &str, open: char, close: char) -> Option<&str> {
    let (_, rest) = choices.split_once(open)?;
    rest.split_once(close).map(|(choice, _)| choice)
}

fn lsms(list: &str) -> Vec<String> {
    list.trim().split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// What the sensor cannot do without. `CAP_SYS_ADMIN` stands for the two that were split off from it. It is also needed
/// for the self-test, which says so itself.
fn missing(held: CapabilitySet) -> Vec<&'static str> {
    let needed = [
        ("CAP_BPF", CapabilitySet::BPF | CapabilitySet::SYS_ADMIN),
        ("CAP_PERFMON", CapabilitySet::PERFMON | CapabilitySet::SYS_ADMIN),
        ("CAP_SYS_PTRACE", CapabilitySet::SYS_PTRACE),
        ("CAP_DAC_READ_SEARCH", CapabilitySet::DAC_READ_SEARCH),
    ];
    needed.iter().filter(|(_, any)| !held.intersects(*any)).map(|&(name, _)| name).collect()
}

/// Mount namespace and root directory of process 1.
///
/// A hardened host may hide these of process 1 even from root. This process then stands in for it if it shares its mount
/// namespace with the kernel's own threads (process 2): that is the namespace the host started with.
fn first_process() -> Result<(u32, Root), Error> {
    let first = |process: &str| {
        let root = root(&read_dir_fd(process)?, process)?;
        Ok((namespace(&format!("{process}/ns/mnt"))?, root))
    };
    match first("/proc/1") {
        Err(Error::Read { source, .. })
            if source.kind() == io::ErrorKind::PermissionDenied
                && namespace("/proc/2/ns/mnt").ok() == namespace("/proc/self/ns/mnt").ok() =>
        {
            first("/proc/self")
        }
        result => result,
    }
}

fn read_dir_fd(path: &str) -> Result<OwnedFd, Error> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::Read { path: path.to_owned(), source: e.into() })
}

/// The root directory of the process with the directory `process` in /proc.
fn root(process: &OwnedFd, name: &str) -> Result<Root, Error> {
    let mountinfo = read(Path::new(name).join("mountinfo"))?;
    let failed = |e: rustix::io::Errno| Error::Read { path: format!("{name}/root"), source: e.into() };
    root_in(process, &mountinfo).map_err(failed)?.ok_or_else(|| Error::Format {
        path: format!("{name}/mountinfo"),
        text: String::from_utf8_lossy(&mountinfo).chars().take(200).collect(),
    })
}

/// The root directory of a process, by its directory in /proc and its mountinfo. The mount is looked up by its id, since
/// several can be mounted on `/`. `None`: mountinfo does not list it.
pub(super) fn root_in(process: &OwnedFd, mountinfo: &[u8]) -> rustix::io::Result<Option<Root>> {
    let found = file_at(process, c"root")?;
    let mount = mounts(mountinfo).find(|mount| mount.id == found.stx_mnt_id);
    Ok(mount.map(|mount| Root { dev: mount.dev, inode: found.stx_ino }))
}

/// Mount and inode of the file behind a link in a directory of /proc.
pub(super) fn file_at(process: &OwnedFd, link: &std::ffi::CStr) -> rustix::io::Result<rustix::fs::Statx> {
    rustix::fs::statx(process, link, AtFlags::STATX_DONT_SYNC, StatxFlags::INO | StatxFlags::MNT_ID)
}

/// The number in a link such as `mnt:[4026531832]`.
pub(super) fn namespace_number(link: &[u8]) -> Option<u32> {
    let (_, number) = str::from_utf8(link).ok()?.split_once(":[")?;
    number.strip_suffix(']')?.parse().ok()
}

fn namespace(path: &str) -> Result<u32, Error> {
    let link = fs::read_link(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    namespace_number(link.as_os_str().as_encoded_bytes())
        .ok_or_else(|| Error::Format { path: path.to_owned(), text: link.display().to_string() })
}

fn read(path: PathBuf) -> Result<Vec<u8>, Error> {
    fs::read(&path).map_err(|source| Error::Read { path: path.display().to_string(), source })
}

/// A file of a kernel file system: where it is usually mounted, or else through a mount that only this function sees.
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

/// Nanoseconds of `CLOCK_BOOTTIME`.
pub(super) fn boot_time() -> u64 {
    u64::try_from(nanoseconds(ClockId::Boottime)).unwrap_or(0)
}

fn nanoseconds(clock: ClockId) -> i64 {
    let time = rustix::time::clock_gettime(clock);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// What to do about an error, if that is known.
fn remedy(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied { "; run as root, or grant CAP_SYS_PTRACE" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a node with cgroup2 alone, from a Debian 12.
    const V2: &[u8] = b"\
22 29 0:20 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
26 22 0:24 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
29 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
36 29 0:31 / /media/a\\040b\\134c rw shared:1 master:2 - tmpfs tmpfs rw
";
    /// Of a node that systemd runs in hybrid mode.
    const HYBRID: &[u8] = b"\
27 1 259:1 / / rw,relatime - xfs /dev/nvme0n1p1 rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
";

    #[test]
    fn mountinfo_is_read() {
        let found: Vec<_> = mounts(V2).collect();
        assert_eq!(found.len(), 4);
        assert_eq!((found[2].id, found[2].dev, found[2].fs_type.as_slice()), (29, 254 << 20 | 1, &b"ext4"[..]));
        assert_eq!(found[3].mount_point, b"/media/a b\\c");
        assert_eq!(mounts(b"").count(), 0);
        for length in 0..V2.len() {
            mounts(&V2[..length]).count();
        }
        assert_eq!(mounts(b"1 2 x:1 / / rw - ext4 a rw\n1 2 0:1 / / rw\n1 2 99999999999:1 / / rw - a b c").count(), 0);
        assert_eq!(unescape(b"\\0\\999\\"), b"\\0\\999\\");
    }

    #[test]
    fn cgroup_modes_are_told_apart() {
        let at = |mount: &str, controller| Some(Hierarchy { mount: mount.into(), controller });
        assert_eq!(cgroups(V2), (CgroupMode::V2, at("/sys/fs/cgroup", None)));
        assert_eq!(cgroups(HYBRID), (CgroupMode::Hybrid, at("/sys/fs/cgroup/pids", Some("pids"))));
        let old = b"33 31 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct";
        assert_eq!(cgroups(old), (CgroupMode::V1, at("/sys/fs/cgroup/cpu", Some("cpu"))));
        let named = b"33 31 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
            32 31 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
        assert_eq!(cgroups(named), (CgroupMode::Hybrid, at("/sys/fs/cgroup/unified", None)));
        assert_eq!(cgroups(b""), (CgroupMode::Unmounted, None));
        let from_namespace = b"26 22 0:24 /../.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw";
        assert_eq!(cgroups(from_namespace), (CgroupMode::V2, at("/sys/fs/cgroup", None)));
        let part = b"26 22 0:24 /docker/a /sys/fs/cgroup rw - cgroup2 cgroup2 rw";
        assert_eq!(cgroups(part), (CgroupMode::Unmounted, None));
    }

    #[test]
    fn cgroups_of_a_process_are_read() {
        let text = b"4:memory:/a\n3:cpu,cpuacct:/b\n1:name=systemd:/c:d\n0::/e:f\n";
        let entry = |controller| Hierarchy { mount: PathBuf::new(), controller }.entry(text);
        assert_eq!(entry(None), Some((0, &b"/e:f"[..])));
        assert_eq!(entry(Some("memory")), Some((4, &b"/a"[..])));
        assert_eq!(entry(Some("cpu")), Some((3, &b"/b"[..])));
        assert_eq!(entry(Some("pids")), None);
    }

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
        assert_eq!(namespace_number(b"mnt:[4026531832]"), Some(4_026_531_832));
        assert_eq!(namespace_number(b"mnt:[]"), None);
    }

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(missing(CapabilitySet::empty()).len(), 4);
        assert_eq!(missing(CapabilitySet::SYS_ADMIN), ["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"]);
        let split = CapabilitySet::BPF | CapabilitySet::SYS_PTRACE | CapabilitySet::DAC_READ_SEARCH;
        assert_eq!(missing(split), ["CAP_PERFMON"]);
    }

    #[test]
    fn this_host_is_read() {
        let host = match Host::read() {
            Ok(host) => host,
            // Tests may run in a container; then this is the right answer.
            Err(Error::PidNamespace) => return,
            Err(error) => panic!("{error}"),
        };
        assert!(host.possible_cpus > 0 && host.boot_to_wall > 0);
        if host.missing_capabilities().is_none() {
            assert!(host.mount_namespace != 0 && host.root_dev != 0 && host.root_inode != 0);
        }
    }
}
