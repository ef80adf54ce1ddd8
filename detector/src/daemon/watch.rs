//! Starts everything that the daemon and a stand-alone `detector tail` need: the sensor, the pipeline for its events,
//! the enricher for the pipeline's findings, and their connection to the hub.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::hub::Hub;
use crate::finding::{Line, Node};
use crate::memory;
use crate::pipeline::{self, Message, Pipeline};
use crate::policy::Policy;
use crate::protocol::Hook;
use crate::recording::Recorder;
use crate::redact::Redactor;
use crate::runtime::{self, Engines, Enricher};
use crate::sensor::report::Report;
use crate::sensor::{self, Sensor};

/// How often the self-test is repeated by default.
pub(crate) const TEST_INTERVAL: Duration = Duration::from_secs(300);

/// The options of a watch.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node in findings.
    pub node: Node,
    /// Redacts secrets in the arguments of processes.
    pub redactor: Redactor,
    /// BPF object to load instead of the embedded one.
    pub bpf_object: Option<PathBuf>,
    /// The file to record to.
    pub record: Option<PathBuf>,
    /// The container engines that are queried about containers.
    pub engines: Arc<Engines>,
    /// How long a finding waits at most for an engine's answer about its container.
    pub wait: Duration,
    /// How often the self-test is repeated.
    pub test_interval: Duration,
    /// Whether what is done again and again is counted.
    pub is_counting: bool,
    /// What is decided about findings at first.
    pub policy: Policy,
    /// Whether findings are published that an exception suppresses.
    pub shows_suppressed: bool,
}

/// Why a watch cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The probes cannot be loaded or attached.
    #[error(transparent)]
    Sensor(#[from] sensor::Error),
    /// The probes are attached, but the self-test did not see one of the essential hooks fire.
    #[error(
        "this host: an essential hook does not fire, so attacks would go unnoticed; run `detector doctor` to see what \
            it needs"
    )]
    Blind,
    /// The pipeline cannot be started.
    #[error(transparent)]
    Pipeline(#[from] pipeline::Error),
    /// The enricher cannot be started.
    #[error(
        "cannot start the thread that queries the container runtimes: {0}; check the limits of this process (ulimit -a)"
    )]
    Enricher(#[source] io::Error),
    /// The recorder cannot be started.
    #[error("cannot start the thread that writes the recording: {0}; check the limits of this process (ulimit -a)")]
    Recorder(#[source] io::Error),
}

/// A running watch. Dropping it detaches the probes and publishes the remaining findings.
pub(crate) struct Watch {
    // Fields are dropped in this order: the pipeline first, because it sends findings to the enricher. Both record.
    _pipeline: Pipeline,
    _enricher: Enricher,
    _recorder: Option<Recorder>,
}

impl Watch {
    /// Attaches the probes, marks `hub` as ready, and publishes all findings to it. Calls `ended` when there will be no
    /// more findings, either because the watch was dropped or because of a bug.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub(crate) fn start(
        options: Options,
        hub: &Arc<Hub>,
        ended: impl FnOnce() + Send + 'static,
    ) -> Result<Self, Error> {
        let Options {
            node,
            redactor,
            bpf_object,
            record,
            engines,
            wait,
            test_interval,
            is_counting,
            policy,
            shows_suppressed,
        } = options;
        let sensor = Sensor::start(&sensor::Options { bpf_object })?;
        let undetected = log_hooks(sensor.report());
        if sensor.report().is_blind() {
            return Err(Error::Blind);
        }
        let recorder = record.map(|path| {
            let hub = Arc::clone(hub);
            Recorder::start(path, move |failure| hub.set_recording_failure(failure))
        });
        let recorder = recorder.transpose().map_err(Error::Recorder)?;
        let journal = recorder.as_ref().map(Recorder::journal).unwrap_or_default();
        let enrich = runtime::Options {
            engines: Arc::clone(&engines),
            wait,
            node: node.clone(),
            redactor: redactor.clone(),
            shows_suppressed,
            rules: policy.rules.clone(),
            ledger: hub.ledger_inlet(),
        };
        let enricher = {
            let hub = Arc::clone(hub);
            let publish = move |line: &Line| hub.publish(line);
            Enricher::start_recording(enrich, journal.clone(), publish).map_err(Error::Enricher)?
        };
        let ledger = hub.ledger_inlet();
        let sink = {
            let (inlet, hub, ledger) = (enricher.inlet(), Arc::clone(hub), ledger.clone());
            move |message| match message {
                Message::Line(line) => inlet.send(line),
                Message::ContainerStarted(container) => inlet.container_started(&container),
                Message::ContainerRuns(container, time) => {
                    ledger.runs(&container, time);
                    inlet.container_runs(&container, time);
                }
                Message::CgroupRemoved(id) => {
                    inlet.cgroup_removed(id);
                    ledger.removed(id);
                }
                Message::Rules(rules, time) => inlet.set_rules(rules, time),
                Message::Tested(report) => hub.set_tested(hooks(&report), report.undetected()),
                Message::InspectionFailure(failure) => hub.set_inspection_failure(failure),
            }
        };
        let hooks = hooks(sensor.report());
        let (suppressed, unwatching) = (enricher.suppressed(), enricher.unwatching());
        let options = pipeline::Options {
            node,
            redactor,
            journal,
            test_interval,
            is_counting,
            policy,
            unwatching: Arc::clone(&unwatching),
        };
        let pipeline = Pipeline::start(sensor, options, sink, ended)?;
        ledger.scanned();
        hub.set_ready(hooks, undetected, Arc::clone(pipeline.counters()), engines, suppressed, unwatching);
        hub.set_orders(pipeline.orders());
        // The kernel's BTF types were large, and there may always be something to do from now on.
        memory::release();
        Ok(Self { _pipeline: pipeline, _enricher: enricher, _recorder: recorder })
    }

    /// Detaches the probes and publishes the remaining findings.
    pub(crate) fn stop(self) {
        drop(self);
    }
}

/// The hooks of a report, for clients.
fn hooks(report: &Report) -> Vec<Hook> {
    report.hooks.iter().map(Hook::from).collect()
}

/// Logs the state of each hook. Returns what is not detected, and why.
fn log_hooks(report: &Report) -> Vec<String> {
    for Hook { name, attached, absent, blindable, .. } in report.hooks.iter().map(Hook::from) {
        match attached {
            Some(attached) if blindable => tracing::warn!(
                "hook {name}: {attached}: this kernel can skip calls of this program while it preempts another"
            ),
            Some(attached) => tracing::info!("hook {name}: {attached}"),
            None if absent => tracing::info!("hook {name}: this kernel does not need it"),
            None => {}
        }
    }
    let undetected = report.undetected();
    undetected.iter().for_each(|reason| tracing::warn!("{reason}"));
    undetected
}
