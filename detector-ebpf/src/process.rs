//! The acting process of a record.

use detector_common::record::{ANCESTORS, Ancestor, Process};

use crate::{
    container,
    kernel::{Task, current_thread},
    mem,
};

/// Describes the running process, which acts in a container. `origin` is the number of its `Origin`.
#[inline(always)]
pub fn describe(task: Task, origin: u32, container: u64, out: &mut Process) {
    out.origin = origin;
    let thread = current_thread();
    let credentials = task.credentials();
    out.start_time = task.leader().start_time();
    out.pid = (thread >> 32) as u32;
    out.tid = thread as u32;
    out.ns_pid = task.namespace_pid().0;
    out.ppid = task.parent().process();
    out.uid = credentials.user();
    out.gid = credentials.group();
    out.login_uid = task.login_user();
    out.capabilities = credentials.capabilities();
    task.leader().copy_comm(&mut out.comm);
    task.copy_terminal(&mut out.tty);
    task.describe_standard_descriptors(&mut out.stdio, &mut out.peer);
    out.session = container::session();
    describe_ancestors(task, container, &mut out.ancestors);
}

/// Describes the ancestors of a task.
#[inline(always)]
fn describe_ancestors(task: Task, container: u64, out: &mut [Ancestor; ANCESTORS]) {
    let mut above = task;
    for ancestor in out {
        above = above.parent();
        let pid = above.process();
        mem::store(&mut ancestor.pid, pid);
        // The parent of process 1 is the kernel's idle task, whose id is 0.
        if pid == 0 {
            break;
        }
        ancestor.start_time = above.start_time();
        mem::store(&mut ancestor.in_container, u32::from(container::contains(above, container)));
        above.copy_comm(&mut ancestor.comm);
    }
}
