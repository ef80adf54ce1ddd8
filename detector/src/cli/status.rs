//! `detector status`: shows the status of the daemon.

use std::io::{self, Write};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::arguments::{Socket, duration};
use super::failure::{Exit, Failure};
use super::stdout::print;
use crate::client;
use crate::finding::{Loss, loss_message};
use crate::protocol::{DaemonState, Hook, Status};
use crate::runtime::EngineState;

/// The interval at which a daemon that is not ready is queried again.
const INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How long to wait until the probes are attached and tested
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "0s", hide_default_value = true)]
    wait: Duration,
    #[command(flatten)]
    socket: Socket,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let status = wait(&args.socket.path(), args.wait)?;
    print(|out| show(out, &status))?;
    if status.degraded.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Degraded,
        "the daemon detects or records less than it can; see the lines `degraded`, and for hooks the remedies that \
        `detector doctor` shows",
    ))
}

/// Waits until the daemon is ready, and returns its status.
fn wait(socket: &Path, patience: Duration) -> Result<Status, Failure> {
    let start = Instant::now();
    loop {
        let failure = match client::status(socket) {
            Ok(status) if status.state == DaemonState::Ready => return Ok(status),
            Ok(status) => {
                let doing = if status.state == DaemonState::Stopping { "stopping" } else { "still starting" };
                Failure::new(
                    Exit::NotReady,
                    format_args!(
                        "{}: the daemon is {doing}; wait longer with --wait, or read its log",
                        socket.display()
                    ),
                )
            }
            // A starting daemon has its socket, but loading the probes can keep it busy on a slow machine.
            Err(error @ (client::Error::NotRunning(_) | client::Error::Silent(_))) => error.into(),
            Err(error) => return Err(error.into()),
        };
        if start.elapsed() >= patience {
            return Err(failure);
        }
        sleep(INTERVAL);
    }
}

fn show(out: &mut dyn Write, status: &Status) -> io::Result<()> {
    writeln!(
        out,
        "detector {} on {}: watching since {:.0} (process {})",
        status.version, status.node, status.since.0, status.pid
    )?;
    for reason in &status.degraded {
        writeln!(out, "degraded  {reason}")?;
    }
    let width = status.hooks.iter().map(|hook| hook.name.len()).max().unwrap_or_default();
    for Hook { name, attached, absent, verified, .. } in &status.hooks {
        let proof = match (attached, verified) {
            (None, _) => "",
            (Some(_), Some(true)) => " (tested)",
            (Some(_), Some(false)) => " (the self-test did not see it fire)",
            (Some(_), None) => " (not tested)",
        };
        writeln!(
            out,
            "hook      {name:<width$} {}{proof}",
            attached.as_deref().unwrap_or(if *absent { "not needed" } else { "not attached" })
        )?;
    }
    for runtime in status.runtimes.iter().filter(|runtime| runtime.state != EngineState::Absent) {
        writeln!(out, "runtime   {runtime}")?;
    }
    let counters = &status.counters;
    writeln!(out, "events    {}", counters.events)?;
    writeln!(out, "findings  {}", counters.findings)?;
    writeln!(out, "losses    {}", counters.losses.values().sum::<u64>())?;
    for (kind, count) in &counters.losses {
        let known = Loss::ALL.iter().find(|known| known.name() == kind);
        writeln!(out, "  {count} × {kind}: {}", known.map_or("", |kind| loss_message(*kind)))?;
    }
    Ok(())
}
