//! What is known about the files that were changed: which act of whom was reported.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    macros::map,
    maps::HashMap,
};
use detector_common::{
    map::{CLASS_CONTENT, FileKey, FileState, NOBODY, Seen, SeenKey, writer},
    vocabulary::{ImageOp, Loss},
};

use super::locate::Image;
use crate::{
    actor,
    emit::{self, count_loss},
    kernel::{Task, current_process},
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
        Some(FileState { first, last, writer, creator }) => Known { key, first, last, writer, creator },
        None => Known { key, first: 0, last: 0, writer: NOBODY, creator: NOBODY },
    }
}

impl Known {
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

/// Keeps an act of which only the first one is reported. The key has the time of this act. Returns the
/// [`FileState::first`] of the file, or 0 if another CPU was first and reports the act. The creation of a file replaces
/// what was known about a file with the same inode number. An act that is not a change of the content always replaces
/// what was known about it.
#[inline(always)]
pub fn keep(key: SeenKey, seen: Seen) -> u64 {
    let is_content = key.class == CLASS_CONTENT;
    let first = keep_file(file_key(seen.container, key.dev, key.inode), key, is_content, seen.op);
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
    if !is_creation && let Some(file) = FILES.get_ptr_mut(key) {
        // SAFETY: the pointers are to members of a live element. They are aligned to 8, and the members are only
        // changed through counters.
        let [first, last] = unsafe { [&raw mut (*file).first, &raw mut (*file).last].map(|at| Counter::new(at)) };
        if is_content {
            last.set(time);
        }
        return first.get();
    }
    let state = FileState {
        first: time,
        last: if is_content { time } else { 0 },
        writer: writer(time, NOBODY),
        creator: if is_creation { act.actor } else { NOBODY },
    };
    let flags = if is_creation { BPF_ANY } else { BPF_NOEXIST };
    if FILES.insert(key, state, flags.into()).is_err() {
        match FILES.copied(&key) {
            // Another CPU was first.
            Some(file) => return file.first,
            None => count_loss(Loss::SeenFull),
        }
    }
    time
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
