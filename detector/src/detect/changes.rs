//! Remembers who last changed the content of which file of an image, so that a later finding about code from this file
//! can say where it came from.

use std::sync::Arc;
use std::time::Duration;

use super::code::Code;
use super::context::Context;
use super::describe::{self, Actor};
use super::installations::Installation;
use super::{image_write, process};
use crate::event::{self, At, ImageChange, ImageOp};
use crate::finding::Changed;
use crate::recent::Recent;

/// How much is remembered at most, in bytes.
const MOST: usize = 1 << 20;
/// The cost of an entry in addition to the path of the executable, in bytes.
const OVERHEAD: usize = 128;

/// A change of a file.
#[derive(Clone, Debug)]
pub(super) struct Change {
    /// In nanoseconds since boot.
    time: u64,
    op: ImageOp,
    pid: u32,
    exe: Arc<event::Path>,
    /// The package manager that did it, or whose descendant did.
    installation: Option<process::Key>,
}

impl Change {
    /// What is added to the message about an act at this time.
    pub(super) fn message(&self, at: At) -> String {
        let verb = image_write::verb(self.op);
        let before = Duration::from_nanos(at.time.saturating_sub(self.time)).as_secs_f32();
        let exe = describe::text(describe::base_name(&self.exe.bytes));
        format!("; it was {verb} {before:.1} s before by {exe} (process {})", self.pid)
    }

    /// Whether it was done by an installation.
    pub(super) fn is_of_installation(&self) -> bool {
        self.installation.is_some()
    }

    /// The description in a finding about what a process of this installation runs.
    pub(super) fn describe(&self, context: &Context, installation: Option<&Installation>) -> Changed {
        Changed {
            time: context.wall(self.time),
            op: self.op,
            pid: self.pid,
            exe: describe::path(&self.exe),
            is_installed: installation.is_some_and(|of| self.installation == Some(of.process)),
        }
    }
}

/// The last changes of files.
#[derive(Debug)]
pub(super) struct Changes {
    /// The last change of the content of each file, by the container, and the device and inode numbers of the file.
    last: Recent<(u64, u32, u64), Change>,
    /// The executable that made the last one, and mostly the next ones, too: small allocations that stay, among large
    /// ones that do not, would keep those from being returned to the system.
    exe: Arc<event::Path>,
}

impl Default for Changes {
    fn default() -> Self {
        let last = Recent::with_cost(MOST, |change: &Change| OVERHEAD + change.exe.bytes.len());
        Self { last, exe: Arc::default() }
    }
}

impl Changes {
    /// Takes note of a change, if it is one of the content, and of the end of a file. `installation` is what the
    /// process belongs to.
    pub(super) fn take(&mut self, change: &ImageChange, actor: Option<&Actor>, installation: Option<&Installation>) {
        use ImageOp::*;
        let (op, key) = (change.op, (change.at.container, change.file.dev, change.file.inode));
        match (op, actor) {
            (Create | OpenWrite | Write | MmapWrite | Truncate, Some(actor)) => {
                if *self.exe != *actor.exe {
                    self.exe = Arc::new(actor.exe.clone());
                }
                let (time, pid, exe) = (change.at.time, actor.process.pid, Arc::clone(&self.exe));
                let installation = installation.map(|installation| installation.process);
                self.last.insert(key, Change { time, op, pid, exe, installation });
            }
            // Nobody knows who did it.
            (Create | OpenWrite | Write | MmapWrite | Truncate, None) => drop(self.last.remove(&key)),
            (Unlink, _) if change.file.nlink <= 1 => drop(self.last.remove(&key)),
            _ => {}
        }
    }

    /// The last change of the file that this code is from.
    pub(super) fn of(&mut self, code: &Code) -> Option<&Change> {
        self.last.get(&(code.at.container, code.file.dev, code.file.inode))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Detector;
    use super::super::samples::*;
    use crate::event::{Event, ImageOp, Layer, Origin};

    #[test]
    fn what_runs_says_who_changed_it_last() {
        let ran = |ops: &[ImageOp]| {
            let mut detector = Detector::default();
            let mut exec = exec(Origin::Application, "/tmp/b", &["b"]);
            exec.file.layer = Some(Layer::Upper);
            exec.at.time = 4_000_000_000;
            for (nth, op) in ops.iter().enumerate() {
                let mut change = change(*op, Layer::New, 0o100_755, "/tmp/a");
                (change.file.inode, change.file.dev, change.file.nlink) = (exec.file.inode, exec.file.dev, 1);
                change.at.time = nth as u64 * 1_000_000_000;
                detector.detect(&Event::ImageChange(Box::new(change)), &container(), &context(), drop);
            }
            let mut found = Vec::new();
            detector.detect(&Event::Exec(Box::new(exec)), &container(), &context(), |finding| found.push(finding));
            let [run] = &found[..] else { panic!("{found:?}") };
            let told = run.message.split_once("; ").map(|(_, told)| told.to_owned());
            let by = run.file.as_ref().and_then(|file| file.changed.clone());
            assert_eq!(told.is_some(), by.is_some());
            by.map(|by| (by.op, told.unwrap_or_default()))
        };
        use ImageOp::*;
        let by = |op, told: &str| Some((op, format!("it was {told} before by python3.12 (process 1234)")));
        assert_eq!(ran(&[Create]), by(Create, "created 4.0 s"));
        assert_eq!(ran(&[Create, OpenWrite, Chmod, Rename]), by(OpenWrite, "opened for writing 3.0 s"));
        assert_eq!(ran(&[Create, Unlink]), None);
        assert_eq!(ran(&[Chmod]), None);
    }
}
