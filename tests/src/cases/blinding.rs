//! On preemptible kernels, some types of probes are skipped while a preempted task is inside the same probe. Many
//! concurrent writers try to cause that. With `preempt=full` they would succeed against fentry probes on the open. The
//! other types are skipped while the sensor is preempted in a call on a map. A task that is preempted inside a probe
//! also keeps the memory in which that puts its record together.

use std::collections::BTreeSet;
use std::thread::{self, sleep};

use anyhow::{Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use super::flood::{HOUSEKEEPING, PATIENCE};
use super::lab::Lab;
use crate::attack::{DEEP, flooded};
use crate::container::Container;
use crate::program::wait_for;

const CONTAINERS: u32 = 3;
const PARALLEL_WRITERS: u32 = 64;
const FILES: u32 = 12;
const WRITES: u32 = 4;

pub(super) fn parallel_writers(lab: &mut Lab) -> Result<()> {
    let containers: Vec<Container> = (0..CONTAINERS).map(|_| lab.new_container()).collect::<Result<_>>()?;
    let sizes = [PARALLEL_WRITERS, FILES, WRITES, 0].map(|number| number.to_string());
    let flood = [&["flood".to_owned()], sizes.as_slice()].concat();
    thread::scope(|scope| {
        let floods: Vec<_> =
            containers.iter().map(|container| scope.spawn(|| container.service_does(&flood))).collect();
        floods.into_iter().try_for_each(|flood| flood.join().expect("a flood does not panic").map(drop))
    })?;

    let findings = lab.take_findings()?;
    // This checks the findings of opens. If one was missed, the write after it would have a finding with less detail.
    let found: BTreeSet<(&str, &str)> = findings
        .iter()
        .filter(|finding| finding["file"]["op"] == "create")
        .filter_map(|finding| Some((finding["container"]["id"].as_str()?, finding["file"]["path"].as_str()?)))
        .collect();
    for container in &containers {
        for writer in 0..PARALLEL_WRITERS {
            let paths = (0..FILES).map(|file| flooded(writer, 0, &file.to_string()));
            let unseen: Vec<_> = paths.filter(|path| !found.contains(&(&container.id, path))).collect();
            ensure!(
                unseen.is_empty(),
                "{} of {FILES} files that a writer made were not seen when they were made, such as {}",
                unseen.len(),
                unseen[0]
            );
        }
    }
    // Each writer also creates a directory.
    let made = (CONTAINERS * PARALLEL_WRITERS * (FILES + 1)) as usize;
    ensure!(findings.len() == made, "{} findings came of {made} changes", findings.len());
    Ok(())
}

const WRITERS: u32 = 4;
/// The number of files per writer that the sensor reads from a map.
const KEPT: u32 = 2000;
/// The number of files per writer that are created in the meantime.
const MEANWHILE: u32 = 500;

/// Writers that preempt the sensor while it reads a map.
pub(super) fn while_maps_are_read(lab: &mut Lab) -> Result<()> {
    let (before, meanwhile) = (lab.new_container()?, lab.new_container()?);
    let flood = |container: &Container, files: u32| {
        let sizes = [WRITERS, files, 1, DEEP].map(|number| number.to_string());
        container.service_does(&[&["flood".to_owned()], sizes.as_slice()].concat())
    };
    lab.take_findings()?;
    lab.sensor()?.signal(Signal::STOP)?;
    let kept = flood(&before, KEPT);
    lab.sensor()?.signal(Signal::CONT)?;
    kept.and_then(|_| flood(&meanwhile, MEANWHILE))?;
    // What it reads from the map has no order, and takes a slow machine long.
    let mut findings = Vec::new();
    let seen = |findings: &[Value], container: &Container| {
        let is_made =
            |finding: &&Value| finding["container"]["id"] == container.id && finding["file"]["op"] == "create";
        findings.iter().filter(is_made).count()
    };
    let wanted = [(&before, (WRITERS * KEPT) as usize), (&meanwhile, (WRITERS * MEANWHILE) as usize)];
    let all_seen = wait_for("the findings of all files", PATIENCE, || {
        sleep(HOUSEKEEPING);
        findings.extend(lab.take_findings()?);
        Ok(wanted.iter().all(|(container, made)| seen(&findings, container) >= *made).then_some(()))
    });
    for (container, made) in wanted {
        let seen = seen(&findings, container);
        ensure!(seen == made, "{seen} of {made} files were seen when they were made: {all_seen:?}");
    }
    Ok(())
}
