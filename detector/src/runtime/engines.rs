//! Queries the container engines, and tracks whether they answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fmt, io};

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::endpoint::{Endpoint, Protocol, user_of};
use super::error::{Error, PATIENCE};
use super::id::Id;
use super::metadata::Metadata;
use super::{cri, docker};
use crate::finding::Container;
use crate::recent::Recent;

/// How many queries can run on one engine at the same time.
const MAX_CONCURRENT_QUERIES: usize = 16;
/// How long a failing engine is not queried: the first time, and at most. The time doubles with each failure.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// For how many users engines are remembered.
const MAX_USERS: usize = 64;

/// The state of an engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum EngineState {
    /// The engine was not queried yet.
    Unasked,
    /// No process listens on the engine's socket.
    Absent,
    /// The engine answers.
    Answers,
    /// The engine does not answer, or answers with an error.
    Failing {
        /// The reason.
        why: String,
    },
}

/// The socket of an engine, and its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineStatus {
    /// `cri`, `docker` or `podman`.
    pub kind: String,
    /// The path of the engine's socket.
    pub path: String,
    /// The state of the engine.
    #[serde(flatten)]
    pub state: EngineState,
}

impl fmt::Display for EngineStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<13} {}: ", self.kind, self.path)?;
        match &self.state {
            EngineState::Unasked => f.write_str("not queried yet"),
            EngineState::Absent => f.write_str("not running"),
            EngineState::Answers => f.write_str("answers"),
            EngineState::Failing { why } => write!(f, "fails: {why}"),
        }
    }
}

/// All engines that can be queried.
#[derive(Debug, Default)]
pub struct Engines {
    system: Vec<Arc<Engine>>,
    /// The engines of users, or `None` if these are not queried.
    users: Option<Mutex<Recent<u32, [Arc<Engine>; 2]>>>,
}

/// Which engines there are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// The node's own.
    sockets: Vec<Endpoint>,
    /// Whether those of ordinary users count, too.
    users: bool,
}

impl From<Setup> for Engines {
    fn from(setup: Setup) -> Self {
        Self::new(setup.sockets, setup.users)
    }
}

/// The result of a query.
#[derive(Debug)]
pub(super) enum Answer {
    /// The container's metadata.
    Known(Box<Metadata>),
    /// The engine does not know the container.
    Unknown,
    /// The engine knows the container, but its answer is too long to be read.
    Unreadable,
    /// An engine that could know the container could not be queried.
    Unavailable,
}

impl Engines {
    /// Uses these engines and, if `users` is set, the engines of ordinary users.
    pub fn new(system: Vec<Endpoint>, users: bool) -> Self {
        Self {
            system: system.into_iter().map(|endpoint| Arc::new(Engine::new(endpoint))).collect(),
            users: users.then(|| Mutex::new(Recent::new(MAX_USERS))),
        }
    }

    /// What these engines can be made of again.
    pub(super) fn setup(&self) -> Setup {
        let sockets = self.system.iter().map(|engine| engine.endpoint.clone()).collect();
        Setup { sockets, users: self.users.is_some() }
    }

    /// The states of the node's own engines.
    pub fn status(&self) -> Vec<EngineStatus> {
        let status = |engine: &Arc<Engine>| EngineStatus {
            kind: engine.endpoint.protocol.name().to_owned(),
            path: engine.endpoint.path.display().to_string(),
            state: engine.health().state.clone(),
        };
        self.system.iter().map(status).collect()
    }

    /// The engines that can know a container.
    pub(super) fn of(&self, container: &Container) -> Vec<Arc<Engine>> {
        let mut engines = match (user_of(container), &self.users) {
            (None, _) => self.system.clone(),
            (Some(_), None) => Vec::new(),
            (Some(user), Some(users)) => {
                let mut users = users.lock().unwrap_or_else(PoisonError::into_inner);
                if users.get(&user).is_none() {
                    users.insert(user, Endpoint::of_user(user).map(|endpoint| Arc::new(Engine::new(endpoint))));
                }
                users.get(&user).map_or_else(Vec::new, |engines| engines.to_vec())
            }
        };
        engines.retain(|engine| engine.endpoint.knows(container));
        engines
    }
}

/// Queries each of the node's own engines once, and returns their states. Waits up to `PATIENCE` for each.
///
/// # Errors
///
/// The error of the operating system.
pub fn check(engines: &Engines) -> io::Result<Vec<EngineStatus>> {
    let nobody = Id::nobody();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        for engine in &engines.system {
            engine.query(&nobody).await;
        }
    });
    Ok(engines.status())
}

/// An engine, and its state.
#[derive(Debug)]
pub(super) struct Engine {
    endpoint: Endpoint,
    health: Mutex<Health>,
    permits: Semaphore,
}

#[derive(Debug)]
struct Health {
    state: EngineState,
    /// Whether the engine has ever answered.
    has_answered: bool,
    /// Set while the engine is failing.
    backoff: Option<Backoff>,
}

/// A time during which a failing engine is not queried.
#[derive(Clone, Copy, Debug)]
struct Backoff {
    began: Instant,
    ends: Instant,
    /// The length of that time.
    length: Duration,
}

impl Engine {
    fn new(endpoint: Endpoint) -> Self {
        let health = Mutex::new(Health { state: EngineState::Unasked, has_answered: false, backoff: None });
        Self { endpoint, health, permits: Semaphore::new(MAX_CONCURRENT_QUERIES) }
    }

    /// Queries the metadata of a container, unless the engine has failed recently.
    pub(super) async fn query(&self, id: &Id) -> Answer {
        let Ok(_permit) = self.permits.acquire().await else { return Answer::Unavailable };
        let since = Instant::now();
        if let Some(backoff) = &mut self.health().backoff {
            if since < backoff.ends {
                return Answer::Unavailable;
            }
            // No other query may start until it is clear whether this one is answered.
            backoff.ends = since + PATIENCE;
        }
        let answer = async {
            match self.endpoint.protocol {
                Protocol::Cri => cri::query(&self.endpoint, id).await,
                Protocol::Docker | Protocol::Podman => docker::query(&self.endpoint, id).await,
            }
        };
        match timeout(PATIENCE, answer).await.unwrap_or(Err(Error::Silent)) {
            Ok(answer) => {
                self.set_answering();
                answer.map_or(Answer::Unknown, |metadata| Answer::Known(Box::new(metadata)))
            }
            // The creator of the container controls the length of the answer, so other containers can still be queried.
            Err(Error::TooLarge) => {
                tracing::warn!(
                    "{}: the metadata of container {} is not used: {}",
                    self.endpoint,
                    id.as_str(),
                    Error::TooLarge
                );
                self.set_answering();
                Answer::Unreadable
            }
            // An error about one container does not mean that the engine is failing.
            Err(Error::Refused(why)) => {
                tracing::debug!("{}: the query about container {} was refused: {why}", self.endpoint, id.as_str());
                self.set_answering();
                Answer::Unavailable
            }
            Err(error) => {
                self.set_failing(since, &error);
                Answer::Unavailable
            }
        }
    }

    /// Whether the engine runs, or has run before. While it restarts, it may know a container that other engines do not
    /// know.
    pub(super) fn is_in_use(&self) -> bool {
        let health = self.health();
        health.has_answered || matches!(health.state, EngineState::Failing { .. })
    }

    fn set_answering(&self) {
        let mut health = self.health();
        if health.state != EngineState::Answers {
            tracing::info!("runtime {}: answers queries", self.endpoint);
            *health = Health { state: EngineState::Answers, has_answered: true, backoff: None };
        }
    }

    /// Records the failure of a query that began at `since`.
    fn set_failing(&self, since: Instant, error: &Error) {
        let mut health = self.health();
        let (at_first, at_most) = BACKOFF;
        let length = match health.backoff {
            // The failure of a concurrent query was already recorded.
            Some(backoff) if since < backoff.began => return,
            Some(backoff) => at_most.min(2 * backoff.length),
            None => at_first,
        };
        let now = Instant::now();
        health.backoff = Some(Backoff { began: now, ends: now + length, length });
        let state = match error {
            Error::Absent => EngineState::Absent,
            other => EngineState::Failing { why: other.to_string() },
        };
        if std::mem::discriminant(&health.state) != std::mem::discriminant(&state) {
            match (&health.state, &state) {
                (_, EngineState::Failing { why }) => tracing::warn!(
                    "runtime {}: cannot be queried: {why}; findings lack its metadata until it answers",
                    self.endpoint
                ),
                (EngineState::Unasked, _) => {}
                _ => tracing::warn!(
                    "runtime {}: cannot be queried: {error}; findings lack its metadata until it answers",
                    self.endpoint
                ),
            }
        }
        health.state = state;
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
