//! Programs being executed.
//!
//! Both hooks fire once for each successful exec, when the new program is in place and before it runs:
//! `trace_sched_process_exec(task, old_pid, bprm)` in `exec_binprm` (fs/exec.c, 5.10 to 7.3) and
//! `finalize_exec(bprm)`, which the binary loaders call last (fs/exec.c, 5.10 to 7.3).

use aya_ebpf::{
    macros::{btf_tracepoint, kprobe},
    programs::{BtfTracePointContext, ProbeContext},
};
use detector_common::{
    map::Loss,
    record::{ExecRecord, KIND_EXEC},
};

use crate::{
    container, emit,
    kernel::{
        cgroup, file,
        mem::{self, Addr, Untyped},
        offsets::OFF_BINPRM_FILE,
        path::{self, Place},
        task,
    },
    probe_log,
};

#[btf_tracepoint(function = "sched_process_exec")]
fn exec_tp(ctx: BtfTracePointContext) -> i32 {
    probe_log!(&ctx, "exec by process {}", task::current_tgid());
    executed(ctx.arg::<u64>(2));
    0
}

#[kprobe]
fn exec_kprobe(ctx: ProbeContext) -> u32 {
    probe_log!(&ctx, "exec by process {}", task::current_tgid());
    if let Some(bprm) = ctx.arg::<u64>(0) {
        executed(bprm);
    }
    0
}

/// The running task executes what `bprm` says.
#[inline(always)]
fn executed(bprm: Addr) {
    let task = task::current();
    let Some((container, first)) = container::of_exec(task) else {
        return;
    };
    let origin = container::origin(task, container, first);
    let Some(mut reserved) = emit::reserve::<ExecRecord>(KIND_EXEC, cgroup::of_task(task), container, Loss::Exec)
    else {
        return;
    };
    let record = reserved.as_mut_ptr();
    // SAFETY: `bprm` is a `struct linux_binprm`; `record` is reserved for us.
    unsafe {
        let executed: Addr = mem::read(bprm, OFF_BINPRM_FILE.load());
        let (dentry, mnt) = file::path(executed);
        let root = task::root(task);
        (*record).file = file::identity(file::inode::<Untyped>(executed));
        task::describe(task, origin, container, container::contains, &raw mut (*record).process);
        task::arguments(task, &raw mut (*record).args);
        path::resolve(Place { dentry, mnt }, root, &raw mut (*record).path);
        path::resolve(task::cwd(task), root, &raw mut (*record).cwd);
    }
    reserved.submit(0);
}
