//! The ledger as a whole: lines go in, and what is on the disk comes out.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs, thread};

use proptest::prelude::*;

use super::account::{Account, Accounts};
use super::entry::{Deed, State};
use super::page::Verdict;
use super::*;
use crate::detect::samples;
use crate::event::{Event, ImageOp, Layer, Origin};
use crate::finding::{
    Container, Expected, Finding, Image, Kind, Line, Loss, Notice, NoticeEvent, Owner, OwnerKind, Pod, Reason,
    Repeated, Severity, Text,
};

fn time(second: i128) -> Time {
    Time::from_nanoseconds((1_800_000_000 + second) * 1_000_000_000)
}

fn text(text: &str) -> Text {
    text.as_bytes().into()
}

/// The finding about an operation at this second.
pub(super) fn change(op: ImageOp, layer: Layer, path: &str, second: i128) -> Finding {
    let event = samples::change(op, layer, 0o100644, path);
    let finding = samples::found(Event::ImageChange(Box::new(event))).expect("it is a finding");
    Finding { id: format!("{}-{path}-{second}", op.name()), time: time(second), ..finding }
}

pub(super) fn renamed(from: &str, to: &str, second: i128) -> Finding {
    let mut finding = change(ImageOp::Rename, Layer::Upper, from, second);
    finding.file.as_mut().expect("it has one").new_path = Some(text(to));
    finding
}

fn executed(path: &str, second: i128) -> Finding {
    let exec = samples::drifted(path, &["x"]);
    let found = samples::all_found(&[Event::Exec(Box::new(exec))]);
    let finding = found.into_iter().find(|finding| finding.finding == Kind::DriftedExec).expect("there is one");
    Finding { id: format!("exec-{path}-{second}"), time: time(second), ..finding }
}

/// Another line about a finding: so many files of this pattern, until this second.
pub(super) fn counted(finding: &Finding, revision: u32, count: u64, paths: &str, last: i128) -> Finding {
    let repeated = Repeated {
        count,
        operations: BTreeMap::new(),
        first: finding.time,
        last: time(last),
        paths: Some(text(paths)),
        names: vec![text("/srv/1"), text("/srv/2")],
        names_omitted: count.saturating_sub(2),
        commands: Vec::new(),
        commands_omitted: 0,
        counted_in_kernel: count / 2,
        by: None,
    };
    Finding { revision, time: time(last), repeated: Some(Box::new(repeated)), ..finding.clone() }
}

fn line(finding: &Finding) -> Told {
    Told::Line(crate::output::json::line(&Line::Finding(Box::new(finding.clone()))))
}

fn notice(second: i128, event: NoticeEvent) -> Told {
    Told::Line(crate::output::json::line(&Line::Notice(Notice::at(time(second), "node-1".into(), event))))
}

fn container() -> Container {
    samples::found(Event::ImageChange(Box::new(samples::change(ImageOp::Write, Layer::Lower, 0, "/x"))))
        .and_then(|finding| finding.container)
        .expect("it has one")
}

/// A daemon that starts: nothing ran before.
fn started(container: &Container) -> Vec<Told> {
    vec![Told::Scanned, Told::Runs(Box::new(container.clone()), time(0))]
}

/// What the ledger in this directory says after it was told this, until this second.
fn told(directory: &Path, tolds: Vec<Told>, until: i128) -> Vec<Account> {
    let (store, _) = Store::open(directory).expect("it can be opened");
    told_to(&store, tolds, until)
}

/// The same of this ledger.
fn told_to(store: &Store, tolds: Vec<Told>, until: i128) -> Vec<Account> {
    let written = store.write(|tables| {
        let mut keeper = Keeper::load(tables, KEEP)?;
        tolds.into_iter().try_for_each(|told| keeper.take(told, tables))?;
        keeper.pass(time(until), tables)
    });
    written.expect("it can be written");
    accounts(store)
}

fn accounts(store: &Store) -> Vec<Account> {
    let mut accounts = Accounts::default();
    let query = Query { is_detailed: true, ..Query::default() };
    let take = &mut |row| {
        accounts.take(row);
        true
    };
    read(store, &query, take).expect("it can be read");
    accounts.into_sorted()
}

/// What one container's account is after its start and these findings.
pub(super) fn account(findings: &[Finding]) -> Account {
    let tolds = started(&container()).into_iter().chain(findings.iter().map(line)).collect();
    let accounts = told_to(&Store::in_memory(), tolds, 100);
    let [account] = <[Account; 1]>::try_from(accounts).expect("there is one container");
    account
}

/// The states of the paths.
fn states(account: &Account) -> BTreeMap<String, State> {
    let path = |entry: &Entry| match &entry.subject {
        entry::Subject::Path(path) | entry::Subject::Paths(path) => path.to_string(),
        other => other.key(),
    };
    account.entries.iter().map(|entry| (path(entry), entry.state().expect("something was done"))).collect()
}

#[test]
fn what_was_done_decides_what_a_path_is() {
    use ImageOp::*;
    use Layer::*;
    let states_of = |findings: &[Finding]| states(&account(findings)).into_values().collect::<Vec<_>>();
    for (done, expected) in [
        (&[(Create, New)][..], State::Added),
        (&[(Create, New), (OpenWrite, Upper), (Chmod, Upper)], State::Added),
        (&[(Create, New), (Unlink, Upper)], State::AddedAndRemoved),
        (&[(Create, New), (Unlink, Upper), (Create, New)], State::Added),
        (&[(OpenWrite, Lower)], State::Changed),
        (&[(OpenWrite, Upper)], State::Changed),
        (&[(Chmod, Lower)], State::Metadata),
        (&[(SetCapability, Lower), (Write, Upper)], State::Changed),
        (&[(Unlink, Lower)], State::Removed),
        (&[(Chmod, Lower), (Unlink, Upper)], State::Removed),
        (&[(Unlink, Lower), (Create, New)], State::Changed),
        (&[(Unlink, Upper)], State::Removed),
        (&[(Mkdir, New), (Rmdir, Upper)], State::AddedAndRemoved),
    ] {
        let findings: Vec<_> = done.iter().zip(1..).map(|((op, layer), at)| change(*op, *layer, "/x", at)).collect();
        assert_eq!(states_of(&findings), [expected], "{done:?}");
    }
}

#[test]
fn a_renamed_file_leaves_one_path_and_arrives_at_another() {
    let moved = account(&[change(ImageOp::Create, Layer::New, "/a", 1), renamed("/a", "/b", 2)]);
    let expected = [("/a", State::AddedAndRemoved), ("/b", State::AddedOrReplaced)];
    assert_eq!(states(&moved), expected.map(|(path, state)| (path.to_owned(), state)).into());
    let replaced = account(&[change(ImageOp::OpenWrite, Layer::Lower, "/b", 1), renamed("/a", "/b", 2)]);
    assert_eq!(states(&replaced)["/b"], State::Changed);
}

#[test]
fn the_verdict_is_about_what_is_different_now() {
    assert_eq!(account(&[]).page.verdict(), Verdict::Image);
    let added = change(ImageOp::Create, Layer::New, "/x", 1);
    let mut expected = added.clone();
    expected.expected = Some(Expected { reason: Reason::Scratch, otherwise: Severity::Low });
    let found = account(&[expected]);
    assert_eq!((found.page.verdict(), found.page.expected), (Verdict::Expected, 1));
    let found = account(std::slice::from_ref(&added));
    assert_eq!((found.page.verdict(), found.page.states[&State::Added]), (Verdict::Drifted, 1));
    let found = account(&[added, change(ImageOp::Unlink, Layer::Upper, "/x", 2)]);
    assert_eq!(found.page.verdict(), Verdict::Restored);
    assert_eq!(found.page.last, Some(time(2)));
}

#[test]
fn it_is_known_what_was_executed_and_by_whom_a_file_was_added() {
    let added = change(ImageOp::Create, Layer::New, "/usr/bin/backup", 1);
    let account = account(&[added, executed("/usr/bin/backup", 2), executed("/usr/bin/backup", 3)]);
    let [entry] = &account.entries[..] else { panic!("{account:?}") };
    assert_eq!(entry.executed().map(|done| (done.count, done.last)), Some((2, time(3))));
    assert_eq!((entry.changes(), account.page.executed), (1, 1));
    assert_eq!(entry.actors[0].exe, Some(text("/usr/bin/python3.12")));
    assert_eq!(entry.actors[0].origin, Origin::Application);
}

#[test]
fn what_an_exception_suppresses_is_expected() {
    let mut finding = change(ImageOp::Create, Layer::New, "/x", 1);
    finding.suppressed_by = Some(text("cache"));
    let folder = tempfile::tempdir().expect("a directory");
    let tolds = started(&container()).into_iter().chain([Told::Suppressed(Box::new(finding))]).collect();
    let accounts = told(folder.path(), tolds, 100);
    assert_eq!(accounts[0].page.verdict(), Verdict::Expected);
    assert_eq!(accounts[0].entries[0].expected, [("exception cache".to_owned(), 1)].into());
}

#[test]
fn a_later_line_about_an_act_replaces_the_earlier_one() {
    let first = change(ImageOp::Create, Layer::New, "/srv/1", 1);
    let lines = [first.clone(), counted(&first, 2, 10, "/srv/*", 5), counted(&first, 3, 30, "/srv/*", 9)];
    let account = account(&lines);
    let [entry] = &account.entries[..] else { panic!("{:?}", account.entries) };
    assert_eq!(entry.subject, entry::Subject::Paths(text("/srv/*")));
    assert_eq!((entry.deeds[&Deed::Created].count, entry.counted_in_kernel), (30, 15));
    assert_eq!((entry.first, entry.last(), entry.state()), (time(1), time(9), Some(State::Added)));
    assert_eq!(account.page.states, [(State::Added, 1)].into());
}

#[test]
fn a_container_goes_on_after_a_restart_and_what_was_not_seen_is_said() {
    let folder = tempfile::tempdir().expect("a directory");
    let container = container();
    let first = change(ImageOp::Create, Layer::New, "/x", 1);
    let tolds = started(&container).into_iter().chain([line(&first)]).collect();
    told(folder.path(), tolds, 10);
    // The same act is told again, as after a kill.
    let runs = Told::Runs(Box::new(container.clone()), time(20));
    let started = notice(20, NoticeEvent::Started { version: "1".into(), after_crash: true });
    let tolds =
        vec![runs, Told::Scanned, started, line(&first), line(&change(ImageOp::Unlink, Layer::Lower, "/y", 21))];
    let accounts = told(folder.path(), tolds, 30);
    let [Account { page, doubts, entries, .. }] = &accounts[..] else { panic!("{accounts:?}") };
    assert_eq!((page.since, page.ran_before, page.ended), (time(0), false, None));
    assert_eq!(entries.iter().map(Entry::changes).collect::<Vec<_>>(), [1, 1]);
    let [doubt] = &doubts[..] else { panic!("{doubts:?}") };
    assert_eq!(doubt, "from 2027-01-15T08:00:10Z to 2027-01-15T08:00:20Z: the detector did not run");
}

#[test]
fn containers_end_and_are_forgotten() {
    let folder = tempfile::tempdir().expect("a directory");
    let container = container();
    let end = Told::Removed(container.cgroup_id, time(5));
    let tolds = started(&container).into_iter().chain([line(&executed("/x", 1)), end]).collect();
    let accounts = told(folder.path(), tolds, 10);
    assert_eq!((accounts[0].page.ended, accounts[0].page.end_not_seen), (Some(time(5)), false));
    let kept = i128::from(KEEP.as_secs());
    assert_eq!(told(folder.path(), Vec::new(), kept).len(), 1);
    assert_eq!(told(folder.path(), Vec::new(), kept + 10), []);
}

#[test]
fn the_end_of_a_container_can_be_missed() {
    let folder = tempfile::tempdir().expect("a directory");
    told(folder.path(), started(&container()), 10);
    let accounts = told(folder.path(), vec![Told::Scanned], 20);
    assert_eq!((accounts[0].page.ended, accounts[0].page.end_not_seen), (Some(time(10)), true));
    assert_eq!(accounts[0].doubts, [] as [String; 0], "{accounts:?}");
}

#[test]
fn what_may_be_missing_is_said() {
    let folder = tempfile::tempdir().expect("a directory");
    let container = container();
    let runs = Told::Runs(Box::new(container.clone()), time(0));
    let rule = || NoticeEvent::Unwatched {
        rule: "ci".to_owned(),
        reason: String::new(),
        container: Box::new(container.clone()),
    };
    let tolds = vec![runs, Told::Scanned, notice(1, NoticeEvent::loss(Loss::Call, 1)), notice(2, rule())];
    let accounts = told(folder.path(), tolds, 10);
    assert_eq!((accounts[0].page.verdict(), accounts[0].page.unwatched.as_deref()), (Verdict::Unwatched, Some("ci")));
    let [ran, lost] = &accounts[0].doubts[..] else { panic!("{accounts:?}") };
    assert!(ran.starts_with("it ran before 2027-01-15T08:00:00Z, "), "{ran}");
    assert!(lost.starts_with("until 2027-01-15T08:00:01Z: the kernel could not run the probe"), "{lost}");
    let watched = NoticeEvent::Watched { container: Box::new(container.clone()) };
    let tolds = vec![Told::Runs(Box::new(container.clone()), time(20)), notice(21, watched)];
    let accounts = told(folder.path(), tolds, 30);
    assert_eq!(accounts[0].page.verdict(), Verdict::Image);
    assert!(accounts[0].doubts[1].contains("not watched for a while"), "{accounts:?}");
}

#[test]
fn there_is_room_for_what_matters_more() {
    let many = (1..=800).map(|number| line(&change(ImageOp::Create, Layer::New, &format!("/srv/{number}"), number)));
    let tolds = started(&container()).into_iter().chain(many);
    let evil = Finding { severity: Severity::High, ..change(ImageOp::Create, Layer::New, "/evil", 900) };
    let accounts = told_to(&Store::in_memory(), tolds.chain([line(&evil)]).collect(), 1000);
    let Account { page, entries, .. } = &accounts[0];
    assert_eq!((page.entries, page.left_out), (751, 50));
    assert_eq!(entries.iter().map(Entry::severity).max(), Some(Severity::High));
    assert!(accounts[0].doubts.contains(&"there was no room for 50 findings".to_owned()), "{:?}", accounts[0].doubts);
}

#[test]
fn sessions_have_their_last_line() {
    let folder = tempfile::tempdir().expect("a directory");
    let sessions = samples::session(b"sh").into_iter();
    let lines = sessions.map(|line| Told::Line(crate::output::json::line(&line)));
    let accounts = told(folder.path(), started(&container()).into_iter().chain(lines).collect(), 10);
    let [session] = &accounts[0].sessions[..] else { panic!("{accounts:?}") };
    assert_eq!((session.changes, session.severity), (1, Severity::High));
    assert!(session.ended.is_some());
    let [entry] = &accounts[0].entries[..] else { panic!("{accounts:?}") };
    assert_eq!(entry.actors[0].session.as_ref(), Some(&session.id));
}

#[test]
fn a_foreign_or_damaged_ledger_is_set_aside() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("ledger.redb");
    let aside = folder.path().join("ledger.redb.set-aside");
    told(folder.path(), started(&container()), 10);
    let good = fs::read(&path).expect("it is there");
    let elsewhere = folder.path().join("elsewhere");
    let damages: [(&str, &dyn Fn()); 6] = [
        ("text", &|| fs::write(&path, "this is no ledger").expect("it is ours")),
        ("short", &|| fs::write(&path, b"redb").expect("it is ours")),
        ("cut", &|| fs::write(&path, &good[..good.len() / 3]).expect("it is ours")),
        ("header", &|| {
            let zeros = [&good[..16], &vec![0; good.len() - 16]].concat();
            fs::write(&path, zeros).expect("it is ours");
        }),
        ("link", &|| {
            fs::remove_file(&path).expect("it is there");
            fs::write(&elsewhere, &good).expect("it is ours");
            symlink(&elsewhere, &path).expect("it is gone");
        }),
        ("shared", &|| {
            fs::write(&path, &good).expect("it is ours");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("it is ours");
        }),
    ];
    for (what, damage) in damages {
        damage();
        let (store, told) = Store::open(folder.path()).expect("another one is begun");
        assert!(told.is_some_and(|told| told.contains("set-aside, and a new one was begun")), "{what}");
        assert!(aside.symlink_metadata().is_ok(), "{what}");
        assert_eq!(accounts(&store), [], "{what}");
        assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(fs::read(elsewhere).expect("it is there"), good, "what a link leads to stays as it is");
}

#[test]
fn a_ledger_that_is_in_use_is_left_alone() {
    let folder = tempfile::tempdir().expect("a directory");
    let (_store, _) = Store::open(folder.path()).expect("it can be opened");
    assert!(matches!(Store::open(folder.path()), Err(Error::InUse)));
}

/// The account of the container with this name, which was started at this second, after these findings.
fn replica(name: &str, start: i128, findings: &[Finding]) -> Account {
    let container = Container { name: Some(text(name)), pod: None, ..samples::known_container(b"shop") };
    account_of(&container, start, findings)
}

/// The account of this container, which was started at this second, after these findings.
fn account_of(container: &Container, start: i128, findings: &[Finding]) -> Account {
    let runs = Told::Runs(Box::new(container.clone()), time(start));
    let of_it = |finding: &Finding| line(&Finding { container: Some(container.clone()), ..finding.clone() });
    let tolds = [Told::Scanned, runs, Told::Known(Box::new(container.clone()))].into_iter();
    let mut accounts = told_to(&Store::in_memory(), tolds.chain(findings.iter().map(of_it)).collect(), start + 100);
    accounts.pop().expect("there is one")
}

/// What is told of replicas at this second: the paths at which they differ, with those that did it and those that did
/// not, how many are the same, and how many cannot be compared.
fn compared(accounts: &[Account], second: i128) -> (Vec<[Vec<String>; 3]>, usize, usize) {
    let groups = replicas::groups(accounts, time(second));
    let [group] = &groups[..] else { panic!("{groups:?}") };
    let names = |accounts: &[&Account]| -> Vec<_> {
        let name = |account: &&Account| account.page.container.name.as_ref().map(ToString::to_string);
        accounts.iter().filter_map(name).collect()
    };
    let differences = group.differences.iter().map(|difference| {
        let entry::Subject::Path(path) = &difference.entry.subject else { panic!("{difference:?}") };
        [vec![path.to_string()], names(&difference.by), names(&difference.not_by)]
    });
    (differences.collect(), group.in_common.len(), group.alone.len())
}

#[test]
fn what_one_of_three_replicas_did_is_its_drift() {
    let own = |second| change(ImageOp::Create, Layer::New, "/var/lib/state", second);
    let backup = change(ImageOp::Create, Layer::New, "/usr/bin/backup", 30);
    let accounts =
        [replica("web-0", 0, &[own(3)]), replica("web-1", 10, &[own(14), backup]), replica("web-2", 20, &[own(25)])];
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let difference = [names(&["/usr/bin/backup"]), names(&["web-1"]), names(&["web-0", "web-2"])];
    assert_eq!(compared(&accounts, 200), (vec![difference], 1, 0));
    assert_eq!(replicas::groups(&accounts, time(200))[0].deviants(), 1);
    // Of two, it can be either.
    assert_eq!(replicas::groups(&accounts[..2], time(200))[0].deviants(), 2);
    // web-2 has not become as old as web-1 was then.
    let difference = [names(&["/usr/bin/backup"]), names(&["web-1"]), names(&["web-0"])];
    assert_eq!(compared(&accounts, 45), (vec![difference], 1, 0));
    assert_eq!(replicas::groups(&accounts[..1], time(200)).len(), 0);
}

#[test]
fn replicas_are_compared_at_the_same_age_and_as_far_as_they_are_watched() {
    let late = change(ImageOp::Create, Layer::New, "/usr/bin/backup", 90);
    let accounts = [replica("web-0", 0, &[late]), replica("web-1", 80, &[])];
    assert_eq!(compared(&accounts, 100), (vec![], 0, 1));
    let mut old = replica("web-1", 0, &[]);
    old.page.ran_before = true;
    assert_eq!(compared(&[accounts[0].clone(), old], 1000), (vec![], 0, 1));
    let mut other = accounts[1].clone();
    other.page.container.image.as_mut().expect("it has one").digest = Some(text("another"));
    assert_eq!(replicas::groups(&[accounts[0].clone(), other], time(1000)).len(), 0);
}

#[test]
fn an_executed_file_is_another_than_one_that_only_was_added() {
    let added = || change(ImageOp::Create, Layer::New, "/x", 1);
    let accounts = [replica("web-0", 0, &[added()]), replica("web-1", 0, &[added(), executed("/x", 2)])];
    let (differences, in_common, _) = compared(&accounts, 100);
    assert_eq!((differences.len(), in_common), (2, 0));
    assert_eq!(replicas::groups(&accounts, time(100))[0].deviants(), 2);
}

/// What the ledger answers to this question, or why not.
fn rows(ledger: &Ledger, query: &Query) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    let take = &mut |row| {
        rows.push(row);
        true
    };
    ledger.read(query, take).map(|()| rows)
}

#[test]
fn the_thread_writes_what_it_is_told_and_closes_the_file() {
    let folder = tempfile::tempdir().expect("a directory");
    let start = || Ledger::start(folder.path().to_owned(), KEEP, |report| panic!("{report:?}")).expect("a thread");
    let ledger = start();
    let finding = Line::Finding(Box::new(change(ImageOp::Create, Layer::New, "/x", 1)));
    ledger.inlet().scanned();
    ledger.inlet().runs(&container(), time(0));
    ledger.tell(&finding, &crate::output::json::line(&finding));
    let id = container().id.map(|id| id.as_str()[..12].to_owned());
    for (container, is_detailed, expected) in [
        (None, false, "page end"),
        (id.as_deref(), true, "page entry end"),
        (Some("another"), true, "end"),
        (Some(""), true, "end"),
    ] {
        let query = Query { container: container.map(str::to_owned), is_detailed };
        let kind = |row: &Row| match row {
            Row::Gap(_) => "gap",
            Row::Page(_) => "page",
            Row::Entry(_) => "entry",
            Row::Session(_) => "session",
            Row::End => "end",
        };
        let rows = rows(&ledger, &query).expect("it can be read");
        assert_eq!(rows.iter().map(kind).collect::<Vec<_>>().join(" "), expected, "{query:?}");
    }
    assert_eq!(ledger.standing(), Some([(Verdict::Drifted, 1)].into()));
    ledger.close();
    assert_eq!(rows(&ledger, &Query::default()), Err("the daemon is stopping".to_owned()));
    let again = start();
    assert_eq!(rows(&again, &Query::default()).map(|rows| rows.len()), Ok(2));
}

#[test]
fn what_a_ledger_cannot_take_is_counted() {
    let folder = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(folder.path()).expect("it can be opened");
    let (sender, reports) = std::sync::mpsc::channel();
    let report = move |report| sender.send(report).expect("somebody listens");
    let ledger = Ledger::start(folder.path().to_owned(), KEEP, report).expect("a thread");
    let Ok(Report::Failure(Some(why))) = reports.recv() else { panic!("it can be opened twice") };
    assert!(why.contains("another process has it open"), "{why}");
    assert_eq!(rows(&ledger, &Query::default()), Err(why));
    (0..8192 + 5).for_each(|number| ledger.inlet().removed(number));
    drop(store);
    let told = [(); 2].map(|()| reports.recv().expect("it reports"));
    assert!(matches!(told, [Report::Failure(None), Report::Lost(5..)]), "{told:?}");
    let Ok(rows) = rows(&ledger, &Query::default()) else { panic!("it cannot be read") };
    assert!(matches!(&rows[..], [Row::Gap(gap), Row::End] if gap.why.contains("too slow")), "{rows:?}");
}

/// Whether what the pages say is what there is.
fn assert_consistent(accounts: &[Account]) {
    for Account { page, entries, sessions, .. } in accounts {
        assert_eq!(page.entries, entries.len() as u64);
        assert_eq!(page.sessions, sessions.len() as u64);
        assert_eq!(page.expected, entries.iter().filter(|entry| entry.is_expected()).count() as u64);
        let mut states = BTreeMap::new();
        for entry in entries.iter().filter(|entry| !entry.is_expected()) {
            *states.entry(entry.state().expect("something was done")).or_default() += 1;
        }
        assert_eq!(page.states, states);
    }
}

/// The variable that makes the next test a program that writes until it is killed.
const WRITES_TO: &str = "DETECTOR_TEST_LEDGER";

#[test]
#[ignore = "another test runs it in a process of its own"]
fn writes_until_it_is_killed() {
    let Some(folder) = env::var_os(WRITES_TO) else { return };
    let (store, _) = Store::open(folder.as_ref()).expect("it can be opened");
    let mut keeper = store.write(|tables| Keeper::load(tables, KEEP)).expect("it is one");
    let first = Told::Runs(Box::new(container()), time(0));
    store.write(|tables| keeper.take(first, tables)).expect("it can be written");
    for number in 0.. {
        let op = [ImageOp::Create, ImageOp::Unlink, ImageOp::OpenWrite][number as usize % 3];
        let found = change(op, Layer::Upper, &format!("/{}", number % 97), number);
        let finding = Finding { id: format!("{}-{}", std::process::id(), found.id), ..found };
        let written = store.write(|tables| {
            keeper.take(line(&finding), tables)?;
            keeper.pass(time(number), tables)
        });
        written.expect("it can be written");
    }
}

#[test]
fn a_killed_ledger_is_whole() {
    // Without a disk to wait for, more of the time is spent between the steps.
    let folder = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let mut before = 0;
    for round in 0..12_u64 {
        let mut writer = Command::new(env::current_exe().expect("this program"))
            .args(["--ignored", "--exact", "ledger::tests::writes_until_it_is_killed"])
            .env(WRITES_TO, folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("it can be started");
        thread::sleep(Duration::from_millis(150 + 37 * round));
        writer.kill().expect("it runs");
        writer.wait().expect("it was killed");
        let (store, told) = Store::open(folder.path()).expect("it can be opened");
        assert_eq!(told, None, "round {round}");
        let accounts = accounts(&store);
        assert_consistent(&accounts);
        let changes = accounts.iter().flat_map(|account| &account.entries).map(Entry::changes).sum();
        assert!(changes >= before, "round {round}: {changes} after {before}");
        before = changes;
    }
    assert!(before > 0, "no round was long enough");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever order lines come in, and however often: the same ledger.
    #[test]
    fn the_order_of_lines_makes_no_difference(
        acts in prop::collection::vec((0..5_usize, 0..4_usize, any::<bool>(), 1..4_u32), 1..20),
        seed in any::<u64>(),
    ) {
        let mut lines = Vec::new();
        for (number, (op, path, is_expected, revisions)) in acts.into_iter().enumerate() {
            let ops = [ImageOp::Create, ImageOp::OpenWrite, ImageOp::Unlink, ImageOp::Chmod, ImageOp::Mkdir];
            let layer = if number % 3 == 0 { Layer::Lower } else { Layer::Upper };
            let second = number as i128 + 1;
            // The first act of those that are counted happened at a path of its own.
            let path = if revisions > 1 { number + 10 } else { path };
            let mut finding = change(ops[op], layer, &format!("/{path}"), second);
            if is_expected {
                finding.expected = Some(Expected { reason: Reason::Startup, otherwise: Severity::Medium });
            }
            let count = |revision| counted(&finding, revision, revision.into(), &format!("/{path}/*"), second);
            lines.extend((2..=revisions).map(count).chain([finding.clone()]));
        }
        let last = |lines: &[Finding]| {
            let found = account(lines);
            assert_consistent(std::slice::from_ref(&found));
            let entries: Vec<_> = found.entries.iter().map(|entry| {
                (entry.subject.key(), entry.state(), entry.changes(), entry.severity(), entry.is_expected())
            }).collect();
            (entries, found.page.states, found.page.expected)
        };
        let in_order = last(&lines);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut shuffled: Vec<_> = lines.iter().chain(&lines).cloned().collect();
        random.shuffle(&mut shuffled);
        prop_assert_eq!(last(&shuffled), in_order);
    }
}

/// A container whose texts are these words: a file was changed, another was added and executed, and what is expected
/// was done, too. Somebody came in.
pub(crate) fn sample(words: &[u8]) -> Account {
    let path = |prefix: &str| Text::from(&[prefix.as_bytes(), words].concat()[..]);
    let mut expected = at(path("/var/log/"), change(ImageOp::Create, Layer::New, "/log", 4));
    expected.expected = Some(Expected { reason: Reason::Scratch, otherwise: Severity::Low });
    let added = Finding { severity: Severity::High, ..change(ImageOp::Create, Layer::New, "/bin", 2) };
    let findings = [
        at(path("/etc/"), change(ImageOp::OpenWrite, Layer::Lower, "/etc", 1)),
        at(path("/usr/bin/"), added),
        at(path("/usr/bin/"), executed("/bin", 3)),
        expected,
    ];
    let container = Container { pod: None, ..samples::known_container(words) };
    let of_it = |finding: Finding| line(&Finding { container: Some(container.clone()), ..finding });
    let runs = Told::Runs(Box::new(container.clone()), time(0));
    let session = samples::session(b"sh").into_iter().filter_map(|line| match line {
        Line::Finding(finding) if finding.finding == Kind::Session => Some(of_it(*finding)),
        _ => None,
    });
    let lost = notice(5, NoticeEvent::loss(Loss::Call, 1));
    let tolds = [Told::Scanned, runs, Told::Known(Box::new(container.clone())), lost].into_iter();
    let mut accounts = told_to(&Store::in_memory(), tolds.chain(findings.map(of_it)).chain(session).collect(), 100);
    accounts.pop().expect("there is one")
}

/// Replicas whose texts are these words. Of three pods, the second one executes a file that it has added, and the third
/// one changes another as an older container than the others. Of two containers without pods, one does something.
pub(crate) fn sample_replicas(words: &[u8]) -> Vec<Account> {
    let joined = |prefix: &str, suffix: &str| Text::from(&[prefix.as_bytes(), words, suffix.as_bytes()].concat()[..]);
    let state = |second| at(joined("/var/lib/", ""), change(ImageOp::Create, Layer::New, "/state", second));
    let log = |second| {
        let expected = Some(Expected { reason: Reason::Scratch, otherwise: Severity::Low });
        Finding { expected, ..at(joined("/var/log/", ""), change(ImageOp::Create, Layer::New, "/log", second)) }
    };
    let added = Finding { severity: Severity::High, ..change(ImageOp::Create, Layer::New, "/bin", 30) };
    let backup = [at(joined("/usr/bin/", ""), added), at(joined("/usr/bin/", ""), executed("/bin", 31))];
    let config = |second| at(joined("/etc/", ""), change(ImageOp::OpenWrite, Layer::Lower, "/etc", second));
    let container = |number: u8, has_pod| {
        let known = samples::known_container(words);
        let id = Some(text(&format!("{number:02x}").repeat(32)));
        let name = Some(if has_pod { words.into() } else { joined("", &format!("-{number}")) });
        let pod = known.pod.filter(|_| has_pod).map(|pod| Pod {
            name: Some(joined("", &format!("-5d4f8c7b9-x2k8{number}"))),
            owner: Some(Owner { kind: OwnerKind::Deployment, name: words.into() }),
            ..pod
        });
        let image = known.image.map(|image| Image { digest: Some(joined("sha256:", "")), ..image });
        Container { id, name, pod, image, ..known }
    };
    let mut pods = [
        account_of(&container(0, true), 0, &[state(3), log(4)]),
        account_of(&container(1, true), 0, &[&[state(3), log(5)], &backup[..]].concat()),
        account_of(&container(2, true), -100, &[state(-97), log(-95), config(90)]),
    ];
    pods[0].doubts = sample(words).doubts;
    let others =
        [account_of(&container(3, false), 0, &[config(20), log(21)]), account_of(&container(4, false), 0, &[log(21)])];
    pods.into_iter().chain(others).collect()
}

/// A finding about the file at this path.
fn at(path: Text, mut finding: Finding) -> Finding {
    finding.file.as_mut().expect("it has one").path = Some(path);
    finding
}
