//! `image`: other containers of the same image have done the same after their start.
//!
//! **Facts**: an act as for [`startup`], except that the container may listen on a socket already. The first exec of
//! the container was at most ten minutes ago. Since then nobody has come into it from outside, no program was executed
//! in it that is not in a lower layer of its root, and there was no finding about anything but changes of files and
//! ordinary shells. Two other containers of the image have done the same: a process with the same user, the same
//! executable, arguments and working directory has done the same to a file with the same paths, type, permissions,
//! layer and size, or has executed the same shell with the same arguments. Each of the three was started ten seconds or
//! more after the one before had done that, so that nothing that is done to all of them at the same time counts twice.
//! Only a runtime can tell the image, so [`crate::runtime`] decides it when the runtime has answered.
//!
//! **Never**: what is never a start-up. What is written to a file is not known, only the size that the file had at that
//! moment. An act of which the arguments are not known in full, or the process is part of an installation or of a
//! session that only the detector knows.

use std::hash::{BuildHasher as _, RandomState};

use super::super::pace::SECOND;
use super::super::process::Program;
use super::health_check::is_of_image;
use super::spans::Spans;
use super::startup;
use crate::container::table::TrackedContainer;
use crate::event::{Event, Process};
use crate::finding::{Finding, Typical};

/// How long after its start a container can do what its image is known for.
const LONGEST: u64 = 600 * SECOND;

/// What containers do in which nobody has been, and only programs of their images were executed.
#[derive(Debug)]
pub(super) struct Acts {
    undisturbed: Spans,
    /// Makes a number of an act that nobody in a container can foresee.
    numbers: RandomState,
}

impl Acts {
    /// Remembers this many containers at most.
    pub(super) fn new(most: usize) -> Self {
        Self { undisturbed: Spans::new(most), numbers: RandomState::new() }
    }

    /// Records that a container starts.
    pub(super) fn begin(&mut self, container: &TrackedContainer) {
        self.undisturbed.begin(container, LONGEST);
    }

    /// Records that something was done in the container that may have changed what its programs do.
    pub(super) fn end(&mut self, container: &TrackedContainer, time: u64) {
        self.undisturbed.end(container, time);
    }

    /// Learns from an event whether somebody has come into the container, or another program runs in it. `is_own`:
    /// whether the process that acts belongs to what the container has started.
    pub(super) fn take(&mut self, event: &Event, is_own: bool, container: &TrackedContainer) {
        let is_end = match event {
            Event::Exec(exec) => !is_own || !is_of_image(exec, container),
            other => startup::is_from_outside(other, is_own),
        };
        if is_end {
            self.end(container, event.time());
        }
    }

    /// What the container of an event, about which there are these findings, does as its image may always do. `program`
    /// is that of the process that acts.
    pub(super) fn of(
        &mut self,
        event: &Event,
        program: Option<&Program>,
        findings: &[Finding],
        container: &TrackedContainer,
    ) -> Option<Typical> {
        let (process, _) = event.actor()?;
        let is_known = |program: &&Program| !program.args.truncated && !program.exe.truncated && !program.cwd.truncated;
        let program = program.filter(is_known)?;
        let is_one = self.undisturbed.has(container, event.time()) && startup::covers(event, findings, container);
        is_one.then_some(())?;
        let act = self.number(event, process, program)?;
        Some(Typical { acts: vec![act], started: container.started?, time: event.time() })
    }

    /// The number of an act, which is the same for all acts that are the same.
    fn number(&self, event: &Event, process: &Process, program: &Program) -> Option<u64> {
        let who = (process.uid, process.gid, &program.exe.bytes, &program.args.bytes, &program.cwd.bytes);
        let what = match event {
            Event::Exec(_) => None,
            Event::ImageChange(change) => {
                let (file, detail) = (&change.file, change.detail.as_ref()?);
                let new_path = detail.new_path.as_ref().map(|path| &path.bytes);
                Some((change.op.number(), file.mode, file.layer, file.size, change.bytes, &detail.path.bytes, new_path))
            }
            _ => return None,
        };
        Some(self.numbers.hash_one((who, what)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Detector;
    use super::super::super::samples::{self, args, change, container, context, exec, mapped, path};
    use super::*;
    use crate::event::{
        Exec, Exit, ImageChange, ImageOp, Layer, MountChange, MountOp, Origin, Serving, Session, StdioKind, Via,
    };
    use crate::finding::{Kind, Loss, NoticeEvent};

    const START: u64 = 100 * SECOND;

    fn started() -> TrackedContainer {
        TrackedContainer { started: Some(START), root_dev: Some(45), ..container() }
    }

    fn at(mut exec: Exec, time: u64) -> Event {
        exec.at.time = START + time;
        Event::Exec(Box::new(exec))
    }

    /// A container whose entrypoint is a program of the image, and a detector that has seen its start.
    fn starting() -> Detector {
        let mut detector = Detector::default();
        detector.start_container(&started());
        let exec = exec(Origin::Entrypoint, "/usr/bin/python3.12", &["python3", "app.py"]);
        detector.detect(&at(exec, 0), &started(), &context(), |_| {});
        detector
    }

    /// A change by the entrypoint, some time after its start.
    fn write(time: u64) -> ImageChange {
        let mut change = change(ImageOp::Create, Layer::New, 0o100_644, "/srv/state");
        change.at.time = START + time;
        change.detail.as_mut().expect("the sample has it").process.origin = Origin::Entrypoint;
        change
    }

    fn found(detector: &mut Detector, event: &Event) -> Vec<Finding> {
        let mut all = Vec::new();
        detector.detect(event, &started(), &context(), |finding| all.push(finding));
        all
    }

    /// What the act is, if it can be one of the image.
    fn typical(detector: &mut Detector, event: &Event) -> Option<Typical> {
        let all = found(detector, event);
        let act = all.into_iter().find(|finding| finding.finding != Kind::Session).expect("there is one");
        assert_eq!(act.expected, None);
        act.typical.map(|typical| *typical)
    }

    fn of(detector: &mut Detector, change: &ImageChange) -> Option<Typical> {
        typical(detector, &Event::ImageChange(Box::new(change.clone())))
    }

    #[test]
    fn what_an_entrypoint_does_after_it_listens() {
        let mut detector = starting();
        let listen = Event::Listen(Serving { at: write(1).at, start_time: 70, pid: 1234 });
        assert!(found(&mut detector, &listen).is_empty());
        let act = of(&mut detector, &write(5)).expect("it can be of the image");
        assert_eq!((act.acts.len(), act.started, act.time), (1, START, START + 5));
        let mut shell = exec(Origin::Application, "/bin/dash", &["sh", "-c", "true"]);
        shell.process.pid = 1300;
        let shell = typical(&mut detector, &at(shell, 6)).expect("it can be of the image");
        assert_ne!(shell.acts, act.acts);
        // Long after its start, it is not.
        assert!(of(&mut detector, &write(LONGEST - 1)).is_some());
        assert_eq!(of(&mut detector, &write(LONGEST)), None);
    }

    #[test]
    fn acts_that_differ_have_other_numbers() {
        let mut detector = starting();
        let first = of(&mut detector, &write(5)).expect("it can be of the image").acts;
        let mut later = write(50);
        (later.at.number, later.file.inode, later.file.dev) = (9, 200, 46);
        later.detail.as_mut().expect("it has it").process.pid = 1234;
        assert_eq!(of(&mut detector, &later).map(|act| act.acts), Some(first.clone()), "another container");
        for change in [
            |change: &mut ImageChange| change.op = ImageOp::OpenWrite,
            |change| change.file.mode = 0o100_600,
            |change| change.file.layer = Some(Layer::Upper),
            |change| change.file.size += 1,
            |change| change.bytes += 1,
            |change| change.detail.as_mut().expect("it has it").path = path("/srv/other"),
            |change| change.detail.as_mut().expect("it has it").new_path = Some(path("/srv/other")),
            |change| change.detail.as_mut().expect("it has it").process.uid = 33,
            |change| change.detail.as_mut().expect("it has it").process.gid = 33,
        ] as [fn(&mut ImageChange); 9]
        {
            let mut other = write(5);
            change(&mut other);
            let other = of(&mut detector, &other).expect("it can be of the image").acts;
            assert_ne!(other, first);
        }
        for change in [|exec: &mut Exec| exec.args = args(&["python3", "other.py"]), |exec| exec.cwd = path("/tmp")]
            as [fn(&mut Exec); 2]
        {
            let mut other = exec(Origin::Entrypoint, "/usr/bin/python3.12", &["python3", "app.py"]);
            change(&mut other);
            found(&mut detector, &at(other, 1));
            assert_ne!(of(&mut detector, &write(5)).expect("it can be of the image").acts, first);
        }
    }

    #[test]
    fn what_is_not_known_in_full_is_of_no_image() {
        for change in [
            |exec: &mut Exec| exec.args.truncated = true,
            |exec| exec.cwd.truncated = true,
            |exec| exec.exe.truncated = true,
        ] as [fn(&mut Exec); 3]
        {
            let (mut detector, mut other) = (starting(), exec(Origin::Entrypoint, "/usr/bin/python3.12", &["x"]));
            change(&mut other);
            found(&mut detector, &at(other, 1));
            assert_eq!(of(&mut detector, &write(5)), None);
        }
        // The program of the process is not known.
        let (mut detector, mut change) = (starting(), write(5));
        change.detail.as_mut().expect("it has it").process.pid = 1300;
        assert_eq!(of(&mut detector, &change), None);
        change.detail = None;
        assert_eq!(of(&mut detector, &change), None);
    }

    #[test]
    fn code_credentials_and_what_is_started_are_of_no_image() {
        for (mode, path) in [
            (0o100_755, "/srv/state"),
            (0o100_644, "/srv/run.sh"),
            (0o100_644, "/usr/lib/x"),
            (0o100_644, "/etc/passwd"),
            (0o100_644, "/root/.ssh/authorized_keys"),
            (0o100_644, "/etc/ssl/certs/x"),
            (0o120_777, "/srv/state"),
        ] {
            let (mut detector, mut change) = (starting(), write(5));
            change.file.mode = mode;
            change.detail.as_mut().expect("it has it").path = samples::path(path);
            assert_eq!(of(&mut detector, &change), None, "{path}");
        }
    }

    #[test]
    fn after_somebody_came_in_or_another_program_ran_nothing_is_of_the_image() {
        let by = |origin, session: Option<Via>| {
            let mut change = write(3);
            let process = &mut change.detail.as_mut().expect("it has it").process;
            (process.origin, process.pid) = (origin, 1300);
            process.session = session.map(|via| Session { start_time: 70, pid: 1300, via });
            Event::ImageChange(Box::new(change))
        };
        let run = |change: fn(&mut Exec)| {
            let mut exec = exec(Origin::Application, "/usr/bin/x", &["x"]);
            exec.process.pid = 1300;
            change(&mut exec);
            at(exec, 3)
        };
        let mut library = mapped("/usr/sbin/nginx", "/tmp/evil.so");
        (library.file.layer, library.at.time) = (Some(Layer::Upper), START + 3);
        let mut of_volume = library.clone();
        (of_volume.file.layer, of_volume.file.dev) = (None, 46);
        let ImageChange { at, file, detail, .. } = write(3);
        let mount = MountChange { at, op: MountOp::Bind, file, is_private: false, detail };
        let session = Session { start_time: 70, pid: 1300, via: Via::Exec };
        let exit = Exit { at, session, start_time: 70, pid: 1300, status: 0, is_last: true };
        for (event, is_left) in [
            (by(Origin::Application, None), true),
            (by(Origin::Outside, None), false),
            (by(Origin::Entered, None), false),
            (by(Origin::Application, Some(Via::Terminal)), false),
            (run(|_| {}), true),
            // Somebody looks around.
            (run(|exec| exec.process.origin = Origin::Entered), false),
            (run(|exec| exec.file.layer = Some(Layer::Upper)), false),
            // On a volume, and as in the image, but in another file.
            (run(|exec| exec.file.layer = None), false),
            (run(|exec| exec.file.dev = 46), false),
            // A shell at a socket.
            (
                run(|exec| {
                    (exec.exe, exec.args) = (path("/bin/dash"), args(&["sh"]));
                    exec.process.stdio[0] = StdioKind::Socket;
                }),
                false,
            ),
            (Event::MapExec(Box::new(library)), false),
            (Event::MapExec(Box::new(of_volume)), false),
            (Event::MountChange(Box::new(mount)), false),
            // A session has ended of which the beginning was not seen.
            (Event::Exit(exit), false),
        ] {
            let mut detector = starting();
            found(&mut detector, &event);
            assert_eq!(of(&mut detector, &write(5)).is_some(), is_left, "{event:?}");
        }
    }

    #[test]
    fn where_acts_may_not_have_been_seen_nothing_is_of_the_image() {
        for (notice, is_left) in [
            (NoticeEvent::loss(Loss::Exec, 1), false),
            (NoticeEvent::loss(Loss::Call, 1), false),
            (NoticeEvent::loss(Loss::Listen, 1), true),
            (NoticeEvent::loss(Loss::Client, 1), true),
        ] {
            let mut detector = starting();
            detector.learn(&notice);
            assert_eq!(of(&mut detector, &write(5)).is_some(), is_left, "{notice:?}");
        }
        // It ran before.
        let mut detector = Detector::default();
        detector.resume_container(&started());
        found(&mut detector, &at(exec(Origin::Entrypoint, "/usr/bin/python3.12", &["python3"]), 1));
        assert_eq!(of(&mut detector, &write(5)), None);
    }

    #[test]
    fn installations_and_sessions_of_applications_are_of_no_image() {
        let by_child = |time, mode, path| {
            let mut change = write(time);
            change.file.mode = mode;
            let detail = change.detail.as_mut().expect("it has it");
            (detail.path, detail.exe) = (samples::path(path), samples::path("/bin/dash"));
            (detail.process.pid, detail.process.start_time, detail.process.origin) = (1300, 80, Origin::Application);
            let above = &mut detail.process.ancestors[0];
            (above.pid, above.start_time, above.in_container) = (1234, 70, true);
            change
        };
        for (name, is_one) in [("/usr/bin/apt-get", false), ("/usr/bin/python3.12", true)] {
            let mut detector = starting();
            found(&mut detector, &at(exec(Origin::Entrypoint, name, &["x"]), 1));
            let mut child = exec(Origin::Application, "/bin/dash", &["sh", "-c", "x"]);
            child.process = by_child(2, 0, "/x").detail.expect("it has it").process;
            found(&mut detector, &at(child, 2));
            assert_eq!(of(&mut detector, &by_child(3, 0o100_644, "/srv/state")).is_some(), is_one, "{name}");
        }
        // A shell of the application writes a program, from which on it is told as a session.
        let mut detector = starting();
        let mut child = exec(Origin::Application, "/bin/dash", &["sh", "-c", "x"]);
        child.process = by_child(2, 0, "/x").detail.expect("it has it").process;
        found(&mut detector, &at(child, 2));
        of(&mut detector, &by_child(4, 0o100_755, "/srv/added"));
        assert_eq!(of(&mut detector, &by_child(5, 0o100_644, "/srv/state")), None);
        assert_eq!(of(&mut detector, &write(6)), None);
    }
}
