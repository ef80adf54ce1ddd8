//! Recordings: what a run has found can be found again from its recording, without privileges and without its kernel.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};
use serde_json::Value;

use super::flood::flood;
use super::lab::Lab;
use crate::image::DASH;
use crate::sensor::DETECTOR;

/// The user `nobody`.
const NOBODY: u32 = 65534;
/// The exit code of `detector replay` if the findings may not be all.
const DEGRADED: i32 = 6;
/// The notices that are about the daemon and not in a recording.
const OWN_NOTICES: [&str; 7] = ["started", "stopped", "degraded", "heartbeat", "torn_line", "new_chain", "log_rotated"];

/// What a daemon has written.
pub(super) struct Run {
    pub(super) lines: PathBuf,
    pub(super) recording: PathBuf,
}

impl Run {
    /// Compares what the daemon found with what is found again, twice. Returns the lines that are compared.
    pub(super) fn expect_same(&self) -> Result<Vec<String>> {
        let written = fs::read_to_string(&self.lines)?;
        let mut expected = Vec::new();
        for line in written.lines() {
            let parsed: Value = serde_json::from_str(line)?;
            if !OWN_NOTICES.iter().any(|own| parsed["event"] == *own) {
                expected.push(unlinked(line));
            }
        }
        let mode = fs::metadata(&self.recording)?.permissions().mode() & 0o777;
        ensure!(mode == 0o600, "the recording has mode {mode:o}");
        for _ in 0..2 {
            let output = replay(&self.recording)?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success() && said.is_empty(), "replay: {}: {said}", output.status);
            let found = String::from_utf8(output.stdout)?;
            let first = found.lines().zip(&expected).find(|(found, expected)| found != expected);
            ensure!(first.is_none(), "the first difference: {first:?}");
            let counts = (found.lines().count(), expected.len());
            ensure!(counts.0 == counts.1, "{} lines were found again of {}", counts.0, counts.1);
        }
        Ok(expected)
    }
}

/// A line of a log as it is in a replay, which has no chain.
fn unlinked(line: &str) -> String {
    line.rsplit_once(",\"seq\":").map_or(line.to_owned(), |(members, _)| format!("{members}}}"))
}

/// Replays a recording as a user who may nothing else.
fn replay(recording: &Path) -> Result<Output> {
    let copy = Path::new("/tmp/recording-of-nobody");
    fs::copy(recording, copy)?;
    chown(copy, Some(NOBODY), Some(NOBODY))?;
    Ok(Command::new(DETECTOR).arg("replay").arg(copy).uid(NOBODY).gid(NOBODY).output()?)
}

/// A container from before and a new one, all that needs more than an event, a clock that is set, and a full ring
/// buffer.
pub(super) fn replayed(lab: &mut Lab) -> Result<()> {
    let before = lab.new_container()?;
    let run = lab.recorded(|lab| {
        before.service_does(&["run", "/bin/sh", "-c", "true"])?;
        before.exec(&["/bin/sh", "-c", "true --password=hunter2"])?;
        let started = lab.new_container()?;
        for path in [lab.file()?, lab.file()?] {
            started.service_does(&["append", &path])?;
            set_clock(86_400)?;
        }
        started.service_does(&["copy", DASH, "/srv/of-unknown-content"])?;
        started.service_does(&["run", "/srv/of-unknown-content", "-c", "true"])?;
        lab.take_late_findings()?;
        set_clock(-2 * 86_400)?;
        flood(lab, &started).map(drop)?;
        lab.take_late_findings().map(drop)
    })?;
    let expected = run.expect_same()?;
    for part in ["of-unknown-content", "[redacted]", "\"loss\"", "\"shell_in_container\""] {
        ensure!(expected.iter().any(|line| line.contains(part)), "no line has {part}, so it is not tested");
    }
    ensure!(!expected.iter().any(|line| line.contains("hunter2")), "a secret is in a line");
    a_part(&run, &expected)
}

/// The daemon is killed, or the disk is full.
fn a_part(run: &Run, expected: &[String]) -> Result<()> {
    let whole = fs::read(&run.recording)?;
    let part = run.recording.with_extension("part");
    fs::write(&part, &whole[..whole.len() / 2])?;
    let output = replay(&part)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(DEGRADED), "replay of a part: {}: {said}", output.status);
    ensure!(said.contains("the recording is cut: it ends within an entry"), "replay of a part: {said}");
    let found = String::from_utf8(output.stdout)?;
    let same = found.lines().zip(expected).take_while(|(found, expected)| found == expected).count();
    ensure!(same > 0 && same < expected.len(), "{same} of {} lines are in a half", expected.len());
    Ok(())
}

/// Sets the clock forward.
fn set_clock(seconds: i64) -> Result<()> {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Realtime);
    Ok(clock_settime(ClockId::Realtime, Timespec { tv_sec: tv_sec + seconds, tv_nsec })?)
}

/// A daemon that is killed leaves a recording of everything but its last moment.
pub(super) fn killed(lab: &mut Lab) -> Result<()> {
    let container = lab.new_container()?;
    let path = lab.file()?;
    let run = lab.recorded(|lab| {
        container.service_does(&["append", &path])?;
        lab.take_findings()?;
        // The recording is written once a second.
        std::thread::sleep(std::time::Duration::from_secs(3));
        lab.sensor()?.signal(Signal::KILL)
    })?;
    let output = replay(&run.recording)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(DEGRADED), "{}: {said}", output.status);
    ensure!(said.contains("the recording is cut: it has no last entry"), "{said}");
    let found = String::from_utf8(output.stdout)?;
    let line = found.lines().find(|line| line.contains(&path)).context("the change is not found again")?;
    ensure!(
        fs::read_to_string(&run.lines)?.lines().any(|written| unlinked(written) == line),
        "it is another line: {line}"
    );
    Ok(())
}
