//! Cgroups that are created and removed, and tasks that leave the cgroup of their container.

use detector_common::{
    record::{CgroupEscapeRecord, CgroupRecord, Kind, PATH_CAPACITY, Span},
    vocabulary::Loss,
};

use crate::{
    container,
    emit::{Draft, Stamp},
    kernel::{Cgroup, Str, Task},
    process,
    texts::Texts,
};

/// Reports that a cgroup was created.
#[inline(always)]
pub fn report_created(cgroup: Cgroup, path: Str) {
    container::add_cgroup(cgroup);
    report(Kind::CgroupCreated, cgroup.id(), path);
}

/// Reports that a cgroup was removed.
#[inline(always)]
pub fn report_removed(cgroup: Cgroup, path: Str) {
    let id = cgroup.id();
    container::remove_cgroup(id);
    report(Kind::CgroupRemoved, id, path);
}

#[inline(always)]
fn report(kind: Kind, id: u64, path: Str) {
    let Some(mut draft) = Draft::<CgroupRecord>::begin(kind, Stamp::take(), id, 0, Loss::Cgroup) else {
        return;
    };
    let (record, texts) = draft.parts();
    add_path(path, &mut record.path, texts);
    // If it is not sent, the loss is counted.
    let _is_sent = draft.send();
}

/// Adds the path of a cgroup. There is always enough room for it, because the kernel's own buffer is smaller
/// (`TRACE_CGROUP_PATH_LEN`, kernel/cgroup/cgroup-internal.h).
#[inline(always)]
fn add_path(path: Str, out: &mut Span, texts: &mut Texts) {
    // The NUL is not part of the text.
    texts.add::<PATH_CAPACITY>(out, |room| (path.copy_to(room).saturating_sub(1) as u32, 0));
}

/// Reports a task that the running task has moved out of its container into the cgroup with the id `to`, or has created
/// in that cgroup. `path` is the path of the cgroup, or null if the hook does not know it.
#[inline(always)]
pub fn report_escape(task: Task, to: u64, path: Str) {
    let Some(container) = container::escaped(task, to) else { return };
    let stamp = Stamp::take();
    let Some(mut draft) =
        Draft::<CgroupEscapeRecord>::begin(Kind::CgroupEscape, stamp, to, container, Loss::CgroupEscape)
    else {
        return;
    };
    let current = Task::current();
    let origin = container::register_origin(current, container);
    let (record, texts) = draft.parts();
    process::describe(current, origin.number(), container, &mut record.process);
    current.executable().place().resolve(current.root(), &mut record.exe, texts);
    record.moved = task.process();
    record.reserved = 0;
    add_path(path, &mut record.cgroup, texts);
    // If it is not sent, the loss is counted.
    let _is_sent = draft.send();
}
