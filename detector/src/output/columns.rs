//! Lays out what is told in columns: time, severity, container or pod, what happened, the command, and who did it.
//!
//! Each column is wrapped below itself. Where the terminal is too narrow for all of them, the command and the process
//! follow what happened; where it is narrower still, the text is below the other columns. Paths, commands and what else
//! containers have a say in are shortened in the middle. A layout without a width puts everything on one line, whole.

use std::borrow::Cow;

use clap::builder::styling::Style;

use super::fit::{self, Row, Run};
use super::terminal::{DIM, Look, Pen, SHORT_ID};
use super::times::Times;
use crate::finding::Time;

/// The narrowest width for which lines are laid out.
const NARROWEST: usize = 24;
/// The narrowest width at which the text stands beside the other columns.
const BESIDE: usize = 60;
/// The narrowest width at which there is room for milliseconds, and for wider gaps.
const ROOMY: usize = 110;
/// The narrowest width at which the command and the process have columns.
const SIDES: usize = 140;
/// How far the text is indented if it is below the other columns.
const INDENT: usize = 2;
/// How many rows a text is long at most if containers have a say in it.
const MOST_ROWS: usize = 6;
/// How many rows a command, a process or another detail is long at most.
const MOST_ROWS_OF_DETAIL: usize = 2;
/// Room for a severity.
const SEVERITY: usize = 8;
/// Room for the name of a container or pod.
const LONGEST_NAME: usize = 24;
/// Room for the names of findings, also of those in a session, where everything is on one line.
const KIND: usize = 22;

/// What is told, by column.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) time: Time,
    pub(super) severity: Run,
    /// The container or pod.
    pub(super) of: Run,
    pub(super) kind: Run,
    /// What happened.
    pub(super) message: Vec<Run>,
    /// Whether containers have a say in how long the message is.
    pub(super) is_foreign: bool,
    /// Paths in the message.
    pub(super) paths: Vec<String>,
    /// The part of the message that a column says, too.
    pub(super) said: Option<String>,
    pub(super) details: Vec<Detail>,
}

/// What the message does not say.
#[derive(Debug)]
pub(super) enum Detail {
    Note(String),
    Command(String),
    Who(String),
}

impl Detail {
    fn text(&self) -> &str {
        let (Self::Note(text) | Self::Command(text) | Self::Who(text)) = self;
        text
    }
}

/// Where the columns are.
#[derive(Debug)]
struct Layout {
    /// How many spaces are between two columns.
    gap: usize,
    /// How wide times are.
    time: usize,
    /// How wide the names of containers are.
    of: usize,
    /// Whether the text is below the other columns.
    is_below: bool,
    /// Where the text begins.
    indent: usize,
    /// How wide the text is.
    text: usize,
    /// How much of that is for commands and for processes, if they have columns.
    sides: Option<[usize; 2]>,
    /// Whether everything is on one line, whole. Then kinds have a column.
    is_whole: bool,
}

impl Layout {
    const SECONDS: usize = "00:00:00".len();
    const MILLISECONDS: usize = "00:00:00.000".len();

    /// The layout for a terminal of this width, or for one line.
    fn new(columns: Option<usize>) -> Self {
        let is_whole = columns.is_none();
        let columns = columns.unwrap_or(usize::MAX).max(NARROWEST);
        let is_below = columns < BESIDE;
        let (gap, time) = if columns >= ROOMY { (2, Self::MILLISECONDS) } else { (1, Self::SECONDS) };
        let of = if is_below { columns - time - SEVERITY - 2 * gap } else { SHORT_ID.max(columns / 8) };
        let of = if is_whole { SHORT_ID } else { of.min(LONGEST_NAME) };
        let head = time + SEVERITY + of + 3 * gap + if is_whole { KIND + gap } else { 0 };
        let indent = if is_below { INDENT } else { head };
        let text = columns - indent;
        let sides = (!is_whole && columns >= SIDES).then_some([text / 4, text / 4]);
        Self { gap, time, of, is_below, indent, text, sides, is_whole }
    }

    /// Leaves out the middle of a text that is too long, unless everything is shown whole.
    fn shortened<'a>(&self, text: &'a str, most: usize) -> Cow<'a, str> {
        if self.is_whole { Cow::Borrowed(text) } else { fit::shorten(text, most) }
    }

    /// The columns before the text, with the width of each.
    fn head(&self, entry: &Entry, times: Times) -> Vec<(Run, usize)> {
        let time = times.of(entry.time);
        let time = time.get(..self.time).unwrap_or(&time);
        let of = self.shortened(&entry.of.text, self.of);
        let mut head = vec![
            (Run::new(DIM, time), self.time),
            (entry.severity.clone(), SEVERITY),
            (Run::new(entry.of.style, of), self.of),
        ];
        head.extend(self.is_whole.then(|| (entry.kind.clone(), KIND)));
        head
    }

    /// The text in rows, each with its parts and where they begin.
    fn body(&self, entry: &Entry) -> Vec<Vec<(usize, Row)>> {
        let is_note = |detail: &&Detail| matches!(detail, Detail::Note(_));
        let is_command = |detail: &&Detail| matches!(detail, Detail::Command(_));
        let is_who = |detail: &&Detail| matches!(detail, Detail::Who(_));
        let in_one = || self.said(entry, self.text, |_| true).into_iter().map(|row| vec![(0, row)]).collect();
        let has_sides = !entry.details.iter().all(|detail| is_note(&detail));
        let Some([commands, processes]) = self.sides.filter(|_| has_sides) else { return in_one() };
        // Without a command, what happened takes its room.
        let has_command = entry.details.iter().any(|detail| is_command(&detail));
        let messages = self.text - processes - self.gap - if has_command { commands + self.gap } else { 0 };
        let side =
            |width, is_chosen: fn(&&Detail) -> bool| fit::wrap(&self.details(entry, width, is_chosen), width, width);
        let columns = [
            (0, self.said(entry, messages, is_note)),
            (messages + self.gap, side(commands, is_command)),
            (self.text - processes, side(processes, is_who)),
        ];
        let tallest = columns.iter().map(|(_, rows)| rows.len()).max().unwrap_or_default();
        let rows: Vec<_> = in_one();
        if tallest > 1 && rows.len() == 1 {
            return rows;
        }
        let mut columns = columns.map(|(at, rows)| (at, rows.into_iter()));
        (0..tallest).map(|_| columns.iter_mut().filter_map(|(at, rows)| Some((*at, rows.next()?))).collect()).collect()
    }

    /// What happened, and the details that are chosen.
    fn said(&self, entry: &Entry, width: usize, is_chosen: impl Fn(&&Detail) -> bool) -> Vec<Row> {
        let kind = (!self.is_whole).then(|| entry.kind.clone());
        let message = entry.message.iter().map(|run| Run::new(run.style, self.message(entry, &run.text, width)));
        let mut runs: Vec<_> = kind.into_iter().chain(message).collect();
        // A path that begins the message is in the same row as what is before it.
        let before: usize = runs.iter().rev().skip(1).map(|run| fit::width(&run.text) + 1).sum();
        let path = width.saturating_sub(before).max(width / 2);
        let details = self.details(entry, width, is_chosen);
        runs.extend(details.into_iter().flat_map(|run| [Run::new(DIM, "·"), run]));
        fit::wrap(&runs, width, path)
    }

    fn message(&self, entry: &Entry, text: &str, width: usize) -> String {
        if self.is_whole {
            return text.to_owned();
        }
        let mut text = entry.said.as_ref().map_or_else(|| text.to_owned(), |said| without(text, said));
        for path in entry.paths.iter().filter(|path| fit::width(path) > width) {
            text = text.replace(&**path, &fit::shorten(path, width));
        }
        if entry.is_foreign { fit::shorten(&text, MOST_ROWS * width).into_owned() } else { text }
    }

    fn details(&self, entry: &Entry, width: usize, is_chosen: impl Fn(&&Detail) -> bool) -> Vec<Run> {
        let chosen = entry.details.iter().filter(is_chosen);
        chosen
            .map(|detail| Run::new(DIM, self.shortened(detail.text(), width.saturating_mul(MOST_ROWS_OF_DETAIL))))
            .collect()
    }
}

/// The text without a part that is in it once and whole. What is there more often may have been put there.
fn without(text: &str, part: &str) -> String {
    match text.split(part).collect::<Vec<_>>()[..] {
        [before, behind] if behind.is_empty() || behind.starts_with([' ', ':', ',']) => [before, behind].concat(),
        _ => text.to_owned(),
    }
}

/// Draws what is told for a terminal of this width, or on one line.
pub(super) fn draw(entry: &Entry, look: Look, pen: &mut Pen) {
    let layout = Layout::new(look.columns);
    let mut line = Line { pen, width: 0 };
    let mut at = 0;
    for (run, room) in layout.head(entry, look.times) {
        line.go_to(at, layout.gap);
        line.write(&run);
        at += room + layout.gap;
    }
    for (number, row) in layout.body(entry).iter().enumerate() {
        if number > 0 || layout.is_below {
            line.end();
        }
        for (at, part) in row.iter().filter(|(_, part)| part.width > 0) {
            line.go_to(layout.indent + at, layout.gap);
            part.runs.iter().for_each(|run| line.write(run));
        }
    }
}

/// Draws a text of its own over the whole width.
pub(super) fn draw_text(run: &Run, columns: Option<usize>, pen: &mut Pen) {
    let columns = columns.map_or(usize::MAX, |columns| columns.max(NARROWEST));
    let mut line = Line { pen, width: 0 };
    for (number, row) in fit::wrap([run], columns, columns).iter().enumerate() {
        if number > 0 {
            line.end();
        }
        row.runs.iter().for_each(|run| line.write(run));
    }
}

/// A line that is being drawn.
struct Line<'a> {
    pen: &'a mut Pen,
    /// How much of it is written.
    width: usize,
}

impl Line<'_> {
    /// Writes spaces up to a column, and at least so many after what is written.
    fn go_to(&mut self, column: usize, gap: usize) {
        let least = if self.width == 0 { 0 } else { gap };
        let spaces = column.saturating_sub(self.width).max(least);
        self.write(&Run::new(Style::new(), " ".repeat(spaces)));
    }

    fn write(&mut self, run: &Run) {
        self.pen.write(run);
        self.width += fit::width(&run.text);
    }

    fn end(&mut self) {
        self.pen.end_row();
        self.width = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet, HashSet};

    use proptest::prelude::*;

    use super::super::{escape, json, terminal};
    use super::*;
    use crate::detect::samples;
    use crate::event::{Args, Event, ImageOp, Layer, Origin};
    use crate::finding::{Container, Finding, Kind, Line, Notice, NoticeEvent, Time};
    use crate::output::terminal::Look;

    fn shown(line: &Line, columns: Option<usize>, color: bool) -> String {
        let mut out = Vec::new();
        terminal::write_line(&mut out, line, Look { columns, color, ..Look::default() }).expect("memory takes it");
        String::from_utf8(out).expect("it is text").strip_suffix('\n').expect("it has an end").to_owned()
    }

    fn write(path: &str) -> Finding {
        let change = samples::change(ImageOp::OpenWrite, Layer::Lower, 0o100644, path);
        samples::found(Event::ImageChange(Box::new(change))).expect("it is a finding")
    }

    /// Lines of every kind.
    fn all() -> Vec<Line> {
        let mut session = samples::session(b"sh");
        let kinds = Kind::ALL.map(|finding| {
            let Line::Finding(change) = &session[2] else { panic!("no finding") };
            Line::Finding(Box::new(Finding { finding, ..(**change).clone() }))
        });
        let container = || Box::new(samples::known_container(b"shop"));
        let time = Time(jiff::Timestamp::UNIX_EPOCH);
        let [exception, reason, owner] = ["ours", "A reason, in a sentence.", "team"].map(str::to_owned);
        let own = || (exception.clone(), reason.clone(), owner.clone());
        let reasons = vec!["the hook `files opened for writing` does not fire: it was detached".to_owned(); 5];
        let mut notices = vec![
            NoticeEvent::Degraded { reasons },
            NoticeEvent::Degraded { reasons: Vec::new() },
            NoticeEvent::Healed { what: "a probe had been detached".to_owned() },
            NoticeEvent::Paused { from: time, until: time },
            NoticeEvent::BlindWindow { from: time, until: time, skipped: BTreeMap::from([("open".into(), 3)]) },
            NoticeEvent::ContainerInfo { container: container() },
            NoticeEvent::Watched { container: container() },
        ];
        let (exception, reason, owner) = own();
        notices.push(NoticeEvent::ExceptionExpired { exception, reason, owner, expired: time });
        let (exception, reason, owner) = own();
        notices.push(NoticeEvent::ExceptionUnused { exception, reason, owner, since: time });
        let (exception, reason, owner) = own();
        notices.push(NoticeEvent::Suppressed { exception, reason, owner, count: 2, total: 9 });
        let (rule, reason, _) = own();
        notices.push(NoticeEvent::Unwatched { rule, reason, container: container() });
        let notices = notices.into_iter().map(|event| Line::Notice(Notice::at(time, "node-1".into(), event)));
        let lines = json::tests::samples().into_iter().chain(kinds).chain(session.drain(..)).chain(notices);
        lines.chain([samples::repeated(b"state")]).collect()
    }

    /// The rows of a terminal of this width that somebody else has written, none of which goes on in the next one.
    fn rows(text: &str, columns: usize) -> Vec<String> {
        let count = text.split('\n').count() + 1;
        let [count, columns] = [count, columns].map(|length| u16::try_from(length).expect("it is small"));
        let size = [count, columns].map(|length| length.try_into().expect("it is not 0"));
        let mut terminal = vt100::Parser::new(size[0], size[1], 0);
        terminal.process(text.replace('\n', "\r\n").as_bytes());
        let screen = terminal.screen();
        for row in 0..count {
            assert!(!screen.row_wrapped(row), "row {row} is wider than {columns}: {text}");
        }
        screen.rows(0, columns).map(|row| row.trim_end().to_owned()).collect()
    }

    #[test]
    fn the_samples_are_lines_of_every_kind() {
        let names: BTreeSet<_> = all()
            .iter()
            .map(|line| match line {
                Line::Finding(finding) => finding.finding.name(),
                Line::Notice(notice) => notice.event.name(),
            })
            .collect();
        assert_eq!(names.len(), Kind::ALL.len() + 21, "{names:?}");
        let longest = names.iter().map(|name| fit::width(&format!("├ {name}"))).max();
        assert!(longest <= Some(KIND), "{longest:?}");
    }

    #[test]
    fn every_line_fits_and_no_word_is_broken_that_fits() {
        for columns in [40, 80, 160] {
            for line in all() {
                let text = shown(&line, Some(columns), false);
                assert_eq!(shown(&line, Some(columns), true).split('\n').count(), text.split('\n').count());
                rows(&shown(&line, Some(columns), true), columns);
                let whole = shown(&line, None, false);
                // Some terminals do not draw what stands for bytes that are no text.
                let whole = whole.replace('\u{fffd}', "");
                let words: HashSet<_> = whole.split(' ').collect();
                let long: Vec<_> = words.iter().filter(|word| word.chars().count() > 20).collect();
                for row in rows(&text, columns) {
                    for word in row.split_whitespace() {
                        let is_part = || long.iter().any(|long| long.contains(word));
                        let is_whole = words.contains(word) || word.contains('…') || word.len() == 8;
                        assert!(is_whole || is_part(), "{word:?} is no word of {whole}, at {columns} columns: {text}");
                    }
                }
            }
        }
    }

    fn of_pod(container: &mut Container) {
        *container = Container { id: container.id.take(), ..samples::known_container(b"checkout-7d9f8b6c5d-x2x9z") };
    }

    #[test]
    fn a_finding_at_each_width() {
        let mut finding = write("/usr/lib/python3/dist-packages/requests/sessions.py");
        let line = |finding: &Finding| Line::Finding(Box::new(finding.clone()));
        let of_id = [160, 120, 80].map(|columns| shown(&line(&finding), Some(columns), false));
        of_pod(finding.container.as_mut().expect("it is in one"));
        let of_pod = [80, 40].map(|columns| shown(&line(&finding), Some(columns), false));
        let expected = "\
08:00:00.000  high      3f2a0c6d9e1b          image_write /usr/lib/python3/dist…requests/sessions.py  \
/usr/bin/python3.12           pid 1234 uid 0 < runc
                                              opened for writing by python3.12 · was as in the image
08:00:00.000  high      3f2a0c6d9e1b     image_write /usr/lib/python3/dist-packages/requests/sessions.py opened for
                                         writing by python3.12 · /usr/bin/python3.12 · pid 1234 uid 0 < runc · was as in
                                         the image
08:00:00 high     3f2a0c6d9e1b image_write /usr/lib/python3/d…quests/sessions.py
                               opened for writing by python3.12 ·
                               /usr/bin/python3.12 · pid 1234 uid 0 < runc · was
                               as in the image
08:00:00 high     checko…x2x9z image_write /usr/lib/python3/d…quests/sessions.py
                               opened for writing by python3.12 · image
                               checkout-7d9f8b6c5d-x2x9z · container
                               checkout-7d9f8b6c5d-x2x9z · /usr/bin/python3.12 ·
                               pid 1234 uid 0 < runc · was as in the image
08:00:00 high     checkout-7d…6c5d-x2x9z
  image_write /usr/lib/pyth…/sessions.py
  opened for writing by python3.12 ·
  image checkout-7d9f8b6c5d-x2x9z ·
  container checkout-7d9f8b6c5d-x2x9z ·
  /usr/bin/python3.12 · pid 1234 uid 0 <
  runc · was as in the image";
        assert_eq!([of_id.join("\n"), of_pod.join("\n")].join("\n"), expected);
    }

    #[test]
    fn one_row_if_it_fits() {
        let line = Line::Finding(Box::new(write("/etc/app.conf")));
        assert_eq!(shown(&line, Some(220), false).split('\n').count(), 1);
    }

    #[test]
    fn what_a_column_says_is_not_said_again_unless_somebody_may_have_written_it() {
        assert_eq!(without("x in container 1 by y", " in container 1"), "x by y");
        assert_eq!(without("x in container 1", " in container 1"), "x");
        for text in ["/x in container 1 opened in container 1", "/etc in container 1/passwd opened"] {
            assert_eq!(without(text, " in container 1"), text);
        }
    }

    #[test]
    fn only_the_compact_form_shortens() {
        let path = format!("/srv/{}", "long and ".repeat(100));
        let line = Line::Finding(Box::new(write(&path)));
        assert!(shown(&line, None, false).contains(&path));
        let short = shown(&line, Some(80), false);
        assert!(
            short.contains('…') && short.contains("opened for writing") && short.split('\n').count() < 6,
            "{short}"
        );
        // What the detector says about itself is whole.
        let reasons = vec!["one two three four five ".repeat(40)];
        let notice = Notice::now("node-1".into(), NoticeEvent::Degraded { reasons });
        let text = shown(&Line::Notice(notice), Some(80), false);
        assert_eq!(text.matches("five").count(), 40);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever bytes containers choose, no row is wider than the terminal and nothing controls it.
        #[test]
        fn no_bytes_leave_their_column(
            words in prop::collection::vec(1..=255_u8, 0..300),
            spare in prop::collection::vec("\\PC{0,40}", 0..4),
            columns in NARROWEST..200,
        ) {
            let spare = spare.join("\0");
            let mut exec = samples::exec(Origin::Entered, "/bin/sh", &["sh"]);
            exec.args = Args { bytes: [spare.as_bytes(), b"\0", &words[..], b"\0"].concat(), truncated: false };
            let exec = samples::found(Event::Exec(Box::new(exec))).expect("it is a shell");
            let mut change = write(&spare);
            change.container = Some(samples::known_container(&words));
            let found = [exec, change].map(|finding| Line::Finding(Box::new(finding)));
            let repeated = samples::repeated(&words[..words.len().min(99)]);
            let of_words = samples::session(&words).into_iter().chain([repeated, samples::hash(&words)]);
            for line in found.into_iter().chain(of_words) {
                let text = shown(&line, Some(columns), false);
                for row in text.split('\n') {
                    prop_assert!(!row.contains(escape::is_unsafe), "{:?}", row);
                    prop_assert!(fit::width(row) <= columns);
                }
                rows(&text, columns);
            }
        }
    }
}
