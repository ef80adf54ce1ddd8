//! From the values of a TOML document to typed ones. What is wrong is collected, so that all of it can be corrected at
//! once.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::num::NonZeroU32;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use regex::bytes::Regex;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use tracing::level_filters::LevelFilter;

use super::Address;
use super::problem::Problems;
use crate::finding::{ImageOp, Kind, MountOp, Op, Origin, Severity, Time, Via};
use crate::forward::{Batch, Destination, Format};
use crate::near;
use crate::policy::{PathPattern, Pattern};
use crate::runtime::endpoint::Endpoint;

/// A value of the document, with its place.
pub(super) type Value<'a> = Spanned<DeValue<'a>>;

/// What a value can become. A value that cannot is a problem, and becomes nothing.
pub(super) trait FromToml: Sized {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Option<Self>;
}

/// Keys of a table.
pub(super) trait Keys: Sized {
    /// Their names.
    fn names() -> Vec<&'static str>;

    /// Their values in a table.
    fn of(table: &DeTable<'_>, problems: &mut Problems) -> Self;
}

/// Implements [`Keys`] for a struct, and [`FromToml`] for a table that has no others: each field is a key, apart from
/// those after a semicolon, which are [`Keys`] of the same table.
macro_rules! keys {
    ($type:ident: $($key:ident),+ $(; $($more:ident: $keys:ident),+)?) => {
        impl $crate::config::read::Keys for $type {
            fn names() -> Vec<&'static str> {
                let own = [$(stringify!($key)),+];
                own.into_iter()$($(.chain(<$keys as $crate::config::read::Keys>::names()))+)?.collect()
            }

            fn of(table: &toml::de::DeTable<'_>, problems: &mut $crate::config::problem::Problems) -> Self {
                Self {
                    $($key: $crate::config::read::field(table, stringify!($key), problems),)+
                    $($($more: $crate::config::read::Keys::of(table, problems),)+)?
                }
            }
        }

        impl $crate::config::read::FromToml for $type {
            fn from_toml(
                value: &$crate::config::read::Value<'_>,
                problems: &mut $crate::config::problem::Problems,
            ) -> Option<Self> {
                let table = $crate::config::read::table(value, problems)?;
                $crate::config::read::refuse_others(table, &<Self as $crate::config::read::Keys>::names(), problems);
                Some($crate::config::read::Keys::of(table, problems))
            }
        }
    };
}
pub(super) use keys;

/// The table that a value is.
pub(super) fn table<'a, 'b>(value: &'b Value<'a>, problems: &mut Problems) -> Option<&'b DeTable<'a>> {
    value.get_ref().as_table().or_else(|| mismatch(value, "a table", problems))
}

/// The value of a key, or the default value if it is not there.
pub(super) fn field<T: FromToml + Default>(table: &DeTable<'_>, key: &str, problems: &mut Problems) -> T {
    table.get(key).and_then(|value| T::from_toml(value, problems)).unwrap_or_default()
}

/// Every key must be one of these.
pub(super) fn refuse_others(table: &DeTable<'_>, known: &[&str], problems: &mut Problems) {
    for key in table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())) {
        unknown(key.span(), "key", key.get_ref(), known, problems);
    }
}

/// Says that a name is none of those that are known, and which one may have been meant.
fn unknown(span: Range<usize>, what: &str, name: &str, known: &[&str], problems: &mut Problems) {
    /// Longer names are shown in part, and are no misspelt ones.
    const LONGEST: usize = 40;
    let shown: String = name.chars().take(LONGEST).collect();
    let hint = if shown == name { near::hint(name, known) } else { near::one_of(known) };
    let dots = if shown == name { "" } else { "…" };
    problems.error(span, format_args!("unknown {what} `{shown}{dots}`; {hint}"));
}

/// Says that a value has another type than this one.
fn mismatch<T>(value: &Value<'_>, expected: &str, problems: &mut Problems) -> Option<T> {
    let found = match value.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    problems.error(value.span(), format_args!("this is {found}; write {expected}"));
    None
}

/// The text of a string.
fn text<'b>(value: &'b Value<'_>, problems: &mut Problems) -> Option<&'b str> {
    value.get_ref().as_str().or_else(|| mismatch(value, "a string, in quotes", problems))
}

/// What a parser makes of a string.
fn parsed<T, E: Display>(
    value: &Value<'_>,
    problems: &mut Problems,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Option<T> {
    parse(text(value, problems)?).map_err(|error| problems.error(value.span(), error)).ok()
}

/// The term with the name that the string has.
fn named<T: Copy>(value: &Value<'_>, what: &str, terms: &[(&str, T)], problems: &mut Problems) -> Option<T> {
    let name = text(value, problems)?;
    let found = terms.iter().find(|(known, _)| *known == name).map(|(_, term)| *term);
    if found.is_none() {
        let known: Vec<&str> = terms.iter().map(|(known, _)| *known).collect();
        unknown(value.span(), what, name, &known, problems);
    }
    found
}

/// Implements [`FromToml`] for terms with names.
macro_rules! terms {
    ($($type:ty, $what:literal: $all:expr;)+) => {
        $(impl FromToml for $type {
            fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Option<Self> {
                let terms: Vec<_> = $all.iter().map(|term| (term.name(), *term)).collect();
                named(value, $what, &terms, problems)
            }
        })+
    };
}

terms! {
    Kind, "finding": Kind::ALL;
    Severity, "severity": Severity::ALL;
    Origin, "origin": Origin::ALL;
    Via, "way into a container": Via::ALL;
    Format, "format": Format::ALL;
    Batch, "way to batch": Batch::ALL;
}

impl FromToml for Op {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Option<Self> {
        let of_files = ImageOp::ALL.iter().map(|op| (op.name(), Self::Image(*op)));
        let of_mounts = MountOp::ALL.iter().map(|op| (op.name(), Self::Mount(*op)));
        named(value, "operation", &of_files.chain(of_mounts).collect::<Vec<_>>(), problems)
    }
}

/// The names of the levels of the daemon's messages, the fewest first.
pub(crate) const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl FromToml for LevelFilter {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Option<Self> {
        let levels = LEVELS.map(|name| (name, name));
        named(value, "level", &levels, problems)?.parse().ok()
    }
}

impl<T: FromToml> FromToml for Option<T> {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Option<Self> {
        T::from_toml(value, problems).map(Some)
    }
}

impl FromToml for bool {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Option<Self> {
        value.get_ref().as_bool().or_else(|| mismatch(value, "true or false, without quotes", problems))
    }
}

/// How long a text can be that is no pattern, in bytes. Findings contain it.
const LONGEST: usize = 1024;

/// A text must say something.
impl FromToml for String {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Option<Self> {
        parsed(value, problems, |text| match text.len() {
            _ if text.trim().is_empty() => Err("this text is empty; write something, or leave the key out".to_owned()),
            ..=LONGEST => Ok(text.to_owned()),
            length => Err(format!("this text has {length} bytes, and can have at most {LONGEST}; shorten it")),
        })
    }
}

/// It is not certain in which directory a daemon runs.
impl FromToml for PathBuf {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Option<Self> {
        parsed(value, problems, |path| {
            if path.contains('\0') {
                return Err("no path has a byte 0; leave it out");
            }
            path.starts_with('/').then(|| path.into()).ok_or("this is not an absolute path; begin it with `/`")
        })
    }
}

impl FromToml for Address {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Option<Self> {
        parsed(value, problems, super::address)
    }
}

impl FromToml for Duration {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Option<Self> {
        parsed(value, problems, super::duration)
    }
}

/// A time that is long enough for something to be repeated after it.
#[derive(Clone, Copy, Debug)]
pub struct Interval(pub Duration);

impl FromToml for Interval {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Option<Self> {
        parsed(value, problems, super::interval).map(Self)
    }
}

/// A size of a file, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Size(pub u64);

impl FromToml for Size {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Option<Self> {
        parsed(value, problems, super::size)
    }
}

impl FromToml for NonZeroU32 {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Option<Self> {
        let Some(integer) = value.get_ref().as_integer() else { return mismatch(value, "an integer", problems) };
        let number = u32::from_str_radix(integer.as_str(), integer.radix()).ok().and_then(Self::new);
        if number.is_none() {
            problems.error(value.span(), format_args!("this is not a number from 1 to {}; write one", u32::MAX));
        }
        number
    }
}

/// A time after which something is repeated, or never.
#[derive(Clone, Copy, Debug)]
pub struct Repetition(pub Option<Duration>);

impl FromToml for Repetition {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Option<Self> {
        parsed(value, problems, super::repetition)
    }
}

impl FromToml for Endpoint {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Option<Self> {
        parsed(value, problems, str::parse)
    }
}

impl FromToml for Destination {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Option<Self> {
        parsed(value, problems, str::parse)
    }
}

impl FromToml for Pattern {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Option<Self> {
        parsed(value, problems, str::parse)
    }
}

impl FromToml for PathPattern {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Option<Self> {
        parsed(value, problems, str::parse)
    }
}

impl FromToml for Regex {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Option<Self> {
        parsed(value, problems, |text| {
            Self::new(text).map_err(|error| {
                // The lines before the last one show where in the expression it is.
                let error = error.to_string();
                let why = error.lines().last().unwrap_or_default();
                let why = why.trim_start_matches("error: ").trim_end_matches('.');
                format!("this is not a regular expression: {why}; put `\\` before a character that is meant as it is")
            })
        })
    }
}

/// A date begins at midnight and ends 24 hours later. Without an offset, a time is UTC.
impl FromToml for Time {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Option<Self> {
        const EXPECTED: &str = "a date or a date with a time, without quotes, such as 2027-03-01";
        let Some(time) = value.get_ref().as_datetime() else { return mismatch(value, EXPECTED, problems) };
        let text = match (time.date, time.time, time.offset) {
            (Some(date), None, _) => format!("{date}T00:00:00Z"),
            (Some(_), Some(_), None) => format!("{time}Z"),
            (Some(_), Some(_), Some(_)) => time.to_string(),
            (None, ..) => {
                problems.error(value.span(), format_args!("this time has no date; write {EXPECTED}"));
                return None;
            }
        };
        let day = jiff::SignedDuration::from_hours(if time.time.is_none() { 24 } else { 0 });
        let moment = text.parse::<jiff::Timestamp>().and_then(|start| start.checked_add(day));
        moment.map(Self).map_err(|error| problems.error(value.span(), format_args!("{error}; write {EXPECTED}"))).ok()
    }
}

/// All values of a list.
fn items<T: FromToml>(value: &Value<'_>, problems: &mut Problems) -> Option<Vec<T>> {
    let Some(list) = value.get_ref().as_array() else { return mismatch(value, "a list, in brackets", problems) };
    Some(list.iter().filter_map(|item| T::from_toml(item, problems)).collect())
}

impl<T: FromToml> FromToml for Vec<T> {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Option<Self> {
        items(value, problems)
    }
}

/// A list of at least one value. A list of one can be written as the value alone.
#[derive(Clone, Debug)]
pub(super) struct OneOrMore<T>(pub(super) Vec<T>);

impl<T> Default for OneOrMore<T> {
    /// For the key that is not there.
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: FromToml> FromToml for OneOrMore<T> {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Option<Self> {
        match value.get_ref() {
            DeValue::Array(list) if list.is_empty() => {
                problems.error(value.span(), "this list is empty, so nothing is like that; leave the key out");
                None
            }
            DeValue::Array(_) => items(value, problems).map(Self),
            _ => T::from_toml(value, problems).map(|item| Self(vec![item])),
        }
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMore<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("OneOrMore{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] })
    }
}

impl<T: FromToml> FromToml for BTreeMap<String, T> {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Option<Self> {
        let table = table(value, problems)?;
        let mut map = Self::new();
        for (key, value) in table {
            if key.get_ref().is_empty() {
                problems.error(key.span(), "this name is empty; write the name of a label");
            }
            map.extend(T::from_toml(value, problems).map(|value| (key.get_ref().to_string(), value)));
        }
        Some(map)
    }
}
