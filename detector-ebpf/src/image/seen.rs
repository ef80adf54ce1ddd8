//! What is known of the files that containers changed.

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

/// Files that containers changed.
#[map]
static SEEN: HashMap<SeenKey, Seen> = HashMap::with_max_entries(65_536, 0);

/// The key of what is known of the content of a file, by its inode number.
#[inline(always)]
pub fn content_key(image: Image, inode: u64) -> SeenKey {
    SeenKey { container: image.owner, inode, dev: image.device, class: CLASS_CONTENT }
}

/// What is known of a change. All is zero if nothing is known: the value of an `Option` would be undefined then, and
/// the compiler loads that too where it makes no difference, which the verifier refuses.
#[derive(Clone, Copy)]
pub struct Known {
    /// Time of the first change.
    first: u64,
    /// Time of the last change.
    pub last: u64,
    /// Number of the first operation.
    op: u32,
    /// Not 0: user space knows of it.
    reported: u32,
}

impl Known {
    /// Whether there was such a change.
    #[inline(always)]
    pub fn is_any(&self) -> bool {
        self.first != 0
    }

    /// Whether user space knows of the change.
    #[inline(always)]
    pub fn is_reported(&self) -> bool {
        self.reported != 0
    }

    /// Whether the first change of the content was the creation of the file.
    #[inline(always)]
    pub fn is_creation(&self) -> bool {
        self.op == ImageOp::Create.number()
    }
}

/// What is known.
#[inline(always)]
pub fn get(key: SeenKey) -> Known {
    match SEEN.copied(&key) {
        Some(seen) => Known { first: seen.first, last: seen.last, op: seen.op, reported: seen.reported },
        None => Known { first: 0, last: 0, op: 0, reported: 0 },
    }
}

/// Counts a change of the content of a file. `false`: this is the first one.
#[inline(always)]
pub fn count(image: Image, inode: u64, op: ImageOp, bytes: u64) -> bool {
    let Some(seen) = SEEN.get_ptr_mut(content_key(image, inode)) else {
        return false;
    };
    // A created file is a new one, even if its inode number was seen before.
    if op == ImageOp::Create {
        return false;
    }
    // SAFETY: members of a live element, aligned to 8, which are only changed through counters.
    let [count, sum, last] =
        unsafe { [&raw mut (*seen).count, &raw mut (*seen).bytes, &raw mut (*seen).last].map(|at| Counter::new(at)) };
    if op == ImageOp::Write {
        count.add(1);
        sum.add(bytes);
    }
    last.set(emit::now());
    true
}

/// Whether what the key stands for was reported of this file, and not of one that had its number before. `content`:
/// what is known of the file's content.
#[inline(always)]
pub fn is_repeated(key: SeenKey, content: Known) -> bool {
    let before = get(key);
    before.is_any() && (!content.is_creation() || before.first >= content.first)
}

/// Whether what the key stands for was reported of this file, which is not one of the image.
#[inline(always)]
pub fn is_known(key: SeenKey) -> bool {
    get(key).is_any()
}

/// Keeps a change; `false`: another CPU was first, and reports it. What is reported of a file again, and the creation
/// of one whose inode number was seen before, replaces what was known.
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
        // SAFETY: a member of a live element, which user space changes only to the other value.
        unsafe { (&raw mut (*seen).reported).write_volatile(0) };
    }
}

/// Forgets what is known.
#[inline(always)]
pub fn forget(key: SeenKey) {
    let _gone_already = SEEN.remove(key);
}
