//! `detector tail`: shows findings live.

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, RecvTimeoutError, SendError, SyncSender};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::ColorChoice;
use jiff::Timestamp;
use jiff::civil::Date;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::arguments::{Runtimes, Socket, is_coloured, kind_parser, node_name, severity_parser};
use super::failure::{Exit, Failure};
use super::follow::{Input, follow, follow_log, interrupted_alone};
use super::history::{History, Since};
use super::{completion, console, interrupt};
use crate::client::{self, Stream};
use crate::daemon::hub::Hub;
use crate::daemon::watch::{self, Watch};
use crate::finding::{Container, Kind, Line, Loss, Node, Notice, NoticeEvent, Severity, Time};
use crate::near;
use crate::output::formats::Format;
use crate::output::health;
use crate::output::live::Live;
use crate::output::screen::Size;
use crate::output::template::{Invalid, Template};
use crate::output::terminal::{Look, first_process};
use crate::output::times::Times;
use crate::policy::selection::{self, is_one_of};
use crate::policy::{Pattern, Policy};
use crate::redact::Redactor;
use crate::runtime;
use crate::sensor;

/// How long the first act of a session waits for the session's finding.
const HOLD: Duration = Duration::from_millis(200);
/// How many lines can wait to be shown. Further ones wait in the daemon, which counts those that it has to drop.
const QUEUE: usize = 256;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How findings are shown: compact (in columns that fit the terminal, with long paths and commands shortened in the
    /// middle), wide (on one line each, whole), json (nothing is hidden but what the filters exclude), ocsf, ecs, falco
    /// (like json, in the formats of SIEMs) or template=TEXT (TEXT with keys of the JSON lines in braces,
    /// such as '{time} {severity} {container.name} {file.path}')
    #[arg(short, long, value_name = "FORM", default_value = "compact")]
    output: Form,
    /// The same as `-o json`
    #[arg(long, hide = true, conflicts_with = "output")]
    json: bool,
    #[command(flatten)]
    filter: Filter,
    /// Show first what the log of the daemon has since then: how long ago, such as 10m, 2h or 1d, or a time such as
    /// 2026-11-28T09:30:00Z
    #[arg(long, value_name = "AGO|TIME")]
    since: Option<Since>,
    /// How times are shown to a person: utc, local (as TZ says, or this host), or relative (how much later than the
    /// line before)
    #[arg(long, value_name = "HOW", default_value = "utc", value_enum)]
    time: Shown,
    #[command(flatten)]
    socket: Socket,
    /// When to use colours; `auto` uses them on a terminal, as far as `NO_COLOR`, `CLICOLOR` and `CLICOLOR_FORCE` allow
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = ColorChoice::Auto)]
    color: ColorChoice,
}

/// How times are shown.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Shown {
    Utc,
    Local,
    Relative,
}

impl From<Shown> for Times {
    fn from(shown: Shown) -> Self {
        match shown {
            Shown::Utc => Self::Utc,
            Shown::Local => Self::Local,
            Shown::Relative => Self::After(None),
        }
    }
}

/// How findings are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// In columns that fit the terminal, with long paths and commands shortened in the middle.
    Compact,
    /// On one line each, whole.
    Wide,
    /// For a program, one line each.
    Lines(Lines),
}

/// Lines for a program.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Lines {
    /// As the daemon sends them, unchanged, so that nothing of a newer daemon is lost. Nothing is hidden but what the
    /// filters exclude.
    Json,
    /// The same in another format.
    Converted(Format),
    /// As this template says.
    Template(Template),
}

impl FromStr for Form {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const KNOWN: [&str; 7] = ["compact", "wide", "json", "ocsf", "ecs", "falco", "template=TEXT"];
        match text {
            "compact" => Ok(Self::Compact),
            "wide" => Ok(Self::Wide),
            "json" => Ok(Self::Lines(Lines::Json)),
            "template" => Err("write the template after it: -o 'template={time} {severity} {message}'".to_owned()),
            _ => match (text.strip_prefix("template="), text.parse()) {
                (Some(template), _) => {
                    let template: Result<Template, Invalid> = template.parse();
                    template.map(|template| Self::Lines(Lines::Template(template))).map_err(|wrong| wrong.to_string())
                }
                (None, Ok(format)) => Ok(Self::Lines(Lines::Converted(format))),
                (None, Err(_)) => Err(near::hint(text, &KNOWN)),
            },
        }
    }
}

/// Selects the findings to show, and the ends of sessions. Other notices are always shown, except heartbeats and those
/// about what has become known later.
#[derive(Debug, Default, clap::Args)]
struct Filter {
    /// Show only findings of this container, given by its name or the beginning of its id. Can be given more than once
    #[arg(long, value_name = "ID|NAME", add = completion::containers())]
    container: Vec<String>,
    /// Show only findings of pods with this name, a pattern such as 'web-*'. Can be given more than once
    #[arg(long, value_name = "PATTERN", add = completion::pods())]
    pod: Vec<Pattern>,
    /// Show only findings of pods in this namespace, a pattern. Can be given more than once
    #[arg(long, value_name = "PATTERN", add = completion::namespaces())]
    namespace: Vec<Pattern>,
    /// Show only findings of containers of this image, a pattern of its name or digest. Can be given more than once
    #[arg(long, value_name = "PATTERN")]
    image: Vec<Pattern>,
    /// Show only this session, given by its mark in the view (the id of its first process) or by its `id`. Can be given
    /// more than once
    #[arg(long, value_name = "MARK|ID")]
    session: Vec<String>,
    /// Show only findings of this kind. Can be given more than once
    #[arg(long, value_name = "KIND", value_parser = kind_parser())]
    finding: Vec<Kind>,
    /// Show only findings of at least this severity [default: low]
    #[arg(long, value_name = "MIN", value_parser = severity_parser())]
    severity: Option<Severity>,
    /// Show also findings of severity info, what becomes known later (`container_info`, `file_hash`), and heartbeats
    #[arg(long, conflicts_with = "severity")]
    all: bool,
}

/// Whether a line is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Shown,
    /// It is about another container or session, or of another kind.
    Unwanted,
    /// Its severity is too low.
    Low,
    /// It is about what has become known later, or a heartbeat.
    Info,
}

/// What a line is about, as far as it can be filtered.
struct About<'a> {
    severity: Severity,
    kind: Option<Kind>,
    container: Option<&'a Container>,
    session: Option<&'a str>,
}

impl Filter {
    fn fate(&self, line: &Line) -> Fate {
        match line {
            Line::Finding(finding) => self.fate_of(&About {
                severity: finding.severity,
                kind: Some(finding.finding),
                container: finding.container.as_ref(),
                session: finding.session.as_deref(),
            }),
            Line::Notice(Notice { event: NoticeEvent::SessionEnded { severity, container, session, .. }, .. }) => self
                .fate_of(&About {
                    severity: *severity,
                    kind: Some(Kind::Session),
                    container: Some(container),
                    session: Some(session),
                }),
            Line::Notice(Notice {
                event: NoticeEvent::ContainerInfo { container } | NoticeEvent::FileHash { container, .. },
                ..
            }) => {
                let about =
                    About { severity: Severity::Critical, kind: None, container: Some(container), session: None };
                match self.fate_of(&about) {
                    Fate::Shown if !self.all => Fate::Info,
                    fate => fate,
                }
            }
            Line::Notice(Notice { event: NoticeEvent::Heartbeat { .. }, .. }) if !self.all => Fate::Info,
            Line::Notice(_) => Fate::Shown,
        }
    }

    fn fate_of(&self, about: &About<'_>) -> Fate {
        let is_kind = about.kind.is_none_or(|kind| self.finding.is_empty() || self.finding.contains(&kind));
        let is_session = self.session.is_empty()
            || about.session.is_some_and(|session| self.session.iter().any(|wanted| is_session(session, wanted)));
        if !is_kind || !is_session || !self.wants(about.container) {
            Fate::Unwanted
        } else if about.severity < self.least() {
            Fate::Low
        } else {
            Fate::Shown
        }
    }

    /// Whether a container, or the host, is one of those that were asked for.
    fn wants(&self, container: Option<&Container>) -> bool {
        let is_one = |list: &[String], container| list.iter().any(|wanted| is_container(container, wanted));
        (self.container.is_empty() || container.is_some_and(|container| is_one(&self.container, container)))
            && is_one_of(&self.pod, container.and_then(selection::pod_name))
            && is_one_of(&self.namespace, container.and_then(selection::namespace))
            && is_one_of(&self.image, container.into_iter().flat_map(selection::image_names))
    }

    fn least(&self) -> Severity {
        self.severity.unwrap_or(if self.all { Severity::Info } else { Severity::Low })
    }

    /// Which findings are not shown because of their severity.
    fn low(&self) -> String {
        match self.least() {
            Severity::Low => "findings of severity info".to_owned(),
            least => format!("findings below {least}"),
        }
    }

    /// What is not shown without being asked for.
    fn note(&self) -> String {
        if self.all {
            return "nothing is hidden".to_owned();
        }
        let low = if self.least() == Severity::Info { String::new() } else { self.low() + ", " };
        format!("not shown: {low}container_info, file_hash, heartbeat (--all shows everything)")
    }
}

fn is_container(container: &Container, wanted: &str) -> bool {
    container.id.as_ref().is_some_and(|id| id.as_str().starts_with(wanted))
        || container.name.as_ref().is_some_and(|name| name.as_str() == wanted)
}

/// Whether a session has this id, or its first process has it. In the view, `#` is before that.
fn is_session(session: &str, wanted: &str) -> bool {
    let mark = wanted.strip_prefix('#').unwrap_or(wanted);
    session == wanted || first_process(session).is_some_and(|pid| mark.parse() == Ok(pid))
}

/// Where the lines come from.
enum Source {
    Daemon(Stream, PathBuf),
    /// The log of the daemon at this socket, and then its stream.
    Logged(Box<History>, PathBuf),
    Private(Arc<Hub>, Receiver<Bytes>),
}

impl Source {
    /// Connects to the daemon. If none is running and no socket was named, starts a private sensor.
    fn open(socket: &Socket, since: Option<Since>) -> Result<(Self, Option<Watch>), Failure> {
        let path = socket.path();
        if let Some(since) = since {
            return Ok((Self::Logged(Box::new(History::open(&path, since)?), path), None));
        }
        match client::tail(&path) {
            Ok(stream) => Ok((Self::Daemon(stream, path), None)),
            Err(error @ client::Error::NotRunning(_)) if socket.path.is_none() => match sensor::check_privileges() {
                Ok(()) => Self::private(),
                Err(_) => Err(Failure::new(Exit::NotReady, format_args!("{error}, or run this as root"))),
            },
            Err(error) => Err(error.into()),
        }
    }

    fn private() -> Result<(Self, Option<Watch>), Failure> {
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
            is_counting: true,
            policy: Policy::default(),
            shows_suppressed: false,
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
        Ok((Self::Private(hub, lines), Some(watch)))
    }

    /// Sends the lines until there will be no more, or nobody wants them. When the daemon stops, waits for another one.
    fn feed(self, inputs: &SyncSender<Input>) -> Result<(), SendError<Input>> {
        match self {
            Self::Daemon(stream, path) => follow(stream, &path, inputs, |_| true),
            Self::Logged(history, path) => follow_log(*history, &path, inputs),
            Self::Private(hub, mut lines) => loop {
                let line = match lines.blocking_recv() {
                    Ok(line) => line,
                    Err(RecvError::Lagged(missed)) => hub.loss_line(Loss::Client, missed),
                    Err(RecvError::Closed) => {
                        return inputs.send(Input::End(Failure::new(
                            Exit::Failure,
                            "the private sensor ended unexpectedly; this is a bug: report it with the messages above",
                        )));
                    }
                };
                inputs.send(Input::Line(line.into()))?;
            },
        }
    }
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let (source, _watch) = Source::open(&args.socket, args.since)?;
    let (sender, inputs) = mpsc::sync_channel(QUEUE);
    let is_heard = Arc::new(AtomicBool::new(false));
    let tell_end = {
        let sender = sender.clone();
        move || drop(sender.send(Input::Interrupted))
    };
    interrupt::feed_and_catch(move || drop(source.feed(&sender)), tell_end, Arc::clone(&is_heard))?;
    let out = io::BufWriter::new(io::stdout().lock());
    let times = args.time.into();
    let person = |out, columns| {
        let look = Look { columns, color: is_coloured(args.color), times };
        Out::Person(Box::new(Live::new(out, look)), CONSOLE)
    };
    let out = match if args.json { Form::Lines(Lines::Json) } else { args.output } {
        Form::Lines(lines) => Out::Program(out, lines),
        Form::Wide => person(out, None),
        Form::Compact => person(out, Some(console::columns())),
    };
    let today = matches!(out, Out::Person(..)).then(|| times.day(Time(Timestamp::now())));
    let shown = View { day: today, times, ..View::new(args.filter, out) }.run(&inputs);
    is_heard.store(true, Relaxed);
    shown
}

/// Where the lines are shown.
enum Out<W> {
    /// For a program.
    Program(W, Lines),
    /// To a person, who has this console.
    Person(Box<Live<W>>, Console),
}

/// What is asked about a console each time that something is shown, because a person can resize it.
#[derive(Clone, Copy)]
struct Console {
    columns: fn() -> usize,
    size: fn() -> Option<Size>,
}

/// That of this program.
const CONSOLE: Console = Console { columns: console::columns, size: console::size };

impl Console {
    fn fit<W: Write>(self, live: &mut Live<W>) {
        live.set_columns((self.columns)());
        live.set_size((self.size)());
    }
}

/// What is shown.
struct View<W> {
    filter: Filter,
    out: Out<W>,
    hidden: Hidden,
    /// Whether the daemon has said that it stops.
    has_said_goodbye: bool,
    /// Since when there is no daemon.
    alone: Option<Instant>,
    /// The day of the last line that was shown, as the times that are shown have none. `None` if it is not told.
    day: Option<Date>,
    /// How times are shown.
    times: Times,
}

/// How many lines were not shown.
#[derive(Debug, Default)]
struct Hidden {
    low: u64,
    info: u64,
    unwanted: u64,
}

impl<W: Write> View<W> {
    fn new(mut filter: Filter, out: Out<W>) -> Self {
        // A program has its own filters.
        filter.all |= matches!(out, Out::Program(_, Lines::Json | Lines::Converted(_)));
        Self {
            filter,
            out,
            hidden: Hidden::default(),
            has_said_goodbye: false,
            alone: None,
            day: None,
            times: Times::Utc,
        }
    }

    /// Shows what comes until the end.
    fn run(&mut self, inputs: &mpsc::Receiver<Input>) -> Result<(), Failure> {
        match self.show_all(inputs) {
            // The reader has all it wanted.
            Err(Ended::Unwritable(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(Ended::Unwritable(error)) => Err(error.into()),
            Err(Ended::Failed(failure)) => Err(failure),
            Ok(()) => Ok(()),
        }
    }

    fn show_all(&mut self, inputs: &mpsc::Receiver<Input>) -> Result<(), Ended> {
        if matches!(self.out, Out::Person(..)) {
            self.remark(self.filter.note())?;
        }
        // Until when lines wait.
        let mut until = None;
        loop {
            let input = match until {
                None => inputs.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(until) => inputs.recv_timeout(Instant::saturating_duration_since(&until, Instant::now())),
            };
            match input {
                Ok(input) => {
                    if let Some(end) = self.take(input)? {
                        self.release()?;
                        self.sum_up()?;
                        return end.map_err(Ended::Failed);
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.release()?,
                Err(RecvTimeoutError::Disconnected) => return Ok(self.release()?),
            }
            let is_waiting = matches!(&self.out, Out::Person(live, _) if live.is_waiting());
            until = is_waiting.then(|| until.unwrap_or_else(|| Instant::now() + HOLD));
        }
    }

    /// Takes an input. Returns how the view ends, if it does.
    fn take(&mut self, input: Input) -> io::Result<Option<Result<(), Failure>>> {
        match input {
            Input::Line(line) => self.show(&line)?,
            Input::Stopped => {
                self.release()?;
                self.alone = Some(Instant::now());
                self.remark(health::stopped(self.has_said_goodbye))?;
            }
            Input::Degraded(notice) => match &mut self.out {
                Out::Program(..) => self.remark("the daemon is degraded; `detector status` says why")?,
                Out::Person(live, console) => {
                    console.fit(live);
                    live.show(Line::Notice(*notice))?;
                }
            },
            Input::Remark(text) => {
                self.release()?;
                self.remark(text)?;
            }
            Input::Back => {
                self.has_said_goodbye = false;
                let gap = self.alone.take().map_or(Duration::ZERO, |since| since.elapsed());
                self.remark(health::back(gap.as_secs_f32()))?;
            }
            Input::Interrupted if self.alone.is_some() => {
                return Ok(Some(Err(interrupted_alone())));
            }
            Input::Interrupted => return Ok(Some(Ok(()))),
            Input::End(failure) => return Ok(Some(Err(failure))),
        }
        Ok(None)
    }

    /// Shows a line, or counts it as hidden.
    fn show(&mut self, line: &[u8]) -> io::Result<()> {
        let parsed = match (serde_json::from_slice::<Line>(line), &mut self.out) {
            (Ok(parsed), _) => parsed,
            (Err(_), Out::Program(out, Lines::Json)) => return out.write_all(line).and_then(|()| out.flush()),
            (Err(error), out) => {
                if let Out::Person(live, _) = out {
                    live.set_size(None);
                }
                warn_of_unknown(error);
                return Ok(());
            }
        };
        if let Line::Notice(Notice { event, .. }) = &parsed {
            self.has_said_goodbye = matches!(event, NoticeEvent::Stopped { .. });
        }
        let fate = self.filter.fate(&parsed);
        if fate == Fate::Shown {
            self.note_day(time(&parsed))?;
        }
        match &mut self.out {
            Out::Program(out, lines) if fate == Fate::Shown => {
                let text = match lines {
                    Lines::Json => Bytes::copy_from_slice(line),
                    Lines::Converted(format) => match format.convert(line) {
                        Ok(converted) => converted,
                        Err(error) => {
                            warn_of_unknown(error);
                            return Ok(());
                        }
                    },
                    Lines::Template(template) => template.line(&serde_json::from_slice(line)?).into(),
                };
                return out.write_all(&text).and_then(|()| out.flush());
            }
            Out::Program(..) => {}
            Out::Person(live, console) => {
                // What is shown already must not stay as it was.
                if fate == Fate::Shown || fate == Fate::Low && live.has_told(&parsed) {
                    console.fit(live);
                    return live.show(parsed);
                }
            }
        }
        match fate {
            Fate::Low => self.hidden.low += 1,
            Fate::Info => self.hidden.info += 1,
            Fate::Unwanted => self.hidden.unwanted += 1,
            Fate::Shown => {}
        }
        Ok(())
    }

    /// Says from which day on lines are shown, if it is another one.
    fn note_day(&mut self, time: Time) -> io::Result<()> {
        let day = self.times.day(time);
        if self.day.is_none_or(|before| before == day) {
            return Ok(());
        }
        self.day = Some(day);
        self.release()?;
        self.remark(format_args!("{day} ({})", self.times.zone_name(time)))
    }

    /// Shows the lines that wait.
    fn release(&mut self) -> io::Result<()> {
        let Out::Person(live, console) = &mut self.out else { return Ok(()) };
        console.fit(live);
        live.release()
    }

    /// Says how many lines were not shown.
    fn sum_up(&mut self) -> io::Result<()> {
        let Hidden { low, info, unwanted } = self.hidden;
        let low_ones = self.filter.low();
        let parts = [
            (low, format!("{low} about {low_ones}")),
            (info, format!("{info} container_info, file_hash or heartbeat")),
            (unwanted, format!("{unwanted} about other containers or sessions, or of other kinds")),
        ];
        let parts: Vec<_> = parts.into_iter().filter(|(count, _)| *count > 0).map(|(_, part)| part).collect();
        if parts.is_empty() { Ok(()) } else { self.remark(format_args!("lines not shown: {}", parts.join(", "))) }
    }

    /// Says something about the view itself. JSON is for a program, so there a person reads standard error.
    fn remark(&mut self, text: impl fmt::Display) -> io::Result<()> {
        match &mut self.out {
            Out::Program(..) => {
                // Standard error may be closed.
                let _ = writeln!(io::stderr(), "detector: {text}");
                Ok(())
            }
            Out::Person(live, console) => {
                console.fit(live);
                live.remark(&text.to_string())
            }
        }
    }
}

fn time(line: &Line) -> Time {
    match line {
        Line::Finding(finding) => finding.time,
        Line::Notice(notice) => notice.time,
    }
}

fn warn_of_unknown(why: impl fmt::Display) {
    tracing::warn!("cannot decode a line from the daemon; use the same version of detector for both: {why}");
}

/// Why the view ended, unless somebody wanted it to.
enum Ended {
    Unwritable(io::Error),
    Failed(Failure),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Unwritable(error)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::detect::samples;
    use crate::event::{Event, Origin};
    use crate::finding::Sha256;

    #[derive(Debug, Parser)]
    struct Only {
        #[command(flatten)]
        filter: Filter,
    }

    fn filter(arguments: &[&str]) -> Filter {
        Only::try_parse_from(["tail"].iter().chain(arguments)).expect("they are right").filter
    }

    fn fate(arguments: &[&str]) -> Fate {
        let shell = samples::exec(Origin::Entered, "/bin/busybox", &["sh"]);
        let mut finding = samples::found(Event::Exec(Box::new(shell))).expect("it is a shell");
        finding.severity = Severity::Medium;
        finding.container.as_mut().expect("it is in one").name = Some(b"web"[..].into());
        filter(arguments).fate(&Line::Finding(Box::new(finding)))
    }

    fn input(line: &Line) -> Input {
        Input::Line(crate::output::json::line(line).to_vec())
    }

    /// What is shown, and how the view ends.
    fn view(inputs: Vec<Input>, arguments: &[&str], json: bool) -> (Vec<String>, Result<(), Failure>) {
        let mut out = Vec::new();
        let (sender, receiver) = mpsc::channel();
        inputs.into_iter().for_each(|input| sender.send(input).expect("there is a receiver"));
        drop(sender);
        let console = Console { columns: || 80, size: || None };
        let shown = if json {
            Out::Program(&mut out, Lines::Json)
        } else {
            Out::Person(Box::new(Live::new(&mut out, Look::default())), console)
        };
        let ended = View::new(filter(arguments), shown).run(&receiver);
        (String::from_utf8(out).expect("it is text").lines().map(str::to_owned).collect(), ended)
    }

    #[test]
    fn a_form_is_one_of_those_that_are_known() {
        let template: Form = "template={time} {severity}".parse().expect("it is right");
        assert_eq!(template, Form::Lines(Lines::Template("{time} {severity}".parse().expect("it is right"))));
        assert_eq!("ocsf".parse(), Ok(Form::Lines(Lines::Converted(Format::Ocsf))));
        assert_eq!("wide".parse(), Ok(Form::Wide));
        let refused = |text: &str| text.parse::<Form>().expect_err("it is wrong");
        assert_eq!(refused("wdie"), "did you mean `wide`?");
        assert_eq!(refused("yaml"), "use one of compact, wide, json, ocsf, ecs, falco, template=TEXT");
        assert_eq!(refused("template={sverity}"), "unknown key `sverity`; did you mean `severity`?");
        assert!(refused("template").starts_with("write the template after it"));
    }

    #[test]
    fn lines_are_converted_as_they_come() {
        let lines = samples::session(b"sh");
        let (mut out, (sender, receiver)) = (Vec::new(), mpsc::channel());
        lines.iter().for_each(|line| sender.send(input(line)).expect("there is a receiver"));
        sender.send(Input::Line(b"{\"event\":\"of_the_future\"}\n".to_vec())).expect("there is a receiver");
        drop(sender);
        View::new(filter(&[]), Out::Program(&mut out, Lines::Converted(Format::Falco)))
            .run(&receiver)
            .expect("memory takes it");
        let wanted: Vec<_> = lines.iter().map(|line| Format::Falco.convert(&crate::output::json::line(line))).collect();
        assert_eq!(out, wanted.into_iter().collect::<Result<Vec<_>, _>>().expect("they are lines").concat());
    }

    #[test]
    fn a_template_is_filled_in_for_what_passes_the_filter() {
        let mut lines = samples::session(b"sh");
        let heartbeat = NoticeEvent::Heartbeat { seq: 7, sha256: Sha256([0; 32]) };
        lines.push(Line::Notice(Notice::now("node-1".into(), heartbeat)));
        let (mut out, (sender, receiver)) = (Vec::new(), mpsc::channel());
        lines.iter().for_each(|line| sender.send(input(line)).expect("there is a receiver"));
        drop(sender);
        let template = "{finding} {file.path}".parse().expect("it is right");
        View::new(filter(&["--severity", "medium"]), Out::Program(&mut out, Lines::Template(template)))
            .run(&receiver)
            .expect("memory takes it");
        let text = String::from_utf8(out).expect("it is text");
        assert_eq!(text, "shell_in_container /bin/dash\nsession -\nimage_write /sh\nsession -\n- -\n");
    }

    /// How many of these lines are shown.
    fn shown(lines: &[Line], arguments: &[&str], json: bool) -> usize {
        let (text, _) = view(lines.iter().map(input).collect(), arguments, json);
        text.len() - usize::from(!json)
    }

    #[test]
    fn a_session_is_shown_when_it_begins_and_ends_and_when_it_gets_worse() {
        // These are the shell, the session, a change, the session again, and the notice of its end.
        let mut lines = samples::session(b"sh");
        assert_eq!((lines.len(), shown(&lines, &[], true), shown(&lines, &[], false)), (5, 5, 4));
        assert_eq!(shown(&lines, &["--severity", "critical"], false), 0);
        assert_eq!(shown(&lines, &["--finding", "session"], false), 2);
        let Line::Finding(last) = &mut lines[3] else { panic!("no finding") };
        last.summary.as_mut().expect("a session has it").ended = None;
        assert_eq!(shown(&lines, &[], false), 5);
    }

    #[test]
    fn what_is_not_shown_is_counted() {
        let mut lines = samples::session(b"sh");
        let Line::Finding(shell) = &mut lines[0] else { panic!("no finding") };
        shell.severity = Severity::Info;
        let container = Box::new(samples::known_container(b"web"));
        lines.push(Line::Notice(Notice::now("node-1".into(), NoticeEvent::ContainerInfo { container })));
        lines.push(samples::hash(b"x"));
        let heartbeat = NoticeEvent::Heartbeat { seq: 7, sha256: Sha256([0; 32]) };
        lines.push(Line::Notice(Notice::now("node-1".into(), heartbeat)));
        let inputs = || lines.iter().map(input).chain([Input::Interrupted]).collect();
        let ends = |arguments: &[&str], json| {
            let (text, ended) = view(inputs(), arguments, json);
            assert!(ended.is_ok());
            (text.len(), text.first().cloned().expect("there are some"), text.last().cloned().expect("there are some"))
        };
        let (count, first, last) = ends(&[], false);
        assert!(
            first.starts_with("not shown: findings of severity info, container_info, file_hash, heartbeat (--all "),
            "{first}"
        );
        assert_eq!(
            last,
            "lines not shown: 1 about findings of severity info, 3 container_info, file_hash or heartbeat"
        );
        assert_eq!(count, 5);
        let (count, first, last) = ends(&["--severity", "critical", "--finding", "session"], false);
        assert!(
            first.starts_with("not shown: findings below critical, container_info, file_hash, heartbeat (--all"),
            "{first}"
        );
        assert_eq!(
            last,
            "lines not shown: 3 about findings below critical, 3 container_info, file_hash or heartbeat, \
            2 about other containers or sessions, or of other kinds"
        );
        assert_eq!(count, 2);
        let (_, first, last) = ends(&["--severity", "info"], false);
        assert_eq!(first, "not shown: container_info, file_hash, heartbeat (--all shows everything)");
        assert_eq!(last, "lines not shown: 3 container_info, file_hash or heartbeat");
        let (count, first, _) = ends(&["--all"], false);
        assert_eq!((count, first.as_str()), (8, "nothing is hidden"));
        let (count, ..) = ends(&[], true);
        assert_eq!(count, 8);
        assert!(Only::try_parse_from(["tail", "--all", "--severity", "low"]).is_err());
    }

    #[test]
    fn a_person_is_told_the_day_when_another_one_begins() {
        let mut lines = samples::session(b"sh");
        lines.iter_mut().for_each(|line| {
            if let Line::Finding(finding) = line {
                finding.time = Time(Timestamp::UNIX_EPOCH);
            }
        });
        let mut out = Vec::new();
        let (sender, receiver) = mpsc::channel();
        lines.iter().for_each(|line| sender.send(input(line)).expect("there is a receiver"));
        drop(sender);
        let console = Console { columns: || 80, size: || None };
        let shown = Out::Person(Box::new(Live::new(&mut out, Look::default())), console);
        let yesterday = Times::Utc.day(Time(Timestamp::UNIX_EPOCH)).yesterday().expect("there was one");
        let mut view = View { day: Some(yesterday), ..View::new(filter(&[]), shown) };
        view.run(&receiver).expect("memory takes it");
        drop(view);
        let text = String::from_utf8(out).expect("it is text");
        assert_eq!(text.lines().nth(1), Some("1970-01-01 (UTC)"), "{text}");
        assert_eq!(text.matches("1970-01-01").count(), 1, "{text}");
    }

    #[test]
    fn it_waits_for_a_daemon_that_has_stopped() {
        let stopped = Line::Notice(Notice::now("node-1".into(), NoticeEvent::Stopped { reason: "SIGTERM".to_owned() }));
        let lines = samples::session(b"sh");
        let inputs = vec![input(&lines[0]), input(&stopped), Input::Stopped, Input::Back, input(&lines[2])];
        let (text, ended) = view(inputs, &["--all"], false);
        assert!(ended.is_ok());
        assert_eq!(text[3], "the detector stopped; waiting for it");
        assert!(text[4].starts_with("the detector is back after 0.0 s; ") && text.len() == 6, "{text:?}");

        let (text, ended) = view(vec![Input::Stopped, Input::Interrupted], &["--all"], false);
        assert_eq!(ended.expect_err("there is no daemon").exit, Exit::NotReady);
        assert_eq!(text[1..], ["the detector stopped without a word, as when it is killed; waiting for it"]);
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
            assert_eq!(fate(admitted), Fate::Shown, "{admitted:?}");
        }
        for low in [&["--severity", "high"][..], &["--container", "web", "--severity", "critical"]] {
            assert_eq!(fate(low), Fate::Low, "{low:?}");
        }
        for refused in [
            &["--finding", "image_write"][..],
            &["--container", "we"],
            &["--container", &prefix[1..]],
            &["--container", "web", "--finding", "image_write"],
        ] {
            assert_eq!(fate(refused), Fate::Unwanted, "{refused:?}");
        }
    }

    #[test]
    fn pods_images_and_sessions_are_filtered() {
        let mut lines = samples::session(b"sh");
        for line in &mut lines {
            let of = match line {
                Line::Finding(finding) => finding.container.as_mut().expect("it is in one"),
                Line::Notice(Notice { event: NoticeEvent::SessionEnded { container, .. }, .. }) => container,
                Line::Notice(_) => panic!("it is about no container"),
            };
            *of = samples::known_container(b"shop-web");
        }
        let Line::Finding(shell) = &lines[0] else { panic!("no finding") };
        let id = shell.session.clone().expect("it is in one");
        for admitted in [
            &["--pod", "shop-*"][..],
            &["--namespace", "shop-web", "--pod", "other", "--pod", "shop-web"],
            &["--image", "shop-?eb"],
            &["--session", "1234"],
            &["--session", "#1234"],
            &["--session", "7", "--session", &id],
        ] {
            assert_eq!(shown(&lines, admitted, true), 5, "{admitted:?}");
        }
        for refused in [
            &["--pod", "shop"][..],
            &["--namespace", "other", "--pod", "shop-web"],
            &["--image", "shop"],
            &["--session", "123"],
            &["--session", &id[..20]],
        ] {
            assert_eq!(shown(&lines, refused, true), 0, "{refused:?}");
        }
        // What is not in the session, and a container of which no runtime has told anything.
        assert_eq!(fate(&["--session", "1234"]), Fate::Unwanted);
        assert_eq!(fate(&["--pod", "*"]), Fate::Unwanted);
        // What is about no container is said all the same.
        let stopped = NoticeEvent::Stopped { reason: "SIGTERM".to_owned() };
        let stopped = Line::Notice(Notice::now("node-1".into(), stopped));
        assert_eq!(shown(&[stopped], &["--pod", "shop", "--session", "7"], true), 1);
        assert!(Only::try_parse_from(["tail", "--pod", "["]).is_err());
    }
}
