//! From events to findings. No I/O and no clock: what is found depends on the events and nothing else.
//!
//! One module for each kind of finding; a new one gets a line in [`Detector::detect`] and a
//! [`Kind`].

mod cgroup_escape;
mod code;
pub mod content;
mod describe;
mod device_write;
mod drifted_exec;
mod fileless_exec;
mod image_shadowed;
mod image_write;
mod place;
pub mod process;
mod script;
mod shell;

use crate::container::table::Container;
use crate::event::{Event, Op, Process as Actor, Script};
use crate::finding::{Finding, Kind, Process, SCHEMA_VERSION, Severity, Time};
use crate::redact::Redactor;
use code::Code;
use content::Content;
use process::Program;

pub use describe::container;

/// What findings say of the place and the time.
#[derive(Clone, Debug)]
pub struct Context {
    node: String,
    boot_to_wall: i64,
    redactor: Redactor,
    sequence: u64,
}

impl Context {
    /// Of a node whose wall clock is `boot_to_wall` nanoseconds ahead of its `CLOCK_BOOTTIME`. `redactor`: what is kept
    /// secret of arguments.
    pub fn new(node: String, boot_to_wall: i64, redactor: Redactor) -> Self {
        Self { node, boot_to_wall, redactor, sequence: 0 }
    }

    /// From now on the wall clock is `boot_to_wall` nanoseconds ahead of `CLOCK_BOOTTIME`: it was set, or it drifts.
    pub(crate) fn set_boot_to_wall(&mut self, boot_to_wall: i64) {
        self.boot_to_wall = boot_to_wall;
    }

    /// The wall clock's time at `boot` nanoseconds of `CLOCK_BOOTTIME`.
    pub fn wall(&self, boot: u64) -> Time {
        Time::from_nanoseconds(i128::from(boot) + i128::from(self.boot_to_wall))
    }

    /// The finding about an event at `time`.
    fn finding(&mut self, time: u64, container: &Container, verdict: Verdict) -> Finding {
        self.sequence += 1;
        let time = self.wall(time);
        Finding {
            time,
            schema: SCHEMA_VERSION,
            id: format!("{:016x}-{:x}", time.0.as_nanosecond(), self.sequence),
            node: self.node.clone(),
            finding: verdict.finding,
            severity: verdict.severity,
            message: verdict.message,
            container: describe::container(container),
            process: verdict.process,
            file: verdict.file,
            mitre: verdict.mitre.iter().map(|&id| id.into()).collect(),
            suppressed_by: None,
        }
    }
}

/// What a detection says; the rest of a finding is the same for all.
struct Verdict {
    finding: Kind,
    severity: Severity,
    message: String,
    process: Option<Process>,
    file: Option<crate::finding::File>,
    mitre: &'static [&'static str],
}

/// Where findings about one event go.
struct Report<'a, F> {
    time: u64,
    container: &'a Container,
    context: &'a mut Context,
    found: F,
}

impl<F: FnMut(Finding)> Report<'_, F> {
    fn tell(&mut self, verdict: Option<Verdict>) {
        if let Some(verdict) = verdict {
            let finding = self.context.finding(self.time, self.container, verdict);
            (self.found)(finding);
        }
    }
}

/// All detections, and what they remember.
#[derive(Debug, Default)]
pub struct Detector {
    programs: process::Programs,
    scripts: script::Scripts,
}

impl Detector {
    /// Takes in a program that was running before the events began.
    pub fn remember(&mut self, program: Program) {
        self.programs.insert(program);
    }

    /// What an event in a container means: `found` gets each finding, if there are any.
    pub fn detect(&mut self, event: &Event, container: &Container, context: &mut Context, found: impl FnMut(Finding)) {
        let Some(at) = event.at() else { return };
        let mut report = Report { time: at.time, container, context, found };
        match event {
            Event::Exec(exec) => {
                self.programs.insert(Program::of(exec));
                let scripts = self.scripts.take(exec);
                let code = Code::executed(exec);
                report.tell(shell::detect(&code, None, scripts.first(), container, report.context));
                report.tell(foreign(&code, container, report.context));
                for script in &scripts {
                    report.tell(foreign(&Code::interpreted(script, exec), container, report.context));
                }
            }
            Event::Script(script) => self.scripts.insert(Script::clone(script)),
            Event::MapExec(mapped) => {
                let code = Code::mapped(mapped, self.program_of(&mapped.process));
                report.tell(shell::detect(&code, None, None, container, report.context));
                report.tell(foreign(&code, container, report.context));
            }
            Event::KeptMapExec(_, file) => {
                report.tell(fileless_exec::kept(file, container).or_else(|| drifted_exec::kept(file, container)));
            }
            Event::ImageWrite(write) => {
                let detect = match write.op {
                    Op::DeviceWrite => device_write::detect,
                    Op::Mount
                    | Op::Bind
                    | Op::Remount
                    | Op::MoveMount
                    | Op::Umount
                    | Op::PivotRoot
                    | Op::Chroot
                    | Op::MountSetattr => image_shadowed::detect,
                    _ => image_write::detect,
                };
                let program = write.process.as_ref().and_then(|process| self.program_of(process));
                report.tell(Some(detect(write, program, container, report.context)));
            }
            Event::CgroupEscape(escape) => {
                let program = self.program_of(&escape.process);
                report.tell(Some(cgroup_escape::detect(escape, program, container, report.context)));
            }
            Event::CgroupCreated(_) | Event::CgroupRemoved(_) => {}
        }
    }

    /// What an event means now that the content of its file is known: for those that [ask for it](needs_content).
    pub fn content_known(
        &mut self,
        event: &Event,
        content: Content,
        container: &Container,
        context: &mut Context,
        found: impl FnMut(Finding),
    ) {
        let code = match event {
            Event::Exec(exec) => Code::executed(exec),
            Event::MapExec(mapped) => Code::mapped(mapped, self.program_of(&mapped.process)),
            _ => return,
        };
        let mut report = Report { time: code.time, container, context, found };
        report.tell(shell::detect(&code, Some(content), None, container, report.context));
    }

    fn program_of(&mut self, process: &Actor) -> Option<&Program> {
        self.programs.get(process.pid, process.start_time)
    }
}

/// Whether only the content of the executed or mapped file can tell what it is.
pub fn needs_content(event: &Event) -> bool {
    match event {
        Event::Exec(exec) => shell::is_unknown(&Code::executed(exec)),
        Event::MapExec(mapped) => shell::is_unknown(&Code::mapped(mapped, None)),
        _ => false,
    }
}

/// Code that should not run in a container, wherever it is from.
fn foreign(code: &Code, container: &Container, context: &Context) -> Option<Verdict> {
    fileless_exec::detect(code, container, context).or_else(|| drifted_exec::detect(code, container, context))
}

#[cfg(test)]
pub(crate) mod samples {
    //! Events as they are on real nodes, for the tests of this module and of the outputs.

    use super::*;
    use crate::event::{
        Ancestor, Args, At, Exec, File, ImageWrite, Layer, MapExec, Name, Op, Origin, Path, Process, Script, Stdio,
    };
    use crate::finding;

    pub(crate) const ID: &str = "3f2a0c6d9e1b4857a6c3d2e1f0b9a8877665544332211000ffeeddccbbaa9988";

    pub(crate) fn name(text: &str) -> Name {
        let mut padded = [0; 16];
        padded[..text.len()].copy_from_slice(text.as_bytes());
        Name::new(padded)
    }

    pub(crate) fn path(text: &str) -> Path {
        Path { bytes: text.into(), truncated: false }
    }

    pub(crate) fn args(list: &[&str]) -> Args {
        Args {
            bytes: list.iter().flat_map(|arg| [arg.as_bytes(), b"\0"]).flatten().copied().collect(),
            truncated: false,
        }
    }

    pub(crate) fn context() -> Context {
        Context::new("node-1".into(), 1_800_000_000_000_000_000, Redactor::default())
    }

    pub(crate) fn container() -> Container {
        Container::new(500, format!("/system.slice/docker-{ID}.scope").into_bytes(), 1)
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
            stdio: [Stdio::Null, Stdio::Pipe, Stdio::Pipe],
            ancestors: vec![Ancestor { start_time: 60, pid: 1200, in_container: false, comm: name("runc") }],
        }
    }

    pub(crate) fn exec(origin: Origin, exe: &str, list: &[&str]) -> Exec {
        Exec {
            at: At { time: 77, cgroup: 501, container: 500 },
            process: process(origin),
            file: File { inode: 99, dev: 45, mode: 0o100755, nlink: 1, layer: Some(Layer::Lower), size: 1, magic: 0 },
            exe: path(exe),
            cwd: path("/srv"),
            args: args(list),
        }
    }

    pub(crate) fn write(op: Op, layer: Layer, mode: u32, file: &str) -> ImageWrite {
        ImageWrite {
            at: At { time: 88, cgroup: 500, container: 500 },
            process: Some(process(Origin::Application)),
            file: File { inode: 101, dev: 45, mode, nlink: 1, layer: Some(layer), size: 1, magic: 0 },
            op,
            bytes: 0,
            path: Some(path(file)),
            new_path: None,
            exe: Some(path("/usr/bin/python3.12")),
        }
    }

    pub(crate) fn script(file: &str) -> Script {
        let exec = exec(Origin::Application, file, &[]);
        Script { at: exec.at, pid: exec.process.pid, file: exec.file, path: exec.exe }
    }

    pub(crate) fn mapped(exe: &str, file: &str) -> MapExec {
        let Exec { at, process, exe, file: mapped, .. } = exec(Origin::Application, exe, &[]);
        MapExec { at, process, file: mapped, path: path(file), exe }
    }

    pub(crate) fn all_found(events: &[Event]) -> Vec<Finding> {
        let (mut detector, mut context, container) = (Detector::default(), context(), container());
        let mut all = Vec::new();
        events.iter().for_each(|event| detector.detect(event, &container, &mut context, |finding| all.push(finding)));
        all
    }

    /// What a finding says of a container whose runtime tells everything, in these words.
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

    /// The finding about an event of which there is at most one.
    pub(crate) fn found(event: Event) -> Option<Finding> {
        let mut all = all_found(&[event]);
        assert!(all.len() <= 1, "{all:?}");
        all.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::samples::*;
    use super::*;
    use crate::event::{Layer, Op, Origin};

    #[test]
    fn ids_are_unique_and_sort_by_time() {
        let event = Event::Exec(Box::new(exec(Origin::Entered, "/bin/sh", &["sh"])));
        let [first, second] = &all_found(&[event.clone(), event])[..] else { panic!("two shells") };
        assert_eq!(first.id, "18fae27693b4004d-1");
        assert!(first.id < second.id);
        assert_eq!(first.time.to_string(), "2027-01-15T08:00:00.000000077Z");
    }

    #[test]
    fn a_write_shows_the_arguments_of_the_earlier_exec() {
        let exec = exec(Origin::Application, "/usr/bin/python3.12", &["python3", "app.py"]);
        let write = write(Op::OpenWrite, Layer::Lower, 0o100644, "/etc/app.conf");
        // The same pid of another process.
        let mut other = write.clone();
        other.process.as_mut().expect("it has one").start_time += 1_000_000_000;
        let events =
            [Event::Exec(Box::new(exec)), Event::ImageWrite(Box::new(write)), Event::ImageWrite(Box::new(other))];
        let [first, second] = &all_found(&events)[..] else { panic!("two writes") };
        let process = first.process.as_ref().expect("it is known");
        let args = process.args.as_ref().map(|args| args.iter().map(ToString::to_string).collect());
        assert_eq!(args, Some(vec!["python3".to_owned(), "app.py".to_owned()]));
        assert_eq!(process.cwd.as_ref().map(ToString::to_string), Some("/srv".into()));
        assert_eq!(second.process.as_ref().expect("it is known").args, None);
    }
}
