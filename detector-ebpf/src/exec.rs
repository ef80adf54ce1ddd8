//! Programs that are executed in containers, and scripts that are about to be executed.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{Array, HashMap},
};
use detector_common::{
    map::{KeptExec, KeptExecKey},
    record::{ARGS_CAPACITY, ExecRecord, Kind, ScriptRecord},
    vocabulary::Loss,
};

use crate::{
    container,
    emit::{Draft, Stamp, count_loss},
    image::{self, interpreted},
    kernel::{Binprm, File, Task, current_cgroup_id, current_process},
    loader, mem, process,
};

/// Programs that were executed while the ring buffer was full.
#[map]
static KEPT_EXECS: HashMap<KeptExecKey, KeptExec> = HashMap::with_max_entries(1_024, 0);

/// One element, of which all bytes are zero. It is the initial value for [`KEPT_EXECS`], which is too large for the
/// stack.
#[map]
static NO_EXEC: Array<KeptExec> = Array::with_max_entries(1, 0);

/// Reports that the running task has executed a program.
#[inline(always)]
pub fn report_exec(program: Binprm) {
    let task = Task::current();
    let Some((container, origin)) = container::register_exec(task) else {
        return;
    };
    let (container, origin) = mem::forget((container, origin.number()));
    let file = program.file();
    let place = file.place();
    loader::note_exec(place.dentry);
    interpreted::note_exec();
    let inode = file.inode();
    let (stamp, cgroup) = (Stamp::take(), current_cgroup_id());
    let Some(mut draft) = Draft::<ExecRecord>::begin(Kind::Exec, stamp, cgroup, container, Loss::Exec) else {
        keep(stamp, task, container, origin, file);
        return;
    };
    let root = task.root();
    let (record, texts) = draft.parts();
    process::describe(task, origin, container, &mut record.process);
    inode.describe(inode.layer(), &mut record.file);
    mem::store(&mut record.file.is_served, place.dentry.is_served().into());
    mem::store(&mut record.file.difference, image::difference(place.dentry));
    file.describe_lower(&mut record.file.lower);
    program.copy_head(&mut record.head);
    record.is_interpreter = program.is_interpreter().into();
    record.reserved = 0;
    place.resolve(root, &mut record.path, texts);
    task.working_directory().resolve(root, &mut record.cwd, texts);
    texts.add::<ARGS_CAPACITY>(&mut record.args, |room| task.copy_arguments(room));
    if !draft.send() {
        keep(stamp, task, container, origin, file);
    }
}

/// Keeps what is needed to report which program was executed, because there is no room for a record. Only the first
/// exec of each program with the same first arguments is kept.
#[inline(always)]
fn keep(stamp: Stamp, task: Task, container: u64, origin: u32, file: File) {
    let inode = file.inode();
    let key = KeptExecKey { container, inode: inode.number(), dev: inode.device(), args: task.hash_arguments() };
    let Some(nothing) = NO_EXEC.get(0) else { return };
    if KEPT_EXECS.insert(key, nothing, BPF_NOEXIST.into()).is_err() {
        if KEPT_EXECS.get_ptr(key).is_none() {
            count_loss(Loss::KeptExecsFull);
        }
        return;
    }
    let Some(kept) = KEPT_EXECS.get_ptr_mut(key) else { return };
    // SAFETY: the pointer is to a live element that this program has just added. No other program fills it, and user
    // space does not use it until it has a time.
    let kept = unsafe { &mut *kept };
    kept.number = stamp.number;
    kept.cgroup = task.cgroup_id();
    inode.describe(inode.layer(), &mut kept.file);
    kept.file.is_served = file.dentry().is_served().into();
    process::describe(task, origin, container, &mut kept.process);
    (kept.args.len, kept.args.flags) = task.copy_arguments(&mut kept.args.bytes);
    file.dentry().name().copy_to_text(&mut kept.name);
    // SAFETY: the pointer is the one from above. The write is volatile, so that it comes after the others.
    unsafe { (&raw mut kept.time).write_volatile(stamp.time) };
}

/// Reports that the running task, which does not see the host's mounts, is about to execute a script, or a program
/// whose standard input may be a script.
#[inline(always)]
pub fn report_script(program: Binprm) {
    let task = Task::current();
    let is_script = program.is_script();
    let script = if is_script { program.file() } else { task.descriptor(0) };
    if !is_script && !interpreted::is_foreign(script.inode()) {
        return;
    }
    let Some(container) = container::of_executing(task) else { return };
    let (stamp, cgroup) = (Stamp::take(), current_cgroup_id());
    let Some(mut draft) = Draft::<ScriptRecord>::begin(Kind::Script, stamp, cgroup, container, Loss::Script) else {
        return;
    };
    let inode = script.inode();
    let (record, texts) = draft.parts();
    record.pid = current_process();
    record.is_input = u32::from(!is_script);
    inode.describe(inode.layer(), &mut record.file);
    mem::store(&mut record.file.difference, image::difference(script.dentry()));
    script.place().resolve(task.root(), &mut record.path, texts);
    // If it is not sent, the loss is counted.
    let _is_sent = draft.send();
}
