//! An exception that is proposed to a person, as the configuration file has it.

use jiff::ToSpan as _;
use jiff::tz::TimeZone;

use crate::finding::{Text, Time};
use crate::output::escape::is_unsafe;
use crate::policy::exception::TO_FILL_IN;
use crate::policy::pattern::literal;
use crate::policy::{PathPattern, Pattern};

/// After how many months an exception that is proposed expires.
const MONTHS: i32 = 3;

/// The conditions of an exception: their keys and values, in the order in which they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Draft(Vec<(&'static str, Vec<String>)>);

impl Draft {
    /// Adds values of a condition.
    pub(crate) fn add(&mut self, key: &'static str, values: impl IntoIterator<Item = String>) {
        let values = values.into_iter();
        match self.0.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) => known.extend(values),
            None => self.0.push((key, values.collect())),
        }
    }

    /// Adds a path, as it is.
    pub(crate) fn add_path(&mut self, key: &'static str, path: &Text) -> Result<(), String> {
        let pattern = literal(&unescaped(path)?);
        pattern.parse::<PathPattern>().map_err(|why| format!("`{path}`: {why}"))?;
        self.add(key, [pattern]);
        Ok(())
    }

    /// Adds a name, as it is.
    pub(crate) fn add_name(&mut self, key: &'static str, name: &Text) -> Result<(), String> {
        let pattern = literal(name.as_str());
        pattern.parse::<Pattern>().map_err(|why| format!("`{name}`: {why}"))?;
        self.add(key, [pattern]);
        Ok(())
    }

    /// The exception, with this name and with what a person has to fill in.
    pub(crate) fn toml(&self, name: &str, now: Time) -> String {
        let expires = now.0.to_zoned(TimeZone::UTC).date().saturating_add(MONTHS.months());
        let (name, blank) = (quoted(name), quoted(TO_FILL_IN));
        let mut toml =
            format!("[[exception]]\nname = {name}\nreason = {blank}\nowner = {blank}\nexpires = {expires}\n");
        for (key, values) in self.0.iter().filter(|(_, values)| !values.is_empty()) {
            let values: Vec<_> = values.iter().map(|value| quoted(value)).collect();
            toml += &match &values[..] {
                [value] => format!("{key} = {value}\n"),
                values => format!("{key} = [{}]\n", values.join(", ")),
            };
        }
        toml
    }
}

/// The characters of a path.
pub(crate) fn unescaped(path: &Text) -> Result<String, String> {
    let bytes = path.to_bytes().and_then(|bytes| String::from_utf8(bytes).ok());
    bytes.ok_or_else(|| format!("`{path}` is not text in UTF-8, so no pattern stands for it alone"))
}

/// A text as TOML has it, in which nothing can be mistaken or obeyed by a terminal.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            character if is_unsafe(character) => quoted += &format!("\\U{:08X}", u32::from(character)),
            character => quoted.push(character),
        }
    }
    quoted + "\""
}
