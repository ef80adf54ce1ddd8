//! The lab in which the cases run.

use std::ffi::OsStr;
use std::fs;
use std::ops::{Range, RangeFrom};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::Signal;
use serde_json::Value;

use super::before::{self, Before, OldFile};
use super::expectation::compare;
use super::recording::Run;
use crate::attack::NotApplicable;
use crate::container::{Container, Setup};
use crate::engine::{self, Node};
use crate::image::{DASH, MANY, PLACES, many_file, place};
use crate::init::cgroup;
use crate::program::{Running, wait_for};
use crate::protocol::Outcome;
use crate::root::Root;
use crate::sensor::Sensor;

/// The maximum time between two findings, long enough for an emulated machine on a busy host.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many findings of a failed case are printed at most, because a console is slow.
const REPORTED: usize = 200;

/// The modules whose cases run without a sensor.
const WITHOUT_SENSOR: [&str; 5] = ["refusals::", "degraded::", "doctor::", "package::", "kubernetes::"];

/// The state that the cases share: a running sensor, and containers.
pub(super) struct Lab {
    sensor: Option<Sensor>,
    /// A container that makes a finding on request. Findings arrive in the order of their events, so when this finding
    /// arrives, all earlier ones have arrived too.
    beacon: Option<Container>,
    /// The container for cases that need no container of their own. Making one takes seconds.
    shared: Option<Rc<Container>>,
    /// The container for cases that need privileges.
    privileged: Option<Rc<Container>>,
    /// The container for cases that need a file system with more features.
    on_btrfs: Option<Rc<Container>>,
    /// The container for cases that need interpreters.
    with_interpreters: Option<Rc<Container>>,
    /// Files and containers from before the sensor.
    before: Before,
    /// The setups of the containers that run before the sensor starts.
    old_setups: Vec<Setup>,
    /// The selected cases.
    cases: Vec<&'static str>,
    /// The engines that were started.
    pub(super) node: Node,
    files: Range<usize>,
    places: Range<usize>,
    beats: u32,
    numbers: RangeFrom<u32>,
    /// The findings since the start of the case, for the report of a failure.
    pub(super) history: Vec<Value>,
    /// The findings that were not compared with an expectation yet.
    pending: Vec<Value>,
}

impl Lab {
    /// `cases` are the selected cases, and `old_setups` those of the containers that run before the sensor starts.
    pub(super) fn new(cases: Vec<&'static str>, old_setups: Vec<Setup>) -> Self {
        Self {
            sensor: None,
            beacon: None,
            shared: None,
            privileged: None,
            on_btrfs: None,
            with_interpreters: None,
            before: Before::default(),
            old_setups,
            cases,
            node: Node::default(),
            files: 0..MANY,
            places: 0..PLACES,
            beats: 0,
            numbers: 1..,
            history: Vec::new(),
            pending: Vec::new(),
        }
    }

    /// Runs a case. After a failure, returns everything that helps to understand it.
    pub(super) fn run(&mut self, name: &str, case: fn(&mut Self) -> Result<()>) -> Outcome {
        self.history.clear();
        self.pending.clear();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            if !WITHOUT_SENSOR.iter().any(|module| name.starts_with(module)) {
                self.ensure_sensor()?;
            }
            case(self)?;
            // Removing the case's containers must not make a finding either.
            if self.sensor.is_some() { self.expect_none() } else { Ok(()) }
        }))
        .unwrap_or_else(|_| Err(anyhow!("the case panicked: see the console")));
        let Err(error) = outcome else { return Outcome::Passed };
        // The remaining findings belong to the failed case, and are part of its report.
        let _gone_with_its_sensor = self.take_findings();
        if let Some(NotApplicable(reason)) = error.downcast_ref() {
            return Outcome::NotApplicable(reason.clone());
        }
        // The state of a failed case must not affect the next one.
        (self.shared, self.privileged, self.on_btrfs, self.with_interpreters) = (None, None, None, None);
        self.before = Before::default();
        let sensor = self.sensor.take();
        let log = sensor.as_ref().map_or_else(|| "the sensor is not running".to_owned(), Sensor::log);
        let all = self.history.len();
        let findings: Vec<String> = self.history.iter().take(REPORTED).map(|finding| format!("  {finding}")).collect();
        let findings = findings.join("\n");
        Outcome::Failed(format!(
            "{error:#}\nfindings, {REPORTED} of {all} at most:\n{findings}\nlog of the sensor:\n{log}"
        ))
    }

    /// A container that runs the service.
    pub(super) fn container(&mut self) -> Result<Rc<Container>> {
        if self.shared.is_none() {
            self.shared = Some(Rc::new(self.new_container()?));
        }
        self.shared.clone().context("there is one")
    }

    /// A privileged container that runs the service.
    pub(super) fn privileged(&mut self) -> Result<Rc<Container>> {
        if self.privileged.is_none() {
            let setup = Setup { is_privileged: true, ..Setup::default() };
            self.privileged = Some(Rc::new(Container::service_with(self.number(), setup)?));
        }
        self.privileged.clone().context("there is one")
    }

    /// A container on a file system that can clone files and that stores inode flags on all kernels.
    pub(super) fn on_btrfs(&mut self) -> Result<Rc<Container>> {
        if self.on_btrfs.is_none() {
            let setup = Setup { root: Root::OverlayOnBtrfs, is_privileged: true, ..Setup::default() };
            self.on_btrfs = Some(Rc::new(Container::service_with(self.number(), setup)?));
        }
        self.on_btrfs.clone().context("there is one")
    }

    /// A container on the disk with interpreters.
    pub(super) fn with_interpreters(&mut self) -> Result<Rc<Container>> {
        if self.with_interpreters.is_none() {
            let setup = Setup { root: Root::OverlayOnDisk, ..Setup::default() };
            self.with_interpreters = Some(Rc::new(Container::service_with(self.number(), setup)?));
        }
        self.with_interpreters.clone().context("there is one")
    }

    /// Runs a function without the sensor, which is started afterwards.
    pub(super) fn without_sensor<T>(&mut self, action: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if let Some(sensor) = self.sensor.take() {
            sensor.stop()?;
        }
        let done = action(self)?;
        self.ensure_sensor()?;
        Ok(done)
    }

    /// Runs a function with a sensor that records, and stops this sensor. Returns what it has written.
    pub(super) fn recorded(&mut self, action: impl FnOnce(&mut Self) -> Result<()>) -> Result<Run> {
        self.recorded_with(&["--every-act"], action)
    }

    /// Like [`Self::recorded`], with a sensor that counts repeats. It tells nobody when it has reported something.
    pub(super) fn counted(&mut self, action: impl FnOnce(&mut Self) -> Result<()>) -> Result<Run> {
        self.recorded_with(&[], action)
    }

    /// Like [`Self::recorded`], with these arguments of the sensor.
    pub(super) fn recorded_with(&mut self, more: &[&str], action: impl FnOnce(&mut Self) -> Result<()>) -> Result<Run> {
        let folder = folder(&mut self.numbers);
        let recording = folder.join("recording");
        let mut arguments = vec!["--record".as_ref(), recording.as_os_str()];
        arguments.extend(more.iter().map(OsStr::new));
        let lines = self.with_sensor(&folder, &arguments, action)?;
        Ok(Run { lines, recording })
    }

    /// Runs a function with a sensor as a node has it, which counts repeats, and stops this sensor.
    pub(super) fn as_on_a_node(&mut self, action: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let folder = folder(&mut self.numbers);
        self.with_sensor(&folder, &[], action).map(drop)
    }

    /// Runs a function with a sensor that has its files in this folder and these arguments, and stops it. Returns the
    /// file of its lines.
    fn with_sensor(
        &mut self,
        folder: &Path,
        arguments: &[&OsStr],
        action: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<PathBuf> {
        self.take_sensor()?.stop()?;
        self.sensor = Some(Sensor::start_with(folder, arguments)?);
        action(self)?;
        let sensor = self.take_sensor()?;
        let lines = sensor.lines().to_owned();
        sensor.stop()?;
        Ok(lines)
    }

    /// Runs a function while the sensor goes by this configuration file, for which it is not started again.
    pub(super) fn configured<T>(&mut self, text: &str, action: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let done = self.configure(text).and_then(|()| action(self));
        self.configure("").and(done)
    }

    /// Writes the configuration file, and waits until the sensor has loaded it.
    pub(super) fn configure(&mut self, text: &str) -> Result<()> {
        write_config(text)?;
        self.sensor()?.signal(Signal::HUP)?;
        let lists = [("exceptions", "[[exception]]"), ("overrides", "[[severity]]"), ("rules", "[[watch]]")];
        let has_all = |loaded: &Value| {
            lists.iter().all(|(key, entry)| loaded[key].as_u64().unwrap_or(0) == text.matches(entry).count() as u64)
        };
        self.wait_for_line(|line| line["event"] == "policy_loaded" && has_all(&line["detail"]))?;
        Ok(())
    }

    /// A container that no other case has used.
    pub(super) fn new_container(&mut self) -> Result<Container> {
        Container::service(self.number())
    }

    /// An image file that no case has changed.
    pub(super) fn file(&mut self) -> Result<String> {
        file(&mut self.files)
    }

    /// An empty image directory that no case has changed.
    pub(super) fn place(&mut self) -> Result<String> {
        Ok(place(self.places.next().context("the image has too few directories")?))
    }

    /// A number for a container that a case makes itself.
    pub(super) fn number(&mut self) -> u32 {
        next(&mut self.numbers)
    }

    /// Starts the sensor if it is not running. Before the first start, makes what the cases need from before it.
    pub(super) fn ensure_sensor(&mut self) -> Result<()> {
        if let Some(sensor) = &mut self.sensor
            && sensor.is_running()?
        {
            return Ok(());
        }
        let is_first = self.beacon.is_none();
        if is_first {
            self.prepare()?;
        }
        self.sensor = None;
        self.sensor = Some(Sensor::start(&folder(&mut self.numbers))?);
        if is_first {
            self.beacon = Some(Container::service(self.number())?);
        }
        Ok(())
    }

    /// Makes what the selected cases need from before the sensor.
    fn prepare(&mut self) -> Result<()> {
        if before::need_files(&self.cases) {
            self.make_old_files()?;
        }
        if before::need_containers(&self.cases) {
            self.start_old_containers();
        }
        Ok(())
    }

    fn make_old_files(&mut self) -> Result<()> {
        let (shared, privileged, on_btrfs) = (self.container()?, self.privileged()?, self.on_btrfs()?);
        self.before.make_files(&shared, &privileged, &on_btrfs, || file(&mut self.files))
    }

    fn start_old_containers(&mut self) {
        self.before.start_containers(&self.old_setups, || next(&mut self.numbers));
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

    /// A container from before the sensor that no other case has used. If none is left, starts all of them again,
    /// which restarts the sensor.
    pub(super) fn container_from_before(&mut self, setup: Setup) -> Result<Container> {
        if let Some(container) = self.before.take_container(setup) {
            return container;
        }
        self.without_sensor(|lab| {
            lab.start_old_containers();
            Ok(())
        })?;
        self.before.take_container(setup).context("no such container is started before the sensor")?
    }

    /// The sensor.
    pub(super) fn sensor(&self) -> Result<&Sensor> {
        self.sensor.as_ref().context("the sensor is not running")
    }

    /// Moves the sensor's output away, and sends the sensor a signal to open it again.
    pub(super) fn rotate_output(&mut self, signal: Signal) -> Result<()> {
        self.sensor.as_mut().context("the sensor is not running")?.rotate(signal)
    }

    /// The sensor's notices since the start of the case.
    pub(super) fn notices(&self) -> Vec<Value> {
        self.history.iter().filter(|line| line["finding"].is_null()).cloned().collect()
    }

    /// Removes the sensor.
    pub(super) fn take_sensor(&mut self) -> Result<Sensor> {
        self.sensor.take().context("the sensor is not running")
    }

    fn beacon(&self) -> Result<&Container> {
        self.beacon.as_ref().context("no sensor has run yet")
    }

    /// Waits until the sensor has reported everything so far, and takes the findings.
    pub(super) fn take_findings(&mut self) -> Result<Vec<Value>> {
        loop {
            self.beats += 1;
            let path = format!("/beat-{}", self.beats);
            self.beacon()?.service_does(&["create", &path])?;
            let last = self.wait_for_beacon("image_write", |told| told.is_null() || *told == path)?;
            // A finding without a path was made of a short version kept when the ring buffer was full. Such findings
            // have no order.
            if !last["file"]["path"].is_null() {
                return Ok(std::mem::take(&mut self.pending));
            }
        }
    }

    /// Like [`Self::take_findings`], including findings that need the content of executed files. The sensor inspects
    /// one file after the other.
    pub(super) fn take_late_findings(&mut self) -> Result<Vec<Value>> {
        self.beats += 1;
        let path = format!("/data/beat-{}", self.beats);
        self.beacon()?.service_does(&["copy", DASH, &path])?;
        self.beacon()?.service_does(&["run", &path, "-c", "true"])?;
        self.wait_for_beacon("shell_in_container", |told| *told == path)?;
        Ok(std::mem::take(&mut self.pending))
    }

    /// Collects findings until one of the beacon with this kind and path arrives, and returns that one.
    fn wait_for_beacon(&mut self, kind: &str, is_path: impl Fn(&Value) -> bool) -> Result<Value> {
        let beacon = self.beacon()?.id.clone();
        let sensor = self.sensor.as_mut().context("the sensor is not running")?;
        let (history, pending) = (&mut self.history, &mut self.pending);
        let mut since = Instant::now();
        wait_for("the finding that follows the case's", Duration::MAX, || {
            let lines = sensor.take_lines()?;
            if lines.is_empty() {
                ensure!(since.elapsed() < PATIENCE, "the finding of the beacon did not arrive in time");
                return Ok(None);
            }
            let mut last = None;
            for line in lines {
                if line["container"]["id"] == beacon.as_str() {
                    if line["finding"] == kind && is_path(&line["file"]["path"]) {
                        last = Some(line);
                    }
                    continue;
                }
                history.push(line.clone());
                if is_act(&line) {
                    pending.push(line);
                }
            }
            since = Instant::now();
            Ok(last)
        })
    }

    /// Waits for such a line of the sensor, and keeps all findings until then.
    pub(super) fn wait_for_line(&mut self, is_wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let sensor = self.sensor.as_mut().context("the sensor is not running")?;
        wait_for("the line", PATIENCE, || {
            let lines = sensor.take_lines()?;
            let wanted = lines.iter().find(|line| is_wanted(line)).cloned();
            self.history.extend(lines.iter().cloned());
            self.pending.extend(lines.into_iter().filter(is_act));
            Ok(wanted)
        })
    }

    /// Waits until the sensor knows what the engine tells of this container. A busy engine answers late, and what is
    /// decided until then is decided without its answer.
    pub(super) fn wait_until_known(&mut self, container: &engine::Container) -> Result<()> {
        container.service_does(&["create", "/known"])?;
        self.wait_for_line(|line| {
            [&line["container"], &line["detail"]["container"]]
                .iter()
                .any(|told| told["id"] == container.id.as_str() && !told["image"].is_null())
        })?;
        self.take_findings().map(drop)
    }

    /// Expects exactly these findings of this container, in this order. Only the given fields are compared.
    pub(super) fn expect<const N: usize>(&mut self, container: &Container, expected: [Value; N]) -> Result<()> {
        self.expect_and_take(container, expected).map(drop)
    }

    /// Like [`Self::expect`]. Returns the findings.
    pub(super) fn expect_and_take<const N: usize>(
        &mut self,
        container: &Container,
        expected: [Value; N],
    ) -> Result<Vec<Value>> {
        let found = self.take_findings()?;
        compare(&found, &container.identity(), &expected)?;
        Ok(found)
    }

    /// Expects no finding.
    pub(super) fn expect_none(&mut self) -> Result<()> {
        let found = self.take_findings()?;
        ensure!(found.is_empty(), "{} findings came instead of none", found.len());
        Ok(())
    }
}

/// Whether the line is a finding about an act. The findings about sessions sum these up, and come when it is time for
/// that: only the cases of `session` look for them, in the history. Other lines are notices of the sensor.
fn is_act(line: &Value) -> bool {
    !line["finding"].is_null() && line["finding"] != "session"
}

/// Puts this text into the configuration file of the sensor, at once.
pub(super) fn write_config(text: &str) -> Result<()> {
    let file = Path::new("/etc/detector/config.toml");
    let new = file.with_extension("new");
    fs::create_dir_all("/etc/detector")?;
    fs::write(&new, text)?;
    Ok(fs::rename(new, file)?)
}

fn next(numbers: &mut RangeFrom<u32>) -> u32 {
    numbers.next().expect("there are enough numbers")
}

fn file(numbers: &mut Range<usize>) -> Result<String> {
    Ok(many_file(numbers.next().context("the image has too few files")?))
}

fn folder(numbers: &mut RangeFrom<u32>) -> PathBuf {
    PathBuf::from(format!("/run/lab/sensor-{}", next(numbers)))
}

/// Makes a cgroup with a process of the host in it, as a runtime does to prepare a container there. The process ends
/// when what this returns is dropped.
pub(super) fn prepare(path: &str) -> Result<Running> {
    let process = Running::start(Command::new("/bin/busybox").args(["sleep", "600"]))?;
    fs::create_dir_all(cgroup(path))?;
    fs::write(format!("{}/cgroup.procs", cgroup(path)), process.id().to_string())?;
    Ok(process)
}

/// Writes a file on the host, and checks its content.
pub(super) fn write_on_host(path: &Path) -> Result<()> {
    fs::write(path, "changed from the host\n").with_context(|| format!("cannot write {}", path.display()))?;
    ensure!(fs::read(path)? == b"changed from the host\n", "{} was not changed", path.display());
    Ok(())
}
