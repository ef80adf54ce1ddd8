//! The state of the hooks on this host.

use super::host::Host;
use super::plan::{Attach, Hook, Need};

/// The state of one hook.
#[derive(Clone, Debug)]
pub struct HookReport {
    /// The hook.
    pub hook: &'static Hook,
    /// Whether and how it is attached.
    pub attachment: Attachment,
    /// The ways to attach it that do not work here, each with the reason.
    pub refused: Vec<(Attach, String)>,
    /// Whether one of them does not work for lack of privileges.
    pub is_denied: bool,
    /// The self-test's result: whether the hook was seen to fire. `None` if the self-test does not reach it, or could
    /// not run.
    pub verified: Option<bool>,
}

impl HookReport {
    /// The reasons why ways to attach it were refused, in one line.
    pub fn refusals(&self) -> String {
        let reasons: Vec<_> = self.refused.iter().map(|(attach, why)| format!("{attach}: {why}")).collect();
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
        /// How the program is attached.
        attach: Attach,
        /// Whether, on this kernel, calls can be missed while the program is preempted.
        blindable: bool,
    },
    /// Not attached.
    Missing,
    /// Not attached, because this kernel does not have the function and needs no hook for it.
    Absent,
}

/// What the sensor can see on this host.
#[derive(Clone, Debug)]
pub struct Report {
    /// The facts about the host.
    pub host: Host,
    /// The report on each hook.
    pub hooks: Vec<HookReport>,
    /// The result of the self-test. `Err` says why it could not run.
    pub selftest: Result<(), String>,
    /// Whether the probes know of every container that is watched. `Err` says why not.
    pub unwatching: Result<(), String>,
}

impl Report {
    /// Whether every hook is attached and, if the self-test could run, was seen to fire.
    pub fn is_complete(&self) -> bool {
        self.hooks.iter().all(|hook| hook.attachment != Attachment::Missing && hook.verified != Some(false))
    }

    /// What is not detected, and why, one sentence each.
    pub fn undetected(&self) -> Vec<String> {
        let of_hook = |report: &HookReport| {
            let Hook { name, purpose, .. } = report.hook;
            match report.attachment {
                Attachment::Missing => Some(format!(
                    "hook {name} is not attached, so this is not detected: {purpose} ({})",
                    report.refusals()
                )),
                Attachment::Attached { attach, .. } if report.verified == Some(false) => Some(format!(
                    "hook {name} ({attach}) was not seen to fire in the self-test, so this may not be detected: \
                    {purpose}"
                )),
                Attachment::Attached { .. } | Attachment::Absent => None,
            }
        };
        self.hooks.iter().filter_map(of_hook).chain(self.untested()).chain(self.unsent()).collect()
    }

    /// What is not detected because the probes do not know of every container that is watched, in a sentence.
    fn unsent(&self) -> Option<String> {
        let why = self.unwatching.as_ref().err()?;
        Some(format!(
            "the probes do not know that containers are watched again, so changes of the files of these are not \
            detected: {why}"
        ))
    }

    /// Why it is not known whether the hooks fire, in a sentence. `None` if the self-test could run.
    pub fn untested(&self) -> Option<String> {
        let why = self.selftest.as_ref().err()?;
        Some(format!("the self-test could not run, so it is not known whether the hooks fire: {why}"))
    }

    /// Whether an essential hook is missing or does not fire.
    pub fn is_blind(&self) -> bool {
        self.hooks.iter().any(|report| {
            report.hook.need == Need::Essential
                && (report.attachment == Attachment::Missing || report.verified == Some(false))
        })
    }
}
