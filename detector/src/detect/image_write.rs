//! `image_write`: a file or directory of a container's image was changed, removed or replaced, or one was added.
//!
//! **Severity**: the first row that applies. If there are two paths, the one that matters more counts.
//!
//! | severity | when |
//! |---|---|
//! | high | file capabilities were set, or the set-id bits that let the file act as its owner |
//! | high | the file is a program: it is executable, or it is in a directory of programs or libraries |
//! | high | the file decides who may do what, or what is started (`place::CONTROL`) |
//! | high | the file is below `/etc`, and a process that came in from outside changes it |
//! | low | the file is in a directory that is meant to be written to (`place::SCRATCH`) |
//! | medium | anything else |
//!
//! **MITRE ATT&CK**: only techniques that one event shows.
//!
//! | technique | when |
//! |---|---|
//! | T1548.001 (setuid and setgid) | file capabilities or set-id bits were set |
//! | T1070.006 (timestomp) | the timestamps were changed |
//! | T1222.002 (Linux permissions modification) | permissions, ownership, access control list or inode flags were changed |
//! | T1070.004 (file deletion) | the file was removed |
//! | T1554 (compromise of a host software binary) | the content of a program of the image was changed, or it was replaced |
//! | T1036.005 (match legitimate name or location) | a file was added to the programs and libraries |
//! | T1565.001 (stored data manipulation) | another file of the image was changed |
//!
//! No technique is given for other new files. T1525 is never given, because it is about images in a registry.

use super::assessment::Assessment;
use super::describe::{self, Actor};
use super::place::Place;
use crate::container::table::TrackedContainer;
use crate::event::{ImageChange, ImageOp, Layer, Origin};
use crate::finding::{Mode, Op, SeverityRule};

/// `S_ISUID | S_ISGID`.
const SET_ID: u32 = 0o6000;
/// Where programs have their configuration.
const CONFIGURATION: &[u8] = b"/etc/";

/// What an operation changes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Aspect {
    /// The content of the file, or which file has its name.
    Content,
    /// The existence of the file, which is gone.
    Existence,
    /// Who may do what with the file.
    Access,
    /// What the file may do when it is executed.
    Capabilities,
    /// The time at which the file was changed, as its timestamps claim.
    Timestamps,
}

/// The words for an operation in a message, the word before the new path or value, and what the operation changes.
fn describe(op: ImageOp) -> (&'static str, &'static str, Aspect) {
    match op {
        ImageOp::OpenWrite => ("opened for writing", "", Aspect::Content),
        ImageOp::Truncate => ("truncated", "", Aspect::Content),
        ImageOp::Create | ImageOp::Mknod => ("created", "", Aspect::Content),
        ImageOp::Mkdir => ("created as a directory", "", Aspect::Content),
        ImageOp::Symlink => ("created as a symbolic link", "", Aspect::Content),
        ImageOp::Write => ("written", "", Aspect::Content),
        ImageOp::MmapWrite => ("mapped shared and writable", "", Aspect::Content),
        ImageOp::CopyUp => ("copied up", "", Aspect::Content),
        ImageOp::Link => ("hard link created", "at", Aspect::Content),
        ImageOp::Rename => ("renamed", "to", Aspect::Content),
        ImageOp::Exchange => ("exchanged", "with", Aspect::Content),
        ImageOp::Unlink => ("removed", "", Aspect::Existence),
        ImageOp::Rmdir => ("directory removed", "", Aspect::Existence),
        ImageOp::Chmod => ("permissions changed", "to", Aspect::Access),
        ImageOp::Chown => ("ownership changed", "", Aspect::Access),
        ImageOp::SetAcl => ("access control list changed", "", Aspect::Access),
        ImageOp::SetFlags => ("inode flags changed", "", Aspect::Access),
        ImageOp::SetXattr => ("extended attribute set", "", Aspect::Content),
        ImageOp::RemoveXattr => ("extended attribute removed", "", Aspect::Content),
        ImageOp::SetCapability => ("file capabilities set", "", Aspect::Capabilities),
        ImageOp::Utimes => ("timestamps changed", "", Aspect::Timestamps),
    }
}

/// What was done to a file, in a message.
pub(super) fn verb(op: ImageOp) -> &'static str {
    describe(op).0
}

pub(super) fn detect(change: &ImageChange, actor: Option<&Actor>, container: &TrackedContainer) -> Assessment {
    let detail = change.detail.as_ref();
    let paths = || detail.into_iter().flat_map(|detail| [Some(&detail.path), detail.new_path.as_ref()]).flatten();
    let place = paths().map(|path| Place::of(&path.bytes)).max().unwrap_or(Place::Other);
    let configures = actor.is_some_and(|actor| actor.process.origin == Origin::Entered)
        && paths().any(|path| path.bytes.starts_with(CONFIGURATION));
    let mut file = describe::changed_file(&change.file, detail, Some(Op::Image(change.op)));
    file.bytes = (change.bytes > 0).then_some(change.bytes);
    if change.op.reports_directory() {
        (file.inode, file.mode) = (None, None);
    }
    // Symbolic links and most sockets have all permissions, and nobody can execute them.
    let is_regular = change.file.mode & libc::S_IFMT == libc::S_IFREG;
    let is_executable = change.file.mode & 0o111 != 0 && is_regular;
    let (_, _, aspect) = describe(change.op);
    let gives_power = match aspect {
        Aspect::Capabilities => true,
        Aspect::Access => change.op == ImageOp::Chmod && change.file.mode & SET_ID != 0 && is_executable,
        Aspect::Content | Aspect::Existence | Aspect::Timestamps => false,
    };
    let is_program = is_executable || place == Place::Program;
    let rule = match place {
        _ if gives_power => SeverityRule::WriteOfPrivileges,
        _ if is_program => SeverityRule::WriteOfProgram,
        Place::Program => SeverityRule::WriteOfProgram,
        Place::Control => SeverityRule::WriteOfControl,
        Place::Other if configures => SeverityRule::WriteOfConfiguration,
        Place::Scratch => SeverityRule::WriteOfScratch,
        Place::Other => SeverityRule::Write,
    };
    let is_new = change.file.layer == Some(Layer::New);
    Assessment {
        rule,
        message: message(change, container, actor),
        file: Some(file),
        mitre: match aspect {
            _ if gives_power => &["T1548.001"],
            Aspect::Timestamps => &["T1070.006"],
            Aspect::Existence => &["T1070.004"],
            Aspect::Access | Aspect::Capabilities => &["T1222.002"],
            Aspect::Content => match (is_program, is_new) {
                (true, false) => &["T1554"],
                (true, true) if place == Place::Program => &["T1036.005"],
                (false, false) => &["T1565.001"],
                (_, true) => &[],
            },
        },
    }
}

fn message(change: &ImageChange, container: &TrackedContainer, actor: Option<&Actor>) -> String {
    let detail = change.detail.as_ref();
    let path = match detail {
        None if change.op.reports_directory() => format!("an entry of the directory with inode {}", change.file.inode),
        detail => describe::path_or_inode(detail, &change.file),
    };
    let (done, preposition, _) = describe(change.op);
    let mut what = format!("{path} {done}{}", if change.op == ImageOp::Mknod { node(change.file.mode) } else { "" });
    if let Some(new_path) = detail.and_then(|detail| detail.new_path.as_ref()) {
        what += &format!(" {preposition} {}", describe::text(&new_path.bytes));
    } else if change.op == ImageOp::Chmod && detail.is_some() {
        what += &format!(" {preposition} {}", Mode::from_st_mode(change.file.mode));
    }
    describe::message(&what, container, actor)
}

/// What is created with mknod(2) or bind(2), in a message. A regular file is not named.
fn node(mode: u32) -> &'static str {
    match mode & libc::S_IFMT {
        libc::S_IFSOCK => " as a socket",
        libc::S_IFIFO => " as a FIFO",
        libc::S_IFBLK => " as a block device",
        libc::S_IFCHR => " as a character device",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use super::*;
    use crate::event::Event;
    use crate::finding::{Finding, Severity};

    fn finding(change: &ImageChange) -> Finding {
        found(Event::ImageChange(Box::new(change.clone()))).expect("every change of an image is a finding")
    }

    #[test]
    fn severity_and_technique() {
        use Severity::*;
        for (path, mode, layer, severity, technique) in [
            ("/usr/bin/ls", 0o755, Layer::Lower, High, Some("T1554")),
            ("/usr/bin/miner", 0o644, Layer::New, High, Some("T1036.005")),
            ("/usr/lib/x86_64-linux-gnu/libc.so.6", 0o644, Layer::Lower, High, Some("T1554")),
            ("/srv/run.py", 0o755, Layer::Upper, High, Some("T1554")),
            ("/tmp/x", 0o700, Layer::New, High, None),
            ("/etc/passwd", 0o644, Layer::Lower, High, Some("T1565.001")),
            ("/etc/ld.so.preload", 0o644, Layer::New, High, None),
            ("/etc/sudoers.d/x", 0o440, Layer::New, High, None),
            ("/etc/app.conf", 0o644, Layer::Lower, Medium, Some("T1565.001")),
            ("/etc/passwd.d", 0o644, Layer::Lower, Medium, Some("T1565.001")),
            ("/srv/new", 0o644, Layer::New, Medium, None),
            ("/srv/bin", 0o644, Layer::New, Medium, None),
            ("/var/lib/app/state", 0o644, Layer::Lower, Medium, Some("T1565.001")),
            ("/tmp/x", 0o600, Layer::New, Low, None),
            ("/var/log/app.log", 0o644, Layer::Upper, Low, Some("T1565.001")),
        ] {
            let op = if layer == Layer::New { ImageOp::Create } else { ImageOp::OpenWrite };
            let finding = finding(&change(op, layer, 0o100000 | mode, path));
            assert_eq!(finding.severity, severity, "{path}");
            assert_eq!(finding.mitre.first().map(AsRef::as_ref), technique, "{path}");
        }
    }

    #[test]
    fn configuration_is_not_changed_from_outside() {
        use Severity::*;
        for (origin, path, new_path, severity) in [
            (Origin::Entered, "/etc/app.conf", None, High),
            (Origin::Entered, "/etc/nginx/sedAbC", Some("/etc/nginx/nginx.conf"), High),
            (Origin::Entered, "/srv/app.conf", Some("/etc/app.conf"), High),
            (Origin::Entered, "/srv/etc/app.conf", None, Medium),
            (Origin::Entered, "/tmp/app.conf", None, Low),
            (Origin::Entrypoint, "/etc/app.conf", None, Medium),
            (Origin::Application, "/etc/app.conf", None, Medium),
            (Origin::Outside, "/etc/app.conf", None, Medium),
        ] {
            let mut change = change(ImageOp::Rename, Layer::Upper, 0o100644, path);
            let detail = change.detail.as_mut().expect("the sample has it");
            detail.new_path = new_path.map(super::super::samples::path);
            detail.process.origin = origin;
            assert_eq!(finding(&change).severity, severity, "{origin:?} {path}");
        }
    }

    #[test]
    fn only_regular_files_are_programs() {
        for (kind, op, severity, technique) in [
            (libc::S_IFREG, ImageOp::Rename, Severity::High, "T1554"),
            (libc::S_IFLNK, ImageOp::Rename, Severity::Medium, "T1565.001"),
            (libc::S_IFSOCK, ImageOp::Unlink, Severity::Medium, "T1070.004"),
            (libc::S_IFSOCK, ImageOp::Chmod, Severity::Medium, "T1222.002"),
            (libc::S_IFDIR, ImageOp::Chmod, Severity::Medium, "T1222.002"),
        ] {
            let finding = finding(&change(op, Layer::Upper, kind | 0o6777, "/var/lib/app/entry"));
            assert_eq!((finding.severity, finding.mitre[0].as_ref()), (severity, technique), "{op:?} of {kind:o}");
        }
    }

    #[test]
    fn each_operation_has_its_message() {
        for (op, new_path, expected) in [
            (ImageOp::Truncate, None, "truncated"),
            (ImageOp::Link, Some("/tmp/x"), "hard link created at /tmp/x"),
            (ImageOp::Rename, Some("/tmp/x"), "renamed to /tmp/x"),
            (ImageOp::Exchange, Some("/tmp/x"), "exchanged with /tmp/x"),
            (ImageOp::Chmod, None, "permissions changed to 4755"),
            (ImageOp::Chown, None, "ownership changed"),
            (ImageOp::SetAcl, None, "access control list changed"),
            (ImageOp::SetXattr, None, "extended attribute set"),
            (ImageOp::Utimes, None, "timestamps changed"),
        ] {
            let mut change = change(op, Layer::Lower, 0o104755, "/etc/app.conf");
            let detail = change.detail.as_mut().expect("the sample has it");
            detail.new_path = new_path.map(path);
            let message = format!("/etc/app.conf {expected} in container 3f2a0c6d9e1b by python3.12");
            assert_eq!(finding(&change).message, message);
        }
    }

    #[test]
    fn a_message_says_who_acted_from_outside() {
        for (origin, expected) in [
            (Origin::Outside, " by python3.12 (from outside)"),
            (Origin::Entered, " by python3.12 (entered from outside)"),
            (Origin::Entrypoint, " by python3.12"),
        ] {
            let mut change = change(ImageOp::Write, Layer::Lower, 0o100644, "/etc/app.conf");
            change.detail.as_mut().expect("the sample has it").process.origin = origin;
            assert!(finding(&change).message.ends_with(expected));
        }
    }

    #[test]
    fn what_was_lost_is_left_out() {
        for (op, subject) in [
            (ImageOp::Rename, "the file with inode 101 renamed"),
            (ImageOp::Chmod, "the file with inode 101 permissions changed"),
            (ImageOp::Symlink, "an entry of the directory with inode 101 created as a symbolic link"),
        ] {
            let mut change = change(op, Layer::Upper, 0, "");
            (change.file.nlink, change.detail) = (0, None);
            let finding = finding(&change);
            assert_eq!(finding.message, format!("{subject} in container 3f2a0c6d9e1b"));
            assert_eq!(finding.process, None);
            let file = finding.file.expect("every change has one");
            assert_eq!((file.path, file.mode, file.deleted), (None, None, false));
            assert_eq!(file.inode.is_none(), op.reports_directory());
        }
    }
}
