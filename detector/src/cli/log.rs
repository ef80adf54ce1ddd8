//! `detector log`: what a log proves.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::failure::{Exit, Failure};
use super::lines;
use super::stdout::print;
use crate::chain::verify::{Known, Part, Report};
use crate::detect::describe::counted;
use crate::finding::Sha256;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Prove that no line of a log is missing, there a second time, out of order or changed, or show where
    Verify {
        /// All files of the log, in any order, also those that gzip has compressed (`-` is standard input)
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// The `seq` of a heartbeat, or of a line, that another machine has received: the log must reach it
        #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
        seq: Option<u64>,
        /// The `sha256` of this heartbeat, or of this line: the log must be that from which it comes
        #[arg(long, value_name = "HASH", requires = "seq")]
        sha256: Option<Sha256>,
    },
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let Command::Verify { files, seq, sha256 } = args.command;
    let known = seq.map(|seq| Known { seq, sha256 });
    let (doubles, files_once): (Vec<_>, Vec<_>) = files.iter().partition(|file| is_there_twice(file, &files));
    let parts = files_once.into_iter().map(|file| read(file, known)).collect::<Result<Vec<_>, _>>()?;
    let report = Report::of(parts, known);
    print(|out| {
        for double in doubles {
            writeln!(
                out,
                "note: {}: is not read, because the file that was compressed is still there",
                lines::name(double)
            )?;
        }
        write(out, &report)
    })?;
    let broken = |why: String| Err(Failure::new(Exit::Broken, why));
    match (report.problems(), report.ends) {
        (0, None) => broken(
            "there is no line with `seq` and `prev`, so nothing is proven; give files that `detector run` has written"
                .to_owned(),
        ),
        (0, Some(_)) => Ok(()),
        (count, _) => broken(format!(
            "the log is not whole: {}; compare it with what other machines have received, and find out who could write \
            the files",
            counted(count, "problem")
        )),
    }
}

/// Reads a file.
fn read(path: &Path, known: Option<Known>) -> Result<Part, Failure> {
    Part::read(lines::name(path), lines::open(path)?, known).map_err(|(line, error)| {
        let why = format_args!("cannot be read after line {line}: {error}; check the file, or take another copy");
        lines::failed(path, why)
    })
}

/// Whether a file has been compressed, and the original, which is only removed after that, is among these files, too.
fn is_there_twice(path: &Path, files: &[PathBuf]) -> bool {
    path.extension().is_some_and(|end| end == "gz") && files.contains(&path.with_extension(""))
}

fn write(out: &mut dyn Write, report: &Report) -> io::Result<()> {
    for part in &report.parts {
        match (part.lines, part.range()) {
            (0, _) => writeln!(out, "{}: empty", part.name)?,
            (lines, None) => writeln!(out, "{}: {}, none of a chain", part.name, counted(lines, "line"))?,
            (lines, Some((first, last))) => {
                writeln!(out, "{}: {}, seq {first} to {last}", part.name, counted(lines, "line"))?;
            }
        }
    }
    for part in &report.parts {
        for (what, sentences) in [("note", &part.remarks), ("error", &part.problems)] {
            sentences.first.iter().try_for_each(|sentence| writeln!(out, "{what}: {sentence}"))?;
            let more = sentences.count - sentences.first.len() as u64;
            if more > 0 {
                writeln!(out, "{what}: {}: and {more} more", part.name)?;
            }
        }
    }
    report.end_problem.iter().try_for_each(|problem| writeln!(out, "error: {problem}"))?;
    let Some((first, last)) = report.ends.filter(|_| report.problems() == 0) else { return Ok(()) };
    writeln!(out, "whole: nothing is missing, doubled, out of order or changed from seq {first} to {}", last.seq)?;
    match report.removed_to {
        Some(removed) if removed.saturating_add(1) == first => {
            writeln!(out, "what is before seq {first} was removed by the daemon, as the log says (--rotate-keep)")?;
        }
        Some(removed) if removed < first => writeln!(
            out,
            "what is before seq {first} is not in these files; the daemon has removed what is before seq {} \
            (--rotate-keep), and not more",
            removed.saturating_add(1)
        )?,
        _ if first > 1 => writeln!(out, "what is before seq {first} is not in these files")?,
        _ => {}
    }
    writeln!(out, "the last line has the SHA-256 {}", last.sha256)
}
