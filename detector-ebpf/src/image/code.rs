//! Files that are mapped: code that did not come with the image, and shared mappings of files that are open for
//! writing.

use detector_common::{map::CLASS_MAP_EXEC, record::Kind, vocabulary::ImageOp};

use super::{
    content,
    locate::Image,
    report::{Change, EACH},
};
use crate::{
    container,
    kernel::{File, Task, current_process},
    loader,
};

/// `PROT_EXEC`, and `MAP_TYPE` with two of its values (include/uapi/asm-generic/mman-common.h).
const PROT_EXEC: u64 = 4;
const MAP_TYPE: u64 = 15;
const MAP_SHARED: u64 = 1;
const MAP_PRIVATE: u64 = 2;

/// Checks a file that is being mapped.
#[inline(always)]
pub fn mapped(file: File, protection: u64, flags: u64) -> Option<Change> {
    if file.is_null() {
        return None;
    }
    if protection & PROT_EXEC != 0 {
        return mapped_code(file, flags);
    }
    // A shared mapping counts even if it is not writable, because mprotect(2) can make it writable at any time.
    if flags & MAP_SHARED != 0 && file.is_writable() {
        return content::stored(file, ImageOp::MmapWrite, 0);
    }
    None
}

/// Checks code that is being mapped. It is reported if it is in the upper layer of an overlay, if it is in a file that
/// is only in memory or has no name, or if it is the program of a dynamic linker. A file in memory or without a name
/// counts only if it is mapped privately, as loaders do: just-in-time compilers use shared mappings.
#[inline(always)]
fn mapped_code(file: File, flags: u64) -> Option<Change> {
    let task = Task::current();
    if container::is_elsewhere(task) {
        return None;
    }
    let inode = file.inode();
    let is_foreign = if inode.superblock().is_overlay() {
        !inode.upper_dentry().is_null()
    } else {
        flags & MAP_TYPE == MAP_PRIVATE && inode.is_fleeting()
    };
    let process = current_process();
    let is_program = loader::is_loading(process);
    if !is_foreign && !is_program {
        return None;
    }
    if task.executable().dentry().inode() == inode {
        return None;
    }
    let container = container::of(task)?.container;
    let image = Image { owner: container, device: inode.device() };
    let class = if is_program { EACH } else { CLASS_MAP_EXEC };
    if is_program {
        loader::forget(process);
    }
    Change::at_place(Kind::MapExec, image, inode, file.place(), class).unless_repeated()
}
