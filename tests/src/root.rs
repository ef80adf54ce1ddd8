//! Makes the root file systems of containers as the runtimes' storage drivers do.

use std::fs::{self, File};
use std::path::Path;

use anyhow::Result;
use rustix::mount::{UnmountFlags, unmount};

use crate::engine::disk::{self, DISK};
use crate::image::{IMAGE, INSTALLED};
use crate::init::mount_at;
use crate::program::on_host;

/// The size of a sparse file with a file system in it, slightly more than the minimum of btrfs.
const SIZE: u64 = 256 << 20;

/// The storage of a container's root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Root {
    /// An overlay over the directory of the image.
    #[default]
    Overlay,
    /// An overlay over a copy of the image on btrfs.
    OverlayOnBtrfs,
    /// An overlay over an EROFS image.
    OverlayOnErofs,
    /// An overlay over the disk with interpreters, and over the directory of the image.
    OverlayOnDisk,
    /// A file system of its own, as the devicemapper driver makes it.
    Ext4,
    /// A copy of the image's directory, as the VFS driver makes it.
    Directory,
    /// A btrfs snapshot of a subvolume with the image.
    Subvolume,
    /// An overlay that a process mounts, as rootless runtimes do.
    FuseOverlay,
}

impl Root {
    /// Makes `rootfs` in a container's directory. `options` are additional options of an overlay.
    pub fn make(self, folder: &str, options: &str) -> Result<()> {
        let root = format!("{folder}/rootfs");
        let layers = |lower: &str| -> Result<String> {
            for name in ["upper", "work", "rootfs"] {
                fs::create_dir_all(format!("{folder}/{name}"))?;
            }
            Ok(format!("lowerdir={lower},upperdir={folder}/upper,workdir={folder}/work{options}"))
        };
        match self {
            Self::Overlay => mount_at("overlay", &root, &layers(IMAGE)?),
            Self::OverlayOnBtrfs => {
                mount_btrfs(folder)?;
                let image = format!("{folder}/image");
                run("busybox", &["cp", "-a", IMAGE, &image])?;
                mount_at("overlay", &root, &layers(&image)?)
            }
            Self::OverlayOnErofs => mount_at("overlay", &root, &layers(image_on_erofs()?)?),
            Self::OverlayOnDisk => {
                disk::mount()?;
                mount_at("overlay", &root, &layers(&format!("{INSTALLED}:{DISK}:{IMAGE}"))?)
            }
            Self::Ext4 => {
                let file = format!("{folder}/ext4");
                File::create(&file)?.set_len(SIZE)?;
                run("mkfs.ext4", &["-q", "-d", IMAGE, &file])?;
                mount_file("ext4", &file, &root)
            }
            Self::Directory => run("busybox", &["cp", "-a", IMAGE, &root]),
            Self::Subvolume => {
                let snapshot = snapshot(folder);
                run("btrfs", &["subvolume", "snapshot", image_on_btrfs()?, &snapshot])?;
                fs::create_dir(&root)?;
                run("busybox", &["mount", "--bind", &snapshot, &root])
            }
            Self::FuseOverlay => run("fuse-overlayfs", &["-o", &layers(IMAGE)?, &root]),
        }
    }

    /// Whether it is an overlay, so that a file is in one of its layers.
    pub fn is_overlay(self) -> bool {
        matches!(self, Self::Overlay | Self::OverlayOnBtrfs | Self::OverlayOnErofs | Self::OverlayOnDisk)
    }

    /// Whether its file system has other files too. A change by the host is then not recognisable as a change of an
    /// image.
    pub fn is_shared(self) -> bool {
        matches!(self, Self::Directory | Self::Subvolume)
    }

    /// Unmounts what [`make`](Self::make) has mounted. The files remain.
    pub fn unmake(self, folder: &str) -> Result<()> {
        let root = format!("{folder}/rootfs");
        match self {
            Self::Directory => return Ok(()),
            _ => unmount(root, UnmountFlags::DETACH)?,
        }
        match self {
            Self::OverlayOnBtrfs => Ok(unmount(folder, UnmountFlags::empty())?),
            Self::Subvolume => run("btrfs", &["subvolume", "delete", &snapshot(folder)]),
            _ => Ok(()),
        }
    }
}

fn run(program: &str, args: &[&str]) -> Result<()> {
    on_host(program, args).map(drop)
}

/// Mounts a file system that is in a file.
fn mount_file(kind: &str, file: &str, at: &str) -> Result<()> {
    fs::create_dir_all(at)?;
    run("busybox", &["mount", "-t", kind, "-o", "loop", file, at])
}

/// Makes a btrfs in a file, mounts it on a directory, and deletes the file.
fn mount_btrfs(at: &str) -> Result<()> {
    let file = format!("{at}.btrfs");
    fs::create_dir_all(at)?;
    File::create(&file)?.set_len(SIZE)?;
    run("mkfs.btrfs", &["--quiet", &file])?;
    mount_file("btrfs", &file, at)?;
    Ok(fs::remove_file(file)?)
}

/// The image as an EROFS, which is made at the first use.
fn image_on_erofs() -> Result<&'static str> {
    let (file, at) = ("/var/lib/lab/erofs.image", "/var/lib/lab/erofs");
    if !Path::new(at).exists() {
        run("mkfs.erofs", &[file, IMAGE])?;
        mount_file("erofs", file, at)?;
    }
    Ok(at)
}

/// The btrfs with the image, which is mounted at the first use.
const BTRFS: &str = "/var/lib/lab/btrfs";

/// The image as a subvolume, which is made at the first use.
fn image_on_btrfs() -> Result<&'static str> {
    let image = "/var/lib/lab/btrfs/image";
    if !Path::new(BTRFS).exists() {
        mount_btrfs(BTRFS)?;
        run("btrfs", &["subvolume", "create", image])?;
        run("busybox", &["cp", "-aT", IMAGE, image])?;
    }
    Ok(image)
}

/// The container's subvolume, whose name is that of the container's directory.
fn snapshot(folder: &str) -> String {
    let name = folder.rsplit('/').next().unwrap_or(folder);
    format!("{BTRFS}/{name}")
}
