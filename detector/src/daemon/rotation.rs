//! Rotation of the output by the daemon itself: when a file has had its time, what it is called then, and which old
//! files are not kept.
//!
//! An old file keeps its name. The name has the time at which the file was rotated, and is higher than that of all
//! older ones, also after the clock was set back. So names in their order are files by their age.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::num::NonZeroU32;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::chain::end::{End, first_link};
use crate::chain::{Head, file};
use crate::finding::{Link, Text};

/// What an old file is called after the log's name and a dot.
const STAMP: &str = "%Y%m%dT%H%M%S.%3fZ";
/// The same for parsing, which takes any number of decimals.
const PARSED_STAMP: &str = "%Y%m%dT%H%M%S.%fZ";
/// How long nothing is tried after a rotation has failed.
pub(super) const PAUSE: Duration = Duration::from_secs(1);
/// How often old files are listed at most, until two listings have the same.
const MOST_LISTINGS: usize = 100;
/// How many old files are removed at most at a time, which a notice names.
const MOST_REMOVED: usize = 100;

/// When a file is rotated, and how many are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// The size that no file exceeds, unless one line is longer.
    pub size: Option<u64>,
    /// How long lines go to one file at most.
    pub every: Option<Duration>,
    /// How many old files are kept. `None` keeps all.
    pub keep: Option<NonZeroU32>,
    /// Whether old files are compressed.
    pub compress: bool,
}

impl Rotation {
    /// Whether files are rotated.
    pub const fn is_on(&self) -> bool {
        self.size.is_some() || self.every.is_some()
    }
}

/// When a file that is written is rotated.
#[derive(Debug)]
pub(super) struct Schedule {
    rotation: Rotation,
    /// When the file is too old.
    at: Option<Instant>,
    /// When rotating can be tried, if it has failed.
    not_before: Option<Instant>,
}

impl Schedule {
    /// For a file that may have been written by an earlier run.
    pub(super) fn of(rotation: Rotation, file: &Metadata) -> Self {
        // Where the file system does not know when a file was created, its time begins with this run.
        let age = file.created().ok().and_then(|created| SystemTime::now().duration_since(created).ok());
        let rest = rotation.every.map(|every| every.saturating_sub(age.unwrap_or_default()));
        Self { rotation, at: rest.map(|rest| Instant::now() + rest), not_before: None }
    }

    /// When the file is too old.
    pub(super) const fn at(&self) -> Option<Instant> {
        self.at
    }

    /// Whether a file of this size must be rotated before so many bytes are added to it.
    pub(super) fn is_due(&mut self, size: u64, more: usize) -> bool {
        let now = Instant::now();
        let is_late = self.at.is_some_and(|at| at <= now);
        if size == 0 {
            // There is nothing to rotate.
            if is_late {
                self.at = self.rotation.every.map(|every| now + every);
            }
            return false;
        }
        let is_large = self.rotation.size.is_some_and(|most| size.saturating_add(more as u64) > most);
        (is_late || is_large) && self.not_before.is_none_or(|time| time <= now)
    }

    /// Rotating has failed.
    pub(super) fn postpone(&mut self) {
        let time = Instant::now() + PAUSE;
        self.at = self.at.map(|at| at.max(time));
        self.not_before = Some(time);
    }
}

/// The name of a file as notices tell it.
pub(super) fn name(path: &Path) -> Text {
    file::name(path).as_bytes().into()
}

/// What an old file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Plain,
    Compressed,
    /// It is being compressed.
    Unfinished,
}

/// When a file was rotated and what it has, if it is an old file of the log by its name.
fn parse(file: &OsStr, log: &OsStr) -> Option<(DateTime, Form)> {
    let name = file.as_bytes();
    let (name, is_hidden) = name.strip_prefix(b".").map_or((name, false), |name| (name, true));
    let text = str::from_utf8(name.strip_prefix(log.as_bytes())?.strip_prefix(b".")?).ok()?;
    let (text, form) = match (text.strip_suffix(file::COMPRESSED), is_hidden) {
        (None, false) => (text, Form::Plain),
        (Some(text), false) => (text, Form::Compressed),
        (Some(text), true) => (text, Form::Unfinished),
        (None, true) => return None,
    };
    let time = DateTime::strptime(PARSED_STAMP, text).ok()?;
    (time.strftime(STAMP).to_string() == text).then_some((time, form))
}

/// The name of an old file when it is compressed.
pub(super) fn compressed(path: &Path) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(file::COMPRESSED);
    path.into()
}

/// The name of a file that is being compressed. It is hidden, so that nobody takes it for a part of the log.
pub(super) fn unfinished(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(file::name(path));
    name.push(file::COMPRESSED);
    path.with_file_name(name)
}

/// The old files of a log.
#[derive(Debug)]
pub(super) struct OldFiles {
    log: PathBuf,
    /// By the time of their rotation. A file can be there plain and compressed, in this order.
    files: BTreeMap<DateTime, Vec<PathBuf>>,
    /// What was being compressed.
    unfinished: Vec<PathBuf>,
}

impl OldFiles {
    /// Those that there are: regular files of this process's user, with exactly such a name.
    pub(super) fn of(log: &Path) -> io::Result<Self> {
        let mut all = Self::listed(log)?;
        for _ in 0..MOST_LISTINGS {
            let before = std::mem::replace(&mut all, Self::listed(log)?);
            if all.files.keys().eq(before.files.keys()) {
                return Ok(all);
            }
        }
        Err(io::Error::other("its old files change all the time"))
    }

    /// Those in one listing, which can miss both names of a file that is being compressed: one that is gone when the
    /// listing gets there, and one that comes where it has been.
    fn listed(log: &Path) -> io::Result<Self> {
        let mut all = Self { log: log.to_owned(), files: BTreeMap::new(), unfinished: Vec::new() };
        for entry in fs::read_dir(file::folder(log))? {
            let entry = entry?;
            let path = log.with_file_name(entry.file_name());
            match parse(&entry.file_name(), file::name(log)) {
                Some((time, form)) if entry.metadata().is_ok_and(|file| file::is_own(&file)) => match form {
                    Form::Plain => all.files.entry(time).or_default().insert(0, path),
                    Form::Compressed => all.files.entry(time).or_default().push(path),
                    Form::Unfinished => all.unfinished.push(path),
                },
                _ => {}
            }
        }
        Ok(all)
    }

    /// What was being compressed.
    pub(super) fn unfinished(&self) -> &[PathBuf] {
        &self.unfinished
    }

    /// Those that are not compressed, or not removed after that: the oldest first.
    pub(super) fn uncompressed(&self) -> impl Iterator<Item = &PathBuf> {
        self.files.values().filter_map(|all| all.first()).filter(|path| !file::is_compressed(path))
    }

    /// The path of one that is not compressed.
    fn path(&self, time: DateTime) -> PathBuf {
        let mut path = self.log.clone().into_os_string();
        path.push(format!(".{}", time.strftime(STAMP)));
        path.into()
    }

    /// The last line in the newest one: where a log goes on that has no line yet.
    pub(super) fn head(&self) -> Head {
        let Some(newest) = self.files.values().next_back().and_then(|all| all.first()) else { return Head::START };
        match file::lines(newest).and_then(End::of_all) {
            Ok(end) => end.head,
            Err(error) => {
                tracing::warn!("{}: cannot be read, so a new chain begins: {error}", newest.display());
                Head::START
            }
        }
    }

    /// Makes the log, of which this is the opened file, the newest old file, and returns its new path.
    pub(super) fn add(&mut self, opened: &Metadata, now: Timestamp) -> io::Result<PathBuf> {
        let now = TimeZone::UTC.to_datetime(now);
        let after = |newest: &DateTime| newest.checked_add(SignedDuration::from_millis(1)).map_err(io::Error::other);
        let time = self.files.keys().next_back().map(after).transpose()?.map_or(now, |after| now.max(after));
        let path = self.path(time);
        rename(&self.log, &path)?;
        // Somebody can have put another file in the place of the log just now.
        if !file::is_at(&path, opened) {
            rename(&path, &self.log)?;
            return Err(io::Error::other("another file has taken its place"));
        }
        self.files.insert(time, vec![path.clone()]);
        Ok(path)
    }

    /// Makes the newest one, which was added just now, the log again.
    pub(super) fn restore(&mut self) -> io::Result<()> {
        let Some((_, newest)) = self.files.pop_last() else { return Ok(()) };
        newest.first().map_or(Ok(()), |newest| rename(newest, &self.log))
    }

    /// Those that are too many if so many are kept, the oldest first, and the link of the first line in what is left.
    pub(super) fn excess(&self, keep: Option<NonZeroU32>) -> (Vec<PathBuf>, Option<Link>) {
        let kept = keep.map_or(self.files.len(), |keep| keep.get() as usize);
        let count = self.files.len().saturating_sub(kept).min(MOST_REMOVED);
        let left = self.files.values().nth(count).and_then(|all| all.first()).filter(|_| count > 0);
        let link = left.and_then(|path| first_link(file::lines(path).ok()?).ok()?);
        (self.files.values().take(count).flatten().cloned().collect(), link)
    }
}

/// Removes an old file.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(file) if file::is_own(&file) => fs::remove_file(path),
        // It is gone, or another file has taken its place.
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Renames a file, but never over another one.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE).map_err(|error| match error {
        Errno::INVAL | Errno::NOSYS => io::Error::other(
            "this file system cannot rename a file without replacing another one; let logrotate rotate it, or choose \
            another file system",
        ),
        error => error.into(),
    })
}

/// Some file systems put names on the disk by themselves, and refuse to be told so.
pub(super) fn unless_impossible(error: io::Error) -> io::Result<()> {
    if Errno::from_io_error(&error) == Some(Errno::INVAL) { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::{MetadataExt as _, symlink};
    use std::process::{Command, Stdio};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use proptest::prelude::*;

    use super::super::hub::Hub;
    use super::super::output::{Output, Target};
    use super::super::writer::{self, Intervals, Orders};
    use super::*;
    use crate::chain::verify::{Part, Report};
    use crate::finding::NoticeEvent;

    /// The log of the process that is killed.
    const KILLED: &str = "DETECTOR_TEST_KILLED_LOG";

    fn folder_with_log() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a directory");
        let log = folder.path().join("log");
        (folder, log)
    }

    fn by_size(size: u64, keep: Option<u32>) -> Rotation {
        Rotation { size: Some(size), keep: keep.and_then(NonZeroU32::new), ..Rotation::default() }
    }

    fn opened(log: &Path, rotation: Rotation) -> Output {
        let output = Output::open(Target::File(log.to_owned())).expect("it can be written");
        output.rotating(rotation).expect("it can be rotated")
    }

    /// Writes so many lines, as a run of the daemon, and returns for how many reasons the output does not work.
    fn write(log: &Path, rotation: Rotation, lines: usize) -> Vec<String> {
        let (hub, queue) = Hub::with_output("".into());
        let mut output = opened(log, rotation);
        output.take_notice().into_iter().for_each(|notice| hub.publish_event(notice));
        (0..lines).for_each(|_| hub.publish_event(NoticeEvent::Stopped { reason: String::new() }));
        hub.close();
        writer::run(output, queue, &hub, &Orders::default(), Intervals::default()).expect("all is written");
        hub.status().degraded
    }

    /// All files of a log, the oldest first.
    fn files(log: &Path) -> Vec<PathBuf> {
        let old_files = OldFiles::of(log).expect("it can be read");
        let old = old_files.files.values().filter_map(|all| all.first()).cloned();
        old.chain(log.exists().then(|| log.to_owned())).collect()
    }

    fn report(files: &[PathBuf]) -> Report {
        let read = |path: &PathBuf| {
            let lines = file::lines(path).expect("it is there");
            Part::read(path.display().to_string(), lines, None).expect("memory can be read")
        };
        Report::of(files.iter().map(read).collect(), None)
    }

    /// The first and the last line of a log, which must be whole.
    fn proven(log: &Path) -> (u64, u64) {
        let report = report(&files(log));
        assert_eq!(report.problems(), 0, "{report:?}");
        let (first, last) = report.ends.expect("there are lines");
        (first, last.seq)
    }

    #[test]
    fn a_file_is_old_by_its_exact_name_only() {
        let log = OsStr::new("log");
        let form = |name: &str| parse(OsStr::new(name), log).map(|(_, form)| form);
        assert_eq!(form("log.20261127T155729.012Z"), Some(Form::Plain));
        assert_eq!(form("log.20261127T155729.012Z.gz"), Some(Form::Compressed));
        assert_eq!(form(".log.20261127T155729.012Z.gz"), Some(Form::Unfinished));
        for name in [
            "log",
            "log.1",
            "log.",
            "log.20261127",
            "log-20261127T155729.012Z",
            "log.20261127T155729.01Z",
            "log.20261127T155729.0123Z",
            "log.20261327T155729.012Z",
            "log.20261127T155729.012Z.gz.gz",
            ".log.20261127T155729.012Z",
            "log.20261127T155729.012Z ",
            "log.20261127T155729.+12Z",
            "other.20261127T155729.012Z",
            "log.log.1",
        ] {
            assert_eq!(form(name), None, "{name}");
        }
    }

    #[test]
    fn no_file_is_missed_while_it_is_compressed() {
        let (_folder, log) = folder_with_log();
        fs::write(&log, "").expect("it is ours");
        let mut old_files = OldFiles::of(&log).expect("it can be read");
        let mut add = || {
            fs::write(&log, "").expect("it is ours");
            old_files.add(&fs::metadata(&log).expect("it is there"), Timestamp::now()).expect("it can be renamed")
        };
        let plain = [add(), add(), add()];
        let is_done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_done.load(Ordering::Relaxed) {
                    for plain in &plain {
                        fs::write(unfinished(plain), "").expect("it is ours");
                        fs::rename(unfinished(plain), compressed(plain)).expect("it is there");
                        fs::remove_file(plain).expect("it is there");
                        fs::write(plain, "").expect("it is ours");
                        fs::remove_file(compressed(plain)).expect("it is there");
                    }
                }
            });
            let numbers: BTreeSet<_> =
                (0..2000).map(|_| OldFiles::of(&log).map(|all| all.files.len()).unwrap_or(usize::MAX)).collect();
            is_done.store(true, Ordering::Relaxed);
            assert_eq!(numbers, [plain.len()].into());
        });
    }

    #[test]
    fn a_file_is_due_by_its_size_or_its_age() {
        let (_folder, log) = folder_with_log();
        fs::write(&log, "").expect("it is ours");
        let file = fs::metadata(&log).expect("it is there");
        let mut by_size = Schedule::of(by_size(100, None), &file);
        assert_eq!([(100, 0), (100, 1), (0, 200)].map(|(size, more)| by_size.is_due(size, more)), [false, true, false]);
        by_size.postpone();
        assert!(!by_size.is_due(100, 1));
        let of_age = |every| Schedule::of(Rotation { every: Some(every), ..Rotation::default() }, &file);
        assert!(!of_age(Duration::from_secs(1000)).is_due(100, 0));
        let mut late = of_age(Duration::ZERO);
        assert!(!late.is_due(0, 1), "an empty file is not rotated");
        assert!(late.is_due(1, 0));
    }

    #[test]
    fn no_file_exceeds_the_size_and_so_many_are_kept_as_were_asked_for() {
        let (_folder, log) = folder_with_log();
        assert_eq!(write(&log, by_size(1500, Some(3)), 100), [""; 0]);
        let files = files(&log);
        assert_eq!(files.len(), 4);
        for file in &files {
            let metadata = fs::metadata(file).expect("it is there");
            assert!(metadata.len() <= 1500 && metadata.mode() & 0o777 == 0o600, "{metadata:?}");
        }
        let (first, last) = proven(&log);
        assert!(first > 1 && last > 100);
        let newest = fs::read_to_string(&log).expect("it is text");
        let name = files[2].file_name().expect("it has one").to_str().expect("it is text");
        assert!(newest.contains(&format!("\"log_rotated\",\"detail\":{{\"file\":\"{name}\",\"first\":")), "{newest}");
        // The log says what was removed.
        assert_eq!(report(&files).removed_to, Some(first - 1));
        assert_eq!(report(&[&files[..1], &files[2..]].concat()).problems(), 1, "a file is missing in the middle");
        // What is removed first need not be said to be missing.
        assert_eq!(report(&files[2..]).problems(), 0);
    }

    #[test]
    fn a_first_line_that_is_not_the_one_after_what_was_removed_is_a_problem() {
        let (_folder, log) = folder_with_log();
        write(&log, by_size(1500, Some(1)), 50);
        let files = files(&log);
        let text = fs::read_to_string(&files[0]).expect("it is text");
        let prev = text.find("\"prev\":\"").expect("it has one") + "\"prev\":\"".len();
        let digit = if text.as_bytes()[prev] == b'0' { "1" } else { "0" };
        let lines = text.split_inclusive('\n').count();
        assert!(lines > 2);
        fs::write(&files[0], [&text[..prev], digit, &text[prev + 1..]].concat()).expect("it is ours");
        let report = report(&files);
        // Neither what was removed nor the second line goes with it.
        assert_eq!(report.problems(), 2, "{report:?}");
        assert!(report.parts[0].problems.first.iter().any(|problem| problem.contains("what was removed")));
    }

    #[test]
    fn files_of_others_are_neither_replaced_nor_removed() {
        let (folder, log) = folder_with_log();
        // In the far future, so that the names of old files come after it.
        let future = "log.29991231T235959.999Z";
        fs::write(folder.path().join(future), "").expect("it is ours");
        let others = ["log.1", "log.20200101T000000.000Z.txt", "xlog.20200101T000000.000Z"];
        others.iter().for_each(|name| fs::write(folder.path().join(name), "x").expect("it is ours"));
        symlink(folder.path().join("log.1"), folder.path().join("log.20200101T000000.000Z")).expect("a link");
        fs::create_dir(folder.path().join("log.20200101T000000.001Z")).expect("nothing is there");
        assert_eq!(write(&log, by_size(1000, Some(2)), 20), [""; 0]);
        assert!(others.iter().all(|name| fs::read(folder.path().join(name)).is_ok_and(|bytes| bytes == b"x")));
        assert!(
            ["log.20200101T000000.000Z", "log.20200101T000000.001Z"]
                .iter()
                .all(|name| fs::symlink_metadata(folder.path().join(name)).is_ok_and(|other| !other.is_file()))
        );
        let files = files(&log);
        assert!(files.len() == 3 && files[..2].iter().all(|path| file::name(path) > OsStr::new(future)), "{files:?}");
        proven(&log);
    }

    #[test]
    fn lines_go_on_into_a_file_that_cannot_be_rotated() {
        let (folder, _) = folder_with_log();
        // There is no room for the time in its name.
        let log = folder.path().join("l".repeat(250));
        let degraded = write(&log, by_size(1000, None), 20);
        assert!(
            matches!(&degraded[..], [reason] if reason.contains("cannot be rotated: File name too long")),
            "{degraded:?}"
        );
        // One of them is the notice about that.
        assert_eq!((proven(&log), files(&log).len()), ((1, 21), 1));
    }

    #[test]
    fn a_file_that_takes_the_place_of_the_log_is_put_back() {
        let (_folder, log) = folder_with_log();
        fs::write(&log, "x").expect("it is ours");
        let before = fs::metadata(&log).expect("it is there");
        fs::remove_file(&log).expect("it is there");
        fs::write(log.with_extension("other"), "y").expect("it is ours");
        fs::rename(log.with_extension("other"), &log).expect("it is there");
        let other = fs::metadata(&log).expect("it is there");
        let before_or_other =
            if before.ino() == other.ino() { fs::metadata("/").expect("it is there") } else { before };
        let mut old_files = OldFiles::of(&log).expect("it can be read");
        assert!(old_files.add(&before_or_other, Timestamp::now()).is_err());
        assert_eq!(fs::read(&log).expect("it is there"), b"y");
    }

    #[test]
    fn a_file_is_rotated_after_its_time_without_another_line() {
        let (_folder, log) = folder_with_log();
        let (hub, queue) = Hub::with_output("".into());
        let every = Duration::from_millis(300);
        let output = opened(&log, Rotation { every: Some(every), ..Rotation::default() });
        hub.publish_event(NoticeEvent::Stopped { reason: String::new() });
        thread::scope(|scope| {
            let orders = Orders::default();
            let writing = scope.spawn(|| writer::run(output, queue, &hub, &{ orders }, Intervals::default()));
            let until = Instant::now() + Duration::from_secs(10);
            while files(&log).len() < 2 {
                assert!(Instant::now() < until, "it was not rotated");
                thread::sleep(every / 10);
            }
            hub.close();
            writing.join().expect("no panic").expect("all is written");
        });
        proven(&log);
    }

    /// Where the daemon is killed while it rotates its log.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Renamed,
        Created,
        /// Part of the notice is written.
        Torn,
        /// Part of the notice is written, and then part of the notice about that.
        TornTwice,
        /// The notice is written, and nothing is removed.
        Told,
    }

    const STEPS: [Step; 5] = [Step::Renamed, Step::Created, Step::Torn, Step::TornTwice, Step::Told];

    /// Does what a daemon does before it is killed at this step.
    fn rotate_until(log: &Path, step: Step) {
        if let Step::Told = step {
            // Nothing is removed if all are kept.
            write(log, by_size(1, None), 1);
            return;
        }
        let mut old_files = OldFiles::of(log).expect("it can be read");
        old_files.add(&fs::metadata(log).expect("it is there"), Timestamp::now()).expect("it can be renamed");
        let torn = match step {
            Step::Renamed | Step::Told => return,
            Step::Created => "",
            Step::Torn => "{\"time\":\"2026-",
            Step::TornTwice => "{\"time\":\"2026-\n{\"tim",
        };
        fs::write(log, torn).expect("it is ours");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_chain_goes_on_wherever_rotation_is_interrupted(
            runs in prop::collection::vec((1_usize..8, prop::sample::select(&STEPS[..])), 1..6),
            size in 500_u64..3000,
            keep in prop::option::of(1_u32..4),
            compress: bool,
        ) {
            let rotation = Rotation { compress, ..by_size(size, keep) };
            let (_folder, log) = folder_with_log();
            let mut written = 0;
            for (lines, step) in runs {
                prop_assert_eq!(write(&log, rotation, lines), [""; 0]);
                rotate_until(&log, step);
                written += lines as u64;
            }
            write(&log, rotation, 1);
            let (first, last) = proven(&log);
            prop_assert!(last > written && (keep.is_some() || first == 1));
        }
    }

    /// Writes to the log until it is killed.
    #[test]
    #[ignore = "another test runs it in a process of its own"]
    fn killed_writer() {
        let Some(log) = std::env::var_os(KILLED) else { return };
        loop {
            write(Path::new(&log), Rotation { compress: true, ..by_size(1, Some(50)) }, 1000);
        }
    }

    #[test]
    fn the_chain_goes_on_after_real_kills() {
        // Without a disk to wait for, more of the time is spent between the steps.
        let folder = tempfile::tempdir_in("/dev/shm").expect("a directory");
        let log = folder.path().join("log");
        let program = std::env::current_exe().expect("it has a path");
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..40 {
            let before = files(&log);
            let mut writer = Command::new(&program)
                .args(["--ignored", "--exact", "daemon::rotation::tests::killed_writer"])
                .env(KILLED, &log)
                .stdout(Stdio::null())
                .spawn()
                .expect("it can be executed");
            let until = Instant::now() + Duration::from_secs(20);
            while files(&log) == before {
                assert!(Instant::now() < until, "nothing is written");
                thread::sleep(Duration::from_millis(1));
            }
            thread::sleep(Duration::from_micros(random.u64(0..5000)));
            writer.kill().expect("it is running");
            writer.wait().expect("it was started");
        }
        write(&log, by_size(1, Some(50)), 1);
        let (first, seq) = proven(&log);
        assert!(first > 1 && seq > 100, "{seq} lines are too few");
    }
}
