//! What the upper layer of a container's root has, in comparison with what the ledger knows: changes from before the
//! container was watched, and those that were not seen. Who made them is not known.

use std::collections::HashMap;
use std::iter;

use rustix::fs::{AtFlags, Dir, FileType};
use serde::Serialize;

use super::account::Account;
use super::entry::{Deed, Entry, Subject};
use super::layers::{self, Error, Layers, is_opaque, is_whiteout, open_below};
use crate::finding::Text;
use crate::policy::PathPattern;

/// How many names are read at most.
const MOST: usize = 200_000;

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
    let layers = Layers::of(&account.page.container)?;
    let (changes, mut doubts) = changes(&layers)?;
    let known = Known::of(&account.entries);
    let count = changes.len() as u64;
    let mut unknown: Vec<_> = changes.into_iter().filter(|change| !known.has(&change.path)).collect();
    unknown.sort_unstable();
    if !unknown.is_empty() && known.has_installations {
        let why = "of what package managers did, the ledger has the number of files but not their paths, so files of \
            theirs are listed here, too";
        doubts.push(why.to_owned());
    }
    Ok(Comparison { directory: layers::text(&layers.upper), changes: count, unknown, doubts })
}

/// The changes that the layer has, and why there can be others.
fn changes(layers: &Layers) -> Result<(Vec<Change>, Vec<String>), Error> {
    let root = layers::open(&layers.upper)?;
    let (mut changes, mut doubts, mut read, mut unread) = (Vec::new(), Vec::new(), 0, 0_u64);
    // The paths of directories, as the container sees them.
    let mut pending = vec![Vec::new()];
    while let Some(path) = pending.pop() {
        let Ok(names) =
            open_below(&root, &path).and_then(|directory| Ok((is_opaque(&directory), Dir::new(directory)?)))
        else {
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
                    _ if is_whiteout(&found) => add(&mut changes, &child, Kind::Removed),
                    _ if found.st_size == 0 && layers.mount_points.contains(&child) => {}
                    _ => add(&mut changes, &child, Kind::File),
                },
            }
        }
        if path.is_empty() || layers.mount_points.contains(&path) {
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

fn add(changes: &mut Vec<Change>, path: &[u8], kind: Kind) {
    changes.push(Change { path: path.into(), kind });
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
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use rustix::fs::{Mode, XattrFlags, makedev, mknodat};

    use super::*;
    use crate::event::{ImageOp, Layer};
    use crate::ledger::tests::{account, change, counted, renamed};

    /// What an upper layer has after these files were made in it.
    fn changes(make: impl FnOnce(&Path), mount_points: &[&str]) -> (Vec<(String, Kind)>, Vec<String>) {
        let folder = tempfile::tempdir().expect("a directory");
        make(folder.path());
        let mount_points = mount_points.iter().map(|path| path.as_bytes().to_vec()).collect();
        let layers = Layers { upper: folder.path().to_owned(), lowers: Vec::new(), mount_points };
        let (mut changes, doubts) = super::changes(&layers).expect("it can be read");
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
}
