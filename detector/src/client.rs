//! A blocking client of the daemon's socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::finding::{Finding, Kind, Line, Severity};
use crate::ledger::{Query, Row};
use crate::output::json::LONGEST;
use crate::protocol::{Call, Reply, Request, Status, VERSION};

/// How long the daemon may take to answer a request.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a request to the daemon failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No daemon listens on the socket.
    #[error("{}: no daemon listens on this socket; start one as root with `detector run`", .0.display())]
    NotRunning(PathBuf),
    /// A daemon listens, but did not answer in time.
    #[error("{}: the daemon does not answer; if it is still starting, wait with `detector status --wait 10s`, else \
        check its log", .0.display())]
    Silent(PathBuf),
    /// A daemon listens, but does not watch yet.
    #[error("{}: the daemon is still starting; wait with `detector status --wait 10s`", .0.display())]
    NotReady(PathBuf),
    /// The daemon keeps no ledger.
    #[error("{}: this daemon keeps no ledger: {reason}", .path.display())]
    NoLedger {
        /// The path of the socket.
        path: PathBuf,
        /// Why, in a sentence.
        reason: String,
    },
    /// This user may not connect to the socket.
    #[error("{}: permission denied; run this as root", .0.display())]
    Permission(PathBuf),
    /// The daemon refused the request.
    #[error("{}: the daemon refused the request: {message}; check that `detector --version` is the same for \
        both", .path.display())]
    Refused {
        /// The path of the socket.
        path: PathBuf,
        /// The daemon's error message.
        message: String,
    },
    /// The answer is not one of this protocol.
    #[error("{}: the answer is not understood ({what}); check that this is the socket of a detector of the same \
        version", .path.display())]
    Protocol {
        /// The path of the socket.
        path: PathBuf,
        /// What is wrong with the answer.
        what: String,
    },
    /// The connection failed.
    #[error("{}: the connection to the daemon failed: {cause}; check the daemon's log", .path.display())]
    System {
        /// The path of the socket.
        path: PathBuf,
        /// The error of the operating system.
        cause: io::Error,
    },
}

/// The live stream of a daemon.
#[derive(Debug)]
pub struct Stream {
    path: PathBuf,
    reader: BufReader<UnixStream>,
}

/// Requests the daemon's status.
pub fn status(path: &Path) -> Result<Status, Error> {
    match request(path, Call::Status)?.1 {
        Reply::Status(status) => Ok(*status),
        other => Err(unexpected(path, &other)),
    }
}

/// Subscribes to a daemon's live stream.
pub fn tail(path: &Path) -> Result<Stream, Error> {
    match request(path, Call::Tail)? {
        (stream, Reply::Tail) => {
            stream.reader.get_ref().set_read_timeout(None).map_err(|cause| system(path, cause))?;
            Ok(stream)
        }
        (_, other) => Err(unexpected(path, &other)),
    }
}

/// Asks a daemon for what its ledger says. Passes each row to `take`, and returns what the ledger can lack because the
/// daemon does not detect or record it.
pub fn drift(path: &Path, query: Query, mut take: impl FnMut(Row)) -> Result<Vec<String>, Error> {
    let (mut stream, degraded) = match request(path, Call::Drift(query))? {
        (stream, Reply::Drift { degraded }) => (stream, degraded),
        (_, Reply::NoLedger { reason }) => return Err(Error::NoLedger { path: path.to_owned(), reason }),
        (_, other) => return Err(unexpected(path, &other)),
    };
    let mut line = Vec::new();
    while stream.next_line(&mut line)? {
        match serde_json::from_slice(&line).map_err(|error| protocol(path, error.to_string()))? {
            Row::End => return Ok(degraded),
            row => take(row),
        }
    }
    Err(protocol(path, "the daemon closed the connection before the end of its answer".to_owned()))
}

/// Asks a daemon for a finding of this severity that is a test, and waits until it is in the live stream.
pub fn test_alert(path: &Path, severity: Severity) -> Result<Finding, Error> {
    let mut stream = tail(path)?;
    match request(path, Call::TestAlert { severity })?.1 {
        Reply::TestAlert => {}
        Reply::NotReady => return Err(Error::NotReady(path.to_owned())),
        other => return Err(unexpected(path, &other)),
    }
    let since = Instant::now();
    let mut line = Vec::new();
    while let Some(left) = PATIENCE.checked_sub(since.elapsed()).filter(|left| !left.is_zero()) {
        let socket = stream.reader.get_ref();
        socket.set_read_timeout(Some(left)).map_err(|cause| system(path, cause))?;
        if !stream.next_line(&mut line)? {
            return Err(protocol(path, "the daemon closed the connection".to_owned()));
        }
        match serde_json::from_slice(&line) {
            Ok(Line::Finding(finding)) if finding.finding == Kind::TestAlert => return Ok(*finding),
            Ok(_) => {}
            Err(error) => return Err(protocol(path, error.to_string())),
        }
    }
    Err(Error::Silent(path.to_owned()))
}

impl Stream {
    /// Reads the next line, including its line feed, into `line`. Returns `false` if the daemon closed the stream.
    pub fn next_line(&mut self, line: &mut Vec<u8>) -> Result<bool, Error> {
        line.clear();
        let read = (&mut self.reader).take(LONGEST).read_until(b'\n', line);
        match read {
            Ok(_) if line.ends_with(b"\n") => Ok(true),
            Ok(0) => Ok(false),
            Ok(_) if line.len() as u64 == LONGEST => {
                Err(Error::Protocol { path: self.path.clone(), what: format!("a line is longer than {LONGEST} bytes") })
            }
            // The line is incomplete because the daemon was killed while it wrote.
            Ok(_) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(false),
            Err(cause) => Err(system(&self.path, cause)),
        }
    }
}

fn request(path: &Path, call: Call) -> Result<(Stream, Reply), Error> {
    let socket = UnixStream::connect(path).map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Error::NotRunning(path.to_owned()),
        io::ErrorKind::PermissionDenied => Error::Permission(path.to_owned()),
        _ => system(path, cause),
    })?;
    let mut stream = Stream { path: path.to_owned(), reader: BufReader::new(socket) };
    let mut text = serde_json::to_vec(&Request { version: VERSION, request: call })
        .expect("a request has only text keys and writing to memory does not fail");
    text.push(b'\n');
    let mut socket = stream.reader.get_ref();
    socket.set_read_timeout(Some(PATIENCE)).map_err(|cause| system(path, cause))?;
    // A daemon with too many clients answers and disconnects without reading the request. Its answer is a better error
    // than that of this write.
    let sent = socket.write_all(&text);
    let mut line = Vec::new();
    if !stream.next_line(&mut line)? {
        sent.map_err(|cause| system(path, cause))?;
        return Err(protocol(path, "the daemon closed the connection".to_owned()));
    }
    let reply = serde_json::from_slice(&line).map_err(|error| protocol(path, error.to_string()))?;
    match reply {
        Reply::Error { message } => Err(Error::Refused { path: path.to_owned(), message }),
        reply => Ok((stream, reply)),
    }
}

fn unexpected(path: &Path, reply: &Reply) -> Error {
    protocol(path, format!("it does not match the request: {reply:?}"))
}

fn protocol(path: &Path, what: String) -> Error {
    Error::Protocol { path: path.to_owned(), what }
}

fn system(path: &Path, cause: io::Error) -> Error {
    match cause.kind() {
        // What a socket's time limit is reported as.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Silent(path.to_owned()),
        _ => Error::System { path: path.to_owned(), cause },
    }
}
