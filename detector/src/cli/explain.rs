//! `detector explain`: why a finding was reported, and what would except it.

use std::path::{Path, PathBuf};

use super::arguments::Socket;
use super::failure::{Exit, Failure};
use super::lines;
use super::stdout::print;
use crate::client;
use crate::config::{self, Loaded};
use crate::explain::{Explanation, Known, log, text};
use crate::finding::{Finding, Time};
use crate::output::json;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// File with lines that the detector has written (`-` is standard input), or the id of a finding, or its beginning,
    /// in the file that the daemon writes
    #[arg(value_name = "FILE|ID")]
    finding: String,
    /// Id of the finding, or its beginning, if the file has more than one
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Configuration file with the exceptions [default: that of the daemon, or /etc/detector/config.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    socket: Socket,
    /// Form of the output
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t = Form::Text)]
    output: Form,
}

/// The form of the output.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Form {
    /// For people
    Text,
    /// A JSON object
    Json,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let daemon = client::status(&args.socket.path());
    let of_daemon = daemon.as_ref().ok();
    let configured = of_daemon.and_then(|status| status.config.as_ref()).map(|config| PathBuf::from(&config.path));
    let usual = || Some(PathBuf::from(config::DEFAULT_PATH)).filter(|path| path.exists());
    let path = args.config.clone().or(configured).or_else(usual);
    let (loaded, refused) = match path.as_deref().map_or_else(|| Ok(Loaded::default()), Loaded::without_errors) {
        Ok(loaded) => (loaded, None),
        Err(why) if args.config.is_some() => return Err(Failure::new(Exit::Usage, why)),
        // The finding can be explained all the same.
        Err(why) => (Loaded::default(), Some(why.to_string())),
    };
    let finding = match source(args) {
        Source::File(file) => find(file, args.id.as_deref())?,
        Source::Output(id) => {
            let written = of_daemon.and_then(|status| status.output.clone());
            let file = written.or_else(|| loaded.settings.output.json.clone()).ok_or_else(|| {
                let why = match &daemon {
                    Ok(_) => "the daemon writes findings to standard output".to_owned(),
                    Err(error) => error.to_string(),
                };
                Failure::new(
                    Exit::Failure,
                    format_args!(
                        "{id}: there is no file of this name, and no finding with this id can be looked up ({why}); \
                        give the file that has the finding: `detector explain FILE --id {id}`"
                    ),
                )
            })?;
            find(&file, Some(id))?
        }
    };
    let file = path.map(|path| path.display().to_string());
    let known = Known { policy: loaded.settings.policy(), file, refused };
    let explanation = Explanation::of(&finding, &known, Time(jiff::Timestamp::now()));
    print(|out| match args.output {
        Form::Text => text::write(out, &explanation),
        Form::Json => out.write_all(&json::object(&explanation)),
    })
}

/// Where the finding is.
enum Source<'a> {
    /// In this file, or in standard input, if it is `-`.
    File(&'a Path),
    /// In the file that the daemon writes, under an id that begins like this.
    Output(&'a str),
}

fn source(args: &Args) -> Source<'_> {
    let file = Path::new(&args.finding);
    let is_id = args.id.is_none()
        && !args.finding.is_empty()
        && args.finding != "-"
        && args.finding.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
    match args.finding.as_str() {
        id if is_id && !file.exists() => Source::Output(id),
        _ => Source::File(file),
    }
}

fn find(path: &Path, id: Option<&str>) -> Result<Finding, Failure> {
    log::find(lines::open(path)?, id).map_err(|why| lines::failed(path, why))
}
