//! The files that the probes only count. If very many files are created that are the same apart from their names, the
//! probes are told to count the next ones: a record of each would cost more, and would say nothing new. This ends after
//! a while, so that it is seen again what they are, and at once if anything else happens in the container that matters.

use std::collections::{BTreeMap, BTreeSet};

use detector_common::map::{CountedKey, LONGEST_COUNTED, suffix};

use super::super::pace::SECOND;
use crate::event::ImageChange;
use crate::finding::{Finding, Kind, Severity};
use crate::recent::Recent;

/// How long the probes count before records of these files are asked for again.
const LEASE: u64 = 10 * SECOND;
/// How many counts are remembered at most that the probes may still report.
const MOST: usize = 4096;

/// What the probes count.
#[derive(Debug)]
pub(super) struct Counted {
    /// What they are to count, and until when, in nanoseconds since boot.
    wanted: BTreeMap<CountedKey, u64>,
    /// The entries that these files are counted in.
    entries: Recent<CountedKey, u64>,
}

impl Default for Counted {
    fn default() -> Self {
        Self { wanted: BTreeMap::new(), entries: Recent::new(MOST) }
    }
}

impl Counted {
    /// Leaves the next files to the probes, which are counted in the entry with this number.
    pub(super) fn leave(&mut self, key: CountedKey, entry: u64, now: u64) {
        self.wanted.insert(key, now.saturating_add(LEASE));
        self.entries.insert(key, entry);
    }

    /// The entry in which the probes' count of these files belongs.
    pub(super) fn entry(&mut self, key: &CountedKey) -> Option<u64> {
        self.entries.get(key).copied()
    }

    /// Asks for records of those files again that were counted for long.
    pub(super) fn end_old(&mut self, now: u64) {
        self.wanted.retain(|_, until| *until > now);
    }

    /// Asks for records of all files of a container again.
    pub(super) fn end_of(&mut self, container: u64) {
        self.wanted.retain(|key, _| key.container != container);
    }

    /// Asks for records of all files again.
    pub(super) fn end(&mut self) {
        self.wanted.clear();
    }

    /// What the probes are to count.
    pub(super) fn wanted(&self) -> BTreeSet<CountedKey> {
        self.wanted.keys().copied().collect()
    }

    /// Whether this is what the probes are to count.
    pub(super) fn is_wanted(&self, known: &BTreeSet<CountedKey>) -> bool {
        self.wanted.len() == known.len() && self.wanted.keys().all(|key| known.contains(key))
    }
}

/// Whether a finding shows that more happens in its container than the creation of plain files, so that all of it is
/// looked at: anything in a session, code that is executed, and what matters much.
pub(super) fn ends_by(finding: &Finding) -> bool {
    finding.session.is_some() || finding.finding != Kind::ImageWrite || finding.severity > Severity::Medium
}

/// What the probes know files like this one by. Returns `None` if they cannot count them.
pub(super) fn key(change: &ImageChange) -> Option<CountedKey> {
    let (creation, detail) = (change.creation?, change.detail.as_ref()?);
    let name = detail.path.bytes.rsplit(|&byte| byte == b'/').next().filter(|_| !detail.path.truncated)?;
    Some(CountedKey {
        container: change.at.container,
        directory: creation.directory,
        program: creation.program,
        suffix: suffix_of(name)?,
        dev: change.file.dev,
        program_dev: detail.exe_dev,
        uid: detail.process.uid,
        origin: detail.process.origin.number(),
    })
}

fn suffix_of(name: &[u8]) -> Option<u64> {
    let mut bytes = [0; LONGEST_COUNTED];
    bytes.get_mut(..name.len())?.copy_from_slice(name);
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
    let mut words = bytes.chunks(8).map(word);
    let words = std::array::from_fn(|_| words.next().unwrap_or_default());
    let end = match name.len().checked_sub(8) {
        Some(start) => word(&name[start..]),
        None => words[0] << (8 * (8 - name.len()) % 64),
    };
    suffix(words, end, name.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_one_short_suffix_are_alike() {
        let of = |suffix: &[u8]| {
            let bytes: Vec<u8> = std::iter::repeat_n(0, 8 - suffix.len()).chain(suffix.iter().copied()).collect();
            u64::from_le_bytes(bytes.try_into().expect("there are eight"))
        };
        for (name, expected) in [
            (&b"a"[..], Some(0)),
            (b"request-17", Some(0)),
            (b"12345678901234567890123456789012", Some(0)),
            (b"123456789012345678901234567890123", None),
            (b"", None),
            (b"a.tmp", Some(of(b"tmp"))),
            (b"session-1234.tmp", Some(of(b"tmp"))),
            (b"1234567.t", Some(of(b"t"))),
            (b"x.1234567", Some(of(b"1234567"))),
            (b"x.12345678", None),
            (b"123456789012345678901234567.abcd", Some(of(b"abcd"))),
            (b".bashrc", Some(of(b"bashrc"))),
            (b"name.", None),
            (b"module.so.1", None),
            (b"a.b.c.d", None),
            (b"x.py.new", None),
            // The dots are at the same place of two words.
            (b"1.3456781.345678", None),
            (b"......................", None),
            (b"caf\xc3\xa9.dat", Some(of(b"dat"))),
            (b"a.\xff\xfe", Some(of(b"\xff\xfe"))),
        ] {
            assert_eq!(suffix_of(name), expected, "{}", name.escape_ascii());
        }
    }
}
