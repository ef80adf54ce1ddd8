//! The table of containers.

use super::super::fit::Run;
use super::super::terminal::{BOLD, CYAN, DIM, Look, PLAIN, Pen, pod_or_name};
use super::{GAP, counted, image, moment, note, verdict_style, width, write_row};
use crate::ledger::account::Account;
use crate::ledger::page::{Page, Verdict};

/// Room for a verdict with its mark.
const VERDICT: usize = "its image again*".len();
/// The narrowest width at which images have a column.
const WITH_IMAGE: usize = 100;

/// The table, with a row for each container. Unless `is_all`, those that have ended and were their images are only
/// counted.
pub(crate) fn table(accounts: &[Account], is_all: bool, look: Look) -> String {
    let is_left_out =
        |account: &&Account| !is_all && account.page.ended.is_some() && account.page.verdict() <= Verdict::Expected;
    let (left_out, accounts): (Vec<_>, Vec<_>) = accounts.iter().partition(is_left_out);
    let width = width(look);
    let name = accounts.iter().map(|account| super::fit::width(&pod_or_name(&account.page.container))).max();
    let name = name.unwrap_or_default().clamp("CONTAINER".len(), (width / 4).max("CONTAINER".len()));
    let image_width =
        accounts.iter().filter_map(|account| image(&account.page)).map(|name| super::fit::width(&name)).max();
    let has_image = width >= WITH_IMAGE;
    let image_width = image_width.unwrap_or_default().clamp("IMAGE".len(), width / 4);
    let taken = name + VERDICT + 2 * GAP + if has_image { image_width + GAP } else { 0 };
    let rest = width - taken;
    let mut pen = Pen::new(look.color);
    let head = |text: &str| vec![Run::new(BOLD, text)];
    let with_image = |image: Vec<Run>| has_image.then_some((image_width, image));
    let row = |pen: &mut Pen, [name_cell, verdict, image, what]: [Vec<Run>; 4]| {
        let cells = [(name, name_cell), (VERDICT, verdict)].into_iter().chain(with_image(image)).chain([(rest, what)]);
        write_row(pen, &cells.collect::<Vec<_>>());
    };
    row(&mut pen, ["CONTAINER", "VERDICT", "IMAGE", "WHAT IS DIFFERENT"].map(head));
    for Account { page, doubts, .. } in accounts.iter().copied() {
        let mark = if doubts.is_empty() { "" } else { "*" };
        let verdict = page.verdict();
        let image = image(page).unwrap_or_default();
        let image_note = (!has_image && !image.is_empty()).then(|| note(format!("· {image}")));
        let what = what(page).into_iter().chain(image_note).collect();
        row(
            &mut pen,
            [
                vec![Run::new(CYAN, super::fit::shorten(&pod_or_name(&page.container), name))],
                vec![Run::new(verdict_style(verdict), format!("{}{mark}", verdict.words()))],
                vec![Run::new(DIM, super::fit::shorten(&image, image_width))],
                what,
            ],
        );
    }
    if accounts.iter().any(|account| !account.doubts.is_empty()) {
        let text = "* There can be more than what is known: `detector drift CONTAINER` says why.";
        write_row(&mut pen, &[(width, vec![note(text)])]);
    }
    if !left_out.is_empty() {
        let count = counted(left_out.len() as u64, "container", "containers");
        let text = format!("{count} ended without drift; --all lists what is left out here.");
        write_row(&mut pen, &[(width, vec![note(text)])]);
    }
    pen.finish()
}

/// How many paths are different, by what they are, and how many of them were executed.
pub(in crate::output) fn differences(page: &Page) -> Vec<String> {
    let mut parts: Vec<_> = page.states.iter().map(|(state, count)| format!("{count} {}", state.words())).collect();
    if page.executed > 0 {
        parts.push(format!("{} of these executed", page.executed));
    }
    parts
}

/// What is different, in a few words.
pub(super) fn what(page: &Page) -> Vec<Run> {
    let mut parts = differences(page);
    if page.expected > 0 {
        parts.push(format!("{} expected", page.expected));
    }
    if page.sessions > 0 {
        parts.push(counted(page.sessions, "session", "sessions"));
    }
    let mut runs = vec![Run::new(PLAIN, parts.join(", "))];
    runs.extend(page.last.map(|last| note(format!("· last {}", moment(last)))));
    runs.extend(page.ended.map(|ended| note(format!("· ended {}", moment(ended)))));
    runs.extend(page.unwatched.as_ref().map(|rule| note(format!("· rule {rule}"))));
    runs.retain(|run| !run.text.is_empty());
    runs
}
