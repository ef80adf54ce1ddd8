//! `cargo xtask`: see `--help`.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};
use detector_tests::protocol::Message;
use xtask::kernel::LATEST;
use xtask::vm::Vm;
use xtask::{bench, build, coverage, demo, readme, setup, shell, style, test};

/// Builds, tests and shows the detector.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Installs what the machine lacks. The other tasks do so by themselves.
    Setup,
    /// Builds the detector for development.
    Build,
    /// Builds dist/detector: one static file with the probes in it.
    Dist,
    /// Boots a kernel and runs a command in it, or a shell.
    Vm {
        /// Kernel series, such as 6.12.
        #[arg(long, default_value = LATEST)]
        kernel: String,
        /// Added to the kernel's command line, such as preempt=full.
        #[arg(long, default_value = "", allow_hyphen_values = true)]
        append: String,
        /// Connects this terminal to the machine's console. A shell always is.
        #[arg(long)]
        interactive: bool,
        /// Attaches the disk with container engines, as /dev/vda.
        #[arg(long)]
        runtimes: bool,
        /// The command. Without one: a shell.
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Shows the detector at work: a real container in a virtual machine.
    Demo(demo::Args),
    /// Counts what the detector costs, in executed instructions and memory.
    Bench(bench::Args),
    /// Shows the sample outputs for README.md, or checks those that it has.
    Readme(readme::Args),
    /// Checks what rustfmt does not: the length of all lines.
    Style,
    /// Builds and runs `detector run` on this machine; arguments are handed on.
    Run {
        /// Arguments of `detector run`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Runs the unit tests, then the tests on real kernels.
    Test {
        /// Kernel series, separated by commas; `all` for each that Debian serves.
        #[arg(long, value_delimiter = ',')]
        kernels: Vec<String>,
        /// Part of the names of the tests to run.
        #[arg(long)]
        filter: Option<String>,
    },
    /// Writes docs/coverage.md: what the last tests have shown on each kernel.
    Coverage {
        /// Writes nothing; fails if the document does not say what the tests have shown.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Setup => setup::run(),
        Task::Build => build::build(),
        Task::Dist => build::dist().map(|dist| println!("{}", dist.detector.display())),
        Task::Vm { kernel, append, interactive, runtimes, command } => {
            let machine = Vm::new(&kernel).command_line(&append);
            vm(if runtimes { machine.runtimes() } else { machine }, interactive, &command)
        }
        Task::Demo(args) => demo::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Readme(args) => readme::run(&args),
        Task::Style => style::run(),
        Task::Run { args } => native(&args),
        Task::Coverage { check } => coverage::run(check),
        Task::Test { kernels, filter } => test::run(&kernels, filter.as_deref()),
    }
}

fn vm(machine: Vm, interactive: bool, command: &[String]) -> Result<()> {
    let interactive = interactive || command.is_empty();
    let mut guest = vec![if command.is_empty() { "shell" } else { "exec" }];
    guest.extend(command.iter().map(String::as_str));
    if interactive {
        shell::step("booting; Ctrl-A X ends the machine");
    }
    let mut end = None;
    machine.guest(&guest).console(interactive).run(|line| {
        if let Some(Message::End { failure }) = Message::parse(line) {
            end = Some(failure);
        }
    })?;
    match end {
        Some(None) => Ok(()),
        Some(Some(failure)) => bail!("the guest failed: {failure}"),
        // A person may end the machine as they like.
        None if interactive => Ok(()),
        None => bail!("the machine died before the end"),
    }
}

fn native(args: &[OsString]) -> Result<()> {
    let dist = build::dist()?;
    ensure!(
        rustix::process::geteuid().is_root(),
        "the detector loads programs into the kernel, which takes root: `sudo {} run`; `cargo xtask demo` shows it \
         in a virtual machine",
        dist.detector.display()
    );
    shell::run(Command::new(&dist.detector).arg("run").args(args))
        .context("`dist/detector doctor` tells what this host lacks; `cargo xtask demo` shows it in a virtual machine")
}
