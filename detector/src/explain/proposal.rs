//! The narrowest exception that holds for a finding, and for nothing that differs from it in a fact that exceptions can
//! tell apart. Every condition is a fact of the finding, literally. If an exception could only be wider than the
//! finding, there is none: somebody must decide by hand how wide it may be.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::config::draft::Draft;
use crate::finding::{Container, Evidence, Finding, Kind, Process, Repeated, Severity, Text, Time};
use crate::policy::Conditions;
use crate::policy::exception::{refusal, refusal_of_sessions, unfulfilled};
use crate::runtime::endpoint::user_of;

/// An exception that is proposed.
#[derive(Debug, Serialize)]
pub(crate) struct Proposal {
    /// It, as the configuration file has it.
    pub(crate) toml: String,
    /// What it cannot tell apart from the finding, a sentence each.
    pub(crate) remarks: Vec<String>,
}

/// The narrowest exception for a finding, or why there is none.
pub(crate) fn propose(finding: &Finding, now: Time) -> Result<Proposal, String> {
    let (process, evidence) = can_be_excepted(finding)?;
    let mut entry = Entry::default();
    entry.draft.add("finding", [finding.finding.name().to_owned()]);
    let severity = finding.ruled_severity();
    if severity < Conditions::HIGHEST {
        entry.draft.add("severity_at_most", [severity.name().to_owned()]);
    }
    if !unfulfilled(finding.finding).iter().any(|(key, _)| *key == "operation") {
        entry.draft.add("operation", finding.operations().into_iter().map(|(op, _)| op.name().to_owned()));
    }
    let of_session = finding.summary.as_ref().map(|summary| summary.via);
    entry.draft.add("origin", [process.origin.name().to_owned()]);
    if let Some(via) = of_session.or(evidence.via).filter(|via| refusal_of_sessions(*via).is_none()) {
        entry.draft.add("via", [via.name().to_owned()]);
    }
    let paths = if finding.finding == Kind::Session { BTreeSet::new() } else { paths(finding, evidence)? };
    for path in &paths {
        entry.draft.add_path("path", path)?;
    }
    entry.add_program(finding, evidence, &paths)?;
    entry.add_container(finding.container.as_ref())?;
    if finding.finding == Kind::Session {
        entry.remarks.push(
            "What is done in the session is judged by itself: as long as something above info in it is not excepted, \
            the session is reported, too."
                .to_owned(),
        );
        entry.remarks.push(
            "It cannot tell apart whether the program has a terminal or takes commands from its standard input."
                .to_owned(),
        );
    }
    entry.remarks.push("It cannot tell apart what has other arguments or another user.".to_owned());
    Ok(entry.finish(finding, now))
}

/// The process and the evidence of a finding for which there can be an exception.
fn can_be_excepted(finding: &Finding) -> Result<(&Process, &Evidence), String> {
    let kind = finding.finding;
    if finding.suppressed_by.is_some() {
        return Err("an exception suppresses it already".to_owned());
    }
    if finding.expected.is_some() {
        return Err("it is expected, and exceptions are not applied to what is expected".to_owned());
    }
    if let Some(why) = refusal(kind) {
        return Err(format!("a finding `{kind}` cannot be excepted: {why}"));
    }
    if finding.ruled_severity() == Severity::Critical {
        return Err("a critical finding cannot be excepted".to_owned());
    }
    let via = finding.summary.as_ref().map(|summary| summary.via);
    if let Some((via, why)) = via.and_then(|via| Some((via, refusal_of_sessions(via)?))) {
        return Err(format!("a session of `{}` cannot be excepted: {why}", via.name()));
    }
    if let Some((_, why)) = unfulfilled(kind).iter().find(|(key, _)| *key == "path" && kind != Kind::Session) {
        return Err(format!(
            "nothing shows for certain which file was executed: {why}; an exception could only be about everything \
            like it that the container runs"
        ));
    }
    // The exception would be about sessions that have this severity by themselves.
    if kind == Kind::Session && finding.severity_rule.is_none_or(|rule| rule.kind() != Kind::Session) {
        return Err(
            "the session has its severity by an act in it, which has a finding of its own; an exception for the act \
            is enough, unless the session by itself is above info"
                .to_owned(),
        );
    }
    let is_known = kind != Kind::Session || via.is_some();
    finding.process.as_ref().zip(finding.evidence.as_deref()).filter(|_| is_known).ok_or_else(|| {
        "the details were lost, or are not in this line, so there is nothing that an exception could demand".to_owned()
    })
}

/// The paths of all files that the finding is about.
fn paths<'a>(finding: &'a Finding, evidence: &Evidence) -> Result<BTreeSet<&'a Text>, String> {
    let file = finding.file.as_ref();
    let of_file: BTreeSet<_> = file.into_iter().flat_map(|file| [&file.path, &file.new_path]).flatten().collect();
    // A script that the process runs is known by itself.
    if !evidence.path && evidence.script.as_ref().is_some_and(|script| of_file.contains(script)) {
        return Ok(BTreeSet::new());
    }
    if !evidence.path || of_file.is_empty() {
        return Err(
            "its path is no evidence, since it is not known to be that of a file on the container's own root; an \
            exception could only be about files at any path"
                .to_owned(),
        );
    }
    match &finding.repeated {
        Some(repeated) => paths_of_all(finding, repeated, of_file),
        None => Ok(of_file),
    }
}

/// The paths of all acts that a finding counts.
fn paths_of_all<'a>(
    finding: &Finding,
    repeated: &'a Repeated,
    mut paths: BTreeSet<&'a Text>,
) -> Result<BTreeSet<&'a Text>, String> {
    let wider = |why: &str| {
        let like = repeated.paths.as_ref().map_or_else(String::new, |paths| format!(", such as {paths}"));
        Err(format!("{why}; write an exception with a pattern of the paths{like}, if all of them may be changed"))
    };
    if repeated.by.is_some() {
        return wider("it is about everything that a package manager or a step of a build has done");
    }
    if finding.counts_moves() {
        return wider("the files have had other names, which the finding does not list");
    }
    if repeated.names_omitted > 0 {
        return wider("it is about more paths than it lists");
    }
    paths.extend(&repeated.names);
    Ok(paths)
}

/// The conditions of an exception, and what it cannot tell apart.
#[derive(Default)]
struct Entry {
    draft: Draft,
    remarks: Vec<String>,
}

impl Entry {
    /// Adds which program does it, or which one has started what is executed.
    fn add_program(&mut self, finding: &Finding, evidence: &Evidence, paths: &BTreeSet<&Text>) -> Result<(), String> {
        let Evidence { exe, script, ancestors, .. } = evidence;
        if let Some(script) = script {
            return self.draft.add_path("script", script);
        }
        let is_execution = matches!(finding.finding, Kind::ShellInContainer | Kind::DriftedExec);
        let own = finding.process.as_ref().and_then(|process| process.exe.as_ref());
        // The path of what is executed says which program it is.
        let is_said = is_execution && own.is_some_and(|own| paths.contains(own));
        match (exe, ancestors.first()) {
            (_, Some(ancestor)) if is_said => return self.draft.add_path("ancestor", ancestor),
            (_, None) if is_said => self.remarks.push(
                "It holds whatever starts the program: nothing above it in the container is known to be a file of the \
                image."
                    .to_owned(),
            ),
            (Some(exe), _) => return self.draft.add_path("exe", exe),
            (None, _) if finding.finding == Kind::Session => {
                return Err("its programs differ, or are not the image's, so an exception could only be about every \
                            session that begins like it"
                    .to_owned());
            }
            (None, _) => self.remarks.push(
                "It holds whatever program does it: the one of the finding is not known to be a file of the image."
                    .to_owned(),
            ),
        }
        Ok(())
    }

    /// Adds what the runtime tells about the container.
    fn add_container(&mut self, container: Option<&Container>) -> Result<(), String> {
        let container = container.filter(|container| user_of(container).is_none());
        let image = container.and_then(|container| container.image.as_ref());
        let pod = container.and_then(|container| container.pod.as_ref());
        let known = [
            ("image", image.and_then(|image| image.name.as_ref().or(image.digest.as_ref()))),
            ("container", container.and_then(|container| container.name.as_ref())),
            ("namespace", pod.and_then(|pod| pod.namespace.as_ref())),
        ];
        for (key, name) in known {
            if let Some(name) = name {
                self.draft.add_name(key, name)?;
            }
        }
        if known.iter().all(|(_, name)| name.is_none()) {
            self.remarks.push(
                "It holds in every container of the node: no runtime has told which one this is, or only that of an \
                ordinary user, who can make it say anything."
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// The exception.
    fn finish(self, finding: &Finding, now: Time) -> Proposal {
        // The number of the act, which no other one of the same boot has.
        let number = finding.id.split('-').nth(2).unwrap_or(&finding.id);
        Proposal { toml: self.draft.toml(&format!("{}-{number}", finding.finding), now), remarks: self.remarks }
    }
}
