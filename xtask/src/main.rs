//! `cargo xtask`: the developer tasks. `--help` lists them.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};
use detector_tests::protocol::Message;
use xtask::kernel::LATEST;
use xtask::runtimes::Disk;
use xtask::vm::Vm;
use xtask::{bench, build, coverage, demo, fuzz, package, readme, schemas, setup, shell, style, test};

/// Build, test and demonstrate the detector.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install missing packages, and fetch the schemas of other formats. The other tasks do so automatically.
    Setup,
    /// Build the detector for development.
    Build,
    /// Build dist/detector, one static file that contains the probes, and a package and a container image with it.
    Dist,
    /// Boot a kernel and run a command or a shell in it.
    Vm {
        /// Kernel series, such as 6.12.
        #[arg(long, default_value = LATEST)]
        kernel: String,
        /// Append this to the kernel's command line, such as preempt=full.
        #[arg(long, default_value = "", allow_hyphen_values = true)]
        append: String,
        /// Connect this terminal to the machine's console. A shell always is.
        #[arg(long)]
        interactive: bool,
        /// Attach the disk with container engines and interpreters as /dev/vda.
        #[arg(long)]
        runtimes: bool,
        /// The command to run. Default: a shell.
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Demonstrate the detector with a real container in a virtual machine.
    Demo(demo::Args),
    /// Measure the cost of the detector in executed instructions and memory.
    Bench(bench::Args),
    /// Feed what parses and shows untrusted bytes with random ones, guided by the code that they reach.
    Fuzz(fuzz::Args),
    /// Print the sample outputs for README.md, or check those that it contains.
    Readme(readme::Args),
    /// Check the length of all lines, which rustfmt does not.
    Style,
    /// Build the detector and run `detector run` on this machine.
    Run {
        /// Arguments of `detector run`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Run the unit tests and the tests on real kernels.
    Test {
        /// Kernel series, or single machines such as 6.12-software, separated by commas. `all` tests every series that
        /// Debian serves, and this machine. 6.12-kubernetes is tested only when it is named.
        #[arg(long, value_delimiter = ',')]
        kernels: Vec<String>,
        /// Run only tests whose names contain one of these texts, which are separated by commas.
        #[arg(long)]
        filter: Option<String>,
    },
    /// Write docs/coverage.md from the last test results of each kernel.
    Coverage {
        /// Only check that the document matches the test results.
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
        Task::Setup => {
            setup::run()?;
            schemas::fetch()
        }
        Task::Build => build::build(),
        Task::Dist => {
            let dist = build::dist()?;
            package::all(&dist)?.iter().for_each(|file| println!("{}", file.display()));
            Ok(())
        }
        Task::Vm { kernel, append, interactive, runtimes, command } => {
            let machine = Vm::new(&kernel).command_line(&append);
            vm(machine.disk(runtimes.then_some(Disk::Engines)), interactive, &command)
        }
        Task::Demo(args) => demo::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Fuzz(args) => fuzz::run(&args),
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
        // A person may stop the machine at any time.
        None if interactive => Ok(()),
        None => bail!("the virtual machine stopped before the command ended; see its console above"),
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
