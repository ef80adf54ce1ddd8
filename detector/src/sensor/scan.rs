//! Containers that were running before the probes were attached, found in /proc: what the probes would have learned.
//!
//! A process is in a container if its mount namespace and its root directory are not the host's: as the probes have it.
//! Its container is a cgroup: the outermost one with a name that a [known runtime](crate::container::cgroup) gives, or
//! else the innermost that holds all processes of the mount namespace. Host processes may be in the former, not in the
//! latter.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::DirEntryExt as _;
use std::path::Path;

use detector_common::record::ARGS_CAPACITY;
use rustix::fs::AtFlags;
use rustix::io::Errno;
use rustix::thread::LinkNameSpaceType;

use super::hierarchy::Hierarchy;
use super::host::Host;
use crate::container::cgroup;
use crate::detect::process::Program;
use crate::event;
use crate::procfs::{self, Mount, Process, Stat};

/// `PF_KTHREAD` of include/linux/sched.h: a thread of the kernel's own.
const PF_KTHREAD: u64 = 0x0020_0000;
/// What runtimes call the process in which they set a container up, before it executes the container's program.
const RUNTIME_SETUP: [&[u8]; 3] = [b"runc:[", b"crun", b"youki:["];

/// The file system that a container's root is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RootKind {
    /// An overlay of its own.
    Overlay,
    /// Another file system of its own.
    Own,
    /// A directory of a file system that has more than this root, or a subvolume of one.
    Shared,
}

impl RootKind {
    /// What a container's root is on, if it is this mount's.
    fn of(mount: &Mount) -> Self {
        match (mount.fs_type.as_slice(), mount.root.as_slice()) {
            (b"overlay", b"/") => Self::Overlay,
            (_, b"/") => Self::Own,
            _ => Self::Shared,
        }
    }
}

/// What was running.
#[derive(Clone, Debug, Default)]
pub(crate) struct Running {
    /// Ids of cgroups that hold processes in the host's mount namespace, and are not of containers.
    pub(crate) host_cgroups: HashSet<u64>,
    /// The containers.
    pub(crate) containers: Vec<RunningContainer>,
    /// How many processes could not be looked at, for lack of permission.
    pub(crate) unreadable: usize,
    /// How many processes have a root of their own but share a cgroup with host processes: they are not watched.
    pub(crate) in_host_cgroups: usize,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunningContainer {
    /// Id of its outermost cgroup.
    pub(crate) container: u64,
    /// Ids of this cgroup and all below it.
    pub(crate) cgroups: Vec<u64>,
    /// Path of the outermost cgroup from the root of the hierarchy.
    pub(crate) cgroup_path: Vec<u8>,
    /// `s_dev` of the root of its first process; 0: not known.
    pub(crate) root_dev: u32,
    /// What kind of file system its root is on.
    pub(crate) root_kind: RootKind,
    /// Inode number of the first process's mount namespace.
    pub(crate) mount_namespace: u32,
    /// Its first process: the one that started first.
    pub(crate) init: u32,
    /// Its processes. Their start times are cut to hundredths of a second.
    pub(crate) processes: Vec<Program>,
}

/// Finds the containers that run.
///
/// # Errors
///
/// /proc or cgroup2 cannot be read. Processes that end while they are looked at are no error.
pub(super) fn containers(host: &Host) -> io::Result<Running> {
    let Some(hierarchy) = &host.hierarchy else {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "no cgroups are mounted; mount cgroup2 at /sys/fs/cgroup",
        ));
    };
    // /proc shows cgroups as seen from the reader's cgroup namespace, which belongs to the thread: this one joins the
    // host's.
    std::thread::scope(|scope| {
        let scan = scope.spawn(|| {
            if let Err(error) = join_host_cgroup_namespace() {
                tracing::debug!(%error, "cannot join the host's cgroup namespace");
            }
            Scan { host, hierarchy, root: hierarchy.open()?, devices: HashMap::new() }.run()
        });
        scan.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn join_host_cgroup_namespace() -> io::Result<()> {
    let hosts = "/proc/1/ns/cgroup";
    if fs::read_link(hosts)? != fs::read_link("/proc/self/ns/cgroup")? {
        let namespace = File::open(hosts)?;
        rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::ControlGroup))?;
    }
    Ok(())
}

/// A process with a root of its own.
#[derive(Clone, Debug)]
struct Candidate {
    cgroup_path: Vec<u8>,
    mount_namespace: u32,
    root_dev: u32,
    root_kind: RootKind,
    program: Program,
}

/// What a process is to the scan.
enum Look {
    /// In the host's mount namespace and the cgroup of this path.
    Host(Vec<u8>),
    /// In a container.
    Contained(Candidate),
    /// Neither: it sees the host's root in a namespace of its own, or sets a container up.
    Neither,
}

struct Scan<'a> {
    host: &'a Host,
    hierarchy: &'a Hierarchy,
    /// The hierarchy's directory.
    root: OwnedFd,
    /// Mount namespace and id of a mount in it → `s_dev` and kind of its file system.
    devices: HashMap<(u32, u64), (u32, RootKind)>,
}

impl Scan<'_> {
    fn run(mut self) -> io::Result<Running> {
        let mut running = Running::default();
        let mut candidates = Vec::new();
        let mut host = HashMap::new();
        for pid in procfs::process_ids()? {
            match self.look(pid) {
                Ok(Look::Host(path)) => {
                    // Many share a cgroup. `Err`: it was removed.
                    if !host.contains_key(&path)
                        && let Ok(id) = self.cgroup_id(&path)
                    {
                        host.insert(path, id);
                    }
                }
                Ok(Look::Contained(candidate)) => candidates.push(candidate),
                Ok(Look::Neither) | Err(Errno::NOENT | Errno::SRCH) => {}
                Err(error) => {
                    tracing::debug!(pid, %error, "cannot look at a process");
                    running.unreadable += 1;
                }
            }
        }
        let (groups, in_host_cgroups) = group(candidates, &host);
        running.host_cgroups = host.into_values().collect();
        running.in_host_cgroups = in_host_cgroups;
        for (path, processes) in groups {
            // `Err`: the container has ended.
            let Ok(container) = self.cgroup_id(&path) else { continue };
            let mut cgroups = vec![container];
            descend(&self.hierarchy.directory(&path), &mut cgroups);
            running.host_cgroups.retain(|id| !cgroups.contains(id));
            running.containers.extend(found(container, cgroups, path, processes));
        }
        Ok(running)
    }

    /// Looks at a process. `Err`: it has ended, or may not be looked at.
    fn look(&mut self, pid: u32) -> Result<Look, Errno> {
        let process = Process::open(&pid.to_string())?;
        let mount_namespace = process.mount_namespace()?;
        let cgroup_path = self.hierarchy.path_in(&process.read("cgroup")?).ok_or(Errno::NOENT)?.to_vec();
        if mount_namespace == self.host.mount_namespace {
            return Ok(Look::Host(cgroup_path));
        }
        let stat = process.read("stat")?;
        let stat = Stat::parse(&stat).ok_or(Errno::INVAL)?;
        if stat.flags & PF_KTHREAD != 0 {
            return Ok(Look::Host(cgroup_path));
        }
        let root = process.file_behind(c"root")?;
        let (root_dev, root_kind) =
            self.device(&process, mount_namespace, root.stx_mnt_id)?.unwrap_or((0, RootKind::Overlay));
        if (root_dev, root.stx_ino) == (self.host.root_dev, self.host.root_inode)
            || self.sets_up(&process, mount_namespace, &stat)?
        {
            return Ok(Look::Neither);
        }
        let mut args = process.read_at_most("cmdline", ARGS_CAPACITY as u64 + 1)?;
        let truncated = args.len() > ARGS_CAPACITY;
        args.truncate(ARGS_CAPACITY);
        if args.last().is_some_and(|&last| last != 0) && !truncated {
            args.push(0);
        }
        let program = Program {
            pid,
            start_time: stat.start_time().nanoseconds(),
            args: event::Args { bytes: args, truncated },
            cwd: event::Path { bytes: process.read_link("cwd")?, truncated: false },
        };
        Ok(Look::Contained(Candidate { cgroup_path, mount_namespace, root_dev, root_kind, program }))
    }

    /// Whether this is a runtime that sets a container up: named like one, and its program is not from a file that the
    /// container can see. A process that pretends to be one is seen when the container next executes a program.
    fn sets_up(&mut self, process: &Process, mount_namespace: u32, stat: &Stat) -> Result<bool, Errno> {
        if !RUNTIME_SETUP.iter().any(|name| stat.comm.starts_with(name)) {
            return Ok(false);
        }
        let exe = process.file_behind(c"exe")?;
        Ok(self.device(process, mount_namespace, exe.stx_mnt_id)?.is_none())
    }

    /// `s_dev` and kind of a mount in the namespace of a process. `None`: there is no such mount below the process's
    /// root.
    fn device(&mut self, process: &Process, namespace: u32, mount: u64) -> Result<Option<(u32, RootKind)>, Errno> {
        if !self.devices.contains_key(&(namespace, mount)) {
            let mountinfo = process.read("mountinfo")?;
            let of = |mount: Mount| ((namespace, mount.id), (mount.dev, RootKind::of(&mount)));
            self.devices.extend(procfs::mounts(&mountinfo).map(of));
        }
        Ok(self.devices.get(&(namespace, mount)).copied())
    }

    /// The id of a cgroup is the inode number of its directory.
    fn cgroup_id(&self, path: &[u8]) -> Result<u64, Errno> {
        let directory = match path.get(1..) {
            None | Some([]) => rustix::fs::fstat(&self.root)?,
            Some(relative) => rustix::fs::statat(&self.root, relative, AtFlags::SYMLINK_NOFOLLOW)?,
        };
        Ok(directory.st_ino)
    }
}

/// The processes of each container, by the path of its outermost cgroup, and how many belong to none. `host`: the
/// cgroups of host processes.
fn group(candidates: Vec<Candidate>, host: &HashMap<Vec<u8>, u64>) -> (BTreeMap<Vec<u8>, Vec<Candidate>>, usize) {
    let mut in_host_cgroups = 0;
    let mut groups: BTreeMap<Vec<u8>, Vec<Candidate>> = BTreeMap::new();
    let mut unnamed: BTreeMap<u32, Vec<Candidate>> = BTreeMap::new();
    for candidate in candidates {
        let named = prefixes(&candidate.cgroup_path).find(|path| cgroup::parse(path).is_some()).map(<[u8]>::to_vec);
        if let Some(path) = named {
            groups.entry(path).or_default().push(candidate);
        } else if host.contains_key(&candidate.cgroup_path) {
            in_host_cgroups += 1;
        } else {
            unnamed.entry(candidate.mount_namespace).or_default().push(candidate);
        }
    }
    for processes in unnamed.into_values() {
        let common =
            processes.iter().map(|found| found.cgroup_path.as_slice()).reduce(common).unwrap_or_default().to_vec();
        // A cgroup around host processes is no container's: then one of these was only brought into the namespace.
        let is_container = !common.is_empty() && !host.keys().any(|path| prefixes(path).any(|above| above == common));
        for candidate in processes {
            let path = if is_container { common.clone() } else { candidate.cgroup_path.clone() };
            groups.entry(path).or_default().push(candidate);
        }
    }
    // A container in a container is the outer one's.
    let mut outermost: BTreeMap<Vec<u8>, Vec<Candidate>> = BTreeMap::new();
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(path, _)| path.len());
    for (path, mut processes) in groups {
        let outer = prefixes(&path).find(|above| outermost.contains_key(*above)).unwrap_or(&path).to_vec();
        outermost.entry(outer).or_default().append(&mut processes);
    }
    (outermost, in_host_cgroups)
}

/// The container that consists of these processes.
fn found(
    container: u64,
    cgroups: Vec<u64>,
    cgroup_path: Vec<u8>,
    processes: Vec<Candidate>,
) -> Option<RunningContainer> {
    let first = processes.iter().min_by_key(|found| (found.program.start_time, found.program.pid))?;
    Some(RunningContainer {
        container,
        cgroups,
        cgroup_path,
        root_dev: first.root_dev,
        root_kind: first.root_kind,
        mount_namespace: first.mount_namespace,
        init: first.program.pid,
        processes: processes.into_iter().map(|found| found.program).collect(),
    })
}

/// Adds the ids of all cgroups below a directory. One that is removed meanwhile is left out.
fn descend(directory: &Path, ids: &mut Vec<u64>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            ids.push(entry.ino());
            descend(&entry.path(), ids);
        }
    }
}

/// `/a`, `/a/b` and `/a/b/c` of `/a/b/c`; nothing of the root.
fn prefixes(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = (1..=path.len()).filter(|&end| path.get(end).is_none_or(|&next| next == b'/'));
    ends.map(|end| &path[..end]).filter(|prefix| *prefix != b"/")
}

/// The innermost cgroup that holds both; empty: only the root does.
fn common<'a>(one: &'a [u8], other: &'a [u8]) -> &'a [u8] {
    prefixes(one).zip(prefixes(other)).take_while(|(one, other)| one == other).last().map_or(b"", |(path, _)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f2a0c6d9e1b4857a6c3d2e1f0b9a8877665544332211000ffeeddccbbaa9988";

    fn candidate(pid: u32, mount_namespace: u32, path: &str) -> Candidate {
        let program =
            Program { pid, start_time: u64::from(pid), args: event::Args::default(), cwd: event::Path::default() };
        let cgroup_path = path.replace("ID", ID).into_bytes();
        Candidate { cgroup_path, mount_namespace, root_dev: 40, root_kind: RootKind::Overlay, program }
    }

    /// The pids in each container, and how many are in none.
    fn grouped(candidates: Vec<Candidate>, host: &[&str]) -> (Vec<(String, Vec<u32>)>, usize) {
        let host = host.iter().map(|path| (path.as_bytes().to_vec(), 1)).collect();
        let (groups, none) = group(candidates, &host);
        let pids = |found: Vec<Candidate>| found.iter().map(|found| found.program.pid).collect();
        let name = |path| String::from_utf8(path).expect("as above").replace(ID, "ID");
        (groups.into_iter().map(|(path, found)| (name(path), pids(found))).collect(), none)
    }

    #[test]
    fn containers_of_known_runtimes_are_their_outermost_cgroup() {
        let processes = vec![
            candidate(1, 7, "/system.slice/docker-ID.scope/init.scope"),
            candidate(2, 7, "/system.slice/docker-ID.scope/system.slice/web"),
            // In a mount namespace of its own.
            candidate(3, 8, "/system.slice/docker-ID.scope/system.slice/private"),
            candidate(4, 9, "/kubepods/podx/ID"),
        ];
        // A host process may have been put there.
        let (groups, none) = grouped(processes, &["/", "/system.slice/ssh", &format!("/kubepods/podx/{ID}")]);
        let expected = [("/kubepods/podx/ID".into(), vec![4]), ("/system.slice/docker-ID.scope".into(), vec![1, 2, 3])];
        assert_eq!((groups, none), (expected.into(), 0));
    }

    #[test]
    fn containers_of_others_are_what_holds_a_mount_namespace() {
        let processes = vec![
            candidate(1, 7, "/mine/web/init"),
            candidate(2, 7, "/mine/web/app/one"),
            candidate(3, 8, "/mine/web/app/two"),
            candidate(4, 9, "/mine/web-2"),
            candidate(5, 10, "/session"),
        ];
        let (groups, none) = grouped(processes, &["/", "/session", "/mine/other"]);
        assert_eq!((groups, none), ([("/mine/web".into(), vec![1, 2, 3]), ("/mine/web-2".into(), vec![4])].into(), 1));
    }

    #[test]
    fn a_process_that_was_brought_in_does_not_make_the_host_a_container() {
        let processes = vec![candidate(1, 7, "/mine/web"), candidate(2, 7, "/user/shell")];
        let (groups, none) = grouped(processes, &["/", "/user/session"]);
        assert_eq!((groups, none), ([("/mine/web".into(), vec![1]), ("/user/shell".into(), vec![2])].into(), 0));
    }

    #[test]
    fn paths_are_taken_apart() {
        assert_eq!(prefixes(b"/a/b").collect::<Vec<_>>(), [&b"/a"[..], b"/a/b"]);
        assert_eq!(prefixes(b"/").count() + prefixes(b"").count(), 0);
        assert_eq!(common(b"/a/b/c", b"/a/b/d"), b"/a/b");
        assert_eq!(common(b"/a", b"/a"), b"/a");
        assert_eq!(common(b"/a/bc", b"/a/b"), b"/a");
        assert_eq!(common(b"/a", b"/b"), b"");
    }

    #[test]
    fn this_host_is_scanned() {
        let Ok(host) = Host::read() else { return };
        let Some(hierarchy) = &host.hierarchy else { return };
        if host.missing_capabilities().is_some() {
            return;
        }
        let running = containers(&host).expect("/proc and the cgroups are readable");
        // Each id leads to a path, and that back to the id; but for cgroups that were removed meanwhile.
        let root = hierarchy.open().expect("it was read");
        let scan = Scan { host: &host, hierarchy, root, devices: HashMap::new() };
        let led_back = running.host_cgroups.iter().filter(|&&id| {
            let Some(path) = hierarchy.path_of(id) else { return false };
            scan.cgroup_id(&path) == Ok(id)
        });
        assert!(led_back.count() > 0);
        assert_eq!(hierarchy.path_of(u64::MAX), None);
    }
}
