//! Block devices.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, FileType, Mode};
use serde_json::Value;

use super::{MARK, identity, raw, verify};

/// Major number of loop devices.
const LOOP: u32 = 7;

pub(super) fn perform(operation: &str, paths: &[&Path]) -> Option<Result<Value>> {
    Some(match (operation, paths) {
        ("make-loop", [path]) => make_loop(path),
        ("write-device", [path]) => write(path).and_then(|()| identity(path)),
        ("read-device", [path]) => read(path),
        ("loop", [file, device]) => through_loop(file, device),
        _ => return None,
    })
}

/// Makes a node of a loop device. Its last character is the device's number.
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

/// Makes a file the content of a device, and writes to that: a thread of the kernel then writes to the file.
fn through_loop(file: &Path, device: &Path) -> Result<Value> {
    let content = OpenOptions::new().read(true).write(true).open(file)?;
    // A device has whole sectors.
    ensure!(fs::metadata(file)?.len().is_multiple_of(512), "{} has no fitting length", file.display());
    let node = OpenOptions::new().read(true).write(true).open(device)?;
    raw::attach_loop(&node, &content).context("the file cannot be attached")?;
    let written = write(device);
    raw::detach_loop(&node)?;
    written?;
    verify(file)
}
