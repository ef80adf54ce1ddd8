//! The layers of a container's root, as directories of the node: the upper one has what was changed, the lower ones are
//! the image. A container can change what is in its upper layer at any time, so no link is followed there.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::{fs, iter};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::finding::{Container, Text};
use crate::procfs::{self, Mount, Process};
use crate::sensor::hierarchy::Hierarchy;

/// How many cgroups below that of a container are searched for a process at most.
const MOST_CGROUPS: usize = 1000;

/// How many files below a directory are counted at most.
const MOST_FILES: usize = 10_000;

/// Why the layers of a container cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No process of the container was found.
    #[error("it has no process here; run this on its node, while it runs, outside of other containers")]
    NoProcess,
    /// Its root is another file system.
    #[error("its root is no overlay but {0}, so there is no layer that has the changes only")]
    NoOverlay(Text),
    /// Something cannot be read.
    #[error("{path}: {cause}; run this as root on the node, outside of other containers")]
    Unreadable {
        /// The file or directory.
        path: Text,
        /// The error of the operating system.
        cause: Errno,
    },
}

/// The layers of a container's root.
#[derive(Debug)]
pub(super) struct Layers {
    pub(super) upper: PathBuf,
    /// The topmost one first.
    pub(super) lowers: Vec<PathBuf>,
    /// Where something is mounted in the container. What the upper layer has there is only what a runtime needs to
    /// mount something on.
    pub(super) mount_points: HashSet<Vec<u8>>,
}

impl Layers {
    /// Those of a container that runs.
    pub(super) fn of(container: &Container) -> Result<Self, Error> {
        let own = Process::open("self").and_then(|process| process.read("mountinfo"));
        let own = own.map_err(|cause| Error::Unreadable { path: b"/proc/self/mountinfo"[..].into(), cause })?;
        let path = container.cgroup.as_ref().and_then(Text::to_bytes).ok_or(Error::NoProcess)?;
        let hierarchy = Hierarchy::find(&own).1.ok_or(Error::NoProcess)?;
        let pid = process_in(hierarchy.directory(&path)).ok_or(Error::NoProcess)?;
        let unreadable = |cause| Error::Unreadable { path: format!("/proc/{pid}").as_bytes().into(), cause };
        let process = Process::open(&pid.to_string()).map_err(unreadable)?;
        let mountinfo = process.read("mountinfo").map_err(unreadable)?;
        let root = process.file_behind(c"root").map_err(unreadable)?.stx_mnt_id;
        let mount = procfs::mounts(&mountinfo).find(|mount| mount.id == root).ok_or(Error::NoProcess)?;
        let mount_points = procfs::mounts(&mountinfo).map(|mount| mount.mount_point).collect();
        Self::of_mount(&mount, mount_points).ok_or_else(|| Error::NoOverlay(mount.fs_type.as_slice().into()))
    }

    /// Those of an overlay that has an upper layer.
    fn of_mount(mount: &Mount, mount_points: HashSet<Vec<u8>>) -> Option<Self> {
        let path = |path: &[u8]| PathBuf::from(OsStr::from_bytes(path));
        let option = |name| mount.options_named(name).next().filter(|_| mount.fs_type == b"overlay");
        let upper = path(&option(b"upperdir")?);
        // Each lower layer has an option of its own if the overlay was mounted with fsconfig(2) (fs/overlayfs/params.c,
        // 6.5 to 7.3).
        let mut lowers: Vec<_> = mount.options_named(b"lowerdir+").map(|lower| path(&lower)).collect();
        lowers.extend(option(b"lowerdir").iter().flat_map(|list| split(list)).map(|lower| path(&lower)));
        Some(Self { upper, lowers, mount_points })
    }
}

/// How many files the image of a running container has below each of these directories: [`MOST_FILES`] at most.
///
/// # Errors
///
/// See [`Error`].
pub(crate) fn image_files_below(container: &Container, directories: &[String]) -> Result<Vec<u64>, Error> {
    let layers = Layers::of(container)?;
    let lowers = layers.lowers.iter().map(|lower| open(lower)).collect::<Result<Vec<_>, _>>()?;
    Ok(directories.iter().map(|directory| files_below(&lowers, directory.as_bytes())).collect())
}

/// How many files there are below a directory in any of these layers. Those that an upper one has removed count, too.
fn files_below(layers: &[OwnedFd], directory: &[u8]) -> u64 {
    let mut files = HashSet::new();
    for layer in layers {
        let mut pending = vec![directory.to_owned()];
        while let Some(path) = pending.pop() {
            // What is no directory in this layer, or cannot be read, has nothing below it.
            let Ok(names) = open_below(layer, &path).and_then(Dir::new) else { continue };
            for entry in names.flatten().filter(|entry| !matches!(entry.file_name().to_bytes(), b"." | b"..")) {
                let child = [&path[..], b"/", entry.file_name().to_bytes()].concat();
                match entry.file_type() {
                    FileType::Directory => pending.push(child),
                    // A whiteout is one.
                    FileType::CharacterDevice => {}
                    _ => _ = files.insert(child),
                }
                if files.len() + pending.len() >= MOST_FILES {
                    return files.len() as u64;
                }
            }
        }
    }
    files.len() as u64
}

/// The paths in a list, which are separated by colons. A backslash takes the meaning from a colon.
fn split(list: &[u8]) -> Vec<Vec<u8>> {
    let mut paths = vec![Vec::new()];
    let mut bytes = list.iter();
    while let Some(&byte) = bytes.next() {
        let path = paths.last_mut().expect("it begins with one");
        match byte {
            b':' => paths.push(Vec::new()),
            b'\\' => path.extend(bytes.next()),
            byte => path.push(byte),
        }
    }
    // Two colons come before layers that have data only.
    paths.retain(|path| !path.is_empty());
    paths
}

/// Opens the directory of a layer.
pub(super) fn open(layer: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(layer, flags, Mode::empty()).map_err(|cause| Error::Unreadable { path: text(layer), cause })
}

/// Opens a file or directory below the directory of a layer, without following links or waiting.
pub(super) fn open_below(layer: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let path = if path.is_empty() { b"." } else { path };
    rustix::fs::openat2(layer, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

/// What a layer has at a path.
#[derive(Debug)]
pub(super) enum Found {
    /// Nothing, so it is as in the layers below.
    Nothing,
    /// Nothing, and what the layers below have there is hidden.
    Hidden,
    /// Something.
    Here(Stat),
}

/// Looks for a path in a layer, as overlayfs does (`ovl_lookup`, fs/overlayfs/namei.c, 5.10 to 7.3).
pub(super) fn find(layer: &OwnedFd, path: &[u8]) -> Result<Found, Errno> {
    let mut is_hidden = false;
    let ends = path.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    for end in ends.chain([path.len()]) {
        let at = path[..end].strip_prefix(b"/").unwrap_or(&path[..end]);
        let found = match rustix::fs::statat(layer, at, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => found,
            Err(Errno::NOENT) if is_hidden => return Ok(Found::Hidden),
            Err(Errno::NOENT) => return Ok(Found::Nothing),
            Err(error) => return Err(error),
        };
        let is_directory = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
        if is_whiteout(&found) || end < path.len() && !is_directory {
            return Ok(Found::Hidden);
        }
        if end == path.len() {
            return Ok(Found::Here(found));
        }
        is_hidden |= is_opaque(&open_below(layer, at)?);
    }
    Ok(Found::Nothing)
}

/// Whether something in a layer stands for nothing (Documentation/filesystems/overlayfs.rst, "whiteouts and opaque
/// directories").
pub(super) fn is_whiteout(found: &Stat) -> bool {
    FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice && found.st_rdev == 0
}

/// Whether a directory hides that of the layers below (the same section).
pub(super) fn is_opaque(directory: &OwnedFd) -> bool {
    mark(directory, "opaque").is_some_and(|value| value == b"y")
}

/// Whether a file has the metadata only, and its content is that of a layer below (the same document, "Metadata only
/// copy up").
pub(super) fn has_metadata_only(file: &OwnedFd) -> bool {
    mark(file, "metacopy").is_some()
}

/// The value of an extended attribute of overlayfs.
fn mark(file: &OwnedFd, name: &str) -> Option<Vec<u8>> {
    ["trusted", "user"].iter().find_map(|space| {
        let mut value = [0; 256];
        let length = rustix::fs::fgetxattr(file, format!("{space}.overlay.{name}"), &mut value[..]).ok()?;
        Some(value[..length].to_vec())
    })
}

pub(super) fn text(path: &Path) -> Text {
    path.as_os_str().as_bytes().into()
}

/// A process in a cgroup or below it.
fn process_in(cgroup: PathBuf) -> Option<u32> {
    let mut pending = vec![cgroup];
    let mut searched = 0;
    iter::from_fn(|| {
        let cgroup = pending.pop()?;
        searched += 1;
        let below = fs::read_dir(&cgroup).into_iter().flatten().flatten();
        pending
            .extend(below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()));
        Some(cgroup)
    })
    .take(MOST_CGROUPS)
    .find_map(|cgroup| {
        let processes = fs::read_to_string(cgroup.join("cgroup.procs")).ok()?;
        // One of another pid namespace is 0.
        processes.lines().find_map(|pid| pid.parse().ok().filter(|pid| *pid > 0))
    })
}

#[cfg(test)]
mod tests {
    use rustix::fs::{XattrFlags, makedev, mknodat};

    use super::*;

    #[test]
    fn layers_are_those_that_mountinfo_has() {
        let layers = |options: &str| {
            let line = format!("36 29 0:31 / / rw - overlay overlay {options}");
            let mount = procfs::mounts(line.as_bytes()).next().expect("it is one");
            Layers::of_mount(&mount, HashSet::new()).map(|layers| (layers.upper, layers.lowers))
        };
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(
            layers(r"rw,lowerdir=/l/A\134:1:/l/B::/data,upperdir=/up\040per,workdir=/w"),
            Some(("/up per".into(), paths(&["/l/A:1", "/l/B", "/data"])))
        );
        assert_eq!(
            layers("rw,lowerdir+=/l/1,lowerdir+=/l/2,upperdir=/u"),
            Some(("/u".into(), paths(&["/l/1", "/l/2"])))
        );
        assert_eq!(layers("ro,lowerdir=/l/1:/l/2"), None, "it has no upper layer");
    }

    #[test]
    fn a_path_is_found_as_overlayfs_finds_it() {
        let folder = tempfile::tempdir().expect("a directory");
        for directory in ["etc", "opt/opaque"] {
            fs::create_dir_all(folder.path().join(directory)).expect("it is ours");
        }
        fs::write(folder.path().join("etc/hosts"), "x").expect("it is ours");
        std::os::unix::fs::symlink("etc", folder.path().join("link")).expect("it is ours");
        let (gone, mode) = (folder.path().join("etc/gone"), Mode::empty());
        mknodat(rustix::fs::CWD, &gone, FileType::CharacterDevice, mode, makedev(0, 0)).expect("it is allowed");
        let opaque = folder.path().join("opt/opaque");
        rustix::fs::setxattr(&opaque, "user.overlay.opaque", b"y", XattrFlags::empty()).expect("it is allowed");
        let layer = open(folder.path()).expect("it is ours");
        for (path, expected) in [
            ("/etc/hosts", "here"),
            ("/etc", "here"),
            ("/etc/passwd", "nothing"),
            ("/usr/bin/tool", "nothing"),
            ("/etc/gone", "hidden"),
            ("/etc/gone/below", "hidden"),
            ("/etc/hosts/below", "hidden"),
            ("/opt/opaque", "here"),
            ("/opt/opaque/file", "hidden"),
            // A link in the layer is what the container has there; it is not followed.
            ("/link", "here"),
            ("/link/hosts", "hidden"),
        ] {
            let found = match find(&layer, path.as_bytes()).expect("it can be read") {
                Found::Nothing => "nothing",
                Found::Hidden => "hidden",
                Found::Here(_) => "here",
            };
            assert_eq!(found, expected, "{path}");
        }
    }

    #[test]
    fn a_layer_that_is_not_there_is_an_error() {
        let said = open(Path::new("/no/such/upper")).expect_err("it is not there").to_string();
        assert!(said.starts_with("/no/such/upper: No such file or directory"), "{said}");
    }

    #[test]
    fn a_process_is_found_below_a_cgroup() {
        let folder = tempfile::tempdir().expect("a directory");
        let below = folder.path().join("a/b");
        fs::create_dir_all(&below).expect("it is ours");
        fs::write(folder.path().join("cgroup.procs"), "0\n").expect("it is ours");
        assert_eq!(process_in(folder.path().to_owned()), None);
        fs::write(below.join("cgroup.procs"), "0\n17\n18\n").expect("it is ours");
        assert_eq!(process_in(folder.path().to_owned()), Some(17));
    }
}
