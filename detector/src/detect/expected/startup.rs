//! `startup`: the entrypoint sets the container up before it serves anybody.
//!
//! **Facts**: the process belongs to what the container has started, and to no session. The first exec of the
//! container was at most a minute ago, and since then nobody in it has accepted a connection, and nobody has come into
//! it from outside. A connection is the container's own, and does not count, if both ends have the same IP address, no
//! other container is in this network namespace, and the container is in the host's user namespace. Where no hook sees
//! who accepts connections, the first listen(2) counts instead. The change is one of [data], at any place that is not
//! for programs or libraries and does not control access or what is started. Or a program in a lower layer of the
//! container's root is executed that is a shell, and that takes its commands neither from a terminal nor from a socket.
//!
//! **Never**: code, credentials and what decides what is started, by their names and as for `scratch`, except that
//! directories with the name `conf.d` have configuration; renames of directories, whatever is in them; what a process
//! does that is started again later, because the container is no younger then. There is no start-up in a container of
//! which the first exec or the first connection may not have been seen: in one that ran before the detector did, where
//! no hook sees either, and in all that run when a record is lost.

use super::super::describe::base_name;
use super::super::pace::SECOND;
use super::super::place::Place;
use super::data;
use super::health_check::{is_of_image, is_ordinary_shell};
use super::spans::Spans;
use crate::container::table::TrackedContainer;
use crate::event::{Event, ImageChange, ImageOp, Origin, Path, ServingSign};
use crate::finding::Finding;

/// How long a start-up lasts at most.
const LONGEST: u64 = 60 * SECOND;

/// The beginnings of other paths at which something decides what is started, who may do what, or who is trusted.
const NEVER: &[&[u8]] = &[
    b"/etc/alternatives",
    b"/etc/anacrontab",
    b"/etc/bash.bashrc",
    b"/etc/ca-certificates",
    b"/etc/conf.d",
    b"/etc/csh.",
    b"/etc/doas.conf",
    b"/etc/environment",
    b"/etc/inetd.conf",
    b"/etc/inittab",
    b"/etc/ld.so.",
    b"/etc/login.defs",
    b"/etc/modules",
    b"/etc/nsswitch.conf",
    b"/etc/pki",
    b"/etc/rc.local",
    b"/etc/runit",
    b"/etc/s6",
    b"/etc/securetty",
    b"/etc/security",
    b"/etc/service/",
    b"/etc/shells",
    b"/etc/ssl",
    b"/etc/subgid",
    b"/etc/subuid",
    b"/etc/supervisor",
    b"/etc/sv/",
    b"/etc/zsh",
    b"/var/spool",
];

/// The containers that are starting.
#[derive(Debug)]
pub(super) struct Startups {
    spans: Spans,
    /// What shows that any of them serves others.
    sign: ServingSign,
}

impl Default for Startups {
    fn default() -> Self {
        Self::until(ServingSign::Listen)
    }
}

impl Startups {
    /// No container, and the sign of those to come.
    fn until(sign: ServingSign) -> Self {
        Self { spans: Spans::new(super::MOST), sign }
    }

    /// Records that a container starts, and what will show that it serves others. If this differs, other containers
    /// may serve unseen, so that their start-ups end.
    pub(super) fn begin(&mut self, container: &TrackedContainer, sign: ServingSign) {
        if sign != self.sign {
            *self = Self::until(sign);
        }
        self.spans.begin(container, LONGEST);
    }

    /// Ends the start-up of the container if the event shows that it serves somebody, or that somebody has come into
    /// it. `is_own`: whether the process that acts belongs to what the container has started.
    pub(super) fn take(&mut self, event: &Event, is_own: bool, container: &TrackedContainer) {
        let serves = match event {
            Event::Accept(_) => true,
            Event::Listen(_) => self.sign == ServingSign::Listen,
            _ => false,
        };
        if serves || is_from_outside(event, is_own) {
            self.spans.end(container, event.time());
        }
    }

    /// Whether the container was starting at this time.
    pub(super) fn has(&mut self, container: &TrackedContainer, time: u64) -> bool {
        self.spans.has(container, time)
    }
}

/// Whether the event shows that somebody has come into the container. `is_own`: whether the process that acts belongs
/// to what the container has started.
pub(super) fn is_from_outside(event: &Event, is_own: bool) -> bool {
    !is_own && (matches!(event, Event::Exit(_)) || event.actor().is_some())
}

/// Whether an event in a starting container, about which there are these findings, is expected.
pub(super) fn covers(event: &Event, findings: &[Finding], container: &TrackedContainer) -> bool {
    match event {
        Event::ImageChange(change) => sets_up(change),
        // The entrypoint itself is info anyway.
        Event::Exec(exec) => {
            exec.process.origin == Origin::Application
                && is_of_image(exec, container)
                && findings.iter().all(is_ordinary_shell)
        }
        _ => false,
    }
}

fn sets_up(change: &ImageChange) -> bool {
    let Some(detail) = &change.detail else { return false };
    let is_directory = change.file.mode & libc::S_IFMT == libc::S_IFDIR;
    data::is_data(change)
        && !(is_directory && change.op == ImageOp::Rename)
        && [Some(&detail.path), detail.new_path.as_ref()].into_iter().flatten().all(is_for_configuration)
}

/// Whether configuration or data can be at the path.
fn is_for_configuration(path: &Path) -> bool {
    let bytes = path.bytes.to_ascii_lowercase();
    // In this directory there are many kinds of configuration, most of which start nothing.
    let mut names = bytes.split(|&byte| byte == b'/').filter(|&name| name != b"conf.d");
    matches!(Place::of_tree(&bytes), Place::Scratch | Place::Other)
        && !path.truncated
        && !NEVER.iter().any(|start| bytes.starts_with(start))
        && !data::is_code(base_name(&bytes))
        && !names.any(data::is_control)
}

#[cfg(test)]
mod tests {
    use super::super::super::samples::{self, change, container, exec};
    use super::*;
    use crate::event::{At, Exit, Layer, Serving, Session, Via};

    const START: u64 = 100 * SECOND;

    fn started() -> TrackedContainer {
        TrackedContainer { started: Some(START), root_dev: Some(45), ..container() }
    }

    fn at(time: u64) -> At {
        At { time, number: 1, cgroup: 501, container: 500 }
    }

    fn written(time: u64) -> Event {
        let mut change = change(ImageOp::Create, Layer::New, 0o100644, "/etc/app.conf");
        change.at.time = time;
        Event::ImageChange(Box::new(change))
    }

    #[test]
    fn a_start_up_ends() {
        let session = Session { start_time: 70, pid: 1234, via: Via::Exec };
        let exit = Exit { at: at(START + 3), session, start_time: 70, pid: 1234, status: 0, is_last: true };
        let lost = {
            let mut change = change(ImageOp::Create, Layer::New, 0, "/etc/app.conf");
            (change.detail, change.at.time) = (None, START + 3);
            Event::ImageChange(Box::new(change))
        };
        let serving = Serving { at: at(START + 3), start_time: 70, pid: 1234 };
        for (sign, event, is_own, end) in [
            (ServingSign::Accept, Event::Accept(serving), false, START + 3),
            (ServingSign::Accept, Event::Listen(serving), false, START + LONGEST),
            (ServingSign::Listen, Event::Listen(serving), false, START + 3),
            (ServingSign::Accept, Event::Exit(exit), false, START + 3),
            (ServingSign::Accept, written(START + 3), false, START + 3),
            (ServingSign::Accept, written(START + 3), true, START + LONGEST),
            // Nobody knows who did it, and so it ends more than this.
            (ServingSign::Accept, lost, false, START + LONGEST),
        ] {
            let mut startups = Startups::default();
            startups.begin(&started(), sign);
            startups.take(&event, is_own, &started());
            for (time, is_starting) in [(START, true), (end - 1, true), (end, false), (end + 1, false)] {
                assert_eq!(startups.has(&started(), time), is_starting, "{event:?} {time}");
            }
            // Nothing makes it longer, and it is that of one container.
            startups.take(&Event::Accept(Serving { at: at(u64::MAX), ..serving }), false, &started());
            assert!(!startups.has(&started(), end));
            assert!(!startups.has(&TrackedContainer { cgroup_id: 7, ..started() }, START));
        }
    }

    #[test]
    fn a_start_up_ends_if_it_is_not_seen_any_more_who_serves() {
        let mut startups = Startups::default();
        startups.begin(&started(), ServingSign::Accept);
        startups.begin(&TrackedContainer { cgroup_id: 7, ..started() }, ServingSign::Accept);
        assert!(startups.has(&started(), START));
        startups.begin(&TrackedContainer { cgroup_id: 8, ..started() }, ServingSign::Listen);
        assert!(!startups.has(&started(), START));
    }

    #[test]
    fn a_container_of_which_the_start_is_not_known_has_none() {
        let mut startups = Startups::default();
        startups.begin(&TrackedContainer { started: None, ..started() }, ServingSign::Accept);
        assert!(!startups.has(&started(), 0));
    }

    #[test]
    fn what_sets_a_container_up() {
        for (op, mode, path, expected) in [
            (ImageOp::OpenWrite, 0o100644, "/etc/app.conf", true),
            (ImageOp::Create, 0o100644, "/etc/nginx/conf.d/default.conf", true),
            (ImageOp::Chown, 0o100644, "/var/lib/app/state", true),
            (ImageOp::Mkdir, 0o040755, "/var/lib/app", true),
            (ImageOp::Unlink, 0o100644, "/srv/site/index.html", true),
            (ImageOp::Rename, 0o100644, "/etc/app.conf.new", true),
            // Programs, libraries and scripts.
            (ImageOp::OpenWrite, 0o100755, "/srv/app", false),
            (ImageOp::Chmod, 0o100755, "/srv/app", false),
            (ImageOp::Create, 0o100644, "/usr/bin/x", false),
            (ImageOp::Create, 0o100644, "/opt/app/lib/x", false),
            (ImageOp::Create, 0o100644, "/srv/x.so", false),
            (ImageOp::OpenWrite, 0o100644, "/srv/site/config.php", false),
            (ImageOp::OpenWrite, 0o100644, "/srv/run.sh", false),
            (ImageOp::Rename, 0o040755, "/srv/app", false),
            (ImageOp::Chmod, 0o040777, "/usr/local/bin", false),
            // Credentials, and who is trusted.
            (ImageOp::OpenWrite, 0o100644, "/etc/passwd", false),
            (ImageOp::Create, 0o100600, "/root/.ssh/authorized_keys", false),
            (ImageOp::Create, 0o100600, "/srv/app/.env", false),
            (ImageOp::OpenWrite, 0o100644, "/etc/ssl/openssl.cnf", false),
            (ImageOp::Create, 0o100644, "/srv/ca.crt", false),
            (ImageOp::OpenWrite, 0o100644, "/etc/sudoers", false),
            (ImageOp::OpenWrite, 0o100644, "/etc/nsswitch.conf", false),
            // What is started.
            (ImageOp::Create, 0o100644, "/etc/cron.d/x", false),
            (ImageOp::Create, 0o100644, "/etc/profile.d/x", false),
            (ImageOp::Create, 0o100644, "/etc/conf.d/x", false),
            (ImageOp::Create, 0o100644, "/etc/supervisor/conf.d/x.conf", false),
            (ImageOp::OpenWrite, 0o100644, "/root/.bashrc", false),
            (ImageOp::OpenWrite, 0o100644, "/etc/ld.so.cache", false),
            (ImageOp::Create, 0o100644, "/var/spool/cron/crontabs/root", false),
            // What leads elsewhere, and what can be anywhere.
            (ImageOp::Symlink, 0o040755, "/etc/localtime", false),
            (ImageOp::Mknod, 0o010644, "/etc/fifo", false),
            (ImageOp::SetCapability, 0o100644, "/srv/x", false),
        ] {
            let event = Event::ImageChange(Box::new(change(op, Layer::Upper, mode, path)));
            assert_eq!(covers(&event, &[], &started()), expected, "{op:?} {mode:o} {path}");
        }
    }

    #[test]
    fn both_paths_of_a_rename_count_and_what_is_not_known_is_not_expected() {
        let mut renamed = change(ImageOp::Rename, Layer::Upper, 0o100644, "/etc/new");
        let detail = renamed.detail.as_mut().expect("the sample has it");
        detail.new_path = Some(samples::path("/etc/app.conf"));
        assert!(sets_up(&renamed));
        renamed.detail.as_mut().expect("it has it").new_path = Some(samples::path("/etc/passwd"));
        assert!(!sets_up(&renamed));
        renamed.detail.as_mut().expect("it has it").new_path.as_mut().expect("it has it").truncated = true;
        assert!(!sets_up(&renamed));
        assert!(!sets_up(&crate::event::ImageChange { detail: None, ..renamed }));
        let mut linked = change(ImageOp::OpenWrite, Layer::Upper, 0o100644, "/etc/app.conf");
        linked.file.nlink = 2;
        assert!(!sets_up(&linked));
    }

    #[test]
    fn only_shells_of_the_image_are_run() {
        let sample = exec(Origin::Application, "/bin/dash", &["sh", "-c", "true"]);
        let run = |exec: &crate::event::Exec| covers(&Event::Exec(Box::new(exec.clone())), &[], &started());
        assert!(run(&sample));
        for change in [
            |exec: &mut crate::event::Exec| exec.file.layer = Some(Layer::Upper),
            |exec| exec.file.layer = None,
            |exec| exec.file.dev = 46,
            |exec| exec.process.origin = Origin::Entrypoint,
        ] as [fn(&mut crate::event::Exec); 4]
        {
            let mut other = sample.clone();
            change(&mut other);
            assert!(!run(&other), "{other:?}");
        }
    }
}
