//! The sockets that are asked, and how they are.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::metadata::Metadata;
use super::socket::{Kind, Socket, user_of};
use super::{Error, Id, PATIENCE, cri, docker};
use crate::finding::Container;
use crate::recent::Recent;

/// Questions that a runtime is asked at a time.
const AT_A_TIME: usize = 16;
/// How long a failing socket is left alone, at first and at most.
const REST: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// Users whose sockets are remembered.
const MAX_USERS: usize = 64;

/// How a socket is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
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

/// A socket, and how it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// `cri`, `docker` or `podman`.
    pub kind: String,
    /// Where it is.
    pub path: String,
    /// How it is.
    #[serde(flatten)]
    pub state: State,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<13} {}: ", self.kind, self.path)?;
        match &self.state {
            State::Unasked => f.write_str("not asked yet"),
            State::Absent => f.write_str("nobody listens there"),
            State::Answers => f.write_str("answers"),
            State::Failing { why } => write!(f, "fails: {why}"),
        }
    }
}

/// All sockets that may be asked.
#[derive(Debug, Default)]
pub struct Sockets {
    system: Vec<Arc<Asked>>,
    /// `None`: those of users are not asked.
    users: Option<Mutex<Recent<u32, [Arc<Asked>; 2]>>>,
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

impl Sockets {
    /// These, and with `users` those of the users to whom containers belong.
    pub fn new(system: Vec<Socket>, users: bool) -> Self {
        Self {
            system: system.into_iter().map(|socket| Arc::new(Asked::new(socket))).collect(),
            users: users.then(|| Mutex::new(Recent::new(MAX_USERS))),
        }
    }

    /// How the node's own are.
    pub fn status(&self) -> Vec<Status> {
        let status = |asked: &Arc<Asked>| Status {
            kind: asked.socket.kind.name().to_owned(),
            path: asked.socket.path.display().to_string(),
            state: asked.health().state.clone(),
        };
        self.system.iter().map(status).collect()
    }

    /// Those that can know a container.
    pub(super) fn of(&self, container: &Container) -> Vec<Arc<Asked>> {
        let mut asked = match (user_of(container), &self.users) {
            (None, _) => self.system.clone(),
            (Some(_), None) => Vec::new(),
            (Some(user), Some(users)) => {
                let mut users = users.lock().unwrap_or_else(PoisonError::into_inner);
                if users.get(&user).is_none() {
                    users.insert(user, Socket::of_user(user).map(|socket| Arc::new(Asked::new(socket))));
                }
                users.get(&user).map_or_else(Vec::new, |asked| asked.to_vec())
            }
        };
        asked.retain(|asked| asked.socket.knows(container));
        asked
    }
}

/// How the node's own sockets are, after asking each of them something. Takes as long as they do, if not for ever.
///
/// # Errors
///
/// The system's.
pub fn check(sockets: &Sockets) -> io::Result<Vec<Status>> {
    let nobody = Id("0".repeat(64));
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        for asked in &sockets.system {
            asked.ask(&nobody).await;
        }
    });
    Ok(sockets.status())
}

/// A socket that is asked.
#[derive(Debug)]
pub(super) struct Asked {
    socket: Socket,
    health: Mutex<Health>,
    at_a_time: Semaphore,
}

#[derive(Debug)]
struct Health {
    state: State,
    /// It has answered at some time.
    has_answered: bool,
    /// It has failed.
    rest: Option<Rest>,
}

/// A time in which a socket is left alone.
#[derive(Clone, Copy, Debug)]
struct Rest {
    began: Instant,
    ends: Instant,
    /// How long it was.
    length: Duration,
}

impl Asked {
    fn new(socket: Socket) -> Self {
        let health = Mutex::new(Health { state: State::Unasked, has_answered: false, rest: None });
        Self { socket, health, at_a_time: Semaphore::new(AT_A_TIME) }
    }

    /// Asks about a container, unless the socket has failed a moment ago.
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
            match self.socket.kind {
                Kind::Cri => cri::ask(&self.socket, id).await,
                Kind::Docker | Kind::Podman => docker::ask(&self.socket, id).await,
            }
        };
        match timeout(PATIENCE, answer).await.unwrap_or(Err(Error::Silent)) {
            Ok(answer) => {
                self.answers();
                answer.map_or(Answer::Unknown, |metadata| Answer::Known(Box::new(metadata)))
            }
            // Whoever made the container made it so: no reason not to ask about others.
            Err(Error::TooLarge) => {
                tracing::warn!("{}: not read, of container {}: {}", self.socket, id.as_str(), Error::TooLarge);
                self.answers();
                Answer::Unreadable
            }
            // Neither is that.
            Err(Error::Refused(why)) => {
                tracing::debug!("{}: of container {}: {why}", self.socket, id.as_str());
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
        health.has_answered || matches!(health.state, State::Failing { .. })
    }

    fn answers(&self) {
        let mut health = self.health();
        if health.state != State::Answers {
            tracing::info!("runtime {}: it answers", self.socket);
            *health = Health { state: State::Answers, has_answered: true, rest: None };
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
            Error::Absent => State::Absent,
            other => State::Failing { why: other.to_string() },
        };
        if std::mem::discriminant(&health.state) != std::mem::discriminant(&state) {
            match (&health.state, &state) {
                (_, State::Failing { why }) => tracing::warn!("runtime {}: {why}; trying again", self.socket),
                (State::Unasked, _) => {}
                _ => tracing::warn!("runtime {}: {error}; trying again", self.socket),
            }
        }
        health.state = state;
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
