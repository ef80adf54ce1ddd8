//! The acting process of a record.

use detector_common::record::{ANCESTORS, Ancestor, Process};

use crate::{
    container,
    kernel::{Surroundings, Task, current_thread},
    mem,
};

/// Describes the running process, which acts in a container. `origin` is the number of its `Origin`.
#[inline(always)]
pub fn describe(task: Task, origin: u32, container: u64, out: &mut Process) {
    out.origin = origin;
    let thread = current_thread();
    let (leader, credentials) = (task.leader(), task.credentials());
    out.start_time = leader.start_time();
    out.pid = (thread >> 32) as u32;
    out.tid = thread as u32;
    out.ns_pid = task.namespace_pid().0;
    out.uid = credentials.user();
    out.gid = credentials.group();
    out.login_uid = task.login_user();
    out.capabilities = credentials.capabilities();
    leader.copy_comm(&mut out.comm);
    task.copy_terminal(&mut out.tty);
    task.describe_standard_descriptors(&mut out.stdio, &mut out.peer);
    out.session = container::session();
    container::describe_mover(out.pid, out.start_time, &mut out.mover);
    describe_ancestors(task, container, &mut out.ancestors);
    out.ppid = mem::load(&out.ancestors[0].pid);
}

/// Describes the ancestors of a task.
#[inline(always)]
fn describe_ancestors(task: Task, container: u64, out: &mut [Ancestor; ANCESTORS]) {
    let (mut above, mut surroundings, mut in_container) = (task, Surroundings::NONE, 0);
    for ancestor in out {
        above = above.parent();
        let pid = above.process();
        mem::store(&mut ancestor.pid, pid);
        // The parent of process 1 is the kernel's idle task, whose id is 0.
        if pid == 0 {
            break;
        }
        ancestor.start_time = above.start_time();
        let around = above.surroundings();
        if around != surroundings {
            (surroundings, in_container) = (around, container::contains(above, container).into());
        }
        mem::store(&mut ancestor.in_container, in_container);
        above.copy_comm(&mut ancestor.comm);
    }
}
