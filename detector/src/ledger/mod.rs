//! The ledger: of each container, whether it is still its image, what is not, who did that, and what of it was
//! executed. It is what `detector drift` shows.
//!
//! A thread of its own is told the lines that are published ([`Inlet`]), which containers run, and what an exception
//! has suppressed. Once a second it writes to the disk what that changes, so a crash takes no more than the
//! last second, and the ledger then says that this time is missing. Whoever reads it sees what is on the disk.
//!
//! A ledger that cannot be used never keeps the daemon from watching: it is set aside, or tried again.

pub mod account;
pub(crate) mod advice;
pub(crate) mod diff;
pub mod entry;
mod inlet;
mod keeper;
pub(crate) mod layers;
pub mod page;
pub mod replicas;
mod share;
mod store;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod upper;

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::RecvTimeoutError;
use serde::{Deserialize, Serialize};

use crate::finding::{Line, Time};
use entry::Entry;
pub use inlet::Inlet;
use inlet::{Outlet, Told};
use keeper::Keeper;
use page::{Gap, Page, Session, Verdict};
use store::{Error, Store};

/// How long ended containers are kept by default.
pub const KEEP: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long something waits at most for others that are written together with it.
const TOGETHER: Duration = Duration::from_secs(1);
/// How much is written together at most.
const MOST_TOGETHER: usize = 4096;
/// How often it is written that the ledger is kept, if nothing happens.
const IDLE: Duration = Duration::from_secs(60);
/// How long a ledger that fails is left alone before it is tried again.
const RETRY: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
/// How long whoever reads the ledger waits for what is not written yet, and how long a daemon that stops does.
const PATIENCE: Duration = Duration::from_secs(3);

/// What the thread reports.
#[derive(Debug)]
pub(crate) enum Report {
    /// Why the ledger is not kept from now on, or that it is again.
    Failure(Option<String>),
    /// So much is missing in it, because it was too slow.
    Lost(u64),
}

/// A row of an answer about the ledger. A page is followed by what is about its container, and the end by nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Row {
    /// A time that the ledger lacks. All of them come first.
    Gap(Gap),
    /// A container.
    Page(Box<Page>),
    /// A path of this container.
    Entry(Box<Entry>),
    /// A session of this container.
    Session(Box<Session>),
    /// The answer is whole.
    End,
}

/// What is asked of the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// The container: the beginning of its id, its name, or its pod with or without the namespace. `None` means all.
    #[serde(default)]
    pub container: Option<String>,
    /// Whether entries and sessions are wanted, too.
    #[serde(default)]
    pub is_detailed: bool,
}

/// How many containers run, by what the ledger says about them.
pub type Standing = BTreeMap<Verdict, u64>;

/// A ledger that is kept.
#[derive(Clone, Debug)]
pub struct Ledger {
    inlet: Inlet,
    opened: Arc<Mutex<Opened>>,
}

/// What there is to read.
#[derive(Debug)]
enum Opened {
    /// A ledger, and what it says.
    Store(Store, Standing),
    /// None, for this reason.
    Nothing(String),
}

impl Ledger {
    /// Starts the thread, which keeps the ledger in this directory, and ended containers for this long. It calls
    /// `report` when something goes wrong, which must not block.
    ///
    /// # Errors
    ///
    /// The operating system refuses the thread.
    pub(crate) fn start(
        directory: PathBuf,
        keep: Duration,
        report: impl Fn(Report) + Send + 'static,
    ) -> io::Result<Self> {
        let (inlet, outlet) = inlet::channel();
        let opened = Arc::new(Mutex::new(Opened::Nothing("the daemon is still opening it".to_owned())));
        let thread = Thread {
            directory,
            keep,
            outlet,
            opened: Arc::clone(&opened),
            report: Box::new(report),
            failure: None,
            closing: None,
        };
        std::thread::Builder::new().name("ledger".to_owned()).spawn(move || thread.run())?;
        Ok(Self { inlet, opened })
    }

    /// Tells a line that is published.
    pub(crate) fn tell(&self, line: &Line, serialised: &Bytes) {
        self.inlet.line(line, serialised);
    }

    /// Where the ledger is told what else happens.
    pub(crate) fn inlet(&self) -> Inlet {
        self.inlet.clone()
    }

    /// How many containers run, by what is said about them. `None` if the ledger is not kept.
    pub(crate) fn standing(&self) -> Option<Standing> {
        match &*lock(&self.opened) {
            Opened::Store(_, standing) => Some(standing.clone()),
            Opened::Nothing(_) => None,
        }
    }

    /// How much of what it was told waits to be written.
    pub(crate) fn waiting(&self) -> usize {
        self.inlet.waiting()
    }

    /// Waits until everything that the ledger was told is on the disk and the file is closed, but not for ever.
    pub(crate) fn close(&self) {
        let _ = self.inlet.ask(Told::Close).recv_timeout(PATIENCE);
    }

    /// Passes what is asked for to `take`, until that returns `false`.
    ///
    /// # Errors
    ///
    /// The reason why there is nothing to read, in a sentence.
    pub(crate) fn read(&self, query: &Query, take: &mut dyn FnMut(Row) -> bool) -> Result<(), String> {
        let _ = self.inlet.ask(Told::Flush).recv_timeout(PATIENCE);
        let store = match &*lock(&self.opened) {
            Opened::Store(store, _) => store.clone(),
            Opened::Nothing(why) => return Err(why.clone()),
        };
        // redb panics at some pages that are damaged.
        let read = catch_unwind(AssertUnwindSafe(|| read(&store, query, take)));
        match read {
            Ok(read) => read.map_err(|error| error.to_string()),
            Err(_) => Err("it is damaged; restart the daemon, which then begins a new one".to_owned()),
        }
    }
}

fn read(store: &Store, query: &Query, take: &mut dyn FnMut(Row) -> bool) -> Result<(), Error> {
    let view = store.read()?;
    for gap in view.gaps()? {
        if !take(Row::Gap(gap)) {
            return Ok(());
        }
    }
    for page in view.pages()? {
        let (number, page) = page?;
        if query.container.as_ref().is_some_and(|wanted| !page.is_called(wanted)) {
            continue;
        }
        if !take(Row::Page(Box::new(page))) {
            return Ok(());
        }
        if !query.is_detailed {
            continue;
        }
        for entry in view.entries(number)? {
            if !take(Row::Entry(Box::new(entry?))) {
                return Ok(());
            }
        }
        for session in view.sessions(number)? {
            if !take(Row::Session(Box::new(session?))) {
                return Ok(());
            }
        }
    }
    take(Row::End);
    Ok(())
}

/// The thread.
struct Thread {
    directory: PathBuf,
    keep: Duration,
    outlet: Outlet,
    opened: Arc<Mutex<Opened>>,
    report: Box<dyn Fn(Report) + Send>,
    failure: Option<String>,
    /// Dropped when the ledger is closed.
    closing: Option<Sender<()>>,
}

/// Why the thread stops to write to a store.
enum Stop {
    /// Nothing will follow.
    End,
    /// The store cannot be used.
    Failed(Error),
}

impl Thread {
    fn run(mut self) {
        let mut before = None;
        loop {
            // A bug in a library must not end the ledger for ever.
            let kept = catch_unwind(AssertUnwindSafe(|| self.keep(&mut before)));
            let error = match kept {
                Ok(Stop::End) => {
                    *lock(&self.opened) = Opened::Nothing("the daemon is stopping".to_owned());
                    return;
                }
                Ok(Stop::Failed(error)) => error,
                Err(_) => Error::Foreign("reading it failed; it is damaged".to_owned()),
            };
            let why = self.fail(&error);
            *lock(&self.opened) = Opened::Nothing(why.clone());
            self.set_failure(Some(why));
            // What is told meanwhile waits in the queue, or is counted.
            std::thread::sleep(RETRY);
        }
    }

    /// Opens the store, and writes to it for as long as possible. `before` is what was kept until now.
    fn keep(&mut self, before: &mut Option<Keeper>) -> Stop {
        let opened = Store::open(&self.directory).and_then(|(store, told)| {
            told.iter().for_each(|told| tracing::warn!("{told}"));
            let mut keeper = store.write(|tables| match before.as_ref() {
                Some(before) => before.reload(Time(jiff::Timestamp::now()), tables),
                None => Keeper::load(tables, self.keep),
            })?;
            *lock(&self.opened) = Opened::Store(store.clone(), keeper.standing());
            self.set_failure(None);
            loop {
                let written = self.write(&store, &mut keeper);
                match written {
                    Ok(true) => {}
                    Ok(false) => return Ok(()),
                    Err(error) => {
                        *before = Some(keeper);
                        return Err(error);
                    }
                }
            }
        });
        opened.map_or_else(Stop::Failed, |()| Stop::End)
    }

    /// Waits for something to write, and writes it with what follows soon. Returns `false` if nothing will follow.
    fn write(&mut self, store: &Store, keeper: &mut Keeper) -> Result<bool, Error> {
        let first = match self.outlet.queue.recv_timeout(IDLE) {
            Ok(told) => Some(told),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(false),
        };
        let (mut flushing, mut closing) = (None, None);
        let lost = store.write(|tables| {
            let until = Instant::now() + TOGETHER;
            let following = || {
                let left = until.saturating_duration_since(Instant::now());
                self.outlet.queue.recv_timeout(left).ok()
            };
            for told in first.into_iter().chain(std::iter::from_fn(following)).take(MOST_TOGETHER) {
                match told {
                    Told::Flush(asking) => {
                        flushing = Some(asking);
                        break;
                    }
                    Told::Close(asking) => {
                        closing = Some(asking);
                        break;
                    }
                    told => keeper.take(told, tables)?,
                }
            }
            let now = Time(jiff::Timestamp::now());
            let lost = self.outlet.take_lost();
            if lost > 0 {
                keeper.lose(lost, now, tables)?;
            }
            keeper.pass(now, tables)?;
            Ok(lost)
        })?;
        if let Opened::Store(_, standing) = &mut *lock(&self.opened) {
            *standing = keeper.standing();
        }
        // What was asked to be on the disk is there.
        drop(flushing);
        self.closing = closing;
        if lost > 0 {
            (self.report)(Report::Lost(lost));
        }
        Ok(self.closing.is_none())
    }

    /// Sets a store aside that cannot be used. Returns why the ledger is not kept.
    fn fail(&self, error: &Error) -> String {
        let directory = self.directory.display();
        if let Error::Foreign(why) = error {
            return match store::set_aside(&self.directory, why) {
                Ok(told) => told,
                Err(error) => format!("{directory}: the ledger cannot be used ({why}) and not be renamed: {error}"),
            };
        }
        format!(
            "{directory}: the ledger cannot be kept, so `detector drift` lacks what happens now: {error}; it is tried \
            again every {} s",
            RETRY.as_secs()
        )
    }

    fn set_failure(&mut self, failure: Option<String>) {
        if self.failure != failure {
            failure.iter().for_each(|failure| tracing::warn!("{failure}"));
            self.failure.clone_from(&failure);
            (self.report)(Report::Failure(failure));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
