//! Running other programs, with errors that name them.

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Says what is being done. Everything that takes more than a second does.
pub fn step(what: impl Display) {
    eprintln!("==> {what}");
}

/// The steps of a task that takes minutes, counted for whoever waits for it.
#[derive(Debug)]
pub struct Steps {
    all: usize,
    begun: usize,
}

impl Steps {
    /// A task of so many steps.
    pub fn new(all: usize) -> Self {
        Self { all, begun: 0 }
    }

    /// Says that the next step begins: what it does, and what it waits for.
    pub fn next(&mut self, what: impl Display) {
        self.begun += 1;
        step(format_args!("step {} of {}: {what}", self.begun, self.all));
    }
}

/// Runs a program that speaks for itself.
///
/// # Errors
///
/// It is not there, or fails.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", name(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", line(command));
    }
    Ok(())
}

/// Says what a program is for and runs it. What it wrote is shown only if it fails; on a terminal, the seconds count
/// up.
///
/// # Errors
///
/// It is not there, or fails.
pub fn long(what: impl Display, command: &mut Command) -> Result<()> {
    step(what);
    let (done, wait) = channel::<()>();
    let ticker = thread::spawn(move || {
        let mut terminal = std::io::stderr();
        let started = Instant::now();
        while wait.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
            if terminal.is_terminal() {
                // Nothing depends on it.
                let _shown = write!(terminal, "\r    {} s\r", started.elapsed().as_secs());
            }
        }
    });
    let outcome = output(command);
    drop(done);
    ticker.join().expect("the ticker cannot panic");
    outcome.map(drop)
}

/// Runs a program silently and gives what it wrote to its standard output.
///
/// # Errors
///
/// It is not there, or fails: the error has what it said.
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

/// [`output`] as text.
///
/// # Errors
///
/// As [`output`].
pub fn text(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&output(command)?).into_owned())
}

/// Cargo, the one that runs us.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(crate::project::root());
    command
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
