//! What is proposed holds for the finding, and for none that differs from it in one fact.

use proptest::prelude::*;

use super::*;
use crate::container::table::TrackedContainer;
use crate::detect::Detector;
use crate::detect::samples;
use crate::event::{Event, Exec, Layer, Session};
use crate::finding::{Container, Image, ImageOp, Line, Origin, Pod, SeverityRule, Text, Via};
use crate::policy::exception::TO_FILL_IN;

/// An act in a container of which a runtime tells.
#[derive(Clone, Debug, PartialEq)]
struct Act {
    what: What,
    /// The file that is changed or executed.
    path: String,
    /// The program that does it, or that starts what is executed.
    by: String,
    /// The script that this program runs.
    script: Option<String>,
    origin: Origin,
    via: Option<Via>,
    has_terminal: bool,
    image: String,
    container: String,
    namespace: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Change(ImageOp),
    Shell,
    Drift,
    Session,
}

impl Act {
    fn new(what: What, path: &str) -> Self {
        Self {
            what,
            path: path.to_owned(),
            by: "/usr/bin/worker".to_owned(),
            script: None,
            origin: Origin::Application,
            via: None,
            has_terminal: false,
            image: "registry.example/shop:1".to_owned(),
            container: "shop".to_owned(),
            namespace: None,
        }
    }

    /// The events that show it: the start of the program, and the act.
    fn events(&self) -> Vec<Event> {
        let session = self.via.map(|via| Session { start_time: 5, pid: 9, via });
        let mut program = samples::exec(self.origin, &self.by, &[&self.by]);
        (program.process.pid, program.process.start_time, program.at.time) = (9, 5, 6);
        program.process.session = session;
        program.process.tty = self.has_terminal.then(|| samples::name("pts0"));
        let mut events = Vec::new();
        if let Some(script) = &self.script {
            let found = samples::script(script);
            events.push(Event::Script(Box::new(crate::event::Script { pid: 9, ..found })));
            (program.is_interpreter, program.head) = (true, Some([0; 256]));
            program.args = samples::args(&[&self.by, script]);
        }
        let by = program.process.clone();
        events.push(Event::Exec(Box::new(program)));
        match self.what {
            What::Session => {}
            What::Change(op) => {
                let mut change = samples::change(op, Layer::Lower, 0o100_644, &self.path);
                let detail = change.detail.as_mut().expect("the sample has it");
                (detail.process, detail.exe) = (by, samples::path(&self.by));
                events.push(Event::ImageChange(Box::new(change)));
            }
            What::Shell | What::Drift => {
                let mut exec: Exec = samples::exec(self.origin, &self.path, &[&self.path, "-c", "true"]);
                (exec.process.session, exec.process.tty) = (session, by.tty);
                exec.file.layer = Some(if self.what == What::Drift { Layer::Upper } else { Layer::Lower });
                let above = &mut exec.process.ancestors[0];
                (above.pid, above.start_time, above.in_container) = (9, 5, true);
                events.push(Event::Exec(Box::new(exec)));
            }
        }
        events
    }

    fn kind(&self) -> Kind {
        match self.what {
            What::Change(_) => Kind::ImageWrite,
            What::Shell => Kind::ShellInContainer,
            What::Drift => Kind::DriftedExec,
            What::Session => Kind::Session,
        }
    }

    /// The finding, with what the runtime tells, as a detector with this policy makes it.
    fn finding(&self, policy: Policy) -> Finding {
        let (mut detector, context) = (Detector::default(), samples::context());
        let container = TrackedContainer { root_dev: Some(45), ..samples::container() };
        let mut found = Vec::new();
        detector.set_policy(policy);
        for event in self.events() {
            detector.detect(&event, &container, &context, |finding| found.push(finding));
        }
        detector.stop(100, &context, |line| {
            if let Line::Finding(finding) = line {
                found.push(*finding);
            }
        });
        let text = |text: &String| Text::from(text.as_bytes());
        let finding = found.into_iter().rfind(|finding| finding.finding == self.kind()).expect("it is found");
        let known = Container {
            name: Some(text(&self.container)),
            image: Some(Image { name: Some(text(&self.image)), ..Image::default() }),
            pod: self.namespace.as_ref().map(|name| Pod { namespace: Some(text(name)), ..Pod::default() }),
            ..finding.container.clone().expect("it is in one")
        };
        Finding { container: Some(known), ..finding }
    }

    /// Whether the policy suppresses it, by the code that decides when it happens.
    fn is_suppressed_by(&self, policy: &Policy) -> bool {
        let finding = self.finding(policy.clone());
        let candidates = match finding.finding {
            Kind::Session => finding.parts.iter().map(|part| part.candidates.as_ref()).collect(),
            _ => vec![finding.candidates.as_ref()],
        };
        let container = finding.container.as_ref().expect("it is in one");
        let holds = |candidates: &crate::policy::Candidates| {
            candidates.exception(finding.severity, finding.time, container, false).is_some()
        };
        !candidates.is_empty() && candidates.into_iter().all(|candidates| candidates.is_some_and(holds))
    }

    /// Acts that differ in one fact.
    fn neighbours(&self) -> Vec<Self> {
        let other = |text: &str| format!("{text}x");
        let own = || self.clone();
        let mut all = vec![
            Self { by: other(&self.by), script: None, ..own() },
            Self { image: other(&self.image), ..own() },
            Self { container: other(&self.container), ..own() },
        ];
        all.extend(self.script.as_ref().map(|script| Self { script: Some(other(script)), ..own() }));
        all.extend(self.namespace.as_ref().map(|name| Self { namespace: Some(other(name)), ..own() }));
        let via = if self.via == Some(Via::Exec) { Via::Nsenter } else { Via::Exec };
        all.push(Self { origin: Origin::Entered, via: Some(via), ..own() });
        if let What::Change(op) = self.what {
            let other_op = if op == ImageOp::Create { ImageOp::Truncate } else { ImageOp::Create };
            all.push(Self { what: What::Change(other_op), ..own() });
            // What a pattern with the same characters would stand for.
            let replaced = self.path.replace(['*', '?', '[', ']', '{', '}', ',', '\\'], "y");
            all.extend([other(&self.path), format!("{}/x", self.path), replaced].map(|path| Self { path, ..own() }));
        }
        if self.what == What::Shell {
            all.push(Self { path: "/bin/bash".to_owned(), ..own() });
            all.extend((!self.has_terminal).then(|| Self { has_terminal: true, ..own() }));
        }
        if self.what == What::Drift {
            all.push(Self { path: other(&self.path), ..own() });
        }
        all.retain(|act| act != self);
        all
    }
}

fn now() -> Time {
    "2026-11-30T12:00:00Z".parse().expect("it is a time")
}

/// The policy with what is proposed for a finding alone, as the configuration file gives it.
fn proposed(finding: &Finding) -> Policy {
    let proposal = proposal::propose(finding, now()).expect("there is an exception for it");
    // As somebody fills it in.
    let (settings, problems) = crate::config::parse(&proposal.toml.replace(TO_FILL_IN, "it is known"), now());
    assert_eq!(problems.iter().count(), 0, "{}{problems:?}", proposal.toml);
    settings.policy()
}

/// Expects that what is proposed for the act suppresses that, and none of its neighbours.
fn expect_exact(act: &Act) {
    let policy = proposed(&act.finding(Policy::default()));
    assert!(act.is_suppressed_by(&policy), "{act:?} is not suppressed by {policy:?}");
    let read_back = act.finding(Policy::default());
    let json = crate::output::json::line(&Line::Finding(Box::new(read_back)));
    let read_back: Finding = serde_json::from_slice(&json).expect("it is a finding");
    let subject = Subject::of(&read_back).expect("it has evidence");
    assert_eq!(unfulfilled(&read_back, &subject, &policy.exceptions[0]), [""; 0], "{read_back:?}");
    for neighbour in act.neighbours() {
        assert!(!neighbour.is_suppressed_by(&policy), "{neighbour:?} is suppressed by {policy:?}");
    }
}

#[test]
fn a_proposal_is_exact() {
    let change = || Act::new(What::Change(ImageOp::OpenWrite), "/etc/app.conf");
    let entered = |act: Act, via| Act { origin: Origin::Entered, via: Some(via), ..act };
    let script = Some("/srv/render.py".to_owned());
    for act in [
        change(),
        Act { script, by: "/usr/bin/python3".to_owned(), ..change() },
        Act { namespace: Some("shop".to_owned()), ..change() },
        entered(change(), Via::Exec),
        Act::new(What::Change(ImageOp::Create), "/usr/bin/added"),
        Act::new(What::Shell, "/bin/dash"),
        Act { has_terminal: true, ..entered(Act::new(What::Shell, "/bin/dash"), Via::Nsenter) },
        Act::new(What::Drift, "/srv/tool"),
        Act { by: "/usr/bin/top".to_owned(), ..entered(Act::new(What::Session, ""), Via::Exec) },
    ] {
        expect_exact(&act);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_proposal_is_exact_whatever_the_names_are(
        name in r#"[*?!\[\]{}\\,"'a-c ü\n\u{1b}-]{1,12}"#,
        program in r"[*?\[\]{}\\a-c]{1,8}",
        image in r#"[*?\[\]{}\\,"a-c/:]{1,12}"#,
    ) {
        let change = Act::new(What::Change(ImageOp::Truncate), &format!("/srv/{name}"));
        expect_exact(&Act { by: format!("/usr/bin/{program}"), image, ..change });
    }
}

#[test]
fn a_count_is_excepted_with_all_its_paths_or_not_at_all() {
    let finding = |count: usize| {
        let finding = Act::new(What::Change(ImageOp::Create), "/srv/0").finding(Policy::default());
        let repeated = crate::finding::Repeated {
            count: count as u64,
            operations: [(ImageOp::Create, 1), (ImageOp::Chmod, 1)].into(),
            first: finding.time,
            last: finding.time,
            paths: Some(Text::from(&b"/srv/*"[..])),
            names: (0..count.min(8)).map(|nth| Text::from(format!("/srv/{nth}").as_bytes())).collect(),
            names_omitted: count.saturating_sub(8) as u64,
            commands: Vec::new(),
            commands_omitted: 0,
            counted_in_kernel: 0,
            by: None,
        };
        Finding { repeated: Some(Box::new(repeated)), ..finding }
    };
    let conditions = proposed(&finding(3)).exceptions.remove(0).conditions;
    let paths: Vec<_> = conditions.path.iter().map(crate::policy::PathPattern::as_str).collect();
    assert_eq!((paths, conditions.operation.len()), (vec!["/srv/0", "/srv/1", "/srv/2"], 2));
    let why = proposal::propose(&finding(9), now()).expect_err("it does not list all paths");
    assert!(why.contains("more paths than it lists") && why.contains("such as /srv/*"), "{why}");
    let mut moved = finding(3);
    let repeated = moved.repeated.as_mut().expect("it has it");
    repeated.operations.insert(ImageOp::Rename, 3);
    assert!(proposal::propose(&moved, now()).expect_err("it does not list all paths").contains("other names"));
}

#[test]
fn what_cannot_be_excepted_says_why() {
    let finding = || Act::new(What::Change(ImageOp::Create), "/srv/x").finding(Policy::default());
    let why = |alter: fn(&mut Finding)| {
        let mut finding = finding();
        alter(&mut finding);
        proposal::propose(&finding, now()).expect_err("there is none")
    };
    assert!(why(|finding| finding.finding = Kind::HostExec).contains("executed on the host"));
    assert!(why(|finding| finding.finding = Kind::VolumeExec).contains("whoever can mount something"));
    assert!(why(|finding| finding.severity = Severity::Critical).contains("critical"));
    assert!(why(|finding| finding.expect(Reason::Scratch)).contains("it is expected"));
    assert!(why(|finding| finding.suppressed_by = Some(Text::default())).contains("suppresses it already"));
    assert!(why(|finding| finding.evidence = None).contains("details were lost"));
    assert!(why(|finding| finding.evidence.as_mut().expect("it has some").path = false).contains("no evidence"));
    let no_text = |finding: &mut Finding| {
        finding.file.as_mut().expect("it has one").path = Some(Text::from(&b"/srv/\xff"[..]));
    };
    assert!(why(no_text).contains("not text in UTF-8"));
    let mut session = Act { via: Some(Via::Exec), ..Act::new(What::Session, "") }.finding(Policy::default());
    // An act in it is worse than the session itself, for which such an exception would be too wide.
    let worse = Finding { severity_rule: Some(SeverityRule::Drift), severity: Severity::High, ..session.clone() };
    assert!(proposal::propose(&worse, now()).expect_err("there is none").contains("by an act in it"));
    session.summary.as_mut().expect("it has one").via = Via::Application;
    assert!(proposal::propose(&session, now()).expect_err("there is none").contains("a session of `application`"));
}

#[test]
fn where_a_runtime_tells_nothing_the_proposal_says_so() {
    let mut finding = Act::new(What::Change(ImageOp::Create), "/srv/x").finding(Policy::default());
    let remarks = |finding: &Finding| proposal::propose(finding, now()).expect("there is one").remarks.concat();
    assert!(!remarks(&finding).contains("every container"));
    // What a user's runtime tells counts for nothing.
    let container = finding.container.as_mut().expect("it is in one");
    container.cgroup = Some(Text::from(&b"/user.slice/user-1000.slice/x"[..]));
    assert!(remarks(&finding).contains("every container of the node"));
}

#[test]
fn what_has_decided_is_told() {
    let change = |path: &str| Act::new(What::Change(ImageOp::Create), path);
    let finding = change("/srv/x").finding(Policy::default());
    let mut policy = proposed(&change("/srv/other").finding(Policy::default()));
    policy.exceptions.insert(0, {
        let mut far = policy.exceptions[0].clone();
        far.name = "far".to_owned();
        far.conditions.finding = vec![Kind::ShellInContainer];
        far
    });
    let known = |policy: &Policy| Known { policy: policy.clone(), file: Some("/etc/x.toml".to_owned()), refused: None };
    let decided = decision(&finding, &known(&policy));
    assert_eq!((decided.outcome, decided.unfulfilled), (Outcome::Reported, vec!["path"]));
    assert!(decided.text.ends_with("but its `path` is `/srv/other`"), "{}", decided.text);
    assert!(decision(&finding, &known(&Policy::default())).text.contains("no exceptions in /etc/x.toml"));
    let holding = decision(&finding, &known(&proposed(&finding)));
    assert!(holding.unfulfilled.is_empty() && holding.text.contains("before the exception was loaded"));
    let suppressed = Finding { suppressed_by: Some(Text::from(&b"far"[..])), ..finding.clone() };
    let decided = decision(&suppressed, &known(&policy));
    assert_eq!((decided.outcome, decided.exception.as_deref()), (Outcome::Suppressed, Some("far")));
    let critical = Finding { evidence: None, ..finding.clone() };
    assert_eq!(decision(&critical, &known(&policy)).text, "no exception can hold for it");
    let mut expected = finding.clone();
    expected.expect(Reason::Startup);
    let decided = decision(&expected, &known(&policy));
    assert!(decided.outcome == Outcome::Expected && decided.text.contains("would be medium otherwise"));
}

#[test]
fn hostile_names_are_escaped() {
    let name = String::from_utf8_lossy(b"/srv/\x1b[2J\"\n\xe2\x80\xae").into_owned();
    let finding = Act::new(What::Change(ImageOp::Create), &name).finding(Policy::default());
    let explanation = Explanation::of(&finding, &Known::default(), now());
    let mut shown = Vec::new();
    text::write(&mut shown, &explanation).expect("memory takes all");
    shown.extend(crate::output::json::object(&explanation));
    let shown = String::from_utf8(shown).expect("it is text");
    assert!(!shown.contains(|character| character != '\n' && crate::output::escape::is_unsafe(character)), "{shown}");
}

#[test]
fn why_a_severity_is_told() {
    let write = Act::new(What::Change(ImageOp::Create), "/usr/bin/x").finding(Policy::default());
    let reason = |finding: &Finding| severity_reason(finding, &Known::default());
    assert!(reason(&write).starts_with("the file is a regular file that may be executed"));
    let other = Act::new(What::Change(ImageOp::Create), "/srv/x").finding(Policy::default());
    assert_eq!(reason(&other), "no other rule for `image_write` applies");
    let session = Finding { finding: Kind::Session, ..write };
    assert!(reason(&session).starts_with("a finding `image_write` in it is high: the file is"));
}

#[test]
fn an_override_and_what_would_be_without_it_are_told() {
    let act = Act::new(What::Change(ImageOp::Create), "/srv/x");
    let finding = act.finding(Policy::default());
    let proposal = |finding: &Finding| proposal::propose(finding, now()).expect("there is one").toml;
    let overridden = Overridden { by: "calm".to_owned(), otherwise: Severity::Medium };
    let raised = Finding { severity: Severity::Critical, overridden: Some(Box::new(overridden)), ..finding.clone() };
    let conditions = proposed(&finding).exceptions.remove(0).conditions;
    let severity = Severity::Critical;
    let calm = Override { name: "calm".to_owned(), reason: "It must not be.".to_owned(), severity, conditions };
    let known = |overrides| Known { policy: Policy { overrides, ..Policy::default() }, ..Known::default() };
    let explained = Explanation::of(&raised, &known(vec![calm]), now());
    assert_eq!(
        (explained.severity, &*explained.severity_reason),
        (
            severity,
            "by override `calm`: It must not be. (it would be medium otherwise: no other rule for `image_write` \
            applies)"
        )
    );
    let later = severity_reason(&raised, &known(Vec::new()));
    assert!(later.starts_with("by override `calm`, which is not in the configuration file any more"), "{later}");
    // An exception is compared with the severity by the rules.
    assert_eq!(proposal(&raised), proposal(&finding));
    let exceptions = Known { policy: proposed(&finding), ..Known::default() };
    assert!(decision(&raised, &exceptions).unfulfilled.is_empty());
}
