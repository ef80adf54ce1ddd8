//! `cargo xtask coverage`: writes docs/coverage.md and docs/tampering.md from the results of the tests on real kernels.
//!
//! The tests store their results in `target/coverage`, one file for each kernel. The documents keep their text about
//! kernels that were not tested since.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use detector_tests::coverage::{OPEN, WAYS};
use detector_tests::protocol::{Noticed, Outcome};
use serde::{Deserialize, Serialize};

use crate::{project, shell, tampering};

/// The results of the tests on a kernel.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// The release of the kernel.
    release: String,
    /// The date of the last test.
    date: String,
    /// The cases that this kind of machine runs.
    wanted: BTreeSet<String>,
    /// The last result of each case.
    cases: BTreeMap<String, Outcome>,
    /// What came of what was last done to the sensor.
    #[serde(default)]
    noticed: BTreeMap<String, Noticed>,
}

impl Run {
    /// The results of today.
    pub fn new(
        release: String,
        wanted: BTreeSet<String>,
        cases: BTreeMap<String, Outcome>,
        noticed: BTreeMap<String, Noticed>,
    ) -> Self {
        Self { release, date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(), wanted, cases, noticed }
    }

    /// Stores these results under the name of a kernel, together with the earlier results of other cases.
    ///
    /// # Errors
    ///
    /// The directory cannot be written.
    pub fn save(mut self, kernel: &str) -> Result<()> {
        let file = runs().join(format!("{kernel}.json"));
        // A file that cannot be parsed was written by another version of the tests, and counts as missing.
        if let Some(before) = fs::read(&file).ok().and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok()) {
            self.cases = before.cases.into_iter().chain(self.cases).collect();
            self.noticed = before.noticed.into_iter().chain(self.noticed).collect();
        }
        fs::create_dir_all(runs())?;
        fs::write(&file, serde_json::to_vec(&self)?).with_context(|| format!("cannot write {}", file.display()))
    }

    /// The column of the document, or `None` if a case that the machine runs has no result.
    fn column(&self) -> Option<Column> {
        let ways = WAYS.iter().flat_map(|(_, ways)| *ways);
        let ways = ways.map(|way| (way.way, self.wanted_of(way.cases))).filter(|(_, cases)| !cases.is_empty());
        let cells = ways.map(|(way, cases)| Some((way.to_owned(), self.cell(&cases)?))).collect::<Option<_>>()?;
        Some(Column { release: self.release.clone(), date: self.date.clone(), cells })
    }

    /// The results of those cases that the machine runs.
    fn wanted_of<'a>(&self, cases: &[&'a str]) -> Vec<&'a str> {
        cases.iter().copied().filter(|case| self.wanted.contains(*case)).collect()
    }

    fn cell(&self, cases: &[&str]) -> Option<Cell> {
        let outcomes = cases.iter().map(|case| self.cases.get(*case)).collect::<Option<Vec<_>>>()?;
        let reasons = outcomes.iter().filter_map(|outcome| match outcome {
            Outcome::NotApplicable(reason) => Some(reason.clone()),
            _ => None,
        });
        let is_missed = outcomes.iter().any(|outcome| matches!(outcome, Outcome::Failed(_)));
        let word = match outcomes.contains(&&Outcome::Passed) {
            _ if is_missed => "NOT SEEN",
            true => "seen",
            false => "n/a",
        };
        Some(Cell { word: word.to_owned(), reasons: reasons.collect() })
    }
}

/// A column of the document.
#[derive(Clone, Debug, Default)]
struct Column {
    release: String,
    date: String,
    /// The results by attack.
    cells: BTreeMap<String, Cell>,
}

/// The result of an attack on a kernel.
#[derive(Clone, Debug, Default)]
struct Cell {
    /// `seen`, `n/a` or `NOT SEEN`. Empty if the attack was not tested.
    word: String,
    /// Why the attack, or one of its forms, does not apply.
    reasons: BTreeSet<String>,
}

/// Writes the documents. With `check`, only compares them.
///
/// # Errors
///
/// No kernel was tested, or the document cannot be written. With `check`: the document differs from the results, or an
/// attack has no case.
pub fn run(check: bool) -> Result<()> {
    let [file, tampering_file] = ["docs/coverage.md", "docs/tampering.md"].map(|path| project::root().join(path));
    let read = |file: &Path| if file.exists() { fs::read_to_string(file) } else { Ok(String::new()) };
    let (text, said_of_tampering) = (read(&file)?, tampering::parse(&read(&tampering_file)?));
    let mut columns = parse(&text);
    let mut sections = said_of_tampering.clone();
    let mut tested = Vec::new();
    let runs = fs::read_dir(runs()).context("no kernel was tested: run `cargo xtask test`")?;
    for run in runs {
        let path = run?.path();
        let run: Run = serde_json::from_slice(&fs::read(&path)?).with_context(|| damaged(&path))?;
        let kernel = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let section = tampering::section(&run.release, &run.date, &run.noticed);
        if let Some(section) = section.filter(|_| !check || sections.contains_key(&kernel)) {
            sections.insert(kernel.clone(), section);
        }
        let Some(mut column) = run.column() else {
            shell::step(format!("Linux {kernel}: left out, for not all cases were run"));
            continue;
        };
        if column.cells.is_empty() {
            // This kind of machine runs no attacks.
            continue;
        }
        if check {
            let Some(said) = columns.get(&kernel) else {
                shell::step(format!("Linux {kernel}: the document says nothing of it"));
                continue;
            };
            (column.release, column.date) = (said.release.clone(), said.date.clone());
        }
        columns.insert(kernel.clone(), column);
        tested.push(kernel);
    }
    if !check {
        fs::create_dir_all(project::root().join("docs"))?;
        fs::write(&tampering_file, tampering::document(&sections)).context("cannot write docs/tampering.md")?;
    }
    ensure!(!tested.is_empty(), "no kernel was tested with all cases: run `cargo xtask test`");
    let made = document(&columns);
    if !check {
        return fs::write(&file, made).with_context(|| format!("cannot write {}", file.display()));
    }
    let ways = WAYS.iter().flat_map(|(_, ways)| *ways);
    let idle: Vec<_> = ways.filter(|way| way.cases.is_empty()).map(|way| way.way).collect();
    ensure!(idle.is_empty(), "no case tests these attacks: {}", idle.join("; "));
    let (made, said): (BTreeSet<_>, BTreeSet<_>) = (made.lines().collect(), text.lines().collect());
    let difference: Vec<_> = made.symmetric_difference(&said).copied().collect();
    ensure!(
        difference.is_empty(),
        "docs/coverage.md does not say what the tests have shown on {}: `cargo xtask coverage` writes it. Lines that \
         differ:\n{}",
        tested.join(", "),
        difference.join("\n")
    );
    let difference = tampering::difference(&sections, &said_of_tampering);
    ensure!(
        difference.is_empty(),
        "docs/tampering.md does not say what the tests have shown: `cargo xtask coverage` writes it. Rows that \
         differ:\n{}",
        difference.join("\n")
    );
    Ok(())
}

fn runs() -> PathBuf {
    project::target().join("coverage")
}

fn damaged(file: &Path) -> String {
    format!("{} is not what the tests wrote: delete it", file.display())
}

/// Formats the document.
fn document(columns: &BTreeMap<String, Column>) -> String {
    let mut columns: Vec<_> = columns.iter().collect();
    columns.sort_by_key(|(kernel, _)| version(kernel));
    let mut text = INTRODUCTION.to_owned();
    for (kernel, Column { release, date, .. }) in &columns {
        text += &row(&[kernel, release, date]);
    }
    let mut notes = Vec::new();
    for (subject, ways) in WAYS {
        text += &format!("\n## {subject}\n\n");
        let is_tested = |(_, column): &&(&String, &Column)| ways.iter().any(|way| column.cells.contains_key(way.way));
        let columns: Vec<_> = columns.iter().filter(is_tested).collect();
        let names: Vec<&str> =
            ["way", "hooks"].into_iter().chain(columns.iter().map(|(name, _)| name.as_str())).collect();
        text += &(row(&names) + &row(&vec!["---"; names.len()]));
        for way in *ways {
            let cells = columns.iter().map(|(_, column)| cell_text(column.cells.get(way.way), &mut notes));
            let cells: Vec<_> = [way.way.to_owned(), way.hooks.join(", ")].into_iter().chain(cells).collect();
            text += &row(&cells);
        }
    }
    text += "\n## What cannot be closed\n\n";
    text.extend(OPEN.iter().map(|open| format!("- {open}\n")));
    text.extend(notes.iter().enumerate().map(|(at, note)| format!("\n[^{}]: {note}\n", at + 1)));
    text
}

/// Formats a row of a table.
pub(crate) fn row<S: AsRef<str>>(cells: &[S]) -> String {
    cells.iter().fold("|".to_owned(), |row, cell| row + " " + cell.as_ref() + " |") + "\n"
}

/// Formats a cell, with the numbers of its notes.
fn cell_text<'a>(cell: Option<&'a Cell>, notes: &mut Vec<&'a str>) -> String {
    let Some(Cell { word, reasons }) = cell else { return String::new() };
    reasons.iter().fold(word.clone(), |text, reason| {
        let at = notes.iter().position(|note| note == reason).unwrap_or(notes.len());
        if at == notes.len() {
            notes.push(reason);
        }
        format!("{text}[^{}]", at + 1)
    })
}

/// The sort key of a kernel: its version numbers, then the kind of machine.
pub(crate) fn version(kernel: &str) -> (Vec<u32>, &str) {
    let (series, suffix) = kernel.split_at(kernel.find('-').unwrap_or(kernel.len()));
    (series.split('.').filter_map(|number| number.parse().ok()).collect(), suffix)
}

/// Parses a document.
fn parse(text: &str) -> BTreeMap<String, Column> {
    let notes: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.strip_prefix("[^")?.split_once("]: ")).collect();
    let mut columns = BTreeMap::<String, Column>::new();
    let mut names = Vec::new();
    for line in text.lines() {
        let Some(cells) = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")) else { continue };
        let cells: Vec<_> = cells.split('|').map(str::trim).collect();
        match cells[..] {
            ["way", _, ..] => names = cells[2..].to_vec(),
            ["---" | "kernel", ..] => {}
            [kernel, release, date] if names.is_empty() => {
                let column = Column { release: release.to_owned(), date: date.to_owned(), ..Column::default() };
                columns.insert(kernel.to_owned(), column);
            }
            _ => {
                for (name, cell) in names.iter().zip(cells.iter().skip(2)).filter(|(_, cell)| !cell.is_empty()) {
                    let mut parts = cell.split("[^").map(|part| part.trim_end_matches(']'));
                    let word = parts.next().unwrap_or_default().to_owned();
                    let reasons = parts.filter_map(|number| notes.get(number)).map(|&note| note.to_owned()).collect();
                    let column = columns.entry((*name).to_owned()).or_default();
                    column.cells.insert(cells[0].to_owned(), Cell { word, reasons });
                }
            }
        }
    }
    columns
}

/// The beginning of the document.
const INTRODUCTION: &str = "\
# What is seen

Every way to change an image, to start a program and to hide that this project knows, attacked for real in real
containers on each kernel. `cargo xtask coverage` writes this from what `cargo xtask test` has shown; do not edit it.

- **seen**: the findings that are due came, and no other.
- **n/a**: the kernel lacks what is attacked with; the note says what.
- **NOT SEEN**: something of it was missed.
- Nothing: such a machine does not try it, because nothing that it has of its own can change what comes of it. The
  kernel's ordinary machine does. The table of cases says for each group what it depends on.

The hooks are those that `detector doctor` lists; the first one of a row is the one that matters. The tables of cases
are in `tests/src/cases/`, the rows in `tests/src/coverage.rs`. A kernel with `-preempt` runs with `preempt=full` and
without BPF among its LSMs, one with `-cgroup1` has cgroups of version 1 alone, one with `-hybrid` those of both
versions, one with `-node` container engines and interpreters from Debian, one with `-software` busy servers, too. The
last one is tested only by hand: see its date.

| kernel | release | tested |
| --- | --- | --- |
";

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(change: impl Fn(&str) -> Option<Outcome>) -> Run {
        let all: BTreeSet<_> = WAYS.iter().flat_map(|(_, ways)| *ways).flat_map(|way| way.cases).copied().collect();
        let cases = all.iter().filter_map(|case| Some(((*case).to_owned(), change(case)?))).collect();
        Run::new("6.12.94".to_owned(), all.into_iter().map(str::to_owned).collect(), cases, BTreeMap::new())
    }

    #[test]
    fn a_document_says_what_was_shown() {
        let (way, case) = (WAYS[0].1[0].way, WAYS[0].1[0].cases[0]);
        let all = outcomes(|_| Some(Outcome::Passed)).column().expect("all cases were run");
        let none = outcomes(|_| Some(Outcome::NotApplicable("no disk".to_owned()))).column().expect("all were run");
        let fails =
            |name: &str| if name == case { Outcome::Failed("no | finding".to_owned()) } else { Outcome::Passed };
        let one = outcomes(|name| Some(fails(name))).column().expect("all were run");
        let text =
            document(&[("6.1", all), ("6.12-preempt", one), ("5.10", none)].map(|(k, c)| (k.to_owned(), c)).into());
        assert!(text.contains(&format!("| {way} | {} | n/a[^1] | seen | NOT SEEN |\n", WAYS[0].1[0].hooks.join(", "))));
        assert!(text.ends_with("[^1]: no disk\n"));
        assert_eq!(document(&parse(&text)), text);
    }

    #[test]
    fn a_machine_that_runs_a_part_of_the_cases_has_cells_for_these() {
        let (way, other) = (&WAYS[0].1[0], &WAYS[0].1[1]);
        let cases = BTreeMap::from([(way.cases[0].to_owned(), Outcome::Passed)]);
        let run = Run::new("6.12.94".to_owned(), [way.cases[0].to_owned()].into(), cases, BTreeMap::new());
        let column = run.column().expect("all its cases were run");
        assert_eq!(column.cells[way.way].word, "seen");
        assert!(!column.cells.contains_key(other.way));
        let text = document(&[("6.12-preempt".to_owned(), column)].into());
        assert_eq!(document(&parse(&text)), text);
    }

    #[test]
    fn a_run_of_a_part_of_the_cases_says_nothing() {
        let case = WAYS[0].1[0].cases[0];
        assert!(outcomes(|name| (name != case).then_some(Outcome::Passed)).column().is_none());
    }
}
