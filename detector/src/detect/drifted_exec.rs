//! `drifted_exec`: a program, script or library in a container's root file system was executed that is not as in the
//! image: it was added to the image at run time, changed, or copied up to the overlay's upper layer for a change of its
//! ownership, permissions or names.
//!
//! **Severity**: low if the probes saw how it was copied up, and that nobody has opened it for writing since then or
//! given it set-id bits or capabilities. This counts only for the overlay that is the container's root: a container can
//! make others. High for anything else. **MITRE ATT&CK**: T1129 (shared modules) if it was loaded into a process, else
//! none, because the event does not show where the program came from.

use super::assessment::Assessment;
use super::code::{Code, Source};
use crate::container::table::TrackedContainer;
use crate::finding::{Difference, File, SeverityRule};

pub(super) fn detect(code: &Code, container: &TrackedContainer) -> Option<Assessment> {
    match code.source(container) {
        Source::Changed => {}
        Source::Memory | Source::Deleted | Source::MemoryOrDeleted | Source::Volume | Source::Expected => return None,
    }
    let difference = code.file.difference.filter(|_| container.root_dev == Some(code.file.dev));
    let (rule, state) = match difference {
        Some(Difference::Nothing) => (SeverityRule::DriftOfMetadata, "copied from the image unchanged"),
        Some(Difference::Metadata) => (SeverityRule::DriftOfMetadata, "as in the image except for its metadata"),
        Some(Difference::Privileges) => (SeverityRule::Drift, "as in the image except for its privileges"),
        Some(Difference::Content) => (SeverityRule::Drift, "not as in the image (content)"),
        None => (SeverityRule::Drift, "not as in the image"),
    };
    Some(Assessment {
        rule,
        message: code.message(state, container),
        file: Some(File { differs: difference, ..code.describe_file() }),
        mitre: code.technique(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::Detector;
    use super::super::samples::*;
    use crate::event::{Difference, Event, File, Layer, Origin};
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
    fn what_differs_decides_the_severity() {
        let found = |difference, root_dev| {
            let mut exec = exec(Origin::Application, "/usr/bin/miner", &["miner"]);
            (exec.file.layer, exec.file.difference) = (Some(Layer::Upper), difference);
            let mut container = container();
            container.root_dev = root_dev;
            let (mut severity, mut differs) = (None, None);
            Detector::default().detect(&Event::Exec(Box::new(exec)), &container, &context(), |finding| {
                severity = Some((finding.severity, finding.message.replace("/usr/bin/miner, which is ", "")));
                differs = finding.file.and_then(|file| file.differs);
            });
            let (severity, message) = severity.expect("there is a finding");
            (severity, message.split(", executed in").next().unwrap_or_default().to_owned(), differs)
        };
        use Difference::*;
        let root = Some(45);
        for (difference, root_dev, severity, state) in [
            (None, root, Severity::High, "not as in the image"),
            (Some(Nothing), root, Severity::Low, "copied from the image unchanged"),
            (Some(Metadata), root, Severity::Low, "as in the image except for its metadata"),
            (Some(Privileges), root, Severity::High, "as in the image except for its privileges"),
            (Some(Content), root, Severity::High, "not as in the image (content)"),
        ] {
            assert_eq!(found(difference, root_dev), (severity, state.to_owned(), difference));
        }
        for other in [None, Some(46)] {
            assert_eq!(found(Some(Nothing), other), (Severity::High, "not as in the image".to_owned(), None));
        }
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
