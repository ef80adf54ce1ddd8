//! Completion in a shell: scripts that ask this program what can be typed, which knows its arguments and, from the
//! daemon, the names of containers and pods.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::env::{CompleteEnv, Shells};
use clap_complete::{ArgValueCandidates, CompletionCandidate, Shell};

use super::Args;
use crate::client;
use crate::finding::{Container, Text};
use crate::ledger::{Query, Row};
use crate::output::terminal::short;
use crate::protocol::DEFAULT_SOCKET;

/// The environment variable by which a script asks.
const VARIABLE: &str = "DETECTOR_COMPLETE";
/// The name of the program, which shells look for.
const PROGRAM: &str = "detector";

/// If a script asks, answers it and ends the process.
pub(super) fn answer() {
    CompleteEnv::with_factory(Args::command).var(VARIABLE).complete();
}

/// What zsh must do besides if it finds the script in `fpath`: it takes it for the function that completes, and without
/// this nothing is completed the first time.
const FIRST_IN_ZSH: &str = "[[ $funcstack[1] == _detector ]] && _clap_dynamic_completer_detector\n";

/// Writes the script for a shell.
pub(super) fn write_script(shell: Shell, out: &mut dyn io::Write) -> io::Result<()> {
    let shells = Shells::builtins();
    let name = shell.to_string();
    let known = shells.completer(&name).ok_or_else(|| io::Error::other(format!("there is no script for {name}")))?;
    known.write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, out)?;
    if shell == Shell::Zsh { out.write_all(FIRST_IN_ZSH.as_bytes()) } else { Ok(()) }
}

/// The containers that run, by their names, or by their ids if they have none that can be completed.
pub(super) fn containers() -> ArgValueCandidates {
    candidates(|Container { id, name, .. }| {
        let name = name.as_ref().map(Text::to_string).filter(|name| is_harmless(name));
        name.or_else(|| id.as_ref().map(|id| short(id.as_str())))
    })
}

/// The pods with containers that run.
pub(super) fn pods() -> ArgValueCandidates {
    candidates(|container| container.pod.as_ref()?.name.as_ref().map(Text::to_string))
}

/// The namespaces of these pods.
pub(super) fn namespaces() -> ArgValueCandidates {
    candidates(|container| container.pod.as_ref()?.namespace.as_ref().map(Text::to_string))
}

fn candidates(name: fn(&Container) -> Option<String>) -> ArgValueCandidates {
    ArgValueCandidates::new(move || {
        let mut names = BTreeSet::new();
        // Without a daemon, or without the right to ask it, there are none.
        let _ = client::drift(Path::new(DEFAULT_SOCKET), Query::default(), |row| {
            if let Row::Page(page) = row
                && page.ended.is_none()
            {
                names.extend(name(&page.container).filter(|name| is_harmless(name)));
            }
        });
        names.into_iter().map(CompletionCandidate::new).collect()
    })
}

/// Whether a name cannot be taken for anything else: some shells evaluate what completes a word, and names come from
/// those who start containers.
fn is_harmless(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    !name.is_empty() && !name.starts_with('-') && name.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_no_shell_evaluates_are_completed() {
        for harmless in ["web", "shop_web-1.2", "0"] {
            assert!(is_harmless(harmless), "{harmless}");
        }
        for other in ["", "-x", "a b", "$(id)", "`id`", "a;b", "a/b", "a:b", "a*", "~", "a\\x1b", "ä", "a\n"] {
            assert!(!is_harmless(other), "{other}");
        }
    }
}
