//! The command line. Arguments become a validated configuration before anything is opened, and every error becomes one
//! line of text and a documented exit code.

mod advise;
mod arguments;
mod completion;
mod config;
mod console;
mod convert;
mod doctor;
mod drift;
mod explain;
mod failure;
mod follow;
mod forward;
mod fullscreen;
mod history;
mod interrupt;
mod keys;
mod learn;
mod lines;
mod log;
mod replay;
mod run;
mod status;
mod stdout;
mod tail;
mod test_alert;
mod top;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _, Subcommand};
use clap_complete::Shell;
use tracing::level_filters::LevelFilter;

use crate::{memory, sensor};
use failure::{EXIT_CODES, Exit, Failure};
use stdout::print;

/// Detects shells started in containers and writes to their images.
#[derive(Debug, clap::Parser)]
#[command(version, after_help = EXIT_CODES, propagate_version = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon that watches this node (needs root)
    Run(Box<run::Args>),
    /// Show findings live, from the daemon or, if none is running, from a sensor of its own (needs root)
    Tail(tail::Args),
    /// Watch this node on one screen: the daemon's health, containers by drift and rate, live stories (needs root)
    Top(top::Args),
    /// Show for each hook whether it works on this host (needs root)
    Doctor(doctor::Args),
    /// Show which containers are not their images any more, and what is different in them (needs root)
    Drift(drift::Args),
    /// Say what a workload needs to run with a read-only root, by what its containers have written (needs root)
    Advise(advise::Args),
    /// Show whether the daemon is watching, and its counters (needs root)
    Status(status::Args),
    /// Let the daemon publish a finding that is a test, to see whether findings arrive (needs root)
    TestAlert(test_alert::Args),
    /// Explain a finding: what is known, why it has its severity, and the narrowest exception for it
    Explain(explain::Args),
    /// Learn exceptions from what was found, or show what given exceptions would have done to it
    Learn(learn::Args),
    /// Make the findings again of what `run --record` has recorded, on any machine
    Replay(replay::Args),
    /// Convert what `run --json` has written to a format that SIEMs read
    Convert(convert::Args),
    /// Prove that nothing is missing in what `run --json` has written
    Log(log::Args),
    /// Check or print configuration files of `run`
    Config(config::Args),
    /// Print the JSON Schema of the lines that `run` and `tail --json` write
    Schema,
    /// Print a shell completion script, which also completes the names of containers and pods that run (for root)
    Completions {
        /// The shell to print completions for
        shell: Shell,
    },
    /// Write the manual pages, one for each command
    Man {
        /// The directory to write them to
        folder: PathBuf,
    },
    /// What the daemon runs to forward lines
    #[command(name = crate::forward::ARGUMENT, hide = true)]
    Forward(forward::Args),
    /// What the self-test of the sensor runs
    #[command(name = sensor::SELFTEST_ARGUMENT, hide = true)]
    SelfTest,
}

/// Runs the program.
pub fn main() -> ExitCode {
    memory::configure();
    completion::answer();
    let args = Args::parse();
    // The level of the daemon's messages can be in its configuration file.
    if !matches!(args.command, Command::Run(_) | Command::Forward(_)) {
        log_messages(LevelFilter::WARN);
    }
    finish(match args.command {
        Command::Run(args) => run::run(*args),
        Command::Tail(args) => tail::run(args),
        Command::Top(args) => top::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Drift(args) => drift::run(&args),
        Command::Advise(args) => advise::run(&args),
        Command::Status(args) => status::run(&args),
        Command::TestAlert(args) => test_alert::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Learn(args) => learn::run(args),
        Command::Replay(args) => replay::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Log(args) => log::run(args),
        Command::Config(args) => config::run(&args),
        Command::Schema => print_schema(&crate::finding::schema()),
        Command::Completions { shell } => print(|out| completion::write_script(shell, out)),
        Command::Man { folder } => write_manual(&folder),
        Command::Forward(args) => forward::run(&args),
        Command::SelfTest => sensor::selftest_target().map_err(|error| Failure::new(Exit::Failure, error)),
    })
}

/// Writes messages of this level to standard error from now on.
fn log_messages(level: LevelFilter) {
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
        .with_writer(io::stderr)
        .init();
}

fn write_manual(folder: &Path) -> Result<(), Failure> {
    clap_mangen::generate_to(Args::command(), folder).map_err(|error| {
        let folder = folder.display();
        Failure::new(
            Exit::Failure,
            format_args!("cannot write the manual pages to {folder}: {error}; give a directory"),
        )
    })
}

fn print_schema(schema: &schemars::Schema) -> Result<(), Failure> {
    print(|out| {
        serde_json::to_writer_pretty(&mut *out, schema)?;
        writeln!(out)
    })
}

fn finish(result: Result<(), Failure>) -> ExitCode {
    let Err(failure) = result else { return ExitCode::SUCCESS };
    // The message of a verifier error can have more lines.
    let mut lines = failure.message.lines();
    // Standard error may be closed; the exit code still reports the failure.
    let _ = writeln!(io::stderr(), "detector: {}", lines.next().unwrap_or_default());
    lines.for_each(|line| tracing::debug!("{line}"));
    ExitCode::from(failure.exit as u8)
}
