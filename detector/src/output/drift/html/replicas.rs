//! The page about replicas.

use super::super::super::fit::Run;
use super::super::super::terminal::{PLAIN, short};
use super::super::details::{about, image_of, outcome, owner_of, watched};
use super::super::replicas::{NONE, alone, in_common, name, names, verdict};
use super::super::{image, note};
use super::{Page, classed, escaped, link, severity, text, time};
use crate::finding::Time;
use crate::ledger::account::Account;
use crate::ledger::entry::Entry;
use crate::ledger::replicas::{Difference, Group};

/// How many replicas are named at most that did something, and that did not.
const MOST_NAMES: usize = 10;
/// How many differences of a group the table of all groups names at most.
const MOST_OUTCOMES: usize = 3;

/// The page about these groups of replicas, as they are known at this time.
pub(crate) fn page(groups: &[Group<'_>], degraded: &[String], now: Time) -> String {
    let mut page = Page::begin("Differences between replicas", degraded, now);
    if groups.is_empty() {
        page.note(NONE);
        return page.end();
    }
    let row = |(number, group): (usize, &Group<'_>)| {
        let mark = if is_marked(group) { "*" } else { "" };
        [
            link(&anchor(number), &group.name),
            classed(class(!group.differences.is_empty()), &format!("{}{mark}", verdict(group))),
            escaped(&image(&group.replicas[0].page).unwrap_or_default()),
            text(&outcomes(&group.differences)),
        ]
    };
    let rows = groups.iter().enumerate().map(row);
    page.table(["Replicas of", "Verdict", "Image", "What only some did"], rows);
    page.mark(groups.iter().any(is_marked));
    groups.iter().enumerate().for_each(|(number, group)| section(&mut page, number, group));
    page.end()
}

/// The name of the section about a group.
fn anchor(number: usize) -> String {
    format!("g{number}")
}

/// Whether there can be more than what is known.
fn is_marked(group: &Group<'_>) -> bool {
    group.replicas.iter().any(|replica| !replica.doubts.is_empty())
}

const fn class(is_different: bool) -> &'static str {
    if is_different { "drifted" } else { "alike" }
}

/// What is different, in a few words.
fn outcomes(differences: &[Difference<'_>]) -> Vec<Run> {
    let words = |difference: &Difference<'_>| outcome(difference.entry).map(|run| run.text).join(" ");
    let first: Vec<_> = differences.iter().take(MOST_OUTCOMES).map(words).collect();
    let more = differences.len().saturating_sub(MOST_OUTCOMES);
    let more = (more > 0).then(|| note(format!("· and {more} more")));
    [Run::new(PLAIN, first.join(", "))].into_iter().chain(more).collect()
}

/// All that is known of a group.
fn section(page: &mut Page, number: usize, group: &Group<'_>) {
    page.section(&anchor(number), &group.name);
    let own = &group.replicas[0].page;
    let known = [("owner", owner_of(own)), ("image", image_of(own))];
    let known = known.into_iter().filter_map(|(label, runs)| Some((label, None, text(&runs?))));
    let verdict = ("verdict", Some(class(!group.differences.is_empty())), verdict(group));
    page.facts(known.chain([verdict]));
    page.table(["Replica", "Verdict", "Watched"], group.replicas.iter().map(|replica| about_replica(group, replica)));
    if !group.differences.is_empty() {
        let rows = group.differences.iter().map(|difference| act(difference.entry, &who(difference)));
        page.table(["Last", "Severity", "Which", "What only some did"], rows);
    }
    if let Some(said) = alone(group) {
        page.note(&said);
        let rows = group.alone.iter().map(|(replica, entry)| act(entry, &[Run::new(PLAIN, name(replica))]));
        page.table(["Last", "Severity", "Which", "What it did"], rows);
    }
    if let Some(said) = in_common(group) {
        page.fold(&said, |page| {
            let rows = group.in_common.iter().map(|entry| [severity(entry.severity()), text(&about(entry))]);
            page.table(["Severity", "What all did, with what is known of it in one of them"], rows);
        });
    }
}

/// A replica, whether it is different, and since when that is known.
fn about_replica(group: &Group<'_>, replica: &Account) -> [String; 3] {
    let (own, is_different) = (&replica.page, group.deviates(replica));
    let id = own.container.id.as_ref().map(|id| note(format!("· {}", short(id.as_str()))));
    let named = [Run::new(PLAIN, name(replica))].into_iter().chain(id).collect::<Vec<_>>();
    let doubts = replica.doubts.iter().map(|doubt| classed("caution", &escaped(&format!("· {doubt}"))));
    let seen = [escaped(&watched(own))].into_iter().chain(doubts).collect::<Vec<_>>().join(" ");
    [text(&named), classed(class(is_different), if is_different { "differs" } else { "alike" }), seen]
}

/// Something that was done, and by whom.
fn act(entry: &Entry, who: &[Run]) -> [String; 4] {
    [time(entry.last()), severity(entry.severity()), text(who), text(&about(entry))]
}

/// Which replicas did it, of those that can be compared, and which did not.
fn who(Difference { by, not_by, .. }: &Difference<'_>) -> Vec<Run> {
    let of = format!("{} of {}: {}", by.len(), by.len() + not_by.len(), names(by, MOST_NAMES));
    vec![Run::new(PLAIN, of), note(format!("· not {}", names(not_by, MOST_NAMES)))]
}
