//! The rows of `docs/coverage.md`: the attacks that are tested.
//!
//! To add an attack, add a case to `cases`, and its name to a row of this table.

/// A way to change an image, to execute a program, or to hide.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// A description of the attack.
    pub way: &'static str,
    /// The hooks that detect it, by their names in `detector doctor`. The first one that the kernel has is sufficient,
    /// together with its `_return` hook if it has one.
    pub hooks: &'static [&'static str],
    /// The cases that perform it.
    pub cases: &'static [&'static str],
}

/// All attacks, by subject.
pub const WAYS: &[(&str, &[Way])] = &[
    (
        "Content of image files",
        &[
            way(
                "open for writing",
                &["open", "copy_up"],
                &["image_write::lower_file_once", "image_write::upper_file", "image_write::write"],
            ),
            way("create", &["open"], &["image_write::new_file"]),
            way(
                "open with `O_TRUNC`, also by a reader",
                &["open", "setattr"],
                &["image_write::truncate", "image_write::truncate_by_reader"],
            ),
            way("truncate", &["setattr"], &["image_write::truncate_by_path"]),
            way("ftruncate", &["open", "setattr"], &["image_write::ftruncate", "held::ftruncate"]),
            way("pwrite", &["open", "write"], &["image_write::pwrite", "held::pwrite"]),
            way(
                "writev, pwritev2",
                &["open", "write"],
                &["image_write::writev", "image_write::pwritev2", "held::writev", "held::pwritev2"],
            ),
            way(
                "io_uring: open, also without a descriptor",
                &["open"],
                &["image_write::uring_open", "image_write::uring_open_direct"],
            ),
            way(
                "io_uring: write, fixed buffers, worker threads, SQPOLL",
                &["open", "write"],
                &[
                    "image_write::uring",
                    "image_write::uring_fixed",
                    "image_write::uring_async",
                    "image_write::uring_sqpoll",
                    "held::uring",
                    "held::uring_fixed",
                    "held::uring_async",
                    "held::uring_sqpoll",
                ],
            ),
            way("AIO", &["open", "write"], &["image_write::aio", "held::aio"]),
            way(
                "splice, vmsplice, sendfile",
                &["open", "splice", "write"],
                &[
                    "image_write::splice",
                    "image_write::vmsplice",
                    "image_write::sendfile",
                    "held::splice",
                    "held::vmsplice",
                    "held::sendfile",
                ],
            ),
            way("copy_file_range", &["open", "copy_range"], &["image_write::copy_range", "held::copy_range"]),
            way("`FICLONE`", &["open", "clone_range"], &["image_write::clone", "held::clone"]),
            way(
                "fallocate, punching holes",
                &["open", "fallocate"],
                &["image_write::fallocate", "image_write::punch_hole", "held::fallocate", "held::punch_hole"],
            ),
            way("shared mapping", &["open", "mmap"], &["image_write::mmap", "held::mmap"]),
            way("shared mapping made writable later", &["open", "mmap"], &["image_write::mprotect", "held::mprotect"]),
            way(
                "process_vm_writev, ptrace and `/proc/PID/mem` into a shared mapping",
                &["open", "mmap"],
                &[
                    "image_write::process_vm_writev",
                    "image_write::ptrace",
                    "image_write::proc_mem",
                    "held::process_vm_writev",
                    "held::ptrace",
                    "held::proc_mem",
                ],
            ),
            way("open_by_handle_at", &["open"], &["image_write::open_by_handle"]),
            way("descriptor from before the sensor", &["write"], &["held::write"]),
            way("loop device on an image file", &["open"], &["device::loop_on_image_file"]),
        ],
    ),
    (
        "Names",
        &[
            way("mkdir", &["mkdir"], &["image_change::mkdir", "image_change::uring_mkdir"]),
            way(
                "mknod, also of devices; sockets bound",
                &["mknod", "inode_create"],
                &[
                    "image_change::mknod",
                    "image_change::mknod_file",
                    "image_change::mknod_device",
                    "image_change::bind_socket",
                ],
            ),
            way("symlink", &["symlink"], &["image_change::symlink", "image_change::uring_symlink"]),
            way("link", &["link"], &["image_change::link", "image_change::uring_link"]),
            way("`O_TMPFILE` and linkat", &["link"], &["image_change::tmpfile"]),
            way(
                "rename, also over another file and of directories",
                &["rename"],
                &[
                    "image_change::rename",
                    "image_change::rename_over",
                    "image_change::rename_again",
                    "image_change::rename_directory",
                    "image_change::uring_rename",
                ],
            ),
            way("exchange of two names", &["rename"], &["image_change::exchange", "image_change::exchange_again"]),
            way(
                "unlink",
                &["unlink"],
                &["image_change::unlink", "image_change::unlink_own", "image_change::uring_unlink"],
            ),
            way("rmdir", &["rmdir"], &["image_change::rmdir", "image_change::uring_rmdir"]),
        ],
    ),
    (
        "Metadata",
        &[
            way(
                "chmod, fchmod",
                &["setattr"],
                &["image_change::chmod", "image_change::fchmod", "image_change::chmod_twice"],
            ),
            way("fchmodat2", &["setattr"], &["image_change::fchmodat2"]),
            way("chown, fchown", &["setattr"], &["image_change::chown", "image_change::fchown"]),
            way("utimensat", &["setattr"], &["image_change::utimes", "image_change::times_after_write"]),
            way("extended attributes", &["setxattr", "removexattr"], &["image_change::xattr"]),
            way("file capabilities", &["setxattr"], &["image_change::set_capability"]),
            way(
                "access control lists",
                &["set_acl", "remove_acl", "setxattr", "removexattr"],
                &["image_change::set_acl", "held::remove_acl"],
            ),
            way(
                "inode flags by ioctl",
                &["fileattr", "ioctl", "ioctl_return", "copy_up"],
                &["image_change::set_flags", "image_change::set_flags_of_changed"],
            ),
            way("file_setattr", &["fileattr"], &["image_change::file_setattr"]),
            way(
                "power for a file that was added",
                &["setattr", "setxattr"],
                &["image_change::of_own_file", "image_change::power_to_own_file"],
            ),
        ],
    ),
    (
        "Paths to image files",
        &[
            way("hard link", &["open", "link"], &["image_write::hard_link"]),
            way("symbolic link", &["open"], &["image_write::symlink"]),
            way("deep and long paths", &["open"], &["image_write::deep_path", "image_write::long_path"]),
            way("control characters and no UTF-8 in the name", &["open"], &["image_write::hostile_name"]),
            way("`/proc/self/root`", &["open"], &["image_write::through_proc_self_root"]),
        ],
    ),
    (
        "Who changes an image",
        &[
            way("`docker exec`", &["open", "exec"], &["image_write::entered"]),
            way("child of the application", &["open", "fork"], &["image_write::child_of_application"]),
            way("another thread than the first", &["open"], &["image_write::other_thread"]),
            way("process in a user namespace", &["open"], &["image_write::user_namespace"]),
            way("container in a container", &["open", "cgroup_mkdir"], &["image_write::nested_container"]),
            way(
                "the same, with an image of its own, as in Docker in Docker",
                &["exec", "open"],
                &["image_write::nested_image"],
            ),
            way(
                "process of a container whose mount namespace has the number of one that ended in another container",
                &["exec", "open"],
                &["image_write::namespace_number_reused"],
            ),
            way("process that moves itself to a cgroup of the host", &["cgroup_attach", "open"], &["cgroups::moved"]),
            way(
                "the same, from a mount namespace of its own",
                &["cgroup_attach", "open"],
                &["cgroups::moved_with_own_mounts"],
            ),
            way("process born in a cgroup of the host, by clone3", &["fork", "open"], &["cgroups::born"]),
            way("container from before the sensor", &["open", "exec"], &["lifecycle::containers_that_ran_before"]),
            way(
                "container that is being prepared when the sensor starts, or fills its maps again",
                &["open"],
                &["lifecycle::container_in_preparation", "tampering::maps_changed_during_preparation"],
            ),
            way(
                "the host, as `docker cp`",
                &["open", "setattr"],
                &["image_write::from_the_host", "image_change::from_the_host"],
            ),
            way(
                "`docker exec`, repeated visits, or the host, changing what the application changed before",
                &["open", "setattr", "exec"],
                &["actor::entered_after_application", "actor::two_visits", "actor::host_after_application"],
            ),
            way("process of the host that enters", &["open", "exec"], &["actor::host_that_enters"]),
            way(
                "file that another one created",
                &["open", "unlink"],
                &["actor::file_of_a_visit", "actor::removed_by_a_visit"],
            ),
            way(
                "service of the host with a mount namespace of its own, started after the sensor",
                &["open"],
                &["image_write::from_private_mounts"],
            ),
            way("the host, in the container's mounts alone", &["open"], &["image_write::joined_mounts"]),
            way(
                "descriptor from the host, or taken by the host",
                &["open"],
                &["image_write::received", "image_write::taken_from_the_host"],
            ),
            way(
                "descriptor from another container",
                &["open", "write"],
                &["image_write::received_in_another_container", "held::received_in_another_container"],
            ),
            way(
                "descriptor stolen, inherited, or given by a supervisor",
                &["open", "write"],
                &["image_write::stolen", "image_write::inherited", "image_write::given_by_supervisor"],
            ),
        ],
    ),
    (
        "Hidden among expected acts",
        &[
            way(
                "code, or a second name of a file of the image, in a directory for data",
                &["open", "setattr", "link"],
                &["expected::no_data"],
            ),
            way(
                "data, after a session or a program that is not the image's, or from before the sensor",
                &["open"],
                &[
                    "expected::data_after_session",
                    "expected::data_after_drift",
                    "expected::data_of_a_container_from_before",
                ],
            ),
            way(
                "start-up: what is done after the first connection or by a session, code, the application started \
                again",
                &["open", "accept"],
                &[
                    "expected::start_up",
                    "expected::own_connection",
                    "expected::connection_in_shared_network",
                    "expected::code_at_start",
                    "expected::session_at_start",
                    "expected::restart_of_the_application",
                ],
            ),
            way(
                "health check: its script replaced by a session, a program added that it runs, what it writes",
                &["exec", "open"],
                &[
                    "expected::health_check_replaced",
                    "expected::health_check_of_added_program",
                    "expected::health_check_that_writes",
                ],
            ),
            way(
                "what other containers of the image have done: another act, after a session, in all at the same time",
                &["open"],
                &["expected::of_the_image"],
            ),
            way(
                "command that imitates a health check: of other arguments, or at another pace",
                &["exec"],
                &[
                    "expected::other_than_the_health_check",
                    "expected::probe_of_a_pod",
                    "expected::health_check_of_podman",
                ],
            ),
        ],
    ),
    (
        "What covers an image",
        &[
            way("mount of a tmpfs, of an overlay", &["mount"], &["shadow::mount_tmpfs", "shadow::mount_overlay"]),
            way("bind mount of a directory, of a file", &["mount"], &["shadow::bind", "shadow::bind_file"]),
            way("mount moved", &["mount", "move_mount"], &["shadow::mount_moved", "shadow::move_mount"]),
            way("fsmount, open_tree", &["move_mount"], &["shadow::fsmount", "shadow::open_tree"]),
            way("other options for a mount", &["mount"], &["shadow::remount"]),
            way("mount_setattr, of the root", &["mount_setattr", "mount_setattr_return"], &["shadow::mount_setattr"]),
            way(
                "other options for a file system, also with fsconfig",
                &["remount"],
                &["shadow::remount_file_system", "shadow::fspick"],
            ),
            way("umount", &["umount"], &["shadow::umount"]),
            way("pivot_root", &["pivot_root"], &["shadow::pivot_root"]),
            way("chroot", &["chroot"], &["shadow::chroot"]),
            way("mount in a mount namespace of its own", &["mount"], &["shadow::in_mount_namespace"]),
            way("mount in a user namespace, without privileges", &["mount"], &["shadow::in_user_namespace"]),
            way("chroot in a user namespace", &["chroot"], &["shadow::chroot_in_user_namespace"]),
            way("block device opened for writing", &["device"], &["device::block_device"]),
        ],
    ),
    (
        "What an image is on",
        &[
            way("overlay over EROFS", &["open", "cgroup_mkdir"], &["roots::erofs", "roots::erofs_from_before"]),
            way(
                "file system of its own, as of devicemapper",
                &["open", "cgroup_mkdir"],
                &["roots::ext4", "roots::ext4_from_before"],
            ),
            way(
                "plain directory, as of the VFS driver",
                &["open", "cgroup_mkdir"],
                &["roots::directory", "roots::directory_from_before"],
            ),
            way("btrfs subvolume", &["open", "cgroup_mkdir"], &["roots::subvolume", "roots::subvolume_from_before"]),
            way(
                "fuse-overlayfs",
                &["open", "cgroup_mkdir"],
                &["roots::fuse_overlay", "roots::fuse_overlay_from_before"],
            ),
            way("container of crun", &["exec", "open", "cgroup_mkdir"], &["roots::crun", "roots::crun_from_before"]),
        ],
    ),
    (
        "Shells",
        &[
            way(
                "`docker exec` of a shell, with and without a terminal",
                &["exec"],
                &["shell::entered", "shell::entered_with_tty", "shell::entered_detached", "shell::entered_by_birth"],
            ),
            way(
                "a person's session at a terminal, as one finding with all programs",
                &["exec", "fork", "exit"],
                &[
                    "session::interactive",
                    "session::other_program_with_terminal",
                    "session::many_programs",
                    "session::restarted_sensor",
                    "session::docker",
                    "session::containerd",
                    "session::podman",
                ],
            ),
            way("script on the standard input of `docker exec -i`", &["exec"], &["session::script_on_input"]),
            way("program of `nsenter`", &["exec", "exit"], &["session::by_nsenter"]),
            way(
                "session that outlives its first process, or is killed",
                &["fork", "exit"],
                &["session::outlives_its_first", "session::killed_container"],
            ),
            way(
                "terminal that the application has opened, as for a login by ssh",
                &["exec", "exit"],
                &["session::terminal_of_the_application"],
            ),
            way(
                "shell of a descendant of what was entered",
                &["exec", "fork", "exit"],
                &["shell::entered_descendant", "shell::entered_without_leader"],
            ),
            way("`nsenter` into the mount and pid namespaces", &["exec"], &["shell::entered_by_fork"]),
            way(
                "`nsenter`, and then a mount namespace of its own",
                &["exec", "open"],
                &["shell::entered_with_own_mounts"],
            ),
            way("shell on the host, as `nsenter --target 1 --mount`", &["exec"], &["shell::on_the_host"]),
            way("shell as the entrypoint", &["exec", "cgroup_mkdir"], &["shell::entrypoint"]),
            way("shell of the application", &["exec"], &["shell::application"]),
            way("busybox by argument and by link", &["exec"], &["shell::busybox_by_argument"]),
            way("login shell", &["exec"], &["shell::login_shell"]),
            way(
                "reverse shell, with the peer's address",
                &["exec"],
                &["shell::socket_shell", "shell::reverse_shell", "session::reverse_shell"],
            ),
            way(
                "webshell: commands that a service runs with a shell, as one finding from the first act of high \
                 severity on",
                &["exec", "create"],
                &["session::webshell"],
            ),
            way("shell on a pseudoterminal of its parent", &["exec"], &["exec::on_terminal"]),
            way("container that lives 50 ms", &["exec", "cgroup_mkdir"], &["shell::short_lived"]),
            way("cgroup that no known runtime makes", &["exec", "cgroup_mkdir"], &["shell::plain_cgroup"]),
            way(
                "copy under another name",
                &["exec"],
                &["exec::copied_shell", "exec::copied_shell_twice", "exec::copied_shell_changed", "exec::copied_box"],
            ),
            way("copy under another name that is gone at once", &["exec"], &["exec::gone_shell", "exec::gone_program"]),
            way("copy at a path longer than 4096 bytes", &["exec"], &["exec::long_paths"]),
            way("hard link under another name", &["exec", "link"], &["exec::linked_shell"]),
            way("execveat of a descriptor", &["exec"], &["exec::by_descriptor"]),
            way("shell that is a script (xonsh)", &["script", "exec"], &["exec::shell_that_is_a_script"]),
            way("`ld.so /bin/sh`, also of a copy", &["mmap"], &["exec::by_loader", "exec::copy_by_loader"]),
        ],
    ),
    (
        "Programs",
        &[
            way(
                "program added or changed",
                &["exec"],
                &["exec::added_program", "exec::changed_program", "inspection::hashes"],
            ),
            way(
                "program or library with the image's content, and then with set-id bits, capabilities or another \
                 content",
                &["exec", "mmap", "copy_up", "setattr", "setxattr"],
                &["exec::what_differs", "exec::with_capabilities", "exec::linked_library", "exec::copied_before"],
            ),
            way(
                "script added, also in a chain of scripts",
                &["script", "exec"],
                &["exec::added_script", "exec::added_script_in_thread", "exec::chain_of_scripts"],
            ),
            way(
                "script as the argument of its interpreter, also of busybox, in memory, and changed",
                &["open", "exec"],
                &[
                    "exec::script_as_argument",
                    "exec::script_of_an_applet",
                    "exec::script_in_memory",
                    "exec::changed_script",
                ],
            ),
            way(
                "script or module of Python, Perl, Node.js, PHP, Ruby or Lua, as an argument, as the standard input, \
                 or included",
                &["open", "script", "exec"],
                &[
                    "interpreters::python",
                    "interpreters::python_compiled",
                    "interpreters::perl",
                    "interpreters::node",
                    "interpreters::php",
                    "interpreters::ruby",
                    "interpreters::lua",
                ],
            ),
            way("script of AWK, also as the standard input", &["open", "script", "exec"], &["interpreters::awk"]),
            way("page of a web server with PHP in it", &["open"], &["interpreters::php_in_apache"]),
            way("archive or class of Java", &["open", "exec"], &["interpreters::java"]),
            way("script that a script includes", &["open"], &["exec::included_script"]),
            way("script as the standard input of its interpreter", &["script", "exec"], &["exec::script_as_input"]),
            way("program on a volume", &["exec"], &["exec::program_on_volume"]),
            way("library on a volume, also changed", &["mmap", "mprotect"], &["exec::library_on_volume"]),
            way("program in memory: memfd, `/dev/shm`", &["exec"], &["exec::in_memory", "exec::in_shared_memory"]),
            way("program that was deleted", &["exec"], &["exec::deleted"]),
            way(
                "preloaded library, also from memory",
                &["mmap"],
                &["exec::preloaded_library", "exec::preloaded_from_memory"],
            ),
            way(
                "code made executable after it was mapped, also in memory",
                &["mprotect"],
                &["exec::made_executable", "exec::made_executable_in_memory"],
            ),
            way(
                "code mapped by a process to which all readable memory is executable",
                &["mmap"],
                &["exec::executable_by_personality"],
            ),
        ],
    ),
    (
        "Ways out",
        &[
            way("program for core dumps", &["open", "script"], &["escape::core_pattern"]),
            way("program that loads modules", &["open", "script"], &["escape::modprobe"]),
            way("program that powers the machine off", &["open"], &["escape::poweroff_command"]),
            way("program for events of devices", &["open", "script"], &["escape::uevent_helper"]),
            way("`release_agent`", &["open", "script"], &["escape::release_agent"]),
            way("interpreter of a binary format", &["open", "script"], &["escape::binary_format"]),
            way(
                "file of a container executed by a process of the host",
                &["script"],
                &["escape::executed_by_host", "escape::executed_after_others"],
            ),
            way(
                "open_by_handle_at, of a file in the mount and outside",
                &["handle"],
                &["escape::guessed_handle", "escape::handle_inside"],
            ),
        ],
    ),
    (
        "The sensor itself",
        &[
            way("`kprobes/enabled` in debugfs", &["open"], &["tampering::kprobes_switched"]),
            way("`kernel.ftrace_enabled`", &["open"], &["tampering::ftrace_switched"]),
            way("its maps changed with bpf", &["bpf"], &["tampering::maps_changed", "tampering::maps_frozen"]),
            way("its links detached with bpf", &["open"], &["tampering::links_detached"]),
            way("its memory written, its descriptors taken", &["trace"], &["tampering::traced"]),
            way("stopped with a signal", &["signal"], &["tampering::stopped"]),
        ],
    ),
    (
        "Containers of engines",
        &[
            way(
                "Docker: `exec` and the application, also from before the sensor",
                &["exec", "open", "cgroup_mkdir"],
                &["runtimes::docker", "runtimes::docker_from_before"],
            ),
            way(
                "Docker: container that lives 50 ms, or is removed at once",
                &["exec", "cgroup_mkdir"],
                &["runtimes::docker_short_lived", "runtimes::docker_removed"],
            ),
            way("Docker: `cp`", &["open"], &["runtimes::docker_copied_to"]),
            way(
                "Docker: step of `build`",
                &["exec", "open", "cgroup_mkdir"],
                &["runtimes::docker_built", "runtimes::docker_build_step"],
            ),
            way(
                "Docker: its daemon gone, hanging, restarted under load",
                &["exec", "open"],
                &["runtimes::docker_without_socket", "runtimes::docker_hanging", "runtimes::docker_restarted"],
            ),
            way(
                "containerd by CRI: `exec` and the application, also from before the sensor",
                &["exec", "open", "cgroup_mkdir"],
                &["runtimes::cri", "runtimes::cri_from_before"],
            ),
            way(
                "containerd by CRI: container that lives 50 ms",
                &["exec", "cgroup_mkdir"],
                &["runtimes::cri_short_lived"],
            ),
            way(
                "containerd by CRI: its daemon gone, hanging, restarted under load",
                &["exec", "open"],
                &["runtimes::cri_without_socket", "runtimes::cri_hanging", "runtimes::cri_restarted"],
            ),
            way(
                "Podman: `exec` and the application, also from before the sensor",
                &["exec", "open", "cgroup_mkdir"],
                &["runtimes::podman", "runtimes::podman_from_before"],
            ),
            way(
                "Podman: a service of systemd in the container",
                &["exec", "open", "cgroup_mkdir"],
                &["runtimes::podman_with_systemd"],
            ),
            way(
                "Podman: container that lives 50 ms, or is removed at once",
                &["exec", "cgroup_mkdir"],
                &["runtimes::podman_short_lived", "runtimes::podman_removed"],
            ),
            way("Podman: `cp`", &["open"], &["runtimes::podman_copied_to"]),
            way(
                "Podman: step of `build`",
                &["exec", "open", "cgroup_mkdir"],
                &["runtimes::podman_built", "runtimes::podman_build_step"],
            ),
            way(
                "Podman: its daemon gone, hanging, restarted under load",
                &["exec", "open"],
                &["runtimes::podman_without_socket", "runtimes::podman_hanging", "runtimes::podman_restarted"],
            ),
            way(
                "Podman without privileges: `exec` and the application, also from before the sensor",
                &["exec", "open", "cgroup_mkdir"],
                &["runtimes::rootless", "runtimes::rootless_from_before"],
            ),
            way(
                "Podman without privileges: container that lives 50 ms",
                &["exec", "cgroup_mkdir"],
                &["runtimes::rootless_short_lived"],
            ),
            way("Podman without privileges: `cp`", &["open"], &["runtimes::rootless_copied_to"]),
            way(
                "Podman without privileges: its daemon gone, hanging, restarted under load",
                &["exec", "open"],
                &["runtimes::rootless_without_socket", "runtimes::rootless_hanging", "runtimes::rootless_restarted"],
            ),
        ],
    ),
    (
        "Busy servers",
        &[
            way(
                "Flask: a command of a webshell that drops and runs a program",
                &["exec", "open"],
                &["software::webshell"],
            ),
            way(
                "Node.js: a command of a webshell that drops and runs a program, with a socket as its standard input",
                &["exec", "open"],
                &["software::webshell_of_node"],
            ),
            way(
                "Redis: its data written over a PHP script that a scheduler runs, which drops and runs a miner",
                &["open", "exec"],
                &["software::exploited_redis"],
            ),
            way(
                "Redis: a library replaced from outside, and loaded by the next program",
                &["open", "exec", "mmap"],
                &["software::replaced_library"],
            ),
            way(
                "nginx: its configuration changed from outside after the entrypoint has written it",
                &["open", "rename"],
                &["software::changed_configuration"],
            ),
            way(
                "nginx: a program copied with tar through `exec`, and run",
                &["open", "exec"],
                &["software::tar_through_exec"],
            ),
            way(
                "cron: the script of a job at a steady pace changed by the application, which drops and runs a miner",
                &["open", "exec"],
                &["software::cron"],
            ),
            way("nginx: a person's session at a terminal", &["exec", "fork", "exit"], &["software::interactive"]),
            way(
                "sshd in a container: a login for one command, and one at a terminal",
                &["exec", "fork", "exit"],
                &["software::login"],
            ),
            way(
                "Redis of Docker: the script of its health check changed, or what that runs replaced by another `PATH`",
                &["open", "exec"],
                &["software::changed_health_check", "software::imitated_health_check"],
            ),
        ],
    ),
    (
        "Hiding",
        &[
            way(
                "another name of the process, other arguments",
                &["exec", "open"],
                &["shell::disguised_name_and_arguments", "image_write::changed_name"],
            ),
            way("shell of a user of the host, as root", &["exec"], &["shell::of_a_login"]),
            way("control characters in arguments", &["exec"], &["shell::control_characters_in_arguments"]),
            way(
                "many writers at once, to have probes skipped",
                &["open"],
                &["blinding::parallel_writers", "blinding::while_maps_are_read"],
            ),
            way(
                "file systems that never answer, to stop the reading of executed files for all containers",
                &["exec", "mmap"],
                &[
                    "inspection::remote_program",
                    "inspection::remote_shell",
                    "inspection::remote_program_next",
                    "inspection::remote_mapping",
                    "inspection::remote_directory",
                    "inspection::remote_layer",
                ],
            ),
            way("programs of 5 GB, to delay it", &["exec"], &["inspection::large_programs"]),
            way(
                "flood, while the sensor stands still",
                &["open", "exec"],
                &["flood::full_ring_buffer", "flood::half_full_ring_buffer"],
            ),
            way("more cgroups than the sensor keeps", &["exec"], &["cgroups::full_map"]),
            way(
                "a month of changed files, cgroups and visits",
                &["open", "unlink", "rename"],
                &["long_life::month_of_churn"],
            ),
        ],
    ),
];

/// What is done to the sensor: the rows of `docs/tampering.md`.
pub const TAMPERING: &[&str] = &[
    "`kprobes/enabled` opened for writing",
    "`kernel.ftrace_enabled` opened for writing",
    "kprobes switched off: seen by the self-test",
    "ftrace switched off: seen by the self-test",
    "an entry of a map changed with bpf(2)",
    "all entries of maps deleted with bpf(2)",
    "entries of a read-only map deleted with bpf(2)",
    "links detached with bpf(2)",
    "all links closed by way of ptrace(2)",
    "the later half of the links closed by way of ptrace(2)",
    "perf events disabled",
    "the module of overlayfs unloaded and loaded again",
    "memory written with ptrace(2)",
    "memory written with process_vm_writev(2)",
    "memory written through `/proc/PID/mem`",
    "a descriptor taken with pidfd_getfd(2)",
    "stopped with SIGSTOP, and continued 7 s later",
    "ended with SIGTERM",
    "killed with SIGKILL: seen by the next daemon",
];

/// Cases that are not attacks. A name that ends with `::` stands for all cases of a module.
pub const NO_ATTACKS: &[&str] = &[
    "silence::",
    "expected::data",
    "expected::health_check",
    "expected::copies",
    "escape::harmless",
    "escape::own_binary_format",
    "volumes::",
    "tampering::maps_read",
    "tampering::looked_at",
    "scale::",
    "actor::application_and_its_child",
    "actor::subshell",
    "shell::other_program",
    "session::without_terminal",
    "shell::secret_in_arguments",
    "interpreters::own_scripts_and_data",
    "interpreters::database",
    "software::nginx",
    "software::redis",
    "software::redis_of_docker",
    "software::postgresql",
    "software::mariadb",
    "software::rabbitmq",
    "software::apache",
    "software::tomcat",
    "software::gcc",
    "software::logrotate",
    "software::chromium",
    "software::systemd",
    "software::sshd",
    "software::flask",
    "software::node",
    "node::",
    "exec::data",
    "exec::unchanged_code",
    "exec::unchanged_programs",
    "exec::called_like_a_shell",
    "exec::failing_script",
    "exec::executable_script",
    "inspection::known_program",
    "lifecycle::stop_and_status",
    "lifecycle::clock_step",
    "lifecycle::rotated_output",
    "lifecycle::log_of_killed_daemons",
    "lifecycle::log_rotated_by_the_daemon",
    "lifecycle::configuration_file",
    "lifecycle::test_alert",
    "lifecycle::service_manager",
    "forward::",
    "recording::",
    "policy::",
    "tail::",
    "drift::",
    "repeats::",
    "refusals::",
    "degraded::",
    "doctor::",
    "as_container::",
    "package::",
    "kubernetes::",
    "runtimes::docker_recorded",
    "runtimes::docker_silent",
    "runtimes::cri_silent",
    "runtimes::podman_silent",
    "runtimes::rootless_silent",
];

/// Limitations that no hook in the kernel can remove.
pub const OPEN: &[&str] = &[
    "A write by the host straight into an overlay's upper directory, past the overlay: it is a write to a plain file \
     of the host.",
    "A change by the host of a root that shares its file system with other files (btrfs subvolumes, plain \
     directories): whose file it is, is known only of what the container's own processes do.",
    "mount_setattr of another mount than the root's: the kernel asks no hook, and finds the mount in a function that \
     compilers inline or give other arguments.",
    "Images of containers in a container that were started before the sensor.",
    "A second file with the inode number of one that was changed before, in an overlay whose layers are on several \
     file systems.",
    "Guests of gVisor and Kata: they have a kernel of their own.",
    "An interpreter that runs code from its arguments or from what it receives.",
    "Stores through a shared mapping that was writable before the sensor: they are page faults of memory, not calls.",
    "Writes by a loop device that was attached before the sensor: a thread of the kernel makes them.",
    "Processes of a container in a cgroup that it shares with processes of the host, as the steps of `podman build` \
     without privileges do.",
    "Anything once the kernel itself is in other hands, or once a privileged container has unloaded the probes.",
];

const fn way(way: &'static str, hooks: &'static [&'static str], cases: &'static [&'static str]) -> Way {
    Way { way, hooks, cases }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use detector::sensor::plan::HOOKS;

    use super::*;
    use crate::cases::CASES;

    fn ways() -> impl Iterator<Item = &'static Way> {
        WAYS.iter().flat_map(|(_, ways)| *ways)
    }

    #[test]
    fn the_table_contains_exactly_the_attacks() {
        let in_table: BTreeSet<_> = ways().flat_map(|way| way.cases).copied().collect();
        let attacks = CASES.iter().map(|case| case.name);
        let attacks: BTreeSet<_> = attacks
            .filter(|name| !NO_ATTACKS.iter().any(|no| name == no || no.ends_with("::") && name.starts_with(no)))
            .collect();
        assert_eq!(in_table, attacks);
    }

    #[test]
    fn rows_differ() {
        let names: BTreeSet<_> = ways().map(|way| way.way).collect();
        assert_eq!(names.len(), ways().count());
    }

    #[test]
    fn hooks_are_those_of_the_sensor() {
        for hook in ways().flat_map(|way| way.hooks) {
            assert!(HOOKS.iter().any(|known| known.name == *hook), "there is no hook {hook}");
        }
    }

    #[test]
    fn the_exceptions_are_cases() {
        for no in NO_ATTACKS {
            assert!(CASES.iter().any(|case| case.name.starts_with(no)), "there is no case {no}");
        }
    }
}
