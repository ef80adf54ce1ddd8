//! `test_alert`: somebody asks for a finding, to see that findings arrive where they should. Nothing has happened.
//!
//! **Severity**: what is asked for.

use serde::{Deserialize, Serialize};

use super::assessment::Assessment;
use crate::finding::{Severity, SeverityRule};

/// A finding that somebody asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TestAlert {
    /// Its severity.
    pub(crate) severity: Severity,
    /// The user who asks, and the id of the process, if the kernel tells it.
    pub(crate) user: u32,
    pub(crate) pid: Option<i32>,
}

pub(super) fn assess(TestAlert { severity: _, user, pid }: TestAlert) -> Assessment {
    let process = pid.map_or_else(String::new, |pid| format!(" with process {pid}"));
    Assessment {
        rule: SeverityRule::TestAlert,
        message: format!("this is a test, nothing has happened: user {user} has run `detector test-alert`{process}"),
        file: None,
        mitre: &[],
    }
}
