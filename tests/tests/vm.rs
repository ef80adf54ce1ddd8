//! The guest's cases as tests of the host: one for each kernel and case, named `6.12::shell::entered`, or
//! `6.12-preempt::shell::entered` for another [kind](kinds) of machine.
//!
//! A machine boots at most once, runs the cases that are asked for, and not at all if there are none. The environment
//! variable `DETECTOR_KERNELS` (`6.1,6.12`) chooses the kernels.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use detector_tests::cases::{CASES, Case};
use detector_tests::coverage::{NODE, is_for_node};
use detector_tests::protocol::{Message, Outcome};
use libtest_mimic::{Arguments, Failed, Trial};
use xtask::coverage::Run;
use xtask::kernel;
use xtask::vm::Vm;

/// Longest list of cases that fits into a kernel's command line beside everything else.
const MAX_NAMES: usize = 1000;

/// The kinds of machine: what is added to the kernel's name, and to its command line.
const ORDINARY: (&str, &str) = ("", "");
/// With the preemption that makes tracing programs miss calls, and no LSM programs to escape it.
const PREEMPT: (&str, &str) = ("-preempt", "preempt=full lsm=capability");
/// With cgroups of version 1 alone.
const V1: (&str, &str) = ("-cgroup1", "lab.cgroups=v1");
/// With cgroups of both versions.
const HYBRID: (&str, &str) = ("-hybrid", "lab.cgroups=hybrid");
/// With the disk of container engines, for the [cases that take a node](is_for_node) and no others.
const LIKE_A_NODE: (&str, &str) = (NODE, "");

/// The kinds as which a kernel is tested. Only newer kernels offer a choice of preemption, and all of them miss calls in the
/// same way; the older a kernel is, the more of its machines have cgroups of version 1. What engines do is the same on all
/// kernels, and takes minutes: the kernel that is chosen lets ordinary users have overlays on a tmpfs.
fn kinds(kernel: &str) -> &'static [(&'static str, &'static str)] {
    match kernel {
        "5.10" => &[ORDINARY, HYBRID],
        "6.1" => &[ORDINARY, V1],
        "6.12" => &[ORDINARY, PREEMPT, LIKE_A_NODE],
        kernel::LATEST => &[ORDINARY, PREEMPT],
        _ if kernel.starts_with("7.") => &[ORDINARY, PREEMPT],
        _ => &[ORDINARY],
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let machines: Vec<Arc<Machine>> = machines().into_iter().map(Arc::new).collect();
    let trials = machines.iter().flat_map(|machine| {
        machine.cases().map(|case| {
            let machine = Arc::clone(machine);
            Trial::test(machine.test_name(case.name), move || machine.outcome(case.name))
        })
    });
    let trials = trials.collect();

    if !arguments.list {
        let wanted: Vec<_> = machines
            .into_iter()
            .filter_map(|machine| {
                let names = machine.cases().map(|case| case.name);
                let names: Vec<_> = names.filter(|name| is_selected(&arguments, &machine.test_name(name))).collect();
                (!names.is_empty()).then_some((machine, names))
            })
            .collect();
        let keepers = boot_all(wanted);
        let conclusion = libtest_mimic::run(&arguments, trials);
        // They keep the outcomes when the machines are off.
        let panicked = keepers.into_iter().filter_map(|keeper| keeper.join().err()).count();
        return if panicked == 0 { conclusion.exit_code() } else { ExitCode::FAILURE };
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Whether libtest-mimic is going to run a test of this name.
fn is_selected(arguments: &Arguments, name: &str) -> bool {
    let fits = |filter: &String| if arguments.exact { name == filter } else { name.contains(filter.as_str()) };
    arguments.filter.as_ref().is_none_or(fits) && !arguments.skip.iter().any(fits) && !arguments.ignored
}

/// Boots the machines in the background, as many at a time as there are cores: an emulated one keeps one busy.
fn boot_all(mut wanted: Vec<(Arc<Machine>, Vec<&'static str>)>) -> Vec<JoinHandle<()>> {
    // Taken from the end. What takes longest begins first, so that nobody waits for it alone.
    wanted.reverse();
    wanted.sort_by_key(|(machine, _)| machine.is_node());
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
    let variants = |kernel: String| {
        kinds(&kernel).iter().map(move |&(suffix, command_line)| Machine {
            kernel: kernel.clone(),
            suffix,
            command_line,
            results: Mutex::default(),
            changed: Condvar::new(),
        })
    };
    kernels.into_iter().flat_map(variants).collect()
}

/// A virtual machine and what is known of its tests.
struct Machine {
    kernel: String,
    suffix: &'static str,
    command_line: &'static str,
    results: Mutex<Results>,
    changed: Condvar,
}

#[derive(Default)]
struct Results {
    /// Release of the kernel, when the guest has come to its cases.
    release: Option<String>,
    /// Of the cases that have ended: what became of each.
    cases: BTreeMap<String, Outcome>,
    /// The machine is off: what became of it.
    end: Option<String>,
}

impl Machine {
    /// The cases that run on it.
    fn cases(&self) -> impl Iterator<Item = &'static Case> + use<> {
        let is_node = self.is_node();
        CASES.iter().filter(move |case| is_for_node(case.name) == is_node)
    }

    fn is_node(&self) -> bool {
        self.suffix == NODE
    }

    fn test_name(&self, case: &str) -> String {
        format!("{}{}::{case}", self.kernel, self.suffix)
    }

    /// Waits for the outcome of a case.
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

    /// Boots, runs these cases and powers off. Gives what is to be said of cases that have no outcome.
    fn run(&self, cases: &[&str]) -> String {
        let names = cases.join(",");
        let arguments = match cases.len() < self.cases().count() && names.len() <= MAX_NAMES {
            true => vec!["test", &names],
            false => vec!["test"],
        };
        let machine = Vm::new(&self.kernel).command_line(self.command_line).guest(&arguments);
        let machine = if self.is_node() { machine.runtimes() } else { machine };
        let mut failure = None;
        let booted = machine.run(|line| match Message::parse(line) {
            Some(Message::Begin { release }) => self.update(|results| results.release = Some(release)),
            Some(Message::Case { name, outcome }) => {
                self.update(|results| drop(results.cases.insert(name, outcome)));
            }
            Some(Message::End { failure: end }) => failure = end,
            _ => {}
        });
        match booted {
            Ok(log) => format!("{}\nconsole:\n{log}", failure.as_deref().unwrap_or("it is off")),
            Err(error) => format!("{error:#}"),
        }
    }

    /// Keeps the outcomes for `cargo xtask coverage`.
    fn save(&self) {
        let results = lock(&self.results);
        let Some(release) = results.release.clone() else { return };
        let kernel = format!("{}{}", self.kernel, self.suffix);
        Run::new(release, results.cases.clone()).save(&kernel).expect("the outcomes can be kept");
    }

    fn update(&self, change: impl FnOnce(&mut Results)) {
        change(&mut lock(&self.results));
        self.changed.notify_all();
    }
}

/// Locks. That a holder panicked does not matter: the values are always whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
