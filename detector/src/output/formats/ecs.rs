//! ECS, the Elastic Common Schema.
//!
//! What it has no field for is below `detector`, as the schema demands of fields of one's own.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::attack;
use super::facts::{
    FileType, capabilities, directory, endpoint, file_name, id, image_tag, is_alert, is_exec, is_failure, process_id,
    reasons, severity, title,
};
use super::rest::Rest;
use crate::finding::{
    Finding, ImageOp, Kind, Line, Notice, NoticeEvent, Op, ProcessField, Severity, SeverityRule, Text, Time,
};
use crate::output::terminal::{command_line, sentence};

/// The version of the schema.
const VERSION: &str = "9.4.0";

/// The name of the detector, and of the fields of its own.
const OWN: &str = "detector";

/// The line in this format.
pub(super) fn converted(line: &Line, mut rest: Rest) -> Value {
    let mut fields = match line {
        Line::Finding(finding) => of_finding(finding, &mut rest),
        Line::Notice(notice) => of_notice(notice, &mut rest),
    };
    add_common(line, &mut fields, &mut rest);
    fields.insert(OWN.to_owned(), rest.into_value());
    Value::Object(fields)
}

type Fields = Map<String, Value>;

/// Adds fields to those that are there, also to objects in them.
fn add(fields: &mut Fields, more: Value) {
    let Value::Object(more) = more else { return };
    for (key, value) in more {
        match (fields.get_mut(&key), value) {
            (Some(Value::Object(fields)), value @ Value::Object(_)) => add(fields, value),
            (_, value) => _ = fields.insert(key, value),
        }
    }
}

/// Adds what every line has.
fn add_common(line: &Line, fields: &mut Fields, rest: &mut Rest) {
    let (severity, dataset) = match line {
        Line::Finding(finding) => (finding.severity, "detector.findings"),
        Line::Notice(notice) => (severity(&notice.event), "detector.notices"),
    };
    rest.take("severity");
    let node = rest.take("node");
    add(
        fields,
        json!({
            "@timestamp": rest.take("time"),
            "ecs": {"version": VERSION},
            "event": {
                "id": id(line),
                "module": OWN,
                "provider": OWN,
                "dataset": dataset,
                "sequence": rest.take("seq"),
                "severity": score(severity),
            },
            "log": {"level": severity},
            "host": {"name": node, "hostname": node, "os": {"type": "linux"}},
            "orchestrator": {"cluster": {"name": rest.take("cluster")}},
            "labels": labels(rest.take("labels")),
            "agent": {"type": OWN, "version": env!("CARGO_PKG_VERSION")},
        }),
    );
}

/// A severity as a number, as Elastic's own rules count.
const fn score(severity: Severity) -> u64 {
    match severity {
        Severity::Info => 0,
        Severity::Low => 21,
        Severity::Medium => 47,
        Severity::High => 73,
        Severity::Critical => 99,
    }
}

/// Labels whose names have no dots, at which the names would become nested objects. Labels that then have the same name
/// are together.
fn labels(labels: Value) -> Fields {
    let Value::Object(labels) = labels else { return Fields::new() };
    let mut all = Fields::new();
    for (name, value) in labels {
        match all.entry(name.replace('.', "_")).or_insert(Value::Null) {
            Value::Array(values) => values.push(value),
            entry @ Value::Null => *entry = value,
            entry => *entry = vec![entry.take(), value].into(),
        }
    }
    all
}

/// What a finding is: its categories and types.
fn categories(finding: &Finding) -> (&'static str, &'static str) {
    let has_ended = finding.summary.as_ref().is_some_and(|summary| summary.ended.is_some());
    match finding.finding {
        kind if is_exec(kind) => ("process", "start"),
        Kind::ImageWrite | Kind::ImageShadowed => ("file", change(finding.file.as_ref().and_then(|file| file.op))),
        Kind::DeviceWrite | Kind::HandleOpen => ("file", "access"),
        Kind::KernelControlWrite => ("configuration", "access"),
        Kind::CgroupEscape => ("process", "change"),
        Kind::Session if has_ended => ("session", "end"),
        Kind::Session if finding.revision == 1 => ("session", "start"),
        Kind::Session => ("session", "info"),
        Kind::SensorTampering => ("host", "change"),
        _ => ("intrusion_detection", "info"),
    }
}

/// The type of a change.
fn change(op: Option<Op>) -> &'static str {
    match op {
        Some(Op::Image(ImageOp::Create | ImageOp::Mkdir | ImageOp::Mknod | ImageOp::Symlink | ImageOp::Link)) => {
            "creation"
        }
        Some(Op::Image(ImageOp::Unlink | ImageOp::Rmdir)) => "deletion",
        _ => "change",
    }
}

/// The fields of a finding.
fn of_finding(finding: &Finding, rest: &mut Rest) -> Fields {
    let is_alert = is_alert(finding);
    let (category, kind) = categories(finding);
    // An alert is of this category besides.
    let alert = (is_alert && category != "intrusion_detection").then_some(("intrusion_detection", "info"));
    let rule = rest.text("severity_rule");
    let (start, end) = span(rest, ["repeated.first", "summary.started"], ["repeated.last", "summary.ended"]);
    rest.take("finding");
    let mut fields = Fields::new();
    add(
        &mut fields,
        json!({
            "message": rest.take("message"),
            "event": {
                "kind": if is_alert { "alert" } else { "event" },
                "category": [alert.map(|(category, _)| category), Some(category)],
                "type": [alert.map(|(_, kind)| kind), Some(kind)],
                "action": finding.finding.name(),
                "start": start,
                "end": end,
                "duration": duration(start, end),
            },
            "rule": {
                "id": rule.as_deref().unwrap_or(finding.finding.name()),
                "name": title(finding.finding),
                "category": finding.finding.name(),
                "description": finding.severity_rule.map(SeverityRule::when),
                "ruleset": OWN,
            },
            "threat": threat(rest),
        }),
    );
    add_process(finding, &mut fields, rest);
    add_file(finding, &mut fields, rest);
    add_container(&mut fields, rest);
    fields
}

/// When something began and ended: by the first of these members that is there.
fn span(rest: &mut Rest, starts: [&str; 2], ends: [&str; 2]) -> (Option<Time>, Option<Time>) {
    let mut first = |paths: [&str; 2]| paths.into_iter().find_map(|path| rest.text(path)?.parse().ok());
    (first(starts), first(ends))
}

/// How long something lasted, in nanoseconds.
fn duration(start: Option<Time>, end: Option<Time>) -> Option<i64> {
    let nanoseconds = end?.0.as_nanosecond() - start?.0.as_nanosecond();
    i64::try_from(nanoseconds).ok()
}

/// The techniques with their tactics, each field with all of its values.
fn threat(rest: &mut Rest) -> Value {
    let Value::Array(ids) = rest.take("mitre") else { return Value::Null };
    let ids: Vec<_> = ids.iter().filter_map(Value::as_str).collect();
    let whole: BTreeSet<_> = ids.iter().map(|id| attack::whole(id)).collect();
    let parts: BTreeSet<_> = ids.iter().copied().filter(|id| attack::whole(id) != *id).collect();
    let tactics: BTreeSet<_> =
        ids.iter().filter_map(|id| attack::tactic(id)).map(|tactic| (tactic.0, tactic.1)).collect();
    let described = |ids: &BTreeSet<&str>| {
        json!({
            "id": ids,
            "name": ids.iter().filter_map(|id| attack::name(id)).collect::<Vec<_>>(),
            "reference": ids.iter().map(|id| attack::page(id)).collect::<Vec<_>>(),
        })
    };
    let mut technique = described(&whole);
    technique["subtechnique"] = described(&parts);
    json!({
        "framework": "MITRE ATT&CK",
        "technique": technique,
        "tactic": {
            "id": tactics.iter().map(|(id, _)| id).collect::<Vec<_>>(),
            "name": tactics.iter().map(|(_, name)| name).collect::<Vec<_>>(),
        },
    })
}

/// Adds the process that did it, its user, and the other end of its standard input.
fn add_process(finding: &Finding, fields: &mut Fields, rest: &mut Rest) {
    let Some(of) = &finding.process else { return };
    let mut process = rest.rest("process");
    let user = process.number("uid");
    let parent = of.ancestors.first().filter(|first| first.pid == of.ppid);
    let peer = process.text("peer").or_else(|| rest.text("summary.peer"));
    let (address, port) = peer.as_deref().and_then(endpoint).unzip();
    let args = of.args.as_ref().filter(|_| !of.truncated.contains(&ProcessField::Args));
    process.take("start_time");
    process.take("capabilities");
    add(
        fields,
        json!({
            "process": {
                "pid": process.take("pid"),
                "vpid": process.take("ns_pid"),
                "entity_id": process_id(of),
                "name": of.exe.as_ref().map_or(of.comm.as_str(), |exe| file_name(exe.as_str())),
                "executable": process.take("exe"),
                "command_line": of.args.as_deref().map(command_line),
                "args": process.take("args"),
                "args_count": args.map(Vec::len),
                "working_directory": process.take("cwd"),
                "start": of.start_time,
                "interactive": of.tty.is_some(),
                "user": {"id": user},
                "group": {"id": process.number("gid")},
                "parent": {
                    "pid": process.take("ppid"),
                    "name": parent.map(|parent| &parent.comm),
                    "start": parent.map(|parent| parent.start_time),
                },
                "thread": {
                    "id": process.take("tid"),
                    "name": process.take("comm"),
                    "capabilities": {"effective": capabilities(of.capabilities)},
                },
            },
            "user": {"id": user},
            "source": {"ip": address, "port": port},
            "related": {"ip": [address], "user": [user]},
        }),
    );
    rest.put("process", process.into_value());
}

/// Adds the file that it was about.
fn add_file(finding: &Finding, fields: &mut Fields, rest: &mut Rest) {
    let Some(of) = &finding.file else { return };
    let mut file = rest.rest("file");
    let kind = match FileType::of(of.op) {
        Some(FileType::Directory) => Some("dir"),
        Some(FileType::Link) => Some("symlink"),
        Some(FileType::Regular) => Some("file"),
        None => is_exec(finding.finding).then_some("file"),
    };
    let path = of.path.as_ref().map(Text::as_str);
    let sha256 = file.take("sha256");
    add(
        fields,
        json!({
            "file": {
                "path": file.take("path"),
                "name": path.map(file_name),
                "directory": path.and_then(directory),
                "type": kind,
                "inode": file.number("inode"),
                "device": file.take("dev"),
                "mode": file.take("mode"),
                "mtime": of.changed.as_ref().map(|changed| changed.time),
                "hash": {"sha256": sha256},
            },
            "related": {"hash": [sha256]},
        }),
    );
    rest.put("file", file.into_value());
}

/// Adds the container and its pod.
fn add_container(fields: &mut Fields, rest: &mut Rest) {
    let mut container = rest.rest("container");
    let mut image = container.rest("image");
    let mut pod = container.rest("pod");
    let name = image.text("name");
    let pod_labels = match pod.take("labels") {
        Value::Object(labels) => labels,
        _ => Fields::new(),
    };
    let pod_labels = pod_labels.iter().map(|(name, value)| format!("{name}:{}", value.as_str().unwrap_or_default()));
    let uid = pod.text("uid");
    add(
        fields,
        json!({
            "container": {
                "id": container.take("id"),
                "name": container.take("name"),
                "runtime": container.take("runtime"),
                "image": {
                    "name": name,
                    "tag": [name.as_deref().and_then(image_tag)],
                    "hash": {"all": [image.take("digest")]},
                },
                "labels": labels(container.take("labels")),
            },
            "orchestrator": {
                "type": uid.as_ref().map(|_| "kubernetes"),
                "namespace": pod.take("namespace"),
                "resource": {
                    "type": uid.as_ref().map(|_| "pod"),
                    "id": uid,
                    "name": pod.take("name"),
                    "label": pod_labels.collect::<Vec<_>>(),
                    "parent": {"type": pod.take("owner.kind")},
                },
            },
        }),
    );
    container.put("image", image.into_value());
    container.put("pod", pod.into_value());
    rest.put("container", container.into_value());
}

/// The fields of a notice.
fn of_notice(notice: &Notice, rest: &mut Rest) -> Fields {
    let mut detail = rest.rest("detail");
    rest.take("event");
    let (kind, category, of_type) = match &notice.event {
        NoticeEvent::SessionEnded { severity: Severity::Info, .. } => ("event", "session", "end"),
        NoticeEvent::SessionEnded { .. } => ("alert", "session", "end"),
        NoticeEvent::Started { .. } => ("event", "process", "start"),
        NoticeEvent::Stopped { .. } => ("event", "process", "end"),
        NoticeEvent::Healed { .. } => ("event", "process", "change"),
        NoticeEvent::PolicyLoaded(_) | NoticeEvent::Unwatched { .. } | NoticeEvent::Watched { .. } => {
            ("event", "configuration", "change")
        }
        NoticeEvent::PolicyRefused { .. }
        | NoticeEvent::ExceptionExpired { .. }
        | NoticeEvent::ExceptionUnused { .. }
        | NoticeEvent::Suppressed { .. } => ("event", "configuration", "info"),
        NoticeEvent::FileHash { .. } => ("enrichment", "file", "info"),
        NoticeEvent::ContainerInfo { .. } => ("enrichment", "host", "info"),
        NoticeEvent::LogRotated(_) => ("event", "file", "change"),
        NoticeEvent::TornLine { .. } | NoticeEvent::NewChain => ("event", "file", "info"),
        NoticeEvent::Heartbeat { .. } => ("state", "process", "info"),
        _ => ("event", "process", "info"),
    };
    let mut fields = Fields::new();
    add_container(&mut fields, &mut detail);
    add_rule(&notice.event, &mut fields, &mut detail);
    let (start, end) = span(&mut detail, ["from", "summary.started"], ["until", "summary.ended"]);
    let message = sentence(notice);
    let code = matches!(notice.event, NoticeEvent::Loss { .. }).then(|| detail.take("kind"));
    for key in ["severity", "message"] {
        detail.take(key);
    }
    add(
        &mut fields,
        json!({
            "error": {"code": code, "message": is_failure(&notice.event).then_some(&message)},
            "message": message,
            "event": {
                "kind": kind,
                "category": [category],
                "type": [of_type],
                "action": notice.event.name(),
                "reason": reasons(&mut detail),
                "start": start,
                "end": end,
                "duration": duration(start, end),
            },
        }),
    );
    match &notice.event {
        NoticeEvent::Started { .. } => add(&mut fields, json!({"agent": {"version": detail.take("version")}})),
        NoticeEvent::FileHash { .. } => {
            let sha256 = detail.take("sha256");
            add(&mut fields, json!({"file": {"hash": {"sha256": sha256}}, "related": {"hash": [sha256]}}));
        }
        NoticeEvent::PolicyLoaded(_) | NoticeEvent::PolicyRefused { .. } => {
            let file = json!({"path": detail.take("file"), "hash": {"sha256": detail.take("sha256")}});
            add(&mut fields, json!({"file": file}));
        }
        NoticeEvent::LogRotated(_) => add(&mut fields, json!({"file": {"name": detail.take("file")}})),
        _ => {}
    }
    rest.put("detail", detail.into_value());
    fields
}

/// Adds what of the configuration file a notice is about.
fn add_rule(event: &NoticeEvent, fields: &mut Fields, detail: &mut Rest) {
    let rule = match event {
        NoticeEvent::Suppressed { .. } | NoticeEvent::ExceptionExpired { .. } | NoticeEvent::ExceptionUnused { .. } => {
            json!({
                "name": detail.take("exception"), "category": "exception", "description": detail.take("reason"),
                "author": [detail.take("owner")],
            })
        }
        NoticeEvent::Unwatched { .. } => {
            json!({"name": detail.take("rule"), "category": "watch", "description": detail.take("reason")})
        }
        NoticeEvent::SessionEnded { .. } => json!({"name": title(Kind::Session), "category": Kind::Session.name()}),
        _ => Value::Null,
    };
    add(fields, json!({"rule": rule}));
}
