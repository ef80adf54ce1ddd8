//! What the ledger says about containers: a table of them, one of them in full, JSON, or a page of HTML.

mod details;
mod difference;
mod html;
mod json;
mod replicas;
mod table;

pub(crate) use details::details;
pub(crate) use difference::difference;
pub(crate) use html::{page, page_of_replicas};
pub(crate) use json::object;
pub(crate) use replicas::{group, replicas};
pub(super) use table::differences;
pub(crate) use table::table;

use clap::builder::styling::Style;

use super::fit::{self, Row, Run};
use super::terminal::{DIM, Look, PLAIN, Pen, RED, YELLOW};
use crate::finding::{Container, Time};
use crate::ledger::page::{Page, Verdict};

/// The narrowest width for which something is laid out.
const NARROWEST: usize = 40;
/// The spaces between two columns.
const GAP: usize = 2;

/// A cell: how wide it is, and what is in it.
type Cell = (usize, Vec<Run>);

/// Writes cells beside each other, each wrapped below itself.
fn write_row(pen: &mut Pen, cells: &[Cell]) {
    let wrapped: Vec<(usize, Vec<Row>)> =
        cells.iter().map(|(width, runs)| (*width, fit::wrap(runs, *width, *width))).collect();
    let tallest = wrapped.iter().map(|(_, rows)| rows.len()).max().unwrap_or_default();
    for number in 0..tallest {
        let mut missing = 0;
        for (width, rows) in &wrapped {
            let row = rows.get(number).filter(|row| row.width > 0);
            if let Some(row) = row {
                pen.write(&Run::new(PLAIN, " ".repeat(missing)));
                row.runs.iter().for_each(|run| pen.write(run));
                missing = 0;
            }
            missing += width - row.map_or(0, |row| row.width).min(*width) + GAP;
        }
        pen.end_row();
    }
}

fn width(look: Look) -> usize {
    look.columns.map_or(usize::MAX / 4, |columns| columns.max(NARROWEST))
}

/// A moment, to the second.
fn moment(time: Time) -> String {
    format!("{:.0}", time.0)
}

/// A number with the word for one or for more.
fn counted(count: u64, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}

pub(super) fn verdict_style(verdict: Verdict) -> Style {
    match verdict {
        Verdict::Drifted => RED,
        Verdict::Unwatched => YELLOW,
        Verdict::Restored | Verdict::Expected | Verdict::Image => PLAIN,
    }
}

fn image(page: &Page) -> Option<String> {
    image_of(&page.container)
}

/// The name of a container's image, or what stands for it.
pub(super) fn image_of(container: &Container) -> Option<String> {
    let image = container.image.as_ref()?;
    image.name.as_ref().or(image.digest.as_ref()).or(image.id.as_ref()).map(ToString::to_string)
}

/// A note that is not what matters most.
fn note(text: impl Into<String>) -> Run {
    Run::new(DIM, text)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;
    use sha2::Digest as _;

    use super::super::escape;
    use super::super::escape::tests::HOSTILE;
    use super::*;
    use crate::finding::Text;
    use crate::ledger::account::Account;
    use crate::ledger::replicas::{Difference, Group, groups};
    use crate::ledger::tests::{sample, sample_replicas};

    fn look(columns: usize) -> Look {
        Look { columns: Some(columns), ..Look::default() }
    }

    /// All that is shown about these containers.
    fn shown(accounts: &[Account], columns: usize) -> [String; 3] {
        let groups = groups(accounts, Time(jiff::Timestamp::MAX));
        let details: Vec<_> = accounts.iter().map(|account| details(account, None, true, look(columns))).collect();
        [table(accounts, true, look(columns)), details.concat(), replicas(&groups, look(columns))]
    }

    #[test]
    fn a_container_is_told_in_full() {
        let text = details(&sample(b"shop"), None, false, look(100));
        let expected = [
            "container  shop · 3f2a0c6d9e1b4857a6c3d2e1f0b9a8877665544332211000ffeeddccbbaa9988 · docker",
            "image      shop",
            "verdict    drifted",
            "watched    since 2027-01-15T08:00:00Z",
            "caution    until 2027-01-15T08:00:05Z: the kernel could not run the probe that reports changes, so",
            "           changes of images were not seen",
            "Not as in the image:",
            "2027-01-15T08:00:03Z  high      added /usr/bin/shop · EXECUTED 1 time, last 2027-01-15T08:00:03Z ·",
            "                                by /usr/bin/python3.12 (uid 0) · run as /bin (uid 0)",
            "2027-01-15T08:00:01Z  medium    changed /etc/shop · by /usr/bin/python3.12 (uid 0)",
            "1 path is as expected (1 scratch); --all lists them.",
            "Sessions:",
            "2027-01-15T08:00:00Z  high      #1234 began by exec · until 2027-01-15T08:00:00Z · /bin/dash · uid 0",
            "                                · 1 change · 1 program",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn containers_are_told_in_a_table() {
        let mut accounts = vec![sample(b"shop"), sample(b"web")];
        accounts[1].doubts.clear();
        accounts[1].page.states.clear();
        let expected = [
            "CONTAINER  VERDICT           IMAGE  WHAT IS DIFFERENT",
            "shop       drifted*          shop   1 added, 1 changed, 1 of these executed, 1 expected, 1 session ·",
            "                                    last 2027-01-15T08:00:04Z",
            "web        as expected       web    1 of these executed, 1 expected, 1 session · last",
            "                                    2027-01-15T08:00:04Z",
            "* There can be more than what is known: `detector drift CONTAINER` says why.",
        ];
        let text = table(&accounts, false, look(100));
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
        accounts[1].page.ended = accounts[1].page.last;
        let text = table(&accounts, false, look(100));
        assert!(text.ends_with("1 container ended without drift; --all lists what is left out here.\n"), "{text}");
    }

    /// A time at which the samples of replicas can be compared.
    fn later() -> Time {
        Time::from_nanoseconds(1_800_000_100_000_000_000)
    }

    #[test]
    fn pages_allow_their_own_style_only_and_show_everything_else() {
        let words = b"<script>alert(1)</script>\" onload='x' &amp; \x1b[2J\xe2\x80\xae";
        let mut accounts = [sample(b"shop"), sample(words)];
        accounts[1].doubts.push("<b>bold</b>".to_owned());
        let mut replicas = sample_replicas(words);
        replicas[1].doubts.push("<b>bold</b>".to_owned());
        let (degraded, groups) = (["<i>deaf</i>".to_owned()], groups(&replicas, later()));
        for text in [page(&accounts, &degraded, later()), page_of_replicas(&groups, &degraded, later())] {
            let style = text.split_once("<style>").and_then(|(_, rest)| rest.split_once("</style>"));
            let hash = crate::finding::Sha256(sha2::Sha256::digest(style.expect("it has one").0).into());
            assert_eq!(hash.to_string(), html::tests::allowed(), "the policy allows another style");
            let others = text.replace("<style>", "").replace("</style>", "");
            for hostile in ["<script", "<b>", "<i>", "onload='", "\u{1b}", "\u{202e}", "&amp; &"] {
                assert!(!others.contains(hostile), "{hostile:?} in {text}");
            }
            assert!(
                text.contains("/usr/bin/&lt;script&gt;alert(1)&lt;/script&gt;&quot; onload=&#39;x&#39; &amp;amp; ")
            );
            assert!(text.contains("\\u{1b}[2J\\u{202e}"), "{text}");
            let tags = |beginning: &str| {
                ["t", "span", "h", "details", "summary", "p", "a"]
                    .map(|tag| text.matches(&format!("{beginning}{tag}")).count())
                    .iter()
                    .sum::<usize>()
            };
            assert_eq!(tags("<"), tags("</"), "{text}");
        }
    }

    /// Fails unless a file of the documents is what is made.
    fn assert_known(name: &str, made: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
        let known = fs::read_to_string(&path).unwrap_or_default();
        assert!(known == made, "{} must be:\n{made}", path.display());
    }

    /// docs/drift.html is the page about this container, and docs/replicas.html that about these replicas.
    #[test]
    fn the_pages_in_the_documents_are_what_is_made() {
        let shop = sample(b"shop");
        let now = shop.page.last.expect("something was done in it");
        assert_known("drift.html", &page(&[shop], &[], now));
        assert_known("replicas.html", &page_of_replicas(&groups(&sample_replicas(b"shop"), later()), &[], later()));
    }

    #[test]
    fn a_page_without_replicas_says_so() {
        let text = page_of_replicas(&[], &[], later());
        assert!(text.contains("<p class=\"note\">No containers have the same image, and"), "{text}");
        assert!(!text.contains("<table>"), "{text}");
    }

    #[test]
    fn a_page_names_only_some_of_many_replicas_and_differences() {
        let shop = sample(b"shop");
        let difference = || Difference { entry: &shop.entries[0], by: vec![&shop], not_by: vec![&shop; 12] };
        let differences = std::iter::repeat_with(difference).take(5).collect();
        let group = Group {
            name: "shop".to_owned(),
            replicas: vec![&shop; 13],
            differences,
            in_common: Vec::new(),
            alone: Vec::new(),
        };
        let text = page_of_replicas(&[group], &[], later());
        let outcome = "changed /etc/shop";
        let first = format!("<td>{} <span class=\"note\">· and 2 more</span></td>", [outcome; 3].join(", "));
        assert!(text.contains(&first), "{text}");
        let not = format!("<td>1 of 13: shop <span class=\"note\">· not {}, …</span></td>", ["shop"; 10].join(", "));
        assert_eq!(text.matches(&not).count(), 5, "{text}");
        assert!(!text.contains("<details>"), "{text}");
    }

    #[test]
    fn json_has_what_follows_from_what_is_known() {
        let text = object(&sample(b"shop"), None, &["deaf".to_owned()], false);
        let told: serde_json::Value = serde_json::from_slice(&text).expect("it is JSON");
        assert_eq!((&told["verdict"], &told["degraded"][0]), (&"drifted".into(), &"deaf".into()));
        let states: Vec<_> = told["entries"].as_array().into_iter().flatten().map(|entry| &entry["state"]).collect();
        assert_eq!(states, ["changed", "added"], "{told}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Whatever bytes containers choose, no row is wider than the terminal, and nothing controls it or a browser.
        #[test]
        fn no_bytes_leave_their_column(
            bytes in prop::collection::vec(1..=255_u8, 0..200),
            hostile in prop::sample::select(HOSTILE),
            columns in NARROWEST..200,
        ) {
            let words = [&bytes, hostile].concat();
            let mut accounts = [sample(&words), sample(&words)];
            accounts[1].entries.clear();
            for container in accounts.iter_mut().map(|account| &mut account.page.container) {
                *container = Container { name: Some(Text::from(&*words)), ..container.clone() };
            }
            for text in shown(&accounts, columns) {
                for row in text.lines() {
                    prop_assert!(!row.contains(escape::is_unsafe), "{:?}", row);
                    prop_assert!(fit::width(row) <= columns, "{} columns: {:?}", columns, row);
                }
            }
            let replicas = sample_replicas(&words);
            for html in [page(&accounts, &[], later()), page_of_replicas(&groups(&replicas, later()), &[], later())] {
                prop_assert!(html.lines().all(|row| !row.contains(escape::is_unsafe)), "{}", html);
            }
            let json = object(&accounts[0], None, &[], true);
            prop_assert!(!std::str::from_utf8(&json[..json.len() - 1]).expect("it is text").contains(escape::is_unsafe));
        }
    }
}
