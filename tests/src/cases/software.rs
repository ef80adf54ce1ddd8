//! Real servers in containers that are set up as their official images are: an entrypoint that prepares the start and
//! then becomes the server, another user, data on a volume. Clients keep them busy.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::expectation::difference;
use super::expected::{expect_told, is_end, lines_of, wait_for_line};
use super::lab::Lab;
use super::servers::{
    APACHE, CHROMIUM, EXPOSED_REDIS, FLASK, GCC, LOGROTATE, MARIADB, NGINX, NODE, POSTGRESQL, RABBITMQ, REDIS, SSHD,
    Software, TOMCAT,
};
use super::session;
use crate::container::{Container, Setup};
use crate::engine::disk::DISK;
use crate::engine::{self, CHECK, DOCKER, FOLDER, PODMAN};
use crate::image::{JOB, SOURCE};
use crate::program::{Running, on_host, wait_for};
use crate::protocol::Message;
use crate::root::Root;
use crate::sensor::detector;

/// How long a server may take to start, or to answer several requests, on an emulated machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// Clients of a server, which send one request after the other. They run on the host, in the network of the container.
pub(super) struct Clients {
    _process: Running,
    /// A file with one byte for each correct answer.
    answers: PathBuf,
}

impl Clients {
    /// Starts the clients of a container, whose first process has this id. They rest after each answer.
    pub(super) fn start(software: &Software, pid: u32, answers: PathBuf, rest: Duration) -> Result<Self> {
        let Software { client, answer, .. } = software;
        let script = format!(
            "while :; do {client} 2> /dev/null | {{
            read -r answer
            if [ \"$answer\" = '{answer}' ]; then echo >> {}; /bin/busybox sleep {}; else /bin/busybox sleep 1; fi
            }}; done",
            answers.display(),
            rest.as_secs()
        );
        let clients = in_network(pid, &["/bin/busybox", "sh", "-c", &script]);
        Ok(Self { _process: Running::start(Command::new("nsenter").args(clients))?, answers })
    }

    /// Waits until they have so many answers more.
    pub(super) fn have(&self, more: u64) -> Result<()> {
        let count = || fs::metadata(&self.answers).map_or(0, |file| file.len());
        let before = count();
        wait_for("the answers", PATIENCE, || Ok((count() >= before + more).then_some(())))
    }
}

/// A running server, and its clients.
pub(super) struct Server {
    pub(super) clients: Clients,
    pub(super) container: Container,
    requests: u64,
}

impl Server {
    /// Starts a server, and waits until it answers.
    fn start(lab: &mut Lab, software: &Software) -> Result<Self> {
        Self::start_after(lab, "", software, Duration::ZERO)
    }

    /// Like [`Self::start`]. The entrypoint runs these commands first, and clients rest after each answer.
    pub(super) fn start_after(lab: &mut Lab, commands: &str, software: &Software, rest: Duration) -> Result<Self> {
        let is_privileged = software.is_privileged;
        let setup = Setup { root: Root::OverlayOnDisk, is_privileged, ..Setup::default() };
        let container = Container::service_after_with(lab.number(), &software.entrypoint(commands), setup)?;
        let clients = Clients::start(software, container.pid, container.volume().with_extension("answers"), rest)?;
        let server = Self { clients, container, requests: software.requests };
        server
            .clients
            .have(1)
            .with_context(|| format!("{} does not answer: {}", software.name, server.container.log()))?;
        // The clients are in the network of the container, so only this connection is from elsewhere.
        server.container.service_does(&["look", SOURCE])?;
        Ok(server)
    }

    /// Runs a client, and returns what it prints.
    fn ask(&self, client: &[&str]) -> Result<String> {
        on_host("nsenter", in_network(self.container.pid, client))
    }

    fn page(&self, path: &str) -> Result<String> {
        self.ask(&["/bin/busybox", "wget", "-q", "-O", "-", &format!("http://127.0.0.1:{path}")])
    }

    /// Expects these findings of medium severity or above, each once or more often, and no others, while the server
    /// remains busy. Returns them.
    fn expect(self, lab: &mut Lab, attack: &[Value]) -> Result<Vec<Value>> {
        self.clients.have(self.requests)?;
        lab.take_late_findings()?;
        let is_of_act = |line: &&Value| line["finding"].is_string() && line["finding"] != "session" && matters(line);
        let found: Vec<Value> = lab.history.iter().filter(is_of_act).cloned().collect();
        for wanted in attack {
            ensure!(found.iter().any(|found| difference(found, wanted).is_none()), "there is no {wanted}");
        }
        for found in &found {
            ensure!(attack.iter().any(|wanted| difference(found, wanted).is_none()), "this is unexpected: {found}");
        }
        // What the attack has left in the container may still act.
        drop(self);
        lab.take_late_findings()?;
        Ok(found)
    }
}

/// The arguments with which nsenter runs a program of the host in the network of a process.
fn in_network(pid: u32, args: &[&str]) -> Vec<String> {
    ["--net", "-t", &pid.to_string()].iter().chain(args).map(|&part| part.to_owned()).collect()
}

pub(super) fn matters(finding: &Value) -> bool {
    !["info", "low"].iter().any(|below| finding["severity"] == *below)
}

/// Sends a row of the table about busy servers: a server, since when it was observed, and its lines.
pub(super) fn send_row(name: &str, start: Instant, lines: &[Value]) -> Result<()> {
    let mut counts = BTreeMap::<&str, usize>::new();
    for line in lines {
        let severity = line["severity"].as_str().or_else(|| line["event"].as_str());
        *counts.entry(severity.unwrap_or_default()).or_default() += 1;
    }
    let counts: Vec<_> = counts.iter().map(|(severity, count)| format!("{count} {severity}")).collect();
    let row = format!("{name}, {:.0} s: {}", start.elapsed().as_secs_f32(), counts.join(", "));
    Message::Observed { row }.send()
}

/// What is changed besides, to see that the container of a busy server is watched.
pub(super) const PROOF: &str = "/srv/proof";

/// A busy server makes no finding of medium severity or above. Its findings are the same in a replay.
fn expect_quiet(lab: &mut Lab, software: &Software) -> Result<()> {
    let loud = observe(lab, software)?;
    ensure!(loud.is_empty(), "this is not quiet: {}", loud[0]);
    Ok(())
}

/// Keeps a server busy, and returns its lines of medium severity or above.
fn observe(lab: &mut Lab, software: &Software) -> Result<Vec<Value>> {
    let start = Instant::now();
    let run = lab.counted(|lab| {
        let server = Server::start(lab, software)?;
        server.clients.have(software.requests)?;
        server.container.service_does(&["create", PROOF]).map(drop)
    })?;
    let texts = run.expect_same()?;
    let (proof, mut lines): (Vec<_>, Vec<_>) =
        parsed(&texts)?.into_iter().partition(|line| line["file"]["path"] == PROOF);
    ensure!(proof.len() == 1 && matters(&proof[0]), "the proof is {proof:?}");
    send_row(software.name, start, &lines)?;
    Message::Observed { row: format!("{}: {}", software.name, learnt(&texts)?) }.send()?;
    lines.retain(matters);
    Ok(lines)
}

fn parsed(lines: &[String]) -> Result<Vec<Value>> {
    lines.iter().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// How many exceptions are learnt from these lines, and what they leave of them. A check says the same.
fn learnt(lines: &[String]) -> Result<String> {
    const LINES: &str = "/tmp/observed.json";
    const POLICY: &str = "/tmp/observed.toml";
    fs::write(LINES, lines.join("\n"))?;
    let run = |args: &[&str]| {
        let output = detector(&[&["learn"], args].concat())?;
        ensure!(output.status.success(), "learn {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    let policy = run(&["--without-image", "--include-shells", "--from", LINES])?;
    let told =
        policy.lines().find_map(|line| line.strip_prefix("# Exceptions: ")).context("it does not say how many")?;
    fs::write(POLICY, &policy)?;
    let checked = run(&["--check", POLICY, LINES])?;
    let count = |before: &str| {
        let count = checked.lines().find_map(|line| line.strip_prefix(before)?.split(' ').next()?.parse::<u64>().ok());
        count.with_context(|| format!("{before:?} is not in {checked}"))
    };
    let (suppressed, remaining) = (count("suppressed: ")?, count("remaining:  ")?);
    let said = format!("They would have suppressed {suppressed} of {} findings above info.", suppressed + remaining);
    // Each server's container makes the proof.
    ensure!(suppressed > 0 && told.ends_with(&said), "{told:?} is not {said:?}");
    Ok(format!("learnt exceptions: {told}"))
}

pub(super) fn nginx(lab: &mut Lab) -> Result<()> {
    expect_quiet(lab, &NGINX)
}

pub(super) fn redis(lab: &mut Lab) -> Result<()> {
    expect_quiet(lab, &REDIS)
}

pub(super) fn postgresql(lab: &mut Lab) -> Result<()> {
    expect_quiet(lab, &POSTGRESQL)
}

pub(super) fn mariadb(lab: &mut Lab) -> Result<()> {
    expect_quiet(lab, &MARIADB)
}

pub(super) fn rabbitmq(lab: &mut Lab) -> Result<()> {
    expect_quiet(lab, &RABBITMQ)
}

pub(super) fn apache(lab: &mut Lab) -> Result<()> {
    expect_quiet(lab, &APACHE)
}

pub(super) fn tomcat(lab: &mut Lab) -> Result<()> {
    expect_quiet(lab, &TOMCAT)
}

pub(super) fn gcc(lab: &mut Lab) -> Result<()> {
    expect_quiet(lab, &GCC)
}

pub(super) fn logrotate(lab: &mut Lab) -> Result<()> {
    expect_quiet(lab, &LOGROTATE)
}

pub(super) fn chromium(lab: &mut Lab) -> Result<()> {
    let mut loud = observe(lab, &CHROMIUM)?;
    // On an emulated machine, a program as large as this is not read in time.
    loud.retain(|line| line["detail"]["kind"] != "content_timed_out");
    ensure!(loud.is_empty(), "this is not quiet: {}", loud[0]);
    Ok(())
}

/// A container that systemd runs, with Redis as one of its services. What adds users is never expected, and the
/// services talk to each other early, so what systemd prepares at its first start is told. Redis adds nothing.
pub(super) fn systemd(lab: &mut Lab) -> Result<()> {
    /// How many findings above info the first start makes at most.
    const MOST: usize = 30;
    lab.node.ensure(&PODMAN)?;
    let start = Instant::now();
    let folder = PathBuf::from(FOLDER).join("systemd");
    fs::create_dir_all(folder.join("data"))?;
    let unit = folder.join("lab.service");
    fs::write(&unit, "[Service]\nExecStart=/usr/bin/redis-server --dir /data --save 1 1 --appendonly yes\n")?;
    let unit = format!("{}:/etc/systemd/system/lab.service:ro", unit.display());
    // As in images that are made for this, it is there and empty, so that systemd enables no services.
    let machine = folder.join("machine-id");
    fs::write(&machine, "")?;
    let machine = format!("{}:/etc/machine-id", machine.display());
    let data = format!("{}:/data", folder.join("data").display());
    let image = format!("{DISK}:O");
    let run = lab.counted(|_| {
        let mut options = vec!["run", "--detach", "--network=none", "--systemd=always"];
        options.extend([&unit, &machine, &data].into_iter().flat_map(|volume| ["--volume", volume]));
        let system = ["--rootfs", &image, "/lib/systemd/systemd", "--unit=lab.service"];
        let id = on_host("podman", options.iter().chain(&system))?;
        let pid = on_host("podman", ["inspect", "--format={{.State.Pid}}", id.trim()])?.trim().parse()?;
        let clients = Clients::start(&REDIS, pid, folder.join("answers"), Duration::ZERO)?;
        clients.have(1)?;
        clients.have(REDIS.requests)?;
        on_host("podman", ["rm", "--force", "--time=0", id.trim()]).map(drop)
    })?;
    let lines = parsed(&run.expect_same()?)?;
    send_row("systemd and Redis", start, &lines)?;
    let loud: Vec<_> = lines.iter().filter(|line| line["finding"].is_string() && matters(line)).collect();
    for line in &loud {
        let program = line["process"]["comm"].as_str().unwrap_or_default();
        ensure!(program.starts_with("systemd"), "this is not of systemd: {line}");
    }
    let findings: BTreeSet<_> = loud.iter().map(|line| line["id"].to_string()).collect();
    let messages: Vec<_> = loud.iter().map(|line| &line["message"]).collect();
    ensure!((1..=MOST).contains(&findings.len()), "{} findings: {messages:#?}", findings.len());
    Message::Observed { row: format!("systemd: {} findings above info: {messages:#?}", findings.len()) }.send()
}

pub(super) fn sshd(lab: &mut Lab) -> Result<()> {
    expect_quiet(lab, &SSHD)
}

/// Somebody logs in, first for one command, and then at a terminal.
pub(super) fn login(lab: &mut Lab) -> Result<()> {
    const USERS: &str = "/etc/passwd";
    if !Path::new(USERS).exists() {
        // The client wants to know who it is.
        fs::write(USERS, "root:x:0:0:root:/root:/bin/sh\n")?;
    }
    let server = Server::start(lab, &SSHD)?;
    let key = server.container.volume().join("user").display().to_string();
    let options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -p 2222";
    let ssh = format!("ssh {options} -i {key} root@127.0.0.1");
    let answer = server.ask(&["/bin/sh", "-c", &format!("{ssh} 'echo $((6 * 7))'")])?;
    ensure!(answer == "42\n", "the command has printed {answer}");
    let typed = "echo 'cp /etc/passwd /srv/stolen; exit'";
    server.ask(&["/bin/sh", "-c", &format!("{typed} | {ssh} -tt")])?;
    ensure!(server.container.host_path("/srv/stolen").exists(), "nothing was stolen");
    let told = session::only(lab, &server.container.id)?;
    told.expect(&json!({"severity": "high", "summary": {"via": "terminal"}}))?;
    let command = json!({"finding": "shell_in_container", "severity": "medium", "process": {"origin": "application"}});
    let mut shell = json!({"finding": "shell_in_container", "severity": "high", "process": {"tty": "pts0"}});
    let mut written = json!({"finding": "image_write", "file": {"path": "/srv/stolen"}});
    (shell["session"], written["session"]) = (told.id()?, told.id()?);
    server.expect(lab, &[command, shell, written]).map(drop)
}

/// The command that the application runs is told once, and then counted.
pub(super) fn node(lab: &mut Lab) -> Result<()> {
    let command = json!({"finding": "shell_in_container", "severity": "medium",
        "process": {"origin": "application", "args": ["/bin/sh", "-c", "echo $((6 * 7))"]}});
    let loud = observe(lab, &NODE)?;
    let told: BTreeSet<_> = loud.iter().map(|line| line["id"].to_string()).collect();
    ensure!(told.len() == 1, "{} findings instead of 1: {loud:?}", told.len());
    for line in &loud {
        let difference = difference(line, &command);
        ensure!(difference.is_none(), "{difference:?}: {line}");
    }
    let count = loud.last().and_then(|last| last["repeated"]["count"].as_u64());
    ensure!(count.is_some_and(|count| count >= NODE.requests), "it does not count the requests: {loud:?}");
    Ok(())
}

/// A container with a scheduler that runs a job each minute.
pub(super) fn with_cron(lab: &mut Lab) -> Result<Container> {
    let setup = Setup { root: Root::OverlayOnDisk, ..Setup::default() };
    Container::service_after_with(lab.number(), "/usr/bin/tool serve &\nexec /usr/sbin/cron -f", setup)
}

/// The job of a scheduler is expected once its pace is known. Somebody then makes the application change the job, which
/// drops and runs a miner.
pub(super) fn cron(lab: &mut Lab) -> Result<()> {
    /// How long the pace is unknown: six runs of the job, with a minute to spare at both ends.
    const UNKNOWN: Duration = Duration::from_secs(8 * 60);
    /// Then, it runs four times.
    const KNOWN: Duration = Duration::from_secs(4 * 60);
    let container = with_cron(lab)?;
    let is_of = |line: &&Value| line["container"]["id"] == container.id.as_str();
    let rest = |lab: &mut Lab, time: Duration| {
        let start = Instant::now();
        while start.elapsed() < time {
            thread::sleep(Duration::from_secs(5));
            lab.take_findings()?;
        }
        anyhow::Ok(())
    };
    let start = Instant::now();
    rest(lab, UNKNOWN)?;
    let of_container = |history: &[Value]| history.iter().filter(is_of).cloned().collect::<Vec<_>>();
    send_row("cron, until its pace is known", start, &of_container(&lab.history))?;
    let (start, before) = (Instant::now(), lab.history.len());
    rest(lab, KNOWN)?;
    let known = of_container(&lab.history[before..]);
    send_row("cron, from then on", start, &known)?;
    let is_job = |line: &&Value| line["expected"]["reason"] == "scheduled";
    let jobs = known.iter().filter(is_job).count();
    ensure!(jobs >= 3, "only {jobs} jobs were seen: {known:?}");
    ensure!(!known.iter().any(matters), "this is not quiet: {known:?}");

    let before = lab.history.len();
    let miner = "[ -e /tmp/echo ] || cp /bin/busybox /tmp/echo; /tmp/echo mined >> /data/mined";
    container.service_does(&["run", "/bin/sh", "-c", &format!("echo '{miner}' >> {JOB}")])?;
    let mined = container.volume().join("mined");
    wait_for("the miner", PATIENCE, || Ok(mined.exists().then_some(())))?;
    lab.take_late_findings()?;
    let told = of_container(&lab.history[before..]);
    let changed = json!({"finding": "image_write", "file": {"path": JOB}, "process": {"origin": "application"}});
    for wanted in [changed, drift(JOB), change("high", DROPPED), drift(DROPPED)] {
        ensure!(told.iter().any(|line| difference(line, &wanted).is_none()), "there is no {wanted}");
    }
    expect_session(lab, &told, "high", &json!({"via": "application"}))?;
    drop(container);
    lab.take_late_findings().map(drop)
}

pub(super) fn flask(lab: &mut Lab) -> Result<()> {
    expect_quiet(lab, &FLASK)
}

/// The finding of a change.
fn change(severity: &str, path: &str) -> Value {
    json!({"finding": "image_write", "severity": severity, "file": {"path": path}})
}

/// The finding of something that is executed and not as in the image.
fn drift(path: &str) -> Value {
    json!({"finding": "drifted_exec", "severity": "high", "file": {"path": path}})
}

/// The program that attackers drop.
const DROPPED: &str = "/tmp/echo";

/// Expects the dropped program to have run in a session of this severity, whose summary says this.
fn expect_session(lab: &Lab, found: &[Value], severity: &str, summary: &Value) -> Result<()> {
    let run = found.iter().find(|found| difference(found, &drift(DROPPED)).is_none()).context("it was not run")?;
    let session = lab.history.iter().rfind(|line| line["id"] == run["session"]).context("it is in no session")?;
    let difference = difference(session, &json!({"severity": severity, "summary": summary}));
    ensure!(difference.is_none(), "{difference:?}: {session}");
    Ok(())
}

/// An attacker makes the web application write a program and run it.
pub(super) fn webshell(lab: &mut Lab) -> Result<()> {
    let server = Server::start(lab, &FLASK)?;
    let answer = server.page("8080/run?command=cp+/bin/busybox+/tmp/echo%3b+/tmp/echo+owned")?;
    ensure!(answer == "owned\n", "the command was not run: {answer}");
    let shell = json!({"finding": "shell_in_container", "severity": "medium", "process": {"origin": "application"}});
    let found = server.expect(lab, &[shell, change("high", DROPPED), drift(DROPPED)])?;
    let summary = json!({"via": "application", "started_by": ["python3", "/srv/app.py"]});
    expect_session(lab, &found, "critical", &summary)
}

/// The same with an application that gives its shells a socket as their standard input.
pub(super) fn webshell_of_node(lab: &mut Lab) -> Result<()> {
    let server = Server::start(lab, &NODE)?;
    let answer = server.page("8080/?command=cp+/bin/busybox+/tmp/echo%3b+/tmp/echo+owned")?;
    ensure!(answer == "the answer is owned\n", "the command was not run: {answer}");
    let shell = json!({"finding": "shell_in_container", "severity": "medium", "process": {"origin": "application"}});
    let found = server.expect(lab, &[shell, change("high", DROPPED), drift(DROPPED)])?;
    let summary = json!({"via": "application", "started_by": ["node", "/srv/app.js"]});
    expect_session(lab, &found, "critical", &summary)
}

/// Somebody makes Redis write its data over a script that a scheduler runs. PHP runs what is between its marks, and
/// drops and runs a miner.
pub(super) fn exploited_redis(lab: &mut Lab) -> Result<()> {
    const SCHEDULER: &str = "while /bin/busybox sleep 1; do php8.2 /srv/scripts/answer.php; done > /dev/null 2>&1 &";
    const CODE: &str = "<?php system('[ -e /tmp/echo ] || cp /bin/busybox /tmp/echo; /tmp/echo mined >> /data/mined');";
    let server = Server::start_after(lab, SCHEDULER, &EXPOSED_REDIS, Duration::ZERO)?;
    for command in [
        &["config", "set", "dir", "/srv/scripts"][..],
        &["config", "set", "dbfilename", "answer.php"],
        &["config", "set", "rdbcompression", "no"],
        &["set", "job", &format!("{CODE} ?>")],
        &["save"],
    ] {
        let answer = server.ask(&[&["redis-cli"], command].concat())?;
        ensure!(answer == "OK\n", "{command:?}: {answer}");
    }
    let mined = server.container.volume().join("mined");
    wait_for("the miner", PATIENCE, || Ok(mined.exists().then_some(())))?;
    let written = json!({"finding": "image_write", "severity": "medium", "process": {"comm": "redis-server"}});
    let shell = json!({"finding": "shell_in_container", "severity": "medium", "process": {"origin": "application"}});
    let script = drift("/srv/scripts/answer.php");
    let found = server.expect(lab, &[written, script, shell, change("high", DROPPED), drift(DROPPED)])?;
    // The entrypoint has started the scheduler before the server listened.
    expect_session(lab, &found, "high", &json!({"via": "application"}))
}

/// Somebody from outside changes a library, and the next program of the application that is started loads it.
pub(super) fn replaced_library(lab: &mut Lab) -> Result<()> {
    const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/liblzf.so.1.5";
    let server = Server::start(lab, &REDIS)?;
    // It still works, as a careful attacker's does.
    let replace = format!("(cat {LIBRARY}; echo) > /tmp/new; cat /tmp/new > {LIBRARY}");
    server.container.exec(&["/usr/bin/dash", "-c", &replace])?;
    let answer = server.container.service_does(&["run", "/usr/bin/redis-cli", "ping"])?;
    ensure!(answer["stdout"] == "PONG\n", "the library does not work: {answer}");
    let told = session::only(lab, &server.container.id)?;
    told.expect(&json!({"severity": "high", "summary": {"via": "exec"}}))?;
    let shell = json!({"finding": "shell_in_container", "severity": "medium", "session": told.id()?});
    let mut changed = change("high", LIBRARY);
    changed["session"] = told.id()?;
    let mut loaded = drift(LIBRARY);
    loaded["process"] = json!({"exe": "/usr/bin/redis-cli", "origin": "application"});
    server.expect(lab, &[shell, changed, loaded]).map(drop)
}

/// A person's session in a container whose server is busy.
pub(super) fn interactive(lab: &mut Lab) -> Result<()> {
    let server = Server::start(lab, &NGINX)?;
    session::of_a_person(lab, &server.container)?;
    let written = json!({"finding": "image_write", "severity": "medium", "process": {"tty": "pts0"}});
    let shell = json!({"finding": "shell_in_container", "severity": "high", "process": {"tty": "pts0"}});
    server.expect(lab, &[shell, written]).map(drop)
}

/// Somebody from outside changes the configuration that the entrypoint has made, and the server shows its secrets.
pub(super) fn changed_configuration(lab: &mut Lab) -> Result<()> {
    const FILE: &str = "/etc/nginx/conf.d/default.conf";
    let server = Server::start(lab, &NGINX)?;
    let container = &server.container;
    container.exec(&["/bin/busybox", "sed", "-i", "s,root,location /secrets/ { alias /data/; } root,", FILE])?;
    container.exec(&["/usr/sbin/nginx", "-c", "/data/nginx.conf", "-s", "reload"])?;
    let shown = wait_for("the file on the volume", PATIENCE, || Ok(server.page("8081/secrets/nginx.conf").ok()))?;
    ensure!(shown.contains("proxy_cache"), "the server shows {shown}");
    let told = session::ended(lab, &container.id, 2)?;
    told[0].expect(&json!({"severity": "high", "summary": {"via": "exec", "findings": {"image_write": 2}}}))?;
    told[1].expect(&json!({"severity": "info", "summary": {"via": "exec", "findings": {}}}))?;
    let mut replaced = json!({"finding": "image_write", "severity": "high", "process": {"origin": "entered"}});
    replaced["session"] = told[0].id()?;
    server.expect(lab, &[replaced]).map(drop)
}

/// Somebody copies a program into the container as `kubectl cp` does, and runs it.
pub(super) fn tar_through_exec(lab: &mut Lab) -> Result<()> {
    const COPY: &str = "/srv/busybox";
    let server = Server::start(lab, &NGINX)?;
    let container = &server.container;
    let tar = format!("busybox tar -c -C /bin busybox | runc exec {} /bin/busybox tar -x -f - -C /srv", container.id);
    on_host("/bin/busybox", ["sh", "-c", &tar])?;
    container.exec(&[COPY, "true"])?;
    let told = session::ended(lab, &container.id, 2)?;
    for told in &told {
        told.expect(&json!({"severity": "high", "summary": {"via": "exec"}}))?;
    }
    let (mut written, mut run) = (change("high", COPY), drift(COPY));
    (written["session"], run["session"]) = (told[0].id()?, told[1].id()?);
    server.expect(lab, &[written, run]).map(drop)
}

/// A Redis of Docker with a health check of which one is known to the sensor, and its clients.
fn of_docker(lab: &mut Lab) -> Result<(Clients, engine::Container)> {
    let (clients, container) = with_health_check(lab, "5s", Duration::ZERO)?;
    wait_for_line(lab, &container, 1, is_end)?;
    Ok((clients, container))
}

/// A Redis of Docker with a health check at this interval, and its clients, which rest after each answer.
pub(super) fn with_health_check(lab: &mut Lab, interval: &str, rest: Duration) -> Result<(Clients, engine::Container)> {
    lab.node.ensure(&DOCKER)?;
    let (script, interval) = (EXPOSED_REDIS.entrypoint(""), format!("--health-interval={interval}"));
    let options = [&interval, "--health-timeout=60s", "--health-cmd", CHECK];
    let container = DOCKER.serving_with(lab.number(), &options, &["/bin/sh", "-c", &script])?;
    let pid = on_host("docker", ["inspect", "--format={{.State.Pid}}", &container.id])?;
    let clients = Clients::start(&REDIS, pid.trim().parse()?, container.volume().with_extension("answers"), rest)?;
    clients.have(1)?;
    Ok((clients, container))
}

/// Expects all of these in the session of the last one, which is not expected and told with high severity.
fn expect_story(lab: &mut Lab, container: &engine::Container, acts: &[Value]) -> Result<()> {
    let is = |line: &Value, act: &Value| difference(line, act).is_none();
    let last = acts.last().context("no acts")?;
    let session = wait_for_line(lab, container, 1, |line| is(line, last))?["session"].clone();
    ensure!(session.is_string(), "it is in no session");
    expect_told(lab, container, &session, "high")?;
    let lines = lines_of(lab, container, 0);
    for act in acts {
        let told = lines.iter().find(|line| line["session"] == session && is(line, act));
        ensure!(told.with_context(|| format!("there is no {act}"))?["expected"].is_null(), "{act} is expected");
    }
    Ok(())
}

pub(super) fn redis_of_docker(lab: &mut Lab) -> Result<()> {
    let (clients, container) = of_docker(lab)?;
    wait_for_line(lab, &container, 3, is_end)?;
    clients.have(REDIS.requests)?;
    lab.take_late_findings()?;
    for line in lines_of(lab, &container, 0) {
        ensure!(!matters(if is_end(&line) { &line["detail"] } else { &line }), "this is not quiet: {line}");
    }
    drop((clients, container));
    lab.take_late_findings().map(drop)
}

/// Somebody from outside changes the script of the health check, which then drops and runs a miner.
pub(super) fn changed_health_check(lab: &mut Lab) -> Result<()> {
    let (clients, container) = of_docker(lab)?;
    let command = "[ -e /tmp/echo ] || cp /bin/busybox /tmp/echo; /tmp/echo mined";
    container.exec(&["/bin/sh", "-c", &format!("echo '{command}' >> {CHECK}")])?;
    expect_story(lab, &container, &[drift(CHECK), change("high", DROPPED), drift(DROPPED)])?;
    clients.have(REDIS.requests)?;
    drop((clients, container));
    lab.take_late_findings().map(drop)
}

/// Somebody from outside runs what the health check runs, as often, but has another program run in its place.
pub(super) fn imitated_health_check(lab: &mut Lab) -> Result<()> {
    const PROGRAM: &str = "/tmp/redis-cli";
    let (clients, container) = of_docker(lab)?;
    container.service_does(&["script", PROGRAM, "#!/bin/sh\necho stolen >> /data/stolen; echo PONG\n"])?;
    for _ in 0..2 {
        on_host("docker", ["exec", "--env=PATH=/tmp:/usr/bin:/bin", &container.id, "/bin/sh", "-c", CHECK])?;
        thread::sleep(Duration::from_secs(5));
    }
    ensure!(fs::read(container.volume().join("stolen"))?.len() == 2 * "stolen\n".len(), "nothing was stolen");
    expect_story(lab, &container, &[drift(PROGRAM)])?;
    clients.have(REDIS.requests)?;
    drop((clients, container));
    lab.take_late_findings().map(drop)
}
