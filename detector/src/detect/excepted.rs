//! What exceptions and overrides can demand of an act, and which of the policy's it fulfils. Both demand the same.
//!
//! **Evidence**: what an exception demands of programs is fulfilled only by files of the image: they are in a lower
//! layer of the container's own root, and their paths lead through no mount and begin at no other root, so that nobody
//! in the container can make them up. Where a directory got another name, the paths below it are chosen by whoever did
//! that: no program in this container is evidence any more. The path of a file that is changed or executed counts only
//! if it is such a path on the container's own root, too.
//!
//! An ancestor counts if it had executed its program before it started the process, and, for a session, if it belongs
//! to that: whatever has lost its parents has those that adopt it. A script counts if the kernel has executed it by its
//! full path, and not if it is an argument of a shell, since arguments prove nothing. A program that was executed
//! before the detector started is no evidence for what its descendants do.

use std::sync::Arc;

use super::describe;
use super::process::{Program, Programs};
use crate::container::table::TrackedContainer;
use crate::event::{Event, ImageOp, Layer, Path, Process, Via};
use crate::finding::{Evidence, Finding, Severity, Text};
use crate::policy::exception::refusal;
use crate::policy::{Candidates, Policy, Subject};
use crate::recent::Recent;

/// In how many containers moved directories are remembered at most.
const MOST: usize = 16_384;

/// The policy, and what weakens evidence.
#[derive(Debug)]
pub(super) struct Exceptions {
    policy: Arc<Policy>,
    /// The containers in which a directory was moved, by the ids that their runtimes gave them, or those of their
    /// cgroups. The root stays the same when a container is started again.
    moved: Recent<Vec<u8>, ()>,
}

impl Default for Exceptions {
    fn default() -> Self {
        Self { policy: Arc::default(), moved: Recent::new(MOST) }
    }
}

impl Exceptions {
    /// Replaces the policy.
    pub(super) fn set(&mut self, policy: Policy) {
        if *self.policy != policy {
            self.policy = Arc::new(policy);
        }
    }

    /// Learns from an event what weakens evidence.
    pub(super) fn take(&mut self, event: &Event, container: &TrackedContainer) {
        let Event::ImageChange(change) = event else { return };
        // Only one of two files that exchange their names is known, and none if the record was lost.
        let is_unknown = change.op == ImageOp::Exchange || change.detail.is_none();
        let is_directory = change.file.mode & libc::S_IFMT == libc::S_IFDIR;
        if matches!(change.op, ImageOp::Rename | ImageOp::Exchange) && (is_unknown || is_directory) {
            self.moved.insert(key(container), ());
        }
    }

    /// Adds to the findings about an event what exceptions and overrides can demand of them, and those that they
    /// fulfil.
    pub(super) fn judge(
        &mut self,
        event: &Event,
        programs: &mut Programs,
        container: &TrackedContainer,
        findings: &mut [Finding],
    ) {
        if findings.is_empty() {
            return;
        }
        let Some(evidence) = self.evidence(event, programs, container) else { return };
        for finding in findings {
            if refusal(finding.finding).is_some() || finding.severity == Severity::Critical {
                continue;
            }
            let path = is_path_evidence(event, finding, container);
            finding.evidence = Some(Box::new(Evidence { path, ..evidence.clone() }));
            finding.candidates = self.candidates(|| Subject::of(finding));
        }
    }

    /// What exceptions and overrides can demand of the session that begins with this event, and those that it fulfils.
    pub(super) fn of_session(
        &mut self,
        event: &Event,
        programs: &mut Programs,
        container: &TrackedContainer,
    ) -> Option<(Evidence, Option<Candidates>)> {
        let evidence = self.evidence(event, programs, container)?;
        let (process, _) = event.actor()?;
        let candidates = self.candidates(|| Some(Subject::of_session(process.origin, &evidence)));
        Some((evidence, candidates))
    }

    /// What of the policy is fulfilled, apart from the container.
    fn candidates(&self, subject: impl FnOnce() -> Option<Subject>) -> Option<Candidates> {
        if self.policy.exceptions.is_empty() && self.policy.overrides.is_empty() {
            return None;
        }
        let subject = subject()?;
        Candidates::of(&self.policy, |conditions| conditions.allow_act(&subject))
    }

    /// What exceptions and overrides can demand of an act, apart from the path of its file. Returns `None` if too
    /// little is known.
    fn evidence(&mut self, event: &Event, programs: &mut Programs, container: &TrackedContainer) -> Option<Evidence> {
        let (process, exe) = event.actor()?;
        let via = via(process);
        if self.moved.get(&key(container)).is_some() {
            return Some(Evidence { via, ..Evidence::default() });
        }
        let exe_file = match event {
            Event::Exec(exec) => Some((exec.file.dev, exec.file.layer)),
            _ => event.detail().map(|detail| (detail.exe_dev, detail.exe_layer)),
        };
        let is_of_image = exe_file.is_some_and(|(dev, layer)| is_of_image(dev, layer, exe, container));
        let program = programs.of(process, exe);
        // The process can have executed another program since.
        let program = program.filter(|program| program.exe.bytes == exe.bytes && program.since <= event.time());
        let script = program.and_then(|program| program.image_script.as_ref());
        Some(Evidence {
            path: false,
            exe: describe::path(exe).filter(|_| is_of_image),
            script: script.and_then(describe::path),
            ancestors: ancestors(process, programs),
            via,
        })
    }
}

/// Whether the finding is about the file of the act, and each path of that is the path of the file on the container's
/// own root. A finding can also be about a script that the act has executed.
fn is_path_evidence(event: &Event, finding: &Finding, container: &TrackedContainer) -> bool {
    let (path, new_path) = match event {
        Event::Exec(exec) => (Some(&exec.exe), None),
        _ => event.detail().map_or((None, None), |detail| (Some(&detail.path), detail.new_path.as_ref())),
    };
    let Some(path) = path else { return false };
    let is_on_root = event.file().is_some_and(|file| container.root_dev == Some(file.dev));
    let told = finding.file.as_ref().and_then(|file| file.path.as_ref());
    is_on_root
        && told == Some(&describe::text(&path.bytes))
        && [Some(path), new_path].into_iter().flatten().all(is_evidence)
}

/// What stays the same when the container is started again, as its root does.
fn key(container: &TrackedContainer) -> Vec<u8> {
    match &container.reference {
        Some(reference) => reference.id.clone(),
        None => container.cgroup_id.to_ne_bytes().to_vec(),
    }
}

/// The executables of the ancestors that are evidence, nearest first.
fn ancestors(process: &Process, programs: &mut Programs) -> Vec<Text> {
    let began = process.session.map_or(0, |session| session.start_time);
    let above = process.ancestors.iter().take_while(|above| above.in_container && above.start_time >= began);
    let mut started = process.start_time;
    let of_image = above.filter_map(|above| {
        let program = programs.get(above.pid, above.start_time);
        let is_evidence = |program: &&Program| program.is_of_image && program.since <= started;
        let exe = program.filter(is_evidence).and_then(|program| describe::path(&program.exe));
        started = above.start_time;
        exe
    });
    of_image.collect()
}

/// How the session of the process began, if it is in one. What serves a connection can open a terminal for it.
fn via(process: &Process) -> Option<Via> {
    match process.session?.via {
        Via::Socket if process.tty.is_some() => Some(Via::Terminal),
        via => Some(via),
    }
}

/// Whether nobody in the container can make up the path.
fn is_evidence(path: &Path) -> bool {
    path.is_direct && !path.truncated
}

/// Whether a file is one of the container's image, and this path of it is evidence.
pub(super) fn is_of_image(dev: u32, layer: Option<Layer>, path: &Path, container: &TrackedContainer) -> bool {
    container.has_in_image(dev, layer) && is_evidence(path)
}

#[cfg(test)]
mod tests {
    use super::super::Detector;
    use super::super::samples::{args, change, container, context, exec, path, script};
    use super::*;
    use crate::event::{Exec, ImageChange, Origin, Script, Session, StdioKind};
    use crate::finding::{Kind, Part};
    use crate::policy::Override;

    /// A policy with one exception.
    fn policy(conditions: serde_json::Value) -> Policy {
        let exception =
            serde_json::json!({"name": "x", "reason": "It is known.", "owner": "us", "conditions": conditions});
        let exceptions = vec![serde_json::from_value(exception).expect("it is an exception")];
        Policy { exceptions, ..Policy::default() }
    }

    fn writes(more: serde_json::Value) -> Policy {
        let mut conditions = serde_json::json!({"finding": ["image_write"], "severity_at_most": "high"});
        conditions.as_object_mut().expect("it is one").extend(more.as_object().expect("it is one").clone());
        policy(conditions)
    }

    fn shells(more: serde_json::Value) -> Policy {
        let mut policy = writes(more);
        policy.exceptions[0].conditions.finding = vec![Kind::ShellInContainer];
        policy
    }

    fn own_container() -> TrackedContainer {
        TrackedContainer { root_dev: Some(45), ..container() }
    }

    /// The findings about the events.
    fn found(policy: Policy, events: &[Event]) -> Vec<Finding> {
        let (mut detector, mut all) = (Detector::default(), Vec::new());
        detector.set_policy(policy);
        for event in events {
            detector.detect(event, &own_container(), &context(), |finding| all.push(finding));
        }
        all
    }

    /// Whether an exception may hold for the last finding about the events.
    fn is_excepted(policy: Policy, events: &[Event]) -> bool {
        found(policy, events).last().expect("there is a finding").candidates.is_some()
    }

    fn write() -> ImageChange {
        change(ImageOp::OpenWrite, Layer::Lower, 0o100644, "/etc/app.conf")
    }

    fn written(alter: impl Fn(&mut ImageChange)) -> Event {
        let mut write = write();
        alter(&mut write);
        Event::ImageChange(Box::new(write))
    }

    #[test]
    fn every_condition_about_the_act_must_be_fulfilled() {
        use serde_json::json;
        let is = |conditions| is_excepted(writes(conditions), &[written(|_| {})]);
        for fulfilled in [
            json!({}),
            json!({"operation": ["truncate", "open_write"]}),
            json!({"origin": ["application"]}),
            json!({"path": ["/etc/*.conf"]}),
            json!({"exe": ["/usr/bin/python3.*"]}),
        ] {
            assert!(is(fulfilled.clone()), "{fulfilled}");
        }
        for other in [
            json!({"operation": ["truncate"]}),
            json!({"origin": ["outside"]}),
            json!({"path": ["/etc/*"], "origin": ["entered"]}),
            json!({"path": ["/etc/app"]}),
            json!({"exe": ["/usr/bin/perl"]}),
            json!({"via": ["exec"]}),
            json!({"ancestor": ["/usr/bin/python3.*"]}),
            json!({"script": ["/etc/*"]}),
        ] {
            assert!(!is(other.clone()), "{other}");
        }
        assert!(!is_excepted(shells(json!({})), &[written(|_| {})]));
    }

    #[test]
    fn a_finding_says_what_exceptions_can_demand() {
        use serde_json::{Value, json, to_value};
        let said = |events: &[Event]| {
            let last = found(Policy::default(), events).pop().expect("there is a finding");
            to_value(last).expect("it can be written")["evidence"].clone()
        };
        assert_eq!(said(&[written(|_| {})]), json!({"path": true, "exe": "/usr/bin/python3.12"}));
        let detail = |alter: fn(&mut crate::event::Detail)| {
            said(&[written(|write| alter(write.detail.as_mut().expect("the sample has it")))])
        };
        assert_eq!(detail(|detail| detail.exe_layer = Some(Layer::Upper)), json!({"path": true}));
        assert_eq!(detail(|detail| detail.path.is_direct = false), json!({"exe": "/usr/bin/python3.12"}));
        assert_eq!(said(&[written(|write| write.detail = None)]), Value::Null);
        // Where a directory was moved, only the path of the file is left.
        let moved = written(|write| (write.op, write.file.mode) = (ImageOp::Rename, 0o40755));
        assert_eq!(said(&[moved, written(|_| {})]), json!({"path": true}));

        let mut server = exec(Origin::Entrypoint, "/usr/bin/node", &["node"]);
        (server.process.pid, server.process.start_time, server.at.time) = (9, 5, 6);
        let mut shell = exec(Origin::Application, "/bin/dash", &["/bin/sh", "/srv/run"]);
        (shell.is_interpreter, shell.head) = (true, Some([0; 256]));
        let above = &mut shell.process.ancestors[0];
        (above.pid, above.start_time, above.in_container) = (9, 5, true);
        let events = |shell: &Exec| {
            let [server, shell] = [&server, shell].map(|exec| Event::Exec(Box::new(exec.clone())));
            [server, Event::Script(Box::new(script("/srv/run"))), shell]
        };
        assert_eq!(
            said(&events(&shell)),
            json!({"path": true, "exe": "/bin/dash", "script": "/srv/run", "ancestors": ["/usr/bin/node"]})
        );
        // What is critical has no exception.
        shell.process.stdio[0] = crate::event::StdioKind::Socket;
        shell.args = args(&["/bin/sh"]);
        assert_eq!(said(&events(&shell)), Value::Null);
    }

    #[test]
    fn the_evidence_of_a_session_is_that_of_all_programs_that_matter() {
        let said = |later: &str, tty: bool| {
            let run = |exe: &str, pid| {
                let mut exec = exec(Origin::Entered, exe, &[exe]);
                let session = Session { start_time: 70, pid: 1234, via: Via::Exec };
                (exec.process.pid, exec.process.session) = (pid, Some(session));
                exec.process.tty = tty.then(|| super::super::samples::name("pts0"));
                Event::Exec(Box::new(exec))
            };
            // What is published last is said of both programs.
            let (mut detector, mut all) = (Detector::default(), Vec::new());
            for event in [run("/usr/bin/top", 1234), run(later, 1235)] {
                detector.detect(&event, &own_container(), &context(), |_| {});
            }
            detector.stop(100, &context(), |line| all.push(line));
            let told = all.into_iter().find_map(|line| match line {
                crate::finding::Line::Finding(finding) => Some(finding),
                crate::finding::Line::Notice(_) => None,
            });
            let evidence = told.expect("it is told").evidence.expect("it can be excepted");
            (evidence.via, evidence.exe.map(|exe| exe.to_string()))
        };
        let top = || Some("/usr/bin/top".to_owned());
        assert_eq!(said("/usr/bin/top", true), (Some(Via::Exec), top()));
        assert_eq!(said("/usr/bin/less", true), (Some(Via::Exec), None));
        assert_eq!(said("/usr/bin/less", false), (Some(Via::Exec), top()));
    }

    #[test]
    fn a_program_that_is_not_the_images_is_no_evidence() {
        let exe = || writes(serde_json::json!({"exe": ["/usr/bin/*"]}));
        let is = |alter: fn(&mut crate::event::Detail)| {
            is_excepted(exe(), &[written(|write| alter(write.detail.as_mut().expect("the sample has it")))])
        };
        assert!(is(|_| {}));
        assert!(!is(|detail| detail.exe_layer = Some(Layer::Upper)));
        assert!(!is(|detail| detail.exe_layer = None));
        assert!(!is(|detail| detail.exe_dev = 46));
        assert!(!is(|detail| detail.exe.is_direct = false));
        assert!(!is(|detail| detail.exe.truncated = true));
        // A path that leads through a mount is not the path of the file.
        let is_there = |is_direct| {
            let path = writes(serde_json::json!({"path": ["/etc/**"]}));
            is_excepted(path, &[written(|write| write.detail.as_mut().expect("it has it").path.is_direct = is_direct)])
        };
        assert!(is_there(true) && !is_there(false));
        let is_on = |dev| {
            let path = writes(serde_json::json!({"path": ["/etc/**"]}));
            is_excepted(path, &[written(|write| write.file.dev = dev)])
        };
        assert!(is_on(45) && !is_on(46));
        // A file that gets another name must have an allowed one before and after that.
        let is_renamed = |to: &str| {
            let write = writes(serde_json::json!({"path": ["/etc/**"]}));
            let renamed = written(|write| {
                write.op = ImageOp::Rename;
                write.detail.as_mut().expect("it has it").new_path = Some(path(to));
            });
            is_excepted(write, &[renamed])
        };
        assert!(is_renamed("/etc/new") && !is_renamed("/usr/bin/new"));
    }

    #[test]
    fn where_a_directory_was_moved_nothing_is_evidence() {
        let is = |mode: u32, op, has_detail: bool| {
            let moved = written(|write| {
                (write.op, write.file.mode) = (op, mode);
                write.detail.take_if(|_| !has_detail);
            });
            is_excepted(writes(serde_json::json!({"exe": ["/usr/bin/*"]})), &[moved, written(|_| {})])
        };
        assert!(is(0o100644, ImageOp::Rename, true));
        assert!(is(0o40755, ImageOp::Chmod, true));
        assert!(!is(0o40755, ImageOp::Rename, true));
        assert!(!is(0o100644, ImageOp::Exchange, true));
        assert!(!is(0, ImageOp::Rename, false));
    }

    #[test]
    fn a_script_is_evidence_if_the_kernel_has_executed_it() {
        let policy = || shells(serde_json::json!({"script": ["/srv/*"]}));
        let is = |alter: fn(&mut Script, &mut Exec)| {
            let mut script = script("/srv/run");
            let mut exec = exec(Origin::Application, "/bin/dash", &["/bin/sh", "/srv/run"]);
            (exec.is_interpreter, exec.head) = (true, Some([0; 256]));
            alter(&mut script, &mut exec);
            is_excepted(policy(), &[Event::Script(Box::new(script)), Event::Exec(Box::new(exec))])
        };
        assert!(is(|_, _| {}));
        // The exec of the script has failed, and this is another one.
        assert!(!is(|_, exec| exec.is_interpreter = false));
        assert!(!is(|script, _| script.file.layer = Some(Layer::Upper)));
        assert!(!is(|script, _| script.file.dev = 46));
        assert!(!is(|script, _| script.path.is_direct = false));
        assert!(!is(|script, _| script.is_input = true));
        // It was called by another name, which can be a link that leads elsewhere by now, or the record was lost.
        assert!(!is(|_, exec| exec.args = args(&["/bin/sh", "./run"])));
        assert!(!is(|_, exec| exec.head = None));
    }

    #[test]
    fn an_ancestor_is_evidence_if_it_had_executed_a_program_of_the_image() {
        let is = |alter: fn(&mut Exec, &mut Exec)| {
            let mut parent = exec(Origin::Entrypoint, "/usr/bin/node", &["node"]);
            (parent.process.pid, parent.process.start_time, parent.at.time) = (9, 5, 6);
            let mut child = exec(Origin::Application, "/bin/dash", &["sh", "-c", "true"]);
            let above = &mut child.process.ancestors[0];
            (above.pid, above.start_time, above.in_container) = (9, 5, true);
            alter(&mut parent, &mut child);
            let policy = shells(serde_json::json!({"ancestor": ["/usr/bin/node"]}));
            let events = [Event::Exec(Box::new(parent)), Event::Exec(Box::new(child))];
            let found = found(policy, &events);
            let shell = found.iter().find(|finding| finding.finding == Kind::ShellInContainer);
            shell.expect("there is one").candidates.is_some()
        };
        assert!(is(|_, _| {}));
        assert!(!is(|parent, _| parent.file.layer = Some(Layer::Upper)));
        assert!(!is(|_, child| child.process.ancestors[0].in_container = false));
        // It was another program when it started the process.
        assert!(!is(|parent, child| parent.at.time = child.process.start_time + 1));
        // It has adopted a process of a session.
        assert!(!is(|_, child| child.process.session = Some(Session { start_time: 60, pid: 8, via: Via::Exec })));
    }

    #[test]
    fn what_is_critical_has_no_override() {
        let overriding = |mut policy: Policy| Override {
            name: "x".to_owned(),
            reason: "It is known.".to_owned(),
            severity: Severity::Info,
            conditions: policy.exceptions.remove(0).conditions,
        };
        let overrides = [writes(serde_json::json!({})), shells(serde_json::json!({}))].map(overriding).to_vec();
        let candidates = |event: Event| {
            let policy = Policy { overrides: overrides.clone(), ..Policy::default() };
            let first = found(policy, &[event]).swap_remove(0);
            (first.severity, first.candidates.map(|candidates| candidates.numbers().to_vec()))
        };
        let shell = |stdio| {
            let mut shell = exec(Origin::Application, "/bin/dash", &["sh", "-i"]);
            shell.process.stdio = [stdio; 3];
            Event::Exec(Box::new(shell))
        };
        assert_eq!(candidates(written(|_| {})), (Severity::Medium, Some(vec![0])));
        assert_eq!(candidates(shell(StdioKind::Null)), (Severity::Medium, Some(vec![1])));
        assert_eq!(candidates(shell(StdioKind::Socket)), (Severity::Critical, None));
    }

    #[test]
    fn the_acts_of_a_session_are_told_apart() {
        let mut policy = shells(serde_json::json!({}));
        policy.exceptions.extend(writes(serde_json::json!({"path": ["/etc/app.conf"]})).exceptions);
        let session = || Some(Session { start_time: 70, pid: 1234, via: Via::Exec });
        let mut shell = exec(Origin::Entered, "/bin/dash", &["sh", "-c", "true"]);
        shell.process.session = session();
        let act = |path: &str| {
            let mut write = change(ImageOp::OpenWrite, Layer::Lower, 0o100644, path);
            let process = &mut write.detail.as_mut().expect("it has it").process;
            (process.origin, process.session) = (Origin::Entered, session());
            Event::ImageChange(Box::new(write))
        };
        let all = found(policy, &[Event::Exec(Box::new(shell)), act("/srv/x"), act("/etc/app.conf")]);
        let session = all.iter().rfind(|finding| finding.finding == Kind::Session).expect("it is told");
        let parts = session.parts.iter().map(|Part { severity, candidates }| {
            (*severity, candidates.as_ref().map(|candidates| candidates.numbers().to_vec()))
        });
        assert_eq!(
            parts.collect::<Vec<_>>(),
            [(Severity::Medium, None), (Severity::Medium, Some(vec![0])), (Severity::High, Some(vec![1]))]
        );
    }
}
