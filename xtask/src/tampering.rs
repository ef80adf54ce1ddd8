//! The part of `cargo xtask coverage` that writes docs/tampering.md: what is done to the sensor, and when it notices.

use std::collections::{BTreeMap, BTreeSet};

use detector_tests::coverage::TAMPERING;
use detector_tests::protocol::Noticed;

use crate::coverage::{row, version};

/// The sections of the document, by kernel.
pub(crate) type Sections = BTreeMap<String, String>;

/// The section about a kernel, or `None` if not everything was done to the sensor there.
pub(crate) fn section(release: &str, date: &str, noticed: &BTreeMap<String, Noticed>) -> Option<String> {
    let time = |seconds: Option<f32>| seconds.map_or_else(String::new, |seconds| format!("{seconds:.1} s"));
    let rows = TAMPERING.iter().map(|act| {
        let Noticed { lines, after, who, undone } = noticed.get(*act)?;
        let who = who.as_ref().map_or_else(String::new, |exe| format!("`{exe}`"));
        Some(row(&[act.to_string(), lines.clone(), time(*after), who, time(*undone)]))
    });
    let rows = rows.collect::<Option<String>>()?;
    Some(format!("{release}, tested on {date}.\n\n{HEAD}{rows}"))
}

const HEAD: &str = "\
| what is done | what is said | after | who did it | undone after |
| --- | --- | --- | --- | --- |
";

/// Formats the document.
pub(crate) fn document(sections: &Sections) -> String {
    let mut sections: Vec<_> = sections.iter().collect();
    sections.sort_by_key(|(kernel, _)| version(kernel));
    let sections = sections.into_iter().map(|(kernel, text)| format!("\n{KERNEL}{kernel}\n\n{}\n", text.trim_end()));
    INTRODUCTION.to_owned() + &sections.collect::<String>()
}

/// Parses a document.
pub(crate) fn parse(text: &str) -> Sections {
    let start = format!("\n{KERNEL}");
    let parts = text.split(&start).skip(1);
    parts.filter_map(|part| part.split_once("\n\n")).map(|(kernel, text)| (kernel.into(), text.into())).collect()
}

/// The lines in which a document says something else than another one. The times and the release differ with each
/// test, and say nothing.
pub(crate) fn difference(one: &Sections, other: &Sections) -> Vec<String> {
    let lines = |sections: &Sections| -> BTreeSet<String> {
        let rows = sections.iter().flat_map(|(kernel, text)| {
            let rows = text.lines().filter(|line| line.starts_with('|'));
            rows.map(move |row| format!("{kernel}: {}", without_times(row)))
        });
        rows.collect()
    };
    lines(one).symmetric_difference(&lines(other)).cloned().collect()
}

fn without_times(row: &str) -> String {
    let is_time = |cell: &str| cell.strip_suffix(" s").is_some_and(|number| number.parse::<f32>().is_ok());
    let cells = row.split('|').map(|cell| if is_time(cell.trim()) { " some time " } else { cell });
    cells.collect::<Vec<_>>().join("|")
}

const KERNEL: &str = "## Linux ";

/// The beginning of the document.
const INTRODUCTION: &str = "\
# What is done to the detector, and what it says

Everything that this project does to its own sensor, with all privileges, on each kernel. `cargo xtask coverage` writes
this from what `cargo xtask test` has measured; do not edit it.

- **what is said**: the finding and the notices that come of it, in their order.
- **after**: the time from the act to the first of them, in a virtual machine that is often emulated and under load. A
  detector that was stopped or killed cannot notice anything before it, or the next one, runs.
- **who did it**: the executable that the finding names. `/init` and `/bin/busybox` are processes of the host,
  `/usr/bin/tool` is one of a container.
- **undone after**: the time until the sensor had undone it. What has no time here stays as it is.

What only a self-test can notice is measured with a self-test every second (`--self-test-interval 1s`), and takes up to
two of them. By default there is one every five minutes, and a second one 30 seconds after one that fails.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn noticed(after: f32, undone: Option<f32>) -> BTreeMap<String, Noticed> {
        let one = Noticed { lines: "`healed`".into(), after: Some(after), who: Some("/init".into()), undone };
        TAMPERING.iter().map(|act| (act.to_string(), one.clone())).collect()
    }

    #[test]
    fn a_document_is_read_back_and_differs_only_in_what_it_says() {
        let of = |after, undone| -> Sections {
            let section = section("6.12.94", "2026-11-26", &noticed(after, undone)).expect("everything was done");
            [("6.12".to_owned(), section)].into()
        };
        let (one, later, stays) = (of(0.1, Some(1.0)), of(7.3, Some(2.0)), of(0.1, None));
        let text = document(&one);
        assert!(text.contains(&format!("| {} | `healed` | 0.1 s | `/init` | 1.0 s |\n", TAMPERING[0])));
        assert_eq!(document(&parse(&text)), text);
        assert_eq!(difference(&parse(&text), &one), Vec::<String>::new());
        assert_eq!(difference(&one, &later), Vec::<String>::new());
        assert_eq!(difference(&one, &stays).len(), 2 * TAMPERING.len());
    }

    #[test]
    fn a_part_of_what_is_done_makes_no_section() {
        let mut part = noticed(0.1, None);
        part.remove(TAMPERING[0]);
        assert_eq!(section("6.12.94", "2026-11-26", &part), None);
    }
}
