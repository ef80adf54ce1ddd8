//! The records of the ring buffer `EVENTS`. Each one starts with a [`Header`], whose `kind` tells the type of the
//! record. The bytes of its texts follow it: the bytes of each [`Span`] come directly after those of the previous one,
//! in the order of the fields.
//!
//! Integers are in native byte order. Times are in nanoseconds of `CLOCK_BOOTTIME`. Device numbers are in the kernel's
//! own encoding (`major << 20 | minor`), not in that of `stat(2)`.

#[cfg(feature = "user")]
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::vocabulary::terms;

/// The maximum length of a path that is reported in full, in bytes: `PATH_MAX` of Linux.
pub const PATH_CAPACITY: usize = 4096;
/// The room after a path, in bytes. With it, the last name can be copied without a check of its length: `NAME_MAX + 1`.
pub const NAME_CAPACITY: usize = 256;
/// The maximum number of directory levels of a path that are walked.
pub const PATH_DEPTH: usize = 64;
/// The maximum number of bytes of the argument vector that are reported, including the NULs between arguments.
pub const ARGS_CAPACITY: usize = 2048;
/// The size of `linux_binprm.buf` (`BINPRM_BUF_SIZE`): the first bytes of a program, with its headers.
pub const HEAD_CAPACITY: usize = 256;
/// The size of `task_struct.comm` (`TASK_COMM_LEN`).
pub const COMM_LEN: usize = 16;
/// The maximum number of ancestors of a process that are reported, nearest first.
pub const ANCESTORS: usize = 8;

terms! {
    /// What a record is about. The number is in [`Header::kind`].
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
    /// A script is about to be executed in a container, or a program whose standard input is a file that is not as in
    /// the image: [`ScriptRecord`].
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
    /// A container opened for writing a control of the kernel, or any process one that switches probes off:
    /// [`FileRecord`], whose `op` is a [`Control`](crate::vocabulary::Control).
    ControlOpen = 11, "control_open";
    /// Another process changed a map of the sensor, or acted on its process: [`TamperingRecord`].
    Tampering = 12, "tampering";
    /// A container opened a file by its handle: [`FileRecord`], whose `op` is 1 if the file is known to be in the mount
    /// that it was opened through, and 0 otherwise.
    HandleOpen = 13, "handle_open";
    /// A process with the host's mounts is about to execute a file of a container: [`FileRecord`], whose `op` is 0.
    HostExec = 14, "host_exec";
    /// A process of a container opened a file for reading that is not as in the image and may be code for an
    /// interpreter: [`FileRecord`], whose `op` is 0.
    Interpret = 15, "interpret";
    /// A process of a session has ended: [`ExitRecord`].
    Exit = 16, "exit";
    /// A container listens on a socket for the first time: [`SocketRecord`].
    Listen = 17, "listen";
    /// A container accepts the first connection that may come from elsewhere: [`SocketRecord`].
    Accept = 18, "accept";
}

/// The first bytes of every record.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct Header {
    /// The number of the [`Kind`].
    pub kind: u32,
    /// The size of the whole record with its texts, in bytes.
    pub size: u32,
    /// The number of the record: the number of the CPU in the upper 16 bits, and below it a count on that CPU since the
    /// probes were loaded. A program that interrupts another one can take the same number, and after a reload the count
    /// starts at 0 again. Only the boot, `time` and `number` together identify an act.
    pub number: u64,
    /// The time of the act.
    pub time: u64,
    /// The id of the acting task's cgroup: the kernfs id, which in cgroup2 is the inode number of the cgroup's
    /// directory.
    pub cgroup: u64,
    /// The container concerned: the id of its outermost cgroup. 0 if there is none.
    pub container: u64,
}

/// A string of up to `N` bytes.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct Text<const N: usize> {
    /// The number of bytes of `bytes` that are valid.
    pub len: u32,
    /// [`TEXT_TRUNCATED`] or 0.
    pub flags: u32,
    /// The bytes. Those from `len` on are undefined.
    pub bytes: [u8; N],
}

/// The flag in [`Text::flags`] and [`Span::flags`] of a string that was truncated.
pub const TEXT_TRUNCATED: u32 = 1;

/// A text of a record, whose bytes follow the record.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct Span {
    /// The number of the text's bytes.
    pub len: u32,
    /// [`TEXT_TRUNCATED`], [`PATH_DETACHED`], [`PATH_DIRECT`] or 0.
    pub flags: u32,
}

impl Span {
    /// A text without bytes.
    pub const EMPTY: Self = Self { len: 0, flags: 0 };
}

/// The flag in [`Span::flags`] of a path that ends at a file without a directory, such as those of memfd_create(2). The
/// last name is that of the file, for example `memfd:NAME`, or `/` if the file has no name.
pub const PATH_DETACHED: u32 = 2;

/// The flag in [`Span::flags`] of a path that a mount or a changed root cannot make up: it leads from the file through
/// no mount up to the top of the file system that the file is in.
pub const PATH_DIRECT: u32 = 4;

/// A resolved path: its names from the file up to the root, each terminated by a NUL, without slashes. `/etc/passwd` is
/// `passwd\0etc\0`, and the root itself is empty.
pub type Path = Span;
/// An argument vector. Each argument is terminated by a NUL.
pub type Args = Span;

/// The identity and the attributes of a file.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct File {
    /// `inode.i_ino`.
    pub inode: u64,
    /// `super_block.s_dev`.
    pub dev: u32,
    /// `inode.i_mode`: the type and the permissions.
    pub mode: u32,
    /// `inode.i_nlink`.
    pub nlink: u32,
    /// The number of the [`Layer`](crate::vocabulary::Layer). 0 if the file is not on an overlay.
    pub layer: u32,
    /// `inode.i_size`, in bytes.
    pub size: u64,
    /// `inode.i_ctime`: when the file was last changed, in nanoseconds of the wall clock.
    pub change_time: u64,
    /// `super_block.s_magic`: the type of the file system.
    pub magic: u32,
    /// For an executed or mapped file on an overlay: 1 if a layer that has the file, or a directory of its path, is
    /// served by a process or another machine, as FUSE and network file systems are. Otherwise 0.
    pub is_served: u32,
    /// For code that is not as in the image: the number of the [`Difference`](crate::vocabulary::Difference). 0 if it
    /// is not known.
    pub difference: u32,
    /// Reserved. It is 0.
    pub reserved: u32,
    /// For an executed file that is as in the image: the file in the lower layer. All members are 0 if it is not known.
    pub lower: LowerFile,
}

/// A file in a lower layer of an overlay. Containers with the same layer have the same file.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct LowerFile {
    /// `inode.i_ino`.
    pub inode: u64,
    /// `inode.i_ctime`, in nanoseconds of the wall clock.
    pub change_time: u64,
    /// `super_block.s_dev` of the layer's file system.
    pub dev: u32,
    /// `super_block.s_magic` of that file system.
    pub magic: u32,
}

/// Returns whether two inode numbers can be those of one file, on an overlay and in a layer: the overlay may add the
/// number of the layer in the upper bits.
#[inline(always)]
pub const fn is_same_in_layer(one: u64, other: u64) -> bool {
    const LAYER_BITS: u32 = 16;
    (one ^ other) << LAYER_BITS == 0
}

impl LowerFile {
    /// No file.
    pub const NONE: Self = Self { inode: 0, change_time: 0, dev: 0, magic: 0 };
}

impl File {
    /// No file.
    pub const NONE: Self = Self {
        inode: 0,
        dev: 0,
        mode: 0,
        nlink: 0,
        layer: 0,
        size: 0,
        change_time: 0,
        magic: 0,
        is_served: 0,
        difference: 0,
        reserved: 0,
        lower: LowerFile::NONE,
    };
}

/// What one of the descriptors 0 to 2 refers to.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct Stdio {
    /// `inode.i_ino`.
    pub inode: u64,
    /// `inode.i_mode`. 0 if the descriptor is closed.
    pub mode: u32,
    /// `inode.i_rdev`, for devices.
    pub rdev: u32,
}

/// The other end of a socket.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct Peer {
    /// `sock_common.skc_family`: [`Peer::INET`] or [`Peer::INET6`]. There is no peer if it is another number.
    pub family: u16,
    /// The port, in network byte order. 0 if the socket is not connected.
    pub port: u16,
    /// The address in network byte order. That of IPv4 is in the first four bytes, and the others are undefined.
    pub address: [u8; 16],
    /// Reserved. It is 0.
    pub reserved: u32,
}

impl Peer {
    /// There is no socket.
    pub const NONE: Self = Self { family: 0, port: 0, address: [0; 16], reserved: 0 };
    /// `AF_INET` (include/linux/socket.h).
    pub const INET: u16 = 2;
    /// `AF_INET6`.
    pub const INET6: u16 = 10;
}

/// An ancestor of the acting process.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct Ancestor {
    /// The `task_struct.start_boottime` of the process's leader.
    pub start_time: u64,
    /// The process id in the host's pid namespace. 0 if there are no more ancestors.
    pub pid: u32,
    /// Whether it is in the same container as the acting process: 1 means yes, 0 means no.
    pub in_container: u32,
    /// `task_struct.comm`: a name that the process can choose.
    pub comm: [u8; COMM_LEN],
}

/// The session that a process belongs to, by the first process in it. This is also the key of the map `SESSIONS`, whose
/// value is the number of processes in the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct Session {
    /// The [`Process::start_time`] of the first process.
    pub start_time: u64,
    /// The process id of the first process in the host's pid namespace. 0 if the process belongs to no session.
    pub pid: u32,
    /// The number of the [`Via`](crate::vocabulary::Via). 0 if the process belongs to no session.
    pub via: u32,
}

impl Session {
    /// No session.
    pub const NONE: Self = Self { start_time: 0, pid: 0, via: 0 };
}

/// The acting process, at the time of the act.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct Process {
    /// The `task_struct.start_boottime` of the process's leader. Together with `pid`, it identifies the process.
    pub start_time: u64,
    /// The process id (thread group id) in the host's pid namespace.
    pub pid: u32,
    /// The thread id in the host's pid namespace.
    pub tid: u32,
    /// The process id in the process's own pid namespace.
    pub ns_pid: u32,
    /// The parent's process id in the host's pid namespace.
    pub ppid: u32,
    /// The user id in the host's user namespace.
    pub uid: u32,
    /// The group id in the host's user namespace.
    pub gid: u32,
    /// The number of the [`Origin`](crate::vocabulary::Origin).
    pub origin: u32,
    /// The id of the user who logged in (`task_struct.loginuid`). Changes of the process's user id do not change it.
    /// [`NO_LOGIN`] if nobody logged in.
    pub login_uid: u32,
    /// The effective capabilities (`cred.cap_effective`), one bit for each.
    pub capabilities: u64,
    /// `task_struct.comm`: a name that the process can choose.
    pub comm: [u8; COMM_LEN],
    /// The name of the controlling terminal (`pts0`), padded with NULs. It is empty if there is no terminal.
    pub tty: [u8; COMM_LEN],
    /// The descriptors 0, 1 and 2.
    pub stdio: [Stdio; 3],
    /// The other end of the descriptor 0, if that is a socket.
    pub peer: Peer,
    /// The session that the process belongs to.
    pub session: Session,
    /// The process that has moved this one into the cgroup of the running container, such as a runtime for an exec. It
    /// may have ended since. Its `pid` is 0 if that is not known.
    pub mover: Ancestor,
    /// The ancestors of the process, nearest first.
    pub ancestors: [Ancestor; ANCESTORS],
}

/// The [`Process::login_uid`] of a process that does not come from a login.
pub const NO_LOGIN: u32 = u32::MAX;

/// The record of [`Kind::Exec`]. It is sent once for each successful exec in a container, when the new program is in
/// place.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct ExecRecord {
    /// The header.
    pub header: Header,
    /// The process, as it is after the exec.
    pub process: Process,
    /// The executed file. For a script, this is its interpreter.
    pub file: File,
    /// The first bytes of that file, which the kernel has read to execute it. Those after its end are 0.
    pub head: [u8; HEAD_CAPACITY],
    /// Whether that file was executed as the interpreter of another one: 1 means yes, 0 means no.
    pub is_interpreter: u32,
    /// Reserved. It is 0.
    pub reserved: u32,
    /// The path of the executed file from the process's root.
    pub path: Path,
    /// The working directory from the process's root.
    pub cwd: Path,
    /// The argument vector.
    pub args: Args,
}

/// The record of [`Kind::ImageChange`], [`Kind::ImageMove`], [`Kind::MountChange`], [`Kind::DeviceOpen`],
/// [`Kind::ControlOpen`], [`Kind::HandleOpen`], [`Kind::HostExec`], [`Kind::MapExec`] and [`Kind::Interpret`]: what a
/// process did to one file, or with it. An act that the map `SEEN` keeps is sent only the first time that the actor
/// does it to the file, and code that the map `VERSIONS` keeps once with each version of the file. Every creation of a
/// file is sent, and so is every act that no map keeps.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct FileRecord {
    /// The header.
    pub header: Header,
    /// The process that acts.
    pub process: Process,
    /// The file, or the directory of a name that is created: see
    /// [`ImageOp::reports_directory`](crate::vocabulary::ImageOp::reports_directory).
    pub file: File,
    /// The number of the operation. The kind tells its type.
    pub op: u32,
    /// The new permissions for [`ImageOp::Chmod`](crate::vocabulary::ImageOp::Chmod). The type and the permissions of
    /// what [`ImageOp::Mknod`](crate::vocabulary::ImageOp::Mknod) creates, unless it is a regular file. For
    /// [`Kind::MountChange`], whether the process is in a user namespace that the rest of its container is not in: 1
    /// means yes. 0 for everything else.
    pub value: u32,
    /// The number of bytes that the call asked to write. 0 for anything but a write.
    pub bytes: u64,
    /// The `inode.i_ino` of the directory of a file that is [created](crate::vocabulary::ImageOp::Create). 0 for
    /// everything else.
    pub directory: u64,
    /// The process's executable. Only `inode`, `dev` and `layer` are set, except for [`Kind::Interpret`].
    pub program: File,
    /// The path of the file. For a file in the image, it starts at the root of the image. For a device, code, a file
    /// that is opened by its handle or executed on the host, and a directory that becomes the root, it starts at the
    /// process's root. For a control of the kernel, it starts at the top of the file system.
    pub path: Path,
    /// The path of the process's executable from the process's root.
    pub exe: Path,
    /// The new path, or the other name, for [`Kind::ImageMove`]. It is empty for everything else.
    pub new_path: Path,
}

/// The record of [`Kind::Script`]. If the exec succeeds, the [`ExecRecord`] of the interpreter follows, from the same
/// process.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct ScriptRecord {
    /// The header.
    pub header: Header,
    /// The process id (thread group id) in the host's pid namespace. The thread that executes the script becomes the
    /// only one of its process.
    pub pid: u32,
    /// Whether the file is not executed, but is the standard input of the program that is: 0 means no.
    pub is_input: u32,
    /// The script.
    pub file: File,
    /// The path of the script from the process's root.
    pub path: Path,
}

/// The record of [`Kind::CgroupEscape`].
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct CgroupEscapeRecord {
    /// The header. `cgroup` is the cgroup that the process is in now, and `container` is the container that it was in.
    pub header: Header,
    /// The process that moved the other one.
    pub process: Process,
    /// The path of the executable of that process, from its root.
    pub exe: Path,
    /// The id of the process that was moved, in the host's pid namespace.
    pub moved: u32,
    /// Reserved. It is 0.
    pub reserved: u32,
    /// The path of the cgroup that the process was moved to, as a plain string.
    pub cgroup: Span,
}

/// The record of [`Kind::Tampering`]. A process is reported once for each act, `value` and map.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct TamperingRecord {
    /// The header.
    pub header: Header,
    /// The process.
    pub process: Process,
    /// The path of the executable of that process, from its root.
    pub exe: Path,
    /// The number of the [`TamperingAct`](crate::vocabulary::TamperingAct).
    pub act: u32,
    /// The number of the [`MapCommand`](crate::vocabulary::MapCommand) or of the signal. 0 for any other act.
    pub value: u32,
    /// The name of the map, padded with NULs. It is empty if the act is not about a map.
    pub map: [u8; COMM_LEN],
}

/// The record of [`Kind::Exit`]. It is sent when the last thread of a process of a session exits.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct ExitRecord {
    /// The header. `container` is that of the session.
    pub header: Header,
    /// The session.
    pub session: Session,
    /// The `task_struct.start_boottime` of the process's leader.
    pub start_time: u64,
    /// The process id in the host's pid namespace.
    pub pid: u32,
    /// How it ended, in the encoding of wait(2).
    pub status: u32,
    /// Whether no process of the session is left: 1 means yes. Two processes that end at the same time can both say so.
    pub is_last: u32,
    /// Reserved. It is 0.
    pub reserved: u32,
}

/// The record of [`Kind::Listen`], which is sent before the socket accepts connections, and of [`Kind::Accept`], which
/// is sent before the process has the connection. There is one of each for a container. Two processes that do it at the
/// same time can both send it.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct SocketRecord {
    /// The header.
    pub header: Header,
    /// The `task_struct.start_boottime` of the process's leader.
    pub start_time: u64,
    /// The process id in the host's pid namespace.
    pub pid: u32,
    /// Reserved. It is 0.
    pub reserved: u32,
}

/// The record of [`Kind::CgroupCreated`] and [`Kind::CgroupRemoved`].
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct CgroupRecord {
    /// The header. `cgroup` is the cgroup that was created or removed.
    pub header: Header,
    /// The path of the cgroup from the root of the hierarchy, as a plain string.
    pub path: Span,
}

const _: () = {
    assert!(size_of::<Header>() == 40);
    assert!(size_of::<LowerFile>() == 24);
    assert!(size_of::<File>() == 56 + size_of::<LowerFile>());
    assert!(size_of::<Stdio>() == 16);
    assert!(size_of::<Peer>() == 24);
    assert!(size_of::<Ancestor>() == 32);
    assert!(size_of::<Session>() == 16);
    assert!(size_of::<Process>() == 8 + 8 * 4 + 8 + 2 * COMM_LEN + 3 * 16 + 24 + 16 + 32 + ANCESTORS * 32);
    assert!(size_of::<Span>() == 8);
    assert!(
        size_of::<ExecRecord>()
            == size_of::<Header>() + size_of::<Process>() + size_of::<File>() + HEAD_CAPACITY + 8 + 3 * 8
    );
    assert!(size_of::<FileRecord>() == size_of::<Header>() + size_of::<Process>() + 2 * size_of::<File>() + 24 + 3 * 8);
    assert!(size_of::<ScriptRecord>() == size_of::<Header>() + 8 + size_of::<File>() + 8);
    assert!(size_of::<CgroupEscapeRecord>() == size_of::<Header>() + size_of::<Process>() + 3 * 8);
    assert!(size_of::<TamperingRecord>() == size_of::<Header>() + size_of::<Process>() + 2 * 8 + COMM_LEN);
    assert!(size_of::<ExitRecord>() == size_of::<Header>() + 16 + 24);
    assert!(size_of::<SocketRecord>() == size_of::<Header>() + 16);
    assert!(size_of::<CgroupRecord>() == size_of::<Header>() + 8);
};
