//! Records of the ring buffer `EVENTS`. Each starts with a [`Header`]; its `kind` names the type.
//!
//! Integers are in native byte order. Times are nanoseconds of `CLOCK_BOOTTIME`. Device numbers are the kernel's own
//! (`major << 20 | minor`), not the encoding of `stat(2)`.

#[cfg(feature = "user")]
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// Longest path that is reported whole, in bytes: `PATH_MAX` of Linux.
pub const PATH_CAPACITY: usize = 4096;
/// Room behind a path so that its last name can be copied without a length check: `NAME_MAX + 1`.
pub const NAME_CAPACITY: usize = 256;
/// Most directory levels of a path that are walked.
pub const PATH_DEPTH: usize = 64;
/// Most bytes of the argument vector that are reported, NUL between arguments.
pub const ARGS_CAPACITY: usize = 2048;
/// Size of `task_struct.comm` (`TASK_COMM_LEN`).
pub const COMM_LEN: usize = 16;
/// Most ancestors of a process that are reported, nearest first.
pub const ANCESTORS: usize = 8;

/// A process executed a program in a container: [`ExecRecord`].
pub const KIND_EXEC: u32 = 1;
/// A file of a container's image was opened for writing, created or written: [`ImageWriteRecord`].
pub const KIND_IMAGE_WRITE: u32 = 2;
/// A cgroup was made: [`CgroupRecord`].
pub const KIND_CGROUP_CREATED: u32 = 3;
/// A cgroup was removed: [`CgroupRecord`].
pub const KIND_CGROUP_REMOVED: u32 = 4;

/// First bytes of every record.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct Header {
    /// One of the `KIND_` constants.
    pub kind: u32,
    /// Size of the whole record in bytes.
    pub size: u32,
    /// When it happened.
    pub time: u64,
    /// Cgroup of the acting task: kernfs id, which is the inode number of its directory in cgroup2.
    pub cgroup: u64,
    /// The container concerned: id of its outermost cgroup. 0: none.
    pub container: u64,
}

/// A string of up to `N` bytes.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct Text<const N: usize> {
    /// Bytes of `bytes` that are valid.
    pub len: u32,
    /// [`TEXT_TRUNCATED`] or 0.
    pub flags: u32,
    /// The bytes. Behind `len` they are undefined.
    pub bytes: [u8; N],
}

/// [`Text::flags`]: the string was longer than what is given.
pub const TEXT_TRUNCATED: u32 = 1;

/// A resolved path: its names from the file up to the root, each ended by a NUL, without slashes.
/// `/etc/passwd` is `passwd\0etc\0`; the root itself is empty.
pub type Path = Text<{ PATH_CAPACITY + NAME_CAPACITY }>;
/// An argument vector: each argument ended by a NUL.
pub type Args = Text<ARGS_CAPACITY>;

/// Identity of a file.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct File {
    /// `inode.i_ino`.
    pub inode: u64,
    /// `super_block.s_dev`.
    pub dev: u32,
    /// `inode.i_mode`, type and permissions.
    pub mode: u32,
    /// `inode.i_nlink`.
    pub nlink: u32,
    /// One of the `LAYER_` constants.
    pub layer: u32,
}

/// The file is not on an overlay, or the layer could not be told.
pub const LAYER_NONE: u32 = 0;
/// The file is as the image has it: only in a lower layer.
pub const LAYER_LOWER: u32 = 1;
/// The file was changed or copied up before: it is in the upper layer.
pub const LAYER_UPPER: u32 = 2;
/// The file is being created by this event.
pub const LAYER_NEW: u32 = 3;

/// What stands behind one of the descriptors 0 to 2.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct Stdio {
    /// `inode.i_ino`.
    pub inode: u64,
    /// `inode.i_mode`; 0: the descriptor is closed.
    pub mode: u32,
    /// `inode.i_rdev`, for devices.
    pub rdev: u32,
}

/// A process above the acting one.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct Ancestor {
    /// `task_struct.start_boottime` of the process's leader.
    pub start_time: u64,
    /// Process id in the host's pid namespace; 0: no more ancestors.
    pub pid: u32,
    /// 1: in the same container as the acting process.
    pub in_container: u32,
    /// `task_struct.comm`: a name that the process can choose.
    pub comm: [u8; COMM_LEN],
}

/// The acting process, at the event.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct Process {
    /// `task_struct.start_boottime` of the process's leader: with `pid` it names the process for ever.
    pub start_time: u64,
    /// Process id (thread group id) in the host's pid namespace.
    pub pid: u32,
    /// Thread id in the host's pid namespace.
    pub tid: u32,
    /// Process id in the process's own pid namespace.
    pub ns_pid: u32,
    /// Process id of the parent, in the host's pid namespace.
    pub ppid: u32,
    /// User id in the host's user namespace.
    pub uid: u32,
    /// Group id in the host's user namespace.
    pub gid: u32,
    /// One of the `ORIGIN_` constants.
    pub origin: u32,
    /// Reserved, 0.
    pub reserved: u32,
    /// `task_struct.comm`: a name that the process can choose.
    pub comm: [u8; COMM_LEN],
    /// Name of the controlling terminal (`pts0`), NUL-padded; empty: none.
    pub tty: [u8; COMM_LEN],
    /// Descriptors 0, 1 and 2.
    pub stdio: [Stdio; 3],
    /// The processes above, nearest first.
    pub ancestors: [Ancestor; ANCESTORS],
}

/// The process does not belong to the container: it acts from the host or from another container.
pub const ORIGIN_OUTSIDE: u32 = 0;
/// The process is the container's first one, as the image or the pod says.
pub const ORIGIN_ENTRYPOINT: u32 = 1;
/// The process, or one above it, was brought into the running container from outside (`docker exec`, `nsenter` …).
pub const ORIGIN_ENTERED: u32 = 2;
/// The process was started by a process of the container.
pub const ORIGIN_APPLICATION: u32 = 3;

/// See [`KIND_EXEC`]. Sent once for each successful exec in a container, when the new program is in place.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct ExecRecord {
    /// Kind, time, place.
    pub header: Header,
    /// The process, as the new program.
    pub process: Process,
    /// The executed file (of a script: its interpreter).
    pub file: File,
    /// Path of the executed file from the process's root.
    pub path: Path,
    /// Working directory from the process's root.
    pub cwd: Path,
    /// The argument vector.
    pub args: Args,
}

/// See [`KIND_IMAGE_WRITE`]. Sent for the first change of a file by container and inode, and for each creation.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct ImageWriteRecord {
    /// Kind, time, place.
    pub header: Header,
    /// The process that changes the file.
    pub process: Process,
    /// The changed file.
    pub file: File,
    /// One of the `OP_` constants.
    pub op: u32,
    /// Reserved, 0.
    pub reserved: u32,
    /// Bytes that the call asked to write; 0 for an open.
    pub bytes: u64,
    /// Path of the file in the image, from the root of its superblock.
    pub path: Path,
    /// Path of the process's executable from the process's root.
    pub exe: Path,
}

/// The file was opened for writing.
pub const OP_OPEN_WRITE: u32 = 1;
/// The file was opened for writing and cut to length 0 (`O_TRUNC`).
pub const OP_TRUNCATE: u32 = 2;
/// The file was created.
pub const OP_CREATE: u32 = 3;
/// The file was written through a descriptor that was opened before the sensor watched.
pub const OP_WRITE: u32 = 4;

/// See [`KIND_CGROUP_CREATED`] and [`KIND_CGROUP_REMOVED`]. `header.cgroup` is the cgroup itself.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct CgroupRecord {
    /// Kind, time, and the cgroup made or removed.
    pub header: Header,
    /// Path of the cgroup from the root of the hierarchy, as a plain string.
    pub path: Text<PATH_CAPACITY>,
}

const _: () = {
    assert!(size_of::<Header>() == 32);
    assert!(size_of::<File>() == 24);
    assert!(size_of::<Stdio>() == 16);
    assert!(size_of::<Ancestor>() == 32);
    assert!(size_of::<Process>() == 8 + 8 * 4 + 2 * COMM_LEN + 3 * 16 + ANCESTORS * 32);
    assert!(size_of::<Path>() == 8 + PATH_CAPACITY + NAME_CAPACITY);
    assert!(size_of::<ExecRecord>() == 32 + size_of::<Process>() + 24 + 2 * size_of::<Path>() + size_of::<Args>());
    assert!(size_of::<ImageWriteRecord>() == 32 + size_of::<Process>() + 24 + 16 + 2 * size_of::<Path>());
};
