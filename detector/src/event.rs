//! What the kernel reported, as owned values. These events are the input of [detection](crate::detect).
//!
//! Strings are bytes, because paths, arguments and names in Linux have no encoding, and their author may be hostile.
//! They become text, escaped, only in [`crate::finding`] and [`crate::output`].
//!
//! Recordings contain events as JSON. A new field needs a default there only if older recordings
//! shall stay readable.

use std::net::SocketAddr;

use detector_common::record::{COMM_LEN, HEAD_CAPACITY};
pub use detector_common::vocabulary::{
    Control, Difference, ImageOp, Layer, MapCommand, MountOp, Origin, StdioKind, Via,
};
use serde::{Deserialize, Serialize};

use crate::recording::{as_hex, as_text};

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A program was executed in a container.
    Exec(Box<Exec>),
    /// A script is about to be executed in a container. If that succeeds, the exec of its interpreter follows.
    Script(Box<Script>),
    /// Code of a file was mapped into a process of a container.
    MapExec(Box<MapExec>),
    /// A file that is not as in the image and may be code was opened for reading in a container.
    Interpret(Box<Interpret>),
    /// A file of a container's image was changed.
    ImageChange(Box<ImageChange>),
    /// A mount or root through which a container sees its image was changed.
    MountChange(Box<MountChange>),
    /// A container opened a block device for writing.
    DeviceOpen(Box<DeviceOpen>),
    /// A control of the kernel was opened for writing: by a container or, if the control switches probes off, by any
    /// process.
    ControlOpen(Box<ControlOpen>),
    /// A process changed a map of the sensor, or acted on its process.
    Tampering(Box<Tampering>),
    /// A container opened a file by its handle.
    HandleOpen(Box<HandleOpen>),
    /// A process with the host's mounts is about to execute a file of a container.
    HostExec(Box<HostExec>),
    /// A process of a container was moved out of the container's cgroup.
    CgroupEscape(Box<CgroupEscape>),
    /// A process of a session has ended.
    Exit(Exit),
    /// A container is about to listen on a socket, for the first time.
    Listen(Serving),
    /// A container is about to have a connection that may come from elsewhere, for the first time.
    Accept(Serving),
    /// A cgroup was created.
    CgroupCreated(Cgroup),
    /// A cgroup was removed.
    CgroupRemoved(Cgroup),
}

impl Event {
    /// Where and when the event happened. Returns `None` if the event is about a cgroup itself and not about what
    /// happened in one.
    pub fn at(&self) -> Option<At> {
        match self {
            Self::Exec(exec) => Some(exec.at),
            Self::Script(script) => Some(script.at),
            Self::MapExec(mapped) => Some(mapped.at),
            Self::Interpret(read) => Some(read.at),
            Self::ImageChange(change) => Some(change.at),
            Self::MountChange(change) => Some(change.at),
            Self::DeviceOpen(open) => Some(open.at),
            Self::ControlOpen(open) => Some(open.at),
            Self::Tampering(tampering) => Some(tampering.at),
            Self::HandleOpen(open) => Some(open.at),
            Self::HostExec(exec) => Some(exec.at),
            Self::CgroupEscape(escape) => Some(escape.at),
            Self::Exit(exit) => Some(exit.at),
            Self::Listen(serving) | Self::Accept(serving) => Some(serving.at),
            Self::CgroupCreated(_) | Self::CgroupRemoved(_) => None,
        }
    }

    /// The process that acted, and the path of its executable. Returns `None` if the event does not tell it, or if the
    /// record was lost.
    pub fn actor(&self) -> Option<(&Process, &Path)> {
        match self {
            Self::Exec(exec) => Some((&exec.process, &exec.exe)),
            Self::Tampering(done) => Some((&done.process, &done.exe)),
            Self::CgroupEscape(escape) => Some((&escape.process, &escape.exe)),
            _ => self.detail().map(|detail| (&detail.process, &detail.exe)),
        }
    }

    /// The file that it is about, or the directory of it, if it is about one.
    pub fn file(&self) -> Option<&File> {
        match self {
            Self::Exec(exec) => Some(&exec.file),
            Self::Script(script) => Some(&script.file),
            Self::Interpret(read) => Some(&read.file),
            Self::MapExec(mapped) => Some(&mapped.file),
            Self::ImageChange(change) => Some(&change.file),
            Self::MountChange(change) => Some(&change.file),
            Self::DeviceOpen(open) => Some(&open.file),
            Self::ControlOpen(open) => Some(&open.file),
            Self::HandleOpen(open) => Some(&open.file),
            Self::HostExec(exec) => Some(&exec.file),
            Self::Tampering(_)
            | Self::CgroupEscape(_)
            | Self::Exit(_)
            | Self::Listen(_)
            | Self::Accept(_)
            | Self::CgroupCreated(_)
            | Self::CgroupRemoved(_) => None,
        }
    }

    /// What only the record of an act on a file contains.
    pub fn detail(&self) -> Option<&Detail> {
        match self {
            Self::Interpret(read) => Some(&read.detail),
            Self::MapExec(mapped) => mapped.detail.as_ref(),
            Self::ImageChange(change) => change.detail.as_ref(),
            Self::MountChange(change) => change.detail.as_ref(),
            Self::DeviceOpen(open) => open.detail.as_ref(),
            Self::ControlOpen(open) => open.detail.as_ref(),
            Self::HandleOpen(open) => open.detail.as_ref(),
            Self::HostExec(exec) => exec.detail.as_ref(),
            Self::Exec(_)
            | Self::Tampering(_)
            | Self::CgroupEscape(_)
            | Self::Script(_)
            | Self::Exit(_)
            | Self::Listen(_)
            | Self::Accept(_)
            | Self::CgroupCreated(_)
            | Self::CgroupRemoved(_) => None,
        }
    }

    /// When it happened, in nanoseconds of `CLOCK_BOOTTIME`.
    pub fn time(&self) -> u64 {
        match self {
            Self::CgroupCreated(cgroup) | Self::CgroupRemoved(cgroup) => cgroup.time,
            other => other.at().map_or(0, |at| at.time),
        }
    }
}

/// Where and when an event happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct At {
    /// The time, in nanoseconds of `CLOCK_BOOTTIME`.
    pub time: u64,
    /// The kernel's number of the event. It distinguishes events that have the same time.
    pub number: u64,
    /// The id of the acting task's cgroup.
    pub cgroup: u64,
    /// The id of the outermost cgroup of the container concerned. 0 if only the host is.
    pub container: u64,
}

/// A successful exec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// Where and when it happened.
    pub at: At,
    /// The process, as it is after the exec.
    pub process: Process,
    /// The executed file. For a script, this is its interpreter.
    pub file: File,
    /// The first bytes of `file`, or `None` if the record was lost.
    #[serde(with = "as_hex")]
    pub head: Option<[u8; HEAD_CAPACITY]>,
    /// Whether `file` was executed as the interpreter of another file. `true` if the record was lost.
    pub is_interpreter: bool,
    /// The path of `file`.
    pub exe: Path,
    /// The working directory.
    pub cwd: Path,
    /// The arguments, `argv[0]` first.
    pub args: Args,
}

/// A change to a file of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageChange {
    /// Where and when it happened.
    pub at: At,
    /// What was done.
    pub op: ImageOp,
    /// The changed file, or its directory: see [`ImageOp::reports_directory`]. With [`ImageOp::Mknod`], `mode` is that
    /// of a new FIFO, socket or device.
    pub file: File,
    /// The number of bytes that this call asked to write. 0 for anything but a write.
    pub bytes: u64,
    /// Where the file was created, if it was and the record was not lost.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub creation: Option<Creation>,
    /// The process that did it, and the path in the image. `None` if the record was lost.
    pub detail: Option<Detail>,
}

/// Where and by what a file was created, by numbers, as the probes know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Creation {
    /// The inode number of the directory.
    pub directory: u64,
    /// The inode number of the process's executable.
    pub program: u64,
}

/// A change to a mount or root through which a container sees its image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountChange {
    /// Where and when it happened.
    pub at: At,
    /// What was done.
    pub op: MountOp,
    /// The file or directory of the image that was covered, uncovered or made the root.
    pub file: File,
    /// Whether the process is in a user namespace that the rest of its container is not in. The rest of the container
    /// then does not see the change. `false` if the record was lost.
    pub is_private: bool,
    /// The process that did it, and the path in the image. `None` if the record was lost.
    pub detail: Option<Detail>,
}

/// A block device that was opened for writing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceOpen {
    /// Where and when it happened.
    pub at: At,
    /// The device's file.
    pub file: File,
    /// The process that did it, and the path from its root. `None` if the record was lost.
    pub detail: Option<Detail>,
}

/// A control of the kernel that was opened for writing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlOpen {
    /// Where and when it happened.
    pub at: At,
    /// The control.
    pub control: Control,
    /// The control's file.
    pub file: File,
    /// The process that did it, and the path from the top of the control's file system. `None` if the record was lost.
    pub detail: Option<Detail>,
}

/// Something that another process did to the sensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tampering {
    /// Where and when it happened.
    pub at: At,
    /// The process.
    pub process: Process,
    /// The path of the process's executable.
    pub exe: Path,
    /// What it did.
    pub act: TamperingAct,
}

/// What another process did to the sensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TamperingAct {
    /// It changed a map with bpf(2).
    MapChange {
        /// The command of bpf(2).
        command: MapCommand,
        /// The name of the map.
        map: Name,
    },
    /// It sent the sensor's process this signal, which stops or ends it.
    Signal(u32),
    /// It asked for the memory, registers or descriptors of the sensor's process.
    Trace,
    /// It opened `/proc/PID/mem` of the sensor's process, or read the state of its threads in the kernel.
    Memory,
}

/// A file that was opened by its handle, with open_by_handle_at(2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandleOpen {
    /// Where and when it happened.
    pub at: At,
    /// The file.
    pub file: File,
    /// Whether the file is known to be in the mount that it was opened through.
    pub is_inside: bool,
    /// The process that did it, and the path from its root, or from the top of the file system for a file that is not
    /// in the mount. `None` if the record was lost.
    pub detail: Option<Detail>,
}

/// A container's file that a process with the host's mounts is about to execute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostExec {
    /// Where and when it happened.
    pub at: At,
    /// The program or script.
    pub file: File,
    /// The process, as it is before the exec, and the path from its root, or from the container's root for a file that
    /// was reached through `/proc/PID/root`. `None` if the record was lost.
    pub detail: Option<Detail>,
}

/// The details that only the record of an event contains. If the ring buffer is full, the record is lost, and the event
/// is reported without these details, from what the kernel keeps of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detail {
    /// The acting process.
    pub process: Process,
    /// The path of the process's executable.
    pub exe: Path,
    /// The device number of the executable.
    pub exe_dev: u32,
    /// The layer of the executable, if it is on an overlay.
    pub exe_layer: Option<Layer>,
    /// The path of the file.
    pub path: Path,
    /// The other path of the file: after a rename or exchange the new path, after a hard link the path of the link.
    pub new_path: Option<Path>,
}

/// A file that is not as in the image and may be code was opened for reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interpret {
    /// Where and when it happened.
    pub at: At,
    /// The file.
    pub file: File,
    /// The executable of the process that opened it.
    pub program: File,
    /// The process, and the path of the file from its root.
    pub detail: Detail,
}

/// A script that is about to be executed, or given to a program as its standard input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// Where and when it happened.
    pub at: At,
    /// The process id on the host. The exec that follows is by this process.
    pub pid: u32,
    /// Whether the file is not executed, but is the standard input of the program that is.
    pub is_input: bool,
    /// The script.
    pub file: File,
    /// The path of the script.
    pub path: Path,
}

/// Code that was mapped into a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapExec {
    /// Where and when it happened.
    pub at: At,
    /// The mapped file.
    pub file: File,
    /// The process that it was mapped into, and the path from the root of that process. `None` if the record was lost.
    pub detail: Option<Detail>,
}

/// A process of a container was moved to a cgroup outside it, by a process of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupEscape {
    /// Where and when it happened. `cgroup` is the cgroup that the process is in now, and `container` is the container
    /// that it was in.
    pub at: At,
    /// The process that moved it.
    pub process: Process,
    /// The path of that process's executable.
    pub exe: Path,
    /// The id on the host of the process that was moved.
    pub moved: u32,
    /// The path of the cgroup that the moved process is in now.
    #[serde(with = "as_text")]
    pub cgroup: Vec<u8>,
}

/// A process of a session has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Where and when it happened.
    pub at: At,
    /// The session.
    pub session: Session,
    /// When the process started, in nanoseconds of `CLOCK_BOOTTIME`.
    pub start_time: u64,
    /// The process id on the host.
    pub pid: u32,
    /// How it ended, in the encoding of wait(2).
    pub status: u32,
    /// Whether no process of the session is left. Two processes that end at the same time can both say so.
    pub is_last: bool,
}

/// A process of a container is about to serve others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serving {
    /// Where and when it happened.
    pub at: At,
    /// When the process started, in nanoseconds of `CLOCK_BOOTTIME`.
    pub start_time: u64,
    /// The process id on the host.
    pub pid: u32,
}

/// What shows that a container serves others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServingSign {
    /// It accepts a connection: [`Event::Accept`].
    Accept,
    /// It listens on a socket: [`Event::Listen`].
    Listen,
}

/// A session, by its first process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Session {
    /// When the first process started, in nanoseconds of `CLOCK_BOOTTIME`.
    pub start_time: u64,
    /// The id of the first process on the host.
    pub pid: u32,
    /// How the session began.
    pub via: Via,
}

/// A cgroup was created or removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// When it happened, in nanoseconds of `CLOCK_BOOTTIME`.
    pub time: u64,
    /// The id of the cgroup.
    pub id: u64,
    /// The path of the cgroup from the root of the hierarchy.
    #[serde(with = "as_text")]
    pub path: Vec<u8>,
}

/// An absolute path, or the name of a file that is in no directory, such as `memfd:NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// The bytes. Those of a path start with `/`, or with `…/` if the path is truncated.
    #[serde(with = "as_text")]
    pub bytes: Vec<u8>,
    /// Whether the upper directories are missing.
    pub truncated: bool,
    /// Whether this is where the file is in its own file system. Otherwise the path leads through mounts, or begins at
    /// another root than that of the file system, so that who can change these can make any path of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_direct: bool,
}

/// An argument vector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Args {
    /// The arguments, each terminated by a NUL. The last one may be truncated.
    #[serde(with = "as_text")]
    pub bytes: Vec<u8>,
    /// Whether the end is missing.
    pub truncated: bool,
}

impl Args {
    /// The arguments, `argv[0]` first.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let bytes = self.bytes.strip_suffix(&[0]).unwrap_or(&self.bytes);
        // An empty vector has no argument, but `\0` has an empty one.
        let most = if self.bytes.is_empty() { 0 } else { usize::MAX };
        bytes.split(|&byte| byte == 0).take(most)
    }
}

/// The name of a task or a terminal. It is short and contains no NUL.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name([u8; COMM_LEN]);

impl Name {
    /// Takes the name from the kernel's fixed-size array, up to the first NUL.
    pub fn new(mut padded: [u8; COMM_LEN]) -> Self {
        // The bytes after the name are cleared, so that equal names compare equal.
        padded.iter_mut().skip_while(|byte| **byte != 0).for_each(|byte| *byte = 0);
        Self(padded)
    }

    /// The name.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.split(|&byte| byte == 0).next().unwrap_or_default()
    }
}

impl Serialize for Name {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        as_text::serialize(self.as_bytes(), serializer)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = as_text::deserialize(deserializer)?;
        let mut padded = [0; COMM_LEN];
        let room = padded.get_mut(..bytes.len()).ok_or_else(|| serde::de::Error::custom("the name is too long"))?;
        room.copy_from_slice(&bytes);
        Ok(Self::new(padded))
    }
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

/// The magic numbers of file systems that a process or another machine serves, and that may never answer: FUSE, NFS,
/// SMB of three kinds, Ceph, 9P, AFS of two kinds, Coda, NCP, OCFS2, GFS2, OrangeFS, Lustre, those of VirtualBox and
/// VMware, and GPFS (include/uapi/linux/magic.h, and the file systems).
const REMOTE: [u32; 18] = [
    0x6573_5546,
    0x6969,
    0x517b,
    0xff53_4d42,
    0xfe53_4d42,
    0x00c3_6400,
    0x0102_1997,
    0x5346_414f,
    0x6b41_4653,
    0x7375_7245,
    0x564c,
    0x7461_636f,
    0x0116_1970,
    0x2003_0528,
    0x0bd0_0bd0,
    0x786f_4256,
    0xbacb_acbc,
    0x4750_4653,
];
/// By how many nanoseconds the time of a change can be too early: the resolution of the kernel's clock for files.
const RESOLUTION: i128 = 10_000_000;

/// Whether a file that was last changed at `change_time` may have been changed `since` a time, or at that time. Both
/// are in nanoseconds of the wall clock since 1970.
pub(crate) fn may_have_changed(change_time: u64, since: i128) -> bool {
    i128::from(change_time) + RESOLUTION >= since
}

/// The identity and the attributes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// The inode number.
    pub inode: u64,
    /// The device number in the kernel's encoding, `major << 20 | minor`.
    pub dev: u32,
    /// The type and the permissions, as in `st_mode`. 0 if the record was lost; then `nlink`, `size`, `change_time`
    /// and `magic` are not known either.
    pub mode: u32,
    /// The number of hard links. 0 if the file was deleted or never linked (memfd).
    pub nlink: u32,
    /// The overlay layer that the file was in before the event.
    pub layer: Option<Layer>,
    /// The size in bytes.
    pub size: u64,
    /// When the file was last changed, in nanoseconds of the wall clock since 1970.
    pub change_time: u64,
    /// The type of the file system that the file is on, as in `statfs.f_type`.
    pub magic: u32,
    /// Whether the file is on an overlay, and a layer that has it or a directory of its path is on FUSE or a network
    /// file system. Only known of executed and mapped files.
    pub is_served: bool,
    /// How the file differs from the image. Only known of code in the upper layer.
    pub difference: Option<Difference>,
    /// The file in the lower layer. Only known of executed files that are as in the image.
    pub lower: Option<LowerFile>,
}

impl File {
    /// Whether a process or another machine serves the file or a directory of its path.
    pub(crate) fn is_remote(&self) -> bool {
        self.is_served || REMOTE.contains(&self.magic)
    }
}

/// A file in a lower layer of an overlay. Containers with the same layer have the same file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LowerFile {
    /// The inode number.
    pub inode: u64,
    /// When the file was last changed, in nanoseconds of the wall clock since 1970.
    pub change_time: u64,
    /// The device number of the layer's file system, in the kernel's encoding.
    pub dev: u32,
    /// The type of that file system, as in `statfs.f_type`.
    pub magic: u32,
}

/// The acting process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// When the process started, in nanoseconds of `CLOCK_BOOTTIME`. Together with `pid` this identifies the process.
    pub start_time: u64,
    /// The process id on the host.
    pub pid: u32,
    /// The thread id on the host.
    pub tid: u32,
    /// The process id in the process's own pid namespace.
    pub ns_pid: u32,
    /// The parent's process id on the host.
    pub ppid: u32,
    /// The user id on the host.
    pub uid: u32,
    /// The group id on the host.
    pub gid: u32,
    /// The id of the user who logged in. Changes of the process's user id do not change it. `None` if nobody logged in.
    pub login_uid: Option<u32>,
    /// The effective capabilities, one bit for each.
    pub capabilities: u64,
    /// How the process came into the container.
    pub origin: Origin,
    /// The name of the task. The process can choose it, so it is no evidence.
    pub comm: Name,
    /// The controlling terminal.
    pub tty: Option<Name>,
    /// What the descriptors 0 to 2 refer to.
    pub stdio: [StdioKind; 3],
    /// The inode number of what the descriptor 0 refers to.
    pub stdin: u64,
    /// The other end of standard input, if that is an IP socket that is connected.
    pub peer: Option<SocketAddr>,
    /// The session that the process belongs to.
    pub session: Option<Session>,
    /// The ancestors of the process, nearest first. The first one of a process that was brought into a running
    /// container is what has brought it, which may have ended.
    pub ancestors: Vec<Ancestor>,
}

impl Process {
    /// What the standard input is, and the inode number of that.
    pub fn input(&self) -> (StdioKind, u64) {
        (self.stdio[0], self.stdin)
    }
}

/// An ancestor of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ancestor {
    /// When the ancestor started, in nanoseconds of `CLOCK_BOOTTIME`.
    pub start_time: u64,
    /// The process id on the host.
    pub pid: u32,
    /// Whether it is in the same container as the acting process.
    pub in_container: bool,
    /// The name of the task.
    pub comm: Name,
}
