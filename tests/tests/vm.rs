//! Runs the guest's cases as tests of the host. There is one for each kernel and case, named `6.12::shell::entered`, or
//! `6.12-preempt::shell::entered` for another [kind](Kind) of machine.
//!
//! A machine boots at most once to run the selected cases, and not at all if there are none. The environment variable
//! `DETECTOR_KERNELS` (`6.1,6.12-node`) selects the kernels and machines, and the filter can have several parts
//! (`exec::,shell::entered`).

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use detector_tests::cases::{CASES, Case};
use detector_tests::machine::{self, Dependence, Kind, OF_THE_KERNEL};
use detector_tests::protocol::{Message, Noticed, Outcome};
use libtest_mimic::{Arguments, Failed, Trial};
use xtask::coverage::Run;
use xtask::kernel;
use xtask::runtimes::Disk;
use xtask::vm::Vm;

/// The maximum length of the list of cases on a kernel's command line.
const MAX_NAMES: usize = 1000;

/// The variable that is set if each kernel runs every case.
const EVERY_CASE: &str = "DETECTOR_EVERY_CASE";

/// How many of the slowest cases of a machine are printed.
const LONGEST: usize = 12;

/// The default kinds of machines for each kernel. Only newer kernels can be booted with another preemption, and all of
/// them miss calls in the same way. Older kernels are more often used with cgroups of version 1.
fn kinds(kernel: &str) -> &'static [Kind] {
    match kernel {
        "5.10" => &[Kind::Ordinary, Kind::Hybrid],
        "6.1" => &[Kind::Ordinary, Kind::Cgroup1],
        kernel::WITH_ENGINES => &[Kind::Ordinary, Kind::Preempt, Kind::Node, Kind::Systemd],
        kernel::LATEST => &[Kind::Ordinary, Kind::Preempt],
        _ if kernel.starts_with("7.") => &[Kind::Ordinary, Kind::Preempt],
        _ => &[Kind::Ordinary],
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let filter = arguments.filter.take();
    let is_selected = |name: &str| {
        let fits = |part: &str| if arguments.exact { name == part } else { name.contains(part) };
        filter.as_ref().is_none_or(|filter| filter.split(',').any(fits))
            && !arguments.skip.iter().any(|skip| fits(skip))
            && !arguments.ignored
    };
    let machines: Vec<Arc<Machine>> = machines().into_iter().map(Arc::new).collect();
    let trials = machines.iter().flat_map(|machine| {
        machine.cases().filter(|case| is_selected(&machine.test_name(case.name))).map(|case| {
            let machine = Arc::clone(machine);
            Trial::test(machine.test_name(case.name), move || machine.outcome(case.name))
        })
    });
    let trials = trials.collect();

    if !arguments.list {
        let wanted: Vec<_> = machines
            .iter()
            .filter_map(|machine| {
                let names = machine.cases().map(|case| case.name);
                let names: Vec<_> = names.filter(|name| is_selected(&machine.test_name(name))).collect();
                (!names.is_empty()).then(|| (Arc::clone(machine), names))
            })
            .collect();
        let keepers = boot_all(wanted);
        let conclusion = libtest_mimic::run(&arguments, trials);
        // Dropping the machines stores their results.
        let panicked = keepers.into_iter().filter_map(|keeper| keeper.join().err()).count();
        machines.iter().for_each(|machine| machine.report_failures());
        return if panicked == 0 { conclusion.exit_code() } else { ExitCode::FAILURE };
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Boots the machines in the background, one for each core, because an emulated machine keeps one busy.
fn boot_all(mut wanted: Vec<(Arc<Machine>, Vec<&'static str>)>) -> Vec<JoinHandle<()>> {
    // Machines are taken from the end. The slowest begin first, so that none runs alone at the end: the node, and then
    // those with the most cases, of which the oldest kernel is first because it verifies programs slowest.
    wanted.reverse();
    wanted.sort_by_key(|(machine, names)| (Disk::of(machine.kind).is_some(), names.len()));
    let wanted = Arc::new(Mutex::new(wanted));
    let keeper = |_| {
        let wanted = Arc::clone(&wanted);
        thread::spawn(move || {
            loop {
                let next = lock(&wanted).pop();
                let Some((machine, names)) = next else { return };
                let end = machine.run(&names);
                machine.update(|results| results.end = Some(end));
                machine.save();
            }
        })
    };
    (0..thread::available_parallelism().map_or(1, usize::from)).map(keeper).collect()
}

fn machines() -> Vec<Machine> {
    let chosen = std::env::var("DETECTOR_KERNELS").ok();
    let kernels: Vec<String> = match &chosen {
        Some(list) => list.split(',').map(|kernel| kernel.trim().to_owned()).collect(),
        None => kernel::DEFAULT.iter().map(|&kernel| kernel.to_owned()).collect(),
    };
    let variants = |name: String| {
        let (kernel, kind) = machine::parse(&name).expect("`cargo xtask test` passes names of machines");
        let kinds = kind.map_or_else(|| kinds(kernel).to_vec(), |kind| vec![kind]);
        let kernel = kernel.to_owned();
        kinds.into_iter().map(move |kind| Machine {
            kernel: kernel.clone(),
            kind,
            results: Mutex::default(),
            changed: Condvar::new(),
        })
    };
    kernels.into_iter().flat_map(variants).collect()
}

/// A virtual machine, and the results of its tests.
struct Machine {
    kernel: String,
    kind: Kind,
    results: Mutex<Results>,
    changed: Condvar,
}

#[derive(Default)]
struct Results {
    /// The release of the kernel, once the guest has begun to run cases.
    release: Option<String>,
    /// The time from the start of the machine until the guest began to run cases.
    ready: Duration,
    /// The results of the cases that have ended.
    cases: BTreeMap<String, Outcome>,
    /// Their durations in seconds.
    seconds: Vec<(f32, String)>,
    /// What came of what was done to the sensor.
    noticed: BTreeMap<String, Noticed>,
    /// What busy servers were found to do.
    observed: Vec<String>,
    /// Why the machine has ended, once it is off.
    end: Option<String>,
}

impl Machine {
    /// The cases that run on this machine.
    fn cases(&self) -> impl Iterator<Item = &'static Case> + use<> {
        let (kind, is_whole) = (self.kind, self.is_whole());
        let is_wanted = move |case: &&Case| is_whole || !case.depends_on.contains(&Dependence::UserSpace);
        CASES.iter().filter(move |case| kind.runs(case.depends_on)).filter(is_wanted)
    }

    /// Whether it runs also the cases that need no other kernel.
    fn is_whole(&self) -> bool {
        std::env::var_os(EVERY_CASE).is_some() || self.kernel == kernel::WITH_ENGINES
    }

    /// The name of the kernel and the suffix of the kind.
    fn name(&self) -> String {
        format!("{}{}", self.kernel, self.kind.suffix())
    }

    fn test_name(&self, case: &str) -> String {
        format!("{}::{case}", self.name())
    }

    /// Waits for the result of a case.
    fn outcome(&self, case: &str) -> Result<(), Failed> {
        let mut results = lock(&self.results);
        loop {
            match (results.cases.get(case), &results.end) {
                (Some(Outcome::Passed), _) => return Ok(()),
                (Some(Outcome::NotApplicable(reason)), _) => {
                    eprintln!("{} does not apply: {reason}", self.test_name(case));
                    return Ok(());
                }
                (Some(Outcome::Failed(failure)), _) => return Err(failure.into()),
                (None, Some(end)) => return Err(format!("the machine did not come to this case: {end}").into()),
                (None, None) => {}
            }
            results = self.changed.wait(results).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Boots the machine, runs the cases and powers off. Returns the reason for cases without a result.
    fn run(&self, cases: &[&str]) -> String {
        let names = cases.join(",");
        let arguments = match cases.len() < self.cases().count() && names.len() <= MAX_NAMES {
            true => vec!["test", self.kind.suffix(), &names],
            false if self.is_whole() => vec!["test", self.kind.suffix()],
            false => vec!["test", self.kind.suffix(), OF_THE_KERNEL],
        };
        let machine = Vm::new(&self.kernel).command_line(self.kind.command_line()).guest(&arguments);
        let machine = machine.disk(Disk::of(self.kind));
        let mut failure = None;
        let started = Instant::now();
        let booted = machine.run(|line| match Message::parse(line) {
            Some(Message::Begin { release }) => self.update(|results| {
                results.release = Some(release);
                results.ready = started.elapsed();
            }),
            Some(Message::Case { name, outcome, seconds }) => self.update(|results| {
                results.seconds.push((seconds, name.clone()));
                results.cases.insert(name, outcome);
            }),
            Some(Message::Noticed { act, notice }) => self.update(|results| {
                results.noticed.insert(act, notice);
            }),
            Some(Message::Observed { row }) => self.update(|results| results.observed.push(row)),
            Some(Message::End { failure: end }) => failure = end,
            _ => {}
        });
        self.report_times(started.elapsed());
        match booted {
            Ok(log) => format!("{}\nconsole:\n{log}", failure.as_deref().unwrap_or("it is off")),
            Err(error) => format!("{error:#}"),
        }
    }

    /// Prints how long the slowest cases took, and what busy servers were found to do.
    fn report_times(&self, all: Duration) {
        let results = lock(&self.results);
        let mut cases = results.seconds.clone();
        cases.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        let longest: Vec<_> =
            cases.iter().take(LONGEST).map(|(seconds, name)| format!("{name} {seconds:.0} s")).collect();
        eprintln!(
            "Linux {}: {} cases in {:.0} s, of which {:.0} s until the guest was ready; those that took longest: {}",
            self.name(),
            cases.len(),
            all.as_secs_f32(),
            results.ready.as_secs_f32(),
            longest.join(", ")
        );
        results.observed.iter().for_each(|row| eprintln!("{row}"));
    }

    /// Prints one line for each failed case, because the full reports before it are long.
    fn report_failures(&self) {
        for (case, outcome) in &lock(&self.results).cases {
            if let Outcome::Failed(failure) = outcome {
                eprintln!("{} failed: {}", self.test_name(case), failure.lines().next().unwrap_or_default());
            }
        }
    }

    /// Stores the results for `cargo xtask coverage`.
    fn save(&self) {
        let results = lock(&self.results);
        let Some(release) = results.release.clone() else { return };
        let wanted = self.cases().map(|case| case.name.to_owned()).collect();
        Run::new(release, wanted, results.cases.clone(), results.noticed.clone())
            .save(&self.name())
            .expect("the outcomes can be kept");
    }

    fn update(&self, change: impl FnOnce(&mut Results)) {
        change(&mut lock(&self.results));
        self.changed.notify_all();
    }
}

/// Locks a mutex. A poisoned one is usable, because its value is always consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
