//! JSON lines. Beyond what JSON demands, everything that a terminal would obey is written as `\uXXXX`: the same value
//! for a parser, and harmless to whoever looks at the log with `cat`.

use std::io::{self, Write};

use bytes::Bytes;
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

use super::escape;
use crate::finding::Line;

/// How long a line can be at most, in bytes. The longest finding is far shorter, even with every byte escaped.
pub(crate) const LONGEST: u64 = 1 << 20;

/// Room for a usual finding, so that it is written without growing.
const USUAL: usize = 2048;

/// The line, with its end.
pub fn line(line: &Line) -> Bytes {
    object(line)
}

/// Anything with text keys as a line, with its end.
pub(crate) fn object(object: &impl Serialize) -> Bytes {
    let mut text = Vec::with_capacity(USUAL);
    object
        .serialize(&mut Serializer::with_formatter(&mut text, Harmless(CompactFormatter)))
        .expect("a line has only text keys, and writing to memory does not fail");
    text.push(b'\n');
    text.into()
}

/// Compact, and without unsafe characters.
struct Harmless(CompactFormatter);

impl Formatter for Harmless {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        // JSON itself has taken the C0 controls, so that ASCII is left with DEL.
        if fragment.bytes().all(|byte| byte < 0x7f) {
            return self.0.write_string_fragment(writer, fragment);
        }
        for (plain, found) in escape::parts(fragment) {
            self.0.write_string_fragment(writer, plain)?;
            if let Some(character) = found {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use super::super::escape::tests::HOSTILE;
    use super::*;
    use crate::chain::Head;
    use crate::detect::samples;
    use crate::event::{Args, DeviceOpen, Event, ImageChange, ImageOp, Layer, MountChange, MountOp, Origin};
    use crate::finding::{
        Changed, Difference, Expected, Finding, Kind, LoggedLine, Loss, Notice, NoticeEvent, Op, Overridden,
        ProcessField, Reason, RotatedLog, Severity, SeverityRule, Sha256, Text, Unread, schema,
    };

    /// Lines of many kinds, with hostile texts.
    pub(in crate::output) fn samples() -> Vec<Line> {
        let mut shell = samples::exec(Origin::Entered, "/bin/busybox", &["sh"]);
        shell.process.tty = Some(samples::name("pts0"));
        let mut hostile = samples::exec(Origin::Application, "/bin/sh", &[]);
        hostile.args = Args { bytes: HOSTILE.join(&0), truncated: true };
        let create = samples::change(ImageOp::Create, Layer::New, 0o104755, "/usr/bin/su");
        let lost = ImageChange { detail: None, ..samples::change(ImageOp::Write, Layer::Upper, 0, "") };
        let ImageChange { at, file, detail, .. } = samples::change(ImageOp::OpenWrite, Layer::Lower, 0, "/dev/vda");
        let found = [
            Event::Exec(Box::new(shell)),
            Event::Exec(Box::new(hostile)),
            Event::ImageChange(Box::new(create)),
            Event::ImageChange(Box::new(lost)),
            Event::MountChange(Box::new(MountChange {
                at,
                op: MountOp::Bind,
                file,
                is_private: false,
                detail: detail.clone(),
            })),
            Event::DeviceOpen(Box::new(DeviceOpen { at, file, detail })),
        ]
        .map(|event| Line::Finding(Box::new(samples::found(event).expect("it is a finding"))));
        let info = |words: &&[u8]| {
            let container = Box::new(samples::known_container(words));
            Line::Notice(Notice::now("node-1".into(), NoticeEvent::ContainerInfo { container }))
        };
        let notices = [
            NoticeEvent::Started { version: "0.1.0".into(), after_crash: true },
            NoticeEvent::Stopped { reason: "SIGTERM".into() },
            NoticeEvent::loss(Loss::Exec, 3),
            NoticeEvent::Heartbeat { seq: 7, sha256: Sha256([7; 32]) },
            NoticeEvent::TornLine { bytes: 7, sha256: Sha256([7; 32]) },
            NoticeEvent::NewChain,
            NoticeEvent::LogRotated(Box::new(RotatedLog {
                file: Text::from(&b"detector.json\x1b"[..]),
                first: Some(2),
                last: Some(LoggedLine { seq: 7, sha256: Sha256([7; 32]) }),
                removed: vec![Text::from("\u{202e}".as_bytes())],
                removed_to: Some(LoggedLine { seq: 1, sha256: Sha256([7; 32]) }),
            })),
        ]
        .map(|event| Line::Notice(Notice::now("node-1".into(), event)));
        let sessions = HOSTILE.iter().flat_map(|words| samples::session(words));
        let repeated = HOSTILE.iter().map(|words| samples::repeated(words));
        let hashes = HOSTILE.iter().map(|words| samples::hash(words));
        let policies = HOSTILE.iter().flat_map(|words| samples::policy(&String::from_utf8_lossy(words)));
        let policies = policies.map(|event| Line::Notice(Notice::now("node-1".into(), event)));
        found
            .into_iter()
            .chain(notices)
            .chain(HOSTILE.iter().map(info))
            .chain(sessions)
            .chain(repeated)
            .chain(hashes)
            .chain(policies)
            .chain(every_kind())
            .chain(every_notice())
            .collect()
    }

    /// Findings of each kind, with every member, so that all formats have to find a place for each. Each operation,
    /// layer and so on is in one of them.
    fn every_kind() -> impl Iterator<Item = Line> {
        let Some(Line::Finding(session)) =
            samples::session(b"id").into_iter().rfind(|line| matches!(line, Line::Finding(_)))
        else {
            panic!("a session has a finding")
        };
        let Line::Finding(repeated) = samples::repeated(b"x") else { panic!("it is a finding") };
        let changed = Changed {
            time: "2027-01-15T07:59:00Z".parse().expect("it is one"),
            op: ImageOp::OpenWrite,
            pid: 1100,
            exe: Some(b"/usr/bin/curl"[..].into()),
            is_installed: false,
        };
        let of_mounts = MountOp::ALL.iter().map(|op| Op::Mount(*op));
        let operations = ImageOp::ALL.iter().map(|op| Op::Image(*op)).chain(of_mounts);
        let origins = [Origin::Application, Origin::Entered, Origin::Entrypoint, Origin::Outside, Origin::Unknown];
        let acts = operations.zip(Kind::ALL.into_iter().cycle()).zip(origins.into_iter().cycle());
        let severities = Severity::ALL.into_iter().cycle();
        acts.zip(severities).enumerate().map(move |(nth, (((op, kind), origin), severity))| {
            let shell = samples::exec(Origin::Entered, "/bin/dash", &["sh", "-c", "it's"]);
            let found = samples::found(Event::Exec(Box::new(shell))).expect("it is a shell");
            let mut finding = Finding { finding: kind, severity, ..found };
            finding.revision = 1 + nth as u32 % 3;
            finding.node.cluster = Some("production".to_owned());
            finding.node.labels = [("team".to_owned(), "shop".to_owned())].into();
            let mut container = samples::known_container(b"web");
            let image = container.image.as_mut().expect("it is known");
            image.digest = Some(format!("sha256:{}", Sha256([3; 32])).as_bytes().into());
            if nth % 2 == 0 {
                container.pod.as_mut().expect("it is known").uid = b"8f1d3c9e-52a7-4e0b-9d3c-0a1b2c3d4e5f"[..].into();
            }
            finding.container = Some(container);
            let process = finding.process.as_mut().expect("it is known");
            process.origin = origin;
            process.login_uid = Some(1000);
            process.peer = Some(if nth % 2 == 0 { "192.0.2.7:4444" } else { "[2001:db8::7]:4444" }.to_owned());
            process.tty = Some(b"pts0"[..].into());
            process.truncated = vec![ProcessField::Args];
            let file = finding.file.as_mut().expect("it is known");
            file.op = Some(op);
            file.new_path = Some(b"/usr/bin/new"[..].into());
            file.layer = Some(Layer::ALL[nth % Layer::ALL.len()]);
            file.differs = Some(Difference::ALL[nth % Difference::ALL.len()]);
            file.changed = Some(changed.clone());
            file.deleted = true;
            file.truncated = true;
            file.bytes = Some(4096);
            file.declared_volume = Some(true);
            file.unverified = Some(Unread::Remote);
            file.sha256 = Some(Sha256([5; 32]));
            file.unhashed = Some(Unread::TooLarge);
            finding.session = Some(session.id.clone());
            finding.expected = Some(Expected { reason: Reason::Startup, otherwise: Severity::High });
            finding.overridden = Some(Box::new(Overridden { by: "calm".to_owned(), otherwise: Severity::Low }));
            finding.suppressed_by = (nth % 2 == 0).then(|| b"deployments"[..].into());
            finding.severity_rule = Some(SeverityRule::ALL[nth % SeverityRule::ALL.len()]);
            finding.mitre = vec!["T1059.004".into(), "T1611".into()];
            match kind {
                Kind::Session => finding.summary.clone_from(&session.summary),
                _ if nth % 3 == 0 => finding.repeated.clone_from(&repeated.repeated),
                _ => {}
            }
            Line::Finding(Box::new(finding))
        })
    }

    /// The notices that are in no other sample.
    fn every_notice() -> impl Iterator<Item = Line> {
        let time = |text: &str| text.parse().expect("it is one");
        let (from, until) = (time("2027-01-15T08:00:00Z"), time("2027-01-15T08:00:07.5Z"));
        let container = || Box::new(samples::known_container(b"web"));
        let [exception, reason, owner] = ["deployments", "the pipeline does it", "team-shop"].map(str::to_owned);
        let losses = Loss::ALL.iter().map(|kind| NoticeEvent::loss(*kind, 3));
        let hashes = [(Some(Sha256([5; 32])), None), (None, Some(Unread::Gone))].map(|(sha256, unhashed)| {
            let (finding, message) = ("4cd55fcf1b8a-4d-10000-5".to_owned(), "the SHA-256 is known".to_owned());
            NoticeEvent::FileHash { finding, message, container: container(), sha256, unhashed }
        });
        let others = [
            NoticeEvent::Started { version: "0.1.0".into(), after_crash: false },
            NoticeEvent::Degraded { reasons: Vec::new() },
            NoticeEvent::Degraded { reasons: ["one", "two", "three", "four"].map(str::to_owned).to_vec() },
            NoticeEvent::Healed { what: "a hook was attached again".to_owned() },
            NoticeEvent::Paused { from, until },
            NoticeEvent::BlindWindow { from, until, skipped: [("exec".into(), 7)].into() },
            NoticeEvent::ExceptionExpired {
                exception: exception.clone(),
                reason: reason.clone(),
                owner: owner.clone(),
                expired: from,
            },
            NoticeEvent::ExceptionUnused {
                exception: exception.clone(),
                reason: reason.clone(),
                owner: owner.clone(),
                since: from,
            },
            NoticeEvent::Suppressed { exception, reason, owner, count: 3, total: 40 },
            NoticeEvent::Unwatched { rule: "build".to_owned(), reason: "no pets".to_owned(), container: container() },
            NoticeEvent::Watched { container: container() },
        ];
        let events = losses.chain(hashes).chain(others);
        events.map(|event| Line::Notice(Notice::now("node-1".into(), event))).collect::<Vec<_>>().into_iter()
    }

    /// Every kind of finding and of notice that the schema knows has a sample.
    #[test]
    fn nothing_is_without_a_sample() {
        let samples: Vec<_> =
            samples().iter().map(|sample| serde_json::to_value(sample).expect("it is JSON")).collect();
        let names = |key: &str| samples.iter().filter_map(|sample| sample[key].as_str()).collect::<BTreeSet<_>>();
        assert_eq!(names("finding"), Kind::ALL.map(Kind::name).into());
        let schema = schema().to_value();
        let of_notices = schema["$defs"]["Notice"]["oneOf"].as_array().expect("it has all notices");
        let of_notices = of_notices.iter().map(|notice| notice["properties"]["event"]["const"].as_str());
        assert_eq!(names("event").into_iter().map(Some).collect::<BTreeSet<_>>(), of_notices.collect());
    }

    #[test]
    fn lines_are_what_the_schema_says() {
        let validator = jsonschema::validator_for(schema().as_value()).expect("the schema is valid");
        let mut head = Head::START;
        for sample in samples() {
            let line = line(&sample);
            for line in [head.add(&line), line.into()] {
                let value = serde_json::from_slice(&line).expect("it is JSON");
                validator.validate(&value).unwrap_or_else(|error| panic!("{error}: {value}"));
            }
        }
        let unlinked =
            head.add(b"{\"event\":\"new_chain\",\"time\":\"2027-01-15T08:00:00Z\",\"schema\":1,\"node\":\"\"}\n");
        let text = String::from_utf8(unlinked).expect("it is text").replace(",\"seq\":", ",\"seq\":-");
        assert!(!validator.is_valid(&serde_json::from_str(&text).expect("it is JSON")), "{text}");
        for wrong in [r#"{"finding":"shell_in_container"}"#, r#"{"event":"loss"}"#, "[]"] {
            assert!(!validator.is_valid(&serde_json::from_str(wrong).expect("it is JSON")), "{wrong}");
        }
    }

    /// The descriptions are doc comments of the code; what only a reader of the code understands must not be in them.
    #[test]
    fn the_schema_has_no_links_to_code() {
        let schema = schema().to_value().to_string();
        for link in ["[`", "](", "::"] {
            assert!(!schema.contains(link), "{link:?} is in the schema");
        }
    }

    #[test]
    fn lines_are_read_back_as_they_were() {
        for sample in samples() {
            assert_eq!(serde_json::from_slice::<Line>(&line(&sample)).expect("it is a line"), sample);
        }
    }

    #[test]
    fn no_line_does_anything_to_a_terminal() {
        for sample in samples() {
            let bytes = line(&sample);
            let text = std::str::from_utf8(&bytes).expect("it is UTF-8").strip_suffix('\n').expect("it has an end");
            assert!(!text.contains(escape::is_unsafe), "{text:?}");
        }
    }

    #[test]
    fn a_finding_word_for_word() {
        let mut exec = samples::exec(Origin::Entered, "/bin/busybox", &["sh", "\u{9b}", "\u{e0041}"]);
        exec.args.bytes.extend_from_slice(b"\xff\\\0");
        let finding = samples::found(Event::Exec(Box::new(exec))).expect("it is a shell");
        let id = samples::ID;
        let expected = format!(
            concat!(
                r#"{{"time":"2027-01-15T08:00:00.000000077Z","schema":1,"id":"4cd55fcf1b8a-000000000000004d-10000-1","revision":1,"node":"node-1","#,
                r#""finding":"shell_in_container","severity":"medium","severity_rule":"shell","#,
                r#""message":"sh started in container 3f2a0c6d9e1b (entered from outside)","#,
                r#""container":{{"id":"{id}","runtime":"docker","cgroup":"/system.slice/docker-{id}.scope","cgroup_id":500}},"#,
                r#""process":{{"pid":1234,"tid":1234,"ns_pid":7,"ppid":1200,"uid":0,"gid":0,"capabilities":"00000000a80425fb","#,
                r#""start_time":"2027-01-15T08:00:00.000000070Z","comm":"sh","exe":"/bin/busybox","#,
                r#""args":["sh","\u009b","\udb40\udc41","\\xff\\\\"],"cwd":"/srv","origin":"entered","#,
                r#""stdio":["null","pipe","pipe"],"#,
                r#""ancestors":[{{"pid":1200,"comm":"runc","start_time":"2027-01-15T08:00:00.000000060Z","in_container":false}}]}},"#,
                r#""file":{{"path":"/bin/busybox","layer":"lower","dev":"0:45","inode":99,"mode":"0755"}},"#,
                r#""mitre":["T1059.004","T1609"],"evidence":{{}}}}"#,
                "\n"
            ),
            id = id
        );
        assert_eq!(line(&Line::Finding(Box::new(finding))), expected);
    }
}
