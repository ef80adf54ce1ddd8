//! What is known about the files that were changed: which act of whom was reported.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    macros::map,
    maps::HashMap,
};
use detector_common::{
    map::{CLASS_CONTENT, FileKey, FileState, NOBODY, Seen, SeenKey, writer},
    record::Kind,
    vocabulary::{Difference, ImageOp, Layer, Loss},
};

use super::locate::Image;
use crate::{
    actor,
    emit::{self, count_loss},
    kernel::{Dentry, Inode, Task, current_process},
    mem::{Counter, Lookup},
};

/// The files to which something was done. An entry is removed when the file is.
#[map]
static FILES: HashMap<FileKey, FileState> = HashMap::with_max_entries(65_536, 0);

/// What each actor did to these files. When an entry of [`FILES`] is removed, those here that belong to it match
/// nothing any more, and the daemon removes them.
#[map]
static SEEN: HashMap<SeenKey, Seen> = HashMap::with_max_entries(65_536, 0);

/// A file, and what is known about it. If that is nothing, all times are zero, and nobody is the creator. This is not
/// an `Option`, because the fields of a `None` would be undefined. The compiler also loads them if they make no
/// difference, and the verifier refuses that.
#[derive(Clone, Copy)]
pub struct Known {
    key: FileKey,
    first: u64,
    /// The time of the last change of the content.
    pub last: u64,
    writer: u64,
    /// The actor who created the file, or [`NOBODY`].
    pub creator: u64,
}

/// Returns what is known about the file with this inode number.
#[inline(always)]
pub fn get(image: Image, inode: u64) -> Known {
    let key = file_key(image.owner, image.device, inode);
    match FILES.copied(&key) {
        Some(state) => Known::of(key, &state),
        None => Known { key, first: 0, last: 0, writer: NOBODY, creator: NOBODY },
    }
}

impl Known {
    #[inline(always)]
    fn of(key: FileKey, state: &FileState) -> Self {
        Self { key, first: state.first, last: state.last, writer: state.writer, creator: state.creator }
    }

    /// Returns whether an act of this actor is known.
    #[inline(always)]
    pub fn has_seen(&self, actor: u64, class: u32) -> bool {
        self.first != 0 && SEEN.get_ptr(self.seen_key(actor, class)).is_some()
    }

    /// Forgets the file, because it loses its last name. The next file with this inode number will be another one. The
    /// change that is most likely the only one is removed at once, unless the daemon has yet to report it.
    #[inline(always)]
    pub fn forget(&self) {
        if self.first == 0 {
            return;
        }
        let _gone_already = FILES.remove(self.key);
        let actor = if self.creator == NOBODY { writer(self.first, self.writer) } else { self.creator };
        let key = self.seen_key(actor, CLASS_CONTENT);
        if SEEN.copied(&key).is_some_and(|seen| seen.reported != 0) {
            let _gone_already = SEEN.remove(key);
        }
    }

    #[inline(always)]
    fn seen_key(&self, actor: u64, class: u32) -> SeenKey {
        SeenKey { first: self.first, inode: self.key.inode, actor, dev: self.key.dev, class }
    }
}

#[inline(always)]
fn file_key(container: u64, dev: u32, inode: u64) -> FileKey {
    FileKey { container, inode, dev, reserved: 0 }
}

/// Returns whether the running process repeats a change of the content that is known of its actor, or is a thread of
/// the kernel, for which a change by anybody is enough. For most files, one actor makes all changes, so that this takes
/// one look-up. The result is also `false` if it is not remembered which actor the process is.
#[inline(always)]
pub fn repeats(image: Image, inode: u64, op: ImageOp) -> bool {
    let key = file_key(image.owner, image.device, inode);
    let Some(file) = FILES.get_ptr_mut(key) else { return false };
    // A created file is a new file, even if its inode number was seen before.
    if op == ImageOp::Create {
        return false;
    }
    // SAFETY: the pointers are to members of a live element. They are aligned to 8, and the members are only changed
    // through counters.
    let [first, last, last_writer] =
        unsafe { [&raw mut (*file).first, &raw mut (*file).last, &raw mut (*file).writer].map(|at| Counter::new(at)) };
    let (first, actor) = (first.get(), actor::remembered(current_process()));
    if actor == NOBODY {
        return false;
    }
    if last_writer.get() != writer(first, actor) {
        let before = SeenKey { first, inode, actor, dev: image.device, class: CLASS_CONTENT };
        if SEEN.get_ptr(before).is_some() {
            last_writer.set(writer(first, actor));
        } else if last.get() == 0 || !Task::current().is_of_kernel() {
            return false;
        }
    }
    last.set(emit::now());
    true
}

/// Notes that the file with this inode is being copied up: from now on it is in the upper layer, and its content is
/// that of the image until it is changed. Returns what is known about it.
#[inline(always)]
pub fn note_copy_up(image: Image, inode: Inode) -> Known {
    let key = file_key(image.owner, image.device, inode.number());
    if let Some(file) = FILES.get_ptr_mut(key) {
        // SAFETY: the pointer is to a member of a live element. It is aligned to 8, and the member is only changed
        // through counters.
        unsafe { Counter::new(&raw mut (*file).copied) }.set(inode.address());
        return get(image, inode.number());
    }
    let state = FileState { copied: inode.address(), ..new_state(emit::now()) };
    // If there is no room, or another CPU was first, it is not known how the file differs from the image.
    let _unknown = FILES.insert(key, state, BPF_NOEXIST.into());
    Known::of(key, &state)
}

/// Returns the number of the [`Difference`] between a file in the upper layer, which has this name, and the image, or 0
/// if it is not known or the file is elsewhere.
///
/// The content is that of the image if the kernel itself has copied it up and nobody has opened the file for writing
/// since then. Two files can have the same number: names of one file of a lower layer, and files of different file
/// systems, where the overlay does not make the numbers distinct. So what is known counts only for the inode that was
/// copied up, and not for one whose number is that of a file of the upper layer: an inode that was removed from memory
/// and read again may have such a number, and the address of another one.
#[inline(always)]
pub fn difference(dentry: Dentry) -> u32 {
    let inode = dentry.inode();
    if inode.is_null() || inode.layer() != Some(Layer::Upper) {
        return 0;
    }
    let Some(image) = Image::at(dentry) else { return 0 };
    let Some(file) = FILES.get_ptr(file_key(image.owner, image.device, inode.number())) else { return 0 };
    // SAFETY: the pointer is to a live element, and its members are aligned.
    let (last, copied, metadata, privileges) = unsafe {
        (
            (&raw const (*file).last).read_volatile(),
            (&raw const (*file).copied).read_volatile(),
            (&raw const (*file).metadata).read_volatile(),
            (&raw const (*file).privileges).read_volatile(),
        )
    };
    if last != 0 {
        return Difference::Content.number();
    }
    if copied != inode.address() || inode.upper_dentry().inode().number() == inode.number() {
        return 0;
    }
    match (privileges, metadata) {
        (0, 0) => Difference::Nothing.number(),
        (0, _) => Difference::Metadata.number(),
        _ => Difference::Privileges.number(),
    }
}

/// Keeps an act of which only the first one is reported. The key has the time of this act. Returns the
/// [`FileState::first`] of the file, or 0 if another CPU was first and reports the act. The creation of a file replaces
/// what was known about a file with the same inode number. An act that is not a change of the content always replaces
/// what was known about it.
#[inline(always)]
pub fn keep(key: SeenKey, seen: Seen) -> u64 {
    let is_content = key.class == CLASS_CONTENT;
    let file = file_key(seen.container, key.dev, key.inode);
    let first = keep_file(file, key, is_content, seen.op);
    if seen.kind == Kind::ImageChange.number() {
        keep_metadata(file, key.class, seen.op);
    }
    let flags = if is_content { BPF_NOEXIST } else { BPF_ANY };
    insert(SeenKey { first, ..key }, seen, flags)
}

/// Keeps an act of which each one is reported, until the daemon has reported this one. What is known about the file
/// does not change: this may be its removal.
#[inline(always)]
pub fn keep_each(key: SeenKey, seen: Seen) -> u64 {
    insert(key, seen, BPF_ANY)
}

#[inline(always)]
fn insert(key: SeenKey, seen: Seen, flags: u32) -> u64 {
    if SEEN.insert(key, seen, flags.into()).is_err() {
        if SEEN.get_ptr(key).is_some() {
            return 0;
        }
        count_loss(Loss::SeenFull);
    }
    key.first
}

/// Keeps the file, and returns its [`FileState::first`].
#[inline(always)]
fn keep_file(key: FileKey, act: SeenKey, is_content: bool, op: u32) -> u64 {
    let time = act.first;
    let is_creation = is_content && op == ImageOp::Create.number();
    if is_creation || FILES.get_ptr(key).is_none() {
        let state = FileState {
            last: if is_content { time } else { 0 },
            writer: writer(time, if is_content { act.actor } else { NOBODY }),
            creator: if is_creation { act.actor } else { NOBODY },
            ..new_state(time)
        };
        let flags = if is_creation { BPF_ANY } else { BPF_NOEXIST };
        if FILES.insert(key, state, flags.into()).is_ok() {
            return time;
        }
    }
    // If the file was not known before, another CPU was first.
    let Some(file) = FILES.get_ptr_mut(key) else {
        count_loss(Loss::SeenFull);
        return time;
    };
    // SAFETY: the pointers are to members of a live element. They are aligned to 8, and the members are only changed
    // through counters.
    let [first, last] = unsafe { [&raw mut (*file).first, &raw mut (*file).last].map(|at| Counter::new(at)) };
    if is_content {
        last.set(time);
    }
    first.get()
}

/// Returns the state of a file to which nothing was done that has to be known, as of this time.
#[inline(always)]
fn new_state(time: u64) -> FileState {
    let writer = writer(time, NOBODY);
    FileState { first: time, last: 0, writer, creator: NOBODY, copied: 0, metadata: 0, privileges: 0 }
}

/// Keeps with the file that its metadata is changed, if this operation does that.
#[inline(always)]
fn keep_metadata(key: FileKey, class: u32, op: u32) {
    /// `S_ISUID` and `S_ISGID` (include/uapi/linux/stat.h).
    const SET_ID: u32 = 0o6000;
    if !ImageOp::is_of_metadata(op) {
        return;
    }
    let Some(file) = FILES.get_ptr_mut(key) else { return };
    // The class of a chmod has the new permissions.
    let gives = op == ImageOp::SetCapability.number() || op == ImageOp::Chmod.number() && class >> 16 & SET_ID != 0;
    // SAFETY: the pointers are to aligned members of a live element, which change only to this value.
    unsafe {
        (&raw mut (*file).metadata).write_volatile(1);
        if gives {
            (&raw mut (*file).privileges).write_volatile(1);
        }
    }
}

/// Marks an act as not reported, although it was kept as reported.
#[inline(always)]
pub fn mark_unreported(key: SeenKey) {
    if let Some(seen) = SEEN.get_ptr_mut(key) {
        // SAFETY: the pointer is to an aligned member of a live element. User space changes the member only to the
        // other value.
        unsafe { (&raw mut (*seen).reported).write_volatile(0) };
    }
}
