//! The live view: findings as stories.
//!
//! A session comes first and its acts follow, each with the mark of the session, also when lines about other containers
//! are in between. An update of a finding replaces the line about it where that is possible (`screen.rs`). Where it is
//! not, it is a short line that names what it updates.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};

use super::screen::{Screen, Size};
use super::terminal::{self, Above, Look};
use super::times::Times;
use crate::finding::{Finding, Kind, Line, Severity, Text, Time};
use crate::recent::Recent;

/// How many findings are remembered at most, so that an update is known as one.
const MOST_FINDINGS: usize = 8192;
/// How many lines wait at most for the finding of a session.
const MOST_WAITING: usize = 256;

/// Shows lines to a person.
pub struct Live<W> {
    out: W,
    look: Look,
    screen: Screen,
    told: Recent<String, Told>,
    /// The sessions whose acts wait for nothing.
    sessions: Recent<String, ()>,
    last: Last,
    /// Lines that wait, because the first one is an act of a session whose finding comes next.
    waiting: VecDeque<Line>,
    hasher: RandomState,
}

/// The session of the last line, and the process with its arguments.
#[derive(Debug, Default)]
pub(super) struct Last(Option<(String, Command)>);

/// A process, and its arguments.
type Command = Option<(u32, Option<Vec<Text>>)>;

impl Last {
    /// The last line is this finding.
    pub(super) fn of(finding: &Finding) -> Self {
        Self(finding.session.clone().map(|session| (session, command(finding))))
    }

    /// What this line has said of a finding that comes next.
    pub(super) fn above(&self, next: &Finding) -> Above {
        match &self.0 {
            Some((session, last)) if Some(session) == next.session.as_ref() => {
                Above { session: true, command: *last == command(next) }
            }
            _ => Above::default(),
        }
    }
}

fn command(finding: &Finding) -> Command {
    finding.process.as_ref().map(|process| (process.pid, process.args.clone()))
}

/// What was shown of a finding.
#[derive(Clone, Copy, Debug)]
struct Told {
    /// The time in its first line.
    time: Time,
    /// How that was shown.
    times: Times,
    /// What the line above that one said.
    above: Above,
    /// Whether the last line about it is a short one.
    is_short: bool,
    /// A hash of what was said.
    said: u64,
}

impl<W: Write> Live<W> {
    /// Makes a view that writes to `out`.
    pub fn new(out: W, look: Look) -> Self {
        Self {
            out,
            look,
            screen: Screen::default(),
            told: Recent::new(MOST_FINDINGS),
            sessions: Recent::new(MOST_FINDINGS),
            last: Last::default(),
            waiting: VecDeque::new(),
            hasher: RandomState::new(),
        }
    }

    /// Notes how wide lines can be from now on, unless they are shown whole.
    pub fn set_columns(&mut self, columns: usize) {
        self.look.columns = self.look.columns.map(|_| columns);
    }

    /// Notes the size of the terminal, or `None` if the output is none, or something else may have been written to it.
    pub fn set_size(&mut self, size: Option<Size>) {
        self.screen.set_size(size);
    }

    /// Whether the line is an update of what is shown already.
    pub fn has_told(&mut self, line: &Line) -> bool {
        matches!(line, Line::Finding(finding) if self.told.get(&finding.id).is_some())
    }

    /// Shows a line. The first act of a session waits for the session's finding, and with it what comes after.
    pub fn show(&mut self, line: Line) -> io::Result<()> {
        let place = match &line {
            Line::Finding(session) if session.finding == Kind::Session => {
                self.waiting.iter().position(|line| session_of(line) == Some(&session.id))
            }
            _ => None,
        };
        self.waiting.insert(place.unwrap_or(self.waiting.len()), line);
        self.advance()?;
        if self.waiting.len() > MOST_WAITING { self.release() } else { self.out.flush() }
    }

    /// Whether lines wait for the finding of a session.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Shows the lines that wait.
    pub fn release(&mut self) -> io::Result<()> {
        while let Some(line) = self.waiting.front() {
            if let Some(session) = session_of(line) {
                self.sessions.insert(session.to_owned(), ());
            }
            self.advance()?;
        }
        self.out.flush()
    }

    /// Shows a remark about the view itself.
    pub fn remark(&mut self, text: &str) -> io::Result<()> {
        self.last = Last::default();
        self.screen.append(&mut self.out, None, terminal::remark(text, self.look).to_string())?;
        self.out.flush()
    }

    fn advance(&mut self) -> io::Result<()> {
        while let Some(line) = self.waiting.pop_front() {
            if session_of(&line).is_some_and(|session| self.sessions.get(&session.to_owned()).is_none()) {
                self.waiting.push_front(line);
                break;
            }
            self.write(&line)?;
        }
        Ok(())
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        match line {
            Line::Finding(finding) => self.write_finding(finding),
            Line::Notice(notice) => {
                self.last = Last::default();
                self.screen.append(&mut self.out, None, terminal::notice(notice, self.look).to_string())?;
                self.note_time(notice.time);
                Ok(())
            }
        }
    }

    fn write_finding(&mut self, finding: &Finding) -> io::Result<()> {
        let said = self.hasher.hash_one((finding.severity, &finding.message));
        if let Some(told) = self.told.get(&finding.id).copied() {
            return self.update(finding, Told { said, ..told }, told.said != said);
        }
        if finding.finding == Kind::Session {
            self.sessions.insert(finding.id.clone(), ());
        }
        let above = self.last.above(finding);
        let text = terminal::finding(finding, above, self.look).to_string();
        self.screen.append(&mut self.out, Some(&finding.id), text)?;
        let told = Told { time: finding.time, times: self.look.times, above, is_short: false, said };
        self.told.insert(finding.id.clone(), told);
        self.note_time(finding.time);
        self.last = Last::of(finding);
        Ok(())
    }

    /// Notes the time of a new line, which the next one is shown by.
    fn note_time(&mut self, time: Time) {
        if let Times::After(_) = self.look.times {
            self.look.times = Times::After(Some(time));
        }
    }

    fn update(&mut self, finding: &Finding, mut told: Told, is_news: bool) -> io::Result<()> {
        let short = || terminal::update(finding, told.time, self.look).to_string();
        let text = if told.is_short {
            short()
        } else {
            // As if this had been known from the beginning.
            let first = Finding { time: told.time, revision: 1, ..finding.clone() };
            terminal::finding(&first, told.above, Look { times: told.times, ..self.look }).to_string()
        };
        if !self.screen.replace(&mut self.out, &finding.id, &text)? && is_news && !is_last(finding) {
            self.screen.append(&mut self.out, Some(&finding.id), short())?;
            told.is_short = true;
            self.last = Last::default();
        }
        self.told.insert(finding.id.clone(), told);
        Ok(())
    }
}

/// The session in which an act was done.
fn session_of(line: &Line) -> Option<&String> {
    match line {
        Line::Finding(finding) if finding.finding != Kind::Session => finding.session.as_ref(),
        _ => None,
    }
}

/// Whether a notice follows that says the same and more.
pub(super) fn is_last(finding: &Finding) -> bool {
    finding.severity >= Severity::Medium && finding.summary.as_ref().is_some_and(|summary| summary.ended.is_some())
}

#[cfg(test)]
pub(in crate::output) mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use super::super::escape::tests::HOSTILE;
    use super::*;
    use crate::detect::{Detector, samples};
    use crate::event::{At, Event, Exit, ImageOp, Layer, Origin, Session, Via};
    use crate::finding::{Container, Loss, Notice, NoticeEvent};

    /// The lines of a session: its shell, the session, a change, the session once more, and the notice of its end.
    fn session() -> Vec<Line> {
        samples::session(b"sh")
    }

    pub(in crate::output) fn change(container: &[u8], path: &str) -> Line {
        let change = samples::change(ImageOp::OpenWrite, Layer::Lower, 0o100644, path);
        let mut finding = samples::found(Event::ImageChange(Box::new(change))).expect("it is a finding");
        finding.container.as_mut().expect("it is in one").name = Some(container.into());
        finding.id = path.to_owned();
        Line::Finding(Box::new(finding))
    }

    pub(in crate::output) fn updated(line: &Line, message: &str) -> Line {
        let Line::Finding(finding) = line else { panic!("no finding") };
        let mut update = finding.clone();
        (update.message, update.revision) = (message.to_owned(), update.revision + 1);
        update.time = Time(update.time.0 + Duration::from_secs(60));
        if let Some(summary) = &mut update.summary {
            summary.ended = None;
        }
        Line::Finding(update)
    }

    /// What is shown on a terminal of this size, or else in a file.
    fn shown(lines: impl IntoIterator<Item = Line>, size: Option<Size>) -> String {
        shown_with(lines, size, Times::Utc)
    }

    fn shown_with(lines: impl IntoIterator<Item = Line>, size: Option<Size>, times: Times) -> String {
        let columns = size.map(|size| size.columns.into());
        let mut live = Live::new(Vec::new(), Look { columns, color: false, times });
        live.set_size(size);
        lines.into_iter().for_each(|line| live.show(line).expect("memory takes it"));
        live.release().expect("memory takes it");
        let text = String::from_utf8(live.out).expect("it is text");
        let Some(size) = size else { return text };
        let [rows, columns] = [size.rows, size.columns].map(|length| length.try_into().expect("it is not 0"));
        let mut terminal = vt100::Parser::new(rows, columns, 0);
        terminal.process(text.replace('\n', "\r\n").as_bytes());
        terminal.screen().contents()
    }

    /// What stands behind the time in each line.
    fn rows(text: &str) -> Vec<&str> {
        text.lines().map(|line| line.get(14..).unwrap_or(line)).collect()
    }

    const SIZE: Size = Size { rows: 24, columns: 80 };

    #[test]
    fn a_session_is_a_story_also_with_another_container_in_between() {
        let mut lines = session();
        lines.insert(2, change(b"db", "/etc/db.conf"));
        let messages = lines.iter().map(|line| match line {
            Line::Finding(finding) => finding.message.clone(),
            Line::Notice(Notice { event: NoticeEvent::SessionEnded { message, .. }, .. }) => message.clone(),
            Line::Notice(_) => panic!("no finding"),
        });
        let [shell, session, other, change, _, end] = messages.collect::<Vec<_>>().try_into().expect("there are six");
        let context = "pid 1234 uid 0 < runc";
        assert_eq!(
            rows(&shown(lines, None)),
            [
                format!("high      3f2a0c6d9e1b  session                 #1234 {session} · sh · {context}"),
                format!("high      3f2a0c6d9e1b  ├ shell_in_container    #1234 {shell} · pid 1234 uid 0"),
                format!(
                    "medium    db            image_write             {other} · /usr/bin/python3.12 · {context} · was \
                    as in the image"
                ),
                format!(
                    "medium    3f2a0c6d9e1b  ├ image_write           #1234 {change} · sh · {context} · was as in \
                    the image"
                ),
                format!("high      3f2a0c6d9e1b  └ session_ended         #1234 {end} · killed by signal 9"),
            ]
        );
    }

    #[test]
    fn an_act_waits_for_its_session_but_not_for_ever() {
        let lines = session();
        let mut live = Live::new(Vec::new(), Look::default());
        live.show(lines[0].clone()).expect("memory takes it");
        live.show(change(b"db", "/etc/db.conf")).expect("memory takes it");
        assert!(live.is_waiting() && live.out.is_empty());
        live.release().expect("memory takes it");
        assert_eq!(live.out.split(|byte| *byte == b'\n').count(), 3);
        // The session comes late, and the next act waits for nothing.
        live.show(lines[2].clone()).expect("memory takes it");
        live.show(lines[1].clone()).expect("memory takes it");
        assert!(!live.is_waiting());
        let text = String::from_utf8(live.out).expect("it is text");
        let kinds: Vec<_> = rows(&text).iter().map(|row| row.chars().skip(24).take(20).collect::<String>()).collect();
        let kinds: Vec<_> = kinds.iter().map(|kind| kind.trim()).collect();
        assert_eq!(kinds, ["├ shell_in_container", "image_write", "├ image_write", "session"]);
    }

    #[test]
    fn a_line_grows_in_place_on_a_terminal() {
        let lines = session();
        let grown = updated(&lines[1], "session of dash: 30 programs");
        let text = shown([lines[0].clone(), lines[1].clone(), change(b"db", "/etc/db.conf"), grown], Some(SIZE));
        assert_eq!(text.matches("session of dash").count(), 1, "{text}");
        assert!(text.starts_with("08:00:00 high     3f2a0c6d9e1b session #1234 session of dash: 30 programs"));
        assert!(text.contains("├ shell_in_container") && text.contains("/etc/db.conf"), "{text}");
        assert!(!text.contains("update of "), "{text}");
    }

    #[test]
    fn times_are_shown_by_how_much_later_they_are() {
        let first = change(b"db", "/etc/db.conf");
        let second = updated(&change(b"db", "/etc/other.conf"), "another change");
        let grown = updated(&first, "two changes");
        let lines = [first, second.clone(), grown, second];
        let shown = shown_with(lines, Some(SIZE), Times::After(None));
        assert!(shown.starts_with("+0.000s  medium   db           image_write two changes"), "{shown}");
        assert!(shown.contains("\n+1m00s   medium   db           image_write another change"), "{shown}");
    }

    #[test]
    fn elsewhere_an_update_is_a_short_line() {
        let first = change(b"db", "/etc/db.conf");
        let updates: Vec<_> = ["2 files", "3 files", "3 files"].map(|message| updated(&first, message)).to_vec();
        let text = shown([first.clone()].into_iter().chain(updates.clone()), None);
        let short =
            |count| format!("medium    db            image_write             update of 08:00:00.000: {count} files");
        assert_eq!(rows(&text)[1..], [short(2), short(3)]);
        assert!(text.lines().skip(1).all(|line| line.starts_with("08:01:00.000")), "{text}");
        // On a terminal that the line has left, only the short one grows.
        let others = (0..30).map(|number| change(b"db", &format!("/{number}")));
        let text = shown([first].into_iter().chain(others).chain(updates), Some(SIZE));
        assert_eq!(text.matches("update of ").count(), 1, "{text}");
        assert!(text.ends_with("medium   db           image_write update of 08:00:00.000: 3 files"), "{text}");
    }

    #[test]
    fn the_last_update_of_a_session_is_left_to_the_notice_of_its_end() {
        let lines = session();
        let ends = |lines: &[Line]| shown(lines.iter().cloned(), None).matches("ended after").count();
        assert_eq!(ends(&lines), 1);
        // No notice follows if it matters less.
        let low = lines[..4].iter().cloned().map(|mut line| {
            let Line::Finding(finding) = &mut line else { panic!("no finding") };
            finding.severity = Severity::Low;
            line
        });
        assert_eq!(ends(&low.collect::<Vec<_>>()), 1);
    }

    #[test]
    fn hostile_names_hide_nothing_on_a_terminal() {
        let size = Size { rows: 60, columns: 80 };
        for hostile in HOSTILE {
            let lines = samples::session(hostile);
            let updates = lines[1..3].iter().map(|line| updated(line, "UPDATED"));
            let first = change(b"first", "/etc/first");
            let lines: Vec<_> = [first].into_iter().chain(lines.iter().cloned()).chain(updates).collect();
            let text = shown(lines, Some(size));
            for part in ["/etc/first", "├ shell_in_container", "├ image_write", "└ session_ended", "UPDATED"] {
                assert!(text.contains(part), "{part} is not in {text}");
            }
        }
    }

    #[test]
    fn lines_fit_a_terminal_that_was_resized() {
        let lines = session();
        let mut live = Live::new(Vec::new(), Look { columns: Some(80), ..Look::default() });
        let terminal_size = |columns| [24, columns].map(|length: u16| length.try_into().expect("it is not 0"));
        let [rows, columns] = terminal_size(80);
        let mut terminal = vt100::Parser::new(rows, columns, 0);
        for (columns, line) in
            [(80, &lines[0]), (80, &lines[1]), (40, &updated(&lines[1], "30 programs, then")), (40, &lines[2])]
        {
            let [rows, width] = terminal_size(columns);
            terminal.screen_mut().set_size(rows, width);
            live.set_columns(columns.into());
            live.set_size(Some(Size { rows: 24, columns }));
            live.show(line.clone()).expect("memory takes it");
            let text = String::from_utf8(std::mem::take(&mut live.out)).expect("it is text");
            terminal.process(text.replace('\n', "\r\n").as_bytes());
        }
        let screen = terminal.screen();
        let text = screen.contents();
        // What was there before the change may be broken anywhere, and stays.
        assert!(text.contains("3f2a0c6d9e1b session #"), "{text}");
        assert!(text.contains("  session #1234 update of 08:00:00.000:\n  30 programs, then\n"), "{text}");
        let from = screen.rows(0, 40).position(|row| row.contains("30 programs,")).expect("it is there");
        let after = u16::try_from(from).expect("it is small")..24;
        assert!(after.clone().len() > 6 && after.clone().all(|row| !screen.row_wrapped(row)), "{text}");
    }

    /// A person comes into a container of a pod, and something happens elsewhere meanwhile.
    pub(in crate::output) fn scene() -> Vec<Line> {
        const SECOND: u64 = 1_000_000_000;
        let (mut detector, context, tracked) = (Detector::default(), samples::context(), samples::container());
        let session = Session { start_time: 5 * SECOND, pid: 4711, via: Via::Exec };
        let script =
            "id -u; echo 'mode = open' > /etc/app.conf; cp /bin/busybox /usr/lib/python3/dist-packages/.backup";
        let mut exec = samples::exec(Origin::Entered, "/bin/busybox", &["/bin/sh", "-c", script]);
        exec.at.time = 5 * SECOND + 34_018_000;
        let process = &mut exec.process;
        (process.session, process.tty) = (Some(session), Some(samples::name("pts0")));
        (process.pid, process.tid, process.start_time) = (4711, 4711, 5 * SECOND);
        let changed = |number: u64, op, layer, path: &str| {
            let mut change = samples::change(op, layer, 0o100755, path);
            (change.at.time, change.at.number) = (5 * SECOND + number * 61_000_000, number);
            let detail = change.detail.as_mut().expect("the sample has it");
            (detail.process, detail.exe) = (exec.process.clone(), exec.exe.clone());
            Event::ImageChange(Box::new(change))
        };
        let events = [
            Event::Exec(Box::new(exec.clone())),
            changed(2, ImageOp::Truncate, Layer::Lower, "/etc/app.conf"),
            changed(3, ImageOp::Create, Layer::New, "/usr/lib/python3/dist-packages/.backup"),
        ];
        let mut lines = Vec::new();
        for event in &events {
            detector.detect(event, &tracked, &context, |found| lines.push(Line::Finding(Box::new(found))));
        }
        let at = At { time: 9 * SECOND, ..exec.at };
        let exit = Exit { at, session, start_time: 5 * SECOND, pid: 4711, status: 0x300, is_last: true };
        detector.detect(&Event::Exit(exit), &tracked, &context, drop);
        detector.stop(9 * SECOND, &context, |line| lines.push(line));
        let of_pod = |container: &mut Container| {
            *container = Container { id: container.id.take(), ..samples::known_container(b"web") };
            let [image, namespace, pod] = ["registry.example/shop/web:1.4", "shop", "web-7d9f8b6c5d-x2x9z"];
            container.image.as_mut().expect("it has one").name = Some(image.as_bytes().into());
            let of = container.pod.as_mut().expect("it has one");
            (of.namespace, of.name) = (Some(namespace.as_bytes().into()), Some(pod.as_bytes().into()));
        };
        for line in &mut lines {
            match line {
                Line::Finding(finding) => of_pod(finding.container.as_mut().expect("it is in one")),
                Line::Notice(notice) => {
                    notice.time = Time::from_nanoseconds(1_800_000_009_000_000_000);
                    if let NoticeEvent::SessionEnded { container, .. } = &mut notice.event {
                        of_pod(container);
                    }
                }
            }
        }
        let mut other = change(b"db", "/var/lib/postgresql/17/main/pg_hba.conf");
        let Line::Finding(finding) = &mut other else { panic!("no finding") };
        finding.time = Time::from_nanoseconds(1_800_000_007_500_000_000);
        let time = Time::from_nanoseconds(1_800_000_012_000_000_000);
        let loss = Line::Notice(Notice::at(time, "node-1".into(), NoticeEvent::loss(Loss::Client, 3)));
        lines.insert(lines.len() - 2, other);
        lines.push(loss);
        lines
    }

    /// docs/tail-80.txt and docs/tail-160.txt show the view at these widths.
    #[test]
    fn the_screens_in_the_documents_are_what_is_shown() {
        for columns in [80, 160] {
            let mut live = Live::new(Vec::new(), Look { columns: Some(columns), ..Look::default() });
            live.remark("not shown: container_info, file_hash, heartbeat (--all shows everything)")
                .expect("memory takes it");
            scene().into_iter().for_each(|line| live.show(line).expect("memory takes it"));
            live.release().expect("memory takes it");
            let text = String::from_utf8(live.out).expect("it is text");
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/tail-{columns}.txt"));
            let known = fs::read_to_string(&path).unwrap_or_default();
            assert!(known == text, "{} must be:\n{text}", path.display());
        }
    }
}
