//! Programs that are executed.
//!
//! Two hooks fire once for each successful exec, when the new program is in place and before it runs:
//! `trace_sched_process_exec(task, old_pid, bprm)` in `exec_binprm` (fs/exec.c, 5.10 to 7.3), and
//! `finalize_exec(bprm)`, which the binary loaders call last (fs/exec.c, 5.10 to 7.3). One of them is enough.
//!
//! If a script is executed, these hooks see the interpreter. The script itself is seen by `security_bprm_check(bprm)`
//! (security/security.c), which `search_binary_handler` (fs/exec.c, 5.10 to 7.3) calls earlier, once for each step of a
//! chain of interpreters. It also sees which file is the standard input of the program, and what a process of the host
//! executes of a container's files.

use aya_ebpf::{
    macros::{btf_tracepoint, kprobe},
    programs::{BtfTracePointContext, ProbeContext},
};

use super::argument;
use crate::{
    container, exec,
    image::{self, report::hand_over},
    kernel::Binprm,
    probe_log,
};

#[btf_tracepoint(function = "sched_process_exec")]
#[inline(always)]
fn exec_tp(ctx: BtfTracePointContext) -> i32 {
    probe_log!(&ctx, "exec by process {}", crate::kernel::current_process());
    exec::report_exec(Binprm::new(ctx.arg(2)));
    0
}

#[kprobe]
#[inline(always)]
fn exec_kprobe(ctx: ProbeContext) -> u32 {
    probe_log!(&ctx, "exec by process {}", crate::kernel::current_process());
    if let Some(program) = argument(&ctx, 0) {
        exec::report_exec(program);
    }
    0
}

#[kprobe]
fn bprm_check(ctx: ProbeContext) -> u32 {
    let program: Option<Binprm> = argument(&ctx, 0);
    if let Some(program) = program {
        let is_elsewhere = container::is_elsewhere();
        if !is_elsewhere {
            exec::report_script(program);
        }
        hand_over(&ctx, image::executing(program.file(), is_elsewhere));
    }
    0
}
