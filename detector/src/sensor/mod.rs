//! The user-space side of the sensor. It reads the facts about the host, loads and attaches the probes, and receives
//! the events and the numbers of lost ones.
//!
//! [`Sensor::start`] is the entry point. Each fact about the kernel is stated in one place: struct members in
//! `detector_common::offsets`, functions and tracepoints in [`plan`], and everything about this machine in [`host`].

pub mod btf;
pub mod decode;
pub(crate) mod hierarchy;
pub mod host;
pub mod offsets;
pub mod plan;
pub(crate) mod report;

mod account;
mod bpf;
mod canary;
mod error;
mod events;
mod maps;
mod probes;
mod realtime;
mod records;
mod scan;
mod selftest;

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use aya::Ebpf;
use detector_common::map::{Count, CountedKey};

use crate::event::ServingSign;
use events::Events;
use host::Host;
use maps::Maps;
use plan::Need;
use probes::{Attached, Links};
use report::{Attachment, HookReport, Report};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub use error::Error;
pub use records::EventBuffer;
pub use selftest::{ARGUMENT as SELFTEST_ARGUMENT, target as selftest_target};

pub(crate) use events::Decoded;
pub(crate) use maps::KernelLosses;
pub(crate) use scan::{Running, RunningContainer};

/// The options for starting the sensor.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The BPF object to load instead of the embedded one.
    pub bpf_object: Option<PathBuf>,
}

/// The attached probes, and the events that they report. Dropping the sensor detaches the probes.
pub struct Sensor {
    report: Report,
    events: Events,
    maps: Maps,
    running: Running,
    attached: Vec<Attached>,
    /// Whether the last self-test could not run, or had a worse result than the one before.
    has_failed_to_test: bool,
    #[cfg(feature = "probe-log")]
    pass_on_log: Box<dyn FnMut() + Send>,
    links: Links,
    // The programs live as long as this value.
    ebpf: Ebpf,
}

impl Sensor {
    /// Loads and attaches the probes, finds the running containers, and verifies that the hooks fire. This takes up to
    /// a second. After it has returned, no event is missed as long as the events are read soon enough.
    ///
    /// # Errors
    ///
    /// See [`Error`]. It is not an error if a hook cannot be attached that is not essential; the [report](Self::report)
    /// says so.
    pub fn start(options: &Options) -> Result<Self, Error> {
        let host = privileged_host()?;
        let hierarchy = host.hierarchy.as_ref().ok_or(Error::NoCgroups)?;
        // `LOCKDOWN_BPF_READ_KERNEL` (bpf_probe_read_kernel_proto, kernel/trace/bpf_trace.c).
        if host.lockdown.as_deref() == Some("confidentiality") {
            return Err(Error::Lockdown);
        }
        raise_file_limit()?;
        // Before 5.11 (bpf_map_charge_init, kernel/bpf/syscall.c), the memory of maps counts as locked memory, and the
        // kernel refuses a map if the limit is too low. Newer kernels do not need this.
        let is_limited = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None }).is_err();
        let (mut ebpf, hooks, links) = load_and_attach(options, &host).map_err(|error| match error {
            Error::Load(cause) if is_limited && error::is_denied(&*cause) => Error::Privilege {
                missing: format!(
                    "CAP_SYS_RESOURCE, without which this kernel refuses the maps ({cause}; it may be enough to set \
                    the limit of locked memory to unlimited)"
                ),
            },
            error => error,
        })?;
        if let Some(missing) = missing_admin(&host, &hooks) {
            return Err(Error::Privilege { missing });
        }
        let is_needed =
            |report: &&HookReport| report.hook.need == Need::Essential && report.attachment == Attachment::Missing;
        if let Some(missing) = hooks.iter().find(is_needed) {
            return Err(Error::Hook(Box::new(missing.clone())));
        }
        let mut own_maps =
            probes::own_maps(&ebpf).map_err(|source| Error::System { what: "asking for the ids of maps", source })?;
        let mut maps = Maps::take(&mut ebpf, host.preemption)?;
        maps.guard(own_maps.iter().map(|map| map.id))?;
        probes::freeze(&mut own_maps);
        let mut events = Events::take(&mut ebpf)?;
        #[cfg(feature = "probe-log")]
        let mut log = aya_log::EbpfLogger::init(&mut ebpf)
            .map_err(|e| Error::System { what: "reading the probes' log", source: io::Error::other(e) })?;

        // The probes are attached before the scan, so they see a container that starts in between. Its root and its
        // mount namespace stay as they have recorded them.
        let running =
            scan::containers(&host, hierarchy).map_err(|source| Error::System { what: "scanning /proc", source })?;
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
        let mut report = Report { host, hooks, selftest: Ok(()), unwatching: Ok(()) };
        test(&mut report, &mut maps, &mut events, &attached);
        let has_failed_to_test = report.selftest.is_err();
        Ok(Self {
            report,
            events,
            maps,
            running,
            attached,
            has_failed_to_test,
            #[cfg(feature = "probe-log")]
            pass_on_log: Box::new(move || log.flush()),
            links,
            ebpf,
        })
    }

    /// The report on the host, the hooks and the self-test.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Repeats the self-test, and updates the report. Hooks that do not fire are attached again. Events of others that
    /// arrive in the meantime are returned later.
    pub(crate) fn test_again(&mut self) -> Retest {
        let mut tested = self.report.clone();
        self.test(&mut tested);
        let healed = self.heal(&mut tested);
        let failure = match &tested.selftest {
            Err(why) => Some(why.clone()),
            Ok(()) => newly_silent(&self.report, &tested),
        };
        let is_confirmed = std::mem::replace(&mut self.has_failed_to_test, failure.is_some());
        if let Some(why) = failure
            && !is_confirmed
        {
            return Retest { healed, result: Err(why) };
        }
        let is_changed = self.report.undetected() != tested.undetected()
            || self.report.hooks.iter().zip(&tested.hooks).any(|(before, now)| before.verified != now.verified);
        self.report = tested;
        Retest { healed, result: Ok(is_changed) }
    }

    fn test(&mut self, report: &mut Report) {
        test(report, &mut self.maps, &mut self.events, &self.attached);
    }

    /// Attaches the hooks again that two tests in a row did not see fire. Returns those that fire then. The others are
    /// tried again after the next test: a kprobe that is attached while all of them are switched off stays off when
    /// they are switched on (`enable_kprobe`, kernel/kprobes.c, 6.12).
    fn heal(&mut self, tested: &mut Report) -> Vec<&'static str> {
        if silent(tested).is_empty() {
            return Vec::new();
        }
        self.test(tested);
        let before = silent(tested);
        if before.is_empty() {
            return Vec::new();
        }
        let hooks: Vec<_> = tested.hooks.iter().filter(|report| before.contains(&report.hook.name)).collect();
        probes::attach_again(&mut self.ebpf, &mut self.links, &hooks);
        // A program can have been loaded again.
        match Attached::of(&self.ebpf, &tested.hooks) {
            Ok(attached) => self.attached = attached,
            Err(error) => tracing::warn!(%error, "cannot keep the descriptors of programs that are attached again"),
        }
        self.test(tested);
        let after = silent(tested);
        before.into_iter().filter(|hook| !after.contains(hook)).collect()
    }

    /// Fills the maps again after another process has changed them. The findings about what the containers did before
    /// may come once more. The probes must be [told](Self::set_unwatched) again which containers are not watched.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub(crate) fn refill(&mut self) -> Result<(), Error> {
        let host = &self.report.host;
        let hierarchy = host.hierarchy.as_ref().ok_or(Error::NoCgroups)?;
        let running =
            scan::containers(host, hierarchy).map_err(|source| Error::System { what: "scanning /proc", source })?;
        self.maps.refill(&running)
    }

    /// Tells the probes which containers are not watched, so that they do not send everything about these. If they
    /// cannot be told that one is watched, the report says so, and the next call tries again. Returns whether the
    /// report has changed.
    pub(crate) fn set_unwatched(&mut self, containers: &BTreeSet<u64>) -> bool {
        let told = self.maps.set_unwatched(containers).map_err(|error| error.to_string());
        std::mem::replace(&mut self.report.unwatching, told) != self.report.unwatching
    }

    /// Whether the probes know that a container is not watched.
    pub(crate) fn is_unwatched(&self, container: u64) -> bool {
        self.maps.is_unwatched(container)
    }

    /// Tells the probes which files they count and do not report. What they cannot be told is tried again with the next
    /// call.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub(crate) fn set_counted(&mut self, wanted: &BTreeSet<CountedKey>) -> Result<(), Error> {
        self.maps.set_counted(wanted)
    }

    /// Whether the probes count, or have counted what was not [taken](Self::take_counts) yet.
    pub(crate) fn is_counting(&self) -> bool {
        self.maps.is_counting()
    }

    /// Takes what the probes have counted since the last call.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub(crate) fn take_counts(&mut self) -> Result<Vec<(CountedKey, Count)>, Error> {
        self.maps.take_counts()
    }

    /// The next event, if there is one, or the reason why a record cannot be read.
    pub(crate) fn next_event(&mut self) -> Option<Decoded> {
        self.events.next()
    }

    /// Whether there are events that do not make the descriptor readable.
    pub(crate) fn has_backlog(&self) -> bool {
        self.events.has_backlog()
    }

    /// How full the buffers of events are.
    pub(crate) fn buffer(&self) -> EventBuffer {
        self.events.buffer()
    }

    /// Takes the containers that were running when the probes were attached. A second call returns none.
    pub(crate) fn take_running(&mut self) -> Running {
        std::mem::take(&mut self.running)
    }

    /// Counts what the probes could not report or keep since the start.
    pub(crate) fn losses(&mut self) -> Result<KernelLosses, Error> {
        self.maps.losses()
    }

    /// Takes the events that the probes have kept since the last call because the ring buffer was full. They have fewer
    /// details than events with a record.
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

    /// The `s_dev` of the root of a running container. Returns `None` if the container is gone, or if the number is not
    /// known.
    pub(crate) fn root_dev(&mut self, container: u64) -> Option<u32> {
        self.maps.root_dev(container)
    }

    /// What shows that a container serves others, as far as the self-test can tell. Of the signs that are seen,
    /// this is the later one.
    pub(crate) fn serving_sign(&self) -> Option<ServingSign> {
        let fires = |hook: &str| {
            self.report.hooks.iter().any(|report| {
                report.hook.name == hook
                    && matches!(report.attachment, Attachment::Attached { .. })
                    && report.verified == Some(true)
            })
        };
        let signs = [("accept", ServingSign::Accept), ("listen", ServingSign::Listen)];
        signs.into_iter().find_map(|(hook, sign)| fires(hook).then_some(sign))
    }

    /// Removes what the probes know about the files of containers that have ended, and what matches nothing any more.
    /// Returns the sessions of which there are processes, by the id and the start time of the first one.
    pub(crate) fn sweep(&mut self, ended: &HashSet<u64>) -> Result<HashSet<(u32, u64)>, Error> {
        self.maps.sweep(ended)
    }

    /// Passes the probes' own messages on to the log.
    #[cfg(feature = "probe-log")]
    pub(crate) fn pass_on_log(&mut self) {
        (self.pass_on_log)();
    }
}

/// The descriptor is readable when there are events in the ring buffer.
impl AsFd for Sensor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

/// Checks whether this process may load probes on this host.
///
/// # Errors
///
/// Returns [`Error::Privilege`] if it may not, or another error if a fact about the host cannot be read.
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

/// Reports what the sensor can see on this host. This attaches each hook for a moment, without running the daemon.
///
/// # Errors
///
/// See [`Error`]. A hook that cannot be attached is not an error here.
pub fn doctor(options: &Options) -> Result<Report, Error> {
    match Sensor::start(options) {
        Ok(sensor) => Ok(sensor.report),
        Err(Error::Hook(_)) => {
            let host = Host::read()?;
            let (_, hooks, _links) = load_and_attach(options, &host)?;
            let selftest = Err("an essential hook is missing".to_owned());
            Ok(Report { host, hooks, selftest, unwatching: Ok(()) })
        }
        Err(error) => Err(error),
    }
}

/// Runs the self-test, and records in the report which hooks were seen to fire, or why it could not run.
fn test(report: &mut Report, maps: &mut Maps, events: &mut Events, attached: &[Attached]) {
    let result = selftest::run(&report.host, maps, events, attached, &mut report.hooks);
    report.selftest = result.map_err(|why| match report.host.missing_for_selftest() {
        Some(missing) => format!("{why}; the self-test needs {missing}"),
        None => why,
    });
}

/// What came of a repeated self-test.
pub(crate) struct Retest {
    /// The hooks that did not fire any more, and fire again because they were attached again.
    pub(crate) healed: Vec<&'static str>,
    /// Whether the report has changed. An error says why the result is worse than the last one; the report then changes
    /// only if a second test in a row confirms this.
    pub(crate) result: Result<bool, String>,
}

/// The attached hooks that were not seen to fire.
fn silent(report: &Report) -> Vec<&'static str> {
    let is_silent =
        |hook: &&HookReport| matches!(hook.attachment, Attachment::Attached { .. }) && hook.verified == Some(false);
    report.hooks.iter().filter(is_silent).map(|report| report.hook.name).collect()
}

/// The hooks that fired in the test before and not in this one, in one line.
fn newly_silent(before: &Report, now: &Report) -> Option<String> {
    let silent = |(before, now): (&HookReport, &HookReport)| {
        (now.verified == Some(false) && before.verified != Some(false)).then_some(now.hook.name)
    };
    let names: Vec<_> = before.hooks.iter().zip(&now.hooks).filter_map(silent).collect();
    (!names.is_empty()).then(|| format!("these hooks were not seen to fire: {}", names.join(", ")))
}

/// How many files the sensor must be able to open: a descriptor for each program, map and link, and one more for each
/// kprobe and each client.
const NEEDED_FILES: u64 = 256;

/// Allows this process to open as many files as its hard limit permits.
fn raise_file_limit() -> Result<(), Error> {
    let limit = getrlimit(Resource::Nofile).maximum;
    // An error leaves the soft limit as it is, and that is then the limit.
    let _unchanged = setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit });
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < NEEDED_FILES => Err(Error::FileLimit { limit, needed: NEEDED_FILES }),
        _ => Ok(()),
    }
}

/// The capability that this kernel demands beyond those that [`Host::missing_capabilities`] checks, and why.
fn missing_admin(host: &Host, hooks: &[HookReport]) -> Option<String> {
    if host.is_admin() {
        return None;
    }
    let denied = hooks.iter().find(|report| report.attachment == Attachment::Missing && report.is_denied)?;
    Some(format!(
        "CAP_SYS_ADMIN, without which this kernel refuses hook {} ({}; it may be enough to set sysctl \
        kernel.perf_event_paranoid to 2)",
        denied.hook.name,
        denied.refusals()
    ))
}

fn load_and_attach(options: &Options, host: &Host) -> Result<(Ebpf, Vec<HookReport>, Links), Error> {
    let object = probes::object(options.bpf_object.as_deref())?;
    let kernel = btf::Btf::of_running_kernel().map_err(|e| Error::KernelBtf(e.to_string()))?;
    account::charge_apart(account::is_needed(&kernel), move || {
        let mut ebpf = probes::load(&object, &kernel, host)?;
        drop(kernel);
        let (hooks, links) = probes::attach(&mut ebpf, host)?;
        Ok((ebpf, hooks, links))
    })
}
