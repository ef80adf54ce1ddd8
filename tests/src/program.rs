//! Runs programs, and waits for what they do.

use std::ffi::OsStr;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// Runs a program on the host, and returns its output.
pub fn on_host<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Result<String> {
    let mut command = Command::new(program);
    let output = command.args(args).stdin(Stdio::null()).output().with_context(|| format!("cannot run {program}"))?;
    let [said, complained] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    ensure!(output.status.success(), "{command:?}: {}: {complained}{said}", output.status);
    Ok(said.into_owned())
}

/// Runs a program that must end within the time limit and write little.
pub fn finish(command: &mut Command) -> Result<Output> {
    let shown = format!("{command:?}");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {shown}"))?;
    let ended = wait_for(&format!("the end of {shown}"), Duration::from_secs(60), || Ok(child.try_wait()?));
    if ended.is_err() {
        child.kill()?;
    }
    let output = child.wait_with_output()?;
    ended.map(|_| output)
}

/// A running program, which is killed when this is dropped.
pub struct Running(Child);

impl Running {
    /// Starts a program without standard input.
    pub fn start(command: &mut Command) -> Result<Self> {
        Self::start_reading(command, Stdio::null())
    }

    /// Starts a program that reads this.
    pub fn start_reading(command: &mut Command, input: Stdio) -> Result<Self> {
        let child = command.stdin(input).spawn().with_context(|| format!("cannot run {command:?}"))?;
        Ok(Self(child))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// How it has ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.0.try_wait()?)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.0), signal)?)
    }

    /// Asks it to stop, and waits until it has ended.
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        wait_for("the program's end after SIGTERM", Duration::from_secs(20), || self.ended())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The process may already have ended, and nobody can handle an error here.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Calls `attempt` until it returns a value.
pub fn wait_for<T>(what: &str, limit: Duration, mut attempt: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = attempt()? {
            return Ok(value);
        }
        ensure!(start.elapsed() < limit, "{what} did not come within {limit:?}");
        sleep(Duration::from_millis(10));
    }
}
