//! What acts must have in common to be the same again.

use std::sync::Arc;

use super::pattern;
use crate::detect::installations::Installation;
use crate::detect::place::{self, Place};
use crate::detect::process;
use crate::event::{Event, Layer, Origin};
use crate::finding::{
    Difference, Expected, File, Finding, ImageOp, Kind, Op, Process, Severity, StdioKind, Text, Unread,
};

/// How long the texts of a key can be together. An act with longer ones keeps a line of its own.
const LONGEST: usize = 1024;

/// How many numbers the arguments of a shell can have that may differ, and how many digits such a number can have. More
/// could be a program.
const MOST_NUMBERS: usize = 4;
const MOST_DIGITS: usize = 10;

/// The suffixes of files that are code.
const CODE: &[&str] = &[
    "awk", "bash", "cgi", "class", "cjs", "elf", "jar", "js", "jsp", "jspx", "ko", "lua", "mjs", "node", "php", "phar",
    "phtml", "pl", "pm", "ps1", "pth", "py", "pyc", "pyo", "pyw", "rb", "service", "sh", "so", "tcl", "timer", "war",
    "wasm", "zsh",
];

/// What is the same in all acts of a tally. Whatever differs here is told at once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Act {
    pub(super) container: u64,
    pub(super) session: Option<String>,
    same: Same,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Same {
    /// Acts of the same kind by a package manager or in a step of a build, whose first process is this.
    Installation(process::Key, Kind),
    Facts(Box<Facts>),
}

/// The facts about an act that are not its file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Facts {
    origin: Origin,
    uid: u32,
    /// The program that acts.
    exe: Text,
    kind: Kind,
    severity: Severity,
    expected: Option<Expected>,
    may_be_expected: bool,
    /// The exceptions and overrides that may hold for it.
    candidates: Vec<u16>,
    op: Option<Op>,
    layer: Option<Layer>,
    differs: Option<Difference>,
    unverified: Option<Unread>,
    place: Place,
    /// The pattern of the directory that a file comes from, if it is another one.
    from: Option<String>,
    is_executable: bool,
    /// The suffix of code.
    code: Option<&'static str>,
}

impl Act {
    /// Whether it creates plain files that are neither code nor controls, in no session, and about which nobody has
    /// decided anything: the probes can count them.
    pub(super) fn is_countable(&self) -> bool {
        let Same::Facts(facts) = &self.same else { return false };
        self.session.is_none()
            && matches!(facts.origin, Origin::Entrypoint | Origin::Application)
            && facts.op == Some(Op::Image(ImageOp::Create))
            && facts.severity <= Severity::Medium
            && facts.candidates.is_empty()
            && matches!(facts.place, Place::Scratch | Place::Other)
            && !facts.is_executable
            && facts.code.is_none()
    }
}

/// What acts are about that are the same apart from that.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Scope {
    /// Everything.
    All,
    /// This very thing.
    Same(String),
    /// The files with this pattern of a path.
    Like(String),
    /// The files in a directory with this pattern.
    In(String),
    /// The files below a directory with this pattern.
    Below(String),
}

impl Scope {
    /// The part of a path that all acts of the scope have, if their patterns stand for the same.
    pub(super) fn common<'a>(&self, path: &'a str) -> &'a str {
        match self {
            Self::All | Self::Same(_) | Self::Like(_) => path,
            Self::In(directory) | Self::Below(directory) => {
                // A pattern has the slashes of its path.
                let end = path.match_indices('/').nth(directory.matches('/').count()).map_or(path.len(), |(at, _)| at);
                &path[..end]
            }
        }
    }

    /// Whether a file with this pattern of a path belongs to it.
    pub(super) fn contains(&self, pattern: &str) -> bool {
        match self {
            Self::All => true,
            Self::Same(of) | Self::Like(of) => pattern == of,
            Self::In(of) => directory(pattern) == of,
            Self::Below(of) => pattern.strip_prefix(of.as_str()).is_some_and(|rest| rest.starts_with('/')),
        }
    }

    /// The scope of what is done to the same files later, given the pattern of the path that the first one has then.
    pub(super) fn of_part(&self, pattern: &str) -> Self {
        match self {
            Self::Below(_) if !self.contains(pattern) => Self::Below(directory(pattern).to_owned()),
            Self::All | Self::Same(_) | Self::Below(_) => self.clone(),
            Self::Like(_) => Self::Like(pattern.to_owned()),
            Self::In(_) => Self::In(directory(pattern).to_owned()),
        }
    }

    /// The pattern, or what is the same. The directory at the top has none.
    pub(super) fn pattern(&self) -> &str {
        match self {
            Self::All => "",
            Self::Same(pattern) | Self::Like(pattern) | Self::In(pattern) | Self::Below(pattern) => pattern,
        }
    }
}

/// What a finding is about.
#[derive(Debug)]
pub(super) enum About {
    /// This very thing.
    Same(String),
    /// A file: its final path, and the pattern of that.
    File { path: Text, pattern: String },
}

impl About {
    /// The path of the file.
    pub(super) fn path(&self) -> Option<&Text> {
        match self {
            Self::Same(_) => None,
            Self::File { path, .. } => Some(path),
        }
    }

    /// The narrowest scope that it belongs to.
    pub(super) fn narrowest(&self) -> Scope {
        match self {
            Self::Same(same) => Scope::Same(same.clone()),
            Self::File { pattern, .. } => Scope::Like(pattern.clone()),
        }
    }
}

/// The key of a tally.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) act: Arc<Act>,
    pub(super) scope: Scope,
}

/// Finds out what a finding about an event has in common with others. Returns `None` if it is never counted, because it
/// matters too much, or because too little is known.
pub(super) fn of(event: &Event, finding: &Finding) -> Option<(Act, About)> {
    match finding.finding {
        Kind::ImageWrite | Kind::ImageShadowed | Kind::ShellInContainer | Kind::DriftedExec | Kind::VolumeExec => {}
        Kind::DeviceWrite
        | Kind::FilelessExec
        | Kind::CgroupEscape
        | Kind::KernelControlWrite
        | Kind::SensorTampering
        | Kind::HandleOpen
        | Kind::HostExec
        | Kind::Session
        | Kind::TestAlert => return None,
    }
    if finding.severity == Severity::Critical {
        return None;
    }
    let (container, process, file) = (finding.container.as_ref()?, finding.process.as_ref()?, finding.file.as_ref()?);
    let (path, exe) = (file.path.as_ref()?, process.exe.as_ref()?);
    if file.truncated || !process.truncated.is_empty() {
        return None;
    }
    let path_after = file.new_path.as_ref().unwrap_or(path);
    let is_executed = finding.finding == Kind::ShellInContainer || matches!(event, Event::Exec(_));
    let about = if is_executed || !path_after.as_str().starts_with('/') {
        let args: Vec<_> = process.args.iter().flatten().map(Text::as_str).collect();
        let args = args.join("\0");
        let args = if finding.finding == Kind::ShellInContainer { without_numbers(&args) } else { args };
        // A file that was changed is another program.
        let version = match event {
            Event::Exec(exec) => (exec.file.size, exec.file.change_time),
            _ => (0, 0),
        };
        About::Same(format!("{path}\0{}\0{:?}\0{version:?}\0{args}", file.dev, file.inode))
    } else {
        About::File { path: path_after.clone(), pattern: pattern::of(path_after.as_str()) }
    };
    if is_executed && process.args.is_none() {
        return None;
    }
    let from = pattern::of(directory(path.as_str()));
    let facts = Facts {
        origin: process.origin,
        uid: process.uid,
        exe: exe.clone(),
        kind: finding.finding,
        severity: finding.severity,
        expected: finding.expected,
        candidates: finding.candidates.as_ref().map_or_else(Vec::new, |candidates| candidates.numbers().to_vec()),
        // Of what is executed there is one finding, which says when this changes.
        may_be_expected: finding.visit.is_some() || finding.typical.is_some() && !is_executed,
        op: file.op,
        layer: file.layer,
        differs: file.differs,
        unverified: file.unverified,
        place: place_of(path).max(place_of(path_after)),
        from: (pattern::of(directory(path_after.as_str())) != from).then_some(from),
        is_executable: file.mode.is_some_and(|mode| mode.is_executable()),
        code: code(path_after.as_str()),
    };
    let of_about = match &about {
        About::Same(same) => same.len(),
        About::File { pattern, .. } => pattern.len(),
    };
    let texts = [facts.from.as_ref().map_or(0, String::len), exe.as_str().len(), of_about];
    let act =
        Act { container: container.cgroup_id, session: finding.session.clone(), same: Same::Facts(Box::new(facts)) };
    (texts.iter().sum::<usize>() <= LONGEST).then_some((act, about))
}

/// What a finding about an act of an installation has in common with its others. Returns `None` if it matters too much
/// to be counted so.
pub(super) fn of_installation(finding: &Finding, installation: &Installation) -> Option<Act> {
    let (container, file) = (finding.container.as_ref()?, finding.file.as_ref()?);
    let is_grave = if installation.is_step { is_grave_in_step(finding) } else { is_grave(finding, file) };
    (!is_grave && file.path.is_some()).then(|| Act {
        container: container.cgroup_id,
        session: finding.session.clone(),
        same: Same::Installation(installation.process, finding.finding),
    })
}

/// Whether an act of a package manager is told for itself: what controls access or start, what gives or has privileges,
/// and code that the installation has not written itself, or that runs with a socket.
fn is_grave(finding: &Finding, file: &File) -> bool {
    let most = match finding.finding {
        Kind::ImageWrite => Severity::High,
        Kind::ShellInContainer => Severity::Medium,
        Kind::DriftedExec if runs_what_it_installed(finding) => Severity::High,
        _ => return true,
    };
    finding.severity > most
        || image_op(finding) == Some(ImageOp::SetCapability)
        || file.mode.is_some_and(|mode| mode.has_set_id())
        || [&file.path, &file.new_path].into_iter().flatten().any(|path| place_of(path) == Place::Control)
        || finding.expected.is_some()
        || finding.visit.is_some()
}

/// Whether an act in a step of a build, which is there to change the image, is told for itself: what is critical, leads
/// out of the container or runs from memory, and code that runs with a socket.
fn is_grave_in_step(finding: &Finding) -> bool {
    let is_counted = match finding.finding {
        Kind::ImageWrite | Kind::ImageShadowed | Kind::ShellInContainer => true,
        Kind::DriftedExec | Kind::VolumeExec => finding.process.as_ref().is_some_and(is_offline),
        _ => false,
    };
    !is_counted || finding.severity == Severity::Critical
}

/// Whether the finding is about code that the installation has written itself, in a process without a socket.
fn runs_what_it_installed(finding: &Finding) -> bool {
    let is_own = |file: &File| {
        file.changed.as_ref().is_some_and(|changed| changed.is_installed)
            && file.differs != Some(Difference::Privileges)
    };
    finding.file.as_ref().is_some_and(is_own) && finding.process.as_ref().is_some_and(is_offline)
}

fn is_offline(process: &Process) -> bool {
    process.peer.is_none() && !process.stdio.contains(&StdioKind::Socket)
}

/// The arguments with a zero for each number, which are the same for those that differ only in numbers. Arguments with
/// too many numbers, or too long ones, stay as they are, and so do those with a backslash: what follows it can be the
/// number of a character.
fn without_numbers(args: &str) -> String {
    let numbers = || args.split(|character: char| !character.is_ascii_digit()).filter(|number| !number.is_empty());
    if args.contains('\\') || numbers().count() > MOST_NUMBERS || numbers().any(|number| number.len() > MOST_DIGITS) {
        return args.to_owned();
    }
    let mut same = String::with_capacity(args.len());
    for character in args.chars() {
        match (character.is_ascii_digit(), same.ends_with('0')) {
            (true, true) => {}
            (true, false) => same.push('0'),
            (false, _) => same.push(character),
        }
    }
    same
}

fn place_of(path: &Text) -> Place {
    Place::of(path.as_str().as_bytes())
}

/// The suffix of a file that is code by its name.
fn code(path: &str) -> Option<&'static str> {
    let name = path.rsplit('/').next().unwrap_or(path);
    // What follows can be a version, or `.new` until the file is renamed.
    name.split('.').skip(1).find_map(|suffix| CODE.iter().find(|known| **known == suffix)).copied()
}

/// The directory of a path, without a slash at the end.
pub(super) fn directory(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// The directory above a directory for which it can stand: not the root, and no directory of programs.
pub(super) fn above(pattern: &str) -> Option<&str> {
    let above = directory(pattern);
    (!above.is_empty() && !place::holds_programs(above.as_bytes())).then_some(above)
}

/// Whether it is an operation on an image, and which.
pub(super) fn image_op(finding: &Finding) -> Option<ImageOp> {
    match finding.file.as_ref()?.op? {
        Op::Image(op) => Some(op),
        Op::Mount(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_short_numbers_make_no_difference() {
        for (one, other, is_same) in [
            ("ps -p 4711 -o rss=", "ps -p 12 -o rss=", true),
            ("ps -p 10 -o rss=", "ps -p 7000000000 -o rss=", true),
            ("a 1 2 3 4", "a 4 3 2 1", true),
            ("x7y", "x70y", true),
            ("a 1", "b 1", false),
            ("a 1", "a 1 ", false),
            ("a 1", "a", false),
            ("a 1 2", "a 12", false),
            ("a 1 2 3 4 5", "a 1 2 3 4 6", false),
            ("a 1 2 3 4 0", "a 1 2 3 4", false),
            ("a 12345678901", "a 12345678902", false),
            (r"printf '\\101'", r"printf '\\102'", false),
            ("a \u{661}", "a \u{662}", false),
        ] {
            assert_eq!(without_numbers(one) == without_numbers(other), is_same, "{one} {other}");
        }
    }
}
