//! Installs the packages that a machine needs to build and test.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};

use crate::shell;

/// Debian packages, with the purpose of each.
const PACKAGES: &[(&str, &str)] = &[
    ("rustc-web", "a compiler whose `core` for BPF is ready-made"),
    ("libstd-rust-web-dev-bpf", "that `core`"),
    ("llvm-22-dev", "to build bpf-linker"),
    ("libpolly-22-dev", "to build bpf-linker"),
    ("libzstd-dev", "to build bpf-linker"),
    ("gcc", "to link"),
    ("g++", "to build libFuzzer"),
    ("libc6-dev", "to link statically"),
    ("qemu-system-x86", "the virtual machine"),
    ("runc", "the container runtime of the tests"),
    ("dash", "a shell of its own in the containers' image"),
    ("busybox-static", "the userland of the virtual machine and of the containers' image"),
    ("crun", "another container runtime for the tests"),
    ("btrfs-progs", "roots of containers, for the tests, and a file system that can clone files"),
    ("e2fsprogs", "roots of containers, for the tests"),
    ("erofs-utils", "images of containers, for the tests"),
    ("fuse-overlayfs", "roots of containers, for the tests"),
    ("debian-archive-keyring", "to verify downloaded kernels"),
    ("xz-utils", "to unpack kernels"),
    ("zstd", "to unpack kernels"),
    ("lz4", "to unpack kernels"),
];

/// A program that cargo builds.
struct Tool {
    name: &'static str,
    version: &'static str,
    /// The arguments with which it says its version.
    asked: &'static [&'static str],
}

/// The linker for BPF objects. Its LLVM version must be that of the compiler.
const LINKER: Tool = Tool { name: "bpf-linker", version: "0.13.0", asked: &["--version"] };

/// The program that makes the Debian package.
const PACKAGER: Tool = Tool { name: "cargo-deb", version: "3.8.0", asked: &["--version"] };

/// The program that lists what a program is made of.
const LISTER: Tool = Tool { name: "cargo-cyclonedx", version: "0.5.9", asked: &["cyclonedx", "--version"] };

/// What fetches the schemas of other formats and what receives other protocols, and its package. Many machines have it
/// from elsewhere than Debian.
const FETCHERS: &[(&[&str], &str)] =
    &[(&["python3", "-m", "pip", "--version"], "python3-pip"), (&["npm", "--version"], "npm")];

/// The programs that are required on a machine where this module cannot install packages.
const TOOLS: &[&str] = &[
    "bpf-linker",
    "c++",
    "qemu-system-x86_64",
    "runc",
    "crun",
    "busybox",
    "dash",
    "btrfs",
    "mkfs.ext4",
    "mkfs.erofs",
    "fuse-overlayfs",
    "xz",
    "zstd",
    "lz4",
];

/// Held during an installation, because several threads may find that something is missing.
static INSTALLING: Mutex<()> = Mutex::new(());

/// Installs what is missing. Fast and silent if nothing is.
///
/// # Errors
///
/// This machine is not a Debian, or this user may not install packages. The message lists what to install.
pub fn run() -> Result<()> {
    if !is_debian() {
        let missing: Vec<_> = TOOLS.iter().copied().filter(|tool| find(tool).is_none()).collect();
        ensure!(
            missing.is_empty(),
            "this is no Debian: please install {}. bpf-linker must be built with the LLVM of rustup's nightly \
             toolchain, which is needed too, with rust-src; busybox must be static. The kernels of the tests come from Debian: \
             install apt and dpkg and set DETECTOR_DEBIAN_MIRROR and DETECTOR_DEBIAN_SECURITY_MIRROR",
            missing.join(", ")
        );
        return Ok(());
    }
    packages()?;
    linker()
}

fn is_debian() -> bool {
    find("apt-get").is_some() && find("dpkg-query").is_some()
}

/// Installs the missing packages. The linker is not one of them, because it must be built.
///
/// # Errors
///
/// Like [`run`].
pub fn packages() -> Result<()> {
    if !is_debian() {
        return run();
    }
    let _lock = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${Package} ${db:Status-Abbrev}\n"]).args(PACKAGES.iter().map(|(name, _)| name));
    // dpkg-query fails if it does not know a package, but lists the others.
    let known = query.output().context("cannot run dpkg-query")?.stdout;
    let missing = missing(&String::from_utf8_lossy(&known));
    if missing.is_empty() {
        return Ok(());
    }
    for (name, purpose) in &missing {
        shell::step(format!("package {name} is missing: {purpose}"));
    }
    get(&missing.iter().map(|(name, _)| *name).collect::<Vec<_>>())
}

/// Installs what fetches the schemas of other formats and what receives other protocols, which only their tests need.
///
/// # Errors
///
/// Like [`run`].
pub fn fetchers() -> Result<()> {
    let _lock = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let is_there = |command: &[&str]| shell::output(Command::new(command[0]).args(&command[1..])).is_ok();
    let missing = FETCHERS.iter().filter(|(command, _)| !is_there(command)).map(|(_, package)| *package);
    let missing: Vec<_> = missing.collect();
    if missing.is_empty() {
        return Ok(());
    }
    ensure!(
        is_debian(),
        "please install pip for python3, and npm: they fetch what the tests of other formats and protocols need"
    );
    get(&missing)
}

/// Puts packages for Python, without what they depend on, into a directory.
///
/// # Errors
///
/// A package cannot be fetched, or the directory cannot be written.
pub fn pip(what: &str, packages: &[&str], to: &Path) -> Result<()> {
    let install = ["-m", "pip", "install", "--quiet", "--root-user-action=ignore", "--no-deps", "--target"];
    shell::long(what, Command::new("python3").args(install).arg(to).args(packages))
}

/// Installs packages.
fn get(names: &[&str]) -> Result<()> {
    let by_hand = || format!("these packages are needed, from Debian 12 or newer: apt-get install {}", names.join(" "));
    let apt = || as_root("apt-get").with_context(by_hand);
    shell::long("updating the package lists", apt()?.args(["update", "--quiet"]))?;
    let install = ["install", "--yes", "--no-install-recommends", "--quiet"];
    shell::long("installing the packages", apt()?.args(install).args(names)).with_context(by_hand)
}

/// The packages that are not installed, from lines of the form `NAME STATUS`.
fn missing(known: &str) -> Vec<(&'static str, &'static str)> {
    let is_installed = |package: &str| known.lines().any(|line| line.split_whitespace().eq([package, "ii"]));
    PACKAGES.iter().copied().filter(|(name, _)| !is_installed(name)).collect()
}

/// A command with the privileges to install packages.
fn as_root(program: &str) -> Result<Command> {
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new(program)
    } else if find("sudo").is_some() {
        let mut sudo = Command::new("sudo");
        sudo.arg(program);
        sudo
    } else {
        bail!("installing packages needs root, and sudo is not installed");
    };
    command.env("DEBIAN_FRONTEND", "noninteractive");
    Ok(command)
}

fn linker() -> Result<()> {
    install(LINKER, |build| {
        let prefix = shell::text(Command::new("llvm-config-22").arg("--prefix"))?;
        build.args(["--no-default-features", "--features", "llvm-22"]).env("LLVM_PREFIX", prefix.trim());
        Ok(())
    })
}

/// Installs the program that makes the Debian package, which only that needs.
///
/// # Errors
///
/// It cannot be built.
pub fn packager() -> Result<()> {
    install(PACKAGER, |_| Ok(()))
}

/// Installs the program that makes the software bill of materials, which only that needs.
///
/// # Errors
///
/// It cannot be built.
pub fn lister() -> Result<()> {
    install(LISTER, |_| Ok(()))
}

/// Builds a tool unless this version of it is there.
fn install(Tool { name, version, asked }: Tool, options: impl FnOnce(&mut Command) -> Result<()>) -> Result<()> {
    let _lock = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let is_there = || {
        let said = shell::text(Command::new(name).args(asked)).unwrap_or_default();
        said.split_whitespace().any(|word| word == version)
    };
    if is_there() {
        return Ok(());
    }
    let mut build = shell::cargo();
    build.args(["install", name, "--version", version, "--locked", "--force"]);
    options(&mut build)?;
    shell::long(format!("building {name} {version}, which takes a minute or two"), &mut build)?;
    ensure!(is_there(), "cargo has installed {name}, but not into a folder of PATH: add ~/.cargo/bin to it");
    Ok(())
}

/// Finds a program in `PATH` and in the administrator's directories.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|file| Path::is_file(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_packages_are_missing() {
        let known: String = PACKAGES.iter().skip(2).map(|(name, _)| format!("{name} ii \n")).collect();
        let missing: Vec<_> = missing(&format!("rustc-web rc \n{known}")).into_iter().map(|(name, _)| name).collect();
        assert_eq!(missing, ["rustc-web", "libstd-rust-web-dev-bpf"]);
    }
}
