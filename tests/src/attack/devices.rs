//! Writes through block devices.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, FileType, Mode};
use serde_json::Value;

use super::effect::{identity, verify};
use super::operation::Operation;
use super::raw;
use crate::image::MARK;

/// The major number of loop devices.
const LOOP: u32 = 7;

/// The operations of this module.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation::on("make-loop", "makes a node of the loop device whose number its name ends with", make_loop),
    Operation::on("write-device", "writes to a device", |path| {
        write(path)?;
        identity(path)
    }),
    Operation::on("read-device", "reads from a device", read),
    Operation::on_two("loop", "FILE DEVICE", "writes to a file through a loop device", through_loop),
];

fn make_loop(path: &Path) -> Result<Value> {
    let number = path.to_str().and_then(|path| path.chars().last()?.to_digit(10)).context("the path has no number")?;
    let device = rustix::fs::makedev(LOOP, number);
    rustix::fs::mknodat(CWD, path, FileType::BlockDevice, Mode::RUSR | Mode::WUSR, device)?;
    identity(path)
}

fn write(device: &Path) -> Result<()> {
    let file = OpenOptions::new().write(true).open(device)?;
    file.write_all_at(MARK, 0)?;
    file.sync_all()?;
    let mut content = vec![0; MARK.len()];
    File::open(device)?.read_exact(&mut content)?;
    ensure!(content == MARK, "{} was not written", device.display());
    Ok(())
}

fn read(device: &Path) -> Result<Value> {
    File::open(device)?.read_exact(&mut [0; 512])?;
    Ok(Value::Null)
}

/// Attaches a file to a loop device and writes to the device, so that a kernel thread writes to the file.
fn through_loop(file: &Path, device: &Path) -> Result<Value> {
    let content = OpenOptions::new().read(true).write(true).open(file)?;
    // The size of a device is a multiple of a sector.
    ensure!(fs::metadata(file)?.len().is_multiple_of(512), "the size of {} is not a multiple of 512", file.display());
    let node = OpenOptions::new().read(true).write(true).open(device)?;
    raw::attach_loop(&node, &content).context("the file cannot be attached")?;
    let written = write(device);
    raw::detach_loop(&node)?;
    written?;
    verify(file)
}
