//! The probes: BPF programs, each of which is a thin hook on top of the readers in [`kernel`].
//!
//! They report which program was executed in a container and how its process came there; which file of a container's
//! image was changed, in which way and by whom; and which cgroup is a container. They rely only on what cannot be
//! forged from inside a container: inodes, superblocks, dentries, mount namespaces and cgroups, and never on names that
//! a process gives itself.
//!
//! One object serves all kernels from 5.10 on: no struct layout is compiled in (see `detector_common::offsets`), and no
//! helper newer than 5.8 is needed. Programs can interrupt each other, so the memory in which a record is put together
//! must be claimed first: see [`emit::Draft`].
//!
//! Everything is inlined into the programs, by `#[inline(always)]` on those that the compiler finds too large. If a
//! program has functions of its own, the verifier of 5.10 treats each scalar as precise (`__mark_reg_unknown`,
//! kernel/bpf/verifier.c), prunes almost nothing and needs minutes, and newer ones check several times as many
//! instructions. Moreover, no kernel accepts BTF in which the signature of a function contains a Rust enum with data
//! (`btf_union_check_member`, kernel/bpf/btf.c).

#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "what the kernel hands to a program, and its maps, are raw memory")]
// The feature is needed for a few instructions in `mem`.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod actor;
mod cgroups;
mod container;
mod emit;
mod exec;
mod hooks;
mod image;
mod kernel;
mod loader;
mod mem;
mod process;
mod tampering;
mod texts;

use aya_ebpf::Global;

/// Logs a debug message of a hook, in builds with the feature `probe-log` only.
#[macro_export]
macro_rules! probe_log {
    ($($message:tt)*) => {
        #[cfg(feature = "probe-log")]
        aya_log_ebpf::debug!($($message)*);
    };
}

/// The version of the contract with user space for which this object was built.
#[unsafe(no_mangle)]
static DETECTOR_WIRE_VERSION: Global<u32> = Global::new(detector_common::WIRE_VERSION);

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program in which this can be reached.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
