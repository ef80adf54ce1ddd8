//! What is no finding.

use std::fs;
use std::path::Path;

use anyhow::Result;

use super::{Lab, on_host, write_on_host};
use crate::container::{Container, SERVICE};
use crate::init::mount_at;

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

pub(super) fn runtime_setup_and_removal(lab: &mut Lab) -> Result<()> {
    for _ in 0..2 {
        drop(Container::start(lab.number(), SERVICE)?);
    }
    lab.expect_none()
}

pub(super) fn host_shell(lab: &mut Lab) -> Result<()> {
    on_host("/bin/busybox", &["sh", "-c", "true"])?;
    on_host("/bin/sh", &["-c", "true"])?;
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
