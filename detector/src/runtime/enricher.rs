//! The thread that queries the container runtimes, and the path of findings that wait for its answers.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::endpoint::user_of;
use super::engines::{Answer, Engine, Engines};
use super::id::Id;
use super::join::{Join, Key, Out, Todo};
use crate::finding::{Container, Finding, Line, Notice, NoticeEvent};
use crate::redact::Redactor;

/// The delay before a runtime is queried again about a container: the first time, and at most. The delay doubles each
/// time. A runtime may know a new container only after a moment.
const RETRY_DELAY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(30));
/// How many times the runtimes must answer that they do not know a container before they are not queried about it
/// again.
const MAX_DENIALS: usize = 8;
/// How long a container's runtime is tried that cannot be queried.
const QUERY_TIMEOUT: Duration = Duration::from_secs(600);

/// How long the metadata of a container is kept without findings about it. It is forgotten after one to two such
/// periods.
const RETENTION: Duration = Duration::from_secs(3600);

/// The options of an enricher.
#[derive(Clone, Debug)]
pub struct Options {
    /// The engines to query.
    pub engines: Arc<Engines>,
    /// How long a finding waits at most for an answer.
    pub wait: Duration,
    /// Name of the node.
    pub node: String,
    /// Redacts secrets in arguments.
    pub redactor: Redactor,
}

/// Adds the runtimes' metadata to findings before they are published. Dropping it publishes the findings that still
/// wait.
pub struct Enricher {
    shared: Arc<Shared>,
    /// Stops the thread when it is dropped.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    options: Options,
    /// The containers of the node.
    node: Mutex<Join>,
    /// The containers of ordinary users. They are separate because a user can create any number of containers.
    users: Mutex<Join>,
    publish: Box<dyn Fn(&Line) + Send + Sync>,
    tasks: Handle,
}

impl Enricher {
    /// Starts the thread. It passes findings and notices to `publish`, which must not block.
    ///
    /// # Errors
    ///
    /// The error of the operating system.
    pub fn start(options: Options, publish: impl Fn(&Line) + Send + Sync + 'static) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let tasks = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("runtimes".to_owned()).spawn(move || {
            // This returns when the sender is dropped; nothing is ever sent.
            let _ = runtime.block_on(stopped);
        })?;
        let shared = Arc::new(Shared {
            options,
            node: Mutex::default(),
            users: Mutex::default(),
            publish: Box::new(publish),
            tasks,
        });
        let weak = Arc::downgrade(&shared);
        shared.tasks.spawn(async move {
            loop {
                sleep(RETENTION).await;
                let Some(shared) = weak.upgrade() else { return };
                shared.with_all(|join, _| join.age());
            }
        });
        Ok(Self { shared, stop: Some(stop), thread: Some(thread) })
    }

    /// The inlet for findings, which must be dropped before the enricher.
    pub fn inlet(&self) -> Inlet {
        Inlet { shared: Arc::clone(&self.shared) }
    }
}

/// Accepts findings. Its methods never block.
#[derive(Clone)]
pub struct Inlet {
    shared: Arc<Shared>,
}

impl Inlet {
    /// Publishes a notice immediately, and a finding when its container's metadata is known or the wait is over.
    pub fn send(&self, line: Line) {
        match line {
            Line::Finding(finding) => self.shared.send_finding(finding),
            line => (self.shared.publish)(&line),
        }
    }

    /// Queries the runtimes about a container that has started, so that its metadata is there before its first finding.
    pub fn container_started(&self, container: &Container) {
        self.shared.container_started(container);
    }
}

impl Drop for Enricher {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that queries the container runtimes panicked; findings lack their metadata");
        }
        self.shared.with_all(Join::release_all);
    }
}

impl Shared {
    fn container_started(self: &Arc<Self>, container: &Container) {
        if let Some((key, engines)) = self.engines_for(container) {
            let todo = self.with(key.user, |join, _| join.start_query(&key, container.cgroup_id));
            self.start_tasks(todo, key, engines);
        }
    }

    fn send_finding(self: &Arc<Self>, finding: Box<Finding>) {
        match finding.container.as_ref().and_then(|container| self.engines_for(container)) {
            Some((key, engines)) => {
                let todo = self.with(key.user, |join, out| join.add_finding(&key, finding, out));
                self.start_tasks(todo, key, engines);
            }
            None => (self.publish)(&Line::Finding(finding)),
        }
    }

    /// The key of a container and the engines that may know it, or `None` if there is no such engine.
    fn engines_for(&self, container: &Container) -> Option<(Key, Vec<Arc<Engine>>)> {
        let key = Key { id: Id::new(container.id.as_ref()?.as_str())?, user: user_of(container) };
        let engines = self.options.engines.of(container);
        (!engines.is_empty()).then_some((key, engines))
    }

    fn start_tasks(self: &Arc<Self>, todo: Todo, key: Key, engines: Vec<Arc<Engine>>) {
        if todo.timer {
            let (shared, key) = (Arc::clone(self), key.clone());
            self.tasks.spawn(async move {
                sleep(shared.options.wait).await;
                shared.with(key.user, |join, out| join.release(&key, out));
            });
        }
        if todo.query {
            let shared = Arc::clone(self);
            self.tasks.spawn(async move { shared.query_until_known(&key, &engines).await });
        }
    }

    /// Queries the engines until one knows the container, or it is clear that none does.
    async fn query_until_known(&self, key: &Key, engines: &[Arc<Engine>]) {
        let since = Instant::now();
        let (mut pause, longest) = RETRY_DELAY;
        let mut denials = 0;
        loop {
            match query(&key.id, engines).await {
                Answer::Known(mut metadata) => {
                    metadata.redact(&self.options.redactor);
                    return self.with(key.user, |join, out| join.settle(key, Some(*metadata), out));
                }
                Answer::Unreadable => return self.with(key.user, |join, out| join.settle(key, None, out)),
                Answer::Unknown => {
                    denials += 1;
                    if denials == MAX_DENIALS {
                        return self.with(key.user, |join, out| join.settle(key, None, out));
                    }
                }
                Answer::Unavailable if since.elapsed() >= QUERY_TIMEOUT => {
                    return self.with(key.user, |join, out| join.forget(key, out));
                }
                Answer::Unavailable => self.with(key.user, |join, out| join.release(key, out)),
            }
            sleep(pause).await;
            pause = longest.min(2 * pause);
        }
    }

    /// Like [`Self::with`], for the containers of the node and of users.
    fn with_all(&self, work: impl Fn(&mut Join, &mut dyn FnMut(Out))) {
        [None, Some(0)].into_iter().for_each(|user| self.with(user, &work));
    }

    /// Runs `work` on the containers of the node or of users, and publishes its output before any other output about
    /// them.
    fn with<T>(&self, user: Option<u32>, work: impl FnOnce(&mut Join, &mut dyn FnMut(Out)) -> T) -> T {
        let joins = if user.is_none() { &self.node } else { &self.users };
        let mut join = joins.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut join, &mut |out| {
            (self.publish)(&match out {
                Out::Finding(finding) => Line::Finding(finding),
                Out::Info(container) => {
                    Line::Notice(Notice::now(self.options.node.clone(), NoticeEvent::ContainerInfo { container }))
                }
            });
        })
    }
}

/// Queries the engines one after the other.
async fn query(id: &Id, engines: &[Arc<Engine>]) -> Answer {
    let (mut is_denied, mut is_missing) = (false, false);
    for engine in engines {
        match engine.query(id).await {
            answer @ (Answer::Known(_) | Answer::Unreadable) => return answer,
            Answer::Unknown => is_denied = true,
            Answer::Unavailable => is_missing |= engine.is_in_use(),
        }
    }
    if is_denied && !is_missing { Answer::Unknown } else { Answer::Unavailable }
}
