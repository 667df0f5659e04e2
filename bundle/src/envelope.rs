//! The signed envelope of a bundle.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 4 | `WHRY` |
//! | 4 | 1 | version of the envelope, [`ENVELOPE_VERSION`] |
//! | 5 | 8 | key id: the start of the SHA-256 of the public key |
//! | 13 | 64 | ed25519 signature of [`SIGNATURE_CONTEXT`] and all that follows |
//! | 77 | 1 | schema of the bundle, [`BUNDLE_SCHEMA`] |
//! | 78 | … | the bundle, postcard |
//!
//! The signature is checked over the exact bytes, before one of them is
//! parsed.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use crate::limits::ENVELOPE_BYTES_MAX;
use crate::model::InvalidBundle;
use crate::wire::{self, WireError};
use crate::{Bundle, Digest, Generation, Name};

const MAGIC: [u8; 4] = *b"WHRY";
pub const ENVELOPE_VERSION: u8 = 1;
/// Changes whenever the postcard form of [`Bundle`] does.
pub const BUNDLE_SCHEMA: u8 = 6;
/// Keeps a signature made here from meaning anything elsewhere.
pub const SIGNATURE_CONTEXT: &[u8] = b"wherry bundle v1\0";
const KEY_ID_AT: usize = 5;
const SIGNATURE_AT: usize = 13;
const SIGNED_AT: usize = 77;

/// Why an envelope is refused. Its text is shown to people on both sides.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    #[error("not a bundle: {0}")]
    NotABundle(&'static str),
    #[error("{bytes} bytes, where a bundle has at most {max}")]
    TooLarge { bytes: usize, max: usize },
    #[error("envelope version {found} is not known here (this build reads {ENVELOPE_VERSION})")]
    Version { found: u8 },
    #[error("signed by key {found}, which this node does not trust (it trusts {trusted})")]
    UnknownKey { found: String, trusted: String },
    #[error("the signature does not match: unsigned, damaged or truncated")]
    Signature,
    #[error("bundle {0}")]
    Contents(#[from] WireError),
    #[error("made for node `{found}`, this is `{own}`")]
    OtherNode { found: Name, own: Name },
    #[error("generation {found} is not newer than {held}, which this node already took up")]
    OldGeneration { found: Generation, held: Generation },
    #[error("invalid: {0}")]
    Invalid(#[from] InvalidBundle),
}

/// The eight bytes by which an envelope names its key.
#[must_use]
pub fn key_id(key: &VerifyingKey) -> [u8; 8] {
    let digest = Digest::of(key.as_bytes()).0;
    let mut id = [0; 8];
    id.copy_from_slice(&digest[..8]);
    id
}

/// Signs `bundle`. The same key and bundle give the same bytes.
///
/// # Errors
/// What [`Bundle::validate`] says, or an envelope above
/// [`ENVELOPE_BYTES_MAX`].
pub fn seal(bundle: &Bundle, key: &SigningKey) -> Result<Vec<u8>, EnvelopeError> {
    bundle.validate()?;
    let signed = wire::encode(BUNDLE_SCHEMA, bundle)?;
    let signature = key.sign(&signed_message(&signed));
    let mut envelope = Vec::with_capacity(SIGNED_AT + signed.len());
    envelope.extend_from_slice(&MAGIC);
    envelope.push(ENVELOPE_VERSION);
    envelope.extend_from_slice(&key_id(&key.verifying_key()));
    envelope.extend_from_slice(&signature.to_bytes());
    envelope.extend_from_slice(&signed);
    if envelope.len() > ENVELOPE_BYTES_MAX {
        return Err(EnvelopeError::TooLarge { bytes: envelope.len(), max: ENVELOPE_BYTES_MAX });
    }
    Ok(envelope)
}

/// Checks everything that can be checked without knowing this node's
/// history: the signature by one of `trusted`, the schema, the addressee
/// `own`, and the bundle itself.
///
/// # Errors
/// The first check that failed; nothing is parsed before the signature holds.
pub fn open(bytes: &[u8], trusted: &[VerifyingKey], own: &Name) -> Result<Bundle, EnvelopeError> {
    if bytes.len() > ENVELOPE_BYTES_MAX {
        return Err(EnvelopeError::TooLarge { bytes: bytes.len(), max: ENVELOPE_BYTES_MAX });
    }
    if !bytes.starts_with(&MAGIC) {
        return Err(EnvelopeError::NotABundle("it does not start with `WHRY`"));
    }
    if let Some(&found) = bytes.get(MAGIC.len())
        && found != ENVELOPE_VERSION
    {
        return Err(EnvelopeError::Version { found });
    }
    if bytes.len() <= SIGNED_AT {
        return Err(EnvelopeError::NotABundle("it ends before its contents begin"));
    }
    let id = &bytes[KEY_ID_AT..SIGNATURE_AT];
    let Some(key) = trusted.iter().find(|key| key_id(key) == id) else {
        let trusted: Vec<String> = trusted.iter().map(|key| hex(&key_id(key))).collect();
        let trusted = if trusted.is_empty() { "none".into() } else { trusted.join(", ") };
        return Err(EnvelopeError::UnknownKey { found: hex(id), trusted });
    };
    let signature = Signature::from_slice(&bytes[SIGNATURE_AT..SIGNED_AT])
        .map_err(|_| EnvelopeError::Signature)?;
    let signed = &bytes[SIGNED_AT..];
    key.verify_strict(&signed_message(signed), &signature).map_err(|_| EnvelopeError::Signature)?;
    let bundle: Bundle = wire::decode(BUNDLE_SCHEMA, signed)?;
    addressed_to(own, &bundle)?;
    bundle.validate()?;
    Ok(bundle)
}

/// Reads an envelope that this node once opened and has kept itself, by a
/// checksum of its own: its pods start even if its key is no longer trusted.
///
/// # Errors
/// As [`open`], but the signature is not looked at.
pub fn open_kept(bytes: &[u8], own: &Name) -> Result<Bundle, EnvelopeError> {
    let signed = bytes
        .get(SIGNED_AT..)
        .filter(|_| bytes.starts_with(&MAGIC))
        .ok_or(EnvelopeError::NotABundle("it is not an envelope"))?;
    let bundle: Bundle = wire::decode(BUNDLE_SCHEMA, signed)?;
    addressed_to(own, &bundle)?;
    bundle.validate()?;
    Ok(bundle)
}

fn addressed_to(own: &Name, bundle: &Bundle) -> Result<(), EnvelopeError> {
    if bundle.node == *own {
        return Ok(());
    }
    Err(EnvelopeError::OtherNode { found: bundle.node.clone(), own: own.clone() })
}

fn signed_message(signed: &[u8]) -> Vec<u8> {
    [SIGNATURE_CONTEXT, signed].concat()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
