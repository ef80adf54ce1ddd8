//! What others have written decides whether the formats are right: OCSF's schemas, the fields of ECS, and the messages
//! of Falco, which `cargo xtask setup` has fetched to `DETECTOR_SCHEMAS_DIR`, by default `.cache/schemas`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::{env, fs};

use serde_json::{Value, json};

use super::facts::{endpoint, image_repository, image_tag, severity, title};
use super::*;
use crate::chain::Head;
use crate::detect::samples;
use crate::event::{Event, ImageOp, Layer, Origin};
use crate::finding::{Finding, Kind, Notice, Severity, SeverityRule, Time};
use crate::output::json::tests::samples as all_samples;

/// What was fetched of this format.
fn fetched(format: Format) -> Value {
    let ours = || concat!(env!("CARGO_MANIFEST_DIR"), "/../.cache/schemas").into();
    let folder = PathBuf::from(env::var_os("DETECTOR_SCHEMAS_DIR").unwrap_or_else(ours));
    let file = folder.join(format!("{format}.json"));
    let text = fs::read(&file)
        .unwrap_or_else(|error| panic!("{}: {error}: run `cargo xtask setup`, which fetches it", file.display()));
    serde_json::from_slice(&text).expect("it is JSON")
}

/// All samples, each as the daemon's clients see it, and as it is in the log.
fn lines() -> Vec<Bytes> {
    let mut head = Head::START;
    let lines = all_samples().into_iter().map(|sample| json::line(&sample));
    lines.flat_map(|line| [head.add(&line).into(), line]).collect()
}

fn converted(format: Format, line: &[u8]) -> Value {
    let converted = format.convert(line).unwrap_or_else(|error| panic!("{error}: {}", line.escape_ascii()));
    serde_json::from_slice(&converted).expect("it is JSON")
}

/// Checks events by the schema of their class.
struct Ocsf(Vec<(String, jsonschema::Validator)>);

impl Ocsf {
    fn new() -> Self {
        let Value::Object(schemas) = fetched(Format::Ocsf) else { panic!("it has a schema for each class") };
        let validator = |schema| jsonschema::validator_for(&schema).expect("the schema is valid");
        Self(schemas.into_iter().map(|(class, schema)| (class, validator(schema))).collect())
    }

    fn check(&self, event: &Value) -> Result<(), String> {
        let class = event["class_uid"].to_string();
        let (_, validator) = self.0.iter().find(|(uid, _)| *uid == class).ok_or_else(|| format!("class {class}"))?;
        let problems: Vec<_> =
            validator.iter_errors(event).map(|error| format!("{}: {error}", error.instance_path())).collect();
        if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
    }
}

#[test]
fn ocsf_is_what_its_schemas_say() {
    let ocsf = Ocsf::new();
    for line in lines() {
        let event = converted(Format::Ocsf, &line);
        ocsf.check(&event).unwrap_or_else(|why| panic!("{why}\n{event:#}"));
    }
}

#[test]
fn what_is_wrong_by_ocsf_s_schemas_is_noticed() {
    let ocsf = Ocsf::new();
    let events: Vec<_> = lines().iter().map(|line| converted(Format::Ocsf, line)).collect();
    for class in [0, 1001, 1007, 2004, 6002, 6008] {
        let event = events.iter().find(|event| event["class_uid"] == class);
        let event = event.unwrap_or_else(|| panic!("no sample becomes an event of class {class}"));
        for (pointer, key, wrong) in [
            ("", "severty", json!("High")),
            ("", "time", json!("2027-01-15T08:00:00Z")),
            ("", "severity_id", json!(7)),
            ("", "metadata", Value::Null),
            ("/metadata", "sequence", json!("7")),
            ("/metadata", "unknown", json!(1)),
            ("/device", "hostname", json!(1)),
        ] {
            let mut event = event.clone();
            event.pointer_mut(pointer).expect("it is there")[key] = wrong;
            assert!(ocsf.check(&event).is_err(), "{pointer}/{key} of {class}");
        }
    }
}

/// Checks lines by the fields of ECS.
struct Ecs(Value);

impl Ecs {
    fn new() -> Self {
        Self(fetched(Format::Ecs))
    }

    fn check(&self, event: &Value) -> Result<(), String> {
        let required = self.0.as_object().into_iter().flatten().filter(|(_, field)| field["required"] == true);
        // The others that are required are so if something is there that they belong to.
        for (name, _) in required.filter(|(name, _)| ["@timestamp", "ecs.version"].contains(&name.as_str())) {
            event.pointer(&format!("/{}", name.replace('.', "/"))).ok_or_else(|| format!("no {name}"))?;
        }
        let categories = event["event"]["category"].as_array().ok_or("no category")?;
        let expected: Vec<_> = categories.iter().flat_map(|category| self.expected_types(category)).collect();
        for of_type in event["event"]["type"].as_array().ok_or("no type")? {
            if !expected.contains(of_type) {
                return Err(format!("event.type: {of_type} is not of {categories:?}"));
            }
        }
        self.check_members(event, "")
    }

    fn expected_types(&self, category: &Value) -> Vec<Value> {
        let allowed = self.0["event.category"]["allowed_values"].as_array().expect("there are some");
        let known = allowed.iter().find(|known| known["name"] == *category);
        known.and_then(|known| known["expected_event_types"].as_array()).cloned().unwrap_or_default()
    }

    fn check_members(&self, value: &Value, above: &str) -> Result<(), String> {
        let Value::Object(members) = value else { return Err(format!("{above} is no object")) };
        for (key, value) in members {
            let path = format!("{above}{key}");
            match self.0.get(&path) {
                _ if path == "detector" => {}
                // Some objects have fields of their own, and others have any.
                Some(field) if field["type"] == "object" && field["object_type"].is_string() => {
                    let is_text = |value: &Value| value.is_string() || value.is_array();
                    let is_flat = |(name, value): (&String, &Value)| !name.contains('.') && is_text(value);
                    if !value.as_object().is_some_and(|members| members.iter().all(is_flat)) {
                        return Err(format!("{path} has something else than texts"));
                    }
                }
                Some(field) if field["type"] != "object" => check_field(&path, field, value)?,
                _ => self.check_members(value, &format!("{path}."))?,
            }
        }
        Ok(())
    }
}

/// Checks the values of a field of ECS.
fn check_field(path: &str, field: &Value, value: &Value) -> Result<(), String> {
    let is_list = field["normalize"].as_array().is_some_and(|how| how.contains(&"array".into()));
    let values = match value {
        Value::Array(values) if is_list => &values[..],
        value if !is_list => std::slice::from_ref(value),
        _ => return Err(format!("{path} is no list")),
    };
    let pattern = field["pattern"].as_str().map(|pattern| regex::Regex::new(pattern).expect("it is one"));
    for value in values {
        let is_right = match field["type"].as_str() {
            Some("keyword" | "wildcard" | "match_only_text" | "constant_keyword") => value.is_string(),
            Some("long") => value.is_i64(),
            Some("boolean") => value.is_boolean(),
            Some("date") => value.as_str().is_some_and(|text| text.parse::<Time>().is_ok()),
            Some("ip") => value.as_str().is_some_and(|text| text.parse::<IpAddr>().is_ok()),
            other => return Err(format!("{path} is of the type {other:?}, which the test does not know")),
        };
        let allowed = field["allowed_values"].as_array();
        let is_allowed = allowed.is_none_or(|all| all.iter().any(|known| known["name"] == *value));
        let is_like = pattern.as_ref().is_none_or(|pattern| value.as_str().is_some_and(|text| pattern.is_match(text)));
        if !is_right || !is_allowed || !is_like {
            return Err(format!("{path}: {value} is no value of it"));
        }
    }
    Ok(())
}

#[test]
fn ecs_has_every_field_that_is_used() {
    let ecs = Ecs::new();
    for line in lines() {
        let event = converted(Format::Ecs, &line);
        ecs.check(&event).unwrap_or_else(|why| panic!("{why}\n{event:#}"));
    }
}

#[test]
fn what_is_wrong_by_the_fields_of_ecs_is_noticed() {
    let (ecs, [shell, ..]) = (Ecs::new(), &session(Format::Ecs)[..]) else { panic!("it has lines") };
    assert_eq!(ecs.check(shell), Ok(()));
    for (pointer, key, wrong) in [
        ("", "@timestamp", Value::Null),
        ("", "@timestamp", json!("yesterday")),
        ("", "comm", json!("sh")),
        ("/process", "comm", json!("sh")),
        ("/process", "pid", json!("1234")),
        ("/process", "args", json!("sh")),
        ("/process", "name", json!(["sh"])),
        ("/process", "interactive", json!("yes")),
        ("/process/thread/capabilities", "effective", json!(["chown"])),
        ("/event", "kind", json!("warning")),
        ("/event", "category", json!(["shell"])),
        ("/event", "type", json!(["deletion"])),
        ("/container", "labels", json!({"a.b": "c"})),
        ("/source", "ip", json!("pod")),
    ] {
        let mut event = shell.clone();
        if event.pointer(pointer).is_none() {
            event[&pointer[1..]] = json!({});
        }
        event.pointer_mut(pointer).expect("it is there")[key] = wrong;
        assert!(ecs.check(&event).is_err(), "{pointer}/{key}");
    }
}

/// The members that ECS has no field for.
const OWN: &[&str] = &[
    "container.cgroup",
    "container.cgroup_id",
    "container.image.entrypoint",
    "container.image.id",
    "container.image.volumes",
    "container.labels_truncated",
    "container.pod.labels_truncated",
    "container.pod.owner.name",
    "detail.added",
    "detail.after_crash",
    "detail.bytes",
    "detail.container.cgroup",
    "detail.container.cgroup_id",
    "detail.container.image.entrypoint",
    "detail.container.image.id",
    "detail.container.image.volumes",
    "detail.container.labels_truncated",
    "detail.container.pod.labels_truncated",
    "detail.container.pod.owner.name",
    "detail.count",
    "detail.exceptions",
    "detail.expired",
    "detail.finding",
    "detail.first",
    "detail.last.seq",
    "detail.last.sha256",
    "detail.more",
    "detail.needs_restart",
    "detail.other_overrides",
    "detail.other_rules",
    "detail.overrides",
    "detail.removed",
    "detail.removed_to.seq",
    "detail.removed_to.sha256",
    "detail.reordered",
    "detail.rules",
    "detail.seq",
    "detail.session",
    "detail.sha256",
    "detail.since",
    "detail.skipped.exec",
    "detail.summary.files.count",
    "detail.summary.files.new_path",
    "detail.summary.files.op",
    "detail.summary.files.path",
    "detail.summary.findings.image_write",
    "detail.summary.findings.shell_in_container",
    "detail.summary.programs.args",
    "detail.summary.programs.exe",
    "detail.summary.programs.pid",
    "detail.summary.programs.signal",
    "detail.summary.programs.time",
    "detail.summary.programs.truncated",
    "detail.summary.via",
    "detail.total",
    "detail.unhashed",
    "detail.warnings",
    "evidence.via",
    "expected.otherwise",
    "expected.reason",
    "file.bytes",
    "file.changed.exe",
    "file.changed.op",
    "file.changed.pid",
    "file.changed.time",
    "file.declared_volume",
    "file.deleted",
    "file.differs",
    "file.layer",
    "file.new_path",
    "file.op",
    "file.truncated",
    "file.unhashed",
    "file.unverified",
    "id",
    "overridden.by",
    "overridden.otherwise",
    "prev",
    "process.ancestors.comm",
    "process.ancestors.in_container",
    "process.ancestors.pid",
    "process.ancestors.start_time",
    "process.login_uid",
    "process.origin",
    "process.stdio",
    "process.truncated",
    "process.tty",
    "repeated.count",
    "repeated.names",
    "repeated.paths",
    "revision",
    "schema",
    "session",
    "summary.files.count",
    "summary.files.new_path",
    "summary.files.op",
    "summary.files.path",
    "summary.findings.image_write",
    "summary.findings.shell_in_container",
    "summary.programs.args",
    "summary.programs.exe",
    "summary.programs.pid",
    "summary.programs.signal",
    "summary.programs.time",
    "summary.programs.truncated",
    "summary.via",
    "suppressed_by",
];

#[test]
fn ecs_leaves_to_the_detector_what_it_has_no_field_for() {
    let mut own = BTreeSet::new();
    let events = lines().iter().map(|line| converted(Format::Ecs, line)).collect::<Vec<_>>();
    events.iter().filter_map(|event| event.get("detector")).for_each(|rest| members(rest, "", &mut own));
    assert_eq!(own, OWN.iter().map(|member| (*member).to_owned()).collect());
}

/// Falco's rules that findings can mean. Those of its version 0.44 are meant.
const RULES: [&str; 6] = [
    "Detect release_agent File Container Escapes",
    "Drop and execute new binary in container",
    "Execution from /dev/shm",
    "Fileless execution via memfd_create",
    "Redirect STDOUT/STDIN to Network Connection in Container",
    "Terminal shell in container",
];

/// Checks an alert by Falco's own messages, and by what falcosidekick refuses.
fn check_falco(declared: &Value, alert: &Value) -> Result<(), String> {
    let is_declared = |key: &str, name: &Value| declared[key].as_array().is_some_and(|names| names.contains(name));
    let Value::Object(members) = alert else { return Err("it is no object".to_owned()) };
    // Falcosidekick adds this one itself, if it is not there.
    for key in members.keys().filter(|key| *key != "uuid") {
        if !is_declared("members", &json!(key)) {
            return Err(format!("unknown member {key}"));
        }
    }
    if !is_declared("priorities", &alert["priority"]) || !is_declared("sources", &alert["source"]) {
        return Err(format!("{} of {}", alert["priority"], alert["source"]));
    }
    for key in ["hostname", "output", "rule", "time", "uuid"] {
        alert[key].as_str().filter(|text| !text.is_empty()).ok_or_else(|| format!("{key} is no text"))?;
    }
    alert["time"].as_str().and_then(|time| time.parse::<Time>().ok()).ok_or("the time is none")?;
    if !alert["tags"].as_array().is_some_and(|tags| tags.iter().all(Value::is_string)) {
        return Err("the tags are no texts".to_owned());
    }
    let fields = alert["output_fields"].as_object().filter(|fields| !fields.is_empty()).ok_or("no fields")?;
    for (name, value) in fields {
        let is_right = match name.as_str() {
            "k8s.ns.name" | "k8s.pod.name" | "proc.name" | "proc.cmdline" | "container.id" | "fd.name" => {
                value.is_string()
            }
            "evt.time" | "proc.pid" | "proc.tty" | "user.uid" | "group.gid" | "fd.rport" => value.is_u64(),
            _ => !value.is_object() && !value.is_array() && !value.is_null(),
        };
        if !is_right {
            return Err(format!("{name} is {value}"));
        }
    }
    Ok(())
}

#[test]
fn alerts_are_what_falco_s_messages_say() {
    let declared = fetched(Format::Falco);
    let mut rules = BTreeSet::new();
    for line in lines() {
        let alert = converted(Format::Falco, &line);
        check_falco(&declared, &alert).unwrap_or_else(|why| panic!("{why}\n{alert:#}"));
        rules.insert(alert["rule"].to_string());
    }
    assert!(rules.contains("\"Terminal shell in container\""), "{rules:?}");
}

#[test]
fn what_is_wrong_by_falco_s_messages_is_noticed() {
    let (declared, [shell, ..]) = (fetched(Format::Falco), &session(Format::Falco)[..]) else { panic!("it has lines") };
    assert_eq!(check_falco(&declared, shell), Ok(()));
    for (pointer, key, wrong) in [
        ("", "severity", json!("high")),
        ("", "priority", json!("High")),
        ("", "source", json!("detector")),
        ("", "time", json!("yesterday")),
        ("", "rule", json!("")),
        ("", "tags", json!([7])),
        ("", "output_fields", json!({})),
        ("/output_fields", "k8s.ns.name", json!(7)),
        ("/output_fields", "proc.pid", json!("7")),
        ("/output_fields", "detector.file", json!({})),
    ] {
        let mut alert = shell.clone();
        alert.pointer_mut(pointer).expect("it is there")[key] = wrong;
        assert!(check_falco(&declared, &alert).is_err(), "{pointer}/{key}");
    }
}

#[test]
fn a_finding_has_the_name_of_falco_s_rule_that_means_it() {
    let shell = samples::exec(Origin::Application, "/bin/dash", &["sh"]);
    let found = samples::found(Event::Exec(Box::new(shell))).expect("it is a shell");
    let rule = |kind, rule, path: &str, tty: bool| {
        let mut finding = Finding { finding: kind, severity_rule: Some(rule), ..found.clone() };
        finding.file.as_mut().expect("it is known").path = Some(path.as_bytes().into());
        let process = finding.process.as_mut().expect("it is known");
        process.tty = tty.then(|| b"pts3"[..].into());
        process.exe = Some(b"/tmp/miner"[..].into());
        let alert = converted(Format::Falco, &json::line(&Line::Finding(Box::new(finding))));
        assert_eq!(alert["output_fields"]["proc.tty"], if tty { 34819 } else { 0 });
        alert["rule"].as_str().expect("it is text").to_owned()
    };
    let given = [
        rule(Kind::KernelControlWrite, SeverityRule::KernelControlWrite, "/sys/fs/cgroup/rdma/release_agent", false),
        rule(Kind::DriftedExec, SeverityRule::Drift, "/tmp/miner", false),
        rule(Kind::VolumeExec, SeverityRule::Volume, "/dev/shm/x", false),
        rule(Kind::FilelessExec, SeverityRule::Fileless, "memfd:x", false),
        rule(Kind::ShellInContainer, SeverityRule::ShellOnSocket, "/bin/sh", true),
        rule(Kind::ShellInContainer, SeverityRule::ShellOnTerminal, "/bin/sh", true),
    ];
    assert_eq!(given, RULES);
    for (kind, severity_rule, path) in [
        (Kind::KernelControlWrite, SeverityRule::KernelControlWrite, "/proc/sys/kernel/core_pattern"),
        // Falco knows nothing of libraries, and of files whose content is that of the image.
        (Kind::DriftedExec, SeverityRule::Drift, "/usr/lib/libx.so"),
        (Kind::DriftedExec, SeverityRule::DriftOfMetadata, "/tmp/miner"),
        (Kind::VolumeExec, SeverityRule::Volume, "/data/x"),
        (Kind::FilelessExec, SeverityRule::Fileless, "/tmp/deleted"),
        (Kind::ShellInContainer, SeverityRule::Shell, "/bin/sh"),
    ] {
        assert_eq!(rule(kind, severity_rule, path, false), title(kind));
    }
}

/// What README.md says of notices: their class in OCSF, their kind in ECS, and their severity.
#[test]
fn notices_are_what_the_tables_for_users_say() {
    let told: BTreeSet<_> = all_samples()
        .iter()
        .filter_map(|line| {
            let Line::Notice(Notice { event, .. }) = line else { return None };
            let bytes = json::line(line);
            let [class, kind] = [
                converted(Format::Ocsf, &bytes)["class_uid"].to_string(),
                converted(Format::Ecs, &bytes)["event"]["kind"].as_str().expect("it is text").to_owned(),
            ];
            Some(format!("{} {class} {kind} {}", event.name(), severity(event)))
        })
        .collect();
    let wanted = [
        "blind_window 6008 event medium",
        "container_info 0 enrichment info",
        "degraded 6002 event info",
        "degraded 6008 event high",
        "exception_expired 0 event low",
        "exception_unused 0 event low",
        "file_hash 0 enrichment info",
        "healed 6002 event high",
        "heartbeat 0 state info",
        "log_rotated 0 event info",
        "loss 6008 event low",
        "loss 6008 event medium",
        "new_chain 6008 event medium",
        "paused 6008 event medium",
        "policy_loaded 6002 event info",
        "policy_refused 6008 event medium",
        "session_ended 2004 alert high",
        "started 6002 event info",
        "started 6002 event medium",
        "stopped 6002 event low",
        "suppressed 0 event info",
        "torn_line 6008 event medium",
        "unwatched 0 event info",
        "watched 0 event info",
    ];
    assert_eq!(told.iter().map(String::as_str).collect::<Vec<_>>(), wanted);
}

#[test]
fn names_of_images_are_taken_apart() {
    for (name, repository, tag) in [
        ("nginx", "nginx", None),
        ("nginx:1.27", "nginx", Some("1.27")),
        ("localhost:5000/shop/web", "localhost:5000/shop/web", None),
        ("localhost:5000/shop/web:2@sha256:0a", "localhost:5000/shop/web", Some("2")),
        ("shop/web@sha256:0a", "shop/web", None),
    ] {
        assert_eq!((image_repository(name), image_tag(name)), (repository, tag), "{name}");
    }
}

#[test]
fn what_is_no_line_is_refused_with_the_reason() {
    let refused = |line: &str| Format::Ocsf.convert(line.as_bytes()).expect_err("it is wrong").to_string();
    assert!(refused("{").starts_with("it is not JSON: "));
    assert_eq!(refused("[]"), "it has neither `finding` nor `event`, so the detector has not written it");
    assert_eq!(
        refused(r#"{"finding":"x","schema":2}"#),
        "its `schema` is 2, but this detector reads 1; use the detector that has written it"
    );
    assert!(refused(r#"{"event":"x","schema":1}"#).starts_with("it is no line of this version of the detector: "));
}

/// The texts and numbers of a value, as texts.
fn leaves(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(members) => members.values().for_each(|value| leaves(value, into)),
        Value::Array(list) => list.iter().for_each(|value| leaves(value, into)),
        Value::String(text) => into.push(text.clone()),
        Value::Number(number) => into.push(number.to_string()),
        Value::Null | Value::Bool(_) => {}
    }
}

/// Whether a text of a line is in a text of the converted one: as it is, in quotes, or as a
/// number that begins with its milliseconds if it is a time.
fn is_in(text: &str, converted: &[String]) -> bool {
    let quoted = text.replace('\'', "'\\''");
    let milliseconds = text.parse().map(|Time(time)| time.as_millisecond().to_string());
    let text = text.strip_prefix("sha256:").unwrap_or(text);
    let text = endpoint(text).filter(|(address, _)| address.contains(['.', ':'])).map_or(text, |(address, _)| address);
    // The names of capabilities take the place of their bits.
    if text.len() == 16 && text.starts_with("00000000") {
        return converted.iter().any(|given| given == text || given.contains("CAP_CHOWN"));
    }
    let is_whole = text.bytes().all(|byte| byte.is_ascii_digit());
    converted.iter().any(|given| match &milliseconds {
        Ok(milliseconds) => given.starts_with(milliseconds) || given == text,
        Err(_) if is_whole => given.split(|of: char| !of.is_ascii_digit()).any(|number| number == text),
        Err(_) => given.contains(text) || given.contains(&quoted),
    })
}

#[test]
fn no_format_loses_anything() {
    for format in Format::ALL {
        for line in lines() {
            let (mut given, mut made) = (Vec::new(), Vec::new());
            let mut native: Value = serde_json::from_slice(&line).expect("it is JSON");
            // Each format has its own names or numbers for severities.
            for severity in ["/severity", "/detail/severity"] {
                native.pointer_mut(severity).map(Value::take);
            }
            let event = converted(format, &line);
            leaves(&native, &mut given);
            leaves(&event, &mut made);
            for text in given {
                assert!(is_in(&text, &made), "{format} loses {text:?}\n{native:#}\n{event:#}");
            }
        }
    }
}

/// The members of a value, with dots between their keys. The names of labels and the like are left out.
fn members(value: &Value, path: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(members_of) => {
            for (key, value) in members_of {
                members(value, &format!("{path}.{key}"), into);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| members(value, path, into)),
        _ => _ = into.insert(path.trim_start_matches('.').to_owned()),
    }
}

/// The members that OCSF has no field for.
const UNMAPPED: &[&str] = &[
    "container.cgroup",
    "container.cgroup_id",
    "container.labels_truncated",
    "container.pod.labels_truncated",
    "evidence.via",
    "expected.otherwise",
    "expected.reason",
    "overridden.by",
    "overridden.otherwise",
    "prev",
    "repeated.paths",
    "revision",
    "summary.findings.image_write",
    "summary.findings.shell_in_container",
    "summary.via",
    // There are fields for them in findings only.
    "repeated.names",
    "resources.name",
    "resources.namespace",
    "resources.role",
    "resources.role_id",
    "resources.tags.name",
    "resources.tags.value",
    "resources.type",
    "resources.uid",
    "severity_rule",
    // What the detector says about itself.
    "detail.added",
    "detail.after_crash",
    "detail.bytes",
    "detail.container.cgroup",
    "detail.container.cgroup_id",
    "detail.container.labels_truncated",
    "detail.container.pod.labels_truncated",
    "detail.exceptions",
    "detail.expired",
    "detail.file",
    "detail.first",
    "detail.last.seq",
    "detail.last.sha256",
    "detail.more",
    "detail.needs_restart",
    "detail.other_overrides",
    "detail.other_rules",
    "detail.overrides",
    "detail.removed",
    "detail.removed_to.seq",
    "detail.removed_to.sha256",
    "detail.reordered",
    "detail.rules",
    "detail.seq",
    "detail.sha256",
    "detail.since",
    "detail.skipped.exec",
    "detail.summary.findings.image_write",
    "detail.summary.findings.shell_in_container",
    "detail.summary.via",
    "detail.total",
    "detail.unhashed",
    "detail.warnings",
];

#[test]
fn ocsf_leaves_unmapped_what_the_schema_has_no_field_for() {
    let mut unmapped = BTreeSet::new();
    let events = lines().iter().map(|line| converted(Format::Ocsf, line)).collect::<Vec<_>>();
    events.iter().filter_map(|event| event.get("unmapped")).for_each(|rest| members(rest, "", &mut unmapped));
    assert_eq!(unmapped, UNMAPPED.iter().map(|member| (*member).to_owned()).collect());
}

/// A session, from its first line to the notice of its end.
fn session(format: Format) -> Vec<Value> {
    samples::session(b"id").iter().map(|line| converted(format, &json::line(line))).collect()
}

/// Checks the values at these places.
fn has(event: &Value, wanted: &[(&str, Value)]) {
    for (pointer, value) in wanted {
        assert_eq!(event.pointer(pointer), Some(value), "{pointer} of {event:#}");
    }
}

#[test]
fn a_session_in_ocsf() {
    let [shell, first, change, last, ended] = &session(Format::Ocsf)[..] else { panic!("it has five lines") };
    has(
        shell,
        &[
            ("/class_uid", json!(2004)),
            ("/activity_id", json!(1)),
            ("/severity_id", json!(4)),
            ("/is_alert", json!(true)),
            ("/time", json!(1_800_000_000_000_i64)),
            ("/finding_info/title", json!("Shell in container")),
            ("/finding_info/analytic/uid", json!("shell_on_terminal")),
            ("/finding_info/attacks/0/sub_technique/name", json!("Unix Shell")),
            ("/evidences/0/process/pid", json!(1234)),
            ("/evidences/0/process/session/terminal", json!("pts0")),
            ("/evidences/0/actor/process/name", json!("runc")),
            ("/evidences/0/file/path", json!("/bin/dash")),
            ("/evidences/0/container/uid", json!(samples::ID)),
            ("/evidences/0/user/uid", json!("0")),
            ("/device/hostname", json!("node-1")),
        ],
    );
    has(change, &[("/evidences/0/actor/process/pid", json!(1234)), ("/evidences/1/file/path", json!("/id"))]);
    let uid = &first["finding_info"]["uid"];
    has(first, &[("/activity_id", json!(1))]);
    has(last, &[("/activity_id", json!(2)), ("/finding_info/uid", uid.clone())]);
    has(ended, &[("/class_uid", json!(2004)), ("/activity_id", json!(2)), ("/finding_info/uid", uid.clone())]);
    has(shell, &[("/metadata/correlation_uid", uid.clone()), ("/finding_info/related_events/0/uid", uid.clone())]);
    assert_ne!(first["metadata"]["uid"], last["metadata"]["uid"]);
}

#[test]
fn what_is_only_for_the_record_is_an_activity_in_ocsf() {
    let change = samples::change(ImageOp::Unlink, Layer::Lower, 0o100_644, "/srv/x");
    let found = samples::found(Event::ImageChange(Box::new(change))).expect("it is a finding");
    let class = |finding: &Finding| {
        let event = converted(Format::Ocsf, &json::line(&Line::Finding(Box::new(finding.clone()))));
        (event["class_uid"].clone(), event["activity_id"].clone())
    };
    let expected = Finding { severity: Severity::Info, ..found.clone() };
    assert_eq!(class(&Finding { severity: Severity::Low, ..found.clone() }), (json!(2004), json!(1)));
    assert_eq!(class(&expected), (json!(1001), json!(4)));
    // Without the details, it is not known who did it.
    assert_eq!(class(&Finding { process: None, ..expected }), (json!(2004), json!(1)));
    let shell = samples::exec(Origin::Entrypoint, "/bin/dash", &["sh"]);
    let shell = samples::found(Event::Exec(Box::new(shell))).expect("it is a shell");
    assert_eq!((shell.severity, class(&shell)), (Severity::Info, (json!(1007), json!(1))));
}
