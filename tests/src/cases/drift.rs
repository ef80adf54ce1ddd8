//! What the ledger says about containers.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::expectation::difference;
use super::lab::Lab;
use crate::engine::{CRI, DOCKER, Engine};
use crate::image::{DASH, MANY};
use crate::program::{finish, wait_for};
use crate::sensor::{DETECTOR, detector};

/// The file of the ledger.
const LEDGER: &str = "/var/lib/detector/ledger.redb";
/// A program that is added.
const IMPLANT: &str = "/usr/bin/implant";
/// How long it can take until the ledger has what has happened.
const PATIENCE: Duration = Duration::from_secs(20);
/// The exit code if a container has drifted.
const DRIFTED: i32 = 8;

/// Files are changed, added and removed, and one of them is executed, by the application and by somebody who came in.
/// The ledger goes on when the daemon was killed, and says that it did not run. A damaged ledger is set aside.
pub(super) fn container(lab: &mut Lab) -> Result<()> {
    let (container, untouched) = (lab.new_container()?, lab.new_container()?);
    let (changed, removed, later) = (lab.file()?, lab.file()?, lab.file()?);
    container.service_does(&["append", &changed])?;
    container.service_does(&["unlink", &removed])?;
    container.service_does(&["create", "/srv/for-a-while"])?;
    container.service_does(&["copy", DASH, IMPLANT])?;
    container
        .type_into(&["/bin/sh"], &format!("{IMPLANT} -c true; echo 1 > /srv/by-hand; rm /srv/for-a-while; exit\n"))?;
    lab.wait_for_line(|line| line["event"] == "session_ended")?;
    lab.take_late_findings()?;
    let told = drift(&container.id)?;
    let head = json!({"verdict": "drifted", "ran_before": false, "starts": 1, "incomplete": null, "sessions": 1});
    expect(&told, &head)?;
    for (path, state) in [
        (changed.as_str(), "changed"),
        (&removed, "removed"),
        ("/srv/for-a-while", "added_and_removed"),
        (IMPLANT, "added"),
        ("/srv/by-hand", "added"),
    ] {
        expect(entry(&told, path)?, &json!({"state": state}))?;
    }
    let implant = entry(&told, IMPLANT)?;
    expect(implant, &json!({"severity": "high", "executed": {"count": 1}, "differs": "content"}))?;
    expect(&implant["actors"][0], &json!({"exe": "/usr/bin/tool", "uid": 0, "session": null}))?;
    let session = &told["session_list"][0];
    expect(session, &json!({"via": "exec", "severity": "high", "uid": 0, "changes": 2}))?;
    ensure!(!session["ended"].is_null(), "the session lasts: {session}");
    let by_hand = &entry(&told, "/srv/by-hand")?["actors"][0];
    expect(by_hand, &json!({"origin": "entered", "session": session["id"]}))?;
    expect(&drift(&untouched.id)?, &json!({"verdict": "image", "incomplete": null, "entries": null}))?;
    let (code, table) = shown(&["drift", "--exit-code"])?;
    let short = &container.id[..12];
    ensure!(code == DRIFTED && table.contains(short) && table.contains("drifted"), "{code}: {table}");
    let names = completed(&["detector", "drift"])?;
    ensure!(names.contains(&short.to_owned()), "no runtime has told a name, and {short} is not in {names:?}");
    let (code, said) = shown(&["drift", &untouched.id, "--verify", "--exit-code"])?;
    ensure!(code == 0 && said.contains("everything that is in the upper layer (0 changes"), "{code}: {said}");
    let (code, said) = shown(&["drift", &container.id, "--diff", "/srv/by-hand"])?;
    ensure!(code == 0 && said.ends_with("in the container\n@@ -0,0 +1 @@\n+1\n"), "{code}: {said}");
    let (code, said) = shown(&["drift", &container.id, "--diff", IMPLANT])?;
    ensure!(code == 0 && said.contains("the image has nothing, and the container has "), "{code}: {said}");
    let (code, said) = shown(&["drift", &container.id, "--diff", DASH])?;
    ensure!(code == 0 && said.contains("the container has what the image has"), "{code}: {said}");
    let (code, said) = shown(&["drift", &container.id, "--diff", &removed])?;
    ensure!(code == 0 && said.contains(" @@\n-as it is in the image"), "{code}: {said}");
    let (code, said) = shown(&["drift", &container.id, "--diff", &changed])?;
    ensure!(code == 0 && said.contains("\n as it is in the image") && said.contains("\n+"), "{code}: {said}");
    let (code, said) = shown(&["drift", &container.id, "--verify", "-o", "wide"])?;
    ensure!(code == 0 && said.contains("everything that is in the upper layer (4 changes"), "{code}: {said}");

    let sensor = lab.take_sensor()?;
    sensor.signal(Signal::KILL)?;
    drop(sensor);
    lab.ensure_sensor()?;
    container.service_does(&["append", &later])?;
    lab.take_findings()?;
    let again = drift(&container.id)?;
    expect(
        &again,
        &json!({"verdict": "drifted", "ran_before": false, "starts": 1, "watched_since": told["watched_since"]}),
    )?;
    expect(entry(&again, &later)?, &json!({"state": "changed"}))?;
    expect(entry(&again, IMPLANT)?, implant)?;
    ensure!(again["incomplete"].to_string().contains("the detector did not run"), "{}", again["incomplete"]);

    lab.without_sensor(|_| Ok(fs::write(LEDGER, "this is no ledger")?))?;
    let log = lab.sensor()?.log();
    ensure!(log.contains("ledger.redb.set-aside, and a new one was begun"), "the log does not say so: {log}");
    expect(&drift(&container.id)?, &json!({"verdict": "image", "ran_before": true}))?;
    // What it does not know any more is in the upper layer.
    let (code, said) = shown(&["drift", &container.id, "--verify", "--exit-code", "-o", "json"])?;
    ensure!(code == DRIFTED, "{code}: {said}");
    let told: Value = serde_json::from_str(said.lines().next().unwrap_or_default())?;
    let mut unknown = [&changed, &later, &IMPLANT.to_owned(), &"/srv/by-hand".to_owned()]
        .map(|path| json!({"path": path, "kind": "file"}))
        .to_vec();
    unknown.push(json!({"path": removed, "kind": "removed"}));
    unknown.sort_by_key(|change| change["path"].to_string());
    ensure!(told["upper_layer"]["unknown"] == json!(unknown), "{told}");
    let (code, said) = shown(&["drift", "no-such-container"])?;
    ensure!(code == 1 && said.contains("no container with this id, name or pod"), "{code}: {said}");
    Ok(())
}

/// Three containers of one image do the same, and one of them does something else, too: that is its drift. A container
/// that does nothing is known by its name.
pub(super) fn replicas(lab: &mut Lab) -> Result<()> {
    expect_one_to_differ(lab, &DOCKER, &[], "1 of 3 replicas differs")
}

/// The same with the pods of a Deployment.
pub(super) fn replicas_of_pods(lab: &mut Lab) -> Result<()> {
    expect_one_to_differ(lab, &CRI, &["shop"], "lab/shop · 1 of 3 replicas differs")
}

fn expect_one_to_differ(lab: &mut Lab, engine: &'static Engine, options: &[&str], verdict: &str) -> Result<()> {
    lab.node.ensure(engine)?;
    let mut start = || engine.service_with(lab.number(), options);
    let (one, two, three) = (start()?, start()?, start()?);
    let all = [&one, &two, &three];
    for container in all {
        lab.wait_until_known(container)?;
    }
    two.service_does(&["copy", DASH, IMPLANT])?;
    lab.take_findings()?;
    // The last one must become as old as the second one was.
    let told = wait_for("the comparison of all three", Duration::from_secs(120), || {
        let (code, text) = shown(&["drift", "--replicas", &three.id, "-o", "json"])?;
        ensure!(code == 0, "{code}: {text}");
        let told: Value = serde_json::from_str(&text).with_context(|| format!("not one group: {text}"))?;
        let not_by = told["differences"].pointer("/0/not_by").and_then(Value::as_array).map_or(0, Vec::len);
        Ok((not_by == 2).then_some(told))
    })?;
    let [difference] = &told["differences"].as_array().context("it is a list")?[..] else { bail!("{told}") };
    expect(difference, &json!({"path": IMPLANT, "state": "added", "severity": "high"}))?;
    ensure!(difference["by"][0]["id"] == two.id.as_str(), "{told}");
    expect(&told, &json!({"differing": 1}))?;
    ensure!(told["in_common"].as_u64() >= Some(1), "{told}");
    let (code, text) = shown(&["drift", "--replicas", "--exit-code"])?;
    let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    ensure!(code == DRIFTED && one_line.contains(verdict) && text.contains(IMPLANT), "{code}: {text}");
    let (code, page) = shown(&["drift", "--replicas", "-o", "html"])?;
    let is_page = page.starts_with("<!DOCTYPE html>") && page.contains("1 of 3 replicas differs");
    ensure!(code == 0 && is_page && page.contains(IMPLANT), "{code}: {page}");
    let container = drift(&one.id)?["container"].take();
    let (name, pod) = (container["name"].as_str().context("it has a name")?, container["pod"]["name"].as_str());
    if pod.is_none() {
        expect(&drift(name)?, &json!({"container": {"id": one.id}, "ran_before": false}))?;
    }
    let mut offers = vec![(vec!["detector", "drift"], name), (vec!["detector", "tail", "--container"], name)];
    offers.extend(pod.map(|pod| (vec!["detector", "tail", "--pod"], pod)));
    for (words, wanted) in offers {
        let completed = completed(&words)?;
        ensure!(completed.iter().any(|offer| offer == wanted), "{wanted} is not in {completed:?}");
    }
    drop((one, two, three));
    lab.take_findings().map(drop)
}

/// A container runs with a read-only root as advised, and does there what it did before. What the image has where it
/// must be able to write is counted.
pub(super) fn advice(lab: &mut Lab) -> Result<()> {
    lab.node.ensure(&DOCKER)?;
    let container = DOCKER.service(lab.number())?;
    lab.wait_until_known(&container)?;
    container.service_does(&["mkdir", "/srv/state"])?;
    let acts = [["create", "/srv/state/one"], ["create", "/run/app.pid"]];
    for act in acts {
        container.service_does(&act)?;
    }
    container.service_does(&["append", "/etc/app.conf"])?;
    container.exec(&["/usr/bin/tool", "create", "/opt-by-hand"])?;
    lab.take_findings()?;
    let (code, command) = shown(&["advise", &container.id, "-o", "docker"])?;
    let words: Vec<_> = command.split_whitespace().collect();
    let ["docker", "run", options @ .., _image] = &words[..] else { bail!("{code}: {command}") };
    ensure!(options == ["--read-only", "--tmpfs", "/run", "--tmpfs", "/srv/state"], "{code}: {command}");
    let (code, said) = shown(&["advise", &container.id])?;
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    ensure!(code == 0 && said.contains("not solved: /etc/app.conf is beside files that others need"), "{said}");
    ensure!(!said.contains("by-hand") && said.contains("only people who came in"), "{said}");

    let refused = DOCKER.service_with(lab.number(), &["--read-only"])?.service_does(&acts[0]);
    ensure!(refused.is_err(), "it can write without a mount: {refused:?}");
    let advised = DOCKER.service_with(lab.number(), options)?;
    for act in acts {
        advised.service_does(&act)?;
    }
    lab.take_findings()?;
    expect(&drift(&advised.id)?, &json!({"verdict": "image", "entries": null}))?;

    let (own, file) = (lab.new_container()?, lab.file()?);
    own.service_does(&["append", &file])?;
    let mount = wait_for("the advice", PATIENCE, || {
        let (code, told) = shown(&["advise", &own.id, "-o", "json"])?;
        let mut told: Value = serde_json::from_str(&told).with_context(|| format!("{code}: {told}"))?;
        Ok(told.pointer_mut("/mounts/0").map(Value::take))
    })?;
    ensure!(mount["path"] == "/srv/many" && mount["hides"] == json!(MANY), "{mount}");
    drop((container, advised));
    lab.take_findings().map(drop)
}

/// What `detector drift` says about a container, with all entries.
fn drift(container: &str) -> Result<Value> {
    let (code, text) = shown(&["drift", container, "-o", "json", "--all"])?;
    ensure!(code == 0, "{code}: {text}");
    serde_json::from_str(&text).with_context(|| format!("not one container: {text}"))
}

/// The exit code of a command, and what it has said.
fn shown(args: &[&str]) -> Result<(i32, String)> {
    let output = detector(args)?;
    let text = String::from_utf8(output.stdout)? + &String::from_utf8_lossy(&output.stderr);
    Ok((output.status.code().context("the command was killed")?, text))
}

/// What a shell offers as the word after these.
fn completed(words: &[&str]) -> Result<Vec<String>> {
    let mut command = Command::new(DETECTOR);
    command.env("DETECTOR_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", words.len().to_string());
    let output = finish(command.arg("--").args(words).arg(""))?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
}

fn entry<'a>(told: &'a Value, path: &str) -> Result<&'a Value> {
    let entries = told["entries"].as_array().with_context(|| format!("there are no entries: {told}"))?;
    entries.iter().find(|entry| entry["path"] == path).with_context(|| format!("{path} is not in {told}"))
}

fn expect(found: &Value, expected: &Value) -> Result<()> {
    match difference(found, expected) {
        Some(difference) => bail!("{difference}\nfound: {found}"),
        None => Ok(()),
    }
}
