//! Runs real kernels in virtual machines, with QEMU on any machine.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Signal, set_parent_process_death_signal};
use tempfile::tempfile_in;

use crate::initramfs::Initramfs;
use crate::kernel::Kernel;
use crate::runtimes::{self, Disk};
use crate::{build, package, project};

const QEMU: &str = "qemu-system-x86_64";

/// The number of processors of the guest, and its memory in MiB: that of one with many servers is larger.
const CPUS: u32 = 2;
const MEMORY: u32 = 2048;
const MEMORY_WITH_SERVERS: u32 = 6144;

/// The time limit of a machine that nobody uses interactively. With emulation on an idle host, the tests with container
/// engines take a quarter of an hour.
const TIMEOUT: Duration = Duration::from_secs(40 * 60);
/// The same of the machine with many servers, on which they are observed for more than an hour.
const TIMEOUT_WITH_SERVERS: Duration = Duration::from_secs(150 * 60);
/// How often a machine is checked for new output or its end.
const POLL: Duration = Duration::from_millis(50);
/// How long a kernel without a root file system may take to panic with KVM. It takes about a second.
const KVM_TIMEOUT: Duration = Duration::from_secs(10);

/// Console messages of a kernel that is broken, even if it continues to run.
const BROKEN: &[&str] = &["Kernel panic - not syncing", "Oops:", "BUG: ", "kernel BUG at"];

/// The kernel's maximum number of bytes in its command line, and of arguments of init (`MAX_INIT_ARGS`).
const MAX_COMMAND_LINE: usize = 2047;
const MAX_ARGUMENTS: usize = 32;

/// Where the guest's console, its first serial port, is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Console {
    /// A file whose content is returned when the machine is off.
    Log,
    /// A file and the standard output.
    Show,
    /// The terminal, for input and output. Ctrl-A X ends the machine.
    Interactive,
}

/// A virtual machine to boot.
#[derive(Clone, Debug)]
pub struct Vm {
    kernel: String,
    command_line: String,
    guest: Vec<String>,
    console: Console,
    icount: bool,
    disk: Option<Disk>,
}

impl Vm {
    /// Makes a machine with this kernel: a series, or [`crate::kernel::LATEST`].
    pub fn new(kernel: &str) -> Self {
        Self {
            kernel: kernel.to_owned(),
            command_line: String::new(),
            guest: Vec::new(),
            console: Console::Log,
            icount: false,
            disk: None,
        }
    }

    /// Appends to the kernel's command line.
    #[must_use]
    pub fn command_line(mut self, append: &str) -> Self {
        append.clone_into(&mut self.command_line);
        self
    }

    /// Sets the arguments of the guest's `/init`, which tell it what to do.
    #[must_use]
    pub fn guest(mut self, args: &[impl AsRef<str>]) -> Self {
        self.guest = args.iter().map(|arg| arg.as_ref().to_owned()).collect();
        self
    }

    /// Shows the guest's console instead of logging it. `interactive` connects the keyboard too.
    #[must_use]
    pub fn console(mut self, interactive: bool) -> Self {
        self.console = if interactive { Console::Interactive } else { Console::Show };
        self
    }

    /// Counts instructions: each takes one nanosecond of the guest's time, so the guest's clock depends on nothing
    /// else. The machine then has one processor.
    #[must_use]
    pub fn icount(mut self) -> Self {
        self.icount = true;
        self
    }

    /// Attaches a [disk](runtimes).
    #[must_use]
    pub fn disk(mut self, disk: Option<Disk>) -> Self {
        self.disk = disk;
        self
    }

    /// Fetches the kernel and builds the binaries at the same time, as far as they are missing.
    ///
    /// # Errors
    ///
    /// The kernel cannot be fetched, or the code does not build.
    pub fn prepare(&self) -> Result<()> {
        thread::scope(|scope| {
            let fetching = scope.spawn(|| Kernel::get(&self.kernel));
            let built = built();
            fetching.join().expect("fetching does not panic")?;
            built.map(drop)
        })
    }

    /// Prepares and boots the machine, and waits until it is off. Calls `on_line` with each line from the guest's
    /// second serial port as it arrives. Returns the log of the console.
    ///
    /// # Errors
    ///
    /// The preparation fails, QEMU cannot be run, the kernel breaks, or the machine does not power off in time. The
    /// error contains the end of the log unless the log was shown.
    pub fn run(&self, mut on_line: impl FnMut(&str)) -> Result<String> {
        let command_line = self.whole_command_line()?;
        let kernel = Kernel::get(&self.kernel)?;
        let initramfs = self.initramfs(&kernel)?;
        let cache = project::cache()?;
        let (mut log, port) = (tempfile_in(&cache)?, tempfile_in(&cache)?);

        let mut qemu = self.qemu(&kernel, &path_of(&log), &path_of(&port));
        qemu.args(["-initrd", &path_of(&initramfs), "-append", &command_line]);
        if let Some(disk) = self.disk {
            let disk = runtimes::disk(disk)?;
            qemu.arg("-drive").arg(format!("file={},if=virtio,format=raw,readonly=on", disk.display()));
        }
        let mut machine = Running::start(&mut qemu)?;
        let mut lines = BufReader::new(port);
        let mut line = String::new();
        let started = Instant::now();
        let ended = loop {
            // This is checked before the last lines are read, so that none is missed.
            let ended = machine.0.try_wait()?;
            // A line can arrive in parts.
            while lines.read_line(&mut line)? > 0 {
                if line.ends_with('\n') {
                    on_line(line.trim_end());
                    line.clear();
                }
            }
            if ended.is_some() || (started.elapsed() > self.timeout() && self.console != Console::Interactive) {
                break ended;
            }
            sleep(POLL);
        };
        let mut console = Vec::new();
        log.read_to_end(&mut console)?;
        let console = String::from_utf8_lossy(&console).into_owned();
        let failure = match ended {
            Some(status) if !status.success() => format!("{QEMU} failed ({status})"),
            Some(_) if is_broken(&console) => format!("Linux {} broke", kernel.series),
            Some(_) => return Ok(console),
            None => format!("Linux {} did not power off in {} s", kernel.series, self.timeout().as_secs()),
        };
        match self.console {
            Console::Log => bail!("{failure}; the end of the console:\n{}", tail(&console)),
            Console::Show | Console::Interactive => bail!("{failure}; see above"),
        }
    }

    fn timeout(&self) -> Duration {
        if self.has_servers() { TIMEOUT_WITH_SERVERS } else { TIMEOUT }
    }

    /// Whether many servers run there.
    fn has_servers(&self) -> bool {
        matches!(self.disk, Some(Disk::Software | Disk::Kubernetes))
    }

    /// The initramfs, with the last built binaries. A Debian gets a package of the detector to install, and a machine
    /// with container engines its image.
    fn initramfs(&self, kernel: &Kernel) -> Result<File> {
        let built = built()?;
        let mut initramfs = Initramfs::of_guest(kernel, &built)?;
        match self.disk {
            Some(Disk::System) => initramfs.package(&package::make(&built)?)?,
            Some(Disk::Engines | Disk::Kubernetes) => initramfs.package(&package::image(&built)?)?,
            Some(Disk::Software) | None => {}
        }
        initramfs.write()
    }

    /// The kernel passes all arguments after `--` to init.
    fn whole_command_line(&self) -> Result<String> {
        let mut line = format!("console=ttyS0 quiet panic=-1 {}", self.command_line);
        // If the kernel has AppArmor, engines give containers a profile, but the program that loads profiles is not on
        // the disk.
        line += if self.disk.is_some() { " apparmor=0 --" } else { " --" };
        for argument in &self.guest {
            ensure!(!argument.contains('"'), "a kernel's command line cannot have quotes in it: {argument}");
            let quote = if argument.is_empty() || argument.contains(char::is_whitespace) { "\"" } else { "" };
            line += &format!(" {quote}{argument}{quote}");
        }
        ensure!(
            line.len() <= MAX_COMMAND_LINE && self.guest.len() < MAX_ARGUMENTS,
            "the kernel takes {MAX_COMMAND_LINE} bytes with {MAX_ARGUMENTS} arguments at most; this is too long: {line}"
        );
        Ok(line)
    }

    fn qemu(&self, kernel: &Kernel, log: &str, port: &str) -> Command {
        let mut qemu = qemu(kernel);
        let memory = if self.has_servers() { MEMORY_WITH_SERVERS } else { MEMORY };
        qemu.args(["-m", &memory.to_string()]);
        if self.icount {
            qemu.args(["-accel", "tcg", "-icount", "shift=0,sleep=off", "-smp", "1"]);
        } else {
            qemu.args(["-accel", accelerator(kernel), "-smp", &CPUS.to_string()]);
        }
        match self.console {
            Console::Log => qemu.args(["-serial", &format!("file:{log}")]),
            Console::Show => {
                let console = format!("stdio,id=console,logfile={log}");
                qemu.args(["-chardev", &console, "-serial", "chardev:console"])
            }
            Console::Interactive => qemu.args(["-serial", "mon:stdio"]).stdin(Stdio::inherit()),
        };
        qemu.args(["-serial", &format!("file:{port}")]);
        qemu
    }
}

/// QEMU with the options of all machines. A panic reboots (`panic=-1`), and a reboot ends QEMU.
fn qemu(kernel: &Kernel) -> Command {
    let mut qemu = Command::new(QEMU);
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-cpu", "max", "-kernel"]);
    qemu.arg(kernel.image()).stdin(Stdio::null());
    qemu
}

/// A path to an unnamed file of this process. Nothing is left of the file when the process ends.
fn path_of(file: &File) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd())
}

/// Builds the binaries at most once. Machines may boot at the same time, and all of them use the same binaries.
fn built() -> Result<build::Dist> {
    static DIST: Mutex<Option<build::Dist>> = Mutex::new(None);
    let mut dist = DIST.lock().unwrap_or_else(PoisonError::into_inner);
    match &*dist {
        Some(dist) => Ok(dist.clone()),
        None => Ok(dist.insert(build::dist()?).clone()),
    }
}

/// A machine that is stopped when it is dropped.
struct Running(Child);

impl Running {
    #[expect(unsafe_code, reason = "a signal for the death of the parent is asked for between fork and exec")]
    fn start(qemu: &mut Command) -> Result<Self> {
        // SAFETY: between fork and exec, the closure only makes a system call. It allocates nothing and takes no lock.
        unsafe {
            // Otherwise the machine would continue to run if its parent was killed.
            qemu.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?));
        }
        let child = qemu.spawn().with_context(|| format!("cannot run {QEMU}: `cargo xtask setup` installs it"))?;
        Ok(Self(child))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both calls fail if QEMU has already ended.
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// Uses KVM if it works, and otherwise emulation with one thread. With several threads, a processor sometimes executes
/// an instruction that is half patched, and attaching BPF programs patches instructions.
fn accelerator(kernel: &Kernel) -> &'static str {
    static FOUND: OnceLock<&str> = OnceLock::new();
    FOUND.get_or_init(|| if kvm_works(kernel) { "kvm" } else { "tcg,thread=single" })
}

/// Checks whether KVM works by booting a kernel that finds no root file system and panics. The existence of /dev/kvm is
/// no proof: in many sandboxes it exists, but fails later.
fn kvm_works(kernel: &Kernel) -> bool {
    if File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return false;
    }
    let mut qemu = qemu(kernel);
    qemu.args(["-accel", "kvm", "-append", "quiet panic=-1"]).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut machine) = Running::start(&mut qemu) else { return false };
    let started = Instant::now();
    while started.elapsed() < KVM_TIMEOUT {
        match machine.0.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) => sleep(POLL),
            Err(_) => return false,
        }
    }
    false
}

fn is_broken(console: &str) -> bool {
    console.lines().any(|line| BROKEN.iter().any(|sign| line.contains(sign)))
}

/// The last lines of a log.
fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_reach_init_as_they_are_or_not_at_all() {
        let line = |args: &[&str]| Vm::new("6.12").command_line("lsm=bpf").guest(args).whole_command_line();
        assert_eq!(
            line(&["exec", "sh", "-c", "echo a", ""]).expect("it is short"),
            "console=ttyS0 quiet panic=-1 lsm=bpf -- exec sh -c \"echo a\" \"\""
        );
        assert!(line(&["a\"b"]).is_err());
        assert!(line(&["x"; MAX_ARGUMENTS]).is_err());
        assert!(line(&["x".repeat(MAX_COMMAND_LINE).as_str()]).is_err());
    }

    #[test]
    fn a_kernel_that_broke_is_seen() {
        assert!(is_broken("fine\n[    3.2] Oops: int3: 0000 [#1] SMP\n"));
        assert!(is_broken("[    1.0] Kernel panic - not syncing: Attempted to kill init!"));
        assert!(!is_broken("reboot: Power down"));
    }
}
