//! Changes of the metadata of files.
//!
//! These are the hooked functions:
//!
//! - `security_inode_setattr(struct mnt_idmap *idmap, struct dentry *dentry, struct iattr *attr)`,
//!   `security_inode_setxattr(idmap, dentry, const char *name, …)` and `security_inode_removexattr(idmap, dentry,
//!   name)` (security/security.c). Up to 6.2, the first argument is a `struct user_namespace *`; on 5.10, there is no
//!   such argument.
//! - `security_inode_set_acl(idmap, dentry, …)` and `security_inode_remove_acl(idmap, dentry, …)` (from 6.2). Before,
//!   an access control list is an extended attribute.
//! - `vfs_fileattr_set(idmap, dentry, …)` (fs/ioctl.c, fs/file_attr.c, from 5.13). Before, `ovl_ioctl(struct file
//!   *file, unsigned int cmd, unsigned long arg)` (fs/overlayfs/file.c, to 5.12), at its entry and its return.
//! - `security_inode_copy_up(struct dentry *src, struct cred **new)`, which is called when overlayfs copies a file to
//!   the upper layer (5.10 to 7.3).

use aya_ebpf::{
    macros::{kprobe, kretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use detector_common::vocabulary::ImageOp;

use super::{argument, argument_at};
use crate::{
    image::{self, report::hand_over},
    kernel::{
        ARG_REMOVEXATTR_DENTRY, ARG_SETATTR_DENTRY, ARG_SETXATTR_DENTRY, AttributeChange, Attributes, File, XattrKind,
    },
};

#[kprobe]
fn inode_setattr(ctx: ProbeContext) -> u32 {
    let position = ARG_SETATTR_DENTRY.load();
    let attributes: Option<Attributes> = argument_at(&ctx, position + 1);
    if let (Some(dentry), Some(attributes)) = (argument_at(&ctx, position), attributes) {
        let (op, value) = match attributes.change() {
            AttributeChange::Size => (ImageOp::Truncate, 0),
            AttributeChange::Ownership => (ImageOp::Chown, 0),
            AttributeChange::Mode => (ImageOp::Chmod, attributes.permissions()),
            AttributeChange::Timestamps => (ImageOp::Utimes, 0),
            AttributeChange::None => return 0,
        };
        hand_over(&ctx, image::changing(dentry, op, value));
    }
    0
}

#[kprobe]
fn inode_setxattr(ctx: ProbeContext) -> u32 {
    let position = ARG_SETXATTR_DENTRY.load();
    if let (Some(dentry), Some(name)) = (argument_at(&ctx, position), argument_at(&ctx, position + 1)) {
        let op = match XattrKind::of(name) {
            XattrKind::Capability => ImageOp::SetCapability,
            XattrKind::Acl => ImageOp::SetAcl,
            XattrKind::Other => ImageOp::SetXattr,
        };
        hand_over(&ctx, image::changing(dentry, op, 0));
    }
    0
}

#[kprobe]
fn inode_removexattr(ctx: ProbeContext) -> u32 {
    let position = ARG_REMOVEXATTR_DENTRY.load();
    if let (Some(dentry), Some(name)) = (argument_at(&ctx, position), argument_at(&ctx, position + 1)) {
        let op = if XattrKind::of(name) == XattrKind::Acl { ImageOp::SetAcl } else { ImageOp::RemoveXattr };
        hand_over(&ctx, image::changing(dentry, op, 0));
    }
    0
}

#[kprobe]
fn inode_set_acl(ctx: ProbeContext) -> u32 {
    changing(&ctx, 1, ImageOp::SetAcl)
}

#[kprobe]
fn inode_remove_acl(ctx: ProbeContext) -> u32 {
    changing(&ctx, 1, ImageOp::SetAcl)
}

#[kprobe]
fn fileattr_set(ctx: ProbeContext) -> u32 {
    changing(&ctx, 1, ImageOp::SetFlags)
}

/// The commands of ioctl(2) that set an inode's flags: `FS_IOC_SETFLAGS` and `FS_IOC_FSSETXATTR`
/// (include/uapi/linux/fs.h).
const SET_FLAGS: [u32; 2] = [0x4008_6602, 0x401c_5820];

#[kprobe]
fn overlay_ioctl(ctx: ProbeContext) -> u32 {
    let file: Option<File> = argument(&ctx, 0);
    if let (Some(file), Some(command)) = (file, ctx.arg::<u32>(1))
        && (command == SET_FLAGS[0] || command == SET_FLAGS[1])
    {
        hand_over(&ctx, image::changing(file.dentry(), ImageOp::SetFlags, 0));
    }
    0
}

#[kretprobe]
fn overlay_ioctl_return(ctx: RetProbeContext) -> u32 {
    hand_over(&ctx, image::ended(ImageOp::SetFlags, ctx.ret::<i64>() == 0));
    0
}

#[inline(always)]
fn changing(ctx: &ProbeContext, position: usize, op: ImageOp) -> u32 {
    if let Some(dentry) = argument(ctx, position) {
        hand_over(ctx, image::changing(dentry, op, 0));
    }
    0
}

#[kprobe]
fn inode_copy_up(ctx: ProbeContext) -> u32 {
    if let Some(dentry) = argument(&ctx, 0) {
        hand_over(&ctx, image::copied_up(dentry));
    }
    0
}
