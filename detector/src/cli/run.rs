//! `detector run`.

use std::ffi::OsString;
use std::path::PathBuf;

use regex::bytes::Regex;
use tracing::level_filters::LevelFilter;

use super::{Failure, Socket, check_privileges, level_parser, node_name};
use crate::daemon::{self, writer::Target};
use crate::redact::Redactor;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// File to append findings to, a JSON object on each line; `-` is standard output
    #[arg(long, value_name = "PATH", default_value = "-")]
    json: OsString,
    #[command(flatten)]
    socket: Socket,
    /// What the daemon tells on standard error about itself
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = level_parser())]
    pub(super) log: LevelFilter,
    /// Name of this node in findings [default: the host name]
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// What else is a secret in arguments, as a regular expression: its first group, or all of it [may be repeated]
    #[arg(long, value_name = "REGEX")]
    redact: Vec<Regex>,
    /// Show what usually is a secret in arguments: passwords, tokens, keys
    #[arg(long)]
    no_default_redaction: bool,
    /// BPF object to load instead of the built-in one
    #[arg(long, value_name = "PATH")]
    bpf_object: Option<PathBuf>,
}

impl From<Args> for daemon::Config {
    fn from(args: Args) -> Self {
        Self {
            redactor: Redactor::new(args.redact, !args.no_default_redaction),
            output: if args.json == "-" { Target::Stdout } else { Target::File(args.json.into()) },
            socket: args.socket.path(),
            node: args.node.unwrap_or_else(node_name),
            bpf_object: args.bpf_object,
        }
    }
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let config = args.into();
    check_privileges()?;
    Ok(daemon::run(config)?)
}
