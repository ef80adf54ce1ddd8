//! Screens, as they are drawn on a terminal that is none.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use jiff::SignedDuration;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier};

use super::containers::{Key, MOST_CONTAINERS};
use super::stories::{MOST_BYTES, MOST_LINES};
use super::*;
use crate::daemon::hub::Hub;
use crate::detect::samples;
use crate::finding::{Container, Finding, Line, Loss, Notice, NoticeEvent, Severity};
use crate::ledger::Row;
use crate::ledger::account::Account;
use crate::ledger::page::Verdict;
use crate::ledger::tests::sample;
use crate::output::escape::is_unsafe;
use crate::output::escape::tests::HOSTILE;
use crate::output::fit;
use crate::output::json;
use crate::output::live::tests::{change, scene, updated};
use crate::protocol::{DaemonState, ForwarderStatus, Status};
use crate::runtime::Unwatched;

const SIZE: (u16, u16) = (80, 24);

/// So many seconds after the first act of the scene.
fn at(second: i64) -> Time {
    let first: Time = "2027-01-15T08:00:05Z".parse().expect("it is a time");
    Time(first.0 + SignedDuration::from_secs(second))
}

/// A daemon that watches since an hour before.
fn status() -> Status {
    let mut status = Status { state: DaemonState::Ready, ..Hub::new("node-1".into()).status() };
    status.version = "0.1.0".to_owned();
    status.since = Time(at(0).0 - Duration::from_secs(3700));
    status.ledger = Some([(Verdict::Drifted, 1), (Verdict::Image, 2)].into());
    status.counters.findings = 3;
    status.counters.severities = [(Severity::High, 2), (Severity::Medium, 1)].into();
    status
}

/// Another container with these texts.
fn other(container: &Container, id: &str, name: &str) -> Container {
    let text = |text: &str| Some(text.as_bytes().into());
    let mut image = container.image.clone().expect("it has one");
    image.name = text(&format!("registry.example/{name}:17"));
    Container { id: text(&id.repeat(64)), name: text(name), image: Some(image), ..container.clone() }
}

/// The account of a container that was not changed.
fn unchanged(id: &str, name: &str) -> Account {
    static SAMPLE: LazyLock<Account> = LazyLock::new(|| sample(b"shop"));
    let mut account = SAMPLE.clone();
    let page = &mut account.page;
    page.container = other(&page.container, id, name);
    page.states.clear();
    (page.expected, page.executed, page.last) = (0, 0, None);
    Account { doubts: Vec::new(), entries: Vec::new(), sessions: Vec::new(), ..account }
}

fn census(accounts: Vec<Account>, now: Time) -> Census {
    let mut census = Census::new(now, status().since);
    for Account { page, entries, sessions, .. } in accounts {
        let of_it = entries.into_iter().map(|entry| Row::Entry(Box::new(entry)));
        let sessions = sessions.into_iter().map(|session| Row::Session(Box::new(session)));
        [Row::Page(Box::new(page))].into_iter().chain(of_it).chain(sessions).for_each(|row| census.take(row));
    }
    census.take(Row::End);
    census
}

fn tell(model: &mut Model, line: &Line, now: Time) -> bool {
    model.line(&json::line(line), now)
}

fn finding(line: &Line) -> &Finding {
    let Line::Finding(finding) = line else { panic!("no finding") };
    finding
}

/// A change in this container at this second.
fn changed(id: &str, name: &str, path: &str, severity: Severity, second: i64) -> Line {
    let Line::Finding(mut finding) = change(name.as_bytes(), path) else { panic!("no finding") };
    (finding.severity, finding.time) = (severity, at(second));
    finding.id = format!("{path}-{second}");
    finding.container.as_mut().expect("it is in one").id = Some(id.repeat(64).as_bytes().into());
    Line::Finding(finding)
}

/// A session that lasts, in a container that has drifted, beside two others.
fn model() -> Model {
    let mut model = Model::new(Severity::Low);
    model.status(Ok(Box::new(status())), at(0));
    let mut later = status();
    later.counters.events = 24;
    model.status(Ok(Box::new(later)), at(2));
    let lines = scene();
    let web = finding(&lines[0]).container.clone().expect("it is in one");
    let mut drifted = sample(b"shop");
    drifted.page.container = web;
    let accounts = vec![unchanged("c", "cache"), unchanged("d", "db"), drifted];
    model.census(Ok(census(accounts, at(3))), at(3));
    let is_over = |line: &Line| match line {
        Line::Finding(finding) => finding.summary.as_ref().is_some_and(|summary| summary.ended.is_some()),
        Line::Notice(notice) => matches!(notice.event, NoticeEvent::SessionEnded { .. }),
    };
    for mut line in lines.into_iter().filter(|line| !is_over(line)) {
        if let Line::Finding(finding) = &mut line
            && let Some(container) = &mut finding.container
            && container.name == Some(b"db"[..].into())
        {
            container.id = Some("d".repeat(64).as_bytes().into());
        }
        tell(&mut model, &line, at(7));
    }
    model
}

fn drawn(model: &Model, (columns, rows): (u16, u16), now: Time, color: bool) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).expect("memory takes it");
    terminal.draw(|frame| draw(frame, model, now, color)).expect("memory takes it");
    terminal.backend().buffer().clone()
}

/// The rows of a screen, as a terminal shows them.
fn rows(buffer: &Buffer) -> Vec<String> {
    let row = |y| {
        let (mut x, mut row) = (0, String::new());
        while x < buffer.area.width {
            let symbol = buffer[(x, y)].symbol();
            row.push_str(symbol);
            x += u16::try_from(fit::width(symbol)).expect("it is small").max(1);
        }
        row.trim_end().to_owned()
    };
    (0..buffer.area.height).map(row).collect()
}

fn shown(model: &Model, size: (u16, u16), now: Time) -> Vec<String> {
    rows(&drawn(model, size, now, false))
}

/// The names in the table, in their order.
fn names(model: &Model, now: Time) -> Vec<String> {
    model.containers.rows(model.order, now).iter().map(|(_, row)| row.name()).collect()
}

/// docs/top-80.txt and docs/top-160.txt are screens of 80×24 and 160×40 characters. README.md shows the first one.
#[test]
fn the_screens_in_the_documents_are_what_is_shown() {
    let mut model = model();
    model.press(Press::Down, at(8));
    for size @ (columns, _) in [SIZE, (160, 40)] {
        let text = shown(&model, size, at(12)).join("\n") + "\n";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/top-{columns}.txt"));
        let known = fs::read_to_string(&path).unwrap_or_default();
        assert!(known == text, "{} must be:\n{text}", path.display());
    }
    let indented = shown(&model, SIZE, at(12)).iter().map(|row| format!("    {row}\n")).collect::<String>();
    assert!(include_str!("../../../../README.md").contains(&indented), "README.md must show:\n{indented}");
}

#[test]
fn a_terminal_that_is_too_small_is_told_what_is_needed() {
    for size in [(59, 24), (80, 15), (20, 5), (1, 1)] {
        let text = shown(&model(), size, at(12)).join(" ");
        assert!(size.0 < 20 || text.starts_with("detector top needs"), "{text}");
    }
    let narrow = shown(&model(), (60, 16), at(12));
    assert!(narrow.iter().any(|row| row.contains("high     shop/")), "{narrow:#?}");
    assert!(narrow[15].starts_with("j/k choose"), "{narrow:#?}");
}

#[test]
fn there_are_colours_only_when_told() {
    let model = model();
    let styles = |color| {
        let buffer = drawn(&model, SIZE, at(12), color);
        let cells = buffer.content.iter();
        cells
            .filter(|cell| (cell.fg, cell.bg, cell.modifier) != (Color::Reset, Color::Reset, Modifier::empty()))
            .count()
    };
    assert_eq!(styles(false), 0);
    assert!(styles(true) > 300);
}

#[test]
fn what_reduces_what_is_seen_is_said_first() {
    let mut model = model();
    let mut lossy = status();
    lossy.counters.losses.insert("exec".to_owned(), 3);
    lossy.degraded = vec!["the hook mount is not attached".to_owned(), "the disk is full".to_owned()];
    lossy.unwatched = vec![Unwatched { rule: "ours".to_owned(), reason: "It is known.".to_owned(), containers: 2 }];
    let forwarder = ForwarderStatus {
        name: "siem".to_owned(),
        to: "tls://siem:6514".to_owned(),
        seq: 70,
        waiting: 9,
        oldest: Some(at(-100)),
        sent: 70,
        unlogged: 0,
        given_up: 0,
        refused: 0,
        failure: None,
        failing_since: None,
    };
    lossy.forwarders = vec![forwarder];
    model.status(Ok(Box::new(lossy)), at(8));
    model.line(b"{\"event\":\"of_the_future\"}\n", at(8));
    model.census(Err("this daemon keeps no ledger".to_owned()), at(8));
    let text = shown(&model, (120, 60), at(12));
    let expected = [
        "degraded: 2 reasons, see below; 3 losses",
        "findings: 3 (2 high, 1 medium) · 3 containers run, 1 drifted from the image",
        "3 lines are missing here, because this view was too slow; the log has them",
        "1 line of the daemon was not understood; use the same version of detector for both",
        "it is not known what has drifted: this daemon keeps no ledger",
        "degraded: the hook mount is not attached",
        "degraded: the disk is full",
        "forwarder siem: sent to tls://siem:6514 up to line 70; 9 lines to send, the oldest of 2027-01-15T07:58:25Z",
        "not watched: 2 containers by rule ours (It is known.)",
    ];
    assert_eq!(text[1..10], expected, "{text:#?}");
    let small = shown(&model, SIZE, at(12));
    assert_eq!(small[8], "and 3 more; `detector status` says all", "{small:#?}");
    // As soon as it does not hold any more, it is gone.
    model.status(Ok(Box::new(status())), at(13));
    model.census(Ok(census(Vec::new(), at(13))), at(13));
    let text = shown(&model, SIZE, at(13)).join("\n");
    assert!(!text.contains("degraded") && !text.contains("not watched") && !text.contains("it is not known"), "{text}");
}

#[test]
fn a_daemon_that_is_gone_is_missed_until_it_is_back() {
    let mut model = model();
    let stopped = NoticeEvent::Stopped { reason: "SIGTERM".to_owned() };
    tell(&mut model, &Line::Notice(Notice::at(at(8), "node-1".into(), stopped)), at(8));
    model.stop(at(9));
    model.status(Err("no daemon listens".to_owned()), at(10));
    assert!(model.is_alone());
    let text = shown(&model, SIZE, at(12));
    assert_eq!(text[1], "NOTHING IS SEEN since 3s: the detector stopped; waiting for it");
    assert!(!text.join("\n").contains("watching: "), "{text:#?}");
    assert_eq!(text.last_chunk::<2>().expect("there are more")[0], "the detector stopped; waiting for it");
    model.resume(at(19));
    let text = shown(&model, SIZE, at(19)).join("\n");
    assert!(!text.contains("NOTHING IS SEEN") && text.contains("the detector is back after 10.0 s;"), "{text}");
    // It said nothing this time.
    model.stop(at(20));
    assert!(shown(&model, SIZE, at(20)).join("\n").contains("without a word, as when it is killed"));
    // The stream goes on, but the daemon does not answer.
    model.resume(at(21));
    let text = shown(&model, SIZE, at(21)).join("\n");
    assert!(text.contains("what is said above is not of now: no daemon listens"), "{text}");
}

#[test]
fn the_order_is_what_a_person_wants() {
    let mut model = model();
    assert_eq!(names(&model, at(12)), ["shop/web-7d9f8b6c5d-x2x9z", "db", "cache"]);
    for number in 0..7 {
        tell(&mut model, &changed("c", "cache", &format!("/{number}"), Severity::Low, 10), at(10));
    }
    assert_eq!(names(&model, at(12)), ["shop/web-7d9f8b6c5d-x2x9z", "db", "cache"]);
    model.press(Press::Order(Order::Rate), at(12));
    assert_eq!(names(&model, at(12)), ["cache", "shop/web-7d9f8b6c5d-x2x9z", "db"]);
    model.press(Press::Order(Order::Name), at(12));
    assert_eq!(names(&model, at(12)), ["cache", "db", "shop/web-7d9f8b6c5d-x2x9z"]);
    let last = shown(&model, SIZE, at(12)).pop().expect("there are some");
    assert!(last.contains("d drift  r rate  [n name]"), "{last}");
}

#[test]
fn findings_are_counted_for_a_minute_and_their_severity_for_an_hour() {
    let mut model = Model::new(Severity::Low);
    let line = |path: &str, second| changed("a", "web", path, Severity::Medium, second);
    let first = line("/1", 0);
    tell(&mut model, &first, at(0));
    tell(&mut model, &line("/2", 30), at(30));
    // An update is no other finding, and what comes late counts with what came last.
    tell(&mut model, &updated(&first, "more"), at(30));
    tell(&mut model, &line("/3", 20), at(30));
    let row = |model: &Model, second| {
        let rows = model.containers.rows(Order::Drift, at(second));
        rows.first().map(|(_, row)| (row.per_minute(at(second)), row.severity(at(second))))
    };
    assert_eq!(row(&model, 59), Some((3, Some(Severity::Medium))));
    assert_eq!(row(&model, 60), Some((2, Some(Severity::Medium))));
    assert_eq!(row(&model, 90), Some((0, Some(Severity::Medium))));
    assert_eq!(row(&model, 3660), Some((0, Some(Severity::Medium))));
    // Nothing says that it still runs.
    assert_eq!(row(&model, 3661), None);
    // What is less than wanted is only counted.
    assert!(!tell(&mut model, &changed("b", "db", "/x", Severity::Info, 40), at(40)));
    assert_eq!((names(&model, at(40)), model.low), (vec!["web".to_owned()], 1));
    assert!(shown(&model, SIZE, at(40)).iter().any(|row| row.ends_with("1 line below low not shown")));
}

#[test]
fn events_are_counted_by_the_second() {
    let mut model = Model::new(Severity::Low);
    let counted = |events| {
        let mut status = status();
        status.counters.events = events;
        Ok(Box::new(status))
    };
    for (events, second, expected) in [(10, 0, None), (40, 2, Some(15)), (40, 2, None), (5, 3, None), (6, 5, Some(1))] {
        model.status(counted(events), at(second));
        assert_eq!(model.events_per_second, expected, "{events} {second}");
    }
}

#[test]
fn sessions_are_open_until_they_end() {
    let mut model = Model::new(Severity::Low);
    let open =
        |model: &Model| model.containers.rows(Order::Name, at(9)).iter().map(|(_, row)| row.open()).sum::<usize>();
    let lines = samples::session(b"sh");
    let mut session = finding(&lines[1]).clone();
    session.summary.as_mut().expect("it has one").ended = None;
    tell(&mut model, &Line::Finding(Box::new(session.clone())), at(1));
    assert_eq!(open(&model), 1);
    tell(&mut model, &lines[4], at(2));
    assert_eq!(open(&model), 0);
    tell(&mut model, &Line::Finding(Box::new(session)), at(3));
    model.resume(at(4));
    assert_eq!(open(&model), 0);
    // The ledger knows those that began before.
    let mut account = sample(b"shop");
    account.sessions[0].ended = None;
    model.census(Ok(census(vec![account.clone()], at(5))), at(5));
    assert_eq!(open(&model), 1);
    // Unless another daemon has seen them begin: it may not have seen their end.
    let mut model = Model::new(Severity::Low);
    account.sessions[0].started = Time(status().since.0 - Duration::from_secs(1));
    model.census(Ok(census(vec![account.clone()], at(5))), at(5));
    assert_eq!((names(&model, at(5)).len(), open(&model)), (1, 0));
    account.page.ended = Some(at(6));
    model.census(Ok(census(vec![account.clone()], at(3700))), at(3700));
    assert!(names(&model, at(3700)).is_empty());
}

#[test]
fn what_the_ledger_says_is_in_the_table() {
    let mut model = Model::new(Severity::Low);
    let mut ended = sample(b"old");
    (ended.page.ended, ended.page.container) = (Some(at(1)), other(&ended.page.container, "e", "old"));
    model.census(Ok(census(vec![sample(b"shop"), ended, unchanged("d", "db")], at(5))), at(5));
    let narrow = shown(&model, SIZE, at(5));
    let table: Vec<_> = narrow.iter().skip_while(|row| !row.contains("SEVERITY")).take(4).map(String::as_str).collect();
    assert_eq!(
        table,
        [
            "  SEVERITY CONTAINER              IMAGE          DRIFT            /MIN OPEN LAST",
            "  high     old                    old:17         ended, 2            0    0   6s",
            "  high     shop                   shop           2, 1 executed       0    0   6s",
            "  -        db                     db:17          its image           0    0    -",
        ]
    );
    let wide = shown(&model, (160, 40), at(5)).join("\n");
    assert!(wide.contains("drifted: 1 added, 1 changed, 1 of these executed"), "{wide}");
    // What another answer does not have is gone.
    model.census(Ok(census(vec![unchanged("d", "db")], at(3700))), at(3700));
    assert_eq!(names(&model, at(3700)), ["db"]);
}

#[test]
fn stories_are_those_of_all_or_of_the_chosen_one() {
    let mut model = model();
    let text = |model: &Model| shown(model, SIZE, at(12)).join("\n");
    assert!(text(&model).contains("pg_hba.conf"));
    // Nothing is chosen yet.
    model.press(Press::Only, at(12));
    assert!(!model.is_only);
    model.press(Press::Down, at(12));
    assert_eq!(model.chosen, Some(Key::Id(samples::ID.to_owned())));
    model.press(Press::Only, at(12));
    let only = text(&model);
    assert!(only.contains("STORIES of shop/web-7d9f8b6c5d-x2x9z only") && !only.contains("pg_hba.conf"), "{only}");
    assert!(only.contains("loss on node-1"), "what is about the detector itself is always shown: {only}");
    // The choice stays with the container.
    model.press(Press::Order(Order::Name), at(12));
    assert!(text(&model).lines().any(|row| row.starts_with("> high     shop/")));
    for (press, name) in [(Press::Up, "db"), (Press::First, "cache"), (Press::Up, "cache"), (Press::Last, "shop/web")] {
        model.press(press, at(12));
        assert!(text(&model).contains(&format!("STORIES of {name}")), "{name}");
    }
    model.press(Press::Down, at(12));
    model.press(Press::Only, at(12));
    assert!(text(&model).contains("pg_hba.conf"));
    model.press(Press::Help, at(12));
    let help = text(&model);
    assert!(help.contains("\nHELP\n") && help.contains("Ctrl-C  leave") && !help.contains("pg_hba.conf"), "{help}");
}

#[test]
fn an_update_is_told_in_place_or_if_that_is_far_above_at_the_end() {
    let mut model = Model::new(Severity::Low);
    let line = |number: usize| changed("a", "web", &format!("/{number}"), Severity::Low, 0);
    let told = |model: &Model| {
        model
            .stories
            .rows(None, Default::default(), 100)
            .iter()
            .map(|row| row.iter().map(|run| &*run.text).collect::<String>())
            .collect::<Vec<_>>()
    };
    (0..20).for_each(|number| _ = tell(&mut model, &line(number), at(0)));
    tell(&mut model, &updated(&line(19), "NEAR"), at(1));
    let rows = told(&model);
    assert!(rows.len() == 20 && rows[19].starts_with("08:00:05.000") && rows[19].contains("NEAR"), "{rows:#?}");
    for message in ["FAR", "FAR", "FURTHER"] {
        tell(&mut model, &updated(&line(0), message), at(1));
    }
    let rows = told(&model);
    assert!(rows.len() == 21 && rows[20].ends_with("update of 08:00:05.000: FURTHER"), "{rows:#?}");
    // The session of acts comes before them.
    let lines = samples::session(b"sh");
    [0, 1, 2].into_iter().for_each(|number| _ = tell(&mut model, &lines[number], at(2)));
    let rows = told(&model);
    let kinds = ["session ", "├ shell_in_container ", "├ image_write "];
    assert!(kinds.iter().zip(&rows[21..]).all(|(kind, row)| row.contains(kind)), "{rows:#?}");
}

#[test]
fn what_is_kept_is_bounded_and_what_is_left_out_is_said() {
    let mut model = Model::new(Severity::Low);
    let drifted = sample(b"shop");
    model.census(Ok(census(vec![drifted], at(0))), at(0));
    for number in 0..MOST_CONTAINERS + 5 {
        let mut line = changed("a", "web", &format!("/{number}"), Severity::Low, number as i64 / 100);
        let Line::Finding(finding) = &mut line else { panic!("no finding") };
        finding.container.as_mut().expect("it is in one").id = Some(format!("{number:064}").as_bytes().into());
        tell(&mut model, &line, at(10));
    }
    assert_eq!((names(&model, at(10)).len(), model.containers.left_out), (MOST_CONTAINERS, 6));
    assert_eq!(names(&model, at(10))[0], "shop");
    let text = shown(&model, SIZE, at(10)).join("\n");
    assert!(text.contains("for which there is no room, see `detector drift`"), "{text}");
    assert_eq!(model.stories.len(), MOST_LINES);
    // The last one stays visible.
    model.press(Press::Last, at(10));
    let text = shown(&model, SIZE, at(10)).join("\n");
    assert!(text.contains("\n> low ") && text.contains(" 994 above"), "{text}");
    model.press(Press::Only, at(10));
    let text = shown(&model, SIZE, at(10)).join("\n");
    assert!(text.contains("STORIES of web only, among the last 500 lines"), "{text}");
    // Long lines have less room.
    let long = "x".repeat(MOST_BYTES / 5);
    for number in 0..6 {
        let line = changed("a", "web", &format!("/{number}"), Severity::High, 1);
        tell(&mut model, &updated(&line, &long), at(11));
    }
    assert_eq!(model.stories.len(), 4);
    // The ledger may have more than there is room for, too.
    let accounts = (0..MOST_CONTAINERS + 3).map(|number| unchanged(&format!("{number:04}"), "web")).collect();
    let census = census(accounts, at(12));
    assert_eq!((census.known.len(), census.left_out), (MOST_CONTAINERS, 3));
}

#[test]
fn hostile_names_stay_in_their_place() {
    let wide = "日本".repeat(40).into_bytes();
    let long = b"checkout-".repeat(40);
    for hostile in HOSTILE.iter().copied().chain([&*wide, &*long, "e\u{301}👩🏽".as_bytes()]) {
        let mut model = Model::new(Severity::Low);
        let mut told = status();
        told.node = String::from_utf8_lossy(hostile).into_owned();
        told.degraded = vec![told.node.clone()];
        model.status(Ok(Box::new(told)), at(0));
        let account = sample(hostile);
        model.census(Ok(census(vec![account], at(5))), at(5));
        samples::session(hostile).iter().for_each(|line| _ = tell(&mut model, line, at(5)));
        tell(&mut model, &changed("b", "after", "/after", Severity::Low, 5), at(5));
        model.remark(String::from_utf8_lossy(hostile).into_owned());
        model.press(Press::Down, at(5));
        for size in [SIZE, (60, 16), (160, 40)] {
            for is_only in [true, false] {
                model.is_only = is_only;
                let buffer = drawn(&model, size, at(5), true);
                assert!(!buffer.content.iter().any(|cell| cell.symbol().contains(is_unsafe)), "{hostile:?}");
                let text = rows(&buffer);
                assert!(text.iter().all(|row| fit::width(row) <= size.0.into()), "{text:#?}");
                let after = text.iter().find(|row| row.starts_with("  low      after")).expect("it is there");
                assert!(after.ends_with("1    0   0s"), "{after}");
                assert!(text.last().expect("there are rows").starts_with("j/k choose"));
            }
        }
    }
}

#[test]
fn a_daemon_that_starts_is_not_one_that_watches() {
    let mut model = Model::new(Severity::Low);
    let text = shown(&model, SIZE, at(0));
    assert!(text[0].starts_with("detector top  ") && text[0].ends_with("08:00:05 UTC"), "{text:#?}");
    assert_eq!(text[1], "the daemon is asked how it is");
    model.status(Ok(Box::new(Status { state: DaemonState::Starting, ..status() })), at(0));
    assert_eq!(shown(&model, SIZE, at(0))[1], "the daemon is still starting");
}

#[test]
fn a_time_ago_has_four_characters() {
    for (seconds, expected) in [
        (-5, "0s"),
        (0, "0s"),
        (59, "59s"),
        (60, "1m"),
        (3599, "59m"),
        (86399, "23h"),
        (86400, "1d"),
        (1 << 30, "999d"),
    ] {
        assert_eq!(ago(at(0), at(seconds)), expected);
    }
}

#[test]
fn loss_of_this_client_is_told_apart_from_other_losses() {
    let mut model = Model::new(Severity::Low);
    for (kind, count) in [(Loss::Exec, 5), (Loss::Client, 4)] {
        tell(&mut model, &Line::Notice(Notice::at(at(0), "node-1".into(), NoticeEvent::loss(kind, count))), at(0));
    }
    assert_eq!(model.missed, 4);
}
