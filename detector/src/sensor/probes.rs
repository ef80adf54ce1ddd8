//! Loads the BPF object and attaches its programs after the [load plan](super::plan).

use std::{
    collections::HashSet,
    io::BufRead as _,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::{
    Btf as KernelBtf, Ebpf, EbpfLoader, VerifierLogLevel,
    maps::ProgramArray,
    programs::{BtfTracePoint, FEntry, KProbe, Lsm, Program, ProgramError},
};
use detector_common::{WIRE_VERSION, WIRE_VERSION_SYMBOL};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

use super::{
    Error, HookReport, State, btf,
    host::Host,
    offsets,
    plan::{self, Attach, Hook, Need},
};

/// The object that `build.rs` made.
static EMBEDDED: &[u8] = aya::include_bytes_aligned!(env!("DETECTOR_BPF_OBJECT"));

/// The object in the file `path`, or the embedded one, if it keeps to this daemon's contract.
///
/// # Errors
///
/// The file cannot be read, is no BPF object of this project, or was built for another version.
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

/// Creates the maps and sets the globals; no program is in the kernel yet.
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
        Some(hierarchy) => (hierarchy.number()?, hierarchy.state_offset(kernel)?),
        None => (0, 0),
    };
    loader
        .override_global("HIERARCHY", &number, true)
        .override_global("HIERARCHY_STATE", &state, true)
        .override_global("HOST_MNT_NS", &host.mount_namespace, true)
        .override_global("HOST_ROOT_DEV", &host.root_dev, true)
        .override_global("HOST_ROOT_INODE", &host.root_inode, true)
        // A second, verbose run of the verifier only helps who debugs a probe.
        .verifier_log_level(VerifierLogLevel::STATS)
        .load(object)
        .map_err(|e| Error::Load(Box::new(e)))
}

/// Attaches one program to each hook.
///
/// # Errors
///
/// The programs that others call cannot be loaded.
pub(super) fn attach(ebpf: &mut Ebpf, host: &Host) -> Result<Vec<HookReport>, Error> {
    let kernel = KernelBtf::from_sys_fs().map_err(|e| Error::KernelBtf(e.to_string()))?;
    // Overlayfs may be a module that nothing has needed yet, and has functions to attach to. To ask for the file system is
    // to have it loaded; where there is none, there are no overlays to watch.
    let _asked_for = rustix::mount::fsopen("overlay", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC);
    let functions = functions();
    load_reporters(ebpf)?;
    Ok(plan::HOOKS.iter().map(|hook| attach_hook(ebpf, &kernel, hook, host, functions.as_ref())).collect())
}

/// Loads the programs that other programs call, and puts them where those look for them.
fn load_reporters(ebpf: &mut Ebpf) -> Result<(), Error> {
    const MAP: &str = "REPORTERS";
    let refused = |why: String| Error::Map { name: MAP, why };
    for (index, &name) in (0..).zip(&plan::REPORTERS) {
        let Some(Program::KProbe(program)) = ebpf.program_mut(name) else {
            return Err(refused(format!("the BPF object has no program {name}")));
        };
        program.load().map_err(|e| refused(format!("program {name}: {}", explain(&e))))?;
        let fd = program.fd().and_then(|fd| Ok(fd.try_clone()?)).map_err(|e| refused(e.to_string()))?;
        // The map stays in `ebpf`: the kernel empties it when user space closes it.
        let map = ebpf.map_mut(MAP).ok_or_else(|| refused("the BPF object has no such map".to_owned()))?;
        let mut reporters = ProgramArray::try_from(map).map_err(|e| refused(e.to_string()))?;
        reporters.set(index, &fd, 0).map_err(|e| refused(e.to_string()))?;
    }
    Ok(())
}

/// Which of the plan's functions the kernel and its modules have. `None`: that cannot be told.
fn functions() -> Option<HashSet<&'static str>> {
    let wanted: HashSet<_> =
        plan::HOOKS.iter().flat_map(|hook| hook.programs).map(|(_, attach)| attach.target()).collect();
    let symbols = std::io::BufReader::new(std::fs::File::open("/proc/kallsyms").ok()?);
    let mut found = HashSet::new();
    for line in symbols.split(b'\n') {
        // Address, kind, name, and of a module's its name.
        if let Some(name) = line.ok()?.split(|byte| byte.is_ascii_whitespace()).nth(2)
            && let Some(name) = str::from_utf8(name).ok().and_then(|name| wanted.get(name))
        {
            found.insert(*name);
        }
    }
    (!found.is_empty()).then_some(found)
}

/// Tries the candidates for one hook. `functions`: see [`functions`].
pub(super) fn attach_hook(
    ebpf: &mut Ebpf,
    kernel: &KernelBtf,
    hook: &'static Hook,
    host: &Host,
    functions: Option<&HashSet<&str>>,
) -> HookReport {
    let plan::Candidates { mut usable, mut refused } = plan::candidates(hook, host);
    if hook.need == Need::WherePresent
        && let Some(functions) = functions
    {
        usable.retain(|(_, attach)| functions.contains(attach.target()));
        if usable.is_empty() {
            return HookReport { hook, state: State::Absent, refused, verified: None };
        }
    }
    for (name, attach) in usable {
        match try_attach(ebpf, kernel, name, attach) {
            Ok(()) => {
                let state = State::Attached { program: name, attach, blindable: attach.can_be_blinded(host) };
                return HookReport { hook, state, refused, verified: None };
            }
            Err(why) => {
                tracing::debug!(hook = hook.name, kind = attach.kind(), why, "refused");
                refused.push((attach, why));
            }
        }
    }
    HookReport { hook, state: State::Missing, refused, verified: None }
}

/// Loads and attaches one program. Its link lives in `ebpf`.
fn try_attach(ebpf: &mut Ebpf, kernel: &KernelBtf, name: &str, attach: Attach) -> Result<(), String> {
    let program = ebpf.program_mut(name).ok_or_else(|| format!("the BPF object has no program {name}"))?;
    let target = attach.target();
    match (program, attach) {
        (Program::Lsm(program), Attach::Lsm(_)) => attach_lsm(program, target, kernel),
        (Program::FEntry(program), Attach::Fentry(_)) => attach_fentry(program, target, kernel),
        (Program::BtfTracePoint(program), Attach::TpBtf(_)) => attach_tp_btf(program, target, kernel),
        (Program::KProbe(program), Attach::Kprobe(_)) => attach_kprobe(program, target),
        _ => return Err(format!("program {name} is not of kind {}", attach.kind())),
    }
    .map_err(|e| explain(&e))
}

fn attach_lsm(program: &mut Lsm, target: &str, kernel: &KernelBtf) -> Result<(), ProgramError> {
    program.load(target, kernel)?;
    program.attach().map(drop)
}

fn attach_fentry(program: &mut FEntry, target: &str, kernel: &KernelBtf) -> Result<(), ProgramError> {
    program.load(target, kernel)?;
    program.attach().map(drop)
}

fn attach_tp_btf(program: &mut BtfTracePoint, target: &str, kernel: &KernelBtf) -> Result<(), ProgramError> {
    program.load(target, kernel)?;
    program.attach().map(drop)
}

fn attach_kprobe(program: &mut KProbe, target: &str) -> Result<(), ProgramError> {
    // It may have been tried at another function before.
    if program.fd().is_err() {
        program.load()?;
    }
    program.attach(target, 0).map(drop)
}

/// An attached program, to ask the kernel how often it has skipped it.
#[derive(Debug)]
pub(super) struct Attached {
    /// Its name.
    pub(super) program: &'static str,
    fd: std::os::fd::OwnedFd,
}

impl Attached {
    /// The programs of these hooks.
    pub(super) fn of(ebpf: &Ebpf, hooks: &[HookReport]) -> std::io::Result<Vec<Self>> {
        let attached = hooks.iter().filter_map(|report| match report.state {
            State::Attached { program, .. } => Some((program, ebpf.program(program)?.fd().ok()?)),
            State::Missing | State::Absent => None,
        });
        attached.map(|(program, fd)| Ok(Self { program, fd: fd.as_fd().try_clone_to_owned()? })).collect()
    }

    /// How many calls the kernel has skipped: `recursion_misses` in the descriptor's information
    /// (`bpf_prog_show_fdinfo`, kernel/bpf/syscall.c, from 5.12; before, it skips none).
    pub(super) fn misses(&self) -> std::io::Result<u64> {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", self.fd.as_raw_fd()))?;
        let misses = info.lines().find_map(|line| line.strip_prefix("recursion_misses:")?.trim().parse().ok());
        Ok(misses.unwrap_or(0))
    }
}

/// The error with its causes in one line; of the verifier's log, which can be long, the last line that says something.
fn explain(error: &ProgramError) -> String {
    if let ProgramError::LoadError { io_error, verifier_log } = error {
        let log = verifier_log.to_string();
        tracing::debug!(%log, "verifier");
        let is_statistics = |line: &str| line.starts_with("processed ") || line.starts_with("stack depth ");
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
