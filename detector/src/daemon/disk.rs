//! Puts what was written on the disk, on a thread of its own: fdatasync(2) can take seconds, and lines must not wait
//! for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::background::Background;
use super::output::{Opened, Target};

/// What the thread that writes and the one that syncs tell each other: which files have lines that may not be on the
/// disk.
#[derive(Debug, Default)]
pub(super) struct Disk(Background<Vec<Arc<Opened>>>);

impl Disk {
    /// Tells that a line was written to this file.
    pub(super) fn wrote(&self, file: &Arc<Opened>) {
        self.0.give(|unsynced| {
            let is_new = !unsynced.iter().any(|known| Arc::ptr_eq(known, file));
            unsynced.extend(is_new.then(|| Arc::clone(file)));
            is_new
        });
    }

    /// Why lines may not be on the disk.
    pub(super) fn failure(&self) -> Option<String> {
        self.0.failure()
    }

    /// Lets [`Self::sync`] end once everything is on the disk.
    pub(super) fn end(&self) {
        self.0.end();
    }

    /// Puts lines on the disk: the first one at once, and then all that have come in this interval. Calls `tell` when
    /// this begins to fail, or works again.
    pub(super) fn sync(&self, target: &Target, interval: Duration, tell: impl Fn()) {
        loop {
            let files = self.0.take(Vec::is_empty);
            if files.is_empty() {
                return;
            }
            let started = Instant::now();
            // They are not tried again: the kernel takes pages that it could not write for written.
            let failed: Vec<_> = files.iter().filter_map(|file| file.sync().err()).collect();
            let failure = failed.first().map(|cause| {
                format!(
                    "{target}: cannot put findings on the disk: {cause}; they are in the file, but a power cut can \
                    take them; check the disk (dmesg)"
                )
            });
            self.0.set_failure(failure, || format!("{target}: findings can be put on the disk again"), &tell);
            self.0.pause(interval.saturating_sub(started.elapsed()));
        }
    }
}
