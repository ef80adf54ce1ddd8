//! The test cases. Each performs an action in a real container, and checks that it has exactly the expected findings.

mod before;
mod blinding;
mod cgroups;
mod device;
mod doctor;
mod exec;
mod flood;
mod held;
mod image_change;
mod image_write;
mod lifecycle;
mod refusals;
mod roots;
mod runtimes;
mod scale;
mod shadow;
mod shell;
mod silence;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::ops::{Range, RangeFrom};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};

use crate::container::{Container, DASH, MANY, PLACES, Setup, make_image, many_file, place};
use crate::engine::Node;
use crate::machine::{Dependence, Kind};
use crate::protocol::{Message, Outcome};
use crate::root::Root;
use crate::sensor::{Sensor, wait_for};
use before::Before;

/// A test case.
pub struct Case {
    /// `module::function`.
    pub name: &'static str,
    /// What its result depends on besides the kernel.
    pub depends_on: &'static [Dependence],
    run: fn(&mut Lab) -> Result<()>,
}

/// Why a case does not apply to this machine: the kernel does not support the attack.
#[derive(Debug)]
pub struct NotApplicable(pub String);

impl fmt::Display for NotApplicable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotApplicable {}

macro_rules! cases {
    ($($module:ident $dependences:tt: $($function:ident),+;)+) => {
        /// All test cases, in the order in which they run.
        pub const CASES: &[Case] = &[$($(Case {
            name: concat!(stringify!($module), "::", stringify!($function)),
            depends_on: cases!(@list $dependences),
            run: $module::$function,
        }),+),+];
    };
    (@list [$($dependence:ident),*]) => { &[$(Dependence::$dependence),*] };
}

// The brackets contain what the result of a case depends on besides the kernel. A case without brackets runs only on
// the ordinary machine of each kernel.
cases! {
    refusals [Cgroups]: no_cgroups;
    refusals []: no_privilege, unwritable_output;
    doctor [Cgroups, Preemption]: every_hook_is_proven;

    shell [Cgroups, Preemption]:
        entered, entered_with_tty, entered_descendant, entered_without_leader, entered_with_own_mounts, on_the_host,
        entrypoint, application, of_a_login, busybox_by_argument, login_shell, reverse_shell, short_lived, plain_cgroup;
    // The content of records and findings.
    shell []: secret_in_arguments, disguised_name_and_arguments, other_program, control_characters_in_arguments;

    exec [Preemption]:
        added_program, changed_program, copied_shell, long_paths, copied_shell_twice, copied_shell_changed, copied_box,
        linked_shell, by_descriptor, on_terminal, in_memory, in_shared_memory, deleted, added_script,
        added_script_in_thread, chain_of_scripts, failing_script, by_loader, copy_by_loader, preloaded_library,
        preloaded_from_memory, unchanged_programs;

    // The ways to open a file.
    image_write [Preemption]:
        lower_file_once, upper_file, new_file, truncate, truncate_by_reader, uring_open, uring_open_direct,
        open_by_handle, write, uring_sqpoll, hard_link, symlink, through_proc_self_root;
    // The process that opens it, by cgroup and mount namespace.
    image_write [Cgroups, Preemption]:
        entered, child_of_application, other_thread, user_namespace, nested_container, nested_image,
        namespace_number_reused, received, received_in_another_container, taken_from_the_host, stolen, inherited,
        given_by_supervisor, from_the_host, from_private_mounts, joined_mounts;
    // The operations on an open file, and its name.
    image_write []:
        truncate_by_path, pwrite, writev, pwritev2, uring, uring_fixed, uring_async, aio, splice, vmsplice, sendfile,
        copy_range, clone, fallocate, punch_hole, ftruncate, mmap, mprotect, process_vm_writev, ptrace, proc_mem,
        changed_name, deep_path, long_path, hostile_name;

    // These run two of the programs for writes. The others are attached in the same way.
    held [Preemption]: write, mmap;
    held []:
        pwrite, writev, pwritev2, uring, uring_fixed, uring_async, uring_sqpoll, aio, splice, vmsplice, sendfile,
        copy_range, clone, fallocate, punch_hole, ftruncate, mprotect, process_vm_writev, ptrace, proc_mem, remove_acl;
    held [Cgroups]: received_in_another_container;

    // These run three of the programs for names and metadata, two of which wait for the thread's next action.
    image_change [Preemption]: rename, unlink, chmod;
    image_change [Cgroups]: from_the_host;
    image_change []:
        mkdir, mknod, mknod_file, mknod_device, bind_socket, symlink, link, tmpfile, rename_over, exchange,
        rename_directory, unlink_own, rmdir, uring_mkdir, uring_symlink, uring_link, uring_rename, uring_unlink,
        uring_rmdir, fchmod, fchmodat2, chmod_twice, chown, fchown, utimes, xattr, set_capability, set_acl, set_flags,
        set_flags_of_changed, file_setattr, of_own_file, power_to_own_file, times_after_write;
    shadow []:
        mount_tmpfs, mount_overlay, bind, bind_file, remount, remount_file_system, fspick, mount_setattr, mount_moved,
        move_mount, fsmount, open_tree, umount, pivot_root, chroot, in_user_namespace;
    device []: block_device, loop_on_image_file;

    silence [Cgroups, Preemption]:
        not_the_image, failed_writes, runtime_setup_and_removal, runtime_commands, host_shell, host_overlay;
    silence []:
        every_change_elsewhere, looks, read_only_root, changes_that_fail, unnamed_file, mounts_elsewhere,
        block_device_read;

    // A root of each type, identified by its file system or by cgroup. Another runtime makes other cgroups.
    roots [Cgroups]: ext4, ext4_from_before, directory, directory_from_before, crun, crun_from_before;
    roots []: erofs, erofs_from_before, subvolume, subvolume_from_before, fuse_overlay, fuse_overlay_from_before;
    cgroups [Cgroups, Preemption]: moved, moved_with_own_mounts, born;
    lifecycle [Cgroups, Preemption]: containers_that_ran_before;
    lifecycle []: clock_step;
    blinding [Preemption]: parallel_writers, while_maps_are_read;
    flood [Preemption]: full_ring_buffer;

    // These run before any engine is started, since those would react to each of the many containers.
    scale [Node]: thousand_containers, million_writes, ten_thousand_execs;
    runtimes [Node]:
        docker, docker_from_before, docker_short_lived, docker_silent, docker_copied_to, docker_built,
        docker_without_socket, docker_hanging, docker_restarted,
        cri, cri_from_before, cri_short_lived, cri_silent, cri_without_socket, cri_hanging, cri_restarted,
        podman, podman_from_before, podman_short_lived, podman_silent, podman_copied_to, podman_built,
        podman_without_socket, podman_hanging, podman_restarted, podman_with_systemd,
        rootless, rootless_from_before, rootless_short_lived, rootless_silent, rootless_copied_to,
        rootless_without_socket, rootless_hanging, rootless_restarted;

    // The sensor does not run after this case.
    lifecycle [Cgroups]: stop_and_status;
}

/// The maximum time between two findings, long enough for an emulated machine on a busy host.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many findings of a failed case are printed at most, because a console is slow.
const REPORTED: usize = 200;

/// The modules whose cases run without a sensor.
const WITHOUT_SENSOR: [&str; 2] = ["refusals::", "doctor::"];

/// Runs the cases in a comma-separated list, or all cases of this kind of machine. Fails if no case could run.
pub fn run(kind: Kind, names: Option<&OsStr>) -> Result<()> {
    let names = names.map(OsStr::to_string_lossy);
    let names: Option<Vec<&str>> = names.as_ref().map(|names| names.split(',').collect());
    let is_wanted = |case: &&Case| match &names {
        Some(names) => names.contains(&case.name),
        None => kind.runs(case),
    };
    let cases: Vec<&Case> = CASES.iter().filter(is_wanted).collect();
    make_image().context("cannot make the image")?;
    Message::Begin { release: rustix::system::uname().release().to_string_lossy().into_owned() }.send()?;
    let mut lab = Lab::new(cases.iter().map(|case| case.name).collect());
    for case in cases {
        let start = Instant::now();
        let outcome = lab.run(case);
        let (word, more) = match &outcome {
            Outcome::Passed => ("ok", None),
            Outcome::NotApplicable(reason) => ("not applicable", Some(reason)),
            Outcome::Failed(failure) => ("FAILED", Some(failure)),
        };
        let seconds = start.elapsed().as_secs_f32();
        println!("{} ... {word} ({seconds:.1} s)", case.name);
        if let Some(more) = more {
            println!("{more}");
        }
        Message::Case { name: case.name.to_owned(), outcome, seconds }.send()?;
    }
    // The containers are not removed, which would take seconds each, because the machine is powered off.
    std::mem::forget(lab);
    Ok(())
}

/// The state that the cases share: a running sensor, and containers.
pub struct Lab {
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
    /// Files and containers from before the sensor.
    before: Before,
    /// The selected cases.
    cases: Vec<&'static str>,
    /// The engines that were started.
    node: Node,
    files: Range<usize>,
    places: Range<usize>,
    beats: u32,
    numbers: RangeFrom<u32>,
    /// The findings since the start of the case, for the report of a failure.
    history: Vec<Value>,
    /// The findings that were not compared with an expectation yet.
    pending: Vec<Value>,
}

impl Lab {
    fn new(cases: Vec<&'static str>) -> Self {
        Self {
            sensor: None,
            beacon: None,
            shared: None,
            privileged: None,
            on_btrfs: None,
            before: Before::default(),
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
    fn run(&mut self, case: &Case) -> Outcome {
        self.history.clear();
        self.pending.clear();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            if !WITHOUT_SENSOR.iter().any(|module| case.name.starts_with(module)) {
                self.ensure_sensor()?;
            }
            (case.run)(self)?;
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
        (self.shared, self.privileged, self.on_btrfs, self.before) = (None, None, None, Before::default());
        let log = self.sensor.as_ref().map_or_else(|| "the sensor is not running".to_owned(), Sensor::log);
        let all = self.history.len();
        let findings: Vec<String> = self.history.iter().take(REPORTED).map(|finding| format!("  {finding}")).collect();
        let findings = findings.join("\n");
        Outcome::Failed(format!(
            "{error:#}\nfindings, {REPORTED} of {all} at most:\n{findings}\nlog of the sensor:\n{log}"
        ))
    }

    /// A container that runs the service.
    pub fn container(&mut self) -> Result<Rc<Container>> {
        if self.shared.is_none() {
            self.shared = Some(Rc::new(self.new_container()?));
        }
        self.shared.clone().context("there is one")
    }

    /// A privileged container that runs the service.
    pub fn privileged(&mut self) -> Result<Rc<Container>> {
        if self.privileged.is_none() {
            let setup = Setup { is_privileged: true, ..Setup::default() };
            self.privileged = Some(Rc::new(Container::service_with(self.number(), setup)?));
        }
        self.privileged.clone().context("there is one")
    }

    /// A container on a file system that can clone files and that stores inode flags on all kernels.
    pub fn on_btrfs(&mut self) -> Result<Rc<Container>> {
        if self.on_btrfs.is_none() {
            let setup = Setup { root: Root::OverlayOnBtrfs, is_privileged: true, ..Setup::default() };
            self.on_btrfs = Some(Rc::new(Container::service_with(self.number(), setup)?));
        }
        self.on_btrfs.clone().context("there is one")
    }

    /// Runs a function without the sensor, which is started afterwards.
    pub fn without_sensor<T>(&mut self, action: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if let Some(sensor) = self.sensor.take() {
            sensor.stop()?;
        }
        let done = action(self)?;
        self.ensure_sensor()?;
        Ok(done)
    }

    /// A container that no other case has used.
    pub fn new_container(&mut self) -> Result<Container> {
        Container::service(self.number())
    }

    /// An image file that no case has changed.
    pub fn file(&mut self) -> Result<String> {
        Ok(many_file(self.files.next().context("the image has too few files")?))
    }

    /// An empty image directory that no case has changed.
    pub fn place(&mut self) -> Result<String> {
        Ok(place(self.places.next().context("the image has too few directories")?))
    }

    /// A number for a container that a case makes itself.
    pub fn number(&mut self) -> u32 {
        next(&mut self.numbers)
    }

    /// Starts the sensor if it is not running. Before the first start, makes what the cases need from before it.
    pub fn ensure_sensor(&mut self) -> Result<()> {
        if let Some(sensor) = &mut self.sensor
            && sensor.is_running()?
        {
            return Ok(());
        }
        let is_first = self.beacon.is_none();
        if is_first {
            self.prepare(&self.cases.clone())?;
        }
        self.sensor = None;
        self.sensor = Some(Sensor::start(&folder(&mut self.numbers))?);
        if is_first {
            self.beacon = Some(Container::service(self.number())?);
        }
        Ok(())
    }

    /// The sensor.
    pub fn sensor(&self) -> Result<&Sensor> {
        self.sensor.as_ref().context("the sensor is not running")
    }

    /// The sensor's notices since the start of the case.
    pub fn notices(&self) -> Vec<Value> {
        self.history.iter().filter(|line| line["finding"].is_null()).cloned().collect()
    }

    /// Removes the sensor.
    pub fn take_sensor(&mut self) -> Result<Sensor> {
        self.sensor.take().context("the sensor is not running")
    }

    fn beacon(&self) -> Result<&Container> {
        self.beacon.as_ref().context("no sensor has run yet")
    }

    /// Waits until the sensor has reported everything so far, and takes the findings.
    pub fn take_findings(&mut self) -> Result<Vec<Value>> {
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
    pub fn take_late_findings(&mut self) -> Result<Vec<Value>> {
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
                // Other lines are notices of the sensor.
                if !line["finding"].is_null() {
                    pending.push(line);
                }
            }
            since = Instant::now();
            Ok(last)
        })
    }

    /// Expects exactly these findings of this container, in this order. Only the given fields are compared.
    pub fn expect<const N: usize>(&mut self, container: &Container, expected: [Value; N]) -> Result<()> {
        self.expect_and_take(container, expected).map(drop)
    }

    /// Like [`Self::expect`]. Returns the findings.
    pub fn expect_and_take<const N: usize>(
        &mut self,
        container: &Container,
        expected: [Value; N],
    ) -> Result<Vec<Value>> {
        let found = self.take_findings()?;
        compare(&found, &container.identity(), &expected)?;
        Ok(found)
    }

    /// Expects no finding.
    pub fn expect_none(&mut self) -> Result<()> {
        let found = self.take_findings()?;
        ensure!(found.is_empty(), "{} findings came instead of none", found.len());
        Ok(())
    }
}

/// Checks that these are exactly the expected findings of this container, in this order.
fn compare(found: &[Value], container: &Value, expected: &[Value]) -> Result<()> {
    ensure!(found.len() == expected.len(), "{} findings came instead of {}", found.len(), expected.len());
    let ids: BTreeSet<_> = found.iter().filter_map(|finding| finding["id"].as_str()).collect();
    ensure!(ids.len() == found.len(), "{} findings have {} ids", found.len(), ids.len());
    let always = json!({"schema": 1, "revision": 1, "container": container});
    for (found, expected) in found.iter().zip(expected) {
        for expected in [&always, expected] {
            if let Some(difference) = difference(found, expected) {
                anyhow::bail!("{difference}\nexpected: {expected}\nfound: {found}");
            }
        }
    }
    Ok(())
}

fn next(numbers: &mut RangeFrom<u32>) -> u32 {
    numbers.next().expect("there are enough numbers")
}

fn folder(numbers: &mut RangeFrom<u32>) -> PathBuf {
    PathBuf::from(format!("/run/lab/sensor-{}", next(numbers)))
}

/// The first difference between `found` and `expected`. An object must have at least the expected keys, an expected
/// null means that the value is missing, and other values must be equal.
fn difference(found: &Value, expected: &Value) -> Option<String> {
    match expected {
        Value::Object(members) => {
            members.iter().find_map(|(key, expected)| Some(format!("{key}: {}", difference(&found[key], expected)?)))
        }
        _ if found == expected => None,
        _ => Some(format!("{found} instead of {expected}")),
    }
}

/// The expected finding of a shell.
fn shell(origin: &str, exe: &str, args: &[&str]) -> Value {
    json!({
        "finding": "shell_in_container",
        "process": {"origin": origin, "exe": exe, "args": args, "uid": 0},
    })
}

/// The expected finding of a change. `identity` is the result of the attacker's stat.
fn write(origin: &str, op: &str, layer: &str, path: &str, identity: &Value) -> Value {
    json!({
        "finding": "image_write",
        "process": {"origin": origin, "uid": 0},
        "file": {"op": op, "layer": layer, "path": path, "dev": identity["dev"], "inode": identity["inode"]},
    })
}

/// The expected finding of a mount over a path. `identity` is that of the covered file or directory.
fn shadowed(origin: &str, op: &str, path: &str, identity: &Value) -> Value {
    let mut finding = write(origin, op, "lower", path, identity);
    finding["finding"] = json!("image_shadowed");
    finding
}

/// Writes a file on the host, and checks its content.
fn write_on_host(path: &std::path::Path) -> Result<()> {
    fs::write(path, "changed from the host\n").with_context(|| format!("cannot write {}", path.display()))?;
    ensure!(fs::read(path)? == b"changed from the host\n", "{} was not changed", path.display());
    Ok(())
}
