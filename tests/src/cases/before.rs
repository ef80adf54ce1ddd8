//! Files and containers from before the sensor started. They are made all at once, because starting the sensor takes
//! many seconds on an emulated machine.

use std::rc::Rc;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Lab, roots};
use crate::container::{Container, Setup};

/// How many files a container keeps open, which is the number of cases that change one.
const HELD: usize = 26;

/// The cases, or modules of cases, that need a file or a container from before the sensor.
const NEED_FILES: &[&str] = &["held::", "image_write::upper_file"];
const NEED_CONTAINERS: &[&str] = &["roots::", "lifecycle::containers_that_ran_before"];

/// A file from before the sensor, and its container.
pub(super) struct OldFile {
    pub(super) container: Rc<Container>,
    pub(super) path: String,
    /// The attacker's answer when it opened, changed or prepared the file.
    pub(super) answer: Value,
}

/// The files and containers from before the sensor that no case has used yet.
#[derive(Default)]
pub(super) struct Before {
    /// Files that a privileged container has open.
    held: Vec<OldFile>,
    /// A file that a container on btrfs has open.
    held_on_btrfs: Option<OldFile>,
    /// A file with an access control list.
    with_acl: Option<OldFile>,
    /// A file that was changed.
    changed: Option<OldFile>,
    /// Containers, with their setups.
    containers: Vec<(Setup, Result<Container>)>,
}

/// The containers that run before the sensor starts.
fn setups() -> Vec<Setup> {
    [Setup::default()].into_iter().chain(roots::setups()).collect()
}

impl Lab {
    /// Makes what these cases need, if no sensor is running yet.
    pub(super) fn prepare(&mut self, cases: &[&str]) -> Result<()> {
        let need = |what: &[&str]| cases.iter().any(|case| what.iter().any(|what| case.starts_with(what)));
        if need(NEED_FILES) {
            self.make_old_files()?;
        }
        if need(NEED_CONTAINERS) {
            self.start_old_containers();
        }
        Ok(())
    }

    fn make_old_files(&mut self) -> Result<()> {
        let (shared, privileged, on_btrfs) = (self.container()?, self.privileged()?, self.on_btrfs()?);
        let mut make = |container: &Rc<Container>, operation: &str| -> Result<OldFile> {
            let path = self.file()?;
            let answer = container.service_does(&[operation, &path])?;
            Ok(OldFile { container: Rc::clone(container), path, answer })
        };
        let held = (0..HELD).map(|_| make(&privileged, "hold")).collect::<Result<_>>()?;
        let held_on_btrfs = Some(make(&on_btrfs, "hold")?);
        let with_acl = Some(make(&privileged, "set-acl")?);
        let changed = Some(make(&shared, "append")?);
        self.before =
            Before { held, held_on_btrfs, with_acl, changed, containers: std::mem::take(&mut self.before.containers) };
        Ok(())
    }

    fn start_old_containers(&mut self) {
        // If one cannot be started, only the case that needs it fails.
        self.before.containers =
            setups().into_iter().map(|setup| (setup, Container::service_with(self.number(), setup))).collect();
    }

    /// Takes an old file. If none is left, makes all of them again, which restarts the sensor.
    fn old_file(&mut self, take: impl Fn(&mut Before) -> Option<OldFile>) -> Result<OldFile> {
        if let Some(file) = take(&mut self.before) {
            return Ok(file);
        }
        self.without_sensor(Self::make_old_files)?;
        take(&mut self.before).context("all old files were just made")
    }

    /// A file of the image that the service of a privileged container opened before the sensor started.
    pub(super) fn held(&mut self) -> Result<OldFile> {
        self.old_file(|before| before.held.pop())
    }

    /// The same in a container on btrfs.
    pub(super) fn held_on_btrfs(&mut self) -> Result<OldFile> {
        self.old_file(|before| before.held_on_btrfs.take())
    }

    /// A file in a privileged container that got an access control list before the sensor started.
    pub(super) fn with_acl(&mut self) -> Result<OldFile> {
        self.old_file(|before| before.with_acl.take())
    }

    /// A file that was changed before the sensor started.
    pub(super) fn changed(&mut self) -> Result<OldFile> {
        self.old_file(|before| before.changed.take())
    }

    /// A container from before the sensor that no other case has used.
    pub(super) fn container_from_before(&mut self, setup: Setup) -> Result<Container> {
        let place = |lab: &Self| lab.before.containers.iter().position(|(of, _)| *of == setup);
        if place(self).is_none() {
            self.without_sensor(|lab| {
                lab.start_old_containers();
                Ok(())
            })?;
        }
        let place = place(self).context("no such container is started before the sensor")?;
        self.before.containers.swap_remove(place).1
    }
}
