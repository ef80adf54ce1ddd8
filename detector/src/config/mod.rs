//! The configuration file of `detector run`: reads it, says what is wrong with it and where, and knows what can be in
//! it.
//!
//! Who may write the file decides what is not reported, so it is read with care ([`mod@file`]), and in full or not at
//! all: what is not understood is an error.

pub mod file;
pub mod followed;
pub mod problem;

mod conditions;
pub(crate) mod draft;
mod entries;
mod exceptions;
mod forwarders;
mod read;
mod settings;
mod severities;
#[cfg(test)]
pub(crate) mod tests;
mod watch;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::Schema;
use toml::de::{DeTable, DeValue};

use crate::finding::Time;
pub(crate) use entries::MOST;
use problem::Problems;
use read::FromToml as _;
pub(crate) use read::{LEVELS, Repetition, Size};
pub use settings::{Runtimes, Settings};

/// Where the file is, if nobody says otherwise.
pub const DEFAULT_PATH: &str = "/etc/detector/config.toml";

/// The file with every key, a description of each, and the values that the daemon has without a file.
pub const DEFAULT: &str = include_str!("default.toml");

/// The JSON Schema of the file.
pub fn schema() -> Schema {
    schemars::schema_for!(Settings)
}

/// What is in the text of a file, and what is wrong with it at this time. If there are errors, the settings are not
/// those that were intended.
pub fn parse(text: &str, now: Time) -> (Settings, Problems) {
    let mut problems = Problems::default();
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        problems.error(error.span().unwrap_or_default(), format_args!("this is not TOML: {}", error.message()));
    }
    if problems.has_errors() {
        problems.sort();
        return (Settings::default(), problems);
    }
    let span = document.span();
    let document = toml::Spanned::new(span, DeValue::Table(document.into_inner()));
    let settings = Settings::from_toml(&document, &mut problems).unwrap_or_default();
    if let (DeValue::Table(table), false) = (document.get_ref(), problems.has_errors()) {
        exceptions::warn(&settings.exception.0, table, now, &mut problems);
        severities::warn(&settings.severity.0, table, &mut problems);
        watch::warn(&settings.watch.0, table, &mut problems);
    }
    problems.sort();
    (settings, problems)
}

/// Why a file cannot be used, in a sentence.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It cannot be read.
    #[error("configuration file {0}: {1}")]
    Unread(String, #[source] file::Error),
    /// It has errors, of which this says the first, with its place.
    #[error("{0}")]
    Wrong(String),
}

/// A file that was read.
#[derive(Debug, Default)]
pub struct Loaded {
    /// What is in it.
    pub settings: Settings,
    /// What is wrong with it.
    pub problems: Problems,
    /// Who else can decide what is in it, one sentence each.
    pub doubts: Vec<String>,
    /// Its text.
    pub text: String,
}

impl Loaded {
    /// Reads a file and checks what is in it.
    ///
    /// # Errors
    ///
    /// The file cannot be read. What is wrong with its text is in [`Loaded::problems`].
    pub fn read(path: &Path) -> Result<Self, file::Error> {
        let file::Content { text, doubts } = file::read(path)?;
        let (settings, problems) = parse(&text, Time(jiff::Timestamp::now()));
        Ok(Self { settings, problems, doubts, text })
    }

    /// Reads a file that must have no errors.
    ///
    /// # Errors
    ///
    /// See [`Refusal`].
    pub fn without_errors(path: &Path) -> Result<Self, Refusal> {
        let name = path.display();
        let loaded = Self::read(path).map_err(|error| Refusal::Unread(name.to_string(), error))?;
        let Some(first) = loaded.problems.errors().next() else { return Ok(loaded) };
        let (place, shown) = (first.place(&loaded.text), first.shown());
        let check = format!("`detector config check {name}` shows all that is wrong");
        Err(Refusal::Wrong(format!("{name}:{place}: {shown}; {check}")))
    }

    /// What whoever answers for the file, which has this path and no errors, should know, one sentence each.
    pub fn warnings(&self, path: &Path) -> Vec<String> {
        let name = path.display();
        let of_text =
            self.problems.iter().map(|warning| format!("{name}:{}: {}", warning.place(&self.text), warning.shown()));
        self.doubts.iter().cloned().chain(of_text).collect()
    }
}

/// Parses a time span such as `10s`, `500ms`, `1m30s` or `7d`.
pub(crate) fn duration(text: &str) -> Result<Duration, &'static str> {
    if let Some(days) = text.strip_suffix('d').and_then(|days| days.parse::<u32>().ok()) {
        return Ok(Duration::from_secs(u64::from(days) * 24 * 3600));
    }
    let span: jiff::SignedDuration = text.parse().map_err(|_| "use a time such as 10s, 500ms or 1m30s")?;
    span.try_into().map_err(|_| "the time must not be negative")
}

/// Parses the size of a file such as `64MiB`.
pub(crate) fn size(text: &str) -> Result<Size, &'static str> {
    const LEAST: u64 = 64 << 10;
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let size = units.iter().find_map(|(unit, bits)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(1 << bits)
    });
    match size.ok_or("use a size such as 512KiB, 64MiB or 1GiB")? {
        ..LEAST => Err("the size must be at least 64KiB"),
        size => Ok(Size(size)),
    }
}

/// Where something is served over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An IP address and a port.
    Ip(SocketAddr),
    /// The path of a unix socket.
    Unix(PathBuf),
}

/// Parses an address at which something is served.
pub(crate) fn address(text: &str) -> Result<Address, &'static str> {
    match text.strip_prefix("unix:") {
        Some(path) if path.starts_with('/') => Ok(Address::Unix(path.into())),
        Some(_) => Err("write the absolute path of a socket after `unix:`, such as unix:/run/detector/metrics.sock"),
        None => text.parse().map(Address::Ip).map_err(
            |_| "use an IP address and a port, such as 127.0.0.1:9464 or [::1]:9464, or unix: and the path of a socket",
        ),
    }
}

/// Parses the interval between two repetitions.
pub(crate) fn interval(text: &str) -> Result<Duration, &'static str> {
    let interval = duration(text)?;
    (interval >= Duration::from_secs(1)).then_some(interval).ok_or("the time must be at least 1s")
}

/// Parses the interval between two repetitions of what can also be switched off.
pub(crate) fn repetition(text: &str) -> Result<Repetition, &'static str> {
    match duration(text)? {
        Duration::ZERO => Ok(Repetition(None)),
        time if time < Duration::from_secs(1) => Err("the time must be at least 1s, or 0s for never"),
        time => Ok(Repetition(Some(time))),
    }
}
