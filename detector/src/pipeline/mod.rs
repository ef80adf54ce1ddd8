//! Processes the sensor's events: finds their containers, runs the detections, and reports lost events. One thread
//! reads the events; a second one reads executed files.

mod analysis;
mod blindness;
mod containers;
mod input;
mod inspection;
mod intake;
mod losses;
mod orders;
mod outlet;
mod pulse;
mod reader;
mod replay;
mod threads;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::finding::Node;
use crate::policy::Policy;
use crate::recording::Journal;
use crate::redact::Redactor;
use crate::runtime::Unwatching;
use crate::sensor::Sensor;
use outlet::Outlet;
use reader::Reader;
use threads::Flag;

pub(crate) use input::Input;
#[cfg(test)]
pub(crate) use input::Start;
pub(crate) use orders::{Order, Orders};
pub(crate) use outlet::{Counters, Message};
pub(crate) use replay::Replay;
pub(crate) use threads::Error;

/// The options of a pipeline.
#[derive(Clone)]
pub(crate) struct Options {
    /// The node in findings.
    pub node: Node,
    /// Redacts secrets in the arguments of processes.
    pub redactor: Redactor,
    /// Records what the pipeline is told.
    pub journal: Journal,
    /// How often the self-test is repeated.
    pub test_interval: Duration,
    /// Whether what is done again and again is counted.
    pub is_counting: bool,
    /// What is decided about findings at first.
    pub policy: Policy,
    /// Which containers are not watched.
    pub unwatching: Arc<Unwatching>,
}

/// A running pipeline. Dropping it handles the events that the kernel has reported until then, and detaches the probes.
pub(crate) struct Pipeline {
    counters: Arc<Counters>,
    orders: Orders,
    stop: Flag,
    reader: Option<JoinHandle<()>>,
}

impl Pipeline {
    /// Starts the pipeline. It calls `sink` with each message on its own thread, and `sink` must not block. It calls
    /// `ended` on that thread when the thread ends, either because it was stopped or because it panicked.
    ///
    /// # Errors
    ///
    /// The system refused a thread or a file descriptor.
    pub(crate) fn start(
        sensor: Sensor,
        options: Options,
        sink: impl FnMut(Message) + Send + 'static,
        ended: impl FnOnce() + Send + 'static,
    ) -> Result<Self, Error> {
        let stop = Flag::new()?;
        let counters = Arc::new(Counters::default());
        let outlet = Outlet::new(sink, options.node.clone(), Arc::clone(&counters));
        let (orders, ordered) = orders::channel()?;
        let reader = Reader::new(sensor, options, outlet, (stop.clone(), ordered))?;
        let run = move || {
            // The reader is dropped after a panic, so nobody sees its inconsistent state.
            let result = catch_unwind(AssertUnwindSafe(|| reader.run()));
            ended();
            if let Err(panic) = result {
                resume_unwind(panic);
            }
        };
        let reader = threads::spawn("reader", run)?;
        Ok(Self { counters, orders, stop, reader: Some(reader) })
    }

    /// The counters of this pipeline. They stay valid after it has ended.
    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Where this pipeline takes orders. After it has ended, they have no effect.
    pub(crate) fn orders(&self) -> Orders {
        self.orders.clone()
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.stop.raise();
        if let Some(reader) = self.reader.take()
            && reader.join().is_err()
        {
            tracing::error!("the reader thread panicked");
        }
    }
}
