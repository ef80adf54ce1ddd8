//! Package managers, and what they start: an installation changes hundreds of files, and is told as one finding.
//!
//! A package manager is known by the name of its program or script, which must be the image's. Not by its arguments: so
//! `python3 -m pip` is none.

use std::sync::Arc;

use super::process::{Key, key, lineage};
use super::{describe, interpreter};
use crate::event::{Args, Exec, Layer, Path, Process, Script};
use crate::recent::Recent;

/// The names of package managers, without a version at the end.
const NAMES: &[&str] = &[
    "apk",
    "apt",
    "apt-get",
    "aptitude",
    "conda",
    "dnf",
    "dpkg",
    "gem",
    "microdnf",
    "npm",
    "npm-cli.js",
    "opkg",
    "pip",
    "pnpm.cjs",
    "rpm",
    "tdnf",
    "yarn.js",
    "yum",
    "zypper",
];
/// How many processes of installations are remembered at most.
const MOST: usize = 8192;

/// A package manager that runs, or has run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Installation {
    /// Its process.
    pub(super) process: Key,
    /// What it was started with.
    pub(super) args: Args,
}

/// The processes of package managers, and those that they have started. Some of these belong to no installation.
#[derive(Debug)]
pub(super) struct Installations(Recent<Key, Option<Arc<Installation>>>);

impl Default for Installations {
    fn default() -> Self {
        Self(Recent::new(MOST))
    }
}

impl Installations {
    /// Records a program that is executed for these scripts.
    pub(super) fn insert(&mut self, exec: &Exec, scripts: &[Script]) {
        let own = key(exec.process.pid, exec.process.start_time);
        let is_lower = |layer| layer == Some(Layer::Lower);
        let mut scripts = scripts.iter().filter(|script| !script.is_input && is_lower(script.file.layer));
        let is_manager =
            is_lower(exec.file.layer) && (is_manager(&exec.exe) || scripts.any(|script| is_manager(&script.path)));
        let nearest = self.nearest(&exec.process);
        if nearest.is_none() && !is_manager {
            return;
        }
        let new = || is_manager.then(|| Arc::new(Installation { process: own, args: exec.args.clone() }));
        // What is typed into a shell that a package manager has started can be anything.
        let takes_commands = interpreter::reads_commands(&exec.exe, &exec.args, None);
        self.0.insert(own, nearest.flatten().or_else(new).filter(|_| !takes_commands));
    }

    /// The installation that a process belongs to.
    pub(super) fn of(&mut self, process: &Process) -> Option<Arc<Installation>> {
        self.nearest(process).flatten()
    }

    /// What is known of the process, or else of the nearest ancestor of which something is.
    fn nearest(&mut self, process: &Process) -> Option<Option<Arc<Installation>>> {
        lineage(process).find_map(|key| self.0.get(&key).cloned())
    }
}

fn is_manager(path: &Path) -> bool {
    let name = String::from_utf8_lossy(describe::base_name(&path.bytes));
    let name = name.trim_end_matches(|character: char| character.is_ascii_digit() || matches!(character, '.' | '-'));
    NAMES.contains(&name)
}
