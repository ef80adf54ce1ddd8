//! The disk with the programs of engines and with interpreters, which are unpacked Debian packages.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use anyhow::{Context, Result};

use crate::program::on_host;

/// The only disk that a machine can have.
pub const DEVICE: &str = "/dev/vda";

/// Its mount point.
pub const DISK: &str = "/mnt/engines";

/// Mounts the disk at the first use, and makes links to all its files that the machine does not have itself.
pub fn mount() -> Result<()> {
    if Path::new(DISK).exists() {
        return Ok(());
    }
    fs::create_dir_all(DISK)?;
    on_host("busybox", ["mount", "-t", "erofs", "-o", "ro", DEVICE, DISK])
        .context("this machine has no disk with engines and interpreters")?;
    fs::create_dir_all("/var/tmp")?;
    fs::set_permissions("/var/tmp", Permissions::from_mode(0o1777))?;
    symlink("/run", "/var/run")?;
    link(Path::new(DISK), Path::new("/"))
}

fn link(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            fs::create_dir_all(&to)?;
            link(&from, &to)?;
        } else if fs::symlink_metadata(&to).is_err() {
            symlink(from, to)?;
        }
    }
    Ok(())
}
