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
    /// A file of a container's image was changed.
    ImageWrite(Box<ImageWrite>),
    /// A cgroup was made.
    CgroupCreated(Cgroup),
    /// A cgroup was removed.
    CgroupRemoved(Cgroup),
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
    /// Path in the image. `None`: as for `process`; the file is known by `file` only, without its mode (0).
    pub path: Option<Path>,
    /// Path of the process's executable. `None`: as for `process`.
    pub exe: Option<Path>,
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

/// How a file was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Opened for writing.
    OpenWrite,
    /// Opened and cut to length 0.
    Truncate,
    /// Created.
    Create,
    /// Written through an older descriptor.
    Write,
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
    /// Not at all: it acts from outside.
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
