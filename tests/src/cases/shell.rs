//! Ways of starting a shell in a container.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::expectation::{difference, shell};
use super::lab::{Lab, write_on_host};
use crate::attack::NotApplicable;
use crate::container::Container;
use crate::init::{CGROUPS, cgroup};
use crate::program::{Running, on_host, wait_for};

const BUSYBOX: &str = "/bin/busybox";
/// A user of the host.
const LOGIN: u32 = 1234;

pub(super) fn entered(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    ensure!(container.exec(&["/bin/sh", "-c", "echo in"])? == "in\n");
    let mut finding = shell("entered", BUSYBOX, &["/bin/sh", "-c", "echo in"]);
    finding["container"] = json!({"runtime": "docker", "cgroup": container.cgroup});
    finding["process"]["tty"] = json!(null);
    finding["process"]["cwd"] = json!("/");
    lab.expect(&container, [finding])
}

pub(super) fn entered_with_tty(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    ensure!(container.exec_tty(&["/bin/sh", "-c", "test -t 0 && echo tty"])?.contains("tty"));
    let mut finding = shell("entered", BUSYBOX, &["/bin/sh", "-c", "test -t 0 && echo tty"]);
    finding["process"]["tty"] = json!("pts0");
    finding["process"]["stdio"] = json!(["tty", "tty", "tty"]);
    lab.expect(&container, [finding])
}

/// The runtime that has brought the shell in has ended when this changes a file.
pub(super) fn entered_detached(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    let script = format!("sleep 2; echo changed > {path}");
    container.exec_detached(&["/bin/sh", "-c", &script])?;
    let file = container.host_path(&path);
    wait_for("the change", Duration::from_secs(20), || Ok((fs::read(&file)? == b"changed\n").then_some(())))?;
    let write = json!({"finding": "image_write", "process": {"origin": "entered"}, "file": {"path": path}});
    let found = lab.expect_and_take(&container, [shell("entered", BUSYBOX, &["/bin/sh", "-c", &script]), write])?;
    for found in &found {
        let parent = &found["process"]["ancestors"][0];
        ensure!(parent["comm"] == "runc" && parent["in_container"] == false, "the parent is {parent}");
    }
    ensure!(
        found[1]["process"]["ancestors"][0] == found[0]["process"]["ancestors"][0],
        "the parents differ: {found:?}"
    );
    Ok(())
}

/// What has brought the shell in has created it in the container's cgroup, and ends before the shell changes a file.
pub(super) fn entered_by_birth(lab: &mut Lab) -> Result<()> {
    if cgroup("") != CGROUPS {
        return Err(NotApplicable("processes are born only in cgroups of version 2".to_owned()).into());
    }
    let (container, path) = (lab.container()?, lab.file()?);
    let script = format!("until [ -e /data/go ]; do sleep 1; done; echo changed > {path}");
    let enter = ["become", BUSYBOX, "nsenter", "-m", "-t", &container.pid.to_string(), "/bin/sh", "-c", &script];
    let mut parent = Command::new("/init");
    let parent = Running::start(parent.arg0("tool").args(["born", &cgroup(&container.cgroup)]).args(enter))?;
    let id = parent.id();
    lab.wait_for_line(|line| line["finding"] == "shell_in_container" && line["process"]["args"][2] == script)?;
    drop(parent);
    let go = container.host_path("/data/go");
    fs::write(&go, "")?;
    let file = container.host_path(&path);
    wait_for("the change", Duration::from_secs(20), || Ok((fs::read(&file)? == b"changed\n").then_some(())))?;
    fs::remove_file(go)?;
    let write = json!({"finding": "image_write", "process": {"origin": "entered"}, "file": {"path": path}});
    let args = ["/bin/sh", "-c", &script];
    for found in lab.expect_and_take(&container, [shell("entered", BUSYBOX, &args), write])? {
        let parent = &found["process"]["ancestors"][0];
        ensure!(parent["pid"] == id && parent["in_container"] == false, "the parent of {id} is {parent}");
    }
    Ok(())
}

/// A process that was started by one that entered from outside has also entered.
pub(super) fn entered_descendant(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    container.exec_tool(&["run", "/usr/bin/tool", "run", "/bin/sh", "-c", "true"])?;
    lab.expect(&container, [shell("entered", BUSYBOX, &["/bin/sh", "-c", "true"])])
}

/// This holds even if the first thread has ended.
pub(super) fn entered_without_leader(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    container.exec_tool(&["without-leader", "run", "/bin/sh", "-c", "true"])?;
    lab.expect(&container, [shell("entered", BUSYBOX, &["/bin/sh", "-c", "true"])])
}

/// A process that enters a pid namespace forks, because only its children are in it.
pub(super) fn entered_by_fork(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    let pid = container.pid.to_string();
    let entered = on_host("nsenter", ["-t", &pid, "--mount", "--pid", "/bin/sh", "-c", "echo $PPID"])?;
    ensure!(entered == "0\n", "the shell is not in the pid namespace: its parent is {entered}");
    lab.expect(&container, [shell("entered", BUSYBOX, &["/bin/sh", "-c", "echo $PPID"])])
}

/// A process that enters from a cgroup that the sensor has seen being created, and then creates a mount namespace, is
/// not a new container. After it has ended, the container's image is watched as before.
pub(super) fn entered_with_own_mounts(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    let session = cgroup("/session");
    fs::create_dir(&session)?;
    let script = format!("echo changed > {path}");
    let enter = format!(
        "echo $$ > {session}/cgroup.procs; exec nsenter -t {} -m /bin/busybox unshare -m /bin/sh -c '{script}'",
        container.pid
    );
    on_host(BUSYBOX, ["sh", "-c", &enter])?;
    fs::remove_dir(&session)?;
    let file = json!({"layer": "lower", "op": "truncate"});
    let write = |origin| json!({"finding": "image_write", "process": {"origin": origin}, "file": file});
    lab.expect(&container, [shell("entered", BUSYBOX, &["/bin/sh", "-c", &script]), write("entered")])?;
    let path = lab.file()?;
    write_on_host(&container.host_path(&path))?;
    lab.expect(&container, [write("outside")])
}

/// A process moves from a container to the host and takes the host's mount namespace, as a container that sees all
/// processes can.
pub(super) fn on_the_host(lab: &mut Lab) -> Result<()> {
    let container = lab.privileged()?;
    let mounts = fs::File::open("/proc/self/ns/mnt")?;
    container.receives(&mounts, |socket| {
        container.child_does(&["with-mounts", socket, "run", "/bin/sh", "-c", "test -x /init"]).map(drop)
    })?;
    let mut finding = shell("outside", BUSYBOX, &["/bin/sh", "-c", "test -x /init"]);
    finding["severity"] = json!("critical");
    finding["message"] =
        json!(format!("sh started on the host by container {} (with the host's mounts)", &container.id[..12]));
    lab.expect(&container, [finding])
}

pub(super) fn entrypoint(lab: &mut Lab) -> Result<()> {
    let container = Container::start(lab.number(), &["/bin/sh", "-c", "sleep 100"])?;
    let mut finding = shell("entrypoint", BUSYBOX, &["/bin/sh", "-c", "sleep 100"]);
    finding["process"]["ns_pid"] = json!(1);
    finding["process"]["pid"] = json!(container.pid);
    lab.expect(&container, [finding])
}

pub(super) fn application(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    container.service_does(&["run", "/bin/sh", "-c", "true"])?;
    let mut finding = shell("application", BUSYBOX, &["/bin/sh", "-c", "true"]);
    finding["process"]["ppid"] = json!(container.pid);
    finding["process"]["login_uid"] = json!(null);
    // It can do so like its parent, which has the same user and the same capabilities.
    finding["process"]["capabilities"] = json!(capabilities(container.pid)?);
    lab.expect(&container, [finding])
}

/// The effective capabilities of a process.
fn capabilities(pid: u32) -> Result<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).context("the process has none")?;
    Ok(effective.trim().to_owned())
}

/// The login user of a process stays known, even if it is another user in a container.
pub(super) fn of_a_login(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    let entering = format!("echo {LOGIN} > /proc/self/loginuid; exec runc exec {} /bin/sh -c true", container.id);
    on_host("/bin/busybox", ["sh", "-c", &entering])?;
    let mut finding = shell("entered", BUSYBOX, &["/bin/sh", "-c", "true"]);
    finding["process"]["login_uid"] = json!(LOGIN);
    lab.expect(&container, [finding])
}

/// Secrets in arguments are redacted, in later findings too.
pub(super) fn secret_in_arguments(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    let token = "--token=0123456789abcdef";
    container.service_does(&["run", "/bin/sh", "-c", &format!("echo {token} > {path}")])?;
    let args = ["/bin/sh", "-c", &format!("echo --token=[redacted] > {path}")];
    let shell = shell("application", BUSYBOX, &args);
    let write = json!({"finding": "image_write", "process": {"args": args}, "file": {"path": path}});
    lab.expect(&container, [shell, write])
}

pub(super) fn busybox_by_argument(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    container.service_does(&["run", BUSYBOX, "sh", "-c", "true"])?;
    container.service_does(&["run", "/bin/ash", "-c", "true"])?;
    lab.expect(
        &container,
        [
            shell("application", BUSYBOX, &[BUSYBOX, "sh", "-c", "true"]),
            shell("application", BUSYBOX, &["/bin/ash", "-c", "true"]),
        ],
    )
}

pub(super) fn login_shell(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    container.service_does(&["run-as", "-sh", BUSYBOX, "-c", "true"])?;
    lab.expect(&container, [shell("application", BUSYBOX, &["-sh", "-c", "true"])])
}

/// The name of the task and the first argument claim to be another program.
pub(super) fn disguised_name_and_arguments(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    container.service_does(&["run-as", "nginx: worker process/sh", "/usr/bin/worker", "-c", "true"])?;
    let mut finding = shell("application", BUSYBOX, &["nginx: worker process/sh", "-c", "true"]);
    finding["process"]["comm"] = json!("worker");
    lab.expect(&container, [finding])
}

/// The finding of a shell that takes its commands from a socket.
fn remote(peer: &Value) -> Value {
    let mut finding = shell("application", BUSYBOX, &["/bin/sh"]);
    finding["severity"] = json!("critical");
    finding["process"]["stdio"] = json!(["socket", "socket", "socket"]);
    finding["process"]["peer"] = peer.clone();
    finding
}

pub(super) fn socket_shell(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    container.service_does(&["socket-shell"])?;
    lab.expect(&container, [remote(&Value::Null)])
}

pub(super) fn reverse_shell(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    let peers =
        [container.service_does(&["reverse-shell", "127.0.0.1"])?, container.service_does(&["reverse-shell", "::1"])?];
    lab.expect(&container, peers.map(|peer| remote(&peer)))
}

pub(super) fn other_program(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    container.service_does(&["run", "/bin/ls", "/"])?;
    container.service_does(&["run", BUSYBOX, "echo", "sh"])?;
    container.exec(&["/bin/cat", "/etc/passwd"])?;
    lab.expect_none()
}

/// [`Sensor::take_lines`](crate::sensor::Sensor::take_lines) refuses lines with control characters.
pub(super) fn control_characters_in_arguments(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    let script = ": '\x1b[2J\x1b]0;owned\x07\r\n \u{7f}\u{9b}'";
    container.service_does(&["run", "/bin/sh", "-c", script])?;
    lab.expect(&container, [shell("application", BUSYBOX, &["/bin/sh", "-c", script])])
}

/// The container ends before its metadata can be queried.
pub(super) fn short_lived(lab: &mut Lab) -> Result<()> {
    let container = Container::start(lab.number(), &["/bin/sh", "-c", "sleep 0.05"])?;
    container.wait()?;
    lab.expect(&container, [shell("entrypoint", BUSYBOX, &["/bin/sh", "-c", "sleep 0.05"])])
}

/// No known runtime creates this cgroup, but the kernel shows that it is a container.
pub(super) fn plain_cgroup(lab: &mut Lab) -> Result<()> {
    let container = Container::start_in("lab", "/lab-plain", &["/bin/sh", "-c", "sleep 100"])?;
    let [found] = &lab.take_findings()?[..] else { anyhow::bail!("not one finding") };
    let mut expected = shell("entrypoint", BUSYBOX, &["/bin/sh", "-c", "sleep 100"]);
    expected["container"] = json!({"cgroup": "/lab-plain", "cgroup_id": container.cgroup_id, "runtime": null});
    difference(found, &expected).map_or(Ok(()), |difference| Err(anyhow::anyhow!(difference)))
}
