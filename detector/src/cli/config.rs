//! `detector config`: what can be in the configuration file of `detector run`, and what is wrong with one.

use std::io::{self, Write};
use std::path::PathBuf;

use super::failure::{Exit, Failure};
use super::stdout::print;
use crate::config::problem::visible_text;
use crate::config::{self, Loaded};
use crate::detect::describe::counted;
use crate::policy::{Exception, Override, WatchRule};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print a file with every key, a description of each, and the default values
    Default,
    /// Show what is wrong with a file, and its exceptions, overrides and rules in the order in which they are tried
    Check {
        /// The file
        #[arg(value_name = "FILE", default_value = config::DEFAULT_PATH)]
        file: PathBuf,
    },
    /// Print the JSON Schema of the file
    Schema,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::Default => print(|out| out.write_all(config::DEFAULT.as_bytes())),
        Command::Check { file } => {
            let name = file.display().to_string();
            let loaded =
                Loaded::read(file).map_err(|error| Failure::new(Exit::Usage, format_args!("{name}: {error}")))?;
            print(|out| show(out, &name, &loaded))?;
            let errors = loaded.problems.errors().count();
            match errors {
                0 => Ok(()),
                _ => {
                    let more = if loaded.problems.omitted() > 0 { "more than " } else { "" };
                    let errors = counted(errors as u64, "error");
                    Err(Failure::new(
                        Exit::Usage,
                        format_args!("{name}: the file cannot be used; correct {more}{errors}"),
                    ))
                }
            }
        }
        Command::Schema => super::print_schema(&config::schema()),
    }
}

fn show(out: &mut dyn Write, name: &str, loaded: &Loaded) -> io::Result<()> {
    let Loaded { settings, problems, doubts, text } = loaded;
    for doubt in doubts {
        writeln!(out, "warning: {doubt}\n")?;
    }
    for problem in problems.iter() {
        writeln!(out, "{}", problem.excerpt(name, text))?;
    }
    if problems.omitted() > 0 {
        writeln!(out, "and {} more\n", problems.omitted())?;
    }
    if problems.has_errors() {
        return Ok(());
    }
    match problems.iter().count() + problems.omitted() + doubts.len() {
        0 => writeln!(out, "{name}: no errors")?,
        warnings => writeln!(out, "{name}: no errors, {}", counted(warnings as u64, "warning"))?,
    }
    let exceptions = settings.exception.0.iter().map(|exception| {
        let Exception { name, reason, owner, .. } = exception;
        let until = exception.end().map_or("no expiry".to_owned(), |end| format!("expires {end}"));
        let [name, owner, reason] = [name, owner, reason].map(|text| visible_text(text));
        format!("{name} ({until}; owner {owner}): {reason}")
    });
    list(out, "exceptions, in the order in which they are tried (the first that matches applies):", exceptions)?;
    let overrides = settings.severity.0.iter().map(|Override { name, reason, severity, .. }| {
        let [name, reason] = [name, reason].map(|text| visible_text(text));
        format!("{name} ({severity}): {reason}")
    });
    list(
        out,
        "overrides of severities, in the order in which they are tried (the first that matches applies):",
        overrides,
    )?;
    let rules = settings.watch.0.iter().map(|WatchRule { name, reason, is_watched, .. }| {
        let [name, reason] = [name, reason].map(|text| visible_text(text));
        format!("{name} ({}): {reason}", if *is_watched { "watched" } else { "not watched" })
    });
    list(
        out,
        "rules about what is watched, in the order in which they are tried (what none matches is watched):",
        rules,
    )
}

/// Writes a numbered list below a heading, if it has entries.
fn list(out: &mut dyn Write, heading: &str, entries: impl ExactSizeIterator<Item = String>) -> io::Result<()> {
    if entries.len() > 0 {
        writeln!(out, "{heading}")?;
    }
    (1..).zip(entries).try_for_each(|(number, entry)| writeln!(out, "{number:>4}. {entry}"))
}
