//! The Debian package: installed, watched with, upgraded and removed where systemd is the first process.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::lab::Lab;
use crate::container::Container;
use crate::program::{on_host, wait_for};
use crate::sensor::{Sensor, detector};
use crate::system::{EXPOSURE, INSTALL, PACKAGES};

/// Where the daemon writes its findings, as a service and as README.md has it in a container.
pub(super) const LOG: &str = "/var/log/detector/findings.jsonl";
const CONFIG: &str = "/etc/detector/config.toml";

/// How long the daemon may take to watch, on an emulated machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The directories in which the names of files are no trace of the package: those of the kernel, and of the tests.
const NO_TRACES: &[&str] = &["/proc", "/sys", "/dev", "/run/lab", "/var/lib/lab", PACKAGES];

/// The commands of README.md install a daemon that watches as one does that is started by hand.
pub(super) fn installed(lab: &mut Lab) -> Result<()> {
    let service = install()?;
    let state = on_host("systemctl", ["show", "--property=ActiveState,UnitFileState", "--value", "detector"])?;
    ensure!(state == "active\nenabled\n", "the service is {state}");
    let checked = on_host("detector", ["config", "check"])?;
    ensure!(checked == format!("{CONFIG}: no errors\n"), "{checked}");
    let mode = |path: &str| anyhow::Ok(fs::metadata(path)?.permissions().mode() & 0o7777);
    ensure!((mode("/var/log/detector")?, mode(LOG)?) == (0o700, 0o600), "others can read the log");
    ensure!(Path::new("/usr/share/man/man1/detector-run.1.gz").exists(), "there is no manual page");
    expect_findings(lab)?;

    on_host("systemctl", ["stop", "detector"])?;
    let bare = Sensor::start_with(Path::new("/run/lab/bare"), &[])?;
    let of_bare = status()?;
    let [of_service, of_bare] = [&service, &of_bare].map(|status| sight(status));
    ensure!(bare.stop()?.success(), "the daemon that was started by hand failed");
    on_host("systemctl", ["start", "detector"])?;
    ensure!(of_service == of_bare, "as a service it sees {of_service:#?}\nand otherwise {of_bare:#?}");
    Ok(())
}

/// What is exposed to the daemon does not become more than README.md says.
pub(super) fn hardened(_: &mut Lab) -> Result<()> {
    install()?;
    let judged = on_host("systemd-analyze", ["security", "--no-pager", "detector"])?;
    let level = judged.lines().find_map(|line| line.split_once("exposure level for detector.service: "));
    let (_, level) = level.with_context(|| judged.clone())?;
    let level = level.split(' ').next().unwrap_or_default();
    ensure!(level == EXPOSURE, "the exposure level is {level} and not {EXPOSURE}: {judged}");
    Ok(())
}

/// systemd starts a daemon that was killed again, and its log goes on.
pub(super) fn killed(lab: &mut Lab) -> Result<()> {
    install()?;
    let before = main_process()?;
    on_host("systemctl", ["kill", "--signal=KILL", "detector"])?;
    wait_for("another daemon", PATIENCE, || Ok(Some(main_process()?).filter(|pid| *pid != before && pid != "0")))?;
    status()?;
    expect_findings(lab)?;
    verify(&[LOG])
}

/// logrotate moves the log away, and the daemon goes on in a new one.
pub(super) fn rotated(lab: &mut Lab) -> Result<()> {
    install()?;
    let before = main_process()?;
    on_host("logrotate", ["--force", "/etc/logrotate.d/detector"])?;
    wait_for("the new log", PATIENCE, || Ok(Path::new(LOG).exists().then_some(())))?;
    ensure!(before == main_process()?, "the daemon was started again");
    expect_findings(lab)?;
    verify(&[LOG, &format!("{LOG}.1")])
}

/// Findings are entries of the journal, with fields to look for, also after journald was killed.
pub(super) fn journal_entries(lab: &mut Lab) -> Result<()> {
    install()?;
    let text = fs::read_to_string(CONFIG)?;
    fs::write(CONFIG, format!("{text}\n[[forward]]\nname = \"journal\"\nto = \"journald://\"\n"))?;
    on_host("systemctl", ["restart", "detector"])?;
    status()?;
    for _ in 0..2 {
        for found in expect_findings(lab)? {
            let (id, kind) = (found["id"].as_str().context("it has an id")?, &found["finding"]);
            let field = format!("DETECTOR_ID={id}");
            let args = ["--no-pager", "--output=json", "--lines=1", "--identifier=detector", &field];
            let entry =
                wait_for("the entry", PATIENCE, || Ok(serde_json::from_str(&on_host("journalctl", args)?).ok()))
                    .with_context(journal)?;
            let entry: Value = entry;
            let level = match found["severity"].as_str() {
                Some("high") => "3",
                Some("medium") => "4",
                Some("low") => "5",
                _ => "6",
            };
            ensure!(entry["PRIORITY"] == level && entry["DETECTOR_FINDING"] == *kind, "{entry} is not of {found}");
            ensure!(entry["CONTAINER_ID_FULL"] == found["container"]["id"], "{entry} is not of {found}");
            let line: Value = serde_json::from_str(entry["DETECTOR_LINE"].as_str().context("it has a line")?)?;
            ensure!(line["id"] == id && entry["MESSAGE"] == line["message"], "{entry} is not of {found}");
        }
        on_host("systemctl", ["kill", "--signal=KILL", "systemd-journald"])?;
    }
    fs::write(CONFIG, text)?;
    on_host("systemctl", ["restart", "detector"])?;
    status().map(drop)
}

/// The package is installed again while the daemon runs: the configuration stays, and the log goes on.
pub(super) fn upgraded(lab: &mut Lab) -> Result<()> {
    install()?;
    let text = fs::read_to_string(CONFIG)? + "\n[node]\nname = \"kept\"\n";
    let without_node = text.replacen("[node]\n", "", 1);
    fs::write(CONFIG, without_node)?;
    let before = main_process()?;
    on_host("dpkg", ["-i", &package()?])?;
    ensure!(main_process()? != before, "the daemon is still that of before");
    status()?;
    let found = expect_findings(lab)?;
    ensure!(found.iter().all(|line| line["node"] == "kept"), "the configuration is not that of before: {found:?}");
    let files: Vec<_> = fs::read_dir("/var/log/detector")?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    verify(&files.iter().filter_map(|file| file.to_str()).collect::<Vec<_>>())
}

/// What is removed stops and leaves its configuration and its log, and what is purged leaves nothing.
pub(super) fn removed(_: &mut Lab) -> Result<()> {
    install()?;
    on_host("dpkg", ["-r", "detector"])?;
    ensure!(!Path::new("/usr/bin/detector").exists(), "the program is still there");
    ensure!(main_process()? == "0", "the daemon still runs");
    ensure!([LOG, CONFIG].iter().all(|file| Path::new(file).exists()), "the log or the configuration is gone");
    on_host("dpkg", ["-P", "detector"])?;
    let left = traces(Path::new("/"))?;
    ensure!(left.is_empty(), "these are left: {left:?}");
    Ok(())
}

/// Installs the package if it is not there. Returns what `detector status --hooks` says.
fn install() -> Result<String> {
    if !Path::new("/usr/bin/detector").exists() {
        for command in INSTALL {
            on_host("sh", ["-c", &format!("cd {PACKAGES} && {command}")]).with_context(journal)?;
        }
    }
    status().with_context(journal)
}

/// The file of the package.
fn package() -> Result<String> {
    let mut files = fs::read_dir(PACKAGES)?;
    let file = files.next().context("there is no package")??.path();
    Ok(file.display().to_string())
}

/// What `detector status --hooks` says once the daemon watches. Fails if it does not see all that it can.
fn status() -> Result<String> {
    let waited = detector(&["status", "--wait", "120s"])?;
    let said = String::from_utf8(waited.stdout)?;
    ensure!(waited.status.success(), "{}: {said}{}", waited.status, String::from_utf8_lossy(&waited.stderr));
    let hooks = on_host("detector", ["status", "--hooks"])?;
    ensure!(said.starts_with("watching: all hooks proven, "), "{hooks}");
    Ok(hooks)
}

/// The lines of a status that tell what is seen, and how.
fn sight(status: &str) -> Vec<&str> {
    status.lines().filter(|line| line.starts_with("hook ") || line.starts_with("not ")).collect()
}

/// The process id of the service, or 0.
fn main_process() -> Result<String> {
    Ok(on_host("systemctl", ["show", "--property=MainPID", "--value", "detector"])?.trim().to_owned())
}

/// Starts a shell in a container and changes a file there. Returns the findings in the log of the service.
fn expect_findings(lab: &mut Lab) -> Result<Vec<Value>> {
    Ok(shell_and_write(lab).with_context(journal)?.0)
}

/// Starts a shell in a container and changes a file there, and waits until both are in the log. Returns what is there
/// about this container, and the other lines.
pub(super) fn shell_and_write(lab: &mut Lab) -> Result<(Vec<Value>, Vec<Value>)> {
    let (container, path) = (Container::service(lab.number())?, lab.file()?);
    container.exec(&["/bin/sh", "-c", "true"])?;
    container.service_does(&["append", &path])?;
    wait_for("a shell and a write in the log", PATIENCE, || {
        let text = fs::read_to_string(LOG)?;
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let (found, others): (Vec<_>, Vec<_>) = lines.partition(|line| line["container"]["id"] == *container.id);
        let has = |finding: &str, path: &str| {
            found.iter().any(|line| line["finding"] == finding && line["file"]["path"] == path)
        };
        let is_there = has("shell_in_container", "/bin/busybox") && has("image_write", &path);
        Ok(is_there.then_some((found, others)))
    })
}

/// Proves that these logs are whole.
fn verify(files: &[&str]) -> Result<()> {
    let said = on_host("detector", [&["log", "verify"], files].concat())?;
    ensure!(said.contains("whole: nothing is missing"), "{said}");
    Ok(())
}

/// The files below a directory whose names tell that they are the package's.
fn traces(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if NO_TRACES.iter().any(|no| path == Path::new(no)) {
            continue;
        }
        if path.file_name().is_some_and(|name| name.to_string_lossy().contains("detector")) {
            found.push(path.clone());
        }
        if entry.file_type()?.is_dir() {
            found.extend(traces(&path)?);
        }
    }
    Ok(found)
}

/// What the service has told the journal, for the report of a failure.
fn journal() -> String {
    on_host("journalctl", ["--no-pager", "--lines=60", "--unit=detector"]).unwrap_or_else(|error| format!("{error:#}"))
}
