//! A change to report, and how: who did it, the paths, the record. This is most of the cost of a report.

use aya_ebpf::{
    EbpfContext,
    macros::map,
    maps::{PerCpuArray, ProgramArray},
};
use detector_common::{
    map::{CLASS_DEVICE_OPEN, CLASS_MAP_EXEC, Seen, SeenKey},
    record::{FileRecord, Kind, Span},
    vocabulary::{ImageOp, Layer, Loss, MountOp, Origin},
};

use super::{locate::Image, seen};
use crate::{
    container,
    emit::{Draft, Stamp, count_loss},
    kernel::{Dentry, Inode, Place, Task, VfsMount, current_process},
    process,
    texts::Texts,
};

/// What a kprobe hands to a program of [`REPORTERS`]. The kernel runs kprobes' programs with preemption disabled, and
/// no second one on the same CPU (`trace_call_bpf`, kernel/trace/bpf_trace.c), so that the two belong together.
#[map]
static CHANGE: PerCpuArray<Change> = PerCpuArray::with_max_entries(1, 0);

/// The programs of `hooks::report`, which the loader puts here.
#[map]
static REPORTERS: ProgramArray = ProgramArray::with_max_entries(3, 0);

/// The [`Change::class`] of a change that is not kept in `SEEN`: each is reported.
pub const EACH: u32 = u32::MAX;

/// A change to report.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Change {
    /// The container whose image it is, or that the process is in.
    pub(super) owner: u64,
    /// The file system.
    pub(super) device: u32,
    /// What is reported. Of a change with two names it is replaced by `Kind::ImageMove`.
    pub(super) kind: Kind,
    /// Number of the operation, as the kind says.
    pub(super) op: u32,
    /// As in the record.
    pub(super) value: u32,
    /// As in `SeenKey`, or [`EACH`].
    pub(super) class: u32,
    /// Not 0: this makes the file.
    pub(super) is_new: u32,
    /// The file, or the directory in which a name is made.
    pub(super) inode: Inode,
    /// Its name.
    pub(super) dentry: Dentry,
    /// The mount through which it is reached, if the path is to be the one from the process's root; null: from the root
    /// of the image.
    pub(super) mount: VfsMount,
    /// The other name; null: there is none.
    pub(super) new_dentry: Dentry,
    /// Bytes that the call asked to write.
    pub(super) bytes: u64,
}

impl Change {
    /// A file of an image is changed.
    #[inline(always)]
    pub fn of_image(image: Image, inode: Inode, dentry: Dentry, op: ImageOp, class: u32) -> Self {
        Self::new(Kind::ImageChange, image, inode, dentry, op.number(), class)
    }

    /// A mount or root is changed at a name of an image.
    #[inline(always)]
    pub fn of_mount(image: Image, dentry: Dentry, op: MountOp, class: u32) -> Self {
        Self::new(Kind::MountChange, image, dentry.inode(), dentry, op.number(), class)
    }

    /// A device is opened, or code is mapped. The file is described by its path from the root of the process.
    #[inline(always)]
    pub fn at_place(kind: Kind, image: Image, inode: Inode, place: Place, class: u32) -> Self {
        Self { mount: place.mount, ..Self::new(kind, image, inode, place.dentry, 0, class) }
    }

    #[inline(always)]
    fn new(kind: Kind, image: Image, inode: Inode, dentry: Dentry, op: u32, class: u32) -> Self {
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
            mount: VfsMount::NULL,
            new_dentry: Dentry::NULL,
            bytes: 0,
        }
    }

    /// The layer that the file is in.
    #[inline(always)]
    fn layer(&self) -> Option<Layer> {
        if self.is_new != 0 { Some(Layer::New) } else { self.inode.layer() }
    }

    /// The key under which the change is kept.
    #[inline(always)]
    fn key(&self, class: u32) -> SeenKey {
        SeenKey { container: self.owner, inode: self.inode.number(), dev: self.device, class }
    }

    /// The class under which the change is kept where there is no room for a record of it.
    #[inline(always)]
    fn class_to_keep(&self) -> u32 {
        match (self.class, self.kind) {
            (EACH, Kind::MapExec) => CLASS_MAP_EXEC,
            (EACH, Kind::DeviceOpen) => CLASS_DEVICE_OPEN,
            (EACH, _) => self.op,
            (class, _) => class,
        }
    }
}

/// How a change is described, by a name in the image: the number of the program in `REPORTERS`.
pub const NAME: u32 = 0;
/// By two names.
pub const NAMES: u32 = 1;
/// By a path from the process's root.
pub const PLACE: u32 = 2;

/// Reports a change from a kprobe, at whose end this is to be called: it does not return, unless it failed. So the
/// expensive part is in the kernel, and is verified, once for all hooks.
#[inline(always)]
pub fn hand_over(context: &impl EbpfContext, change: Option<Change>) {
    let Some(change) = change else { return };
    let Some(place) = CHANGE.get_ptr_mut(0) else { return };
    let reporter = match (change.new_dentry.is_null(), change.mount.is_null()) {
        (true, true) => NAME,
        (false, true) => NAMES,
        _ => PLACE,
    };
    // SAFETY: the element of this CPU, which nobody else uses before the program that is called; see `CHANGE`. The call
    // gives up the stack, on which nothing is borrowed.
    unsafe {
        place.write(change);
        REPORTERS.tail_call(context, reporter);
    }
    count_loss(Loss::Call);
}

/// Reports what a kprobe has [handed over](hand_over).
#[inline(always)]
pub fn take_over<const REPORTER: u32>() {
    // `Change` has no value that a compiler may not assume: this program runs only after the element was written.
    if let Some(change) = CHANGE.get(0) {
        report::<REPORTER>(change);
    }
}

/// Reports a change.
#[inline(always)]
pub fn report<const REPORTER: u32>(change: &Change) {
    let task = Task::current();
    let (container, origin) = container::register_actor(task, change.owner, change.device);
    let cgroup = task.cgroup_id();
    let stamp = Stamp::take();
    let kind = if REPORTER == NAMES { Kind::ImageMove } else { change.kind };
    // Where there is no room for a record, the daemon finds the change in `SEEN`.
    let Some(mut draft) = Draft::begin(kind, stamp, cgroup, container, Loss::ImageWrite) else {
        keep(change, kind, stamp, change.class_to_keep(), 0);
        return;
    };
    if change.class != EACH && !keep(change, kind, stamp, change.class, 1) {
        return;
    }
    let (record, texts) = draft.parts();
    describe::<REPORTER>(change, task, origin, container, record, texts);
    if !draft.send() {
        keep_unreported(change, kind, stamp);
    }
}

/// Keeps a change of which no record could be sent after all.
#[inline(always)]
fn keep_unreported(change: &Change, kind: Kind, stamp: Stamp) {
    if change.class == EACH {
        keep(change, kind, stamp, change.class_to_keep(), 0);
    } else {
        seen::mark_unreported(change.key(change.class));
    }
}

/// Puts the change into `SEEN`; `false`: another CPU was first, and reports.
#[inline(always)]
fn keep(change: &Change, kind: Kind, stamp: Stamp, class: u32, reported: u32) -> bool {
    let seen = Seen {
        first: stamp.time,
        last: stamp.time,
        // No operation of another kind has this number.
        count: u64::from(change.op == ImageOp::Write.number()),
        bytes: change.bytes,
        number: stamp.number,
        kind: kind.number(),
        op: change.op,
        reported,
        pid: current_process(),
        layer: change.layer().map_or(0, Layer::number),
        reserved: 0,
    };
    seen::keep(change.key(class), seen)
}

/// Fills a record.
#[inline(always)]
fn describe<const REPORTER: u32>(
    change: &Change,
    task: Task,
    origin: Origin,
    container: u64,
    record: &mut FileRecord,
    texts: &mut Texts,
) {
    process::describe(task, origin, container, &mut record.process);
    change.inode.describe(change.layer(), &mut record.file);
    record.op = change.op;
    record.value = change.value;
    record.bytes = change.bytes;
    let top = container::root_of(change.owner, change.device);
    if REPORTER == PLACE {
        Place { dentry: change.dentry, mount: change.mount }.resolve(task.root(), &mut record.path, texts);
    } else {
        change.dentry.resolve(top, &mut record.path, texts);
    }
    task.executable().place().resolve(task.root(), &mut record.exe, texts);
    if REPORTER == NAMES {
        change.new_dentry.resolve(top, &mut record.new_path, texts);
    } else {
        record.new_path = Span::EMPTY;
    }
}
