//! From the kernel's terms to those of findings: the same for all detections.

use super::{Context, Program};
use crate::container::table;
use crate::event;
use crate::finding::{
    Ancestor, Capabilities, Container, Device, File, Layer, Mode, Op, Origin, Pod, Process, ProcessField, Stdio, Text,
};

/// The container, as far as its cgroup tells.
pub fn container(container: &table::Container) -> Container {
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

/// The container, in a message: as short as people write it.
pub(super) fn container_name(container: &table::Container) -> String {
    match &container.reference {
        Some(found) if found.id.len() == 64 => format!("container {}", text(&found.id[..12])),
        Some(found) => format!("container {}", text(&found.id)),
        None => format!("the container of cgroup {}", container.cgroup_id),
    }
}

/// The process, with what is known of its program.
pub(super) fn process(
    process: &event::Process,
    exe: Option<&event::Path>,
    program: Option<(&event::Args, &event::Path)>,
    context: &Context,
) -> Process {
    let (args, cwd) = program.unzip();
    let cut = [
        (exe.is_some_and(|exe| exe.truncated), ProcessField::Exe),
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
        exe: exe.and_then(path),
        args: args.map(|args| context.redactor.args(args.iter()).map(|arg| text(&arg)).collect()),
        cwd: cwd.map(|cwd| text(&cwd.bytes)),
        truncated: cut.into_iter().filter_map(|(is_cut, field)| is_cut.then_some(field)).collect(),
        tty: process.tty.as_ref().map(|tty| text(tty.as_bytes())),
        origin: match process.origin {
            event::Origin::Outside => Origin::Outside,
            event::Origin::Entrypoint => Origin::Entrypoint,
            event::Origin::Entered => Origin::Entered,
            event::Origin::Application => Origin::Application,
        },
        stdio: process.stdio.map(|stdio| match stdio {
            event::Stdio::Closed => Stdio::Closed,
            event::Stdio::Tty => Stdio::Tty,
            event::Stdio::Null => Stdio::Null,
            event::Stdio::Pipe => Stdio::Pipe,
            event::Stdio::Socket => Stdio::Socket,
            event::Stdio::File => Stdio::File,
            event::Stdio::Other => Stdio::Other,
        }),
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

/// The process that changed something, as far as the event still knows it.
pub(super) fn actor(write: &event::ImageWrite, program: Option<&Program>, context: &Context) -> Option<Process> {
    Some(process(write.process.as_ref()?, write.exe.as_ref(), program.map(known), context))
}

/// ` by PROGRAM (whence)`: the end of a message.
pub(super) fn by(write: &event::ImageWrite) -> String {
    let who = match &write.exe {
        Some(exe) => format!(" by {}", text(base_name(&exe.bytes))),
        None => String::new(),
    };
    let origin = match write.process.as_ref().map(|process| process.origin) {
        Some(event::Origin::Outside) => " (from outside)",
        Some(event::Origin::Entered) => " (entered from outside)",
        Some(event::Origin::Entrypoint | event::Origin::Application) | None => "",
    };
    who + origin
}

/// How a process came into the container, in a message.
pub(super) fn origin(origin: event::Origin) -> &'static str {
    match origin {
        event::Origin::Outside => "with the host's mounts",
        event::Origin::Entered => "entered from outside",
        event::Origin::Entrypoint => "its entrypoint",
        event::Origin::Application => "by the application",
    }
}

/// The arguments and the working directory of a remembered program.
pub(super) fn known(program: &Program) -> (&event::Args, &event::Path) {
    (&program.args, &program.cwd)
}

/// A file that was executed or mapped.
pub(super) fn file(file: &event::File, path: &event::Path) -> File {
    describe_file(file, Some(path).filter(|path| is_named(path)))
}

/// A file of which no more than its number is known.
pub(super) fn numbered(file: &event::File) -> File {
    describe_file(file, None)
}

/// The path of a file that was executed or mapped. `None`: it is in no directory, as those of memfd_create(2) are.
pub(super) fn path(path: &event::Path) -> Option<Text> {
    is_named(path).then(|| text(&path.bytes))
}

/// The root is a directory.
fn is_named(path: &event::Path) -> bool {
    path.bytes != b"/"
}

/// The file that was changed.
pub(super) fn changed_file(write: &event::ImageWrite) -> File {
    let mut file = describe_file(&write.file, write.path.as_ref());
    if write.op.makes_without_open() {
        (file.inode, file.mode) = (None, None);
    }
    file.new_path = write.new_path.as_ref().map(|path| text(&path.bytes));
    file.truncated |= write.new_path.as_ref().is_some_and(|path| path.truncated);
    file.op = Some(op(write.op));
    file.bytes = (write.bytes > 0).then_some(write.bytes);
    file
}

fn describe_file(file: &event::File, path: Option<&event::Path>) -> File {
    // Every file has a type; a mode without one was never read.
    let known = file.mode != 0;
    File {
        path: path.map(|path| text(&path.bytes)),
        new_path: None,
        truncated: path.is_some_and(|path| path.truncated),
        op: None,
        layer: file.layer.map(|layer| match layer {
            event::Layer::Lower => Layer::Lower,
            event::Layer::Upper => Layer::Upper,
            event::Layer::New => Layer::New,
        }),
        dev: Device::from_kernel(file.dev),
        inode: Some(file.inode),
        mode: known.then(|| Mode::from_st_mode(file.mode)),
        deleted: known && file.nlink == 0,
        bytes: None,
        declared_volume: None,
    }
}

fn op(op: event::Op) -> Op {
    match op {
        event::Op::OpenWrite | event::Op::DeviceWrite => Op::OpenWrite,
        event::Op::Truncate => Op::Truncate,
        event::Op::Create => Op::Create,
        event::Op::Write => Op::Write,
        event::Op::Unlink => Op::Unlink,
        event::Op::Rmdir => Op::Rmdir,
        event::Op::Mkdir => Op::Mkdir,
        event::Op::Mknod => Op::Mknod,
        event::Op::Symlink => Op::Symlink,
        event::Op::Link => Op::Link,
        event::Op::Rename => Op::Rename,
        event::Op::Exchange => Op::Exchange,
        event::Op::Chmod => Op::Chmod,
        event::Op::Chown => Op::Chown,
        event::Op::Utimes => Op::Utimes,
        event::Op::SetXattr => Op::SetXattr,
        event::Op::RemoveXattr => Op::RemoveXattr,
        event::Op::SetCapability => Op::SetCapability,
        event::Op::SetAcl => Op::SetAcl,
        event::Op::SetFlags => Op::SetFlags,
        event::Op::CopyUp => Op::CopyUp,
        event::Op::MmapWrite => Op::MmapWrite,
        event::Op::Mount => Op::Mount,
        event::Op::Bind => Op::Bind,
        event::Op::Remount => Op::Remount,
        event::Op::MoveMount => Op::MoveMount,
        event::Op::Umount => Op::Umount,
        event::Op::PivotRoot => Op::PivotRoot,
        event::Op::Chroot => Op::Chroot,
        event::Op::MountSetattr => Op::MountSetattr,
    }
}

/// Text of bytes.
pub(super) fn text(bytes: &[u8]) -> Text {
    Text::from(bytes)
}

/// The last name of a path.
pub(super) fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
}
