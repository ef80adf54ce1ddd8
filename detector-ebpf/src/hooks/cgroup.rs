//! Cgroups being made and removed.
//!
//! `trace_cgroup_mkdir(struct cgroup *cgrp, const char *path)` and `trace_cgroup_rmdir`, the same
//! (kernel/cgroup/cgroup.c, 5.10 to 7.3). They fire for all hierarchies; only the default one counts.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use detector_common::{
    map::Loss,
    record::{CgroupRecord, KIND_CGROUP_CREATED, KIND_CGROUP_REMOVED, PATH_CAPACITY},
};

use crate::{
    container, emit,
    kernel::{
        cgroup,
        mem::{self, Addr},
    },
    probe_log,
};

#[btf_tracepoint(function = "cgroup_mkdir")]
fn cgroup_mkdir(ctx: BtfTracePointContext) -> i32 {
    let cgroup = ctx.arg(0);
    if cgroup::is_default_hierarchy(cgroup) {
        probe_log!(&ctx, "cgroup {} made", cgroup::id(cgroup));
        container::created(cgroup);
        send(KIND_CGROUP_CREATED, cgroup::id(cgroup), ctx.arg(1));
    }
    0
}

#[btf_tracepoint(function = "cgroup_rmdir")]
fn cgroup_rmdir(ctx: BtfTracePointContext) -> i32 {
    let cgroup = ctx.arg(0);
    if cgroup::is_default_hierarchy(cgroup) {
        let id = cgroup::id(cgroup);
        probe_log!(&ctx, "cgroup {} removed", id);
        container::removed(id);
        send(KIND_CGROUP_REMOVED, id, ctx.arg(1));
    }
    0
}

/// Sends the cgroup's path.
#[inline(always)]
fn send(kind: u32, id: u64, path: Addr) {
    let Some(mut reserved) = emit::reserve::<CgroupRecord>(kind, id, 0, Loss::Cgroup) else {
        return;
    };
    // SAFETY: the record is reserved for us; `path` is a string of the kernel.
    unsafe {
        let text = &raw mut (*reserved.as_mut_ptr()).path;
        let copied = mem::read_str((&raw mut (*text).bytes).cast(), PATH_CAPACITY as u32, path);
        // Without the NUL.
        (*text).len = copied.saturating_sub(1) as u32;
        (*text).flags = 0;
    }
    reserved.submit(0);
}
