//! `detector learn`: which exceptions follow from what was found, and what given exceptions would have done to it.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, SyncSender};
use std::time::{Duration, Instant};

use super::arguments::Socket;
use super::failure::{Exit, Failure};
use super::interrupt;
use super::lines;
use super::stdout::print;
use crate::client::{self, Stream};
use crate::config::{self, Loaded};
use crate::finding::Time;
use crate::learn::check::Verdict;
use crate::learn::{Seen, Wanted, learn};
use crate::policy::{Pattern, Selection};

/// How many lines can wait. Further ones wait in the daemon.
const QUEUE: usize = 256;

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("source").required(true).args(["time", "from", "check"]))]
pub(super) struct Args {
    /// Learn from what the daemon finds in this time, such as 10m
    #[arg(long = "for", value_name = "TIME", value_parser = config::interval)]
    time: Option<Duration>,
    /// Learn from lines that the detector has written (`-` is standard input). Can be given more than once
    #[arg(long, value_name = "LOG")]
    from: Vec<PathBuf>,
    /// Show instead what the exceptions of this configuration file would have done to the lines in LOG
    #[arg(long, value_name = "POLICY", requires = "logs", conflicts_with_all = ["image", "without_image", "shells"])]
    check: Option<PathBuf>,
    /// Files with lines that the detector has written (`-` is standard input)
    #[arg(value_name = "LOG", requires = "check")]
    logs: Vec<PathBuf>,
    /// Learn only from containers of images whose name or digest is like this
    #[arg(long, value_name = "GLOB")]
    image: Option<Pattern>,
    /// Learn also from containers of which no runtime has told the image. The exceptions hold in every container
    #[arg(long)]
    without_image: bool,
    /// Learn also from shells that applications start
    #[arg(long = "include-shells")]
    shells: bool,
    #[command(flatten)]
    socket: Socket,
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let mut seen = Seen::default();
    if let Some(time) = args.time {
        follow(&mut seen, &args.socket.path(), time)?;
    }
    for log in args.from.iter().chain(&args.logs) {
        read(&mut seen, log)?;
    }
    if let Some(policy) = &args.check {
        let loaded = Loaded::without_errors(policy).map_err(|why| Failure::new(Exit::Usage, why))?;
        let verdict = Verdict::of(&seen, &loaded.settings.policy());
        return print(|out| verdict.write(out));
    }
    let selection = Selection { image: args.image.into_iter().collect(), ..Selection::default() };
    let wanted = Wanted { selection, without_image: args.without_image, shells: args.shells };
    let learnt = learn(&seen, &wanted, Time(jiff::Timestamp::now()));
    print(|out| out.write_all(learnt.as_bytes()))
}

/// Takes the lines of a file.
fn read(seen: &mut Seen, path: &Path) -> Result<(), Failure> {
    seen.read(lines::open(path)?).map_err(|why| lines::failed(path, why))
}

/// What comes while a daemon is followed.
enum Input {
    Line(Vec<u8>),
    /// There will be no more lines.
    Stopped(Result<(), client::Error>),
    Interrupted,
}

/// Takes what a daemon finds in this time. Ends early if it is interrupted, or if the daemon stops.
fn follow(seen: &mut Seen, socket: &Path, time: Duration) -> Result<(), Failure> {
    let stream = client::tail(socket)?;
    let (sender, inputs) = mpsc::sync_channel(QUEUE);
    let is_heard = Arc::new(AtomicBool::new(false));
    let tell_end = {
        let sender = sender.clone();
        move || drop(sender.send(Input::Interrupted))
    };
    interrupt::feed_and_catch(move || feed(stream, &sender), tell_end, Arc::clone(&is_heard))?;
    let start = Instant::now();
    tell(&format!("learning for {} s; Ctrl-C ends it earlier", time.as_secs()));
    while let Some(left) = time.checked_sub(start.elapsed()) {
        match inputs.recv_timeout(left) {
            Ok(Input::Line(line)) => seen
                .take(&line)
                .map_err(|why| Failure::new(Exit::Failure, format_args!("{}: {why}", socket.display())))?,
            Ok(Input::Stopped(Err(error))) => return Err(error.into()),
            Ok(Input::Stopped(Ok(()))) => {
                tell(&format!("the daemon stopped after {} s; this is what it had found", start.elapsed().as_secs()));
                break;
            }
            Ok(Input::Interrupted) => {
                tell(&format!("interrupted after {} s", start.elapsed().as_secs()));
                break;
            }
            // The time is over.
            Err(_) => break,
        }
    }
    is_heard.store(true, Relaxed);
    Ok(())
}

/// Sends the lines of a stream until there are no more, or nobody wants them.
fn feed(mut stream: Stream, inputs: &SyncSender<Input>) {
    let mut line = Vec::new();
    loop {
        let input = match stream.next_line(&mut line) {
            Ok(true) => Input::Line(std::mem::take(&mut line)),
            Ok(false) => Input::Stopped(Ok(())),
            Err(error) => Input::Stopped(Err(error)),
        };
        let is_end = matches!(input, Input::Stopped(_));
        if inputs.send(input).is_err() || is_end {
            return;
        }
    }
}

fn tell(what: &str) {
    // Standard error may be closed.
    let _ = writeln!(io::stderr(), "detector: {what}");
}
