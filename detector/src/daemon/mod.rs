//! The daemon: sends findings to the output and to live clients until a signal stops it.

mod background;
mod compression;
mod disk;
mod forwarded;
mod forwarding;
pub mod hub;
mod metrics;
pub mod output;
mod reload;
pub mod rotation;
pub mod server;
mod socket;
pub(crate) mod state;
mod upkeep;
pub(crate) mod watch;
mod watchdog;
pub mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustix::process::Signal;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::config::Address;
use crate::config::followed::Followed;
use crate::finding::{Loss, NoticeEvent};
use crate::forward::Forwarder;
use crate::ledger::{Ledger, Report};
use crate::pipeline::Order;
use hub::Hub;
use output::{Output, Target};
use rotation::Rotation;
use server::Server;
pub use socket::BindError;
use watch::Watch;
use writer::{Intervals, Orders};

/// How long the daemon, when it stops, waits for an output that accepts no data.
const PATIENCE: Duration = Duration::from_secs(5);

/// The configuration of a daemon.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where findings are written.
    pub output: Target,
    /// What is done besides writing.
    pub intervals: Intervals,
    /// When the output is rotated.
    pub rotation: Rotation,
    /// The forwarders.
    pub forwarders: Vec<Forwarder>,
    /// The path of the socket for clients.
    pub socket: PathBuf,
    /// The directory with what must outlive the daemon.
    pub state: PathBuf,
    /// How long the ledger keeps containers that have ended.
    pub ledger_keep: Duration,
    /// Where metrics are served, if they are.
    pub metrics: Option<Address>,
    /// The options of the watch.
    pub watch: watch::Options,
}

/// Why a daemon failed to start, or ended without a signal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The output cannot be opened.
    #[error(
        "{target}: cannot write findings: {cause}; choose another output with --json PATH, or `-` for standard \
        output"
    )]
    Output {
        /// The output.
        target: Target,
        /// The error of the operating system.
        cause: io::Error,
    },
    /// The output cannot be rotated.
    #[error(
        "{0}: only a regular file can be rotated; name one with --json PATH, or leave out --rotate-size and \
        --rotate-every (rotate_size and rotate_every in the configuration file)"
    )]
    Rotation(Target),
    /// There is no log to forward.
    #[error(
        "{0}: forwarders read the log, which must be a regular file for that; name one with --json PATH, or remove the \
        [[forward]] entries from the configuration file"
    )]
    Forwarding(Target),
    /// The state of forwarders cannot be kept.
    #[error("forwarders cannot keep how far they have come: {0}")]
    State(String),
    /// The daemon cannot listen on its socket.
    #[error(transparent)]
    Socket(#[from] BindError),
    /// The daemon cannot serve metrics.
    #[error(transparent)]
    Metrics(#[from] metrics::BindError),
    /// The watch cannot be started.
    #[error(transparent)]
    Watch(#[from] watch::Error),
    /// The output failed.
    #[error(transparent)]
    Writer(#[from] writer::Error),
    /// The thread that reads the probes' events ended, which is a bug.
    #[error(
        "the thread that reads events ended unexpectedly; this is a bug: report it with the log above, and restart \
        the daemon"
    )]
    Reader,
    /// The output accepts no data.
    #[error(
        "{0}: the output accepted no data for {PATIENCE:?}, so findings were not written, or not put on the disk; \
        check whether its reader or its disk hangs"
    )]
    Stuck(Target),
    /// The operating system refused a basic operation.
    #[error("{what}: {cause}; check the limits of this process (ulimit -a) and the free memory of this host")]
    System {
        /// The operation that failed.
        what: &'static str,
        /// The error of the operating system.
        cause: io::Error,
    },
}

/// Runs the daemon until SIGINT or SIGTERM. During the start, these take effect after it; while the daemon stops, a
/// second signal ends the process immediately. SIGHUP and SIGUSR1 make the daemon open its output file again, and
/// SIGHUP also makes it read its configuration file again.
///
/// The daemon goes by the exceptions in `file` as it is at any time, and publishes `loaded` when it is ready, which
/// says what the configuration was made of.
///
/// # Errors
///
/// See [`Error`].
pub fn run(config: Config, file: Followed, loaded: Option<NoticeEvent>) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|cause| Error::System { what: "starting the async runtime", cause })?;
    let result = runtime.block_on(run_async(config, file, loaded));
    // A writer that is blocked in write(2) must not keep the process running.
    runtime.shutdown_background();
    result
}

async fn run_async(config: Config, file: Followed, loaded: Option<NoticeEvent>) -> Result<(), Error> {
    let mut signals = Signals::new()?;
    let mut reopening = Reopening::new()?;
    let target = config.output.clone();
    let failed = |cause| Error::Output { target: target.clone(), cause };
    let output = Output::open(config.output).map_err(failed)?;
    if config.rotation.is_on() && !output.can_rotate() {
        return Err(Error::Rotation(target));
    }
    let mut output = output.rotating(config.rotation).map_err(failed)?;
    let forwarded = match target.file() {
        _ if config.forwarders.is_empty() => None,
        Some(log) if output.can_rotate() => Some((log, prepare_forwarders(&config.state)?)),
        _ => return Err(Error::Forwarding(target)),
    };
    let server = Server::bind(&config.socket)?;
    let after_crash = server.has_replaced();
    let metrics = match config.metrics {
        Some(address) => Some(metrics::Server::bind(&address).await?),
        None => None,
    };
    let (hub, lines) = Hub::with_output(config.watch.node.clone());
    let hub = Arc::new(hub.writing_to(target.file()).forwarding(&config.forwarders));
    if let Some(notice) = output.take_notice() {
        // Nothing else is published yet, so this is the first line.
        hub.publish_event(notice);
    }
    keep_ledger(&hub, config.state, config.ledger_keep);

    let (stop_server, server_stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(server.run(Arc::clone(&hub), server_stopped));
    if let Some(metrics) = metrics {
        tokio::spawn(metrics.run(Arc::clone(&hub)));
    }
    let orders = Arc::new(Orders::default());
    let reread = Arc::new(Notify::new());
    let mut writer = {
        let (hub, orders) = (Arc::clone(&hub), Arc::clone(&orders));
        spawn_blocking(move || writer::run(output, lines, &hub, &orders, config.intervals))
    };
    {
        let (hub, orders, reread) = (Arc::clone(&hub), Arc::clone(&orders), Arc::clone(&reread));
        tokio::spawn(async move {
            loop {
                if reopening.ordered().await == Reopen::OutputAndConfig {
                    reread.notify_one();
                }
                orders.reopen.store(true, Relaxed);
                hub.wake_output();
            }
        });
    }

    let forwarding =
        forwarded.map(|(log, folder)| forwarding::Process::start(config.forwarders, log, folder, Arc::clone(&hub)));
    let forwarding =
        forwarding.transpose().map_err(|cause| Error::System { what: "starting a thread for forwarders", cause })?;

    let (ended, mut watch_ended) = oneshot::channel();
    let watch = {
        let hub = Arc::clone(&hub);
        let tell_end = move || {
            // The receiver is gone if the daemon is stopping already.
            let _ = ended.send(());
        };
        spawn_blocking(move || Watch::start(config.watch, &hub, tell_end))
    };
    let watch = joined(watch.await)?;
    tracing::info!("listening for clients on {}", config.socket.display());
    hub.publish_event(NoticeEvent::Started { version: env!("CARGO_PKG_VERSION").into(), after_crash });
    if let Some(notice) = loaded {
        hub.give_order(Order::Notice(notice));
    }
    tokio::spawn(reload::follow(file, Arc::clone(&hub), reread));
    hub.publish_degradation();
    notify(&[NotifyState::Ready]);
    tokio::spawn(watchdog::run(Arc::clone(&hub)));

    let (reason, end) = tokio::select! {
        signal = signals.next() => {
            signals.kill_at_next();
            (signal.to_owned(), End::Asked)
        }
        failed = &mut writer => ("the output failed".to_owned(), End::Writer(joined(failed))),
        _ = &mut watch_ended => ("the thread that reads events ended unexpectedly".to_owned(), End::Reader),
    };
    tracing::info!("stopping: {reason}");
    notify(&[NotifyState::Stopping]);
    hub.set_stopping();
    joined(spawn_blocking(|| watch.stop()).await);
    hub.publish_event(NoticeEvent::Stopped { reason });
    if let Ok(ledger) = hub.ledger().cloned() {
        joined(spawn_blocking(move || ledger.close()).await);
    }
    hub.close();
    orders.stop.store(true, Relaxed);
    drop(stop_server);
    joined(server.await);
    if let End::Writer(written) = end {
        return Ok(written?);
    }
    match timeout(PATIENCE, writer).await {
        Ok(written) => joined(written)?,
        Err(_) => return Err(Error::Stuck(target)),
    }
    if let Some(forwarding) = forwarding {
        joined(spawn_blocking(|| forwarding.stop()).await);
    }
    if let End::Reader = end { Err(Error::Reader) } else { Ok(()) }
}

/// Makes the folder of the forwarders' files in this directory, if it is not there.
fn prepare_forwarders(directory: &Path) -> Result<PathBuf, Error> {
    state::prepare(directory).map_err(|error| Error::State(error.to_string()))?;
    let folder = directory.join("forward");
    state::prepare(&folder).map_err(|error| Error::State(error.to_string()))?;
    Ok(folder)
}

/// Starts the ledger in this directory. If that cannot be used, the daemon watches all the same.
fn keep_ledger(hub: &Arc<Hub>, directory: PathBuf, keep: Duration) {
    // The hub has the ledger.
    let weak = Arc::downgrade(hub);
    let report = move |report| match (weak.upgrade(), report) {
        (Some(hub), Report::Failure(failure)) => hub.set_ledger_failure(failure),
        (Some(hub), Report::Lost(count)) => hub.publish_event(NoticeEvent::loss(Loss::Ledger, count)),
        (None, _) => {}
    };
    let prepared = state::prepare(&directory).map_err(|error| error.to_string());
    let ledger = prepared.and_then(|()| {
        Ledger::start(directory, keep, report).map_err(|error| {
            format!("cannot start the thread of the ledger: {error}; check the limits of this process (ulimit -a)")
        })
    });
    hub.set_ledger(ledger);
}

/// Why the daemon stops.
enum End {
    /// A signal asked it to.
    Asked,
    /// The writer ended, with this result.
    Writer(Result<(), writer::Error>),
    /// The thread that reads events ended.
    Reader,
}

/// Notifies the service manager, if there is one.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("cannot notify the service manager, which may consider this daemon as not started: {error}");
    }
}

/// Returns the value of a finished task, or resumes its panic.
fn joined<T>(result: Result<T, tokio::task::JoinError>) -> T {
    result.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

fn listen(kind: SignalKind) -> Result<tokio::signal::unix::Signal, Error> {
    signal(kind).map_err(|cause| Error::System { what: "installing the signal handlers", cause })
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reopen {
    /// To open the output again.
    Output,
    /// To open the output again, and to read the configuration file again.
    OutputAndConfig,
}

/// The signals that make the daemon open its output file again.
struct Reopening {
    hangup: tokio::signal::unix::Signal,
    user1: tokio::signal::unix::Signal,
    /// This one is ignored. Without a handler, it would kill the daemon.
    user2: tokio::signal::unix::Signal,
}

impl Reopening {
    fn new() -> Result<Self, Error> {
        Ok(Self {
            hangup: listen(SignalKind::hangup())?,
            user1: listen(SignalKind::user_defined1())?,
            user2: listen(SignalKind::user_defined2())?,
        })
    }

    /// Waits for such a signal.
    async fn ordered(&mut self) -> Reopen {
        loop {
            tokio::select! {
                _ = self.hangup.recv() => return Reopen::OutputAndConfig,
                _ = self.user1.recv() => return Reopen::Output,
                _ = self.user2.recv() => tracing::info!("SIGUSR2 is ignored"),
            }
        }
    }
}

/// The signals that stop the daemon.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, Error> {
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }

    /// Lets the next signal end the process, as it would without a handler.
    fn kill_at_next(mut self) {
        tokio::spawn(async move {
            let signal = match self.next().await {
                "SIGINT" => Signal::INT,
                _ => Signal::TERM,
            };
            tracing::error!("received {signal:?} while stopping; exiting without writing the remaining findings");
            std::process::exit(128 + signal.as_raw());
        });
    }
}
