//! Draws the model: the health of the daemon, the containers, and below them the stories.

use clap::builder::styling::{AnsiColor, Color, Effects, Style};
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style;

use super::containers::{Order, Row};
use super::model::Model;
use super::{ago, is_recent};
use crate::finding::Time;
use crate::ledger::page::Verdict;
use crate::output::drift::{differences, image_of, verdict_style};
use crate::output::fit::{self, Run};
use crate::output::health::{self, counted};
use crate::output::terminal::{self, BOLD, CYAN, DIM, GREEN, Look, PLAIN, RED, YELLOW, safe};
use crate::output::times::Times;
use crate::protocol::{DaemonState, Status};

/// The smallest terminal on which everything has its place.
const LEAST_COLUMNS: u16 = 60;
const LEAST_ROWS: u16 = 16;
/// The narrowest width at which images have a column.
const WITH_IMAGE: usize = 72;
/// The narrowest width at which it is said in words what has drifted.
const IN_WORDS: usize = 120;
/// How long lines wait for a forwarder at most until it lags.
const LAG: i64 = 60;
/// How many rows a warning is long at most.
const MOST_ROWS_OF_WARNING: usize = 2;

/// Draws the model as it is now, in colour or not.
pub(crate) fn draw(frame: &mut Frame<'_>, model: &Model, now: Time, color: bool) {
    let area = frame.area();
    let mut canvas = Canvas { buffer: frame.buffer_mut(), area, row: 0, color };
    if area.width < LEAST_COLUMNS || area.height < LEAST_ROWS {
        let why = format!(
            "detector top needs {LEAST_COLUMNS} columns and {LEAST_ROWS} rows; this terminal has {} and {}. Enlarge \
            it, or leave with q.",
            area.width, area.height
        );
        return wrapped(PLAIN, &why, canvas.columns(), usize::MAX).iter().for_each(|row| canvas.row(row));
    }
    header(&mut canvas, model, now);
    table(&mut canvas, model, now);
    if model.has_help {
        help(&mut canvas)
    } else {
        stories(&mut canvas, model)
    }
    canvas.row = area.height - 1;
    canvas.row(&keys(model));
}

/// Where rows are drawn, from above to below.
struct Canvas<'a> {
    buffer: &'a mut Buffer,
    area: Rect,
    /// The next row.
    row: u16,
    color: bool,
}

impl Canvas<'_> {
    fn columns(&self) -> usize {
        self.area.width.into()
    }

    /// How many rows there are between the next one and that of the keys.
    fn left(&self) -> usize {
        usize::from(self.area.height.saturating_sub(self.row + 1))
    }

    /// Draws a row. What does not fit is not drawn.
    fn row(&mut self, runs: &[Run]) {
        let mut at = 0;
        for run in runs.iter().filter(|_| self.row < self.area.height) {
            let (text, left) = (safe(&run.text), usize::from(self.area.width - at));
            let style = if self.color { converted(run.style) } else { style::Style::new() };
            (at, _) = self.buffer.set_stringn(at, self.row, text, left, style);
        }
        self.row += 1;
    }

    /// Draws a row with something at its right end.
    fn row_with(&mut self, mut runs: Vec<Run>, right: Run) {
        let mut left = self.columns().saturating_sub(fit::width(&right.text) + 1);
        for run in &mut runs {
            run.text = if left > 0 { fit::shorten(&run.text, left).into_owned() } else { String::new() };
            left -= fit::width(&run.text);
        }
        runs.push(Run::new(PLAIN, " ".repeat(left + 1)));
        runs.push(right);
        self.row(&runs);
    }
}

fn converted(from: Style) -> style::Style {
    let colour = |color: Option<Color>| match color? {
        Color::Ansi(AnsiColor::Black) => Some(style::Color::Black),
        Color::Ansi(AnsiColor::Red) => Some(style::Color::Red),
        Color::Ansi(AnsiColor::Green) => Some(style::Color::Green),
        Color::Ansi(AnsiColor::Yellow) => Some(style::Color::Yellow),
        Color::Ansi(AnsiColor::Blue) => Some(style::Color::Blue),
        Color::Ansi(AnsiColor::Cyan) => Some(style::Color::Cyan),
        Color::Ansi(AnsiColor::BrightWhite) => Some(style::Color::White),
        _ => None,
    };
    let effects = from.get_effects();
    let mut modifiers = style::Modifier::empty();
    modifiers.set(style::Modifier::BOLD, effects.contains(Effects::BOLD));
    modifiers.set(style::Modifier::DIM, effects.contains(Effects::DIMMED));
    modifiers.set(style::Modifier::REVERSED, effects.contains(Effects::INVERT));
    style::Style { fg: colour(from.get_fg_color()), bg: colour(from.get_bg_color()), ..style::Style::new() }
        .add_modifier(modifiers)
}

/// A text in so many rows at most. What is left out is at its end.
fn wrapped(style: Style, text: &str, columns: usize, most: usize) -> Vec<Vec<Run>> {
    let mut rows: Vec<_> =
        fit::wrap([&Run::new(style, text)], columns, columns).into_iter().map(|row| row.runs).collect();
    if rows.len() > most {
        rows.truncate(most);
        if let Some(last) = rows.last_mut().and_then(|row| row.last_mut()) {
            last.text = fit::shorten(&format!("{} …", last.text), columns).into_owned();
        }
    }
    rows
}

/// The health of the daemon, and whatever reduces what is seen.
fn header(canvas: &mut Canvas<'_>, model: &Model, now: Time) {
    let columns = canvas.columns();
    let clock = Run::new(DIM, format!("{} UTC", now.0.strftime("%H:%M:%S")));
    let who = model
        .status
        .as_ref()
        .map_or_else(|| "detector top".to_owned(), |status| format!("detector {} on {}", status.version, status.node));
    let since = model.status.as_ref().map(|status| format!(" for {}", ago(status.since, now))).unwrap_or_default();
    let events = model.events_per_second.map(|events| format!(", {events} events/s")).unwrap_or_default();
    canvas.row_with(vec![Run::new(BOLD, who), Run::new(PLAIN, since + &events)], clock);
    let (style, verdict) = verdict(model, now);
    wrapped(style, &verdict, columns, MOST_ROWS_OF_WARNING).iter().for_each(|row| canvas.row(row));
    let counts = model.status.iter().flat_map(|status| wrapped(PLAIN, &counts(status), columns, MOST_ROWS_OF_WARNING));
    counts.for_each(|row| canvas.row(&row));
    warnings(canvas, model, now);
}

fn verdict(model: &Model, now: Time) -> (Style, String) {
    if let Some(since) = model.alone {
        let stopped = health::stopped(model.has_said_goodbye);
        return (RED, format!("NOTHING IS SEEN since {}: {stopped}", ago(since, now)));
    }
    let Some(status) = &model.status else { return (DIM, "the daemon is asked how it is".to_owned()) };
    if status.state != DaemonState::Ready {
        return (YELLOW, health::doing(status.state).to_owned());
    }
    let is_lossless = status.counters.skipped == 0 && status.counters.losses.values().all(|count| *count == 0);
    let style = match (status.degraded.is_empty(), is_lossless && model.status_failure.is_none()) {
        (true, true) => GREEN,
        (true, false) => YELLOW,
        (false, _) => RED,
    };
    (style, health::verdict(status))
}

/// What is counted.
fn counts(status: &Status) -> String {
    let findings = format!("findings: {}", health::findings(&status.counters));
    let standing = status.ledger.as_ref().filter(|standing| !standing.is_empty()).map(health::standing);
    let excepted: u64 = status.counters.suppressed.values().sum();
    let excepted = (excepted > 0).then(|| format!("{excepted} acts excepted"));
    let parts: Vec<_> = [Some(findings), standing, excepted].into_iter().flatten().collect();
    parts.join(" · ")
}

/// Whatever reduces what is seen, what matters most first.
fn warnings(canvas: &mut Canvas<'_>, model: &Model, now: Time) {
    let most = usize::from(canvas.area.height) / 4;
    let warnings = all_warnings(model, now);
    let mut rows: Vec<_> = Vec::new();
    for (number, (style, text)) in warnings.iter().enumerate() {
        let warning = wrapped(*style, text, canvas.columns(), MOST_ROWS_OF_WARNING);
        let is_last = number + 1 == warnings.len();
        if rows.len() + warning.len() + usize::from(!is_last) > most {
            let more = format!("and {} more; `detector status` says all", warnings.len() - number);
            rows.push(vec![Run::new(YELLOW, more)]);
            break;
        }
        rows.extend(warning);
    }
    rows.iter().for_each(|row| canvas.row(row));
}

fn all_warnings(model: &Model, now: Time) -> Vec<(Style, String)> {
    let mut all = Vec::new();
    if let (Some(why), None) = (&model.status_failure, model.alone) {
        all.push((RED, format!("what is said above is not of now: {why}")));
    }
    if let Some(lines) = many(model.missed, "line is", "lines are") {
        all.push((RED, format!("{lines} missing here, because this view was too slow; the log has them")));
    }
    if let Some(lines) = many(model.unknown, "line of the daemon was", "lines of the daemon were") {
        all.push((RED, format!("{lines} not understood; use the same version of detector for both")));
    }
    if let Some(why) = &model.ledger_failure {
        all.push((YELLOW, format!("it is not known what has drifted: {why}")));
    }
    let status = model.status.iter().filter(|_| model.alone.is_none());
    all.extend(status.flat_map(|status| told_by(status, now)));
    all
}

/// What a daemon tells that reduces what is seen.
fn told_by(status: &Status, now: Time) -> Vec<(Style, String)> {
    let verdict = health::verdict(status);
    let unsaid = status.degraded.iter().filter(|reason| !verdict.contains(&***reason));
    let mut all: Vec<_> = unsaid.map(|reason| (RED, format!("degraded: {reason}"))).collect();
    all.extend(status.forwarders.iter().filter_map(|forwarder| {
        let lags = |oldest: Time| now.0.duration_since(oldest.0).as_secs() > LAG;
        let is_late = forwarder.failure.is_some() || forwarder.oldest.is_some_and(lags);
        health::forwarder(forwarder).pop().filter(|_| is_late).map(|told| (YELLOW, format!("forwarder {told}")))
    }));
    let unwatched = status.unwatched.iter().filter(|rule| rule.containers > 0);
    all.extend(unwatched.map(|rule| (YELLOW, format!("not watched: {}", health::unwatched(rule)))));
    all
}

/// How many there are, if there are any.
fn many(count: u64, one: &str, more: &str) -> Option<String> {
    counted(usize::try_from(count).unwrap_or(usize::MAX), one, more)
}

/// Where the columns of the table are.
struct Columns {
    name: usize,
    image: Option<usize>,
    drift: usize,
    in_words: bool,
}

const SEVERITY: usize = "critical".len();
const RATE: usize = "/MIN".len();
const OPEN: usize = "OPEN".len();
const LAST: usize = "LAST".len();
const DRIFT: usize = "its image again*".len();

impl Columns {
    fn new(columns: usize) -> Self {
        let rest = columns - 2 - SEVERITY - RATE - OPEN - LAST - 5;
        let in_words = columns >= IN_WORDS;
        let drift = if in_words { rest * 2 / 5 } else { DRIFT };
        let rest = rest - drift;
        let image = (columns >= WITH_IMAGE).then_some((rest - 1) * 2 / 5);
        Self { name: rest - image.map_or(0, |image| image + 1), image, drift, in_words }
    }

    fn row(&self, mark: &str, [severity, name, image, drift, rate, open, last]: [Run; 7]) -> Vec<Run> {
        let image = self.image.map(|width| cell(image, width));
        let left = [Run::new(PLAIN, mark), cell(severity, SEVERITY), cell(name, self.name)].into_iter().chain(image);
        let right = [number(rate, RATE), number(open, OPEN), number(last, LAST)];
        let mut runs: Vec<_> = left.chain([cell(drift, self.drift)]).chain(right).collect();
        runs.iter_mut().skip(1).for_each(|run| run.text.push(' '));
        runs
    }

    fn head(&self) -> Vec<Run> {
        let names = ["SEVERITY", "CONTAINER", "IMAGE", "DRIFT", "/MIN", "OPEN", "LAST"];
        self.row("  ", names.map(|name| Run::new(BOLD, name)))
    }

    fn container(&self, row: &Row, is_chosen: bool, now: Time) -> Vec<Run> {
        let severity = row.severity(now);
        let severity = severity.map_or(Run::new(DIM, "-"), |it| Run::new(terminal::style(it), it.name()));
        let image = self.image(row);
        let name = Run::new(if row.has_ended() { DIM } else { CYAN }, row.name());
        let (rate, open) = (row.per_minute(now), row.open());
        let count = |number: u64| Run::new(if number > 0 { PLAIN } else { DIM }, number.to_string());
        let last = row.last.map_or(Run::new(DIM, "-"), |last| Run::new(recency(last, now), ago(last, now)));
        let drift = self.drift(row);
        let cells = [severity, name, Run::new(DIM, image), drift, count(rate), count(open as u64), last];
        let mut runs = self.row(if is_chosen { "> " } else { "  " }, cells);
        runs.iter_mut().filter(|_| is_chosen).for_each(|run| run.style = run.style.invert());
        runs
    }

    /// The image: without its registry, if there is no room for that.
    fn image(&self, row: &Row) -> String {
        let image = row.container.as_ref().and_then(image_of).unwrap_or_default();
        match image.rsplit_once('/') {
            Some((_, name)) if self.image.is_some_and(|width| fit::width(&image) > width) => name.to_owned(),
            _ => image,
        }
    }

    fn drift(&self, row: &Row) -> Run {
        let Some(page) = &row.page else { return Run::new(DIM, "-") };
        let mark = if row.is_doubtful { "*" } else { "" };
        let (verdict, ended) = (page.verdict(), if row.has_ended() { "ended, " } else { "" });
        let text = match (verdict, self.in_words, page.executed) {
            (Verdict::Drifted, true, _) => {
                format!("{ended}{}{mark}: {}", verdict.words(), differences(page).join(", "))
            }
            (Verdict::Drifted, false, 1..) if ended.is_empty() => {
                format!("{}{mark}, {} executed", row.different(), page.executed)
            }
            (Verdict::Drifted, false, _) => format!("{ended}{}{mark}", row.different()),
            _ => format!("{ended}{}{mark}", verdict.words()),
        };
        Run::new(verdict_style(verdict), text)
    }
}

fn recency(time: Time, now: Time) -> Style {
    if is_recent(time, now) { PLAIN } else { DIM }
}

/// A text in a column of this width.
fn cell(run: Run, width: usize) -> Run {
    let text = fit::shorten(&run.text, width);
    let room = " ".repeat(width.saturating_sub(fit::width(&text)));
    Run::new(run.style, format!("{text}{room}"))
}

/// A number at the right of its column, or as much as fits there.
fn number(run: Run, width: usize) -> Run {
    let text = if run.text.len() > width { format!(">{}", "9".repeat(width - 1)) } else { run.text };
    Run::new(run.style, format!("{text:>width$}"))
}

/// The containers. At most two fifths of what is left are theirs.
fn table(canvas: &mut Canvas<'_>, model: &Model, now: Time) {
    let columns = Columns::new(canvas.columns());
    let rows = model.containers.rows(model.order, now);
    let most = (canvas.left() * 2 / 5).max(4) - 1;
    canvas.row(&columns.head());
    if rows.is_empty() {
        return canvas.row(&[Run::new(DIM, "  no container is known yet")]);
    }
    let is_all = rows.len() <= most && model.containers.left_out == 0;
    let room = if is_all { most } else { most - 1 };
    let chosen = rows.iter().position(|(key, _)| Some(*key) == model.chosen.as_ref());
    let first = chosen.map_or(0, |chosen| (chosen + 1).saturating_sub(room));
    for (key, row) in rows.iter().skip(first).take(room) {
        canvas.row(&columns.container(row, Some(*key) == model.chosen.as_ref(), now));
    }
    if !is_all {
        canvas.row(&[Run::new(DIM, left_out(first, rows.len() - (first + room).min(rows.len()), model))]);
    }
}

/// Which containers are not shown.
fn left_out(above: usize, below: usize, model: &Model) -> String {
    let left_out = model.containers.left_out;
    let parts = [
        (above > 0).then(|| format!("{above} above")),
        (below > 0).then(|| format!("{below} below")),
        (left_out > 0).then(|| format!("{left_out} for which there is no room, see `detector drift`")),
    ];
    format!("  more containers: {}", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

/// The stories, the latest at the bottom.
fn stories(canvas: &mut Canvas<'_>, model: &Model) {
    let chosen = model.chosen.as_ref().filter(|_| model.is_only);
    let of = chosen
        .map(|chosen| model.containers.get(chosen).map_or_else(|| "a container that is gone".to_owned(), Row::name));
    let mut title = vec![Run::new(BOLD, "STORIES")];
    if let Some(name) = of {
        let among = format!(", among the last {} lines", model.stories.len());
        let among = if model.stories.left_out > 0 { among } else { String::new() };
        title.extend([Run::new(CYAN, format!(" of {name} only")), Run::new(DIM, among)]);
    }
    let low = many(model.low, "line", "lines");
    let low = low.map(|lines| format!("{lines} below {} not shown", model.least)).unwrap_or_default();
    canvas.row_with(title, Run::new(DIM, low));
    let look = Look { columns: Some(canvas.columns()), color: canvas.color, times: Times::Utc };
    let most = canvas.left();
    model.stories.rows(chosen, look, most).iter().for_each(|row| canvas.row(row));
}

/// What the columns and the keys are.
fn help(canvas: &mut Canvas<'_>) {
    canvas.row(&[Run::new(BOLD, "HELP")]);
    for text in [
        "SEVERITY  the highest of the last hour",
        "DRIFT     how many paths are not as in the image now, and how many of these were executed;",
        "          * there can be more: `detector drift CONTAINER` says all of it, and why",
        "/MIN      findings of the last minute",
        "OPEN      sessions that last: who came in and is still there",
        "LAST      how long ago something was found or changed",
        "j k, arrows, g G  choose a container; space, Enter  show its stories only, or all again",
        "d r n     order by drift, by rate of findings, by name",
        "? this or the stories; Ctrl-L  draw everything again; q, Esc, Ctrl-C  leave",
    ] {
        if canvas.left() > 0 {
            canvas.row(&[Run::new(PLAIN, text)]);
        }
    }
}

/// The keys, with the order that there is.
fn keys(model: &Model) -> Vec<Run> {
    let order = |order, name: &str| if model.order == order { format!("[{name}]") } else { name.to_owned() };
    let orders = [order(Order::Drift, "d drift"), order(Order::Rate, "r rate"), order(Order::Name, "n name")];
    let only = if model.is_only { "space all" } else { "space only it" };
    vec![Run::new(DIM, format!("j/k choose  {only}  {}  ? help  q leave", orders.join("  ")))]
}
