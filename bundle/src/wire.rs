//! The encoding of every message and record: one schema byte, then postcard.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("empty message")]
    Empty,
    #[error("schema {found} is not known here (this build reads {known}): update the reader")]
    Schema { found: u8, known: u8 },
    #[error("malformed: {0}")]
    Malformed(postcard::Error),
    #[error("{0} bytes follow the end of the message")]
    Trailing(usize),
    #[error("cannot be encoded: {0}")]
    Encode(postcard::Error),
    #[error("{bytes} bytes, where at most {max} are allowed")]
    TooLarge { bytes: usize, max: usize },
}

/// Encodes `value` after the byte `schema`.
///
/// # Errors
/// [`WireError::Encode`]: a bug in `value`'s serialisation.
pub fn encode<T: Serialize>(schema: u8, value: &T) -> Result<Vec<u8>, WireError> {
    postcard::to_extend(value, vec![schema]).map_err(WireError::Encode)
}

/// Decodes what [`encode`] made, and nothing after it.
///
/// # Errors
/// Says whether the schema, the contents or the length was wrong.
pub fn decode<T: DeserializeOwned>(schema: u8, bytes: &[u8]) -> Result<T, WireError> {
    let (&found, body) = bytes.split_first().ok_or(WireError::Empty)?;
    if found != schema {
        return Err(WireError::Schema { found, known: schema });
    }
    let (value, rest) = postcard::take_from_bytes(body).map_err(WireError::Malformed)?;
    if rest.is_empty() { Ok(value) } else { Err(WireError::Trailing(rest.len())) }
}
