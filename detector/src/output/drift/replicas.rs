//! What only some of the containers did that should be alike.

use serde::Serialize;

use bytes::Bytes;

use super::super::fit::Run;
use super::super::json;
use super::super::terminal::{BOLD, CYAN, Look, PLAIN, Pen, RED, pod_or_name, style};
use super::details::about;
use super::json::{Path, path};
use super::{GAP, counted, note, width, write_row};
use crate::ledger::account::Account;
use crate::ledger::replicas::{Difference, Group};

/// Room for a severity.
const SEVERITY: usize = "critical".len();
/// How many replicas are named at most.
const MOST_NAMES: usize = 3;

/// The groups of replicas, each with what is different.
pub(crate) fn replicas(groups: &[Group<'_>], look: Look) -> String {
    let (mut pen, width) = (Pen::new(look.color), width(look));
    if groups.is_empty() {
        let text = "No containers have the same image, and the same owner if they are in pods.";
        write_row(&mut pen, &[(width, vec![note(text)])]);
    }
    for group in groups {
        write_row(&mut pen, &[(width, vec![Run::new(BOLD, &*group.name), verdict(group)])]);
        for difference in &group.differences {
            let severity = difference.entry.severity();
            let mut runs = vec![Run::new(CYAN, who(difference))];
            runs.extend(about(difference.entry));
            let cells = [(SEVERITY, vec![Run::new(style(severity), severity.name())]), (width - SEVERITY - GAP, runs)];
            write_row(&mut pen, &cells);
        }
        let paths = |count| counted(count, "path", "paths");
        let mut rest = Vec::new();
        if group.in_common > 0 {
            rest.push(format!("At {} all did the same, which is the image's own doing.", paths(group.in_common)));
        }
        if group.alone > 0 {
            let text =
                format!("At {} something was done at an age that no other has been watched to.", paths(group.alone));
            rest.push(text);
        }
        if !rest.is_empty() {
            write_row(&mut pen, &[(width, vec![note(rest.join(" "))])]);
        }
    }
    pen.finish()
}

/// How many replicas are different.
fn verdict(group: &Group<'_>) -> Run {
    let count = group.replicas.len();
    match group.deviants() {
        0 => Run::new(PLAIN, format!("· {count} replicas, none differs")),
        _ if count == 2 => Run::new(RED, "· the 2 replicas differ"),
        1 => Run::new(RED, format!("· 1 of {count} replicas differs")),
        deviants => Run::new(RED, format!("· {deviants} of {count} replicas differ")),
    }
}

/// Which replicas did it, of those that can be compared: those that did it, or the few that did not.
fn who(difference: &Difference<'_>) -> String {
    let Difference { by, not_by, .. } = difference;
    let of = format!("{} of {}", by.len(), by.len() + not_by.len());
    if by.len() <= not_by.len() { format!("{of} ({}):", names(by)) } else { format!("{of} (not {}):", names(not_by)) }
}

fn names(accounts: &[&Account]) -> String {
    let mut names: Vec<_> = accounts.iter().take(MOST_NAMES).map(|account| name(account)).collect();
    if accounts.len() > MOST_NAMES {
        names.push("…".to_owned());
    }
    names.join(", ")
}

fn name(account: &Account) -> String {
    pod_or_name(&account.page.container)
}

/// A group of replicas.
#[derive(Serialize)]
struct Told<'a> {
    replicas: &'a str,
    containers: Vec<Replica>,
    differing: usize,
    in_common: u64,
    alone: u64,
    differences: Vec<ToldDifference<'a>>,
}

#[derive(Serialize)]
struct Replica {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
}

#[derive(Serialize)]
struct ToldDifference<'a> {
    #[serde(flatten)]
    path: Path<'a>,
    by: Vec<Replica>,
    not_by: Vec<Replica>,
}

/// A group of replicas as a JSON object on one line, with its end.
pub(crate) fn group(group: &Group<'_>) -> Bytes {
    let all = |accounts: &[&Account]| accounts.iter().map(|account| replica(account)).collect();
    let differences = group.differences.iter().map(|Difference { entry, by, not_by }| ToldDifference {
        path: path(entry),
        by: all(by),
        not_by: all(not_by),
    });
    json::object(&Told {
        replicas: &group.name,
        containers: all(&group.replicas),
        differing: group.deviants(),
        in_common: group.in_common,
        alone: group.alone,
        differences: differences.collect(),
    })
}

fn replica(account: &Account) -> Replica {
    Replica { name: name(account), id: account.page.container.id.as_ref().map(ToString::to_string) }
}
