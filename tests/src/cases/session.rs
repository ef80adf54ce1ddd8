//! Sessions: what comes into a container, and everything that is done then, as one finding that is updated.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::expectation::difference;
use super::lab::Lab;
use crate::container::{Container, SERVICE};
use crate::engine::{self, CRI, DOCKER, Engine, PODMAN};
use crate::program::{on_host, wait_for};

/// How long the end of a session can take to be reported.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the sensor has told of a session.
pub(super) struct Told {
    /// The lines of its finding.
    lines: Vec<Value>,
    /// The notices of its end.
    ends: Vec<Value>,
    /// The findings about acts in it.
    acts: Vec<Value>,
}

impl Told {
    /// All lines about the session with this id.
    fn of(history: &[Value], id: &Value) -> Self {
        let all = |is_wanted: &dyn Fn(&Value) -> bool| history.iter().filter(|line| is_wanted(line)).cloned().collect();
        Self {
            lines: all(&|line| line["id"] == *id),
            ends: all(&|line| line["event"] == "session_ended" && line["detail"]["session"] == *id),
            acts: all(&|line| line["session"] == *id && line["id"] != *id),
        }
    }

    /// The id of the session.
    pub(super) fn id(&self) -> Result<Value> {
        Ok(self.last()?["id"].clone())
    }

    fn last(&self) -> Result<&Value> {
        self.lines.last().context("it has no line")
    }

    /// Whether the end was told: by a notice, if it matters enough.
    fn is_complete(&self) -> Result<bool> {
        let severity = self.last()?["severity"].as_str().unwrap_or_default();
        Ok(self.ends.len() == usize::from(!["info", "low"].contains(&severity)))
    }

    /// Expects this of the last line, and that the earlier ones fit to it.
    pub(super) fn expect(&self, expected: &Value) -> Result<()> {
        let last = self.last()?;
        if let Some(difference) = difference(last, expected) {
            anyhow::bail!("{difference}\nexpected: {expected}\nfound: {last}");
        }
        for (earlier, later) in self.lines.iter().zip(self.lines.iter().skip(1)) {
            ensure!(earlier["revision"].as_u64() < later["revision"].as_u64(), "the revisions do not grow");
            ensure!(earlier["summary"]["ended"].is_null(), "there are lines after the end");
        }
        ensure!(last["session"] == last["id"], "the finding is not in its own session");
        ensure!(self.is_complete()?, "{} notices tell the end of {last}", self.ends.len());
        for end in &self.ends {
            ensure!(end["detail"]["summary"] == last["summary"] && end["detail"]["severity"] == last["severity"]);
        }
        Ok(())
    }

    /// The programs of the session, each with its arguments, and its exit code or, as a string, its signal.
    fn programs(&self) -> Result<Vec<(String, Value)>> {
        let programs = self.last()?["summary"]["programs"].as_array().context("it has no programs")?;
        let line = |program: &Value| {
            let args = program["args"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let end = match &program["signal"] {
                Value::Null => program["exit_code"].clone(),
                signal => json!(signal.to_string()),
            };
            (args.collect::<Vec<_>>().join(" "), end)
        };
        Ok(programs.iter().map(line).collect())
    }

    fn expect_programs(&self, expected: &[(&str, Value)]) -> Result<()> {
        let found = self.programs()?;
        let expected: Vec<_> = expected.iter().map(|(line, end)| ((*line).to_owned(), end.clone())).collect();
        ensure!(found == expected, "the programs are {found:?} instead of {expected:?}");
        Ok(())
    }
}

/// Waits until as many sessions of the container have ended. `container` is its id.
pub(super) fn ended(lab: &mut Lab, container: &str, count: usize) -> Result<Vec<Told>> {
    wait_for("the end of the sessions", PATIENCE, || {
        lab.take_findings()?;
        let is_end = |line: &&Value| {
            line["finding"] == "session" && line["container"]["id"] == container && !line["summary"]["ended"].is_null()
        };
        let ids: Vec<_> = lab.history.iter().filter(is_end).map(|line| line["id"].clone()).collect();
        ensure!(ids.len() <= count, "{} sessions have ended instead of {count}", ids.len());
        let told: Vec<_> = ids.iter().map(|id| Told::of(&lab.history, id)).collect();
        // A notice can come after the last line of the finding.
        let complete = told.iter().map(Told::is_complete).collect::<Result<Vec<_>>>()?;
        Ok((ids.len() == count && complete.into_iter().all(|is_complete| is_complete)).then_some(told))
    })
}

/// The only session of the container, once it has ended.
pub(super) fn only(lab: &mut Lab, container: &str) -> Result<Told> {
    ended(lab, container, 1)?.pop().context("it is there")
}

pub(super) fn interactive(lab: &mut Lab) -> Result<()> {
    let container = lab.new_container()?;
    of_a_person(lab, &container)
}

/// Two sessions of a person in a container: ten commands each, typed into a shell.
pub(super) fn of_a_person(lab: &mut Lab, container: &Container) -> Result<()> {
    let (first, second) = (lab.file()?, lab.file()?);
    let typed = [
        "/bin/ls /",
        "/bin/cat /etc/passwd",
        "/bin/true",
        "/bin/sleep 0.1",
        "/usr/bin/dash -c 'exit 3'",
        "/usr/bin/dash -c 'kill -9 $$'",
        &format!("/bin/cp /etc/passwd {first}"),
        &format!("/bin/cp /etc/passwd {second}"),
        "/bin/busybox echo done",
        "/bin/cat /etc/none",
    ];
    for _ in 0..2 {
        container.type_into(&["/bin/sh"], &format!("{}\nexit 0\n", typed.join("\n")))?;
    }
    let told = ended(lab, &container.id, 2)?;
    ensure!(told[0].last()?["id"] != told[1].last()?["id"], "both sessions have the same id");
    let ends = [0, 0, 0, 0, 3, -9, 0, 0, 0, 1].map(|end| if end < 0 { json!("9") } else { json!(end) });
    let mut programs = vec![("/bin/sh".to_owned(), json!(0))];
    programs.extend(typed.iter().map(|line| line.replace('\'', "")).zip(ends));
    for told in told {
        told.expect(&json!({
            "finding": "session", "severity": "high", "process": {"tty": "pts0", "origin": "entered"},
            "summary": {"via": "exec", "end_not_seen": null, "programs_omitted": null, "files_omitted": null},
        }))?;
        ensure!(told.programs()? == programs, "the programs are {:?}", told.programs()?);
        let files = told.last()?["summary"]["files"].as_array().context("it has no files")?;
        let files: Vec<_> = files.iter().map(|file| &file["path"]).collect();
        ensure!(files == [first.as_str(), second.as_str()], "the files are {files:?}");
        let kinds: Vec<_> = told.acts.iter().map(|act| act["finding"].as_str().unwrap_or_default()).collect();
        ensure!(kinds.iter().filter(|kind| **kind == "image_write").count() == 2, "the acts are {kinds:?}");
        ensure!(kinds.iter().filter(|kind| **kind == "shell_in_container").count() == 3, "the acts are {kinds:?}");
        let counts = &told.last()?["summary"]["findings"];
        ensure!(*counts == json!({"image_write": 2, "shell_in_container": 3}), "the counts are {counts}");
        ensure!(told.lines.len() <= 4, "{} lines for a short session", told.lines.len());
    }
    Ok(())
}

/// A command of a probe makes one line.
pub(super) fn without_terminal(lab: &mut Lab) -> Result<()> {
    let container = lab.new_container()?;
    container.exec(&["/bin/true"])?;
    let told = only(lab, &container.id)?;
    told.expect(&json!({"severity": "info", "process": {"tty": null}, "summary": {"via": "exec"}}))?;
    told.expect_programs(&[("/bin/true", json!(0))])?;
    ensure!(told.acts.is_empty(), "it has acts");
    lab.expect_none()
}

pub(super) fn other_program_with_terminal(lab: &mut Lab) -> Result<()> {
    let container = lab.new_container()?;
    container.exec_tty(&["/bin/cat", "/etc/passwd"])?;
    let told = only(lab, &container.id)?;
    told.expect(&json!({"severity": "high", "process": {"tty": "pts0"}, "summary": {"via": "exec"}}))?;
    told.expect_programs(&[("/bin/cat /etc/passwd", json!(0))])?;
    lab.expect_none()
}

/// The input of a shell is a script; that of another program is data.
pub(super) fn script_on_input(lab: &mut Lab) -> Result<()> {
    for (program, severity) in [("/bin/sh", "high"), ("/bin/cat", "info")] {
        let container = lab.new_container()?;
        container.exec_with_input(&[program], "/bin/true\n")?;
        only(lab, &container.id)?.expect(&json!({"severity": severity, "summary": {"via": "exec"}}))?;
    }
    // A shell that the session itself feeds with a pipe does not take its commands from outside.
    let container = lab.new_container()?;
    container.exec(&["/bin/sh", "-c", "echo true | sh"])?;
    only(lab, &container.id)?.expect(&json!({"severity": "medium"}))?;
    lab.take_findings().map(drop)
}

pub(super) fn by_nsenter(lab: &mut Lab) -> Result<()> {
    let container = lab.new_container()?;
    on_host("nsenter", ["-t", &container.pid.to_string(), "--mount", "--pid", "/bin/ls", "/"])?;
    let told = only(lab, &container.id)?;
    told.expect(&json!({
        "severity": "low", "process": {"origin": "entered", "tty": null},
        "summary": {"via": "nsenter", "end_not_seen": null},
    }))?;
    told.expect_programs(&[("/bin/ls /", json!(0))])
}

/// A daemonised child goes on after the first process has ended.
pub(super) fn outlives_its_first(lab: &mut Lab) -> Result<()> {
    let container = lab.new_container()?;
    container.exec_detached(&["/usr/bin/dash", "-c", "(/bin/sleep 2 &) ; exit 5"])?;
    let told = only(lab, &container.id)?;
    told.expect(&json!({"severity": "medium", "summary": {"end_not_seen": null}}))?;
    told.expect_programs(&[("/usr/bin/dash -c (/bin/sleep 2 &) ; exit 5", json!(5)), ("/bin/sleep 2", json!(0))])?;
    let message = told.last()?["message"].as_str().unwrap_or_default();
    let lasted: f32 = message.rsplit(' ').nth(1).context("no duration")?.parse()?;
    ensure!(lasted >= 2.0, "it lasted {lasted} s");
    lab.take_findings().map(drop)
}

pub(super) fn killed_container(lab: &mut Lab) -> Result<()> {
    let container = lab.new_container()?;
    for _ in 0..2 {
        container.exec_detached(&["/bin/sleep", "1000"])?;
    }
    // They must be running.
    thread::sleep(Duration::from_millis(500));
    container.kill()?;
    for told in ended(lab, &container.id, 2)? {
        told.expect(&json!({"severity": "info", "summary": {"end_not_seen": null}}))?;
        told.expect_programs(&[("/bin/sleep 1000", json!("9"))])?;
    }
    Ok(())
}

/// The story of an exploited service, from the process that was exploited to the last program of the attacker.
pub(super) fn reverse_shell(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.new_container()?, lab.file()?);
    let commands = format!("/bin/true\n/bin/cp /etc/passwd {path}\n(/bin/sleep 1 &)\n");
    let peer = container.service_does(&["reverse-shell", "127.0.0.1", &commands])?;
    let told = only(lab, &container.id)?;
    told.expect(&json!({
        "severity": "critical", "process": {"origin": "application", "peer": peer, "ppid": container.pid},
        "summary": {
            "via": "socket", "peer": peer, "started_by": SERVICE,
            "findings": {"shell_in_container": 1, "image_write": 1},
        },
    }))?;
    let copy = format!("/bin/cp /etc/passwd {path}");
    told.expect_programs(&[
        ("/bin/sh", json!(0)),
        ("/bin/true", json!(0)),
        (&copy, json!(0)),
        ("/bin/sleep 1", json!(0)),
    ])?;
    let kinds: Vec<_> = told.acts.iter().map(|act| &act["finding"]).collect();
    ensure!(kinds == ["shell_in_container", "image_write"], "the acts are {kinds:?}");
    ensure!(told.acts.iter().all(|act| act["process"]["origin"] == "application"), "an origin has changed");
    lab.take_findings().map(drop)
}

/// What a webshell does: the service runs the attacker's commands with a shell. The harmless shells of a service are no
/// session.
pub(super) fn webshell(lab: &mut Lab) -> Result<()> {
    let (container, path) = (lab.new_container()?, "/srv/dropped");
    let request = |command: &str| container.service_does(&["run", "/bin/sh", "-c", command]);
    request("/bin/cat /etc/passwd")?;
    lab.take_findings()?;
    let is_of_session = |line: &&Value| line["container"]["id"] == container.id.as_str() && !line["session"].is_null();
    ensure!(!lab.history.iter().any(|line| is_of_session(&line)), "a harmless shell is in a session");
    let (attack, later) = (format!("/bin/cp /bin/busybox {path}; {path} true; true"), "/bin/true; true");
    request(&attack)?;
    request(later)?;
    let id = wait_for("the session", PATIENCE, || {
        lab.take_findings()?;
        Ok(lab.history.iter().find(is_of_session).map(|line| line["session"].clone()))
    })?;
    let commands = [
        &format!("/bin/sh -c {attack}"),
        &format!("/bin/cp /bin/busybox {path}"),
        &format!("{path} true"),
        &format!("/bin/sh -c {later}"),
        "/bin/true",
    ];
    let told = wait_for("all programs of the session", PATIENCE, || {
        lab.take_findings()?;
        let told = Told::of(&lab.history, &id);
        Ok((told.programs()?.len() == commands.len()).then_some(told))
    })?;
    let last = told.last()?;
    let expected = json!({
        "finding": "session", "severity": "critical", "process": {"origin": "application", "ppid": container.pid},
        "summary": {
            "via": "application", "started_by": SERVICE, "ended": null,
            "findings": {"shell_in_container": 2, "image_write": 1, "drifted_exec": 1},
        },
    });
    if let Some(difference) = difference(last, &expected) {
        anyhow::bail!("{difference}\nfound: {last}");
    }
    told.expect_programs(&commands.map(|command| (command, Value::Null)))?;
    let kinds: Vec<_> = told.acts.iter().map(|act| &act["finding"]).collect();
    ensure!(kinds == ["image_write", "drifted_exec", "shell_in_container"], "the acts are {kinds:?}");
    // It ends with its container.
    let id = container.id.clone();
    drop(container);
    only(lab, &id).map(drop)
}

/// What a login by ssh looks like: a process of the container opens a terminal, and a shell takes commands from it.
pub(super) fn terminal_of_the_application(lab: &mut Lab) -> Result<()> {
    let container = lab.new_container()?;
    container.service_does(&["run-on-terminal", "/bin/sh", "-c", "/bin/true; exit 0"])?;
    let told = only(lab, &container.id)?;
    told.expect(&json!({
        "severity": "high", "process": {"origin": "application", "tty": "pts0"}, "summary": {"via": "terminal"},
    }))?;
    told.expect_programs(&[("/bin/sh -c /bin/true; exit 0", json!(0)), ("/bin/true", json!(0))])?;
    lab.take_findings().map(drop)
}

/// What is not listed is counted, and a session of many acts has few lines.
pub(super) fn many_programs(lab: &mut Lab) -> Result<()> {
    let container = lab.new_container()?;
    container.exec(&["/usr/bin/dash", "-c", "i=0; while [ $i -lt 300 ]; do /bin/true; i=$((i + 1)); done"])?;
    let told = only(lab, &container.id)?;
    told.expect(&json!({"summary": {"programs_omitted": 251}}))?;
    ensure!(told.programs()?.len() == 50, "{} programs are listed", told.programs()?.len());
    ensure!(told.lines.len() <= 6, "{} lines for one session", told.lines.len());
    lab.take_findings().map(drop)
}

/// A session goes on when the daemon is restarted, with the same id and higher revisions.
pub(super) fn restarted_sensor(lab: &mut Lab) -> Result<()> {
    let container = lab.new_container()?;
    container.exec_detached(&["/usr/bin/dash", "-c", "/bin/sleep 1000 & wait"])?;
    let sessions = |lab: &mut Lab, is_resumed: bool| {
        let container = container.id.as_str();
        wait_for("the line of the session", PATIENCE, || {
            lab.take_findings()?;
            let is_wanted = |line: &&Value| {
                line["finding"] == "session"
                    && line["container"]["id"] == container
                    && line["summary"]["resumed"].is_null() != is_resumed
            };
            Ok(lab.history.iter().find(is_wanted).cloned())
        })
    };
    let before = sessions(lab, false)?;
    lab.without_sensor(|_| Ok(()))?;
    let after = sessions(lab, true)?;
    ensure!(before["id"] == after["id"], "the id {} became {}", before["id"], after["id"]);
    ensure!(before["revision"].as_u64() < after["revision"].as_u64(), "the revision did not grow");
    container.kill()?;
    let told = only(lab, &container.id)?;
    told.expect(&json!({"process": {"origin": "entered"}, "summary": {"via": "exec", "end_not_seen": null}}))?;
    lab.take_findings().map(drop)
}

/// The commands of people who use an engine.
fn of_engine(lab: &mut Lab, engine: &'static Engine, client: Option<&str>) -> Result<()> {
    lab.node.ensure(engine)?;
    let container: engine::Container = engine.service(lab.number())?;
    container.exec(&["/bin/true"])?;
    let told = only(lab, &container.id)?;
    told.expect(&json!({"severity": "info", "process": {"origin": "entered"}, "summary": {"via": "exec"}}))?;
    told.expect_programs(&[("/bin/true", json!(0))])?;
    if let Some(client) = client {
        on_host(client, ["exec", "--tty", &container.id, "/bin/cat", "/etc/passwd"])?;
        let told = ended(lab, &container.id, 2)?.pop().context("it is there")?;
        told.expect(&json!({"severity": "high", "process": {"tty": "pts0"}, "summary": {"via": "exec"}}))?;
        told.expect_programs(&[("/bin/cat /etc/passwd", json!(0))])?;
    }
    lab.take_findings().map(drop)
}

pub(super) fn docker(lab: &mut Lab) -> Result<()> {
    of_engine(lab, &DOCKER, Some("docker"))
}

pub(super) fn containerd(lab: &mut Lab) -> Result<()> {
    of_engine(lab, &CRI, None)
}

pub(super) fn podman(lab: &mut Lab) -> Result<()> {
    of_engine(lab, &PODMAN, Some("podman"))
}
