//! `cargo xtask style`: checks what rustfmt does not.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::{project, shell};

/// The maximum length of a line of code, comments or documents, in characters.
const WIDTH: usize = 120;

/// Files that are written by programs.
const GENERATED: &[&str] = &["docs/coverage.md"];

/// Fails if a line is too long. Table rows in documents can be longer.
///
/// # Errors
///
/// A line is too long, or git cannot list the files.
pub fn run() -> Result<()> {
    let mut list = Command::new("git");
    list.current_dir(project::root()).args(["ls-files", "*.rs", "*.md"]);
    let mut long = Vec::new();
    for file in shell::text(&mut list)?.lines().filter(|file| !GENERATED.contains(file)) {
        // A listed file that does not exist was removed, and the removal is not committed yet.
        let Ok(text) = fs::read_to_string(project::root().join(file)) else { continue };
        long.extend(too_long(&text, file.ends_with(".rs")).map(|number| format!("{file}:{number}")));
    }
    ensure!(long.is_empty(), "these lines have more than {WIDTH} characters:\n{}", long.join("\n"));
    Ok(())
}

/// The numbers of the lines that are too long. Of code, only comments count.
fn too_long(text: &str, is_code: bool) -> impl Iterator<Item = usize> {
    let is_prose = move |line: &str| {
        let comment = line.trim_start().strip_prefix("//").map(|comment| comment.trim_start_matches(['/', '!', ' ']));
        let prose = if is_code { comment } else { Some(line) };
        prose.is_some_and(|prose| !prose.starts_with('|'))
    };
    let lines = text.lines().enumerate();
    lines.filter(move |(_, line)| line.chars().count() > WIDTH && is_prose(line)).map(|(at, _)| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_found_and_tables_are_not() {
        let (fits, long) = ("é".repeat(WIDTH), "x".repeat(WIDTH + 1));
        let text = format!("{fits}\n{long}\n| {long} |\n");
        assert_eq!(too_long(&text, false).collect::<Vec<_>>(), [2]);
        let code = format!("{long}\n/// {long}\n    // {long}\n//! | {long} |\n");
        assert_eq!(too_long(&code, true).collect::<Vec<_>>(), [2, 3]);
    }
}
