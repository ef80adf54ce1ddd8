//! What receives what the detector forwards, for its tests: the syslog daemons of Debian, OpenTelemetry's own messages
//! for Python and a server of gRPC, with which the tests read what is sent in its protocol, and its Collector.

use std::fs;
use std::path::PathBuf;

use crate::debian::Archive;
use crate::{go, project, setup};
use anyhow::Result;

/// Their packages, by their names. They are not installed, because one machine can have only one of these daemons.
const PACKAGES: [(&str, &[&str]); 2] =
    [("rsyslog", &["rsyslog", "rsyslog-gnutls", "rsyslog-relp"]), ("syslog-ng", &["syslog-ng-core"])];

/// The packages for Python.
const PYTHON: [&str; 5] = [
    "opentelemetry-proto==1.45.0",
    "protobuf==7.36.2",
    "grpcio==1.85.3",
    "typing_extensions==4.16.0",
    "googleapis-common-protos==1.76.0",
];

/// The program that is the Collector.
const COLLECTOR: &str = "detector/tests/receivers/collector";

/// Returns the directory of the cache in which each of them has a directory with its packages and all that they need
/// (those for Python are in `otlp`, and the Collector is the file `collector`), or puts them there.
///
/// # Errors
///
/// A package cannot be fetched, or the cache cannot be written.
pub fn folder() -> Result<PathBuf> {
    setup::packages()?;
    let source = project::root().join(COLLECTOR);
    let wanted = format!("{PACKAGES:?} {PYTHON:?} {}", go::made_of(&source)?);
    let folder = project::cache()?.join("receivers");
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
    setup::pip("fetching the messages of OpenTelemetry and gRPC", &PYTHON, &python)?;
    let what = "the Collector of OpenTelemetry, which takes a minute or two";
    go::build(what, &source, "", &folder.join("collector"))?;
    fs::write(made_of, wanted)?;
    Ok(folder)
}
