//! Files that are mapped, and mapped files that become executable.
//!
//! `security_mmap_file(struct file *file, unsigned long prot, unsigned long flags)` (security/security.c, 5.10 to 7.3)
//! is called once for each mmap(2) and for each segment of a program that is executed. `file` is null for anonymous
//! memory.
//!
//! `security_file_mprotect(struct vm_area_struct *vma, unsigned long reqprot, unsigned long prot)`
//! (security/security.c, 5.10 to 7.3) is called for each mapping whose protection mprotect(2) or pkey_mprotect(2)
//! changes.

use aya_ebpf::{macros::kprobe, programs::ProbeContext};

use super::argument;
use crate::image::{self, report::hand_over};

#[kprobe]
fn mmap_file(ctx: ProbeContext) -> u32 {
    if let (Some(file), Some(protection), Some(flags)) = (argument(&ctx, 0), ctx.arg(1), ctx.arg(2)) {
        hand_over(&ctx, image::mapped(file, protection, flags));
    }
    0
}

#[kprobe]
fn file_mprotect(ctx: ProbeContext) -> u32 {
    if let (Some(memory), Some(protection)) = (argument(&ctx, 0), ctx.arg(2)) {
        hand_over(&ctx, image::protected(memory, protection));
    }
    0
}
