//! Writes JSON lines to the output, on a thread of its own, and makes them a chain.
//!
//! Each line is written with one call, so that no reader sees half of it unless the output fails. While it fails, for
//! example because the disk is full, the current line is retried and later ones are kept, and all go to the forwarders
//! at once, which cannot find them in the log. Lines that are too many to be kept are counted, and the loss is reported
//! in the output itself once it works again.
//!
//! A file that has become too large or too old is rotated between two lines. Whatever ends the daemon meanwhile, the
//! next one finds where the chain goes on.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::compression::Compressor;
use super::disk::Disk;
use super::hub::{Hub, OUTPUT_QUEUE};
use super::output::{Output, Rotated, Target};
use super::rotation;
use crate::chain::{Head, LONGEST_END};
use crate::finding::{Loss, NoticeEvent, RotatedLog};

/// The interval at which a failing output is retried, and the maximum delay of a loss report.
const TICK: Duration = Duration::from_secs(1);

/// Why a writer ended before the hub was closed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The reader of the output closed it.
    #[error(
        "{target}: the reader of the output closed it; restart the reader and the daemon, or write to a file with \
        --json PATH"
    )]
    Closed {
        /// The output.
        target: Target,
    },
    /// The output still failed when the daemon had to stop.
    #[error(
        "{target}: {cause}, so {lines} lines were not written; free disk space, or choose another output with \
        --json PATH"
    )]
    Unwritten {
        /// The output.
        target: Target,
        /// The error of the last attempt.
        cause: io::Error,
        /// How many lines were not written.
        lines: u64,
    },
    /// A thread cannot be started.
    #[error(
        "cannot start the thread that puts findings on the disk: {0}; check the limits of this process (ulimit -a)"
    )]
    Thread(#[source] io::Error),
    /// Another thread cannot be started.
    #[error("cannot start the thread that compresses old files: {0}; check the limits of this process (ulimit -a)")]
    Compression(#[source] io::Error),
}

/// How often something is done besides writing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Intervals {
    /// How often lines are put on the disk at most. `None` leaves that to the kernel.
    pub sync: Option<Duration>,
    /// How often it is said how far the log has come.
    pub heartbeat: Option<Duration>,
}

/// What other threads tell a writer.
#[derive(Debug, Default)]
pub struct Orders {
    /// The output must be opened again before the next line.
    pub reopen: AtomicBool,
    /// The daemon stops, so that a failing output is not retried.
    pub stop: AtomicBool,
}

/// Writes lines until the hub is closed.
///
/// # Errors
///
/// See [`Error`].
pub fn run(
    output: Output,
    lines: Receiver<Bytes>,
    hub: &Hub,
    orders: &Orders,
    intervals: Intervals,
) -> Result<(), Error> {
    let (disk, target) = (&Disk::default(), &output.target().clone());
    let (compressor, log) = (&Compressor::default(), output.compressed().map(Path::to_owned));
    let writer = Writer {
        head: output.head(),
        output,
        lines,
        hub,
        orders,
        disk: intervals.sync.is_some().then_some(disk),
        compressor: log.is_some().then_some(compressor),
        heartbeat: intervals.heartbeat,
        next_heartbeat: intervals.heartbeat.map(|interval| Instant::now() + interval),
        notices: VecDeque::new(),
        kept: VecDeque::new(),
        refused: None,
        reopening_failure: None,
        writing_failure: None,
        syncing_failure: None,
        rotation_failure: None,
        excess: Vec::new(),
        unremoved: None,
        compression_failure: None,
    };
    thread::scope(|scope| {
        if let Some(interval) = intervals.sync {
            let sync = move || disk.sync(target, interval, || hub.wake_output());
            thread::Builder::new().name("sync".to_owned()).spawn_scoped(scope, sync).map_err(Error::Thread)?;
        }
        if let Some(log) = &log {
            let compress = move || compressor.run(log, || hub.wake_output());
            let thread = thread::Builder::new().name("compress".to_owned());
            thread.spawn_scoped(scope, compress).map_err(Error::Compression)?;
        }
        writer.run()
    })
}

struct Writer<'a> {
    output: Output,
    /// The last line.
    head: Head,
    lines: Receiver<Bytes>,
    hub: &'a Hub,
    orders: &'a Orders,
    /// Where lines are put on the disk, if that is not left to the kernel.
    disk: Option<&'a Disk>,
    /// Where old files are compressed, if they are.
    compressor: Option<&'a Compressor>,
    /// How often it is said how far the log has come.
    heartbeat: Option<Duration>,
    /// When this is said next.
    next_heartbeat: Option<Instant>,
    /// Notices about the output itself, to be written after the current line.
    notices: VecDeque<Bytes>,
    /// What came while the output failed, and is to be written next.
    kept: VecDeque<Bytes>,
    /// When the output could last not be opened again. `None` if that is not tried any more.
    refused: Option<Instant>,
    /// Why the output could not be opened again.
    reopening_failure: Option<String>,
    /// Why the output cannot be written at the moment.
    writing_failure: Option<String>,
    /// Why lines may not be on the disk.
    syncing_failure: Option<String>,
    /// Why the file was not rotated, or old files are still there.
    rotation_failure: Option<String>,
    /// Old files to remove as soon as a notice says so, and why one could not be.
    excess: Vec<PathBuf>,
    unremoved: Option<String>,
    /// Why old files are not compressed.
    compression_failure: Option<String>,
}

/// Whether there is no room for what was to be written.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        if let Some(disk) = self.disk {
            disk.end();
        }
        if let Some(compressor) = self.compressor {
            compressor.end();
        }
    }
}

impl Writer<'_> {
    fn run(mut self) -> Result<(), Error> {
        let mut reported: Option<Instant> = None;
        loop {
            // Lines are lost only while the queue is full, so none can be lost while this thread waits for one.
            let tick = (self.refused.is_some() || self.hub.has_output_loss()).then_some(TICK);
            let planned = self.next_heartbeat.into_iter().chain(self.output.rotates_at()).min();
            let until_planned = planned.map(|next| next.saturating_duration_since(Instant::now()));
            let next = match (self.kept.pop_front(), tick.into_iter().chain(until_planned).min()) {
                (Some(line), _) => {
                    self.hub.set_kept(self.kept.len());
                    Ok(line)
                }
                (None, Some(wait)) => self.lines.recv_timeout(wait),
                (None, None) => self.lines.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let ended = match next {
                Ok(line) => {
                    self.write(&line)?;
                    // An empty one only wakes this thread.
                    if !line.is_empty() {
                        self.hub.settle_output();
                    }
                    false
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.follow_file();
                    self.rotate_before(0)?;
                    false
                }
                Err(RecvTimeoutError::Disconnected) => true,
            };
            self.follow_threads();
            // Reports are at most one per [`TICK`], because writing them takes time too.
            let is_due = ended || reported.is_none_or(|reported| reported.elapsed() >= TICK);
            let lost = if is_due { self.hub.take_output_loss() } else { 0 };
            if lost > 0 {
                reported = Some(Instant::now());
                let target = self.output.target();
                tracing::error!("{target}: the output failed or was too slow, so {lost} lines were lost");
                let line = self.hub.loss_line(Loss::Output, lost);
                self.write(&line)?;
            }
            while let Some(notice) = self.notices.pop_front() {
                self.write(&notice)?;
            }
            if !ended && self.next_heartbeat.is_some_and(|next| next <= Instant::now()) {
                self.next_heartbeat = self.heartbeat.map(|interval| Instant::now() + interval);
                if self.head != Head::START {
                    let Head { seq, sha256 } = self.head;
                    let heartbeat = self.hub.tell_of_output(NoticeEvent::Heartbeat { seq, sha256 });
                    self.write(&heartbeat)?;
                }
            }
            if ended {
                return Ok(());
            }
        }
    }

    /// Writes a whole line to the file that is there for it, however long that takes.
    fn write(&mut self, object: &[u8]) -> Result<(), Error> {
        self.follow_file();
        if object.is_empty() {
            return Ok(());
        }
        self.rotate_before(object.len() + LONGEST_END)?;
        self.append(object)
    }

    /// Rotates the file, if that must be done before so many bytes are written.
    fn rotate_before(&mut self, more: usize) -> Result<(), Error> {
        if !self.output.must_rotate(more) {
            return Ok(());
        }
        let failure = match self.output.rotate() {
            Ok(rotated) => self.go_on_after(&rotated)?,
            Err(cause) => Some(format!(
                "{}: cannot be rotated: {cause}; findings go to the same file, and rotating it is tried again every \
                {:?}",
                self.output.target(),
                rotation::PAUSE
            )),
        };
        if failure != self.rotation_failure {
            if let Some(failure) = &failure {
                tracing::error!("{failure}");
            }
            self.rotation_failure = failure;
            self.report_failures();
        }
        Ok(())
    }

    /// Begins a new file with a notice that says what has become of the old one, and which older files are removed.
    /// Only then are they, unless they take the room of the notice. Returns why one cannot be.
    fn go_on_after(&mut self, rotated: &Rotated) -> Result<Option<String>, Error> {
        let Rotated { path, first, excess, left } = rotated;
        tracing::info!("{}: rotated to {}", self.output.target(), path.display());
        let notice = self.hub.tell_of_output(NoticeEvent::LogRotated(Box::new(RotatedLog {
            file: rotation::name(path),
            first: first.map(|link| link.seq),
            last: self.head.line(),
            removed: excess.iter().map(|path| rotation::name(path)).collect(),
            removed_to: left.and_then(|link| Head::before(link).line()),
        })));
        self.excess.clone_from(excess);
        self.append(&notice)?;
        if let Some(compressor) = self.compressor {
            compressor.rotated();
        }
        self.remove_excess();
        Ok(self.unremoved.take())
    }

    /// Removes the old files that are too many. Returns whether there were any.
    fn remove_excess(&mut self) -> bool {
        let excess = std::mem::take(&mut self.excess);
        for path in &excess {
            if let Err(cause) = rotation::remove(path) {
                self.unremoved.get_or_insert(format!(
                    "{}: cannot be removed: {cause}; more old files are kept than --rotate-keep says, and removing it \
                    is tried again when the next file is rotated",
                    path.display()
                ));
            }
        }
        !excess.is_empty()
    }

    /// Writes a whole line to the opened file, however long that takes.
    fn append(&mut self, object: &[u8]) -> Result<(), Error> {
        let line = self.head.add(object);
        self.hub.set_written(self.head.seq);
        let mut rest = &line[..];
        let mut failures = 0_u64;
        while !rest.is_empty() {
            let cause = match self.output.write(rest) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(written) => {
                    rest = &rest[written..];
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return Err(Error::Closed { target: self.output.target().clone() });
                }
                Err(error) if is_full(&error) && self.remove_excess() => continue,
                Err(error) => error,
            };
            if self.orders.stop.load(Relaxed) {
                let queued = self.lines.try_iter().filter(|line| !line.is_empty()).count() as u64;
                let lines = 1 + self.kept.len() as u64 + queued + self.hub.take_output_loss();
                return Err(Error::Unwritten { target: self.output.target().clone(), cause, lines });
            }
            if failures == 0 {
                let forwarding = if self.hub.forwards() { " and forwarded at once (`durable` is false)" } else { "" };
                let failure = format!(
                    "{}: cannot write: {cause}; the next {OUTPUT_QUEUE} lines are kept in memory{forwarding}, and \
                    writing is tried again every {TICK:?}",
                    self.output.target()
                );
                tracing::error!("{failure}");
                self.writing_failure = Some(failure);
                self.hub.forward_unlogged(object);
                self.report_failures();
                self.notices.iter().for_each(|notice| self.hub.forward_unlogged(notice));
            }
            failures += 1;
            self.keep_lines();
            if self.follow_file() {
                // The file that is open now has no part of the line.
                rest = &line;
            }
        }
        if let (Some(disk), Some(file)) = (self.disk, self.output.on_disk()) {
            disk.wrote(file);
        }
        if failures > 0 {
            tracing::warn!("{}: writing works again after {failures} failed attempts", self.output.target());
            self.writing_failure = None;
            self.report_failures();
        }
        Ok(())
    }

    /// Takes what comes until the output is tried again. All is forwarded, and kept as long as there is room.
    fn keep_lines(&mut self) {
        let until = Instant::now() + TICK;
        loop {
            match self.lines.recv_deadline(until) {
                // It only wakes this thread.
                Ok(line) if line.is_empty() => {}
                Ok(line) => {
                    self.hub.forward_unlogged(&line);
                    if self.kept.len() < OUTPUT_QUEUE {
                        self.kept.push_back(line);
                        self.hub.set_kept(self.kept.len());
                    } else {
                        self.hub.lose_output();
                        self.hub.settle_output();
                    }
                }
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => {
                    return thread::sleep(until.saturating_duration_since(Instant::now()));
                }
            }
        }
    }

    /// Opens the output again if that was ordered, or if its file was moved or removed, and returns whether it has done
    /// so. If this fails, the opened file stays in use, and it is tried again later.
    fn follow_file(&mut self) -> bool {
        let is_ordered = self.orders.reopen.swap(false, Relaxed);
        let is_due = self.refused.map_or_else(|| self.output.is_moved(), |refused| refused.elapsed() >= TICK);
        if !(is_ordered || is_due) {
            return false;
        }
        let result = self.output.reopen();
        self.refused = result.is_err().then(Instant::now);
        let failure = result.as_ref().err().map(|cause| {
            format!(
                "{}: cannot be opened again: {cause}; findings go to the file that was opened before, and opening is \
                tried again every {TICK:?}",
                self.output.target()
            )
        });
        if failure != self.reopening_failure {
            if let Some(failure) = &failure {
                tracing::error!("{failure}");
            }
            self.reopening_failure = failure;
            self.report_failures();
        }
        let is_reopened = result.unwrap_or(false);
        if is_reopened {
            tracing::info!("{}: opened again", self.output.target());
            // If the daemon is killed soon, the next one must find in the new file where to go on.
            self.next_heartbeat = self.next_heartbeat.map(|_| Instant::now());
        }
        is_reopened
    }

    /// Tells if lines cannot be put on the disk, or old files not be compressed, or can be again.
    fn follow_threads(&mut self) {
        let syncing = self.disk.and_then(Disk::failure);
        let compression = self.compressor.and_then(Compressor::failure);
        if (&syncing, &compression) != (&self.syncing_failure, &self.compression_failure) {
            (self.syncing_failure, self.compression_failure) = (syncing, compression);
            self.report_failures();
        }
    }

    fn report_failures(&mut self) {
        let failures = [
            &self.reopening_failure,
            &self.writing_failure,
            &self.syncing_failure,
            &self.rotation_failure,
            &self.compression_failure,
        ];
        self.notices.extend(self.hub.set_output_failures(failures.into_iter().flatten().cloned().collect()));
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::{Read, Seek};
    use std::os::fd::OwnedFd;

    use serde_json::{Value, json};

    use super::*;
    use crate::chain::verify::{Part, Report};
    use crate::chain::{self, end::End};
    use crate::finding::NoticeEvent;

    /// How many lines these files have, which must be whole together.
    fn proven(files: &[&[u8]]) -> u64 {
        let parts = files.iter().map(|bytes| Part::read("file".to_owned(), *bytes, None).map_err(|(_, error)| error));
        let report = Report::of(parts.collect::<Result<_, _>>().expect("memory can be read"), None);
        assert_eq!(report.problems(), 0, "{report:?}");
        let (first, last) = report.ends.expect("there are lines");
        assert_eq!(first, 1);
        last.seq
    }

    /// Writes one line to an output, which is opened for that.
    fn write_one(path: &std::path::Path) -> Option<NoticeEvent> {
        let mut opened = Output::open(Target::File(path.to_owned())).expect("it can be written");
        let (hub, lines) = Hub::with_output("".into());
        let notice = opened.take_notice();
        notice.iter().for_each(|notice| hub.publish_event(notice.clone()));
        hub.publish_event(NoticeEvent::Stopped { reason: String::new() });
        hub.close();
        run(opened, lines, &hub, &Orders::default(), Intervals::default()).expect("all is written");
        notice
    }

    fn output(file: File) -> Output {
        // The target only appears in messages.
        Output::new(Target::Stdout, file)
    }

    fn stopping() -> Orders {
        Orders { stop: true.into(), ..Orders::default() }
    }

    #[test]
    fn a_failing_output_gets_the_rest_of_the_line_when_it_works_again() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        // A full nonblocking pipe fails like a full disk: after part of the line was written.
        rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).expect("it is ours");
        let line = Bytes::from([&b"{\""[..], &[b'x'; 100_000], b"\":1}\n"].concat());
        let (sender, lines) = crossbeam_channel::bounded(2);
        sender.send(line.clone()).expect("it is read");
        sender.send(line.clone()).expect("it is read");
        drop(sender);
        let hub = Hub::new("".into());
        let read = std::thread::scope(|scope| {
            let writer = output(File::from(OwnedFd::from(writer)));
            let writing = scope.spawn(|| run(writer, lines, &hub, &Orders::default(), Intervals::default()));
            thread::sleep(TICK / 10);
            let mut read = Vec::new();
            reader.read_to_end(&mut read).expect("it is written");
            writing.join().expect("no panic").expect("all is written");
            read
        });
        // Between the lines are the notices about the failure.
        let is_whole = |text: &&[u8]| text.starts_with(&line[..line.len() - 2]) && chain::link(text).is_some();
        assert_eq!(read.split(|&byte| byte == b'\n').filter(is_whole).count(), 2);
        assert!(proven(&[&read]) >= 4);
        assert_eq!(hub.status().degraded, [""; 0]);
    }

    #[test]
    fn what_a_failing_output_does_not_take_is_forwarded_at_once_and_written_later() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).expect("it is ours");
        let forwarder = json!({"name": "siem", "to": "tcp://localhost:601", "format": "native", "batch": "lines",
            "tls": {}});
        let (hub, lines) = Hub::with_output("".into());
        let hub = hub.forwarding(&[serde_json::from_value(forwarder).expect("it is one")]);
        let unlogged = hub.unlogged();
        let reasons = ["x".repeat(100_000), "second".to_owned(), "third".to_owned()];
        let publish = |reason: &String| hub.publish_event(NoticeEvent::Stopped { reason: reason.clone() });
        let told = |line: &[u8]| {
            let line: Value = serde_json::from_slice(line).expect("it is JSON");
            let reason = line["detail"]["reason"].as_str().or(line["detail"]["reasons"][0].as_str());
            (reason.unwrap_or_default().to_owned(), line["durable"].as_bool())
        };
        thread::scope(|scope| {
            let writer = output(File::from(OwnedFd::from(writer)));
            scope.spawn(|| run(writer, lines, &hub, &Orders::default(), Intervals::default()).expect("all is written"));
            let next = || told(&unlogged.recv_timeout(10 * TICK).expect("it is forwarded"));
            publish(&reasons[0]);
            assert_eq!(next(), (reasons[0].clone(), Some(false)));
            let (failure, is_durable) = next();
            assert!(failure.contains("cannot write") && failure.contains("forwarded at once"), "{failure}");
            assert_eq!(is_durable, Some(false));
            reasons[1..].iter().for_each(publish);
            assert_eq!([next(), next()], [&reasons[1], &reasons[2]].map(|reason| (reason.clone(), Some(false))));
            hub.close();
            let mut read = Vec::new();
            reader.read_to_end(&mut read).expect("it is written");
            assert_eq!(proven(&[&read]), 5);
            let written: Vec<_> = read.split_inclusive(|&byte| byte == b'\n').map(told).collect();
            assert!(written.iter().all(|(_, is_durable)| is_durable.is_none()));
            let order = reasons.iter().map(|reason| written.iter().position(|(told, _)| told == reason));
            assert!(order.is_sorted() && written.len() == 5, "{written:?}");
        });
        assert!(unlogged.is_empty(), "the log has taken the others");
        let counters = hub.status().counters;
        assert_eq!((counters.given, counters.settled), (3, 3), "notices about the output itself are not counted");
    }

    #[test]
    fn lines_lost_from_a_full_queue_are_counted_in_the_output() {
        let (hub, lines) = Hub::with_output("".into());
        let mut file = tempfile::tempfile().expect("a file");
        let copy = output(file.try_clone().expect("a descriptor"));
        (0..OUTPUT_QUEUE + 5).for_each(|_| hub.publish_event(NoticeEvent::Stopped { reason: String::new() }));
        hub.close();
        run(copy, lines, &hub, &Orders::default(), Intervals::default()).expect("all is written");
        let mut written = String::new();
        file.rewind().expect("it is a file");
        file.read_to_string(&mut written).expect("it is text");
        let losses: Vec<_> = written.lines().filter(|line| line.contains("\"loss\"")).collect();
        assert_eq!(written.lines().count(), OUTPUT_QUEUE + 1);
        assert!(
            matches!(losses[..], [loss] if loss.contains("{\"kind\":\"output\",\"count\":5,\"message\":")),
            "{losses:?}"
        );
        assert_eq!(hub.status().counters.losses["output"], 5);
    }

    #[test]
    fn a_failing_output_does_not_delay_the_shutdown() {
        let (hub, lines) = Hub::with_output("".into());
        (0..3).for_each(|_| hub.publish_event(NoticeEvent::Stopped { reason: String::new() }));
        hub.close();
        let full = Output::open(Target::File("/dev/full".into())).expect("/dev/full is there");
        let started = Instant::now();
        let error = run(full, lines, &hub, &stopping(), Intervals::default()).expect_err("it is full");
        assert!(started.elapsed() < TICK);
        assert!(matches!(error, Error::Unwritten { lines: 3, .. }), "{error}");
    }

    #[test]
    fn a_closed_reader_ends_the_writer() {
        let (hub, lines) = Hub::with_output("".into());
        hub.publish_event(NoticeEvent::Stopped { reason: String::new() });
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        let closed = output(File::from(OwnedFd::from(writer)));
        let error = run(closed, lines, &hub, &Orders::default(), Intervals::default()).expect_err("nobody reads");
        assert!(matches!(error, Error::Closed { .. }), "{error}");
    }

    #[test]
    fn a_file_is_opened_again_when_this_is_ordered_or_the_file_was_moved() {
        let directory = tempfile::tempdir().expect("a directory");
        let [log, old, older] = ["log", "old", "older"].map(|name| directory.path().join(name));
        let (hub, lines) = Hub::with_output("".into());
        let orders = Orders::default();
        let opened = Output::open(Target::File(log.clone())).expect("it can be written");
        let intervals = Intervals { sync: Some(TICK), heartbeat: None };
        let publish = |reason: &str| hub.publish_event(NoticeEvent::Stopped { reason: reason.to_owned() });
        let has = |path: &std::path::Path, word: &str| {
            let until = Instant::now() + 10 * TICK;
            while !fs::read_to_string(path).is_ok_and(|text| text.contains(word)) {
                assert!(Instant::now() < until, "{word} did not come to {}", path.display());
                thread::sleep(TICK / 100);
            }
        };
        thread::scope(|scope| {
            scope.spawn(|| run(opened, lines, &hub, &orders, intervals).expect("all is written"));
            publish("first");
            has(&log, "first");
            fs::rename(&log, &old).expect("it is there");
            orders.reopen.store(true, Relaxed);
            hub.wake_output();
            has(&log, "");
            publish("second");
            has(&log, "second");

            fs::rename(&log, &older).expect("it is there");
            fs::create_dir(&log).expect("nothing is there");
            thread::sleep(TICK);
            publish("third");
            has(&older, "third");
            let degraded = hub.status().degraded;
            assert!(matches!(&degraded[..], [reason] if reason.contains("cannot be opened again")), "{degraded:?}");
            fs::remove_dir(&log).expect("it is empty");
            thread::sleep(TICK);
            publish("fourth");
            has(&log, "fourth");
            hub.close();
        });
        assert_eq!(hub.status().degraded, [""; 0]);
        let files = [&old, &older, &log].map(|path| fs::read(path).expect("it is there"));
        let counts = files.each_ref().map(|bytes| bytes.iter().filter(|byte| **byte == b'\n').count());
        // The notice that the file cannot be opened again comes after the line that showed it.
        assert_eq!(counts, [1, 3, 2], "each line is in one file");
        assert_eq!(proven(&files.each_ref().map(Vec::as_slice)), 6);
    }

    #[test]
    fn a_link_that_takes_the_place_of_the_file_is_not_followed() {
        let directory = tempfile::tempdir().expect("a directory");
        let [log, victim] = ["log", "victim"].map(|name| directory.path().join(name));
        let (hub, lines) = Hub::with_output("".into());
        let opened = Output::open(Target::File(log.clone())).expect("it can be written");
        let copy = opened.head();
        fs::remove_file(&log).expect("it is there");
        std::os::unix::fs::symlink(&victim, &log).expect("a link");
        fs::write(&victim, "").expect("it is ours");
        hub.publish_event(NoticeEvent::Stopped { reason: String::new() });
        hub.close();
        run(opened, lines, &hub, &Orders::default(), Intervals::default()).expect("the opened file can be written");
        assert_eq!((copy, fs::read(&victim).expect("it is there")), (Head::START, Vec::new()));
        let degraded = hub.status().degraded;
        assert!(matches!(&degraded[..], [reason] if reason.contains("a symbolic link")), "{degraded:?}");
    }

    #[test]
    fn the_chain_goes_on_after_a_restart_and_a_torn_line() {
        let directory = tempfile::tempdir().expect("a directory");
        let log = directory.path().join("log");
        let read = || fs::read(&log).expect("it is there");
        assert_eq!((write_one(&log), write_one(&log)), (None, None));
        assert_eq!(proven(&[&read()]), 2);
        // The power is cut while a line is written, and again while the notice about that is.
        for rest in [&b"{\"time\":"[..], b"\n{\"time"] {
            fs::write(&log, [&read(), rest].concat()).expect("it is ours");
        }
        let expected = NoticeEvent::TornLine {
            bytes: 15,
            sha256: "0aa67c473f163993ce0e90c8ed103a201fe8e148d9cd189fd556ad8f7afa21dc".parse().expect("it is one"),
        };
        assert_eq!(write_one(&log), Some(expected));
        assert_eq!(proven(&[&read()]), 4);
        fs::write(&log, [&read()[..], b"hello\n"].concat()).expect("it is ours");
        assert_eq!(write_one(&log), Some(NoticeEvent::NewChain));
        let text = String::from_utf8(read()).expect("it is text");
        let chain = text.split_once("hello\n").expect("it is there").1;
        assert_eq!(proven(&[chain.as_bytes()]), 2);
    }

    #[test]
    fn the_chain_goes_on_after_a_file_that_others_rotate_while_no_daemon_runs() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        let (log, first, second) = (at("log"), at("log.1"), at("log-20261128"));
        let read = |path: &std::path::Path| fs::read(path).expect("it is there");
        assert_eq!(write_one(&log), None);
        fs::rename(&log, &first).expect("it is there");
        assert_eq!(write_one(&log), None);
        // logrotate makes the new file itself if it is told to, and compresses the old one.
        let gzip = std::process::Command::new("gzip").arg(&first).status();
        assert!(gzip.expect("there is gzip").success());
        fs::rename(&log, &second).expect("it is there");
        File::create(&log).expect("nothing is there");
        fs::write(at("log.note"), "no log\n").expect("it is ours");
        assert_eq!(write_one(&log), None);
        let mut older = String::new();
        let compressed = File::open(at("log.1.gz")).expect("it is there");
        flate2::read::GzDecoder::new(compressed).read_to_string(&mut older).expect("it is text");
        assert_eq!(proven(&[older.as_bytes(), &read(&second), &read(&log)]), 3);
        // What only looks like an old file of the log has no line of a chain.
        [second, at("log.1.gz"), log.clone()].iter().for_each(|file| fs::remove_file(file).expect("it is ours"));
        assert_eq!(write_one(&log), None);
        assert_eq!(proven(&[&read(&log)]), 1);
    }

    #[test]
    fn heartbeats_tell_how_far_the_log_has_come() {
        let directory = tempfile::tempdir().expect("a directory");
        let log = directory.path().join("log");
        let (hub, lines) = Hub::with_output("".into());
        let mut client = hub.subscribe().expect("the hub is open");
        let opened = Output::open(Target::File(log.clone())).expect("it can be written");
        let intervals = Intervals { sync: None, heartbeat: Some(TICK / 10) };
        thread::scope(|scope| {
            scope.spawn(|| run(opened, lines, &hub, &Orders::default(), intervals).expect("all is written"));
            thread::sleep(TICK / 4);
            hub.publish_event(NoticeEvent::Stopped { reason: String::new() });
            thread::sleep(TICK / 2);
            hub.close();
        });
        // There is none before the first line.
        client.try_recv().expect("it is published");
        let heartbeat = client.try_recv().expect("there is a heartbeat");
        let heartbeat = String::from_utf8(heartbeat.to_vec()).expect("it is text");
        assert!(heartbeat.contains("\"event\":\"heartbeat\",\"detail\":{\"seq\":1,\"sha256\":\""), "{heartbeat}");
        assert!(proven(&[&fs::read(&log).expect("it is there")]) >= 2);
        let written = File::open(&log).expect("it is there");
        assert_eq!(End::of(&written, || Head::START).expect("it can be read").notice, None);
    }

    #[test]
    fn what_cannot_be_put_on_the_disk_is_told() {
        // There is no disk behind a pipe.
        let (_reader, writer) = io::pipe().expect("a pipe");
        let pipe = output(File::from(OwnedFd::from(writer)));
        let (disk, opened) = (Disk::default(), pipe.opened());
        let told = AtomicBool::new(false);
        let failure = thread::scope(|scope| {
            scope.spawn(|| disk.sync(pipe.target(), TICK / 10, || told.store(true, Relaxed)));
            disk.wrote(opened);
            thread::sleep(TICK / 2);
            let failure = told.load(Relaxed).then(|| disk.failure()).flatten();
            let file = Output::new(Target::Stdout, tempfile::tempfile().expect("a file"));
            disk.wrote(file.on_disk().expect("it is a file"));
            disk.end();
            failure
        });
        let failure = failure.expect("it fails");
        assert!(failure.contains("cannot put findings on the disk: Invalid argument"), "{failure}");
        assert_eq!(disk.failure(), None);
        assert!(pipe.on_disk().is_none());
    }
}
