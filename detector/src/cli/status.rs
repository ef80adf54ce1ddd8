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
use crate::finding::{Loss, Severity, loss_message};
use crate::ledger::Standing;
use crate::ledger::page::Verdict;
use crate::protocol::{ConfigFile, Counters, DaemonState, ForwarderStatus, Hook, Loaded, Status};
use crate::runtime::{EngineState, Unwatched};
use crate::sensor::EventBuffer;

const MEBIBYTE: u64 = 1 << 20;
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

fn show(out: &mut dyn Write, status: &Status, hooks: bool) -> io::Result<()> {
    writeln!(out, "{}", verdict(status))?;
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
    writeln!(out, "findings  {}", findings(counters))?;
    let counted = match counters.counted_in_kernel {
        0 => String::new(),
        files => format!(", and {files} new files only counted"),
    };
    writeln!(out, "events    {}{counted}{}", counters.events, status.buffer.map_or_else(String::new, waiting))?;
    for (kind, count) in &counters.losses {
        let known = Loss::ALL.iter().find(|known| known.name() == kind);
        writeln!(out, "loss      {count} × {kind}: {}", known.map_or("", |kind| loss_message(*kind)))?;
    }
    for (exception, count) in &counters.suppressed {
        writeln!(out, "excepted  {count} × {}", visible_text(exception))?;
    }
    for Unwatched { rule, reason, containers } in &status.unwatched {
        let containers = match containers {
            0 => "no container".to_owned(),
            1 => "1 container".to_owned(),
            more => format!("{more} containers"),
        };
        let [rule, reason] = [rule, reason].map(|text| visible_text(text));
        writeln!(out, "unwatched {containers} by rule {rule} ({reason})")?;
    }
    if let Some(standing) = status.ledger.as_ref().filter(|standing| !standing.is_empty()) {
        writeln!(out, "ledger    {}", drifted(standing))?;
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
    status.forwarders.iter().try_for_each(|forwarder| show_forwarder(out, forwarder))?;
    if hooks { show_hooks(out, status) } else { Ok(()) }
}

fn show_forwarder(out: &mut dyn Write, forwarder: &ForwarderStatus) -> io::Result<()> {
    let ForwarderStatus { name, to, seq, waiting, oldest, unlogged, given_up, refused, .. } = forwarder;
    let lines = |count: u64| counted(usize::try_from(count).unwrap_or(usize::MAX), "line", "lines");
    let waiting = match (lines(*waiting), oldest) {
        (None, _) => "nothing waits".to_owned(),
        (Some(lines), None) => format!("{lines} to send"),
        (Some(lines), Some(oldest)) => format!("{lines} to send, the oldest of {:.0}", oldest.0),
    };
    let unlogged = lines(*unlogged).map(|lines| format!("{lines} sent before the log took them"));
    let given_up = lines(*given_up).map(|lines| format!("{lines} given up"));
    let refused = lines(*refused).map(|lines| format!("{lines} refused"));
    let parts: Vec<_> = [Some(waiting), unlogged, given_up, refused].into_iter().flatten().collect();
    let (name, to) = (visible_text(name), visible_text(to));
    writeln!(out, "forward   {name}: sent to {to} up to line {seq}; {}", parts.join(", "))?;
    if let (Some(failure), Some(since)) = (&forwarder.failure, forwarder.failing_since) {
        writeln!(out, "forward   {name}: fails since {:.0}: {}", since.0, visible_text(failure))?;
    }
    Ok(())
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

/// How well the daemon watches, in a sentence.
fn verdict(status: &Status) -> String {
    let count = |is_one: fn(&&Hook) -> bool| status.hooks.iter().filter(is_one).count();
    let unattached = count(|hook| hook.attached.is_none() && !hook.absent);
    let silent = count(|hook| hook.verified == Some(false));
    let (attached, proven) = (count(|hook| hook.attached.is_some()), count(|hook| hook.verified == Some(true)));
    let lost = status.counters.losses.values().sum::<u64>() + status.counters.skipped;
    let lost = match lost {
        0 => "nothing lost".to_owned(),
        1 => "one loss".to_owned(),
        lost => format!("{lost} losses"),
    };
    if status.degraded.is_empty() {
        let hooks = if proven == attached { "all".to_owned() } else { format!("{proven} of {attached}") };
        return format!("watching: {hooks} hooks proven, {lost}");
    }
    let of_hooks = [
        counted(unattached, "hook is not attached", "hooks are not attached"),
        counted(silent, "hook was not seen to fire", "hooks were not seen to fire"),
    ];
    let mut parts: Vec<_> = of_hooks.into_iter().flatten().collect();
    let others = status.degraded.len().saturating_sub(unattached + silent);
    match (status.degraded.as_slice(), parts.is_empty()) {
        ([reason], true) => parts.push(reason.clone()),
        (_, true) => parts.push(format!("{others} reasons, see below")),
        (_, false) => parts.extend(counted(others, "other reason, see below", "other reasons, see below")),
    }
    format!("degraded: {}; {lost}", parts.join(", "))
}

/// What waits in the buffers of events, if it is much.
fn waiting(buffer: EventBuffer) -> String {
    let EventBuffer { bytes, size, .. } = buffer;
    let [full, size] = [bytes, size].map(|bytes| bytes / MEBIBYTE);
    if full == 0 { String::new() } else { format!(", and others wait, in {full} of {size} MiB") }
}

fn counted(count: usize, one: &str, more: &str) -> Option<String> {
    (count > 0).then(|| format!("{count} {}", if count == 1 { one } else { more }))
}

/// How many of the containers that run are not their images any more.
fn drifted(standing: &Standing) -> String {
    let containers = match standing.values().sum() {
        1_u64 => "1 container runs".to_owned(),
        more => format!("{more} containers run"),
    };
    match standing.get(&Verdict::Drifted) {
        None => format!("{containers}, none drifted from its image"),
        Some(drifted) => format!("{containers}, {drifted} drifted from the image; see `detector drift`"),
    }
}

/// How many findings there are of each severity, the worst first.
fn findings(counters: &Counters) -> String {
    let count = |severity: Severity| Some((severity, *counters.severities.get(&severity)?)).filter(|(_, n)| *n > 0);
    let counts: Vec<_> = Severity::ALL.into_iter().rev().filter_map(count).collect();
    let counts: Vec<_> = counts.into_iter().map(|(severity, count)| format!("{count} {severity}")).collect();
    match counters.findings {
        0 => "none".to_owned(),
        // A daemon of an older version does not tell the severities.
        all if counts.is_empty() => all.to_string(),
        all => format!("{all} ({})", counts.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::hub::Hub;
    use crate::detect::samples;
    use crate::finding::Time;

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
        for (bytes, expected) in [(MEBIBYTE - 1, ""), (3 * MEBIBYTE, ", and others wait, in 3 of 20 MiB")] {
            status.buffer = Some(EventBuffer { bytes, size: 20 * MEBIBYTE, moved: 0 });
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
