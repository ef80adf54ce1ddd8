//! Reads a program, to recognise it or to hash it, within bounds of size and time.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use sha2::Digest as _;

use crate::detect::content::{Content, LONGEST, Look, MOST_READ, Words, searched_parts};
use crate::finding::{Sha256, Unread};

/// How long a file is read at most. The next one waits that long.
const MAX_TIME: Duration = Duration::from_secs(2);
/// How much is read with one call.
const CHUNK: usize = 256 << 10;
/// How much is read of the start of a file, where its headers are.
const START: usize = 4096;

/// How far a program was searched.
pub(super) struct Progress {
    /// The number of the part that is searched.
    part: usize,
    /// Where the search goes on in it.
    at: u64,
    /// How much may still be read.
    left: u64,
    words: Words,
}

impl Default for Progress {
    fn default() -> Self {
        Self { part: 0, at: 0, left: MOST_READ, words: Words::default() }
    }
}

/// Recognises a program of this size. If there is not enough time, the next call with the same progress goes on.
pub(super) fn recognise(file: &File, size: u64, started: Instant, progress: &mut Progress) -> Look {
    let mut buffer = vec![0; CHUNK];
    let start = read(file, &mut buffer[..START], 0)?;
    let Some(parts) = searched_parts(&buffer[..start], size) else { return Ok(Content::Other) };
    while let Some(part) = parts.get(progress.part) {
        progress.at = progress.at.max(part.start);
        while progress.at < part.end {
            let wanted = (part.end - progress.at).min(progress.left).min(CHUNK as u64);
            let filled = read(file, &mut buffer[..wanted as usize], progress.at)?;
            progress.words.search(&buffer[..filled]);
            if filled < CHUNK {
                // This is the end of the part or of the file, or of what may be read.
                progress.left -= filled as u64;
                break;
            }
            // Words at the end of this chunk are found in the next one, which begins with this one's end.
            let step = (CHUNK - LONGEST) as u64;
            (progress.at, progress.left) = (progress.at + step, progress.left.saturating_sub(step));
            if started.elapsed() > MAX_TIME {
                return found(progress.words).ok_or(Unread::TimedOut);
            }
        }
        if progress.left == 0 {
            return found(progress.words).ok_or(Unread::TooLarge);
        }
        (progress.part, progress.at) = (progress.part + 1, 0);
    }
    Ok(progress.words.content())
}

/// The SHA-256 of a file of this size.
pub(super) fn hash(file: &File, size: u64, started: Instant) -> Result<Sha256, Unread> {
    if size > MOST_READ {
        return Err(Unread::TooLarge);
    }
    let mut digest = sha2::Sha256::new();
    let (mut buffer, mut at) = (vec![0; CHUNK], 0);
    while at < size {
        if started.elapsed() > MAX_TIME {
            return Err(Unread::TimedOut);
        }
        let wanted = (size - at).min(CHUNK as u64);
        let filled = read(file, &mut buffer[..wanted as usize], at)?;
        if filled == 0 {
            return Err(Unread::Gone);
        }
        digest.update(&buffer[..filled]);
        at += filled as u64;
    }
    Ok(Sha256(digest.finalize().into()))
}

/// What a program is, if a part of it shows that it is a shell.
fn found(words: Words) -> Option<Content> {
    Some(words.content()).filter(|content| *content != Content::Other)
}

/// Fills a buffer from a position in the file, and returns how many bytes there were.
fn read(file: &File, buffer: &mut [u8], at: u64) -> Result<usize, Unread> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::debug!(%error, "cannot read an executed file");
                return Err(Unread::Gone);
            }
        }
    }
    Ok(filled)
}
