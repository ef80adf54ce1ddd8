//! What was there before the sensor. It is made all at once, because a start of the sensor takes many seconds in an
//! emulated machine.

use std::rc::Rc;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Lab, roots};
use crate::container::{Container, Setup};

/// How many files a container holds open: as many as there are cases that change one.
const HELD: usize = 26;

/// Cases, or all cases of a module, that need a file from before the sensor; and those that need a container.
const NEED_FILES: &[&str] = &["held::", "image_write::upper_file"];
const NEED_CONTAINERS: &[&str] = &["roots::", "lifecycle::containers_that_ran_before"];

/// A file from before the sensor, and the container that it is in.
pub(super) struct OldFile {
    pub(super) container: Rc<Container>,
    pub(super) path: String,
    /// What the attacker answered when it held, changed or prepared the file.
    pub(super) answer: Value,
}

/// What was there before the sensor and has not been used yet.
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
    /// Containers, each with how it differs from an ordinary one.
    containers: Vec<(Setup, Result<Container>)>,
}

/// The containers that run before the sensor starts.
fn setups() -> Vec<Setup> {
    [Setup::default()].into_iter().chain(roots::setups()).collect()
}

impl Lab {
    /// Makes what these cases need, if no sensor runs yet.
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
        // One that cannot be started fails the case that needs it, and no other.
        self.before.containers =
            setups().into_iter().map(|setup| (setup, Container::service_with(self.number(), setup))).collect();
    }

    /// Takes an old file. Makes all of them again if there is none, which takes a restart of the sensor.
    fn old_file(&mut self, take: impl Fn(&mut Before) -> Option<OldFile>) -> Result<OldFile> {
        if let Some(file) = take(&mut self.before) {
            return Ok(file);
        }
        self.without_sensor(Self::make_old_files)?;
        take(&mut self.before).context("all old files were just made")
    }

    /// A file of the image that the service of a privileged container has had open since before the sensor.
    pub(super) fn held(&mut self) -> Result<OldFile> {
        self.old_file(|before| before.held.pop())
    }

    /// The same in a container on btrfs.
    pub(super) fn held_on_btrfs(&mut self) -> Result<OldFile> {
        self.old_file(|before| before.held_on_btrfs.take())
    }

    /// A file that had got an access control list before the sensor started, in a privileged container.
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
