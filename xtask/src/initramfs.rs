//! Makes the guest's initramfs: a cpio archive in the format `newc` (Documentation/driver-api/early-userspace).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::tempfile_in;

use crate::build::Dist;
use crate::kernel::Kernel;
use crate::{project, setup, shell};

/// Programs of this machine that are copied into the guest, and their directories.
const TOOLS: &[(&str, &str)] = &[
    ("bin", "busybox"),
    ("usr/bin", "dash"),
    ("usr/sbin", "runc"),
    ("usr/bin", "crun"),
    ("usr/bin", "btrfs"),
    ("usr/sbin", "mkfs.btrfs"),
    ("usr/sbin", "mkfs.ext4"),
    ("usr/bin", "mkfs.erofs"),
    ("usr/bin", "fuse-overlayfs"),
];

/// An entry of the archive.
#[derive(Clone, Debug)]
enum Entry {
    Directory,
    File(Vec<u8>),
    Link(String),
}

/// An archive that is being made.
#[derive(Clone, Debug, Default)]
pub struct Initramfs {
    // The map is sorted, so that a directory comes before its entries.
    entries: BTreeMap<String, Entry>,
}

impl Initramfs {
    /// Adds what every guest needs: the guest program as `/init`, the detector, a shell, a container runtime, and
    /// kernel modules.
    ///
    /// # Errors
    ///
    /// A file cannot be read.
    pub fn of_guest(kernel: &Kernel, dist: &Dist) -> Result<Self> {
        let mut archive = Self::default();
        archive.program("init", &dist.guest)?;
        archive.program("usr/bin/detector", &dist.detector)?;
        for (folder, tool) in TOOLS {
            let file =
                setup::find(tool).with_context(|| format!("{tool} is not installed: run `cargo xtask setup`"))?;
            archive.program(&format!("{folder}/{tool}"), &file)?;
        }
        for applet in shell::text(Command::new("busybox").arg("--list"))?.lines() {
            archive.entries.entry(format!("bin/{applet}")).or_insert(Entry::Link("busybox".to_owned()));
        }
        let mut order = String::new();
        for module in kernel.modules()? {
            let name = module.file_name().context("a module has a name")?.to_string_lossy().into_owned();
            archive.add(&format!("modules/{name}"), Entry::File(fs::read(&module)?));
            order += &format!("{name}\n");
        }
        archive.add("modules/order", Entry::File(order.into_bytes()));
        // The kernel connects init to this device before /dev is mounted.
        archive.add("dev", Entry::Directory);
        Ok(archive)
    }

    /// Adds a package of the detector, for a guest that installs it.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn package(&mut self, from: &Path) -> Result<()> {
        let name = from.file_name().context("a package has a name")?.to_string_lossy().into_owned();
        self.add(&format!("packages/{name}"), Entry::File(fs::read(from)?));
        Ok(())
    }

    /// Adds a program and the libraries that it is linked to.
    ///
    /// # Errors
    ///
    /// A file cannot be read.
    pub fn program(&mut self, to: &str, from: &Path) -> Result<()> {
        let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.add(to, Entry::File(bytes));
        // This fails for a static program, which needs no libraries.
        let libraries = shell::text(Command::new("ldd").arg(from)).unwrap_or_default();
        for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
            let bytes = fs::read(library).with_context(|| format!("cannot read {library}"))?;
            self.add(library, Entry::File(bytes));
        }
        Ok(())
    }

    fn add(&mut self, path: &str, entry: Entry) {
        let path = path.trim_start_matches('/');
        for (at, _) in path.match_indices('/') {
            self.entries.entry(path[..at].to_owned()).or_insert(Entry::Directory);
        }
        self.entries.insert(path.to_owned(), entry);
    }

    /// Writes the archive to an unnamed file in the cache directory.
    ///
    /// # Errors
    ///
    /// The cache cannot be written.
    pub fn write(&self) -> Result<File> {
        let folder = project::cache()?;
        let file = tempfile_in(&folder)?;
        self.write_to(BufWriter::new(&file)).with_context(|| format!("cannot write to {}", folder.display()))?;
        Ok(file)
    }

    fn write_to(&self, mut out: impl Write) -> std::io::Result<()> {
        for (number, (path, entry)) in self.entries.iter().enumerate() {
            let (mode, content) = match entry {
                Entry::Directory => (0o040_755, &[][..]),
                Entry::File(bytes) => (0o100_755, bytes.as_slice()),
                Entry::Link(target) => (0o120_777, target.as_bytes()),
            };
            write_entry(&mut out, number + 1, path, mode, content)?;
        }
        write_entry(&mut out, 0, "TRAILER!!!", 0, &[])?;
        out.flush()
    }
}

/// Writes an entry: a header of hexadecimal fields, the name and the content, each padded to four bytes.
fn write_entry(out: &mut impl Write, inode: usize, path: &str, mode: u32, content: &[u8]) -> std::io::Result<()> {
    let (size, name_size) = (content.len(), path.len() + 1);
    write!(out, "070701{inode:08x}{mode:08x}{:08x}{:08x}{:08x}{:08x}{size:08x}", 0, 0, 1, 0)?;
    write!(out, "{:08x}{:08x}{:08x}{:08x}{name_size:08x}{:08x}{path}\0", 0, 0, 0, 0, 0)?;
    pad(out, 110 + name_size)?;
    out.write_all(content)?;
    pad(out, size)
}

fn pad(out: &mut impl Write, written: usize) -> std::io::Result<()> {
    out.write_all(&[0; 3][..written.next_multiple_of(4) - written])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpio_reads_what_was_written() {
        let mut archive = Initramfs::default();
        archive.add("usr/bin/tool", Entry::File(b"#!/bin/sh\n".to_vec()));
        archive.add("bin/sh", Entry::Link("busybox".to_owned()));
        let mut bytes = Vec::new();
        archive.write_to(&mut bytes).expect("a vector takes all");
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("070701").count(), 6, "usr, usr/bin, usr/bin/tool, bin, bin/sh, the trailer");
        assert!(text.contains("usr/bin/tool\0"));
        assert!(text.find("bin/sh\0").is_some_and(|link| text[link..].contains("busybox")));
    }
}
