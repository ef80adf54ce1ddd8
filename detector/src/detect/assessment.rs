//! The part of a finding that is decided by a detection.

use crate::finding::{File, SeverityRule};

/// What a detection says about an event. The rest of a finding is the same for all detections.
pub(super) struct Assessment {
    /// The kind of finding and its severity follow from it.
    pub(super) rule: SeverityRule,
    pub(super) message: String,
    pub(super) file: Option<File>,
    pub(super) mitre: &'static [&'static str],
}
