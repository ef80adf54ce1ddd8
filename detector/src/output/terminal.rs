//! A line for people.
//!
//! The columns are time (UTC), severity, pod or container, finding and message; then follows what the message does not
//! say: image, command line, process. `columns.rs` lays them out. A line of a session has the session's mark before the
//! message: `#` and the id of the session's first process. All text is escaped, so that nothing but this program
//! changes a colour or moves the cursor.

use std::fmt;
use std::io::{self, Write};

use clap::builder::styling::{AnsiColor, Style};

use super::columns::{self, Detail, Entry};
use super::escape;
use super::fit::Run;
use super::times::Times;
use crate::finding::{
    Container, Finding, ImageOp, Kind, Layer, Line, LoadedPolicy, Node, Notice, NoticeEvent, Op, Overridden, Process,
    Severity, Summary, Text, Time, loss_message,
};

/// Digits of a container's id, as container runtimes show it.
pub(super) const SHORT_ID: usize = 12;
/// How many reasons for a degradation are shown in the live view.
const MAX_REASONS: usize = 3;

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// How wide a line can be. `None` if each is whole, however long.
    pub columns: Option<usize>,
    /// Whether there are colours, as on a terminal that knows those of ANSI.
    pub color: bool,
    /// How times are shown.
    pub times: Times,
}

/// What the line directly above says, so that this one need not.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Above {
    /// That line is of the same session: its container, and where its processes come from.
    pub(super) session: bool,
    /// It also has the same command line.
    pub(super) command: bool,
}

/// Writes a finding or a notice.
///
/// # Errors
///
/// Those of `out`.
pub fn write_line(out: &mut impl Write, line: &Line, look: Look) -> io::Result<()> {
    let text = match line {
        Line::Finding(found) => finding(found, Above::default(), look),
        Line::Notice(told) => notice(told, look),
    };
    // In one piece.
    out.write_all((text.to_string() + "\n").as_bytes())
}

/// A finding, without the end of its line.
pub(super) fn finding(finding: &Finding, above: Above, look: Look) -> Drawn {
    let message = vec![Run::new(PLAIN, &*finding.message)];
    drawn(look, &Entry { details: details(finding, above), ..entry(finding, message) })
}

/// A notice, without the end of its line.
pub(super) fn notice(notice: &Notice, look: Look) -> Drawn {
    drawn(look, &told(notice, look.times))
}

/// What a notice says, in a sentence, without escaping.
pub(crate) fn sentence(notice: &Notice) -> String {
    match &notice.event {
        NoticeEvent::SessionEnded { message, .. } => message.clone(),
        _ => told(notice, Times::Utc).message.into_iter().map(|run| run.text).collect(),
    }
}

/// An update of a finding whose first line has this time: what is said now, and what it updates.
pub(super) fn update(finding: &Finding, first: Time, look: Look) -> Drawn {
    let first = look.times.time_of_day(first);
    let message = vec![Run::new(DIM, format!("update of {first}:")), Run::new(PLAIN, &*finding.message)];
    drawn(look, &entry(finding, message))
}

/// A remark about the view itself.
pub(super) fn remark(text: &str, look: Look) -> Drawn {
    let mut pen = Pen::new(look.color);
    columns::draw_text(&Run::new(DIM, text), look.columns, &mut pen);
    pen.drawn
}

fn drawn(look: Look, entry: &Entry) -> Drawn {
    let mut pen = Pen::new(look.color);
    columns::draw(entry, look, &mut pen);
    pen.drawn
}

/// A finding with this message, without details. Before the message is the mark of its session.
fn entry(finding: &Finding, message: Vec<Run>) -> Entry {
    let branch = if finding.session.is_some() && finding.finding != Kind::Session { "├ " } else { "" };
    let paths = finding.file.iter().flat_map(|file| [&file.path, &file.new_path]).flatten();
    Entry {
        time: finding.time,
        severity: Run::new(style(finding.severity), finding.severity.name()),
        of: Run::new(CYAN, finding.container.as_ref().map_or_else(|| "host".to_owned(), pod_or_name)),
        kind: Run::new(BOLD, format!("{branch}{}", finding.finding)),
        message: finding.session.as_deref().and_then(mark).into_iter().chain(message).collect(),
        is_foreign: true,
        paths: paths.map(ToString::to_string).collect(),
        said: finding.container.as_ref().and_then(said),
        details: Vec::new(),
    }
}

/// `#` and the id of a session's first process.
fn mark(session: &str) -> Option<Run> {
    first_process(session).map(|pid| Run::new(CYAN, format!("#{pid}")))
}

/// The id of a session's first process, which is part of the session's id.
pub(crate) fn first_process(session: &str) -> Option<u32> {
    u32::from_str_radix(session.split('-').nth(2)?, 16).ok()
}

/// What a message says about the container.
fn said(container: &Container) -> Option<String> {
    container.id.as_ref().map(|id| format!(" in container {}", short(id.as_str())))
}

/// A notice, by column.
fn told(notice: &Notice, times: Times) -> Entry {
    let (style, text) = match &notice.event {
        NoticeEvent::Started { version, after_crash: false } => {
            (DIM, format!("detector {version} watches {}", notice.node))
        }
        NoticeEvent::Started { version, after_crash: true } => {
            (RED, format!("detector {version} watches {}; the one before did not end by itself", notice.node))
        }
        NoticeEvent::Stopped { reason } => (YELLOW, format!("detector stopped watching {}: {reason}", notice.node)),
        NoticeEvent::Degraded { reasons } if reasons.is_empty() => {
            (DIM, format!("nothing is missing any more on {}", notice.node))
        }
        NoticeEvent::Degraded { reasons } => {
            let (shown, others) = reasons.split_at(reasons.len().min(MAX_REASONS));
            let more = match others.len() {
                0 => String::new(),
                count => format!("; and {count} more"),
            };
            (RED, format!("on {}: {}{more}", notice.node, shown.join("; ")))
        }
        NoticeEvent::Healed { what } => (YELLOW, format!("on {}: {what}", notice.node)),
        NoticeEvent::Paused { from, until } => {
            let [from, until] = [*from, *until].map(|time| times.time_of_day(time));
            (RED, format!("the detector did not run on {} from {from} until {until}", notice.node))
        }
        NoticeEvent::Loss { kind, count, .. } => {
            let times = if *count == 1 { "once".to_owned() } else { format!("{count} times") };
            (RED, format!("on {}, {times}: {}", notice.node, loss_message(*kind)))
        }
        NoticeEvent::Heartbeat { seq, .. } => (DIM, format!("on {}: line {seq} of the log is written", notice.node)),
        NoticeEvent::TornLine { bytes, .. } => (
            YELLOW,
            format!(
                "on {}: the last line of the log was torn after {bytes} bytes; the log goes on after it",
                notice.node
            ),
        ),
        NoticeEvent::NewChain => (
            YELLOW,
            format!(
                "on {}: the log ended with a line that has no `seq` and `prev`, so a new chain begins",
                notice.node
            ),
        ),
        NoticeEvent::LogRotated(rotated) => {
            let removed = match rotated.removed.len() {
                0 => String::new(),
                1 => ", and one older file removed".to_owned(),
                count => format!(", and {count} older files removed"),
            };
            (DIM, format!("on {}: the log was rotated to {}{removed}", notice.node, rotated.file))
        }
        NoticeEvent::BlindWindow { skipped, .. } => {
            let programs: Vec<_> = skipped.iter().map(|(program, count)| format!("{count} × {program}")).collect();
            (RED, format!("the kernel skipped probes on {}: {}", notice.node, programs.join(", ")))
        }
        NoticeEvent::PolicyLoaded(policy) => loaded(policy, &notice.node),
        NoticeEvent::PolicyRefused { reason, .. } => {
            (RED, format!("on {}: what was loaded before still holds: {reason}", notice.node))
        }
        NoticeEvent::ExceptionExpired { exception, reason, owner, .. } => (
            YELLOW,
            format!(
                "on {}: exception {exception:?} of {owner} has expired ({reason}); renew or remove it",
                notice.node
            ),
        ),
        NoticeEvent::ExceptionUnused { exception, reason, owner, .. } => (
            YELLOW,
            format!(
                "on {}: exception {exception:?} of {owner} has suppressed nothing for seven days ({reason}); is it \
                still needed?",
                notice.node
            ),
        ),
        NoticeEvent::Suppressed { exception, reason, count, .. } => {
            let acts = if *count == 1 { "one act".to_owned() } else { format!("{count} acts") };
            (DIM, format!("on {}: exception {exception:?} has suppressed {acts} ({reason})", notice.node))
        }
        NoticeEvent::Watched { container: of } => {
            return info(notice, of, "watched again: other rules were loaded");
        }
        NoticeEvent::Unwatched { rule, reason, container: of } => {
            let why = format!("not watched: rule {rule:?} says so ({reason})");
            let text = [why].into_iter().chain(whose(of)).collect::<Vec<_>>().join(" · ");
            return info(notice, of, &text);
        }
        NoticeEvent::SessionEnded {
            session,
            severity,
            overridden: of_override,
            message,
            container: of,
            summary,
            ..
        } => {
            let details = exit(session, summary).into_iter().chain(of_override.as_deref().map(overridden));
            return Entry {
                severity: Run::new(style(*severity), severity.name()),
                of: Run::new(CYAN, pod_or_name(of)),
                kind: Run::new(BOLD, format!("└ {}", notice.event.name())),
                message: mark(session).into_iter().chain([Run::new(PLAIN, &**message)]).collect(),
                is_foreign: true,
                said: said(of),
                details: details.map(Detail::Note).collect(),
                ..sensor(notice, PLAIN, "")
            };
        }
        NoticeEvent::FileHash { message, container: of, .. } => return info(notice, of, message),
        NoticeEvent::ContainerInfo { container: known } => {
            let id = known.id.as_ref().map_or("", Text::as_str);
            let pod = pod(known).map(|pod| format!("pod {pod}"));
            let parts: Vec<_> = image(known).into_iter().chain(pod).collect();
            return info(notice, known, &format!("container {}: {}", short(id), parts.join(" · ")));
        }
    };
    sensor(notice, style, text)
}

/// What the sensor says about itself.
fn sensor(notice: &Notice, style: Style, text: impl Into<String>) -> Entry {
    Entry {
        time: notice.time,
        severity: Run::new(style, "sensor"),
        of: Run::new(style, "-"),
        kind: Run::new(style, notice.event.name()),
        message: vec![Run::new(style, text)],
        is_foreign: false,
        paths: Vec::new(),
        said: None,
        details: Vec::new(),
    }
}

/// What is said about a container besides what was done in it.
fn info(notice: &Notice, about: &Container, text: &str) -> Entry {
    Entry { of: Run::new(DIM, pod_or_name(about)), is_foreign: true, ..sensor(notice, DIM, text) }
}

/// What is said about a configuration file that was loaded.
fn loaded(policy: &LoadedPolicy, node: &Node) -> (Style, String) {
    let LoadedPolicy { file, exceptions, added, removed, changed, reordered, rules, other_rules, warnings, .. } =
        policy;
    let LoadedPolicy { overrides, other_overrides, more, needs_restart, .. } = policy;
    let of_them = [("added", added), ("removed", removed), ("changed", changed)];
    let of_them = of_them.into_iter().filter(|(_, names)| !names.is_empty());
    let mut parts: Vec<_> = of_them.map(|(what, names)| format!("{what} {}", names.join(", "))).collect();
    parts.extend(reordered.then(|| "the order is different".to_owned()));
    parts.extend(other_overrides.then(|| format!("other overrides of severities ({overrides})")));
    parts.extend(other_rules.then(|| format!("other rules about what is watched ({rules})")));
    parts.extend(warnings.iter().cloned());
    parts.extend((*more > 0).then(|| format!("and {more} more")));
    if !needs_restart.is_empty() {
        parts.push(format!("restart the daemon for {}", needs_restart.join(", ")));
    }
    let style = if warnings.is_empty() && needs_restart.is_empty() { DIM } else { YELLOW };
    let count = if *exceptions == 1 { "one exception".to_owned() } else { format!("{exceptions} exceptions") };
    let parts: String = parts.into_iter().map(|part| format!("; {part}")).collect();
    (style, format!("on {node}: {file} was loaded with {count}{parts}"))
}

/// The pod, or the container's name or short id; of one that is unknown, its cgroup.
pub(crate) fn pod_or_name(container: &Container) -> String {
    match (pod(container), &container.name, &container.id) {
        (Some(pod), ..) => pod,
        (None, Some(name), _) => name.to_string(),
        (None, None, Some(id)) => short(id.as_str()),
        (None, None, None) => format!("cgroup {}", container.cgroup_id),
    }
}

/// The beginning of an id, as container runtimes show it.
pub(crate) fn short(id: &str) -> String {
    id.chars().take(SHORT_ID).collect()
}

/// The namespace and name of a container's pod.
fn pod(container: &Container) -> Option<String> {
    let pod = container.pod.as_ref()?;
    Some(format!("{}/{}", pod.namespace.as_ref()?, pod.name.as_ref()?))
}

fn image(container: &Container) -> Option<String> {
    Some(format!("image {}", container.image.as_ref()?.name.as_ref()?))
}

/// What is known of a container besides what its column says.
fn whose(container: &Container) -> Vec<String> {
    let name = container.name.as_ref().filter(|_| pod(container).is_some());
    image(container).into_iter().chain(name.map(|name| format!("container {name}"))).collect()
}

/// How the first process of a session has ended, if that is known.
fn exit(session: &str, summary: &Summary) -> Option<String> {
    let first = first_process(session)?;
    // It may have executed several programs, one after the other.
    let program = summary.programs.iter().rfind(|program| program.pid == first)?;
    match (program.exit_code, program.signal) {
        (Some(code), _) => Some(format!("exit code {code}")),
        (None, Some(signal)) => Some(format!("killed by signal {signal}")),
        (None, None) => None,
    }
}

/// By which override something has its severity.
fn overridden(Overridden { by, otherwise }: &Overridden) -> String {
    format!("by override {by}, else {otherwise}")
}

/// What the message does not say, nor the line above.
fn details(finding: &Finding, above: Above) -> Vec<Detail> {
    let expected =
        finding.expected.map(|expected| format!("expected ({}), else {}", expected.reason, expected.otherwise));
    let mut notes: Vec<_> = expected.into_iter().collect();
    notes.extend(finding.overridden.as_deref().map(overridden));
    notes.extend(finding.suppressed_by.as_ref().map(|exception| format!("suppressed by exception {exception}")));
    notes.extend(finding.container.iter().filter(|_| !above.session).flat_map(whose));
    if let Some(repeated) = finding.repeated.as_ref().filter(|repeated| repeated.names.len() > 1) {
        notes.push(format!("such as {}", command_line(&repeated.names)));
    } else if let Some([first, .., last]) = finding.repeated.as_ref().map(|repeated| &repeated.commands[..]) {
        notes.push(format!("such as {} and {}", command_line(first), command_line(last)));
    } else if finding.revision > 1 && finding.repeated.is_none() && finding.finding != Kind::Session {
        notes.push(format!("revision {} of {}", finding.revision, finding.id));
    }
    let mut details: Vec<_> = notes.into_iter().map(Detail::Note).collect();
    if let Some(process) = &finding.process {
        if !above.command {
            let command = process.args.as_deref().map(command_line).or_else(|| Some(process.exe.as_ref()?.to_string()));
            details.extend(command.map(Detail::Command));
        }
        details.push(Detail::Who(who(process, !above.session)));
    }
    if let Some(file) = &finding.file {
        let is_change = file.op.is_some_and(|op| op != Op::Image(ImageOp::Create));
        let layer = file.layer.filter(|_| is_change).map(|layer| match layer {
            Layer::Lower => "was as in the image",
            Layer::Upper => "was changed before",
            Layer::New => "new",
        });
        let nameless = file.deleted.then_some("the file has no name");
        details.extend(layer.into_iter().chain(nameless).map(|note| Detail::Note(note.to_owned())));
    }
    details
}

/// Quoted where spaces or quotes would blur which argument ends where.
pub(crate) fn command_line(args: &[Text]) -> String {
    let quoted = args.iter().map(|arg| {
        let arg = arg.as_str();
        if arg.is_empty() || arg.contains([' ', '\'', '"']) {
            format!("'{}'", arg.replace('\'', "'\\''"))
        } else {
            arg.to_owned()
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// `pid 1234 uid 0 < runc < containerd-shim`, or without ancestors.
fn who(process: &Process, with_ancestors: bool) -> String {
    let mut text = format!("pid {} uid {}", process.pid, process.uid);
    for ancestor in process.ancestors.iter().take(if with_ancestors { 3 } else { 0 }) {
        text.push_str(" < ");
        text.push_str(ancestor.comm.as_str());
    }
    text
}

pub(super) const PLAIN: Style = Style::new();
pub(super) const DIM: Style = Style::new().dimmed();
pub(super) const BOLD: Style = Style::new().bold();
pub(super) const CYAN: Style = AnsiColor::Cyan.on_default();
pub(super) const GREEN: Style = AnsiColor::Green.on_default();
pub(super) const YELLOW: Style = AnsiColor::Yellow.on_default();
pub(super) const RED: Style = AnsiColor::Red.on_default();

pub(super) fn style(severity: Severity) -> Style {
    match severity {
        Severity::Info => DIM,
        Severity::Low => AnsiColor::Blue.on_default(),
        Severity::Medium => YELLOW,
        Severity::High => RED,
        Severity::Critical => AnsiColor::BrightWhite.on(AnsiColor::Red).bold(),
    }
}

/// Rows of text that is safe, with its styles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Drawn(pub(super) Vec<Vec<Run>>);

impl fmt::Display for Drawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, row) in self.0.iter().enumerate() {
            f.write_str(if number > 0 { "\n" } else { "" })?;
            row.iter().try_for_each(|Run { style, text }| write!(f, "{style}{text}{style:#}"))?;
        }
        Ok(())
    }
}

/// Writes text that is safe, in colour or not.
pub(super) struct Pen {
    drawn: Drawn,
    color: bool,
}

impl Pen {
    pub(super) fn new(color: bool) -> Self {
        Self { drawn: Drawn(vec![Vec::new()]), color }
    }

    /// Writes a text in its style.
    pub(super) fn write(&mut self, run: &Run) {
        let style = if self.color { run.style } else { PLAIN };
        let row = self.drawn.0.last_mut().expect("there is always a row");
        row.push(Run::new(style, safe(&run.text)));
    }

    /// What was written.
    pub(super) fn finish(self) -> String {
        self.drawn.to_string()
    }

    /// Goes on in the next row.
    pub(super) fn end_row(&mut self) {
        self.drawn.0.push(Vec::new());
    }
}

/// Text in which every unsafe character is escaped.
pub(crate) fn safe(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    write_safe(&mut safe, text).expect("a String takes all text");
    safe
}

/// Writes text with every unsafe character as `\u{X}`. It cannot be confused with text that has that literally: there,
/// the backslash is doubled ([`Text`]).
fn write_safe(out: &mut impl fmt::Write, text: &str) -> fmt::Result {
    for (plain, found) in escape::parts(text) {
        out.write_str(plain)?;
        match found {
            Some('\n') => out.write_str("\\n")?,
            Some('\r') => out.write_str("\\r")?,
            Some('\t') => out.write_str("\\t")?,
            Some(character) => write!(out, "\\u{{{:x}}}", u32::from(character))?,
            None => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::escape::tests::HOSTILE;
    use super::*;
    use crate::detect::samples;
    use crate::event::{Args, Event, Origin};
    use crate::finding::Loss;

    fn shown(event: Event, color: bool) -> String {
        let finding = samples::found(event).expect("it is a finding");
        let mut out = Vec::new();
        write_line(&mut out, &Line::Finding(Box::new(finding)), Look { color, columns: None, ..Look::default() })
            .expect("memory takes it");
        String::from_utf8(out).expect("it is UTF-8")
    }

    #[test]
    fn a_shell() {
        let mut exec = samples::exec(Origin::Entered, "/bin/busybox", &["sh", "-c", "it's me", ""]);
        exec.process.tty = Some(samples::name("pts0"));
        assert_eq!(
            shown(Event::Exec(Box::new(exec)), false),
            "08:00:00.000  high      3f2a0c6d9e1b  shell_in_container      sh started in container 3f2a0c6d9e1b \
             (entered from outside, tty pts0) · sh -c 'it'\\''s me' '' · pid 1234 uid 0 < runc\n"
        );
    }

    #[test]
    fn a_change() {
        let change = samples::change(ImageOp::OpenWrite, Layer::Lower, 0o100644, "/etc/app.conf");
        assert_eq!(
            shown(Event::ImageChange(Box::new(change)), false),
            "08:00:00.000  medium    3f2a0c6d9e1b  image_write             /etc/app.conf opened for writing in \
             container 3f2a0c6d9e1b by python3.12 · /usr/bin/python3.12 · pid 1234 uid 0 < runc · was as in the image\n"
        );
    }

    #[test]
    fn what_an_exception_suppresses() {
        let change = samples::change(ImageOp::OpenWrite, Layer::Lower, 0o100644, "/etc/app.conf");
        let mut finding = samples::found(Event::ImageChange(Box::new(change))).expect("it is a finding");
        finding.suppressed_by = Some(b"ours"[..].into());
        let suppressed = NoticeEvent::Suppressed {
            exception: "ours".to_owned(),
            reason: "It is known.".to_owned(),
            owner: "us".to_owned(),
            count: 2,
            total: 9,
        };
        let notice = Notice { time: finding.time, schema: 1, node: "node-1".into(), event: suppressed };
        let mut out = Vec::new();
        for line in [Line::Finding(Box::new(finding)), Line::Notice(notice)] {
            write_line(&mut out, &line, Look::default()).expect("memory takes it");
        }
        let text = String::from_utf8(out).expect("it is UTF-8");
        let (finding, notice) = text.trim_end().split_once('\n').expect("there are two lines");
        assert!(finding.contains(" · suppressed by exception ours · "), "{finding}");
        assert!(notice.ends_with("on node-1: exception \"ours\" has suppressed 2 acts (It is known.)"), "{notice}");
    }

    #[test]
    fn notices() {
        let loss = NoticeEvent::loss(Loss::Client, 3);
        let mut out = Vec::new();
        write_line(&mut out, &Line::Notice(Notice::now("node-1".into(), loss)), Look::default())
            .expect("memory takes it");
        let text = String::from_utf8(out).expect("it is UTF-8");
        let expected = "  sensor    -             loss                    on node-1, 3 times: a live viewer was too \
                        slow for all lines; the log has those that it missed\n";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn what_is_not_watched() {
        let mut out = Vec::new();
        for container in [samples::known_container(b"web"), Container::default()] {
            let (rule, reason, container) = ("ours".to_owned(), "It is known.".to_owned(), Box::new(container));
            let event = NoticeEvent::Unwatched { rule, reason, container };
            write_line(&mut out, &Line::Notice(Notice::now("node-1".into(), event)), Look::default())
                .expect("memory takes it");
        }
        let text = String::from_utf8(out).expect("it is UTF-8");
        let (known, unknown) = text.trim_end().split_once('\n').expect("there are two lines");
        let says = "unwatched               not watched: rule \"ours\" says so (It is known.)";
        assert!(known.ends_with(&format!("{says} · image web · container web")), "{known}");
        assert!(unknown.ends_with(says), "{unknown}");
    }

    #[test]
    fn what_is_repeated() {
        let mut out = Vec::new();
        write_line(&mut out, &samples::repeated(b"state"), Look::default()).expect("memory takes it");
        let text = String::from_utf8(out).expect("it is UTF-8");
        let expected = "  image_write             /srv/state created 3 times in container 3f2a0c6d9e1b by state, first \
                        08:00:00, last 08:00:00 · /bin/state · pid 1234 uid 0 < runc\n";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn the_end_of_a_session() {
        let mut out = Vec::new();
        let end = samples::session(b"sh").pop().expect("there is one");
        write_line(&mut out, &end, Look::default()).expect("memory takes it");
        let text = String::from_utf8(out).expect("it is UTF-8");
        let expected = "high      3f2a0c6d9e1b  └ session_ended         #1234 session of dash in container \
                        3f2a0c6d9e1b (brought in by a runtime, tty pts0): 1 program, 1 change of files, ended after \
                        0.0 s · killed by signal 9\n";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn what_a_runtime_tells() {
        let container = Box::new(samples::known_container(b"web"));
        let change = samples::change(ImageOp::OpenWrite, Layer::Lower, 0o100644, "/etc/app.conf");
        let mut finding = samples::found(Event::ImageChange(Box::new(change))).expect("it is a finding");
        finding.container = Some((*container).clone());
        let info = Notice::now("node-1".into(), NoticeEvent::ContainerInfo { container });
        for (line, expected) in [
            (Line::Finding(Box::new(finding)), "by python3.12 · image web · container web · /usr/bin/python3.12"),
            (
                Line::Notice(info),
                "  web/web       container_info          container 3f2a0c6d9e1b: image web · pod web/web\n",
            ),
            (samples::hash(b"x"), "  3f2a0c6d9e1b  file_hash               /x has the SHA-256 a7a7a7a7"),
        ] {
            let mut out = Vec::new();
            write_line(&mut out, &line, Look::default()).expect("memory takes it");
            let text = String::from_utf8(out).expect("it is UTF-8");
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn colours_only_when_told() {
        let event = || Event::Exec(Box::new(samples::exec(Origin::Entered, "/bin/sh", &["sh"])));
        assert!(shown(event(), true).contains("\x1b[33mmedium\x1b[0m  "));
        assert!(!shown(event(), false).contains('\x1b'));
    }

    #[test]
    fn hostile_text_is_harmless() {
        for hostile in HOSTILE {
            let mut change = samples::change(ImageOp::OpenWrite, Layer::Lower, 0o100644, "");
            let detail = change.detail.as_mut().expect("the sample has it");
            detail.path.bytes = [b"/", *hostile].concat();
            detail.exe = detail.path.clone();
            let mut exec = samples::exec(Origin::Entered, "/bin/sh", &[]);
            exec.args = Args { bytes: [*hostile, b"\0"].concat(), truncated: false };
            let info = NoticeEvent::ContainerInfo { container: Box::new(samples::known_container(hostile)) };
            let mut out = Vec::new();
            write_line(&mut out, &Line::Notice(Notice::now("node-1".into(), info)), Look::default())
                .expect("memory takes it");
            let info = String::from_utf8(out).expect("it is UTF-8");
            let events = [Event::ImageChange(Box::new(change)), Event::Exec(Box::new(exec))];
            let others = samples::session(hostile).into_iter().chain([samples::repeated(hostile)]).map(|line| {
                let mut out = Vec::new();
                write_line(&mut out, &line, Look::default()).expect("memory takes it");
                String::from_utf8(out).expect("it is UTF-8")
            });
            for text in events.map(|event| shown(event, false)).into_iter().chain([info]).chain(others) {
                let text = text.strip_suffix('\n').expect("it has an end");
                assert!(!text.contains(escape::is_unsafe), "{text:?}");
            }
        }
    }

    #[test]
    fn escapes_cannot_be_faked() {
        let show = |bytes: &[u8]| {
            let mut out = String::new();
            write_safe(&mut out, Text::from(bytes).as_str()).expect("memory takes it");
            out
        };
        assert_eq!(show(b"\x1b\xff"), r"\u{1b}\xff");
        assert_eq!(show(br"\u{1b}\xff"), r"\\u{1b}\\xff");
    }
}
