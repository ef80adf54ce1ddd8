//! Containers as one page of HTML that needs nothing else: no script, no picture, and a policy that forbids the browser
//! to load or run anything. Everything that is not this module's own is escaped twice: for a person, and for HTML.

use std::fmt::Write as _;

use super::super::fit::Run;
use super::super::terminal::{pod_or_name, safe};
use super::details::{about, about_session, labels, summary};
use super::table::what;
use super::{image, moment};
use crate::finding::{Severity, Time};
use crate::ledger::account::Account;
use crate::ledger::entry::Entry;
use crate::ledger::page::Verdict;

/// How the page looks.
const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:80em;padding:0 1em;\
    color:#1c1c1c;background:#fff}h1{font-size:1.5em}h2{font-size:1.15em;margin:2.2em 0 .4em;border-top:1px solid #ddd;\
    padding-top:1em}table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;\
    padding:.25em .9em .25em 0;border-bottom:1px solid #eee}th{font-weight:600}td:first-child{white-space:nowrap}\
    td:nth-child(n+3),td:last-child{overflow-wrap:anywhere}.note{color:#666}\
    .drifted,.high,.critical{color:#b00020;font-weight:600}\
    .medium,.unwatched,.caution{color:#8a5a00}a{color:inherit}\
    @media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}h2{border-color:#444}\
    th,td{border-color:#333}.note{color:#999}.drifted,.high,.critical{color:#ff6b7d}\
    .medium,.unwatched,.caution{color:#e0a83c}}";
/// The SHA-256 of the style in base64, by which the page's policy allows it.
const STYLE_SHA256: &str = "JVUhBUxQBSiomWCXY47LYD8/kJAA6wRDOlV+zPfh1ns=";

/// The page about these containers, as they are known at this time.
pub(crate) fn page(accounts: &[Account], degraded: &[String], now: Time) -> String {
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
        <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-{STYLE_SHA256}'; \
        base-uri 'none'; form-action 'none'\">\n<meta name=\"referrer\" content=\"no-referrer\">\n\
        <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Drift of containers</title>\n\
        <style>{STYLE}</style>\n</head>\n<body>\n<h1>Drift of containers</h1>\n<p class=\"note\">{}</p>\n",
        escaped(&format!("What detector {} knew at {}. Times are UTC.", env!("CARGO_PKG_VERSION"), moment(now)))
    );
    for reason in degraded {
        let text = format!("Something may be missing here, because the detector is degraded: {reason}");
        push(&mut page, &format!("<p class=\"caution\">{}</p>\n", escaped(&text)));
    }
    push(&mut page, "<table>\n<tr><th>Container</th><th>Verdict</th><th>Image</th><th>What is different</th></tr>\n");
    for (number, account) in accounts.iter().enumerate() {
        let Account { page: own, doubts, .. } = account;
        let (verdict, mark) = (own.verdict(), if doubts.is_empty() { "" } else { "*" });
        let cells = [
            format!("<a href=\"#c{number}\">{}</a>", escaped(&pod_or_name(&own.container))),
            format!("<span class=\"{}\">{}{mark}</span>", verdict.name(), verdict.words()),
            escaped(&image(own).unwrap_or_default()),
            text(&what(own)),
        ];
        row(&mut page, &cells);
    }
    push(&mut page, "</table>\n");
    if accounts.iter().any(|account| !account.doubts.is_empty()) {
        push(&mut page, "<p class=\"note\">* There can be more than what is known, for the reasons below.</p>\n");
    }
    accounts.iter().enumerate().for_each(|(number, account)| section(&mut page, number, account));
    push(&mut page, "</body>\n</html>\n");
    page
}

/// All that is known of a container.
fn section(page: &mut String, number: usize, account: &Account) {
    let Account { page: own, doubts, entries, sessions } = account;
    push(page, &format!("<h2 id=\"c{number}\">{}</h2>\n<table>\n", escaped(&pod_or_name(&own.container))));
    for (label, runs) in labels(own) {
        let class = if own.verdict() == Verdict::Drifted && label == "verdict" { " class=\"drifted\"" } else { "" };
        push(page, &format!("<tr><td class=\"note\">{label}</td><td{class}>{}</td></tr>\n", text(&runs)));
    }
    for doubt in doubts {
        push(page, &format!("<tr><td class=\"note\">caution</td><td class=\"caution\">{}</td></tr>\n", escaped(doubt)));
    }
    push(page, "</table>\n");
    let (expected, mut unexpected): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry.is_expected());
    unexpected.sort_by_key(|entry| std::cmp::Reverse((entry.severity(), entry.last())));
    if !unexpected.is_empty() {
        push(page, "<table>\n<tr><th>Last</th><th>Severity</th><th>Not as in the image</th></tr>\n");
        let cells = |entry: &&Entry| [escaped(&moment(entry.last())), severity(entry.severity()), text(&about(entry))];
        unexpected.iter().for_each(|entry| row(page, &cells(entry)));
        push(page, "</table>\n");
    }
    if !expected.is_empty() {
        push(page, &format!("<p class=\"note\">{}.</p>\n", escaped(&summary(&expected))));
    }
    if !sessions.is_empty() {
        push(page, "<table>\n<tr><th>Began</th><th>Severity</th><th>Session</th></tr>\n");
        for session in sessions {
            row(page, &[escaped(&moment(session.started)), severity(session.severity), text(&about_session(session))]);
        }
        push(page, "</table>\n");
    }
}

fn row(page: &mut String, cells: &[String]) {
    let cells: String = cells.iter().map(|cell| format!("<td>{cell}</td>")).collect();
    push(page, &format!("<tr>{cells}</tr>\n"));
}

fn severity(severity: Severity) -> String {
    let name = severity.name();
    format!("<span class=\"{name}\">{name}</span>")
}

/// The first run, and the others as notes if they are such.
fn text(runs: &[Run]) -> String {
    let cell = |run: &Run| match run.text.starts_with('·') {
        true => format!("<span class=\"note\">{}</span>", escaped(&run.text)),
        false => escaped(&run.text),
    };
    runs.iter().map(cell).collect::<Vec<_>>().join(" ")
}

fn push(page: &mut String, html: &str) {
    page.write_str(html).expect("a String takes all text");
}

/// Text that a browser only shows.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in safe(text).chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The hash of the style that the policy allows, in hexadecimal digits.
    pub(crate) fn allowed() -> String {
        const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let digits = STYLE_SHA256.trim_end_matches('=').chars().map(|digit| DIGITS.find(digit).expect("it is base64"));
        let bits: String = digits.map(|digit| format!("{digit:06b}")).collect();
        let bytes = bits.as_bytes().chunks_exact(8).map(|bits| std::str::from_utf8(bits).expect("they are digits"));
        bytes.map(|bits| format!("{:02x}", u8::from_str_radix(bits, 2).expect("it is binary"))).collect()
    }
}
