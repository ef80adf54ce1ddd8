//! Remembers the arguments and working directories that the processes of containers were started with, so that a later
//! finding can contain them. The kernel reports them only at the exec.

use serde::{Deserialize, Serialize};

use super::excepted::is_of_image;
use crate::container::table::TrackedContainer;
use crate::event::{Ancestor, Args, Exec, File, Path, Process, Script};
use crate::recent::Recent;

/// How much is remembered at most, in bytes.
const MOST: usize = 4 << 20;
/// The unit of start times in `/proc`, in nanoseconds (`USER_HZ` is 100 everywhere). The start time of a process that
/// was running before the events began is not known more precisely, so all start times are compared in this unit.
pub(super) const TICK: u64 = 10_000_000;
/// The cost of an entry in addition to its strings, in bytes. It is the same on every machine, so that each remembers
/// as much.
const OVERHEAD: usize = 264;
const _: () = assert!(size_of::<Key>() + size_of::<Program>() + 16 <= OVERHEAD);

/// A process, and the arguments and working directory that it was started with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Program {
    /// The process id on the node.
    pub pid: u32,
    /// When the process started, in nanoseconds of `CLOCK_BOOTTIME`. A precision of 10 ms is enough.
    pub start_time: u64,
    /// The arguments.
    pub args: Args,
    /// The working directory.
    pub cwd: Path,
    /// The scripts that the exec was for: the device and inode numbers of each.
    pub scripts: Vec<(u32, u64)>,
    /// The path of the executable.
    #[serde(default)]
    pub exe: Path,
    /// When it was executed, in nanoseconds of `CLOCK_BOOTTIME`. Of a process that was running before the events began,
    /// this is when the process started.
    #[serde(default)]
    pub since: u64,
    /// Whether the executable is one of the container's image, and its path is evidence.
    #[serde(default)]
    pub is_of_image: bool,
    /// The script that the exec was for, if that is one of the image and its path is evidence.
    #[serde(default)]
    pub image_script: Option<Path>,
}

impl Program {
    /// The program that an exec in a container started for these scripts.
    pub(super) fn of(exec: &Exec, scripts: &[Script], container: &TrackedContainer) -> Self {
        // The kernel has looked at the last one right before the interpreter, which then opens it by the name in its
        // arguments. That name could be one of something else by now, unless it is the path of the script itself.
        let script = scripts.iter().rfind(|script| !script.is_input).filter(|script| {
            let File { dev, layer, .. } = script.file;
            let is_opened = exec.args.iter().any(|argument| argument == script.path.bytes);
            exec.head.is_some() && is_opened && is_of_image(dev, layer, &script.path, container)
        });
        Self {
            pid: exec.process.pid,
            start_time: exec.process.start_time,
            args: exec.args.clone(),
            cwd: exec.cwd.clone(),
            scripts: scripts.iter().map(|script| (script.file.dev, script.file.inode)).collect(),
            exe: exec.exe.clone(),
            since: exec.at.time,
            is_of_image: is_of_image(exec.file.dev, exec.file.layer, &exec.exe, container),
            image_script: script.map(|script| script.path.clone()),
        }
    }

    fn cost(&self) -> usize {
        let scripts = self.scripts.len() * size_of::<(u32, u64)>();
        let texts = [&self.args.bytes, &self.cwd.bytes, &self.exe.bytes].map(Vec::len).iter().sum::<usize>();
        OVERHEAD + texts + self.image_script.as_ref().map_or(0, |script| script.bytes.len()) + scripts
    }
}

/// The process id, and the start time in ticks.
pub(super) type Key = (u32, u64);

pub(super) const fn key(pid: u32, start_time: u64) -> Key {
    (pid, start_time / TICK)
}

/// The process and its ancestors in the container, nearest first.
pub(super) fn lineage(process: &Process) -> impl Iterator<Item = Key> {
    let above = process.ancestors.iter().take_while(|ancestor| ancestor.in_container);
    let above = above.map(|ancestor| key(ancestor.pid, ancestor.start_time));
    std::iter::once(key(process.pid, process.start_time)).chain(above)
}

/// Programs by process.
#[derive(Debug)]
pub(super) struct Programs(Recent<Key, Program>);

impl Default for Programs {
    fn default() -> Self {
        Self(Recent::with_cost(MOST, Program::cost))
    }
}

impl Programs {
    pub(super) fn insert(&mut self, program: Program) {
        self.0.insert(key(program.pid, program.start_time), program);
    }

    pub(super) fn get(&mut self, pid: u32, start_time: u64) -> Option<&Program> {
        self.0.get(&key(pid, start_time))
    }

    /// The program of a process with this executable. A process that was only forked, such as a worker of a server or a
    /// subshell, runs the program of the nearest ancestor that has executed one.
    pub(super) fn of(&mut self, process: &Process, exe: &Path) -> Option<&Program> {
        let own = (process.pid, process.start_time);
        self.own_or_inherited(own, &process.ancestors, |_, program| program.exe.bytes == exe.bytes)
    }

    /// The program of the parent of a process, which can be such a process too. Its executable is not known, so both
    /// tasks must have the same name.
    pub(super) fn of_parent(&mut self, process: &Process) -> Option<&Program> {
        let (parent, above) = process.ancestors.split_first()?;
        self.own_or_inherited((parent.pid, parent.start_time), above, |ancestor, _| ancestor.comm == parent.comm)
    }

    /// The program of a process with this id and start time, or else that of the nearest of these ancestors that has
    /// one, if it was executed before the fork and passes the test.
    fn own_or_inherited(
        &mut self,
        own: (u32, u64),
        ancestors: &[Ancestor],
        is_same: impl Fn(&Ancestor, &Program) -> bool,
    ) -> Option<&Program> {
        let (mut of, mut forked) = (own, own.1);
        for ancestor in ancestors {
            if self.get(of.0, of.1).is_some() {
                break;
            }
            of = (ancestor.pid, ancestor.start_time);
            match self.get(of.0, of.1) {
                Some(program) if program.since <= forked && is_same(ancestor, program) => {}
                Some(_) => return None,
                None => forked = ancestor.start_time,
            }
        }
        self.get(of.0, of.1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;
    use crate::event::Origin;

    fn program(pid: u32) -> Program {
        let args = Args { bytes: vec![b'x'; 2048], truncated: true };
        Program { pid, start_time: 1, args, ..Program::default() }
    }

    #[test]
    fn a_flood_is_bounded_and_what_is_in_use_stays() {
        let mut programs = Programs::default();
        for pid in 0..100_000 {
            programs.insert(program(pid));
            assert!(programs.get(0, 1).is_some());
        }
        assert!(programs.get(1, 1).is_none());
        assert!(programs.get(99_999, 1).is_some());
    }

    #[test]
    fn a_start_time_of_proc_is_exact_enough() {
        let mut programs = Programs::default();
        programs.insert(Program { start_time: 7 * TICK, ..program(1) });
        assert!(programs.get(1, 7 * TICK + 1_234_567).is_some());
    }

    #[test]
    fn what_was_only_forked_has_the_program_of_its_ancestor() {
        let mut programs = Programs::default();
        let exe = samples::path("/usr/sbin/nginx");
        programs.insert(Program { start_time: 5 * TICK, since: 7 * TICK, exe: exe.clone(), ..program(1) });
        let ancestor = |pid, ticks: u64, comm| Ancestor {
            start_time: ticks * TICK,
            pid,
            in_container: true,
            comm: samples::name(comm),
        };
        let process = |ticks: u64, parent| Process {
            pid: 9,
            start_time: ticks * TICK,
            ancestors: vec![parent, ancestor(1, 5, "nginx")],
            ..samples::process(Origin::Application)
        };
        let worker = process(8, ancestor(2, 7, "nginx"));
        assert_eq!(programs.of(&worker, &exe).map(|program| program.pid), Some(1));
        assert_eq!(programs.of_parent(&worker).map(|program| program.pid), Some(1));
        // The ancestor executed the program after the fork, or the process has executed another one.
        assert_eq!(programs.of(&process(8, ancestor(2, 6, "nginx")), &exe), None);
        assert_eq!(programs.of(&worker, &samples::path("/bin/sh")), None);
        assert_eq!(programs.of_parent(&process(8, ancestor(2, 7, "sh"))), None);
        // What is known of the process itself counts.
        programs.insert(Program { start_time: 8 * TICK, ..program(9) });
        assert_eq!(programs.of(&worker, &samples::path("/bin/sh")).map(|program| program.pid), Some(9));
    }

    #[test]
    fn the_last_exec_of_a_process_counts() {
        let mut programs = Programs::default();
        programs.insert(program(1));
        programs.insert(Program { args: Args::default(), ..program(1) });
        assert_eq!(programs.get(1, 1).map(|program| program.args.clone()), Some(Args::default()));
        assert_eq!(programs.get(1, 1 + TICK), None);
    }
}
