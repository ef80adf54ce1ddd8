//! Acts that are the same apart from a name, as one finding.

use super::key::{Scope, image_op};
use crate::container::table::TrackedContainer;
use crate::detect::context::Context;
use crate::detect::describe;
use crate::detect::pace::{Pace, SECOND};
use crate::finding::{Finding, ImageOp, Repeated, Text, Time};

/// How long after its last line the finding of a series is published again, if it was repeated.
const INTERVALS: &[u64] = &[SECOND, 10 * SECOND, 60 * SECOND, 600 * SECOND, 3600 * SECOND];
/// How many of the first and of the last paths are listed.
const LISTED: usize = 4;

/// A series.
#[derive(Debug)]
pub(super) struct Series {
    /// The finding about the first act.
    finding: Finding,
    /// Where it happened, and by which program, in a message.
    end_of_message: String,
    count: u64,
    /// When the first and the last act happened, in nanoseconds since boot.
    first: u64,
    last: u64,
    /// What all paths begin with, unless only their patterns are the same.
    common: Option<String>,
    names: Vec<Text>,
    names_omitted: u64,
    pace: Pace,
    is_changed: bool,
}

impl Series {
    /// The series that begins with this act. `path` is that of its file, if the acts are about files.
    pub(super) fn new(
        finding: &Finding,
        scope: &Scope,
        path: Option<&Text>,
        now: u64,
        container: &TrackedContainer,
    ) -> Self {
        let by = finding.process.as_ref().and_then(|process| {
            let name = describe::base_name(process.exe.as_ref()?.as_str().as_bytes());
            Some((std::str::from_utf8(name).ok()?, process.origin))
        });
        Self {
            finding: finding.clone(),
            end_of_message: describe::where_and_by(container, by),
            count: 1,
            first: now,
            last: now,
            common: path.map(|path| scope.common(path.as_str()).to_owned()),
            names: path.into_iter().cloned().collect(),
            names_omitted: 0,
            pace: Pace::new(INTERVALS, now),
            is_changed: false,
        }
    }

    /// Counts another act.
    pub(super) fn add(&mut self, scope: &Scope, path: Option<&Text>, now: u64) {
        self.count += 1;
        self.first = self.first.min(now);
        self.last = self.last.max(now);
        self.is_changed = true;
        let Some(path) = path else { return };
        self.common.take_if(|common| scope.common(path.as_str()) != common);
        if self.names.contains(path) {
            return;
        }
        if self.names.len() == 2 * LISTED {
            self.names.remove(LISTED);
            self.names_omitted += 1;
        }
        self.names.push(path.clone());
    }

    /// When the finding must be published again, if nothing else happens.
    pub(super) fn due(&self) -> Option<u64> {
        self.is_changed.then(|| self.pace.due())
    }

    /// Makes the next line.
    pub(super) fn publish(&mut self, scope: &Scope, now: u64, context: &Context) -> Finding {
        self.pace.note(now, true);
        self.is_changed = false;
        self.finding.revision += 1;
        let [first, last] = [self.first, self.last].map(|time| context.wall(time));
        Finding {
            time: last,
            message: self.message(scope, first, last),
            repeated: Some(Box::new(Repeated {
                count: self.count,
                first,
                last,
                paths: self.paths(scope),
                names: self.names.clone(),
                names_omitted: self.names_omitted,
            })),
            ..self.finding.clone()
        }
    }

    /// What the paths have in common.
    fn paths(&self, scope: &Scope) -> Option<Text> {
        let common = self.common.as_deref().unwrap_or(scope.pattern());
        let paths = match scope {
            Scope::All | Scope::Same(_) => return None,
            Scope::Like(_) => common.to_owned(),
            Scope::In(_) => format!("{common}/*"),
            Scope::Below(_) => format!("{common}/**"),
        };
        Some(Text::of_texts(paths))
    }

    fn message(&self, scope: &Scope, first: Time, last: Time) -> String {
        let (count, end) = (self.count, &self.end_of_message);
        let common = self.common.as_deref().unwrap_or(scope.pattern());
        let directory = if common.is_empty() { "/" } else { common };
        let times = format!("first {}, last {}", moment(first, last), moment(last, first));
        let place = match scope {
            Scope::All | Scope::Same(_) | Scope::Like(_) => None,
            Scope::In(_) => Some(format!("in {directory}")),
            Scope::Below(_) => Some(format!("below {directory}")),
        };
        match (image_op(&self.finding), place) {
            (Some(op), Some(place)) => {
                let (things, done) = words(op);
                format!("{count} {things} {done} {place} {end}, {times}")
            }
            (Some(op), None) if self.names.len() > 1 => {
                let (things, done) = words(op);
                format!("{count} {things} like {common} {done} {end}, {times}")
            }
            (Some(op), None) => format!("{common} {} {count} times {end}, {times}", words(op).1),
            (None, Some(place)) => format!("{}, and {} more {place}, {times}", self.finding.message, count - 1),
            (None, None) => format!("{}, {count} times, {times}", self.finding.message),
        }
    }
}

/// What an operation changes, and how, of many.
fn words(op: ImageOp) -> (&'static str, &'static str) {
    match op {
        ImageOp::OpenWrite => ("files", "opened for writing"),
        ImageOp::Truncate => ("files", "truncated"),
        ImageOp::Create | ImageOp::Mknod => ("files", "created"),
        ImageOp::Mkdir => ("directories", "created"),
        ImageOp::Symlink => ("symbolic links", "created"),
        ImageOp::Write => ("files", "written"),
        ImageOp::MmapWrite => ("files", "mapped shared and writable"),
        ImageOp::CopyUp => ("files", "copied up"),
        ImageOp::Link => ("hard links", "created"),
        ImageOp::Rename => ("files", "renamed"),
        ImageOp::Exchange => ("files", "exchanged"),
        ImageOp::Unlink => ("files", "removed"),
        ImageOp::Rmdir => ("directories", "removed"),
        ImageOp::Chmod => ("files", "given other permissions"),
        ImageOp::Chown => ("files", "given another owner"),
        ImageOp::SetAcl => ("files", "given another access control list"),
        ImageOp::SetFlags => ("files", "given other inode flags"),
        ImageOp::SetXattr => ("files", "given an extended attribute"),
        ImageOp::RemoveXattr => ("files", "relieved of an extended attribute"),
        ImageOp::SetCapability => ("files", "given capabilities"),
        ImageOp::Utimes => ("files", "given other timestamps"),
    }
}

/// The time of day, and the date if that is another one.
fn moment(time: Time, other: Time) -> String {
    let [time, other] = [time, other].map(|time| time.to_string());
    let start = if time.get(..10) == other.get(..10) { 11 } else { 0 };
    time.get(start..19).unwrap_or(&time).replace('T', " ")
}
