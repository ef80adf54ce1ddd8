//! The process that forwards lines, which the daemon starts.

use std::path::PathBuf;

use tracing::level_filters::LevelFilter;

use super::arguments::level_parser;
use super::failure::{Exit, Failure};
use crate::forward;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The log
    log_file: PathBuf,
    /// The folder for the files of forwarders
    folder: PathBuf,
    /// Log level of the messages on standard error
    #[arg(long, value_name = "LEVEL", value_parser = level_parser())]
    log: LevelFilter,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    super::log_messages(args.log);
    forward::run(&args.log_file, &args.folder)
        .map_err(|error| Failure::new(Exit::Failure, format_args!("cannot forward lines: {error}")))
}
