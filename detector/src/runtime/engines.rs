//! The engines that are asked about containers, and how well they answer.

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

/// Questions that an engine is asked at a time.
const AT_A_TIME: usize = 16;
/// How long a failing engine is left alone, at first and at most.
const REST: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// Users whose engines are remembered.
const MAX_USERS: usize = 64;

/// How an engine is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum EngineState {
    /// It was not needed yet.
    Unasked,
    /// Nobody listens there.
    Absent,
    /// It answers.
    Answers,
    /// It does not answer, or not as it should.
    Failing {
        /// Why.
        why: String,
    },
}

/// Where an engine listens, and how it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineStatus {
    /// `cri`, `docker` or `podman`.
    pub kind: String,
    /// Where it is.
    pub path: String,
    /// How it is.
    #[serde(flatten)]
    pub state: EngineState,
}

impl fmt::Display for EngineStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<13} {}: ", self.kind, self.path)?;
        match &self.state {
            EngineState::Unasked => f.write_str("not asked yet"),
            EngineState::Absent => f.write_str("nobody listens there"),
            EngineState::Answers => f.write_str("answers"),
            EngineState::Failing { why } => write!(f, "fails: {why}"),
        }
    }
}

/// All engines that may be asked.
#[derive(Debug, Default)]
pub struct Engines {
    system: Vec<Arc<Engine>>,
    /// `None`: the engines of users are not asked.
    users: Option<Mutex<Recent<u32, [Arc<Engine>; 2]>>>,
}

/// What comes of asking.
#[derive(Debug)]
pub(super) enum Answer {
    /// This is known.
    Known(Box<Metadata>),
    /// Nothing is known.
    Unknown,
    /// Something is known that is not read, and will not be.
    Unreadable,
    /// Nobody could be asked, or somebody who could know it could not.
    Unavailable,
}

impl Engines {
    /// These, and with `users` those of the users to whom containers belong.
    pub fn new(system: Vec<Endpoint>, users: bool) -> Self {
        Self {
            system: system.into_iter().map(|endpoint| Arc::new(Engine::new(endpoint))).collect(),
            users: users.then(|| Mutex::new(Recent::new(MAX_USERS))),
        }
    }

    /// How the node's own are.
    pub fn status(&self) -> Vec<EngineStatus> {
        let status = |engine: &Arc<Engine>| EngineStatus {
            kind: engine.endpoint.protocol.name().to_owned(),
            path: engine.endpoint.path.display().to_string(),
            state: engine.health().state.clone(),
        };
        self.system.iter().map(status).collect()
    }

    /// Those that can know a container.
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

/// How the node's own engines are, after asking each of them something. Takes as long as they do, if not for ever.
///
/// # Errors
///
/// The system's.
pub fn check(engines: &Engines) -> io::Result<Vec<EngineStatus>> {
    let nobody = Id::nobody();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        for engine in &engines.system {
            engine.ask(&nobody).await;
        }
    });
    Ok(engines.status())
}

/// An engine that is asked.
#[derive(Debug)]
pub(super) struct Engine {
    endpoint: Endpoint,
    health: Mutex<Health>,
    at_a_time: Semaphore,
}

#[derive(Debug)]
struct Health {
    state: EngineState,
    /// It has answered at some time.
    has_answered: bool,
    /// It has failed.
    rest: Option<Rest>,
}

/// A time in which an engine is left alone.
#[derive(Clone, Copy, Debug)]
struct Rest {
    began: Instant,
    ends: Instant,
    /// How long it was.
    length: Duration,
}

impl Engine {
    fn new(endpoint: Endpoint) -> Self {
        let health = Mutex::new(Health { state: EngineState::Unasked, has_answered: false, rest: None });
        Self { endpoint, health, at_a_time: Semaphore::new(AT_A_TIME) }
    }

    /// Asks about a container, unless the engine has failed a moment ago.
    pub(super) async fn ask(&self, id: &Id) -> Answer {
        let Ok(_permit) = self.at_a_time.acquire().await else { return Answer::Unavailable };
        let since = Instant::now();
        if let Some(rest) = &mut self.health().rest {
            if since < rest.ends {
                return Answer::Unavailable;
            }
            // Nobody else asks until it is clear whether this one gets an answer.
            rest.ends = since + PATIENCE;
        }
        let answer = async {
            match self.endpoint.protocol {
                Protocol::Cri => cri::ask(&self.endpoint, id).await,
                Protocol::Docker | Protocol::Podman => docker::ask(&self.endpoint, id).await,
            }
        };
        match timeout(PATIENCE, answer).await.unwrap_or(Err(Error::Silent)) {
            Ok(answer) => {
                self.answers();
                answer.map_or(Answer::Unknown, |metadata| Answer::Known(Box::new(metadata)))
            }
            // Whoever made the container made it so: no reason not to ask about others.
            Err(Error::TooLarge) => {
                tracing::warn!("{}: not read, of container {}: {}", self.endpoint, id.as_str(), Error::TooLarge);
                self.answers();
                Answer::Unreadable
            }
            // Neither is that.
            Err(Error::Refused(why)) => {
                tracing::debug!("{}: of container {}: {why}", self.endpoint, id.as_str());
                self.answers();
                Answer::Unavailable
            }
            Err(error) => {
                self.fails(since, &error);
                Answer::Unavailable
            }
        }
    }

    /// Whether somebody listens there, or has: a runtime that is being restarted can know what others deny.
    pub(super) fn is_there(&self) -> bool {
        let health = self.health();
        health.has_answered || matches!(health.state, EngineState::Failing { .. })
    }

    fn answers(&self) {
        let mut health = self.health();
        if health.state != EngineState::Answers {
            tracing::info!("runtime {}: it answers", self.endpoint);
            *health = Health { state: EngineState::Answers, has_answered: true, rest: None };
        }
    }

    /// Takes in that what was asked at `since` failed.
    fn fails(&self, since: Instant, error: &Error) {
        let mut health = self.health();
        let (at_first, at_most) = REST;
        let length = match health.rest {
            // Others that were asked with it have failed before.
            Some(rest) if since < rest.began => return,
            Some(rest) => at_most.min(2 * rest.length),
            None => at_first,
        };
        let now = Instant::now();
        health.rest = Some(Rest { began: now, ends: now + length, length });
        let state = match error {
            Error::Absent => EngineState::Absent,
            other => EngineState::Failing { why: other.to_string() },
        };
        if std::mem::discriminant(&health.state) != std::mem::discriminant(&state) {
            match (&health.state, &state) {
                (_, EngineState::Failing { why }) => tracing::warn!("runtime {}: {why}; trying again", self.endpoint),
                (EngineState::Unasked, _) => {}
                _ => tracing::warn!("runtime {}: {error}; trying again", self.endpoint),
            }
        }
        health.state = state;
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
