//! Builds the BPF object from `detector-ebpf` and hands its path to the crate, which embeds it.
//!
//! Stable Rust has no standard library for BPF. Two toolchains can build the object, and the first one that is
//! installed is used:
//!
//! 1. Debian's `rustc-web` with `libstd-rust-web-dev-bpf`, a compiler with a prebuilt `core` for BPF.
//! 2. The nightly toolchain of rustup with `rust-src`, which builds `core` together with the object.
//!
//! Both need `bpf-linker`. The environment variable `DETECTOR_BPF_RUSTC` selects another compiler of the first kind.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use object::build::elf::SectionData;

/// The compiler that Debian installs.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const TARGET: &str = "bpfel-unknown-none";

fn main() -> Result<(), Box<dyn Error>> {
    let manifest = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let workspace = manifest.parent().ok_or("the crate is not in the workspace")?;
    for source in ["detector-ebpf/src", "detector-ebpf/Cargo.toml", "detector-common/src", "Cargo.toml"] {
        println!("cargo:rerun-if-changed={}", workspace.join(source).display());
    }
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=DETECTOR_BPF_RUSTC");

    let object = build(workspace)?;
    let embedded = PathBuf::from(env::var("OUT_DIR")?).join("detector.bpf.o");
    let stripped = strip(&object).map_err(|e| format!("stripping {}: {e}", object.display()))?;
    fs::write(&embedded, stripped).map_err(|e| format!("writing {}: {e}", embedded.display()))?;
    println!("cargo:rustc-env=DETECTOR_BPF_OBJECT={}", embedded.display());
    Ok(())
}

/// Compiles and links the object, and returns its path.
fn build(workspace: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let mut cargo = cargo()?;
    // All profiles and features of the daemon share this target directory. It is not the workspace's own, because cargo
    // locks that one while this script runs.
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from).join("bpf");
    // The probes must not inherit what cargo sets for this build script, or what a person set for the daemon's profile.
    for (key, _) in env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("CARGO_PROFILE_")) {
        cargo.env_remove(key);
    }
    for inherited in ["RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET", "CARGO_MAKEFLAGS"] {
        cargo.env_remove(inherited);
    }
    let flags = [
        "-Clinker=bpf-linker".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        // Otherwise, LLVM calls a function to set a few bytes to zero.
        "-Clink-arg=--disable-expand-memcpy-in-order".to_owned(),
        "-Cdebuginfo=2".to_owned(), // The BTF is generated from it.
        format!("--cfg=bpf_target_arch=\"{}\"", env::var("CARGO_CFG_TARGET_ARCH")?),
    ];
    cargo
        .current_dir(workspace)
        .args(["build", "--package", "detector-ebpf", "--release", "--target", TARGET, "--target-dir"])
        .arg(&target)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        // The workspace's release profile is meant for the daemon.
        .envs([
            ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"),
            ("CARGO_PROFILE_RELEASE_STRIP", "none"),
            ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
        ]);
    if env::var_os("CARGO_FEATURE_PROBE_LOG").is_some() {
        cargo.args(["--features", "probe-log"]);
    }
    let output = cargo.output().map_err(|e| format!("running cargo for the BPF object: {e}"))?;
    if !output.status.success() {
        return Err(format!("the BPF object does not build:\n{}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(target.join(TARGET).join("release").join("detector-ebpf"))
}

/// Returns the object without what only debuggers need, which is most of it: the DWARF, of which the BTF was made, and
/// the lines of the source, which the daemon and the kernel would keep for each program.
fn strip(object: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    let bytes = fs::read(object)?;
    let mut builder = object::build::elf::Builder::read(&*bytes)?;
    for section in builder.sections.iter_mut() {
        let name = &section.name;
        // Loaders do not apply the relocations of BTF.
        let unused: [&[u8]; 3] = [b".debug_", b".rel.debug_", b".rel.BTF"];
        section.delete = unused.iter().any(|start| name.starts_with(start));
        if **name == b".BTF.ext"[..]
            && let SectionData::Data(data) = &mut section.data
        {
            *data = without_lines(data).ok_or("its section .BTF.ext is truncated")?.into();
        }
    }
    // LLVM puts the names of sections and of symbols into the same section, which the writer does not.
    let names = builder.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = object::elf::SHT_STRTAB;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    builder.write(&mut stripped)?;
    Ok(stripped)
}

/// Returns a `.BTF.ext` section (`struct btf_ext_header`, tools/lib/bpf/libbpf_internal.h, Linux 6.12) without the
/// lines of the source. Returns `None` if it is too short.
fn without_lines(section: &[u8]) -> Option<Vec<u8>> {
    // Where the header has its own length, and the offsets and lengths of the parts after it.
    const HEADER: usize = 4;
    const LINES: usize = 16;
    const LINES_LENGTH: usize = 20;
    const RELOCATIONS: usize = 24;
    let number = |at: usize| Some(u32::from_le_bytes(section.get(at..at + 4)?.try_into().ok()?));
    let (lines, length, relocations) = (number(LINES)?, number(LINES_LENGTH)?, number(RELOCATIONS)?);
    let start = usize::try_from(number(HEADER)?.checked_add(lines)?).ok()?;
    let mut without = section.get(..start)?.to_vec();
    without.extend(section.get(start + length as usize..)?);
    let relocations = if relocations > lines { relocations.checked_sub(length)? } else { relocations };
    without[LINES_LENGTH..][..4].copy_from_slice(&0_u32.to_le_bytes());
    without[RELOCATIONS..][..4].copy_from_slice(&relocations.to_le_bytes());
    Some(without)
}

/// Returns a command for cargo with the first toolchain that is installed.
fn cargo() -> Result<Command, Box<dyn Error>> {
    let rustc = env::var("DETECTOR_BPF_RUSTC").unwrap_or_else(|_| DEBIAN_RUSTC.to_owned());
    if has_bpf_core(&rustc) {
        let mut cargo = Command::new(env::var("CARGO")?);
        // This makes the stable compiler accept unstable features, which the probes need.
        cargo.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
        return Ok(cargo);
    }
    let nightly = Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]).output();
    if let Ok(output) = nightly
        && output.status.success()
        && Path::new(String::from_utf8_lossy(&output.stdout).trim()).join("lib/rustlib/src/rust/library").exists()
    {
        let mut cargo = Command::new("rustup");
        cargo.args(["run", "nightly", "cargo", "-Zbuild-std=core"]).env_remove("RUSTC").env_remove("RUSTUP_TOOLCHAIN");
        return Ok(cargo);
    }
    Err("no compiler for BPF: run `cargo xtask setup` (Debian: packages rustc-web and libstd-rust-web-dev-bpf; \
         elsewhere: `rustup toolchain install nightly --component rust-src` and `cargo install bpf-linker`)"
        .into())
}

/// Whether this compiler has `core` for the BPF target.
fn has_bpf_core(rustc: &str) -> bool {
    Command::new(rustc)
        .args(["--target", TARGET, "--print", "target-libdir"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| fs::read_dir(String::from_utf8_lossy(&output.stdout).trim()).ok())
        .is_some_and(|mut files| {
            files.any(|file| file.is_ok_and(|f| f.file_name().to_string_lossy().starts_with("libcore-")))
        })
}
