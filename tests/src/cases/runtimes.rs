//! Containers of the engines that people use: each is known by the id that its engine gives it.

use std::fs;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Lab, shell};
use crate::engine::Engine;

/// A file of the host.
const COPIED: &str = "/run/lab/copied";

pub(super) fn docker(lab: &mut Lab) -> Result<()> {
    let mut engine = Engine::docker()?;
    attacked(lab, &mut engine, "docker", "outside")
}

pub(super) fn podman(lab: &mut Lab) -> Result<()> {
    let mut engine = Engine::podman()?;
    attacked(lab, &mut engine, "podman", "entered")
}

fn write(origin: &str, op: &str, layer: &str, path: &str) -> Value {
    json!({
        "finding": "image_write",
        "process": {"origin": origin, "uid": 0},
        "file": {"op": op, "layer": layer, "path": path},
    })
}

/// What the engine itself does to make and remove containers is no finding. `copier`: the origin of what it copies into them.
fn attacked(lab: &mut Lab, engine: &mut Engine, runtime: &str, copier: &str) -> Result<()> {
    lab.expect_none()?;
    let is_of = |id: &str| json!({"id": id, "runtime": runtime});

    let web = engine.run_service("web")?;
    engine.exec("web", &["/bin/sh", "-c", "true"])?;
    engine.service_does("web", &["append", "/etc/app.conf"])?;
    fs::write(COPIED, "copied\n")?;
    engine.copy(COPIED, "web", "/etc/copied")?;
    lab.expect_in(
        &is_of(&web),
        [
            shell("entered", "/bin/sh", &["/bin/sh", "-c", "true"]),
            write("entrypoint", "open_write", "lower", "/etc/app.conf"),
            write(copier, "create", "new", "/etc/copied"),
        ],
    )?;

    let short = engine.run(&["/bin/sh", "-c", "true"])?;
    lab.expect_in(&is_of(&short), [shell("entrypoint", "/bin/sh", &["/bin/sh", "-c", "true"])])?;

    let before = lab.without_sensor(|| engine.run_service("before"))?;
    engine.exec("before", &["/bin/sh", "-c", "true"])?;
    engine.service_does("before", &["append", "/etc/app.conf"])?;
    lab.expect_in(
        &is_of(&before),
        [
            shell("entered", "/bin/sh", &["/bin/sh", "-c", "true"]),
            write("entrypoint", "open_write", "lower", "/etc/app.conf"),
        ],
    )?;
    engine.remove("before")?;
    lab.expect_none()?;

    engine.kill()?;
    engine.service_does("web", &["create", "/etc/without-engine"])?;
    lab.expect_in(&is_of(&web), [write("entrypoint", "create", "new", "/etc/without-engine")])
}
