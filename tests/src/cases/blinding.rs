//! On preemptible kernels, some kinds of probes are skipped while a preempted task is inside the same probe. Many writers
//! at once try to make that happen; with `preempt=full` they would succeed against fentry probes on the open.

use std::collections::BTreeSet;
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Result, ensure};

use super::Lab;
use crate::attack::FLOODED;
use crate::container::Container;
use crate::sensor::wait_for;

const CONTAINERS: usize = 3;
const WRITERS: usize = 4;
const FILES: u32 = 100;

pub(super) fn parallel_writers(lab: &mut Lab) -> Result<()> {
    let containers: Vec<Container> = (0..CONTAINERS).map(|_| lab.new_container()).collect::<Result<_>>()?;
    let names: Vec<String> = (0..WRITERS).map(|writer| format!("writer-{writer}")).collect();
    let work = |container: &Container, name: &str| container.exec_tool(&["flood", name, &FILES.to_string()]);
    thread::scope(|scope| {
        let pairs = containers.iter().flat_map(|container| names.iter().map(move |name| (container, name)));
        let writers: Vec<_> =
            pairs.clone().map(|(container, name)| scope.spawn(move || work(container, name))).collect();
        for (container, name) in pairs {
            wait_for("a writer", Duration::from_secs(60), || Ok(container.volume().join(name).exists().then_some(())))?;
        }
        for container in &containers {
            fs::write(container.volume().join("go"), "")?;
        }
        writers.into_iter().try_for_each(|writer| writer.join().expect("a writer does not panic").map(drop))
    })?;

    let findings = lab.take_findings()?;
    // Of the open: that of a write, which would follow if it was missed, would say less.
    let found: BTreeSet<(&str, &str)> = findings
        .iter()
        .filter(|finding| finding["file"]["op"] == "create")
        .filter_map(|finding| Some((finding["container"]["id"].as_str()?, finding["file"]["path"].as_str()?)))
        .collect();
    for container in &containers {
        for name in &names {
            let paths = (0..FILES).map(|file| format!("{FLOODED}/{name}/{file}"));
            let unseen: Vec<_> = paths.filter(|path| !found.contains(&(&container.id, path))).collect();
            ensure!(
                unseen.is_empty(),
                "{} of {FILES} files that a writer made were not seen when they were made, such as {}",
                unseen.len(),
                unseen[0]
            );
        }
    }
    let made = CONTAINERS * WRITERS * FILES as usize;
    ensure!(findings.len() == made, "{} findings came of {made} changes", findings.len());
    Ok(())
}
