//! `health_check`: a runtime runs the test that the container declares.
//!
//! **Facts**: a session begins with a process that a runtime has brought in, without a terminal, and with a standard
//! input that is nothing or a pipe from which it takes no commands. Its arguments are those of the test, which only the
//! runtime can tell: [`crate::runtime`] compares them when it has answered. In a pod, about which nobody can tell it,
//! the same arguments must have come at a steady [pace](super::pace). All programs of the session are in a lower layer
//! of the container's root, and so is all other code that they run, since there would be a finding about it.
//!
//! **Never**: what a health check changes. The session is not expected any more from the first act on that is not a
//! program of the image.

use super::super::process::Program;
use super::super::shell;
use crate::container::table::TrackedContainer;
use crate::event::{Event, Exec, StdioKind, Via};
use crate::finding::{Finding, Kind, Severity, Visit};

/// What the session that begins with this exec runs, if it can be a health check.
pub(super) fn visit(exec: &Exec, program: Option<&Program>, container: &TrackedContainer) -> Option<Visit> {
    let process = &exec.process;
    let is_brought_in = process.session.is_some_and(|session| session.via == Via::Exec && session.pid == process.pid);
    let has_input = !matches!(process.stdio[0], StdioKind::Null | StdioKind::Pipe);
    if !is_brought_in
        || has_input
        || shell::has_terminal(process)
        || exec.args.truncated
        || !is_of_image(exec, container)
    {
        return None;
    }
    let args = exec.args.iter().map(<[u8]>::to_vec).collect();
    Some(Visit { args, scripts: program.map_or(0, |program| program.scripts.len()), is_steady: false })
}

/// Whether a session can still be a health check after this event, about which there are these findings.
pub(in super::super) fn can_go_on(event: &Event, findings: &[Finding], container: &TrackedContainer) -> bool {
    let is_program = match event {
        Event::Exec(exec) => is_of_image(exec, container),
        // Anything else that matters is a finding.
        _ => true,
    };
    is_program && findings.iter().all(is_ordinary_shell)
}

/// Whether the program is one of the image.
pub(super) fn is_of_image(exec: &Exec, container: &TrackedContainer) -> bool {
    container.has_in_image(exec.file.dev, exec.file.layer)
}

pub(super) fn is_ordinary_shell(finding: &Finding) -> bool {
    finding.finding == Kind::ShellInContainer
        && finding.severity <= Severity::Medium
        && finding.file.as_ref().is_some_and(|file| file.unverified.is_none())
}

#[cfg(test)]
mod tests {
    use super::super::super::samples::{args, exec};
    use super::*;
    use crate::event::{Layer, Origin};

    #[test]
    fn a_command_is_that_of_the_test() {
        let is = |scripts: usize, list: &[&str], command: &[&str]| {
            let args = args(list).iter().map(<[u8]>::to_vec).collect();
            let command: Vec<_> = command.iter().map(|&part| part.to_owned()).collect();
            Visit { args, scripts, is_steady: false }.runs(&command)
        };
        assert!(is(0, &["/bin/sh", "-c", "a b"], &["/bin/sh", "-c", "a b"]));
        assert!(is(0, &["pg_isready"], &["pg_isready"]));
        // The kernel has put the interpreter before the script.
        assert!(is(1, &["/bin/sh", "/check.sh", "x"], &["/check.sh", "x"]));
        assert!(is(1, &["/bin/sh", "-e", "/check.sh", "x"], &["/check.sh", "x"]));
        assert!(is(1, &["/bin/sh", "/usr/bin/check", "x"], &["check", "x"]));
        assert!(is(2, &["/bin/sh", "-e", "/a", "-x", "/check"], &["/check"]));
        for (scripts, list, command) in [
            (0, &["/bin/sh", "-c", "a b"][..], &["/bin/sh", "-c", "a"][..]),
            (0, &["/bin/sh", "-c", "a", "b"], &["/bin/sh", "-c", "a b"]),
            (0, &["/bin/sh", "/check.sh"], &["/check.sh"]),
            (0, &["/usr/bin/check"], &["check"]),
            (0, &["x", "check"], &["check"]),
            (0, &[], &["check"]),
            (0, &["check"], &[]),
            (1, &["/bin/sh", "/tmp/check.sh"], &["/check.sh"]),
            (1, &["/bin/sh", "-e", "-x", "/check.sh"], &["/check.sh"]),
            (1, &["/bin/sh", "/check.sh", "x"], &["/check.sh"]),
            (1, &["/check.sh"], &["/check.sh"]),
            (1, &["/bin/sh", "/xcheck"], &["check"]),
        ] {
            assert!(!is(scripts, list, command), "{list:?} is no {command:?}");
        }
    }

    #[test]
    fn it_comes_from_a_runtime_without_a_terminal() {
        use crate::event::Session;
        let container = {
            let mut container = super::super::super::samples::container();
            container.root_dev = Some(45);
            container
        };
        let mut probe = exec(Origin::Entered, "/bin/dash", &["/bin/sh", "-c", "a"]);
        probe.process.session = Some(Session { start_time: 70, pid: probe.process.pid, via: Via::Exec });
        let visit = super::visit(&probe, None, &container).expect("it can be one");
        assert_eq!(visit.args, [&b"/bin/sh"[..], b"-c", b"a"]);
        for change in [
            |exec: &mut Exec| exec.process.session = None,
            |exec| exec.process.session.as_mut().expect("it is in one").via = Via::Nsenter,
            |exec| exec.process.session.as_mut().expect("it is in one").via = Via::Socket,
            |exec| exec.process.pid += 1,
            |exec| exec.process.tty = Some(super::super::super::samples::name("pts0")),
            |exec| exec.process.stdio[0] = StdioKind::Tty,
            |exec| exec.process.stdio[0] = StdioKind::File,
            |exec| exec.process.stdio[0] = StdioKind::Socket,
            |exec| exec.args.truncated = true,
            |exec| exec.file.layer = Some(Layer::Upper),
            |exec| exec.file.layer = None,
            |exec| exec.file.dev = 46,
        ] as [fn(&mut Exec); 12]
        {
            let mut other = probe.clone();
            change(&mut other);
            assert_eq!(super::visit(&other, None, &container), None, "{other:?}");
        }
    }
}
