//! Inspects executed files whose names do not tell what they are. A thread of its own reads the files, and sends each
//! event back with the result of [content].
//!
//! Each file is read only once. A file on a lower layer of an image cannot change, so its device and inode identify it.
//! For any other file the thread also compares size and change time at each execution.

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

/// How many files can wait for inspection. More are counted as not inspected.
const QUEUE_CAPACITY: usize = 512;
/// How many results are cached.
const CACHE_CAPACITY: usize = 16_384;
/// How many bytes of a file are read at most. This is larger than any shell, and takes a fraction of a second to read.
const MAX_BYTES: u64 = 32 << 20;
/// How many processes of a container are tried when the process that executed the file has already exited.
const MAX_WITNESSES: usize = 8;
/// How long a shutdown waits for running inspections.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// File systems whose files are not read, because another process or machine serves them and may never answer: FUSE,
/// NFS, CIFS, SMB, Ceph, 9P and AFS. The numbers are those of `statfs.f_type` (include/uapi/linux/magic.h).
const REMOTE_FILE_SYSTEMS: [u32; 7] =
    [0x6573_5546, 0x6969, 0xff53_4d42, 0xfe53_4d42, 0x00c3_6400, 0x0102_1997, 0x5346_414f];

/// Identifies a file on a lower layer: the container, and the file's device, inode and size. The kernel reuses device
/// numbers, so the container's cgroup id, which it never reuses, is part of the key.
type Key = (u64, u32, u64, u64);

/// The pipeline's side of the inspection: sends files to the thread, and caches the results for files that cannot
/// change.
pub(super) struct Inspector {
    requests: Option<SyncSender<Request>>,
    inspected: Receiver<Inspected>,
    /// Raised by the thread when it has inspected files.
    ready: Flag,
    known: Recent<Key, Content>,
    /// The number of files that could not be inspected.
    failures: Arc<AtomicU64>,
}

/// An execution to inspect, and the directory of the container's cgroup.
struct Request {
    event: Event,
    cgroup: Option<PathBuf>,
}

/// An execution, and the content of the executed file.
pub(super) struct Inspected {
    pub(super) event: Event,
    pub(super) content: Content,
}

/// The executed or mapped file of an event, with its path and its process.
fn file(event: &Event) -> Option<(&event::File, &event::Path, &event::Process)> {
    match event {
        Event::Exec(exec) => Some((&exec.file, &exec.exe, &exec.process)),
        Event::MapExec(mapped) => mapped.detail.as_ref().map(|detail| (&mapped.file, &detail.path, &detail.process)),
        _ => None,
    }
}

/// The cache key of the event's file, or `None` if the file is not on a lower layer.
fn key(event: &Event) -> Option<Key> {
    let ((file, ..), at) = (file(event)?, event.at()?);
    (file.layer == Some(Layer::Lower)).then_some((at.container, file.dev, file.inode, file.size))
}

impl Inspector {
    /// Starts the thread, which ends when the inspector is dropped.
    pub(super) fn start() -> Result<Self, Error> {
        let (requests, requested) = sync_channel(QUEUE_CAPACITY);
        let (results, inspected) = channel();
        let ready = Flag::new()?;
        let failures = Arc::new(AtomicU64::new(0));
        let (ready_copy, failures_copy) = (ready.clone(), Arc::clone(&failures));
        spawn("inspector", move || inspect_all(&requested, &results, &ready_copy, &failures_copy))?;
        Ok(Self { requests: Some(requests), inspected, ready, known: Recent::new(CACHE_CAPACITY), failures })
    }

    /// Returns the cached result for the event's file. If there is none, sends the event to the thread. `cgroup`
    /// returns the directory of the container's cgroup.
    pub(super) fn inspect(&mut self, event: Event, cgroup: impl FnOnce() -> Option<PathBuf>) -> Option<Inspected> {
        if let Some(&content) = key(&event).and_then(|key| self.known.get(&key)) {
            return Some(Inspected { event, content });
        }
        if file(&event).is_some_and(|(file, ..)| REMOTE_FILE_SYSTEMS.contains(&file.magic)) {
            return None;
        }
        let request = Request { event, cgroup: cgroup() };
        if self.requests.as_ref().is_none_or(|requests| requests.try_send(request).is_err()) {
            self.failures.fetch_add(1, Relaxed);
        }
        None
    }

    /// Returns the next inspected file, if the thread has finished one.
    pub(super) fn next_inspected(&mut self) -> Option<Inspected> {
        let inspected = self.inspected.try_recv().ok()?;
        if let Some(key) = key(&inspected.event) {
            self.known.insert(key, inspected.content);
        }
        Some(inspected)
    }

    /// Makes the descriptor of [`ready`](Self::ready) unreadable. The caller must then take all inspected files.
    pub(super) fn reset(&self) {
        self.ready.lower();
    }

    /// Stops sending files to the thread, and returns the next of those it was still inspecting.
    pub(super) fn last_inspected(&mut self, since: Instant) -> Option<Inspected> {
        self.requests = None;
        match self.inspected.recv_timeout(SHUTDOWN_TIMEOUT.saturating_sub(since.elapsed())) {
            Ok(inspected) => Some(inspected),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                tracing::warn!("stopping before all executed files were inspected; their content is not reported");
                None
            }
        }
    }

    /// The number of files that could not be inspected.
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// A descriptor that becomes readable when files have been inspected.
    pub(super) fn ready(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}

/// Runs the inspector thread.
fn inspect_all(requested: &Receiver<Request>, results: &Sender<Inspected>, ready: &Flag, failures: &AtomicU64) {
    let mut known = Recent::new(CACHE_CAPACITY);
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
                tracing::debug!(?path, %error, "cannot inspect an executed file");
                failures.fetch_add(1, Relaxed);
            }
        }
    }
}

/// Identifies a version of a file: the container, and the fields of `stat` that change whenever the file does.
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
    let content = content::recognise(File::from(file).take(MAX_BYTES))?;
    known.insert(version, content);
    Ok(content)
}

/// Opens the file through the process that executed or mapped it, if that process still runs.
fn of_process(event: &Event, process: &event::Process) -> Option<OwnedFd> {
    let opened = Process::open_started(process.pid, process.start_time)?;
    match event {
        Event::MapExec(mapped) => opened.open_mapped(|stat| is_stat_of(stat, &mapped.file)),
        _ => opened.open_file(b"exe").ok(),
    }
}

/// The processes that probably see the container's files under the same paths.
fn witnesses(process: &event::Process, cgroup: Option<&Path>) -> impl Iterator<Item = u32> {
    let above = process.ancestors.iter().filter(|ancestor| ancestor.in_container).map(|ancestor| ancestor.pid);
    let beside = cgroup.and_then(|cgroup| fs::read_to_string(cgroup.join("cgroup.procs")).ok()).unwrap_or_default();
    let beside: Vec<u32> = beside.lines().filter_map(|pid| pid.parse().ok()).collect();
    std::iter::once(process.pid).chain(above).chain(beside).take(MAX_WITNESSES)
}

/// Opens the regular file at a path, as a process sees it. The container controls what is at that path, so the lookup
/// stays within the process's root, follows no symbolic links, and opens only regular files.
fn open_in_root(pid: u32, path: &event::Path) -> Option<OwnedFd> {
    if path.truncated {
        return None;
    }
    let root = format!("/proc/{pid}/root");
    let root = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let found = rustix::fs::openat2(&root, path.bytes.as_slice(), flags, Mode::empty(), resolve).ok()?;
    // Opening a device can have side effects, so this checks the type on an O_PATH descriptor first.
    let mode = rustix::fs::fstat(&found).ok()?.st_mode;
    if !FileType::from_raw_mode(mode).is_file() {
        return None;
    }
    // O_NONBLOCK keeps open(2) from waiting for a lease on the file.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::open(format!("/proc/self/fd/{}", found.as_raw_fd()), flags, Mode::empty()).ok()
}

/// Whether an open file is the one that the kernel reported.
fn is_same(file: &OwnedFd, reported: &event::File) -> bool {
    rustix::fs::fstat(file).is_ok_and(|stat| is_stat_of(&stat, reported))
}

/// On some overlay file systems stat(2) returns the device of the underlying file system, with that file system's inode
/// number.
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

    /// An execution of a file of this machine, by a process that no longer exists.
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
        // The path of a deleted file looks like this.
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
        // Reading the mapped files of a process needs a capability.
        assert!(mapped == found || !rustix::process::geteuid().is_root());
        assert_eq!(later, None, "that is another process");
    }

    #[test]
    fn a_file_that_replaced_the_executed_one_is_not_read() {
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
        // Change times have the resolution of the timer tick.
        std::thread::sleep(Duration::from_millis(20));
        fs::write(&path, shell).expect("it can be written");
        assert_eq!(content(), Some(Content::Box));
    }

    #[test]
    fn a_file_of_the_image_is_inspected_once() {
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
