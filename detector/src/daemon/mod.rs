//! The daemon: findings to the output and to live clients, until a signal says stop.

pub mod hub;
pub mod server;
pub(crate) mod watch;
pub mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use rustix::process::Signal;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::finding::NoticeEvent;
use hub::Hub;
use server::{BindError, Server};
use watch::Watch;
use writer::{Output, Target};

/// How long an output that takes nothing may hold up the end.
const PATIENCE: Duration = Duration::from_secs(5);

/// All that a daemon is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the lines go.
    pub output: Target,
    /// The socket for clients.
    pub socket: PathBuf,
    /// What is watched, and how.
    pub watch: watch::Options,
}

/// Why a daemon did not start, or ended other than by a signal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The output cannot be opened.
    #[error("{target}: cannot write: {cause}; choose another place with --json PATH, or `-` for standard output")]
    Output {
        /// The output.
        target: Target,
        /// Why.
        cause: io::Error,
    },
    /// The socket cannot be had.
    #[error(transparent)]
    Socket(#[from] BindError),
    /// Nothing is watched.
    #[error(transparent)]
    Watch(#[from] watch::Error),
    /// The output ended.
    #[error(transparent)]
    Writer(#[from] writer::Error),
    /// The thread that reads what the probes say ended, which is a bug.
    #[error("the thread that reads events ended: a bug, of which the log says more; please report it, and start again")]
    Reader,
    /// The output takes nothing.
    #[error("{0}: it took nothing for {PATIENCE:?}, so lines are not written; is its reader stuck?")]
    Stuck(Target),
    /// The system refused something basic.
    #[error("{what}: {cause}; see the limits of this process and the memory of this host")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        cause: io::Error,
    },
}

/// Runs the daemon until SIGINT or SIGTERM. A second signal ends the process at once.
///
/// # Errors
///
/// See [`Error`].
pub fn run(config: Config) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|cause| Error::System { what: "starting the runtime", cause })?;
    let result = runtime.block_on(run_async(config));
    // A writer that is stuck in a write must not keep the process.
    runtime.shutdown_background();
    result
}

async fn run_async(config: Config) -> Result<(), Error> {
    let mut signals = Signals::new()?;
    let target = config.output.clone();
    let output = Output::open(config.output).map_err(|cause| Error::Output { target: target.clone(), cause })?;
    let server = Server::bind(&config.socket)?;
    let (hub, lines) = Hub::with_output(config.watch.node.clone());
    let hub = Arc::new(hub);

    let (stop_server, server_stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(server.run(Arc::clone(&hub), server_stopped));
    let giving_up = Arc::new(AtomicBool::new(false));
    let mut writer = {
        let (hub, giving_up) = (Arc::clone(&hub), Arc::clone(&giving_up));
        spawn_blocking(move || writer::run(output, lines, &hub, &giving_up))
    };

    let (ended, mut watch_ended) = oneshot::channel();
    let watch = {
        let hub = Arc::clone(&hub);
        let tell_end = move || {
            // Nobody waits for it any more when the daemon is ending anyway.
            let _ = ended.send(());
        };
        spawn_blocking(move || Watch::start(config.watch, &hub, tell_end))
    };
    let watch = joined(watch.await)?;
    tracing::info!("clients: {}", config.socket.display());
    hub.publish_event(NoticeEvent::Started { version: env!("CARGO_PKG_VERSION").into() });
    notify(&[NotifyState::Ready]);

    let (reason, end) = tokio::select! {
        signal = signals.next() => {
            signals.kill_at_next();
            (signal.to_owned(), End::Asked)
        }
        failed = &mut writer => ("its output failed".to_owned(), End::Writer(joined(failed))),
        _ = &mut watch_ended => ("it reads no more events".to_owned(), End::Reader),
    };
    tracing::info!("stopping: {reason}");
    notify(&[NotifyState::Stopping]);
    hub.stopping();
    joined(spawn_blocking(|| watch.stop()).await);
    hub.publish_event(NoticeEvent::Stopped { reason });
    hub.close();
    giving_up.store(true, Relaxed);
    drop(stop_server);
    joined(server.await);
    if let End::Writer(written) = end {
        return Ok(written?);
    }
    match timeout(PATIENCE, writer).await {
        Ok(written) => joined(written)?,
        Err(_) => return Err(Error::Stuck(target)),
    }
    if let End::Reader = end { Err(Error::Reader) } else { Ok(()) }
}

/// Why the daemon ends.
enum End {
    /// It was told to.
    Asked,
    /// The writer did.
    Writer(Result<(), writer::Error>),
    /// The thread that reads events did.
    Reader,
}

/// Tells the service manager, if one started this daemon.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("cannot notify the service manager: {error}");
    }
}

/// The value of a finished task, or its panic.
fn joined<T>(result: Result<T, tokio::task::JoinError>) -> T {
    result.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// The signals that ask the daemon to stop.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, Error> {
        let listen = |kind| signal(kind).map_err(|cause| Error::System { what: "listening for signals", cause });
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }

    /// From now on a signal ends the process, as it does without a handler.
    fn kill_at_next(mut self) {
        tokio::spawn(async move {
            let signal = match self.next().await {
                "SIGINT" => Signal::INT,
                _ => Signal::TERM,
            };
            tracing::error!("{signal:?} again: not waiting for a clean end");
            std::process::exit(128 + signal.as_raw());
        });
    }
}
