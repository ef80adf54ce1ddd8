//! Inspects executed files: those whose names do not tell what they are, and those whose SHA-256 is asked for. A thread
//! of its own reads the files, and sends each event back with what is known of the [content](crate::detect::content).
//!
//! Each file is read only once, and one that takes long is read further at its next execution. A file on a lower layer
//! of an image cannot change, so it is read once for all containers of the image. For any other file the thread
//! compares size and change time at each execution.
//!
//! A copy of a shell that is gone before it can be read, or that is not read for another reason, is known by how it
//! begins: the kernel reports the first bytes of what it executes, with the headers of the program, and these are
//! compared with those of shells that were executed before.
//!
//! A hash is that of the bytes that were executed. So it is only taken from the file that the kernel reported, if that
//! was not changed since then: the process still runs, or the time of the last change is before the execution.
//!
//! The thread touches no file system that may never answer, but a container can make the kernel wait in other ways, for
//! example for a lock of a process's memory. So a thread that does not come back is abandoned, and another one goes on.
//! The container that it waits for is not inspected any more until it comes back.

mod locate;
mod queue;
mod read;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use detector_common::record::HEAD_CAPACITY;
use detector_common::vocabulary::Loss;

use super::threads::{Error, Flag, spawn};
use crate::clock::{self, WallClock};
use crate::detect::Hashed;
use crate::detect::content::{Content, Look};
use crate::event::{self, Event, Layer};
use crate::finding::{Sha256, Unread};
use crate::recent::Recent;
use queue::Queue;
use read::Progress;

/// How many results are cached.
const CACHE_CAPACITY: usize = 16_384;
/// How many files are remembered of which a part was read.
const PARTIAL_CAPACITY: usize = 256;
/// How many files are remembered that are too large.
const LARGE_CAPACITY: usize = 1024;
/// Of how many shells it is known how they begin.
const HEADS_CAPACITY: usize = 1024;
/// How long a thread may take for a file before it is abandoned.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// How many threads are abandoned at most. No more files are inspected until one of them comes back.
const MAX_STUCK: usize = 8;
/// How long a shutdown waits for running inspections.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Identifies a file on a lower layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// Its device, inode, change time and size in the layer. The kernel may give the same device and inode to another
    /// file later, after an unmount, but not with a change time in the past.
    InLayer(u32, u64, u64, u64),
    /// The container, and the file's device, inode and size on the overlay. The kernel reuses device numbers, so the
    /// container's cgroup id, which it never reuses, is part of the key.
    InContainer(u64, u32, u64, u64),
}

/// The file systems on which only this machine sets the change times of files: ext2 to ext4, XFS, btrfs, F2FS,
/// bcachefs, ZFS, tmpfs and ramfs (include/uapi/linux/magic.h, and the file systems). On the others, whoever makes an
/// image of the file system can choose them, so that two files can look the same.
const TIMED: [u32; 8] =
    [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0xca45_1a4e, 0x2fc1_2fc1, 0x0102_1994, 0x8584_58f6];

/// How a program begins: its first bytes, and its size.
type Head = ([u8; HEAD_CAPACITY], u64);

/// The pipeline's side of the inspection: sends files to the thread, and caches the results for files that cannot
/// change.
pub(super) struct Inspector {
    shared: Arc<Shared>,
    known: Recent<Key, Look>,
    /// How shells begin.
    heads: Recent<Head, Content>,
    /// The files that are too large: the container, and the file's device, inode and size. They are counted once.
    large: Recent<(u64, u32, u64, u64), ()>,
    /// The number of files that were not inspected, by reason.
    unread: BTreeMap<Loss, u64>,
}

/// What must be found out about the file of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// What it is.
    pub(super) look: bool,
    /// Its SHA-256.
    pub(super) hash: bool,
}

impl Wanted {
    /// What is known of a file that is not read for this reason.
    fn refused(self, reason: Unread) -> Seen {
        Seen { look: self.look.then_some(Err(reason)), hash: self.hash.then_some(Err(reason)) }
    }
}

/// An execution to inspect, and the directory of the container's cgroup.
struct Request {
    event: Event,
    wanted: Wanted,
    cgroup: Option<PathBuf>,
}

impl Request {
    fn container(&self) -> u64 {
        self.event.at().map_or(0, |at| at.container)
    }

    fn refused(self: Arc<Self>, reason: Unread) -> (Arc<Self>, Seen) {
        let seen = self.wanted.refused(reason);
        (self, seen)
    }
}

/// What was found out about a file, as far as it was wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    look: Option<Look>,
    hash: Option<Hash>,
}

type Hash = Result<Sha256, Unread>;

/// An execution, and what is known of the content of the executed file, as far as it was wanted.
pub(super) struct Inspected {
    pub(super) event: Event,
    pub(super) look: Option<Look>,
    pub(super) hashed: Option<Hashed>,
}

/// Looks at a file, and remembers results.
type Inspect = fn(&Request, &mut Known) -> Seen;

/// What the pipeline and the threads share.
struct Shared {
    state: Mutex<State>,
    /// Notified when the state changes.
    changed: Condvar,
    /// Raised when a file has been inspected.
    ready: Flag,
    inspect: Inspect,
}

struct State {
    queue: Queue,
    /// What the serving thread inspects, since when.
    running: Option<(Arc<Request>, Instant)>,
    inspected: VecDeque<(Arc<Request>, Seen)>,
    /// The number of the thread that serves the queue. `None` if all threads are stuck.
    serving: Option<u64>,
    /// The number of the last thread that was started.
    started: u64,
    /// The containers whose inspection is stuck.
    stuck: Vec<u64>,
    /// Whether no more files will come.
    is_closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No thread leaves the state inconsistent, even if it panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a thread that serves the queue.
    fn start_thread(self: &Arc<Self>, state: &mut State) -> Result<(), Error> {
        state.started += 1;
        let (number, shared) = (state.started, Arc::clone(self));
        spawn("inspector", move || shared.serve(number))?;
        state.serving = Some(number);
        Ok(())
    }

    /// Runs the thread with this number.
    fn serve(&self, number: u64) {
        let mut known = Known::default();
        let mut state = self.lock();
        loop {
            let Some(request) = state.queue.pop() else {
                if state.is_closed {
                    return;
                }
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.running = Some((Arc::clone(&request), Instant::now()));
            drop(state);
            let seen = (self.inspect)(&request, &mut known);
            state = self.lock();
            if state.serving == Some(number) {
                state.running = None;
                state.inspected.push_back((request, seen));
                self.ready.raise();
                self.changed.notify_all();
                continue;
            }
            // It was abandoned, and its result was given up.
            let container = request.container();
            if let Some(at) = state.stuck.iter().position(|stuck| *stuck == container) {
                state.stuck.remove(at);
            }
            self.ready.raise();
            match state.serving {
                Some(_) => return,
                None => state.serving = Some(number),
            }
        }
    }
}

/// The executed or mapped file of an event, with its path and its process.
fn executed(event: &Event) -> Option<(&event::File, &event::Path, &event::Process)> {
    match event {
        Event::Exec(exec) => Some((&exec.file, &exec.exe, &exec.process)),
        Event::MapExec(mapped) => mapped.detail.as_ref().map(|detail| (&mapped.file, &detail.path, &detail.process)),
        Event::Interpret(read) => Some((&read.program, &read.detail.exe, &read.detail.process)),
        _ => None,
    }
}

/// The cache key of the event's file, or `None` if the file is not on a lower layer.
fn key(event: &Event) -> Option<Key> {
    let ((file, ..), at) = (executed(event)?, event.at()?);
    if file.layer != Some(Layer::Lower) {
        return None;
    }
    Some(match file.lower.filter(|lower| TIMED.contains(&lower.magic)) {
        Some(lower) => Key::InLayer(lower.dev, lower.inode, lower.change_time, file.size),
        None => Key::InContainer(at.container, file.dev, file.inode, file.size),
    })
}

/// How the executed program of the event begins.
fn head(event: &Event) -> Option<Head> {
    let Event::Exec(exec) = event else { return None };
    Some((exec.head?, exec.file.size))
}

/// How an inspection that failed for a reason is counted.
fn loss(reason: Unread) -> Loss {
    match reason {
        Unread::Remote => Loss::ContentRemote,
        Unread::TooLarge => Loss::ContentTooLarge,
        Unread::QueueFull => Loss::ContentQueueFull,
        Unread::TimedOut => Loss::ContentTimedOut,
        Unread::Gone | Unread::OnHost => Loss::Content,
    }
}

impl Inspector {
    /// Starts the thread, which ends when the inspector is dropped.
    pub(super) fn start() -> Result<Self, Error> {
        Self::start_with(inspect)
    }

    fn start_with(inspect: Inspect) -> Result<Self, Error> {
        let state = State {
            queue: Queue::default(),
            running: None,
            inspected: VecDeque::new(),
            serving: None,
            started: 0,
            stuck: Vec::new(),
            is_closed: false,
        };
        let shared = Shared { state: Mutex::new(state), changed: Condvar::new(), ready: Flag::new()?, inspect };
        let shared = Arc::new(shared);
        shared.start_thread(&mut shared.lock())?;
        Ok(Self {
            shared,
            known: Recent::new(CACHE_CAPACITY),
            heads: Recent::new(HEADS_CAPACITY),
            large: Recent::new(LARGE_CAPACITY),
            unread: BTreeMap::new(),
        })
    }

    /// Returns what is known of the event's file. If nothing is, sends the event to the thread, and returns the event
    /// of a file that had to give way, if there is one. `cgroup` returns the directory of the container's cgroup.
    pub(super) fn inspect(
        &mut self,
        event: Event,
        wanted: Wanted,
        cgroup: impl FnOnce() -> Option<PathBuf>,
    ) -> Option<Inspected> {
        if !wanted.hash
            && let Some(&look) = key(&event).and_then(|key| self.known.get(&key))
        {
            return Some(self.take(event, Seen { look: Some(look), hash: None }));
        }
        if executed(&event).is_some_and(|(file, ..)| file.is_remote()) {
            return Some(self.take(event, wanted.refused(Unread::Remote)));
        }
        let request = Arc::new(Request { event, wanted, cgroup: cgroup() });
        let mut state = self.shared.lock();
        let (request, seen) = if state.serving.is_none() || state.stuck.contains(&request.container()) {
            request.refused(Unread::TimedOut)
        } else {
            let given_way = state.queue.push(request);
            self.shared.changed.notify_all();
            given_way?.refused(Unread::QueueFull)
        };
        drop(state);
        Some(self.take(event_of(request), seen))
    }

    /// Returns the next inspected file, if the thread has finished one or was abandoned.
    pub(super) fn next_inspected(&mut self) -> Option<Inspected> {
        let (request, seen) = self.shared.lock().inspected.pop_front()?;
        Some(self.take(event_of(request), seen))
    }

    /// Remembers how a shell begins.
    pub(super) fn learn(&mut self, event: &Event, content: Content) {
        if let Some(head) = head(event) {
            self.heads.insert(head, content);
        }
    }

    fn take(&mut self, event: Event, seen: Seen) -> Inspected {
        let look = seen.look.map(|look| self.take_look(&event, look));
        let hashed = seen.hash.map(|result| Hashed { time: clock::since_boot(), result });
        Inspected { event, look, hashed }
    }

    /// Remembers what was found, or counts what was not, unless it is known by how it begins.
    fn take_look(&mut self, event: &Event, mut look: Look) -> Look {
        if is_final(look)
            && let Some(key) = key(event)
        {
            self.known.insert(key, look);
        }
        match look {
            Ok(Content::Other) => {}
            Ok(content) => self.learn(event, content),
            Err(reason) => look = head(event).and_then(|head| self.heads.get(&head)).copied().ok_or(reason),
        }
        if let Err(reason) = look
            && !(reason == Unread::TooLarge && self.is_known_as_large(event))
        {
            let path = executed(event).map(|(_, path, _)| String::from_utf8_lossy(&path.bytes).into_owned());
            tracing::debug!(?path, ?reason, "an executed file was not inspected");
            *self.unread.entry(loss(reason)).or_default() += 1;
        }
        look
    }

    /// Whether the file of the event is remembered as too large. From now on it is.
    fn is_known_as_large(&mut self, event: &Event) -> bool {
        let Some(((file, ..), at)) = executed(event).zip(event.at()) else { return false };
        let key = (at.container, file.dev, file.inode, file.size);
        let is_known = self.large.get(&key).is_some();
        self.large.insert(key, ());
        is_known
    }

    /// Abandons the thread if it has waited too long for a file. Its container is not inspected any more.
    pub(super) fn abandon_stuck(&mut self) {
        let mut state = self.shared.lock();
        let Some((request, _)) = state.running.take_if(|(_, since)| since.elapsed() >= MAX_WAIT) else { return };
        let container = request.container();
        tracing::warn!(container, "reading an executed file does not end; no more files of its container are read");
        state.serving = None;
        state.stuck.push(container);
        if state.stuck.len() < MAX_STUCK
            && let Err(error) = self.shared.start_thread(&mut state)
        {
            tracing::error!(%error, "cannot replace the thread that reads executed files");
        }
        let waiting = match state.serving {
            Some(_) => state.queue.remove(container),
            None => std::iter::from_fn(|| state.queue.pop()).collect(),
        };
        let given_up = [request].into_iter().chain(waiting);
        state.inspected.extend(given_up.map(|request| request.refused(Unread::TimedOut)));
    }

    /// When [`abandon_stuck`](Self::abandon_stuck) must be called, at the latest.
    pub(super) fn due(&self) -> Option<Instant> {
        let state = self.shared.lock();
        match &state.running {
            Some((_, since)) => Some(*since + MAX_WAIT),
            None => (!state.queue.is_empty()).then(|| Instant::now() + MAX_WAIT),
        }
    }

    /// Why executed files are not inspected at the moment, in a sentence.
    pub(super) fn failure(&self) -> Option<String> {
        let state = self.shared.lock();
        let containers: HashSet<_> = state.stuck.iter().collect();
        match (containers.len(), state.serving) {
            (0, _) => None,
            (_, None) => Some(
                "the content of executed files is not inspected, because the kernel does not return from reading some; \
                shells are known by the names of their files only"
                    .to_owned(),
            ),
            (count, Some(_)) => Some(format!(
                "the content of executed files is not inspected in some containers ({count} at the moment), because \
                the kernel does not return from reading a file of theirs; shells are known there by the names of their \
                files only"
            )),
        }
    }

    /// Makes the descriptor of [`ready`](Self::ready) unreadable. The caller must then take all inspected files.
    pub(super) fn reset(&self) {
        self.shared.ready.lower();
    }

    /// Stops sending files to the thread, and returns the next of those it was still inspecting.
    pub(super) fn last_inspected(&mut self, since: Instant) -> Option<Inspected> {
        let mut state = self.shared.lock();
        state.is_closed = true;
        self.shared.changed.notify_all();
        loop {
            if let Some((request, seen)) = state.inspected.pop_front() {
                drop(state);
                return Some(self.take(event_of(request), seen));
            }
            let left = SHUTDOWN_TIMEOUT.saturating_sub(since.elapsed());
            if left.is_zero() {
                // The thread is abandoned, so that its result is not reported too.
                state.serving = None;
                let running = state.running.take().map(|(request, _)| request);
                let waiting = running.or_else(|| state.queue.pop())?;
                drop(state);
                let (request, seen) = waiting.refused(Unread::TimedOut);
                return Some(self.take(event_of(request), seen));
            }
            if state.running.is_none() && state.queue.is_empty() {
                return None;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The number of files that were not inspected, by reason.
    pub(super) fn unread(&self) -> &BTreeMap<Loss, u64> {
        &self.unread
    }

    /// A descriptor that becomes readable when files have been inspected.
    pub(super) fn ready(&self) -> BorrowedFd<'_> {
        self.shared.ready.as_fd()
    }
}

impl Drop for Inspector {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.changed.notify_all();
    }
}

/// The event of a request, which a thread that was abandoned may still use.
fn event_of(request: Arc<Request>) -> Event {
    Arc::try_unwrap(request).map_or_else(|shared| shared.event.clone(), |request| request.event)
}

/// Whether another look at the same file would show the same.
fn is_final(look: Look) -> bool {
    matches!(look, Ok(_) | Err(Unread::TooLarge))
}

/// Identifies a version of a file: the container, and the fields of `stat` that change whenever the file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Version {
    container: u64,
    dev: u64,
    inode: u64,
    /// In nanoseconds since 1970.
    change_time: u64,
    size: u64,
}

/// What a thread remembers of the files that it has read.
struct Known {
    looks: Recent<Version, Look>,
    /// How far those were read for which the time did not suffice.
    partial: Recent<Version, Progress>,
    /// The hashes, and since when they were read, in nanoseconds since boot.
    hashes: Recent<Version, (Sha256, u64)>,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            looks: Recent::new(CACHE_CAPACITY),
            partial: Recent::new(PARTIAL_CAPACITY),
            hashes: Recent::new(CACHE_CAPACITY),
        }
    }
}

/// Looks at the file of an event. Results are remembered.
fn inspect(request: &Request, known: &mut Known) -> Seen {
    let Request { event, wanted, cgroup } = request;
    let opened = locate::open(event, cgroup.as_deref());
    let (file, version) = match opened.and_then(|file| version_of(event, &file).map(|version| (file, version))) {
        Ok(found) => found,
        Err(reason) => return wanted.refused(reason),
    };
    let started = Instant::now();
    Seen {
        look: wanted.look.then(|| look_at(&file, version, started, known)),
        hash: wanted.hash.then(|| hash(event, &file, version, started, &mut known.hashes)),
    }
}

fn version_of(event: &Event, file: &File) -> Result<Version, Unread> {
    let stat = rustix::fs::fstat(file).map_err(|_| Unread::Gone)?;
    Ok(Version {
        container: event.at().map_or(0, |at| at.container),
        dev: stat.st_dev,
        inode: stat.st_ino,
        change_time: stat.st_ctime.cast_unsigned().wrapping_mul(1_000_000_000).wrapping_add(stat.st_ctime_nsec),
        size: stat.st_size.unsigned_abs(),
    })
}

fn look_at(file: &File, version: Version, started: Instant, known: &mut Known) -> Look {
    if let Some(&look) = known.looks.get(&version) {
        return look;
    }
    let mut progress = known.partial.remove(&version).unwrap_or_default();
    let look = read::recognise(file, version.size, started, &mut progress);
    match look {
        Err(Unread::TimedOut) => known.partial.insert(version, progress),
        _ if is_final(look) => known.looks.insert(version, look),
        _ => {}
    }
    look
}

/// The SHA-256 of an executed file, if it is certain that these bytes were executed.
fn hash(
    event: &Event,
    file: &File,
    version: Version,
    started: Instant,
    known: &mut Recent<Version, (Sha256, u64)>,
) -> Hash {
    let executed = i128::from(event.time()) + i128::from(WallClock::read().ahead());
    let is_certain = |version: Version| !event::may_have_changed(version.change_time, executed) || locate::runs(event);
    if !is_certain(version) {
        return Err(Unread::Gone);
    }
    // What was read after this execution, too, need not be read once more.
    if let Some(&(hash, since)) = known.get(&version)
        && since >= event.time()
    {
        return Ok(hash);
    }
    let since = clock::since_boot();
    let hash = read::hash(file, version.size, started)?;
    if !is_certain(version_of(event, file)?) {
        return Err(Unread::Gone);
    }
    known.insert(version, (hash, since));
    Ok(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};
    use std::os::unix::process::CommandExt as _;
    use std::path::Path;
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use rustix::fs::{FileType, Mode};

    use crate::detect::content::MOST_READ;
    use crate::detect::samples;
    use crate::event::{At, Detail, Exec, LowerFile, MapExec, Origin};

    const BUSYBOX: &str = "/bin/busybox";

    const LOOK: Wanted = Wanted { look: true, hash: false };
    const HASH: Wanted = Wanted { look: false, hash: true };

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

    /// When a process started, in nanoseconds since boot.
    fn start_time(pid: u32) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
        let ticks: u64 = stat.split(' ').nth(21).and_then(|field| field.parse().ok()).expect("proc(5) says so");
        ticks * 10_000_000
    }

    fn look(event: Event, cgroup: Option<&Path>) -> Look {
        let request = Request { event, wanted: LOOK, cgroup: cgroup.map(Path::to_owned) };
        inspect(&request, &mut Known::default()).look.expect("it is wanted")
    }

    fn content(exec: &Exec) -> Option<Content> {
        look(Event::Exec(Box::new(exec.clone())), None).ok()
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
        assert_eq!(look(event, Some(folder.path())).ok(), Some(Content::Box));
    }

    #[test]
    fn a_file_is_found_by_its_process() {
        let mut sleeper = Command::new(BUSYBOX).args(["sleep", "100"]).spawn().expect("busybox is here");
        let mut exec = executed(Path::new(BUSYBOX));
        // The path of a deleted file looks like this.
        exec.exe = event::Path { bytes: b"/gone".into(), ..event::Path::default() };
        exec.process.pid = sleeper.id();
        exec.process.start_time = start_time(sleeper.id());
        let found = content(&exec);
        let Exec { at, process, file, exe: path, .. } = exec.clone();
        let exe = samples::path("/lib64/ld-linux-x86-64.so.2");
        let detail = Some(Detail { process, exe, exe_dev: 45, exe_layer: None, path, new_path: None });
        let mapped = Event::MapExec(Box::new(MapExec { at, file, detail }));
        let mapped = look(mapped, None).ok();
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
        let request = Request { event: Event::Exec(Box::new(executed(&path))), wanted: LOOK, cgroup: None };
        let mut known = Known::default();
        let mut content = || inspect(&request, &mut known).look.and_then(Result::ok);
        assert_eq!((content(), content()), (Some(Content::Other), Some(Content::Other)));
        // Change times have the resolution of the timer tick.
        std::thread::sleep(Duration::from_millis(20));
        fs::write(&path, shell).expect("it can be written");
        assert_eq!(content(), Some(Content::Box));
    }

    /// Lets the thread inspect a file, and returns what is then known of the file when this is executed.
    fn known_after(first: &Exec, next: &Exec) -> Option<Look> {
        let mut inspector = Inspector::start().expect("a thread can be started");
        assert!(
            inspector.inspect(Event::Exec(Box::new(first.clone())), LOOK, || None).is_none(),
            "nothing is known yet"
        );
        assert_eq!(wait(&mut inspector).look, Some(Ok(Content::Box)));
        let known = inspector.inspect(Event::Exec(Box::new(next.clone())), LOOK, || None).and_then(|known| known.look);
        let since = Instant::now();
        let inspected = inspector.last_inspected(since).and_then(|inspected| inspected.look);
        assert_eq!(inspected, known.is_none().then_some(Ok(Content::Box)));
        assert!(inspector.last_inspected(since).is_none());
        assert!(inspector.unread().is_empty());
        known
    }

    #[test]
    fn a_file_of_the_image_is_inspected_once() {
        let mut exec = executed(Path::new(BUSYBOX));
        assert_eq!(known_after(&exec, &exec), None, "this file can change");
        exec.file.layer = Some(Layer::Lower);
        assert_eq!(known_after(&exec, &exec), Some(Ok(Content::Box)));
        let elsewhere = |exec: &Exec| Exec { at: At { container: exec.at.container + 1, ..exec.at }, ..exec.clone() };
        assert_eq!(known_after(&exec, &elsewhere(&exec)), None, "it may be another image");

        let mut lower = lower(&exec);
        exec.file.lower = Some(lower);
        assert_eq!(known_after(&exec, &elsewhere(&exec)), Some(Ok(Content::Box)));
        // A container can choose the times on a file system that it makes itself, such as EROFS.
        lower.magic = 0xe0f5_e1e2;
        exec.file.lower = Some(lower);
        assert_eq!(known_after(&exec, &exec), Some(Ok(Content::Box)));
        assert_eq!(known_after(&exec, &elsewhere(&exec)), None);
    }

    /// The executed file, as if it were in a lower layer on ext4.
    fn lower(exec: &Exec) -> LowerFile {
        let stat = fs::metadata(String::from_utf8_lossy(&exec.exe.bytes).as_ref()).expect("it exists");
        let change_time = u64::try_from(stat.ctime() * 1_000_000_000 + stat.ctime_nsec()).expect("it is after 1970");
        LowerFile { inode: stat.ino(), change_time, dev: exec.file.dev, magic: 0xef53 }
    }

    #[test]
    fn a_file_in_the_place_of_one_of_a_layer_is_not_read() {
        let mut exec = executed(Path::new(BUSYBOX));
        let lower = lower(&exec);
        let mut content = |lower| {
            exec.file.lower = Some(lower);
            content(&exec)
        };
        assert_eq!(content(lower), Some(Content::Box));
        assert_eq!(content(LowerFile { inode: lower.inode | 5 << 48, ..lower }), Some(Content::Box), "of layer 5");
        assert_eq!(content(LowerFile { inode: lower.inode + 1, ..lower }), None);
        assert_eq!(content(LowerFile { change_time: lower.change_time + 1, ..lower }), None);
    }

    /// Waits for the next result as the reader thread does.
    fn wait(inspector: &mut Inspector) -> Inspected {
        loop {
            let mut fds = [rustix::event::PollFd::from_borrowed_fd(inspector.ready(), rustix::event::PollFlags::IN)];
            let due = inspector.due().map_or(MAX_WAIT, |due| due.saturating_duration_since(Instant::now()));
            let due = rustix::event::Timespec { tv_sec: due.as_secs() as i64, tv_nsec: due.subsec_nanos().into() };
            rustix::event::poll(&mut fds, Some(&due)).expect("it can be waited for");
            inspector.reset();
            inspector.abandon_stuck();
            if let Some(inspected) = inspector.next_inspected() {
                return inspected;
            }
        }
    }

    #[test]
    fn a_remote_file_is_not_touched() {
        let mut inspector = Inspector::start_with(|_, _| panic!("it is touched")).expect("a thread can be started");
        for (magic, is_served) in [(0x6573_5546, false), (0x6969, false), (0x794c_7630, true)] {
            let mut exec = executed(Path::new(BUSYBOX));
            (exec.file.magic, exec.file.is_served) = (magic, is_served);
            let inspected = inspector.inspect(Event::Exec(Box::new(exec)), LOOK, || None);
            assert_eq!(inspected.and_then(|inspected| inspected.look), Some(Err(Unread::Remote)));
        }
        assert_eq!(inspector.unread(), &[(Loss::ContentRemote, 3)].into());
    }

    #[test]
    fn a_shell_that_is_gone_is_known_by_how_it_begins() {
        let mut inspector = Inspector::start().expect("a thread can be started");
        let mut exec = executed(Path::new(BUSYBOX));
        let bytes = fs::read(BUSYBOX).expect("busybox is here");
        exec.head = bytes[..HEAD_CAPACITY].try_into().ok();
        let mut gone = exec.clone();
        gone.process.ancestors.clear();
        let mut look = |exec: &Exec| {
            assert!(inspector.inspect(Event::Exec(Box::new(exec.clone())), LOOK, || None).is_none());
            wait(&mut inspector).look.expect("it is wanted")
        };
        assert_eq!(look(&gone), Err(Unread::Gone), "no shell was seen yet");
        assert_eq!(look(&exec), Ok(Content::Box));
        assert_eq!(look(&gone), Ok(Content::Box));
        gone.file.size += 1;
        assert_eq!(look(&gone), Err(Unread::Gone), "this is another program");
        let named = samples::exec(Origin::Application, "/usr/bin/zsh-5.9", &[]);
        let content = crate::detect::content_by_name(&Event::Exec(Box::new(named))).expect("its name shows it");
        inspector.learn(&Event::Exec(Box::new(gone.clone())), content);
        gone.file.magic = 0x6573_5546;
        let remote = inspector.inspect(Event::Exec(Box::new(gone)), LOOK, || None);
        assert_eq!(remote.and_then(|remote| remote.look), Some(Ok(Content::Shell("zsh"))));
        assert_eq!(inspector.unread(), &[(Loss::Content, 2)].into());
    }

    /// What a container does that makes the kernel wait.
    static HANGS: AtomicBool = AtomicBool::new(true);

    fn hang_in_container_1(request: &Request, _: &mut Known) -> Seen {
        while request.container() == 1 && HANGS.load(Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
        }
        Seen { look: Some(Ok(Content::Other)), hash: None }
    }

    #[test]
    fn a_thread_that_does_not_come_back_is_replaced() {
        let of = |container| {
            let mut exec = executed(Path::new(BUSYBOX));
            exec.at.container = container;
            Event::Exec(Box::new(exec))
        };
        let result =
            |inspected: Inspected| (inspected.event.at().map(|at| at.container), inspected.look.expect("it is wanted"));
        let mut inspector = Inspector::start_with(hang_in_container_1).expect("a thread can be started");
        for container in [1, 1, 2] {
            assert!(inspector.inspect(of(container), LOOK, || None).is_none());
        }
        let results = [(); 3].map(|()| result(wait(&mut inspector)));
        let timed_out = (Some(1), Err(Unread::TimedOut));
        assert_eq!(results, [timed_out, timed_out, (Some(2), Ok(Content::Other))]);
        assert_eq!(inspector.inspect(of(1), LOOK, || None).map(result), Some(timed_out), "it would hang again");
        assert!(inspector.failure().is_some_and(|failure| failure.contains("(1 at the moment)")));
        assert_eq!(inspector.unread(), &[(Loss::ContentTimedOut, 3)].into());

        HANGS.store(false, Relaxed);
        while inspector.failure().is_some() {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(inspector.inspect(of(1), LOOK, || None).is_none());
        assert_eq!(result(wait(&mut inspector)), (Some(1), Ok(Content::Other)));
    }

    fn hang_forever(_: &Request, _: &mut Known) -> Seen {
        loop {
            std::thread::park();
        }
    }

    #[test]
    fn a_thread_that_does_not_come_back_does_not_delay_the_end() {
        let mut inspector = Inspector::start_with(hang_forever).expect("a thread can be started");
        let event = Event::Exec(Box::new(executed(Path::new(BUSYBOX))));
        for _ in 0..3 {
            assert!(inspector.inspect(event.clone(), LOOK, || None).is_none());
        }
        let since = Instant::now();
        let mut last = || inspector.last_inspected(since).and_then(|inspected| inspected.look);
        assert_eq!(
            [last(), last(), last(), last()],
            [Some(Err(Unread::TimedOut)), Some(Err(Unread::TimedOut)), Some(Err(Unread::TimedOut)), None]
        );
        assert!(since.elapsed() < 2 * SHUTDOWN_TIMEOUT);
    }

    #[test]
    fn a_large_file_is_read_in_part() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let path = folder.path().join("x");
        let inspected = |bytes: &[u8], words_at: u64| {
            fs::write(&path, bytes).expect("it can be written");
            let file = File::options().write(true).open(&path).expect("it was just made");
            let words = "PS1 PS4 IFS OPTIND PPID CDPATH LINENO getopts readonly elif esac".replace(' ', "\0") + "\0";
            file.write_all_at(words.as_bytes(), words_at).expect("it can be written");
            file.set_len(5 << 30).expect("it can be sparse");
            content(&executed(&path))
        };
        let started = Instant::now();
        assert_eq!(inspected(b"\x7fELF", 5000), Some(Content::Shell("sh")));
        assert_eq!(inspected(b"\x7fELF", MOST_READ + 100), None, "that is too far");
        assert_eq!(inspected(b"#!/bin/sh", 5000), Some(Content::Other), "that is no program");
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
        // These words are in two of the parts that are read.
        for words_at in [(256 << 10) - 40, (256 << 10) - 100] {
            assert_eq!(inspected(b"\x7fELF", words_at), Some(Content::Shell("sh")));
        }
    }

    /// The SHA-256 of a file, as coreutils know it.
    fn sha256sum(path: &Path) -> String {
        let output = Command::new("sha256sum").arg(path).output().expect("coreutils are here");
        String::from_utf8(output.stdout).expect("it is text").split(' ').next().expect("it is there").to_owned()
    }

    /// Nanoseconds since boot, some time after all changes that were made until now: longer than the tick of the clock.
    fn later() -> u64 {
        std::thread::sleep(Duration::from_millis(50));
        clock::since_boot()
    }

    /// The hash of a file that was executed.
    fn hash(exec: &Exec, known: &mut Known) -> Result<String, Unread> {
        let request = Request { event: Event::Exec(Box::new(exec.clone())), wanted: HASH, cgroup: None };
        let Seen { look, hash } = inspect(&request, known);
        assert_eq!(look, None, "it is not wanted");
        hash.expect("it is wanted").map(|hash| hash.to_string())
    }

    #[test]
    fn the_hash_is_that_of_the_executed_version() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let path = folder.path().join("x");
        let mut bytes = fs::read(BUSYBOX).expect("busybox is here");
        bytes.resize(3 << 18 | 5, 7);
        fs::write(&path, &bytes).expect("it can be written");
        let mut exec = executed(&path);
        exec.at.time = later();
        let first = hash(&exec, &mut Known::default());
        assert_eq!(first, Ok(sha256sum(&path)));
        let before = version(&exec);

        // A program of the same length is executed.
        bytes[100_000] ^= 1;
        fs::write(&path, &bytes).expect("it can be written");
        let mut known = Known::default();
        assert_eq!(hash(&exec, &mut known), Err(Unread::Gone), "these bytes were not executed");
        let (event, file) = (Event::Exec(Box::new(exec.clone())), File::open(&path).expect("it is there"));
        let changed = super::hash(&event, &file, before, Instant::now(), &mut known.hashes);
        assert_eq!(changed, Err(Unread::Gone), "it has changed while it was read");
        exec.at.time = later();
        let second = hash(&exec, &mut known);
        assert_eq!(second, Ok(sha256sum(&path)));
        assert_ne!(second, first);
    }

    #[test]
    fn a_program_that_was_just_written_is_hashed_only_while_it_runs() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let path = folder.path().join("x");
        fs::copy(BUSYBOX, &path).expect("busybox is here");
        // Another thread may have forked while the file was open.
        let mut child = loop {
            match Command::new(&path).arg0("busybox").args(["sleep", "100"]).spawn() {
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {}
                child => break child.expect("it is a program"),
            }
        };
        let mut exec = executed(&path);
        (exec.process.pid, exec.process.start_time) = (child.id(), start_time(child.id()));
        let tick_later = i128::from(version(&exec).change_time) + 4_000_000 - i128::from(WallClock::read().ahead());
        exec.at.time = tick_later.try_into().expect("it is after the boot");
        let mut known = Known::default();
        let while_it_runs = hash(&exec, &mut known);
        child.kill().and_then(|()| child.wait()).expect("it is ours");
        assert_eq!(while_it_runs, Ok(sha256sum(&path)));
        for known in [&mut known, &mut Known::default()] {
            assert_eq!(hash(&exec, known), Err(Unread::Gone), "it may have been written once more in the same tick");
        }
    }

    #[test]
    fn a_hash_counts_for_what_was_executed_before_it_was_read() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let path = folder.path().join("x");
        fs::copy(BUSYBOX, &path).expect("busybox is here");
        let mut exec = executed(&path);
        exec.at.time = later();
        let (mut known, whole) = (Known::default(), Ok(sha256sum(&path)));
        assert_eq!(hash(&exec, &mut known), whole);
        // As if these bytes had been stored through a mapping, which may change no time.
        known.hashes.remove(&version(&exec)).expect("it is remembered");
        known.hashes.insert(version(&exec), (Sha256([7; 32]), exec.at.time));
        assert_eq!(hash(&exec, &mut known), Ok(Sha256([7; 32]).to_string()), "it is not read twice");
        exec.at.time += 1;
        assert_eq!(hash(&exec, &mut known), whole);
    }

    #[test]
    fn a_program_for_which_there_is_not_enough_time_is_read_further_later() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let path = folder.path().join("x");
        // It has no headers, and its words are at its end.
        let busybox = fs::read(BUSYBOX).expect("busybox is here");
        fs::write(&path, [b"\x7fELF", &[0; 1 << 20][..], &busybox].concat()).expect("it can be written");
        let file = File::open(&path).expect("it is there");
        let size = file.metadata().expect("it is open").len();
        let long_ago = Instant::now().checked_sub(Duration::from_secs(3)).expect("the machine runs longer");
        let mut progress = Progress::default();
        let looks = std::iter::from_fn(|| Some(read::recognise(&file, size, long_ago, &mut progress)));
        let parts = looks.take_while(|look| *look == Err(Unread::TimedOut)).count();
        assert!(parts > 4, "it is read at once");
        assert_eq!(read::recognise(&file, size, long_ago, &mut progress), Ok(Content::Box));
        // Each event shows how far it was.
        let event = Event::Exec(Box::new(executed(&path)));
        let mut known = Known::default();
        let version = version_of(&event, &file).expect("it is open");
        let looks = std::iter::from_fn(|| Some(look_at(&file, version, long_ago, &mut known))).take(parts + 1);
        assert_eq!(looks.take_while(|look| *look == Err(Unread::TimedOut)).count(), parts);
        assert_eq!(look_at(&file, version, long_ago, &mut known), Ok(Content::Box), "it is remembered");
    }

    #[test]
    fn a_file_that_is_too_large_is_counted_once() {
        let mut inspector =
            Inspector::start_with(|request, _| request.wanted.refused(Unread::TooLarge)).expect("it starts");
        let mut exec = samples::exec(Origin::Application, "/usr/lib/chromium", &["chromium"]);
        for (inode, count) in [(1, 1), (1, 1), (2, 2), (1, 2)] {
            exec.file.inode = inode;
            inspector.take_look(&Event::Exec(Box::new(exec.clone())), Err(Unread::TooLarge)).expect_err("it is large");
            assert_eq!(inspector.unread(), &[(Loss::ContentTooLarge, count)].into());
        }
    }

    fn version(exec: &Exec) -> Version {
        let file = File::open(Path::new(&String::from_utf8_lossy(&exec.exe.bytes).into_owned())).expect("it is there");
        version_of(&Event::Exec(Box::new(exec.clone())), &file).expect("it is open")
    }

    #[test]
    fn the_hash_of_a_large_or_missing_file_is_not_known() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let path = folder.path().join("x");
        let file = File::create(&path).expect("it can be made");
        file.set_len(MOST_READ + 1).expect("it can be sparse");
        let mut exec = executed(&path);
        exec.at.time = later();
        assert_eq!(hash(&exec, &mut Known::default()), Err(Unread::TooLarge));
        assert_eq!(read::hash(&file, 4096, Instant::now()), Err(Unread::Gone), "it cannot be read");
        let file = File::open(&path).expect("it is there");
        assert!(read::hash(&file, 4096, Instant::now()).is_ok());
        let long_ago = Instant::now().checked_sub(Duration::from_secs(3)).expect("the machine runs longer");
        assert_eq!(read::hash(&file, 4096, long_ago), Err(Unread::TimedOut));
        file.set_len(0).expect_err("it is open for reading only");
        fs::write(&path, b"x").expect("it can be written");
        assert_eq!(read::hash(&file, 4096, Instant::now()), Err(Unread::Gone), "it has become shorter");
        fs::remove_file(&path).expect("it is there");
        assert_eq!(hash(&exec, &mut Known::default()), Err(Unread::Gone));
    }

    #[test]
    fn what_is_not_read_has_no_hash_and_is_no_loss() {
        let mut inspector = Inspector::start_with(hang_forever).expect("a thread can be started");
        let mut exec = executed(Path::new(BUSYBOX));
        let event = Event::Exec(Box::new(exec.clone()));
        assert!(inspector.inspect(event, HASH, || None).is_none());
        let result = |inspected: Inspected| (inspected.look, inspected.hashed.map(|hashed| hashed.result));
        let timed_out = (None, Some(Err(Unread::TimedOut)));
        assert_eq!(inspector.last_inspected(Instant::now()).map(result), Some(timed_out));
        exec.file.magic = 0x6969;
        let remote = inspector.inspect(Event::Exec(Box::new(exec)), HASH, || None);
        assert_eq!(remote.map(result), Some((None, Some(Err(Unread::Remote)))));
        assert!(inspector.unread().is_empty());
    }

    #[test]
    fn a_hash_is_read_although_it_is_known_what_the_file_is() {
        let mut inspector = Inspector::start().expect("a thread can be started");
        let mut exec = executed(Path::new(BUSYBOX));
        exec.file.layer = Some(Layer::Lower);
        exec.at.time = clock::since_boot();
        let event = || Event::Exec(Box::new(exec.clone()));
        assert!(inspector.inspect(event(), LOOK, || None).is_none());
        wait(&mut inspector);
        assert!(inspector.inspect(event(), Wanted { look: true, hash: true }, || None).is_none());
        let Inspected { look, hashed, .. } = wait(&mut inspector);
        let hash = hashed.expect("it is wanted").result.map(|hash| hash.to_string());
        assert_eq!((look, hash), (Some(Ok(Content::Box)), Ok(sha256sum(Path::new(BUSYBOX)))));
    }
}
