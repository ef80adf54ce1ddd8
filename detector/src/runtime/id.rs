//! The id of a container in queries to the runtimes.

use serde::{Deserialize, Serialize};

/// The full id of a container: 64 hexadecimal digits. It is therefore safe in a URL, and not a prefix of another id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Id(String);

impl TryFrom<String> for Id {
    type Error = &'static str;

    fn try_from(id: String) -> Result<Self, Self::Error> {
        Self::new(&id).ok_or("this is not the full id of a container")
    }
}

impl Id {
    /// Parses an id. Returns `None` if the text is not one.
    pub fn new(id: &str) -> Option<Self> {
        let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (id.len() == 64 && id.bytes().all(is_digit)).then(|| Self(id.to_owned()))
    }

    /// An id that no container has.
    pub(super) fn nobody() -> Self {
        Self("0".repeat(64))
    }

    /// The hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
