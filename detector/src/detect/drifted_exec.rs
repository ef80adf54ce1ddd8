//! `drifted_exec`: a program, script or library of a container's image was run that is not as the image has it: it was
//! added to the image at run time, changed, or copied to the overlay's upper layer for a change of its owner, permissions or
//! names.
//!
//! **How severe**: high. **MITRE ATT&CK**: of something loaded into a process T1129 (shared modules); of anything else none,
//! for where it came from is not to be seen here.

use super::code::{Code, How, Source};
use super::{Context, Verdict, describe};
use crate::container::table::Container;
use crate::finding::{Kind, Severity};

pub(super) fn detect(code: &Code, container: &Container, context: &Context) -> Option<Verdict> {
    (code.source(container) == Source::Changed).then(|| Verdict {
        finding: Kind::DriftedExec,
        severity: Severity::High,
        message: code.message("not as in the image", container),
        process: Some(describe::process(code.process, Some(code.exe), code.program, context)),
        file: Some(describe::file(code.file, code.path)),
        mitre: match code.how {
            How::Executed | How::Interpreted => &[],
            How::Mapped => &["T1129"],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use crate::event::{Event, Layer, Origin};
    use crate::finding::{Kind, Severity};

    #[test]
    fn programs_of_the_upper_layer() {
        let mut exec = exec(Origin::Entered, "/usr/bin/miner", &["miner"]);
        assert_eq!(found(Event::Exec(Box::new(exec.clone()))), None);
        exec.file.layer = Some(Layer::Upper);
        let finding = found(Event::Exec(Box::new(exec))).expect("it is one");
        assert_eq!((finding.finding, finding.severity), (Kind::DriftedExec, Severity::High));
        let message =
            "/usr/bin/miner, which is not as in the image, executed in container 3f2a0c6d9e1b (entered from outside)";
        assert_eq!(finding.message, message);
        assert!(finding.mitre.is_empty());
    }

    #[test]
    fn libraries_of_the_upper_layer() {
        let mut mapped = mapped("/usr/sbin/nginx", "/tmp/evil.so");
        assert_eq!(found(Event::MapExec(Box::new(mapped.clone()))), None);
        mapped.file.layer = Some(Layer::Upper);
        let finding = found(Event::MapExec(Box::new(mapped))).expect("it is one");
        let message = "/tmp/evil.so, which is not as in the image, loaded in container 3f2a0c6d9e1b by nginx \
                       (by the application)";
        assert_eq!((finding.finding, finding.message.as_str()), (Kind::DriftedExec, message));
        assert_eq!(finding.mitre, ["T1129"]);
    }

    #[test]
    fn a_changed_shell_is_two_findings() {
        let mut exec = exec(Origin::Application, "/bin/dash", &["sh"]);
        exec.file.layer = Some(Layer::Upper);
        let kinds: Vec<_> = all_found(&[Event::Exec(Box::new(exec))]).iter().map(|found| found.finding).collect();
        assert_eq!(kinds, [Kind::ShellInContainer, Kind::DriftedExec]);
    }
}
