//! `detector status`: shows the status of the daemon.

use std::io::{self, Write};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::arguments::Socket;
use super::failure::{Exit, Failure};
use super::stdout::print;
use crate::client;
use crate::config::duration;
use crate::config::problem::visible_text;
use crate::finding::{Loss, loss_message};
use crate::ledger::page::Verdict;
use crate::output::health::{self, counted};
use crate::protocol::{ConfigFile, DaemonState, Hook, Loaded, Status};
use crate::runtime::EngineState;

/// The interval at which a daemon that is not ready is queried again.
const INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How long to wait until the probes are attached and tested
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "0s", hide_default_value = true)]
    wait: Duration,
    /// Show each hook, how it is attached, and whether the self-test saw it fire
    #[arg(long)]
    hooks: bool,
    #[command(flatten)]
    socket: Socket,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let status = wait(&args.socket.path(), args.wait)?;
    print(|out| show(out, &status, args.hooks))?;
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
                let (path, doing) = (socket.display(), health::doing(status.state));
                let why = format_args!("{path}: {doing}; wait longer with --wait, or read its log");
                Failure::new(Exit::NotReady, why)
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

fn show(out: &mut dyn Write, status: &Status, hooks: bool) -> io::Result<()> {
    writeln!(out, "{}", health::verdict(status))?;
    writeln!(
        out,
        "daemon    detector {} on {}, since {:.0} (process {})",
        status.version, status.node, status.since.0, status.pid
    )?;
    status.config.iter().try_for_each(|config| show_config(out, config))?;
    for reason in &status.degraded {
        writeln!(out, "degraded  {reason}")?;
    }
    let counters = &status.counters;
    writeln!(out, "findings  {}", health::findings(counters))?;
    let counted = match counters.counted_in_kernel {
        0 => String::new(),
        files => format!(", and {files} new files only counted"),
    };
    writeln!(out, "events    {}{counted}{}", counters.events, health::waiting(status.buffer))?;
    for (kind, count) in &counters.losses {
        let known = Loss::ALL.iter().find(|known| known.name() == kind);
        writeln!(out, "loss      {count} × {kind}: {}", known.map_or("", |kind| loss_message(*kind)))?;
    }
    for (exception, count) in &counters.suppressed {
        writeln!(out, "excepted  {count} × {}", visible_text(exception))?;
    }
    for rule in &status.unwatched {
        writeln!(out, "unwatched {}", visible_text(&health::unwatched(rule)))?;
    }
    if let Some(standing) = status.ledger.as_ref().filter(|standing| !standing.is_empty()) {
        let see = if standing.contains_key(&Verdict::Drifted) { "; see `detector drift`" } else { "" };
        writeln!(out, "ledger    {}{see}", health::standing(standing))?;
    }
    if counters.skipped > 0 {
        writeln!(out, "loss      {} × blind_window: the kernel did not run a probe for a call", counters.skipped)?;
    }
    let (unasked, known): (Vec<_>, Vec<_>) =
        status.runtimes.iter().partition(|runtime| runtime.state == EngineState::Unasked);
    for runtime in known.iter().filter(|runtime| runtime.state != EngineState::Absent) {
        writeln!(out, "runtime   {runtime}")?;
    }
    if !unasked.is_empty() {
        writeln!(out, "runtime   {} sockets not queried yet", unasked.len())?;
    }
    for line in status.forwarders.iter().flat_map(health::forwarder) {
        writeln!(out, "forward   {}", visible_text(&line))?;
    }
    if hooks { show_hooks(out, status) } else { Ok(()) }
}

fn show_config(out: &mut dyn Write, config: &ConfigFile) -> io::Result<()> {
    let ConfigFile { path, loaded, needs_restart, refused } = config;
    let path = visible_text(path);
    if let Some(Loaded { time, sha256, exceptions }) = loaded {
        let exceptions = counted(*exceptions as usize, "exception", "exceptions");
        let exceptions = exceptions.unwrap_or_else(|| "no exceptions".to_owned());
        writeln!(out, "config    {path}: {exceptions}, loaded {:.0} (sha256 {})", time.0, &sha256.to_string()[..12])?;
    }
    if let Some(reason) = refused {
        let what = if loaded.is_some() { "a later version" } else { "the file" };
        writeln!(out, "config    {what} was refused: {}", visible_text(reason))?;
    }
    if !needs_restart.is_empty() {
        let keys = visible_text(&needs_restart.join(", "));
        writeln!(out, "config    restart the daemon to use the values that these keys have now: {keys}")?;
    }
    Ok(())
}

fn show_hooks(out: &mut dyn Write, status: &Status) -> io::Result<()> {
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
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::hub::Hub;
    use crate::detect::samples;
    use crate::finding::Time;
    use crate::protocol::ForwarderStatus;
    use crate::runtime::Unwatched;
    use crate::sensor::EventBuffer;

    fn hook(name: &str, attached: bool, verified: Option<bool>) -> Hook {
        Hook {
            name: name.to_owned(),
            purpose: "files".to_owned(),
            essential: false,
            attached: attached.then(|| "kprobe f".to_owned()),
            absent: false,
            verified,
            blindable: false,
            refused: Vec::new(),
        }
    }

    fn status(hooks: Vec<Hook>, degraded: &[&str]) -> Status {
        let degraded = degraded.iter().map(|&reason| reason.to_owned()).collect();
        Status { hooks, degraded, ..Hub::new("node-1".into()).status() }
    }

    fn shown(status: &Status, hooks: bool) -> String {
        let mut out = Vec::new();
        show(&mut out, status, hooks).expect("memory takes it");
        String::from_utf8(out).expect("it is text")
    }

    #[test]
    fn it_begins_with_a_verdict() {
        let proven = || hook("open", true, Some(true));
        let absent = || Hook { absent: true, ..hook("new", false, None) };
        let mut lossy = status(vec![proven(), absent()], &[]);
        lossy.counters.losses.insert("exec".to_owned(), 3);
        lossy.counters.skipped = 2;
        for (status, expected) in [
            (status(vec![proven(), absent()], &[]), "watching: all hooks proven, nothing lost\n"),
            (status(vec![proven(), hook("exec", true, None)], &[]), "watching: 1 of 2 hooks proven, nothing lost\n"),
            (lossy, "watching: all hooks proven, 5 losses\n"),
            (status(vec![proven()], &["the disk is full"]), "degraded: the disk is full; nothing lost\n"),
            (status(vec![proven()], &["a", "b"]), "degraded: 2 reasons, see below; nothing lost\n"),
            (
                status(vec![hook("open", false, None), hook("write", false, None)], &["open", "write"]),
                "degraded: 2 hooks are not attached; nothing lost\n",
            ),
            (
                status(vec![hook("open", true, Some(false)), hook("write", false, None)], &["a", "b", "c"]),
                "degraded: 1 hook is not attached, 1 hook was not seen to fire, 1 other reason, see below; \
                nothing lost\n",
            ),
        ] {
            assert!(shown(&status, false).starts_with(expected), "{expected}{}", shown(&status, false));
        }
    }

    #[test]
    fn hooks_are_listed_only_when_asked_for_and_reasons_always() {
        let status = status(vec![hook("open", false, None)], &["hook open is not attached"]);
        assert!(shown(&status, true).contains("\nhook      open not attached\n"));
        let without = shown(&status, false);
        assert!(
            !without.contains("\nhook  ") && without.contains("\ndegraded  hook open is not attached\n"),
            "{without}"
        );
    }

    #[test]
    fn much_that_waits_is_told() {
        let mut status = status(Vec::new(), &[]);
        for (bytes, expected) in [((1 << 20) - 1, ""), (3 << 20, ", and others wait, in 3 of 20 MiB")] {
            status.buffer = Some(EventBuffer { bytes, size: 20 << 20, moved: 0 });
            assert!(shown(&status, false).contains(&format!("\nevents    0{expected}\n")));
        }
    }

    #[test]
    fn what_exceptions_suppress_is_counted() {
        let mut status = status(Vec::new(), &[]);
        status.counters.suppressed = [("a\x1b".to_owned(), 7)].into();
        assert!(shown(&status, false).contains("\nexcepted  7 × a\u{fffd}\n"));
    }

    #[test]
    fn rules_by_which_containers_are_not_watched_are_listed() {
        let mut status = status(Vec::new(), &[]);
        let unwatched = |rule: &str, containers| {
            let (rule, reason) = (rule.to_owned(), "It is known.".to_owned());
            Unwatched { rule, reason, containers }
        };
        status.unwatched = vec![unwatched("a\x1b", 0), unwatched("b", 1), unwatched("c", 2)];
        let shown = shown(&status, false);
        for line in ["no container by rule a\u{fffd}", "1 container by rule b", "2 containers by rule c"] {
            assert!(shown.contains(&format!("\nunwatched {line} (It is known.)\n")), "{shown}");
        }
    }

    #[test]
    fn forwarders_say_how_far_they_have_come() {
        let mut status = status(Vec::new(), &[]);
        let time: Time = "2027-01-15T08:00:00Z".parse().expect("it is a time");
        let forwarder = ForwarderStatus {
            name: "siem".to_owned(),
            to: "tcp://localhost:601".to_owned(),
            seq: 7,
            waiting: 0,
            oldest: None,
            sent: 7,
            unlogged: 0,
            given_up: 0,
            refused: 0,
            failure: None,
            failing_since: None,
        };
        let failing = ForwarderStatus {
            name: "other".to_owned(),
            waiting: 1,
            oldest: Some(time),
            unlogged: 4,
            given_up: 2,
            refused: 3,
            failure: Some("no\x1b".to_owned()),
            failing_since: Some(time),
            ..forwarder.clone()
        };
        status.forwarders = vec![forwarder, failing];
        let shown = shown(&status, false);
        for line in [
            "siem: sent to tcp://localhost:601 up to line 7; nothing waits",
            "other: sent to tcp://localhost:601 up to line 7; 1 line to send, the oldest of 2027-01-15T08:00:00Z, 4 \
            lines sent before the log took them, 2 lines given up, 3 lines refused",
            "other: fails since 2027-01-15T08:00:00Z: no\u{fffd}",
        ] {
            assert!(shown.contains(&format!("\nforward   {line}\n")), "{shown}");
        }
    }

    #[test]
    fn the_configuration_file_is_named() {
        let hub = Hub::new("node-1".into());
        assert!(!shown(&hub.status(), false).contains("\nconfig "));
        let [loaded, refused] = samples::policy("/etc/a\x1b.toml");
        hub.publish_event(refused.clone());
        assert!(shown(&hub.status(), false).contains("\nconfig    the file was refused: line 1\n"));
        hub.publish_event(loaded);
        let text = shown(&hub.status(), false);
        assert!(text.contains("\nconfig    /etc/a\u{fffd}.toml: 2 exceptions, loaded 20"), "{text}");
        assert!(text.contains("Z (sha256 2c26b46b68ff)\n"), "{text}");
        assert!(text.contains("\nconfig    restart the daemon to use the values that these keys have now: log\n"));
        hub.publish_event(refused);
        let text = shown(&hub.status(), false);
        assert!(text.contains("\nconfig    a later version was refused: line 1\n"), "{text}");
    }

    #[test]
    fn it_is_said_how_many_containers_have_drifted() {
        let shown = |standing: &[_]| {
            let standing = Some(standing.iter().copied().collect());
            shown(&Status { ledger: standing, ..Hub::new("node-1".into()).status() }, false)
        };
        let text = shown(&[(Verdict::Image, 2)]);
        assert!(text.contains("\nledger    2 containers run, none drifted from its image\n"), "{text}");
        let text = shown(&[(Verdict::Drifted, 1)]);
        let expected = "\nledger    1 container runs, 1 drifted from the image; see `detector drift`\n";
        assert!(text.contains(expected), "{text}");
        assert!(!shown(&[]).contains("ledger"));
    }

    #[test]
    fn findings_are_counted_by_severity() {
        let hub = Hub::new("node-1".into());
        assert!(shown(&hub.status(), false).contains("\nfindings  none\n"));
        samples::session(b"sh").iter().for_each(|line| hub.publish(line));
        assert!(shown(&hub.status(), false).contains("\nfindings  3 (2 high, 1 medium)\n"));
    }
}
