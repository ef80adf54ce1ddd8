//! Fetches Debian's kernels for the tests.

use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use object::{Object as _, ObjectSection as _};
use tempfile::TempDir;

use crate::debian::Archive;
use crate::{project, setup, shell};

/// The series that can be tested while Debian serves them. The first one is the oldest that the detector supports.
pub const SERIES: &[&str] = &["5.10", "6.1", "6.12", "6.16", "6.18", "6.19", "7.0", "7.1", "7.2", "7.3"];

/// The series and machines that are tested by default. What Linux 6.1 does with cgroups of version 2 is what its
/// neighbours do.
pub const DEFAULT: &[&str] = &["5.10", "6.1-cgroup1", "6.12", LATEST];

/// The series on which container engines are tested. They behave in the same way on all kernels, and testing them takes
/// minutes. On this series, ordinary users can mount overlays on a tmpfs.
pub const WITH_ENGINES: &str = "6.12";

/// The machine with busy servers, which is tested only if its name is given, or with all kernels.
pub const WITH_SOFTWARE: &str = "6.12-software";

/// The name for the newest series that Debian serves.
pub const LATEST: &str = "latest";

/// The modules that the guest needs unless they are built in. Their dependencies are added.
const MODULES: &[&str] = &[
    "overlay",
    "loop",
    "crc32c_generic",
    "crc32c_cryptoapi",
    "btrfs",
    "ext4",
    "erofs",
    "fuse",
    "virtio_pci",
    "virtio_blk",
    "binfmt_misc",
    "veth",
];

/// A kernel in the cache.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The kernel series, such as `6.12`.
    pub series: String,
    folder: PathBuf,
}

impl Kernel {
    /// The bootable image.
    pub fn image(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// The kernel's types: its `.BTF` section.
    pub fn btf(&self) -> PathBuf {
        self.folder.join("btf")
    }

    /// The module of overlayfs, which has types and symbols of its own.
    pub fn overlay(&self) -> PathBuf {
        self.folder.join("modules/overlay.ko")
    }

    /// The modules in the order in which they must be loaded.
    ///
    /// # Errors
    ///
    /// The cache was changed by hand.
    pub fn modules(&self) -> Result<Vec<PathBuf>> {
        let order = fs::read_to_string(self.folder.join("modules/order")).context(
            "the kernel cache is damaged; delete \
            it",
        )?;
        Ok(order.lines().map(|name| self.folder.join("modules").join(name)).collect())
    }

    /// The kernel of a series, or of [`LATEST`], from the cache or from Debian.
    ///
    /// # Errors
    ///
    /// The series is unknown or cannot be fetched.
    pub fn get(name: &str) -> Result<Self> {
        let kernels = project::cache()?.join("kernels");
        let series = if name == LATEST { latest(&kernels)? } else { name.to_owned() };
        ensure!(
            SERIES.contains(&series.as_str()),
            "no kernel series {name}: use one of {}, or {LATEST}",
            SERIES.join(", ")
        );
        let kernel = Self { folder: kernels.join(&series), series };
        if !kernel.is_complete() {
            setup::packages()?;
            let _lock = project::lock_cache()?;
            // Another process may have fetched it in the meantime.
            if !kernel.is_complete() {
                kernel.fetch(&kernels)?;
            }
        }
        Ok(kernel)
    }

    /// Whether the kernel is in the cache, with all modules that are needed.
    fn is_complete(&self) -> bool {
        fs::read_to_string(self.folder.join("modules/wanted")).is_ok_and(|wanted| wanted == MODULES.join("\n"))
    }

    /// Downloads and unpacks the kernel. It appears in the cache only when it is complete.
    fn fetch(&self, kernels: &Path) -> Result<()> {
        let archive = Archive::open()?;
        let packages = packages(&archive)?;
        let release = newest(&packages, &self.series).with_context(|| {
            format!(
                "Debian does not serve Linux {}, or its modules are no longer \
                available",
                self.series
            )
        })?;
        fs::create_dir_all(kernels)?;
        let partial = TempDir::with_prefix_in("partial-", kernels)?;
        let unpacked = partial.path().join("unpacked");
        for package in packages.iter().filter(|package| release_of(package) == Some(&release)) {
            archive.unpack(package, &unpacked)?;
        }

        let made = Self { series: self.series.clone(), folder: partial.path().join("made") };
        fs::create_dir_all(made.folder.join("modules"))?;
        let image =
            find(&unpacked, &|name| name.starts_with("vmlinuz"))?.context("the packages have no kernel image")?;
        fs::copy(image, made.image())?;
        let mut order = Vec::new();
        for module in MODULES {
            made.take_module(&unpacked, module, &mut order)?;
        }
        fs::write(made.folder.join("modules/order"), order.iter().map(|name| format!("{name}\n")).collect::<String>())?;
        fs::write(made.folder.join("modules/wanted"), MODULES.join("\n"))?;
        fs::write(made.btf(), btf(&fs::read(made.image())?)?)?;
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder)?;
        }
        fs::rename(&made.folder, &self.folder).with_context(|| format!("cannot make {}", self.folder.display()))
    }

    /// Copies a module after its dependencies. Does nothing if the module is built in.
    fn take_module(&self, unpacked: &Path, name: &str, order: &mut Vec<String>) -> Result<()> {
        let file_name = format!("{name}.ko");
        if order.contains(&file_name) {
            return Ok(());
        }
        let Some(file) = find(unpacked, &|found| found.replace('-', "_").split(".ko").next() == Some(name))? else {
            return Ok(());
        };
        let module = match file.extension().and_then(|extension| extension.to_str()) {
            Some("xz") => shell::output(Command::new("xz").args(["--decompress", "--stdout"]).arg(&file))?,
            Some("zst") => {
                shell::output(Command::new("zstd").args(["--decompress", "--stdout", "--quiet"]).arg(&file))?
            }
            _ => fs::read(&file)?,
        };
        for dependency in dependencies(&module) {
            self.take_module(unpacked, &dependency, order)?;
        }
        fs::write(self.folder.join("modules").join(&file_name), module)?;
        order.push(file_name);
        Ok(())
    }
}

/// The series that are available from the cache or from Debian. Reports those that are not.
///
/// # Errors
///
/// Debian's archive cannot be queried.
pub fn available() -> Result<Vec<&'static str>> {
    let kernels = project::cache()?.join("kernels");
    setup::packages()?;
    let _lock = project::lock_cache()?;
    let packages = packages(&Archive::open()?)?;
    let is_there = |series: &&str| {
        let kernel = Kernel { folder: kernels.join(series), series: (*series).to_owned() };
        kernel.is_complete() || newest(&packages, series).is_some()
    };
    let (there, gone): (Vec<_>, Vec<_>) = SERIES.iter().copied().partition(is_there);
    if !gone.is_empty() {
        shell::step(format!("NOT tested, for Debian no longer serves all of it: Linux {}", gone.join(", ")));
    }
    Ok(there)
}

/// The newest series that Debian serves. The answer is cached, so that later runs need no network.
fn latest(kernels: &Path) -> Result<String> {
    let file = kernels.join(LATEST);
    if let Ok(series) = fs::read_to_string(&file) {
        return Ok(series);
    }
    setup::packages()?;
    let _lock = project::lock_cache()?;
    let packages = packages(&Archive::open()?)?;
    let series = SERIES.iter().rev().find(|series| newest(&packages, series).is_some());
    let series = series.context("Debian's mirror has no kernel of a supported series")?;
    fs::create_dir_all(kernels)?;
    fs::write(&file, series)?;
    Ok((*series).to_owned())
}

/// The packages of kernels for virtual machines.
fn packages(archive: &Archive) -> Result<Vec<String>> {
    let names = archive.names("linux-")?;
    Ok(names.into_iter().filter(|name| release_of(name).is_some()).collect())
}

/// The kernel release in the name of a package, such as `6.12.117+deb12-cloud-amd64`.
fn release_of(package: &str) -> Option<&str> {
    let release = ["linux-image-", "linux-binary-", "linux-modules-"].iter().find_map(|p| package.strip_prefix(p))?;
    (release.ends_with("-cloud-amd64") && release.split('.').count() > 2).then_some(release)
}

/// The newest release of a series among packages.
fn newest(packages: &[String], series: &str) -> Option<String> {
    let numbers = |release: &str| -> Vec<u32> {
        release.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
    };
    // Releases from 6.19 on consist of several packages, of which Debian removes the modules first.
    let has = |kind: &str, release: &str| packages.iter().any(|package| *package == format!("linux-{kind}-{release}"));
    packages
        .iter()
        .filter_map(|package| release_of(package))
        .filter(|release| has("image", release) && has("binary", release) == has("modules", release))
        .filter(|release| release.strip_prefix(series).is_some_and(|rest| rest.starts_with('.')))
        .min_by_key(|release| Reverse(numbers(release)))
        .map(str::to_owned)
}

/// The first file below `folder` whose name matches.
fn find(folder: &Path, fits: &dyn Fn(&str) -> bool) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            if let Some(found) = find(&entry.path(), fits)? {
                return Ok(Some(found));
            }
        } else if fits(&entry.file_name().to_string_lossy()) {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

/// The dependencies of a module: `depends=` in its `.modinfo` section.
fn dependencies(module: &[u8]) -> Vec<String> {
    let Some(info) = object::File::parse(module)
        .ok()
        .and_then(|file| file.section_by_name(".modinfo").and_then(|section| section.data().ok()).map(<[u8]>::to_vec))
    else {
        return Vec::new();
    };
    info.split(|byte| *byte == 0)
        .filter_map(|entry| std::str::from_utf8(entry).ok()?.strip_prefix("depends="))
        .flat_map(|names| names.split(',').filter(|name| !name.is_empty()))
        .map(str::to_owned)
        .collect()
}

/// The `.BTF` section of the kernel in a bzImage.
fn btf(image: &[u8]) -> Result<Vec<u8>> {
    let kernel = decompress(payload(image)?)?;
    let file = object::File::parse(kernel.as_slice()).context("the kernel inside the image")?;
    let section = file.section_by_name(".BTF").context("the kernel was built without BTF")?;
    Ok(section.data()?.to_vec())
}

/// The compressed kernel in a bzImage. See `setup_sects`, `payload_offset` and `payload_length` in
/// Documentation/arch/x86/boot.rst.
fn payload(image: &[u8]) -> Result<&[u8]> {
    let word =
        |at: usize| -> Option<usize> { Some(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?) as usize) };
    ensure!(image.get(0x202..0x206) == Some(b"HdrS"), "the kernel image is not a bzImage");
    let setup = match image[0x1f1] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (setup + 1) * 512 + word(0x248).context("the bzImage is truncated")?;
    let length = word(0x24c).context("the bzImage is truncated")?;
    image.get(start..start + length).context("the bzImage is truncated")
}

/// Unpacks the kernel with the program for its format. The kernel's build appends the size to the compressed stream,
/// which these programs report as garbage, so only their output is checked.
fn decompress(packed: &[u8]) -> Result<Vec<u8>> {
    let program = match packed {
        [0xfd, b'7', b'z', ..] => "xz",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        [0x02, 0x21, 0x4c, 0x18, ..] => "lz4",
        [0x1f, 0x8b, ..] => "gzip",
        _ => bail!("the kernel is compressed in an unknown format"),
    };
    let mut child = Command::new(program)
        .args(["-d", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    let mut stdin = child.stdin.take().context("the program has no standard input")?;
    let unpacked = std::thread::scope(|scope| {
        // The program may stop reading at the appended size.
        scope.spawn(move || std::io::Write::write_all(&mut stdin, packed).ok());
        child.wait_with_output()
    })?;
    Ok(unpacked.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_release_of_a_series() {
        let packages = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.12.94+deb12-cloud-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64",
            "linux-image-6.12-cloud-amd64",
            "linux-image-6.12.200+deb12-cloud-amd64-dbg",
            "linux-image-7.3.4+deb13-cloud-amd64",
            "linux-binary-7.3.4+deb13-cloud-amd64",
            "linux-modules-7.3.4+deb13-cloud-amd64",
            "linux-image-7.3.5+deb13-cloud-amd64",
            "linux-binary-7.3.5+deb13-cloud-amd64",
        ]
        .map(str::to_owned);
        assert_eq!(newest(&packages, "6.1").as_deref(), Some("6.1.0-56-cloud-amd64"));
        assert_eq!(newest(&packages, "6.12").as_deref(), Some("6.12.117+deb12-cloud-amd64"));
        assert_eq!(newest(&packages, "7.3").as_deref(), Some("7.3.4+deb13-cloud-amd64"));
        assert_eq!(newest(&packages, "7"), Some("7.3.4+deb13-cloud-amd64".to_owned()));
        assert_eq!(newest(&packages, "5.10"), None);
    }

    #[test]
    fn a_truncated_image_is_an_error() {
        assert!(payload(&[0; 16]).is_err());
        let mut image = vec![0; 0x300];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x24c..0x250].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(payload(&image).is_err());
    }
}
