//! Why a runtime told nothing, and the limits of its answers.

use std::time::Duration;

/// Longest answer that is read, in bytes.
pub(super) const MAX_ANSWER: usize = 2 << 20;
/// How long a runtime may take to tell about a container.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Why a runtime told nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
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
    pub(super) fn other(said: impl std::fmt::Display) -> Self {
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
pub(super) fn of_image<T>(answer: Result<Option<T>, Error>) -> Result<Option<T>, Error> {
    if matches!(answer, Err(Error::TooLarge)) { Ok(None) } else { answer }
}
