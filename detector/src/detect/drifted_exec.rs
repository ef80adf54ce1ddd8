//! `drifted_exec`: a program, script or library of a container's image was run that is not as the image has it: it was
//! added to the image at run time, changed, or copied to the overlay's upper layer for a change of its owner, permissions or
//! names.
//!
//! **How severe**: high. **MITRE ATT&CK**: of something loaded into a process T1129 (shared modules); of anything else none,
//! for where it came from is not to be seen here.

use super::code::{self, Code, How, Source};
use super::{Context, Verdict, describe};
use crate::container::table::Container;
use crate::event::{File, Layer};
use crate::finding::{Kind, Severity};

const WHAT: &str = "not as in the image";
const LOADED: &[&str] = &["T1129"];

pub(super) fn detect(code: &Code, container: &Container, context: &Context) -> Option<Verdict> {
    (code.source(container) == Source::Changed).then(|| Verdict {
        finding: Kind::DriftedExec,
        severity: Severity::High,
        message: code.message(WHAT, container),
        process: Some(describe::process(code.process, Some(code.exe), code.program, context)),
        file: Some(describe::file(code.file, code.path)),
        mitre: match code.how {
            How::Executed | How::Interpreted => &[],
            How::Mapped => LOADED,
        },
    })
}

/// Of code that was mapped, and of which the record was lost.
pub(super) fn kept(file: &File, container: &Container) -> Option<Verdict> {
    matches!(file.layer, Some(Layer::Upper | Layer::New)).then(|| Verdict {
        finding: Kind::DriftedExec,
        severity: Severity::High,
        message: code::kept(file, WHAT, container),
        process: None,
        file: Some(describe::numbered(file)),
        mitre: LOADED,
    })
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use crate::event::{At, Event, Layer, Origin};
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
    fn libraries_of_which_the_record_was_lost() {
        let mut file = mapped("/usr/sbin/nginx", "/tmp/evil.so").file;
        let at = At { time: 99, cgroup: 1, container: 500 };
        for (layer, kind) in [
            (Some(Layer::Lower), None),
            (Some(Layer::Upper), Some(Kind::DriftedExec)),
            (None, Some(Kind::FilelessExec)),
        ] {
            file.layer = layer;
            let finding = found(Event::KeptMapExec(at, file));
            assert_eq!(finding.as_ref().map(|found| found.finding), kind);
            if let Some(finding) = finding {
                assert!(finding.message.starts_with(&format!("the file of inode {}, which is ", file.inode)));
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
