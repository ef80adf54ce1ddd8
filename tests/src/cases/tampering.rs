//! Attacks on the sensor by privileged processes of containers and of the host.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::expectation::{compare, write};
use super::lab::{Lab, prepare};
use super::noticed::Act;
use crate::attack;
use crate::container::{Container, Setup};
use crate::program::{on_host, wait_for};

/// How long it can take to fill the maps again.
const PATIENCE: Duration = Duration::from_secs(60);

/// The switch of all kprobes, and that of ftrace: the type of the file system, the path in it, and where it is mounted.
const KPROBES: [&str; 3] = ["debugfs", "kprobes/enabled", "/sys/kernel/debug"];
const FTRACE: [&str; 3] = ["proc", "sys/kernel/ftrace_enabled", "/proc"];

fn is_tampering(line: &Value) -> bool {
    line["finding"] == "sensor_tampering"
}

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
    switch_by_container(lab, KPROBES, "`kprobes/enabled` opened for writing")
}

pub(super) fn ftrace_switched(lab: &mut Lab) -> Result<()> {
    switch_by_host(lab, FTRACE)?;
    switch_by_container(lab, FTRACE, "`kernel.ftrace_enabled` opened for writing")
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
fn switch_by_container(lab: &mut Lab, [kind, path, at]: [&str; 3], act: &'static str) -> Result<()> {
    let container = lab.privileged()?;
    let mut act = Act::begin(act)?;
    for value in ["0", "1"] {
        let answer = container.service_does(&["control", kind, path, value])?;
        if value == "0" {
            act.noticed(&lab.wait_for_line(is_tampering)?);
        }
        verify(&format!("{at}/{path}"), value, &answer.to_string())?;
    }
    act.end()?;
    seen(lab, &container.identity(), &switched(&format!("{at}/{path}"), "entrypoint", "/usr/bin/tool"))
}

fn is_healed(line: &Value) -> bool {
    line["event"] == "healed"
}

/// The expected finding of a map that was changed, or of an act on the sensor's process, by the process with this
/// executable.
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
    let mut act = Act::begin("an entry of a map changed with bpf(2)")?;
    container.service_does(&["rewrite-map", "CGROUPS"])?;
    act.noticed(&lab.wait_for_line(is_tampering)?);
    container.service_does(&["rewrite-map", "CGROUPS"])?;
    act.noticed(&lab.wait_for_line(is_healed)?);
    act.end()?;
    lab.expect(&container, [changed("entrypoint", "/usr/bin/tool")])?;

    let mut act = Act::begin("all entries of maps deleted with bpf(2)")?;
    for map in ["MNT_NS", "ROOTS", "CGROUPS"] {
        attack::empty_map(map.as_ref())?;
    }
    act.noticed(&lab.wait_for_line(is_tampering)?);
    act.noticed(&lab.wait_for_line(is_healed)?);
    act.end()?;
    let identity = container.service_does(&["append", &path])?;
    let found = lab.take_findings()?;
    let (deletions, [appended]) = found.split_at(found.len().saturating_sub(1)) else { bail!("nothing was found") };
    compare(deletions, &Value::Null, &[(); 3].map(|()| changed("outside", "/init")))?;
    let expected = write("entrypoint", "open_write", "lower", &path, &identity);
    compare(std::slice::from_ref(appended), &container.identity(), &[expected])?;
    // What the next cases find must not depend on a filling.
    let last = deletions.last().and_then(|deletion| deletion["time"].as_str()).unwrap_or_default();
    wait_for("the end of the last deletion", PATIENCE, || {
        lab.take_findings()?;
        Ok(lab.history.iter().any(|line| is_healed(line) && line["time"].as_str() > Some(last)).then_some(()))
    })
}

/// While the sensor fills its maps again, a container is being prepared in a cgroup whose name tells nothing.
pub(super) fn maps_changed_during_preparation(lab: &mut Lab) -> Result<()> {
    /// The cgroup.
    const CGROUP: &str = "/prepared";
    let (attacker, preparing) = (lab.privileged()?, prepare(CGROUP)?);
    attacker.child_does(&["rewrite-map", "CGROUPS"])?;
    lab.wait_for_line(is_healed)?;
    lab.expect(&attacker, [changed("application", "/usr/bin/tool")])?;
    drop(preparing);
    let (container, path) = (Container::service_in(lab.number(), CGROUP)?, lab.file()?);
    let identity = container.service_does(&["append", &path])?;
    let expected = write("entrypoint", "open_write", "lower", &path, &identity);
    compare(&lab.take_findings()?, &json!({"cgroup_id": container.cgroup_id}), &[expected])
}

/// Maps that the sensor only fills at its start are read-only from then on.
pub(super) fn maps_frozen(lab: &mut Lab) -> Result<()> {
    let container = lab.privileged()?;
    let mut act = Act::begin("entries of a read-only map deleted with bpf(2)")?;
    container.child_does(&["fail-to-empty-map", "REPORTERS"])?;
    container.child_does(&["fail-to-empty-map", "OWN_MAPS"])?;
    act.noticed(&lab.wait_for_line(is_tampering)?);
    act.end()?;
    lab.expect(&container, [(); 2].map(|()| changed("application", "/usr/bin/tool")))
}

/// The kernel detaches no link of the sensor.
pub(super) fn links_detached(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.privileged()?, lab.file()?);
    let act = Act::begin("links detached with bpf(2)")?;
    container.service_does(&["detach-links"])?;
    act.end_without("the kernel refuses it")?;
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

/// A privileged container that sees the processes of the host.
fn beside_the_host(lab: &mut Lab) -> Result<Container> {
    Container::service_with(lab.number(), Setup { is_privileged: true, sees_processes: true, ..Setup::default() })
}

/// Processes of a container write to the sensor's memory, and take one of its descriptors.
pub(super) fn traced(lab: &mut Lab) -> Result<()> {
    let (container, sensor) = (beside_the_host(lab)?, lab.sensor()?.id().to_string());
    for (act, operation) in [
        ("memory written with ptrace(2)", &["rewrite-memory", "ptrace", &sensor][..]),
        ("memory written with process_vm_writev(2)", &["rewrite-memory", "process_vm_writev", &sensor]),
        ("memory written through `/proc/PID/mem`", &["rewrite-memory", "mem", &sensor]),
        ("a descriptor taken with pidfd_getfd(2)", &["take-descriptor", &sensor]),
    ] {
        let mut act = Act::begin(act)?;
        container.child_does(operation)?;
        act.noticed(&lab.wait_for_line(is_tampering)?);
        act.end()?;
        lab.expect(&container, [changed("application", "/usr/bin/tool")])?;
    }
    Ok(())
}

/// A process of a container stops the sensor. It tells so when it goes on, and reports what happened meanwhile.
pub(super) fn stopped(lab: &mut Lab) -> Result<()> {
    /// Longer than the sensor may be late on a busy machine.
    const PAUSE: Duration = Duration::from_secs(7);
    let (container, path) = (beside_the_host(lab)?, lab.file()?);
    let sensor = lab.sensor()?.id().to_string();
    container.child_does(&["signal", &sensor, "19"])?;
    let identity = container.service_does(&["append", &path])?;
    sleep(PAUSE);
    lab.sensor()?.signal(Signal::CONT)?;
    let mut act = Act::begin("stopped with SIGSTOP, and continued 7 s later")?;
    let paused = lab.wait_for_line(|line| line["event"] == "paused")?;
    act.noticed(&paused);
    let found = lab.take_findings()?;
    let expected =
        [changed("application", "/usr/bin/tool"), write("entrypoint", "open_write", "lower", &path, &identity)];
    compare(&found, &container.identity(), &expected)?;
    act.noticed(&found[0]);
    act.end()?;
    let times = ["from", "until"].map(|end| paused["detail"][end].as_str().unwrap_or_default().to_owned());
    ensure!(times[0] < times[1] && !times[0].is_empty(), "the pause lasts from {} to {}", times[0], times[1]);
    Ok(())
}

/// Signals that do nothing, and what tools ask about all processes.
pub(super) fn looked_at(lab: &mut Lab) -> Result<()> {
    let (container, sensor) = (beside_the_host(lab)?, lab.sensor()?.id());
    container.child_does(&["look-at-process", &sensor.to_string()])?;
    on_host("/bin/busybox", ["kill", "-0", &sensor.to_string()])?;
    on_host("/bin/busybox", ["kill", "-USR2", &sensor.to_string()])?;
    lab.expect_none()
}
