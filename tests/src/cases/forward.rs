//! What the daemon writes reaches receivers, whatever happens to both.

use std::fs;
use std::io::Read as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use super::lab::Lab;
use crate::program::{on_host, wait_for};
use crate::sensor::{Sensor, detector};

/// The daemon is killed twice in floods while the receiver is down. Then it receives every line of the log, in order,
/// and those that come twice are equal. Without a receiver, the daemon is degraded. It is no tampering with the sensor
/// that another process of the detector reads its log and is killed.
pub(super) fn killed_daemons(lab: &mut Lab) -> Result<()> {
    const FOLDER: &str = "/run/lab/forward-killed-daemons";
    const PORT: u16 = 601;
    on_host("/bin/busybox", ["ip", "link", "set", "lo", "up"])?;
    let containers = [lab.new_container()?, lab.new_container()?];
    fs::create_dir_all(FOLDER)?;
    let config = format!("{FOLDER}/config.toml");
    fs::write(
        &config,
        format!("state_directory = '{FOLDER}/state'\n[[forward]]\nname = 'siem'\nto = 'tcp://127.0.0.1:{PORT}'\n"),
    )?;
    let arguments = ["--every-act", "--heartbeat", "1s", "--rotate-size", "256KiB", "--config", &config];
    let start = || Sensor::start_with(Path::new(FOLDER), &arguments.map(AsRef::as_ref));
    let received = lab.without_sensor(|_| {
        for container in &containers {
            let (sensor, before) = (start()?, files(FOLDER)?.len());
            thread::scope(|scope| {
                let killing = scope.spawn(|| {
                    wait_for("files of the flood", Duration::from_secs(20), || {
                        Ok((files(FOLDER)?.len() > before + 3).then_some(()))
                    })?;
                    sensor.signal(Signal::KILL)
                });
                container.service_does(&["flood", "4", "400", "1", "1"])?;
                killing.join().expect("it does not panic")
            })?;
        }
        let sensor = start()?;
        let status = wait_for("the receiver to be missed", Duration::from_secs(90), || {
            let status = detector(&["status"])?;
            Ok((status.status.code() == Some(6)).then_some(status.stdout))
        })?;
        let status = String::from_utf8(status)?;
        ensure!(
            status.contains("degraded  forwarder siem: tcp://127.0.0.1:601 has received nothing since"),
            "{status}"
        );
        ensure!(status.contains("\nforward   siem: sent to tcp://127.0.0.1:601 up to line 0; "), "{status}");

        let forwarding = children(sensor.id())?;
        let [forwarding] = forwarding.as_slice() else { anyhow::bail!("{} processes forward", forwarding.len()) };
        on_host("/bin/busybox", ["kill", "-KILL", &forwarding.to_string()])?;
        let receiver = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))?;
        let (send, receive) = mpsc::channel();
        thread::spawn(move || {
            for client in receiver.incoming() {
                let mut bytes = Vec::new();
                // It is read to its end.
                let _ = client.and_then(|mut client| client.read_to_end(&mut bytes));
                if send.send(bytes).is_err() {
                    break;
                }
            }
        });
        wait_for("all lines to be sent", Duration::from_secs(90), || {
            let status = detector(&["status"])?;
            let shown = String::from_utf8(status.stdout)?;
            Ok((status.status.success() && shown.contains("; nothing waits\n")).then_some(()))
        })?;
        ensure!(sensor.stop()?.success(), "the last daemon failed");
        receive.recv_timeout(Duration::from_secs(20)).context("the connection is not ended")
    })?;

    let files = files(FOLDER)?;
    let arguments = ["log", "verify"].into_iter().chain(files.iter().map(String::as_str));
    let verified = detector(&arguments.collect::<Vec<_>>())?;
    ensure!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    let text = files.iter().map(fs::read_to_string).collect::<Result<String, _>>()?;
    // A line that a killed daemon has not finished is no line.
    let written: Vec<_> = text.lines().filter(|line| line.ends_with("\"}") && line.contains("\"prev\":")).collect();
    let received = messages(&received)?;
    ensure!(written.len() > 1000, "{} lines are too few", written.len());
    let differ = written.iter().zip(&received).position(|(one, other)| one != other);
    ensure!(
        differ.is_none() && written.len() == received.len(),
        "{} of {} lines were received, and line {differ:?} is another one",
        received.len(),
        written.len()
    );
    let tampering = written.iter().find(|line| line.contains("\"sensor_tampering\"") && line.contains("forward"));
    ensure!(tampering.is_none(), "{tampering:?}");
    let crashes = written.iter().filter(|line| line.contains("\"after_crash\":true")).count();
    ensure!(crashes == 2, "{crashes} daemons were killed");
    Ok(())
}

/// A receiver of syslog messages over TCP.
pub(super) struct Receiver(Arc<Mutex<Vec<u8>>>);

impl Receiver {
    /// Takes one connection after the other, which together must have whole messages.
    pub(super) fn listen(port: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let received: Arc<Mutex<Vec<u8>>> = Arc::default();
        let all = Arc::clone(&received);
        thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client?;
                let mut part = [0; 1 << 16];
                while let Ok(size @ 1..) = client.read(&mut part) {
                    all.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&part[..size]);
                }
            }
            std::io::Result::Ok(())
        });
        Ok(Self(received))
    }

    /// The lines in all whole messages so far.
    pub(super) fn lines(&self) -> Result<Vec<Value>> {
        let received = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // A message ends with the object that is a line.
        let end = received.iter().rposition(|byte| *byte == b'}').map_or(0, |last| last + 1);
        let whole = messages(&received[..end]).unwrap_or_default();
        whole.into_iter().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }
}

/// The files of the log in a folder, the oldest first.
fn files(folder: &str) -> Result<Vec<String>> {
    let named = fs::read_dir(folder)?.map(|entry| Ok(entry?.path().to_str().context("it is text")?.to_owned()));
    let mut files = named.collect::<Result<Vec<_>>>()?;
    files.retain(|file| file.starts_with(&format!("{folder}/findings.jsonl")));
    // The newest has no time in its name.
    files.sort_by_key(|file| (file.ends_with(".jsonl"), file.clone()));
    Ok(files)
}

/// The processes that a process has started and that forward.
fn children(parent: u32) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc")? {
        let Ok(process) = process?.file_name().to_string_lossy().parse::<u32>() else { continue };
        let read =
            |file: &str| fs::read_to_string(PathBuf::from(format!("/proc/{process}/{file}"))).unwrap_or_default();
        let is_child = read("status").lines().any(|line| line.split_whitespace().eq(["PPid:", &parent.to_string()]));
        if is_child && read("cmdline").contains("forward-lines") {
            found.push(process);
        }
    }
    Ok(found)
}

/// The lines in messages that have their length before them.
fn messages(mut bytes: &[u8]) -> Result<Vec<&str>> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|byte| *byte == b' ').context("a message has no length")?;
        let length: usize = str::from_utf8(&bytes[..space])?.parse()?;
        let (message, rest) = bytes[space + 1..].split_at_checked(length).context("a message is cut")?;
        let message = str::from_utf8(message)?;
        let line = &message[message.find('{').context("a message has no line")?..];
        let facts: Value = serde_json::from_str(line)?;
        let kind = facts["finding"].as_str().or(facts["event"].as_str()).unwrap_or_default();
        ensure!(message.contains(&format!(" detector - {kind} - {{")), "{message}");
        messages.push(line);
        bytes = rest;
    }
    Ok(messages)
}
