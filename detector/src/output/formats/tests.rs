//! What others have written decides whether the formats are right: OCSF's schemas, the fields of ECS, and the messages
//! of Falco, which `cargo xtask setup` has fetched to `DETECTOR_SCHEMAS_DIR`, by default `.cache/schemas`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::{env, fs};

use serde_json::{Value, json};

use super::*;
use crate::chain::Head;
use crate::detect::samples;
use crate::event::{Event, ImageOp, Layer, Origin};
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

/// Whether a text of a line is in a text of the converted one: as it is, in quotes, or as milliseconds if it is a time.
fn is_in(text: &str, converted: &[String]) -> bool {
    let quoted = text.replace('\'', "'\\''");
    let milliseconds = text.parse().map(|crate::finding::Time(time)| time.as_millisecond().to_string());
    let text = text.strip_prefix("sha256:").unwrap_or(text);
    let text = endpoint(text).filter(|(address, _)| address.contains(['.', ':'])).map_or(text, |(address, _)| address);
    let is_whole = text.bytes().all(|byte| byte.is_ascii_digit());
    converted.iter().any(|given| match &milliseconds {
        Ok(milliseconds) => given == milliseconds || given == text,
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
    assert_eq!(class(&found), (json!(2004), json!(1)));
    assert_eq!(class(&expected), (json!(1001), json!(4)));
    // Without the details, it is not known who did it.
    assert_eq!(class(&Finding { process: None, ..expected }), (json!(2004), json!(1)));
    let shell = samples::exec(Origin::Entrypoint, "/bin/dash", &["sh"]);
    let shell = samples::found(Event::Exec(Box::new(shell))).expect("it is a shell");
    assert_eq!((shell.severity, class(&shell)), (Severity::Info, (json!(1007), json!(1))));
}
