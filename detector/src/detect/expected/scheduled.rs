//! `scheduled`: the scheduler of an image runs its jobs.
//!
//! **Facts**: cron is a program in a lower layer of the container's root, and what the container has started has
//! executed it, in no session. Nothing that has the name of cron was changed in the container's image, other than in
//! directories for scratch, no directory was moved there, and no mount was changed. The scheduler, or a process that
//! descends from it, executes a shell that is in a lower layer too, and that takes its commands neither from a
//! terminal nor from its standard input. It has come with the same arguments at a steady [pace](super::pace). All
//! other code that the job runs is in a lower layer or on a volume, since there would be a finding about it, after
//! which nothing is expected.
//!
//! **Never**: what a job changes. A scheduler that reads its jobs from a directory that an argument names. One that has
//! become a daemon is not recognised: the process that executed it has ended.

use super::super::describe::base_name;
use super::super::interpreter;
use super::super::place::Place;
use super::super::shell;
use super::health_check::{is_of_image, is_ordinary_shell};
use super::pace::Paces;
use crate::container::table::TrackedContainer;
use crate::event::{Detail, Event, Exec, ImageOp, Path};
use crate::finding::Finding;
use crate::recent::Recent;

/// The names of schedulers.
const SCHEDULERS: &[&[u8]] = &[b"cron", b"crond"];
/// The beginnings of the names of files and directories that have to do with them.
const THEIRS: &[&[u8]] = &[b"cron", b"anacron"];
/// How many schedulers are remembered at most.
const MOST: usize = 2048;

/// The schedulers that run, and the jobs that they have run.
#[derive(Debug)]
pub(super) struct Schedules {
    /// By the cgroup of the container, and the id and start time of the process.
    schedulers: Recent<(u64, u32, u64), ()>,
    jobs: Paces,
}

impl Default for Schedules {
    fn default() -> Self {
        Self { schedulers: Recent::new(MOST), jobs: Paces::default() }
    }
}

impl Schedules {
    /// Remembers a program that was executed, if it is a scheduler. `is_own`: whether the process belongs to what the
    /// container has started.
    pub(super) fn take(&mut self, exec: &Exec, is_own: bool, container: &TrackedContainer) {
        let key = (container.cgroup_id, exec.process.pid, exec.process.start_time);
        match is_own && is_of_image(exec, container) && is_scheduler(exec) {
            true => self.schedulers.insert(key, ()),
            false => drop(self.schedulers.remove(&key)),
        }
    }

    /// Whether the program is one that a scheduler runs at a steady pace. `findings` are those about the exec.
    pub(super) fn run(&mut self, exec: &Exec, findings: &[Finding], container: &TrackedContainer) -> bool {
        let is_job = !exec.args.truncated
            && is_of_image(exec, container)
            && interpreter::is_shell(&exec.exe, &exec.args)
            && !interpreter::reads_commands(&exec.exe, &exec.args, None)
            && findings.iter().all(is_ordinary_shell)
            && exec.process.ancestors.iter().any(|ancestor| {
                let key = (container.cgroup_id, ancestor.pid, ancestor.start_time);
                ancestor.in_container && self.schedulers.get(&key).is_some()
            });
        let args = || exec.args.iter().map(<[u8]>::to_vec).collect::<Vec<_>>();
        is_job && self.jobs.run(container.cgroup_id, &args(), exec.at.time)
    }
}

/// Whether the event may change what a scheduler runs.
pub(super) fn is_changed_by(event: &Event) -> bool {
    match event {
        Event::MountChange(_) => true,
        Event::ImageChange(change) => {
            // The names of what is in a directory are not told when it gets another name.
            let can_be_any = match change.op {
                ImageOp::Exchange => true,
                ImageOp::Rename => change.file.mode & libc::S_IFMT != libc::S_IFREG,
                _ => false,
            };
            let is_theirs = |detail: &Detail| {
                let mut paths = [Some(&detail.path), detail.new_path.as_ref()].into_iter().flatten();
                paths.any(|path| !is_scratch(path) && (can_be_any || is_of_scheduler(path)))
            };
            change.detail.as_ref().is_none_or(is_theirs)
        }
        _ => false,
    }
}

/// Whether the path is in a directory that no scheduler reads, although it may write its own files and logs there.
fn is_scratch(path: &Path) -> bool {
    !path.truncated && Place::of(&path.bytes) == Place::Scratch
}

fn is_of_scheduler(path: &Path) -> bool {
    let mut names = path.bytes.split(|&byte| byte == b'/');
    path.truncated || names.any(|name| THEIRS.iter().any(|start| name.starts_with(start)))
}

/// Whether the program is a scheduler that reads its jobs from the usual place.
fn is_scheduler(exec: &Exec) -> bool {
    let args: Vec<_> = exec.args.iter().collect();
    let (name, own) = match base_name(&exec.exe.bytes) {
        name if shell::is_one_of(name, shell::BOXES) => match args.split_first() {
            Some((called, own)) if shell::is_one_of(shell::asked_for(called), shell::BOXES) => {
                match own.split_first() {
                    Some((applet, own)) => (shell::asked_for(applet), own),
                    None => return false,
                }
            }
            Some((called, own)) => (shell::asked_for(called), own),
            None => return false,
        },
        name => (name, args.get(1..).unwrap_or_default()),
    };
    let names_directory = |arg: &&[u8]| arg.starts_with(b"-") && arg.contains(&b'c');
    SCHEDULERS.contains(&name) && !exec.args.truncated && !own.iter().any(names_directory)
}

#[cfg(test)]
mod tests {
    use super::super::super::pace::SECOND;
    use super::super::super::samples::{self, change, container, exec, name};
    use super::*;
    use crate::event::{Ancestor, Layer, Origin};

    fn started() -> TrackedContainer {
        TrackedContainer { root_dev: Some(45), ..container() }
    }

    /// A scheduler, whose process is not that of the jobs.
    fn scheduler(exe: &str, args: &[&str]) -> Exec {
        let mut scheduler = exec(Origin::Entrypoint, exe, args);
        (scheduler.process.pid, scheduler.process.start_time) = (9, 5);
        scheduler
    }

    /// A job of this process.
    fn job(parent: u32, args: &[&str]) -> Exec {
        let mut job = exec(Origin::Application, "/bin/dash", args);
        let above = |pid| Ancestor { start_time: 5, pid, in_container: true, comm: name("cron") };
        job.process.ancestors = vec![above(77), above(parent)];
        job
    }

    /// Whether the eighth run of this job is expected, after the scheduler was executed.
    fn is_expected(scheduler: &Exec, job: &Exec) -> bool {
        let mut schedules = Schedules::default();
        schedules.take(scheduler, true, &started());
        let runs = (1..=8).map(|minute| {
            let mut job = job.clone();
            job.at.time = minute * 60 * SECOND;
            schedules.run(&job, &[], &started())
        });
        let runs: Vec<_> = runs.collect();
        assert!(runs[..6].iter().all(|is_job| !is_job), "it has no pace yet");
        runs[7]
    }

    #[test]
    fn schedulers() {
        let job = job(9, &["sh", "-c", "backup"]);
        for (exe, args, expected) in [
            ("/usr/sbin/cron", &["cron", "-f"][..], true),
            ("/usr/sbin/crond", &["crond", "-n"], true),
            ("/bin/busybox", &["crond", "-f", "-l", "8"], true),
            ("/bin/busybox", &["/usr/sbin/crond", "-f"], true),
            ("/bin/busybox", &["busybox", "crond", "-f"], true),
            ("/bin/busybox", &["crond", "-fc", "/data"], false),
            ("/bin/busybox", &["crond", "-c", "/data"], false),
            ("/bin/busybox", &["sh", "crond"], false),
            ("/bin/busybox", &["busybox"], false),
            ("/usr/bin/python3", &["crond"], false),
        ] {
            assert_eq!(is_expected(&scheduler(exe, args), &job), expected, "{exe} {args:?}");
        }
        let cron = scheduler("/usr/sbin/cron", &["cron", "-f"]);
        for change in [
            |exec: &mut Exec| exec.file.layer = Some(Layer::Upper),
            |exec| exec.file.dev = 46,
            |exec| exec.args.truncated = true,
            |exec| exec.process.start_time += 1,
            |exec| exec.process.pid += 1,
        ] as [fn(&mut Exec); 5]
        {
            let mut other = cron.clone();
            change(&mut other);
            assert!(!is_expected(&other, &job), "{other:?}");
        }
        let mut schedules = Schedules::default();
        schedules.take(&cron, false, &started());
        schedules.take(&cron, true, &TrackedContainer { cgroup_id: 7, ..started() });
        let runs = (1..=8).filter(|minute| {
            let mut job = job.clone();
            job.at.time = minute * 60 * SECOND;
            schedules.run(&job, &[], &started())
        });
        assert_eq!(runs.count(), 0, "somebody else's, or another container's");
    }

    #[test]
    fn jobs() {
        let cron = scheduler("/usr/sbin/cron", &["cron", "-f"]);
        for (parent, args, expected) in [
            (9, &["sh", "-c", "backup"][..], true),
            (9, &["sh", "/etc/cron.hourly/backup"], true),
            (8, &["sh", "-c", "backup"], false),
            (9, &["sh"], false),
            (9, &["sh", "-s"], false),
        ] {
            assert_eq!(is_expected(&cron, &job(parent, args)), expected, "{args:?}");
        }
        let sample = job(9, &["sh", "-c", "backup"]);
        for change in [
            |exec: &mut Exec| exec.file.layer = Some(Layer::Upper),
            |exec| exec.args.truncated = true,
            |exec| exec.exe = samples::path("/usr/bin/python3"),
            |exec| exec.process.ancestors[1].start_time += 1,
            |exec| exec.process.ancestors[1].in_container = false,
        ] as [fn(&mut Exec); 5]
        {
            let mut other = sample.clone();
            change(&mut other);
            assert!(!is_expected(&cron, &other), "{other:?}");
        }
    }

    #[test]
    fn a_process_that_executes_something_else_is_no_scheduler_any_more() {
        let cron = scheduler("/usr/sbin/cron", &["cron", "-f"]);
        let mut schedules = Schedules::default();
        schedules.take(&cron, true, &started());
        schedules.take(&scheduler("/bin/dash", &["sh"]), true, &started());
        assert!(schedules.schedulers.get(&(500, 9, 5)).is_none());
    }

    fn renamed(mode: u32, path: &str, new_path: Option<&str>) -> Event {
        let mut change = change(ImageOp::Rename, Layer::Upper, mode, path);
        change.detail.as_mut().expect("the sample has it").new_path = new_path.map(samples::path);
        Event::ImageChange(Box::new(change))
    }

    #[test]
    fn what_changes_what_a_scheduler_runs() {
        for (path, new_path, is_change) in [
            ("/etc/crontab", None, true),
            ("/etc/cron.d/x", None, true),
            ("/etc/cron.hourly", None, true),
            ("/var/spool/cron/crontabs/root", None, true),
            ("/etc/anacrontab", None, true),
            ("/tmp/x", Some("/etc/crontabs"), true),
            ("/etc/crontab", Some("/tmp/x"), true),
            ("/etc/app.conf", None, false),
            ("/tmp/x", Some("/tmp/y"), false),
            ("/srv/x", Some("/srv/y"), false),
            // It writes there itself.
            ("/var/run/crond.pid", None, false),
            ("/var/log/cron.log", None, false),
        ] {
            assert_eq!(is_changed_by(&renamed(0o100644, path, new_path)), is_change, "{path} {new_path:?}");
        }
        for (path, new_path, is_change) in [
            ("/tmp/x", Some("/var/spool"), true),
            ("/var/spool", Some("/tmp/x"), true),
            ("/srv/x", Some("/srv/y"), true),
            ("/tmp/x", Some("/tmp/y"), false),
        ] {
            assert_eq!(is_changed_by(&renamed(0o040755, path, new_path)), is_change, "{path} {new_path:?}");
        }
        let exchanged = change(ImageOp::Exchange, Layer::Upper, 0o100644, "/srv/x");
        assert!(is_changed_by(&Event::ImageChange(Box::new(exchanged))));
        let mut change = change(ImageOp::Create, Layer::New, 0o100644, "/srv/x");
        change.detail.as_mut().expect("the sample has it").path.truncated = true;
        assert!(is_changed_by(&Event::ImageChange(Box::new(change.clone()))));
        change.detail = None;
        assert!(is_changed_by(&Event::ImageChange(Box::new(change))));
        assert!(!is_changed_by(&Event::Exec(Box::new(job(9, &["sh"])))));
    }
}
