//! What is on a volume before its container starts, and what is data there.

use anyhow::Result;
use serde_json::{Value, json};

use super::expectation::{compare, shell};
use super::lab::Lab;
use crate::container::{Container, OLD_LIBRARY, OLD_PROGRAM, Setup};
use crate::image::DASH;
use crate::root::Root;

/// Programs and libraries that were on the volume before are no surprise, and nothing that is read as data is one.
pub(super) fn old_programs_and_data(lab: &mut Lab) -> Result<()> {
    let setup = Setup { root: Root::OverlayOnBtrfs, has_old_programs: true, ..Setup::default() };
    let container = Container::service_with(lab.number(), setup)?;
    for name in ["rows", "page.html", "page.js"] {
        let path = format!("/data/{name}");
        container.service_does(&["script", &path, "unused\n"])?;
        container.service_does(&["run", "/bin/cat", &path])?;
        container.service_does(&["run-with-input", &path, "/bin/cat"])?;
    }
    container.service_does(&["create", "/data/base"])?;
    container.service_does(&["look", "/data/base"])?;
    container.service_does(&["run", OLD_PROGRAM, "run", "/bin/true"])?;
    let reads = "read line < /data/rows";
    container.service_does(&["run-preloaded", OLD_LIBRARY, DASH, "-c", reads])?;
    let old = |path: &str, mitre: Value| {
        json!({
            "finding": "volume_exec",
            "severity": "low",
            "mitre": mitre,
            "file": {"path": path, "layer": null, "op": null},
        })
    };
    let (program, library) = (old(OLD_PROGRAM, Value::Null), old(OLD_LIBRARY, json!(["T1129"])));
    let expected = [program, shell("application", DASH, &[DASH, "-c", reads]), library];
    compare(&lab.take_late_findings()?, &container.identity(), &expected)
}
