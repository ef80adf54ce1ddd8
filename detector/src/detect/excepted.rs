//! Which exceptions of the policy an act fulfils.
//!
//! **Evidence**: what an exception demands of programs is fulfilled only by files of the image: they are in a lower
//! layer of the container's own root, and their paths lead through no mount and begin at no other root, so that nobody
//! in the container can make them up. Where a directory of the image got another name, the paths below it are chosen by
//! whoever did that: nothing in this container is evidence any more. The path of a file counts only if it is such a
//! path, too.
//!
//! A script counts if the kernel has executed it, and not if it is an argument of a shell, since arguments prove
//! nothing. A program that was executed before the detector started is no evidence for what its descendants do.

use std::sync::Arc;

use super::describe;
use super::process::Programs;
use crate::container::table::TrackedContainer;
use crate::event::{Event, ImageOp, Layer, Path, Process, Session};
use crate::finding::{Finding, Kind, Op, Severity};
use crate::policy::{Candidates, Conditions, Exception, PathPattern, Policy};
use crate::recent::Recent;

/// In how many containers moved directories are remembered at most.
const MOST: usize = 16_384;

/// The policy, and what weakens evidence.
#[derive(Debug)]
pub(super) struct Exceptions {
    policy: Arc<Policy>,
    /// The containers in which a directory was moved.
    moved: Recent<u64, ()>,
}

impl Default for Exceptions {
    fn default() -> Self {
        Self { policy: Arc::default(), moved: Recent::new(MOST) }
    }
}

impl Exceptions {
    /// Replaces the policy.
    pub(super) fn set(&mut self, policy: Policy) {
        self.policy = Arc::new(policy);
    }

    /// Learns from an event what weakens evidence.
    pub(super) fn take(&mut self, event: &Event, container: &TrackedContainer) {
        let Event::ImageChange(change) = event else { return };
        // Only one of two files that exchange their names is known, and none if the record was lost.
        let is_unknown = change.op == ImageOp::Exchange || change.detail.is_none();
        let is_directory = change.file.mode & libc::S_IFMT == libc::S_IFDIR;
        if matches!(change.op, ImageOp::Rename | ImageOp::Exchange) && (is_unknown || is_directory) {
            self.moved.insert(container.cgroup_id, ());
        }
    }

    /// Adds to the findings about an event the exceptions that the act fulfils.
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
        let Some(act) = self.act(event, programs, container) else { return };
        for finding in findings {
            finding.candidates = Candidates::of(&self.policy, |exception| act.fulfils(exception, finding));
        }
    }

    /// The exceptions that the session fulfils which begins with this event.
    pub(super) fn of_session(
        &mut self,
        event: &Event,
        programs: &mut Programs,
        container: &TrackedContainer,
    ) -> Option<Candidates> {
        let act = self.act(event, programs, container)?;
        Candidates::of(&self.policy, |exception| {
            let Conditions { finding, operation, path, .. } = &exception.conditions;
            finding.contains(&Kind::Session) && operation.is_empty() && path.is_empty() && act.is_by(exception)
        })
    }

    /// What exceptions can demand of an act. Returns `None` if there are no exceptions, or if too little is known.
    fn act<'a>(&mut self, event: &'a Event, programs: &mut Programs, container: &TrackedContainer) -> Option<Act<'a>> {
        if self.policy.exceptions.is_empty() {
            return None;
        }
        let (process, exe) = event.actor()?;
        let is_moved = self.moved.get(&container.cgroup_id).is_some();
        let exe_file = match event {
            Event::Exec(exec) => Some((exec.file.dev, exec.file.layer)),
            _ => event.detail().map(|detail| (detail.exe_dev, detail.exe_layer)),
        };
        let is_of_image = exe_file.is_some_and(|(dev, layer)| is_of_image(dev, layer, exe, container));
        let program = programs.of(process, exe);
        let script = program.and_then(|program| program.image_script.clone());
        let above = process.ancestors.iter().filter(|ancestor| ancestor.in_container);
        let ancestors = above.filter_map(|ancestor| {
            let program = programs.get(ancestor.pid, ancestor.start_time)?;
            program.is_of_image.then(|| program.exe.clone())
        });
        let ancestors: Vec<_> = ancestors.filter(|_| !is_moved).collect();
        let (path, new_path) = match event {
            Event::Exec(_) => (Some(exe), None),
            _ => event.detail().map_or((None, None), |detail| (Some(&detail.path), detail.new_path.as_ref())),
        };
        Some(Act {
            process,
            path,
            new_path,
            exe: Some(exe).filter(|_| is_of_image && !is_moved),
            script: script.filter(|_| !is_moved),
            ancestors,
        })
    }
}

/// What exceptions can demand of an act.
struct Act<'a> {
    process: &'a Process,
    path: Option<&'a Path>,
    new_path: Option<&'a Path>,
    /// The executable, if it is evidence.
    exe: Option<&'a Path>,
    /// The script that the process runs, if it is evidence.
    script: Option<Path>,
    /// The executables of the ancestors in the container that are evidence.
    ancestors: Vec<Path>,
}

impl Act<'_> {
    /// Whether a finding about the act fulfils what the exception demands, apart from the container.
    fn fulfils(&self, exception: &Exception, finding: &Finding) -> bool {
        let Conditions { finding: kinds, operation, path, .. } = &exception.conditions;
        let file = finding.file.as_ref();
        let is_operation = |op: &Op| operation.contains(op);
        kinds.contains(&finding.finding)
            && finding.severity < Severity::Critical
            && (operation.is_empty() || file.and_then(|file| file.op.as_ref()).is_some_and(is_operation))
            && (path.is_empty() || self.is_at(path, finding))
            && self.is_by(exception)
    }

    /// Whether the file that the finding is about has such a path, and the new one too if it gets another one.
    fn is_at(&self, patterns: &[PathPattern], finding: &Finding) -> bool {
        let Some(path) = self.path else { return false };
        // The finding can be about a script that the act has executed.
        let is_about = finding.file.as_ref().is_some_and(|file| file.path == describe::path(path));
        is_about && std::iter::once(path).chain(self.new_path).all(|path| matches(patterns, path))
    }

    /// Whether the process fulfils what the exception demands.
    fn is_by(&self, exception: &Exception) -> bool {
        let Conditions { origin, via, exe, ancestor, script, .. } = &exception.conditions;
        let is_via = |session: Session| via.contains(&session.via);
        (origin.is_empty() || origin.contains(&self.process.origin))
            && (via.is_empty() || self.process.session.is_some_and(is_via))
            && (exe.is_empty() || self.exe.is_some_and(|path| matches(exe, path)))
            && (script.is_empty() || self.script.as_ref().is_some_and(|path| matches(script, path)))
            && (ancestor.is_empty() || self.ancestors.iter().any(|path| matches(ancestor, path)))
    }
}

fn matches(patterns: &[PathPattern], path: &Path) -> bool {
    path.is_direct && !path.truncated && patterns.iter().any(|pattern| pattern.matches(&path.bytes))
}

/// Whether a file is one of the container's image, and this path of it is evidence.
pub(super) fn is_of_image(dev: u32, layer: Option<Layer>, path: &Path, container: &TrackedContainer) -> bool {
    layer == Some(Layer::Lower) && container.root_dev == Some(dev) && path.is_direct && !path.truncated
}

#[cfg(test)]
mod tests {
    use super::super::Detector;
    use super::super::samples::{change, container, context, exec, path, script};
    use super::*;
    use crate::event::{Exec, ImageChange, Origin, Script, Via};
    use crate::finding::Part;

    /// A policy with one exception.
    fn policy(conditions: serde_json::Value) -> Policy {
        let exception =
            serde_json::json!({"name": "x", "reason": "It is known.", "owner": "us", "conditions": conditions});
        Policy { exceptions: vec![serde_json::from_value(exception).expect("it is an exception")] }
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
            exec.is_interpreter = true;
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
    }

    #[test]
    fn an_ancestor_is_evidence_if_it_was_seen_to_execute_a_program_of_the_image() {
        let is = |layer, in_container| {
            let mut parent = exec(Origin::Entrypoint, "/usr/bin/node", &["node"]);
            (parent.process.pid, parent.process.start_time, parent.file.layer) = (9, 5, Some(layer));
            let mut child = exec(Origin::Application, "/bin/dash", &["sh", "-c", "true"]);
            let above = &mut child.process.ancestors[0];
            (above.pid, above.start_time, above.in_container) = (9, 5, in_container);
            let policy = shells(serde_json::json!({"ancestor": ["/usr/bin/node"]}));
            is_excepted(policy, &[Event::Exec(Box::new(parent)), Event::Exec(Box::new(child))])
        };
        assert!(is(Layer::Lower, true));
        assert!(!is(Layer::Upper, true));
        assert!(!is(Layer::Lower, false));
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
