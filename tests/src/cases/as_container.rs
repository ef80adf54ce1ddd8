//! The container image of the detector: loaded and run by engines, as README.md says.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::lab::Lab;
use crate::container::Container;
use crate::engine::{DOCKER, Engine, PODMAN};
use crate::program::{on_host, wait_for};
use crate::sensor::detector;

/// The directory of the initramfs with the archive.
const PACKAGES: &str = "/packages";

/// The directory and the file of the daemon's findings.
const FOLDER: &str = "/var/log/detector";
const LOG: &str = "/var/log/detector/findings.jsonl";

/// How long the daemon may take to watch, on an emulated machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The commands with which README.md loads and starts the image. The program is `docker` or `podman`.
pub(crate) const COMMANDS: &[&str] = &[
    "docker load --input detector-0.1.0-image.tar",
    "docker run --detach --name detector --read-only --pid host --cgroupns host --uts host --network none \
     --cap-drop ALL --cap-add SYS_ADMIN --cap-add SYS_PTRACE --cap-add DAC_READ_SEARCH --cap-add DAC_OVERRIDE \
     --cap-add MKNOD --cap-add SYS_CHROOT --cap-add SYS_NICE \
     --security-opt apparmor=unconfined --security-opt seccomp=unconfined \
     --volume /run:/run --volume /sys/fs/cgroup:/sys/fs/cgroup --volume /var/log/detector:/var/log/detector \
     localhost/detector:0.1.0 run --json /var/log/detector/findings.jsonl",
];

pub(super) fn docker(lab: &mut Lab) -> Result<()> {
    watch(lab, &DOCKER, "docker")
}

pub(super) fn podman(lab: &mut Lab) -> Result<()> {
    watch(lab, &PODMAN, "podman")
}

/// Runs the detector in a container of this engine. It sees what another container does, and nothing of its own.
fn watch(lab: &mut Lab, engine: &'static Engine, program: &str) -> Result<()> {
    lab.node.ensure(engine)?;
    lab.without_sensor(|lab| {
        fs::create_dir_all(FOLDER)?;
        for command in COMMANDS {
            let command = command.replacen("docker", program, 1);
            on_host("sh", ["-c", &format!("cd {PACKAGES} && {command}")])?;
        }
        let logs = || on_host(program, ["logs", "detector"]).unwrap_or_else(|error| format!("{error:#}"));
        let watched = expect_findings(lab).with_context(logs);
        on_host(program, ["rm", "--force", "detector"])?;
        watched
    })
}

fn expect_findings(lab: &mut Lab) -> Result<()> {
    let waited = detector(&["status", "--wait", "120s"])?;
    let said = String::from_utf8(waited.stdout)?;
    let hooks = on_host("detector", ["status", "--hooks"]);
    ensure!(
        said.starts_with("watching: all hooks proven, "),
        "{said}{}{hooks:?}",
        String::from_utf8_lossy(&waited.stderr)
    );
    let (container, path) = (Container::service(lab.number())?, lab.file()?);
    container.exec(&["/bin/sh", "-c", "true"])?;
    container.service_does(&["append", &path])?;
    let lines = wait_for("a shell and a write in the log", PATIENCE, || {
        let text = fs::read_to_string(LOG)?;
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let has = |finding: &str, path: &str| {
            lines.iter().any(|line| {
                line["finding"] == finding && line["file"]["path"] == path && line["container"]["id"] == *container.id
            })
        };
        Ok((has("shell_in_container", "/bin/busybox") && has("image_write", &path)).then_some(lines))
    })?;
    let own: Vec<_> =
        lines.iter().filter(|line| line["finding"].is_string() && line["container"]["id"] != *container.id).collect();
    ensure!(own.is_empty(), "the detector has found these: {own:#?}");
    ensure!(Path::new(LOG).exists());
    Ok(())
}
