//! On preemptible kernels, some kinds of probes are skipped while a preempted task is inside the same probe. Many writers
//! at once try to make that happen; with `preempt=full` they would succeed against fentry probes on the open.

use std::collections::BTreeSet;
use std::thread;

use anyhow::{Result, ensure};

use super::Lab;
use crate::attack::flooded;
use crate::container::Container;

const CONTAINERS: u32 = 3;
const WRITERS: u32 = 4;
const FILES: u32 = 100;
const WRITES: u32 = 4;

pub(super) fn parallel_writers(lab: &mut Lab) -> Result<()> {
    let containers: Vec<Container> = (0..CONTAINERS).map(|_| lab.new_container()).collect::<Result<_>>()?;
    let flood = ["flood".to_owned(), WRITERS.to_string(), FILES.to_string(), WRITES.to_string()];
    thread::scope(|scope| {
        let floods: Vec<_> =
            containers.iter().map(|container| scope.spawn(|| container.service_does(&flood))).collect();
        floods.into_iter().try_for_each(|flood| flood.join().expect("a flood does not panic").map(drop))
    })?;

    let findings = lab.take_findings()?;
    // Of the open: that of a write, which would follow if it was missed, would say less.
    let found: BTreeSet<(&str, &str)> = findings
        .iter()
        .filter(|finding| finding["file"]["op"] == "create")
        .filter_map(|finding| Some((finding["container"]["id"].as_str()?, finding["file"]["path"].as_str()?)))
        .collect();
    for container in &containers {
        for writer in 0..WRITERS {
            let paths = (0..FILES).map(|file| flooded(writer, &file.to_string()));
            let unseen: Vec<_> = paths.filter(|path| !found.contains(&(&container.id, path))).collect();
            ensure!(
                unseen.is_empty(),
                "{} of {FILES} files that a writer made were not seen when they were made, such as {}",
                unseen.len(),
                unseen[0]
            );
        }
    }
    // Each writer makes a directory, too.
    let made = (CONTAINERS * WRITERS * (FILES + 1)) as usize;
    ensure!(findings.len() == made, "{} findings came of {made} changes", findings.len());
    Ok(())
}
