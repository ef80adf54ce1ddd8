//! `drifted_exec`: a program, script or library in a container's root file system was executed that is not as in the
//! image: it was added to the image at run time, changed, or copied up to the overlay's upper layer for a change of its
//! ownership, permissions or names.
//!
//! **Severity**: high. **MITRE ATT&CK**: T1129 (shared modules) if it was loaded into a process, else none, because the
//! event does not show where the program came from.

use super::assessment::Assessment;
use super::code::{Code, Source};
use crate::container::table::TrackedContainer;
use crate::finding::{Kind, Severity};

pub(super) fn detect(code: &Code, container: &TrackedContainer) -> Option<Assessment> {
    match code.source(container) {
        Source::Changed => {}
        Source::Memory | Source::Deleted | Source::MemoryOrDeleted | Source::Volume | Source::Expected => return None,
    }
    Some(Assessment {
        finding: Kind::DriftedExec,
        severity: Severity::High,
        message: code.message("not as in the image", container),
        file: Some(code.describe_file()),
        mitre: code.technique(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use crate::event::{Event, File, Layer, Origin};
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
    fn libraries_whose_record_was_lost() {
        let mut mapped = mapped("/usr/sbin/nginx", "/tmp/evil.so");
        mapped.detail = None;
        for (layer, expected) in [
            (Some(Layer::Lower), None),
            (Some(Layer::Upper), Some((Kind::DriftedExec, "not as in the image"))),
            (None, Some((Kind::FilelessExec, "only in memory or deleted"))),
        ] {
            mapped.file = File { mode: 0, nlink: 0, layer, size: 0, change_time: 0, magic: 0, ..mapped.file };
            let finding = found(Event::MapExec(Box::new(mapped.clone())));
            let message = |state| format!("the file with inode 99, which is {state}, loaded in container 3f2a0c6d9e1b");
            let expected = expected.map(|(kind, state)| (kind, message(state)));
            assert_eq!(finding.as_ref().map(|found| (found.finding, found.message.clone())), expected);
            if let Some(finding) = finding {
                assert_eq!((finding.process, finding.file.and_then(|file| file.path)), (None, None));
            }
        }
    }

    #[test]
    fn a_changed_shell_is_two_findings() {
        let mut exec = exec(Origin::Application, "/bin/dash", &["sh"]);
        exec.file.layer = Some(Layer::Upper);
        let kinds: Vec<_> = all_found(&[Event::Exec(Box::new(exec))]).iter().map(|found| found.finding).collect();
        assert_eq!(kinds, [Kind::ShellInContainer, Kind::DriftedExec]);
    }
}
