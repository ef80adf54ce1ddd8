//! `detector replay`: shows again what the daemon has found.

use std::fs::File;
use std::io::{self, BufReader, Write as _};
use std::path::PathBuf;

use super::failure::{Exit, Failure};
use crate::output::json;
use crate::replay::{Error, replay};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file that `detector run --record` has written
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let name = args.file.display();
    let file = File::open(&args.file).map_err(|error| {
        Failure::new(Exit::Failure, format_args!("{name}: {error}; give a file that this user may read"))
    })?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let result = replay(BufReader::new(file), |line| out.write_all(&json::line(line)));
    let doubts = match (result, out.flush()) {
        (Err(Error::Output(error)), _) | (Ok(_), Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            return Ok(());
        }
        (Err(Error::Output(error)), _) | (Ok(_), Err(error)) => return Err(error.into()),
        (Err(error), _) => return Err(Failure::new(Exit::Failure, format_args!("{name}: {error}"))),
        (Ok(doubts), Ok(())) => doubts,
    };
    if doubts.is_empty() {
        return Ok(());
    }
    let why = doubts.join(", and ");
    Err(Failure::new(
        Exit::Degraded,
        format_args!("{name}: {why}; so the lines may not be those that the daemon wrote"),
    ))
}
