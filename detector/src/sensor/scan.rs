//! Finds in /proc the containers that were running before the probes were attached, with what the probes would have
//! learned about them.
//!
//! A process is in a container if neither its mount namespace nor its root directory is the host's. The probes use the
//! same rule. The container is identified by a cgroup: the outermost one with a name that a [known
//! runtime](crate::container::cgroup) gives, or else the innermost one that contains all processes of the mount
//! namespace. The former may contain host processes, the latter may not.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::DirEntryExt as _;
use std::path::Path;

use detector_common::record::{ARGS_CAPACITY, COMM_LEN, NO_LOGIN};
use rustix::fs::AtFlags;
use rustix::io::Errno;
use rustix::thread::LinkNameSpaceType;

use super::decode;
use super::hierarchy::Hierarchy;
use super::host::Host;
use crate::container::cgroup;
use crate::detect::process::Program;
use crate::event::{self, Origin, Session, Via};
use crate::procfs::{self, Mount, Process, Stat, Status};

/// `PF_KTHREAD` of include/linux/sched.h, the flag of the kernel's own threads.
const PF_KTHREAD: u64 = 0x0020_0000;
/// The names that runtimes give the process in which they set up a container, before it executes the container's
/// program.
const RUNTIME_SETUP: [&[u8]; 3] = [b"runc:[", b"crun", b"youki:["];

/// The file system that a container's root is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RootKind {
    /// An overlay of its own.
    Overlay,
    /// Another file system of its own.
    Own,
    /// A directory of a file system that contains more than this root, or a subvolume of one.
    Shared,
}

impl RootKind {
    /// The kind of a container's root that is on this mount.
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
    /// The ids of cgroups that contain processes in the host's mount namespace, and neither belong to containers nor
    /// have the name of one.
    pub(crate) host_cgroups: HashSet<u64>,
    /// The inode number of the host's network namespace.
    pub(crate) host_network: u32,
    /// The containers.
    pub(crate) containers: Vec<RunningContainer>,
    /// How many processes could not be inspected, for lack of permission.
    pub(crate) unreadable: usize,
    /// How many processes have a root of their own but share a cgroup with host processes. They are not watched.
    pub(crate) in_host_cgroups: usize,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunningContainer {
    /// The id of its outermost cgroup.
    pub(crate) container: u64,
    /// The ids of this cgroup and all cgroups below it.
    pub(crate) cgroups: Vec<u64>,
    /// The path of the outermost cgroup from the root of the hierarchy.
    pub(crate) cgroup_path: Vec<u8>,
    /// The `s_dev` of the root of its first process. 0 if it is not known.
    pub(crate) root_dev: u32,
    /// The kind of file system that its root is on.
    pub(crate) root_kind: RootKind,
    /// The inode number of the first process's mount namespace.
    pub(crate) mount_namespace: u32,
    /// The inode number of the first process's user namespace.
    pub(crate) user_namespace: u32,
    /// The inode number of the first process's network namespace.
    pub(crate) network_namespace: u32,
    /// The id of its first process, which is the one that started first.
    pub(crate) init: u32,
    /// Its processes. Their start times are truncated to hundredths of a second.
    pub(crate) processes: Vec<Program>,
    /// The processes of sessions in it, by their ids.
    pub(crate) sessions: Vec<(u32, Session)>,
    /// The first process of each session, and its executable.
    pub(crate) firsts: Vec<(event::Process, event::Path)>,
}

/// Finds the running containers.
///
/// # Errors
///
/// /proc or the hierarchy cannot be read. It is not an error if a process ends while it is inspected.
pub(super) fn containers(host: &Host, hierarchy: &Hierarchy) -> io::Result<Running> {
    // /proc shows cgroups as seen from the reader's cgroup namespace, which belongs to the thread. So the scan runs in
    // a thread of its own, which joins the host's namespace.
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
    user_namespace: u32,
    network_namespace: u32,
    root_dev: u32,
    root_kind: RootKind,
    parent: u32,
    terminal: u32,
    /// Whether its executable is from a mount of its mount namespace. That of a process which has only joined the
    /// namespace is not.
    has_executed: bool,
    program: Program,
}

/// What the scan takes a process for.
enum Look {
    /// It is in the host's mount namespace and the cgroup of this path.
    Host(Vec<u8>),
    /// It is in a container.
    Contained(Box<Candidate>),
    /// It is neither: it sees the host's root in a namespace of its own, or it is setting up a container.
    Neither,
}

struct Scan<'a> {
    host: &'a Host,
    hierarchy: &'a Hierarchy,
    /// The root directory of the hierarchy.
    root: OwnedFd,
    /// The `s_dev` and kind of the file system of each mount, by mount namespace and id of the mount.
    devices: HashMap<(u32, u64), (u32, RootKind)>,
}

impl Scan<'_> {
    fn run(mut self) -> io::Result<Running> {
        // A hardened host may hide that of process 1.
        let mut networks = ["1", "self"].into_iter().map(|id| Process::open(id)?.network_namespace());
        let host_network = networks.find_map(Result::ok).unwrap_or_default();
        let mut running = Running { host_network, ..Running::default() };
        let mut candidates = Vec::new();
        let mut host = HashMap::new();
        for pid in procfs::process_ids()? {
            match self.look(pid) {
                Ok(Look::Host(path)) => {
                    // Many processes share a cgroup. An error means that the cgroup was removed.
                    if !host.contains_key(&path)
                        && let Ok(id) = self.cgroup_id(&path)
                    {
                        host.insert(path, id);
                    }
                }
                Ok(Look::Contained(candidate)) => candidates.push(*candidate),
                Ok(Look::Neither) | Err(Errno::NOENT | Errno::SRCH) => {}
                Err(error) => {
                    tracing::debug!(pid, %error, "cannot look at a process");
                    running.unreadable += 1;
                }
            }
        }
        let (groups, mut in_host_cgroups) = group(candidates, &host);
        // A runtime prepares a container with a process that is still in the host's mount namespace.
        host.retain(|path, _| container_of(path).is_none());
        running.host_cgroups = host.into_values().collect();
        for (path, processes) in groups {
            // An error means that the container has ended.
            let Ok(container) = self.cgroup_id(&path) else { continue };
            let mut cgroups = vec![container];
            descend(&self.hierarchy.directory(&path), &mut cgroups);
            running.host_cgroups.retain(|id| !cgroups.contains(id));
            let Some(mut found) = found(container, cgroups, path, &processes) else { continue };
            // What has executed a program in the container's mount namespace is in a session of this container.
            let is_joined =
                |process: &mut Candidate| process.mount_namespace == found.mount_namespace && process.has_executed;
            let joined: Vec<_> = in_host_cgroups.extract_if(.., is_joined).collect();
            found.sessions = sessions(&processes, found.init, Via::Exec);
            found.sessions.extend(sessions(&joined, found.init, Via::Nsenter));
            found.processes = processes.into_iter().chain(joined).map(|process| process.program).collect();
            let firsts = found.sessions.iter().filter(|(process, session)| *process == session.pid);
            // An error means that the process has ended.
            found.firsts = firsts.filter_map(|(_, session)| first_process(*session).ok()).collect();
            running.containers.push(found);
        }
        running.in_host_cgroups = in_host_cgroups.len();
        Ok(running)
    }

    /// Inspects a process. Fails if the process has ended or may not be inspected.
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
            cwd: event::Path { bytes: process.read_link("cwd")?, ..event::Path::default() },
            exe: event::Path { bytes: process.read_link("exe")?, ..event::Path::default() },
            since: stat.start_time().nanoseconds(),
            ..Program::default()
        };
        let (user_namespace, network_namespace) = (process.user_namespace()?, process.network_namespace()?);
        let exe = process.file_behind(c"exe")?;
        let has_executed = self.device(&process, mount_namespace, exe.stx_mnt_id)?.is_some();
        Ok(Look::Contained(Box::new(Candidate {
            cgroup_path,
            mount_namespace,
            user_namespace,
            network_namespace,
            root_dev,
            root_kind,
            parent: stat.parent,
            terminal: stat.terminal,
            has_executed,
            program,
        })))
    }

    /// Whether this is a runtime that is setting up a container: it is named like one, and its program is not from a
    /// file that the container can see. If a process only pretends to be one, it is noticed when the container next
    /// executes a program.
    fn sets_up(&mut self, process: &Process, mount_namespace: u32, stat: &Stat) -> Result<bool, Errno> {
        if !RUNTIME_SETUP.iter().any(|name| stat.comm.starts_with(name)) {
            return Ok(false);
        }
        let exe = process.file_behind(c"exe")?;
        Ok(self.device(process, mount_namespace, exe.stx_mnt_id)?.is_none())
    }

    /// The `s_dev` and kind of a mount in the namespace of a process. Returns `None` if there is no such mount below
    /// the process's root.
    fn device(&mut self, process: &Process, namespace: u32, mount: u64) -> Result<Option<(u32, RootKind)>, Errno> {
        if !self.devices.contains_key(&(namespace, mount)) {
            let mountinfo = process.read("mountinfo")?;
            let of = |mount: Mount| ((namespace, mount.id), (mount.dev, RootKind::of(&mount)));
            self.devices.extend(procfs::mounts(&mountinfo).map(of));
        }
        Ok(self.devices.get(&(namespace, mount)).copied())
    }

    /// The id of a cgroup, which is the inode number of its directory.
    fn cgroup_id(&self, path: &[u8]) -> Result<u64, Errno> {
        let directory = match path.get(1..) {
            None | Some([]) => rustix::fs::fstat(&self.root)?,
            Some(relative) => rustix::fs::statat(&self.root, relative, AtFlags::SYMLINK_NOFOLLOW)?,
        };
        Ok(directory.st_ino)
    }
}

/// The processes of each container, by the path of its outermost cgroup, and the processes that are in cgroups of the
/// host. `host` has the cgroups of host processes.
fn group(
    candidates: Vec<Candidate>,
    host: &HashMap<Vec<u8>, u64>,
) -> (BTreeMap<Vec<u8>, Vec<Candidate>>, Vec<Candidate>) {
    let mut in_host_cgroups = Vec::new();
    let mut groups: BTreeMap<Vec<u8>, Vec<Candidate>> = BTreeMap::new();
    let mut unnamed: BTreeMap<u32, Vec<Candidate>> = BTreeMap::new();
    for candidate in candidates {
        if let Some(path) = container_of(&candidate.cgroup_path) {
            groups.entry(path.to_vec()).or_default().push(candidate);
        } else if host.contains_key(&candidate.cgroup_path) {
            in_host_cgroups.push(candidate);
        } else {
            unnamed.entry(candidate.mount_namespace).or_default().push(candidate);
        }
    }
    for processes in unnamed.into_values() {
        let common =
            processes.iter().map(|found| found.cgroup_path.as_slice()).reduce(common).unwrap_or_default().to_vec();
        // A cgroup that contains host processes does not belong to a container. One of these processes was then only
        // brought into the namespace.
        let is_container = !common.is_empty() && !host.keys().any(|path| prefixes(path).any(|above| above == common));
        for candidate in processes {
            let path = if is_container { common.clone() } else { candidate.cgroup_path.clone() };
            groups.entry(path).or_default().push(candidate);
        }
    }
    // A container in another container belongs to the outer one.
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
fn found(container: u64, cgroups: Vec<u64>, cgroup_path: Vec<u8>, processes: &[Candidate]) -> Option<RunningContainer> {
    let first = processes.iter().min_by_key(|found| (found.program.start_time, found.program.pid))?;
    Some(RunningContainer {
        container,
        cgroups,
        cgroup_path,
        root_dev: first.root_dev,
        root_kind: first.root_kind,
        mount_namespace: first.mount_namespace,
        user_namespace: first.user_namespace,
        network_namespace: first.network_namespace,
        init: first.program.pid,
        processes: Vec::new(),
        sessions: Vec::new(),
        firsts: Vec::new(),
    })
}

/// The sessions of these processes of a container, as the probes would have seen them begin: a process whose parent is
/// not among them came from outside, unless it is the container's first process. What takes commands from a socket is
/// not recognised, and a process whose parents have ended is one of the application.
fn sessions(processes: &[Candidate], init: u32, via: Via) -> Vec<(u32, Session)> {
    let by_pid: HashMap<u32, &Candidate> = processes.iter().map(|found| (found.program.pid, found)).collect();
    let session_of = |process: &Candidate| {
        let mut session = None;
        let mut next = Some(process);
        // The outermost one counts. A chain cannot be longer than there are processes, unless ids were used again.
        for _ in 0..=processes.len() {
            let Some(current) = next else { break };
            let above = by_pid.get(&current.parent).copied();
            let begins = match above {
                None if current.program.pid == init => (current.terminal != 0).then_some(Via::Entrypoint),
                None => Some(via),
                Some(above) if current.terminal != 0 && current.terminal != above.terminal => Some(Via::Terminal),
                Some(_) => None,
            };
            let begin = |via| Session { start_time: current.program.start_time, pid: current.program.pid, via };
            session = begins.map(begin).or(session);
            next = above;
        }
        Some((process.program.pid, session?))
    };
    processes.iter().filter_map(session_of).collect()
}

/// The first process of a session, and its executable, as /proc shows them.
fn first_process(session: Session) -> Result<(event::Process, event::Path), Errno> {
    let process = Process::open(&session.pid.to_string())?;
    let (stat, status) = (process.read("stat")?, Status::parse(&process.read("status")?));
    let stat = Stat::parse(&stat).ok_or(Errno::INVAL)?;
    let login = process.read("loginuid").ok().and_then(|text| String::from_utf8(text).ok()?.trim().parse().ok());
    let stdio = [0, 1, 2].map(|number| process.descriptor(number));
    let mut comm = [0; COMM_LEN];
    comm.iter_mut().zip(stat.comm).for_each(|(to, from)| *to = *from);
    let described = event::Process {
        start_time: stat.start_time().nanoseconds(),
        pid: session.pid,
        tid: session.pid,
        ns_pid: status.namespace_pid,
        ppid: stat.parent,
        uid: status.user,
        gid: status.group,
        login_uid: login.filter(|&user| user != NO_LOGIN),
        capabilities: status.capabilities,
        origin: if session.via.is_entry() { Origin::Entered } else { Origin::Application },
        comm: event::Name::new(comm),
        tty: (stat.terminal != 0).then(|| terminal_name(stat.terminal)),
        stdio: stdio.map(decode::stdio),
        stdin: stdio[0].inode,
        peer: None,
        session: Some(session),
        ancestors: Vec::new(),
    };
    let is_started_then = described.start_time == session.start_time;
    let exe = event::Path { bytes: process.read_link("exe")?, ..event::Path::default() };
    is_started_then.then_some((described, exe)).ok_or(Errno::SRCH)
}

/// The kernel's name of a terminal with this device number in the encoding of stat(2).
fn terminal_name(number: u32) -> event::Name {
    // These are the majors of Unix98 pseudo-terminals.
    const PSEUDO: std::ops::RangeInclusive<u32> = 136..=143;
    let (major, minor) = (number >> 8 & 0xfff, number & 0xff | number >> 12 & 0xf_ff00);
    let name = match PSEUDO.contains(&major) {
        true => format!("pts{}", (major - PSEUDO.start()) << 20 | minor),
        false => format!("tty{major}:{minor}"),
    };
    let mut padded = [0; COMM_LEN];
    padded.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    event::Name::new(padded)
}

/// Adds the ids of all cgroups below a directory. A cgroup that is removed in the meantime is left out.
fn descend(directory: &Path, ids: &mut Vec<u64>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            ids.push(entry.ino());
            descend(&entry.path(), ids);
        }
    }
}

/// The outermost cgroup on a path that has the name that a known runtime gives a container.
fn container_of(path: &[u8]) -> Option<&[u8]> {
    prefixes(path).find(|path| cgroup::parse(path).is_some())
}

/// Returns `/a`, `/a/b` and `/a/b/c` for `/a/b/c`, and nothing for the root.
fn prefixes(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = (1..=path.len()).filter(|&end| path.get(end).is_none_or(|&next| next == b'/'));
    ends.map(|end| &path[..end]).filter(|prefix| *prefix != b"/")
}

/// The innermost cgroup that contains both. It is empty if only the root does.
fn common<'a>(one: &'a [u8], other: &'a [u8]) -> &'a [u8] {
    prefixes(one).zip(prefixes(other)).take_while(|(one, other)| one == other).last().map_or(b"", |(path, _)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f2a0c6d9e1b4857a6c3d2e1f0b9a8877665544332211000ffeeddccbbaa9988";

    fn candidate(pid: u32, mount_namespace: u32, path: &str) -> Candidate {
        let program = Program { pid, start_time: u64::from(pid), ..Program::default() };
        let cgroup_path = path.replace("ID", ID).into_bytes();
        Candidate {
            cgroup_path,
            mount_namespace,
            user_namespace: 6,
            network_namespace: 7,
            root_dev: 40,
            root_kind: RootKind::Overlay,
            parent: 0,
            terminal: 0,
            has_executed: true,
            program,
        }
    }

    /// The process ids in each container, and how many processes are in none.
    fn grouped(candidates: Vec<Candidate>, host: &[&str]) -> (Vec<(String, Vec<u32>)>, usize) {
        let host = host.iter().map(|path| (path.as_bytes().to_vec(), 1)).collect();
        let (groups, none) = group(candidates, &host);
        let pids = |found: Vec<Candidate>| found.iter().map(|found| found.program.pid).collect();
        let name = |path| String::from_utf8(path).expect("as above").replace(ID, "ID");
        (groups.into_iter().map(|(path, found)| (name(path), pids(found))).collect(), none.len())
    }

    #[test]
    fn containers_of_known_runtimes_are_their_outermost_cgroup() {
        let processes = vec![
            candidate(1, 7, "/system.slice/docker-ID.scope/init.scope"),
            candidate(2, 7, "/system.slice/docker-ID.scope/system.slice/web"),
            // This process is in a mount namespace of its own.
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
    fn sessions_are_what_the_probes_would_have_seen() {
        let process = |pid, parent, terminal| Candidate { parent, terminal, ..candidate(pid, 7, "/mine/web") };
        let found = |processes: &[Candidate], via| {
            let sessions = sessions(processes, 1, via);
            sessions.iter().map(|(pid, session)| (*pid, session.pid, session.via)).collect::<Vec<_>>()
        };
        let application = [process(1, 900, 0), process(2, 1, 0)];
        assert_eq!(found(&application, Via::Exec), []);
        // The second shell was entered with a terminal, and has opened another one. Process 9 was opened one by the
        // application.
        let entered = [process(3, 901, 0), process(4, 3, 0), process(5, 902, 34816), process(6, 5, 34817)];
        let expected = [(3, 3, Via::Exec), (4, 3, Via::Exec), (5, 5, Via::Exec), (6, 5, Via::Exec)];
        let login = [process(8, 2, 0), process(9, 8, 34818), process(10, 9, 34818)];
        let all = [&application[..], &entered, &login].concat();
        let logins = [(9, 9, Via::Terminal), (10, 9, Via::Terminal)];
        assert_eq!(found(&all, Via::Exec), [&expected[..], &logins].concat());
        assert_eq!(found(&entered[..1], Via::Nsenter), [(3, 3, Via::Nsenter)]);
        let attached = [process(1, 900, 34816), process(2, 1, 34816)];
        assert_eq!(found(&attached, Via::Exec), [(1, 1, Via::Entrypoint), (2, 1, Via::Entrypoint)]);
        // Ids that were used again can make a circle.
        assert_eq!(found(&[process(3, 4, 0), process(4, 3, 0)], Via::Exec), []);
        assert_eq!(terminal_name(34816 + 7), event::Name::new(*b"pts7\0\0\0\0\0\0\0\0\0\0\0\0"));
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
        let running = containers(&host, hierarchy).expect("/proc and the cgroups are readable");
        // Each id leads to a path, and the path leads back to the id, except for cgroups that were removed in the
        // meantime.
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
