//! The files that were created a moment ago. What the same process does to one of them belongs to its creation: it
//! gives the file permissions and renames it, as careful programs replace a file.

use std::collections::VecDeque;
use std::sync::Arc;

use super::key::{Act, image_op};
use super::tally::Tally;
use crate::detect::context::Context;
use crate::detect::pace::SECOND;
use crate::finding::{Device, Finding, ImageOp, Time};

/// How long a file counts as just created.
const MOMENT: u64 = SECOND;
/// How many files are remembered at most.
const MOST: usize = 256;

/// Where the creation of a file is told.
#[derive(Debug)]
pub(super) enum Told {
    /// In a finding of its own.
    Own(Box<Tally>),
    /// In the tally of the entry with this number.
    Counted(u64),
}

/// A file, by its device and inode numbers, and the process that has created it.
type Key = ((Device, u64), (u32, Time));

#[derive(Debug)]
struct File {
    key: Key,
    act: Arc<Act>,
    time: u64,
    told: Told,
}

impl File {
    /// Publishes what the last line does not say.
    fn publish(&mut self, now: u64, context: &Context, found: &mut dyn FnMut(Finding)) {
        if let Told::Own(tally) = &mut self.told
            && tally.is_changed()
        {
            found(tally.publish(now, context));
        }
    }
}

/// The files, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Made(VecDeque<File>);

impl Made {
    /// Remembers the file if the finding is about its creation.
    pub(super) fn insert(&mut self, act: &Arc<Act>, finding: &Finding, time: u64, told: impl FnOnce() -> Told) {
        if image_op(finding) == Some(ImageOp::Create)
            && let Some(key) = key(finding)
        {
            self.0.push_back(File { key, act: Arc::clone(act), time, told: told() });
        }
    }

    /// Where the creation of the file is told to which something else was done. Returns `None` if another process did
    /// it, or if the file was not created just now.
    pub(super) fn told(&mut self, finding: &Finding) -> Option<&mut Told> {
        let op = image_op(finding)?;
        if op != ImageOp::Rename && !ImageOp::is_of_metadata(op.number()) {
            return None;
        }
        let key = key(finding)?;
        self.0.iter_mut().rev().find(|file| file.key == key).map(|file| &mut file.told)
    }

    /// When [`settle`](Self::settle) has something to publish.
    pub(super) fn due(&self) -> Option<u64> {
        let is_changed = |file: &&File| matches!(&file.told, Told::Own(tally) if tally.is_changed());
        self.0.iter().find(is_changed).map(|file| file.time.saturating_add(MOMENT))
    }

    /// Publishes and forgets the files that were created a moment before this time, and the oldest if there are too
    /// many.
    pub(super) fn settle(&mut self, until: u64, now: u64, context: &Context, found: &mut dyn FnMut(Finding)) {
        while let Some(file) = self.0.front()
            && (file.time.saturating_add(MOMENT) <= until || self.0.len() > MOST)
        {
            if let Some(mut file) = self.0.pop_front() {
                file.publish(now, context, found);
            }
        }
    }

    /// Publishes what is new about the files of these acts.
    pub(super) fn publish_of(
        &mut self,
        is_one: &impl Fn(&Act) -> bool,
        now: u64,
        context: &Context,
        found: &mut dyn FnMut(Finding),
    ) {
        self.0.iter_mut().filter(|file| is_one(&file.act)).for_each(|file| file.publish(now, context, found));
    }
}

fn key(finding: &Finding) -> Option<Key> {
    let (file, process) = (finding.file.as_ref()?, finding.process.as_ref()?);
    Some(((file.dev, file.inode?), (process.pid, process.start_time)))
}
