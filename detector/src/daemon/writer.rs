//! The daemon's output: JSON lines to a file or to standard output, from a thread of its own.
//!
//! Each line is one `write`, so that no reader sees half of one. While the output fails (a full disk) the line at hand
//! is retried and the others wait in the hub's queue; what does not fit there is counted and reported in the output
//! itself when it works again.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::hub::Hub;
use crate::finding::Loss;

/// How often a failing output is tried, and how late a loss is reported at most.
const TICK: Duration = Duration::from_secs(1);

/// Where the lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// A file, made if missing (readable by its owner only), else appended to.
    File(PathBuf),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout => f.write_str("standard output"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// An opened output.
#[derive(Debug)]
pub struct Output {
    target: Target,
    file: File,
}

impl Output {
    /// Opens the output.
    pub fn open(target: Target) -> io::Result<Self> {
        let file = match &target {
            Target::Stdout => File::from(io::stdout().as_fd().try_clone_to_owned()?),
            Target::File(path) => open_log(path)?,
        };
        Ok(Self { target, file })
    }
}

/// Opens a log for appending. If an earlier process died in the middle of a line, that line is ended.
fn open_log(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    if file.metadata()?.is_file() {
        let mut written = File::open(path)?;
        let mut last = [0];
        if written.seek(SeekFrom::End(0))? > 0 {
            written.seek(SeekFrom::End(-1))?;
            written.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
            }
        }
    }
    Ok(file)
}

/// Why a writer ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody reads any more.
    #[error("{target}: its reader went away; write to a file with --json PATH, which outlives readers")]
    Closed {
        /// The output.
        target: Target,
    },
    /// The output still failed when the daemon had to stop.
    #[error("{target}: {cause}, {lines} lines are not written; make room or choose another place with --json PATH")]
    Unwritten {
        /// The output.
        target: Target,
        /// What its last try said.
        cause: io::Error,
        /// How many lines.
        lines: u64,
    },
}

/// Writes what comes until the hub closes. `stopping` is set when a failing output may not be waited for.
pub fn run(mut output: Output, lines: Receiver<Bytes>, hub: &Hub, stopping: &AtomicBool) -> Result<(), Error> {
    let mut reported: Option<Instant> = None;
    loop {
        // Lines are lost when the queue is full, and so never while this waits for one.
        let next = if hub.has_output_loss() {
            lines.recv_timeout(TICK)
        } else {
            lines.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        let ended = match next {
            Ok(line) => write(&mut output, &line, &lines, stopping).map(|()| false)?,
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => true,
        };
        // Not more often: a report takes time too.
        let is_due = ended || reported.is_none_or(|reported| reported.elapsed() >= TICK);
        let lost = if is_due { hub.take_output_loss() } else { 0 };
        if lost > 0 {
            reported = Some(Instant::now());
            tracing::error!("{}: it was too slow or failed, {lost} lines are lost", output.target);
            write(&mut output, &hub.loss_line(Loss::Output, lost), &lines, stopping)?;
        }
        if ended {
            return Ok(());
        }
    }
}

/// Writes a whole line, however long that takes.
fn write(output: &mut Output, line: &[u8], queue: &Receiver<Bytes>, stopping: &AtomicBool) -> Result<(), Error> {
    let mut rest = line;
    let mut failures = 0_u64;
    while !rest.is_empty() {
        let cause = match output.file.write(rest) {
            Ok(0) => io::ErrorKind::WriteZero.into(),
            Ok(written) => {
                rest = &rest[written..];
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Err(Error::Closed { target: output.target.clone() });
            }
            Err(error) => error,
        };
        if stopping.load(Relaxed) {
            let lines = 1 + queue.try_iter().count() as u64;
            return Err(Error::Unwritten { target: output.target.clone(), cause, lines });
        }
        if failures == 0 {
            tracing::error!("{}: {cause}; findings wait in memory, trying again every {TICK:?}", output.target);
        }
        failures += 1;
        std::thread::sleep(TICK);
    }
    if failures > 0 {
        tracing::warn!("{}: works again after {failures} failed writes", output.target);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::sync::mpsc;

    use super::super::hub::OUTPUT_QUEUE;
    use super::*;
    use crate::finding::NoticeEvent;

    fn output(file: File) -> Output {
        Output { target: Target::File("test".into()), file }
    }

    #[test]
    fn a_failing_output_gets_the_rest_of_the_line_when_it_works_again() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        // A full pipe that does not block fails as a full disk does: after a part of the line.
        rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).expect("it is ours");
        let line = Bytes::from([vec![b'x'; 100_000], vec![b'\n']].concat());
        let (sender, lines) = mpsc::sync_channel(2);
        sender.send(line.clone()).expect("it is read");
        sender.send(line.clone()).expect("it is read");
        drop(sender);
        let hub = Hub::new(String::new());
        let read = std::thread::scope(|scope| {
            let writer = output(File::from(OwnedFd::from(writer)));
            let writing = scope.spawn(|| run(writer, lines, &hub, &AtomicBool::new(false)));
            std::thread::sleep(TICK / 10);
            let mut read = Vec::new();
            reader.read_to_end(&mut read).expect("it is written");
            writing.join().expect("no panic").expect("all is written");
            read
        });
        assert_eq!(read, [line.clone(), line].concat());
    }

    #[test]
    fn what_the_queue_could_not_hold_is_counted_in_the_output() {
        let (hub, lines) = Hub::with_output(String::new());
        let mut file = tempfile::tempfile().expect("a file");
        let copy = output(file.try_clone().expect("a descriptor"));
        (0..OUTPUT_QUEUE + 5).for_each(|_| hub.publish_event(NoticeEvent::Stopped { reason: String::new() }));
        hub.close();
        run(copy, lines, &hub, &AtomicBool::new(false)).expect("all is written");
        let mut written = String::new();
        file.rewind().expect("it is a file");
        file.read_to_string(&mut written).expect("it is text");
        let losses: Vec<_> = written.lines().filter(|line| line.contains("\"loss\"")).collect();
        assert_eq!(written.lines().count(), OUTPUT_QUEUE + 1);
        assert!(matches!(losses[..], [loss] if loss.contains("{\"kind\":\"output\",\"count\":5}")), "{losses:?}");
        assert_eq!(hub.status().counters.losses["output"], 5);
    }

    #[test]
    fn a_failing_output_does_not_hold_up_the_end() {
        let (hub, lines) = Hub::with_output(String::new());
        (0..3).for_each(|_| hub.publish_event(NoticeEvent::Stopped { reason: String::new() }));
        hub.close();
        let full = Output::open(Target::File("/dev/full".into())).expect("/dev/full is there");
        let started = Instant::now();
        let error = run(full, lines, &hub, &AtomicBool::new(true)).expect_err("it is full");
        assert!(started.elapsed() < TICK);
        assert!(matches!(error, Error::Unwritten { lines: 3, .. }), "{error}");
    }

    #[test]
    fn a_reader_that_went_away_ends_the_writer() {
        let (hub, lines) = Hub::with_output(String::new());
        hub.publish_event(NoticeEvent::Stopped { reason: String::new() });
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        let closed = output(File::from(OwnedFd::from(writer)));
        let error = run(closed, lines, &hub, &AtomicBool::new(false)).expect_err("nobody reads");
        assert!(matches!(error, Error::Closed { .. }), "{error}");
    }
}
