//! Containers of the engines that nodes have: their metadata, whenever they start and whether or not the daemon runs.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::expectation::{difference, shell};
use super::lab::Lab;
use crate::engine::disk::DISK;
use crate::engine::{CRI, Container, DOCKER, Engine, FOLDER, PODMAN, ROOTLESS};
use crate::program::{on_host, wait_for};

/// The command of a container that lives for 50 ms.
const SHORT: &[&str] = &["/bin/sh", "-c", "sleep 0.05"];

/// The command of the service in a container with systemd.
const SERVICE_SCRIPT: &str = "echo > /etc/of-a-service";

/// How long an engine may take until its answer is in a finding.
const PATIENCE: Duration = Duration::from_secs(90);

/// The expected finding of a change.
fn change(origin: &str, op: &str, path: &str, layer: &str) -> Value {
    json!({
        "finding": "image_write",
        "process": {"origin": origin},
        "file": {"op": op, "path": path, "layer": layer},
    })
}

/// Expects exactly these findings in this order, with these fields of their container.
fn expect(lab: &mut Lab, engine: &Engine, container: &Value, expected: impl Into<Vec<Value>>) -> Result<()> {
    let (mut found, expected) = (Vec::new(), expected.into());
    // The engine's `start` returns before the container's program is executed.
    wait_for("as many findings", PATIENCE, || {
        found.append(&mut lab.take_findings()?);
        Ok((found.len() >= expected.len()).then_some(()))
    })?;
    ensure!(found.len() == expected.len(), "{} findings came instead of {}", found.len(), expected.len());
    for (found, mut expected) in found.iter_mut().zip(expected) {
        if let Some(path) = engine.left
            && found["file"]["path"].as_str().is_some_and(|found| found.starts_with(path))
        {
            found["file"]["path"] = json!(path);
        }
        expected["container"] = container.clone();
        if expected["process"]["origin"] != "outside" {
            expected["process"]["uid"] = json!(engine.uid());
        }
        if let Some(difference) = difference(found, &expected) {
            anyhow::bail!("{difference}\nexpected: {expected}\nfound: {found}");
        }
    }
    Ok(())
}

/// Everything that findings say about a container if its engine answers.
fn known(container: &Container) -> Result<Value> {
    let mut known = container.identity();
    if let (Some(known), Value::Object(mut more)) = (known.as_object_mut(), container.description()?) {
        known.append(&mut more);
    }
    Ok(known)
}

/// Like [`expect`], for a container whose metadata is in a finding or in a later notice.
fn expect_known(lab: &mut Lab, container: &Container, expected: impl Into<Vec<Value>>) -> Result<()> {
    expect(lab, container.engine, &container.identity(), expected)?;
    wait_for_metadata(lab, &known(container)?)
}

/// Waits until a line has what is known of a container.
fn wait_for_metadata(lab: &mut Lab, known: &Value) -> Result<()> {
    wait_for("what the engine tells of the container", PATIENCE, || {
        lab.expect_none()?;
        let mut told = lab.history.iter().flat_map(|line| [&line["container"], &line["detail"]["container"]]);
        Ok(told.any(|container| difference(container, known).is_none()).then_some(()))
    })
}

/// A shell and a change by the application.
fn broken_into(container: &Container) -> Result<[Value; 2]> {
    container.service_does(&["run", "/bin/sh", "-c", "true"])?;
    container.service_does(&["append", "/etc/app.conf"])?;
    Ok([
        shell("application", "/bin/busybox", &["/bin/sh", "-c", "true"]),
        change("entrypoint", "open_write", "/etc/app.conf", "lower"),
    ])
}

/// A shell by the engine's `exec`.
fn entered(container: &Container) -> Result<Value> {
    ensure!(container.exec(&["/bin/sh", "-c", "echo in"])? == "in\n");
    Ok(shell("entered", "/bin/busybox", &["/bin/sh", "-c", "echo in"]))
}

fn attacked(lab: &mut Lab, engine: &'static Engine) -> Result<()> {
    lab.node.ensure(engine)?;
    let container = engine.service(lab.number())?;
    let ([shell, change], entered) = (broken_into(&container)?, entered(&container)?);
    expect_known(lab, &container, [shell, change, entered])
}

fn from_before(lab: &mut Lab, engine: &'static Engine) -> Result<()> {
    lab.node.ensure(engine)?;
    let number = lab.number();
    let container = lab.without_sensor(|_| engine.service(number))?;
    let ([shell, change], entered) = (broken_into(&container)?, entered(&container)?);
    expect_known(lab, &container, [shell, change, entered])
}

fn short_lived(lab: &mut Lab, engine: &'static Engine) -> Result<()> {
    lab.node.ensure(engine)?;
    let container = engine.start(lab.number(), SHORT)?;
    expect_known(lab, &container, [shell("entrypoint", "/bin/busybox", SHORT)])
}

/// The sensor does not run while a container lives. When it asks, the engine knows only that it made the container.
fn removed(lab: &mut Lab, engine: &'static Engine) -> Result<()> {
    const ENDED: &str = "ended";
    lab.node.ensure(engine)?;
    let script = ["/bin/sh", "-c", &format!("echo > /data/{ENDED}")];
    lab.sensor()?.signal(Signal::STOP)?;
    let container = engine.start(lab.number(), &script)?;
    wait_for("the end of the script", PATIENCE, || Ok(container.volume().join(ENDED).exists().then_some(())))?;
    let (identity, mut known) = (container.identity(), known(&container)?);
    drop(container);
    lab.sensor()?.signal(Signal::CONT)?;
    expect(lab, engine, &identity, [shell("entrypoint", "/bin/busybox", &script)])?;
    known["image"]["digest"] = Value::Null;
    wait_for_metadata(lab, &known)
}

/// The whole life of a container, with programs that are no shells, and with mounts of the engine over image files.
fn silent(lab: &mut Lab, engine: &'static Engine) -> Result<()> {
    lab.node.ensure(engine)?;
    let container = engine.service(lab.number())?;
    container.service_does(&["harmless"])?;
    for path in ["/etc/hosts", "/etc/hostname"] {
        container.service_does(&["append", path])?;
    }
    container.exec(&["/bin/true"])?;
    drop(container);
    lab.expect_none()
}

fn copied_to(lab: &mut Lab, engine: &'static Engine) -> Result<()> {
    lab.node.ensure(engine)?;
    let container = engine.service(lab.number())?;
    fs::write("/tmp/added", "from the host\n")?;
    container.copy("/tmp/added", "/srv/added")?;
    ensure!(container.exec(&["/bin/cat", "/srv/added"])? == "from the host\n");
    let left = engine.left.map(|path| change(engine.copier, "mkdir", path, "new"));
    let added = change(engine.copier, "create", "/srv/added", "new");
    expect_known(lab, &container, left.into_iter().chain([added]).collect::<Vec<_>>())
}

/// A step of a build adds programs, runs them and changes an account.
fn build_step(lab: &mut Lab, engine: &'static Engine) -> Result<()> {
    const LINE: &str = "for name in a b c d e f g h i j k l; do echo $name > /srv/$name; /bin/sh -c \"true $name\"; \
        cp /bin/busybox /usr/bin/$name; /usr/bin/$name; done; echo evil >> /etc/passwd";
    lab.node.ensure(engine)?;
    let run = lab.counted(|_| engine.build(LINE))?;
    let lines: Vec<Value> =
        run.expect_same()?.iter().map(|line| serde_json::from_str(line)).collect::<Result<_, _>>()?;
    let is_of_step =
        |line: &&Value| line["container"]["runtime"] == json!(engine.builder) && line["finding"].is_string();
    let mut last: Vec<&Value> = Vec::new();
    for line in lines.iter().filter(is_of_step) {
        match last.iter_mut().find(|earlier| earlier["id"] == line["id"]) {
            Some(earlier) => *earlier = line,
            None => last.push(line),
        }
    }
    let told: Vec<_> = last.iter().map(|line| json!([line["finding"], line["severity"]])).collect();
    // The first shells are expected at the start of a container, but not those after a program that is not the image's.
    let expected = [["shell_in_container", "medium"], ["image_write", "high"], ["drifted_exec", "high"]];
    ensure!(told == expected.map(|kind| json!(kind)), "the findings are {last:?}");
    for (line, count) in last.iter().zip([13, 25, 12]) {
        ensure!(line["repeated"]["count"] == count, "not {count} times: {line}");
        ensure!(line["repeated"]["by"] == json!(["/bin/sh", "-c", LINE]), "not by the step: {line}");
        let message = line["message"].as_str().unwrap_or_default();
        ensure!(message.contains(", in a step of a build that runs /bin/sh -c for name in a b c"), "{message}");
    }
    Ok(())
}

/// The steps of a build are containers that change an image, so they have findings.
fn built(lab: &mut Lab, engine: &'static Engine) -> Result<()> {
    lab.node.ensure(engine)?;
    engine.build("echo 'mode = built' > /etc/app.conf")?;
    let script = ["/bin/sh", "-c", "echo 'mode = built' > /etc/app.conf"];
    let container = json!({"runtime": engine.builder});
    let shell = shell("entrypoint", "/bin/busybox", &script);
    expect(lab, engine, &container, [shell, change("entrypoint", "truncate", "/etc/app.conf", "lower")])
}

/// Metadata stays known after the engine stopped. If the engine does not run when the sensor starts, the metadata
/// arrives once it runs.
fn without_socket(lab: &mut Lab, engine: &'static Engine) -> Result<()> {
    lab.node.ensure(engine)?;
    let container = engine.service(lab.number())?;
    let entered = entered(&container)?;
    expect_known(lab, &container, [entered])?;
    let known = known(&container)?;
    lab.node.kill(engine)?;
    let findings = broken_into(&container)?;
    expect(lab, engine, &known, findings)?;
    lab.without_sensor(|_| Ok(()))?;
    container.service_does(&["create", "/srv/made"])?;
    expect(lab, engine, &container.identity(), [change("entrypoint", "create", "/srv/made", "new")])?;
    lab.node.ensure(engine)?;
    expect_known(lab, &container, [])
}

/// This engine never answers.
fn hanging(lab: &mut Lab, engine: &'static Engine) -> Result<()> {
    lab.node.ensure(engine)?;
    let container = engine.service(lab.number())?;
    lab.node.signal(engine, Signal::STOP)?;
    let found = lab.without_sensor(|_| Ok(())).and_then(|()| {
        let findings = broken_into(&container)?;
        expect(lab, engine, &container.identity(), findings)
    });
    lab.node.signal(engine, Signal::CONT)?;
    found?;
    expect_known(lab, &container, [])
}

/// The daemon is killed and started again while a container keeps changing its image.
fn restarted_under_load(lab: &mut Lab, engine: &'static Engine) -> Result<()> {
    lab.node.ensure(engine)?;
    let container = engine.service(lab.number())?;
    let is_over = AtomicBool::new(false);
    let made = thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut made = Vec::new();
            while !is_over.load(Relaxed) {
                let path = format!("/srv/made-{}", made.len());
                container.service_does(&["create", &path])?;
                made.push(path);
            }
            anyhow::Ok(made)
        });
        let restarted = lab.node.kill(engine).and_then(|()| lab.node.ensure(engine));
        is_over.store(true, Relaxed);
        restarted.and(load.join().expect("it does not panic"))
    })?;
    let changes = made.iter().map(|path| change("entrypoint", "create", path, "new"));
    let expected: Vec<_> = changes.chain([entered(&container)?]).collect();
    expect(lab, engine, &container.identity(), expected)
}

/// The container runs a whole system, whose manager makes cgroups in that of the container and starts a service in one.
pub(super) fn podman_with_systemd(lab: &mut Lab) -> Result<()> {
    lab.node.ensure(&PODMAN)?;
    let unit = format!("{FOLDER}/lab.service");
    fs::write(&unit, format!("[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/bin/sh -c '{SERVICE_SCRIPT}'\n"))?;
    let volume = format!("{unit}:/etc/systemd/system/lab.service:ro");
    let run = ["run", "--detach", "--network=none", "--systemd=always", "--volume", &volume];
    // The disk with the engines also has systemd.
    let image = format!("{DISK}:O");
    let system = ["--rootfs", &image, "/lib/systemd/systemd", "--unit=lab.service"];
    let id = on_host("podman", run.iter().chain(&system))?;
    let id = id.trim();
    let container = json!({"id": id, "runtime": "podman"});
    let expected = [
        shell("application", "/bin/dash", &["/bin/sh", "-c", SERVICE_SCRIPT]),
        change("application", "create", "/etc/of-a-service", "new"),
    ];
    let found = wait_for("the findings of the service", PATIENCE, || {
        // These include the findings of the manager, which changes its root when it starts.
        lab.take_findings()?;
        let found = expected.iter().map(|expected| {
            lab.history.iter().find(|found| {
                difference(found, expected).is_none() && difference(&found["container"], &container).is_none()
            })
        });
        Ok(found.map(Option::<&Value>::cloned).collect::<Option<Vec<_>>>())
    })?;
    // Without time for a clean shutdown: on a slow machine it ends just when Podman has lost patience, and fails then.
    on_host("podman", ["rm", "--force", "--time=0", id])?;
    lab.take_findings()?;
    for found in found {
        let cgroup = found["container"]["cgroup"].as_str().unwrap_or_default();
        ensure!(cgroup.ends_with(&format!("/libpod-{id}")), "findings have the cgroup {cgroup}");
    }
    Ok(())
}

/// The answers of an engine are in a recording, whether they come before the findings or after them.
fn recorded(lab: &mut Lab, engine: &'static Engine) -> Result<()> {
    lab.node.ensure(engine)?;
    let numbers = [lab.number(), lab.number()];
    let before = lab.without_sensor(|_| engine.service(numbers[0]))?;
    let run = lab.recorded(|lab| {
        let attack = |lab: &mut Lab, container: &Container| {
            let ([shell, change], entered) = (broken_into(container)?, entered(container)?);
            expect_known(lab, container, [shell, change, entered])
        };
        attack(lab, &before)?;
        attack(lab, &engine.service(numbers[1])?)
    })?;
    let known = known(&before)?;
    let expected = run.expect_same()?;
    let lines = expected.iter().map(|line| serde_json::from_str(line)).collect::<Result<Vec<Value>, _>>()?;
    let mut told = lines.iter().flat_map(|line| [&line["container"], &line["detail"]["container"]]);
    ensure!(told.any(|container| difference(container, &known).is_none()), "no answer is in a line");
    Ok(())
}

macro_rules! engines {
    ($($engine:expr => $($function:ident: $case:ident),+;)+) => {
        $($(pub(super) fn $function(lab: &mut Lab) -> Result<()> {
            $case(lab, &$engine)
        })+)+
    };
}

engines! {
    DOCKER =>
        docker: attacked, docker_from_before: from_before, docker_short_lived: short_lived, docker_removed: removed,
        docker_silent: silent,
        docker_copied_to: copied_to, docker_built: built, docker_build_step: build_step,
        docker_without_socket: without_socket,
        docker_hanging: hanging, docker_restarted: restarted_under_load, docker_recorded: recorded;
    CRI =>
        cri: attacked, cri_from_before: from_before, cri_short_lived: short_lived, cri_silent: silent,
        cri_without_socket: without_socket, cri_hanging: hanging, cri_restarted: restarted_under_load;
    PODMAN =>
        podman: attacked, podman_from_before: from_before, podman_short_lived: short_lived, podman_removed: removed,
        podman_silent: silent,
        podman_copied_to: copied_to, podman_built: built, podman_build_step: build_step,
        podman_without_socket: without_socket,
        podman_hanging: hanging, podman_restarted: restarted_under_load;
    ROOTLESS =>
        rootless: attacked, rootless_from_before: from_before, rootless_short_lived: short_lived,
        rootless_silent: silent, rootless_copied_to: copied_to,
        rootless_without_socket: without_socket, rootless_hanging: hanging, rootless_restarted: restarted_under_load;
}
