//! A forwarder at work: takes lines from the log, sends them in their order, and remembers how far it has come.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::timeout;

use super::Forwarder;
use super::backoff::Backoff;
use super::cursor::Cursor;
use super::progress::{Failing, Progress};
use super::receiver::{Failure, Item, Outcome, Receiver, Refusal};
use super::refused::RefusedLines;
use super::unlogged::Unlogged;
use super::window::Window;
use crate::chain;
use crate::chain::log::{Line, Log};
use crate::finding::Time;

/// How many bytes of lines are sent at a time, unless one line is longer.
const BATCH: usize = 128 << 10;
/// How long it takes at most until it is noticed that there are new lines.
const POLL: Duration = Duration::from_millis(250);
/// How often the cursor is put on the disk and the daemon told, at most.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long lines are still sent after the daemon has ended.
const DRAINING: Duration = Duration::from_secs(3);

/// A forwarder.
pub(super) struct Sender {
    forwarder: Forwarder,
    log: Log,
    receiver: Receiver,
    /// Lines that are not in the log.
    unlogged: Unlogged,
    window: Window,
    cursor: Cursor,
    refused: RefusedLines,
    backoff: Backoff,
    progress: Progress,
    /// Why the cursor cannot be written.
    unsaved: Option<Failing>,
    /// A line that did not fit into what was sent last.
    next: Option<Line>,
    /// When the cursor was put on the disk last.
    saved: Option<Instant>,
    /// What the daemon was told last, and when.
    told: (Progress, Option<Instant>),
    /// Set when the daemon has ended.
    stop: watch::Receiver<bool>,
}

/// What has become of lines that were to be sent.
struct Sent {
    /// How many of them were sent or are refused: the first ones.
    settled: usize,
    /// The places of those that will never be taken, and why.
    refused: Vec<(usize, String)>,
    /// Why the others could not be sent.
    failure: Option<Failure>,
}

impl Sender {
    /// A forwarder that goes on where its cursor says, or with the first line there is.
    pub(super) fn new(
        forwarder: Forwarder,
        log: PathBuf,
        folder: &Path,
        unlogged: Unlogged,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let Forwarder { name, to, .. } = &forwarder;
        let cursor = Cursor::of(folder, name);
        let position = cursor.load().unwrap_or_else(|problem| {
            tracing::error!("forwarder {name}: {problem}");
            None
        });
        match position {
            Some(position) => tracing::info!("forwarder {name}: goes on to {to} after line {}", position.head.seq),
            None => tracing::info!(
                "forwarder {name}: sends to {to} all lines that are in {} and its old files, and all that come",
                log.display()
            ),
        }
        let log = Log::after(log, position);
        let receiver = Receiver::of(&forwarder);
        let window = Window::after(log.position(), receiver.window());
        let refused = RefusedLines::of(folder, name);
        let progress = Progress { forwarder: name.clone(), seq: log.position().head.seq, ..Progress::default() };
        Self {
            forwarder,
            log,
            receiver,
            unlogged,
            window,
            cursor,
            refused,
            backoff: Backoff::default(),
            told: (Progress::default(), None),
            progress,
            unsaved: None,
            next: None,
            saved: None,
            stop,
        }
    }

    /// Sends lines until the daemon has ended.
    pub(super) async fn run(mut self) {
        while !self.is_stopping() {
            let result = match self.turn().await {
                Ok(true) => Ok(()),
                Ok(false) => self.receiver.wait(POLL).await,
                Err(failure) => Err(failure),
            };
            if let Err(failure) = result {
                let wait = self.failed(failure);
                self.keep_up(true);
                let mut stop = self.stop.clone();
                // Also ends when the daemon has.
                let _ = timeout(wait, stop.wait_for(|is_stopping| *is_stopping)).await;
            }
            self.keep_up(false);
        }
        if self.progress.failure.is_none() {
            // The daemon has written its last lines.
            let _ = timeout(DRAINING, async { while self.turn().await.is_ok_and(|has_sent| has_sent) {} }).await;
            if self.receiver.close().await {
                self.window.clear();
            }
        }
        self.keep_up(true);
    }

    fn is_stopping(&self) -> bool {
        // Without a sender, nobody can say it any more.
        *self.stop.borrow() || self.stop.has_changed().is_err()
    }

    /// Sends the next lines. Returns `false` if there are none yet.
    async fn turn(&mut self) -> Result<bool, Failure> {
        let lines = match self.batch() {
            Ok(lines) => lines,
            Err(failure) => {
                // What the log does not take may go to a receiver all the same.
                while self.send_unlogged().await? {}
                return Err(failure);
            }
        };
        let Some(first) = lines.first() else {
            let has_sent = self.send_unlogged().await?;
            self.set_working();
            (self.progress.waiting, self.progress.is_giving_up) = (None, false);
            return Ok(has_sent);
        };
        self.progress.waiting = chain::time(&first.bytes);
        let texts: Vec<_> = lines.iter().map(|line| &line.bytes[..]).collect();
        let Sent { settled, refused, failure } = self.send(&texts).await;
        for (nth, why) in refused {
            let Line { bytes, position, .. } = &lines[nth];
            self.refuse(&format!("line {}", position.head.seq), bytes, &why)?;
        }
        self.settle(&lines[..settled]);
        if let Some(failure) = failure {
            return Err(failure);
        }
        self.set_working();
        Ok(true)
    }

    /// Goes on after lines that were sent or are refused.
    fn settle(&mut self, lines: &[Line]) {
        let Some(last) = lines.last() else { return };
        self.progress.sent += lines.len() as u64;
        self.progress.seq = last.position.head.seq;
        let bytes = lines.iter().map(|line| line.bytes.len() as u64).sum();
        self.window.sent(bytes, last.position);
        if self.window.start() == last.position {
            self.backoff.succeeded();
        }
    }

    /// Sends the next lines that are not in the log. Returns `false` if there are none.
    async fn send_unlogged(&mut self) -> Result<bool, Failure> {
        let lines = self.unlogged.next(BATCH);
        if lines.is_empty() {
            return Ok(false);
        }
        let texts: Vec<_> = lines.iter().map(|line| &line[..]).collect();
        let Sent { settled, refused, failure } = self.send(&texts).await;
        for (nth, why) in refused {
            self.refuse("a line that is not in the log", texts[nth], &why)?;
        }
        self.unlogged.sent(settled);
        self.progress.unlogged += settled as u64;
        failure.map_or(Ok(true), Err)
    }

    /// Sends lines in the format of the forwarder.
    async fn send(&mut self, lines: &[&[u8]]) -> Sent {
        let format = self.forwarder.format;
        let (mut items, mut places, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for (nth, &line) in lines.iter().enumerate() {
            match format.convert(line) {
                Ok(text) => {
                    items.push(Item { line, text });
                    places.push(nth);
                }
                Err(why) => refused.push((nth, why.to_string())),
            }
        }
        let Outcome { settled, refused: by_receiver, failure } = self.receiver.send(&items).await;
        refused.extend(by_receiver.into_iter().map(|Refusal { nth, why }| (places[nth], why)));
        let settled = match failure {
            None => lines.len(),
            Some(_) => settled.checked_sub(1).map_or(0, |last| places[last] + 1),
        };
        // The others are sent again, and refused then.
        refused.retain(|(nth, _)| *nth < settled);
        Sent { settled, refused, failure }
    }

    /// Takes the next lines from the log.
    fn batch(&mut self) -> Result<Vec<Line>, Failure> {
        let (mut lines, mut size) = (Vec::new(), 0);
        loop {
            let line = match self.next.take() {
                Some(line) => line,
                None => match self.log.next() {
                    Ok(Some(line)) => line,
                    Ok(None) => return Ok(lines),
                    Err(_) if !lines.is_empty() => return Ok(lines),
                    Err(error) => return Err(Failure::new(format!("the log cannot be read: {error}"))),
                },
            };
            size += line.bytes.len();
            if size > BATCH && !lines.is_empty() {
                self.next = Some(line);
                return Ok(lines);
            }
            self.jumped(&line);
            lines.push(line);
        }
    }

    /// Tells if lines are missing before this one.
    fn jumped(&mut self, line: &Line) {
        let (Some(jump), name) = (line.jump, &self.forwarder.name) else { return };
        match jump.missing() {
            Some(missing) => {
                tracing::error!(
                    "forwarder {name}: lines {} to {} were removed from the log before they could be sent ({missing}); \
                    keep more old files, or for longer",
                    jump.from + 1,
                    jump.to - 1
                );
                self.progress.given_up += missing;
                self.progress.is_giving_up = true;
            }
            None => tracing::warn!(
                "forwarder {name}: line {} is nowhere in the log, or another chain begins after it; goes on with line \
                {} of what is there",
                jump.from,
                jump.to
            ),
        }
    }

    /// Keeps a line that the receiver will never take. `what` is how a message names it.
    fn refuse(&mut self, what: &str, line: &[u8], why: &str) -> Result<(), Failure> {
        let (name, path) = (&self.forwarder.name, self.refused.path().display());
        self.refused.keep(line).map_err(|error| {
            Failure::new(format!("{what} was refused ({why}), and {path} cannot be written: {error}"))
        })?;
        tracing::error!("forwarder {name}: {what} will not be received, and is now in {path}: {why}");
        self.progress.refused += 1;
        Ok(())
    }

    /// Goes back to what may not have been received, and returns how long to wait.
    fn failed(&mut self, Failure { why, pause }: Failure) -> Duration {
        let Forwarder { name, to, .. } = &self.forwarder;
        if self.progress.failure.as_ref().is_none_or(|failure| failure.why != why) {
            tracing::warn!("forwarder {name}: {to}: {why}; it is tried again");
        }
        let since = self.progress.failure.take().map_or_else(now, |failure| failure.since);
        self.progress.failure = Some(Failing { why, since });
        self.window.forget();
        self.next = None;
        self.log.go_to(self.window.start());
        let wait = self.backoff.failed(Instant::now());
        pause.map_or(wait, |pause| pause.max(wait))
    }

    /// Lines can be sent.
    fn set_working(&mut self) {
        if self.progress.failure.take().is_some() {
            let Forwarder { name, to, .. } = &self.forwarder;
            tracing::warn!("forwarder {name}: {to}: lines are sent again");
        }
    }

    /// Tells the daemon what has changed, and puts the cursor on the disk, if that is due.
    fn keep_up(&mut self, is_urgent: bool) {
        let is_due = |last: Option<Instant>| is_urgent || last.is_none_or(|last| last.elapsed() >= INTERVAL);
        let mut progress = self.progress.clone();
        if progress.failure.is_none() {
            progress.failure.clone_from(&self.unsaved);
        }
        if is_due(self.told.1) && self.told.0 != progress {
            tell(&progress);
            self.told = (progress, Some(Instant::now()));
        }
        // The daemon knows what was given up before nobody can find it out again.
        if is_due(self.saved) {
            self.saved = Some(Instant::now());
            let since = self.unsaved.take().map_or_else(now, |unsaved| unsaved.since);
            let saved = self.cursor.save(self.window.start());
            let failing = |error| Failing { why: format!("its cursor cannot be written: {error}"), since };
            self.unsaved = saved.err().map(failing);
        }
    }
}

/// Tells the daemon something. If that has ended, so does this process soon.
fn tell(progress: &Progress) {
    if let Ok(text) = serde_json::to_string(progress) {
        let _ = writeln!(io::stdout().lock(), "{text}");
    }
}

fn now() -> Time {
    Time(Timestamp::now())
}
