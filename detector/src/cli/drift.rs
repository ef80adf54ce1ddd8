//! `detector drift`: shows what the daemon's ledger says about containers.

use std::io::{self, Write};
use std::str::FromStr;

use clap::ColorChoice;

use super::arguments::{Socket, is_coloured};
use super::failure::{Exit, Failure};
use super::stdout::print;
use super::{completion, console};
use crate::client;
use crate::finding::{Text, Time};
use crate::ledger::account::{Account, Accounts};
use crate::ledger::page::Verdict;
use crate::ledger::replicas::{self, Group};
use crate::ledger::upper::{self, Comparison};
use crate::ledger::{Query, diff};
use crate::output::drift;
use crate::output::terminal::{Look, pod_or_name, safe};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Show this container in full, given by the beginning of its id, its name, or its pod (NAME or NAMESPACE/NAME)
    #[arg(value_name = "CONTAINER", add = completion::containers())]
    container: Option<String>,
    /// Also show what is only counted otherwise: what is expected, and ended containers that were their images
    #[arg(long)]
    all: bool,
    /// Compare containers that should be alike, because they have the same image and, in pods, the same owner, or those
    /// that should be like CONTAINER. What only some of them did is shown
    #[arg(long)]
    replicas: bool,
    /// Also list what the upper layer of the running CONTAINER has, but not the ledger: changes from before it was
    /// watched, and those that were not seen. Needs root on the node of the container
    #[arg(long, requires = "container", conflicts_with = "replicas")]
    verify: bool,
    /// Show how this file of the running CONTAINER differs from that of its image. The path is absolute, and without
    /// symbolic links, as the ledger has it. Needs root on the node of the container
    #[arg(
        long,
        value_name = "PATH",
        requires = "container",
        conflicts_with_all = ["replicas", "verify", "exit_code", "output", "all"]
    )]
    diff: Option<LayerPath>,
    /// Exit with code 8 if a container that is shown has drifted, or replicas differ, or `--verify` lists something
    #[arg(long)]
    exit_code: bool,
    /// How it is shown
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t = Form::Compact)]
    output: Form,
    #[command(flatten)]
    socket: Socket,
    /// When to use colours; `auto` uses them on a terminal, as far as `NO_COLOR`, `CLICOLOR` and `CLICOLOR_FORCE` allow
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = ColorChoice::Auto)]
    color: ColorChoice,
}

/// The form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// In columns that fit the terminal
    Compact,
    /// Each row on one line, whole
    Wide,
    /// A JSON object for each container or group of replicas, on a line
    Json,
    /// A page of HTML that needs nothing else, about all containers, one, or replicas
    #[value(name = "html")]
    Html,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    if args.verify && args.output == Form::Html {
        let why = "--verify: there is no page with what the upper layer has; leave out `-o html`, or give `-o json`";
        return Err(Failure::new(Exit::Usage, why));
    }
    let is_detailed = args.replicas || args.container.is_some() || matches!(args.output, Form::Json | Form::Html);
    let query = Query { container: args.container.clone().filter(|_| !args.replicas), is_detailed };
    let mut accounts = Accounts::default();
    let degraded = client::drift(&args.socket.path(), query, |row| accounts.take(row))?;
    let accounts = accounts.into_sorted();
    let is_wanted = |account: &&Account| args.container.as_ref().is_none_or(|wanted| account.page.is_called(wanted));
    if let Some(wanted) = args.container.as_ref().filter(|_| !accounts.iter().any(|account| is_wanted(&account))) {
        return Err(unknown(wanted));
    }
    if let Some(LayerPath(path)) = &args.diff {
        return show_difference(args, &accounts, path);
    }
    let compared = if args.verify { verify(&accounts)? } else { Vec::new() };
    let mut groups = if args.replicas { replicas::groups(&accounts, now()) } else { Vec::new() };
    groups.retain(|group| group.replicas.iter().any(&is_wanted));
    print(|out| {
        if args.replicas {
            show_replicas(out, args, &groups, &degraded)
        } else {
            show(out, args, &accounts, &compared, &degraded)
        }?;
        show_degraded(out, args, &degraded)
    })?;
    let has_drifted = |account: &Account| account.page.verdict() == Verdict::Drifted;
    match args.replicas {
        _ if !args.exit_code => Ok(()),
        true if groups.iter().any(|group| !group.differences.is_empty()) => {
            Err(Failure::new(Exit::Drifted, "replicas differ; see above"))
        }
        false if accounts.iter().any(has_drifted) => {
            Err(Failure::new(Exit::Drifted, "a container has drifted from its image; see above"))
        }
        false if compared.iter().flatten().any(|compared| !compared.unknown.is_empty()) => {
            Err(Failure::new(Exit::Drifted, "a container has changes that the ledger does not have; see above"))
        }
        _ => Ok(()),
    }
}

/// The path of a file, as the container has it.
#[derive(Clone, Debug)]
struct LayerPath(Vec<u8>);

impl FromStr for LayerPath {
    type Err = &'static str;

    fn from_str(path: &str) -> Result<Self, Self::Err> {
        let rest = path.strip_prefix('/').filter(|rest| !rest.is_empty());
        let rest = rest.ok_or("write the absolute path of a file, such as /etc/passwd")?;
        if rest.split('/').any(|name| matches!(name, "" | "." | "..")) {
            return Err("write the path without empty names, `.` and `..`");
        }
        let bytes = Text::of_texts(path.to_owned()).to_bytes();
        bytes.map(Self).ok_or("write a backslash as `\\\\`, and a byte as `\\xNN`")
    }
}

fn show_difference(args: &Args, accounts: &[Account], path: &[u8]) -> Result<(), Failure> {
    let refuse = |why: String| Failure::new(Exit::Failure, format_args!("--diff: {why}"));
    let running: Vec<_> = accounts.iter().filter(|account| account.page.ended.is_none()).collect();
    let container = match running[..] {
        [account] => &account.page.container,
        [] => return Err(refuse("the container has ended, and its layers may be gone".to_owned())),
        _ => return Err(refuse(format!("{} containers are called so; give the id of one", running.len()))),
    };
    let found =
        diff::diff(container, path).map_err(|error| refuse(safe(&format!("{}: {error}", pod_or_name(container)))))?;
    print(|out| out.write_all(drift::difference(&path.into(), &found, look(args)).as_bytes()))
}

/// Compares each container that runs with its upper layer.
fn verify(accounts: &[Account]) -> Result<Vec<Option<Comparison>>, Failure> {
    let running = |account: &Account| account.page.ended.is_none();
    if !accounts.iter().any(running) {
        return Err(Failure::new(
            Exit::Failure,
            "--verify: the container has ended, and its upper layer may be gone; leave out --verify",
        ));
    }
    let compare = |account: &Account| {
        let compared = running(account).then(|| upper::compare(account)).transpose();
        compared.map_err(|error| {
            let said = format!("{}: {error}", pod_or_name(&account.page.container));
            Failure::new(Exit::Failure, format_args!("--verify: {}", safe(&said)))
        })
    };
    accounts.iter().map(compare).collect()
}

/// There is no container that is called so.
pub(super) fn unknown(wanted: &str) -> Failure {
    Failure::new(
        Exit::Failure,
        format_args!(
            "{}: the ledger has no container with this id, name or pod; `detector drift` lists those that it has",
            safe(wanted)
        ),
    )
}

pub(super) fn now() -> Time {
    Time(jiff::Timestamp::now())
}

fn look(args: &Args) -> Look {
    let columns = (args.output == Form::Compact).then(console::columns);
    Look { columns, color: is_coloured(args.color), ..Look::default() }
}

fn show_replicas(out: &mut dyn Write, args: &Args, groups: &[Group<'_>], degraded: &[String]) -> io::Result<()> {
    match args.output {
        Form::Json => groups.iter().try_for_each(|group| out.write_all(&drift::group(group))),
        Form::Html => out.write_all(drift::page_of_replicas(groups, degraded, now()).as_bytes()),
        Form::Compact | Form::Wide => out.write_all(drift::replicas(groups, look(args)).as_bytes()),
    }
}

fn show(
    out: &mut dyn Write,
    args: &Args,
    accounts: &[Account],
    compared: &[Option<Comparison>],
    degraded: &[String],
) -> io::Result<()> {
    let compared = |number: usize| compared.get(number).and_then(Option::as_ref);
    match args.output {
        Form::Json => {
            return accounts.iter().enumerate().try_for_each(|(number, account)| {
                out.write_all(&drift::object(account, compared(number), degraded, args.all))
            });
        }
        Form::Html => return out.write_all(drift::page(accounts, degraded, now()).as_bytes()),
        Form::Compact | Form::Wide => {}
    }
    let look = look(args);
    if args.container.is_none() {
        out.write_all(drift::table(accounts, args.all, look).as_bytes())?;
    }
    for (number, account) in accounts.iter().filter(|_| args.container.is_some()).enumerate() {
        if number > 0 {
            writeln!(out)?;
        }
        out.write_all(drift::details(account, compared(number), args.all, look).as_bytes())?;
    }
    Ok(())
}

fn show_degraded(out: &mut dyn Write, args: &Args, degraded: &[String]) -> io::Result<()> {
    for reason in degraded.iter().filter(|_| matches!(args.output, Form::Compact | Form::Wide)) {
        writeln!(out, "Something may be missing here, because the detector is degraded: {}", safe(reason))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Only {
        #[command(flatten)]
        args: Args,
    }

    fn parsed(arguments: &[&str]) -> Result<Args, clap::Error> {
        Only::try_parse_from(["drift"].iter().chain(arguments)).map(|only| only.args)
    }

    #[test]
    fn a_path_of_a_container_is_absolute_and_leads_nowhere_else() {
        let path = |text: &str| text.parse().map(|LayerPath(bytes)| bytes);
        assert_eq!(path("/etc/passwd"), Ok(b"/etc/passwd".to_vec()));
        assert_eq!(path(r"/srv/\xff\\"), Ok(b"/srv/\xff\\".to_vec()));
        for wrong in ["etc/passwd", "/", "", "/../etc/passwd", "/srv/./x", "/srv//x", "/srv/", r"/srv/\n"] {
            assert!(path(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let args = parsed(&["web", "--diff", "/etc/passwd"]).expect("it is right");
        assert_eq!(args.diff.map(|LayerPath(path)| path), Some(b"/etc/passwd".to_vec()));
        assert!(parsed(&["web", "--verify", "-o", "json"]).is_ok());
        for wrong in [
            &["--diff", "/etc/passwd"][..],
            &["--verify"],
            &["web", "--diff", "/etc/passwd", "-o", "json"],
            &["web", "--diff", "/etc/passwd", "--verify"],
            &["web", "--replicas", "--verify"],
        ] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }
}
