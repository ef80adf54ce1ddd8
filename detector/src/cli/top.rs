//! `detector top`: watches a node on one screen.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SendError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use clap::ColorChoice;
use jiff::Timestamp;
use tokio::signal::unix::SignalKind;

use super::arguments::{Socket, is_coloured, severity_parser};
use super::failure::{Exit, Failure};
use super::follow::{Input, follow, follow_log, interrupted_alone};
use super::fullscreen::{self, FullScreen};
use super::history::{History, Since};
use super::interrupt;
use super::keys::{self, Key};
use crate::client;
use crate::finding::{Severity, Time};
use crate::ledger::{Query, Standing};
use crate::output::top::{Census, Model, Order, Press, draw};
use crate::protocol::Status;

/// How many inputs can wait. Further lines wait in the daemon, which counts those that it has to drop.
const QUEUE: usize = 256;
/// How long ago the stories begin, if nothing else is asked for and there is a log.
const AGO: Duration = Duration::from_secs(600);
/// How often the daemon is asked how it is.
const ASKED: Duration = Duration::from_secs(2);
/// How often it is asked what has drifted: at most, if something may have, and else.
const SOON: Duration = Duration::from_secs(5);
const LATE: Duration = Duration::from_secs(60);
/// How long after it was drawn the screen is drawn again at the latest: times pass.
const SECOND: Duration = Duration::from_secs(1);
/// How long what comes waits for more that is drawn with it.
const TOGETHER: Duration = Duration::from_millis(100);
/// What ends the command besides keys. The last one comes when the connection is lost.
const ENDS: [SignalKind; 3] = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Begin with what the log of the daemon has since then: how long ago, such as 10m, 2h or 1d, or a time such as
    /// 2026-11-28T09:30:00Z [default: 10m, if there is a log]
    #[arg(long, value_name = "AGO|TIME")]
    since: Option<Since>,
    /// Show only findings of at least this severity; others are counted
    #[arg(long, value_name = "MIN", value_parser = severity_parser(), default_value = "low")]
    severity: Severity,
    #[command(flatten)]
    socket: Socket,
    /// When to use colours; `auto` uses them as far as `NO_COLOR`, `CLICOLOR` and `CLICOLOR_FORCE` allow
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = ColorChoice::Auto)]
    color: ColorChoice,
}

/// What comes.
enum Event {
    Input(Input),
    Keys(Vec<Key>),
    /// The terminal has another size.
    Resized,
    Status(Result<Box<Status>, String>),
    Census(Result<Box<Census>, String>),
}

impl From<Input> for Event {
    fn from(input: Input) -> Self {
        Self::Input(input)
    }
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    if !fullscreen::is_there() {
        let why = "top draws on a terminal, and this is none that it can use; use `detector tail` or `detector drift`";
        return Err(Failure::new(Exit::Usage, why));
    }
    let path = args.socket.path();
    let (history, remark) = history(&path, args.since)?;
    let stream = if history.is_none() { Some(client::tail(&path)?) } else { None };
    let (sender, events) = mpsc::sync_channel(QUEUE);
    let is_heard = Arc::new(AtomicBool::new(false));
    let is_news = Arc::new(AtomicBool::new(true));
    let full_screen = FullScreen::take().map_err(|error| unusable(&error))?;
    catch_signals(&sender, &is_heard)?;
    start_asking(&path, &sender, &is_news)?;
    let following = sender.clone();
    interrupt::spawn("lines", move || {
        let told = remark.map_or(Ok(()), |remark| following.send(Input::Remark(remark).into()));
        let _ = told.and_then(|()| match (history, stream) {
            (Some(history), _) => follow_log(history, &path, &following),
            (None, Some(stream)) => follow(stream, &path, &following, |_| true),
            (None, None) => Ok(()),
        });
    })?;
    interrupt::spawn("keys", move || {
        while let Some(keys) = keys::read() {
            if sender.send(Event::Keys(keys)).is_err() {
                return;
            }
        }
        let _ = sender.send(Input::Interrupted.into());
    })?;
    let mut view = View { model: Model::new(args.severity), full_screen, color: is_coloured(args.color), is_news };
    let shown = view.run(&events);
    is_heard.store(true, Relaxed);
    shown
}

/// The log with which the stories begin. Unless it was asked for, it may be missing, and why is told.
fn history(path: &Path, since: Option<Since>) -> Result<(Option<History>, Option<String>), Failure> {
    match since {
        Some(since) => History::open(path, since).map(|history| (Some(history), None)),
        None => Ok(match History::open(path, Since::ago(AGO)) {
            Ok(history) => (Some(history), None),
            Err(_) => {
                let why = "nothing from before is shown: the log cannot be read here; `--since 10m` says why";
                (None, Some(why.to_owned()))
            }
        }),
    }
}

fn catch_signals(sender: &SyncSender<Event>, is_heard: &Arc<AtomicBool>) -> Result<(), Failure> {
    let (ending, resizing) = (sender.clone(), sender.clone());
    let tell_end = move || drop(ending.send(Input::Interrupted.into()));
    interrupt::catch(&ENDS, tell_end, Arc::clone(is_heard), fullscreen::give_back)?;
    interrupt::each(SignalKind::window_change(), move || resizing.send(Event::Resized).is_ok())
}

fn start_asking(path: &Path, sender: &SyncSender<Event>, is_news: &Arc<AtomicBool>) -> Result<(), Failure> {
    let asking = Asking { path: path.to_owned(), is_news: Arc::clone(is_news), pid: None, standing: None, asked: None };
    let sender = sender.clone();
    interrupt::spawn("asking", move || drop(asking.run(&sender)))
}

/// Asks the daemon how it is, and what has drifted.
struct Asking {
    path: PathBuf,
    /// Whether something was found since it was asked last what has drifted.
    is_news: Arc<AtomicBool>,
    /// The daemon that was asked that.
    pid: Option<u32>,
    standing: Option<Standing>,
    asked: Option<Instant>,
}

impl Asking {
    fn run(mut self, events: &SyncSender<Event>) -> Result<(), SendError<Event>> {
        loop {
            match client::status(&self.path) {
                Ok(status) => {
                    let census = self.is_due(&status).then(|| self.census(&status));
                    events.send(Event::Status(Ok(Box::new(status))))?;
                    census.map_or(Ok(()), |census| events.send(Event::Census(census)))?;
                }
                Err(error) => events.send(Event::Status(Err(error.to_string())))?,
            }
            thread::sleep(ASKED);
        }
    }

    /// Whether it is time to ask what has drifted.
    fn is_due(&self, status: &Status) -> bool {
        let since = self.asked.map_or(Duration::MAX, |asked| asked.elapsed());
        let is_other = self.pid != Some(status.pid) || self.standing != status.ledger;
        since >= LATE || since >= SOON && (is_other || self.is_news.load(Relaxed))
    }

    fn census(&mut self, status: &Status) -> Result<Box<Census>, String> {
        // What was found before is known by all that was done; what comes later, by the stream.
        let query = Query { container: None, is_detailed: self.pid != Some(status.pid) };
        self.is_news.store(false, Relaxed);
        let mut census = Census::new(now(), status.since);
        let asked = client::drift(&self.path, query, |row| census.take(row));
        (self.asked, self.standing) = (Some(Instant::now()), status.ledger.clone());
        asked.map_err(|error| error.to_string())?;
        self.pid = Some(status.pid);
        Ok(Box::new(census))
    }
}

/// What is shown.
struct View {
    model: Model,
    full_screen: FullScreen,
    color: bool,
    /// Whether something was found.
    is_news: Arc<AtomicBool>,
}

/// When the screen is drawn after something has come.
enum When {
    Now,
    Soon,
    /// With what comes later.
    Later,
}

impl View {
    /// Shows what comes until the end.
    fn run(&mut self, events: &Receiver<Event>) -> Result<(), Failure> {
        let mut drawn = self.draw()?;
        let mut due = drawn + SECOND;
        loop {
            let event = events.recv_timeout(due.saturating_duration_since(Instant::now()));
            match event {
                Ok(event) => match self.take(event) {
                    Ok(When::Now) => due = Instant::now(),
                    Ok(When::Soon) => due = due.min(drawn + TOGETHER),
                    Ok(When::Later) => {}
                    Err(end) => return end,
                },
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            if due <= Instant::now() {
                drawn = self.draw()?;
                due = drawn + SECOND;
            }
        }
    }

    /// Draws the screen. Returns when that was.
    fn draw(&mut self) -> Result<Instant, Failure> {
        if !fullscreen::is_taken() {
            let why = "a part of top panicked; this is a bug: report it with the message above";
            return Err(Failure::new(Exit::Failure, why));
        }
        let (model, now, color) = (&self.model, now(), self.color);
        let drawn = self.full_screen.screen.draw(|frame| draw(frame, model, now, color));
        drawn.map_err(|error| unusable(&error))?;
        Ok(Instant::now())
    }

    /// Takes what has come. Fails with how the view ends, if it does.
    fn take(&mut self, event: Event) -> Result<When, Result<(), Failure>> {
        match event {
            Event::Input(input) => return self.input(input),
            Event::Keys(keys) => keys.into_iter().try_for_each(|key| self.key(key))?,
            Event::Resized => {}
            Event::Status(status) => {
                self.model.status(status, now());
                return Ok(When::Soon);
            }
            Event::Census(census) => {
                self.model.census(census.map(|census| *census), now());
                return Ok(When::Soon);
            }
        }
        Ok(When::Now)
    }

    fn input(&mut self, input: Input) -> Result<When, Result<(), Failure>> {
        match input {
            Input::Line(line) => {
                if !self.model.line(&line, now()) {
                    return Ok(When::Later);
                }
                self.is_news.store(true, Relaxed);
            }
            Input::Stopped => self.model.stop(now()),
            Input::Back => self.model.resume(now()),
            Input::Remark(text) => self.model.remark(text),
            // The status says so, too.
            Input::Degraded(_) => return Ok(When::Later),
            Input::End(failure) => return Err(Err(failure)),
            Input::Interrupted => return Err(self.end()),
        }
        Ok(When::Soon)
    }

    fn key(&mut self, key: Key) -> Result<(), Result<(), Failure>> {
        let press = match key {
            Key::Char('q') | Key::Escape | keys::CTRL_C => return Err(self.end()),
            Key::Up | Key::Char('k') => Press::Up,
            Key::Down | Key::Char('j') => Press::Down,
            Key::Home | Key::Char('g') => Press::First,
            Key::End | Key::Char('G') => Press::Last,
            Key::Char(' ' | '\r') => Press::Only,
            Key::Char('d') => Press::Order(Order::Drift),
            Key::Char('r') => Press::Order(Order::Rate),
            Key::Char('n') => Press::Order(Order::Name),
            Key::Char('?') => Press::Help,
            keys::CTRL_L => return self.full_screen.screen.clear().map_err(|error| Err(unusable(&error))),
            _ => return Ok(()),
        };
        self.model.press(press, now());
        Ok(())
    }

    /// How the view ends if a person wants it to.
    fn end(&self) -> Result<(), Failure> {
        if self.model.is_alone() { Err(interrupted_alone()) } else { Ok(()) }
    }
}

fn unusable(error: &io::Error) -> Failure {
    Failure::new(Exit::Failure, format_args!("cannot draw on this terminal: {error}; use `detector tail`"))
}

fn now() -> Time {
    Time(Timestamp::now())
}
