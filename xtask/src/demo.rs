//! `cargo xtask demo`: the detector at work in a virtual machine, on any machine and with no privileges on it.
//!
//! The guest's side, with the story, is `detector_tests::scene`.

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
    /// Give me a terminal in the machine, with the live view in it
    #[arg(long)]
    interactive: bool,
}

/// Plays it. An error if the detector did not find what it should, or found more.
pub fn run(args: &Args) -> Result<()> {
    // Opened first: a wrong path is better known before the demo than after it.
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
        None => bail!("the machine died before the end of the demo"),
    }
}
