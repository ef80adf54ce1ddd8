//! The account on which the memory of the probes is charged.
//!
//! Before 5.11, the kernel counts the maps and programs of BPF as locked memory of the user who makes them, which is
//! the user with the thread's real user id (`bpf_map_charge_init`, `__bpf_prog_charge`, kernel/bpf/syscall.c, 5.10). On
//! the account of root, they would take up what every other process of root may lock, and root in most containers is
//! the same user: io_uring and sending without a copy would fail there.

use rustix::io::Errno;
use rustix::thread::Uid;

use super::btf::Btf;

/// A user id that nobody has: it is in the half of the range that no system gives out, because some programs take these
/// ids for negative.
const ACCOUNT: u32 = 0xb9f0_0000;

/// Returns whether the kernel charges a user. Newer ones charge a cgroup, and do not have this struct.
pub(super) fn is_needed(kernel: &Btf) -> bool {
    kernel.struct_size("bpf_map_memory").is_ok()
}

/// Calls `make`, which makes maps and programs. If `is_needed`, their memory is charged to a user of their own.
pub(super) fn charge_apart<T: Send>(is_needed: bool, make: impl FnOnce() -> T + Send) -> T {
    if !is_needed {
        return make();
    }
    std::thread::scope(|scope| {
        let made = scope.spawn(|| {
            if let Err(error) = open_account() {
                tracing::warn!(
                    %error,
                    "the memory of the probes counts as locked memory of this user, and other programs of this user, \
                     also in containers, may fail to lock memory; grant CAP_SETUID"
                );
            }
            make()
        });
        made.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Changes the real user id of the running thread. Its privileges depend on the other ids, which stay the same.
fn open_account() -> Result<(), Errno> {
    rustix::thread::set_thread_res_uid(Uid::from_raw(ACCOUNT), None, None)
}
