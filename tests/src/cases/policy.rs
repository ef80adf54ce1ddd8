//! Exceptions: what they suppress, what is told all the same, and attacks that try to be taken for what is excepted.
//! Overrides: which severity findings have by them. Rules: which containers are not watched, and what is told of them
//! all the same. What a sensor with a policy finds is the same in a replay.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use super::lab::{self, Lab, write_config};
use super::{expectation, session};
use crate::attack;
use crate::container::{Container, Setup, docker_cgroup, id};
use crate::engine::DOCKER;
use crate::image::{BACKUP, BROKEN_SCRIPT, DASH, IMAGE_SCRIPT};
use crate::program::{Running, on_host, wait_for};
use crate::sensor::{DETECTOR, detector};

/// Where the exceptions of these cases let the program [`TOOL`] write.
const PLACES: &str = "/srv/places";
/// How long a command may take to begin or to end.
const PATIENCE: Duration = Duration::from_secs(60);
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

/// Runs a function while the sensor goes by these exceptions. Returns how many acts each has suppressed, by its name.
fn with_exceptions(lab: &mut Lab, exceptions: &[String], action: impl FnOnce(&mut Lab) -> Result<()>) -> Result<Value> {
    let before = suppressed()?;
    lab.configured(&exceptions.concat(), action)?;
    let mut more = suppressed()?;
    for (name, count) in more.as_object_mut().context("it is an object")? {
        *count = (count.as_u64().unwrap_or_default() - before[name].as_u64().unwrap_or_default()).into();
    }
    Ok(more
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, count)| **count != 0)
        .map(|(name, count)| (name.clone(), count.clone()))
        .collect())
}

/// How many acts exceptions have suppressed since the sensor started, by their names.
fn suppressed() -> Result<Value> {
    let status = String::from_utf8(detector(&["status"])?.stdout)?;
    let counts = status.lines().filter_map(|line| line.strip_prefix("excepted  ")?.split_once(" × "));
    counts.map(|(count, name)| Ok((name.to_owned(), Value::from(count.parse::<u64>()?)))).collect()
}

/// Runs a function with a sensor that has these rules, and compares its lines with those of a replay. Returns them.
fn with_rules(lab: &mut Lab, rules: &str, action: impl FnOnce(&mut Lab) -> Result<()>) -> Result<Vec<Value>> {
    write_config(rules)?;
    let run = lab.recorded(action);
    write_config("")?;
    run?.expect_same()?.iter().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// A rule with this name by which the containers that fulfil these conditions are watched or not.
fn rule(name: &str, watched: bool, conditions: &str) -> String {
    format!("[[watch]]\nname = '{name}'\nreason = 'It is known.'\nwatched = {watched}\n{conditions}\n")
}

/// The containers that were not watched: the name of the rule and the id of each, in the order in which it was told.
fn unwatched_in(lines: &[Value]) -> Vec<[&str; 2]> {
    let told = lines.iter().filter(|line| line["event"] == "unwatched").map(|line| &line["detail"]);
    told.map(|told| [&told["rule"], &told["container"]["id"]].map(|text| text.as_str().unwrap_or_default())).collect()
}

/// The finding of a file that is created.
fn created(path: &str) -> Value {
    json!({"finding": "image_write", "file": {"op": "create", "path": path}})
}

/// A sensor that has the exception from its start on. A replay finds the same.
pub(super) fn excepted(lab: &mut Lab) -> Result<()> {
    let (place, elsewhere) = (lab.place()?, lab.file()?);
    write_config(&places())?;
    let run = lab.recorded(|lab| {
        let container = lab.new_container()?;
        for name in ["one", "two"] {
            container.service_does(&["create", &format!("{place}/{name}")])?;
        }
        lab.expect_none()?;
        ensure!(suppressed()? == json!({"places": 2}), "{}", suppressed()?);
        // Elsewhere, by another program, and by somebody from outside.
        container.service_does(&["create", &format!("{elsewhere}-more")])?;
        container.service_does(&["run", "/bin/busybox", "touch", &format!("{place}/three")])?;
        lab.expect(&container, [created(&format!("{elsewhere}-more")), created(&format!("{place}/three"))])
    });
    write_config("")?;
    let mut told = 0;
    for line in run?.expect_same()? {
        let line: Value = serde_json::from_str(&line)?;
        if line["event"] == "suppressed" {
            let detail = &line["detail"];
            ensure!(detail["reason"] == "It is known." && detail["owner"] == "lab", "{line}");
            told += detail["count"].as_u64().context("it has a count")?;
        }
    }
    ensure!(told == 2, "{told} acts were told to be suppressed");
    Ok(())
}

/// The policy changes again and again while files are made. Each is reported or counted, and a replay does the same.
pub(super) fn reloaded(lab: &mut Lab) -> Result<()> {
    const RELOADS: usize = 100;
    const WRITERS: usize = 4;
    const FILES: usize = 100;
    /// Deeper paths are too long for a record.
    const ROUNDS: usize = 14;
    let exception = exception("flood", "finding = 'image_write'\noperation = 'create'\npath = '/srv/writer-1/**'");
    let text = |nth: usize| if nth.is_multiple_of(2) { exception.as_str() } else { "" };
    let mut more = 0;
    let run = lab.recorded(|lab| {
        let (container, is_over) = (lab.new_container()?, AtomicBool::new(false));
        more = thread::scope(|scope| {
            let flood = scope.spawn(|| {
                for round in 0..ROUNDS {
                    let sizes = [WRITERS, FILES, 1, round].map(|number| number.to_string());
                    container.service_does(&[&["flood".to_owned()], sizes.as_slice()].concat())?;
                }
                let mut file = 0;
                while !is_over.load(Relaxed) {
                    container.service_does(&["create", &format!("/srv/writer-1/more-{file}")])?;
                    file += 1;
                }
                Ok(file)
            });
            let reloads = (0..RELOADS).try_for_each(|nth| lab.configure(text(nth)));
            is_over.store(true, Relaxed);
            let more: Result<usize> = flood.join().expect("it does not panic");
            reloads.and(more)
        })?;
        lab.take_findings().map(drop)?;
        refused(lab, &container, &exception)
    });
    write_config("")?;
    let lines = run?.expect_same()?;
    let lines = lines.iter().map(|line| Ok(serde_json::from_str(line)?)).collect::<Result<Vec<Value>>>()?;
    let loaded = lines.iter().filter(|line| line["event"] == "policy_loaded").count();
    ensure!(loaded > RELOADS, "{loaded} notices say that a policy was loaded");
    ensure!(!lines.iter().any(|line| line["event"] == "loss"), "the flood was too large");
    let created = lines.iter().filter(|line| line["file"]["op"] == "create");
    let of_flood = created.filter_map(|line| line["file"]["path"].as_str()?.strip_prefix("/srv/writer-"));
    let (excepted, others): (BTreeSet<_>, BTreeSet<_>) = of_flood.partition(|path| path.starts_with('1'));
    let told =
        lines.iter().filter(|line| line["event"] == "suppressed").filter_map(|line| line["detail"]["count"].as_u64());
    let suppressed = told.sum::<u64>() as usize;
    ensure!(
        others.len() == (WRITERS - 1) * FILES * ROUNDS,
        "{} files of the other writers were reported",
        others.len()
    );
    // One more is made when a file was refused.
    let made = FILES * ROUNDS + more + 1;
    ensure!(
        !excepted.is_empty() && suppressed > 0 && excepted.len() + suppressed == made,
        "{} files were reported and {suppressed} suppressed of {made}",
        excepted.len()
    );
    Ok(())
}

/// What an exception has suppressed is told once it has expired, and so is that it has.
pub(super) fn expired(lab: &mut Lab) -> Result<()> {
    let place = lab.place()?;
    let soon = format!("@{}", clock_gettime(ClockId::Realtime).tv_sec + 12);
    let expires = on_host("/bin/busybox", ["date", "-u", "-d", &soon, "+%FT%TZ"])?;
    let text = format!("{}expires = {expires}\n", places());
    with_exceptions(lab, &[text], |lab| {
        let container = lab.container()?;
        container.service_does(&["create", &format!("{place}/before")])?;
        lab.expect_none()?;
        let notice = lab.wait_for_line(|line| line["event"] == "exception_expired")?;
        ensure!(notice["detail"]["exception"] == "places" && notice["detail"]["owner"] == "lab", "{notice}");
        container.service_does(&["create", &format!("{place}/after")])?;
        lab.expect(&container, [created(&format!("{place}/after"))])
    })
    .map(drop)
}

/// A file that cannot be used is refused, and noticed without a signal. What was loaded before still holds.
fn refused(lab: &mut Lab, container: &Container, exception: &str) -> Result<()> {
    lab.configure(exception)?;
    write_config(&format!("{exception}raeson = 'more'\n"))?;
    let notice = lab.wait_for_line(|line| line["event"] == "policy_refused")?;
    let reason = notice["detail"]["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("config.toml:8:1: ") && reason.contains("did you mean `reason`"), "{notice}");
    container.service_does(&["create", "/srv/writer-1/suppressed"])?;
    lab.expect_none()?;
    let status = String::from_utf8(detector(&["status"])?.stdout)?;
    ensure!(status.contains("\nconfig    a later version was refused: /etc/detector/config.toml:8:1: "), "{status}");
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

/// Acts have other severities by overrides that are loaded meanwhile, and so do sessions, unless they are critical. A
/// replay finds the same.
pub(super) fn severities(lab: &mut Lab) -> Result<()> {
    let overriding = |name: &str, severity: &str, conditions: &str| {
        format!(
            "[[severity]]\nname = '{name}'\nreason = 'It is known.'\nseverity = '{severity}'\nfinding = {conditions}\n"
        )
    };
    let overrides = [
        overriding("changes", "critical", &format!("'image_write'\npath = '{PLACES}/**'")),
        overriding("shells", "low", "'shell_in_container'"),
        overriding("sessions", "info", "'session'\nvia = 'exec'"),
    ];
    let (place, file, shell) = (lab.place()?, lab.file()?, ["/bin/sh", "-c", "true"]);
    let by = |name: &str, otherwise: &str| json!({"by": name, "otherwise": otherwise});
    let run = lab.recorded(|lab| {
        let container = lab.new_container()?;
        container.exec(&shell)?;
        lab.expect(&container, [json!({"finding": "shell_in_container", "severity": "medium"})])?;
        session::only(lab, &container.id)?.expect(&json!({"severity": "medium"}))?;
        lab.configure(&overrides.concat())?;

        container.service_does(&["create", &format!("{place}/raised")])?;
        let raised = json!({"finding": "image_write", "severity": "critical", "overridden": by("changes", "medium")});
        lab.expect(&container, [raised])?;
        // What a session is by itself, and the shell in it.
        container.exec_tty(&shell)?;
        let lowered = json!({"finding": "shell_in_container", "severity": "low", "overridden": by("shells", "high")});
        lab.expect(&container, [lowered.clone()])?;
        let told = session::ended(lab, &container.id, 2)?;
        told[1].expect(&json!({"severity": "low", "overridden": by("sessions", "high")}))?;
        // What else is done in it counts as before.
        container.exec_tty(&["/bin/sh", "-c", &format!("echo >> {file}")])?;
        lab.expect(&container, [lowered, json!({"finding": "image_write", "severity": "medium"})])?;
        let told = session::ended(lab, &container.id, 3)?;
        told[2].expect(&json!({"severity": "medium", "overridden": by("sessions", "high")}))?;

        let other = lab.new_container()?;
        other.service_does(&["reverse-shell", "127.0.0.1"])?;
        lab.expect(&other, [json!({"finding": "shell_in_container", "severity": "critical"})])?;
        session::only(lab, &other.id)?.expect(&json!({"severity": "critical", "summary": {"via": "socket"}}))
    });
    write_config("")?;
    let lines = run?.expect_same()?;
    let loaded = lines.iter().filter(|line| line.contains("\"other_overrides\":true")).count();
    ensure!(loaded == 1, "{loaded} notices say that other overrides were loaded");
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
        lab.wait_until_known(&container)?;
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

/// The exception that `detector explain` proposes for a finding, which it is told by its id, or finds by it in a file.
fn proposed(lab: &Lab, finding: &Value, is_by_file: bool) -> Result<String> {
    let id = finding["id"].as_str().context("it has an id")?;
    let lines = lab.sensor()?.lines().to_str().context("the path is text")?.to_owned();
    let source: &[&str] = if is_by_file { &[&lines, "--id", id] } else { &[id] };
    let explained = |form: &[&str]| {
        let output = detector(&[&["explain"], source, form].concat())?;
        ensure!(output.status.success(), "explain: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    let told: Value = serde_json::from_str(&explained(&["-o", "json"])?)?;
    let toml = told["proposal"]["toml"].as_str().with_context(|| format!("there is no proposal: {told}"))?;
    ensure!(told["id"] == id && told["message"] == finding["message"], "{told} is not about {finding}");
    let text = explained(&[])?;
    ensure!(text.contains(&format!("\n{toml}\n")), "{text} does not have {toml}");
    Ok(toml.to_owned())
}

/// What is proposed for five findings suppresses the same acts in another container, and none that differs in a fact.
pub(super) fn explained(lab: &mut Lab) -> Result<()> {
    let place = lab.place()?;
    let [path, other, added, unknown] = ["one", "other", "added", "unknown"].map(|name| format!("{place}/{name}"));
    let starting = |path: &str| json!({"finding": "drifted_exec", "file": {"path": path}});
    let container = lab.new_container()?;
    container.service_does(&["create", &path])?;
    container.service_does(&["run", IMAGE_SCRIPT])?;
    container.service_does(&["run", DASH, "-c", "true"])?;
    container.exec(&["/bin/sh", "-c", "true"])?;
    container.service_does(&["copy", TOOL, &added])?;
    container.service_does(&["run", &added, "run", "/bin/true"])?;
    let box_shell = |args: &[&str], origin| expectation::shell(origin, "/bin/busybox", args);
    let mut found = lab.expect_and_take(
        &container,
        [
            created(&path),
            box_shell(&["/bin/sh", IMAGE_SCRIPT], "application"),
            expectation::shell("application", DASH, &[DASH, "-c", "true"]),
            box_shell(&["/bin/sh", "-c", "true"], "entered"),
            created(&added),
            starting(&added),
        ],
    )?;
    found.remove(4);
    let proposals = found.iter().enumerate().map(|(nth, finding)| proposed(lab, finding, nth.is_multiple_of(2)));
    let proposals = proposals.collect::<Result<Vec<_>>>()?;
    let suppressed = with_exceptions(lab, &proposals, |lab| {
        let container = lab.new_container()?;
        // Another program does the same, then the same program does something else.
        container.service_does(&["run", "/bin/busybox", "touch", &path])?;
        container.service_does(&["unlink", &path])?;
        container.service_does(&["mkdir", &path])?;
        container.service_does(&["rmdir", &path])?;
        container.service_does(&["create", &path])?;
        container.service_does(&["create", &other])?;
        container.service_does(&["run", IMAGE_SCRIPT])?;
        container.service_does(&["run", "/bin/sh", IMAGE_SCRIPT])?;
        container.service_does(&["run", DASH, "-c", "true"])?;
        container.exec(&[DASH, "-c", "true"])?;
        container.exec(&["/bin/sh", "-c", "true"])?;
        container.exec_tty(&["/bin/sh", "-c", "true"])?;
        for path in [&added, &unknown] {
            container.service_does(&["copy", TOOL, path])?;
            container.service_does(&["run", path, "run", "/bin/true"])?;
        }
        lab.expect(
            &container,
            [
                created(&path),
                json!({"finding": "image_write", "file": {"op": "mkdir", "path": path}}),
                created(&other),
                box_shell(&["/bin/sh", IMAGE_SCRIPT], "application"),
                expectation::shell("entered", DASH, &[DASH, "-c", "true"]),
                json!({"finding": "shell_in_container", "severity": "high"}),
                created(&added),
                created(&unknown),
                starting(&unknown),
            ],
        )
    })?;
    let counts: Vec<_> = suppressed.as_object().into_iter().flatten().map(|(_, count)| count.clone()).collect();
    ensure!(counts == vec![json!(1); 5], "{suppressed}");
    Ok(())
}

/// What is proposed for a finding in a container that a runtime knows holds in that container only.
pub(super) fn explained_in_container(lab: &mut Lab) -> Result<()> {
    lab.node.ensure(&DOCKER)?;
    let [own, other] = [DOCKER.service(lab.number())?, DOCKER.service(lab.number())?];
    for container in [&own, &other] {
        lab.wait_until_known(container)?;
    }
    let shell = ["/bin/sh", "-c", "true"];
    own.exec(&shell)?;
    let found = lab.take_findings()?;
    ensure!(found.len() == 1, "{found:?}");
    let proposal = proposed(lab, &found[0], true)?;
    ensure!(proposal.contains("\nimage = ") && proposal.contains("\ncontainer = "), "{proposal}");
    let suppressed = with_exceptions(lab, &[proposal], |lab| {
        own.exec(&shell)?;
        other.exec(&shell)?;
        let found = lab.take_findings()?;
        let other = found.iter().filter(|finding| finding["container"]["id"] == other.id.as_str()).count();
        ensure!(found.len() == 1 && other == 1, "{found:?}");
        Ok(())
    })?;
    ensure!(suppressed.as_object().is_some_and(|counts| counts.len() == 1), "{suppressed}");
    Ok(())
}

/// What is learnt from a container suppresses the same acts in another container of its image, and neither what else
/// happens there nor what a person does. A check of the log says the same.
pub(super) fn learnt(lab: &mut Lab) -> Result<()> {
    const POLICY: &str = "/tmp/learnt.toml";
    const LINES: &str = "/tmp/learnt.json";
    lab.node.ensure(&DOCKER)?;
    let paths = ["one", "two", "three", "four"].map(|name| format!("/srv/{name}"));
    let (first, second) = (DOCKER.service(lab.number())?, DOCKER.service(lab.number())?);
    for container in [&first, &second] {
        lab.wait_until_known(container)?;
    }
    let [out, messages] = ["/tmp/learnt", "/tmp/learnt.log"].map(Path::new);
    let mut learn = Command::new(DETECTOR);
    learn.args(["learn", "--for", "1h", "--image", "localhost/lab:*"]);
    let learn = Running::start(learn.stdout(File::create(out)?).stderr(File::create(messages)?))?;
    wait_for("the start of learning", PATIENCE, || {
        Ok(fs::read_to_string(messages)?.contains("learning for").then_some(()))
    })?;
    for path in &paths {
        first.service_does(&["create", path])?;
    }
    first.exec(&["/bin/sh", "-c", "true"])?;
    second.exec(&["/bin/busybox", "touch", "/srv/by-hand"])?;
    second.service_does(&["create", "/srv/after"])?;
    lab.take_findings()?;
    learn.signal(Signal::INT)?;
    wait_for("the end of learning", PATIENCE, || Ok(fs::read_to_string(out)?.contains("[[exception]]").then_some(())))?;
    let policy = fs::read_to_string(out)?;
    ensure!(policy.contains("\npath = \"/srv/*\"\nexe = \"/usr/bin/tool\"\nimage = \"localhost/lab:"), "{policy}");
    ensure!(policy.matches("[[exception]]").count() == 1 && policy.contains("# 4 acts (create 4), "), "{policy}");
    for omitted in ["those in a container that a session had changed before: ", "sessions, and what was done in them: "]
    {
        ensure!(policy.contains(omitted), "{policy}");
    }

    fs::write(POLICY, &policy)?;
    let lines = fs::read_to_string(lab.sensor()?.lines())?;
    let is_own = |line: &&str| [&first, &second].iter().any(|container| line.contains(&container.id));
    fs::write(LINES, lines.lines().filter(is_own).collect::<Vec<_>>().join("\n"))?;
    let checked = detector(&["learn", "--check", POLICY, LINES])?;
    let checked = String::from_utf8(checked.stdout)?;
    ensure!(checked.contains(": image_write by /usr/bin/tool: ") && checked.contains("/srv/by-hand"), "{checked}");

    let suppressed = with_exceptions(lab, &[policy], |lab| {
        let container = DOCKER.service(lab.number())?;
        lab.wait_until_known(&container)?;
        for path in &paths {
            container.service_does(&["create", path])?;
        }
        container.service_does(&["mkdir", "/srv/directory"])?;
        container.service_does(&["create", "/other"])?;
        container.service_does(&["run", "/bin/busybox", "touch", "/srv/by-another"])?;
        container.exec(&["/bin/sh", "-c", "true"])?;
        let found = lab.take_findings()?;
        let about = |finding: &Value| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            [text(&finding["finding"]), text(&finding["file"]["op"]), text(&finding["file"]["path"])]
        };
        let told: BTreeSet<_> = found.iter().map(about).collect();
        let expected = [
            ["image_write", "mkdir", "/srv/directory"],
            ["image_write", "create", "/other"],
            ["image_write", "create", "/srv/by-another"],
            ["shell_in_container", "", "/bin/busybox"],
        ];
        ensure!(told == expected.map(|texts| texts.map(str::to_owned)).into(), "{told:?}");
        Ok(())
    })?;
    let counts: Vec<_> = suppressed.as_object().into_iter().flatten().map(|(_, count)| count.clone()).collect();
    ensure!(counts == [json!(4)], "{suppressed}");
    Ok(())
}

/// A container that is not watched makes no findings, whoever changes it, unless it acts on what is outside.
pub(super) fn unwatched(lab: &mut Lab) -> Result<()> {
    const CONTROL: &str = "/proc/sys/kernel/core_pattern";
    let number = lab.number();
    let id = id(number);
    let before = std::fs::read_to_string(CONTROL)?;
    let rules = rule("own", false, &format!("cgroup = '/*.slice/docker-{id}.scope'"));
    let lines = with_rules(lab, &rules, |lab| {
        let setup = Setup { is_privileged: true, sees_processes: true, ..Setup::default() };
        let (container, neighbour) = (Container::service_with(number, setup)?, lab.new_container()?);
        container.service_does(&["create", "/srv/own"])?;
        container.service_does(&["copy", DASH, "/srv/shell"])?;
        container.service_does(&["run", "/srv/shell", "-c", "true"])?;
        container.exec_tty(&["/bin/sh", "-c", "echo >> /etc/passwd"])?;
        lab::write_on_host(&container.host_path("/srv/of-the-host"))?;
        let found = lab.take_late_findings()?;
        ensure!(found.is_empty(), "{found:?}");
        let status = String::from_utf8(detector(&["status"])?.stdout)?;
        ensure!(status.contains("\nunwatched 1 container by rule own (It is known.)\n"), "{status}");

        neighbour.service_does(&["create", "/srv/watched"])?;
        let held = neighbour.service_does(&["hold", "/etc/passwd"])?;
        let descriptor = serde_json::from_value(held["descriptor"].clone())?;
        container.receive(&attack::take(neighbour.pid, descriptor)?)?;
        let file = |op: &str| json!({"op": op, "path": "/etc/passwd"});
        let by =
            |origin: &str, op: &str| json!({"finding": "image_write", "process": {"origin": origin}, "file": file(op)});
        let found = [created("/srv/watched"), by("entrypoint", "open_write"), by("outside", "write")];
        lab.expect(&neighbour, found)?;

        container.service_does(&["bound-control", "sys/kernel/core_pattern", before.trim_end()])?;
        container.child_does(&["rewrite-memory", "mem", &lab.sensor()?.id().to_string()])?;
        let escape = json!({"finding": "kernel_control_write", "severity": "critical"});
        lab.expect(&container, [escape, json!({"finding": "sensor_tampering"})])?;
        let mounts = std::fs::File::open("/proc/self/ns/mnt")?;
        container.receives(&mounts, |socket| {
            container.child_does(&["with-mounts", socket, "run", "/bin/sh", "-c", "true"]).map(drop)
        })?;
        lab.expect(&container, [json!({"finding": "shell_in_container", "severity": "critical"})])?;

        // Without the rule, it is watched, and with it again not.
        lab.configure("")?;
        container.service_does(&["create", "/srv/watched"])?;
        lab.expect(&container, [created("/srv/watched")])?;
        lab.configure(&rules)?;
        container.service_does(&["create", "/srv/unwatched"])?;
        lab.expect_none()
    })?;
    let told = unwatched_in(&lines);
    ensure!(told == [["own", &id], ["own", &id]], "{told:?}");
    let again = lines.iter().filter(|line| line["event"] == "watched").count();
    ensure!(again == 1, "it is said {again} times that a container is watched again");
    Ok(())
}

/// Only the runtime can tell which containers are not watched, and which are all the same.
pub(super) fn unwatched_by_runtime(lab: &mut Lab) -> Result<()> {
    lab.node.ensure(&DOCKER)?;
    let rules = [
        rule("payments", true, "labels = { team = 'payments' }"),
        rule("lab", false, "image = 'localhost/lab:*'\nlabels = { team = '*' }"),
    ];
    let mut ids = Vec::new();
    let lines = with_rules(lab, &rules.concat(), |lab| {
        for (options, is_watched) in
            [(&["--label=team=tests"][..], false), (&["--label=team=payments"], true), (&[], true)]
        {
            let container = DOCKER.service_with(lab.number(), options)?;
            let is_of_it = |line: &Value| line["container"]["id"] == container.id.as_str();
            // A busy Docker answers late, and what a container does until then is reported.
            if !is_watched {
                lab.wait_for_line(|line| line["event"] == "unwatched" && is_of_it(&line["detail"]))?;
            }
            container.service_does(&["create", "/srv/file"])?;
            container.exec(&["/bin/sh", "-c", "true"])?;
            if is_watched {
                let is_shell = |line: &Value| line["finding"] == "shell_in_container";
                lab.wait_for_line(|line| is_shell(line) && is_of_it(line))?;
            }
            let found = lab.take_findings()?;
            ensure!(found.len() == if is_watched { 2 } else { 0 }, "{options:?}: {found:?}");
            ids.push(container.id.clone());
        }
        Ok(())
    })?;
    let told = unwatched_in(&lines);
    ensure!(told == [["lab", &ids[0]]], "{told:?}");
    Ok(())
}

/// Numbers that look random, and are the same for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// A finding in a script of acts, and whether its container was watched by the rules that held at that time.
type Told = (bool, Value);

/// Lets chance decide what is done to three containers, the last of which starts later, and which of them are not
/// watched meanwhile. It decides the same for the same seed. If `has_rules` is not set, the sensor does not learn which
/// are not watched. Returns what was told.
fn play(lab: &mut Lab, seed: u64, has_rules: bool) -> Result<Vec<Told>> {
    const STEPS: u64 = 32;
    let mut chance = Chance(seed);
    let numbers: [u32; 3] = std::array::from_fn(|_| lab.number());
    let ids = numbers.map(id);
    let set_unwatched = |lab: &mut Lab, unwatched: u64| {
        let ids = ids.iter().enumerate().filter(|(place, _)| unwatched & 1 << place != 0);
        let rules =
            ids.map(|(place, id)| rule(&place.to_string(), false, &format!("cgroup = '{}'", docker_cgroup(id))));
        if has_rules { lab.configure(&rules.collect::<String>()) } else { Ok(()) }
    };
    let mut containers = vec![Container::service(numbers[0])?, Container::service(numbers[1])?];
    let (mut files, mut told, mut unwatched) = (BTreeSet::new(), Vec::new(), 0);
    for step in 0..STEPS {
        if step % 4 == 0 {
            unwatched = chance.below(8);
            set_unwatched(lab, unwatched)?;
        }
        if step == STEPS / 2 {
            containers.push(Container::service(numbers[2])?);
            // It is decided about when its start is known.
            lab.take_findings()?;
        }
        let target = chance.below(containers.len() as u64) as usize;
        let path = format!("/srv/file-{}", chance.below(4));
        let (who, what) = (chance.below(4), chance.below(3) as usize);
        let container = &containers[target];
        let is_there = files.contains(&(target, path.clone()));
        let operation = if is_there { ["append", "chmod", "unlink"][what] } else { "create" };
        match who {
            0 => drop(container.service_does(&[operation, &path])?),
            1 => drop(container.exec_tool(&[operation, &path])?),
            2 => lab::write_on_host(&container.host_path(&path))?,
            _ => {
                let held = container.service_does(&["hold", "/etc/passwd"])?;
                let descriptor = serde_json::from_value(held["descriptor"].clone())?;
                containers[(target + 1) % containers.len()].receive(&attack::take(container.pid, descriptor)?)?;
            }
        }
        match who {
            0 | 1 if operation == "unlink" => drop(files.remove(&(target, path))),
            0..=2 => drop(files.insert((target, path))),
            _ => {}
        }
        for finding in lab.take_findings()? {
            let of = ids.iter().position(|id| finding["container"]["id"] == **id).context("it is one of these")?;
            let file = &finding["file"];
            let act = json!([step, of, finding["finding"], file["op"], file["path"], finding["process"]["origin"]]);
            told.push((unwatched & 1 << of == 0, act));
        }
    }
    if has_rules {
        set_unwatched(lab, 1)?;
        let before = events()?;
        for number in 0..50 {
            containers[0].service_does(&["create", &format!("/srv/more-{number}")])?;
        }
        lab.expect_none()?;
        let sent = events()? - before;
        ensure!(sent < 50, "the probes have sent {sent} records about a container that is not watched");
    }
    Ok(told)
}

/// How many records the sensor has read from the kernel.
fn events() -> Result<u64> {
    let status = String::from_utf8(detector(&["status"])?.stdout)?;
    let events = status.lines().find_map(|line| line.strip_prefix("events "));
    Ok(events.context("it is in the status")?.trim().parse()?)
}

/// What the probes do not send is what would not be told: with rules, a script of acts has the findings about the
/// containers that they let watch, and no others.
pub(super) fn kernel_filter(lab: &mut Lab) -> Result<()> {
    let seed = clock_gettime(ClockId::Realtime).tv_nsec.cast_unsigned() | 1;
    let mut runs = [Vec::new(), Vec::new()];
    for (has_rules, told) in [false, true].into_iter().zip(&mut runs) {
        lab.ensure_sensor()?;
        let run = lab.recorded(|lab| {
            *told = play(lab, seed, has_rules)?;
            Ok(())
        });
        write_config("")?;
        run.and_then(|run| run.expect_same()).with_context(|| format!("seed {seed}, with rules: {has_rules}"))?;
    }
    let [all, filtered] = runs;
    let watched: Vec<_> = all.iter().filter(|(is_watched, _)| *is_watched).map(|(_, told)| told).collect();
    let filtered: Vec<_> = filtered.iter().map(|(_, told)| told).collect();
    ensure!(watched.len() < all.len(), "seed {seed}: no act was in a container that is not watched");
    ensure!(filtered == watched, "seed {seed}:\n{filtered:?}\ninstead of\n{watched:?}");
    Ok(())
}
