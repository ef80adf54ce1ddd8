//! The configuration file of a running daemon: notices that it has changed, and reads it again.

use std::fs::Metadata;
use std::io::ErrorKind;
use std::mem;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use sha2::Digest as _;
use toml::{Table, Value};

use super::{DEFAULT_PATH, Loaded, Refusal};
use crate::finding::{LoadedPolicy, NoticeEvent, Sha256};
use crate::policy::{Difference, Policy};

/// How many names and warnings a notice has at most.
const LISTED: usize = 100;

/// The keys that are read again.
const POLICY: [&str; 3] = ["exception", "severity", "watch"];

/// The configuration file of a daemon.
#[derive(Clone, Debug)]
pub struct Followed {
    path: PathBuf,
    /// Whether there never was one. Then none need be there.
    is_missing: bool,
    /// Its text when the daemon started.
    at_start: String,
    /// What was loaded last.
    policy: Policy,
    /// What it was like when it was read last, and when it was looked at last.
    read: Option<Stamp>,
    seen: Option<Stamp>,
    /// Why it could not be read the last time, if that may pass.
    unread: Option<String>,
}

/// What became of a file that was read.
#[derive(Debug)]
pub struct Reading {
    /// What it says, unless it was refused.
    pub policy: Option<Policy>,
    /// Says what was loaded, or why not.
    pub notice: NoticeEvent,
}

impl Followed {
    /// Reads the file at this path, or at the usual path, where none need be.
    ///
    /// # Errors
    ///
    /// The file cannot be used.
    pub fn start(path: Option<PathBuf>) -> Result<(Self, Loaded), Refusal> {
        let is_optional = path.is_none();
        let path = path.unwrap_or_else(|| DEFAULT_PATH.into());
        // Others are told the path.
        let path = std::path::absolute(&path).unwrap_or(path);
        let read = Stamp::of(&path);
        // A link that leads nowhere is there, and an error.
        let is_missing = is_optional && path.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound);
        let loaded = if is_missing { Loaded::default() } else { Loaded::without_errors(&path)? };
        let (at_start, policy) = (loaded.text.clone(), loaded.settings.policy());
        Ok((Self { path, is_missing, at_start, policy, read, seen: read, unread: None }, loaded))
    }

    /// The path of the file, unless there was none.
    pub fn path(&self) -> Option<&Path> {
        (!self.is_missing).then_some(&self.path)
    }

    /// What was loaded last.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Reads the file again if it has changed, or if it could not be read the last time and may be now. What is still
    /// wrong is not said twice.
    pub fn look(&mut self) -> Option<Reading> {
        let before = self.unread.clone();
        if !self.has_changed() && before.is_none() {
            return None;
        }
        let reading = self.read_again();
        reading.filter(|_| before.is_none() || self.unread != before)
    }

    /// Whether there is another file now, or other text in it. What somebody is still writing does not count before it
    /// was found the same twice.
    fn has_changed(&mut self) -> bool {
        let now = Stamp::of(&self.path);
        let is_at_rest = mem::replace(&mut self.seen, now) == now;
        is_at_rest && self.read != now
    }

    /// Reads the file again, unless it is not there and never was.
    pub fn read_again(&mut self) -> Option<Reading> {
        // What is changed from now on is noticed the next time.
        self.read = Stamp::of(&self.path);
        self.is_missing &= self.read.is_none();
        self.path()?;
        self.unread = None;
        Some(match Loaded::without_errors(&self.path) {
            Ok(loaded) => {
                let notice = self.notice(&loaded);
                self.policy = loaded.settings.policy();
                Reading { policy: Some(self.policy.clone()), notice }
            }
            Err(refusal) => {
                let (file, reason) = (self.path.display().to_string(), refusal.to_string());
                let may_pass = matches!(refusal, Refusal::Unread(_, error) if error.may_pass());
                self.unread = may_pass.then(|| reason.clone());
                Reading { policy: None, notice: NoticeEvent::PolicyRefused { file, reason } }
            }
        })
    }

    /// Says that this was loaded, and what is different from what was loaded before.
    pub fn notice(&self, loaded: &Loaded) -> NoticeEvent {
        let policy = loaded.settings.policy();
        let Difference { mut added, mut removed, mut changed, is_reordered, has_other_overrides, has_other_rules } =
            Difference::between(&self.policy, &policy);
        let mut warnings = loaded.warnings(&self.path);
        let lists = [&mut added, &mut removed, &mut changed, &mut warnings];
        let more = lists.iter().map(|list| list.len().saturating_sub(LISTED) as u64).sum();
        lists.into_iter().for_each(|list| list.truncate(LISTED));
        NoticeEvent::PolicyLoaded(Box::new(LoadedPolicy {
            file: self.path.display().to_string(),
            sha256: Sha256(sha2::Sha256::digest(&loaded.text).into()),
            exceptions: policy.exceptions.len() as u64,
            overrides: policy.overrides.len() as u64,
            rules: policy.rules.len() as u64,
            added,
            removed,
            changed,
            reordered: is_reordered,
            other_overrides: has_other_overrides,
            other_rules: has_other_rules,
            warnings,
            more,
            needs_restart: needs_restart(&self.at_start, &loaded.text),
        }))
    }
}

/// What a file is like. Another file, or other text in it, is different.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// That of the file that a path leads to, if it leads to one.
    fn of(path: &Path) -> Option<Self> {
        path.metadata().ok().as_ref().map(Self::from)
    }
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            file: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// The keys with other values after a change of the file's text, apart from those that are read again.
fn needs_restart(before: &str, after: &str) -> Vec<String> {
    let parse = |text: &str| -> Table {
        let mut table: Table = text.parse().unwrap_or_default();
        table.retain(|key, _| !POLICY.contains(&key));
        table
    };
    let mut keys = Vec::new();
    compare("", &parse(before), &parse(after), &mut keys);
    keys
}

fn compare(prefix: &str, before: &Table, after: &Table, keys: &mut Vec<String>) {
    let empty = Table::new();
    let mut names: Vec<_> = before.keys().chain(after.keys().filter(|key| !before.contains_key(*key))).collect();
    names.sort();
    for name in names {
        let key = format!("{prefix}{name}");
        match (before.get(name), after.get(name)) {
            (Some(Value::Table(before)), Some(Value::Table(after))) => compare(&(key + "."), before, after, keys),
            (Some(Value::Table(before)), None) => compare(&(key + "."), before, &empty, keys),
            (None, Some(Value::Table(after))) => compare(&(key + "."), &empty, after, keys),
            (before, after) if before != after => keys.push(key),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    fn exception(name: &str) -> String {
        format!("[[exception]]\nname = '{name}'\nreason = 'r'\nowner = 'o'\nfinding = 'image_write'\npath = '/a'\n")
    }

    fn started(folder: &TempDir, text: &str) -> (PathBuf, Followed) {
        let path = folder.path().join("config.toml");
        fs::write(&path, text).expect("it is ours");
        let (followed, _) = Followed::start(Some(path.clone())).expect("it is right");
        (path, followed)
    }

    #[test]
    fn a_file_counts_as_changed_once_it_is_at_rest_and_until_it_is_read() {
        let folder = TempDir::new().expect("a directory");
        let (path, mut followed) = started(&folder, "");
        assert!(!followed.has_changed() && !followed.has_changed());
        fs::write(&path, "log = 'warn'\n").expect("it is ours");
        assert!(!followed.has_changed(), "somebody may still be writing");
        assert!(followed.has_changed() && followed.has_changed());
        followed.read_again().expect("it is there");
        assert!(!followed.has_changed());
    }

    #[test]
    fn another_file_at_the_end_of_links_is_noticed_too() {
        // As Kubernetes changes what is mounted of a ConfigMap.
        let folder = TempDir::new().expect("a directory");
        let at = |name: &str| folder.path().join(name);
        for version in ["1", "2"] {
            fs::create_dir(at(version)).expect("it is ours");
            fs::write(at(version).join("config.toml"), "").expect("it is ours");
        }
        symlink("1", at("..data")).expect("a link");
        symlink("..data/config.toml", at("config.toml")).expect("a link");
        let (mut followed, _) = Followed::start(Some(at("config.toml"))).expect("it is right");
        symlink("2", at("..next")).expect("a link");
        fs::rename(at("..next"), at("..data")).expect("it is ours");
        assert!(!followed.has_changed() && followed.has_changed());
    }

    #[test]
    fn it_is_said_what_is_different_and_what_needs_a_restart() {
        let folder = TempDir::new().expect("a directory");
        let (path, mut followed) = started(&folder, &format!("log = 'warn'\n{}", exception("one")));
        let rule = "[[watch]]\nname = 'one'\nreason = 'r'\nwatched = false\nimage = 'a'\n";
        let text = format!("node.labels.a = 'b'\n[output]\nshow_suppressed = true\n{}{rule}", exception("two"));
        fs::write(&path, &text).expect("it is ours");
        let Reading { policy, notice } = followed.read_again().expect("it is there");
        assert_eq!(policy.expect("it is right").exceptions[0].name, "two");
        let NoticeEvent::PolicyLoaded(loaded) = notice else { panic!("{notice:?}") };
        let LoadedPolicy { exceptions, added, removed, changed, other_rules, needs_restart, warnings, .. } = *loaded;
        assert_eq!((exceptions, added, removed, changed), (1, vec!["two".to_owned()], vec!["one".to_owned()], vec![]));
        assert_eq!(needs_restart, ["log", "node.labels.a", "output.show_suppressed"]);
        assert!(other_rules);
        assert!(warnings.concat().contains("exception `two` never expires"), "{warnings:?}");
    }

    #[test]
    fn a_file_that_could_not_be_read_is_tried_again_although_it_is_the_same() {
        let folder = TempDir::new().expect("a directory");
        let (path, mut followed) = started(&folder, "");
        fs::write(&path, exception("one")).expect("it is ours");
        // What only the reading meets, such as an error of the disk.
        followed.read_again().expect("it is there");
        followed.unread = Some("it cannot be read".to_owned());
        followed.has_changed();
        assert!(matches!(followed.look(), Some(Reading { policy: Some(_), .. })));
        assert!(followed.look().is_none(), "it was read");
        // It is gone, which is said once.
        fs::remove_file(&path).expect("it is ours");
        assert!(followed.look().is_none(), "somebody may be writing it");
        assert!(matches!(followed.look(), Some(Reading { policy: None, .. })));
        assert!(followed.look().is_none() && followed.look().is_none());
        fs::write(&path, exception("two")).expect("it is ours");
        let loaded = followed.look().or_else(|| followed.look()).expect("it is there again");
        assert_eq!(loaded.policy.expect("it is right").exceptions[0].name, "two");
    }

    #[test]
    fn a_file_that_cannot_be_used_changes_nothing() {
        let folder = TempDir::new().expect("a directory");
        let (path, mut followed) = started(&folder, &exception("one"));
        let mut refused = || match followed.read_again().expect("it was there") {
            Reading { policy: None, notice: NoticeEvent::PolicyRefused { reason, .. } } => reason,
            other => panic!("{other:?}"),
        };
        fs::write(&path, "log = 'loud'\n").expect("it is ours");
        assert!(refused().contains("config.toml:1:7: "), "{}", refused());
        fs::remove_file(&path).expect("it is ours");
        assert!(refused().contains("there is no such file"), "{}", refused());
        fs::write(&path, exception("one")).expect("it is ours");
        let notice = followed.read_again().expect("it is there").notice;
        let NoticeEvent::PolicyLoaded(loaded) = notice else { panic!("{notice:?}") };
        assert!(loaded.added.is_empty() && loaded.removed.is_empty());
    }
}
