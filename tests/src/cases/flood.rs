//! Floods of events: what the sensor reports later, and the losses that it reports.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use super::lab::Lab;
use crate::attack::DEEP;
use crate::container::Container;
use crate::program::wait_for;

const WRITERS: usize = 4;
/// All records together, with their [long](DEEP) paths, exceed the size of the ring buffer.
const FILES: usize = 1_100;
/// All records together take between half and seven eighths of the ring buffer of a machine with few CPUs.
const FEW_FILES: usize = 350;
const WRITES: usize = 4;
const SHELLS: usize = 20;
/// After this time, the sensor has checked its loss counters twice.
pub(super) const HOUSEKEEPING: Duration = Duration::from_secs(4);
/// How long it takes at most to report a full ring buffer.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// While the sensor's process is stopped, its probes fill the ring buffer, and then keep short versions of further
/// events.
pub(super) fn full_ring_buffer(lab: &mut Lab) -> Result<()> {
    let container = lab.new_container()?;
    lab.take_findings()?;
    let found = flood(lab, &container)?;
    let notices = lab.notices();
    let lost = |kind: &str| -> u64 {
        let of_kind = notices.iter().filter(|notice| notice["event"] == "loss" && notice["detail"]["kind"] == kind);
        of_kind.filter_map(|notice| notice["detail"]["count"].as_u64()).sum()
    };
    files_are_complete(&found, lost("image_write"))?;
    let shells: Vec<&Value> = found.iter().filter(|finding| finding["finding"] == "shell_in_container").collect();
    let lost_shells = lost("exec").checked_sub(1).context("no exec was lost, so the ring buffer was never full")?;
    ensure!(
        shells.len() as u64 == SHELLS as u64 - lost_shells + 1,
        "{} shells were reported and {lost_shells} records were lost, of {SHELLS}",
        shells.len(),
    );
    for shell in shells {
        ensure!(shell["process"]["args"] == serde_json::json!(["/bin/sh", "-c", "true"]), "not the shell: {shell}");
    }
    Ok(())
}

/// While the sensor's process is stopped, its probes fill more than half of the ring buffer. The records are moved to
/// memory, and none is lost.
pub(super) fn half_full_ring_buffer(lab: &mut Lab) -> Result<()> {
    let container = lab.new_container()?;
    lab.take_findings()?;
    let before = moved_events()?;
    lab.sensor()?.signal(Signal::STOP)?;
    let attacked = create_files(&container, FEW_FILES);
    lab.sensor()?.signal(Signal::CONT)?;
    attacked?;
    let mut found = Vec::new();
    wait_for("the findings of all files", PATIENCE, || {
        found.extend(lab.take_findings()?);
        Ok((created(&found).count() >= WRITERS * FEW_FILES).then_some(()))
    })
    .with_context(|| format!("{} of {} files were reported", created(&found).count(), WRITERS * FEW_FILES))?;
    let inodes: BTreeSet<u64> = created(&found).filter_map(|file| file["inode"].as_u64()).collect();
    ensure!(inodes.len() == WRITERS * FEW_FILES, "{} files are in {} findings", inodes.len(), created(&found).count());
    let nameless = created(&found).filter(|file| file["path"].is_null()).count();
    ensure!(nameless == 0, "the ring buffer was full: {nameless} findings have no path");
    let moved = moved_events()? - before;
    ensure!(moved > 100, "{moved} events were moved: the ring buffer was not more than half full");
    Ok(())
}

/// How many events the daemon has moved out of the ring buffer.
fn moved_events() -> Result<u64> {
    let mut stream = UnixStream::connect("/run/detector/detector.sock")?;
    stream.write_all(b"{\"version\":1,\"request\":\"status\"}\n")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    let answer: Value = serde_json::from_str(&answer)?;
    answer["buffer"]["moved"].as_u64().with_context(|| format!("the status is {answer}"))
}

/// Lets each writer create so many files with long paths.
fn create_files(container: &Container, files: usize) -> Result<Value> {
    let sizes = [WRITERS, files, WRITES, DEEP as usize].map(|number| number.to_string());
    container.service_does(&[&["flood".to_owned()], sizes.as_slice()].concat())
}

/// Fills the ring buffer, and returns the findings.
pub(super) fn flood(lab: &mut Lab, container: &Container) -> Result<Vec<Value>> {
    lab.sensor()?.signal(Signal::STOP)?;
    let attacked: Result<()> = (|| {
        create_files(container, FILES)?;
        // The writes use the same file, busybox, and must not hide the shells.
        container.service_does(&["run", "/bin/true"])?;
        for _ in 0..SHELLS {
            container.service_does(&["run", "/bin/sh", "-c", "true"])?;
        }
        Ok(())
    })();
    lab.sensor()?.signal(Signal::CONT)?;
    attacked?;
    // The sensor takes the short versions, which have no order, once it has read the ring buffer. That takes a slow
    // machine longer than a housekeeping.
    let mut found = Vec::new();
    wait_for("the findings of all files", PATIENCE, || {
        sleep(HOUSEKEEPING);
        found.extend(lab.take_findings()?);
        Ok((created(&found).count() >= WRITERS * FILES).then_some(()))
    })
    .with_context(|| format!("{} of {} files were reported", created(&found).count(), WRITERS * FILES))?;
    Ok(found)
}

/// The files of the findings that say that one was created.
fn created(found: &[Value]) -> impl Iterator<Item = &Value> {
    found.iter().map(|finding| &finding["file"]).filter(|file| file["op"] == "create")
}

/// Each created file has a finding. Those without a path are the ones that were reported as lost.
fn files_are_complete(found: &[Value], lost: u64) -> Result<()> {
    let made: Vec<&Value> = created(found).collect();
    let inodes: BTreeSet<u64> = made.iter().filter_map(|file| file["inode"].as_u64()).collect();
    ensure!(inodes.len() == WRITERS * FILES, "{} of {} files were reported", inodes.len(), WRITERS * FILES);
    ensure!(inodes.len() == made.len(), "{} findings of {} files", made.len(), inodes.len());
    let nameless = made.iter().filter(|file| file["path"].is_null()).count();
    ensure!(nameless > 0, "the ring buffer was not full");
    // Records of directories may be among the lost ones.
    let spare = WRITERS as u64;
    ensure!(
        (nameless as u64..=nameless as u64 + spare).contains(&lost),
        "{nameless} findings have no path, but {lost} records were lost"
    );
    Ok(())
}
