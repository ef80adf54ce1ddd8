//! `cargo xtask test`: runs the unit tests and then the tests on real kernels.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, bail};
use detector_tests::machine::{self, Kind};

use crate::kernel::{self, DEFAULT, Kernel};
use crate::runtimes::{self, Disk};
use crate::{build, project, receivers, schemas, shell};

/// Runs all tests on these kernels or [machines](machine::parse), or on the default ones, of which one runs the tests
/// of user space. A filter has parts of tests' names, separated by commas.
///
/// # Errors
///
/// A test fails, or something that the tests need is missing.
pub fn run(kernels: &[String], filter: Option<&str>) -> Result<()> {
    let mut steps = shell::Steps::new(3);
    steps.next("install and fetch what is missing, and meanwhile build the detector, the guest and the tests");
    let (names, built) = thread::scope(|scope| {
        let fetching = scope.spawn(|| fetch(kernels));
        let built = build::dist().and_then(|_| shell::run(cargo_test().arg("--no-run")));
        (fetching.join().expect("fetching does not panic"), built)
    });
    let names = names?;
    built?;

    // The dependencies of both kinds of tests have the same features, so that they are compiled only once.
    let mut unit = cargo_test();
    unit.args(["--no-fail-fast", "--lib", "--bins"]);
    unit.env("DETECTOR_BTF_DIR", types()?).env("DETECTOR_SCHEMAS_DIR", schemas::folder()?);
    unit.env("DETECTOR_RECEIVERS", receivers::folder()?);
    for test in UNIT_TESTS {
        unit.args(["--test", test]);
    }
    let mut machines = cargo_test();
    machines.args(["--test", "vm"]).env("DETECTOR_KERNELS", names.join(","));
    if !kernels.is_empty() {
        machines.env("DETECTOR_EVERY_CASE", "");
    }
    if let Some(filter) = filter {
        unit.arg("--").args(filter.split(','));
        machines.arg(filter);
    }
    steps.next("run the unit tests");
    // Both kinds run, so that a failure of one does not hide failures of the other.
    let unit = shell::run(&mut unit);
    steps.next(format!("run the tests in virtual machines: Linux {}", names.join(", ")));
    let outcomes = [unit, shell::run(&mut machines)];
    let failures: Vec<_> = outcomes.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    Ok(())
}

/// The integration tests of `detector`.
const UNIT_TESTS: &[&str] = &["btf", "cli", "forward", "runtimes"];

/// The eBPF crate has no tests and needs a target of its own, and the fuzzer is built by `cargo xtask fuzz`.
fn cargo_test() -> Command {
    let mut test = shell::cargo();
    test.args(["test", "--workspace", "--exclude", "detector-ebpf", "--exclude", "detector-fuzz"]);
    test
}

/// The variable that tells the tests where to find the kernels' types.
fn types() -> Result<PathBuf> {
    Ok(project::cache()?.join("btf"))
}

/// Fetches what the cache lacks of these kernels and machines, and the disk if container engines are tested. Returns
/// their names, with the series of the kernels.
fn fetch(kernels: &[String]) -> Result<Vec<String>> {
    let names: Vec<&str> = match kernels {
        [] => DEFAULT.to_vec(),
        [all] if all == "all" => [kernel::available()?.as_slice(), &[kernel::WITH_SOFTWARE]].concat(),
        some => some.iter().map(String::as_str).collect(),
    };
    schemas::fetch()?;
    fs::create_dir_all(types()?)?;
    receivers::folder()?;
    let mut machines = Vec::new();
    for name in names {
        let (kernel, kind) = machine::parse(name).with_context(|| format!("no kind of machine in {name}"))?;
        let kernel = Kernel::get(kernel)?;
        fs::copy(kernel.btf(), types()?.join(format!("{}.btf", kernel.series)))?;
        fs::copy(kernel.overlay(), types()?.join(format!("{}.overlay.ko", kernel.series)))?;
        // By default, one kernel has machines with disks.
        let with_disks: &[Kind] = match kind {
            Some(_) => kind.as_slice(),
            None if kernel.series == kernel::WITH_ENGINES => &[Kind::Node, Kind::Systemd],
            None => &[],
        };
        for disk in with_disks.iter().copied().filter_map(Disk::of) {
            runtimes::disk(disk)?;
        }
        machines.push(kernel.series + kind.map_or("", Kind::suffix));
    }
    Ok(machines)
}
