//! Acts that are expected, and attacks that look like them.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::expectation::difference;
use super::lab::Lab;
use crate::container::{Container, Setup};
use crate::engine::{self, CRI, DOCKER, PODMAN};
use crate::image::{DASH, SCRIPT};
use crate::program::{on_host, wait_for};

/// How long a health check and its report can take.
const PATIENCE: Duration = Duration::from_secs(120);

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
    container.service_does(&["bind-socket", "/tmp/socket"])?;
    let scratch = || expected("scratch", "low");
    lab.expect(
        &container,
        [
            change("create", "/tmp/data", scratch()),
            change("create", "/tmp/state", scratch()),
            change("rename", "/tmp/state", scratch()),
            change("mkdir", "/tmp/folder", scratch()),
            change("mknod", "/tmp/socket", scratch()),
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

/// The finding about the container's entrypoint, which is a shell.
fn entrypoint() -> Value {
    json!({"finding": "shell_in_container", "severity": "info", "process": {"origin": "entrypoint"}, "expected": null})
}

/// The entrypoint writes its configuration, and so does a child of it, before the service listens. The service does the
/// same afterwards.
pub(super) fn start_up(lab: &mut Lab) -> Result<()> {
    let lines = "echo 'mode = fast' >> /etc/app.conf; /bin/sh -c 'echo 1 > /etc/worker.conf'; exec /usr/bin/tool serve";
    let container = Container::service_after(lab.number(), lines)?;
    container.service_does(&["create", "/etc/late.conf"])?;
    container.child_does(&["create", "/etc/later.conf"])?;
    let startup = || expected("startup", "medium");
    let mut shell = startup();
    (shell["finding"], shell["process"]) = (json!("shell_in_container"), json!({"origin": "application"}));
    lab.expect(
        &container,
        [
            entrypoint(),
            change("open_write", "/etc/app.conf", startup()),
            shell,
            change("create", "/etc/worker.conf", startup()),
            change("create", "/etc/late.conf", told("medium")),
            change("create", "/etc/later.conf", told("medium")),
        ],
    )
}

/// Waits for a connection to port 7000, which is 1B58, then writes a configuration.
const ANSWER: &str = "/bin/busybox nc -l -p 7000; echo 1 > /etc/late.conf; exec /usr/bin/tool serve";
/// Connects to what waits for that.
const CALL: &str = "until /bin/busybox nc 127.0.0.1 7000; do sleep 1; done";

/// The entrypoint connects to a process of its own before it writes its configuration.
pub(super) fn own_connection(lab: &mut Lab) -> Result<()> {
    let container = Container::service_after(lab.number(), &format!("({CALL}) & {ANSWER}"))?;
    lab.expect(&container, [entrypoint(), change("create", "/etc/late.conf", expected("startup", "medium"))])
}

/// The same, if the connection can come from somebody else who is in the same network.
pub(super) fn connection_in_shared_network(lab: &mut Lab) -> Result<()> {
    let late = || change("create", "/etc/late.conf", told("medium"));
    let container = Container::start(lab.number(), &["/bin/sh", "-c", ANSWER])?;
    let beside = Setup { network_of: Some(container.pid), ..Setup::default() };
    let caller = Container::service_with(lab.number(), beside)?;
    let sockets = ["tcp", "tcp6"].map(|kind| format!("/proc/{}/net/{kind}", container.pid));
    let waits = || sockets.iter().any(|path| std::fs::read_to_string(path).is_ok_and(|list| list.contains(":1B58 ")));
    wait_for("what waits", PATIENCE, || Ok(waits().then_some(())))?;
    caller.service_does(&["run", "/bin/busybox", "nc", "127.0.0.1", "7000"])?;
    container.wait_for_service()?;
    lab.expect(&container, [entrypoint(), late()])?;
    on_host("/bin/busybox", ["ip", "link", "set", "lo", "up"])?;
    let of_host = Setup { network_of: Some(1), ..Setup::default() };
    let container = Container::service_after_with(lab.number(), &format!("({CALL}) & {ANSWER}"), of_host)?;
    lab.expect(&container, [entrypoint(), late()])
}

/// A program, a credential and a script are written before the service listens.
pub(super) fn code_at_start(lab: &mut Lab) -> Result<()> {
    let lines = "/usr/bin/tool copy /usr/bin/backup /srv/added; echo evil >> /etc/passwd; \
        echo 'echo 1' > /srv/run.sh; exec /usr/bin/tool serve";
    let container = Container::service_after(lab.number(), lines)?;
    lab.expect(
        &container,
        [
            entrypoint(),
            change("create", "/srv/added", told("high")),
            change("open_write", "/etc/passwd", told("high")),
            change("create", "/srv/run.sh", told("medium")),
        ],
    )
}

/// Somebody comes in before the service listens. What he does is told, and so is what the entrypoint does from then on.
pub(super) fn session_at_start(lab: &mut Lab) -> Result<()> {
    const LINES: &str = "until [ -e /data/go ]; do sleep 1; done; echo 1 >> /etc/app.conf; exec /usr/bin/tool serve";
    let go_on = |container: &Container| {
        std::fs::write(container.host_path("/data/go"), "")?;
        container.wait_for_service()
    };
    let own = change("open_write", "/etc/app.conf", told("medium"));
    let container = Container::start(lab.number(), &["/bin/sh", "-c", LINES])?;
    container.exec_tool(&["create", "/etc/evil.conf"])?;
    go_on(&container)?;
    let by_session = change("create", "/etc/evil.conf", told("high"));
    lab.expect(&container, [entrypoint(), by_session, own.clone()])?;
    // He changes nothing.
    let container = Container::start(lab.number(), &["/bin/sh", "-c", LINES])?;
    container.exec(&["/bin/true"])?;
    go_on(&container)?;
    lab.expect(&container, [entrypoint(), own])
}

/// The application ends and is started again in a container that runs: what it does then is no start-up.
pub(super) fn restart_of_the_application(lab: &mut Lab) -> Result<()> {
    let lines = "n=0; while true; do n=$((n+1)); echo 1 > /etc/run-$n.conf; /usr/bin/tool serve; done";
    let container = Container::service_after(lab.number(), lines)?;
    lab.expect(&container, [entrypoint(), change("create", "/etc/run-1.conf", expected("startup", "medium"))])?;
    // It ends without an answer.
    let _ended = container.service_does(&["become", "/bin/true"]);
    // The file is there before the thread that creates it has gone on, which its record waits for.
    wait_for("the second run", PATIENCE, || Ok(container.service_does(&["look", "/etc/run-2.conf"]).ok()))?;
    lab.expect(&container, [change("create", "/etc/run-2.conf", told("medium"))])
}

/// A container of Docker whose service does what it is told, with a health check that is this line for a shell.
fn with_health_check(lab: &mut Lab, line: &str) -> Result<engine::Container> {
    lab.node.ensure(&DOCKER)?;
    let options = ["--health-interval=5s", "--health-timeout=30s", "--health-cmd", line];
    let container = DOCKER.service_with(lab.number(), &options)?;
    lab.wait_until_known(&container)?;
    Ok(container)
}

/// The lines about a container since this number of lines, without what became known later.
pub(super) fn lines_of(lab: &Lab, container: &engine::Container, since: usize) -> Vec<Value> {
    let id = json!(container.id);
    let is_of = |line: &&Value| line["container"]["id"] == id || line["detail"]["container"]["id"] == id;
    let is_late = |line: &&Value| line["event"] == "container_info" || line["event"] == "file_hash";
    lab.history[since..].iter().filter(is_of).filter(|line| !is_late(line)).cloned().collect()
}

/// Waits until a line about the container has come that is wanted, and as many in all.
pub(super) fn wait_for_line(
    lab: &mut Lab,
    container: &engine::Container,
    count: usize,
    is_wanted: impl Fn(&Value) -> bool,
) -> Result<Value> {
    wait_for("a line about the container", PATIENCE, || {
        lab.take_findings()?;
        Ok(lines_of(lab, container, 0).into_iter().filter(&is_wanted).nth(count - 1))
    })
}

/// Expects the session with this id to be told in the end, with this severity.
pub(super) fn expect_told(lab: &mut Lab, container: &engine::Container, session: &Value, severity: &str) -> Result<()> {
    let end = wait_for_line(lab, container, 1, |line| line["detail"]["session"] == *session)?;
    let last = lines_of(lab, container, 0).into_iter().rfind(|line| line["id"] == *session).context("no session")?;
    for told in [&end["detail"], &last] {
        if let Some(difference) = difference(told, &self::told(severity)) {
            anyhow::bail!("{difference}\nfound: {told}");
        }
    }
    Ok(())
}

pub(super) fn is_end(line: &Value) -> bool {
    line["event"] == "session_ended"
}

pub(super) fn health_check(lab: &mut Lab) -> Result<()> {
    let container = with_health_check(lab, &format!("/bin/sh {SCRIPT}"))?;
    // A check that began before Docker had answered can be told.
    let ends = lines_of(lab, &container, 0).iter().filter(|line| is_end(line)).count() + 1;
    wait_for_line(lab, &container, ends, is_end)?;
    let since = lab.history.len();
    wait_for_line(lab, &container, ends + 2, is_end)?;
    expect_health_check(&lines_of(lab, &container, since))?;
    drop(container);
    lab.take_findings().map(drop)
}

/// Expects a health check in which a shell runs, and nothing else.
fn expect_health_check(lines: &[Value]) -> Result<()> {
    for line in lines {
        let told = if is_end(line) { &line["detail"] } else { line };
        if let Some(difference) = difference(told, &expected("health_check", "medium")) {
            anyhow::bail!("{difference}\nfound: {line}");
        }
    }
    for kind in ["shell_in_container", "session"] {
        ensure!(lines.iter().any(|line| line["finding"] == kind), "there is no {kind}");
    }
    Ok(())
}

/// Podman runs the test of a container. Then somebody runs another command, and replaces the script of the test.
pub(super) fn health_check_of_podman(lab: &mut Lab) -> Result<()> {
    lab.node.ensure(&PODMAN)?;
    // There is no systemd, whose timers run the test otherwise.
    let line = format!("/bin/sh {SCRIPT}");
    let container = PODMAN.service_with(lab.number(), &["--health-interval=disable", "--health-cmd", &line])?;
    lab.wait_until_known(&container)?;
    let since = lab.history.len();
    // The container is unhealthy until the script is there.
    let check = || drop(on_host("podman", ["healthcheck", "run", &container.id]));
    check();
    wait_for_line(lab, &container, 1, is_end)?;
    expect_health_check(&lines_of(lab, &container, since))?;
    container.exec(&["/bin/sh", "-c", &format!("{line}; id")])?;
    let is_other = |told: &Value| told["finding"] == "session" && told["process"]["args"][2] != line;
    let session = wait_for_line(lab, &container, 1, is_other)?;
    expect_told(lab, &container, &session["id"], "medium")?;
    container.exec(&["/bin/sh", "-c", &format!("echo 'echo 43' > {SCRIPT}")])?;
    check();
    let is_drift = |line: &Value| line["finding"] == "drifted_exec" && line["file"]["path"] == SCRIPT;
    let drift = wait_for_line(lab, &container, 1, is_drift)?;
    ensure!(drift["severity"] == "high" && drift["expected"].is_null(), "{drift} is expected");
    expect_told(lab, &container, &drift["session"], "high")?;
    drop(container);
    lab.take_findings().map(drop)
}

/// A session replaces the script that the test runs.
pub(super) fn health_check_replaced(lab: &mut Lab) -> Result<()> {
    let container = with_health_check(lab, &format!("/bin/sh {SCRIPT}"))?;
    wait_for_line(lab, &container, 1, is_end)?;
    container.exec(&["/bin/sh", "-c", &format!("echo 'echo 43' > {SCRIPT}")])?;
    let is_drift = |line: &Value| line["finding"] == "drifted_exec" && line["file"]["path"] == SCRIPT;
    let drift = wait_for_line(lab, &container, 1, is_drift)?;
    ensure!(drift["severity"] == "high" && drift["expected"].is_null(), "{drift} is expected");
    expect_told(lab, &container, &drift["session"], "high")?;
    // Nor are the next ones, although that script is only reported once.
    let ends = lines_of(lab, &container, 0).iter().filter(|line| is_end(line)).count();
    let next = wait_for_line(lab, &container, ends + 1, is_end)?;
    expect_told(lab, &container, &next["detail"]["session"], "medium")?;
    drop(container);
    lab.take_findings().map(drop)
}

/// The test is as declared, but what it runs was added to the image.
pub(super) fn health_check_of_added_program(lab: &mut Lab) -> Result<()> {
    let container = with_health_check(lab, "/tmp/probe -c true")?;
    wait_for_line(lab, &container, 1, is_end)?;
    container.service_does(&["copy", DASH, "/tmp/probe"])?;
    let drift = wait_for_line(lab, &container, 1, |line| line["finding"] == "drifted_exec")?;
    ensure!(drift["severity"] == "high" && drift["expected"].is_null(), "{drift} is expected");
    expect_told(lab, &container, &drift["session"], "high")?;
    drop(container);
    lab.take_findings().map(drop)
}

/// What a health check changes is told.
pub(super) fn health_check_that_writes(lab: &mut Lab) -> Result<()> {
    let container = with_health_check(lab, "echo checked > /tmp/checked")?;
    let write = wait_for_line(lab, &container, 1, |line| line["file"]["path"] == "/tmp/checked")?;
    ensure!(write["severity"] == "low" && write["expected"].is_null(), "{write} is expected");
    expect_told(lab, &container, &write["session"], "medium")?;
    drop(container);
    lab.take_findings().map(drop)
}

/// A command that is no health check, in a container that has one.
pub(super) fn other_than_the_health_check(lab: &mut Lab) -> Result<()> {
    let container = with_health_check(lab, "true")?;
    wait_for_line(lab, &container, 1, is_end)?;
    container.exec(&["/bin/sh", "-c", "cat /etc/passwd"])?;
    let is_wanted = |line: &Value| line["process"]["args"][2] == "cat /etc/passwd" && line["finding"] == "session";
    let session = wait_for_line(lab, &container, 1, is_wanted)?;
    expect_told(lab, &container, &session["id"], "medium")?;
    drop(container);
    lab.take_findings().map(drop)
}

/// A kubelet runs a probe at a steady pace, and then somebody runs the same once more.
pub(super) fn probe_of_a_pod(lab: &mut Lab) -> Result<()> {
    const PACE: Duration = Duration::from_secs(12);
    lab.node.ensure(&CRI)?;
    let container = CRI.service(lab.number())?;
    let since = Instant::now();
    for nth in 0..8 {
        thread::sleep((PACE * nth).saturating_sub(since.elapsed()));
        container.exec(&["/bin/sh", "-c", "true"])?;
    }
    container.exec(&["/bin/sh", "-c", "true"])?;
    let last = wait_for_line(lab, &container, 9, is_end)?;
    let ends: Vec<_> = lines_of(lab, &container, 0).into_iter().filter(is_end).collect();
    let expected: Vec<_> = ends.iter().map(|end| end["detail"]["expected"]["reason"] == "health_check").collect();
    ensure!(expected[..6].iter().all(|is_expected| !is_expected), "{expected:?}");
    ensure!(expected[6..8].iter().all(|is_expected| *is_expected), "{expected:?}");
    ensure!(last["detail"]["expected"].is_null() && last["detail"]["severity"] == "medium", "{last}");
    drop(container);
    lab.take_findings().map(drop)
}

/// Docker makes a directory for its own root. What it copies into a container that runs is told, and nothing else is.
pub(super) fn copies(lab: &mut Lab) -> Result<()> {
    lab.node.ensure(&DOCKER)?;
    let container = DOCKER.service(lab.number())?;
    std::fs::write("/tmp/added", "from the host\n")?;
    container.copy("/tmp/added", "/srv/added")?;
    let is_write = |line: &Value| line["finding"] == "image_write";
    let added = wait_for_line(lab, &container, 2, is_write)?;
    let made = wait_for_line(lab, &container, 1, is_write)?;
    let is_pivot = made["file"]["path"].as_str().is_some_and(|path| path.starts_with("/.pivot_root"));
    ensure!(is_pivot && difference(&made, &expected("engine", "medium")).is_none(), "{made}");
    ensure!(difference(&added, &change("create", "/srv/added", told("medium"))).is_none(), "{added}");
    let out = format!("{}:/etc/app.conf", container.id);
    let copy_out = || on_host("docker", ["cp", &out, "/tmp/copied"]);
    copy_out()?;
    on_host("docker", ["stop", "--time=0", &container.id])?;
    container.copy("/tmp/added", "/srv/added-while-stopped")?;
    copy_out()?;
    on_host("docker", ["start", &container.id])?;
    copy_out()?;
    lab.take_findings()?;
    let told: Vec<_> = lines_of(lab, &container, 0).into_iter().filter(|line| line["severity"] != "info").collect();
    ensure!(told.len() == 1, "more than {added} was told: {told:?}");
    Ok(())
}

/// Three containers of an image, each started after the one before has done something, do the same. What only one of
/// them does is told, and so is what all do at once, and what one does in which somebody has been.
pub(super) fn of_the_image(lab: &mut Lab) -> Result<()> {
    const APART: Duration = Duration::from_secs(10);
    lab.node.ensure(&DOCKER)?;
    let expect = |lab: &mut Lab, container: &engine::Container, path: &str, more: Value| {
        let is_wanted = |line: &Value| line["finding"] == "image_write" && line["file"]["path"] == path;
        let found = wait_for_line(lab, container, 1, is_wanted)?;
        match difference(&found, &change("create", path, more)) {
            Some(difference) => anyhow::bail!("{difference}\nfound: {found}"),
            None => Ok(()),
        }
    };
    let mut all = Vec::new();
    for more in [told("medium"), told("medium"), expected("image", "medium")] {
        if !all.is_empty() {
            thread::sleep(APART);
        }
        let container = DOCKER.service(lab.number())?;
        lab.wait_until_known(&container)?;
        container.service_does(&["create", "/srv/state"])?;
        expect(lab, &container, "/srv/state", more)?;
        all.push(container);
    }
    let visited = DOCKER.service(lab.number())?;
    visited.exec(&["/bin/true"])?;
    visited.service_does(&["create", "/srv/state"])?;
    expect(lab, &visited, "/srv/state", told("medium"))?;
    all[2].service_does(&["create", "/srv/other"])?;
    expect(lab, &all[2], "/srv/other", told("medium"))?;
    for container in &all {
        container.service_does(&["create", "/srv/at-once"])?;
        expect(lab, container, "/srv/at-once", told("medium"))?;
    }
    drop((all, visited));
    lab.take_findings().map(drop)
}
