//! Proves that the hooks fire. A program that is attached is not thereby called: an LSM program on a kernel without the
//! BPF LSM never is, and a kernel can be configured to patch nothing.
//!
//! A canary container is made: a cgroup, a mount namespace, a small overlay. A copy of this program executes in it and
//! changes its image in every way, each at a file with the name of a hook. A record that comes through the whole pipeline
//! proves the hook. The canary is never a finding.

mod attack;

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    mount::{MountFlags, MountPropagationFlags},
    thread::{UnshareFlags, unshare_unsafe},
};

use super::{
    HookReport, State,
    host::Host,
    maps::{Maps, Root, RootKind},
};
use crate::event::{Event, Layer, Path as ImagePath};

/// The hidden argument that makes this program the canary: see [`target`].
pub const ARGUMENT: &str = "__selftest";
/// How long to wait for all records.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the reader thread has seen of the canary.
#[derive(Debug, Default)]
pub(super) struct Canary {
    state: Mutex<Watched>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Watched {
    cgroup: u64,
    path: Vec<u8>,
    seen: Vec<&'static str>,
}

impl Canary {
    /// Takes the events that are the canary's; `true`: it was one.
    pub(super) fn takes(&self, event: &Event) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_ours = |container: u64| state.cgroup != 0 && container == state.cgroup;
        let is_cgroup = |path: &[u8]| !state.path.is_empty() && path == state.path;
        let hooks: &[&'static str] = match event {
            Event::CgroupCreated(made) if is_cgroup(&made.path) => &["cgroup_mkdir"],
            Event::CgroupRemoved(made) if is_cgroup(&made.path) => &["cgroup_rmdir"],
            Event::Exec(exec) if is_ours(exec.at.container) => &["exec"],
            Event::Script(script) if is_ours(script.at.container) => &["script"],
            Event::ImageWrite(write) if is_ours(write.at.container) => {
                match write.path.as_ref().and_then(proven_at) {
                    Some("create") => &["create", "inode_create"],
                    // Noticed before the file was copied up: so by the hook of that.
                    Some("setattr") if write.file.layer == Some(Layer::Lower) => &["setattr", "copy_up"],
                    Some(hook) => &[hook],
                    None => &[],
                }
            }
            Event::MapExec(map) if is_ours(map.at.container) => &[],
            Event::KeptMapExec(at, _) if is_ours(at.container) => &[],
            Event::CgroupEscape(escape) if is_ours(escape.at.container) => &[],
            _ => return false,
        };
        state.seen.extend(hooks);
        self.changed.notify_all();
        true
    }

    fn watch(&self, path: &Path) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).path = path.as_os_str().as_encoded_bytes().to_vec();
    }

    fn watch_cgroup(&self, cgroup: u64) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).cgroup = cgroup;
    }

    /// Waits until all these hooks were seen, or for [`PATIENCE`].
    fn wait(&self, hooks: &[&str]) -> Vec<&'static str> {
        let until = Instant::now() + PATIENCE;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !hooks.iter().all(|hook| state.seen.contains(hook)) {
            let Some(left) = until.checked_duration_since(Instant::now()) else { break };
            (state, _) = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
        state.seen.clone()
    }
}

/// The hooks that the canary sets off.
const PROVEN: [&str; 32] = [
    "cgroup_mkdir",
    "cgroup_rmdir",
    "exec",
    "open",
    "write",
    "splice",
    "fallocate",
    "copy_range",
    "clone_range",
    "mmap",
    "copy_up",
    "create",
    "inode_create",
    "mknod",
    "mkdir",
    "symlink",
    "link",
    "unlink",
    "rmdir",
    "rename",
    "setattr",
    "setxattr",
    "removexattr",
    "set_acl",
    "remove_acl",
    "fileattr",
    "mount",
    "move_mount",
    "umount",
    "pivot_root",
    "chroot",
    "script",
];

/// The hook that a change of the file with this name proves.
fn proven_at(path: &ImagePath) -> Option<&'static str> {
    let name = path.bytes.rsplit(|&byte| byte == b'/').next()?;
    PROVEN.into_iter().find(|hook| hook.as_bytes() == name)
}

/// Runs the canary and notes in `hooks` what was seen.
///
/// # Errors
///
/// Why the canary could not be run; the hooks are then unproven, not broken.
pub(super) fn run(host: &Host, maps: &Maps, canary: &Canary, hooks: &mut [HookReport]) -> Result<(), String> {
    let mount = &host.hierarchy.as_ref().ok_or("no cgroups are mounted")?.mount;
    let name = PathBuf::from(format!("/detector-selftest-{}", std::process::id()));
    canary.watch(&name);
    let cgroup = CgroupDirectory::make(mount.join(name.strip_prefix("/").unwrap_or(&name)))?;
    canary.watch_cgroup(cgroup.id);
    let (mut child, device, mnt_ns) = spawn(&cgroup, maps)?;
    let root = Root { container: cgroup.id, root_dev: device, root_kind: RootKind::Overlay, mnt_ns, init: 0 };
    let result = maps.watch(root, &[]).map_err(|e| e.to_string()).and_then(|()| finish(&mut child));
    drop(cgroup);
    // What this kernel refuses proves nothing, unless the hook came before the refusal.
    let refused = result.as_deref().unwrap_or_default();
    let is_expected = |report: &&mut HookReport| {
        let name = report.hook.name;
        PROVEN.contains(&name) && report.state != State::Absent
    };
    let expected: Vec<_> = hooks
        .iter_mut()
        .filter(is_expected)
        .map(|report| report.hook.name)
        .filter(|name| !refused.iter().any(|refused| refused == name))
        .collect();
    let seen = canary.wait(&expected);
    maps.forget(root);
    let refused = result?;
    for report in hooks.iter_mut().filter(is_expected) {
        let is_seen = seen.contains(&report.hook.name);
        let is_refused = refused.iter().any(|refused| refused == report.hook.name);
        report.verified = (is_seen || !is_refused).then_some(is_seen);
    }
    Ok(())
}

/// Starts the canary in its cgroup and waits until its overlay is there; gives the overlay's device and the namespace.
fn spawn(cgroup: &CgroupDirectory, maps: &Maps) -> Result<(Child, u32, u32), String> {
    let procs = fs::OpenOptions::new()
        .write(true)
        .open(cgroup.path.join("cgroup.procs"))
        .map_err(|e| format!("opening the canary's cgroup: {e}"))?;
    // The canary shares the host's root, so the probes must be told that it is a container. The device comes later.
    let unknown = Root { container: cgroup.id, root_dev: 0, root_kind: RootKind::Overlay, mnt_ns: 0, init: 0 };
    maps.watch(unknown, &[]).map_err(|e| e.to_string())?;
    let mut command = Command::new("/proc/self/exe");
    command.arg(ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: between fork and exec only async-signal-safe system calls are made, without allocation.
    unsafe {
        command.pre_exec(move || {
            (&procs).write_all(b"0")?;
            unshare_unsafe(UnshareFlags::NEWNS)?;
            Ok(())
        });
    }
    let mut child = command.spawn().map_err(|e| format!("starting the canary: {e}"))?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.as_mut() {
        BufReader::new(stdout).read_line(&mut line).map_err(|e| format!("reading from the canary: {e}"))?;
    }
    let mut words = line.split_whitespace().map(str::parse::<u32>);
    match (words.next(), words.next()) {
        (Some(Ok(device)), Some(Ok(mnt_ns))) => Ok((child, device, mnt_ns)),
        _ => Err(format!("the canary failed: {}", reap(child))),
    }
}

/// Lets the canary change its files and waits for its end; gives the hooks whose change was refused.
fn finish(child: &mut Child) -> Result<Vec<String>, String> {
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(b"\n").map_err(|e| format!("writing to the canary: {e}"))?;
    }
    let mut said = String::new();
    if let Some(stdout) = child.stdout.as_mut() {
        stdout.read_to_string(&mut said).map_err(|e| format!("reading from the canary: {e}"))?;
    }
    let status = child.wait().map_err(|e| format!("waiting for the canary: {e}"))?;
    if !status.success() {
        return Err(format!("the canary ended with {status}"));
    }
    let refusals = said.lines().filter_map(|line| line.split_once(": "));
    Ok(refusals
        .map(|(hook, why)| {
            tracing::debug!(hook, why, "the self-test cannot reach it");
            hook.to_owned()
        })
        .collect())
}

/// What a canary that ended early had to say.
fn reap(child: Child) -> String {
    match child.wait_with_output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            said.lines().last().map_or_else(|| output.status.to_string(), str::to_owned)
        }
        Err(e) => e.to_string(),
    }
}

/// A cgroup of our own, removed at the end.
struct CgroupDirectory {
    path: PathBuf,
    id: u64,
}

impl CgroupDirectory {
    fn make(path: PathBuf) -> Result<Self, String> {
        fs::create_dir(&path).map_err(|e| format!("making cgroup {}: {e}", path.display()))?;
        let id = fs::metadata(&path).map_err(|e| format!("cgroup {}: {e}", path.display()))?.ino();
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

/// What the canary does, in its own mount namespace: mounts an overlay, says its device, and when told so changes what is
/// there; then says which changes were refused.
///
/// # Errors
///
/// What the system refused of the set-up.
pub fn target() -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    // A directory that is always there; nobody else sees what is mounted on it.
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
    let before = attack::Before::open(&merged)?;
    let device = fs::metadata(&merged)?.dev();
    let kernel_device = rustix::fs::major(device) << 20 | rustix::fs::minor(device);
    let namespace = fs::metadata("/proc/self/ns/mnt")?.ino();
    println!("{kernel_device} {namespace}");
    io::stdin().read_line(&mut String::new())?;
    for (hook, result) in attack::all(&merged, &before) {
        if let Err(why) = result {
            println!("{hook}: {why}");
        }
    }
    for (hook, why) in refused {
        println!("{hook}: {why}");
    }
    Ok(())
}
