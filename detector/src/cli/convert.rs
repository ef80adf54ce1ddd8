//! `detector convert`: lines that the detector has written, in a format that SIEMs read.

use std::io::{self, BufRead as _, Read as _, Write};
use std::path::{Path, PathBuf};

use super::arguments::format_parser;
use super::failure::{Exit, Failure};
use super::lines;
use crate::detect::describe::counted;
use crate::output::formats::Format;
use crate::output::json::LONGEST;

/// How many lines of a file are named that cannot be converted. The others are counted.
const NAMED: u64 = 10;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Format of the output
    #[arg(long, value_name = "FORMAT", value_parser = format_parser())]
    to: Format,
    /// Files with lines that the detector has written, also those that gzip has compressed (`-` is standard input)
    #[arg(value_name = "FILE", default_value = "-")]
    files: Vec<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut refused = 0;
    let result = args.files.iter().try_for_each(|file| convert(file, args.to, &mut out, &mut refused));
    match result.and_then(|()| out.flush().map_err(Ended::Unwritable)) {
        // The reader has all it wanted.
        Err(Ended::Unwritable(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(Ended::Unwritable(error)) => Err(error.into()),
        Err(Ended::Failed(failure)) => {
            // What was converted is written all the same; that the file cannot be read is the worse news.
            let _ = out.flush();
            Err(failure)
        }
        Ok(()) if refused == 0 => Ok(()),
        Ok(()) => Err(Failure::new(
            Exit::Failure,
            format_args!(
                "{} could not be converted, for the reasons above; give lines that `detector run` or `detector tail -o \
                json` of this version has written",
                counted(refused, "line")
            ),
        )),
    }
}

/// Why the conversion ended before its time.
enum Ended {
    Unwritable(io::Error),
    Failed(Failure),
}

/// Converts the lines of a file. Says which ones cannot be converted, and counts them.
fn convert(path: &Path, format: Format, out: &mut impl Write, refused: &mut u64) -> Result<(), Ended> {
    let mut input = lines::open(path).map_err(Ended::Failed)?;
    let (mut line, mut number, mut refused_here) = (Vec::new(), 0_u64, 0);
    loop {
        line.clear();
        number += 1;
        let unreadable = |error| {
            let why =
                format_args!("cannot be read from line {number} on: {error}; check the file, or take another copy");
            Ended::Failed(lines::failed(path, why))
        };
        let read = input.by_ref().take(LONGEST).read_until(b'\n', &mut line).map_err(unreadable)?;
        if read == 0 {
            break;
        }
        let converted = if read as u64 == LONGEST && !line.ends_with(b"\n") {
            input.skip_until(b'\n').map_err(unreadable)?;
            Err(format!("it is longer than {LONGEST} bytes, so the detector has not written it"))
        } else {
            format.convert(&line).map_err(|error| error.to_string())
        };
        match converted {
            Ok(converted) => out.write_all(&converted).map_err(Ended::Unwritable)?,
            Err(why) => {
                refused_here += 1;
                if refused_here <= NAMED {
                    say(format_args!("{}: line {number}: {why}", lines::name(path)));
                }
            }
        }
    }
    if refused_here > NAMED {
        say(format_args!("{}: and {}", lines::name(path), counted(refused_here - NAMED, "more line")));
    }
    *refused += refused_here;
    Ok(())
}

fn say(what: std::fmt::Arguments<'_>) {
    // Standard error may be closed; the exit code still tells.
    let _ = writeln!(io::stderr(), "detector: {what}");
}
