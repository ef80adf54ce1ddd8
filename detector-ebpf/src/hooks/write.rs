//! Bytes being written: proves that a write happened, counts it, and sees descriptors that were open before the sensor.
//!
//! `vfs_write(struct file *file, const char __user *buf, size_t count, loff_t *pos)` (fs/read_write.c, 5.10 to 7.3). The
//! hottest hook: see `kernel::file::may_be_on_overlay` for what a write that is not ours costs.

use aya_ebpf::{
    macros::{fentry, kprobe},
    programs::{FEntryContext, ProbeContext},
};

use crate::{
    image,
    kernel::mem::{Typed, Untyped},
};

#[fentry(function = "vfs_write")]
fn write_fentry(ctx: FEntryContext) -> i32 {
    // SAFETY: the function's first argument is a `struct file` that the verifier knows.
    unsafe { image::written::<Typed>(ctx.arg(0), || ctx.arg(2)) };
    0
}

#[kprobe]
fn write_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(file) = ctx.arg(0) {
        // SAFETY: the function's first argument is a `struct file`.
        unsafe { image::written::<Untyped>(file, || ctx.arg(2).unwrap_or(0)) };
    }
    0
}

/// The least that an fentry program can do: the yardstick of `cargo xtask bench`. Never attached by `detector run`.
#[fentry(function = "vfs_write")]
fn bare_fentry(_: FEntryContext) -> i32 {
    0
}
