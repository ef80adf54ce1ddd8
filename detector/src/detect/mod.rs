//! Turns events into findings. There is no I/O and no clock here: the findings depend only on the events.
//!
//! Each kind of finding has a module. A new kind needs a line in [`Detector::detect`] and a
//! [`Kind`](crate::finding::Kind).

mod assessment;
mod cgroup_escape;
mod changes;
mod code;
pub(crate) mod content;
mod context;
pub(crate) mod describe;
mod device_write;
mod drifted_exec;
mod excepted;
mod expected;
mod fileless_exec;
mod handle_open;
mod hashes;
mod host_exec;
mod image_shadowed;
mod image_write;
mod installations;
mod interpreter;
mod kernel_control_write;
mod pace;
pub(crate) mod place;
pub(crate) mod process;
pub(crate) mod repeats;
mod script;
mod sensor_tampering;
mod session;
mod sessions;
mod shell;
mod spawned;
mod test_alert;
mod volume_exec;

use std::collections::{BTreeSet, HashSet};

use detector_common::map::{Count, CountedKey};

use crate::container::table::TrackedContainer;
use crate::event::{At, Detail, Event, Interpret, Origin, Path, Process, Script, ServingSign};
use crate::finding::{Finding, Line, Notice, NoticeEvent, SCHEMA_VERSION};
use crate::policy::Policy;
use assessment::Assessment;
use changes::Changes;
use code::Code;
use content::{Content, Look};
use describe::Actor;
use excepted::Exceptions;
use expected::Expectations;
use hashes::Hashes;
use installations::Installations;
use interpreter::Role;
use process::{Program, Programs};
use repeats::Repeats;
use sessions::{Sessions, Surroundings};
use spawned::Spawned;

pub use context::Context;
pub(crate) use describe::container;
pub(crate) use hashes::Hashed;
pub(crate) use test_alert::TestAlert;

/// What was done before: to files, and by package managers and builds.
type Past<'a> = (&'a mut Changes, &'a mut Installations);

/// Makes the findings about the events of a container and passes them on.
struct Report<'a, F> {
    container: &'a TrackedContainer,
    context: &'a Context,
    found: F,
}

impl<F: FnMut(Finding)> Report<'_, F> {
    /// Reports what a detection says about an event that happened `at` this time and was caused by this process.
    fn add(&mut self, at: At, actor: Option<&Actor>, assessment: Assessment) {
        let Assessment { rule, message, file, mitre } = assessment;
        (self.found)(Finding {
            time: self.context.wall(at.time),
            schema: SCHEMA_VERSION,
            id: self.context.id(at, rule.kind()),
            revision: 1,
            node: self.context.node.clone(),
            finding: rule.kind(),
            severity: rule.severity(),
            severity_rule: Some(rule),
            expected: None,
            overridden: None,
            message,
            container: (at.container != 0).then(|| describe::container(self.container)),
            process: actor.map(|actor| actor.describe(self.context)),
            file,
            session: None,
            summary: None,
            repeated: None,
            mitre: mitre.iter().map(|&id| id.into()).collect(),
            suppressed_by: None,
            evidence: None,
            visit: None,
            typical: None,
            candidates: None,
            parts: Vec::new(),
        });
    }

    /// Reports code that should not run in a container.
    fn add_foreign(&mut self, code: &Code, (changes, installations): Past<'_>) {
        let Some(mut found) = self.foreign(code) else { return };
        let installation = code.actor.as_ref().and_then(|actor| installations.of(actor.process, self.container));
        let change = changes.of(code);
        installations.leave(code, &found, change);
        if let Some(change) = change {
            found.message.push_str(&change.message(code.at));
            if let Some(file) = &mut found.file {
                file.changed = Some(change.describe(self.context, installation.as_deref()));
            }
        }
        self.add_code(code, Some(found));
    }

    /// What there is to say about code that should not run in a container.
    fn foreign(&self, code: &Code) -> Option<Assessment> {
        fileless_exec::detect(code, self.container)
            .or_else(|| drifted_exec::detect(code, self.container))
            .or_else(|| volume_exec::detect(code, self.container, self.context))
    }

    /// Reports the code if it is a shell.
    fn add_shell(&mut self, code: &Code, look: Option<Look>, script: Option<&Script>) {
        self.add_code(code, shell::detect(code, look, script, self.container));
    }

    fn add_code(&mut self, code: &Code, assessment: Option<Assessment>) {
        if let Some(assessment) = assessment {
            self.add(code.at, code.actor.as_ref(), assessment);
        }
    }
}

/// All detections, and what they remember.
#[derive(Debug, Default)]
pub struct Detector {
    programs: Programs,
    scripts: script::Scripts,
    modules: interpreter::Modules,
    changes: Changes,
    hashes: Hashes,
    sessions: Sessions,
    spawned: Spawned,
    installations: Installations,
    expectations: Expectations,
    exceptions: Exceptions,
    repeats: Repeats,
}

impl Detector {
    /// A detector that counts what is done again and again. The default one gives each act a finding of its own.
    pub(crate) fn counting() -> Self {
        Self { repeats: Repeats::new(true), ..Self::default() }
    }

    /// Replaces the policy.
    pub(crate) fn set_policy(&mut self, policy: Policy) {
        self.repeats.decide_each(!policy.overrides.is_empty());
        self.exceptions.set(policy);
    }

    /// The files that the probes are to count and not to report, if these are not what they know.
    pub(crate) fn wanted_counts(&self, known: &BTreeSet<CountedKey>) -> Option<BTreeSet<CountedKey>> {
        self.repeats.wanted_counts(known)
    }

    /// Takes what the probes have counted until this time, in nanoseconds since boot. Returns how many files of this
    /// are in no finding.
    pub(crate) fn take_counts(&mut self, counts: &[(CountedKey, Count)], now: u64) -> u64 {
        self.repeats.take_counts(counts, now)
    }

    /// Remembers a program that was running before the events began.
    pub(crate) fn remember(&mut self, program: Program) {
        self.programs.insert(program);
    }

    /// Records that the first program of a container is executed.
    pub(crate) fn start_container(&mut self, container: &TrackedContainer) {
        self.expectations.start(container);
    }

    /// Records that what a container does until it serves others, as this shows, is its start-up.
    pub(crate) fn begin_startup(&mut self, container: &TrackedContainer, sign: ServingSign) {
        self.expectations.begin_startup(container, sign);
    }

    /// Records that a container ran before the events began.
    pub(crate) fn resume_container(&mut self, container: &TrackedContainer) {
        self.expectations.resume(container);
    }

    /// Records that not everything is seen any more that is done to the container with this cgroup.
    pub(crate) fn unwatch(&mut self, cgroup: u64) {
        self.expectations.unwatch(cgroup);
    }

    /// Learns from a notice about the sensor what was not seen.
    pub(crate) fn learn(&mut self, notice: &NoticeEvent) {
        self.expectations.learn(notice);
    }

    /// Records a session that had begun before the events began, at this time and in this container. The process is
    /// the first one of the session.
    pub(crate) fn resume(
        &mut self,
        process: &Process,
        exe: &Path,
        at: At,
        surroundings: (&TrackedContainer, &Context),
    ) {
        let (container, context) = surroundings;
        let actor = Some(Actor::new(process, exe, self.programs.get(process.pid, process.start_time)));
        let around = Surroundings {
            container,
            is_unchanged: false,
            context,
            actor,
            branch: None,
            parent: None,
            content: None,
            visit: None,
            evidence: None,
            candidates: None,
        };
        process.session.into_iter().for_each(|session| self.sessions.resume(session, at, around));
    }

    /// The finding that somebody asks for at this time, in nanoseconds since boot. `nowhere` is no container.
    pub(crate) fn test_alert(alert: TestAlert, time: u64, nowhere: &TrackedContainer, context: &Context) -> Finding {
        let mut finding = None;
        let mut report = Report { container: nowhere, context, found: |found| finding = Some(found) };
        report.add(At { time, number: 0, cgroup: 0, container: 0 }, None, test_alert::assess(alert));
        let mut finding: Finding = finding.expect("the report passes it on");
        finding.severity = alert.severity;
        finding.severity_rule.take_if(|rule| rule.severity() != alert.severity);
        finding
    }

    /// Looks for findings in an event of a container, and passes each to `found`. If it is an event of a session, this
    /// can be the finding of the session, too.
    pub fn detect(
        &mut self,
        event: &Event,
        container: &TrackedContainer,
        context: &Context,
        mut found: impl FnMut(Finding),
    ) {
        let mut findings = Vec::new();
        self.detect_acts(event, Report { container, context, found: |finding| findings.push(finding) });
        if let Event::Exec(exec) = event {
            self.hashes.add(exec, &mut findings, context);
            self.sessions.take_program(exec);
        }
        let is_own = self.is_own(event);
        self.expectations.take(event, is_own, container);
        self.spawned.take(event);
        let program = match event.actor() {
            Some((process, exe)) if !findings.is_empty() => self.programs.of(process, exe),
            _ => None,
        };
        self.expectations.judge(event, is_own, program, container, &mut findings);
        self.exceptions.take(event, container);
        self.exceptions.judge(event, &mut self.programs, container, &mut findings);
        self.add_to_session(event, findings, None, (container, context), &mut found);
    }

    /// Whether the process that acts belongs to what the container has started, and to no session. What only has a
    /// socket as its standard input, as the children of Node.js do, is in none.
    fn is_own(&mut self, event: &Event) -> bool {
        match (event, event.actor()) {
            (Event::Exit(exit), _) => self.sessions.is_silent(exit.session),
            (_, Some((Process { origin: Origin::Application, session: Some(of), .. }, _))) => {
                self.sessions.is_silent(*of)
            }
            (_, actor) => actor.is_some_and(|(process, _)| expected::is_own(process)),
        }
    }

    /// Adds an event and the findings about it to the session that the acting process belongs to. `content` is what the
    /// executed file is, if it was inspected.
    fn add_to_session(
        &mut self,
        event: &Event,
        findings: Vec<Finding>,
        content: Option<Content>,
        (container, context): (&TrackedContainer, &Context),
        found: &mut dyn FnMut(Finding),
    ) {
        let installation = match event.actor() {
            Some((process, _)) if !findings.is_empty() => self.installations.of(process, container),
            _ => None,
        };
        let branch = event.actor().and_then(|(process, _)| {
            let is_told = |session| self.sessions.is_told(session);
            self.spawned.branch(event, process, &findings, installation.is_some(), is_told)
        });
        let actor = event.actor().filter(|(process, _)| process.session.is_some() || branch.is_some());
        let parent = actor.and_then(|(process, _)| self.programs.of_parent(process)).cloned();
        let parent = parent.as_ref().map(|program| &program.args);
        let is_unchanged = self.expectations.is_unchanged(container);
        let visit = match event {
            Event::Exec(exec) if content.is_none() => {
                let program = self.programs.get(exec.process.pid, exec.process.start_time);
                self.expectations.visit(exec, program, container)
            }
            _ => None,
        };
        let excepted = actor.and_then(|_| self.exceptions.of_session(event, &mut self.programs, container));
        let (evidence, candidates) = excepted.unzip();
        let actor = actor.map(|(process, exe)| match event {
            Event::Exec(exec) => Actor::of_exec(exec),
            _ => Actor::new(process, exe, self.programs.of(process, exe)),
        });
        let (repeats, hashes, mut is_of_session) = (&mut self.repeats, &mut self.hashes, false);
        let mut publish = |finding: Finding| {
            if let Event::Exec(exec) = event {
                hashes.note(exec, &finding, context);
            }
            found(finding);
        };
        let around = Surroundings {
            container,
            is_unchanged,
            context,
            actor,
            branch,
            parent,
            content,
            visit: visit.as_ref(),
            evidence: evidence.as_ref(),
            candidates: candidates.as_ref().and_then(Option::as_ref),
        };
        self.sessions.take(event, findings, around, &mut |mut finding| {
            is_of_session |= finding.session.is_some();
            if finding.session.is_some() || installation.is_some() {
                finding.typical = None;
            }
            repeats.take(event, finding, installation.as_deref(), (container, context), &mut publish);
        });
        if is_of_session {
            self.expectations.disturb(container, event.time());
        }
        if let Event::Exit(exit) = event
            && exit.is_last
        {
            self.repeats.end_session(&context.session_id(exit.session), exit.at.time, context, found);
        }
    }

    /// Publishes the findings that are due at this time, in nanoseconds since boot.
    pub(crate) fn take_time(&mut self, now: u64, context: &Context, mut out: impl FnMut(Line)) {
        self.repeats.take_time(now, context, &mut |finding| out(Line::Finding(Box::new(finding))));
        self.sessions.take_time(now, context, &mut out);
    }

    /// When [`take_time`](Self::take_time) must be called, in nanoseconds since boot.
    pub(crate) fn due(&self) -> Option<u64> {
        self.sessions.due().into_iter().chain(self.repeats.due()).min()
    }

    /// Publishes what is not published yet, because the detector stops.
    pub(crate) fn stop(&mut self, now: u64, context: &Context, mut out: impl FnMut(Line)) {
        self.repeats.stop(now, context, &mut |finding| out(Line::Finding(Box::new(finding))));
        self.sessions.stop(now, context, &mut out);
    }

    /// Ends the sessions of a container whose cgroup was removed, and publishes what is counted of it.
    pub(crate) fn end_container(&mut self, cgroup: u64, now: u64, context: &Context, mut found: impl FnMut(Finding)) {
        self.sessions.end_container(cgroup, now, context);
        self.repeats.end_container(cgroup, now, context, &mut found);
    }

    /// Ends the sessions of which no process is left. `living` has the first processes of those with any.
    pub(crate) fn sweep(&mut self, living: &HashSet<(u32, u64)>, now: u64, context: &Context) {
        self.sessions.sweep(living, now, context);
    }

    /// How many sessions have no finding, because too many were open.
    pub(crate) fn refused_sessions(&self) -> u64 {
        self.sessions.refused()
    }

    fn detect_acts(&mut self, event: &Event, mut report: Report<'_, impl FnMut(Finding)>) {
        let container = report.container;
        match event {
            Event::Exec(exec) => {
                let scripts = self.scripts.take(exec);
                self.programs.insert(Program::of(exec, &scripts, container));
                self.installations.insert(exec, &scripts, container);
                let code = Code::executed(exec);
                report.add_shell(&code, None, scripts.iter().find(|script| !script.is_input));
                report.add_foreign(&code, (&mut self.changes, &mut self.installations));
                for script in &scripts {
                    let code = Code::interpreted(script, exec);
                    report.add_shell(&code, None, None);
                    report.add_foreign(&code, (&mut self.changes, &mut self.installations));
                }
            }
            Event::Script(script) => self.scripts.insert(Script::clone(script)),
            Event::MapExec(mapped) => {
                let code = Code::mapped(mapped, actor(&mut self.programs, mapped.detail.as_ref()));
                report.add_shell(&code, None, None);
                report.add_foreign(&code, (&mut self.changes, &mut self.installations));
            }
            Event::Interpret(read) => self.detect_interpreted(read, None, &mut report),
            Event::ImageChange(change) => {
                let actor = actor(&mut self.programs, change.detail.as_ref());
                let installation = actor.as_ref().and_then(|actor| self.installations.of(actor.process, container));
                self.changes.take(change, actor.as_ref(), installation.as_deref());
                report.add(change.at, actor.as_ref(), image_write::detect(change, actor.as_ref(), container));
            }
            Event::MountChange(change) => {
                let actor = actor(&mut self.programs, change.detail.as_ref());
                report.add(change.at, actor.as_ref(), image_shadowed::detect(change, actor.as_ref(), container));
            }
            Event::DeviceOpen(open) => {
                let actor = actor(&mut self.programs, open.detail.as_ref());
                report.add(open.at, actor.as_ref(), device_write::detect(open, actor.as_ref(), container));
            }
            Event::ControlOpen(open) => {
                let actor = actor(&mut self.programs, open.detail.as_ref());
                let detect = match open.control.switches_probes() {
                    true => sensor_tampering::detect_switch,
                    false => kernel_control_write::detect,
                };
                report.add(open.at, actor.as_ref(), detect(open, actor.as_ref(), container));
            }
            Event::Tampering(tampering) => {
                let program = self.programs.of(&tampering.process, &tampering.exe);
                let actor = Actor::new(&tampering.process, &tampering.exe, program);
                report.add(tampering.at, Some(&actor), sensor_tampering::detect(tampering, &actor, container));
            }
            Event::HandleOpen(open) => {
                let actor = actor(&mut self.programs, open.detail.as_ref());
                report.add(open.at, actor.as_ref(), handle_open::detect(open, actor.as_ref(), container));
            }
            Event::HostExec(exec) => {
                let actor = actor(&mut self.programs, exec.detail.as_ref());
                report.add(exec.at, actor.as_ref(), host_exec::detect(exec, actor.as_ref(), container));
            }
            Event::CgroupEscape(escape) => {
                let program = self.programs.of(&escape.process, &escape.exe);
                let actor = Actor::new(&escape.process, &escape.exe, program);
                report.add(escape.at, Some(&actor), cgroup_escape::detect(escape, &actor, container));
            }
            Event::Exit(_)
            | Event::Listen(_)
            | Event::Accept(_)
            | Event::CgroupCreated(_)
            | Event::CgroupRemoved(_) => {}
        }
    }

    /// Looks for findings in an event whose file was looked at. This is for the events that [need it](needs_content);
    /// what others show is found already.
    pub(crate) fn detect_by_content(
        &mut self,
        event: &Event,
        look: Look,
        container: &TrackedContainer,
        context: &Context,
        mut found: impl FnMut(Finding),
    ) {
        let mut findings = Vec::new();
        let mut report = Report { container, context, found: |finding| findings.push(finding) };
        if let Event::Interpret(read) = event {
            self.detect_interpreted(read, look.ok(), &mut report);
        } else if let Some(code) = code_of(event, |detail| actor(&mut self.programs, detail)) {
            report.add_shell(&code, Some(look), None);
        }
        let is_own = self.is_own(event);
        self.expectations.judge(event, is_own, None, container, &mut findings);
        self.exceptions.judge(event, &mut self.programs, container, &mut findings);
        let content = Some(look.unwrap_or(Content::Other));
        self.add_to_session(event, findings, content, (container, context), &mut found);
    }

    /// Whether the SHA-256 of the file that this event is about is asked for.
    pub(crate) fn asks_for_hash(&mut self, event: &Event) -> bool {
        matches!(event, Event::Exec(exec) if self.hashes.asks_for(exec))
    }

    /// Takes the SHA-256 of the file that this event is about. Returns the notice about the finding that waits for it.
    pub(crate) fn take_hash(&mut self, event: &Event, hashed: Hashed, context: &Context) -> Option<Notice> {
        let Event::Exec(exec) = event else { return None };
        self.hashes.take(exec, hashed, context)
    }

    /// Reports a file that a program reads, if it is code that the program runs. `content` is what the program is, if
    /// it was inspected.
    fn detect_interpreted(
        &mut self,
        read: &Interpret,
        content: Option<Content>,
        report: &mut Report<'_, impl FnMut(Finding)>,
    ) {
        let process = &read.detail.process;
        let program = self.programs.of(process, &read.detail.exe);
        let is_reported = program.is_some_and(|program| program.scripts.contains(&(read.file.dev, read.file.inode)));
        let actor = Actor::new(process, &read.detail.exe, program);
        let Some(role) = interpreter::role(&actor, read, content) else { return };
        let is_new = !is_reported && (role == Role::Script || self.modules.remember(read));
        let code = Code::read(read, actor);
        if is_new {
            report.add_foreign(&code, (&mut self.changes, &mut self.installations));
        } else if let Some(found) = report.foreign(&code) {
            self.installations.leave(&code, &found, self.changes.of(&code));
        }
    }
}

/// The process that acted, with what is remembered of its program. Returns `None` if the record was lost.
fn actor<'a>(programs: &'a mut Programs, detail: Option<&'a Detail>) -> Option<Actor<'a>> {
    let Detail { process, exe, .. } = detail?;
    Some(Actor::new(process, exe, programs.of(process, exe)))
}

/// Whether only the content of the executed or mapped file, or of the program that reads a file, can show what it is.
pub(crate) fn needs_content(event: &Event) -> bool {
    if let Event::Interpret(read) = event {
        return !interpreter::is_known(&read.detail.exe);
    }
    code_of(event, |detail| Some(Actor::new(&detail?.process, &detail?.exe, None)))
        .is_some_and(|code| shell::is_unknown(&code))
}

/// What an executed program of an image is, if its name shows that.
pub(crate) fn content_by_name(event: &Event) -> Option<Content> {
    let Event::Exec(exec) = event else { return None };
    shell::content_by_name(&Code::executed(exec))
}

/// The code that an event runs, if it runs any by itself. `actor` finds the process that runs it.
fn code_of<'a>(event: &'a Event, actor: impl FnOnce(Option<&'a Detail>) -> Option<Actor<'a>>) -> Option<Code<'a>> {
    match event {
        Event::Exec(exec) => Some(Code::executed(exec)),
        Event::MapExec(mapped) => Some(Code::mapped(mapped, actor(mapped.detail.as_ref()))),
        Event::Script(_)
        | Event::Interpret(_)
        | Event::ImageChange(_)
        | Event::MountChange(_)
        | Event::DeviceOpen(_)
        | Event::ControlOpen(_)
        | Event::Tampering(_)
        | Event::HandleOpen(_)
        | Event::HostExec(_)
        | Event::CgroupEscape(_)
        | Event::Exit(_)
        | Event::Listen(_)
        | Event::Accept(_)
        | Event::CgroupCreated(_)
        | Event::CgroupRemoved(_) => None,
    }
}

#[cfg(test)]
pub(crate) mod samples {
    //! Events as they are on real nodes, for the tests of this module and of the outputs.

    use super::*;
    use crate::event::{
        Ancestor, Args, At, Control, ControlOpen, Creation, Detail, Exec, Exit, File, ImageChange, ImageOp, Layer,
        MapExec, Name, Origin, Path, Process, Script, Session, StdioKind, Via,
    };
    use crate::finding;
    use crate::redact::Redactor;

    pub(crate) const ID: &str = "3f2a0c6d9e1b4857a6c3d2e1f0b9a8877665544332211000ffeeddccbbaa9988";

    pub(crate) const BOOT_ID: &str = "c1b24ba7-7f4d-4a52-a8b5-6ab5b2bb0c39";

    pub(crate) fn name(text: &str) -> Name {
        let mut padded = [0; 16];
        padded[..text.len()].copy_from_slice(text.as_bytes());
        Name::new(padded)
    }

    pub(crate) fn path(text: &str) -> Path {
        Path { bytes: text.into(), truncated: false, is_direct: true }
    }

    pub(crate) fn args(list: &[&str]) -> Args {
        Args {
            bytes: list.iter().flat_map(|arg| [arg.as_bytes(), b"\0"]).flatten().copied().collect(),
            truncated: false,
        }
    }

    pub(crate) fn context() -> Context {
        Context::new("node-1".into(), BOOT_ID, 1_800_000_000_000_000_000, Redactor::default())
    }

    pub(crate) fn container() -> TrackedContainer {
        TrackedContainer::new(500, format!("/system.slice/docker-{ID}.scope").into_bytes())
    }

    pub(crate) fn process(origin: Origin) -> Process {
        Process {
            start_time: 70,
            pid: 1234,
            tid: 1234,
            ns_pid: 7,
            ppid: 1200,
            uid: 0,
            gid: 0,
            login_uid: None,
            capabilities: 0xa804_25fb,
            origin,
            comm: name("sh"),
            tty: None,
            stdio: [StdioKind::Null, StdioKind::Pipe, StdioKind::Pipe],
            stdin: 0,
            peer: None,
            session: None,
            ancestors: vec![Ancestor { start_time: 60, pid: 1200, in_container: false, comm: name("runc") }],
        }
    }

    pub(crate) fn exec(origin: Origin, exe: &str, list: &[&str]) -> Exec {
        Exec {
            at: At { time: 77, number: 1, cgroup: 501, container: 500 },
            process: process(origin),
            file: File {
                inode: 99,
                dev: 45,
                mode: 0o100755,
                nlink: 1,
                layer: Some(Layer::Lower),
                size: 1,
                change_time: 0,
                magic: 0,
                is_served: false,
                difference: None,
                lower: None,
            },
            head: None,
            is_interpreter: false,
            exe: path(exe),
            cwd: path("/srv"),
            args: args(list),
        }
    }

    pub(crate) fn change(op: ImageOp, layer: Layer, mode: u32, file: &str) -> ImageChange {
        ImageChange {
            at: At { time: 88, number: 2, cgroup: 500, container: 500 },
            op,
            file: File {
                inode: 101,
                dev: 45,
                mode,
                nlink: 1,
                layer: Some(layer),
                size: 1,
                change_time: 0,
                magic: 0,
                is_served: false,
                difference: None,
                lower: None,
            },
            bytes: 0,
            creation: (op == ImageOp::Create).then_some(Creation { directory: 100, program: 98 }),
            detail: Some(Detail {
                process: process(Origin::Application),
                exe: path("/usr/bin/python3.12"),
                exe_dev: 45,
                exe_layer: Some(Layer::Lower),
                path: path(file),
                new_path: None,
            }),
        }
    }

    pub(crate) fn control_open(control: Control) -> ControlOpen {
        let ImageChange { at, file, detail, .. } = change(ImageOp::OpenWrite, Layer::Lower, 0o100644, "/x");
        ControlOpen { at, control, file: File { layer: None, ..file }, detail }
    }

    pub(crate) fn script(file: &str) -> Script {
        let exec = exec(Origin::Application, file, &[]);
        Script { at: exec.at, pid: exec.process.pid, is_input: false, file: exec.file, path: exec.exe }
    }

    pub(crate) fn mapped(exe: &str, file: &str) -> MapExec {
        let Exec { at, process, exe, file: mapped, .. } = exec(Origin::Application, exe, &[]);
        let (exe_dev, exe_layer) = (mapped.dev, mapped.layer);
        let detail = Detail { process, exe, exe_dev, exe_layer, path: path(file), new_path: None };
        MapExec { at, file: mapped, detail: Some(detail) }
    }

    pub(crate) fn read(exe: &str, file: &str) -> Interpret {
        let mapped = mapped(exe, file);
        let file = File { layer: Some(Layer::Upper), ..mapped.file };
        let detail = mapped.detail.expect("a sample tells who did it");
        Interpret { at: mapped.at, file, program: mapped.file, detail }
    }

    pub(crate) fn all_found(events: &[Event]) -> Vec<Finding> {
        let (mut detector, context, container) = (Detector::default(), context(), container());
        let mut all = Vec::new();
        events.iter().for_each(|event| detector.detect(event, &container, &context, |finding| all.push(finding)));
        all
    }

    /// A container about which the runtime knows everything. All its texts are `words`.
    pub(crate) fn known_container(words: &[u8]) -> finding::Container {
        let text = || Some(words.into());
        let labels = || finding::Labels { values: [(words.into(), words.into())].into(), truncated: true };
        let image = finding::Image {
            name: text(),
            digest: text(),
            id: text(),
            entrypoint: vec![words.into()],
            volumes: Some(vec![words.into()]),
        };
        let owner = Some(finding::Owner { kind: finding::OwnerKind::Job, name: words.into() });
        let pod = finding::Pod { uid: words.into(), namespace: text(), name: text(), labels: labels(), owner };
        finding::Container {
            name: text(),
            image: Some(image),
            labels: labels(),
            pod: Some(pod),
            ..super::container(&container())
        }
    }

    /// A session in which hostile texts are arguments and paths, from its first line to the notice of its end.
    pub(crate) fn session(words: &[u8]) -> Vec<Line> {
        let (mut detector, context, container) = (Detector::default(), context(), container());
        let session = Session { start_time: 70, pid: 1234, via: Via::Exec };
        let mut exec = exec(Origin::Entered, "/bin/dash", &[]);
        exec.args = Args { bytes: [words, b"\0"].concat(), truncated: true };
        (exec.process.session, exec.process.tty) = (Some(session), Some(name("pts0")));
        let mut change = change(ImageOp::Rename, Layer::Lower, 0o100644, "");
        let detail = change.detail.as_mut().expect("the sample has it");
        (detail.path.bytes, detail.process.session) = ([b"/", words].concat(), Some(session));
        detail.new_path = Some(detail.path.clone());
        let exit = Exit { at: exec.at, session, start_time: 70, pid: 1234, status: 9, is_last: true };
        let events = [Event::Exec(Box::new(exec)), Event::ImageChange(Box::new(change)), Event::Exit(exit)];
        let mut lines = Vec::new();
        for event in events {
            detector.detect(&event, &container, &context, |found| lines.push(Line::Finding(Box::new(found))));
        }
        detector.stop(u64::MAX, &context, |line| lines.push(line));
        lines
    }

    /// The execution of a program that is not as in the image.
    pub(crate) fn drifted(path: &str, args: &[&str]) -> Exec {
        let mut exec = exec(Origin::Application, path, args);
        exec.file.layer = Some(Layer::Upper);
        exec
    }

    /// The notice about the SHA-256 of a drifted program with a hostile path.
    pub(crate) fn hash(words: &[u8]) -> Line {
        let (mut detector, context, container) = (Detector::default(), context(), container());
        let mut exec = drifted("", &[]);
        exec.exe.bytes = [b"/", words].concat();
        let event = Event::Exec(Box::new(exec));
        detector.detect(&event, &container, &context, drop);
        let hashed = Hashed { time: 99, result: Ok(finding::Sha256([0xa7; 32])) };
        Line::Notice(detector.take_hash(&event, hashed, &context).expect("it is asked for"))
    }

    /// The notices that a configuration file was loaded, and that a later one was refused.
    pub(crate) fn policy(path: &str) -> [finding::NoticeEvent; 2] {
        let loaded = finding::LoadedPolicy {
            file: path.to_owned(),
            // That of "foo".
            sha256: "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae".parse().expect("it is one"),
            exceptions: 2,
            added: vec![path.to_owned()],
            removed: vec!["old".to_owned()],
            changed: Vec::new(),
            reordered: true,
            overrides: 1,
            other_overrides: true,
            rules: 1,
            other_rules: true,
            warnings: vec![format!("{path}: everybody can write it")],
            more: 3,
            needs_restart: vec!["log".to_owned()],
        };
        let refused = finding::NoticeEvent::PolicyRefused { file: path.to_owned(), reason: "line 1".to_owned() };
        [finding::NoticeEvent::PolicyLoaded(Box::new(loaded)), refused]
    }

    /// The last line about a file with a hostile path that is changed again and again.
    pub(crate) fn repeated(words: &[u8]) -> Line {
        let (mut detector, context, container) = (Detector::counting(), context(), container());
        let mut change = change(ImageOp::Create, Layer::New, 0o100644, "");
        let detail = change.detail.as_mut().expect("the sample has it");
        (detail.path.bytes, detail.exe.bytes) = ([b"/srv/", words].concat(), [b"/bin/", words].concat());
        for _ in 0..6 {
            detector.detect(&Event::ImageChange(Box::new(change.clone())), &container, &context, drop);
        }
        let mut last = None;
        detector.stop(u64::MAX, &context, |line| last = Some(line));
        last.expect("it is counted")
    }

    /// The finding about an event that causes at most one.
    pub(crate) fn found(event: Event) -> Option<Finding> {
        let mut all = all_found(&[event]);
        assert!(all.len() <= 1, "{all:?}");
        all.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::samples::{self, all_found, change, exec, script};
    use super::*;
    use crate::event::{Exec, ImageOp, Layer, Origin};
    use crate::redact::Redactor;

    fn ids(context: &Context, events: &[Event]) -> Vec<String> {
        let (mut detector, container) = (Detector::default(), samples::container());
        let mut ids = Vec::new();
        events.iter().for_each(|event| detector.detect(event, &container, context, |finding| ids.push(finding.id)));
        ids
    }

    #[test]
    fn an_id_is_that_of_the_act() {
        let mut changed_shell = exec(Origin::Entered, "/bin/sh", &["sh"]);
        changed_shell.file.layer = Some(Layer::Upper);
        let event = |exec: &Exec| Event::Exec(Box::new(exec.clone()));
        let [shell, drift] = &ids(&samples::context(), &[event(&changed_shell)])[..] else {
            panic!("not two findings")
        };
        assert_eq!(shell, "4cd55fcf1b8a-000000000000004d-10000-1");
        assert_eq!(drift, "4cd55fcf1b8a-000000000000004d-10000-5");

        // The same event is reported again, by another run of the daemon after the clock was set.
        let mut stepped = samples::context();
        stepped.set_boot_to_wall(7);
        assert_eq!(ids(&stepped, &[event(&changed_shell)]), [&**shell, drift]);

        // Other acts: at the same time on another CPU, later, on another node, in another boot.
        let same_time = Exec { at: At { number: 2, ..changed_shell.at }, ..changed_shell.clone() };
        let later = Exec { at: At { time: 0x100, ..changed_shell.at }, ..changed_shell.clone() };
        let other_ids = ids(&samples::context(), &[event(&same_time), event(&later)]);
        assert!(!other_ids.contains(shell) && !other_ids.contains(drift));
        assert!(*shell < other_ids[2], "ids do not sort by time");
        for (node, boot_id) in [("node-2", samples::BOOT_ID), ("node-1", "7b0e0f4e-9c55-4f14-9a3f-0c1d6ff5c8aa")] {
            let other = Context::new(node.into(), boot_id, 0, Redactor::default());
            assert!(ids(&other, &[event(&changed_shell)]).iter().all(|id| id[..12] != shell[..12]));
        }
    }

    #[test]
    fn the_scripts_of_one_exec_have_ids_of_their_own() {
        let scripts = [("/srv/outer", 5), ("/srv/inner", 6)].map(|(path, number)| {
            let mut script = script(path);
            (script.file.layer, script.at.number) = (Some(Layer::Upper), number);
            Event::Script(Box::new(script))
        });
        let mut exec = exec(Origin::Application, "/usr/bin/python3", &["/usr/bin/python3", "/srv/inner", "/srv/outer"]);
        exec.at.number = 7;
        exec.is_interpreter = true;
        exec.file.layer = Some(Layer::Upper);
        let mut ids = ids(&samples::context(), &[&scripts[..], &[Event::Exec(Box::new(exec))]].concat());
        assert_eq!(ids.len(), 3);
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 3);
    }

    #[test]
    fn a_write_shows_the_arguments_of_the_earlier_exec() {
        let exec = exec(Origin::Application, "/usr/bin/python3.12", &["python3", "app.py"]);
        let change = change(ImageOp::OpenWrite, Layer::Lower, 0o100644, "/etc/app.conf");
        // Another process has the same pid.
        let mut other = change.clone();
        other.detail.as_mut().expect("the sample has it").process.start_time += 1_000_000_000;
        let events =
            [Event::Exec(Box::new(exec)), Event::ImageChange(Box::new(change)), Event::ImageChange(Box::new(other))];
        let [first, second] = &all_found(&events)[..] else { panic!("two writes") };
        let process = first.process.as_ref().expect("it is known");
        let args = process.args.as_ref().map(|args| args.iter().map(ToString::to_string).collect());
        assert_eq!(args, Some(vec!["python3".to_owned(), "app.py".to_owned()]));
        assert_eq!(process.cwd.as_ref().map(ToString::to_string), Some("/srv".into()));
        assert_eq!(second.process.as_ref().expect("it is known").args, None);
    }
}
