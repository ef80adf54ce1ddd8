//! The purpose of a path in an image, which decides how much a change there matters.

use crate::policy::PathPattern;

/// The names of directories with programs and libraries, wherever they are.
const PROGRAMS: &[&[u8]] = &[b"bin", b"sbin", b"lib", b"lib32", b"lib64", b"libx32", b"libexec"];

/// Files and directories (with a slash at the end) that control access or what is started.
const CONTROL: &[&[u8]] = &[
    b"/etc/cron.d/",
    b"/etc/cron.daily/",
    b"/etc/cron.hourly/",
    b"/etc/crontab",
    b"/etc/group",
    b"/etc/gshadow",
    b"/etc/init.d/",
    b"/etc/ld.so.conf",
    b"/etc/ld.so.conf.d/",
    b"/etc/ld.so.preload",
    b"/etc/pam.d/",
    b"/etc/passwd",
    b"/etc/profile",
    b"/etc/profile.d/",
    b"/etc/shadow",
    b"/etc/ssh/",
    b"/etc/sudoers",
    b"/etc/sudoers.d/",
    b"/etc/systemd/system/",
    b"/root/.ssh/",
    b"/var/spool/cron/",
];

/// Directories that are meant to be written to. In a container they should be volumes.
const SCRATCH: &[&[u8]] = &[b"/run/", b"/tmp/", b"/var/cache/", b"/var/log/", b"/var/run/", b"/var/tmp/"];

/// What lies at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Place {
    /// A directory that is meant to be written to ([`SCRATCH`]).
    Scratch,
    /// Anything else.
    Other,
    /// What controls access or what is started ([`CONTROL`]).
    Control,
    /// A program or library, by its directory ([`PROGRAMS`]).
    Program,
}

impl Place {
    /// The place of a file.
    pub(super) fn of(path: &[u8]) -> Self {
        match () {
            () if among_programs(path) => Self::Program,
            () if is_in(path, CONTROL) => Self::Control,
            () if is_in(path, SCRATCH) => Self::Scratch,
            () => Self::Other,
        }
    }

    /// The place of a file, or of a directory with everything in it.
    pub(super) fn of_tree(path: &[u8]) -> Self {
        Self::of(path).max(Self::of(&[path, b"/"].concat()))
    }
}

/// Whether a path is below a directory with programs or libraries. `/var/lib` is not such a directory, because it
/// contains data.
fn among_programs(path: &[u8]) -> bool {
    let path = path.strip_prefix(b"/var/lib/").unwrap_or(path);
    let mut directories = path.split(|&byte| byte == b'/');
    directories.next_back();
    directories.any(|name| PROGRAMS.contains(&name))
}

/// The directories of the system's programs and libraries.
const SYSTEM: &[&[u8]] = &[
    b"/bin/",
    b"/lib/",
    b"/lib64/",
    b"/sbin/",
    b"/usr/bin/",
    b"/usr/lib/",
    b"/usr/libexec/",
    b"/usr/local/bin/",
    b"/usr/local/lib/",
    b"/usr/local/sbin/",
    b"/usr/sbin/",
];

/// Whether a pattern stands for files of which a change matters more: programs and libraries, or what controls access
/// or what is started.
pub(crate) fn stands_for_what_matters(pattern: &PathPattern) -> bool {
    let of = |path: &[u8]| pattern.matches(path);
    among_programs(pattern.as_str().as_bytes())
        || [SYSTEM, CONTROL].concat().into_iter().any(|place| match place.strip_suffix(b"/") {
            Some(directory) => of(directory) || of(&[place, b"x"].concat()),
            None => of(place),
        })
}

/// Whether the programs and libraries of the system are in a directory, or in those in it.
pub(super) fn holds_programs(directory: &[u8]) -> bool {
    let name = directory.rsplit(|&byte| byte == b'/').next().unwrap_or(directory);
    PROGRAMS.contains(&name) || [&b"/usr"[..], b"/usr/local"].contains(&directory)
}

fn is_in(path: &[u8], list: &[&[u8]]) -> bool {
    list.iter().any(|&place| if place.ends_with(b"/") { path.starts_with(place) } else { path == place })
}
