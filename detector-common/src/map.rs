//! The keys and values of the maps that both sides access.

use crate::record::{File, Kind, Process, Session, Text};
use crate::vocabulary::Via;

/// The state of a cgroup: its phase, and the container that it belongs to. This is the value of the map `CGROUPS`,
/// whose key is the id of the cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Cgroup {
    /// The container that the cgroup belongs to: the id of the container's outermost cgroup. 0 if it belongs to none.
    pub container: u64,
    /// The `super_block.s_dev` of the container's root file system. 0 if it is not known.
    pub root_dev: u32,
    /// The inode number of the container's mount namespace. 0 if it is not known.
    pub mnt_ns: u32,
    /// One of the `PHASE_` constants.
    pub phase: u32,
    /// The process whose exec started the container, in the host's pid namespace. 0 if it is not known.
    pub init: u32,
    /// The address of the dentry of the container's root directory. 0 if it is not known.
    pub root: u64,
    /// The inode number of the container's user namespace. 0 if it is not known.
    pub user_ns: u32,
    /// The inode number of the container's network namespace. 0 if it is not known.
    pub net_ns: u32,
    /// For the container's outermost cgroup, whether a process of the container has listened on a socket: 0 means no. A
    /// cgroup below has what was so when it was created.
    pub has_listened: u32,
    /// The same about a connection that was accepted and may have come from elsewhere.
    pub has_accepted: u32,
}

/// A value of the map `NETWORKS`, which has the number of containers in a network namespace: others are in it too.
pub const NETWORK_SHARED: u64 = 1 << 32;

/// A value of the map `ROOTS` that takes the place of a container's id: the file system holds the roots of several
/// containers, or files of the host too.
pub const ROOTS_SHARED: u64 = u64::MAX;

/// Returns whether no record is sent of an act of this kind in a container that is not watched, by a process of a
/// session that began like this ([`Session::via`]).
///
/// The probes drop only what the daemon would drop anyhow. It drops by the container in the record's header, and tells
/// what is critical, which a finding about a change of a file never is. The probes keep the act in their maps as if it
/// were reported, so what they say about later ones does not differ. What a session on a socket changes is sent,
/// because such a session can be critical, and its finding sums it up. So can be a session that only the daemon knows:
/// its finding lacks what it has changed.
pub const fn is_unsent_if_unwatched(kind: Kind, via: u32) -> bool {
    matches!(kind, Kind::ImageChange | Kind::ImageMove) && via != Via::Socket.number()
}

/// A mount namespace in which a container started. This is the value of the map `MNT_NS`, whose key is the inode number
/// of the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct MountNamespace {
    /// The id of the container's outermost cgroup.
    pub container: u64,
    /// The kernel's number of the namespace. Unlike the inode number, it is never given to another namespace. 0 if it
    /// is not known.
    pub id: u64,
}

/// The number of elements of the map `DRAFTS` that each CPU has. Programs put records together in them.
pub const DRAFTS_PER_CPU: u32 = 2;
/// The number of elements that a program tries: first those of its CPU, then those that follow.
pub const DRAFTS_TRIED: u32 = 64;

/// Returns the number of elements of the map `DRAFTS` on a machine with this many CPUs.
pub const fn drafts(cpus: u32) -> u32 {
    DRAFTS_PER_CPU.saturating_mul(cpus).saturating_add(DRAFTS_TRIED)
}

/// Returns the size of the ring buffer `EVENTS` on a machine with this many CPUs, in bytes: a power of two, as the
/// kernel demands. More CPUs fill it faster.
pub const fn ring_size(cpus: u32) -> u32 {
    if cpus <= 8 { 8 << 20 } else { 16 << 20 }
}

/// Returns with how many bytes a ring buffer of this size counts as full. The rest is for the records that other CPUs
/// are putting together.
pub const fn full_ring(size: u32) -> u64 {
    (size - size / 8) as u64
}

/// The cgroup belongs to a running container.
pub const PHASE_STARTED: u32 = 2;
/// The cgroup belongs to the host: when the sensor started, processes in the host's mount namespace were in it.
pub const PHASE_HOST: u32 = 3;

/// A process of a session. This is the value of the map `ENTERED`, whose key is the id of the process (thread group
/// id). Most sessions begin with a process that was brought into a container from outside; all its descendants are in
/// the session too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Entered {
    /// The id of the container's outermost cgroup.
    pub container: u64,
    /// The session.
    pub session: Session,
}

/// How many elements of `ENTERED` can be processes of sessions that began inside containers. The others are left to
/// what comes from outside, so that no container can take them away.
pub const MOST_INSIDE: u64 = 8_192;

/// The actor that everybody is who is in no container and has not entered one. An actor is who changed a file, so that
/// a change is reported once for each. The processes that a container itself has started are one actor, whose number is
/// the id of the container. Each entry into a container from outside is another one.
pub const HOST: u64 = 0;
/// A number that no actor has.
pub const NOBODY: u64 = u64::MAX;
/// The bit that distinguishes the number of an entry from the id of a container.
const VISIT: u64 = 1 << 63;

/// Returns the actor that all processes of a session are. `start_time` is when its first process started, in
/// nanoseconds.
pub const fn visit(start_time: u64) -> u64 {
    VISIT | start_time
}

/// Returns whether this actor came into a container from outside.
pub const fn is_visit(actor: u64) -> bool {
    actor & VISIT != 0 && actor != NOBODY
}

/// The key of the map `FILES`: a file of a container to which something was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FileKey {
    /// The id of the container's outermost cgroup.
    pub container: u64,
    /// `inode.i_ino`.
    pub inode: u64,
    /// `super_block.s_dev`.
    pub dev: u32,
    /// Reserved. It is 0.
    pub reserved: u32,
}

/// The value of the map `FILES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct FileState {
    /// When something was done to the file for the first time. It distinguishes the file from the next one with the
    /// same inode number.
    pub first: u64,
    /// The time of the last change of the content. 0 if there was none.
    pub last: u64,
    /// The actor who changed the content last, combined with `first`: see [`writer`].
    pub writer: u64,
    /// The actor who created the file, or [`NOBODY`].
    pub creator: u64,
    /// The address of the overlay's `struct inode` when the file was copied up. 0 if that was not seen.
    pub copied: u64,
    /// Whether metadata of the file was changed: 0 means no.
    pub metadata: u32,
    /// Whether the file was given set-id bits or capabilities: 0 means no.
    pub privileges: u32,
}

/// Returns the [`FileState::writer`] for an actor. An element of a map can be used for another file while a program
/// still has a pointer to it. What the program then stores is not the writer of that file, because `first` differs.
pub const fn writer(first: u64, actor: u64) -> u64 {
    first ^ actor
}

/// The key of the map `SEEN`: what an actor did to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct SeenKey {
    /// The [`FileState::first`] of the file. An entry with another number is about a file that is gone.
    pub first: u64,
    /// `inode.i_ino`.
    pub inode: u64,
    /// The actor.
    pub actor: u64,
    /// `super_block.s_dev`.
    pub dev: u32,
    /// What was done to the file. For a change of the content, this is [`CLASS_CONTENT`]. For anything else, the lower
    /// half is the number of an operation, [`CLASS_MAP_EXEC`], [`CLASS_DEVICE_OPEN`], [`CLASS_CONTROL_OPEN`],
    /// [`CLASS_HANDLE_OPEN`] or [`CLASS_HOST_EXEC`]. The upper half is a value that distinguishes acts with the same
    /// lower half: the new permissions of a chmod, how code that is mapped differs from the image, a hash of the
    /// number of an opened device, whether a chroot is in a user namespace of its own, and 0 otherwise.
    pub class: u32,
}

/// The [`SeenKey::class`] of a change of the content.
pub const CLASS_CONTENT: u32 = 0;
/// The [`SeenKey::class`] of code that was mapped. No operation has this number.
pub const CLASS_MAP_EXEC: u32 = 23;
/// The [`SeenKey::class`] of a device that was opened for writing. No operation has this number.
pub const CLASS_DEVICE_OPEN: u32 = 24;

/// The [`SeenKey::class`] of a control of the kernel that was opened for writing. No operation has this number.
pub const CLASS_CONTROL_OPEN: u32 = 33;

/// The [`SeenKey::class`] of a file that was opened by its handle. No operation has this number.
pub const CLASS_HANDLE_OPEN: u32 = 34;
/// The [`SeenKey::class`] of a file that was executed on the host. No operation has this number.
pub const CLASS_HOST_EXEC: u32 = 35;

/// Returns the [`SeenKey::class`] of an act that is not a change of the content. `value` is 0 if it makes no
/// difference.
pub const fn class(number: u32, value: u32) -> u32 {
    number | value << 16
}

/// The value of the map `SEEN`: the first such act. It is written before the record is sent, so that nothing is lost if
/// the ring buffer is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Seen {
    /// The time of the act.
    pub time: u64,
    /// The number that its record has or would have had. See [`Header::number`](crate::record::Header::number).
    pub number: u64,
    /// The number of bytes that the call asked to write.
    pub bytes: u64,
    /// The id of the container's outermost cgroup.
    pub container: u64,
    /// The number of the record's [`Kind`].
    pub kind: u32,
    /// The number of the operation. The kind tells its type; see [`FileRecord::op`](crate::record::FileRecord::op).
    pub op: u32,
    /// Whether user space knows of the act, because its record is in the ring buffer or because the daemon has read
    /// this value. 0 means no: the ring buffer was full, and the daemon reports the act from this map.
    pub reported: u32,
    /// The number of the [`Layer`](crate::vocabulary::Layer) before the act. 0 if it is not known.
    pub layer: u32,
}

/// The key of the map `COUNTED`: new files that the probes count and do not report, because very many of them were
/// reported in a short time. Whatever differs here is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "user", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct CountedKey {
    /// The id of the container's outermost cgroup. A process that the container itself has started creates the files.
    pub container: u64,
    /// The `inode.i_ino` of the directory.
    pub directory: u64,
    /// The `inode.i_ino` of the process's executable.
    pub program: u64,
    /// The [`suffix`] of the names.
    pub suffix: u64,
    /// The `super_block.s_dev` of the directory.
    pub dev: u32,
    /// The `super_block.s_dev` of the process's executable.
    pub program_dev: u32,
    /// The effective user id of the process, in the host's user namespace.
    pub uid: u32,
    /// The number of the process's [`Origin`](crate::vocabulary::Origin).
    pub origin: u32,
}

/// The value of the map `COUNTS`, whose index is the value of `COUNTED`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct Count {
    /// How many files were counted since the sensor was loaded.
    pub files: u64,
    /// When the last one was created, in nanoseconds of `CLOCK_BOOTTIME`.
    pub last: u64,
}

/// The number of elements of `COUNTED` and `COUNTS`.
pub const MOST_COUNTED: u32 = 256;

/// The permissions that make a file more dangerous: those to execute it, and the set-id bits, with which it acts as its
/// owner or group.
pub const POWER: u32 = 0o6111;

/// The length of the longest name that has a [`suffix`].
pub const LONGEST_COUNTED: usize = 32;

/// Returns what is the same in the names of files that are counted together: what follows the only dot, or 0 if there
/// is no dot. Returns `None` for all other names, so that `module.so.1` is none of many `*.1`. `words` is the name,
/// followed by zeros, and `end` its last eight bytes; both are little-endian numbers. If the name is shorter, other
/// bytes come before it in `end`.
#[inline(always)]
pub const fn suffix(words: [u64; LONGEST_COUNTED / 8], end: u64, len: u64) -> Option<u64> {
    if len == 0 || len > LONGEST_COUNTED as u64 {
        return None;
    }
    let end = if len < 8 { end & u64::MAX << (8 * (8 - len)) } else { end };
    let [a, b, c, d] = [dots(words[0]), dots(words[1]), dots(words[2]), dots(words[3])];
    let all = a | b | c | d;
    if all == 0 {
        return Some(0);
    }
    // If two words had a dot at the same place, their sum would differ.
    let is_only = a.wrapping_add(b).wrapping_add(c).wrapping_add(d) == all && all & all.wrapping_sub(1) == 0;
    let dot = dots(end);
    let suffix = end & !(dot | dot.wrapping_sub(1));
    if is_only && dot != 0 && suffix != 0 { Some(suffix) } else { None }
}

/// Returns a number in which the highest bit of each byte is set that is a dot in `word`. A byte after a dot must not
/// be a slash, which no name has.
const fn dots(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let different = word ^ (EACH * b'.' as u64);
    different.wrapping_sub(EACH) & !different & EACH << 7
}

/// The key of the map `KEPT_EXECS`: a program that a container executed while the ring buffer was full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct KeptExecKey {
    /// The id of the container's outermost cgroup.
    pub container: u64,
    /// The `inode.i_ino` of the program.
    pub inode: u64,
    /// The `super_block.s_dev` of the program's file system.
    pub dev: u32,
    /// A hash of the first bytes of the arguments, because one file can be many programs, as busybox is.
    pub args: u32,
}

/// The value of the map `KEPT_EXECS`: the first exec of this program that found no room in the ring buffer.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct KeptExec {
    /// The time of the exec, in nanoseconds of `CLOCK_BOOTTIME`. 0 while the entry is being filled.
    pub time: u64,
    /// The number that the record would have had. See [`Header::number`](crate::record::Header::number).
    pub number: u64,
    /// The id of the process's cgroup.
    pub cgroup: u64,
    /// The process.
    pub process: Process,
    /// The program.
    pub file: File,
    /// The name of the program without its directory, as a plain string.
    pub name: Text<64>,
    /// The first arguments.
    pub args: Text<256>,
}

/// The key of the map `TAMPERERS`: a process that changed a map of the sensor or acted on its process, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Tamperer {
    /// The `task_struct.start_boottime` of the process's leader.
    pub start_time: u64,
    /// The process, in the host's pid namespace.
    pub pid: u32,
    /// The id of the map, or 0.
    pub map: u32,
    /// The number of the [`TamperingAct`](crate::vocabulary::TamperingAct).
    pub act: u32,
    /// The number of the [`MapCommand`](crate::vocabulary::MapCommand) or of the signal, or 0.
    pub value: u32,
}

const _: () = {
    assert!(size_of::<Cgroup>() == 48);
    assert!(size_of::<MountNamespace>() == 16);
    assert!(size_of::<Entered>() == 24);
    assert!(size_of::<FileKey>() == 24);
    assert!(size_of::<FileState>() == 48);
    assert!(size_of::<SeenKey>() == 32);
    assert!(size_of::<Seen>() == 48);
    assert!(size_of::<CountedKey>() == 48);
    assert!(size_of::<Count>() == 16);
    assert!(size_of::<KeptExecKey>() == 24);
    assert!(size_of::<KeptExec>() == 24 + size_of::<Process>() + size_of::<File>() + 8 + 64 + 8 + 256);
};

/// `aya` accepts only keys and values of which every byte is data.
#[cfg(feature = "user")]
#[expect(unsafe_code, reason = "aya::Pod is an unsafe trait")]
mod pod {
    // SAFETY: the type is `repr(C)`, consists of integers, and has no padding: the sizes above are the sums of the
    // sizes of the fields.
    unsafe impl aya::Pod for super::Cgroup {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::MountNamespace {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Entered {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::record::Session {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::FileKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::FileState {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::SeenKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Seen {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::CountedKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Count {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::KeptExecKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::KeptExec {}
}
