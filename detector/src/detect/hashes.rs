//! The SHA-256 of programs that should not run in a container: which ones are asked for, and those that are known. The
//! files are read elsewhere, so a hash comes after the finding about the execution, unless the same version of the file
//! was executed before.
//!
//! Asked for are only the programs of findings that are published, so that no notice names a finding that nobody has
//! seen.

use serde::{Deserialize, Serialize};

use super::code::is_in_memory;
use super::content::MOST_READ;
use super::context::Context;
use crate::event::{At, Exec, File, may_have_changed};
use crate::finding::{Container, Finding, Kind, Notice, NoticeEvent, Severity, Sha256, Text, Unread};
use crate::recent::Recent;

/// How many hashes are remembered at most.
const MOST: usize = 16_384;
/// How many findings wait for a hash at most. No run has so many in its queue.
const MOST_ASKED: usize = 2048;

/// What the reading of a file has led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hashed {
    /// When this was known, in nanoseconds since boot.
    pub(crate) time: u64,
    /// The hash, or why it is not known.
    pub(crate) result: Result<Sha256, Unread>,
}

/// A version of a file: the container, and the file's device, inode, size and change time.
type Version = (u64, u32, u64, u64, u64);

/// A published finding that waits for the hash.
#[derive(Debug)]
struct Asked {
    finding: String,
    container: Container,
    path: Option<Text>,
}

/// The known hashes, and the findings that wait for one.
#[derive(Debug)]
pub(super) struct Hashes {
    known: Recent<Version, Sha256>,
    /// By time and number of the execution.
    asked: Recent<(u64, u64), Asked>,
}

impl Default for Hashes {
    fn default() -> Self {
        Self { known: Recent::new(MOST), asked: Recent::new(MOST_ASKED) }
    }
}

impl Hashes {
    /// Adds the hash of the executed program to the findings about it, or why there will be none, if either is known.
    pub(super) fn add(&mut self, exec: &Exec, findings: &mut [Finding], context: &Context) {
        for finding in findings.iter_mut().filter(|finding| is_about(finding, exec, context)) {
            let known = match &exec.file {
                file if file.is_remote() => Some(Err(Unread::Remote)),
                file if file.size > MOST_READ => Some(Err(Unread::TooLarge)),
                file => self.known.get(&version(exec.at, file)).copied().map(Ok),
            };
            if let (Some(known), Some(file)) = (known, &mut finding.file) {
                (file.sha256, file.unhashed) = (known.ok(), known.err());
            }
        }
    }

    /// Notes that a finding is published. If it is about this execution and lacks the hash, that is asked for.
    pub(super) fn note(&mut self, exec: &Exec, finding: &Finding, context: &Context) {
        if let (Some(container), Some(file)) = (&finding.container, &finding.file)
            && file.sha256.is_none()
            && file.unhashed.is_none()
            && is_about(finding, exec, context)
        {
            let (finding, container, path) = (finding.id.clone(), container.clone(), file.path.clone());
            self.asked.insert((exec.at.time, exec.at.number), Asked { finding, container, path });
        }
    }

    /// Whether the hash of the executed program is asked for.
    pub(super) fn asks_for(&mut self, exec: &Exec) -> bool {
        self.asked.get(&(exec.at.time, exec.at.number)).is_some()
    }

    /// Remembers the hash of the executed program. Returns the notice about the finding that waits for it.
    pub(super) fn take(&mut self, exec: &Exec, hashed: Hashed, context: &Context) -> Option<Notice> {
        let Hashed { time, result } = hashed;
        if let Ok(hash) = result
            && shows_changes(exec, context)
        {
            self.known.insert(version(exec.at, &exec.file), hash);
        }
        let Asked { finding, container, path } = self.asked.remove(&(exec.at.time, exec.at.number))?;
        let path = path.as_ref().map_or("an unnamed file", Text::as_str);
        let message = match result {
            Ok(hash) => format!("{path} has the SHA-256 {hash}"),
            Err(unread) => format!("{path} has no known SHA-256: {}", unread.reason()),
        };
        let (sha256, unhashed) = (result.ok(), result.err());
        let event = NoticeEvent::FileHash { finding, message, container: Box::new(container), sha256, unhashed };
        Some(Notice::at(context.wall(time), context.node.clone(), event))
    }
}

/// Whether a finding is about the execution of code that should not run, of high severity, and about this very program,
/// not about its script.
fn is_about(finding: &Finding, exec: &Exec, context: &Context) -> bool {
    matches!(finding.finding, Kind::DriftedExec | Kind::FilelessExec | Kind::VolumeExec)
        && finding.severity >= Severity::High
        && finding.id == context.id(exec.at, finding.finding)
}

fn version(at: At, file: &File) -> Version {
    (at.container, file.dev, file.inode, file.size, file.change_time)
}

/// Whether each later change of the executed file gives it another change time. The time of a file in memory does not
/// show stores to its mappings, and two changes within the resolution of the clock can have the same time.
fn shows_changes(exec: &Exec, context: &Context) -> bool {
    !is_in_memory(&exec.file) && !may_have_changed(exec.file.change_time, context.wall_nanoseconds(exec.at.time))
}

#[cfg(test)]
mod tests {
    use super::super::{Detector, samples::*};
    use super::*;
    use crate::container::table::TrackedContainer;
    use crate::event::{Difference, Event, Layer, Origin};
    use crate::finding::Line;

    const TMPFS: u32 = 0x0102_1994;

    /// Takes an event, and returns whether a hash is asked for then.
    fn asks(detector: &mut Detector, event: &Event, container: &TrackedContainer) -> bool {
        detector.detect(event, container, &context(), drop);
        detector.asks_for_hash(event)
    }

    /// What the finding about an execution says of the hash.
    fn told(detector: &mut Detector, exec: &Exec) -> (Option<Sha256>, Option<Unread>) {
        let (event, mut found) = (Event::Exec(Box::new(exec.clone())), Vec::new());
        detector.detect(&event, &container(), &context(), |finding| found.push(finding));
        let [Finding { file: Some(file), .. }] = &found[..] else { panic!("{found:?}") };
        (file.sha256, file.unhashed)
    }

    /// Tells the result of reading the file of an execution.
    fn tell(detector: &mut Detector, exec: &Exec, result: Result<Sha256, Unread>) -> Option<Notice> {
        detector.take_hash(&Event::Exec(Box::new(exec.clone())), Hashed { time: 99, result }, &context())
    }

    /// Executes a program and tells its hash. Returns what the finding about the next execution says of it.
    fn told_after(first: &Exec, next: &Exec) -> (Option<Sha256>, Option<Unread>) {
        let mut detector = Detector::default();
        assert_eq!(told(&mut detector, first), (None, None), "it is not known yet");
        tell(&mut detector, first, Ok(HASH)).expect("the finding waits");
        let mut next = next.clone();
        (next.at.time, next.at.number) = (next.at.time + 1, 2);
        told(&mut detector, &next)
    }

    const HASH: Sha256 = Sha256([0xa7; 32]);

    #[test]
    fn only_programs_of_high_severity_are_asked_for() {
        let asks = |exec: Exec, root_dev, started| {
            let container = TrackedContainer { root_dev, started, ..container() };
            asks(&mut Detector::default(), &Event::Exec(Box::new(exec)), &container)
        };
        assert!(asks(drifted("/tmp/x", &["x"]), None, None));
        assert!(asks(drifted("/bin/dash", &["sh"]), None, None), "a changed shell");
        let mut shell = exec(Origin::Application, "/bin/dash", &["sh"]);
        shell.process.tty = Some(name("pts0"));
        assert!(!asks(shell, None, None), "it is as in the image");
        for (difference, is_high) in [(Difference::Metadata, false), (Difference::Privileges, true)] {
            let mut exec = drifted("/tmp/x", &["x"]);
            exec.file.difference = Some(difference);
            assert_eq!(asks(exec, Some(45), None), is_high, "{difference:?}");
        }
        let mut memory = exec(Origin::Application, "memfd:x", &["x"]);
        (memory.file.layer, memory.file.nlink, memory.file.magic) = (None, 0, TMPFS);
        assert!(asks(memory, None, None));
        for (changed, is_high) in [(70, true), (-80_000_000, false)] {
            let mut volume = exec(Origin::Application, "/data/x", &["x"]);
            let changed = context().wall_nanoseconds(0) + changed;
            (volume.file.layer, volume.file.change_time) = (None, changed.try_into().expect("it is after 1970"));
            assert_eq!(asks(volume, Some(7), Some(60)), is_high);
        }
    }

    #[test]
    fn scripts_and_libraries_are_not_asked_for() {
        let (mut detector, container) = (Detector::default(), container());
        let mut outer = script("/srv/outer");
        (outer.file.layer, outer.at.number) = (Some(Layer::Upper), 5);
        assert!(!asks(&mut detector, &Event::Script(Box::new(outer)), &container));
        let python = exec(Origin::Application, "/usr/bin/python3", &["/usr/bin/python3", "/srv/outer"]);
        assert!(!asks(&mut detector, &Event::Exec(Box::new(python)), &container), "the script is drifted");
        let mut library = mapped("/usr/sbin/nginx", "/tmp/evil.so");
        library.file.layer = Some(Layer::Upper);
        assert!(!asks(&mut detector, &Event::MapExec(Box::new(library)), &container));
        let module = read("/usr/bin/python3", "/tmp/x.py");
        assert!(!asks(&mut detector, &Event::Interpret(Box::new(module)), &container));
    }

    #[test]
    fn the_same_version_has_its_hash_at_once() {
        let first = drifted("/tmp/x", &["x"]);
        assert_eq!(told_after(&first, &drifted("/tmp/link", &["other"])), (Some(HASH), None));
        let change: [fn(&mut Exec); 5] = [
            |exec| exec.file.dev += 1,
            |exec| exec.file.inode += 1,
            |exec| exec.file.size += 1,
            |exec| exec.file.change_time += 1,
            |exec| exec.at.container += 1,
        ];
        for (nth, change) in change.into_iter().enumerate() {
            let mut next = first.clone();
            change(&mut next);
            assert_eq!(told_after(&first, &next), (None, None), "{nth}");
        }
    }

    #[test]
    fn a_file_that_can_change_without_another_time_is_read_again() {
        let changed = |before| u64::try_from(context().wall_nanoseconds(77) - before).expect("it is after 1970");
        for (before, expected) in [(10_000_000, None), (10_000_001, Some(HASH))] {
            let mut exec = drifted("/tmp/x", &["x"]);
            exec.file.change_time = changed(before);
            assert_eq!(told_after(&exec, &exec), (expected, None), "{before}");
        }
        let mut memory = exec(Origin::Application, "/dev/shm/x", &["x"]);
        (memory.file.layer, memory.file.magic) = (None, TMPFS);
        assert_eq!(told_after(&memory, &memory), (None, None));
    }

    #[test]
    fn what_will_not_be_read_says_why_at_once() {
        let exec = drifted("/tmp/x", &["x"]);
        let [mut large, mut remote, mut served] = [exec.clone(), exec.clone(), exec];
        large.file.size = MOST_READ;
        let mut detector = Detector::default();
        assert_eq!(told(&mut detector, &large), (None, None));
        large.file.size += 1;
        (remote.file.magic, served.file.is_served) = (0x6969, true);
        for (exec, unread) in [(large, Unread::TooLarge), (remote, Unread::Remote), (served, Unread::Remote)] {
            let mut detector = Detector::default();
            assert_eq!(told(&mut detector, &exec), (None, Some(unread)));
            assert!(!detector.asks_for_hash(&Event::Exec(Box::new(exec))), "{unread:?}");
        }
    }

    #[test]
    fn a_published_finding_gets_its_hash_later() {
        let (event, mut ids) = (Event::Exec(Box::new(drifted("/bin/dash", &["sh"]))), Vec::new());
        let mut detector = Detector::default();
        detector.detect(&event, &container(), &context(), |finding| ids.push((finding.finding, finding.id)));
        let [(Kind::ShellInContainer, _), (Kind::DriftedExec, id)] = &ids[..] else { panic!("{ids:?}") };
        let mut take = |result| detector.take_hash(&event, Hashed { time: 99, result }, &context());
        let notice = take(Ok(HASH)).expect("the finding waits");
        let NoticeEvent::FileHash { finding, message, container, sha256, unhashed } = notice.event else {
            panic!("{notice:?}")
        };
        assert_eq!((notice.time, &finding, container.cgroup_id), (context().wall(99), id, 500));
        assert_eq!((sha256, unhashed), (Some(HASH), None));
        assert_eq!(message, format!("/bin/dash has the SHA-256 {}", "a7".repeat(32)));
        assert_eq!(take(Ok(HASH)), None, "it is told once");
        assert!(!detector.asks_for_hash(&event));
    }

    #[test]
    fn a_hash_that_is_not_known_says_why() {
        let (mut detector, exec) = (Detector::default(), drifted("/tmp/x", &["x"]));
        told(&mut detector, &exec);
        let notice = tell(&mut detector, &exec, Err(Unread::TimedOut)).expect("the finding waits");
        let NoticeEvent::FileHash { message, sha256, unhashed, .. } = notice.event else { panic!("{notice:?}") };
        assert_eq!((sha256, unhashed), (None, Some(Unread::TimedOut)));
        assert_eq!(message, "/tmp/x has no known SHA-256: its file could not be read in time");
        assert_eq!(told(&mut detector, &exec), (None, None), "the next one is read");
        assert!(detector.asks_for_hash(&Event::Exec(Box::new(exec))));
    }

    /// A notice must not name a finding that nobody has seen.
    #[test]
    fn what_is_counted_is_not_asked_for() {
        let (mut detector, container) = (Detector::counting(), container());
        let mut exec = drifted("/tmp/x", &["x"]);
        let mut asked = Vec::new();
        for number in 1..=6 {
            (exec.at.time, exec.at.number) = (exec.at.time + 1, number);
            asked.push(asks(&mut detector, &Event::Exec(Box::new(exec.clone())), &container));
        }
        assert_eq!(asked, [true, false, false, false, false, false]);
        // The line about all of them has the id of the first act.
        assert_eq!(tell(&mut detector, &exec, Ok(HASH)), None);
        detector.stop(1000, &context(), |line| {
            let Line::Finding(finding) = line else { panic!("{line:?}") };
            let (count, sha256) = (finding.repeated.map(|all| all.count), finding.file.and_then(|file| file.sha256));
            assert_eq!((count, sha256), (Some(6), None));
        });
    }
}
