//! What the analysis is told: the entries of the pipeline in a recording.

use std::borrow::Cow;

use detector_common::map::{Count, CountedKey};
use serde::{Deserialize, Serialize};

use super::inspection::Inspected;
use crate::detect::content::Look;
use crate::detect::process::Program;
use crate::detect::{Hashed, TestAlert};
use crate::event::{At, Cgroup, Event, Path, Process, ServingSign};
use crate::finding::{Node, Notice};
use crate::policy::Policy;
use crate::recording::{Entry, as_text};
use crate::redact::Redactor;
use crate::sensor::RunningContainer;

/// Something that the analysis is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Input<'a> {
    /// The first input.
    Start(Cow<'a, Start>),
    /// A container that already ran when the sensor started.
    Running(Cow<'a, Ran>),
    /// By how many nanoseconds the wall clock is ahead of the time since boot from now on.
    Clock(i64),
    /// A cgroup that exists, although nothing has reported its creation.
    Cgroup(Cow<'a, Cgroup>),
    /// An event.
    Event {
        /// The event.
        event: Cow<'a, Event>,
        /// The device of the root of the container that the event starts, in the kernel's encoding.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        root_dev: Option<u32>,
        /// What will show that the container serves others, if the event starts one.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        serving: Option<ServingSign>,
    },
    /// What is known of the content of the file of an earlier event.
    Content {
        /// The time of the event.
        time: u64,
        /// The number of the event.
        number: u64,
        /// What the file is, if that was to be found out.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        look: Option<Look>,
        /// Its SHA-256, if that was asked for.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        sha256: Option<Hashed>,
    },
    /// Cgroups that no longer exist, although nothing has reported their removal.
    Gone {
        /// When this was found out, in nanoseconds since boot.
        time: u64,
        /// Their ids.
        cgroups: Vec<u64>,
    },
    /// The time, in nanoseconds since boot, at which something was due.
    Time(u64),
    /// Files that the probes have counted.
    Counted {
        /// When the counts were read, in nanoseconds since boot.
        time: u64,
        /// What was counted since they were read before.
        counts: Cow<'a, [(CountedKey, Count)]>,
    },
    /// Which sessions have processes.
    Swept {
        /// When this was found out, in nanoseconds since boot.
        time: u64,
        /// The id and the start time of the first process of each session, in order.
        living: Vec<(u32, u64)>,
    },
    /// The pipeline stops at this time, in nanoseconds since boot.
    Stop(u64),
    /// Somebody has asked for this finding.
    TestAlert {
        /// When, in nanoseconds since boot.
        time: u64,
        /// What was asked for.
        alert: TestAlert,
    },
    /// What is decided about findings and containers from now on.
    Policy {
        /// When, in nanoseconds since boot.
        time: u64,
        /// What is decided.
        policy: Cow<'a, Policy>,
    },
    /// From now on, not everything is seen that is done to these containers, because they are not watched.
    Unwatched(Cow<'a, [u64]>),
    /// A notice about the sensor, which goes on as it is.
    Notice(Cow<'a, Notice>),
}

impl<'a> Input<'a> {
    /// What is known of the content of the file of the event that happened there.
    pub(super) fn content(at: At, inspected: &Inspected) -> Self {
        let Inspected { look, hashed: sha256, .. } = *inspected;
        Self::Content { time: at.time, number: at.number, look, sha256 }
    }

    /// The entry in a recording.
    pub(super) fn entry(self) -> Entry<Self, ()> {
        Entry::Pipeline(self)
    }
}

/// What is the same until the daemon stops.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    /// The node in findings.
    pub(crate) node: Node,
    /// The kernel's `/proc/sys/kernel/random/boot_id`.
    pub(crate) boot_id: String,
    /// By how many nanoseconds the wall clock is ahead of the time since boot.
    pub(crate) ahead: i64,
    /// Redacts secrets in arguments.
    pub(crate) redactor: Redactor,
    /// Whether what is done again and again is counted.
    #[serde(default)]
    pub(crate) is_counting: bool,
    /// What is decided about findings at first.
    #[serde(default)]
    pub(crate) policy: Policy,
}

/// A container that already ran when the sensor started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ran {
    /// The id of its outermost cgroup.
    pub(crate) container: u64,
    /// The path of that cgroup from the root of the hierarchy.
    #[serde(with = "as_text")]
    pub(crate) path: Vec<u8>,
    /// The device number of its root, in the kernel's encoding. 0 if it is not known.
    pub(crate) root_dev: u32,
    /// Its processes.
    pub(crate) processes: Vec<Program>,
    /// The first process of each session in it, and its executable.
    pub(crate) firsts: Vec<(Process, Path)>,
    /// When this was found out, in nanoseconds since boot.
    pub(crate) time: u64,
}

impl Ran {
    /// What the analysis is told of a container that was found at this time.
    pub(super) fn new(running: RunningContainer, time: u64) -> Self {
        let RunningContainer { container, cgroup_path: path, root_dev, processes, firsts, .. } = running;
        Self { container, path, root_dev, processes, firsts, time }
    }
}
