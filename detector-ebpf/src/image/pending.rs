//! What a thread has asked to change on an overlay. The first hook that it passes comes before overlayfs has looked at
//! the permissions; when overlayfs goes on to do it, it copies the file up or does the same to the file in the upper
//! layer, and passes a hook again. Only then there is a change. A thread asks for one thing at a time.

use aya_ebpf::{bindings::BPF_ANY, macros::map, maps::HashMap};
use detector_common::vocabulary::{ImageOp, MountOp};

use super::seen::Known;
use crate::{
    emit,
    kernel::{Dentry, VfsMount, current_thread},
    mem::Lookup,
};

/// Thread → the change that it has asked for, until it is known whether it may.
#[map]
static PENDING: HashMap<u64, Request> = HashMap::with_max_entries(8_192, 0);

/// What was asked for.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Request {
    /// The name by which the file is changed, or the top of the mount.
    pub dentry: Dentry,
    /// The new name, where there are two.
    pub new_dentry: Dentry,
    /// The mount, where one is changed.
    pub mount: VfsMount,
    /// When.
    pub time: u64,
    /// Number of the [`ImageOp`] or, with a `mount`, of the [`MountOp`]; 0: it is reported already, by another hook.
    op: u32,
    /// [`ImageOp::Chmod`]: the new permissions. [`MountOp::MountSetattr`]: the options before.
    pub value: u32,
}

impl Request {
    /// A file is to be changed.
    #[inline(always)]
    pub fn to_change(dentry: Dentry, op: ImageOp, value: u32) -> Self {
        Self { value, ..Self::to_move(dentry, Dentry::NULL, op) }
    }

    /// A file is to get another name.
    #[inline(always)]
    pub fn to_move(dentry: Dentry, new_dentry: Dentry, op: ImageOp) -> Self {
        Self { dentry, new_dentry, mount: VfsMount::NULL, time: emit::now(), op: op.number(), value: 0 }
    }

    /// A mount is to get other options.
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

    /// How a file is to be changed. `None`: it is a mount that is to be changed, or the change is reported already.
    #[inline(always)]
    pub fn op(&self) -> Option<ImageOp> {
        ImageOp::from_number(self.op)
    }

    /// Whether a file is to be changed in this way.
    #[inline(always)]
    pub fn is_to(&self, op: ImageOp) -> bool {
        self.op == op.number()
    }

    /// Whether this is one of the names by which something is asked for.
    #[inline(always)]
    pub fn is_by_name(&self, dentry: Dentry) -> bool {
        self.dentry == dentry || self.new_dentry == dentry
    }

    /// Keeps the request until it is known whether it is granted; `false`: there is no room, so that it has to be
    /// reported as if it were.
    #[inline(always)]
    pub fn defer(self) -> bool {
        PENDING.insert(current_thread(), self, BPF_ANY.into()).is_ok()
    }
}

/// Notes that the running thread changes a file by this name, and that this is reported: a copy of the file to the
/// upper layer belongs to it.
#[inline(always)]
pub fn note_reported(dentry: Dentry, new_dentry: Dentry) {
    let reported = Request { dentry, new_dentry, mount: VfsMount::NULL, time: emit::now(), op: 0, value: 0 };
    // Without room for the note the copy is reported too.
    let _is_kept = reported.defer();
}

/// What the running thread has asked for.
#[inline(always)]
pub fn request() -> Option<Request> {
    PENDING.copied(&current_thread())
}

/// Takes what the running thread has asked for, if it is this change of a file.
#[inline(always)]
pub fn take(op: ImageOp) -> Option<Request> {
    take_number(op.number())
}

/// Takes what the running thread has asked for, if it is this change of a mount.
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

/// What the running thread has asked to do by this name. `content`: what is known of the file's content, so that what
/// was refused is not taken for what made the thread write later.
#[inline(always)]
pub fn request_by_name(dentry: Dentry, content: Known) -> Option<Request> {
    let request = request()?;
    let is_old = content.last > request.time;
    (!is_old && request.is_by_name(dentry)).then_some(request)
}

/// What the running thread has asked for, if overlayfs now does it to the file in the upper layer that has this name
/// there.
#[inline(always)]
pub fn request_above(upper: Dentry) -> Option<Request> {
    let request = request()?;
    (request.op != 0 && request.dentry.inode().upper_dentry() == upper).then_some(request)
}

/// Forgets what the running thread has asked for: it is reported, or the thread ends.
#[inline(always)]
pub fn forget() {
    let _nothing_asked = PENDING.remove(current_thread());
}
