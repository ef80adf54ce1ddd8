//! Turns a dentry into a path. `bpf_d_path` is allowed in few programs and on few kernels, so the probes walk the path
//! themselves. The walk is that of `prepend_path` (fs/d_path.c) without its locks, so during a concurrent rename a path
//! can contain both old and new names.

use detector_common::record::{
    self, NAME_CAPACITY, PATH_CAPACITY, PATH_DEPTH, PATH_DETACHED, PATH_DIRECT, TEXT_TRUNCATED,
};

use super::{
    offsets::*,
    pointer::{Dentry, Path, Ptr, VfsMount, kind},
};
use crate::{mem, texts::Texts};

/// A place in the tree of mounts, as in a `struct path`.
#[derive(Clone, Copy)]
pub struct Place {
    /// The dentry.
    pub dentry: Dentry,
    /// The mount through which the dentry is seen, or null if only the file system is known.
    pub mount: VfsMount,
}

impl PartialEq for Place {
    /// This is one comparison, for the reason that [`mem::is_same`] gives.
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        let dentries = self.dentry.address() ^ other.dentry.address();
        let mounts = self.mount.address() ^ other.mount.address();
        mem::is_same(dentries | mounts, 0)
    }
}

impl Path {
    /// Returns the place.
    #[inline(always)]
    pub fn place(self) -> Place {
        Place { dentry: self.follow(&OFF_PATH_DENTRY), mount: self.follow(&OFF_PATH_MNT) }
    }
}

/// `struct mount`, of which a `struct vfsmount` is a member.
type Mount = Ptr<kind::Mount>;

impl Mount {
    /// Returns the mount on which this one is mounted. A mount that is in no tree is its own parent.
    #[inline(always)]
    fn parent(self) -> Self {
        self.follow(&OFF_MOUNT_PARENT)
    }

    /// Returns the dentry on which this is mounted.
    #[inline(always)]
    fn mountpoint(self) -> Dentry {
        self.follow(&OFF_MOUNT_MOUNTPOINT)
    }
}

impl VfsMount {
    /// Returns the `struct mount` that contains this one, as `real_mount` does (fs/mount.h).
    #[inline(always)]
    fn mount(self) -> Mount {
        self.before(&OFF_MOUNT_MNT)
    }

    /// Returns the dentry on which this is mounted.
    #[inline(always)]
    pub fn mountpoint(self) -> Dentry {
        self.mount().mountpoint()
    }

    /// Returns whether this is in no tree, as a new mount is until it is moved to its place.
    #[inline(always)]
    pub fn is_detached(self) -> bool {
        let mount = self.mount();
        mount.parent() == mount
    }

    /// Returns the dentry at the top of the mount.
    #[inline(always)]
    pub fn top(self) -> Dentry {
        self.follow(&OFF_VFSMOUNT_ROOT)
    }

    /// Returns the options of the mount that a process can set, such as `MNT_READONLY`. The other flags are the
    /// kernel's internal state (`MNT_USER_SETTABLE_MASK`, include/linux/mount.h, 5.10 to 7.3).
    #[inline(always)]
    pub fn options(self) -> u32 {
        const SETTABLE: u32 = 0xff;
        self.read::<u32>(&OFF_VFSMOUNT_FLAGS) & SETTABLE
    }
}

impl Dentry {
    /// Returns whether this is `root` or below it. The result is also `true` if this is too deep to find out.
    #[inline(always)]
    pub fn is_below(self, root: Self) -> bool {
        let mut dentry = self;
        for _ in 0..PATH_DEPTH {
            if dentry == root {
                return true;
            }
            let parent = dentry.parent();
            if parent == dentry || parent.is_null() {
                return false;
            }
            dentry = parent;
        }
        true
    }

    /// Adds the names from here up to `root`, or to the top of the file system, to the texts.
    #[inline(always)]
    pub fn resolve(self, root: Self, out: &mut record::Path, texts: &mut Texts) {
        let without_mounts = |dentry| Place { dentry, mount: VfsMount::NULL };
        without_mounts(self).resolve(without_mounts(root), out, texts);
    }
}

impl Place {
    /// Adds the names from here up to `root`, or to the top of the tree of mounts, to the texts.
    #[inline(always)]
    pub fn resolve(self, root: Self, out: &mut record::Path, texts: &mut Texts) {
        let mut path = PathWriter { start: texts.used(), texts };
        let flags = path.add_names(self, root);
        mem::store(&mut out.len, path.len());
        mem::store(&mut out.flags, flags);
    }
}

/// A path that is being written.
struct PathWriter<'a> {
    texts: &'a mut Texts,
    /// Where the path begins.
    start: u32,
}

impl PathWriter<'_> {
    /// Adds the names from a place up to a root. Without a mount, they end at the top of the file system. Returns the
    /// flags of the path.
    #[inline(always)]
    fn add_names(&mut self, place: Place, root: Place) -> u32 {
        let Place { mut dentry, mut mount } = place;
        let mut direct = PATH_DIRECT;
        for _ in 0..PATH_DEPTH {
            if (Place { dentry, mount }) == root {
                return if dentry.parent() == dentry { direct } else { 0 };
            }
            // The top of no mount is null.
            if dentry == mount.top() {
                let mounted = mount.mount();
                let above = mounted.parent();
                if above == mounted {
                    return if dentry.parent() == dentry { direct } else { 0 };
                }
                direct = 0;
                dentry = mounted.mountpoint();
                mount = above.after(&OFF_MOUNT_MNT);
                continue;
            }
            let parent = dentry.parent();
            if parent == dentry || parent.is_null() {
                if mount.is_null() {
                    return PATH_DIRECT;
                }
                return if self.add_name(dentry) { PATH_DETACHED } else { TEXT_TRUNCATED };
            }
            if !self.add_name(dentry) {
                return TEXT_TRUNCATED;
            }
            dentry = parent;
        }
        TEXT_TRUNCATED
    }

    /// Adds the name of a dentry. Returns `false` if the path is too long or the name cannot be read.
    #[inline(always)]
    fn add_name(&mut self, dentry: Dentry) -> bool {
        if self.len() >= PATH_CAPACITY as u32 {
            return false;
        }
        let Some(room) = self.texts.room::<NAME_CAPACITY>() else { return false };
        let copied = dentry.name().copy_to(room) as u32;
        self.texts.grow(copied);
        copied != 0
    }

    /// Returns the length so far.
    #[inline(always)]
    fn len(&self) -> u32 {
        self.texts.used().wrapping_sub(self.start)
    }
}
