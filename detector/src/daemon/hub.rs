//! Distributes findings and notices. Each one is serialised once, and sent to the output and to every live client
//! without blocking the publisher. A receiver that is too slow loses lines, and gets a notice with their number.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use crossbeam_channel::{Receiver, TrySendError};
use tokio::sync::broadcast;

use super::forwarded::Forwarded;
use crate::chain;
use crate::finding::{Finding, Kind, Line, LoadedPolicy, Loss, Node, Notice, NoticeEvent, Severity, Time};
use crate::forward::Forwarder;
use crate::forward::progress::Progress;
use crate::ledger::{Inlet, Ledger};
use crate::output::json;
use crate::pipeline::{self, Order, Orders};
use crate::protocol::{ConfigFile, Counters, DaemonState, Hook, Loaded, Status};
use crate::queue;
use crate::recent::RecentFindings;
use crate::runtime::{Engines, Totals, Unwatching};

/// How many lines can wait for the output.
pub const OUTPUT_QUEUE: usize = 8192;
/// How many lines can wait for the slowest live client.
pub const CLIENT_QUEUE: usize = 1024;
/// How many findings are remembered at most, so that their updates do not count as others.
const MOST_FINDINGS: usize = 4096;

/// Distributes the lines, and keeps the status of the daemon.
#[derive(Debug)]
pub struct Hub {
    node: Node,
    /// The configuration file, as the notices say.
    config: Mutex<Option<ConfigFile>>,
    /// The file that lines are written to.
    file: Option<PathBuf>,
    /// The ledger, which is told the lines, or why there is none.
    ledger: OnceLock<Result<Ledger, String>>,
    routes: Mutex<Option<Routes>>,
    phase: Mutex<Phase>,
    /// Where the pipeline takes orders, once it runs.
    orders: Mutex<Option<Orders>>,
    found: Mutex<Found>,
    losses: Mutex<BTreeMap<&'static str, u64>>,
    /// The number of calls for which the kernel did not run a probe.
    skipped: AtomicU64,
    /// The number of lines lost since the last [`Hub::take_output_loss`] because the output queue was full.
    output_loss: AtomicU64,
    /// Why executed files are not inspected at the moment.
    inspection_failure: Mutex<Option<String>>,
    /// Why nothing is recorded at the moment.
    recording_failure: Mutex<Option<String>>,
    /// Why the ledger is not kept at the moment.
    ledger_failure: Mutex<Option<String>>,
    /// Why the output does not work as it should at the moment.
    output_failures: Mutex<Vec<String>>,
    /// What is known about the forwarders.
    forwarded: Mutex<Forwarded>,
    /// Lines for the forwarders that the log does not take, if there are forwarders.
    unlogged: Option<(queue::Sender<Bytes>, Receiver<Bytes>)>,
    /// The number of the last line that was written.
    written: AtomicU64,
    /// How many lines the output has not taken and will be tried again.
    kept: AtomicU64,
    /// How many lines were put into the queue of the output, and how many of these it has taken, or lost.
    given: AtomicU64,
    settled: AtomicU64,
    /// The reasons in the last notice about what is not detected or recorded.
    published: Mutex<Vec<String>>,
}

/// Who gets a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receivers {
    /// The output and the clients.
    All,
    /// The clients only.
    Clients,
}

/// Counts the findings.
#[derive(Debug)]
struct Found {
    /// By the severities that they have now.
    counts: BTreeMap<Severity, u64>,
    /// By their kinds and all severities that they have had.
    reached: BTreeMap<Kind, BTreeMap<Severity, u64>>,
    /// Those that are expected, by reason.
    expected: BTreeMap<String, u64>,
    /// The latest findings.
    known: RecentFindings<Known>,
}

/// How a finding was published last.
#[derive(Clone, Copy, Debug)]
struct Known {
    severity: Severity,
    is_expected: bool,
}

impl Default for Found {
    fn default() -> Self {
        Self {
            counts: BTreeMap::new(),
            reached: BTreeMap::new(),
            expected: BTreeMap::new(),
            known: RecentFindings::new(MOST_FINDINGS),
        }
    }
}

impl Found {
    /// Counts a finding. An update moves it to its new severity.
    fn add(&mut self, finding: &Finding) {
        let Finding { id, finding: kind, severity, expected, .. } = finding;
        let before = self.known.get(id).copied();
        if let Some(Known { severity, .. }) = before {
            *self.counts.entry(severity).or_default() -= 1;
        }
        *self.counts.entry(*severity).or_default() += 1;
        if before.is_none_or(|before| before.severity != *severity) {
            *self.reached.entry(*kind).or_default().entry(*severity).or_default() += 1;
        }
        if let Some(expected) = expected
            && !before.is_some_and(|before| before.is_expected)
        {
            *self.expected.entry(expected.reason.name().to_owned()).or_default() += 1;
        }
        self.known.insert(id, Known { severity: *severity, is_expected: expected.is_some() });
    }
}

#[derive(Debug)]
struct Routes {
    clients: broadcast::Sender<Bytes>,
    output: Option<queue::Sender<Bytes>>,
}

#[derive(Debug)]
struct Phase {
    state: DaemonState,
    since: Time,
    /// What the sensor does not detect.
    undetected: Vec<String>,
    hooks: Vec<Hook>,
    pipeline: Option<Arc<pipeline::Counters>>,
    engines: Arc<Engines>,
    suppressed: Arc<Totals>,
    unwatching: Arc<Unwatching>,
}

impl Hub {
    /// Makes a hub that serves live clients only.
    pub fn new(node: Node) -> Self {
        Self::with_routes(node, None)
    }

    /// Makes a hub that also feeds an output through the receiver, which holds at most [`OUTPUT_QUEUE`] lines.
    pub fn with_output(node: Node) -> (Self, Receiver<Bytes>) {
        let (sender, receiver) = queue::bounded(OUTPUT_QUEUE);
        (Self::with_routes(node, Some(sender)), receiver)
    }

    /// The hub of a daemon that writes its lines to this file.
    pub fn writing_to(self, file: Option<PathBuf>) -> Self {
        Self { file, ..self }
    }

    /// Sets the ledger, or says why there is none.
    pub(super) fn set_ledger(&self, ledger: Result<Ledger, String>) {
        let failure = ledger.as_ref().err().cloned();
        // A ledger that has failed meanwhile has said so.
        if self.ledger.set(ledger).is_ok() && failure.is_some() {
            self.set_ledger_failure(failure);
        }
    }

    /// The ledger, or why there is none.
    pub(super) fn ledger(&self) -> Result<&Ledger, &str> {
        self.ledger
            .get()
            .map_or(Err("it watches for one client only"), |ledger| ledger.as_ref().map_err(String::as_str))
    }

    /// Where the ledger is told what happens, if there is one.
    pub(super) fn ledger_inlet(&self) -> Inlet {
        self.ledger().map(Ledger::inlet).unwrap_or_default()
    }

    /// The hub of a daemon with these forwarders.
    pub(super) fn forwarding(self, forwarders: &[Forwarder]) -> Self {
        let unlogged = (!forwarders.is_empty()).then(|| queue::bounded(OUTPUT_QUEUE));
        Self { forwarded: Mutex::new(Forwarded::new(forwarders)), unlogged, ..self }
    }

    fn with_routes(node: Node, output: Option<queue::Sender<Bytes>>) -> Self {
        Self {
            node,
            config: Mutex::default(),
            file: None,
            ledger: OnceLock::new(),
            routes: Mutex::new(Some(Routes { clients: broadcast::channel(CLIENT_QUEUE).0, output })),
            phase: Mutex::new(Phase {
                state: DaemonState::Starting,
                since: now(),
                undetected: Vec::new(),
                hooks: Vec::new(),
                pipeline: None,
                engines: Arc::default(),
                suppressed: Arc::default(),
                unwatching: Arc::default(),
            }),
            orders: Mutex::default(),
            found: Mutex::default(),
            losses: Mutex::default(),
            skipped: AtomicU64::new(0),
            output_loss: AtomicU64::new(0),
            inspection_failure: Mutex::default(),
            recording_failure: Mutex::default(),
            ledger_failure: Mutex::default(),
            output_failures: Mutex::default(),
            forwarded: Mutex::default(),
            unlogged: None,
            written: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            given: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            published: Mutex::default(),
        }
    }

    /// Publishes a finding or a notice.
    pub fn publish(&self, line: &Line) {
        match line {
            Line::Finding(finding) => lock(&self.found).add(finding),
            Line::Notice(Notice { event: NoticeEvent::Loss { kind, count, .. }, .. }) => {
                self.count_loss(*kind, *count);
            }
            Line::Notice(Notice { event: NoticeEvent::BlindWindow { skipped, .. }, .. }) => {
                self.skipped.fetch_add(skipped.values().sum(), Relaxed);
            }
            Line::Notice(notice) => self.note_config(notice),
        }
        let serialised = json::line(line);
        if let Ok(ledger) = self.ledger() {
            ledger.tell(line, &serialised);
        }
        self.send(serialised, Receivers::All);
    }

    /// Keeps what is said about the configuration file.
    fn note_config(&self, Notice { time, event, .. }: &Notice) {
        let mut config = lock(&self.config);
        match event {
            NoticeEvent::PolicyLoaded(policy) => {
                let LoadedPolicy { sha256, exceptions, .. } = **policy;
                *config = Some(ConfigFile {
                    path: policy.file.clone(),
                    loaded: Some(Loaded { time: *time, sha256, exceptions }),
                    needs_restart: policy.needs_restart.clone(),
                    refused: None,
                });
            }
            NoticeEvent::PolicyRefused { file, reason } => {
                let none = || ConfigFile { path: file.clone(), loaded: None, needs_restart: Vec::new(), refused: None };
                config.get_or_insert_with(none).refused = Some(reason.clone());
            }
            _ => {}
        }
    }

    fn send(&self, line: Bytes, receivers: Receivers) {
        let routes = lock(&self.routes);
        let Some(routes) = routes.as_ref() else { return };
        if receivers == Receivers::All
            && let Some(output) = &routes.output
        {
            match output.try_send(line.clone()) {
                Ok(()) => _ = self.given.fetch_add(1, Relaxed),
                Err(TrySendError::Full(_)) => self.lose_output(),
                Err(TrySendError::Disconnected(_)) => {}
            }
        }
        // Sending fails only if no client is connected.
        let _ = routes.clients.send(line);
    }

    /// How many lines wait, by what they wait for: the output, the live client that is the slowest, or the ledger.
    fn queues(&self) -> BTreeMap<String, u64> {
        let mut queues = BTreeMap::new();
        let mut add = |name: &str, length: usize| _ = queues.insert(name.to_owned(), length as u64);
        if let Some(Routes { clients, output }) = lock(&self.routes).as_ref() {
            add("clients", clients.len());
            let kept = usize::try_from(self.kept.load(Relaxed)).unwrap_or(usize::MAX);
            output.iter().for_each(|output| add("output", output.len().saturating_add(kept)));
        }
        self.ledger().iter().for_each(|ledger| add("ledger", ledger.waiting()));
        queues
    }

    /// Wakes the thread that writes the output, with an empty line.
    pub(super) fn wake_output(&self) {
        if let Some(Routes { output: Some(output), .. }) = lock(&self.routes).as_ref() {
            // If the queue is full, the thread is awake.
            let _ = output.try_send(Bytes::new());
        }
    }

    /// Counts a line that the output will not get.
    pub(super) fn lose_output(&self) {
        self.output_loss.fetch_add(1, Relaxed);
    }

    /// Counts a line that the output has taken, or lost.
    pub(super) fn settle_output(&self) {
        self.settled.fetch_add(1, Relaxed);
    }

    /// Records how many lines the output has not taken and will be tried again.
    pub(super) fn set_kept(&self, lines: usize) {
        self.kept.store(lines as u64, Relaxed);
    }

    /// Whether there are forwarders.
    pub(super) fn forwards(&self) -> bool {
        self.unlogged.is_some()
    }

    /// Lets forwarders send a line that the log does not take. If too many wait already, it is sent once it is in the
    /// log.
    pub(super) fn forward_unlogged(&self, object: &[u8]) {
        if let Some((unlogged, _)) = &self.unlogged {
            let _ = unlogged.try_send(chain::not_durable(object));
        }
    }

    /// Where those lines come from.
    pub(super) fn unlogged(&self) -> Receiver<Bytes> {
        self.unlogged.as_ref().map_or_else(crossbeam_channel::never, |(_, unlogged)| unlogged.clone())
    }

    /// Publishes a notice about the daemon itself.
    pub fn publish_event(&self, event: NoticeEvent) {
        self.publish(&Line::Notice(self.notice(event)));
    }

    /// Subscribes to the lines published from now on. Returns `None` if the daemon is stopping.
    pub fn subscribe(&self) -> Option<broadcast::Receiver<Bytes>> {
        lock(&self.routes).as_ref().map(|routes| routes.clients.subscribe())
    }

    /// Counts a loss of `count` lines by one reader, and returns the notice to send to that reader only.
    /// [`Hub::status`] includes the loss.
    pub fn loss_line(&self, kind: Loss, count: u64) -> Bytes {
        self.count_loss(kind, count);
        json::line(&Line::Notice(self.notice(NoticeEvent::loss(kind, count))))
    }

    /// Tells clients something about the output. Returns the line for the output, whose queue may be full.
    pub(super) fn tell_of_output(&self, event: NoticeEvent) -> Bytes {
        let line = json::line(&Line::Notice(self.notice(event)));
        self.send(line.clone(), Receivers::Clients);
        line
    }

    /// Whether lines were lost since the last [`Hub::take_output_loss`] because the output queue was full.
    pub(super) fn has_output_loss(&self) -> bool {
        self.output_loss.load(Relaxed) > 0
    }

    /// Returns and resets the number of lines lost because the output queue was full.
    pub fn take_output_loss(&self) -> u64 {
        self.output_loss.swap(0, Relaxed)
    }

    /// Sets the state to stopping. Must be called before the probes are detached.
    pub fn set_stopping(&self) {
        let mut phase = lock(&self.phase);
        phase.state = DaemonState::Stopping;
        phase.since = now();
    }

    /// Sets the state to ready, with the hooks, what the sensor does not detect, the counters of the pipeline, the
    /// container engines in use, how many acts are suppressed, and how many containers are not watched.
    pub fn set_ready(
        &self,
        hooks: Vec<Hook>,
        undetected: Vec<String>,
        pipeline: Arc<pipeline::Counters>,
        engines: Arc<Engines>,
        suppressed: Arc<Totals>,
        unwatching: Arc<Unwatching>,
    ) {
        let (state, since, pipeline) = (DaemonState::Ready, now(), Some(pipeline));
        *lock(&self.phase) = Phase { state, since, undetected, hooks, pipeline, engines, suppressed, unwatching };
    }

    /// How many acts the exceptions have suppressed, by their names.
    pub(super) fn suppressed(&self) -> BTreeMap<String, u64> {
        lock(&self.phase).suppressed.get()
    }

    /// Sets where the pipeline takes orders.
    pub(super) fn set_orders(&self, orders: Orders) {
        *lock(&self.orders) = Some(orders);
    }

    /// Tells the pipeline to do something. Returns `false` if it has not started.
    pub(super) fn give_order(&self, order: Order) -> bool {
        lock(&self.orders).as_ref().map(|orders| orders.give(order)).is_some()
    }

    /// How often the pipeline has begun to look for records. `None` if it has not started.
    pub(super) fn turns(&self) -> Option<u64> {
        lock(&self.phase).pipeline.as_ref().map(|pipeline| pipeline.turns.load(Relaxed))
    }

    /// Records the result of another self-test.
    pub(super) fn set_tested(&self, hooks: Vec<Hook>, undetected: Vec<String>) {
        let mut phase = lock(&self.phase);
        (phase.hooks, phase.undetected) = (hooks, undetected);
        drop(phase);
        self.publish_degradation();
    }

    /// Records why executed files are not inspected, or that they are again.
    pub(super) fn set_inspection_failure(&self, failure: Option<String>) {
        *lock(&self.inspection_failure) = failure;
        self.publish_degradation();
    }

    /// Records why the recording cannot be written, or that it can be again.
    pub(super) fn set_recording_failure(&self, failure: Option<String>) {
        *lock(&self.recording_failure) = failure;
        self.publish_degradation();
    }

    /// Records why the ledger is not kept, or that it is again.
    pub(super) fn set_ledger_failure(&self, failure: Option<String>) {
        *lock(&self.ledger_failure) = failure;
        self.publish_degradation();
    }

    /// Takes what a forwarder tells. What it has given up is a loss.
    pub(super) fn set_forwarded(&self, progress: Progress) {
        let given_up = lock(&self.forwarded).take(progress);
        if given_up > 0 {
            self.publish_event(NoticeEvent::loss(Loss::Forward, given_up));
        }
        self.publish_degradation();
    }

    /// Records why there is no process that forwards, or that there is one.
    pub(super) fn forwarding_ended(&self, failure: Option<String>) {
        lock(&self.forwarded).ended(failure);
        self.publish_degradation();
    }

    /// Records how many lines the log has.
    pub(super) fn set_written(&self, seq: u64) {
        self.written.store(seq, Relaxed);
    }

    /// Publishes what is not detected or recorded, if this has changed since it was published last.
    pub fn publish_degradation(&self) {
        self.tell_degradation(Receivers::All);
    }

    /// Records why the output does not work as it should, or that it does again. If this changes what is not recorded,
    /// publishes it to clients, and returns the line for the output, whose queue may be full.
    pub(super) fn set_output_failures(&self, failures: Vec<String>) -> Option<Bytes> {
        *lock(&self.output_failures) = failures;
        self.tell_degradation(Receivers::Clients)
    }

    fn tell_degradation(&self, receivers: Receivers) -> Option<Bytes> {
        // Whoever holds this lock reads the reasons and sends them, so that the last line has the last reasons.
        let mut published = lock(&self.published);
        let reasons = self.degraded();
        if *published == reasons {
            return None;
        }
        published.clone_from(&reasons);
        let line = json::line(&Line::Notice(self.notice(NoticeEvent::Degraded { reasons })));
        self.send(line.clone(), receivers);
        Some(line)
    }

    fn degraded(&self) -> Vec<String> {
        let mut degraded = lock(&self.phase).undetected.clone();
        degraded.extend(lock(&self.inspection_failure).clone());
        degraded.extend(lock(&self.recording_failure).clone());
        degraded.extend(lock(&self.ledger_failure).clone());
        degraded.extend(lock(&self.output_failures).iter().cloned());
        degraded.extend(lock(&self.forwarded).failures(now()));
        degraded
    }

    /// Ends the stream. Readers still receive the lines that are queued for them.
    pub fn close(&self) {
        lock(&self.routes).take();
    }

    /// The status of the daemon.
    pub fn status(&self) -> Status {
        let mut degraded = self.degraded();
        let lost = self.output_loss.load(Relaxed);
        if lost > 0 {
            degraded.push(format!("the output is blocked or too slow: {lost} lines were lost"));
        }
        let (severities, reached, expected) = {
            let found = lock(&self.found);
            (found.counts.clone(), found.reached.clone(), found.expected.clone())
        };
        let phase = lock(&self.phase);
        degraded.extend(phase.pipeline.as_ref().and_then(|pipeline| pipeline.stuck_test()));
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            node: self.node.name.clone(),
            state: phase.state,
            since: phase.since,
            config: lock(&self.config).clone(),
            output: self.file.clone(),
            degraded,
            hooks: phase.hooks.clone(),
            runtimes: phase.engines.status(),
            unwatched: phase.unwatching.get(),
            ledger: self.ledger().ok().and_then(Ledger::standing),
            buffer: phase.pipeline.as_ref().map(|pipeline| pipeline.buffer()),
            queues: self.queues(),
            forwarders: lock(&self.forwarded).status(self.written.load(Relaxed)),
            counters: Counters {
                events: phase.pipeline.as_ref().map_or(0, |pipeline| pipeline.events.load(Relaxed)),
                counted_in_kernel: phase.pipeline.as_ref().map_or(0, |pipeline| pipeline.counted.load(Relaxed)),
                findings: severities.values().sum(),
                severities,
                reached,
                expected,
                losses: lock(&self.losses).iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect(),
                skipped: self.skipped.load(Relaxed),
                suppressed: phase.suppressed.get(),
                given: self.given.load(Relaxed),
                settled: self.settled.load(Relaxed),
            },
        }
    }

    fn notice(&self, event: NoticeEvent) -> Notice {
        Notice::now(self.node.clone(), event)
    }

    fn count_loss(&self, kind: Loss, count: u64) {
        *lock(&self.losses).entry(kind.name()).or_default() += count;
    }
}

fn now() -> Time {
    Time(jiff::Timestamp::now())
}

/// Code that holds one of these locks leaves the value consistent even if it panics, so a poisoned lock is still
/// usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use tokio::sync::broadcast::error::TryRecvError;

    use super::*;
    use crate::detect::samples;
    use crate::finding::{Expected, Reason};

    /// The number of lines that a receiver too slow for them misses, as its notices say.
    fn told(line: &[u8]) -> u64 {
        match serde_json::from_slice(line).expect("it is a line") {
            Line::Notice(Notice { event: NoticeEvent::Loss { count, .. }, .. }) => count,
            other => panic!("{other:?} is no notice of a loss"),
        }
    }

    #[test]
    fn findings_are_counted_by_their_last_severity() {
        let hub = Hub::new("node-1".into());
        let mut lines = samples::session(b"sh");
        lines.iter().for_each(|line| hub.publish(line));
        let count = || {
            let Counters { findings, severities, .. } = hub.status().counters;
            (findings, Severity::ALL.map(|severity| severities.get(&severity).copied().unwrap_or_default()))
        };
        // The shell, the session with its update, and a change.
        assert_eq!(count(), (3, [0, 0, 1, 2, 0]));
        let Line::Finding(session) = &mut lines[3] else { panic!("no finding") };
        session.severity = Severity::Critical;
        hub.publish(&lines[3]);
        assert_eq!(count(), (3, [0, 0, 1, 1, 1]));
        let reached = hub.status().counters.reached;
        assert_eq!(reached[&Kind::Session], [(Severity::High, 1), (Severity::Critical, 1)].into());
        assert_eq!(hub.status().counters.expected, BTreeMap::new());
        let Line::Finding(change) = &mut lines[1] else { panic!("no finding") };
        (change.id, change.expected) =
            ("other".to_owned(), Some(Expected { reason: Reason::Scratch, otherwise: Severity::Low }));
        (0..2).for_each(|_| hub.publish(&lines[1]));
        assert_eq!(hub.status().counters.expected, [("scratch".to_owned(), 1)].into());
    }

    #[test]
    fn every_line_is_received_or_counted_as_lost_by_every_receiver() {
        const THREADS: u64 = 4;
        const LINES: u64 = OUTPUT_QUEUE as u64;
        let (hub, output) = Hub::with_output("node-1".into());
        let mut client = hub.subscribe().expect("the hub is open");
        let (written, watched) = thread::scope(|scope| {
            let publish = || (0..LINES).for_each(|_| hub.publish_event(NoticeEvent::Degraded { reasons: Vec::new() }));
            let publishers = [(); THREADS as usize].map(|()| scope.spawn(publish));
            while !hub.has_output_loss() {
                thread::yield_now();
            }
            let writer = scope.spawn(|| {
                let (mut received, mut lost) = (0, 0);
                for _ in output {
                    received += 1;
                    lost += hub.take_output_loss();
                }
                (received, lost + hub.take_output_loss())
            });
            let watcher = scope.spawn(|| {
                let (mut received, mut lost) = (0, 0);
                loop {
                    match client.try_recv() {
                        Ok(_) => received += 1,
                        Err(TryRecvError::Lagged(missed)) => lost += told(&hub.loss_line(Loss::Client, missed)),
                        Err(TryRecvError::Empty) => thread::yield_now(),
                        Err(TryRecvError::Closed) => return (received, lost),
                    }
                }
            });
            publishers.into_iter().for_each(|publisher| publisher.join().expect("it does not panic"));
            hub.close();
            (writer.join().expect("it does not panic"), watcher.join().expect("it does not panic"))
        });
        for (receiver, (received, lost)) in [("the output", written), ("the client", watched)] {
            assert!(lost > 0, "{receiver} was not too slow");
            assert_eq!(received + lost, THREADS * LINES, "{receiver}: {received} received, {lost} lost");
        }
        assert_eq!(hub.status().counters.losses, [("client".to_owned(), watched.1)].into());
    }
}
