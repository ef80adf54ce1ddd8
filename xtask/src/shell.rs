//! Runs other programs, with errors that name them.

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Prints the current step. Every step that takes longer than a second should call this.
pub fn step(what: impl Display) {
    eprintln!("==> {what}");
}

/// The numbered steps of a task that takes minutes.
#[derive(Debug)]
pub struct Steps {
    all: usize,
    begun: usize,
}

impl Steps {
    /// Starts a task with this number of steps.
    pub fn new(all: usize) -> Self {
        Self { all, begun: 0 }
    }

    /// Prints the number and the description of the next step.
    pub fn next(&mut self, what: impl Display) {
        self.begun += 1;
        step(format_args!("step {} of {}: {what}", self.begun, self.all));
    }
}

/// Runs a program with its output visible.
///
/// # Errors
///
/// The program cannot be run, or fails.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", name(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", line(command));
    }
    Ok(())
}

/// Prints the purpose of a program and runs it. Its output is shown only if it fails. On a terminal, the elapsed
/// seconds are shown.
///
/// # Errors
///
/// The program cannot be run, or fails.
pub fn long(what: impl Display, command: &mut Command) -> Result<()> {
    step(what);
    let (done, wait) = channel::<()>();
    let ticker = thread::spawn(move || {
        let mut terminal = std::io::stderr();
        let started = Instant::now();
        while wait.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
            if terminal.is_terminal() {
                // The elapsed time is only information, so errors are ignored.
                let _shown = write!(terminal, "\r    {} s\r", started.elapsed().as_secs());
            }
        }
    });
    let outcome = output(command);
    drop(done);
    ticker.join().expect("the ticker cannot panic");
    outcome.map(drop)
}

/// Runs a program silently and returns its standard output.
///
/// # Errors
///
/// The program cannot be run, or fails. The error contains its messages.
pub fn output(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {}", name(command)))?;
    if !output.status.success() {
        bail!(
            "{} failed ({}):\n{}{}",
            line(command),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(output.stdout)
}

/// Like [`output`], as text.
///
/// # Errors
///
/// Like [`output`].
pub fn text(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&output(command)?).into_owned())
}

/// The cargo that runs this program. It is not told which package that belongs to: a build script that looks at such
/// variables would run again for each of them, and all that depends on it would be built again.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(crate::project::root());
    let is_of_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_of_package)) {
        command.env_remove(name);
    }
    command
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
