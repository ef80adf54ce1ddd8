//! Changes of mounts and roots.
//!
//! These are the hooked functions (security/security.c, 5.10 to 7.3, unless another file is named):
//!
//! - `security_sb_mount(const char *dev_name, const struct path *path, const char *type, unsigned long flags, void
//!   *data)`, for mount(2). It is called before the privilege is checked (`path_mount`, fs/namespace.c).
//! - `security_move_mount(const struct path *from_path, const struct path *to_path)`, `security_sb_umount(struct
//!   vfsmount *mnt, int flags)`, `security_sb_pivotroot(const struct path *old_path, const struct path *new_path)` and
//!   `security_path_chroot(const struct path *path)`. They are called after the privilege is checked.
//! - `security_sb_remount(struct super_block *sb, void *mnt_opts)`. It is called after the privilege is checked, too,
//!   by all calls that change the options of a file system, including fsconfig(2) (`reconfigure_super`, fs/super.c,
//!   5.10 to 7.3).
//! - mount_setattr(2) itself (fs/namespace.c, from 5.12), at its entry and its return. The kernel calls no security
//!   hook for it, and looks up the mount in a function that compilers inline or give other arguments
//!   (`do_mount_setattr`).

use aya_ebpf::{
    macros::{kprobe, kretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use detector_common::vocabulary::MountOp;

use super::argument;
use crate::{
    image::{self, report::hand_over},
    kernel::{Path, Task, VfsMount},
};

/// Flags of mount(2) (include/uapi/linux/mount.h). `MS_PROPAGATION` has the flags of calls that change how mounts are
/// propagated. They change no file.
const MS_REMOUNT: u64 = 1 << 5;
const MS_BIND: u64 = 1 << 12;
const MS_MOVE: u64 = 1 << 13;
const MS_PROPAGATION: u64 = 0b1111 << 17;

#[kprobe]
fn sb_mount(ctx: ProbeContext) -> u32 {
    let path: Option<Path> = argument(&ctx, 1);
    if let (Some(path), Some(flags)) = (path, ctx.arg::<u64>(3))
        && Task::current().credentials().may_mount()
    {
        let op = if flags & MS_REMOUNT != 0 {
            if flags & MS_BIND == 0 {
                // The options of the file system are changed, so `sb_remount` follows.
                return 0;
            }
            MountOp::Remount
        } else if flags & MS_BIND != 0 {
            MountOp::Bind
        } else if flags & MS_PROPAGATION != 0 {
            return 0;
        } else if flags & MS_MOVE != 0 {
            MountOp::MoveMount
        } else {
            MountOp::Mount
        };
        hand_over(&ctx, image::mounted(path.place().dentry, op));
    }
    0
}

#[kprobe]
fn sb_remount(ctx: ProbeContext) -> u32 {
    if let Some(superblock) = argument(&ctx, 0) {
        hand_over(&ctx, image::remounted(superblock));
    }
    0
}

#[kprobe]
fn mount_setattr(ctx: ProbeContext) -> u32 {
    hand_over(&ctx, image::setting_attributes());
    0
}

#[kretprobe]
fn mount_setattr_return(ctx: RetProbeContext) -> u32 {
    hand_over(&ctx, image::set_attributes());
    0
}

#[kprobe]
fn move_mount(ctx: ProbeContext) -> u32 {
    let paths: [Option<Path>; 2] = [argument(&ctx, 0), argument(&ctx, 1)];
    if let [Some(from), Some(to)] = paths {
        let op = if from.place().mount.is_detached() { MountOp::Mount } else { MountOp::MoveMount };
        hand_over(&ctx, image::mounted(to.place().dentry, op));
    }
    0
}

#[kprobe]
fn sb_umount(ctx: ProbeContext) -> u32 {
    let mount: Option<VfsMount> = argument(&ctx, 0);
    if let Some(mount) = mount {
        hand_over(&ctx, image::mounted(mount.mountpoint(), MountOp::Umount));
    }
    0
}

#[kprobe]
fn sb_pivotroot(ctx: ProbeContext) -> u32 {
    rooted(argument(&ctx, 1), &ctx, MountOp::PivotRoot)
}

#[kprobe]
fn path_chroot(ctx: ProbeContext) -> u32 {
    rooted(argument(&ctx, 0), &ctx, MountOp::Chroot)
}

#[inline(always)]
fn rooted(path: Option<Path>, ctx: &ProbeContext, op: MountOp) -> u32 {
    if let Some(path) = path {
        hand_over(ctx, image::rooted(path.place(), op));
    }
    0
}
