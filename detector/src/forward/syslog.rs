//! Syslog: messages by RFC 5424, in datagrams or over TCP, with TLS or without, and there with their length before
//! them (RFC 6587, octet counting; RFC 5425).
//!
//! No such receiver says what it has taken. So what was sent last can be sent again: see [`WINDOW`].

use std::borrow::Cow;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use jiff::fmt::strtime;
use jiff::tz::TimeZone;
use rustix::io::Errno;
use serde::Deserialize;
use syslog_fmt::v5424::{Config, Formatter, Timestamp};
use syslog_fmt::{Facility, Severity as Level};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UdpSocket, UnixDatagram, lookup_host};
use tokio::time::{sleep, timeout};

use super::connection::{Io, STUCK, Tls, connect};
use super::destination::Address;
use super::receiver::{Failure, Item, Refusal};
use crate::finding::{Severity, Time};

/// How many bytes a receiver can have lost that were sent over a connection which has ended.
pub(super) const WINDOW: u64 = 1 << 20;
/// The same for the datagram socket of this host, whose queue the kernel bounds (`net.core.wmem_default`).
const LOCAL_WINDOW: u64 = 256 << 10;

/// The same for datagrams to another host, of which none is certain to arrive.
const UDP_WINDOW: u64 = 64 << 10;
/// How long the name of a receiver may take to be looked up.
const CONNECTING: Duration = Duration::from_secs(10);
/// How long it may take for all that was sent when the connection is ended.
const CLOSING: Duration = Duration::from_secs(1);
/// How many datagrams are sent to another host in a row, and for how long there are none then: its socket has room for
/// some hundred.
const BURST: usize = 64;
const PAUSE: Duration = Duration::from_millis(5);
/// How long the name of a message is at most (MSGID).
const LONGEST_NAME: usize = 32;

/// What a message tells about a line besides the line.
#[derive(Deserialize)]
struct Facts<'a> {
    time: Time,
    #[serde(borrow)]
    node: Cow<'a, str>,
    severity: Option<Severity>,
    finding: Option<Cow<'a, str>>,
    event: Option<Cow<'a, str>>,
}

/// How much a line matters, by the severity of the finding or the name of the notice in it.
pub(super) fn level(severity: Option<Severity>, event: Option<&str>) -> Level {
    match (severity, event) {
        (Some(Severity::Critical), _) => Level::Crit,
        (Some(Severity::High), _) => Level::Err,
        (Some(Severity::Medium), _) | (None, Some("loss" | "degraded" | "blind_window")) => Level::Warning,
        (Some(Severity::Low), _) => Level::Notice,
        (Some(Severity::Info) | None, _) => Level::Info,
    }
}

/// Makes the message of a line: its text can have another format than the line.
pub(super) fn message(line: &[u8], text: &[u8]) -> Result<Vec<u8>, String> {
    let Facts { time, node, severity, finding, event } =
        serde_json::from_slice(line).map_err(|error| format!("it cannot be read: {error}"))?;
    let is_name = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    let hostname = Some(&*node).filter(is_name).filter(|name| name.len() <= 255);
    let name = finding.as_deref().or(event.as_deref()).filter(is_name);
    let name = name.map(|name| &name[..name.len().min(LONGEST_NAME)]);
    let level = level(severity, event.as_deref());
    // The RFC allows six decimals.
    let time = strtime::format("%Y-%m-%dT%H:%M:%S.%6fZ", &time.0.to_zoned(TimeZone::UTC));
    let time = time.map_err(|error| format!("its time cannot be written: {error}"))?;
    let formatter: Formatter =
        Config { facility: Facility::Authpriv, hostname, app_name: Some("detector"), proc_id: None }.into();
    let mut message = Vec::with_capacity(text.len() + 128);
    formatter
        .write_without_data(&mut message, level, Timestamp::PreformattedStr(&time), text, name)
        .map_err(|error| error.to_string())?;
    Ok(message)
}

/// A receiver that takes a datagram for each message.
pub(super) struct Datagrams {
    to: Target,
    socket: Option<Socket>,
}

/// Where datagrams go.
enum Target {
    Unix(PathBuf),
    Udp(Address),
}

/// A connected socket.
enum Socket {
    Unix(UnixDatagram),
    Udp(UdpSocket),
}

impl Socket {
    async fn connect(to: &Target) -> io::Result<Self> {
        match to {
            Target::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                Ok(Self::Unix(socket))
            }
            Target::Udp(Address { host, port }) => {
                let mut failure = io::Error::other("this name has no address");
                for address in lookup_host((host.as_str(), *port)).await? {
                    let any: IpAddr =
                        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
                    let socket = UdpSocket::bind((any, 0)).await?;
                    match socket.connect(address).await {
                        Ok(()) => return Ok(Self::Udp(socket)),
                        Err(error) => failure = error,
                    }
                }
                Err(failure)
            }
        }
    }

    async fn send(&self, message: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.send(message).await,
            Self::Udp(socket) => socket.send(message).await,
        }
    }

    /// What went wrong with datagrams after they were sent.
    fn take_error(&self) -> io::Result<()> {
        let error = match self {
            Self::Unix(socket) => socket.take_error()?,
            Self::Udp(socket) => socket.take_error()?,
        };
        error.map_or(Ok(()), Err)
    }
}

impl Datagrams {
    pub(super) fn to_unix(path: PathBuf) -> Self {
        Self { to: Target::Unix(path), socket: None }
    }

    pub(super) fn to_udp(address: Address) -> Self {
        Self { to: Target::Udp(address), socket: None }
    }

    pub(super) fn window(&self) -> u64 {
        match self.to {
            Target::Unix(_) => LOCAL_WINDOW,
            Target::Udp(_) => UDP_WINDOW,
        }
    }

    /// Sends the messages of lines. Returns those that are too long for a datagram.
    pub(super) async fn send(&mut self, items: &[Item<'_>]) -> Result<Vec<Refusal>, Failure> {
        let result = self.try_to_send(items).await;
        if result.is_err() {
            self.socket = None;
        }
        result
    }

    async fn try_to_send(&mut self, items: &[Item<'_>]) -> Result<Vec<Refusal>, Failure> {
        let socket = match &self.socket {
            Some(socket) => socket,
            None => {
                let connected = timeout(CONNECTING, Socket::connect(&self.to)).await;
                self.socket.insert(connected.map_err(|_| Failure::silent(CONNECTING))??)
            }
        };
        let mut refused = Vec::new();
        for (nth, item) in items.iter().enumerate() {
            let message = match message(item.line, &item.text) {
                Ok(message) => message,
                Err(why) => {
                    refused.push(Refusal { nth, why });
                    continue;
                }
            };
            match timeout(STUCK, socket.send(&message)).await.map_err(|_| Failure::silent(STUCK))? {
                Err(error) if Errno::from_io_error(&error) == Some(Errno::MSGSIZE) => {
                    let why = format!("its {} bytes are too many for a datagram", message.len());
                    refused.push(Refusal { nth, why });
                }
                sent => drop(sent?),
            }
            if matches!(self.to, Target::Udp(_)) && nth % BURST == BURST - 1 {
                sleep(PAUSE).await;
            }
        }
        Ok(refused)
    }

    /// Waits for this time.
    pub(super) async fn wait(&mut self, time: Duration) -> Result<(), Failure> {
        sleep(time).await;
        let result = self.socket.as_ref().map_or(Ok(()), Socket::take_error);
        if result.is_err() {
            self.socket = None;
        }
        Ok(result?)
    }
}

/// A receiver that takes messages one after another over a connection.
pub(super) struct Stream {
    to: Address,
    tls: Option<Tls>,
    stream: Option<Box<dyn Io>>,
}

impl Stream {
    pub(super) fn to(to: Address, tls: Option<Tls>) -> Self {
        Self { to, tls, stream: None }
    }

    /// Sends the messages of lines.
    pub(super) async fn send(&mut self, items: &[Item<'_>]) -> Result<Vec<Refusal>, Failure> {
        let result = self.try_to_send(items).await;
        if result.is_err() {
            self.stream = None;
        }
        result
    }

    async fn try_to_send(&mut self, items: &[Item<'_>]) -> Result<Vec<Refusal>, Failure> {
        self.wait(Duration::ZERO).await?;
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => self.stream.insert(connect(&self.to, self.tls.as_ref(), None).await?),
        };
        let (mut bytes, mut refused) = (Vec::new(), Vec::new());
        for (nth, item) in items.iter().enumerate() {
            match message(item.line, &item.text) {
                Ok(message) => {
                    bytes.extend_from_slice(format!("{} ", message.len()).as_bytes());
                    bytes.extend_from_slice(&message);
                }
                Err(why) => refused.push(Refusal { nth, why }),
            }
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let written = timeout(STUCK, stream.write(rest)).await.map_err(|_| Failure::silent(STUCK))??;
            if written == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero).into());
            }
            rest = &rest[written..];
        }
        timeout(STUCK, stream.flush()).await.map_err(|_| Failure::silent(STUCK))??;
        Ok(refused)
    }

    /// Waits for this time, or until the connection is ended. What a receiver sends has no meaning.
    pub(super) async fn wait(&mut self, time: Duration) -> Result<(), Failure> {
        let Some(stream) = &mut self.stream else {
            sleep(time).await;
            return Ok(());
        };
        let ended = match timeout(time, stream.read(&mut [0; 512])).await {
            Err(_) => return Ok(()),
            Ok(Ok(0)) => io::Error::other("the receiver has ended the connection"),
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => error,
        };
        self.stream = None;
        Err(ended.into())
    }

    /// Ends the connection. Returns whether the receiver has read all that was sent, which it shows by ending its side
    /// in turn.
    pub(super) async fn close(&mut self) -> bool {
        let Some(mut stream) = self.stream.take() else { return false };
        let ending = async {
            stream.shutdown().await?;
            while stream.read(&mut [0; 512]).await? > 0 {}
            Ok::<_, io::Error>(())
        };
        matches!(timeout(CLOSING, ending).await, Ok(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::samples;
    use crate::finding::{Line, Loss, Notice, NoticeEvent};
    use crate::output::json;

    fn text(line: &[u8]) -> String {
        String::from_utf8(message(line, line).expect("it has one")).expect("it is text")
    }

    #[test]
    fn a_message_has_the_facts_of_its_line_and_then_the_line() {
        let line =
            br#"{"time":"2027-01-15T08:00:00.123456789Z","node":"node-1","finding":"session","severity":"high"}"#;
        let expected = "<83>1 2027-01-15T08:00:00.123456Z node-1 detector - session - ";
        assert_eq!(text(line), format!("{expected}{}", str::from_utf8(line).expect("it is text")));
        let bare = br#"{"time":"2027-01-15T08:00:00Z","node":"a node","event":"x y"}"#;
        assert!(text(bare).starts_with("<86>1 2027-01-15T08:00:00.000000Z - detector - - - {"), "{}", text(bare));
        assert!(message(b"{}", b"{}").expect_err("it has no time").contains("cannot be read"));
    }

    #[test]
    fn every_line_has_a_message_with_its_severity() {
        let notice = |event| Line::Notice(Notice::now("node-1".into(), event));
        let mut lines = samples::session(b"\xff\"] sh\n");
        lines.push(notice(NoticeEvent::loss(Loss::Exec, 1)));
        lines.push(notice(NoticeEvent::NewChain));
        let mut levels = Vec::new();
        for line in lines {
            let text = text(json::line(&line).trim_ascii_end());
            assert!(!text.contains('\n') && text.ends_with('}'), "{text}");
            levels.push(text.split_once('>').expect("it has a priority").0.to_owned());
        }
        assert!(["<83", "<84", "<86"].iter().all(|level| levels.iter().any(|found| found == level)), "{levels:?}");
    }
}
