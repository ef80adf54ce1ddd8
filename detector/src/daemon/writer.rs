//! Writes JSON lines to a file or to standard output, on a thread of its own.
//!
//! Each line is written with one call, so that no reader sees half of it. While the output fails, for example because
//! the disk is full, the current line is retried and later ones wait in the hub's queue. Lines that do not fit into the
//! queue are counted, and the loss is reported in the output itself once it works again.

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

/// The interval at which a failing output is retried, and the maximum delay of a loss report.
const TICK: Duration = Duration::from_secs(1);

/// Where findings are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// A file that is appended to. If it does not exist, it is created, readable by its owner only.
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

/// Opens a file for appending. Ends the last line if an earlier process died while it wrote that line.
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
}

/// Writes lines until the hub is closed. Once `stopping` is set, a failing output is not retried.
pub fn run(mut output: Output, lines: Receiver<Bytes>, hub: &Hub, stopping: &AtomicBool) -> Result<(), Error> {
    let mut reported: Option<Instant> = None;
    loop {
        // Lines are lost only while the queue is full, so none can be lost while this thread waits for one.
        let next = if hub.has_output_loss() {
            lines.recv_timeout(TICK)
        } else {
            lines.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        let ended = match next {
            Ok(line) => write(&mut output, &line, &lines, hub, stopping).map(|()| false)?,
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => true,
        };
        // Reports are at most one per [`TICK`], because writing them takes time too.
        let is_due = ended || reported.is_none_or(|reported| reported.elapsed() >= TICK);
        let lost = if is_due { hub.take_output_loss() } else { 0 };
        if lost > 0 {
            reported = Some(Instant::now());
            tracing::error!("{}: the output failed or was too slow, so {lost} lines were lost", output.target);
            write(&mut output, &hub.loss_line(Loss::Output, lost), &lines, hub, stopping)?;
        }
        if ended {
            return Ok(());
        }
    }
}

/// Writes a whole line, however long that takes. Tells the hub when the output begins to fail and when it works again.
fn write(
    output: &mut Output,
    line: &[u8],
    queue: &Receiver<Bytes>,
    hub: &Hub,
    stopping: &AtomicBool,
) -> Result<(), Error> {
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
            let failure = format!(
                "{}: cannot write: {cause}; findings are kept in memory, and writing is tried again every {TICK:?}",
                output.target
            );
            tracing::error!("{failure}");
            hub.set_output_failure(Some(failure));
        }
        failures += 1;
        std::thread::sleep(TICK);
    }
    if failures > 0 {
        tracing::warn!("{}: writing works again after {failures} failed attempts", output.target);
        hub.set_output_failure(None);
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
        // A full nonblocking pipe fails like a full disk: after part of the line was written.
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
        assert_eq!(hub.status().degraded, [""; 0]);
    }

    #[test]
    fn lines_lost_from_a_full_queue_are_counted_in_the_output() {
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
    fn a_failing_output_does_not_delay_the_shutdown() {
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
    fn a_closed_reader_ends_the_writer() {
        let (hub, lines) = Hub::with_output(String::new());
        hub.publish_event(NoticeEvent::Stopped { reason: String::new() });
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        let closed = output(File::from(OwnedFd::from(writer)));
        let error = run(closed, lines, &hub, &AtomicBool::new(false)).expect_err("nobody reads");
        assert!(matches!(error, Error::Closed { .. }), "{error}");
    }
}
