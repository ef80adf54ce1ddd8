//! Cgroups that are created and removed, and processes that are moved between them.
//!
//! `trace_cgroup_mkdir(struct cgroup *cgrp, const char *path)` and `trace_cgroup_rmdir`, which has the same arguments
//! (kernel/cgroup/cgroup.c, 5.10 to 7.3), fire for all hierarchies. Only one hierarchy identifies containers.
//!
//! `trace_cgroup_attach_task(struct cgroup *dst_cgrp, const char *path, struct task_struct *task, bool threadgroup)`
//! (`cgroup_attach_task`, kernel/cgroup/cgroup.c, 5.10 to 7.3) fires when a process was moved.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::{
    cgroups, container,
    kernel::{Cgroup, Str, Task},
    probe_log,
};

#[btf_tracepoint(function = "cgroup_mkdir")]
fn cgroup_mkdir(ctx: BtfTracePointContext) -> i32 {
    let cgroup = Cgroup::new(ctx.arg(0));
    if cgroup.is_in_hierarchy() {
        probe_log!(&ctx, "cgroup {} created", cgroup.id());
        cgroups::report_created(cgroup, Str::new(ctx.arg(1)));
    }
    0
}

#[btf_tracepoint(function = "cgroup_rmdir")]
fn cgroup_rmdir(ctx: BtfTracePointContext) -> i32 {
    let cgroup = Cgroup::new(ctx.arg(0));
    if cgroup.is_in_hierarchy() {
        probe_log!(&ctx, "cgroup {} removed", cgroup.id());
        cgroups::report_removed(cgroup, Str::new(ctx.arg(1)));
    }
    0
}

#[btf_tracepoint(function = "cgroup_attach_task")]
fn cgroup_attach_task(ctx: BtfTracePointContext) -> i32 {
    let to = Cgroup::new(ctx.arg(0));
    if to.is_in_hierarchy() {
        let task = Task::new(ctx.arg(2));
        container::note_mover(task, to.id());
        cgroups::report_escape(task, to.id(), Str::new(ctx.arg(1)));
    }
    0
}
