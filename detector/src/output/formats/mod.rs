//! The formats that SIEMs read, made of the lines of the detector.
//!
//! Each format has a file, which moves the members of a line to the fields that the format has for them. What no field
//! takes stays together under a name of the detector's own, so that nothing is lost, and neither are members that only
//! a newer detector knows.

mod attack;
mod ecs;
mod facts;
mod falco;
mod ocsf;
mod rest;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde_json::Value;

pub(crate) use self::facts::{image_repository, image_tag};
use self::rest::{Rest, compact};
use super::json;
use crate::finding::{Line, SCHEMA_VERSION};

/// A format of other programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The Open Cybersecurity Schema Framework, version 1.8.
    Ocsf,
    /// The Elastic Common Schema, version 9.
    Ecs,
    /// The JSON that Falco writes, for what reads its alerts.
    Falco,
}

/// Why a line has no counterpart in another format.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is not JSON.
    #[error("it is not JSON: {0}")]
    Json(serde_json::Error),
    /// It is something else than a line of the detector.
    #[error("it has neither `finding` nor `event`, so the detector has not written it")]
    Foreign,
    /// It is a line of a detector with another version of the format.
    #[error("its `schema` is {0}, but this detector reads {SCHEMA_VERSION}; use the detector that has written it")]
    Version(Value),
    /// This detector does not know what the line has, or something is missing.
    #[error("it is no line of this version of the detector: {0}")]
    Unknown(serde_json::Error),
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 3] = [Self::Ocsf, Self::Ecs, Self::Falco];

    /// The name, as in arguments.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ocsf => "ocsf",
            Self::Ecs => "ecs",
            Self::Falco => "falco",
        }
    }

    /// Makes a line of this format of one that the detector has written. Both end with a line feed; the given one need
    /// not. Equal lines become equal lines.
    ///
    /// # Errors
    ///
    /// The detector has not written the line, or a newer one has. Every other line can be converted.
    pub fn convert(self, line: &[u8]) -> Result<Bytes, Unreadable> {
        let given: Value = serde_json::from_slice(line).map_err(Unreadable::Json)?;
        let has = |key| given.get(key).is_some();
        if !has("finding") && !has("event") {
            return Err(Unreadable::Foreign);
        }
        if given["schema"] != SCHEMA_VERSION {
            return Err(Unreadable::Version(given["schema"].clone()));
        }
        let parsed = if has("finding") {
            serde_json::from_value(given.clone()).map(|finding| Line::Finding(Box::new(finding)))
        } else {
            serde_json::from_value(given.clone()).map(Line::Notice)
        };
        let (parsed, rest) = (parsed.map_err(Unreadable::Unknown)?, Rest::of(given));
        let converted = match self {
            Self::Ocsf => ocsf::converted(&parsed, rest),
            Self::Ecs => ecs::converted(&parsed, rest),
            Self::Falco => falco::converted(&parsed, rest),
        };
        Ok(json::object(&compact(converted)))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name of no format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown format {0:?}; use one of ocsf, ecs, falco")]
pub struct UnknownFormat(String);

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        Self::ALL.into_iter().find(|format| format.name() == name).ok_or_else(|| UnknownFormat(name.to_owned()))
    }
}
