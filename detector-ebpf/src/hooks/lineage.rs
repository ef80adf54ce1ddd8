//! Processes that fork and exit. The hooks make sure that descendants of what came into a container from outside are
//! recognised, and that nothing is kept about processes that are gone.
//!
//! The tracepoints are `trace_sched_process_fork(struct task_struct *parent, struct task_struct *child)`
//! (kernel/fork.c) and `trace_sched_process_exit(struct task_struct *task, …)` (kernel/exit.c), 5.10 to 7.3.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::{
    cgroups, container,
    image::pending,
    kernel::{Direct, Ptr, Str, Task, current_process},
    loader,
};

#[btf_tracepoint(function = "sched_process_fork")]
fn process_fork(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the arguments of the tracepoint are pointers to a `struct task_struct`, and the verifier knows this.
    let [parent, child]: [Task<Direct>; 2] = unsafe { [Ptr::trust(ctx.arg(0)), Ptr::trust(ctx.arg(1))] };
    // A thread is in the process of its parent. It cannot be created in the cgroup of another domain
    // (`cgroup_attach_permissions`, kernel/cgroup/cgroup.c), but both can be moved while this program compares them: a
    // runtime moves its own process into the cgroup of a container while that starts its threads.
    let (above, process) = (parent.process(), child.process());
    if above == process {
        return 0;
    }
    container::register_fork(above, process);
    // With `CLONE_INTO_CGROUP` of clone3(2), the child is created in another cgroup and is not moved there.
    let born = child.cgroup_id();
    if born != parent.cgroup_id() {
        cgroups::report_escape(child.probed(), born, Str::NULL);
    }
    0
}

#[btf_tracepoint(function = "sched_process_exit")]
fn process_exit(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the argument of the tracepoint is a pointer to a `struct task_struct`, and the verifier knows this. It is
    // the running task.
    let task: Task<Direct> = unsafe { Ptr::trust(ctx.arg(0)) };
    let process = current_process();
    // What is known about a process holds until the last of its threads exits, which need not be the first thread.
    if task.is_last_of_process() {
        container::forget_process(process);
        loader::forget(process);
    }
    pending::forget();
    0
}
