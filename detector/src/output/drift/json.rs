//! A container as JSON, with what follows from what is known.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;

use super::super::json;
use crate::finding::{Container, Difference, Severity, Sha256, Text, Time};
use crate::ledger::account::Account;
use crate::ledger::entry::{Actor, Deed, Done, Entry, State, Subject};
use crate::ledger::page::{Page, Session, Verdict};
use crate::ledger::upper::Comparison;

/// A container.
#[derive(Serialize)]
struct Told<'a> {
    container: &'a Container,
    verdict: Verdict,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    incomplete: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    degraded: &'a [String],
    watched_since: Time,
    ran_before: bool,
    starts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unwatched_by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_change: Option<Time>,
    paths: &'a BTreeMap<State, u64>,
    executed_paths: u64,
    expected_paths: u64,
    sessions: u64,
    quiet_sessions: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    entries: Vec<Path<'a>>,
    #[serde(skip_serializing_if = "<[Session]>::is_empty")]
    session_list: &'a [Session],
    #[serde(skip_serializing_if = "Option::is_none")]
    upper_layer: Option<&'a Comparison>,
}

/// A path of a container.
#[derive(Serialize)]
pub(super) struct Path<'a> {
    #[serde(flatten)]
    subject: &'a Subject,
    state: Option<State>,
    severity: Severity,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    expected: Vec<&'a str>,
    first: Time,
    last: Time,
    changes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    executed: Option<Done>,
    done: &'a BTreeMap<Deed, Done>,
    actors: &'a [Actor],
    has_more_actors: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    differs: Option<Difference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<Sha256>,
    #[serde(skip_serializing_if = "<[Text]>::is_empty")]
    names: &'a [Text],
    #[serde(skip_serializing_if = "is_zero")]
    counted_in_kernel: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A container as a JSON object on one line, with its end. Unless `is_all`, what is expected is only counted.
/// `compared`: what its upper layer has. `degraded`: what the daemon does not detect or record now.
pub(crate) fn object(account: &Account, compared: Option<&Comparison>, degraded: &[String], is_all: bool) -> Bytes {
    let Account { page, doubts, entries, sessions } = account;
    let Page { container, since, ran_before, starts, ended, unwatched, states, .. } = page;
    let told = Told {
        container,
        verdict: page.verdict(),
        incomplete: doubts,
        degraded,
        watched_since: *since,
        ran_before: *ran_before,
        starts: *starts,
        ended: *ended,
        unwatched_by: unwatched.as_deref(),
        last_change: page.last,
        paths: states,
        executed_paths: page.executed,
        expected_paths: page.expected,
        sessions: page.sessions,
        quiet_sessions: page.quiet_sessions,
        entries: entries.iter().filter(|entry| is_all || !entry.is_expected()).map(path).collect(),
        session_list: sessions,
        upper_layer: compared,
    };
    json::object(&told)
}

pub(super) fn path(entry: &Entry) -> Path<'_> {
    Path {
        subject: &entry.subject,
        state: entry.state(),
        severity: entry.severity(),
        expected: entry.expected.keys().map(String::as_str).collect(),
        first: entry.first,
        last: entry.last(),
        changes: entry.changes(),
        executed: entry.executed(),
        done: &entry.deeds,
        actors: &entry.actors,
        has_more_actors: entry.has_more_actors,
        differs: entry.differs,
        sha256: entry.sha256,
        names: &entry.names,
        counted_in_kernel: entry.counted_in_kernel,
    }
}
