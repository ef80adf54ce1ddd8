//! On preemptible kernels, some kinds of probes are skipped while a preempted task is inside the same probe. Many writers
//! at once try to make that happen; with `preempt=full` they would succeed against fentry probes on the open.

use std::collections::BTreeSet;
use std::thread;

use anyhow::{Result, ensure};

use super::Lab;
use crate::container::Container;

const CONTAINERS: usize = 3;
const WRITERS: usize = 4;
const FILES: u32 = 100;

pub(super) fn parallel_writers(lab: &mut Lab) -> Result<()> {
    let containers: Vec<Container> = (0..CONTAINERS).map(|_| lab.new_container()).collect::<Result<_>>()?;
    let work = |container: &Container, writer: usize| {
        let (folder, files) = (format!("/srv/{writer}"), FILES.to_string());
        container.exec_tool(&["flood", &folder, &files]).map(drop)
    };
    thread::scope(|scope| {
        let writers: Vec<_> = containers
            .iter()
            .flat_map(|container| (0..WRITERS).map(move |writer| (container, writer)))
            .map(|(container, writer)| scope.spawn(move || work(container, writer)))
            .collect();
        writers.into_iter().try_for_each(|writer| writer.join().expect("a writer does not panic"))
    })?;

    let findings = lab.take_findings()?;
    let found: BTreeSet<(&str, &str)> = findings
        .iter()
        .filter_map(|finding| Some((finding["container"]["id"].as_str()?, finding["file"]["path"].as_str()?)))
        .collect();
    for container in &containers {
        for writer in 0..WRITERS {
            let paths = (0..FILES).map(|file| format!("/srv/{writer}/{file}"));
            let unseen: Vec<_> = paths.filter(|path| !found.contains(&(&container.id, path))).collect();
            ensure!(
                unseen.is_empty(),
                "{} of {FILES} changes by a writer were not found, such as {}",
                unseen.len(),
                unseen[0]
            );
        }
    }
    let made = CONTAINERS * WRITERS * FILES as usize;
    ensure!(findings.len() == made, "{} findings came of {made} changes", findings.len());
    Ok(())
}
