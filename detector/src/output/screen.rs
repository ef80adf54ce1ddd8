//! The lines that are still on a terminal's screen, so that one of them can be replaced by news about the same finding.
//!
//! This is the only code that moves the cursor among lines. It does so only if it knows for sure how many rows each
//! line takes from the replaced one on. Everything else that could be on the screen, or the width of a character that
//! terminals do not agree on, would make it overwrite another line: an attacker could hide a finding in that way.

use std::collections::VecDeque;
use std::io::{self, Write};

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// How many lines fit below each other.
    pub rows: u16,
    /// How many characters fit beside each other.
    pub columns: u16,
}

/// What is on the screen, as far as it is known.
#[derive(Debug, Default)]
pub(super) struct Screen {
    /// `None` if the output is not a terminal, or nothing is known at the moment.
    size: Option<Size>,
    /// The last lines. The cursor is below them.
    lines: VecDeque<OnScreen>,
}

#[derive(Debug)]
struct OnScreen {
    /// What the line is about.
    id: Option<String>,
    text: String,
    /// How many characters wide each row of it is. `None` if that depends on the terminal.
    widths: Option<Vec<usize>>,
}

impl Screen {
    /// Notes the size. If it has changed, nothing is known of what is on the screen: terminals break long lines anew.
    pub(super) fn set_size(&mut self, size: Option<Size>) {
        let size = size.filter(|size| size.rows > 1 && size.columns > 0);
        if self.size != size {
            self.size = size;
            self.lines.clear();
        }
    }

    /// Writes a line below the others.
    pub(super) fn append(&mut self, out: &mut impl Write, id: Option<&str>, text: String) -> io::Result<()> {
        let Some(size) = self.size else { return writeln!(out, "{text}") };
        // What somebody has typed is erased.
        writeln!(out, "\r\x1b[K{text}")?;
        let widths = widths(&text);
        self.lines.push_back(OnScreen { id: id.map(str::to_owned), text, widths });
        self.drop_lines_above(size);
        Ok(())
    }

    /// Replaces the line about this, if it is still on the screen. Returns whether it was.
    pub(super) fn replace(&mut self, out: &mut impl Write, id: &str, text: &str) -> io::Result<bool> {
        let Some(size) = self.size else { return Ok(false) };
        let Some(at) = self.lines.iter().rposition(|line| line.id.as_deref() == Some(id)) else { return Ok(false) };
        let rows: Option<usize> = self.lines.range(at..).map(|line| line.rows(size)).sum();
        // The cursor takes a row, too.
        let Some(rows) = rows.filter(|rows| *rows < size.rows.into()) else { return Ok(false) };
        let line = &mut self.lines[at];
        if line.text == text {
            return Ok(true);
        }
        (line.text, line.widths) = (text.to_owned(), widths(text));
        write!(out, "\r\x1b[{rows}A\x1b[J")?;
        for line in self.lines.range(at..) {
            writeln!(out, "{}", line.text)?;
        }
        self.drop_lines_above(size);
        Ok(true)
    }

    /// Forgets the lines that have left the screen.
    fn drop_lines_above(&mut self, size: Size) {
        let mut rows: usize = self.lines.iter().map(|line| line.rows(size).unwrap_or(1)).sum();
        while rows > size.rows.into()
            && let Some(line) = self.lines.pop_front()
        {
            rows -= line.rows(size).unwrap_or(1);
        }
    }
}

impl OnScreen {
    fn rows(&self, size: Size) -> Option<usize> {
        Some(self.widths.as_ref()?.iter().map(|width| width.div_ceil(size.columns.into()).max(1)).sum())
    }
}

/// How wide each row of a text is, or `None` if that depends on the terminal.
fn widths(text: &str) -> Option<Vec<usize>> {
    text.split('\n').map(width).collect()
}

/// How wide a text is, or `None` if that depends on the terminal and its font. Sequences that set styles have no width.
fn width(text: &str) -> Option<usize> {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or_default();
    let visible = parts.map(|part| part.split_once('m').map_or(part, |(_, rest)| rest));
    [first].into_iter().chain(visible).map(|part| is_simple(part).then(|| part.chars().count())).sum()
}

/// Whether every character takes one column: ASCII, and what this program itself writes besides.
fn is_simple(text: &str) -> bool {
    text.chars().all(|character| matches!(character, ' '..='~' | '·' | '×' | '…' | '├' | '└'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: Size = Size { rows: 8, columns: 20 };

    /// A terminal that somebody else has written.
    fn terminal(size: Size) -> vt100::Parser {
        let [rows, columns] = [size.rows, size.columns].map(|length| length.try_into().expect("it is not 0"));
        vt100::Parser::new(rows, columns, 0)
    }

    /// The terminal's driver makes a new row begin at its left edge.
    fn feed(terminal: &mut vt100::Parser, out: &mut Vec<u8>) {
        let text = String::from_utf8(std::mem::take(out)).expect("it is text");
        terminal.process(text.replace('\n', "\r\n").as_bytes());
    }

    fn screen(size: Size) -> Screen {
        let mut screen = Screen::default();
        screen.set_size(Some(size));
        screen
    }

    /// What such a terminal shows of these lines.
    fn expected(size: Size, lines: &[String]) -> String {
        let mut terminal = terminal(size);
        lines.iter().for_each(|line| terminal.process(format!("{line}\r\n").as_bytes()));
        terminal.screen().contents()
    }

    #[test]
    fn a_line_grows_in_place() {
        let (mut out, mut terminal, mut screen) = (Vec::new(), terminal(SIZE), screen(SIZE));
        for (id, text) in [("a", "\x1b[31mone\x1b[0m"), ("b", "two"), ("c", "three")] {
            screen.append(&mut out, Some(id), text.to_owned()).expect("memory takes it");
        }
        let long = "one, which has become longer than a row";
        assert!(screen.replace(&mut out, "a", long).expect("memory takes it"));
        feed(&mut terminal, &mut out);
        assert_eq!(terminal.screen().contents(), "one, which has become longer than a row\ntwo\nthree");
        assert!(screen.replace(&mut out, "a", "\x1b[31mone\x1b[0m").expect("memory takes it"));
        screen.append(&mut out, None, "four".to_owned()).expect("memory takes it");
        feed(&mut terminal, &mut out);
        assert_eq!(terminal.screen().contents(), "one\ntwo\nthree\nfour");
        assert!(screen.replace(&mut out, "b", "two").expect("memory takes it") && out.is_empty());
    }

    #[test]
    fn what_somebody_has_typed_is_erased() {
        let (mut out, mut terminal, mut screen) = (Vec::new(), terminal(SIZE), screen(SIZE));
        screen.append(&mut out, Some("a"), "one".to_owned()).expect("memory takes it");
        feed(&mut terminal, &mut out);
        terminal.process(b"typed");
        screen.append(&mut out, Some("b"), "two".to_owned()).expect("memory takes it");
        screen.replace(&mut out, "a", "ONE").expect("memory takes it");
        feed(&mut terminal, &mut out);
        assert_eq!(terminal.screen().contents(), "ONE\ntwo");
    }

    #[test]
    fn a_line_is_not_replaced_if_it_is_not_known_where_it_is() {
        let replaced = |between: &dyn Fn(&mut Screen, &mut Vec<u8>)| {
            let (mut out, mut screen) = (Vec::new(), screen(SIZE));
            screen.append(&mut out, Some("a"), "one".to_owned()).expect("memory takes it");
            between(&mut screen, &mut out);
            out.clear();
            let replaced = screen.replace(&mut out, "a", "two").expect("memory takes it");
            assert_eq!(replaced, !out.is_empty());
            replaced
        };
        let append = |screen: &mut Screen, text: &str| {
            screen.append(&mut Vec::new(), None, text.to_owned()).expect("memory takes it");
        };
        assert!(replaced(&|_, _| {}));
        // Seven rows and the cursor's fit.
        assert!(replaced(&|screen, _| append(screen, &"x".repeat(6 * 20))));
        assert!(!replaced(&|screen, _| append(screen, &"x".repeat(6 * 20 + 1))));
        // A terminal can show these as one or two columns each.
        for unsure in ["日本", "e\u{301}", "👩\u{fe0f}", "ẞ"] {
            assert!(!replaced(&|screen, _| append(screen, unsure)), "{unsure}");
        }
        assert!(!replaced(&|screen, _| screen.set_size(Some(Size { columns: 30, ..SIZE }))));
        assert!(!replaced(&|screen, _| {
            screen.set_size(None);
            screen.set_size(Some(SIZE));
        }));
    }

    proptest! {
        /// Whatever is replaced, the screen is as if the lines had been written like that from the beginning, and what
        /// is not replaced stays.
        #[test]
        fn nothing_else_is_overwritten(
            rows in 2..12_u16,
            columns in 1..30_u16,
            steps in prop::collection::vec((any::<bool>(), 0..20_usize, "[ -~·×…├└日]{0,70}"), 1..40),
        ) {
            let size = Size { rows, columns };
            let (mut out, mut terminal, mut screen) = (Vec::new(), terminal(size), screen(size));
            let mut lines: Vec<String> = Vec::new();
            for (is_new, which, text) in steps {
                if is_new || lines.is_empty() {
                    screen.append(&mut out, Some(&lines.len().to_string()), text.clone()).expect("memory takes it");
                    lines.push(text);
                } else {
                    let which = which % lines.len();
                    if screen.replace(&mut out, &which.to_string(), &text).expect("memory takes it") {
                        lines[which] = text;
                    }
                }
                feed(&mut terminal, &mut out);
                // What a replaced line pushes out of the screen, or leaves free at its top, is not drawn again.
                let shown = terminal.screen().contents();
                let whole = expected(Size { rows: 600, ..size }, &lines);
                prop_assert!(whole.trim_end().ends_with(shown.trim()), "{shown:?} is not the end of {whole:?}");
            }
        }
    }
}
