//! What the live view shows a person.

use std::path::Path;

use anyhow::{Result, ensure};
use rustix::process::Signal;

use super::expectation::write;
use super::lab::Lab;
use crate::sensor::Tail;

/// Where the live view writes to.
const SHOWN: &str = "/run/lab/shown";
/// The exit code of a command that finds no daemon.
const NOT_READY: i32 = 5;

/// The daemon stops and is killed, and starts again. The live view waits for it, and says so.
pub(super) fn restarted_daemon(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    let mut tail = Tail::start(Path::new(SHOWN), &[])?;
    for (signal, says) in [
        (Signal::TERM, "the detector stopped; waiting for it\n"),
        (Signal::KILL, "the detector stopped without a word, as when it is killed; waiting for it\n"),
    ] {
        let path = lab.file()?;
        let identity = container.service_does(&["append", &path])?;
        lab.expect(&container, [write("entrypoint", "open_write", "lower", &path, &identity)])?;
        tail.wait_for(&format!("  {path} opened for writing"))?;
        let sensor = lab.take_sensor()?;
        sensor.signal(signal)?;
        tail.wait_for(says)?;
        drop(sensor);
        lab.ensure_sensor()?;
        tail.wait_for("the detector is back after ")?;
        let path = lab.file()?;
        container.service_does(&["append", &path])?;
        lab.take_findings()?;
        tail.wait_for(&format!("  {path} opened for writing"))?;
        let (code, text) = tail.interrupt()?;
        ensure!(code == 0, "the interrupted view ended with {code}: {text}");
        tail = Tail::start(Path::new(SHOWN), &[])?;
    }
    lab.take_sensor()?.stop()?;
    tail.wait_for("the detector stopped; waiting for it\n")?;
    let (code, text) = tail.interrupt()?;
    ensure!(code == NOT_READY, "interrupted while it waited, the view ended with {code}: {text}");
    lab.ensure_sensor()
}

/// Findings of severity info are hidden and counted.
pub(super) fn hidden_findings(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.container()?, lab.file()?);
    let (part, whole) = (Path::new(SHOWN), Path::new("/run/lab/shown-whole"));
    let tail = Tail::start(part, &["--container", &container.id])?;
    let all = Tail::start(whole, &["--container", &container.id, "--all"])?;
    container.exec(&["/bin/true"])?;
    all.wait_for("  session of true in container ")?;
    container.service_does(&["append", &path])?;
    lab.take_findings()?;
    let shown = tail.wait_for(&format!("  {path} opened for writing"))?;
    ensure!(!shown.contains("session of true"), "a session of severity info is shown: {shown}");
    let (code, shown) = tail.interrupt()?;
    let last = shown.lines().last().unwrap_or_default();
    ensure!(
        code == 0 && last.starts_with("lines not shown: ") && last.contains(" about findings of severity info"),
        "the view ended with {code}: {shown}"
    );
    ensure!(all.interrupt()?.0 == 0, "the view of everything failed");
    Ok(())
}
