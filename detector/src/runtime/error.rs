//! The errors of a query to a runtime, and the limits of its answers.

use std::time::Duration;

/// The maximum size of an answer, in bytes.
pub(super) const MAX_ANSWER: usize = 2 << 20;
/// How long a runtime may take to answer a query.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Why a query failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// No process listens on the socket.
    #[error("no process listens on its socket")]
    Absent,
    /// The runtime did not answer in time.
    #[error("no answer within {PATIENCE:?}")]
    Silent,
    /// The answer is too long.
    #[error("the answer is longer than {MAX_ANSWER} bytes")]
    TooLarge,
    /// Another user than the expected one runs the runtime.
    #[error("it is run by user {0}, who is not trusted with this container")]
    Foreign(u32),
    /// The runtime answered that it cannot describe this container.
    #[error("{0}")]
    Refused(String),
    /// The connection failed, or the answer cannot be decoded.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// Makes an error of a message from a runtime or a library, shortened to one line and escaped.
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

/// Treats an answer about an image that is too long as unknown. The creator of the image controls its length, and must
/// not be able to hide which container it is.
pub(super) fn of_image<T>(answer: Result<Option<T>, Error>) -> Result<Option<T>, Error> {
    if matches!(answer, Err(Error::TooLarge)) { Ok(None) } else { answer }
}
