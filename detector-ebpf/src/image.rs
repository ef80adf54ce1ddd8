//! Changes of files on containers' images.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use detector_common::{
    map::{CLASS_CONTENT, Loss, Seen, SeenKey},
    record::{ImageWriteRecord, KIND_IMAGE_WRITE, LAYER_NEW, OP_CREATE, OP_OPEN_WRITE, OP_TRUNCATE, OP_WRITE},
};

use crate::{
    container::{self, Actor},
    emit,
    kernel::{
        cgroup, file,
        mem::{self, Addr, Read},
        path::{self, Place},
        task,
    },
    maps::{ROOTS, SEEN, lost},
};

/// The container on whose image `file` is, and the image's device.
///
/// # Safety
///
/// `file` must be a `struct file` of the kind that `R` reads.
#[inline(always)]
unsafe fn owner<R: Read>(file: Addr) -> Option<(u32, u64)> {
    // SAFETY: as for the caller; the map's value is copied at once.
    unsafe {
        let device = file::overlay_device::<R>(file)?;
        Some((device, ROOTS.get(device).copied()?))
    }
}

/// A file is being opened.
///
/// # Safety
///
/// `file` must be a `struct file` of the kind that `R` reads.
#[inline(always)]
pub unsafe fn opened<R: Read>(file: Addr) {
    // SAFETY: as for the caller.
    unsafe {
        if file::is_writable::<R>(file)
            && let Some((device, owner)) = owner::<R>(file)
        {
            let op = if file::is_created(file) {
                OP_CREATE
            } else if file::is_truncating(file) {
                OP_TRUNCATE
            } else {
                OP_OPEN_WRITE
            };
            changed::<R>(file, device, owner, op, 0);
        }
    }
}

/// As many bytes as `bytes` gives are being written to a file. It is only asked when the file may matter.
///
/// # Safety
///
/// `file` must be a `struct file` of the kind that `R` reads.
#[inline(always)]
pub unsafe fn written<R: Read>(file: Addr, bytes: impl FnOnce() -> u64) {
    // SAFETY: as for the caller. `vfs_write` is called for descriptors without write access too, and refuses later.
    unsafe {
        if file::may_be_on_overlay::<R>(file)
            && let Some((device, owner)) = owner::<R>(file)
            && file::is_writable::<R>(file)
        {
            changed::<R>(file, device, owner, OP_WRITE, bytes());
        }
    }
}

/// Counts a change, and reports it if it is the first of this file or a creation.
///
/// # Safety
///
/// `file` must be a `struct file` of the kind that `R` reads.
#[inline(always)]
unsafe fn changed<R: Read>(file: Addr, device: u32, owner: u64, op: u32, bytes: u64) {
    // SAFETY: as for the caller; what a typed pointer leads to is typed too.
    let (inode, number) = unsafe {
        let inode = file::inode::<R>(file);
        (inode, file::number::<R>(inode))
    };
    let key = SeenKey { container: owner, inode: number, dev: device, class: CLASS_CONTENT };
    // A created file is a new one, even if its inode number was seen before.
    if let Some(seen) = SEEN.get_ptr_mut(key)
        && op != OP_CREATE
    {
        // SAFETY: a live map element; `last` is a single aligned store.
        unsafe {
            if op == OP_WRITE {
                mem::add(&raw mut (*seen).count, 1);
                mem::add(&raw mut (*seen).bytes, bytes);
            }
            (&raw mut (*seen).last).write_volatile(emit::now());
        }
        return;
    }
    report(file, inode, key, op, bytes);
}

/// Reports the first change of a file.
#[inline(always)]
fn report(file: Addr, inode: Addr, key: SeenKey, op: u32, bytes: u64) {
    let task = task::current();
    let Actor::Process(container, origin) = container::actor(task, key.container, key.dev) else {
        return;
    };
    let mut identity = file::identity(inode);
    if op == OP_CREATE {
        identity.layer = LAYER_NEW;
    }
    // Kept before it is sent: if the ring buffer is full, the daemon finds it here.
    let time = emit::now();
    let seen = Seen {
        first: time,
        last: time,
        count: u64::from(op == OP_WRITE),
        bytes,
        op,
        reported: 0,
        pid: task::current_tgid(),
        layer: identity.layer,
    };
    let flags = if op == OP_CREATE { BPF_ANY } else { BPF_NOEXIST };
    if SEEN.insert(key, seen, flags.into()).is_err() {
        if SEEN.get_ptr(key).is_some() {
            // Another CPU was first, and reports.
            return;
        }
        lost(Loss::SeenFull);
    }
    let cgroup = cgroup::of_task(task);
    let Some(mut reserved) = emit::reserve::<ImageWriteRecord>(KIND_IMAGE_WRITE, cgroup, container, Loss::ImageWrite)
    else {
        return;
    };
    let record = reserved.as_mut_ptr();
    let (dentry, _) = file::path(file);
    // SAFETY: `record` is reserved for us.
    unsafe {
        (*record).file = identity;
        (*record).op = op;
        (*record).value = 0;
        (*record).bytes = bytes;
        task::describe(task, origin, container, container::contains, &raw mut (*record).process);
        path::resolve(Place { dentry, mnt: 0 }, Place { dentry: 0, mnt: 0 }, &raw mut (*record).path);
        path::resolve(task::executable(task), task::root(task), &raw mut (*record).exe);
    }
    reserved.submit(0);
    if let Some(seen) = SEEN.get_ptr_mut(key) {
        // SAFETY: a live map element; a single aligned store.
        unsafe { (&raw mut (*seen).reported).write_volatile(1) };
    }
}
