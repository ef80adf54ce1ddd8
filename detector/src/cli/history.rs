//! What the log of a daemon has since a time, for the live views.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::mpsc::{SendError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::failure::{Exit, Failure};
use super::follow::Input;
use crate::chain::log::{Jump, Log};
use crate::chain::{self, members};
use crate::finding::Time;
use crate::{client, config};

/// How long the log may take for a line that is published, and how often it is asked whether it has it.
const PATIENCE: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(20);

/// Since when lines are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Since(Time);

impl Since {
    /// So long ago.
    pub(super) fn ago(ago: Duration) -> Self {
        Self(Time(Timestamp::now().saturating_sub(ago).unwrap_or(Timestamp::MIN)))
    }
}

impl FromStr for Since {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let now = Timestamp::now();
        let time = match text.parse::<Timestamp>() {
            Ok(time) => time,
            Err(_) => {
                let wrong = "write how long ago, such as 10m, 2h or 1d, or a time such as 2026-11-28T09:30:00Z";
                let ago = config::duration(text).map_err(|_| wrong)?;
                now.checked_sub(ago).map_err(|_| "this is too long ago")?
            }
        };
        if time > now { Err("this time has not come yet") } else { Ok(Self(Time(time))) }
    }
}

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Waits until the log of the daemon at this socket has all lines that are published by now. Returns whether it has.
pub(super) fn has_all(socket: &Path) -> bool {
    let counters = || client::status(socket).map(|status| status.counters).ok();
    let (start, given) = (Instant::now(), counters().map_or(0, |counters| counters.given));
    while counters().is_none_or(|counters| counters.settled < given) {
        if start.elapsed() > PATIENCE {
            return false;
        }
        thread::sleep(STEP);
    }
    true
}

/// The log of a daemon.
pub(super) struct History {
    path: PathBuf,
    log: Log,
    since: Since,
    /// How many lines were told.
    count: u64,
    /// The hashes of those that the stream of the daemon can have, too. `None` before there is one.
    told: Option<HashSet<u64>>,
    hashing: RandomState,
}

impl History {
    /// Opens the log of the daemon at this socket.
    pub(super) fn open(socket: &Path, since: Since) -> Result<Self, Failure> {
        let unusable = |why: String| Failure::new(Exit::Failure, format_args!("--since reads the daemon's log, {why}"));
        let path = client::status(socket)?.output.ok_or_else(|| {
            unusable("which it writes to standard output; run it with --json FILE, or leave --since out".to_owned())
        })?;
        let unreadable = |error| {
            let path = path.display();
            unusable(format!("{path}, which cannot be read here: {error}; use --since where the daemon runs, as root"))
        };
        File::open(&path).map_err(unreadable)?;
        Self::of(path.clone(), since).map_err(unreadable)
    }

    fn of(path: PathBuf, since: Since) -> io::Result<Self> {
        let log = Log::since(path.clone(), since.0)?;
        Ok(Self { path, log, since, count: 0, told: None, hashing: RandomState::new() })
    }

    /// Sends the lines that there are, and that were not sent before.
    pub(super) fn tell<T: From<Input>>(&mut self, inputs: &SyncSender<T>) -> Result<Result<(), Failure>, SendError<T>> {
        loop {
            let next = self.log.next();
            let line = match next {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(Ok(())),
                Err(error) => {
                    let path = self.path.display();
                    return Ok(Err(Failure::new(Exit::Failure, format_args!("{path}: cannot read it: {error}"))));
                }
            };
            // A line without a time would be one of a newer daemon.
            let is_older = chain::time(&line.bytes).is_some_and(|time| time < self.since.0);
            if is_older {
                continue;
            }
            if let Some(jump) = line.jump {
                inputs.send(Input::Remark(self.missing(jump)).into())?;
            }
            self.count += 1;
            let hash = self.hash(&line.bytes);
            self.told.iter_mut().for_each(|told| _ = told.insert(hash));
            let mut bytes = line.bytes;
            bytes.push(b'\n');
            inputs.send(Input::Line(bytes).into())?;
        }
    }

    /// Says that the stream of the daemon has begun: it has what is told from now on, too.
    pub(super) fn begin_stream(&mut self) {
        self.told = Some(HashSet::new());
    }

    /// Whether a line of the stream was told since that has begun.
    pub(super) fn has_told(&mut self, line: &[u8]) -> bool {
        let hash = self.hash(line.strip_suffix(b"\n").unwrap_or(line));
        // The stream has each line once.
        self.told.as_mut().is_some_and(|told| told.remove(&hash))
    }

    fn hash(&self, line: &[u8]) -> u64 {
        self.hashing.hash_one(members(line))
    }

    fn missing(&self, jump: Jump) -> String {
        let path = self.path.display();
        match jump.missing() {
            Some(count) => format!("lines are missing here ({count}); `detector log verify {path}*` says more"),
            None => format!("another chain begins here; `detector log verify {path}*` says whether lines are missing"),
        }
    }

    /// What is said at the end of the log.
    pub(super) fn end(&self) -> String {
        let (path, since, count) = (self.path.display(), self.since, self.count);
        match count {
            0 => format!("{path} has no lines since {since}; what follows is live"),
            1 => format!("this was 1 line of {path} since {since}; what follows is live"),
            _ => format!("these were {count} lines of {path} since {since}; what follows is live"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc;

    use super::*;
    use crate::chain::Head;

    fn line(minute: i64) -> String {
        let time = Timestamp::from_second(60 * minute).expect("it is a time");
        format!("{{\"time\":\"{}\"}}\n", Time(time))
    }

    /// What is sent, lines without their links.
    fn told(history: &mut History) -> Vec<String> {
        let (sender, inputs) = mpsc::sync_channel::<Input>(100);
        assert!(history.tell(&sender).expect("there is a receiver").is_ok());
        drop(sender);
        let text = |input| match input {
            Input::Line(line) => {
                let members = members(line.strip_suffix(b"\n").expect("it is a line")).to_owned();
                String::from_utf8(members).expect("it is text") + "}\n"
            }
            Input::Remark(text) => text,
            _ => panic!("nothing else is sent"),
        };
        inputs.iter().map(text).collect()
    }

    #[test]
    fn a_time_is_given_as_one_or_by_how_long_ago_it_was() {
        assert_eq!("1970-01-01T00:01:00Z".parse(), Ok(Since(Time(Timestamp::from_second(60).expect("it is one")))));
        let Since(ago) = "2h".parse().expect("it is right");
        let seconds = Timestamp::now().duration_since(ago.0).as_secs();
        assert!((7200..7260).contains(&seconds), "{seconds}");
        assert_eq!("9999-01-01T00:00:00Z".parse::<Since>(), Err("this time has not come yet"));
        for wrong in ["yesterday", "", "-5m", "10"] {
            assert!(wrong.parse::<Since>().expect_err("it is wrong").starts_with("write how long ago"), "{wrong}");
        }
    }

    #[test]
    fn the_log_comes_first_and_nothing_twice() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("log");
        let mut head = Head::START;
        let mut add = |text: &str| {
            let before = fs::read(&path).unwrap_or_default();
            fs::write(&path, [before, head.add(text.as_bytes())].concat()).expect("it is ours");
        };
        (0..4).for_each(|minute| add(&line(minute)));
        let since = Since(Time(Timestamp::from_second(120).expect("it is one")));
        let mut history = History::of(path.clone(), since).expect("it is ours");
        assert_eq!(told(&mut history), [line(2), line(3)]);
        history.begin_stream();
        add(&line(4));
        assert_eq!(told(&mut history), [line(4)]);
        assert_eq!(
            history.end(),
            format!(
                "these were 3 lines of {} since 1970-01-01T00:02:00.000000000Z; what follows is live",
                path.display()
            )
        );
        let news = [3, 4, 4, 5].map(|minute| !history.has_told(line(minute).as_bytes()));
        assert_eq!(news, [true, false, true, true], "only what was told since the stream has begun is told already");
    }

    #[test]
    fn lines_that_are_missing_are_told() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("log");
        let mut head = Head::START;
        let mut lines: Vec<_> = (1..6).map(|minute| head.add(line(minute).as_bytes())).collect();
        lines.drain(1..3);
        fs::write(&path, lines.concat()).expect("it is ours");
        let since = Since(Time(Timestamp::UNIX_EPOCH));
        let mut history = History::of(path.clone(), since).expect("it is ours");
        let missing = format!("lines are missing here (2); `detector log verify {}*` says more", path.display());
        assert_eq!(told(&mut history), [line(1), missing, line(4), line(5)]);
    }
}
