//! `image_shadowed`: something was mounted over a path of a container's image, or the mounts or the root through which
//! the container sees its image were changed. The image's file is unchanged, but a process no longer finds it at its
//! path.
//!
//! **Severity**: high at programs, libraries and files that control access (see [`place`](super::place)), and for
//! pivot_root(2); low for chroot(2), by which many services protect themselves; medium otherwise. Info if the process
//! is in a user namespace that the rest of the container is not in, as the sandboxes of browsers are: only that process
//! and its descendants see the change.
//!
//! **MITRE ATT&CK**: T1564.013 (bind mounts) if something was mounted over a path for the rest of the container, else
//! none.

use super::assessment::Assessment;
use super::describe::{self, Actor};
use super::place::Place;
use crate::container::table::TrackedContainer;
use crate::event::{MountChange, MountOp};
use crate::finding::{Op, SeverityRule};

/// What an operation does to the path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// Another file or directory is found there.
    Covers,
    /// What was covered is found there again, or its mount options were changed.
    Alters,
    /// It becomes the root of one process.
    Confines,
    /// It becomes the root of the mount namespace.
    Replaces,
}

/// The words for an operation in a message, and the operation's effect.
fn describe(op: MountOp) -> (&'static str, Effect) {
    match op {
        MountOp::Mount => ("mounted over", Effect::Covers),
        MountOp::Bind => ("bind-mounted over", Effect::Covers),
        MountOp::MoveMount => ("covered by a moved mount", Effect::Covers),
        MountOp::Remount => ("remounted with other options", Effect::Alters),
        MountOp::MountSetattr => ("given other mount options with mount_setattr", Effect::Alters),
        MountOp::Umount => ("unmounted", Effect::Alters),
        MountOp::PivotRoot => ("made the root with pivot_root", Effect::Replaces),
        MountOp::Chroot => ("made the root with chroot", Effect::Confines),
    }
}

pub(super) fn detect(change: &MountChange, actor: Option<&Actor>, container: &TrackedContainer) -> Assessment {
    let detail = change.detail.as_ref();
    let (done, effect) = describe(change.op);
    let place = detail.map_or(Place::Other, |detail| Place::of_tree(&detail.path.bytes));
    let rule = match (effect, place) {
        _ if change.is_private => SeverityRule::ShadowInSandbox,
        (Effect::Confines, _) => SeverityRule::ShadowOfRoot,
        (Effect::Replaces, _) | (_, Place::Program | Place::Control) => SeverityRule::ShadowOfControl,
        (Effect::Covers | Effect::Alters, Place::Scratch | Place::Other) => SeverityRule::Shadow,
    };
    let path = describe::path_or_inode(detail, &change.file);
    let scope = if change.is_private { " for a sandbox (a user namespace of its own)" } else { "" };
    Assessment {
        rule,
        message: describe::message(&format!("{path} {done}{scope}"), container, actor),
        file: Some(describe::changed_file(&change.file, detail, Some(Op::Mount(change.op)))),
        mitre: if effect == Effect::Covers && !change.is_private { &["T1564.013"] } else { &[] },
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use super::*;
    use crate::event::{Event, ImageChange, ImageOp, Layer};
    use crate::finding::{Kind, Severity};

    #[test]
    fn severity_technique_and_message() {
        use Severity::*;
        let technique = Some("T1564.013");
        for (op, path, severity, technique, done) in [
            (MountOp::Mount, "/usr/bin", High, technique, "mounted over"),
            (MountOp::Bind, "/etc/passwd", High, technique, "bind-mounted over"),
            (MountOp::MoveMount, "/srv", Medium, technique, "covered by a moved mount"),
            (MountOp::Bind, "/etc/sudoers.d", High, technique, "bind-mounted over"),
            (MountOp::Mount, "/tmp", Medium, technique, "mounted over"),
            (MountOp::Umount, "/data", Medium, None, "unmounted"),
            (MountOp::Remount, "/", Medium, None, "remounted with other options"),
            (MountOp::MountSetattr, "/etc/ssh", High, None, "given other mount options with mount_setattr"),
            (MountOp::Chroot, "/usr/lib/empty", Low, None, "made the root with chroot"),
            (MountOp::PivotRoot, "/srv", High, None, "made the root with pivot_root"),
        ] {
            let ImageChange { at, file, detail, .. } = change(ImageOp::OpenWrite, Layer::Lower, 0o040755, path);
            let event = Event::MountChange(Box::new(MountChange { at, op, file, is_private: false, detail }));
            let finding = found(event).expect("it is one");
            assert_eq!(finding.finding, Kind::ImageShadowed);
            assert_eq!(finding.severity, severity, "{op:?} {path}");
            assert_eq!(finding.mitre.first().map(AsRef::as_ref), technique, "{op:?} {path}");
            let message = format!("{path} {done} in container 3f2a0c6d9e1b by python3.12");
            assert_eq!(finding.message, message);
        }
    }

    #[test]
    fn sandboxes_shadow_nothing_for_others() {
        for op in [MountOp::Mount, MountOp::PivotRoot, MountOp::Chroot] {
            let ImageChange { at, file, detail, .. } = change(ImageOp::OpenWrite, Layer::Lower, 0o040755, "/usr/bin");
            let event = Event::MountChange(Box::new(MountChange { at, op, file, is_private: true, detail }));
            let finding = found(event).expect("it is one");
            assert_eq!((finding.severity, finding.mitre.len()), (Severity::Info, 0));
            let message = format!(
                "/usr/bin {} for a sandbox (a user namespace of its own) in container 3f2a0c6d9e1b by python3.12",
                describe(op).0
            );
            assert_eq!(finding.message, message);
        }
    }
}
