//! The probes: programs that run in the kernel, each a thin hook over the readers in [`kernel`].
//!
//! Questions they answer: which program was executed in a container and how did its process come there; which file of a
//! container's image is opened for writing, created or written, by whom; which cgroup is a container. What they rely on
//! cannot be forged from inside a container: inodes, superblocks, dentries, mount namespaces and cgroups; never names
//! that a process gives itself.
//!
//! One object serves all kernels from 5.10: no struct layout is compiled in (see `detector_common::offsets`), and no
//! helper newer than 5.8 is called. Programs interrupt each other, so memory of a CPU is shared only by claims: see
//! [`emit::Draft`].
//!
//! Everything is inlined into the programs. Where a program has functions of its own, the verifier of 5.10 takes each
//! scalar for precise (`__mark_reg_unknown`, kernel/bpf/verifier.c), prunes next to nothing and needs minutes; and no
//! kernel takes BTF in which a function's signature has a Rust enum with data (`btf_union_check_member`,
//! kernel/bpf/btf.c).

#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "what the kernel hands to a program, and its maps, are raw memory")]
// For a few instructions in `mem`.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

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
mod texts;

use aya_ebpf::Global;

/// A debug message of a hook, in builds with the feature `probe-log` only.
#[macro_export]
macro_rules! probe_log {
    ($($message:tt)*) => {
        #[cfg(feature = "probe-log")]
        aya_log_ebpf::debug!($($message)*);
    };
}

/// Which contract with user space this object was built for.
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
