//! The daemon's output: JSON lines to a file or to standard output, from a thread of its own.
//!
//! Each line is one `write`, so that no reader sees half of one. While the output fails (a full disk) the line at hand
//! is retried and the others wait in the hub's queue; what does not fit there is counted and reported in the output
//! itself when it works again.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use bytes::Bytes;

use super::hub::Hub;

/// How often a failing output is tried, and how late a loss is reported at most.
const TICK: Duration = Duration::from_secs(1);
/// Kind of the loss notice about lines that the output could not take.
const LOSS_KIND: &str = "output";

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

    /// The lines are for a person who looks at them now.
    pub fn is_terminal(&self) -> bool {
        self.file.is_terminal()
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
pub fn run(mut output: Output, lines: &Receiver<Bytes>, hub: &Hub, stopping: &Arc<AtomicBool>) -> Result<(), Error> {
    loop {
        match lines.recv_timeout(TICK) {
            Ok(line) => write(&mut output, &line, lines, stopping)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        let lost = hub.take_output_loss();
        if lost > 0 {
            tracing::error!("{}: it was too slow or failed, {lost} lines are lost", output.target);
            write(&mut output, &hub.loss_line(LOSS_KIND, lost), lines, stopping)?;
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
