//! Building the detector and the guest.

use std::fs;
use std::path::PathBuf;
use std::thread;

use anyhow::{Context, Result, ensure};
use object::Endianness;
use object::elf::{FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader as _, ProgramHeader as _};

use crate::{project, setup, shell};

/// Named always, so that the flags below are not used for build scripts.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What `dist` makes.
#[derive(Clone, Debug)]
pub struct Dist {
    /// The detector: one file that runs on any kernel and distribution.
    pub detector: PathBuf,
    /// The program that runs in the virtual machine.
    pub guest: PathBuf,
}

/// `cargo build` of the detector, with what it needs.
///
/// # Errors
///
/// A tool is missing or the code does not build.
pub fn build() -> Result<()> {
    setup::run()?;
    shell::run(shell::cargo().args(["build", "--package", "detector"]))
}

/// Builds static release binaries and puts the detector into `dist/`.
///
/// # Errors
///
/// As [`build`]; or a binary is not static.
pub fn dist() -> Result<Dist> {
    // The guest needs nothing that the set-up installs, and most of what the detector is made of is in it. Most of the
    // time, the set-up waits for the network.
    thread::scope(|scope| {
        let set_up = scope.spawn(setup::run);
        let built = release(&["guest"]);
        set_up.join().expect("the set-up does not panic").and(built)
    })?;
    release(&["guest", "detector"])?;
    let built = project::target().join(TARGET).join("release");
    let dist = Dist { detector: project::root().join("dist/detector"), guest: built.join("guest") };
    for binary in [&built.join("detector"), &dist.guest] {
        ensure!(is_static(&fs::read(binary)?)?, "{} is not static", binary.display());
    }
    fs::create_dir_all(project::root().join("dist"))?;
    // A program that runs can be replaced, not written to.
    let new = project::root().join("dist/detector.new");
    fs::copy(built.join("detector"), &new).and_then(|_| fs::rename(&new, &dist.detector)).context("filling dist/")?;
    Ok(dist)
}

/// Builds binaries. The packages are the same for all of them: the features of what both are made of depend on that.
fn release(binaries: &[&str]) -> Result<()> {
    let mut build = shell::cargo();
    build.args(["build", "--release", "--target", TARGET, "--target-dir"]).arg(project::target());
    build.args(["--package", "detector", "--package", "detector-tests"]);
    build.args(binaries.iter().flat_map(|binary| ["--bin", binary]));
    shell::run(build.env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static"))
}

/// Whether a binary asks for no dynamic linker.
fn is_static(binary: &[u8]) -> Result<bool> {
    let header = FileHeader64::<Endianness>::parse(binary)?;
    let endian = header.endian()?;
    Ok(header.program_headers(endian, binary)?.iter().all(|segment| segment.p_type(endian) != PT_INTERP))
}
