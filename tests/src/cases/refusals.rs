//! Hosts that the sensor does not support, and invalid arguments. No sensor runs in the meantime.

use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use anyhow::{Result, ensure};
use rustix::mount::{UnmountFlags, unmount};

use super::lab::Lab;
use crate::init::{CGROUPS, mount_cgroups};
use crate::program::finish;
use crate::sensor::{DETECTOR, detector};

pub(super) fn no_privilege(_: &mut Lab) -> Result<()> {
    let output = finish(Command::new(DETECTOR).args(["run", "--json", "-"]).uid(65534).gid(65534))?;
    refused(&output, &["root", "CAP_BPF"])
}

pub(super) fn unwritable_output(_: &mut Lab) -> Result<()> {
    refused(&detector(&["run", "--json", "/proc/nowhere/findings.jsonl"])?, &["/proc/nowhere/findings.jsonl"])
}

pub(super) fn no_cgroups(_: &mut Lab) -> Result<()> {
    unmount(CGROUPS, UnmountFlags::DETACH)?;
    let output = detector(&["run", "--json", "-"]);
    mount_cgroups()?;
    refused(&output?, &["cgroup"])
}

/// Checks that the program ended with a documented exit code and one line that contains one of these words.
fn refused(output: &Output, words: &[&str]) -> Result<()> {
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code().is_some_and(|code| code != 0), "it ended with {}: {message}", output.status);
    ensure!(words.iter().any(|word| message.contains(word)), "none of {words:?} is in its message: {message:?}");
    Ok(())
}
