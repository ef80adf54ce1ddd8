//! The whole of it, as the daemon and a private viewer run it: the sensor, the pipeline on its events, the enricher on the
//! pipeline's findings, and the hub that gets the lines.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::hub::Hub;
use crate::pipeline::{self, Message, Pipeline};
use crate::protocol::Hook;
use crate::redact::Redactor;
use crate::runtime::{self, Engines, Enricher};
use crate::sensor::report::Report;
use crate::sensor::{self, Sensor};

/// What can be chosen.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of the node in the lines.
    pub node: String,
    /// What is kept secret of arguments.
    pub redactor: Redactor,
    /// BPF object to load instead of the embedded one.
    pub bpf_object: Option<PathBuf>,
    /// The engines that are asked about containers.
    pub engines: Arc<Engines>,
    /// How long a finding waits at most for what an engine knows of its container.
    pub wait: Duration,
}

/// Why nothing is watched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The probes cannot be had.
    #[error(transparent)]
    Sensor(#[from] sensor::Error),
    /// The probes are attached, and an essential one of them was not seen to fire.
    #[error(
        "this host: an essential hook does not fire, so nothing would be seen; `detector doctor` says what it needs"
    )]
    Blind,
    /// The pipeline cannot be started.
    #[error(transparent)]
    Pipeline(#[from] pipeline::Error),
    /// The enricher cannot be started.
    #[error(
        "starting the thread that asks the runtimes: {0}; see the limits of this process and the memory of this host"
    )]
    Enricher(#[source] io::Error),
}

/// What watches this node. Dropping it detaches the probes and publishes what was found until then.
pub(crate) struct Watch {
    // Dropped in this order: first what makes findings, then what they wait in.
    _pipeline: Pipeline,
    _enricher: Enricher,
}

impl Watch {
    /// Attaches the probes, and publishes what is found from then on to `hub`, which is told once that is so. `ended` is
    /// called when no more will be found: after the watch was dropped, or because of a bug.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub(crate) fn start(
        options: Options,
        hub: &Arc<Hub>,
        ended: impl FnOnce() + Send + 'static,
    ) -> Result<Self, Error> {
        let Options { node, redactor, bpf_object, engines, wait } = options;
        let sensor = Sensor::start(&sensor::Options { bpf_object })?;
        log_hooks(sensor.report());
        if sensor.report().is_blind() {
            return Err(Error::Blind);
        }
        let enrich =
            runtime::Options { engines: Arc::clone(&engines), wait, node: node.clone(), redactor: redactor.clone() };
        let enricher = {
            let hub = Arc::clone(hub);
            Enricher::start(enrich, move |line| hub.publish(line)).map_err(Error::Enricher)?
        };
        let inlet = enricher.inlet();
        let sink = move |message| match message {
            Message::Line(line) => inlet.line(line),
            Message::Began(container) => inlet.container_began(&container),
        };
        let hooks = sensor.report().hooks.iter().map(Hook::from).collect();
        let pipeline = Pipeline::start(sensor, pipeline::Options { node, redactor }, sink, ended)?;
        hub.ready(hooks, Arc::clone(pipeline.counters()), engines);
        release_memory();
        Ok(Self { _pipeline: pipeline, _enricher: enricher })
    }

    /// Detaches the probes, and publishes what was found until now.
    pub(crate) fn stop(self) {
        drop(self);
    }
}

/// Tells this program's log how well the probes watch.
fn log_hooks(report: &Report) {
    for hook in report.hooks.iter().map(Hook::from) {
        let Hook { name, purpose, .. } = &hook;
        match &hook.attached {
            None => tracing::warn!("hook {name}: not attached, so not watched: {purpose}; {}", hook.refused.join("; ")),
            Some(attached) if hook.verified == Some(false) => {
                tracing::warn!("hook {name}: {attached}: the self-test did not see it fire, so not watched: {purpose}");
            }
            Some(attached) if hook.blindable => {
                tracing::warn!("hook {name}: {attached}: this kernel can skip calls of it while it preempts one");
            }
            Some(attached) => tracing::info!("hook {name}: {attached}"),
        }
    }
    if let Err(why) = &report.selftest {
        tracing::warn!("the self-test could not run, so no hook is proven to fire: {why}");
    }
}

/// Gives the memory back to the system that was only needed at the start, such as for the kernel's types: glibc keeps what
/// was freed.
#[cfg_attr(target_env = "gnu", expect(unsafe_code, reason = "malloc_trim(3) is a C function"))]
fn release_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it can be called by any thread at any time, and takes nothing away that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}
