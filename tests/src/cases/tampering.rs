//! Attacks on the sensor by privileged processes of containers and of the host.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use super::expectation::{compare, write};
use super::lab::Lab;
use crate::attack;

/// The switch of all kprobes, and that of ftrace: the type of the file system, the path in it, and where it is mounted.
const KPROBES: [&str; 3] = ["debugfs", "kprobes/enabled", "/sys/kernel/debug"];
const FTRACE: [&str; 3] = ["proc", "sys/kernel/ftrace_enabled", "/proc"];

/// The expected finding of a switch that was opened by the process with this executable.
fn switched(path: &str, origin: &str, exe: &str) -> Value {
    json!({
        "finding": "sensor_tampering",
        "severity": "critical",
        "process": {"origin": origin, "exe": exe, "uid": 0},
        "file": {"path": path, "op": null, "layer": null},
        "mitre": ["T1562.001"],
    })
}

pub(super) fn kprobes_switched(lab: &mut Lab) -> Result<()> {
    switch_by_host(lab, KPROBES)?;
    switch_by_container(lab, KPROBES)
}

pub(super) fn ftrace_switched(lab: &mut Lab) -> Result<()> {
    switch_by_host(lab, FTRACE)?;
    switch_by_container(lab, FTRACE)
}

/// Checks that a switch has this value. Kernels can refuse to switch ftrace off while programs are attached that need
/// it. They do not refuse to switch kprobes off.
fn verify(path: &str, value: &str, answer: &str) -> Result<()> {
    let now = fs::read_to_string(path)?;
    let is_refused = path.ends_with(FTRACE[1]) && now.trim_end() == "1";
    ensure!(is_refused || now.trim_end() == value, "{path} is {now:?}, not {value}: {answer}");
    Ok(())
}

/// Expects that probes were seen to be switched off. That they were switched on again is seen only if the probe of
/// opens does not depend on the switch.
fn seen(lab: &mut Lab, container: &Value, expected: &Value) -> Result<()> {
    let found = lab.take_findings()?;
    ensure!((1..=2).contains(&found.len()), "{} findings came", found.len());
    compare(&found, container, &vec![expected.clone(); found.len()])
}

/// Switches probes off and on from the host.
fn switch_by_host(lab: &mut Lab, [_, path, at]: [&str; 3]) -> Result<()> {
    let path = format!("{at}/{path}");
    let inode = fs::metadata(&path)?.ino();
    for value in ["0", "1"] {
        let written = OpenOptions::new().write(true).open(&path)?.write_all(value.as_bytes());
        verify(&path, value, &format!("{written:?}"))?;
    }
    let mut expected = switched(&path, "outside", "/init");
    expected["file"]["inode"] = json!(inode);
    seen(lab, &Value::Null, &expected)
}

/// Switches probes off and on from a container, which mounts the file system.
fn switch_by_container(lab: &mut Lab, [kind, path, at]: [&str; 3]) -> Result<()> {
    let container = lab.privileged()?;
    for value in ["0", "1"] {
        let answer = container.service_does(&["control", kind, path, value])?;
        verify(&format!("{at}/{path}"), value, &answer.to_string())?;
    }
    seen(lab, &container.identity(), &switched(&format!("{at}/{path}"), "entrypoint", "/usr/bin/tool"))
}

/// The expected finding of a map that was changed by the process with this executable.
fn changed(origin: &str, exe: &str) -> Value {
    json!({
        "finding": "sensor_tampering",
        "severity": "critical",
        "process": {"origin": origin, "exe": exe, "uid": 0},
        "file": null,
        "mitre": ["T1562.001"],
    })
}

/// A process is reported once for each map and command. The sensor fills its maps again, and sees everything then.
pub(super) fn maps_changed(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.privileged()?, lab.file()?);
    container.service_does(&["rewrite-map", "CGROUPS"])?;
    container.service_does(&["rewrite-map", "CGROUPS"])?;
    lab.wait_for_notice("healed")?;
    lab.expect(&container, [changed("entrypoint", "/usr/bin/tool")])?;

    for map in ["REPORTERS", "ROOTS", "CGROUPS"] {
        attack::empty_map(map.as_ref())?;
    }
    lab.wait_for_notice("healed")?;
    let identity = container.service_does(&["append", &path])?;
    let found = lab.take_findings()?;
    let (deletions, [appended]) = found.split_at(found.len().saturating_sub(1)) else { bail!("nothing was found") };
    compare(deletions, &Value::Null, &[(); 3].map(|()| changed("outside", "/init")))?;
    let expected = write("entrypoint", "open_write", "lower", &path, &identity);
    compare(std::slice::from_ref(appended), &container.identity(), &[expected])
}

/// The kernel detaches no link of the sensor.
pub(super) fn links_detached(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.privileged()?, lab.file()?);
    container.service_does(&["detach-links"])?;
    let identity = container.service_does(&["append", &path])?;
    lab.expect(&container, [write("entrypoint", "open_write", "lower", &path, &identity)])
}

/// Tools list and read all maps.
pub(super) fn maps_read(lab: &mut Lab) -> Result<()> {
    let container = lab.privileged()?;
    container.service_does(&["read-maps"])?;
    attack::read_maps()?;
    lab.expect_none()
}
