//! What a policy would have done to what the detector has written.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::seen::Seen;
use crate::detect::describe::counted;
use crate::explain::unfulfilled;
use crate::finding::{File, Finding, Kind, Op, Severity, Text};
use crate::output::terminal::safe;
use crate::policy::{Exception, Policy, Subject};

/// How many kinds of remaining findings are shown.
const SHOWN: usize = 100;

/// How many findings, and how many acts they are about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    findings: u64,
    acts: u64,
}

impl Count {
    fn add(&mut self, finding: &Finding) {
        self.findings += 1;
        self.acts += finding.acts();
    }

    fn shown(self) -> String {
        let findings = counted(self.findings, "finding");
        if self.acts == self.findings { findings } else { format!("{findings} about {} acts", self.acts) }
    }
}

/// Findings that remain and differ in little.
#[derive(Debug)]
struct Remaining {
    count: Count,
    /// What the first one says.
    message: String,
}

/// What a policy would have done.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// What the exceptions suppress, by their names.
    by_exception: BTreeMap<String, Count>,
    /// The exceptions that suppress nothing, in their order.
    unused: Vec<String>,
    /// What remains, the highest severity first, by kind and image.
    remaining: BTreeMap<(std::cmp::Reverse<Severity>, Kind, Option<Text>), Remaining>,
    /// What is expected, or of severity info.
    quiet: Count,
}

impl Verdict {
    /// What this policy would have done to the findings. Exceptions that have suppressed some of them do not count.
    pub(crate) fn of(seen: &Seen, policy: &Policy) -> Self {
        let mut verdict = Self::default();
        // A session matters as much as what was done in it.
        let mut reported_in: BTreeMap<String, Severity> = BTreeMap::new();
        for finding in seen.findings().filter(|finding| finding.finding != Kind::Session) {
            let is_reported = verdict.judge(&finding, finding.severity, policy);
            if let Some(session) = finding.session.clone().filter(|_| is_reported) {
                let highest = reported_in.entry(session).or_insert(Severity::Info);
                *highest = finding.severity.max(*highest);
            }
        }
        for session in seen.findings().filter(|finding| finding.finding == Kind::Session) {
            let is_own = session.severity_rule.is_some_and(|rule| rule.kind() == Kind::Session);
            let of_acts = session.session.as_deref().and_then(|id| reported_in.get(id)).copied();
            let severity = if is_own { session.severity } else { of_acts.unwrap_or(Severity::Info) };
            verdict.judge(&session, severity, policy);
        }
        let used = |exception: &&Exception| !verdict.by_exception.contains_key(&exception.name);
        verdict.unused = policy.exceptions.iter().filter(used).map(|exception| exception.name.clone()).collect();
        verdict
    }

    /// Judges a finding with this severity. Returns whether it is reported and above info.
    fn judge(&mut self, finding: &Finding, severity: Severity, policy: &Policy) -> bool {
        if finding.expected.is_some() || severity == Severity::Info {
            self.quiet.add(finding);
            return false;
        }
        if let Some(exception) = suppressing(finding, policy) {
            self.by_exception.entry(exception.name.clone()).or_default().add(finding);
            return false;
        }
        let image = finding.container.as_ref().and_then(super::image).cloned();
        let key = (std::cmp::Reverse(severity), finding.finding, image);
        let remaining = self
            .remaining
            .entry(key)
            .or_insert_with(|| Remaining { count: Count::default(), message: finding.message.clone() });
        remaining.count.add(finding);
        true
    }

    /// How many findings above info the exceptions suppress.
    pub(crate) fn suppressed(&self) -> u64 {
        self.by_exception.values().map(|count| count.findings).sum()
    }

    /// How many findings above info remain.
    pub(crate) fn remaining(&self) -> u64 {
        self.remaining.values().map(|remaining| remaining.count.findings).sum()
    }

    /// Writes it for people.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let total = |counts: &mut dyn Iterator<Item = Count>| {
            counts.fold(Count::default(), |sum, count| Count {
                findings: sum.findings + count.findings,
                acts: sum.acts + count.acts,
            })
        };
        let suppressed = total(&mut self.by_exception.values().copied());
        writeln!(out, "suppressed: {}", suppressed.shown())?;
        for (name, count) in &self.by_exception {
            writeln!(out, "  {}: {}", safe(name), count.shown())?;
        }
        for name in &self.unused {
            writeln!(out, "  {}: nothing; no finding in these lines meets all of its conditions", safe(name))?;
        }
        let remaining = total(&mut self.remaining.values().map(|remaining| remaining.count));
        writeln!(out, "remaining:  {}", remaining.shown())?;
        for ((severity, kind, image), Remaining { count, message }) in self.remaining.iter().take(SHOWN) {
            let image = image.as_ref().map_or("no image known", Text::as_str);
            let severity = severity.0;
            writeln!(out, "  {severity} {kind}, {}: {}, such as: {}", safe(image), count.shown(), safe(message))?;
        }
        if let Some(more) = self.remaining.len().checked_sub(SHOWN).filter(|more| *more > 0) {
            writeln!(out, "  … and {more} more kinds and images")?;
        }
        writeln!(out, "expected, or of severity info, so that no exception is needed: {}", self.quiet.shown())
    }
}

/// The first exception that suppresses all acts that a finding is about. Of acts that differ, one exception must hold
/// for each, and the first one is named.
fn suppressing<'a>(finding: &Finding, policy: &'a Policy) -> Option<&'a Exception> {
    let mut first = None;
    for variant in variants(finding) {
        let subject = Subject::of(&variant)?;
        let holds = |exception: &&Exception| unfulfilled(&variant, &subject, exception).is_empty();
        let exception = policy.exceptions.iter().find(holds)?;
        first = first.or(Some(exception));
    }
    first
}

/// The acts that a finding lists, as findings of their own.
fn variants(finding: &Finding) -> Vec<Finding> {
    let alone = || Finding { repeated: None, ..finding.clone() };
    let (Some(repeated), Some(file)) = (&finding.repeated, &finding.file) else { return vec![alone()] };
    let mut operations: Vec<_> = finding.operations().into_iter().map(|(op, _)| Some(op)).collect();
    if operations.is_empty() {
        // It is about what was executed.
        operations.push(None);
    }
    let paths = std::iter::once((file.path.clone(), file.new_path.clone()))
        .chain(repeated.names.iter().map(|name| (Some(name.clone()), None)));
    let with = |op: Option<Op>, (path, new_path): (Option<Text>, Option<Text>)| {
        let file = File { op, path, new_path, ..file.clone() };
        Finding { file: Some(file), ..alone() }
    };
    paths
        .flat_map(|paths| operations.iter().map(move |op| (*op, paths.clone())))
        .map(|(op, paths)| with(op, paths))
        .collect()
}
