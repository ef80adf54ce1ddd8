//! Calls of bpf(2).
//!
//! `security_bpf(int cmd, union bpf_attr *attr, unsigned int size, …)` (security/security.c, 5.10 to 7.3) is called by
//! `__sys_bpf` (kernel/bpf/syscall.c) for each call, with the kernel's copy of the attributes.

use aya_ebpf::{macros::kprobe, programs::ProbeContext};

use super::argument;
use crate::tampering;

#[kprobe]
fn bpf_call(ctx: ProbeContext) -> u32 {
    if let (Some(command), Some(attributes)) = (ctx.arg(0), argument(&ctx, 1)) {
        tampering::report_call(command, attributes);
    }
    0
}
