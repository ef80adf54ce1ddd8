//! What a machine needs to build and test, installed by package name where it is missing.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell;

/// Packages of Debian, each with what it is for.
const PACKAGES: &[(&str, &str)] = &[
    ("rustc-web", "a compiler whose `core` for BPF is ready-made"),
    ("libstd-rust-web-dev-bpf", "that `core`"),
    ("llvm-22-dev", "to build bpf-linker"),
    ("libpolly-22-dev", "to build bpf-linker"),
    ("libzstd-dev", "to build bpf-linker"),
    ("gcc", "to link"),
    ("libc6-dev", "to link statically"),
    ("qemu-system-x86", "the virtual machine"),
    ("runc", "the container runtime of the tests"),
    ("busybox-static", "the userland of the virtual machine and of the containers' image"),
    ("debian-archive-keyring", "to verify downloaded kernels"),
    ("xz-utils", "to unpack kernels"),
    ("zstd", "to unpack kernels"),
    ("lz4", "to unpack kernels"),
];

/// The linker that makes BPF objects. Its LLVM must be that of the compiler.
const LINKER: (&str, &str) = ("bpf-linker", "0.13.0");

/// Installs what is missing. Quick when nothing is.
///
/// # Errors
///
/// The machine has no `apt-get`, or no right to use it: the message lists what to install by hand.
pub fn run() -> Result<()> {
    packages()?;
    linker()
}

fn packages() -> Result<()> {
    if !Path::new("/usr/bin/apt-get").exists() {
        if has_everything() {
            return Ok(());
        }
        bail!(
            "this is no Debian, so the following must be installed by hand: rustup's nightly toolchain with rust-src, \
             {} {} built with that toolchain's LLVM, qemu-system-x86_64, runc, a static busybox, xz, zstd, lz4. The \
             test kernels come from Debian through apt-get: install apt too, and set DETECTOR_DEBIAN_MIRROR and \
             DETECTOR_DEBIAN_SECURITY_MIRROR",
            LINKER.0,
            LINKER.1
        );
    }
    let missing: Vec<_> = PACKAGES.iter().filter(|(name, _)| !is_installed(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for (name, purpose) in &missing {
        shell::step(format!("installing package {name}: {purpose}"));
    }
    let names: Vec<_> = missing.iter().map(|(name, _)| *name).collect();
    let install = || {
        shell::quiet(as_root("apt-get")?.args(["install", "--yes", "--no-install-recommends", "--quiet"]).args(&names))
    };
    shell::quiet(as_root("apt-get")?.args(["update", "--quiet"])).context("updating the package lists")?;
    install().with_context(|| format!("these packages are needed, from Debian 12 or newer: {}", names.join(" ")))
}

/// Whether the tools are there although the machine has no apt.
fn has_everything() -> bool {
    ["bpf-linker", "qemu-system-x86_64", "runc", "busybox", "xz", "zstd", "lz4"]
        .iter()
        .all(|tool| find(tool).is_some())
}

fn is_installed(package: &str) -> bool {
    let status = shell::text(Command::new("dpkg-query").args(["--show", "--showformat=${db:Status-Abbrev}", package]));
    status.is_ok_and(|status| status.starts_with("ii"))
}

/// A command with the rights to install.
fn as_root(program: &str) -> Result<Command> {
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new(program)
    } else if find("sudo").is_some() {
        let mut sudo = Command::new("sudo");
        sudo.arg(program);
        sudo
    } else {
        let names: Vec<_> = PACKAGES.iter().map(|(name, _)| *name).filter(|name| !is_installed(name)).collect();
        bail!("not root, and there is no sudo; as root run: apt-get install {}", names.join(" "));
    };
    command.env("DEBIAN_FRONTEND", "noninteractive");
    Ok(command)
}

fn linker() -> Result<()> {
    let (name, version) = LINKER;
    let found = shell::text(Command::new(name).arg("--version")).unwrap_or_default();
    if found.split_whitespace().any(|word| word == version) {
        return Ok(());
    }
    shell::step(format!("building {name} {version} (about a minute)"));
    let prefix = shell::text(Command::new("llvm-config-22").arg("--prefix"))?;
    shell::quiet(
        shell::cargo()
            .args(["install", name, "--version", version, "--locked", "--no-default-features", "--features", "llvm-22"])
            .args(["--force", "--quiet"])
            .env("LLVM_PREFIX", prefix.trim()),
    )
}

/// The path of a program, by `PATH` and the folders of the administrator.
pub fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|file| fs::metadata(file).is_ok_and(|meta| meta.is_file()))
}
