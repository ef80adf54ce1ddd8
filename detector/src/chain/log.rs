//! Reads the lines of a log in their order, while the daemon writes them, and others give its files new names, compress
//! or remove them.
//!
//! What comes after a line is recognised by the chain: the next line has the hash of this one. So neither the names of
//! files nor their order matter, and a copy of a file is as good as the file.

use std::fs::{self, File, Metadata};
use std::io::{self, BufRead, Read as _, Seek as _, SeekFrom};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::chain::end::{End, first_line, first_link};
use crate::chain::{Head, file, link, time};
use crate::finding::{Link, Time};
use crate::output::json::LONGEST;

/// How far the lines of a log were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The last line.
    pub(crate) head: Head,
    /// Where it probably ends.
    pub(crate) place: Option<Place>,
}

/// A place in a file, which is a hint: what is found there must go on from the last line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    inode: u64,
    offset: u64,
}

/// A line of the log.
#[derive(Debug)]
pub(crate) struct Line {
    /// Without its line feed.
    pub(crate) bytes: Vec<u8>,
    /// The position after it.
    pub(crate) position: Position,
    /// What lies between the line that was read before and this one, if it does not go on from there.
    pub(crate) jump: Option<Jump>,
}

/// Lines are missing, or another chain begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Jump {
    /// The last line before it.
    pub(crate) from: u64,
    /// The first line after it.
    pub(crate) to: u64,
}

impl Jump {
    /// How many lines are missing. It is not known if another chain begins.
    pub(crate) const fn missing(self) -> Option<u64> {
        if self.to > self.from { Some(self.to - self.from - 1) } else { None }
    }
}

/// The lines of a log.
pub(crate) struct Log {
    path: PathBuf,
    position: Position,
    opened: Option<Opened>,
}

/// The last line in the newest of the files that are beside a log as its old files are, whatever has renamed or
/// compressed them.
///
/// # Errors
///
/// The directory or that file cannot be read.
pub(crate) fn head_beside(log: PathBuf) -> io::Result<Head> {
    let old_files = Log::after(log, None).candidates(None)?;
    let newest = old_files.into_iter().max_by_key(|file| (file.modified(), file.first.seq));
    let end = newest.map(|newest| End::of_all(file::lines(&newest.path)?)).transpose()?;
    Ok(end.map_or(Head::START, |end| end.head))
}

/// A file that is read.
struct Opened {
    metadata: Metadata,
    file: File,
    lines: Box<dyn BufRead + Send>,
    is_plain: bool,
    /// How much of it was read: whole lines.
    offset: u64,
    /// The end of the last line that was returned.
    returned: u64,
    /// The beginning of a line that is being written.
    partial: Vec<u8>,
    /// Whether its next line is returned whatever it goes on from.
    takes_any: bool,
    /// Whether it was at its end after it had got another name.
    is_done: bool,
}

impl Opened {
    fn open(path: &Path) -> io::Result<Self> {
        let file = file::open(path)?;
        let (metadata, lines) = (file.metadata()?, file::lines_of(file.try_clone()?, path));
        let is_plain = !file::is_compressed(path);
        Ok(Self {
            metadata,
            file,
            lines,
            is_plain,
            offset: 0,
            returned: 0,
            partial: Vec::new(),
            takes_any: false,
            is_done: false,
        })
    }

    /// The next whole line, without its line feed.
    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let room = LONGEST.saturating_sub(self.partial.len() as u64);
            self.lines.by_ref().take(room).read_until(b'\n', &mut self.partial)?;
            let is_whole = self.partial.last() == Some(&b'\n');
            if !is_whole && (self.partial.len() as u64) < LONGEST {
                return Ok(None);
            }
            self.offset += self.partial.len() as u64;
            let mut line = std::mem::take(&mut self.partial);
            if line.pop() == Some(b'\n') {
                self.is_done = false;
                return Ok(Some(line));
            }
            // The detector writes no such line.
        }
    }

    /// Reads to the end of the last line of a chain.
    fn read_to(&mut self, head: Head) -> io::Result<bool> {
        while let Some(line) = self.line()? {
            // Only a line with this number can be the one.
            if link(&line).is_some_and(|link| link.seq == head.seq) && Head::after(head.seq, &line) == head {
                self.returned = self.offset;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Goes to a place.
    fn go_to(&mut self, offset: u64) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(offset))?;
        self.lines = Box::new(io::BufReader::new(self.file.try_clone()?));
        (self.offset, self.returned) = (offset, offset);
        self.partial.clear();
        Ok(())
    }

    fn place(&self) -> Option<Place> {
        self.is_plain.then(|| Place { inode: self.metadata.ino(), offset: self.returned })
    }

    fn is(&self, file: &Metadata) -> bool {
        (self.metadata.dev(), self.metadata.ino()) == (file.dev(), file.ino())
    }
}

/// A file that may belong to the log.
struct Candidate {
    path: PathBuf,
    metadata: Metadata,
    /// Of its first line.
    first: Link,
}

impl Candidate {
    /// When its first line was written.
    fn first_time(&self) -> Option<Time> {
        time(&first_line(file::lines(&self.path).ok()?).ok()??)
    }

    fn modified(&self) -> SystemTime {
        self.metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

impl Log {
    /// The lines after this position. Without one, all that there are.
    pub(crate) fn after(path: PathBuf, position: Option<Position>) -> Self {
        let position = position.unwrap_or(Position { head: Head::START, place: None });
        Self { path, position, opened: None }
    }

    /// The lines since this time, and those that come before them in the same file.
    ///
    /// # Errors
    ///
    /// The directory of the log cannot be read.
    pub(crate) fn since(path: PathBuf, since: Time) -> io::Result<Self> {
        let mut log = Self::after(path, None);
        let begun = |candidate: Candidate| candidate.first_time().filter(|first| *first <= since).zip(Some(candidate));
        let last = log.candidates(None)?.into_iter().filter_map(begun).max_by_key(|(first, _)| *first);
        if let Some((_, Candidate { path, .. })) = last {
            log.opened = Some(Opened { takes_any: true, ..Opened::open(&path)? });
        }
        Ok(log)
    }

    /// How far it was read.
    pub(crate) fn position(&self) -> Position {
        self.position
    }

    /// Goes to another position.
    pub(crate) fn go_to(&mut self, position: Position) {
        (self.position, self.opened) = (position, None);
    }

    /// The next line, if it is there already.
    ///
    /// # Errors
    ///
    /// A file cannot be read at the moment.
    pub(crate) fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let Some(opened) = &mut self.opened else {
                self.opened = self.find()?;
                if self.opened.is_none() {
                    return Ok(None);
                }
                continue;
            };
            let Some(bytes) = opened.line()? else {
                if self.is_at_end()? {
                    return Ok(None);
                }
                continue;
            };
            // What has no link is the beginning of a line whose writer died, or no line of the detector.
            let Some(link) = link(&bytes) else { continue };
            let before = self.position.head;
            let goes_on = Head::before(link) == before;
            if !goes_on && !opened.takes_any && self.was_changed()? {
                continue;
            }
            let Some(opened) = &mut self.opened else { continue };
            (opened.takes_any, opened.returned) = (false, opened.offset);
            self.position = Position { head: Head::after(link.seq, &bytes), place: opened.place() };
            let jump = (!goes_on && before != Head::START).then_some(Jump { from: before.seq, to: link.seq });
            return Ok(Some(Line { bytes, position: self.position, jump }));
        }
    }

    /// Whether the last line is no longer where it was. Then the next line is looked for.
    fn was_changed(&mut self) -> io::Result<bool> {
        let found = self.containing(None)?;
        let is_here = |found: &Opened| {
            self.opened.as_ref().is_some_and(|opened| opened.is(&found.metadata) && opened.returned == found.returned)
        };
        if found.as_ref().is_some_and(is_here) {
            return Ok(false);
        }
        self.opened = match found {
            Some(found) => Some(found),
            None => self.instead(None)?,
        };
        Ok(true)
    }

    /// Goes on where the opened file ends. Returns `true` if nothing comes after it yet.
    fn is_at_end(&mut self) -> io::Result<bool> {
        let Some(opened) = &mut self.opened else { return Ok(false) };
        let now = opened.file.metadata()?;
        if opened.is_plain && now.len() < opened.offset {
            // It was emptied by those who rotate it.
            self.opened = None;
            return Ok(false);
        }
        if opened.is_plain && file::is_at(&self.path, &now) {
            return Ok(true);
        }
        if !std::mem::replace(&mut opened.is_done, true) {
            // More can have been written before it got another name.
            return Ok(false);
        }
        let done = opened.metadata.clone();
        let next = match self.containing(Some(&done))? {
            Some(next) => Some(next),
            None => self.instead(Some(&done))?,
        };
        let is_last = next.is_none();
        if let Some(next) = next {
            self.opened = Some(next);
        }
        Ok(is_last)
    }

    /// Opens the file in which the lines go on.
    fn find(&self) -> io::Result<Option<Opened>> {
        for opened in [self.at_place(), self.containing(None)?] {
            if opened.is_some() {
                return Ok(opened);
            }
        }
        self.instead(None)
    }

    /// Opens the file that has the next line at the place that is known, or nothing after it yet.
    fn at_place(&self) -> Option<Opened> {
        let Position { head, place: Some(Place { inode, offset }) } = self.position else { return None };
        let paths = self.paths().ok()?;
        let path = paths.iter().find(|path| fs::symlink_metadata(path).is_ok_and(|file| file.ino() == inode))?;
        let mut opened = Opened::open(path).ok().filter(|opened| opened.is_plain)?;
        let mut before = [0];
        if offset > 0 {
            opened.file.read_exact_at(&mut before, offset - 1).ok()?;
        }
        opened.go_to(offset).ok()?;
        let next = loop {
            match opened.line().ok()? {
                Some(line) => match link(&line) {
                    Some(link) => break Some(link),
                    None => continue,
                },
                None => break None,
            }
        };
        let goes_on = match next {
            Some(next) => Head::before(next) == head && (offset == 0 || before == *b"\n"),
            None => End::of(&opened.file, || Head::START).ok()?.head == head,
        };
        opened.go_to(offset).ok()?;
        goes_on.then_some(opened)
    }

    /// Opens the file that has the next line first, or one with the last line at the end of that line. None of the
    /// files is `done`.
    fn containing(&self, done: Option<&Metadata>) -> io::Result<Option<Opened>> {
        let head = self.position.head;
        let mut candidates = self.candidates(done)?;
        if let Some(next) = candidates.iter().find(|candidate| Head::before(candidate.first) == head) {
            return Opened::open(&next.path).map(Some);
        }
        candidates.retain(|candidate| candidate.first.seq <= head.seq);
        candidates.sort_by_key(|candidate| (candidate.path != self.path, u64::MAX - candidate.first.seq));
        for candidate in candidates {
            // One that is still being compressed is cut.
            let opened = Opened::open(&candidate.path).and_then(|mut opened| Ok((opened.read_to(head)?, opened)));
            if let Ok((true, opened)) = opened {
                return Ok(Some(opened));
            }
        }
        Ok(None)
    }

    /// Opens the file to go on with if the next line is nowhere: the next one that there is, or else the first one. If
    /// a file is `done`, only newer ones can follow it.
    fn instead(&self, done: Option<&Metadata>) -> io::Result<Option<Opened>> {
        let last = self.position.head.seq;
        let mut candidates = self.candidates(done)?;
        if let Some(done) = done {
            let modified = done.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            candidates.retain(|candidate| candidate.modified() >= modified);
        }
        let key = |candidate: &Candidate| (candidate.first.seq <= last, candidate.first.seq, candidate.modified());
        let Some(next) = candidates.into_iter().min_by_key(key) else { return Ok(None) };
        Ok(Some(Opened { takes_any: true, ..Opened::open(&next.path)? }))
    }

    /// The log and the files beside it that have its name and more, as those have that were rotated.
    fn paths(&self) -> io::Result<Vec<PathBuf>> {
        let name = file::name(&self.path).as_bytes();
        let mut paths = Vec::new();
        for entry in fs::read_dir(file::folder(&self.path))? {
            let entry = entry?.file_name();
            let rest = entry.as_bytes().strip_prefix(name);
            if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b".") || rest.starts_with(b"-")) {
                paths.push(self.path.with_file_name(entry));
            }
        }
        Ok(paths)
    }

    /// Those of the paths at which there are files with lines of a chain, apart from the one that is `done`.
    fn candidates(&self, done: Option<&Metadata>) -> io::Result<Vec<Candidate>> {
        let is_done = |file: &Metadata| done.is_some_and(|done| (done.dev(), done.ino()) == (file.dev(), file.ino()));
        let candidate = |path: PathBuf| {
            let metadata = fs::symlink_metadata(&path).ok()?;
            if !file::is_own(&metadata) || is_done(&metadata) {
                return None;
            }
            let first = first_link(file::lines(&path).ok()?).ok()??;
            Some(Candidate { path, metadata, first })
        };
        Ok(self.paths()?.into_iter().filter_map(candidate).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write as _;
    use std::process::Command;

    use super::*;
    use crate::chain::tests::lines;

    /// A log that is written and read.
    struct Written {
        folder: tempfile::TempDir,
        head: Head,
    }

    impl Written {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().expect("a directory"), head: Head::START }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn add(&mut self, count: u64) {
            let text = lines(&mut self.head, count).concat();
            self.append(&text);
        }

        fn append(&self, text: &[u8]) {
            let file = OpenOptions::new().append(true).create(true).open(self.path("log"));
            file.expect("it is ours").write_all(text).expect("there is room");
        }

        fn rename(&self, from: &str, to: &str) {
            fs::rename(self.path(from), self.path(to)).expect("it is ours");
        }

        fn gzip(&self, name: &str) {
            assert!(Command::new("gzip").arg(self.path(name)).status().expect("it is there").success());
        }

        fn log(&self) -> Log {
            Log::after(self.path("log"), None)
        }
    }

    /// The numbers of the lines that are there, and what they jump over.
    fn read(log: &mut Log) -> (Vec<u64>, Vec<Jump>) {
        let (mut numbers, mut jumps) = (Vec::new(), Vec::new());
        while let Some(line) = log.next().expect("it can be read") {
            assert_eq!(link(&line.bytes).expect("it is a line").seq, line.position.head.seq);
            numbers.push(line.position.head.seq);
            jumps.extend(line.jump);
        }
        (numbers, jumps)
    }

    fn numbers(numbers: impl IntoIterator<Item = u64>) -> (Vec<u64>, Vec<Jump>) {
        (numbers.into_iter().collect(), Vec::new())
    }

    #[test]
    fn lines_are_read_as_they_are_written() {
        let mut written = Written::new();
        let mut log = written.log();
        assert_eq!(read(&mut log), numbers([]), "there is no file");
        written.add(3);
        assert_eq!(read(&mut log), numbers(1..=3));
        let next = lines(&mut written.head, 1).concat();
        written.append(&next[..20]);
        assert_eq!(read(&mut log), numbers([]), "it is being written");
        written.append(&next[20..]);
        assert_eq!(read(&mut log), numbers([4]));
    }

    #[test]
    fn lines_are_followed_from_file_to_file() {
        let mut written = Written::new();
        let mut log = written.log();
        written.add(3);
        assert_eq!(read(&mut log), numbers(1..=3));
        written.add(1);
        // As by the daemon and by logrotate.
        written.rename("log", "log.20261127T155729.012Z");
        assert_eq!(read(&mut log), numbers([4]), "what was written before is not forgotten");
        written.add(2);
        written.rename("log", "log-20261128");
        written.add(2);
        written.rename("log", "log.1");
        written.gzip("log-20261128");
        written.add(2);
        assert_eq!(read(&mut log), numbers(5..=10));
        written.append(b"{\"torn\n");
        written.add(1);
        assert_eq!(read(&mut log), numbers([11]), "what is no line is left out");
        for place in [log.position().place, None, Some(Place { inode: 1, offset: 1 })] {
            written.add(1);
            let mut again = Log::after(written.path("log"), Some(Position { place, ..log.position() }));
            let expected = log.position().head.seq + 1;
            assert_eq!(read(&mut again), numbers(expected..=written.head.seq), "{place:?}");
        }
        assert_eq!(read(&mut written.log()), numbers(1..=14), "without a position, all are read");
    }

    #[test]
    fn every_position_is_found_again_in_any_file() {
        let mut written = Written::new();
        for name in ["log.2", "log.1", "log.0"] {
            written.add(3);
            written.rename("log", name);
        }
        written.gzip("log.2");
        written.add(3);
        let mut log = written.log();
        let mut positions = Vec::new();
        while let Some(line) = log.next().expect("it can be read") {
            positions.push(line.position);
        }
        assert_eq!(positions.len(), 12);
        for Position { head, place } in positions {
            for place in [place, None] {
                let mut again = Log::after(written.path("log"), Some(Position { head, place }));
                assert_eq!(read(&mut again), numbers(head.seq + 1..=12), "{place:?}");
                again.go_to(Position { head, place });
                assert_eq!(read(&mut again), numbers(head.seq + 1..=12), "{place:?}");
            }
        }
    }

    #[test]
    fn a_file_that_was_copied_and_emptied_is_read_from_both() {
        let mut written = Written::new();
        let mut log = written.log();
        written.add(3);
        assert_eq!(read(&mut log), numbers(1..=3));
        written.add(3);
        fs::copy(written.path("log"), written.path("log.1")).expect("it is ours");
        fs::write(written.path("log"), "").expect("it is ours");
        assert_eq!(read(&mut log), numbers(4..=6));
        written.add(1);
        assert_eq!(read(&mut log), numbers([7]));
        // It can be longer than before when that is noticed.
        fs::copy(written.path("log"), written.path("log.2")).expect("it is ours");
        fs::write(written.path("log"), "").expect("it is ours");
        written.add(9);
        assert_eq!(read(&mut log), numbers(8..=16));
    }

    #[test]
    fn lines_that_are_gone_are_told() {
        let mut written = Written::new();
        let mut log = written.log();
        written.add(2);
        assert_eq!(read(&mut log), numbers(1..=2));
        for _ in 0..2 {
            written.add(2);
            written.rename("log", "log.1");
        }
        written.add(2);
        // It still has the first file, which has lost its name; the second one is there, and then it is not.
        assert_eq!(read(&mut log), numbers(3..=8));
        written.rename("log", "log.1");
        written.add(2);
        fs::remove_file(written.path("log.1")).expect("it is ours");
        written.rename("log", "log.1");
        fs::remove_file(written.path("log.1")).expect("it is ours");
        written.add(2);
        let jump = Jump { from: 8, to: 11 };
        assert_eq!(read(&mut log), (vec![11, 12], vec![jump]));
        assert_eq!(jump.missing(), Some(2));
    }

    #[test]
    fn files_that_have_ended_before_a_time_are_left_out() {
        let mut written = Written::new();
        let minute = |minute: i64| Time(jiff::Timestamp::from_second(60 * minute).expect("it is one"));
        for (name, first) in [("log.3", 10), ("log.2", 20), ("log.1", 30), ("log", 40)] {
            for time in [first, first + 5] {
                let object = format!("{{\"time\":\"{}\"}}\n", minute(time));
                let line = written.head.add(object.as_bytes());
                fs::write(written.path(name), [fs::read(written.path(name)).unwrap_or_default(), line].concat())
                    .expect("it is ours");
            }
        }
        written.gzip("log.2");
        for (time, first) in [(0, 1), (10, 1), (15, 1), (19, 1), (20, 3), (39, 5), (40, 7), (99, 7)] {
            let mut log = Log::since(written.path("log"), minute(time)).expect("it is ours");
            assert_eq!(read(&mut log), numbers(first..=8), "since {time}");
        }
    }

    #[test]
    fn a_log_that_is_not_the_one_of_the_position_is_read_from_its_beginning() {
        let mut written = Written::new();
        written.add(5);
        let foreign = lines(&mut Head { seq: 6, ..Head::START }, 1).concat();
        let head = Head::after(3, &foreign);
        for place in [None, Some(Place { inode: fs::metadata(written.path("log")).expect("there").ino(), offset: 2 })] {
            let mut log = Log::after(written.path("log"), Some(Position { head, place }));
            let jump = Jump { from: 3, to: 1 };
            assert_eq!(read(&mut log), ((1..=5).collect(), vec![jump]));
            assert_eq!(jump.missing(), None);
        }
    }

    #[test]
    fn another_chain_in_the_same_log_is_read_too() {
        let mut written = Written::new();
        let mut log = written.log();
        written.add(5);
        written.append(b"hello\n");
        let other = |text: &str| {
            let mut head = Head::START;
            let line = format!("{{\"event\":\"{text}\"}}\n");
            [head.add(line.as_bytes()), head.add(line.as_bytes())].concat()
        };
        written.append(&other("second"));
        let jump = Jump { from: 5, to: 1 };
        assert_eq!(read(&mut log), ((1..=5).chain(1..=2).collect(), vec![jump]));
        written.rename("log", "log.1");
        written.append(&other("third"));
        let jump = Jump { from: 2, to: 1 };
        assert_eq!(read(&mut log), (vec![1, 2], vec![jump]));
    }
}
