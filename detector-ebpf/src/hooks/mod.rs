//! One file a subject; each hook takes its arguments and hands them on.

mod cgroup;
mod exec;
mod lineage;
mod metadata;
mod mmap;
mod mounts;
mod names;
mod open;
mod report;
mod write;

use aya_ebpf::programs::ProbeContext;

use crate::kernel::mem::{Addr, opaque};

/// The argument at a position that differs between kernels and is one of the first four. All are loaded, and the
/// compiler is kept from making of it one load from a computed place, which the verifier refuses.
#[inline(always)]
fn argument(ctx: &ProbeContext, position: u64) -> Option<Addr> {
    let load = |index| ctx.arg(index).map(opaque);
    let all: [Addr; 4] = [load(0)?, load(1)?, load(2)?, load(3)?];
    Some(match position {
        0 => all[0],
        1 => all[1],
        2 => all[2],
        _ => all[3],
    })
}
