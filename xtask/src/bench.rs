//! `cargo xtask bench`: what the probes cost the kernel, in executed instructions.
//!
//! With `-icount shift=0,sleep=off` and one processor, a nanosecond of the guest is one executed instruction: the same
//! on every machine, however busy. The guest's side, with the operations, is `detector_tests::measure`.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use detector_tests::protocol::Message;

use crate::vm::Vm;

/// Options of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Kernel to measure on
    #[arg(long, default_value = "6.12")]
    kernel: String,
}

/// Measures and prints the table.
pub fn run(args: &Args) -> Result<()> {
    let mut samples = Samples::default();
    let mut end = None;
    Vm::new(&args.kernel).icount().guest(&["bench"]).run(|line| match Message::parse(line) {
        Some(Message::Sample { setup, operation, nanoseconds }) => {
            samples.add(operation, setup, nanoseconds);
        }
        Some(Message::End { failure }) => end = Some(failure),
        _ => {}
    })?;
    match end {
        Some(None) => {}
        Some(Some(failure)) => bail!("{failure}"),
        None => bail!("the machine died before the end"),
    }
    print!("{}", table(&args.kernel, &samples)?);
    Ok(())
}

/// What the guest has measured.
#[derive(Default)]
struct Samples {
    /// Each once, in the order in which they came.
    operations: Vec<String>,
    /// Nanoseconds by operation and setup.
    nanoseconds: HashMap<(String, String), f64>,
}

impl Samples {
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
}

fn table(kernel: &str, samples: &Samples) -> Result<String> {
    let mut table = format!(
        "instructions per operation, Linux {kernel}\n{:38} {:>10} {:>14} {:>14} {:>9}\n",
        "", "bare", "empty fentry", "detector", "ratio"
    );
    for operation in &samples.operations {
        let sample = |setup| samples.get(operation, setup);
        let (bare, fentry, attached) = (sample("bare")?, sample("fentry")?, sample("attached")?);
        table += &format!(
            "{operation:38} {bare:>10.0} {:>+14.0} {:>+14.0} {:>8.3}×\n",
            fentry - bare,
            attached - bare,
            attached / bare
        );
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_needs_every_sample() {
        let mut samples = Samples::default();
        let sample = |samples: &mut Samples, setup: &str, nanoseconds| {
            samples.add("getppid".to_owned(), setup.to_owned(), nanoseconds);
        };
        sample(&mut samples, "bare", 1000.0);
        sample(&mut samples, "fentry", 1050.0);
        assert!(table("6.12", &samples).is_err());
        sample(&mut samples, "attached", 1075.0);
        let whole = table("6.12", &samples).expect("all samples are there");
        assert!(
            whole.contains("getppid                                      1000            +50            +75    1.075×")
        );
    }
}
