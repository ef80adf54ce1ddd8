//! Processes being forked and exiting: so that what came into a container from outside is known as such, and nothing is
//! kept of what is gone.
//!
//! `trace_sched_process_fork(struct task_struct *parent, struct task_struct *child)` (kernel/fork.c) and
//! `trace_sched_process_exit(struct task_struct *task, …)` (kernel/exit.c), 5.10 to 7.3.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::{container, image::pending, kernel::cgroup};

#[btf_tracepoint(function = "sched_process_fork")]
fn process_fork(ctx: BtfTracePointContext) -> i32 {
    let (parent, child) = (ctx.arg(0), ctx.arg(1));
    container::forked(parent, child);
    // `CLONE_INTO_CGROUP` of clone3(2): nobody moves the child.
    let born = cgroup::of_task(child);
    if born != cgroup::of_task(parent) {
        super::cgroup::moved(child, born, 0);
    }
    0
}

#[btf_tracepoint(function = "sched_process_exit")]
fn process_exit(_: BtfTracePointContext) -> i32 {
    container::exited();
    pending::forget();
    0
}
