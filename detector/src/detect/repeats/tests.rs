use std::collections::HashMap;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::detect::Detector;
use crate::detect::samples::{self, change, container, context, exec, path};
use crate::event::{At, Exec, Exit, ImageChange, ImageOp, Layer, Origin, ServingSign, Session, Via};
use crate::finding::{Kind, Line, Repeated, Severity, Text};

const START: u64 = 1_000 * SECOND;

/// To make one takes long.
static CONTEXT: LazyLock<Context> = LazyLock::new(context);

/// What a detector says of events and times.
struct Watch {
    detector: Detector,
    findings: Vec<Finding>,
    now: u64,
    acts: u64,
}

impl Default for Watch {
    fn default() -> Self {
        Self { detector: Detector::counting(), findings: Vec::new(), now: START, acts: 0 }
    }
}

impl Watch {
    fn event(&mut self, event: &Event) {
        let findings = &mut self.findings;
        let container = TrackedContainer { root_dev: Some(45), ..container() };
        self.detector.detect(event, &container, &CONTEXT, |finding| findings.push(finding));
    }

    /// A change, a millisecond after the last one.
    fn change(&mut self, mut change: ImageChange) {
        self.wait(SECOND / 1000);
        self.acts += 1;
        (change.at.time, change.at.number) = (self.now, self.acts);
        self.event(&Event::ImageChange(Box::new(change)));
    }

    fn exec(&mut self, mut exec: Exec) {
        self.wait(SECOND);
        self.acts += 1;
        (exec.at.time, exec.at.number, exec.process.start_time) = (self.now, self.acts, self.now);
        exec.process.pid += u32::try_from(self.acts).expect("there are few");
        self.event(&Event::Exec(Box::new(exec)));
    }

    /// Lets the time pass, as the reader does.
    fn wait(&mut self, time: u64) {
        self.now += time;
        let findings = &mut self.findings;
        while let Some(due) = self.detector.due().filter(|due| *due <= self.now) {
            self.detector.take_time(due, &CONTEXT, |line| findings.extend(finding(line)));
        }
    }

    fn stop(&mut self) {
        let findings = &mut self.findings;
        self.detector.stop(self.now, &CONTEXT, |line| findings.extend(finding(line)));
    }

    /// The last line of each finding about acts, in the order of their first lines.
    fn last(&self) -> Vec<&Finding> {
        let mut last: Vec<&Finding> = Vec::new();
        for finding in self.findings.iter().filter(|finding| finding.finding != Kind::Session) {
            match last.iter_mut().find(|known| known.id == finding.id) {
                Some(known) => {
                    assert_eq!(finding.revision, known.revision + 1);
                    assert!(acts(finding) > acts(known));
                    *known = finding;
                }
                None => {
                    assert_eq!((finding.revision, &finding.repeated), (1, &None));
                    last.push(finding);
                }
            }
        }
        last
    }

    /// How many files each finding is about, or how often it was done.
    fn counts(&self) -> Vec<u64> {
        self.last().into_iter().map(count).collect()
    }

    /// Expects a last finding with this message, besides the name of the container and the times.
    fn expect_message(&self, expected: &str) {
        let message = &self.last().last().expect("there is one").message;
        let (what, times) = message.split_once(", first ").unwrap_or((message, ""));
        assert_eq!(what.replace(" container 3f2a0c6d9e1b", ""), expected, "{message}");
        assert!(times.is_empty() || times.contains(", last "), "{message}");
    }
}

fn finding(line: Line) -> Option<Finding> {
    match line {
        Line::Finding(finding) => Some(*finding),
        Line::Notice(_) => None,
    }
}

fn count(finding: &Finding) -> u64 {
    finding.repeated.as_ref().map_or(1, |repeated| repeated.count)
}

/// How many acts a finding is about.
fn acts(finding: &Finding) -> u64 {
    let operations = finding.repeated.iter().flat_map(|repeated| repeated.operations.values());
    operations.copied().reduce(|sum, count| sum + count).unwrap_or_else(|| count(finding))
}

fn repeated(finding: &Finding) -> &Repeated {
    finding.repeated.as_ref().expect("it is a count")
}

fn created(file: &str) -> ImageChange {
    change(ImageOp::Create, Layer::New, 0o100_644, file)
}

fn renamed(file: &str, to: &str) -> ImageChange {
    let mut change = change(ImageOp::Rename, Layer::Upper, 0o100_644, file);
    change.file.inode = 102;
    change.detail.as_mut().expect("it has some").new_path = Some(path(to));
    change
}

/// What a careful program does to replace a file: it creates another one, with these permissions, and renames it.
fn replacement(file: &str, mode: Option<u32>, nth: u64) -> Vec<ImageChange> {
    let temporary = format!("{file}.tmp");
    let mut changes = vec![created(&temporary)];
    changes.extend(mode.map(|mode| change(ImageOp::Chmod, Layer::Upper, 0o100_000 | mode, &temporary)));
    changes.push(renamed(&temporary, file));
    changes.iter_mut().for_each(|change| change.file.inode = 1000 + nth);
    let mode = mode.unwrap_or(0o644);
    changes.last_mut().expect("it is one").file.mode = 0o100_000 | mode;
    changes
}

/// The same by another process: with this program, user or origin.
fn by(mut change: ImageChange, exe: &str, uid: u32, origin: Origin) -> ImageChange {
    let detail = change.detail.as_mut().expect("it has some");
    (detail.exe, detail.process.uid, detail.process.origin) = (path(exe), uid, origin);
    change
}

fn in_session(mut change: ImageChange) -> ImageChange {
    let process = &mut change.detail.as_mut().expect("it has some").process;
    (process.origin, process.session) = (Origin::Entered, Some(session()));
    change
}

const fn session() -> Session {
    Session { start_time: 70, pid: 1234, via: Via::Exec }
}

#[test]
fn many_files_of_a_directory_are_one_finding() {
    let mut watch = Watch::default();
    let directory = "/usr/lib/python3/dist-packages";
    let name = |nth: u8| format!("{directory}/{}{}.py", char::from(b'a' + nth / 26), char::from(b'a' + nth % 26));
    (0..200).for_each(|nth| watch.change(created(&name(nth))));
    watch.wait(3600 * SECOND);
    assert_eq!(watch.counts(), [1, 1, 1, 197]);
    assert!(watch.findings.len() <= 6, "{} lines", watch.findings.len());
    let last = watch.last()[3];
    assert_eq!(last.severity, Severity::High);
    assert_eq!(
        last.message,
        format!(
            "197 files created in {directory} in container 3f2a0c6d9e1b by python3.12, first 08:16:40, last 08:16:40"
        )
    );
    let repeated = repeated(last);
    assert_eq!(repeated.paths.as_ref().expect("they have").as_str(), format!("{directory}/*"));
    let names: Vec<_> = repeated.names.iter().map(ToString::to_string).collect();
    assert_eq!(names, [3, 4, 5, 6, 196, 197, 198, 199].map(name));
    assert_eq!(repeated.names_omitted, 197 - 8);
    assert_eq!((repeated.first, repeated.last), (CONTEXT.wall(START + 4_000_000), last.time));
}

#[test]
fn a_count_has_the_evidence_that_all_its_acts_have() {
    let evidence = |alter: fn(&mut crate::event::Detail)| {
        let mut watch = Watch::default();
        (0..4).for_each(|nth| watch.change(created(&format!("/srv/site/x{nth}"))));
        let mut last = created("/srv/site/x9");
        alter(last.detail.as_mut().expect("it has some"));
        watch.change(last);
        watch.stop();
        assert_eq!(watch.counts(), [1, 1, 1, 2]);
        let evidence = watch.last()[3].evidence.clone().expect("it can be excepted");
        (evidence.path, evidence.exe.map(|exe| exe.to_string()))
    };
    let python = || Some("/usr/bin/python3.12".to_owned());
    assert_eq!(evidence(|_| {}), (true, python()));
    assert_eq!(evidence(|detail| detail.path.is_direct = false), (false, python()));
    assert_eq!(evidence(|detail| detail.exe_layer = Some(Layer::Upper)), (true, None));
}

#[test]
fn the_same_file_again_is_one_finding_and_another_file_is_told() {
    let mut watch = Watch::default();
    (0..100).for_each(|_| watch.change(renamed("/srv/state.json.tmp", "/srv/state.json")));
    watch.change(renamed("/srv/state.json.tmp", "/srv/app.conf"));
    watch.wait(3600 * SECOND);
    assert_eq!(watch.counts(), [1, 1, 1, 97, 1]);
    watch.change(renamed("/srv/state.json.tmp", "/srv/state.json"));
    watch.stop();
    assert_eq!(watch.counts(), [1, 1, 1, 98, 1]);
    assert_eq!(
        watch.last()[3].message,
        "/srv/state.json renamed 98 times in container 3f2a0c6d9e1b by python3.12, first 08:16:40, last 09:16:40"
    );
}

#[test]
fn a_file_that_is_created_changed_and_renamed_is_one_finding() {
    let mut watch = Watch::default();
    replacement("/srv/run", Some(0o755), 0).into_iter().for_each(|change| watch.change(change));
    watch.wait(10 * SECOND);
    // It is told at once that it was created, and that it is a program.
    let severities: Vec<_> = watch.findings.iter().map(|finding| finding.severity).collect();
    assert_eq!(severities, [Severity::Medium, Severity::High, Severity::High]);
    let [finding] = watch.last()[..] else { panic!("it is {} findings", watch.last().len()) };
    let file = finding.file.as_ref().expect("it has one");
    assert_eq!(file.path, Some(b"/srv/run"[..].into()));
    assert_eq!(file.mode.map(|mode| mode.to_string()), Some("0755".to_owned()));
    let repeated = repeated(finding);
    assert_eq!((repeated.count, repeated.names.len()), (1, 1));
    let operations: Vec<_> = repeated.operations.iter().map(|(op, count)| (*op, *count)).collect();
    assert_eq!(operations, [(ImageOp::Create, 1), (ImageOp::Rename, 1), (ImageOp::Chmod, 1)]);
    watch.expect_message("/srv/run replaced in by python3.12");
}

#[test]
fn a_file_that_is_replaced_again_and_again_is_one_finding() {
    let mut watch = Watch::default();
    for nth in 0..100 {
        // Some are slow, so that others begin before they end.
        replacement("/srv/state.json", None, nth).into_iter().for_each(|change| watch.change(change));
    }
    watch.wait(3600 * SECOND);
    assert_eq!(watch.counts(), [1, 1, 1, 97]);
    assert_eq!(watch.last().into_iter().map(acts).collect::<Vec<_>>(), [2, 2, 2, 194]);
    watch.expect_message("/srv/state.json replaced 97 times in by python3.12");
    let last = repeated(watch.last()[3]);
    assert_eq!(
        (last.paths.clone(), &last.names[..]),
        (Some(last.names[0].clone()), &[b"/srv/state.json"[..].into()][..])
    );
    // Another target is told at once, though it is created in the same way.
    let mut other = replacement("/srv/state.json", None, 200);
    other[1].detail.as_mut().expect("it has some").new_path = Some(path("/usr/bin/ls"));
    other.into_iter().for_each(|change| watch.change(change));
    watch.stop();
    let last = watch.last().pop().expect("there is one");
    assert_eq!((last.severity, last.revision, count(last)), (Severity::High, 1, 1));
    assert_eq!(watch.counts(), [1, 1, 1, 98, 1]);
}

#[test]
fn files_of_a_directory_that_are_replaced_are_one_finding() {
    let mut watch = Watch::default();
    for (nth, name) in ["apt", "bash", "curl", "dash", "env", "find", "grep"].into_iter().enumerate() {
        let changes = replacement(&format!("/usr/share/{name}"), Some(0o755), nth as u64);
        changes.into_iter().for_each(|change| watch.change(change));
    }
    watch.stop();
    assert_eq!(watch.counts(), [1, 1, 1, 4]);
    watch.expect_message("4 files replaced in /usr/share in by python3.12");
    let names: Vec<_> = repeated(watch.last()[3]).names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["dash", "env", "find", "grep"].map(|name| format!("/usr/share/{name}")));
}

#[test]
fn what_is_not_expected_is_told_beside_what_is() {
    let mut watch = Watch::default();
    watch.detector.start_container(&container());
    let log = |nth: u64| format!("/var/log/app-{nth}.log");
    (0..10).for_each(|nth| watch.change(created(&log(nth))));
    assert!(watch.findings.iter().all(|finding| finding.severity == Severity::Info));
    // It leaves the directory for logs.
    let mut moved = replacement("/var/log/state", None, 0);
    moved[1].detail.as_mut().expect("it has some").new_path = Some(path("/srv/state"));
    moved.into_iter().for_each(|change| watch.change(change));
    let last = watch.findings.last().expect("there is one");
    assert_eq!((last.revision, last.severity, last.expected), (2, Severity::Medium, None));
    // Nothing is expected after the host has changed the container.
    watch.change(by(created("/srv/other"), "/bin/cp", 0, Origin::Outside));
    watch.change(created(&log(11)));
    watch.stop();
    let last = watch.findings.iter().rfind(|finding| finding.revision == 1).expect("there is one");
    assert_eq!((last.severity, last.expected), (Severity::Low, None));
    assert_eq!(watch.counts(), [1, 1, 1, 7, 1, 1, 1]);
}

#[test]
fn what_others_do_later_does_not_belong_to_the_creation() {
    for (wait, pid, inode) in [(2 * SECOND, 1234, 0), (0, 99, 0), (0, 1234, 7)] {
        let mut watch = Watch::default();
        let mut changes = replacement("/srv/state", None, 0);
        changes[1].file.inode += inode;
        changes[1].detail.as_mut().expect("it has some").process.pid = pid;
        watch.change(changes.remove(0));
        watch.wait(wait);
        watch.change(changes.remove(0));
        watch.stop();
        assert_eq!(watch.last().len(), 2);
    }
}

#[test]
fn temporary_files_are_one_finding() {
    let mut watch = Watch::default();
    (0..1000).for_each(|nth| watch.change(created(&format!("/srv/req-{}/body.{}", nth % 7, nth))));
    watch.stop();
    assert_eq!(watch.counts(), [1, 1, 1, 997]);
    watch.expect_message("997 files like /srv/req-*/body.* created in by python3.12");
}

#[test]
fn a_growing_number_of_directories_is_one_finding() {
    let mut watch = Watch::default();
    for package in ["requests", "flask", "numpy", "jinja", "urllib", "click"] {
        for file in ["one", "two", "three", "four", "five"] {
            watch.change(created(&format!("/opt/site/{package}/{file}.txt")));
            watch.change(created(&format!("/opt/site/{package}/{file}/text")));
        }
    }
    watch.stop();
    let last = watch.last();
    let below = last.iter().find(|finding| finding.message.contains(" below /opt/site in ")).expect("there is one");
    assert_eq!(repeated(below).paths.as_ref().expect("they have").as_str(), "/opt/site/**");
    assert!(last.len() < 25, "{} findings", last.len());
    assert_eq!(watch.counts().iter().sum::<u64>(), 60);
}

#[test]
fn neither_the_root_nor_directories_of_programs_stand_for_others() {
    let mut watch = Watch::default();
    for directory in ["/one", "/two", "/three", "/four", "/five", "/usr/one", "/usr/two", "/usr/three", "/usr/four"] {
        watch.change(created(&format!("{directory}/file")));
    }
    for directory in ["one", "two", "three", "four"] {
        watch.change(created(&format!("/usr/lib/{directory}/file")));
    }
    watch.stop();
    assert_eq!(watch.counts(), [1; 13]);
    // Their own files are counted.
    (0..9).for_each(|nth| watch.change(created(&format!("/usr/lib/{}", char::from(b'a' + nth)))));
    watch.stop();
    watch.expect_message("6 files created in /usr/lib in by python3.12");
}

#[test]
fn what_is_new_is_told_at_once() {
    let mut watch = Watch::default();
    let file = |nth: usize| format!("/srv/app/file{nth}");
    (0..50).for_each(|nth| watch.change(created(&file(nth))));
    let origin = Origin::Application;
    let python = "/usr/bin/python3.12";
    let executable = change(ImageOp::Create, Layer::New, 0o100_755, &file(51));
    let written = change(ImageOp::OpenWrite, Layer::Lower, 0o100_644, &file(52));
    for (nth, new) in [
        by(created(&file(53)), "/bin/sh", 0, origin),
        by(created(&file(54)), python, 33, origin),
        by(created(&file(55)), python, 0, Origin::Entrypoint),
        by(created(&file(56)), python, 0, Origin::Outside),
        in_session(created(&file(57))),
        executable,
        written,
        created("/srv/app/file58.php"),
        created("/srv/app/file59.so.1"),
        created("/srv/app/bin/file60"),
        renamed("/srv/app/a", "/srv/app/file61"),
        renamed("/tmp/a", "/srv/app/file62"),
    ]
    .into_iter()
    .enumerate()
    {
        let before = watch.findings.len();
        watch.change(new);
        let told = watch.findings[before..].iter().filter(|told| told.revision == 1 && told.finding != Kind::Session);
        assert_eq!(told.count(), 1, "{nth}");
    }
    watch.stop();
    assert_eq!(watch.counts()[3], 47);
}

#[test]
fn what_is_not_known_in_full_or_is_an_attack_is_never_counted() {
    let mut watch = Watch::default();
    for _ in 0..10 {
        let mut change = created("/srv/file");
        change.detail.as_mut().expect("it has some").path.truncated = true;
        watch.change(change.clone());
        change.detail = None;
        watch.change(change);
        watch.change(created(&format!("/srv/{}", "x".repeat(2000))));
        let control = samples::control_open(crate::event::Control::Modprobe);
        watch.acts += 1;
        watch.event(&Event::ControlOpen(Box::new(crate::event::ControlOpen {
            at: At { number: watch.acts, ..control.at },
            ..control
        })));
        let mut shell = exec(Origin::Application, "/bin/dash", &["sh"]);
        shell.process.stdio[0] = crate::event::StdioKind::Socket;
        watch.exec(shell);
        let mut shell = exec(Origin::Application, "/bin/dash", &["sh", "-c", "true"]);
        shell.args.truncated = true;
        watch.exec(shell);
    }
    watch.stop();
    assert_eq!(watch.counts(), [1; 60]);
}

#[test]
fn shells_with_the_same_arguments_are_one_finding() {
    let mut watch = Watch::default();
    for _ in 0..60 {
        watch.exec(exec(Origin::Application, "/bin/dash", &["sh", "-c", "run-parts /etc/cron.hourly"]));
    }
    watch.exec(exec(Origin::Application, "/bin/dash", &["sh", "-c", "id"]));
    watch.stop();
    assert_eq!(watch.counts(), [60, 1]);
    assert_eq!(watch.findings.len(), 3, "the first ones, and the count at the end");
    assert_eq!(
        watch.last()[0].message,
        "dash started in container 3f2a0c6d9e1b (by the application), 60 times, first 08:16:41, last 08:17:40"
    );
    assert_eq!(repeated(watch.last()[0]).names, []);
}

#[test]
fn what_is_executed_once_a_minute_is_told_twice_in_an_hour() {
    let mut watch = Watch::default();
    for _ in 0..60 {
        watch.exec(exec(Origin::Application, "/bin/dash", &["sh", "-c", "run-parts /etc/cron.hourly"]));
        watch.wait(59 * SECOND);
    }
    let counts: Vec<_> =
        watch.findings.iter().map(|line| line.repeated.as_ref().map_or(1, |known| known.count)).collect();
    assert_eq!(counts, [1, 10]);
}

#[test]
fn shells_whose_arguments_differ_in_few_numbers_are_one_finding() {
    let mut watch = Watch::default();
    let run = |watch: &mut Watch, exe: &str, line: &str| {
        watch.exec(exec(Origin::Application, exe, &["sh", "-c", line]));
    };
    for nth in 0..60 {
        run(&mut watch, "/bin/dash", &format!("ps -p {} -o rss=", 4711 + nth));
    }
    run(&mut watch, "/bin/dash", "ps -p 4711 -o vsz=");
    run(&mut watch, "/bin/bash", "ps -p 4711 -o rss=");
    (0..4).for_each(|nth| run(&mut watch, "/bin/dash", &format!("ps -p 1,2,3,4,{nth} -o rss=")));
    watch.stop();
    assert_eq!(watch.counts(), [60, 1, 1, 1, 1, 1, 1]);
    let counted = watch.last()[0];
    assert_eq!(
        counted.message,
        "dash started in container 3f2a0c6d9e1b (by the application), 60 times with up to 60 commands that differ in \
         numbers, first 08:16:41, last 08:17:40"
    );
    let repeated = repeated(counted);
    let numbers: Vec<_> = repeated.commands.iter().map(|args| args[2].as_str().replace(" -o rss=", "")).collect();
    assert_eq!(numbers, [4711, 4712, 4713, 4714, 4767, 4768, 4769, 4770].map(|number| format!("ps -p {number}")));
    assert_eq!((repeated.commands_omitted, &repeated.names[..]), (52, &[][..]));
}

#[test]
fn secrets_of_counted_shells_are_redacted() {
    let mut watch = Watch::default();
    for nth in 0..6 {
        let line = format!("check --password=hunter{nth} {nth}");
        watch.exec(exec(Origin::Application, "/bin/dash", &["sh", "-c", &line]));
    }
    watch.stop();
    assert_eq!(watch.counts(), [6]);
    let commands = &repeated(watch.last()[0]).commands;
    let lines: Vec<_> = commands.iter().map(|args| args[2].as_str()).collect();
    assert_eq!(lines, [0, 1, 2, 3, 4, 5].map(|nth| format!("check --password=[redacted] {nth}")));
    watch.expect_message("dash started in (by the application), 6 times with 6 commands that differ in numbers");
}

#[test]
fn another_version_of_a_program_is_told_at_once() {
    let mut watch = Watch::default();
    let mut program = samples::drifted("/srv/worker", &["worker"]);
    (0..5).for_each(|_| watch.exec(program.clone()));
    program.file.change_time += 1;
    (0..2).for_each(|_| watch.exec(program.clone()));
    program.file.size += 1;
    watch.exec(program);
    watch.stop();
    assert_eq!(watch.counts(), [5, 2, 1]);
}

#[test]
fn only_a_flood_of_a_session_is_counted() {
    let mut watch = Watch::default();
    for nth in 0..OWN_IN_SESSION {
        watch.change(in_session(created(&format!("/srv/file{nth}"))));
    }
    assert_eq!(watch.counts(), [1; OWN_IN_SESSION as usize]);
    for nth in 0..1000 {
        watch.change(in_session(created(&format!("/srv/file{nth}"))));
    }
    // The session ends, and what was counted is published then.
    let at = At { time: watch.now, number: 0, cgroup: 500, container: 500 };
    watch.event(&Event::Exit(Exit { at, session: session(), start_time: 70, pid: 1234, status: 0, is_last: true }));
    assert_eq!(watch.counts().last(), Some(&1000));
    assert!(watch.last().iter().all(|finding| finding.session.is_some()));
}

#[test]
fn what_was_counted_is_published_when_the_container_ends() {
    let mut watch = Watch::default();
    (0..10).for_each(|nth| watch.change(created(&format!("/srv/file{nth}"))));
    assert_eq!(watch.counts(), [1; 4]);
    for (cgroup, count) in [(499, 1), (500, 7), (500, 7)] {
        let findings = &mut watch.findings;
        watch.detector.end_container(cgroup, watch.now, &CONTEXT, |finding| findings.push(finding));
        assert_eq!(watch.counts(), [1, 1, 1, count]);
    }
}

#[test]
fn what_was_quiet_for_long_is_told_again() {
    let mut watch = Watch::default();
    (0..10).for_each(|_| watch.change(created("/srv/file")));
    watch.wait(QUIET);
    (0..10).for_each(|_| watch.change(created("/srv/file")));
    watch.stop();
    assert_eq!(watch.counts(), [1, 1, 1, 7, 1, 1, 1, 7]);
}

#[test]
fn what_goes_on_for_a_day_has_few_lines() {
    let mut watch = Watch::default();
    for _ in 0..24 * 360 {
        watch.wait(10 * SECOND);
        watch.change(created("/srv/file"));
    }
    watch.stop();
    assert!(watch.findings.len() < 35, "{} lines", watch.findings.len());
    watch.expect_message("/srv/file created 8637 times in by python3.12");
    let times = watch.last()[3].message.split_once(", first ").expect("it has them").1;
    assert_eq!(times, "2027-01-15 08:17:20, last 2027-01-16 08:16:48");
}

#[test]
fn the_memory_is_limited_and_nothing_is_lost() {
    let mut watch = Watch::default();
    for nth in 0..2 * MOST as u32 {
        for _ in 0..5 {
            watch.change(by(created("/srv/file"), "/bin/true", nth, Origin::Application));
            watch.now -= SECOND / 1000;
        }
    }
    let tallies = &watch.detector.repeats.others;
    assert_eq!((tallies.entries.len(), tallies.numbers.len(), tallies.used.len()), (MOST, MOST, MOST));
    assert!(tallies.due.len() <= MOST);
    watch.stop();
    assert_eq!(watch.findings.iter().filter(|finding| finding.revision == 2).count(), 2 * MOST);
}

#[test]
fn a_detector_that_does_not_count_tells_every_act() {
    let mut watch = Watch { detector: Detector::default(), ..Watch::default() };
    (0..100).for_each(|_| watch.change(created("/srv/file")));
    watch.stop();
    assert_eq!(watch.counts(), [1; 100]);
}

/// What can happen.
#[derive(Clone, Debug)]
enum Step {
    Create { directory: usize, file: u8, exe: usize, is_in_session: bool },
    Rename { from: u8, to: u8 },
    Replace { file: u8, mode: Option<u32> },
    Shell(usize),
    Wait(u64),
    EndContainer,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..6_usize, any::<u8>(), 0..2_usize, prop::bool::weighted(0.3)).prop_map(
            |(directory, file, exe, is_in_session)| Step::Create { directory, file, exe, is_in_session }
        ),
        4 => (0..6_u8, 0..6_u8).prop_map(|(from, to)| Step::Rename { from, to }),
        4 => (0..12_u8, prop::option::of(prop::sample::select(vec![0o600, 0o755])))
            .prop_map(|(file, mode)| Step::Replace { file, mode }),
        2 => (0..3_usize).prop_map(Step::Shell),
        2 => (0..30 * SECOND).prop_map(Step::Wait),
        1 => (0..2 * QUIET).prop_map(Step::Wait),
        1 => Just(Step::EndContainer),
    ]
}

proptest! {
    #[test]
    fn every_act_is_in_one_finding(steps in prop::collection::vec(step(), 0..400)) {
        const DIRECTORIES: [&str; 6] = ["", "/srv", "/srv/a", "/srv/b", "/usr/bin", "/srv/a/deep/er"];
        let mut watch = Watch::default();
        for step in steps {
            match step {
                Step::Create { directory, file, exe, is_in_session } => {
                    let letters = [file / 16, file % 16].map(|digit| char::from(b'a' + digit));
                    let file = format!("{}/{}{}", DIRECTORIES[directory], letters[0], letters[1]);
                    let change = by(created(&file), ["/bin/cp", "/bin/mv"][exe], 0, Origin::Application);
                    watch.change(if is_in_session { in_session(change) } else { change });
                }
                Step::Rename { from, to } => watch.change(renamed(&format!("/srv/{from}"), &format!("/srv/{to}"))),
                Step::Replace { file, mode } => {
                    let name = ["/srv/a", "/srv/bcd", "/usr/bin/x"][usize::from(file % 3)];
                    for change in replacement(name, mode, u64::from(file)) {
                        watch.change(change);
                    }
                }
                Step::Shell(nth) => {
                    watch.exec(exec(Origin::Application, "/bin/sh", &["sh", "-c", ["a", "b", "c"][nth]]));
                }
                Step::Wait(time) => watch.wait(time),
                Step::EndContainer => {
                    let findings = &mut watch.findings;
                    watch.detector.end_container(500, watch.now, &CONTEXT, |finding| findings.push(finding));
                }
            }
        }
        watch.stop();
        prop_assert_eq!(watch.last().into_iter().map(acts).sum::<u64>(), watch.acts);
        let mut severities: HashMap<&str, Severity> = HashMap::new();
        for finding in watch.findings.iter().filter(|finding| finding.finding != Kind::Session) {
            let before = severities.insert(&finding.id, finding.severity);
            prop_assert!(before.is_none_or(|before| before <= finding.severity));
            if let Some(repeated) = &finding.repeated {
                prop_assert!(repeated.names.len() <= 8 && repeated.first <= repeated.last);
                prop_assert_eq!(finding.time, repeated.last);
            }
        }
        prop_assert_eq!(watch.detector.repeats.due(), None);
    }
}

/// A package manager runs in a process with this id, and its program is on this layer.
fn start_manager(watch: &mut Watch, exe: &str, pid: u32, layer: Layer) {
    let mut exec = exec(Origin::Application, exe, &["apt-get", "install", "curl"]);
    watch.wait(SECOND);
    (exec.at.time, exec.process.pid, exec.file.layer) = (watch.now, pid, Some(layer));
    watch.event(&Event::Exec(Box::new(exec)));
}

/// The same by a child of this process.
fn by_child(mut change: ImageChange, of: u32) -> ImageChange {
    let process = &mut change.detail.as_mut().expect("it has some").process;
    let ancestor = &mut process.ancestors[0];
    (ancestor.pid, ancestor.start_time, ancestor.in_container) = (of, process.start_time, true);
    process.pid = 7777;
    by(change, "/usr/bin/dpkg", 0, Origin::Application)
}

/// An installation of 100 packages.
fn install(watch: &mut Watch, of: u32) {
    for nth in 0..100 {
        let directory = change(ImageOp::Mkdir, Layer::New, 0o040_755, &format!("/usr/share/p{nth}"));
        watch.change(by_child(directory, of));
        for (mode, file) in [(0o100_644, "share/doc"), (0o100_755, "bin/tool")] {
            let file = change(ImageOp::Create, Layer::New, mode, &format!("/usr/{file}/{nth}-x.dpkg-new"));
            watch.change(by_child(file, of));
        }
    }
}

#[test]
fn an_installation_is_one_finding() {
    let mut watch = Watch::default();
    start_manager(&mut watch, "/usr/bin/apt-get", 500, Layer::Lower);
    install(&mut watch, 500);
    watch.stop();
    assert_eq!(watch.counts(), [300]);
    let last = watch.last()[0];
    assert_eq!(last.severity, Severity::High);
    let by: Vec<_> = repeated(last).by.iter().flatten().map(|arg| arg.as_str()).collect();
    assert_eq!(by, ["apt-get", "install", "curl"]);
    watch.expect_message("200 files created, 100 directories created in by dpkg for apt-get install curl");
    // The first program is told at once.
    let severities: Vec<_> = watch.findings.iter().map(|finding| finding.severity).collect();
    assert_eq!(severities[..2], [Severity::Medium, Severity::High], "{severities:?}");
    assert!(watch.findings.len() <= 5, "{} lines", watch.findings.len());
    // Another installation is another finding.
    start_manager(&mut watch, "/usr/bin/apt-get", 501, Layer::Lower);
    install(&mut watch, 501);
    watch.stop();
    assert_eq!(watch.counts(), [300, 300]);
}

#[test]
fn what_an_installation_does_to_accounts_and_privileges_is_told() {
    let mut watch = Watch::default();
    start_manager(&mut watch, "/usr/bin/pip3.11", 500, Layer::Lower);
    install(&mut watch, 500);
    watch.change(by_child(change(ImageOp::OpenWrite, Layer::Lower, 0o100_644, "/etc/passwd"), 500));
    watch.change(by_child(change(ImageOp::Create, Layer::New, 0o104_755, "/usr/bin/sudo"), 500));
    watch.stop();
    assert_eq!(watch.counts(), [300, 1, 1]);
}

#[test]
fn a_package_manager_is_a_program_of_the_image() {
    let mut watch = Watch::default();
    start_manager(&mut watch, "/usr/bin/apt-get", 500, Layer::Upper);
    let before = watch.last().len();
    install(&mut watch, 500);
    assert!(watch.last().len() > before + 5);
    // What it does later in the same process is not of the installation.
    let mut watch = Watch::default();
    start_manager(&mut watch, "/usr/bin/apt-get", 500, Layer::Lower);
    start_manager(&mut watch, "/usr/bin/python3", 500, Layer::Lower);
    install(&mut watch, 500);
    watch.stop();
    assert_eq!(watch.counts(), [300]);
}

#[test]
fn a_shell_that_takes_commands_is_in_no_installation() {
    let mut watch = Watch::default();
    start_manager(&mut watch, "/usr/bin/apt-get", 500, Layer::Lower);
    let mut shell = exec(Origin::Application, "/usr/bin/dash", &["sh"]);
    shell.process.pid = 501;
    let above = &mut shell.process.ancestors[0];
    (above.pid, above.start_time, above.in_container) = (500, shell.process.start_time, true);
    shell.at.time = watch.now;
    watch.event(&Event::Exec(Box::new(shell)));
    let before = watch.last().len();
    install(&mut watch, 501);
    assert!(watch.last().len() > before + 5);
}

#[test]
fn a_shell_that_is_no_shell_of_the_image_any_more_is_told_at_once() {
    let mut watch = Watch::default();
    let container = || TrackedContainer { started: Some(START), root_dev: Some(45), ..container() };
    watch.detector.start_container(&container());
    for nth in 0..12 {
        watch.wait(55 * SECOND);
        let mut shell = exec(Origin::Application, "/bin/dash", &["sh", "-c", "ping"]);
        (shell.at.time, shell.at.number, shell.process.start_time) = (watch.now, nth, watch.now);
        let findings = &mut watch.findings;
        watch.detector.detect(&Event::Exec(Box::new(shell)), &container(), &CONTEXT, |finding| findings.push(finding));
    }
    let told: Vec<_> = watch.findings.iter().map(|line| (count(line), line.typical.is_some())).collect();
    assert_eq!(told, [(1, true), (11, false)]);
}

#[test]
fn acts_of_the_image_are_counted_for_themselves() {
    let mut watch = Watch::default();
    let container = || TrackedContainer { started: Some(START), root_dev: Some(45), ..container() };
    watch.detector.start_container(&container());
    let make = |watch: &mut Watch, op, path: &str, pid| {
        watch.wait(SECOND / 1000);
        watch.acts += 1;
        let mut change = change(op, Layer::New, 0o100_644, path);
        (change.at.time, change.at.number, change.file.inode) = (watch.now, watch.acts, watch.acts);
        change.detail.as_mut().expect("the sample has it").process.pid = pid;
        let findings = &mut watch.findings;
        let event = Event::ImageChange(Box::new(change));
        watch.detector.detect(&event, &container(), &CONTEXT, |finding| findings.push(finding));
    };
    let program = exec(Origin::Application, "/usr/bin/python3.12", &["python3", "app.py"]);
    watch.detector.detect(&Event::Exec(Box::new(program)), &container(), &CONTEXT, |_| {});
    for nth in 0..10 {
        make(&mut watch, ImageOp::Create, &format!("/srv/state-{nth}"), 1234);
    }
    // The arguments of this process are not known.
    for nth in 10..20 {
        make(&mut watch, ImageOp::Create, &format!("/srv/state-{nth}"), 1300);
    }
    watch.stop();
    let acts = |finding: &&Finding| finding.typical.as_ref().map(|typical| typical.acts.len());
    let last: Vec<_> = watch.last().iter().map(|finding| (count(finding), acts(finding))).collect();
    let [.., own, other] = [(7, Some(7)), (7, None)];
    assert_eq!(last, [(1, Some(1)), (1, Some(1)), (1, Some(1)), own, (1, None), (1, None), (1, None), other]);
    // Too many cannot be told from those of other containers.
    for nth in 20..100 {
        make(&mut watch, ImageOp::Create, &format!("/srv/state-{nth}"), 1234);
    }
    watch.stop();
    assert_eq!((count(watch.last()[3]), acts(&watch.last()[3])), (87, None));
}

/// What a child of the process with the id `of` executes from the file with this inode.
fn runs(inode: u64, of: u32) -> Exec {
    let mut exec = exec(Origin::Application, &format!("/var/lib/p/{inode}"), &["script"]);
    (exec.file.inode, exec.file.layer) = (inode, Some(Layer::Upper));
    let above = &mut exec.process.ancestors[0];
    (above.pid, above.start_time, above.in_container) = (of, exec.process.start_time, true);
    exec
}

/// The creation of the file with this inode by a child of the process with the id `of`.
fn makes(inode: u64, of: u32) -> ImageChange {
    let mut made = change(ImageOp::Create, Layer::New, 0o100_755, &format!("/var/lib/p/{inode}.new"));
    made.file.inode = inode;
    by_child(made, of)
}

fn drifted(watch: &Watch) -> Vec<(u64, Severity)> {
    let last = watch.last().into_iter().filter(|finding| finding.finding == Kind::DriftedExec);
    last.map(|finding| (count(finding), finding.severity)).collect()
}

#[test]
fn what_an_installation_has_written_and_runs_is_one_finding() {
    let mut watch = Watch::default();
    start_manager(&mut watch, "/usr/bin/dpkg", 500, Layer::Lower);
    (300..320).for_each(|inode| watch.change(makes(inode, 500)));
    (300..320).for_each(|inode| watch.exec(runs(inode, 500)));
    watch.stop();
    assert_eq!(drifted(&watch), [(20, Severity::High)]);
    watch.expect_message("what was installed was executed 20 times in for apt-get install curl");
    let last = watch.last().into_iter().next_back().expect("there is one");
    let repeated = repeated(last);
    assert_eq!((repeated.names.len(), repeated.names_omitted), (8, 12));
    assert_eq!(repeated.names[7].as_str(), "/var/lib/p/319");
}

#[test]
fn what_an_installation_runs_that_it_has_not_written_is_told() {
    let all = |change: &dyn Fn(&mut Watch, &mut Exec)| {
        let mut watch = Watch::default();
        start_manager(&mut watch, "/usr/bin/dpkg", 500, Layer::Lower);
        start_manager(&mut watch, "/usr/bin/dpkg", 501, Layer::Lower);
        (300..303).for_each(|inode| watch.change(makes(inode, 500)));
        (300..302).for_each(|inode| watch.exec(runs(inode, 500)));
        let mut last = runs(302, 500);
        change(&mut watch, &mut last);
        watch.exec(last);
        watch.stop();
        let of_kind = |kind| watch.last().into_iter().filter(move |finding| finding.finding == kind).map(count);
        of_kind(Kind::DriftedExec).chain(of_kind(Kind::FilelessExec)).collect::<Vec<_>>()
    };
    assert_eq!(all(&|_, _| {}), [3]);
    let changes: [fn(&mut Watch, &mut Exec); 13] = [
        |_, exec| exec.file.inode = 400,
        |_, exec| exec.file.dev = 46,
        |_, exec| exec.file.mode = 0o104_755,
        |_, exec| exec.file.difference = Some(crate::finding::Difference::Privileges),
        |_, exec| exec.process.stdio[1] = crate::event::StdioKind::Socket,
        |_, exec| exec.process.peer = Some("192.0.2.1:4444".parse().expect("it is an address")),
        // In memory, or deleted.
        |_, exec| exec.file.nlink = 0,
        // What controls access or start.
        |_, exec| exec.exe = path("/etc/init.d/x"),
        // Another installation runs it, or nobody's.
        |_, exec| exec.process.ancestors[0].pid = 501,
        |_, exec| exec.process.ancestors[0].pid = 502,
        // It was changed since, by somebody else, by another installation, or by nobody knows whom.
        |watch, _| {
            let mut change = makes(302, 502);
            change.op = ImageOp::OpenWrite;
            watch.change(change);
        },
        |watch, _| {
            let mut change = makes(302, 501);
            change.op = ImageOp::OpenWrite;
            watch.change(change);
        },
        |watch, _| {
            let lost = ImageChange { op: ImageOp::OpenWrite, detail: None, ..makes(302, 501) };
            watch.change(lost);
        },
    ];
    for (nth, change) in changes.iter().enumerate() {
        assert_eq!(all(change), [2, 1], "{nth}");
    }
}

#[test]
fn a_process_that_runs_code_of_nobody_is_in_no_installation_any_more() {
    for (inode, is_left) in [(300, true), (400, false)] {
        let mut watch = Watch::default();
        start_manager(&mut watch, "/usr/bin/dpkg", 500, Layer::Lower);
        watch.change(makes(300, 500));
        let mut exec = runs(inode, 500);
        (exec.process.pid, exec.at.time) = (7777, watch.now);
        watch.event(&Event::Exec(Box::new(exec)));
        (500..502).for_each(|inode| watch.change(makes(inode, 500)));
        watch.stop();
        let writes = watch.last().into_iter().filter(|finding| finding.finding == Kind::ImageWrite).map(count);
        // What is no installation's is told as a session of the application, and so act by act.
        let expected = if is_left { vec![3] } else { vec![1, 1, 1] };
        assert_eq!(writes.collect::<Vec<_>>(), expected, "{inode}");
    }
}

#[test]
fn pip_is_a_package_manager_as_a_module_unless_it_is_somebody_elses() {
    let run = |args: &[&str], module: Option<u64>| {
        let mut watch = Watch::default();
        let mut python = exec(Origin::Application, "/usr/bin/python3.12", args);
        (python.process.pid, python.at.time) = (500, watch.now);
        watch.event(&Event::Exec(Box::new(python)));
        // It is read twice, and told once.
        for nth in module.into_iter().flat_map(|inode| [inode, inode]) {
            let mut read = samples::read("/usr/bin/python3.12", "/srv/pip.py");
            (read.at.time, read.file.inode, read.detail.process.pid) = (watch.now, nth, 500);
            let again = crate::event::Interpret::clone(&read);
            watch.event(&Event::Interpret(Box::new(again)));
        }
        let before = watch.last().len();
        install(&mut watch, 500);
        watch.stop();
        watch.last().len() - before
    };
    assert_eq!(run(&["python3", "-m", "pip", "install", "x"], None), 1);
    assert!(run(&["python3", "-m", "venv", "x"], None) > 5);
    assert!(run(&["python3", "app.py", "-m", "pip"], None) > 5);
    assert!(run(&["python3", "-m", "pip", "install", "x"], Some(400)) > 5);
}

#[test]
fn a_module_of_somebody_else_that_was_told_before_is_no_package_manager_either() {
    let mut watch = Watch::default();
    for (pid, args) in [(499, &["python3", "-c", "import pip"][..]), (500, &["python3", "-m", "pip"])] {
        let mut python = exec(Origin::Application, "/usr/bin/python3.12", args);
        (python.process.pid, python.at.time) = (pid, watch.now);
        watch.event(&Event::Exec(Box::new(python)));
        let mut read = samples::read("/usr/bin/python3.12", "/srv/pip.py");
        (read.at.time, read.detail.process.pid) = (watch.now, pid);
        watch.event(&Event::Interpret(Box::new(read)));
    }
    assert_eq!(drifted(&watch), [(1, Severity::High)]);
    let before = watch.last().len();
    install(&mut watch, 500);
    watch.stop();
    assert!(watch.last().len() > before + 5);
}

/// The first program of a step of a build in the container with this path, and what is done there.
fn build(cgroup: &str, acts: impl FnOnce(&mut Watch, &TrackedContainer)) -> Watch {
    let mut watch = Watch::default();
    let (root_dev, started) = (Some(45), Some(START + SECOND));
    let container = TrackedContainer { root_dev, started, ..TrackedContainer::new(500, cgroup.into()) };
    watch.detector.start_container(&container);
    watch.detector.begin_startup(&container, ServingSign::Accept);
    act(&mut watch, &container, Event::Exec(Box::new(exec(Origin::Entrypoint, "/bin/dash", COMMAND))));
    acts(&mut watch, &container);
    watch.stop();
    watch
}

const STEP: &str = "/docker/buildkit/tasn1qx4q1j7xm70076jwc11g";
const COMMAND: &[&str] = &["/bin/sh", "-c", "make install"];

fn act(watch: &mut Watch, container: &TrackedContainer, mut event: Event) {
    watch.wait(SECOND);
    watch.acts += 1;
    let at = At { time: watch.now, number: watch.acts, cgroup: 500, container: 500 };
    match &mut event {
        Event::Exec(exec) => (exec.at, exec.process.start_time) = (at, watch.now),
        Event::ImageChange(change) => change.at = at,
        Event::ControlOpen(open) => open.at = at,
        other => panic!("no time for {other:?}"),
    }
    let findings = &mut watch.findings;
    watch.detector.detect(&event, container, &CONTEXT, |finding| findings.push(finding));
}

/// What a package manager and a compiler do: they start shells, add programs and run them, and change accounts.
fn make(watch: &mut Watch, container: &TrackedContainer) {
    for nth in 0..70 {
        let line = format!("configure {}", char::from(b'a' + nth));
        act(watch, container, Event::Exec(Box::new(exec(Origin::Application, "/bin/dash", &["sh", "-c", &line]))));
        let manager = exec(Origin::Application, "/usr/bin/apt-get", &["apt-get", "install", &line]);
        act(watch, container, Event::Exec(Box::new(manager)));
        for (op, mode, file) in [
            (ImageOp::Create, 0o100_644, format!("/srv/site/{line}")),
            (ImageOp::Create, 0o104_755, format!("/usr/bin/{line}")),
            (ImageOp::OpenWrite, 0o100_644, "/etc/passwd".to_owned()),
        ] {
            act(watch, container, Event::ImageChange(Box::new(change(op, Layer::New, mode, &file))));
        }
        act(watch, container, Event::Exec(Box::new(samples::drifted("/usr/bin/own", &["own", &line]))));
    }
}

#[test]
fn a_step_of_a_build_is_one_finding_of_each_kind() {
    for cgroup in [STEP, "/buildah-buildah12"] {
        let watch = build(cgroup, make);
        let last = watch.last();
        let told = |kind| {
            let of_kind = last.iter().filter(move |finding| finding.finding == kind);
            of_kind.map(|finding| (count(finding), finding.severity)).collect::<Vec<_>>()
        };
        assert_eq!(told(Kind::ImageWrite), [(210, Severity::High)]);
        assert_eq!(told(Kind::ShellInContainer), [(71, Severity::Medium)]);
        assert_eq!(told(Kind::DriftedExec), [(70, Severity::High)]);
        assert_eq!(last.len(), 3);
        let container = if cgroup == STEP { "tasn1qx4q1j7xm70076jwc11g" } else { "buildah-buildah12" };
        let end = format!("in container {container}, in a step of a build that runs /bin/sh -c make install");
        for (finding, did) in last.iter().zip([
            "71 shells started",
            "140 files created, 70 files opened for writing",
            "what is not as in the image was executed 70 times",
        ]) {
            assert!(finding.message.starts_with(&format!("{did} {end}, first ")), "{}", finding.message);
            assert!(finding.expected.is_none());
            let by: Vec<_> = repeated(finding).by.iter().flatten().map(Text::as_str).collect();
            assert_eq!(by, COMMAND);
            let first = watch.findings.iter().find(|first| first.id == finding.id).expect("it is there");
            let suffix = ", in a step of a build that runs /bin/sh -c make install";
            assert!(first.message.ends_with(suffix), "{}", first.message);
        }
    }
}

#[test]
fn only_what_a_builder_has_started_is_a_step_of_a_build() {
    let id = "3f2a0c6d9e1b4857a6c3d2e1f0b9a8877665544332211000ffeeddccbbaa9988";
    for cgroup in [format!("/docker/{id}"), format!("/docker/buildkit/{id}"), format!("/docker/{id}{STEP}")] {
        let watch = build(&cgroup, make);
        assert!(watch.last().len() > 70, "{cgroup} is {} findings", watch.last().len());
    }
}

#[test]
fn what_is_grave_in_a_step_of_a_build_is_told() {
    let run = |alter: fn(&mut Exec)| {
        let mut exec = samples::drifted("/usr/bin/own", &["own"]);
        alter(&mut exec);
        Event::Exec(Box::new(exec))
    };
    let write = |alter: fn(&mut crate::event::Process)| {
        let mut change = change(ImageOp::OpenWrite, Layer::Lower, 0o100_644, "/srv/app.conf");
        alter(&mut change.detail.as_mut().expect("it has some").process);
        Event::ImageChange(Box::new(change))
    };
    for (event, is_told) in [
        (run(|_| {}), false),
        (write(|_| {}), false),
        (run(|exec| exec.file.nlink = 0), true),
        (run(|exec| exec.process.stdio[1] = crate::event::StdioKind::Socket), true),
        (write(|process| process.origin = Origin::Outside), true),
        (write(|process| (process.origin, process.session) = (Origin::Entered, Some(session()))), true),
        (Event::ControlOpen(Box::new(samples::control_open(crate::event::Control::CorePattern))), true),
    ] {
        let shown = format!("{event:?}");
        let watch = build(STEP, |watch, container| {
            act(watch, container, run(|_| {}));
            act(watch, container, write(|_| {}));
            act(watch, container, event);
        });
        let mut counts = watch.counts();
        counts.retain(|count| *count == 1);
        // The first shell is one, too.
        assert_eq!(counts.len(), if is_told { 4 } else { 2 }, "{shown}");
    }
}

#[test]
fn data_in_a_step_of_a_build_is_expected_until_a_program_is_added() {
    let write = |mode, file: &str| Event::ImageChange(Box::new(change(ImageOp::Create, Layer::New, mode, file)));
    for (mode, file, severity) in [(0o100_644, "/srv/b.txt", Severity::Info), (0o100_755, "/usr/bin/b", Severity::High)]
    {
        let watch = build(STEP, |watch, container| {
            act(watch, container, write(0o100_644, "/srv/a.txt"));
            act(watch, container, write(mode, file));
        });
        let [_, writes] = watch.last()[..] else { panic!("{:?}", watch.counts()) };
        assert_eq!((count(writes), writes.severity), (2, severity));
        assert_eq!(writes.expected.is_some(), severity == Severity::Info);
    }
}

/// Creates a file of an application and lets a tenth of a millisecond pass.
fn flood(watch: &mut Watch, files: std::ops::Range<u32>) {
    for number in files {
        let mut change = created(&format!("/srv/many/{number}.dat"));
        change.file.inode = u64::from(1000 + number);
        watch.change(change);
    }
}

fn wanted(watch: &Watch) -> BTreeSet<CountedKey> {
    watch.detector.wanted_counts(&BTreeSet::new()).unwrap_or_default()
}

/// Takes what the probes have counted.
fn counts(watch: &mut Watch, key: CountedKey, files: u64) -> u64 {
    watch.detector.take_counts(&[(key, Count { files, last: watch.now })], watch.now)
}

#[test]
fn the_probes_count_a_flood_of_plain_files() {
    let mut watch = Watch::default();
    flood(&mut watch, 0..52);
    assert!(wanted(&watch).is_empty(), "so many files can come by chance");
    flood(&mut watch, 52..60);
    let wanted = wanted(&watch);
    let [key] = wanted.iter().copied().collect::<Vec<_>>()[..] else { panic!("not one key: {wanted:?}") };
    let suffix = u64::from_le_bytes(*b"\0\0\0\0\0dat");
    assert_eq!((key.container, key.directory, key.program, key.suffix), (500, 100, 98, suffix));
    assert!(watch.detector.wanted_counts(&wanted).is_none(), "the probes know it");
    assert_eq!(counts(&mut watch, key, 5000), 0);
    watch.wait(20 * SECOND);
    assert_eq!(watch.counts(), [1, 1, 1, 5057]);
    assert_eq!(repeated(watch.last()[3]).counted_in_kernel, 5000);
    let message = &watch.last()[3].message;
    assert!(message.starts_with("5057 files like /srv/many/*.dat created in container "), "{message}");
    assert!(message.ends_with(", 5000 of them only counted by the kernel, by directory and suffix"), "{message}");
}

#[test]
fn the_probes_report_files_again_after_a_while_or_when_more_happens() {
    let watched = || {
        let mut watch = Watch::default();
        flood(&mut watch, 0..110);
        let key = *wanted(&watch).first().expect("it is counted");
        (watch, key)
    };
    let (mut watch, key) = watched();
    watch.wait(9 * SECOND);
    assert_eq!((counts(&mut watch, key, 1), wanted(&watch).len()), (0, 1));
    watch.wait(2 * SECOND);
    assert_eq!((counts(&mut watch, key, 1), wanted(&watch).len()), (0, 0));
    // What they have counted before they knew of it is not lost.
    assert_eq!(counts(&mut watch, key, 1), 0);
    watch.stop();
    assert_eq!(watch.counts(), [1, 1, 1, 110]);

    let ends: [fn(&mut Watch); 3] = [
        |watch| watch.change(in_session(created("/srv/mine"))),
        |watch| watch.change(change(ImageOp::Create, Layer::New, 0o100_755, "/srv/many/x.dat")),
        |watch| watch.detector.set_policy(crate::policy::Policy::default()),
    ];
    for end in ends {
        let (mut watch, _) = watched();
        end(&mut watch);
        assert!(wanted(&watch).is_empty());
    }
}

#[test]
fn files_that_differ_are_not_counted_by_the_probes() {
    let changes: [fn(u32) -> ImageChange; 8] = [
        |number| by(created(&format!("/srv/many/{number}.dat")), "/usr/bin/tar", 0, Origin::Outside),
        |number| created(&format!("/srv/many/{number}.py")),
        |number| created(&format!("/usr/lib/x/{number}.dat")),
        |number| created(&format!("/srv/many/{number}.so.1")),
        |number| change(ImageOp::Create, Layer::New, 0o100_755, &format!("/srv/many/{number}.dat")),
        |number| change(ImageOp::Unlink, Layer::Upper, 0o100_644, &format!("/srv/many/{number}.dat")),
        |number| in_session(created(&format!("/srv/many/{number}.dat"))),
        |number| ImageChange { creation: None, ..created(&format!("/srv/many/{number}.dat")) },
    ];
    for make in changes {
        let mut watch = Watch::default();
        for number in 0..300 {
            watch.change(make(number));
        }
        assert!(wanted(&watch).is_empty(), "{:?}", make(0));
    }
}

#[test]
fn what_the_probes_count_for_nobody_is_said_to_be_lost() {
    let mut watch = Watch::default();
    flood(&mut watch, 0..110);
    let key = *wanted(&watch).first().expect("it is counted");
    assert_eq!(counts(&mut watch, CountedKey { suffix: 1, ..key }, 7), 7);
}
