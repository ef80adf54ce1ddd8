//! The id by which runtimes are asked about a container.

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

    /// One that no container has.
    pub(super) fn nobody() -> Self {
        Self("0".repeat(64))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
