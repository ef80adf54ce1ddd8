//! The chain of a log's lines: each ends with its number and the hash of the line before, so a line cannot be removed,
//! added or changed without a trace, unless all that follow are made again.
//!
//! [`end`] finds where a log goes on, [`verify`] whether it is whole, [`log`] reads it from file to file while it is
//! written, and [`mod@file`] opens its files.

pub(crate) mod end;
pub(crate) mod file;
pub(crate) mod log;
pub(crate) mod verify;

use bytes::Bytes;
use serde::Deserialize;
use sha2::Digest as _;

use crate::finding::{Link, LoggedLine, Sha256, Time};

/// What comes before the number.
const SEQ: &str = ",\"seq\":";
/// What comes before the hash.
const PREV: &str = ",\"prev\":\"";
/// What comes after it.
const END: &str = "\"}";
/// How long all of that can be, with the 20 digits of the highest number.
pub(crate) const LONGEST_END: usize = SEQ.len() + 20 + PREV.len() + 64 + END.len();

/// The end of a line that is forwarded before the log takes it.
const NOT_DURABLE: &[u8] = b",\"durable\":false}\n";

/// How far a chain has come: the number of its last line, and that line's hash, without the line feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) seq: u64,
    pub(crate) sha256: Sha256,
}

impl Head {
    /// There is no line yet.
    pub(crate) const START: Self = Self { seq: 0, sha256: Sha256([0; 32]) };

    /// The head after this line, which has this number.
    pub(crate) fn after(seq: u64, line: &[u8]) -> Self {
        Self { seq, sha256: Sha256(sha2::Sha256::digest(line).into()) }
    }

    /// The head before a line with this link.
    pub(crate) const fn before(link: Link) -> Self {
        Self { seq: link.seq.saturating_sub(1), sha256: link.prev }
    }

    /// The last line, if there is one.
    pub(crate) fn line(self) -> Option<LoggedLine> {
        (self.seq > 0).then_some(LoggedLine { seq: self.seq, sha256: self.sha256 })
    }

    /// What links the next line to this one.
    fn next(self) -> Link {
        Link { seq: self.seq.saturating_add(1), prev: self.sha256 }
    }

    /// Adds an object with its line feed to the chain. Returns it as it is in the log.
    pub(crate) fn add(&mut self, object: &[u8]) -> Vec<u8> {
        let link = self.next();
        let mut line = [open(object), text(link).as_bytes()].concat();
        *self = Self::after(link.seq, &line);
        line.push(b'\n');
        line
    }
}

/// An object with its line feed that is not in the chain, since the log cannot be written: it says so.
pub(crate) fn not_durable(object: &[u8]) -> Bytes {
    [open(object), NOT_DURABLE].concat().into()
}

/// An object with its line feed, up to its end.
fn open(object: &[u8]) -> &[u8] {
    object.strip_suffix(b"}\n").expect("a line is an object with a line feed")
}

/// The end of a line with this link.
fn text(Link { seq, prev }: Link) -> String {
    format!("{SEQ}{seq}{PREV}{prev}{END}")
}

/// The link of a line, which is without its line feed.
pub(crate) fn link(line: &[u8]) -> Option<Link> {
    let end = &line[line.len().saturating_sub(LONGEST_END)..];
    let start = end.windows(SEQ.len()).rposition(|part| part == SEQ.as_bytes())?;
    let end = str::from_utf8(&end[start..]).ok()?;
    let (seq, prev) = end.strip_prefix(SEQ)?.strip_suffix(END)?.split_once(PREV)?;
    let link = Link { seq: seq.parse().ok()?, prev: prev.parse().ok()? };
    // There is one way only to write it.
    (link.seq > 0 && text(link) == end).then_some(link)
}

/// The time of a line.
pub(crate) fn time(line: &[u8]) -> Option<Time> {
    #[derive(Deserialize)]
    struct Timed {
        time: Time,
    }
    serde_json::from_slice::<Timed>(line).ok().map(|timed| timed.time)
}

/// The beginning of a line, which is without its line feed, up to the link. If it has none, this is what it would be
/// with one: an object that is not closed.
pub(crate) fn members(line: &[u8]) -> &[u8] {
    match link(line) {
        Some(link) => &line[..line.len() - text(link).len()],
        None => line.strip_suffix(b"}").unwrap_or(line),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::detect::samples;
    use crate::finding::Line;
    use crate::output::json;

    /// So many lines of a log that goes on from this head.
    pub(crate) fn lines(head: &mut Head, count: u64) -> Vec<Vec<u8>> {
        (0..count).map(|number| head.add(format!("{{\"event\":\"{number}\"}}\n").as_bytes())).collect()
    }

    /// A log with so many lines.
    pub(crate) fn log(count: u64) -> Vec<Vec<u8>> {
        let mut head = Head::START;
        lines(&mut head, count)
    }

    #[test]
    fn a_line_has_its_number_and_the_hash_of_the_line_before() {
        let mut head = Head::START;
        let first = head.add(b"{\"a\":1}\n");
        let zeros = "0".repeat(64);
        assert_eq!(first, format!("{{\"a\":1,\"seq\":1,\"prev\":\"{zeros}\"}}\n").as_bytes());
        let sha256 = Sha256(sha2::Sha256::digest(first.strip_suffix(b"\n").expect("it has one")).into());
        assert_eq!(head, Head { seq: 1, sha256 });
        let second = head.add(b"{\"b\":2}\n");
        assert_eq!(second, format!("{{\"b\":2,\"seq\":2,\"prev\":\"{sha256}\"}}\n").as_bytes());
        assert_eq!(link(second.trim_ascii_end()), Some(Link { seq: 2, prev: sha256 }));
    }

    #[test]
    fn commands_read_the_lines_of_a_log_as_those_of_the_stream() {
        let mut head = Head::START;
        for line in samples::session(b"sh") {
            let logged = head.add(&json::line(&line));
            assert_eq!(serde_json::from_slice::<Line>(&logged).expect("it is a line"), line);
        }
    }

    #[test]
    fn a_link_can_be_written_in_one_way_only() {
        let hash = "ab".repeat(32);
        let is_link =
            |seq: &str, prev: &str| link(format!("{{\"a\":1{SEQ}{seq}{PREV}{prev}{END}").as_bytes()).is_some();
        assert!(is_link("1", &hash) && is_link("18446744073709551615", &hash));
        for seq in ["0", "01", "+1", "-1", "1.0", "", "18446744073709551616", " 1"] {
            assert!(!is_link(seq, &hash), "{seq:?}");
        }
        for prev in [&hash.to_uppercase(), &hash[1..], "", &format!("{hash}0")] {
            assert!(!is_link("1", prev), "{prev:?}");
        }
        for line in [&b""[..], b"}", b"{\"seq\":1}", b"\xff\xff"] {
            assert_eq!(link(line), None);
        }
    }
}
