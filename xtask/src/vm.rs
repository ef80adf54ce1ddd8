//! Virtual machines: a real kernel in QEMU, on any machine.

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
use crate::{build, project, runtimes};

const QEMU: &str = "qemu-system-x86_64";

/// The guest's processors; its memory in MiB.
const CPUS: u32 = 2;
const MEMORY: u32 = 2048;

/// When to give up on a machine that nobody sits at. An emulated one with container engines needs a quarter of an hour
/// for all of its tests when its host does nothing else.
const TIMEOUT: Duration = Duration::from_secs(40 * 60);
/// How often to look whether a machine has written something or ended.
const POLL: Duration = Duration::from_millis(50);
/// How long a kernel without a root file system may take to find out, with KVM: it takes a second.
const KVM_TIMEOUT: Duration = Duration::from_secs(10);

/// What a kernel says on its console when it is broken, even if it lives on.
const BROKEN: &[&str] = &["Kernel panic - not syncing", "Oops:", "BUG: ", "kernel BUG at"];

/// The kernel's limits: of its command line, and of the arguments of init (`MAX_INIT_ARGS`).
const MAX_COMMAND_LINE: usize = 2047;
const MAX_ARGUMENTS: usize = 32;

/// Where the guest's first serial port, its console, goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Console {
    /// To a file, given back when the machine is off.
    Log,
    /// To a file and to our standard output.
    Show,
    /// To our terminal, both ways. Ctrl-A X ends the machine.
    Interactive,
}

/// A machine to boot.
#[derive(Clone, Debug)]
pub struct Vm {
    kernel: String,
    command_line: String,
    guest: Vec<String>,
    console: Console,
    icount: bool,
    has_runtimes: bool,
}

impl Vm {
    /// A machine with this kernel: a series, or [`crate::kernel::LATEST`].
    pub fn new(kernel: &str) -> Self {
        Self {
            kernel: kernel.to_owned(),
            command_line: String::new(),
            guest: Vec::new(),
            console: Console::Log,
            icount: false,
            has_runtimes: false,
        }
    }

    /// Adds to the kernel's command line.
    #[must_use]
    pub fn command_line(mut self, append: &str) -> Self {
        append.clone_into(&mut self.command_line);
        self
    }

    /// What the guest is to do: arguments of its `/init`.
    #[must_use]
    pub fn guest(mut self, args: &[impl AsRef<str>]) -> Self {
        self.guest = args.iter().map(|arg| arg.as_ref().to_owned()).collect();
        self
    }

    /// Shows the guest's console instead of logging it. `interactive`: with our keyboard.
    #[must_use]
    pub fn console(mut self, interactive: bool) -> Self {
        self.console = if interactive { Console::Interactive } else { Console::Show };
        self
    }

    /// Counts instructions: each takes the guest one nanosecond, so that its clock is a counter that depends on nothing
    /// else. One processor.
    #[must_use]
    pub fn icount(mut self) -> Self {
        self.icount = true;
        self
    }

    /// Attaches the [disk with the container runtimes](runtimes).
    #[must_use]
    pub fn runtimes(mut self) -> Self {
        self.has_runtimes = true;
        self
    }

    /// Makes what is missing: fetches the kernel, and meanwhile builds the binaries.
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

    /// Boots, hands each line that the guest writes to its second serial port to `on_line` as it comes, and waits until
    /// the machine is off. Gives the console's log. What is missing (kernel, binaries) is made first.
    ///
    /// # Errors
    ///
    /// Something is missing and cannot be made, QEMU cannot be run, the kernel breaks, or the machine does not power
    /// off in time. The error has the end of the log, if it was not shown.
    pub fn run(&self, mut on_line: impl FnMut(&str)) -> Result<String> {
        let command_line = self.whole_command_line()?;
        let kernel = Kernel::get(&self.kernel)?;
        let initramfs = initramfs(&kernel)?;
        let cache = project::cache()?;
        let (mut log, port) = (tempfile_in(&cache)?, tempfile_in(&cache)?);

        let mut qemu = self.qemu(&kernel, &path_of(&log), &path_of(&port));
        qemu.args(["-initrd", &path_of(&initramfs), "-append", &command_line]);
        if self.has_runtimes {
            let disk = runtimes::disk()?;
            qemu.arg("-drive").arg(format!("file={},if=virtio,format=raw,readonly=on", disk.display()));
        }
        let mut machine = Running::start(&mut qemu)?;
        let mut lines = BufReader::new(port);
        let mut line = String::new();
        let started = Instant::now();
        let ended = loop {
            // Before the last look for lines, so that none is missed.
            let ended = machine.0.try_wait()?;
            // A line may come in parts.
            while lines.read_line(&mut line)? > 0 {
                if line.ends_with('\n') {
                    on_line(line.trim_end());
                    line.clear();
                }
            }
            if ended.is_some() || (started.elapsed() > TIMEOUT && self.console != Console::Interactive) {
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
            None => format!("Linux {} did not power off in {} s", kernel.series, TIMEOUT.as_secs()),
        };
        match self.console {
            Console::Log => bail!("{failure}; the end of the console:\n{}", tail(&console)),
            Console::Show | Console::Interactive => bail!("{failure}; see above"),
        }
    }

    /// The kernel hands everything behind `--` to init.
    fn whole_command_line(&self) -> Result<String> {
        let mut line = format!("console=ttyS0 quiet panic=-1 {}", self.command_line);
        // Engines give containers a profile for it when the kernel has it; what loads profiles is not on the disk.
        line += if self.has_runtimes { " apparmor=0 --" } else { " --" };
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
        qemu.args(["-m", &MEMORY.to_string()]);
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

/// QEMU with what every machine has. A panic is a reboot (`panic=-1`), and a reboot is the end.
fn qemu(kernel: &Kernel) -> Command {
    let mut qemu = Command::new(QEMU);
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-cpu", "max", "-kernel"]);
    qemu.arg(kernel.image()).stdin(Stdio::null());
    qemu
}

/// A path to a file of ours that has no name, so that nothing is left of it however we end.
fn path_of(file: &File) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd())
}

/// The first file system for a kernel, with what was built last.
fn initramfs(kernel: &Kernel) -> Result<File> {
    Initramfs::of_guest(kernel, &built()?)?.write()
}

/// The binaries, built at most once: machines may boot at the same time, and the binaries are the same for all of them.
fn built() -> Result<build::Dist> {
    static DIST: Mutex<Option<build::Dist>> = Mutex::new(None);
    let mut dist = DIST.lock().unwrap_or_else(PoisonError::into_inner);
    match &*dist {
        Some(dist) => Ok(dist.clone()),
        None => Ok(dist.insert(build::dist()?).clone()),
    }
}

/// A machine that is ended when it is no longer wanted.
struct Running(Child);

impl Running {
    #[expect(unsafe_code, reason = "a signal for the death of the parent is asked for between fork and exec")]
    fn start(qemu: &mut Command) -> Result<Self> {
        // SAFETY: between fork and exec only a system call is made; nothing is allocated and no lock is taken.
        unsafe {
            // Nobody else would end a machine whose keeper was killed.
            qemu.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?));
        }
        let child = qemu.spawn().with_context(|| format!("cannot run {QEMU}: `cargo xtask setup` installs it"))?;
        Ok(Self(child))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail if it has ended by itself.
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// KVM where it works, else emulation by one thread: with several, text patching, which attaching BPF programs sets
/// off, now and then lets a processor run into a half-patched instruction.
fn accelerator(kernel: &Kernel) -> &'static str {
    static FOUND: OnceLock<&str> = OnceLock::new();
    FOUND.get_or_init(|| if kvm_works(kernel) { "kvm" } else { "tcg,thread=single" })
}

/// Lets a kernel boot, find no root file system and panic. The device file is no proof: in many sandboxes it is there,
/// and fails at a register or at an instruction.
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
