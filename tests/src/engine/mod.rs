//! Container engines as nodes have them: the daemons that real people and kubelets speak to.
//!
//! A new engine is a row here and its name in `cases/runtimes.rs`; if it is spoken to in a new way, a `Client` too.

mod cli;
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
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::attack;
use crate::container::SERVICE;
use crate::sensor::wait_for;
use cli::Cli;
use cri::Cri;

/// Where files of engines are kept.
pub const FOLDER: &str = "/var/lib/lab/engines";

/// How long a daemon, or what it is asked for, may take on an emulated machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// What engines copy into containers: files of any machine, and what is in them.
const FILES: &[(&str, &str)] =
    &[("/etc/hosts", "127.0.0.1 localhost\n"), ("/etc/hostname", "lab\n"), ("/etc/resolv.conf", "")];

/// An engine.
pub struct Engine {
    /// What findings call it, if the cgroups of its containers tell.
    pub runtime: Option<&'static str>,
    /// What runs for it, in the order of their starts.
    daemons: &'static [Daemon],
    /// Its configuration: files and what is in them.
    files: &'static [(&'static str, &'static str)],
    /// The origin of what it copies into containers: `podman cp` enters them.
    pub copier: &'static str,
    /// How the name of a directory begins that it makes to copy: its daemon changes its root to the container's, and
    /// leaves its own there.
    pub left: Option<&'static str>,
    /// What findings call the runtime of its builds. Podman's do not tell.
    pub builder: Option<&'static str>,
    /// Whether it runs as an ordinary user.
    is_rootless: bool,
    client: &'static dyn Client,
}

/// A daemon of an engine.
struct Daemon {
    command: &'static [&'static str],
    /// It is ready when it listens there.
    socket: &'static str,
}

/// How an engine is spoken to.
trait Client: Sync {
    /// Whether it does what it is told: its daemon listens before that.
    fn is_ready(&self) -> bool {
        true
    }
    /// Takes the image from an archive.
    fn load(&self, archive: &str) -> Result<()>;
    /// Makes and starts a container; gives its id.
    fn start(&self, name: &str, volume: &str, args: &[&str]) -> Result<String>;
    /// Runs a program in a container to its end and gives what it prints.
    fn exec(&self, id: &str, args: &[&str]) -> Result<String>;
    /// Copies a file of the host into a container.
    fn copy(&self, id: &str, from: &str, to: &str) -> Result<()>;
    /// Builds an image with a `RUN` line.
    fn build(&self, run: &str) -> Result<()>;
    /// Ends and removes a container.
    fn remove(&self, id: &str) -> Result<()>;
    /// What findings say of a container of this name, beyond what its cgroup tells.
    fn expected(&self, name: &str) -> Result<Value>;
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
        // Containers outlive it, as those of the other engines do.
        "--live-restore",
    ],
    socket: "/run/docker.sock",
};

/// Docker.
pub const DOCKER: Engine = Engine {
    runtime: Some("docker"),
    builder: Some("docker"),
    daemons: &[CONTAINERD, DOCKERD],
    files: cri::FILES,
    copier: "outside",
    left: Some("/.pivot_root"),
    is_rootless: false,
    client: &Cli { program: &["docker"], options: &["--network=none"], digest: None },
};

/// containerd, spoken to as a kubelet does.
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

/// Podman with crun, of the administrator. It needs no daemon: what runs is for those who ask about containers.
pub const PODMAN: Engine = Engine {
    runtime: Some("podman"),
    builder: None,
    daemons: &[Daemon { command: &["podman", "system", "service", "--time=0"], socket: "/run/podman/podman.sock" }],
    files: cli::PODMAN_FILES,
    copier: "entered",
    left: None,
    is_rootless: false,
    client: &Cli { program: &["podman"], options: &["--network=none"], digest: cli::PODMAN_DIGEST },
};

/// Podman with crun, of an ordinary user.
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

/// The engines of this machine, as far as they were needed.
#[derive(Default)]
pub struct Node {
    /// Daemons, by socket.
    daemons: BTreeMap<&'static str, Child>,
    /// Who has the image: the sockets of their last daemons.
    loaded: Vec<&'static str>,
}

impl Node {
    /// Starts what does not run of an engine, and gives it the image.
    pub fn ensure(&mut self, engine: &Engine) -> Result<()> {
        disk::mount()?;
        if engine.is_rootless {
            user::make()?;
        }
        for (path, content) in FILES.iter().chain(engine.files) {
            fs::create_dir_all(Path::new(path).parent().context("it is in a directory")?)?;
            // It may be a link to that of the disk.
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

    /// Sends a signal to an engine's last daemon: that which knows about containers.
    pub fn signal(&self, engine: &Engine, signal: Signal) -> Result<()> {
        let daemon = self.daemons.get(engine.socket()).context("it does not run")?;
        let pid = Pid::from_raw(daemon.id().cast_signed()).context("no process id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Kills it, so that nobody listens at its socket.
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
    /// Where it is asked about containers.
    fn socket(&self) -> &'static str {
        self.daemons.last().map_or("", |daemon| daemon.socket)
    }

    /// Makes and starts a container that runs [`SERVICE`], and waits until that answers.
    pub fn service(&'static self, number: u32) -> Result<Container> {
        let container = self.start(number, SERVICE)?;
        wait_for("the container's service", PATIENCE, || Ok(container.service().exists().then_some(())))?;
        Ok(container)
    }

    /// Makes and starts a container.
    pub fn start(&'static self, number: u32, args: &[&str]) -> Result<Container> {
        let name = format!("lab-{number}");
        let volume = format!("{FOLDER}/{name}");
        fs::create_dir_all(&volume)?;
        fs::set_permissions(&volume, PermissionsExt::from_mode(0o777))?;
        let id = self.client.start(&name, &volume, args)?;
        Ok(Container { engine: self, id, name, volume: volume.into() })
    }

    /// Of its containers' root, the user id on the node.
    pub fn uid(&self) -> u32 {
        if self.is_rootless { user::ID } else { 0 }
    }

    /// Builds an image with a `RUN` line.
    pub fn build(&self, run: &str) -> Result<()> {
        self.client.build(run)
    }
}

/// A container of an engine. It is removed when dropped.
pub struct Container {
    /// Whose it is.
    pub engine: &'static Engine,
    /// Its id, as the engine says.
    pub id: String,
    name: String,
    volume: PathBuf,
}

impl Container {
    fn service(&self) -> PathBuf {
        self.volume.join(Path::new(attack::SOCKET).file_name().unwrap_or_default())
    }

    /// Has the service perform an operation of [`attack`]. It answers with what it did.
    pub fn service_does(&self, operation: &[&str]) -> Result<Value> {
        attack::request(&self.service(), operation)
    }

    /// Runs a program in it to its end and gives what it prints.
    pub fn exec(&self, args: &[&str]) -> Result<String> {
        self.engine.client.exec(&self.id, args)
    }

    /// Copies a file of the host into it.
    pub fn copy(&self, from: &str, to: &str) -> Result<()> {
        self.engine.client.copy(&self.id, from, to)
    }

    /// What the cgroup alone tells of it.
    pub fn identity(&self) -> Value {
        match self.engine.runtime {
            Some(runtime) => json!({"id": self.id, "runtime": runtime}),
            None => json!({"id": self.id}),
        }
    }

    /// What the engine tells of it.
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
