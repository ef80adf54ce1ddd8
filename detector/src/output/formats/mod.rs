//! The formats that SIEMs read, made of the lines of the detector.
//!
//! Each format has a file, which moves the members of a line to the fields that the format has for them. What no field
//! takes stays together under a name of the detector's own, so that nothing is lost, and neither are members that only
//! a newer detector knows.

mod attack;
mod ecs;
mod falco;
mod ocsf;
mod rest;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use rustix::thread::CapabilitySet;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use self::rest::{Rest, compact};
use super::json;
use crate::finding::{Capabilities, Finding, Kind, Line, Loss, Notice, NoticeEvent, Process, SCHEMA_VERSION, Severity};

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

/// What a kind of finding is called where people read it.
const fn title(kind: Kind) -> &'static str {
    match kind {
        Kind::ShellInContainer => "Shell in container",
        Kind::ImageWrite => "Change of container image",
        Kind::ImageShadowed => "Mount over container image",
        Kind::DeviceWrite => "Block device opened for writing in container",
        Kind::DriftedExec => "Execution of changed file in container",
        Kind::FilelessExec => "Fileless execution in container",
        Kind::CgroupEscape => "Process moved out of container cgroup",
        Kind::KernelControlWrite => "Kernel control file opened for writing in container",
        Kind::SensorTampering => "Tampering with detector",
        Kind::HandleOpen => "File opened by handle in container",
        Kind::HostExec => "File of container executed on host",
        Kind::VolumeExec => "Execution from volume in container",
        Kind::Session => "Session in container",
        Kind::TestAlert => "Test alert",
    }
}

/// Whether a kind of finding is about a file that was executed.
const fn is_exec(kind: Kind) -> bool {
    matches!(kind, Kind::ShellInContainer | Kind::DriftedExec | Kind::FilelessExec | Kind::HostExec | Kind::VolumeExec)
}

/// How much a notice matters. Losses and gaps matter as what they may have hidden.
fn severity(notice: &NoticeEvent) -> Severity {
    match notice {
        NoticeEvent::SessionEnded { severity, .. } => *severity,
        NoticeEvent::Degraded { reasons } if !reasons.is_empty() => Severity::High,
        NoticeEvent::Healed { .. } => Severity::High,
        NoticeEvent::Loss { kind: Loss::Client | Loss::SeenFull, .. } => Severity::Low,
        NoticeEvent::Started { after_crash: true, .. }
        | NoticeEvent::Paused { .. }
        | NoticeEvent::Loss { .. }
        | NoticeEvent::BlindWindow { .. }
        | NoticeEvent::PolicyRefused { .. }
        | NoticeEvent::TornLine { .. }
        | NoticeEvent::NewChain => Severity::Medium,
        NoticeEvent::Stopped { .. } | NoticeEvent::ExceptionExpired { .. } | NoticeEvent::ExceptionUnused { .. } => {
            Severity::Low
        }
        NoticeEvent::Started { .. }
        | NoticeEvent::Degraded { .. }
        | NoticeEvent::PolicyLoaded(_)
        | NoticeEvent::Suppressed { .. }
        | NoticeEvent::Unwatched { .. }
        | NoticeEvent::Watched { .. }
        | NoticeEvent::FileHash { .. }
        | NoticeEvent::ContainerInfo { .. }
        | NoticeEvent::Heartbeat { .. }
        | NoticeEvent::LogRotated(_) => Severity::Info,
    }
}

/// Whether a notice says that something is wrong with the detector or its log.
fn is_failure(notice: &NoticeEvent) -> bool {
    match notice {
        NoticeEvent::Degraded { reasons } => !reasons.is_empty(),
        NoticeEvent::Paused { .. }
        | NoticeEvent::Loss { .. }
        | NoticeEvent::BlindWindow { .. }
        | NoticeEvent::PolicyRefused { .. }
        | NoticeEvent::TornLine { .. }
        | NoticeEvent::NewChain => true,
        _ => false,
    }
}

/// The id of the finding that a notice adds something to.
fn finding_of(notice: &NoticeEvent) -> Option<&str> {
    match notice {
        NoticeEvent::SessionEnded { session: id, .. } | NoticeEvent::FileHash { finding: id, .. } => Some(id),
        _ => None,
    }
}

/// What a line of another format is known by: it is the same whenever the same line is converted, and another one for
/// each revision.
fn id(line: &Line) -> String {
    match line {
        Line::Finding(finding) => revision_id(finding),
        Line::Notice(notice) => digest(notice).iter().take(16).map(|byte| format!("{byte:02x}")).collect(),
    }
}

fn revision_id(finding: &Finding) -> String {
    format!("{}.{}", finding.id, finding.revision)
}

/// Notices have no id of their own, so their content takes its place, without the number in the log: a client of the
/// socket is told of the same notice without it.
fn digest(notice: &Notice) -> [u8; 32] {
    Sha256::digest(json::object(notice)).into()
}

/// What a process is known by, also after its number is used again.
fn process_id(process: &Process) -> String {
    format!("{}@{}", process.pid, process.start_time)
}

/// The names of capabilities. Those that are too new for a name are numbers.
fn capabilities(Capabilities(set): Capabilities) -> Vec<String> {
    let known = CapabilitySet::from_bits_truncate(set);
    let names = known.iter_names().map(|(name, _)| format!("CAP_{name}"));
    let others = (0..u64::BITS).filter(|number| (set & !known.bits()) >> number & 1 == 1);
    names.chain(others.map(|number| number.to_string())).collect()
}

/// The tag in the name of an image. The port of a registry can be before it.
fn image_tag(name: &str) -> Option<&str> {
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    file_name(name).split_once(':').map(|(_, tag)| tag)
}

/// The name of an image without its tag and its digest.
fn image_repository(name: &str) -> &str {
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    image_tag(name).and_then(|tag| name.strip_suffix(tag)?.strip_suffix(':')).unwrap_or(name)
}

/// The name of a file, without its directory.
fn file_name(path: &str) -> &str {
    path.rsplit('/').find(|name| !name.is_empty()).unwrap_or(path)
}

/// The address and port of the other end of a connection.
fn endpoint(peer: &str) -> Option<(&str, u16)> {
    let (address, port) = peer.rsplit_once(':')?;
    let address = address.strip_prefix('[').and_then(|address| address.strip_suffix(']')).unwrap_or(address);
    Some((address, port.parse().ok()?))
}
