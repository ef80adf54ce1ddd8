//! The container engines that nodes have: the daemons that users and kubelets talk to.
//!
//! To add an engine, add a row here and its name in `cases/runtimes.rs`, and a `Client` if it has a new interface.

mod cli;
mod client;
mod cri;
pub mod disk;
mod image;
mod user;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind::NotFound;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::attack;
use crate::container::SERVICE;
use crate::program::wait_for;
use cli::Cli;
use client::{Client, PATIENCE};
use cri::Cri;

pub use client::FOLDER;
pub use image::CHECK;

/// Files that engines copy into containers, and their contents.
const FILES: &[(&str, &str)] =
    &[("/etc/hosts", "127.0.0.1 localhost\n"), ("/etc/hostname", "lab\n"), ("/etc/resolv.conf", "")];

/// An engine.
pub struct Engine {
    /// Its name in findings, if the cgroups of its containers tell it.
    pub runtime: Option<&'static str>,
    /// Its daemons in the order of their start.
    daemons: &'static [Daemon],
    /// Its configuration files and their contents.
    files: &'static [(&'static str, &'static str)],
    /// The origin of files that it copies into containers. `podman cp` enters the container.
    pub copier: &'static str,
    /// The prefix of the directory that it makes when it copies files: its daemon changes its root to that of the
    /// container, and leaves its own there.
    pub left: Option<&'static str>,
    /// The runtime of its builds in findings, if it has a builder.
    pub builder: Option<&'static str>,
    /// Whether it runs as an ordinary user.
    is_rootless: bool,
    client: &'static dyn Client,
}

/// A daemon of an engine.
struct Daemon {
    command: &'static [&'static str],
    /// The daemon is ready when it listens on this socket.
    socket: &'static str,
}

const CONTAINERD: Daemon = Daemon { command: &["containerd"], socket: "/run/containerd/containerd.sock" };

const DOCKERD: Daemon = Daemon {
    command: &[
        "dockerd",
        "--containerd=/run/containerd/containerd.sock",
        "--host=unix:///run/docker.sock",
        "--storage-driver=overlay2",
        "--exec-opt=native.cgroupdriver=cgroupfs",
        "--bridge=none",
        "--iptables=false",
        "--ip6tables=false",
        // Containers survive the end of this daemon, as they do with the other engines.
        "--live-restore",
    ],
    socket: "/run/docker.sock",
};

/// Docker.
pub const DOCKER: Engine = Engine {
    runtime: Some("docker"),
    builder: Some("buildkit"),
    daemons: &[CONTAINERD, DOCKERD],
    files: cri::FILES,
    copier: "outside",
    left: Some("/.pivot_root"),
    is_rootless: false,
    // Its command has an older builder, too, whose steps are ordinary containers.
    client: &Cli { program: &["env", "DOCKER_BUILDKIT=1", "docker"], options: &["--network=none"], digest: None },
};

/// containerd, used as a kubelet does.
pub const CRI: Engine = Engine {
    runtime: None,
    builder: None,
    daemons: &[CONTAINERD],
    files: cri::FILES,
    copier: "outside",
    left: None,
    is_rootless: false,
    client: &Cri { socket: CONTAINERD.socket },
};

/// Podman with crun, run by root. It needs no daemon; this one only answers queries about containers.
pub const PODMAN: Engine = Engine {
    runtime: Some("podman"),
    builder: Some("buildah"),
    daemons: &[Daemon { command: &["podman", "system", "service", "--time=0"], socket: "/run/podman/podman.sock" }],
    files: cli::PODMAN_FILES,
    copier: "entered",
    left: None,
    is_rootless: false,
    client: &Cli { program: &["podman"], options: &["--network=none"], digest: cli::PODMAN_DIGEST },
};

/// Podman with crun, run by an ordinary user.
pub const ROOTLESS: Engine = Engine {
    runtime: Some("podman"),
    builder: None,
    daemons: &[Daemon {
        command: &["sh", "-c", user::BECOME, "sh", "podman", "system", "service", "--time=0"],
        socket: "/run/user/1000/podman/podman.sock",
    }],
    files: cli::PODMAN_FILES,
    copier: "entered",
    left: None,
    is_rootless: true,
    client: &Cli {
        program: &["sh", "-c", user::BECOME, "sh", "podman"],
        options: &["--network=none", "--cgroup-parent", user::CONTAINERS],
        digest: cli::PODMAN_DIGEST,
    },
};

/// The engines that were started on this machine.
#[derive(Default)]
pub struct Node {
    /// The daemons by socket.
    daemons: BTreeMap<&'static str, Child>,
    /// The sockets of the engines that have loaded the image.
    loaded: Vec<&'static str>,
}

impl Node {
    /// Starts the engine's daemons that do not run, and loads the image.
    pub fn ensure(&mut self, engine: &Engine) -> Result<()> {
        disk::mount()?;
        if engine.is_rootless {
            user::make()?;
        }
        for (path, content) in FILES.iter().chain(engine.files) {
            fs::create_dir_all(Path::new(path).parent().context("it is in a directory")?)?;
            // The path may be a link to the file on the disk.
            fs::remove_file(path).or_else(|error| if error.kind() == NotFound { Ok(()) } else { Err(error) })?;
            fs::write(path, content)?;
        }
        for daemon in engine.daemons {
            if !self.daemons.contains_key(daemon.socket) {
                self.daemons.insert(daemon.socket, daemon.start()?);
            }
        }
        wait_for("the engine's answer", PATIENCE, || Ok(engine.client.is_ready().then_some(())))?;
        let socket = engine.socket();
        if !self.loaded.contains(&socket) {
            engine.client.load(&image::archive()?)?;
            self.loaded.push(socket);
        }
        Ok(())
    }

    /// Sends a signal to the engine's last daemon, which is the one that knows containers.
    pub fn signal(&self, engine: &Engine, signal: Signal) -> Result<()> {
        let daemon = self.daemons.get(engine.socket()).context("it does not run")?;
        let pid = Pid::from_raw(daemon.id().cast_signed()).context("the process id is 0")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Kills the engine's last daemon, so that no process listens on its socket.
    pub fn kill(&mut self, engine: &Engine) -> Result<()> {
        let mut daemon = self.daemons.remove(engine.socket()).context("it does not run")?;
        daemon.kill()?;
        daemon.wait()?;
        Ok(())
    }
}

impl Daemon {
    fn start(&self) -> Result<Child> {
        fs::create_dir_all(FOLDER)?;
        let log = format!("{FOLDER}/{}.log", self.socket.replace('/', "-"));
        let output = File::options().append(true).create(true).open(&log)?;
        let [program, args @ ..] = self.command else { anyhow::bail!("no command") };
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot run {program}"))?;
        let ready = wait_for(self.socket, PATIENCE, || {
            let status = child.try_wait()?;
            ensure!(status.is_none(), "{program} ended: {status:?}");
            Ok(UnixStream::connect(self.socket).ok())
        });
        ready.with_context(|| fs::read_to_string(log).unwrap_or_default())?;
        Ok(child)
    }
}

impl Engine {
    /// The socket on which the detector queries the engine.
    fn socket(&self) -> &'static str {
        self.daemons.last().map_or("", |daemon| daemon.socket)
    }

    /// Makes and starts a container that runs [`SERVICE`], and waits until the service answers.
    pub fn service(&'static self, number: u32) -> Result<Container> {
        self.service_with(number, &[])
    }

    /// Like [`Self::service`], with more options of the engine's command.
    pub fn service_with(&'static self, number: u32, options: &[&str]) -> Result<Container> {
        self.serving_with(number, options, SERVICE)
    }

    /// Like [`Self::service_with`], with another program, which starts [`SERVICE`].
    pub fn serving_with(&'static self, number: u32, options: &[&str], args: &[&str]) -> Result<Container> {
        let container = self.start_with(number, options, args)?;
        wait_for("the container's service", PATIENCE, || Ok(container.service().exists().then_some(())))?;
        Ok(container)
    }

    /// Makes and starts a container.
    pub fn start(&'static self, number: u32, args: &[&str]) -> Result<Container> {
        self.start_with(number, &[], args)
    }

    fn start_with(&'static self, number: u32, options: &[&str], args: &[&str]) -> Result<Container> {
        let name = format!("lab-{number}");
        let volume = format!("{FOLDER}/{name}");
        fs::create_dir_all(&volume)?;
        fs::set_permissions(&volume, PermissionsExt::from_mode(0o777))?;
        let id = self.client.start(&name, &volume, options, args)?;
        Ok(Container { engine: self, id, name, volume: volume.into() })
    }

    /// The user id on the node of root in its containers.
    pub fn uid(&self) -> u32 {
        if self.is_rootless { user::ID } else { 0 }
    }

    /// Builds an image with a `RUN` instruction.
    pub fn build(&self, run: &str) -> Result<()> {
        self.client.build(run)
    }
}

/// A container of an engine, which is removed when it is dropped.
pub struct Container {
    /// The engine of the container.
    pub engine: &'static Engine,
    /// The id from the engine.
    pub id: String,
    name: String,
    volume: PathBuf,
}

impl Container {
    fn service(&self) -> PathBuf {
        self.volume.join(Path::new(attack::SOCKET).file_name().unwrap_or_default())
    }

    /// Makes the service perform an operation of [`attack`], and returns its answer.
    pub fn service_does(&self, operation: &[&str]) -> Result<Value> {
        attack::request(&self.service(), operation)
    }

    /// Runs a program in the container, and returns its output.
    pub fn exec(&self, args: &[&str]) -> Result<String> {
        self.engine.client.exec(&self.id, args)
    }

    /// Copies a file of the host into the container.
    pub fn copy(&self, from: &str, to: &str) -> Result<()> {
        self.engine.client.copy(&self.id, from, to)
    }

    /// The path of its volume on the host.
    pub fn volume(&self) -> &Path {
        &self.volume
    }

    /// What the cgroup alone tells about the container.
    pub fn identity(&self) -> Value {
        match self.engine.runtime {
            Some(runtime) => json!({"id": self.id, "runtime": runtime}),
            None => json!({"id": self.id}),
        }
    }

    /// What the engine tells about the container.
    pub fn description(&self) -> Result<Value> {
        self.engine.client.expected(&self.name)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Err(error) = self.engine.client.remove(&self.id) {
            eprintln!("cannot remove container {}: {error:#}", self.id);
        }
    }
}
