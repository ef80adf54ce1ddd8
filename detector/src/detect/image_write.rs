//! `image_write`: a file or directory of a container's image was changed, removed or replaced, or one was added.
//!
//! **How severe**, the first that fits, for the path that matters more if there are two:
//!
//! | severity | when |
//! |---|---|
//! | high | the file got capabilities, or the set-id bits that let it act as its owner |
//! | high | the file is a program: it may be executed, or lies in a directory of programs or libraries |
//! | high | the file decides who may do what, or what is started (`place::CONTROL`) |
//! | low | a file in a directory that is there to be written to (`place::SCRATCH`) |
//! | medium | anything else |
//!
//! **MITRE ATT&CK**: what one event shows, and no more. Capabilities and set-id bits: T1548.001. Times set: T1070.006.
//! Permissions, owner, access list or flags changed: T1222.002. Removed: T1070.004. Content of a program that the image
//! has, or another file in its place: T1554 (compromise of a software binary). A new one among programs and libraries:
//! T1036.005 (takes a legitimate name or place). Another file that the image has: T1565.001 (manipulation of stored data).
//! Another new file: none. Not T1525: that is about images in a registry.

use super::place::Place;
use super::{Context, Program, Verdict, describe};
use crate::container::table::Container;
use crate::event::{ImageWrite, Layer, Op};
use crate::finding::{Kind, Mode, Severity};

/// `S_ISUID | S_ISGID`.
const SET_ID: u32 = 0o6000;

pub(super) fn detect(
    write: &ImageWrite,
    program: Option<&Program>,
    container: &Container,
    context: &Context,
) -> Verdict {
    let paths = [&write.path, &write.new_path];
    let place = paths.into_iter().flatten().map(|path| Place::of(&path.bytes)).max().unwrap_or(Place::Other);
    let is_directory = write.file.mode & libc::S_IFMT == libc::S_IFDIR;
    let is_executable = write.file.mode & 0o111 != 0 && !is_directory && !write.op.makes_without_open();
    let gives_power =
        write.op == Op::SetCapability || write.op == Op::Chmod && write.file.mode & SET_ID != 0 && is_executable;
    let is_program = is_executable || place == Place::Program;
    let severity = match place {
        _ if gives_power || is_program => Severity::High,
        Place::Program | Place::Control => Severity::High,
        Place::Scratch => Severity::Low,
        Place::Other => Severity::Medium,
    };
    Verdict {
        finding: Kind::ImageWrite,
        severity,
        message: message(write, container),
        process: describe::actor(write, program, context),
        file: Some(describe::changed_file(write)),
        mitre: if gives_power { &["T1548.001"] } else { techniques(write, place, is_program) },
    }
}

fn techniques(write: &ImageWrite, place: Place, is_program: bool) -> &'static [&'static str] {
    let is_new = write.op == Op::Create || write.op.makes_without_open() || write.file.layer == Some(Layer::New);
    match write.op {
        Op::Utimes => &["T1070.006"],
        Op::Chmod | Op::Chown | Op::SetAcl | Op::SetFlags => &["T1222.002"],
        Op::Unlink | Op::Rmdir => &["T1070.004"],
        _ => match (is_program, is_new) {
            (true, false) => &["T1554"],
            (true, true) if place == Place::Program => &["T1036.005"],
            (false, false) => &["T1565.001"],
            (_, true) => &[],
        },
    }
}

fn message(write: &ImageWrite, container: &Container) -> String {
    let file = match &write.path {
        Some(path) => describe::text(&path.bytes).to_string(),
        None if write.op.makes_without_open() => format!("something in the directory of inode {}", write.file.inode),
        None => format!("the file of inode {}", write.file.inode),
    };
    let mut done = match write.op {
        Op::OpenWrite => "opened for writing",
        Op::Truncate => "cut",
        Op::Create | Op::Mkdir | Op::Mknod | Op::Symlink => "created",
        Op::Write => "written",
        Op::Unlink | Op::Rmdir => "removed",
        Op::Link => "linked",
        Op::Rename => "renamed",
        Op::Exchange => "exchanged",
        Op::Chmod => "made",
        Op::Chown => "given another owner",
        Op::Utimes => "given other times",
        Op::SetXattr => "given an attribute",
        Op::RemoveXattr => "freed of an attribute",
        Op::SetCapability => "given capabilities",
        Op::SetAcl => "given another access list",
        Op::SetFlags => "given other flags",
        Op::CopyUp => "changed",
        Op::MmapWrite => "mapped for writing",
        // Not of this module.
        _ => "changed",
    }
    .to_owned();
    match (&write.new_path, write.op) {
        (Some(new), Op::Exchange) => done += &format!(" with {}", describe::text(&new.bytes)),
        (Some(new), _) => done += &format!(" to {}", describe::text(&new.bytes)),
        (None, Op::Chmod) => done += &format!(" {}", Mode::from_st_mode(write.file.mode)),
        (None, _) => {}
    }
    format!("{file} {done} in {}{}", describe::container_name(container), describe::by(write))
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use super::*;
    use crate::event::{Event, Origin};
    use crate::finding::Finding;

    fn found_write(write: ImageWrite) -> Finding {
        found(Event::ImageWrite(Box::new(write))).expect("every write is a finding")
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
            let op = if layer == Layer::New { Op::Create } else { Op::OpenWrite };
            let finding = found_write(write(op, layer, 0o100000 | mode, path));
            assert_eq!(finding.severity, severity, "{path}");
            assert_eq!(finding.mitre.first().map(AsRef::as_ref), technique, "{path}");
        }
    }

    #[test]
    fn messages() {
        let mut write = write(Op::Truncate, Layer::Lower, 0o100644, "/etc/app.conf");
        let message = |write: &ImageWrite| found_write(write.clone()).message;
        assert_eq!(message(&write), "/etc/app.conf cut in container 3f2a0c6d9e1b by python3.12");
        write.process.as_mut().expect("it has one").origin = Origin::Outside;
        assert!(message(&write).ends_with(" by python3.12 (from outside)"));
    }

    #[test]
    fn what_a_flood_swallowed_is_left_out() {
        let mut write = write(Op::Write, Layer::Upper, 0, "");
        write.file.nlink = 0;
        (write.process, write.path, write.exe) = (None, None, None);
        let finding = found_write(write);
        assert_eq!(finding.message, "the file of inode 101 written in container 3f2a0c6d9e1b");
        assert_eq!(finding.process, None);
        let file = finding.file.expect("every write has one");
        assert_eq!((file.path, file.mode, file.deleted), (None, None, false));
    }
}
