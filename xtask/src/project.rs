//! Where things are.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The root of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the workspace")
}

/// Where builds and the outcomes of tests go.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Where downloads and what is made of them are kept: `DETECTOR_CACHE`, or `.cache` in the workspace. It is made if it
/// is not there. Deleting it is safe, and the way to get newer kernels.
///
/// # Errors
///
/// It cannot be made.
pub fn cache() -> Result<PathBuf> {
    let folder = env::var_os("DETECTOR_CACHE").map_or_else(|| root().join(".cache"), PathBuf::from);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make the cache {}", folder.display()))?;
    Ok(folder)
}

/// Keeps other processes and threads from changing the cache, for as long as the value lives.
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
