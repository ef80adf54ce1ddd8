//! Package managers, and what they start: an installation changes hundreds of files, and is told as one finding. So is
//! a step of a build, which is known by the cgroup that the builder has made for it, and runs in a container of its
//! own. What a package manager does there is part of the step.
//!
//! A package manager is known by the name of its program or script, which must be the image's, or by that of the module
//! that Python runs (`python3 -m pip`). What it runs belongs to the installation if it is the image's, or if the same
//! installation has written it. A process that runs code that no installation has written belongs to none any more.

use std::sync::Arc;

use super::assessment::Assessment;
use super::changes::Change;
use super::code::{Code, How};
use super::expected::is_own;
use super::process::{Key, key, lineage};
use super::{describe, interpreter};
use crate::container::cgroup::ContainerRef;
use crate::container::table::TrackedContainer;
use crate::event::{Args, Exec, Layer, Origin, Path, Process, Script};
use crate::finding::Severity;
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
/// The modules of Python that are package managers.
const MODULES: &[&[u8]] = &[b"pip"];
/// How many processes of installations are remembered at most.
const MOST: usize = 8192;
/// How many steps of builds are remembered at most.
const MOST_STEPS: usize = 1024;

/// A package manager or a step of a build that runs, or has run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Installation {
    /// Its first process.
    pub(super) process: Key,
    /// What it was started with.
    pub(super) args: Args,
    /// Whether it is a step of a build.
    pub(super) is_step: bool,
}

/// All installations of the node.
#[derive(Debug)]
pub(super) struct Installations {
    /// The processes of package managers, and those that they have started. Some of these belong to no installation.
    processes: Recent<Key, Option<Arc<Installation>>>,
    /// The steps of builds, by the cgroup of the container.
    steps: Recent<u64, Arc<Installation>>,
}

impl Default for Installations {
    fn default() -> Self {
        Self { processes: Recent::new(MOST), steps: Recent::new(MOST_STEPS) }
    }
}

impl Installations {
    /// Records a program that is executed for these scripts.
    pub(super) fn insert(&mut self, exec: &Exec, scripts: &[Script], container: &TrackedContainer) {
        let own = key(exec.process.pid, exec.process.start_time);
        let is_step = container.reference.as_ref().is_some_and(ContainerRef::is_build_step);
        // It is the one that has started the container.
        if is_step && exec.process.origin == Origin::Entrypoint && container.started == Some(exec.at.time) {
            let step = Installation { process: own, args: exec.args.clone(), is_step };
            self.steps.insert(container.cgroup_id, Arc::new(step));
        }
        let is_lower = |layer| layer == Some(Layer::Lower);
        let mut scripts = scripts.iter().filter(|script| !script.is_input && is_lower(script.file.layer));
        let is_module = || interpreter::module(&exec.exe, &exec.args).is_some_and(|name| MODULES.contains(&name));
        let is_manager = is_lower(exec.file.layer)
            && (is_manager(&exec.exe) || scripts.any(|script| is_manager(&script.path)) || is_module());
        let nearest = self.nearest(&exec.process);
        if nearest.is_none() && !is_manager {
            return;
        }
        let new = || Arc::new(Installation { process: own, args: exec.args.clone(), is_step: false });
        let new = || is_manager.then(new);
        // What is typed into a shell that a package manager has started can be anything.
        let takes_commands = interpreter::reads_commands(&exec.exe, &exec.args, None);
        self.processes.insert(own, nearest.flatten().or_else(new).filter(|_| !takes_commands));
    }

    /// The installation that a process of the container belongs to.
    pub(super) fn of(&mut self, process: &Process, container: &TrackedContainer) -> Option<Arc<Installation>> {
        let step = self.steps.get(&container.cgroup_id).filter(|_| is_own(process)).cloned();
        step.or_else(|| self.nearest(process).flatten())
    }

    /// Records that a process runs code about which this was found, which was last changed so. If no installation has
    /// changed it, what the process does is not of an installation any more. A library does not take it out.
    pub(super) fn leave(&mut self, code: &Code, found: &Assessment, change: Option<&Change>) {
        if found.rule.severity() > Severity::Low
            && code.how != How::Mapped
            && !change.is_some_and(Change::is_of_installation)
            && let Some(actor) = &code.actor
            && self.nearest(actor.process).flatten().is_some()
        {
            self.processes.insert(key(actor.process.pid, actor.process.start_time), None);
        }
    }

    /// What is known of the process, or else of the nearest ancestor of which something is.
    fn nearest(&mut self, process: &Process) -> Option<Option<Arc<Installation>>> {
        lineage(process).find_map(|key| self.processes.get(&key).cloned())
    }
}

fn is_manager(path: &Path) -> bool {
    let name = String::from_utf8_lossy(describe::base_name(&path.bytes));
    let name = name.trim_end_matches(|character: char| character.is_ascii_digit() || matches!(character, '.' | '-'));
    NAMES.contains(&name)
}
