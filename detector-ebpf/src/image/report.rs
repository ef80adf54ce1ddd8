//! The dear part: who did it, the paths, the record.

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_ANY, BPF_NOEXIST},
};
use detector_common::{
    map::{CLASS_CONTENT, CLASS_MAP_EXEC, Loss, Seen, SeenKey},
    record::{FileRecord, Kind, LAYER_NEW, MoveRecord, OP_CREATE, OP_WRITE},
};

use super::{Image, number};
use crate::{
    container, emit,
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
    /// What to report.
    pub kind: Kind,
    /// Number of the operation, as the kind says.
    pub op: u32,
    /// As in the record.
    pub value: u32,
    /// As in `SeenKey`, or [`EACH`].
    pub class: u32,
    /// Not 0: this makes the file.
    pub is_new: u32,
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
        Self::new(Kind::ImageChange, image, inode, dentry, op, class)
    }

    /// Of any kind.
    #[inline(always)]
    pub(super) fn new(kind: Kind, image: Image, inode: Addr, dentry: Addr, op: u32, class: u32) -> Self {
        Self {
            owner: image.owner,
            device: image.device,
            kind,
            op,
            value: 0,
            class,
            is_new: 0,
            inode,
            dentry,
            mnt: 0,
            new_dentry: 0,
            bytes: 0,
        }
    }
}

/// How a change is described, by a name in the image: the number of the program in `REPORTERS`.
pub const NAME: u32 = 0;
/// By two names.
pub const NAMES: u32 = 1;
/// By a path from the process's root.
pub const PLACE: u32 = 2;

/// Reports a change from a kprobe, at whose end this is to be called: it does not return, unless it failed. So the dear
/// part is in the kernel, and is verified, once for all hooks.
#[inline(always)]
pub fn hand_over(context: &impl EbpfContext, change: Option<Change>) {
    let Some(change) = change else { return };
    let Some(place) = CHANGE.get_ptr_mut(0) else { return };
    // SAFETY: the element of this CPU, which nobody else uses before the program that is called; see `CHANGE`.
    unsafe {
        place.write(change);
        let reporter = match (change.new_dentry, change.mnt) {
            (0, 0) => NAME,
            (_, 0) => NAMES,
            _ => PLACE,
        };
        REPORTERS.tail_call(context, reporter);
    }
    lost(Loss::Call);
}

/// Reports what a kprobe has [handed over](hand_over).
#[inline(always)]
pub fn take_over<const REPORTER: u32>() {
    if let Some(change) = CHANGE.get_ptr(0) {
        // SAFETY: a live element, written by the program that has called this one.
        report::<REPORTER>(unsafe { &*change });
    }
}

/// Reports a change.
#[inline(always)]
pub fn report<const REPORTER: u32>(change: &Change) {
    let task = task::current();
    let (container, origin) = container::actor(task, change.owner, change.device);
    if REPORTER == NAMES {
        send::<MoveRecord>(change, Kind::ImageMove, container, |record| {
            // SAFETY: `record` is reserved for us.
            unsafe {
                describe::<REPORTER>(change, task, origin, container, &raw mut (*record).change);
                let top = container::root_of(change.owner, change.device);
                path::resolve_name(change.new_dentry, top, &raw mut (*record).new_path);
            }
        });
    } else {
        send::<FileRecord>(change, change.kind, container, |record| {
            describe::<REPORTER>(change, task, origin, container, record);
        });
    }
}

/// Keeps the change in `SEEN` and sends a record of it that `fill` has filled; where there is no room for one, the
/// daemon finds it in `SEEN`. Nothing of this is needed when the record is filled: so the verifier checks that part
/// once.
#[inline(always)]
fn send<T: 'static>(change: &Change, kind: Kind, container: u64, fill: impl FnOnce(*mut T)) {
    let cgroup = cgroup::of_task(task::current());
    let stamp = emit::Stamp::take();
    let Some(mut reserved) = emit::reserve::<T>(kind, stamp, cgroup, container, Loss::ImageWrite) else {
        keep(change, kind, stamp, if change.class == EACH { number_of(change) } else { change.class }, 0);
        return;
    };
    if change.class != EACH && !keep(change, kind, stamp, change.class, 1) {
        reserved.discard(0);
        return;
    }
    fill(reserved.as_mut_ptr());
    reserved.submit(0);
}

/// Puts the change into `SEEN`; `false`: another CPU was first, and reports.
#[inline(always)]
fn keep(change: &Change, kind: Kind, stamp: emit::Stamp, class: u32, reported: u32) -> bool {
    let seen = Seen {
        first: stamp.time,
        last: stamp.time,
        count: u64::from(change.op == OP_WRITE),
        bytes: change.bytes,
        number: stamp.number,
        kind: kind.number(),
        op: change.op,
        reported,
        pid: task::current_tgid(),
        layer: layer(change),
        reserved: 0,
    };
    let key = SeenKey { container: change.owner, inode: number(change.inode), dev: change.device, class };
    // A created file is a new one, even if its inode number was seen before. So is whatever is reported again of it.
    let flags = if change.op == OP_CREATE || class != CLASS_CONTENT { BPF_ANY } else { BPF_NOEXIST };
    if SEEN.insert(key, seen, flags.into()).is_err() {
        if SEEN.get_ptr(key).is_some() {
            return false;
        }
        lost(Loss::SeenFull);
    }
    true
}

/// The class of a change that is kept only until it is reported.
#[inline(always)]
fn number_of(change: &Change) -> u32 {
    match change.kind {
        Kind::MapExec => CLASS_MAP_EXEC,
        _ => change.op,
    }
}

/// The layer that the file is in.
#[inline(always)]
fn layer(change: &Change) -> u32 {
    if change.is_new != 0 { LAYER_NEW } else { file::layer(change.inode) }
}

/// Fills a record.
#[inline(always)]
fn describe<const REPORTER: u32>(change: &Change, task: Addr, origin: u32, container: u64, record: *mut FileRecord) {
    // SAFETY: `record` is reserved for us.
    unsafe {
        (*record).file = file::identity(change.inode);
        (*record).file.layer = layer(change);
        (*record).op = change.op;
        (*record).value = change.value;
        (*record).bytes = change.bytes;
        task::describe(task, origin, container, container::contains, &raw mut (*record).process);
        let path = &raw mut (*record).path;
        if REPORTER == PLACE {
            path::resolve(Place { dentry: change.dentry, mnt: change.mnt }, task::root(task), path);
        } else {
            path::resolve_name(change.dentry, container::root_of(change.owner, change.device), path);
        }
        path::resolve(task::executable(task), task::root(task), &raw mut (*record).exe);
    }
}
