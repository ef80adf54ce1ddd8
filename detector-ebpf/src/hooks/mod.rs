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

use crate::kernel::mem::Addr;

/// The argument at a position that differs between kernels and is one of the first four. All are loaded, so that the
/// compiler cannot make a load from a computed place of it, which the verifier refuses.
#[inline(always)]
fn argument(ctx: &ProbeContext, position: u64) -> Option<Addr> {
    let all: [Addr; 4] = [ctx.arg(0)?, ctx.arg(1)?, ctx.arg(2)?, ctx.arg(3)?];
    Some(match position {
        0 => all[0],
        1 => all[1],
        2 => all[2],
        _ => all[3],
    })
}
