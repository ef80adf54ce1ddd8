//! Writes recordings, on a thread of its own. Who records something never waits for the file: what does not fit into
//! memory is counted, and the recording says how many entries are missing where.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;

use super::{Entry, Header};

/// How many bytes of entries wait for the file at most. The thread has as many again, while it writes them.
const CAPACITY: usize = 16 << 20;
/// About how many bytes of entries a gzip member has. A crash of the daemon loses what is in none yet.
const MEMBER: usize = 256 << 10;
/// How long an entry waits at most for others with which it shares a member, and how often a failing file is tried
/// again.
const TICK: Duration = Duration::from_secs(1);
/// How long a daemon that stops waits for the file.
const PATIENCE: Duration = Duration::from_secs(5);
/// The maximum size of a recording, in bytes, so that it does not take the disk from the daemon's log.
const MAX_SIZE: u64 = 1 << 30;

/// Where the threads that decide take turns, and where they record what they go by.
#[derive(Clone, Default)]
pub(crate) struct Journal(Option<Arc<Shared>>);

impl Journal {
    /// Waits for the turn. Nobody else learns or publishes anything until it is dropped. If nothing is recorded, nobody
    /// has to wait.
    pub(crate) fn turn(&self) -> Turn<'_> {
        Turn(self.0.as_deref().map(|shared| (shared, shared.lock())))
    }
}

/// The turn of a thread.
pub(crate) struct Turn<'a>(Option<(&'a Shared, MutexGuard<'a, Waiting>)>);

impl Turn<'_> {
    /// Records an entry.
    pub(crate) fn record<P: Serialize, R: Serialize>(&mut self, entry: Entry<P, R>) {
        let Some((shared, waiting)) = &mut self.0 else { return };
        waiting.add(&entry);
        if waiting.lines.len() >= MEMBER {
            shared.changed.notify_one();
        }
    }
}

/// What the recorder shares with who records.
struct Shared {
    waiting: Mutex<Waiting>,
    /// Notified when the thread has something to do.
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // An entry that a panic has left incomplete is cut off before the next one is added.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What waits for the file.
#[derive(Default)]
struct Waiting {
    /// Whole entries.
    lines: Vec<u8>,
    /// How many entries did not fit after them.
    missing: u64,
    /// Whether nothing is recorded any more.
    is_closed: bool,
}

impl Waiting {
    fn add<P: Serialize, R: Serialize>(&mut self, entry: &Entry<P, R>) {
        if self.is_closed {
            return;
        }
        let before = self.lines.len();
        // A gap is only told together with what follows it.
        if (self.missing == 0 || self.push(&Entry::<(), ()>::Gap(self.missing))) && self.push(entry) {
            self.missing = 0;
        } else {
            self.lines.truncate(before);
            self.missing += 1;
        }
    }

    /// Adds an entry. Returns `false` if there is no room for it.
    fn push<P: Serialize, R: Serialize>(&mut self, entry: &Entry<P, R>) -> bool {
        let before = self.lines.len();
        let is_written = serde_json::to_writer(&mut self.lines, entry).is_ok();
        self.lines.push(b'\n');
        // An entry that is larger than everything that can wait fits alone.
        let fits = is_written && (before == 0 || self.lines.len() <= CAPACITY);
        if !fits {
            self.lines.truncate(before);
        }
        fits
    }

    /// Adds the last entries, for which there is always room.
    fn close(&mut self) {
        if self.is_closed {
            return;
        }
        let gap = (self.missing > 0).then_some(Entry::Gap(self.missing));
        for entry in gap.into_iter().chain([Entry::<(), ()>::End]) {
            serde_json::to_writer(&mut self.lines, &entry).expect("writing to memory does not fail");
            self.lines.push(b'\n');
        }
        self.is_closed = true;
    }
}

/// Records to a file until it is dropped.
pub(crate) struct Recorder {
    shared: Arc<Shared>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
}

impl Recorder {
    /// Starts to record. Calls `failed` with the reason when the file cannot be written, and with `None` when it can be
    /// again. The file is made anew: if there is one of this name, it gets the suffix `.old`.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub(crate) fn start(path: PathBuf, failed: impl Fn(Option<String>) + Send + 'static) -> io::Result<Self> {
        let name = path.display().to_string();
        Self::start_with(name, MAX_SIZE, move || create(&path), failed)
    }

    fn start_with(
        name: String,
        max_size: u64,
        create: impl FnMut() -> io::Result<File> + Send + 'static,
        failed: impl Fn(Option<String>) + Send + 'static,
    ) -> io::Result<Self> {
        let mut waiting = Waiting::default();
        waiting.add(&Entry::<(), ()>::Recording(Header::own()));
        let shared = Arc::new(Shared { waiting: Mutex::new(waiting), changed: Condvar::new() });
        let mut output = Output { shared: Arc::clone(&shared), name, max_size, create, failed, file: None, size: 0 };
        let (end, ended) = mpsc::channel();
        Builder::new().name("recorder".to_owned()).spawn(move || {
            let _end = end;
            output.run();
        })?;
        Ok(Self { shared, ended })
    }

    /// Where to record.
    pub(crate) fn journal(&self) -> Journal {
        Journal(Some(Arc::clone(&self.shared)))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.shared.lock().close();
        self.shared.changed.notify_all();
        // A file system that does not answer must not keep the daemon from stopping.
        if self.ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            tracing::error!("the end of the recording was not written for {PATIENCE:?}, and is given up");
        }
    }
}

/// Makes the file, readable by its owner only.
fn create(path: &Path) -> io::Result<File> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_file() => {
            let mut old = path.as_os_str().to_owned();
            old.push(".old");
            fs::rename(path, old)?;
        }
        // What it is, is found out below.
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// The thread's side.
struct Output<C, F> {
    shared: Arc<Shared>,
    name: String,
    /// The maximum size of the file.
    max_size: u64,
    create: C,
    failed: F,
    file: Option<File>,
    /// The size of the file.
    size: u64,
}

impl<C: FnMut() -> io::Result<File>, F: Fn(Option<String>)> Output<C, F> {
    fn run(&mut self) {
        let mut is_closed = false;
        while !is_closed {
            let lines = {
                let is_idle = |waiting: &mut Waiting| !waiting.is_closed && waiting.lines.len() < MEMBER;
                let waited = self.shared.changed.wait_timeout_while(self.shared.lock(), TICK, is_idle);
                let mut waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
                is_closed = waiting.is_closed;
                // After many entries, their memory is not kept for few.
                std::mem::take(&mut waiting.lines)
            };
            let mut rest = &lines[..];
            while !rest.is_empty() {
                let end = rest.len().min(MEMBER);
                let end = rest[end - 1..].iter().position(|&byte| byte == b'\n').map_or(rest.len(), |at| end + at);
                let (member, others) = rest.split_at(end);
                rest = others;
                if let Err(why) = self.write(&compressed(member)) {
                    // What waits is not needed any more.
                    *self.shared.lock() = Waiting { is_closed: true, ..Waiting::default() };
                    return tracing::error!("{why}");
                }
            }
        }
    }

    /// Writes a member, however long that takes.
    ///
    /// # Errors
    ///
    /// Says why nothing is recorded any more: the recording is too large, or fails when the daemon stops.
    fn write(&mut self, mut member: &[u8]) -> Result<(), String> {
        if self.size + member.len() as u64 > self.max_size {
            let why = format!("{}: the recording has reached {} bytes and ends here", self.name, self.max_size);
            (self.failed)(Some(why.clone()));
            return Err(why);
        }
        let mut has_failed = false;
        while !member.is_empty() {
            let cause = match self.try_write(member) {
                Ok(written) => {
                    member = &member[written..];
                    self.size += written as u64;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            let why = format!("{}: cannot record: {cause}", self.name);
            let is_running = |waiting: &mut Waiting| !waiting.is_closed;
            if !is_running(&mut self.shared.lock()) {
                return Err(why);
            }
            if !has_failed {
                tracing::error!("{why}; this is tried again every {TICK:?}");
                (self.failed)(Some(why));
            }
            has_failed = true;
            let waited = self.shared.changed.wait_timeout_while(self.shared.lock(), TICK, is_running);
            drop(waited);
        }
        if has_failed {
            tracing::warn!("{}: recording works again", self.name);
            (self.failed)(None);
        }
        Ok(())
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert((self.create)()?),
        };
        match file.write(bytes)? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            written => Ok(written),
        }
    }
}

/// A gzip member with these entries.
fn compressed(entries: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let written = encoder.write_all(entries).and_then(|()| encoder.finish());
    written.expect("writing to memory does not fail")
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Seek as _};
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::sync::mpsc::Sender;

    use super::super::{Ending, read};
    use super::*;

    type Told = Entry<String, ()>;

    /// Tells the sender about failures.
    fn failures() -> (impl Fn(Option<String>) + Send + 'static, Receiver<Option<String>>) {
        let (sender, receiver): (Sender<Option<String>>, _) = mpsc::channel();
        // Nobody asks about the others.
        (move |failure| drop(sender.send(failure)), receiver)
    }

    fn entries(mut file: File) -> (Vec<Told>, Ending) {
        let mut entries = Vec::new();
        file.rewind().expect("it is a file");
        let ending = read(BufReader::new(file), |entry: Told| {
            entries.push(entry);
            Ok(())
        });
        (entries, ending.expect("it is a recording"))
    }

    fn told(text: &str) -> Told {
        Entry::Pipeline(text.to_owned())
    }

    #[test]
    fn entries_are_in_the_order_of_the_turns() {
        let file = tempfile::tempfile().expect("a file");
        let copy = file.try_clone().expect("a descriptor");
        let create = move || copy.try_clone();
        let recorder = Recorder::start_with(String::new(), MAX_SIZE, create, |_| {}).expect("a thread");
        let journal = recorder.journal();
        let order = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (journal, order) = (&journal, &order);
                scope.spawn(move || {
                    for nth in 0..5_000 {
                        let text = format!("{thread} {nth} {:100}", "");
                        let mut turn = journal.turn();
                        turn.record(told(&text));
                        order.lock().expect("no panic").push(told(&text));
                    }
                });
            }
        });
        drop(recorder);
        journal.turn().record(told("too late"));
        let (found, ending) = entries(file);
        assert_eq!(ending, Ending::Whole);
        assert_eq!(found.first(), Some(&Entry::Recording(Header::own())));
        assert_eq!(found.last(), Some(&Entry::End));
        assert_eq!(found[1..found.len() - 1], order.into_inner().expect("no panic"));
    }

    #[test]
    fn what_does_not_fit_into_memory_is_counted() {
        let file = tempfile::tempfile().expect("a file");
        let copy = file.try_clone().expect("a descriptor");
        let is_full = Arc::new(AtomicBool::new(true));
        let create = {
            let is_full = Arc::clone(&is_full);
            move || if is_full.load(Relaxed) { Err(io::ErrorKind::StorageFull.into()) } else { copy.try_clone() }
        };
        let (failed, failures) = failures();
        let recorder = Recorder::start_with("file".to_owned(), MAX_SIZE, create, failed).expect("a thread");
        let journal = recorder.journal();
        journal.turn().record(told("first"));
        let failure = failures.recv().expect("it is told").expect("it is one");
        assert!(failure.starts_with("file: cannot record: "), "{failure}");
        let text = "x".repeat(CAPACITY / 4);
        (0..10).for_each(|_| journal.turn().record(told(&text)));
        is_full.store(false, Relaxed);
        assert_eq!(failures.recv(), Ok(None));
        // The thread takes what waits a moment later.
        while journal.0.as_ref().is_some_and(|shared| !shared.lock().lines.is_empty()) {
            std::thread::sleep(TICK / 100);
        }
        journal.turn().record(told("last"));
        drop(recorder);
        let (found, ending) = entries(file);
        let large = found.iter().filter(|entry| **entry == told(&text)).count();
        assert_eq!((large, ending), (3, Ending::Whole));
        let after = &found[found.len() - 3..];
        assert_eq!(*after, [Entry::Gap(7), told("last"), Entry::End]);
    }

    #[test]
    fn a_recording_does_not_grow_for_ever() {
        let file = tempfile::tempfile().expect("a file");
        let copy = file.try_clone().expect("a descriptor");
        let (failed, failures) = failures();
        let recorder = Recorder::start_with("file".to_owned(), 1_000, move || copy.try_clone(), failed);
        let recorder = recorder.expect("a thread");
        let journal = recorder.journal();
        for round in 0_u64.. {
            if let Ok(failure) = failures.try_recv() {
                assert!(failure.is_some_and(|why| why.contains("has reached 1000 bytes")));
                break;
            }
            assert!(round < 1_000, "it has no end");
            let text: String = std::iter::repeat_with(fastrand::alphanumeric).take(MEMBER).collect();
            journal.turn().record(told(&text));
            std::thread::sleep(TICK / 100);
        }
        drop(recorder);
        assert!(file.metadata().expect("it is open").len() <= 1_000);
    }

    #[test]
    fn an_older_recording_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let [path, old] = ["recording", "recording.old"].map(|name| folder.path().join(name));
        for _ in 0..3 {
            fs::write(&path, "older").expect("it can be written");
            drop(Recorder::start(path.clone(), |_| {}).expect("a thread"));
            assert_eq!(fs::read(&old).expect("it is there"), b"older");
            let mode = fs::metadata(&path).expect("it is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            assert_eq!(entries(File::open(&path).expect("it is ours")).1, Ending::Whole);
        }
        // Anything else is not moved away.
        let (failed, failures) = failures();
        let recorder = Recorder::start(folder.path().to_owned(), failed).expect("a thread");
        assert!(matches!(failures.recv(), Ok(Some(_))));
        drop(recorder);
        assert!(path.exists());
    }
}
