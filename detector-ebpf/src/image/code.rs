//! Files that are executed on the host, files that are mapped, and mapped files that become executable: code that did
//! not come with the image, and shared mappings of files that are open for writing.

use detector_common::{
    map::{self, CLASS_MAP_EXEC},
    record::Kind,
    vocabulary::ImageOp,
};

use super::{
    content,
    locate::Image,
    report::{Change, EACH, VERSION},
    seen, versions,
};
use crate::{
    container,
    kernel::{File, Inode, Place, Task, Vma, current_process},
    loader,
};

/// `PROT_READ`, `PROT_EXEC`, and `MAP_TYPE` with two of its values (include/uapi/asm-generic/mman-common.h).
const PROT_READ: u64 = 1;
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
    if protection & PROT_EXEC == 0 {
        // A shared mapping counts even if it is not writable, because mprotect(2) can make it writable at any time.
        if flags & MAP_SHARED != 0 && file.is_writable() {
            return content::stored(file, ImageOp::MmapWrite, 0);
        }
        if protection & PROT_READ == 0 || container::is_clearly_elsewhere() || !Task::current().executes_what_it_reads()
        {
            return None;
        }
    }
    mapped_code(file, flags)
}

/// Checks code that is being mapped. It is reported if it is in the upper layer of an overlay, if it is in a file that
/// is only in memory, has no name or is on a volume, or if it is the program of a dynamic linker.
#[inline(always)]
fn mapped_code(file: File, flags: u64) -> Option<Change> {
    let task = Task::current();
    if container::is_elsewhere() {
        return None;
    }
    let inode = file.inode();
    let class = if loader::is_loading(current_process()) {
        EACH
    } else if inode.superblock().is_overlay() {
        if inode.upper_dentry().is_null() {
            return None;
        }
        CLASS_MAP_EXEC
    } else {
        class_elsewhere(inode, flags & MAP_TYPE == MAP_PRIVATE)?
    };
    loaded(task, inode, file.place(), class)
}

/// Checks mapped memory whose protection is being changed. If it becomes executable, it is reported like code that is
/// mapped.
#[inline(always)]
pub fn protected(memory: Vma, protection: u64) -> Option<Change> {
    if protection & PROT_EXEC == 0 || memory.is_executable() {
        return None;
    }
    let file = memory.file();
    if file.is_null() {
        return None;
    }
    let task = Task::current();
    if container::is_elsewhere() {
        return None;
    }
    let Some(place) = file.place_on_overlay() else {
        let class = class_elsewhere(file.inode(), !memory.is_shared())?;
        return loaded(task, file.inode(), file.place(), class);
    };
    // The file may have been copied up after its lower layer was mapped.
    if file.inode() != place.dentry.inode().upper_dentry().inode() {
        return None;
    }
    loaded(task, place.dentry.inode(), place, CLASS_MAP_EXEC)
}

/// Returns the class of code in a file that is not on an overlay, or `None` if it is not to be reported. A file in
/// memory, without a name or on a volume counts only if it is mapped privately, as loaders do: just-in-time compilers
/// use shared mappings. A volume is any file system but the one that holds the container's root.
#[inline(always)]
fn class_elsewhere(inode: Inode, is_private: bool) -> Option<u32> {
    if !is_private || !inode.is_regular() {
        return None;
    }
    if inode.is_fleeting() {
        return Some(CLASS_MAP_EXEC);
    }
    let root = container::of_current()?.root_dev;
    (root != 0 && root != inode.device()).then_some(VERSION)
}

/// Returns the change for code that the running task loads, unless it is the task's own program or was reported before.
/// Each program of a dynamic linker is reported.
#[inline(always)]
fn loaded(task: Task, inode: Inode, place: Place, class: u32) -> Option<Change> {
    if task.executable().dentry().inode() == inode {
        return None;
    }
    let container = container::of_current()?.container;
    let image = Image { owner: container, device: inode.device() };
    // What differs only in metadata is reported again when its content has changed.
    let class = if class == CLASS_MAP_EXEC { map::class(class, seen::difference(place.dentry)) } else { class };
    if class == EACH {
        loader::forget(current_process());
    }
    if class == VERSION && versions::is_noted(task, Kind::MapExec, container, inode, image.device) {
        return None;
    }
    Change::at_place(Kind::MapExec, image, inode, place, class).unless_repeated()
}

/// Checks a file that is about to be executed, be it a program or a script. It is reported if it is a container's, on
/// its overlay or in the upper directory of that, and the process is in no container. `is_elsewhere` says whether the
/// process sees the host's mounts.
#[inline(always)]
pub fn executing(file: File, is_elsewhere: bool) -> Option<Change> {
    let inode = file.inode();
    let superblock = inode.superblock();
    let image = match Image::on(superblock, || file.dentry()) {
        Some(image) => image,
        None if is_elsewhere => Image { owner: container::owner_of_upper(file.dentry())?, device: superblock.device() },
        None => return None,
    };
    if !is_elsewhere && container::of_executing(Task::current()).is_some() {
        return None;
    }
    Some(Change::at_place(Kind::HostExec, image, inode, file.place(), EACH))
}
