//! Serves the live stream and the daemon's status on a unix socket that only root can connect to. See
//! [`crate::protocol`].

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;

use super::hub::Hub;
use super::joined;
use super::socket::{BindError, PrivateSocket};
use crate::detect::TestAlert;
use crate::finding::Loss;
use crate::ledger::Query;
use crate::pipeline::Order;
use crate::protocol::{Call, Reply, Request, VERSION};

/// How many clients can watch the stream at the same time.
pub const MAX_STREAMS: usize = 64;
/// How many clients are served at the same time. Those that do not watch the stream are served quickly.
const MAX_CLIENTS: usize = MAX_STREAMS + 16;
/// How many clients can read the ledger at the same time.
const MAX_READERS: usize = 8;
static READERS: Semaphore = Semaphore::const_new(MAX_READERS);
/// How many rows of the ledger wait for a client.
const ROWS: usize = 16;
/// The maximum length of a request line, in bytes.
pub const MAX_REQUEST: usize = 1024;
/// How long a client may take to send its request, and how long a stopping server sends queued lines.
const PATIENCE: Duration = Duration::from_secs(2);

/// A socket on which clients are served.
#[derive(Debug)]
pub struct Server(PrivateSocket);

impl Server {
    /// Binds the socket with mode 0600, and replaces one that a killed daemon has left behind. Must be called within a
    /// tokio runtime.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        PrivateSocket::bind(path, "--socket").map(Self)
    }

    /// Whether a daemon has left a socket behind, which it does only if it cannot end by itself.
    pub fn has_replaced(&self) -> bool {
        self.0.has_replaced()
    }

    /// Serves clients until `stop` completes. The hub must be closed before that. Then every client receives the lines
    /// that are queued for it, for `PATIENCE` at most.
    pub async fn run(self, hub: Arc<Hub>, stop: impl Future) {
        let mut clients = JoinSet::new();
        let streams = Arc::new(Semaphore::new(MAX_STREAMS));
        tokio::pin!(stop);
        loop {
            let accepted = tokio::select! {
                accepted = self.0.accept() => accepted,
                Some(_) = clients.join_next() => continue,
                _ = &mut stop => break,
            };
            match accepted {
                Ok(stream) if clients.len() < MAX_CLIENTS => {
                    let (hub, streams) = (Arc::clone(&hub), Arc::clone(&streams));
                    clients.spawn(async move {
                        // Serving fails only if the client has disconnected.
                        let _ = serve(stream, &hub, &streams).await;
                    });
                }
                Ok(stream) => refuse(&stream, format!("{MAX_CLIENTS} clients are connected already")),
                Err(error) => {
                    // The process may have run out of file descriptors, so this waits before the next attempt.
                    tracing::warn!("{}: cannot accept a client, trying again: {error}", self.0.path().display());
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        let _ = timeout(PATIENCE, async { while clients.join_next().await.is_some() {} }).await;
    }
}

/// Sends an error to a client that is not served, if the socket's buffer has room for it. Dropping the stream then
/// disconnects the client.
fn refuse(stream: &UnixStream, message: String) {
    let _ = stream.try_write(&line(&Reply::Error { message }));
}

/// Reads and answers the request of one client.
pub(crate) async fn serve(stream: UnixStream, hub: &Hub, streams: &Semaphore) -> io::Result<()> {
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
        Call::TestAlert { severity } => {
            let asking = reader.get_ref().as_ref().peer_cred()?;
            let alert = TestAlert { severity, user: asking.uid(), pid: asking.pid() };
            let answer = match hub.give_order(Order::TestAlert(alert)) {
                true => Reply::TestAlert,
                false => Reply::NotReady,
            };
            reply(&mut writer, answer).await
        }
        Call::Drift(query) => serve_ledger(query, &mut writer, hub).await,
        Call::Status => reply(&mut writer, Reply::Status(Box::new(hub.status()))).await,
        Call::Tail => {
            let Ok(_permit) = streams.try_acquire() else {
                let message = format!("{MAX_STREAMS} clients already watch the stream");
                return reply(&mut writer, Reply::Error { message }).await;
            };
            // Subscribing before replying makes sure that the stream has everything that happens after the client reads
            // the reply.
            let Some(lines) = hub.subscribe() else {
                return reply(&mut writer, Reply::Error { message: "the daemon is stopping".to_owned() }).await;
            };
            reply(&mut writer, Reply::Tail).await?;
            tokio::select! {
                result = stream_lines(lines, &mut writer, hub) => result,
                () = wait_for_hangup(&mut reader) => Ok(()),
            }
        }
    }
}

/// Reads a request. Fails with the message for the client.
async fn read_request(reader: &mut BufReader<OwnedReadHalf>) -> Result<Call, String> {
    let mut text = Vec::new();
    // Reading one byte more than the maximum tells a line that is too long from one of exactly the maximum length.
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

/// Sends published lines until the stream ends or the client disconnects.
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

/// Sends what the ledger says. A client that does not read it is not waited for: what it has not read stays on the disk
/// until then.
async fn serve_ledger(query: Query, writer: &mut OwnedWriteHalf, hub: &Hub) -> io::Result<()> {
    let ledger = match hub.ledger() {
        Ok(ledger) => ledger.clone(),
        Err(reason) => return reply(writer, Reply::NoLedger { reason: reason.to_owned() }).await,
    };
    let Ok(_place) = READERS.try_acquire() else {
        let message = format!("{MAX_READERS} clients already read the ledger");
        return reply(writer, Reply::Error { message }).await;
    };
    let (sender, mut rows) = mpsc::channel(ROWS);
    let reading = spawn_blocking(move || ledger.read(&query, &mut |row| sender.blocking_send(line(&row)).is_ok()));
    // The first row comes when the ledger can be read.
    let Some(mut row) = rows.recv().await else {
        let reason = joined(reading.await).err().unwrap_or_default();
        return reply(writer, Reply::NoLedger { reason }).await;
    };
    reply(writer, Reply::Drift { degraded: hub.status().degraded }).await?;
    loop {
        let sent = timeout(PATIENCE, writer.write_all(&row)).await;
        sent.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        match rows.recv().await {
            Some(next) => row = next,
            None => return Ok(()),
        }
    }
}

/// Waits until the client disconnects, and ignores whatever it sends.
async fn wait_for_hangup(reader: &mut BufReader<OwnedReadHalf>) {
    let mut ignored = [0; 64];
    while reader.read(&mut ignored).await.is_ok_and(|read| read > 0) {}
}

async fn reply(writer: &mut OwnedWriteHalf, reply: Reply) -> io::Result<()> {
    writer.write_all(&line(&reply)).await
}

fn line(reply: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec(reply).expect("a reply has only text keys and writing to memory does not fail");
    text.push(b'\n');
    text
}
