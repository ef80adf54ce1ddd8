//! From a dentry to a path. `bpf_d_path` is allowed in few programs and on few kernels, so the walk is our own: it
//! mirrors `prepend_path` (fs/d_path.c), without its locks; a concurrent rename can mix old and new names, as it can
//! there.

use detector_common::record::{NAME_CAPACITY, PATH_CAPACITY, PATH_DEPTH, Path, TEXT_TRUNCATED};

use super::{
    mem::{self, Addr},
    offsets::*,
};

/// A place in the tree of mounts: `struct path`.
#[derive(Clone, Copy)]
pub struct Place {
    /// The dentry.
    pub dentry: Addr,
    /// The vfsmount; 0: stay in the dentry's file system.
    pub mnt: Addr,
}

/// What a `struct path` says.
#[inline(always)]
pub fn place(path: Addr) -> Place {
    // SAFETY: pointers.
    unsafe { Place { dentry: mem::read(path, OFF_PATH_DENTRY.load()), mnt: mem::read(path, OFF_PATH_MNT.load()) } }
}

/// Where a mount is in the tree.
#[derive(Clone, Copy)]
pub struct Mount {
    /// The dentry that it covers.
    pub mountpoint: Addr,
    /// It is not in a tree, so far.
    pub is_loose: bool,
}

/// Of a vfsmount, which is a member of `struct mount` (`real_mount`, fs/mount.h). A mount that is in no tree is its own
/// parent.
#[inline(always)]
pub fn mount(mnt: Addr) -> Mount {
    let mount = mnt.wrapping_sub(OFF_MOUNT_MNT.load());
    // SAFETY: pointers.
    unsafe {
        Mount {
            mountpoint: mem::read(mount, OFF_MOUNT_MOUNTPOINT.load()),
            is_loose: mem::read::<Addr>(mount, OFF_MOUNT_PARENT.load()) == mount,
        }
    }
}

/// The dentry at the top of a mount.
#[inline(always)]
pub fn top(mnt: Addr) -> Addr {
    // SAFETY: a pointer.
    unsafe { mem::read(mnt, OFF_VFSMOUNT_ROOT.load()) }
}

/// The options of a mount that a process can set, such as `MNT_READONLY`: the others are the kernel's own notes
/// (`MNT_USER_SETTABLE_MASK`, include/linux/mount.h, 5.10 to 7.3).
#[inline(always)]
pub fn options(mnt: Addr) -> u32 {
    const SETTABLE: u32 = 0xff;
    // SAFETY: an `int`.
    unsafe { mem::read::<u32>(mnt, OFF_VFSMOUNT_FLAGS.load()) & SETTABLE }
}

/// Whether `dentry` is `root` or below it, or so deep that this cannot be told.
#[inline(always)]
pub fn is_below(mut dentry: Addr, root: Addr) -> bool {
    for _ in 0..PATH_DEPTH {
        if dentry == root {
            return true;
        }
        // SAFETY: a pointer, from any address.
        let parent: Addr = unsafe { mem::read(dentry, OFF_DENTRY_PARENT.load()) };
        if parent == dentry || parent == 0 {
            return false;
        }
        dentry = parent;
    }
    true
}

/// Writes the names from `dentry` up to `root`, or to the top of the file system, to `out`, in the form of
/// `detector_common::record::Path`.
#[inline(always)]
pub fn resolve_name(mut dentry: Addr, root: Addr, out: *mut Path) {
    start(out);
    for _ in 0..PATH_DEPTH {
        // SAFETY: a pointer, from any address.
        let parent: Addr = unsafe { mem::read(dentry, OFF_DENTRY_PARENT.load()) };
        if dentry == root || parent == dentry || parent == 0 {
            return complete(out);
        }
        if !append(dentry, out) {
            return;
        }
        dentry = parent;
    }
}

/// Writes the names from `from` up to `root` (or to the top of the tree) to `out`, in the form of
/// `detector_common::record::Path`.
#[inline(always)]
pub fn resolve(from: Place, root: Place, out: *mut Path) {
    walk(from.dentry, from.mnt, root.dentry, root.mnt, out);
}

#[inline(always)]
fn walk(mut dentry: Addr, mut mnt: Addr, root_dentry: Addr, root_mnt: Addr, out: *mut Path) {
    start(out);
    for _ in 0..PATH_DEPTH {
        if dentry == root_dentry && mnt == root_mnt {
            return complete(out);
        }
        // SAFETY: here and below, a pointer, from any address.
        let parent: Addr = unsafe { mem::read(dentry, OFF_DENTRY_PARENT.load()) };
        if mnt != 0 && dentry == top(mnt) {
            // `real_mount`: the vfsmount is a member of `struct mount`.
            let mount = mnt.wrapping_sub(OFF_MOUNT_MNT.load());
            // SAFETY: as above.
            let above: Addr = unsafe { mem::read(mount, OFF_MOUNT_PARENT.load()) };
            if above == mount {
                return complete(out);
            }
            // SAFETY: as above.
            dentry = unsafe { mem::read(mount, OFF_MOUNT_MOUNTPOINT.load()) };
            mnt = above.wrapping_add(OFF_MOUNT_MNT.load());
            continue;
        }
        if parent == dentry || parent == 0 {
            return complete(out);
        }
        if !append(dentry, out) {
            return;
        }
        dentry = parent;
    }
}

/// Nothing is in `out` yet.
#[inline(always)]
fn start(out: *mut Path) {
    // The length so far lives in the record and is loaded again at each step. The verifier then knows nothing of it
    // beyond what the mask says, so that all ways through a step look the same to it and are checked once.
    // SAFETY: `out` is a record in the ring buffer.
    unsafe {
        (&raw mut (*out).len).write_volatile(0);
        (*out).flags = TEXT_TRUNCATED;
    }
}

/// Adds the name of a dentry; `false`: there is no room, or it cannot be read.
#[inline(always)]
fn append(dentry: Addr, out: *mut Path) -> bool {
    // SAFETY: `out` is a record in the ring buffer, in which `at` leaves room for a whole name.
    unsafe {
        let used = &raw mut (*out).len;
        let len = u64::from(used.read_volatile());
        let at = mem::mask::<{ PATH_CAPACITY as u64 - 1 }>(len);
        if at != len {
            return false;
        }
        let name: Addr = mem::read(dentry, OFF_DENTRY_NAME.load());
        let copied = mem::read_str((&raw mut (*out).bytes).cast::<u8>().add(at as usize), NAME_CAPACITY as u32, name);
        used.write_volatile((len + copied) as u32);
        copied != 0
    }
}

/// The walk has reached the root.
#[inline(always)]
fn complete(out: *mut Path) {
    // SAFETY: `out` is a record in the ring buffer.
    unsafe { (*out).flags = 0 };
}
