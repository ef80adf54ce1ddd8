//! Container runtimes for the tests: Debian's, unpacked into the cache. They are not installed, for their packages start
//! services.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::{project, setup, shell};

/// The packages, as far as the Debian at hand has them: newer ones have the client of Docker apart.
const PACKAGES: &[&str] = &["docker.io", "docker-cli", "containerd", "podman", "conmon"];

/// Where libraries are in what was unpacked.
const LIBRARIES: &[&str] = &["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];

/// The runtimes, unpacked.
pub struct Runtimes {
    folder: PathBuf,
}

impl Runtimes {
    /// From the cache, or from Debian.
    ///
    /// # Errors
    ///
    /// Debian cannot be asked, or the cache cannot be written.
    pub fn get() -> Result<Self> {
        let runtimes = Self { folder: project::cache()?.join("runtimes") };
        if !runtimes.folder.exists() {
            setup::run()?;
            let _lock = project::lock_cache()?;
            // Somebody else may have fetched them meanwhile.
            if !runtimes.folder.exists() {
                runtimes.fetch()?;
            }
        }
        Ok(runtimes)
    }

    /// Downloads and unpacks what is not installed on this machine. The folder appears when it is complete.
    fn fetch(&self) -> Result<()> {
        let partial = TempDir::with_prefix_in("partial-", project::cache()?)?;
        let (archives, unpacked) = (partial.path().join("archives"), partial.path().join("unpacked"));
        fs::create_dir_all(archives.join("partial"))?;
        fs::create_dir(&unpacked)?;
        let is_there = |name: &&&str| shell::output(Command::new("apt-cache").args(["show", name])).is_ok();
        let names: Vec<_> = PACKAGES.iter().filter(is_there).collect();
        // As a user may: nothing but the archives is written.
        let mut download = Command::new("apt-get");
        download
            .args(["install", "--download-only", "--yes", "--quiet", "--no-install-recommends"])
            .args(["-o", "Debug::NoLocking=true", "-o"])
            .arg(format!("Dir::Cache::archives={}", archives.display()))
            .args(names);
        shell::long("downloading container runtimes", &mut download)?;
        for entry in fs::read_dir(&archives)? {
            let archive = entry?.path();
            if archive.extension().is_some_and(|kind| kind == "deb") {
                shell::output(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(&unpacked))?;
            }
        }
        fs::rename(unpacked, &self.folder).with_context(|| format!("cannot make {}", self.folder.display()))
    }

    /// A program: from what was unpacked, or the one that is installed.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        let unpacked = ["usr/bin", "usr/sbin"].map(|folder| self.folder.join(folder).join(name));
        unpacked.into_iter().find(|file| file.exists()).or_else(|| setup::find(name)).with_context(|| {
            format!("Debian's packages have no {name}: delete {} to fetch them again", self.folder.display())
        })
    }

    /// Where the loader is to look for libraries: `LD_LIBRARY_PATH`.
    pub fn library_path(&self) -> OsString {
        let folders = LIBRARIES.iter().map(|folder| self.folder.join(folder));
        std::env::join_paths(folders).unwrap_or_default()
    }

    /// Where a file of what was unpacked would be if it were installed; others are where they are.
    pub fn installed<'a>(&self, file: &'a Path) -> &'a Path {
        file.strip_prefix(&self.folder).unwrap_or(file)
    }
}
