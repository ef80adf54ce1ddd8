//! `detector run`: runs the daemon.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use regex::bytes::Regex;
use tracing::level_filters::LevelFilter;

use super::arguments::{Runtimes, Socket, duration, interval, label, level_parser, node_name};
use super::failure::Failure;
use crate::daemon::output::Target;
use crate::daemon::{self, watch};
use crate::finding::Node;
use crate::redact::Redactor;
use crate::runtime;
use crate::sensor;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// File to append findings to, one JSON object per line; `-` is standard output
    #[arg(long, value_name = "PATH", default_value = "-")]
    json: OsString,
    #[command(flatten)]
    socket: Socket,
    /// Also record what the findings are made of, for `detector replay`. The file contains arguments with their secrets
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Log level of the messages on standard error
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = level_parser())]
    pub(super) log: LevelFilter,
    /// Name of this node in findings [default: the host name]
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Name of the cluster that this node belongs to, in findings
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// A label for all lines. Can be given more than once
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Also redact matches of this regular expression in arguments: its first group, or the whole match. Can be given
    /// more than once
    #[arg(long, value_name = "REGEX")]
    redact: Vec<Regex>,
    /// Do not redact passwords, tokens and keys in arguments
    #[arg(long)]
    no_default_redaction: bool,
    /// BPF object to load instead of the built-in one
    #[arg(long, value_name = "PATH")]
    bpf_object: Option<PathBuf>,
    #[command(flatten)]
    runtimes: Runtimes,
    /// How long a finding waits for a runtime's answer about its container [default: 250ms]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    enrich_wait: Option<Duration>,
    /// How often the self-test is repeated, which tells whether the probes still fire [default: 5m]
    #[arg(long, value_name = "TIME", value_parser = interval)]
    self_test_interval: Option<Duration>,
    /// Give every act a line of its own instead of counting repeats
    #[arg(long)]
    every_act: bool,
}

impl From<Args> for daemon::Config {
    fn from(args: Args) -> Self {
        Self {
            output: if args.json == "-" { Target::Stdout } else { Target::File(args.json.into()) },
            socket: args.socket.path(),
            watch: watch::Options {
                node: Node {
                    name: args.node.unwrap_or_else(node_name),
                    cluster: args.cluster,
                    labels: args.labels.into_iter().collect(),
                },
                redactor: Redactor::new(args.redact, !args.no_default_redaction),
                bpf_object: args.bpf_object,
                record: args.record,
                engines: args.runtimes.engines(),
                wait: args.enrich_wait.unwrap_or(runtime::DEFAULT_WAIT),
                test_interval: args.self_test_interval.unwrap_or(watch::TEST_INTERVAL),
                is_counting: !args.every_act,
            },
        }
    }
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let config = args.into();
    sensor::check_privileges()?;
    Ok(daemon::run(config)?)
}
