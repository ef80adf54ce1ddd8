//! Records of the ring buffer `EVENTS`. Each starts with a [`Header`]; its `kind` names the type. The bytes of its
//! texts follow it, those of one [`Span`] after those of the one before, in the order of the fields.
//!
//! Integers are in native byte order. Times are nanoseconds of `CLOCK_BOOTTIME`. Device numbers are the kernel's own
//! (`major << 20 | minor`), not the encoding of `stat(2)`.

#[cfg(feature = "user")]
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::vocabulary::terms;

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

terms! {
    /// What a record tells. The number is in [`Header::kind`].
    Kind:
    /// A process executed a program in a container: [`ExecRecord`].
    Exec = 1, "exec";
    /// A file of a container's image was changed: [`FileRecord`], whose `op` is an
    /// [`ImageOp`](crate::vocabulary::ImageOp).
    ImageChange = 2, "image_change";
    /// A cgroup was created: [`CgroupRecord`].
    CgroupCreated = 3, "cgroup_created";
    /// A cgroup was removed: [`CgroupRecord`].
    CgroupRemoved = 4, "cgroup_removed";
    /// A file of a container's image was renamed or hard-linked, or two files exchanged their names: [`FileRecord`].
    ImageMove = 5, "image_move";
    /// A script is about to be executed in a container: [`ScriptRecord`].
    Script = 6, "script";
    /// Code of a file was mapped into a process of a container: [`FileRecord`], whose `op` is 0.
    MapExec = 7, "map_exec";
    /// A process of a container was moved to a cgroup outside it: [`CgroupEscapeRecord`].
    CgroupEscape = 8, "cgroup_escape";
    /// The mounts or the root of a container were changed: [`FileRecord`], whose `op` is a
    /// [`MountOp`](crate::vocabulary::MountOp).
    MountChange = 9, "mount_change";
    /// A container opened a block device for writing: [`FileRecord`], whose `op` is 0.
    DeviceOpen = 10, "device_open";
}

/// First bytes of every record.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct Header {
    /// Number of the [`Kind`].
    pub kind: u32,
    /// Size of the whole record with its texts, in bytes.
    pub size: u32,
    /// Number of the record: that of the CPU in the upper 16 bits, below it a count on that CPU since the probes were
    /// loaded. A program that interrupts another can take the same number, and a reload starts again at 0: an act is
    /// named by the boot, `time` and `number` together.
    pub number: u64,
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

/// [`Text::flags`] and [`Span::flags`]: the string was longer than what is given.
pub const TEXT_TRUNCATED: u32 = 1;

/// A text of a record, whose bytes follow the record.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct Span {
    /// The number of its bytes.
    pub len: u32,
    /// [`TEXT_TRUNCATED`] or 0.
    pub flags: u32,
}

impl Span {
    /// A text without bytes.
    pub const EMPTY: Self = Self { len: 0, flags: 0 };
}

/// A resolved path: its names from the file up to the root, each ended by a NUL, without slashes.
/// `/etc/passwd` is `passwd\0etc\0`; the root itself is empty.
pub type Path = Span;
/// An argument vector: each argument ended by a NUL.
pub type Args = Span;

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
    /// Number of the [`Layer`](crate::vocabulary::Layer); 0: the file is not on an overlay.
    pub layer: u32,
    /// `inode.i_size`, bytes.
    pub size: u64,
    /// `super_block.s_magic`: which kind of file system.
    pub magic: u32,
    /// Reserved, 0.
    pub reserved: u32,
}

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
    /// Number of the [`Origin`](crate::vocabulary::Origin).
    pub origin: u32,
    /// The user who logged in, whatever the process has become since (`task_struct.loginuid`); [`NO_LOGIN`]: nobody.
    pub login_uid: u32,
    /// What it may do: `cred.cap_effective`, a bit for each capability.
    pub capabilities: u64,
    /// `task_struct.comm`: a name that the process can choose.
    pub comm: [u8; COMM_LEN],
    /// Name of the controlling terminal (`pts0`), NUL-padded; empty: none.
    pub tty: [u8; COMM_LEN],
    /// Descriptors 0, 1 and 2.
    pub stdio: [Stdio; 3],
    /// The processes above, nearest first.
    pub ancestors: [Ancestor; ANCESTORS],
}

/// The [`Process::login_uid`] of a process that comes from no login.
pub const NO_LOGIN: u32 = u32::MAX;

/// See [`Kind::Exec`]. Sent once for each successful exec in a container, when the new program is in place.
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

/// What a process did to one file, or with it: see [`Kind::ImageChange`], [`Kind::ImageMove`], [`Kind::MountChange`],
/// [`Kind::DeviceOpen`] and [`Kind::MapExec`]. Of an image's file, sent for the first change by container and inode,
/// and for each creation.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct FileRecord {
    /// Kind, time, place.
    pub header: Header,
    /// The process that changes the file.
    pub process: Process,
    /// The changed file.
    pub file: File,
    /// Number of the operation, as the kind says.
    pub op: u32,
    /// [`ImageOp::Chmod`](crate::vocabulary::ImageOp::Chmod): the new permissions. 0 for all others.
    pub value: u32,
    /// Bytes that the call asked to write; 0 for anything but a write.
    pub bytes: u64,
    /// Path of the file: in the image, from the root of the image; of a device or of mapped code, from the process's
    /// root.
    pub path: Path,
    /// Path of the process's executable from the process's root.
    pub exe: Path,
    /// [`Kind::ImageMove`]: the path afterwards, or the new name. Empty for all others.
    pub new_path: Path,
}

/// See [`Kind::Script`]. If the exec succeeds, the [`ExecRecord`] of the interpreter follows, from the same process.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct ScriptRecord {
    /// Kind, time, place.
    pub header: Header,
    /// Process id (thread group id) in the host's pid namespace. The thread that executes becomes the process's only
    /// one.
    pub pid: u32,
    /// Reserved, 0.
    pub reserved: u32,
    /// The script.
    pub file: File,
    /// Its path from the process's root.
    pub path: Path,
}

/// See [`Kind::CgroupEscape`].
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct CgroupEscapeRecord {
    /// Kind, time, the cgroup that the process is in now, and the container that it was in.
    pub header: Header,
    /// The process that moved it.
    pub process: Process,
    /// Path of the executable of that process from its root.
    pub exe: Path,
    /// The process that was moved, in the host's pid namespace.
    pub moved: u32,
    /// Reserved, 0.
    pub reserved: u32,
    /// Path of the cgroup that it was moved to, as a plain string.
    pub cgroup: Span,
}

/// See [`Kind::CgroupCreated`] and [`Kind::CgroupRemoved`]. `header.cgroup` is the cgroup itself.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct CgroupRecord {
    /// Kind, time, and the cgroup made or removed.
    pub header: Header,
    /// Path of the cgroup from the root of the hierarchy, as a plain string.
    pub path: Span,
}

const _: () = {
    assert!(size_of::<Header>() == 40);
    assert!(size_of::<File>() == 40);
    assert!(size_of::<Stdio>() == 16);
    assert!(size_of::<Ancestor>() == 32);
    assert!(size_of::<Process>() == 8 + 8 * 4 + 8 + 2 * COMM_LEN + 3 * 16 + ANCESTORS * 32);
    assert!(size_of::<Span>() == 8);
    assert!(size_of::<ExecRecord>() == size_of::<Header>() + size_of::<Process>() + 40 + 3 * 8);
    assert!(size_of::<FileRecord>() == size_of::<Header>() + size_of::<Process>() + 40 + 16 + 3 * 8);
    assert!(size_of::<ScriptRecord>() == size_of::<Header>() + 8 + 40 + 8);
    assert!(size_of::<CgroupEscapeRecord>() == size_of::<Header>() + size_of::<Process>() + 3 * 8);
    assert!(size_of::<CgroupRecord>() == size_of::<Header>() + 8);
};
