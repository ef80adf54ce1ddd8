//! Hosts that the sensor does not support, and invalid arguments. No sensor runs in the meantime.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use anyhow::{Result, ensure};
use rustix::mount::{UnmountFlags, unmount};

use super::lab::Lab;
use crate::attack::NotApplicable;
use crate::init::{CGROUPS, mount_at, mount_cgroups};
use crate::program::finish;
use crate::sensor::{DETECTOR, detector};

pub(super) fn no_privilege(_: &mut Lab) -> Result<()> {
    let output = finish(Command::new(DETECTOR).args(["run", "--json", "-"]).uid(65534).gid(65534))?;
    refused(&output, 3, &["root", "CAP_BPF"])
}

pub(super) fn unwritable_output(_: &mut Lab) -> Result<()> {
    refused(&detector(&["run", "--json", "/proc/nowhere/findings.jsonl"])?, 1, &["/proc/nowhere/findings.jsonl"])
}

pub(super) fn no_cgroups(_: &mut Lab) -> Result<()> {
    unmount(CGROUPS, UnmountFlags::DETACH)?;
    let output = detector(&["run", "--json", "-"]);
    mount_cgroups()?;
    refused(&output?, 4, &["cgroup"])
}

pub(super) fn few_descriptors(_: &mut Lab) -> Result<()> {
    let limited = "ulimit -n 100; exec \"$@\"";
    let output =
        finish(Command::new("/bin/busybox").args(["sh", "-c", limited, "sh", DETECTOR, "run", "--json", "-"]))?;
    refused(&output, 4, &["ulimit -n"])
}

/// This is the last case on a machine, because a lockdown cannot be ended.
pub(super) fn lockdown(_: &mut Lab) -> Result<()> {
    const FOLDER: &str = "/run/lab/security";
    mount_at("securityfs", FOLDER, "")?;
    if fs::write(format!("{FOLDER}/lockdown"), "confidentiality").is_err() {
        return Err(NotApplicable("this kernel has no lockdown".to_owned()).into());
    }
    refused(&detector(&["run", "--json", "-"])?, 4, &["locked down"])
}

/// Checks that the program ended with this exit code and a message that contains one of these words.
fn refused(output: &Output, code: i32, words: &[&str]) -> Result<()> {
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(code), "it ended with {}: {message}", output.status);
    ensure!(words.iter().any(|word| message.contains(word)), "none of {words:?} is in its message: {message:?}");
    Ok(())
}
