//! `host_exec`: a process with the host's mounts executed a file of a container, or the kernel did, which a container
//! can tell it in a `core_pattern`, for example. The program then has the host to itself.
//!
//! **Severity**: critical. **MITRE ATT&CK**: T1611 (escape to host).

use super::assessment::Assessment;
use super::describe::{self, Actor};
use crate::container::table::TrackedContainer;
use crate::event::HostExec;
use crate::finding::SeverityRule;

pub(super) fn detect(exec: &HostExec, actor: Option<&Actor>, container: &TrackedContainer) -> Assessment {
    let path = describe::path_or_inode(exec.detail.as_ref(), &exec.file);
    let by = match actor {
        Some(actor) if describe::path(actor.exe).is_some() => format!(" by {}", actor.name()),
        // Only threads of the kernel have no executable.
        Some(_) => " by the kernel".to_owned(),
        None => String::new(),
    };
    Assessment {
        rule: SeverityRule::HostExec,
        message: format!("{path} of {} executed on the host{by}", describe::container_name(container)),
        file: Some(describe::changed_file(&exec.file, exec.detail.as_ref(), None)),
        mitre: &["T1611"],
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use super::*;
    use crate::event::{Event, ImageChange, ImageOp, Layer};

    #[test]
    fn it_says_who_executed_what() {
        let ImageChange { at, file, detail, .. } = change(ImageOp::OpenWrite, Layer::Upper, 0o100755, "/srv/agent");
        let mut exec = HostExec { at, file, detail };
        let message = |exec: &HostExec| found(Event::HostExec(Box::new(exec.clone()))).expect("it is one").message;
        let expected = "/srv/agent of container 3f2a0c6d9e1b executed on the host";
        assert_eq!(message(&exec), format!("{expected} by python3.12"));
        exec.detail.as_mut().expect("the sample has it").exe = path("/");
        assert_eq!(message(&exec), format!("{expected} by the kernel"));
    }
}
