//! The table of hooks. A new hook needs a row here, its program in `detector-ebpf/src/hooks`, and an act of the
//! self-test that triggers it, in `selftest/attack.rs`. Tests find what is missing, and what does not match a kernel.

use super::hook::{Attach, Hook, Need, Proof, Prototype, always, between, since};

/// The programs that report the ends of sessions.
pub(crate) const EXIT_PROGRAMS: [&str; 2] = ["exit_tp", "exit_kprobe"];

/// All hooks.
pub const HOOKS: &[Hook] = &[
    Hook {
        name: "cgroup_mkdir",
        purpose: "containers being created",
        need: Need::Essential,
        hot: false,
        programs: &[("cgroup_mkdir", Attach::TpBtf("cgroup_mkdir"))],
        prototypes: &[always(
            "void trace_cgroup_mkdir(struct cgroup *cgrp, const char *path)",
            &[(0, "cgrp"), (1, "path")],
        )],
        proof: Proof::Record("cgroup_mkdir"),
    },
    Hook {
        name: "cgroup_rmdir",
        purpose: "containers being removed",
        need: Need::Essential,
        hot: false,
        programs: &[("cgroup_rmdir", Attach::TpBtf("cgroup_rmdir"))],
        prototypes: &[always(
            "void trace_cgroup_rmdir(struct cgroup *cgrp, const char *path)",
            &[(0, "cgrp"), (1, "path")],
        )],
        proof: Proof::Record("cgroup_rmdir"),
    },
    Hook {
        name: "fork",
        purpose: "children of processes that entered a container from outside",
        need: Need::Wanted,
        hot: false,
        programs: &[
            ("fork_tp", Attach::TpBtf("sched_process_fork")),
            ("fork_kprobe", Attach::Kprobe("wake_up_new_task")),
        ],
        prototypes: &[
            always(
                "void trace_sched_process_fork(struct task_struct *parent, struct task_struct *child)",
                &[(0, "parent"), (1, "child")],
            ),
            always("void wake_up_new_task(struct task_struct *p)", &[(0, "p")]),
        ],
        proof: Proof::Record("fork"),
    },
    Hook {
        name: "exit",
        purpose: "the end of processes that entered a container from outside",
        need: Need::Wanted,
        hot: false,
        programs: &[
            (EXIT_PROGRAMS[0], Attach::TpBtf("sched_process_exit")),
            (EXIT_PROGRAMS[1], Attach::Kprobe("exit_files")),
        ],
        prototypes: &[
            always("void trace_sched_process_exit(struct task_struct *p, ...)", &[]),
            always("void exit_files(struct task_struct *tsk)", &[(0, "tsk")]),
        ],
        proof: Proof::Run("fork"),
    },
    Hook {
        name: "exec",
        purpose: "programs executed, and containers starting",
        need: Need::Essential,
        hot: false,
        programs: &[("exec_tp", Attach::TpBtf("sched_process_exec")), ("exec_kprobe", Attach::Kprobe("finalize_exec"))],
        prototypes: &[
            always(
                "void trace_sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)",
                &[(2, "bprm")],
            ),
            always("void finalize_exec(struct linux_binprm *bprm)", &[(0, "bprm")]),
        ],
        proof: Proof::Record("exec"),
    },
    Hook {
        name: "open",
        purpose: "files opened for writing or created: nothing changes a file's content without it",
        need: Need::Essential,
        hot: false,
        programs: &[
            ("open_lsm", Attach::Lsm("file_open")),
            ("open_fentry", Attach::Fentry("security_file_open")),
            ("open_kprobe", Attach::Kprobe("security_file_open")),
        ],
        prototypes: &[
            always("int bpf_lsm_file_open(struct file *file)", &[(0, "file")]),
            always("int security_file_open(struct file *file)", &[(0, "file")]),
        ],
        proof: Proof::Record("open"),
    },
    Hook {
        name: "write",
        purpose: "bytes written, also through file descriptors that were open before the sensor started",
        need: Need::Wanted,
        hot: true,
        programs: &[
            ("overlay_write", Attach::Kprobe("ovl_write_iter")),
            ("write_fentry", Attach::Fentry("vfs_write")),
            ("write_kprobe", Attach::Kprobe("vfs_write")),
        ],
        prototypes: &[
            always("ssize_t ovl_write_iter(struct kiocb *iocb, struct iov_iter *iter)", &[(0, "iocb"), (1, "iter")]),
            always(
                "ssize_t vfs_write(struct file *file, const char __user *buf, size_t count, loff_t *pos)",
                &[(0, "file"), (2, "count")],
            ),
        ],
        proof: Proof::Record("write"),
    },
    Hook {
        name: "splice",
        purpose: "splice and sendfile to file descriptors that were open before the sensor started",
        need: Need::WherePresent,
        hot: false,
        programs: &[("overlay_splice", Attach::Kprobe("ovl_splice_write"))],
        prototypes: &[always(
            "ssize_t ovl_splice_write(struct pipe_inode_info *pipe, struct file *out, loff_t *ppos, size_t len, \
             unsigned int flags)",
            &[(1, "out")],
        )],
        proof: Proof::Record("splice"),
    },
    Hook {
        name: "fallocate",
        purpose: "fallocate on file descriptors that were open before the sensor started",
        need: Need::Wanted,
        hot: false,
        programs: &[("overlay_fallocate", Attach::Kprobe("ovl_fallocate"))],
        prototypes: &[always(
            "long ovl_fallocate(struct file *file, int mode, loff_t offset, loff_t len)",
            &[(0, "file")],
        )],
        proof: Proof::Record("fallocate"),
    },
    Hook {
        name: "copy_range",
        purpose: "copy_file_range to file descriptors that were open before the sensor started",
        need: Need::Wanted,
        hot: false,
        programs: &[("overlay_copy", Attach::Kprobe("ovl_copy_file_range"))],
        prototypes: &[always(
            "ssize_t ovl_copy_file_range(struct file *file_in, loff_t pos_in, struct file *file_out, \
             loff_t pos_out, size_t len, unsigned int flags)",
            &[(2, "file_out")],
        )],
        proof: Proof::Record("copy_range"),
    },
    Hook {
        name: "clone_range",
        purpose: "ranges cloned to file descriptors that were open before the sensor started",
        need: Need::Wanted,
        hot: false,
        programs: &[("overlay_clone", Attach::Kprobe("ovl_remap_file_range"))],
        prototypes: &[always(
            "loff_t ovl_remap_file_range(struct file *file_in, loff_t pos_in, struct file *file_out, \
             loff_t pos_out, loff_t len, unsigned int remap_flags)",
            &[(2, "file_out")],
        )],
        proof: Proof::Record("clone_range"),
    },
    Hook {
        name: "device",
        purpose: "block devices opened for writing",
        need: Need::Wanted,
        hot: false,
        programs: &[("device_open", Attach::Kprobe("blkdev_open"))],
        prototypes: &[always("int blkdev_open(struct inode *inode, struct file *filp)", &[(1, "filp")])],
        proof: Proof::Record("device"),
    },
    Hook {
        name: "handle",
        purpose: "files opened by their handle, past all mounts",
        need: Need::Wanted,
        hot: false,
        programs: &[("handle_open", Attach::Kprobe("file_open_root"))],
        prototypes: &[
            between(
                (5, 10),
                (5, 12),
                "struct file *file_open_root(struct dentry *dentry, struct vfsmount *mnt, const char *filename, \
                 int flags, umode_t mode)",
                &[(0, "dentry"), (1, "mnt"), (2, "filename")],
            ),
            since(
                (5, 13),
                "struct file *file_open_root(const struct path *root, const char *filename, int flags, umode_t mode)",
                &[(0, "root"), (1, "filename")],
            ),
        ],
        proof: Proof::Record("handle"),
    },
    Hook {
        name: "mmap",
        purpose: "code mapped that is not the image's, and files mapped shared and writable",
        need: Need::Wanted,
        hot: false,
        programs: &[("mmap_file", Attach::Kprobe("security_mmap_file"))],
        prototypes: &[always(
            "int security_mmap_file(struct file *file, unsigned long prot, unsigned long flags)",
            &[(0, "file"), (1, "prot"), (2, "flags")],
        )],
        proof: Proof::Record("mmap"),
    },
    Hook {
        name: "mprotect",
        purpose: "code that is not the image's made executable after it was mapped",
        need: Need::Wanted,
        hot: false,
        programs: &[("file_mprotect", Attach::Kprobe("security_file_mprotect"))],
        prototypes: &[always(
            "int security_file_mprotect(struct vm_area_struct *vma, unsigned long reqprot, unsigned long prot)",
            &[(0, "vma"), (2, "prot")],
        )],
        proof: Proof::Record("mprotect"),
    },
    Hook {
        name: "copy_up",
        purpose: "image files copied up by overlayfs, since something is about to change them",
        need: Need::Wanted,
        hot: false,
        programs: &[("inode_copy_up", Attach::Kprobe("security_inode_copy_up"))],
        prototypes: &[always("int security_inode_copy_up(struct dentry *src, struct cred **new)", &[(0, "src")])],
        proof: Proof::Record("setattr"),
    },
    Hook {
        name: "create",
        purpose: "regular files created without being opened",
        need: Need::Wanted,
        hot: false,
        programs: &[("create", Attach::Kprobe("vfs_create"))],
        prototypes: &[
            between(
                (5, 10),
                (5, 11),
                "int vfs_create(struct inode *dir, struct dentry *dentry, umode_t mode, bool want_excl)",
                &[(1, "dentry")],
            ),
            between(
                (5, 12),
                (6, 2),
                "int vfs_create(struct user_namespace *mnt_userns, struct inode *dir, struct dentry *dentry, \
                 umode_t mode, bool want_excl)",
                &[(2, "dentry")],
            ),
            between(
                (6, 3),
                (6, 18),
                "int vfs_create(struct mnt_idmap *idmap, struct inode *dir, struct dentry *dentry, umode_t mode, \
                 bool want_excl)",
                &[(2, "dentry")],
            ),
            since(
                (6, 19),
                "int vfs_create(struct mnt_idmap *idmap, struct dentry *dentry, umode_t mode, \
                 struct delegated_inode *di)",
                &[(1, "dentry")],
            ),
        ],
        proof: Proof::Record("create"),
    },
    Hook {
        name: "inode_create",
        purpose: "regular files created without being opened",
        need: Need::Wanted,
        hot: false,
        programs: &[("inode_create", Attach::Kprobe("security_inode_create"))],
        prototypes: &[always(
            "int security_inode_create(struct inode *dir, struct dentry *dentry, umode_t mode)",
            &[(1, "dentry")],
        )],
        proof: Proof::Record("create"),
    },
    Hook {
        name: "mknod",
        purpose: "FIFOs, sockets and device nodes created",
        need: Need::Wanted,
        hot: false,
        programs: &[("inode_mknod", Attach::Kprobe("security_inode_mknod"))],
        prototypes: &[always(
            "int security_inode_mknod(struct inode *dir, struct dentry *dentry, umode_t mode, dev_t dev)",
            &[(1, "dentry")],
        )],
        proof: Proof::Record("mknod"),
    },
    Hook {
        name: "mkdir",
        purpose: "directories created",
        need: Need::Wanted,
        hot: false,
        programs: &[("inode_mkdir", Attach::Kprobe("security_inode_mkdir"))],
        prototypes: &[always(
            "int security_inode_mkdir(struct inode *dir, struct dentry *dentry, umode_t mode)",
            &[(1, "dentry")],
        )],
        proof: Proof::Record("mkdir"),
    },
    Hook {
        name: "symlink",
        purpose: "symbolic links created",
        need: Need::Wanted,
        hot: false,
        programs: &[("inode_symlink", Attach::Kprobe("security_inode_symlink"))],
        prototypes: &[always(
            "int security_inode_symlink(struct inode *dir, struct dentry *dentry, const char *old_name)",
            &[(1, "dentry")],
        )],
        proof: Proof::Record("symlink"),
    },
    Hook {
        name: "link",
        purpose: "hard links created",
        need: Need::Wanted,
        hot: false,
        programs: &[("inode_link", Attach::Kprobe("security_inode_link"))],
        prototypes: &[always(
            "int security_inode_link(struct dentry *old_dentry, struct inode *dir, struct dentry *new_dentry)",
            &[(0, "old_dentry"), (2, "new_dentry")],
        )],
        proof: Proof::Record("link"),
    },
    Hook {
        name: "unlink",
        purpose: "files deleted",
        need: Need::Wanted,
        hot: false,
        programs: &[("inode_unlink", Attach::Kprobe("security_inode_unlink"))],
        prototypes: &[always("int security_inode_unlink(struct inode *dir, struct dentry *dentry)", &[(1, "dentry")])],
        proof: Proof::Record("unlink"),
    },
    Hook {
        name: "rmdir",
        purpose: "directories deleted",
        need: Need::Wanted,
        hot: false,
        programs: &[("inode_rmdir", Attach::Kprobe("security_inode_rmdir"))],
        prototypes: &[always("int security_inode_rmdir(struct inode *dir, struct dentry *dentry)", &[(1, "dentry")])],
        proof: Proof::Record("rmdir"),
    },
    Hook {
        name: "rename",
        purpose: "files and directories renamed or exchanged",
        need: Need::Wanted,
        hot: false,
        programs: &[("inode_rename", Attach::Kprobe("security_inode_rename"))],
        prototypes: &[always(
            "int security_inode_rename(struct inode *old_dir, struct dentry *old_dentry, struct inode *new_dir, \
             struct dentry *new_dentry, unsigned int flags)",
            &[(1, "old_dentry"), (3, "new_dentry"), (4, "flags")],
        )],
        proof: Proof::Record("rename"),
    },
    Hook {
        name: "setattr",
        purpose: "permissions, ownership, timestamps and sizes changed",
        need: Need::Wanted,
        hot: false,
        programs: &[("inode_setattr", Attach::Kprobe("security_inode_setattr"))],
        prototypes: &[
            between(
                (5, 10),
                (5, 19),
                "int security_inode_setattr(struct dentry *dentry, struct iattr *attr)",
                &[(0, "dentry"), (1, "attr")],
            ),
            between(
                (6, 0),
                (6, 2),
                "int security_inode_setattr(struct user_namespace *mnt_userns, struct dentry *dentry, \
                 struct iattr *attr)",
                &[(1, "dentry"), (2, "attr")],
            ),
            since(
                (6, 3),
                "int security_inode_setattr(struct mnt_idmap *idmap, struct dentry *dentry, struct iattr *attr)",
                &[(1, "dentry"), (2, "attr")],
            ),
        ],
        proof: Proof::Record("setattr"),
    },
    Hook {
        name: "setxattr",
        purpose: "extended attributes and file capabilities set",
        need: Need::Wanted,
        hot: false,
        programs: &[("inode_setxattr", Attach::Kprobe("security_inode_setxattr"))],
        prototypes: &[
            between(
                (5, 10),
                (5, 11),
                "int security_inode_setxattr(struct dentry *dentry, const char *name, const void *value, size_t size, \
                 int flags)",
                &[(0, "dentry"), (1, "name")],
            ),
            between(
                (5, 12),
                (6, 2),
                "int security_inode_setxattr(struct user_namespace *mnt_userns, struct dentry *dentry, \
                 const char *name, const void *value, size_t size, int flags)",
                &[(1, "dentry"), (2, "name")],
            ),
            since(
                (6, 3),
                "int security_inode_setxattr(struct mnt_idmap *idmap, struct dentry *dentry, const char *name, \
                 const void *value, size_t size, int flags)",
                &[(1, "dentry"), (2, "name")],
            ),
        ],
        proof: Proof::Record("setxattr"),
    },
    Hook {
        name: "removexattr",
        purpose: "extended attributes removed",
        need: Need::Wanted,
        hot: false,
        programs: &[("inode_removexattr", Attach::Kprobe("security_inode_removexattr"))],
        prototypes: &[
            between(
                (5, 10),
                (5, 11),
                "int security_inode_removexattr(struct dentry *dentry, const char *name)",
                &[(0, "dentry"), (1, "name")],
            ),
            between(
                (5, 12),
                (6, 2),
                "int security_inode_removexattr(struct user_namespace *mnt_userns, struct dentry *dentry, \
                 const char *name)",
                &[(1, "dentry"), (2, "name")],
            ),
            since(
                (6, 3),
                "int security_inode_removexattr(struct mnt_idmap *idmap, struct dentry *dentry, const char *name)",
                &[(1, "dentry"), (2, "name")],
            ),
        ],
        proof: Proof::Record("removexattr"),
    },
    // Before Linux 6.2, an access control list is set as an extended attribute.
    Hook {
        name: "set_acl",
        purpose: "access control lists set",
        need: Need::WherePresent,
        hot: false,
        programs: &[("inode_set_acl", Attach::Kprobe("security_inode_set_acl"))],
        prototypes: &[
            between(
                (6, 2),
                (6, 2),
                "int security_inode_set_acl(struct user_namespace *mnt_userns, struct dentry *dentry, \
                 const char *acl_name, struct posix_acl *kacl)",
                &[(1, "dentry")],
            ),
            since(
                (6, 3),
                "int security_inode_set_acl(struct mnt_idmap *idmap, struct dentry *dentry, const char *acl_name, \
                 struct posix_acl *kacl)",
                &[(1, "dentry")],
            ),
        ],
        proof: Proof::Record("set_acl"),
    },
    Hook {
        name: "remove_acl",
        purpose: "access control lists removed",
        need: Need::WherePresent,
        hot: false,
        programs: &[("inode_remove_acl", Attach::Kprobe("security_inode_remove_acl"))],
        prototypes: &[
            between(
                (6, 2),
                (6, 2),
                "int security_inode_remove_acl(struct user_namespace *mnt_userns, struct dentry *dentry, \
                 const char *acl_name)",
                &[(1, "dentry")],
            ),
            since(
                (6, 3),
                "int security_inode_remove_acl(struct mnt_idmap *idmap, struct dentry *dentry, const char *acl_name)",
                &[(1, "dentry")],
            ),
        ],
        proof: Proof::Record("remove_acl"),
    },
    // Before Linux 5.13, inode flags are set with the ioctl of overlayfs.
    Hook {
        name: "fileattr",
        purpose: "inode flags set, such as the immutable flag",
        need: Need::WherePresent,
        hot: false,
        programs: &[("fileattr_set", Attach::Kprobe("vfs_fileattr_set"))],
        prototypes: &[
            between(
                (5, 13),
                (6, 2),
                "int vfs_fileattr_set(struct user_namespace *mnt_userns, struct dentry *dentry, ...)",
                &[(1, "dentry")],
            ),
            since(
                (6, 3),
                "int vfs_fileattr_set(struct mnt_idmap *idmap, struct dentry *dentry, ...)",
                &[(1, "dentry")],
            ),
        ],
        proof: Proof::Record("fileattr"),
    },
    Hook {
        name: "ioctl",
        purpose: "inode flags about to be set (before Linux 5.13)",
        need: Need::WherePresent,
        hot: false,
        programs: &[("overlay_ioctl", Attach::Kprobe("ovl_ioctl"))],
        prototypes: &[between(
            (5, 10),
            (5, 12),
            "long ovl_ioctl(struct file *file, unsigned int cmd, unsigned long arg)",
            &[(0, "file"), (1, "cmd")],
        )],
        proof: Proof::Run("ioctl"),
    },
    // This hook reads the return value.
    Hook {
        name: "ioctl_return",
        purpose: "inode flags set (before Linux 5.13)",
        need: Need::WherePresent,
        hot: false,
        programs: &[("overlay_ioctl_return", Attach::Kprobe("ovl_ioctl"))],
        prototypes: &[between(
            (5, 10),
            (5, 12),
            "long ovl_ioctl(struct file *file, unsigned int cmd, unsigned long arg)",
            &[],
        )],
        proof: Proof::Run("ioctl"),
    },
    Hook {
        name: "mount",
        purpose: "file systems mounted and bind mounts made over the image",
        need: Need::Wanted,
        hot: false,
        programs: &[("sb_mount", Attach::Kprobe("security_sb_mount"))],
        prototypes: &[always(
            "int security_sb_mount(const char *dev_name, const struct path *path, const char *type, \
             unsigned long flags, void *data)",
            &[(1, "path"), (3, "flags")],
        )],
        proof: Proof::Record("mount"),
    },
    Hook {
        name: "remount",
        purpose: "file systems remounted with other options",
        need: Need::Wanted,
        hot: false,
        programs: &[("sb_remount", Attach::Kprobe("security_sb_remount"))],
        prototypes: &[always("int security_sb_remount(struct super_block *sb, void *mnt_opts)", &[(0, "sb")])],
        proof: Proof::Record("remount"),
    },
    Hook {
        name: "mount_setattr",
        purpose: "options of the root's mount, before mount_setattr changes them",
        need: Need::WherePresent,
        hot: false,
        programs: &at_mount_setattr("mount_setattr"),
        prototypes: MOUNT_SETATTR_PROTOTYPES,
        proof: Proof::Run("mount_setattr"),
    },
    Hook {
        name: "mount_setattr_return",
        purpose: "options of the root's mount changed with mount_setattr",
        need: Need::WherePresent,
        hot: false,
        programs: &at_mount_setattr("mount_setattr_return"),
        prototypes: MOUNT_SETATTR_PROTOTYPES,
        proof: Proof::Record("mount_setattr"),
    },
    Hook {
        name: "move_mount",
        purpose: "mounts moved over the image",
        need: Need::Wanted,
        hot: false,
        programs: &[("move_mount", Attach::Kprobe("security_move_mount"))],
        prototypes: &[always(
            "int security_move_mount(const struct path *from_path, const struct path *to_path)",
            &[(0, "from_path"), (1, "to_path")],
        )],
        proof: Proof::Record("move_mount"),
    },
    Hook {
        name: "umount",
        purpose: "mounts over the image unmounted",
        need: Need::Wanted,
        hot: false,
        programs: &[("sb_umount", Attach::Kprobe("security_sb_umount"))],
        prototypes: &[always("int security_sb_umount(struct vfsmount *mnt, int flags)", &[(0, "mnt")])],
        proof: Proof::Record("umount"),
    },
    Hook {
        name: "pivot_root",
        purpose: "another root for a mount namespace",
        need: Need::Wanted,
        hot: false,
        programs: &[("sb_pivotroot", Attach::Kprobe("security_sb_pivotroot"))],
        prototypes: &[always(
            "int security_sb_pivotroot(const struct path *old_path, const struct path *new_path)",
            &[(1, "new_path")],
        )],
        proof: Proof::Record("pivot_root"),
    },
    Hook {
        name: "chroot",
        purpose: "another root directory for a process",
        need: Need::Wanted,
        hot: false,
        programs: &[("path_chroot", Attach::Kprobe("security_path_chroot"))],
        prototypes: &[always("int security_path_chroot(const struct path *path)", &[(0, "path")])],
        proof: Proof::Record("chroot"),
    },
    Hook {
        name: "script",
        purpose: "scripts executed, and files of containers executed on the host",
        need: Need::Wanted,
        hot: false,
        programs: &[("bprm_check", Attach::Kprobe("security_bprm_check"))],
        prototypes: &[always("int security_bprm_check(struct linux_binprm *bprm)", &[(0, "bprm")])],
        proof: Proof::Record("script"),
    },
    Hook {
        name: "listen",
        purpose: "containers that begin to listen on sockets: without it, what comes from a service is not known",
        need: Need::Wanted,
        hot: false,
        programs: &[("socket_listen", Attach::Kprobe("security_socket_listen"))],
        prototypes: &[always("int security_socket_listen(struct socket *sock, int backlog)", &[])],
        proof: Proof::Record("listen"),
    },
    Hook {
        name: "accept",
        purpose: "containers that begin to serve others: without it, a start-up is over when they begin to listen",
        need: Need::Wanted,
        hot: false,
        programs: &[("sock_graft", Attach::Kprobe("security_sock_graft"))],
        prototypes: &[always("void security_sock_graft(struct sock *sk, struct socket *parent)", &[(0, "sk")])],
        proof: Proof::Record("accept"),
    },
    Hook {
        name: "bpf",
        purpose: "other processes that change the sensor's maps",
        need: Need::Wanted,
        hot: false,
        programs: &[("bpf_call", Attach::Kprobe("security_bpf"))],
        prototypes: &[always(
            "int security_bpf(int cmd, union bpf_attr *attr, unsigned int size, ...)",
            &[(0, "cmd"), (1, "attr")],
        )],
        proof: Proof::Run("bpf"),
    },
    Hook {
        name: "signal",
        purpose: "signals that stop or end the sensor",
        need: Need::Wanted,
        hot: false,
        programs: &[("task_kill", Attach::Kprobe("security_task_kill"))],
        prototypes: &[always(
            "int security_task_kill(struct task_struct *p, struct kernel_siginfo *info, int sig, \
             const struct cred *cred)",
            &[(0, "p"), (2, "sig")],
        )],
        proof: Proof::Run("signal"),
    },
    Hook {
        name: "trace",
        purpose: "other processes that trace the sensor, or take its memory or descriptors",
        need: Need::Wanted,
        hot: false,
        programs: &[("ptrace_access", Attach::Kprobe("security_ptrace_access_check"))],
        prototypes: &[always(
            "int security_ptrace_access_check(struct task_struct *child, unsigned int mode)",
            &[(0, "child"), (1, "mode")],
        )],
        proof: Proof::Run("trace"),
    },
    Hook {
        name: "cgroup_attach",
        purpose: "processes moved out of their container's cgroup",
        need: Need::Wanted,
        hot: false,
        programs: &[("cgroup_attach_task", Attach::TpBtf("cgroup_attach_task"))],
        prototypes: &[always(
            "void trace_cgroup_attach_task(struct cgroup *dst_cgrp, const char *path, struct task_struct *task, \
             bool threadgroup)",
            &[(0, "dst_cgrp"), (1, "path"), (2, "task")],
        )],
        proof: Proof::Record("cgroup_attach"),
    },
];

/// The functions that implement mount_setattr(2), best first. The first two also see 32-bit callers. The first one
/// exists from 5.12 to 6.14, and the second one from 6.15 on, under the name that GCC gives to its variant of
/// `do_mount_setattr` (fs/namespace.c).
const fn at_mount_setattr(program: &'static str) -> [(&'static str, Attach); 3] {
    [
        (program, Attach::Kprobe("__do_sys_mount_setattr")),
        (program, Attach::Kprobe("do_mount_setattr.isra.0")),
        (program, Attach::Kprobe("__x64_sys_mount_setattr")),
    ]
}

/// Kernels do not describe `do_mount_setattr.isra.0`, because the compiler chooses its arguments. No program reads any
/// of them.
const MOUNT_SETATTR_PROTOTYPES: &[Prototype] = &[
    between(
        (5, 12),
        (6, 14),
        "long __do_sys_mount_setattr(int dfd, const char __user *path, unsigned int flags, \
         struct mount_attr __user *uattr, size_t usize)",
        &[],
    ),
    since((5, 12), "long __x64_sys_mount_setattr(const struct pt_regs *regs)", &[]),
];
