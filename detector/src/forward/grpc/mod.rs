//! Receivers of OpenTelemetry over gRPC: a request with one message is a request of HTTP/2, whose answer is a message
//! and a status. Lines are received when both say so.
//!
//! The specification of OTLP has a client drop what is answered with most of the statuses for which it does not try
//! again. But of these, only `INVALID_ARGUMENT` is about the lines: the others tell about the receiver, or about whom
//! it knows, and can be mended. So nothing is given up for them, as for the statuses of HTTP that say the same.

pub(crate) mod answer;

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::timeout;
use tonic::Code;

use super::connection::{Tls, connect};
use super::destination::Web;
use super::receiver::{self, Failure, Item, Outcome};
use super::requests::{AGENT, ANSWERING, Answer, LONGEST_ANSWER, compressed, deliver, describe, read_headers, shown};
use super::{Forwarder, otlp};
use answer::{ENCODING, GZIP, Message, Status, framed};

/// What requests and answers have, or begin with.
const MEDIA_TYPE: &str = "application/grpc";
/// The name of HTTP/2 in TLS.
const PROTOCOL: &str = "h2";

/// A receiver.
pub(super) struct Grpc {
    to: Web,
    headers: Option<PathBuf>,
    tls: Option<Tls>,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Grpc {
    pub(super) fn to(to: Web, forwarder: &Forwarder) -> Self {
        let tls = to.is_encrypted.then(|| forwarder.tls.clone());
        Self { to, headers: forwarder.headers.clone(), tls, connection: None }
    }

    /// Sends lines.
    pub(super) async fn send(&mut self, items: &[Item<'_>]) -> Outcome {
        deliver(items.len(), usize::MAX, async |part| {
            let answer = self.export(&items[part]).await;
            if answer.is_err() {
                self.connection = None;
            }
            answer
        })
        .await
    }

    async fn export(&mut self, items: &[Item<'_>]) -> Result<Answer, Failure> {
        let headers = self.headers.as_deref().map(read_headers).transpose()?.unwrap_or_default();
        let request = self.request(items, &headers)?;
        let open = self.connection.take().filter(|connection| !connection.is_closed());
        let connection = match open {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let connection = self.connection.insert(connection);
        let answered = async {
            connection.ready().await.map_err(broken)?;
            read(connection.send_request(request).await.map_err(broken)?).await
        };
        let (status, message) = timeout(ANSWERING, answered).await.map_err(|_| Failure::silent(ANSWERING))??;
        judge(&status, message.as_deref(), items.len(), &headers)
    }

    fn request(&self, items: &[Item<'_>], headers: &HeaderMap) -> io::Result<Request<Full<Bytes>>> {
        let Web { address, path, .. } = &self.to;
        let mut request = Request::new(Full::new(framed(&compressed(&otlp::request(items))?).into()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() =
            Uri::try_from(format!("{}://{address}{path}", self.to.scheme())).map_err(io::Error::other)?;
        let all = request.headers_mut();
        all.extend(headers.clone());
        // Without these, what is sent and what is answered would be something else.
        for (name, value) in [
            (CONTENT_TYPE.as_str(), MEDIA_TYPE),
            (TE.as_str(), "trailers"),
            (USER_AGENT.as_str(), AGENT),
            (ENCODING, GZIP),
            ("grpc-accept-encoding", GZIP),
        ] {
            all.insert(name, HeaderValue::from_static(value));
        }
        let limit = HeaderValue::try_from(format!("{}S", ANSWERING.as_secs())).map_err(io::Error::other)?;
        all.insert("grpc-timeout", limit);
        Ok(request)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let stream = connect(&self.to.address, self.tls.as_ref(), Some(PROTOCOL)).await?;
        let mut builder = Builder::new(TokioExecutor::new());
        // What waits here of an answer that nobody reads.
        builder.initial_stream_window_size(LONGEST_ANSWER as u32);
        builder.initial_connection_window_size(LONGEST_ANSWER as u32);
        builder.max_header_list_size(LONGEST_ANSWER as u32);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // It ends with the sender.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(sender)
    }
}

fn broken(error: hyper::Error) -> Failure {
    Failure::new(format!("{}; check that it is a receiver over gRPC", describe(&error)))
}

/// Reads an answer: its status, and its message if there is one.
async fn read(response: Response<Incoming>) -> Result<(Status, Option<Vec<u8>>), Failure> {
    let (head, mut body) = response.into_parts();
    if head.status != StatusCode::OK {
        let remedy = match head.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "check the file with the headers",
            _ => "check that it is a receiver over gRPC",
        };
        return Err(Failure::new(format!("it answers {}; {remedy}", head.status)));
    }
    let media_type = head.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    if !media_type.starts_with(MEDIA_TYPE.as_bytes()) {
        let media_type = receiver::shown(media_type);
        return Err(Failure::new(format!("its answer is no {MEDIA_TYPE} but {media_type:?}")));
    }
    let (mut content, mut trailers) = (Vec::new(), None);
    while let Some(frame) = body.frame().await {
        match frame.map_err(broken)?.into_data() {
            Ok(data) => {
                content.extend_from_slice(&data);
                Message::read(&content).map_err(Failure::new)?;
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    // An answer without a message can have its status in its only headers.
    let with_status = trailers.as_ref().or_else(|| content.is_empty().then_some(&head.headers));
    let status = with_status.map_or(Ok(None), Status::read).map_err(Failure::new)?;
    let status = status.ok_or_else(|| Failure::new("its answer ends without a status".to_owned()))?;
    let message = Message::read(&content).map_err(Failure::new)?;
    Ok((status, message.map(|message| message.plain(&head.headers)).transpose().map_err(Failure::new)?))
}

/// What an answer to a request with so many lines means.
fn judge(status: &Status, message: Option<&[u8]>, count: usize, headers: &HeaderMap) -> Result<Answer, Failure> {
    let text = shown(&status.message, headers);
    let text = if text.is_empty() { text } else { format!(": {text}") };
    let why = format!("it answers {status}{text}");
    let pause = status.retry;
    match (status.code(), message) {
        (Code::Ok, Some(message)) => Ok(otlp::rejection(message).map_or(Answer::Taken, |(rejected, why)| {
            Answer::Refused(format!("it rejects {rejected} of {count} records: {}", shown(why.as_bytes(), headers)))
        })),
        (Code::Ok, None) => Err(Failure::new(format!("{why}, without the message that belongs to it"))),
        (Code::InvalidArgument, _) => Ok(Answer::Refused(why)),
        (Code::Unauthenticated | Code::PermissionDenied, _) => {
            Err(Failure { why: format!("{why}; check the file with the headers"), pause })
        }
        // Without a time, it can mean that a request is too large, as well as that there are too many.
        (Code::ResourceExhausted, _) if pause.is_none() => Ok(Answer::TooMany(Failure::new(why))),
        _ => Err(Failure { why, pause }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn status(number: &'static str, details: &'static str) -> Status {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", HeaderValue::from_static(number));
        headers.insert("grpc-message", HeaderValue::from_static("n%6f"));
        headers.insert("grpc-status-details-bin", HeaderValue::from_static(details));
        Status::read(&headers).expect("it is one").expect("it is there")
    }

    #[test]
    fn an_answer_says_what_becomes_of_lines() {
        let judged = |number, message| judge(&status(number, ""), message, 7, &HeaderMap::new());
        assert!(matches!(judged("0", Some(&b""[..])), Ok(Answer::Taken)));
        let Ok(Answer::Refused(why)) = judged("0", Some(b"\x0a\x07\x08\x02\x12\x03bad")) else { panic!("it is taken") };
        assert_eq!(why, "it rejects 2 of 7 records: bad");
        let Ok(Answer::Refused(why)) = judged("3", None) else { panic!("it is not refused") };
        assert_eq!(why, "it answers INVALID_ARGUMENT: no");
        let Ok(Answer::TooMany(failure)) = judged("8", None) else { panic!("it can be fewer") };
        assert_eq!(failure.why, "it answers RESOURCE_EXHAUSTED: no");
        for (number, expected) in [
            ("0", "OK: no, without the message that belongs to it"),
            ("1", "CANCELLED: no"),
            ("2", "UNKNOWN: no"),
            ("4", "DEADLINE_EXCEEDED: no"),
            ("5", "NOT_FOUND: no"),
            ("6", "ALREADY_EXISTS: no"),
            ("7", "PERMISSION_DENIED: no; check the file with the headers"),
            ("9", "FAILED_PRECONDITION: no"),
            ("10", "ABORTED: no"),
            ("11", "OUT_OF_RANGE: no"),
            ("12", "UNIMPLEMENTED: no"),
            ("13", "INTERNAL: no"),
            ("14", "UNAVAILABLE: no"),
            ("15", "DATA_LOSS: no"),
            ("16", "UNAUTHENTICATED: no; check the file with the headers"),
            ("17", "the status 17: no"),
        ] {
            let Err(failure) = judged(number, None) else { panic!("{number} is no failure") };
            assert_eq!((failure.why, failure.pause), (format!("it answers {expected}"), None));
        }
    }

    #[test]
    fn a_receiver_can_ask_to_be_left_alone() {
        // A `RetryInfo` with 1,000,000 s.
        let later = "CAgaMgoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJldHJ5SW5mbxIGCgQIwIQ9";
        for number in ["8", "14"] {
            let Err(failure) = judge(&status(number, later), None, 7, &HeaderMap::new()) else { panic!("{number}") };
            assert_eq!(failure.pause, Some(Duration::from_secs(300)), "{number}");
        }
    }

    #[test]
    fn what_is_told_of_an_answer_is_no_secret() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", HeaderValue::from_static("Bearer secret"));
        let mut status = status("14", "");
        status.message = b"secret is wrong".to_vec();
        let Err(failure) = judge(&status, None, 7, &headers) else { panic!("it is a failure") };
        assert_eq!(failure.why, "it answers UNAVAILABLE");
    }
}
