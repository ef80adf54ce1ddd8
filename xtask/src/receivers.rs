//! What receives what the detector forwards, for its tests: the syslog daemons of Debian, and OpenTelemetry's own
//! messages for Python, with which the tests read what is sent in its protocol.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::debian::Archive;
use crate::{project, setup};

/// Their packages, by their names. They are not installed, because one machine can have only one of these daemons.
const PACKAGES: [(&str, &[&str]); 2] =
    [("rsyslog", &["rsyslog", "rsyslog-gnutls", "rsyslog-relp"]), ("syslog-ng", &["syslog-ng-core"])];

/// The packages for Python.
const PYTHON: [&str; 2] = ["opentelemetry-proto==1.45.0", "protobuf==7.36.2"];

/// Returns the directory of the cache in which each of them has a directory with its packages and all that they need
/// (those for Python are in `otlp`), or puts them there.
///
/// # Errors
///
/// A package cannot be fetched, or the cache cannot be written.
pub fn folder() -> Result<PathBuf> {
    setup::packages()?;
    let (folder, wanted) = (project::cache()?.join("receivers"), format!("{PACKAGES:?} {PYTHON:?}"));
    let made_of = folder.join("made-of");
    let is_complete = || fs::read_to_string(&made_of).ok().as_ref() == Some(&wanted);
    if is_complete() {
        return Ok(folder);
    }
    setup::fetchers()?;
    let _lock = project::lock_cache()?;
    // Another process may have fetched them in the meantime.
    if is_complete() {
        return Ok(folder);
    }
    for (name, packages) in PACKAGES {
        let folder = folder.join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        Archive::open()?.unpack_all(packages, &folder)?;
    }
    let python = folder.join("otlp");
    let _ = fs::remove_dir_all(&python);
    setup::pip("fetching the messages of OpenTelemetry", &PYTHON, &python)?;
    fs::write(made_of, wanted)?;
    Ok(folder)
}
