//! Cgroups being made and removed, and processes being moved between them.
//!
//! `trace_cgroup_mkdir(struct cgroup *cgrp, const char *path)` and `trace_cgroup_rmdir`, the same
//! (kernel/cgroup/cgroup.c, 5.10 to 7.3). They fire for all hierarchies, of which one counts.
//!
//! `trace_cgroup_attach_task(struct cgroup *dst_cgrp, const char *path, struct task_struct *task, bool threadgroup)`
//! (`cgroup_attach_task`, kernel/cgroup/cgroup.c, 5.10 to 7.3), when a process was moved.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use detector_common::{
    map::Loss,
    record::{CgroupEscapeRecord, CgroupRecord, Kind, PATH_CAPACITY, Text},
};

use crate::{
    container, emit,
    kernel::{
        cgroup,
        mem::{self, Addr},
        path, task,
    },
    probe_log,
};

#[btf_tracepoint(function = "cgroup_mkdir")]
fn cgroup_mkdir(ctx: BtfTracePointContext) -> i32 {
    let cgroup = ctx.arg(0);
    if cgroup::counts(cgroup) {
        probe_log!(&ctx, "cgroup {} made", cgroup::id(cgroup));
        container::created(cgroup);
        send(Kind::CgroupCreated, cgroup::id(cgroup), ctx.arg(1));
    }
    0
}

#[btf_tracepoint(function = "cgroup_rmdir")]
fn cgroup_rmdir(ctx: BtfTracePointContext) -> i32 {
    let cgroup = ctx.arg(0);
    if cgroup::counts(cgroup) {
        let id = cgroup::id(cgroup);
        probe_log!(&ctx, "cgroup {} removed", id);
        container::removed(id);
        send(Kind::CgroupRemoved, id, ctx.arg(1));
    }
    0
}

/// Sends the cgroup's path.
#[inline(always)]
fn send(kind: Kind, id: u64, path: Addr) {
    let Some(mut reserved) = emit::reserve::<CgroupRecord>(kind, emit::Stamp::take(), id, 0, Loss::Cgroup) else {
        return;
    };
    // SAFETY: the record is reserved for us.
    copy(path, unsafe { &raw mut (*reserved.as_mut_ptr()).path });
    reserved.submit(0);
}

/// Copies a string of the kernel to a record.
#[inline(always)]
fn copy(path: Addr, text: *mut Text<PATH_CAPACITY>) {
    // SAFETY: `text` is in a record in the ring buffer.
    unsafe {
        let copied = mem::read_str((&raw mut (*text).bytes).cast(), PATH_CAPACITY as u32, path);
        // Without the NUL.
        (*text).len = copied.saturating_sub(1) as u32;
        (*text).flags = 0;
    }
}

#[btf_tracepoint(function = "cgroup_attach_task")]
fn cgroup_attach_task(ctx: BtfTracePointContext) -> i32 {
    let to = ctx.arg(0);
    if cgroup::counts(to) {
        moved(ctx.arg(2), cgroup::id(to), ctx.arg(1));
    }
    0
}

/// The running task has moved `task` to a cgroup, or had it born there. `path`: 0 if it is not at hand.
#[inline(always)]
pub(super) fn moved(task: Addr, to: u64, path: Addr) {
    if let Some(container) = container::escaped(task, to) {
        send_escape(container, to, path, task);
    }
}

/// Tells that the running task has moved another out of its container.
#[inline(always)]
fn send_escape(container: u64, cgroup: u64, path: Addr, moved: Addr) {
    let stamp = emit::Stamp::take();
    let Some(mut reserved) =
        emit::reserve::<CgroupEscapeRecord>(Kind::CgroupEscape, stamp, cgroup, container, Loss::CgroupEscape)
    else {
        return;
    };
    let task = task::current();
    let origin = container::origin(task, container);
    let record = reserved.as_mut_ptr();
    // SAFETY: `record` is reserved for us.
    unsafe {
        task::describe(task, origin, container, container::contains, &raw mut (*record).process);
        path::resolve(task::executable(task), task::root(task), &raw mut (*record).exe);
        (*record).moved = task::tgid(moved);
        (*record).reserved = 0;
        copy(path, &raw mut (*record).cgroup);
    }
    reserved.submit(0);
}
