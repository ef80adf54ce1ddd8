//! Where lines are forwarded to, as a URL.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::journal;

/// A receiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Destination {
    /// Syslog on a datagram socket of this host.
    Unix(PathBuf),
    /// The journal of systemd, at its socket.
    Journal(PathBuf),
    /// Syslog over UDP.
    Udp(Address),
    /// Syslog over TCP.
    Tcp(Address),
    /// Syslog over TLS.
    Tls(Address),
    /// Syslog over RELP.
    Relp(Address),
    /// Syslog over RELP and TLS.
    Relps(Address),
    /// A webhook.
    Web(Web),
    /// A receiver of OpenTelemetry, over HTTP.
    Otlp(Web),
    /// A receiver of OpenTelemetry, over gRPC.
    OtlpGrpc(Web),
}

impl Destination {
    /// Whether what is sent is encrypted, and the receiver proves who it is.
    pub fn is_encrypted(&self) -> bool {
        match self {
            Self::Unix(_) | Self::Journal(_) | Self::Udp(_) | Self::Tcp(_) | Self::Relp(_) => false,
            Self::Tls(_) | Self::Relps(_) => true,
            Self::Web(web) | Self::Otlp(web) | Self::OtlpGrpc(web) => web.is_encrypted,
        }
    }
}

/// Where requests go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Web {
    pub(super) is_encrypted: bool,
    pub(super) address: Address,
    /// With the query.
    pub(super) path: String,
}

impl Web {
    pub(super) const fn scheme(&self) -> &'static str {
        if self.is_encrypted { "https" } else { "http" }
    }

    /// The host as it is in URLs, with the port unless it is the usual one.
    pub(super) fn host(&self) -> String {
        let host = self.address.to_string();
        let usual = format!(":{}", usual_port(self.is_encrypted));
        host.strip_suffix(&usual).map_or_else(|| host.clone(), str::to_owned)
    }
}

/// The port and the path of a receiver of OpenTelemetry, by its protocol.
const OTLP: (u16, &str) = (4318, "/v1/logs");
/// The port and the path of one over gRPC, where nobody can choose another path.
const OTLP_GRPC: (u16, &str) = (4317, "/opentelemetry.proto.collector.logs.v1.LogsService/Export");

const fn usual_port(is_encrypted: bool) -> u16 {
    if is_encrypted { 443 } else { 80 }
}

/// A host with a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A name, or an IP address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Journal(path) => write!(f, "journald://{}", path.display()),
            Self::Udp(address) => write!(f, "udp://{address}"),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Tls(address) => write!(f, "tls://{address}"),
            Self::Relp(address) => write!(f, "relp://{address}"),
            Self::Relps(address) => write!(f, "relps://{address}"),
            Self::Web(web) => write!(f, "{}://{}{}", web.scheme(), web.host(), web.path),
            Self::Otlp(web) => write!(f, "otlp+{}://{}{}", web.scheme(), web.address, web.path),
            Self::OtlpGrpc(web) if web.is_encrypted => write!(f, "otlp+grpcs://{}", web.address),
            Self::OtlpGrpc(web) => write!(f, "otlp+grpc://{}", web.address),
        }
    }
}

impl From<Destination> for String {
    fn from(destination: Destination) -> Self {
        destination.to_string()
    }
}

impl TryFrom<String> for Destination {
    type Error = InvalidUrl;

    fn try_from(text: String) -> Result<Self, InvalidUrl> {
        text.parse()
    }
}

/// Why a text is not the URL of a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    /// Its beginning is not known.
    #[error(
        "use a URL such as https://collector.example/lines, otlp+https://collector.example:4318, \
        otlp+grpcs://collector.example:4317, relps://collector.example:2514, relp://collector.example:2514, \
        tls://collector.example:6514, \
        tcp://collector.example:601, udp://collector.example:514, unix:///dev/log or journald://"
    )]
    Scheme,
    /// The path of a socket is not absolute.
    #[error("this URL has no absolute path of a socket; write three slashes, as in unix:///dev/log")]
    Path,
    /// There is something else than a host and a port.
    #[error(
        "this URL has something else than a host and a port, which are written as in tcp://collector.example:601; only \
        http://, https://, otlp+http:// and otlp+https:// also have a path, and secrets belong into the file of \
        `headers`"
    )]
    Address,
    /// The port is missing or is none.
    #[error("this URL has no port from 1 to 65535; add it, as in tcp://collector.example:601")]
    Port,
}

impl FromStr for Destination {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let (scheme, rest) = text.split_once("://").ok_or(InvalidUrl::Scheme)?;
        let is_path = rest.starts_with('/') && rest.len() > 1 && !rest.contains('\0');
        match scheme {
            "unix" if is_path => Ok(Self::Unix(rest.into())),
            "journald" if is_path => Ok(Self::Journal(rest.into())),
            "journald" if rest.is_empty() => Ok(Self::Journal(journal::SOCKET.into())),
            "unix" | "journald" => Err(InvalidUrl::Path),
            "udp" => rest.parse().map(Self::Udp),
            "tcp" => rest.parse().map(Self::Tcp),
            "tls" => rest.parse().map(Self::Tls),
            "relp" => rest.parse().map(Self::Relp),
            "relps" => rest.parse().map(Self::Relps),
            "http" | "https" => web(scheme == "https", usual_port(scheme == "https"), rest).map(Self::Web),
            "otlp+http" | "otlp+https" => {
                let (port, path) = OTLP;
                let web = web(scheme == "otlp+https", port, rest)?;
                Ok(Self::Otlp(if web.path == "/" { Web { path: path.to_owned(), ..web } } else { web }))
            }
            "otlp+grpc" | "otlp+grpcs" => {
                let (port, path) = OTLP_GRPC;
                let web = web(scheme == "otlp+grpcs", port, rest)?;
                let is_address = web.path == "/";
                is_address.then(|| Self::OtlpGrpc(Web { path: path.to_owned(), ..web })).ok_or(InvalidUrl::Address)
            }
            _ => Err(InvalidUrl::Scheme),
        }
    }
}

/// What a URL of HTTP says from the host on, with the port that is meant if it has none.
fn web(is_encrypted: bool, port: u16, rest: &str) -> Result<Web, InvalidUrl> {
    let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    let address = if has_port { host.parse() } else { format!("{host}:{port}").parse() };
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    if path.contains('#') || path.parse::<hyper::Uri>().is_err() {
        return Err(InvalidUrl::Address);
    }
    Ok(Web { is_encrypted, address: address?, path })
}

impl FromStr for Address {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or(InvalidUrl::Address)?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| InvalidUrl::Address)?;
                (host, port.strip_prefix(':').ok_or(InvalidUrl::Port)?)
            }
            None => text.split_once(':').ok_or(InvalidUrl::Port)?,
        };
        let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:%".contains(&byte);
        if host.is_empty() || !host.bytes().all(is_of_name) || port.bytes().any(|byte| !byte.is_ascii_digit()) {
            return Err(InvalidUrl::Address);
        }
        let port = port.parse().ok().filter(|port| *port > 0).ok_or(InvalidUrl::Port)?;
        Ok(Self { host: host.to_owned(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_written_as_it_was_read() {
        for text in [
            "unix:///dev/log",
            "journald:///run/systemd/journal/socket",
            "udp://127.0.0.1:514",
            "tcp://collector.example:601",
            "tcp://[::1]:65535",
            "tls://collector.example:6514",
            "relp://collector.example:2514",
            "relps://[::1]:20514",
            "http://collector.example/",
            "https://collector.example:8443/a/b?c=d",
            "https://[::1]/",
            "https://[::1]:80/x",
            "otlp+http://collector.example:80/v1/logs",
            "otlp+https://[::1]:443/otlp/v1/logs?a=b",
            "otlp+grpc://collector.example:80",
            "otlp+grpcs://[::1]:443",
        ] {
            assert_eq!(text.parse().map(|url: Destination| url.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn a_receiver_of_opentelemetry_has_a_usual_port_and_path() {
        for (text, expected) in [
            ("otlp+http://collector.example", "otlp+http://collector.example:4318/v1/logs"),
            ("otlp+https://[::1]/", "otlp+https://[::1]:4318/v1/logs"),
            ("otlp+https://collector.example:443/x", "otlp+https://collector.example:443/x"),
            ("otlp+grpc://collector.example", "otlp+grpc://collector.example:4317"),
            ("otlp+grpcs://[::1]/", "otlp+grpcs://[::1]:4317"),
        ] {
            let url: Destination = text.parse().expect("it is one");
            assert_eq!((url.to_string().as_str(), url.is_encrypted()), (expected, text.contains("s://")));
        }
    }

    #[test]
    fn what_is_no_url_of_a_receiver_is_refused_with_the_reason() {
        for (text, expected) in [
            ("", InvalidUrl::Scheme),
            ("collector:601", InvalidUrl::Scheme),
            ("TCP://collector:601", InvalidUrl::Scheme),
            ("gopher://collector:70", InvalidUrl::Scheme),
            ("unix://dev/log", InvalidUrl::Path),
            ("unix:///", InvalidUrl::Path),
            ("journald://run", InvalidUrl::Path),
            ("tcp://collector", InvalidUrl::Port),
            ("tcp://collector:", InvalidUrl::Port),
            ("relp://collector", InvalidUrl::Port),
            ("relps://collector:2514/x", InvalidUrl::Address),
            ("tcp://collector:0", InvalidUrl::Port),
            ("tcp://collector:65536", InvalidUrl::Port),
            ("tcp://[::1]", InvalidUrl::Port),
            ("tcp://:601", InvalidUrl::Address),
            ("tcp://::1:601", InvalidUrl::Address),
            ("tcp://[collector]:601", InvalidUrl::Address),
            ("tcp://collector:601/", InvalidUrl::Address),
            ("tcp://collector:+1", InvalidUrl::Address),
            ("tcp://user@collector:601", InvalidUrl::Address),
            ("tcp://a b:601", InvalidUrl::Address),
            ("https://", InvalidUrl::Address),
            ("https:///x", InvalidUrl::Address),
            ("https://user:password@collector/", InvalidUrl::Address),
            ("https://collector/#x", InvalidUrl::Address),
            ("https://collector/a b", InvalidUrl::Address),
            ("https://collector:0/", InvalidUrl::Port),
            ("otlp://collector", InvalidUrl::Scheme),
            ("otlp+http://user@collector", InvalidUrl::Address),
            ("grpc://collector:4317", InvalidUrl::Scheme),
            ("otlp+grpc://", InvalidUrl::Address),
            ("otlp+grpc://collector/v1/logs", InvalidUrl::Address),
            ("otlp+grpc://collector:4317?a", InvalidUrl::Address),
            ("otlp+grpcs://user@collector", InvalidUrl::Address),
            ("otlp+grpcs://collector:0", InvalidUrl::Port),
        ] {
            assert_eq!(text.parse::<Destination>(), Err(expected), "{text}");
        }
    }
}
