//! Recognises the canary of the [self-test](super::selftest) in the events.

use super::plan::{HOOKS, Proof};
use crate::event::{Detail, Event, File, ImageOp, Layer, MountOp, Origin, Process};
use crate::procfs::StartTime;

/// Recognises the events of the canary, and remembers which hooks they have verified.
///
/// The canary is identified by the path of its cgroup, which contains a random number, and then by its process. An
/// event is the canary's if this process has caused it in that cgroup. Other events from that cgroup are not.
#[derive(Debug)]
pub(super) struct Canary {
    cgroup_path: Vec<u8>,
    process: Option<CanaryProcess>,
    /// The device number of its image. 0 if it is not known.
    image: u32,
    seen: Vec<&'static str>,
    is_gone: bool,
}

#[derive(Debug)]
struct CanaryProcess {
    cgroup: u64,
    pid: u32,
    start_time: StartTime,
}

impl CanaryProcess {
    fn is(&self, process: &Process) -> bool {
        process.pid == self.pid && self.start_time.covers(process.start_time)
    }
}

impl Canary {
    /// A canary that will be in the cgroup with this path from the root of the hierarchy.
    pub(super) fn new(cgroup_path: Vec<u8>) -> Self {
        Self { cgroup_path, process: None, image: 0, seen: Vec::new(), is_gone: false }
    }

    /// Records which process the canary is.
    pub(super) fn started(&mut self, cgroup: u64, pid: u32, start_time: StartTime) {
        self.process = Some(CanaryProcess { cgroup, pid, start_time });
    }

    /// Records the device on which the canary's image is.
    pub(super) fn mounted(&mut self, image: u32) {
        self.image = image;
    }

    /// Takes an event of the canary, and records which hooks it verifies. Returns `false` if the event is not the
    /// canary's.
    pub(super) fn take(&mut self, event: &Event) -> bool {
        match event {
            Event::CgroupCreated(cgroup) if cgroup.path == self.cgroup_path => self.seen.push("cgroup_mkdir"),
            Event::CgroupRemoved(cgroup) if cgroup.path == self.cgroup_path => {
                self.seen.push("cgroup_rmdir");
                self.is_gone = true;
            }
            _ if !self.is_cause_of(event) => return false,
            Event::Exec(_) => self.seen.push("exec"),
            Event::Script(_) => self.seen.push("script"),
            Event::ImageChange(change) => {
                self.seen.extend(proven_by(change.detail.as_ref(), change.file.layer, Some(change.op)));
            }
            Event::MountChange(change) => match change.op {
                MountOp::Remount => self.seen.push("remount"),
                MountOp::MountSetattr => self.seen.push("mount_setattr_return"),
                _ => self.seen.extend(proven_by(change.detail.as_ref(), change.file.layer, None)),
            },
            Event::DeviceOpen(_) => self.seen.push("device"),
            // If the detector runs in a container, the canary leaves that one first.
            Event::CgroupEscape(escape) if escape.cgroup == self.cgroup_path => {}
            Event::CgroupEscape(_) => self.seen.push("cgroup_attach"),
            Event::MapExec(mapped) => self.seen.extend(proven_by(mapped.detail.as_ref(), mapped.file.layer, None)),
            Event::HandleOpen(_) => self.seen.push("handle"),
            Event::Listen(_) => self.seen.push("listen"),
            Event::Accept(_) => self.seen.push("accept"),
            Event::ControlOpen(_)
            | Event::Tampering(_)
            | Event::HostExec(_)
            | Event::Interpret(_)
            | Event::Exit(_)
            | Event::CgroupCreated(_)
            | Event::CgroupRemoved(_) => {}
        }
        true
    }

    /// Whether the canary has caused something that happened in a container.
    fn is_cause_of(&self, event: &Event) -> bool {
        let Some(canary) = &self.process else { return false };
        let enters = |event: &Event| matches!(event, Event::CgroupEscape(escape) if escape.cgroup == self.cgroup_path);
        if event.at().is_none_or(|at| at.container != canary.cgroup) && !enters(event) {
            return false;
        }
        let is_actor = |detail: &Option<Detail>| detail.as_ref().is_some_and(|detail| canary.is(&detail.process));
        match event {
            Event::Exec(exec) => canary.is(&exec.process),
            Event::MapExec(mapped) => is_actor(&mapped.detail),
            Event::Interpret(read) => canary.is(&read.detail.process),
            Event::ImageChange(change) => is_actor(&change.detail) || self.is_by_child(&change.file, &change.detail),
            Event::MountChange(change) => is_actor(&change.detail),
            Event::DeviceOpen(open) => is_actor(&open.detail),
            Event::ControlOpen(open) => is_actor(&open.detail),
            Event::HandleOpen(open) => is_actor(&open.detail),
            Event::HostExec(exec) => is_actor(&exec.detail),
            Event::Tampering(tampering) => canary.is(&tampering.process),
            Event::CgroupEscape(escape) => canary.is(&escape.process),
            Event::Exit(exit) => exit.session.pid == canary.pid && canary.start_time.covers(exit.session.start_time),
            Event::Listen(serving) | Event::Accept(serving) => {
                serving.pid == canary.pid && canary.start_time.covers(serving.start_time)
            }
            // All that the event contains of the process is its id, which is that of a child. But the file is the
            // canary's own.
            Event::Script(script) => self.image != 0 && script.file.dev == self.image,
            Event::CgroupCreated(_) | Event::CgroupRemoved(_) => false,
        }
    }

    /// Whether the canary's child has changed the file. The canary's child changes only the canary's own image; a
    /// change elsewhere was made by the child of another process.
    fn is_by_child(&self, file: &File, detail: &Option<Detail>) -> bool {
        let (Some(canary), Some(detail)) = (&self.process, detail) else { return false };
        detail.process.ppid == canary.pid && self.image != 0 && file.dev == self.image
    }

    /// Whether an event of the canary has verified this hook.
    pub(super) fn has_proven(&self, hook: &str) -> bool {
        self.seen.contains(&hook)
    }

    /// Whether the canary's cgroup has been removed. No event of the canary can follow then.
    pub(super) fn is_gone(&self) -> bool {
        self.is_gone
    }
}

/// The hooks that a change by the canary verifies: those of the act that the file is named after. Another hook reports
/// the change, in its own way, where the hook of the act does not fire: the copy-up that the act requires, or the write
/// that follows an open. This verifies only that other hook.
fn proven_by(detail: Option<&Detail>, layer: Option<Layer>, op: Option<ImageOp>) -> impl Iterator<Item = &'static str> {
    let file = detail.and_then(|detail| detail.path.bytes.rsplit(|&byte| byte == b'/').next());
    let hooks =
        HOOKS.iter().filter(move |hook| matches!(hook.proof, Proof::Record(act) if Some(act.as_bytes()) == file));
    let is_proven = move |hook: &&str| match *hook {
        // This change was noticed before the file was copied up, so it was noticed by the copy-up hook.
        "copy_up" => layer == Some(Layer::Lower),
        "open" => op != Some(ImageOp::Write),
        // A child is known to have come from outside only if its fork was seen.
        "fork" => detail.is_some_and(|detail| detail.process.origin == Origin::Entered),
        _ => op != Some(ImageOp::CopyUp),
    };
    hooks.map(|hook| hook.name).filter(is_proven)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::samples;
    use crate::event::{At, Cgroup, CgroupEscape};

    /// The canary, whose process is that of the samples.
    fn canary() -> Canary {
        let mut canary = Canary::new(b"/canary-1".into());
        let process = samples::process(Origin::Entrypoint);
        canary.started(500, process.pid, StartTime::of(process.start_time));
        canary
    }

    fn cgroup(path: &[u8]) -> Cgroup {
        Cgroup { time: 1, id: 500, path: path.into() }
    }

    #[test]
    fn what_the_canary_does_proves_hooks() {
        let mut canary = canary();
        let change = samples::change(ImageOp::Chmod, Layer::Lower, 0o644, "/image/setattr");
        let mut script = samples::script("/image/script");
        canary.mounted(script.file.dev);
        script.pid += 1;
        for (event, hook) in [
            (Event::CgroupCreated(cgroup(b"/canary-1")), "cgroup_mkdir"),
            (Event::Exec(Box::new(samples::exec(Origin::Entrypoint, "/proc/self/exe", &[]))), "exec"),
            (Event::ImageChange(Box::new(change)), "copy_up"),
            (Event::Script(Box::new(script)), "script"),
            (Event::CgroupRemoved(cgroup(b"/canary-1")), "cgroup_rmdir"),
        ] {
            assert!(!canary.has_proven(hook) && !canary.is_gone(), "{event:?}");
            assert!(canary.take(&event) && canary.has_proven(hook), "{event:?}");
        }
        assert!(canary.has_proven("setattr") && canary.is_gone());
    }

    #[test]
    fn it_enters_its_cgroup_from_that_of_the_detector() {
        let escape = |cgroup: &[u8], pid| {
            let mut process = samples::process(Origin::Application);
            process.pid = pid;
            Event::CgroupEscape(Box::new(CgroupEscape {
                at: At { time: 99, number: 3, cgroup: 500, container: 400 },
                process,
                exe: samples::path("/usr/bin/detector"),
                moved: pid,
                cgroup: cgroup.into(),
            }))
        };
        let mut canary = canary();
        let pid = samples::process(Origin::Entrypoint).pid;
        assert!(canary.take(&escape(b"/canary-1", pid)) && !canary.has_proven("cgroup_attach"));
        assert!(!canary.take(&escape(b"/canary-1", pid + 1)), "another process, which it cannot be");
        assert!(!canary.take(&escape(b"/", pid)), "out of another container, to another cgroup");
    }

    #[test]
    fn a_change_that_another_hook_reports_does_not_prove_the_hook_of_the_act() {
        for (op, path, hook, other) in [
            (ImageOp::CopyUp, "/image/setattr", "setattr", Some("copy_up")),
            (ImageOp::CopyUp, "/image/rename", "rename", None),
            (ImageOp::Write, "/image/open", "open", None),
        ] {
            let mut canary = canary();
            let change = samples::change(op, Layer::Lower, 0o644, path);
            assert!(canary.take(&Event::ImageChange(Box::new(change))), "{op:?} of {path}");
            assert!(!canary.has_proven(hook), "{op:?} of {path}");
            assert!(other.is_none_or(|other| canary.has_proven(other)), "{op:?} of {path}");
        }
    }

    #[test]
    fn a_child_proves_forks_if_its_origin_is_known() {
        let mut canary = canary();
        let change = |origin| {
            let mut change = samples::change(ImageOp::Mkdir, Layer::New, 0o755, "/image/fork");
            let detail = change.detail.as_mut().expect("a sample tells who did it");
            (detail.process.ppid, detail.process.pid, detail.process.origin) = (detail.process.pid, 4321, origin);
            change
        };
        let (unknown, known) = (change(Origin::Application), change(Origin::Entered));
        assert!(!canary.take(&Event::ImageChange(Box::new(known.clone()))), "its image is not known yet");
        canary.mounted(known.file.dev);
        assert!(canary.take(&Event::ImageChange(Box::new(unknown))) && !canary.has_proven("fork"));
        assert!(canary.take(&Event::ImageChange(Box::new(known.clone()))) && canary.has_proven("fork"));
        let mut elsewhere = known;
        elsewhere.file.dev += 1;
        assert!(!canary.take(&Event::ImageChange(Box::new(elsewhere))), "another file system's");
    }

    #[test]
    fn what_others_do_is_left_to_them() {
        let mut canary = canary();
        canary.mounted(1);
        let exec = || samples::exec(Origin::Entered, "/bin/sh", &["sh"]);
        let mut elsewhere = exec();
        elsewhere.at.container += 1;
        let mut other = exec();
        other.process.pid += 1;
        let mut later = exec();
        later.process.start_time += 1_000_000_000;
        for exec in [elsewhere, other, later] {
            assert!(!canary.take(&Event::Exec(Box::new(exec))));
        }
        assert!(!canary.take(&Event::Script(Box::new(samples::script("/image/script")))), "another file system's");
        assert!(!canary.take(&Event::CgroupCreated(cgroup(b"/canary-2"))));
        assert!(canary.seen.is_empty());
    }
}
