//! Bytes that are written. The hooks prove that a write happened, count it, and see writes through descriptors that
//! were opened before the sensor started.
//!
//! If the functions of overlayfs can be hooked, whether it is a module or built in, they are: they see every way to
//! write, and a write to any other file costs nothing. They are members of `ovl_file_operations` (fs/overlayfs/file.c,
//! 5.10 to 7.3):
//!
//! - `ovl_write_iter(struct kiocb *iocb, struct iov_iter *iter)`
//! - `ovl_splice_write(struct pipe_inode_info *pipe, struct file *out, loff_t *ppos, size_t len, unsigned int flags)`
//! - `ovl_fallocate(struct file *file, int mode, loff_t offset, loff_t len)`
//! - `ovl_copy_file_range(struct file *file_in, loff_t pos_in, struct file *file_out, loff_t pos_out, …)`, and
//!   `ovl_remap_file_range` with the same first arguments
//!
//! Otherwise, `vfs_write(struct file *file, const char __user *buf, size_t count, loff_t *pos)` (fs/read_write.c, 5.10
//! to 7.3) is hooked. It sees fewer ways to write and is called for every file. `File::may_be_on_overlay` keeps the
//! cost of irrelevant writes low.

use aya_ebpf::{
    macros::{fentry, kprobe},
    programs::{FEntryContext, ProbeContext},
};
use detector_common::vocabulary::ImageOp;

use super::argument;
use crate::{
    image::{
        self,
        report::{NAME, hand_over, report},
    },
    kernel::{File, IovIter, Kiocb, Ptr},
};

#[kprobe]
fn overlay_write(ctx: ProbeContext) -> u32 {
    let (call, data): (Option<Kiocb>, Option<IovIter>) = (argument(&ctx, 0), argument(&ctx, 1));
    if let (Some(call), Some(data)) = (call, data) {
        hand_over(&ctx, image::stored(call.file(), ImageOp::Write, data.count()));
    }
    0
}

#[kprobe]
fn overlay_splice(ctx: ProbeContext) -> u32 {
    stored(&ctx, 1)
}

#[kprobe]
fn overlay_fallocate(ctx: ProbeContext) -> u32 {
    stored(&ctx, 0)
}

#[kprobe]
fn overlay_copy(ctx: ProbeContext) -> u32 {
    stored(&ctx, 2)
}

#[kprobe]
fn overlay_clone(ctx: ProbeContext) -> u32 {
    stored(&ctx, 2)
}

/// Checks a write to the file that is the function's argument at this position.
#[inline(always)]
fn stored(ctx: &ProbeContext, position: usize) -> u32 {
    if let Some(file) = argument(ctx, position) {
        hand_over(ctx, image::stored(file, ImageOp::Write, 0));
    }
    0
}

#[fentry(function = "vfs_write")]
#[inline(always)]
fn write_fentry(ctx: FEntryContext) -> i32 {
    // SAFETY: the first argument of the function is a pointer to a `struct file`, and the verifier knows its type.
    let file: File<_> = unsafe { Ptr::trust(ctx.arg(0)) };
    if let Some(change) = image::written(file, || ctx.arg(2)) {
        report::<NAME>(&change);
    }
    0
}

#[kprobe]
fn write_kprobe(ctx: ProbeContext) -> u32 {
    let file: Option<File> = argument(&ctx, 0);
    if let Some(file) = file {
        hand_over(&ctx, image::written(file, || ctx.arg(2).unwrap_or(0)));
    }
    0
}
