//! Programs being executed.
//!
//! Both hooks fire once for each successful exec, when the new program is in place and before it runs:
//! `trace_sched_process_exec(task, old_pid, bprm)` in `exec_binprm` (fs/exec.c, 5.10 to 7.3) and
//! `finalize_exec(bprm)`, which the binary loaders call last (fs/exec.c, 5.10 to 7.3).
//!
//! Of a script, they see the interpreter. The script itself is what `security_bprm_check(bprm)` is called for before
//! (security/security.c; `search_binary_handler`, fs/exec.c, 5.10 to 7.3), once for each step of a chain of
//! interpreters.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    macros::{btf_tracepoint, kprobe},
    programs::{BtfTracePointContext, ProbeContext},
};
use detector_common::{
    map::{KeptExecKey, Loss},
    record::{ExecRecord, Kind, ScriptRecord},
};

use crate::{
    container, emit,
    kernel::{
        cgroup, file,
        mem::{self, Addr, Untyped},
        offsets::{OFF_BINPRM_BUF, OFF_BINPRM_FILE},
        path::{self, Place},
        task,
    },
    maps::{KEPT_EXECS, LOADERS, NO_EXEC, lost},
    probe_log,
};

#[btf_tracepoint(function = "sched_process_exec")]
fn exec_tp(ctx: BtfTracePointContext) -> i32 {
    probe_log!(&ctx, "exec by process {}", task::current_tgid());
    executed(ctx.arg::<u64>(2));
    0
}

#[kprobe]
fn exec_kprobe(ctx: ProbeContext) -> u32 {
    probe_log!(&ctx, "exec by process {}", task::current_tgid());
    if let Some(bprm) = ctx.arg::<u64>(0) {
        executed(bprm);
    }
    0
}

/// The running task executes what `bprm` says.
#[inline(always)]
fn executed(bprm: Addr) {
    let task = task::current();
    let Some((container, origin)) = container::of_exec(task) else {
        return;
    };
    // SAFETY: `bprm` is a `struct linux_binprm`.
    let executed: Addr = unsafe { mem::read(bprm, OFF_BINPRM_FILE.load()) };
    let (dentry, mnt) = file::path(executed);
    note_loader(dentry);
    // SAFETY: `executed` is a `struct file`.
    let inode = unsafe { file::inode::<Untyped>(executed) };
    let stamp = emit::Stamp::take();
    let Some(mut reserved) =
        emit::reserve::<ExecRecord>(Kind::Exec, stamp, cgroup::of_task(task), container, Loss::Exec)
    else {
        keep(stamp, task, container, origin, inode, dentry);
        return;
    };
    let record = reserved.as_mut_ptr();
    // SAFETY: `record` is reserved for us.
    unsafe {
        let root = task::root(task);
        (*record).file = file::identity(inode);
        task::describe(task, origin, container, container::contains, &raw mut (*record).process);
        task::arguments(task, &raw mut (*record).args);
        path::resolve(Place { dentry, mnt }, root, &raw mut (*record).path);
        path::resolve(task::cwd(task), root, &raw mut (*record).cwd);
    }
    reserved.submit(0);
}

/// There is no room for a record: keeps what is needed to tell what was executed, once for each program that is
/// called in the same way.
#[inline(always)]
fn keep(stamp: emit::Stamp, task: Addr, container: u64, origin: u32, inode: Addr, dentry: Addr) {
    // SAFETY: `inode` is one.
    let number = unsafe { file::number::<Untyped>(inode) };
    let key = KeptExecKey { container, inode: number, dev: file::device(inode), args: task::hash_of_arguments(task) };
    let Some(nothing) = NO_EXEC.get(0) else { return };
    if KEPT_EXECS.insert(key, nothing, BPF_NOEXIST.into()).is_err() {
        if KEPT_EXECS.get_ptr(key).is_none() {
            lost(Loss::KeptExecsFull);
        }
        return;
    }
    let Some(kept) = KEPT_EXECS.get_ptr_mut(key) else { return };
    // SAFETY: a live map element, which user space leaves alone until it has a time.
    unsafe {
        (*kept).number = stamp.number;
        (*kept).cgroup = cgroup::of_task(task);
        (*kept).file = file::identity(inode);
        task::describe(task, origin, container, container::contains, &raw mut (*kept).process);
        task::arguments(task, &raw mut (*kept).args);
        file::name(dentry, &raw mut (*kept).name);
        (&raw mut (*kept).time).write_volatile(stamp.time);
    }
}

/// A dynamic linker that is executed as a program maps the real program next. It is known by its name,
/// `ld-linux-….so.2`, `ld-musl-….so.1` or `ld.so`: under another name it would not be the image's.
#[inline(always)]
fn note_loader(executed: Addr) {
    let process = task::current_tgid();
    if file::is_named(executed, *b"ld-") || file::is_named(executed, *b"ld.") {
        // A full map costs the name of the program that the linker runs, not the finding that it was run.
        let _full = LOADERS.insert(process, 1, BPF_ANY.into());
    } else {
        let _none = LOADERS.remove(process);
    }
}

#[kprobe]
fn bprm_check(ctx: ProbeContext) -> u32 {
    if let Some(bprm) = ctx.arg::<u64>(0) {
        checked(bprm);
    }
    0
}

/// The running task is about to execute what `bprm` says, which may be a script.
#[inline(always)]
fn checked(bprm: Addr) {
    // SAFETY: `bprm` is a `struct linux_binprm`, whose `buf` is in it and has the first bytes of the file.
    if unsafe { mem::read::<[u8; 2]>(bprm, OFF_BINPRM_BUF.load()) } != *b"#!" {
        return;
    }
    let task = task::current();
    let Some(container) = container::of_executing(task) else { return };
    let (stamp, cgroup) = (emit::Stamp::take(), cgroup::of_task(task));
    let Some(mut reserved) = emit::reserve::<ScriptRecord>(Kind::Script, stamp, cgroup, container, Loss::Script) else {
        return;
    };
    let record = reserved.as_mut_ptr();
    // SAFETY: `bprm` is a `struct linux_binprm`; `record` is reserved for us.
    unsafe {
        let script: Addr = mem::read(bprm, OFF_BINPRM_FILE.load());
        let (dentry, mnt) = file::path(script);
        (*record).pid = task::current_tgid();
        (*record).reserved = 0;
        (*record).file = file::identity(file::inode::<Untyped>(script));
        path::resolve(Place { dentry, mnt }, task::root(task), &raw mut (*record).path);
    }
    reserved.submit(0);
}
