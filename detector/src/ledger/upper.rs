//! What the upper layer of a container's root has, in comparison with what the ledger knows: changes from before the
//! container was watched, and those that were not seen. Who made them is not known.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::{fs, iter};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use serde::Serialize;

use super::account::Account;
use super::entry::{Deed, Entry, Subject};
use crate::finding::{Container, Text};
use crate::policy::PathPattern;
use crate::procfs::{self, Process};
use crate::sensor::hierarchy::Hierarchy;

/// How many names are read at most.
const MOST: usize = 200_000;
/// How many cgroups below that of a container are searched for a process at most.
const MOST_CGROUPS: usize = 1000;

/// Why an upper layer cannot be read.
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

/// What an upper layer has at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// A file that the image does not have, or has with other content or metadata.
    File,
    /// A directory in which nothing is changed: it is a new one, or its metadata is changed.
    Directory,
    /// Nothing, although the image has something there.
    Removed,
    /// A directory in place of what the image has there.
    Replaced,
}

impl Kind {
    /// The words for it.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::File => "added or changed",
            Self::Directory => "directory added, or its metadata changed",
            Self::Removed => "removed",
            Self::Replaced => "replaced by another directory",
        }
    }
}

/// A change in an upper layer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Change {
    /// Where, as the container sees it.
    pub(crate) path: Text,
    /// What is there.
    pub(crate) kind: Kind,
}

/// An upper layer, compared with the ledger.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Comparison {
    /// The directory of the upper layer.
    pub(crate) directory: Text,
    /// How many changes it has.
    pub(crate) changes: u64,
    /// Those that the ledger does not have, in the order of their paths.
    pub(crate) unknown: Vec<Change>,
    /// Why there can be others, one sentence each, or why the ledger can know more than it says.
    pub(crate) doubts: Vec<String>,
}

/// Compares the upper layer of a running container with what the ledger knows of it.
pub(crate) fn compare(account: &Account) -> Result<Comparison, Error> {
    let upper = Upper::of(&account.page.container)?;
    let (changes, mut doubts) = upper.changes()?;
    let known = Known::of(&account.entries);
    let count = changes.len() as u64;
    let mut unknown: Vec<_> = changes.into_iter().filter(|change| !known.has(&change.path)).collect();
    unknown.sort_unstable();
    if !unknown.is_empty() && known.has_installations {
        let why = "of what package managers did, the ledger has the number of files but not their paths, so files of \
            theirs are listed here, too";
        doubts.push(why.to_owned());
    }
    Ok(Comparison { directory: text(&upper.directory), changes: count, unknown, doubts })
}

fn text(path: &Path) -> Text {
    path.as_os_str().as_bytes().into()
}

/// The upper layer of a container's root.
#[derive(Debug)]
struct Upper {
    directory: PathBuf,
    /// Where something is mounted in the container. What the upper layer has there is only what a runtime needs to
    /// mount something on.
    mount_points: HashSet<Vec<u8>>,
}

impl Upper {
    fn of(container: &Container) -> Result<Self, Error> {
        let own = Process::open("self").and_then(|process| process.read("mountinfo"));
        let own = own.map_err(|cause| Error::Unreadable { path: b"/proc/self/mountinfo"[..].into(), cause })?;
        let path = container.cgroup.as_ref().and_then(Text::to_bytes).ok_or(Error::NoProcess)?;
        let hierarchy = Hierarchy::find(&own).1.ok_or(Error::NoProcess)?;
        let pid = process_in(hierarchy.directory(&path)).ok_or(Error::NoProcess)?;
        let unreadable = |cause| Error::Unreadable { path: format!("/proc/{pid}").as_bytes().into(), cause };
        let process = Process::open(&pid.to_string()).map_err(unreadable)?;
        let mountinfo = process.read("mountinfo").map_err(unreadable)?;
        let root = process.file_behind(c"root").map_err(unreadable)?.stx_mnt_id;
        let mount_points = procfs::mounts(&mountinfo).map(|mount| mount.mount_point).collect();
        let mount = procfs::mounts(&mountinfo).find(|mount| mount.id == root).ok_or(Error::NoProcess)?;
        let directory = mount.option(b"upperdir").filter(|_| mount.fs_type == b"overlay");
        let directory = directory.ok_or_else(|| Error::NoOverlay(mount.fs_type.as_slice().into()))?;
        Ok(Self { directory: PathBuf::from(OsString::from_vec(directory)), mount_points })
    }

    /// The changes that the layer has, and why there can be others.
    fn changes(&self) -> Result<(Vec<Change>, Vec<String>), Error> {
        let unreadable = |cause| Error::Unreadable { path: text(&self.directory), cause };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::open(&self.directory, flags, Mode::empty()).map_err(unreadable)?;
        let (mut changes, mut doubts, mut read, mut unread) = (Vec::new(), Vec::new(), 0, 0_u64);
        // The paths of directories, as the container sees them.
        let mut pending = vec![Vec::new()];
        while let Some(path) = pending.pop() {
            // The container can put a link in place of a directory at any time.
            let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            let below = path.strip_prefix(b"/").unwrap_or(b".");
            let opened = rustix::fs::openat2(&root, below, flags, Mode::empty(), beneath);
            let Ok(names) = opened.and_then(|directory| Ok((is_opaque(&directory), Dir::new(directory)?))) else {
                unread += 1;
                continue;
            };
            let (is_opaque, mut names) = names;
            let mut is_empty = true;
            while let Some(entry) = names.read() {
                let Ok(entry) = entry else {
                    unread += 1;
                    break;
                };
                let name = entry.file_name();
                if matches!(name.to_bytes(), b"." | b"..") {
                    continue;
                }
                (is_empty, read) = (false, read + 1);
                let found = names.fd().and_then(|at| rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW));
                let child = [&path[..], b"/", name.to_bytes()].concat();
                match found {
                    Err(_) => unread += 1,
                    Ok(found) => match FileType::from_raw_mode(found.st_mode) {
                        FileType::Directory => pending.push(child),
                        FileType::CharacterDevice if found.st_rdev == 0 => add(&mut changes, &child, Kind::Removed),
                        _ if found.st_size == 0 && self.mount_points.contains(&child) => {}
                        _ => add(&mut changes, &child, Kind::File),
                    },
                }
            }
            if path.is_empty() || self.mount_points.contains(&path) {
                // The root is in every layer.
            } else if is_opaque {
                add(&mut changes, &path, Kind::Replaced);
            } else if is_empty {
                add(&mut changes, &path, Kind::Directory);
            }
            if read >= MOST {
                doubts.push(format!("the upper layer has more than {MOST} names, and only as many were read"));
                break;
            }
        }
        if unread > 0 {
            doubts.push(format!("parts of the upper layer could not be read, or were changed meanwhile ({unread})"));
        }
        Ok((changes, doubts))
    }
}

fn add(changes: &mut Vec<Change>, path: &[u8], kind: Kind) {
    changes.push(Change { path: path.into(), kind });
}

/// Whether a directory of an upper layer hides that of the layers below (Documentation/filesystems/overlayfs.rst,
/// "whiteouts and opaque directories").
fn is_opaque(directory: &OwnedFd) -> bool {
    [c"trusted.overlay.opaque", c"user.overlay.opaque"].into_iter().any(|name| {
        let mut value = [0; 1];
        rustix::fs::fgetxattr(directory, name, &mut value[..]).is_ok_and(|length| length == 1) && value == *b"y"
    })
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

/// What the ledger knows, to be found by a path.
struct Known<'a> {
    paths: HashMap<&'a str, &'a Entry>,
    patterns: Vec<PathPattern>,
    has_installations: bool,
}

impl<'a> Known<'a> {
    fn of(entries: &'a [Entry]) -> Self {
        let mut known = Self { paths: HashMap::new(), patterns: Vec::new(), has_installations: false };
        for entry in entries {
            match &entry.subject {
                Subject::Path(path) => _ = known.paths.insert(path.as_str(), entry),
                Subject::Paths(pattern) => known.patterns.extend(pattern.as_str().parse::<PathPattern>()),
                Subject::Installation(_) => known.has_installations = true,
                Subject::Inode(_) => {}
            }
        }
        known
    }

    /// Whether the ledger has an entry about this path, or one by which it is there.
    fn has(&self, path: &Text) -> bool {
        let is_there = |path: &str| {
            self.paths.get(path).copied().filter(|entry| entry.state().is_some_and(|state| !state.is_over()))
        };
        // What is below a directory has come with it when that got its name.
        let above = iter::successors(Some(path.as_str()), |path| path.rsplit_once('/').map(|(above, _)| above)).skip(1);
        let has_come = |path: &str| is_there(path).is_some_and(|entry| entry.deeds.contains_key(&Deed::Arrived));
        is_there(path.as_str()).is_some()
            || above.into_iter().any(has_come)
            || path.to_bytes().is_some_and(|path| self.patterns.iter().any(|pattern| pattern.matches(&path)))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::{XattrFlags, makedev, mknodat};

    use super::*;
    use crate::event::{ImageOp, Layer};
    use crate::ledger::tests::{account, change, counted, renamed};

    /// What an upper layer has after these files were made in it.
    fn changes(make: impl FnOnce(&Path), mount_points: &[&str]) -> (Vec<(String, Kind)>, Vec<String>) {
        let folder = tempfile::tempdir().expect("a directory");
        make(folder.path());
        let mount_points = mount_points.iter().map(|path| path.as_bytes().to_vec()).collect();
        let upper = Upper { directory: folder.path().to_owned(), mount_points };
        let (mut changes, doubts) = upper.changes().expect("it can be read");
        changes.sort_unstable();
        (changes.into_iter().map(|change| (change.path.to_string(), change.kind)).collect(), doubts)
    }

    #[test]
    fn files_whiteouts_and_directories_are_told_apart() {
        let (found, doubts) = changes(
            |upper| {
                for directory in ["etc/empty", "srv/replaced", "dev", "run"] {
                    fs::create_dir_all(upper.join(directory)).expect("it is ours");
                }
                for file in ["etc/hosts", "etc/passwd", "run/socket", "srv/replaced/file"] {
                    fs::write(upper.join(file), "x").expect("it is ours");
                }
                fs::write(upper.join("etc/resolv.conf"), "").expect("it is ours");
                // It must not be followed.
                symlink("/", upper.join("srv/link")).expect("it is ours");
                let (file, mode) = (upper.join("etc/gone"), Mode::empty());
                mknodat(rustix::fs::CWD, &file, FileType::CharacterDevice, mode, makedev(0, 0)).expect("it is allowed");
                let opaque = upper.join("srv/replaced");
                rustix::fs::setxattr(&opaque, "user.overlay.opaque", b"y", XattrFlags::empty()).expect("it is allowed");
            },
            &["/", "/dev", "/etc/resolv.conf", "/etc/hosts"],
        );
        let expected = [
            ("/etc/empty", Kind::Directory),
            ("/etc/gone", Kind::Removed),
            // It has a content, so it is not only what something is mounted on.
            ("/etc/hosts", Kind::File),
            ("/etc/passwd", Kind::File),
            ("/run/socket", Kind::File),
            ("/srv/link", Kind::File),
            ("/srv/replaced", Kind::Replaced),
            ("/srv/replaced/file", Kind::File),
        ];
        assert_eq!(found, expected.map(|(path, kind)| (path.to_owned(), kind)));
        assert!(doubts.is_empty(), "{doubts:?}");
    }

    #[test]
    fn what_the_ledger_has_is_known() {
        let account = account(&[
            change(ImageOp::Create, Layer::New, "/etc/new", 1),
            change(ImageOp::Create, Layer::New, "/etc/gone", 1),
            change(ImageOp::Unlink, Layer::Upper, "/etc/gone", 2),
            counted(&change(ImageOp::Create, Layer::New, "/srv/1", 3), 2, 10, "/srv/*", 5),
            renamed("/opt/before", "/opt/tool", 6),
        ]);
        let known = Known::of(&account.entries);
        for (path, is_known) in [
            ("/etc/new", true),
            ("/etc/newer", false),
            ("/etc", false),
            // It was removed again, so somebody else has made what is there.
            ("/etc/gone", false),
            ("/srv/7", true),
            ("/srv/7/8", false),
            ("/opt/tool", true),
            ("/opt/tool/bin/run", true),
            ("/opt/toolbox", false),
        ] {
            assert_eq!(known.has(&path.as_bytes().into()), is_known, "{path}");
        }
    }

    #[test]
    fn an_upper_layer_that_is_not_there_is_an_error() {
        let upper = Upper { directory: "/no/such/upper".into(), mount_points: HashSet::new() };
        let said = upper.changes().expect_err("it is not there").to_string();
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
