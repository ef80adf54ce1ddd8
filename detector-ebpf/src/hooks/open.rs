//! Files that are opened for writing: what everything that changes a file's content must pass.
//!
//! `security_file_open(struct file *file)` is called by `do_dentry_open` (fs/open.c, 5.10 to 7.3), after access was
//! granted and before overlayfs copies a file up. The LSM hook `file_open` is called from it.
//!
//! `blkdev_open(struct inode *inode, struct file *filp)` (fs/block_dev.c, block/fops.c, 5.10 to 7.3): the same of block
//! devices.

use aya_ebpf::{
    macros::{fentry, kprobe, lsm},
    programs::{FEntryContext, LsmContext, ProbeContext},
};

use super::argument;
use crate::{
    image::{
        self,
        report::{Change, NAME, hand_over, report},
    },
    kernel::{File, Ptr},
};

/// Reports a change from programs that cannot call those of `hooks::report`, which are kprobes.
#[inline(always)]
fn report_here(change: Option<Change>) {
    if let Some(change) = change {
        report::<NAME>(&change);
    }
}

#[lsm(hook = "file_open")]
fn open_lsm(ctx: LsmContext) -> i32 {
    // SAFETY: the hook's first argument is a `struct file`, and the verifier knows it.
    report_here(image::opened(unsafe { Ptr::trust(ctx.arg(0)) }));
    // The verdict of the program before: this one never denies.
    ctx.arg(1)
}

#[fentry(function = "security_file_open")]
fn open_fentry(ctx: FEntryContext) -> i32 {
    // SAFETY: the function's first argument is a `struct file`, and the verifier knows it.
    report_here(image::opened(unsafe { Ptr::trust(ctx.arg(0)) }));
    0
}

#[kprobe]
fn open_kprobe(ctx: ProbeContext) -> u32 {
    let file: Option<File> = argument(&ctx, 0);
    if let Some(file) = file {
        hand_over(&ctx, image::opened(file));
    }
    0
}

#[kprobe]
fn device_open(ctx: ProbeContext) -> u32 {
    if let Some(file) = argument(&ctx, 1) {
        hand_over(&ctx, image::device_opened(file));
    }
    0
}
