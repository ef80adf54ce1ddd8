//! Keys and values of the maps that both sides touch.

use crate::record::{File, Process, Text};

/// Where a cgroup is in the life of a container. The value of map `CGROUPS`, whose key is the cgroup's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Cgroup {
    /// The container it belongs to: id of the container's outermost cgroup. 0 while in [`PHASE_SETUP`].
    pub container: u64,
    /// `super_block.s_dev` of the container's root file system; 0: not known.
    pub root_dev: u32,
    /// Inode number of the container's mount namespace; 0: not known.
    pub mnt_ns: u32,
    /// One of the `PHASE_` constants.
    pub phase: u32,
    /// Process whose exec started the container, in the host's pid namespace; 0: not known.
    pub init: u32,
    /// Address of the dentry of the container's root directory; 0: not known.
    pub root: u64,
}

/// In map `ROOTS`, instead of a container: the file system holds the roots of several containers, or the host's files
/// too.
pub const ROOTS_SHARED: u64 = u64::MAX;

/// A mount namespace that a container started in. The value of map `MNT_NS`, whose key is the namespace's inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct MountNamespace {
    /// The container: id of its outermost cgroup.
    pub container: u64,
    /// The kernel's number of the namespace, which no other one gets, unlike the inode number; 0: not known.
    pub id: u64,
}

/// How many elements of map `DRAFTS` each CPU has. In them, programs put records together.
pub const DRAFTS_PER_CPU: u32 = 2;
/// How many elements a program tries: those of its CPU, and then those after them.
pub const DRAFTS_TRIED: u32 = 64;

/// The number of elements of map `DRAFTS` on a machine with this many CPUs.
pub const fn drafts(cpus: u32) -> u32 {
    DRAFTS_PER_CPU.saturating_mul(cpus).saturating_add(DRAFTS_TRIED)
}

/// New: no program has run from a root of its own in it. What happens in it is a runtime's set-up.
pub const PHASE_SETUP: u32 = 1;
/// A container that runs.
pub const PHASE_STARTED: u32 = 2;
/// Belongs to the host: processes in the host's mount namespace were found in it at start.
pub const PHASE_HOST: u32 = 3;

/// Key of map `SEEN`: a file that a container changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct SeenKey {
    /// The container: id of its outermost cgroup.
    pub container: u64,
    /// `inode.i_ino`.
    pub inode: u64,
    /// `super_block.s_dev`.
    pub dev: u32,
    /// What was done to the file: [`CLASS_CONTENT`], or else the number of an operation, [`CLASS_MAP_EXEC`] or
    /// [`CLASS_DEVICE_OPEN`] in the lower half, and in the upper half the new value where that makes a difference.
    pub class: u32,
}

/// [`SeenKey::class`]: the content was changed.
pub const CLASS_CONTENT: u32 = 0;
/// [`SeenKey::class`]: the file's code was mapped. No operation has this number.
pub const CLASS_MAP_EXEC: u32 = 23;
/// [`SeenKey::class`]: the device was opened for writing. No operation has this number.
pub const CLASS_DEVICE_OPEN: u32 = 24;

/// The [`SeenKey::class`] of anything but a change of the content. `value` makes a difference only if it is given.
pub const fn class(number: u32, value: u32) -> u32 {
    number | value << 16
}

/// Value of map `SEEN`. Written before the record goes to the ring buffer, so that nothing is lost when that is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Seen {
    /// Time of the first change.
    pub first: u64,
    /// Time of the last change.
    pub last: u64,
    /// Calls of `vfs_write`.
    pub count: u64,
    /// Bytes that those calls asked to write.
    pub bytes: u64,
    /// Number that the record of the first change has, or would have had: see
    /// [`Header::number`](crate::record::Header::number).
    pub number: u64,
    /// Number of that record's [`Kind`](crate::record::Kind).
    pub kind: u32,
    /// Number of the first operation, as the kind says; see [`FileRecord::op`](crate::record::FileRecord::op).
    pub op: u32,
    /// 1: a record of it is in the ring buffer. 0: it was full; the daemon reports from here.
    pub reported: u32,
    /// Process that made the first change, in the host's pid namespace.
    pub pid: u32,
    /// Number of the [`Layer`](crate::vocabulary::Layer) at the first change; 0: not known.
    pub layer: u32,
    /// Reserved, 0.
    pub reserved: u32,
}

/// Key of map `KEPT_EXECS`: a program that a container executed while the ring buffer was full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct KeptExecKey {
    /// The container: id of its outermost cgroup.
    pub container: u64,
    /// `inode.i_ino` of the program.
    pub inode: u64,
    /// `super_block.s_dev`.
    pub dev: u32,
    /// A hash of how its arguments begin: one file can be many programs, as busybox is.
    pub args: u32,
}

/// Value of map `KEPT_EXECS`: the first exec of this program that found no room.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct KeptExec {
    /// When, `CLOCK_BOOTTIME`, nanoseconds. 0: the entry is not filled yet.
    pub time: u64,
    /// Number that its record would have had: see [`Header::number`](crate::record::Header::number).
    pub number: u64,
    /// Cgroup of the process.
    pub cgroup: u64,
    /// The process.
    pub process: Process,
    /// The program.
    pub file: File,
    /// Its name, without the path, as a plain string.
    pub name: Text<64>,
    /// The first arguments.
    pub args: Text<256>,
}

const _: () = {
    assert!(size_of::<Cgroup>() == 32);
    assert!(size_of::<MountNamespace>() == 16);
    assert!(size_of::<SeenKey>() == 24);
    assert!(size_of::<Seen>() == 64);
    assert!(size_of::<KeptExecKey>() == 24);
    assert!(size_of::<KeptExec>() == 24 + size_of::<Process>() + size_of::<File>() + 8 + 64 + 8 + 256);
};

/// `aya` takes keys and values whose every byte is data.
#[cfg(feature = "user")]
#[expect(unsafe_code, reason = "aya::Pod is an unsafe trait")]
mod pod {
    // SAFETY: `repr(C)`, integers only, no padding (the sizes above are the sums of the fields').
    unsafe impl aya::Pod for super::Cgroup {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::MountNamespace {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::SeenKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Seen {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::KeptExecKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::KeptExec {}
}
