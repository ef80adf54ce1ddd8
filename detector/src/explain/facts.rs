//! What is known about a finding, in words.

use serde::Serialize;

use crate::finding::{Container, Evidence, File, Finding, Layer, Process, Text};
use crate::output::terminal::command_line;

/// Something that is known.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Fact {
    /// What it is about, in a word.
    pub(crate) about: &'static str,
    /// What it is.
    pub(crate) text: String,
}

/// What is known, the most important first.
pub(super) fn of(finding: &Finding) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut add = |about, text: Option<String>| facts.extend(text.map(|text| Fact { about, text }));
    add("time", Some(finding.time.to_string()));
    if let Some(file) = &finding.file {
        add("file", Some(about_file(file)));
        add("changed", changed(file));
        add("sha256", file.sha256.map(|sha256| sha256.to_string()));
    }
    if let Some(repeated) = &finding.repeated {
        let paths = repeated.paths.as_ref().map_or_else(String::new, |paths| format!(", {paths}"));
        add("count", Some(format!("{}, from {} until {}{paths}", repeated.count, repeated.first, repeated.last)));
        add("by", repeated.by.as_deref().map(command_line));
    }
    if let Some(process) = &finding.process {
        add("program", process.exe.as_ref().map(Text::to_string));
        add("command", process.args.as_deref().map(command_line));
        add("process", Some(about_process(process)));
        let names: Vec<_> = process.ancestors.iter().map(|ancestor| ancestor.comm.as_str()).collect();
        add("ancestors", (!names.is_empty()).then(|| names.join(" < ")));
        add("origin", Some(process.origin.name().to_owned()));
    }
    add("session", finding.session.clone());
    let via = finding.summary.as_ref().map(|summary| summary.via);
    let via = via.or(finding.evidence.as_ref().and_then(|evidence| evidence.via));
    add("via", via.map(|via| via.name().to_owned()));
    if let Some(container) = &finding.container {
        add("container", Some(about_container(container)));
        let image = container.image.as_ref();
        let names = image.iter().flat_map(|image| [&image.name, &image.digest]).flatten();
        let names: Vec<_> = names.map(Text::as_str).collect();
        add("image", (!names.is_empty()).then(|| names.join(", ")));
        let pod = container.pod.as_ref().and_then(|pod| Some((pod.namespace.as_ref()?, pod.name.as_ref()?)));
        add("pod", pod.map(|(namespace, name)| format!("{namespace}/{name}")));
    }
    let cluster = finding.node.cluster.as_ref().map_or_else(String::new, |cluster| format!(" of cluster {cluster}"));
    add("node", Some(format!("{}{cluster}", finding.node)));
    add("mitre", (!finding.mitre.is_empty()).then(|| finding.mitre.join(", ")));
    add("evidence", finding.evidence.as_deref().and_then(about_evidence));
    facts
}

fn about_file(file: &File) -> String {
    let mut text = file.op.map_or_else(String::new, |op| format!("{}: ", op.name()));
    text += &match (&file.path, file.inode) {
        (Some(path), _) => path.to_string(),
        (None, Some(inode)) => format!("inode {inode} of device {}", file.dev),
        (None, None) => format!("a file of device {}", file.dev),
    };
    if let Some(path) = &file.new_path {
        text += &format!(" → {path}");
    }
    text += match file.layer {
        Some(Layer::Lower) => ", as in the image",
        Some(Layer::Upper) => ", changed before",
        Some(Layer::New) => ", new",
        None => "",
    };
    if let Some(mode) = file.mode {
        text += &format!(", mode {mode}");
    }
    text
}

/// Who has changed the file before.
fn changed(file: &File) -> Option<String> {
    let changed = file.changed.as_ref()?;
    let by = changed.exe.as_ref().map_or_else(String::new, |exe| format!(" by {exe}"));
    Some(format!("{} at {}{by}, process {}", changed.op.name(), changed.time, changed.pid))
}

fn about_process(process: &Process) -> String {
    let mut text = format!("pid {}, user {}, group {}", process.pid, process.uid, process.gid);
    if let Some(login) = process.login_uid {
        text += &format!(", logged in as user {login}");
    }
    if let Some(tty) = &process.tty {
        text += &format!(", terminal {tty}");
    }
    if let Some(peer) = &process.peer {
        text += &format!(", connected to {peer}");
    }
    if let Some(cwd) = &process.cwd {
        text += &format!(", in {cwd}");
    }
    text
}

fn about_container(container: &Container) -> String {
    let known = [&container.name, &container.id, &container.cgroup].into_iter().flatten();
    let known: Vec<_> = known.map(Text::as_str).collect();
    match known.first() {
        Some(_) => known.join(", "),
        None => format!("cgroup {}", container.cgroup_id),
    }
}

/// What exceptions can demand.
fn about_evidence(evidence: &Evidence) -> Option<String> {
    let Evidence { path, exe, script, ancestors, via: _ } = evidence;
    let mut known = Vec::new();
    known.extend(path.then(|| "path".to_owned()));
    known.extend(exe.as_ref().map(|exe| format!("exe {exe}")));
    known.extend(script.as_ref().map(|script| format!("script {script}")));
    known.extend(ancestors.iter().map(|ancestor| format!("ancestor {ancestor}")));
    (!known.is_empty()).then(|| known.join(", "))
}
