//! The bytes of gRPC: a message with its prefix, and the status that an answer ends with (PROTOCOL-HTTP2.md of gRPC).
//!
//! What a receiver sends is not trusted. Whatever is not as it must be is an error, so that no line counts as received
//! by mistake.

use std::borrow::Cow;
use std::fmt;
use std::io::Read as _;
use std::time::Duration;

use flate2::read::GzDecoder;
use hyper::header::HeaderMap;
use percent_encoding::percent_decode;
use prost::Message as _;
use tonic::Code;
use tonic::metadata::MetadataMap;

use crate::forward::requests::{LONGEST_ANSWER, LONGEST_PAUSE};

/// What is before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// The header with the way in which messages are compressed, and the one that is used.
pub(crate) const ENCODING: &str = "grpc-encoding";
pub(crate) const GZIP: &str = "gzip";
/// The headers with a status.
const STATUS: &str = "grpc-status";
const MESSAGE: &str = "grpc-message";
const DETAILS: &str = "grpc-status-details-bin";
/// The detail of a status that says that the same request can be taken later.
const RETRY_INFO: &str = "google.rpc.RetryInfo";

/// The names of the statuses, by their numbers.
const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Puts the prefix before a message that is compressed.
pub(crate) fn framed(compressed: &[u8]) -> Vec<u8> {
    let length = u32::try_from(compressed.len()).expect("what is sent at a time is a few hundred KiB");
    [&[1], &length.to_be_bytes()[..], compressed].concat()
}

/// The only message of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    is_compressed: bool,
    content: &'a [u8],
}

impl<'a> Message<'a> {
    /// The message, as soon as all of it is there.
    ///
    /// # Errors
    ///
    /// It is no message, or too long, or there is more. This is known as early as possible.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Option<Self>, String> {
        if let Some(other) = bytes.first().filter(|&&first| first > 1) {
            return Err(format!("it sends {other} where a message begins with 0 or 1"));
        }
        let Some((&[first, ref length @ ..], content)) = bytes.split_first_chunk::<PREFIX>() else { return Ok(None) };
        let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        if length > LONGEST_ANSWER {
            return Err(format!("it sends a message with {length} bytes, which are more than {LONGEST_ANSWER}"));
        }
        if content.len() > length {
            return Err("it sends more than one message".to_owned());
        }
        Ok((content.len() == length).then_some(Self { is_compressed: first == 1, content }))
    }

    /// The message without compression, which these headers name.
    ///
    /// # Errors
    ///
    /// It is compressed in another way, or too long.
    pub(crate) fn plain(&self, headers: &HeaderMap) -> Result<Vec<u8>, String> {
        if !self.is_compressed {
            return Ok(self.content.to_vec());
        }
        if headers.get(ENCODING).is_none_or(|encoding| encoding != GZIP) {
            return Err(format!("it sends a compressed message, and not that it is {GZIP}"));
        }
        let mut plain = Vec::new();
        let decoder = GzDecoder::new(self.content);
        let read = decoder.take(LONGEST_ANSWER as u64 + 1).read_to_end(&mut plain);
        read.map_err(|error| format!("it sends a message that is not {GZIP}: {error}"))?;
        if plain.len() > LONGEST_ANSWER {
            return Err(format!("it sends a compressed message with more than {LONGEST_ANSWER} bytes"));
        }
        Ok(plain)
    }
}

/// How a request has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    number: usize,
    /// What the receiver says about it.
    pub(crate) message: Vec<u8>,
    /// When the same request can be taken, if the receiver says this.
    pub(crate) retry: Option<Duration>,
}

impl Status {
    /// The status in headers or trailers, if they have one.
    ///
    /// # Errors
    ///
    /// They have what is no status, or several.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Option<Self>, String> {
        let mut all = headers.get_all(STATUS).iter();
        let (status, None) = (all.next(), all.next()) else { return Err("it sends more than one status".to_owned()) };
        let Some(status) = status else { return Ok(None) };
        let digits = status.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let number = digits.and_then(|digits| digits.parse().ok());
        let number = number.ok_or("it sends a status that is not a number")?;
        let message = headers.get(MESSAGE).map_or(Cow::default(), |text| percent_decode(text.as_bytes()).into());
        Ok(Some(Self { number, message: message.into_owned(), retry: retry(headers) }))
    }

    /// What it means.
    pub(crate) fn code(&self) -> Code {
        i32::try_from(self.number).map_or(Code::Unknown, Code::from)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(self.number) {
            Some(name) => f.write_str(name),
            None => write!(f, "the status {}", self.number),
        }
    }
}

/// When the same request can be taken, if the details of a status say this. Details that cannot be read say nothing.
fn retry(headers: &HeaderMap) -> Option<Duration> {
    let details = HeaderMap::from_iter([(DETAILS.parse().ok()?, headers.get(DETAILS)?.clone())]);
    let details = MetadataMap::from_headers(details).get_bin(DETAILS)?.to_bytes().ok()?;
    let details = Details::decode(details).ok()?.details;
    let of_retry = |detail: &&Detail| detail.type_url.rsplit('/').next() == Some(RETRY_INFO);
    let info = RetryInfo::decode(&details.iter().find(of_retry)?.value[..]).ok()?;
    let delay = info.retry_delay.unwrap_or_default();
    let seconds = Duration::from_secs(delay.seconds.try_into().unwrap_or_default());
    let rest = Duration::from_nanos(delay.nanos.try_into().unwrap_or_default());
    Some(seconds.saturating_add(rest).min(LONGEST_PAUSE))
}

/// The details of a status (`google.rpc.Status`).
#[derive(Clone, PartialEq, prost::Message)]
struct Details {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Detail>,
}

/// A detail: any message (`google.protobuf.Any`).
#[derive(Clone, PartialEq, prost::Message)]
struct Detail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// The detail that says when a request can be sent again (`google.rpc.RetryInfo`).
#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

/// A time (`google.protobuf.Duration`).
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;
    use crate::forward::requests::compressed;

    fn headers(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn a_message_is_read_when_it_is_whole_and_nothing_else_is() {
        assert_eq!(framed(b"abc"), b"\x01\0\0\0\x03abc");
        for (first, is_compressed) in [(0, false), (1, true)] {
            for content in [&b""[..], b"abc"] {
                let bytes = [&[first, 0, 0, 0, content.len() as u8], content].concat();
                assert_eq!(Message::read(&bytes), Ok(Some(Message { is_compressed, content })));
            }
        }
        for begun in [&b""[..], b"\0", b"\0\0\0\0", b"\0\0\0\0\x03", b"\0\0\0\0\x03ab", b"\0\0\x01\0\0"] {
            assert_eq!(Message::read(begun), Ok(None), "{begun:?}");
        }
        for (wrong, expected) in [
            (&b"\x02"[..], "it sends 2 where"),
            (b"<html>", "it sends 60 where a message begins"),
            (b"\0\xff\xff\xff\xff", "with 4294967295 bytes"),
            (b"\0\0\x01\0\x01", "with 65537 bytes"),
            (b"\0\0\0\0\x03abcd", "more than one message"),
            (b"\0\0\0\0\0\0\0\0\0\0", "more than one message"),
        ] {
            let why = Message::read(wrong).expect_err("it is wrong");
            assert!(why.contains(expected), "{why}");
        }
    }

    #[test]
    fn a_message_that_is_compressed_is_no_longer_than_another() {
        let gzip = headers(&[("grpc-encoding", "gzip")]);
        let plain = |content: &[u8], headers| Message { is_compressed: true, content }.plain(headers);
        let compressed = |length| compressed(&vec![b'x'; length]).expect("it is memory");
        assert_eq!(Message { is_compressed: false, content: b"abc" }.plain(&gzip), Ok(b"abc".to_vec()));
        for length in [0, 1, LONGEST_ANSWER] {
            assert_eq!(plain(&compressed(length), &gzip), Ok(vec![b'x'; length]));
        }
        for (content, headers, expected) in [
            (&compressed(LONGEST_ANSWER + 1)[..], &gzip, "with more than 65536 bytes"),
            (&compressed(50_000_000), &gzip, "with more than 65536 bytes"),
            (b"abc", &gzip, "that is not gzip"),
            (&compressed(9)[..15], &gzip, "that is not gzip"),
            (&compressed(9), &headers(&[("grpc-encoding", "deflate")]), "and not that it is gzip"),
            (&compressed(9), &HeaderMap::new(), "and not that it is gzip"),
        ] {
            let why = plain(content, headers).expect_err("it is wrong");
            assert!(why.contains(expected), "{why}");
        }
    }

    #[test]
    fn a_status_is_read_from_headers_and_nothing_else_is_one() {
        let status = |number, message: &str| Status { number, message: message.into(), retry: None };
        for (given, expected) in [
            (&[][..], None),
            (&[("grpc-message", "lost")], None),
            (&[("grpc-status", "0")], Some(status(0, ""))),
            (&[("grpc-status", "3"), ("grpc-message", "it%20is 100%25 wr%C3%B6ng%")], {
                Some(status(3, "it is 100% wröng%"))
            }),
            (&[("grpc-status", "99"), ("grpc-status-details-bin", "*")], Some(status(99, ""))),
        ] {
            assert_eq!(Status::read(&headers(given)), Ok(expected), "{given:?}");
        }
        for wrong in ["", "OK", "-0", "+0", " 0", "0 0", "99999999999999999999"] {
            assert!(Status::read(&headers(&[("grpc-status", wrong)])).is_err(), "{wrong:?}");
        }
        assert!(Status::read(&headers(&[("grpc-status", "0"), ("grpc-status", "14")])).is_err());
    }

    #[test]
    fn a_status_has_its_name_and_code() {
        let of = |number| Status { number, message: Vec::new(), retry: None };
        let named = |number| (of(number).to_string(), of(number).code());
        assert_eq!(named(0), ("OK".to_owned(), Code::Ok));
        assert_eq!(named(8), ("RESOURCE_EXHAUSTED".to_owned(), Code::ResourceExhausted));
        assert_eq!(named(16), ("UNAUTHENTICATED".to_owned(), Code::Unauthenticated));
        assert_eq!(named(17), ("the status 17".to_owned(), Code::Unknown));
        assert_eq!(named(usize::MAX).1, Code::Unknown);
    }

    #[test]
    fn a_status_says_when_to_try_again() {
        // As others write it: the status 8 with what helps and with when to try again.
        let retry = |details| {
            let headers = headers(&[("grpc-status", "8"), ("grpc-status-details-bin", details)]);
            Status::read(&headers).expect("it is one").expect("it is there").retry
        };
        assert_eq!(retry(SOON), Some(Duration::from_millis(3500)));
        assert_eq!(retry(SOON.trim_end_matches('=')), Some(Duration::from_millis(3500)));
        assert_eq!(retry(LATE), Some(LONGEST_PAUSE));
        for now in [BEFORE, UNKNOWN] {
            assert_eq!(retry(now), Some(Duration::ZERO), "{now:?}");
        }
        for nothing in ["", "*", "CAg=", "CAgSBHNsb3c", "////"] {
            assert_eq!(retry(nothing), None, "{nothing:?}");
        }
    }

    /// Statuses whose `RetryInfo` has 3.5 s, 1,000,000 s, less than nothing, and no time.
    const SOON: &str = "\
        CAgSBHNsb3caJQojdHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLkhlbHAaNgoodHlwZS5nb29nbGVhcGlzLmNvbS9n\
        b29nbGUucnBjLlJldHJ5SW5mbxIKCggIAxCAyrXuAQ==";
    const LATE: &str = "\
        CAgSBHNsb3caJQojdHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLkhlbHAaMgoodHlwZS5nb29nbGVhcGlzLmNvbS9n\
        b29nbGUucnBjLlJldHJ5SW5mbxIGCgQIwIQ9";
    const BEFORE: &str = "\
        CAgSBHNsb3caJQojdHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLkhlbHAaRAoodHlwZS5nb29nbGVhcGlzLmNvbS9n\
        b29nbGUucnBjLlJldHJ5SW5mbxIYChYI+///////////ARD///////////8B";
    const UNKNOWN: &str = "CAgaKgoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJldHJ5SW5mbw==";
}
