//! Tests the resolver and the load plan with the types of real kernels: each `<series>.btf` in the directory
//! `DETECTOR_BTF_DIR` (by default `.cache/btf`), which `cargo xtask test` fills from Debian's kernel packages, and
//! those of the running kernel. Next to each file is the overlayfs module of that kernel: `<series>.overlay.ko`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use detector::sensor::{
    btf::{Btf, Error, Function},
    offsets,
    plan::{Attach, HOOKS, Prototype, Series},
};
use detector_common::offsets::ABSENT;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

const RUNNING: &str = "/sys/kernel/btf/vmlinux";

/// Offsets that were measured on Debian's amd64 kernels with another tool. They change in every way: up, down, and into
/// an anonymous union.
const MEASURED: &[(&str, &[(&str, u64)])] = &[
    ("5.10", &[("f_inode", 32), ("f_path", 16), ("f_mode", 68), ("s_magic", 96)]),
    ("6.1", &[("f_inode", 32), ("f_path", 16), ("f_mode", 68), ("s_magic", 96)]),
    ("6.12", &[("f_inode", 40), ("f_path", 64), ("f_mode", 12), ("s_magic", 96)]),
    ("6.18", &[("f_inode", 32), ("f_path", 64), ("f_mode", 4), ("s_magic", 96)]),
    ("7.2", &[("f_inode", 32), ("f_path", 64), ("f_mode", 4), ("s_magic", 96)]),
    ("7.3", &[("f_inode", 32), ("f_path", 64), ("f_mode", 4), ("s_magic", 112)]),
];

/// All available kernels, with their series.
fn kernels() -> Vec<(String, PathBuf)> {
    let mut kernels: Vec<_> = cached().into_iter().map(|kernel| (kernel.series, kernel.types)).collect();
    if Path::new(RUNNING).exists() {
        kernels.push(("running".to_owned(), RUNNING.into()));
    }
    kernels
}

/// A kernel in the cache.
struct Cached {
    series: String,
    types: PathBuf,
    overlay: PathBuf,
}

/// The kernels in the cache, oldest first.
fn cached() -> Vec<Cached> {
    let ours = || concat!(env!("CARGO_MANIFEST_DIR"), "/../.cache/btf").into();
    let directory = PathBuf::from(env::var_os("DETECTOR_BTF_DIR").unwrap_or_else(ours));
    let files = fs::read_dir(&directory).into_iter().flatten().map(|entry| entry.unwrap().path());
    let mut kernels: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "btf"))
        .map(|types| Cached {
            series: types.file_stem().unwrap().to_string_lossy().into_owned(),
            overlay: types.with_extension("overlay.ko"),
            types,
        })
        .collect();
    let directory = directory.display();
    assert!(!kernels.is_empty(), "no <series>.btf in {directory}: run `cargo xtask test`, which fetches kernels");
    kernels.sort_by_key(|kernel| number(&kernel.series));
    kernels
}

fn number(series: &str) -> Series {
    let parts = series.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    parts.unwrap_or_else(|| panic!("{series:?} is no kernel series"))
}

fn open(path: &Path) -> Btf {
    Btf::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn every_offset_resolves_on_every_kernel() {
    for (series, path) in kernels() {
        let start = Instant::now();
        let values = offsets::resolve(&open(&path)).unwrap_or_else(|e| panic!("{series}: {e}"));
        println!("{series}: {} values in {:?}", values.len(), start.elapsed());
        assert_eq!(values.len(), offsets::ROWS.len());
        // Nothing that the probes read has a greater offset, but an offset in a wrong unit would be greater.
        // Every kernel that the project is tested on has the other optional members.
        let may_be_absent =
            |name: &str| name.starts_with("OFF_BACKING_") || (name, series.as_str()) == ("HELPER_TYPED_TASK", "5.10");
        let is_right = |&(name, value): &(&str, u64)| value < 16384 || value == ABSENT && may_be_absent(name);
        assert!(values.iter().all(is_right), "{series}: {values:?}");
        assert!(start.elapsed() < Duration::from_secs(2), "{series}: took {:?}", start.elapsed());
    }
}

#[test]
fn offsets_are_those_measured() {
    for (series, path) in kernels() {
        let Some((_, measured)) = MEASURED.iter().find(|(known, _)| *known == series) else { continue };
        let kernel = open(&path);
        for &(member, offset) in *measured {
            let structure = if member.starts_with("f_") { "file" } else { "super_block" };
            assert_eq!(kernel.member_offset(structure, member).unwrap(), offset, "{series}: {structure}.{member}");
        }
        // `struct path` is { mnt, dentry } on every kernel.
        let path = kernel.member_offset("file", "f_path").unwrap();
        assert_eq!(kernel.member_offset("file", "f_path.mnt").unwrap(), path);
        assert_eq!(kernel.member_offset("file", "f_path.dentry").unwrap(), path + 8);
        assert_eq!(kernel.struct_size("path").unwrap(), 16);
    }
}

#[test]
fn alternatives_are_tried_in_order_and_named_when_missing() {
    for (series, path) in kernels() {
        let kernel = open(&path);
        let inode = kernel.member_offset("file", "f_inode").unwrap();
        assert_eq!(kernel.member_offset("file", "f_none.x|f_inode|f_mode").unwrap(), inode, "{series}");
        let message = |structure, member| kernel.member_offset(structure, member).unwrap_err().to_string();
        assert_eq!(
            message("file", "f_path.none|f_inode.i_sb|f_none"),
            "kernel BTF has no member f_path.none|f_inode.i_sb|f_none in struct file (tried f_path.none: no none in \
             f_path, f_inode.i_sb: f_inode is no struct, f_none: no f_none in file)"
        );
        assert_eq!(message("no_such", "a"), "kernel BTF has no struct no_such");
        // This is a bit-field on all of them.
        assert!(message("task_struct", "in_execve").contains("in_execve is a bit-field"), "{series}");
        assert!(matches!(kernel.member_offset("file", ""), Err(Error::NoMember { .. })), "{series}");
    }
}

#[test]
fn functions_are_found_by_name() {
    for (series, path) in kernels() {
        let kernel = open(&path);
        for function in ["finalize_exec", "security_file_open", "vfs_write"] {
            assert!(kernel.has_func(function), "{series}: {function}");
        }
        // These are a struct, a prefix of a function, and an empty name.
        for other in ["super_block", "vfs_writ", ""] {
            assert!(!kernel.has_func(other), "{series}: {other}");
        }
    }
}

/// A C prototype as in the plan, with one spelling for each type.
struct Declared {
    name: String,
    returns: Vec<String>,
    /// The type and name of each parameter.
    parameters: Vec<(Vec<String>, String)>,
    /// Whether more parameters may follow.
    is_open: bool,
}

impl Declared {
    fn parse(text: &str) -> Self {
        let (head, parameters) = text.strip_suffix(')').and_then(|text| text.split_once('(')).unwrap();
        let typed = |text: &str| {
            let name = text.trim().rsplit(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
            (c_type(text.trim().strip_suffix(name).unwrap()), name.to_owned())
        };
        let (returns, name) = typed(head);
        let is_open = parameters.ends_with("...");
        let parameters = parameters.split(',').filter(|parameter| parameter.trim() != "...").map(typed).collect();
        Self { name, returns, parameters, is_open }
    }
}

/// Gives a type one of the spellings that C allows for it: without `__user`, and the same for `unsigned long` as for
/// `long unsigned int`.
fn c_type(text: &str) -> Vec<String> {
    let spaced = text.replace('*', " * ");
    let words: Vec<_> = spaced.split_whitespace().filter(|word| *word != "__user").collect();
    let (base, pointers) = words.split_at(words.iter().position(|word| *word == "*").unwrap_or(words.len()));
    let mut base = base.to_vec();
    if base.len() > 1 {
        base.retain(|word| *word != "int");
    }
    base.sort_unstable();
    base.iter().chain(pointers).map(|word| (*word).to_owned()).collect()
}

/// The name of the kernel function that a program is attached to, in the plan's prototype and in the kernel's types,
/// and whether it is a tracepoint. The types of a tracepoint are those of the function that calls its programs, whose
/// first parameter is not passed to them.
fn function_of(attach: Attach) -> (String, String, bool) {
    match attach {
        Attach::Lsm(name) => (format!("bpf_lsm_{name}"), format!("bpf_lsm_{name}"), false),
        Attach::TpBtf(name) => (format!("trace_{name}"), format!("__traceiter_{name}"), true),
        Attach::Fentry(name) | Attach::Kprobe(name) => (name.to_owned(), name.to_owned(), false),
    }
}

/// How a kernel's function differs from the plan, if it does.
fn difference(prototype: &Prototype, declared: &Declared, found: &Function, is_tracepoint: bool) -> Option<String> {
    let found_parameters = &found.parameters[usize::from(is_tracepoint)..];
    let parameters: Vec<_> = found_parameters.iter().map(|found| (c_type(&found.kind), found.name.clone())).collect();
    let is_same =
        if declared.is_open { parameters.starts_with(&declared.parameters) } else { parameters == declared.parameters };
    if !is_same || !is_tracepoint && c_type(&found.returns) != declared.returns {
        return Some(format!("the kernel has {found:?}, the plan {}", prototype.text));
    }
    let misread = prototype.reads.iter().find(|&&(position, name)| {
        parameters.get(position).is_none_or(|(_, found)| found != name) || declared.parameters.len() <= position
    });
    misread.map(|(position, name)| format!("parameter {position} of {} is not {name}", prototype.text))
}

/// The names of all symbols of a module.
fn symbols(module: &object::File<'_>) -> Vec<String> {
    module.symbols().filter_map(|symbol| symbol.name().ok().map(str::to_owned)).collect()
}

#[test]
fn every_hook_finds_its_arguments_on_every_kernel() {
    let mut wrong = Vec::new();
    for Cached { series, types, overlay } in cached() {
        let (number, mut kernel) = (number(&series), open(&types));
        let module =
            fs::read(&overlay).unwrap_or_else(|e| panic!("{}: {e}: run `cargo xtask test`", overlay.display()));
        let module = object::File::parse(module.as_slice()).unwrap();
        // Modules have types from Linux 5.11 on.
        let is_described = module.section_by_name(".BTF").is_some();
        assert!(is_described || number < (5, 11), "{series}: overlayfs is no module, or has no types");
        if let Some(section) = module.section_by_name(".BTF") {
            kernel = kernel.with_module(section.data().unwrap().to_vec()).unwrap();
        }
        let symbols = symbols(&module);
        let mut compared = 0;
        for hook in HOOKS {
            for &(_, attach) in hook.programs {
                let (declared_name, name, is_tracepoint) = function_of(attach);
                let declared = hook.prototypes.iter().map(|prototype| (prototype, Declared::parse(prototype.text)));
                let mut here = declared.filter(|(prototype, declared)| {
                    declared.name == declared_name
                        && prototype.since <= number
                        && prototype.until.is_none_or(|until| number <= until)
                });
                let found = kernel.function(&name);
                let why = match (here.next(), &found) {
                    (Some((prototype, declared)), Some(found)) => {
                        compared += 1;
                        difference(prototype, &declared, found, is_tracepoint)
                    }
                    (Some(_), None) if !is_described && symbols.contains(&name) => None,
                    (Some((prototype, _)), None) => Some(format!("there is no {}", prototype.text)),
                    (None, Some(found)) => Some(format!("the plan has no prototype of it for {series}: {found:?}")),
                    (None, None) => None,
                };
                wrong.extend(why.map(|why| format!("{series}: hook {}: {name}: {why}", hook.name)));
                assert_eq!(here.count(), 0, "{series}: hook {}: {name} has two prototypes", hook.name);
            }
        }
        println!("{series}: {compared} prototypes compared");
        assert!(compared > HOOKS.len() - 10, "{series}: too few prototypes compared: {compared}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_prototype_is_one_of_a_function_that_a_program_is_attached_to() {
    for hook in HOOKS {
        let targets: Vec<_> = hook.programs.iter().map(|&(_, attach)| function_of(attach).0).collect();
        let declared: Vec<_> = hook.prototypes.iter().map(|prototype| Declared::parse(prototype.text).name).collect();
        assert!(declared.iter().all(|name| targets.contains(name)), "hook {}: {declared:?}, {targets:?}", hook.name);
        // The types do not describe a variant of a function that a compiler has made and named `function.isra.0`.
        let described = |name: &&String| !name.contains('.');
        let missing: Vec<_> = targets.iter().filter(described).filter(|name| !declared.contains(name)).collect();
        assert!(missing.is_empty(), "hook {}: no prototype of {missing:?}", hook.name);
    }
}

/// If the probes look up an argument's position by name, a prototype in the plan reads this argument.
#[test]
fn arguments_that_move_are_in_the_plan() {
    for row in offsets::ROWS {
        let offsets::Value::Argument(argument) = row.value else { continue };
        let reads = HOOKS.iter().flat_map(|hook| hook.prototypes).any(|prototype| {
            Declared::parse(prototype.text).name == row.subject
                && prototype.reads.iter().any(|&(_, name)| name == argument)
        });
        assert!(reads, "no prototype of {} in the plan reads {argument}", row.subject);
    }
}

#[test]
fn a_function_that_is_not_as_the_plan_has_it_is_noticed() {
    let found = |text: &str| {
        let declared = Declared::parse(text);
        let join = |kind: &[String]| kind.join(" ");
        let parameter = |(kind, name): &(Vec<String>, String)| detector::sensor::btf::Parameter {
            name: name.clone(),
            kind: join(kind),
        };
        Function { returns: join(&declared.returns), parameters: declared.parameters.iter().map(parameter).collect() }
    };
    let compare = |text, reads, kernel: &str| {
        let prototype = Prototype { since: (5, 10), until: None, text, reads };
        difference(&prototype, &Declared::parse(text), &found(kernel), false)
    };
    let text = "int f(struct inode *dir, const char __user *name, unsigned long flags)";
    let same = "int f(struct inode *dir, const char *name, long unsigned int flags)";
    assert_eq!(compare(text, &[(1, "name"), (2, "flags")], same), None);
    assert!(compare(text, &[(2, "name")], same).is_some_and(|why| why.contains("parameter 2")));
    assert!(compare(text, &[(3, "none")], same).is_some());
    for other in [
        "long f(struct inode *dir, const char *name, unsigned long flags)",
        "int f(struct inode *dir, char *name, unsigned long flags)",
        "int f(struct inode **dir, const char *name, unsigned long flags)",
        "int f(struct inode *dir, const char *name, unsigned int flags)",
        "int f(struct mnt_idmap *idmap, struct inode *dir, const char *name, unsigned long flags)",
        "int f(struct inode *dir, const char *name)",
        "int f(struct inode *dir, const char *name, unsigned long flags, int more)",
    ] {
        assert!(compare(text, &[], other).is_some(), "{other}");
    }
    assert_eq!(compare("int f(struct inode *dir, ...)", &[(0, "dir")], same), None);
    assert!(compare("int f(struct inode *dir, ...)", &[(1, "name")], same).is_some());
}

/// Whether the data can be parsed. Resolving the offsets may give any result, but must give one.
fn ask(data: Vec<u8>) -> bool {
    let Ok(kernel) = Btf::parse(data) else { return false };
    for row in offsets::ROWS.iter().step_by(7) {
        let _any = row.resolve(&kernel);
    }
    true
}

#[test]
fn damaged_types_are_an_error_never_a_panic() {
    let mut random = fastrand::Rng::with_seed(7);
    // Only the oldest and the newest format are tested, because each round copies and reads megabytes.
    let kernels = kernels();
    let ends: Vec<_> = kernels.first().into_iter().chain(kernels.iter().skip(1).next_back()).collect();
    for (series, path) in ends {
        let whole = fs::read(path).unwrap();
        for length in (0..64).chain((0..16).map(|_| random.usize(..whole.len()))) {
            assert!(!ask(whole[..length].to_vec()), "{series}: taken although cut at {length}");
        }
        for bit in 0..24 * 8 {
            let mut data = whole.clone();
            data[bit / 8] ^= 1 << (bit % 8);
            ask(data);
        }
        let mut survived = 0;
        for _ in 0..40 {
            let mut data = whole.clone();
            for _ in 0..8 {
                let at = random.usize(24..data.len());
                data[at] ^= 1 << random.u8(..8);
            }
            survived += u32::from(ask(data));
        }
        println!("{series}: {survived} of 40 damaged tables could be read");
    }
}

#[test]
fn what_is_not_btf_is_refused_with_the_reason() {
    let reason = |data: &[u8]| Btf::parse(data.to_vec()).err().expect("refused").to_string();
    let header = |magic: u16, version: u8| {
        let mut header = [0; 24];
        header[..2].copy_from_slice(&magic.to_ne_bytes());
        (header[2], header[4]) = (version, 24);
        header
    };
    assert_eq!(reason(b""), "not valid BTF: shorter than its header");
    assert_eq!(reason(&header(0xeb9f_u16.swap_bytes(), 1)), "not valid BTF: of a machine with the other byte order");
    assert_eq!(reason(&header(0xeb9f, 2)), "not valid BTF: of version 2; only version 1 is known");
    assert!(reason(&header(0x457f, 1)).contains("starts with 0x457f"));
    let mut future = header(0xeb9f, 1).to_vec();
    future[12] = 12;
    future.extend([0, 0, 0, 0, 0, 0, 0, 31, 0, 0, 0, 0]);
    assert!(reason(&future).contains("type 1 is of kind 31, which this version does not know"));
    assert!(Btf::open(Path::new("/nonexistent")).err().expect("refused").to_string().contains("/nonexistent"));
}

#[test]
fn structs_that_contain_each_other_are_searched_once() {
    // Two anonymous members of `s`, both of the type `s`.
    let types = [1, 4 << 24 | 2, 8, 0, 1, 0, 0, 1, 0_u32];
    let header = [1 << 16 | 0xeb9f, 24, 0, 36, 36, 3_u32];
    let words = header.into_iter().chain(types).flat_map(u32::to_ne_bytes);
    let kernel = Btf::parse(words.chain(*b"\0s\0").collect()).unwrap();
    let start = Instant::now();
    assert!(kernel.member_offset("s", "x").is_err());
    assert!(start.elapsed() < Duration::from_secs(5), "took {:?}", start.elapsed());
}
