//! Ways of changing a file of the image. The later ones differ in the path to the file and in who does it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use anyhow::Result;
use serde_json::json;

use super::{Lab, write, write_on_host};
use crate::container::{self, EVIL_NAME};

/// Has the service do `operation` to the file at `path`: one finding.
fn once(lab: &mut Lab, operation: &str, op: &str, path: &str) -> Result<()> {
    let container = lab.container()?;
    let identity = container.service_does(&[operation, path])?;
    let layer = if op == "create" { "new" } else { "lower" };
    lab.expect(&container, [write("entrypoint", op, layer, path, &identity)])
}

pub(super) fn lower_file_once(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    let identity = container.service_does(&["append", &path])?;
    container.service_does(&["append", &path])?;
    container.service_does(&["truncate", &path])?;
    let mut finding = write("entrypoint", "open_write", "lower", &path, &identity);
    finding["container"] = json!({"runtime": "docker", "cgroup": container.cgroup});
    finding["process"]["pid"] = json!(container.pid);
    finding["process"]["ns_pid"] = json!(1);
    finding["process"]["exe"] = json!("/usr/bin/tool");
    finding["file"]["mode"] = json!("0644");
    lab.expect(&container, [finding])
}

/// Changed before the sensor came: it is no longer the image's when it is changed again.
pub(super) fn upper_file(lab: &mut Lab) -> Result<()> {
    let before = lab.take_sensor()?;
    before.stop()?;
    let (container, path) = (lab.container()?, lab.file()?);
    container.service_does(&["append", &path])?;
    lab.ensure_sensor()?;
    let identity = container.service_does(&["append", &path])?;
    lab.expect(&container, [write("entrypoint", "open_write", "upper", &path, &identity)])
}

pub(super) fn new_file(lab: &mut Lab) -> Result<()> {
    once(lab, "create", "create", "/usr/bin/miner")
}

pub(super) fn truncate(lab: &mut Lab) -> Result<()> {
    let path = lab.file()?;
    once(lab, "truncate", "truncate", &path)
}

pub(super) fn writev(lab: &mut Lab) -> Result<()> {
    let path = lab.file()?;
    once(lab, "writev", "open_write", &path)
}

pub(super) fn pwritev(lab: &mut Lab) -> Result<()> {
    let path = lab.file()?;
    once(lab, "pwritev", "open_write", &path)
}

pub(super) fn deep_path(lab: &mut Lab) -> Result<()> {
    once(lab, "append", "open_write", &container::deep_path())
}

pub(super) fn long_path(lab: &mut Lab) -> Result<()> {
    once(lab, "append", "open_write", &container::long_path())
}

pub(super) fn entered(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    let identity = container.exec_tool(&["append", &path])?;
    lab.expect(&container, [write("entered", "open_write", "lower", &path, &identity)])
}

pub(super) fn child_of_application(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    let answer = container.service_does(&["run", "/usr/bin/tool", "append", &path])?;
    let identity = serde_json::from_str(answer["stdout"].as_str().unwrap_or_default())?;
    lab.expect(&container, [write("application", "open_write", "lower", &path, &identity)])
}

/// The link copies the file up; the path is the one that was opened, the inode the one that both names have.
pub(super) fn hard_link(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    container.service_does(&["link", &path, "/tmp/alias"])?;
    let identity = container.service_does(&["append", "/tmp/alias"])?;
    lab.expect(&container, [write("entrypoint", "open_write", "upper", "/tmp/alias", &identity)])
}

pub(super) fn hostile_name(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    let identity = container.service_does(&[OsStr::new("append"), OsStr::from_bytes(EVIL_NAME)])?;
    // In a finding, a byte that is not UTF-8 and a backslash are escaped; control characters are JSON's business.
    let path = "/srv/\x1b[2J\x1b]0;owned\x07\n\\xff\\\\x";
    lab.expect(&container, [write("entrypoint", "open_write", "lower", path, &identity)])
}

pub(super) fn through_proc_self_root(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    let identity = container.service_does(&["append", &format!("/proc/self/root{path}")])?;
    lab.expect(&container, [write("entrypoint", "open_write", "lower", &path, &identity)])
}

/// As `docker cp` does.
pub(super) fn from_the_host(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    write_on_host(&container.host_path(&path))?;
    let mut finding = write("outside", "truncate", "lower", &path, &json!({}));
    finding["process"]["pid"] = json!(std::process::id());
    finding["file"] = json!({"op": "truncate", "layer": "lower", "path": path});
    lab.expect(&container, [finding])
}
