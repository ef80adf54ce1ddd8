//! Reads recordings.

use std::io::{self, BufRead, Read as _};

use flate2::bufread::GzDecoder;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Entry, FORMAT, Header};

/// The maximum size of a gzip member's entries, in bytes. The recorder's are much smaller.
const MAX_MEMBER: u64 = 64 << 20;
/// The first byte of a gzip member.
const GZIP: u8 = 0x1f;

/// Why a recording cannot be replayed, or no further.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It cannot be read.
    #[error("{0}; check the file system that it is on")]
    Read(#[from] io::Error),
    /// It does not begin like a recording.
    #[error("this is not a recording; give a file that `detector run --record` has written")]
    Foreign,
    /// It has another format.
    #[error("its format is {format}, and this detector reads {FORMAT}; use detector {detector}, which recorded it")]
    Version {
        /// The format.
        format: u32,
        /// The version of the detector that recorded it.
        detector: String,
    },
    /// An entry cannot be understood.
    #[error("entry {number} cannot be understood: {why}; use detector {detector}, which recorded it")]
    Entry {
        /// The number of the entry, from 1.
        number: u64,
        /// What is wrong with it.
        why: String,
        /// The version of the detector that recorded it.
        detector: String,
    },
}

/// How a recording ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The daemon stopped, and everything is there.
    Whole,
    /// The end is missing, for this reason.
    Cut(String),
}

/// Reads a recording and passes its entries on. `take` returns what is wrong with an entry, if anything is.
///
/// # Errors
///
/// See [`Error`].
pub(crate) fn read<P: DeserializeOwned, R: DeserializeOwned>(
    mut input: impl BufRead,
    mut take: impl FnMut(Entry<P, R>) -> Result<(), String>,
) -> Result<Ending, Error> {
    let mut entries = Entries { header: None, number: 0, is_ended: false };
    let is_compressed = input.fill_buf()?.first() == Some(&GZIP);
    let mut lines = Vec::new();
    while !input.fill_buf()?.is_empty() {
        lines.clear();
        let result = match is_compressed {
            true => GzDecoder::new(&mut input).take(MAX_MEMBER).read_to_end(&mut lines),
            false => input.read_until(b'\n', &mut lines),
        };
        // What has a wrong checksum is not used. What is only cut is used up to there.
        let cut = match result {
            Ok(_) => (!lines.ends_with(b"\n")).then(|| "it ends within an entry".to_owned()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Some("it ends within an entry".to_owned()),
            Err(error) if entries.header.is_some() => return Ok(Ending::Cut(format!("it is damaged there: {error}"))),
            Err(_) => return Err(Error::Foreign),
        };
        for line in lines.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n")) {
            entries.take(line, &mut take)?;
        }
        if let Some(why) = cut {
            return if entries.header.is_some() { Ok(Ending::Cut(why)) } else { Err(Error::Foreign) };
        }
    }
    match (entries.header, entries.is_ended) {
        (None, _) => Err(Error::Foreign),
        (Some(_), true) => Ok(Ending::Whole),
        (Some(_), false) => Ok(Ending::Cut("it has no last entry".to_owned())),
    }
}

/// The entries that were read.
struct Entries {
    header: Option<Header>,
    number: u64,
    is_ended: bool,
}

impl Entries {
    fn take<P: DeserializeOwned, R: DeserializeOwned>(
        &mut self,
        line: &[u8],
        take: &mut impl FnMut(Entry<P, R>) -> Result<(), String>,
    ) -> Result<(), Error> {
        self.number += 1;
        let header = match &self.header {
            Some(header) => header,
            None => self.header.insert(header(line)?),
        };
        let error = |why| Error::Entry { number: self.number, why, detector: header.detector.clone() };
        let entry = serde_json::from_slice(line).map_err(|why| error(why.to_string()))?;
        self.is_ended = matches!(entry, Entry::End);
        take(entry).map_err(error)
    }
}

/// The header in the first entry. It is read whatever the format of the others is.
fn header(line: &[u8]) -> Result<Header, Error> {
    #[derive(Deserialize)]
    struct First {
        recording: Header,
    }
    let First { recording: header } = serde_json::from_slice(line).map_err(|_| Error::Foreign)?;
    match header.format {
        FORMAT => Ok(header),
        format => Err(Error::Version { format, detector: header.detector }),
    }
}
