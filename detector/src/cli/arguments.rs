//! Arguments that several commands share.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use clap::ColorChoice;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use tracing::level_filters::LevelFilter;

use crate::finding::{Kind, Severity};
use crate::protocol;
use crate::runtime::Engines;
use crate::runtime::endpoint::Endpoint;

/// The path of the daemon's socket.
#[derive(Debug, clap::Args)]
pub(super) struct Socket {
    /// Socket of the daemon [default: /run/detector/detector.sock]
    #[arg(long = "socket", value_name = "PATH")]
    pub(super) path: Option<PathBuf>,
}

impl Socket {
    pub(super) fn path(&self) -> PathBuf {
        self.path.clone().unwrap_or_else(|| protocol::DEFAULT_SOCKET.into())
    }
}

/// The container runtimes that are queried about containers.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Runtimes {
    /// Query this container runtime, besides those at the usual paths. KIND is cri, docker or podman. Can be given more
    /// than once
    #[arg(long = "runtime-socket", value_name = "KIND=PATH")]
    sockets: Vec<Endpoint>,
    /// Do not query the runtimes at the usual paths
    #[arg(long)]
    no_runtime_sockets: bool,
}

impl Runtimes {
    pub(super) fn engines(&self) -> Arc<Engines> {
        let mut endpoints = self.sockets.clone();
        if !self.no_runtime_sockets {
            endpoints.extend(Endpoint::defaults());
        }
        Arc::new(Engines::new(endpoints, !self.no_runtime_sockets))
    }
}

/// Whether to colour standard output.
pub(super) fn is_coloured(choice: ColorChoice) -> bool {
    match choice {
        ColorChoice::Auto => {
            io::IsTerminal::is_terminal(&io::stdout()) && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty())
        }
        ColorChoice::Always => true,
        ColorChoice::Never => false,
    }
}

/// The host name, which is the default name of the node.
pub(super) fn node_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

pub(super) fn severity_parser() -> impl TypedValueParser<Value = Severity> {
    PossibleValuesParser::new(Severity::ALL.map(Severity::name)).try_map(|name| name.parse())
}

pub(super) fn kind_parser() -> impl TypedValueParser<Value = Kind> {
    PossibleValuesParser::new(Kind::ALL.map(Kind::name)).try_map(|name| name.parse())
}

pub(super) fn level_parser() -> impl TypedValueParser<Value = LevelFilter> {
    PossibleValuesParser::new(["off", "error", "warn", "info", "debug", "trace"]).try_map(|name| name.parse())
}

/// Parses a time span such as `10s`, `500ms` or `1m30s`.
pub(super) fn duration(text: &str) -> Result<std::time::Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|_| "use a time such as 10s, 500ms or 1m30s".to_owned())?;
    span.try_into().map_err(|_| "the time must not be negative".to_owned())
}

/// Parses a label.
pub(super) fn label(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("use KEY=VALUE, for example team=shop"),
    }
}

/// Parses the interval between two repetitions.
pub(super) fn interval(text: &str) -> Result<std::time::Duration, String> {
    let interval = duration(text)?;
    let is_long_enough = interval >= std::time::Duration::from_secs(1);
    is_long_enough.then_some(interval).ok_or_else(|| "the time must be at least 1s".to_owned())
}
