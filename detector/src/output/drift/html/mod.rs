//! Pages of HTML that need nothing else: no script, no picture, and a policy that forbids the browser to load or run
//! anything. Everything that is not this module's own is escaped twice: for a person, and for HTML.

mod containers;
mod replicas;

pub(crate) use containers::page;
pub(crate) use replicas::page as page_of_replicas;

use super::super::fit::Run;
use super::super::terminal::safe;
use super::moment;
use crate::finding::{Severity, Time};

/// How a page looks.
const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:80em;padding:0 1em;\
    color:#1c1c1c;background:#fff}h1{font-size:1.5em}h2{font-size:1.15em;margin:2.2em 0 .4em;border-top:1px solid #ddd;\
    padding-top:1em}h1,h2,p{overflow-wrap:anywhere}table{border-collapse:collapse;width:100%;margin:.4em 0 1.2em}\
    th,td{text-align:left;vertical-align:top;padding:.25em .9em .25em 0;border-bottom:1px solid #eee}\
    th{font-weight:600}td:first-child,td:nth-child(n+3),td:last-child{min-width:8em;overflow-wrap:anywhere}\
    td:last-child{min-width:15em}td.note{width:8em}time{white-space:nowrap}.note,summary{color:#666}\
    .drifted,.high,.critical{color:#b00020;font-weight:600}.medium,.unwatched,.caution{color:#8a5a00}a{color:inherit}\
    @media(max-width:45em){table,tbody,tr{display:block}tr{padding:.3em 0;border-bottom:1px solid #eee}\
    th,td{display:inline;border:0}td:last-child{display:block}td.note+td{display:inline}}\
    @media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}h2{border-color:#444}\
    tr,th,td{border-color:#333}.note,summary{color:#999}.drifted,.high,.critical{color:#ff6b7d}\
    .medium,.unwatched,.caution{color:#e0a83c}}";
/// The SHA-256 of the style in base64, by which a page's policy allows it.
const STYLE_SHA256: &str = "3P67Zind7gCMQQeiaf0h1XgGyvaRURex2WdoCjR82Yk=";

/// A page, or its beginning.
struct Page(String);

impl Page {
    /// The beginning of a page with this title about what is known at this time.
    fn begin(title: &str, degraded: &[String], now: Time) -> Self {
        let mut page = Self(format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
            <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
            style-src 'sha256-{STYLE_SHA256}'; base-uri 'none'; form-action 'none'\">\n\
            <meta name=\"referrer\" content=\"no-referrer\">\n\
            <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
            <style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        ));
        page.note(&format!("What detector {} knew at {}. Times are UTC.", env!("CARGO_PKG_VERSION"), moment(now)));
        for reason in degraded {
            let text = format!("Something may be missing here, because the detector is degraded: {reason}");
            page.paragraph("caution", &text);
        }
        page
    }

    fn note(&mut self, text: &str) {
        self.paragraph("note", text);
    }

    fn paragraph(&mut self, class: &str, text: &str) {
        self.0.push_str(&format!("<p class=\"{class}\">{}</p>\n", escaped(text)));
    }

    /// What is said below a table with marks, if it has some.
    fn mark(&mut self, is_marked: bool) {
        if is_marked {
            self.note("* There can be more than what is known, for the reasons below.");
        }
    }

    /// Begins a section with this heading, to which [links](link) with this name lead.
    fn section(&mut self, name: &str, heading: &str) {
        self.0.push_str(&format!("<h2 id=\"{name}\">{}</h2>\n", escaped(heading)));
    }

    /// A table of facts, each with a word for it and the class of what it says.
    fn facts<'a>(&mut self, facts: impl IntoIterator<Item = (&'a str, Option<&'a str>, String)>) {
        self.0.push_str("<table>\n");
        for (label, class, html) in facts {
            let class = class.map_or_else(String::new, |class| format!(" class=\"{class}\""));
            self.0.push_str(&format!("<tr><td class=\"note\">{label}</td><td{class}>{html}</td></tr>\n"));
        }
        self.0.push_str("</table>\n");
    }

    /// A table with these heads.
    fn table<const N: usize>(&mut self, heads: [&str; N], rows: impl IntoIterator<Item = [String; N]>) {
        let cells = |tag: &str, cells: &[&str]| {
            let cells: String = cells.iter().map(|cell| format!("<{tag}>{cell}</{tag}>")).collect();
            format!("<tr>{cells}</tr>\n")
        };
        self.0.push_str("<table>\n");
        self.0.push_str(&cells("th", &heads));
        for row in rows {
            self.0.push_str(&cells("td", &row.each_ref().map(String::as_str)));
        }
        self.0.push_str("</table>\n");
    }

    /// What is shown only to those who open it, by what is said of it.
    fn fold(&mut self, said: &str, inside: impl FnOnce(&mut Self)) {
        self.0.push_str(&format!("<details>\n<summary>{}</summary>\n", escaped(said)));
        inside(self);
        self.0.push_str("</details>\n");
    }

    fn end(mut self) -> String {
        self.0.push_str("</body>\n</html>\n");
        self.0
    }
}

fn link(name: &str, text: &str) -> String {
    format!("<a href=\"#{name}\">{}</a>", escaped(text))
}

/// HTML of this class.
fn classed(class: &str, html: &str) -> String {
    format!("<span class=\"{class}\">{html}</span>")
}

/// A moment that is not split in two.
fn time(time: Time) -> String {
    format!("<time>{}</time>", moment(time))
}

fn severity(severity: Severity) -> String {
    classed(severity.name(), severity.name())
}

/// The first run, and the others as notes if they are such.
fn text(runs: &[Run]) -> String {
    let cell = |run: &Run| match run.text.starts_with('·') {
        true => classed("note", &escaped(&run.text)),
        false => escaped(&run.text),
    };
    runs.iter().map(cell).collect::<Vec<_>>().join(" ")
}

/// Text that a browser only shows.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in safe(text).chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The hash of the style that the policy allows, in hexadecimal digits.
    pub(crate) fn allowed() -> String {
        const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let digits = STYLE_SHA256.trim_end_matches('=').chars().map(|digit| DIGITS.find(digit).expect("it is base64"));
        let bits: String = digits.map(|digit| format!("{digit:06b}")).collect();
        let bytes = bits.as_bytes().chunks_exact(8).map(|bits| std::str::from_utf8(bits).expect("they are digits"));
        bytes.map(|bits| format!("{:02x}", u8::from_str_radix(bits, 2).expect("it is binary"))).collect()
    }
}
