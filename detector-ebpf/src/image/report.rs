//! The dear part: who did it, the paths, the record.

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_ANY, BPF_NOEXIST},
};
use detector_common::{
    map::{Loss, Seen, SeenKey},
    record::{
        ImageMoveRecord, ImageWriteRecord, KIND_IMAGE_MOVE, KIND_IMAGE_WRITE, KIND_MAP_EXEC, LAYER_NEW, OP_CREATE,
        OP_MAP_EXEC, OP_WRITE,
    },
};

use super::{Image, number};
use crate::{
    container::{self, Actor},
    emit,
    kernel::{
        cgroup, file,
        mem::Addr,
        path::{self, Place},
        task,
    },
    maps::{CHANGE, REPORTERS, SEEN, lost},
};

/// The [`Change::class`] of a change that is not kept in `SEEN`: each is reported.
pub const EACH: u32 = u32::MAX;

/// A change to report.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Change {
    /// The container whose image it is, or that the process is in.
    pub owner: u64,
    /// The file system.
    pub device: u32,
    /// One of the `OP_` constants.
    pub op: u32,
    /// As in the record.
    pub value: u32,
    /// As in `SeenKey`, or [`EACH`].
    pub class: u32,
    /// Not 0: this makes the file.
    pub is_new: u32,
    /// Reserved, 0.
    pub reserved: u32,
    /// The file, or the directory in which a name is made.
    pub inode: Addr,
    /// Its name.
    pub dentry: Addr,
    /// The mount through which it is reached, if the path is to be the one from the process's root; 0: from the root of
    /// the image.
    pub mnt: Addr,
    /// The other name; 0: there is none.
    pub new_dentry: Addr,
    /// Bytes that the call asked to write.
    pub bytes: u64,
}

impl Change {
    /// Of a file of an image.
    #[inline(always)]
    pub(super) fn of(image: Image, inode: Addr, dentry: Addr, op: u32, class: u32) -> Self {
        Self {
            owner: image.owner,
            device: image.device,
            op,
            value: 0,
            class,
            is_new: 0,
            reserved: 0,
            inode,
            dentry,
            mnt: 0,
            new_dentry: 0,
            bytes: 0,
        }
    }
}

/// Reports a change from a kprobe, at whose end this is to be called: it does not return, unless it failed. So the dear part
/// is in the kernel, and is verified, once for all hooks.
#[inline(always)]
pub fn hand_over(context: &impl EbpfContext, change: Option<Change>) {
    let Some(change) = change else { return };
    let Some(place) = CHANGE.get_ptr_mut(0) else { return };
    // SAFETY: the element of this CPU, which nobody else uses before the program that is called; see `CHANGE`.
    unsafe {
        place.write(change);
        REPORTERS.tail_call(context, u32::from(change.new_dentry != 0));
    }
    lost(Loss::Call);
}

/// Reports what a kprobe has [handed over](hand_over). `MOVE`: there are two names.
#[inline(always)]
pub fn take_over<const MOVE: bool>() {
    if let Some(change) = CHANGE.get_ptr(0) {
        // SAFETY: a live element, written by the program that has called this one.
        report::<MOVE>(unsafe { &*change });
    }
}

/// Reports a change. `MOVE`: there are two names.
#[inline(always)]
pub fn report<const MOVE: bool>(change: &Change) {
    let task = task::current();
    let Actor::Process(container, origin) = container::actor(task, change.owner, change.device) else {
        return;
    };
    let mut identity = file::identity(change.inode);
    if change.is_new != 0 {
        identity.layer = LAYER_NEW;
    }
    // Kept before it is sent: if the ring buffer is full, the daemon finds it here.
    let time = emit::now();
    let seen = Seen {
        first: time,
        last: time,
        count: u64::from(change.op == OP_WRITE),
        bytes: change.bytes,
        op: change.op,
        reported: 0,
        pid: task::current_tgid(),
        layer: identity.layer,
    };
    let mut key =
        SeenKey { container: change.owner, inode: number(change.inode), dev: change.device, class: change.class };
    if change.class != EACH {
        // A created file is a new one, even if its inode number was seen before. So is whatever is reported again of it.
        let flags = if change.op == OP_CREATE || change.class != 0 { BPF_ANY } else { BPF_NOEXIST };
        if SEEN.insert(key, seen, flags.into()).is_err() {
            if SEEN.get_ptr(key).is_some() {
                // Another CPU was first, and reports.
                return;
            }
            lost(Loss::SeenFull);
        }
    }
    if !send::<MOVE>(change, &identity, container, origin, task) {
        if change.class == EACH {
            key.class = change.op;
            if SEEN.insert(key, seen, BPF_NOEXIST.into()).is_err() && SEEN.get_ptr(key).is_none() {
                lost(Loss::SeenFull);
            }
        }
        return;
    }
    if change.class != EACH
        && let Some(kept) = SEEN.get_ptr_mut(key)
    {
        // SAFETY: a live map element; a single aligned store.
        unsafe { (&raw mut (*kept).reported).write_volatile(1) };
    }
}

/// Sends the record; `false`: there is no room for it.
#[inline(always)]
fn send<const MOVE: bool>(
    change: &Change,
    identity: &detector_common::record::File,
    container: u64,
    origin: u32,
    task: Addr,
) -> bool {
    let cgroup = cgroup::of_task(task);
    let root =
        if change.mnt == 0 { Place { dentry: container::root_of(change.owner), mnt: 0 } } else { task::root(task) };
    let fill = |record: *mut ImageWriteRecord| {
        // SAFETY: `record` is reserved for us.
        unsafe {
            (*record).file = *identity;
            (*record).op = change.op;
            (*record).value = change.value;
            (*record).bytes = change.bytes;
            task::describe(task, origin, container, container::contains, &raw mut (*record).process);
            path::resolve(Place { dentry: change.dentry, mnt: change.mnt }, root, &raw mut (*record).path);
            path::resolve(task::executable(task), task::root(task), &raw mut (*record).exe);
        }
    };
    if MOVE {
        let Some(mut reserved) = emit::reserve::<ImageMoveRecord>(KIND_IMAGE_MOVE, cgroup, container, Loss::ImageWrite)
        else {
            return false;
        };
        let record = reserved.as_mut_ptr();
        // SAFETY: `record` is reserved for us.
        unsafe {
            fill(&raw mut (*record).change);
            path::resolve(Place { dentry: change.new_dentry, mnt: 0 }, root, &raw mut (*record).new_path);
        }
        reserved.submit(0);
    } else {
        let kind = if change.op == OP_MAP_EXEC { KIND_MAP_EXEC } else { KIND_IMAGE_WRITE };
        let Some(mut reserved) = emit::reserve::<ImageWriteRecord>(kind, cgroup, container, Loss::ImageWrite) else {
            return false;
        };
        fill(reserved.as_mut_ptr());
        reserved.submit(0);
    }
    true
}
