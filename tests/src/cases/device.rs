//! Block devices that containers open.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::expectation::write;
use super::lab::Lab;
use crate::image::SECTORS;
use crate::program::on_host;

/// The content of a disk of the host.
const CONTENT: &str = "/run/lab/disk";

/// A loop device that nothing else uses.
fn spare_disk() -> Result<String> {
    Ok(on_host("/bin/busybox", ["losetup", "-f"])?.trim_end().to_owned())
}

/// A name for a disk in a container. Each case has its own, because a device is reported only once. It ends with the
/// number of the disk.
pub(super) fn node(name: &str, disk: &str) -> String {
    format!("/dev/{name}{}", disk.trim_start_matches(|character: char| !character.is_ascii_digit()))
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
    // The kind of the finding tells the operation.
    finding["file"]["op"] = json!(null);
    finding["file"]["layer"] = json!(null);
    finding
}

pub(super) fn block_device(lab: &mut Lab) -> Result<()> {
    let container = lab.privileged()?;
    with_disk(|disk| {
        let node = node("written", disk);
        container.service_does(&["make-loop", &node])?;
        let identity = container.service_does(&["write-device", &node])?;
        lab.expect(&container, [device_write(&node, &identity)])
    })
}

/// A kernel thread, which is in no container, writes the data of the device to the file.
pub(super) fn loop_on_image_file(lab: &mut Lab) -> Result<()> {
    let (container, node) = (lab.privileged()?, node("attached", &spare_disk()?));
    let device = container.service_does(&["make-loop", &node])?;
    let file = container.service_does(&["loop", SECTORS, &node])?;
    lab.expect(&container, [write("entrypoint", "open_write", "lower", SECTORS, &file), device_write(&node, &device)])
}
