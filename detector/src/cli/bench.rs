//! `detector bench-baseline`: holds the yardstick of the benchmark attached.

use std::io::{self, Write};

use super::failure::{Exit, Failure};
use crate::sensor;

pub(super) fn run() -> Result<(), Failure> {
    let attached = sensor::baseline()?;
    let mut out = io::stdout();
    writeln!(out, "attached")?;
    out.flush()?;
    io::copy(&mut io::stdin(), &mut io::sink())
        .map_err(|error| Failure::new(Exit::Failure, format_args!("standard input: {error}; keep it open")))?;
    drop(attached);
    Ok(())
}
