//! `detector replay`: publishes again what a daemon has published, from its [recording].
//!
//! The analysis and the enrichment are the daemon's. They are told what the recording has, in the order in which the
//! daemon learnt it. What the daemon says about itself is not in a recording: that it started and stopped, what it does
//! not detect or record, and which lines it could not write.

use std::io::{self, BufRead};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use detector_common::WIRE_VERSION;

use crate::finding::Line;
use crate::pipeline::{self, Message};
use crate::recording::{self, Ending, Entry, Header};
use crate::runtime::{self, Enrichment};

/// An entry, as it is read.
type Read = Entry<pipeline::Input<'static>, runtime::Input>;

/// Why a replay has ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The recording.
    #[error(transparent)]
    Recording(#[from] recording::Error),
    /// The lines cannot be written.
    #[error(transparent)]
    Output(io::Error),
}

/// Passes the lines that a recording leads to on to `publish`. Returns the reasons why they may not be those of the
/// daemon, if there are any.
///
/// # Errors
///
/// See [`Error`].
pub(crate) fn replay(
    input: impl BufRead,
    mut publish: impl FnMut(&Line) -> io::Result<()>,
) -> Result<Vec<String>, Error> {
    let mut replay = Replay::default();
    let mut failure = None;
    let result = recording::read(input, |entry| {
        replay.take(entry)?;
        replay.take_lines().iter().try_for_each(&mut publish).map_err(|error| failure.insert(error).to_string())
    });
    if let Some(failure) = failure {
        return Err(Error::Output(failure));
    }
    if let Ending::Cut(why) = result? {
        let waiting = replay.stop();
        waiting.iter().try_for_each(&mut publish).map_err(Error::Output)?;
        replay.doubts.push(format!("the recording is cut: {why}"));
    }
    Ok(replay.doubts)
}

/// The state of a replay.
#[derive(Default)]
struct Replay {
    is_begun: bool,
    pipeline: Option<pipeline::Replay<Sink>>,
    enrichment: Option<Arc<Enrichment>>,
    lines: Arc<Mutex<Vec<Line>>>,
    /// Why the lines may not be those of the daemon.
    doubts: Vec<String>,
}

/// Takes the messages of the pipeline.
type Sink = Box<dyn FnMut(Message)>;

impl Replay {
    fn take(&mut self, entry: Read) -> Result<(), String> {
        match entry {
            Entry::Recording(header) => return self.begin(&header),
            Entry::Runtimes(runtime::Input::Start(start)) => {
                let lines = Arc::clone(&self.lines);
                self.enrichment =
                    Some(Arc::new(Enrichment::replay(start, move |line| lock(&lines).push(line.clone()))));
            }
            Entry::Runtimes(input) => {
                let enrichment = self.enrichment.as_ref().ok_or("the enrichment has not started")?;
                enrichment.take(input);
            }
            Entry::Pipeline(pipeline::Input::Start(start)) if self.pipeline.is_none() => {
                let enrichment = self.enrichment.clone().ok_or("the enrichment has not started")?;
                self.pipeline = Some(pipeline::Replay::start(start.into_owned(), sink(enrichment)));
            }
            Entry::Pipeline(input) => {
                self.pipeline.as_mut().ok_or("the pipeline has not started")?.take(input)?;
            }
            Entry::Gap(entries) => self
                .doubts
                .push(format!("{entries} entries are missing, because the daemon could not write them fast enough")),
            Entry::End => {}
        }
        Ok(())
    }

    fn begin(&mut self, header: &Header) -> Result<(), String> {
        if mem::replace(&mut self.is_begun, true) {
            return Err("another recording begins".to_owned());
        }
        if header.wire != WIRE_VERSION {
            self.doubts.push(format!(
                "detector {} recorded it with other probes (wire version {}, this detector has {WIRE_VERSION})",
                header.detector, header.wire
            ));
        }
        Ok(())
    }

    /// Stops as a daemon does: findings no longer wait for an answer.
    fn stop(&mut self) -> Vec<Line> {
        if let Some(enrichment) = &self.enrichment {
            enrichment.take(runtime::Input::Stopped);
        }
        self.take_lines()
    }

    fn take_lines(&mut self) -> Vec<Line> {
        mem::take(&mut *lock(&self.lines))
    }
}

fn sink(enrichment: Arc<Enrichment>) -> Sink {
    Box::new(move |message| {
        // Nobody is asked about the container: the answers are in the recording.
        let _answered = match message {
            Message::Line(line) => enrichment.take_line(line),
            Message::ContainerStarted(container) => enrichment.container_started(&container),
            Message::ContainerRuns(container, time) => {
                enrichment.container_runs(&container, time);
                None
            }
            Message::Rules(rules, time) => {
                enrichment.set_rules(rules, time);
                None
            }
            Message::CgroupRemoved(id) => {
                enrichment.cgroup_removed(id);
                None
            }
            // These are about the daemon.
            Message::Tested(_) | Message::InspectionFailure(_) => None,
        };
    })
}

fn lock(lines: &Mutex<Vec<Line>>) -> MutexGuard<'_, Vec<Line>> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::fs;
    use std::io::Write as _;

    use bytes::Bytes;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::detect::content::{Content, Look};
    use crate::detect::{Hashed, samples};
    use crate::event::{Cgroup, Event, Exit, ImageOp, Layer, Origin, Session, Via};
    use crate::finding::{Sha256, Unread};
    use crate::output::json;
    use crate::pipeline::{Input, Start};
    use crate::policy::Policy;
    use crate::recording::{FORMAT, Recorder};
    use crate::redact::Redactor;

    /// The lines that a recording leads to, and what is said about it.
    fn replayed(data: &[u8]) -> (Vec<Bytes>, Result<Vec<String>, String>) {
        let mut lines = Vec::new();
        let result = replay(data, |line| {
            lines.push(json::line(line));
            Ok(())
        });
        (lines, result.map_err(|error| error.to_string()))
    }

    fn entry(value: Value) -> Read {
        serde_json::from_value(value).expect("it is an entry")
    }

    fn node() -> Value {
        json!({"node": "node-1", "cluster": "blue", "labels": {"team": "a=b"}})
    }

    /// The entries with which every recording begins.
    fn beginning() -> Vec<Read> {
        let start = Start {
            node: serde_json::from_value(node()).expect("it is one"),
            boot_id: samples::BOOT_ID.to_owned(),
            ahead: 1_800_000_000_000_000_000,
            redactor: Redactor::new(vec![regex::bytes::Regex::new("pin-([0-9]+)").expect("it is one")], true),
            is_counting: true,
            policy: Policy::default(),
        };
        let socket = json!({"protocol": "docker", "path": "/run/docker.sock", "user": null});
        let engines = json!({"sockets": [socket], "users": true});
        let program = json!({
            "pid": 1234, "start_time": 70, "args": {"bytes": "nginx\0", "truncated": false},
            "cwd": {"bytes": "/", "truncated": false}, "scripts": [],
        });
        let path = format!("/system.slice/docker-{}.scope", samples::ID);
        vec![
            entry(
                json!({"recording": {"format": FORMAT, "wire": WIRE_VERSION, "detector": env!("CARGO_PKG_VERSION")}}),
            ),
            entry(json!({"runtimes": {"start": {"node": node(), "engines": engines, "rules": [
                {"name": "mine", "reason": "It is known.", "is_watched": false, "cgroup": ["/mine/**"]},
                {"name": "job", "reason": "It is known.", "is_watched": false, "container": ["job"]},
            ]}}})),
            Entry::Pipeline(Input::Start(Cow::Owned(start))),
            entry(json!({"pipeline": {"running": {
                "container": 500, "path": path, "root_dev": 45, "processes": [program], "firsts": [], "time": 70,
            }}})),
        ]
    }

    /// What is known of the file of the event at this time.
    fn content(time: u64, look: Option<Look>, result: Option<Result<Sha256, Unread>>) -> Read {
        let sha256 = result.map(|result| Hashed { time: time + 1, result });
        Entry::Pipeline(Input::Content { time, number: 1, look, sha256 })
    }

    /// What can follow, with an event at this time.
    fn anything(time: u64) -> impl Strategy<Value = Vec<Read>> {
        let key = json!({"id": samples::ID, "user": null});
        let settled = |name: &str| {
            let metadata = json!({"runtime": "docker", "name": name, "image": null, "labels": {}, "pod": null});
            entry(json!({"runtimes": {"settled": {
                "key": key, "metadata": metadata, "time": "2027-01-15T08:00:00.000000001Z",
            }}}))
        };
        let event =
            |event| Entry::Pipeline(Input::Event { event: Cow::Owned(event), root_dev: Some(45), serving: None });
        let exec = move |path: &str, args: &[&str]| {
            let mut exec = samples::exec(Origin::Entered, path, args);
            (exec.at.time, exec.head) = (time, Some([0xe2; 256]));
            event(Event::Exec(Box::new(exec)))
        };
        let look = |time| {
            let looks = [Ok(Content::Shell("zsh")), Ok(Content::Box), Err(Unread::Gone)];
            prop::sample::select(looks.to_vec()).prop_map(move |look| vec![content(time, Some(look), None)])
        };
        let hash = |time| {
            let results = [Ok(Sha256([7; 32])), Err(Unread::QueueFull)];
            prop::sample::select(results.to_vec()).prop_map(move |result| vec![content(time, None, Some(result))])
        };
        let mut program = samples::drifted("/srv/program", &[""]);
        (program.at.time, program.process.start_time) = (time, time);
        let mut change = samples::change(ImageOp::Create, Layer::New, 0o100_755, "/srv/\u{202e}a\\b\n");
        change.at.time = time;
        if let Some(detail) = &mut change.detail {
            detail.path.bytes.extend(*b"\xff\xfe");
        }
        let cgroup = Cgroup { time, id: 600 + time, path: b"/mine/web".to_vec() };
        let loss = json!({"time": "2027-01-15T08:00:00.000000001Z", "schema": 1, "node": "node-1",
            "event": "loss", "detail": {"kind": "exec", "count": 7}});
        prop_oneof![
            Just(vec![exec("/bin/sh", &["sh", "-c", "login --password=hunter2 pin-1234"])]),
            Just(vec![exec("/srv/of-unknown-content", &["sh", ""])]),
            (0..=time).prop_flat_map(look),
            Just(vec![event(Event::Exec(Box::new(program)))]),
            (0..=time).prop_flat_map(hash),
            Just(vec![event(Event::ImageChange(Box::new(change)))]),
            Just(vec![event(Event::MapExec(Box::new(samples::mapped("/lib/ld.so", "/bin/sh"))))]),
            Just(vec![event(Event::CgroupCreated(cgroup.clone())), event(Event::CgroupRemoved(cgroup))]),
            Just(vec![Entry::Pipeline(Input::Clock(time.cast_signed()))]),
            Just(vec![Entry::Pipeline(Input::Gone { time, cgroups: vec![500] })]),
            Just(vec![Entry::Pipeline(Input::Time(time * 1_000_000_000))]),
            Just(vec![Entry::Pipeline(Input::Swept { time, living: Vec::new() })]),
            Just(vec![entry(json!({"pipeline": {"notice": loss}}))]),
            Just(vec![entry(json!({"runtimes": {"released": key}}))]),
            Just(vec![entry(json!({"runtimes": {"forgotten": {
                "key": key, "time": "2027-01-15T08:00:00.000000001Z",
            }}}))]),
            Just(vec![settled("web")]),
            Just(vec![settled("job")]),
            Just(vec![entry(json!({"runtimes": {"settled": {
                "key": key, "metadata": null, "time": "2027-01-15T08:00:00.000000001Z",
            }}}))]),
            Just(vec![entry(json!({"runtimes": "aged"}))]),
        ]
    }

    fn story() -> impl Strategy<Value = Vec<Read>> {
        (0..20_u64).map(anything).collect::<Vec<_>>().prop_map(|parts| {
            let middle = parts.into_iter().flatten();
            let end = [Entry::Pipeline(Input::Stop(1 << 40)), entry(json!({"runtimes": "stopped"}))];
            beginning().into_iter().chain(middle).chain(end).collect()
        })
    }

    /// A recording whose members have two entries each.
    fn in_members(entries: &[Read]) -> Vec<u8> {
        let mut file = Vec::new();
        for some in entries.chunks(2) {
            let mut encoder = GzEncoder::new(file, Compression::fast());
            for entry in some {
                serde_json::to_writer(&mut encoder, entry).expect("it can be written");
                encoder.write_all(b"\n").expect("it can be written");
            }
            file = encoder.finish().expect("it can be written");
        }
        file
    }

    /// What was found in all of a recording, and in a part of it. Of the part, all lines are the first ones of the
    /// whole, but for those that still waited for an answer. The answer can be that their container is not watched.
    fn assert_is_beginning(part: &[Bytes], whole: &[Bytes]) {
        let same = part.iter().zip(whole).take_while(|(part, whole)| part == whole).count();
        let parsed = |line: &Bytes| serde_json::from_slice::<Value>(line).expect("it is a line");
        let rest: Vec<_> = whole.iter().map(parsed).collect();
        let is_unwatched = |line: &Value| {
            let mut told = rest.iter().filter(|later| later["event"] == "unwatched").map(|later| &later["detail"]);
            told.any(|told| told["container"]["cgroup_id"] == line["container"]["cgroup_id"])
        };
        let waited: Vec<_> = part[same..].iter().map(parsed).filter(|line| !is_unwatched(line)).collect();
        for line in &waited {
            assert!(rest.iter().any(|later| later["id"] == line["id"]), "{line} is not in the whole");
        }
        assert!(same + waited.len() <= whole.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// The one side is told what happens, the other one has it from a file.
        #[test]
        fn a_replay_publishes_what_was_published(story in story()) {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("recording");
            let recorder = Recorder::start(path.clone(), |failure| assert_eq!(failure, None)).expect("a thread");
            let journal = recorder.journal();
            let (mut live, mut published) = (Replay::default(), Vec::new());
            for (nth, entry) in story.into_iter().enumerate() {
                if nth > 0 {
                    journal.turn().record(entry.clone());
                }
                live.take(entry).expect("it can come here");
                published.extend(live.take_lines().iter().map(json::line));
            }
            drop(recorder);
            let file = fs::read(&path).expect("it is there");
            prop_assert_eq!(replayed(&file), (published.clone(), Ok(Vec::new())));
            prop_assert_eq!(replayed(&file), (published, Ok(Vec::new())));
        }

        #[test]
        fn a_part_is_replayed_up_to_its_end(story in story(), at in any::<prop::sample::Index>()) {
            let file = in_members(&story);
            let (whole, result) = replayed(&file);
            prop_assert_eq!(result, Ok(vec!["the recording is cut: it has no last entry".to_owned()]));

            let cut = at.index(file.len());
            let (part, result) = replayed(&file[..cut]);
            assert_is_beginning(&part, &whole);
            match result {
                Ok(doubts) => prop_assert!(doubts.len() == 1 && doubts[0].starts_with("the recording is cut: it ")),
                Err(error) => {
                    prop_assert!(part.is_empty() && error.starts_with("this is not a recording"), "{}", error);
                }
            }

            // The checksums show that it is damaged.
            let mut damaged = file.clone();
            damaged[cut] ^= 0x55;
            assert_is_beginning(&replayed(&damaged).0, &whole);
        }
    }

    /// The answer of the runtime decides, and is in the recording.
    #[test]
    fn health_checks_are_expected_as_they_were() {
        let id = "b".repeat(64);
        let event =
            |event, root_dev| Entry::Pipeline(Input::Event { event: Cow::Owned(event), root_dev, serving: None });
        let path = format!("/system.slice/docker-{id}.scope").into_bytes();
        let mut first = samples::exec(Origin::Entrypoint, "/usr/sbin/nginx", &["nginx"]);
        (first.at.container, first.process.pid) = (700, 1);
        let mut check = samples::exec(Origin::Entered, "/bin/dash", &["/bin/sh", "-c", "check"]);
        let session = Session { start_time: 70, pid: 1234, via: Via::Exec };
        (check.at.container, check.process.session) = (700, Some(session));
        let exit = Exit { at: check.at, session, start_time: 70, pid: 1234, status: 0, is_last: true };
        let answer = |command: Value| {
            json!({"runtimes": {"settled": {
                "key": {"id": id, "user": null}, "time": "2027-01-15T08:00:00.000000001Z", "metadata": {
                    "runtime": "docker", "name": "web", "image": null, "labels": {}, "pod": null,
                    "health_check": command,
                },
            }}})
        };
        for (command, is_expected) in [
            (json!(["/bin/sh", "-c", "check"]), true),
            (json!(["/bin/sh", "-c", "other"]), false),
            (json!(null), false),
        ] {
            let told = vec![
                event(Event::CgroupCreated(Cgroup { time: 60, id: 700, path: path.clone() }), None),
                event(Event::Exec(Box::new(first.clone())), Some(45)),
                event(Event::Exec(Box::new(check.clone())), None),
                entry(answer(command)),
                event(Event::Exit(exit), None),
                Entry::Pipeline(Input::Time(10_000_000_000)),
            ];
            let (lines, _) = replayed(&in_members(&[beginning(), told].concat()));
            let lines: Vec<Value> =
                lines.iter().map(|line| serde_json::from_slice(line).expect("it is a line")).collect();
            let kinds: Vec<_> = lines.iter().map(|line| line["finding"].as_str().or(line["event"].as_str())).collect();
            assert_eq!(kinds, ["shell_in_container", "session", "session", "session_ended"].map(Some));
            let (severity, expected) = match is_expected {
                true => ("info", json!({"reason": "health_check", "otherwise": "medium"})),
                false => ("medium", Value::Null),
            };
            for line in &lines {
                let told = if line["event"].is_null() { line } else { &line["detail"] };
                assert_eq!((&told["severity"], &told["expected"]), (&json!(severity), &expected), "{line}");
            }
        }
    }

    /// What the lines of a recording are about that goes on with the execution of a drifted program and this content.
    fn replayed_hash(exe: &str, waits: bool, content: Read) -> Vec<Value> {
        let event = Event::Exec(Box::new(samples::drifted(exe, &["x"])));
        let told = Entry::Pipeline(Input::Event { event: Cow::Owned(event), root_dev: None, serving: None });
        let released = entry(json!({"runtimes": {"released": {"id": samples::ID, "user": null}}}));
        let later = if waits { vec![content, released] } else { vec![released, content] };
        let (lines, _) = replayed(&in_members(&[beginning(), vec![told], later].concat()));
        lines.iter().map(|line| serde_json::from_slice(line).expect("it is a line")).collect()
    }

    fn kind(line: &Value) -> Option<&str> {
        line["finding"].as_str().or(line["event"].as_str())
    }

    #[test]
    fn a_shell_is_told_once_although_its_hash_comes_later() {
        for look in [None, Some(Ok(Content::Shell("dash")))] {
            let lines = replayed_hash("/bin/dash", false, content(77, look, Some(Ok(Sha256([7; 32])))));
            let kinds: Vec<_> = lines.iter().map(kind).collect();
            assert_eq!(kinds, ["shell_in_container", "drifted_exec", "file_hash"].map(Some));
            assert_eq!(lines[2]["detail"]["finding"], lines[1]["id"]);
            assert_eq!(lines[2]["detail"]["sha256"], "07".repeat(32));
            assert_eq!(lines[2]["time"], "2027-01-15T08:00:00.000000078Z");
        }
        // What is unknown by its name is found by its content, in the same turn.
        let both = content(77, Some(Ok(Content::Shell("dash"))), Some(Err(Unread::QueueFull)));
        let lines = replayed_hash("/tmp/x", false, both);
        let kinds: Vec<_> = lines.iter().map(kind).collect();
        assert_eq!(kinds, ["drifted_exec", "shell_in_container", "file_hash"].map(Some));
        assert_eq!(lines[2]["detail"]["unhashed"], "queue_full");
    }

    #[test]
    fn a_finding_that_waits_for_its_container_gets_the_hash() {
        let lines = replayed_hash("/bin/dash", true, content(77, None, Some(Ok(Sha256([7; 32])))));
        let hashes: Vec<_> = lines.iter().map(|line| (kind(line), line["file"]["sha256"].as_str())).collect();
        let hash = "07".repeat(32);
        assert_eq!(hashes, [(Some("shell_in_container"), None), (Some("drifted_exec"), Some(&*hash))]);
    }

    /// Older recordings have no hashes, and tell the content of all files that they have read.
    #[test]
    fn an_older_recording_has_no_hashes() {
        let content = json!({"pipeline": {"content": {"time": 77, "number": 1, "look": {"Ok": {"shell": "dash"}}}}});
        for (exe, expected) in [
            ("/tmp/x", &["drifted_exec", "shell_in_container"]),
            ("/bin/dash", &["shell_in_container", "drifted_exec"]),
        ] {
            let lines = replayed_hash(exe, false, entry(content.clone()));
            assert_eq!(lines.iter().filter_map(kind).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn secrets_are_redacted_as_they_were() {
        let mut exec = samples::exec(Origin::Entered, "/bin/sh", &["sh", "-c", "login --password=hunter2 pin-1234"]);
        exec.process.pid = 99;
        let event = Event::Exec(Box::new(exec));
        let told = Entry::Pipeline(Input::Event { event: Cow::Owned(event), root_dev: None, serving: None });
        let (lines, _) = replayed(&in_members(&[beginning(), vec![told]].concat()));
        let line: Value = serde_json::from_slice(&lines[0]).expect("it is a line");
        let script = &line["process"]["args"][2];
        assert_eq!(script, "login --password=[redacted] pin-[redacted]");
    }

    #[test]
    fn what_cannot_be_replayed_says_why() {
        let said = |text: &str| replayed(text.as_bytes()).1.expect_err("it cannot be replayed");
        let header = |format: u32, wire: u32| {
            json!({"recording": {"format": format, "wire": wire, "detector": "9.8"}}).to_string() + "\n"
        };
        let foreign = "this is not a recording; give a file that `detector run --record` has written";
        for text in ["", "\n", "{}", "hello\n", "{\"finding\": 1}\n", "\u{1f}", &header(FORMAT, 1).trim_end()[1..]] {
            assert_eq!(said(text), foreign, "{text:?}");
        }
        let newer = format!(
            "its format is {}, and this detector reads {FORMAT}; use detector 9.8, which recorded it",
            FORMAT + 1
        );
        assert_eq!(said(&(header(FORMAT + 1, 1) + "{\"of another\": \"kind\"}\n")), newer);
        let own = header(FORMAT, WIRE_VERSION);
        let error = said(&(own.clone() + "{\"unknown\": 1}\n"));
        assert!(error.starts_with("entry 2 cannot be understood: unknown variant `unknown`"), "{error}");
        let error = said(&(own.clone() + "{\"pipeline\": {\"clock\": 1}}\n"));
        assert!(error.starts_with("entry 2 cannot be understood: the pipeline has not started"), "{error}");
        let error = said(&(own.clone() + &own));
        assert!(error.starts_with("entry 2 cannot be understood: another recording begins"), "{error}");

        let doubts = |text: String| replayed(text.as_bytes()).1.expect("it is replayed");
        assert_eq!(doubts(own.clone() + "\"end\"\n"), [""; 0]);
        let gap = doubts(own.clone() + "{\"gap\": 3}\n\"end\"\n");
        assert!(gap.len() == 1 && gap[0].starts_with("3 entries are missing"), "{gap:?}");
        let probes = doubts(header(FORMAT, WIRE_VERSION + 1) + "\"end\"\n");
        assert!(probes.len() == 1 && probes[0].contains("with other probes"), "{probes:?}");
        assert_eq!(doubts(own), ["the recording is cut: it has no last entry"]);
    }
}
