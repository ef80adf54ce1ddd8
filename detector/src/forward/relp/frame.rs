//! The frames of RELP, as they are on the wire (`NUMBER COMMAND LENGTH[ DATA]` and a line feed), and the answers in
//! them.

use std::str;

/// The largest number of a transaction, after which the first one follows again.
const LAST_NUMBER: u32 = 999_999_999;
/// How many digits a number has at most.
const DIGITS: usize = 9;
/// How long the name of a command is at most.
const LONGEST_COMMAND: usize = 32;
/// How many bytes of data a frame to a receiver can have, by the protocol.
pub(super) const LONGEST_MESSAGE: usize = 128 << 10;
/// How many bytes of data are taken from a receiver, whose answers are a line, or a few after the first frame.
pub(crate) const LONGEST_ANSWER: usize = 16 << 10;

/// The number of the transaction after this one.
pub(super) const fn next(number: u32) -> u32 {
    if number >= LAST_NUMBER { 1 } else { number + 1 }
}

/// A frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    /// The number of the transaction, or 0 for a hint, which has no answer.
    pub(crate) number: u32,
    /// What it is.
    pub(crate) command: &'a str,
    /// What belongs to that.
    pub(crate) data: &'a [u8],
}

/// Why bytes are not the beginning of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidFrame {
    /// They are something else.
    #[error("it sends what is not RELP")]
    Syntax,
    /// It is longer than what is taken.
    #[error("it sends a frame with more than {LONGEST_ANSWER} bytes")]
    Length,
}

impl<'a> Frame<'a> {
    /// Appends the frame to what is sent.
    pub(crate) fn write(self, to: &mut Vec<u8>) {
        let Self { number, command, data } = self;
        to.extend_from_slice(format!("{number} {command} {}", data.len()).as_bytes());
        if !data.is_empty() {
            to.push(b' ');
            to.extend_from_slice(data);
        }
        to.push(b'\n');
    }

    /// The frame that these bytes begin with, and its length, if all of it is there.
    ///
    /// # Errors
    ///
    /// Whatever follows, these bytes are not the beginning of a frame that is taken.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, InvalidFrame> {
        let Some((number, rest)) = read_number(bytes)? else { return Ok(None) };
        let Some(rest) = skip(rest, b' ')? else { return Ok(None) };
        let is_letter = |byte: &u8| byte.is_ascii_alphabetic();
        let Some((command, rest)) = read_word(rest, LONGEST_COMMAND, is_letter)? else { return Ok(None) };
        let Some(rest) = skip(rest, b' ')? else { return Ok(None) };
        let Some((length, mut rest)) = read_number(rest)? else { return Ok(None) };
        let length = length as usize;
        if length > LONGEST_ANSWER {
            return Err(InvalidFrame::Length);
        }
        if length > 0 {
            match skip(rest, b' ')? {
                Some(data) => rest = data,
                None => return Ok(None),
            }
        }
        let Some((data, rest)) = rest.split_at_checked(length) else { return Ok(None) };
        let Some(rest) = skip(rest, b'\n')? else { return Ok(None) };
        Ok(Some((Self { number, command, data }, bytes.len() - rest.len())))
    }
}

/// The number at the beginning, and what follows, if the end of the number is there.
fn read_number(bytes: &[u8]) -> Result<Option<(u32, &[u8])>, InvalidFrame> {
    let Some((digits, rest)) = read_word(bytes, DIGITS, u8::is_ascii_digit)? else { return Ok(None) };
    Ok(Some((digits.parse().map_err(|_| InvalidFrame::Syntax)?, rest)))
}

/// The characters of a kind at the beginning, of which there is one at least, and what follows.
fn read_word(
    bytes: &[u8],
    longest: usize,
    is_of_kind: impl Fn(&u8) -> bool,
) -> Result<Option<(&str, &[u8])>, InvalidFrame> {
    let end = bytes.iter().position(|byte| !is_of_kind(byte));
    if end == Some(0) || end.unwrap_or(bytes.len()) > longest {
        return Err(InvalidFrame::Syntax);
    }
    let Some((word, rest)) = end.map(|end| bytes.split_at(end)) else { return Ok(None) };
    Ok(Some((str::from_utf8(word).map_err(|_| InvalidFrame::Syntax)?, rest)))
}

/// What follows this byte, which must be the first one.
fn skip(bytes: &[u8], expected: u8) -> Result<Option<&[u8]>, InvalidFrame> {
    match bytes.split_first() {
        None => Ok(None),
        Some((byte, rest)) if *byte == expected => Ok(Some(rest)),
        Some(_) => Err(InvalidFrame::Syntax),
    }
}

/// What a receiver says about a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer<'a> {
    /// Whether it has done what it was asked for.
    pub(crate) is_good: bool,
    /// In its own words, with the code.
    pub(crate) text: &'a [u8],
    /// What belongs to it.
    pub(crate) rest: &'a [u8],
}

impl<'a> Answer<'a> {
    /// That in the data of a `rsp` frame. Without a code, it is none.
    pub(crate) fn read(data: &'a [u8]) -> Option<Self> {
        let end = data.iter().position(|&byte| byte == b'\n');
        let (text, rest) = end.map_or((data, &[][..]), |end| (&data[..end], &data[end + 1..]));
        let code = text.split(|&byte| byte == b' ').next().filter(|code| code.len() == 3)?;
        code.iter().all(u8::is_ascii_digit).then_some(Self { is_good: code == b"200", text, rest })
    }

    /// The values of an offer in an answer to `open`.
    pub(crate) fn offer(&self, name: &str) -> Option<&'a str> {
        let offers = str::from_utf8(self.rest).ok()?.lines();
        let mut offers = offers.map(|offer| offer.split_once('=').unwrap_or((offer, "")));
        offers.find_map(|(found, values)| (found == name).then_some(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_they_were_written() {
        let frames = [(0, "serverclose", &b""[..]), (1, "rsp", b"200 OK\n"), (LAST_NUMBER, "rsp", b"500 a b\nc\n")]
            .map(|(number, command, data)| Frame { number, command, data });
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.write(&mut bytes));
        assert!(bytes.starts_with(b"0 serverclose 0\n1 rsp 7 200 OK\n\n999999999 rsp 10 500"));
        let mut rest = &bytes[..];
        for frame in frames {
            let (found, length) = Frame::read(rest).expect("it is one").expect("it is whole");
            assert_eq!(found, frame);
            for part in 0..length {
                assert_eq!(Frame::read(&rest[..part]), Ok(None), "{part} bytes of {frame:?}");
            }
            rest = &rest[length..];
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn what_is_no_frame_is_known_at_its_first_wrong_byte() {
        let long = "x".repeat(LONGEST_COMMAND + 1);
        for (bytes, expected) in [
            ("HTTP/1.1 400 Bad Request", InvalidFrame::Syntax),
            ("\n", InvalidFrame::Syntax),
            ("-1 rsp", InvalidFrame::Syntax),
            ("1000000000", InvalidFrame::Syntax),
            ("1  rsp", InvalidFrame::Syntax),
            ("1 r\u{e4}", InvalidFrame::Syntax),
            (&format!("1 {long}"), InvalidFrame::Syntax),
            ("1 rsp \n", InvalidFrame::Syntax),
            ("1 rsp 0 ", InvalidFrame::Syntax),
            ("1 rsp 3\n", InvalidFrame::Syntax),
            ("1 rsp 3 200 ", InvalidFrame::Syntax),
            ("1 rsp 0000000003", InvalidFrame::Syntax),
            (&format!("1 rsp {}\n", LONGEST_ANSWER + 1), InvalidFrame::Length),
            ("1 rsp 999999999 ", InvalidFrame::Length),
        ] {
            assert_eq!(Frame::read(bytes.as_bytes()), Err(expected), "{bytes:?}");
            let known = &bytes.as_bytes()[..bytes.len() - 1];
            assert!(matches!(Frame::read(known), Ok(None) | Err(_)), "{known:?}");
        }
    }

    #[test]
    fn answers_have_a_code_and_offers() {
        let answer = Answer::read(b"200 OK\nrelp_version=0\ncommands=syslog,x\nempty").expect("it is one");
        assert!(answer.is_good && answer.text == b"200 OK");
        assert_eq!(answer.offer("relp_version"), Some("0"));
        assert_eq!(answer.offer("commands"), Some("syslog,x"));
        assert_eq!(answer.offer("empty"), Some(""));
        assert_eq!(answer.offer("relp"), None);
        for (text, is_good) in [("200", true), ("500 no", false), ("201 x", false), ("404\n200", false)] {
            assert_eq!(Answer::read(text.as_bytes()).map(|answer| answer.is_good), Some(is_good), "{text}");
        }
        for text in ["", "OK", "20", "2000 OK", " 200", "\n200 OK", "2x0 OK"] {
            assert_eq!(Answer::read(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn numbers_begin_again_after_the_last_one() {
        assert_eq!((next(1), next(LAST_NUMBER - 1), next(LAST_NUMBER)), (2, LAST_NUMBER, 1));
    }
}
