//! Serves the metrics and the health of the daemon over HTTP: `/metrics`, `/healthz` and `/readyz`. What is served has
//! no findings in it.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use super::hub::Hub;
use super::socket::{self, PrivateSocket};
use crate::config::Address;
use crate::output::openmetrics;
use crate::protocol::DaemonState;

/// How many clients are served at the same time. Further ones wait.
const MAX_CLIENTS: usize = 16;
/// How long a client may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much of a request is kept in memory.
const MAX_REQUEST: usize = 16 << 10;
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// The daemon cannot listen for those who ask for metrics.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address cannot be used.
    #[error("{address}: cannot serve metrics at this address: {cause}; choose another one with --metrics")]
    Ip {
        /// The address.
        address: SocketAddr,
        /// The error of the operating system.
        cause: io::Error,
    },
    /// The unix socket cannot be used.
    #[error(transparent)]
    Unix(#[from] socket::BindError),
}

/// A listening socket.
#[derive(Debug)]
pub(super) enum Server {
    Ip(TcpListener),
    Unix(PrivateSocket),
}

impl Server {
    /// Listens at this address. Must be called within a tokio runtime.
    pub(super) async fn bind(address: &Address) -> Result<Self, BindError> {
        let address = match address {
            Address::Ip(address) => *address,
            Address::Unix(path) => return Ok(Self::Unix(PrivateSocket::bind(path, "--metrics")?)),
        };
        let listener = TcpListener::bind(address).await.map_err(|cause| BindError::Ip { address, cause })?;
        if !address.ip().is_loopback() {
            tracing::warn!("{address}: whoever can reach this address can read the metrics; they have no findings");
        }
        Ok(Self::Ip(listener))
    }

    /// Serves clients for ever.
    pub(super) async fn run(self, hub: Arc<Hub>) {
        let places = Arc::new(Semaphore::new(MAX_CLIENTS));
        loop {
            let place = Arc::clone(&places).acquire_owned().await.expect("it is never closed");
            let hub = Arc::clone(&hub);
            let accepted = match &self {
                Self::Ip(listener) => listener.accept().await.map(|(stream, _)| spawn(stream, hub, place)),
                Self::Unix(listener) => listener.accept().await.map(|stream| spawn(stream, hub, place)),
            };
            match accepted {
                Ok(()) => {}
                Err(error) => {
                    // The process may have run out of file descriptors, so this waits before the next attempt.
                    tracing::warn!("cannot accept a client for metrics, trying again: {error}");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// Serves a client, who has a place as long as this takes.
fn spawn(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, hub: Arc<Hub>, place: OwnedSemaphorePermit) {
    tokio::spawn(async move {
        serve(stream, hub).await;
        drop(place);
    });
}

/// Answers one request. It fails only if the client does not send one, or is gone.
async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, hub: Arc<Hub>) {
    let answer = service_fn(move |request| {
        let answer = answer(&request, &hub);
        async { Ok::<_, Infallible>(answer) }
    });
    let mut server = http1::Builder::new();
    server.keep_alive(false).max_buf_size(MAX_REQUEST).timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    let _ = timeout(PATIENCE, server.serve_connection(TokioIo::new(stream), answer)).await;
}

fn answer(request: &Request<Incoming>, hub: &Hub) -> Response<Full<Bytes>> {
    let plain = |status: StatusCode, text: String| response(status, PLAIN, text + "\n");
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered".to_owned());
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    match request.uri().path() {
        "/metrics" => {
            let text = openmetrics::text(&hub.status(), resident_memory());
            response(StatusCode::OK, HeaderValue::from_static(openmetrics::MEDIA_TYPE), text)
        }
        "/healthz" => plain(StatusCode::OK, "the daemon answers".to_owned()),
        "/readyz" => match hub.status().state {
            DaemonState::Ready => plain(StatusCode::OK, "the daemon watches".to_owned()),
            DaemonState::Starting => plain(StatusCode::SERVICE_UNAVAILABLE, "the daemon is still starting".to_owned()),
            DaemonState::Stopping => plain(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping".to_owned()),
        },
        _ => plain(StatusCode::NOT_FOUND, "ask for /metrics, /healthz or /readyz".to_owned()),
    }
}

fn response(status: StatusCode, media_type: HeaderValue, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    response
}

/// How many bytes of this process are in memory (proc_pid_statm(5)).
fn resident_memory() -> Option<u64> {
    let pages: u64 = fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpStream, UnixStream};

    use super::*;

    /// What is answered to these bytes.
    async fn asked(address: SocketAddr, request: &[u8]) -> String {
        answered(TcpStream::connect(address).await.expect("the server listens"), request).await
    }

    async fn answered(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &[u8]) -> String {
        stream.write_all(request).await.expect("the server reads");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("the server answers");
        String::from_utf8(answer).expect("it is text")
    }

    #[tokio::test]
    async fn clients_are_answered_and_others_do_not_matter() {
        let hub = Arc::new(Hub::new("node-1".into()));
        let server = Server::bind(&Address::Ip(([127, 0, 0, 1], 0).into())).await.expect("there is a free port");
        let Server::Ip(listener) = &server else { panic!("{server:?}") };
        let address = listener.local_addr().expect("it is bound");
        tokio::spawn(server.run(Arc::clone(&hub)));
        // One that never asks takes no other's place.
        let _silent = TcpStream::connect(address).await.expect("the server listens");
        let get = async |path: &str| asked(address, format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await;
        let metrics = get("/metrics").await;
        assert!(metrics.starts_with("HTTP/1.1 200 OK\r\ncontent-type: application/openmetrics-text;"), "{metrics}");
        assert!(
            metrics.contains("\ndetector_ready 0\n") && metrics.contains("detector_resident_memory_bytes "),
            "{metrics}"
        );
        assert!(get("/healthz").await.starts_with("HTTP/1.1 200 "));
        assert!(get("/readyz").await.starts_with("HTTP/1.1 503 "));
        let missing = get("/").await;
        assert!(missing.starts_with("HTTP/1.1 404 ") && missing.ends_with("or /readyz\n"), "{missing}");
        let post = asked(address, b"POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").await;
        assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("allow: GET, HEAD"), "{post}");
        assert!(asked(address, b"\0\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
        let endless = [&b"GET /metrics HTTP/1.1\r\nx: "[..], &vec![b'x'; 2 * MAX_REQUEST]].concat();
        assert!(asked(address, &endless).await.starts_with("HTTP/1.1 431 "));
        let taken = Server::bind(&Address::Ip(address)).await.expect_err("it is taken").to_string();
        assert!(taken.contains("cannot serve metrics") && taken.contains("--metrics"), "{taken}");
    }

    #[tokio::test]
    async fn a_unix_socket_is_for_root_alone() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("made/metrics.sock");
        let address = Address::Unix(path.clone());
        let server = Server::bind(&address).await.expect("it is ours");
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        tokio::spawn(server.run(Arc::new(Hub::new("node-1".into()))));
        let stream = UnixStream::connect(&path).await.expect("the server listens");
        let metrics = answered(stream, b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(metrics.contains("\ndetector_ready 0\n"), "{metrics}");
        let taken = Server::bind(&address).await.expect_err("it is taken").to_string();
        assert!(taken.ends_with("stop it, or choose another path with --metrics"), "{taken}");
    }
}
