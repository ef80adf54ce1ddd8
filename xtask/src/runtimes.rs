//! Makes the disk with the container engines that nodes have, and with the interpreters and servers that images have,
//! as an EROFS image for the test machines.
//!
//! They are too large for an initramfs, which is in memory. From a disk, a machine reads only what it uses.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
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

/// Files that no program reads.
const UNREAD: &[&str] = &["doc", "info", "locale", "man", "perl"];

/// Returns the disk from the cache, or makes it from Debian packages.
///
/// # Errors
///
/// A package cannot be fetched, or the cache cannot be written.
pub fn disk() -> Result<PathBuf> {
    let folder = project::cache()?.join("runtimes");
    let (disk, wanted) = (folder.join("disk"), folder.join("wanted"));
    let is_complete = || fs::read_to_string(&wanted).is_ok_and(|wanted| wanted == PACKAGES.join("\n"));
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
    Archive::open()?.unpack_all(PACKAGES, partial.path())?;
    for name in UNREAD {
        fs::remove_dir_all(partial.path().join("usr/share").join(name))
            .with_context(|| format!("the packages have no {name}"))?;
    }
    let mut make = Command::new("mkfs.erofs");
    // A running machine keeps the disk that it has.
    let new = folder.join("disk.new");
    make.args(["--quiet", "--all-root"]).arg(&new).arg(partial.path());
    shell::long("making the disk of container engines and interpreters", &mut make)?;
    fs::rename(new, &disk)?;
    fs::write(wanted, PACKAGES.join("\n"))?;
    Ok(disk)
}
