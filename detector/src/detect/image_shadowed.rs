//! `image_shadowed`: something was mounted over a path of a container's image, or the mounts or the root with which the
//! container sees its image were changed. The image's file is as it was, but it is not what a process finds at its path.
//!
//! **How severe**: high over programs, libraries and what decides who may do what (see [`place`](super::place)), and for
//! pivot_root(2); low for chroot(2), which many services do to protect themselves; medium for anything else.
//!
//! **MITRE ATT&CK**: T1564.013 (bind mounts) for what is put over a path; none for the others.

use super::place::Place;
use super::{Context, Program, Verdict, describe};
use crate::container::table::Container;
use crate::event::{ImageWrite, Op};
use crate::finding::{Kind, Severity};

pub(super) fn detect(
    write: &ImageWrite,
    program: Option<&Program>,
    container: &Container,
    context: &Context,
) -> Verdict {
    let place = write.path.as_ref().map_or(Place::Other, |path| Place::of_tree(&path.bytes));
    let covers = matches!(write.op, Op::Mount | Op::Bind | Op::MoveMount);
    let severity = match (write.op, place) {
        (Op::Chroot, _) => Severity::Low,
        (Op::PivotRoot, _) | (_, Place::Program | Place::Control) => Severity::High,
        (_, Place::Scratch | Place::Other) => Severity::Medium,
    };
    Verdict {
        finding: Kind::ImageShadowed,
        severity,
        message: message(write, container),
        process: describe::actor(write, program, context),
        file: Some(describe::changed_file(write)),
        mitre: if covers { &["T1564.013"] } else { &[] },
    }
}

fn message(write: &ImageWrite, container: &Container) -> String {
    let path = match &write.path {
        Some(path) => describe::text(&path.bytes).to_string(),
        None => format!("the place of inode {}", write.file.inode),
    };
    let done = match write.op {
        Op::Mount => "has a file system mounted over it",
        Op::Bind => "has something else bound over it",
        Op::Remount => "is remounted with other options",
        Op::MoveMount => "has a mount moved over it",
        Op::Umount => "is no longer mounted over",
        Op::PivotRoot => "is made the root (pivot_root)",
        Op::Chroot => "is made the root (chroot)",
        _ => "has its mount changed",
    };
    format!("{path} {done} in {}{}", describe::container_name(container), describe::by(write))
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use super::*;
    use crate::event::{Event, Layer};

    #[test]
    fn severity_technique_and_message() {
        use Severity::*;
        for (op, path, severity, technique) in [
            (Op::Mount, "/usr/bin", High, Some("T1564.013")),
            (Op::Bind, "/etc/passwd", High, Some("T1564.013")),
            (Op::MoveMount, "/srv", Medium, Some("T1564.013")),
            (Op::Bind, "/etc/sudoers.d", High, Some("T1564.013")),
            (Op::Mount, "/tmp", Medium, Some("T1564.013")),
            (Op::Umount, "/data", Medium, None),
            (Op::Chroot, "/usr/lib/empty", Low, None),
            (Op::PivotRoot, "/srv", High, None),
        ] {
            let event = Event::ImageWrite(Box::new(write(op, Layer::Lower, 0o040755, path)));
            let finding = found(event).expect("it is one");
            assert_eq!(finding.finding, Kind::ImageShadowed);
            assert_eq!(finding.severity, severity, "{op:?} {path}");
            assert_eq!(finding.mitre.first().map(AsRef::as_ref), technique, "{op:?} {path}");
            assert!(finding.message.starts_with(path), "{}", finding.message);
            assert!(finding.message.ends_with(" in container 3f2a0c6d9e1b by python3.12"), "{}", finding.message);
        }
    }
}
