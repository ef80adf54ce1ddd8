//! Forwarders: send the lines of the log to receivers of others, from a process of its own that has no capabilities.
//!
//! They read the log, so what a receiver does or does not do delays only its own forwarder, and what is not sent yet is
//! safe in the log. The daemon starts the process and tells it by its standard input what to do, and the lines that it
//! cannot write to the log; that the input ends tells it that the daemon has ended.

mod backoff;
mod connection;
mod cursor;
mod destination;
pub(crate) mod grpc;
mod journal;
mod otlp;
pub(crate) mod progress;
mod receiver;
mod refused;
pub(crate) mod relp;
pub(crate) mod requests;
mod sandbox;
mod sender;
mod syslog;
mod unlogged;
mod webhook;
mod window;

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::memory;
use crate::output::formats::{self, Unreadable};
pub use connection::Tls;
pub use destination::{Destination, InvalidUrl};
use sender::Sender;

/// The command that runs the forwarders. It is not for people.
pub(crate) const ARGUMENT: &str = "forward-lines";

/// How long forwarders may take to end after the daemon.
pub(crate) const ENDING: Duration = Duration::from_secs(5);
/// How long another process may have the state: one whose daemon has ended.
const WAITING: Duration = Duration::from_secs(30);

/// A forwarder, as it is configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forwarder {
    /// Its name, which is also that of its files.
    pub name: String,
    /// Where lines go.
    pub to: Destination,
    /// What they are sent as.
    pub format: Format,
    /// How they are posted to a webhook.
    pub batch: Batch,
    /// The file with the headers of requests over HTTP and gRPC.
    pub headers: Option<PathBuf>,
    /// Certificates.
    pub tls: Tls,
}

/// How lines are posted to a webhook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Batch {
    /// Many in a request, each with its line feed (NDJSON), compressed.
    #[default]
    Lines,
    /// Many in a request, as a list, compressed.
    Array,
    /// One in a request.
    None,
}

impl Batch {
    /// All ways.
    pub const ALL: [Self; 3] = [Self::Lines, Self::Array, Self::None];

    /// The name of the way.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lines => "lines",
            Self::Array => "array",
            Self::None => "none",
        }
    }

    const fn media_type(self) -> &'static str {
        match self {
            Self::Lines => "application/x-ndjson",
            Self::Array | Self::None => "application/json",
        }
    }
}

/// What lines are sent as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// As they are in the log.
    #[default]
    Native,
    /// The Open Cybersecurity Schema Framework.
    Ocsf,
    /// The Elastic Common Schema.
    Ecs,
    /// The JSON that Falco writes.
    Falco,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 4] = [Self::Native, Self::Ocsf, Self::Ecs, Self::Falco];

    /// The name of the format.
    pub const fn name(self) -> &'static str {
        match self.of_others() {
            Some(format) => format.name(),
            None => "native",
        }
    }

    const fn of_others(self) -> Option<formats::Format> {
        match self {
            Self::Native => None,
            Self::Ocsf => Some(formats::Format::Ocsf),
            Self::Ecs => Some(formats::Format::Ecs),
            Self::Falco => Some(formats::Format::Falco),
        }
    }

    /// A line of the log in this format, without its line feed.
    fn convert(self, line: &[u8]) -> Result<Cow<'_, [u8]>, Unreadable> {
        let Some(format) = self.of_others() else { return Ok(line.into()) };
        Ok(format.convert(line)?.trim_ascii_end().to_owned().into())
    }
}

fn lock_file(folder: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(folder.join("lock"))
}

/// Runs the forwarders that are described on standard input, with the lines of this log and with this folder for their
/// files, until standard input ends.
///
/// # Errors
///
/// This process cannot give up its capabilities, or nobody describes forwarders.
pub(crate) fn run(log: &Path, folder: &Path) -> io::Result<()> {
    sandbox::enter()?;
    memory::share_heap();
    ignore_signals()?;
    let mut input = io::stdin().lock();
    let mut text = String::new();
    input.read_line(&mut text)?;
    let forwarders: Vec<Forwarder> = serde_json::from_str(&text)?;
    let _lock = lock(folder)?;
    let (stop, stopped) = watch::channel(false);
    let (queues, ends): (Vec<_>, Vec<_>) = forwarders.iter().map(|_| unlogged::queue()).unzip();
    let (ended, all_ended) = mpsc::channel::<()>();
    for (forwarder, unlogged) in forwarders.into_iter().zip(ends) {
        let (log, folder, stopped, ended) = (log.to_owned(), folder.to_owned(), stopped.clone(), ended.clone());
        let thread = thread::Builder::new().name(forwarder.name.chars().take(15).collect());
        thread.spawn(move || {
            let forward = || {
                let runtime = Builder::new_current_thread().enable_all().build();
                runtime.map(|runtime| runtime.block_on(Sender::new(forwarder, log, &folder, unlogged, stopped).run()))
            };
            // A forwarder that has failed is not missed by the others: all are started again.
            if !matches!(catch_unwind(AssertUnwindSafe(forward)), Ok(Ok(()))) {
                std::process::exit(1);
            }
            drop(ended);
        })?;
    }
    drop(ended);
    thread::Builder::new().name("memory".to_owned()).spawn(|| {
        loop {
            thread::sleep(memory::INTERVAL);
            memory::release();
        }
    })?;
    // It ends when the daemon does, whatever ends that.
    unlogged::distribute(&mut input, &queues)?;
    stop.send_replace(true);
    let _ = all_ended.recv_timeout(ENDING);
    Ok(())
}

/// Lets signals that are meant for the daemon not end this process, which ends after it.
fn ignore_signals() -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let _entered = runtime.enter();
    let [interrupt, terminate, hangup] = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    for kind in [interrupt, terminate, hangup, SignalKind::user_defined1(), SignalKind::user_defined2()] {
        // The handler stays when nobody listens.
        let _ = signal(kind)?;
    }
    Ok(())
}

/// Waits until no other process has these files.
fn lock(folder: &Path) -> io::Result<File> {
    let file = lock_file(folder)?;
    let step = Duration::from_millis(50);
    for _ in 0..WAITING.as_millis() / step.as_millis() {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => thread::sleep(step),
            result => return result.map(|()| file).map_err(io::Error::from),
        }
    }
    let folder = folder.display();
    Err(io::Error::other(format!(
        "{folder}: the forwarders of another daemon have it; give one another with --state-directory"
    )))
}
