//! OpenTelemetry: lines as records of its log data model, in the protocol of its collectors (OTLP 1.0, over HTTP with
//! Protocol Buffers).
//!
//! The body of a record is the line as text, to the last byte, so that what arrives can be verified as the log can.
//! What is searched for has attributes besides, with the names of the semantic conventions.

mod messages;

use prost::Message as _;
use serde_json::Value;
use syslog_fmt::Severity as Level;

use super::receiver::Item;
use super::syslog;
use crate::finding::{Severity, Time};
use crate::output::formats::{image_repository, image_tag};
use messages::{
    AnyValue, ExportLogs, ExportedLogs, KeyValue, LogRecord, Resource, ResourceLogs, Scope, ScopeLogs, Status,
};

/// What a request has.
pub(super) const MEDIA_TYPE: &str = "application/x-protobuf";

/// The attributes of a record that are a value of its line each, and where that is.
const ATTRIBUTES: [(&str, &str); 14] = [
    ("container.id", "/container/id"),
    ("container.name", "/container/name"),
    ("container.image.id", "/container/image/id"),
    ("k8s.pod.uid", "/container/pod/uid"),
    ("k8s.pod.name", "/container/pod/name"),
    ("k8s.namespace.name", "/container/pod/namespace"),
    ("process.pid", "/process/pid"),
    ("process.parent_pid", "/process/ppid"),
    ("process.executable.path", "/process/exe"),
    ("process.command_args", "/process/args"),
    ("process.working_directory", "/process/cwd"),
    ("file.path", "/file/path"),
    // What the conventions have no name for.
    ("detector.message", "/message"),
    ("detector.seq", "/seq"),
];

/// The content of a request with these lines.
pub(super) fn request(items: &[Item<'_>]) -> Vec<u8> {
    let lines = items.iter().map(|item| (serde_json::from_slice(item.line).unwrap_or_default(), &*item.text));
    let lines: Vec<(Value, &[u8])> = lines.collect();
    let of_same_resource =
        lines.chunk_by(|(one, _), (other, _)| ["node", "cluster"].iter().all(|key| one.get(key) == other.get(key)));
    let resource_logs = of_same_resource.map(|lines| ResourceLogs {
        resource: lines.first().map(|(line, _)| resource(line)),
        scope_logs: vec![ScopeLogs {
            scope: Some(Scope { name: "detector".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }),
            log_records: lines.iter().map(|(line, text)| record(line, text)).collect(),
        }],
    });
    ExportLogs { resource_logs: resource_logs.collect() }.encode_to_vec()
}

/// What has written a line.
fn resource(line: &Value) -> Resource {
    let own = [("service.name", "detector"), ("service.version", env!("CARGO_PKG_VERSION"))];
    let own = own.map(|(key, value)| attribute(key, AnyValue::of_text(value)));
    let of_line = [("host.name", "/node"), ("k8s.cluster.name", "/cluster")];
    Resource { attributes: own.into_iter().chain(of_line.iter().filter_map(|place| found(line, place))).collect() }
}

/// The record of a line, which is sent as this text.
fn record(line: &Value, text: &[u8]) -> LogRecord {
    let text_of = |key: &str| line.get(key).and_then(Value::as_str);
    let severity: Option<Severity> = line.get("severity").and_then(|name| serde_json::from_value(name.clone()).ok());
    let time = text_of("time").and_then(|time| time.parse().ok()).map_or(0, |Time(time)| time.as_nanosecond());
    // 0 means that it is not known, or is after the year 2554.
    let time = time.try_into().unwrap_or_default();
    let mut attributes: Vec<_> = ATTRIBUTES.iter().filter_map(|place| found(line, place)).collect();
    if let (Some(id), Some(revision)) = (text_of("id"), line.get("revision").and_then(Value::as_u64)) {
        attributes.push(attribute("log.record.uid", AnyValue::of_text(&format!("{id}.{revision}"))));
    }
    if let Some(image) = line.pointer("/container/image/name").and_then(Value::as_str) {
        attributes.push(attribute("container.image.name", AnyValue::of_text(image_repository(image))));
        let tags = image_tag(image).map(|tag| attribute("container.image.tags", AnyValue::of_texts([tag])));
        attributes.extend(tags);
    }
    LogRecord {
        time_unix_nano: time,
        observed_time_unix_nano: time,
        severity_number: number(syslog::level(severity, text_of("event"))),
        severity_text: severity.map_or("", Severity::name).to_owned(),
        body: Some(AnyValue::of_text(&String::from_utf8_lossy(text))),
        attributes,
        event_name: text_of("finding").or_else(|| text_of("event")).unwrap_or_default().to_owned(),
    }
}

/// A severity of syslog as a number of the log data model (its appendix B).
const fn number(level: Level) -> i32 {
    match level {
        Level::Emerg => 21,
        Level::Alert => 19,
        Level::Crit => 18,
        Level::Err => 17,
        Level::Warning => 13,
        Level::Notice => 10,
        Level::Info => 9,
        Level::Debug => 5,
    }
}

/// The attribute with what is at a place of a line, if that is a text, a number or a list of texts.
fn found(line: &Value, (key, place): &(&str, &str)) -> Option<KeyValue> {
    let value = match line.pointer(place)? {
        Value::String(text) => AnyValue::of_text(text),
        Value::Number(number) => AnyValue::of_number(number.as_i64()?),
        Value::Array(list) => AnyValue::of_texts(list.iter().filter_map(Value::as_str)),
        Value::Null | Value::Bool(_) | Value::Object(_) => return None,
    };
    Some(attribute(key, value))
}

fn attribute(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(value) }
}

/// How many records a receiver has not taken of a request that it has taken, and why. What cannot be read says nothing
/// about any.
pub(super) fn rejection(answer: &[u8]) -> Option<(i64, String)> {
    let partial = ExportedLogs::decode(answer).ok()?.partial_success?;
    (partial.rejected_log_records > 0).then_some((partial.rejected_log_records, partial.error_message))
}

/// What a receiver says that has not taken a request: its own message, or else the answer as it is.
pub(super) fn reason(answer: &[u8]) -> String {
    match Status::decode(answer) {
        Ok(status) if !status.message.is_empty() => status.message,
        _ => String::from_utf8_lossy(answer).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::samples;
    use crate::output::json;

    /// The records in a request, each with the attributes of its resource.
    fn records(content: &[u8]) -> Vec<(Vec<KeyValue>, LogRecord)> {
        let mut records = Vec::new();
        for logs in ExportLogs::decode(content).expect("it is one").resource_logs {
            let resource = logs.resource.expect("there is one").attributes;
            let of_scopes = logs.scope_logs.into_iter().flat_map(|logs| logs.log_records);
            records.extend(of_scopes.map(|record| (resource.clone(), record)));
        }
        records
    }

    fn get<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a AnyValue> {
        attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()
    }

    #[test]
    fn a_record_has_what_its_line_has() {
        let line = br#"{"time":"2027-01-15T08:00:00.123456789Z","schema":1,"id":"a-b","revision":2,"node":"node-1",
            "cluster":"c","finding":"shell_in_container","severity":"high","message":"m","seq":7,
            "container":{"id":"0123","name":"web","image":{"name":"registry:5000/a/b:1.2@sha256:00","id":"sha256:11"},
            "pod":{"uid":"u","namespace":"ns","name":"web-0"}},
            "process":{"pid":12,"ppid":1,"exe":"/bin/sh","args":["sh","-c","id"],"cwd":"/"},"file":{"path":"/bin/sh"}}"#;
        let records = records(&request(&[Item { line, text: b"{}"[..].into() }]));
        let [(resource, record)] = &records[..] else { panic!("{records:?}") };
        let text = |text: &str| Some(AnyValue::of_text(text));
        for (key, expected) in [
            ("service.name", "detector"),
            ("service.version", env!("CARGO_PKG_VERSION")),
            ("host.name", "node-1"),
            ("k8s.cluster.name", "c"),
        ] {
            assert_eq!(get(resource, key), text(expected).as_ref(), "{key}");
        }
        for (key, expected) in [
            ("container.id", "0123"),
            ("container.name", "web"),
            ("container.image.name", "registry:5000/a/b"),
            ("container.image.id", "sha256:11"),
            ("k8s.pod.uid", "u"),
            ("k8s.pod.name", "web-0"),
            ("k8s.namespace.name", "ns"),
            ("process.executable.path", "/bin/sh"),
            ("process.working_directory", "/"),
            ("file.path", "/bin/sh"),
            ("detector.message", "m"),
            ("log.record.uid", "a-b.2"),
        ] {
            assert_eq!(get(&record.attributes, key), text(expected).as_ref(), "{key}");
        }
        for (key, expected) in [("process.pid", 12), ("process.parent_pid", 1), ("detector.seq", 7)] {
            assert_eq!(get(&record.attributes, key), Some(&AnyValue::of_number(expected)), "{key}");
        }
        for (key, expected) in [("process.command_args", &["sh", "-c", "id"][..]), ("container.image.tags", &["1.2"])] {
            assert_eq!(get(&record.attributes, key), Some(&AnyValue::of_texts(expected.iter().copied())), "{key}");
        }
        assert_eq!(
            (record.time_unix_nano, record.observed_time_unix_nano),
            (1_800_000_000_123_456_789, 1_800_000_000_123_456_789)
        );
        assert_eq!((record.severity_number, record.severity_text.as_str()), (17, "high"));
        assert_eq!((record.event_name.as_str(), &record.body), ("shell_in_container", &text("{}")));
    }

    #[test]
    fn every_line_has_a_record_and_lines_of_one_node_are_together() {
        let lines: Vec<_> = samples::session(b"\xff\"] sh\n").iter().map(json::line).collect();
        let items: Vec<_> = lines.iter().map(|line| line.trim_ascii_end()).collect();
        let items: Vec<_> = items.iter().map(|line| Item { line, text: (*line).into() }).collect();
        let content = request(&items);
        assert_eq!(ExportLogs::decode(&content[..]).expect("it is one").resource_logs.len(), 1);
        let all = records(&content);
        assert_eq!(all.len(), items.len());
        for ((_, record), item) in all.iter().zip(&items) {
            assert_eq!(record.body, Some(AnyValue::of_text(str::from_utf8(item.line).expect("it is text"))));
            assert!((9..=18).contains(&record.severity_number) && !record.event_name.is_empty(), "{record:?}");
        }
        let other = [r#"{"node":"a","time":"2555-01-01T00:00:00Z"}"#, r#"{"node":"b"}"#, "none"];
        let other = other.map(|line| Item { line: line.as_bytes(), text: line.as_bytes().into() });
        assert_eq!(ExportLogs::decode(&request(&other)[..]).expect("it is one").resource_logs.len(), 3);
        assert!(
            records(&request(&other)).iter().all(|(_, record)| record.time_unix_nano == 0 && record.body.is_some())
        );
    }

    #[test]
    fn severities_are_those_of_the_data_model() {
        let number = |severity| number(syslog::level(severity, None));
        let numbers = Severity::ALL.map(|severity| number(Some(severity)));
        assert_eq!((numbers, number(None)), ([9, 10, 13, 17, 18], 9));
        assert_eq!(super::number(syslog::level(None, Some("loss"))), 13);
    }

    #[test]
    fn answers_say_what_is_rejected_and_why() {
        // Both as others write them: the fields 1 and 2 of the message in field 1, and the fields 1 and 2 of a status.
        assert_eq!(rejection(b"\x0a\x07\x08\x02\x12\x03bad"), Some((2, "bad".to_owned())));
        for taken in [&b""[..], b"\x0a\x05\x12\x03bad", b"\x0a\x00", b"<html>", b"\x0a\x07\x08"] {
            assert_eq!(rejection(taken), None, "{taken:?}");
        }
        assert_eq!(reason(b"\x08\x03\x12\x04what"), "what");
        for other in ["", "no such page", "<html>"] {
            assert_eq!(reason(other.as_bytes()), other);
        }
    }
}
