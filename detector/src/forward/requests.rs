//! What receivers of requests over HTTP have in common, whatever its version and the content.

use std::fs;
use std::io::{self, Write as _};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use super::receiver::{self, Failure, Outcome, Refusal};

/// Who sends requests.
pub(super) const AGENT: &str = concat!("detector/", env!("CARGO_PKG_VERSION"));
/// How long a receiver may take to answer.
pub(super) const ANSWERING: Duration = Duration::from_secs(30);
/// How long a receiver can ask to be left alone.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// How much of an answer is read.
pub(crate) const LONGEST_ANSWER: usize = 64 << 10;

/// What a receiver has done with lines.
pub(super) enum Answer {
    Taken,
    /// It will never take them as they are.
    Refused(String),
    /// It does not take as many now, or not now.
    TooMany(Failure),
}

/// Sends so many lines, in requests for this many, one after the other. What is refused is sent again in halves, until
/// it is known which lines are meant.
pub(super) async fn deliver(
    count: usize,
    at_once: usize,
    mut send: impl AsyncFnMut(Range<usize>) -> Result<Answer, Failure>,
) -> Outcome {
    let parts = (0..count).step_by(at_once).map(|start| start..count.min(start.saturating_add(at_once)));
    let (mut refused, mut waiting) = (Vec::new(), parts.collect::<Vec<_>>());
    waiting.reverse();
    while let Some(part) = waiting.pop() {
        let failure = match send(part.clone()).await {
            Ok(Answer::Taken) => continue,
            Ok(Answer::Refused(_) | Answer::TooMany(_)) if part.len() > 1 => {
                let middle = part.start + part.len() / 2;
                waiting.extend([middle..part.end, part.start..middle]);
                continue;
            }
            Ok(Answer::Refused(why)) => {
                refused.push(Refusal { nth: part.start, why });
                continue;
            }
            Ok(Answer::TooMany(failure)) | Err(failure) => failure,
        };
        return Outcome { settled: part.start, refused, failure: Some(failure) };
    }
    Outcome { settled: count, refused, failure: None }
}

/// The content of a request, compressed with gzip.
pub(super) fn compressed(content: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content)?;
    encoder.finish()
}

/// The beginning of an answer, unless it has something of the headers, which can be secrets.
pub(super) fn shown(text: &[u8], headers: &HeaderMap) -> String {
    let all = String::from_utf8_lossy(text);
    let is_secret = |word: &str| word.len() > 3 && all.contains(word);
    let mut words = headers.values().flat_map(|value| value.to_str().unwrap_or_default().split_whitespace());
    if words.any(is_secret) { String::new() } else { receiver::shown(text) }
}

/// What is wrong, with its cause.
pub(super) fn describe(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// The headers in a file, one on each line. They are read again for each request, because they can be changed.
pub(super) fn read_headers(path: &Path) -> Result<HeaderMap, Failure> {
    let failed = |why: &str| Failure::new(format!("{}: {why}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| failed(&format!("cannot be read: {error}")))?;
    let mut headers = HeaderMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let header = line.split_once(':').and_then(|(name, value)| {
            let mut value = HeaderValue::try_from(value.trim()).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::try_from(name.trim()).ok()?, value))
        });
        // The line is a secret.
        let wrong =
            || failed(&format!("line {} is not a header; write it as in `Authorization: Bearer …`", number + 1));
        let (name, value) = header.ok_or_else(wrong)?;
        headers.insert(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_from_a_file_and_not_told() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("headers");
        fs::write(&path, "Authorization: Bearer secret\n\n X-A : b\n").expect("it is ours");
        let headers = read_headers(&path).expect("they are right");
        assert_eq!(
            (&headers["authorization"], &headers["x-a"]),
            (&"Bearer secret".parse().expect("it is one"), &HeaderValue::from_static("b"))
        );
        assert_eq!(shown(b"it is no secret", &headers), "");
        assert_eq!(shown("no\u{1b}[1m\n".as_bytes(), &headers), "no [1m");
        assert_eq!(shown(&[b'x'; 1000], &headers).len(), receiver::TOLD);
        for wrong in ["secret", "a b: secret", "a: secret\u{1}"] {
            fs::write(&path, wrong).expect("it is ours");
            let failure = read_headers(&path).expect_err("it is no header");
            assert!(
                failure.why.contains("line 1 is not a header") && !failure.why.contains("secret"),
                "{}",
                failure.why
            );
        }
        fs::remove_file(&path).expect("it is ours");
        assert!(read_headers(&path).expect_err("it is gone").why.contains("cannot be read"));
    }

    /// What becomes of ten lines, so many of which are in a request, if a receiver refuses some, takes this many at
    /// once, and this many at all: how many need not be sent again, which are refused, whether it fails, and which it
    /// has taken.
    fn delivered(
        in_request: usize,
        refused: &[usize],
        at_once: usize,
        mut left: usize,
    ) -> (usize, Vec<usize>, bool, Vec<usize>) {
        let mut taken = Vec::new();
        let answer = async |part: Range<usize>| {
            if part.len() > at_once {
                return Ok(Answer::TooMany(Failure::new("it is too much".to_owned())));
            }
            if part.clone().any(|nth| refused.contains(&nth)) {
                return Ok(Answer::Refused("it is wrong".to_owned()));
            }
            left = left.checked_sub(part.len()).ok_or_else(|| Failure::new("not now".to_owned()))?;
            taken.extend(part);
            Ok(Answer::Taken)
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("there is memory");
        let Outcome { settled, refused, failure } = runtime.block_on(deliver(10, in_request, answer));
        (settled, refused.into_iter().map(|refusal| refusal.nth).collect(), failure.is_some(), taken)
    }

    #[test]
    fn what_is_refused_is_found_in_halves_and_what_is_settled_before_a_failure_is_not_sent_again() {
        const ALL: usize = usize::MAX;
        for in_request in [ALL, 10, 4, 1] {
            assert_eq!(delivered(in_request, &[], 10, 10), (10, vec![], false, (0..10).collect()));
            let taken = vec![0, 1, 2, 4, 5, 6, 7, 8];
            assert_eq!(delivered(in_request, &[3, 9], 10, 10), (10, vec![3, 9], false, taken));
        }
        assert_eq!(delivered(ALL, &[], 2, 10), (10, vec![], false, (0..10).collect()));
        // The first half is taken, and what is refused before a failure stays so.
        assert_eq!(delivered(ALL, &[], 5, 7), (5, vec![], true, (0..5).collect()));
        assert_eq!(delivered(1, &[], 1, 7), (7, vec![], true, (0..7).collect()));
        assert_eq!(delivered(ALL, &[1], 10, 4), (5, vec![1], true, vec![0, 2, 3, 4]));
        // Nothing is given up because a receiver takes nothing at all.
        assert_eq!(delivered(ALL, &[], 0, 10), (0, vec![], true, vec![]));
    }
}
