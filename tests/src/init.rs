//! The first process of the virtual machine. It sets up the machine, starts a worker, reaps the orphans of containers,
//! and always powers the machine off.
//!
//! A child does the work, so that process 1 can wait for any process without taking the worker's children.

use std::ffi::{CString, OsString};
use std::fs;
use std::os::unix::process::CommandExt;
use std::panic::UnwindSafe;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};
use rustix::mount::{MountFlags, mount, mount_move};
use rustix::process::{WaitOptions, wait};
use rustix::system::{RebootCommand, reboot};

use crate::protocol::Message;

/// The file systems to mount: type, mount point, options.
const MOUNTS: &[(&str, &str, &str)] = &[
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("devtmpfs", "/dev", ""),
    ("devpts", "/dev/pts", "ptmxmode=0666"),
    ("tmpfs", "/dev/shm", ""),
    ("tmpfs", "/run", ""),
    ("tmpfs", "/tmp", ""),
    ("bpf", "/sys/fs/bpf", ""),
    ("securityfs", "/sys/kernel/security", ""),
    ("debugfs", "/sys/kernel/debug", ""),
    ("tracefs", "/sys/kernel/tracing", ""),
];

/// The directory of the cgroup hierarchies.
pub const CGROUPS: &str = "/sys/fs/cgroup";

/// The option on the kernel's command line that selects cgroups: `v1` for version 1 only, or `hybrid` for both
/// versions.
const CGROUPS_OPTION: &str = "lab.cgroups=";

/// Runs the machine. Never returns, because the machine is powered off or the kernel panics.
pub fn main(machine: impl FnOnce() -> Result<()> + UnwindSafe) -> ExitCode {
    let failure = std::panic::catch_unwind(machine)
        .unwrap_or_else(|_| bail!("init panicked"))
        .err()
        .map(|error| format!("{error:#}"));
    if let Some(failure) = &failure {
        eprintln!("guest: {failure}");
    }
    if let Err(error) = (Message::End { failure }).send() {
        eprintln!("guest: {error:#}");
    }
    rustix::fs::sync();
    for command in [RebootCommand::PowerOff, RebootCommand::Restart] {
        if let Err(error) = reboot(command) {
            eprintln!("guest: cannot power off: {error}");
        }
    }
    ExitCode::FAILURE
}

/// Sets the machine up, and runs the worker in it.
pub fn machine(mode: &[OsString]) -> Result<()> {
    load_modules()?;
    switch_root()?;
    for (kind, target, options) in MOUNTS {
        mount_at(kind, target, options)?;
    }
    mount_cgroups()?;
    // The kernel may have connected the standard streams to files of the old root.
    take_console()?;

    let worker = Command::new("/init")
        .arg0("worker")
        .args(mode)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .env("TERM", "xterm-256color")
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::inherit())
        .spawn()
        .context("cannot start the worker")?;
    loop {
        if let Some((pid, status)) = wait(WaitOptions::empty())?
            && pid.as_raw_nonzero().get().cast_unsigned() == worker.id()
        {
            ensure!(status.exit_status() == Some(0), "the guest's worker failed ({status:?}): see the console");
            return Ok(());
        }
    }
}

/// Connects the standard streams to the console.
pub fn take_console() -> Result<()> {
    let console = fs::OpenOptions::new().read(true).write(true).open("/dev/console")?;
    rustix::stdio::dup2_stdin(&console)?;
    rustix::stdio::dup2_stdout(&console)?;
    rustix::stdio::dup2_stderr(&console)?;
    Ok(())
}

/// Mounts the cgroup hierarchies that the kernel's command line selects.
pub fn mount_cgroups() -> Result<()> {
    let command_line = fs::read_to_string("/proc/cmdline")?;
    let Some(version) = command_line.split_whitespace().find_map(|word| word.strip_prefix(CGROUPS_OPTION)) else {
        return mount_at("cgroup2", CGROUPS, "");
    };
    mount_at("tmpfs", CGROUPS, "")?;
    // A line has the name, the hierarchy, the number of cgroups, and whether the controller is enabled. The first line
    // is a header.
    for controller in fs::read_to_string("/proc/cgroups")?.lines().skip(1).filter(|line| line.ends_with("\t1")) {
        let name = controller.split('\t').next().unwrap_or_default();
        mount_at("cgroup", &format!("{CGROUPS}/{name}"), name)?;
    }
    mount_at("cgroup", &format!("{CGROUPS}/systemd"), "none,name=systemd")?;
    match version {
        "v1" => Ok(()),
        "hybrid" => mount_at("cgroup2", &format!("{CGROUPS}/unified"), ""),
        _ => bail!("{CGROUPS_OPTION}{version} is not a known value"),
    }
}

/// The directory of a cgroup, in the hierarchy by which the sensor identifies containers.
pub fn cgroup(path: &str) -> String {
    let old = format!("{CGROUPS}/pids");
    let hierarchy = if Path::new(&old).exists() { &old } else { CGROUPS };
    format!("{hierarchy}{path}")
}

/// Mounts a file system, and creates the mount point.
pub fn mount_at(kind: &str, target: &str, options: &str) -> Result<()> {
    fs::create_dir_all(target).with_context(|| format!("cannot make {target}"))?;
    let options = CString::new(options)?;
    mount(kind, target, kind, MountFlags::empty(), Some(options.as_c_str()))
        .with_context(|| format!("cannot mount {kind} on {target}"))
}

/// Loads the modules in the order of `/modules/order`.
pub fn load_modules() -> Result<()> {
    let folder = Path::new("/modules");
    let order = fs::read_to_string(folder.join("order")).context("cannot read /modules/order")?;
    for name in order.lines() {
        let module = fs::File::open(folder.join(name)).with_context(|| format!("cannot open module {name}"))?;
        match rustix::system::finit_module(&module, c"", 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => bail!("cannot load module {name}: {error}"),
        }
    }
    Ok(())
}

/// Copies the initramfs to a tmpfs and makes that the root, because runc calls pivot_root(2), which does not work on an
/// initramfs.
fn switch_root() -> Result<()> {
    let new = Path::new("/newroot");
    mount_at("tmpfs", "/newroot", "size=90%,mode=0755")?;
    for entry in fs::read_dir("/")? {
        let entry = entry?;
        if entry.path() != new {
            move_tree(&entry.path(), &new.join(entry.file_name()))?;
        }
    }
    rustix::process::chdir(new)?;
    mount_move(".", "/").context("cannot move the new root into place")?;
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")?;
    Ok(())
}

fn move_tree(from: &Path, to: &Path) -> Result<()> {
    let kind = fs::symlink_metadata(from)?.file_type();
    if kind.is_dir() {
        fs::create_dir_all(to)?;
        fs::set_permissions(to, fs::metadata(from)?.permissions())?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            move_tree(&entry.path(), &to.join(entry.file_name()))?;
        }
    } else if kind.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(from)?, to)?;
    } else if kind.is_file() {
        fs::copy(from, to).with_context(|| format!("cannot copy {} to the new root", from.display()))?;
        // Deleting the original frees its memory.
        fs::remove_file(from)?;
    }
    Ok(())
}
