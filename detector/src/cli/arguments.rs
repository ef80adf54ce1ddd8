//! Arguments that several commands share.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use clap::ColorChoice;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use tracing::level_filters::LevelFilter;

use crate::config::{self, LEVELS};
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
        self.path_or(None)
    }

    /// The path that was given, or this one from the configuration file.
    pub(super) fn path_or(&self, configured: Option<PathBuf>) -> PathBuf {
        self.path.clone().or(configured).unwrap_or_else(|| protocol::DEFAULT_SOCKET.into())
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
        self.engines_and(config::Runtimes::default())
    }

    /// Those that were given, and those of the configuration file.
    pub(super) fn engines_and(&self, configured: config::Runtimes) -> Arc<Engines> {
        let has_usual = !self.no_runtime_sockets && configured.usual_sockets.unwrap_or(true);
        let mut endpoints = self.sockets.clone();
        endpoints.extend(configured.sockets);
        if has_usual {
            endpoints.extend(Endpoint::defaults());
        }
        Arc::new(Engines::new(endpoints, has_usual))
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
    PossibleValuesParser::new(LEVELS).try_map(|name| name.parse())
}

/// Parses a label.
pub(super) fn label(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("use KEY=VALUE, for example team=shop"),
    }
}
