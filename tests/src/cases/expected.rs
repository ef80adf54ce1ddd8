//! Acts that are expected, and attacks that look like them.

use anyhow::Result;
use serde_json::{Value, json};

use super::lab::Lab;
use crate::container::{Container, Setup};
use crate::image::DASH;

/// What the finding of an expected act says.
fn expected(reason: &str, otherwise: &str) -> Value {
    json!({"severity": "info", "expected": {"reason": reason, "otherwise": otherwise}})
}

/// What the finding of an act says that is not expected.
fn told(severity: &str) -> Value {
    json!({"severity": severity, "expected": null})
}

/// The finding of a change, with what it must say besides.
fn change(op: &str, path: &str, mut more: Value) -> Value {
    (more["finding"], more["file"]) = (json!("image_write"), json!({"op": op, "path": path}));
    more
}

/// Makes a file in a directory for data, and expects the finding about that to say this.
fn expect_of_data(lab: &mut Lab, container: &Container, path: &str, more: Value) -> Result<()> {
    container.service_does(&["create", path])?;
    lab.expect(container, [change("create", path, more)])
}

pub(super) fn data(lab: &mut Lab) -> Result<()> {
    let container = lab.new_container()?;
    container.service_does(&["create", "/tmp/data"])?;
    container.child_does(&["create", "/tmp/state"])?;
    container.service_does(&["rename", "/tmp/state", "/tmp/renamed"])?;
    container.service_does(&["mkdir", "/tmp/folder"])?;
    let scratch = || expected("scratch", "low");
    lab.expect(
        &container,
        [
            change("create", "/tmp/data", scratch()),
            change("create", "/tmp/state", scratch()),
            change("rename", "/tmp/state", scratch()),
            change("mkdir", "/tmp/folder", scratch()),
        ],
    )
}

/// Code, and what leads elsewhere, in a directory for data.
pub(super) fn no_data(lab: &mut Lab) -> Result<()> {
    let (container, of_image) = (lab.new_container()?, lab.file()?);
    container.service_does(&["create", "/tmp/app.py"])?;
    container.service_does(&["create", "/tmp/payload"])?;
    container.service_does(&["chmod-executable", "/tmp/payload"])?;
    container.service_does(&["symlink", "/tmp/symlink"])?;
    container.service_does(&["mknod", "/tmp/fifo"])?;
    container.service_does(&["link", &of_image, "/tmp/alias"])?;
    container.service_does(&["append", "/tmp/alias"])?;
    lab.expect(
        &container,
        [
            change("create", "/tmp/app.py", told("low")),
            change("create", "/tmp/payload", expected("scratch", "low")),
            change("chmod", "/tmp/payload", told("high")),
            change("symlink", "/tmp/symlink", told("low")),
            change("mknod", "/tmp/fifo", told("low")),
            change("link", &of_image, told("medium")),
            change("open_write", "/tmp/alias", told("low")),
        ],
    )
}

/// A session has changed the container, so its data is not expected any more.
pub(super) fn data_after_session(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.new_container()?, lab.file()?);
    container.exec(&["/bin/true"])?;
    expect_of_data(lab, &container, "/tmp/before", expected("scratch", "low"))?;
    container.exec_tool(&["append", &path])?;
    lab.expect(&container, [change("open_write", &path, told("medium"))])?;
    expect_of_data(lab, &container, "/tmp/after", told("low"))
}

/// A program that is not the image's has run.
pub(super) fn data_after_drift(lab: &mut Lab) -> Result<()> {
    let container = lab.new_container()?;
    container.service_does(&["copy", DASH, "/tmp/sh"])?;
    container.service_does(&["run", "/tmp/sh", "-c", "true"])?;
    lab.take_late_findings()?;
    expect_of_data(lab, &container, "/tmp/after", told("low"))
}

/// Nobody knows what was done to a container before the detector started.
pub(super) fn data_of_a_container_from_before(lab: &mut Lab) -> Result<()> {
    let container = lab.container_from_before(Setup::default())?;
    expect_of_data(lab, &container, "/tmp/data", told("low"))
}
