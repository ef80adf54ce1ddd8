//! Builds the detector and the guest.

use std::fs;
use std::path::PathBuf;
use std::thread;

use anyhow::{Context, Result, ensure};
use object::Endianness;
use object::elf::{FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader as _, ProgramHeader as _};

use crate::{project, setup, shell};

/// The target is always given explicitly, so that the flags below do not apply to build scripts.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The output of `dist`.
#[derive(Clone, Debug)]
pub struct Dist {
    /// The detector: one static file that runs on any supported kernel and any distribution.
    pub detector: PathBuf,
    /// The program that runs in the virtual machine.
    pub guest: PathBuf,
}

/// Runs `cargo build` for the detector, after the set-up.
///
/// # Errors
///
/// A tool is missing, or the code does not build.
pub fn build() -> Result<()> {
    setup::run()?;
    shell::run(shell::cargo().args(["build", "--package", "detector"]))
}

/// Builds static release binaries and copies the detector to `dist/`.
///
/// # Errors
///
/// Like [`build`], or a binary is not static.
pub fn dist() -> Result<Dist> {
    // The guest needs nothing that the set-up installs, and shares most dependencies with the detector. It is built
    // first, because the set-up mostly waits for the network.
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
    // A running program cannot be written to, but its file can be replaced.
    let new = project::root().join("dist/detector.new");
    fs::copy(built.join("detector"), &new).and_then(|_| fs::rename(&new, &dist.detector)).context("filling dist/")?;
    Ok(dist)
}

/// Builds binaries. The packages are always the same, because they decide the features of shared dependencies.
fn release(binaries: &[&str]) -> Result<()> {
    let mut build = shell::cargo();
    build.args(["build", "--release", "--target", TARGET, "--target-dir"]).arg(project::target());
    build.args(["--package", "detector", "--package", "detector-tests"]);
    build.args(binaries.iter().flat_map(|binary| ["--bin", binary]));
    shell::run(build.env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static"))
}

/// Whether a binary needs no dynamic linker.
fn is_static(binary: &[u8]) -> Result<bool> {
    let header = FileHeader64::<Endianness>::parse(binary)?;
    let endian = header.endian()?;
    Ok(header.program_headers(endian, binary)?.iter().all(|segment| segment.p_type(endian) != PT_INTERP))
}
