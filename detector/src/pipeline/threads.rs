//! Starts the threads of the pipeline, and lets them wake each other up.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use rustix::event::{EventfdFlags, eventfd};

/// Why a pipeline could not start.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}; check the limits of this process (ulimit -a)")]
pub struct Error {
    /// The operation that failed.
    pub what: &'static str,
    /// The error of the operating system.
    pub source: io::Error,
}

/// Starts a thread with this name.
pub(super) fn spawn(name: &'static str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    let started = Builder::new().name(name.to_owned()).spawn(run);
    started.map_err(|source| Error { what: "starting a thread", source })
}

/// A flag that one thread raises and another one waits for. Its descriptor is readable while the flag is raised.
#[derive(Clone, Debug)]
pub(super) struct Flag {
    eventfd: Arc<OwnedFd>,
}

impl Flag {
    /// Makes a flag that is not raised.
    pub(super) fn new() -> Result<Self, Error> {
        let made = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let made = made.map_err(|e| Error { what: "creating an eventfd", source: e.into() })?;
        Ok(Self { eventfd: Arc::new(made) })
    }

    pub(super) fn raise(&self) {
        // The write fails only if the counter is at its maximum, so the flag is raised anyway.
        let _raised_anyway = rustix::io::write(&self.eventfd, &1_u64.to_ne_bytes());
    }

    pub(super) fn lower(&self) {
        // The read fails only if the flag is not raised.
        let _lowered_anyway = rustix::io::read(&self.eventfd, &mut [0; 8]);
    }
}

impl AsFd for Flag {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn is_raised(flag: &Flag) -> bool {
        let mut waiting = [PollFd::new(flag, PollFlags::IN)];
        poll(&mut waiting, Some(&Timespec::default())).expect("the descriptor can be polled") > 0
    }

    #[test]
    fn a_flag_stays_raised_until_it_is_lowered() {
        let flag = Flag::new().expect("there are descriptors");
        assert!(!is_raised(&flag));
        flag.raise();
        flag.raise();
        assert!(is_raised(&flag) && is_raised(&flag));
        flag.lower();
        assert!(!is_raised(&flag));
        flag.lower();
    }
}
