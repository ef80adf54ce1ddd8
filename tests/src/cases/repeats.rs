//! What is done again and again is one finding with a count, and what is new is told at once. All of these run with a
//! sensor that counts, as users run it, and are found again from its recording.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::lab::Lab;
use crate::container::{Container, Setup};
use crate::root::Root;

/// What a sensor has told about a container.
struct Told {
    /// All lines of findings about acts.
    lines: Vec<Value>,
    /// The last line of each finding.
    findings: Vec<Value>,
}

impl Told {
    /// Runs a function with a sensor that counts, and a container. Returns what is told about the container.
    fn about(lab: &mut Lab, action: impl FnOnce(&Container) -> Result<()>) -> Result<Self> {
        let container = lab.new_container()?;
        Self::about_this(lab, &container, action)
    }

    fn about_this(lab: &mut Lab, container: &Container, action: impl FnOnce(&Container) -> Result<()>) -> Result<Self> {
        let run = lab.counted(|_| action(container))?;
        let (mut lines, mut findings): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
        for line in run.expect_same()? {
            let line: Value = serde_json::from_str(&line)?;
            if line["container"]["id"] != container.id.as_str() || line["finding"] == "session" {
                continue;
            }
            match findings.iter_mut().find(|finding| finding["id"] == line["id"]) {
                Some(earlier) => {
                    let revision = earlier["revision"].as_u64().context("it has none")?;
                    ensure!(line["revision"] == revision + 1 && acts(&line) > acts(earlier), "after {earlier}: {line}");
                    *earlier = line.clone();
                }
                None => {
                    ensure!(line["revision"] == 1 && line["repeated"].is_null(), "the first line is {line}");
                    findings.push(line.clone());
                }
            }
            lines.push(line);
        }
        Ok(Self { lines, findings })
    }

    /// The findings about this operation.
    fn of(&self, op: &str) -> Vec<&Value> {
        self.findings.iter().filter(|finding| finding["file"]["op"] == op).collect()
    }

    /// Expects findings of this operation about so many acts each.
    fn expect(&self, op: &str, counts: &[u64]) -> Result<()> {
        let found: Vec<_> = self.of(op).into_iter().map(count).collect();
        ensure!(found == counts, "the findings about {op} are about {found:?} acts instead of {counts:?}");
        Ok(())
    }
}

/// How many files a finding is about, or how often it was done.
fn count(finding: &Value) -> u64 {
    finding["repeated"]["count"].as_u64().unwrap_or(1)
}

/// How many acts a finding is about.
fn acts(finding: &Value) -> u64 {
    let operations = finding["repeated"]["operations"].as_object();
    operations.map_or_else(|| count(finding), |counts| counts.values().filter_map(Value::as_u64).sum())
}

/// The words for a few numbers: names that have nothing in common.
fn word(number: usize) -> String {
    const SYLLABLES: [&str; 7] = ["ba", "do", "fi", "gu", "ke", "li", "mo"];
    [49, 7, 1].map(|unit| SYLLABLES[number / unit % 7]).concat()
}

/// An installer writes 343 files to seven directories.
pub(super) fn files_below_a_directory(lab: &mut Lab) -> Result<()> {
    let told = Told::about(lab, |container| {
        container.service_does(&["mkdir", "/srv/site"])?;
        for directory in 0..7 {
            let directory = format!("/srv/site/{}", word(49 * directory));
            container.service_does(&["mkdir", &directory])?;
            for file in 0..49 {
                container.service_does(&["create", &format!("{directory}/{}.txt", word(file))])?;
            }
            // Of fifty in a second, the kernel would only count some.
            thread::sleep(Duration::from_millis(1_100));
        }
        Ok(())
    })?;
    let (files, below) = (told.of("create"), "/srv/site/**");
    let all: u64 = files.iter().copied().map(count).sum();
    ensure!(all == 343, "{all} files were told in {} findings", files.len());
    let last =
        files.iter().find(|finding| finding["repeated"]["paths"] == below).context("nothing is below /srv/site")?;
    // In each of the first two directories, three files are told, and the others counted. Then comes the third one.
    ensure!(count(last) == 5 * 49 - 1, "{} files are below /srv/site", count(last));
    ensure!(files.len() == 2 * 4 + 1 + 1, "{} findings about files", files.len());
    let names = &last["repeated"]["names"];
    ensure!(names[0] == format!("/srv/site/{}/{}.txt", word(2 * 49), word(1)), "the first name is {}", names[0]);
    ensure!(names[7] == format!("/srv/site/{}/{}.txt", word(6 * 49), word(48)), "the last name is {}", names[7]);
    let message = last["message"].as_str().context("it has no message")?;
    ensure!(message.starts_with("244 files created below /srv/site in container "), "{message}");
    ensure!(told.lines.len() <= 40, "{} lines", told.lines.len());
    Ok(())
}

/// A program of the application writes a temporary file for each request, and removes it. That the one who has created
/// a file removes it is part of the creation.
pub(super) fn temporary_files(lab: &mut Lab) -> Result<()> {
    let told = Told::about(lab, |container| {
        for request in 0..100_u32 {
            let path = format!("/srv/tmp.{:08x}", request.wrapping_mul(0x9e37_79b9));
            container.service_does(&["create", &path])?;
            container.service_does(&["unlink", &path])?;
        }
        Ok(())
    })?;
    told.expect("create", &[1, 1, 1, 97])?;
    ensure!(told.findings.len() == 4, "{} findings", told.findings.len());
    ensure!(told.findings[3]["repeated"]["paths"] == "/srv/tmp.*", "not like /srv/tmp.*: {}", told.findings[3]);
    ensure!(told.lines.len() <= 8, "{} lines", told.lines.len());
    Ok(())
}

/// A program replaces a file a hundred times: it writes another one and renames it. Every tenth one is executable.
pub(super) fn replaced_file(lab: &mut Lab) -> Result<()> {
    let told = Told::about(lab, |container| container.service_does(&["replace", "/srv/state", "100"]).map(drop))?;
    let files: u64 = told.of("create").into_iter().map(count).sum();
    let all: u64 = told.findings.iter().map(acts).sum();
    ensure!((files, all) == (100, 210), "{files} files and {all} acts were told");
    let plain = told.findings.iter().max_by_key(|finding| count(finding)).context("nothing was told")?;
    let message = plain["message"].as_str().context("it has no message")?;
    ensure!(message.starts_with("/srv/state replaced "), "{message}");
    ensure!(plain["repeated"]["names"] == json!(["/srv/state"]) && plain["severity"] == "medium", "{plain}");
    // The first one is executable.
    let first = &told.findings[0];
    ensure!(first["repeated"]["operations"] == json!({"create": 1, "chmod": 1, "rename": 1}), "{first}");
    ensure!(first["severity"] == "high" && first["file"]["path"] == "/srv/state", "{first}");
    ensure!(told.findings.len() <= 12 && told.lines.len() <= 40, "{} lines", told.lines.len());
    Ok(())
}

/// A program creates very many files, so that the kernel only counts most of them. What is new is told all the same.
pub(super) fn counted_in_kernel(lab: &mut Lab) -> Result<()> {
    const FILES: u64 = 4_000;
    const SCRIPT: &str = "set -e; i=0
        while [ $i -lt 4000 ]; do
            : > /srv/flood/$i.dat
            i=$((i + 1))
            case $i in
                # The sensor notices that there are many.
                300) /bin/busybox sleep 5 ;;
                2000) : > /srv/flood/code.php ;;
                2500) /usr/bin/dash -c ': > /srv/flood/other.dat' ;;
                3000) /bin/busybox cp /bin/true /srv/flood/program.dat ;;
                3500) : >> /srv/flood/1234.dat; /bin/busybox rm /srv/flood/2345.dat ;;
            esac
        done";
    let told = Told::about(lab, |container| {
        container.service_does(&["mkdir", "/srv/flood"])?;
        container.service_does(&["run", "/bin/busybox", "sh", "-c", SCRIPT]).map(drop)
    })?;
    let is_plain = |finding: &&&Value| {
        finding["process"]["exe"] == "/bin/busybox"
            && finding["severity"] == "medium"
            && finding["file"]["path"].as_str().is_some_and(|path| path.ends_with(".dat"))
    };
    let created = told.of("create");
    let plain: Vec<_> = created.iter().filter(is_plain).collect();
    let files: u64 = plain.iter().map(|finding| count(finding)).sum();
    let in_kernel: u64 = plain.iter().filter_map(|finding| finding["repeated"]["counted_in_kernel"].as_u64()).sum();
    ensure!(files == FILES, "{files} files were told");
    let messages: Vec<_> = plain.iter().map(|finding| &finding["message"]).collect();
    ensure!(in_kernel > FILES / 10, "the kernel has counted {in_kernel} files: {messages:?}");
    for finding in plain {
        let (message, files) = (&finding["message"], &finding["repeated"]["counted_in_kernel"]);
        let says = format!(", {files} of them only counted by the kernel, by directory and suffix");
        ensure!(files.is_null() || message.as_str().is_some_and(|message| message.ends_with(&says)), "{message}");
    }
    for (path, severity) in [("code.php", "medium"), ("other.dat", "medium"), ("program.dat", "high")] {
        let path = format!("/srv/flood/{path}");
        let found = created.iter().find(|finding| finding["file"]["path"] == path.as_str());
        let found = found.with_context(|| format!("{path} is not told"))?;
        ensure!(found["severity"] == severity && count(found) == 1, "{found}");
    }
    Ok(())
}

/// What another program, a new kind of file, and somebody from outside do among many acts that are counted.
pub(super) fn something_new(lab: &mut Lab) -> Result<()> {
    let told = Told::about(lab, |container| {
        let ordinary = |number| container.service_does(&["create", &format!("/srv/request-{number}")]).map(drop);
        (0..30).try_for_each(ordinary)?;
        container.service_does(&["run", "/bin/cp", "/etc/passwd", "/srv/request-30"])?;
        container.service_does(&["create", "/srv/request-31.php"])?;
        container.exec_tool(&["create", "/srv/request-32"])?;
        (33..63).try_for_each(ordinary)
    })?;
    told.expect("create", &[1, 1, 1, 57, 1, 1, 1])?;
    for (finding, path) in told.findings[4..].iter().zip(["request-30", "request-31.php", "request-32"]) {
        ensure!(finding["file"]["path"] == format!("/srv/{path}"), "not {path}: {finding}");
    }
    Ok(())
}

/// Ten changes of a session are ten findings, and so are its shells.
pub(super) fn session(lab: &mut Lab) -> Result<()> {
    let told = Told::about(lab, |container| {
        let script = "for name in 0 1 2 3 4 5 6 7 8 9; do echo > /srv/file$name; done";
        container.exec(&["/usr/bin/dash", "-c", script]).map(drop)
    })?;
    told.expect("create", &[1; 10])?;
    ensure!(told.findings.iter().all(|finding| finding["session"].is_string()), "one is in no session");
    Ok(())
}

/// A scheduler runs the same shell again and again, and then one with a number; a person runs it from outside.
pub(super) fn shells(lab: &mut Lab) -> Result<()> {
    let told = Told::about(lab, |container| {
        for _ in 0..20 {
            container.service_does(&["run", "/usr/bin/dash", "-c", "exit 0"])?;
        }
        for number in 0..20 {
            container.service_does(&["run", "/usr/bin/dash", "-c", &format!(": {number}")])?;
        }
        container.service_does(&["run", "/usr/bin/dash", "-c", "exit 0; #"])?;
        (0..5).try_for_each(|_| container.exec(&["/usr/bin/dash", "-c", "exit 0"]).map(drop))
    })?;
    let counts: Vec<_> = told.findings.iter().map(count).collect();
    ensure!(counts == [20, 20, 1, 1, 1, 1, 1, 1], "the shells are counted as {counts:?}");
    for (counted, times) in [(0, "20 times"), (1, "20 times with up to 20 commands that differ in numbers")] {
        let message = told.findings[counted]["message"].as_str().context("it has no message")?;
        ensure!(message.contains(&format!(" (by the application), {times}, first ")), "{message}");
    }
    let last = &told.findings[1]["repeated"];
    ensure!(last["commands"][7][2] == ": 19" && last["commands_omitted"] == 12, "the commands are {last}");
    Ok(())
}

/// A package manager installs a package of 300 files, and runs its scripts and its program. A script also runs a
/// program that was there before, and is not the image's.
pub(super) fn installation(lab: &mut Lab) -> Result<()> {
    const DPKG: [&str; 4] = ["/usr/bin/dpkg", "--force-bad-path", "--install", "/data/p.deb"];
    // The volume is no part of the image.
    const PACKAGE: &str = r"
        mkdir -p /data/p/DEBIAN /data/p/usr/bin /var/lib/dpkg/info /var/lib/dpkg/updates
        touch /var/lib/dpkg/status /var/lib/dpkg/available
        printf 'Package: p\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: many files\n' \
            > /data/p/DEBIAN/control
        printf '#!/bin/sh\nexit 0\n' > /data/p/DEBIAN/preinst
        printf '#!/bin/sh\n/usr/bin/p\n/usr/bin/p again\n/tmp/mine\nexit 0\n' > /data/p/DEBIAN/postinst
        for directory in a b c d e f; do
            mkdir -p /data/p/usr/share/p/$directory
            for number in $(seq 50); do echo x > /data/p/usr/share/p/$directory/file$number; done
        done
        cp /bin/true /data/p/usr/bin/p
        chmod 755 /data/p/DEBIAN/preinst /data/p/DEBIAN/postinst /data/p/usr/bin/p
        /usr/bin/dpkg-deb --build /data/p /data/p.deb";
    let setup = Setup { root: Root::OverlayOnDisk, ..Setup::default() };
    let container = Container::service_with(lab.number(), setup)?;
    container.service_does(&["run", "/bin/busybox", "sh", "-ec", PACKAGE])?;
    container.service_does(&["copy", "/bin/true", "/tmp/mine"])?;
    lab.take_findings()?;
    let told = Told::about_this(lab, &container, |container| {
        container.service_does(&[&["run"], &DPKG[..]].concat()).map(drop)
    })?;
    let found: Vec<_> = told.findings.iter().map(|finding| json!([finding["finding"], finding["severity"]])).collect();
    // The scripts and the program of the package are not the image's.
    let drifted = ["drifted_exec", "high"];
    let expected = [["image_write", "high"], ["shell_in_container", "medium"], drifted, drifted];
    ensure!(found == expected.map(|kind| json!(kind)), "the findings are {:?}", told.findings);
    let [.., own, other] = &told.findings[..] else { anyhow::bail!("{:?}", told.findings) };
    ensure!(own["repeated"]["count"] == 4 && own["repeated"]["by"] == json!(DPKG), "not by dpkg: {own}");
    ensure!(other["file"]["path"] == "/tmp/mine" && other["repeated"].is_null(), "{other}");
    let repeated = &told.findings[0]["repeated"];
    ensure!(repeated["by"] == json!(DPKG), "not by dpkg: {repeated}");
    ensure!(repeated["operations"]["create"].as_u64() >= Some(301), "the files are {}", repeated["operations"]);
    ensure!(told.lines.len() <= 9, "{} lines about one installation", told.lines.len());
    Ok(())
}
