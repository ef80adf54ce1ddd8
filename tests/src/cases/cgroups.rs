//! Processes that leave their container's cgroup, but not their container.

use std::fs;
use std::path::PathBuf;
use std::thread::sleep;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::expectation::{shell, write};
use super::flood::HOUSEKEEPING;
use super::lab::Lab;
use crate::attack::NotApplicable;
use crate::container::{Container, HOST, Setup};
use crate::init::{CGROUPS, cgroup};

/// A cgroup of the host.
const ELSEWHERE: &str = "/elsewhere";

pub(super) fn moved(lab: &mut Lab) -> Result<()> {
    escaped(lab, &["moved"], "application")
}

/// The process is then in neither the cgroup nor the mount namespace of its container, but it changes the container's
/// image.
pub(super) fn moved_with_own_mounts(lab: &mut Lab) -> Result<()> {
    escaped(lab, &["with-own-mounts", "moved"], "outside")
}

pub(super) fn born(lab: &mut Lab) -> Result<()> {
    if cgroup("") != CGROUPS {
        return Err(NotApplicable("processes are born only in cgroups of version 2".to_owned()).into());
    }
    escaped(lab, &["born"], "application")
}

/// More cgroups than the sensor keeps. On the host, they cost nothing. In a container, they leave no room for further
/// containers, and whoever then enters one is not taken for its entrypoint.
pub(super) fn full_map(lab: &mut Lab) -> Result<()> {
    /// More than the map of cgroups has entries for.
    const CGROUPS: usize = 17_000;
    let each = |parent: &str, action: fn(PathBuf) -> std::io::Result<()>| {
        (0..CGROUPS).try_for_each(|number| action(cgroup(&format!("{parent}/many-{number}")).into()))
    };
    let args = ["/bin/sh", "-c", "true"];
    /// How many cgroups and containers have found no room so far.
    fn lost(lab: &mut Lab) -> Result<u64> {
        sleep(HOUSEKEEPING);
        lab.expect_none()?;
        let is_one = |notice: &&Value| notice["event"] == "loss" && notice["detail"]["kind"] == "cgroups_full";
        Ok(lab.notices().iter().filter(is_one).filter_map(|notice| notice["detail"]["count"].as_u64()).sum())
    }
    let enter = |lab: &mut Lab, [entered, service]: [&str; 2]| -> Result<Container> {
        let (container, path) = (lab.new_container()?, lab.file()?);
        container.exec(&args)?;
        let identity = container.service_does(&["append", &path])?;
        let mut shell = shell(entered, "/bin/busybox", &args);
        shell["severity"] = json!("medium");
        lab.expect(&container, [shell, write(service, "open_write", "lower", &path, &identity)])?;
        Ok(container)
    };
    const ORDINARY: [&str; 2] = ["entered", "entrypoint"];
    fs::create_dir(cgroup(ELSEWHERE))?;
    each(ELSEWHERE, fs::create_dir)?;
    let container = enter(lab, ORDINARY)?;
    each(ELSEWHERE, fs::remove_dir)?;
    fs::remove_dir(cgroup(ELSEWHERE))?;
    each(&container.cgroup, fs::create_dir)?;
    let of_cgroups = lost(lab);
    let unknown = enter(lab, ["unknown", "unknown"]);
    each(&container.cgroup, fs::remove_dir)?;
    drop(unknown?);
    let (of_cgroups, all) = (of_cgroups?, lost(lab)?);
    ensure!(0 < of_cgroups && of_cgroups < all, "{of_cgroups} of {all} losses are of cgroups");
    enter(lab, ORDINARY).map(drop)
}

/// A process of a container that sees the host's cgroups moves into one and changes an image file from there, with the
/// expected `origin`.
fn escaped(lab: &mut Lab, way: &[&str], origin: &str) -> Result<()> {
    let elsewhere = cgroup(ELSEWHERE);
    fs::create_dir(&elsewhere)?;
    let setup = Setup { is_privileged: true, sees_cgroups: true, ..Setup::default() };
    let (container, path) = (Container::service_with(lab.number(), setup)?, lab.file()?);
    let identity = container.child_does(&[way, &[&format!("{HOST}{elsewhere}"), "append", &path]].concat())?;
    fs::remove_dir(&elsewhere)?;
    let escape = json!({
        "finding": "cgroup_escape",
        "severity": "critical",
        "process": {"origin": "application", "exe": "/usr/bin/tool"},
    });
    let found = lab.expect_and_take(&container, [escape, write(origin, "open_write", "lower", &path, &identity)])?;
    let message = found[0]["message"].as_str().unwrap_or_default();
    ensure!(message.ends_with(&format!("out of container {} to cgroup {ELSEWHERE}", &container.id[..12])), "{message}");
    Ok(())
}
