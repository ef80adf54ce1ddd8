//! Starting and stopping the sensor, with files and containers from before its start.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};
use serde_json::{Value, json};

use super::expectation::{compare, shell, write};
use super::lab::{Lab, prepare, write_config};
use super::shadow::in_sandbox;
use crate::container::{Container, Setup, docker_cgroup, id};
use crate::program::{Running, on_host, wait_for};
use crate::sensor::{Sensor, detector, run_command};

pub(super) fn containers_that_ran_before(lab: &mut Lab) -> Result<()> {
    let (container, path, place) = (lab.container_from_before(Setup::default())?, lab.file()?, lab.place()?);
    container.exec(&["/bin/sh", "-c", "true"])?;
    container.service_does(&["run", "/bin/sh", "-c", "true"])?;
    let identity = container.service_does(&["append", &path])?;
    let covered = container.child_does(&["in-namespaces", "mount-tmpfs", &place])?;
    lab.expect(
        &container,
        [
            shell("entered", "/bin/busybox", &["/bin/sh", "-c", "true"]),
            shell("application", "/bin/busybox", &["/bin/sh", "-c", "true"]),
            write("entrypoint", "open_write", "lower", &path, &identity),
            in_sandbox("mount", &place, &covered),
        ],
    )
}

/// When the sensor starts, a runtime is preparing a container: its cgroup has a process with the host's mounts.
pub(super) fn container_in_preparation(lab: &mut Lab) -> Result<()> {
    let (path, number) = (lab.file()?, lab.number());
    let cgroup = docker_cgroup(&id(number));
    let preparing = lab.without_sensor(|_| prepare(&cgroup))?;
    drop(preparing);
    let container = Container::service_in(number, &cgroup)?;
    let identity = container.service_does(&["append", &path])?;
    // A daemon that has just started may have to find out first that no runtime knows the container, while it knows
    // this already of the container of the beacon.
    let found = wait_for("the finding", Duration::from_secs(20), || {
        Ok(Some(lab.take_findings()?).filter(|found| !found.is_empty()))
    })?;
    compare(&found, &container.identity(), &[write("entrypoint", "open_write", "lower", &path, &identity)])
}

/// This is the last case, because the sensor does not run after it.
pub(super) fn stop_and_status(lab: &mut Lab) -> Result<()> {
    let status = detector(&["status", "--wait", "10s"])?;
    ensure!(status.status.success(), "status does not see the running sensor");
    let shown = String::from_utf8(status.stdout)?;
    ensure!(shown.starts_with("watching: all hooks proven, ") && !shown.contains("\nhook "), "status says {shown}");
    let hooks = String::from_utf8(detector(&["status", "--hooks"])?.stdout)?;
    ensure!(hooks.contains("\nhook      open "), "status --hooks says {hooks}");
    let status = lab.take_sensor()?.stop()?;
    ensure!(status.success(), "after SIGTERM: {status}");
    let without = detector(&["status"])?;
    ensure!(!without.status.success(), "`detector status` succeeded although no daemon is running");
    Ok(())
}

/// Findings have wall-clock time, even after the clock was set.
pub(super) fn clock_step(lab: &mut Lab) -> Result<()> {
    // The first second of 2040.
    const DATE: (i64, &str) = (2_208_988_800, "2040-01-01T00:0");
    let (container, path) = (lab.container()?, lab.file()?);
    let before = clock_gettime(ClockId::Realtime);
    clock_settime(ClockId::Realtime, Timespec { tv_sec: DATE.0, tv_nsec: 0 })?;
    let found = container.service_does(&["append", &path]).and_then(|_| lab.take_findings());
    clock_settime(ClockId::Realtime, before)?;
    let found = found?;
    let times: Vec<_> = found.iter().map(|finding| finding["time"].as_str().unwrap_or_default()).collect();
    ensure!(times.len() == 1 && times[0].starts_with(DATE.1), "after the clock was set to 2040: {times:?}");

    // This sets the clock back.
    let path = lab.file()?;
    container.service_does(&["append", &path])?;
    let found = lab.take_findings()?;
    ensure!(found.len() == 1 && !found[0].to_string().contains(DATE.1), "after the clock was set back: {found:?}");
    Ok(())
}

/// A daemon does what its configuration file at the usual path says.
pub(super) fn configuration_file(lab: &mut Lab) -> Result<()> {
    const FILE: &str = "/etc/detector/config.toml";
    const TEXT: &str = "[node]\nname = 'from-file'\ncluster = 'shop'\nlabels = { team = 'web' }\n\
        [output]\nmetrics = '127.0.0.1:9464'\n";
    on_host("/bin/busybox", ["ip", "link", "set", "lo", "up"])?;
    lab.without_sensor(|_| write_config(TEXT))?;
    let (container, path) = (lab.container()?, lab.file()?);
    let found = container.service_does(&["append", &path]).and_then(|_| lab.take_findings());
    let log = lab.sensor()?.log();
    let status = String::from_utf8(detector(&["status"])?.stdout)?;
    let served = ["metrics", "readyz"].map(|path| {
        let url = format!("http://127.0.0.1:9464/{path}");
        on_host("/bin/busybox", ["wget", "-q", "-O", "-", &url])
    });
    lab.without_sensor(|_| Ok(fs::remove_file(FILE)?))?;
    let found = found?;
    let [metrics, ready] = served;
    let (metrics, ready) = (metrics?, ready?);
    let counted = "detector_findings_total{finding=\"image_write\",severity=\"medium\"} ";
    for sample in ["detector_ready 1\n", "detector_hook_works{hook=\"exec\"} 1\n", counted] {
        ensure!(metrics.contains(sample), "{sample} is not in {metrics}");
    }
    ensure!(ready == "the daemon watches\n", "{ready}");
    let said = found.iter().map(|finding| json!([finding["node"], finding["cluster"], finding["labels"]]));
    ensure!(said.eq([json!(["from-file", "shop", { "team": "web" }])]), "{found:?}");
    ensure!(log.contains(&format!("configuration file: {FILE}")), "{log}");
    ensure!(status.contains(&format!("\nconfig    {FILE}: no exceptions, loaded 20")), "{status}");
    Ok(())
}

/// The service manager is told when the daemon watches, that it still does, and that it stops.
pub(super) fn service_manager(lab: &mut Lab) -> Result<()> {
    const FOLDER: &str = "/run/lab/service";
    lab.without_sensor(|_| {
        let [lines, log, socket] = ["findings.jsonl", "log", "notify"].map(|name| Path::new(FOLDER).join(name));
        fs::create_dir_all(FOLDER)?;
        let manager = UnixDatagram::bind(&socket)?;
        manager.set_read_timeout(Some(Duration::from_secs(120)))?;
        let mut daemon = run_command(&lines, &log)?;
        let mut daemon = Running::start(daemon.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "3000000"))?;
        let wait_until_told = |wanted: &str| loop {
            let mut message = [0; 1024];
            let length = manager.recv(&mut message).with_context(|| format!("{wanted} was not told"))?;
            if String::from_utf8_lossy(&message[..length]).lines().any(|line| line == wanted) {
                return anyhow::Ok(());
            }
        };
        for message in ["READY=1", "WATCHDOG=1", "WATCHDOG=1"] {
            wait_until_told(message)?;
        }
        daemon.signal(Signal::TERM)?;
        wait_until_told("STOPPING=1")?;
        let status = wait_for("the daemon's end", Duration::from_secs(20), || daemon.ended())?;
        ensure!(status.success(), "it has ended with {status}");
        Ok(())
    })
}

/// Somebody tests whether findings arrive.
pub(super) fn test_alert(lab: &mut Lab) -> Result<()> {
    let output = detector(&["test-alert", "--severity", "critical"])?;
    let said = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "{}: {said}", String::from_utf8_lossy(&output.stderr));
    let found = lab.take_findings()?;
    let [alert] = found.as_slice() else { bail!("{} findings came", found.len()) };
    let what = json!([alert["finding"], alert["severity"], alert["container"], alert["revision"]]);
    ensure!(what == json!(["test_alert", "critical", null, 1]), "{alert}");
    let (id, message) = (alert["id"].as_str().unwrap_or_default(), alert["message"].as_str().unwrap_or_default());
    ensure!(said.contains(id) && message.contains("nothing has happened: user 0 has run"), "{said}{alert}");
    Ok(())
}

/// The signals that logrotate sends make the daemon open its output again, and other signals do not end it.
pub(super) fn rotated_output(lab: &mut Lab) -> Result<()> {
    let container = lab.container()?;
    for signal in [Signal::HUP, Signal::USR1] {
        lab.rotate_output(signal)?;
        lab.sensor()?.signal(Signal::USR2)?;
        let path = lab.file()?;
        let identity = container.service_does(&["append", &path])?;
        lab.expect(&container, [write("entrypoint", "open_write", "lower", &path, &identity)])?;
    }
    Ok(())
}

/// Daemons are killed twice while they write, and the log is rotated: its chain shows that no line is missing, and that
/// one is when it is taken out.
pub(super) fn log_of_killed_daemons(lab: &mut Lab) -> Result<()> {
    const FOLDER: &str = "/run/lab/log-of-killed-daemons";
    let containers = [lab.new_container()?, lab.new_container()?];
    let lines = lab.without_sensor(|_| {
        let start = || Sensor::start_with(Path::new(FOLDER), &["--every-act", "--heartbeat", "1s"].map(AsRef::as_ref));
        for (container, signal) in containers.iter().zip([Signal::USR1, Signal::HUP]) {
            let mut sensor = start()?;
            if signal == Signal::USR1 {
                sensor.rotate(signal)?;
            }
            let before = fs::metadata(sensor.lines())?.len();
            thread::scope(|scope| {
                let killing = scope.spawn(|| {
                    wait_for("lines of the flood", Duration::from_secs(20), || {
                        let written = fs::metadata(sensor.lines())?.len() - before;
                        Ok((written > 200_000).then_some(()))
                    })?;
                    sensor.signal(Signal::KILL)
                });
                container.service_does(&["flood", "4", "400", "1", "1"])?;
                killing.join().expect("it does not panic")
            })?;
        }
        fs::set_permissions(Path::new(FOLDER).join("findings.jsonl"), PermissionsExt::from_mode(0o622))?;
        let sensor = start()?;
        ensure!(sensor.log().contains("others than its owner can write it"), "nothing is said about the file's mode");
        let lines = sensor.lines().to_owned();
        ensure!(sensor.stop()?.success(), "the last daemon failed");
        Ok(lines)
    })?;
    let text = fs::read_to_string(&lines)?;
    let parsed = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).collect::<Vec<_>>();
    let crashes = parsed.iter().filter(|line| line["detail"]["after_crash"] == true).count();
    ensure!(crashes == 2, "{crashes} daemons were killed");
    let known = parsed.iter().rfind(|line| line["event"] == "heartbeat").context("there is no heartbeat")?;
    let (seq, sha256) = (known["detail"]["seq"].to_string(), known["detail"]["sha256"].as_str().unwrap_or_default());
    let lines = lines.to_str().context("the path is text")?;
    let old = format!("{lines}.1");
    let verify = |files: [&str; 2]| {
        let output = detector(&["log", "verify", files[0], files[1], "--seq", &seq, "--sha256", sha256])?;
        let said = String::from_utf8(output.stdout)? + &String::from_utf8_lossy(&output.stderr);
        Ok::<_, anyhow::Error>((output.status.code(), said))
    };
    let (code, said) = verify([lines, &old])?;
    ensure!(code == Some(0) && said.contains("\nwhole: nothing is missing"), "{code:?}: {said}");
    let taken = text.lines().position(|line| line.contains("\"image_write\"")).context("there is no finding")?;
    let without = format!("{FOLDER}/without-one");
    let rest = text.split_inclusive('\n').enumerate().filter(|(number, _)| *number != taken);
    fs::write(&without, rest.map(|(_, line)| line).collect::<String>())?;
    let (code, said) = verify([&without, &old])?;
    ensure!(code == Some(7) && said.contains(&format!("{without}:{}: seq ", taken + 1)), "{code:?}: {said}");
    Ok(())
}

/// Daemons rotate their log under floods, and two of them are killed meanwhile: all files together are whole, and one
/// that is missing in the middle is noticed. Nothing is in them twice. What is not kept is said.
pub(super) fn log_rotated_by_the_daemon(lab: &mut Lab) -> Result<()> {
    const FOLDER: &str = "/run/lab/log-rotated-by-the-daemon";
    const FILES: usize = 4 * 400;
    let containers = [lab.new_container()?, lab.new_container()?, lab.new_container()?];
    let flood = |container: &Container| container.service_does(&["flood", "4", "400", "1", "1"]).map(drop);
    let start = |more: &[&str]| {
        let arguments = ["--every-act", "--rotate-size", "128KiB"].iter().chain(more).map(AsRef::as_ref);
        Sensor::start_with(Path::new(FOLDER), &arguments.collect::<Vec<_>>())
    };
    let files = || {
        let named = fs::read_dir(FOLDER)?.map(|entry| Ok(entry?.path().to_str().context("it is text")?.to_owned()));
        let mut files = named.collect::<Result<Vec<_>>>()?;
        files.retain(|file| file.starts_with(&format!("{FOLDER}/findings.jsonl")));
        // The newest has no time in its name.
        files.sort_by_key(|file| (file.ends_with(".jsonl"), file.clone()));
        anyhow::Ok(files)
    };
    let verify = |files: &[String]| {
        let arguments = ["log", "verify"].into_iter().chain(files.iter().map(String::as_str));
        let output = detector(&arguments.collect::<Vec<_>>())?;
        let said = String::from_utf8(output.stdout)? + &String::from_utf8_lossy(&output.stderr);
        anyhow::Ok((output.status.code(), said))
    };
    let all = lab.without_sensor(|_| {
        for container in &containers[..2] {
            let (sensor, before) = (start(&[])?, files()?.len());
            thread::scope(|scope| {
                let killing = scope.spawn(|| {
                    wait_for("files of the flood", Duration::from_secs(20), || {
                        Ok((files()?.len() > before + 2).then_some(()))
                    })?;
                    sensor.signal(Signal::KILL)
                });
                flood(container)?;
                killing.join().expect("it does not panic")
            })?;
        }
        let sensor = start(&[])?;
        flood(&containers[2])?;
        ensure!(sensor.stop()?.success(), "the last daemon failed");
        files()
    })?;
    ensure!(all.len() > 10, "{all:?}");
    for file in &all {
        let size = fs::metadata(file)?.len();
        ensure!(size <= 128 << 10, "{file} has {size} bytes");
    }
    let (code, said) = verify(&all)?;
    let is_whole =
        code == Some(0) && said.contains("\nwhole: nothing is missing, doubled, out of order or changed from");
    ensure!(is_whole && said.contains(" from seq 1 to "), "{code:?}: {said}");
    let text = all.iter().map(fs::read_to_string).collect::<Result<String, _>>()?;
    let parsed = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).collect::<Vec<_>>();
    let found = parsed.iter().filter(|line| line["finding"] == "image_write" && line["file"]["op"] == "create");
    let of_last = found.filter(|line| line["container"]["id"] == containers[2].identity()["id"]);
    let is_file = |line: &&Value| line["file"]["path"].as_str().is_some_and(|path| !path.ends_with('d'));
    let paths: Vec<_> = of_last.filter(is_file).map(|line| line["file"]["path"].to_string()).collect();
    let distinct: std::collections::BTreeSet<_> = paths.iter().collect();
    ensure!((paths.len(), distinct.len()) == (FILES, FILES), "{} findings, {} paths", paths.len(), distinct.len());

    let without_one = [&all[..4], &all[5..]].concat();
    let (code, said) = verify(&without_one)?;
    ensure!(code == Some(7) && said.contains(" missing before this line (seq "), "{code:?}: {said}");

    lab.without_sensor(|_| {
        let sensor = start(&["--rotate-every", "1s", "--rotate-keep", "2", "--rotate-compress"])?;
        wait_for("old files to be removed and compressed", Duration::from_secs(20), || {
            let files = files()?;
            Ok((files.len() <= 3 && files.iter().any(|file| file.ends_with(".gz"))).then_some(()))
        })?;
        ensure!(sensor.stop()?.success(), "the daemon that keeps two old files failed");
        Ok(())
    })?;
    let (code, said) = verify(&files()?)?;
    let is_told = said.contains(" was removed by the daemon, as the log says (--rotate-keep)");
    ensure!(code == Some(0) && is_told, "{code:?}: {said}");
    Ok(())
}
