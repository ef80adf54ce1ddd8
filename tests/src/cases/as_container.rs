//! The container image of the detector: loaded and run by engines, as README.md says.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;

use anyhow::{Context, Result, ensure};

use super::lab::Lab;
use super::package::{LOG, shell_and_write};
use crate::engine::{CRI, DOCKER, Engine, PODMAN};
use crate::program::on_host;

/// The directory of the initramfs with the archive.
const PACKAGES: &str = "/packages";

/// The directories of the daemon's findings and of its ledger.
const FOLDERS: [&str; 2] = ["/var/log/detector", "/var/lib/detector"];

/// The commands with which README.md loads and starts the image, and waits until the daemon watches. The program can
/// also be `podman`.
const COMMANDS: [&str; 3] = [
    "docker load --input detector-0.1.0-image.tar",
    "docker run --detach --name detector --restart always \
     --read-only --pid host --cgroupns host --uts host --network none \
     --cap-drop ALL --cap-add SYS_ADMIN --cap-add SYS_PTRACE --cap-add DAC_READ_SEARCH --cap-add DAC_OVERRIDE \
     --cap-add MKNOD --cap-add SYS_CHROOT --cap-add SYS_NICE \
     --security-opt apparmor=unconfined --security-opt seccomp=unconfined \
     --volume /run:/run --volume /sys/fs/cgroup:/sys/fs/cgroup --volume /var/log/detector:/var/log/detector \
     --volume /var/lib/detector:/var/lib/detector \
     localhost/detector:0.1.0 run --json /var/log/detector/findings.jsonl",
    "docker run --rm --network none --volume /run/detector:/run/detector localhost/detector:0.1.0 status --wait 120s",
];

/// The same with containerd's own client.
const WITH_CONTAINERD: [&str; 3] = [
    "ctr images import detector-0.1.0-image.tar",
    "ctr run --detach --read-only --with-ns pid:/proc/1/ns/pid --with-ns cgroup:/proc/1/ns/cgroup \
     --with-ns uts:/proc/1/ns/uts --cap-add CAP_SYS_ADMIN --cap-add CAP_SYS_PTRACE --cap-add CAP_DAC_READ_SEARCH \
     --cap-add CAP_SYS_NICE --mount type=bind,src=/run,dst=/run,options=rbind:rw \
     --mount type=bind,src=/sys/fs/cgroup,dst=/sys/fs/cgroup,options=rbind:rw \
     --mount type=bind,src=/var/log/detector,dst=/var/log/detector,options=rbind:rw \
     --mount type=bind,src=/var/lib/detector,dst=/var/lib/detector,options=rbind:rw \
     localhost/detector:0.1.0 detector /usr/bin/detector run --json /var/log/detector/findings.jsonl",
    "detector status --wait 120s",
];

pub(super) fn docker(lab: &mut Lab) -> Result<()> {
    watch(lab, &DOCKER, &COMMANDS, "docker rm --force detector")
}

pub(super) fn podman(lab: &mut Lab) -> Result<()> {
    let commands = COMMANDS.map(|command| command.replacen("docker", "podman", 1));
    watch(lab, &PODMAN, &commands.each_ref().map(String::as_str), "podman rm --force detector")
}

pub(super) fn containerd(lab: &mut Lab) -> Result<()> {
    watch(lab, &CRI, &WITH_CONTAINERD, "ctr tasks delete --force detector")
}

/// Runs the detector in a container of this engine. It sees what another container does, and finds nothing in its own.
fn watch(lab: &mut Lab, engine: &Engine, commands: &[&str; 3], end: &str) -> Result<()> {
    lab.node.ensure(engine)?;
    lab.without_sensor(|lab| {
        for folder in FOLDERS {
            if fs::exists(folder)? {
                fs::remove_dir_all(folder)?;
            }
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let run = |command: &str| on_host("sh", ["-c", &format!("cd {PACKAGES} && {command}")]);
        let [load, start, wait] = commands;
        run(load)?;
        run(start)?;
        let watched = run(wait).and_then(|said| {
            ensure!(said.starts_with("watching: all hooks proven, "), "{said}{:?}", run("detector status --hooks"));
            expect_findings(lab)
        });
        let said = fs::read_to_string(LOG).unwrap_or_default();
        run(end)?;
        watched.with_context(|| format!("its log is {said}"))
    })
}

/// Expects what is done in a container in the log, and no finding about another one.
fn expect_findings(lab: &mut Lab) -> Result<()> {
    let (_, mut others) = shell_and_write(lab)?;
    others.retain(|line| line["finding"].is_string());
    ensure!(others.is_empty(), "it has found these, too: {others:#?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::COMMANDS;

    #[test]
    fn readme_has_the_commands() {
        let readme = include_str!("../../../README.md").replace('\\', " ");
        let readme = readme.split_whitespace().collect::<Vec<_>>().join(" ");
        for command in COMMANDS {
            assert!(readme.contains(command), "{command}");
        }
    }
}
