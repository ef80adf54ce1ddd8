//! The directories of the project.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The root of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the workspace")
}

/// The directory for builds and test results.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The directory for downloads and files made from them: `DETECTOR_CACHE`, or `.cache` in the workspace. It is created
/// if it does not exist. Deleting it is safe, and makes the next run fetch the newest kernels.
///
/// # Errors
///
/// The directory cannot be created.
pub fn cache() -> Result<PathBuf> {
    let folder = env::var_os("DETECTOR_CACHE").map_or_else(|| root().join(".cache"), PathBuf::from);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make the cache {}", folder.display()))?;
    Ok(folder)
}

/// Locks the cache against other processes and threads until the value is dropped.
///
/// # Errors
///
/// The cache cannot be written.
pub fn lock_cache() -> Result<File> {
    let path = cache()?.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}
