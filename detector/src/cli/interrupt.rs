//! Lets a command that runs until it is interrupted say a last word.

use std::future::poll_fn;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use super::failure::{Exit, Failure};

/// How long the last word can take. Whoever reads it may hang.
const PATIENCE: Duration = Duration::from_secs(2);

/// What ends a command that is interrupted.
const ENDS: [SignalKind; 2] = [SignalKind::interrupt(), SignalKind::terminate()];

/// Runs `feed` on a thread of its own, and [catches](catch) SIGINT and SIGTERM meanwhile.
pub(super) fn feed_and_catch(
    feed: impl FnOnce() + Send + 'static,
    tell: impl FnOnce() + Send + 'static,
    is_heard: Arc<AtomicBool>,
) -> Result<(), Failure> {
    catch(&ENDS, tell, is_heard, || {})?;
    spawn("lines", feed)
}

/// Calls `tell` at the first of these signals. If `is_heard` is not set soon after, or at a second one, calls `give_up`
/// and ends the process.
pub(super) fn catch(
    kinds: &[SignalKind],
    tell: impl FnOnce() + Send + 'static,
    is_heard: Arc<AtomicBool>,
    give_up: impl FnOnce() + Send + 'static,
) -> Result<(), Failure> {
    let (runtime, mut signals) = listen(kinds).map_err(no_thread)?;
    let wait = async move {
        next(&mut signals).await;
        // This blocks if the command is busy.
        thread::spawn(tell);
        if timeout(PATIENCE, next(&mut signals)).await.is_err() && is_heard.load(Relaxed) {
            next(&mut signals).await;
        }
        give_up();
        say("interrupted before everything was shown");
        std::process::exit(Exit::Failure as i32);
    };
    spawn("signals", move || runtime.block_on(wait))
}

/// Says this on standard error, which may be a terminal that hangs, and then is not waited for.
fn say(text: &'static str) {
    let (said, is_said) = mpsc::channel();
    thread::spawn(move || {
        let _ = writeln!(io::stderr(), "detector: {text}");
        said.send(())
    });
    let _ = is_said.recv_timeout(PATIENCE);
}

/// Calls `tell` at each of these signals, until it returns `false`.
pub(super) fn each(kind: SignalKind, mut tell: impl FnMut() -> bool + Send + 'static) -> Result<(), Failure> {
    let (runtime, mut signals) = listen(&[kind]).map_err(no_thread)?;
    spawn("each signal", move || {
        runtime.block_on(async move {
            while {
                next(&mut signals).await;
                tell()
            } {}
        });
    })
}

/// Runs this on a thread with this name.
pub(super) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    thread::Builder::new().name(name.to_owned()).spawn(run).map(drop).map_err(no_thread)
}

fn no_thread(error: io::Error) -> Failure {
    let why = format_args!("cannot start a thread: {error}; check the limits of this process (ulimit -a)");
    Failure::new(Exit::Failure, why)
}

/// Listens for these signals from now on.
fn listen(kinds: &[SignalKind]) -> io::Result<(Runtime, Vec<Signal>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let signals = {
        let _entered = runtime.enter();
        kinds.iter().map(|kind| signal(*kind)).collect::<io::Result<_>>()?
    };
    Ok((runtime, signals))
}

/// Waits for one of these signals.
async fn next(signals: &mut [Signal]) {
    poll_fn(|context| {
        let came = signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready());
        if came { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
