//! A machine with a Debian that systemd has started: what is installed on a node is installed there as it is on one.
//!
//! The root is an overlay over the disk, whose packages are unpacked and not configured. A service of this system runs
//! the worker.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use rustix::mount::{MountFlags, mount, mount_move};

use crate::engine::disk::DEVICE;
use crate::init::{load_modules, mount_at, take_console};
use crate::machine::Kind;

/// The directory with the package of the detector.
pub const PACKAGES: &str = "/srv";

/// The commands with which README.md installs the package. The last one waits until the daemon watches.
pub const INSTALL: &[&str] = &["dpkg -i detector_0.1.0_amd64.deb", "detector status --wait 120s"];

/// The exposure of the service, as `systemd-analyze security` judges it and README.md says.
pub const EXPOSURE: &str = "4.8";

/// What the system has from the initramfs: the worker, and what the image of the containers is made of.
const FROM_INITRAMFS: &[&str] = &["/init", "/bin/busybox", "/usr/bin/dash"];

/// What the configuration of the packages would have made, and their contents.
const FILES: &[(&str, &str)] = &[
    ("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n"),
    ("/etc/group", "root:x:0:\nadm:x:4:\nshadow:x:42:\nsystemd-journal:x:101:\nnogroup:x:65534:\n"),
    ("/etc/hostname", "node\n"),
    ("/etc/machine-id", ""),
    ("/var/lib/dpkg/status", ""),
];

/// Units that would wait for the console or use it.
const MASKED: &[&str] = &["serial-getty@ttyS0.service", "getty.target"];

/// Whether these arguments of the first process ask for such a machine.
pub fn is_wanted(mode: &[OsString]) -> bool {
    mode.get(1).is_some_and(|suffix| suffix == Kind::Systemd.suffix())
}

/// Makes the root and executes systemd, for which the arguments are put into a service.
pub fn boot(mode: &[OsString]) -> Result<()> {
    load_modules()?;
    mount_at("devtmpfs", "/dev", "")?;
    fs::create_dir_all("/lower")?;
    mount(DEVICE, "/lower", "erofs", MountFlags::RDONLY, None).context("this machine has no disk with a system")?;
    mount_at("tmpfs", "/changes", "size=75%,mode=0755")?;
    fs::create_dir_all("/changes/upper")?;
    fs::create_dir_all("/changes/work")?;
    mount_at("overlay", "/newroot", "lowerdir=/lower,upperdir=/changes/upper,workdir=/changes/work")?;
    let new = |path: &str| format!("/newroot{path}");
    // The changes of an overlay cannot be on an overlay.
    mount_at("tmpfs", &new("/var/lib/lab"), "mode=0755")?;
    for folder in ["/dev", "/proc", "/sys", "/run", "/tmp", PACKAGES, "/etc/systemd/system/multi-user.target.wants"] {
        fs::create_dir_all(new(folder))?;
    }
    for path in FROM_INITRAMFS {
        fs::copy(path, new(path)).with_context(|| format!("cannot copy {path} to the system"))?;
    }
    for entry in fs::read_dir("/packages")? {
        let entry = entry?;
        fs::copy(entry.path(), Path::new(&new(PACKAGES)).join(entry.file_name()))?;
    }
    for (path, content) in FILES {
        fs::write(new(path), content).with_context(|| format!("cannot write {path}"))?;
    }
    for unit in MASKED {
        symlink("/dev/null", new(&format!("/etc/systemd/system/{unit}")))?;
    }
    let arguments: Vec<_> = mode.iter().map(|argument| argument.to_string_lossy()).collect();
    // What it tells the host is a line of a serial port, and the console is another one.
    let unit = format!("[Service]\nExecStart=@/init service {}\nKillMode=process\n", arguments.join(" "));
    fs::write(new("/etc/systemd/system/lab.service"), unit)?;
    symlink("../lab.service", new("/etc/systemd/system/multi-user.target.wants/lab.service"))?;
    rustix::process::chdir("/newroot")?;
    mount_move(".", "/").context("cannot move the new root into place")?;
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")?;
    let error = Command::new("/lib/systemd/systemd").env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").exec();
    bail!("cannot execute systemd: {error}")
}

/// Runs the worker, as a service of the system.
pub fn service(mode: &[OsString]) -> Result<()> {
    take_console()?;
    let status = Command::new("/init").arg0("worker").args(mode).env("RUST_BACKTRACE", "1").status()?;
    ensure!(status.success(), "the guest's worker failed ({status}): see the console");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_says_what_is_tested() {
        let readme = include_str!("../../README.md");
        for command in INSTALL {
            assert!(readme.contains(&format!("\n    {command}")), "{command} is not in README.md");
        }
        assert!(readme.contains(&format!(" {EXPOSURE} ")), "README.md does not have the exposure {EXPOSURE}");
    }
}
