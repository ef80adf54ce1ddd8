//! Makes the kernel execute a program of the container on the host, or switches probes off.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::mount::{MountFlags, mount, mount_bind};
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::answer::NotApplicable;
use super::effect::identity;
use super::operation::Operation;
use super::programs::run;

/// The operations of this module.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation::with("control", "TYPE PATH TEXT", "writes to a control in a file system that it mounts", 3, |args| {
        let kind = args[0].to_str().context("no type")?;
        let path = control(kind, Path::new(&args[1]))?;
        set(&path, args[2].to_str().context("no text")?)
    }),
    Operation::with("bound-control", "PATH TEXT", "writes to a control of procfs by another name", 2, |args| {
        let path = Path::new("/dev/shm/harmless");
        File::create(path)?;
        mount_bind(control("proc", Path::new(&args[0]))?, path)?;
        set(path, args[1].to_str().context("no text")?)
    }),
    Operation::on_two("set-control", "PATH TEXT", "writes to a control", |path, text| {
        set(path, text.to_str().context("no text")?)
    }),
    Operation::on("read-control", "reads a control of procfs", |path| {
        Ok(json!(fs::read_to_string(control("proc", path)?)?.trim_end()))
    }),
    Operation::plain("crash", "crashes a child", crash),
    Operation::plain("die", "crashes", || std::process::abort()),
    Operation::plain("want-module", "makes the kernel look for a module", want_module),
    Operation::on("leave-empty", "leaves a new cgroup below this one empty", leave_empty),
];

/// The path of a control in a file system of this type, which is mounted if it is not yet.
fn control(kind: &str, path: &Path) -> Result<PathBuf> {
    let at = Path::new("/dev/shm").join(kind);
    if !at.exists() {
        fs::create_dir(&at)?;
        if let Err(error) = mount(kind, &at, kind, MountFlags::empty(), None::<&std::ffi::CStr>) {
            fs::remove_dir(&at)?;
            return Err(NotApplicable(format!("{kind} cannot be mounted: {error}")).into());
        }
    }
    let path = at.join(path);
    if !path.exists() {
        return Err(NotApplicable(format!("this kernel has no {}", path.display())).into());
    }
    Ok(path)
}

fn set(path: &Path, text: &str) -> Result<Value> {
    let mut file = File::options().write(true).open(path).with_context(|| format!("no {}", path.display()))?;
    let mut answer = identity(path)?;
    match file.write_all(text.as_bytes()) {
        Err(error) if matches!(error.kind(), ErrorKind::ResourceBusy | ErrorKind::Unsupported) => {
            answer["refused"] = json!(true);
        }
        written => written.with_context(|| format!("{} cannot be written", path.display()))?,
    }
    Ok(answer)
}

fn crash() -> Result<Value> {
    let status = Command::new("/proc/self/exe").arg("die").status()?;
    ensure!(status.signal() == Some(Signal::ABORT.as_raw()), "the child has not crashed: {status}");
    Ok(Value::Null)
}

/// Asks for a protocol that the kernel does not have.
fn want_module() -> Result<Value> {
    ensure!(socket(AddressFamily::X25, SocketType::SEQPACKET, None).is_err(), "the kernel has X.25");
    Ok(Value::Null)
}

fn leave_empty(cgroup: &Path) -> Result<Value> {
    let inner = cgroup.join("left");
    fs::create_dir(&inner)?;
    fs::write(inner.join("notify_on_release"), "1")?;
    run(Command::new("/proc/self/exe").arg("moved").arg(&inner).args(["run", "/bin/true"]))
}
