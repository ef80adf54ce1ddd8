//! Receivers over HTTP: webhooks and those of OpenTelemetry. Lines are posted, many at a time, and are received when
//! the answer says so.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use tokio::time::timeout;

use super::connection::{Tls, connect};
use super::destination::Web;
use super::receiver::{Failure, Item, Outcome};
use super::requests::{
    AGENT, ANSWERING, Answer, LONGEST_ANSWER, LONGEST_PAUSE, compressed, deliver, describe, read_headers, shown,
};
use super::{Batch, Forwarder, otlp};

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
        Ok(if self.is_compressed() { compressed(&content)?.into() } else { content.into() })
    }
}

impl Webhook {
    pub(super) fn to(to: Web, content: Content, forwarder: &Forwarder) -> Self {
        let tls = to.is_encrypted.then(|| forwarder.tls.clone());
        Self { to, content, headers: forwarder.headers.clone(), tls, connection: None }
    }

    /// Posts lines.
    pub(super) async fn send(&mut self, items: &[Item<'_>]) -> Outcome {
        let at_once = match self.content {
            Content::Lines(Batch::None) => 1,
            Content::Lines(Batch::Lines | Batch::Array) | Content::Otlp => usize::MAX,
        };
        deliver(items.len(), at_once, async |part| {
            let answer = self.post(&items[part]).await;
            if answer.is_err() {
                self.connection = None;
            }
            answer
        })
        .await
    }

    async fn post(&mut self, items: &[Item<'_>]) -> Result<Answer, Failure> {
        let headers = self.headers.as_deref().map(read_headers).transpose()?.unwrap_or_default();
        let mut request = Request::new(Full::new(self.content.body(items)?));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::try_from(&self.to.path).map_err(io::Error::other)?;
        let types = request.headers_mut();
        let host = HeaderValue::try_from(self.to.host()).map_err(io::Error::other)?;
        types.insert(HOST, host);
        types.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        types.insert(CONTENT_TYPE, HeaderValue::from_static(self.content.media_type()));
        if self.content.is_compressed() {
            types.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        types.extend(headers.clone());
        let open = self.connection.take().filter(|connection| !connection.is_closed());
        let connection = match open {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let connection = self.connection.insert(connection);
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
        let stream = TokioIo::new(connect(&self.to.address, self.tls.as_ref(), None).await?);
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
}
