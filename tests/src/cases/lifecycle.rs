//! Start and stop of the sensor, what was there before it, and hosts on which it cannot work.

use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use anyhow::{Result, ensure};
use rustix::mount::{UnmountFlags, unmount};
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use super::{Lab, shell, write};
use crate::init::{CGROUPS, mount_cgroups};
use crate::sensor::{DETECTOR, detector, finish};

pub(super) fn containers_that_ran_before(lab: &mut Lab) -> Result<()> {
    let before = lab.take_sensor()?;
    before.stop()?;
    let (container, path) = (lab.new_container()?, lab.file()?);
    lab.ensure_sensor()?;
    container.exec(&["/bin/sh", "-c", "true"])?;
    container.service_does(&["run", "/bin/sh", "-c", "true"])?;
    let identity = container.service_does(&["append", &path])?;
    lab.expect(
        &container,
        [
            shell("entered", "/bin/busybox", &["/bin/sh", "-c", "true"]),
            shell("application", "/bin/busybox", &["/bin/sh", "-c", "true"]),
            write("entrypoint", "open_write", "lower", &path, &identity),
        ],
    )
}

pub(super) fn descriptor_from_before(lab: &mut Lab) -> Result<()> {
    let before = lab.take_sensor()?;
    before.stop()?;
    let (container, path) = (lab.container()?, lab.file()?);
    container.service_does(&["hold", &path])?;
    lab.ensure_sensor()?;
    let identity = container.service_does(&["write-held", "write", &path])?;
    lab.expect(&container, [write("entrypoint", "write", "upper", &path, &identity)])
}

pub(super) fn stop_and_status(lab: &mut Lab) -> Result<()> {
    ensure!(detector(&["status", "--wait", "10s"])?.status.success(), "status does not see the running sensor");
    let status = lab.take_sensor()?.stop()?;
    ensure!(status.success(), "after SIGTERM: {status}");
    let without = detector(&["status"])?;
    ensure!(!without.status.success(), "status sees a sensor where there is none");
    lab.ensure_sensor()
}

/// The time of a finding is that of the wall clock, also after the clock was set.
pub(super) fn clock_step(lab: &mut Lab) -> Result<()> {
    // The first second of 2040.
    const DATE: (i64, &str) = (2_208_988_800, "2040-01-01T00:0");
    let (container, path) = (lab.container()?, lab.file()?);
    let before = clock_gettime(ClockId::Realtime);
    clock_settime(ClockId::Realtime, Timespec { tv_sec: DATE.0, tv_nsec: 0 })?;
    let found = container.service_does(&["append", &path]).and_then(|_| lab.take_findings());
    clock_settime(ClockId::Realtime, before)?;
    let found = found?;
    let times: Vec<_> = found.iter().map(|finding| finding["time"].as_str().unwrap_or_default()).collect();
    ensure!(times.len() == 1 && times[0].starts_with(DATE.1), "after the clock was set to 2040: {times:?}");

    // And back.
    let path = lab.file()?;
    container.service_does(&["append", &path])?;
    let found = lab.take_findings()?;
    ensure!(found.len() == 1 && !found[0].to_string().contains(DATE.1), "after the clock was set back: {found:?}");
    Ok(())
}

pub(super) fn no_privilege(lab: &mut Lab) -> Result<()> {
    drop(lab.take_sensor()?);
    let output = finish(Command::new(DETECTOR).args(["run", "--json", "-"]).uid(65534).gid(65534))?;
    refused(&output, &["root", "CAP_BPF"])
}

pub(super) fn unwritable_output(lab: &mut Lab) -> Result<()> {
    drop(lab.take_sensor()?);
    refused(&detector(&["run", "--json", "/proc/nowhere/findings.jsonl"])?, &["/proc/nowhere/findings.jsonl"])
}

pub(super) fn no_cgroups(lab: &mut Lab) -> Result<()> {
    drop(lab.take_sensor()?);
    unmount(CGROUPS, UnmountFlags::DETACH)?;
    let output = detector(&["run", "--json", "-"]);
    mount_cgroups()?;
    refused(&output?, &["cgroup"])
}

/// It ended with a documented exit code and one line that has one of these words in it.
fn refused(output: &Output, words: &[&str]) -> Result<()> {
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code().is_some_and(|code| code != 0), "it ended with {}: {message}", output.status);
    ensure!(words.iter().any(|word| message.contains(word)), "none of {words:?} is in its message: {message:?}");
    Ok(())
}
