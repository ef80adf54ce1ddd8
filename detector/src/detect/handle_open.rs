//! `handle_open`: a container opened a file by its handle, with open_by_handle_at(2). A handle is little more than an
//! inode number, which a process can guess, and it leads to any file of the file system, also to those of the host.
//!
//! **Severity**: critical if the file is not in the mount that it was opened through, or if nothing shows that it is;
//! otherwise low, because file servers and tools that watch file systems do so. **MITRE ATT&CK**: T1611 (escape to
//! host).

use super::assessment::Assessment;
use super::describe::{self, Actor};
use crate::container::table::TrackedContainer;
use crate::event::HandleOpen;
use crate::finding::SeverityRule;

pub(super) fn detect(open: &HandleOpen, actor: Option<&Actor>, container: &TrackedContainer) -> Assessment {
    let path = describe::path_or_inode(open.detail.as_ref(), &open.file);
    let (rule, place) = match open.is_inside {
        true => (SeverityRule::HandleInside, ""),
        false => (SeverityRule::HandleOutside, " outside its mount"),
    };
    Assessment {
        rule,
        message: describe::message(&format!("{path} opened by its handle{place}"), container, actor),
        file: Some(describe::changed_file(&open.file, open.detail.as_ref(), None)),
        mitre: &["T1611"],
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use super::*;
    use crate::event::{Event, ImageChange, ImageOp, Layer};
    use crate::finding::Severity;

    #[test]
    fn what_is_outside_is_critical() {
        let ImageChange { at, file, detail, .. } = change(ImageOp::OpenWrite, Layer::Lower, 0o100600, "/etc/shadow");
        let verdict = |is_inside| {
            let open = HandleOpen { at, file, is_inside, detail: detail.clone() };
            let finding = found(Event::HandleOpen(Box::new(open))).expect("it is one");
            (finding.severity, finding.message)
        };
        let message =
            |place| format!("/etc/shadow opened by its handle{place} in container 3f2a0c6d9e1b by python3.12");
        assert_eq!(verdict(false), (Severity::Critical, message(" outside its mount")));
        assert_eq!(verdict(true), (Severity::Low, message("")));
    }
}
