//! The protocol between the daemon and its clients on the unix socket: one JSON object per line.
//!
//! The client sends one [`Request`], and the daemon answers with one [`Reply`]. After [`Reply::Tail`], the daemon sends
//! the lines of the live stream ([`crate::finding::Line`]) until either side closes the connection, and after
//! [`Reply::Drift`] rows of the ledger.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::finding::{Kind, Severity, Sha256, Time};
use crate::ledger::{Query, Standing};
use crate::runtime::{EngineStatus, Unwatched};
use crate::sensor::EventBuffer;
use crate::sensor::plan::{Attach, Need};
use crate::sensor::report::{Attachment, HookReport};

/// The version of this protocol. A daemon refuses requests with any other version.
pub const VERSION: u32 = 1;

/// The default path of the daemon's socket.
pub const DEFAULT_SOCKET: &str = "/run/detector/detector.sock";

/// A client's request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The client's [`VERSION`].
    pub version: u32,
    /// The requested operation.
    pub request: Call,
}

/// The operations that a client can request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// Sends the live stream from now on.
    Tail,
    /// Sends the daemon's [`Status`] once.
    Status,
    /// Publishes a finding of this severity, which is a test.
    TestAlert {
        /// The severity.
        severity: Severity,
    },
    /// Sends what the ledger says: a [`Row`](crate::ledger::Row) on each line.
    Drift(Query),
}

/// The daemon's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// The lines of the stream follow.
    Tail,
    /// The status of the daemon.
    Status(Box<Status>),
    /// The rows of the ledger follow.
    Drift {
        /// What the daemon does not detect or record, one sentence each: the ledger can lack it.
        degraded: Vec<String>,
    },
    /// There is no ledger.
    NoLedger {
        /// Why, in a sentence.
        reason: String,
    },
    /// The test will be published.
    TestAlert,
    /// The daemon is not ready for the request.
    NotReady,
    /// The request was refused. The daemon closes the connection.
    Error {
        /// The reason.
        message: String,
    },
}

/// The status of a daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The version of the daemon.
    pub version: String,
    /// The process id of the daemon.
    pub pid: u32,
    /// The name of the node.
    pub node: String,
    /// The state of the daemon.
    pub state: DaemonState,
    /// The time at which this state began.
    pub since: Time,
    /// The configuration file that the daemon has loaded, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<ConfigFile>,
    /// The file that findings are written to, or `None` if it is standard output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<PathBuf>,
    /// What the daemon does not detect or record although it can, and why, one sentence each. Empty if nothing is
    /// missing.
    #[serde(default)]
    pub degraded: Vec<String>,
    /// The hooks of the probes. Empty until they are attached.
    pub hooks: Vec<Hook>,
    /// The node's container runtimes that the daemon queries. Empty until the probes are attached.
    pub runtimes: Vec<EngineStatus>,
    /// The rules by which containers are not watched. Empty until the probes are attached.
    #[serde(default)]
    pub unwatched: Vec<Unwatched>,
    /// How many containers run, by what the ledger says about them. `None` if there is no ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<Standing>,
    /// How full the buffers of events are. `None` until the probes are attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buffer: Option<EventBuffer>,
    /// How many lines wait, by what they wait for.
    #[serde(default)]
    pub queues: BTreeMap<String, u64>,
    /// The forwarders of the daemon.
    #[serde(default)]
    pub forwarders: Vec<ForwarderStatus>,
    /// The counters of the daemon.
    pub counters: Counters,
}

/// How far a forwarder has come. The counters begin with the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwarderStatus {
    /// Its name.
    pub name: String,
    /// The URL of its receiver.
    pub to: String,
    /// The number of the last line that was sent.
    pub seq: u64,
    /// How many lines of the log come after it.
    pub waiting: u64,
    /// The time of the first of these.
    #[serde(default)]
    pub oldest: Option<Time>,
    /// How many lines were sent. One that was sent twice counts twice.
    pub sent: u64,
    /// How many lines were sent before the log had taken them.
    #[serde(default)]
    pub unlogged: u64,
    /// How many lines were removed from the log before they could be sent.
    pub given_up: u64,
    /// How many lines the receiver will never take. They are in a file beside the cursor.
    pub refused: u64,
    /// Why nothing can be sent at the moment.
    #[serde(default)]
    pub failure: Option<String>,
    /// Since when.
    #[serde(default)]
    pub failing_since: Option<Time>,
}

/// The state of a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DaemonState {
    /// The daemon loads, attaches and tests the probes.
    Starting,
    /// The probes are attached. [`Status::degraded`] says what does not work.
    Ready,
    /// The daemon detaches the probes.
    Stopping,
}

/// A configuration file that a daemon has loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigFile {
    /// Its path.
    pub path: String,
    /// What was loaded last, if anything was.
    #[serde(default)]
    pub loaded: Option<Loaded>,
    /// The keys with other values than those with which the daemon started. They take effect at a restart.
    #[serde(default)]
    pub needs_restart: Vec<String>,
    /// Why a later version of the file was not loaded.
    #[serde(default)]
    pub refused: Option<String>,
}

/// What a daemon has loaded of a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    /// When.
    pub time: Time,
    /// The SHA-256 of the file.
    pub sha256: Sha256,
    /// How many exceptions it had.
    pub exceptions: u64,
}

/// A hook, and how well it works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// The name of the hook.
    pub name: String,
    /// What the hook is for, and therefore what is not detected without it.
    pub purpose: String,
    /// Whether the sensor requires this hook to start.
    pub essential: bool,
    /// The type and target of the attached program, or `None` if none is attached.
    pub attached: Option<String>,
    /// Whether no program is attached because this kernel does not have the function and needs no hook for it.
    pub absent: bool,
    /// Whether the self-test saw the hook fire. `None` if it does not test this hook or could not run.
    pub verified: Option<bool>,
    /// Whether the kernel skips programs of this type while it preempts one, so that calls can be missed. They are
    /// counted.
    pub blindable: bool,
    /// The better ways to attach the hook that this kernel refused, with the reasons.
    pub refused: Vec<String>,
}

impl From<&HookReport> for Hook {
    fn from(report: &HookReport) -> Self {
        let (attached, blindable) = match report.attachment {
            Attachment::Attached { attach, blindable, .. } => (Some(attach.to_string()), blindable),
            Attachment::Missing | Attachment::Absent => (None, false),
        };
        let refused = |(attach, why): &(Attach, String)| format!("{attach}: {why}");
        Self {
            name: report.hook.name.to_owned(),
            purpose: report.hook.purpose.to_owned(),
            essential: report.hook.need == Need::Essential,
            attached,
            absent: report.attachment == Attachment::Absent,
            verified: report.verified,
            blindable,
            refused: report.refused.iter().map(refused).collect(),
        }
    }
}

/// The counters of a daemon since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// The number of events that the kernel reported.
    pub events: u64,
    /// The number of new files that the kernel only counted, because very many were created in a short time.
    #[serde(default)]
    pub counted_in_kernel: u64,
    /// The number of findings. Updates of a finding do not count.
    pub findings: u64,
    /// The number of findings of each severity. A finding counts with the severity of its last line.
    #[serde(default)]
    pub severities: BTreeMap<Severity, u64>,
    /// How many findings of each kind have had each severity. One whose severity has changed counts for both, so that
    /// these numbers never become smaller.
    #[serde(default)]
    pub reached: BTreeMap<Kind, BTreeMap<Severity, u64>>,
    /// How many findings were expected, by reason.
    #[serde(default)]
    pub expected: BTreeMap<String, u64>,
    /// The numbers of events and lines that were lost, by the kind of the loss notice.
    pub losses: BTreeMap<String, u64>,
    /// The number of calls for which the kernel did not run a probe.
    #[serde(default)]
    pub skipped: u64,
    /// How many acts the exceptions of the policy have suppressed, by their names.
    #[serde(default)]
    pub suppressed: BTreeMap<String, u64>,
    /// How many lines were given to the output.
    #[serde(default)]
    pub given: u64,
    /// How many of these it has taken, or lost.
    #[serde(default)]
    pub settled: u64,
}
