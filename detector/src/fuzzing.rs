//! The targets of `cargo xtask fuzz`. Each takes any bytes, as an attacker or a broken kernel could send them, and
//! panics if something is not as it must be.

use std::io::{Read, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::LazyLock;

use detector_common::record;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::Semaphore;
use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::chain::Head;
use crate::chain::end::End;
use crate::chain::verify::{Part, Report};
use crate::config;
use crate::container::cgroup;
use crate::container::table::{Table, TrackedContainer};
use crate::daemon::hub::Hub;
use crate::daemon::server;
use crate::detect::content::{Content, LONGEST, Words, searched_parts};
use crate::detect::{self, Context, Detector};
use crate::event::Event;
use crate::explain::{self, Explanation, Known};
use crate::finding::{Container, Finding, Image, Kind, Labels, Line, Notice, NoticeEvent, Pod, Severity, Text, Time};
use crate::forward::grpc::answer::{Message, Status};
use crate::forward::relp::frame::{Answer, Frame, LONGEST_ANSWER};
use crate::forward::requests;
use crate::learn::{self, Seen, Wanted};
use crate::output::escape::is_unsafe;
use crate::output::formats::{Format, Unreadable};
use crate::output::json;
use crate::output::terminal::{self, Look};
use crate::policy::Policy;
use crate::procfs;
use crate::protocol::{Call, Reply, Request, VERSION};
use crate::redact::Redactor;
use crate::replay::replay;
use crate::runtime;
use crate::sensor::btf::Btf;
use crate::sensor::decode::decode;
use crate::sensor::hierarchy::Hierarchy;

/// What is called with any bytes.
pub type Target = fn(&[u8]);

/// The targets by name. The seeds of each are the files in the folder of this name in `fuzz/corpus`. Those of records
/// are made by the fuzzer, so that they follow the layout.
pub const TARGETS: [(&str, Target); 16] = [
    ("answer", answer),
    ("btf", btf),
    ("cgroup", cgroup_path),
    ("config", configuration),
    ("content", content),
    ("findings", findings),
    ("grpc", grpc),
    ("line", line),
    ("log", log),
    ("proc", proc),
    ("record", one_record),
    ("recording", recording),
    ("redact", redact),
    ("relp", relp),
    ("request", request),
    ("text", text),
];

/// What a container runtime answers: it can be shown, and is no longer than a finding can be.
fn answer(data: &[u8]) {
    let Some(container) = runtime::described(data) else { return };
    let pod = container.pod.iter().flat_map(|pod| &pod.labels.values);
    let labels = container.labels.values.iter().chain(pod).flat_map(|(name, value)| [name, value]);
    let image = container.image.iter().flat_map(|image| image.name.iter().chain(&image.entrypoint));
    for text in container.name.iter().chain(image).chain(labels) {
        // Each backslash is doubled, and an ellipsis stands for what is missing.
        assert!(text.as_str().len() <= 2 * 320 + 3, "{text}");
    }
    shown(&container_info(container));
}

/// The types of a kernel: no table of types makes a question panic or take long.
fn btf(data: &[u8]) {
    let Ok(mut kernel) = Btf::parse(data.to_vec()) else { return };
    for round in 0..2 {
        for members in ["d_name.name", "mnt_flags|flags", "none"] {
            for structure in ["path", "dentry", "qstr", "vfsmount"] {
                let _any = kernel.member_offset(structure, members);
            }
        }
        let _any = kernel.function("vfs_open");
        let _any = kernel.enumerator("cgroup_subsys_id", "memory_cgrp_id");
        // The second time, with the same types once more as those of a module.
        if round == 0 {
            kernel = kernel.with_module(data.to_vec()).expect("it was read before");
        }
    }
}

/// The path of a cgroup: the outermost container counts, whatever is below it.
fn cgroup_path(path: &[u8]) {
    // The time that this takes grows with the square of the length.
    let path = &path[..path.len().min(512)];
    let named = cgroup::parse(path);
    if named.is_some() {
        assert_eq!(cgroup::parse_known(path), named);
        assert_eq!(cgroup::parse(&[path, b"/below"].concat()), named);
    }
    let ends = (1..=path.len()).filter(|&end| path.get(end).is_none_or(|&next| next == b'/'));
    let outermost = ends.filter(|&end| cgroup::is_container(&path[..end])).count();
    assert_eq!(outermost, usize::from(named.is_some() && !path.is_empty()));
    let container = detect::container(&TrackedContainer::new(1, path.to_vec()));
    shown(&container_info(container));
}

/// A configuration file: what is wrong has a place and can be shown, and what is right means the same once recorded.
fn configuration(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let (settings, problems) = config::parse(text, Time(jiff::Timestamp::UNIX_EPOCH));
    let (lines, columns) = (text.split('\n').count(), text.chars().count() + 1);
    for problem in problems.iter() {
        let place = problem.place(text);
        assert!((1..=lines).contains(&place.line) && (1..=columns).contains(&place.column), "{problem:?}");
        for line in problem.excerpt("config.toml", text).lines() {
            harmless(format!("{line}\n").as_bytes());
        }
    }
    if problems.has_errors() {
        return;
    }
    let policy = settings.policy();
    let json = serde_json::to_string(&policy).expect("a policy can be written");
    assert_eq!(serde_json::from_str::<Policy>(&json).expect("it can be read back"), policy);
    let of_exceptions = policy.exceptions.iter().map(|exception| &exception.conditions);
    for conditions in of_exceptions.chain(policy.overrides.iter().map(|overriding| &overriding.conditions)) {
        assert!(!conditions.finding.is_empty() && conditions.severity_at_most < Severity::Critical, "{conditions:?}");
        assert!(conditions.cover(conditions), "{conditions:?}");
    }
}

/// The content of a program: only the program is searched, it makes no difference in which pieces, and bytes that
/// follow do not hide a shell.
fn content(data: &[u8]) {
    let program = [b"\x7fELF", data].concat();
    let size = program.len() as u64;
    let parts = searched_parts(&program, size).expect("it begins like a program");
    assert!(!parts.is_empty() && parts.iter().all(|part| part.start < part.end && part.end <= size));
    let found = in_pieces(&program, program.len());
    let most = LONGEST + 1 + data.first().map_or(0, |&byte| usize::from(byte));
    if found != Content::Other {
        assert_ne!(in_pieces(&program, most), Content::Other);
        assert_ne!(in_pieces(&[&program, data].concat(), usize::MAX), Content::Other);
    }
}

/// What a program is that is searched in pieces of at most this length.
fn in_pieces(program: &[u8], most: usize) -> Content {
    let mut words = Words::default();
    let mut rest = program;
    loop {
        let piece = &rest[..rest.len().min(most)];
        words.search(piece);
        if piece.len() == rest.len() {
            return words.content();
        }
        rest = &rest[piece.len() - LONGEST..];
    }
}

/// Records, one after the other: what must be reported is, and all that is reported can be shown.
fn findings(data: &[u8]) {
    let (mut table, mut detector, mut counting) = (Table::default(), Detector::default(), Detector::counting());
    let boot_id = "c1b24ba7-7f4d-4a52-a8b5-6ab5b2bb0c39";
    let context = Context::new("node-1".into(), boot_id, 1_800_000_000_000_000_000, Redactor::clone(&REDACTOR));
    let records = Aligned::new(data);
    let mut rest = records.bytes();
    while !rest.is_empty() {
        let event = decode(rest);
        rest = rest.get(size(rest).max(8).next_multiple_of(8)..).unwrap_or_default();
        let Ok(event) = event else { continue };
        let certain = match &event {
            Event::ImageChange(_) => Some(Kind::ImageWrite),
            Event::MountChange(_) => Some(Kind::ImageShadowed),
            Event::DeviceOpen(_) => Some(Kind::DeviceWrite),
            Event::ControlOpen(open) if open.control.switches_probes() => Some(Kind::SensorTampering),
            Event::ControlOpen(_) => Some(Kind::KernelControlWrite),
            Event::Tampering(_) => Some(Kind::SensorTampering),
            Event::HandleOpen(_) => Some(Kind::HandleOpen),
            Event::HostExec(_) => Some(Kind::HostExec),
            Event::CgroupEscape(_) => Some(Kind::CgroupEscape),
            Event::Exec(_)
            | Event::Script(_)
            | Event::MapExec(_)
            | Event::Interpret(_)
            | Event::Exit(_)
            | Event::Listen(_)
            | Event::Accept(_) => None,
            Event::CgroupCreated(created) => {
                table.add(created.clone());
                None
            }
            Event::CgroupRemoved(removed) => {
                table.remove(removed);
                None
            }
        };
        let Some(at) = event.at() else { continue };
        let container = table.lookup(at.container);
        let mut found = Vec::new();
        detector.detect(&event, container, &context, |finding| found.push(finding));
        let is_reported = certain.is_none_or(|kind| found.iter().any(|finding| finding.finding == kind));
        assert!(is_reported, "{event:?} is not reported");
        found.into_iter().for_each(|finding| shown(&Line::Finding(Box::new(finding))));
        detector.take_time(event.time(), &context, |line| shown(&line));
        counting.detect(&event, container, &context, |finding| shown(&Line::Finding(Box::new(finding))));
        counting.take_time(event.time(), &context, |line| shown(&line));
    }
    detector.stop(u64::MAX, &context, |line| shown(&line));
    counting.stop(u64::MAX, &context, |line| shown(&line));
}

/// A line of the stream, or an answer of the daemon: what can be read can be shown, and what can be converted, too.
fn line(data: &[u8]) {
    for converted in Format::ALL.iter().filter_map(|format| format.convert(data).ok()) {
        harmless(&converted);
    }
    if let Ok(line) = serde_json::from_slice::<Line>(data) {
        shown(&line);
        if let Line::Finding(finding) = &line {
            explained(finding);
            learnt(data);
        }
    }
    if let Ok(reply) = serde_json::from_slice::<Reply>(data) {
        let text = serde_json::to_vec(&reply).expect("an answer can be written");
        assert_eq!(serde_json::from_slice::<Reply>(&text).expect("it can be read back"), reply);
    }
}

/// A log: if it is whole, another run of the daemon goes on from its last line, and it is whole with the next one.
fn log(data: &[u8]) {
    let report = |bytes: &[u8]| {
        let part = Part::read("log".to_owned(), bytes, None).expect("memory can be read");
        Report::of(vec![part], None)
    };
    let found = report(data);
    let end = End::in_bytes(data, true, || Head::START);
    let mut head = end.head;
    let Some((_, last)) = found.ends.filter(|_| found.problems() == 0) else { return };
    assert_eq!(end, End { head: last, is_open: false, notice: None });
    let next = report(&[data, &head.add(b"{\"event\":\"stopped\"}\n")].concat());
    assert!(next.problems() == 0 && next.ends.is_some_and(|(_, last)| last == head), "{next:?}");
}

/// What is learnt from a finding is a configuration file without errors, which a terminal can show.
fn learnt(line: &[u8]) {
    let mut seen = Seen::default();
    seen.take(line).expect("one finding is not too much");
    let wanted = Wanted { without_image: true, shells: true, ..Wanted::default() };
    let text = learn::learn(&seen, &wanted, Time::from_nanoseconds(0));
    let (_, problems) = config::parse(&text, Time::from_nanoseconds(0));
    assert!(!problems.has_errors(), "{text}\n{problems:?}");
    assert!(text.chars().all(|character| character == '\n' || !is_unsafe(character)), "{text:?}");
}

/// Files of /proc: any text can be read, and the names in it are found as they are.
fn proc(data: &[u8]) {
    let (_, hierarchy) = Hierarchy::find(data);
    for hierarchy in hierarchy.iter().chain(HIERARCHIES.iter()) {
        let _any = hierarchy.path_in(data);
    }
    let _any = procfs::Stat::parse(data).map(|stat| stat.start_time());
    let _any = procfs::namespace_number(data);

    let named = |before: &str, name: &[u8], after: &str| [before.as_bytes(), name, after.as_bytes()].concat();
    let stat = named("7 (", data, ") S 1 7 7 0 -1 4194560 15 27 0 0 3 1 0 0 20 0 1 0 8466 2490368 870");
    assert_eq!(procfs::Stat::parse(&stat).map(|stat| (stat.comm, stat.flags)), Some((data, 4_194_560)));
    let mountinfo = named("36 29 259:31 / /media/", &mangled(data), " rw shared:1 - tmpfs none rw");
    let [mount] = &procfs::mounts(&mountinfo).collect::<Vec<_>>()[..] else { panic!("not one mount") };
    assert_eq!((mount.dev, &mount.mount_point), (259 << 20 | 31, &named("/media/", data, "")));
    // The kernel refuses a cgroup whose name has a line feed.
    let name: Vec<u8> = data.iter().copied().filter(|&byte| byte != b'\n').collect();
    let cgroups = named("4:memory:/other\n0::/", &name, "\n");
    let found: Vec<_> = procfs::cgroup_entries(&cgroups).map(|entry| (entry.hierarchy, entry.path)).collect();
    assert_eq!(found, [(4, &b"/other"[..]), (0, &named("/", &name, ""))]);
}

/// A hierarchy of each version.
static HIERARCHIES: LazyLock<[Hierarchy; 2]> =
    LazyLock::new(|| [None, Some("memory")].map(|controller| Hierarchy { mount: "/sys/fs/cgroup".into(), controller }));

/// A name as the kernel writes it to mountinfo (`mangle`, fs/proc_namespace.c).
fn mangled(name: &[u8]) -> Vec<u8> {
    let escaped = |&byte: &u8| match byte {
        b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
        byte => vec![byte],
    };
    name.iter().flat_map(escaped).collect()
}

/// A record: what follows it in memory makes no difference.
fn one_record(data: &[u8]) {
    let record = Aligned::new(data);
    let event = match decode(record.bytes()) {
        Ok(event) => event,
        Err(error) => return drop(error.to_string()),
    };
    let whole = &data[..size(data)];
    for neighbour in [&[][..], &[0; 64], &[b'x'; 8192]] {
        assert_eq!(decode(Aligned::new(&[whole, neighbour].concat()).bytes()).as_ref(), Ok(&event));
    }
}

/// The size that a record has according to its header.
fn size(record: &[u8]) -> usize {
    record::Header::read_from_prefix(record).map_or(0, |(header, _)| header.size as usize)
}

/// Bytes at an address that a record can have.
struct Aligned {
    words: Vec<u64>,
    len: usize,
}

impl Aligned {
    fn new(bytes: &[u8]) -> Self {
        let mut words = vec![0; bytes.len().div_ceil(8)];
        words.as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
        Self { words, len: bytes.len() }
    }

    fn bytes(&self) -> &[u8] {
        &self.words.as_bytes()[..self.len]
    }
}

/// A recording: whatever is in it, every line that it leads to can be shown, and it makes no difference whether it is
/// compressed.
fn recording(data: &[u8]) {
    let lines = |data: &[u8]| {
        let mut lines = Vec::new();
        let result = replay(data, |line| {
            shown(line);
            lines.push(json::line(line));
            Ok(())
        });
        (lines, result.map_err(|error| error.to_string()))
    };
    let plain = lines(data);
    if data.first() != Some(&0x1f) {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::none());
        let written = encoder.write_all(data).and_then(|()| encoder.finish());
        let compressed = lines(&written.expect("writing to memory does not fail"));
        // Nothing is not a recording, and an empty member has no entry.
        assert!(compressed == plain || data.is_empty());
    }
}

static REDACTOR: LazyLock<Redactor> = LazyLock::new(Redactor::default);

/// Arguments: a secret in a usual form is replaced whatever is around it, and nothing is added or changed but that.
fn redact(data: &[u8]) {
    const SECRET: &[u8] = b"Hu9nter2-0123456789";
    let args = |args: &[&[u8]]| -> Vec<Vec<u8>> {
        REDACTOR.args(args.iter().copied()).map(|shown| shown.into_owned()).collect()
    };
    let given: Vec<&[u8]> = data.split(|&byte| byte == 0).collect();
    let shown = args(&given);
    assert_eq!(shown.len(), given.len());
    for (shown, given) in shown.iter().zip(&given) {
        assert!(is_part(shown, given), "{} became {}", given.escape_ascii(), shown.escape_ascii());
    }
    let (before, after) = data.split_at(data.len() / 2);
    let quoted = r#"{\"token\": \"%\"}"#;
    for form in ["--password=%", "password: %", r#"{"token": "%"}"#, quoted, "https://user:%@host", " bearer %"] {
        let (name, end) = form.split_once('%').expect("every form has a secret");
        let arg = [before, name.as_bytes(), SECRET, end.as_bytes(), b" ", after].concat();
        let shown = args(&[&arg]).concat();
        assert!(find(&shown, SECRET).is_none(), "{} became {}", arg.escape_ascii(), shown.escape_ascii());
    }
    let shown = args(&[before, b"--password", SECRET, after]);
    assert_eq!(shown[2], b"[redacted]");
}

/// Whether `shown` is `given` with parts of it replaced.
fn is_part(shown: &[u8], given: &[u8]) -> bool {
    const REDACTED: &[u8] = b"[redacted]";
    let (mut shown, mut given) = (shown, given);
    let mut is_start = true;
    while let Some(at) = find(shown, REDACTED) {
        let Some(found) = find(given, &shown[..at]).filter(|&found| !is_start || found == 0) else { return false };
        given = &given[found + at..];
        shown = &shown[at + REDACTED.len()..];
        is_start = false;
    }
    if is_start { shown == given } else { given.ends_with(shown) }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    if part.is_empty() { Some(0) } else { text.windows(part.len()).position(|window| window == part) }
}

/// What a receiver sends over RELP: frames of a bounded length, which mean the same when they are written again.
fn relp(data: &[u8]) {
    let mut rest = data;
    while let Ok(Some((frame, length))) = Frame::read(rest) {
        assert!(frame.data.len() <= LONGEST_ANSWER, "{frame:?}");
        assert_eq!(Frame::read(&rest[..length - 1]), Ok(None));
        let mut written = Vec::new();
        frame.write(&mut written);
        assert_eq!(Frame::read(&written), Ok(Some((frame, written.len()))));
        if let Some(answer) = Answer::read(frame.data) {
            assert!(!answer.text.contains(&b'\n'), "{answer:?}");
            let _any = answer.offer("commands");
        }
        rest = &rest[length..];
    }
}

/// What a receiver answers over gRPC, as lines with headers, an empty line and the content: a message is of a bounded
/// length and begins with what was not enough for it, and a status can be told.
fn grpc(data: &[u8]) {
    let end = find(data, b"\n\n").unwrap_or(data.len());
    let (headers, content) = (&data[..end], data.get(end + 2..).unwrap_or_default());
    let headers: HeaderMap = headers.split(|&byte| byte == b'\n').filter_map(header).collect();
    if let Ok(Some(status)) = Status::read(&headers) {
        assert!(status.retry.is_none_or(|pause| pause <= requests::LONGEST_PAUSE), "{status:?}");
        assert!(!status.to_string().is_empty() && status.message.len() <= data.len());
    }
    if let Ok(Some(message)) = Message::read(content) {
        assert!((0..content.len()).all(|end| Message::read(&content[..end]) == Ok(None)));
        assert!(Message::read(&[content, b"x"].concat()).is_err());
        let plain = message.plain(&headers);
        assert!(plain.map_or(content[0] == 1, |plain| plain.len() <= requests::LONGEST_ANSWER));
    }
}

/// The header in a line.
fn header(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_at(find(line, b": ")?);
    Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(&value[2..]).ok()?))
}

/// What a client sends to the daemon: every request has one answer, the right one.
fn request(data: &[u8]) {
    static HUB: LazyLock<Hub> = LazyLock::new(|| Hub::new("node-1".into()));
    static EXECUTOR: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
        let executor = tokio::runtime::Builder::new_current_thread().enable_all().build();
        executor.expect("it needs a few descriptors")
    });
    // More is not read by the server, and would fill the socket's buffer.
    let data = &data[..data.len().min(2 * server::MAX_REQUEST)];
    let end = data.iter().position(|&byte| byte == b'\n').map_or(data.len(), |end| end + 1);
    let expected = serde_json::from_slice::<Request>(&data[..end])
        .ok()
        .filter(|request| end <= server::MAX_REQUEST && request.version == VERSION);

    let (mut client, served) = UnixStream::pair().expect("a pair of sockets can be made");
    client.write_all(data).expect("the buffer of a socket is larger");
    client.shutdown(Shutdown::Write).expect("it is connected");
    EXECUTOR.block_on(async {
        served.set_nonblocking(true).expect("it is a socket");
        let served = tokio::net::UnixStream::from_std(served).expect("it is a socket");
        // Errors are those of a client that has gone.
        let _any = server::serve(served, &HUB, &Semaphore::new(1)).await;
    });
    let mut answer = String::new();
    // What the server has not read resets the connection after the answer.
    let _any = client.read_to_string(&mut answer);
    let line = answer.strip_suffix('\n').expect("an answer is a line");
    let reply: Reply = serde_json::from_str(line).expect("an answer is one of the protocol");
    match (expected.map(|request| request.request), reply) {
        (Some(Call::Tail), Reply::Tail) | (Some(Call::Status), Reply::Status(_)) | (None, Reply::Error { .. }) => {}
        (expected, reply) => panic!("{expected:?} was answered with {reply:?}"),
    }
}

/// Bytes that become text: they can be recovered, and the text can be shown wherever it is.
fn text(data: &[u8]) {
    let text = Text::from(data);
    assert_eq!(text.to_bytes().as_deref(), Some(data));
    let labels = Labels { values: [(text.clone(), text.clone())].into(), truncated: false };
    shown(&container_info(Container {
        id: Some(text.clone()),
        name: Some(text.clone()),
        image: Some(Image { name: Some(text.clone()), entrypoint: vec![text.clone()], ..Image::default() }),
        pod: Some(Pod { uid: text.clone(), namespace: Some(text.clone()), name: Some(text), ..Pod::default() }),
        labels,
        ..Container::default()
    }));
}

fn container_info(container: Container) -> Line {
    let event = NoticeEvent::ContainerInfo { container: Box::new(container) };
    Line::Notice(Notice { time: Time(jiff::Timestamp::UNIX_EPOCH), schema: 1, node: "node-1".into(), event })
}

/// Explains a finding: what is said moves nothing on a terminal, and what is proposed is a configuration.
fn explained(finding: &Finding) {
    let now = Time(jiff::Timestamp::UNIX_EPOCH);
    let explanation = Explanation::of(finding, &Known::default(), now);
    harmless(&json::object(&explanation));
    let mut text = Vec::new();
    explain::text::write(&mut text, &explanation).expect("memory takes it");
    text.split_inclusive(|byte| *byte == b'\n').for_each(|line| _ = harmless(line));
    if let Some(proposal) = &explanation.proposal {
        let (_, problems) = config::parse(&proposal.toml, now);
        assert!(!problems.has_errors(), "{problems:?}\n{}", proposal.toml);
    }
}

/// Shows a line to a program and to a person: it can be read back, and moves nothing on a terminal.
fn shown(line: &Line) {
    let json = json::line(line);
    let text = harmless(&json);
    assert_eq!(&serde_json::from_str::<Line>(text).expect("a line can be read back"), line);
    for format in Format::ALL {
        match format.convert(&json) {
            Ok(converted) => _ = harmless(&converted),
            Err(Unreadable::Version(_)) => {}
            Err(error) => panic!("{error}: {text}"),
        }
    }
    let write = |columns, color| {
        let mut out = Vec::new();
        terminal::write_line(&mut out, line, Look { columns, color, ..Look::default() }).expect("memory takes it");
        out
    };
    for columns in [0, 80, 160] {
        write(Some(columns), false).split_inclusive(|byte| *byte == b'\n').for_each(|row| _ = harmless(row));
    }
    let plain = write(None, false);
    let plain = harmless(&plain);
    let colored = String::from_utf8(write(None, true)).expect("a line is text");
    assert_eq!(without_styles(&colored).strip_suffix('\n'), Some(plain));
}

/// The text of a line without its end, which must have nothing that a terminal obeys.
fn harmless(line: &[u8]) -> &str {
    let text = str::from_utf8(line).expect("a line is text").strip_suffix('\n').expect("a line has an end");
    // Stated here once more, so that a gap in `output::escape` is found.
    let obeyed = |character: char| {
        character.is_control()
            || matches!(character, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
    };
    assert!(!text.contains(obeyed), "{text:?}");
    text
}

/// The text without the sequences that set colours.
fn without_styles(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |plain, part| {
        let (numbers, rest) = part.split_once('m').expect("a style ends with `m`");
        assert!(numbers.bytes().all(|byte| byte.is_ascii_digit() || byte == b';'), "{part:?} is no style");
        plain + rest
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_seeds_of_every_target_are_as_they_must_be() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        let mut taken = 0;
        for folder in fs::read_dir(&corpus).expect("the corpus is there") {
            let folder = folder.expect("the corpus can be read");
            let is_of = |(name, _): &&(&str, Target)| folder.file_name() == *name;
            let (_, target) = TARGETS.iter().find(is_of).expect("every folder has a target");
            for seed in fs::read_dir(folder.path()).expect("it is a folder") {
                target(&fs::read(seed.expect("it can be read").path()).expect("it can be read"));
                taken += 1;
            }
        }
        assert!(taken > TARGETS.len(), "{taken} seeds");
    }
}
