//! What a workload needs to run with a read-only root: where it must be able to write, by what its containers have
//! written so far.
//!
//! What the application writes is what counts. What people did who came in, and what an engine did, is not needed. What
//! it writes below one directory needs one mount there; programs that it changes, and files beside those that the whole
//! system needs, are no matter for a mount.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::account::Account;
use super::entry::{Actor, Deed, Entry, Subject};
use super::page::Page;
use crate::finding::{Origin, Severity, Text, Time};

/// Directories for data that can be mounted over as a whole.
const WHOLE: &[&str] = &["/tmp", "/var/tmp", "/run", "/var/run", "/dev/shm"];
/// Directories of which each one below is somebody's own.
const OF_MANY: &[&str] = &["/var/cache", "/var/log", "/var/lib", "/var/spool", "/home"];
/// Directories that have what others need, so nothing can be mounted over them.
const SHARED: &[&str] = &[
    "/",
    "/bin",
    "/boot",
    "/etc",
    "/home",
    "/lib",
    "/lib32",
    "/lib64",
    "/media",
    "/mnt",
    "/opt",
    "/sbin",
    "/srv",
    "/usr",
    "/usr/bin",
    "/usr/lib",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/local",
    "/usr/local/bin",
    "/usr/local/lib",
    "/usr/local/sbin",
    "/usr/sbin",
    "/usr/share",
    "/var",
    "/var/lib",
];
/// How many directories beside each other make their parent the better place.
const MANY: usize = 4;

/// The advice about a workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Advice {
    /// What it is based on.
    pub(crate) basis: Basis,
    /// Where something must be mounted that can be written, in the order of the paths.
    pub(crate) mounts: Vec<Mount>,
    /// What no mount solves.
    pub(crate) unsolved: Vec<Unsolved>,
    /// At how many paths only people or engines did something.
    pub(crate) by_others: u64,
}

/// What an advice is based on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Basis {
    /// How many containers.
    pub(crate) containers: u64,
    /// How often they were started while they were watched.
    pub(crate) starts: u64,
    /// Since when the first of them is watched.
    pub(crate) since: Time,
    /// For how many seconds they were watched, all together.
    pub(crate) seconds: u64,
    /// Why there can be more, one sentence each.
    pub(crate) doubts: BTreeSet<String>,
}

/// A directory that must be writable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Mount {
    /// The directory.
    pub(crate) path: String,
    /// At how many paths below it something was written.
    pub(crate) paths: u64,
    /// One of them.
    pub(crate) example: Text,
    /// The executable that wrote there first, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) by: Option<Text>,
    /// How many files the image has below it, which a mount hides. `None` if that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hides: Option<u64>,
}

/// Something that no mount solves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Unsolved {
    /// The path.
    pub(crate) path: Text,
    /// Why not.
    pub(crate) why: Why,
}

/// Why no mount solves something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Why {
    /// It is a program, a library, or something else that matters as much.
    Code,
    /// It is in a directory that others need.
    Shared,
    /// Its path is not known, or is not plain text.
    Unclear,
}

impl Why {
    /// What to do about it.
    pub(crate) const fn remedy(self) -> &'static str {
        match self {
            Self::Code => "is code, or decides who may do what: put it into the image",
            Self::Shared => "is beside files that others need: put it into the image, or mount this one file",
            Self::Unclear => "has no path that is known in full: find out what writes it",
        }
    }
}

impl Advice {
    /// The advice about the workload of these containers, at this time.
    pub(crate) fn about(accounts: &[&Account], now: Time) -> Self {
        let mut unsolved = BTreeSet::new();
        let (mut written, mut others) = (BTreeMap::<String, Vec<&Entry>>::new(), BTreeSet::new());
        for entry in accounts.iter().flat_map(|account| &account.entries).filter(|entry| is_change(entry)) {
            let named = || named(&entry.subject);
            if is_of_others(entry) {
                others.insert(entry.subject.clone());
            } else if entry.severity() >= Severity::High {
                unsolved.insert(Unsolved { path: named(), why: Why::Code });
            } else if let Some(path) = plain_path(&entry.subject) {
                written.entry(path).or_default().push(entry);
            } else {
                unsolved.insert(Unsolved { path: named(), why: Why::Unclear });
            }
        }
        let paths: BTreeSet<&str> = written.keys().map(String::as_str).collect();
        let mut below = BTreeMap::<String, Vec<(&str, &Entry)>>::new();
        for (path, entries) in &written {
            match directory_for(path, &paths) {
                Some(directory) => {
                    let entries = entries.iter().map(|entry| (path.as_str(), *entry));
                    below.entry(directory).or_default().extend(entries);
                }
                None => _ = unsolved.insert(Unsolved { path: named(&entries[0].subject), why: Why::Shared }),
            }
        }
        let mounts = together(below).into_iter().map(|(path, entries)| Mount::at(path, &entries)).collect();
        Self {
            basis: Basis::of(accounts, now),
            mounts,
            unsolved: unsolved.into_iter().collect(),
            by_others: others.len() as u64,
        }
    }
}

impl Basis {
    fn of(accounts: &[&Account], now: Time) -> Self {
        let watched =
            |Page { since, ended, .. }: &Page| ended.unwrap_or(now).0.duration_since(since.0).as_secs().max(0);
        Self {
            containers: accounts.len() as u64,
            starts: accounts.iter().map(|account| account.page.starts).sum(),
            since: accounts.iter().map(|account| account.page.since).min().unwrap_or(now),
            seconds: accounts.iter().map(|account| watched(&account.page).unsigned_abs()).sum(),
            doubts: accounts.iter().flat_map(|account| account.doubts.clone()).collect(),
        }
    }
}

impl Mount {
    fn at(path: String, entries: &[(&str, &Entry)]) -> Self {
        let different: BTreeSet<_> = entries.iter().map(|(path, _)| *path).collect();
        let by = entries.iter().flat_map(|(_, entry)| &entry.actors).find_map(|actor| actor.exe.clone());
        let example = entries.first().map(|(_, entry)| named(&entry.subject)).unwrap_or_default();
        Self { path, paths: different.len() as u64, example, by, hides: None }
    }
}

/// What an entry is about, in words.
fn named(subject: &Subject) -> Text {
    match subject {
        Subject::Path(path) | Subject::Paths(path) => path.clone(),
        Subject::Inode(inode) => inode.as_bytes().into(),
        Subject::Installation(args) => args.first().cloned().unwrap_or_default(),
    }
}

/// Whether something was written at the path.
fn is_change(entry: &Entry) -> bool {
    entry.deeds.keys().any(|deed| !matches!(deed, Deed::Covered | Deed::Uncovered | Deed::Executed))
}

/// Whether only people who came in, or an engine, did it.
fn is_of_others(entry: &Entry) -> bool {
    let is_by_engine = entry.expected.get("engine").is_some_and(|count| *count >= entry.findings.values().sum());
    let is_of_application = |actor: &Actor| {
        let is_inside = matches!(actor.origin, Origin::Entrypoint | Origin::Application | Origin::Unknown);
        is_inside && actor.session.is_none() && !actor.has_executed
    };
    let may_be_of_application =
        entry.actors.is_empty() || entry.has_more_actors || entry.actors.iter().any(is_of_application);
    is_by_engine || !may_be_of_application
}

/// The path, or the directory with a slash in which files are that were only counted, if it is plain text.
fn plain_path(subject: &Subject) -> Option<String> {
    let path = match subject {
        Subject::Path(path) => path.as_str(),
        Subject::Paths(pattern) => {
            let pattern = pattern.as_str();
            let fixed = &pattern[..pattern.find(['*', '?', '[', '{']).unwrap_or(pattern.len())];
            &fixed[..=fixed.rfind('/')?]
        }
        Subject::Inode(_) | Subject::Installation(_) => return None,
    };
    Some(path.to_owned()).filter(|path| is_plain(path))
}

/// Whether a path can be written into a command line or a manifest as it is.
fn is_plain(path: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+@%=".contains(&byte);
    path.starts_with('/') && path.bytes().all(is_plain)
}

/// The directory over which something must be mounted so that this path can be written.
fn directory_for(path: &str, written: &BTreeSet<&str>) -> Option<String> {
    let is_below = |directory: &str| path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'));
    if let Some(whole) = WHOLE.iter().find(|whole| path == **whole || is_below(whole)) {
        return Some(if *whole == "/var/run" { "/run".to_owned() } else { (*whole).to_owned() });
    }
    // A directory that the workload has made itself, with what is in it.
    let ends = path.char_indices().skip(1).filter(|(_, letter)| *letter == '/').map(|(at, _)| &path[..at]);
    if let Some(made) = ends.clone().find(|directory| written.contains(*directory) && !SHARED.contains(directory)) {
        return directory_for(made, &BTreeSet::new()).or_else(|| Some(made.to_owned()));
    }
    if let Some(own) = OF_MANY.iter().find(|of_many| is_below(of_many)) {
        let rest = &path[own.len() + 1..];
        return match rest.find('/') {
            Some(end) => Some(path[..own.len() + 1 + end].to_owned()),
            None => Some((*own).to_owned()).filter(|own| !SHARED.contains(&own.as_str())),
        };
    }
    let parent = &path[..path.rfind('/')?];
    (!parent.is_empty() && !SHARED.contains(&parent)).then(|| parent.to_owned())
}

/// The directories without those that are in others, and with the parent of many.
fn together<'a>(mut below: BTreeMap<String, Vec<(&'a str, &'a Entry)>>) -> BTreeMap<String, Vec<(&'a str, &'a Entry)>> {
    let mut children = BTreeMap::<String, usize>::new();
    for directory in below.keys() {
        if let Some((parent, _)) = directory.rsplit_once('/') {
            *children.entry(parent.to_owned()).or_default() += 1;
        }
    }
    let is_better = |parent: &&String| {
        !parent.is_empty() && !SHARED.contains(&parent.as_str()) && !OF_MANY.contains(&parent.as_str())
    };
    for parent in children.iter().filter(|(_, count)| **count >= MANY).map(|(parent, _)| parent).filter(is_better) {
        below.entry(parent.clone()).or_default();
    }
    let mut mounts = BTreeMap::<String, Vec<_>>::new();
    // A directory comes before what is in it.
    for (directory, entries) in below {
        let above = mounts
            .range_mut(..directory.clone())
            .rev()
            .find(|(above, _)| directory.strip_prefix(above.as_str()).is_some_and(|rest| rest.starts_with('/')));
        match above {
            Some((_, all)) => all.extend(entries),
            None => _ = mounts.insert(directory, entries),
        }
    }
    mounts
}

#[cfg(test)]
mod tests {
    use super::super::tests::{account, change, counted};
    use super::*;
    use crate::finding::{Expected, Finding, ImageOp, Layer, Reason};

    /// What the application of the container did at these paths.
    fn done(paths: &[&str]) -> Vec<Finding> {
        paths.iter().enumerate().map(|(nth, path)| by(Origin::Application, path, nth)).collect()
    }

    fn by(origin: Origin, path: &str, nth: usize) -> Finding {
        let op = if path.ends_with('/') { ImageOp::Mkdir } else { ImageOp::Create };
        let mut finding = change(op, Layer::New, path.strip_suffix('/').unwrap_or(path), nth as i128 + 1);
        finding.session = None;
        finding.process.as_mut().expect("it has one").origin = origin;
        finding
    }

    fn advice(findings: &[Finding]) -> Advice {
        let account = account(findings);
        Advice::about(&[&account], account.page.since)
    }

    fn mounts(paths: &[&str]) -> Vec<String> {
        advice(&done(paths)).mounts.into_iter().map(|mount| mount.path).collect()
    }

    #[test]
    fn each_path_is_below_a_mount() {
        for (path, mount) in [
            ("/tmp/a/b", "/tmp"),
            ("/run/app.pid", "/run"),
            ("/var/run/app.pid", "/run"),
            ("/var/log/app.log", "/var/log"),
            ("/var/log/app/error.log", "/var/log/app"),
            ("/var/cache/nginx/client/1", "/var/cache/nginx"),
            ("/var/lib/app/state", "/var/lib/app"),
            ("/home/app/.cache/x", "/home/app"),
            ("/etc/nginx/conf.d/default.conf", "/etc/nginx/conf.d"),
            ("/srv/app/data", "/srv/app"),
            ("/usr/local/tomcat/work/x", "/usr/local/tomcat/work"),
        ] {
            assert_eq!(mounts(&[path]), [mount], "{path}");
        }
    }

    #[test]
    fn directories_are_put_together() {
        assert_eq!(mounts(&["/srv/app/", "/srv/app/one", "/srv/app/two/", "/srv/app/two/three"]), ["/srv/app"]);
        assert_eq!(mounts(&["/data/", "/data/one"]), ["/data"], "the workload makes it in a shared directory");
        assert_eq!(mounts(&["/srv/app/x", "/srv/app/sub/x", "/srv/apple/x"]), ["/srv/app", "/srv/apple"]);
        let many = ["/srv/app/1/x", "/srv/app/2/x", "/srv/app/3/x", "/srv/app/4/x"];
        assert_eq!(mounts(&many), ["/srv/app"]);
        assert_eq!(mounts(&many[..3]), ["/srv/app/1", "/srv/app/2", "/srv/app/3"]);
        // Their parent has what others need.
        let shared = ["/opt/1/x", "/opt/2/x", "/opt/3/x", "/opt/4/x"];
        assert_eq!(mounts(&shared), ["/opt/1", "/opt/2", "/opt/3", "/opt/4"]);
    }

    #[test]
    fn what_no_mount_solves_is_said() {
        let mut findings = done(&["/etc/app.conf", "/usr/local/bin/tool", "/srv/a b", "/srv/app/x"]);
        findings[1].severity = Severity::High;
        let Advice { mounts, unsolved, .. } = advice(&findings);
        let unsolved: Vec<_> = unsolved.iter().map(|unsolved| (unsolved.path.as_str(), unsolved.why)).collect();
        assert_eq!(
            unsolved,
            [("/etc/app.conf", Why::Shared), ("/srv/a b", Why::Unclear), ("/usr/local/bin/tool", Why::Code)]
        );
        assert_eq!(mounts.len(), 1);
    }

    #[test]
    fn files_that_are_only_counted_have_a_directory() {
        let first = &done(&["/srv/cache/pages/1"])[0];
        let found = advice(&[first.clone(), counted(first, 2, 700, "/srv/cache/pages/*", 9)]);
        let [mount] = &found.mounts[..] else { panic!("{found:?}") };
        assert_eq!((mount.path.as_str(), mount.example.as_str()), ("/srv/cache/pages", "/srv/cache/pages/*"));
    }

    #[test]
    fn what_others_did_is_not_needed() {
        let entered = Finding { session: Some("s".to_owned()), ..by(Origin::Entered, "/srv/app/by-hand", 1) };
        let copied = by(Origin::Outside, "/srv/app/copied", 2);
        let mut stub = by(Origin::Application, "/etc/hosts", 3);
        stub.expected = Some(Expected { reason: Reason::Engine, otherwise: Severity::Medium });
        let found = advice(&[entered.clone(), copied, stub]);
        assert_eq!((found.mounts.len(), found.unsolved.len(), found.by_others), (0, 0, 3));
        // The application does the same.
        let found = advice(&[entered, by(Origin::Entrypoint, "/srv/app/by-hand", 4)]);
        assert_eq!((found.mounts.len(), found.by_others), (1, 0));
    }
}
