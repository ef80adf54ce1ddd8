//! `cargo xtask bench`: measures the cost of the detector in executed instructions and in memory.
//!
//! With `-icount shift=0,sleep=off` and one processor, a nanosecond in the guest is one executed instruction. The
//! results are therefore the same on every machine. `detector_tests::measure` is the guest's part and has the
//! operations.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use detector_tests::protocol::Message;

use crate::readme;
use crate::vm::Vm;

/// Options of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Kernel to measure on
    #[arg(long, default_value = "6.12")]
    kernel: String,
}

/// Runs the measurements and prints the tables.
pub fn run(args: &Args) -> Result<()> {
    let mut measured = Measured::default();
    let mut end = None;
    Vm::new(&args.kernel).icount().guest(&["bench"]).run(|line| match Message::parse(line) {
        Some(Message::Sample { setup, operation, nanoseconds }) => measured.add(operation, setup, nanoseconds),
        Some(Message::Figure { name, value, unit }) => measured.figures.push((name, value, unit)),
        Some(Message::End { failure }) => end = Some(failure),
        _ => {}
    })?;
    match end {
        Some(None) => {}
        Some(Some(failure)) => bail!("{failure}"),
        None => bail!("the virtual machine stopped before the end of the benchmark; see its console above"),
    }
    let table = format!("{}\n{}", measured.operations_table(&args.kernel)?, measured.daemon_table(&args.kernel));
    print!("{table}");
    readme::keep("bench", &table)
}

/// The results of the guest.
#[derive(Default)]
struct Measured {
    /// The operations in the order in which the guest measured them.
    operations: Vec<String>,
    /// The nanoseconds by operation and setup.
    nanoseconds: HashMap<(String, String), f64>,
    /// The measurements of the daemon: description, value and unit.
    figures: Vec<(String, f64, String)>,
}

impl Measured {
    fn add(&mut self, operation: String, setup: String, nanoseconds: f64) {
        if !self.operations.contains(&operation) {
            self.operations.push(operation.clone());
        }
        self.nanoseconds.insert((operation, setup), nanoseconds);
    }

    fn get(&self, operation: &str, setup: &str) -> Result<f64> {
        let sample = self.nanoseconds.get(&(operation.to_owned(), setup.to_owned()));
        sample.copied().with_context(|| format!("the guest did not measure {operation:?} in the setup {setup:?}"))
    }

    fn operations_table(&self, kernel: &str) -> Result<String> {
        let mut table = format!(
            "instructions per operation, Linux {kernel}\n{:38} {:>10} {:>14} {:>9}\n",
            "", "bare", "detector", "ratio"
        );
        for operation in &self.operations {
            let (bare, attached) = (self.get(operation, "bare")?, self.get(operation, "attached")?);
            table += &format!("{operation:38} {bare:>10.0} {:>+14.0} {:>8.3}×\n", attached - bare, attached / bare);
        }
        Ok(table)
    }

    fn daemon_table(&self, kernel: &str) -> String {
        let rows = self.figures.iter().map(|(name, value, unit)| {
            let decimals = if unit == "files" { 0 } else { 2 };
            format!("{name:49} {value:>13.decimals$} {unit}\n")
        });
        std::iter::once(format!("the daemon, Linux {kernel}\n")).chain(rows).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_needs_every_sample() {
        let mut measured = Measured::default();
        measured.add("getppid".to_owned(), "bare".to_owned(), 1000.0);
        assert!(measured.operations_table("6.12").is_err());
        measured.add("getppid".to_owned(), "attached".to_owned(), 1075.0);
        let whole = measured.operations_table("6.12").expect("all samples are there");
        assert!(
            whole.contains("getppid                                      1000            +75    1.075×"),
            "{whole}"
        );
    }

    #[test]
    fn figures_show_their_unit() {
        let figures = vec![
            ("idle daemon".to_owned(), 0.1499, "million instructions a second".to_owned()),
            ("files created".to_owned(), 20_000.0, "files".to_owned()),
        ];
        let table = Measured { figures, ..Measured::default() }.daemon_table("6.12");
        assert!(table.contains(" 0.15 million instructions a second\n"), "{table}");
        assert!(table.contains(" 20000 files\n"), "{table}");
    }
}
