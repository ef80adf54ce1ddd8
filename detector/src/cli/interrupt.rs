//! Lets a command that runs until it is interrupted say a last word.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use super::failure::{Exit, Failure};

/// How long the last word can take. Whoever reads it may hang.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs `feed` on a thread of its own, and [catches](catch) signals meanwhile.
pub(super) fn feed_and_catch(
    feed: impl FnOnce() + Send + 'static,
    tell: impl FnOnce() + Send + 'static,
    is_heard: Arc<AtomicBool>,
) -> Result<(), Failure> {
    let threads = catch(tell, is_heard);
    threads.and_then(|()| thread::Builder::new().name("lines".to_owned()).spawn(feed)).map(drop).map_err(|error| {
        let why = format_args!("cannot start a thread: {error}; check the limits of this process (ulimit -a)");
        Failure::new(Exit::Failure, why)
    })
}

/// Calls `tell` at the first SIGINT or SIGTERM. If `is_heard` is not set soon after, or at a second signal, ends the
/// process.
fn catch(tell: impl FnOnce() + Send + 'static, is_heard: Arc<AtomicBool>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let [interrupt, terminate] = {
        let _entered = runtime.enter();
        [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?]
    };
    let wait = async move {
        let mut signals = [interrupt, terminate];
        next(&mut signals).await;
        // This blocks if the command is busy.
        thread::spawn(tell);
        if timeout(PATIENCE, next(&mut signals)).await.is_err() && is_heard.load(Relaxed) {
            next(&mut signals).await;
        }
        let _ = writeln!(io::stderr(), "detector: interrupted before everything was shown");
        std::process::exit(Exit::Failure as i32);
    };
    thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(wait)).map(drop)
}

async fn next([interrupt, terminate]: &mut [Signal; 2]) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
