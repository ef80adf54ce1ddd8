//! What a thread that works in the background and the one that gives it work tell each other.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The state that both share. `W` is the work, of which the default is none.
#[derive(Debug, Default)]
pub(super) struct Background<W> {
    state: Mutex<State<W>>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State<W> {
    work: W,
    /// Why work was not done.
    failure: Option<String>,
    is_ended: bool,
}

impl<W: Default> Background<W> {
    /// Gives work: what `add` adds, unless it returns that this was there.
    pub(super) fn give(&self, add: impl FnOnce(&mut W) -> bool) {
        if add(&mut self.lock().work) {
            self.changed.notify_all();
        }
    }

    /// Lets the thread end.
    pub(super) fn end(&self) {
        self.lock().is_ended = true;
        self.changed.notify_all();
    }

    /// Whether the thread is to end.
    pub(super) fn is_ended(&self) -> bool {
        self.lock().is_ended
    }

    /// Takes the work, for which this waits until there is some or the thread is to end.
    pub(super) fn take(&self, is_none: impl Fn(&W) -> bool) -> W {
        let waited = self.changed.wait_while(self.lock(), |state| is_none(&state.work) && !state.is_ended);
        std::mem::take(&mut waited.unwrap_or_else(PoisonError::into_inner).work)
    }

    /// Waits for this time, or until the thread is to end.
    pub(super) fn pause(&self, time: Duration) {
        let waited = self.changed.wait_timeout_while(self.lock(), time, |state| !state.is_ended);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Why work was not done.
    pub(super) fn failure(&self) -> Option<String> {
        self.lock().failure.clone()
    }

    /// Notes why work was not done, or that it was. If that is news, this logs it, in the words of `recovered` if it
    /// was done again, and calls `tell`.
    pub(super) fn set_failure(&self, failure: Option<String>, recovered: impl FnOnce() -> String, tell: impl Fn()) {
        let mut state = self.lock();
        if state.failure == failure {
            return;
        }
        match &failure {
            Some(failure) => tracing::error!("{failure}"),
            None => tracing::warn!("{}", recovered()),
        }
        state.failure = failure;
        drop(state);
        tell();
    }

    fn lock(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
