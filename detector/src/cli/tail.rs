//! `detector tail`: shows findings live.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use clap::ColorChoice;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::arguments::{Runtimes, Socket, is_coloured, kind_parser, node_name, severity_parser};
use super::failure::{Exit, Failure};
use crate::client::{self, Stream};
use crate::daemon::hub::Hub;
use crate::daemon::watch::{self, Watch};
use crate::finding::{Container, Finding, Kind, Line, Loss, Node, Notice, NoticeEvent, Severity};
use crate::output::terminal;
use crate::recent::Recent;
use crate::redact::Redactor;
use crate::runtime;
use crate::sensor;

/// How many sessions are remembered at most, so that an update is not shown again.
const MOST_SESSIONS: usize = 8192;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print JSON, one object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    socket: Socket,
    /// When to use colours; `auto` uses them on a terminal, unless `NO_COLOR` is set
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = ColorChoice::Auto)]
    color: ColorChoice,
}

/// Selects the findings to show, and the ends of sessions. Other notices are always shown.
#[derive(Debug, Default, clap::Args)]
struct Filter {
    /// Show only findings of this container, given by its name or the beginning of its id. Can be given more than once
    #[arg(long, value_name = "ID|NAME")]
    container: Vec<String>,
    /// Show only findings of this kind. Can be given more than once
    #[arg(long, value_name = "KIND", value_parser = kind_parser())]
    finding: Vec<Kind>,
    /// Show only findings of at least this severity
    #[arg(long, value_name = "MIN", value_parser = severity_parser())]
    severity: Option<Severity>,
}

impl Filter {
    fn admits(&self, finding: &Finding) -> bool {
        self.admits_parts(finding.severity, finding.finding, finding.container.as_ref())
    }

    fn admits_parts(&self, severity: Severity, kind: Kind, container: Option<&Container>) -> bool {
        self.severity.is_none_or(|least| severity >= least)
            && (self.finding.is_empty() || self.finding.contains(&kind))
            && self.admits_container(container)
    }

    fn admits_container(&self, container: Option<&Container>) -> bool {
        self.container.is_empty()
            || container.is_some_and(|container| self.container.iter().any(|wanted| is_container(container, wanted)))
    }
}

fn is_container(container: &Container, wanted: &str) -> bool {
    container.id.as_ref().is_some_and(|id| id.as_str().starts_with(wanted))
        || container.name.as_ref().is_some_and(|name| name.as_str() == wanted)
}

/// The sessions that were shown, and the severity that they had.
struct Sessions(Recent<String, Severity>);

impl Sessions {
    /// Whether a line tells a person more than the lines before: an update of a session does only if the severity is
    /// higher. The notice about its end says what was done.
    fn are_told(&mut self, finding: &Finding) -> bool {
        if finding.finding != Kind::Session {
            return false;
        }
        let is_told = self.0.get(&finding.id).is_some_and(|told| *told >= finding.severity);
        self.0.insert(finding.id.clone(), finding.severity);
        is_told
    }
}

/// Where the lines come from.
enum Source {
    Daemon(Stream),
    Private { hub: Arc<Hub>, lines: Receiver<Bytes>, _watch: Watch },
}

impl Source {
    /// Connects to the daemon. If none is running and no socket was named, starts a private sensor.
    fn open(socket: &Socket) -> Result<Self, Failure> {
        match client::tail(&socket.path()) {
            Ok(stream) => Ok(Self::Daemon(stream)),
            Err(error @ client::Error::NotRunning(_)) if socket.path.is_none() => match sensor::check_privileges() {
                Ok(()) => Self::private(),
                Err(_) => Err(Failure::new(Exit::NotReady, format_args!("{error}, or run this as root"))),
            },
            Err(error) => Err(error.into()),
        }
    }

    fn private() -> Result<Self, Failure> {
        let node = Node::from(node_name());
        let hub = Arc::new(Hub::new(node.clone()));
        let lines = hub.subscribe().ok_or_else(|| {
            Failure::new(
                Exit::Failure,
                "the private sensor stopped right after \
            its start; see its log",
            )
        })?;
        let options = watch::Options {
            node,
            redactor: Redactor::default(),
            bpf_object: None,
            record: None,
            engines: Runtimes::default().engines(),
            wait: runtime::DEFAULT_WAIT,
            test_interval: watch::TEST_INTERVAL,
        };
        let end_stream = {
            let hub = Arc::clone(&hub);
            move || hub.close()
        };
        let watch = Watch::start(options, &hub, end_stream)?;
        hub.publish_degradation();
        // Standard error may be closed.
        let _ = writeln!(
            io::stderr(),
            "detector: no daemon is running; watching with a private sensor until this \
            command ends"
        );
        Ok(Self::Private { hub, lines, _watch: watch })
    }

    /// Reads the next line, including its line feed, into `line`. Returns `false` at the end of the stream.
    fn next_line(&mut self, line: &mut Vec<u8>) -> Result<bool, Failure> {
        match self {
            Self::Daemon(stream) => Ok(stream.next_line(line)?),
            Self::Private { hub, lines, .. } => {
                let next = match lines.blocking_recv() {
                    Ok(next) => next,
                    Err(RecvError::Lagged(missed)) => hub.loss_line(Loss::Client, missed),
                    Err(RecvError::Closed) => return Ok(false),
                };
                line.clear();
                line.extend_from_slice(&next);
                Ok(true)
            }
        }
    }
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let mut source = Source::open(&args.socket)?;
    let color = is_coloured(args.color);
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut line = Vec::new();
    let mut sessions = Sessions(Recent::new(MOST_SESSIONS));
    while source.next_line(&mut line)? {
        match show(&mut out, &line, &args.filter, &mut sessions, args.json, color).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            shown => shown?,
        }
    }
    let why = match source {
        Source::Daemon(_) => {
            "the stream ended because the daemon stopped; check its log, restart it, and run this \
            command again"
        }
        Source::Private { .. } => {
            "the private sensor ended unexpectedly; this is a bug: report it with the messages \
            above"
        }
    };
    Err(Failure::new(Exit::Failure, why))
}

fn show(
    out: &mut impl Write,
    line: &[u8],
    filter: &Filter,
    sessions: &mut Sessions,
    json: bool,
    color: bool,
) -> io::Result<()> {
    match serde_json::from_slice::<Line>(line) {
        Ok(Line::Finding(finding)) if !filter.admits(&finding) => Ok(()),
        Ok(Line::Finding(finding)) if !json && sessions.are_told(&finding) => Ok(()),
        Ok(Line::Notice(Notice { event: NoticeEvent::SessionEnded { severity, container, .. }, .. }))
            if !filter.admits_parts(severity, Kind::Session, Some(&container)) =>
        {
            Ok(())
        }
        Ok(Line::Notice(Notice { event: NoticeEvent::ContainerInfo { container }, .. }))
            if !filter.admits_container(Some(&container)) =>
        {
            Ok(())
        }
        Ok(parsed) if !json => terminal::write_line(out, &parsed, color),
        // The line is printed unchanged, so that fields of a newer daemon are not lost.
        Ok(_) => out.write_all(line),
        Err(_) if json => out.write_all(line),
        Err(error) => {
            tracing::warn!("cannot decode a line from the daemon; use the same version of detector for both: {error}");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::detect::samples;
    use crate::event::{Event, Origin};

    #[derive(Debug, Parser)]
    struct Only {
        #[command(flatten)]
        filter: Filter,
    }

    fn admits(arguments: &[&str]) -> bool {
        let shell = samples::exec(Origin::Entered, "/bin/busybox", &["sh"]);
        let mut finding = samples::found(Event::Exec(Box::new(shell))).expect("it is a shell");
        finding.severity = Severity::Medium;
        finding.container.as_mut().expect("it is in one").name = Some(b"web"[..].into());
        let arguments = ["tail"].iter().chain(arguments);
        Only::try_parse_from(arguments).expect("they are right").filter.admits(&finding)
    }

    /// How many lines are shown of those with these arguments.
    fn shown(lines: &[Line], arguments: &[&str], json: bool) -> usize {
        let filter = Only::try_parse_from(["tail"].iter().chain(arguments)).expect("they are right").filter;
        let (mut out, mut sessions) = (Vec::new(), Sessions(Recent::new(MOST_SESSIONS)));
        for line in lines {
            let line = crate::output::json::line(line);
            show(&mut out, &line, &filter, &mut sessions, json, false).expect("memory takes it");
        }
        out.iter().filter(|byte| **byte == b'\n').count()
    }

    #[test]
    fn a_session_is_shown_when_it_begins_and_ends_and_when_it_gets_worse() {
        // These are the shell, the session, a change, the session again, and the notice of its end.
        let mut lines = samples::session(b"sh");
        assert_eq!((lines.len(), shown(&lines, &[], true), shown(&lines, &[], false)), (5, 5, 4));
        assert_eq!(shown(&lines, &["--severity", "critical"], false), 0);
        assert_eq!(shown(&lines, &["--finding", "session"], false), 2);
        let Line::Finding(last) = &mut lines[3] else { panic!("no finding") };
        last.severity = Severity::Critical;
        assert_eq!(shown(&lines, &[], false), 5);
    }

    #[test]
    fn a_finding_must_pass_every_filter() {
        let prefix = &samples::ID[..12];
        for admitted in [
            &[][..],
            &["--severity", "medium"],
            &["--severity", "info"],
            &["--finding", "shell_in_container"],
            &["--finding", "image_write", "--finding", "shell_in_container"],
            &["--container", prefix],
            &["--container", samples::ID],
            &["--container", "web"],
            &["--container", "other", "--container", "web", "--severity", "low"],
        ] {
            assert!(admits(admitted), "{admitted:?}");
        }
        for refused in [
            &["--severity", "high"][..],
            &["--finding", "image_write"],
            &["--container", "we"],
            &["--container", &prefix[1..]],
            &["--container", "web", "--severity", "critical"],
            &["--container", "web", "--finding", "image_write"],
        ] {
            assert!(!admits(refused), "{refused:?}");
        }
    }
}
