//! The kernel side as user space sees it: facts of the host, loading and attaching, reading records.
//!
//! [`Sensor::start`] is the whole of it. Kernel facts live in one place each: struct members in
//! `detector_common::offsets`, functions and tracepoints in [`plan`], everything about this machine in [`host`].

pub mod btf;
pub mod decode;
pub mod host;
pub mod offsets;
pub mod plan;
pub mod scan;

mod examiner;
mod maps;
mod probes;
mod reader;
mod selftest;
mod uninterrupted;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use aya::Ebpf;

use crate::{
    finding::{Container, Line},
    redact::Redactor,
};
use host::Host;
use plan::{Attach, Hook, Need};

pub use selftest::{ARGUMENT as SELFTEST_ARGUMENT, target as selftest_target};

/// What can be chosen at start.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// BPF object to load instead of the embedded one.
    pub bpf_object: Option<PathBuf>,
    /// Name of the node in findings; the host name if not given.
    pub node: Option<String>,
    /// What is kept secret of arguments.
    pub redactor: Redactor,
}

/// Why the sensor cannot start. Each says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Loading BPF programs needs privileges.
    #[error("missing privileges: {missing}; run as root, or grant them")]
    Privilege {
        /// The missing capabilities.
        missing: String,
    },
    /// A fact of this host could not be read.
    #[error(transparent)]
    Host(#[from] host::Error),
    /// The kernel has no type information, or none that can be read.
    #[error("the kernel's BTF: {0}; a kernel built with CONFIG_DEBUG_INFO_BTF=y is needed (5.10 or later)")]
    KernelBtf(String),
    /// The kernel's types are not as the probes need them.
    #[error(transparent)]
    Offsets(#[from] btf::Error),
    /// The given BPF object does not fit.
    #[error("BPF object {path}: {why}; leave --bpf-object out to use the embedded one", path = path.display())]
    Object {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The kernel refused a map or the object as a whole.
    #[error("loading the BPF object: {0}; `detector doctor` shows what this kernel allows")]
    Load(#[source] Box<aya::EbpfError>),
    /// An essential hook cannot be attached.
    #[error("hook {}: no way to attach it: {}; `detector doctor` shows what this kernel allows", .0.hook.name, .0.refusals())]
    Hook(Box<HookReport>),
    /// A map of the object could not be used.
    #[error("BPF map {name}: {why}")]
    Map {
        /// The map.
        name: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The system refused something that is not about the kernel's features.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// What became of one hook.
#[derive(Clone, Debug)]
pub struct HookReport {
    /// The hook.
    pub hook: &'static Hook,
    /// Whether and how it is attached.
    pub state: State,
    /// The ways that do not work here, with the reason.
    pub refused: Vec<(Attach, String)>,
    /// The self-test's result: seen, not seen. `None`: the self-test does not reach it, or could not run.
    pub verified: Option<bool>,
}

impl HookReport {
    /// The reasons why ways were refused, in one line.
    pub fn refusals(&self) -> String {
        let reasons: Vec<_> =
            self.refused.iter().map(|(attach, why)| format!("{} {}: {why}", attach.kind(), attach.target())).collect();
        reasons.join("; ")
    }
}

/// Whether and how a hook is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Attached.
    Attached {
        /// The program.
        program: &'static str,
        /// How.
        attach: Attach,
        /// On this kernel, calls can be missed while the program is preempted.
        blindable: bool,
    },
    /// Not attached.
    Missing,
    /// Not attached: this kernel does not have the function, and needs no hook for it.
    Absent,
}

/// What the sensor says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// This happened.
    Line(Line),
    /// This container begins, or runs already at the start.
    Began(Box<Container>),
}

/// What this host can see.
#[derive(Clone, Debug)]
pub struct Report {
    /// Facts of the host.
    pub host: Host,
    /// Each hook.
    pub hooks: Vec<HookReport>,
    /// How the self-test went: `Err` says why it could not run.
    pub selftest: Result<(), String>,
}

impl Report {
    /// Whether every hook is attached and, where the self-test could run, proven to fire.
    pub fn is_complete(&self) -> bool {
        self.hooks.iter().all(|hook| hook.state != State::Missing && hook.verified != Some(false))
    }

    /// Whether an essential hook is missing or does not fire.
    pub fn is_blind(&self) -> bool {
        self.hooks.iter().any(|report| {
            report.hook.need == Need::Essential && (report.state == State::Missing || report.verified == Some(false))
        })
    }
}

/// What the sensor has done so far.
#[derive(Debug, Default)]
pub struct Counters {
    /// Records read from the kernel.
    pub events: AtomicU64,
    /// Findings made of them.
    pub findings: AtomicU64,
    /// Everything that was reported as lost, of all kinds.
    pub lost: AtomicU64,
}

/// Attached probes and the thread that reads from them. Dropping it detaches.
pub struct Sensor {
    report: Report,
    counters: Arc<Counters>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
    // Programs and links live as long as this.
    _ebpf: Ebpf,
}

impl Sensor {
    /// Loads and attaches the probes, learns which containers run, proves that the hooks fire and starts the reader
    /// thread. Takes up to a second. From its return on nothing is missed; `sink` gets each message on the reader
    /// thread and must not block.
    ///
    /// # Errors
    ///
    /// See [`Error`]. A hook that is not essential and cannot be attached is no error: it is in the [report](Self::report).
    pub fn start(options: &Options, sink: impl FnMut(Message) + Send + 'static) -> Result<Self, Error> {
        let host = Host::read()?;
        if let Some(missing) = host.missing_capabilities() {
            return Err(Error::Privilege { missing });
        }
        // Before 5.11 (bpf_map_charge_init, kernel/bpf/syscall.c) maps count as locked memory. Where the limit cannot be
        // raised, the kernel's refusal says so.
        let unlimited = rustix::process::Rlimit { current: None, maximum: None };
        let _newer_kernels_do_without = rustix::process::setrlimit(rustix::process::Resource::Memlock, unlimited);
        let object = probes::object(options.bpf_object.as_deref())?;
        let kernel = btf::Btf::of_running_kernel().map_err(|e| Error::KernelBtf(e.to_string()))?;
        let mut ebpf = probes::load(&object, &kernel, &host)?;
        let maps = Arc::new(maps::Maps::take(&mut ebpf, host.preemption)?);
        let mut hooks = probes::attach(&mut ebpf, &host)?;
        let is_needed = |report: &&HookReport| report.hook.need == Need::Essential && report.state == State::Missing;
        if let Some(missing) = hooks.iter().find(is_needed) {
            return Err(Error::Hook(Box::new(missing.clone())));
        }
        #[cfg(feature = "probe-log")]
        let mut log = aya_log::EbpfLogger::init(&mut ebpf)
            .map_err(|e| Error::System { what: "reading the probes' log", source: std::io::Error::other(e) })?;

        let counters = Arc::new(Counters::default());
        let stop = Arc::new(AtomicBool::new(false));
        let canary = Arc::new(selftest::Canary::default());
        // Attached first, then scanned: a container that starts in between is seen by the probes, which win.
        let running = scan::containers(&host).map_err(|source| Error::System { what: "scanning /proc", source })?;
        maps.seed(&running)?;
        if running.unreadable > 0 {
            tracing::warn!(processes = running.unreadable, "could not be read in /proc: containers may be missed");
        }
        if running.in_host_cgroups > 0 {
            tracing::warn!(
                processes = running.in_host_cgroups,
                "have a root of their own but share a cgroup with processes of the host: they are not watched"
            );
        }
        let attached = probes::Attached::of(&ebpf, &hooks)
            .map_err(|source| Error::System { what: "keeping the programs' descriptors", source })?;
        let reader = reader::Reader::new(
            &mut ebpf,
            reader::Setup {
                maps: Arc::clone(&maps),
                host: host.clone(),
                node: options.node.clone().unwrap_or_else(|| host.node.clone()),
                redactor: options.redactor.clone(),
                counters: Arc::clone(&counters),
                stop: Arc::clone(&stop),
                canary: Arc::clone(&canary),
                running,
                attached,
                #[cfg(feature = "probe-log")]
                pass_on_log: Box::new(move || log.flush()),
            },
            sink,
        )?;
        let reader = std::thread::Builder::new()
            .name("reader".to_owned())
            .spawn(move || reader.run())
            .map_err(|source| Error::System { what: "starting the reader thread", source })?;
        let selftest = selftest::run(&host, &maps, &canary, &mut hooks);
        Ok(Self { report: Report { host, hooks, selftest }, counters, stop, reader: Some(reader), _ebpf: ebpf })
    }

    /// What is attached.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// What was done so far. The counters stay valid after the sensor has stopped.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Reads what is still in the ring buffer, then detaches.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Sensor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(reader) = self.reader.take()
            && reader.join().is_err()
        {
            tracing::error!("the reader thread panicked");
        }
    }
}

/// What this host can see: attaches each hook for a moment, without running the daemon.
///
/// # Errors
///
/// See [`Error`]; hooks that cannot be attached are no error here.
pub fn doctor(options: &Options) -> Result<Report, Error> {
    match Sensor::start(options, |_| {}) {
        Ok(sensor) => Ok(sensor.report().clone()),
        Err(Error::Hook(_)) => {
            let host = Host::read()?;
            let kernel = btf::Btf::of_running_kernel().map_err(|e| Error::KernelBtf(e.to_string()))?;
            let mut ebpf = probes::load(&probes::object(options.bpf_object.as_deref())?, &kernel, &host)?;
            let hooks = probes::attach(&mut ebpf, &host)?;
            Ok(Report { host, hooks, selftest: Err("an essential hook is missing".to_owned()) })
        }
        Err(error) => Err(error),
    }
}

/// Attaches nothing but an empty fentry program to `vfs_write`, until the value is dropped: the yardstick for
/// measuring what the write hook costs.
///
/// # Errors
///
/// See [`Error`].
pub fn baseline() -> Result<impl Sized, Error> {
    static BARE: Hook = Hook {
        name: "bare",
        purpose: "yardstick",
        need: Need::Essential,
        hot: true,
        programs: &[("bare_fentry", Attach::Fentry("vfs_write"))],
    };
    let host = Host::read()?;
    let kernel = btf::Btf::of_running_kernel().map_err(|e| Error::KernelBtf(e.to_string()))?;
    let mut ebpf = probes::load(&probes::object(None)?, &kernel, &host)?;
    let types = aya::Btf::from_sys_fs().map_err(|e| Error::KernelBtf(e.to_string()))?;
    let report = probes::attach_hook(&mut ebpf, &types, &BARE, &host, None);
    if report.state == State::Missing { Err(Error::Hook(Box::new(report))) } else { Ok(ebpf) }
}
