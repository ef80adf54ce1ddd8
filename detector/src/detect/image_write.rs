//! `image_write`: a file of a container's image was changed, or one was added.
//!
//! **How severe**, the first that fits:
//!
//! | severity | when |
//! |---|---|
//! | high | the file is a program: it may be executed, or lies in a directory of programs or libraries |
//! | high | the file decides who may do what, or what is started ([`CONTROL`]) |
//! | low | a file in a directory that is there to be written to ([`SCRATCH`]) |
//! | medium | anything else |
//!
//! **MITRE ATT&CK**: what one event shows, and no more. A program that the image has: T1554 (compromise of a software
//! binary). A new one among programs and libraries: T1036.005 (takes a legitimate name or place). Another file that the
//! image has: T1565.001 (manipulation of stored data). Another new file: none. Not T1525: that is about images in a
//! registry.

use super::{Context, Program, Verdict, describe};
use crate::container::table::Container;
use crate::event::{ImageWrite, Layer, Op, Origin};
use crate::finding::{Kind, Severity};

/// Directories of programs and libraries, wherever they are.
const PROGRAMS: &[&[u8]] = &[b"bin", b"sbin", b"lib", b"lib32", b"lib64", b"libx32", b"libexec"];

/// Files, and directories (with a slash at the end), that decide who may do what, or what is started.
const CONTROL: &[&[u8]] = &[
    b"/etc/cron.d/",
    b"/etc/cron.daily/",
    b"/etc/cron.hourly/",
    b"/etc/crontab",
    b"/etc/group",
    b"/etc/gshadow",
    b"/etc/init.d/",
    b"/etc/ld.so.conf",
    b"/etc/ld.so.conf.d/",
    b"/etc/ld.so.preload",
    b"/etc/pam.d/",
    b"/etc/passwd",
    b"/etc/profile",
    b"/etc/profile.d/",
    b"/etc/shadow",
    b"/etc/ssh/",
    b"/etc/sudoers",
    b"/etc/sudoers.d/",
    b"/etc/systemd/system/",
    b"/root/.ssh/",
    b"/var/spool/cron/",
];

/// Directories that are there to be written to. In a container they should be volumes.
const SCRATCH: &[&[u8]] = &[b"/run/", b"/tmp/", b"/var/cache/", b"/var/log/", b"/var/run/", b"/var/tmp/"];

pub(super) fn detect(
    write: &ImageWrite,
    program: Option<&Program>,
    container: &Container,
    context: &Context,
) -> Verdict {
    let path = write.path.as_ref().map_or(&[] as &[u8], |path| &path.bytes);
    let is_program = write.file.mode & 0o111 != 0 || among_programs(path);
    let severity = match () {
        () if is_program || is_in(path, CONTROL) => Severity::High,
        () if is_in(path, SCRATCH) => Severity::Low,
        () => Severity::Medium,
    };
    let is_new = write.op == Op::Create || write.file.layer == Some(Layer::New);
    let bytes = (write.bytes > 0).then_some(write.bytes);
    Verdict {
        finding: Kind::ImageWrite,
        severity,
        message: message(write, container),
        process: write
            .process
            .as_ref()
            .map(|process| describe::process(process, write.exe.as_ref(), program.map(describe::known), context)),
        file: describe::file(&write.file, write.path.as_ref(), Some(write.op), bytes),
        mitre: match (is_program, is_new) {
            (true, false) => &["T1554"],
            (true, true) if among_programs(path) => &["T1036.005"],
            (false, false) => &["T1565.001"],
            (_, true) => &[],
        },
    }
}

/// Below a directory of programs or libraries; `/var/lib` is none, it holds data.
fn among_programs(path: &[u8]) -> bool {
    let path = path.strip_prefix(b"/var/lib/").unwrap_or(path);
    let mut directories = path.split(|&byte| byte == b'/');
    directories.next_back();
    directories.any(|name| PROGRAMS.contains(&name))
}

fn is_in(path: &[u8], list: &[&[u8]]) -> bool {
    list.iter().any(|&place| if place.ends_with(b"/") { path.starts_with(place) } else { path == place })
}

fn message(write: &ImageWrite, container: &Container) -> String {
    let file = match &write.path {
        Some(path) => describe::text(&path.bytes).to_string(),
        None => format!("the file of inode {}", write.file.inode),
    };
    let done = match write.op {
        Op::OpenWrite => "opened for writing",
        Op::Truncate => "opened and emptied",
        Op::Create => "created",
        Op::Write => "written",
    };
    let who = match &write.exe {
        Some(exe) => format!(" by {}", describe::text(describe::base_name(&exe.bytes))),
        None => String::new(),
    };
    let origin = match write.process.as_ref().map(|process| process.origin) {
        Some(Origin::Outside) => " (from outside)",
        Some(Origin::Entered) => " (entered from outside)",
        Some(Origin::Entrypoint | Origin::Application) | None => "",
    };
    format!("{file} {done} in {}{who}{origin}", describe::container_name(container))
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use super::*;
    use crate::event::Event;
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
        assert_eq!(message(&write), "/etc/app.conf opened and emptied in container 3f2a0c6d9e1b by python3.12");
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
