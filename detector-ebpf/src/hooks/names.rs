//! Names that are created, removed and changed.
//!
//! These functions are called when the permissions were found sufficient, before the file system performs the operation
//! (security/security.c, 5.10 to 7.3; the callers are in fs/namei.c):
//!
//! - `security_inode_mkdir(struct inode *dir, struct dentry *dentry, umode_t mode)`, and `security_inode_mknod` and
//!   `security_inode_create` with the same first arguments
//! - `security_inode_symlink(dir, dentry, old_name)`
//! - `security_inode_unlink(dir, dentry)` and `security_inode_rmdir(dir, dentry)`
//! - `security_inode_link(struct dentry *old_dentry, struct inode *dir, struct dentry *new_dentry)`
//! - `security_inode_rename(struct inode *old_dir, struct dentry *old_dentry, struct inode *new_dir, struct dentry
//!   *new_dentry, unsigned int flags)`
//!
//! `security_inode_create` is also called for an open that creates a file. An mknod(2) of a regular file is
//! distinguished by `vfs_create` (fs/namei.c), which is called before it. The arguments of `vfs_create` have changed
//! twice.

use aya_ebpf::{macros::kprobe, programs::ProbeContext};
use detector_common::vocabulary::ImageOp;

use super::{argument, argument_at};
use crate::{
    image::{self, report::hand_over},
    kernel::ARG_CREATE_DENTRY,
};

/// The bits of a `umode_t`.
const UMODE: u32 = 0xffff;
/// `RENAME_EXCHANGE` (include/uapi/linux/fs.h).
const RENAME_EXCHANGE: u32 = 1 << 1;

#[kprobe]
fn inode_mkdir(ctx: ProbeContext) -> u32 {
    made(&ctx, ImageOp::Mkdir)
}

#[kprobe]
fn inode_mknod(ctx: ProbeContext) -> u32 {
    if let (Some(dentry), Some(mode)) = (argument(&ctx, 1), ctx.arg::<u32>(2)) {
        hand_over(&ctx, image::made_node(dentry, mode & UMODE));
    }
    0
}

#[kprobe]
fn inode_symlink(ctx: ProbeContext) -> u32 {
    made(&ctx, ImageOp::Symlink)
}

#[inline(always)]
fn made(ctx: &ProbeContext, op: ImageOp) -> u32 {
    if let Some(dentry) = argument(ctx, 1) {
        hand_over(ctx, image::made(dentry, op));
    }
    0
}

#[kprobe]
fn create(ctx: ProbeContext) -> u32 {
    if let Some(dentry) = argument_at(&ctx, ARG_CREATE_DENTRY.load()) {
        hand_over(&ctx, image::to_create(dentry));
    }
    0
}

#[kprobe]
fn inode_create(ctx: ProbeContext) -> u32 {
    if let Some(dentry) = argument(&ctx, 1) {
        hand_over(&ctx, image::creating(dentry));
    }
    0
}

#[kprobe]
fn inode_unlink(ctx: ProbeContext) -> u32 {
    removed(&ctx, ImageOp::Unlink)
}

#[kprobe]
fn inode_rmdir(ctx: ProbeContext) -> u32 {
    removed(&ctx, ImageOp::Rmdir)
}

#[inline(always)]
fn removed(ctx: &ProbeContext, op: ImageOp) -> u32 {
    if let Some(dentry) = argument(ctx, 1) {
        hand_over(ctx, image::removed(dentry, op));
    }
    0
}

#[kprobe]
fn inode_link(ctx: ProbeContext) -> u32 {
    if let (Some(dentry), Some(new)) = (argument(&ctx, 0), argument(&ctx, 2)) {
        hand_over(&ctx, image::linked(dentry, new));
    }
    0
}

#[kprobe]
fn inode_rename(ctx: ProbeContext) -> u32 {
    if let (Some(dentry), Some(new), Some(flags)) = (argument(&ctx, 1), argument(&ctx, 3), ctx.arg::<u32>(4)) {
        let op = if flags & RENAME_EXCHANGE != 0 { ImageOp::Exchange } else { ImageOp::Rename };
        hand_over(&ctx, image::renamed(dentry, new, op));
    }
    0
}
