//! The page about containers.

use super::super::super::terminal::pod_or_name;
use super::super::details::{about, about_session, labels, summary};
use super::super::image;
use super::super::table::what;
use super::{Page, classed, escaped, link, severity, text, time};
use crate::finding::Time;
use crate::ledger::account::Account;
use crate::ledger::page::Verdict;

/// The page about these containers, as they are known at this time.
pub(crate) fn page(accounts: &[Account], degraded: &[String], now: Time) -> String {
    let mut page = Page::begin("Drift of containers", degraded, now);
    let row = |(number, account): (usize, &Account)| {
        let Account { page: own, doubts, .. } = account;
        let (verdict, mark) = (own.verdict(), if doubts.is_empty() { "" } else { "*" });
        [
            link(&name(number), &pod_or_name(&own.container)),
            classed(verdict.name(), &format!("{}{mark}", verdict.words())),
            escaped(&image(own).unwrap_or_default()),
            text(&what(own)),
        ]
    };
    let rows = accounts.iter().enumerate().map(row);
    page.table(["Container", "Verdict", "Image", "What is different"], rows);
    page.mark(accounts.iter().any(|account| !account.doubts.is_empty()));
    accounts.iter().enumerate().for_each(|(number, account)| section(&mut page, number, account));
    page.end()
}

/// The name of the section about a container.
fn name(number: usize) -> String {
    format!("c{number}")
}

/// All that is known of a container.
fn section(page: &mut Page, number: usize, account: &Account) {
    let Account { page: own, doubts, entries, sessions } = account;
    page.section(&name(number), &pod_or_name(&own.container));
    let labels = labels(own).into_iter().map(|(label, runs)| {
        let is_drifted = own.verdict() == Verdict::Drifted && label == "verdict";
        (label, is_drifted.then_some("drifted"), text(&runs))
    });
    page.facts(labels.chain(doubts.iter().map(|doubt| ("caution", Some("caution"), escaped(doubt)))));
    let (expected, mut unexpected): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry.is_expected());
    unexpected.sort_by_key(|entry| std::cmp::Reverse((entry.severity(), entry.last())));
    if !unexpected.is_empty() {
        let rows = unexpected.iter().map(|entry| [time(entry.last()), severity(entry.severity()), text(&about(entry))]);
        page.table(["Last", "Severity", "Not as in the image"], rows);
    }
    if !expected.is_empty() {
        page.note(&format!("{}.", summary(&expected)));
    }
    if !sessions.is_empty() {
        let rows = sessions
            .iter()
            .map(|session| [time(session.started), severity(session.severity), text(&about_session(session))]);
        page.table(["Began", "Severity", "Session"], rows);
    }
}
