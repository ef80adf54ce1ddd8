//! Counts how often the kernel runs programs during the self-test.

use std::os::fd::OwnedFd;

use aya::sys::{Stats, enable_stats};

use crate::sensor::probes::Attached;

/// The programs whose runs the kernel counts. While this value lives, the kernel counts the runs of all BPF programs of
/// the host (`bpf_enable_runtime_stats`, kernel/bpf/syscall.c, from 5.8) and measures the time of each run, so the
/// value must not live long.
pub(super) struct Runs<'a> {
    before: Vec<(&'a Attached, u64)>,
    _counting: OwnedFd,
}

impl<'a> Runs<'a> {
    /// Makes the kernel count the runs of these programs from now on.
    ///
    /// # Errors
    ///
    /// The kernel does not count them; the error says why.
    pub(super) fn count(attached: &'a [Attached]) -> Result<Self, String> {
        let counting = enable_stats(Stats::RunTime).map_err(|e| format!("counting runs of programs: {e}"))?;
        // The counts may not begin at 0, because the administrator may have made the kernel count all the time.
        let before = attached.iter().map(|program| Ok((program, runs(program)?))).collect::<Result<_, String>>()?;
        Ok(Self { before, _counting: counting })
    }

    /// Whether the kernel has run the program since then.
    ///
    /// # Errors
    ///
    /// The kernel does not report the number of runs.
    pub(super) fn has_run(&self, name: &str) -> Result<bool, String> {
        let counted = self.before.iter().find(|(program, _)| program.program == name);
        counted.map_or(Ok(false), |&(program, before)| Ok(runs(program)? > before))
    }
}

fn runs(program: &Attached) -> Result<u64, String> {
    program.runs().map_err(|e| format!("how often {} has run: {e}", program.program))
}
