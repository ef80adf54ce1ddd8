//! What other processes do to the sensor: calls of bpf(2) that change its maps, signals, and access to its memory.
//!
//! These are the hooked functions (security/security.c, 5.10 to 7.3):
//!
//! - `security_bpf(int cmd, union bpf_attr *attr, unsigned int size, …)` is called by `__sys_bpf`
//!   (kernel/bpf/syscall.c) for each call, with the kernel's copy of the attributes.
//! - `security_task_kill(struct task_struct *p, struct kernel_siginfo *info, int sig, const struct cred *cred)` is
//!   called for each signal of a process that may send it (`check_kill_permission`, kernel/signal.c). It is not called
//!   for signals of the kernel, such as those of a terminal or of `cgroup.kill`.
//! - `security_ptrace_access_check(struct task_struct *child, unsigned int mode)` is called when a process asks for the
//!   state of another one, and the user ids permit it (`__ptrace_may_access`, kernel/ptrace.c). Capabilities are
//!   checked by what it calls. Whoever lists processes in /proc calls it often, but with a `mode` that only reads.

use aya_ebpf::{macros::kprobe, programs::ProbeContext};

use super::argument;
use crate::tampering;

#[kprobe]
fn bpf_call(ctx: ProbeContext) -> u32 {
    if let (Some(command), Some(attributes)) = (ctx.arg(0), argument(&ctx, 1)) {
        tampering::called(&ctx, command, attributes);
    }
    0
}

#[kprobe]
fn task_kill(ctx: ProbeContext) -> u32 {
    if let (Some(receiver), Some(signal)) = (argument(&ctx, 0), ctx.arg(2)) {
        tampering::signalled(&ctx, receiver, signal);
    }
    0
}

#[kprobe]
fn ptrace_access(ctx: ProbeContext) -> u32 {
    if let (Some(target), Some(mode)) = (argument(&ctx, 0), ctx.arg(1)) {
        tampering::accessed(&ctx, target, mode);
    }
    0
}
