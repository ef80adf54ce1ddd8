//! The thread that asks the runtimes, and the way of findings past it.

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

/// How soon a runtime is asked again about a container, at first and at most: it may know it in a moment.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(30));
/// How often runtimes may say that they do not know a container until they are believed.
const DENIALS: usize = 8;
/// How long a runtime is waited for that cannot be asked.
const GIVE_UP: Duration = Duration::from_secs(600);

/// How long what was told of a container is kept if nothing is found of it: this at least, and twice this at most.
const RETENTION: Duration = Duration::from_secs(3600);

/// What can be chosen.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who is asked.
    pub engines: Arc<Engines>,
    /// How long a finding waits for an answer at most.
    pub wait: Duration,
    /// Name of the node.
    pub node: String,
    /// What is kept secret of arguments.
    pub redactor: Redactor,
}

/// Puts what runtimes know into findings, on their way to the output. Dropping it publishes what waits.
pub struct Enricher {
    shared: Arc<Shared>,
    /// Ends the thread when it is dropped.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    options: Options,
    /// The node's containers.
    node: Mutex<Join>,
    /// Those of ordinary users, who can make as many as they like.
    users: Mutex<Join>,
    publish: Box<dyn Fn(&Line) + Send + Sync>,
    tasks: Handle,
}

impl Enricher {
    /// Starts the thread. Lines go to `publish`, which must not block.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn start(options: Options, publish: impl Fn(&Line) + Send + Sync + 'static) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let tasks = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("runtimes".to_owned()).spawn(move || {
            // Nothing is ever sent.
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

    /// Where findings go in. It is to be dropped before the enricher.
    pub fn inlet(&self) -> Inlet {
        Inlet { shared: Arc::clone(&self.shared) }
    }
}

/// Takes findings in. Never blocks; findings wait behind it.
#[derive(Clone)]
pub struct Inlet {
    shared: Arc<Shared>,
}

impl Inlet {
    /// Takes a line in. Only findings wait.
    pub fn line(&self, line: Line) {
        match line {
            Line::Finding(finding) => self.shared.finding(finding),
            line => (self.shared.publish)(&line),
        }
    }

    /// Takes in that a container begins, so that it is asked about before anything is found of it.
    pub fn container_began(&self, container: &Container) {
        self.shared.began(container);
    }
}

impl Drop for Enricher {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that asks the runtimes panicked");
        }
        self.shared.with_all(Join::all_overdue);
    }
}

impl Shared {
    fn began(self: &Arc<Self>, container: &Container) {
        if let Some((key, asked)) = self.who_knows(container) {
            let todo = self.with(key.user, |join, _| join.began(&key, container.cgroup_id));
            self.act(todo, key, asked);
        }
    }

    fn finding(self: &Arc<Self>, finding: Box<Finding>) {
        match self.who_knows(&finding.container) {
            Some((key, asked)) => {
                let todo = self.with(key.user, |join, out| join.finding(&key, finding, out));
                self.act(todo, key, asked);
            }
            None => (self.publish)(&Line::Finding(finding)),
        }
    }

    /// How a container is asked about, and who may know it. `None`: nobody.
    fn who_knows(&self, container: &Container) -> Option<(Key, Vec<Arc<Engine>>)> {
        let key = Key { id: Id::new(container.id.as_ref()?.as_str())?, user: user_of(container) };
        let asked = self.options.engines.of(container);
        (!asked.is_empty()).then_some((key, asked))
    }

    fn act(self: &Arc<Self>, todo: Todo, key: Key, asked: Vec<Arc<Engine>>) {
        if todo.timer {
            let (shared, key) = (Arc::clone(self), key.clone());
            self.tasks.spawn(async move {
                sleep(shared.options.wait).await;
                shared.with(key.user, |join, out| join.overdue(&key, out));
            });
        }
        if todo.ask {
            let shared = Arc::clone(self);
            self.tasks.spawn(async move { shared.pursue(&key, &asked).await });
        }
    }

    /// Asks until somebody knows the container, or it is clear that nobody will.
    async fn pursue(&self, key: &Key, asked: &[Arc<Engine>]) {
        let since = Instant::now();
        let (mut pause, longest) = PAUSE;
        let mut denials = 0;
        loop {
            match ask(&key.id, asked).await {
                Answer::Known(mut metadata) => {
                    metadata.redact(&self.options.redactor);
                    return self.with(key.user, |join, out| join.settle(key, Some(*metadata), out));
                }
                Answer::Unreadable => return self.with(key.user, |join, out| join.settle(key, None, out)),
                Answer::Unknown => {
                    denials += 1;
                    if denials == DENIALS {
                        return self.with(key.user, |join, out| join.settle(key, None, out));
                    }
                }
                Answer::Unavailable if since.elapsed() >= GIVE_UP => {
                    return self.with(key.user, |join, out| join.forget(key, out));
                }
                Answer::Unavailable => self.with(key.user, |join, out| join.overdue(key, out)),
            }
            sleep(pause).await;
            pause = longest.min(2 * pause);
        }
    }

    /// As [`Self::with`], on all containers.
    fn with_all(&self, work: impl Fn(&mut Join, &mut dyn FnMut(Out))) {
        [None, Some(0)].into_iter().for_each(|user| self.with(user, &work));
    }

    /// Works on the containers of the node, or of users; what comes out is published before anything else about them can come
    /// out.
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

/// Asks one after the other.
async fn ask(id: &Id, asked: &[Arc<Engine>]) -> Answer {
    let (mut is_denied, mut is_missing) = (false, false);
    for asked in asked {
        match asked.ask(id).await {
            answer @ (Answer::Known(_) | Answer::Unreadable) => return answer,
            Answer::Unknown => is_denied = true,
            Answer::Unavailable => is_missing |= asked.is_there(),
        }
    }
    if is_denied && !is_missing { Answer::Unknown } else { Answer::Unavailable }
}
