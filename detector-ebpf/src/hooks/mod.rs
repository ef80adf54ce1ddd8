//! The hooks, with one file for each subject. Each hook takes its arguments and passes them on.

mod cgroup;
mod exec;
mod lineage;
mod metadata;
mod mmap;
mod mounts;
mod names;
mod open;
mod report;
mod sensor;
mod socket;
mod write;

use aya_ebpf::programs::ProbeContext;

use crate::{kernel::Ptr, mem::opaque};

/// Returns the function's argument at a position, which is a pointer.
#[inline(always)]
fn argument<T>(ctx: &ProbeContext, position: usize) -> Option<Ptr<T>> {
    ctx.arg(position).map(Ptr::new)
}

/// Returns the function's argument at a position that differs between kernels. It is a pointer and one of the first
/// four arguments. All four are loaded, and [`opaque`] keeps the compiler from combining the loads into one from a
/// computed address, which the verifier refuses.
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
