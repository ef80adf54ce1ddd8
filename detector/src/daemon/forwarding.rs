//! Keeps the process that forwards lines running, and takes what it tells about its forwarders.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::fs::{OFlags, fcntl_setfl};
use tracing::level_filters::LevelFilter;

use super::hub::Hub;
use crate::forward::progress::Progress;
use crate::forward::{self, Forwarder};

/// How long the process is not started again after it has ended: at first, and at most. One that has run for the
/// longest wait has started well.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// How long it takes until the process is given the rest of a line when it takes no more.
const STEP: Duration = Duration::from_millis(20);

/// The process that forwards lines.
pub(super) struct Process {
    running: Arc<Mutex<Running>>,
    stop: Sender<()>,
    ended: Receiver<()>,
}

#[derive(Default)]
struct Running {
    is_stopping: bool,
    child: Option<Child>,
    /// While it is open, the process forwards.
    input: Option<ChildStdin>,
}

impl Process {
    /// Starts the process, and again whenever it ends. The folder is that of the forwarders' files.
    pub(super) fn start(forwarders: Vec<Forwarder>, log: PathBuf, folder: PathBuf, hub: Arc<Hub>) -> io::Result<Self> {
        let running = Arc::new(Mutex::new(Running::default()));
        let (stop, stopped) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let process = Arc::clone(&running);
        thread::Builder::new().name("forward".to_owned()).spawn(move || {
            let mut wait = SHORTEST;
            loop {
                let started = Instant::now();
                let why = match run(&process, &forwarders, &log, &folder, &hub) {
                    Ok(why) => why,
                    Err(error) => format!("it cannot be started: {error}"),
                };
                if lock(&process).is_stopping {
                    break;
                }
                wait = if started.elapsed() >= LONGEST { SHORTEST } else { wait };
                let failure = format!(
                    "nothing is forwarded: the process that does it has ended ({why}); it is started again in {} s",
                    wait.as_secs()
                );
                tracing::error!("{failure}");
                hub.forwarding_ended(Some(failure));
                match stopped.recv_timeout(wait) {
                    Err(RecvTimeoutError::Timeout) => wait = (2 * wait).min(LONGEST),
                    _ => break,
                }
            }
            // Nobody waits for this any more if it took too long.
            let _ = end.send(());
        })?;
        Ok(Self { running, stop, ended })
    }

    /// Lets the process send what is written already, and end.
    pub(super) fn stop(self) {
        let input = {
            let mut running = lock(&self.running);
            running.is_stopping = true;
            running.input.take()
        };
        drop(input);
        let _ = self.stop.send(());
        if self.ended.recv_timeout(forward::ENDING + SHORTEST).is_err()
            && let Some(child) = &mut lock(&self.running).child
        {
            tracing::error!(
                "the process that forwards lines does not end, and is killed; it goes on at the next start"
            );
            let _ = child.kill();
        }
    }
}

/// Runs the process until it ends, and returns how it ended.
fn run(
    running: &Mutex<Running>,
    forwarders: &[Forwarder],
    log: &PathBuf,
    folder: &PathBuf,
    hub: &Hub,
) -> io::Result<String> {
    let level = LevelFilter::current().to_string();
    let mut command = Command::new("/proc/self/exe");
    command.arg(forward::ARGUMENT).arg("--log").arg(level).arg(log).arg(folder);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let (Some(mut input), Some(output)) = (input, output) else { return Err(io::ErrorKind::BrokenPipe.into()) };
    // It is not missed if the process has ended: its output has, too.
    let _ = input.write_all(&[&serde_json::to_vec(forwarders)?[..], b"\n"].concat());
    // Whatever the process does, it must not keep the daemon waiting.
    fcntl_setfl(&input, OFlags::NONBLOCK)?;
    {
        let mut running = lock(running);
        running.child = Some(child);
        running.input = Some(input).filter(|_| !running.is_stopping);
    }
    hub.forwarding_ended(None);
    thread::scope(|scope| {
        let (end, ended) = crossbeam_channel::bounded::<()>(0);
        let unlogged = hub.unlogged();
        let give = move || give_lines(running, &unlogged, &ended);
        thread::Builder::new().name("unlogged".to_owned()).spawn_scoped(scope, give)?;
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            match serde_json::from_str::<Progress>(&line) {
                Ok(progress) => hub.set_forwarded(progress),
                Err(error) => tracing::warn!("the process that forwards lines has said what cannot be read: {error}"),
            }
        }
        drop(end);
        io::Result::Ok(())
    })?;
    let child = {
        let mut running = lock(running);
        running.input = None;
        running.child.take()
    };
    let Some(mut child) = child else { return Err(io::ErrorKind::NotFound.into()) };
    Ok(child.wait()?.to_string())
}

/// Gives the process the lines that are in no log, until it has ended.
fn give_lines(
    running: &Mutex<Running>,
    unlogged: &crossbeam_channel::Receiver<Bytes>,
    ended: &crossbeam_channel::Receiver<()>,
) {
    loop {
        let line = crossbeam_channel::select! {
            recv(unlogged) -> line => line,
            recv(ended) -> _ => return,
        };
        let Ok(line) = line else { return };
        let mut rest = &line[..];
        while !rest.is_empty() {
            let Some(written) = lock(running).input.as_mut().map(|input| input.write(rest)) else { return };
            match written {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(STEP),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}

fn lock(running: &Mutex<Running>) -> MutexGuard<'_, Running> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}
