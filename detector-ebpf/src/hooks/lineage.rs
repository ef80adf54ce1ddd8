//! Processes that fork and exit. The hooks make sure that descendants of what came into a container from outside are
//! recognised, and that nothing is kept about processes that are gone.
//!
//! Two hooks fire for each fork: `trace_sched_process_fork(struct task_struct *parent, struct task_struct *child)`
//! (`kernel_clone`, kernel/fork.c, 5.10 to 7.3), and then `wake_up_new_task(struct task_struct *p)`
//! (kernel/sched/core.c, 5.10 to 7.3). One of them is enough. Two others fire for each exit:
//! `trace_sched_process_exit(struct task_struct *task, …)` (`do_exit`, kernel/exit.c, 5.10 to 7.3), and then
//! `exit_files(struct task_struct *tsk)` (fs/file.c, 5.10 to 7.3), which is also called for a task that could not be
//! created (`copy_process`, kernel/fork.c).

use aya_ebpf::{
    macros::{btf_tracepoint, kprobe},
    programs::{BtfTracePointContext, ProbeContext},
};

use super::argument;
use crate::{
    cgroups, container,
    image::pending,
    kernel::{Access, Direct, Ptr, Str, Task, current_process},
    loader,
};

#[btf_tracepoint(function = "sched_process_fork")]
fn fork_tp(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the arguments of the tracepoint are pointers to a `struct task_struct`, and the verifier knows this.
    let [parent, child]: [Task<Direct>; 2] = unsafe { [Ptr::trust(ctx.arg(0)), Ptr::trust(ctx.arg(1))] };
    note_fork(parent, child);
    0
}

#[kprobe]
fn fork_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(child) = argument(&ctx, 0) {
        note_fork(Task::current(), child);
    }
    0
}

#[inline(always)]
fn note_fork<A: Access>(parent: Task<A>, child: Task<A>) {
    // A thread is in the process of its parent. It cannot be created in the cgroup of another domain
    // (`cgroup_attach_permissions`, kernel/cgroup/cgroup.c), but both can be moved while this program compares them: a
    // runtime moves its own process into the cgroup of a container while that starts its threads.
    let (above, process) = (parent.process(), child.process());
    if above == process {
        return;
    }
    container::register_fork(above, process);
    // With `CLONE_INTO_CGROUP` of clone3(2), the child is created in another cgroup and is not moved there.
    let born = child.cgroup_id();
    if born != parent.cgroup_id() {
        container::note_mover(child.probed(), born);
        cgroups::report_escape(child.probed(), born, Str::NULL);
    }
}

#[btf_tracepoint(function = "sched_process_exit")]
fn exit_tp(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the argument of the tracepoint is a pointer to a `struct task_struct`, and the verifier knows this. It is
    // the running task.
    let task: Task<Direct> = unsafe { Ptr::trust(ctx.arg(0)) };
    note_exit(task);
    0
}

#[kprobe]
fn exit_kprobe(ctx: ProbeContext) -> u32 {
    let task = Task::current();
    if argument(&ctx, 0) == Some(task) {
        note_exit(task);
    }
    0
}

/// Notes that this task, which is the running one, exits.
#[inline(always)]
fn note_exit<A: Access>(task: Task<A>) {
    let process = current_process();
    // What is known about a process holds until the last of its threads exits, which need not be the first thread.
    if task.is_last_of_process() {
        container::forget_process(process);
        loader::forget(process);
    }
    pending::forget();
}
