//! Counts lost events by kind, and how many of them have been reported.

use detector_common::vocabulary::Loss;

use crate::sensor::KernelLosses;

/// The numbers of lost events since the start. They only grow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Losses {
    /// Events that the probes lost, by kind.
    pub(super) kernel: KernelLosses,
    /// Records that could not be decoded.
    pub(super) undecoded: u64,
    /// Executed files whose content could not be inspected.
    pub(super) uninspected: u64,
}

impl Losses {
    /// The increase of each count since `earlier`, by kind, without the kinds that did not increase.
    pub(super) fn since(&self, earlier: &Self) -> Vec<(Loss, u64)> {
        let kernel = Loss::ALL.iter().zip(self.kernel.iter().zip(&earlier.kernel));
        let kernel = kernel.map(|(&kind, (now, before))| (kind, now - before));
        let own = [
            (Loss::Record, self.undecoded - earlier.undecoded),
            (Loss::Content, self.uninspected - earlier.uninspected),
        ];
        kernel.chain(own).filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_loss_is_reported_once() {
        let before = Losses::default();
        assert_eq!(before.since(&before), []);
        let mut now = before;
        (now.kernel[Loss::Exec.number() as usize], now.undecoded, now.uninspected) = (3, 1, 2);
        assert_eq!(now.since(&before), [(Loss::Exec, 3), (Loss::Record, 1), (Loss::Content, 2)]);
        assert_eq!(now.since(&now), []);
    }
}
