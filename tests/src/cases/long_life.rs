//! What a container and its node do in a month, in a minute.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;

use super::expectation::{shell, write};
use super::lab::Lab;
use crate::container::Container;
use crate::init::cgroup;
use crate::maps;
use crate::program::{on_host, wait_for};

/// How often the work is done.
const ROUNDS: usize = 10;
/// How many files are replaced in a round. Altogether, these are more than the maps have entries for, which is what
/// counts: more would take longer, and do the same.
const REPLACED: usize = 6_600;
/// How many cgroups are made and removed in a round.
const CGROUPS: usize = 300;
/// How often somebody enters the container in a round, and changes a file.
const VISITS: usize = 10;
/// The number of entries of the map of changes at the end of the work, at most.
const MOST: usize = 16_384;
/// How long the sensor takes at most to remove what has gone from its maps after a container has ended.
const SWEEP: Duration = Duration::from_secs(30);

/// Replaces files whose inode numbers are not used again, makes and removes cgroups, and enters the container. Then the
/// sensor tells what it told on the first day, and its maps have room.
pub(super) fn month_of_churn(lab: &mut Lab) -> Result<()> {
    let container = lab.new_container()?;
    let (replaced, visited) = (format!("{}-new", lab.file()?), lab.file()?);
    lab.take_findings()?;
    let before = maps::entries("SEEN")?;
    for _ in 0..ROUNDS {
        let answer = container.service_does(&["replace", &replaced, &REPLACED.to_string()])?;
        make_and_remove_cgroups()?;
        for _ in 0..VISITS {
            on_host(
                "/bin/busybox",
                ["nsenter", "-t", &container.pid.to_string(), "-m", "/usr/bin/tool", "append", &visited],
            )?;
        }
        let found = lab.take_findings()?;
        let of = |op: &str| found.iter().filter(|found| found["file"]["op"] == op).count();
        let powers = answer["powers"].as_u64().unwrap_or_default() as usize;
        let told = (of("create"), of("chmod"), of("open_write"));
        ensure!(told == (REPLACED, powers, VISITS), "{told:?} were told of {REPLACED} files and {powers} modes");
        ensure!(lab.notices().iter().all(|notice| notice["event"] != "loss"), "{:?}", lab.notices());
        // The findings of a month do not fit into the memory of this machine.
        lab.history.clear();
        lab.rotate_output(Signal::HUP)?;
    }
    let seen = maps::entries("SEEN")?;
    println!("{} replacements: {seen} entries in SEEN, {} in FILES", ROUNDS * REPLACED, maps::entries("FILES")?);
    ensure!(seen < MOST, "{seen} entries are in SEEN");
    as_on_the_first_day(lab, &container)?;
    // The visitors have left, and the replaced files are gone. This is noticed at intervals, and sooner if a container
    // ends.
    drop(lab.new_container()?);
    wait_for("the removal of what has gone", SWEEP, || Ok((maps::entries("SEEN")? < before + 16).then_some(())))?;
    println!("at the end: {} entries in SEEN, {} in FILES", maps::entries("SEEN")?, maps::entries("FILES")?);
    as_on_the_first_day(lab, &container)
}

fn make_and_remove_cgroups() -> Result<()> {
    for number in 0..CGROUPS {
        let cgroup = cgroup(&format!("/churn-{number}"));
        fs::create_dir(&cgroup)?;
        fs::remove_dir(&cgroup)?;
    }
    Ok(())
}

/// A first change is told, its repeat is not, and a shell is one that was entered.
fn as_on_the_first_day(lab: &mut Lab, container: &Container) -> Result<()> {
    let path = lab.file()?;
    let identity = container.service_does(&["append", &path])?;
    container.service_does(&["append", &path])?;
    let args = ["/bin/sh", "-c", "true"];
    container.exec(&args)?;
    lab.expect(
        container,
        [write("entrypoint", "open_write", "lower", &path, &identity), shell("entered", "/bin/busybox", &args)],
    )
}
