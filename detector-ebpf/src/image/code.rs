//! Files being mapped: code that did not come with the image, and shared mappings for writing.

use detector_common::{
    map::{CLASS_MAP_EXEC, SeenKey},
    record::{Kind, OP_MMAP_WRITE},
};

use super::{
    Image, content, content_key, is_repeated, number,
    report::{Change, EACH},
    seen,
};
use crate::{
    container,
    kernel::{
        file,
        mem::{Addr, Untyped},
        task,
    },
    maps::LOADERS,
};

/// `PROT_EXEC` and `MAP_TYPE` with two of its values (include/uapi/asm-generic/mman-common.h).
const PROT_EXEC: u64 = 4;
const MAP_TYPE: u64 = 15;
const MAP_SHARED: u64 = 1;
const MAP_PRIVATE: u64 = 2;

/// A file is being mapped.
#[inline(always)]
pub fn mapped(file: Addr, protection: u64, flags: u64) -> Option<Change> {
    if file == 0 {
        return None;
    }
    if protection & PROT_EXEC != 0 {
        return mapped_code(file, flags);
    }
    // Also where it is not mapped for writing: mprotect(2) can make it so at any time.
    // SAFETY: `file` is a `struct file`.
    if flags & MAP_SHARED != 0 && unsafe { file::is_writable::<Untyped>(file) } {
        return content::stored(file, OP_MMAP_WRITE, 0);
    }
    None
}

/// Code is mapped: from the upper layer of an overlay; from a file that lives in memory or has no name (privately, as
/// loaders do: shared mappings are those of just-in-time compilers); or as the program of a dynamic linker.
#[inline(always)]
fn mapped_code(file: Addr, flags: u64) -> Option<Change> {
    let task = task::current();
    if container::is_elsewhere(task) {
        return None;
    }
    // SAFETY: `file` is a `struct file`, and what it leads to is an inode and a superblock.
    let (inode, is_overlay) = unsafe {
        let inode = file::inode::<Untyped>(file);
        (inode, file::is_overlay::<Untyped>(file::superblock::<Untyped>(inode)))
    };
    let is_foreign = if is_overlay {
        file::upper_dentry(inode) != 0
    } else {
        flags & MAP_TYPE == MAP_PRIVATE && file::is_fleeting(inode)
    };
    let process = task::current_tgid();
    // SAFETY: the value is not read.
    let is_program = unsafe { LOADERS.get(process) }.is_some();
    if !is_foreign && !is_program {
        return None;
    }
    if file::inode_at(task::executable(task).dentry) == inode {
        return None;
    }
    let container = container::of(task)?.container;
    let image = Image { owner: container, device: file::device(inode) };
    let class = if is_program { EACH } else { CLASS_MAP_EXEC };
    if is_program {
        let _gone_already = LOADERS.remove(process);
    } else {
        let content = content_key(image, number(inode));
        if is_repeated(SeenKey { class, ..content }, seen(content)) {
            return None;
        }
    }
    let (dentry, mnt) = file::path(file);
    Some(Change { mnt, ..Change::new(Kind::MapExec, image, inode, dentry, 0, class) })
}
