//! `detector advise`: says what a workload needs to run with a read-only root.

use super::arguments::{Socket, is_coloured};
use super::failure::Failure;
use super::stdout::print;
use super::{completion, console, drift};
use crate::client;
use crate::ledger::account::{Account, Accounts};
use crate::ledger::advice::Advice;
use crate::ledger::{Query, layers, replicas};
use crate::output::advice;
use crate::output::terminal::{Look, safe};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// One of the containers of the workload, given by the beginning of its id, its name, or its pod (NAME or
    /// NAMESPACE/NAME). What its replicas have written counts, too
    #[arg(value_name = "CONTAINER", add = completion::containers())]
    container: String,
    /// How it is shown
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    output: Form,
    #[command(flatten)]
    socket: Socket,
    /// When to use colours; `auto` uses them on a terminal, as far as `NO_COLOR`, `CLICOLOR` and `CLICOLOR_FORCE` allow
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = clap::ColorChoice::Auto)]
    color: clap::ColorChoice,
}

/// The form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// Sentences, and then the command of Docker
    Text,
    /// The beginning of a command of Docker or Podman, on one line
    Docker,
    /// A patch for kubectl
    Kubernetes,
    /// A JSON object on one line
    Json,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let mut accounts = Accounts::default();
    let query = Query { container: None, is_detailed: true };
    let degraded = client::drift(&args.socket.path(), query, |row| accounts.take(row))?;
    let accounts = accounts.into_sorted();
    let wanted: Vec<_> = accounts.iter().filter(|account| account.page.is_called(&args.container)).collect();
    // One that runs can be looked at.
    let Some(first) = wanted.iter().find(|account| account.page.ended.is_none()).or(wanted.first()).copied() else {
        return Err(drift::unknown(&args.container));
    };
    let is_first = |account: &&Account| std::ptr::eq(*account, first);
    let groups = replicas::groups(&accounts, drift::now());
    let group = groups.into_iter().find(|group| group.replicas.iter().any(is_first));
    let mut found = Advice::about(&group.map_or_else(|| vec![first], |group| group.replicas), drift::now());
    found.basis.doubts.extend(degraded);
    let container = &first.page.container;
    if first.page.ended.is_none() {
        let directories: Vec<_> = found.mounts.iter().map(|mount| mount.path.clone()).collect();
        match layers::image_files_below(container, &directories) {
            Ok(counts) => found.mounts.iter_mut().zip(counts).for_each(|(mount, count)| mount.hides = Some(count)),
            Err(error) => tracing::warn!("the image's own files are not known: {}", safe(&error.to_string())),
        }
    }
    print(|out| match args.output {
        Form::Text => {
            let look = Look { columns: Some(console::columns()), color: is_coloured(args.color), ..Look::default() };
            out.write_all(advice::text(&found, container, look).as_bytes())
        }
        Form::Docker => writeln!(out, "{}", advice::docker(&found, container)),
        Form::Kubernetes => out.write_all(advice::kubernetes(&found, container).as_bytes()),
        Form::Json => {
            serde_json::to_writer(&mut *out, &found)?;
            writeln!(out)
        }
    })
}
