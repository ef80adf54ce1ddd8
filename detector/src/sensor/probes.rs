//! Loads the BPF object and attaches its programs according to the [load plan](super::plan).

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use aya::maps::{Map, ProgramArray};
use aya::programs::kprobe::KProbeLink;
use aya::programs::links::FdLink;
use aya::programs::{Program, ProgramError};
use aya::{Btf as KernelBtf, Ebpf, EbpfLoader, VerifierLogLevel};
use detector_common::{WIRE_VERSION, WIRE_VERSION_SYMBOL, map};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use rustix::io::Errno;

use super::error::{Error, is_denied};
use super::host::Host;
use super::plan::{self, Attach, Hook, Need};
use super::report::{Attachment, HookReport};
use super::{account, bpf, btf, offsets};
use crate::procfs;

/// The object that `build.rs` built.
static EMBEDDED: &[u8] = aya::include_bytes_aligned!(env!("DETECTOR_BPF_OBJECT"));

/// The object in the file `path`, or the embedded object if there is no path. The wire version of the object in a file
/// must be the daemon's.
///
/// # Errors
///
/// The file cannot be read, is not a BPF object of this project, or was built for another version.
pub(super) fn object(path: Option<&std::path::Path>) -> Result<std::borrow::Cow<'static, [u8]>, Error> {
    let Some(path) = path else {
        return Ok(EMBEDDED.into());
    };
    let refuse = |why: String| Error::Object { path: path.to_owned(), why };
    let bytes = std::fs::read(path).map_err(|e| refuse(e.to_string()))?;
    let version = wire_version(&bytes).ok_or_else(|| refuse("it is no BPF object of this project".to_owned()))?;
    if version != WIRE_VERSION {
        return Err(refuse(format!("it was built for wire version {version}, this daemon speaks {WIRE_VERSION}")));
    }
    Ok(bytes.into())
}

/// The value of [`WIRE_VERSION_SYMBOL`] in an object.
fn wire_version(bytes: &[u8]) -> Option<u32> {
    let file = object::File::parse(bytes).ok()?;
    let symbol = file.symbols().find(|symbol| symbol.name() == Ok(WIRE_VERSION_SYMBOL))?;
    let section = file.section_by_index(symbol.section_index()?).ok()?;
    let at = usize::try_from(symbol.address()).ok()?;
    let value = section.data().ok()?.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(value.try_into().ok()?))
}

/// Creates the maps and sets the globals. No program is loaded into the kernel yet.
///
/// # Errors
///
/// The kernel lacks a struct member that the probes read, or refuses a map.
pub(super) fn load(object: &[u8], kernel: &btf::Btf, host: &Host) -> Result<Ebpf, Error> {
    let offsets = offsets::resolve(kernel)?;
    let mut loader = EbpfLoader::new();
    for (global, value) in &offsets {
        loader.override_global(global, value, true);
    }
    let (number, state) = match &host.hierarchy {
        Some(hierarchy) => {
            let number = hierarchy.number();
            let number = number.map_err(|source| Error::System { what: "reading /proc/self/cgroup", source })?;
            (number, hierarchy.state_offset(kernel)?)
        }
        None => (0, 0),
    };
    let cpus = aya::util::nr_cpus();
    let cpus = cpus.map_err(|(_file, source)| Error::System { what: "counting the CPUs", source })?;
    let cpus = u32::try_from(cpus).unwrap_or(u32::MAX);
    let ring_size = map::ring_size(cpus);
    loader
        .map_max_entries("DRAFTS", map::drafts(cpus))
        .map_max_entries("EVENTS", ring_size)
        .override_global("EVENTS_FULL", &map::full_ring(ring_size), true)
        .override_global("HIERARCHY", &number, true)
        .override_global("HIERARCHY_STATE", &state, true)
        // The sensor is in the initial pid namespace, so this is its number there.
        .override_global("SENSOR", &std::process::id(), true)
        .override_global("HOST_MNT_NS", &host.mount_namespace, true)
        .override_global("HOST_ROOT_DEV", &host.root_dev, true)
        .override_global("HOST_ROOT_INODE", &host.root_inode, true)
        // A second, verbose run of the verifier helps only somebody who debugs a probe.
        .verifier_log_level(VerifierLogLevel::STATS)
        .load(object)
        .map_err(|e| Error::Load(Box::new(e)))
}

/// A map of the probes.
pub(super) struct OwnMap {
    pub(super) id: u32,
    /// The descriptor, if this process does not write to the map once it watches.
    frozen: Option<OwnedFd>,
}

/// The maps that this process writes to.
const WRITTEN: [&str; 15] = [
    "CGROUPS",
    "ROOTS",
    "OTHER_ROOTS",
    "MNT_NS",
    "NETWORKS",
    "ENTERED",
    "SESSIONS",
    "INSIDE",
    "UNWATCHED",
    "COUNTED",
    "COUNTING",
    "FILES",
    "SEEN",
    "KEPT_EXECS",
    "EVENTS",
];

/// All maps.
///
/// # Errors
///
/// The kernel does not tell their ids, or there are too few descriptors.
pub(super) fn own_maps(ebpf: &Ebpf) -> io::Result<Vec<OwnMap>> {
    let of = |(name, map): (&str, &Map)| match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::ProgramArray(data)
        | Map::RingBuf(data) => {
            let id = data.info().map_err(io::Error::other)?.id();
            let fd = || data.fd().as_fd().try_clone_to_owned();
            let frozen = (!WRITTEN.contains(&name)).then(fd).transpose()?;
            Ok(OwnMap { id, frozen })
        }
        other => unreachable!("no module of the probes has a map like {other:?}"),
    };
    ebpf.maps().map(of).collect()
}

/// Makes all maps to which this process does not write read-only for all processes. The probes still write to them.
pub(super) fn freeze(maps: &mut [OwnMap]) {
    for fd in maps.iter_mut().filter_map(|map| map.frozen.take()) {
        match bpf::freeze(fd.as_fd()) {
            Ok(()) => {}
            // It is read-only already: aya does so with constants. Newer kernels say so with EPERM.
            Err(error)
                if [Errno::BUSY, Errno::PERM].map(Errno::raw_os_error).map(Some).contains(&error.raw_os_error()) => {}
            Err(error) => tracing::warn!(%error, "the kernel does not make a map of the probes read-only"),
        }
    }
}

/// What keeps the programs attached, by their names. A program is detached when its value is dropped.
pub(super) type Links = HashMap<&'static str, Link>;

/// What keeps a program attached.
pub(super) enum Link {
    /// A BPF link.
    Bpf(FdLink),
    /// A perf event, before Linux 5.15.
    PerfEvent(KProbeLink),
}

impl Link {
    fn of_kprobe(link: KProbeLink) -> Result<Self, ProgramError> {
        // The conversion of a perf event would detach the program.
        match aya::features().bpf_perf_link() {
            true => Ok(Self::Bpf(link.try_into().map_err(io::Error::other)?)),
            false => Ok(Self::PerfEvent(link)),
        }
    }

    /// Detaches the program. Somebody else may have closed the descriptor, whose number can be that of another
    /// program's link by now. Then that stays. A perf event does not tell whose it is.
    fn detach(self, program: &Program) {
        match self {
            Self::PerfEvent(link) => drop(link),
            Self::Bpf(link) => {
                let of_link = link.info().ok().map(|info| info.program_id());
                let is_own = program.info().is_ok_and(|info| of_link == Some(info.id()));
                if !is_own {
                    std::mem::forget(link);
                }
            }
        }
    }
}

/// Attaches one program to each hook.
///
/// # Errors
///
/// The programs that other programs call cannot be loaded.
pub(super) fn attach(ebpf: &mut Ebpf, host: &Host) -> Result<(Vec<HookReport>, Links), Error> {
    let kernel = KernelBtf::from_sys_fs().map_err(|e| Error::KernelBtf(e.to_string()))?;
    // Some hooks are attached to functions of overlayfs, which may be a module that is not loaded yet. Opening the file
    // system makes the kernel load the module. If this fails, there is no overlayfs, and so there are no overlays to
    // watch.
    let _asked_for = rustix::mount::fsopen("overlay", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC);
    let wanted = plan::HOOKS.iter().flat_map(|hook| hook.programs).map(|(_, attach)| attach.target()).collect();
    let functions = procfs::kernel_functions(&wanted);
    load_reporters(ebpf)?;
    let mut links = Links::new();
    let attach = |hook| attach_hook(ebpf, &kernel, hook, host, functions.as_ref(), &mut links);
    let hooks = plan::HOOKS.iter().map(attach).collect();
    Ok((hooks, links))
}

/// Attaches the programs of hooks again that do not fire. The kernel refuses this for an fentry or LSM program that is
/// still attached, whose old link then stays.
pub(super) fn attach_again(ebpf: &mut Ebpf, links: &mut Links, hooks: &[&HookReport]) {
    let attached = hooks.iter().filter_map(|report| match report.attachment {
        Attachment::Attached { program, attach, .. } => Some((report.hook.name, program, attach)),
        Attachment::Missing | Attachment::Absent => None,
    });
    // Kernels attach such programs twice, and they would run twice. All old links go before there are new ones, which
    // may get the numbers of descriptors that somebody else has closed.
    let is_attached_twice = |attach| matches!(attach, Attach::Kprobe(_) | Attach::TpBtf(_));
    for (_, program, _) in attached.clone().filter(|&(_, _, attach)| is_attached_twice(attach)) {
        if let (Some(link), Some(program)) = (links.remove(program), ebpf.program(program)) {
            link.detach(program);
        }
    }
    for (hook, name, attach) in attached {
        let Some(program) = ebpf.program_mut(name) else { continue };
        let attached = attach_loaded(program, attach.target()).or_else(|error| match is_used_up(&error) {
            true => load_again(program, attach.target()).and_then(|()| attach_loaded(program, attach.target())),
            false => Err(error),
        });
        match attached {
            // The kernel has detached an old link already, so its descriptor may belong to something else by now.
            Ok(link) => links.insert(name, link).into_iter().for_each(std::mem::forget),
            Err(error) => {
                tracing::warn!(hook, why = explain(&error), "does not fire, and cannot be attached again");
            }
        }
    }
}

/// Whether the error means that the program was attached before, and cannot be attached again. This is so for fentry
/// and LSM programs before Linux 5.13 (`bpf_tracing_prog_attach`, kernel/bpf/syscall.c).
fn is_used_up(error: &ProgramError) -> bool {
    matches!(error, ProgramError::SyscallError(error)
        if error.io_error.raw_os_error() == Some(Errno::NOENT.raw_os_error()))
}

/// Loads a program again that is [used up](is_used_up).
fn load_again(program: &mut Program, target: &str) -> Result<(), ProgramError> {
    let kernel = KernelBtf::from_sys_fs()?;
    // Most of these kernels charge the memory to a user.
    account::charge_apart(true, || match program {
        Program::Lsm(program) => program.unload().and_then(|()| program.load(target, &kernel)),
        Program::FEntry(program) => program.unload().and_then(|()| program.load(target, &kernel)),
        _ => Ok(()),
    })
}

/// Loads the programs that other programs call.
fn load_reporters(ebpf: &mut Ebpf) -> Result<(), Error> {
    for name in plan::REPORTERS {
        let Some(Program::KProbe(program)) = ebpf.program_mut(name) else {
            return Err(refused(format!("the BPF object has no program {name}")));
        };
        program.load().map_err(|e| refused(format!("program {name}: {}", explain(&e))))?;
    }
    fill_reporters(ebpf)
}

/// Puts the programs that other programs call into the map in which those look for them.
fn fill_reporters(ebpf: &mut Ebpf) -> Result<(), Error> {
    for (index, &name) in (0..).zip(&plan::REPORTERS) {
        let program = ebpf.program(name).ok_or_else(|| refused(format!("the BPF object has no program {name}")))?;
        let fd = program.fd().and_then(|fd| Ok(fd.try_clone()?)).map_err(|e| refused(e.to_string()))?;
        // The map stays in `ebpf`, because the kernel empties it when user space closes it.
        let map = ebpf.map_mut(REPORTERS).ok_or_else(|| refused("the BPF object has no such map".to_owned()))?;
        let mut reporters = ProgramArray::try_from(map).map_err(|e| refused(e.to_string()))?;
        reporters.set(index, &fd, 0).map_err(|e| refused(e.to_string()))?;
    }
    Ok(())
}

/// The map of the programs that other programs call.
const REPORTERS: &str = "REPORTERS";

fn refused(why: String) -> Error {
    Error::Map { name: REPORTERS, why }
}

/// Tries the candidates for one hook. `functions` are those functions of the plan that this kernel has, if that is
/// known.
pub(super) fn attach_hook(
    ebpf: &mut Ebpf,
    kernel: &KernelBtf,
    hook: &'static Hook,
    host: &Host,
    functions: Option<&HashSet<&str>>,
    links: &mut Links,
) -> HookReport {
    let plan::Candidates { mut usable, mut refused } = plan::candidates(hook, host);
    let mut is_denied = false;
    if hook.need == Need::WherePresent
        && let Some(functions) = functions
    {
        usable.retain(|(_, attach)| functions.contains(attach.target()));
        if usable.is_empty() {
            return HookReport { hook, attachment: Attachment::Absent, refused, is_denied, verified: None };
        }
    }
    for (name, attach) in usable {
        match try_attach(ebpf, kernel, name, attach) {
            Ok(link) => {
                links.insert(name, link);
                let attachment = Attachment::Attached { program: name, attach, blindable: attach.can_be_blinded(host) };
                return HookReport { hook, attachment, refused, is_denied, verified: None };
            }
            Err(Refusal { why, is_denied: denied }) => {
                tracing::debug!(hook = hook.name, kind = attach.kind(), why, "refused");
                refused.push((attach, why));
                is_denied |= denied;
            }
        }
    }
    HookReport { hook, attachment: Attachment::Missing, refused, is_denied, verified: None }
}

/// Why a program cannot be attached.
struct Refusal {
    why: String,
    /// Whether this process lacks a privilege.
    is_denied: bool,
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self { why, is_denied: false }
    }
}

impl From<ProgramError> for Refusal {
    fn from(error: ProgramError) -> Self {
        // The verifier also refuses programs with this error, whatever the privileges.
        let is_verdict = matches!(&error, ProgramError::LoadError { io_error, .. }
            if io_error.raw_os_error() == Some(rustix::io::Errno::ACCESS.raw_os_error()));
        Self { why: explain(&error), is_denied: !is_verdict && is_denied(&error) }
    }
}

/// Loads and attaches one program.
fn try_attach(ebpf: &mut Ebpf, kernel: &KernelBtf, name: &str, attach: Attach) -> Result<Link, Refusal> {
    let program = ebpf.program_mut(name).ok_or_else(|| format!("the BPF object has no program {name}"))?;
    let target = attach.target();
    match (&mut *program, attach) {
        (Program::Lsm(program), Attach::Lsm(_)) => program.load(target, kernel),
        (Program::FEntry(program), Attach::Fentry(_)) => program.load(target, kernel),
        (Program::BtfTracePoint(program), Attach::TpBtf(_)) => program.load(target, kernel),
        // The program may have been tried at another function before, and is loaded then.
        (Program::KProbe(program), Attach::Kprobe(_)) if program.fd().is_ok() => Ok(()),
        (Program::KProbe(program), Attach::Kprobe(_)) => program.load(),
        _ => return Err(format!("program {name} is not of kind {}", attach.kind()).into()),
    }
    .and_then(|()| attach_loaded(program, target))
    .map_err(Refusal::from)
}

/// Attaches a program that is loaded. What all but kprobes are attached to was chosen when they were loaded.
fn attach_loaded(program: &mut Program, target: &str) -> Result<Link, ProgramError> {
    Ok(match program {
        Program::Lsm(program) => Link::Bpf(program.attach().and_then(|id| program.take_link(id))?.into()),
        Program::FEntry(program) => Link::Bpf(program.attach().and_then(|id| program.take_link(id))?.into()),
        Program::BtfTracePoint(program) => Link::Bpf(program.attach().and_then(|id| program.take_link(id))?.into()),
        Program::KProbe(program) => Link::of_kprobe(program.attach(target, 0).and_then(|id| program.take_link(id))?)?,
        other => unreachable!("the load plan has no program like {other:?}"),
    })
}

/// An attached program, which can be asked how often the kernel has run or skipped it.
#[derive(Debug)]
pub(super) struct Attached {
    /// The program's name.
    pub(super) program: &'static str,
    fd: OwnedFd,
}

impl Attached {
    /// The attached programs of these hooks.
    pub(super) fn of(ebpf: &Ebpf, hooks: &[HookReport]) -> io::Result<Vec<Self>> {
        let attached = hooks.iter().filter_map(|report| match report.attachment {
            Attachment::Attached { program, .. } => Some((program, ebpf.program(program)?.fd().ok()?)),
            Attachment::Missing | Attachment::Absent => None,
        });
        attached.map(|(program, fd)| Ok(Self { program, fd: fd.as_fd().try_clone_to_owned()? })).collect()
    }

    /// How often the kernel has run the program while it counted runs. See [`bpf::runs`].
    pub(super) fn runs(&self) -> io::Result<u64> {
        bpf::runs(self.fd.as_fd())
    }

    /// How many calls of the program the kernel has skipped since the program was loaded.
    pub(super) fn skipped_calls(&self) -> io::Result<u64> {
        // Kernels before 5.12 do not count skipped calls.
        Ok(bpf::skipped_calls(self.fd.as_fd())?.unwrap_or(0))
    }
}

/// The error with its causes in one line. The verifier's log can be long, so only its last meaningful line is included.
fn explain(error: &ProgramError) -> String {
    if let ProgramError::LoadError { io_error, verifier_log } = error {
        let log = verifier_log.to_string();
        tracing::debug!(%log, "verifier");
        const STATISTICS: [&str; 3] = ["processed ", "stack depth ", "verification time "];
        let is_statistics = |line: &str| STATISTICS.iter().any(|start| line.starts_with(start));
        let said = log.lines().rev().find(|line| !line.trim().is_empty() && !is_statistics(line));
        return said.map_or_else(|| io_error.to_string(), |said| format!("{io_error}: verifier: {}", said.trim()));
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use object::SectionKind;

    use super::*;

    /// Why there must be none: see `detector-ebpf/src/main.rs`.
    #[test]
    fn no_program_calls_a_function() {
        /// `BPF_JMP | BPF_CALL`, and a register byte with `BPF_PSEUDO_CALL` as the source (include/uapi/linux/bpf.h).
        const CALL: [u8; 2] = [0x85, 0x10];
        let object = object::File::parse(EMBEDDED).expect("the object was just built");
        let programs = object.sections().filter(|section| section.kind() == SectionKind::Text);
        let programs: Vec<_> = programs.filter(|section| section.name() != Ok(".text")).collect();
        assert!(!programs.is_empty());
        for program in programs {
            let (instructions, _) = program.data().expect("the section has data").as_chunks::<8>();
            let calls = instructions.iter().filter(|instruction| instruction.starts_with(&CALL)).count();
            assert_eq!(calls, 0, "in section {:?}", program.name());
        }
    }

    #[test]
    fn nothing_for_debuggers_is_embedded() {
        let object = object::File::parse(EMBEDDED).expect("the object was just built");
        let names: Vec<_> = object.sections().filter_map(|section| section.name().ok()).collect();
        assert!(names.contains(&".BTF") && !names.iter().any(|name| name.contains("debug")), "{names:?}");
    }
}
