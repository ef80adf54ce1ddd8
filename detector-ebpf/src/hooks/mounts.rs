//! Mounts and roots being changed.
//!
//! `security_sb_mount(const char *dev_name, const struct path *path, const char *type, unsigned long flags, void
//! *data)`, for mount(2), before the privilege is checked (`path_mount`, fs/namespace.c); `security_move_mount(const
//! struct path *from_path, const struct path *to_path)`, `security_sb_umount(struct vfsmount *mnt, int flags)`,
//! `security_sb_pivotroot(const struct path *old_path, const struct path *new_path)` and `security_path_chroot(const
//! struct path *path)`, after it (security/security.c, 5.10 to 7.3); `security_sb_remount(struct super_block *sb, void
//! *mnt_opts)`, after it too, for whatever gives a file system other options, also fsconfig(2) (`reconfigure_super`,
//! fs/super.c, 5.10 to 7.3); mount_setattr(2) itself, at both ends, for the kernel asks nobody about it and finds the
//! mount in a function that compilers inline or give other arguments (`do_mount_setattr`, fs/namespace.c, from 5.12).

use aya_ebpf::{
    macros::{kprobe, kretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use detector_common::record::{OP_BIND, OP_CHROOT, OP_MOUNT, OP_MOVE_MOUNT, OP_PIVOT_ROOT, OP_REMOUNT, OP_UMOUNT};

use crate::{
    image::{self, report::hand_over},
    kernel::{
        path::{mount, place},
        task,
    },
};

/// Flags of mount(2) (include/uapi/linux/mount.h). The last are of calls that change how mounts are passed on, and no
/// file.
const MS_REMOUNT: u64 = 1 << 5;
const MS_BIND: u64 = 1 << 12;
const MS_MOVE: u64 = 1 << 13;
const MS_PROPAGATION: u64 = 0b1111 << 17;

#[kprobe]
fn sb_mount(ctx: ProbeContext) -> u32 {
    if let (Some(path), Some(flags)) = (ctx.arg(1), ctx.arg::<u64>(3))
        && task::may_mount(task::current())
    {
        let op = if flags & MS_REMOUNT != 0 {
            if flags & MS_BIND == 0 {
                // Of a file system: `sb_remount` follows.
                return 0;
            }
            OP_REMOUNT
        } else if flags & MS_BIND != 0 {
            OP_BIND
        } else if flags & MS_PROPAGATION != 0 {
            return 0;
        } else if flags & MS_MOVE != 0 {
            OP_MOVE_MOUNT
        } else {
            OP_MOUNT
        };
        hand_over(&ctx, image::mounted(place(path).dentry, op));
    }
    0
}

#[kprobe]
fn sb_remount(ctx: ProbeContext) -> u32 {
    if let Some(sb) = ctx.arg(0) {
        hand_over(&ctx, image::remounted(sb));
    }
    0
}

#[kprobe]
fn mount_setattr(ctx: ProbeContext) -> u32 {
    hand_over(&ctx, image::changing_mounts());
    0
}

#[kretprobe]
fn mount_setattr_return(ctx: RetProbeContext) -> u32 {
    hand_over(&ctx, image::changed_mounts());
    0
}

#[kprobe]
fn move_mount(ctx: ProbeContext) -> u32 {
    if let (Some(from), Some(to)) = (ctx.arg(0), ctx.arg(1)) {
        let op = if mount(place(from).mnt).is_loose { OP_MOUNT } else { OP_MOVE_MOUNT };
        hand_over(&ctx, image::mounted(place(to).dentry, op));
    }
    0
}

#[kprobe]
fn sb_umount(ctx: ProbeContext) -> u32 {
    if let Some(mnt) = ctx.arg(0) {
        hand_over(&ctx, image::mounted(mount(mnt).mountpoint, OP_UMOUNT));
    }
    0
}

#[kprobe]
fn sb_pivotroot(ctx: ProbeContext) -> u32 {
    if let Some(new) = ctx.arg(1) {
        hand_over(&ctx, image::rooted(place(new), OP_PIVOT_ROOT));
    }
    0
}

#[kprobe]
fn path_chroot(ctx: ProbeContext) -> u32 {
    if let Some(path) = ctx.arg(0) {
        hand_over(&ctx, image::rooted(place(path), OP_CHROOT));
    }
    0
}
