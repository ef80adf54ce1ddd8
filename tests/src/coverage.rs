//! What is attacked: the rows of `docs/coverage.md`.
//!
//! A new attack is a case in [`cases`](crate::cases) and its name in a row here.

/// A way to change an image, to start a program, or to hide.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// What is done.
    pub way: &'static str,
    /// The hooks that see it, as `detector doctor` calls them; the first one alone would do.
    pub hooks: &'static [&'static str],
    /// The cases that do it.
    pub cases: &'static [&'static str],
}

/// All ways, by subject.
pub const WAYS: &[(&str, &[Way])] = &[
    (
        "Content of image files",
        &[
            way("open for writing", &["open"], &["image_write::lower_file_once", "image_write::upper_file"]),
            way("create", &["open", "create"], &["image_write::new_file"]),
            way("open with `O_TRUNC`", &["open", "setattr"], &["image_write::truncate"]),
            way("writev, pwritev2", &["open", "write"], &["image_write::writev", "image_write::pwritev"]),
            way("descriptor from before the sensor", &["write"], &["lifecycle::descriptor_from_before"]),
        ],
    ),
    (
        "Paths to image files",
        &[
            way("hard link", &["open", "link"], &["image_write::hard_link"]),
            way("deep and long paths", &["open"], &["image_write::deep_path", "image_write::long_path"]),
            way("control characters and no UTF-8 in the name", &["open"], &["image_write::hostile_name"]),
            way("`/proc/self/root`", &["open"], &["image_write::through_proc_self_root"]),
            way("from the host, as `docker cp`", &["open"], &["image_write::from_the_host"]),
        ],
    ),
    (
        "Who changes an image",
        &[
            way("by `docker exec`", &["open", "exec"], &["image_write::entered"]),
            way("by a child of the application", &["open"], &["image_write::child_of_application"]),
            way("container from before the sensor", &["open", "exec"], &["lifecycle::containers_that_ran_before"]),
        ],
    ),
    (
        "Shells and programs",
        &[
            way(
                "`docker exec`, with and without a terminal",
                &["exec"],
                &["shell::entered", "shell::entered_with_tty"],
            ),
            way("descendant of what was entered", &["exec", "fork"], &["shell::entered_descendant"]),
            way("entrypoint", &["exec", "cgroup_mkdir"], &["shell::entrypoint"]),
            way("started by the application", &["exec"], &["shell::application"]),
            way("busybox by argument and by link", &["exec"], &["shell::busybox_by_argument"]),
            way("login shell", &["exec"], &["shell::login_shell"]),
            way("reverse shell", &["exec"], &["shell::reverse_shell"]),
            way("container that lives 50 ms", &["exec", "cgroup_mkdir"], &["shell::short_lived"]),
            way("cgroup that no known runtime makes", &["exec", "cgroup_mkdir"], &["shell::plain_cgroup"]),
        ],
    ),
    (
        "Hiding",
        &[
            way("other name and arguments", &["exec"], &["shell::disguised_name_and_arguments"]),
            way("control characters in arguments", &["exec"], &["shell::control_characters_in_arguments"]),
            way("many writers at once, to have probes skipped", &["open"], &["blinding::parallel_writers"]),
        ],
    ),
];

/// Cases, or all cases of a module, that are no attack.
pub const NO_ATTACKS: &[&str] = &[
    "silence::",
    "shell::other_program",
    "lifecycle::stop_and_status",
    "lifecycle::no_privilege",
    "lifecycle::unwritable_output",
    "lifecycle::no_cgroups",
];

/// What no hook in the kernel can close.
pub const OPEN: &[&str] = &[
    "A write by the host straight into an overlay's upper directory, past the overlay: it is a write to a plain file of \
     the host.",
    "Guests of gVisor and Kata: they have a kernel of their own.",
    "An interpreter that runs code without executing a program.",
    "Stores through a shared mapping made before the sensor: they are page faults of memory, not calls.",
    "Writes by a loop device that was attached before the sensor: a thread of the kernel makes them.",
    "Processes of a container that runs in a cgroup shared with processes of the host, if it was there before the sensor.",
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
    fn every_attack_is_in_the_table_and_nothing_else() {
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
    fn what_is_no_attack_is_a_case() {
        for no in NO_ATTACKS {
            assert!(CASES.iter().any(|case| case.name.starts_with(no)), "there is no case {no}");
        }
    }
}
