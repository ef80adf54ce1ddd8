//! The keys that a person presses.

use std::io;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::stdio;

/// How long the rest of a key may take after its first byte: over a slow connection it can come later.
const REST: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
const ESCAPE: u8 = 0x1b;

/// What letters are with Ctrl.
pub(super) const CTRL_C: Key = Key::Char('\u{3}');
pub(super) const CTRL_L: Key = Key::Char('\u{c}');

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// What has a character of ASCII, also one that is not seen.
    Char(char),
    Escape,
    Up,
    Down,
    Home,
    End,
}

/// Waits until keys are pressed. Returns `None` if nobody can press any more.
pub(super) fn read() -> Option<Vec<Key>> {
    let mut bytes = [0; 64];
    let mut length = read_some(&mut bytes).ok().filter(|length| *length > 0)?;
    if bytes[..length] == [ESCAPE] && has_rest() {
        length += read_some(&mut bytes[length..]).ok()?;
    }
    Some(parse(&bytes[..length]))
}

fn read_some(bytes: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::io::retry_on_intr(|| rustix::io::read(stdio::stdin(), &mut *bytes))?)
}

fn has_rest() -> bool {
    let stdin = stdio::stdin();
    matches!(poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&REST)), Ok(1..))
}

/// The keys in these bytes. Others are left out, and so is what is no key.
fn parse(mut bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    while let [first, rest @ ..] = bytes {
        let (key, taken) = match (first, rest) {
            (&ESCAPE, [b'[' | b'O', sequence @ ..]) => {
                let is_end = |byte: &u8| matches!(byte, b'@'..=b'~');
                let length = sequence.iter().position(is_end).map_or(sequence.len(), |end| end + 1);
                (of_sequence(&sequence[..length]), 2 + length)
            }
            (&ESCAPE, [] | [ESCAPE, ..]) => (Some(Key::Escape), 1),
            // Another key with Alt.
            (&ESCAPE, [_, ..]) => (None, 2),
            (byte, _) => (byte.is_ascii().then_some(Key::Char(char::from(*byte))), 1),
        };
        keys.extend(key);
        bytes = &bytes[taken..];
    }
    keys
}

/// The key for which a terminal sends this, after what begins a sequence.
fn of_sequence(sequence: &[u8]) -> Option<Key> {
    match sequence {
        b"A" => Some(Key::Up),
        b"B" => Some(Key::Down),
        b"H" | b"1~" | b"7~" => Some(Key::Home),
        b"F" | b"4~" | b"8~" => Some(Key::End),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_apart() {
        assert_eq!(parse(b"\x1b"), [Key::Escape]);
        assert_eq!(parse(b"\x1b[A\x1bOB\x1b[1~\x1b[Fq"), [Key::Up, Key::Down, Key::Home, Key::End, Key::Char('q')]);
        assert_eq!(parse(b"\x1b\x1b[A \r\x03"), [Key::Escape, Key::Up, Key::Char(' '), Key::Char('\r'), CTRL_C]);
        // Delete, Ctrl with an arrow, and a letter with Alt.
        assert_eq!(parse(b"\x1b[3~\x1b[1;5Aj\x1bq"), [Key::Char('j')]);
        // What no terminal sends.
        for nothing in ["\u{1b}[", "\u{1b}[<", "\u{1b}O", "日"] {
            assert_eq!(parse(nothing.as_bytes()), [], "{nothing:?}");
        }
    }
}
