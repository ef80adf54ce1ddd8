//! `cargo xtask test`: unit tests, then the tests on real kernels.

use std::fs;

use anyhow::{Result, bail};

use crate::kernel::{self, DEFAULT, Kernel};
use crate::{build, project, setup, shell};

/// Runs all tests on these kernels; none: the default ones. A filter is a part of a test's name.
///
/// # Errors
///
/// A test fails, or something that the tests need is missing.
pub fn run(kernels: &[String], filter: Option<&str>) -> Result<()> {
    setup::run()?;
    let names: Vec<&str> = match kernels {
        [] => DEFAULT.to_vec(),
        [all] if all == "all" => kernel::available()?,
        some => some.iter().map(String::as_str).collect(),
    };
    let types = project::cache()?.join("btf");
    fs::create_dir_all(&types)?;
    let mut series = Vec::new();
    for name in names {
        let kernel = Kernel::get(name)?;
        fs::copy(kernel.btf(), types.join(format!("{}.btf", kernel.series)))?;
        fs::copy(kernel.overlay(), types.join(format!("{}.overlay.ko", kernel.series)))?;
        series.push(kernel.series);
    }
    // The BPF side has no tests of its own and needs its own target.
    let mut unit = shell::cargo();
    unit.args(["test", "--workspace", "--exclude", "detector-ebpf", "--exclude", "detector-tests"])
        .env("DETECTOR_BTF_DIR", &types);
    let mut machines = shell::cargo();
    machines.args(["test", "--package", "detector-tests"]).env("DETECTOR_KERNELS", series.join(","));
    if let Some(filter) = filter {
        unit.arg(filter);
        machines.arg(filter);
    }
    shell::step("unit tests");
    // Both are run, so that one failure does not hide another.
    let outcomes = [
        shell::run(&mut unit),
        build::dist().and_then(|_| {
            shell::step(format!("tests in virtual machines: Linux {}", series.join(", ")));
            shell::run(&mut machines)
        }),
    ];
    let failures: Vec<_> = outcomes.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    Ok(())
}
