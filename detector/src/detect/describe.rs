//! Translates the kernel's terms into those of findings, for all detections.

use super::context::Context;
use super::process::Program;
use crate::container::table::TrackedContainer;
use crate::event;
use crate::event::{Control, Origin};
use crate::finding::{Ancestor, Capabilities, Container, Device, File, Mode, Op, Pod, Process, ProcessField, Text};

/// A number of things.
pub(crate) fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// The container, as far as its cgroup shows it.
pub(crate) fn container(container: &TrackedContainer) -> Container {
    let reference = container.reference.as_ref();
    Container {
        id: reference.map(|found| text(&found.id)),
        runtime: reference.and_then(|found| found.runtime).map(Into::into),
        pod: reference.and_then(|found| found.pod_uid.as_ref()).map(|uid| Pod { uid: text(uid), ..Pod::default() }),
        cgroup: (!container.path.is_empty()).then(|| text(&container.path)),
        cgroup_id: container.cgroup_id,
        ..Container::default()
    }
}

/// The name of the container in a message, as short as people write it.
pub(super) fn container_name(container: &TrackedContainer) -> String {
    match &container.reference {
        Some(found) if found.id.len() == 64 => format!("container {}", text(&found.id[..12])),
        Some(found) => format!("container {}", text(&found.id)),
        None => format!("the container of cgroup {}", container.cgroup_id),
    }
}

/// How long the name by which a program was called may be in a message, in bytes.
const MOST_CALLED: usize = 32;

/// The process that acted, and the arguments and working directory that it was started with.
#[derive(Clone, Copy)]
pub(super) struct Actor<'a> {
    pub(super) process: &'a event::Process,
    pub(super) exe: &'a event::Path,
    started_as: Option<(&'a event::Args, &'a event::Path)>,
}

impl<'a> Actor<'a> {
    /// A process with this executable, which was started as `program`, if that is known.
    pub(super) fn new(process: &'a event::Process, exe: &'a event::Path, program: Option<&'a Program>) -> Self {
        Self { process, exe, started_as: program.map(|program| (&program.args, &program.cwd)) }
    }

    /// The process that has just executed a program.
    pub(super) fn of_exec(exec: &'a event::Exec) -> Self {
        Self { process: &exec.process, exe: &exec.exe, started_as: Some((&exec.args, &exec.cwd)) }
    }

    /// The arguments of the process, `argv[0]` first. Returns `None` if they are not known.
    pub(super) fn args(&self) -> Option<&'a event::Args> {
        self.started_as.map(|(args, _)| args)
    }

    /// The name of its executable. If it was called by another name, that follows, because one file can be many
    /// programs: `busybox, called cp`. A version at the end makes no other name, and neither does the dash of a login
    /// shell.
    pub(super) fn name(&self) -> String {
        let exe = base_name(&self.exe.bytes);
        let called = self.args().and_then(|args| args.iter().next()).unwrap_or_default();
        let called = base_name(called.strip_prefix(b"-").unwrap_or(called));
        if called.is_empty() || called.len() > MOST_CALLED || exe.starts_with(called) || called.starts_with(exe) {
            return text(exe).to_string();
        }
        format!("{}, called {}", text(exe), text(called))
    }

    /// The description of the process in a finding.
    pub(super) fn describe(&self, context: &Context) -> Process {
        let (process, exe) = (self.process, self.exe);
        let (args, cwd) = self.started_as.unzip();
        let truncated = [
            (exe.truncated, ProcessField::Exe),
            (args.is_some_and(|args| args.truncated), ProcessField::Args),
            (cwd.is_some_and(|cwd| cwd.truncated), ProcessField::Cwd),
        ];
        Process {
            pid: process.pid,
            tid: process.tid,
            ns_pid: process.ns_pid,
            ppid: process.ppid,
            uid: process.uid,
            gid: process.gid,
            login_uid: process.login_uid,
            capabilities: Capabilities(process.capabilities),
            start_time: context.wall(process.start_time),
            comm: text(process.comm.as_bytes()),
            exe: path(exe),
            args: args.map(|args| context.redactor.args(args.iter()).map(|arg| text(&arg)).collect()),
            cwd: cwd.map(|cwd| text(&cwd.bytes)),
            truncated: truncated
                .into_iter()
                .filter_map(|(is_truncated, field)| is_truncated.then_some(field))
                .collect(),
            tty: process.tty.as_ref().map(|tty| text(tty.as_bytes())),
            origin: process.origin,
            stdio: process.stdio,
            peer: process.peer.map(|peer| peer.to_string()),
            ancestors: process
                .ancestors
                .iter()
                .map(|ancestor| Ancestor {
                    pid: ancestor.pid,
                    comm: text(ancestor.comm.as_bytes()),
                    start_time: context.wall(ancestor.start_time),
                    in_container: ancestor.in_container,
                })
                .collect(),
        }
    }
}

/// The message about a change: `WHAT HAPPENED in CONTAINER by PROGRAM (from where)`. The container 0 is the host.
pub(super) fn message(what: &str, container: &TrackedContainer, actor: Option<&Actor>) -> String {
    let by = actor.map(|actor| (actor.name(), actor.process.origin));
    let by = by.as_ref().map(|(name, origin)| (name.as_str(), *origin));
    format!("{what} {}", where_and_by(container, by))
}

/// The end of such a message. `by` is the name of the program, and its origin.
pub(super) fn where_and_by(container: &TrackedContainer, by: Option<(&str, Origin)>) -> String {
    let is_host = container.cgroup_id == 0;
    let place = if is_host { "on the host".to_owned() } else { format!("in {}", container_name(container)) };
    let Some((name, origin)) = by else { return place };
    let from = match origin {
        Origin::Outside if !is_host => " (from outside)",
        Origin::Entered => " (entered from outside)",
        Origin::Unknown => " (of unknown origin)",
        Origin::Outside | Origin::Entrypoint | Origin::Application => "",
    };
    format!("{place} by {name}{from}")
}

/// How a process came into the container, in a message about what it runs.
pub(super) fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Outside => "with the host's mounts",
        Origin::Entered => "entered from outside",
        Origin::Entrypoint => "its entrypoint",
        Origin::Application => "by the application",
        Origin::Unknown => "of unknown origin",
    }
}

/// The path or name of a file that was executed or mapped. Returns `None` if it has none.
pub(super) fn path(path: &event::Path) -> Option<Text> {
    is_named(path).then(|| text(&path.bytes))
}

/// Whether the path names a file. `/` names none, because the root is a directory.
fn is_named(path: &event::Path) -> bool {
    path.bytes != b"/"
}

/// The description of a file that was executed or mapped.
pub(super) fn code_file(file: &event::File, path: Option<&event::Path>) -> File {
    describe_file(file, path.filter(|path| is_named(path)))
}

/// The description of a file that was opened or changed. `op` is what was done to the file, if that is not clear from
/// the finding's kind.
pub(super) fn changed_file(file: &event::File, detail: Option<&event::Detail>, op: Option<Op>) -> File {
    let new_path = detail.and_then(|detail| detail.new_path.as_ref());
    let mut changed = describe_file(file, detail.map(|detail| &detail.path));
    changed.new_path = new_path.map(|path| text(&path.bytes));
    changed.truncated |= new_path.is_some_and(|path| path.truncated);
    changed.op = op;
    changed
}

fn describe_file(file: &event::File, path: Option<&event::Path>) -> File {
    // Every file has a type, so a mode without one was never read.
    let is_known = file.mode != 0;
    File {
        path: path.map(|path| text(&path.bytes)),
        new_path: None,
        truncated: path.is_some_and(|path| path.truncated),
        op: None,
        layer: file.layer,
        differs: None,
        changed: None,
        dev: Device::from_kernel(file.dev),
        inode: Some(file.inode),
        mode: is_known.then(|| Mode::from_st_mode(file.mode)),
        deleted: is_known && file.nlink == 0,
        bytes: None,
        declared_volume: None,
        unverified: None,
        sha256: None,
        unhashed: None,
    }
}

/// The path of a control where it usually is, wherever it was opened. A `release_agent` is in the root of a hierarchy
/// of cgroups, which can be anywhere.
pub(super) fn control(control: Control) -> &'static str {
    match control {
        Control::CorePattern => "/proc/sys/kernel/core_pattern",
        Control::Modprobe => "/proc/sys/kernel/modprobe",
        Control::Hotplug => "/proc/sys/kernel/hotplug",
        Control::PoweroffCommand => "/proc/sys/kernel/poweroff_cmd",
        Control::UeventHelper => "/sys/kernel/uevent_helper",
        Control::ReleaseAgent => "/release_agent",
        Control::BinaryFormats => "/proc/sys/fs/binfmt_misc/register",
        Control::Kprobes => "/sys/kernel/debug/kprobes/enabled",
        Control::Ftrace => "/proc/sys/kernel/ftrace_enabled",
    }
}

/// The description of a control that was opened.
pub(super) fn control_file(open: &event::ControlOpen) -> File {
    let path = Some(text(control(open.control).as_bytes()));
    File { path, truncated: false, ..describe_file(&open.file, None) }
}

/// The path of a file in a message, or its inode number if the path was lost.
pub(super) fn path_or_inode(detail: Option<&event::Detail>, file: &event::File) -> String {
    match detail {
        Some(detail) => text(&detail.path.bytes).to_string(),
        None => format!("the file with inode {}", file.inode),
    }
}

/// Turns bytes into text.
pub(super) fn text(bytes: &[u8]) -> Text {
    Text::from(bytes)
}

/// The last component of a path. The name of a file in memory stays whole: it can contain any character, and is chosen
/// by the process.
pub(super) fn base_name(path: &[u8]) -> &[u8] {
    if path.starts_with(b"memfd:") {
        return path;
    }
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use super::*;

    #[test]
    fn a_program_has_the_name_by_which_it_was_called_too() {
        let long = "x".repeat(MOST_CALLED + 1);
        for (exe, called, expected) in [
            ("/usr/bin/redis-check-rdb", "/usr/bin/redis-server", "redis-check-rdb, called redis-server"),
            ("/bin/busybox", "-sh", "busybox, called sh"),
            ("/usr/bin/python3.12", "python3", "python3.12"),
            ("/usr/bin/dash", "", "dash"),
            ("/usr/bin/dash", &long, "dash"),
        ] {
            assert_eq!(Actor::of_exec(&exec(Origin::Application, exe, &[called])).name(), expected);
        }
    }
}
