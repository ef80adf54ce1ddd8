//! `engine`: Docker's daemon prepares a container's root for itself.
//!
//! **Facts**: the process is one of the host, with the host's mounts, in a cgroup other than the container's, and its
//! executable is `dockerd` there. For `docker cp` the daemon makes a directory for its own root, `/.pivot_root` with a
//! number, and removes it.
//!
//! **Never**: what is copied.

use super::super::describe::base_name;
use crate::event::{At, ImageChange, ImageOp, Origin};

/// The executable of the daemon.
const DAEMON: &[u8] = b"dockerd";
/// The beginning of the path of a directory for its root.
const PIVOT: &[u8] = b"/.pivot_root";

/// Whether the change is one of the daemon for itself.
pub(super) fn covers(change: &ImageChange) -> bool {
    let Some(detail) = &change.detail else { return false };
    let At { cgroup, container, .. } = change.at;
    let (process, path) = (&detail.process, &detail.path.bytes[..]);
    let is_daemon = process.origin == Origin::Outside
        && process.session.is_none()
        && cgroup != container
        && process.ancestors.iter().all(|ancestor| !ancestor.in_container)
        && !detail.exe.truncated
        && base_name(&detail.exe.bytes) == DAEMON;
    let is_pivot = matches!(change.op, ImageOp::Mkdir | ImageOp::Rmdir)
        && path.strip_prefix(PIVOT).is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit));
    is_daemon && is_pivot
}

#[cfg(test)]
mod tests {
    use super::super::super::samples::{change, path};
    use super::*;
    use crate::event::Layer;

    fn by_daemon(op: ImageOp, mode: u32, file: &str) -> ImageChange {
        let mut change = change(op, Layer::New, mode, file);
        change.at.cgroup = 7;
        let detail = change.detail.as_mut().expect("the sample has it");
        (detail.process.origin, detail.exe) = (Origin::Outside, path("/usr/bin/dockerd"));
        change
    }

    #[test]
    fn what_the_daemon_makes_for_itself() {
        for (op, mode, file, expected) in [
            (ImageOp::Mkdir, 0o040700, "/.pivot_root123", true),
            (ImageOp::Rmdir, 0o040700, "/.pivot_root123", true),
            (ImageOp::Mkdir, 0o040700, "/.pivot_root", false),
            (ImageOp::Mkdir, 0o040700, "/.pivot_root1/x", false),
            (ImageOp::Mkdir, 0o040700, "/srv/.pivot_root1", false),
            (ImageOp::Create, 0o100644, "/.pivot_root1", false),
            (ImageOp::Create, 0o100644, "/srv/added", false),
            (ImageOp::OpenWrite, 0o100644, "/etc/passwd", false),
            (ImageOp::OpenWrite, 0o100644, "/etc/hosts", false),
        ] {
            assert_eq!(covers(&by_daemon(op, mode, file)), expected, "{op:?} {file}");
        }
    }

    #[test]
    fn only_the_daemon_on_the_host_is_one() {
        let change = by_daemon(ImageOp::Mkdir, 0o040700, "/.pivot_root1");
        assert!(covers(&change));
        let mut other = change.clone();
        other.at.cgroup = other.at.container;
        assert!(!covers(&other));
        for origin in [Origin::Application, Origin::Entered, Origin::Entrypoint, Origin::Unknown] {
            let mut other = change.clone();
            other.detail.as_mut().expect("it has it").process.origin = origin;
            assert!(!covers(&other), "{origin:?}");
        }
        let mut other = change.clone();
        other.detail.as_mut().expect("it has it").process.ancestors[0].in_container = true;
        assert!(!covers(&other));
        let mut other = change.clone();
        other.detail.as_mut().expect("it has it").exe = path("/usr/bin/python3");
        assert!(!covers(&other));
        assert!(!covers(&ImageChange { detail: None, ..change }));
    }
}
