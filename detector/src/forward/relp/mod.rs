//! RELP, the Reliable Event Logging Protocol of rsyslog: syslog messages, each of which the receiver acknowledges.
//!
//! A line is received when the receiver has answered its frame with 200. Frames are sent without waiting for each
//! answer, but no more than [`WINDOW`] wait for one. What has no answer when a session ends is sent again in the next.
//!
//! Any other answer to a frame is for ever. The protocol has no word for "later": a receiver that cannot take a frame
//! now does not answer, or ends the session, and librelp never sends again what was answered. librelp's own receiver
//! answers 500 only where the command is not allowed, which is known here as soon as the session is opened.

pub(crate) mod frame;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, split};
use tokio::time::{sleep, timeout};
use tokio::try_join;

use super::connection::{Io, Tls, connect};
use super::destination::Address;
use super::receiver::{Failure, Item, Outcome, Refusal, shown};
use super::syslog::message;
use frame::{Answer, Frame, LONGEST_MESSAGE};

/// How many frames can wait for their answers.
const WINDOW: usize = 128;
/// How long a receiver may take to answer so many frames, or to open a session.
const ANSWERING: Duration = Duration::from_secs(30);
/// How long a receiver may take to end a session.
const CLOSING: Duration = Duration::from_secs(1);
/// How many bytes are read at a time.
const READ: usize = 4 << 10;
/// What is said to a receiver first. Version 0 is what librelp speaks, on both sides.
const OFFERS: &str = concat!("relp_version=0\nrelp_software=detector,", env!("CARGO_PKG_VERSION"), "\ncommands=syslog");

/// A receiver.
pub(super) struct Relp {
    to: Address,
    tls: Option<Tls>,
    session: Option<Session>,
}

/// What has become of a line.
#[derive(Clone)]
enum Fate {
    /// It has no answer yet.
    Unknown,
    Received,
    /// It will never be received. Why.
    Refused(String),
}

impl Relp {
    pub(super) fn to(to: Address, tls: Option<Tls>) -> Self {
        Self { to, tls, session: None }
    }

    /// Sends the messages of lines, and waits for the answers to them.
    pub(super) async fn send(&mut self, items: &[Item<'_>]) -> Outcome {
        let mut fates = vec![Fate::Unknown; items.len()];
        let mut messages = Vec::new();
        for (nth, item) in items.iter().enumerate() {
            match message(item.line, &item.text) {
                Ok(message) if message.len() <= LONGEST_MESSAGE => messages.push((nth, message)),
                Ok(message) => {
                    let why = format!("its {} bytes are more than the {LONGEST_MESSAGE} of RELP", message.len());
                    fates[nth] = Fate::Refused(why);
                }
                Err(why) => fates[nth] = Fate::Refused(why),
            }
        }
        let failure = self.deliver(&messages, &mut fates).await.err();
        if failure.is_some() {
            self.session = None;
        }
        let settled = fates.iter().position(|fate| matches!(fate, Fate::Unknown)).unwrap_or(fates.len());
        let refused = fates.into_iter().take(settled).enumerate().filter_map(|(nth, fate)| match fate {
            Fate::Refused(why) => Some(Refusal { nth, why }),
            Fate::Unknown | Fate::Received => None,
        });
        Outcome { settled, refused: refused.collect(), failure }
    }

    async fn deliver(&mut self, messages: &[(usize, Vec<u8>)], fates: &mut [Fate]) -> Result<(), Failure> {
        let silent = |_| Failure::silent(ANSWERING);
        for messages in messages.chunks(WINDOW) {
            let session = match &mut self.session {
                Some(session) => session,
                None => {
                    let stream = connect(&self.to, self.tls.as_ref(), None).await?;
                    let opened = timeout(ANSWERING, Session::open(stream)).await;
                    self.session.insert(opened.map_err(silent)??)
                }
            };
            timeout(ANSWERING, session.exchange(messages, fates)).await.map_err(silent)??;
        }
        Ok(())
    }

    /// Waits for this time. A receiver may end a session in which nothing waits for an answer.
    pub(super) async fn wait(&mut self, time: Duration) -> Result<(), Failure> {
        let Some(Session { stream, input, .. }) = &mut self.session else {
            sleep(time).await;
            return Ok(());
        };
        let Ok(said) = timeout(time, input.next(stream)).await else { return Ok(()) };
        self.session = None;
        said?.map_or(Ok(()), |(number, _)| Err(not_asked(number)))
    }

    /// Ends the session. All that was sent was answered before.
    pub(super) async fn close(&mut self) {
        let Some(mut session) = self.session.take() else { return };
        let closing = async {
            session.ask("close", "").await?;
            Ok::<_, Failure>(session.stream.shutdown().await?)
        };
        let _ = timeout(CLOSING, closing).await;
    }
}

/// A session.
struct Session {
    stream: Box<dyn Io>,
    input: Input,
    /// The number of the last transaction.
    last: u32,
}

impl Session {
    /// Opens a session over this connection.
    async fn open(stream: Box<dyn Io>) -> Result<Self, Failure> {
        let mut session = Self { stream, input: Input::default(), last: 0 };
        let data = session.ask("open", OFFERS).await?;
        let answer = Answer::read(&data).ok_or_else(no_code)?;
        if !answer.is_good {
            return Err(Failure::new(format!("it refuses the session: {}", shown(answer.text))));
        }
        if !matches!(answer.offer("relp_version"), Some("0" | "1")) {
            return Err(Failure::new("it does not offer version 0 or 1 of RELP".to_owned()));
        }
        if !answer.offer("commands").is_some_and(|commands| commands.split(',').any(|command| command == "syslog")) {
            return Err(Failure::new("it does not offer to take syslog messages".to_owned()));
        }
        Ok(session)
    }

    /// Sends a command, and returns the data of its answer.
    async fn ask(&mut self, command: &str, data: &str) -> Result<Vec<u8>, Failure> {
        self.last = frame::next(self.last);
        let mut bytes = Vec::new();
        Frame { number: self.last, command, data: data.as_bytes() }.write(&mut bytes);
        self.stream.write_all(&bytes).await?;
        self.stream.flush().await?;
        match self.input.next(&mut self.stream).await? {
            Some((number, data)) if number == self.last => Ok(data),
            Some((number, _)) => Err(not_asked(number)),
            None => Err(ended()),
        }
    }

    /// Sends messages of lines, whose places are given, and notes what the receiver answers to each.
    async fn exchange(&mut self, messages: &[(usize, Vec<u8>)], fates: &mut [Fate]) -> Result<(), Failure> {
        let (mut bytes, mut waiting) = (Vec::new(), BTreeMap::new());
        for (nth, message) in messages {
            self.last = frame::next(self.last);
            Frame { number: self.last, command: "syslog", data: message }.write(&mut bytes);
            waiting.insert(self.last, *nth);
        }
        let (mut from, mut to) = split(&mut self.stream);
        let sending = async {
            to.write_all(&bytes).await?;
            Ok(to.flush().await?)
        };
        let input = &mut self.input;
        let receiving = async {
            while !waiting.is_empty() {
                let (number, data) = input.next(&mut from).await?.ok_or_else(ended)?;
                let nth = waiting.remove(&number).ok_or_else(|| not_asked(number))?;
                let answer = Answer::read(&data).ok_or_else(no_code)?;
                fates[nth] = if answer.is_good {
                    Fate::Received
                } else {
                    Fate::Refused(format!("it answers {}", shown(answer.text)))
                };
            }
            Ok(())
        };
        try_join!(sending, receiving).map(|_| ())
    }
}

/// What a receiver has sent that is not read yet.
#[derive(Default)]
struct Input(Vec<u8>);

impl Input {
    /// The number and the data of the next answer, unless the receiver ends the session.
    async fn next(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<(u32, Vec<u8>)>, Failure> {
        loop {
            let read = Frame::read(&self.0).map_err(|error| Failure::new(error.to_string()))?;
            if let Some((Frame { number, command, data }, length)) = read {
                let said = match (number, command) {
                    (0, "serverclose") => None,
                    (1.., "rsp") => Some((number, data.to_vec())),
                    _ => return Err(Failure::new(format!("it sends the command {command} with the number {number}"))),
                };
                self.0.drain(..length);
                return Ok(said);
            }
            let mut part = [0; READ];
            let length = stream.read(&mut part).await?;
            if length == 0 {
                return Ok(None);
            }
            self.0.extend_from_slice(&part[..length]);
        }
    }
}

fn ended() -> Failure {
    Failure::new("the receiver has ended the session".to_owned())
}

fn not_asked(number: u32) -> Failure {
    Failure::new(format!("it answers transaction {number}, which does not wait for an answer"))
}

fn no_code() -> Failure {
    Failure::new("it sends an answer without a code".to_owned())
}
