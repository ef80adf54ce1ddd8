//! Containers that make the kernel run their programs on the host.

use std::array;
use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::expectation::write;
use super::lab::Lab;
use crate::attack::{self, NotApplicable};
use crate::container::{Container, HOST, Setup};
use crate::image::MARK;
use crate::init::{CGROUPS, cgroup};
use crate::program::{on_host, wait_for};

/// The file in which the container's program tells on the host who it is.
const PROOF: &str = "/run/lab/proof";
/// The container's program.
const AGENT: &str = "/srv/agent";

/// The expected finding of a control that was opened. `identity` is the result of the attacker's stat.
fn control(path: &str, identity: &Value) -> Value {
    json!({
        "finding": "kernel_control_write",
        "severity": "critical",
        "process": {"origin": "entrypoint", "exe": "/usr/bin/tool", "uid": 0},
        "file": {"path": path, "op": null, "layer": null, "dev": identity["dev"], "inode": identity["inode"]},
    })
}

/// The commands that tell who executes them.
fn leave_proof() -> String {
    format!("(id -u; readlink /proc/self/ns/mnt) > {PROOF}.new\nmv {PROOF}.new {PROOF}\n")
}

/// Makes the container's program. Returns its expected finding.
fn make_agent(container: &Container) -> Result<Value> {
    let identity = container.service_does(&["script", AGENT, &format!("#!/bin/busybox sh\n{}", leave_proof())])?;
    Ok(write("entrypoint", "create", "new", AGENT, &identity))
}

/// The expected finding of the container's program that is executed on the host, by the kernel or by a program.
fn executed(path: &str, exe: Option<&str>) -> Value {
    json!({
        "finding": "host_exec",
        "severity": "critical",
        "process": {"origin": "outside", "exe": exe, "uid": 0},
        "file": {"path": path, "op": null},
        "mitre": ["T1611"],
    })
}

/// Waits until the kernel has run the container's program as root in the host's mounts.
fn wait_for_agent() -> Result<()> {
    let proof = wait_for("the container's program on the host", Duration::from_secs(20), || {
        Ok(Path::new(PROOF).exists().then(|| fs::read_to_string(PROOF)).transpose()?)
    })?;
    fs::remove_file(PROOF)?;
    let ours = fs::read_link("/proc/self/ns/mnt")?;
    ensure!(proof == format!("0\n{}\n", ours.display()), "it says: {proof}");
    Ok(())
}

/// A control of the host, which gets its value back when this is dropped.
struct Restored {
    path: &'static str,
    value: String,
}

impl Restored {
    fn new(path: &'static str) -> Result<Self> {
        match fs::read_to_string(path) {
            Ok(value) => Ok(Self { path, value }),
            Err(error) => Err(NotApplicable(format!("this kernel has no {path}: {error}")).into()),
        }
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        if let Err(error) = fs::write(self.path, &self.value) {
            eprintln!("cannot restore {}: {error}", self.path);
        }
    }
}

/// A privileged container that no other case has used.
fn privileged(lab: &mut Lab) -> Result<Rc<Container>> {
    let setup = Setup { is_privileged: true, ..Setup::default() };
    Ok(Rc::new(Container::service_with(lab.number(), setup)?))
}

/// The container mounts a procfs of its own, and gives the control another name there.
pub(super) fn core_pattern(lab: &mut Lab) -> Result<()> {
    let restored = Restored::new("/proc/sys/kernel/core_pattern")?;
    let container = privileged(lab)?;
    let agent = make_agent(&container)?;
    let pattern = format!("|/proc/%P/root{AGENT}");
    let identity = container.service_does(&["bound-control", "sys/kernel/core_pattern", &pattern])?;
    ensure!(fs::read_to_string(restored.path)?.trim_end() == pattern, "the pattern was not changed");
    container.service_does(&["crash"])?;
    wait_for_agent()?;
    lab.expect(&container, [agent, control(restored.path, &identity), executed(AGENT, None)])
}

/// Sets a control to the path of a container's program. `at` has the type of the control's file system and its path
/// there. `provoke` makes the kernel run the program.
fn by_path(
    lab: &mut Lab,
    path: &'static str,
    at: [&str; 2],
    provoke: impl FnOnce(&Container) -> Result<()>,
) -> Result<()> {
    let restored = Restored::new(path)?;
    let container = privileged(lab)?;
    let agent = make_agent(&container)?;
    let program = format!("/proc/{}/root{AGENT}", container.pid);
    let identity = container.service_does(&["control", at[0], at[1], &program])?;
    provoke(&container)?;
    wait_for_agent()?;
    lab.expect(&container, [agent, control(restored.path, &identity), executed(AGENT, None)])
}

pub(super) fn modprobe(lab: &mut Lab) -> Result<()> {
    by_path(lab, "/proc/sys/kernel/modprobe", ["proc", "sys/kernel/modprobe"], |container| {
        container.service_does(&["want-module"]).map(drop)
    })
}

/// Powering off would end the machine. The container only sets the program.
pub(super) fn poweroff_command(lab: &mut Lab) -> Result<()> {
    let restored = Restored::new("/proc/sys/kernel/poweroff_cmd")?;
    let container = lab.privileged()?;
    let identity = container.service_does(&["control", "proc", "sys/kernel/poweroff_cmd", AGENT])?;
    ensure!(fs::read_to_string(restored.path)?.trim_end() == AGENT, "the program was not changed");
    lab.expect(&container, [control(restored.path, &identity)])
}

pub(super) fn uevent_helper(lab: &mut Lab) -> Result<()> {
    by_path(lab, "/sys/kernel/uevent_helper", ["sysfs", "kernel/uevent_helper"], |_| {
        Ok(fs::write("/sys/class/mem/null/uevent", "change")?)
    })
}

/// A hierarchy of cgroups of version 1 that the container sees, and that is not the one by which containers are known.
pub(super) fn release_agent(lab: &mut Lab) -> Result<()> {
    if cgroup("") == CGROUPS {
        return Err(NotApplicable("only cgroups of version 1 have a release_agent".to_owned()).into());
    }
    let setup = Setup { is_privileged: true, sees_cgroups: true, ..Setup::default() };
    let container = Container::service_with(lab.number(), setup)?;
    let agent = make_agent(&container)?;
    let hierarchy = format!("{CGROUPS}/systemd");
    let program = format!("/proc/{}/root{AGENT}", container.pid);
    let identity = container.service_does(&["set-control", &format!("{HOST}{hierarchy}/release_agent"), &program])?;
    container.service_does(&["leave-empty", &format!("{HOST}{hierarchy}")])?;
    wait_for_agent()?;
    fs::remove_dir(format!("{hierarchy}/left"))?;
    fs::write(format!("{hierarchy}/release_agent"), "")?;
    lab.expect(&container, [agent, control("/release_agent", &identity), executed(AGENT, None)])
}

/// A container registers itself as the interpreter of a format, with the flag that makes the kernel open it at once.
pub(super) fn binary_format(lab: &mut Lab) -> Result<()> {
    const ON_HOST: &str = "/run/lab/binfmt";
    /// A shell, because the interpreter of a format cannot be a script.
    const INTERPRETER: &str = "/srv/sh";
    let container = privileged(lab)?;
    let identity = container.service_does(&["copy", "/bin/busybox", INTERPRETER])?;
    let copied = write("entrypoint", "create", "new", INTERPRETER, &identity);
    let rule = format!(":escape:M::escape::{INTERPRETER}:F");
    let identity = container.service_does(&["control", "binfmt_misc", "register", &rule])?;
    crate::init::mount_at("binfmt_misc", ON_HOST, "")?;
    fs::write("/run/lab/program", format!("escape=1\n{}", leave_proof()))?;
    on_host("/bin/busybox", ["chmod", "+x", "/run/lab/program"])?;
    on_host("/run/lab/program", [""])?;
    fs::write(format!("{ON_HOST}/escape"), "-1")?;
    rustix::mount::unmount(ON_HOST, rustix::mount::UnmountFlags::empty())?;
    wait_for_agent()?;
    let register = control("/proc/sys/fs/binfmt_misc/register", &identity);
    lab.expect(&container, [copied, register, executed(INTERPRETER, Some("/init"))])
}

/// A format that is registered in a user namespace is only for programs that are executed there.
pub(super) fn own_binary_format(lab: &mut Lab) -> Result<()> {
    let container = lab.privileged()?;
    let rule = ":own:M::own::/bin/busybox:";
    container.child_does(&["as-root-of-namespaces", "control", "binfmt_misc", "register", rule])?;
    lab.expect_none()
}

/// The host executes programs of a container: one through `/proc`, one in the upper directory.
pub(super) fn executed_by_host(lab: &mut Lab) -> Result<()> {
    let container = lab.new_container()?;
    let identity = container.service_does(&["copy", "/bin/busybox", "/srv/true"])?;
    let copied = write("entrypoint", "create", "new", "/srv/true", &identity);
    let inside = container.host_path("/bin/busybox").display().to_string();
    let upper = container.volume().with_file_name("upper/srv/true").display().to_string();
    on_host(&inside, ["true"])?;
    on_host(&upper, [""; 0])?;
    let by = Some("/init");
    lab.expect(&container, [copied, executed("/bin/busybox", by), executed(&upper, by)])
}

/// The host executes programs in many directories of a container. The kernel reuses the addresses of the upper
/// directories of removed containers for some of them.
pub(super) fn executed_after_others(lab: &mut Lab) -> Result<()> {
    const GONE: usize = 12;
    const PROGRAMS: usize = 200;
    let gone = (0..GONE).map(|_| lab.new_container()).collect::<Result<Vec<_>>>()?;
    let container = lab.new_container()?;
    let upper = container.volume().with_file_name("upper");
    let first = upper.join("first");
    fs::copy("/bin/busybox", &first)?;
    drop(gone);
    fs::write("/proc/sys/vm/drop_caches", "2")?;
    let programs: [String; PROGRAMS] = array::from_fn(|n| upper.join(format!("{n}/true")).display().to_string());
    for program in programs.iter().map(Path::new) {
        fs::create_dir(program.with_file_name(""))?;
        fs::hard_link(&first, program)?;
    }
    for program in &programs {
        on_host(program, [""; 0])?;
    }
    lab.expect(&container, programs.map(|program| executed(&program, Some("/init"))))
}

/// The expected finding of a file that was opened by its handle.
fn by_handle(severity: &str, path: Option<&str>) -> Value {
    json!({
        "finding": "handle_open",
        "severity": severity,
        "process": {"origin": "entrypoint", "exe": "/usr/bin/tool"},
        "file": {"path": path, "op": null, "layer": null},
    })
}

/// Makes a container open the file with this path on the host by its handle, and returns what the file had.
fn open_handle(container: &Container, path: &Path) -> Result<Value> {
    let handle = attack::handle_of(path)?;
    let operation = ["open-handle", "/data/file"].into_iter().chain(handle.iter().map(String::as_str));
    container.service_does(&operation.collect::<Vec<_>>())
}

/// A container guesses the handle of a file of the host that is on the file system of its volume.
pub(super) fn guessed_handle(lab: &mut Lab) -> Result<()> {
    let container = privileged(lab)?;
    let secret = container.volume().with_file_name("secret");
    fs::write(&secret, "of the host")?;
    fs::write(container.volume().join("file"), "of the container")?;
    let content = open_handle(&container, &secret)?;
    ensure!(content == "of the host", "the container has read {content}");
    ensure!(fs::read(&secret)?.ends_with(MARK), "the container has not written");
    let path = secret.display().to_string();
    lab.expect(&container, [by_handle("critical", Some(&path))])
}

/// A container opens a file in its volume.
pub(super) fn handle_inside(lab: &mut Lab) -> Result<()> {
    let container = privileged(lab)?;
    fs::write(container.volume().join("file"), "of the container")?;
    open_handle(&container, &container.volume().join("file"))?;
    lab.expect(&container, [by_handle("low", Some("/data/file"))])
}

/// The host sets what it likes, and a container reads it.
pub(super) fn harmless(lab: &mut Lab) -> Result<()> {
    let container = lab.privileged()?;
    for path in ["/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/poweroff_cmd"] {
        let value = fs::read_to_string(path)?;
        fs::write(path, &value)?;
        let seen = container.service_does(&["read-control", path.trim_start_matches("/proc/")])?;
        ensure!(seen == value.trim_end(), "the container sees {seen} instead of {value}");
    }
    lab.expect_none()
}
