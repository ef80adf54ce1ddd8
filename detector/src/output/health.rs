//! How well a daemon watches, in words for a person. Names and reasons in them are not escaped.

use crate::finding::Severity;
use crate::ledger::Standing;
use crate::ledger::page::Verdict;
use crate::protocol::{Counters, DaemonState, ForwarderStatus, Hook, Status};
use crate::runtime::Unwatched;
use crate::sensor::EventBuffer;

/// How well the daemon watches, in a sentence.
pub(crate) fn verdict(status: &Status) -> String {
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

/// What a daemon does that does not watch.
pub(crate) fn doing(state: DaemonState) -> &'static str {
    if state == DaemonState::Stopping { "the daemon is stopping" } else { "the daemon is still starting" }
}

/// What is said of a daemon that has ended the stream.
pub(crate) fn stopped(has_said_goodbye: bool) -> String {
    let how = if has_said_goodbye { "" } else { " without a word, as when it is killed" };
    format!("the detector stopped{how}; waiting for it")
}

/// What is said of a daemon that sends a stream again after so many seconds.
pub(crate) fn back(seconds: f32) -> String {
    format!("the detector is back after {seconds:.1} s; what it has found in between is in its log")
}

/// What waits in the buffers of events, after the number of those that were handled, if it is much.
pub(crate) fn waiting(buffer: Option<EventBuffer>) -> String {
    let Some(EventBuffer { bytes, size, .. }) = buffer else { return String::new() };
    let [full, size] = [bytes, size].map(|bytes| bytes >> 20);
    if full == 0 { String::new() } else { format!(", and others wait, in {full} of {size} MiB") }
}

/// How many findings there are of each severity, the worst first.
pub(crate) fn findings(counters: &Counters) -> String {
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

/// How many of the containers that run are not their images any more.
pub(crate) fn standing(standing: &Standing) -> String {
    let containers = match standing.values().sum() {
        1_u64 => "1 container runs".to_owned(),
        more => format!("{more} containers run"),
    };
    match standing.get(&Verdict::Drifted) {
        None => format!("{containers}, none drifted from its image"),
        Some(drifted) => format!("{containers}, {drifted} drifted from the image"),
    }
}

/// By which rule how many containers are not watched.
pub(crate) fn unwatched(Unwatched { rule, reason, containers }: &Unwatched) -> String {
    let containers = match containers {
        0 => "no container".to_owned(),
        1 => "1 container".to_owned(),
        more => format!("{more} containers"),
    };
    format!("{containers} by rule {rule} ({reason})")
}

/// How far a forwarder has come and, if it fails, why, each in a line.
pub(crate) fn forwarder(forwarder: &ForwarderStatus) -> Vec<String> {
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
    let mut told = vec![format!("{name}: sent to {to} up to line {seq}; {}", parts.join(", "))];
    if let (Some(failure), Some(since)) = (&forwarder.failure, forwarder.failing_since) {
        told.push(format!("{name}: fails since {:.0}: {failure}", since.0));
    }
    told
}

/// How many there are, if there are any.
pub(crate) fn counted(count: usize, one: &str, more: &str) -> Option<String> {
    (count > 0).then(|| format!("{count} {}", if count == 1 { one } else { more }))
}
