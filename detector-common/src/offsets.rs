//! The table of the kernel structs that the probes read. Nothing else in the project knows a kernel layout.
//!
//! [`for_each_offset!`](crate::for_each_offset) passes the table to another macro. `detector-ebpf` makes a frozen
//! global of each row; `detector` resolves each row against the running kernel's BTF and sets the global before the
//! probes are loaded. Offsets are in bytes.

/// The value of an optional row on a kernel that does not have what it asks for.
pub const ABSENT: u64 = u64::MAX;

/// Calls `$callback! { rows… }`. There are five forms of rows:
///
/// - `NAME: "struct" "member.member";` is the offset of the member from the start of the struct. Each step may be in an
///   anonymous struct or union. `a|b` stands for `a`, or for `b` on kernels that have no `a`.
/// - `NAME: "struct" (optional "member");` is the offset of the member, or [`ABSENT`] if there is no such member or
///   struct.
/// - `NAME: "struct" sizeof;` is the size of the struct.
/// - `NAME: "function" (argument "name");` is the position of an argument of the function, from 0. If the kernel does
///   not have the function, nothing is attached to it, and the position is 0.
/// - `NAME: "enumeration" (enumerator "name");` is the value of a name in an enumeration, or [`ABSENT`].
#[macro_export]
macro_rules! for_each_offset {
    ($callback:ident) => {
        $callback! {
            OFF_FILE_INODE: "file" "f_inode";
            OFF_FILE_MODE: "file" "f_mode";
            OFF_FILE_OP: "file" "f_op";
            OFF_FILE_FLAGS: "file" "f_flags";
            OFF_FILE_DENTRY: "file" "f_path.dentry";
            OFF_FILE_MNT: "file" "f_path.mnt";
            OFF_FILE_PRIVATE: "file" "private_data";
            OFF_SOCKET_SK: "socket" "sk";
            OFF_SOCK_COMMON: "sock" "__sk_common";
            OFF_SOCK_FAMILY: "sock_common" "skc_family";
            OFF_SOCK_PORT: "sock_common" "skc_dport";
            OFF_SOCK_ADDRESS: "sock_common" "skc_daddr";
            OFF_SOCK_OWN_ADDRESS: "sock_common" "skc_rcv_saddr";
            // They are absent from kernels without IPv6.
            OFF_SOCK_ADDRESS_V6: "sock_common" (optional "skc_v6_daddr");
            OFF_SOCK_OWN_ADDRESS_V6: "sock_common" (optional "skc_v6_rcv_saddr");
            OFF_SOCK_NETWORK: "sock_common" "skc_net.net";
            // Kernels from 6.7 on have these.
            OFF_BACKING_DENTRY: "backing_file" (optional "user_path.dentry");
            OFF_BACKING_MNT: "backing_file" (optional "user_path.mnt");
            OFF_BPF_MAP_ID: "bpf_map" "id";
            OFF_BPF_MAP_NAME: "bpf_map" "name";
            OFF_INODE_MODE: "inode" "i_mode";
            OFF_INODE_SB: "inode" "i_sb";
            OFF_INODE_INO: "inode" "i_ino";
            OFF_INODE_NLINK: "inode" "i_nlink";
            OFF_INODE_SIZE: "inode" "i_size";
            OFF_INODE_RDEV: "inode" "i_rdev";
            // Kernels from 6.6 on have the second ones, and from 6.11 on the third ones.
            OFF_INODE_CTIME: "inode" "i_ctime.tv_sec|__i_ctime.tv_sec|i_ctime_sec";
            OFF_INODE_CTIME_NSEC: "inode" "i_ctime.tv_nsec|__i_ctime.tv_nsec|i_ctime_nsec";
            SIZE_INODE: "inode" sizeof;
            OFF_SB_MAGIC: "super_block" "s_magic";
            OFF_SB_DEV: "super_block" "s_dev";
            OFF_SB_ROOT: "super_block" "s_root";
            OFF_DENTRY_FLAGS: "dentry" "d_flags";
            OFF_SB_USER_NS: "super_block" "s_user_ns";
            OFF_USER_NS_PARENT: "user_namespace" "parent";
            OFF_DENTRY_PARENT: "dentry" "d_parent";
            OFF_DENTRY_NAME: "dentry" "d_name.name";
            OFF_DENTRY_NAME_LEN: "dentry" "d_name.len";
            OFF_DENTRY_INODE: "dentry" "d_inode";
            OFF_DENTRY_SB: "dentry" "d_sb";
            OFF_PATH_DENTRY: "path" "dentry";
            OFF_PATH_MNT: "path" "mnt";
            OFF_MOUNT_MNT: "mount" "mnt";
            OFF_MOUNT_PARENT: "mount" "mnt_parent";
            OFF_MOUNT_MOUNTPOINT: "mount" "mnt_mountpoint";
            OFF_VFSMOUNT_ROOT: "vfsmount" "mnt_root";
            OFF_VFSMOUNT_FLAGS: "vfsmount" "mnt_flags";
            OFF_TASK_TGID: "task_struct" "tgid";
            OFF_TASK_LEADER: "task_struct" "group_leader";
            OFF_TASK_PARENT: "task_struct" "real_parent";
            OFF_TASK_START: "task_struct" "start_boottime";
            OFF_TASK_COMM: "task_struct" "comm";
            OFF_TASK_NSPROXY: "task_struct" "nsproxy";
            OFF_TASK_FS: "task_struct" "fs";
            OFF_TASK_FILES: "task_struct" "files";
            OFF_TASK_SIGNAL: "task_struct" "signal";
            OFF_TASK_CGROUPS: "task_struct" "cgroups";
            OFF_TASK_MM: "task_struct" "mm";
            OFF_TASK_PID_STRUCT: "task_struct" "thread_pid";
            OFF_TASK_CRED: "task_struct" "real_cred";
            OFF_TASK_PERSONALITY: "task_struct" "personality";
            OFF_TASK_EXIT: "task_struct" "exit_code";
            OFF_TASK_LOGINUID: "task_struct" (optional "loginuid");
            OFF_CRED_UID: "cred" "uid";
            OFF_CRED_GID: "cred" "gid";
            OFF_CRED_CAPABILITIES: "cred" "cap_effective";
            OFF_CRED_USER_NS: "cred" "user_ns";
            OFF_USER_NS_INUM: "user_namespace" "ns.inum";
            OFF_NSPROXY_MNT: "nsproxy" "mnt_ns";
            OFF_NSPROXY_NET: "nsproxy" "net_ns";
            OFF_NET_INUM: "net" "ns.inum";
            OFF_MNT_NS_INUM: "mnt_namespace" "ns.inum";
            // Kernels from 6.18 on have the second one.
            OFF_MNT_NS_ID: "mnt_namespace" "seq|ns.ns_id";
            OFF_FS_ROOT_DENTRY: "fs_struct" "root.dentry";
            OFF_FS_ROOT_MNT: "fs_struct" "root.mnt";
            OFF_FS_PWD_DENTRY: "fs_struct" "pwd.dentry";
            OFF_FS_PWD_MNT: "fs_struct" "pwd.mnt";
            OFF_FILES_FDT: "files_struct" "fdt";
            OFF_FDT_FD: "fdtable" "fd";
            OFF_FDT_MAX: "fdtable" "max_fds";
            OFF_SIGNAL_LIVE: "signal_struct" "live.counter";
            OFF_SIGNAL_FLAGS: "signal_struct" "flags";
            OFF_SIGNAL_EXIT: "signal_struct" "group_exit_code";
            OFF_SIGNAL_TTY: "signal_struct" "tty";
            OFF_TTY_NAME: "tty_struct" "name";
            OFF_CSS_SET_CGROUP: "css_set" "dfl_cgrp";
            OFF_CSS_CGROUP: "cgroup_subsys_state" "cgroup";
            OFF_CGROUP_KN: "cgroup" "kn";
            OFF_CGROUP_ROOT: "cgroup" "root";
            OFF_CGROUP_SELF: "cgroup" "self";
            OFF_CGROUP_SELF_PARENT: "cgroup" "self.parent";
            OFF_CGROUP_ROOT_ID: "cgroup_root" "hierarchy_id";
            OFF_KN_ID: "kernfs_node" "id";
            OFF_VMA_FILE: "vm_area_struct" "vm_file";
            OFF_VMA_FLAGS: "vm_area_struct" "vm_flags";
            OFF_MM_ARG_START: "mm_struct" "arg_start";
            OFF_MM_ARG_END: "mm_struct" "arg_end";
            OFF_MM_EXE: "mm_struct" "exe_file";
            OFF_BINPRM_FILE: "linux_binprm" "file";
            OFF_BINPRM_BUF: "linux_binprm" "buf";
            OFF_BINPRM_FILENAME: "linux_binprm" "filename";
            OFF_BINPRM_INTERP: "linux_binprm" "interp";
            OFF_IATTR_VALID: "iattr" "ia_valid";
            OFF_IATTR_MODE: "iattr" "ia_mode";
            OFF_KIOCB_FILE: "kiocb" "ki_filp";
            OFF_ITER_COUNT: "iov_iter" "count";
            OFF_PID_LEVEL: "pid" "level";
            OFF_PID_NUMBERS: "pid" "numbers";
            OFF_UPID_NR: "upid" "nr";
            SIZE_UPID: "upid" sizeof;
            // Kernels from 5.11 on have this helper.
            HELPER_TYPED_TASK: "bpf_func_id" (enumerator "BPF_FUNC_get_current_task_btf");
            ARG_OPEN_ROOT_NAME: "file_open_root" (argument "filename");
            ARG_CREATE_DENTRY: "vfs_create" (argument "dentry");
            ARG_SETATTR_DENTRY: "security_inode_setattr" (argument "dentry");
            ARG_SETXATTR_DENTRY: "security_inode_setxattr" (argument "dentry");
            ARG_REMOVEXATTR_DENTRY: "security_inode_removexattr" (argument "dentry");
        }
    };
}
