//! Finds an executed file again, to read it. Containers decide what is where, and can mount file systems that never
//! answer. So nothing is asked of a file system before it is known to be one of this machine, and the file is opened
//! only when it is the one that the kernel reported.

use std::cell::OnceCell;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::Path;

use detector_common::record::is_same_in_layer;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;

use super::executed;
use crate::event::{self, Event};
use crate::finding::Unread;
use crate::procfs::{self, Process};

/// How many processes of a container are tried when the process that executed the file has already exited.
const MAX_WITNESSES: usize = 8;
/// How much is read of the list of a container's processes.
const MAX_PROCS: u64 = 4096;
/// How much is read of the list of a process's mounts. This is enough for the number that the kernel allows.
const MAX_MOUNTINFO: u64 = 32 << 20;

/// The file systems that paths lead through safely. An overlay is among them: if a layer of it is remote, the kernel
/// has reported that with the file.
const LOCAL: [&[u8]; 17] = [
    b"bcachefs",
    b"btrfs",
    b"devtmpfs",
    b"erofs",
    b"exfat",
    b"ext2",
    b"ext3",
    b"ext4",
    b"f2fs",
    b"iso9660",
    b"overlay",
    b"ramfs",
    b"rootfs",
    b"squashfs",
    b"tmpfs",
    b"xfs",
    b"zfs",
];

/// Opens the executed or mapped file of an event. `cgroup` is the directory of the container's cgroup.
pub(super) fn open(event: &Event, cgroup: Option<&Path>) -> Result<File, Unread> {
    let (file, path, process) = executed(event).ok_or(Unread::Gone)?;
    if let Some(opened) = of_process(event, file, process) {
        return Ok(opened.into());
    }
    let mut reason = Unread::Gone;
    for pid in witnesses(process, cgroup) {
        match Process::open(&pid.to_string())
            .map_err(|_| Unread::Gone)
            .and_then(|witness| by_path(&witness, path, file))
        {
            Ok(opened) => return Ok(opened.into()),
            Err(Unread::Remote) => reason = Unread::Remote,
            Err(_) => {}
        }
    }
    Err(reason)
}

/// Opens the file through the process that executed or mapped it, if that process still runs.
fn of_process(event: &Event, file: &event::File, process: &event::Process) -> Option<OwnedFd> {
    let process = Process::open_started(process.pid, process.start_time)?;
    let mounts = Mounts::of(&process);
    let open = |held| open_same(&held, file, &mounts);
    match event {
        Event::MapExec(_) => process.hold_mapped(|mapped| is_mapping_of(mapped, file), open),
        _ => open(process.hold("exe").ok()?),
    }
}

/// Whether a mapping can be one of the reported file. Before Linux 6.8, that of a file on an overlay has the device of
/// the layer, and lacks the number of the layer.
fn is_mapping_of(mapped: &procfs::MappedFile, file: &event::File) -> bool {
    let is_exact = (mapped.dev, mapped.inode) == (file.dev, file.inode);
    is_exact || file.layer.is_some() && is_same_in_layer(file.inode, mapped.inode)
}

/// Whether the process that executed or mapped the file still runs with it. As long as it does, the kernel lets nobody
/// write to an executed file, except Linux 6.11.
pub(super) fn runs(event: &Event) -> bool {
    executed(event).is_some_and(|(file, _, process)| of_process(event, file, process).is_some())
}

/// The processes that probably see the container's files under the same paths.
fn witnesses(process: &event::Process, cgroup: Option<&Path>) -> impl Iterator<Item = u32> {
    let above = process.ancestors.iter().filter(|ancestor| ancestor.in_container).map(|ancestor| ancestor.pid);
    let mut beside = String::new();
    if let Some(procs) = cgroup.and_then(|cgroup| File::open(cgroup.join("cgroup.procs")).ok()) {
        // A part of the list is good too.
        let _rest = procs.take(MAX_PROCS).read_to_string(&mut beside);
    }
    let beside: Vec<u32> = beside.lines().filter_map(|pid| pid.parse().ok()).collect();
    std::iter::once(process.pid).chain(above).chain(beside).take(MAX_WITNESSES)
}

/// Opens the file at a path, as a process sees it. The lookup stays within the process's root, follows no symbolic
/// links, and does not look into a file system that may be remote.
fn by_path(witness: &Process, path: &event::Path, file: &event::File) -> Result<OwnedFd, Unread> {
    let gone = |_| Unread::Gone;
    if path.truncated {
        return Err(Unread::Gone);
    }
    let mounts = Mounts::of(witness);
    let mut at = witness.hold("root").map_err(gone)?;
    mounts.check(&at, file)?;
    let hold = |at: &OwnedFd, name: &[u8], more| {
        let resolve = ResolveFlags::NO_SYMLINKS | more;
        rustix::fs::openat2(at, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
    };
    at = match hold(&at, &path.bytes, ResolveFlags::IN_ROOT | ResolveFlags::NO_XDEV) {
        Ok(held) => held,
        Err(Errno::XDEV) => {
            for name in path.bytes.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
                at = match hold(&at, name, ResolveFlags::BENEATH | ResolveFlags::NO_XDEV) {
                    Ok(held) => held,
                    Err(Errno::XDEV) => {
                        // Only the top of what is mounted here is reached, so that is not asked for anything.
                        let top = hold(&at, name, ResolveFlags::BENEATH).map_err(gone)?;
                        mounts.check(&top, file)?;
                        top
                    }
                    Err(_) => return Err(Unread::Gone),
                };
            }
            at
        }
        Err(_) => return Err(Unread::Gone),
    };
    open_same(&at, file, &mounts).ok_or(Unread::Gone)
}

/// Opens a file that is held, if it is the reported one, which is not remote. Only the type of a file of another file
/// system is asked for, and nothing that a server would have to answer.
fn open_same(held: &OwnedFd, reported: &event::File, mounts: &Mounts) -> Option<OwnedFd> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let fields = StatxFlags::TYPE | StatxFlags::INO | StatxFlags::SIZE | StatxFlags::CTIME;
    let found = rustix::fs::statx(held, "", flags, fields).ok()?;
    let is_like_it = FileType::from_raw_mode(found.stx_mode.into()).is_file() && found.stx_size == reported.size;
    // Some file systems show another device than that of their superblock: btrfs that of a subvolume, and some overlays
    // that of a layer, with the inode number there.
    let is_same = if found.stx_dev_major << 20 | found.stx_dev_minor == reported.dev {
        found.stx_ino == reported.inode
    } else {
        mounts.device_of(held) == Some(reported.dev)
    };
    // What is found in a file of a layer counts for all containers that have it, so no other file must take its place.
    let changed = found.stx_ctime;
    let change_time = changed.tv_sec.wrapping_mul(1_000_000_000).wrapping_add(changed.tv_nsec.into());
    let is_lower = reported.lower.is_none_or(|lower| {
        is_same_in_layer(found.stx_ino, lower.inode) && change_time.cast_unsigned() == lower.change_time
    });
    (is_like_it && is_same && is_lower).then(|| procfs::open_held(held).ok())?
}

/// The mounts that a process sees. They are read when they are needed.
struct Mounts<'a> {
    process: &'a Process,
    mountinfo: OnceCell<Vec<u8>>,
}

impl<'a> Mounts<'a> {
    fn of(process: &'a Process) -> Self {
        Self { process, mountinfo: OnceCell::new() }
    }

    /// The mount through which a file is held.
    fn find(&self, held: &OwnedFd) -> Option<procfs::Mount> {
        let id = procfs::mount_of(held)?;
        let read = || self.process.read_at_most("mountinfo", MAX_MOUNTINFO).unwrap_or_default();
        procfs::mounts(self.mountinfo.get_or_init(read)).find(|mount| mount.id == id)
    }

    /// The device of the superblock that a held file is on.
    fn device_of(&self, held: &OwnedFd) -> Option<u32> {
        self.find(held).map(|mount| mount.dev)
    }

    /// Refuses a file system that may be remote. That of the reported file is not.
    fn check(&self, held: &OwnedFd, reported: &event::File) -> Result<(), Unread> {
        match self.find(held) {
            Some(mount) if mount.dev == reported.dev || LOCAL.contains(&mount.fs_type.as_slice()) => Ok(()),
            Some(_) => Err(Unread::Remote),
            None => Err(Unread::Gone),
        }
    }
}
