//! Performs operations in other circumstances.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::mount::{MountFlags, mount};
use rustix::process::WaitOptions;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use serde_json::{Value, json};

use super::effect::verify;
use super::operation::{Operation, Performer};
use super::{answer, descriptors, mounts, raw};
use crate::image::MARK;
use crate::program::wait_for;

/// An unsuspicious name of a task.
pub(super) const NAME: &std::ffi::CStr = c"kworker/0:1";

/// The operations of this module, which perform another one in other circumstances.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation::around("in-thread", "OPERATION…", "in another thread", 1, in_thread),
    Operation::around("without-leader", "OPERATION…", "after the first thread has ended", 1, without_leader),
    Operation::around("renamed", "OPERATION…", "under another name of the task", 1, renamed),
    Operation::around("in-namespaces", "OPERATION…", "in a user and a mount namespace of its own", 1, in_namespaces),
    Operation::around(
        "as-root-of-namespaces",
        "OPERATION…",
        "in these, as the user that owns what is there",
        1,
        as_root,
    ),
    Operation::around("with-own-mounts", "OPERATION…", "in a mount namespace of its own", 1, with_own_mounts),
    Operation::around(
        "with-mounts",
        "SOCKET OPERATION…",
        "in the mount namespace that a socket passes",
        2,
        |args, perform| with_mounts(Path::new(&args[0]), &args[1..], perform),
    ),
    Operation::around(
        "moved",
        "CGROUP OPERATION…",
        "after it has moved itself to another cgroup",
        2,
        |args, perform| moved(Path::new(&args[0]), &args[1..], perform),
    ),
    Operation::around(
        "born",
        "CGROUP OPERATION…",
        "in a child that is born in another cgroup",
        2,
        |args, perform| born(Path::new(&args[0]), &args[1..], perform),
    ),
    Operation::around(
        "deep-below",
        "DIRECTORY OPERATION…",
        "in a directory whose path is longer than PATH_MAX",
        2,
        |args, perform| deep_below(Path::new(&args[0]), &args[1..], perform),
    ),
    Operation::on("nested", "makes a file as a container in the container, with a directory as its root", nested),
];

/// Performs an operation in a new directory with the path of which no system call can be called.
fn deep_below(directory: &Path, operation: &[OsString], perform: Performer) -> Result<Value> {
    std::env::set_current_dir(directory)?;
    let name = "d".repeat(240);
    for _ in 0..=libc::PATH_MAX as usize / name.len() {
        fs::create_dir(&name)?;
        std::env::set_current_dir(&name)?;
    }
    perform(operation)
}

fn in_thread(operation: &[OsString], perform: Performer) -> Result<Value> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| perform(operation));
        thread.join().expect("an operation does not panic")
    })
}

fn without_leader(operation: &[OsString], perform: Performer) -> Result<Value> {
    let operation = operation.to_vec();
    thread::spawn(move || {
        let outcome = leader_has_ended().and_then(|()| answer::print(perform(&operation)));
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

fn renamed(operation: &[OsString], perform: Performer) -> Result<Value> {
    let before = rustix::thread::name()?;
    rustix::thread::set_name(NAME)?;
    let done = perform(operation);
    rustix::thread::set_name(&before)?;
    done
}

/// Performs an operation in a new user namespace, where the process has all capabilities, and in a new mount namespace.
fn in_namespaces(operation: &[OsString], perform: Performer) -> Result<Value> {
    unshared(UnshareFlags::NEWUSER | UnshareFlags::NEWNS, operation, perform)
}

/// Does the same as a process that has the user and group ids 0 there, so that it may open what belongs to them.
fn as_root(operation: &[OsString], perform: Performer) -> Result<Value> {
    raw::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS)?;
    for (file, text) in [("uid_map", "0 0 1"), ("setgroups", "deny"), ("gid_map", "0 0 1")] {
        fs::write(format!("/proc/self/{file}"), text)?;
    }
    perform(operation)
}

fn unshared(namespaces: UnshareFlags, operation: &[OsString], perform: Performer) -> Result<Value> {
    let before = fs::read_link("/proc/self/ns/mnt")?;
    raw::unshare(namespaces)?;
    ensure!(fs::read_link("/proc/self/ns/mnt")? != before, "the namespace is the same");
    perform(operation)
}

fn with_own_mounts(operation: &[OsString], perform: Performer) -> Result<Value> {
    unshared(UnshareFlags::NEWNS, operation, perform)
}

fn with_mounts(socket: &Path, operation: &[OsString], perform: Performer) -> Result<Value> {
    let namespace = descriptors::receive(socket)?;
    let before = fs::metadata("/")?.dev();
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?;
    ensure!(fs::metadata("/")?.dev() != before, "the root is the same");
    perform(operation)
}

fn moved(cgroup: &Path, operation: &[OsString], perform: Performer) -> Result<Value> {
    fs::write(cgroup.join("cgroup.procs"), "0")?;
    perform_in(cgroup, operation, perform)
}

fn born(cgroup: &Path, operation: &[OsString], perform: Performer) -> Result<Value> {
    match raw::fork_into(&File::open(cgroup)?)? {
        None => perform_in(cgroup, operation, perform),
        Some(child) => {
            rustix::process::waitpid(Some(child), WaitOptions::empty())?;
            // The child has answered.
            std::process::exit(0)
        }
    }
}

fn perform_in(cgroup: &Path, operation: &[OsString], perform: Performer) -> Result<Value> {
    let processes = fs::read_to_string(cgroup.join("cgroup.procs"))?;
    let ours = rustix::process::getpid().to_string();
    // A process of another pid namespace has pid 0 here.
    ensure!(processes.lines().any(|process| process == ours), "the process is not in {}", cgroup.display());
    perform(operation)
}

/// Creates a file in a nested container: in a cgroup below that of the container, in a new mount namespace, and with
/// the directory at `root` as its root.
fn nested(root: &Path) -> Result<Value> {
    let cgroups = Path::new("/dev/shm/cgroups");
    fs::create_dir_all(cgroups)?;
    mount("cgroup2", cgroups, "cgroup2", MountFlags::empty(), None::<&std::ffi::CStr>)?;
    let inner = cgroups.join("inner");
    fs::create_dir(&inner)?;
    fs::write(inner.join("cgroup.procs"), "0")?;
    let cgroup = fs::read_to_string("/proc/self/cgroup")?;
    ensure!(cgroup.trim_end().ends_with("/inner"), "the process is still in {cgroup}");
    raw::unshare(UnshareFlags::NEWNS)?;
    let root = mounts::pivot_to(root)?;
    let path = Path::new("/file");
    OpenOptions::new().write(true).create_new(true).open(path)?.write_all(MARK)?;
    Ok(json!({"root": root, "file": verify(path)?}))
}
