//! Runs the detector under test as users do: as a process with exit codes and lines of output.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::time::{ClockId, clock_gettime};
use rustix::process::Signal;
use serde_json::Value;

use crate::program::{Running, finish, wait_for};

/// The path of the program.
pub const DETECTOR: &str = "/usr/bin/detector";

/// How long the live view may take to show something.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `detector`, and waits until it ends.
pub fn detector(args: &[&str]) -> Result<Output> {
    finish(Command::new(DETECTOR).args(args))
}

/// The command `detector run`, with its findings in the file `lines` and its messages in the file `log`.
pub fn run_command(lines: &Path, log: &Path) -> Result<Command> {
    let mut run = Command::new(DETECTOR);
    run.args(["run", "--json"]).arg(lines).stdout(Stdio::null()).stderr(File::create(log)?);
    Ok(run)
}

/// A running `detector run`, which is killed when this is dropped.
pub struct Sensor {
    process: Running,
    log: PathBuf,
    lines: PathBuf,
    output: File,
    /// The beginning of a line that is not complete yet.
    rest: Vec<u8>,
}

/// Proportional set sizes, in KiB.
#[derive(Default)]
pub struct Memory {
    /// Of the program, in all processes.
    pub program: u64,
    /// Of the ring buffer.
    pub records: u64,
    /// Of the daemon's own memory.
    pub kept: u64,
    /// Of the memory of the process of the forwarders.
    pub forwarders: u64,
}

impl Sensor {
    /// Starts the daemon and waits until it is ready. Its output is in `folder`. Every act has a line of its own, so
    /// that tests can expect each.
    pub fn start(folder: &Path) -> Result<Self> {
        Self::start_with(folder, &["--every-act".as_ref()])
    }

    /// Like [`Self::start`], with these arguments only.
    pub fn start_with(folder: &Path, more: &[&OsStr]) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let (lines, log) = (folder.join("findings.jsonl"), folder.join("log"));
        let process = Running::start(run_command(&lines, &log)?.args(more))?;
        let output = open(&lines)?;
        let sensor = Self { process, log, lines, output, rest: Vec::new() };
        let status = detector(&["status", "--wait", "60s"])?;
        ensure!(
            status.status.success(),
            "detector status --wait: {}: {}\nlog of detector run:\n{}",
            status.status,
            String::from_utf8_lossy(&status.stderr),
            sensor.log(),
        );
        Ok(sensor)
    }

    /// The log of the daemon.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_else(|error| format!("no log: {error}"))
    }

    /// The file with its findings.
    pub fn lines(&self) -> &Path {
        &self.lines
    }

    /// Whether the daemon still runs.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.process.ended()?.is_none())
    }

    /// The lines written since the last call.
    pub fn take_lines(&mut self) -> Result<Vec<Value>> {
        if let Some(status) = self.process.ended()? {
            bail!("the sensor is gone: {status}");
        }
        self.output.read_to_end(&mut self.rest)?;
        let whole = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let new: Vec<u8> = self.rest.drain(..whole).collect();
        new.split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| {
                ensure!(!line.iter().any(u8::is_ascii_control), "a control character in {:?}", line.escape_ascii());
                serde_json::from_slice(line).with_context(|| format!("no JSON: {}", line.escape_ascii()))
            })
            .collect()
    }

    /// Moves the output away as logrotate does, and sends the daemon a signal to open it again.
    pub fn rotate(&mut self, signal: Signal) -> Result<()> {
        let mut older = self.lines.clone().into_os_string();
        older.push(".1");
        fs::rename(&self.lines, older)?;
        self.signal(signal)?;
        wait_for("the new output", Duration::from_secs(20), || Ok(self.lines.exists().then_some(())))?;
        self.output = open(&self.lines)?;
        Ok(())
    }

    /// The process id of the daemon.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The proportional set size of the daemon and its child, the process of the forwarders, in KiB.
    pub fn memory_by_use(&self) -> Result<Memory> {
        let mut memory = Memory::default();
        add_memory(self.id(), [&mut memory.program, &mut memory.records, &mut memory.kept])?;
        for thread in fs::read_dir(format!("/proc/{}/task", self.id()))? {
            for child in fs::read_to_string(thread?.path().join("children"))?.split_whitespace() {
                add_memory(child.parse()?, [&mut memory.program, &mut memory.records, &mut memory.forwarders])?;
            }
        }
        Ok(memory)
    }

    /// The kernel's memory for the maps and programs that the daemon holds, in bytes.
    pub fn kernel_memory(&self) -> Result<u64> {
        let mut sizes = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{}/fdinfo", self.id()))? {
            let text = fs::read_to_string(entry?.path())?;
            let value = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
                line.and_then(|value| value.trim().parse::<u64>().ok())
            };
            // A map or program can have several descriptors.
            if let Some(size) = value("memlock") {
                sizes.insert((value("map_id"), value("prog_id")), size);
            }
        }
        ensure!(!sizes.is_empty(), "the daemon holds no maps");
        Ok(sizes.values().sum())
    }

    /// The resident memory of the daemon, in KiB.
    pub fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let size = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .context("/proc shows no VmRSS for the daemon")?;
        Ok(size.trim().trim_end_matches(" kB").parse()?)
    }

    /// The CPU time of the daemon, in user and kernel mode.
    pub fn cpu_time(&self) -> Result<Duration> {
        let clock = ClockId::pid_cpu_clock_id(nix::unistd::Pid::from_raw(self.process.id().cast_signed()))?;
        Ok(clock_gettime(clock)?.into())
    }

    /// Stops or continues the daemon with a signal. While it is stopped, only its probes run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Asks the daemon to stop, and waits until it has ended.
    pub fn stop(self) -> Result<ExitStatus> {
        self.process.stop()
    }
}

/// A running `detector tail`, which is killed when this is dropped.
pub struct Tail {
    process: Running,
    shown: PathBuf,
}

impl Tail {
    /// Starts the live view in this form, and waits until it is connected. It writes to this file.
    pub fn start(shown: &Path, form: &str, more: &[&str]) -> Result<Self> {
        let mut command = Command::new(DETECTOR);
        let process = Running::start(command.args(["tail", "-o", form]).args(more).stdout(File::create(shown)?))?;
        let tail = Self { process, shown: shown.to_owned() };
        // It says first what it does not show, or that it hides nothing.
        wait_for("the first line of the live view", PATIENCE, || Ok((!tail.text()?.is_empty()).then_some(())))?;
        Ok(tail)
    }

    /// What it has shown.
    pub fn text(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.shown)?)
    }

    /// Waits until it has shown this text. Returns all that it has shown.
    pub fn wait_for(&self, wanted: &str) -> Result<String> {
        let shown = wait_for(&format!("{wanted:?} in the live view"), PATIENCE, || {
            let text = self.text()?;
            Ok((text.contains(wanted) && text.ends_with('\n')).then_some(text))
        });
        shown.with_context(|| self.text().unwrap_or_default())
    }

    /// Interrupts it as Ctrl-C does. Returns its exit code, and all that it has shown.
    pub fn interrupt(mut self) -> Result<(i32, String)> {
        self.process.signal(Signal::INT)?;
        let status = wait_for("the end of the live view", Duration::from_secs(20), || self.process.ended())?;
        Ok((status.code().context("the live view was killed")?, self.text()?))
    }
}

/// Adds the proportional set size of a process, in KiB: of its program, of the ring buffer, and of its own memory.
fn add_memory(process: u32, sizes: [&mut u64; 3]) -> Result<()> {
    let mut kind = 0;
    for line in fs::read_to_string(format!("/proc/{process}/smaps"))?.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("Pss:"), Some(size)) => *sizes[kind] += size.parse::<u64>()?,
            // The first line about a mapping begins with its addresses, and ends with what is mapped.
            (Some(first), Some(_)) if !first.ends_with(':') => {
                kind = match words.nth(3) {
                    Some(path) if path.starts_with("anon_inode:") => 1,
                    Some(path) if path.starts_with('/') => 0,
                    _ => 2,
                };
            }
            _ => {}
        }
    }
    Ok(())
}

/// Opens the output. It is the same file whether this or the daemon creates it.
fn open(lines: &Path) -> Result<File> {
    Ok(OpenOptions::new().read(true).append(true).create(true).open(lines)?)
}
