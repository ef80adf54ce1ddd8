//! Hosts on which the sensor detects or records less than it can. It says so, or does not start. No other sensor runs
//! in the meantime.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Error, Result, bail, ensure};
use rustix::mount::{UnmountFlags, unmount};
use rustix::system::{delete_module, finit_module};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
use serde_json::Value;

use super::forward;
use super::lab::Lab;
use super::noticed::Act;
use crate::attack::{self, kernel};
use crate::init::mount_at;
use crate::program::{Running, on_host, wait_for};
use crate::sensor::{Tail, detector, run_command};

/// The directory for the output.
const FOLDER: &str = "/run/lab/degraded";
/// How strictly the kernel restricts perf_event_open(2), which attaches kprobes.
const PARANOID: &str = "/proc/sys/kernel/perf_event_paranoid";
/// How long the daemon may take to start and to report.
const PATIENCE: Duration = Duration::from_secs(180);
/// The exit code of `detector status` if the daemon is degraded.
const DEGRADED: i32 = 6;

/// Starts the daemon with the capabilities that its messages ask for, and no others. It must not pretend to be complete
/// before it is.
pub(super) fn few_capabilities(_: &mut Lab) -> Result<()> {
    let before = fs::read_to_string(PARANOID)?;
    let outcome = follow_messages();
    fs::write(PARANOID, before)?;
    outcome
}

fn follow_messages() -> Result<()> {
    // The kernel now attaches kprobes for processes with CAP_PERFMON.
    fs::write(PARANOID, "2")?;
    let mut held = CapabilitySet::empty();
    let reasons = loop {
        match reasons_with(held)? {
            Ok(reasons) => break reasons,
            Err(error) => held |= asked_for(&error, held)?,
        }
    };
    ensure!(!held.contains(CapabilitySet::SYS_ADMIN), "it does not start without CAP_SYS_ADMIN");
    let wanted = asked_for(&reasons, held)?;

    // Kernels of Debian now refuse perf_event_open(2) to processes without CAP_SYS_ADMIN.
    fs::write(PARANOID, "3")?;
    match reasons_with(held)? {
        Ok(reasons) => bail!("it starts without kprobes: {reasons}"),
        Err(error) => ensure!(asked_for(&error, held)? == CapabilitySet::SYS_ADMIN, "it says: {error}"),
    }
    held |= wanted;
    let reasons = reasons_with(held)?.map_err(Error::msg)?;
    ensure!(reasons.is_empty(), "with {held:?}, it says: {reasons}");
    Ok(())
}

/// Runs the daemon with these capabilities for a moment. Returns why it is degraded, or why it did not start.
fn reasons_with(held: CapabilitySet) -> Result<Result<String, String>> {
    fs::create_dir_all(FOLDER)?;
    let output = format!("{FOLDER}/findings.jsonl");
    let _previous = fs::remove_file(&output);
    let daemon = match Daemon::start(held, &output)? {
        Ok(daemon) => daemon,
        Err(error) => return Ok(Err(error)),
    };
    let (status, reasons) = (daemon.status()?, degraded(&output)?.concat());
    daemon.stop()?;
    ensure!((status == 0) == reasons.is_empty(), "status ended with {status}, and the output says {reasons:?}");
    Ok(Ok(reasons))
}

/// The capabilities that a message names, of which one at least is missing.
fn asked_for(message: &str, held: CapabilitySet) -> Result<CapabilitySet> {
    let words = message.split(|letter: char| !letter.is_ascii_uppercase() && letter != '_');
    let named: CapabilitySet = words.filter_map(|word| CapabilitySet::from_name(word.strip_prefix("CAP_")?)).collect();
    ensure!(!held.contains(named), "with {held:?}, it says: {message}");
    Ok(named)
}

/// A full disk. The daemon keeps the findings and says that it cannot write them, until somebody removes its file.
pub(super) fn full_disk(_: &mut Lab) -> Result<()> {
    on_small_disk(fill_and_free)
}

fn on_small_disk(work: impl FnOnce() -> Result<()>) -> Result<()> {
    on_disk_of("size=64k", work)
}

fn on_disk_of(size: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    mount_at("tmpfs", FOLDER, size)?;
    let outcome = work();
    unmount(FOLDER, UnmountFlags::DETACH)?;
    outcome
}

fn fill_and_free() -> Result<()> {
    let (output, filler) = (format!("{FOLDER}/findings.jsonl"), format!("{FOLDER}/filler"));
    // There is room for a part of the first line in the last block of the file.
    let earlier = format!("{{\"of\": \"{:3900}\",\"seq\":1,\"prev\":\"{:064}\"}}\n", "an earlier daemon", 0);
    fs::write(&output, earlier)?;
    ensure!(fs::write(&filler, [0; 1 << 20]).is_err(), "the file system is not full");
    let daemon = Daemon::start(CapabilitySet::all(), &output)?.map_err(Error::msg)?;
    ensure!(daemon.status()? == DEGRADED, "status does not say that the output fails");
    // Whoever begins to watch now has missed the notice.
    let tail = Tail::start(Path::new("/run/lab/shown"), "wide", &[])?;
    tail.wait_for("No space left on device")?;
    drop(tail);
    fs::remove_file(&output)?;
    wait_for("the end of the failure", PATIENCE, || Ok((daemon.status()? == 0).then_some(())))?;
    daemon.stop()?;
    let events = lines(&output)?.into_iter().map(|line| line["event"].clone());
    // The heartbeat of the new file can come before the end of the failure is noticed.
    let (heartbeats, events): (Vec<_>, Vec<_>) = events.partition(|event| event == "heartbeat");
    ensure!(
        events == ["started", "degraded", "degraded", "stopped"] && heartbeats.len() == 1,
        "the new file has {events:?} and {heartbeats:?}"
    );
    let reasons = degraded(&output)?;
    ensure!(reasons[0].contains("No space left on device") && reasons[1] == "[]", "the output says {reasons:?}");
    Ok(())
}

/// A disk that is full once there is one old file more than is kept: that one is removed, and nothing else is needed.
pub(super) fn full_disk_while_rotating(lab: &mut Lab) -> Result<()> {
    on_disk_of("size=192k", || {
        let (output, container) = (format!("{FOLDER}/findings.jsonl"), lab.new_container()?);
        let rotation = ["--every-act", "--rotate-size", "64KiB", "--rotate-keep", "2"];
        let daemon = Daemon::start_with(CapabilitySet::all(), &output, &rotation)?.map_err(Error::msg)?;
        let files = || {
            fs::read_dir(FOLDER)?.map(|entry| Ok(entry?.path().display().to_string())).collect::<Result<BTreeSet<_>>>()
        };
        let mut seen = BTreeSet::new();
        for number in 0..800 {
            container.service_does(&["create", &format!("/srv/{number}-of-many")])?;
            let before = seen.len();
            seen.extend(files()?);
            if seen.len() > 6 {
                break;
            }
            if seen.len() > before {
                // A file keeps its room until the daemon has put it on the disk, which it does once a second.
                thread::sleep(Duration::from_secs(3));
            }
        }
        ensure!(seen.len() > 6, "it has rotated to {seen:?} only");
        let status = detector(&["status"])?;
        ensure!(status.status.success(), "{}", String::from_utf8_lossy(&status.stdout));
        daemon.stop()?;
        let files = files()?;
        let reasons = files.iter().map(|file| degraded(file)).collect::<Result<Vec<_>>>()?.concat();
        ensure!(files.len() == 3 && reasons.is_empty(), "there are {files:?}, which say {reasons:?}");
        let verified =
            detector(&["log", "verify"].into_iter().chain(files.iter().map(String::as_str)).collect::<Vec<_>>())?;
        ensure!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
        Ok(())
    })
}

/// A full disk, and a receiver. What the log does not take is received at once, and again once it does.
pub(super) fn full_disk_with_a_forwarder(lab: &mut Lab) -> Result<()> {
    on_small_disk(|| forward_from_full_disk(lab))
}

fn forward_from_full_disk(lab: &mut Lab) -> Result<()> {
    const PORT: u16 = 602;
    const CONFIG: &str = "/run/lab/forwarded.toml";
    /// The path of the last file that is created. There is room for some lines in the last block of the log.
    const PATH: &str = "/srv/8-while-the-disk-is-full";
    let (output, filler) = (format!("{FOLDER}/findings.jsonl"), format!("{FOLDER}/filler"));
    let container = lab.new_container()?;
    on_host("/bin/busybox", ["ip", "link", "set", "lo", "up"])?;
    let receiver = forward::Receiver::listen(PORT)?;
    let state = "/run/lab/forwarded-state";
    fs::write(
        CONFIG,
        format!("state_directory = '{state}'\n[[forward]]\nname = 'siem'\nto = 'tcp://127.0.0.1:{PORT}'\n"),
    )?;
    let daemon = Daemon::start_with(CapabilitySet::all(), &output, &["--every-act", "--config", CONFIG])?;
    let daemon = daemon.map_err(Error::msg)?;
    // The line that is wanted, as it is received.
    let wait = |what: &str, is: &dyn Fn(&Value) -> bool| {
        wait_for(what, PATIENCE, || Ok(receiver.lines()?.into_iter().find(|line| is(line))))
    };
    wait("the first line", &|line| line["event"] == "started" && line["seq"].is_u64())?;
    ensure!(fs::write(&filler, [0; 1 << 20]).is_err(), "the file system is not full");
    for number in 1..=8 {
        container.service_does(&["create", &PATH.replace('8', &number.to_string())])?;
    }
    let is_of_act = |line: &Value| line["finding"] == "image_write" && line["file"]["path"] == PATH;
    let early = wait("the finding from the full disk", &|line| is_of_act(line) && line["durable"] == false)?;
    ensure!(early["seq"].is_null() && !fs::read_to_string(&output)?.contains(PATH), "the log has taken {early}");
    let said = wait("the failure", &|line| line["event"] == "degraded" && line["durable"] == false)?;
    let reason = said["detail"]["reasons"][0].as_str().unwrap_or_default();
    ensure!(reason.contains("No space left on device") && reason.contains("forwarded at once"), "it says {reason}");
    ensure!(daemon.status()? == DEGRADED, "status does not say that the output fails");
    fs::remove_file(&filler)?;
    let late = wait("the finding from the log", &|line| is_of_act(line) && line["seq"].is_u64())?;
    ensure!(late["id"] == early["id"] && late["durable"].is_null(), "{late} is not {early}");
    wait_for("the end of the failure", PATIENCE, || Ok((daemon.status()? == 0).then_some(())))?;
    let status = String::from_utf8(detector(&["status"])?.stdout)?;
    ensure!(status.contains(" sent before the log took them\n"), "{status}");
    daemon.stop()?;
    let verified = detector(&["log", "verify", &output])?;
    ensure!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    ensure!(lines(&output)?.iter().filter(|line| is_of_act(line)).count() == 1, "the log has it more than once");
    Ok(())
}

/// A full disk of a recording. The daemon goes on without it, and then with the rest of it.
pub(super) fn full_disk_of_a_recording(_: &mut Lab) -> Result<()> {
    on_small_disk(fill_and_free_recording)
}

fn fill_and_free_recording() -> Result<()> {
    const OUTPUT: &str = "/run/lab/recorded.jsonl";
    let (recording, filler) = (format!("{FOLDER}/recording"), format!("{FOLDER}/filler"));
    ensure!(fs::write(&filler, [0; 1 << 20]).is_err(), "the file system is not full");
    let daemon = Daemon::start_with(CapabilitySet::all(), OUTPUT, &["--record", &recording])?;
    let daemon = daemon.map_err(Error::msg)?;
    wait_for("the failure", PATIENCE, || Ok((daemon.status()? == DEGRADED).then_some(())))?;
    fs::remove_file(&filler)?;
    wait_for("the end of the failure", PATIENCE, || Ok((daemon.status()? == 0).then_some(())))?;
    daemon.stop()?;
    let reasons = degraded(OUTPUT)?;
    ensure!(
        reasons.len() == 2 && reasons[0].contains("cannot record: No space left on device") && reasons[1] == "[]",
        "the output says {reasons:?}"
    );
    let replay = detector(&["replay", &recording])?;
    ensure!(replay.status.success(), "replay: {}", String::from_utf8_lossy(&replay.stderr));
    Ok(())
}

/// How the daemon is started that must notice something by its self-test.
const TESTS_OFTEN: &[&str] = &["--self-test-interval", "1s"];

/// Somebody switches all kprobes off while the daemon runs.
pub(super) fn probes_switched_off(_: &mut Lab) -> Result<()> {
    const DEBUG: &str = "/run/lab/debug";
    mount_at("debugfs", DEBUG, "")?;
    switch_off(&format!("{DEBUG}/kprobes/enabled"), "kprobes switched off: seen by the self-test")
}

/// Somebody switches ftrace off, on which kprobes depend. Many kernels refuse that.
pub(super) fn ftrace_switched_off(_: &mut Lab) -> Result<()> {
    switch_off("/proc/sys/kernel/ftrace_enabled", "ftrace switched off: seen by the self-test")
}

/// Switches probes off and on. The self-test notices both.
fn switch_off(switch: &str, act: &'static str) -> Result<()> {
    let watched = Watched::start("switched")?;
    let mut act = Act::begin(act)?;
    let written = fs::write(switch, "0");
    if fs::read_to_string(switch)?.trim_end() == "1" {
        ensure!(switch.ends_with("ftrace_enabled"), "it is not switched off: {written:?}");
        act.end_without("the kernel refuses it")?;
        return watched.daemon.stop();
    }
    let noticed = watched.wait(|line| line["event"] == "degraded").map(|line| act.noticed(&line));
    let status = detector(&["status"]);
    fs::write(switch, "1")?;
    noticed?;
    act.end()?;
    let status = status?;
    ensure!(status.status.code() == Some(DEGRADED), "status does not say so");
    let shown = String::from_utf8(status.stdout)?;
    let verdict = shown.lines().next().unwrap_or_default();
    ensure!(
        verdict.starts_with("degraded: ")
            && verdict.contains("were not seen to fire")
            && shown.contains("\ndegraded  hook "),
        "status says {shown}"
    );
    watched.is_whole_again()?;
    let reasons = degraded(&watched.output)?;
    watched.daemon.stop()?;
    ensure!(
        reasons.len() == 2 && reasons[0].contains("hook write (kprobe") && reasons[1] == "[]",
        "the output says {reasons:?}"
    );
    Ok(())
}

/// A debugger makes the daemon close the descriptors that keep its probes attached. The daemon attaches them again.
pub(super) fn links_closed(_: &mut Lab) -> Result<()> {
    close_links("closed", "all links closed by way of ptrace(2)", |links| links, &["cgroup_mkdir", "open", "trace"])
}

/// The same, but the hook that sees files being copied up goes on. It still reports what the others no longer do, as
/// far as it can.
pub(super) fn later_links_closed(_: &mut Lab) -> Result<()> {
    close_links(
        "later",
        "the later half of the links closed by way of ptrace(2)",
        |links| &links[(links.len() - 1) / 2..],
        &["link", "rename", "setattr", "setxattr", "removexattr", "script", "trace"],
    )
}

fn close_links(name: &str, what: &'static str, choose: fn(&[i32]) -> &[i32], hooks: &[&str]) -> Result<()> {
    let watched = Watched::start(name)?;
    let mut act = Act::begin(what)?;
    let links = attack::links(watched.daemon.id())?;
    attack::make_close(watched.daemon.id(), choose(&links))?;
    act.noticed(&watched.wait(is_tampering)?);
    act.noticed(&watched.wait(is_healed)?);
    act.end()?;
    // A self-test may have come before the last link was closed.
    wait_for("the last hook", PATIENCE, || {
        let lines = lines(&watched.output)?;
        let told: Vec<_> = lines.iter().filter(|line| is_healed(line)).map(|line| line["detail"].to_string()).collect();
        let is_told = |hook: &&str| told.iter().any(|what| what.contains(*hook));
        Ok(hooks.iter().all(is_told).then_some(()))
    })?;
    watched.is_whole_again()?;
    watched.daemon.stop()
}

/// Somebody disables the perf events of the daemon, which has some before Linux 5.15. This detaches no program.
pub(super) fn events_disabled(_: &mut Lab) -> Result<()> {
    let watched = Watched::start("disabled")?;
    let mut act = Act::begin("perf events disabled")?;
    let events = attack::disable_events(watched.daemon.id())?;
    let is_older = kernel()? < (5, 15);
    ensure!((events > 0) == is_older, "the daemon has {events} perf events");
    if is_older {
        act.noticed(&watched.wait(is_tampering)?);
        // Several self-tests.
        thread::sleep(Duration::from_secs(5));
    }
    act.end_without(if is_older { "the probes go on" } else { "the detector has none on this kernel" })?;
    watched.is_whole_again()?;
    let lines = lines(&watched.output)?;
    ensure!(!lines.iter().any(|line| is_healed(line) || line["event"] == "degraded"), "the output has {lines:?}");
    watched.daemon.stop()
}

/// The module of overlayfs is unloaded and loaded again. The probes of its functions went with it.
pub(super) fn module_reloaded(_: &mut Lab) -> Result<()> {
    let watched = Watched::start("reloaded")?;
    let modules = fs::read_dir("/modules")?.filter_map(|entry| Some(entry.ok()?.path()));
    let is_overlay = |path: &PathBuf| path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"overlay."));
    let module = modules.into_iter().find(is_overlay).context("there is no module of overlayfs")?;
    /// `O_NONBLOCK`: the call fails if the module is in use.
    const NONBLOCK: std::ffi::c_int = 0o4000;
    let mut act = Act::begin("the module of overlayfs unloaded and loaded again")?;
    // The canary may be using it at the moment.
    wait_for("the end of the module", PATIENCE, || Ok(delete_module(c"overlay", NONBLOCK).ok()))?;
    finit_module(fs::File::open(module)?, c"", 0)?;
    let healed = watched.wait(is_healed)?;
    act.noticed(&healed);
    act.end()?;
    let what = healed["detail"]["what"].as_str().unwrap_or_default();
    ensure!(what.contains("write") && !what.contains("open"), "it says {what}");
    watched.is_whole_again()?;
    watched.daemon.stop()
}

/// Somebody ends the daemon, who is not its parent.
pub(super) fn terminated(_: &mut Lab) -> Result<()> {
    let mut watched = Watched::start("terminated")?;
    let mut act = Act::begin("ended with SIGTERM")?;
    signal(&watched.daemon, "-TERM")?;
    let tampering = watched.wait(is_tampering)?;
    act.noticed(&tampering);
    act.noticed(&watched.wait(|line| line["event"] == "stopped")?);
    act.end()?;
    // A daemon that is killed after its last line has not removed its socket, so the next one would say that it
    // crashed.
    let status = wait_for("the end of the daemon", PATIENCE, || watched.daemon.0.ended())?;
    ensure!(status.success(), "the daemon ended with {status}");
    let who = (&tampering["severity"], &tampering["process"]["exe"], &tampering["process"]["origin"]);
    ensure!(who == (&"medium".into(), &"/bin/busybox".into(), &"outside".into()), "the finding is {tampering}");
    ensure!(tampering["message"].as_str().is_some_and(|text| text.starts_with("SIGTERM sent")), "{tampering}");
    Ok(())
}

/// Somebody kills the daemon. The next one says so.
pub(super) fn killed(_: &mut Lab) -> Result<()> {
    let mut watched = Watched::start("killed")?;
    ensure!(lines(&watched.output)?[0]["detail"]["after_crash"].is_null(), "the first daemon says so too");
    signal(&watched.daemon, "-KILL")?;
    wait_for("the end of the daemon", PATIENCE, || watched.daemon.0.ended())?;
    let mut act = Act::begin("killed with SIGKILL: seen by the next daemon")?;
    let next = Watched::start("killed-next")?;
    let started = next.wait(|line| line["event"] == "started")?;
    act.noticed(&started);
    act.end()?;
    ensure!(started["detail"]["after_crash"] == true, "the next daemon says {started}");
    next.daemon.stop()
}

fn signal(daemon: &Daemon, signal: &str) -> Result<()> {
    on_host("/bin/busybox", ["kill", signal, &daemon.id().to_string()]).map(drop)
}

fn is_tampering(line: &Value) -> bool {
    line["finding"] == "sensor_tampering"
}

fn is_healed(line: &Value) -> bool {
    line["event"] == "healed"
}

/// A daemon to which something is done. It tests itself often.
struct Watched {
    daemon: Daemon,
    output: String,
}

impl Watched {
    fn start(name: &str) -> Result<Self> {
        fs::create_dir_all(FOLDER)?;
        let output = format!("{FOLDER}/{name}.jsonl");
        let _of_another_case = fs::remove_file(&output);
        let daemon = Daemon::start_with(CapabilitySet::all(), &output, TESTS_OFTEN)?.map_err(Error::msg)?;
        ensure!(daemon.status()? == 0, "it is degraded from the start");
        Ok(Self { daemon, output })
    }

    /// Waits for such a line.
    fn wait(&self, is_wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        wait_for("the line", PATIENCE, || Ok(lines(&self.output)?.into_iter().find(|line| is_wanted(line))))
    }

    /// Waits until nothing is missing.
    fn is_whole_again(&self) -> Result<()> {
        wait_for("the end of the degradation", PATIENCE, || Ok((self.daemon.status()? == 0).then_some(()))).or_else(
            |error| anyhow::bail!("{error}\n{}", String::from_utf8_lossy(&detector(&["status", "--hooks"])?.stdout)),
        )
    }
}

/// The lines of an output, without one that is not complete yet.
fn lines(output: &str) -> Result<Vec<Value>> {
    let text = fs::read_to_string(output)?;
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    Ok(whole.map(serde_json::from_str).collect::<Result<_, _>>()?)
}

/// The reasons in each `degraded` notice of an output.
fn degraded(output: &str) -> Result<Vec<String>> {
    let lines = lines(output)?;
    let degraded = lines.iter().filter(|line| line["event"] == "degraded");
    Ok(degraded.map(|line| line["detail"]["reasons"].to_string()).collect())
}

/// A running daemon, which is killed when this is dropped.
struct Daemon(Running);

impl Daemon {
    /// Starts the daemon with these capabilities, and waits until it watches. Returns its message if it does not start.
    fn start(held: CapabilitySet, output: &str) -> Result<Result<Self, String>> {
        Self::start_with(held, output, &[])
    }

    /// Like [`Self::start`], with additional arguments.
    fn start_with(held: CapabilitySet, output: &str, more: &[&str]) -> Result<Result<Self, String>> {
        let log = Path::new("/run/lab/log-of-degraded");
        let mut run = run_command(Path::new(output), log)?;
        run.args(more);
        // The capabilities of root's programs are those in the bounding set of the thread that executes them.
        let process = thread::scope(|scope| {
            let started = scope.spawn(|| {
                for capability in CapabilitySet::all().difference(held).iter() {
                    // Only newer kernels know all capabilities.
                    let _unknown = remove_capability_from_bounding_set(capability);
                }
                Running::start(&mut run)
            });
            started.join().expect("it does not panic")
        });
        let mut daemon = Self(process?);
        wait_for("the start of the daemon or its error", PATIENCE, || {
            if daemon.0.ended()?.is_some() {
                let message = fs::read_to_string(log)?;
                return Ok(Some(Err(message.lines().last().unwrap_or_default().to_owned())));
            }
            Ok(matches!(daemon.status()?, 0 | DEGRADED).then_some(Ok(())))
        })
        .map(|started| started.map(|()| daemon))
    }

    /// Its process id.
    fn id(&self) -> u32 {
        self.0.id()
    }

    /// The exit code of `detector status`.
    fn status(&self) -> Result<i32> {
        detector(&["status"])?.status.code().context("status was killed")
    }

    fn stop(self) -> Result<()> {
        let ended = self.0.stop()?;
        ensure!(ended.success(), "the daemon ended with {ended}");
        Ok(())
    }
}
