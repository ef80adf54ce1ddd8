//! The versions of files that were reported as code. A version is known by the time of the file's last change, which a
//! process cannot set.

use aya_ebpf::{bindings::BPF_ANY, macros::map, maps::LruHashMap};
use detector_common::record::Kind;

use crate::{
    kernel::{Inode, Task},
    mem::Lookup as _,
};

/// The files that were reported. The value is the time of the file's last change before that. If the map is full, it
/// forgets the file that was not looked up for the longest time, which may then be reported again.
#[map]
static VERSIONS: LruHashMap<Key, u64> = LruHashMap::with_max_entries(16_384, 0);

/// A file, and what is reported of it once.
#[derive(Clone, Copy)]
#[repr(C)]
struct Key {
    /// The container of the process.
    container: u64,
    /// `inode.i_ino` of the file.
    inode: u64,
    /// `super_block.s_dev` of the file's file system.
    dev: u32,
    /// For a file that an interpreter reads, a number for the executable and its first arguments, because one file can
    /// be many programs, as busybox is. 0 for everything else.
    program: u32,
}

impl Key {
    #[inline(always)]
    fn new(task: Task, kind: Kind, container: u64, inode: Inode, dev: u32) -> Self {
        let program = match kind {
            Kind::Interpret => task.executable().inode().number() as u32 ^ task.hash_arguments(),
            _ => 0,
        };
        Self { container, inode: inode.number(), dev, program }
    }
}

/// Returns whether this version of the file was reported.
#[inline(always)]
pub fn is_noted(task: Task, kind: Kind, container: u64, inode: Inode, dev: u32) -> bool {
    VERSIONS.copied(&Key::new(task, kind, container, inode, dev)) == Some(inode.change_time())
}

/// Notes that this version of the file was reported.
#[inline(always)]
pub fn note(task: Task, kind: Kind, container: u64, inode: Inode, dev: u32) {
    // The map makes room for the entry. If it cannot, the file is reported again.
    let _forgotten = VERSIONS.insert(Key::new(task, kind, container, inode, dev), inode.change_time(), BPF_ANY.into());
}
