//! Learns exceptions from what the detector has written: the fewest for each image, and what each of them rests on.
//!
//! What was seen is not all that software does, and not all that was seen is harmless. So an exception is about one
//! program of the image and what it did to its own files, never about more than medium severity. Nothing is learnt from
//! what shows a person or an intruder: sessions, what is done in a container that a session has changed, and programs
//! that are not the image's. There is no I/O and no clock here.

pub(crate) mod check;
mod globs;
mod seen;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::config;
use crate::config::draft::{Draft, unescaped};
use crate::detect::describe::counted;
use crate::finding::{Container, Evidence, File, Finding, Kind, Severity, Text, Time};
use crate::output::terminal::safe;
use crate::policy::Selection;
use crate::policy::exception::refusal;
use crate::policy::pattern::literal;
use crate::runtime::endpoint::user_of;
use check::Verdict;
pub(crate) use seen::Seen;
use seen::{Place, place, start};

/// The highest severity of what is learnt.
const HIGHEST: Severity = Severity::Medium;
/// How many characters of an image's name are in that of an exception.
const NAME: usize = 200;

/// What is learnt from.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// Which containers.
    pub(crate) selection: Selection,
    /// Also containers of which no runtime has told the image.
    pub(crate) without_image: bool,
    /// Also shells.
    pub(crate) shells: bool,
}

/// Why nothing is learnt from a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Omitted {
    Quiet,
    Suppressed,
    OtherImage,
    Refused,
    InSession,
    AfterSession,
    Program,
    Shell,
    High,
    Installation,
    NoImage,
    NoEvidence,
    NoPattern,
}

impl Omitted {
    /// What these findings are.
    const fn text(self) -> &'static str {
        match self {
            Self::Quiet => "expected ones and those of severity info, which need no exception",
            Self::Suppressed => "those that an exception suppresses already",
            Self::OtherImage => "those about containers of other images",
            Self::Refused => "those that can never be excepted",
            Self::InSession => "sessions, and what was done in them",
            Self::AfterSession => "those in a container that a session had changed before",
            Self::Program => "programs, scripts and libraries that are not the image's",
            Self::Shell => "shells (`--include-shells` learns those that the application starts)",
            Self::High => "those of high severity",
            Self::Installation => "those by a package manager or in a step of a build",
            Self::NoImage => {
                "those about containers of which no runtime has told the image, or only that of an ordinary user \
                (`--without-image` learns from them, but such an exception holds in every container)"
            }
            Self::NoEvidence => {
                "those without evidence: which program acts, or on which file, is not known for certain (it may not be \
                the image's, or what its path says)"
            }
            Self::NoPattern => "those with so many paths, or such ones, that no narrow patterns stand for them",
        }
    }
}

/// What all acts have in common that an exception is about.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Common {
    image: Option<Text>,
    finding: Kind,
    /// The condition about the program, and its path.
    program: (&'static str, Text),
    origin: &'static str,
}

/// Acts that one exception is about.
#[derive(Debug, Default)]
struct Group {
    severity: Option<Severity>,
    findings: u64,
    acts: u64,
    operations: BTreeMap<&'static str, u64>,
    paths: BTreeSet<String>,
    patterns: BTreeSet<String>,
    times: Option<(Time, Time)>,
    containers: BTreeSet<Place>,
}

/// The exceptions that follow from what was seen, as the configuration file has them, with what each rests on. They
/// expire three months after `now`.
pub(crate) fn learn(seen: &Seen, wanted: &Wanted, now: Time) -> String {
    let mut groups: BTreeMap<Common, Group> = BTreeMap::new();
    let mut omitted: BTreeMap<Omitted, u64> = BTreeMap::new();
    for finding in seen.findings() {
        match facts(&finding, seen, wanted) {
            Ok((common, paths, patterns)) => groups.entry(common).or_default().add(&finding, paths, patterns),
            Err(why) => *omitted.entry(why).or_default() += 1,
        }
    }
    let mut names = BTreeSet::new();
    let (mut exceptions, mut toml) = (0, String::new());
    let mut image = None;
    for (common, group) in &groups {
        match group.exception(common, &mut names, now) {
            Some(text) => {
                if image != Some(&common.image) {
                    toml += &heading(common.image.as_ref(), &groups);
                    image = Some(&common.image);
                }
                toml += &text;
                exceptions += 1;
            }
            None => *omitted.entry(Omitted::NoPattern).or_default() += group.findings,
        }
    }
    let (settings, _) = config::parse(&toml, now);
    let verdict = Verdict::of(seen, &settings.policy());
    let mut start = seen.covered();
    start += "# It is what was seen in that time, and not all that these containers ever do. Read each exception, and\n\
              # fill in why it is harmless and who answers for it, before you use it.\n";
    let _ = writeln!(
        start,
        "# Exceptions: {exceptions}. They would have suppressed {} of {} findings above info.",
        verdict.suppressed(),
        verdict.suppressed() + verdict.remaining(),
    );
    if exceptions > config::MOST {
        let _ = writeln!(start, "# A file can have at most {} exceptions: keep those that matter most.", config::MOST);
    }
    if !omitted.is_empty() {
        start += "# Nothing was learnt from these findings:\n";
    }
    for (why, count) in &omitted {
        let _ = writeln!(start, "#   {}: {count}", why.text());
    }
    start + &toml
}

impl Seen {
    /// What was read, as comments.
    fn covered(&self) -> String {
        let Self { nodes, times, lines, foreign, losses, suppressed, .. } = self;
        let mut text = match times {
            Some((first, last)) => format!(
                "# Learnt from {} in {}, written {} on {}.\n",
                counted(self.findings().len() as u64, "finding"),
                counted(*lines, "line"),
                between(*first, *last),
                counted(nodes.len() as u64, "node")
            ),
            None => {
                format!("# Learnt from nothing: the detector has written none of the {}.\n", counted(*lines, "line"))
            }
        };
        for (count, what) in [
            (*foreign, "lines that are not the detector's, or are damaged"),
            (*losses, "events that were lost, or reported without details"),
            (*suppressed, "acts that exceptions have suppressed, and that are in no line"),
        ] {
            if count > 0 {
                let _ = writeln!(text, "# Not covered: {what}: {count}.");
            }
        }
        text
    }
}

/// What an exception for a finding would be about, and the paths and patterns of paths that it would need.
fn facts(
    finding: &Finding,
    seen: &Seen,
    wanted: &Wanted,
) -> Result<(Common, BTreeSet<String>, BTreeSet<String>), Omitted> {
    let kind = finding.finding;
    let when = |is_so: bool, why| if is_so { Err(why) } else { Ok(()) };
    let container = finding.container.as_ref();
    when(finding.suppressed_by.is_some(), Omitted::Suppressed)?;
    when(finding.expected.is_some() || finding.severity == Severity::Info, Omitted::Quiet)?;
    when(wanted.selection.unfulfilled_by(container).next().is_some(), Omitted::OtherImage)?;
    let ruled = finding.ruled_severity();
    when(refusal(kind).is_some() || ruled == Severity::Critical, Omitted::Refused)?;
    when(kind == Kind::Session || finding.session.is_some(), Omitted::InSession)?;
    let changed = place(finding).and_then(|place| seen.changed.get(&place));
    when(changed.is_some_and(|since| *since <= finding.time), Omitted::AfterSession)?;
    when(matches!(kind, Kind::DriftedExec | Kind::FilelessExec | Kind::VolumeExec), Omitted::Program)?;
    when(kind == Kind::ShellInContainer && !wanted.shells, Omitted::Shell)?;
    // What an override has raised matters to somebody.
    when(finding.severity.max(ruled) > HIGHEST, Omitted::High)?;
    when(finding.repeated.as_ref().is_some_and(|repeated| repeated.by.is_some()), Omitted::Installation)?;
    let image = container.and_then(image);
    when(image.is_none() && !wanted.without_image, Omitted::NoImage)?;
    let (Some(process), Some(evidence), Some(file)) = (&finding.process, &finding.evidence, &finding.file) else {
        return Err(Omitted::NoEvidence);
    };
    let program = program(kind, evidence).ok_or(Omitted::NoEvidence)?;
    when(!evidence.path || file.truncated, Omitted::NoEvidence)?;
    let (paths, patterns) = paths(finding, file)?;
    Ok((Common { image: image.cloned(), finding: kind, program, origin: process.origin.name() }, paths, patterns))
}

/// The name of a container's image, if a runtime tells it that is believed.
fn image(container: &Container) -> Option<&Text> {
    let image = container.image.as_ref().filter(|_| user_of(container).is_none())?;
    image.name.as_ref().or(image.digest.as_ref())
}

/// The condition about the program of the image that does it, or that starts a shell.
fn program(kind: Kind, evidence: &Evidence) -> Option<(&'static str, Text)> {
    let Evidence { exe, script, ancestors, .. } = evidence;
    let own = if kind == Kind::ShellInContainer { ("ancestor", ancestors.first()) } else { ("exe", exe.as_ref()) };
    script.as_ref().map(|script| ("script", script.clone())).or_else(|| Some((own.0, own.1?.clone())))
}

/// The paths that a finding is about, and patterns for those that it does not list.
fn paths(finding: &Finding, file: &File) -> Result<(BTreeSet<String>, BTreeSet<String>), Omitted> {
    let repeated = finding.repeated.as_deref();
    let names = repeated.into_iter().flat_map(|repeated| &repeated.names);
    let all = [&file.path, &file.new_path].into_iter().flatten().chain(names);
    let mut paths = all.map(unescaped).collect::<Result<BTreeSet<_>, _>>().map_err(|_| Omitted::NoEvidence)?;
    // No pattern stands for what does not lead to the root.
    if paths.iter().any(|path| !path.starts_with('/')) {
        return Err(Omitted::NoEvidence);
    }
    let mut patterns = BTreeSet::new();
    let Some(repeated) = repeated else { return Ok((paths, patterns)) };
    if finding.counts_moves() {
        // The files have had other names, which are not listed.
        let directories = paths.iter().filter_map(|path| path.rsplit_once('/'));
        patterns.extend(directories.map(|(directory, _)| format!("{}/*", literal(directory))));
        paths.clear();
    } else if repeated.names_omitted > 0 {
        let common = repeated.paths.as_ref().ok_or(Omitted::NoPattern)?;
        patterns.insert(globs::of_finding(&unescaped(common).map_err(|_| Omitted::NoEvidence)?));
    }
    if patterns.iter().all(|pattern| globs::is_allowed(pattern)) {
        Ok((paths, patterns))
    } else {
        Err(Omitted::NoPattern)
    }
}

impl Group {
    fn add(&mut self, finding: &Finding, paths: BTreeSet<String>, patterns: BTreeSet<String>) {
        self.severity = self.severity.max(Some(finding.ruled_severity()));
        self.findings += 1;
        self.acts += finding.acts();
        for (op, count) in finding.operations() {
            *self.operations.entry(op.name()).or_default() += count;
        }
        self.paths.extend(paths);
        self.patterns.extend(patterns);
        let (first, last) = self.times.unwrap_or((start(finding), finding.time));
        self.times = Some((first.min(start(finding)), last.max(finding.time)));
        self.containers.extend(place(finding));
    }

    /// The exception, after what it rests on. Returns `None` if it would need too many patterns.
    fn exception(&self, common: &Common, names: &mut BTreeSet<String>, now: Time) -> Option<String> {
        let Common { image, finding, program: (key, program), origin } = common;
        let patterns = match finding {
            // Shells are programs, for which no pattern stands.
            Kind::ShellInContainer => self.paths.iter().map(|path| literal(path)).collect(),
            _ => globs::of(&self.paths, &self.patterns)?,
        };
        let mut draft = Draft::default();
        draft.add("finding", [finding.name().to_owned()]);
        draft.add("severity_at_most", self.severity.map(|severity| severity.name().to_owned()));
        draft.add("operation", self.operations.keys().map(|operation| (*operation).to_owned()));
        draft.add("origin", [(*origin).to_owned()]);
        draft.add("path", patterns);
        draft.add_path(key, program).ok()?;
        image.as_ref().map_or(Ok(()), |image| draft.add_name("image", image)).ok()?;
        let whose = image.as_ref().map_or("any image", Text::as_str);
        let whose: String = whose.chars().take(NAME).collect();
        let name = format!("{whose}: {finding} by {}", program.as_str());
        let mut numbered = (2..).map(|number| format!("{name} ({number})"));
        let name = if names.contains(&name) { numbered.find(|name| !names.contains(name))? } else { name };
        names.insert(name.clone());
        Some(format!("\n{}{}", self.evidence(), draft.toml(&name, now)))
    }

    /// What the exception rests on, as a comment.
    fn evidence(&self) -> String {
        let nodes: BTreeSet<_> = self.containers.iter().map(|(node, _)| node).collect();
        let operations: Vec<_> = self.operations.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let operations = if operations.is_empty() { String::new() } else { format!(" ({})", operations.join(", ")) };
        let times = self.times.map_or_else(String::new, |(first, last)| between(first, last));
        format!(
            "# {}{operations}, {times}, in {} on {}.{}\n",
            counted(self.acts, "act"),
            counted(self.containers.len() as u64, "container"),
            counted(nodes.len() as u64, "node"),
            if self.acts == 1 { " Seen only once." } else { "" },
        )
    }
}

/// What the exceptions for an image rest on, as a comment.
fn heading(image: Option<&Text>, groups: &BTreeMap<Common, Group>) -> String {
    let own = groups.iter().filter(|(common, _)| common.image.as_ref() == image).map(|(_, group)| group);
    let containers: BTreeSet<_> = own.flat_map(|group| &group.containers).collect();
    let containers = counted(containers.len() as u64, "container");
    match image {
        Some(image) => format!("\n# Image {}: seen in {containers} with findings.\n", safe(image.as_str())),
        None => format!(
            "\n# No runtime has told the image: seen in {containers} with findings. These exceptions hold in every \
            container.\n"
        ),
    }
}

/// The time between two moments, to the second.
fn between(first: Time, last: Time) -> String {
    let [first, last] = [first, last].map(|time| format!("{:.0}", time.0));
    if first == last { format!("at {first}") } else { format!("between {first} and {last}") }
}
