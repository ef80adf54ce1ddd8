//! `fileless_exec`: a program, script or library was executed from a file that is only in memory (memfd_create(2), or a
//! tmpfs such as `/dev/shm`) or that is deleted. Nothing of it remains on a disk for a later investigation.
//!
//! **Severity**: high. **MITRE ATT&CK**: T1620 (reflective code loading).

use super::assessment::Assessment;
use super::code::{Code, Source};
use crate::container::table::TrackedContainer;
use crate::finding::SeverityRule;

pub(super) fn detect(code: &Code, container: &TrackedContainer) -> Option<Assessment> {
    let state = match code.source(container) {
        Source::Memory => "only in memory",
        Source::Deleted => "deleted",
        Source::MemoryOrDeleted => "only in memory or deleted",
        Source::Changed | Source::Volume | Source::Expected => return None,
    };
    Some(Assessment {
        rule: SeverityRule::Fileless,
        message: code.message(state, container),
        file: Some(code.describe_file()),
        mitre: &["T1620"],
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Detector, samples::*};
    use crate::event::{Event, Layer, Origin};
    use crate::finding::Kind;

    const TMPFS: u32 = 0x0102_1994;
    const EXT4: u32 = 0xef53;

    #[test]
    fn memory_and_deleted_files() {
        let message = |path: &str, layer, nlink, magic| {
            let mut exec = exec(Origin::Application, path, &["x"]);
            (exec.file.layer, exec.file.nlink, exec.file.magic) = (layer, nlink, magic);
            let finding = found(Event::Exec(Box::new(exec)))?;
            assert_eq!((finding.finding, finding.mitre), (Kind::FilelessExec, vec!["T1620".into()]));
            Some(finding.message)
        };
        let (memory, deleted) = (Some("only in memory"), Some("deleted"));
        for (path, layer, nlink, magic, expected) in [
            ("/", None, 0, TMPFS, memory),
            ("memfd:x", None, 0, TMPFS, memory),
            ("/dev/shm/x", None, 1, TMPFS, memory),
            ("/huge/x", None, 1, 0x9584_58f6, memory),
            ("/tmp/x", Some(Layer::Upper), 0, 0x794c_7630, deleted),
            ("/bin/x", Some(Layer::Lower), 0, 0x794c_7630, deleted),
            ("/data/x", None, 0, EXT4, deleted),
            ("/data/x", None, 1, EXT4, None),
        ] {
            let shown = if path == "/" { "an unnamed file" } else { path };
            let expected = expected.map(|what| {
                format!("{shown}, which is {what}, executed in container 3f2a0c6d9e1b (by the application)")
            });
            assert_eq!(message(path, layer, nlink, magic), expected, "{path}");
        }
    }

    #[test]
    fn an_image_in_memory_is_an_image() {
        let mut exec = exec(Origin::Application, "/bin/app", &["app"]);
        (exec.file.layer, exec.file.magic) = (None, TMPFS);
        let (mut detector, context, mut container) = (Detector::default(), context(), container());
        let mut all = Vec::new();
        for root_dev in [None, Some(exec.file.dev + 1), Some(exec.file.dev)] {
            container.root_dev = root_dev;
            let event = Event::Exec(Box::new(exec.clone()));
            detector.detect(&event, &container, &context, |_| all.push(root_dev));
        }
        assert_eq!(all, [None, Some(46)]);
    }
}
