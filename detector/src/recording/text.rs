//! Bytes in entries.

/// Bytes that are text, mostly. They are written as in findings.
pub(crate) mod as_text {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::finding::Text;

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        Text::from(bytes).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = Text::deserialize(deserializer)?;
        text.to_bytes().ok_or_else(|| D::Error::custom("a backslash stands for nothing"))
    }
}

/// A fixed number of bytes that are not text, or nothing. They are written as hexadecimal digits.
pub(crate) mod as_hex {
    use std::borrow::Cow;
    use std::fmt::Write as _;

    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::finding::from_hex;

    pub(crate) fn serialize<S: Serializer, const N: usize>(
        bytes: &Option<[u8; N]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let digits = bytes.map(|bytes| {
            bytes.iter().fold(String::with_capacity(2 * N), |mut digits, byte| {
                write!(digits, "{byte:02x}").expect("a String takes all text");
                digits
            })
        });
        digits.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        deserializer: D,
    ) -> Result<Option<[u8; N]>, D::Error> {
        let Some(digits) = Option::<Cow<str>>::deserialize(deserializer)? else { return Ok(None) };
        let error = || D::Error::custom(format_args!("these are not {N} bytes in hexadecimal digits"));
        from_hex(&digits).map(Some).ok_or_else(error)
    }
}
