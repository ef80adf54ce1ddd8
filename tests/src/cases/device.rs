//! Block devices, opened by containers.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Lab, write};
use crate::container::{SECTORS, on_host};

/// The content of a disk of the host, and the disk.
const DISK: (&str, &str) = ("/run/lab/disk", "/dev/loop0");
/// A disk that nobody uses.
const SPARE: &str = "/dev/loop1";

/// Makes a disk on the host.
pub(super) fn with_disk(action: impl FnOnce() -> Result<()>) -> Result<()> {
    let (content, disk) = DISK;
    fs::create_dir_all(Path::new(content).parent().unwrap_or(Path::new("/")))?;
    fs::write(content, vec![0; 1 << 20])?;
    on_host("/bin/busybox", ["losetup", disk, content])?;
    let done = action();
    on_host("/bin/busybox", ["losetup", "-d", disk])?;
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
    let (container, disk) = (lab.privileged()?, "/dev/disk0");
    container.service_does(&["make-loop", disk])?;
    with_disk(|| {
        let identity = container.service_does(&["write-device", disk])?;
        lab.expect(&container, [device_write(disk, &identity)])
    })
}

/// What is written to the device is written to the file by the kernel, which is in no container.
pub(super) fn loop_on_image_file(lab: &mut Lab) -> Result<()> {
    let container = lab.privileged()?;
    let device = container.service_does(&["make-loop", SPARE])?;
    let file = container.service_does(&["loop", SECTORS, SPARE])?;
    lab.expect(&container, [write("entrypoint", "open_write", "lower", SECTORS, &file), device_write(SPARE, &device)])
}
