//! Adds metadata to findings, and publishes them. What it is told, and in which order, decides what it publishes: it
//! asks nobody and reads no clock.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::endpoint::user_of;
use super::engines::{Engine, Engines, Setup};
use super::id::Id;
use super::join::{Join, Key, Out, Todo};
use super::metadata::Metadata;
use super::suppression::{self, Suppression, Totals};
use super::watching::{Unwatching, Watching};
use crate::finding::{Container, Finding, Line, Node, Notice, NoticeEvent, Time};
use crate::ledger::Inlet;
use crate::policy::WatchRule;
use crate::recording::Entry;

/// Something that the enrichment is told, besides findings and containers: its entries in a recording.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Input {
    /// The first input.
    Start(Start),
    /// The runtimes have answered about a container.
    Settled {
        /// The container.
        key: Key,
        /// The answer, or nothing if no runtime knows the container.
        metadata: Option<Box<Metadata>>,
        /// When they answered.
        time: Time,
    },
    /// Findings about a container do not wait any longer.
    Released(Key),
    /// The query about a container has ended without an answer.
    Forgotten {
        /// The container.
        key: Key,
        /// When it ended.
        time: Time,
    },
    /// Some time has passed, after which containers without findings are forgotten.
    Aged,
    /// The findings that still wait are published without an answer, because the daemon stops.
    Stopped,
}

impl Input {
    /// The entry in a recording.
    pub(super) fn entry(&self) -> Entry<(), &Self> {
        Entry::Runtimes(self)
    }
}

/// What is the same until the daemon stops.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    /// The node in notices.
    pub(super) node: Node,
    /// The engines, which decide which findings wait.
    pub(super) engines: Setup,
    /// Whether findings are published that an exception suppresses.
    #[serde(default)]
    pub(super) shows_suppressed: bool,
    /// Which containers are watched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) rules: Vec<WatchRule>,
}

/// What must be done about a container. Nothing need be done if the answers come from a recording.
pub(crate) struct Work {
    pub(super) todo: Todo,
    pub(super) key: Key,
    pub(super) engines: Vec<Arc<Engine>>,
}

/// The containers, and the findings that wait.
pub(crate) struct Enrichment {
    node: Node,
    engines: Arc<Engines>,
    /// The containers of the node.
    nodes: Mutex<Join>,
    /// The containers of ordinary users. They are separate because a user can create any number of containers.
    users: Mutex<Join>,
    /// What the exceptions of the policy suppress.
    suppression: Mutex<Suppression>,
    /// Which containers are watched.
    watching: Mutex<Watching>,
    publish: Box<dyn Fn(&Line) + Send + Sync>,
    /// Where the ledger is told what is not published.
    ledger: Inlet,
}

impl Enrichment {
    /// Adds the metadata of these engines to findings, and passes these and notices to `publish`.
    pub(super) fn new(
        node: Node,
        engines: Arc<Engines>,
        shows_suppressed: bool,
        rules: Vec<WatchRule>,
        publish: impl Fn(&Line) + Send + Sync + 'static,
    ) -> Self {
        Self {
            node,
            engines,
            nodes: Mutex::default(),
            users: Mutex::default(),
            suppression: Mutex::new(Suppression::new(shows_suppressed)),
            watching: Mutex::new(Watching::new(rules)),
            publish: Box::new(publish),
            ledger: Inlet::default(),
        }
    }

    /// Tells the ledger, too: what the runtimes know of containers, and what the exceptions suppress.
    pub(super) fn telling(self, ledger: Inlet) -> Self {
        Self { ledger, ..self }
    }

    /// Adds the metadata in a recording.
    pub(crate) fn replay(start: Start, publish: impl Fn(&Line) + Send + Sync + 'static) -> Self {
        Self::new(start.node, Arc::new(start.engines.into()), start.shows_suppressed, start.rules, publish)
    }

    /// What the enrichment of a replay must start with.
    pub(super) fn setup(&self) -> Start {
        let shows_suppressed = self.suppression().shows();
        let rules = self.watching().rules().to_owned();
        Start { node: self.node.clone(), engines: self.engines.setup(), shows_suppressed, rules }
    }

    /// Publishes a notice immediately, unless it only completes a finding that waits, and a finding when its
    /// container's metadata is known or the wait is over. Returns what must be done about the container.
    pub(crate) fn take_line(&self, line: Line) -> Option<Work> {
        let finding = match line {
            Line::Finding(_) if self.watching().drops(&line) => return None,
            Line::Finding(finding) => finding,
            Line::Notice(mut notice) => {
                self.judge(&mut notice.event);
                if !self.completes(&notice.event) {
                    self.pass(Line::Notice(notice));
                }
                return None;
            }
        };
        match finding.container.as_ref().and_then(|container| self.engines_for(container)) {
            Some((key, engines)) => {
                let todo = self.with(key.user, |join, out| join.add_finding(&key, finding, out));
                Some(Work { todo, key, engines })
            }
            None => {
                self.pass(Line::Finding(finding));
                None
            }
        }
    }

    /// Adds the metadata of its container to a session that has ended, and decides whether it was expected. What was
    /// not known while it lasted is not waited for.
    fn judge(&self, event: &mut NoticeEvent) {
        if let NoticeEvent::SessionEnded { container, visit, severity, expected, .. } = event
            && let Some((key, _)) = self.engines_for(container)
        {
            self.with(key.user, |join, _| {
                if let Some(metadata) = join.metadata(&key) {
                    metadata.judge(visit.as_deref(), severity, expected);
                    metadata.fill(container);
                }
            });
        }
    }

    /// Adds the hash of a file to the finding about it, if that still waits. Then there is nothing to say about it
    /// later.
    fn completes(&self, event: &NoticeEvent) -> bool {
        let NoticeEvent::FileHash { finding, container, sha256, unhashed, .. } = event else { return false };
        let Some((key, _)) = self.engines_for(container) else { return false };
        self.with(key.user, |join, _| join.add_hash(&key, finding, (*sha256, *unhashed)))
    }

    /// Learns that a container has started. Returns what must be done about it.
    pub(crate) fn container_started(&self, container: &Container) -> Option<Work> {
        let (key, engines) = self.engines_for(container)?;
        let todo = self.with(key.user, |join, _| join.start_query(&key, container.cgroup_id));
        Some(Work { todo, key, engines })
    }

    /// Learns that a container runs, at this time, and decides whether it is watched, as far as that can be decided
    /// now.
    pub(crate) fn container_runs(&self, container: &Container, time: Time) {
        if self.watching().knows(container) {
            return;
        }
        // What a user's runtime tells is not believed: it could say that any of its containers is not to be watched.
        let key = self.engines_for(container).map(|(key, _)| key).filter(|key| key.user.is_none());
        // Nothing is learnt of the container meanwhile.
        self.with(None, |join, _| {
            let told = self.watching().start(container, key.clone());
            self.tell(told, time);
            // The runtime can have answered before the container ran.
            if let Some(key) = key
                && let Some(answer) = join.answer(&key)
            {
                self.settle(&key, answer.as_deref(), time);
            }
        });
    }

    /// Decides by these rules which containers are watched since this time.
    pub(crate) fn set_rules(&self, rules: Vec<WatchRule>, time: Time) {
        let told = self.watching().set_rules(rules);
        self.tell(told, time);
    }

    /// Learns that a cgroup was removed. It can be that of a container.
    pub(crate) fn cgroup_removed(&self, cgroup_id: u64) {
        self.watching().end(cgroup_id);
    }

    /// Decides whether containers are watched of which it is now known what the runtimes tell.
    fn settle(&self, key: &Key, metadata: Option<&Metadata>, time: Time) {
        let told = self.watching().settle(key, metadata, |container| self.ledger.known(container));
        self.tell(told, time);
    }

    /// Publishes notices.
    fn tell(&self, events: impl IntoIterator<Item = NoticeEvent>, time: Time) {
        for event in events {
            (self.publish)(&Line::Notice(Notice::at(time, self.node.clone(), event)));
        }
    }

    /// Learns something else, and publishes what follows from it.
    pub(crate) fn take(&self, input: Input) {
        match input {
            Input::Start(_) => {}
            Input::Settled { key, metadata, time } => {
                let metadata = metadata.map(|metadata| *metadata);
                self.with(key.user, |join, out| {
                    self.settle(&key, metadata.as_ref(), time);
                    join.settle(&key, metadata, time, out);
                });
            }
            Input::Released(key) => self.with(key.user, |join, out| join.release(&key, out)),
            Input::Forgotten { key, time } => {
                self.with(key.user, |join, out| {
                    self.settle(&key, None, time);
                    join.forget(&key, out);
                });
            }
            Input::Aged => {
                self.with_all(|join, _| join.age());
                self.suppression().tell(&self.node, &self.publish);
            }
            Input::Stopped => {
                self.with_all(Join::release_all);
                self.suppression().tell(&self.node, &self.publish);
            }
        }
    }

    /// How many acts the exceptions of the policy have suppressed.
    pub(super) fn suppressed(&self) -> Arc<Totals> {
        self.suppression().totals()
    }

    /// The rules by which containers are not watched, with the numbers of these.
    pub(super) fn unwatching(&self) -> Arc<Unwatching> {
        self.watching().unwatching()
    }

    /// Publishes a line, unless its container is not watched or the policy suppresses it.
    fn pass(&self, line: Line) {
        if !self.watching().passes(&line) {
            return;
        }
        let is_told_by_user = |container: &Container| user_of(container).is_some();
        let suppressed = |finding: &Finding| self.ledger.suppressed(finding);
        self.suppression().pass(
            line,
            &self.node,
            is_told_by_user,
            suppression::Out { publish: &self.publish, suppressed: &suppressed },
        );
    }

    fn watching(&self) -> MutexGuard<'_, Watching> {
        self.watching.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn suppression(&self) -> MutexGuard<'_, Suppression> {
        self.suppression.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key of a container and the engines that may know it, or `None` if there is no such engine.
    fn engines_for(&self, container: &Container) -> Option<(Key, Vec<Arc<Engine>>)> {
        let key = Key { id: Id::new(container.id.as_ref()?.as_str())?, user: user_of(container) };
        let engines = self.engines.of(container);
        (!engines.is_empty()).then_some((key, engines))
    }

    /// Like [`Self::with`], for the containers of the node and of users.
    fn with_all(&self, work: impl Fn(&mut Join, &mut dyn FnMut(Out))) {
        [None, Some(0)].into_iter().for_each(|user| self.with(user, &work));
    }

    /// Runs `work` on the containers of the node or of users, and publishes its output before any other output about
    /// them.
    fn with<T>(&self, user: Option<u32>, work: impl FnOnce(&mut Join, &mut dyn FnMut(Out)) -> T) -> T {
        let joins = if user.is_none() { &self.nodes } else { &self.users };
        let mut join = joins.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut join, &mut |out| {
            self.pass(match out {
                Out::Finding(finding) => Line::Finding(finding),
                Out::Info(container, time) => {
                    Line::Notice(Notice::at(time, self.node.clone(), NoticeEvent::ContainerInfo { container }))
                }
            });
        })
    }
}
