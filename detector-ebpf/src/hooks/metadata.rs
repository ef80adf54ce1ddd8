//! What a file has besides its content being changed.
//!
//! `security_inode_setattr(struct mnt_idmap *idmap, struct dentry *dentry, struct iattr *attr)`,
//! `security_inode_setxattr(idmap, dentry, const char *name, …)` and `security_inode_removexattr(idmap, dentry, name)`
//! (security/security.c; `struct user_namespace *` in front to 6.2, nothing on 5.10); `security_inode_set_acl(idmap,
//! dentry, …)` and `security_inode_remove_acl(idmap, dentry, …)` (from 6.2; before, an access list is an attribute);
//! `vfs_fileattr_set(idmap, dentry, …)` (fs/ioctl.c, fs/file_attr.c, from 5.13); before, `ovl_ioctl(struct file *file,
//! unsigned int cmd, unsigned long arg)` at both ends (fs/overlayfs/file.c, to 5.12); `security_inode_copy_up(struct
//! dentry *src, struct cred **new)`, called when overlayfs copies a file to the upper layer (5.10 to 7.3).

use aya_ebpf::{
    macros::{kprobe, kretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use detector_common::record::{
    OP_CHMOD, OP_CHOWN, OP_REMOVE_XATTR, OP_SET_ACL, OP_SET_CAPABILITY, OP_SET_FLAGS, OP_SET_XATTR, OP_TRUNCATE,
    OP_UTIMES,
};

use super::argument;
use crate::{
    image::{self, report::hand_over},
    kernel::{
        attribute, file,
        mem::Addr,
        offsets::{ARG_REMOVEXATTR_DENTRY, ARG_SETATTR_DENTRY, ARG_SETXATTR_DENTRY},
    },
};

#[kprobe]
fn inode_setattr(ctx: ProbeContext) -> u32 {
    let position = ARG_SETATTR_DENTRY.load();
    if let (Some(dentry), Some(attributes)) = (argument(&ctx, position), argument(&ctx, position + 1)) {
        let (op, value) = match attribute::change(attributes) {
            attribute::SIZE => (OP_TRUNCATE, 0),
            attribute::OWNER => (OP_CHOWN, 0),
            attribute::MODE => (OP_CHMOD, attribute::permissions(attributes)),
            attribute::TIMES => (OP_UTIMES, 0),
            _ => return 0,
        };
        hand_over(&ctx, image::changing(dentry, op, value));
    }
    0
}

#[kprobe]
fn inode_setxattr(ctx: ProbeContext) -> u32 {
    let position = ARG_SETXATTR_DENTRY.load();
    if let (Some(dentry), Some(name)) = (argument(&ctx, position), argument(&ctx, position + 1)) {
        let op = match attribute::kind(name) {
            attribute::CAPABILITY => OP_SET_CAPABILITY,
            attribute::ACL => OP_SET_ACL,
            _ => OP_SET_XATTR,
        };
        hand_over(&ctx, image::changing(dentry, op, 0));
    }
    0
}

#[kprobe]
fn inode_removexattr(ctx: ProbeContext) -> u32 {
    let position = ARG_REMOVEXATTR_DENTRY.load();
    if let (Some(dentry), Some(name)) = (argument(&ctx, position), argument(&ctx, position + 1)) {
        let op = if attribute::kind(name) == attribute::ACL { OP_SET_ACL } else { OP_REMOVE_XATTR };
        hand_over(&ctx, image::changing(dentry, op, 0));
    }
    0
}

#[kprobe]
fn inode_set_acl(ctx: ProbeContext) -> u32 {
    changing(&ctx, 1, OP_SET_ACL)
}

#[kprobe]
fn inode_remove_acl(ctx: ProbeContext) -> u32 {
    changing(&ctx, 1, OP_SET_ACL)
}

#[kprobe]
fn fileattr_set(ctx: ProbeContext) -> u32 {
    changing(&ctx, 1, OP_SET_FLAGS)
}

/// The commands of ioctl(2) that set an inode's flags: `FS_IOC_SETFLAGS` and `FS_IOC_FSSETXATTR`
/// (include/uapi/linux/fs.h).
const SET_FLAGS: [u32; 2] = [0x4008_6602, 0x401c_5820];

#[kprobe]
fn overlay_ioctl(ctx: ProbeContext) -> u32 {
    if let (Some(file), Some(command)) = (ctx.arg(0), ctx.arg::<u32>(1))
        && (command == SET_FLAGS[0] || command == SET_FLAGS[1])
    {
        hand_over(&ctx, image::changing(file::path(file).0, OP_SET_FLAGS, 0));
    }
    0
}

#[kretprobe]
fn overlay_ioctl_return(ctx: RetProbeContext) -> u32 {
    hand_over(&ctx, image::ended(OP_SET_FLAGS, ctx.ret::<i64>() == 0));
    0
}

#[inline(always)]
fn changing(ctx: &ProbeContext, position: usize, op: u32) -> u32 {
    if let Some(dentry) = ctx.arg::<Addr>(position) {
        hand_over(ctx, image::changing(dentry, op, 0));
    }
    0
}

#[kprobe]
fn inode_copy_up(ctx: ProbeContext) -> u32 {
    if let Some(dentry) = ctx.arg(0) {
        hand_over(&ctx, image::copied_up(dentry));
    }
    0
}
