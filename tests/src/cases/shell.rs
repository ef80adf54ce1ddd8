//! Every way of starting a shell in a container.

use anyhow::{Result, ensure};
use serde_json::json;

use super::{Lab, shell};
use crate::container::Container;

const BUSYBOX: &str = "/bin/busybox";

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

/// What is started by something that was brought in, was brought in.
pub(super) fn entered_descendant(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    container.exec_tool(&["run", "/usr/bin/tool", "run", "/bin/sh", "-c", "true"])?;
    lab.expect(&container, [shell("entered", BUSYBOX, &["/bin/sh", "-c", "true"])])
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
    lab.expect(&container, [finding])
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

/// To whoever looks at the name of the task or the beginning of the arguments, it is something else.
pub(super) fn disguised_name_and_arguments(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    container.service_does(&["run-as", "nginx: worker process/sh", "/usr/bin/worker", "-c", "true"])?;
    let mut finding = shell("application", BUSYBOX, &["nginx: worker process/sh", "-c", "true"]);
    finding["process"]["comm"] = json!("worker");
    lab.expect(&container, [finding])
}

pub(super) fn reverse_shell(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    container.service_does(&["reverse-shell"])?;
    let mut finding = shell("application", BUSYBOX, &["/bin/sh"]);
    finding["process"]["stdio"] = json!(["socket", "socket", "socket"]);
    lab.expect(&container, [finding])
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

/// The container is gone before anyone could look it up.
pub(super) fn short_lived(lab: &mut Lab) -> Result<()> {
    let container = Container::start(lab.number(), &["/bin/sh", "-c", "sleep 0.05"])?;
    container.wait()?;
    lab.expect(&container, [shell("entrypoint", BUSYBOX, &["/bin/sh", "-c", "sleep 0.05"])])
}

/// A cgroup that no known runtime makes: still a container, for the kernel knows.
pub(super) fn plain_cgroup(lab: &mut Lab) -> Result<()> {
    let container = Container::start_in("lab", "/lab-plain", &["/bin/sh", "-c", "sleep 100"])?;
    let [found] = &lab.take_findings()?[..] else { anyhow::bail!("not one finding") };
    let mut expected = shell("entrypoint", BUSYBOX, &["/bin/sh", "-c", "sleep 100"]);
    expected["container"] = json!({"cgroup": "/lab-plain", "cgroup_id": container.cgroup_id, "runtime": null});
    super::difference(found, &expected).map_or(Ok(()), |difference| Err(anyhow::anyhow!(difference)))
}
