//! The other end of the daemon's socket. Blocking: its users have nothing else to do.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::protocol::{Call, Reply, Request, Status, VERSION};

/// How long a daemon may take to answer a request.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest line that is believed, in bytes. The longest finding, with every byte of it escaped, is far below.
const MAX_LINE: u64 = 1 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No daemon listens.
    #[error("{}: no daemon listens there; start one as root with `detector run`", .0.display())]
    NotRunning(PathBuf),
    /// A daemon listens, but does not answer in time.
    #[error("{}: the daemon does not answer; it may be busy starting: wait with `detector status --wait 10s`, or see its log", .0.display())]
    Silent(PathBuf),
    /// The socket is not for this user.
    #[error("{}: permission denied; run this as root", .0.display())]
    Permission(PathBuf),
    /// The daemon refused the request.
    #[error("{}: the daemon refused: {message}; `detector --version` must be the same on both sides", .path.display())]
    Refused {
        /// The socket.
        path: PathBuf,
        /// What it said.
        message: String,
    },
    /// The daemon speaks something else.
    #[error("{}: the answer is not understood ({what}); is it the socket of a detector of this version?", .path.display())]
    Protocol {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The connection failed.
    #[error("{}: {cause}; see the daemon's log", .path.display())]
    System {
        /// The socket.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

/// The live stream of a daemon.
#[derive(Debug)]
pub struct Stream {
    path: PathBuf,
    reader: BufReader<UnixStream>,
}

/// Asks a daemon how it is.
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

impl Stream {
    /// The next line with its end, into `line`. `false`: the daemon closed the stream.
    pub fn next_line(&mut self, line: &mut Vec<u8>) -> Result<bool, Error> {
        line.clear();
        let read = (&mut self.reader).take(MAX_LINE).read_until(b'\n', line);
        match read {
            Ok(_) if line.ends_with(b"\n") => Ok(true),
            Ok(0) => Ok(false),
            Ok(_) if line.len() as u64 == MAX_LINE => Err(Error::Protocol {
                path: self.path.clone(),
                what: format!("a line is longer than {MAX_LINE} bytes"),
            }),
            // Cut off: the daemon was killed while it wrote.
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
    // A daemon that has no room for clients answers and hangs up without reading: its answer says more than this error.
    let sent = socket.write_all(&text);
    let mut line = Vec::new();
    if !stream.next_line(&mut line)? {
        sent.map_err(|cause| system(path, cause))?;
        return Err(protocol(path, "it hung up".to_owned()));
    }
    let reply = serde_json::from_slice(&line).map_err(|error| protocol(path, error.to_string()))?;
    match reply {
        Reply::Error { message } => Err(Error::Refused { path: path.to_owned(), message }),
        reply => Ok((stream, reply)),
    }
}

fn unexpected(path: &Path, reply: &Reply) -> Error {
    protocol(path, format!("it does not fit the request: {reply:?}"))
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
