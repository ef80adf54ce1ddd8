//! The test cases. Each performs an action in a real container, and checks that it has exactly the expected findings.

mod actor;
mod as_container;
mod before;
mod blinding;
mod cgroups;
mod degraded;
mod device;
mod doctor;
mod drift;
mod escape;
mod exec;
mod expectation;
mod expected;
mod flood;
mod forward;
mod held;
mod image_change;
mod image_write;
mod inspection;
mod interpreters;
mod kubernetes;
mod lab;
mod lifecycle;
mod long_life;
mod node;
mod noticed;
mod package;
mod policy;
mod recording;
mod refusals;
mod repeats;
mod roots;
mod runtimes;
mod scale;
mod servers;
mod session;
mod shadow;
mod shell;
mod silence;
mod software;
mod tail;
mod tampering;
mod volumes;

use std::ffi::OsStr;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::container::Setup;
use crate::image::make_image;
use crate::machine::{Dependence, Kind, OF_THE_KERNEL};
use crate::protocol::{Message, Outcome};
use lab::Lab;

/// A test case.
pub struct Case {
    /// `module::function`.
    pub name: &'static str,
    /// What its result depends on besides the kernel.
    pub depends_on: &'static [Dependence],
    run: fn(&mut Lab) -> Result<()>,
}

macro_rules! cases {
    ($($module:ident $dependences:tt: $($function:ident),+;)+) => {
        /// All test cases, in the order in which they run.
        pub const CASES: &[Case] = &[$($(Case {
            name: concat!(stringify!($module), "::", stringify!($function)),
            depends_on: cases!(@list $dependences),
            run: $module::$function,
        }),+),+];
    };
    (@list [$($dependence:ident),*]) => { &[$(Dependence::$dependence),*] };
}

// The brackets contain what the result of a case depends on besides the kernel. A case without brackets runs only on
// the ordinary machine of each kernel.
cases! {
    refusals [Cgroups]: no_cgroups;
    refusals []: no_privilege, unwritable_output, few_descriptors;
    degraded []:
        few_capabilities, probes_switched_off, ftrace_switched_off, links_closed, later_links_closed, events_disabled,
        module_reloaded, terminated, killed;
    degraded [UserSpace]: full_disk, full_disk_while_rotating, full_disk_with_a_forwarder, full_disk_of_a_recording;
    doctor [Cgroups, Preemption]: every_hook_is_proven;

    shell [Cgroups, Preemption]:
        entered, entered_with_tty, entered_detached, entered_by_birth, entered_descendant, entered_without_leader,
        entered_by_fork, entered_with_own_mounts, on_the_host,
        entrypoint, application, of_a_login, busybox_by_argument, login_shell, socket_shell, reverse_shell, short_lived,
        plain_cgroup;
    // The content of records and findings.
    shell []: secret_in_arguments, disguised_name_and_arguments, other_program, control_characters_in_arguments;

    session [Cgroups, Preemption]:
        interactive, without_terminal, other_program_with_terminal, script_on_input, by_nsenter, outlives_its_first,
        killed_container, reverse_shell, terminal_of_the_application;
    session []: many_programs, restarted_sensor, webshell;

    exec [Preemption]:
        added_program, changed_program, copied_shell, long_paths, copied_shell_twice, copied_shell_changed,
        copied_box, gone_shell, gone_program, called_like_a_shell, linked_shell, what_differs, with_capabilities,
        linked_library, executable_script, copied_before, by_descriptor, on_terminal,
        in_memory, in_shared_memory, deleted, added_script, added_script_in_thread, chain_of_scripts,
        shell_that_is_a_script, failing_script, by_loader, copy_by_loader, preloaded_library, preloaded_from_memory,
        made_executable, made_executable_in_memory, executable_by_personality, unchanged_code,
        script_as_argument, script_of_an_applet, included_script, script_as_input, script_in_memory, changed_script,
        data, program_on_volume, library_on_volume, unchanged_programs;
    volumes []: old_programs_and_data;

    inspection []:
        remote_program, remote_shell, remote_program_next, remote_mapping, remote_directory, remote_layer,
        large_programs, known_program, hashes;

    expected []:
        data, no_data, data_after_session, data_after_drift, data_of_a_container_from_before, start_up, own_connection,
        connection_in_shared_network, code_at_start, session_at_start, restart_of_the_application;

    // The ways to open a file.
    image_write [Preemption]:
        lower_file_once, upper_file, new_file, truncate, truncate_by_reader, uring_open, uring_open_direct,
        open_by_handle, write, uring_sqpoll, hard_link, symlink, through_proc_self_root;
    // The process that opens it, by cgroup and mount namespace.
    image_write [Cgroups, Preemption]:
        entered, child_of_application, other_thread, user_namespace, nested_container, nested_image,
        namespace_number_reused, received, received_in_another_container, taken_from_the_host, stolen, inherited,
        given_by_supervisor, from_the_host, from_private_mounts, joined_mounts;
    // The operations on an open file, and its name.
    image_write []:
        truncate_by_path, pwrite, writev, pwritev2, uring, uring_fixed, uring_async, aio, splice, vmsplice, sendfile,
        copy_range, clone, fallocate, punch_hole, ftruncate, mmap, mprotect, process_vm_writev, ptrace, proc_mem,
        changed_name, deep_path, long_path, hostile_name;

    // These run two of the programs for writes. The others are attached in the same way.
    held [Preemption]: write, mmap;
    held []:
        pwrite, writev, pwritev2, uring, uring_fixed, uring_async, uring_sqpoll, aio, splice, vmsplice, sendfile,
        copy_range, clone, fallocate, punch_hole, ftruncate, mprotect, process_vm_writev, ptrace, proc_mem, remove_acl;
    held [Cgroups]: received_in_another_container;

    // These run three of the programs for names and metadata, two of which wait for the thread's next action.
    image_change [Preemption]: rename, unlink, chmod;
    image_change [Cgroups]: from_the_host;
    image_change []:
        mkdir, mknod, mknod_file, mknod_device, bind_socket, symlink, link, tmpfile, rename_over, rename_again,
        exchange, exchange_again,
        rename_directory, unlink_own, rmdir, uring_mkdir, uring_symlink, uring_link, uring_rename, uring_unlink,
        uring_rmdir, fchmod, fchmodat2, chmod_twice, chown, fchown, utimes, xattr, set_capability, set_acl, set_flags,
        set_flags_of_changed, file_setattr, of_own_file, power_to_own_file, times_after_write;
    shadow []:
        mount_tmpfs, mount_overlay, bind, bind_file, remount, remount_file_system, fspick, mount_setattr, mount_moved,
        move_mount, fsmount, open_tree, umount, pivot_root, chroot, in_user_namespace, chroot_in_user_namespace,
        in_mount_namespace;
    device []: block_device, loop_on_image_file;
    escape [Cgroups]: release_agent, executed_by_host;
    escape []:
        core_pattern, modprobe, poweroff_command, uevent_helper, binary_format, own_binary_format, guessed_handle,
        handle_inside, executed_after_others, harmless;
    // Switches work on kprobes and fentry programs in different ways.
    tampering [Preemption]: kprobes_switched, ftrace_switched;
    tampering []:
        maps_changed, maps_changed_during_preparation, maps_frozen, links_detached, maps_read, traced, stopped,
        looked_at;

    silence [Cgroups, Preemption]:
        not_the_image, failed_writes, runtime_setup_and_removal, runtime_commands, host_shell, host_overlay;
    silence []:
        every_change_elsewhere, looks, read_only_root, changes_that_fail, unnamed_file, mounts_elsewhere,
        block_device_read, programs_that_lock_memory, ordinary_programs;

    // A root of each type, identified by its file system or by cgroup. Another runtime makes other cgroups.
    roots [Cgroups]: ext4, ext4_from_before, directory, directory_from_before, crun, crun_from_before;
    roots []: erofs, erofs_from_before, subvolume, subvolume_from_before, fuse_overlay, fuse_overlay_from_before;
    actor [Cgroups, Preemption]: entered_after_application, two_visits, host_after_application;
    actor []: application_and_its_child, subshell, host_that_enters, file_of_a_visit, removed_by_a_visit;
    cgroups [Cgroups, Preemption]: moved, moved_with_own_mounts, born;
    cgroups []: full_map;
    long_life []: month_of_churn;
    lifecycle [Cgroups, Preemption]: containers_that_ran_before;
    lifecycle []: container_in_preparation;
    lifecycle [UserSpace]:
        clock_step, rotated_output, log_of_killed_daemons, log_rotated_by_the_daemon, configuration_file, test_alert,
        service_manager;
    blinding [Preemption]: parallel_writers, while_maps_are_read;
    flood [Preemption]: full_ring_buffer, half_full_ring_buffer;
    forward [UserSpace]: killed_daemons;
    recording [UserSpace]: replayed, killed;
    policy []: forged_by_mount, forged_by_rename, script, kernel_filter;
    policy [UserSpace]:
        excepted, reloaded, expired, explained, command_from_outside, always_told, unwatched, severities;
    drift [UserSpace]: container;
    tail [UserSpace]: hidden_findings, story, story_on_a_terminal, top, formats, since_a_time, restarted_daemon;
    repeats []: counted_in_kernel;
    repeats [UserSpace]: files_below_a_directory, temporary_files, replaced_file, something_new, session, shells;

    // These run before any engine is started, since those would react to each of the many containers.
    scale [Node]: thousand_containers, million_writes, ten_thousand_execs;
    // Servers need time to start and to answer, so only some of them run by default.
    software [Node, Software]: nginx, webshell;
    software [Software]:
        redis, postgresql, mariadb, rabbitmq, apache, tomcat, gcc, logrotate, chromium, systemd, sshd, login, flask,
        node, cron, webshell_of_node, exploited_redis, replaced_library, interactive, changed_configuration,
        tar_through_exec;
    interpreters [Node]:
        python, python_compiled, perl, node, php, php_in_apache, ruby, lua, awk, java, own_scripts_and_data, database;
    repeats [Node]: installation;
    drift [Node]: replicas, replicas_of_pods, advice;
    session [Node]: docker, containerd, podman;
    expected [Node]:
        health_check, health_check_of_podman, health_check_replaced, health_check_of_added_program,
        health_check_that_writes, other_than_the_health_check, probe_of_a_pod, copies, of_the_image;
    policy [Node]: by_image, explained_in_container, learnt, unwatched_by_runtime;
    software [Node, Software]: changed_health_check;
    software [Software]: redis_of_docker, imitated_health_check;
    node [Software]: of_thirty_containers;
    runtimes [Node]:
        docker, docker_from_before, docker_short_lived, docker_removed, docker_silent, docker_copied_to, docker_built,
        docker_build_step, docker_without_socket, docker_hanging, docker_restarted, docker_recorded,
        cri, cri_from_before, cri_short_lived, cri_silent, cri_without_socket, cri_hanging, cri_restarted,
        podman, podman_from_before, podman_short_lived, podman_removed, podman_silent, podman_copied_to, podman_built,
        podman_build_step, podman_without_socket, podman_hanging, podman_restarted, podman_with_systemd,
        rootless, rootless_from_before, rootless_short_lived, rootless_silent, rootless_copied_to,
        rootless_without_socket, rootless_hanging, rootless_restarted;

    as_container [Node]: docker, podman, containerd;

    kubernetes [Kubernetes]: installed;

    package [Systemd]: installed, hardened, killed, rotated, journal_entries, upgraded, removed;

    // The sensor does not run after this case.
    lifecycle [Cgroups]: stop_and_status;
    // No sensor can start after this case.
    refusals []: lockdown;
}

/// Runs the cases in a comma-separated list, those [of the kernel](OF_THE_KERNEL), or all cases of this kind of
/// machine. Fails if no case could run.
pub fn run(kind: Kind, names: Option<&OsStr>) -> Result<()> {
    let names = names.map(OsStr::to_string_lossy);
    let names: Option<Vec<&str>> = names.as_ref().map(|names| names.split(',').collect());
    let is_wanted = |case: &&Case| match names.as_deref() {
        Some([OF_THE_KERNEL]) => kind.runs(case.depends_on) && !case.depends_on.contains(&Dependence::UserSpace),
        Some(names) => names.contains(&case.name),
        None => kind.runs(case.depends_on),
    };
    let cases: Vec<&Case> = CASES.iter().filter(is_wanted).collect();
    make_image().context("cannot make the image")?;
    Message::Begin { release: rustix::system::uname().release().to_string_lossy().into_owned() }.send()?;
    let old_setups = [Setup::default()].into_iter().chain(roots::setups()).collect();
    let mut lab = Lab::new(cases.iter().map(|case| case.name).collect(), old_setups);
    for case in cases {
        let start = Instant::now();
        let outcome = lab.run(case.name, case.run);
        let (word, more) = match &outcome {
            Outcome::Passed => ("ok", None),
            Outcome::NotApplicable(reason) => ("not applicable", Some(reason)),
            Outcome::Failed(failure) => ("FAILED", Some(failure)),
        };
        let seconds = start.elapsed().as_secs_f32();
        println!("{} ... {word} ({seconds:.1} s)", case.name);
        if let Some(more) = more {
            println!("{more}");
        }
        Message::Case { name: case.name.to_owned(), outcome, seconds }.send()?;
    }
    // The containers are not removed, which would take seconds each, because the machine is powered off.
    std::mem::forget(lab);
    Ok(())
}
