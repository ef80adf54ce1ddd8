//! The only program of the virtual machine. Its code is in the library.
//!
//! Its name decides what it does: `/init`, a service that systemd runs instead, the worker, or under any other name the
//! attacker.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use detector_tests::machine::Kind;
use detector_tests::{attack, cases, init, measure, scene, system};

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    let args: Vec<OsString> = args.collect();
    match Path::new(&name).file_name().and_then(|name| name.to_str()) {
        Some("init") if system::is_wanted(&args) => init::main(|| system::boot(&args)),
        Some("init") => init::main(|| init::machine(&args)),
        Some("service") => init::main(|| system::service(&args)),
        Some("worker") => report(work(&args)),
        _ => report(attack::main(&args)),
    }
}

fn report(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what the kernel's command line selects.
fn work(args: &[OsString]) -> Result<()> {
    let [mode, rest @ ..] = args else {
        bail!("no mode given: test KIND [CASE,…], demo [interactive], samples, bench, shell or exec COMMAND…")
    };
    match mode.to_str() {
        Some("test") => {
            let suffix = rest.first().and_then(|kind| kind.to_str()).unwrap_or_default();
            let kind = Kind::of_suffix(suffix).with_context(|| format!("no kind of machine is called {suffix:?}"))?;
            cases::run(kind, rest.get(1).map(OsString::as_os_str))
        }
        Some("demo") => scene::run(rest.first().is_some_and(|arg| arg == "interactive")),
        Some("samples") => scene::send_samples(),
        Some("bench") => measure::run(),
        Some("shell") => shell(),
        Some("exec") => {
            let [program, args @ ..] = rest else { bail!("exec: no command given") };
            let status = Command::new(program).args(args).status()?;
            ensure!(status.success(), "{}: {status}", program.display());
            Ok(())
        }
        _ => bail!("unknown mode {mode:?}: use test, demo, samples, bench, shell or exec"),
    }
}

/// Runs a shell with job control on the console.
fn shell() -> Result<()> {
    Command::new("/bin/busybox").arg0("setsid").args(["cttyhack", "sh", "-l"]).status()?;
    Ok(())
}
