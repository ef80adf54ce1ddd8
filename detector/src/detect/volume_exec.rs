//! `volume_exec`: a program, script or library on a volume was executed. It is not part of the image, and what writes
//! to volumes is not watched, so all that is known is when it was last changed.
//!
//! **Severity**: high if the file was changed after the container had started, else low. If it is not known when the
//! container started, medium. **MITRE ATT&CK**: T1129 (shared modules) if it was loaded into a process, else none.
//!
//! The time of the change cannot be set like the other times of a file; it is that of the last write, or of the last
//! change of names, permissions or ownership. No file was made after it was last changed, so the time at which it was
//! made tells nothing more.

use super::assessment::Assessment;
use super::code::{Code, Source};
use super::context::Context;
use crate::container::table::TrackedContainer;
use crate::event::may_have_changed;
use crate::finding::SeverityRule;

pub(super) fn detect(code: &Code, container: &TrackedContainer, context: &Context) -> Option<Assessment> {
    if code.source(container) != Source::Volume {
        return None;
    }
    let has_changed = |started| may_have_changed(code.file.change_time, context.wall_nanoseconds(started));
    let (rule, state) = match container.started.map(has_changed) {
        Some(true) => (SeverityRule::VolumeChanged, "on a volume and was changed after the container had started"),
        Some(false) => (SeverityRule::Volume, "on a volume"),
        None => (SeverityRule::VolumeUnknown, "on a volume"),
    };
    Some(Assessment {
        rule,
        message: code.message(state, container),
        file: Some(code.describe_file()),
        mitre: code.technique(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Detector, samples::*};
    use super::*;
    use crate::event::{Event, Layer, Origin};
    use crate::finding::Severity;

    /// The severity and the message for a program on this device, which was changed at this time since boot. The
    /// container's root is on device 7, and the container started at `started`.
    fn found(dev: u32, layer: Option<Layer>, changed: u64, started: Option<u64>) -> Option<(Severity, String)> {
        let context = context();
        let mut exec = exec(Origin::Application, "/data/tool", &["tool"]);
        let wall = context.wall_nanoseconds(changed);
        (exec.file.dev, exec.file.layer) = (dev, layer);
        exec.file.change_time = u64::try_from(wall).expect("it is after 1970");
        let container = TrackedContainer { root_dev: Some(7), started, ..container() };
        let mut all = Vec::new();
        Detector::default().detect(&Event::Exec(Box::new(exec)), &container, &context, |finding| all.push(finding));
        assert!(all.len() <= 1);
        all.pop().map(|finding| (finding.severity, finding.message))
    }

    #[test]
    fn programs_on_volumes() {
        const SECOND: u64 = 1_000_000_000;
        let severity = |changed, started| found(8, None, changed, started).map(|(severity, _)| severity);
        let started = Some(50 * SECOND);
        assert_eq!(severity(49 * SECOND, started), Some(Severity::Low));
        assert_eq!(severity(51 * SECOND, started), Some(Severity::High));
        assert_eq!(severity(50 * SECOND - 4_000_000, started), Some(Severity::High), "the clock for files ticks");
        assert_eq!(severity(51 * SECOND, None), Some(Severity::Medium));
        let message = "/data/tool, which is on a volume and was changed after the container had started, executed in \
                       container 3f2a0c6d9e1b (by the application)";
        assert_eq!(found(8, None, 51 * SECOND, started), Some((Severity::High, message.to_owned())));
    }

    #[test]
    fn the_image_is_no_volume() {
        assert_eq!(found(7, None, 99, Some(1)), None, "the image is no overlay");
        assert_eq!(found(7, Some(Layer::Lower), 99, Some(1)), None);
    }
}
