//! Connections to receivers on other hosts, with TLS or without.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::destination::Address;
use super::receiver::Failure;

/// How long a receiver may take to accept a connection.
const CONNECTING: Duration = Duration::from_secs(10);
/// How long a receiver may take nothing at all.
pub(super) const STUCK: Duration = Duration::from_secs(60);
/// How much of what is sent can wait in this host.
const SENDING: usize = 128 << 10;

/// Where distributions have the certificates of public authorities.
const AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Files in the PEM format. They are read for each connection, because they are replaced while the daemon runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// The certificates of the authorities that a receiver's certificate can be of. Without them, those of the system.
    pub ca: Option<PathBuf>,
    /// The certificate that is shown to a receiver, with those between it and its authority, and its key.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// A connection.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Connects to a receiver. A protocol that both sides agree on in TLS has a name there (ALPN).
pub(super) async fn connect(
    to: &Address,
    tls: Option<&Tls>,
    protocol: Option<&'static str>,
) -> Result<Box<dyn Io>, Failure> {
    let connecting = async {
        let stream = TcpStream::connect((to.host.as_str(), to.port)).await?;
        // What waits in this host is not at the receiver.
        sockopt::set_socket_send_buffer_size(&stream, SENDING).map_err(io::Error::from)?;
        sockopt::set_socket_keepalive(&stream, true).map_err(io::Error::from)?;
        sockopt::set_tcp_user_timeout(&stream, STUCK.as_millis() as u32).map_err(io::Error::from)?;
        stream.set_nodelay(true)?;
        let Some(tls) = tls else { return Ok(Box::new(stream) as Box<dyn Io>) };
        let name = ServerName::try_from(to.host.clone()).map_err(io::Error::other)?;
        let mut config = client(tls)?;
        config.alpn_protocols = protocol.map(Vec::from).into_iter().collect();
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(name, stream).await.map_err(|error| Failure::new(format!("TLS: {error}")))?;
        let agreed = stream.get_ref().1.alpn_protocol();
        if let Some(protocol) = protocol.filter(|protocol| agreed != Some(protocol.as_bytes())) {
            return Err(Failure::new(format!("TLS: it does not agree to speak {protocol}")));
        }
        Ok(Box::new(stream) as Box<dyn Io>)
    };
    timeout(CONNECTING, connecting).await.map_err(|_| Failure::silent(CONNECTING))?
}

/// What this side of a connection knows and shows.
fn client(Tls { ca, own }: &Tls) -> Result<ClientConfig, Failure> {
    let system = || AUTHORITIES.iter().map(Path::new).find(|path| path.exists());
    let Some(authorities) = ca.as_deref().or_else(system) else {
        return Err(Failure::new("this system has no certificates of authorities; name a file with `ca`".to_owned()));
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(authorities)?);
    if roots.is_empty() {
        return Err(wrong(authorities, "it has no certificate of an authority"));
    }
    let config = ClientConfig::builder().with_root_certificates(roots);
    let Some((certificate, key)) = own else { return Ok(config.with_no_client_auth()) };
    let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|_| wrong(key, "it has no private key"))?;
    config
        .with_client_auth_cert(certificates(certificate)?, private)
        .map_err(|error| wrong(certificate, &format!("it cannot be used with its key: {error}")))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    all.ok().filter(|all| !all.is_empty()).ok_or_else(|| wrong(path, "it has no certificates in the PEM format"))
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| wrong(path, &format!("it cannot be read: {error}")))
}

fn wrong(path: &Path, why: &str) -> Failure {
    Failure::new(format!("{}: {why}", path.display()))
}
