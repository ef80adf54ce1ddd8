//! Explains a finding to whoever must decide about it: what is known, why it has its severity, what has decided that it
//! is reported or not, and the narrowest exception that would suppress it. All of that follows from the finding and the
//! policy, by the code that decides when it happens: there is no I/O and no clock here.

mod facts;
pub(crate) mod log;
mod proposal;
pub(crate) mod text;

use serde::Serialize;

use crate::finding::{Container, Finding, Kind, Overridden, Reason, Severity, Time};
use crate::policy::{Conditions, Exception, Override, PathPattern, Pattern, Policy, Subject};
use crate::runtime::endpoint::user_of;
use facts::Fact;
use proposal::Proposal;

/// How many values of a condition are shown.
const SHOWN: usize = 3;

/// What there is to say about a finding.
#[derive(Debug, Serialize)]
pub(crate) struct Explanation {
    /// Its id.
    pub(crate) id: String,
    /// Its kind.
    pub(crate) finding: Kind,
    /// Its severity.
    pub(crate) severity: Severity,
    /// The sentence that it has.
    pub(crate) message: String,
    /// What is known.
    pub(crate) facts: Vec<Fact>,
    /// The override that has given it its severity, and the severity that it would have otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) overridden: Option<Overridden>,
    /// Why it has its severity.
    pub(crate) severity_reason: String,
    /// What has decided.
    pub(crate) decision: Decision,
    /// The narrowest exception for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) proposal: Option<Proposal>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) no_proposal: Option<String>,
}

/// What has decided whether the finding is reported.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Decision {
    /// What became of it.
    pub(crate) outcome: Outcome,
    /// The exception that has suppressed it, or that comes nearest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exception: Option<String>,
    /// The keys of the conditions of this exception that are not fulfilled.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) unfulfilled: Vec<&'static str>,
    /// The same for people.
    pub(crate) text: String,
}

/// What became of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// It is reported with the severity `info`.
    Expected,
    /// An exception has suppressed it.
    Suppressed,
    /// It is reported.
    Reported,
}

/// A policy, and the file that it was read from.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) policy: Policy,
    pub(crate) file: Option<String>,
    /// Why the file cannot be used.
    pub(crate) refused: Option<String>,
}

impl Known {
    /// What the file is called in a sentence.
    fn file_name(&self) -> &str {
        self.file.as_deref().unwrap_or("the configuration file")
    }
}

impl Explanation {
    /// Explains a finding by this policy. An exception that is proposed `now` expires in three months.
    pub(crate) fn of(finding: &Finding, known: &Known, now: Time) -> Self {
        let (proposal, no_proposal) = match proposal::propose(finding, now) {
            Ok(proposal) => (Some(proposal), None),
            Err(why) => (None, Some(why)),
        };
        Self {
            id: finding.id.clone(),
            finding: finding.finding,
            severity: finding.severity,
            message: finding.message.clone(),
            facts: facts::of(finding),
            overridden: finding.overridden.as_deref().cloned(),
            severity_reason: severity_reason(finding, known),
            decision: decision(finding, known),
            proposal,
            no_proposal,
        }
    }
}

/// Why a finding has its severity, or would have it if it were not expected.
fn severity_reason(finding: &Finding, known: &Known) -> String {
    let Some(Overridden { by, otherwise }) = finding.overridden.as_deref() else { return reason_by_rules(finding) };
    let why = match known.policy.overrides.iter().find(|overriding| overriding.name == *by) {
        Some(Override { reason, .. }) => format!(": {reason}"),
        None if known.refused.is_some() => String::new(),
        None => format!(", which is not in {} any more", known.file_name()),
    };
    format!("by override `{by}`{why} (it would be {otherwise} otherwise: {})", reason_by_rules(finding))
}

/// Why a finding has the severity that it has by the detector's rules.
fn reason_by_rules(finding: &Finding) -> String {
    let (kind, severity) = (finding.finding, finding.ruled_severity());
    let Some(rule) = finding.severity_rule else {
        return match kind {
            Kind::Session => "exceptions have lowered it, or it comes from before the detector started".to_owned(),
            _ => "the line does not say by which rule".to_owned(),
        };
    };
    let when = match rule.when() {
        "always" => "it always has this severity".to_owned(),
        "otherwise" => format!("no other rule for `{}` applies", rule.kind()),
        when => when.to_owned(),
    };
    match rule.kind() {
        own if own == kind => when,
        other => format!("a finding `{other}` in it is {severity}: {when}"),
    }
}

/// What has decided whether a finding is reported.
fn decision(finding: &Finding, known: &Known) -> Decision {
    let file = known.file_name();
    let exceptions = &known.policy.exceptions;
    let decided = |outcome, text| Decision { outcome, exception: None, unfulfilled: Vec::new(), text };
    if let Some(expected) = finding.expected {
        let (reason, otherwise, facts) = (expected.reason, expected.otherwise, rests_on(expected.reason));
        let text = format!("it is expected ({reason}), and would be {otherwise} otherwise: {facts}");
        return decided(Outcome::Expected, text);
    }
    if let Some(name) = &finding.suppressed_by {
        let text = match exceptions.iter().find(|exception| exception.name == name.as_str()) {
            Some(exception @ Exception { reason, owner, .. }) => {
                let until = exception.end().map_or("never expires".to_owned(), |end| format!("expires {end}"));
                format!("exception `{name}` suppresses it: {reason} (owner {owner}, {until})")
            }
            None => format!("exception `{name}` has suppressed it, which is not in {file} any more"),
        };
        return Decision { exception: Some(name.to_string()), ..decided(Outcome::Suppressed, text) };
    }
    if let Some(why) = &known.refused {
        return decided(Outcome::Reported, format!("which exceptions there are is not known: {why}"));
    }
    let Some(subject) = Subject::of(finding) else {
        return decided(Outcome::Reported, "no exception can hold for it".to_owned());
    };
    let all = exceptions.iter().map(|exception| (exception, unfulfilled(finding, &subject, exception)));
    let Some((Exception { name, conditions, .. }, unfulfilled)) = all.min_by_key(|(_, keys)| keys.len()) else {
        return decided(
            Outcome::Reported,
            match known.file {
                Some(_) => format!("there are no exceptions in {file}"),
                None => "there is no configuration file, so no exception; if it is elsewhere, name it with --config"
                    .to_owned(),
            },
        );
    };
    let text = if unfulfilled.is_empty() {
        let why = match finding.finding {
            Kind::Session => "it is reported because of what was done in it",
            _ => "it was reported before the exception was loaded, or before the runtime had answered",
        };
        format!("exception `{name}` of {file} holds for it; {why}")
    } else {
        let demands: Vec<_> = unfulfilled.iter().map(|key| demand(conditions, key)).collect();
        let demands = demands.join(", and ");
        format!("no exception in {file} holds for it; the nearest one is `{name}`, but {demands}")
    };
    Decision { exception: Some(name.clone()), unfulfilled, ..decided(Outcome::Reported, text) }
}

/// The keys of what is not fulfilled of an exception.
pub(crate) fn unfulfilled(finding: &Finding, subject: &Subject, exception: &Exception) -> Vec<&'static str> {
    // The severity of a session can be that of an act in it, which is judged by itself.
    let is_own =
        finding.finding != Kind::Session || finding.severity_rule.is_some_and(|rule| rule.kind() == Kind::Session);
    let severity = if is_own { finding.ruled_severity() } else { Severity::Info };
    let nowhere = Container::default();
    let container = finding.container.as_ref().unwrap_or(&nowhere);
    let by_act = exception.conditions.unfulfilled_by_act(subject);
    by_act.chain(exception.unfulfilled_in(severity, finding.time, container, user_of(container).is_some())).collect()
}

/// What an exception demands that is not fulfilled.
fn demand(conditions: &Conditions, key: &str) -> String {
    let listed = |values: Vec<String>| {
        let more = if values.len() > SHOWN { " …" } else { "" };
        let shown: Vec<_> = values.iter().take(SHOWN).map(|value| format!("`{value}`")).collect();
        format!("its `{key}` is {}{more}", shown.join(" or "))
    };
    let texts = |values: &[Pattern]| values.iter().map(|value| value.as_str().to_owned()).collect();
    let paths = |values: &[PathPattern]| values.iter().map(|value| value.as_str().to_owned()).collect();
    match key {
        "finding" => listed(conditions.finding.iter().map(|kind| kind.name().to_owned()).collect()),
        "operation" => listed(conditions.operation.iter().map(|op| op.name().to_owned()).collect()),
        "origin" => listed(conditions.origin.iter().map(|origin| origin.name().to_owned()).collect()),
        "via" => listed(conditions.via.iter().map(|via| via.name().to_owned()).collect()),
        "path" => listed(paths(&conditions.path)),
        "exe" => listed(paths(&conditions.exe)),
        "ancestor" => listed(paths(&conditions.ancestor)),
        "script" => listed(paths(&conditions.script)),
        "image" => listed(texts(&conditions.selection.image)),
        "container" => listed(texts(&conditions.selection.container)),
        "pod" => listed(texts(&conditions.selection.pod)),
        "namespace" => listed(texts(&conditions.selection.namespace)),
        "labels" => {
            let label = |(name, value): (&String, &Pattern)| format!("{name} = {}", value.as_str());
            listed(conditions.selection.labels.iter().map(label).collect())
        }
        "severity_at_most" => format!("its `severity_at_most` is `{}`", conditions.severity_at_most),
        _ => "it had expired".to_owned(),
    }
}

/// The facts that the reason for which an act is expected rests on.
const fn rests_on(reason: Reason) -> &'static str {
    match reason {
        Reason::Scratch => {
            "a process that the container has started, in no session, changes data in a directory that is there for it"
        }
        Reason::HealthCheck => {
            "a runtime has brought it in to run the test that the container declares, or in a pod the same command at \
            a steady pace, and all programs are unchanged ones of the image"
        }
        Reason::Engine => "dockerd makes or removes a directory for its own root, by its executable on the host",
        Reason::Startup => {
            "a process that the container has started, in no session, sets it up, before anybody in it has called \
            listen(2), before anybody has come into it, and within a minute after its start"
        }
        Reason::Scheduled => {
            "the scheduler of the image, of which nothing was changed, runs the same command at a steady pace"
        }
        Reason::Image => "three containers of the image have done the same within ten minutes after their start",
    }
}

#[cfg(test)]
mod tests;
