//! How a file differs from that of the image.

use super::super::fit::Run;
use super::super::terminal::{BOLD, CYAN, GREEN, Look, PLAIN, Pen, RED};
use crate::finding::Text;
use crate::ledger::diff::{Difference, Line, Tag};

/// The difference at this path, as `diff -u` shows it.
pub(crate) fn difference(path: &Text, difference: &Difference, look: Look) -> String {
    let mut pen = Pen::new(look.color);
    let mut row = |style, text: String| {
        pen.write(&Run::new(style, text));
        pen.end_row();
    };
    match difference {
        Difference::Nothing => row(PLAIN, format!("{path}: the container has what the image has.")),
        Difference::Facts { image, container, why } => {
            row(PLAIN, format!("{path}: the image has {image}, and the container has {container} ({why})."));
        }
        Difference::Lines(lines) => {
            row(BOLD, format!("--- {path} in the image"));
            row(BOLD, format!("+++ {path} in the container"));
            for Line { tag, text } in lines {
                match tag {
                    Tag::Image => row(RED, format!("-{text}")),
                    Tag::Container => row(GREEN, format!("+{text}")),
                    Tag::Both => row(PLAIN, format!(" {text}")),
                    Tag::Place => row(CYAN, text.clone()),
                }
            }
        }
    }
    pen.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_shown_with_their_marks_and_nothing_that_a_terminal_obeys() {
        let line = |tag, text: &str| Line { tag, text: text.to_owned() };
        let found = Difference::Lines(vec![
            line(Tag::Place, "@@ -1,2 +1,2 @@"),
            line(Tag::Both, "one"),
            line(Tag::Image, "two"),
            line(Tag::Container, "2\u{1b}[2J"),
        ]);
        let path = b"/etc/app"[..].into();
        let text = difference(&path, &found, Look { columns: None, ..Look::default() });
        let expected = [
            "--- /etc/app in the image",
            "+++ /etc/app in the container",
            "@@ -1,2 +1,2 @@",
            " one",
            "-two",
            "+2\\u{1b}[2J",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
        let facts =
            Difference::Facts { image: "nothing".to_owned(), container: "3 bytes".to_owned(), why: "it has a key" };
        let text = difference(&path, &facts, Look { columns: None, ..Look::default() });
        assert_eq!(text, "/etc/app: the image has nothing, and the container has 3 bytes (it has a key).\n");
    }
}
