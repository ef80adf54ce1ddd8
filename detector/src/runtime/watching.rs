//! Which containers are not watched, and what is not told for that reason. Each container is decided about once, as
//! soon as enough is known of it. Until then it is watched, and so is what it did until then.
//!
//! The pipeline learns from [`Unwatching`] which containers these are, and tells the probes, so that they do not send
//! what is dropped here anyhow (`detector_common::map::is_unsent_if_unwatched`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::join::Key;
use super::metadata::Metadata;
use crate::finding::{Container, Finding, Line, Notice, NoticeEvent, Severity};
use crate::policy::WatchRule;
use crate::policy::exception::refusal;
use crate::policy::watch::{Answer, Decision, decide};
use crate::recent::{Recent, RecentFindings};

/// How many containers that have ended are remembered, because lines about them can follow.
const MOST_ENDED: usize = 16_384;
/// Of how many findings it is remembered that they were told, so that their updates are told, too.
const MOST_TOLD: usize = 4 * 4096;

/// A rule by which containers are not watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unwatched {
    /// The name of the rule.
    pub rule: String,
    /// Why there is this rule.
    pub reason: String,
    /// How many containers are not watched by this rule at the moment.
    pub containers: u64,
}

/// The rules by which containers are not watched, and these containers.
#[derive(Debug, Default)]
pub struct Unwatching {
    state: Mutex<Unwatchings>,
    /// How often the containers have changed.
    changes: AtomicU64,
}

#[derive(Debug, Default)]
struct Unwatchings {
    /// The rules, in their order.
    rules: Vec<Unwatched>,
    /// The containers that run and are not watched, by the ids of their cgroups.
    containers: BTreeSet<u64>,
}

impl Unwatching {
    /// The rules.
    pub(crate) fn get(&self) -> Vec<Unwatched> {
        self.lock().rules.clone()
    }

    /// The containers that run and are not watched, by the ids of their cgroups. One that becomes watched, or ends, is
    /// missing as soon as the pipeline has passed on the rules or the end that makes it so.
    pub(crate) fn containers(&self) -> BTreeSet<u64> {
        self.lock().containers.clone()
    }

    /// A number that is another one when the [containers](Self::containers) have changed.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Begins with other rules, by which no container is decided about yet.
    fn set_rules(&self, rules: Vec<Unwatched>) {
        *self.lock() = Unwatchings { rules, containers: BTreeSet::new() };
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Adds a container that is not watched by this rule.
    fn add(&self, rule: &str, container: u64) {
        self.change(rule, |containers| containers.insert(container), |count| count + 1);
    }

    /// Removes a container that was not watched by this rule.
    fn remove(&self, rule: &str, container: u64) {
        self.change(rule, |containers| containers.remove(&container), |count| count - 1);
    }

    fn change(&self, rule: &str, change: impl Fn(&mut BTreeSet<u64>) -> bool, count: impl Fn(u64) -> u64) {
        let mut state = self.lock();
        change(&mut state.containers);
        for unwatched in state.rules.iter_mut().filter(|unwatched| unwatched.rule == rule) {
            unwatched.containers = count(unwatched.containers);
        }
        drop(state);
        self.changes.fetch_add(1, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Unwatchings> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The containers of the node, and the rules about them.
#[derive(Debug)]
pub(super) struct Watching {
    rules: Vec<WatchRule>,
    /// The containers that run, by the ids of their cgroups.
    running: BTreeMap<u64, Running>,
    /// Whether containers that have ended were watched.
    ended: Recent<u64, bool>,
    /// The findings that were told.
    told: RecentFindings<()>,
    unwatching: Arc<Unwatching>,
}

/// A container that runs.
#[derive(Debug)]
struct Running {
    container: Container,
    /// The container in queries, if there is a runtime that is believed.
    key: Option<Key>,
    answer: Answer,
    /// The name of the rule by which it is not watched.
    unwatched_by: Option<String>,
}

impl Watching {
    pub(super) fn new(rules: Vec<WatchRule>) -> Self {
        let mut watching = Self {
            rules: Vec::new(),
            running: BTreeMap::new(),
            ended: Recent::new(MOST_ENDED),
            told: RecentFindings::new(MOST_TOLD),
            unwatching: Arc::default(),
        };
        let told = watching.set_rules(rules);
        debug_assert!(told.is_empty(), "a container runs before it is known");
        watching
    }

    /// Replaces the rules. If they are others, decides about all containers again. Returns what is to be told: of which
    /// containers it is decided otherwise than before.
    pub(super) fn set_rules(&mut self, rules: Vec<WatchRule>) -> Vec<NoticeEvent> {
        if rules == self.rules {
            return Vec::new();
        }
        let unwatching = rules.iter().filter(|rule| !rule.is_watched).map(|rule| Unwatched {
            rule: rule.name.clone(),
            reason: rule.reason.clone(),
            containers: 0,
        });
        self.unwatching.set_rules(unwatching.collect());
        self.rules = rules;
        let decided = self.running.values_mut().filter_map(|running| {
            let before = running.unwatched_by.take();
            let told = running.decide(&self.rules, &self.unwatching);
            match (before, told) {
                (Some(before), Some(_)) if Some(&before) == running.unwatched_by.as_ref() => None,
                (Some(_), None) => Some(NoticeEvent::Watched { container: Box::new(running.container.clone()) }),
                (_, told) => told,
            }
        });
        decided.collect()
    }

    /// The rules.
    pub(super) fn rules(&self) -> &[WatchRule] {
        &self.rules
    }

    /// The rules by which containers are not watched, with the numbers of these.
    pub(super) fn unwatching(&self) -> Arc<Unwatching> {
        Arc::clone(&self.unwatching)
    }

    /// Whether it is known that this container runs, or has run a while ago.
    pub(super) fn knows(&mut self, container: &Container) -> bool {
        self.running.contains_key(&container.cgroup_id) || self.ended.get(&container.cgroup_id).is_some()
    }

    /// Learns that a container runs that is not known yet. `key` is the container in queries, if there is a runtime
    /// that is believed. Returns what is to be told.
    pub(super) fn start(&mut self, container: &Container, key: Option<Key>) -> Option<NoticeEvent> {
        let answer = if key.is_some() { Answer::Awaited } else { Answer::Missing };
        let mut running = Running { container: container.clone(), key, answer, unwatched_by: None };
        let told = running.decide(&self.rules, &self.unwatching);
        self.running.insert(container.cgroup_id, running);
        told
    }

    /// Learns what the runtimes tell of a container, or that they tell nothing. The first answer counts. Passes the
    /// container to `known` if they tell something, and returns what is to be told.
    pub(super) fn settle(
        &mut self,
        key: &Key,
        metadata: Option<&Metadata>,
        known: impl Fn(&Container),
    ) -> Vec<NoticeEvent> {
        let is_waiting = |it: &&mut Running| it.answer == Answer::Awaited && it.key.as_ref() == Some(key);
        let settled = self.running.values_mut().filter(is_waiting).filter_map(|running| {
            running.answer = if metadata.is_some() { Answer::Told } else { Answer::Missing };
            if let Some(metadata) = metadata {
                metadata.fill(&mut running.container);
                known(&running.container);
            }
            running.decide(&self.rules, &self.unwatching)
        });
        settled.collect()
    }

    /// Learns that a cgroup was removed. It can be that of a container.
    pub(super) fn end(&mut self, cgroup_id: u64) {
        let Some(ended) = self.running.remove(&cgroup_id) else { return };
        self.ended.insert(cgroup_id, ended.unwatched_by.is_none());
        if let Some(rule) = ended.unwatched_by {
            self.unwatching.remove(&rule, cgroup_id);
        }
    }

    /// Whether a line is not told, because its container is not watched. What is critical by the detector's rules and
    /// what leads out of a container or acts on the detector is always told, and so are the updates of what was told.
    pub(super) fn drops(&mut self, line: &Line) -> bool {
        let is_always_told = |it: &Finding| refusal(it.finding).is_some() || it.ruled_severity() == Severity::Critical;
        let (container, finding) = match line {
            Line::Finding(finding) if is_always_told(finding) => return false,
            Line::Finding(finding) => (finding.container.as_ref(), &finding.id),
            Line::Notice(Notice { event: NoticeEvent::SessionEnded { session: finding, container, .. }, .. })
            | Line::Notice(Notice { event: NoticeEvent::FileHash { finding, container, .. }, .. }) => {
                (Some(&**container), finding)
            }
            _ => return false,
        };
        let Some(id) = container.map(|container| container.cgroup_id) else { return false };
        let is_watched = match self.running.get(&id) {
            Some(running) => running.unwatched_by.is_none(),
            None => self.ended.get(&id).copied().unwrap_or(true),
        };
        !is_watched && self.told.get(finding).is_none()
    }

    /// Whether a line is told. It is remembered then.
    pub(super) fn passes(&mut self, line: &Line) -> bool {
        let passes = !self.drops(line);
        if let (Line::Finding(finding), true) = (line, passes) {
            self.told.insert(&finding.id, ());
        }
        passes
    }
}

impl Running {
    /// Decides about the container, unless it is not watched already. Returns what is to be told.
    fn decide(&mut self, rules: &[WatchRule], unwatching: &Unwatching) -> Option<NoticeEvent> {
        let Decision::Rule(rule) = decide(rules, &self.container, self.answer) else { return None };
        if rule.is_watched || self.unwatched_by.is_some() {
            return None;
        }
        self.unwatched_by = Some(rule.name.clone());
        unwatching.add(&rule.name, self.container.cgroup_id);
        Some(NoticeEvent::Unwatched {
            rule: rule.name.clone(),
            reason: rule.reason.clone(),
            container: Box::new(self.container.clone()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::detect::samples;
    use crate::event::{Event, ImageOp, Layer};
    use crate::finding::{Image, Kind, Overridden};
    use crate::runtime::Id;

    fn rule(name: &str, is_watched: bool, key: &str, pattern: &str) -> WatchRule {
        let rule = json!({"name": name, "reason": "It is known.", "is_watched": is_watched, key: [pattern]});
        serde_json::from_value(rule).expect("it is a rule")
    }

    fn key() -> Key {
        Key { id: Id::new(samples::ID).expect("it is one"), user: None }
    }

    fn container(cgroup_id: u64) -> Container {
        let cgroup = Some(format!("/pods/{cgroup_id}").as_bytes().into());
        Container { cgroup, cgroup_id, ..Container::default() }
    }

    fn metadata(image: &str) -> Metadata {
        let image = Some(Image { name: Some(image.as_bytes().into()), ..Image::default() });
        Metadata { image, ..Metadata::default() }
    }

    /// A finding with this id about a change in this container.
    fn finding(id: &str, cgroup_id: u64) -> Line {
        let change = samples::change(ImageOp::Create, Layer::New, 0o100644, "/x");
        let found = samples::found(Event::ImageChange(Box::new(change))).expect("it is a finding");
        Line::Finding(Box::new(Finding { id: id.to_owned(), container: Some(container(cgroup_id)), ..found }))
    }

    fn rule_of(event: &NoticeEvent) -> &str {
        let NoticeEvent::Unwatched { rule, .. } = event else { panic!("{event:?}") };
        rule
    }

    fn counts(watching: &Watching) -> Vec<u64> {
        watching.unwatching().get().iter().map(|unwatched| unwatched.containers).collect()
    }

    #[test]
    fn the_cgroup_decides_at_once_and_the_runtime_when_it_answers() {
        let rules = vec![rule("cgroup", false, "cgroup", "/pods/1"), rule("image", false, "image", "ci:*")];
        let mut watching = Watching::new(rules);
        assert_eq!(watching.start(&container(1), Some(key())).as_ref().map(rule_of), Some("cgroup"));
        assert_eq!(watching.start(&container(2), Some(key())), None);
        assert_eq!((watching.passes(&finding("a", 1)), watching.passes(&finding("b", 2))), (false, true));
        assert_eq!((counts(&watching), watching.unwatching().containers()), (vec![1, 0], [1].into()));
        let before = watching.unwatching().changes();
        let told = watching.settle(&key(), Some(&metadata("ci:1")), |_| {});
        assert_eq!(told.iter().map(rule_of).collect::<Vec<_>>(), ["image"]);
        assert_eq!((counts(&watching), watching.unwatching().containers()), (vec![1, 1], [1, 2].into()));
        assert_ne!(watching.unwatching().changes(), before);
        assert!(!watching.passes(&finding("c", 2)));
        assert!(watching.passes(&finding("b", 2)), "what was told is told to its end");
        // The first answer counts.
        assert_eq!(watching.settle(&key(), Some(&metadata("other")), |_| {}), []);
        assert!(!watching.passes(&finding("c", 2)));
    }

    #[test]
    fn what_no_runtime_tells_is_watched() {
        let mut watching =
            Watching::new(vec![rule("image", false, "image", "*"), rule("rest", false, "cgroup", "/**")]);
        assert_eq!(watching.start(&container(1), Some(key())), None);
        assert!(watching.passes(&finding("a", 1)), "an earlier rule may still match");
        let told = watching.settle(&key(), None, |_| {});
        assert_eq!(told.iter().map(rule_of).collect::<Vec<_>>(), ["rest"]);
        // There is nobody to ask.
        assert_eq!(watching.start(&container(2), None).as_ref().map(rule_of), Some("rest"));
        assert!(watching.passes(&finding("b", 3)), "nothing is known of this one");
    }

    #[test]
    fn a_container_that_has_ended_does_not_count_and_is_not_told() {
        let mut watching = Watching::new(vec![rule("all", false, "cgroup", "/**")]);
        assert!(watching.start(&container(1), None).is_some());
        watching.end(1);
        watching.end(7);
        assert_eq!((counts(&watching), watching.unwatching().containers()), (vec![0], [].into()));
        assert!(!watching.passes(&finding("a", 1)));
        assert!(watching.knows(&container(1)), "a late line does not start it again");
        assert!(!watching.knows(&container(7)));
    }

    #[test]
    fn what_leads_out_and_what_acts_on_the_detector_is_always_told() {
        let mut watching = Watching::new(vec![rule("all", false, "cgroup", "/**")]);
        assert!(watching.start(&container(1), None).is_some());
        let Line::Finding(found) = finding("a", 1) else { panic!("it is a finding") };
        let told = Kind::ALL.into_iter().filter(|kind| {
            watching.passes(&Line::Finding(Box::new(Finding {
                finding: *kind,
                id: kind.to_string(),
                ..*found.clone()
            })))
        });
        let expected = [
            "cgroup_escape",
            "device_write",
            "handle_open",
            "host_exec",
            "kernel_control_write",
            "sensor_tampering",
            "test_alert",
        ];
        assert_eq!(told.map(Kind::name).collect::<BTreeSet<_>>(), expected.into());
        let critical = Finding { id: "critical".to_owned(), severity: Severity::Critical, ..*found };
        let by_override = Overridden { by: "x".to_owned(), otherwise: Severity::Medium };
        let overridden =
            Finding { id: "raised".to_owned(), overridden: Some(Box::new(by_override)), ..critical.clone() };
        assert!(watching.passes(&Line::Finding(Box::new(critical))));
        assert!(!watching.passes(&Line::Finding(Box::new(overridden))));
    }

    #[test]
    fn other_rules_decide_again() {
        let mut watching = Watching::new(vec![rule("one", false, "cgroup", "/pods/1")]);
        for id in [1, 2] {
            assert_eq!(watching.start(&container(id), None).is_some(), id == 1);
        }
        let told = watching.set_rules(vec![rule("two", false, "cgroup", "/pods/2")]);
        let told: Vec<_> = told.iter().map(NoticeEvent::name).collect();
        assert_eq!(told, ["watched", "unwatched"]);
        let same = WatchRule { reason: "Another one.".to_owned(), ..rule("two", false, "cgroup", "/pods/2") };
        assert_eq!(watching.set_rules(vec![same]), []);
        assert_eq!((counts(&watching), watching.unwatching().containers()), (vec![1], [2].into()));
        assert_eq!((watching.passes(&finding("a", 1)), watching.passes(&finding("b", 2))), (true, false));
    }

    #[test]
    fn what_the_probes_do_not_send_would_not_be_told() {
        use detector_common::map::is_unsent_if_unwatched;
        use detector_common::record::Kind as RecordKind;

        use crate::severity::SeverityRule;

        // The records that are not sent make findings of this kind only, and those of all other kinds are sent.
        let unsent = RecordKind::ALL.iter().copied().filter(|kind| is_unsent_if_unwatched(*kind, 0));
        assert_eq!(unsent.collect::<Vec<_>>(), [RecordKind::ImageChange, RecordKind::ImageMove]);
        assert_eq!(refusal(Kind::ImageWrite), None);
        let mut rules = SeverityRule::ALL.iter().filter(|rule| rule.kind() == Kind::ImageWrite);
        assert!(rules.all(|rule| rule.severity() < Severity::Critical));
        // A session is critical from its first act on if and only if it is one on a socket, or runs other code later.
        let of_sessions = SeverityRule::ALL.iter().filter(|rule| rule.kind() == Kind::Session);
        for rule in of_sessions.filter(|rule| rule.severity() == Severity::Critical) {
            let is_sent = |via: crate::finding::Via| {
                !RecordKind::ALL.iter().any(|kind| is_unsent_if_unwatched(*kind, via.number()))
            };
            assert!(rule.via().iter().all(|via| is_sent(*via)) || *rule == SeverityRule::SessionOfForeignCode);
        }
    }
}
