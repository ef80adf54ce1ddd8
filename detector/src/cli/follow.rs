//! What the live views are made of: the lines of a daemon's stream, also of the daemon that runs after it, and what its
//! log has from before.

use std::path::Path;
use std::sync::mpsc::{SendError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use super::failure::{Exit, Failure};
use super::history::{self, History};
use crate::client::{self, Stream};
use crate::finding::{Notice, NoticeEvent};

/// How often a daemon that has stopped is looked for.
const INTERVAL: Duration = Duration::from_millis(200);
/// How long a daemon that starts or stops may refuse its clients.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a live view is made of.
pub(super) enum Input {
    /// A line, with its line feed.
    Line(Vec<u8>),
    /// The daemon has ended the stream.
    Stopped,
    /// A daemon sends a stream again.
    Back,
    /// What the daemon does not detect or record when the stream begins.
    Degraded(Box<Notice>),
    /// Something about the lines.
    Remark(String),
    /// There will be no more lines.
    End(Failure),
    /// The person wants no more.
    Interrupted,
}

/// Sends what the log of the daemon at this socket has, and then the lines of its stream.
pub(super) fn follow_log<T: From<Input>>(
    mut history: History,
    path: &Path,
    inputs: &SyncSender<T>,
) -> Result<(), SendError<T>> {
    // What the daemon tells a client that does not listen yet would be lost, so most of the log is read before, and
    // then what was added meanwhile.
    if let Err(failure) = history.tell(inputs)? {
        return inputs.send(Input::End(failure).into());
    }
    let stream = match client::tail(path) {
        Ok(stream) => stream,
        Err(error) => return inputs.send(Input::End(error.into()).into()),
    };
    history.begin_stream();
    if !history::has_all(path) {
        let why = "the log does not take lines fast enough, so some may be missing here";
        inputs.send(Input::Remark(why.to_owned()).into())?;
    }
    if let Err(failure) = history.tell(inputs)? {
        return inputs.send(Input::End(failure).into());
    }
    inputs.send(Input::Remark(history.end()).into())?;
    follow(stream, path, inputs, |line| !history.has_told(line))
}

/// Sends the lines of a stream that are wanted until nobody wants more. When the daemon stops, waits for another one.
pub(super) fn follow<T: From<Input>>(
    mut stream: Stream,
    path: &Path,
    inputs: &SyncSender<T>,
    mut is_wanted: impl FnMut(&[u8]) -> bool,
) -> Result<(), SendError<T>> {
    loop {
        if let Some(notice) = degraded(path) {
            inputs.send(Input::Degraded(Box::new(notice)).into())?;
        }
        let mut line = Vec::new();
        loop {
            match stream.next_line(&mut line) {
                Ok(true) if is_wanted(&line) => inputs.send(Input::Line(std::mem::take(&mut line)).into())?,
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => return inputs.send(Input::End(error.into()).into()),
            }
        }
        inputs.send(Input::Stopped.into())?;
        match reconnect(path) {
            Ok(again) => stream = again,
            Err(error) => return inputs.send(Input::End(error.into()).into()),
        }
        inputs.send(Input::Back.into())?;
    }
}

/// What the daemon does not detect or record. The notice about it came before the stream began.
fn degraded(path: &Path) -> Option<Notice> {
    // A daemon that does not tell has not begun to watch, or does not run any more.
    let status = client::status(path).ok().filter(|status| !status.degraded.is_empty())?;
    Some(Notice::now(status.node.into(), NoticeEvent::Degraded { reasons: status.degraded }))
}

/// Waits for a daemon. One that starts or stops may refuse clients for a while.
fn reconnect(path: &Path) -> Result<Stream, client::Error> {
    let mut refused = None;
    loop {
        match client::tail(path) {
            Ok(stream) => return Ok(stream),
            Err(client::Error::NotRunning(_) | client::Error::Silent(_)) => refused = None,
            Err(error) if refused.get_or_insert_with(Instant::now).elapsed() > PATIENCE => return Err(error),
            Err(_) => {}
        }
        thread::sleep(INTERVAL);
    }
}

/// The person wants no more at a time at which there is no daemon.
pub(super) fn interrupted_alone() -> Failure {
    Failure::new(Exit::NotReady, "interrupted while no daemon was running; see why in its log")
}
