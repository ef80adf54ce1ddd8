//! What became of the hooks on this host.

use super::host::Host;
use super::plan::{Attach, Hook, Need};

/// What became of one hook.
#[derive(Clone, Debug)]
pub struct HookReport {
    /// The hook.
    pub hook: &'static Hook,
    /// Whether and how it is attached.
    pub attachment: Attachment,
    /// The ways that do not work here, with the reason.
    pub refused: Vec<(Attach, String)>,
    /// The self-test's result: seen, not seen. `None`: the self-test does not reach it, or could not run.
    pub verified: Option<bool>,
}

impl HookReport {
    /// The reasons why ways were refused, in one line.
    pub fn refusals(&self) -> String {
        let reasons: Vec<_> =
            self.refused.iter().map(|(attach, why)| format!("{} {}: {why}", attach.kind(), attach.target())).collect();
        reasons.join("; ")
    }
}

/// Whether and how a hook is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// Attached.
    Attached {
        /// The program.
        program: &'static str,
        /// How.
        attach: Attach,
        /// On this kernel, calls can be missed while the program is preempted.
        blindable: bool,
    },
    /// Not attached.
    Missing,
    /// Not attached: this kernel does not have the function, and needs no hook for it.
    Absent,
}

/// What this host can see.
#[derive(Clone, Debug)]
pub struct Report {
    /// Facts of the host.
    pub host: Host,
    /// Each hook.
    pub hooks: Vec<HookReport>,
    /// How the self-test went: `Err` says why it could not run.
    pub selftest: Result<(), String>,
}

impl Report {
    /// Whether every hook is attached and, where the self-test could run, proven to fire.
    pub fn is_complete(&self) -> bool {
        self.hooks.iter().all(|hook| hook.attachment != Attachment::Missing && hook.verified != Some(false))
    }

    /// Whether an essential hook is missing or does not fire.
    pub fn is_blind(&self) -> bool {
        self.hooks.iter().any(|report| {
            report.hook.need == Need::Essential
                && (report.attachment == Attachment::Missing || report.verified == Some(false))
        })
    }
}
