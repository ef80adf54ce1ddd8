//! The members of a line that no field of another format has taken yet.

use serde_json::{Map, Value};

use crate::finding::{Text, Time};
use crate::output::terminal::command_line;

/// What is left of a line, or of an object in it. Paths have dots between their keys.
pub(super) struct Rest(Map<String, Value>);

impl Rest {
    /// All members of an object. Anything else has none.
    pub(super) fn of(value: Value) -> Self {
        match value {
            Value::Object(members) => Self(members),
            _ => Self(Map::new()),
        }
    }

    /// Takes a member. It is null if there is none.
    pub(super) fn take(&mut self, path: &str) -> Value {
        let (above, key) = path.rsplit_once('.').unwrap_or(("", path));
        let mut members = Some(&mut self.0);
        for key in above.split('.').filter(|key| !key.is_empty()) {
            members = members.and_then(|members| members.get_mut(key)).and_then(Value::as_object_mut);
        }
        members.and_then(|members| members.remove(key)).unwrap_or_default()
    }

    /// Takes an object.
    pub(super) fn rest(&mut self, path: &str) -> Self {
        Self::of(self.take(path))
    }

    /// Takes the objects of a list.
    pub(super) fn list(&mut self, path: &str) -> Vec<Self> {
        let Value::Array(list) = self.take(path) else { return Vec::new() };
        list.into_iter().map(Self::of).collect()
    }

    /// Takes a text.
    pub(super) fn text(&mut self, path: &str) -> Option<String> {
        match self.take(path) {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// Takes a number as a text, which other formats want for ids.
    pub(super) fn number(&mut self, path: &str) -> Option<String> {
        self.take(path).as_u64().map(|number| number.to_string())
    }

    /// Takes a time as milliseconds since 1970.
    pub(super) fn milliseconds(&mut self, path: &str) -> Option<i64> {
        self.text(path)?.parse().ok().map(|Time(time)| time.as_millisecond())
    }

    /// Takes arguments as a command line.
    pub(super) fn command(&mut self, path: &str) -> Option<String> {
        let args: Vec<Text> = serde_json::from_value(self.take(path)).ok()?;
        Some(command_line(&args))
    }

    /// Gives a member back.
    pub(super) fn put(&mut self, key: &str, value: Value) {
        self.0.insert(key.to_owned(), value);
    }

    /// Whether nothing is left but empty objects.
    pub(super) fn is_empty(&self) -> bool {
        self.0.values().all(is_nothing)
    }

    /// What is left.
    pub(super) fn into_value(self) -> Value {
        Value::Object(self.0)
    }
}

/// The value without members that are null or empty, however deep.
pub(super) fn compact(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.into_iter().map(|(key, value)| (key, compact(value)));
            members.filter(|(_, value)| !is_nothing(value)).collect()
        }
        Value::Array(list) => list.into_iter().map(compact).filter(|value| !is_nothing(value)).collect(),
        value => value,
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.iter().all(is_nothing),
        Value::Object(members) => members.values().all(is_nothing),
        _ => false,
    }
}
