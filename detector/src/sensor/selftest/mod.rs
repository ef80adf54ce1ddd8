//! Verifies that the hooks fire. A program that is attached is not necessarily called: an LSM program is never called
//! on a kernel without the BPF LSM, and a kernel can be configured to patch no code.
//!
//! The self-test creates a canary container: a cgroup, a mount namespace and a small overlay. A copy of this program
//! runs in it and performs an [act](attack) for each hook. Most acts change the file that is named after the act. A
//! record that arrives through the ring buffer verifies the hook; for a hook that sends none, the kernel's count of
//! [runs] does ([`Proof`]). The self-test runs at the start, and again at intervals, because the probes can be switched
//! off at any time. Nothing else reads events meanwhile. Events that are not the canary's are kept, in their order, for
//! the reader, and the canary never causes a finding.

mod attack;
mod runs;

use std::env;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use self::attack::Stage;
use self::runs::Runs;
use super::canary::Canary;
use super::events::Events;
use super::host::Host;
use super::maps::{Maps, WatchedContainer};
use super::plan::Proof;
use super::probes::Attached;
use super::report::{Attachment, HookReport};
use super::scan::RootKind;
use crate::procfs::{Process, Stat};

/// The hidden argument that makes this program the canary: see [`target`].
pub const ARGUMENT: &str = "__selftest";
/// The environment variable that names the file to which the canary writes its process id to leave its cgroup.
const EXIT: &str = "DETECTOR_SELFTEST_EXIT";
/// How long to wait for the canary's output.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait for records after the canary has ended. All of them should be there already.
const RECORD_PATIENCE: Duration = Duration::from_secs(1);

/// Runs the canary, and records in `hooks` which of them were seen to fire.
///
/// # Errors
///
/// The canary could not be run to its end; the error says why. The hooks are then not verified, which does not mean
/// that they are broken.
pub(super) fn run(
    host: &Host,
    maps: &mut Maps,
    events: &mut Events,
    attached: &[Attached],
    hooks: &mut [HookReport],
) -> Result<(), String> {
    let runs = Runs::count(attached)?;
    let hierarchy = host.hierarchy.as_ref().ok_or("no cgroups are mounted")?;
    let mut nonce = [0; 8];
    let random = fs::File::open("/dev/urandom").and_then(|mut urandom| urandom.read_exact(&mut nonce));
    random.map_err(|e| format!("reading /dev/urandom: {e}"))?;
    let name = format!("/detector-selftest-{}-{:016x}", std::process::id(), u64::from_ne_bytes(nonce));
    events.arm(Canary::new(name.clone().into_bytes()));
    let cgroup = CgroupDirectory::make(hierarchy.directory(name.as_bytes()))?;
    let mut watched = WatchedContainer {
        container: cgroup.id,
        root_dev: 0,
        root_kind: RootKind::Overlay,
        mnt_ns: 0,
        user_ns: 0,
        net_ns: 0,
        init: 0,
    };
    let result = act(&cgroup, &mut watched, maps, events);
    drop(cgroup);
    let result = result.and_then(|refused| {
        // An act that this kernel refuses says nothing about its hook, unless the hook fired before the refusal.
        let is_expected = |report: &&HookReport| {
            let is_attached = matches!(report.attachment, Attachment::Attached { .. });
            is_attached && matches!(report.hook.proof, Proof::Record(act) if !refused.contains(act))
        };
        let expected: Vec<_> = hooks.iter().filter(is_expected).map(|report| report.hook.name).collect();
        wait_for_proof(events, &expected).map(|()| refused)
    });
    maps.forget(watched).map_err(|e| e.to_string())?;
    let refused = result?;
    for report in hooks {
        let Attachment::Attached { program, .. } = report.attachment else { continue };
        let is_proven = match report.hook.proof {
            Proof::Record(_) => events.canary().is_some_and(|canary| canary.has_proven(report.hook.name)),
            Proof::Run(_) => runs.has_run(program)?,
        };
        // A hook that has fired before the refusal of an act is expected to do so again.
        let must_fire = report.verified.is_some() || !refused.contains(report.hook.proof.act());
        report.verified = (is_proven || must_fire).then_some(is_proven);
    }
    Ok(())
}

/// The names of the acts that the canary was refused.
struct Refused(Vec<String>);

impl Refused {
    fn contains(&self, act: &str) -> bool {
        self.0.iter().any(|refused| refused == act)
    }
}

/// Waits until all these hooks are verified, but not longer than [`RECORD_PATIENCE`].
fn wait_for_proof(events: &mut Events, hooks: &[&str]) -> Result<(), String> {
    let until = Instant::now() + RECORD_PATIENCE;
    loop {
        read_past(events)?;
        let canary = events.canary();
        if canary.is_some_and(|canary| hooks.iter().all(|hook| canary.has_proven(hook))) || Instant::now() >= until {
            return Ok(());
        }
        wait(events, None, until)?;
    }
}

fn read_past(events: &mut Events) -> Result<(), String> {
    if events.read_past() { Ok(()) } else { Err("too much happened on this host meanwhile".to_owned()) }
}

/// Waits until there are events or the canary has written something.
fn wait(events: &Events, said: Option<&ChildStdout>, until: Instant) -> Result<(), String> {
    let left = Timespec::try_from(until.saturating_duration_since(Instant::now())).map_err(|e| e.to_string())?;
    let events = PollFd::from_borrowed_fd(events.as_fd(), PollFlags::IN);
    let polled = match said {
        Some(said) => poll(&mut [events, PollFd::from_borrowed_fd(said.as_fd(), PollFlags::IN)], Some(&left)),
        None => poll(&mut [events], Some(&left)),
    };
    match polled {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(format!("waiting for events: {error}")),
    }
}

/// Runs the canary in its cgroup.
fn act(
    cgroup: &CgroupDirectory,
    watched: &mut WatchedContainer,
    maps: &mut Maps,
    events: &mut Events,
) -> Result<Refused, String> {
    // The canary shares the host's root, so the probes must be told that it is a container. The device is added later.
    maps.watch(*watched, &[]).map_err(|e| e.to_string())?;
    let mut talk = Talk::start(cgroup, events)?;
    let said = talk.listen(events, |said| said.contains('\n'))?;
    let mut words = said.split_whitespace().map(str::parse::<u32>);
    let (Some(Ok(device)), Some(Ok(mnt_ns))) = (words.next(), words.next()) else {
        return Err(format!("the canary failed: {}", talk.last_words()));
    };
    (watched.root_dev, watched.mnt_ns) = (device, mnt_ns);
    if let Some(canary) = events.canary() {
        canary.mounted(device);
    }
    maps.watch(*watched, &[]).map_err(|e| e.to_string())?;
    talk.go_on()?;
    let said = talk.listen(events, |_| false)?;
    let status = talk.child.wait().map_err(|e| format!("waiting for the canary: {e}"))?;
    if !status.success() {
        return Err(format!("the canary ended with {status}"));
    }
    let refusals = said.lines().filter_map(|line| line.split_once(": "));
    let refused = refusals.map(|(act, why)| {
        tracing::debug!(act, why, "this kernel refuses what the self-test does");
        act.to_owned()
    });
    Ok(Refused(refused.collect()))
}

/// The canary's process, and its standard output.
struct Talk {
    child: Child,
    stdout: ChildStdout,
}

impl Talk {
    /// Starts the canary in its cgroup.
    #[expect(unsafe_code, reason = "the child has to change its cgroup and its namespace before the exec")]
    fn start(cgroup: &CgroupDirectory, events: &mut Events) -> Result<Self, String> {
        let procs = fs::OpenOptions::new()
            .write(true)
            .open(cgroup.path.join("cgroup.procs"))
            .map_err(|e| format!("opening the canary's cgroup: {e}"))?;
        let mut command = Command::new("/proc/self/exe");
        command.arg(ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env(EXIT, cgroup.path.with_file_name("cgroup.procs"));
        // SAFETY: between fork and exec only async-signal-safe system calls are made, without allocation.
        unsafe {
            command.pre_exec(move || {
                (&procs).write_all(b"0")?;
                unshare_unsafe(UnshareFlags::NEWNS)?;
                Ok(())
            });
        }
        let mut child = command.spawn().map_err(|e| format!("starting the canary: {e}"))?;
        let stdout = child.stdout.take().ok_or("the canary has no output")?;
        let talk = Self { child, stdout };
        let pid = talk.child.id();
        let stat = Process::open(&pid.to_string()).and_then(|process| process.read("stat"));
        let stat = stat.map_err(|e| format!("reading the canary's state: {e}"))?;
        let start_time = Stat::parse(&stat).ok_or("the canary's state is not understood")?.start_time();
        if let Some(canary) = events.canary() {
            canary.started(cgroup.id, pid, start_time);
        }
        Ok(talk)
    }

    /// Reads the canary's output until `is_enough` accepts it or it ends. Events are read in the meantime, so that the
    /// ring buffer does not fill up.
    fn listen(&mut self, events: &mut Events, is_enough: impl Fn(&str) -> bool) -> Result<String, String> {
        let until = Instant::now() + PATIENCE;
        let mut said = String::new();
        while !is_enough(&said) {
            wait(events, Some(&self.stdout), until)?;
            read_past(events)?;
            if !is_readable(&self.stdout) {
                if Instant::now() >= until {
                    return Err(format!("the canary said nothing for {PATIENCE:?}"));
                }
                continue;
            }
            let mut buffer = [0; 4096];
            match self.stdout.read(&mut buffer).map_err(|e| format!("reading from the canary: {e}"))? {
                0 => break,
                read => said.push_str(&String::from_utf8_lossy(&buffer[..read])),
            }
        }
        Ok(said)
    }

    /// Lets the canary change its files.
    fn go_on(&mut self) -> Result<(), String> {
        let mut stdin = self.child.stdin.take().ok_or("the canary has no input")?;
        stdin.write_all(b"\n").map_err(|e| format!("writing to the canary: {e}"))
    }

    /// The last line of the error output of a canary that ended early, or else its exit status.
    fn last_words(mut self) -> String {
        drop(self.child.stdin.take());
        let mut said = String::new();
        if let Some(mut stderr) = self.child.stderr.take()
            && let Err(error) = stderr.read_to_string(&mut said)
        {
            return error.to_string();
        }
        match (said.lines().last(), self.child.wait()) {
            (Some(line), _) => line.to_owned(),
            (None, Ok(status)) => status.to_string(),
            (None, Err(error)) => error.to_string(),
        }
    }
}

/// If the self-test gives up, neither the canary nor its cgroup may remain.
impl Drop for Talk {
    fn drop(&mut self) {
        // The canary may have ended already, so errors are ignored.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn is_readable(output: &ChildStdout) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(output.as_fd(), PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// A cgroup of the self-test. It is removed when the value is dropped.
struct CgroupDirectory {
    path: PathBuf,
    id: u64,
}

impl CgroupDirectory {
    fn make(path: PathBuf) -> Result<Self, String> {
        // The name of the cgroup is another one in each test, but the same failure must have the same reason.
        let failed = |error| format!("making a cgroup in {}: {error}", path.parent().unwrap_or(&path).display());
        fs::create_dir(&path).map_err(failed)?;
        let id = fs::metadata(&path).map_err(failed)?.ino();
        Ok(Self { path, id })
    }
}

impl Drop for CgroupDirectory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the self-test's cgroup stays behind");
        }
    }
}

/// Runs the canary, in its own mount namespace. It mounts an overlay, writes the device of the overlay to its output,
/// performs its acts when it is told to, and then writes which of them were refused.
///
/// # Errors
///
/// The system refused a part of the setup.
pub fn target() -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    // This directory always exists. No other process sees what is mounted on it.
    let base = Path::new("/dev");
    rustix::mount::mount("detector", base, "tmpfs", MountFlags::empty(), None::<&std::ffi::CStr>)?;
    for directory in ["lower", "upper", "work", "merged"] {
        fs::create_dir(base.join(directory))?;
    }
    let refused = attack::prepare(&base.join("lower"));
    let options = c"lowerdir=/dev/lower,upperdir=/dev/upper,workdir=/dev/work";
    let merged = base.join("merged");
    rustix::mount::mount("detector", &merged, "overlay", MountFlags::empty(), Some(options))
        .map_err(|e| io::Error::other(format!("mounting an overlay: {e}")))?;
    let stage = Stage::set(&merged, env::var_os(EXIT).unwrap_or_default().as_ref())?;
    let device = fs::metadata(&merged)?.dev();
    let kernel_device = rustix::fs::major(device) << 20 | rustix::fs::minor(device);
    let namespace = fs::metadata("/proc/self/ns/mnt")?.ino();
    println!("{kernel_device} {namespace}");
    io::stdin().read_line(&mut String::new())?;
    for (act, why) in refused.into_iter().chain(stage.do_all_acts()) {
        println!("{act}: {why}");
    }
    Ok(())
}
