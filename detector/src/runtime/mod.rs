//! What the container runtimes of this node know of a container: its name, image, labels and pod. Detection needs none of
//! it, and never waits for it longer than told.
//!
//! [`Enricher`] puts it into findings. The runtimes and their answers are not trusted: an answer is limited in size and
//! time, what is taken of it is limited too ([`metadata`]), and a runtime of an ordinary user is asked about that user's
//! containers only ([`socket`]).

pub mod metadata;
pub mod socket;

mod cri;
mod docker;
mod enricher;
mod join;
mod owner;
mod sockets;

use std::time::Duration;

pub use enricher::{Enricher, Options};
pub use sockets::{Sockets, State, Status, check};

/// How long a finding waits for an answer at most, unless told otherwise.
pub const DEFAULT_WAIT: Duration = Duration::from_millis(250);
/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 2 << 20;
/// How long a runtime may take to tell about a container.
const PATIENCE: Duration = Duration::from_secs(5);

/// The id of a container, as the runtimes have it that can be asked: 64 hexadecimal digits. So it is harmless in a URL, and
/// never short for another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Id(String);

impl Id {
    /// `None`: it is none.
    pub fn new(id: &str) -> Option<Self> {
        let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (id.len() == 64 && id.bytes().all(is_digit)).then(|| Self(id.to_owned()))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a runtime told nothing.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// Nobody listens.
    #[error("nobody listens there")]
    Absent,
    /// No answer in time.
    #[error("no answer within {PATIENCE:?}")]
    Silent,
    /// An answer that is not read.
    #[error("the answer is longer than {MAX_ANSWER} bytes")]
    TooLarge,
    /// It belongs to somebody else than it should.
    #[error("it belongs to user {0}")]
    Foreign(u32),
    /// It says that it cannot tell about this one.
    #[error("{0}")]
    Refused(String),
    /// Something that is no answer.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// Of what a runtime or a library says: no longer than a line, and harmless to look at.
    fn other(said: impl std::fmt::Display) -> Self {
        Self::Other(said.to_string().chars().take(200).flat_map(char::escape_debug).collect())
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => Self::Absent,
            _ => Self::other(error),
        }
    }
}

/// The answer about the image of a container that is known. Whoever made the image decides how long it is: that must not hide
/// whose container it is.
fn of_image<T>(answer: Result<Option<T>, Error>) -> Result<Option<T>, Error> {
    if matches!(answer, Err(Error::TooLarge)) { Ok(None) } else { answer }
}
