//! The load plan: which hooks there are, and which kinds of program can serve each, best first.
//!
//! Not every kernel allows every kind, and not every kind sees everything:
//!
//! - An fentry program keeps a counter per CPU and is skipped while an instance of it is preempted there
//!   (`bpf_prog_enter_recur`, kernel/bpf/trampoline.c, 5.12 to 7.3; for tracepoints `__bpf_trace_run`,
//!   kernel/trace/bpf_trace.c, once tracepoints are preemptible). On a kernel that preempts, an attacker can aim for it.
//! - An LSM program is never skipped, but it is only called where `bpf` is in the list of active LSMs; attaching it
//!   succeeds all the same.
//! - A kprobe is only skipped while a call of bpf(2) on a map, of whatever program, is preempted on that CPU. The
//!   daemon's own are not (`realtime.rs`). It costs the most.

use super::host::Host;

/// A way to attach a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Attach {
    /// LSM hook of this name.
    Lsm(&'static str),
    /// Entry of this function, through its trampoline.
    Fentry(&'static str),
    /// Entry of this function, through a breakpoint or ftrace.
    Kprobe(&'static str),
    /// BTF-enabled raw tracepoint of this name.
    TpBtf(&'static str),
}

impl Attach {
    /// Short name of the kind.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Lsm(_) => "lsm",
            Self::Fentry(_) => "fentry",
            Self::Kprobe(_) => "kprobe",
            Self::TpBtf(_) => "tp_btf",
        }
    }

    /// What it is attached to.
    pub fn target(self) -> &'static str {
        let (Self::Lsm(name) | Self::Fentry(name) | Self::Kprobe(name) | Self::TpBtf(name)) = self;
        name
    }

    /// Whether the kernel skips the program while an instance of it is preempted on the same CPU.
    pub fn can_be_blinded(self, host: &Host) -> bool {
        host.preemption.is_preemptible() && matches!(self, Self::Fentry(_) | Self::TpBtf(_))
    }
}

/// What is lost when a hook cannot be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The sensor is of no use without it: refuse to start.
    Essential,
    /// The sensor sees less, and says so.
    Wanted,
    /// As [`Wanted`](Self::Wanted) where the kernel has the function. On other kernels, what it does passes another hook.
    WherePresent,
}

/// A thing to watch, and the programs that can.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// Name in reports.
    pub name: &'static str,
    /// What it is for, and so what is not seen without it.
    pub purpose: &'static str,
    /// How much depends on it.
    pub need: Need,
    /// Hot: it runs on calls that are made all the time, so what it costs comes first.
    pub hot: bool,
    /// Programs of the BPF object, with the way to attach each.
    pub programs: &'static [(&'static str, Attach)],
}

/// All hooks. Their prototypes are documented at the programs, in `detector-ebpf/src/hooks`.
pub const HOOKS: &[Hook] = &[
    Hook {
        name: "cgroup_mkdir",
        purpose: "containers as they are made",
        need: Need::Essential,
        hot: false,
        programs: &[("cgroup_mkdir", Attach::TpBtf("cgroup_mkdir"))],
    },
    Hook {
        name: "cgroup_rmdir",
        purpose: "containers as they go",
        need: Need::Essential,
        hot: false,
        programs: &[("cgroup_rmdir", Attach::TpBtf("cgroup_rmdir"))],
    },
    Hook {
        name: "fork",
        purpose: "descent of processes that were brought into a container",
        need: Need::Wanted,
        hot: false,
        programs: &[("process_fork", Attach::TpBtf("sched_process_fork"))],
    },
    Hook {
        name: "exit",
        purpose: "end of processes that were brought into a container",
        need: Need::Wanted,
        hot: false,
        programs: &[("process_exit", Attach::TpBtf("sched_process_exit"))],
    },
    Hook {
        name: "exec",
        purpose: "programs executed, and containers as they start",
        need: Need::Essential,
        hot: false,
        programs: &[("exec_tp", Attach::TpBtf("sched_process_exec")), ("exec_kprobe", Attach::Kprobe("finalize_exec"))],
    },
    Hook {
        name: "open",
        purpose: "files opened for writing and created: every way to change content passes here",
        need: Need::Essential,
        hot: false,
        programs: &[
            ("open_lsm", Attach::Lsm("file_open")),
            ("open_fentry", Attach::Fentry("security_file_open")),
            ("open_kprobe", Attach::Kprobe("security_file_open")),
        ],
    },
    Hook {
        name: "write",
        purpose: "bytes written, also through descriptors that were open before the sensor",
        need: Need::Wanted,
        hot: true,
        programs: &[
            ("overlay_write", Attach::Kprobe("ovl_write_iter")),
            ("write_fentry", Attach::Fentry("vfs_write")),
            ("write_kprobe", Attach::Kprobe("vfs_write")),
        ],
    },
    kprobe(
        "splice",
        "splice and sendfile through descriptors that were open before the sensor",
        Need::WherePresent,
        &[("overlay_splice", Attach::Kprobe("ovl_splice_write"))],
    ),
    kprobe(
        "fallocate",
        "fallocate through descriptors that were open before the sensor",
        Need::Wanted,
        &[("overlay_fallocate", Attach::Kprobe("ovl_fallocate"))],
    ),
    kprobe(
        "copy_range",
        "copy_file_range through descriptors that were open before the sensor",
        Need::Wanted,
        &[("overlay_copy", Attach::Kprobe("ovl_copy_file_range"))],
    ),
    kprobe(
        "clone_range",
        "clones of ranges through descriptors that were open before the sensor",
        Need::Wanted,
        &[("overlay_clone", Attach::Kprobe("ovl_remap_file_range"))],
    ),
    kprobe(
        "device",
        "block devices opened for writing",
        Need::Wanted,
        &[("device_open", Attach::Kprobe("blkdev_open"))],
    ),
    kprobe(
        "mmap",
        "code mapped that is not the image's, and shared mappings for writing",
        Need::Wanted,
        &[("mmap_file", Attach::Kprobe("security_mmap_file"))],
    ),
    kprobe(
        "copy_up",
        "image files being changed in whatever way",
        Need::Wanted,
        &[("inode_copy_up", Attach::Kprobe("security_inode_copy_up"))],
    ),
    kprobe(
        "create",
        "regular files made without being opened",
        Need::Wanted,
        &[("create", Attach::Kprobe("vfs_create"))],
    ),
    kprobe(
        "inode_create",
        "regular files made without being opened",
        Need::Wanted,
        &[("inode_create", Attach::Kprobe("security_inode_create"))],
    ),
    kprobe(
        "mknod",
        "FIFOs, sockets and devices made",
        Need::Wanted,
        &[("inode_mknod", Attach::Kprobe("security_inode_mknod"))],
    ),
    kprobe("mkdir", "directories made", Need::Wanted, &[("inode_mkdir", Attach::Kprobe("security_inode_mkdir"))]),
    kprobe(
        "symlink",
        "symbolic links made",
        Need::Wanted,
        &[("inode_symlink", Attach::Kprobe("security_inode_symlink"))],
    ),
    kprobe(
        "link",
        "files given a further name",
        Need::Wanted,
        &[("inode_link", Attach::Kprobe("security_inode_link"))],
    ),
    kprobe("unlink", "files removed", Need::Wanted, &[("inode_unlink", Attach::Kprobe("security_inode_unlink"))]),
    kprobe("rmdir", "directories removed", Need::Wanted, &[("inode_rmdir", Attach::Kprobe("security_inode_rmdir"))]),
    kprobe(
        "rename",
        "files and directories renamed and exchanged",
        Need::Wanted,
        &[("inode_rename", Attach::Kprobe("security_inode_rename"))],
    ),
    kprobe(
        "setattr",
        "permissions, owners, times and lengths set",
        Need::Wanted,
        &[("inode_setattr", Attach::Kprobe("security_inode_setattr"))],
    ),
    kprobe(
        "setxattr",
        "attributes and file capabilities set",
        Need::Wanted,
        &[("inode_setxattr", Attach::Kprobe("security_inode_setxattr"))],
    ),
    kprobe(
        "removexattr",
        "attributes removed",
        Need::Wanted,
        &[("inode_removexattr", Attach::Kprobe("security_inode_removexattr"))],
    ),
    kprobe(
        "set_acl",
        "access lists set",
        Need::WherePresent,
        &[("inode_set_acl", Attach::Kprobe("security_inode_set_acl"))],
    ),
    kprobe(
        "remove_acl",
        "access lists removed",
        Need::WherePresent,
        &[("inode_remove_acl", Attach::Kprobe("security_inode_remove_acl"))],
    ),
    kprobe("fileattr", "inode flags set", Need::WherePresent, &[("fileattr_set", Attach::Kprobe("vfs_fileattr_set"))]),
    kprobe(
        "ioctl",
        "inode flags, before they are set (before Linux 5.13)",
        Need::WherePresent,
        &[("overlay_ioctl", Attach::Kprobe("ovl_ioctl"))],
    ),
    kprobe(
        "ioctl_return",
        "inode flags set (before Linux 5.13)",
        Need::WherePresent,
        &[("overlay_ioctl_return", Attach::Kprobe("ovl_ioctl"))],
    ),
    kprobe(
        "mount",
        "file systems mounted and directories bound over the image",
        Need::Wanted,
        &[("sb_mount", Attach::Kprobe("security_sb_mount"))],
    ),
    kprobe(
        "remount",
        "file systems given other options",
        Need::Wanted,
        &[("sb_remount", Attach::Kprobe("security_sb_remount"))],
    ),
    kprobe(
        "mount_setattr",
        "the root's mount, before mount_setattr",
        Need::WherePresent,
        const { &at_any_of("mount_setattr", MOUNT_SETATTR) },
    ),
    kprobe(
        "mount_setattr_return",
        "the root's mount given other options with mount_setattr",
        Need::WherePresent,
        const { &at_any_of("mount_setattr_return", MOUNT_SETATTR) },
    ),
    kprobe(
        "move_mount",
        "mounts moved over the image",
        Need::Wanted,
        &[("move_mount", Attach::Kprobe("security_move_mount"))],
    ),
    kprobe(
        "umount",
        "what is mounted over the image unmounted",
        Need::Wanted,
        &[("sb_umount", Attach::Kprobe("security_sb_umount"))],
    ),
    kprobe(
        "pivot_root",
        "another root for a mount namespace",
        Need::Wanted,
        &[("sb_pivotroot", Attach::Kprobe("security_sb_pivotroot"))],
    ),
    kprobe(
        "chroot",
        "another root for a process",
        Need::Wanted,
        &[("path_chroot", Attach::Kprobe("security_path_chroot"))],
    ),
    kprobe("script", "scripts executed", Need::Wanted, &[("bprm_check", Attach::Kprobe("security_bprm_check"))]),
    Hook {
        name: "cgroup_attach",
        purpose: "processes that leave their container's cgroup",
        need: Need::Wanted,
        hot: false,
        programs: &[("cgroup_attach_task", Attach::TpBtf("cgroup_attach_task"))],
    },
];

/// The functions that mount_setattr(2) is, best first. The first two also see callers of 32 bits: from 5.12 to 6.14, and from
/// 6.15 on, as GCC names them.
const MOUNT_SETATTR: [&str; 3] = ["__do_sys_mount_setattr", "do_mount_setattr.isra.0", "__x64_sys_mount_setattr"];

/// A program that can be attached to each of these functions, and needs one of them.
const fn at_any_of(program: &'static str, functions: [&'static str; 3]) -> [(&'static str, Attach); 3] {
    let [first, second, third] = functions;
    [(program, Attach::Kprobe(first)), (program, Attach::Kprobe(second)), (program, Attach::Kprobe(third))]
}

/// A hook for which a kprobe is the way: nobody can aim at its being skipped, and it exists on all kernels.
const fn kprobe(
    name: &'static str,
    purpose: &'static str,
    need: Need,
    programs: &'static [(&'static str, Attach)],
) -> Hook {
    Hook { name, purpose, need, hot: false, programs }
}

/// The programs that other kprobes call, in the order of the map `REPORTERS`: see `detector-ebpf/src/image/report.rs`.
pub const REPORTERS: [&str; 3] = ["report_name", "report_names", "report_place"];

/// The programs of a hook on some host.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    /// Program and way to attach it, best first.
    pub usable: Vec<(&'static str, Attach)>,
    /// What cannot work, with the reason.
    pub refused: Vec<(Attach, String)>,
}

/// The programs of a hook in the order to try them on this host.
pub fn candidates(hook: &Hook, host: &Host) -> Candidates {
    let mut candidates = Candidates::default();
    for &(program, attach) in hook.programs {
        if matches!(attach, Attach::Lsm(_)) && !host.has_bpf_lsm() {
            let active = host.lsms.as_deref().map_or_else(|| "not known".to_owned(), |names| names.join(","));
            let why = format!("`bpf` is not an active LSM (active: {active}); boot with lsm={active},bpf");
            candidates.refused.push((attach, why));
        } else {
            candidates.usable.push((program, attach));
        }
    }
    // A stable sort: the table's order decides between equals.
    if !hook.hot {
        candidates.usable.sort_by_key(|&(_, attach)| attach.can_be_blinded(host));
    }
    candidates
}
