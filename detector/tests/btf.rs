//! The resolver against the types of real kernels: each `<series>.btf` in the directory `DETECTOR_BTF_DIR`, which
//! `cargo xtask test` fills from Debian's kernel packages, and those of the kernel that runs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use detector::sensor::{
    btf::{Btf, Error},
    offsets,
};

const RUNNING: &str = "/sys/kernel/btf/vmlinux";

/// Offsets measured on Debian's amd64 kernels with another tool. They move in every way: up, down, into an anonymous union.
const MEASURED: &[(&str, &[(&str, u64)])] = &[
    ("5.10", &[("f_inode", 32), ("f_path", 16), ("f_mode", 68), ("s_magic", 96)]),
    ("6.1", &[("f_inode", 32), ("f_path", 16), ("f_mode", 68), ("s_magic", 96)]),
    ("6.12", &[("f_inode", 40), ("f_path", 64), ("f_mode", 12), ("s_magic", 96)]),
    ("6.18", &[("f_inode", 32), ("f_path", 64), ("f_mode", 4), ("s_magic", 96)]),
    ("7.2", &[("f_inode", 32), ("f_path", 64), ("f_mode", 4), ("s_magic", 96)]),
    ("7.3", &[("f_inode", 32), ("f_path", 64), ("f_mode", 4), ("s_magic", 112)]),
];

/// All kernels at hand, with their series.
fn kernels() -> Vec<(String, PathBuf)> {
    let mut kernels = Vec::new();
    if let Some(directory) = env::var_os("DETECTOR_BTF_DIR") {
        let entries = fs::read_dir(&directory).unwrap_or_else(|e| panic!("DETECTOR_BTF_DIR {directory:?}: {e}"));
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.extension().is_some_and(|extension| extension == "btf") {
                kernels.push((path.file_stem().unwrap().to_string_lossy().into_owned(), path));
            }
        }
        assert!(!kernels.is_empty(), "DETECTOR_BTF_DIR {directory:?} holds no <series>.btf; run `cargo xtask test`");
        kernels.sort_by_key(|(series, _)| series.split('.').map(|n| n.parse::<u32>().unwrap_or(0)).collect::<Vec<_>>());
    }
    if Path::new(RUNNING).exists() {
        kernels.push(("running".to_owned(), RUNNING.into()));
    }
    if kernels.is_empty() {
        let why = "no kernel types to test with: DETECTOR_BTF_DIR is not set, and this kernel has no BTF";
        assert!(env::var_os("CI").is_none(), "{why}");
        eprintln!("{why}: NOTHING TESTED; run `cargo xtask test`");
    }
    kernels
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
        // Nothing the probes read is further away than this; a wrong unit would be.
        assert!(values.iter().all(|&(_, value)| value < 16384), "{series}: {values:?}");
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
        // `struct path` is { mnt, dentry } everywhere.
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
        // A bit-field on all of them.
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
        // A struct, a prefix of a function, nothing.
        for other in ["super_block", "vfs_writ", ""] {
            assert!(!kernel.has_func(other), "{series}: {other}");
        }
    }
}

/// Whatever the answer, there must be one.
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
    // The oldest and the newest format: each round copies and reads megabytes.
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
