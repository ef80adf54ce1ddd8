//! The changes that threads have requested on overlays. The first hook that sees a request is called before overlayfs
//! has checked the permissions. If overlayfs grants the request, it copies the file up or makes the same change to the
//! file in the upper layer, and a hook is called again. Only then has something changed. A thread makes one request at
//! a time.

use aya_ebpf::{bindings::BPF_ANY, macros::map, maps::HashMap};
use detector_common::vocabulary::{ImageOp, MountOp};

use super::seen::Known;
use crate::{
    emit,
    kernel::{Dentry, VfsMount, current_thread},
    mem::Lookup,
};

/// The change that each thread has requested, until it is known whether it is granted.
#[map]
static PENDING: HashMap<u64, Request> = HashMap::with_max_entries(8_192, 0);

/// A requested change.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Request {
    /// The name by which the file is changed, or the top of the mount.
    pub dentry: Dentry,
    /// The new name, or null if there is none.
    pub new_dentry: Dentry,
    /// The mount, or null if a file is changed.
    pub mount: VfsMount,
    /// The time of the request.
    pub time: u64,
    /// The number of the [`ImageOp`] or, with a `mount`, of the [`MountOp`]. 0 if another hook has already reported the
    /// change.
    op: u32,
    /// The new permissions for [`ImageOp::Chmod`]. The options before the change for [`MountOp::MountSetattr`].
    pub value: u32,
}

impl Request {
    /// Creates the request to change a file.
    #[inline(always)]
    pub fn to_change(dentry: Dentry, op: ImageOp, value: u32) -> Self {
        Self { value, ..Self::to_move(dentry, Dentry::NULL, op) }
    }

    /// Creates the request to give a file another name.
    #[inline(always)]
    pub fn to_move(dentry: Dentry, new_dentry: Dentry, op: ImageOp) -> Self {
        Self { dentry, new_dentry, mount: VfsMount::NULL, time: emit::now(), op: op.number(), value: 0 }
    }

    /// Creates the request to change the options of a mount.
    #[inline(always)]
    pub fn to_set_attributes(mount: VfsMount) -> Self {
        Self {
            dentry: mount.top(),
            new_dentry: Dentry::NULL,
            mount,
            time: emit::now(),
            op: MountOp::MountSetattr.number(),
            value: mount.options(),
        }
    }

    /// Returns how the file is to be changed, or `None` if the request is for a mount or the change is already
    /// reported.
    #[inline(always)]
    pub fn op(&self) -> Option<ImageOp> {
        ImageOp::from_number(self.op)
    }

    /// Returns whether the request is for this change of a file.
    #[inline(always)]
    pub fn is_to(&self, op: ImageOp) -> bool {
        self.op == op.number()
    }

    /// Returns whether this is one of the names in the request.
    #[inline(always)]
    pub fn is_by_name(&self, dentry: Dentry) -> bool {
        self.dentry == dentry || self.new_dentry == dentry
    }

    /// Keeps the request until it is known whether it is granted. Returns `false` if there is no room; the change then
    /// has to be reported as if the request were granted.
    #[inline(always)]
    pub fn defer(self) -> bool {
        PENDING.insert(current_thread(), self, BPF_ANY.into()).is_ok()
    }
}

/// Notes that the running thread changes a file by this name and that this change is reported. If the file is copied
/// up, that belongs to the change.
#[inline(always)]
pub fn note_reported(dentry: Dentry, new_dentry: Dentry) {
    let reported = Request { dentry, new_dentry, mount: VfsMount::NULL, time: emit::now(), op: 0, value: 0 };
    // If there is no room for the note, the copy-up is reported too.
    let _is_kept = reported.defer();
}

/// Returns the request of the running thread.
#[inline(always)]
pub fn request() -> Option<Request> {
    PENDING.copied(&current_thread())
}

/// Takes the request of the running thread, if it is for this change of a file.
#[inline(always)]
pub fn take(op: ImageOp) -> Option<Request> {
    take_number(op.number())
}

/// Takes the request of the running thread, if it is for this change of a mount.
#[inline(always)]
pub fn take_of_mount(op: MountOp) -> Option<Request> {
    take_number(op.number())
}

#[inline(always)]
fn take_number(op: u32) -> Option<Request> {
    let request = request().filter(|request| request.op == op)?;
    forget();
    Some(request)
}

/// Returns the request of the running thread, if it has this name. `file` is what is known about the file: if the
/// content was changed after the request, the request was refused and is not the reason for what happens now.
#[inline(always)]
pub fn request_by_name(dentry: Dentry, file: Known) -> Option<Request> {
    let request = request()?;
    let is_old = file.last > request.time;
    (!is_old && request.is_by_name(dentry)).then_some(request)
}

/// Returns the request of the running thread, if overlayfs now performs it on the file that has this name in the upper
/// layer.
#[inline(always)]
pub fn request_above(upper: Dentry) -> Option<Request> {
    let request = request()?;
    (request.op != 0 && request.dentry.inode().is_above(upper)).then_some(request)
}

/// Forgets the request of the running thread, because the change is reported or the thread ends.
#[inline(always)]
pub fn forget() {
    let thread = current_thread();
    // A look is cheaper than a removal, and nearly always enough.
    if PENDING.get_ptr(thread).is_some() {
        let _gone_already = PENDING.remove(thread);
    }
}
