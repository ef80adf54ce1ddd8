//! `cargo xtask fuzz`: feeds what parses and shows untrusted bytes with bytes that libFuzzer chooses.
//!
//! libFuzzer is told by the compiler which code an input reaches. Stable Rust can do that, because the pass is one of
//! LLVM's. The sanitizers need a nightly compiler. They are not used, because what is tested has no `unsafe` code.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use anyhow::{Context, Result, bail, ensure};

use crate::build::TARGET;
use crate::{project, setup, shell};

/// Makes the compiler count which code runs and what is compared, as libFuzzer expects it.
const COVERAGE: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// An input that takes longer, in seconds, is a failure. A busy machine may not run the fuzzer for some seconds.
const HANG: u32 = 30;
/// The maximum size of an input, in bytes. Most records are smaller.
const LARGEST: u32 = 2048;

/// Options of `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The targets. Default: all
    targets: Vec<String>,
    /// How long each target runs, in seconds
    #[arg(long, default_value = "20")]
    seconds: u32,
    /// Run one target once, with this file
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
}

/// Builds the fuzzer and runs targets, as many at a time as there are CPUs.
///
/// # Errors
///
/// A target fails. The error names the file with the input.
pub fn run(args: &Args) -> Result<()> {
    setup::run()?;
    let fuzzer = build()?;
    let known = shell::text(&mut Command::new(&fuzzer))?;
    let known: Vec<&str> = known.lines().collect();
    for target in &args.targets {
        ensure!(known.contains(&target.as_str()), "unknown target {target}; use one of {}", known.join(", "));
    }
    let targets: Vec<&str> =
        if args.targets.is_empty() { known } else { args.targets.iter().map(String::as_str).collect() };
    if let Some(input) = &args.input {
        let [target] = targets[..] else { bail!("name the target of the input") };
        return shell::run(of(&fuzzer, target).arg(format!("-timeout={HANG}")).arg(fs::canonicalize(input)?));
    }
    let next = AtomicUsize::new(0);
    let failures = thread::scope(|scope| {
        let cpus = thread::available_parallelism().map_or(1, |cpus| cpus.get());
        let worker = || {
            let own = std::iter::from_fn(|| targets.get(next.fetch_add(1, Relaxed)));
            own.filter_map(|target| fuzz(&fuzzer, target, args.seconds).err()).collect::<Vec<_>>()
        };
        let workers: Vec<_> = (0..cpus).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker does not panic")).collect::<Vec<_>>()
    });
    if !failures.is_empty() {
        bail!("{}", failures.iter().map(|error| format!("{error:#}")).collect::<Vec<_>>().join("\n"));
    }
    Ok(())
}

/// Builds the fuzzer, and returns its path.
fn build() -> Result<PathBuf> {
    let mut build = shell::cargo();
    build.args(["build", "--package", "detector-fuzz", "--profile", "fuzz", "--target", TARGET, "--target-dir"]);
    shell::run(build.arg(project::target()).env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\x1f")))?;
    Ok(project::target().join(TARGET).join("fuzz/fuzz"))
}

/// Runs a target for some seconds, and prints how often it ran.
fn fuzz(fuzzer: &Path, target: &str, seconds: u32) -> Result<()> {
    let folder = project::target().join("fuzzing");
    // What was found before is kept, so that a later run continues.
    let found = folder.join(target);
    fs::create_dir_all(&found)?;
    let seeds = project::root().join("fuzz/corpus").join(target);
    let log = folder.join(format!("{target}.log"));
    let artifacts = format!("{}-", folder.join(target).display());
    let mut command = of(fuzzer, target);
    command.env("DETECTOR_FUZZ_RECORDS", &found).args([
        format!("-max_total_time={seconds}"),
        format!("-timeout={HANG}"),
        format!("-max_len={LARGEST}"),
        format!("-artifact_prefix={artifacts}"),
        "-print_final_stats=1".to_owned(),
    ]);
    command.arg(&found).args(seeds.exists().then_some(&seeds));
    command.stderr(fs::File::create(&log)?);
    let status = command.status().context("cannot run the fuzzer")?;
    let said = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    if !status.success() {
        let input = said.lines().find_map(|line| line.split_once("Test unit written to ")).map(|(_, path)| path);
        let why = said.lines().skip_while(|line| !line.contains("panicked at") && !line.contains("ERROR:"));
        let why = why.take_while(|line| !line.starts_with("stack backtrace") && !line.starts_with("stat::")).take(8);
        let why = why.collect::<Vec<_>>().join("\n");
        let again = input.map_or_else(
            || format!("see {}", log.display()),
            |input| format!("to run it again: cargo xtask fuzz {target} --input {input}"),
        );
        bail!("target {target} failed ({status}):\n{why}\n{again}");
    }
    let runs = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let runs = runs.with_context(|| format!("the fuzzer did not end as expected; see {}", log.display()))?.trim();
    shell::step(format_args!("target {target}: {runs} runs in {seconds} seconds without a failure"));
    Ok(())
}

/// The fuzzer for a target.
fn of(fuzzer: &Path, target: &str) -> Command {
    let mut command = Command::new(fuzzer);
    command.env("DETECTOR_FUZZ_TARGET", target);
    command
}
