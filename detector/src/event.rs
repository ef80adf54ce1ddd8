//! What the kernel reported, as owned values: the input of [detection](crate::detect).
//!
//! Strings are bytes: paths, arguments and names in Linux have no encoding, and whoever made them may be hostile. They
//! become text, escaped, only in [`crate::finding`] and [`crate::output`].

use detector_common::record::COMM_LEN;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A program was executed in a container.
    Exec(Box<Exec>),
    /// A file of a container's image was changed or shadowed, or a device was opened for writing.
    ImageWrite(Box<ImageWrite>),
    /// A script is about to be executed in a container: if that succeeds, the exec of its interpreter follows.
    Script(Box<Script>),
    /// Code of a file was mapped into a process of a container.
    MapExec(Box<MapExec>),
    /// The same, of which the record was lost in a flood: no more than this is known.
    KeptMapExec(At, File),
    /// A process of a container was moved out of the container's cgroup.
    CgroupEscape(Box<CgroupEscape>),
    /// A cgroup was made.
    CgroupCreated(Cgroup),
    /// A cgroup was removed.
    CgroupRemoved(Cgroup),
}

impl Event {
    /// Where and when; not of cgroups, which are in none.
    pub fn at(&self) -> Option<At> {
        match self {
            Self::Exec(exec) => Some(exec.at),
            Self::ImageWrite(write) => Some(write.at),
            Self::Script(script) => Some(script.at),
            Self::MapExec(mapped) => Some(mapped.at),
            Self::KeptMapExec(at, _) => Some(*at),
            Self::CgroupEscape(escape) => Some(escape.at),
            Self::CgroupCreated(_) | Self::CgroupRemoved(_) => None,
        }
    }

    /// When, `CLOCK_BOOTTIME`, nanoseconds.
    pub fn time(&self) -> u64 {
        match self {
            Self::CgroupCreated(cgroup) | Self::CgroupRemoved(cgroup) => cgroup.time,
            other => other.at().map_or(0, |at| at.time),
        }
    }
}

/// Where and when an event happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// `CLOCK_BOOTTIME`, nanoseconds.
    pub time: u64,
    /// Cgroup id of the acting task.
    pub cgroup: u64,
    /// The container concerned: id of its outermost cgroup.
    pub container: u64,
}

/// A successful exec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// Where and when.
    pub at: At,
    /// The process as the new program.
    pub process: Process,
    /// The executed file (of a script: its interpreter).
    pub file: File,
    /// Path of `file`.
    pub exe: Path,
    /// Working directory.
    pub cwd: Path,
    /// Arguments, `argv[0]` first.
    pub args: Args,
}

/// A change of an image file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageWrite {
    /// Where and when.
    pub at: At,
    /// Who. `None`: the record was lost in a flood.
    pub process: Option<Process>,
    /// Which file.
    pub file: File,
    /// How.
    pub op: Op,
    /// Bytes asked to be written by this call; 0 for an open.
    pub bytes: u64,
    /// Path in the image (of a device: from the process's root). `None`: as for `process`; the file is known by `file` only,
    /// without its mode (0).
    pub path: Option<Path>,
    /// The path afterwards, or the further one: of a rename and a link.
    pub new_path: Option<Path>,
    /// Path of the process's executable. `None`: as for `process`.
    pub exe: Option<Path>,
}

/// A script about to be executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Where and when.
    pub at: At,
    /// Process id on the host: the exec that follows is of this process.
    pub pid: u32,
    /// The script.
    pub file: File,
    /// Its path.
    pub path: Path,
}

/// Code mapped into a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapExec {
    /// Where and when.
    pub at: At,
    /// Into which process.
    pub process: Process,
    /// The mapped file.
    pub file: File,
    /// Its path.
    pub path: Path,
    /// Path of the process's executable.
    pub exe: Path,
}

/// A process of a container was moved to a cgroup outside it, by a process of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupEscape {
    /// Where and when; `cgroup` is where it is now, `container` the one that it was in.
    pub at: At,
    /// Who moved it.
    pub process: Process,
    /// Path of that process's executable.
    pub exe: Path,
    /// The process that was moved, by its id on the host.
    pub moved: u32,
    /// Path of the cgroup that it is in now.
    pub cgroup: Vec<u8>,
}

/// A cgroup was made or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// When, `CLOCK_BOOTTIME`, nanoseconds.
    pub time: u64,
    /// Its id.
    pub id: u64,
    /// Its path from the root of the hierarchy.
    pub path: Vec<u8>,
}

/// An absolute path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// The bytes, starting with `/` (or with `…/` cut off when truncated).
    pub bytes: Vec<u8>,
    /// The upper levels are missing.
    pub truncated: bool,
}

/// An argument vector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args {
    /// The arguments, each ended by a NUL; the last may be cut.
    pub bytes: Vec<u8>,
    /// More followed.
    pub truncated: bool,
}

impl Args {
    /// The arguments, `argv[0]` first.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let bytes = self.bytes.strip_suffix(&[0]).unwrap_or(&self.bytes);
        // An empty vector has no argument, `\0` has an empty one.
        let most = if self.bytes.is_empty() { 0 } else { usize::MAX };
        bytes.split(|&byte| byte == 0).take(most)
    }
}

/// The name of a task or a terminal: short, without NUL.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name([u8; COMM_LEN]);

impl Name {
    /// From the kernel's fixed-size array: up to the first NUL.
    pub fn new(mut padded: [u8; COMM_LEN]) -> Self {
        // What is behind the name must not make equal names differ.
        padded.iter_mut().skip_while(|byte| **byte != 0).for_each(|byte| *byte = 0);
        Self(padded)
    }

    /// The name.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.split(|&byte| byte == 0).next().unwrap_or_default()
    }
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

/// Identity of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// Inode number.
    pub inode: u64,
    /// Device number, the kernel's `major << 20 | minor`.
    pub dev: u32,
    /// Type and permissions, as in `st_mode`.
    pub mode: u32,
    /// Number of hard links; 0: deleted or never linked (memfd).
    pub nlink: u32,
    /// The overlay layer it was in before the event.
    pub layer: Option<Layer>,
    /// Size, bytes.
    pub size: u64,
    /// Which kind of file system it is on, as in `statfs.f_type`.
    pub magic: u32,
}

/// Where an overlay file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// As the image has it.
    Lower,
    /// Changed or copied up earlier.
    Upper,
    /// Created by the event.
    New,
}

/// How a file was changed or shadowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Opened for writing.
    OpenWrite,
    /// Cut to another length, by an open or without.
    Truncate,
    /// Created.
    Create,
    /// Written through an older descriptor.
    Write,
    /// A name of it was removed.
    Unlink,
    /// A directory was removed.
    Rmdir,
    /// A directory was made.
    Mkdir,
    /// A file, FIFO, socket or device was made without an open.
    Mknod,
    /// A symbolic link was made.
    Symlink,
    /// It got a further name.
    Link,
    /// It got another name.
    Rename,
    /// It changed names with another one.
    Exchange,
    /// Its permissions were changed.
    Chmod,
    /// Its owner or group was changed.
    Chown,
    /// Its times were set.
    Utimes,
    /// An extended attribute was set.
    SetXattr,
    /// An extended attribute was removed.
    RemoveXattr,
    /// It got capabilities.
    SetCapability,
    /// Its access control list was changed.
    SetAcl,
    /// Its flags were changed, such as `immutable`.
    SetFlags,
    /// It was copied up, for a reason that was not seen.
    CopyUp,
    /// Mapped shared and writable through an older descriptor.
    MmapWrite,
    /// A block device was opened for writing.
    DeviceWrite,
    /// A file system was mounted over it.
    Mount,
    /// Something else was bound over it.
    Bind,
    /// The options of the mount on it were changed.
    Remount,
    /// A mount was moved over it.
    MoveMount,
    /// What was mounted on it was unmounted.
    Umount,
    /// It became the root by pivot_root(2).
    PivotRoot,
    /// It became the root by chroot(2).
    Chroot,
    /// The properties of the mount on it were changed.
    MountSetattr,
}

impl Op {
    /// The event is about something that was not there before: [`File`] is then the directory that it is in.
    pub fn makes_without_open(self) -> bool {
        matches!(self, Self::Mkdir | Self::Mknod | Self::Symlink)
    }
}

/// The acting process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Start, `CLOCK_BOOTTIME`, nanoseconds; with `pid` its identity.
    pub start_time: u64,
    /// Process id on the host.
    pub pid: u32,
    /// Thread id on the host.
    pub tid: u32,
    /// Process id in its own pid namespace.
    pub ns_pid: u32,
    /// Parent's process id on the host.
    pub ppid: u32,
    /// User id on the host.
    pub uid: u32,
    /// Group id on the host.
    pub gid: u32,
    /// The user who logged in, whatever the process has become since. `None`: nobody.
    pub login_uid: Option<u32>,
    /// What it may do: a bit for each capability.
    pub capabilities: u64,
    /// How it came into the container.
    pub origin: Origin,
    /// Task name: chosen by the process, no evidence.
    pub comm: Name,
    /// Controlling terminal.
    pub tty: Option<Name>,
    /// Descriptors 0 to 2.
    pub stdio: [Stdio; 3],
    /// Processes above it, nearest first.
    pub ancestors: Vec<Ancestor>,
}

/// How a process came into a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Not at all: it acts from outside, or has got there.
    Outside,
    /// It is the container's first process.
    Entrypoint,
    /// It, or one above it, was brought in from outside.
    Entered,
    /// A process of the container started it.
    Application,
}

/// What a standard descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stdio {
    /// Not open.
    Closed,
    /// A terminal.
    Tty,
    /// `/dev/null`.
    Null,
    /// A pipe or FIFO.
    Pipe,
    /// A socket.
    Socket,
    /// A regular file.
    File,
    /// Anything else: another device, a directory, an anonymous inode.
    Other,
}

/// A process above the acting one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ancestor {
    /// Start, `CLOCK_BOOTTIME`, nanoseconds.
    pub start_time: u64,
    /// Process id on the host.
    pub pid: u32,
    /// In the same container as the acting process.
    pub in_container: bool,
    /// Task name.
    pub comm: Name,
}
