//! Processes that fork and exit: so that what came into a container from outside is known as such, and nothing is kept
//! of what is gone.
//!
//! `trace_sched_process_fork(struct task_struct *parent, struct task_struct *child)` (kernel/fork.c) and
//! `trace_sched_process_exit(struct task_struct *task, …)` (kernel/exit.c), 5.10 to 7.3.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::{
    cgroups, container,
    image::pending,
    kernel::{Str, Task, current_process},
    loader,
};

#[btf_tracepoint(function = "sched_process_fork")]
fn process_fork(ctx: BtfTracePointContext) -> i32 {
    let (parent, child) = (Task::new(ctx.arg(0)), Task::new(ctx.arg(1)));
    container::register_fork(parent, child);
    // `CLONE_INTO_CGROUP` of clone3(2): nobody moves the child.
    let born = child.cgroup_id();
    if born != parent.cgroup_id() {
        cgroups::report_escape(child, born, Str::NULL);
    }
    0
}

#[btf_tracepoint(function = "sched_process_exit")]
fn process_exit(_: BtfTracePointContext) -> i32 {
    let process = current_process();
    // A process is what it was until the last of its threads exits, which need not be the first one.
    if Task::current().is_last_of_process() {
        container::forget_process(process);
        loader::forget(process);
    }
    pending::forget();
    0
}
