//! One file for each subject; each hook takes its arguments and hands them on.

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

use crate::{kernel::Ptr, mem::opaque};

/// The pointer at a position of a function's arguments.
#[inline(always)]
fn argument<T>(ctx: &ProbeContext, position: usize) -> Option<Ptr<T>> {
    ctx.arg(position).map(Ptr::new)
}

/// The pointer at a position that differs between kernels and is one of the first four. All are loaded, and the
/// compiler is kept from making of it one load from a computed place, which the verifier refuses.
#[inline(always)]
fn argument_at<T>(ctx: &ProbeContext, position: u64) -> Option<Ptr<T>> {
    let load = |index| ctx.arg(index).map(opaque);
    let all: [u64; 4] = [load(0)?, load(1)?, load(2)?, load(3)?];
    Some(Ptr::new(match position {
        0 => all[0],
        1 => all[1],
        2 => all[2],
        _ => all[3],
    }))
}
