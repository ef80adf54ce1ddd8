//! One container in full.

use std::collections::BTreeMap;

use super::super::fit::Run;
use super::super::terminal::{
    BOLD, CYAN, DIM, Look, PLAIN, Pen, YELLOW, command_line, first_process, pod_or_name, style,
};
use super::{GAP, counted, image, moment, note, verdict_style, width, write_row};
use crate::finding::{Difference, Origin, Owner, Text, Time};
use crate::ledger::account::Account;
use crate::ledger::entry::{Actor, Done, Entry, State, Subject};
use crate::ledger::page::{Page, Session};
use crate::ledger::upper::{Change, Comparison};

/// Room for what a row of the head is about.
const LABEL: usize = "container".len();
/// Room for a moment.
const MOMENT: usize = "2026-01-01T00:00:00Z".len();
/// Room for a severity.
const SEVERITY: usize = "critical".len();
/// The narrowest width at which severities have a column.
const WITH_SEVERITY: usize = 60;

/// How many changes that the ledger does not have are listed.
const MOST_UNKNOWN: usize = 200;

/// All that is known of a container, and what its upper layer has, if that was compared. Unless `is_all`, what is
/// expected is only counted.
pub(crate) fn details(account: &Account, compared: Option<&Comparison>, is_all: bool, look: Look) -> String {
    let Account { page, doubts, entries, sessions } = account;
    let mut drawing = Drawing { pen: Pen::new(look.color), width: width(look) };
    for (label, runs) in labels(page) {
        drawing.labelled(label, runs);
    }
    for doubt in doubts {
        drawing.labelled("caution", vec![Run::new(YELLOW, doubt)]);
    }
    let (mut expected, mut own): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry.is_expected());
    own.sort_by_key(|entry| std::cmp::Reverse((entry.severity(), entry.last())));
    drawing.entries("Not as in the image:", &own);
    if is_all {
        expected.sort_by_key(|entry| std::cmp::Reverse(entry.last()));
        drawing.entries("Expected:", &expected);
    } else if !expected.is_empty() {
        drawing.line(vec![note(format!("{}; --all lists them.", summary(&expected)))]);
    }
    if let Some(compared) = compared {
        drawing.compared(compared);
    }
    if !sessions.is_empty() {
        drawing.line(vec![Run::new(BOLD, "Sessions:")]);
        sessions.iter().for_each(|session| drawing.session(session));
    }
    if page.quiet_sessions > 0 {
        let count = counted(page.quiet_sessions, "further session", "further sessions");
        drawing.line(vec![note(format!("{count} in which nothing was done that matters."))]);
    }
    drawing.pen.finish()
}

/// Which container it is, what it is, and since when that is known, each with a word for it.
pub(super) fn labels(page: &Page) -> Vec<(&'static str, Vec<Run>)> {
    let container = &page.container;
    let mut of = vec![Run::new(CYAN, pod_or_name(container))];
    of.extend(container.name.as_ref().filter(|_| container.pod.is_some()).map(|name| note(format!("· {name}"))));
    of.extend(container.id.as_ref().map(|id| note(format!("· {id}"))));
    of.extend(container.runtime.as_ref().map(|runtime| note(format!("· {runtime}"))));
    let mut labels = vec![("container", of)];
    labels.extend(image_of(page).map(|image| ("image", image)));
    let verdict = page.verdict();
    labels.push(("verdict", vec![Run::new(verdict_style(verdict), verdict.words())]));
    labels.push(("watched", vec![Run::new(PLAIN, watched(page))]));
    labels
}

/// The image by its name and its digest.
pub(super) fn image_of(page: &Page) -> Option<Vec<Run>> {
    let name = image(page)?;
    let digest = page.container.image.as_ref().and_then(|image| image.digest.as_ref().or(image.id.as_ref()));
    let digest = digest.filter(|digest| digest.as_str() != name).map(|digest| note(format!("· {digest}")));
    Some([Run::new(PLAIN, name)].into_iter().chain(digest).collect())
}

/// What has created the pod of a container, and which of the pod's containers it is.
pub(super) fn owner_of(page: &Page) -> Option<Vec<Run>> {
    let container = &page.container;
    let pod = container.pod.as_ref()?;
    let Owner { kind, name } = pod.owner.as_ref()?;
    let namespace = pod.namespace.as_ref().map_or_else(String::new, |namespace| format!("{namespace}/"));
    let owner = Run::new(PLAIN, format!("{} {namespace}{name}", kind.name()));
    Some([owner].into_iter().chain(container.name.as_ref().map(|name| note(format!("· container {name}")))).collect())
}

/// Since when a container is watched, and until when.
pub(super) fn watched(page: &Page) -> String {
    let until = match page.ended {
        Some(ended) if page.end_not_seen => format!(" until it ended unseen after {}", moment(ended)),
        Some(ended) => format!(" until it ended, {}", moment(ended)),
        None => String::new(),
    };
    let starts = match page.starts {
        0 | 1 => String::new(),
        starts => format!("; it was started {starts} times"),
    };
    let rule = page.unwatched.as_ref().map_or(String::new(), |rule| format!("; rule {rule} says not to watch it"));
    format!("since {}{until}{starts}{rule}", moment(page.since))
}

/// How many paths are expected, and why.
pub(super) fn summary(expected: &[&Entry]) -> String {
    let mut reasons = BTreeMap::<&str, u64>::new();
    for entry in expected {
        entry.expected.keys().for_each(|reason| *reasons.entry(reason).or_default() += 1);
    }
    let reasons: Vec<_> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    let paths = counted(expected.len() as u64, "path is", "paths are");
    format!("{paths} as expected ({})", reasons.join(", "))
}

struct Drawing {
    pen: Pen,
    width: usize,
}

impl Drawing {
    fn line(&mut self, runs: Vec<Run>) {
        write_row(&mut self.pen, &[(self.width, runs)]);
    }

    fn labelled(&mut self, label: &str, runs: Vec<Run>) {
        let cells = [(LABEL, vec![Run::new(DIM, label)]), (self.width - LABEL - GAP, runs)];
        write_row(&mut self.pen, &cells);
    }

    fn entries(&mut self, title: &str, entries: &[&Entry]) {
        if !entries.is_empty() {
            self.line(vec![Run::new(BOLD, title)]);
        }
        for entry in entries {
            let severity = Run::new(style(entry.severity()), entry.severity().name());
            self.row(entry.last(), severity, about(entry));
        }
    }

    fn compared(&mut self, compared: &Comparison) {
        let Comparison { directory, changes, unknown, doubts } = compared;
        let count = counted(*changes, "change", "changes");
        if unknown.is_empty() {
            let text = format!("The ledger has everything that is in the upper layer ({count} in {directory}).");
            self.line(vec![Run::new(PLAIN, text)]);
        } else {
            let title = format!(
                "In the upper layer, but not in the ledger, so that it is not known who did it ({} of {count} in \
                {directory}):",
                unknown.len()
            );
            self.line(vec![Run::new(BOLD, title)]);
        }
        for Change { path, kind } in unknown.iter().take(MOST_UNKNOWN) {
            self.line(vec![Run::new(BOLD, kind.words()), Run::new(PLAIN, path.to_string())]);
        }
        if let Some(more) = unknown.len().checked_sub(MOST_UNKNOWN).filter(|more| *more > 0) {
            self.line(vec![note(format!("and {more} more; -o json lists all."))]);
        }
        for doubt in doubts {
            self.labelled("caution", vec![Run::new(YELLOW, doubt)]);
        }
    }

    fn session(&mut self, session: &Session) {
        let severity = Run::new(style(session.severity), session.severity.name());
        self.row(session.started, severity, about_session(session));
    }

    fn row(&mut self, time: Time, severity: Run, runs: Vec<Run>) {
        let time = Run::new(DIM, moment(time));
        if self.width < WITH_SEVERITY {
            let runs = [severity].into_iter().chain(runs).chain([note(format!("· {}", time.text))]).collect();
            return write_row(&mut self.pen, &[(0, Vec::new()), (self.width - GAP, runs)]);
        }
        let rest = self.width - MOMENT - SEVERITY - 2 * GAP;
        write_row(&mut self.pen, &[(MOMENT, vec![time]), (SEVERITY, vec![severity]), (rest, runs)]);
    }
}

/// What is known of a session.
pub(super) fn about_session(session: &Session) -> Vec<Run> {
    let Session { id, via, ended, exe, uid, login_uid, peer, changes, programs, .. } = session;
    let mark = first_process(id).map(|pid| Run::new(CYAN, format!("#{pid}")));
    let end = ended.map_or_else(|| "open".to_owned(), |ended| format!("until {}", moment(ended)));
    let mut parts = vec![format!("began by {}", via.name()), end];
    parts.extend(exe.as_ref().map(ToString::to_string));
    parts.extend(uid.map(|uid| user(uid, *login_uid)));
    parts.extend(peer.as_ref().map(|peer| format!("commands from {peer}")));
    parts.push(counted(*changes, "change", "changes"));
    parts.push(counted(*programs, "program", "programs"));
    mark.into_iter().chain([Run::new(PLAIN, parts.join(" · "))]).collect()
}

/// What has become of a path.
pub(super) fn outcome(entry: &Entry) -> [Run; 2] {
    let subject = match &entry.subject {
        Subject::Path(path) => path.to_string(),
        Subject::Paths(paths) => paths.to_string(),
        Subject::Inode(inode) => format!("the file with device and inode {inode}"),
        Subject::Installation(args) => format!("what `{}` did", command_line(args)),
    };
    [Run::new(BOLD, entry.state().map_or("", State::words)), Run::new(PLAIN, subject)]
}

/// What is known of a path, in a sentence and notes.
pub(super) fn about(entry: &Entry) -> Vec<Run> {
    let sample = match &entry.subject {
        Subject::Path(_) | Subject::Inode(_) => None,
        Subject::Paths(_) | Subject::Installation(_) => Some(such_as(entry)),
    };
    let mut notes: Vec<_> = sample.into_iter().filter(|sample| !sample.is_empty()).collect();
    if entry.changes() > 1 {
        notes.push(format!("{} times since {}", entry.changes(), moment(entry.first)));
    }
    if entry.counted_in_kernel > 0 {
        notes.push(format!("{} of them only counted by the kernel", entry.counted_in_kernel));
    }
    if let Some(Done { count, last }) = entry.executed() {
        notes.push(format!("EXECUTED {}, last {}", counted(count, "time", "times"), moment(last)));
        notes.extend(entry.differs.map(differs).map(str::to_owned));
        notes.extend(entry.sha256.map(|sha256| format!("sha256 {sha256}")));
    }
    notes.extend(entry.actors.iter().map(by));
    if entry.has_more_actors {
        notes.push("and by others".to_owned());
    }
    if !entry.expected.is_empty() {
        let reasons: Vec<_> = entry.expected.keys().map(String::as_str).collect();
        notes.push(format!("expected ({})", reasons.join(", ")));
    }
    outcome(entry).into_iter().chain(notes.into_iter().map(|text| note(format!("· {text}")))).collect()
}

fn such_as(entry: &Entry) -> String {
    let names: Vec<_> = entry.names.iter().map(Text::as_str).collect();
    if names.is_empty() { String::new() } else { format!("such as {}", names.join(" ")) }
}

const fn differs(difference: Difference) -> &'static str {
    match difference {
        Difference::Nothing => "its content and its metadata were the image's",
        Difference::Metadata => "its content was the image's",
        Difference::Privileges => "its content was the image's, its privileges were not",
        Difference::Content => "its content was not the image's",
    }
}

fn by(actor: &Actor) -> String {
    let Actor { has_executed, exe, uid, login_uid, origin, ancestors, session, .. } = actor;
    let exe = exe.as_ref().map_or("an unknown program", Text::as_str);
    let done = if *has_executed { "run as" } else { "by" };
    let ancestors: String = ancestors.iter().map(|name| format!(" < {name}")).collect();
    let from = match origin {
        Origin::Outside => ", from outside the container",
        Origin::Entrypoint => ", the container's first program",
        Origin::Entered => ", which came in from outside",
        Origin::Application | Origin::Unknown => "",
    };
    let session = session.as_deref().and_then(first_process).map_or(String::new(), |pid| format!(" in session #{pid}"));
    format!("{done} {exe}{ancestors} ({}{from}){session}", user(*uid, *login_uid))
}

fn user(uid: u32, login_uid: Option<u32>) -> String {
    login_uid.map_or_else(|| format!("uid {uid}"), |login| format!("uid {uid}, logged in as {login}"))
}
