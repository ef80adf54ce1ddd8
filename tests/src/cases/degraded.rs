//! Hosts on which the sensor detects or records less than it can. It says so, or does not start. No other sensor runs
//! in the meantime.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
use serde_json::Value;

use super::lab::Lab;
use crate::init::mount_at;
use crate::program::wait_for;
use crate::sensor::{DETECTOR, detector};

/// The directory for the output.
const FOLDER: &str = "/run/lab/degraded";
/// How strictly the kernel restricts perf_event_open(2), which attaches kprobes.
const PARANOID: &str = "/proc/sys/kernel/perf_event_paranoid";
/// How long the daemon may take to start and to stop.
const PATIENCE: Duration = Duration::from_secs(60);
/// The exit code of `status` for a daemon that is degraded.
const DEGRADED: i32 = 6;

/// Starts the daemon with the capabilities that its errors ask for, and no others. They must be enough to watch, and
/// the daemon must not pretend to be complete.
pub(super) fn few_capabilities(_: &mut Lab) -> Result<()> {
    let before = fs::read_to_string(PARANOID)?;
    // With 3, kernels of Debian refuse perf_event_open(2) without CAP_SYS_ADMIN. The self-test needs that too.
    for (paranoid, is_complete) in [("3", true), ("2", false)] {
        fs::write(PARANOID, paranoid)?;
        let outcome = follow_errors(is_complete).with_context(|| format!("{PARANOID} is {paranoid}"));
        fs::write(PARANOID, &before)?;
        outcome?;
    }
    Ok(())
}

fn follow_errors(is_complete: bool) -> Result<()> {
    fs::create_dir_all(FOLDER)?;
    let output = format!("{FOLDER}/findings.jsonl");
    let mut held = CapabilitySet::empty();
    loop {
        let _previous = fs::remove_file(&output);
        let error = match Daemon::start(held, &output)? {
            Ok(daemon) => {
                let (status, reasons) = (daemon.status()?, degraded(&output)?);
                let expected = if is_complete { (0, true) } else { (DEGRADED, false) };
                ensure!(
                    (status, reasons.is_empty()) == expected,
                    "with {held:?}, status ended with {status}, and the reasons are {reasons:?}"
                );
                return daemon.stop();
            }
            Err(error) => error,
        };
        let words = error.split(|letter: char| !letter.is_ascii_uppercase() && letter != '_');
        let asked_for: CapabilitySet =
            words.filter_map(|word| CapabilitySet::from_name(word.strip_prefix("CAP_")?)).collect();
        ensure!(!held.contains(asked_for), "with {held:?}, it does not start: {error}");
        held |= asked_for;
    }
}

/// A full disk. The daemon keeps the findings and says that it cannot write them.
pub(super) fn full_disk(_: &mut Lab) -> Result<()> {
    mount_at("tmpfs", FOLDER, "size=64k")?;
    let outcome = fill_and_free();
    unmount(FOLDER, UnmountFlags::DETACH)?;
    outcome
}

fn fill_and_free() -> Result<()> {
    let (output, filler) = (format!("{FOLDER}/findings.jsonl"), format!("{FOLDER}/filler"));
    File::create(&output)?;
    ensure!(fs::write(&filler, [0; 1 << 20]).is_err(), "the file system is not full");
    let daemon = Daemon::start(CapabilitySet::all(), &output)?.map_err(anyhow::Error::msg)?;
    ensure!(daemon.status()? == DEGRADED, "status does not say that the output fails");
    fs::remove_file(filler)?;
    wait_for("the end of the failure", PATIENCE, || Ok((daemon.status()? == 0).then_some(())))?;
    daemon.stop()?;
    let reasons = degraded(&output)?;
    ensure!(
        reasons.len() == 2 && reasons[0].contains("No space left on device") && reasons[1] == "[]",
        "the output says {reasons:?}"
    );
    Ok(())
}

/// The reasons in each `degraded` notice of an output.
fn degraded(output: &str) -> Result<Vec<String>> {
    let text = fs::read_to_string(output)?;
    let lines = text.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
    let degraded = lines.iter().filter(|line| line["event"] == "degraded");
    Ok(degraded.map(|line| line["detail"]["reasons"].to_string()).collect())
}

/// A running daemon, which is killed when it is dropped.
struct Daemon(Child);

impl Daemon {
    /// Starts the daemon with these capabilities, and waits until it watches. Returns its message if it does not start.
    fn start(held: CapabilitySet, output: &str) -> Result<Result<Self, String>> {
        let log = Path::new("/run/lab/log-of-degraded");
        let mut run = Command::new(DETECTOR);
        run.args(["run", "--json", output]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(log)?);
        // The capabilities of root's programs are those in the bounding set of the thread that executes them.
        let child = thread::scope(|scope| {
            let spawned = scope.spawn(|| {
                for capability in CapabilitySet::all().difference(held).iter() {
                    // Only newer kernels know all capabilities.
                    let _unknown = remove_capability_from_bounding_set(capability);
                }
                run.spawn()
            });
            spawned.join().expect("it does not panic")
        });
        let mut daemon = Self(child?);
        wait_for("the start of the daemon or its error", PATIENCE, || {
            if daemon.0.try_wait()?.is_some() {
                let message = fs::read_to_string(log)?;
                return Ok(Some(Err(message.lines().last().unwrap_or_default().to_owned())));
            }
            Ok(matches!(daemon.status()?, 0 | DEGRADED).then_some(Ok(())))
        })
        .map(|started| started.map(|()| daemon))
    }

    /// The exit code of `detector status`.
    fn status(&self) -> Result<i32> {
        detector(&["status"])?.status.code().context("status was killed")
    }

    fn stop(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.0), Signal::TERM)?;
        let ended = wait_for("the end of the daemon", PATIENCE, || Ok(self.0.try_wait()?))?;
        if !ended.success() {
            bail!("the daemon ended with {ended}");
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The process may already have ended, and nobody can handle an error here.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
