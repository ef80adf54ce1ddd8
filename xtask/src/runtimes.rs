//! Makes the disks with the container engines that nodes have, with the interpreters and servers that images have, and
//! with a Debian that systemd starts, as EROFS images for the test machines.
//!
//! They are too large for an initramfs, which is in memory. From a disk, a machine reads only what it uses.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use detector_tests::machine::Kind;
use tempfile::TempDir;

use crate::debian::Archive;
use crate::{project, setup, shell};

/// Debian packages, which are unpacked and not installed. None of their programs run on this machine.
const PACKAGES: &[&str] = &[
    "docker.io",
    "containerd",
    "runc",
    "podman",
    "crun",
    "conmon",
    "fuse-overlayfs",
    "uidmap",
    "util-linux",
    // These are for a container that runs a whole system, with this disk as its image.
    "systemd",
    "dash",
    // These are for containers whose image is this disk.
    "python3",
    "perl-base",
    "nodejs",
    "php8.2-cli",
    "libapache2-mod-php8.2",
    "openjdk-17-jre-headless",
    "mawk",
    "lua5.4",
    "ruby",
    "nginx",
    "redis-server",
    "postgresql-15",
    "python3-flask",
    // It installs a package in a container whose image is this disk.
    "dpkg",
];

/// What is on the disk for the machine with busy servers besides.
const MORE_PACKAGES: &[&str] = &[
    "mariadb-server",
    "rabbitmq-server",
    "cron",
    "openssh-server",
    "tomcat10",
    "gcc",
    "libc6-dev",
    "logrotate",
    "chromium",
    // Scripts of servers run these, which Debian's images have.
    "coreutils",
    "grep",
    "hostname",
    "sed",
];

/// What is on the disk of a Debian that systemd starts, with all that a package may expect there, and runc.
const SYSTEM: &[&str] = &[
    "systemd-sysv",
    "init-system-helpers",
    "base-files",
    "bash",
    "coreutils",
    "dash",
    "debianutils",
    "diffutils",
    "dpkg",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "libc-bin",
    "logrotate",
    "perl-base",
    "procps",
    "sed",
    "util-linux",
    "runc",
];

/// Files that no program reads, and those that only a disk with more of Perl has.
const UNREAD: &[&str] = &["doc", "info", "locale", "man"];
const UNREAD_OF_PERL: &[&str] = &["perl"];

/// A disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// Container engines, interpreters and a few servers.
    Engines,
    /// The same and more servers.
    Software,
    /// A Debian with systemd, as the root of a machine.
    System,
}

impl Disk {
    /// The disk of a kind of machine.
    pub fn of(kind: Kind) -> Option<Self> {
        match kind {
            Kind::Node => Some(Self::Engines),
            Kind::Software => Some(Self::Software),
            Kind::Systemd => Some(Self::System),
            _ => None,
        }
    }

    /// The directories in `/usr/share` that are left out.
    fn unread(self) -> impl Iterator<Item = &'static str> {
        let of_perl: &[_] = if self == Self::System { &[] } else { UNREAD_OF_PERL };
        UNREAD.iter().chain(of_perl).copied()
    }

    /// Its directory in the cache, and its packages.
    fn content(self) -> (&'static str, Vec<&'static str>) {
        match self {
            Self::Engines => ("runtimes", PACKAGES.to_vec()),
            Self::Software => ("software", [PACKAGES, MORE_PACKAGES].concat()),
            Self::System => ("system", SYSTEM.to_vec()),
        }
    }
}

/// Returns a disk from the cache, or makes it from Debian packages.
///
/// # Errors
///
/// A package cannot be fetched, or the cache cannot be written.
pub fn disk(disk: Disk) -> Result<PathBuf> {
    let ((name, packages), unread) = (disk.content(), disk.unread());
    let folder = project::cache()?.join(name);
    let (disk, wanted) = (folder.join("disk"), folder.join("wanted"));
    let is_complete = || fs::read_to_string(&wanted).is_ok_and(|wanted| wanted == packages.join("\n"));
    if is_complete() {
        return Ok(disk);
    }
    setup::packages()?;
    let _lock = project::lock_cache()?;
    // Another process may have made it in the meantime.
    if is_complete() {
        return Ok(disk);
    }
    fs::create_dir_all(&folder)?;
    let partial = TempDir::with_prefix_in("partial-", &folder)?;
    Archive::open()?.unpack_all(&packages, partial.path())?;
    for name in unread {
        fs::remove_dir_all(partial.path().join("usr/share").join(name))
            .with_context(|| format!("the packages have no {name}"))?;
    }
    let mut make = Command::new("mkfs.erofs");
    // A running machine keeps the disk that it has.
    let new = folder.join("disk.new");
    make.args(["--quiet", "--all-root"]).arg(&new).arg(partial.path());
    shell::long(format!("making the disk {name}"), &mut make)?;
    fs::rename(new, &disk)?;
    fs::write(wanted, packages.join("\n"))?;
    Ok(disk)
}
