//! Makes what is given to users: the Debian package of the detector, its container image, the lists of what it is made
//! of, and the checksums. What is in the package, and where, is in `detector/Cargo.toml` and `deploy/debian`.
//!
//! The same binary makes the same bytes: all files in them have the time of the last commit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::build::{Dist, TARGET};
use crate::{image, project, setup, shell};

/// The shells that the package has completions for.
const SHELLS: &[&str] = &["bash", "fish", "zsh"];

/// Makes all that belongs to a built detector in `dist/`. Returns the files.
///
/// # Errors
///
/// One of them cannot be made.
pub fn all(dist: &Dist) -> Result<Vec<PathBuf>> {
    let mut files = vec![dist.detector.clone(), make(dist)?, image(dist)?];
    files.extend(bills()?);
    let folder = project::root().join("dist");
    let names = files.iter().filter_map(|file| file.file_name());
    let sums = shell::output(Command::new("sha256sum").args(names).current_dir(&folder))?;
    fs::write(folder.join("SHA256SUMS"), sums)?;
    Ok(files)
}

/// Makes the container image of a built detector in `dist/`.
///
/// # Errors
///
/// tar or sha256sum is not installed, or `dist/` cannot be written.
pub fn image(dist: &Dist) -> Result<PathBuf> {
    // Machines that boot at the same time make it, too.
    let _lock = project::lock_cache()?;
    image::make(dist, last_change()?)
}

/// Makes the package of a built detector in `dist/`.
///
/// # Errors
///
/// cargo-deb cannot be installed or fails, or the detector does not accept its own configuration file.
pub fn make(dist: &Dist) -> Result<PathBuf> {
    setup::packager()?;
    let _lock = project::lock_cache()?;
    let folder = project::root().join("dist");
    prepare(dist, &folder.join("package"))?;
    let package = folder.join(format!("detector_{}_amd64.deb", env!("CARGO_PKG_VERSION")));
    let mut make = shell::cargo();
    make.args(["deb", "--package", "detector", "--target", TARGET, "--no-build", "--no-strip", "--deb-revision", ""]);
    make.arg("--output").arg(&package).env("SOURCE_DATE_EPOCH", last_change()?.to_string());
    shell::long("making the Debian package", &mut make)?;
    Ok(package)
}

/// Makes the software bills of materials of the detector and of the probes that are in it, in the format CycloneDX 1.5.
fn bills() -> Result<Vec<PathBuf>> {
    const NAME: &str = "bill-of-materials";
    setup::lister()?;
    let root = project::root();
    let mut list = shell::cargo();
    list.args(["cyclonedx", "--quiet", "--format", "json", "--spec-version", "1.5", "--no-build-deps"]);
    list.args(["--target", TARGET, "--override-filename", NAME, "--manifest-path", "detector/Cargo.toml"]);
    shell::output(list.env("SOURCE_DATE_EPOCH", last_change()?.to_string()))?;
    let mut bills = Vec::new();
    // It describes each crate of the workspace, beside its manifest.
    for entry in fs::read_dir(root)? {
        let file = entry?.path().join(format!("{NAME}.json"));
        let Ok(text) = fs::read_to_string(&file) else { continue };
        fs::remove_file(&file)?;
        let suffix = match file.parent().and_then(Path::file_name) {
            Some(name) if name == "detector" => "",
            Some(name) if name == "detector-ebpf" => "-probes",
            _ => continue,
        };
        let bill = root.join(format!("dist/detector-{}{suffix}.cdx.json", env!("CARGO_PKG_VERSION")));
        fs::write(&bill, text.replace(&format!("file://{}", root.display()), "file://"))?;
        bills.push(bill);
    }
    ensure!(bills.len() == 2, "cargo-cyclonedx has described {} of 2 programs", bills.len());
    bills.sort();
    Ok(bills)
}

/// Writes the files of the package that the detector prints.
fn prepare(dist: &Dist, folder: &Path) -> Result<()> {
    let detector = |arguments: &[&str]| shell::text(Command::new(&dist.detector).args(arguments));
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    let (man, config) = (folder.join("man"), folder.join("config.toml"));
    fs::create_dir_all(&man)?;
    shell::output(Command::new(&dist.detector).arg("man").arg(man))?;
    for shell in SHELLS {
        fs::write(folder.join(shell), detector(&["completions", shell])?)?;
    }
    let head = fs::read_to_string(project::root().join("deploy/debian/config.head"))?;
    fs::write(&config, head + &commented_out(&detector(&["config", "default"])?))?;
    let said = shell::text(Command::new(&dist.detector).args(["config", "check"]).arg(&config))?;
    ensure!(said.ends_with(": no errors\n"), "the configuration file of the package: {said}");
    Ok(())
}

/// A configuration file without its first paragraph, in which no key has a value.
fn commented_out(text: &str) -> String {
    let is_key = |line: &str| line.starts_with(|first: char| first.is_ascii_lowercase());
    let lines = text.lines().skip_while(|line| *line != "#").skip(1);
    lines.map(|line| if is_key(line) { format!("#{line}\n") } else { format!("{line}\n") }).collect()
}

/// The time of the last commit, in seconds since 1970. Without a repository it is 1970.
fn last_change() -> Result<i64> {
    let mut log = Command::new("git");
    log.args(["log", "-1", "--format=%ct"]).current_dir(project::root());
    let said = if project::root().join(".git").exists() { shell::text(&mut log)? } else { "0".to_owned() };
    Ok(said.trim().parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_of_the_package_has_a_value() {
        let text =
            "# What it is.\n#\n# More.\n\n# Level.\nlog = \"info\"\n\n[output]\n# File.\n#json = \"/x\"\nsync = 1\n";
        let expected = "# More.\n\n# Level.\n#log = \"info\"\n\n[output]\n# File.\n#json = \"/x\"\n#sync = 1\n";
        assert_eq!(commented_out(text), expected);
    }
}
