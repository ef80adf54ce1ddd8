//! The threads of the pipeline, and how they wake each other up.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use rustix::event::{EventfdFlags, eventfd};

/// Why the pipeline cannot start.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}; see the limits of this process")]
pub struct Error {
    /// What was tried.
    pub what: &'static str,
    /// The system's answer.
    pub source: io::Error,
}

/// Starts a thread.
pub(super) fn spawn(name: &'static str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    let started = Builder::new().name(name.to_owned()).spawn(run);
    started.map_err(|source| Error { what: "starting a thread", source })
}

/// A flag that one thread raises and another one waits for: its descriptor is readable while it is raised.
#[derive(Clone, Debug)]
pub(super) struct Flag {
    eventfd: Arc<OwnedFd>,
}

impl Flag {
    /// A flag that is not raised.
    pub(super) fn new() -> Result<Self, Error> {
        let made = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let made = made.map_err(|e| Error { what: "making an eventfd", source: e.into() })?;
        Ok(Self { eventfd: Arc::new(made) })
    }

    pub(super) fn raise(&self) {
        // Fails when it has been raised as often as can be counted.
        let _raised_anyway = rustix::io::write(&self.eventfd, &1_u64.to_ne_bytes());
    }

    pub(super) fn lower(&self) {
        // Fails when it is not raised.
        let _lowered_anyway = rustix::io::read(&self.eventfd, &mut [0; 8]);
    }
}

impl AsFd for Flag {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}
