//! The command line: arguments become a validated configuration before anything is opened, and every error becomes one
//! line with a documented exit code.

mod bench;
mod doctor;
mod run;
mod status;
mod tail;

use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use tracing::level_filters::LevelFilter;

use crate::finding::{Kind, Severity};
use crate::sensor::{self, host::Host};
use crate::{client, daemon, protocol, runtime};

/// Shown by `--help`; the numbers are those of [`Exit`].
const EXIT_CODES: &str = "\
Exit codes:
  0  success
  1  failure while running
  2  wrong usage
  3  missing privileges
  4  this kernel or host lacks something that is needed
  5  no daemon can be reached, or it is not ready";

/// Sees every shell started in a container and every write to its image.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES, propagate_version = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch this node: the daemon (needs root)
    Run(run::Args),
    /// Show findings live: from the daemon, or from a sensor of its own if none runs (needs root)
    Tail(tail::Args),
    /// Show what this host can see, hook by hook (needs root)
    Doctor(doctor::Args),
    /// Show whether the daemon watches, and what it counted
    Status(status::Args),
    /// Print the JSON Schema of the lines that `run` and `tail --json` write
    Schema,
    /// Print shell completions
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Attach an empty program to the hot hook until stdin ends, to measure against
    #[command(hide = true)]
    BenchBaseline,
    /// What the self-test of the sensor runs
    #[command(name = sensor::SELFTEST_ARGUMENT, hide = true)]
    SelfTest,
}

/// Where the daemon's socket is.
#[derive(Debug, clap::Args)]
struct Socket {
    /// Socket of the daemon [default: /run/detector/detector.sock]
    #[arg(long = "socket", value_name = "PATH")]
    path: Option<PathBuf>,
}

impl Socket {
    fn path(&self) -> PathBuf {
        self.path.clone().unwrap_or_else(|| protocol::DEFAULT_SOCKET.into())
    }
}

/// The runtimes that are asked about containers.
#[derive(Debug, Default, clap::Args)]
struct Runtimes {
    /// A container runtime to ask about containers, besides those in the usual places; KIND is cri, docker or podman. Can
    /// be given more than once
    #[arg(long = "runtime-socket", value_name = "KIND=PATH")]
    sockets: Vec<runtime::socket::Socket>,
    /// Ask no runtimes in the usual places
    #[arg(long)]
    no_runtime_sockets: bool,
}

impl Runtimes {
    fn sockets(&self) -> Arc<runtime::Sockets> {
        let mut sockets = self.sockets.clone();
        if !self.no_runtime_sockets {
            sockets.extend(runtime::socket::Socket::defaults());
        }
        Arc::new(runtime::Sockets::new(sockets, !self.no_runtime_sockets))
    }
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Color {
    /// On a terminal, unless `NO_COLOR` is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl Color {
    /// Whether to colour what goes to standard output.
    fn on_stdout(self) -> bool {
        match self {
            Self::Auto => {
                io::IsTerminal::is_terminal(&io::stdout())
                    && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty())
            }
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// What the exit code says. Documented in [`EXIT_CODES`]; 2 is clap's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    Failure = 1,
    Privilege = 3,
    Unsupported = 4,
    NotReady = 5,
}

/// Why a command failed: `<what>: <why>; <remedy>`.
#[derive(Debug)]
struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    fn new(exit: Exit, message: impl Display) -> Self {
        Self { exit, message: message.to_string() }
    }
}

impl From<sensor::Error> for Failure {
    fn from(error: sensor::Error) -> Self {
        use sensor::Error;
        let exit = match &error {
            Error::Privilege { .. } => Exit::Privilege,
            Error::Host(_) | Error::KernelBtf(_) | Error::Offsets(_) | Error::Load(_) | Error::Hook(_) => {
                Exit::Unsupported
            }
            _ => Exit::Failure,
        };
        Self::new(exit, error)
    }
}

impl From<daemon::Error> for Failure {
    fn from(error: daemon::Error) -> Self {
        match error {
            daemon::Error::Sensor(error) => error.into(),
            error @ daemon::Error::Blind => Self::new(Exit::Unsupported, error),
            error => Self::new(Exit::Failure, error),
        }
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        let exit = match &error {
            client::Error::NotRunning(_) | client::Error::Silent(_) => Exit::NotReady,
            client::Error::Permission(_) => Exit::Privilege,
            _ => Exit::Failure,
        };
        Self::new(exit, error)
    }
}

/// Writing to standard output failed.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(Exit::Failure, format_args!("standard output: {error}; check where it goes"))
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let level = if let Command::Run(args) = &args.command { args.log } else { LevelFilter::WARN };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
        .with_writer(io::stderr)
        .init();
    finish(match args.command {
        Command::Run(args) => run::run(args),
        Command::Tail(args) => tail::run(args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Schema => print(|out| {
            serde_json::to_writer_pretty(&mut *out, &crate::finding::schema())?;
            writeln!(out)
        }),
        Command::Completions { shell } => {
            // The generator panics when it cannot write, so it writes to memory.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "detector", &mut script);
            print(|out| out.write_all(&script))
        }
        Command::BenchBaseline => bench::run(),
        Command::SelfTest => sensor::selftest_target().map_err(|error| Failure::new(Exit::Failure, error)),
    })
}

fn finish(result: Result<(), Failure>) -> ExitCode {
    let Err(failure) = result else { return ExitCode::SUCCESS };
    // A verifier log can follow on more lines.
    let mut lines = failure.message.lines();
    // Standard error may be closed: the exit code still tells.
    let _ = writeln!(io::stderr(), "detector: {}", lines.next().unwrap_or_default());
    lines.for_each(|line| tracing::debug!("{line}"));
    ExitCode::from(failure.exit as u8)
}

/// Writes to standard output. That its reader went away is no failure: it has all it wanted.
fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// Whether this process may load probes.
fn check_privileges() -> Result<(), sensor::Error> {
    match Host::read()?.missing_capabilities() {
        None => Ok(()),
        Some(missing) => Err(sensor::Error::Privilege { missing }),
    }
}

/// Name of this node.
fn node_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn severity_parser() -> impl TypedValueParser<Value = Severity> {
    PossibleValuesParser::new(Severity::ALL.map(Severity::name)).try_map(|name| name.parse())
}

fn kind_parser() -> impl TypedValueParser<Value = Kind> {
    PossibleValuesParser::new(Kind::ALL.map(Kind::name)).try_map(|name| name.parse())
}

fn level_parser() -> impl TypedValueParser<Value = LevelFilter> {
    PossibleValuesParser::new(["off", "error", "warn", "info", "debug", "trace"]).try_map(|name| name.parse())
}

/// A time span such as `10s`, `500ms` or `1m30s`.
fn duration(text: &str) -> Result<std::time::Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|_| "use a time such as 10s, 500ms or 1m30s".to_owned())?;
    span.try_into().map_err(|_| "it must not be negative".to_owned())
}
