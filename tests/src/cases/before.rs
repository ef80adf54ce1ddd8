//! Files and containers from before the sensor started. They are made all at once, because starting the sensor takes
//! many seconds on an emulated machine.

use std::rc::Rc;

use anyhow::Result;
use serde_json::Value;

use crate::container::{Container, Setup};

/// How many files a container keeps open, which is the number of cases that change one.
const HELD: usize = 26;

/// The cases, or modules of cases, that need a file or a container from before the sensor.
const NEED_FILES: &[&str] = &["held::", "image_write::upper_file"];
const NEED_CONTAINERS: &[&str] =
    &["roots::", "lifecycle::containers_that_ran_before", "expected::data_of_a_container_from_before"];

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
    pub(super) held: Vec<OldFile>,
    /// A file that a container on btrfs has open.
    pub(super) held_on_btrfs: Option<OldFile>,
    /// A file with an access control list.
    pub(super) with_acl: Option<OldFile>,
    /// A file that was changed.
    pub(super) changed: Option<OldFile>,
    /// Containers, with their setups.
    containers: Vec<(Setup, Result<Container>)>,
}

/// Whether one of these cases needs a file from before the sensor.
pub(super) fn need_files(cases: &[&str]) -> bool {
    need(cases, NEED_FILES)
}

/// Whether one of these cases needs a container from before the sensor.
pub(super) fn need_containers(cases: &[&str]) -> bool {
    need(cases, NEED_CONTAINERS)
}

fn need(cases: &[&str], what: &[&str]) -> bool {
    cases.iter().any(|case| what.iter().any(|what| case.starts_with(what)))
}

impl Before {
    /// Makes the files in these containers. `unchanged` returns the path of an image file that no case has changed.
    pub(super) fn make_files(
        &mut self,
        shared: &Rc<Container>,
        privileged: &Rc<Container>,
        on_btrfs: &Rc<Container>,
        mut unchanged: impl FnMut() -> Result<String>,
    ) -> Result<()> {
        let mut make = |container: &Rc<Container>, operation: &str| -> Result<OldFile> {
            let path = unchanged()?;
            let answer = container.service_does(&[operation, &path])?;
            Ok(OldFile { container: Rc::clone(container), path, answer })
        };
        let held = (0..HELD).map(|_| make(privileged, "hold")).collect::<Result<_>>()?;
        let held_on_btrfs = Some(make(on_btrfs, "hold")?);
        let with_acl = Some(make(privileged, "set-acl")?);
        let changed = Some(make(shared, "append")?);
        *self = Self { held, held_on_btrfs, with_acl, changed, containers: std::mem::take(&mut self.containers) };
        Ok(())
    }

    /// Starts a container with each of these setups. `number` returns a number that no container has.
    pub(super) fn start_containers(&mut self, setups: &[Setup], mut number: impl FnMut() -> u32) {
        // If one cannot be started, only the case that needs it fails.
        self.containers = setups.iter().map(|&setup| (setup, Container::service_with(number(), setup))).collect();
    }

    /// Takes a container with this setup, if one is left.
    pub(super) fn take_container(&mut self, setup: Setup) -> Option<Result<Container>> {
        let place = self.containers.iter().position(|(of, _)| *of == setup)?;
        Some(self.containers.swap_remove(place).1)
    }
}
