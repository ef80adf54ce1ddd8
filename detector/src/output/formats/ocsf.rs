//! OCSF, the Open Cybersecurity Schema Framework.
//!
//! A finding becomes a *Detection Finding*, with what is known of the act as its evidence. What the detector expects is
//! no detection: if the line tells who did what, it becomes a *Process Activity* or a *File System Activity*. Notices
//! are the life of an application, errors of it, or base events.

use serde_json::{Map, Value, json};

use super::attack;
use super::facts::{
    FileType, directory, endpoint, file_name, finding_of, id, is_alert, is_exec, is_failure, process_id, reasons,
    severity, title,
};
use super::rest::Rest;
use crate::finding::{
    File, Finding, ImageOp, Kind, Line, MountOp, Notice, NoticeEvent, Op, Origin, Severity, SeverityRule, Time,
};
use crate::output::terminal::sentence;

/// The version of the schema.
const VERSION: &str = "1.8.0";

/// The name of the detector, and of who makes it.
const PRODUCT: &str = "detector";

/// What profiles add: containers, the host with the actor, the users of Linux, and what a security product says of what
/// it has seen.
const PROFILES: [&str; 4] = ["container", "host", "linux/linux_users", "security_control"];

/// The type of resources that containers are.
const CONTAINER: &str = "Container";

/// The line in this format.
pub(super) fn converted(line: &Line, mut rest: Rest) -> Value {
    let mut event = match line {
        Line::Finding(finding) => match Activity::of(finding) {
            Some(activity) => activity_event(finding, activity, &mut rest),
            None => detection(finding, &mut rest),
        },
        Line::Notice(notice) => notice_event(notice, &mut rest),
    };
    add_common(line, &mut event, &mut rest);
    event.insert("unmapped".to_owned(), rest.into_value());
    Value::Object(event)
}

/// A class of events, by name, number and category.
struct Class(&'static str, u64, &'static str, u64);

const SYSTEM: &str = "System Activity";
const APPLICATION: &str = "Application Activity";

const FILE_ACTIVITY: Class = Class("File System Activity", 1001, SYSTEM, 1);
const PROCESS_ACTIVITY: Class = Class("Process Activity", 1007, SYSTEM, 1);
const DETECTION: Class = Class("Detection Finding", 2004, "Findings", 2);
const LIFECYCLE: Class = Class("Application Lifecycle", 6002, APPLICATION, 6);
const ERROR: Class = Class("Application Error", 6008, APPLICATION, 6);
const BASE: Class = Class("Base Event", 0, "Uncategorized", 0);

/// The activity of what a class has no number for.
const OTHER: u64 = 99;

/// The members that say what an event is about.
fn classified(Class(class, uid, category, category_uid): Class, (activity, activity_id): (&str, u64)) -> Members {
    // Activities without a number have a name of our own, but no type.
    let of_type = if activity_id == OTHER { "Other" } else { activity };
    members(json!({
        "class_name": class, "class_uid": uid, "category_name": category, "category_uid": category_uid,
        "activity_name": activity, "activity_id": activity_id,
        "type_name": format!("{class}: {of_type}"), "type_uid": uid * 100 + activity_id,
    }))
}

type Members = Map<String, Value>;

fn members(object: Value) -> Members {
    match object {
        Value::Object(members) => members,
        _ => Members::new(),
    }
}

/// Adds what every event has.
fn add_common(line: &Line, event: &mut Members, rest: &mut Rest) {
    let severity = match line {
        Line::Finding(finding) => finding.severity,
        Line::Notice(notice) => severity(&notice.event),
    };
    let (name, number) = match severity {
        Severity::Info => ("Informational", 1),
        Severity::Low => ("Low", 2),
        Severity::Medium => ("Medium", 3),
        Severity::High => ("High", 4),
        Severity::Critical => ("Critical", 5),
    };
    rest.take("severity");
    let time = rest.text("time");
    let node = rest.text("node");
    let cluster = rest.text("cluster").map(|name| json!({"name": name, "type": "cluster"}));
    let (code, correlated) = match line {
        Line::Finding(finding) => {
            (finding.finding.name(), Some(finding.session.as_ref().unwrap_or(&finding.id).as_str()))
        }
        Line::Notice(notice) => (notice.event.name(), finding_of(&notice.event)),
    };
    let common = json!({
        "time": time.as_deref().and_then(|time| time.parse().ok()).map(milliseconds),
        "severity": name,
        "severity_id": number,
        "device": {
            "hostname": node, "name": node, "groups": [cluster], "type": "Unknown", "type_id": 0,
            "os": {"name": "Linux", "type": "Linux", "type_id": 200},
        },
        "metadata": {
            "version": VERSION,
            "product": product(),
            "profiles": PROFILES,
            "uid": id(line),
            "correlation_uid": correlated,
            "event_code": code,
            "sequence": rest.take("seq"),
            "original_time": time,
            "log_name": PRODUCT,
            "log_format": "JSON",
            "log_version": rest.number("schema"),
            "reporter": {"hostname": node, "name": PRODUCT},
            "tags": pairs(rest.take("labels")),
        },
    });
    event.extend(members(common));
}

fn product() -> Value {
    json!({"name": PRODUCT, "vendor_name": PRODUCT, "version": env!("CARGO_PKG_VERSION")})
}

/// Labels as a list of pairs.
fn pairs(labels: Value) -> Vec<Value> {
    members(labels).into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
}

/// What a finding is that is expected, or is only for the record.
enum Activity {
    /// A program was executed.
    Launch,
    /// Something was done to a file.
    File(&'static str, u64),
}

impl Activity {
    fn of(finding: &Finding) -> Option<Self> {
        let (process, file) = (finding.process.as_ref()?, finding.file.as_ref()?);
        // What acts from outside is not in the container that it changes.
        let is_inside = matches!(process.origin, Origin::Entrypoint | Origin::Entered | Origin::Application);
        if finding.severity > Severity::Info || finding.summary.is_some() || !is_inside {
            return None;
        }
        // A script or a library is not what the process was started from.
        if is_exec(finding.finding) {
            return (file.path.is_some() && file.path == process.exe).then_some(Self::Launch);
        }
        let (name, number) = match file.op? {
            Op::Image(op) => match op {
                ImageOp::Create | ImageOp::Mkdir | ImageOp::Mknod | ImageOp::Symlink | ImageOp::Link => ("Create", 1),
                ImageOp::OpenWrite | ImageOp::Truncate | ImageOp::Write | ImageOp::MmapWrite => ("Update", 3),
                ImageOp::Unlink | ImageOp::Rmdir => ("Delete", 4),
                ImageOp::Rename | ImageOp::Exchange => ("Rename", 5),
                ImageOp::Utimes | ImageOp::SetXattr | ImageOp::RemoveXattr | ImageOp::SetFlags => ("Set Attributes", 6),
                ImageOp::Chmod | ImageOp::Chown | ImageOp::SetCapability | ImageOp::SetAcl => ("Set Security", 7),
                ImageOp::CopyUp => (op.name(), OTHER),
            },
            Op::Mount(MountOp::Mount | MountOp::Bind | MountOp::MoveMount) => ("Mount", 12),
            Op::Mount(MountOp::Umount) => ("Unmount", 13),
            Op::Mount(op) => (op.name(), OTHER),
        };
        Some(Self::File(name, number))
    }
}

/// A Process Activity or a File System Activity.
fn activity_event(finding: &Finding, activity: Activity, rest: &mut Rest) -> Members {
    let (container, resources) = container(rest);
    let mut event = match activity {
        Activity::Launch => {
            let mut process = process(finding, rest);
            let actor = json!({"process": process["parent_process"]});
            process.extend(members(json!({"container": container, "file": file(finding, rest)})));
            let mut event = classified(PROCESS_ACTIVITY, ("Launch", 1));
            event.extend(members(json!({
                "actor": actor, "process": process, "launch_type": "Exec", "launch_type_id": 3,
            })));
            event
        }
        Activity::File(name, number) => {
            let mut process = process(finding, rest);
            process.insert("container".to_owned(), container);
            let new_file = new_file(rest);
            let mut event = classified(FILE_ACTIVITY, (name, number));
            event.extend(members(json!({
                "actor": {"user": process["user"], "process": process},
                "file": file(finding, rest),
                "file_result": new_file,
            })));
            event
        }
    };
    // They are in the metadata and in the process.
    for key in ["id", "finding", "session"] {
        rest.take(key);
    }
    event.insert("attacks".to_owned(), attacks(rest).into());
    add_judgement(finding, &mut event, rest);
    // The schema has fields for them in findings only.
    rest.put("resources", resources.into_iter().filter(|resource| resource["type"] != CONTAINER).collect());
    event
}

/// A Detection Finding.
fn detection(finding: &Finding, rest: &mut Rest) -> Members {
    let (container, resources) = container(rest);
    let mut evidences = further_evidences(rest);
    if let Some(act) = act(finding, container, rest) {
        evidences.insert(0, act);
    }
    let session = rest.text("session").filter(|session| *session != finding.id);
    let session = session.map(|uid| json!({"uid": uid, "type": "session", "title": title(Kind::Session)}));
    let rule = rest.text("severity_rule");
    rest.take("finding");
    let mut event = classified(DETECTION, if finding.revision == 1 { ("Create", 1) } else { ("Update", 2) });
    add_judgement(finding, &mut event, rest);
    let info = json!({
        "uid": rest.take("id"),
        "title": title(finding.finding),
        "desc": finding.message,
        "types": [finding.finding.name()],
        "analytic": {
            "name": finding.finding.name(),
            "uid": rule.as_deref().unwrap_or(finding.finding.name()),
            "desc": finding.severity_rule.map(SeverityRule::when),
            "type": "Rule",
            "type_id": 1,
        },
        "attacks": attacks(rest),
        "created_time": milliseconds(finding.time),
        "first_seen_time": event.get("start_time"),
        "last_seen_time": event.get("end_time"),
        "related_events": [session],
        "product": product(),
    });
    event.extend(members(json!({"finding_info": info, "evidences": evidences, "resources": resources})));
    event
}

/// Adds how a finding is judged, how often it was made, and when.
fn add_judgement(finding: &Finding, event: &mut Members, rest: &mut Rest) {
    let is_suppressed = finding.suppressed_by.is_some();
    let exception = rest.text("suppressed_by").map(|name| policy("exception", name));
    let policy = exception.or_else(|| Some(policy("override", rest.text("overridden.by")?)));
    let is_alert = is_alert(finding);
    let is_unverified = finding.file.as_ref().is_some_and(|file| file.unverified.is_some());
    let start = rest.milliseconds("repeated.first").or_else(|| rest.milliseconds("summary.started"));
    let end = rest.milliseconds("repeated.last").or_else(|| rest.milliseconds("summary.ended"));
    event.extend(members(json!({
        "message": rest.text("message"),
        "is_alert": is_alert,
        "action": "Observed",
        "action_id": 3,
        "disposition": if is_alert { "Alert" } else { "Logged" },
        "disposition_id": if is_alert { 19 } else { 17 },
        "confidence": is_unverified.then_some("Low"),
        "confidence_id": is_unverified.then_some(1),
        "policy": policy,
        "count": rest.take("repeated.count"),
        "start_time": start,
        "end_time": end,
        "duration": start.zip(end).map(|(start, end)| end - start),
    })));
    // What a finding is worth to its consumers is theirs to say, unless an exception has decided about it.
    if event["class_uid"] == DETECTION.1 && is_suppressed {
        event.extend(members(json!({"status": "Suppressed", "status_id": 3})));
    }
}

/// The techniques, each in the technique that it is a part of.
fn attacks(rest: &mut Rest) -> Vec<Value> {
    let Value::Array(ids) = rest.take("mitre") else { return Vec::new() };
    let described = |id: &str| json!({"uid": id, "name": attack::name(id), "src_url": attack::page(id)});
    let attacks = ids.iter().filter_map(Value::as_str).map(|id| {
        let whole = attack::whole(id);
        let tactic = attack::tactic(id).map(|attack::Tactic(uid, name)| json!({"uid": uid, "name": name}));
        json!({
            "technique": described(whole),
            "sub_technique": (whole != id).then(|| described(id)),
            "tactic": tactic,
        })
    });
    attacks.collect()
}

/// Something in the configuration file that has decided about an event.
fn policy(kind: &str, name: impl Into<Value>) -> Value {
    json!({"name": name.into(), "type": kind, "is_applied": true})
}

/// The act that was found, if anything is known of it.
fn act(finding: &Finding, container: Value, rest: &mut Rest) -> Option<Value> {
    if finding.process.is_none() && finding.file.is_none() {
        return None;
    }
    let peer = rest.text("process.peer").or_else(|| rest.text("summary.peer"));
    let peer = peer.as_deref().and_then(endpoint).map(|(ip, port)| json!({"ip": ip, "port": port}));
    let process = process(finding, rest);
    // Who executes a file is the parent of the process that does, and its user is not known.
    let mut actor = json!({"session": process.get("session")});
    if is_exec(finding.finding) {
        actor["process"] = process.get("parent_process").cloned().into();
    } else if let Some(of) = &finding.process {
        actor["process"] = json!({"pid": of.pid, "name": of.comm, "uid": process_id(of)});
        actor["user"] = process["user"].clone();
    }
    Some(json!({
        "name": "act",
        "actor": actor,
        "container": container,
        "file": file(finding, rest),
        "src_endpoint": peer,
        "user": process.get("user"),
        "process": process,
    }))
}

/// What else is known of the files and processes.
fn further_evidences(rest: &mut Rest) -> Vec<Value> {
    let mut all = Vec::new();
    let mut add = |name: &str, key: &str, evidence: Value| all.push(json!({"name": name, key: evidence}));
    let mut changed = rest.rest("file.changed");
    if !changed.is_empty() {
        changed.take("time");
        let process = json!({
            "pid": changed.take("pid"), "path": changed.take("exe"), "xattributes": changed.into_value(),
        });
        add("earlier change", "process", process);
    }
    match new_file(rest) {
        Value::Null => {}
        file => add("new path", "file", file),
    }
    for mut program in rest.list("summary.programs") {
        let process = json!({
            "pid": program.take("pid"),
            "path": program.take("exe"),
            "cmd_line": program.command("args"),
            "created_time": program.milliseconds("time"),
            "xattributes": program.into_value(),
        });
        add("program", "process", process);
    }
    for mut file in rest.list("summary.files") {
        let mut described = file_at(&file.text("path").unwrap_or_default());
        described["xattributes"] = file.into_value();
        add("changed file", "file", described);
    }
    if let Value::Array(paths) = rest.take("repeated.names") {
        paths.iter().filter_map(Value::as_str).for_each(|path| add("path", "file", file_at(path)));
    }
    all
}

/// A file of which nothing but the path is known.
fn file_at(path: &str) -> Value {
    json!({"name": file_name(path), "path": path, "type": "Unknown", "type_id": 0})
}

/// The other path of the finding's file.
fn new_file(rest: &mut Rest) -> Value {
    rest.text("file.new_path").map_or(Value::Null, |path| file_at(&path))
}

/// The file that the finding is about.
fn file(finding: &Finding, rest: &mut Rest) -> Value {
    let Some(File { op, changed, dev, inode, .. }) = &finding.file else { return Value::Null };
    let mut file = rest.rest("file");
    let (kind, kind_id) = match finding.finding {
        Kind::DeviceWrite => ("Block Device", 4),
        kind if is_exec(kind) => ("Executable File", 8),
        _ => match FileType::of(*op) {
            Some(FileType::Regular) => ("Regular File", 1),
            Some(FileType::Directory) => ("Folder", 2),
            Some(FileType::Link) => ("Symbolic Link", 7),
            None => ("Unknown", 0),
        },
    };
    let path = file.text("path");
    let nameless = || inode.map_or_else(|| format!("device {dev}"), |inode| format!("inode {inode}"));
    let name = path.as_deref().map_or_else(nameless, |path| file_name(path).to_owned());
    let sha256 = file.text("sha256");
    file.take("dev");
    file.take("inode");
    json!({
        "name": name,
        "path": path,
        "parent_folder": path.as_deref().and_then(directory),
        "type": kind,
        "type_id": kind_id,
        "uid": inode.map_or_else(|| dev.to_string(), |inode| format!("{dev}:{inode}")),
        "hashes": [sha256.map(|value| json!({"algorithm": "SHA-256", "algorithm_id": 3, "value": value}))],
        "is_deleted": file.take("deleted"),
        "modified_time": changed.as_ref().map(|changed| milliseconds(changed.time)),
        "security_descriptor": file.take("mode"),
        "xattributes": file.into_value(),
    })
}

/// The process that did it.
fn process(finding: &Finding, rest: &mut Rest) -> Members {
    let Some(of) = &finding.process else { return Members::new() };
    let mut process = rest.rest("process");
    let path = process.text("exe");
    let file = path
        .as_deref()
        .map(|path| json!({"name": file_name(path), "path": path, "type": "Executable File", "type_id": 8}));
    let parent = of.ancestors.first().filter(|first| first.pid == of.ppid);
    let parent = json!({
        "pid": process.take("ppid"),
        "name": parent.map(|parent| &parent.comm),
        "created_time": parent.map(|parent| milliseconds(parent.start_time)),
    });
    let mut in_container = Vec::new();
    let mut ancestry = Vec::new();
    for mut ancestor in process.list("ancestors") {
        in_container.push(ancestor.take("in_container"));
        ancestry.push(json!({
            "pid": ancestor.take("pid"),
            "name": ancestor.take("comm"),
            "created_time": ancestor.milliseconds("start_time"),
        }));
    }
    process.put("ancestors_in_container", in_container.into());
    let summary = finding.summary.as_ref();
    let session = json!({
        "uid": finding.session,
        "terminal": process.take("tty"),
        "created_time": summary.map(|summary| milliseconds(summary.started)),
        "is_remote": summary.and_then(|summary| summary.peer.as_ref()).map(|_| true),
    });
    process.take("start_time");
    members(json!({
        "pid": process.take("pid"),
        "ptid": process.take("tid"),
        "namespace_pid": process.take("ns_pid"),
        "uid": process_id(of),
        "created_time": milliseconds(of.start_time),
        "name": process.take("comm"),
        "path": path,
        "file": file,
        "cmd_line": process.command("args"),
        "working_directory": process.take("cwd"),
        "user": {"uid": process.number("uid")},
        "group": {"uid": process.number("gid")},
        "auid": process.take("login_uid"),
        "session": session,
        "parent_process": parent,
        "ancestry": ancestry,
        "xattributes": process.into_value(),
    }))
}

/// The container, and the resources of the node and the cluster that it is one of. What the schema has no fields for
/// stays.
fn container(rest: &mut Rest) -> (Value, Vec<Value>) {
    let mut container = rest.rest("container");
    if container.is_empty() {
        return (Value::Null, Vec::new());
    }
    let mut image = container.rest("image");
    let (id, name) = (container.text("id"), container.text("name"));
    let uid = id.or_else(|| container.number("cgroup_id").map(|id| format!("cgroup {id}")));
    let digest = image.text("digest");
    let (image_id, image_name) = (image.text("id"), image.text("name"));
    let mut pod = container.rest("pod");
    let pod_uid = pod.text("uid");
    let runtime = container.text("runtime");
    let image_tags = ["entrypoint", "volumes"].map(|name| named(name, image.take(name)));
    let described = json!({
        "uid": uid,
        "name": name,
        "runtime": runtime,
        "hash": digest.as_deref().map(fingerprint),
        "image": {
            "uid": image_id.or(digest).or_else(|| image_name.clone()),
            "name": image_name,
            "tags": image_tags,
        },
        "orchestrator": pod_uid.as_ref().map(|_| "Kubernetes"),
        "pod_uuid": pod_uid.as_deref().filter(|uid| is_uuid(uid)),
        "tags": pairs(container.take("labels")),
    });
    let mut resources = vec![json!({
        "type": CONTAINER, "uid": uid, "name": name, "role": "Affected", "role_id": 3,
    })];
    if let Some(uid) = pod_uid {
        let namespace = pod.text("namespace");
        let mut owner = pod.rest("owner");
        resources.push(json!({
            "type": "Pod", "uid": uid, "name": pod.take("name"), "namespace": namespace,
            "tags": pairs(pod.take("labels")), "role": "Affected", "role_id": 3,
        }));
        if let Some(name) = owner.text("name") {
            resources.push(json!({
                "type": owner.take("kind"), "name": name, "namespace": namespace, "role": "Related", "role_id": 4,
            }));
        }
    }
    container.put("image", image.into_value());
    container.put("pod", pod.into_value());
    rest.put("container", container.into_value());
    (described, resources)
}

/// A list with a name, if there is something in it.
fn named(name: &str, values: Value) -> Value {
    if values.as_array().is_none_or(Vec::is_empty) { Value::Null } else { json!({"name": name, "values": values}) }
}

/// The digest of an image.
fn fingerprint(digest: &str) -> Value {
    match digest.strip_prefix("sha256:") {
        Some(value) => json!({"algorithm": "SHA-256", "algorithm_id": 3, "value": value}),
        None => json!({"algorithm": "Other", "algorithm_id": OTHER, "value": digest}),
    }
}

/// Whether a pod's id is one that Kubernetes' server has given. Those of static pods are hashes.
fn is_uuid(text: &str) -> bool {
    let parts: Vec<_> = text.split('-').map(str::len).collect();
    parts == [8, 4, 4, 4, 12] && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

fn milliseconds(time: Time) -> i64 {
    time.0.as_millisecond()
}

/// A notice.
fn notice_event(notice: &Notice, rest: &mut Rest) -> Members {
    rest.take("event");
    let mut detail = rest.rest("detail");
    let mut event = match &notice.event {
        NoticeEvent::SessionEnded { .. } => session_ended(&mut detail),
        event => told(event, &mut detail),
    };
    event.insert("message".to_owned(), sentence(notice).into());
    rest.put("detail", detail.into_value());
    event
}

/// The end of a session, which is the last that is known of its finding.
fn session_ended(detail: &mut Rest) -> Members {
    let (_, resources) = container(detail);
    let (start, end) = (detail.milliseconds("summary.started"), detail.milliseconds("summary.ended"));
    detail.take("severity");
    detail.take("message");
    let policy = detail.text("overridden.by").map(|name| policy("override", name));
    let mut event = classified(DETECTION, ("Update", 2));
    event.extend(members(json!({
        "finding_info": {
            "uid": detail.take("session"),
            "title": title(Kind::Session),
            "types": [Kind::Session.name()],
            "first_seen_time": start,
            "last_seen_time": end,
            "product": product(),
        },
        "evidences": further_evidences(detail),
        "resources": resources,
        "policy": policy,
        "start_time": start,
        "end_time": end,
    })));
    event
}

/// What the detector says about itself, or about a container.
fn told(event: &NoticeEvent, detail: &mut Rest) -> Members {
    let mut told = match event {
        NoticeEvent::Started { .. } => classified(LIFECYCLE, ("Start", 3)),
        NoticeEvent::Stopped { .. } => classified(LIFECYCLE, ("Stop", 4)),
        NoticeEvent::Healed { .. } | NoticeEvent::PolicyLoaded(_) | NoticeEvent::Degraded { .. }
            if !is_failure(event) =>
        {
            classified(LIFECYCLE, (event.name(), OTHER))
        }
        event if is_failure(event) => classified(ERROR, ("General Error", 1)),
        event => classified(BASE, (event.name(), OTHER)),
    };
    if told["class_uid"] == LIFECYCLE.1 {
        let mut app = product();
        if let Some(version) = detail.text("version") {
            app["version"] = version.into();
        }
        told.insert("app".to_owned(), app);
    }
    let policy = match event {
        NoticeEvent::PolicyLoaded(_) | NoticeEvent::PolicyRefused { .. } => {
            let mut policy = policy("configuration file", detail.take("file"));
            policy["uid"] = detail.take("sha256");
            policy["is_applied"] = matches!(event, NoticeEvent::PolicyLoaded(_)).into();
            Some(policy)
        }
        NoticeEvent::Suppressed { .. } | NoticeEvent::ExceptionExpired { .. } | NoticeEvent::ExceptionUnused { .. } => {
            let mut policy = policy("exception", detail.take("exception"));
            policy["desc"] = detail.take("reason");
            policy["group"] = json!({"name": detail.take("owner")});
            policy["is_applied"] = matches!(event, NoticeEvent::Suppressed { .. }).into();
            Some(policy)
        }
        NoticeEvent::Unwatched { .. } => {
            let mut policy = policy("rule", detail.take("rule"));
            policy["desc"] = detail.take("reason");
            Some(policy)
        }
        _ => None,
    };
    let (start, end) = (detail.milliseconds("from"), detail.milliseconds("until"));
    let mut enrichments = Vec::new();
    let mut observables = Vec::new();
    if matches!(event, NoticeEvent::FileHash { .. })
        && let Some(sha256) = detail.text("sha256")
    {
        observables.push(json!({"type": "Hash", "type_id": 8, "value": sha256}));
        enrichments.push(json!({
            "name": "evidences[].file.hashes", "type": "hash", "value": sha256,
            "data": {"algorithm": "SHA-256", "algorithm_id": 3, "value": sha256},
        }));
    }
    let (container, resources) = container(detail);
    if !container.is_null() {
        enrichments.push(json!({
            "name": "evidences[].container", "type": "container", "value": container["uid"],
            "provider": container["runtime"], "data": {"container": container, "resources": resources},
        }));
    }
    // They are in the message and in the metadata.
    detail.take("message");
    detail.take("finding");
    told.extend(members(json!({
        "count": detail.take("count"),
        "start_time": start,
        "end_time": end,
        "duration": start.zip(end).map(|(start, end)| end - start),
        "policy": policy,
        "status_code": matches!(event, NoticeEvent::Loss { .. }).then(|| detail.take("kind")),
        "status_detail": reasons(detail),
        "enrichments": enrichments,
        "observables": observables,
    })));
    told
}
