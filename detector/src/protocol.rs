//! What the daemon and its clients say to each other on the unix socket: JSON, an object on each line.
//!
//! The client sends one [`Request`]; the daemon answers with one [`Reply`]. After [`Reply::Tail`] follow the lines of
//! the live stream ([`crate::finding::Line`]) until either side closes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::finding::Time;
use crate::runtime::EngineStatus;
use crate::sensor::plan::{Attach, Need};
use crate::sensor::report::{Attachment, HookReport};

/// Version of this protocol. A daemon refuses any other.
pub const VERSION: u32 = 1;

/// Where the daemon listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/detector/detector.sock";

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`] of the client.
    pub version: u32,
    /// What it wants.
    pub request: Call,
}

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// The live stream from now on.
    Tail,
    /// [`Status`], once.
    Status,
}

/// The daemon's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// The stream follows.
    Tail,
    /// How the daemon is.
    Status(Box<Status>),
    /// The request is refused; the daemon closes the connection.
    Error {
        /// Why.
        message: String,
    },
}

/// How a daemon is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Name of the node.
    pub node: String,
    /// What it is doing.
    pub state: DaemonState,
    /// When it began to do that.
    pub since: Time,
    /// Its probes; empty until they are attached.
    pub hooks: Vec<Hook>,
    /// The runtimes of the node that it asks about containers; empty until the probes are attached.
    pub runtimes: Vec<EngineStatus>,
    /// What it counted.
    pub counters: Counters,
}

/// What a daemon is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DaemonState {
    /// It loads, attaches and tests the probes.
    Starting,
    /// The probes are attached and were seen to fire.
    Ready,
    /// It detaches the probes.
    Stopping,
}

/// A hook: what it watches, and how well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Its name.
    pub name: String,
    /// What it is for, and so what is not seen without it.
    pub purpose: String,
    /// The sensor does not start without it.
    pub essential: bool,
    /// Kind and target of the attached program. `None`: there is none.
    pub attached: Option<String>,
    /// There is none because this kernel does not have the function, and needs no hook for it.
    pub absent: bool,
    /// The self-test saw it fire. `None`: the self-test does not reach it, or could not run.
    pub verified: Option<bool>,
    /// The kernel skips this kind of program when it preempts one, so calls can be missed (and are counted).
    pub blindable: bool,
    /// The better ways to attach it that this kernel refused, with its reasons.
    pub refused: Vec<String>,
}

impl From<&HookReport> for Hook {
    fn from(report: &HookReport) -> Self {
        let (attached, blindable) = match report.attachment {
            Attachment::Attached { attach, blindable, .. } => {
                (Some(format!("{} {}", attach.kind(), attach.target())), blindable)
            }
            Attachment::Missing | Attachment::Absent => (None, false),
        };
        let refused = |(attach, why): &(Attach, String)| format!("{} {}: {why}", attach.kind(), attach.target());
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

/// What a daemon counted since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Events that the kernel reported.
    pub events: u64,
    /// Findings made of them.
    pub findings: u64,
    /// What was not seen or not written, by the kind of its loss notice.
    pub losses: BTreeMap<String, u64>,
}
