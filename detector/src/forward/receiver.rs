//! The receiver of a forwarder, whatever its protocol.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use tokio::time::sleep;

use super::Forwarder;
use super::destination::Destination;
use super::journal::Journal;
use super::syslog::{self, Datagrams, Stream};
use super::webhook::Webhook;

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

/// A receiver.
pub(super) enum Receiver {
    Datagrams(Datagrams),
    Journal(Journal),
    Stream(Stream),
    Webhook(Webhook),
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
            Destination::Web(to) => Self::Webhook(Webhook::to(to, forwarder)),
        }
    }

    /// How many of the bytes that were sent last may not have been received: they are sent again after a failure.
    pub(super) fn window(&self) -> u64 {
        match self {
            Self::Datagrams(datagrams) => datagrams.window(),
            Self::Stream(_) => syslog::WINDOW,
            Self::Journal(_) | Self::Webhook(_) => 0,
        }
    }

    /// Sends lines in their order. If this fails, it is not known which of them were received.
    pub(super) async fn send(&mut self, items: &[Item<'_>]) -> Result<Vec<Refusal>, Failure> {
        match self {
            Self::Datagrams(datagrams) => datagrams.send(items).await,
            Self::Journal(journal) => journal.send(items).await,
            Self::Stream(stream) => stream.send(items).await,
            Self::Webhook(webhook) => webhook.send(items).await,
        }
    }

    /// Waits for about this time, unless what was sent last turns out to be lost.
    pub(super) async fn wait(&mut self, time: Duration) -> Result<(), Failure> {
        match self {
            Self::Datagrams(datagrams) => datagrams.wait(time).await,
            Self::Stream(stream) => stream.wait(time).await,
            Self::Journal(_) | Self::Webhook(_) => {
                sleep(time).await;
                Ok(())
            }
        }
    }

    /// Ends the connection. Returns whether all that was sent was received, as far as can be known.
    pub(super) async fn close(&mut self) -> bool {
        match self {
            Self::Datagrams(_) | Self::Journal(_) | Self::Webhook(_) => true,
            Self::Stream(stream) => stream.close().await,
        }
    }
}
