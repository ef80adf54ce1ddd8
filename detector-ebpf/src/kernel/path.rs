//! From a dentry to a path. `bpf_d_path` is allowed in few programs and on few kernels, so the walk is our own: it mirrors
//! `prepend_path` (fs/d_path.c), without its locks; a concurrent rename can mix old and new names, as it can there.

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

/// Writes the names from `from` up to `root` (or to the top of the tree) to `out`, in the form of
/// `detector_common::record::Path`.
#[inline(always)]
pub fn resolve(from: Place, root: Place, out: *mut Path) {
    walk(from.dentry, from.mnt, root.dentry, root.mnt, out);
}

#[inline(never)]
fn walk(mut dentry: Addr, mut mnt: Addr, root_dentry: Addr, root_mnt: Addr, out: *mut Path) {
    let mut used: u64 = 0;
    let mut flags = TEXT_TRUNCATED;
    for _ in 0..PATH_DEPTH {
        if dentry == root_dentry && mnt == root_mnt {
            flags = 0;
            break;
        }
        // SAFETY: pointers, from any address.
        let parent: Addr = unsafe { mem::read(dentry, OFF_DENTRY_PARENT.load()) };
        // SAFETY: as above.
        if mnt != 0 && dentry == unsafe { mem::read::<Addr>(mnt, OFF_VFSMOUNT_ROOT.load()) } {
            // `real_mount`: the vfsmount is a member of `struct mount`.
            let mount = mnt.wrapping_sub(OFF_MOUNT_MNT.load());
            // SAFETY: as above.
            let above: Addr = unsafe { mem::read(mount, OFF_MOUNT_PARENT.load()) };
            if above == mount {
                flags = 0;
                break;
            }
            // SAFETY: as above.
            dentry = unsafe { mem::read(mount, OFF_MOUNT_MOUNTPOINT.load()) };
            mnt = above.wrapping_add(OFF_MOUNT_MNT.load());
            continue;
        }
        if parent == dentry || parent == 0 {
            flags = 0;
            break;
        }
        // SAFETY: a pointer, from any address.
        let name: Addr = unsafe { mem::read(dentry, OFF_DENTRY_NAME.load()) };
        // The mask tells the verifier what the check below ensures.
        let at = (used & (PATH_CAPACITY as u64 - 1)) as usize;
        // SAFETY: `out` is a record in the ring buffer; `at` leaves room for a whole name.
        let copied = unsafe {
            mem::read_str((&raw mut (*out).bytes).cast::<u8>().add(at), NAME_CAPACITY as u32, name)
        };
        used += copied;
        if copied == 0 || used >= PATH_CAPACITY as u64 {
            break;
        }
        dentry = parent;
    }
    // SAFETY: `out` is a record in the ring buffer.
    unsafe {
        (*out).len = used as u32;
        (*out).flags = flags;
    }
}
