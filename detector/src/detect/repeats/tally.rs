//! Acts that are the same apart from a name, as one finding.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::key::{Act, Scope, image_op};
use crate::container::table::TrackedContainer;
use crate::detect::context::Context;
use crate::detect::describe;
use crate::detect::installations::Installation;
use crate::detect::pace::{Pace, SECOND};
use crate::finding::{Finding, ImageOp, Kind, Repeated, Severity, Text, Time};

/// How long after its last line the finding of a tally is published again, if there was more.
const INTERVALS: &[u64] = &[SECOND, 10 * SECOND, 60 * SECOND, 600 * SECOND, 3600 * SECOND];
/// The same of what is executed, whose first line has all but the count, up to severity medium and above it.
const OF_EXECUTED: &[u64] = &[600 * SECOND, 3600 * SECOND];
const OF_EXECUTED_HIGH: &[u64] = &[60 * SECOND, 600 * SECOND, 3600 * SECOND];
/// How many of the first and of the last paths or commands are listed.
const LISTED: usize = 4;

/// How long the command of an installation may be in a message, in bytes.
const MOST_OF_COMMAND: usize = 200;

/// How many acts in how many nanoseconds are so many that the probes count the next ones.
const MANY: u32 = 50;
const MOMENT: u64 = SECOND;

/// Some of many different things: the first and the last ones.
#[derive(Debug)]
struct Sample<T> {
    listed: Vec<T>,
    omitted: u64,
}

impl<T: PartialEq> Sample<T> {
    fn new(first: Option<T>) -> Self {
        Self { listed: first.into_iter().collect(), omitted: 0 }
    }

    fn add(&mut self, one: T) {
        if self.listed.contains(&one) {
            return;
        }
        if self.listed.len() == 2 * LISTED {
            self.listed.remove(LISTED);
            self.omitted += 1;
        }
        self.listed.push(one);
    }

    /// How many there were. One that comes again when it is not listed any more is counted again.
    fn count(&self) -> u64 {
        self.listed.len() as u64 + self.omitted
    }
}

/// What a package manager or a step of a build was started with.
#[derive(Clone, Debug)]
pub(super) struct By {
    args: Vec<Text>,
    is_step: bool,
}

impl By {
    pub(super) fn new(installation: &Installation, context: &Context) -> Self {
        let args = context.redactor.args(installation.args.iter()).map(|arg| describe::text(&arg)).collect();
        Self { args, is_step: installation.is_step }
    }

    /// The command in a message, as far as it is short.
    fn command(&self) -> String {
        let mut command = self.args.iter().map(Text::as_str).collect::<Vec<_>>().join(" ");
        let end = command.floor_char_boundary(MOST_OF_COMMAND);
        if end < command.len() {
            command.replace_range(end.., "…");
        }
        command
    }

    /// What is added to a message about what is done in a step of a build.
    pub(super) fn of_step(&self) -> String {
        if self.is_step { format!(", in a step of a build that runs {}", self.command()) } else { String::new() }
    }
}

/// A tally.
#[derive(Debug)]
pub(super) struct Tally {
    /// The finding about the first act.
    finding: Finding,
    /// Where it happened, and by which program, in a message.
    end_of_message: String,
    /// How many files there are, or how often it was done.
    count: u64,
    /// When the first and the last act happened, in nanoseconds since boot.
    first: u64,
    last: u64,
    /// What the patterns of the paths have in common.
    scope: Scope,
    /// The same of the paths, unless only their patterns are the same.
    common: Option<String>,
    names: Sample<Text>,
    /// The arguments of shells.
    commands: Sample<Vec<Text>>,
    /// What has done all this, if this is about an installation.
    by: Option<By>,
    /// How often each operation was done.
    operations: BTreeMap<ImageOp, u64>,
    /// What was done to the first file after its creation, and to which files it can be done.
    parts: Vec<(Arc<Act>, Scope)>,
    /// How many of the files the probes have only counted.
    counted_in_kernel: u64,
    /// When the acts of a moment began, and how many these are so far.
    moment: (u64, u32),
    pace: Pace,
    is_changed: bool,
}

impl Tally {
    /// The tally that begins with this act. `path` is that of its file, if the acts are about files.
    pub(super) fn new(
        finding: &Finding,
        scope: Scope,
        path: Option<&Text>,
        now: u64,
        container: &TrackedContainer,
    ) -> Self {
        let by = finding.process.as_ref().and_then(|process| {
            let name = describe::base_name(process.exe.as_ref()?.as_str().as_bytes());
            Some((std::str::from_utf8(name).ok()?, process.origin))
        });
        let intervals = match scope {
            Scope::Same(_) if finding.severity > Severity::Medium => OF_EXECUTED_HIGH,
            Scope::Same(_) => OF_EXECUTED,
            _ => INTERVALS,
        };
        Self {
            finding: finding.clone(),
            end_of_message: describe::where_and_by(container, by),
            count: 1,
            first: now,
            last: now,
            common: path.map(|path| scope.common(path.as_str()).to_owned()),
            scope,
            names: Sample::new(path.cloned()),
            commands: Sample::new(command(finding)),
            by: None,
            operations: image_op(finding).map(|op| (op, 1)).into_iter().collect(),
            parts: Vec::new(),
            counted_in_kernel: 0,
            moment: (now, 0),
            pace: Pace::new(intervals, now),
            is_changed: false,
        }
    }

    /// The tally of an installation that begins with this act.
    pub(super) fn of_installation(finding: &Finding, by: By, now: u64, container: &TrackedContainer) -> Self {
        let path = finding.file.as_ref().and_then(|file| file.path.as_ref());
        let mut tally = Self::new(finding, Scope::All, path, now, container);
        if by.is_step || finding.finding == Kind::DriftedExec {
            // Each act is one of another program.
            tally.end_of_message = describe::where_and_by(container, None);
        }
        Self { by: Some(by), ..tally }
    }

    /// Counts another act of the installation. Returns whether the finding must be published at once.
    pub(super) fn add_installed(&mut self, finding: &Finding, now: u64) -> bool {
        self.count += 1;
        self.note(image_op(finding), now);
        let file = finding.file.as_ref();
        let path = file.and_then(|file| file.new_path.as_ref().or(file.path.as_ref()));
        path.into_iter().for_each(|path| self.add_name(path));
        self.raise(finding)
    }

    /// Counts another act that is the same. Returns whether the finding must be published at once: unlike what was
    /// counted before, this act is none that all containers of the image may do.
    pub(super) fn add(&mut self, finding: &Finding, path: Option<&Text>, now: u64) -> bool {
        self.count += 1;
        let was_typical = self.finding.typical.is_some();
        self.finding.add(finding);
        self.note(image_op(&self.finding), now);
        command(finding).into_iter().for_each(|command| self.commands.add(command));
        // The name of a file that will be renamed says nothing.
        if !self.is_replaced() {
            path.into_iter().for_each(|path| self.add_name(path));
        }
        was_typical && self.finding.typical.is_none()
    }

    /// Adds files of which the probes have only counted the creation, until this time.
    pub(super) fn add_counted(&mut self, files: u64, last: u64) {
        self.count += files;
        self.counted_in_kernel += files;
        self.names.omitted += files;
        self.note(None, last);
        *self.operations.entry(ImageOp::Create).or_default() += files;
    }

    /// Whether very many files are created at this time, and nothing else is done to them.
    pub(super) fn is_flood(&mut self, now: u64) -> bool {
        let (start, count) = &mut self.moment;
        if now.saturating_sub(*start) > MOMENT {
            (*start, *count) = (now, 0);
        }
        *count += 1;
        *count >= MANY && self.operations.keys().all(|op| *op == ImageOp::Create)
    }

    /// Adds what was done to a file after its creation, if it is about the first file, or the same was done to that
    /// one. Returns whether the finding must be published at once, or `None` if the act is another one.
    pub(super) fn add_part(&mut self, act: &Arc<Act>, finding: &Finding, pattern: &str, now: u64) -> Option<bool> {
        let (file, op) = (finding.file.as_ref()?, image_op(finding)?);
        let path = file.new_path.as_ref().or(file.path.as_ref())?;
        if self.count > 1 {
            self.parts.iter().find(|(known, scope)| known == act && scope.contains(pattern))?;
            self.note(Some(op), now);
            self.finding.add(finding);
            if op == ImageOp::Rename {
                self.add_name(path);
            }
            return Some(false);
        }
        let scope = self.scope.of_part(pattern);
        if op == ImageOp::Rename {
            self.common = Some(scope.common(path.as_str()).to_owned());
            self.names = Sample::new(Some(path.clone()));
            self.scope = scope.clone();
        }
        self.parts.push((Arc::clone(act), scope));
        self.note(Some(op), now);
        let first = self.finding.file.as_mut()?;
        (first.path, first.mode) = (Some(path.clone()), file.mode);
        Some(self.raise(finding))
    }

    /// Takes the severity and the techniques of another act. Returns whether the severity has risen.
    fn raise(&mut self, finding: &Finding) -> bool {
        for technique in &finding.mitre {
            if !self.finding.mitre.contains(technique) {
                self.finding.mitre.push(technique.clone());
            }
        }
        let before = self.finding.severity;
        self.finding.raise(finding);
        self.finding.severity > before
    }

    fn note(&mut self, op: Option<ImageOp>, now: u64) {
        self.first = self.first.min(now);
        self.last = self.last.max(now);
        self.is_changed = true;
        op.into_iter().for_each(|op| *self.operations.entry(op).or_default() += 1);
    }

    fn add_name(&mut self, path: &Text) {
        self.common.take_if(|common| self.scope.common(path.as_str()) != common);
        self.names.add(path.clone());
    }

    /// Whether the files were renamed after their creation.
    fn is_replaced(&self) -> bool {
        image_op(&self.finding) == Some(ImageOp::Create) && self.operations.contains_key(&ImageOp::Rename)
    }

    pub(super) fn is_changed(&self) -> bool {
        self.is_changed
    }

    /// When the finding must be published again, if nothing else happens.
    pub(super) fn due(&self) -> Option<u64> {
        self.is_changed.then(|| self.pace.due())
    }

    /// Makes the next line.
    pub(super) fn publish(&mut self, now: u64, context: &Context) -> Finding {
        self.pace.note(now, true);
        self.is_changed = false;
        self.finding.revision += 1;
        let [first, last] = [self.first, self.last].map(|time| context.wall(time));
        Finding {
            time: last,
            message: self.message(first, last),
            repeated: Some(Box::new(Repeated {
                count: self.count,
                operations: if self.operations.len() > 1 { self.operations.clone() } else { BTreeMap::new() },
                first,
                last,
                paths: self.paths(),
                names: self.names.listed.clone(),
                names_omitted: self.names.omitted,
                commands: if self.differs_in_numbers() { self.commands.listed.clone() } else { Vec::new() },
                commands_omitted: self.commands.omitted,
                counted_in_kernel: self.counted_in_kernel,
                by: self.by.as_ref().map(|by| by.args.clone()),
            })),
            ..self.finding.clone()
        }
    }

    /// Whether it counts shells whose commands are not all the same.
    fn differs_in_numbers(&self) -> bool {
        matches!(self.scope, Scope::Same(_)) && self.commands.count() > 1
    }

    /// What the paths have in common: the path or directory, or its pattern.
    fn common(&self) -> &str {
        self.common.as_deref().unwrap_or(self.scope.pattern())
    }

    fn paths(&self) -> Option<Text> {
        let common = self.common();
        let paths = match self.scope {
            Scope::All | Scope::Same(_) => return None,
            Scope::Like(_) => common.to_owned(),
            Scope::In(_) => format!("{common}/*"),
            Scope::Below(_) => format!("{common}/**"),
        };
        Some(Text::of_texts(paths))
    }

    fn message(&self, first: Time, last: Time) -> String {
        if let Some(by) = &self.by {
            return self.message_about_installation(by, first, last);
        }
        let (count, common, end) = (self.count, self.common(), &self.end_of_message);
        let directory = if common.is_empty() { "/" } else { common };
        let mut times = format!("first {}, last {}", moment(first, last), moment(last, first));
        if self.counted_in_kernel > 0 {
            times.push_str(&format!(
                ", {} of them only counted by the kernel, by directory and suffix",
                self.counted_in_kernel
            ));
        }
        let place = match self.scope {
            Scope::All | Scope::Same(_) | Scope::Like(_) => None,
            Scope::In(_) => Some(format!("in {directory}")),
            Scope::Below(_) => Some(format!("below {directory}")),
        };
        let words = image_op(&self.finding).map(|op| match words(op) {
            (things, _) if self.is_replaced() => (things, "replaced"),
            (things, "created") if self.operations.len() > 1 => (things, "created and changed"),
            words => words,
        });
        match (words, place) {
            (Some((_, done)), _) if count == 1 => {
                format!("{} {done} {end}", self.names.listed.first().map_or(common, Text::as_str))
            }
            (Some((things, done)), Some(place)) => format!("{count} {things} {done} {place} {end}, {times}"),
            (Some((things, done)), None) if self.names.count() > 1 => {
                format!("{count} {things} like {common} {done} {end}, {times}")
            }
            (Some((_, done)), None) => format!("{common} {done} {count} times {end}, {times}"),
            (None, Some(place)) => format!("{}, and {} more {place}, {times}", self.finding.message, count - 1),
            (None, None) if self.differs_in_numbers() => {
                let most = if self.commands.omitted > 0 { "up to " } else { "" };
                let commands = self.commands.count();
                let message = &self.finding.message;
                format!("{message}, {count} times with {most}{commands} commands that differ in numbers, {times}")
            }
            (None, None) => format!("{}, {count} times, {times}", self.finding.message),
        }
    }

    fn message_about_installation(&self, by: &By, first: Time, last: Time) -> String {
        let mut done: Vec<_> = self.operations.iter().map(|(op, count)| (*count, words(*op))).collect();
        done.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
        let counted = |(count, (things, done)): (u64, (&str, &str))| format!("{count} {things} {done}");
        let did = match self.finding.finding {
            Kind::ShellInContainer => format!("{} shells started", self.count),
            Kind::DriftedExec if by.is_step => format!("what is not as in the image was executed {} times", self.count),
            Kind::DriftedExec => format!("what was installed was executed {} times", self.count),
            Kind::VolumeExec => format!("what is on volumes was executed {} times", self.count),
            Kind::ImageShadowed => format!("mounts or the root were changed {} times", self.count),
            _ => done.into_iter().map(counted).collect::<Vec<_>>().join(", "),
        };
        let whose = if by.is_step { by.of_step() } else { format!(" for {}", by.command()) };
        let times = format!("first {}, last {}", moment(first, last), moment(last, first));
        format!("{did} {}{whose}, {times}", self.end_of_message)
    }
}

/// The arguments of a shell that was started.
fn command(finding: &Finding) -> Option<Vec<Text>> {
    let process = finding.process.as_ref().filter(|_| finding.finding == Kind::ShellInContainer)?;
    process.args.clone()
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
        ImageOp::RemoveXattr => ("files", "stripped of an extended attribute"),
        ImageOp::SetCapability => ("files", "given capabilities"),
        ImageOp::Utimes => ("files", "given other timestamps"),
    }
}

/// The time of day, with the date if the other time is of another day.
fn moment(time: Time, other: Time) -> String {
    let [time, other] = [time, other].map(|time| time.to_string());
    let start = if time.get(..10) == other.get(..10) { 11 } else { 0 };
    time.get(start..19).unwrap_or(&time).replace('T', " ")
}
