//! The test cases: each makes something happen in a real container and says which findings must come of it, all of them
//! and no other.

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

/// A test.
pub struct Case {
    /// `module::function`.
    pub name: &'static str,
    /// What decides what becomes of it, beside the kernel.
    pub depends_on: &'static [Dependence],
    run: fn(&mut Lab) -> Result<()>,
}

/// Why a case does not apply to this machine: the kernel lacks what is attacked with.
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
        /// All tests, in the order in which they run.
        pub const CASES: &[Case] = &[$($(Case {
            name: concat!(stringify!($module), "::", stringify!($function)),
            depends_on: cases!(@list $dependences),
            run: $module::$function,
        }),+),+];
    };
    (@list [$($dependence:ident),*]) => { &[$(Dependence::$dependence),*] };
}

// In brackets: what decides what becomes of a case, beside the kernel. Without any, it runs on the ordinary machine of
// each kernel alone.
cases! {
    refusals [Cgroups]: no_cgroups;
    refusals []: no_privilege, unwritable_output;
    doctor [Cgroups, Preemption]: every_hook_is_proven;

    shell [Cgroups, Preemption]:
        entered, entered_with_tty, entered_descendant, entered_without_leader, entered_with_own_mounts, on_the_host,
        entrypoint, application, of_a_login, busybox_by_argument, login_shell, reverse_shell, short_lived, plain_cgroup;
    // What is in a record, and how it is told.
    shell []: secret_in_arguments, disguised_name_and_arguments, other_program, control_characters_in_arguments;

    exec [Preemption]:
        added_program, changed_program, copied_shell, copied_shell_twice, copied_shell_changed, copied_box,
        linked_shell, by_descriptor, on_terminal, in_memory, in_shared_memory, deleted, added_script, added_script_in_thread,
        chain_of_scripts, failing_script, by_loader, copy_by_loader, preloaded_library, preloaded_from_memory,
        unchanged_programs;

    // All ways to open a file.
    image_write [Preemption]:
        lower_file_once, upper_file, new_file, truncate, truncate_by_reader, uring_open, uring_open_direct,
        open_by_handle, write, uring_sqpoll, hard_link, symlink, through_proc_self_root;
    // Who opens it, by cgroup and mount namespace.
    image_write [Cgroups, Preemption]:
        entered, child_of_application, other_thread, user_namespace, nested_container, nested_image, received,
        received_in_another_container, taken_from_the_host, stolen, inherited, given_by_supervisor, from_the_host,
        from_private_mounts, joined_mounts;
    // What is done with a file once it is open, and its name.
    image_write []:
        truncate_by_path, pwrite, writev, pwritev2, uring, uring_fixed, uring_async, aio, splice, vmsplice, sendfile,
        copy_range, clone, fallocate, punch_hole, ftruncate, mmap, mprotect, process_vm_writev, ptrace, proc_mem,
        changed_name, deep_path, long_path, hostile_name;

    // Two of the programs for what is written; the others are attached in the same way.
    held [Preemption]: write, mmap;
    held []:
        pwrite, writev, pwritev2, uring, uring_fixed, uring_async, uring_sqpoll, aio, splice, vmsplice, sendfile,
        copy_range, clone, fallocate, punch_hole, ftruncate, mprotect, process_vm_writev, ptrace, proc_mem, remove_acl;
    held [Cgroups]: received_in_another_container;

    // Three of the programs for names and metadata, of which two wait for what the thread does next.
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

    // A root of each way to be found: by a file system of its own, and by cgroup. Another runtime makes other cgroups.
    roots [Cgroups]: ext4, ext4_from_before, directory, directory_from_before, crun, crun_from_before;
    roots []: erofs, erofs_from_before, subvolume, subvolume_from_before, fuse_overlay, fuse_overlay_from_before;
    cgroups [Cgroups, Preemption]: moved, moved_with_own_mounts, born;
    lifecycle [Cgroups, Preemption]: containers_that_ran_before;
    lifecycle []: clock_step;
    blinding [Preemption]: parallel_writers, while_maps_are_read;
    flood [Preemption]: full_ring_buffer;

    runtimes [Node]:
        docker, docker_from_before, docker_short_lived, docker_silent, docker_copied_to, docker_built,
        docker_without_socket, docker_hanging, docker_restarted,
        cri, cri_from_before, cri_short_lived, cri_silent, cri_without_socket, cri_hanging, cri_restarted,
        podman, podman_from_before, podman_short_lived, podman_silent, podman_copied_to, podman_built,
        podman_without_socket, podman_hanging, podman_restarted, podman_with_systemd,
        rootless, rootless_from_before, rootless_short_lived, rootless_silent, rootless_copied_to,
        rootless_without_socket, rootless_hanging, rootless_restarted;
    scale [Node]: thousand_containers, million_writes, ten_thousand_execs;

    // The sensor does not run after this one.
    lifecycle [Cgroups]: stop_and_status;
}

/// How long a finding may take, after the one before. Generous: an emulated machine on a busy host.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many of a failed case's findings are shown at most: a flood makes more than a console prints in an hour.
const REPORTED: usize = 200;

/// The modules whose cases run without a sensor.
const WITHOUT_SENSOR: [&str; 2] = ["refusals::", "doctor::"];

/// Runs the cases of these names, with commas between, or all that such a machine runs. An error means that nothing
/// could be tested.
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
    // The machine goes off: to remove its containers first would take seconds each.
    std::mem::forget(lab);
    Ok(())
}

/// What the cases work with: a sensor that runs, and containers.
pub struct Lab {
    sensor: Option<Sensor>,
    /// A container whose only use is to make a finding when asked to. Findings come in the order of their events: when
    /// this one's is there, so are all earlier ones, and silence has been proven.
    beacon: Option<Container>,
    /// The container that cases use unless they need one of their own: to make one takes seconds.
    shared: Option<Rc<Container>>,
    /// The same, for cases that need a container with privileges.
    privileged: Option<Rc<Container>>,
    /// The same, for cases that need more of the file system.
    on_btrfs: Option<Rc<Container>>,
    /// Files and containers from before the sensor.
    before: Before,
    /// The cases that are to run.
    cases: Vec<&'static str>,
    /// The engines that cases have needed.
    node: Node,
    files: Range<usize>,
    places: Range<usize>,
    beats: u32,
    numbers: RangeFrom<u32>,
    /// Findings that came since the case began: for the report of a failure.
    history: Vec<Value>,
    /// Findings that no expectation has taken yet.
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

    /// Runs a case; of a failure, gives all that helps to understand it.
    fn run(&mut self, case: &Case) -> Outcome {
        self.history.clear();
        self.pending.clear();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            if !WITHOUT_SENSOR.iter().any(|module| case.name.starts_with(module)) {
                self.ensure_sensor()?;
            }
            (case.run)(self)?;
            // The end of the case's containers makes no finding either.
            if self.sensor.is_some() { self.expect_none() } else { Ok(()) }
        }))
        .unwrap_or_else(|_| Err(anyhow!("the case panicked: see the console")));
        let Err(error) = outcome else { return Outcome::Passed };
        // What it did not take belongs to it, and is part of the report.
        let _gone_with_its_sensor = self.take_findings();
        // Nothing of a case that did not come to its end may disturb the next one.
        (self.shared, self.privileged, self.on_btrfs, self.before) = (None, None, None, Before::default());
        if let Some(NotApplicable(reason)) = error.downcast_ref() {
            return Outcome::NotApplicable(reason.clone());
        }
        let log = self.sensor.as_ref().map_or_else(|| "no sensor runs".to_owned(), Sensor::log);
        let all = self.history.len();
        let findings: Vec<String> = self.history.iter().take(REPORTED).map(|finding| format!("  {finding}")).collect();
        let findings = findings.join("\n");
        Outcome::Failed(format!(
            "{error:#}\nfindings, {REPORTED} of {all} at most:\n{findings}\nlog of the sensor:\n{log}"
        ))
    }

    /// A container with the service in it.
    pub fn container(&mut self) -> Result<Rc<Container>> {
        if self.shared.is_none() {
            self.shared = Some(Rc::new(self.new_container()?));
        }
        self.shared.clone().context("there is one")
    }

    /// A privileged container with the service in it.
    pub fn privileged(&mut self) -> Result<Rc<Container>> {
        if self.privileged.is_none() {
            let setup = Setup { is_privileged: true, ..Setup::default() };
            self.privileged = Some(Rc::new(Container::service_with(self.number(), setup)?));
        }
        self.privileged.clone().context("there is one")
    }

    /// A container on a file system that has more than tmpfs: it clones files, and keeps flags on all kernels.
    pub fn on_btrfs(&mut self) -> Result<Rc<Container>> {
        if self.on_btrfs.is_none() {
            let setup = Setup { root: Root::OverlayOnBtrfs, is_privileged: true, ..Setup::default() };
            self.on_btrfs = Some(Rc::new(Container::service_with(self.number(), setup)?));
        }
        self.on_btrfs.clone().context("there is one")
    }

    /// Does something that the sensor does not see, for it starts only then.
    pub fn without_sensor<T>(&mut self, action: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if let Some(sensor) = self.sensor.take() {
            sensor.stop()?;
        }
        let done = action(self)?;
        self.ensure_sensor()?;
        Ok(done)
    }

    /// A container that nobody has used.
    pub fn new_container(&mut self) -> Result<Container> {
        Container::service(self.number())
    }

    /// A file of the image that nobody has changed.
    pub fn file(&mut self) -> Result<String> {
        Ok(many_file(self.files.next().context("the image has too few files")?))
    }

    /// An empty directory of the image that nobody has changed.
    pub fn place(&mut self) -> Result<String> {
        Ok(place(self.places.next().context("the image has too few directories")?))
    }

    /// A number for a container that a case makes itself.
    pub fn number(&mut self) -> u32 {
        next(&mut self.numbers)
    }

    /// Starts a sensor if none runs. Before the first one, makes what the cases need from before it.
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
        self.sensor.as_ref().context("no sensor runs")
    }

    /// The sensor's notices about itself since the case began.
    pub fn notices(&self) -> Vec<Value> {
        self.history.iter().filter(|line| line["finding"].is_null()).cloned().collect()
    }

    /// Takes the sensor away.
    pub fn take_sensor(&mut self) -> Result<Sensor> {
        self.sensor.take().context("no sensor runs")
    }

    fn beacon(&self) -> Result<&Container> {
        self.beacon.as_ref().context("no sensor has run yet")
    }

    /// Waits until the sensor has told of everything so far, and takes the findings.
    pub fn take_findings(&mut self) -> Result<Vec<Value>> {
        loop {
            self.beats += 1;
            let path = format!("/beat-{}", self.beats);
            self.beacon()?.service_does(&["create", &path])?;
            let last = self.wait_for_beacon("image_write", |told| told.is_null() || *told == path)?;
            // Without a path, it has found the ring buffer full, and is told of with others of that kind, in no order.
            if !last["file"]["path"].is_null() {
                return Ok(std::mem::take(&mut self.pending));
            }
        }
    }

    /// As [`Self::take_findings`], with what the sensor tells later of executed files: it looks into one after the
    /// other.
    pub fn take_late_findings(&mut self) -> Result<Vec<Value>> {
        self.beats += 1;
        let path = format!("/data/beat-{}", self.beats);
        self.beacon()?.service_does(&["copy", DASH, &path])?;
        self.beacon()?.service_does(&["run", &path, "-c", "true"])?;
        self.wait_for_beacon("shell_in_container", |told| *told == path)?;
        Ok(std::mem::take(&mut self.pending))
    }

    /// Takes in what the sensor tells, until it is a finding of the beacon's of this kind and with such a path, and
    /// gives that.
    fn wait_for_beacon(&mut self, kind: &str, is_path: impl Fn(&Value) -> bool) -> Result<Value> {
        let beacon = self.beacon()?.id.clone();
        let sensor = self.sensor.as_mut().context("no sensor runs")?;
        let (history, pending) = (&mut self.history, &mut self.pending);
        let mut since = Instant::now();
        wait_for("the finding that follows the case's", Duration::MAX, || {
            let lines = sensor.take_lines()?;
            if lines.is_empty() {
                ensure!(since.elapsed() < PATIENCE, "no finding follows the case's");
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
                // The others are notices of the sensor.
                if !line["finding"].is_null() {
                    pending.push(line);
                }
            }
            since = Instant::now();
            Ok(last)
        })
    }

    /// There must be exactly these findings, in this order, of this container. Of each, what is given must be so.
    pub fn expect<const N: usize>(&mut self, container: &Container, expected: [Value; N]) -> Result<()> {
        self.expect_and_take(container, expected).map(drop)
    }

    /// As [`Self::expect`], for a closer look at them.
    pub fn expect_and_take<const N: usize>(
        &mut self,
        container: &Container,
        expected: [Value; N],
    ) -> Result<Vec<Value>> {
        let found = self.take_findings()?;
        compare(&found, &container.identity(), &expected)?;
        Ok(found)
    }

    /// There must be no finding.
    pub fn expect_none(&mut self) -> Result<()> {
        let found = self.take_findings()?;
        ensure!(found.is_empty(), "{} findings came instead of none", found.len());
        Ok(())
    }
}

/// There are exactly the expected findings, in this order, of this container.
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

/// Where `found` is not what `expected` says. An object must have the given keys, an expected null means that there is
/// nothing, everything else must be equal.
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

/// The expected finding of a change; `identity` is what the attacker saw with stat.
fn write(origin: &str, op: &str, layer: &str, path: &str, identity: &Value) -> Value {
    json!({
        "finding": "image_write",
        "process": {"origin": origin, "uid": 0},
        "file": {"op": op, "layer": layer, "path": path, "dev": identity["dev"], "inode": identity["inode"]},
    })
}

/// The expected finding of something being put over a path; `identity` is what was there.
fn shadowed(origin: &str, op: &str, path: &str, identity: &Value) -> Value {
    let mut finding = write(origin, op, "lower", path, identity);
    finding["finding"] = json!("image_shadowed");
    finding
}

/// Writes a file on the host and checks that it has the content.
fn write_on_host(path: &std::path::Path) -> Result<()> {
    fs::write(path, "changed from the host\n").with_context(|| format!("cannot write {}", path.display()))?;
    ensure!(fs::read(path)? == b"changed from the host\n", "{} was not changed", path.display());
    Ok(())
}
