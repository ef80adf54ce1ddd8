//! The keys of the file. The doc comments of these types are the descriptions in the published JSON Schema
//! (`detector config schema`).

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use regex::bytes::Regex;
use schemars::JsonSchema;
use tracing::level_filters::LevelFilter;

use super::Address;
use super::entries::List;
use super::read::{Interval, LEVELS, Repetition, Size, keys};
use crate::forward::Forwarder;
use crate::policy::{Exception, Override, Policy, WatchRule};
use crate::runtime::endpoint::Endpoint;

/// The configuration file of `detector run`. Every key is optional. Options of the command line win over the file, and
/// what can be given more than once is added to it.
#[derive(Debug, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Settings {
    /// Log level of the messages on standard error.
    #[schemars(with = "Option<String>", extend("enum" = LEVELS))]
    pub log: Option<LevelFilter>,
    /// Path of the socket on which the daemon listens. If it is not the usual one, give `--socket` to `tail`, `status`,
    /// `drift`, `test-alert`, `explain` and `learn`: they do not take it from this file.
    pub socket: Option<PathBuf>,
    /// Directory for what must outlive the daemon. Without it, the one that systemd has made for it (`StateDirectory=`)
    /// or `/var/lib/detector`.
    pub state_directory: Option<PathBuf>,
    /// How long the ledger keeps containers that have ended, such as `7d`.
    #[schemars(with = "Option<String>")]
    pub ledger_keep: Option<Interval>,
    /// BPF object to load instead of the built-in one.
    pub bpf_object: Option<PathBuf>,
    /// How often the self-test is repeated, such as `5m`.
    #[schemars(with = "Option<String>")]
    pub self_test_interval: Option<Interval>,
    /// Whether what is done again and again is counted. `false` gives every act a line of its own, as `--every-act`
    /// does.
    pub count_repeats: Option<bool>,
    /// Where findings go.
    #[schemars(with = "Option<Output>")]
    pub output: Output,
    /// What is said about this node in each line.
    #[schemars(with = "Option<Node>")]
    pub node: Node,
    /// What counts as a secret in arguments.
    #[schemars(with = "Option<Redaction>")]
    pub redaction: Redaction,
    /// The container runtimes that are queried about containers.
    #[schemars(with = "Option<Runtimes>")]
    pub runtimes: Runtimes,
    /// Exceptions, in the order in which they are tried.
    #[schemars(with = "Option<Vec<super::exceptions::Entry>>", length(max = super::entries::MOST))]
    pub exception: List<Exception>,
    /// Overrides of severities, in the order in which they are tried.
    #[schemars(with = "Option<Vec<super::severities::Entry>>", length(max = super::entries::MOST))]
    pub severity: List<Override>,
    /// Which containers are watched, by rules in the order in which they are tried.
    #[schemars(with = "Option<Vec<super::watch::Entry>>", length(max = super::entries::MOST))]
    pub watch: List<WatchRule>,
    /// Forwarders, which send the lines of the log to receivers.
    #[schemars(with = "Option<Vec<super::forwarders::Entry>>", length(max = super::entries::MOST))]
    pub forward: List<Forwarder>,
}

impl Settings {
    /// What the file decides about findings and containers. A running daemon takes this from a file that has changed;
    /// the other keys hold from its start to its end.
    pub fn policy(&self) -> Policy {
        Policy { exceptions: self.exception.0.clone(), overrides: self.severity.0.clone(), rules: self.watch.0.clone() }
    }
}

keys!(Settings: log, socket, state_directory, ledger_keep, bpf_object, self_test_interval, count_repeats, output, node,
    redaction, runtimes, exception, severity, watch, forward);

/// Where findings go.
#[derive(Debug, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Output {
    /// File to append findings to, one JSON object per line. Without it, they go to standard output.
    pub json: Option<PathBuf>,
    /// How often lines are put on the disk at most (fdatasync), such as `1s`: what a power cut can take. `0s` leaves it
    /// to the kernel.
    #[schemars(with = "Option<String>")]
    pub sync: Option<Repetition>,
    /// The size from which the daemon rotates its file, such as `64MiB`, of at least `64KiB`. Without it, no size is
    /// too large.
    #[schemars(with = "Option<String>")]
    pub rotate_size: Option<Size>,
    /// How long the daemon writes to one file before it rotates it, such as `24h`. Without it, no file is too old.
    #[schemars(with = "Option<String>")]
    pub rotate_every: Option<Interval>,
    /// How many old files are kept when the daemon rotates its file. Without it, all are.
    pub rotate_keep: Option<NonZeroU32>,
    /// Whether old files are compressed (gzip) when the daemon has rotated its file.
    pub rotate_compress: Option<bool>,
    /// How often a `heartbeat` notice says how far the log has come, such as `1m`. `0s` means never.
    #[schemars(with = "Option<String>")]
    pub heartbeat: Option<Repetition>,
    /// Address at which metrics (OpenMetrics) are served over HTTP, such as `127.0.0.1:9464`, or a unix socket, such as
    /// `unix:/run/detector/metrics.sock`. Without it, they are not.
    #[schemars(with = "Option<String>")]
    pub metrics: Option<Address>,
    /// File for a recording of what the findings are made of. It contains arguments with their secrets.
    pub record: Option<PathBuf>,
    /// Whether findings that an exception suppresses are written, too, with its name in `suppressed_by`. They are
    /// counted in either case.
    pub show_suppressed: Option<bool>,
}

keys!(
    Output: json, sync, rotate_size, rotate_every, rotate_keep, rotate_compress, heartbeat, metrics, record,
    show_suppressed
);

/// What is said about this node in each line.
#[derive(Debug, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Node {
    /// The name of this node. Without it, it is the host name.
    pub name: Option<String>,
    /// The name of the cluster that this node belongs to.
    pub cluster: Option<String>,
    /// Labels of all lines. A label of the same name on the command line wins.
    #[schemars(with = "Option<BTreeMap<String, String>>")]
    pub labels: BTreeMap<String, String>,
}

keys!(Node: name, cluster, labels);

/// What counts as a secret in arguments.
#[derive(Debug, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Redaction {
    /// Whether passwords, tokens and keys are redacted by the built-in rules. `--no-default-redaction` means `false`.
    pub default_rules: Option<bool>,
    /// Regular expressions of one's own: of a match, the first group is redacted, or all of it.
    #[schemars(with = "Option<Vec<String>>")]
    pub rules: Vec<Regex>,
}

keys!(Redaction: default_rules, rules);

/// The container runtimes that are queried about containers.
#[derive(Debug, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Runtimes {
    /// Whether the runtimes at the usual paths are queried. `--no-runtime-sockets` means `false`.
    pub usual_sockets: Option<bool>,
    /// Further runtimes: `cri=PATH`, `docker=PATH` or `podman=PATH`.
    #[schemars(with = "Option<Vec<String>>")]
    pub sockets: Vec<Endpoint>,
    /// How long a finding waits for a runtime's answer about its container, such as `250ms`.
    #[schemars(with = "Option<String>")]
    pub enrich_wait: Option<Duration>,
}

keys!(Runtimes: usual_sockets, sockets, enrich_wait);
