//! Overrides: which findings have another severity than that of the detector's rules, because somebody has decided so.

use serde::{Deserialize, Serialize};

use super::Conditions;
use crate::finding::Severity;

/// An override of the policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// Its name. No other override has it.
    pub name: String,
    /// Why there is this override.
    pub reason: String,
    /// The severity of the findings that it is about.
    pub severity: Severity,
    /// Which findings it is about.
    pub conditions: Conditions,
}
