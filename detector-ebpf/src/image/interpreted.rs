//! Files that are opened for reading and may be code for an interpreter. Only files that are not as in the image, or
//! that are only in memory, are of interest.
//!
//! User space knows the program that has opened the file, and its arguments, and decides whether the file is code. What
//! it is asked about is limited here: a file that is named like code, and the first files that a program opens after it
//! was executed, because one of them is the script that an interpreter was given as an argument. A program is reported
//! once with each version of a file. So a database that opens its own files all the time costs a look at their names.

use aya_ebpf::{bindings::BPF_ANY, macros::map, maps::LruHashMap};
use detector_common::{code, record::Kind};

use super::{
    locate::Image,
    report::{Change, VERSION},
    versions,
};
use crate::{
    container,
    kernel::{Access, File, Inode, Task, current_process},
};

/// How many files a program can open that are reported whatever their names are. Before its script, an interpreter
/// opens few files that are not as in the image.
const FIRST: u32 = 16;

/// How many more such files each process can open, by the id (thread group id) of the process.
#[map]
static FRESH: LruHashMap<u32, u32> = LruHashMap::with_max_entries(4_096, 0);

/// Notes that the running process has executed a program.
#[inline(always)]
pub fn note_exec() {
    // The map makes room for the entry. If it cannot, the script is known only by its name.
    let _forgotten = FRESH.insert(current_process(), FIRST, BPF_ANY.into());
}

/// Returns whether a process may open a file that is reported whatever its name is, and counts the file.
#[inline(always)]
fn is_among_first(process: u32) -> bool {
    let Some(left) = FRESH.get_ptr_mut(process) else { return false };
    // SAFETY: the pointer is to a live element, and aligned to 4. Threads that open files at the same time may be
    // counted as one.
    unsafe {
        let count = left.read_volatile();
        if count == 0 {
            return false;
        }
        left.write_volatile(count - 1);
    }
    true
}

/// Returns whether a file is a regular one that is not as in the image or only in memory. The checks come in the order
/// of their cost.
#[inline(always)]
pub fn is_foreign<A: Access>(inode: Inode<A>) -> bool {
    if !inode.is_regular() {
        return false;
    }
    let superblock = inode.superblock();
    if superblock.is_overlay() {
        return !inode.probed().upper_dentry().is_null();
    }
    superblock.is_in_memory()
}

/// Checks a file that is being opened for reading.
#[inline(always)]
pub fn opened<A: Access>(file: File<A>) -> Option<Change> {
    // Most files are opened on the host.
    if container::is_clearly_elsewhere() || !is_foreign(file.inode()) {
        return None;
    }
    let task = Task::current();
    if container::is_elsewhere() {
        return None;
    }
    let (inode, place) = (file.inode().probed(), file.probed().place());
    // The open in the overlay was seen before, whatever file system the upper layer is on.
    if !inode.superblock().is_overlay() && file.probed().place_on_overlay().is_some() {
        return None;
    }
    if code::language(place.dentry.end_of_name()).is_none() && !is_among_first(current_process()) {
        return None;
    }
    let container = container::of_current()?.container;
    let image = Image { owner: container, device: inode.device() };
    if versions::is_noted(task, Kind::Interpret, container, inode, image.device) {
        return None;
    }
    Some(Change::at_place(Kind::Interpret, image, inode, place, VERSION))
}
