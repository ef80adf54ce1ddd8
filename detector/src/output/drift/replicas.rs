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
/// What is said if there are none.
pub(super) const NONE: &str = "No containers have the same image, and the same owner if they are in pods.";
/// How many replicas are named at most.
const MOST_NAMES: usize = 3;

/// The groups of replicas, each with what is different.
pub(crate) fn replicas(groups: &[Group<'_>], look: Look) -> String {
    let (mut pen, width) = (Pen::new(look.color), width(look));
    if groups.is_empty() {
        write_row(&mut pen, &[(width, vec![note(NONE)])]);
    }
    for group in groups {
        let colour = if group.differences.is_empty() { PLAIN } else { RED };
        let verdict = Run::new(colour, format!("· {}", verdict(group)));
        write_row(&mut pen, &[(width, vec![Run::new(BOLD, &*group.name), verdict])]);
        for difference in &group.differences {
            let severity = difference.entry.severity();
            let mut runs = vec![Run::new(CYAN, who(difference))];
            runs.extend(about(difference.entry));
            let cells = [(SEVERITY, vec![Run::new(style(severity), severity.name())]), (width - SEVERITY - GAP, runs)];
            write_row(&mut pen, &cells);
        }
        let rest: Vec<_> = in_common(group).into_iter().chain(alone(group)).collect();
        if !rest.is_empty() {
            write_row(&mut pen, &[(width, vec![note(rest.join(" "))])]);
        }
    }
    pen.finish()
}

/// How many replicas are different.
pub(super) fn verdict(group: &Group<'_>) -> String {
    let count = group.replicas.len();
    match group.deviants() {
        0 => format!("{count} replicas, none differs"),
        _ if count == 2 => "the 2 replicas differ".to_owned(),
        1 => format!("1 of {count} replicas differs"),
        deviants => format!("{deviants} of {count} replicas differ"),
    }
}

/// At how many paths all did the same, if they did.
pub(super) fn in_common(group: &Group<'_>) -> Option<String> {
    let paths = paths(group.in_common.len())?;
    Some(format!("At {paths} all did the same, which is the image's own doing."))
}

/// At how many paths something cannot be compared, if there is such.
pub(super) fn alone(group: &Group<'_>) -> Option<String> {
    let paths = paths(group.alone.len())?;
    Some(format!("At {paths} something was done at an age that no other has been watched to."))
}

fn paths(count: usize) -> Option<String> {
    (count > 0).then(|| counted(count as u64, "path", "paths"))
}

/// Which replicas did it, of those that can be compared: those that did it, or the few that did not.
fn who(difference: &Difference<'_>) -> String {
    let Difference { by, not_by, .. } = difference;
    let of = format!("{} of {}", by.len(), by.len() + not_by.len());
    let (not, few) = if by.len() <= not_by.len() { ("", by) } else { ("not ", not_by) };
    format!("{of} ({not}{}):", names(few, MOST_NAMES))
}

/// The names of replicas, of at most so many.
pub(super) fn names(accounts: &[&Account], most: usize) -> String {
    let mut names: Vec<_> = accounts.iter().take(most).map(|account| name(account)).collect();
    if accounts.len() > most {
        names.push("…".to_owned());
    }
    names.join(", ")
}

pub(super) fn name(account: &Account) -> String {
    pod_or_name(&account.page.container)
}

/// A group of replicas.
#[derive(Serialize)]
struct Told<'a> {
    replicas: &'a str,
    containers: Vec<Replica>,
    differing: usize,
    in_common: usize,
    alone: usize,
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
        in_common: group.in_common.len(),
        alone: group.alone.len(),
        differences: differences.collect(),
    })
}

fn replica(account: &Account) -> Replica {
    Replica { name: name(account), id: account.page.container.id.as_ref().map(ToString::to_string) }
}
