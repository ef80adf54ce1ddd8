//! How often the kernel runs programs during the self-test.

use std::os::fd::OwnedFd;

use aya::sys::{Stats, enable_stats};

use crate::sensor::probes::Attached;

/// Programs whose runs the kernel counts. It counts those of all BPF programs of the host while this value lives
/// (`bpf_enable_runtime_stats`, kernel/bpf/syscall.c, from 5.8), and takes the time of each: so it must not live long.
pub(super) struct Runs<'a> {
    before: Vec<(&'a Attached, u64)>,
    _counting: OwnedFd,
}

impl<'a> Runs<'a> {
    /// Has the kernel count the runs of these programs from now on.
    ///
    /// # Errors
    ///
    /// Why it does not.
    pub(super) fn count(attached: &'a [Attached]) -> Result<Self, String> {
        let counting = enable_stats(Stats::RunTime).map_err(|e| format!("counting runs of programs: {e}"))?;
        // The administrator may have the kernel count always.
        let before = attached.iter().map(|program| Ok((program, runs(program)?))).collect::<Result<_, String>>()?;
        Ok(Self { before, _counting: counting })
    }

    /// Whether the kernel has run the program since.
    ///
    /// # Errors
    ///
    /// The kernel does not say.
    pub(super) fn has_run(&self, name: &str) -> Result<bool, String> {
        let counted = self.before.iter().find(|(program, _)| program.program == name);
        counted.map_or(Ok(false), |&(program, before)| Ok(runs(program)? > before))
    }
}

fn runs(program: &Attached) -> Result<u64, String> {
    program.runs().map_err(|e| format!("how often {} has run: {e}", program.program))
}
