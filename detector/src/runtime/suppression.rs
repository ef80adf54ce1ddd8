//! Decides which findings the exceptions of the policy suppress, and counts them, and which severity its overrides give
//! to the others, now that it is known what the runtimes tell about their containers. There is no clock here: the times
//! are those of the findings.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::finding::{
    Container, Expected, Finding, Line, Node, Notice, NoticeEvent, Overridden, Part, Severity, Text, Time,
};
use crate::policy::{Exception, Override};
use crate::recent::RecentFindings;

/// Of how many suppressed findings it is remembered how many acts they were about, so that an update counts only more,
/// and of how many others that they were told. There are fewer that can be updated.
const MOST: usize = 4 * 4096;
/// The severity from which on the end of a session is told.
const TOLD: Severity = Severity::Medium;

/// How many acts the exceptions have suppressed so far, by their names.
#[derive(Debug, Default)]
pub struct Totals(Mutex<BTreeMap<String, u64>>);

impl Totals {
    fn set(&self, exception: &str, total: u64) {
        self.lock().insert(exception.to_owned(), total);
    }

    /// The numbers.
    pub(crate) fn get(&self) -> BTreeMap<String, u64> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the exceptions have suppressed.
#[derive(Debug)]
pub(super) struct Suppression {
    /// Whether suppressed findings are published, too, with the name of the exception.
    shows: bool,
    /// By the names of the exceptions.
    counts: BTreeMap<String, Count>,
    /// The numbers of acts.
    known: RecentFindings<u64>,
    /// The findings that an exception could have suppressed, and that were told.
    told: RecentFindings<()>,
    totals: Arc<Totals>,
}

/// What an exception has suppressed.
#[derive(Debug)]
struct Count {
    reason: String,
    owner: String,
    /// How many acts were not told yet, how many there were in all, and when the last one happened.
    untold: u64,
    total: u64,
    last: Time,
}

/// Where lines go.
#[derive(Clone, Copy)]
pub(super) struct Out<'a> {
    /// Publishes a line.
    pub(super) publish: &'a dyn Fn(&Line),
    /// Takes a finding that is not published, because an exception suppresses it.
    pub(super) suppressed: &'a dyn Fn(&Finding),
}

/// What is done with a finding.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// It is published.
    Publish(Judged),
    /// The first of these exceptions suppresses it.
    Suppress(Box<Exception>),
}

/// How much a finding matters.
#[derive(Debug, PartialEq, Eq)]
struct Judged {
    /// By the detector's rules, without what exceptions suppress.
    ruled: Severity,
    /// The severity that it is published with.
    severity: Severity,
    /// The override that makes the difference, if there is one.
    overridden: Option<Box<Overridden>>,
}

/// What is decided by, besides the act.
#[derive(Clone, Copy)]
struct Circumstances<'a> {
    time: Time,
    container: Option<&'a Container>,
    /// What is known of the container comes from the runtime of an ordinary user.
    is_told_by_user: bool,
}

impl Suppression {
    pub(super) fn new(shows: bool) -> Self {
        Self {
            shows,
            counts: BTreeMap::new(),
            known: RecentFindings::new(MOST),
            told: RecentFindings::new(MOST),
            totals: Arc::default(),
        }
    }

    /// Whether suppressed findings are published, too.
    pub(super) fn shows(&self) -> bool {
        self.shows
    }

    /// How many acts the exceptions have suppressed.
    pub(super) fn totals(&self) -> Arc<Totals> {
        Arc::clone(&self.totals)
    }

    /// Publishes a line, unless it is a finding that is suppressed. `is_told_by_user`: what is known of a container
    /// comes from the runtime of an ordinary user.
    pub(super) fn pass(&mut self, line: Line, node: &Node, is_told_by_user: impl Fn(&Container) -> bool, out: Out<'_>) {
        let publish = out.publish;
        match line {
            Line::Finding(finding) => self.pass_finding(finding, node, is_told_by_user, out),
            Line::Notice(Notice { event: NoticeEvent::FileHash { ref finding, .. }, .. })
                if !self.shows && self.known.get(finding).is_some() => {}
            Line::Notice(mut notice) => {
                let NoticeEvent::SessionEnded { severity, expected, overridden, container, parts, .. } =
                    &mut notice.event
                else {
                    return publish(&Line::Notice(notice));
                };
                let circumstances = Circumstances {
                    time: notice.time,
                    container: Some(container),
                    is_told_by_user: is_told_by_user(container),
                };
                let is_told = match (&expected, decide(parts, *severity, circumstances)) {
                    (Some(Expected { otherwise, .. }), _) => *otherwise >= TOLD,
                    (None, Decision::Publish(judged)) => {
                        (*severity, *overridden) = (judged.severity, judged.overridden);
                        *severity >= TOLD
                    }
                    (None, Decision::Suppress(_)) => false,
                };
                if is_told {
                    publish(&Line::Notice(notice));
                }
            }
        }
    }

    fn pass_finding(
        &mut self,
        mut finding: Box<Finding>,
        node: &Node,
        is_told_by_user: impl Fn(&Container) -> bool,
        Out { publish, suppressed }: Out<'_>,
    ) {
        if finding.expected.is_some() {
            return publish(&Line::Finding(finding));
        }
        let own = [Part { severity: finding.severity, candidates: finding.candidates.take() }];
        let parts = if finding.parts.is_empty() { &own[..] } else { &finding.parts };
        let container = finding.container.as_ref();
        let is_told_by_user = container.is_some_and(is_told_by_user);
        let circumstances = Circumstances { time: finding.time, container, is_told_by_user };
        match decide(parts, finding.severity, circumstances) {
            Decision::Publish(Judged { ruled, severity, overridden }) => {
                if parts.iter().any(|part| part.candidates.is_some()) {
                    self.told.insert(&finding.id, ());
                }
                finding.severity_rule.take_if(|_| ruled != finding.severity);
                (finding.severity, finding.overridden) = (severity, overridden);
                publish(&Line::Finding(finding));
            }
            // A finding that was told before the runtime answered, for example, is still updated.
            Decision::Suppress(_) if self.told.get(&finding.id).is_some() => publish(&Line::Finding(finding)),
            Decision::Suppress(exception) => {
                self.count(&exception, &finding, node, publish);
                finding.suppressed_by = Some(Text::from(exception.name.as_bytes()));
                if self.shows {
                    publish(&Line::Finding(finding));
                } else {
                    suppressed(&finding);
                }
            }
        }
    }

    /// Counts a finding that an exception has suppressed. The first one is told at once.
    fn count(&mut self, exception: &Exception, finding: &Finding, node: &Node, publish: &dyn Fn(&Line)) {
        let acts = finding.acts();
        let before = self.known.get(&finding.id).copied().unwrap_or_default();
        self.known.insert(&finding.id, acts.max(before));
        let more = acts.saturating_sub(before);
        let count = self.counts.entry(exception.name.clone()).or_insert_with(|| Count {
            reason: String::new(),
            owner: String::new(),
            untold: 0,
            total: 0,
            last: finding.time,
        });
        // The exception can have changed since.
        (count.reason, count.owner) = (exception.reason.clone(), exception.owner.clone());
        let is_first = count.total == 0;
        count.untold += more;
        count.total += more;
        count.last = count.last.max(finding.time);
        self.totals.set(&exception.name, count.total);
        if is_first {
            count.tell(&exception.name, node, publish);
        }
    }

    /// Tells what was not told yet.
    pub(super) fn tell(&mut self, node: &Node, publish: &dyn Fn(&Line)) {
        self.counts.iter_mut().for_each(|(name, count)| count.tell(name, node, publish));
    }
}

impl Count {
    fn tell(&mut self, exception: &str, node: &Node, publish: &dyn Fn(&Line)) {
        if self.untold == 0 {
            return;
        }
        let event = NoticeEvent::Suppressed {
            exception: exception.to_owned(),
            reason: self.reason.clone(),
            owner: self.owner.clone(),
            count: std::mem::take(&mut self.untold),
            total: self.total,
        };
        publish(&Line::Notice(Notice::at(self.last, node.clone(), event)));
    }
}

impl Circumstances<'_> {
    /// The first exception that holds for a part of a finding.
    fn exception<'a>(&self, part: &'a Part) -> Option<&'a Exception> {
        part.candidates.as_ref()?.exception(part.severity, self.time, self.container?, self.is_told_by_user)
    }

    /// The first override that holds for a part of a finding.
    fn overriding<'a>(&self, part: &'a Part) -> Option<&'a Override> {
        part.candidates.as_ref()?.overriding(part.severity, self.container?, self.is_told_by_user)
    }

    /// How much a finding with these parts matters.
    fn judge(&self, parts: &[&Part]) -> Option<Judged> {
        let severities = parts.iter().map(|part| {
            let overriding = self.overriding(part);
            (part.severity, overriding.map_or(part.severity, |overriding| overriding.severity), overriding)
        });
        let ruled = severities.clone().map(|(ruled, ..)| ruled).max()?;
        let severity = severities.clone().map(|(_, severity, _)| severity).max()?;
        // That of the first part which is or was the highest.
        let (.., overriding) = severities.rev().max_by_key(|(ruled, severity, _)| *ruled.max(severity))?;
        let overriding = overriding.filter(|_| severity != ruled);
        let overridden =
            overriding.map(|Override { name, .. }| Box::new(Overridden { by: name.clone(), otherwise: ruled }));
        Some(Judged { ruled, severity, overridden })
    }
}

/// Decides about a finding of this severity. The first part is what it is by itself. Exceptions come first: an override
/// changes only what is left.
fn decide(parts: &[Part], severity: Severity, circumstances: Circumstances<'_>) -> Decision {
    let left: Vec<_> = parts.iter().filter(|part| circumstances.exception(part).is_none()).collect();
    let judged = circumstances.judge(&left);
    // What is info by itself is no reason to tell what is suppressed.
    let matters = judged.as_ref().is_some_and(|judged| judged.ruled.max(judged.severity) > Severity::Info);
    match parts.first().and_then(|own| circumstances.exception(own)) {
        Some(exception) if !matters => Decision::Suppress(Box::new(exception.clone())),
        _ => Decision::Publish(judged.unwrap_or(Judged { ruled: severity, severity, overridden: None })),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use serde_json::{Value, json};

    use super::*;
    use crate::detect::Detector;
    use crate::detect::samples::{self, change, context, known_container};
    use crate::event::{Event, ImageOp, Layer};
    use crate::finding::Repeated;
    use crate::policy::Policy;

    /// A policy with an exception of this name for changes, with these conditions.
    fn exception(name: &str, more: Value) -> Exception {
        let mut conditions = json!({"finding": ["image_write"], "severity_at_most": "high"});
        conditions.as_object_mut().expect("it is one").extend(more.as_object().expect("it is one").clone());
        let exception = json!({"name": name, "reason": "It is known.", "owner": "us", "conditions": conditions});
        serde_json::from_value(exception).expect("it is an exception")
    }

    /// An override with this name that gives changes this severity, with these conditions.
    fn overriding(name: &str, severity: Severity, more: Value) -> Override {
        let Exception { name, reason, conditions, .. } = exception(name, more);
        Override { name, reason, severity, conditions }
    }

    /// A finding about a change, in a container about which the runtime knows everything: all its texts are `nginx`.
    fn finding(exceptions: Vec<Exception>) -> Finding {
        finding_by(Policy { exceptions, ..Policy::default() })
    }

    fn finding_by(policy: Policy) -> Finding {
        let mut detector = Detector::default();
        detector.set_policy(policy);
        let change = change(ImageOp::OpenWrite, Layer::Lower, 0o100644, "/srv/x");
        let mut found = Vec::new();
        let event = Event::ImageChange(Box::new(change));
        detector.detect(&event, &samples::container(), &context(), |finding| found.push(finding));
        let [finding] = <[Finding; 1]>::try_from(found).expect("there is one");
        Finding { container: Some(known_container(b"nginx")), ..finding }
    }

    /// What is published of this line.
    fn passed(suppression: &mut Suppression, line: Line, is_told_by_user: bool) -> Vec<Line> {
        let lines = RefCell::new(Vec::new());
        let publish = |line: &Line| lines.borrow_mut().push(line.clone());
        suppression.pass(line, &"node-1".into(), |_| is_told_by_user, Out { publish: &publish, suppressed: &|_| {} });
        lines.into_inner()
    }

    /// The name of the exception that suppresses a finding of this policy, if one does.
    fn suppressor(exceptions: Vec<Exception>) -> Option<String> {
        suppressor_of(finding(exceptions), false)
    }

    fn suppressor_of(finding: Finding, is_told_by_user: bool) -> Option<String> {
        let line = Line::Finding(Box::new(finding));
        let [line] = <[Line; 1]>::try_from(passed(&mut Suppression::new(false), line, is_told_by_user)).expect("one");
        match line {
            Line::Notice(Notice { event: NoticeEvent::Suppressed { exception, count: 1, total: 1, .. }, .. }) => {
                Some(exception)
            }
            Line::Finding(finding) if finding.suppressed_by.is_none() => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_exception_that_holds_decides() {
        let other = || exception("other", json!({"image": ["redis"]}));
        let all = || exception("all", json!({}));
        let image = || exception("image", json!({"image": ["ng*"]}));
        assert_eq!(suppressor(vec![]), None);
        assert_eq!(suppressor(vec![other()]), None);
        assert_eq!(suppressor(vec![other(), all(), image()]).as_deref(), Some("all"));
        assert_eq!(suppressor(vec![image(), all()]).as_deref(), Some("image"));
    }

    #[test]
    fn every_condition_about_the_container_must_be_fulfilled() {
        for key in ["image", "container", "pod", "namespace"] {
            assert!(suppressor(vec![exception("x", json!({key: ["redis", "nginx"]}))]).is_some(), "{key}");
            assert!(suppressor(vec![exception("x", json!({key: ["redis"]}))]).is_none(), "{key}");
        }
        assert!(suppressor(vec![exception("x", json!({"labels": {"nginx": "n*"}}))]).is_some());
        assert!(suppressor(vec![exception("x", json!({"labels": {"nginx": "redis"}}))]).is_none());
        assert!(suppressor(vec![exception("x", json!({"labels": {"nginx": "*", "other": "*"}}))]).is_none());
        assert!(suppressor(vec![exception("x", json!({"severity_at_most": "low"}))]).is_none());
    }

    #[test]
    fn what_is_not_known_or_told_by_a_user_fulfils_nothing() {
        let image = || vec![exception("x", json!({"image": ["*"]}))];
        let unknown = Finding { container: Some(Container::default()), ..finding(image()) };
        assert_eq!(suppressor_of(unknown, false), None);
        assert_eq!(suppressor_of(finding(image()), true), None);
        assert!(suppressor_of(finding(image()), false).is_some());
        // Nothing is asked of the container.
        assert!(suppressor_of(finding(vec![exception("x", json!({}))]), true).is_some());
    }

    #[test]
    fn an_exception_ends() {
        let until = |time: &str| {
            let mut exception = exception("x", json!({}));
            exception.expires = Some(time.parse().expect("it is a time"));
            suppressor(vec![exception])
        };
        assert_eq!(until("2000-01-01T00:00:00Z"), None);
        assert!(until("2999-01-01T00:00:00Z").is_some());
    }

    #[test]
    fn a_finding_that_was_told_is_still_updated() {
        let mut suppression = Suppression::new(false);
        let known = finding(vec![exception("x", json!({"image": ["nginx"]}))]);
        let unknown = Finding { container: Some(Container::default()), ..known.clone() };
        for told in [&unknown, &known] {
            let lines = passed(&mut suppression, Line::Finding(Box::new(told.clone())), false);
            assert!(matches!(&lines[..], [Line::Finding(_)]), "{lines:?}");
        }
        let other = Finding { id: "other".to_owned(), ..known };
        let lines = passed(&mut suppression, Line::Finding(Box::new(other)), false);
        assert!(matches!(&lines[..], [Line::Notice(_)]), "{lines:?}");
    }

    #[test]
    fn each_act_is_counted_once() {
        let mut suppression = Suppression::new(false);
        let mut pass = |id: &str, count: Option<u64>| {
            let mut finding = Finding { id: id.to_owned(), ..finding(vec![exception("x", json!({}))]) };
            finding.repeated = count.map(|count| Box::new(Repeated { count, ..repeated(finding.time) }));
            passed(&mut suppression, Line::Finding(Box::new(finding)), false).len()
        };
        assert_eq!(
            [pass("a", None), pass("b", None), pass("b", Some(7)), pass("b", Some(9)), pass("a", None)],
            [1, 0, 0, 0, 0]
        );
        let told = RefCell::new(Vec::new());
        let mut tell = || {
            suppression.tell(&"node-1".into(), &|line| told.borrow_mut().push(line.clone()));
            told.take()
        };
        let [Line::Notice(Notice { event: NoticeEvent::Suppressed { count: 9, total: 10, .. }, .. })] = &tell()[..]
        else {
            panic!("it does not tell the count")
        };
        assert_eq!(tell(), []);
    }

    #[test]
    fn what_completes_a_suppressed_finding_is_not_told() {
        let mut suppression = Suppression::new(false);
        let finding = finding(vec![exception("x", json!({}))]);
        let hash = |id: &str| {
            let (container, message) = (Box::default(), String::new());
            let event =
                NoticeEvent::FileHash { finding: id.to_owned(), message, container, sha256: None, unhashed: None };
            let (time, node) = (finding.time, finding.node.clone());
            Line::Notice(Notice::at(time, node, event))
        };
        let id = finding.id.clone();
        assert_eq!(passed(&mut suppression, hash(&id), false).len(), 1);
        passed(&mut suppression, Line::Finding(Box::new(finding.clone())), false);
        assert_eq!(passed(&mut suppression, hash(&id), false), []);
        assert_eq!(passed(&mut suppression, hash("another"), false).len(), 1);
    }

    /// The severity with which a finding is published, and the override that makes the difference.
    fn severity(finding: Finding, is_told_by_user: bool) -> (Severity, Option<String>) {
        let ruled = finding.ruled_severity();
        let line = Line::Finding(Box::new(finding));
        match &passed(&mut Suppression::new(false), line, is_told_by_user)[..] {
            [Line::Finding(finding)] => {
                assert_eq!((finding.ruled_severity(), finding.severity_rule.is_some()), (ruled, true));
                (finding.severity, finding.overridden.as_ref().map(|overridden| overridden.by.clone()))
            }
            other => panic!("{other:?}"),
        }
    }

    fn severity_by(overrides: Vec<Override>) -> (Severity, Option<String>) {
        severity(finding_by(Policy { overrides, ..Policy::default() }), false)
    }

    #[test]
    fn the_first_override_that_holds_changes_the_severity() {
        let (info, medium, critical) = (Severity::Info, Severity::Medium, Severity::Critical);
        let by = |name: &str| Some(name.to_owned());
        assert_eq!(severity_by(vec![]), (medium, None));
        let raised = || overriding("raised", critical, json!({"image": ["ng*"]}));
        let lowered = || overriding("lowered", info, json!({}));
        let same = || overriding("same", medium, json!({}));
        assert_eq!(severity_by(vec![raised(), lowered()]), (critical, by("raised")));
        assert_eq!(severity_by(vec![lowered(), raised()]), (info, by("lowered")));
        assert_eq!(severity_by(vec![same(), lowered()]), (medium, None));
        for other in [json!({"image": ["redis"]}), json!({"path": ["/other"]}), json!({"severity_at_most": "low"})] {
            assert_eq!(severity_by(vec![overriding("other", critical, other.clone())]), (medium, None), "{other}");
        }
        // What a user's runtime tells, or nobody, fulfils nothing.
        let of_image = || finding_by(Policy { overrides: vec![raised()], ..Policy::default() });
        assert_eq!(severity(of_image(), true), (medium, None));
        let unknown = Finding { container: Some(Container::default()), ..of_image() };
        assert_eq!(severity(unknown, false), (medium, None));
    }

    #[test]
    fn what_is_suppressed_or_expected_has_no_other_severity() {
        let raised = vec![overriding("raised", Severity::Critical, json!({}))];
        let policy = Policy { exceptions: vec![exception("x", json!({}))], overrides: raised, ..Policy::default() };
        let mut finding = finding_by(policy);
        let line = Line::Finding(Box::new(finding.clone()));
        let [_, Line::Finding(shown)] = &passed(&mut Suppression::new(true), line, false)[..] else { panic!("hidden") };
        assert_eq!((shown.severity, &shown.overridden), (Severity::Medium, &None));
        finding.expect(crate::finding::Reason::Startup);
        assert_eq!(severity(finding.clone(), false), (Severity::Info, None));
    }

    fn repeated(time: Time) -> Repeated {
        let operations = BTreeMap::new();
        let (first, last) = (time, time);
        Repeated {
            count: 0,
            operations,
            first,
            last,
            paths: None,
            names: Vec::new(),
            names_omitted: 0,
            commands: Vec::new(),
            commands_omitted: 0,
            counted_in_kernel: 0,
            by: None,
        }
    }

    #[test]
    fn suppressed_findings_can_be_shown() {
        let line = Line::Finding(Box::new(finding(vec![exception("x", json!({}))])));
        let [_, Line::Finding(shown)] = &passed(&mut Suppression::new(true), line, false)[..] else { panic!("hidden") };
        assert_eq!(shown.suppressed_by, Some(Text::from("x".as_bytes())));
    }

    #[test]
    fn a_session_keeps_the_severity_of_what_is_left() {
        let excepted = finding(vec![exception("x", json!({}))]).candidates;
        let part =
            |severity, is_excepted: bool| Part { severity, candidates: excepted.clone().filter(|_| is_excepted) };
        let left = |parts: Vec<Part>| {
            let session = Finding { parts, severity: Severity::High, ..finding(vec![]) };
            match &passed(&mut Suppression::new(false), Line::Finding(Box::new(session)), false)[..] {
                [Line::Finding(session)] => Some(session.severity),
                _ => None,
            }
        };
        let (info, medium, high) = (Severity::Info, Severity::Medium, Severity::High);
        assert_eq!(left(vec![]), Some(high));
        assert_eq!(left(vec![part(info, false), part(high, true)]), Some(info));
        assert_eq!(left(vec![part(info, false), part(high, true), part(medium, false)]), Some(medium));
        assert_eq!(left(vec![part(info, true), part(high, true), part(medium, false)]), Some(medium));
        assert_eq!(left(vec![part(info, true), part(high, true)]), None);
        assert_eq!(left(vec![part(high, false), part(medium, true)]), Some(high));
    }

    #[test]
    fn an_override_of_sessions_changes_what_they_are_by_themselves() {
        let (info, medium, high, critical) = (Severity::Info, Severity::Medium, Severity::High, Severity::Critical);
        let told = |to: Severity, parts: &[(Severity, bool)]| {
            let overrides = vec![overriding("x", to, json!({}))];
            let candidates = finding_by(Policy { overrides, ..Policy::default() }).candidates;
            let part = |&(severity, is_own): &(Severity, bool)| Part {
                severity,
                candidates: candidates.clone().filter(|_| is_own),
            };
            let parts: Vec<_> = parts.iter().map(part).collect();
            let ruled = parts.iter().map(|part| part.severity).max().expect("there is one");
            let session = Finding { severity: ruled, parts: parts.clone(), ..finding(vec![]) };
            let end = ended(&session, None, parts);
            let [Line::Finding(session)] =
                &passed(&mut Suppression::new(false), Line::Finding(Box::new(session)), false)[..]
            else {
                panic!("hidden")
            };
            let otherwise = session.overridden.as_ref().map(|overridden| overridden.otherwise);
            assert!(otherwise.is_none_or(|otherwise| otherwise == ruled && session.severity != ruled));
            let closing = passed(&mut Suppression::new(false), end, false);
            let severity_at_end = closing.iter().find_map(|line| match line {
                Line::Notice(Notice { event: NoticeEvent::SessionEnded { severity, .. }, .. }) => Some(*severity),
                _ => None,
            });
            assert_eq!(severity_at_end, Some(session.severity).filter(|severity| *severity >= medium));
            session.severity
        };
        assert_eq!(told(critical, &[(info, true)]), critical);
        assert_eq!(told(info, &[(high, true)]), info);
        assert_eq!(told(info, &[(high, true), (medium, false)]), medium);
        assert_eq!(told(info, &[(medium, true), (high, false)]), high);
        assert_eq!(told(critical, &[(info, false), (high, true)]), critical);
        assert_eq!(told(medium, &[(high, true), (high, false)]), high);
    }

    /// The notice about the end of a session.
    fn ended(session: &Finding, expected: Option<Expected>, parts: Vec<Part>) -> Line {
        let summary = json!({"via": "exec", "started": session.time, "programs": [], "files": [], "findings": {}});
        let event = NoticeEvent::SessionEnded {
            session: session.id.clone(),
            severity: session.severity,
            expected,
            overridden: None,
            message: String::new(),
            container: Box::new(session.container.clone().expect("it is in one")),
            summary: serde_json::from_value(summary).expect("it is one"),
            visit: None,
            parts,
        };
        Line::Notice(Notice::at(session.time, session.node.clone(), event))
    }

    #[test]
    fn the_end_of_an_expected_session_is_told_if_it_would_matter_otherwise() {
        let session = Finding { severity: Severity::Info, ..finding(vec![]) };
        for (otherwise, is_told) in [(Severity::Low, false), (Severity::Medium, true)] {
            let expected = Expected { reason: crate::finding::Reason::HealthCheck, otherwise };
            let line = ended(&session, Some(expected), Vec::new());
            assert_eq!(passed(&mut Suppression::new(false), line, false).len(), usize::from(is_told), "{otherwise}");
        }
    }
}
