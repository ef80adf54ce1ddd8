//! What is wrong with a configuration file, and where.

use std::fmt;
use std::ops::Range;

use crate::output::escape::is_unsafe;

/// How many problems are kept. More at once help nobody.
const MOST: usize = 100;

/// How many characters of a line are shown, and how many of them before the place of the problem.
const SHOWN: usize = 100;
const BEFORE: usize = 60;

/// How much a problem matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gravity {
    /// The file cannot be used.
    Error,
    /// The file can be used, but may not do what was intended.
    Warning,
}

impl Gravity {
    /// The name, as it is shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// Something that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How much it matters.
    pub gravity: Gravity,
    /// Which bytes of the text it is about.
    pub(super) span: Range<usize>,
    /// What is wrong, and what to do.
    pub message: String,
}

/// What is wrong with a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    list: Vec<Problem>,
    omitted: usize,
}

impl Problems {
    pub(super) fn error(&mut self, span: Range<usize>, message: impl fmt::Display) {
        self.add(Gravity::Error, span, message);
    }

    pub(super) fn warn(&mut self, span: Range<usize>, message: impl fmt::Display) {
        self.add(Gravity::Warning, span, message);
    }

    fn add(&mut self, gravity: Gravity, span: Range<usize>, message: impl fmt::Display) {
        let message = message.to_string();
        // A parser that goes on after an error may come across it again.
        let is_again = self.list.last().is_some_and(|last| last.span == span && last.message == message);
        if is_again {
            return;
        }
        if self.list.len() < MOST || gravity == Gravity::Error && !self.has_errors() {
            self.list.push(Problem { gravity, span, message });
        } else {
            self.omitted += 1;
        }
    }

    /// Brings the problems into the order of the file.
    pub(super) fn sort(&mut self) {
        self.list.sort_by_key(|problem| problem.span.start);
    }

    /// The problems, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.list.iter()
    }

    /// How many further problems there are.
    pub fn omitted(&self) -> usize {
        self.omitted
    }

    /// The errors, in the order of the file.
    pub fn errors(&self) -> impl Iterator<Item = &Problem> {
        self.iter().filter(|problem| problem.gravity == Gravity::Error)
    }

    /// Whether the file cannot be used.
    pub fn has_errors(&self) -> bool {
        self.errors().next().is_some()
    }
}

/// A place in a text, for people: both numbers begin with 1, and a column is a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The number of the line.
    pub line: usize,
    /// The number of the character in the line.
    pub column: usize,
}

impl Place {
    /// The place of a byte. A byte in the middle of a character stands for the character.
    pub(super) fn of(text: &str, byte: usize) -> Self {
        let before = &text[..text.floor_char_boundary(byte)];
        let start = before.rfind('\n').map_or(0, |end| end + 1);
        Self {
            line: before.bytes().filter(|&byte| byte == b'\n').count() + 1,
            column: before[start..].chars().count() + 1,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl Problem {
    /// Where it is in the text of the file.
    pub fn place(&self, text: &str) -> Place {
        Place::of(text, self.span.start)
    }

    /// The message, without what a terminal would obey.
    pub fn shown(&self) -> String {
        visible_text(&self.message)
    }

    /// The problem with the line that it is in, and a caret below. What a terminal would obey is not shown as it is.
    pub fn excerpt(&self, file: &str, text: &str) -> String {
        let place = self.place(text);
        let start = text.floor_char_boundary(self.span.start);
        let end = text.floor_char_boundary(self.span.end).max(start);
        let first = text[..start].rfind('\n').map_or(0, |end| end + 1);
        let last = text[start..].find('\n').map_or(text.len(), |end| start + end);
        let line: Vec<char> = text[first..last].trim_end_matches('\r').chars().collect();

        let at = place.column - 1;
        let from = at.saturating_sub(BEFORE);
        let until = line.len().min(from + SHOWN);
        let mut shown: String = line[from.min(until)..until].iter().copied().map(visible).collect();
        let cut = if from > 0 { "…" } else { "" };
        if until < line.len() {
            shown.push('…');
        }
        let width = text[start..end.min(last)].chars().count().min(until.saturating_sub(at)).max(1);
        let number = place.line.to_string();
        let margin = " ".repeat(number.len());
        let indent = " ".repeat(at - from + cut.chars().count());
        let carets = "^".repeat(width);
        format!(
            "{}: {}\n{margin}--> {file}:{place}\n{margin} |\n{number} | {cut}{shown}\n{margin} | {indent}{carets}\n",
            self.gravity.name(),
            self.shown(),
        )
    }
}

/// What is shown of a text, which may have characters that a terminal obeys.
pub fn visible_text(text: &str) -> String {
    text.chars().map(visible).collect()
}

/// What is shown for a character: itself, if that only shows it.
fn visible(character: char) -> char {
    match character {
        '\t' => ' ',
        character if is_unsafe(character) => char::REPLACEMENT_CHARACTER,
        character => character,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excerpt(text: &str, span: Range<usize>) -> String {
        Problem { gravity: Gravity::Error, span, message: "it is wrong".to_owned() }.excerpt("f.toml", text)
    }

    #[test]
    fn the_caret_is_below_the_place() {
        assert_eq!(
            excerpt("a = 1\nü\t= nö\n", 11..14),
            "error: it is wrong\n --> f.toml:2:5\n  |\n2 | ü = nö\n  |     ^^\n"
        );
        assert_eq!(excerpt("", 0..0), "error: it is wrong\n --> f.toml:1:1\n  |\n1 | \n  | ^\n");
        // The end of the file, and a place that lasts for several lines.
        assert_eq!(excerpt("a =", 3..3), "error: it is wrong\n --> f.toml:1:4\n  |\n1 | a =\n  |    ^\n");
        assert_eq!(excerpt("[a\nb]", 0..5), "error: it is wrong\n --> f.toml:1:1\n  |\n1 | [a\n  | ^^\n");
    }

    #[test]
    fn of_a_long_line_only_a_part_is_shown() {
        let shown = excerpt(&"x".repeat(1 << 20), 500_000..600_000);
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines[1], " --> f.toml:1:500001");
        assert_eq!(lines[3], format!("1 | …{}…", "x".repeat(SHOWN)));
        assert_eq!(lines[4], format!("  |  {}{}", " ".repeat(BEFORE), "^".repeat(SHOWN - BEFORE)));
    }

    #[test]
    fn a_terminal_obeys_nothing_of_it() {
        let shown = excerpt("a = \"\x1b[2J\u{202e}\"\r\n", 4..14);
        assert!(!shown.contains(|character| character != '\n' && is_unsafe(character)), "{shown:?}");
    }

    #[test]
    fn many_problems_are_counted_and_the_first_error_is_kept() {
        let mut problems = Problems::default();
        for at in 0..MOST + 2 {
            problems.warn(at..at, "odd");
        }
        assert!(!problems.has_errors());
        problems.error(0..0, "wrong");
        assert!(problems.has_errors());
        problems.error(1..1, "wrong");
        problems.error(1..1, "wrong again");
        assert_eq!((problems.iter().count(), problems.omitted()), (MOST + 1, 4));
    }
}
