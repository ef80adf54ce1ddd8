//! Puts what was written on the disk, on a thread of its own: fdatasync(2) can take seconds, and lines must not wait
//! for it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::output::{Opened, Target};

/// What the thread that writes and the one that syncs tell each other.
#[derive(Debug, Default)]
pub(super) struct Disk {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The files with lines that may not be on the disk.
    unsynced: Vec<Arc<Opened>>,
    /// Why lines may not be on the disk.
    failure: Option<String>,
    /// There will be no more lines.
    is_ended: bool,
}

impl Disk {
    /// Tells that a line was written to this file.
    pub(super) fn wrote(&self, file: &Arc<Opened>) {
        let mut state = self.lock();
        if !state.unsynced.iter().any(|known| Arc::ptr_eq(known, file)) {
            state.unsynced.push(Arc::clone(file));
            self.changed.notify_all();
        }
    }

    /// Why lines may not be on the disk.
    pub(super) fn failure(&self) -> Option<String> {
        self.lock().failure.clone()
    }

    /// Lets [`Self::sync`] end once everything is on the disk.
    pub(super) fn end(&self) {
        self.lock().is_ended = true;
        self.changed.notify_all();
    }

    /// Puts lines on the disk: the first one at once, and then all that have come in this interval. Calls `tell` when
    /// this begins to fail, or works again.
    pub(super) fn sync(&self, target: &Target, interval: Duration, tell: impl Fn()) {
        let mut state = self.lock();
        loop {
            let waited = self.changed.wait_while(state, |state| state.unsynced.is_empty() && !state.is_ended);
            state = waited.unwrap_or_else(PoisonError::into_inner);
            let files = std::mem::take(&mut state.unsynced);
            if files.is_empty() {
                return;
            }
            drop(state);
            let started = Instant::now();
            // They are not tried again: the kernel takes pages that it could not write for written.
            let failed: Vec<_> = files.iter().filter_map(|file| file.sync().err()).collect();
            let failure = failed.first().map(|cause| {
                format!(
                    "{target}: cannot put findings on the disk: {cause}; they are in the file, but a power cut can \
                    take them; check the disk (dmesg)"
                )
            });
            state = self.lock();
            if state.failure != failure {
                match &failure {
                    Some(failure) => tracing::error!("{failure}"),
                    None => tracing::warn!("{target}: findings can be put on the disk again"),
                }
                state.failure = failure;
                drop(state);
                tell();
                state = self.lock();
            }
            let rest = interval.saturating_sub(started.elapsed());
            let waited = self.changed.wait_timeout_while(state, rest, |state| !state.is_ended);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
