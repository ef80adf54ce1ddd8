//! The vocabulary: every term that crosses the ring buffer as a number and appears in the output as a name.
//!
//! Each term is stated here once, with its number, its name in JSON and its meaning. The probes use the numbers. The
//! daemon decodes, prints and parses by this table, and the doc comments are the descriptions in the published JSON
//! Schema.

/// Declares an enum of terms: `Variant = number, "name";`. The terms are in the order of their numbers.
macro_rules! terms {
    ($(#[$meta:meta])* $name:ident: $($(#[$doc:meta])* $variant:ident = $number:literal, $text:tt;)+) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "user", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
        #[repr(u32)]
        pub enum $name {
            $($(#[$doc])* #[cfg_attr(feature = "user", serde(rename = $text))] $variant = $number,)+
        }

        impl $name {
            /// All terms, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Returns the number in records and maps.
            #[inline(always)]
            pub const fn number(self) -> u32 {
                self as u32
            }

            /// Returns the term with this number, or `None` if there is no such term.
            pub const fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// Returns the name in JSON.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}
pub(crate) use terms;

// These numbers are distinct from those of `MountOp`.
terms! {
    /// How a file of a container's image was changed.
    ImageOp:
    /// The file was opened for writing.
    OpenWrite = 1, "open_write";
    /// The length of the file was changed, by an open that truncates it or by another call.
    Truncate = 2, "truncate";
    /// The file was created by an open.
    Create = 3, "create";
    /// The file was written through a descriptor whose opening was not seen.
    Write = 4, "write";
    /// A name of the file was removed.
    Unlink = 5, "unlink";
    /// The directory was removed.
    Rmdir = 6, "rmdir";
    /// The directory was created.
    Mkdir = 7, "mkdir";
    /// A FIFO, socket, device or regular file was created with mknod(2) or bind(2).
    Mknod = 8, "mknod";
    /// The symbolic link was created.
    Symlink = 9, "symlink";
    /// A hard link to the file was created.
    Link = 10, "link";
    /// The file or directory was renamed.
    Rename = 11, "rename";
    /// Two files or directories exchanged their names.
    Exchange = 12, "exchange";
    /// The permissions were changed.
    Chmod = 13, "chmod";
    /// The ownership was changed.
    Chown = 14, "chown";
    /// The timestamps were changed.
    Utimes = 15, "utimes";
    /// An extended attribute was set.
    SetXattr = 16, "set_xattr";
    /// An extended attribute was removed.
    RemoveXattr = 17, "remove_xattr";
    /// File capabilities were set (the extended attribute `security.capability`).
    SetCapability = 18, "set_capability";
    /// The access control list was changed.
    SetAcl = 19, "set_acl";
    /// The inode flags were changed, such as `immutable` (`FS_IOC_SETFLAGS`, file_setattr(2)).
    SetFlags = 20, "set_flags";
    /// The file was copied up to the upper layer for a change that no other hook saw.
    CopyUp = 21, "copy_up";
    /// The file was mapped shared and writable through a descriptor whose opening was not seen.
    MmapWrite = 22, "mmap_write";
}

impl ImageOp {
    /// Returns whether the operation with this number changes only the metadata of a file.
    #[inline(always)]
    pub const fn is_of_metadata(number: u32) -> bool {
        number >= Self::Chmod.number() && number <= Self::SetFlags.number()
    }

    /// Returns whether the operation is reported before what it creates has an inode. The reported file is then the
    /// directory, but the reported layer is that of the new file.
    pub const fn reports_directory(self) -> bool {
        matches!(self, Self::Mkdir | Self::Mknod | Self::Symlink)
    }
}

// These numbers are distinct from those of `ImageOp`.
terms! {
    /// How the mounts or the root through which a container sees its image were changed.
    MountOp:
    /// A file system was mounted over the path.
    Mount = 25, "mount";
    /// Another file or directory was bind-mounted over the path.
    Bind = 26, "bind";
    /// The options of the mount or of its file system were changed.
    Remount = 27, "remount";
    /// A mount was moved over the path.
    MoveMount = 28, "move_mount";
    /// What was mounted over the path was unmounted.
    Umount = 29, "umount";
    /// The path became the root with pivot_root(2).
    PivotRoot = 30, "pivot_root";
    /// The path became the root with chroot(2).
    Chroot = 31, "chroot";
    /// The options of the mount were changed with mount_setattr(2).
    MountSetattr = 32, "mount_setattr";
}

terms! {
    /// A file that controls the kernel. Only those are listed that name a program which the kernel then executes, and
    /// those that switch probes off.
    Control:
    /// The program that takes core dumps: `/proc/sys/kernel/core_pattern`.
    CorePattern = 1, "core_pattern";
    /// The program that loads modules: `/proc/sys/kernel/modprobe`.
    Modprobe = 2, "modprobe";
    /// The program that is told of devices: `/proc/sys/kernel/hotplug`.
    Hotplug = 3, "hotplug";
    /// The program that powers the machine off: `/proc/sys/kernel/poweroff_cmd`.
    PoweroffCommand = 4, "poweroff_cmd";
    /// The program that is told of devices, in sysfs: `/sys/kernel/uevent_helper`.
    UeventHelper = 5, "uevent_helper";
    /// The program that is told of cgroups of version 1 that are empty: `release_agent`.
    ReleaseAgent = 6, "release_agent";
    /// The programs that execute files of other formats: `/proc/sys/fs/binfmt_misc/register`.
    BinaryFormats = 7, "binfmt_misc";
    /// The switch of all kprobes: `/sys/kernel/debug/kprobes/enabled`.
    Kprobes = 8, "kprobes";
    /// The switch of ftrace, on which kprobes and fentry programs depend: `/proc/sys/kernel/ftrace_enabled`.
    Ftrace = 9, "ftrace";
}

impl Control {
    /// Returns whether this switches probes off.
    pub const fn switches_probes(self) -> bool {
        matches!(self, Self::Kprobes | Self::Ftrace)
    }
}

terms! {
    /// What another process does to the sensor.
    TamperingAct:
    /// It changes a map with bpf(2).
    MapChange = 1, "map_change";
    /// It sends the sensor's process a signal that stops or ends it.
    Signal = 2, "signal";
    /// It asks for the sensor's memory, registers or descriptors: ptrace(2), process_vm_readv(2), process_vm_writev(2)
    /// or pidfd_getfd(2).
    Trace = 3, "trace";
    /// It opens `/proc/PID/mem` of the sensor, or reads the state of its threads in the kernel, such as
    /// `/proc/PID/stack`.
    Memory = 4, "memory";
}

// The numbers are those of the kernel (`enum bpf_cmd`, include/uapi/linux/bpf.h).
terms! {
    /// A command of bpf(2) that changes a map.
    MapCommand:
    /// An entry was added or changed.
    Update = 2, "update";
    /// An entry was deleted.
    Delete = 3, "delete";
    /// An entry was read and deleted.
    Take = 21, "lookup_and_delete";
    /// The map was made read-only for user space.
    Freeze = 22, "freeze";
    /// Entries were read and deleted.
    TakeBatch = 25, "lookup_and_delete_batch";
    /// Entries were added or changed.
    UpdateBatch = 26, "update_batch";
    /// Entries were deleted.
    DeleteBatch = 27, "delete_batch";
}

terms! {
    /// The layer of an overlay that a file was in before the event.
    Layer:
    /// The file is as in the image: it is only in a lower layer.
    Lower = 1, "lower";
    /// The file was changed or copied up before, so it is in the upper layer.
    Upper = 2, "upper";
    /// The event created the file.
    New = 3, "new";
}

terms! {
    /// How a file of the upper layer differs from the file of the image that was copied there.
    Difference:
    /// It does not differ. It was copied because it got another name, for example.
    Nothing = 1, "nothing";
    /// Only its permissions, ownership, timestamps, extended attributes or inode flags were changed.
    Metadata = 2, "metadata";
    /// The same, and it got set-id bits or capabilities.
    Privileges = 3, "privileges";
    /// It was created, truncated or opened for writing. What was done with it besides does not matter.
    Content = 4, "content";
}

terms! {
    /// How a process came into a container.
    Origin:
    /// The process does not belong to the container: it acts from outside, as `docker cp` does, or it has left the
    /// container for the host's mounts.
    Outside = 0, "outside";
    /// The process is the container's first one.
    Entrypoint = 1, "entrypoint";
    /// The process, or one of its ancestors, was brought into the running container from outside, as `docker exec`
    /// does.
    Entered = 2, "entered";
    /// The process was started by a process of the container.
    Application = 3, "application";
    /// Nothing is known about the container, because the map of cgroups is full.
    Unknown = 4, "unknown";
}

terms! {
    /// How a session began.
    Via:
    /// A process was brought into the container from outside, into its cgroup too, as `docker exec`, `kubectl exec` and
    /// `podman exec` do.
    Exec = 1, "exec";
    /// A process of a cgroup of the host joined the container's mount namespace, as `nsenter` does.
    Nsenter = 2, "nsenter";
    /// The container was started with a terminal, as `docker run --tty` does.
    Entrypoint = 3, "entrypoint";
    /// A process of the container got a new terminal inside the container, as a login by ssh does.
    Terminal = 4, "terminal";
    /// A process of the container takes commands from a socket, as a reverse shell does.
    Socket = 5, "socket";
    /// A process of the container started a shell or a program that is not as in the image, and then something of at
    /// least high severity was done, as through a webshell. The kernel side knows no such sessions.
    Application = 6, "application";
}

impl Via {
    /// Returns whether the first process of such a session came into the container from outside.
    #[inline(always)]
    pub const fn is_entry(self) -> bool {
        matches!(self, Self::Exec | Self::Nsenter)
    }
}

terms! {
    /// What a standard descriptor refers to.
    StdioKind:
    /// The descriptor is closed.
    Closed = 0, "closed";
    /// A terminal.
    Tty = 1, "tty";
    /// `/dev/null`.
    Null = 2, "null";
    /// A pipe or FIFO.
    Pipe = 3, "pipe";
    /// A socket.
    Socket = 4, "socket";
    /// A regular file.
    File = 5, "file";
    /// Anything else, such as another device, a directory or an anonymous inode.
    Other = 6, "other";
}

// The probes count the kinds whose numbers are below `Loss::KERNEL_KINDS`, in the map `LOSS`. The daemon counts the
// others.
terms! {
    /// What was lost, or reported without all its details.
    Loss:
    /// The ring buffer was full, so the record of an exec was not sent. The first exec of each program is kept and
    /// reported later, with less detail.
    Exec = 0, "exec";
    /// The ring buffer was full, so the record of a change was not sent. The change is kept and reported later, with
    /// less detail.
    ImageWrite = 1, "image_write";
    /// The ring buffer was full, so the record of a new or removed cgroup was not sent.
    Cgroup = 2, "cgroup";
    /// The map of changed files is full: the change was reported, but repeats of it will be reported again.
    SeenFull = 3, "seen_full";
    /// The map of cgroups is full: the origin of what happens in the cgroup is unknown.
    CgroupsFull = 4, "cgroups_full";
    /// The map of container roots or of mount namespaces is full: a container's image is not watched.
    RootsFull = 5, "roots_full";
    /// The map of entered processes is full: a process that came from outside is reported as one of the application.
    EnteredFull = 6, "entered_full";
    /// The ring buffer was full, so the record of a script, or of a library on a volume, was not sent.
    Script = 7, "script";
    /// The ring buffer was full, so the record of a process that left its container's cgroup was not sent.
    CgroupEscape = 8, "cgroup_escape";
    /// The program that reports changes could not be called.
    Call = 9, "call";
    /// The map of kept execs is full: an exec is lost.
    KeptExecsFull = 10, "kept_execs_full";
    /// The map of dynamic linkers is full: the program that one runs is not reported.
    LoadersFull = 11, "loaders_full";
    /// The ring buffer was full, so the record of a process that changed a map of the sensor, or acted on its process,
    /// was not sent.
    Tampering = 12, "tampering";
    /// The ring buffer was full, so the record of the end of a process was not sent: a session lacks its exit code.
    Exit = 13, "exit";
    /// Too many processes are in sessions that began inside containers: what further ones do is in no session.
    SessionProcesses = 14, "session_processes";
    /// The ring buffer was full, so the record of a container that listens on a socket was not sent: the end of its
    /// start-up is not known.
    Listen = 15, "listen";
    /// The ring buffer was full, so the record of a container that accepts a connection was not sent: the end of its
    /// start-up is not known.
    Accept = 16, "accept";
    /// A record could not be decoded.
    Record = 32, "record";
    /// An executed file was gone before its content could be inspected, or could not be found again.
    Content = 33, "content";
    /// A live viewer was too slow for lines of the stream.
    Client = 34, "client";
    /// The daemon's output could not take lines of the stream.
    Output = 35, "output";
    /// The content of an executed file was not inspected, because the file or a directory of its path is on FUSE or a
    /// network file system, which may never answer.
    ContentRemote = 36, "content_remote";
    /// The content of an executed file was inspected only in part, because the file is too large.
    ContentTooLarge = 37, "content_too_large";
    /// The content of an executed file was not inspected, because too many files of its container waited for that.
    ContentQueueFull = 38, "content_queue_full";
    /// The content of an executed file could not be inspected in time.
    ContentTimedOut = 39, "content_timed_out";
    /// Too many sessions were open at the same time: what was done in one has findings, but no finding of the session.
    SessionsFull = 40, "sessions_full";
    /// The ledger was too slow for lines, so it lacks what they say.
    Ledger = 41, "ledger";
    /// Lines were removed from the log before a forwarder could send them.
    Forward = 42, "forward";
}

impl Loss {
    /// The number of kinds that the probes count. Their numbers are those below this one.
    pub const KERNEL_KINDS: u32 = 17;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique() {
        let operations = ImageOp::ALL.iter().map(|op| (op.number(), op.name()));
        let mut operations: Vec<_> = operations.chain(MountOp::ALL.iter().map(|op| (op.number(), op.name()))).collect();
        let count = operations.len();
        operations.sort_unstable();
        operations.dedup_by_key(|(number, _)| *number);
        operations.sort_unstable_by_key(|(_, name)| *name);
        operations.dedup_by_key(|(_, name)| *name);
        assert_eq!(operations.len(), count);
    }

    #[test]
    fn the_probes_kinds_of_loss_come_first() {
        let kernel = Loss::ALL.iter().take_while(|kind| kind.number() < Loss::KERNEL_KINDS);
        assert!(kernel.map(|kind| kind.number()).eq(0..Loss::KERNEL_KINDS));
    }
}
