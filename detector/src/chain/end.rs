//! Where a log ends, so that another run of the daemon goes on from there.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::unix::fs::FileExt as _;

use sha2::Digest as _;

use super::{Head, link};
use crate::finding::{Link, NoticeEvent, Sha256};
use crate::output::json::LONGEST;

/// How much of a log is searched for its last line: that line, and what may be left of another.
const SEARCHED: u64 = 2 * LONGEST;

/// How a log ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// The last line of the chain.
    pub(crate) head: Head,
    /// Whether the last line has no line feed, which must come before the next line.
    pub(crate) is_open: bool,
    /// What must be said about it.
    pub(crate) notice: Option<NoticeEvent>,
}

impl End {
    /// The end of a log that has no lines.
    pub(crate) const EMPTY: Self = Self { head: Head::START, is_open: false, notice: None };

    /// Finds the end of a file. If there is no line of a chain in it yet, it goes on from `before`.
    pub(crate) fn of(file: &File, before: impl FnOnce() -> Head) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let start = length.saturating_sub(SEARCHED);
        let mut bytes = vec![0; usize::try_from(length - start).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, start)?;
        Ok(Self::in_bytes(&bytes, start == 0, before))
    }

    /// Finds the end of all that can be read, of which only the end is kept.
    pub(crate) fn of_all(mut bytes: impl Read) -> io::Result<Self> {
        let (mut end, mut is_all) = (Vec::new(), true);
        while bytes.by_ref().take(SEARCHED).read_to_end(&mut end)? > 0 {
            let excess = end.len().saturating_sub(SEARCHED as usize);
            is_all &= excess == 0;
            end.drain(..excess);
        }
        Ok(Self::in_bytes(&end, is_all, || Head::START))
    }

    /// Finds the end of these bytes, which are the end of the file or all of it.
    pub(crate) fn in_bytes(bytes: &[u8], is_all: bool, before: impl FnOnce() -> Head) -> Self {
        if bytes.is_empty() {
            return Self { head: before(), ..Self::EMPTY };
        }
        let is_open = bytes.last() != Some(&b'\n');
        let mut end = bytes.len();
        for line in bytes.split_inclusive(|byte| *byte == b'\n').rev() {
            let start = end - line.len();
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            if (start > 0 || is_all)
                && let Some(link) = link(line)
            {
                let rest = &bytes[end..];
                let notice = (!rest.is_empty()).then(|| if is_open { torn(rest) } else { NoticeEvent::NewChain });
                let head =
                    if notice == Some(NoticeEvent::NewChain) { Head::START } else { Head::after(link.seq, line) };
                return Self { head, is_open, notice };
            }
            end = start;
        }
        // The first line of a file can be torn, too, and then the notice about it, if older files show that it is one.
        let head = if is_all && is_open { before() } else { Head::START };
        let is_torn = is_all && (head != Head::START || !bytes.contains(&b'\n'));
        let notice = Some(if is_torn { torn(bytes) } else { NoticeEvent::NewChain });
        Self { head, is_open, notice }
    }
}

/// The link of the first line in a file that has one. What may be left of another line can come before it.
pub(crate) fn first_link(lines: impl BufRead) -> io::Result<Option<Link>> {
    Ok(first_line(lines)?.as_deref().and_then(link))
}

/// The first line in a file that has a link, without its line feed.
pub(crate) fn first_line(lines: impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let (mut lines, mut line) = (lines.take(SEARCHED), Vec::new());
    while lines.read_until(b'\n', &mut line)? > 0 {
        if line.pop() == Some(b'\n') && link(&line).is_some() {
            return Ok(Some(line));
        }
        line.clear();
    }
    Ok(None)
}

/// What is said about the beginning of a line that was not written to its end.
fn torn(rest: &[u8]) -> NoticeEvent {
    NoticeEvent::TornLine { bytes: rest.len() as u64, sha256: Sha256(sha2::Sha256::digest(rest).into()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::tests::{lines, log};
    use super::*;

    /// The end of a file with these bytes.
    fn end(bytes: &[u8]) -> End {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("there is room");
        let end = End::of(&file, || Head::START).expect("it can be read");
        assert_eq!(End::of_all(bytes).expect("it is memory"), end);
        end
    }

    fn is_torn(end: &End, rest: &[u8]) -> bool {
        end.is_open && end.notice == Some(torn(rest))
    }

    #[test]
    fn a_log_goes_on_from_its_last_whole_line() {
        let mut head = Head::START;
        let log = lines(&mut head, 3).concat();
        assert_eq!(end(b""), End::EMPTY);
        assert_eq!(end(&log), End { head, is_open: false, notice: None });
        // Only the line feed is missing.
        assert_eq!(end(&log[..log.len() - 1]), End { head, is_open: true, notice: None });
        // The last line can be anywhere in what is searched.
        let long = [&b"{\""[..], &vec![b'x'; LONGEST as usize - 200], b"\"}\n"].concat();
        let long = [log.clone(), head.add(&long), head.add(&long), head.add(b"{}\n")].concat();
        assert_eq!(end(&long), End { head, is_open: false, notice: None });
    }

    #[test]
    fn a_torn_line_is_told() {
        let mut head = Head::START;
        let log = lines(&mut head, 3).concat();
        for torn in [&b"{"[..], b"\0\0\0\0", b"{\"a\n{\"b", b"{\"a\":1,\"seq\":4,\"prev\":\"ab"] {
            let end = end(&[&log[..], torn].concat());
            assert!(is_torn(&end, torn) && end.head == head, "{end:?}");
        }
        let first = end(b"{\"time\":\"2026");
        assert!(is_torn(&first, b"{\"time\":\"2026") && first.head == Head::START, "{first:?}");
    }

    #[test]
    fn a_file_without_a_line_goes_on_from_an_older_one() {
        let mut head = Head::START;
        lines(&mut head, 3);
        let end = |bytes: &[u8]| End::in_bytes(bytes, true, || head);
        assert_eq!(end(b""), End { head, is_open: false, notice: None });
        for rest in [&b"{\"time"[..], b"{\"time\n{\"ti"] {
            assert!(is_torn(&end(rest), rest) && end(rest).head == head);
        }
        assert_eq!(end(b"hello\n"), End { head: Head::START, is_open: false, notice: Some(NoticeEvent::NewChain) });
        assert_eq!(end(&log(2).concat()).head.seq, 2);
    }

    #[test]
    fn the_first_link_is_that_of_the_first_whole_line() {
        let mut head = Head::START;
        lines(&mut head, 3);
        let expected = Some(head.next());
        let more = lines(&mut head, 2).concat();
        assert_eq!(first_link(&more[..]).expect("it is memory"), expected);
        assert_eq!(first_link(&[b"{\"time\n", &more[..]].concat()[..]).expect("it is memory"), expected);
        assert_eq!(first_link(&more[..20]).expect("it is memory"), None);
    }

    #[test]
    fn what_the_detector_has_not_written_begins_a_new_chain() {
        let log = log(3).concat();
        for (text, is_open) in [
            (&b"hello\n"[..], false),
            (b"{\"finding\":\"x\"}\n", false),
            (b"\n", false),
            (b"old\nold", true),
            (&[b'x'; SEARCHED as usize + 1], true),
        ] {
            let expected = End { head: Head::START, is_open, notice: Some(NoticeEvent::NewChain) };
            assert_eq!(end(text), expected, "{}", text.len());
            if !is_open {
                assert_eq!(end(&[&log, text].concat()), expected);
            }
        }
    }
}
