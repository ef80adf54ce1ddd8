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

/// Recognises a program of this size.
pub(super) fn recognise(file: &File, size: u64, started: Instant) -> Look {
    let mut buffer = vec![0; CHUNK];
    let start = read(file, &mut buffer[..START], 0)?;
    let Some(parts) = searched_parts(&buffer[..start], size) else { return Ok(Content::Other) };
    let mut words = Words::default();
    let mut left = MOST_READ;
    for part in parts {
        let mut at = part.start;
        while at < part.end {
            let wanted = (part.end - at).min(left).min(CHUNK as u64);
            let filled = read(file, &mut buffer[..wanted as usize], at)?;
            words.search(&buffer[..filled]);
            if filled < CHUNK {
                // This is the end of the part or of the file, or of what may be read.
                left -= filled as u64;
                break;
            }
            // Words at the end of this chunk are found in the next one, which begins with this one's end.
            let step = (CHUNK - LONGEST) as u64;
            (at, left) = (at + step, left.saturating_sub(step));
            if started.elapsed() > MAX_TIME {
                return found(words).ok_or(Unread::TimedOut);
            }
        }
        if left == 0 {
            return found(words).ok_or(Unread::TooLarge);
        }
    }
    Ok(words.content())
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
