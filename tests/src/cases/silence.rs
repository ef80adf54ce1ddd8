//! Actions that have no findings.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::device::{node, with_disk};
use super::lab::{Lab, write_on_host};
use crate::container::{Container, SERVICE, Setup};
use crate::init::mount_at;
use crate::program::on_host;

pub(super) fn not_the_image(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    container.service_does(&["harmless"])?;
    container.exec_tool(&["harmless"])?;
    write_on_host(&container.host_path("/data/from-the-host"))?;
    lab.expect_none()
}

pub(super) fn failed_writes(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    container.exec_as("65534:65534", &["/usr/bin/tool", "denied", "/etc/app.conf"])?;
    lab.expect_none()
}

pub(super) fn read_only_root(lab: &mut Lab) -> Result<()> {
    let setup = Setup { is_read_only: true, ..Setup::default() };
    let (container, path) = (Container::service_with(lab.number(), setup)?, lab.file()?);
    container.service_does(&["read-only", &path])?;
    lab.expect_none()
}

/// Changes that are permitted but cannot succeed.
pub(super) fn changes_that_fail(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    container.service_does(&["fail", &path, "/srv/many"])?;
    lab.expect_none()
}

pub(super) fn looks(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    container.service_does(&["look", &path])?;
    container.exec_tool(&["look", &path])?;
    lab.expect_none()
}

pub(super) fn every_change_elsewhere(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    for directory in ["/data", "/dev/shm", "/dev"] {
        container.service_does(&["elsewhere", directory])?;
    }
    lab.expect_none()
}

pub(super) fn mounts_elsewhere(lab: &mut Lab) -> Result<()> {
    let container = lab.privileged()?;
    for directory in ["/data", "/dev/shm"] {
        container.service_does(&["mount-elsewhere", directory])?;
    }
    lab.expect_none()
}

/// The file is deleted when it is closed.
pub(super) fn unnamed_file(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    container.service_does(&["make-unnamed", "/srv"])?;
    lab.expect_none()
}

/// The sensor's maps are locked memory on kernels before 5.11. They take nothing away from programs of the same user.
pub(super) fn programs_that_lock_memory(lab: &mut Lab) -> Result<()> {
    lab.container()?.child_does(&["lock-memory"])?;
    lab.privileged()?.child_does(&["make-map"])?;
    lab.expect_none()
}

/// Programs that use what the sensor uses or watches return the same as without a sensor.
pub(super) fn ordinary_programs(lab: &mut Lab) -> Result<()> {
    let (plain, privileged) = (lab.container()?, lab.privileged()?);
    for container in [&plain, &privileged] {
        fs::create_dir_all(container.volume().join("ordinary"))?;
        fs::write(container.volume().join("supervised"), "0123456789 0123456789 0123456789")?;
    }
    let run = || -> Result<Vec<(&str, Value)>> {
        let in_privileged: [&[&str]; 6] = [
            &["trace-kernel"],
            &["trace-program"],
            &["watch-files", "/data/ordinary"],
            &["link-unnamed", "/data/ordinary"],
            &["supervise", "/data/supervised"],
            &["list-processes"],
        ];
        let in_plain: [&[&str]; 5] = [
            &["lock-memory"],
            &["reach-limits"],
            &["signal-child"],
            &["list-processes"],
            &["fail-to-execute", "/data/ordinary"],
        ];
        let of = |container: &Container, operation: &[&'static str]| -> Result<(&str, Value)> {
            Ok((operation[0], container.child_does(operation).context(operation[0])?))
        };
        let first = in_privileged.into_iter().map(|operation| of(&privileged, operation));
        first.chain(in_plain.into_iter().map(|operation| of(&plain, operation))).collect()
    };
    let without = lab.without_sensor(|_| run())?;
    for (with, without) in run()?.into_iter().zip(without) {
        ensure!(with == without, "with a sensor: {with:?}; without: {without:?}");
    }
    lab.expect_none()
}

pub(super) fn block_device_read(lab: &mut Lab) -> Result<()> {
    let container = lab.privileged()?;
    with_disk(|disk| {
        let node = node("read", disk);
        container.service_does(&["make-loop", &node])?;
        container.service_does(&["read-device", &node]).map(drop)
    })?;
    lab.expect_none()
}

pub(super) fn runtime_commands(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    for command in ["pause", "resume", "update --cpu-share 512", "ps", "state"] {
        on_host("runc", command.split(' ').chain([container.id.as_str()]))?;
    }
    container.exec(&["/bin/true"])?;
    lab.expect_none()
}

pub(super) fn runtime_setup_and_removal(lab: &mut Lab) -> Result<()> {
    for _ in 0..2 {
        drop(Container::start(lab.number(), SERVICE)?);
    }
    lab.expect_none()
}

pub(super) fn host_shell(lab: &mut Lab) -> Result<()> {
    on_host("/bin/busybox", ["sh", "-c", "true"])?;
    on_host("/bin/sh", ["-c", "true"])?;
    lab.expect_none()
}

pub(super) fn host_overlay(lab: &mut Lab) -> Result<()> {
    let folder = Path::new("/run/lab/overlay");
    for name in ["lower", "upper", "work"] {
        fs::create_dir_all(folder.join(name))?;
    }
    let file = folder.join("lower/file");
    write_on_host(&file)?;
    let shown = folder.display();
    let options = format!("lowerdir={shown}/lower,upperdir={shown}/upper,workdir={shown}/work");
    mount_at("overlay", "/run/lab/overlay/merged", &options)?;
    let written = write_on_host(&folder.join("merged/file")).and_then(|()| write_on_host(&folder.join("merged/new")));
    rustix::mount::unmount("/run/lab/overlay/merged", rustix::mount::UnmountFlags::empty())?;
    written?;
    lab.expect_none()
}
