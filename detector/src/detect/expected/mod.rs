//! Which acts are expected. Their findings are info, name the reason, and keep the severity that they would have
//! otherwise. Nothing else about them changes.
//!
//! Each reason has a module, which states the facts that it needs. All of them need a container that nobody has
//! changed: one whose start was seen, and in which neither a session, nor the host, nor a program that is not the
//! image's has done anything to the image since. After that, nothing in the container is expected any more, because an
//! attacker can make the container's own programs act for him. This also holds after the container was stopped and
//! started again. It ends only when the container is replaced by another one.
//!
//! What was not seen makes nothing expected: this applies to containers that ran before the detector started or while
//! calls were not seen, to those that were once not watched, to those without an id, and to those that there is no room
//! to remember.

mod data;
mod engine;
mod health_check;
mod image;
mod pace;
mod scheduled;
mod scratch;
mod spans;
mod startup;

use std::sync::Arc;

use super::process::Program;
use crate::container::table::TrackedContainer;
use crate::event::{Event, Exec, Origin, Process, ServingSign};
use crate::finding::{Finding, Kind, Loss, NoticeEvent, Reason, Severity, Visit};
use crate::recent::Recent;
use health_check::is_ordinary_shell;
use image::Acts;
use pace::Paces;
use scheduled::Schedules;
use startup::Startups;

pub(super) use health_check::can_go_on;

/// How many containers are remembered at most.
const MOST: usize = 16_384;

/// What decides which acts are expected.
#[derive(Debug)]
pub(super) struct Expectations {
    /// The containers that nobody has changed, by the id of their cgroup, with whether what their schedulers run is the
    /// image's.
    unchanged: Recent<u64, bool>,
    /// The last cgroup of each container, by the id that its runtime gave it.
    started: Recent<Vec<u8>, u64>,
    paces: Paces,
    startups: Startups,
    acts: Acts,
    schedules: Schedules,
}

impl Default for Expectations {
    fn default() -> Self {
        Self {
            unchanged: Recent::new(MOST),
            started: Recent::new(MOST),
            paces: Paces::default(),
            startups: Startups::default(),
            acts: Acts::new(MOST),
            schedules: Schedules::default(),
        }
    }
}

impl Expectations {
    /// Records that the first program of a container is executed. A container without an id cannot be told from one
    /// that was changed and started again.
    pub(super) fn start(&mut self, container: &TrackedContainer) {
        let Some(reference) = &container.reference else { return };
        let before = self.started.get(&reference.id).copied();
        let is_scheduled = before.map_or(Some(true), |cgroup| self.unchanged.get(&cgroup).copied());
        if let Some(is_scheduled) = is_scheduled {
            self.unchanged.insert(container.cgroup_id, is_scheduled);
        }
        self.started.insert(reference.id.clone(), container.cgroup_id);
        self.acts.begin(container);
    }

    /// Records that something was done in the container that may have changed what its programs do.
    pub(super) fn disturb(&mut self, container: &TrackedContainer, time: u64) {
        self.acts.end(container, time);
    }

    /// Records that what a container does until it serves others, as this shows, is its start-up.
    pub(super) fn begin_startup(&mut self, container: &TrackedContainer, sign: ServingSign) {
        self.startups.begin(container, sign);
    }

    /// Records that a container ran before the events began, so that it may have been changed.
    pub(super) fn resume(&mut self, container: &TrackedContainer) {
        if let Some(reference) = &container.reference {
            self.started.insert(reference.id.clone(), container.cgroup_id);
        }
    }

    /// Records that it is not seen any more who changes the container with this cgroup.
    pub(super) fn unwatch(&mut self, cgroup: u64) {
        self.unchanged.remove(&cgroup);
    }

    /// Learns from a notice if acts were not seen. Any container may have been changed then.
    pub(super) fn learn(&mut self, notice: &NoticeEvent) {
        let is_blind = match notice {
            NoticeEvent::BlindWindow { .. } | NoticeEvent::Healed { .. } => true,
            NoticeEvent::Loss { kind, .. } => hides_acts(*kind),
            _ => false,
        };
        if is_blind {
            self.unchanged = Recent::new(MOST);
        }
        // A program that was executed may have begun a session.
        if is_blind || matches!(notice, NoticeEvent::Loss { kind: Loss::Listen | Loss::Accept | Loss::Exec, .. }) {
            self.startups = Startups::default();
        }
        if is_blind || matches!(notice, NoticeEvent::Loss { kind: Loss::Exec, .. }) {
            self.acts = Acts::new(MOST);
        }
    }

    /// Learns from an event what decides about later ones. `is_own`: whether the process that acts belongs to what the
    /// container has started, and to no session.
    pub(super) fn take(&mut self, event: &Event, is_own: bool, container: &TrackedContainer) {
        self.startups.take(event, is_own, container);
        self.acts.take(event, is_own, container);
        match event {
            Event::Exec(exec) => self.schedules.take(exec, is_own, container),
            other if scheduled::is_changed_by(other) && self.is_unchanged(container) => {
                self.unchanged.insert(container.cgroup_id, false);
            }
            _ => {}
        }
    }

    /// Decides which of the findings about an event are expected, or can be if the runtime tells the image, and whether
    /// the event changes the container. `is_own` is as in [`take`](Self::take), and `program` that of the process that
    /// acts.
    pub(super) fn judge(
        &mut self,
        event: &Event,
        is_own: bool,
        program: Option<&Program>,
        container: &TrackedContainer,
        findings: &mut [Finding],
    ) {
        if findings.is_empty() {
            return;
        }
        let Some(&is_scheduled) = self.unchanged.get(&container.cgroup_id) else { return };
        // It is asked each time, because it remembers the pace.
        let is_job = match event {
            Event::Exec(exec) if is_own && is_scheduled => self.schedules.run(exec, findings, container),
            _ => false,
        };
        let is_starting = is_own && self.startups.has(container, event.time());
        let reason = match reason(event, is_own) {
            None if is_starting && startup::covers(event, findings, container) => Some(Reason::Startup),
            None if is_job => Some(Reason::Scheduled),
            reason => reason,
        };
        if let Some(reason) = reason {
            findings.iter_mut().for_each(|finding| finding.expect(reason));
        } else if findings.iter().any(|finding| finding.finding != Kind::ImageWrite && !is_ordinary_shell(finding)) {
            self.acts.end(container, event.time());
        } else if is_own && let Some(typical) = self.acts.of(event, program, findings, container) {
            findings.iter_mut().for_each(|finding| finding.typical = Some(Box::new(typical.clone())));
        }
        if findings.iter().any(|finding| is_change(finding, is_own)) {
            self.unchanged.remove(&container.cgroup_id);
        }
    }

    /// Whether nobody has changed the container, as far as is known.
    pub(super) fn is_unchanged(&mut self, container: &TrackedContainer) -> bool {
        self.unchanged.get(&container.cgroup_id).is_some()
    }

    /// What the session that begins with an exec runs, if it can be a health check. `program` is what was executed.
    pub(super) fn visit(
        &mut self,
        exec: &Exec,
        program: Option<&Program>,
        container: &TrackedContainer,
    ) -> Option<Arc<Visit>> {
        if !self.is_unchanged(container) {
            return None;
        }
        let mut visit = health_check::visit(exec, program, container)?;
        // Nobody can be asked for the tests of a pod.
        let is_of_pod = container.reference.as_ref().is_some_and(|reference| reference.pod_uid.is_some());
        visit.is_steady = is_of_pod && self.paces.run(container.cgroup_id, &visit.args, exec.at.time);
        Some(Arc::new(visit))
    }
}

/// Why the findings about an event in an unchanged container are expected, if they are.
fn reason(event: &Event, is_own: bool) -> Option<Reason> {
    match event {
        Event::ImageChange(change) if is_own && scratch::covers(change) => Some(Reason::Scratch),
        Event::ImageChange(change) if engine::covers(change) => Some(Reason::Engine),
        _ => None,
    }
}

/// Whether the process belongs to what the container has started, and to no session.
pub(super) fn is_own(process: &Process) -> bool {
    matches!(process.origin, Origin::Entrypoint | Origin::Application) && process.session.is_none()
}

/// Whether the container is not the same any more after what this finding is about. `is_own`: whether the process that
/// acts belongs to what the container has started. One that is not known can be anybody.
fn is_change(finding: &Finding, is_own: bool) -> bool {
    let is_foreign = !is_own;
    match finding.finding {
        _ if finding.expected.is_some() => false,
        Kind::TestAlert => false,
        Kind::ShellInContainer | Kind::Session => finding.severity == Severity::Critical,
        Kind::ImageWrite => is_foreign,
        // What nobody else sees is info.
        Kind::ImageShadowed => is_foreign && finding.severity > Severity::Info,
        Kind::VolumeExec => is_foreign || finding.severity > Severity::Low,
        // What has the content of the image, and files that are opened within their mount, are low.
        Kind::DriftedExec | Kind::HandleOpen => finding.severity > Severity::Low,
        Kind::FilelessExec
        | Kind::DeviceWrite
        | Kind::CgroupEscape
        | Kind::KernelControlWrite
        | Kind::SensorTampering
        | Kind::HostExec => true,
    }
}

/// Whether a loss of this kind means that something was done, and by whom, without being seen.
const fn hides_acts(kind: Loss) -> bool {
    match kind {
        Loss::CgroupsFull
        | Loss::RootsFull
        | Loss::EnteredFull
        | Loss::Script
        | Loss::CgroupEscape
        | Loss::Call
        | Loss::KeptExecsFull
        | Loss::LoadersFull
        | Loss::Tampering
        | Loss::SessionProcesses
        | Loss::Record => true,
        // These are reported late and without their process, or are about something else.
        Loss::Listen
        | Loss::Accept
        | Loss::Exec
        | Loss::ImageWrite
        | Loss::Cgroup
        | Loss::SeenFull
        | Loss::Exit
        | Loss::SessionsFull
        | Loss::Content
        | Loss::ContentRemote
        | Loss::ContentTooLarge
        | Loss::ContentQueueFull
        | Loss::ContentTimedOut
        | Loss::Client
        | Loss::Forward
        | Loss::Output
        | Loss::Ledger => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Detector;
    use super::super::pace::SECOND;
    use super::super::samples::{change, container, context, control_open, exec, mapped};
    use super::*;
    use crate::event::{Control, Difference, ImageChange, ImageOp, Layer, MountChange, MountOp, Serving, Session, Via};
    use crate::finding::Expected;

    /// A detector that has seen the start of the container.
    fn detector() -> Detector {
        let mut detector = Detector::default();
        detector.start_container(&container());
        detector
    }

    fn found(detector: &mut Detector, event: &Event) -> Vec<Finding> {
        let mut all = Vec::new();
        detector.detect(event, &container(), &context(), |finding| all.push(finding));
        all
    }

    fn log() -> ImageChange {
        change(ImageOp::Create, Layer::New, 0o100644, "/var/log/app.log")
    }

    fn by(mut change: ImageChange, origin: Origin, session: Option<Via>) -> Event {
        let process = &mut change.detail.as_mut().expect("the sample has it").process;
        process.origin = origin;
        process.session = session.map(|via| Session { start_time: 70, pid: 1234, via });
        Event::ImageChange(Box::new(change))
    }

    /// Whether a log of the application is expected.
    fn expects(detector: &mut Detector) -> bool {
        let [finding] = &found(detector, &by(log(), Origin::Application, None))[..] else { panic!("not one finding") };
        assert_eq!(finding.severity, if finding.expected.is_some() { Severity::Info } else { Severity::Low });
        finding.expected.is_some()
    }

    #[test]
    fn an_expected_act_keeps_its_severity() {
        let mut detector = detector();
        let [finding] = &found(&mut detector, &by(log(), Origin::Application, None))[..] else { panic!("not one") };
        assert_eq!(finding.expected, Some(Expected { reason: Reason::Scratch, otherwise: Severity::Low }));
        assert_eq!(finding.severity, Severity::Info);
    }

    #[test]
    fn nothing_is_expected_in_a_container_that_was_once_not_watched() {
        let mut detector = detector();
        assert!(expects(&mut detector));
        detector.unwatch(container().cgroup_id);
        assert!(!expects(&mut detector));
    }

    #[test]
    fn what_comes_from_outside_is_not_expected() {
        for (origin, session, expected) in [
            (Origin::Entrypoint, None, true),
            (Origin::Application, None, true),
            (Origin::Entered, None, false),
            (Origin::Entered, Some(Via::Exec), false),
            (Origin::Application, Some(Via::Terminal), false),
            (Origin::Application, Some(Via::Socket), false),
            (Origin::Outside, None, false),
            (Origin::Unknown, None, false),
        ] {
            let mut detector = detector();
            let acts = found(&mut detector, &by(log(), origin, session));
            let act = acts.iter().find(|finding| finding.finding == Kind::ImageWrite).expect("there is one");
            assert_eq!(act.expected.is_some(), expected, "{origin:?} {session:?}");
            // Nor is anything after it.
            assert_eq!(expects(&mut detector), expected, "{origin:?} {session:?}");
        }
        let mut detector = detector();
        let lost = ImageChange { detail: None, ..log() };
        assert_eq!(found(&mut detector, &Event::ImageChange(Box::new(lost)))[0].expected, None);
        assert!(!expects(&mut detector));
    }

    #[test]
    fn what_only_has_a_socket_as_its_input_is_the_applications_own() {
        use crate::event::StdioKind::Socket;
        /// A program of a session, whose first process has this id.
        fn run(first: u32, pid: u32, exe: &str, args: &[&str]) -> Event {
            let mut exec = exec(Origin::Application, exe, args);
            (exec.process.pid, exec.process.start_time, exec.process.stdio[0]) = (pid, 70, Socket);
            exec.process.session = Some(Session { start_time: 70, pid: first, via: Via::Socket });
            Event::Exec(Box::new(exec))
        }
        fn change(detector: &mut Detector, first: u32) -> Option<Expected> {
            let mut change = log();
            let detail = change.detail.as_mut().expect("the sample has it");
            detail.process.origin = Origin::Application;
            detail.process.session = Some(Session { start_time: 70, pid: first, via: Via::Socket });
            let found = found(detector, &Event::ImageChange(Box::new(change)));
            found.iter().find(|finding| finding.finding == Kind::ImageWrite).expect("there is one").expected
        }
        let child = run(1, 1, "/usr/sbin/logrotate", &["logrotate", "app.conf"]);
        let mut detector = self::detector();
        assert!(found(&mut detector, &child).is_empty());
        assert!(change(&mut detector, 1).is_some());
        // Its child takes commands from the socket, and so it is a session.
        found(&mut detector, &run(1, 2, "/bin/dash", &["sh"]));
        assert_eq!(change(&mut detector, 1), None);
        assert!(!expects(&mut detector), "nothing is expected after it");
        // It remains one, also if what takes commands is no shell.
        let mut detector = self::detector();
        found(&mut detector, &run(1, 2, "/usr/bin/python3", &["python3"]));
        assert!(found(&mut detector, &child).is_empty());
        assert_eq!(change(&mut detector, 1), None);
        // Its first program was not seen.
        let mut detector = self::detector();
        found(&mut detector, &run(1, 2, "/usr/bin/id", &["id"]));
        assert_eq!(change(&mut detector, 1), None);
        // It does not end a start-up.
        let (mut detector, container) = starting();
        detector.detect(&child, &container, &context(), |_| {});
        let exit = |first| {
            let session = Session { start_time: 70, pid: first, via: Via::Socket };
            let at = exec(Origin::Application, "", &[]).at;
            Event::Exit(crate::event::Exit { at, session, start_time: 70, pid: first, status: 0, is_last: true })
        };
        detector.detect(&exit(1), &container, &context(), |_| {});
        assert_eq!(why(&mut detector, &by(conf(), Origin::Entrypoint, None), &container), Some(Reason::Startup));
        detector.detect(&exit(3), &container, &context(), |_| {});
        assert_eq!(why(&mut detector, &by(conf(), Origin::Entrypoint, None), &container), None);
    }

    #[test]
    fn a_changed_container_stays_so() {
        let mount = |is_private| {
            let ImageChange { at, file, detail, .. } = log();
            let mount = MountChange { at, op: MountOp::Bind, file, is_private, detail };
            Event::MountChange(Box::new(mount))
        };
        let run = |layer, difference| {
            let mut exec = exec(Origin::Application, "/usr/bin/x", &["x"]);
            (exec.file.layer, exec.file.difference) = (layer, difference);
            Event::Exec(Box::new(exec))
        };
        let shell = |session: Option<Via>| {
            let mut exec = exec(Origin::Application, "/bin/dash", &["sh"]);
            exec.process.session = session.map(|via| Session { start_time: 70, pid: 1234, via });
            exec.process.stdio[0] = crate::event::StdioKind::Socket;
            Event::Exec(Box::new(exec))
        };
        let mut library = mapped("/usr/sbin/nginx", "/tmp/evil.so");
        library.file.layer = Some(Layer::Upper);
        let conf = change(ImageOp::OpenWrite, Layer::Lower, 0o100644, "/etc/app.conf");
        for (event, is_unchanged) in [
            (by(conf.clone(), Origin::Application, None), true),
            (by(conf.clone(), Origin::Outside, None), false),
            (by(conf, Origin::Entered, Some(Via::Exec)), false),
            (run(Some(Layer::Lower), None), true),
            (run(Some(Layer::Upper), None), false),
            (run(Some(Layer::Upper), Some(Difference::Nothing)), true),
            (run(Some(Layer::Upper), Some(Difference::Content)), false),
            (Event::MapExec(Box::new(library)), false),
            (mount(false), true),
            (shell(Some(Via::Socket)), false),
            (Event::ControlOpen(Box::new(control_open(Control::CorePattern))), false),
        ] {
            let mut detector = Detector::default();
            let mut container = container();
            container.root_dev = Some(45);
            detector.start_container(&container);
            detector.detect(&event, &container, &context(), |_| {});
            assert_eq!(expects(&mut detector), is_unchanged, "{event:?}");
            // The container is started again, in another cgroup.
            container.cgroup_id = 501;
            detector.start_container(&container);
            let mut expected = None;
            let log = by(log(), Origin::Application, None);
            detector.detect(&log, &container, &context(), |finding| expected = finding.expected);
            assert_eq!(expected.is_some(), is_unchanged, "{event:?}");
        }
    }

    /// A container that has just started, at the time 70, and a detector that has seen this.
    fn starting() -> (Detector, TrackedContainer) {
        let container = TrackedContainer { root_dev: Some(45), started: Some(70), ..container() };
        let mut detector = Detector::default();
        detector.start_container(&container);
        detector.begin_startup(&container, ServingSign::Accept);
        (detector, container)
    }

    /// Why the act is expected.
    fn why(detector: &mut Detector, event: &Event, container: &TrackedContainer) -> Option<Reason> {
        let mut all = Vec::new();
        detector.detect(event, container, &context(), |finding| all.push(finding));
        let act = all.iter().find(|finding| finding.finding != Kind::Session).expect("there is one");
        act.expected.map(|expected| expected.reason)
    }

    /// Whether the eighth run of a job of the scheduler is expected, if this happens before the last one.
    fn expects_job(before: &[Event]) -> bool {
        let (mut detector, container) = starting();
        let mut cron = exec(Origin::Entrypoint, "/usr/sbin/cron", &["cron", "-f"]);
        (cron.process.pid, cron.process.start_time) = (9, 5);
        detector.detect(&Event::Exec(Box::new(cron)), &container, &context(), |_| {});
        let mut run = |minute: u64| {
            let mut job = exec(Origin::Application, "/bin/dash", &["sh", "-c", "backup"]);
            job.at.time = (60 + minute * 60) * SECOND;
            let above = &mut job.process.ancestors[0];
            (above.pid, above.start_time, above.in_container) = (9, 5, true);
            let reason = why(&mut detector, &Event::Exec(Box::new(job)), &container);
            assert!(minute > 6 || reason.is_none(), "{minute}");
            for event in before.iter().filter(|_| minute == 7) {
                detector.detect(event, &container, &context(), |_| {});
            }
            reason == Some(Reason::Scheduled)
        };
        (1..=8).map(&mut run).last().expect("it runs")
    }

    #[test]
    fn a_scheduler_runs_its_jobs() {
        let crontab = change(ImageOp::OpenWrite, Layer::Lower, 0o100644, "/etc/crontab");
        let mut added = exec(Origin::Application, "/srv/added", &["added"]);
        added.file.layer = Some(Layer::Upper);
        for (before, expected) in [
            (vec![], true),
            (vec![by(conf(), Origin::Application, None)], true),
            (vec![by(crontab, Origin::Application, None)], false),
            (vec![by(conf(), Origin::Entered, Some(Via::Exec))], false),
            (vec![Event::Exec(Box::new(added))], false),
        ] {
            assert_eq!(expects_job(&before), expected, "{before:?}");
        }
    }

    #[test]
    fn what_a_job_changes_is_not_expected_and_a_changed_crontab_stays_so() {
        let (mut detector, mut container) = starting();
        let mut write = conf();
        write.at.time = 3600 * SECOND;
        assert_eq!(why(&mut detector, &by(write, Origin::Application, None), &container), None);
        let crontab = change(ImageOp::OpenWrite, Layer::Lower, 0o100644, "/etc/crontab");
        detector.detect(&by(crontab, Origin::Application, None), &container, &context(), |_| {});
        assert_eq!(detector.expectations.unchanged.get(&container.cgroup_id), Some(&false));
        // It is started again, in another cgroup.
        container.cgroup_id = 501;
        detector.start_container(&container);
        assert_eq!(detector.expectations.unchanged.get(&501), Some(&false));
    }

    fn conf() -> ImageChange {
        change(ImageOp::OpenWrite, Layer::Lower, 0o100644, "/etc/app.conf")
    }

    #[test]
    fn a_container_is_set_up_before_it_serves() {
        let exec = exec(Origin::Application, "/bin/dash", &["sh", "-c", "true"]);
        let serving = Serving { at: exec.at, start_time: 70, pid: 1234 };
        let shell = Event::Exec(Box::new(exec));
        let (mut detector, container) = starting();
        for origin in [Origin::Entrypoint, Origin::Application] {
            let why = why(&mut detector, &by(conf(), origin, None), &container);
            assert_eq!(why, Some(Reason::Startup), "{origin:?}");
        }
        assert_eq!(why(&mut detector, &shell, &container), Some(Reason::Startup));
        detector.detect(&Event::Listen(serving), &container, &context(), |_| panic!("it is no finding"));
        assert_eq!(why(&mut detector, &shell, &container), Some(Reason::Startup));
        detector.detect(&Event::Accept(serving), &container, &context(), |_| panic!("it is no finding"));
        assert_eq!(why(&mut detector, &by(conf(), Origin::Entrypoint, None), &container), None);
        assert_eq!(why(&mut detector, &shell, &container), None);
    }

    #[test]
    fn what_ends_a_start_up() {
        let own = || by(conf(), Origin::Application, None);
        let later = |seconds: u64| {
            let mut conf = conf();
            conf.at.time = 70 + seconds * SECOND;
            by(conf, Origin::Application, None)
        };
        for (seconds, reason) in [(59, Some(Reason::Startup)), (60, None), (3600, None)] {
            let (mut detector, container) = starting();
            assert_eq!(why(&mut detector, &later(seconds), &container), reason, "{seconds}");
        }
        // Somebody comes in, and changes nothing.
        let (mut detector, container) = starting();
        let mut session = exec(Origin::Entered, "/usr/bin/id", &["id"]);
        session.process.session = Some(Session { start_time: 70, pid: 1234, via: Via::Exec });
        detector.detect(&Event::Exec(Box::new(session)), &container, &context(), |_| {});
        assert_eq!(why(&mut detector, &own(), &container), None);
        // What comes from outside, or has a terminal, is no start-up, nor is what follows.
        for (origin, session) in
            [(Origin::Entered, Some(Via::Exec)), (Origin::Entrypoint, Some(Via::Entrypoint)), (Origin::Outside, None)]
        {
            let (mut detector, container) = starting();
            assert_eq!(why(&mut detector, &by(conf(), origin, session), &container), None, "{origin:?}");
            assert_eq!(why(&mut detector, &own(), &container), None, "{origin:?}");
        }
        for (notice, reason) in [
            (NoticeEvent::loss(Loss::Listen, 1), None),
            (NoticeEvent::loss(Loss::Accept, 1), None),
            (NoticeEvent::loss(Loss::Exec, 1), None),
            (NoticeEvent::loss(Loss::Call, 1), None),
            (NoticeEvent::Healed { what: String::new() }, None),
            (NoticeEvent::loss(Loss::Client, 1), Some(Reason::Startup)),
        ] {
            let (mut detector, container) = starting();
            detector.learn(&notice);
            assert_eq!(why(&mut detector, &own(), &container), reason, "{notice:?}");
        }
        // It is not known whether it serves others, or it ran before.
        let (_, container) = starting();
        let mut detector = Detector::default();
        detector.start_container(&container);
        assert_eq!(why(&mut detector, &own(), &container), None);
        let mut detector = Detector::default();
        detector.resume_container(&container);
        assert_eq!(why(&mut detector, &own(), &container), None);
    }

    #[test]
    fn code_is_no_part_of_a_start_up() {
        let (mut detector, container) = starting();
        let program = change(ImageOp::Create, Layer::New, 0o100755, "/srv/added");
        assert_eq!(why(&mut detector, &by(program, Origin::Entrypoint, None), &container), None);
        let mut added = exec(Origin::Application, "/srv/added", &["added"]);
        added.file.layer = Some(Layer::Upper);
        assert_eq!(why(&mut detector, &Event::Exec(Box::new(added)), &container), None);
        // It has run, so nothing is expected any more.
        assert_eq!(why(&mut detector, &by(conf(), Origin::Entrypoint, None), &container), None);
    }

    #[test]
    fn only_a_container_whose_life_was_seen_is_unchanged() {
        let mut unseen = Detector::default();
        assert!(!expects(&mut unseen));
        // It ran before, and is started again.
        unseen.resume_container(&container());
        unseen.start_container(&container());
        assert!(!expects(&mut unseen));
        // It has no id.
        let mut detector = Detector::default();
        detector.start_container(&TrackedContainer { reference: None, ..container() });
        assert!(!expects(&mut detector));

        for (notice, is_unchanged) in [
            (NoticeEvent::loss(Loss::EnteredFull, 1), false),
            (NoticeEvent::loss(Loss::Call, 1), false),
            (NoticeEvent::loss(Loss::Content, 1), true),
            (NoticeEvent::Healed { what: String::new() }, false),
            (NoticeEvent::Stopped { reason: String::new() }, true),
        ] {
            let mut detector = self::detector();
            detector.learn(&notice);
            assert_eq!(expects(&mut detector), is_unchanged, "{notice:?}");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut expectations = Expectations::default();
        for number in 0..2 * MOST as u64 {
            let path = format!("/system.slice/docker-{:064x}.scope", number).into_bytes();
            expectations.start(&TrackedContainer::new(number, path));
        }
        // What is forgotten is not expected.
        assert!(expectations.unchanged.get(&0).is_none());
        assert!(expectations.unchanged.get(&(2 * MOST as u64 - 1)).is_some());
    }
}
