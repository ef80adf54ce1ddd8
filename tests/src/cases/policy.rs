//! Exceptions: what they suppress, what is told all the same, and attacks that try to be taken for what is excepted.
//! What a sensor with a policy finds is the same in a replay.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::lab::Lab;
use super::{expectation, session};
use crate::container::{Container, Setup};
use crate::engine::DOCKER;
use crate::image::{BACKUP, BROKEN_SCRIPT, DASH, IMAGE_SCRIPT};
use crate::sensor::detector;

/// Where the exceptions of these cases let the program [`TOOL`] write.
const PLACES: &str = "/srv/places";
/// The program of the containers.
const TOOL: &str = "/usr/bin/tool";

/// An exception with this name and these conditions.
fn exception(name: &str, conditions: &str) -> String {
    format!("[[exception]]\nname = '{name}'\nreason = 'It is known.'\nowner = 'lab'\n{conditions}\n")
}

/// The exception for what [`TOOL`] does in [`PLACES`].
fn places() -> String {
    exception("places", &format!("finding = 'image_write'\npath = '{PLACES}/**'\nexe = '{TOOL}'"))
}

/// Runs a function with a sensor that has these exceptions, and compares its lines with those of a replay. Returns what
/// was suppressed: the names of the exceptions, with the last count of each.
fn with_exceptions(lab: &mut Lab, exceptions: &[String], action: impl FnOnce(&mut Lab) -> Result<()>) -> Result<Value> {
    let file = Path::new("/run/lab/policy.toml");
    fs::write(file, exceptions.concat())?;
    let arguments = ["--every-act", "--config", file.to_str().context("the path is text")?];
    let run = lab.recorded_with(&arguments, action)?;
    let mut totals = json!({});
    for line in run.expect_same()? {
        let line: Value = serde_json::from_str(&line)?;
        if line["event"] == "suppressed" {
            let (told, total) = (&line["detail"], &line["detail"]["total"]);
            ensure!(told["reason"] == "It is known." && told["owner"] == "lab", "{line}");
            totals[told["exception"].as_str().context("it has a name")?] = total.clone();
        }
    }
    Ok(totals)
}

/// The finding of a file that is created.
fn created(path: &str) -> Value {
    json!({"finding": "image_write", "file": {"op": "create", "path": path}})
}

pub(super) fn excepted(lab: &mut Lab) -> Result<()> {
    let (place, elsewhere) = (lab.place()?, lab.file()?);
    let suppressed = with_exceptions(lab, &[places()], |lab| {
        let container = lab.new_container()?;
        for name in ["one", "two"] {
            container.service_does(&["create", &format!("{place}/{name}")])?;
        }
        lab.expect_none()?;
        let status = String::from_utf8(detector(&["status"])?.stdout)?;
        ensure!(status.contains("\nexcepted  2 × places\n"), "{status}");
        // Elsewhere, by another program, and by somebody from outside.
        container.service_does(&["create", &format!("{elsewhere}-more")])?;
        container.service_does(&["run", "/bin/busybox", "touch", &format!("{place}/three")])?;
        lab.expect(&container, [created(&format!("{elsewhere}-more")), created(&format!("{place}/three"))])
    })?;
    ensure!(suppressed == json!({"places": 2}), "{suppressed}");
    Ok(())
}

/// Another program is bind-mounted over the one that may write.
pub(super) fn forged_by_mount(lab: &mut Lab) -> Result<()> {
    let (place, setup) = (lab.place()?, Setup { is_privileged: true, ..Setup::default() });
    let suppressed = with_exceptions(lab, &[places()], |lab| {
        let container = Container::service_with(lab.number(), setup)?;
        container.service_does(&["bind", BACKUP, TOOL])?;
        let path = format!("{place}/forged");
        container.service_does(&["run", TOOL, "create", &path])?;
        let mut by_other = created(&path);
        by_other["process"] = json!({"exe": TOOL});
        lab.expect(&container, [json!({"finding": "image_shadowed"}), by_other])
    })?;
    ensure!(suppressed == json!({}), "{suppressed}");
    Ok(())
}

/// The directory of another program gets the name at which a program may write.
pub(super) fn forged_by_rename(lab: &mut Lab) -> Result<()> {
    const FOLDER: &str = "/srv/trusted";
    const PROGRAM: &str = "/srv/trusted/backup";
    let (place, setup) = (lab.place()?, Setup { overlay_options: ",redirect_dir=on", ..Setup::default() });
    let conditions = format!("finding = 'image_write'\npath = '{PLACES}/**'\nexe = '{PROGRAM}'");
    let suppressed = with_exceptions(lab, &[exception("trusted", &conditions)], |lab| {
        let container = Container::service_with(lab.number(), setup)?;
        container.service_does(&["rename", "/usr/bin", FOLDER])?;
        let path = format!("{place}/forged");
        container.service_does(&["run", PROGRAM, "create", &path])?;
        let mut by_other = created(&path);
        by_other["process"] = json!({"exe": PROGRAM});
        lab.expect(&container, [json!({"finding": "image_write", "file": {"op": "rename"}}), by_other])
    })?;
    ensure!(suppressed == json!({}), "{suppressed}");
    Ok(())
}

/// A script of the image may run a shell. Another shell pretends to run such a script, whose exec has failed.
pub(super) fn script(lab: &mut Lab) -> Result<()> {
    let exceptions = [IMAGE_SCRIPT, BROKEN_SCRIPT]
        .map(|script| exception(script, &format!("finding = 'shell_in_container'\nscript = '{script}'")));
    let suppressed = with_exceptions(lab, &exceptions, |lab| {
        let container = lab.new_container()?;
        container.service_does(&["run", IMAGE_SCRIPT])?;
        lab.expect_none()?;
        let pretended = [DASH, "-c", "true", BROKEN_SCRIPT];
        container.service_does(&[&["run-failing", BROKEN_SCRIPT], &pretended[..]].concat())?;
        container.service_does(&["run", "/bin/sh", IMAGE_SCRIPT])?;
        lab.expect(
            &container,
            [
                expectation::shell("application", DASH, &pretended),
                expectation::shell("application", "/bin/busybox", &["/bin/sh", IMAGE_SCRIPT]),
            ],
        )
    })?;
    ensure!(suppressed == json!({IMAGE_SCRIPT: 1}), "{suppressed}");
    Ok(())
}

/// A command from outside is excepted, and the rest of what its session does is not.
pub(super) fn command_from_outside(lab: &mut Lab) -> Result<()> {
    let path = lab.file()?;
    let conditions = "finding = 'shell_in_container'\nvia = 'exec'\nseverity_at_most = 'medium'";
    let suppressed = with_exceptions(lab, &[exception("commands", conditions)], |lab| {
        let container = lab.new_container()?;
        container.exec(&["/bin/sh", "-c", "true"])?;
        lab.expect_none()?;
        session::only(lab, &container.id)?.expect(&json!({"severity": "info"}))?;
        container.exec(&["/bin/sh", "-c", &format!("echo >> {path}")])?;
        lab.expect(&container, [json!({"finding": "image_write", "severity": "medium"})])?;
        let told = session::ended(lab, &container.id, 2)?;
        told[1].expect(&json!({"severity": "medium"}))?;
        container.exec_tty(&["/bin/sh", "-c", "true"])?;
        lab.expect(&container, [json!({"finding": "shell_in_container", "severity": "high"})])?;
        let told = session::ended(lab, &container.id, 3)?;
        told[2].expect(&json!({"severity": "high"}))
    })?;
    ensure!(suppressed == json!({"commands": 2}), "{suppressed}");
    Ok(())
}

/// What is critical is told whatever the policy says.
pub(super) fn always_told(lab: &mut Lab) -> Result<()> {
    let shells = exception("all", "finding = ['shell_in_container', 'drifted_exec', 'fileless_exec']");
    let sessions = exception("sessions", "finding = 'session'\nvia = ['exec', 'nsenter', 'entrypoint', 'terminal']");
    let suppressed = with_exceptions(lab, &[shells, sessions], |lab| {
        let container = lab.new_container()?;
        container.service_does(&["reverse-shell", "127.0.0.1"])?;
        lab.expect(&container, [json!({"finding": "shell_in_container", "severity": "critical"})])?;
        session::only(lab, &container.id)?.expect(&json!({"severity": "critical", "summary": {"via": "socket"}}))
    })?;
    ensure!(suppressed == json!({}), "{suppressed}");
    Ok(())
}

/// Only the runtime can tell that an exception holds.
pub(super) fn by_image(lab: &mut Lab) -> Result<()> {
    lab.node.ensure(&DOCKER)?;
    let of_image = |name: &str, image: &str| {
        exception(name, &format!("finding = 'image_write'\npath = '/srv/{name}'\nimage = '{image}'"))
    };
    let exceptions = [of_image("own", "localhost/lab:*"), of_image("other", "redis:*")];
    let suppressed = with_exceptions(lab, &exceptions, |lab| {
        let container = DOCKER.service(lab.number())?;
        for name in ["own", "other"] {
            container.service_does(&["create", &format!("/srv/{name}")])?;
        }
        let found = lab.take_findings()?;
        ensure!(found.len() == 1 && found[0]["file"]["path"] == "/srv/other", "{found:?}");
        Ok(())
    })?;
    ensure!(suppressed == json!({"own": 1}), "{suppressed}");
    Ok(())
}
