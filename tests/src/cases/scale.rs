//! More containers than a node should have.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::mount::{UnmountFlags, unmount};
use serde_json::{Value, json};

use super::lab::Lab;
use crate::attack::flooding_shell;
use crate::image::IMAGE;
use crate::init::{cgroup, mount_at};
use crate::program::{finish, wait_for};

/// The number of containers that run at the same time.
const CONTAINERS: usize = 1000;
/// The maximum memory of the sensor, in KiB.
const MEMORY: u64 = 128 << 10;
/// The number of writers of the flood.
const WRITERS: usize = 4;
/// The number of files of each writer.
const FILES: usize = 12_500;
/// The number of writes to each file.
const WRITES: usize = 20;
/// The number of programs of each thread.
const PROGRAMS: usize = 2_500;
/// The directory of the containers' roots.
const FOLDER: &str = "/run/lab/many";
/// The actions of each container: a shell and a change.
const SCRIPT: &str = "echo many > /etc/app.conf; exec sleep 1000";

/// A container made without a runtime, which is fast enough for a thousand of them: a cgroup, a mount namespace, and an
/// overlay as the root.
struct Small {
    id: String,
    process: Child,
}

impl Small {
    fn start(number: usize) -> Result<Self> {
        let id = format!("{number:064x}");
        let folder = format!("{FOLDER}/{number}");
        for name in ["upper", "work"] {
            fs::create_dir_all(format!("{folder}/{name}"))?;
        }
        let root = format!("{folder}/root");
        mount_at("overlay", &root, &format!("lowerdir={IMAGE},upperdir={folder}/upper,workdir={folder}/work"))?;
        let group = cgroup(&format!("/many/{id}"));
        fs::create_dir_all(&group)?;
        let enter = format!("echo $$ > {group}/cgroup.procs; exec unshare -m chroot {root} /bin/sh -c '{SCRIPT}'");
        let process = Command::new("/bin/busybox")
            .args(["sh", "-c", &enter])
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start a container")?;
        Ok(Self { id, process })
    }

    /// Whether it has completed its actions.
    fn is_done(&self) -> Result<bool> {
        Ok(fs::read(format!("/proc/{}/cmdline", self.process.id()))?.starts_with(b"sleep\0"))
    }

    fn end(mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        let number = usize::from_str_radix(&self.id, 16)?;
        unmount(format!("{FOLDER}/{number}/root"), UnmountFlags::DETACH)?;
        Ok(fs::remove_dir(cgroup(&format!("/many/{}", self.id)))?)
    }
}

/// Makes a million writes to many files. Each file has one finding, which may be late.
pub(super) fn million_writes(lab: &mut Lab) -> Result<()> {
    let container = lab.new_container()?;
    container.service_does(&["flood", &WRITERS.to_string(), &FILES.to_string(), &WRITES.to_string(), "0"])?;
    let found = lab.take_findings()?;
    let of = |op: &str| found.iter().filter(|found| found["file"]["op"] == op).count();
    let made = found.iter().filter_map(|found| found["file"]["inode"].as_u64());
    let made = made.collect::<BTreeSet<_>>().len();
    let (files, folders) = (WRITERS * FILES, WRITERS);
    ensure!((of("create"), of("mkdir")) == (files, folders), "{} of {files} files were reported", of("create"));
    ensure!(found.len() == files + folders && made >= files, "{} findings of {made} files", found.len());
    Ok(())
}

/// Executes ten thousand programs, of which a thousand are shells. Each shell has one finding, which may be late.
pub(super) fn ten_thousand_execs(lab: &mut Lab) -> Result<()> {
    let container = lab.new_container()?;
    container.service_does(&["flood-run", &WRITERS.to_string(), &PROGRAMS.to_string()])?;
    let found = lab.take_findings()?;
    let shells =
        (0..WRITERS as u32).flat_map(|thread| (0..PROGRAMS as u32).step_by(10).map(move |number| (thread, number)));
    let run: BTreeSet<_> = shells.map(|(thread, number)| json!(flooding_shell(thread, number)).to_string()).collect();
    let told: BTreeSet<_> = found.iter().map(|found| found["process"]["args"].to_string()).collect();
    ensure!(told == run, "{} of {} shells were reported", run.intersection(&told).count(), run.len());
    ensure!(found.len() == run.len(), "{} findings of {} shells", found.len(), run.len());
    Ok(())
}

/// Each finding has the id of the right container.
pub(super) fn thousand_containers(lab: &mut Lab) -> Result<()> {
    let containers = (1..=CONTAINERS).map(Small::start).collect::<Result<Vec<_>>>()?;
    for container in &containers {
        wait_for("the container's end of work", Duration::from_secs(60), || Ok(container.is_done()?.then_some(())))?;
    }
    // Findings of a new container can wait for the answers of the container runtimes while those of others do not.
    let mut found = Vec::new();
    wait_for("the findings of all containers", Duration::from_secs(60), || {
        found.append(&mut lab.take_findings()?);
        Ok((found.len() >= 2 * CONTAINERS).then_some(()))
    })?;
    let memory = lab.sensor()?.memory()?;
    println!("the sensor needs {memory} KiB for {CONTAINERS} containers");
    let of = |kind: &str, container: &Small| -> Vec<&Value> {
        let is_it = |found: &&Value| found["finding"] == kind && found["container"]["id"] == json!(container.id);
        found.iter().filter(is_it).collect()
    };
    ensure!(found.len() == 2 * CONTAINERS, "{} findings came of {CONTAINERS} containers", found.len());
    for container in &containers {
        let (shells, writes) = (of("shell_in_container", container), of("image_write", container));
        ensure!(shells.len() == 1 && writes.len() == 1, "{}: {shells:?} {writes:?}", container.id);
        ensure!(writes[0]["file"]["path"] == "/etc/app.conf", "{}", writes[0]);
    }
    ensure!(memory < MEMORY, "the sensor needs {memory} KiB");
    containers.into_iter().try_for_each(Small::end)?;
    finish(Command::new("/bin/busybox").args(["rm", "-rf", FOLDER])).map(drop)
}
