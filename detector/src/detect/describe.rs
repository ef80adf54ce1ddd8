//! From the kernel's terms to those of findings: the same for all detections.

use super::{Context, Program};
use crate::container::table;
use crate::event;
use crate::finding::{
    Ancestor, Container, Device, File, Layer, Mode, Op, Origin, Pod, Process, ProcessField, Stdio, Text,
};

/// The container.
pub(super) fn container(container: &table::Container) -> Container {
    let reference = container.reference.as_ref();
    Container {
        id: reference.map(|found| text(&found.id)),
        name: None,
        runtime: reference.and_then(|found| found.runtime).map(Into::into),
        pod: reference.and_then(|found| found.pod_uid.as_ref()).map(|uid| Pod { uid: text(uid) }),
        cgroup: (!container.path.is_empty()).then(|| text(&container.path)),
        cgroup_id: container.cgroup_id,
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
        start_time: context.wall(process.start_time),
        comm: text(process.comm.as_bytes()),
        exe: exe.map(|exe| text(&exe.bytes)),
        args: args.map(|args| args.iter().map(text).collect()),
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

/// The arguments and the working directory of a remembered program.
pub(super) fn known(program: &Program) -> (&event::Args, &event::Path) {
    (&program.args, &program.cwd)
}

/// The file; `op` and `bytes` only if it was changed.
pub(super) fn file(file: &event::File, path: Option<&event::Path>, op: Option<event::Op>, bytes: Option<u64>) -> File {
    // Every file has a type; a mode without one was never read.
    let known = file.mode != 0;
    File {
        path: path.map(|path| text(&path.bytes)),
        truncated: path.is_some_and(|path| path.truncated),
        op: op.map(|op| match op {
            event::Op::OpenWrite => Op::OpenWrite,
            event::Op::Truncate => Op::Truncate,
            event::Op::Create => Op::Create,
            event::Op::Write => Op::Write,
        }),
        layer: file.layer.map(|layer| match layer {
            event::Layer::Lower => Layer::Lower,
            event::Layer::Upper => Layer::Upper,
            event::Layer::New => Layer::New,
        }),
        dev: Device::from_kernel(file.dev),
        inode: file.inode,
        mode: known.then(|| Mode::from_st_mode(file.mode)),
        deleted: known && file.nlink == 0,
        bytes,
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
