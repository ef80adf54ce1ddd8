//! Inspects executed files whose names do not say what they are, on a thread of its own: what [content] makes of them comes
//! back with the event.
//!
//! A file is read once, however often it is executed. One of the image's lower layers cannot change, so that its device
//! and inode are enough to know it again; of any other one size and change time are compared too, each time.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};

use super::threads::{Error, Flag, spawn};
use crate::detect::content::{self, Content};
use crate::event::{self, Event, Layer};
use crate::procfs::Process;
use crate::recent::Recent;

/// How many files can wait.
const QUEUE: usize = 512;
/// How many files are known.
const KNOWN: usize = 16_384;
/// How much of a file is read: more than any shell has, and a fraction of a second.
const MOST: u64 = 32 << 20;
/// How many processes of a container are asked for a file that its own process cannot give any more.
const WITNESSES: usize = 8;
/// How long the end waits for answers.
const PATIENCE: Duration = Duration::from_secs(2);

/// File systems that are not read, for another process or machine answers for them, and may never: FUSE, NFS, CIFS, SMB,
/// Ceph, 9P and AFS, as in `statfs.f_type` (include/uapi/linux/magic.h).
const ELSEWHERE: [u32; 7] = [0x6573_5546, 0x6969, 0xff53_4d42, 0xfe53_4d42, 0x00c3_6400, 0x0102_1997, 0x5346_414f];

/// A file of a lower layer: the container, the file's device, inode and size. Device numbers are used again, but not by
/// another container of the same cgroup id.
type Key = (u64, u32, u64, u64);

/// The reader's side: hands files to the thread, and keeps what stays true of them.
pub(super) struct Inspector {
    requests: Option<SyncSender<Request>>,
    inspected: Receiver<Inspected>,
    /// Raised when files have been inspected.
    ready: Flag,
    known: Recent<Key, Content>,
    /// Files that could not be inspected.
    failures: Arc<AtomicU64>,
}

/// The execution, and the container's cgroup.
struct Request {
    event: Event,
    cgroup: Option<PathBuf>,
}

/// An execution, and what the executed file is.
pub(super) struct Inspected {
    pub(super) event: Event,
    pub(super) content: Content,
}

/// The file that an event asks about.
fn file(event: &Event) -> Option<(&event::File, &event::Path, &event::Process)> {
    match event {
        Event::Exec(exec) => Some((&exec.file, &exec.exe, &exec.process)),
        Event::MapExec(mapped) => mapped.detail.as_ref().map(|detail| (&mapped.file, &detail.path, &detail.process)),
        _ => None,
    }
}

/// `None`: it is not of a lower layer.
fn key(event: &Event) -> Option<Key> {
    let ((file, ..), at) = (file(event)?, event.at()?);
    (file.layer == Some(Layer::Lower)).then_some((at.container, file.dev, file.inode, file.size))
}

impl Inspector {
    /// Starts the thread. It ends when this is dropped.
    pub(super) fn start() -> Result<Self, Error> {
        let (requests, requested) = sync_channel(QUEUE);
        let (results, inspected) = channel();
        let ready = Flag::new()?;
        let failures = Arc::new(AtomicU64::new(0));
        let (ready_copy, failures_copy) = (ready.clone(), Arc::clone(&failures));
        spawn("inspector", move || inspect_all(&requested, &results, &ready_copy, &failures_copy))?;
        Ok(Self { requests: Some(requests), inspected, ready, known: Recent::new(KNOWN), failures })
    }

    /// What the file of an event is, if that is known for sure; else it is handed to the thread. `cgroup`: the container's.
    pub(super) fn inspect(&mut self, event: Event, cgroup: impl FnOnce() -> Option<PathBuf>) -> Option<Inspected> {
        if let Some(&content) = key(&event).and_then(|key| self.known.get(&key)) {
            return Some(Inspected { event, content });
        }
        if file(&event).is_some_and(|(file, ..)| ELSEWHERE.contains(&file.magic)) {
            return None;
        }
        let request = Request { event, cgroup: cgroup() };
        if self.requests.as_ref().is_none_or(|requests| requests.try_send(request).is_err()) {
            self.failures.fetch_add(1, Relaxed);
        }
        None
    }

    /// The next file that has been inspected, if there is one.
    pub(super) fn next_inspected(&mut self) -> Option<Inspected> {
        let inspected = self.inspected.try_recv().ok()?;
        if let Some(key) = key(&inspected.event) {
            self.known.insert(key, inspected.content);
        }
        Some(inspected)
    }

    /// Makes the descriptor unreadable; to be followed by taking all that has been inspected.
    pub(super) fn reset(&self) {
        self.ready.lower();
    }

    /// Hands no more files over, and waits for those that were, one after the other.
    pub(super) fn last_inspected(&mut self, since: Instant) -> Option<Inspected> {
        self.requests = None;
        match self.inspected.recv_timeout(PATIENCE.saturating_sub(since.elapsed())) {
            Ok(inspected) => Some(inspected),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                tracing::warn!("executed files were still being inspected");
                None
            }
        }
    }

    /// How many files could not be inspected.
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// Readable when files have been inspected.
    pub(super) fn ready(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}

/// What the thread does.
fn inspect_all(requested: &Receiver<Request>, results: &Sender<Inspected>, ready: &Flag, failures: &AtomicU64) {
    let mut known = Recent::new(KNOWN);
    for Request { event, cgroup } in requested {
        match inspect(&event, cgroup.as_deref(), &mut known) {
            Ok(content) => {
                if results.send(Inspected { event, content }).is_err() {
                    return;
                }
                ready.raise();
            }
            Err(error) => {
                let path = file(&event).map(|(_, path, _)| String::from_utf8_lossy(&path.bytes).into_owned());
                tracing::debug!(?path, %error, "an executed file cannot be inspected");
                failures.fetch_add(1, Relaxed);
            }
        }
    }
}

/// A file as it was: the container, and what `stat` says that changes when the file does.
type Version = (u64, u64, u64, i64, i64, u64);

fn inspect(event: &Event, cgroup: Option<&Path>, known: &mut Recent<Version, Content>) -> io::Result<Content> {
    let missing = || io::Error::from(io::ErrorKind::NotFound);
    let (executed, path, process) = file(event).ok_or_else(missing)?;
    let same = |file: OwnedFd| is_same(&file, executed).then_some(file);
    let by_path = || witnesses(process, cgroup).find_map(|pid| same(open_in_root(pid, path)?));
    let file = of_process(event, process).and_then(same).or_else(by_path).ok_or_else(missing)?;
    let stat = rustix::fs::fstat(&file)?;
    let version = (
        event.at().map_or(0, |at| at.container),
        stat.st_dev,
        stat.st_ino,
        stat.st_ctime,
        i64::try_from(stat.st_ctime_nsec).unwrap_or_default(),
        stat.st_size.unsigned_abs(),
    );
    if let Some(&content) = known.get(&version) {
        return Ok(content);
    }
    let content = content::recognise(File::from(file).take(MOST))?;
    known.insert(version, content);
    Ok(content)
}

/// The file, from the process that executed or mapped it, if that still runs.
fn of_process(event: &Event, process: &event::Process) -> Option<OwnedFd> {
    let opened = Process::open_started(process.pid, process.start_time)?;
    match event {
        Event::MapExec(mapped) => opened.open_mapped(|stat| is_stat_of(stat, &mapped.file)),
        _ => opened.open_file(b"exe").ok(),
    }
}

/// Processes that see the container's files at the same paths, as far as can be guessed.
fn witnesses(process: &event::Process, cgroup: Option<&Path>) -> impl Iterator<Item = u32> {
    let above = process.ancestors.iter().filter(|ancestor| ancestor.in_container).map(|ancestor| ancestor.pid);
    let beside = cgroup.and_then(|cgroup| fs::read_to_string(cgroup.join("cgroup.procs")).ok()).unwrap_or_default();
    let beside: Vec<u32> = beside.lines().filter_map(|pid| pid.parse().ok()).collect();
    std::iter::once(process.pid).chain(above).chain(beside).take(WITNESSES)
}

/// Opens the regular file that is at a path for a process. Whoever owns that may put something else there at any time:
/// nothing leads out of the process's root, and nothing else is opened.
fn open_in_root(pid: u32, path: &event::Path) -> Option<OwnedFd> {
    if path.truncated {
        return None;
    }
    let root = format!("/proc/{pid}/root");
    let root = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let found = rustix::fs::openat2(&root, path.bytes.as_slice(), flags, Mode::empty(), resolve).ok()?;
    // To open a device can have effects; to look at it has none.
    let mode = rustix::fs::fstat(&found).ok()?.st_mode;
    if !FileType::from_raw_mode(mode).is_file() {
        return None;
    }
    // A lease that somebody has on it is not waited for.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::open(format!("/proc/self/fd/{}", found.as_raw_fd()), flags, Mode::empty()).ok()
}

/// Whether this is the file that the kernel has reported.
fn is_same(file: &OwnedFd, reported: &event::File) -> bool {
    rustix::fs::fstat(file).is_ok_and(|stat| is_stat_of(&stat, reported))
}

/// On some overlays stat(2) gives the number of the device below, with its inode number.
fn is_stat_of(stat: &Stat, reported: &event::File) -> bool {
    let device = rustix::fs::major(stat.st_dev) << 20 | rustix::fs::minor(stat.st_dev);
    FileType::from_raw_mode(stat.st_mode).is_file()
        && stat.st_size.unsigned_abs() == reported.size
        && (stat.st_ino == reported.inode || device != reported.dev)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;
    use std::process::Command;

    use crate::detect::samples;
    use crate::event::{Detail, Exec, MapExec, Origin};

    const BUSYBOX: &str = "/bin/busybox";

    /// The execution of a file of this machine, by a process that is not there any more.
    fn executed(path: &Path) -> Exec {
        let path = path.canonicalize().expect("it exists");
        let stat = fs::metadata(&path).expect("it exists");
        let mut exec = samples::exec(Origin::Application, &path.to_string_lossy(), &["x"]);
        exec.file.inode = stat.ino();
        exec.file.size = stat.size();
        exec.file.dev = rustix::fs::major(stat.dev()) << 20 | rustix::fs::minor(stat.dev());
        (exec.file.layer, exec.file.magic) = (None, 0);
        (exec.process.pid, exec.process.start_time) = (u32::MAX, 0);
        exec.process.ancestors[0].pid = std::process::id();
        exec.process.ancestors[0].in_container = true;
        exec
    }

    fn content(exec: &Exec) -> Option<Content> {
        inspect(&Event::Exec(Box::new(exec.clone())), None, &mut Recent::new(2)).ok()
    }

    #[test]
    fn a_file_is_found_by_its_path_for_another_process() {
        let exec = executed(Path::new(BUSYBOX));
        assert_eq!(content(&exec), Some(Content::Box));

        let mut alone = exec.clone();
        alone.process.ancestors.clear();
        assert_eq!(content(&alone), None);
        let folder = tempfile::tempdir().expect("a folder can be made");
        fs::write(folder.path().join("cgroup.procs"), format!("{}\n", std::process::id())).expect("it can be written");
        let event = Event::Exec(Box::new(alone));
        assert_eq!(inspect(&event, Some(folder.path()), &mut Recent::new(2)).ok(), Some(Content::Box));
    }

    #[test]
    fn a_file_is_found_by_its_process() {
        let mut sleeper = Command::new(BUSYBOX).args(["sleep", "100"]).spawn().expect("busybox is here");
        let mut exec = executed(Path::new(BUSYBOX));
        // As of a deleted one.
        exec.exe = event::Path { bytes: b"/gone".into(), truncated: false };
        exec.process.pid = sleeper.id();
        let stat = fs::read_to_string(format!("/proc/{}/stat", sleeper.id())).expect("it runs");
        let ticks: u64 = stat.split(' ').nth(21).and_then(|field| field.parse().ok()).expect("proc(5) says so");
        exec.process.start_time = ticks * 10_000_000;
        let found = content(&exec);
        let Exec { at, process, file, exe: path, .. } = exec.clone();
        let exe = samples::path("/lib64/ld-linux-x86-64.so.2");
        let detail = Some(Detail { process, exe, path, new_path: None });
        let mapped = Event::MapExec(Box::new(MapExec { at, file, detail }));
        let mapped = inspect(&mapped, None, &mut Recent::new(2)).ok();
        exec.process.start_time += 10_000_000;
        let later = content(&exec);
        sleeper.kill().and_then(|()| sleeper.wait()).expect("it is ours");
        assert_eq!(found, Some(Content::Box));
        // Needs a capability.
        assert!(mapped == found || !rustix::process::geteuid().is_root());
        assert_eq!(later, None, "that is another process");
    }

    #[test]
    fn what_took_the_place_of_a_file_is_not_read() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let path = folder.path().join("x");
        fs::copy(BUSYBOX, &path).expect("busybox is here");
        let exec = executed(&path);
        assert_eq!(content(&exec), Some(Content::Box));

        fs::remove_file(&path).expect("it is there");
        std::os::unix::fs::symlink(BUSYBOX, &path).expect("there is nothing now");
        assert_eq!(content(&exec), None, "a link");
        fs::remove_file(&path).expect("it is there");
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RWXU, 0).expect("there is nothing now");
        assert_eq!(content(&exec), None, "a FIFO");
        fs::remove_file(&path).expect("it is there");
        fs::write(&path, "another").expect("there is nothing now");
        assert_eq!(content(&exec), None, "another file");
    }

    #[test]
    fn a_file_is_read_again_when_it_has_changed() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let path = folder.path().join("x");
        let shell = fs::read(BUSYBOX).expect("busybox is here");
        let mut other = shell.clone();
        other[..4].copy_from_slice(b"none");
        fs::write(&path, other).expect("it can be written");
        let event = Event::Exec(Box::new(executed(&path)));
        let mut known = Recent::new(2);
        let mut content = || inspect(&event, None, &mut known).ok();
        assert_eq!((content(), content()), (Some(Content::Other), Some(Content::Other)));
        // Change times are as exact as the timer's tick.
        std::thread::sleep(Duration::from_millis(20));
        fs::write(&path, shell).expect("it can be written");
        assert_eq!(content(), Some(Content::Box));
    }

    #[test]
    fn a_file_of_the_image_is_asked_for_once() {
        let mut inspector = Inspector::start().expect("a thread can be started");
        let mut exec = executed(Path::new(BUSYBOX));
        exec.file.layer = Some(Layer::Lower);
        let event = Event::Exec(Box::new(exec.clone()));
        assert!(inspector.inspect(event.clone(), || None).is_none());
        let first = loop {
            let mut fds = [rustix::event::PollFd::from_borrowed_fd(inspector.ready(), rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut fds, None).expect("it can be waited for");
            inspector.reset();
            if let Some(inspected) = inspector.next_inspected() {
                break inspected;
            }
        };
        assert_eq!(first.content, Content::Box);
        assert_eq!(inspector.inspect(event, || None).map(|inspected| inspected.content), Some(Content::Box));

        exec.at.container += 1;
        assert!(inspector.inspect(Event::Exec(Box::new(exec)), || None).is_none(), "another container's image");
        let since = Instant::now();
        assert_eq!(inspector.last_inspected(since).map(|inspected| inspected.content), Some(Content::Box));
        assert!(inspector.last_inspected(since).is_none());
        assert_eq!(inspector.failures(), 0);
    }
}
