//! Real-time scheduling for calls of bpf(2) on maps, so that no ordinary task preempts them.
//!
//! While a thread is in such a call, the kernel skips the programs of kprobes on that CPU, whichever task runs there
//! (`bpf_disable_instrumentation`, include/linux/bpf.h, and `trace_call_bpf`, kernel/trace/bpf_trace.c, 5.11 to 7.3).
//! On a preemptible kernel, the thread can be preempted in the middle of the call, and what runs on the CPU then is not
//! seen. Real-time tasks are preempted only by each other.

use std::io;
use std::sync::Once;

/// While this value lives, the thread that created it is scheduled as a real-time task, so that no ordinary task
/// preempts it.
pub(super) struct RealTime {
    /// The thread's previous scheduling policy, if it was changed.
    policy: Option<libc::c_int>,
}

impl RealTime {
    /// Makes the thread a real-time task. If the system refuses, this is logged once, and the thread stays as it is.
    #[expect(unsafe_code, reason = "rustix has no sched_getscheduler(2)")]
    pub(super) fn begin() -> Self {
        static REFUSED: Once = Once::new();
        // SAFETY: no pointer is passed; 0 is the running thread.
        let policy = unsafe { libc::sched_getscheduler(0) };
        if matches!(policy & !libc::SCHED_RESET_ON_FORK, libc::SCHED_FIFO | libc::SCHED_RR | libc::SCHED_DEADLINE) {
            return Self { policy: None };
        }
        match schedule(libc::SCHED_FIFO, 1) {
            Ok(()) => Self { policy: Some(policy) },
            Err(error) => {
                REFUSED.call_once(|| {
                    tracing::warn!(
                        %error,
                        "no real-time scheduling: kprobes can be skipped while the sensor reads its maps; grant CAP_SYS_NICE, \
                         and real-time runtime to its cgroup where the kernel divides that"
                    );
                });
                Self { policy: None }
            }
        }
    }
}

impl Drop for RealTime {
    fn drop(&mut self) {
        if let Some(policy) = self.policy
            && let Err(error) = schedule(policy, 0)
        {
            tracing::error!(%error, "the thread keeps its real-time scheduling");
        }
    }
}

/// Sets how the running thread is scheduled.
#[expect(unsafe_code, reason = "rustix has no sched_setscheduler(2)")]
fn schedule(policy: libc::c_int, priority: libc::c_int) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: 0 is the running thread; the parameters live until the call returns.
    match unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(unsafe_code, reason = "rustix has no sched_getscheduler(2)")]
    fn the_thread_is_scheduled_afterwards_as_before() {
        // SAFETY: no pointer is passed; 0 is the running thread.
        let policy = || unsafe { libc::sched_getscheduler(0) };
        let before = policy();
        let real_time = RealTime::begin();
        if real_time.policy.is_some() {
            assert_eq!(policy(), libc::SCHED_FIFO);
            // A second value leaves the scheduling to the first one.
            drop(RealTime::begin());
            assert_eq!(policy(), libc::SCHED_FIFO);
        }
        drop(real_time);
        assert_eq!(policy(), before);
    }
}
