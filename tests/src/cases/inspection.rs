//! Attacks on the reading of executed files: what one container does must not keep the shells of others from being
//! recognised.

use std::ffi::OsStr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::expectation::compare;
use super::lab::Lab;
use crate::container::{Container, Setup};
use crate::image::{BACKUP, DASH};
use crate::program::{on_host, wait_for};

/// The attacker's own program, which is no shell.
const TOOL: &str = "/usr/bin/tool";
/// How soon a renamed shell of another container is found.
const SOON: Duration = Duration::from_secs(8);

/// A container with a file system that never answers the host, and that has this program.
fn with_fuse(lab: &mut Lab, program: &str) -> Result<Container> {
    let setup = Setup { is_privileged: true, ..Setup::default() };
    let container = Container::service_with(lab.number(), setup)?;
    container.service_does(&["mount-fuse", program, "/data/fuse"])?;
    Ok(container)
}

/// Takes the findings, and expects that a renamed shell of another container is found soon.
fn take_findings_soon(lab: &mut Lab) -> Result<Vec<Value>> {
    let since = Instant::now();
    let findings = lab.take_late_findings()?;
    ensure!(since.elapsed() < SOON, "a shell of another container was found after {:?}", since.elapsed());
    Ok(findings)
}

/// The findings of shells. A program on FUSE is also one on a volume.
fn shells(mut found: Vec<Value>) -> Vec<Value> {
    found.retain(|finding| finding["finding"] == "shell_in_container");
    found
}

/// Expects that the sensor has counted as many losses of these kinds, and none of another.
fn expect_losses(lab: &mut Lab, kinds: &[&str], count: u64) -> Result<()> {
    let losses = wait_for("the notice of the loss", Duration::from_secs(30), || {
        lab.take_late_findings()?;
        let losses: Vec<_> = lab.notices().into_iter().filter(|notice| notice["event"] == "loss").collect();
        let counts = losses.iter().filter_map(|notice| notice["detail"]["count"].as_u64());
        Ok((counts.sum::<u64>() >= count).then_some(losses))
    })?;
    let is_expected = |loss: &Value| kinds.iter().any(|kind| loss["detail"]["kind"] == *kind);
    ensure!(losses.iter().all(is_expected), "these were lost: {losses:?}");
    ensure!(lab.notices().iter().all(|notice| notice["event"] != "degraded"), "the sensor is degraded");
    Ok(())
}

/// A program on FUSE.
pub(super) fn remote_program(lab: &mut Lab) -> Result<()> {
    let container = with_fuse(lab, TOOL)?;
    container.service_does(&["run", "/data/fuse/program", "run", "/bin/true"])?;
    let found = shells(take_findings_soon(lab)?);
    ensure!(found.is_empty(), "its content was read: {found:?}");
    expect_losses(lab, &["content_remote"], 1)?;
    // What it is called is all that is known of it.
    container.service_does(&["run-as", "sh", "/data/fuse/program", "run", "/bin/true"])?;
    let found = shells(take_findings_soon(lab)?);
    let expected = json!({"file": {"path": "/data/fuse/program", "unverified": "remote"}});
    compare(&found, &container.identity(), &[expected])
}

/// A shell on FUSE, which is known by how it begins.
pub(super) fn remote_shell(lab: &mut Lab) -> Result<()> {
    // The shell of the beacon is a copy of this one.
    lab.take_late_findings()?;
    let container = with_fuse(lab, DASH)?;
    container.service_does(&["run", "/data/fuse/program", "-c", "true"])?;
    let found = shells(take_findings_soon(lab)?);
    let expected = json!({"finding": "shell_in_container", "file": {"path": "/data/fuse/program", "unverified": null}});
    compare(&found, &container.identity(), &[expected])?;
    expect_losses(lab, &["content_remote"], 0)
}

/// A process that executes a program on FUSE after one that is read.
pub(super) fn remote_program_next(lab: &mut Lab) -> Result<()> {
    let container = with_fuse(lab, TOOL)?;
    container.service_does(&["copy", TOOL, "/srv/first"])?;
    for _ in 0..10 {
        container.service_does(&["run", "/srv/first", "become", "/data/fuse/program", "run", "/bin/true"])?;
    }
    take_findings_soon(lab)?;
    expect_losses(lab, &["content_remote"], 10)
}

/// A file on FUSE that is mapped by a process whose program is looked for among its mappings.
pub(super) fn remote_mapping(lab: &mut Lab) -> Result<()> {
    let container = with_fuse(lab, DASH)?;
    container.service_does(&["copy", TOOL, "/data/ld-tool"])?;
    container.service_does(&["copy", DASH, "/srv/renamed"])?;
    container.service_does(&["run", "/data/ld-tool", "map-above", "/data/fuse/program", "/srv/renamed"])?;
    let shells = shells(take_findings_soon(lab)?);
    ensure!(shells.len() == 1 && shells[0]["file"]["path"] == "/srv/renamed", "these shells were found: {shells:?}");
    Ok(())
}

/// A program that is reached through FUSE, and gone when it is looked for.
pub(super) fn remote_directory(lab: &mut Lab) -> Result<()> {
    const COPY: &str = "/data/fuse/directory/renamed";
    lab.take_late_findings()?;
    let container = with_fuse(lab, DASH)?;
    container.service_does(&["mount-on-fuse", "/data/fuse/directory"])?;
    container.service_does(&["copy", DASH, COPY])?;
    for _ in 0..3 {
        container.service_does(&["run", COPY, "-c", "true"])?;
    }
    let shells = shells(take_findings_soon(lab)?);
    ensure!(shells.len() == 3, "these shells were found: {shells:?}");
    expect_losses(lab, &["content_remote"], 0)
}

/// A program on an overlay with a layer on FUSE.
pub(super) fn remote_layer(lab: &mut Lab) -> Result<()> {
    let container = with_fuse(lab, TOOL)?;
    container.service_does(&["mount-over-fuse", "/data/fuse", "/data/over"])?;
    for _ in 0..3 {
        container.service_does(&["run", "/data/over/merged/program", "run", "/bin/true"])?;
    }
    take_findings_soon(lab)?;
    expect_losses(lab, &["content_remote"], 3)
}

/// Programs that are large.
pub(super) fn large_programs(lab: &mut Lab) -> Result<()> {
    let container = lab.new_container()?;
    for number in 0..5 {
        let path = format!("/data/sparse-{number}");
        container.service_does(&["make-sparse", &path])?;
        container.service_does(&["run", &path])?;
    }
    take_findings_soon(lab)?;
    // On a busy machine, there may be no time for as much as is read at most.
    expect_losses(lab, &["content_too_large", "content_timed_out"], 5)
}

/// A program that was read for another container of the same image need not be read again: it is known to be no shell,
/// although it is called like one and cannot be read any more.
pub(super) fn known_program(lab: &mut Lab) -> Result<()> {
    let run = |container: &Container| container.service_does(&["run-as", "sh", BACKUP, "run", "/bin/true"]).map(drop);
    run(&lab.new_container()?)?;
    let found = shells(lab.take_late_findings()?);
    ensure!(found.is_empty(), "it is no shell: {found:?}");
    let container = lab.new_container()?;
    // While this is read, the container ends.
    container.service_does(&["make-sparse", "/data/sparse"])?;
    container.service_does(&["run", "/data/sparse"])?;
    run(&container)?;
    drop(container);
    let found = shells(lab.take_late_findings()?);
    ensure!(found.is_empty(), "it was read again: {found:?}");
    Ok(())
}

/// What is known of the hash of the program that was executed last from this path.
fn hash(lab: &mut Lab, path: &str) -> Result<Value> {
    let found = lab.take_late_findings()?;
    let is_run = |finding: &&Value| {
        ["drifted_exec", "fileless_exec"].iter().any(|kind| finding["finding"] == *kind)
            && finding["file"]["path"] == path
    };
    let finding = found.iter().rfind(is_run).with_context(|| format!("{path} was not executed: {found:?}"))?;
    wait_for("the hash", Duration::from_secs(30), || {
        lab.take_late_findings()?;
        let notices = lab.notices().into_iter().filter(|notice| notice["event"] == "file_hash");
        let late = notices.map(|notice| notice["detail"].clone()).filter(|late| late["finding"] == finding["id"]);
        // It is in the finding if the version is known, or if the finding has waited for a runtime.
        let mut told = std::iter::once(finding["file"].clone()).chain(late);
        Ok(told.find(|told| told["sha256"].is_string() || told["unhashed"].is_string()))
    })
}

/// Expects that the hash of the program that was executed last from this path is that of this file.
fn expect_hash(lab: &mut Lab, path: &str, file: &Path) -> Result<Value> {
    let sum = on_host("/bin/busybox", [OsStr::new("sha256sum"), file.as_os_str()])?;
    let told = hash(lab, path)?;
    ensure!(told["sha256"] == sum[..64] && told["unhashed"].is_null(), "{path}: {told} instead of {sum}");
    Ok(told["sha256"].clone())
}

/// A program that was added, executed again, and changed, one that is executed as soon as it is written, one in memory,
/// and one that is too large.
pub(super) fn hashes(lab: &mut Lab) -> Result<()> {
    const ADDED: &str = "/tmp/added";
    const SOON: &str = "/tmp/soon";
    const LARGE: &str = "/tmp/large";
    let container = lab.new_container()?;
    let run = |lab: &mut Lab| {
        // It is soon gone, so its last change must be before the tick of the clock in which it is executed.
        std::thread::sleep(Duration::from_millis(50));
        container.service_does(&["run", ADDED, "run", "/bin/true"])?;
        expect_hash(lab, ADDED, &container.host_path(ADDED))
    };
    container.service_does(&["copy", TOOL, ADDED])?;
    let first = run(lab)?;
    let again = run(lab)?;
    ensure!(again == first, "the hash of the same version is {again} instead of {first}");
    container.service_does(&["append", ADDED])?;
    let changed = run(lab)?;
    ensure!(changed != first, "the hash of another version is the same");

    container.child_does(&["copy-and-run", DASH, SOON, "-c", "sleep 2; true"])?;
    expect_hash(lab, SOON, &container.host_path(DASH))?;
    container.service_does(&["run-in-memory", DASH, "-c", "sleep 2; true"])?;
    expect_hash(lab, "memfd:library", &container.host_path(DASH))?;

    container.service_does(&["make-sparse", LARGE])?;
    container.service_does(&["run", LARGE])?;
    let told = hash(lab, LARGE)?;
    ensure!(told["unhashed"] == "too_large" && told["sha256"].is_null(), "{LARGE}: {told}");
    Ok(())
}
