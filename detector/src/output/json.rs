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
    use super::super::escape::tests::HOSTILE;
    use super::*;
    use crate::chain::Head;
    use crate::detect::samples;
    use crate::event::{Args, DeviceOpen, Event, ImageChange, ImageOp, Layer, MountChange, MountOp, Origin};
    use crate::finding::{LoggedLine, Loss, Notice, NoticeEvent, RotatedLog, Sha256, Text, schema};

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
            .collect()
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
