//! What the root of a container is on: what the storage drivers of the runtimes make.

use std::fs::{self, File};
use std::path::Path;

use anyhow::Result;
use rustix::mount::{UnmountFlags, unmount};

use crate::container::{IMAGE, on_host};
use crate::init::mount_at;

/// Size of a file with a file system in it: as small as a btrfs can be, and some more. It is sparse.
const SIZE: u64 = 256 << 20;

/// What a root is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Root {
    /// An overlay over the image's directory.
    #[default]
    Overlay,
    /// The same on a btrfs, with a copy of the image.
    OverlayOnBtrfs,
    /// An overlay over an image that is an EROFS.
    OverlayOnErofs,
    /// A file system of its own, as the devicemapper driver makes it.
    Ext4,
    /// A copy of the image's directory, as the VFS driver makes it.
    Directory,
    /// A snapshot of a subvolume that has the image.
    Subvolume,
    /// An overlay that a process makes, as runtimes without privileges do.
    FuseOverlay,
}

impl Root {
    /// Makes `rootfs` in a container's folder the root of a new container. `options`: more of them for an overlay.
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

    /// Whether the kernel's overlayfs makes it: then a file is in one of its layers.
    pub fn is_overlay(self) -> bool {
        matches!(self, Self::Overlay | Self::OverlayOnBtrfs | Self::OverlayOnErofs)
    }

    /// Whether its file system has other files too. What the host does to it is then not known to be done to an image.
    pub fn is_shared(self) -> bool {
        matches!(self, Self::Directory | Self::Subvolume)
    }

    /// Undoes [`make`](Self::make), but for what lies in the folder.
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

/// Makes a btrfs in a file, mounts it on a directory, and forgets the file.
fn mount_btrfs(at: &str) -> Result<()> {
    let file = format!("{at}.btrfs");
    fs::create_dir_all(at)?;
    File::create(&file)?.set_len(SIZE)?;
    run("mkfs.btrfs", &["--quiet", &file])?;
    mount_file("btrfs", &file, at)?;
    Ok(fs::remove_file(file)?)
}

/// The image as an EROFS, made when it is first needed.
fn image_on_erofs() -> Result<&'static str> {
    let (file, at) = ("/var/lib/lab/erofs.image", "/var/lib/lab/erofs");
    if !Path::new(at).exists() {
        run("mkfs.erofs", &[file, IMAGE])?;
        mount_file("erofs", file, at)?;
    }
    Ok(at)
}

/// The btrfs with the image, which is mounted when it is first needed.
const BTRFS: &str = "/var/lib/lab/btrfs";

/// The image as a subvolume, made when it is first needed.
fn image_on_btrfs() -> Result<&'static str> {
    let image = "/var/lib/lab/btrfs/image";
    if !Path::new(BTRFS).exists() {
        mount_btrfs(BTRFS)?;
        run("btrfs", &["subvolume", "create", image])?;
        run("busybox", &["cp", "-aT", IMAGE, image])?;
    }
    Ok(image)
}

/// The container's subvolume: named as its folder is.
fn snapshot(folder: &str) -> String {
    let name = folder.rsplit('/').next().unwrap_or(folder);
    format!("{BTRFS}/{name}")
}
