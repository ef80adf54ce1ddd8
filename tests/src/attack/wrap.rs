//! Other circumstances for an operation.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::mount::{MountFlags, mount};
use rustix::process::WaitOptions;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use serde_json::{Value, json};

use super::{Held, descriptors, mounts, perform, raw, verify};
use crate::sensor::wait_for;

/// A name that says nothing bad.
pub(super) const NAME: &std::ffi::CStr = c"kworker/0:1";

/// In another thread.
pub(super) fn in_thread(operation: &[OsString]) -> Result<Value> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| perform(operation, &mut Held::new()));
        thread.join().expect("an operation does not panic")
    })
}

/// In another thread, after the first one of the process has ended.
pub(super) fn without_leader(operation: &[OsString]) -> Result<Value> {
    let operation = operation.to_vec();
    thread::spawn(move || {
        let outcome = leader_has_ended().and_then(|()| super::main(&operation));
        if let Err(error) = &outcome {
            eprintln!("tool: {error:#}");
        }
        std::process::exit(outcome.is_err().into())
    });
    raw::end_thread()
}

fn leader_has_ended() -> Result<()> {
    wait_for("the end of the first thread", Duration::from_secs(10), || {
        let status = fs::read_to_string("/proc/self/status")?;
        Ok(status.lines().any(|line| line.starts_with("State:\tZ")).then_some(()))
    })
}

/// Under another name of the task.
pub(super) fn renamed(operation: &[OsString]) -> Result<Value> {
    let before = rustix::thread::name()?;
    rustix::thread::set_name(NAME)?;
    let done = perform(operation, &mut Held::new());
    rustix::thread::set_name(&before)?;
    done
}

/// In a user namespace of its own, where it may do everything although it is nobody there, and in a mount namespace of its
/// own.
pub(super) fn in_namespaces(operation: &[OsString]) -> Result<Value> {
    unshared(UnshareFlags::NEWUSER | UnshareFlags::NEWNS, operation)
}

fn unshared(namespaces: UnshareFlags, operation: &[OsString]) -> Result<Value> {
    let before = fs::read_link("/proc/self/ns/mnt")?;
    raw::unshare(namespaces)?;
    ensure!(fs::read_link("/proc/self/ns/mnt")? != before, "the namespace is the same");
    perform(operation, &mut Held::new())
}

/// In a mount namespace of its own.
pub(super) fn with_own_mounts(operation: &[OsString]) -> Result<Value> {
    unshared(UnshareFlags::NEWNS, operation)
}

/// In the mount namespace that is passed through a socket.
pub(super) fn with_mounts(socket: &Path, operation: &[OsString]) -> Result<Value> {
    let namespace = descriptors::receive(socket)?;
    let before = fs::metadata("/")?.dev();
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?;
    ensure!(fs::metadata("/")?.dev() != before, "the root is the same");
    perform(operation, &mut Held::new())
}

/// In another cgroup, to which the process moves itself.
pub(super) fn moved(cgroup: &Path, operation: &[OsString]) -> Result<Value> {
    fs::write(cgroup.join("cgroup.procs"), "0")?;
    perform_in(cgroup, operation)
}

/// In another cgroup, as a child that is born there.
pub(super) fn born(cgroup: &Path, operation: &[OsString]) -> Result<Value> {
    match raw::fork_into(&File::open(cgroup)?)? {
        None => perform_in(cgroup, operation),
        Some(child) => {
            rustix::process::waitpid(Some(child), WaitOptions::empty())?;
            // The child has answered.
            std::process::exit(0)
        }
    }
}

fn perform_in(cgroup: &Path, operation: &[OsString]) -> Result<Value> {
    let processes = fs::read_to_string(cgroup.join("cgroup.procs"))?;
    let ours = rustix::process::getpid().to_string();
    // A process of another pid namespace shows as 0.
    ensure!(processes.lines().any(|process| process == ours), "the process is not in {}", cgroup.display());
    perform(operation, &mut Held::new())
}

/// A container in the container: a cgroup below, a mount namespace, and the directory at `root` as its root. Makes a file in
/// it.
pub(super) fn nested(root: &Path) -> Result<Value> {
    let cgroups = Path::new("/dev/shm/cgroups");
    fs::create_dir_all(cgroups)?;
    mount("cgroup2", cgroups, "cgroup2", MountFlags::empty(), None::<&std::ffi::CStr>)?;
    let inner = cgroups.join("inner");
    fs::create_dir(&inner)?;
    fs::write(inner.join("cgroup.procs"), "0")?;
    let cgroup = fs::read_to_string("/proc/self/cgroup")?;
    ensure!(cgroup.trim_end().ends_with("/inner"), "the process is still in {cgroup}");
    raw::unshare(UnshareFlags::NEWNS)?;
    let root = mounts::perform("pivot-root", &[root]).context("there is such an operation")??;
    let path = Path::new("/file");
    OpenOptions::new().write(true).create_new(true).open(path)?.write_all(super::MARK)?;
    Ok(json!({"root": root, "file": verify(path)?}))
}
