//! Counts lost events by kind, and how many of them have been reported.

use std::collections::BTreeMap;

use detector_common::vocabulary::Loss;

use crate::sensor::KernelLosses;

/// The numbers of lost events since the start. They only grow.
#[derive(Clone, Debug, Default)]
pub(super) struct Losses {
    /// Events that the probes lost, by kind.
    pub(super) kernel: KernelLosses,
    /// Records that could not be decoded.
    pub(super) undecoded: u64,
    /// What the analysis has lost, by kind.
    pub(super) analysis: BTreeMap<Loss, u64>,
}

impl Losses {
    /// The increase of each count since `earlier`, by kind, without the kinds that did not increase.
    pub(super) fn since(&self, earlier: &Self) -> Vec<(Loss, u64)> {
        let kernel = Loss::ALL.iter().zip(self.kernel.iter().zip(&earlier.kernel));
        let kernel = kernel.map(|(&kind, (now, before))| (kind, now - before));
        let analysis = self.analysis.iter();
        let analysis = analysis.map(|(&kind, now)| (kind, now - earlier.analysis.get(&kind).unwrap_or(&0)));
        let undecoded = (Loss::Record, self.undecoded - earlier.undecoded);
        kernel.chain([undecoded]).chain(analysis).filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_loss_is_reported_once() {
        let before = Losses::default();
        assert_eq!(before.since(&before), []);
        let mut now = before.clone();
        (now.kernel[Loss::Exec.number() as usize], now.undecoded) = (3, 1);
        now.analysis.insert(Loss::Content, 2);
        assert_eq!(now.since(&before), [(Loss::Exec, 3), (Loss::Record, 1), (Loss::Content, 2)]);
        assert_eq!(now.since(&now), []);
    }
}
