//! `session`: somebody came into a container, worked in it at a terminal or through a socket, or did something of high
//! severity with a shell that a service has started. One finding is about everything that the first process of the
//! session and its descendants do, and is updated while they do it. Every act that is a finding by itself keeps its own
//! line, which names the session.
//!
//! **Severity**: the highest of the findings about what was done in the session, and of the first row that applies to
//! the programs that were executed in it. A program *takes commands* if it is a shell or another interpreter, and no
//! argument tells it what to do.
//!
//! | severity | when |
//! |---|---|
//! | critical | a program of the container takes commands from a socket, as a reverse shell does |
//! | critical | a process that listens on a socket has started what runs foreign code (`via` `application`) |
//! | high | a process from outside has a terminal, whatever its program is |
//! | high | a process from outside takes commands from the standard input of the session: a pipe, a file or a socket |
//! | high | a program takes commands from a terminal that the container was started with, or has opened |
//! | low | any other program with such a terminal |
//! | low | a process of the host has joined the container's mounts without a terminal, as with `nsenter` |
//! | info | a runtime has brought a process in without a terminal, as for a health check |
//! | none | a process of the application has started a shell, or a program that is not as in the image |
//!
//! A session of the last row is told only if a finding in it is at least [high](TOLD). It is critical by the second row
//! if code that is not as in the image, or is only in memory or deleted, runs in it, and if the process that has
//! started it has called listen(2), or was started after that by the process that has. Others can reach such a service,
//! and a webshell looks like this. The programs of a scheduler or an entrypoint have no such ancestor, and remain high.
//!
//! A program of the container that only has a socket as its standard input, as the children of Node.js do, begins no
//! session. What it does is that of the application, unless it or a descendant takes commands.
//!
//! **MITRE ATT&CK**: T1609 (container administration command) for a process from outside, T1059 (command and scripting
//! interpreter) otherwise.

use super::content::Content;
use super::describe::{Actor, counted};
use super::{interpreter, shell};
use crate::event::{StdioKind, Via};
use crate::finding::{Finding, Kind, Process, Severity, SeverityRule, Summary};

/// The severity from which on the session of what an application has started is told.
pub(super) const TOLD: Severity = Severity::High;

/// What the severity of a session depends on when a program is executed in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    via: Via,
    has_terminal: bool,
    is_shell: bool,
    takes_commands: bool,
    /// What the standard input is, if it is that of the session's first process.
    stdin: Option<StdioKind>,
}

impl Facts {
    /// The facts about a process of a session that has just executed its program. `stdin` is what the standard input of
    /// the first process is, and the inode number of that.
    pub(super) fn of(actor: &Actor, content: Option<Content>, via: Via, stdin: (StdioKind, u64)) -> Self {
        let (process, args) = (actor.process, actor.args());
        Self {
            via,
            has_terminal: shell::has_terminal(process),
            is_shell: args.is_some_and(|args| interpreter::is_shell(actor.exe, args)),
            takes_commands: args.is_some_and(|args| interpreter::reads_commands(actor.exe, args, content)),
            stdin: (process.input() == stdin).then_some(stdin.0),
        }
    }

    /// The rule by which the session has at least its severity, or `None` if this begins no session and changes nothing
    /// about one.
    pub(super) fn rule(self) -> Option<SeverityRule> {
        let is_fed = matches!(self.stdin, Some(StdioKind::Pipe | StdioKind::File | StdioKind::Socket));
        match self.via {
            Via::Socket => match self.stdin {
                Some(StdioKind::Socket) if self.takes_commands => Some(SeverityRule::SessionOnSocket),
                Some(StdioKind::Tty) if self.takes_commands => Some(SeverityRule::SessionInside),
                _ => None,
            },
            Via::Exec | Via::Nsenter if self.has_terminal => Some(SeverityRule::SessionOnTerminal),
            Via::Exec | Via::Nsenter if self.takes_commands && is_fed => Some(SeverityRule::SessionOnInput),
            Via::Entrypoint | Via::Terminal if self.has_terminal && self.takes_commands => {
                Some(SeverityRule::SessionInside)
            }
            Via::Entrypoint | Via::Terminal => Some(SeverityRule::SessionOfProgram),
            Via::Nsenter => Some(SeverityRule::SessionFromHost),
            Via::Exec => Some(SeverityRule::SessionOfCommand),
            Via::Application => None,
        }
    }

    /// The severity that follows from the rule.
    pub(super) fn severity(self) -> Option<Severity> {
        self.rule().map(SeverityRule::severity)
    }

    /// The severity of a session that had begun before the detector started. A shell in it would have been a finding.
    pub(super) fn severity_at_least(self) -> Option<Severity> {
        let shell = if self.is_shell { Severity::Medium } else { Severity::Info };
        self.severity().map(|severity| severity.max(shell))
    }
}

/// Whether the finding is about foreign code: it is not as in the image, or is only in memory or deleted.
pub(super) fn is_foreign_code(finding: &Finding) -> bool {
    matches!(finding.finding, Kind::DriftedExec | Kind::FilelessExec) && finding.severity >= Severity::High
}

/// The severity that a session has at least after this finding, and the rule by which it has it. `is_exploited`:
/// whether an application that listens on a socket has started the session.
pub(super) fn severity_after(finding: &Finding, via: Via, is_exploited: bool) -> (Severity, Option<SeverityRule>) {
    let rule = match via {
        _ if finding.expected.is_some() => None,
        Via::Application if is_exploited && is_foreign_code(finding) => Some(SeverityRule::SessionOfForeignCode),
        Via::Application if finding.severity == TOLD => Some(SeverityRule::SessionOfApplication),
        _ => finding.severity_rule,
    };
    (rule.map_or(finding.severity, SeverityRule::severity), rule)
}

pub(super) const fn techniques(via: Via) -> &'static [&'static str] {
    match via {
        Via::Exec | Via::Nsenter => &["T1609"],
        Via::Entrypoint | Via::Terminal | Via::Socket | Via::Application => &["T1059"],
    }
}

/// The line for people: `WHAT in CONTAINER (HOW): WHAT WAS DONE`. `lasted` is in nanoseconds.
pub(super) fn message(summary: &Summary, process: &Process, container: &str, lasted: Option<u64>) -> String {
    let name = process.exe.as_ref().and_then(|exe| exe.as_str().rsplit('/').next());
    let mut text = name.map_or_else(|| "session".to_owned(), |name| format!("session of {name}"));
    text += &format!(" in {container}");
    text += match summary.via {
        Via::Exec => " (brought in by a runtime",
        Via::Nsenter => " (from the host, as with nsenter",
        Via::Entrypoint => " (its entrypoint, with a terminal",
        Via::Terminal => " (in a terminal that the container has opened",
        Via::Socket => " (takes commands from a socket",
        Via::Application => " (started by the application",
    };
    if let Some(tty) = &process.tty {
        text += &format!(", tty {tty}");
    }
    if let Some(peer) = &summary.peer {
        text += &format!(", peer {peer}");
    }
    let programs = summary.programs.len() as u64 + summary.programs_omitted;
    let changes = summary.files.iter().map(|file| file.count).sum::<u64>() + summary.files_omitted;
    text += &format!("): {}", counted(programs, "program"));
    if changes > 0 {
        text += &format!(", {} of files", counted(changes, "change"));
    }
    if let Some(lasted) = lasted {
        let end = match summary.end_not_seen {
            true if summary.via == Via::Application => "nothing more was seen after",
            true => "its end was not seen, after",
            false => "ended after",
        };
        text += &format!(", {end} {}.{} s", lasted / 1_000_000_000, lasted / 100_000_000 % 10);
    }
    text
}
