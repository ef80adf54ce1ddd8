//! The JSON that Falco writes, so that what reads Falco's alerts reads the detector's lines.
//!
//! Where a finding means what one of Falco's own rules means, it has the name of that rule. Facts that Falco knows have
//! the names of its fields, and all others begin with `detector.`.

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::attack;
use super::facts::{capabilities, endpoint, file_name, id, image_repository, image_tag, is_exec, severity, title};
use super::rest::Rest;
use crate::finding::{
    File, Finding, Kind, Layer, Line, Notice, NoticeEvent, Process, Severity, SeverityRule, Text, Time,
};
use crate::output::terminal::{command_line, sentence};

/// The beginning of the names of fields that Falco does not know.
const OWN: &str = "detector";
/// How many digits of a container's id Falco shows.
const SHORT_ID: usize = 12;
/// The device number of the first pseudo-terminal. Those of the others follow.
const FIRST_TERMINAL: u32 = 136 << 8;

/// The line in this format.
pub(super) fn converted(line: &Line, mut rest: Rest) -> Value {
    let (severity, time, node) = match line {
        Line::Finding(finding) => (finding.severity, finding.time, &finding.node),
        Line::Notice(notice) => (severity(&notice.event), notice.time, &notice.node),
    };
    let priority = priority(severity);
    let mut fields = Fields::new();
    rest.take("time");
    rest.take("node");
    add(&mut fields, json!({"evt.time": nanoseconds(time), "evt.hostname": node.name}));
    let (rule, source, message, tags) = match line {
        Line::Finding(finding) => {
            add_finding(finding, &mut fields, &mut rest);
            (rule(finding).to_owned(), "syscall", finding.message.clone(), tags(finding, &mut rest))
        }
        Line::Notice(notice) => {
            add_notice(notice, &mut fields, &mut rest);
            (rule_of(notice), "internal", sentence(notice), vec![OWN.to_owned()])
        }
    };
    rest.take("message");
    rest.take("detail.message");
    let output = output(time, priority, &message, &fields);
    flatten(rest.into_value(), OWN, &mut fields);
    json!({
        "hostname": node.name,
        "output": output,
        "output_fields": fields,
        "priority": priority,
        "rule": rule,
        "source": source,
        "tags": tags,
        "time": time,
        "uuid": uuid(line),
    })
}

type Fields = Map<String, Value>;

/// Adds the fields that are known.
fn add(fields: &mut Fields, known: Value) {
    let Value::Object(known) = known else { return };
    fields.extend(known.into_iter().filter(|(_, value)| !value.is_null() && *value != ""));
}

/// The name that Falco has for a severity.
const fn priority(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "Informational",
        Severity::Low => "Notice",
        Severity::Medium => "Warning",
        Severity::High => "Error",
        Severity::Critical => "Critical",
    }
}

/// The rule by which Falco would have found this, or our own name for it.
fn rule(finding: &Finding) -> &'static str {
    let (process, file) = (finding.process.as_ref(), finding.file.as_ref());
    let path = file.and_then(|file| file.path.as_ref()).map_or("", Text::as_str);
    let is_program = process.zip(file).is_some_and(|(process, file)| is_program(process, file));
    let has_terminal = process.is_some_and(|process| process.tty.is_some());
    match (finding.finding, finding.severity_rule) {
        (_, Some(SeverityRule::ShellOnSocket | SeverityRule::SessionOnSocket)) => {
            "Redirect STDOUT/STDIN to Network Connection in Container"
        }
        (Kind::ShellInContainer, _) if has_terminal => "Terminal shell in container",
        (Kind::DriftedExec, Some(SeverityRule::Drift)) if is_program => "Drop and execute new binary in container",
        (Kind::FilelessExec, _) if path.starts_with("memfd:") => "Fileless execution via memfd_create",
        (Kind::VolumeExec, _) if path.starts_with("/dev/shm/") => "Execution from /dev/shm",
        (Kind::KernelControlWrite, _) if file_name(path) == "release_agent" => {
            "Detect release_agent File Container Escapes"
        }
        (kind, _) => title(kind),
    }
}

/// Whether a file is what the process was started from, and not a script or a library.
fn is_program(process: &Process, file: &File) -> bool {
    file.path.is_some() && file.path == process.exe
}

/// What a notice is called among rules.
fn rule_of(notice: &Notice) -> String {
    match &notice.event {
        NoticeEvent::SessionEnded { .. } => title(Kind::Session).to_owned(),
        event => format!("Detector: {}", event.name().replace('_', " ")),
    }
}

/// What rules are grouped by: the kind of finding, and the tactics and techniques as Falco writes them.
fn tags(finding: &Finding, rest: &mut Rest) -> Vec<String> {
    rest.take("mitre");
    let mut tags = vec![OWN.to_owned(), finding.finding.name().to_owned()];
    for id in &finding.mitre {
        let tactic = attack::tactic(id).map(|tactic| format!("mitre_{}", tactic.1.to_lowercase().replace(' ', "_")));
        tags.extend(tactic.filter(|tactic| !tags.contains(tactic)));
        tags.push(id.to_string());
    }
    tags
}

/// A line for people, as Falco writes it: what happened, and then who and where.
fn output(time: Time, priority: &str, message: &str, fields: &Fields) -> String {
    let time = time.to_string();
    let time_of_day = time.split_once('T').map_or(&*time, |(_, time)| time.trim_end_matches('Z'));
    let shown = [
        ("user_uid", "user.uid"),
        ("process", "proc.name"),
        ("parent", "proc.pname"),
        ("command", "proc.cmdline"),
        ("container_id", "container.id"),
        ("container_name", "container.name"),
        ("image", "container.image"),
        ("k8s_ns", "k8s.ns.name"),
        ("k8s_pod", "k8s.pod.name"),
    ];
    let known = shown.iter().filter_map(|(name, field)| match fields.get(*field)? {
        Value::String(text) => Some(format!(" {name}={text}")),
        value => Some(format!(" {name}={value}")),
    });
    let known: String = known.collect();
    let bar = if known.is_empty() { "" } else { " |" };
    format!("{time_of_day}: {priority} {message}{bar}{known}")
}

/// The id of the line as a UUID of version 8, for which everybody can have a way of their own.
fn uuid(line: &Line) -> String {
    let mut bytes: [u8; 32] = Sha256::digest(id(line)).into();
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digits: String = bytes.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| &digits[part]).join("-")
}

fn nanoseconds(Time(time): Time) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or_default()
}

/// Adds the fields of a finding.
fn add_finding(finding: &Finding, fields: &mut Fields, rest: &mut Rest) {
    if finding.container.is_some() {
        add_container(fields, rest);
    } else {
        add(fields, json!({"container.id": "host", "container.name": "host"}));
    }
    if let Some(process) = &finding.process {
        add_process(process, fields, rest);
    }
    if let Some(file) = &finding.file {
        let program = finding.process.as_ref().filter(|process| is_exec(finding.finding) && is_program(process, file));
        let path = rest.take("file.path");
        add(
            fields,
            json!({
                "evt.type": program.map(|_| "execve"),
                "fd.name": path,
                "fd.ino": rest.take("file.inode"),
                "fs.path.name": path,
                "fs.path.target": rest.take("file.new_path"),
                "proc.is_exe_upper_layer": program.map(|_| matches!(file.layer, Some(Layer::Upper | Layer::New))),
                "proc.is_exe_from_memfd": program.map(|_| path.as_str().is_some_and(|path| path.starts_with("memfd:"))),
            }),
        );
    }
}

/// Adds the process that did it.
fn add_process(of: &Process, fields: &mut Fields, rest: &mut Rest) {
    let mut process = rest.rest("process");
    let args = of.args.as_deref().unwrap_or_default();
    let peer = process.text("peer").or_else(|| rest.text("summary.peer"));
    let (address, port) = peer.as_deref().and_then(endpoint).unzip();
    for key in ["args", "capabilities"] {
        process.take(key);
    }
    process.take("start_time");
    add(
        fields,
        json!({
            "proc.name": process.take("comm"),
            "proc.exepath": process.take("exe"),
            "proc.exe": args.first(),
            "proc.args": args.get(1..).map(command_line),
            "proc.cmdline": command_line(args),
            "proc.cwd": process.take("cwd"),
            "proc.pid": process.take("pid"),
            "proc.pid.ts": nanoseconds(of.start_time),
            "proc.vpid": process.take("ns_pid"),
            "proc.ppid": process.take("ppid"),
            "proc.tty": terminal(of.tty.as_ref().map(Text::as_str)),
            "thread.tid": process.take("tid"),
            "thread.cap_effective": capabilities(of.capabilities).join(" "),
            "user.uid": process.take("uid"),
            "user.loginuid": process.take("login_uid"),
            "group.gid": process.take("gid"),
            "fd.rip": address,
            "fd.rport": port,
        }),
    );
    // Falco counts ancestors from the parent on.
    if of.ancestors.first().is_some_and(|first| first.pid == of.ppid) {
        for (nth, mut ancestor) in process.list("ancestors").into_iter().enumerate() {
            let (name, pid) = (ancestor.take("comm"), ancestor.take("pid"));
            if nth == 0 {
                fields.insert("proc.pname".to_owned(), name.clone());
            }
            fields.insert(format!("proc.aname[{}]", nth + 1), name);
            fields.insert(format!("proc.apid[{}]", nth + 1), pid);
            process.put(&format!("ancestors[{nth}]"), ancestor.into_value());
        }
    }
    rest.put("process", process.into_value());
}

/// The device number of a terminal, which is 0 without one. Only those of pseudo-terminals follow from their names.
fn terminal(name: Option<&str>) -> Option<u32> {
    match name {
        None => Some(0),
        Some(name) => FIRST_TERMINAL.checked_add(name.strip_prefix("pts")?.trim_start_matches('/').parse().ok()?),
    }
}

/// Adds the container and its pod.
fn add_container(fields: &mut Fields, rest: &mut Rest) {
    let mut container = rest.rest("container");
    let (id, image) = (container.text("id"), container.text("image.name"));
    let mut pod = container.rest("pod");
    add(
        fields,
        json!({
            "container.id": id.as_deref().map(|id| id.chars().take(SHORT_ID).collect::<String>()),
            "container.full_id": id,
            "container.name": container.take("name"),
            "container.type": container.take("runtime"),
            "container.image": image,
            "container.image.repository": image.as_deref().map(image_repository),
            "container.image.tag": image.as_deref().and_then(image_tag),
            "container.image.id": container.take("image.id"),
            "container.image.digest": container.take("image.digest"),
            "k8s.ns.name": pod.take("namespace"),
            "k8s.pod.name": pod.take("name"),
            "k8s.pod.uid": pod.take("uid"),
            "k8s.pod.labels": listed(pod.take("labels")),
        }),
    );
    container.put("pod", pod.into_value());
    rest.put("container", container.into_value());
}

/// The labels of a pod in one text, as Falco shows them.
fn listed(labels: Value) -> String {
    let Value::Object(labels) = labels else { return String::new() };
    let labels = labels.iter().map(|(name, value)| format!("{name}:{}", value.as_str().unwrap_or_default()));
    labels.collect::<Vec<_>>().join(", ")
}

/// Adds the fields of a notice.
fn add_notice(notice: &Notice, fields: &mut Fields, rest: &mut Rest) {
    let mut detail = rest.rest("detail");
    add_container(fields, &mut detail);
    if matches!(notice.event, NoticeEvent::PolicyLoaded(_) | NoticeEvent::PolicyRefused { .. }) {
        add(fields, json!({"fd.name": detail.take("file")}));
    }
    rest.put("detail", detail.into_value());
}

/// Adds what is left, each value on its own: objects have dots between their names, and lists of objects have numbers.
fn flatten(value: Value, name: &str, fields: &mut Fields) {
    match value {
        Value::Null => {}
        Value::Object(members) => {
            members.into_iter().for_each(|(key, value)| flatten(value, &format!("{name}.{key}"), fields));
        }
        Value::Array(list) if list.iter().any(|value| value.is_object() || value.is_array()) => {
            list.into_iter().enumerate().for_each(|(nth, value)| flatten(value, &format!("{name}[{nth}]"), fields));
        }
        Value::Array(list) => {
            let texts: Vec<Text> = list.iter().filter_map(|value| serde_json::from_value(value.clone()).ok()).collect();
            let text = if texts.len() == list.len() { command_line(&texts) } else { Value::Array(list).to_string() };
            fields.insert(name.to_owned(), text.into());
        }
        value => _ = fields.insert(name.to_owned(), value),
    }
}
