//! The changes to report, and how a record of them is made: who made the change, and the paths. This is most of the
//! cost of a report.

use core::mem::MaybeUninit;

use aya_ebpf::{
    EbpfContext,
    macros::map,
    maps::{PerCpuArray, ProgramArray},
};
use detector_common::{
    map::{CLASS_CONTENT, NOBODY, POWER, Seen, SeenKey},
    record::{File, FileRecord, Kind, Span},
    vocabulary::{Control, ImageOp, Layer, Loss, MountOp},
};

use super::{counted, locate::Image, seen, versions};
use crate::{
    actor, container,
    emit::{Draft, Stamp, count_loss},
    kernel::{Dentry, Inode, Place, Task, VfsMount, current_cgroup_id, current_process},
    mem, process,
    texts::Texts,
};

/// The change that a kprobe passes to a program of [`REPORTERS`]. The kernel runs the programs of kprobes with
/// preemption disabled, and no second one on the same CPU at the same time (`trace_call_bpf`,
/// kernel/trace/bpf_trace.c). So the program that is called finds the change of its caller.
#[map]
static CHANGE: PerCpuArray<Change> = PerCpuArray::with_max_entries(1, 0);

/// The programs of `hooks::report`. The loader puts them here.
#[map]
pub static REPORTERS: ProgramArray = ProgramArray::with_max_entries(4, 0);

/// The [`Change::class`] of a change of which each one is reported. It is kept in `SEEN` only until it is reported, if
/// there is no room for its record.
pub const EACH: u32 = u32::MAX;

/// The [`Change::class`] of a file that is code, or may be. It is reported once with each of its versions, and is not
/// kept if there is no room for its record, because the record alone tells what it is.
pub const VERSION: u32 = u32::MAX - 1;

/// A change to report.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Change {
    /// The container that the image belongs to, or that the process is in.
    pub(super) owner: u64,
    /// The device number of the file system.
    pub(super) device: u32,
    /// The kind of the record. For a change with two names, `Kind::ImageMove` replaces it.
    pub(super) kind: Kind,
    /// The number of the operation. The kind tells its type.
    pub(super) op: u32,
    /// The `value` of the record.
    pub(super) value: u32,
    /// The `class` of the `SeenKey`, or [`EACH`] or [`VERSION`].
    pub(super) class: u32,
    /// Whether the operation creates the file: 0 means no.
    pub(super) is_new: u32,
    /// The inode of the file, or of the directory in which a name is created.
    pub(super) inode: Inode,
    /// The name of the file.
    pub(super) dentry: Dentry,
    /// The mount through which the file is reached, if the path is to start at the process's root, or null if it is to
    /// start at the root of the image.
    pub(super) mount: VfsMount,
    /// The other name, or null if there is none.
    pub(super) new_dentry: Dentry,
    /// The number of bytes that the call asked to write.
    pub(super) bytes: u64,
    /// The actor who created a file that is removed, or [`NOBODY`].
    pub(super) creator: u64,
}

impl Change {
    /// Creates the change of a file of an image.
    #[inline(always)]
    pub fn of_image(image: Image, inode: Inode, dentry: Dentry, op: ImageOp, class: u32) -> Self {
        Self::new(Kind::ImageChange, image, inode, dentry, op.number(), class)
    }

    /// Creates the change of a mount or root at a name of an image. `is_private` says whether the process is in a user
    /// namespace that the rest of its container is not in.
    #[inline(always)]
    pub fn of_mount(image: Image, dentry: Dentry, op: MountOp, class: u32, is_private: bool) -> Self {
        let value = u32::from(is_private);
        Self { value, ..Self::new(Kind::MountChange, image, dentry.inode(), dentry, op.number(), class) }
    }

    /// Creates the change for a control of the kernel that is opened.
    #[inline(always)]
    pub fn of_control(image: Image, inode: Inode, dentry: Dentry, control: Control) -> Self {
        Self::new(Kind::ControlOpen, image, inode, dentry, control.number(), EACH)
    }

    /// Creates the change for a device that is opened or for code that is mapped. The path of the file starts at the
    /// root of the process.
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
            creator: NOBODY,
        }
    }

    /// Returns the change, unless the actor that the running process is remembered to be has made it before.
    #[inline(always)]
    pub fn unless_repeated(self) -> Option<Self> {
        let actor = self.keeper(actor::remembered(current_process()));
        if actor != NOBODY && self.is_repeated(actor) { None } else { Some(self) }
    }

    /// Returns the actor under whom the change by this actor is kept. Code is reported when the container first maps
    /// it, because what a program loads is not decided by who runs it.
    #[inline(always)]
    fn keeper(&self, actor: u64) -> u64 {
        if self.kind == Kind::MapExec { self.owner } else { actor }
    }

    /// Returns whether an actor repeats a change, or whether the change is part of one that the same actor has made.
    /// What a thread of the kernel writes is part of the change by anybody. A change of the metadata is part of the
    /// creation of the file, unless it adds dangerous permissions or capabilities. A change of timestamps is also part
    /// of a write. The removal of a file by the actor who has created it does not change the image.
    #[inline(always)]
    fn is_repeated(&self, actor: u64) -> bool {
        let is = |op: ImageOp| self.op == op.number();
        if self.class == EACH || self.class == VERSION {
            return is(ImageOp::Unlink) && self.creator == actor;
        }
        if is(ImageOp::Create) {
            return false;
        }
        let file = seen::get(Image { owner: self.owner, device: self.device }, self.inode.number());
        if ImageOp::is_of_metadata(self.op) && file.creator == actor && !self.gives_power() {
            return true;
        }
        if self.class == CLASS_CONTENT && file.last != 0 && Task::current().is_of_kernel() {
            return true;
        }
        let is_part = is(ImageOp::Utimes) && file.has_seen(actor, CLASS_CONTENT);
        is_part || file.has_seen(actor, self.class)
    }

    /// Returns whether the change makes the file more dangerous.
    #[inline(always)]
    fn gives_power(&self) -> bool {
        let is = |op: ImageOp| self.op == op.number();
        is(ImageOp::SetCapability) || is(ImageOp::Chmod) && self.value & POWER & !self.inode.mode() != 0
    }

    /// Returns the layer that the file is in, or `None` if it is not on an overlay.
    #[inline(always)]
    fn layer(&self) -> Option<Layer> {
        if self.is_new != 0 { Some(Layer::New) } else { self.inode.layer() }
    }

    /// Returns the key under which the change is kept. `first` is when something was done to the file for the first
    /// time, or the time of a change that is kept without its file.
    #[inline(always)]
    fn key(&self, first: u64, actor: u64) -> SeenKey {
        SeenKey { first, inode: self.inode.number(), actor, dev: self.device, class: self.class }
    }
}

/// The number of the program in `REPORTERS` that describes a change by one name in the image.
pub const NAME: u32 = 0;
/// The number of the program that describes a change by two names.
pub const NAMES: u32 = 1;
/// The number of the program that describes a change by a path from the process's root.
pub const PLACE: u32 = 2;
/// The number of the program that describes what another process does to the sensor.
pub const TAMPERING: u32 = 3;
/// For a program that describes a change by one name or by a path from the process's root. It calls no other program.
pub const NAME_OR_PLACE: u32 = 4;

/// Reports a change from a kprobe. The kprobe must call this last, because it returns only if it fails. This way, the
/// expensive part of a report is in the kernel, and is verified, only once for all hooks.
#[inline(always)]
pub fn hand_over(context: &impl EbpfContext, change: Option<Change>) {
    let Some(change) = change else { return };
    let Some(place) = CHANGE.get_ptr_mut(0) else { return };
    let reporter = match (change.new_dentry.is_null(), change.mount.is_null()) {
        (true, true) => NAME,
        (false, true) => NAMES,
        _ => PLACE,
    };
    // SAFETY: the pointer is to the element of this CPU, which nothing else uses until the called program does; see
    // `CHANGE`. The call gives up the stack, of which nothing is borrowed.
    unsafe {
        place.write(change);
        REPORTERS.tail_call(context, reporter);
    }
    count_loss(Loss::Call);
}

/// Reports the change that a kprobe has [handed over](hand_over).
#[inline(always)]
pub fn take_over<const REPORTER: u32>() {
    // The element is a valid `Change`, because this program runs only after a kprobe has written it.
    if let Some(change) = CHANGE.get(0) {
        report::<REPORTER>(change);
    }
}

/// Reports a change.
#[inline(always)]
pub fn report<const REPORTER: u32>(change: &Change) {
    let mut room = MaybeUninit::uninit();
    // The other programs find their change in a map, so that the verifier knows nothing about it.
    let change = if REPORTER == NAME_OR_PLACE { mem::forget_in(&mut room, change) } else { change };
    let task = Task::current();
    let (container, origin) = container::register_actor(task, change.owner, change.device);
    let actor = change.keeper(container::actor(task, container, origin));
    if change.is_repeated(actor) {
        return;
    }
    // There are many ways to get here. The verifier is to check what follows once, and not once for each of them.
    let (container, origin, actor) = mem::forget((container, origin.number(), actor));
    let cgroup = current_cgroup_id();
    let stamp = Stamp::take();
    let kind = if REPORTER == NAMES { Kind::ImageMove } else { change.kind };
    let is_version = (REPORTER == PLACE || REPORTER == NAME_OR_PLACE) && change.class == VERSION;
    let loss = if is_version { Loss::Script } else { Loss::ImageWrite };
    if container::is_unsent(container, kind) {
        if change.class != EACH {
            keep(change, actor, kind, stamp, 1);
        }
        return;
    }
    if mem::forget(u32::from(counted::count(change, task, actor, container, origin, stamp.time))) != 0 {
        keep(change, actor, kind, stamp, 1);
        return;
    }
    // If there is no room for a record, the daemon finds the change in `SEEN`.
    let Some(mut draft) = Draft::begin(kind, stamp, cgroup, container, loss) else {
        if !is_version {
            keep(change, actor, kind, stamp, 0);
        }
        return;
    };
    let (record, texts) = draft.parts();
    describe::<REPORTER>(change, task, origin, container, record, texts);
    if is_version {
        if draft.send() {
            versions::note(task, change.kind, change.owner, change.inode, change.device);
        }
    } else if change.class == EACH {
        if !draft.send() {
            keep(change, actor, kind, stamp, 0);
        }
    } else {
        let first = keep(change, actor, kind, stamp, 1);
        if first != 0 && !draft.send() {
            seen::mark_unreported(change.key(first, actor));
        }
    }
}

/// Puts the change into `SEEN`. Returns 0 if another CPU was first, and reports the change.
#[inline(always)]
fn keep(change: &Change, actor: u64, kind: Kind, stamp: Stamp, reported: u32) -> u64 {
    let seen = Seen {
        time: stamp.time,
        number: stamp.number,
        bytes: change.bytes,
        container: change.owner,
        kind: kind.number(),
        op: change.op,
        reported,
        layer: change.layer().map_or(0, Layer::number),
    };
    let key = change.key(stamp.time, actor);
    if change.class == EACH { seen::keep_each(key, seen) } else { seen::keep(key, seen) }
}

/// Fills a record.
#[inline(always)]
fn describe<const REPORTER: u32>(
    change: &Change,
    task: Task,
    origin: u32,
    container: u64,
    record: &mut FileRecord,
    texts: &mut Texts,
) {
    process::describe(task, origin, container, &mut record.process);
    change.inode.describe(change.layer(), &mut record.file);
    if REPORTER == PLACE || REPORTER == NAME_OR_PLACE {
        // Without a mount, this is a change of the image, and not code.
        let code = if change.mount.is_null() { Dentry::NULL } else { change.dentry };
        mem::store(&mut record.file.difference, seen::difference(code));
    }
    record.op = change.op;
    record.value = change.value;
    record.bytes = change.bytes;
    record.directory = 0;
    if change.is_new != 0 {
        record.directory = change.dentry.parent().inode().number();
    }
    let program = task.executable().inode();
    if (REPORTER == PLACE || REPORTER == NAME_OR_PLACE) && change.kind == Kind::Interpret {
        program.describe(program.layer(), &mut record.program);
        task.executable().describe_lower(&mut record.program.lower);
    } else {
        let layer = program.layer().map_or(0, Layer::number);
        record.program = File { inode: program.number(), dev: program.device(), layer, ..File::NONE };
    }
    let top = container::root_of(change.owner, change.device);
    if REPORTER == PLACE {
        mem::store(&mut record.file.is_served, change.dentry.is_served().into());
        Place { dentry: change.dentry, mount: change.mount }.resolve(task.root(), &mut record.path, texts);
    } else if REPORTER == NAME_OR_PLACE {
        let root = if change.mount.is_null() { Place { dentry: top, mount: VfsMount::NULL } } else { task.root() };
        let (mount, root) = mem::forget((change.mount, root));
        Place { dentry: change.dentry, mount }.resolve(root, &mut record.path, texts);
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
