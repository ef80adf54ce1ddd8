//! The thread that queries the container runtimes, and the path of findings that wait for its answers.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::engines::{Answer, Engine, Engines};
use super::enrichment::{Enrichment, Input, Work};
use super::id::Id;
use super::join::Key;
use super::metadata::Metadata;
use super::suppression::Totals;
use super::watching::Unwatching;
use crate::finding::{Container, Line, Node, Time};
use crate::ledger;
use crate::policy::WatchRule;
use crate::recording::Journal;
use crate::redact::Redactor;

/// The delay before a runtime is queried again about a container: the first time, and at most. The delay doubles each
/// time. A runtime may know a new container only after a moment.
const RETRY_DELAY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(30));
/// How many times the runtimes must answer that they do not know a container before they are not queried about it
/// again.
const MAX_DENIALS: usize = 8;
/// How long a container's runtime is tried that cannot be queried.
const QUERY_TIMEOUT: Duration = Duration::from_secs(600);

/// How long the metadata of a container is kept without findings about it. It is forgotten after one to two such
/// periods.
const RETENTION: Duration = Duration::from_secs(3600);

/// The options of an enricher.
#[derive(Clone, Debug)]
pub struct Options {
    /// The engines to query.
    pub engines: Arc<Engines>,
    /// How long a finding waits at most for an answer.
    pub wait: Duration,
    /// The node in notices.
    pub node: Node,
    /// Redacts secrets in arguments.
    pub redactor: Redactor,
    /// Whether findings are published that an exception suppresses.
    pub shows_suppressed: bool,
    /// Which containers are watched, in the order in which the rules are tried.
    pub rules: Vec<WatchRule>,
    /// Where the ledger is told what is not published.
    pub ledger: ledger::Inlet,
}

/// Adds the runtimes' metadata to findings before they are published. Dropping it publishes the findings that still
/// wait.
pub struct Enricher {
    shared: Arc<Shared>,
    /// Stops the thread when it is dropped.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    options: Options,
    enrichment: Enrichment,
    journal: Journal,
    tasks: Handle,
}

impl Enricher {
    /// Starts the thread. It passes findings and notices to `publish`, which must not block.
    ///
    /// # Errors
    ///
    /// The error of the operating system.
    pub fn start(options: Options, publish: impl Fn(&Line) + Send + Sync + 'static) -> io::Result<Self> {
        Self::start_recording(options, Journal::default(), publish)
    }

    /// Like [`Self::start`], and records what the runtimes answer. Who calls the [inlet](Self::inlet) must have the
    /// turn.
    ///
    /// # Errors
    ///
    /// The error of the operating system.
    pub(crate) fn start_recording(
        options: Options,
        journal: Journal,
        publish: impl Fn(&Line) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let tasks = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("runtimes".to_owned()).spawn(move || {
            // This returns when the sender is dropped; nothing is ever sent.
            let _ = runtime.block_on(stopped);
        })?;
        let (node, engines) = (options.node.clone(), Arc::clone(&options.engines));
        let enrichment = Enrichment::new(node, engines, options.shows_suppressed, options.rules.clone(), publish)
            .telling(options.ledger.clone());
        let shared = Arc::new(Shared { options, enrichment, journal, tasks });
        shared.learn(Input::Start(shared.enrichment.setup()));
        let weak = Arc::downgrade(&shared);
        shared.tasks.spawn(async move {
            loop {
                sleep(RETENTION).await;
                let Some(shared) = weak.upgrade() else { return };
                shared.learn(Input::Aged);
            }
        });
        Ok(Self { shared, stop: Some(stop), thread: Some(thread) })
    }

    /// How many acts the exceptions of the policy have suppressed.
    pub fn suppressed(&self) -> Arc<Totals> {
        self.shared.enrichment.suppressed()
    }

    /// The rules by which containers are not watched, with the numbers of these.
    pub fn unwatching(&self) -> Arc<Unwatching> {
        self.shared.enrichment.unwatching()
    }

    /// The inlet for findings, which must be dropped before the enricher.
    pub fn inlet(&self) -> Inlet {
        Inlet { shared: Arc::clone(&self.shared) }
    }
}

/// Accepts findings. Its methods never block.
#[derive(Clone)]
pub struct Inlet {
    shared: Arc<Shared>,
}

impl Inlet {
    /// Publishes a notice immediately, and a finding when its container's metadata is known or the wait is over.
    pub fn send(&self, line: Line) {
        self.shared.start_tasks(self.shared.enrichment.take_line(line));
    }

    /// Queries the runtimes about a container that has started, so that its metadata is there before its first finding.
    pub fn container_started(&self, container: &Container) {
        self.shared.start_tasks(self.shared.enrichment.container_started(container));
    }

    /// Decides whether a container is watched that runs since this time.
    pub fn container_runs(&self, container: &Container, time: Time) {
        self.shared.enrichment.container_runs(container, time);
    }

    /// Decides by these rules which containers are watched since this time.
    pub fn set_rules(&self, rules: Vec<WatchRule>, time: Time) {
        self.shared.enrichment.set_rules(rules, time);
    }

    /// Learns that a cgroup was removed, which can be that of a container.
    pub fn cgroup_removed(&self, cgroup_id: u64) {
        self.shared.enrichment.cgroup_removed(cgroup_id);
    }
}

impl Drop for Enricher {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that queries the container runtimes panicked; findings lack their metadata");
        }
        self.shared.learn(Input::Stopped);
    }
}

impl Shared {
    /// Records something, and publishes what follows from it.
    fn learn(&self, input: Input) {
        let mut turn = self.journal.turn();
        turn.record(input.entry());
        self.enrichment.take(input);
    }

    fn start_tasks(self: &Arc<Self>, work: Option<Work>) {
        let Some(Work { todo, key, engines }) = work else { return };
        if todo.timer {
            let (shared, key) = (Arc::clone(self), key.clone());
            self.tasks.spawn(async move {
                sleep(shared.options.wait).await;
                shared.learn(Input::Released(key));
            });
        }
        if todo.query {
            let shared = Arc::clone(self);
            self.tasks.spawn(async move { shared.query_until_known(key, &engines).await });
        }
    }

    /// Queries the engines until one knows the container, or it is clear that none does.
    async fn query_until_known(&self, key: Key, engines: &[Arc<Engine>]) {
        let since = Instant::now();
        let (mut pause, longest) = RETRY_DELAY;
        let mut denials = 0;
        loop {
            match query(&key.id, engines).await {
                Answer::Known(mut metadata) => {
                    metadata.redact(&self.options.redactor);
                    return self.settle(key, Some(metadata));
                }
                Answer::Unreadable => return self.settle(key, None),
                Answer::Unknown => {
                    denials += 1;
                    if denials == MAX_DENIALS {
                        return self.settle(key, None);
                    }
                }
                Answer::Unavailable if since.elapsed() >= QUERY_TIMEOUT => {
                    return self.learn(Input::Forgotten { key, time: Time(jiff::Timestamp::now()) });
                }
                Answer::Unavailable => self.learn(Input::Released(key.clone())),
            }
            sleep(pause).await;
            pause = longest.min(2 * pause);
        }
    }

    fn settle(&self, key: Key, metadata: Option<Box<Metadata>>) {
        self.learn(Input::Settled { key, metadata, time: Time(jiff::Timestamp::now()) });
    }
}

/// Queries the engines one after the other.
async fn query(id: &Id, engines: &[Arc<Engine>]) -> Answer {
    let (mut is_denied, mut is_missing) = (false, false);
    for engine in engines {
        match engine.query(id).await {
            answer @ (Answer::Known(_) | Answer::Unreadable) => return answer,
            Answer::Unknown => is_denied = true,
            Answer::Unavailable => is_missing |= engine.is_in_use(),
        }
    }
    if is_denied && !is_missing { Answer::Unknown } else { Answer::Unavailable }
}
