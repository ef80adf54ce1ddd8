//! Files that are opened for writing, or truncated by an open. Every change of a file's content requires such an open,
//! except for truncate(2). Files that are opened for reading can be code for an interpreter.
//!
//! `security_file_open(struct file *file)` is called by `do_dentry_open` (fs/open.c, 5.10 to 7.3), after access was
//! granted and before overlayfs copies a file up. The LSM hook `file_open` is called from it.
//!
//! `blkdev_open(struct inode *inode, struct file *filp)` (fs/block_dev.c, block/fops.c, 5.10 to 7.3) is called when a
//! block device is opened.
//!
//! `file_open_root` (fs/open.c) opens a file below a directory. Only open_by_handle_at(2) calls it with an empty name
//! (`do_handle_open`, fs/fhandle.c, 5.10 to 7.3): the directory is then the file itself, which was found by its handle.

use aya_ebpf::{
    macros::{fentry, kprobe, lsm},
    programs::{FEntryContext, LsmContext, ProbeContext},
};

use super::{argument, argument_at};
use crate::{
    image::{
        self,
        report::{Change, NAME_OR_PLACE, hand_over, report},
    },
    kernel::{ARG_OPEN_ROOT_NAME, File, Path, Place, Ptr, Str},
};

/// Reports a change from a program that cannot call the programs of `hooks::report`, because those are kprobes.
#[inline(always)]
fn report_here(change: Option<Change>) {
    if let Some(change) = change {
        report::<NAME_OR_PLACE>(&change);
    }
}

#[lsm(hook = "file_open")]
#[inline(always)]
fn open_lsm(ctx: LsmContext) -> i32 {
    // SAFETY: the first argument of the hook is a pointer to a `struct file`, and the verifier knows its type.
    report_here(image::opened(unsafe { Ptr::trust(ctx.arg(0)) }));
    // This is the verdict of the previous program. This program never denies an open.
    ctx.arg(1)
}

#[fentry(function = "security_file_open")]
#[inline(always)]
fn open_fentry(ctx: FEntryContext) -> i32 {
    // SAFETY: the first argument of the function is a pointer to a `struct file`, and the verifier knows its type.
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

/// Before 5.13, the function takes the dentry and the mount as two arguments.
#[kprobe]
fn handle_open(ctx: ProbeContext) -> u32 {
    let position = ARG_OPEN_ROOT_NAME.load();
    let name: Option<Str> = argument_at(&ctx, position);
    let place = match position {
        2 => argument(&ctx, 0).zip(argument(&ctx, 1)).map(|(dentry, mount)| Place { dentry, mount }),
        _ => argument(&ctx, 0).map(Path::place),
    };
    if let (Some(name), Some(place)) = (name, place) {
        hand_over(&ctx, image::opened_by_handle(place, name));
    }
    0
}
