//! `cargo xtask demo`: shows the detector in a virtual machine, on any machine and without privileges.
//!
//! `detector_tests::scene` is the guest's part and has the story.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use detector_tests::protocol::Message;

use crate::shell;
use crate::vm::Vm;

/// Options of `cargo xtask demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Kernel to boot
    #[arg(long, default_value = "6.12")]
    kernel: String,
    /// Write the findings to this file, as JSON lines
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Open a terminal in the machine, next to the live view
    #[arg(long)]
    interactive: bool,
}

/// Runs the demo. Fails unless the detector reports exactly the expected findings.
pub fn run(args: &Args) -> Result<()> {
    // The file is opened first, so that a wrong path is an error before the demo runs.
    let mut json = match &args.json {
        Some(path) => {
            Some(BufWriter::new(File::create(path).with_context(|| format!("cannot write {}", path.display()))?))
        }
        None => None,
    };
    let mut steps = shell::Steps::new(2);
    steps.next(format!("install what is missing, build the detector and the guest, fetch Linux {}", args.kernel));
    let machine = Vm::new(&args.kernel);
    machine.prepare()?;
    steps.next("boot the virtual machine, which takes ten seconds, and play the scene");
    let guest: &[&str] = if args.interactive { &["demo", "interactive"] } else { &["demo"] };
    let mut lines = Vec::new();
    let mut end = None;
    machine.console(args.interactive).guest(guest).run(|line| match Message::parse(line) {
        Some(Message::Finding { line }) => lines.push(line),
        Some(Message::End { failure }) => end = Some(failure),
        _ => {}
    })?;
    if let (Some(file), Some(path)) = (&mut json, &args.json) {
        for line in &lines {
            writeln!(file, "{line}").with_context(|| format!("cannot write {}", path.display()))?;
        }
        file.flush().with_context(|| format!("cannot write {}", path.display()))?;
    }
    match end {
        Some(None) => Ok(()),
        Some(Some(failure)) => bail!("the demo failed: {failure}"),
        None => bail!("the virtual machine stopped before the end of the demo; see its console above"),
    }
}
