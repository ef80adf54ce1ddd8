//! Virtual machines: a real kernel in QEMU, on any machine.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::initramfs::Initramfs;
use crate::kernel::Kernel;
use crate::{build, project};

const QEMU: &str = "qemu-system-x86_64";

/// Where the guest's first serial port, its console, goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Console {
    /// To a file, given back when the machine is off.
    Log,
    /// To our standard output.
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
}

/// The guest's processors; its memory in MiB.
const CPUS: u32 = 2;
const MEMORY: u32 = 2048;

/// When to give up on a machine that nobody sits at. An emulated one needs a minute or two for all tests.
const TIMEOUT: Duration = Duration::from_secs(20 * 60);

impl Vm {
    /// A machine with this kernel: a series, or [`crate::kernel::LATEST`].
    pub fn new(kernel: &str) -> Self {
        Self {
            kernel: kernel.to_owned(),
            command_line: String::new(),
            guest: Vec::new(),
            console: Console::Log,
            icount: false,
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

    /// Boots, hands each line that the guest writes to its second serial port to `on_line` as it comes, and waits until
    /// the machine is off. Gives the console's log, if it was not shown. What is missing (kernel, binaries) is made first.
    ///
    /// # Errors
    ///
    /// Something is missing and cannot be made, QEMU cannot be run, or the machine does not power off in time. The error has the end of the log.
    pub fn run(&self, mut on_line: impl FnMut(&str)) -> Result<String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let kernel = Kernel::get(&self.kernel)?;
        let initramfs = initramfs(&kernel)?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = project::cache().join(format!("vm-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let (log, port) = (folder.join("console"), folder.join("port"));
        File::create(&log)?;
        File::create(&port)?;

        let mut machine = Running(self.command(&kernel, &initramfs, &log, &port).spawn().with_context(|| {
            format!("cannot run {QEMU}: is it installed? `cargo xtask setup` does")
        })?);
        let mut lines = BufReader::new(File::open(&port)?);
        let mut line = String::new();
        let started = Instant::now();
        let ended = loop {
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
            std::thread::sleep(Duration::from_millis(50));
        };
        let console = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        drop(machine);
        fs::remove_dir_all(&folder)?;
        match ended {
            Some(status) if status.success() => Ok(console),
            Some(status) => bail!("{QEMU} failed ({status}); the console's end:\n{}", tail(&console)),
            None => bail!(
                "Linux {} did not power off in {} s; the console's end:\n{}",
                kernel.series,
                TIMEOUT.as_secs(),
                tail(&console)
            ),
        }
    }

    fn command(&self, kernel: &Kernel, initramfs: &Path, log: &Path, port: &Path) -> Command {
        let mut qemu = Command::new(QEMU);
        qemu.args(["-display", "none", "-nic", "none", "-no-reboot", "-cpu", "max"])
            .args(["-m", &MEMORY.to_string()])
            .arg("-kernel")
            .arg(kernel.image())
            .arg("-initrd")
            .arg(initramfs);
        if self.icount {
            qemu.args(["-accel", "tcg", "-icount", "shift=0,sleep=off", "-smp", "1"]);
        } else {
            qemu.args(["-accel", accelerator(), "-smp", &CPUS.to_string()]);
        }
        match self.console {
            Console::Log => qemu.args(["-monitor", "none", "-serial", &format!("file:{}", log.display())]),
            Console::Show => qemu.args(["-monitor", "none", "-serial", "stdio"]),
            Console::Interactive => qemu.args(["-serial", "mon:stdio"]),
        };
        if self.console != Console::Interactive {
            qemu.stdin(Stdio::null());
        }
        qemu.args(["-serial", &format!("file:{}", port.display())]);
        // The kernel hands everything behind `--` to init.
        let append = format!("console=ttyS0 quiet panic=-1 {} -- {}", self.command_line, self.guest.join(" "));
        qemu.args(["-append", &append]);
        qemu
    }
}

/// The first file system for a kernel, with what was built last.
fn initramfs(kernel: &Kernel) -> Result<PathBuf> {
    // Machines may boot at the same time; the binaries are the same for all of them.
    static DIST: Mutex<Option<build::Dist>> = Mutex::new(None);
    let mut dist = DIST.lock().unwrap_or_else(PoisonError::into_inner);
    let dist = match &mut *dist {
        Some(dist) => dist,
        none => none.insert(build::dist()?),
    };
    Initramfs::of_guest(kernel, dist)?.write(&kernel.series)
}

/// A machine that is ended when it is no longer wanted.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail if it has ended by itself.
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// KVM where it works, else emulation by one thread: with several, text patching, which attaching BPF programs sets off,
/// now and then lets a processor run into a half-patched instruction.
fn accelerator() -> &'static str {
    static FOUND: OnceLock<&str> = OnceLock::new();
    FOUND.get_or_init(|| if kvm_works() { "kvm" } else { "tcg,thread=single" })
}

/// A device file is no proof: in many sandboxes KVM is there and fails at the first instruction.
fn kvm_works() -> bool {
    if File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return false;
    }
    let Ok(child) = Command::new(QEMU)
        .args(["-accel", "kvm", "-cpu", "max", "-display", "none", "-nic", "none", "-monitor", "none"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
    else {
        return false;
    };
    let mut machine = Running(child);
    std::thread::sleep(Duration::from_secs(1));
    matches!(machine.0.try_wait(), Ok(None))
}

/// The last lines of a log.
fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
