//! The open sessions: what was done in each, and when its finding is published again.
//!
//! There is no clock here. The time comes with the events and from the caller of [`Sessions::take_time`], so that the
//! same events and times make the same findings.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::content::Content;
use super::context::Context;
use super::describe::{self, Actor};
use super::expected;
use super::pace::{Pace, SECOND};
use super::process::{self, Key};
use super::session::{self, Facts};
use super::spawned::Branch;
use crate::container::table::TrackedContainer;
use crate::event::{self, At, Event, Exec, Exit, ImageChange, StdioKind, Via};
use crate::finding::{
    Container, Evidence, Expected, Finding, Kind, Line, Notice, NoticeEvent, Part, Process, Reason, SCHEMA_VERSION,
    SessionFile, SessionProgram, Severity, SeverityRule, Summary, Text, Visit,
};
use crate::policy::{Candidates, exception};
use crate::recent::Recent;

/// How many sessions are open at most at the same time.
const MOST: usize = 4096;
/// How many of them can have begun inside containers, so that a container cannot take the room of what comes from
/// outside.
const MOST_INSIDE: usize = MOST / 2;
/// How many ended sessions are remembered, so that a late event does not open one again.
const MOST_CLOSED: usize = 4096;
/// How many of those that only have a socket as their standard input are remembered. The others count as sessions.
const MOST_SILENT: usize = 4096;
/// How many programs and how many files are listed in the finding of a session.
const LISTED: usize = 50;
/// How many acts that fulfil different exceptions or overrides are told apart in a session.
const MOST_PARTS: usize = 32;
/// How many bytes the texts of these programs and those of these files have together.
const LISTED_TEXT: usize = 8192;
/// How many bytes of a program's arguments are listed.
const LISTED_ARGS: usize = 256;

/// How long after its last line the finding of a session is published again, if more was done.
const INTERVALS: &[u64] = &[SECOND, 10 * SECOND, 60 * SECOND, 600 * SECOND];
/// A severity from which on the finding of a session is published at once. Another one waits for a second, because most
/// of these sessions have ended by then and need no other line.
const PROMPT: Severity = Severity::Medium;
/// How long the end of a session is kept back. What needs the content of an executed file, and an end that is noticed
/// on another CPU at the same time, comes later.
const GRACE: u64 = 2 * SECOND;
/// How long after its last act the session of what an application has started ends. The kernel does not say when the
/// last of its processes has.
const IDLE: u64 = 600 * SECOND;
/// How many sessions of what applications have started are remembered at most as long as they are not told.
const MOST_UNTOLD: usize = 512;
/// How many revisions a second of a session's life makes room for. A run of the daemon makes fewer in each second, so
/// that the next run, which begins to count here, has higher ones.
const REVISIONS: u64 = 8;

/// A session that has not ended, or whose end is not published yet.
#[derive(Debug)]
struct Open {
    id: String,
    cgroup: u64,
    container: Container,
    container_name: String,
    process: Process,
    /// What the standard input of the first process is, and its inode number.
    stdin: (StdioKind, u64),
    /// When the first process started, in nanoseconds since boot.
    started: u64,
    severity: Severity,
    /// The rule by which it has this severity.
    rule: Option<SeverityRule>,
    /// What it is by itself, and then the acts in it, by the exceptions and overrides that they fulfil.
    parts: Vec<Part>,
    /// What exceptions and overrides can demand of it.
    evidence: Option<Evidence>,
    /// Whether something of higher severity was done in it since the last line, and the policy can make a difference.
    is_divided: bool,
    summary: Summary,
    /// The positions in the list of the programs that run, by process.
    running: HashMap<u32, usize>,
    /// How many bytes of texts the lists of programs and of files have room for.
    room: (usize, usize),
    /// When the session ended.
    ended: Option<u64>,
    /// When something was done in it last.
    last: u64,
    /// Whether the last sweep found no process of the session.
    is_missing: bool,
    /// The number of the last line, and the severity in it.
    revision: u32,
    published: Option<Severity>,
    pace: Pace,
    /// What it runs, as long as it may be a health check, and whether the last line says so.
    visit: Option<Arc<Visit>>,
    was_visit: bool,
    /// Whether there is something that the last line does not say.
    is_changed: bool,
}

impl Open {
    /// A session of which this event is the first that was seen.
    fn new(of: event::Session, at: At, severity: Severity, around: Surroundings<'_>) -> Option<Self> {
        let (actor, context) = (around.actor?, around.context);
        // The first process of what an application has started is the application's own.
        let started = if of.via == Via::Application { at.time } else { of.start_time };
        let parent = actor.process.ancestors.first().filter(|parent| parent.in_container).and(around.parent);
        let text = |args: &event::Args| context.redactor.args(args.iter()).map(|arg| describe::text(&arg)).collect();
        // What serves a connection can open a terminal for it, as sshd does. The kernel side has seen the socket first.
        let via = match actor.process.stdio[0] {
            StdioKind::Tty if of.via == Via::Socket => Via::Terminal,
            _ => of.via,
        };
        let summary = Summary {
            via,
            started: context.wall(started),
            resumed: None,
            ended: None,
            end_not_seen: false,
            peer: None,
            started_by: parent.map(text),
            programs: Vec::new(),
            programs_omitted: 0,
            files: Vec::new(),
            files_omitted: 0,
            findings: BTreeMap::new(),
        };
        let mut open = Self {
            id: context.session_id(of),
            cgroup: at.container,
            container: describe::container(around.container),
            container_name: describe::container_name(around.container),
            process: actor.describe(context),
            stdin: actor.process.input(),
            started,
            severity,
            rule: None,
            parts: vec![Part { severity, candidates: around.candidates.cloned() }],
            evidence: around.evidence.cloned(),
            is_divided: false,
            summary,
            running: HashMap::new(),
            room: (LISTED_TEXT, LISTED_TEXT),
            ended: None,
            last: at.time,
            is_missing: false,
            revision: 0,
            published: None,
            pace: Pace::new(INTERVALS, at.time),
            visit: around.visit.cloned(),
            was_visit: false,
            is_changed: true,
        };
        // It can have been told, and have ended, before.
        if of.via == Via::Application {
            open.skip_revisions(of, at);
        }
        Some(open)
    }

    /// Makes the revisions higher than those of the same session before this time.
    fn skip_revisions(&mut self, of: event::Session, at: At) {
        let age = at.time.saturating_sub(of.start_time) / SECOND;
        self.revision = u32::try_from(REVISIONS * (age + 1)).unwrap_or(u32::MAX / 2);
    }

    /// When the finding must be published, if nothing else happens.
    fn due(&self) -> Option<u64> {
        if let Some(ended) = self.ended {
            return Some(ended.saturating_add(GRACE));
        }
        match self.is_changed {
            true => Some(self.pace.due()),
            false => self.goes_idle(),
        }
    }

    /// When it is over if nothing else happens, and nothing tells its end.
    fn goes_idle(&self) -> Option<u64> {
        (self.summary.via == Via::Application && self.ended.is_none()).then(|| self.last.saturating_add(IDLE))
    }

    /// Whether the finding must be published at once. After the end, one last line follows soon.
    fn is_urgent(&self) -> bool {
        self.ended.is_none()
            && match self.published {
                // What would have been expected is so no more.
                Some(_) if self.was_visit && self.visit.is_none() => self.severity >= PROMPT,
                Some(published) => self.severity > published || self.is_divided && self.severity >= PROMPT,
                None => self.severity >= PROMPT,
            }
    }

    /// Takes the severity of an act that fulfils these exceptions and overrides, and the rule by which the session has
    /// it.
    fn raise(&mut self, severity: Severity, rule: Option<SeverityRule>, candidates: Option<&Candidates>) {
        self.is_changed |= severity > self.severity;
        if severity > self.severity || severity == self.severity && self.rule.is_none() {
            self.rule = rule;
        }
        self.severity = self.severity.max(severity);
        let is_part = |part: &Part, candidates| part.candidates.as_ref() == candidates;
        // What has no part of its own because they are too many fulfils nothing.
        let has_room = self.parts.len() < MOST_PARTS || self.parts.iter().any(|part| is_part(part, candidates));
        let candidates = candidates.filter(|_| has_room);
        let before = match self.parts.iter_mut().find(|part| is_part(part, candidates)) {
            Some(part) => {
                let before = part.severity;
                part.severity = before.max(severity);
                before
            }
            None => {
                self.parts.push(Part { severity, candidates: candidates.cloned() });
                Severity::Info
            }
        };
        // The last line can have been suppressed.
        self.is_divided |= severity > before && self.can_be_decided();
    }

    /// Whether an exception or an override can make a difference.
    fn can_be_decided(&self) -> bool {
        self.candidates().next().is_some()
    }

    /// Whether an override can make a difference.
    fn can_be_overridden(&self) -> bool {
        self.candidates().any(Candidates::has_overrides)
    }

    fn candidates(&self) -> impl Iterator<Item = &Candidates> {
        self.parts.iter().filter_map(|part| part.candidates.as_ref())
    }

    /// What exceptions and overrides can demand of the session, if one can hold for it.
    fn evidence(&self) -> Option<Evidence> {
        let can_be_excepted =
            exception::refusal_of_sessions(self.summary.via).is_none() && self.severity < Severity::Critical;
        self.evidence.clone().filter(|_| can_be_excepted)
    }

    /// What it is by itself, and what was done in it, if an exception or an override can make a difference.
    fn parts(&self) -> Vec<Part> {
        if self.can_be_decided() { self.parts.clone() } else { Vec::new() }
    }

    /// Records an event. An exec comes once more when its file was inspected, with the `content`.
    fn add(&mut self, event: &Event, around: &Surroundings<'_>) {
        let Surroundings { content, context, .. } = *around;
        self.last = self.last.max(event.time());
        match event {
            Event::Exit(exit) => self.add_exit(exit, context),
            Event::Exec(exec) => {
                if content.is_none() {
                    self.add_program(exec, context);
                }
                let facts = around.actor.map(|actor| Facts::of(&actor, content, self.summary.via, self.stdin));
                if let Some(rule) = facts.and_then(Facts::rule) {
                    self.raise(rule.severity(), Some(rule), around.candidates);
                    if rule.severity() > Severity::Info {
                        let own = self.evidence.take();
                        self.evidence = own.zip(around.evidence).map(|(own, other)| own.and(other));
                    }
                }
            }
            Event::ImageChange(change) => self.add_change(change),
            _ => {}
        }
    }

    /// Records a finding about what was done. `is_of_listener`: whether a process that listens on a socket has started
    /// the process that did it.
    fn add_finding(&mut self, finding: &Finding, is_of_listener: bool) {
        *self.summary.findings.entry(finding.finding).or_default() += 1;
        self.is_changed = true;
        let (severity, rule) = session::severity_after(finding, self.summary.via, is_of_listener);
        self.raise(severity, rule, finding.candidates.as_ref());
        if severity == Severity::Critical && self.summary.peer.is_none() {
            self.summary.peer = finding.process.as_ref().and_then(|process| process.peer.clone());
        }
    }

    fn add_program(&mut self, exec: &Exec, context: &Context) {
        self.is_changed = true;
        let pid = exec.process.pid;
        self.running.remove(&pid);
        let mut left = LISTED_ARGS;
        let all = context.redactor.args(exec.args.iter()).map(|arg| describe::text(&arg));
        let mut args: Vec<Text> = all.collect();
        let listed = args.iter().take_while(|arg| take(&mut left, arg.as_str().len())).count();
        let is_cut = listed < args.len();
        args.truncate(listed);
        let exe = describe::path(&exec.exe);
        let size = LISTED_ARGS - left + exe.as_ref().map_or(0, |exe| exe.as_str().len());
        if self.summary.programs.len() == LISTED || !take(&mut self.room.0, size) {
            self.summary.programs_omitted += 1;
            return;
        }
        self.running.insert(pid, self.summary.programs.len());
        self.summary.programs.push(SessionProgram {
            time: context.wall(exec.at.time),
            pid,
            exe,
            args,
            truncated: is_cut || exec.args.truncated,
            exit_code: None,
            signal: None,
        });
    }

    fn add_change(&mut self, change: &ImageChange) {
        self.is_changed = true;
        let Some(detail) = &change.detail else { return };
        let path = describe::text(&detail.path.bytes);
        let new_path = detail.new_path.as_ref().map(|path| describe::text(&path.bytes));
        let mut files = self.summary.files.iter_mut();
        if let Some(file) = files.find(|file| file.op == change.op && file.path == path && file.new_path == new_path) {
            file.count += 1;
            return;
        }
        let size = path.as_str().len() + new_path.as_ref().map_or(0, |path| path.as_str().len());
        if self.summary.files.len() == LISTED || !take(&mut self.room.1, size) {
            self.summary.files_omitted += 1;
            return;
        }
        self.summary.files.push(SessionFile { path, new_path, op: change.op, count: 1 });
    }

    fn add_exit(&mut self, exit: &Exit, context: &Context) {
        if let Some(position) = self.running.remove(&exit.pid) {
            self.is_changed = true;
            let program = &mut self.summary.programs[position];
            match exit.status & 0x7f {
                0 => program.exit_code = Some((exit.status >> 8) as u8),
                signal => program.signal = Some(signal as u8),
            }
        }
        if exit.is_last {
            self.end(exit.at.time, false, context);
        }
    }

    fn end(&mut self, time: u64, is_not_seen: bool, context: &Context) {
        if self.ended.is_none() {
            self.ended = Some(time);
            self.is_changed = true;
            (self.summary.ended, self.summary.end_not_seen) = (Some(context.wall(time)), is_not_seen);
        }
    }

    fn message(&self) -> String {
        let lasted = self.ended.map(|ended| ended.saturating_sub(self.started));
        session::message(&self.summary, &self.process, &self.container_name, lasted)
    }

    /// Makes the next line.
    fn publish(&mut self, now: u64, context: &Context) -> Finding {
        self.revision += 1;
        self.pace.note(now, self.published == Some(self.severity));
        (self.published, self.is_changed, self.is_divided) = (Some(self.severity), false, false);
        self.was_visit = self.visit.is_some();
        let mut finding = Finding {
            time: context.wall(now),
            schema: SCHEMA_VERSION,
            id: self.id.clone(),
            revision: self.revision,
            node: context.node.clone(),
            finding: Kind::Session,
            severity: self.severity,
            severity_rule: self.rule,
            expected: None,
            overridden: None,
            message: self.message(),
            container: Some(self.container.clone()),
            process: Some(self.process.clone()),
            file: None,
            session: Some(self.id.clone()),
            summary: Some(Box::new(self.summary.clone())),
            repeated: None,
            mitre: session::techniques(self.summary.via).iter().map(|&id| id.into()).collect(),
            suppressed_by: None,
            evidence: self.evidence().map(Box::new),
            visit: None,
            typical: None,
            candidates: None,
            parts: self.parts(),
        };
        finding.set_visit(self.visit.as_ref());
        finding
    }

    /// Publishes what the last line does not say, and the end.
    fn tell(&mut self, now: u64, context: &Context, out: &mut dyn FnMut(Line)) {
        if self.is_changed {
            out(Line::Finding(Box::new(self.publish(now, context))));
        }
        if self.ended.is_some() {
            self.closing(now, context).into_iter().for_each(|notice| out(Line::Notice(notice)));
        }
    }

    /// Makes the notice about the end, if the session deserves one, or can deserve one by an override.
    fn closing(&self, now: u64, context: &Context) -> Option<Notice> {
        let mut severity = self.severity;
        let is_steady = self.visit.as_ref().is_some_and(|visit| visit.is_steady);
        let expected = is_steady.then(|| Expected::new(Reason::HealthCheck, &mut severity));
        (self.severity >= PROMPT || self.can_be_overridden()).then(|| {
            let event = NoticeEvent::SessionEnded {
                session: self.id.clone(),
                severity,
                expected,
                overridden: None,
                message: self.message(),
                container: Box::new(self.container.clone()),
                summary: Box::new(self.summary.clone()),
                visit: self.visit.clone().filter(|_| !is_steady),
                parts: self.parts(),
            };
            Notice::at(context.wall(now), context.node.clone(), event)
        })
    }
}

/// The severity with which an event opens the session of its process, or `None` if it does not: a program of the
/// container whose standard input is a socket is one of a session only if it takes commands from there, and what an
/// application has started only from the first act of high severity on.
fn opening(event: &Event, findings: &[Finding], actor: &Actor, via: Via, content: Option<Content>) -> Option<Severity> {
    let is_critical = findings.iter().any(|finding| finding.severity == Severity::Critical);
    match event {
        _ if via == Via::Application => {
            findings.iter().any(|finding| finding.severity >= session::TOLD).then_some(Severity::Info)
        }
        Event::Exec(_) => Facts::of(actor, content, via, actor.process.input()).severity(),
        _ if via == Via::Socket => None,
        _ => Some(Severity::Info),
    }
    .or(is_critical.then_some(Severity::Critical))
}

/// Takes this much of what is left, if there is as much.
fn take(left: &mut usize, amount: usize) -> bool {
    let is_enough = amount <= *left;
    *left -= if is_enough { amount } else { 0 };
    is_enough
}

/// What is known of an event besides the event itself.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    pub(super) container: &'a TrackedContainer,
    /// Whether nobody has changed the container.
    pub(super) is_unchanged: bool,
    pub(super) context: &'a Context,
    /// The process that acted.
    pub(super) actor: Option<Actor<'a>>,
    /// What of the application the event belongs to, if its process is in no other session.
    pub(super) branch: Option<Branch>,
    /// The arguments of its parent, if that is a process of the container.
    pub(super) parent: Option<&'a event::Args>,
    /// What the executed program is, if it was inspected.
    pub(super) content: Option<Content>,
    /// What the session runs that begins with this event, if it may be a health check.
    pub(super) visit: Option<&'a Arc<Visit>>,
    /// What exceptions can demand of a session of which this event is a part, and those that it fulfils.
    pub(super) evidence: Option<&'a Evidence>,
    pub(super) candidates: Option<&'a Candidates>,
}

impl Surroundings<'_> {
    /// Whether a process that listens on a socket has started the process that acted.
    fn is_of_listener(&self) -> bool {
        self.branch.is_some_and(|branch| branch.is_of_listener)
    }
}

/// All sessions of the node.
#[derive(Debug)]
pub(super) struct Sessions {
    open: BTreeMap<Key, Open>,
    /// What applications have started, as long as no act in it is of high severity: of each only what it has started
    /// last.
    untold: Recent<Key, Open>,
    closed: Recent<Key, ()>,
    /// What has a socket as its standard input, as far as no program was seen in it that takes commands from there.
    silent: Recent<Key, ()>,
    /// How many sessions were not opened, because too many were open.
    refused: u64,
    /// No finding must be published before this time.
    due: Option<u64>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            open: BTreeMap::new(),
            untold: Recent::new(MOST_UNTOLD),
            closed: Recent::new(MOST_CLOSED),
            silent: Recent::new(MOST_SILENT),
            refused: 0,
            due: None,
        }
    }
}

impl Sessions {
    /// Records an event and the findings about it, sets the session of these findings, and passes them on. If the
    /// session's finding must be published at once, it follows.
    pub(super) fn take(
        &mut self,
        event: &Event,
        mut findings: Vec<Finding>,
        around: Surroundings<'_>,
        found: &mut dyn FnMut(Finding),
    ) {
        let (context, actor) = (around.context, around.actor.as_ref());
        let of = match event {
            Event::Exit(exit) => Some((exit.session, exit.at)),
            _ => {
                let branch = around.branch.map(|branch| branch.session);
                // What only has a socket as its standard input belongs to what the application has started.
                let is_own = |of: &event::Session, actor: &Actor| {
                    let key = process::key(of.pid, of.start_time);
                    of.via != Via::Socket
                        || self.open.contains_key(&key)
                        || opening(event, &findings, actor, of.via, around.content).is_some()
                };
                let of = |actor: &Actor| {
                    let own = actor.process.session;
                    own.filter(|own| is_own(own, actor)).or(branch).or(own)
                };
                actor.and_then(of).zip(event.at())
            }
        };
        let Some((of, at)) = of else { return findings.into_iter().for_each(found) };
        let key = process::key(of.pid, of.start_time);
        let has_ended = self.closed.get(&key).is_some();
        if around.branch.is_some_and(|branch| branch.is_first) {
            self.untold.remove(&key);
        }
        if let Some(actor) = actor
            && !has_ended
            && !self.open.contains_key(&key)
            && let Some(severity) = opening(event, &findings, actor, of.via, around.content)
        {
            self.open(key, of, at, severity, around);
        }
        let id = (has_ended || self.open.contains_key(&key)).then(|| context.session_id(of));
        for finding in &mut findings {
            finding.session.clone_from(&id);
        }
        let Some(open) = self.open.get_mut(&key) else {
            if of.via == Via::Application {
                self.remember(key, (event, &findings), of, at, around);
            }
            return findings.into_iter().for_each(found);
        };
        open.add(event, &around);
        findings.iter().for_each(|finding| open.add_finding(finding, around.is_of_listener()));
        let can_go_on = around.is_unchanged && expected::can_go_on(event, &findings, around.container);
        if open.severity > Severity::Medium || !can_go_on {
            open.is_changed |= open.visit.take().is_some();
        }
        findings.iter_mut().for_each(|finding| finding.set_visit(open.visit.as_ref()));
        findings.into_iter().for_each(&mut *found);
        if open.is_urgent() {
            found(open.publish(at.time, context));
        }
        let due = open.due();
        self.note_due(due);
    }

    /// Adds an event and its findings to the session of what an application has started, as long as it is not told.
    fn remember(
        &mut self,
        key: Key,
        (event, findings): (&Event, &[Finding]),
        of: event::Session,
        at: At,
        around: Surroundings<'_>,
    ) {
        let open = self.untold.remove(&key).or_else(|| Open::new(of, at, Severity::Info, around));
        let Some(mut open) = open else { return };
        open.add(event, &around);
        findings.iter().for_each(|finding| open.add_finding(finding, around.is_of_listener()));
        self.untold.insert(key, open);
    }

    fn open(&mut self, key: Key, of: event::Session, at: At, severity: Severity, around: Surroundings<'_>) {
        let inside = self.open.values().filter(|open| !open.summary.via.is_entry());
        if self.open.len() >= MOST || !of.via.is_entry() && inside.count() >= MOST_INSIDE {
            self.refused += 1;
            return;
        }
        let open = self.untold.remove(&key).or_else(|| Open::new(of, at, severity, around));
        self.open.extend(open.map(|open| (key, open)));
    }

    /// Learns whether a program takes commands from a socket.
    pub(super) fn take_program(&mut self, exec: &Exec) {
        let Some(of) = exec.process.session.filter(|of| of.via == Via::Socket) else { return };
        let key = process::key(of.pid, of.start_time);
        if Facts::of(&Actor::of_exec(exec), None, of.via, exec.process.input()).rule().is_some() {
            self.silent.remove(&key);
        } else if key == process::key(exec.process.pid, exec.process.start_time) {
            self.silent.insert(key, ());
        }
    }

    /// Whether nothing takes commands from the socket that the first process of a session has as its standard input, so
    /// that it is the application's own.
    pub(super) fn is_silent(&mut self, of: event::Session) -> bool {
        let key = process::key(of.pid, of.start_time);
        self.silent.get(&key).is_some() && !self.is_told(key)
    }

    /// Whether a session has a finding.
    pub(super) fn is_told(&self, key: Key) -> bool {
        self.open.contains_key(&key)
    }

    /// Records that a session had begun before the detector started, `now`. Its finding gets higher revisions than
    /// before.
    pub(super) fn resume(&mut self, of: event::Session, at: At, around: Surroundings<'_>) {
        let Some(actor) = &around.actor else { return };
        let key = process::key(of.pid, of.start_time);
        let facts = Facts::of(actor, None, of.via, actor.process.input());
        let Some(severity) = facts.severity_at_least() else { return };
        self.open(key, of, at, severity, around);
        let Some(open) = self.open.get_mut(&key) else { return };
        open.rule = facts.rule().filter(|rule| rule.severity() == severity);
        open.skip_revisions(of, at);
        open.summary.resumed = Some(around.context.wall(at.time));
        let due = open.due();
        self.note_due(due);
    }

    /// Ends the sessions of a container whose cgroup was removed: no process is in it any more. One that came from a
    /// cgroup of the host can last longer.
    pub(super) fn end_container(&mut self, cgroup: u64, now: u64, context: &Context) {
        let is_there = |open: &&mut Open| open.cgroup == cgroup && open.summary.via != Via::Nsenter;
        self.open.values_mut().filter(is_there).for_each(|open| open.end(now, true, context));
        self.find_due();
    }

    /// Ends the sessions of which no process was left at two successive calls. `living` has the sessions of which there
    /// are any.
    pub(super) fn sweep(&mut self, living: &HashSet<(u32, u64)>, now: u64, context: &Context) {
        let living: HashSet<Key> = living.iter().map(|&(pid, start_time)| process::key(pid, start_time)).collect();
        for (key, open) in &mut self.open {
            if open.summary.via == Via::Application {
                continue;
            }
            let was_missing = std::mem::replace(&mut open.is_missing, !living.contains(key));
            if open.is_missing && was_missing {
                open.end(now, true, context);
            }
        }
        self.find_due();
    }

    /// Publishes the findings that are due.
    pub(super) fn take_time(&mut self, now: u64, context: &Context, out: &mut dyn FnMut(Line)) {
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        let mut ended = Vec::new();
        for (key, open) in &mut self.open {
            if open.due().is_none_or(|due| now < due) {
                continue;
            }
            if open.goes_idle().is_some_and(|idle| idle <= now) {
                open.end(open.last, true, context);
            }
            open.tell(now, context, out);
            if open.ended.is_some() {
                ended.push(*key);
            }
        }
        for key in ended {
            // What the application starts later is told again.
            if self.open.remove(&key).is_some_and(|open| open.summary.via != Via::Application) {
                self.closed.insert(key, ());
            }
        }
        self.find_due();
    }

    /// Publishes what was not published yet, because the detector stops.
    pub(super) fn stop(&mut self, now: u64, context: &Context, out: &mut dyn FnMut(Line)) {
        self.open.values_mut().for_each(|open| open.tell(now, context, out));
    }

    /// When [`take_time`](Self::take_time) must be called, in nanoseconds since boot.
    pub(super) fn due(&self) -> Option<u64> {
        self.due
    }

    /// How many sessions were not opened, because too many were open.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// Finds out when the next finding is due.
    fn find_due(&mut self) {
        self.due = self.open.values().filter_map(Open::due).min();
    }

    /// A finding is due at this time, too.
    fn note_due(&mut self, due: Option<u64>) {
        self.due = self.due.into_iter().chain(due).min();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::super::Detector;
    use super::super::samples::{self, change, container, context, exec, name};
    use super::*;
    use crate::event::{Args, ImageOp, Layer, Origin, Session};

    // It is not a whole number of the units in which /proc tells it.
    const STARTED: u64 = 1_000 * SECOND + 7_654_321;

    fn of(via: Via) -> Session {
        Session { start_time: STARTED, pid: 1234, via }
    }

    /// A program that the session executes this long after its start. It is in the process with this id.
    fn run(via: Via, pid: u32, after: u64, exe: &str, args: &[&str]) -> Exec {
        let origin = if via.is_entry() { Origin::Entered } else { Origin::Application };
        let mut exec = exec(origin, exe, args);
        (exec.at.time, exec.process.pid, exec.process.start_time) = (STARTED + after, pid, STARTED + after);
        exec.process.session = Some(of(via));
        exec
    }

    fn exit(via: Via, pid: u32, after: u64, status: u32, is_last: bool) -> Event {
        let at = At { time: STARTED + after, number: 0, cgroup: 500, container: 500 };
        Event::Exit(Exit { at, session: of(via), start_time: STARTED, pid, status, is_last })
    }

    /// What a detector says of events and times.
    #[derive(Default)]
    struct Watch {
        detector: Detector,
        lines: Vec<Line>,
        root_dev: Option<u32>,
    }

    /// To make one takes long.
    static CONTEXT: LazyLock<Context> = LazyLock::new(context);

    impl Watch {
        fn event(&mut self, event: &Event) {
            let (container, lines) = (TrackedContainer { root_dev: self.root_dev, ..container() }, &mut self.lines);
            self.detector.detect(event, &container, &CONTEXT, |found| lines.push(Line::Finding(Box::new(found))));
        }

        fn exec(&mut self, exec: Exec) {
            self.event(&Event::Exec(Box::new(exec)));
        }

        /// Lets the time pass until this long after the start of the session, as the reader does.
        fn until(&mut self, after: u64) {
            let (end, lines) = (STARTED + after, &mut self.lines);
            while let Some(due) = self.detector.due().filter(|due| *due <= end) {
                self.detector.take_time(due, &CONTEXT, |line| lines.push(line));
            }
        }

        /// The lines of sessions.
        fn sessions(&self) -> Vec<&Finding> {
            let findings = self.lines.iter().filter_map(|line| match line {
                Line::Finding(finding) => Some(&**finding),
                Line::Notice(_) => None,
            });
            findings.filter(|finding| finding.finding == Kind::Session).collect()
        }

        fn notices(&self) -> usize {
            self.lines.iter().filter(|line| matches!(line, Line::Notice(_))).count()
        }

        /// The severity of the last line.
        fn severity(&self) -> Option<Severity> {
            self.sessions().last().map(|finding| finding.severity)
        }
    }

    /// A watch over a container whose start was seen.
    fn of_unchanged() -> Watch {
        let mut watch = Watch { root_dev: Some(45), ..Watch::default() };
        watch.detector.start_container(&container());
        watch
    }

    /// A shell that a runtime brings in. The session is told at the latest after a second.
    fn probe(after: u64) -> Exec {
        let mut probe = run(Via::Exec, 1234, after, "/bin/dash", &["/bin/sh", "-c", "check"]);
        probe.process.ancestors.clear();
        probe
    }

    #[test]
    fn a_visit_may_be_a_health_check_until_it_does_something_else() {
        let change = || {
            let mut change = change(ImageOp::Create, Layer::New, 0o100644, "/tmp/x");
            change.at.time = STARTED + SECOND / 2;
            let process = &mut change.detail.as_mut().expect("the sample has it").process;
            (process.origin, process.session) = (Origin::Entered, Some(of(Via::Exec)));
            Event::ImageChange(Box::new(change))
        };
        let run = |layer| {
            let mut exec = run(Via::Exec, 1235, SECOND / 2, "/usr/bin/curl", &["curl", "localhost"]);
            exec.file.layer = Some(layer);
            Event::Exec(Box::new(exec))
        };
        for (act, stays) in [(run(Layer::Lower), true), (run(Layer::Upper), false), (change(), false)] {
            let mut watch = of_unchanged();
            watch.exec(probe(0));
            let may_be = |line: &Line| match line {
                Line::Finding(finding) => finding.visit.is_some(),
                Line::Notice(Notice { event: NoticeEvent::SessionEnded { visit, .. }, .. }) => visit.is_some(),
                Line::Notice(_) => panic!("{line:?}"),
            };
            let [shell, session] = &watch.lines[..] else { panic!("{:?}", watch.lines) };
            assert!(may_be(shell) && may_be(session));
            watch.event(&act);
            // It is told at once that it is none.
            let told = watch.sessions().len();
            assert_eq!(told, if stays { 1 } else { 2 });
            watch.event(&exit(Via::Exec, 1234, SECOND, 0, true));
            watch.until(10 * SECOND);
            assert_eq!(watch.notices(), 1);
            assert!(watch.lines[2..].iter().all(|line| may_be(line) == stays), "{:?}", watch.lines);
            // Nothing is expected after what it has changed.
            let mut next = probe(20 * SECOND);
            let start_time = next.process.start_time;
            next.process.session = Some(Session { start_time, ..of(Via::Exec) });
            watch.exec(next);
            assert_eq!(may_be(watch.lines.last().expect("there are some")), stays);
        }
    }

    #[test]
    fn a_changed_container_has_no_health_checks() {
        let mut watch = Watch { root_dev: Some(45), ..Watch::default() };
        watch.exec(probe(0));
        assert!(watch.sessions().iter().all(|session| session.visit.is_none()));
        // The host changes it while one runs.
        let mut watch = of_unchanged();
        watch.exec(probe(0));
        let mut change = change(ImageOp::OpenWrite, Layer::Lower, 0o100644, "/srv/check");
        change.detail.as_mut().expect("the sample has it").process.origin = Origin::Outside;
        watch.event(&Event::ImageChange(Box::new(change)));
        assert!(watch.sessions()[0].visit.is_some());
        watch.event(&exit(Via::Exec, 1234, SECOND, 0, true));
        watch.until(10 * SECOND);
        assert!(watch.sessions()[1].visit.is_none());
    }

    #[test]
    fn a_pods_steady_probe_is_a_health_check() {
        let pod = "/kubepods/burstable/pod5f0c9e6a-2b1d-4c3e-8a7f-000000000001/";
        let mut container = TrackedContainer::new(500, format!("{pod}{}", samples::ID).into_bytes());
        container.root_dev = Some(45);
        let mut detector = Detector::default();
        detector.start_container(&container);
        let mut otherwise = Vec::new();
        for nth in 0..8 {
            let mut probe = probe(nth * 10 * SECOND);
            probe.process.pid = 2000 + u32::try_from(nth).expect("it is small");
            let session = Session { start_time: probe.process.start_time, pid: probe.process.pid, via: Via::Exec };
            probe.process.session = Some(session);
            let mut found = Vec::new();
            detector.detect(&Event::Exec(Box::new(probe)), &container, &CONTEXT, |finding| found.push(finding));
            assert_eq!(found.len(), 2);
            otherwise.push(found.iter().filter_map(|finding| Some(finding.expected?.otherwise)).collect::<Vec<_>>());
        }
        let (told, expected) = otherwise.split_at(6);
        assert!(told.iter().all(Vec::is_empty));
        assert!(expected.iter().all(|otherwise| *otherwise == [Severity::Medium; 2]), "{expected:?}");
    }

    #[test]
    fn a_persons_session_is_one_finding() {
        let mut watch = Watch::default();
        let mut shell = run(Via::Exec, 1234, 0, "/bin/dash", &["sh"]);
        (shell.process.tty, shell.process.stdio[0]) = (Some(name("pts0")), StdioKind::Tty);
        watch.exec(shell);
        // It is there at once, after the finding about the shell.
        let [Line::Finding(act), Line::Finding(session)] = &watch.lines[..] else { panic!("{:?}", watch.lines) };
        assert_eq!((act.finding, session.finding), (Kind::ShellInContainer, Kind::Session));
        assert_eq!(act.session.as_ref(), Some(&session.id));
        assert_eq!((session.revision, session.severity), (1, Severity::High));
        for nth in 0..9 {
            watch.exec(run(Via::Exec, 2000 + nth, SECOND / 10, "/bin/ls", &["ls", "--password=x"]));
            watch.event(&exit(Via::Exec, 2000 + nth, SECOND / 5, nth << 8, false));
        }
        let mut write = change(ImageOp::OpenWrite, Layer::Lower, 0o100644, "/etc/app.conf");
        write.at.time = STARTED + SECOND / 4;
        write.detail.as_mut().expect("the sample has it").process.session = Some(of(Via::Exec));
        watch.event(&Event::ImageChange(Box::new(write)));
        watch.event(&exit(Via::Exec, 1234, SECOND / 2, 9, true));
        watch.until(60 * SECOND);
        let sessions = watch.sessions();
        assert_eq!(sessions.len(), 2, "{sessions:?}");
        assert_eq!(watch.notices(), 1);
        let last = sessions[1];
        assert_eq!((last.revision, last.severity), (2, Severity::High));
        assert_eq!(
            last.message,
            "session of dash in container 3f2a0c6d9e1b (brought in by a runtime, tty pts0): 10 programs, 1 change of \
             files, ended after 0.5 s"
        );
        let summary = last.summary.as_ref().expect("it has one");
        assert_eq!(summary.programs[0].signal, Some(9));
        let codes: Vec<_> = summary.programs[1..].iter().filter_map(|program| program.exit_code).collect();
        assert_eq!(codes, (0..9).collect::<Vec<u8>>());
        assert!(summary.programs[1..].iter().all(|program| program.args[1].as_str() == "--password=[redacted]"));
        assert_eq!(summary.findings, [(Kind::ShellInContainer, 1), (Kind::ImageWrite, 1)].into());
        // What comes late has the id, but does not open the session again.
        watch.exec(run(Via::Exec, 3000, SECOND, "/bin/sh", &["sh"]));
        let Some(Line::Finding(late)) = watch.lines.last() else { panic!("no finding") };
        assert_eq!(
            (late.finding, late.session.as_ref()),
            (Kind::ShellInContainer, Some(&watch.sessions()[0].id.clone()))
        );
        assert_eq!(watch.sessions().len(), 2);
    }

    #[test]
    fn the_command_of_a_probe_is_one_line() {
        let mut watch = Watch::default();
        watch.exec(run(Via::Exec, 1234, 0, "/bin/true", &["true"]));
        watch.event(&exit(Via::Exec, 1234, SECOND / 10, 0, true));
        assert_eq!(watch.lines, []);
        watch.until(60 * SECOND);
        let [Line::Finding(session)] = &watch.lines[..] else { panic!("{:?}", watch.lines) };
        assert_eq!((session.severity, session.revision), (Severity::Info, 1));
        assert_eq!(session.summary.as_ref().map(|summary| summary.ended.is_some()), Some(true));
    }

    #[test]
    fn severities() {
        let severity = |via, exe: &str, args: &[&str], tty: bool, stdin| {
            let mut watch = Watch::default();
            let mut exec = run(via, 1234, 0, exe, args);
            exec.process.tty = tty.then(|| name("pts0"));
            exec.process.stdio[0] = stdin;
            watch.exec(exec);
            watch.until(2 * SECOND);
            watch.severity()
        };
        use Severity::*;
        use StdioKind::{File, Null, Pipe, Socket, Tty};
        for (via, exe, args, tty, stdin, expected) in [
            (Via::Exec, "/usr/bin/python3", &["python3", "x.py"] as &[&str], true, Tty, Some(High)),
            (Via::Exec, "/usr/bin/mysql", &["mysql"], true, Tty, Some(High)),
            (Via::Exec, "/bin/cat", &["cat"], false, Tty, Some(High)),
            (Via::Exec, "/bin/dash", &["sh"], false, Pipe, Some(High)),
            (Via::Exec, "/bin/dash", &["sh", "-s", "x"], false, File, Some(High)),
            (Via::Exec, "/usr/bin/python3", &["python3", "-"], false, Socket, Some(High)),
            (Via::Exec, "/usr/bin/python3", &["python3", "x.py"], false, Pipe, Some(Info)),
            (Via::Exec, "/usr/bin/mysql", &["mysql"], false, Pipe, Some(Info)),
            (Via::Exec, "/usr/bin/tar", &["tar", "xf", "-"], false, Pipe, Some(Info)),
            // This is the severity of the shell itself.
            (Via::Exec, "/bin/dash", &["sh", "-c", "true"], false, Pipe, Some(Medium)),
            (Via::Exec, "/bin/dash", &["sh"], false, Null, Some(Medium)),
            (Via::Nsenter, "/bin/ls", &["ls"], false, Null, Some(Low)),
            (Via::Nsenter, "/bin/ls", &["ls"], true, Tty, Some(High)),
            (Via::Entrypoint, "/usr/sbin/nginx", &["nginx"], true, Tty, Some(Low)),
            (Via::Entrypoint, "/usr/bin/python3", &["python3", "app.py"], true, Tty, Some(Low)),
            (Via::Entrypoint, "/usr/bin/python3", &["python3"], true, Tty, Some(High)),
            (Via::Terminal, "/usr/bin/top", &["top"], true, Tty, Some(Low)),
            (Via::Terminal, "/usr/bin/node", &["node"], true, Tty, Some(High)),
            (Via::Socket, "/usr/bin/node", &["node", "x.js"], false, Socket, None),
            (Via::Socket, "/bin/dash", &["sh", "-c", "id"], false, Socket, None),
            (Via::Socket, "/bin/dash", &["sh", "-i"], false, Socket, Some(Critical)),
            (Via::Socket, "/usr/bin/python3", &["python3"], false, Socket, Some(Critical)),
            (Via::Socket, "/bin/dash", &["sh"], false, Pipe, None),
            // As sshd does for a login, and what else can have the terminal of the container.
            (Via::Socket, "/bin/dash", &["-sh"], true, Tty, Some(High)),
            (Via::Socket, "/usr/bin/top", &["top"], true, Tty, None),
            (Via::Socket, "/bin/dash", &["sh", "-c", "id"], true, Socket, None),
        ] {
            assert_eq!(severity(via, exe, args, tty, stdin), expected, "{via:?} {args:?} {tty} {stdin:?}");
        }
    }

    #[test]
    fn a_terminal_that_is_opened_for_a_connection_makes_a_session() {
        let mut watch = Watch::default();
        let mut server = run(Via::Socket, 1234, 0, "/usr/sbin/sshd", &["sshd", "-R"]);
        server.process.stdio[0] = StdioKind::Socket;
        watch.exec(server);
        watch.until(SECOND);
        assert_eq!(watch.severity(), None);
        let mut shell = run(Via::Socket, 1235, SECOND, "/bin/dash", &["-sh"]);
        (shell.process.stdio[0], shell.process.tty) = (StdioKind::Tty, Some(name("pts0")));
        watch.exec(shell);
        watch.until(3 * SECOND);
        assert_eq!(watch.severity(), Some(Severity::High));
        let via = watch.sessions().last().and_then(|finding| Some(finding.summary.as_ref()?.via));
        assert_eq!(via, Some(Via::Terminal));
    }

    #[test]
    fn a_later_program_can_take_the_commands_that_came_from_outside() {
        for (stdin, expected) in [(7, Severity::High), (8, Severity::Medium)] {
            let mut watch = Watch::default();
            let mut first = run(Via::Exec, 1234, 0, "/usr/bin/timeout", &["timeout", "5", "sh"]);
            (first.process.stdio[0], first.process.stdin) = (StdioKind::Pipe, 7);
            watch.exec(first);
            let mut shell = run(Via::Exec, 1235, 1, "/bin/sh", &["sh"]);
            (shell.process.stdio[0], shell.process.stdin) = (StdioKind::Pipe, stdin);
            watch.exec(shell);
            watch.until(SECOND);
            assert_eq!(watch.severity(), Some(expected));
        }
    }

    #[test]
    fn a_disguised_shell_opens_its_session_when_its_content_is_known() {
        let (mut detector, mut found) = (Detector::default(), Vec::new());
        let mut exec = run(Via::Socket, 1234, 0, "/tmp/x", &["x"]);
        exec.process.stdio[0] = StdioKind::Socket;
        let event = Event::Exec(Box::new(exec));
        detector.detect(&event, &container(), &CONTEXT, |finding| found.push(finding));
        assert_eq!(found, []);
        let look = Ok(Content::Shell("bash"));
        detector.detect_by_content(&event, look, &container(), &CONTEXT, |finding| found.push(finding));
        let [shell, session] = &found[..] else { panic!("{found:?}") };
        assert_eq!(shell.session.as_ref(), Some(&session.id));
        assert_eq!((session.finding, session.severity), (Kind::Session, Severity::Critical));
    }

    #[test]
    fn an_end_that_is_not_seen_is_noticed() {
        let mut watch = Watch::default();
        watch.exec(run(Via::Exec, 1234, 0, "/bin/true", &["true"]));
        let (here, gone) = ([(1234, STARTED)].into(), HashSet::new());
        for (nth, (living, is_over)) in
            [(&gone, false), (&here, false), (&gone, false), (&gone, true)].iter().enumerate()
        {
            watch.detector.sweep(living, STARTED + (nth as u64 + 1) * 10 * SECOND, &CONTEXT);
            watch.until((nth as u64 + 1) * 10 * SECOND + GRACE);
            let last = watch.sessions().last().and_then(|finding| finding.summary.as_ref()).expect("it is open");
            assert_eq!((last.ended.is_some(), last.end_not_seen), (*is_over, *is_over));
        }
        let mut watch = Watch::default();
        watch.exec(run(Via::Exec, 1234, 0, "/bin/true", &["true"]));
        watch.detector.end_container(499, STARTED + SECOND, &CONTEXT, drop);
        watch.detector.end_container(500, STARTED + 2 * SECOND, &CONTEXT, drop);
        watch.until(60 * SECOND);
        let summary = watch.sessions().last().and_then(|finding| finding.summary.clone()).expect("it is told");
        assert_eq!(summary.ended, Some(CONTEXT.wall(STARTED + 2 * SECOND)));
        assert!(summary.end_not_seen);
    }

    #[test]
    fn a_resumed_session_has_its_id_and_higher_revisions() {
        let mut before = Watch::default();
        let mut shell = run(Via::Exec, 1234, 0, "/bin/sh", &["sh"]);
        shell.process.tty = Some(name("pts0"));
        before.exec(shell.clone());
        for second in 0..100 {
            before.exec(run(Via::Exec, 2000, second * SECOND, "/bin/ls", &["ls"]));
            before.until(second * SECOND);
        }
        let mut after = Watch::default();
        // The kernel and /proc tell the start in different units.
        let session = Session { start_time: STARTED - STARTED % process::TICK, ..of(Via::Exec) };
        let process = crate::event::Process { session: Some(session), ..shell.process };
        let at = At { time: STARTED + 101 * SECOND, number: 0, cgroup: 500, container: 500 };
        after.detector.resume(&process, &samples::path("/bin/sh"), at, (&container(), &CONTEXT));
        after.until(102 * SECOND);
        let (old, new) = (before.sessions(), after.sessions());
        let (old, new) = (old.last().expect("it is told"), new.last().expect("it is told"));
        assert_eq!(old.id, new.id);
        assert!(old.revision < new.revision, "{} {}", old.revision, new.revision);
        assert_eq!(new.severity, Severity::High);
        assert!(new.summary.as_ref().is_some_and(|summary| summary.resumed.is_some()));
    }

    #[test]
    fn the_number_of_open_sessions_is_limited() {
        let mut watch = Watch::default();
        for (via, most) in [(Via::Terminal, MOST_INSIDE), (Via::Exec, MOST - MOST_INSIDE)] {
            for nth in 0..most as u32 + 3 {
                let pid = 10_000 * via.number() + nth;
                let mut exec = run(via, pid, 0, "/bin/true", &["true"]);
                exec.process.session = Some(Session { pid, ..of(via) });
                watch.exec(exec);
            }
        }
        watch.until(SECOND);
        assert_eq!(watch.sessions().len(), MOST);
        assert_eq!(watch.detector.refused_sessions(), 6);
    }

    #[test]
    fn ten_thousand_acts_make_few_lines_of_limited_size() {
        let mut watch = Watch::default();
        let long = "x".repeat(2000);
        for nth in 0..10_000_u64 {
            let mut exec = run(Via::Exec, 2000 + nth as u32, nth * SECOND / 100, "/bin/ls", &["ls", &long, "-l"]);
            exec.args = Args { bytes: [&exec.args.bytes[..], b"\xff\0"].concat(), truncated: false };
            watch.exec(exec);
            watch.until(nth * SECOND / 100);
        }
        watch.event(&exit(Via::Exec, 1234, 101 * SECOND, 0, true));
        watch.until(200 * SECOND);
        let sessions = watch.sessions();
        assert!(sessions.len() <= 5, "{} lines", sessions.len());
        let last = sessions.last().and_then(|finding| finding.summary.as_ref()).expect("it is told");
        assert_eq!(last.programs.len() as u64 + last.programs_omitted, 10_000);
        assert!(last.programs.iter().all(|program| program.truncated && program.args.len() == 1));
        assert!(
            sessions
                .iter()
                .all(|finding| crate::output::json::line(&Line::Finding(Box::new((*finding).clone()))).len() < 65_536)
        );
    }

    /// What can happen to a session.
    #[derive(Clone, Debug)]
    enum Step {
        Exec { session: u32, child: u32, exe: usize },
        Change { session: u32, file: u8 },
        Exit { session: u32, child: u32, is_last: bool },
        Wait(u64),
        Sweep(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..4_u32, 0..6_u32, 0..3_usize).prop_map(|(session, child, exe)| Step::Exec { session, child, exe }),
            (0..4_u32, any::<u8>()).prop_map(|(session, file)| Step::Change { session, file }),
            (0..4_u32, 0..6_u32, prop::bool::weighted(0.2)).prop_map(|(session, child, is_last)| Step::Exit {
                session,
                child,
                is_last
            }),
            (0..30 * SECOND).prop_map(Step::Wait),
            (0..4_u32).prop_map(Step::Sweep),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_the_lines_of_a_session_fit_together(steps in prop::collection::vec(step(), 0..200)) {
            const EXES: [&str; 3] = ["/bin/true", "/bin/sh", "/usr/bin/python3"];
            let mut watch = Watch::default();
            let mut after = 0;
            for step in steps {
                after += 1;
                let session = |session| Session { pid: 1 + session, ..of(Via::Exec) };
                match step {
                    Step::Exec { session: nth, child, exe } => {
                        let mut exec = run(Via::Exec, 100 * (1 + nth) + child, after, EXES[exe], &[EXES[exe]]);
                        exec.process.session = Some(session(nth));
                        watch.exec(exec);
                    }
                    Step::Change { session: nth, file } => {
                        let mut write = change(ImageOp::OpenWrite, Layer::Lower, 0o100644, &format!("/srv/{file}"));
                        write.at.time = STARTED + after;
                        write.detail.as_mut().expect("the sample has it").process.session = Some(session(nth));
                        watch.event(&Event::ImageChange(Box::new(write)));
                    }
                    Step::Exit { session: nth, child, is_last } => {
                        let Event::Exit(exit) = exit(Via::Exec, 100 * (1 + nth) + child, after, 0, is_last) else {
                            unreachable!("it is one")
                        };
                        watch.event(&Event::Exit(Exit { session: session(nth), ..exit }));
                    }
                    Step::Wait(time) => {
                        after += time;
                        watch.until(after);
                    }
                    Step::Sweep(gone) => {
                        let living = (0..4).filter(|nth| *nth != gone).map(|nth| (1 + nth, STARTED)).collect();
                        watch.detector.sweep(&living, STARTED + after, &CONTEXT);
                    }
                }
            }
            let lines = &mut watch.lines;
            watch.detector.stop(STARTED + after, &CONTEXT, |line| lines.push(line));
            let mut last: HashMap<String, &Finding> = HashMap::new();
            for finding in watch.sessions() {
                let summary = finding.summary.as_ref().expect("it has one");
                prop_assert!(summary.programs.len() <= LISTED && summary.files.len() <= LISTED);
                let by_rule = finding.severity_rule.map(SeverityRule::severity);
                prop_assert_eq!(by_rule, Some(finding.ruled_severity()));
                if let Some(before) = last.insert(finding.id.clone(), finding) {
                    prop_assert_eq!(finding.revision, before.revision + 1);
                    prop_assert!(finding.severity >= before.severity && finding.time >= before.time);
                    let before = before.summary.as_ref().expect("it has one");
                    prop_assert!(before.ended.is_none());
                    prop_assert!(summary.programs.len() >= before.programs.len());
                } else {
                    prop_assert_eq!(finding.revision, 1);
                }
            }
            // Every act names a session that has a finding, and is counted there.
            let mut acts: HashMap<&str, u64> = HashMap::new();
            for line in &watch.lines {
                if let Line::Finding(finding) = line
                    && finding.finding != Kind::Session
                {
                    let id = finding.session.as_deref().expect("all acts are in sessions");
                    prop_assert!(last.contains_key(id));
                    let has_ended = last[id].summary.as_ref().is_some_and(|summary| summary.ended.is_some());
                    prop_assert!(finding.severity <= last[id].severity || has_ended);
                    *acts.entry(id).or_default() += 1;
                }
            }
            for (id, finding) in &last {
                let summary = finding.summary.as_ref().expect("it has one");
                let counted: u64 = summary.findings.values().sum();
                prop_assert!(counted <= acts.get(id.as_str()).copied().unwrap_or(0));
                prop_assert!(counted == acts.get(id.as_str()).copied().unwrap_or(0) || summary.ended.is_some());
            }
        }
    }
}
