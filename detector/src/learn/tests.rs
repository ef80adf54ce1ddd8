//! What is learnt suppresses what it was learnt from, and nothing else.

use std::io::{self, BufReader};

use proptest::prelude::*;

use super::*;
use crate::detect::samples;
use crate::event::{Event, Layer};
use crate::finding::{
    Expected, Image, ImageOp, Line, Notice, NoticeEvent, Op, Overridden, Reason, Repeated, Summary, Via,
};
use crate::output::json;
use crate::policy::PathPattern;
use crate::policy::exception::TO_FILL_IN;

/// A change of a finding.
type Change = fn(&mut Finding);

fn text(text: &str) -> Text {
    Text::from(text.as_bytes())
}

fn time(second: i64) -> Time {
    Time(jiff::Timestamp::from_second(1_800_000_000 + second).expect("it is a time"))
}

/// A file that a program of the image creates.
fn write(path: &str) -> Finding {
    let change = samples::change(ImageOp::Create, Layer::New, 0o100_644, path);
    let found = samples::found(Event::ImageChange(Box::new(change))).expect("it is one");
    let image = Image { name: Some(text("registry.example/shop:1")), ..Image::default() };
    let container = Container { image: Some(image), ..found.container.clone().expect("it is in one") };
    let evidence = Evidence { path: true, exe: Some(text("/usr/bin/worker")), ..Evidence::default() };
    Finding {
        id: path.to_owned(),
        time: time(0),
        container: Some(container),
        evidence: Some(Box::new(evidence)),
        ..found
    }
}

/// A shell that a program of the image starts.
fn shell() -> Finding {
    let exec = samples::exec(crate::event::Origin::Application, "/bin/sh", &["sh", "-c", "true"]);
    let found = samples::found(Event::Exec(Box::new(exec))).expect("it is one");
    let ancestors = vec![text("/usr/bin/worker")];
    let evidence = Evidence { path: true, exe: Some(text("/bin/sh")), ancestors, ..Evidence::default() };
    Finding {
        id: "shell".to_owned(),
        evidence: Some(Box::new(evidence)),
        ..Finding { finding: found.finding, ..found }
    }
}

/// The act that begins a session.
fn session(id: &str) -> Finding {
    Finding { finding: Kind::Session, session: Some(id.to_owned()), id: id.to_owned(), ..write("/srv/x") }
}

fn changed(mut finding: Finding, change: impl FnOnce(&mut Finding)) -> Finding {
    change(&mut finding);
    finding
}

fn seen(findings: impl IntoIterator<Item = Finding>) -> Seen {
    let lines: Vec<u8> =
        findings.into_iter().flat_map(|finding| json::line(&Line::Finding(Box::new(finding))).to_vec()).collect();
    let mut seen = Seen::default();
    seen.read(&lines[..]).expect("the lines can be taken");
    seen
}

fn learnt_from(findings: impl IntoIterator<Item = Finding>) -> String {
    learn(&seen(findings), &Wanted::default(), time(100))
}

/// The policy in a text, which a person has filled in.
fn policy(text: &str) -> crate::policy::Policy {
    let (settings, problems) = config::parse(&text.replace(TO_FILL_IN, "it is known"), time(100));
    assert_eq!(problems.iter().count(), 0, "{text}\n{problems:?}");
    settings.policy()
}

fn is_suppressed(finding: Finding, policy: &crate::policy::Policy) -> bool {
    Verdict::of(&seen([finding]), policy).suppressed() == 1
}

#[test]
fn acts_in_several_containers_are_one_exception_with_its_evidence() {
    let acts = (0..6).map(|number| {
        changed(write(&format!("/srv/state/{}", ["a", "b", "c", "d", "e", "f"][number])), |finding| {
            finding.time = time(number as i64);
            finding.node.name = format!("node-{}", number % 2);
            finding.container.as_mut().expect("it is in one").cgroup_id = number as u64 % 3;
        })
    });
    let learnt = learnt_from(acts);
    assert_eq!(
        learnt,
        "# Learnt from 6 findings in 6 lines, written between 2027-01-15T08:00:00Z and 2027-01-15T08:00:05Z on 2 \
         nodes.\n\
         # It is what was seen in that time, and not all that these containers ever do. Read each exception, and\n\
         # fill in why it is harmless and who answers for it, before you use it.\n\
         # Exceptions: 1. They would have suppressed 6 of 6 findings above info.\n\
         \n\
         # Image registry.example/shop:1: seen in 6 containers with findings.\n\
         \n\
         # 6 acts (create 6), between 2027-01-15T08:00:00Z and 2027-01-15T08:00:05Z, in 6 containers on 2 nodes.\n\
         [[exception]]\n\
         name = \"registry.example/shop:1: image_write by /usr/bin/worker\"\n\
         reason = \"…\"\n\
         owner = \"…\"\n\
         expires = 2027-04-15\n\
         finding = \"image_write\"\n\
         severity_at_most = \"medium\"\n\
         operation = \"create\"\n\
         origin = \"application\"\n\
         path = \"/srv/state/*\"\n\
         exe = \"/usr/bin/worker\"\n\
         image = \"registry.example/shop:1\"\n"
    );
}

#[test]
fn what_was_learnt_suppresses_no_neighbour() {
    let policy = policy(&learnt_from([write("/srv/state"), write("/srv/other")]));
    assert_eq!(policy.exceptions.len(), 1);
    assert!(is_suppressed(write("/srv/state"), &policy));
    let neighbours: [(&str, Change); 7] = [
        ("path", |it| it.file.as_mut().expect("it has one").path = Some(text("/srv/third"))),
        ("operation", |it| it.file.as_mut().expect("it has one").op = Some(Op::Image(ImageOp::Unlink))),
        ("program", |it| it.evidence.as_mut().expect("it has some").exe = Some(text("/usr/bin/other"))),
        ("evidence", |it| it.evidence.as_mut().expect("it has some").path = false),
        ("origin", |it| it.process.as_mut().expect("it has one").origin = crate::finding::Origin::Entrypoint),
        ("severity", |it| it.severity = Severity::High),
        ("image", |it| {
            let image = it.container.as_mut().expect("it is in one").image.as_mut().expect("it is known");
            image.name = Some(text("registry.example/shop:2"));
        }),
    ];
    for (what, change) in neighbours {
        assert!(!is_suppressed(changed(write("/srv/state"), change), &policy), "{what}");
    }
}

/// Gives a finding another severity, as an override does.
fn overridden(it: &mut Finding, severity: Severity, otherwise: Severity) {
    (it.severity, it.overridden) = (severity, Some(Box::new(Overridden { by: "x".to_owned(), otherwise })));
}

#[test]
fn nothing_is_learnt_from_what_may_be_a_person_or_an_intruder() {
    let by_user: Change = |it| {
        it.container.as_mut().expect("it is in one").cgroup = Some(text("/user.slice/user-7.slice/x.scope"));
    };
    let cases: [(Omitted, Change); 16] = [
        (Omitted::Quiet, |it| it.severity = Severity::Info),
        (Omitted::Quiet, |it| {
            it.expected = Some(Expected { reason: Reason::Scratch, otherwise: Severity::Medium });
        }),
        (Omitted::Suppressed, |it| it.suppressed_by = Some(text("another"))),
        (Omitted::Refused, |it| it.finding = Kind::DeviceWrite),
        (Omitted::Refused, |it| it.severity = Severity::Critical),
        (Omitted::InSession, |it| it.session = Some("s".to_owned())),
        (Omitted::Program, |it| it.finding = Kind::DriftedExec),
        (Omitted::Shell, |it| it.finding = Kind::ShellInContainer),
        (Omitted::High, |it| it.severity = Severity::High),
        (Omitted::High, |it| overridden(it, Severity::Critical, Severity::Medium)),
        (Omitted::High, |it| overridden(it, Severity::Low, Severity::High)),
        (Omitted::NoImage, |it| it.container.as_mut().expect("it is in one").image = None),
        (Omitted::NoImage, by_user),
        (Omitted::NoEvidence, |it| it.evidence.as_mut().expect("it has some").exe = None),
        (Omitted::NoEvidence, |it| it.evidence.as_mut().expect("it has some").path = false),
        (Omitted::NoEvidence, |it| it.file.as_mut().expect("it has one").path = Some(text("srv/a"))),
    ];
    for (why, change) in cases {
        let learnt = learnt_from([changed(write("/srv/state"), change)]);
        assert!(learnt.contains(&format!("#   {}: 1\n", why.text())), "{why:?}:\n{learnt}");
        assert!(!learnt.contains("[[exception]]"), "{why:?}:\n{learnt}");
    }
}

#[test]
fn nothing_is_learnt_after_a_session_has_changed_the_container() {
    let before = changed(write("/srv/before"), |it| it.time = time(1));
    let after = changed(write("/srv/after"), |it| it.time = time(3));
    let elsewhere = changed(after.clone(), |it| {
        it.id = "elsewhere".to_owned();
        it.container.as_mut().expect("it is in one").cgroup_id = 9;
    });
    let act = changed(write("/srv/by-hand"), |it| (it.time, it.session) = (time(2), Some("s".to_owned())));
    let learnt = learnt_from([after, before, act, elsewhere]);
    assert!(learnt.contains("path = [\"/srv/after\", \"/srv/before\"]"), "{learnt}");
    assert!(learnt.contains("# 2 acts (create 2)"), "{learnt}");
    assert!(learnt.contains(&format!("#   {}: 1\n", Omitted::AfterSession.text())), "{learnt}");
}

#[test]
fn shells_are_learnt_only_if_they_are_asked_for() {
    let image = write("/srv/x").container;
    let shell = changed(shell(), |it| it.container = image);
    assert!(!learnt_from([shell.clone()]).contains("[[exception]]"));
    let learnt = learn(&seen([shell.clone()]), &Wanted { shells: true, ..Wanted::default() }, time(100));
    assert!(learnt.contains("path = \"/bin/sh\"\nancestor = \"/usr/bin/worker\"\n"), "{learnt}");
    assert!(learnt.contains("Seen only once."), "{learnt}");
    assert!(is_suppressed(shell, &policy(&learnt)), "{learnt}");
}

#[test]
fn only_the_image_that_is_asked_for_is_learnt() {
    let selection =
        |glob: &str| Selection { image: vec![glob.parse().expect("it is a pattern")], ..Selection::default() };
    let wanted = |glob: &str| Wanted { selection: selection(glob), ..Wanted::default() };
    let all = seen([write("/srv/state")]);
    assert!(learn(&all, &wanted("registry.example/*"), time(100)).contains("[[exception]]"));
    let learnt = learn(&all, &wanted("nginx:*"), time(100));
    assert!(learnt.contains(Omitted::OtherImage.text()) && !learnt.contains("[[exception]]"), "{learnt}");
}

/// A finding about many acts.
fn many(path: &str, names: &[&str], change: impl FnOnce(&mut Repeated)) -> Finding {
    let mut repeated = Repeated {
        count: 500,
        operations: BTreeMap::new(),
        first: time(0),
        last: time(50),
        paths: None,
        names: names.iter().map(|name| text(name)).collect(),
        names_omitted: 0,
        commands: Vec::new(),
        commands_omitted: 0,
        counted_in_kernel: 0,
        by: None,
    };
    change(&mut repeated);
    changed(write(path), |it| (it.time, it.repeated) = (time(50), Some(Box::new(repeated))))
}

#[test]
fn counted_acts_are_learnt_with_what_their_paths_have_in_common() {
    let names = ["/srv/cache/1", "/srv/cache/2"];
    let cached = |change: fn(&mut Repeated)| learnt_from([many("/srv/cache/1", &names, change)]);
    let all = cached(|it| (it.names_omitted, it.paths) = (498, Some(text("/srv/cache/*"))));
    assert!(all.contains("path = \"/srv/cache/*\"\n") && all.contains("# 500 acts (create 500)"), "{all}");
    // A file that replaces another one had another name before.
    let replaced = cached(|it| it.operations = [(ImageOp::Create, 500), (ImageOp::Rename, 500)].into());
    assert!(replaced.contains("path = \"/srv/cache/*\"\n"), "{replaced}");
    assert!(replaced.contains("operation = [\"create\", \"rename\"]\n"), "{replaced}");
    let omitted = |learnt: String, why: Omitted| {
        assert!(learnt.contains(why.text()) && !learnt.contains("[[exception]]"), "{learnt}");
    };
    omitted(cached(|it| it.names_omitted = 1), Omitted::NoPattern);
    omitted(cached(|it| (it.names_omitted, it.paths) = (1, Some(text("/*")))), Omitted::NoPattern);
    omitted(cached(|it| (it.names_omitted, it.paths) = (1, Some(text("/etc/**")))), Omitted::NoPattern);
    omitted(cached(|it| it.by = Some(vec![text("apt-get")])), Omitted::Installation);
}

#[test]
fn patterns_are_few_and_never_stand_for_what_matters() {
    let of = |paths: &[&str]| globs::of(&paths.iter().map(|path| (*path).to_owned()).collect(), &BTreeSet::new());
    let some = |patterns: &[&str]| Some(patterns.iter().map(|pattern| (*pattern).to_owned()).collect::<Vec<_>>());
    for (paths, patterns) in [
        (&["/srv/a", "/srv/b", "/srv/c"][..], &["/srv/a", "/srv/b", "/srv/c"][..]),
        (&["/srv/a", "/srv/b", "/srv/c", "/srv/d"], &["/srv/*"]),
        (&["/srv/tmp17", "/srv/tmp18", "/srv/log"], &["/srv/log", "/srv/tmp*"]),
        (&["/a", "/b", "/c", "/d"], &["/a", "/b", "/c", "/d"]),
        (&["/a/x", "/b/x", "/c/x", "/d/x"], &["/a/x", "/b/x", "/c/x", "/d/x"]),
        (&["/srv/a/x", "/srv/b/x", "/srv/c/x", "/srv/d/x"], &["/srv/*/x"]),
        (
            &["/usr/bin/a", "/usr/bin/b", "/usr/bin/c", "/usr/bin/d"],
            &["/usr/bin/a", "/usr/bin/b", "/usr/bin/c", "/usr/bin/d"],
        ),
        (&["/opt/x/bin/a1", "/opt/x/bin/a2"], &["/opt/x/bin/a1", "/opt/x/bin/a2"]),
        (&["/usr/a", "/usr/b", "/usr/c", "/usr/d"], &["/usr/a", "/usr/b", "/usr/c", "/usr/d"]),
        (&["/etc/a", "/etc/b", "/etc/c", "/etc/d"], &["/etc/a", "/etc/b", "/etc/c", "/etc/d"]),
        (&["/etc/app/a", "/etc/app/b", "/etc/app/c", "/etc/app/d"], &["/etc/app/*"]),
        (&["/srv/[a]"], &[r"/srv/\[a\]"]),
        // At the top, a backslash before a number.
        (&[r"/\1/a", r"/\2/a"], &[r"/\\1/a", r"/\\2/a"]),
        (&["/srv/a/1", "/srv/b/1", "/srv/c/3", "/srv/d/4"], &["/srv/a/1", "/srv/b/1", "/srv/c/3", "/srv/d/4"]),
    ] {
        assert_eq!(of(paths), some(patterns), "{paths:?}");
    }
    let scattered: Vec<_> = (0..60)
        .map(|n| format!("/v{}/{}", char::from(b'a' + n % 26).to_string().repeat(3 + n as usize / 26), "x"))
        .collect();
    assert_eq!(of(&scattered.iter().map(String::as_str).collect::<Vec<_>>()), None);
}

proptest! {
    #[test]
    fn every_path_has_a_pattern(
        paths in proptest::collection::btree_set("(/(srv|usr|etc|bin|a1b2|x\\*|[a-d]|[0-9]{1,3})){1,4}", 1..40),
    ) {
        if let Some(patterns) = globs::of(&paths, &BTreeSet::new()) {
            let patterns: Vec<PathPattern> =
                patterns.iter().map(|pattern| pattern.parse().expect("it is a pattern")).collect();
            for path in &paths {
                prop_assert!(patterns.iter().any(|pattern| pattern.matches(path.as_bytes())), "{path} {patterns:?}");
            }
            for matters in ["/bin/new", "/usr/bin/new", "/etc/passwd", "/etc/cron.d/new", "/new", "/root/.ssh/new"] {
                let is_covered = patterns.iter().any(|pattern| pattern.matches(matters.as_bytes()));
                prop_assert!(!is_covered, "{matters} {patterns:?}");
            }
        }
    }
}

#[test]
fn a_check_says_what_a_policy_suppresses_and_what_remains() {
    let exceptions = learnt_from([write("/srv/state")]);
    let unused = exceptions.replace("shop:1: image_write", "unused").replace("/srv/state", "/srv/never");
    let unused = &unused[unused.find("[[exception]]").expect("there is one")..];
    let policy = policy(&format!("{exceptions}\n{unused}"));
    let session = |id: &str, change: fn(&mut Finding)| changed(session(id), change);
    let all = seen([
        write("/srv/state"),
        many("/srv/counted", &["/srv/state", "/srv/other"], |it| it.count = 2),
        changed(write("/srv/high"), |it| (it.severity, it.message) = (Severity::High, "a\u{1b}[2J".to_owned())),
        changed(write("/srv/quiet"), |it| it.severity = Severity::Info),
        session("by-its-act", |it| it.severity_rule = None),
    ]);
    let verdict = Verdict::of(&all, &policy);
    let mut out = Vec::new();
    verdict.write(&mut out).expect("memory can be written");
    let out = String::from_utf8(out).expect("it is text");
    assert!(out.contains("registry.example/unused by /usr/bin/worker: nothing; "), "{out}");
    assert!(out.contains("remaining:  2 findings about 3 acts"), "{out}");
    assert!(out.contains("  high image_write, registry.example/shop:1: 1 finding, such as: a\\u{1b}[2J"), "{out}");
    assert!(out.contains("no exception is needed: 2 findings"), "{out}");
}

#[test]
fn lines_that_are_no_findings_are_told() {
    let mut seen = Seen::default();
    let line = json::line(&Line::Finding(Box::new(write("/srv/state"))));
    let later = changed(write("/srv/state"), |it| (it.revision, it.severity) = (3, Severity::High));
    let later = json::line(&Line::Finding(Box::new(later)));
    seen.read(&[&later[..], b"no JSON\n", &line[..]].concat()[..]).expect("the lines can be taken");
    let learnt = learn(&seen, &Wanted::default(), time(100));
    assert!(learnt.contains("# Not covered: lines that are not the detector's, or are damaged: 1."), "{learnt}");
    // The later revision counts, wherever it is.
    assert!(learnt.contains(Omitted::High.text()), "{learnt}");
    assert!(learn(&Seen::default(), &Wanted::default(), time(100)).starts_with("# Learnt from nothing"));
    let endless = BufReader::new(io::repeat(b'x'));
    assert!(Seen::default().read(endless).expect_err("it has no end").to_string().starts_with("line 1 is longer"));
}

#[test]
fn what_a_runtime_has_told_later_counts() {
    let known = write("/srv/state");
    let unknown = changed(known.clone(), |it| it.container.as_mut().expect("it is in one").image = None);
    let told = |change: fn(&mut Container)| {
        let mut container = Box::new(known.container.clone().expect("it is in one"));
        change(&mut container);
        let notice = Notice::now("node-1".into(), NoticeEvent::ContainerInfo { container });
        let lines = [Line::Finding(Box::new(unknown.clone())), Line::Notice(notice)].map(|line| json::line(&line));
        let mut seen = Seen::default();
        seen.read(&lines.concat()[..]).expect("the lines can be taken");
        learn(&seen, &Wanted::default(), time(100))
    };
    assert!(told(|_| {}).contains("image = \"registry.example/shop:1\""));
    assert!(told(|it| it.id = Some(text("another"))).contains(Omitted::NoImage.text()));
    assert!(told(|it| it.cgroup_id = 9).contains(Omitted::NoImage.text()));
}

#[test]
fn the_files_of_a_session_show_since_when_a_container_was_changed() {
    let summary = Summary {
        via: Via::Exec,
        started: time(2),
        resumed: None,
        ended: None,
        end_not_seen: false,
        peer: None,
        started_by: None,
        programs: Vec::new(),
        programs_omitted: 0,
        files: vec![crate::finding::SessionFile {
            path: text("/srv/x"),
            new_path: None,
            op: ImageOp::Create,
            count: 1,
        }],
        files_omitted: 0,
        findings: BTreeMap::new(),
    };
    let session = changed(session("s"), |it| it.summary = Some(Box::new(summary)));
    let learnt = learnt_from([session, changed(write("/srv/after"), |it| it.time = time(3))]);
    assert!(learnt.contains(Omitted::AfterSession.text()), "{learnt}");
}
