//! Whether a log is whole: no line is missing, there a second time, out of order or changed.
//!
//! Each file is read once, line by line, and needs only room for one line. Then the files are put in the order in which
//! one goes on where another one ends.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, BufRead, Read as _};

use sha2::Digest as _;

use super::{Head, link};
use crate::detect::describe::counted;
use crate::finding::{Line, Link, LoggedLine, Notice, NoticeEvent, Sha256};
use crate::output::json::LONGEST;

/// How many problems of a file are described, and how many remarks about it.
const MOST: usize = 20;

/// A line that is known to have been written, because another machine has heard of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) seq: u64,
    /// The SHA-256 of the line, if that is known, too.
    pub(crate) sha256: Option<Sha256>,
}

/// Sentences about a file: the first ones, and how many there are.
#[derive(Debug, Default)]
pub(crate) struct Sentences {
    pub(crate) first: Vec<String>,
    pub(crate) count: u64,
}

impl Sentences {
    fn add(&mut self, what: impl fmt::Display) {
        self.count += 1;
        if self.first.len() < MOST {
            self.first.push(what.to_string());
        }
    }
}

/// A line in the chain.
#[derive(Clone, Copy, Debug)]
struct Position {
    line: u64,
    head: Head,
}

/// What a file has.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) lines: u64,
    /// The link of the first line that has one, and the number of this line in the file.
    first: Option<(u64, Link)>,
    /// The last one in the chain.
    last: Option<Position>,
    /// The beginning of a line at the end that has no end.
    cut: Option<u64>,
    pub(crate) problems: Sentences,
    /// What should be known, although nothing is missing.
    pub(crate) remarks: Sentences,
    /// Whether the line that is [`Known`] is there, with the right hash.
    has_known: Option<bool>,
    /// The last line that was removed with older files, as the last notice about that says.
    removed_to: Option<LoggedLine>,
}

/// Lines without a link, one after the other.
#[derive(Debug)]
struct Unlinked {
    first: u64,
    last: u64,
    why: Why,
    bytes: u64,
    digest: sha2::Sha256,
}

/// Why a line has no link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Empty,
    TooLong,
    NoText,
    NoJson,
    NoMembers,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty"),
            Self::TooLong => write!(f, "it is longer than {LONGEST} bytes"),
            Self::NoText => f.write_str("it is not UTF-8"),
            Self::NoJson => f.write_str("it is not JSON"),
            Self::NoMembers => f.write_str("it does not end with `seq` and `prev`"),
        }
    }
}

impl Why {
    /// Why this line has no link, or the link.
    fn or_link(line: &[u8]) -> Result<Link, Self> {
        if line.is_empty() {
            return Err(Self::Empty);
        }
        let text = str::from_utf8(line).map_err(|_| Self::NoText)?;
        serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|_| Self::NoJson)?;
        link(line).ok_or(Self::NoMembers)
    }
}

impl Part {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// It cannot be read to its end, but to the end of this line.
    pub(crate) fn read(name: String, mut lines: impl BufRead, known: Option<Known>) -> Result<Self, (u64, io::Error)> {
        let mut part = Self {
            name,
            lines: 0,
            first: None,
            last: None,
            cut: None,
            problems: Sentences::default(),
            remarks: Sentences::default(),
            has_known: None,
            removed_to: None,
        };
        match part.take_all(&mut lines, known) {
            Ok(()) => Ok(part),
            Err(error) => Err((part.lines, error)),
        }
    }

    fn take_all(&mut self, lines: &mut impl BufRead, known: Option<Known>) -> io::Result<()> {
        let (mut line, mut unlinked) = (Vec::new(), None);
        loop {
            line.clear();
            if lines.by_ref().take(LONGEST).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            self.lines += 1;
            let mut is_ended = line.pop_if(|last| *last == b'\n').is_some();
            let result =
                if is_ended || (line.len() as u64) < LONGEST { Why::or_link(&line) } else { Err(Why::TooLong) };
            match result {
                Ok(link) if is_ended => {
                    self.settle(unlinked.take(), Some((&line, link)));
                    self.removed_to = removed_to(&line).or(self.removed_to);
                    self.follow(&line, link, known);
                }
                result => {
                    let why = result.err().unwrap_or(Why::NoMembers);
                    let all = unlinked.get_or_insert_with(|| Unlinked {
                        first: self.lines,
                        last: self.lines,
                        why,
                        bytes: 0,
                        digest: sha2::Sha256::new(),
                    });
                    all.add(self.lines, &line);
                    while why == Why::TooLong && !is_ended {
                        line.clear();
                        let read = lines.by_ref().take(LONGEST).read_until(b'\n', &mut line)?;
                        is_ended = read == 0 || line.pop_if(|last| *last == b'\n').is_some();
                        all.go_on(&line);
                    }
                    if !is_ended && all.first == all.last {
                        self.cut = Some(all.first);
                        return Ok(());
                    }
                }
            }
        }
        self.settle(unlinked, None);
        Ok(())
    }

    /// Decides about lines without a link: a notice can say why they are there.
    fn settle(&mut self, unlinked: Option<Unlinked>, next: Option<(&[u8], Link)>) {
        let Some(Unlinked { first, last, why, bytes, digest }) = unlinked else { return };
        let told = next.is_some_and(|(line, link)| {
            let expected = NoticeEvent::TornLine { bytes, sha256: Sha256(digest.finalize().into()) };
            // What is before the first line of a file is compared when all files are known.
            let is_next = self.last.is_none_or(|last| link == last.head.next());
            let notice = serde_json::from_slice(line);
            is_next && matches!(notice, Ok(Line::Notice(Notice { event, .. })) if event == expected)
        });
        let name = &self.name;
        if told {
            self.remarks.add(format_args!(
                "{name}:{first}: {} of a line that was not written to its end, because the detector was killed or the \
                power was cut; the notice after it says so",
                counted(bytes, "byte")
            ));
            return;
        }
        let (which, who) = match last - first {
            0 => ("this line has".to_owned(), "it was"),
            more => (format!("this line and the next {more} have"), "they were"),
        };
        self.problems.add(format_args!(
            "{name}:{first}: {which} no place in the chain ({why}): {who} added or changed, or written by a version \
            without a chain"
        ));
    }

    /// Takes the next line of the chain.
    fn follow(&mut self, line: &[u8], link: Link, known: Option<Known>) {
        let head = Head::after(link.seq, line);
        if let Some(known) = known.filter(|known| known.seq == link.seq) {
            let is_right = known.sha256.is_none_or(|sha256| sha256 == head.sha256);
            self.has_known = Some(self.has_known.unwrap_or(true) && is_right);
        }
        let here = Position { line: self.lines, head };
        let Some(last) = self.last else {
            self.first = Some((self.lines, link));
            self.last = Some(here);
            return;
        };
        let gap = Gap::between(last.head, link);
        if let Some(gap) = gap {
            let (name, of) = (self.name.as_str(), (self.name.as_str(), last));
            self.problems.add(Described { gap, link, at: (name, self.lines), after: of });
        }
        // What is there a second time, or late, is no place to go on from.
        if gap != Some(Gap::Again) {
            self.last = Some(here);
        }
    }
}

impl Unlinked {
    fn add(&mut self, number: u64, line: &[u8]) {
        if number > self.first {
            self.go_on(b"\n");
        }
        self.last = number;
        self.go_on(line);
    }

    fn go_on(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.digest.update(bytes);
    }
}

/// The last line that was removed with older files, if this line is a notice about that.
fn removed_to(line: &[u8]) -> Option<LoggedLine> {
    const NAME: &[u8] = b"\"log_rotated\"";
    // Most lines are about something else, and need not be parsed.
    if !line.windows(NAME.len()).any(|part| part == NAME) {
        return None;
    }
    match serde_json::from_slice(line) {
        Ok(Line::Notice(Notice { event: NoticeEvent::LogRotated(rotated), .. })) => rotated.removed_to,
        _ => None,
    }
}

/// Why a line does not follow another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gap {
    /// It has the next number, and the hash of a line with other bytes.
    Changed,
    /// Its number is higher.
    Missing,
    /// Its number is not higher.
    Again,
    /// It is the first line of a chain.
    NewChain,
}

impl Gap {
    fn between(last: Head, link: Link) -> Option<Self> {
        let next = last.next();
        if link == next {
            None
        } else if link == Head::START.next() {
            Some(Self::NewChain)
        } else if link.seq == next.seq {
            Some(Self::Changed)
        } else if link.seq > next.seq {
            Some(Self::Missing)
        } else {
            Some(Self::Again)
        }
    }
}

/// A gap before a line, in words.
struct Described<'a> {
    gap: Gap,
    link: Link,
    /// The file and the number of the line in it.
    at: (&'a str, u64),
    /// The file and the place of the line before.
    after: (&'a str, Position),
}

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            gap,
            link: Link { seq, .. },
            at: (name, line),
            after: (name_before, Position { line: before, head }),
        } = self;
        let last = head.seq;
        match gap {
            Gap::Changed => write!(
                f,
                "{name_before}:{before}: this line (seq {last}) was changed after it was written, or {name}:{line} \
                was: its SHA-256 is not the `prev` of that line"
            ),
            Gap::Missing => {
                let (first, end) = (last + 1, seq - 1);
                let which = if first == end { format!("seq {first} is") } else { format!("seq {first} to {end} are") };
                write!(f, "{name}:{line}: {which} missing before this line (seq {seq})")?;
                if name == name_before { Ok(()) } else { write!(f, "; if there is a file between these, give it, too") }
            }
            Gap::Again => write!(
                f,
                "{name}:{line}: seq {seq} comes after seq {last}: this line is there a second time, or out of order"
            ),
            Gap::NewChain => write!(
                f,
                "{name}:{line}: a new chain begins (seq 1), and nothing proves that no line is missing before it; \
                verify the files of each chain by themselves"
            ),
        }
    }
}

/// What the files have together.
#[derive(Debug)]
pub(crate) struct Report {
    /// The files in the order of their lines. The problems of a file are also those between it and the one before.
    pub(crate) parts: Vec<Part>,
    /// The first and the last line, if there are some.
    pub(crate) ends: Option<(u64, Head)>,
    /// What is wrong with the end.
    pub(crate) end_problem: Option<String>,
    /// The last line that was removed before these files, as they say.
    pub(crate) removed_to: Option<u64>,
}

impl Report {
    /// Puts the files together.
    pub(crate) fn of(parts: Vec<Part>, known: Option<Known>) -> Self {
        let mut parts = in_order(parts);
        let mut before: Option<(String, Position)> = None;
        let (mut first, mut cut): (Option<u64>, Option<usize>) = (None, None);
        for index in 0..parts.len() {
            let part = &mut parts[index];
            if let Some((line, link)) = part.first {
                let gap = before.as_ref().and_then(|(_, last)| Gap::between(last.head, link));
                if let (Some(gap), Some((name, last))) = (gap, &before) {
                    let described = Described { gap, link, at: (&part.name, line), after: (name, *last) };
                    part.problems.add(described);
                }
                first.get_or_insert(link.seq);
                let is_further =
                    part.last.zip(before.as_ref()).is_some_and(|(last, (_, known))| last.head.seq > known.head.seq);
                if gap != Some(Gap::Again) || is_further {
                    before = part.last.map(|last| (part.name.clone(), last));
                }
                if let Some(cut) = cut.take() {
                    let part = &mut parts[cut];
                    part.end_is_cut(gap.is_none());
                }
            }
            if parts[index].cut.is_some() {
                cut.iter().for_each(|cut| parts[*cut].end_is_cut(false));
                cut = Some(index);
            }
        }
        cut.iter().for_each(|cut| parts[*cut].end_is_cut(false));
        let ends = first.zip(before.map(|(_, last)| last.head));
        let end_problem = known.and_then(|known| missing(known, &parts, ends));
        let removed_to = parts.iter().filter_map(|part| part.removed_to).max_by_key(|removed| removed.seq);
        if let Some(removed) = removed_to
            && let Some(part) = parts.iter_mut().find(|part| part.first.is_some())
            && let Some((line, link)) = part.first
            && link.seq == removed.seq.saturating_add(1)
            && link.prev != removed.sha256
        {
            part.problems.add(format_args!(
                "{}:{line}: this line (seq {}) was changed after it was written, or the notice that says what was \
                removed before it was: its `prev` is not the SHA-256 of the last line that was removed",
                part.name, link.seq
            ));
        }
        Self { parts, ends, end_problem, removed_to: removed_to.map(|removed| removed.seq) }
    }

    /// How many problems there are.
    pub(crate) fn problems(&self) -> u64 {
        self.parts.iter().map(|part| part.problems.count).sum::<u64>() + u64::from(self.end_problem.is_some())
    }
}

impl Part {
    /// The numbers of its first and last line.
    pub(crate) fn range(&self) -> Option<(u64, u64)> {
        Some((self.first?.1.seq, self.last?.head.seq))
    }

    /// Decides about the beginning of a line at the end: another file can have the whole line.
    fn end_is_cut(&mut self, goes_on: bool) {
        let Some(line) = self.cut else { return };
        let name = &self.name;
        if goes_on {
            self.remarks
                .add(format_args!("{name}:{line}: the line is cut; the whole line is in the file that follows"));
        } else {
            self.problems.add(format_args!(
                "{name}:{line}: the line has no end: the detector was killed or the power was cut while it was \
                written, or the end of the file was cut off; when the detector is started, it says which in the log"
            ));
        }
    }
}

/// What is wrong if a line that is known to have been written is not there.
fn missing(known: Known, parts: &[Part], ends: Option<(u64, Head)>) -> Option<String> {
    let seq = known.seq;
    let found: Vec<bool> = parts.iter().filter_map(|part| part.has_known).collect();
    if found.contains(&false) {
        return Some(format!(
            "seq {seq} has another SHA-256 than the one that was given: this line was changed, or the chain was made \
            again"
        ));
    }
    let (first, last) = ends.map_or((1, 0), |(first, last)| (first, last.seq));
    if last < seq {
        let reached = if last == 0 { "has no line".to_owned() } else { format!("ends with seq {last}") };
        return Some(format!("the log {reached}, and seq {seq} was written: the end is cut off, or a file is missing"));
    }
    (found.is_empty() && known.sha256.is_some()).then(|| {
        if seq < first {
            format!("seq {seq} is not in these files, which begin with seq {first}; give older files, too")
        } else {
            format!("seq {seq} is missing, so its SHA-256 cannot be compared")
        }
    })
}

/// The files, each after the one where it goes on. The others are in the order of their first lines.
fn in_order(mut parts: Vec<Part>) -> Vec<Part> {
    parts.sort_by_key(|part| part.first.map(|(_, link)| link.seq));
    let goes_on =
        |part: &Part, last: &Part| part.first.zip(last.last).is_some_and(|((_, link), last)| link == last.head.next());
    let is_start = |part: &Part| !parts.iter().any(|last| goes_on(part, last));
    let starts: Vec<bool> = parts.iter().map(is_start).collect();
    let (mut runs, mut rest) = (VecDeque::new(), VecDeque::new());
    for (part, is_start) in parts.into_iter().zip(starts) {
        if is_start { runs.push_back(part) } else { rest.push_back(part) }
    }
    let mut ordered: Vec<Part> = Vec::new();
    while let Some(start) = runs.pop_front().or_else(|| rest.pop_front()) {
        ordered.push(start);
        while let Some(next) = ordered.last().and_then(|last| rest.iter().position(|part| goes_on(part, last))) {
            ordered.extend(rest.remove(next));
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{lines, log};
    use super::*;
    use crate::finding::Notice;
    use crate::output::json;

    /// What is said of files, which are called `0`, `1` and so on, if a line is known.
    fn report(files: &[Vec<u8>], known: Option<Known>) -> Report {
        let read = |(number, bytes): (usize, &Vec<u8>)| Part::read(number.to_string(), &bytes[..], known);
        let parts = files.iter().enumerate().map(|file| read(file).map_err(|(_, error)| error));
        Report::of(parts.collect::<Result<_, _>>().expect("memory can be read"), known)
    }

    /// The problems, or which lines are proven.
    fn said(files: &[&[Vec<u8>]]) -> Result<(u64, u64), Vec<String>> {
        let report = report(&files.iter().map(|lines| lines.concat()).collect::<Vec<_>>(), None);
        let problems: Vec<_> = report.parts.iter().flat_map(|part| part.problems.first.clone()).collect();
        assert_eq!(problems.len() as u64, report.problems());
        let (first, last) = report.ends.unwrap_or((1, Head::START));
        if problems.is_empty() { Ok((first, last.seq)) } else { Err(problems) }
    }

    fn torn(bytes: &[u8]) -> Vec<u8> {
        let sha256 = Sha256(sha2::Sha256::digest(bytes).into());
        let event = NoticeEvent::TornLine { bytes: bytes.len() as u64, sha256 };
        json::line(&Line::Notice(Notice::now("node".into(), event))).to_vec()
    }

    #[test]
    fn a_log_is_whole_in_any_order_of_its_files() {
        let log = log(9);
        assert_eq!(said(&[&log]), Ok((1, 9)));
        assert_eq!(said(&[&log[6..], &[], &log[..2], &log[2..6]]), Ok((1, 9)));
        // Older files were removed.
        assert_eq!(said(&[&log[6..], &log[2..6]]), Ok((3, 9)));
        assert_eq!(said(&[]), Ok((1, 0)));
    }

    /// The only problem of these files.
    fn one(files: &[&[Vec<u8>]]) -> String {
        match &said(files).expect_err("something is wrong")[..] {
            [one] => one.clone(),
            more => panic!("{more:?}"),
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let log = log(6);
        let without = |number: usize| [&log[..number], &log[number + 1..]].concat();
        assert_eq!(one(&[&without(2)]), "0:3: seq 3 is missing before this line (seq 4)");
        assert_eq!(
            one(&[&log[3..], &log[..1]]),
            "0:1: seq 2 to 3 are missing before this line (seq 4); if there is a file between these, give it, too"
        );
        let twice = [&log[..3], &log[2..]].concat();
        assert_eq!(one(&[&twice]), "0:4: seq 3 comes after seq 3: this line is there a second time, or out of order");
        assert!(one(&[&log, &log[2..3]]).starts_with("1:1: seq 3 comes after seq 6: this line is there a second time"));
        let mut changed = log.clone();
        changed[2][10] = b'x';
        assert!(one(&[&changed]).starts_with("0:3: this line (seq 3) was changed after it was written, or 0:4 was"));
        assert!(one(&[&changed[..3], &changed[3..]]).contains("0:3: this line (seq 3) was changed"));
        let new = [&log[..], &log[..3]].concat();
        assert!(one(&[&new]).starts_with("0:7: a new chain begins (seq 1)"));
    }

    #[test]
    fn lines_without_a_place_in_the_chain_are_named() {
        let log = log(4);
        let longest = vec![b'x'; LONGEST as usize + 5];
        for (line, why) in [
            (&b"\n"[..], "it is empty"),
            (b"hello\n", "it is not JSON"),
            (b"{\"event\":\"\xff\"}\n", "it is not UTF-8"),
            (b"{\"event\":\"stopped\"}\n", "it does not end with `seq` and `prev`"),
            (&[&longest[..], b"\n"].concat(), "it is longer than 1048576 bytes"),
        ] {
            let with = [&log[..2], &[line.to_vec()], &log[2..]].concat();
            assert!(one(&[&with]).starts_with(&format!("0:3: this line has no place in the chain ({why}): it was")));
        }
        let several = [&log[..], &[b"a\nb\nc\n".to_vec()]].concat();
        assert!(one(&[&several]).starts_with("0:5: this line and the next 2 have no place in the chain"));
    }

    #[test]
    fn a_torn_line_is_whole_if_the_log_says_so() {
        let (mut head, rest) = (Head::START, &b"{\"a\":\"\xff\0"[..]);
        let before = lines(&mut head, 2);
        let told = head.add(&torn(rest));
        let torn_line = [rest, b"\n"].concat();
        let whole = [&before[..], &[torn_line.clone(), told.clone()], &lines(&mut head, 2)].concat();
        assert_eq!(said(&[&whole]), Ok((1, 5)));
        assert_eq!(report(&[whole.concat()], None).parts[0].remarks.count, 1);
        // The notice is about other bytes, or about none.
        let other = [&before[..], &[b"x".to_vec(), torn_line.clone(), told.clone()]].concat();
        assert!(one(&[&other]).starts_with("0:3: this line has no place"));
        assert_eq!(said(&[&[&before[..], &[told]].concat()]), Ok((1, 3)));
        // The very first line.
        let first = Head::START.next();
        let told = Head { seq: 0, sha256: first.prev }.add(&torn(rest));
        assert_eq!(said(&[&[torn_line, told]]), Ok((1, 1)));
    }

    #[test]
    fn a_cut_line_is_a_problem_unless_the_log_goes_on() {
        let log = log(4);
        let cut = |line: &[u8]| [&log[..2], &[line.to_vec()]].concat();
        for end in [&b"{"[..], &log[2][..log[2].len() - 1]] {
            assert!(one(&[&cut(end)]).starts_with("0:3: the line has no end"));
        }
        assert_eq!(said(&[&cut(b"{\"a"), &log[2..]]), Ok((1, 4)));
        assert_eq!(said(&[&cut(b"{\"a"), &log[3..]]).expect_err("one is missing").len(), 2);
    }

    #[test]
    fn the_end_is_known_by_what_another_machine_has_received() {
        let mut head = Head::START;
        let whole = lines(&mut head, 5).concat();
        let problem = |seq, sha256| report(std::slice::from_ref(&whole), Some(Known { seq, sha256 })).end_problem;
        let other = Some(Head::START.sha256);
        assert_eq!((problem(5, Some(head.sha256)), problem(5, None), problem(3, None)), (None, None, None));
        assert!(problem(6, None).expect("it is cut").starts_with("the log ends with seq 5, and seq 6 was written"));
        assert!(problem(5, other).expect("it is another").starts_with("seq 5 has another SHA-256"));
        let later =
            |seq, sha256| report(&[lines(&mut head.clone(), 2).concat()], Some(Known { seq, sha256 })).end_problem;
        assert!(later(5, Some(head.sha256)).expect("it is older").contains("which begin with seq 6; give older files"));
        assert_eq!(later(5, None), None);
    }

    /// What is done to a log.
    #[derive(Clone, Debug)]
    enum Act {
        Remove(usize),
        Double(usize, usize),
        Swap(usize, usize),
        Change { line: usize, byte: usize, bits: u8 },
    }

    fn act() -> impl Strategy<Value = Act> {
        let any = || any::<usize>();
        prop_oneof![
            any().prop_map(Act::Remove),
            (any(), any()).prop_map(|(from, to)| Act::Double(from, to)),
            (any(), any()).prop_map(|(one, other)| Act::Swap(one, other)),
            (any(), any(), 1..=u8::MAX).prop_map(|(line, byte, bits)| Act::Change { line, byte, bits }),
        ]
    }

    impl Act {
        /// Does it, and returns the first line that is concerned.
        fn act(self, lines: &mut Vec<Vec<u8>>) -> usize {
            let count = lines.len();
            match self {
                Self::Remove(line) => {
                    lines.remove(line % count);
                    line % count
                }
                Self::Double(from, to) => {
                    let line = lines[from % count].clone();
                    lines.insert(to % (count + 1), line);
                    0
                }
                Self::Swap(one, other) => {
                    let (one, other) = (one % count, other % (count - 1));
                    let other = if other < one { other } else { other + 1 };
                    lines.swap(one, other);
                    0
                }
                Self::Change { line, byte, bits } => {
                    let length = lines[line % count].len();
                    lines[line % count][byte % length] ^= bits;
                    line % count
                }
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_is_done_to_one_line_is_found(count in 2_u64..12, act in act(), end in 0_usize..12) {
            let mut head = Head::START;
            let mut all = lines(&mut head, count);
            let known = Known { seq: count, sha256: Some(head.sha256) };
            // Whole files can be given in any order.
            let is_swap = matches!(act, Act::Swap(..));
            let concerned = act.act(&mut all);
            let (first, second) = all.split_at(if is_swap { 0 } else { end.min(all.len()) });
            let files = [first.concat(), second.concat()];
            let is_found = |known| {
                let report = report(&files, known);
                report.problems() > 0 || report.ends.is_none_or(|(first, _)| first > 1)
            };
            prop_assert!(is_found(Some(known)), "{files:?}");
            // Nothing follows the last line.
            prop_assert!(is_found(None) || concerned as u64 == count - 1, "{files:?}");
        }

        #[test]
        fn where_the_log_is_rotated_makes_no_difference(count in 0_u64..12, one in 0_usize..12, other in 0_usize..12) {
            let all = log(count);
            let (one, other) = (one.min(other).min(all.len()), one.max(other).min(all.len()));
            let files = [&all[other..], &all[..one], &all[one..other]];
            prop_assert_eq!(said(&files), Ok((1, count)));
        }
    }
}
