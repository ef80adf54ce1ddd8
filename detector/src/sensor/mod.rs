//! The kernel side as user space sees it: facts of the host, loading and attaching, events and what is lost of them.
//!
//! [`Sensor::start`] is the whole of it. Kernel facts live in one place each: struct members in
//! `detector_common::offsets`, functions and tracepoints in [`plan`], everything about this machine in [`host`].

pub mod btf;
pub mod decode;
pub(crate) mod hierarchy;
pub mod host;
pub mod offsets;
pub mod plan;
pub(crate) mod report;

mod bpf;
mod canary;
mod error;
mod events;
mod maps;
mod probes;
mod realtime;
mod scan;
mod selftest;

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use aya::Ebpf;
use events::Events;
use host::Host;
use maps::Maps;
use plan::Need;
use probes::Attached;
use report::{Attachment, HookReport, Report};

pub use error::Error;
pub use selftest::{ARGUMENT as SELFTEST_ARGUMENT, target as selftest_target};

pub(crate) use events::Decoded;
pub(crate) use maps::KernelLosses;
pub(crate) use scan::Running;

/// What can be chosen at start.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// BPF object to load instead of the embedded one.
    pub bpf_object: Option<PathBuf>,
}

/// Attached probes, and the events that they report. Dropping it detaches them.
pub struct Sensor {
    report: Report,
    events: Events,
    maps: Maps,
    running: Running,
    attached: Vec<Attached>,
    #[cfg(feature = "probe-log")]
    pass_on_log: Box<dyn FnMut() + Send>,
    // Programs and links live as long as this.
    _ebpf: Ebpf,
}

impl Sensor {
    /// Loads and attaches the probes, learns which containers run, and proves that the hooks fire. Takes up to a
    /// second. From its return on nothing is missed, as long as its events are read soon enough.
    ///
    /// # Errors
    ///
    /// See [`Error`]. A hook that is not essential and cannot be attached is no error: it is in the
    /// [report](Self::report).
    pub fn start(options: &Options) -> Result<Self, Error> {
        let host = privileged_host()?;
        // Before 5.11 (bpf_map_charge_init, kernel/bpf/syscall.c) maps count as locked memory. Where the limit cannot
        // be raised, the kernel's refusal says so.
        let unlimited = rustix::process::Rlimit { current: None, maximum: None };
        let _newer_kernels_do_without = rustix::process::setrlimit(rustix::process::Resource::Memlock, unlimited);
        let (mut ebpf, mut hooks) = load_and_attach(options, &host)?;
        let is_needed =
            |report: &&HookReport| report.hook.need == Need::Essential && report.attachment == Attachment::Missing;
        if let Some(missing) = hooks.iter().find(is_needed) {
            return Err(Error::Hook(Box::new(missing.clone())));
        }
        let mut maps = Maps::take(&mut ebpf, host.preemption)?;
        let mut events = Events::take(&mut ebpf)?;
        #[cfg(feature = "probe-log")]
        let mut log = aya_log::EbpfLogger::init(&mut ebpf)
            .map_err(|e| Error::System { what: "reading the probes' log", source: io::Error::other(e) })?;

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
        let attached = Attached::of(&ebpf, &hooks)
            .map_err(|source| Error::System { what: "keeping the programs' descriptors", source })?;
        let selftest = selftest::run(&host, &mut maps, &mut events, &attached, &mut hooks);
        Ok(Self {
            report: Report { host, hooks, selftest },
            events,
            maps,
            running,
            attached,
            #[cfg(feature = "probe-log")]
            pass_on_log: Box::new(move || log.flush()),
            _ebpf: ebpf,
        })
    }

    /// What is attached.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The next event, if there is one, or why a record cannot be read.
    pub(crate) fn next_event(&mut self) -> Option<Decoded> {
        self.events.next()
    }

    /// Whether there are events that do not make the descriptor readable.
    pub(crate) fn has_backlog(&self) -> bool {
        self.events.has_backlog()
    }

    /// The containers that were running when the probes were attached. The second time, there are none.
    pub(crate) fn take_running(&mut self) -> Running {
        std::mem::take(&mut self.running)
    }

    /// How much the probes could not report or keep since the start.
    pub(crate) fn losses(&mut self) -> Result<KernelLosses, Error> {
        self.maps.losses()
    }

    /// What the probes have kept for lack of room in the ring buffer since the last call: less is known of it.
    pub(crate) fn take_kept_events(&mut self) -> Result<Vec<Decoded>, Error> {
        let execs = self.maps.take_kept_execs()?;
        let changes = self.maps.take_unreported_changes()?;
        let execs = execs.iter().map(|(key, kept)| decode::kept_exec(key, kept));
        Ok(execs.chain(changes.iter().map(|(key, seen)| decode::kept_change(key, seen))).collect())
    }

    /// How many calls of each program the kernel has skipped since the start.
    pub(crate) fn skipped_calls(&self) -> io::Result<Vec<(&'static str, u64)>> {
        self.attached.iter().map(|attached| Ok((attached.program, attached.skipped_calls()?))).collect()
    }

    /// `s_dev` of the root of a container that runs. `None`: it is gone, or that is not known.
    pub(crate) fn root_dev(&mut self, container: u64) -> Option<u32> {
        self.maps.root_dev(container)
    }

    /// Lets the probes forget which files these containers have changed.
    pub(crate) fn forget_files(&mut self, containers: &HashSet<u64>) -> Result<(), Error> {
        self.maps.forget_files(containers)
    }

    /// Passes the probes' own messages on to the log.
    #[cfg(feature = "probe-log")]
    pub(crate) fn pass_on_log(&mut self) {
        (self.pass_on_log)();
    }
}

/// Readable when there are events in the ring buffer.
impl AsFd for Sensor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

/// Whether this process may load probes on this host.
///
/// # Errors
///
/// [`Error::Privilege`], or a fact of the host cannot be read.
pub fn check_privileges() -> Result<(), Error> {
    privileged_host().map(drop)
}

fn privileged_host() -> Result<Host, Error> {
    let host = Host::read()?;
    match host.missing_capabilities() {
        None => Ok(host),
        Some(missing) => Err(Error::Privilege { missing }),
    }
}

/// What this host can see: attaches each hook for a moment, without running the daemon.
///
/// # Errors
///
/// See [`Error`]; hooks that cannot be attached are no error here.
pub fn doctor(options: &Options) -> Result<Report, Error> {
    match Sensor::start(options) {
        Ok(sensor) => Ok(sensor.report),
        Err(Error::Hook(_)) => {
            let host = Host::read()?;
            let (_, hooks) = load_and_attach(options, &host)?;
            Ok(Report { host, hooks, selftest: Err("an essential hook is missing".to_owned()) })
        }
        Err(error) => Err(error),
    }
}

fn load_and_attach(options: &Options, host: &Host) -> Result<(Ebpf, Vec<HookReport>), Error> {
    let object = probes::object(options.bpf_object.as_deref())?;
    let kernel = btf::Btf::of_running_kernel().map_err(|e| Error::KernelBtf(e.to_string()))?;
    let mut ebpf = probes::load(&object, &kernel, host)?;
    drop(kernel);
    let hooks = probes::attach(&mut ebpf, host)?;
    Ok((ebpf, hooks))
}
