//! Lines in a form of one's own: text with keys of the JSON lines in braces, as in `{time} {container.name}`.

use std::str::FromStr;

use serde_json::Value;

use super::json;
use super::terminal::safe;
use crate::finding::schema;
use crate::near;

/// What is written for a key that a line does not have.
const MISSING: &str = "-";
/// How deep keys are.
const DEEPEST: usize = 8;
/// The last part of a key of which every name can take the place, such as that of a label.
const ANY: &str = "*";

/// A template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// The value of this key.
    Key(Vec<String>),
}

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("it is empty; use keys of the JSON lines in braces, such as `{{time}} {{severity}} {{message}}`")]
    Empty,
    #[error("`{{{0}` has no closing brace; a brace that is text is written twice")]
    Open(String),
    #[error("a closing brace ends no key; a brace that is text is written twice")]
    Close,
    #[error("unknown key `{0}`; did you mean `{1}`?")]
    Misspelt(String, String),
    #[error("unknown key `{0}`; the keys are those of the JSON lines (`detector schema`), with dots between")]
    Unknown(String),
}

impl FromStr for Template {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let known = keys();
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, behind) = rest.split_at(at);
            plain.push_str(before);
            let brace = &behind[..1];
            if let Some(behind) = behind[1..].strip_prefix(brace) {
                plain.push_str(brace);
                rest = behind;
                continue;
            }
            if brace == "}" {
                return Err(Invalid::Close);
            }
            let (key, behind) = behind[1..].split_once('}').ok_or_else(|| Invalid::Open(behind[1..].to_owned()))?;
            check(key, &known)?;
            parts.push(Part::Text(std::mem::take(&mut plain)));
            parts.push(Part::Key(key.split('.').map(str::to_owned).collect()));
            rest = behind;
        }
        parts.push(Part::Text(plain + rest));
        parts.retain(|part| *part != Part::Text(String::new()));
        if parts.is_empty() { Err(Invalid::Empty) } else { Ok(Self(parts)) }
    }
}

/// Fails unless lines can have the key.
fn check(key: &str, known: &[String]) -> Result<(), Invalid> {
    let is_it = |known: &String| match known.strip_suffix(ANY) {
        Some(beginning) => key.strip_prefix(beginning).is_some_and(|name| !name.is_empty()),
        None => known == key,
    };
    if known.iter().any(is_it) {
        return Ok(());
    }
    let known: Vec<_> = known.iter().map(String::as_str).filter(|known| !known.ends_with(ANY)).collect();
    Err(match near::nearest(key, &known) {
        Some(nearest) => Invalid::Misspelt(key.to_owned(), nearest.to_owned()),
        None => Invalid::Unknown(key.to_owned()),
    })
}

/// The keys that lines can have.
fn keys() -> Vec<String> {
    let schema = schema().to_value();
    let mut keys = Vec::new();
    collect(&schema, &schema, "", DEEPEST, &mut keys);
    keys
}

/// Collects the keys of what a part of a JSON Schema describes.
fn collect(schema: &Value, root: &Value, before: &str, depth: usize, keys: &mut Vec<String>) {
    if depth == 0 {
        return;
    }
    if let Some(part) = schema["$ref"].as_str().and_then(|path| root.pointer(path.trim_start_matches('#'))) {
        collect(part, root, before, depth, keys);
    }
    let alternatives = ["allOf", "anyOf", "oneOf"].into_iter().filter_map(|name| schema[name].as_array()).flatten();
    alternatives.for_each(|part| collect(part, root, before, depth, keys));
    if schema["additionalProperties"].is_object() {
        keys.push(format!("{before}{ANY}"));
    }
    for (name, part) in schema["properties"].as_object().into_iter().flatten() {
        let key = format!("{before}{name}");
        collect(part, root, &format!("{key}."), depth - 1, keys);
        keys.push(key);
    }
}

impl Template {
    /// The line as the template wants it, with its end. All that comes from the line is escaped.
    pub(crate) fn line(&self, line: &Value) -> String {
        let parts = self.0.iter().map(|part| match part {
            Part::Text(text) => text.clone(),
            Part::Key(key) => value(line, key),
        });
        parts.chain(["\n".to_owned()]).collect()
    }
}

/// The value of a key. The last parts can be one name with dots in it.
fn value(line: &Value, key: &[String]) -> String {
    let mut value = line;
    for (at, name) in key.iter().enumerate() {
        let rest = || key[at..].join(".");
        value = match value.get(name).or_else(|| value.get(rest())) {
            Some(inner) if value.get(name).is_some() => inner,
            Some(whole) => return shown(whole),
            None => return MISSING.to_owned(),
        };
    }
    shown(value)
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => MISSING.to_owned(),
        Value::String(text) => safe(text),
        other => String::from_utf8_lossy(json::object(other).trim_ascii_end()).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::escape::{self, tests::HOSTILE};
    use super::*;
    use crate::detect::samples;
    use crate::finding::Line;

    fn filled(template: &str, line: &Line) -> String {
        let line = serde_json::from_slice(&json::line(line)).expect("it is JSON");
        template.parse::<Template>().expect("it is right").line(&line)
    }

    #[test]
    fn values_take_the_places_of_keys() {
        let lines = samples::session(b"sh");
        let template = "{severity}|{finding}|{event}|{container.id}|{file.path}|{process.args}|{process.pid}|{{}}";
        let id = samples::ID;
        assert_eq!(filled(template, &lines[2]), format!("medium|image_write|-|{id}|/sh|[\"sh\"]|1234|{{}}\n"));
        assert_eq!(filled("{event} {detail.severity}", &lines[4]), "session_ended high\n");
        let container = Box::new(samples::known_container(b"app.example/name"));
        let info = crate::finding::NoticeEvent::ContainerInfo { container };
        let info = Line::Notice(crate::finding::Notice::now("node-1".into(), info));
        assert_eq!(filled("{detail.container.labels.app.example/name}", &info), "app.example/name\n");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let refused = |text: &str| text.parse::<Template>().expect_err("it is wrong").to_string();
        assert_eq!(refused("{container.nmae}"), "unknown key `container.nmae`; did you mean `container.name`?");
        assert_eq!(refused("{sevrity}"), "unknown key `sevrity`; did you mean `severity`?");
        assert_eq!(refused("{file.path} {time"), "`{time` has no closing brace; a brace that is text is written twice");
        assert_eq!(refused("time}"), "a closing brace ends no key; a brace that is text is written twice");
        for unknown in ["{}", "{owner of it all}", "{container.labels.}", "{container.name.}"] {
            assert!(refused(unknown).starts_with("unknown key `"), "{unknown}");
        }
        assert!(refused("").starts_with("it is empty"));
    }

    #[test]
    fn every_key_of_a_line_is_known() {
        fn of(value: &Value, before: &str, keys: &mut Vec<String>) {
            for (name, value) in value.as_object().into_iter().flatten() {
                keys.push(format!("{before}{name}"));
                of(value, &format!("{before}{name}."), keys);
            }
        }
        let known = keys();
        for line in json::tests::samples() {
            let mut keys = Vec::new();
            of(&serde_json::from_slice(&json::line(&line)).expect("it is JSON"), "", &mut keys);
            assert!(keys.len() > 3);
            keys.iter().for_each(|key| check(key, &known).expect("it is known"));
        }
    }

    #[test]
    fn values_are_harmless() {
        for hostile in HOSTILE {
            for line in samples::session(hostile) {
                let text = filled("{message} {process.args} {file.path} {detail.summary} {summary}", &line);
                let text = text.strip_suffix('\n').expect("it has an end");
                assert!(!text.contains(escape::is_unsafe), "{text:?}");
            }
        }
    }
}
