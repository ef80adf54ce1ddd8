//! Fetches Debian packages without installing them. apt downloads and verifies them with a state directory of its own,
//! so that the machine's state does not change.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::{project, shell};

/// The Debian archives in use: the suite, and whether it is on the mirror for security updates.
const SUITES: &[(&str, bool)] =
    &[("bullseye-security", true), ("bookworm", false), ("bookworm-security", true), ("trixie-backports", false)];

/// The keys that sign Debian's package lists.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// How long package lists are used. Packages that were replaced on the mirror can no longer be fetched.
const FRESH: Duration = Duration::from_secs(60 * 60);

/// Debian's archives, accessed through apt.
#[derive(Debug)]
pub struct Archive {
    options: Vec<String>,
}

impl Archive {
    /// Fetches the package lists unless they are recent.
    ///
    /// # Errors
    ///
    /// No Debian mirror is configured, or it cannot be reached.
    pub fn open() -> Result<Self> {
        let folder = project::cache()?.join("apt");
        for part in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(folder.join(part))?;
        }
        fs::write(folder.join("status"), "")?;
        let at = |part: &str| folder.join(part).display().to_string();
        let options = [
            ("Dir::Etc::sourcelist", at("sources.list")),
            ("Dir::Etc::sourceparts", "/dev/null".to_owned()),
            ("Dir::Etc::preferencesparts", "/dev/null".to_owned()),
            ("Dir::State::lists", at("lists")),
            ("Dir::State::status", at("status")),
            ("Dir::Cache", at("")),
            ("Dir::Cache::archives", at("archives")),
            ("APT::Architecture", "amd64".to_owned()),
            ("APT::Architectures", "amd64".to_owned()),
            // apt's own user may not have permission to write to the cache.
            ("APT::Sandbox::User", "root".to_owned()),
            // Support for bullseye has ended, so its list is expired. Its signature is still verified.
            ("Acquire::Check-Valid-Until", "false".to_owned()),
            ("Acquire::Languages", "none".to_owned()),
            ("Acquire::Retries", "3".to_owned()),
        ];
        let archive = Self { options: options.map(|(key, value)| format!("-o{key}={value}")).to_vec() };

        let mut sources = String::new();
        for (suite, security) in SUITES {
            let mirror = mirror(*security)?;
            sources += &format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n");
        }
        let (list, stamp) = (folder.join("sources.list"), folder.join("updated"));
        let age = fs::metadata(&stamp).and_then(|stamp| stamp.modified()).ok().and_then(|time| time.elapsed().ok());
        if fs::read_to_string(&list).ok().as_ref() != Some(&sources) || age.is_none_or(|age| age > FRESH) {
            fs::write(&list, sources)?;
            shell::long("fetching Debian's package lists", archive.apt("apt-get").args(["update", "--quiet"]))?;
            fs::write(stamp, "")?;
        }
        Ok(archive)
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options);
        command
    }

    /// The names of the packages with this prefix.
    ///
    /// # Errors
    ///
    /// apt cannot be run.
    pub fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = shell::text(self.apt("apt-cache").args(["pkgnames", prefix]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Unpacks a package into a directory.
    ///
    /// # Errors
    ///
    /// The package cannot be fetched, or the directory cannot be written.
    pub fn unpack(&self, package: &str, to: &Path) -> Result<()> {
        let files = TempDir::new_in(project::cache()?)?;
        let mut download = self.apt("apt-get");
        download.args(["download", "--quiet", package]).current_dir(&files);
        shell::long(format!("fetching {package}"), &mut download)?;
        extract(files.path(), to)
    }

    /// Unpacks packages and all their dependencies into a directory.
    ///
    /// # Errors
    ///
    /// Like [`unpack`](Self::unpack).
    pub fn unpack_all(&self, packages: &[&str], to: &Path) -> Result<()> {
        let files = TempDir::new_in(project::cache()?)?;
        let mut download = self.apt("apt-get");
        download.args(["install", "--download-only", "--yes", "--no-install-recommends", "--quiet"]).args(packages);
        download.arg(format!("-oDir::Cache::archives={}", files.path().display()));
        shell::long(format!("fetching {}", packages.join(", ")), &mut download)?;
        extract(files.path(), to)
    }
}

/// Unpacks all packages of a directory into another one.
fn extract(files: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(files)? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "deb") {
            shell::output(Command::new("dpkg-deb").arg("--extract").args([&file, to]))?;
        }
    }
    Ok(())
}

/// The mirror that this machine uses, or the one that the environment variable names.
fn mirror(security: bool) -> Result<String> {
    let variable = if security { "DETECTOR_DEBIAN_SECURITY_MIRROR" } else { "DETECTOR_DEBIAN_MIRROR" };
    if let Ok(mirror) = std::env::var(variable) {
        return Ok(mirror);
    }
    let targets =
        shell::text(Command::new("apt-get").args(["indextargets", "--format", "$(ORIGIN) $(RELEASE) $(REPO_URI)"]))?;
    pick_mirror(&targets, security)
        .with_context(|| format!("apt is not configured for Debian's archive: set {variable} to the URI of a mirror"))
}

/// Parses lines of the form `ORIGIN RELEASE URI`.
fn pick_mirror(targets: &str, security: bool) -> Option<String> {
    targets.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let &[origin, release, uri] = words.as_slice() else { return None };
        (origin == "Debian" && release.ends_with("-security") == security).then(|| uri.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_come_from_the_machine() {
        let targets =
            "Node bookworm http://a/node/\nDebian bookworm http://m/debian/\nDebian bookworm-security http://s/\n";
        assert_eq!(pick_mirror(targets, false).as_deref(), Some("http://m/debian/"));
        assert_eq!(pick_mirror(targets, true).as_deref(), Some("http://s/"));
        assert_eq!(pick_mirror("", true), None);
    }
}
