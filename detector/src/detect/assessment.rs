//! The part of a finding that is decided by a detection.

use crate::finding::{File, Kind, Severity};

/// What a detection says about an event. The rest of a finding is the same for all detections.
pub(super) struct Assessment {
    pub(super) finding: Kind,
    pub(super) severity: Severity,
    pub(super) message: String,
    pub(super) file: Option<File>,
    pub(super) mitre: &'static [&'static str],
}
