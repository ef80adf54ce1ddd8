//! Where things are.

use std::env;
use std::path::{Path, PathBuf};

/// The root of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the workspace")
}

/// Where downloads and what is made of them are kept: `DETECTOR_CACHE`, or `.cache` in the workspace.
pub fn cache() -> PathBuf {
    env::var_os("DETECTOR_CACHE").map_or_else(|| root().join(".cache"), PathBuf::from)
}
