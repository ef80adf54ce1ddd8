//! What `detector doctor` says of a host. No sensor runs meanwhile.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::lab::Lab;
use crate::sensor::detector;

/// The self-test proves that each hook fires which this kernel has.
pub(super) fn every_hook_is_proven(_: &mut Lab) -> Result<()> {
    let output = detector(&["doctor", "--json"])?;
    let report: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("doctor: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)))?;
    let hooks = report["hooks"].as_array().context("doctor reports no hooks")?;
    let unproven: Vec<_> = hooks.iter().filter(|hook| hook["absent"] != true && hook["verified"] != true).collect();
    ensure!(
        !hooks.is_empty() && unproven.is_empty(),
        "not proven by the self-test ({}): {unproven:#?}",
        report["selftest_error"]
    );
    let verdict = report["verdict"].as_str().unwrap_or_default();
    ensure!(verdict.starts_with("complete: this host can see all that the detector looks for"), "it says {verdict}");
    Ok(())
}
