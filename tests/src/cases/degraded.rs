//! Hosts on which the sensor detects or records less than it can. It says so, or does not start. No other sensor runs
//! in the meantime.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Error, Result, bail, ensure};
use rustix::mount::{UnmountFlags, unmount};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
use serde_json::Value;

use super::lab::Lab;
use crate::init::mount_at;
use crate::program::{Running, wait_for};
use crate::sensor::{detector, run_command};

/// The directory for the output.
const FOLDER: &str = "/run/lab/degraded";
/// How strictly the kernel restricts perf_event_open(2), which attaches kprobes.
const PARANOID: &str = "/proc/sys/kernel/perf_event_paranoid";
/// How long the daemon may take to start and to report.
const PATIENCE: Duration = Duration::from_secs(60);
/// The exit code of `detector status` if the daemon is degraded.
const DEGRADED: i32 = 6;

/// Starts the daemon with the capabilities that its messages ask for, and no others. It must not pretend to be complete
/// before it is.
pub(super) fn few_capabilities(_: &mut Lab) -> Result<()> {
    let before = fs::read_to_string(PARANOID)?;
    let outcome = follow_messages();
    fs::write(PARANOID, before)?;
    outcome
}

fn follow_messages() -> Result<()> {
    // The kernel now attaches kprobes for processes with CAP_PERFMON.
    fs::write(PARANOID, "2")?;
    let mut held = CapabilitySet::empty();
    let reasons = loop {
        match reasons_with(held)? {
            Ok(reasons) => break reasons,
            Err(error) => held |= asked_for(&error, held)?,
        }
    };
    ensure!(!held.contains(CapabilitySet::SYS_ADMIN), "it does not start without CAP_SYS_ADMIN");
    let wanted = asked_for(&reasons, held)?;

    // Kernels of Debian now refuse perf_event_open(2) to processes without CAP_SYS_ADMIN.
    fs::write(PARANOID, "3")?;
    match reasons_with(held)? {
        Ok(reasons) => bail!("it starts without kprobes: {reasons}"),
        Err(error) => ensure!(asked_for(&error, held)? == CapabilitySet::SYS_ADMIN, "it says: {error}"),
    }
    held |= wanted;
    let reasons = reasons_with(held)?.map_err(Error::msg)?;
    ensure!(reasons.is_empty(), "with {held:?}, it says: {reasons}");
    Ok(())
}

/// Runs the daemon with these capabilities for a moment. Returns why it is degraded, or why it did not start.
fn reasons_with(held: CapabilitySet) -> Result<Result<String, String>> {
    fs::create_dir_all(FOLDER)?;
    let output = format!("{FOLDER}/findings.jsonl");
    let _previous = fs::remove_file(&output);
    let daemon = match Daemon::start(held, &output)? {
        Ok(daemon) => daemon,
        Err(error) => return Ok(Err(error)),
    };
    let (status, reasons) = (daemon.status()?, degraded(&output)?.concat());
    daemon.stop()?;
    ensure!((status == 0) == reasons.is_empty(), "status ended with {status}, and the output says {reasons:?}");
    Ok(Ok(reasons))
}

/// The capabilities that a message names, of which one at least is missing.
fn asked_for(message: &str, held: CapabilitySet) -> Result<CapabilitySet> {
    let words = message.split(|letter: char| !letter.is_ascii_uppercase() && letter != '_');
    let named: CapabilitySet = words.filter_map(|word| CapabilitySet::from_name(word.strip_prefix("CAP_")?)).collect();
    ensure!(!held.contains(named), "with {held:?}, it says: {message}");
    Ok(named)
}

/// A full disk. The daemon keeps the findings and says that it cannot write them, until somebody removes its file.
pub(super) fn full_disk(_: &mut Lab) -> Result<()> {
    mount_at("tmpfs", FOLDER, "size=64k")?;
    let outcome = fill_and_free();
    unmount(FOLDER, UnmountFlags::DETACH)?;
    outcome
}

fn fill_and_free() -> Result<()> {
    let (output, filler) = (format!("{FOLDER}/findings.jsonl"), format!("{FOLDER}/filler"));
    // There is room for a part of the first line in the last block of the file.
    fs::write(&output, format!("{{\"of\": \"{:4000}\"}}\n", "an earlier daemon"))?;
    ensure!(fs::write(&filler, [0; 1 << 20]).is_err(), "the file system is not full");
    let daemon = Daemon::start(CapabilitySet::all(), &output)?.map_err(Error::msg)?;
    ensure!(daemon.status()? == DEGRADED, "status does not say that the output fails");
    fs::remove_file(&output)?;
    wait_for("the end of the failure", PATIENCE, || Ok((daemon.status()? == 0).then_some(())))?;
    daemon.stop()?;
    let events: Vec<_> = lines(&output)?.into_iter().map(|line| line["event"].clone()).collect();
    ensure!(events == ["started", "degraded", "degraded", "stopped"], "the new file has {events:?}");
    let reasons = degraded(&output)?;
    ensure!(reasons[0].contains("No space left on device") && reasons[1] == "[]", "the output says {reasons:?}");
    Ok(())
}

/// Somebody switches all kprobes off while the daemon runs. The self-test notices this, and also the end of it.
pub(super) fn probes_switched_off(_: &mut Lab) -> Result<()> {
    const DEBUG: &str = "/run/lab/debug";
    fs::create_dir_all(FOLDER)?;
    mount_at("debugfs", DEBUG, "")?;
    let (output, switch) = (format!("{FOLDER}/switched.jsonl"), format!("{DEBUG}/kprobes/enabled"));
    let daemon = Daemon::start_with(CapabilitySet::all(), &output, &["--self-test-interval", "1s"])?;
    let daemon = daemon.map_err(Error::msg)?;
    ensure!(daemon.status()? == 0, "it is degraded from the start");
    fs::write(&switch, "0")?;
    let noticed = wait_for("the notice", PATIENCE, || Ok((daemon.status()? == DEGRADED).then_some(())));
    fs::write(&switch, "1")?;
    noticed?;
    wait_for("the end of the degradation", PATIENCE, || Ok((daemon.status()? == 0).then_some(())))?;
    daemon.stop()?;
    let reasons = degraded(&output)?;
    ensure!(
        reasons.len() == 2 && reasons[0].contains("hook write (kprobe") && reasons[1] == "[]",
        "the output says {reasons:?}"
    );
    Ok(())
}

/// The lines of an output.
fn lines(output: &str) -> Result<Vec<Value>> {
    Ok(fs::read_to_string(output)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

/// The reasons in each `degraded` notice of an output.
fn degraded(output: &str) -> Result<Vec<String>> {
    let lines = lines(output)?;
    let degraded = lines.iter().filter(|line| line["event"] == "degraded");
    Ok(degraded.map(|line| line["detail"]["reasons"].to_string()).collect())
}

/// A running daemon, which is killed when this is dropped.
struct Daemon(Running);

impl Daemon {
    /// Starts the daemon with these capabilities, and waits until it watches. Returns its message if it does not start.
    fn start(held: CapabilitySet, output: &str) -> Result<Result<Self, String>> {
        Self::start_with(held, output, &[])
    }

    /// Like [`Self::start`], with additional arguments.
    fn start_with(held: CapabilitySet, output: &str, more: &[&str]) -> Result<Result<Self, String>> {
        let log = Path::new("/run/lab/log-of-degraded");
        let mut run = run_command(Path::new(output), log)?;
        run.args(more);
        // The capabilities of root's programs are those in the bounding set of the thread that executes them.
        let process = thread::scope(|scope| {
            let started = scope.spawn(|| {
                for capability in CapabilitySet::all().difference(held).iter() {
                    // Only newer kernels know all capabilities.
                    let _unknown = remove_capability_from_bounding_set(capability);
                }
                Running::start(&mut run)
            });
            started.join().expect("it does not panic")
        });
        let mut daemon = Self(process?);
        wait_for("the start of the daemon or its error", PATIENCE, || {
            if daemon.0.ended()?.is_some() {
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

    fn stop(self) -> Result<()> {
        let ended = self.0.stop()?;
        ensure!(ended.success(), "the daemon ended with {ended}");
        Ok(())
    }
}
