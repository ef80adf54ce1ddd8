//! Scripts that wait for the exec of their interpreter. The kernel reports a script when it looks at the script's first
//! line, and later the exec of the interpreter, if there is one. An interpreter may be a script too, and so on.

use super::{describe, interpreter};
use crate::event::{Exec, Script};
use crate::recent::Recent;

/// How many processes can have waiting scripts at the same time.
const MOST: usize = 1024;
/// How many scripts of a process can wait for one exec. The kernel follows no more (`exec_binprm`, fs/exec.c, 5.10 to
/// 7.3).
const CHAIN: usize = 6;
/// How long a script can wait, in nanoseconds. The interpreter may have to be read from a slow disk. A process id is
/// not used again this soon.
const PATIENCE: u64 = 10_000_000_000;

/// The waiting scripts, by the process that executes them, the first one first.
#[derive(Debug)]
pub(super) struct Scripts(Recent<u32, Vec<Script>>);

impl Default for Scripts {
    fn default() -> Self {
        Self(Recent::new(MOST))
    }
}

impl Scripts {
    pub(super) fn insert(&mut self, script: Script) {
        let mut chain = self.0.remove(&script.pid).unwrap_or_default();
        if chain.len() == CHAIN {
            chain.remove(0);
        }
        let pid = script.pid;
        chain.push(script);
        self.0.insert(pid, chain);
    }

    /// Takes the scripts that belong to an exec. Scripts whose exec has failed are dropped at the next exec of their
    /// process.
    pub(super) fn take(&mut self, exec: &Exec) -> Vec<Script> {
        let mut chain = self.0.remove(&exec.process.pid).unwrap_or_default();
        let last = chain.iter().rposition(|script| !script.is_input);
        let mut nth = 0..;
        chain.retain(|script| {
            let is_last = nth.next() == last;
            let is_of = |script: &Script| match script.is_input {
                true => interpreter::reads_commands(&exec.exe, &exec.args, None),
                false => exec.is_interpreter && is_of(script, is_last, exec),
            };
            exec.at.time.saturating_sub(script.at.time) < PATIENCE && is_of(script)
        });
        chain
    }
}

/// Whether a script belongs to an exec. The kernel composes the arguments of an interpreter: the path of the
/// interpreter, possibly an argument, the script, and the script's own arguments. If the interpreter is itself a
/// script, the path of its interpreter comes before all this, possibly with an argument.
fn is_of(script: &Script, is_last: bool, exec: &Exec) -> bool {
    let name = describe::base_name(&script.path.bytes);
    let mut args = exec.args.iter();
    let is_path = args.next().is_some_and(|interpreter| interpreter.starts_with(b"/"));
    let mut others = args.take(2 * CHAIN).peekable();
    // The script may have been called by another name, such as that of a link or `/dev/fd/3`. The first of several
    // scripts is then not recognised by its arguments.
    others.peek().is_some() && (is_last && is_path || others.any(|argument| describe::base_name(argument) == name))
}

#[cfg(test)]
mod tests {
    use super::super::samples::{self, all_found, script};
    use super::*;
    use crate::event::{Event, Layer, Origin};
    use crate::finding::Kind;

    /// The exec of the interpreter of a script.
    fn exec(exe: &str, list: &[&str]) -> Exec {
        Exec { is_interpreter: true, ..samples::exec(Origin::Application, exe, list) }
    }

    fn messages(events: &[Event]) -> Vec<(Kind, String)> {
        all_found(events).into_iter().map(|finding| (finding.finding, finding.message)).collect()
    }

    #[test]
    fn a_script_is_reported_with_the_exec_of_its_interpreter() {
        let mut script = script("/srv/run.py");
        script.file.layer = Some(Layer::Upper);
        let exec = exec("/usr/bin/python3.12", &["/usr/bin/python3", "/srv/run.py"]);
        let expected = "script /srv/run.py, which is not as in the image, executed in container 3f2a0c6d9e1b by \
                        python3.12 (by the application)";
        let script = Event::Script(Box::new(script));
        let exec = Event::Exec(Box::new(exec));
        assert_eq!(messages(std::slice::from_ref(&script)), []);
        assert_eq!(messages(&[script, exec.clone(), exec]), [(Kind::DriftedExec, expected.to_owned())]);
    }

    #[test]
    fn a_shell_says_which_script_it_runs() {
        let script = Event::Script(Box::new(script("/srv/run")));
        let exec = Event::Exec(Box::new(exec("/bin/dash", &["/bin/sh", "./run"])));
        let expected = "dash started in container 3f2a0c6d9e1b (by the application, for script /srv/run)";
        assert_eq!(messages(&[script, exec]), [(Kind::ShellInContainer, expected.to_owned())]);
    }

    #[test]
    fn chains_of_scripts_are_bounded() {
        let mut scripts = Scripts::default();
        for name in ["/srv/failed", "/srv/outer", "/srv/inner"] {
            scripts.insert(script(name));
        }
        let exec = |args: &[&str]| exec("/bin/dash", args);
        let chain = scripts.take(&exec(&["/bin/sh", "-e", "/srv/inner", "-x", "./outer", "argument"]));
        let names: Vec<_> = chain.iter().map(|script| script.path.bytes.as_slice()).collect();
        assert_eq!(names, [b"/srv/outer", b"/srv/inner"]);
        for _ in 0..100 {
            scripts.insert(script("/srv/outer"));
        }
        assert_eq!(scripts.take(&exec(&["/bin/sh", "./outer"])).len(), CHAIN);
    }

    #[test]
    fn a_program_that_is_no_interpreter_runs_no_script() {
        let mut scripts = Scripts::default();
        scripts.insert(script("/srv/run"));
        let exec = Exec { is_interpreter: false, ..exec("/bin/dash", &["/bin/sh", "/srv/run"]) };
        assert_eq!(scripts.take(&exec), []);
    }

    #[test]
    fn a_script_whose_exec_failed_is_of_no_other_exec() {
        let joined = |pid, later, args: &[&str]| {
            let mut scripts = Scripts::default();
            scripts.insert(script("/srv/run"));
            let mut exec = exec("/usr/bin/other", args);
            exec.process.pid = pid;
            exec.at.time += later;
            let joined = scripts.take(&exec).len() == 1;
            assert!(pid != 1234 || scripts.take(&exec).is_empty());
            joined
        };
        assert!(joined(1234, 0, &["/bin/link", "-e", "./run"]));
        assert!(joined(1234, 0, &["/bin/link", "/dev/fd/3"]));
        assert!(joined(1234, 0, &["interpreter", "run"]));
        assert!(!joined(1235, 0, &["/bin/link", "./run"]), "another process");
        assert!(!joined(1234, PATIENCE, &["/bin/link", "./run"]), "too late");
        assert!(!joined(1234, 0, &["other", "-x"]), "no interpreter");
        assert!(!joined(1234, 0, &["/usr/bin/other"]), "no interpreter");
    }
}
