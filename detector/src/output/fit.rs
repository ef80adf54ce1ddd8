//! Makes text fit into a column: how wide it is, what is left out in its middle, and where a row ends.
//!
//! All of this measures text as it is shown once it is escaped, and divides no escape: what is left of a text is
//! escaped only when it is written.

use std::borrow::Cow;

use clap::builder::styling::Style;
use unicode_width::UnicodeWidthChar as _;

use super::escape;
use super::terminal::safe;

/// What is written where something was left out.
const DOTS: &str = "…";
/// How long a word that is no path must be to be shortened even in a narrower column: a digest is not.
const LONG_WORD: usize = 64;

/// Text in one style.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) style: Style,
    pub(super) text: String,
}

impl Run {
    pub(super) fn new(style: Style, text: impl Into<String>) -> Self {
        Self { style, text: text.into() }
    }
}

/// A row of text, and how many columns it takes.
#[derive(Debug, Default)]
pub(super) struct Row {
    pub(super) runs: Vec<Run>,
    pub(super) width: usize,
}

impl Row {
    /// Adds a word, with a space before it unless it is the first one.
    fn push(&mut self, style: Style, word: &str, word_width: usize) {
        let space = if self.runs.is_empty() { "" } else { " " };
        self.width += space.len() + word_width;
        match self.runs.last_mut() {
            Some(last) if last.style == style => {
                last.text.push_str(space);
                last.text.push_str(word);
            }
            _ => self.runs.push(Run::new(style, format!("{space}{word}"))),
        }
    }

    /// How many columns the row takes if a word of this width is added.
    fn width_with(&self, word_width: usize) -> usize {
        self.width + usize::from(!self.runs.is_empty()) + word_width
    }
}

/// How many columns a text takes.
pub(super) fn width(text: &str) -> usize {
    let shown = if text.contains(escape::is_unsafe) { Cow::Owned(safe(text)) } else { Cow::Borrowed(text) };
    shown.chars().map(|character| character.width().unwrap_or(0)).sum()
}

/// Splits a text into the parts that must stay whole: a character with those that are drawn onto it, or what a
/// backslash begins.
fn units(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let end = if first == '\\' { escape_length(rest) } else { first.len_utf8() };
        let is_drawn_onto = |character: char| !escape::is_unsafe(character) && character.width() == Some(0);
        let end = end + rest[end..].find(|character| !is_drawn_onto(character)).unwrap_or(rest.len() - end);
        let (unit, behind) = rest.split_at(end);
        rest = behind;
        Some(unit)
    })
}

/// The length of the escape at the beginning of a text, in bytes: `\\`, `\xNN`, `\u{N}`, or a quoted character.
fn escape_length(text: &str) -> usize {
    let wanted = match text[1..].chars().next() {
        None => 1,
        Some('x') => 4,
        Some('u') if text[2..].starts_with('{') => text.find('}').map_or(2, |at| at + 1),
        Some(character) => 1 + character.len_utf8(),
    };
    if text.is_char_boundary(wanted) { wanted } else { 2 }
}

/// Leaves out the middle of a text that takes more than so many columns.
pub(super) fn shorten(text: &str, most: usize) -> Cow<'_, str> {
    if width(text) <= most {
        return Cow::Borrowed(text);
    }
    let units: Vec<_> = units(text).collect();
    let left = most.saturating_sub(width(DOTS));
    let head = beginning(units.iter().copied(), left.div_ceil(2));
    let tail = beginning(units.iter().rev().copied(), left / 2);
    let [head, tail] = [&units[..head], &units[units.len() - tail..]].map(<[_]>::concat);
    Cow::Owned([&head, DOTS, &tail].concat())
}

/// How many units fit into so many columns.
fn beginning<'a>(units: impl Iterator<Item = &'a str>, most: usize) -> usize {
    let mut left = most;
    let fits = |unit: &&str| {
        let rest = left.checked_sub(width(unit));
        left = rest.unwrap_or(left);
        rest.is_some()
    };
    units.take_while(fits).count()
}

/// Breaks text into rows of at most so many columns, between words. A single space stands between two runs. A path that
/// is longer than `path` is shortened, and so is a very long word. Any other word that is too long for a row is broken.
pub(super) fn wrap<'a>(runs: impl IntoIterator<Item = &'a Run>, columns: usize, path: usize) -> Vec<Row> {
    let mut rows = vec![Row::default()];
    for run in runs {
        for word in run.text.split(' ') {
            let most = if word.contains('/') { path } else { columns.max(LONG_WORD) };
            put(&mut rows, run.style, &shorten(word, most), columns);
        }
    }
    rows
}

/// Puts a word at the end of the last row or, if it does not fit there, into new ones.
fn put(rows: &mut Vec<Row>, style: Style, word: &str, columns: usize) {
    let word_width = width(word);
    let last = rows.last_mut().expect("there is always a row");
    if last.width_with(word_width) <= columns {
        return last.push(style, word, word_width);
    }
    if last.runs.is_empty() {
        rows.pop();
    }
    let mut rest: Vec<_> = units(word).collect();
    while !rest.is_empty() {
        // A unit that is wider than a row has one of its own.
        let count = beginning(rest.iter().copied(), columns).max(1);
        let part: String = rest.drain(..count).collect();
        let mut row = Row::default();
        row.push(style, &part, width(&part));
        rows.push(row);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::escape::tests::HOSTILE;
    use super::*;
    use crate::finding::Text;

    fn wrapped(text: &str, columns: usize) -> Vec<String> {
        let rows = wrap([&Run::new(Style::new(), text)], columns, columns);
        rows.iter().map(|row| row.runs.iter().map(|run| safe(&run.text)).collect()).collect()
    }

    #[test]
    fn rows_end_between_words() {
        assert_eq!(wrapped("sh started in a container", 12), ["sh started", "in a", "container"]);
        assert_eq!(wrapped("twelve wide, as a row is", 12), ["twelve wide,", "as a row is"]);
        assert_eq!(wrapped("two  spaces", 20), ["two  spaces"]);
        assert_eq!(wrapped("", 12), [""]);
    }

    #[test]
    fn a_long_path_is_shortened_and_a_digest_is_broken() {
        assert_eq!(wrapped("/usr/lib/python3.12/evil.py is here", 16), ["/usr/lib…evil.py", "is here"]);
        assert_eq!(wrapped("x 0123456789abcdef", 12), ["x", "0123456789ab", "cdef"]);
        let short = [&"x".repeat(LONG_WORD / 2), DOTS, &"x".repeat(LONG_WORD / 2 - 1)].concat();
        assert_eq!(wrapped(&"x".repeat(LONG_WORD + 1), LONG_WORD), [short]);
    }

    #[test]
    fn wide_characters_take_two_columns() {
        assert_eq!(width("日本"), 4);
        assert_eq!(wrapped("日本 日本", 5), ["日本", "日本"]);
        assert_eq!(shorten("日本日本", 6), "日…本");
        // What is drawn onto a character goes with it.
        assert_eq!(shorten("e\u{301}e\u{301}e\u{301}e\u{301}", 3), "e\u{301}…e\u{301}");
        assert_eq!((width("\u{202e}"), width("\n")), (8, 2));
    }

    #[test]
    fn no_escape_is_divided() {
        assert_eq!(
            units(r"a\\x\xff\u{1b}\'b\").collect::<Vec<_>>(),
            ["a", r"\\", "x", r"\xff", r"\u{1b}", r"\'", "b", r"\"]
        );
        assert_eq!(units(r"\x日\u").collect::<Vec<_>>(), [r"\x", "日", r"\u"]);
        let text = Text::from(&b"\xff\xff\xff\xff"[..]);
        assert_eq!(shorten(text.as_str(), 12), r"\xff…\xff");
        assert_eq!(safe(&shorten("\u{1b}\u{1b}\u{1b}", 15)), r"\u{1b}…\u{1b}");
    }

    proptest! {
        /// What is left of a text is its beginning and its end, divided only between units, and fits.
        #[test]
        fn only_the_middle_is_left_out(
            bytes in prop::collection::vec(any::<u8>(), 0..80),
            hostile in prop::sample::select(HOSTILE),
            most in 1..60_usize,
        ) {
            let text = Text::from(&[&bytes, hostile].concat()[..]);
            let text = text.as_str();
            let short = shorten(text, most);
            prop_assert!(width(&short) <= most);
            prop_assert_eq!(units(text).collect::<String>(), text);
            if short != text {
                let mut ends = vec![0];
                units(text).for_each(|unit| ends.push(ends[ends.len() - 1] + unit.len()));
                let is_part = |(at, dots): (usize, &str)| {
                    let behind = short.len() - at - dots.len();
                    let tail = text.len().wrapping_sub(behind);
                    text.starts_with(&short[..at]) && ends.contains(&at)
                        && text.ends_with(&short[at + dots.len()..]) && ends.contains(&tail)
                };
                prop_assert!(short.match_indices(DOTS).any(is_part), "{} of {}", short, text);
            }
        }

        #[test]
        fn no_row_is_too_wide_and_nothing_is_lost(text in "[a-z日\u{301}\u{1b} ]{0,80}", columns in 24..60_usize) {
            let rows = wrap([&Run::new(Style::new(), &*text)], columns, columns);
            let mut whole = String::new();
            for row in &rows {
                let shown: String = row.runs.iter().map(|run| &*run.text).collect();
                prop_assert_eq!(width(&shown), row.width);
                prop_assert!(row.width <= columns);
                whole += &shown;
            }
            if !whole.contains(DOTS) {
                prop_assert_eq!(whole.replace(' ', ""), text.replace(' ', ""));
            }
        }
    }
}
