//! Programs that receive what the detector forwards, for its tests: the syslog daemons of Debian.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::debian::Archive;
use crate::{project, setup};

/// Their packages, by their names. They are not installed, because one machine can have only one of these daemons.
const PACKAGES: [(&str, &[&str]); 2] =
    [("rsyslog", &["rsyslog", "rsyslog-gnutls", "rsyslog-relp"]), ("syslog-ng", &["syslog-ng-core"])];

/// Returns the directory of the cache in which each of them has a directory with its packages and all that they need,
/// or puts them there.
///
/// # Errors
///
/// A package cannot be fetched, or the cache cannot be written.
pub fn folder() -> Result<PathBuf> {
    setup::packages()?;
    let _lock = project::lock_cache()?;
    let (folder, wanted) = (project::cache()?.join("receivers"), format!("{PACKAGES:?}"));
    let made_of = folder.join("made-of");
    if fs::read_to_string(&made_of).ok().as_ref() == Some(&wanted) {
        return Ok(folder);
    }
    for (name, packages) in PACKAGES {
        let folder = folder.join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        Archive::open()?.unpack_all(packages, &folder)?;
    }
    fs::write(made_of, wanted)?;
    Ok(folder)
}
