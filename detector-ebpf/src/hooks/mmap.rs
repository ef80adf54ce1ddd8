//! Files that are mapped.
//!
//! `security_mmap_file(struct file *file, unsigned long prot, unsigned long flags)` (security/security.c, 5.10 to 7.3)
//! is called once for each mmap(2) and for each segment of a program that is executed. `file` is null for anonymous
//! memory.

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
