//! `cargo xtask bench`: what the probes cost the kernel, in executed instructions.
//!
//! With `-icount shift=0,sleep=off` and one processor, a nanosecond of the guest is one executed instruction: the same
//! on every machine, however busy. The guest's side, with the operations, is `detector_tests::measure`.

use std::collections::HashMap;

use anyhow::{Result, bail};
use detector_tests::measure::operations;
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
    let mut samples = HashMap::new();
    let mut end = None;
    Vm::new(&args.kernel).icount().guest(&["bench"]).run(|line| match Message::parse(line) {
        Some(Message::Sample { setup, operation, nanoseconds }) => {
            samples.insert((operation, setup), nanoseconds);
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

fn table(kernel: &str, samples: &HashMap<(String, String), f64>) -> Result<String> {
    let mut table = format!(
        "instructions per operation, Linux {kernel}\n{:38} {:>10} {:>14} {:>14} {:>9}\n",
        "", "bare", "empty fentry", "detector", "ratio"
    );
    for operation in operations() {
        let sample = |setup: &str| samples.get(&(operation.to_owned(), setup.to_owned())).copied();
        let (Some(bare), Some(fentry), Some(attached)) = (sample("bare"), sample("fentry"), sample("attached")) else {
            bail!("the guest did not measure {operation:?} in all setups");
        };
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
        let mut samples = HashMap::new();
        for (setup, nanoseconds) in [("bare", 1000.0), ("fentry", 1050.0), ("attached", 1075.0)] {
            samples.extend(operations().map(|operation| ((operation.to_owned(), setup.to_owned()), nanoseconds)));
        }
        let whole = table("6.12", &samples).expect("all samples are there");
        assert!(
            whole.contains("getppid                                      1000            +50            +75    1.075×")
        );
        samples.remove(&("getppid".to_owned(), "bare".to_owned()));
        assert!(table("6.12", &samples).is_err());
    }
}
