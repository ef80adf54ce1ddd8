//! Makes containers as Docker does, from an image as the root, a volume, an OCI configuration and a runtime.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::ops::Not as _;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::{Value, json};

use crate::attack;
use crate::image::LIBC;
use crate::init::{self, CGROUPS};
use crate::program::{on_host, wait_for};
use crate::root::Root;

/// The directory in which a container sees host directories.
pub const HOST: &str = "/host";
/// The directory of all containers.
const CONTAINERS: &str = "/var/lib/lab/containers";
/// The program that containers run by default.
pub const SERVICE: &[&str] = &["/usr/bin/tool", "serve"];

/// A copy of the tool on the volume.
pub const OLD_PROGRAM: &str = "/data/old";
/// A copy of a library on the volume.
pub const OLD_LIBRARY: &str = "/data/old.so";

/// How a container differs from an ordinary one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// All devices and the capabilities that attacks need, like `docker run --privileged`.
    pub is_privileged: bool,
    /// A read-only root.
    pub is_read_only: bool,
    /// It sees the processes of the host, like `docker run --pid=host`.
    pub sees_processes: bool,
    /// The host's cgroups are mounted below [`HOST`].
    pub sees_cgroups: bool,
    /// The storage of its root.
    pub root: Root,
    /// The runtime that makes it.
    pub runtime: Runtime,
    /// A program and a library are on its volume before it starts: [`OLD_PROGRAM`] and [`OLD_LIBRARY`].
    pub has_old_programs: bool,
    /// Additional options of its overlay mount.
    pub overlay_options: &'static str,
    /// The process in whose network it is, instead of one of its own.
    pub network_of: Option<u32>,
}

/// A container runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Runtime {
    /// The runtime of Docker and containerd.
    #[default]
    Runc,
    /// The runtime of Podman.
    Crun,
}

impl Runtime {
    fn program(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Crun => "crun",
        }
    }

    fn run<S: AsRef<OsStr>>(self, args: impl IntoIterator<Item = S>) -> Result<String> {
        on_host(self.program(), args)
    }

    /// Whether these are the arguments of the runtime's process that will execute the container's program.
    fn is_preparing(self, args: &[u8]) -> bool {
        match self {
            // During execve(2) the arguments are briefly empty.
            Self::Runc => args.is_empty() || args.ends_with(b"\0init\0"),
            Self::Crun => args.is_empty() || args.starts_with(b"crun\0"),
        }
    }
}

/// A container, which is deleted when it is dropped.
pub struct Container {
    /// The id that the runtime in its cgroup's name would give it.
    pub id: String,
    /// The path of its cgroup.
    pub cgroup: String,
    /// The id of its cgroup.
    pub cgroup_id: u64,
    /// The process id of its first process.
    pub pid: u32,
    folder: PathBuf,
    root: Root,
    runtime: Runtime,
}

/// The capabilities of a privileged container beyond the default ones, as far as attacks and servers need them.
const PRIVILEGES: &[&str] = &[
    "CAP_AUDIT_WRITE",
    "CAP_DAC_READ_SEARCH",
    "CAP_IPC_LOCK",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MKNOD",
    "CAP_SETFCAP",
    "CAP_SYS_ADMIN",
    "CAP_SYS_CHROOT",
    "CAP_SYS_NICE",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
];

/// The cgroup of a container of Docker with systemd.
pub fn docker_cgroup(id: &str) -> String {
    format!("/system.slice/docker-{id}.scope")
}

/// A container id of 64 digits. Like Docker's ids, they differ from the first digit on.
pub fn id(number: u32) -> String {
    (1..=4).map(|part| format!("{:016x}", (u64::from(number) + part).wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect()
}

impl Container {
    /// Makes and starts a container that runs [`SERVICE`], and waits until the service answers.
    pub fn service(number: u32) -> Result<Self> {
        Self::service_with(number, Setup::default())
    }

    /// Like [`Self::service`], with another setup.
    pub fn service_with(number: u32, setup: Setup) -> Result<Self> {
        Self::service_in_with(number, &docker_cgroup(&id(number)), setup)
    }

    /// Like [`Self::service`], in the given cgroup.
    pub fn service_in(number: u32, cgroup: &str) -> Result<Self> {
        Self::service_in_with(number, cgroup, Setup::default())
    }

    fn service_in_with(number: u32, cgroup: &str, setup: Setup) -> Result<Self> {
        let container = Self::start_with(&id(number), cgroup, SERVICE, setup)?;
        container.wait_for_service()?;
        Ok(container)
    }

    /// Makes and starts a container whose program is a shell that executes these lines, the last of which starts the
    /// service, and waits until the service answers.
    pub fn service_after(number: u32, lines: &str) -> Result<Self> {
        Self::service_after_with(number, lines, Setup::default())
    }

    /// Like [`Self::service_after`], with another setup.
    pub fn service_after_with(number: u32, lines: &str, setup: Setup) -> Result<Self> {
        let id = id(number);
        let container = Self::start_with(&id, &docker_cgroup(&id), &["/bin/sh", "-c", lines], setup)?;
        container.wait_for_service()?;
        Ok(container)
    }

    /// Waits until the service answers.
    pub fn wait_for_service(&self) -> Result<()> {
        wait_for("the container's service", Duration::from_secs(180), || Ok(self.socket().exists().then_some(())))
    }

    /// Makes and starts a container in a cgroup like that of Docker with systemd.
    pub fn start(number: u32, args: &[&str]) -> Result<Self> {
        let id = id(number);
        Self::start_in(&id, &docker_cgroup(&id), args)
    }

    /// Makes and starts a container in the given cgroup.
    pub fn start_in(id: &str, cgroup: &str, args: &[&str]) -> Result<Self> {
        Self::start_with(id, cgroup, args, Setup::default())
    }

    fn start_with(id: &str, cgroup: &str, args: &[&str], setup: Setup) -> Result<Self> {
        let folder = Path::new(CONTAINERS).join(id);
        fs::create_dir_all(&folder)?;
        setup.root.make(&folder.display().to_string(), setup.overlay_options).context("cannot make the root")?;
        let volume = folder.join("volume");
        fs::create_dir_all(&volume)?;
        if setup.has_old_programs {
            fs::copy("/init", volume.join("old"))?;
            fs::copy(LIBC, volume.join("old.so"))?;
            // The clock for files ticks less often.
            thread::sleep(Duration::from_millis(50));
        }
        let mut container = Self {
            id: id.to_owned(),
            cgroup: cgroup.to_owned(),
            cgroup_id: 0,
            pid: 0,
            folder,
            root: setup.root,
            runtime: setup.runtime,
        };
        fs::write(container.folder.join("config.json"), container.config(args, setup).to_string())?;

        // The container keeps its standard streams open. With pipes, the end of `create` could not be detected.
        let log = File::create(container.folder.join("log"))?;
        let runtime = setup.runtime;
        let status = Command::new(runtime.program())
            .args(["create", "--pid-file"])
            .arg(container.folder.join("pid"))
            .arg("--bundle")
            .args([container.folder.as_os_str(), OsStr::new(id)])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .status()
            .with_context(|| format!("cannot run {}", runtime.program()))?;
        ensure!(status.success(), "create: {status}: {}", fs::read_to_string(container.folder.join("log"))?);
        container.pid = fs::read_to_string(container.folder.join("pid"))?.parse()?;
        container.cgroup_id = fs::metadata(init::cgroup(cgroup))?.ino();
        runtime.run(["start", id])?;
        // `start` only tells the first process to execute the container's program. That may already have ended.
        wait_for("the container's program", Duration::from_secs(20), || {
            let running = fs::read(format!("/proc/{}/cmdline", container.pid));
            Ok(running.is_ok_and(|args| runtime.is_preparing(&args)).not().then_some(()))
        })?;
        Ok(container)
    }

    fn config(&self, args: &[&str], setup: Setup) -> Value {
        let mut capabilities =
            vec!["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID"];
        if setup.is_privileged {
            capabilities.extend(PRIVILEGES);
        }
        let cgroups = json!({"destination": format!("{HOST}{CGROUPS}"), "type": "bind", "source": CGROUPS,
            "options": ["rbind", "rw"]});
        let mut namespaces = vec!["ipc", "uts", "mount", "cgroup"];
        if setup.network_of.is_none() {
            namespaces.push("network");
        }
        if !setup.sees_processes {
            namespaces.push("pid");
        }
        let mut namespaces: Vec<_> = namespaces.into_iter().map(|kind| json!({"type": kind})).collect();
        if let Some(process) = setup.network_of {
            namespaces.push(json!({"type": "network", "path": format!("/proc/{process}/ns/net")}));
        }
        let mut config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0}, "args": args, "cwd": "/",
                "noNewPrivileges": !setup.is_privileged,
                "env": ["PATH=/usr/bin:/bin"],
                "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            },
            "root": {"path": "rootfs", "readonly": setup.is_read_only},
            "hostname": "lab",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                    "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
                {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "nodev"]},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "ro"]},
                {"destination": "/data", "type": "bind", "source": self.volume(), "options": ["rbind", "rw"]},
            ],
            "linux": {
                "cgroupsPath": self.cgroup,
                "namespaces": namespaces,
                "resources": {"devices": [{"allow": setup.is_privileged, "access": "rwm"}]},
                "maskedPaths": ["/proc/kcore", "/proc/keys"],
                "readonlyPaths": ["/proc/bus", "/proc/sys"],
            },
        });
        if setup.sees_cgroups
            && let Some(mounts) = config["mounts"].as_array_mut()
        {
            mounts.push(cgroups);
        }
        config
    }

    /// The container as findings describe it.
    pub fn identity(&self) -> Value {
        json!({"id": self.id, "cgroup_id": self.cgroup_id})
    }

    /// The path of the volume on the host.
    pub fn volume(&self) -> PathBuf {
        self.folder.join("volume")
    }

    /// The path on the host of a path in the container.
    pub fn host_path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.pid))
    }

    /// What its first process and the descendants of that have printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_else(|error| format!("no log: {error}"))
    }

    fn socket(&self) -> PathBuf {
        self.volume().join(Path::new(attack::SOCKET).file_name().unwrap_or_default())
    }

    /// Makes the service perform an operation of [`attack`], and returns its answer.
    pub fn service_does<S: AsRef<OsStr>>(&self, operation: &[S]) -> Result<Value> {
        attack::request(&self.socket(), operation)
    }

    /// Like [`Self::service_does`], in a child of the service.
    pub fn child_does<S: AsRef<OsStr>>(&self, operation: &[S]) -> Result<Value> {
        let program = ["run", "/usr/bin/tool"].map(OsStr::new);
        let line: Vec<&OsStr> = program.into_iter().chain(operation.iter().map(AsRef::as_ref)).collect();
        attack::read_answer(self.service_does(&line)?["stdout"].as_str().unwrap_or_default())
    }

    /// Sends the service a file descriptor to write to.
    pub fn receive(&self, descriptor: impl AsFd + Sync) -> Result<()> {
        self.receives(descriptor, |socket| self.service_does(&["write-received", socket]).map(drop))
    }

    /// Sends a file descriptor to the process that connects to the socket. `receiver` is called with the socket's path.
    pub fn receives(&self, descriptor: impl AsFd + Sync, receiver: impl FnOnce(&str) -> Result<()>) -> Result<()> {
        let name = "fd.sock";
        let socket = UnixListener::bind(self.volume().join(name))?;
        let received = thread::scope(|scope| {
            let passed = scope.spawn(|| attack::pass(&socket, &descriptor));
            let received = receiver(&format!("/data/{name}"));
            passed.join().expect("it does not panic").and(received)
        });
        fs::remove_file(self.volume().join(name))?;
        received
    }

    /// Runs a program in the container with the runtime's `exec`, and returns its output.
    pub fn exec(&self, args: &[&str]) -> Result<String> {
        self.exec_as("0:0", args)
    }

    /// Like [`Self::exec`], as another user.
    pub fn exec_as(&self, user: &str, args: &[&str]) -> Result<String> {
        self.runtime.run([&["exec", "--user", user, &self.id], args].concat())
    }

    /// Runs an operation of [`attack`] with the runtime's `exec`.
    pub fn exec_tool(&self, operation: &[&str]) -> Result<Value> {
        let line = [&["/usr/bin/tool"], operation].concat();
        attack::read_answer(&self.exec(&line)?)
    }

    /// Runs a program with the runtime's `exec`, which goes on running.
    pub fn exec_detached(&self, args: &[&str]) -> Result<()> {
        let mut exec = Command::new(self.runtime.program());
        exec.args(["exec", "--detach", &self.id]).args(args);
        // The program would keep a pipe open.
        let status = exec.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        ensure!(status.success(), "exec --detach: {status}");
        Ok(())
    }

    /// Runs a program with the runtime's `exec`, with a pipe as its standard input, which contains this.
    pub fn exec_with_input(&self, args: &[&str], input: &str) -> Result<()> {
        let mut exec = Command::new(self.runtime.program());
        let mut exec = exec.args(["exec", &self.id]).args(args).stdin(Stdio::piped()).spawn()?;
        exec.stdin.take().context("it is a pipe")?.write_all(input.as_bytes())?;
        let status = exec.wait()?;
        ensure!(status.success(), "exec: {status}");
        Ok(())
    }

    /// Kills all processes of the container.
    pub fn kill(&self) -> Result<()> {
        self.runtime.run(["kill", "--all", &self.id, "KILL"]).map(drop)
    }

    /// Runs a program with `exec --tty` from a terminal.
    pub fn exec_tty(&self, args: &[&str]) -> Result<String> {
        self.type_into(args, "")
    }

    /// Like [`Self::exec_tty`]. This is typed into the terminal.
    pub fn type_into(&self, args: &[&str], input: &str) -> Result<String> {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&terminal)?;
        unlockpt(&terminal)?;
        let name = OsString::from(ptsname(&terminal, Vec::new())?.into_string()?);
        let end = OpenOptions::new().read(true).write(true).open(name)?;
        let mut exec = Command::new(self.runtime.program());
        exec.args(["exec", "--tty", &self.id]).args(args);
        File::from(terminal.try_clone()?).write_all(input.as_bytes())?;
        let status = exec.stdin(end.try_clone()?).stdout(end.try_clone()?).stderr(end).status()?;
        // When the other end is closed, reading returns the remaining output and then EIO.
        drop(exec);
        let mut shown = Vec::new();
        let _end_of_output = File::from(terminal).read_to_end(&mut shown);
        let shown = String::from_utf8_lossy(&shown).into_owned();
        ensure!(status.success(), "exec --tty: {status}: {shown}");
        Ok(shown)
    }

    /// Waits until the first process of the container has ended.
    pub fn wait(&self) -> Result<()> {
        wait_for("the container's end", Duration::from_secs(20), || {
            Ok(self.runtime.run(["state", &self.id])?.contains("\"stopped\"").then_some(()))
        })
    }

    fn delete(&self) -> Result<()> {
        self.runtime.run(["delete", "--force", &self.id])?;
        self.root.unmake(&self.folder.display().to_string())?;
        fs::remove_dir_all(&self.folder)?;
        Ok(())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Err(error) = self.delete() {
            eprintln!("cannot delete container {}: {error:#}", self.id);
        }
    }
}
