//! Findings, format version 1: what the detector writes, a JSON object on each line.
//!
//! The doc comments of these types are the descriptions in the published JSON Schema ([`schema`], `detector schema`).
//! What is not known is left out: no value is ever invented. The stream also carries [`Notice`]s, about the sensor
//! itself; a finding has the key `finding`, a notice the key `event`.
//!
//! All bytes that containers choose (paths, arguments, names) become text here and nowhere else: see [`Text`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

pub use detector_common::vocabulary::{Difference, ImageOp, Layer, Loss, MountOp, Origin, StdioKind, Via};
use jiff::fmt::temporal::DateTimePrinter;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::policy::Candidates;
pub use crate::severity::SeverityRule;

/// The version of the format. It changes only if consumers of the older version would break; new keys do not count as
/// such a change.
pub const SCHEMA_VERSION: u32 = 1;

/// The JSON Schema of a line of the stream or of the log.
pub fn schema() -> Schema {
    schemars::schema_for!(Logged)
}

/// A line: a finding (it has the key `finding`) or a notice (it has the key `event`). Consumers must ignore keys, and
/// skip values of `finding` and `event`, that they do not know. Lines of the log have the members `seq` and `prev`
/// besides, and those that are forwarded while it cannot be written have `durable`.
#[derive(JsonSchema)]
#[schemars(rename = "Line")]
struct Logged {
    #[serde(flatten)]
    _line: Line,
    #[serde(flatten)]
    _link: Option<Link>,
    /// `false` in a line that was forwarded before it was in the log, because the log could not be written. It has no
    /// `seq` and `prev`, and comes again with them once the log has it.
    #[serde(rename = "durable")]
    _durable: Option<bool>,
}

/// The place of a line in the chain of the log. Lines that go to clients and those of a replay have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub struct Link {
    /// The number of the line in the log, from 1. It goes on when the log is rotated and when the detector is started
    /// again.
    #[schemars(range(min = 1))]
    pub seq: u64,
    /// The SHA-256 of the line before, without its line feed. Of the first line, it is 64 zeros.
    pub prev: Sha256,
}

/// A line of the stream: a finding (it has the key `finding`) or a notice (it has the key `event`). Consumers must
/// ignore keys, and skip values of `finding` and `event`, that they do not know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Line {
    /// Something happened in a container.
    Finding(Box<Finding>),
    /// Something happened to the sensor.
    Notice(Notice),
}

/// Something that happened in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// When it happened.
    pub time: Time,
    /// The version of this format: 1.
    pub schema: u32,
    /// The id of what happened: `BOOT-TIME-NUMBER-KIND`, all hexadecimal. `BOOT` are 12 digits that stand for the node
    /// and its boot, `TIME` are 16 digits: nanoseconds since that boot, with time asleep, `NUMBER` is the kernel's
    /// number of the event, and `KIND` stands for `finding`. So no other finding of any node has this id, the ids of a
    /// boot sort by time, and what is reported twice, even by two runs of the detector, has the same id both times.
    /// For a session, `TIME` is when its first process started, to 10 ms, and `NUMBER` is the id of that process.
    pub id: String,
    /// 1 for the first line about a finding. A later line with the same `id` and a higher `revision` replaces it: more
    /// is known then. The first line that is written can have a higher number: of a session that had begun before the
    /// detector started, and of a finding that an exception has suppressed before.
    #[schemars(range(min = 1))]
    pub revision: u32,
    /// Where it happened.
    #[serde(flatten)]
    pub node: Node,
    /// What happened.
    pub finding: Kind,
    /// How much it matters.
    pub severity: Severity,
    /// The rule by which it has its severity, or would have it if it were neither expected nor overridden. `detector
    /// explain` says what the rule is. Of a session, it can be the rule of the finding in it that matters most. It is
    /// left out if exceptions have lowered the severity, and of a session that matters because of a shell from before
    /// the detector.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub severity_rule: Option<SeverityRule>,
    /// Why it is expected. Its severity is then `info`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expected: Option<Expected>,
    /// The override of the configuration file that has given it its severity.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub overridden: Option<Box<Overridden>>,
    /// A line for people. It is not meant to be parsed.
    pub message: String,
    /// The container in which it happened, or whose process did it. It is left out if a process of the host did it and
    /// no container is concerned.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub container: Option<Container>,
    /// The process that did it, as it was at that moment. It is left out if the details were lost.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub process: Option<Process>,
    /// The file that was executed, changed or opened. It is left out if the finding is not about a file.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub file: Option<File>,
    /// The `id` of the finding of the session in which it happened. It is left out if it happened in none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub session: Option<String>,
    /// What was done in the session so far. Only the finding of a session has it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub summary: Option<Box<Summary>>,
    /// What was done again. It is left out if the finding is about one act only.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub repeated: Option<Box<Repeated>>,
    /// MITRE ATT&CK techniques.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub mitre: Vec<Cow<'static, str>>,
    /// The name of the exception that would have kept this line out of the output. It is there only with
    /// `--show-suppressed`, or `show_suppressed = true` in the configuration file. The severity is what it would be
    /// without the exception.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub suppressed_by: Option<Text>,
    /// What exceptions and overrides can demand of it. It is left out if none can hold for it: because of its kind,
    /// because it is critical by the detector's rules, or because the details were lost.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub evidence: Option<Box<Evidence>>,
    /// The visit in which it happened, as long as that may be a health check. It is not in the output.
    #[serde(skip)]
    pub visit: Option<Arc<Visit>>,
    /// What it is about, as long as all of that may be what containers of the image do. It is not in the output.
    #[serde(skip)]
    pub typical: Option<Box<Typical>>,
    /// The exceptions and overrides that everything it is about fulfils, as far as the container is not concerned. They
    /// are not in the output.
    #[serde(skip)]
    pub candidates: Option<Candidates>,
    /// Of the finding of a session: what was done in it, as far as exceptions or overrides can make a difference. It is
    /// not in the output.
    #[serde(skip)]
    pub parts: Vec<Part>,
}

/// Acts of a session that fulfil the same exceptions and overrides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The highest severity.
    pub(crate) severity: Severity,
    /// The exceptions and overrides.
    pub(crate) candidates: Option<Candidates>,
}

impl Finding {
    /// Makes the finding an expected one.
    pub(crate) fn expect(&mut self, reason: Reason) {
        self.expected = Some(Expected::new(reason, &mut self.severity));
    }

    /// How many acts it is about.
    pub(crate) fn acts(&self) -> u64 {
        self.repeated.as_ref().map_or(1, |repeated| repeated.count)
    }

    /// What was done to the file or mount, and how often: everything that is counted in the finding.
    pub(crate) fn operations(&self) -> Vec<(Op, u64)> {
        let counted = self.repeated.as_ref().map(|repeated| &repeated.operations).filter(|all| !all.is_empty());
        let op = self.file.as_ref().and_then(|file| file.op);
        match counted {
            Some(counted) => counted.iter().map(|(op, count)| (Op::Image(*op), *count)).collect(),
            None => op.into_iter().map(|op| (op, self.acts())).collect(),
        }
    }

    /// Whether it counts acts by which files got other names. It does not list those that they had before.
    pub(crate) fn counts_moves(&self) -> bool {
        let moves = |op: &Op| matches!(op, Op::Image(ImageOp::Rename | ImageOp::Exchange | ImageOp::Link));
        let own = self.file.as_ref().and_then(|file| file.op);
        self.repeated.is_some()
            && (own.is_some_and(|op| moves(&op)) || self.operations().iter().any(|(op, _)| moves(op)))
    }

    /// The severity by the detector's rules: that which it has if it is neither expected nor overridden.
    pub(crate) fn ruled_severity(&self) -> Severity {
        let expected = self.expected.map(|expected| expected.otherwise);
        let overridden = self.overridden.as_ref().map(|overridden| overridden.otherwise);
        expected.or(overridden).unwrap_or(self.severity)
    }

    /// Takes the severity of another act that the finding is about, too, if it is higher. The finding is expected only
    /// if both acts are.
    pub(crate) fn raise(&mut self, other: &Self) {
        let before = self.ruled_severity();
        match (&mut self.expected, other.expected) {
            (Some(expected), Some(other)) => expected.otherwise = expected.otherwise.max(other.otherwise),
            (Some(expected), None) => {
                self.severity = expected.otherwise.max(other.severity);
                self.expected = None;
            }
            (None, _) => self.severity = self.severity.max(other.severity),
        }
        if self.ruled_severity() > before {
            self.severity_rule = other.severity_rule;
        }
        if other.visit.is_none() {
            self.visit = None;
        }
        self.add(other);
    }

    /// Takes from another act that the finding is about, too, whether it may be what containers of the image do, and
    /// which exceptions it fulfils, with the evidence for that.
    pub(crate) fn add(&mut self, other: &Self) {
        let (own, typical) = (self.typical.take(), other.typical.as_deref());
        self.typical = own.zip(typical).and_then(|(own, other)| Some(Box::new(own.and(other)?)));
        let (own, candidates) = (self.candidates.take(), other.candidates.as_ref());
        self.candidates = own.zip(candidates).and_then(|(own, other)| own.and(other));
        let (own, evidence) = (self.evidence.take(), other.evidence.as_deref());
        self.evidence = own.zip(evidence).map(|(own, other)| Box::new(own.and(other)));
    }

    /// Says that it happened in this visit, which is or may be a health check.
    pub(crate) fn set_visit(&mut self, visit: Option<&Arc<Visit>>) {
        match visit {
            Some(visit) if visit.is_steady => self.expect(Reason::HealthCheck),
            visit => self.visit = visit.cloned(),
        }
    }
}

/// What exceptions and overrides can demand of a finding besides its kind, severity, `file.op`, `process.origin` and
/// container: facts that nobody in the container can make up. Of a finding about several acts, it is what they have in
/// common; of that of a session, what its first process has in common with every later one that makes it matter more
/// than `info`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// Whether `path` is compared with `file.path` and `file.new_path`. It is not if one of them is not the path of the
    /// file on the container's own root.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub path: bool,
    /// The executable of the process, if that is a file of the image: it is in a lower layer of the container's own
    /// root, and this is its path there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exe: Option<Text>,
    /// The script that the process runs, if that is a file of the image and the kernel has executed it by this path.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub script: Option<Text>,
    /// The executables of the ancestors in the container that are files of the image, nearest first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub ancestors: Vec<Text>,
    /// How the session of the process began. It is left out if the process is in none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub via: Option<Via>,
}

impl Evidence {
    /// What this and other evidence have in common.
    pub(crate) fn and(mut self, other: &Self) -> Self {
        self.path &= other.path;
        self.exe.take_if(|exe| other.exe.as_ref() != Some(exe));
        self.script.take_if(|script| other.script.as_ref() != Some(script));
        self.ancestors.retain(|ancestor| other.ancestors.contains(ancestor));
        self.via.take_if(|via| other.via != Some(*via));
        self
    }
}

/// Acts of a container that all containers of its image may do. Only a runtime can tell the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Typical {
    /// Their numbers. Acts that are the same have the same number in each container, as long as the detector runs.
    pub(crate) acts: Vec<u64>,
    /// When the container started, in nanoseconds since boot.
    pub(crate) started: u64,
    /// When it did the last of them.
    pub(crate) time: u64,
}

impl Typical {
    /// How many acts can be in one finding.
    const MOST: usize = 64;

    /// These acts and others of the same container, or `None` if they are too many.
    fn and(mut self, other: &Self) -> Option<Self> {
        self.time = self.time.max(other.time);
        for act in &other.acts {
            if !self.acts.contains(act) {
                self.acts.push(*act);
            }
        }
        (self.acts.len() <= Self::MOST).then_some(self)
    }
}

/// What was run in a visit. Only a runtime can tell whether that is the test that the container declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    /// The arguments of the first process, `argv[0]` first.
    pub(crate) args: Vec<Vec<u8>>,
    /// How many scripts the exec was for, each of which is the argument of an interpreter.
    pub(crate) scripts: usize,
    /// Whether it is known already that it is a health check, because a pod's container runs it at a steady pace.
    pub(crate) is_steady: bool,
}

impl Visit {
    /// Whether a runtime was asked to run this command. For a script, the kernel puts the interpreter before it,
    /// possibly with an argument, and the runtime has found the script if it was asked for without a directory.
    pub(crate) fn runs(&self, command: &[String]) -> bool {
        let Some((program, rest)) = command.split_first() else { return false };
        let Some(before) = self.args.len().checked_sub(command.len()) else { return false };
        let same_rest = self.args[before + 1..].iter().eq(rest.iter().map(String::as_bytes));
        let called = &self.args[before];
        let is_called = called == program.as_bytes()
            || self.scripts > 0 && !program.contains('/') && called.ends_with(format!("/{program}").as_bytes());
        let expected = if self.scripts > 0 { 1..=2 * self.scripts } else { 0..=0 };
        same_rest && is_called && expected.contains(&before)
    }
}

/// Why a finding is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Expected {
    /// The reason.
    pub reason: Reason,
    /// The severity that the finding would have otherwise.
    pub otherwise: Severity,
}

impl Expected {
    /// Makes this severity that of what is expected.
    pub(crate) fn new(reason: Reason, severity: &mut Severity) -> Self {
        Self { reason, otherwise: std::mem::replace(severity, Severity::Info) }
    }
}

/// Why a finding has another severity than that of the detector's rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Overridden {
    /// The name of the override.
    pub by: String,
    /// The severity that the finding would have otherwise.
    pub otherwise: Severity,
}

/// A reason for which acts are expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// The container has written data to a directory that is there for that.
    Scratch,
    /// A runtime runs the test that the container declares.
    HealthCheck,
    /// The daemon of a runtime prepares the container's root for itself.
    Engine,
    /// The container's entrypoint sets it up before it accepts a connection.
    Startup,
    /// The scheduler of the image runs its jobs.
    Scheduled,
    /// Other containers of the same image have done the same after their start.
    Image,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 6] =
        [Self::Scratch, Self::HealthCheck, Self::Engine, Self::Startup, Self::Scheduled, Self::Image];

    /// The name, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scratch => "scratch",
            Self::HealthCheck => "health_check",
            Self::Engine => "engine",
            Self::Startup => "startup",
            Self::Scheduled => "scheduled",
            Self::Image => "image",
        }
    }
}

/// The node, with what the detector was told to say about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Node {
    /// The name of the node.
    #[serde(rename = "node")]
    pub name: String,
    /// The name of the cluster that the node belongs to (`--cluster`).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cluster: Option<String>,
    /// The labels that all lines of this detector have (`--label`).
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub labels: BTreeMap<String, String>,
}

impl From<String> for Node {
    fn from(name: String) -> Self {
        Self { name, ..Self::default() }
    }
}

impl From<&str> for Node {
    fn from(name: &str) -> Self {
        name.to_owned().into()
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

// The numbers are part of ids: see `Finding::id`.
/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
#[repr(u8)]
pub enum Kind {
    /// A shell was started in a container.
    ShellInContainer = 1,
    /// A file of a container's image was changed, or one was added to it.
    ImageWrite = 2,
    /// Something was mounted over a path of a container's image, or a mount or root in it was changed.
    ImageShadowed = 3,
    /// A container opened a block device for writing.
    DeviceWrite = 4,
    /// A program, script or library in the container's root file system was executed that is not as in the image.
    DriftedExec = 5,
    /// A program, script or library was executed from a file that is only in memory or deleted.
    FilelessExec = 6,
    /// A process of a container was moved out of the container's cgroup.
    CgroupEscape = 7,
    /// A container opened for writing a file that names a program for the kernel to execute on the host.
    KernelControlWrite = 8,
    /// A process opened for writing a file that switches off the probes of the sensor, or changed a map of the sensor.
    SensorTampering = 9,
    /// A container opened a file by its handle, which needs no name and leads past mounts.
    HandleOpen = 10,
    /// A process with the host's mounts, or the kernel itself, executed a file of a container.
    HostExec = 11,
    /// A program, script or library on a volume was executed.
    VolumeExec = 12,
    /// Somebody came into a container, worked in it at a terminal or through a socket, or did something of high
    /// severity with a shell that a service has started.
    Session = 13,
    /// Nothing: somebody tests whether findings arrive where they should (`detector test-alert`).
    TestAlert = 14,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 14] = [
        Self::ShellInContainer,
        Self::ImageWrite,
        Self::ImageShadowed,
        Self::DeviceWrite,
        Self::DriftedExec,
        Self::FilelessExec,
        Self::CgroupEscape,
        Self::KernelControlWrite,
        Self::SensorTampering,
        Self::HandleOpen,
        Self::HostExec,
        Self::VolumeExec,
        Self::Session,
        Self::TestAlert,
    ];

    /// The name, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ShellInContainer => "shell_in_container",
            Self::ImageWrite => "image_write",
            Self::ImageShadowed => "image_shadowed",
            Self::DeviceWrite => "device_write",
            Self::DriftedExec => "drifted_exec",
            Self::FilelessExec => "fileless_exec",
            Self::CgroupEscape => "cgroup_escape",
            Self::KernelControlWrite => "kernel_control_write",
            Self::SensorTampering => "sensor_tampering",
            Self::HandleOpen => "handle_open",
            Self::HostExec => "host_exec",
            Self::VolumeExec => "volume_exec",
            Self::Session => "session",
            Self::TestAlert => "test_alert",
        }
    }
}

/// How much a finding matters, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Expected; for the record.
    Info,
    /// Unusual, mostly harmless.
    Low,
    /// Breaks the rule that containers do not change.
    Medium,
    /// Likely a person or an intruder at work.
    High,
    /// An attack, as far as one event can show it.
    Critical,
}

impl Severity {
    /// All severities, the least first.
    pub const ALL: [Self; 5] = [Self::Info, Self::Low, Self::Medium, Self::High, Self::Critical];

    /// The name, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// A name that is not one of the expected names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} {name:?}; use one of {expected}")]
pub struct UnknownName {
    what: &'static str,
    name: String,
    expected: String,
}

/// Implements `Display` and `FromStr` with the names in `ALL`.
macro_rules! named {
    ($type:ty, $what:literal) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }

        impl FromStr for $type {
            type Err = UnknownName;

            fn from_str(name: &str) -> Result<Self, UnknownName> {
                Self::ALL.into_iter().find(|known| known.name() == name).ok_or_else(|| UnknownName {
                    what: $what,
                    name: name.to_owned(),
                    expected: Self::ALL.map(Self::name).join(", "),
                })
            }
        }
    };
}

named!(Kind, "finding");
named!(Severity, "severity");
named!(Reason, "reason");

/// A container, as far as it is known at that moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Container {
    /// The container's id or name, as its runtime knows it. It is left out if the container's cgroup is not known
    /// (yet).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub id: Option<Text>,
    /// The container's name.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<Text>,
    /// `docker`, `containerd`, `cri-o`, `podman`, `lxc` or `systemd-nspawn`; of a step of a build, `buildkit` or
    /// `buildah`. It is left out if the cgroup's name does not show it, and no runtime has named the container as its
    /// own (yet).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub runtime: Option<Cow<'static, str>>,
    /// The container's image. The image, the name and the labels come from the runtime. They are left out if it has not
    /// answered (yet); then a `container_info` may follow.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub image: Option<Image>,
    /// The container's labels.
    #[serde(flatten)]
    pub labels: Labels,
    /// The Kubernetes pod that the container belongs to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pod: Option<Pod>,
    /// The path of the container's cgroup.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cgroup: Option<Text>,
    /// The id of the container's cgroup. It names the container on this node even if nothing else is known.
    pub cgroup_id: u64,
}

/// The image of a container, as its runtime knows it. Very long values are truncated and end with `…`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Image {
    /// The image's name, as it was given to the runtime.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<Text>,
    /// The digest of the image's manifest, by which a registry knows it. It is left out if the image was built on this
    /// node.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub digest: Option<Text>,
    /// The runtime's id of the image, mostly the digest of its configuration.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub id: Option<Text>,
    /// The image's entrypoint; at most the first 16 parts.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub entrypoint: Vec<Text>,
    /// The directories that the image declares as volumes. They are left out if they are not known or more than 16.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub volumes: Option<Vec<Text>>,
}

/// Labels, as far as they fit: at most 64 of them and 8 KiB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Labels {
    /// The labels, by name.
    #[serde(rename = "labels", skip_serializing_if = "BTreeMap::is_empty", default)]
    pub values: BTreeMap<Text, Text>,
    /// Whether some labels are left out, because there are too many or they are too long.
    #[serde(rename = "labels_truncated", skip_serializing_if = "std::ops::Not::not", default)]
    pub truncated: bool,
}

/// A Kubernetes pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pod {
    /// `metadata.uid`.
    pub uid: Text,
    /// `metadata.namespace`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub namespace: Option<Text>,
    /// `metadata.name`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<Text>,
    /// `metadata.labels`.
    #[serde(flatten)]
    pub labels: Labels,
    /// What created the pod, as far as its labels and its name show it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub owner: Option<Owner>,
}

/// What created a pod, and creates another one when it is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Owner {
    /// The owner's `kind`.
    pub kind: OwnerKind,
    /// `metadata.name`.
    pub name: Text,
}

/// The kinds of Kubernetes that own pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the names are Kubernetes'")]
pub enum OwnerKind {
    DaemonSet,
    Deployment,
    Job,
    StatefulSet,
}

impl OwnerKind {
    /// The kind's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DaemonSet => "DaemonSet",
            Self::Deployment => "Deployment",
            Self::Job => "Job",
            Self::StatefulSet => "StatefulSet",
        }
    }
}

/// What was done in a session: by its first process, which the finding describes as it was when it was seen first, and
/// by all descendants of that process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// How the session began.
    pub via: Via,
    /// When its first process started, or, of what an application has started, when that began.
    pub started: Time,
    /// Since when the detector has watched the session, if it had begun before the detector started. What was done
    /// until then is in the lines of the earlier run of the detector.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub resumed: Option<Time>,
    /// When its last process ended. It is left out while the session lasts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended: Option<Time>,
    /// The end itself was not seen. `ended` is when it was noticed that no process of the session is left, or, of what
    /// an application has started, when something was done in it last.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub end_not_seen: bool,
    /// The address and port from which a program of the session takes commands, if that is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub peer: Option<String>,
    /// The arguments of the container's process that started the first process, if they are known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub started_by: Option<Vec<Text>>,
    /// The programs that were executed, the first ones first; at most 50, and fewer if they have long arguments.
    pub programs: Vec<SessionProgram>,
    /// How many further programs were executed.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub programs_omitted: u64,
    /// The files of the image that were changed, the first ones first; at most 50, and fewer if they have long paths.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub files: Vec<SessionFile>,
    /// How many further changes of files there were.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub files_omitted: u64,
    /// The number of findings of each kind about acts in the session.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub findings: BTreeMap<Kind, u64>,
}

/// What was done again: acts that are the same apart from a name, and what else was done to a file right after its
/// creation. The finding is about all of them. `process` is that of the first one, and so is `file`, apart from what
/// was done to it after its creation. Each act is counted in one finding only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Repeated {
    /// How often it was done so far, with the first time.
    pub count: u64,
    /// How often each operation was done, if a file that is created is also renamed or given permissions, for example.
    /// Then the count is that of the created files.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub operations: BTreeMap<ImageOp, u64>,
    /// When the first one happened.
    pub first: Time,
    /// When the last one happened.
    pub last: Time,
    /// What the paths have in common: `*` is a part of a name that differs, `/*` at the end is any file of a directory,
    /// and `/**` any file below a directory. It is left out if a program was executed again.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub paths: Option<Text>,
    /// Some of the paths: the first four and the last four.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub names: Vec<Text>,
    /// How many further paths there were. One that comes again later can be counted again.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub names_omitted: u64,
    /// The arguments of some shells, if they differ in numbers: the first four and the last four that are different.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub commands: Vec<Vec<Text>>,
    /// How many further arguments there were. What comes again later can be counted again.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub commands_omitted: u64,
    /// How many of these files the kernel only counted, because very many were created in a short time. They have the
    /// directory and the suffix of others, but their names are not known.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub counted_in_kernel: u64,
    /// The arguments of the package manager or of the step of a build that did all this, or whose descendants did. Then
    /// the count is that of all acts of the same kind of finding.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub by: Option<Vec<Text>>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A program that was executed in a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionProgram {
    /// When it was executed.
    pub time: Time,
    /// The process id on the node.
    pub pid: u32,
    /// The path of the executable.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exe: Option<Text>,
    /// The arguments, `argv[0]` first, as far as they fit into 256 bytes.
    pub args: Vec<Text>,
    /// Whether arguments are missing.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub truncated: bool,
    /// The exit code. It is left out while the program runs, if a signal has ended it, if its process has executed
    /// another program, or if its end was not seen.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exit_code: Option<u8>,
    /// The number of the signal that has ended it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub signal: Option<u8>,
}

/// A file that was changed in a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionFile {
    /// The path of the file in the container.
    pub path: Text,
    /// The new path, or that of the hard link.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub new_path: Option<Text>,
    /// What was done to the file.
    pub op: ImageOp,
    /// How many findings there are about this.
    pub count: u64,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Process {
    /// The process id on the node.
    pub pid: u32,
    /// The thread id on the node.
    pub tid: u32,
    /// The process id in the process's own pid namespace.
    pub ns_pid: u32,
    /// The parent's process id on the node.
    pub ppid: u32,
    /// The user id on the node.
    pub uid: u32,
    /// The group id on the node.
    pub gid: u32,
    /// The id of the user who logged in on the node. Changes of the process's user id do not change it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub login_uid: Option<u32>,
    /// The effective capabilities of the process.
    pub capabilities: Capabilities,
    /// When the process started. Together with `pid` this identifies the process even after the id is used again.
    pub start_time: Time,
    /// The name of the task. The process can choose it, so it is no evidence.
    pub comm: Text,
    /// The path of the executable from the process's own root, or `memfd:NAME` for one in memory.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exe: Option<Text>,
    /// The arguments, `argv[0]` first, as they were at the exec.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub args: Option<Vec<Text>>,
    /// The working directory, as it was at the exec.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cwd: Option<Text>,
    /// Which of `exe`, `cwd` and `args` are truncated. A truncated path lacks its upper directories (the rest follows
    /// `…/`), and truncated arguments lack their end.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub truncated: Vec<ProcessField>,
    /// The controlling terminal.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tty: Option<Text>,
    /// How the process came into the container.
    pub origin: Origin,
    /// What the descriptors 0, 1 and 2 refer to.
    pub stdio: [StdioKind; 3],
    /// The address and port of the other end of standard input, if that is an IP socket with a connection. An IPv6
    /// address is in brackets.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub peer: Option<String>,
    /// The ancestors of the process, nearest first; at most 8. The first one of a process that a runtime has brought
    /// into a running container is this runtime, although that may have ended meanwhile, so that `ppid` is another one.
    pub ancestors: Vec<Ancestor>,
}

/// A field of a process that can be truncated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProcessField {
    /// `exe`.
    Exe,
    /// `args`.
    Args,
    /// `cwd`.
    Cwd,
}

/// An ancestor of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ancestor {
    /// The process id on the node.
    pub pid: u32,
    /// The name of the task. The process can choose it, so it is no evidence.
    pub comm: Text,
    /// When the ancestor started.
    pub start_time: Time,
    /// Whether the ancestor belongs to the same container.
    pub in_container: bool,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct File {
    /// The path of the file in the container, or `memfd:NAME` for one in memory. It is left out if it was lost; then
    /// `dev` and `inode` identify the file.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path: Option<Text>,
    /// The other path of the file: after a `rename` or `exchange` the new path, after a `link` that of the hard link.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub new_path: Option<Text>,
    /// Whether the upper directories of `path` or `new_path` are missing; the rest follows `…/`.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub truncated: bool,
    /// What was done to the file, or to a mount over it. It is left out if `finding` says it: the file was executed, or
    /// mapped to be executed, or it is a device that was opened.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub op: Option<Op>,
    /// The layer of the overlay that the file was in before the event. It is left out if the file is not on an overlay,
    /// or the layer is not known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub layer: Option<Layer>,
    /// In a `drifted_exec`, how the file differs from the image. It is left out if that is not known, because the file
    /// was copied to the upper layer before the sensor started, for example.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub differs: Option<Difference>,
    /// The last reported change of the content of a file that was executed or loaded. It is left out if there was none
    /// since the sensor started, or if it was too long ago to be remembered.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub changed: Option<Changed>,
    /// The device of the file system that the file is on.
    pub dev: Device,
    /// The inode number. It is left out if the file was created by the event and had none yet.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub inode: Option<u64>,
    /// The permissions; after a `chmod`, the new ones. They are left out if they were lost, or for the same reason as
    /// `inode`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mode: Option<Mode>,
    /// Whether the file has no name: it was deleted, or it never had one (memfd).
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub deleted: bool,
    /// How many bytes the first call asked to write.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bytes: Option<u64>,
    /// Whether the image declares a volume where the file is. It is left out if the runtime has not answered (yet).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub declared_volume: Option<bool>,
    /// The finding is unverified, because the content of the file was not read for this reason. That it is a shell is
    /// only known from the name by which it was called, which the process could choose.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unverified: Option<Unread>,
    /// The SHA-256 of the program that was executed, as it was read right after that, in a `drifted_exec`,
    /// `fileless_exec` or `volume_exec` of high severity. If it is not known yet, a `file_hash` notice may follow.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sha256: Option<Sha256>,
    /// Why `sha256` is not known, and will not be.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unhashed: Option<Unread>,
}

/// A change of a file that has happened before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Changed {
    /// When it was changed.
    pub time: Time,
    /// What was done to it.
    pub op: ImageOp,
    /// The id of the process that did it, as the node sees it.
    pub pid: u32,
    /// The executable of this process.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exe: Option<Text>,
    /// Whether the installation did it that runs the file now. It is not in the output.
    #[serde(skip)]
    pub(crate) is_installed: bool,
}

/// Why the content of an executed file was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Unread {
    /// The file was gone, could not be found again, or may have been changed, when it should have been read.
    Gone,
    /// The file, or a directory of its path, is on FUSE or a network file system, which may never answer.
    Remote,
    /// The file has too much data to read all of it.
    TooLarge,
    /// The container executed too many files at once.
    QueueFull,
    /// The file could not be read in time.
    TimedOut,
    /// The file was executed on the host.
    OnHost,
}

impl Unread {
    /// The reason in a message.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Gone => "its file was gone",
            Self::Remote => "its file is on a remote file system",
            Self::TooLarge => "its file is too large to read",
            Self::QueueFull => "too many files wait to be read",
            Self::TimedOut => "its file could not be read in time",
            Self::OnHost => "its file is on the host",
        }
    }
}

/// What was done to a file, or to a mount or root over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Op {
    /// The file was changed.
    Image(ImageOp),
    /// A mount or root was changed.
    Mount(MountOp),
}

impl Op {
    /// The name, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Image(op) => op.name(),
            Self::Mount(op) => op.name(),
        }
    }
}

/// Something that happened to the sensor, or that it learnt later. Nothing is lost silently: what was not seen or not
/// written is reported here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Notice {
    /// When it was noticed.
    pub time: Time,
    /// The version of this format: 1.
    pub schema: u32,
    /// Where it happened.
    #[serde(flatten)]
    pub node: Node,
    /// What happened.
    #[serde(flatten)]
    pub event: NoticeEvent,
}

impl Notice {
    /// A notice with the current time.
    pub fn now(node: Node, event: NoticeEvent) -> Self {
        Self::at(Time(jiff::Timestamp::now()), node, event)
    }

    /// A notice with this time.
    pub(crate) fn at(time: Time, node: Node, event: NoticeEvent) -> Self {
        Self { time, schema: SCHEMA_VERSION, node, event }
    }
}

/// What happened to the sensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", content = "detail", rename_all = "snake_case")]
#[non_exhaustive]
pub enum NoticeEvent {
    /// The sensor watches from now on.
    Started {
        /// The detector's version.
        version: Cow<'static, str>,
        /// The daemon before this one has left its socket behind: it was killed or crashed, or the host did.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        after_crash: bool,
    },
    /// The sensor stopped watching.
    Stopped {
        /// Why.
        reason: String,
    },
    /// The sensor detects or records less than it can. A later notice of this kind replaces this one.
    Degraded {
        /// What is missing, and why, one sentence each. Empty once nothing is missing any more.
        reasons: Vec<String>,
    },
    /// The sensor has undone what another process had done to it.
    Healed {
        /// What was done, in a sentence.
        what: String,
    },
    /// The detector did not run, because somebody stopped it or the host had no time for it. What happened meanwhile
    /// was reported late; what could not be kept is a loss.
    Paused {
        /// When it should have run.
        from: Time,
        /// When it ran again.
        until: Time,
    },
    /// Something was lost, or reported without all its details.
    Loss {
        /// What was lost.
        kind: Loss,
        /// How many were lost since the last notice of this kind.
        count: u64,
        /// What was not seen or not written, for people. It is not meant to be parsed.
        #[serde(default)]
        message: Cow<'static, str>,
    },
    /// The kernel did not run the probes for some calls. What these calls did was not seen, unless another probe saw
    /// it.
    BlindWindow {
        /// When the skipped calls were previously counted.
        from: Time,
        /// When they were counted.
        until: Time,
        /// How many calls were skipped, by program.
        skipped: BTreeMap<Cow<'static, str>, u64>,
    },
    /// A session of at least medium severity has ended. The last line of its finding says the same.
    SessionEnded {
        /// The `id` of the session's finding.
        session: String,
        /// The highest severity of what was done in it.
        severity: Severity,
        /// Why it was expected.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        expected: Option<Expected>,
        /// The override that has given it its severity.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        overridden: Option<Box<Overridden>>,
        /// A line for people. It is not meant to be parsed.
        message: String,
        /// The container.
        container: Box<Container>,
        /// What was done in it.
        summary: Box<Summary>,
        /// The visit, if it may be a health check. It is not in the output.
        #[serde(skip)]
        visit: Option<Arc<Visit>>,
        /// What was done in it, as far as exceptions or overrides can make a difference. It is not in the output.
        #[serde(skip)]
        parts: Vec<Part>,
    },
    /// A configuration file was loaded: at the start of the daemon, on SIGHUP, or because it has changed. Acts from now
    /// on are judged by its exceptions and overrides.
    PolicyLoaded(Box<LoadedPolicy>),
    /// A configuration file has changed and cannot be used. What was loaded before still holds.
    PolicyRefused {
        /// The path of the file.
        file: String,
        /// What is wrong with it, and where.
        reason: String,
    },
    /// An exception has expired while the daemon runs: what it has suppressed until now is told.
    ExceptionExpired {
        /// The name of the exception.
        exception: String,
        /// Why there is this exception.
        reason: String,
        /// Who answers for it.
        owner: String,
        /// When it has expired.
        expired: Time,
    },
    /// An exception has suppressed nothing for seven days. This is said once.
    ExceptionUnused {
        /// The name of the exception.
        exception: String,
        /// Why there is this exception.
        reason: String,
        /// Who answers for it.
        owner: String,
        /// Since when this daemon goes by it.
        since: Time,
    },
    /// An exception has suppressed findings. This is said at the first one, and then once an hour and when the daemon
    /// stops, if there were more. `time` is that of the last act.
    Suppressed {
        /// The name of the exception.
        exception: String,
        /// Why there is this exception.
        reason: String,
        /// Who answers for it.
        owner: String,
        /// How many acts it has suppressed since the last notice about this exception. A finding with `repeated` is as
        /// many acts as its count says; any other finding is one, also that of a session.
        count: u64,
        /// How many acts it has suppressed since the daemon started.
        total: u64,
    },
    /// A container is not watched from now on. What is critical, leads out of it or acts on
    /// the detector is reported all the same.
    Unwatched {
        /// The name of the rule that decides so.
        rule: String,
        /// Why there is this rule.
        reason: String,
        /// The container.
        container: Box<Container>,
    },
    /// A container that was not watched is watched from now on, because other rules were loaded.
    Watched {
        /// The container.
        container: Box<Container>,
    },
    /// The SHA-256 of an executed file became known after the finding about it was written. It belongs to all lines of
    /// this finding.
    FileHash {
        /// The `id` of the finding.
        finding: String,
        /// A line for people. It is not meant to be parsed.
        message: String,
        /// The container.
        container: Box<Container>,
        /// The SHA-256.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        sha256: Option<Sha256>,
        /// Why it is not known, and will not be.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        unhashed: Option<Unread>,
    },
    /// A container's runtime has answered after findings about the container were written.
    ContainerInfo {
        /// The container.
        container: Box<Container>,
    },
    /// How far the log has come. This is said at intervals: if it is not, the detector does not write any more.
    Heartbeat {
        /// The number of the last line before this notice: its `seq`.
        seq: u64,
        /// The SHA-256 of that line, without its line feed.
        sha256: Sha256,
    },
    /// The line before this one in the log was not written to its end, because the detector was killed or the power was
    /// cut. The chain goes on from the line before that.
    TornLine {
        /// How many bytes were written.
        bytes: u64,
        /// The SHA-256 of these bytes.
        sha256: Sha256,
    },
    /// The log ended with a line that has no `seq` and `prev`, so a new chain begins with the number 1. Nothing links
    /// it to what is before.
    NewChain,
    /// The daemon has rotated its log: this is the first line of the new file.
    LogRotated(Box<RotatedLog>),
}

/// A log that was rotated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RotatedLog {
    /// The name that the file has now, in the same directory.
    pub file: Text,
    /// The number of the first line in it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub first: Option<u64>,
    /// The last line in it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last: Option<LoggedLine>,
    /// The names of the older files that are removed now, because no more are kept: the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<Text>,
    /// The last line that is removed with them. The log then begins with the line after it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub removed_to: Option<LoggedLine>,
}

/// A line of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LoggedLine {
    /// Its number.
    pub seq: u64,
    /// Its SHA-256, without its line feed.
    pub sha256: Sha256,
}

/// A configuration file that was loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LoadedPolicy {
    /// The path of the file.
    pub file: String,
    /// The SHA-256 of its text.
    pub sha256: Sha256,
    /// How many exceptions it has.
    pub exceptions: u64,
    /// How many overrides of severities it has.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub overrides: u64,
    /// How many rules it has about which containers are watched.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rules: u64,
    /// The names of the exceptions that were not loaded before. This list, and each of the following, has at most
    /// 100 entries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<String>,
    /// The names of those that hold no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
    /// The names of those that are different.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
    /// Whether those that were there before are tried in another order.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reordered: bool,
    /// Whether the overrides of severities are different.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub other_overrides: bool,
    /// Whether the rules about which containers are watched are different.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub other_rules: bool,
    /// What is doubtful about the file, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// How many entries of these lists were left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: u64,
    /// The other keys whose values are not those with which the daemon started. They take effect when it is
    /// started again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs_restart: Vec<String>,
}

/// What a loss means: the part of a sentence that says what was not seen or not written, and why.
pub(crate) const fn loss_message(kind: Loss) -> &'static str {
    match kind {
        Loss::Exec => {
            "the ring buffer was full, so of the programs that were executed meanwhile only the first run of each is \
            reported, with less detail"
        }
        Loss::ImageWrite => {
            "the ring buffer was full, so changes of images are reported late, without the process and the path"
        }
        Loss::Cgroup => "the ring buffer was full, so the start or the end of containers was noticed late",
        Loss::SeenFull => "more files were changed than can be remembered, so changes of them may be reported again",
        Loss::CgroupsFull => {
            "there are more cgroups of containers than can be remembered, so how processes came into some containers \
            is not known"
        }
        Loss::RootsFull => {
            "there are more containers than can be watched, so changes of the images of some are not seen"
        }
        Loss::EnteredFull => {
            "more processes came into containers from outside than can be remembered, so some are reported as \
            processes of the application"
        }
        Loss::Script => {
            "the ring buffer was full, so scripts, or libraries on volumes, were executed without being seen"
        }
        Loss::CgroupEscape => "the ring buffer was full, so processes left the cgroup of their container unseen",
        Loss::Call => "the kernel could not run the probe that reports changes, so changes of images were not seen",
        Loss::KeptExecsFull => {
            "the ring buffer was full and no more programs could be kept, so programs were executed without being seen"
        }
        Loss::LoadersFull => {
            "more dynamic loaders ran programs than can be remembered, so programs that they ran were not seen"
        }
        Loss::Tampering => "the ring buffer was full, so processes acted on the detector or changed its maps unseen",
        Loss::Exit => "the ring buffer was full, so how processes of sessions ended is not known",
        Loss::SessionProcesses => {
            "there are more processes in sessions that began inside containers than can be remembered, so what further \
            ones do is in no session"
        }
        Loss::Listen => {
            "the ring buffer was full, so containers began to listen on sockets unseen: the start-up of no container \
            is expected any more"
        }
        Loss::Accept => {
            "the ring buffer was full, so containers began to serve others unseen: the start-up of no container is \
            expected any more"
        }
        Loss::SessionsFull => "more sessions were open than can be followed, so further ones have no finding",
        Loss::Ledger => "the ledger was too slow for all lines, so `detector drift` lacks some; the log has them",
        Loss::Record => "records of the probes could not be read, so what they were about was not seen",
        Loss::Content => {
            "executed files were gone before they could be read, so shells and interpreters with other names may have \
            been missed"
        }
        Loss::Client => "a live viewer was too slow for all lines; the log has those that it missed",
        Loss::Forward => {
            "lines were removed from the log before they could be forwarded, so the receiver of a forwarder misses them"
        }
        Loss::Output => "the log could not be written, or not fast enough, so it lacks lines",
        Loss::ContentRemote => {
            "executed files are on FUSE or a network file system and were not read, so shells and interpreters with \
            other names may have been missed"
        }
        Loss::ContentTooLarge => {
            "executed files were too large to be read to the end, so shells and interpreters with other names may \
            have been missed"
        }
        Loss::ContentQueueFull => {
            "a container executed more files at once than could be read, so shells and interpreters with other names \
            may have been missed"
        }
        Loss::ContentTimedOut => {
            "executed files could not be read in time, so shells and interpreters with other names may have been missed"
        }
    }
}

impl NoticeEvent {
    /// Something was lost so many times.
    pub fn loss(kind: Loss, count: u64) -> Self {
        Self::Loss { kind, count, message: loss_message(kind).into() }
    }

    /// The name, as in JSON.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::Stopped { .. } => "stopped",
            Self::Degraded { .. } => "degraded",
            Self::Healed { .. } => "healed",
            Self::Paused { .. } => "paused",
            Self::Loss { .. } => "loss",
            Self::BlindWindow { .. } => "blind_window",
            Self::SessionEnded { .. } => "session_ended",
            Self::PolicyLoaded(_) => "policy_loaded",
            Self::PolicyRefused { .. } => "policy_refused",
            Self::ExceptionExpired { .. } => "exception_expired",
            Self::ExceptionUnused { .. } => "exception_unused",
            Self::Suppressed { .. } => "suppressed",
            Self::Unwatched { .. } => "unwatched",
            Self::Watched { .. } => "watched",
            Self::FileHash { .. } => "file_hash",
            Self::ContainerInfo { .. } => "container_info",
            Self::Heartbeat { .. } => "heartbeat",
            Self::TornLine { .. } => "torn_line",
            Self::NewChain => "new_chain",
            Self::LogRotated(_) => "log_rotated",
        }
    }
}

/// A moment: RFC 3339 in UTC, always with nine decimals, so that it sorts as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub jiff::Timestamp);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(9));
        PRINTER.print_timestamp(&self.0, jiff::fmt::StdFmtWrite(f)).map_err(|_| fmt::Error)
    }
}

impl Time {
    /// Converts nanoseconds since 1970.
    pub fn from_nanoseconds(nanoseconds: i128) -> Self {
        // This fails only if the clock is wrong by thousands of years, and a finding must not be lost for that reason.
        Self(jiff::Timestamp::from_nanosecond(nanoseconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH))
    }
}

/// Text made of untrusted bytes. UTF-8 stays as it is, any other byte becomes `\xNN`, and a backslash becomes two, so
/// that the bytes can be recovered from the text.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Text(String);

impl Text {
    /// Takes what is put together of parts of texts.
    pub(crate) const fn of_texts(text: String) -> Self {
        Self(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The bytes that the text was made of. Returns `None` if it has a backslash that stands for nothing.
    pub(crate) fn to_bytes(&self) -> Option<Vec<u8>> {
        let digit = |digit: u8| char::from(digit).to_digit(16).map(|digit| digit as u8);
        let mut bytes = Vec::with_capacity(self.0.len());
        let mut rest = self.0.as_bytes();
        while let Some(at) = rest.iter().position(|&byte| byte == b'\\') {
            bytes.extend_from_slice(&rest[..at]);
            let (byte, tail) = match &rest[at + 1..] {
                [b'\\', tail @ ..] => (b'\\', tail),
                [b'x', high, low, tail @ ..] => (digit(*high)? << 4 | digit(*low)?, tail),
                _ => return None,
            };
            bytes.push(byte);
            rest = tail;
        }
        bytes.extend_from_slice(rest);
        Some(bytes)
    }
}

// Control characters stay in the text: each output escapes them in its own way.
impl From<&[u8]> for Text {
    fn from(bytes: &[u8]) -> Self {
        if !bytes.contains(&b'\\')
            && let Ok(text) = std::str::from_utf8(bytes)
        {
            return Self(text.to_owned());
        }
        let mut text = String::with_capacity(bytes.len() + 16);
        for chunk in bytes.utf8_chunks() {
            for (nth, part) in chunk.valid().split('\\').enumerate() {
                if nth > 0 {
                    text.push_str("\\\\");
                }
                text.push_str(part);
            }
            for byte in chunk.invalid() {
                fmt::Write::write_fmt(&mut text, format_args!("\\x{byte:02x}")).expect("a String takes all text");
            }
        }
        Self(text)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A device number: `major:minor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// The driver.
    pub major: u32,
    /// The device.
    pub minor: u32,
}

impl Device {
    /// Converts the kernel's own encoding, `major << 20 | minor`.
    pub(crate) const fn from_kernel(dev: u32) -> Self {
        Self { major: dev >> 20, minor: dev & 0xf_ffff }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl FromStr for Device {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (major, minor) = text.split_once(':').unwrap_or((text, ""));
        Ok(Self { major: major.parse()?, minor: minor.parse()? })
    }
}

/// File permissions with the set-id and sticky bits: four octal digits, such as `0755`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(u32);

impl Mode {
    /// Takes the permissions from `st_mode`, and drops the file type.
    pub(crate) const fn from_st_mode(mode: u32) -> Self {
        Self(mode & 0o7777)
    }

    /// Whether the program gets the rights of the file's owner or group.
    pub(crate) const fn has_set_id(self) -> bool {
        self.0 & 0o6000 != 0
    }

    /// Whether anybody may execute the file.
    pub(crate) const fn is_executable(self) -> bool {
        self.0 & 0o111 != 0
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl FromStr for Mode {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u32::from_str_radix(text, 8).map(Self::from_st_mode)
    }
}

/// A SHA-256: 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sha256(pub [u8; 32]);

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Sha256 {
    type Err = InvalidSha256;

    fn from_str(text: &str) -> Result<Self, InvalidSha256> {
        from_hex(text).map(Self).ok_or(InvalidSha256)
    }
}

/// Reads so many bytes in hexadecimal digits.
pub(crate) fn from_hex<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let digit = |digit: u8| char::from(digit).to_digit(16).map(|digit| digit as u8);
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let bytes: Option<Vec<u8>> = pairs.iter().map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect();
    bytes.filter(|_| rest.is_empty())?.try_into().ok()
}

/// A text that is not a SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 has 64 hexadecimal digits")]
pub struct InvalidSha256;

/// Capabilities in the format of `CapEff` in proc(5): one bit for each, in hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities(pub u64);

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Capabilities {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

impl FromStr for Time {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// Implements serialisation as the text of `Display` and `FromStr`, with a schema of its own.
macro_rules! as_text {
    ($type:ident, $description:literal, $($key:literal: $value:literal),+) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                // This is faster than `collect_str`, which escapes each fragment on its own.
                serializer.serialize_str(&self.to_string())
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "description": $description, "type": "string", $($key: $value),+ })
            }
        }
    };
}

as_text!(Time, "A moment: RFC 3339 in UTC with nine decimals.", "format": "date-time");
as_text!(Device, "A device number: `major:minor`.", "pattern": "^[0-9]+:[0-9]+$");
as_text!(Capabilities, "A bit for each capability, in hexadecimal digits.", "pattern": "^[0-9a-f]{16}$");
as_text!(Sha256, "A SHA-256: 64 hexadecimal digits.", "pattern": "^[0-9a-f]{64}$");
as_text!(Mode, "File permissions with the set-id and sticky bits: four octal digits.", "pattern": "^[0-7]{4}$");
