//! The receiver of a forwarder, whatever its protocol.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use tokio::time::sleep;

use super::Forwarder;
use super::destination::Destination;
use super::grpc::Grpc;
use super::journal::Journal;
use super::relp::Relp;
use super::syslog::{self, Datagrams, Stream};
use super::webhook::{Content, Webhook};

/// How many characters of an answer are told.
pub(super) const TOLD: usize = 200;

/// A line to send.
pub(super) struct Item<'a> {
    /// As it is in the log, without its line feed.
    pub(super) line: &'a [u8],
    /// In the format of the forwarder.
    pub(super) text: Cow<'a, [u8]>,
}

/// A line that will never be taken.
#[derive(Debug)]
pub(super) struct Refusal {
    /// Its place among those that were to be sent.
    pub(super) nth: usize,
    /// Why.
    pub(super) why: String,
}

/// What has become of lines.
#[derive(Debug)]
pub(super) struct Outcome {
    /// How many of them need not be sent again, counted from the first one: they were sent, or are refused.
    pub(super) settled: usize,
    /// Those of them that will never be taken.
    pub(super) refused: Vec<Refusal>,
    /// Why the others could not be sent. It is not known which of them were received.
    pub(super) failure: Option<Failure>,
}

impl Outcome {
    /// That of a receiver which takes all of so many lines, or tells nothing about any of them.
    fn of_all(count: usize, result: Result<Vec<Refusal>, Failure>) -> Self {
        match result {
            Ok(refused) => Self { settled: count, refused, failure: None },
            Err(failure) => Self { settled: 0, refused: Vec::new(), failure: Some(failure) },
        }
    }
}

/// Why lines could not be sent now.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) why: String,
    /// How long the receiver wants to be left alone.
    pub(super) pause: Option<Duration>,
}

impl Failure {
    pub(super) fn new(why: String) -> Self {
        Self { why, pause: None }
    }

    /// The receiver did not do anything for this time.
    pub(super) fn silent(time: Duration) -> Self {
        Self::new(format!("no answer for {} s", time.as_secs()))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(error.to_string())
    }
}

/// The beginning of what a receiver says, as a message can have it.
pub(super) fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.trim().chars().take(TOLD).map(|character| if character.is_control() { ' ' } else { character }).collect()
}

/// A receiver.
pub(super) enum Receiver {
    Datagrams(Datagrams),
    Journal(Journal),
    Stream(Stream),
    Relp(Relp),
    Webhook(Webhook),
    Grpc(Grpc),
}

impl Receiver {
    /// That of a forwarder. It is connected to when there is something to send.
    pub(super) fn of(forwarder: &Forwarder) -> Self {
        match forwarder.to.clone() {
            Destination::Unix(path) => Self::Datagrams(Datagrams::to_unix(path)),
            Destination::Journal(path) => Self::Journal(Journal::at(path)),
            Destination::Udp(address) => Self::Datagrams(Datagrams::to_udp(address)),
            Destination::Tcp(address) => Self::Stream(Stream::to(address, None)),
            Destination::Tls(address) => Self::Stream(Stream::to(address, Some(forwarder.tls.clone()))),
            Destination::Relp(address) => Self::Relp(Relp::to(address, None)),
            Destination::Relps(address) => Self::Relp(Relp::to(address, Some(forwarder.tls.clone()))),
            Destination::Web(to) => Self::Webhook(Webhook::to(to, Content::Lines(forwarder.batch), forwarder)),
            Destination::Otlp(to) => Self::Webhook(Webhook::to(to, Content::Otlp, forwarder)),
            Destination::OtlpGrpc(to) => Self::Grpc(Grpc::to(to, forwarder)),
        }
    }

    /// How many of the bytes that were sent last may not have been received: they are sent again after a failure.
    pub(super) fn window(&self) -> u64 {
        match self {
            Self::Datagrams(datagrams) => datagrams.window(),
            Self::Stream(_) => syslog::WINDOW,
            Self::Relp(_) | Self::Journal(_) | Self::Webhook(_) | Self::Grpc(_) => 0,
        }
    }

    /// Sends lines in their order.
    pub(super) async fn send(&mut self, items: &[Item<'_>]) -> Outcome {
        let result = match self {
            Self::Datagrams(datagrams) => datagrams.send(items).await,
            Self::Journal(journal) => journal.send(items).await,
            Self::Stream(stream) => stream.send(items).await,
            Self::Relp(relp) => return relp.send(items).await,
            Self::Webhook(webhook) => return webhook.send(items).await,
            Self::Grpc(grpc) => return grpc.send(items).await,
        };
        Outcome::of_all(items.len(), result)
    }

    /// Waits for about this time, unless what was sent last turns out to be lost.
    pub(super) async fn wait(&mut self, time: Duration) -> Result<(), Failure> {
        match self {
            Self::Datagrams(datagrams) => datagrams.wait(time).await,
            Self::Stream(stream) => stream.wait(time).await,
            Self::Relp(relp) => relp.wait(time).await,
            Self::Journal(_) | Self::Webhook(_) | Self::Grpc(_) => {
                sleep(time).await;
                Ok(())
            }
        }
    }

    /// Ends the connection. Returns whether all that was sent was received, as far as can be known.
    pub(super) async fn close(&mut self) -> bool {
        match self {
            Self::Datagrams(_) | Self::Journal(_) | Self::Webhook(_) | Self::Grpc(_) => true,
            Self::Stream(stream) => stream.close().await,
            Self::Relp(relp) => {
                relp.close().await;
                true
            }
        }
    }
}
