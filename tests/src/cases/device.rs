//! Block devices, opened by containers.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Lab, write};
use crate::container::{SECTORS, on_host};

/// The content of a disk of the host.
const CONTENT: &str = "/run/lab/disk";

/// A loop device that nobody uses.
fn spare_disk() -> Result<String> {
    Ok(on_host("/bin/busybox", ["losetup", "-f"])?.trim_end().to_owned())
}

/// Makes a disk on the host.
pub(super) fn with_disk(action: impl FnOnce(&str) -> Result<()>) -> Result<()> {
    fs::create_dir_all(Path::new(CONTENT).parent().unwrap_or(Path::new("/")))?;
    fs::write(CONTENT, vec![0; 1 << 20])?;
    let disk = spare_disk()?;
    on_host("/bin/busybox", ["losetup", &disk, CONTENT])?;
    let done = action(&disk);
    on_host("/bin/busybox", ["losetup", "-d", &disk])?;
    done
}

fn device_write(path: &str, identity: &Value) -> Value {
    let mut finding = write("entrypoint", "open_write", "lower", path, identity);
    finding["finding"] = json!("device_write");
    finding["severity"] = json!("critical");
    finding["file"]["layer"] = json!(null);
    finding
}

pub(super) fn block_device(lab: &mut Lab) -> Result<()> {
    let container = lab.privileged()?;
    with_disk(|disk| {
        container.service_does(&["make-loop", disk])?;
        let identity = container.service_does(&["write-device", disk])?;
        lab.expect(&container, [device_write(disk, &identity)])
    })
}

/// What is written to the device is written to the file by the kernel, which is in no container.
pub(super) fn loop_on_image_file(lab: &mut Lab) -> Result<()> {
    let (container, disk) = (lab.privileged()?, spare_disk()?);
    let device = container.service_does(&["make-loop", &disk])?;
    let file = container.service_does(&["loop", SECTORS, &disk])?;
    lab.expect(&container, [write("entrypoint", "open_write", "lower", SECTORS, &file), device_write(&disk, &device)])
}
