//! The daemon's unix socket: the live stream and the daemon's status, for root alone. See [`crate::protocol`].

use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream as BlockingUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::fs::{FlockOperation, Mode};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::hub::Hub;
use crate::finding::Loss;
use crate::protocol::{Call, Reply, Request, VERSION};

/// Connections that are served at a time.
pub const MAX_CLIENTS: usize = 64;
/// Longest request line, in bytes.
pub const MAX_REQUEST: usize = 1024;
/// How long a client may take to send its request, and the whole server to send what is queued when it ends.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another daemon listens there.
    #[error("{}: another daemon listens there; stop it, or give this one a --socket of its own", .0.display())]
    InUse(PathBuf),
    /// Something else is there.
    #[error("{}: it is there and is no socket; remove it, or choose another place with --socket", .0.display())]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("{}: cannot listen: {cause}; choose another place with --socket", .path.display())]
    System {
        /// The socket.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

/// A bound socket. Dropping it removes the socket's file, if that is still its own.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket's file.
    identity: (u64, u64),
}

impl Server {
    /// Binds the socket, with mode 0600, making its directory if that is missing. A socket that nobody listens on, left
    /// by a daemon that was killed, is replaced. Must be called in a tokio runtime.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let system = |cause| BindError::System { path: path.to_owned(), cause };
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(system)?;
        // Daemons that start together take turns, else each could take the other's new socket for a stale one. The lock
        // goes with the descriptor.
        let turn = fs::File::open(directory).map_err(system)?;
        rustix::fs::flock(&turn, FlockOperation::LockExclusive).map_err(|error| system(error.into()))?;
        remove_stale(path)?;

        let socket = UnixSocket::new_stream().map_err(system)?;
        // Linux gives the file the mode that the socket has when it is bound: there is no moment at which it is open to
        // others.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(|error| system(error.into()))?;
        socket.bind(path).map_err(system)?;
        let metadata = fs::symlink_metadata(path).map_err(system)?;
        let listener = socket.listen(MAX_CLIENTS as u32).map_err(system)?;
        Ok(Self { listener, path: path.to_owned(), identity: (metadata.dev(), metadata.ino()) })
    }

    /// Serves clients until `stop` is ready. Then the hub must have been closed: every client gets what is queued for
    /// it, within reason.
    pub async fn run(self, hub: Arc<Hub>, stop: impl Future) {
        let mut clients = JoinSet::new();
        tokio::pin!(stop);
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(_) = clients.join_next() => continue,
                _ = &mut stop => break,
            };
            match accepted {
                Ok((stream, _)) if clients.len() < MAX_CLIENTS => {
                    let hub = Arc::clone(&hub);
                    clients.spawn(async move {
                        // It went away: nobody is left to tell.
                        let _ = serve(stream, &hub).await;
                    });
                }
                Ok((stream, _)) => refuse(&stream, format!("{MAX_CLIENTS} clients are connected already")),
                Err(error) => {
                    // Out of descriptors, for one: waiting is all that helps.
                    tracing::warn!("{}: cannot accept a client: {error}", self.path.display());
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        let _ = timeout(PATIENCE, async { while clients.join_next().await.is_some() {} }).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes room for the socket, unless something lives there.
fn remove_stale(path: &Path) -> Result<(), BindError> {
    let system = |cause| BindError::System { path: path.to_owned(), cause };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(system(error)),
        Ok(file) if !std::os::unix::fs::FileTypeExt::is_socket(&file.file_type()) => {
            return Err(BindError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match BlockingUnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(system),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(_) => Err(BindError::InUse(path.to_owned())),
        Err(error) => Err(system(error)),
    }
}

/// Tells a client that there is no room, if its buffer takes it at once, and hangs up.
fn refuse(stream: &UnixStream, message: String) {
    let _ = stream.try_write(&line(&Reply::Error { message }));
}

/// Serves one client.
async fn serve(stream: UnixStream, hub: &Hub) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let call = match timeout(PATIENCE, read_request(&mut reader)).await {
        Ok(Ok(call)) => call,
        Ok(Err(refusal)) => return reply(&mut writer, Reply::Error { message: refusal }).await,
        Err(_) => {
            return reply(&mut writer, Reply::Error { message: format!("no request within {PATIENCE:?}") }).await;
        }
    };
    match call {
        Call::Status => reply(&mut writer, Reply::Status(Box::new(hub.status()))).await,
        Call::Tail => {
            // First the subscription, then the reply: what happens after the client has seen the reply is in its stream.
            let Some(lines) = hub.subscribe() else {
                return reply(&mut writer, Reply::Error { message: "the daemon is stopping".to_owned() }).await;
            };
            reply(&mut writer, Reply::Tail).await?;
            tokio::select! {
                result = stream_lines(lines, &mut writer, hub) => result,
                () = hangup(&mut reader) => Ok(()),
            }
        }
    }
}

/// The request, or why there is none.
async fn read_request(reader: &mut BufReader<OwnedReadHalf>) -> Result<Call, String> {
    let mut text = Vec::new();
    // One byte more than allowed, to tell a long line from one that just fits.
    let read = reader.take(MAX_REQUEST as u64 + 1).read_until(b'\n', &mut text).await;
    read.map_err(|error| format!("cannot read the request: {error}"))?;
    if text.len() > MAX_REQUEST {
        return Err(format!("the request is longer than {MAX_REQUEST} bytes"));
    }
    let request: Request =
        serde_json::from_slice(&text).map_err(|error| format!("the request is not understood: {error}"))?;
    if request.version != VERSION {
        return Err(format!("the request has version {}, this daemon speaks version {VERSION}", request.version));
    }
    Ok(request.request)
}

/// Sends the live stream until it ends or the client is gone.
async fn stream_lines(mut lines: Receiver<Bytes>, writer: &mut OwnedWriteHalf, hub: &Hub) -> io::Result<()> {
    loop {
        let line = match lines.recv().await {
            Ok(line) => line,
            Err(RecvError::Lagged(missed)) => hub.loss_line(Loss::Client, missed),
            Err(RecvError::Closed) => return Ok(()),
        };
        writer.write_all(&line).await?;
    }
}

/// Returns when the client hangs up. What it still says is ignored.
async fn hangup(reader: &mut BufReader<OwnedReadHalf>) {
    let mut ignored = [0; 64];
    while reader.read(&mut ignored).await.is_ok_and(|read| read > 0) {}
}

async fn reply(writer: &mut OwnedWriteHalf, reply: Reply) -> io::Result<()> {
    writer.write_all(&line(&reply)).await
}

fn line(reply: &Reply) -> Vec<u8> {
    let mut text = serde_json::to_vec(reply).expect("a reply has only text keys and writing to memory does not fail");
    text.push(b'\n');
    text
}
