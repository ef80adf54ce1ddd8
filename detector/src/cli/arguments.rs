//! Arguments that several commands share.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use clap::ColorChoice;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use tracing::level_filters::LevelFilter;

use crate::config::{self, LEVELS};
use crate::finding::{Kind, Severity};
use crate::output::formats::Format;
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
        ColorChoice::Auto => wants_colour(io::IsTerminal::is_terminal(&io::stdout()), |name| std::env::var_os(name)),
        ColorChoice::Always => true,
        ColorChoice::Never => false,
    }
}

/// What the environment says about colours: `NO_COLOR` means none, then `CLICOLOR_FORCE` demands them, also of what is
/// no terminal. Without these, a terminal has colours unless it knows none or `CLICOLOR` is 0.
fn wants_colour(is_terminal: bool, variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let is = |name, value: &str| variable(name).is_some_and(|given| given == value);
    let has = |name| variable(name).is_some_and(|given| !given.is_empty());
    if has("NO_COLOR") {
        return false;
    }
    let is_forced = has("CLICOLOR_FORCE") && !is("CLICOLOR_FORCE", "0");
    is_forced || is_terminal && !is("CLICOLOR", "0") && !is("TERM", "dumb")
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

pub(super) fn format_parser() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(Format::ALL.map(Format::name)).try_map(|name| name.parse())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_decides_about_colours() {
        let is_coloured = |is_terminal, variables: &[(&str, &str)]| {
            wants_colour(is_terminal, |wanted| {
                variables.iter().find(|(name, _)| *name == wanted).map(|(_, value)| OsString::from(value))
            })
        };
        for (variables, on_terminal, elsewhere) in [
            (&[][..], true, false),
            (&[("NO_COLOR", "1")], false, false),
            (&[("NO_COLOR", "")], true, false),
            (&[("CLICOLOR", "0")], false, false),
            (&[("CLICOLOR", "1")], true, false),
            (&[("CLICOLOR_FORCE", "1"), ("CLICOLOR", "0"), ("TERM", "dumb")], true, true),
            (&[("CLICOLOR_FORCE", "0")], true, false),
            (&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], false, false),
            (&[("TERM", "dumb")], false, false),
            (&[("TERM", "xterm")], true, false),
        ] {
            let found = (is_coloured(true, variables), is_coloured(false, variables));
            assert_eq!(found, (on_terminal, elsewhere), "{variables:?}");
        }
    }
}
