//! What the formats have in common: names, severities and ids, and what follows from a path or the name of an image.

use rustix::thread::CapabilitySet;
use sha2::{Digest as _, Sha256};

use super::rest::Rest;
use crate::finding::{Capabilities, Finding, ImageOp, Kind, Line, Loss, Notice, NoticeEvent, Op, Process, Severity};
use crate::output::json;

/// What a kind of finding is called where people read it.
pub(super) const fn title(kind: Kind) -> &'static str {
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
pub(super) const fn is_exec(kind: Kind) -> bool {
    matches!(kind, Kind::ShellInContainer | Kind::DriftedExec | Kind::FilelessExec | Kind::HostExec | Kind::VolumeExec)
}

/// How much a notice matters. Losses and gaps matter as what they may have hidden.
pub(super) fn severity(notice: &NoticeEvent) -> Severity {
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
pub(super) fn is_failure(notice: &NoticeEvent) -> bool {
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
pub(super) fn finding_of(notice: &NoticeEvent) -> Option<&str> {
    match notice {
        NoticeEvent::SessionEnded { session: id, .. } | NoticeEvent::FileHash { finding: id, .. } => Some(id),
        _ => None,
    }
}

/// Whether somebody should look at a finding.
pub(super) fn is_alert(finding: &Finding) -> bool {
    finding.severity > Severity::Info && finding.suppressed_by.is_none()
}

/// Takes the reasons that a notice gives.
pub(super) fn reasons(detail: &mut Rest) -> Option<String> {
    let reasons: Vec<String> = serde_json::from_value(detail.take("reasons")).unwrap_or_default();
    let mut one = || ["reason", "what"].into_iter().find_map(|key| detail.text(key));
    if reasons.is_empty() { one() } else { Some(reasons.join("; ")) }
}

/// What a line of another format is known by: it is the same whenever the same line is converted, and another one for
/// each revision.
pub(super) fn id(line: &Line) -> String {
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
pub(super) fn process_id(process: &Process) -> String {
    format!("{}@{}", process.pid, process.start_time)
}

/// The names of capabilities. Those that are too new for a name are numbers.
pub(super) fn capabilities(Capabilities(set): Capabilities) -> Vec<String> {
    let known = CapabilitySet::from_bits_truncate(set);
    let names = known.iter_names().map(|(name, _)| format!("CAP_{name}"));
    let others = (0..u64::BITS).filter(|number| (set & !known.bits()) >> number & 1 == 1);
    names.chain(others.map(|number| number.to_string())).collect()
}

/// The tag in the name of an image. The port of a registry can be before it.
pub(crate) fn image_tag(name: &str) -> Option<&str> {
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    file_name(name).split_once(':').map(|(_, tag)| tag)
}

/// The name of an image without its tag and its digest.
pub(crate) fn image_repository(name: &str) -> &str {
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    image_tag(name).and_then(|tag| name.strip_suffix(tag)?.strip_suffix(':')).unwrap_or(name)
}

/// The name of a file, without its directory.
pub(super) fn file_name(path: &str) -> &str {
    path.rsplit('/').find(|name| !name.is_empty()).unwrap_or(path)
}

/// The directory of a file.
pub(super) fn directory(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(directory, _)| if directory.is_empty() { "/" } else { directory })
}

/// The type of a file, as far as what was done to it shows that.
pub(super) enum FileType {
    Regular,
    Directory,
    Link,
}

impl FileType {
    pub(super) fn of(op: Option<Op>) -> Option<Self> {
        let Op::Image(op) = op? else { return None };
        match op {
            ImageOp::Create | ImageOp::OpenWrite | ImageOp::Truncate | ImageOp::Write | ImageOp::MmapWrite => {
                Some(Self::Regular)
            }
            ImageOp::Mkdir | ImageOp::Rmdir => Some(Self::Directory),
            ImageOp::Symlink => Some(Self::Link),
            _ => None,
        }
    }
}

/// The address and port of the other end of a connection.
pub(super) fn endpoint(peer: &str) -> Option<(&str, u16)> {
    let (address, port) = peer.rsplit_once(':')?;
    let address = address.strip_prefix('[').and_then(|address| address.strip_suffix(']')).unwrap_or(address);
    Some((address, port.parse().ok()?))
}
