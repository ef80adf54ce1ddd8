//! What is known about the files that containers changed.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    macros::map,
    maps::HashMap,
};
use detector_common::{
    map::{CLASS_CONTENT, Seen, SeenKey},
    vocabulary::{ImageOp, Loss},
};

use super::locate::Image;
use crate::{
    emit::{self, count_loss},
    mem::{Counter, Lookup},
};

/// The files that containers changed.
#[map]
static SEEN: HashMap<SeenKey, Seen> = HashMap::with_max_entries(65_536, 0);

/// Returns the key for the content of the file with this inode number.
#[inline(always)]
pub fn content_key(image: Image, inode: u64) -> SeenKey {
    SeenKey { container: image.owner, inode, dev: image.device, class: CLASS_CONTENT }
}

/// What is known about a change. All fields are zero if nothing is known. This is not an `Option`, because the fields
/// of a `None` would be undefined. The compiler also loads them if they make no difference, and the verifier refuses
/// that.
#[derive(Clone, Copy)]
pub struct Known {
    /// The time of the first change.
    first: u64,
    /// The time of the last change.
    pub last: u64,
    /// The number of the first operation.
    op: u32,
    /// Whether user space knows of the change: 0 means no.
    reported: u32,
}

impl Known {
    /// Returns whether there was such a change.
    #[inline(always)]
    pub fn is_any(&self) -> bool {
        self.first != 0
    }

    /// Returns whether user space knows of the change.
    #[inline(always)]
    pub fn is_reported(&self) -> bool {
        self.reported != 0
    }

    /// Returns whether the first change of the content was the creation of the file.
    #[inline(always)]
    pub fn is_creation(&self) -> bool {
        self.op == ImageOp::Create.number()
    }
}

/// Returns what is known about a change.
#[inline(always)]
pub fn get(key: SeenKey) -> Known {
    match SEEN.copied(&key) {
        Some(seen) => Known { first: seen.first, last: seen.last, op: seen.op, reported: seen.reported },
        None => Known { first: 0, last: 0, op: 0, reported: 0 },
    }
}

/// Counts a change of the content of a file. Returns `false` if it is the first one.
#[inline(always)]
pub fn count(image: Image, inode: u64, op: ImageOp, bytes: u64) -> bool {
    let Some(seen) = SEEN.get_ptr_mut(content_key(image, inode)) else {
        return false;
    };
    // A created file is a new file, even if its inode number was seen before.
    if op == ImageOp::Create {
        return false;
    }
    // SAFETY: the pointers are to members of a live element. They are aligned to 8, and the members are only changed
    // through counters.
    let [count, sum, last] =
        unsafe { [&raw mut (*seen).count, &raw mut (*seen).bytes, &raw mut (*seen).last].map(|at| Counter::new(at)) };
    if op == ImageOp::Write {
        count.add(1);
        sum.add(bytes);
    }
    last.set(emit::now());
    true
}

/// Returns whether this change was reported for this file, and not for a file that had its inode number before.
/// `content` is what is known about the file's content.
#[inline(always)]
pub fn is_repeated(key: SeenKey, content: Known) -> bool {
    let before = get(key);
    before.is_any() && (!content.is_creation() || before.first >= content.first)
}

/// Returns whether this change was reported for this file, which is not a file of the image.
#[inline(always)]
pub fn is_known(key: SeenKey) -> bool {
    get(key).is_any()
}

/// Keeps a change. Returns `false` if another CPU was first, and reports the change. The creation of a file replaces
/// what was known about a file with the same inode number. A change that is not one of the content always replaces what
/// was known about it.
#[inline(always)]
pub fn keep(key: SeenKey, seen: Seen) -> bool {
    let is_new = key.class != CLASS_CONTENT || seen.op == ImageOp::Create.number();
    let flags = if is_new { BPF_ANY } else { BPF_NOEXIST };
    if SEEN.insert(key, seen, flags.into()).is_err() {
        if SEEN.get_ptr(key).is_some() {
            return false;
        }
        count_loss(Loss::SeenFull);
    }
    true
}

/// Marks a change as not reported, although it was kept as reported.
#[inline(always)]
pub fn mark_unreported(key: SeenKey) {
    if let Some(seen) = SEEN.get_ptr_mut(key) {
        // SAFETY: the pointer is to an aligned member of a live element. User space changes the member only to the
        // other value.
        unsafe { (&raw mut (*seen).reported).write_volatile(0) };
    }
}

/// Forgets a change.
#[inline(always)]
pub fn forget(key: SeenKey) {
    let _gone_already = SEEN.remove(key);
}
