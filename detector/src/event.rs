//! What the kernel reported, as owned values: the input of [detection](crate::detect).
//!
//! Strings are bytes: paths, arguments and names in Linux have no encoding, and their author may be hostile. They
//! become text, escaped, only in [`crate::finding`] and [`crate::output`].

use detector_common::record::COMM_LEN;
pub use detector_common::vocabulary::{ImageOp, Layer, MountOp, Origin, StdioKind};

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A program was executed in a container.
    Exec(Box<Exec>),
    /// A script is about to be executed in a container: if that succeeds, the exec of its interpreter follows.
    Script(Box<Script>),
    /// Code of a file was mapped into a process of a container.
    MapExec(Box<MapExec>),
    /// A file of a container's image was changed.
    ImageChange(Box<ImageChange>),
    /// A mount or root through which a container sees its image was changed.
    MountChange(Box<MountChange>),
    /// A container opened a block device for writing.
    DeviceOpen(Box<DeviceOpen>),
    /// A process of a container was moved out of the container's cgroup.
    CgroupEscape(Box<CgroupEscape>),
    /// A cgroup was created.
    CgroupCreated(Cgroup),
    /// A cgroup was removed.
    CgroupRemoved(Cgroup),
}

impl Event {
    /// Where and when. `None`: the event is about a cgroup itself, not about what happened in one.
    pub fn at(&self) -> Option<At> {
        match self {
            Self::Exec(exec) => Some(exec.at),
            Self::Script(script) => Some(script.at),
            Self::MapExec(mapped) => Some(mapped.at),
            Self::ImageChange(change) => Some(change.at),
            Self::MountChange(change) => Some(change.at),
            Self::DeviceOpen(open) => Some(open.at),
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
    /// The kernel's number of the event. It distinguishes events of the same time.
    pub number: u64,
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

/// A change of a file of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageChange {
    /// Where and when.
    pub at: At,
    /// What was done.
    pub op: ImageOp,
    /// The changed file, or its directory: see [`ImageOp::reports_directory`].
    pub file: File,
    /// Bytes that this call asked to write; 0 for anything but a write.
    pub bytes: u64,
    /// Who did it, and the path in the image. `None`: the record was lost.
    pub detail: Option<Detail>,
}

/// A change of a mount or root through which a container sees its image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountChange {
    /// Where and when.
    pub at: At,
    /// What was done.
    pub op: MountOp,
    /// The file or directory of the image that was covered, uncovered or made the root.
    pub file: File,
    /// Who did it, and the path in the image. `None`: the record was lost.
    pub detail: Option<Detail>,
}

/// A block device that was opened for writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceOpen {
    /// Where and when.
    pub at: At,
    /// The device's file.
    pub file: File,
    /// Who did it, and the path from the process's root. `None`: the record was lost.
    pub detail: Option<Detail>,
}

/// What only the record of an event contains. If the ring buffer is full, the record is lost, and what the kernel keeps
/// is reported without this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detail {
    /// The acting process.
    pub process: Process,
    /// Path of the process's executable.
    pub exe: Path,
    /// Path of the file.
    pub path: Path,
    /// Its other path: of a rename or exchange, the one afterwards; of a hard link, the new one.
    pub new_path: Option<Path>,
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
    /// The mapped file.
    pub file: File,
    /// Into which process, and the path from the process's root. `None`: the record was lost.
    pub detail: Option<Detail>,
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

/// A cgroup was created or removed.
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
    /// The bytes, starting with `/` (with `…/` if truncated).
    pub bytes: Vec<u8>,
    /// The upper levels are missing.
    pub truncated: bool,
}

/// An argument vector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args {
    /// The arguments, each ended by a NUL; the last may be truncated.
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
    /// Type and permissions, as in `st_mode`. 0: not known, nor are `nlink`, `size` and `magic`; the record was lost.
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
    /// The effective capabilities: a bit for each.
    pub capabilities: u64,
    /// How it came into the container.
    pub origin: Origin,
    /// Task name: chosen by the process, no evidence.
    pub comm: Name,
    /// Controlling terminal.
    pub tty: Option<Name>,
    /// Descriptors 0 to 2.
    pub stdio: [StdioKind; 3],
    /// Processes above it, nearest first.
    pub ancestors: Vec<Ancestor>,
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
