//! What a thread has asked to change on an overlay. Its first hook comes before overlayfs has looked at the
//! permissions; when overlayfs goes on to do it, it copies the file up or does the same to the file in the upper layer,
//! and passes a hook again. Only then there is a change. A thread asks for one thing at a time.

use aya_ebpf::bindings::BPF_ANY;

use super::Seen;
use crate::{
    emit,
    kernel::{file, mem::Addr, task},
    maps::PENDING,
};

/// What was asked for.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Pending {
    /// The name by which.
    pub dentry: Addr,
    /// The other name, if there are two.
    pub other: Addr,
    /// When.
    pub time: u64,
    /// One of the `OP_` constants; 0: another hook reports it.
    pub op: u32,
    /// As in the record.
    pub value: u32,
}

/// Notes it; `false`: there is no room.
#[inline(always)]
pub(super) fn ask(dentry: Addr, other: Addr, op: u32, value: u32) -> bool {
    let asked = Pending { dentry, other, time: emit::now(), op, value };
    PENDING.insert(task::current_thread(), asked, BPF_ANY.into()).is_ok()
}

/// What the running thread has asked for.
#[inline(always)]
pub(super) fn asked() -> Option<Pending> {
    // SAFETY: the value is copied at once; only this thread changes it.
    unsafe { PENDING.get(task::current_thread()).copied() }
}

/// What the running thread has asked for, if it is this `OP_` constant. It is forgotten then.
#[inline(always)]
pub(super) fn take(op: u32) -> Option<Pending> {
    let asked = asked().filter(|asked| asked.op == op)?;
    forget();
    Some(asked)
}

/// What the running thread has asked to do by this name. `content`: what is known of the file's content, so that what
/// was refused is not taken for what made the thread write later.
#[inline(always)]
pub(super) fn asked_by(dentry: Addr, content: Option<Seen>) -> Option<Pending> {
    let asked = asked()?;
    let is_old = matches!(content, Some(seen) if seen.last > asked.time);
    (!is_old && (asked.dentry == dentry || asked.other == dentry)).then_some(asked)
}

/// What the running thread has asked for, if overlayfs now does it to the file in the upper layer that has this name
/// there.
#[inline(always)]
pub(super) fn asked_above(upper: Addr) -> Option<Pending> {
    let asked = asked()?;
    (asked.op != 0 && file::upper_dentry(file::inode_at(asked.dentry)) == upper).then_some(asked)
}

/// Forgets what the running thread has asked for: it is reported, or the thread ends.
#[inline(always)]
pub fn forget() {
    let _nothing_asked = PENDING.remove(task::current_thread());
}
