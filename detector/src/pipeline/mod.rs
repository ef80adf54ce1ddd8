//! Works on the sensor's events: which container, what is found, what was lost. One thread, and a second one that reads
//! executed files.

mod analysis;
mod blindness;
mod containers;
mod inspection;
mod losses;
mod outlet;
mod reader;
mod threads;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::redact::Redactor;
use crate::sensor::Sensor;
use outlet::Outlet;
use reader::Reader;
use threads::Flag;

pub(crate) use outlet::{Counters, Message};
pub(crate) use threads::Error;

/// What can be chosen.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Name of the node in findings.
    pub node: String,
    /// What is kept secret of arguments.
    pub redactor: Redactor,
}

/// A running pipeline. Dropping it reads what the kernel has reported until then, and detaches the probes.
pub(crate) struct Pipeline {
    counters: Arc<Counters>,
    stop: Flag,
    reader: Option<JoinHandle<()>>,
}

impl Pipeline {
    /// Starts to read. `sink` gets each message on the pipeline's thread and must not block. `ended` is called on that
    /// thread at its end: because it was told to stop, or because it panicked.
    ///
    /// # Errors
    ///
    /// The system has no threads or descriptors left.
    pub(crate) fn start(
        sensor: Sensor,
        options: Options,
        sink: impl FnMut(Message) + Send + 'static,
        ended: impl FnOnce() + Send + 'static,
    ) -> Result<Self, Error> {
        let stop = Flag::new()?;
        let counters = Arc::new(Counters::default());
        let Options { node, redactor } = options;
        let outlet = Outlet::new(sink, node, Arc::clone(&counters));
        let reader = Reader::new(sensor, redactor, outlet, stop.clone())?;
        let run = move || {
            // Nobody sees what the reader was in the middle of: it goes with the panic.
            let result = catch_unwind(AssertUnwindSafe(|| reader.run()));
            ended();
            if let Err(panic) = result {
                resume_unwind(panic);
            }
        };
        let reader = threads::spawn("reader", run)?;
        Ok(Self { counters, stop, reader: Some(reader) })
    }

    /// What was done so far. The counters stay valid after the end.
    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.counters
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
