//! The effect of an operation: checks that a file was changed, and tells which file that is.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::image::MARK;

/// Checks that the file has the written content and is still the same file.
pub(super) fn verify(path: &Path) -> Result<Value> {
    ensure!(is_marked(path)?, "{} does not have what was written to it", path.display());
    identity(&fs::canonicalize(path)?)
}

/// Whether the file contains what operations write.
pub(super) fn is_marked(path: &Path) -> Result<bool> {
    Ok(fs::read(path)?.windows(MARK.len()).any(|part| part == MARK))
}

/// The device and inode at a path, in the format of a finding.
pub(super) fn identity(path: &Path) -> Result<Value> {
    let stat = fs::symlink_metadata(path).with_context(|| format!("there is no {}", path.display()))?;
    let device = format!("{}:{}", rustix::fs::major(stat.dev()), rustix::fs::minor(stat.dev()));
    Ok(json!({"dev": device, "inode": stat.ino()}))
}
