//! What an application has started through a shell or a program that is not as in the image: what an attacker does with
//! an exploited service, if its commands come neither from a terminal nor from a socket, as with a webshell. The kernel
//! side does not follow these processes; they are known by the ancestors in the records.

use super::process::{Key, key, lineage};
use super::session;
use crate::event::{Event, Origin, Process, Session, Via};
use crate::finding::{Finding, Kind, Severity};
use crate::recent::Recent;

/// How many of these processes are remembered at most.
const MOST: usize = 8192;
/// How many processes that listen on a socket are remembered at most. Each container has one, or a few.
const MOST_LISTENING: usize = 16_384;

/// A process that an application has started, itself or through others.
#[derive(Clone, Copy, Debug)]
struct Member {
    session: Session,
    /// Whether it runs a shell or a program that is not as in the image.
    is_suspect: bool,
    /// Whether a process that listens on a socket has started it.
    is_of_listener: bool,
}

/// The processes that applications have started.
#[derive(Debug)]
pub(super) struct Spawned {
    members: Recent<Key, Member>,
    /// The processes that listen on a socket, and since when.
    listeners: Recent<Key, u64>,
}

impl Default for Spawned {
    fn default() -> Self {
        Self { members: Recent::new(MOST), listeners: Recent::new(MOST_LISTENING) }
    }
}

/// What an event has to do with such a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Branch {
    /// The session. Its first process is the application's, and does not belong to it.
    pub(super) session: Session,
    /// Whether the application has just started a process.
    pub(super) is_first: bool,
    /// Whether a process that listens on a socket has started this, itself or through others.
    pub(super) is_of_listener: bool,
}

impl Spawned {
    /// Learns from an event which process listens on a socket, or accepts connections to one that it was given.
    pub(super) fn take(&mut self, event: &Event) {
        if let Event::Listen(serving) | Event::Accept(serving) = event {
            let own = key(serving.pid, serving.start_time);
            if self.listeners.get(&own).is_none() {
                self.listeners.insert(own, serving.at.time);
            }
        }
    }

    /// The session of what an application has started that an event belongs to, about which there are these findings.
    /// A process with a socket as its standard input is in it too, unless commands come from there.
    /// What a service of the image starts is its own, even if a script has started the service. In a session that
    /// `is_told` it is not: an attacker can have started the service. The shells and scripts of an installation begin
    /// no session: `is_installing` says whether the process belongs to one.
    pub(super) fn branch(
        &mut self,
        event: &Event,
        process: &Process,
        findings: &[Finding],
        is_installing: bool,
        is_told: impl Fn(Key) -> bool,
    ) -> Option<Branch> {
        let is_told = |of: Session| is_told(key(of.pid, of.start_time));
        let is_other = |of: Session| of.via != Via::Socket || is_told(of);
        if process.origin != Origin::Application || process.session.is_some_and(is_other) {
            return None;
        }
        let own = key(process.pid, process.start_time);
        let is_suspect = matches!(event, Event::Exec(_)) && !is_installing && findings.iter().any(is_suspect);
        let known = lineage(process).find_map(|key| self.members.get(&key).copied());
        let parent = process.ancestors.first().filter(|parent| parent.in_container);
        let of_parent = parent.and_then(|parent| self.members.get(&key(parent.pid, parent.start_time)));
        let is_of_suspect = of_parent.is_some_and(|parent| parent.is_suspect);
        let known = known.filter(|member| !is_suspect || is_of_suspect || is_told(member.session));
        let started = parent.filter(|_| is_suspect).map(|parent| Session {
            start_time: parent.start_time,
            pid: parent.pid,
            via: Via::Application,
        });
        let session = known.map(|member| member.session).or(started)?;
        // A process that has lost its parents shows no longer who has started it.
        let is_of_listener =
            known.map_or_else(|| self.is_of_listener(process, event.time()), |member| member.is_of_listener);
        if matches!(event, Event::Exec(_)) {
            self.members.insert(own, Member { session, is_suspect, is_of_listener });
        }
        Some(Branch { session, is_first: known.is_none(), is_of_listener })
    }

    /// Whether a process that listens on a socket has started this one, itself or through others. What it had started
    /// before it listened has come from no request. `time` is when the process acts.
    fn is_of_listener(&mut self, process: &Process, time: u64) -> bool {
        let above = process.ancestors.iter().take_while(|ancestor| ancestor.in_container);
        let above = above.map(|ancestor| (ancestor.pid, ancestor.start_time));
        let mut started = time;
        std::iter::once((process.pid, process.start_time)).chain(above).any(|(pid, start_time)| {
            let below = std::mem::replace(&mut started, start_time);
            self.listeners.get(&key(pid, start_time)).is_some_and(|listens| *listens <= below)
        })
    }
}

/// Whether an application that executes this can be exploited.
fn is_suspect(finding: &Finding) -> bool {
    match finding.finding {
        Kind::ShellInContainer => finding.severity >= Severity::Medium,
        _ => session::is_foreign_code(finding),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::super::pace::SECOND;
    use super::super::samples::{change, container, context, exec, name};
    use super::super::{Context, Detector};
    use super::*;
    use crate::event::{Ancestor, At, ImageOp, Layer, Serving, StdioKind};
    use crate::finding::{Line, NoticeEvent, Summary};

    /// To make one takes long.
    static CONTEXT: LazyLock<Context> = LazyLock::new(context);

    /// A process: its id, and those of its ancestors in the container. The id of each says when it started, in seconds
    /// since boot.
    type Of<'a> = &'a [u32];

    /// What a detector says of what the processes of an application do.
    #[derive(Default)]
    struct Watch {
        detector: Detector,
        now: u64,
        found: Vec<Finding>,
        ended: usize,
        /// Whether the service gives what it starts a socket as its standard input.
        has_sockets: bool,
    }

    impl Watch {
        fn describe(&self, of: Of, process: &mut Process) {
            if let [.., first, _] = of
                && self.has_sockets
            {
                process.stdio[0] = StdioKind::Socket;
                let start_time = u64::from(*first) * SECOND;
                process.session = Some(Session { start_time, pid: *first, via: Via::Socket });
            }
            process.pid = of[0];
            process.start_time = u64::from(of[0]) * SECOND;
            process.ancestors = of[1..]
                .iter()
                .map(|&pid| Ancestor { start_time: u64::from(pid) * SECOND, pid, in_container: true, comm: name("sh") })
                .collect();
        }

        fn event(&mut self, event: &Event) {
            let found = &mut self.found;
            self.detector.detect(event, &container(), &CONTEXT, |finding| found.push(finding));
        }

        /// A process executes a program with these arguments.
        fn runs(&mut self, of: Of, exe: &str, args: &[&str]) {
            self.executes(of, exe, args, Layer::Lower);
        }

        fn executes(&mut self, of: Of, exe: &str, args: &[&str], layer: Layer) {
            let mut exec = exec(Origin::Application, exe, args);
            self.describe(of, &mut exec.process);
            self.now += SECOND / 100;
            (exec.at.time, exec.file.layer) = (self.now, Some(layer));
            self.event(&Event::Exec(Box::new(exec)));
        }

        /// A process listens on a socket.
        fn listens(&mut self, pid: u32) {
            self.now += SECOND / 100;
            let at = At { time: self.now, number: 0, cgroup: 500, container: 500 };
            self.event(&Event::Listen(Serving { at, start_time: u64::from(pid) * SECOND, pid }));
        }

        /// A process adds a program to the image.
        fn adds_program(&mut self, of: Of) {
            let mut change = change(ImageOp::Create, Layer::New, 0o100755, "/usr/bin/x");
            self.describe(of, &mut change.detail.as_mut().expect("the sample has it").process);
            self.now += SECOND / 100;
            change.at.time = self.now;
            self.event(&Event::ImageChange(Box::new(change)));
        }

        fn waits(&mut self, time: u64) {
            let (end, found) = (self.now + time, &mut self.found);
            while let Some(due) = self.detector.due().filter(|due| *due <= end) {
                self.detector.take_time(due, &CONTEXT, |line| match line {
                    Line::Finding(finding) => found.push(*finding),
                    Line::Notice(notice) => {
                        assert!(matches!(notice.event, NoticeEvent::SessionEnded { .. }), "{notice:?}");
                        self.ended += 1;
                    }
                });
            }
            self.now = end;
        }

        /// The lines of sessions.
        fn sessions(&self) -> Vec<(&Finding, &Summary)> {
            let sessions = self.found.iter().filter(|finding| finding.finding == Kind::Session);
            sessions.map(|finding| (finding, finding.summary.as_deref().expect("it has one"))).collect()
        }

        /// The command lines of the last line of a session.
        fn programs(&self) -> Vec<String> {
            let (_, summary) = self.sessions().pop().expect("there is a session");
            let programs = summary.programs.iter();
            programs.map(|program| program.args.iter().map(|arg| arg.as_str()).collect::<Vec<_>>().join(" ")).collect()
        }
    }

    /// A service of the image, and a shell that it starts.
    const SERVICE: Of = &[100];
    const SHELL: Of = &[200, 100];

    fn webshell() -> Watch {
        webshell_of(Watch { now: 1_000 * SECOND, ..Watch::default() })
    }

    fn webshell_of(mut watch: Watch) -> Watch {
        watch.runs(SERVICE, "/usr/bin/python3", &["python3", "app.py"]);
        watch.runs(SHELL, "/usr/bin/dash", &["sh", "-c", "harmless"]);
        watch
    }

    #[test]
    fn the_shells_of_an_application_are_no_sessions() {
        let mut watch = webshell();
        for pid in 300..2_300 {
            watch.runs(&[pid, 100], "/usr/bin/dash", &["sh", "-c", "harmless"]);
            watch.runs(&[pid + 10_000, pid, 100], "/usr/bin/convert", &["convert"]);
        }
        watch.waits(1_000 * SECOND);
        assert!(watch.sessions().is_empty());
        assert!(watch.found.iter().all(|finding| finding.session.is_none()));
        assert_eq!(watch.found.len(), 2_001);
    }

    #[test]
    fn a_webshell_is_one_story_from_the_service_on() {
        let mut watch = webshell();
        watch.runs(&[201, 100], "/usr/bin/dash", &["sh", "-c", "attack"]);
        watch.runs(&[202, 201, 100], "/usr/bin/cp", &["cp", "a", "b"]);
        assert!(watch.sessions().is_empty());
        watch.adds_program(&[202, 201, 100]);
        watch.executes(&[203, 201, 100], "/usr/bin/x", &["x"], Layer::Upper);
        // Its shell has ended, and the next request comes to the same service.
        watch.adds_program(&[203, 1]);
        watch.runs(&[204, 100], "/usr/bin/dash", &["sh", "-c", "more"]);
        let (first, _) = watch.sessions()[0];
        assert_eq!(first.severity, Severity::High);
        let acts: Vec<_> = watch.found.iter().filter(|act| act.session.as_ref() == Some(&first.id)).collect();
        let kinds: Vec<_> = acts.iter().map(|act| act.finding).collect();
        assert_eq!(
            kinds,
            [Kind::ImageWrite, Kind::Session, Kind::DriftedExec, Kind::ImageWrite, Kind::ShellInContainer]
        );
        watch.waits(2 * SECOND);
        assert_eq!(watch.programs(), ["sh -c attack", "cp a b", "x", "sh -c more"]);
        let (last, summary) = watch.sessions().pop().expect("there is one");
        assert_eq!(last.id, watch.sessions()[0].0.id);
        let started_by: Vec<_> = summary.started_by.iter().flatten().map(|arg| arg.as_str()).collect();
        assert_eq!(started_by, ["python3", "app.py"]);
        assert!(last.message.contains("(started by the application)"), "{}", last.message);
        assert_eq!(watch.ended, 0);
    }

    /// The severity of the story of a program that is not as in the image, after a process has listened on a socket.
    fn of_listener(listener: Option<u32>, service: Of, shell: Of) -> Severity {
        // The ids of processes are their start times, and it listens after 1,000 seconds.
        let mut watch = Watch { now: 1_000 * SECOND, ..Watch::default() };
        watch.runs(service, "/usr/bin/python3", &["python3", "app.py"]);
        listener.into_iter().for_each(|pid| watch.listens(pid));
        watch.now = 4_000 * SECOND;
        watch.runs(shell, "/usr/bin/dash", &["sh", "-c", "attack"]);
        watch.adds_program(shell);
        let (first, _) = watch.sessions()[0];
        assert_eq!(first.severity, Severity::High);
        watch.executes(&[&[3_500], shell].concat(), "/tmp/x", &["x"], Layer::Upper);
        watch.waits(2 * SECOND);
        watch.sessions().pop().expect("there is one").0.severity
    }

    #[test]
    fn code_of_an_attacker_that_a_listening_service_runs_is_critical() {
        use Severity::{Critical, High};
        for (listener, shell, severity) in [
            (Some(100), &[2_000_u32, 100] as Of, Critical),
            // Workers of the service, and programs of its own.
            (Some(100), &[2_000, 1_500, 100], Critical),
            (Some(100), &[2_000, 1_500, 1_200, 100], Critical),
            // Nobody listens, or another process does.
            (None, &[2_000, 100], High),
            (Some(700), &[2_000, 100], High),
            // A scheduler that the entrypoint has started before it became the service.
            (Some(100), &[2_000, 900, 100], High),
            (Some(100), &[2_000, 1_500, 900, 100], High),
        ] {
            assert_eq!(of_listener(listener, &[100], shell), severity, "{listener:?} {shell:?}");
        }
    }

    #[test]
    fn what_belongs_to_the_image_is_not_critical() {
        let mut watch = webshell();
        watch.listens(100);
        watch.runs(&[2_000, 100], "/usr/bin/dash", &["sh", "-c", "attack"]);
        watch.adds_program(&[2_000, 100]);
        watch.runs(&[2_001, 2_000, 100], "/usr/bin/cp", &["cp", "a", "b"]);
        watch.waits(2 * SECOND);
        assert_eq!(watch.sessions().pop().expect("there is one").0.severity, Severity::High);
        // It has lost its parents, but is still of the service.
        watch.executes(&[2_001, 1], "/tmp/x", &["x"], Layer::Upper);
        assert_eq!(watch.sessions().pop().expect("there is one").0.severity, Severity::Critical);
    }

    #[test]
    fn an_installation_by_the_application_is_no_session() {
        for (manager, is_one) in [("/usr/bin/apt-get", false), ("/usr/bin/other", true)] {
            let mut watch = Watch { now: 1_000 * SECOND, ..Watch::default() };
            watch.runs(SERVICE, "/usr/bin/python3", &["python3", "app.py"]);
            watch.runs(&[200, 100], manager, &["x", "install"]);
            watch.runs(&[201, 200, 100], "/usr/bin/dash", &["sh", "-c", "configure"]);
            watch.adds_program(&[201, 200, 100]);
            watch.waits(2 * SECOND);
            assert_eq!(!watch.sessions().is_empty(), is_one, "{manager}");
            // Nobody knows who has made this program.
            watch.executes(&[202, 201, 200, 100], "/usr/bin/y", &["y"], Layer::Upper);
            watch.waits(2 * SECOND);
            assert!(!watch.sessions().is_empty(), "{manager}");
        }
        // A shell has started it.
        let mut watch = webshell();
        watch.runs(&[201, 200, 100], "/usr/bin/apt-get", &["apt-get", "install"]);
        watch.runs(&[202, 201, 200, 100], "/usr/bin/dash", &["sh", "-c", "configure"]);
        watch.adds_program(&[202, 201, 200, 100]);
        watch.waits(2 * SECOND);
        assert!(!watch.sessions().is_empty());
    }

    #[test]
    fn a_webshell_can_have_a_socket_as_its_input() {
        let mut watch = webshell_of(Watch { now: 1_000 * SECOND, has_sockets: true, ..Watch::default() });
        assert!(watch.sessions().is_empty());
        watch.adds_program(SHELL);
        watch.executes(&[203, 200, 100], "/usr/bin/x", &["x"], Layer::Upper);
        watch.waits(2 * SECOND);
        assert_eq!(watch.programs(), ["sh -c harmless", "x"]);
        let (last, summary) = watch.sessions().pop().expect("there is one");
        assert_eq!((last.severity, summary.via), (Severity::High, Via::Application));
        // Commands that come from the socket are a session of their own.
        watch.runs(&[300, 100], "/usr/bin/dash", &["sh", "-i"]);
        let (last, summary) = watch.sessions().pop().expect("there is one");
        assert_eq!((last.severity, summary.via), (Severity::Critical, Via::Socket));
    }

    #[test]
    fn a_story_ends_when_nothing_happens_and_goes_on_with_higher_revisions() {
        let mut watch = webshell();
        watch.adds_program(SHELL);
        watch.waits(599 * SECOND);
        assert_eq!(watch.ended, 0);
        watch.waits(2 * SECOND);
        assert_eq!(watch.ended, 1);
        let (last, summary) = watch.sessions().pop().expect("there is one");
        assert!(summary.ended.is_some() && summary.end_not_seen);
        assert!(last.message.ends_with("nothing more was seen after 0.0 s"), "{}", last.message);
        let (id, revision) = (last.id.clone(), last.revision);
        watch.adds_program(SHELL);
        let (next, _) = watch.sessions().pop().expect("there is one");
        assert!(next.id == id && next.revision > revision);
    }

    #[test]
    fn a_service_that_a_script_has_started_is_not_of_the_script() {
        let mut watch = webshell();
        watch.runs(&[300, 200, 100], "/usr/bin/node", &["node", "server"]);
        watch.runs(&[301, 300, 200, 100], "/usr/bin/dash", &["sh", "-c", "attack"]);
        watch.adds_program(&[301, 300, 200, 100]);
        assert_eq!(watch.programs(), ["sh -c attack"]);
        // What an attacker starts stays in the story.
        watch.runs(&[400, 301, 300, 200, 100], "/usr/bin/python3", &["python3"]);
        watch.runs(&[401, 400, 301, 300, 200, 100], "/usr/bin/dash", &["sh"]);
        watch.waits(2 * SECOND);
        assert_eq!(watch.programs(), ["sh -c attack", "python3", "sh"]);
    }
}
