//! Container engines as people use them: Docker and Podman, by their command lines.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::attack;
use crate::container::on_host;
use crate::sensor::wait_for;

/// The image as an archive.
const ARCHIVE: &str = "/run/lab/image.tar";
/// The image's name.
const IMAGE: &str = "localhost/lab:1";
/// Options of every container. The profile of Docker would need a program that loads it.
const OPTIONS: &[&str] = &["--network=none", "--security-opt=apparmor=unconfined"];
/// What is mounted in the containers as `/data`.
const VOLUME: &str = "/run/lab/engine";
/// How long a daemon may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// An engine, with the image in it.
pub struct Engine {
    /// The client, and what it is always told.
    command: &'static [&'static str],
    daemon: Option<Child>,
}

impl Engine {
    /// Docker, without a network.
    pub fn docker() -> Result<Self> {
        let log = File::create("/run/lab/dockerd.log")?;
        let daemon = Command::new("dockerd")
            .args(["--iptables=false", "--bridge=none", "--storage-driver=overlay2"])
            .args(["--exec-opt", "native.cgroupdriver=cgroupfs"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot run dockerd")?;
        let mut engine = Self { command: &["docker"], daemon: Some(daemon) };
        let started = wait_for("the answer of dockerd", PATIENCE, || Ok(engine.does(&["version"]).ok()));
        if let Err(error) = started {
            engine.kill()?;
            let log = fs::read_to_string("/run/lab/dockerd.log")?;
            return Err(error.context(log));
        }
        engine.import()?;
        Ok(engine)
    }

    /// Podman as root, which has no daemon, with crun.
    pub fn podman() -> Result<Self> {
        for folder in ["/etc/containers", "/var/tmp"] {
            fs::create_dir_all(folder)?;
        }
        fs::write("/etc/containers/policy.json", r#"{"default": [{"type": "insecureAcceptAnything"}]}"#)?;
        let command = &[
            "podman",
            "--storage-driver=overlay",
            "--cgroup-manager=cgroupfs",
            "--runtime=crun",
            "--events-backend=none",
        ];
        let engine = Self { command, daemon: None };
        engine.import()?;
        Ok(engine)
    }

    fn does(&self, args: &[&str]) -> Result<String> {
        Ok(on_host(self.command[0], self.command[1..].iter().chain(args))?.trim_end().to_owned())
    }

    /// Makes a small image.
    fn import(&self) -> Result<()> {
        let folder = "/run/lab/small-image";
        for name in ["bin", "etc", "usr/bin", "data"] {
            fs::create_dir_all(format!("{folder}/{name}"))?;
        }
        fs::copy("/bin/busybox", format!("{folder}/bin/sh"))?;
        fs::copy("/init", format!("{folder}/usr/bin/tool"))?;
        fs::write(format!("{folder}/etc/app.conf"), "mode = safe\n")?;
        on_host("/bin/busybox", ["tar", "-C", folder, "-cf", ARCHIVE, "."])?;
        self.does(&["import", ARCHIVE, IMAGE]).map(drop)
    }

    /// Starts a container of this name, with the [service](attack) in it; gives its id.
    pub fn run_service(&self, name: &str) -> Result<String> {
        let volume = format!("{VOLUME}/{name}");
        fs::create_dir_all(&volume)?;
        let mount = format!("{volume}:/data");
        let service = ["--detach", "--name", name, "--volume", &mount, IMAGE, "/usr/bin/tool", "serve"];
        let id = self.does(&[&["run"], OPTIONS, &service].concat())?;
        ensure!(id.len() == 64, "no id: {id}");
        wait_for("the service's socket", PATIENCE, || Ok(Path::new(&socket(name)).exists().then_some(())))?;
        Ok(id)
    }

    /// Runs a program in a container of its own to its end; gives the container's id.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        let file = format!("{VOLUME}/id");
        fs::create_dir_all(VOLUME)?;
        self.does(&[&["run"], OPTIONS, &["--rm", "--cidfile", &file, IMAGE], args].concat())?;
        let id = fs::read_to_string(&file)?;
        fs::remove_file(file)?;
        Ok(id)
    }

    /// Runs a program in a container that runs.
    pub fn exec(&self, name: &str, args: &[&str]) -> Result<String> {
        self.does(&[&["exec", name], args].concat())
    }

    /// Copies a file of the host into a container.
    pub fn copy(&self, from: &str, name: &str, to: &str) -> Result<()> {
        self.does(&["cp", from, &format!("{name}:{to}")]).map(drop)
    }

    /// Has the service in a container perform an operation of [`attack`].
    pub fn service_does(&self, name: &str, operation: &[&str]) -> Result<Value> {
        attack::request(Path::new(&socket(name)), operation)
    }

    /// Removes a container.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.does(&["rm", "--force", name]).map(drop)
    }

    /// Kills the daemon, if there is one. Its containers go on.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill()?;
            daemon.wait()?;
        }
        Ok(())
    }
}

fn socket(name: &str) -> String {
    format!("{VOLUME}/{name}/tool.sock")
}
