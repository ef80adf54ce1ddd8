//! `cargo xtask readme`: checks that the sample outputs in README.md are what the detector prints.
//!
//! A sample is the indented or fenced block after a line `<!-- sample: NAME -->`. Its line breaks do not matter, `…` in
//! it matches any text, and numbers, ids and times can differ.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use detector_tests::protocol::Message;

use crate::vm::Vm;
use crate::{project, shell};

/// Options of `cargo xtask readme`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Kernel to boot
    #[arg(long, default_value = "6.12")]
    kernel: String,
    /// Print nothing; fail if a sample in README.md is not what the detector prints
    #[arg(long)]
    check: bool,
}

/// Runs a virtual machine that prints the samples, and prints them or compares them with the document.
pub fn run(args: &Args) -> Result<()> {
    let printed = printed(&args.kernel)?;
    if args.check {
        let file = project::root().join("README.md");
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        return compare(&samples_of(&text), &printed);
    }
    for (name, text) in printed {
        println!("<!-- sample: {name} -->\n{text}");
    }
    Ok(())
}

/// Stores the output of a command as a sample.
pub fn keep(name: &str, text: &str) -> Result<()> {
    fs::create_dir_all(kept())?;
    let file = kept().join(name);
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// The directory for the samples of commands that take long.
fn kept() -> PathBuf {
    project::target().join("samples")
}

/// The printed samples by name.
fn printed(kernel: &str) -> Result<BTreeMap<String, String>> {
    let mut printed = BTreeMap::new();
    let mut end = None;
    Vm::new(kernel).guest(&["samples"]).run(|line| match Message::parse(line) {
        Some(Message::Output { name, text }) => drop(printed.insert(name, text)),
        Some(Message::End { failure }) => end = Some(failure),
        _ => {}
    })?;
    match end {
        Some(None) => {}
        Some(Some(failure)) => bail!("the guest failed: {failure}"),
        None => bail!("the virtual machine stopped before the end; see its console above"),
    }
    if let Ok(folder) = fs::read_dir(kept()) {
        for entry in folder {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            printed.insert(name, fs::read_to_string(&path)?);
        }
    }
    Ok(printed)
}

/// Parses the names and texts of the samples in a document.
fn samples_of(document: &str) -> Vec<(String, String)> {
    let mut samples: Vec<(String, String)> = Vec::new();
    // The sample that is being read: whether its text has begun, and whether it is fenced.
    let (mut is_open, mut is_fenced) = (false, false);
    for line in document.lines() {
        if let Some(name) = line.trim().strip_prefix("<!-- sample: ").and_then(|rest| rest.strip_suffix(" -->")) {
            samples.push((name.to_owned(), String::new()));
            (is_open, is_fenced) = (true, false);
            continue;
        }
        let Some((_, text)) = samples.last_mut().filter(|_| is_open) else { continue };
        if line.starts_with("```") {
            (is_open, is_fenced) = (!is_fenced, !is_fenced);
        } else if is_fenced || line.starts_with("    ") {
            *text += line;
            *text += "\n";
        } else if !line.is_empty() {
            is_open = false;
        }
    }
    samples
}

/// Fails unless each sample matches the printed one.
fn compare(samples: &[(String, String)], printed: &BTreeMap<String, String>) -> Result<()> {
    ensure!(!samples.is_empty(), "README.md has no line <!-- sample: NAME -->");
    let mut wrong = Vec::new();
    for (name, text) in samples {
        match printed.get(name) {
            None if name == "bench" => {
                shell::step("the sample `bench` is NOT compared: `cargo xtask bench` has not been run here");
            }
            None => wrong.push(format!("the sample `{name}` is printed by nothing")),
            Some(printed) if fits(text, printed) => {}
            Some(printed) => wrong.push(format!("the sample `{name}` is\n{text}but this is printed:\n{printed}")),
        }
    }
    ensure!(wrong.is_empty(), "README.md shows what the detector does not print:\n{}", wrong.join("\n"));
    Ok(())
}

/// Whether a sample matches the printed text, where `…` matches any text.
fn fits(sample: &str, printed: &str) -> bool {
    let (printed, sample) = (normalized(printed), normalized(sample));
    let mut parts = sample.split('…');
    let Some(mut rest) = parts.next().and_then(|first| printed.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Removes white space, and replaces all numbers and ids by the same character.
fn normalized(text: &str) -> String {
    let mut normalized = String::new();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        if !character.is_ascii_alphanumeric() {
            rest = &rest[character.len_utf8()..];
            let is_sign = matches!(character, '+' | '-') && rest.starts_with(|next: char| next.is_ascii_digit());
            if !character.is_whitespace() && !is_sign {
                normalized.push(character);
            }
            continue;
        }
        let end = rest.find(|character: char| !character.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        rest = behind;
        let has_digit = word.contains(|character: char| character.is_ascii_digit());
        if has_digit && word.len() >= 8 && word.chars().all(|character| character.is_ascii_hexdigit()) {
            normalized.push('#');
            continue;
        }
        let mut was_digit = false;
        for character in word.chars() {
            let is_digit = character.is_ascii_digit();
            if !is_digit {
                normalized.push(character);
            } else if !was_digit {
                normalized.push('0');
            }
            was_digit = is_digit;
        }
    }
    normalized
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str =
        "23:35:21.875  high  3c6ef372fe94  sh started in container 3c6ef372fe94 · pid 180 uid 0 < runc\n";

    #[test]
    fn numbers_and_white_space_may_differ_and_nothing_else() {
        assert!(fits(
            "23:35:22.1 high  aaaaaaaaaaa1 sh started\n   in container aaaaaaaaaaa1 · pid 7 uid 0 < runc",
            LINE
        ));
        assert!(!fits("23:35:22.1 high  aaaaaaaaaaa1 sh begun in container aaaaaaaaaaa1 · pid 7 uid 0 < runc", LINE));
        assert!(!fits("23:35:22.1 high", LINE));
        assert!(fits("getppid 329 +0 1.000×", "getppid    330    -1   0.999×"));
    }

    #[test]
    fn what_is_left_out_may_be_anything() {
        assert!(fits("23:35:22.1 high … · pid 7 uid 0 < …", LINE));
        assert!(fits("…", LINE));
        assert!(!fits("23:35:22.1 high … · ppid 7 …", LINE));
        assert!(!fits("… low …", LINE));
    }

    #[test]
    fn samples_are_the_blocks_behind_their_names() {
        let document = "a\n\n<!-- sample: tail -->\n\n    one\n\n    two\n\ntext\n\n    no sample\n\n\
                        <!-- sample: finding -->\n```json\n{\n}\n```\n    no sample\n";
        let samples = samples_of(document);
        let samples: Vec<_> = samples.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        assert_eq!(samples, [("tail", "    one\n    two\n"), ("finding", "{\n}\n")]);
    }

    #[test]
    fn samples_that_nothing_prints_are_an_error() {
        let samples = [("tail".to_owned(), LINE.to_owned())];
        assert!(compare(&samples, &BTreeMap::new()).is_err());
        assert!(compare(&samples, &[("tail".to_owned(), LINE.to_owned())].into()).is_ok());
        assert!(compare(&[], &BTreeMap::new()).is_err());
    }
}
