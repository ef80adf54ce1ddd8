//! Ordinary programs that use what the sensor uses or watches. What each returns must be the same with and without a
//! sensor.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, getrlimit, kill_process, setrlimit, waitid,
};
use serde_json::{Value, json};

use super::interfaces::{Counter, Kprobe, lock, permit, trace};
use super::operation::Operation;

/// The operations of this module.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation::plain("trace-kernel", "counts calls of functions of the kernel with kprobes and BPF", trace_kernel),
    Operation::plain("trace-program", "traces the system calls of a program", || {
        Ok(json!(trace(Command::new("/bin/true").stdin(Stdio::null()))?))
    }),
    Operation::on("watch-files", "watches a directory with fanotify and inotify", watch_files),
    Operation::on("link-unnamed", "gives a file without a name one, in a directory", link_unnamed),
    Operation::plain("reach-limits", "locks as much memory and opens as many files as it may", reach_limits),
    Operation::plain("signal-child", "stops, continues and kills a child", signal_child),
    Operation::plain("list-processes", "reads what /proc shows of all processes", list_processes),
    Operation::on("fail-to-execute", "executes what is no program, in a directory", fail_to_execute),
];

/// How often each function is called.
const CALLS: u64 = 10;

/// Another tracer with probes at the functions that the sensor watches.
fn trace_kernel() -> Result<Value> {
    let path = Path::new("/dev/null");
    let mut counts = Vec::new();
    for function in [c"security_file_open", c"security_mmap_file", c"security_task_kill", c"security_bpf"] {
        let (mut plain, traced, counter) = (Kprobe::on(function)?, Kprobe::on(function)?, Counter::load()?);
        traced.attach(&counter.program)?;
        let before = plain.count()?;
        for _ in 0..CALLS {
            drop(File::open(path)?);
            rustix::process::test_kill_process(rustix::process::getpid())?;
        }
        let calls = plain.count()? - before;
        // The program also counts the calls of other processes.
        counts.push(json!([function.to_string_lossy(), calls, counter.count()? >= calls]));
    }
    Ok(json!(counts))
}

fn watch_files(folder: &Path) -> Result<Value> {
    let file = folder.join("watched");
    fs::write(&file, "before")?;
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    inotify::add_watch(&watch, folder, WatchFlags::ALL_EVENTS)?;
    let decided = permit(&file, || Ok(OpenOptions::new().write(true).open(&file)?.write_all(b"after")?))?;
    fs::set_permissions(&file, Permissions::from_mode(0o600))?;
    fs::remove_file(&file)?;
    let mut room = [std::mem::MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(watch, &mut room);
    let mut seen = Vec::new();
    while let Ok(event) = events.next() {
        seen.push(event.events().bits());
    }
    Ok(json!({"fanotify": decided, "inotify": seen}))
}

fn link_unnamed(folder: &Path) -> Result<Value> {
    let named = folder.join("named");
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR)?);
    file.write_all(b"content")?;
    let number = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, number, CWD, &named, AtFlags::SYMLINK_FOLLOW)?;
    let linked = fs::metadata(&named)?;
    fs::remove_file(&named)?;
    Ok(json!([linked.len(), linked.nlink(), linked.mode()]))
}

fn reach_limits() -> Result<Value> {
    const LOCKED: u64 = 64 << 10;
    let mut memory = vec![0; 2 * LOCKED as usize];
    // The memory begins at a page.
    let start = memory.as_ptr().align_offset(4096);
    setrlimit(Resource::Memlock, Rlimit { current: Some(LOCKED), maximum: Some(LOCKED) })?;
    let [most, one_more] = [0..LOCKED as usize, LOCKED as usize..LOCKED as usize + 1]
        .map(|part| lock(&mut memory[start + part.start..start + part.end]).map_err(|error| error.to_string()));
    let limit = getrlimit(Resource::Nofile).maximum.unwrap_or(1 << 16).min(1 << 12);
    setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum: Some(limit) })?;
    let mut opened = Vec::new();
    let refused = loop {
        match File::open("/dev/null") {
            Ok(file) => opened.push(file),
            Err(error) => break error.to_string(),
        }
    };
    Ok(json!({"locked": most, "one_more": one_more, "files": opened.len(), "refused": refused}))
}

fn signal_child() -> Result<Value> {
    let mut child = Command::new("/bin/busybox").args(["sleep", "60"]).stdin(Stdio::null()).spawn()?;
    let pid = Pid::from_child(&child);
    let mut seen = Vec::new();
    for (signal, change) in [(Signal::STOP, WaitIdOptions::STOPPED), (Signal::CONT, WaitIdOptions::CONTINUED)] {
        kill_process(pid, signal)?;
        let status = waitid(WaitId::Pid(pid), change)?.context("it has not changed")?;
        seen.push(json!([status.stopped(), status.continued(), status.stopping_signal()]));
    }
    child.kill()?;
    Ok(json!([seen, child.wait()?.to_string()]))
}

/// As `ps` does.
fn list_processes() -> Result<Value> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir("/proc")? {
        let process = entry?.path();
        if !process.join("stat").exists() || !process.join("task").exists() {
            continue;
        }
        let links = ["exe", "cwd", "root"].map(|link| fs::read_link(process.join(link)).map_err(|error| error.kind()));
        let name = fs::read_to_string(process.join("comm"))?;
        names.insert(format!("{} {links:?}", name.trim_end()));
    }
    ensure!(!names.is_empty(), "there are no processes");
    Ok(json!(names))
}

fn fail_to_execute(folder: &Path) -> Result<Value> {
    let run = |path: &Path| Command::new(path).stdin(Stdio::null()).output().map(|output| output.status.code());
    let mut outcomes = vec![format!("{:?}", run(&folder.join("missing")))];
    for (name, content, mode) in
        [("plain", "x", 0o644), ("garbage", "\x7fELF", 0o755), ("script", "#!/nowhere/interpreter\n", 0o755)]
    {
        let path = folder.join(name);
        fs::write(&path, content)?;
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
        outcomes.push(format!("{:?}", run(&path)));
        fs::remove_file(&path)?;
    }
    Ok(json!(outcomes))
}
