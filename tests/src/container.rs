//! Containers as Docker makes them: an image as the root, a volume, an OCI configuration, and a runtime.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::ops::Not as _;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::{Value, json};

use crate::attack;
use crate::init::{self, CGROUPS};
use crate::root::Root;
use crate::sensor::wait_for;

/// The image, as a directory: the lower layer of most containers.
pub const IMAGE: &str = "/var/lib/lab/image";
/// Where a container sees what is mounted in it of the host.
pub const HOST: &str = "/host";
/// Where containers are kept.
const CONTAINERS: &str = "/var/lib/lab/containers";
/// The service that containers run unless told otherwise.
pub const SERVICE: &[&str] = &["/usr/bin/tool", "serve"];
/// A file of the image whose name is an attack on terminals, and not UTF-8.
pub const EVIL_NAME: &[u8] = b"/srv/\x1b[2J\x1b]0;owned\x07\n\xff\\x";
/// An image file of whole sectors.
pub const SECTORS: &str = "/srv/sectors";
/// How many files [`many_file`] knows.
pub const MANY: usize = 600;
/// How many directories [`place`] knows.
pub const PLACES: usize = 60;
/// The content of image files that are there to be changed.
const TEXT: &str = "as it is in the image: nobody has changed it\n";
/// Applets of busybox in the image.
const APPLETS: &[&str] = &["ash", "cat", "cp", "echo", "ls", "sh", "sleep", "true"];

/// A shell that is nothing but a shell, and what it is linked to.
pub const DASH: &str = "/usr/bin/dash";
/// The dynamic loader.
pub const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
/// A library.
pub const LIBC: &str = "/lib/x86_64-linux-gnu/libc.so.6";

/// Path of one of the image files that are there to be changed.
pub fn many_file(number: usize) -> String {
    format!("/srv/many/{number}")
}

/// Path of one of the empty image directories that are there to be covered or removed.
pub fn place(number: usize) -> String {
    format!("/srv/places/{number}")
}

/// Path of an image file that is deeper than what a lazy sensor walks.
pub fn deep_path() -> String {
    format!("/srv{}/file", "/d".repeat(30))
}

/// Path of an image file that is longer than what a lazy sensor copies.
pub fn long_path() -> String {
    format!("/srv{}/file", format!("/{}", "n".repeat(250)).repeat(5))
}

/// Makes the image.
pub fn make_image() -> Result<()> {
    let at = |path: &str| PathBuf::from(format!("{IMAGE}{path}"));
    make_base(IMAGE)?;
    fs::write(Path::new(OsStr::from_bytes(&[IMAGE.as_bytes(), EVIL_NAME].concat())), TEXT)?;
    // Longer than what it is cloned over.
    fs::write(at(attack::SOURCE), attack::MARK.repeat(512))?;
    fs::write(at(SECTORS), TEXT.repeat(512))?;
    for number in 0..PLACES {
        fs::create_dir_all(at(&place(number)))?;
    }
    for path in (0..MANY).map(many_file).chain([deep_path(), long_path()]) {
        let path = at(&path);
        fs::create_dir_all(path.parent().unwrap_or(&path))?;
        fs::write(path, TEXT)?;
    }
    Ok(())
}

/// Makes what all images have in common, in a directory.
pub fn make_base(root: &str) -> Result<()> {
    let at = |path: &str| PathBuf::from(format!("{root}{path}"));
    for folder in
        ["bin", "etc", "lib/x86_64-linux-gnu", "lib64", "usr/bin", "tmp", "srv", "data", "proc", "dev", "sys", "run"]
    {
        fs::create_dir_all(Path::new(root).join(folder))?;
    }
    for program in ["/bin/busybox", DASH, LOADER, LIBC] {
        fs::copy(program, at(program)).with_context(|| format!("no {program}"))?;
    }
    for applet in APPLETS {
        symlink("/bin/busybox", at(&format!("/bin/{applet}")))?;
    }
    for program in ["tool", "backup"] {
        fs::copy("/init", at("/usr/bin").join(program))?;
    }
    // A name for a shell that does not say so.
    symlink("/bin/busybox", at("/usr/bin/worker"))?;
    fs::write(at("/etc/passwd"), "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")?;
    fs::write(at("/etc/app.conf"), "mode = safe\n")?;
    Ok(())
}

/// How a container differs from an ordinary one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// All devices and the capabilities that matter, as with `docker run --privileged`.
    pub is_privileged: bool,
    /// The root cannot be written.
    pub is_read_only: bool,
    /// The host's cgroups are mounted in it, below [`HOST`].
    pub sees_cgroups: bool,
    /// What its root is on.
    pub root: Root,
    /// What makes it.
    pub runtime: Runtime,
    /// More options for its overlay.
    pub overlay_options: &'static str,
}

/// A container runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Runtime {
    /// That of Docker and containerd.
    #[default]
    Runc,
    /// That of Podman.
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

    /// Whether these are the arguments of the process that is to become the container's program.
    fn is_preparing(self, args: &[u8]) -> bool {
        match self {
            // For a moment it has none.
            Self::Runc => args.is_empty() || args.ends_with(b"\0init\0"),
            Self::Crun => args.is_empty() || args.starts_with(b"crun\0"),
        }
    }
}

/// A container. It is deleted when dropped.
pub struct Container {
    /// Its id as the runtime of its cgroup's name would give it.
    pub id: String,
    /// Its cgroup.
    pub cgroup: String,
    /// The id of its cgroup.
    pub cgroup_id: u64,
    /// Process id of its first process.
    pub pid: u32,
    folder: PathBuf,
    root: Root,
    runtime: Runtime,
}

/// Capabilities of a privileged container beside those of all: as many as there are attacks for.
const PRIVILEGES: &[&str] = &[
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

/// The cgroup that Docker with systemd gives a container.
fn docker_cgroup(id: &str) -> String {
    format!("/system.slice/docker-{id}.scope")
}

/// The id of a container: 64 digits that differ from the first one on, as those of Docker do.
pub fn id(number: u32) -> String {
    (1..=4).map(|part| format!("{:016x}", (u64::from(number) + part).wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect()
}

impl Container {
    /// Makes and starts one that runs [`SERVICE`], and waits until that answers.
    pub fn service(number: u32) -> Result<Self> {
        Self::service_with(number, Setup::default())
    }

    /// As [`Self::service`], with a difference.
    pub fn service_with(number: u32, setup: Setup) -> Result<Self> {
        let container = Self::start_with(&id(number), &docker_cgroup(&id(number)), SERVICE, setup)?;
        wait_for("the container's service", Duration::from_secs(20), || Ok(container.socket().exists().then_some(())))?;
        Ok(container)
    }

    /// Makes and starts one, in the cgroup that Docker with systemd would give it.
    pub fn start(number: u32, args: &[&str]) -> Result<Self> {
        let id = id(number);
        Self::start_in(&id, &docker_cgroup(&id), args)
    }

    /// Makes and starts one in a cgroup of a given name.
    pub fn start_in(id: &str, cgroup: &str, args: &[&str]) -> Result<Self> {
        Self::start_with(id, cgroup, args, Setup::default())
    }

    fn start_with(id: &str, cgroup: &str, args: &[&str], setup: Setup) -> Result<Self> {
        let folder = Path::new(CONTAINERS).join(id);
        fs::create_dir_all(&folder)?;
        setup.root.make(&folder.display().to_string(), setup.overlay_options).context("cannot make the root")?;
        fs::create_dir_all(folder.join("volume"))?;
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

        // The container keeps these: with pipes, the end of `create` could not be seen.
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
        // That has only told the container's first process to become its program. It may also have ended by now.
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
        let namespaces = ["pid", "ipc", "uts", "mount", "network", "cgroup"].map(|kind| json!({"type": kind}));
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

    /// What findings are to say of it.
    pub fn identity(&self) -> Value {
        json!({"id": self.id, "cgroup_id": self.cgroup_id})
    }

    /// The volume, as the host sees it.
    pub fn volume(&self) -> PathBuf {
        self.folder.join("volume")
    }

    /// A path of the container, as the host reaches it.
    pub fn host_path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.pid))
    }

    fn socket(&self) -> PathBuf {
        self.volume().join(Path::new(attack::SOCKET).file_name().unwrap_or_default())
    }

    /// Has the service perform an operation of [`attack`]. It answers with what it did.
    pub fn service_does<S: AsRef<OsStr>>(&self, operation: &[S]) -> Result<Value> {
        attack::request(&self.socket(), operation)
    }

    /// As [`Self::service_does`], in a child of the service.
    pub fn child_does<S: AsRef<OsStr>>(&self, operation: &[S]) -> Result<Value> {
        let program = ["run", "/usr/bin/tool"].map(OsStr::new);
        let line: Vec<&OsStr> = program.into_iter().chain(operation.iter().map(AsRef::as_ref)).collect();
        attack::read_answer(self.service_does(&line)?["stdout"].as_str().unwrap_or_default())
    }

    /// Gives the service a descriptor, through which it writes.
    pub fn receive(&self, descriptor: impl AsFd + Sync) -> Result<()> {
        self.receives(descriptor, |socket| self.service_does(&["write-received", socket]).map(drop))
    }

    /// Gives a descriptor to the process that connects to the socket which `receiver` is told of.
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

    /// `exec` of the runtime: runs a program in the container to its end and gives what it prints.
    pub fn exec(&self, args: &[&str]) -> Result<String> {
        self.exec_as("0:0", args)
    }

    /// As [`Self::exec`], as another user.
    pub fn exec_as(&self, user: &str, args: &[&str]) -> Result<String> {
        self.runtime.run([&["exec", "--user", user, &self.id], args].concat())
    }

    /// `exec` of an operation of [`attack`].
    pub fn exec_tool(&self, operation: &[&str]) -> Result<Value> {
        let line = [&["/usr/bin/tool"], operation].concat();
        attack::read_answer(&self.exec(&line)?)
    }

    /// `exec --tty` from a terminal.
    pub fn exec_tty(&self, args: &[&str]) -> Result<String> {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&terminal)?;
        unlockpt(&terminal)?;
        let name = OsString::from(ptsname(&terminal, Vec::new())?.into_string()?);
        let end = OpenOptions::new().read(true).write(true).open(name)?;
        let mut exec = Command::new(self.runtime.program());
        exec.args(["exec", "--tty", &self.id]).args(args);
        let status = exec.stdin(end.try_clone()?).stdout(end.try_clone()?).stderr(end).status()?;
        // With the other end closed, reading gives what was shown and then the error EIO.
        drop(exec);
        let mut shown = Vec::new();
        let _end_of_output = File::from(terminal).read_to_end(&mut shown);
        let shown = String::from_utf8_lossy(&shown).into_owned();
        ensure!(status.success(), "exec --tty: {status}: {shown}");
        Ok(shown)
    }

    /// Waits until its first process has ended.
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

/// Runs a program on the host to its end and gives what it prints.
pub fn on_host<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Result<String> {
    let mut command = Command::new(program);
    let output = command.args(args).stdin(Stdio::null()).output().with_context(|| format!("cannot run {program}"))?;
    let [said, complained] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    ensure!(output.status.success(), "{command:?}: {}: {complained}{said}", output.status);
    Ok(said.into_owned())
}
