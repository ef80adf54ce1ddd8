//! Receivers over HTTP: webhooks and those of OpenTelemetry. Lines are posted, many at a time, and are received when
//! the answer says so.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{
    CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT,
};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use tokio::time::timeout;

use super::connection::{Tls, connect};
use super::destination::Web;
use super::receiver::{self, Failure, Item, Refusal};
use super::{Batch, Forwarder, otlp};

/// How long a receiver may take to answer.
const ANSWERING: Duration = Duration::from_secs(30);
/// How long a receiver can ask to be left alone.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// How much of an answer is read.
const LONGEST_ANSWER: usize = 64 << 10;

/// A receiver.
pub(super) struct Webhook {
    to: Web,
    content: Content,
    headers: Option<PathBuf>,
    tls: Option<Tls>,
    connection: Option<SendRequest<Full<Bytes>>>,
}

/// What is posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// The lines themselves.
    Lines(Batch),
    /// Records of OpenTelemetry.
    Otlp,
}

impl Content {
    const fn media_type(self) -> &'static str {
        match self {
            Self::Lines(batch) => batch.media_type(),
            Self::Otlp => otlp::MEDIA_TYPE,
        }
    }

    fn is_compressed(self) -> bool {
        self != Self::Lines(Batch::None)
    }

    /// The body of a request with these lines.
    fn body(self, items: &[Item<'_>]) -> io::Result<Bytes> {
        let texts = || items.iter().map(|item| &*item.text).collect::<Vec<_>>();
        let content = match self {
            Self::Lines(Batch::None) => texts().concat(),
            Self::Lines(Batch::Lines) => [texts().join(&b'\n'), b"\n".to_vec()].concat(),
            Self::Lines(Batch::Array) => [b"[".to_vec(), texts().join(&b','), b"]".to_vec()].concat(),
            Self::Otlp => otlp::request(items),
        };
        if !self.is_compressed() {
            return Ok(content.into());
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&content)?;
        Ok(encoder.finish()?.into())
    }
}

/// What a receiver has done with lines.
enum Answer {
    Taken,
    /// It will never take them as they are.
    Refused(String),
}

impl Webhook {
    pub(super) fn to(to: Web, content: Content, forwarder: &Forwarder) -> Self {
        let tls = to.is_encrypted.then(|| forwarder.tls.clone());
        Self { to, content, headers: forwarder.headers.clone(), tls, connection: None }
    }

    /// Posts lines. What is refused is tried again in halves, until it is known which lines are meant.
    pub(super) async fn send(&mut self, items: &[Item<'_>]) -> Result<Vec<Refusal>, Failure> {
        let (mut refused, all) = (Vec::new(), 0..items.len());
        let mut waiting = match self.content {
            Content::Lines(Batch::None) => all.rev().map(|nth| nth..nth + 1).collect(),
            Content::Lines(Batch::Lines | Batch::Array) | Content::Otlp => vec![all],
        };
        while let Some(range) = waiting.pop() {
            let answer = self.post(&items[range.clone()]).await;
            if answer.is_err() {
                self.connection = None;
            }
            match answer? {
                Answer::Taken => {}
                Answer::Refused(why) if range.len() == 1 => refused.push(Refusal { nth: range.start, why }),
                Answer::Refused(_) => {
                    let middle = range.start + range.len() / 2;
                    waiting.extend([middle..range.end, range.start..middle]);
                }
            }
        }
        Ok(refused)
    }

    async fn post(&mut self, items: &[Item<'_>]) -> Result<Answer, Failure> {
        let headers = self.headers.as_deref().map(read_headers).transpose()?.unwrap_or_default();
        let mut request = Request::new(Full::new(self.content.body(items)?));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::try_from(&self.to.path).map_err(io::Error::other)?;
        let types = request.headers_mut();
        let host = HeaderValue::try_from(self.to.host()).map_err(io::Error::other)?;
        types.insert(HOST, host);
        types.insert(USER_AGENT, HeaderValue::from_static(concat!("detector/", env!("CARGO_PKG_VERSION"))));
        types.insert(CONTENT_TYPE, HeaderValue::from_static(self.content.media_type()));
        if self.content.is_compressed() {
            types.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        types.extend(headers.clone());
        if self.connection.as_ref().is_none_or(SendRequest::is_closed) {
            self.connection = Some(self.connect().await?);
        }
        let Some(connection) = &mut self.connection else { return Ok(Answer::Taken) };
        let answered = async {
            connection.ready().await?;
            let response = connection.send_request(request).await?;
            Ok::<_, hyper::Error>(response)
        };
        let response = timeout(ANSWERING, answered).await.map_err(|_| Failure::silent(ANSWERING))?;
        let response = response.map_err(|error| Failure::new(describe(&error)))?;
        let (status, pause) = (response.status(), pause(&response));
        let text = timeout(ANSWERING, read(response)).await.map_err(|_| Failure::silent(ANSWERING))?;
        let Some(text) = text else {
            // The rest of the answer would be taken for the next one.
            self.connection = None;
            return judge(status, pause, "");
        };
        match self.content {
            Content::Lines(_) => judge(status, pause, &shown(&text, &headers)),
            Content::Otlp if status.is_success() => Ok(otlp::rejection(&text).map_or(Answer::Taken, |(count, why)| {
                let why = shown(why.as_bytes(), &headers);
                Answer::Refused(format!("it rejects {count} of {} records: {why}", items.len()))
            })),
            Content::Otlp => judge(status, pause, &shown(otlp::reason(&text).as_bytes(), &headers)),
        }
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let stream = TokioIo::new(connect(&self.to.address, self.tls.as_ref()).await?);
        let connected = http1::Builder::new().max_buf_size(LONGEST_ANSWER).handshake(stream).await;
        let (sender, connection) = connected.map_err(|error| Failure::new(describe(&error)))?;
        // It ends with the sender.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(sender)
    }
}

/// What an answer means.
fn judge(status: StatusCode, pause: Option<Duration>, text: &str) -> Result<Answer, Failure> {
    let text = if text.is_empty() { String::new() } else { format!(": {text}") };
    let why = format!("it answers {status}{text}");
    match status {
        status if status.is_success() => Ok(Answer::Taken),
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
            Ok(Answer::Refused(why))
        }
        status if status.is_redirection() => {
            Err(Failure::new(format!("{why}; it wants another URL, and no answer is followed: write that one")))
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Err(Failure::new(format!("{why}; check the file with the headers")))
        }
        _ => Err(Failure { why, pause }),
    }
}

/// How long the receiver wants to be left alone.
fn pause(response: &Response<Incoming>) -> Option<Duration> {
    pause_from(response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim(), Timestamp::now())
}

/// The same by the text of the header at this time: a number of seconds, or a date (RFC 9110, 10.2.3).
fn pause_from(header: &str, now: Timestamp) -> Option<Duration> {
    let pause = match header.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        // One in the past means now.
        Err(_) => rfc2822::parse(header).ok()?.timestamp().duration_since(now).try_into().unwrap_or_default(),
    };
    Some(pause.min(LONGEST_PAUSE))
}

/// The text of an answer, unless it is too long or breaks off.
async fn read(response: Response<Incoming>) -> Option<Vec<u8>> {
    let mut body = response.into_body();
    let mut text = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.ok()?.into_data() {
            text.extend_from_slice(&data);
        }
        if text.len() > LONGEST_ANSWER {
            return None;
        }
    }
    Some(text)
}

/// The beginning of an answer, unless it has something of the headers, which can be secrets.
fn shown(text: &[u8], headers: &HeaderMap) -> String {
    let all = String::from_utf8_lossy(text);
    let is_secret = |word: &str| word.len() > 3 && all.contains(word);
    let mut words = headers.values().flat_map(|value| value.to_str().unwrap_or_default().split_whitespace());
    if words.any(is_secret) { String::new() } else { receiver::shown(text) }
}

/// What is wrong, with its cause.
fn describe(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// The headers in a file, one on each line. They are read again for each request, because they can be changed.
fn read_headers(path: &std::path::Path) -> Result<HeaderMap, Failure> {
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
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_pause_is_a_number_of_seconds_or_lasts_until_a_date() {
        let now: Timestamp = "2026-10-21T07:28:00Z".parse().expect("it is a time");
        let pause = |header| pause_from(header, now).map(|pause| pause.as_secs());
        assert_eq!(pause("7"), Some(7));
        assert_eq!(pause("Wed, 21 Oct 2026 07:28:09 GMT"), Some(9));
        assert_eq!(pause("Wed, 21 Oct 2026 07:27:00 GMT"), Some(0));
        assert_eq!(pause("99999999"), Some(LONGEST_PAUSE.as_secs()));
        assert_eq!(pause("Fri, 31 Dec 2027 23:59:59 GMT"), Some(LONGEST_PAUSE.as_secs()));
        assert_eq!(pause("soon"), None);
        assert_eq!(pause("-1"), None);
    }

    #[test]
    fn lines_are_posted_in_each_way() {
        let items = ["{\"a\":1}", "{\"b\":2}"].map(|line| Item { line: line.as_bytes(), text: line.as_bytes().into() });
        for (batch, expected) in [(Batch::Lines, "{\"a\":1}\n{\"b\":2}\n"), (Batch::Array, "[{\"a\":1},{\"b\":2}]")] {
            let mut text = String::new();
            let body = Content::Lines(batch).body(&items).expect("it is memory");
            flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text).expect("it is compressed");
            assert_eq!(text, expected);
        }
        let body = Content::Lines(Batch::None).body(&items[..1]);
        assert_eq!(body.expect("it is memory"), "{\"a\":1}");
    }

    #[test]
    fn an_answer_says_what_becomes_of_lines() {
        let judged = |status: u16| judge(StatusCode::from_u16(status).expect("it is one"), None, "no");
        for status in [200, 202, 204] {
            assert!(matches!(judged(status), Ok(Answer::Taken)), "{status}");
        }
        for status in [400, 413, 422] {
            assert!(matches!(judged(status), Ok(Answer::Refused(_))), "{status}");
        }
        for status in [301, 401, 403, 404, 408, 429, 500, 503] {
            let Err(failure) = judged(status) else { panic!("{status}") };
            assert!(failure.why.contains(&status.to_string()) && failure.why.contains(": no"), "{}", failure.why);
        }
    }

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
}
