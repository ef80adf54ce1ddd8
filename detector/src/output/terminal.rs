//! A line for people.
//!
//! The columns are time (UTC), severity, container, finding and message; then follows what the message does not say:
//! image and pod, command line, process. A line of a session has the session's mark before the message: `#` and the id
//! of the session's first process. All text is escaped, so that nothing but this program changes a colour or moves the
//! cursor.

use std::fmt;
use std::io::{self, Write};

use clap::builder::styling::{AnsiColor, Style};

use super::escape;
use crate::finding::{
    Container, Finding, ImageOp, Kind, Layer, Line, LoadedPolicy, Node, Notice, NoticeEvent, Op, Overridden, Process,
    Severity, Summary, Text, Time, loss_message,
};

/// Digits of a container's id, as container runtimes show it.
const SHORT_ID: usize = 12;
/// How many reasons for a degradation are shown in the live view.
const MAX_REASONS: usize = 3;
/// Room for the names of findings, so that messages stand below each other.
const KIND_WIDTH: usize = 20;

/// What the line directly above says, so that this one need not.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Above {
    /// That line is of the same session: its container, and where its processes come from.
    pub(super) session: bool,
    /// It also has the same command line.
    pub(super) command: bool,
}

/// Writes a finding or a notice as one line. With `color`, as on a terminal that knows ANSI colours.
///
/// # Errors
///
/// Those of `out`.
pub fn write_line(out: &mut impl Write, line: &Line, color: bool) -> io::Result<()> {
    let text = match line {
        Line::Finding(found) => finding(found, Above::default(), color),
        Line::Notice(told) => notice(told, color),
    };
    // In one piece.
    out.write_all((text + "\n").as_bytes())
}

/// A finding as a line, without its end.
pub(super) fn finding(finding: &Finding, above: Above, color: bool) -> String {
    drawn(color, |pen| {
        write_head(pen, finding)?;
        pen.plain(&finding.message)?;
        write_details(pen, &details(finding, above))
    })
}

/// A notice as a line, without its end.
pub(super) fn notice(notice: &Notice, color: bool) -> String {
    drawn(color, |pen| write_notice(pen, notice))
}

/// An update of a finding whose first line has this time: what is said now, and what it updates.
pub(super) fn update(finding: &Finding, first: Time, color: bool) -> String {
    drawn(color, |pen| {
        write_head(pen, finding)?;
        pen.styled(DIM, &format!("update of {}: ", time_of_day(&first)))?;
        pen.plain(&finding.message)
    })
}

/// A remark about the view itself.
pub(super) fn remark(text: &str, color: bool) -> String {
    drawn(color, |pen| pen.styled(DIM, text))
}

fn drawn(color: bool, draw: impl FnOnce(&mut Pen<'_>) -> fmt::Result) -> String {
    let mut text = String::with_capacity(512);
    draw(&mut Pen { out: &mut text, color }).expect("a String takes all text");
    text
}

/// The columns before the message, and the mark of the session.
fn write_head(pen: &mut Pen<'_>, finding: &Finding) -> fmt::Result {
    let of = finding.container.as_ref().map_or_else(|| "host".to_owned(), container);
    let branch = if finding.session.is_some() && finding.finding != Kind::Session { "├ " } else { "" };
    let what = format!("{branch}{}", finding.finding);
    write_columns(pen, &finding.time, finding.severity, &of, &what)?;
    finding.session.as_ref().map_or(Ok(()), |session| write_mark(pen, session))
}

fn write_columns(pen: &mut Pen<'_>, time: &Time, severity: Severity, of: &str, what: &str) -> fmt::Result {
    pen.styled(DIM, &time_of_day(time))?;
    pen.plain("  ")?;
    pen.styled(style(severity), &format!("{severity:<8}"))?;
    pen.plain("  ")?;
    pen.styled(CYAN, &format!("{of:<SHORT_ID$}"))?;
    pen.plain("  ")?;
    pen.styled(BOLD, &format!("{what:<KIND_WIDTH$}"))?;
    pen.plain("  ")
}

fn write_mark(pen: &mut Pen<'_>, session: &str) -> fmt::Result {
    let Some(pid) = first_process(session) else { return Ok(()) };
    pen.styled(CYAN, &format!("#{pid}"))?;
    pen.plain(" ")
}

/// The id of a session's first process, which is part of the session's id.
fn first_process(session: &str) -> Option<u32> {
    u32::from_str_radix(session.split('-').nth(2)?, 16).ok()
}

fn write_details(pen: &mut Pen<'_>, details: &[String]) -> fmt::Result {
    details.iter().try_for_each(|detail| {
        pen.styled(DIM, " · ")?;
        pen.styled(DIM, detail)
    })
}

fn write_notice(pen: &mut Pen<'_>, notice: &Notice) -> fmt::Result {
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
            let [from, until] = [from, until].map(time_of_day);
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
            return write_info(pen, notice, of, "watched again: other rules were loaded");
        }
        NoticeEvent::Unwatched { rule, reason, container: of } => {
            let why = format!("not watched: rule {rule:?} says so ({reason})");
            let text = [why].into_iter().chain(whose(of)).collect::<Vec<_>>().join(" · ");
            return write_info(pen, notice, of, &text);
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
            let what = format!("└ {}", notice.event.name());
            write_columns(pen, &notice.time, *severity, &container(of), &what)?;
            write_mark(pen, session)?;
            pen.plain(message)?;
            let details = exit(session, summary).into_iter().chain(of_override.as_deref().map(overridden));
            return write_details(pen, &details.collect::<Vec<_>>());
        }
        NoticeEvent::FileHash { message, container: of, .. } => return write_info(pen, notice, of, message),
        NoticeEvent::ContainerInfo { container: known } => {
            let id = known.id.as_ref().map_or("", Text::as_str);
            let text = format!("container {}: {}", short(id), whose(known).join(" · "));
            return write_info(pen, notice, known, &text);
        }
    };
    pen.styled(DIM, &time_of_day(&notice.time))?;
    pen.plain("  ")?;
    pen.styled(style, &format!("{:<8}  {:<SHORT_ID$}  {:<KIND_WIDTH$}  {text}", "sensor", "-", notice.event.name()))
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

/// Writes what was learnt later about a container.
fn write_info(pen: &mut Pen<'_>, notice: &Notice, about: &Container, text: &str) -> fmt::Result {
    pen.styled(DIM, &time_of_day(&notice.time))?;
    pen.plain("  ")?;
    pen.styled(
        DIM,
        &format!("{:<8}  {:<SHORT_ID$}  {:<KIND_WIDTH$}  {text}", "sensor", container(about), notice.event.name()),
    )
}

/// `HH:MM:SS.mmm`: a live view is about now.
fn time_of_day(time: &Time) -> String {
    let text = time.to_string();
    text.get(11..23).unwrap_or(&text).to_owned()
}

/// Its name, or its short id; of one that is unknown, its cgroup.
fn container(container: &Container) -> String {
    match (&container.name, &container.id) {
        (Some(name), _) => name.to_string(),
        (None, Some(id)) => short(id.as_str()),
        (None, None) => format!("cgroup {}", container.cgroup_id),
    }
}

fn short(id: &str) -> String {
    id.chars().take(SHORT_ID).collect()
}

/// What is known of a container's image and pod.
fn whose(container: &Container) -> Vec<String> {
    let image = container.image.as_ref().and_then(|image| image.name.as_ref());
    let pod = container.pod.as_ref().and_then(|pod| Some((pod.namespace.as_ref()?, pod.name.as_ref()?)));
    let image = image.map(|name| format!("image {name}"));
    let pod = pod.map(|(namespace, name)| format!("pod {namespace}/{name}"));
    image.into_iter().chain(pod).collect()
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
fn details(finding: &Finding, above: Above) -> Vec<String> {
    let expected =
        finding.expected.map(|expected| format!("expected ({}), else {}", expected.reason, expected.otherwise));
    let mut details: Vec<_> = expected.into_iter().collect();
    details.extend(finding.overridden.as_deref().map(overridden));
    details.extend(finding.suppressed_by.as_ref().map(|exception| format!("suppressed by exception {exception}")));
    details.extend(finding.container.iter().filter(|_| !above.session).flat_map(whose));
    if let Some(repeated) = finding.repeated.as_ref().filter(|repeated| repeated.names.len() > 1) {
        details.push(format!("such as {}", command_line(&repeated.names)));
    } else if let Some([first, .., last]) = finding.repeated.as_ref().map(|repeated| &repeated.commands[..]) {
        details.push(format!("such as {} and {}", command_line(first), command_line(last)));
    } else if finding.revision > 1 && finding.repeated.is_none() && finding.finding != Kind::Session {
        details.push(format!("revision {} of {}", finding.revision, finding.id));
    }
    if let Some(process) = &finding.process {
        if !above.command {
            if let Some(args) = &process.args {
                details.push(command_line(args));
            } else if let Some(exe) = &process.exe {
                details.push(exe.to_string());
            }
        }
        details.push(who(process, !above.session));
    }
    if let Some(file) = &finding.file {
        let is_change = file.op.is_some_and(|op| op != Op::Image(ImageOp::Create));
        let layer = file.layer.filter(|_| is_change).map(|layer| match layer {
            Layer::Lower => "was as in the image",
            Layer::Upper => "was changed before",
            Layer::New => "new",
        });
        details.extend(layer.map(str::to_owned));
        if file.deleted {
            details.push("the file has no name".to_owned());
        }
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

const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();
const CYAN: Style = AnsiColor::Cyan.on_default();
const YELLOW: Style = AnsiColor::Yellow.on_default();
const RED: Style = AnsiColor::Red.on_default();

fn style(severity: Severity) -> Style {
    match severity {
        Severity::Info => DIM,
        Severity::Low => AnsiColor::Blue.on_default(),
        Severity::Medium => YELLOW,
        Severity::High => RED,
        Severity::Critical => AnsiColor::BrightWhite.on(AnsiColor::Red).bold(),
    }
}

/// Writes text that is safe, in colour or not.
struct Pen<'a> {
    out: &'a mut String,
    color: bool,
}

impl Pen<'_> {
    fn plain(&mut self, text: &str) -> fmt::Result {
        write_safe(self.out, text)
    }

    fn styled(&mut self, style: Style, text: &str) -> fmt::Result {
        let style = if self.color { style } else { Style::new() };
        fmt::Write::write_fmt(self.out, format_args!("{style}"))?;
        self.plain(text)?;
        fmt::Write::write_fmt(self.out, format_args!("{style:#}"))
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
        write_line(&mut out, &Line::Finding(Box::new(finding)), color).expect("memory takes it");
        String::from_utf8(out).expect("it is UTF-8")
    }

    #[test]
    fn a_shell() {
        let mut exec = samples::exec(Origin::Entered, "/bin/busybox", &["sh", "-c", "it's me", ""]);
        exec.process.tty = Some(samples::name("pts0"));
        assert_eq!(
            shown(Event::Exec(Box::new(exec)), false),
            "08:00:00.000  high      3f2a0c6d9e1b  shell_in_container    sh started in container 3f2a0c6d9e1b \
             (entered from outside, tty pts0) · sh -c 'it'\\''s me' '' · pid 1234 uid 0 < runc\n"
        );
    }

    #[test]
    fn a_change() {
        let change = samples::change(ImageOp::OpenWrite, Layer::Lower, 0o100644, "/etc/app.conf");
        assert_eq!(
            shown(Event::ImageChange(Box::new(change)), false),
            "08:00:00.000  medium    3f2a0c6d9e1b  image_write           /etc/app.conf opened for writing in container \
             3f2a0c6d9e1b by python3.12 · /usr/bin/python3.12 · pid 1234 uid 0 < runc · was as in the image\n"
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
            write_line(&mut out, &line, false).expect("memory takes it");
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
        write_line(&mut out, &Line::Notice(Notice::now("node-1".into(), loss)), false).expect("memory takes it");
        let text = String::from_utf8(out).expect("it is UTF-8");
        let expected = "  sensor    -             loss                  on node-1, 3 times: a live viewer was too slow \
                        for all lines; the log has those that it missed\n";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn what_is_not_watched() {
        let mut out = Vec::new();
        for container in [samples::known_container(b"web"), Container::default()] {
            let (rule, reason, container) = ("ours".to_owned(), "It is known.".to_owned(), Box::new(container));
            let event = NoticeEvent::Unwatched { rule, reason, container };
            write_line(&mut out, &Line::Notice(Notice::now("node-1".into(), event)), false).expect("memory takes it");
        }
        let text = String::from_utf8(out).expect("it is UTF-8");
        let (known, unknown) = text.trim_end().split_once('\n').expect("there are two lines");
        let says = "unwatched             not watched: rule \"ours\" says so (It is known.)";
        assert!(known.ends_with(&format!("{says} · image web · pod web/web")), "{known}");
        assert!(unknown.ends_with(says), "{unknown}");
    }

    #[test]
    fn what_is_repeated() {
        let mut out = Vec::new();
        write_line(&mut out, &samples::repeated(b"state"), false).expect("memory takes it");
        let text = String::from_utf8(out).expect("it is UTF-8");
        let expected = "  image_write           /srv/state created 3 times in container 3f2a0c6d9e1b by state, first \
                        08:00:00, last 08:00:00 · /bin/state · pid 1234 uid 0 < runc\n";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn the_end_of_a_session() {
        let mut out = Vec::new();
        let end = samples::session(b"sh").pop().expect("there is one");
        write_line(&mut out, &end, false).expect("memory takes it");
        let text = String::from_utf8(out).expect("it is UTF-8");
        let expected = "high      3f2a0c6d9e1b  └ session_ended       #1234 session of dash in container \
                        3f2a0c6d9e1b (brought in by a runtime, tty pts0): 1 program, 1 change of files, ended after 0.0 s \
                        · killed by signal 9\n";
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
            (Line::Finding(Box::new(finding)), "by python3.12 · image web · pod web/web · /usr/bin/python3.12"),
            (
                Line::Notice(info),
                "  web           container_info        container 3f2a0c6d9e1b: image web · pod web/web\n",
            ),
            (samples::hash(b"x"), "  3f2a0c6d9e1b  file_hash             /x has the SHA-256 a7a7a7a7"),
        ] {
            let mut out = Vec::new();
            write_line(&mut out, &line, false).expect("memory takes it");
            let text = String::from_utf8(out).expect("it is UTF-8");
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn colours_only_when_told() {
        let event = || Event::Exec(Box::new(samples::exec(Origin::Entered, "/bin/sh", &["sh"])));
        assert!(shown(event(), true).contains("\x1b[33mmedium  \x1b[0m"));
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
            write_line(&mut out, &Line::Notice(Notice::now("node-1".into(), info)), false).expect("memory takes it");
            let info = String::from_utf8(out).expect("it is UTF-8");
            let events = [Event::ImageChange(Box::new(change)), Event::Exec(Box::new(exec))];
            let others = samples::session(hostile).into_iter().chain([samples::repeated(hostile)]).map(|line| {
                let mut out = Vec::new();
                write_line(&mut out, &line, false).expect("memory takes it");
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
