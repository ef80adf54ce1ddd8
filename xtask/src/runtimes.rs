//! The disk with the container runtimes that nodes have: an EROFS, for machines that test with them.
//!
//! They are too much for a first file system, which is in memory; of a disk, a machine reads what it uses.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::debian::Archive;
use crate::{project, setup, shell};

/// Packages of Debian. They are unpacked, not installed: nothing of them starts on this machine.
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
    // For a container that is a system of its own, with this disk as its image.
    "systemd",
    "dash",
];

/// What no program reads.
const UNREAD: &[&str] = &["doc", "info", "locale", "man", "perl"];

/// The disk, from the cache or from Debian.
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
    // Somebody else may have made it meanwhile.
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
    make.args(["--quiet", "--all-root"]).arg(&disk).arg(partial.path());
    shell::long("making the disk of container runtimes", &mut make)?;
    fs::write(wanted, PACKAGES.join("\n"))?;
    Ok(disk)
}
