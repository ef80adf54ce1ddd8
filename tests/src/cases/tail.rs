//! What the live view shows a person.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::expectation::write;
use super::lab::Lab;
use crate::container::Container;
use crate::program::{Running, on_host, wait_for};
use crate::sensor::{DETECTOR, Tail};
use crate::terminal::Terminal;

/// Where the live view writes to.
const SHOWN: &str = "/run/lab/shown";
/// The exit code of a command that finds no daemon.
const NOT_READY: i32 = 5;

/// The daemon stops and is killed, and starts again. The live view waits for it, and says so.
pub(super) fn restarted_daemon(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    let mut tail = Tail::start(Path::new(SHOWN), "wide", &[])?;
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
        tail = Tail::start(Path::new(SHOWN), "wide", &[])?;
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
    let tail = Tail::start(part, "wide", &["--container", &container.id])?;
    let all = Tail::start(whole, "wide", &["--container", &container.id, "--all"])?;
    container.exec(&["/bin/true"])?;
    all.wait_for(" session of busybox in container ")?;
    container.service_does(&["append", &path])?;
    lab.take_findings()?;
    let shown = tail.wait_for(&format!("  {path} opened for writing"))?;
    ensure!(!shown.contains(" session of "), "a session of severity info is shown: {shown}");
    let (code, shown) = tail.interrupt()?;
    let last = shown.lines().last().unwrap_or_default();
    ensure!(
        code == 0 && last.starts_with("lines not shown: ") && last.contains(" about findings of severity info"),
        "the view ended with {code}: {shown}"
    );
    ensure!(all.interrupt()?.0 == 0, "the view of everything failed");
    Ok(())
}

/// Somebody runs a program of their own in a container. Each line of the log becomes one of each format, and those of
/// the live view have the same ids.
pub(super) fn formats(lab: &mut Lab) -> Result<()> {
    const PROGRAM: &str = "/usr/bin/backup";
    let container = lab.new_container()?;
    let mut view = Command::new(DETECTOR);
    let view = Running::start(view.args(["tail", "-o", "falco"]).stdout(File::create(SHOWN)?))?;
    wait_for("the first line of the live view", Duration::from_secs(60), || {
        container.service_does(&["append", &lab.file()?])?;
        Ok((fs::metadata(SHOWN)?.len() > 0).then_some(()))
    })?;
    container.exec_tty(&["/bin/sh", "-c", &format!("cp /bin/busybox {PROGRAM}; {PROGRAM}; exit 0")])?;
    lab.take_findings()?;
    let log = lab.sensor()?.lines().to_owned();
    let log = log.to_str().context("the path is text")?;
    for (format, kind, facts) in [
        ("ocsf", "/metadata/event_code", [("/class_uid", json!(2004)), ("/evidences/0/process/path", json!(PROGRAM))]),
        ("ecs", "/event/action", [("/event/kind", json!("alert")), ("/process/executable", json!(PROGRAM))]),
        (
            "falco",
            "/tags/1",
            [("/rule", json!("Drop and execute new binary in container")), ("/source", json!("syscall"))],
        ),
    ] {
        let count = || anyhow::Ok(fs::read_to_string(log)?.lines().count());
        let before = count()?;
        let text = on_host(DETECTOR, ["convert", "--to", format, log])?;
        let lines = text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
        ensure!((before..=count()?).contains(&lines.len()), "{} lines of {format}, {before} of the log", lines.len());
        let found = lines.iter().find(|line| line.pointer(kind).is_some_and(|kind| kind == "drifted_exec"));
        let found = found.with_context(|| format!("no drifted_exec in {format}"))?;
        for (fact, value) in facts {
            ensure!(found.pointer(fact) == Some(&value), "{fact} is not {value} in {found}");
        }
        if format == "falco" {
            let id = found["uuid"].as_str().context("it has an id")?;
            wait_for("the same line in the live view", Duration::from_secs(20), || {
                Ok(fs::read_to_string(SHOWN)?.contains(id).then_some(()))
            })?;
            let has_shell = lines.iter().any(|line| line["rule"] == "Terminal shell in container");
            ensure!(has_shell, "there is no shell among {lines:?}");
        }
    }
    ensure!(view.stop()?.success(), "the view failed");
    Ok(())
}

/// The view begins with the log, from a time on and across a rotation, and goes on with the stream. Lines are written
/// meanwhile.
pub(super) fn since_a_time(lab: &mut Lab) -> Result<()> {
    let (container, before, first) = (lab.new_container()?, lab.file()?, lab.file()?);
    for path in [&before, &first] {
        container.service_does(&["append", path])?;
        lab.take_findings()?;
    }
    let is_first = |line: &&Value| line["file"]["path"] == first.as_str();
    let time = lab.history.iter().find(is_first).and_then(|line| line["time"].as_str());
    let time = time.context("the first change was not told")?.to_owned();
    lab.rotate_output(Signal::HUP)?;
    let script =
        "i=0; while [ ! -e /data/stop ]; do : > /srv/since-$i; i=$((i + 1)); /bin/sleep 0.02; done; : > /srv/since-end";
    container.exec_detached(&["/usr/bin/dash", "-c", script])?;
    let mut tail = Command::new(DETECTOR);
    let tail = Running::start(tail.args(["tail", "-o", "json", "--since", &time]).stdout(File::create(SHOWN)?))?;
    let of_container = |text: &str| {
        let lines = text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
        let lines = lines.into_iter().filter(|line| line["container"]["id"] == container.id.as_str());
        anyhow::Ok(lines.map(|line| (line["id"].to_string(), line["revision"].to_string())).collect::<Vec<_>>())
    };
    let shown_with = |what: &str, is_there: fn(&str) -> bool| {
        wait_for(what, Duration::from_secs(120), || {
            let text = fs::read_to_string(SHOWN)?;
            Ok((text.ends_with('\n') && text.lines().any(is_there)).then_some(text))
        })
    };
    // The arguments of the shell have the names of all files. Lines of the log have their number, and those of the
    // stream have none.
    let is_live = |line: &str| line.contains("\"path\":\"/srv/since-") && !line.contains("\"seq\":");
    shown_with("a change in the stream", is_live)?;
    fs::write(container.volume().join("stop"), "")?;
    let shown = shown_with("the last change", |line| line.contains("\"path\":\"/srv/since-end\""))?;
    ensure!(tail.stop()?.success(), "the view failed");
    ensure!(!shown.contains(&before) && shown.contains(&first), "it does not begin at {time}: {shown}");
    lab.take_findings()?;
    let logged: String = lab.history.iter().map(|line| line.to_string() + "\n").collect();
    let (mut shown, logged) = (of_container(&shown)?, of_container(&logged)?);
    let from = logged.iter().position(|line| shown.first() == Some(line)).context("the log lacks the first line")?;
    shown.truncate(logged.len() - from);
    ensure!(shown[..] == logged[from..][..shown.len()], "{shown:?} is not as in {logged:?}");
    Ok(())
}

/// What a person does in the container: two changes, with something else in between.
fn work(container: &Container, paths: [&str; 2], meanwhile: impl FnOnce() -> Result<()>) -> Result<()> {
    let [first, second] = paths;
    let script =
        format!("echo 1 > {first}; while [ ! -e /data/go ]; do /bin/sleep 0.1; done; echo 2 > {second}; exit 3");
    thread::scope(|scope| {
        let worker = scope.spawn(|| container.exec_tty(&["/bin/sh", "-c", &script]));
        let done = meanwhile();
        fs::write(container.volume().join("go"), "")?;
        let ended = worker.join().expect("it does not panic");
        ensure!(ended.is_err_and(|error| error.to_string().contains("exit status: 3")), "the session did not end so");
        done
    })
}

/// A session is told as a story, although another container is changed in between.
pub(super) fn story(lab: &mut Lab) -> Result<()> {
    let (container, other) = (lab.new_container()?, lab.container()?);
    let (first, second, of_other) = (lab.file()?, lab.file()?, lab.file()?);
    let tail = Tail::start(Path::new(SHOWN), "wide", &[])?;
    work(&container, [&first, &second], || {
        tail.wait_for(&format!(" {first} truncated in container "))?;
        other.service_does(&["append", &of_other])?;
        tail.wait_for(&format!("  {of_other} opened for writing"))?;
        Ok(())
    })?;
    let text = tail.wait_for("└ session_ended")?;
    let [id, other_id] = [&container.id, &other.id].map(|id| &id[..12]);
    let lines = || text.lines().filter(|line| line.contains(id) || line.contains(other_id));
    let mark = lines().find_map(|line| line.split_once("  #")).and_then(|(_, rest)| rest.split(' ').next());
    let mark = format!("#{}", mark.unwrap_or_default());
    let shown: Vec<_> = lines().filter(|line| !line.contains(" update of ")).collect();
    let expected = [
        (id, "session", "session of busybox in container "),
        (id, "├ shell_in_container", "sh started in container "),
        (id, "├ image_write", &format!("{first} truncated in container ")),
        (other_id, "image_write", &format!("{of_other} opened for writing")),
        (id, "├ image_write", &format!("{second} truncated in container ")),
        (id, "└ session_ended", "session of busybox in container "),
    ];
    ensure!(shown.len() == expected.len(), "the story has other lines: {text}");
    for (line, (container, kind, message)) in shown.iter().zip(expected) {
        let mark = if container == id { format!("{mark} ") } else { String::new() };
        let wanted = format!("  {container}  {kind:<22}  {mark}{message}");
        ensure!(line.contains(&wanted), "there should be {wanted:?} in {line:?} of {text}");
    }
    // What follows its session repeats nothing of it; what does not says it again.
    ensure!(!shown[2].contains(" < runc") && shown[4].contains(" < runc"), "the context is wrong: {text}");
    ensure!(shown[5].ends_with(" · exit code 3"), "the end does not say how: {text}");
    ensure!(tail.interrupt()?.0 == 0, "the view failed");
    lab.take_findings().map(drop)
}

/// On a terminal, the line of a session grows while it is on the screen, and nothing else is overwritten.
pub(super) fn story_on_a_terminal(lab: &mut Lab) -> Result<()> {
    let container = lab.new_container()?;
    let (first, second) = (lab.file()?, lab.file()?);
    let mut tail = Terminal::run(DETECTOR, &["tail"])?;
    tail.wait_for("not shown: ")?;
    tail.type_in("looking")?;
    work(&container, [&first, &second], || {
        tail.wait_for(&format!(" {first} truncated by "))?;
        // An update comes after a second. The shell and a sleep are two programs at least.
        tail.wait_for(" programs, 1 change of files")?;
        Ok(())
    })?;
    tail.wait_for("2 changes of files, ended after ")?;
    let text = tail.wait_for("└ session_ended")?;
    for (wanted, count) in [
        ("not shown: ", 1),
        (" session #", 1),
        ("├ shell_in_container", 1),
        ("├ image_write", 2),
        ("└ session_ended", 1),
        (" update of ", 0),
        ("looking", 0),
    ] {
        ensure!(text.matches(wanted).count() == count, "{wanted:?} is not {count} times on the screen:\n{text}");
    }
    // Somebody presses Enter, and all lines move up. From then on, updates are lines of their own.
    fs::remove_file(container.volume().join("go"))?;
    let (first, second) = (lab.file()?, lab.file()?);
    work(&container, [&first, &second], || {
        tail.wait_for(&format!(" {first} truncated by "))?;
        tail.type_in("\r")?;
        tail.wait_for(" update of ").map(drop)
    })?;
    let text = tail.wait_for(&format!(" {second} truncated by "))?;
    ensure!(text.contains(&format!(" {first} truncated by ")), "a line was overwritten:\n{text}");
    ensure!(tail.interrupt()? == 0, "the view failed");
    lab.take_findings().map(drop)
}

/// `detector top` shows how well the daemon watches, a container that has drifted, and what was done in it.
pub(super) fn top(lab: &mut Lab) -> Result<()> {
    let container = lab.new_container()?;
    let file = lab.file()?;
    let mut top = Terminal::run(DETECTOR, &["top"])?;
    top.wait_for("watching: all hooks proven")?;
    container.service_does(&["append", &file])?;
    let text = top.wait_for(&format!("image_write {file} "))?;
    ensure!(text.contains(&container.id[..12]), "the container is not on the screen:\n{text}");
    // The ledger is asked again after some seconds.
    top.wait_for(" drifted from the image")?;
    ensure!(text.contains("[d drift]"), "containers have another order:\n{text}");
    top.type_in("n")?;
    top.wait_for("[n name]")?;
    ensure!(top.interrupt()? == 0, "the view failed");
    lab.take_findings().map(drop)
}
