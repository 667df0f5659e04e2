//! Decides what becomes of an envelope that arrived: pure.
//!
//! Never here: the store, the broker. What runs is not touched by a refusal.

use ed25519_dalek::VerifyingKey;
use wherry_bundle::envelope::{self, EnvelopeError};
use wherry_bundle::message::Refused;
use wherry_bundle::{Bundle, Digest, Generation, Name};

/// What the node knows about what it took up before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Generation and digest of the whole current envelope.
    pub current: Option<(Generation, Digest)>,
    /// The newest generation ever taken up.
    pub highest_seen: Generation,
    /// What failed last, as [`Self::current`].
    pub failed: Option<(Generation, Digest)>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    TakeUp(Box<Bundle>),
    /// The current one once more, as the broker sends it after each
    /// reconnection.
    Same,
    /// One that failed here: it is not tried again. The broker keeps it until
    /// the cloud issues another.
    Failed,
    /// The retained message was cleared: nothing is asked for, and what runs
    /// runs on.
    Nothing,
    Refuse(Refused),
}

/// Judges `bytes` as they came from the broker.
#[must_use]
pub fn judge(bytes: &[u8], trusted: &[VerifyingKey], own: &Name, held: &Held) -> Verdict {
    if bytes.is_empty() {
        return Verdict::Nothing;
    }
    // Equal bytes passed every check once; a key that was since withdrawn
    // does not make them news.
    if held.current.is_some_and(|(_, digest)| digest == Digest::of(bytes)) {
        return Verdict::Same;
    }
    if held.failed.is_some_and(|(_, digest)| digest == Digest::of(bytes)) {
        return Verdict::Failed;
    }
    match envelope::open(bytes, trusted, own) {
        Ok(bundle) if bundle.generation > held.highest_seen => Verdict::TakeUp(Box::new(bundle)),
        Ok(bundle) => {
            let (found, held) = (bundle.generation, held.highest_seen);
            refuse(found, &EnvelopeError::OldGeneration { found, held })
        }
        Err(error) => refuse(Generation(0), &error),
    }
}

fn refuse(generation: Generation, error: &EnvelopeError) -> Verdict {
    Verdict::Refuse(Refused { generation, reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use wherry_bundle::message::Refused;

    use super::*;
    use crate::supervisor::sample;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn sealed(generation: u64, node: &str, seed: u8) -> Vec<u8> {
        let bundle = Bundle {
            generation: Generation(generation),
            node: sample::name(node),
            ..sample::bundle()
        };
        envelope::seal(&bundle, &key(seed)).unwrap()
    }

    fn verdict(bytes: &[u8]) -> Verdict {
        let current = sealed(5, "gw-1", 1);
        let held = Held {
            current: Some((Generation(5), Digest::of(&current))),
            highest_seen: Generation(6),
            failed: Some((Generation(6), Digest::of(&sealed(6, "gw-1", 3)))),
        };
        judge(bytes, &[key(1).verifying_key()], &sample::name("gw-1"), &held)
    }

    fn reason(bytes: &[u8]) -> Refused {
        match verdict(bytes) {
            Verdict::Refuse(refused) => refused,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_newer_one_is_taken_up_and_the_current_one_is_no_news() {
        match verdict(&sealed(7, "gw-1", 1)) {
            Verdict::TakeUp(bundle) => assert_eq!(bundle.generation, Generation(7)),
            other => panic!("{other:?}"),
        }
        assert_eq!(verdict(&sealed(5, "gw-1", 1)), Verdict::Same);
        assert_eq!(verdict(&[]), Verdict::Nothing);
        assert_eq!(verdict(&sealed(6, "gw-1", 3)), Verdict::Failed);
    }

    #[test]
    fn everything_else_is_refused_with_the_reason() {
        let mut unsigned = sealed(7, "gw-1", 1);
        unsigned[13..77].fill(0);
        assert!(reason(&unsigned).reason.contains("unsigned"));
        assert!(reason(&sealed(7, "gw-1", 2)).reason.contains("does not trust"));
        let good = sealed(7, "gw-1", 1);
        assert!(reason(&good[..good.len() - 1]).reason.contains("truncated"));
        assert!(reason(&good[..50]).reason.contains("ends before"));
        assert!(reason(&sealed(7, "gw-2", 1)).reason.contains("made for node `gw-2`"));
        let mut unknown = good.clone();
        unknown[4] = 2;
        assert!(reason(&unknown).reason.contains("version 2"));
        assert!(reason(b"hello").reason.contains("not a bundle"));
        for refused in [reason(&unsigned), reason(b"hello")] {
            assert_eq!(refused.generation, Generation(0), "a number that cannot be trusted");
        }
    }

    #[test]
    fn a_schema_that_is_not_known_is_refused_though_it_is_signed() {
        use ed25519_dalek::Signer;
        let mut bytes = sealed(7, "gw-1", 1);
        bytes[77] = 9;
        let message = [envelope::SIGNATURE_CONTEXT, &bytes[77..]].concat();
        bytes[13..77].copy_from_slice(&key(1).sign(&message).to_bytes());
        assert!(reason(&bytes).reason.contains("schema 9 is not known"));
    }

    #[test]
    fn an_older_generation_is_refused_and_named() {
        for generation in [1, 4, 6] {
            let refused = reason(&sealed(generation, "gw-1", 1));
            assert_eq!(refused.generation, Generation(generation));
            assert!(refused.reason.contains("not newer than 6"), "{}", refused.reason);
        }
        // The number of the current one, with other contents.
        let mut bundle = Bundle { generation: Generation(5), ..sample::bundle() };
        bundle.deployments[0].replicas += 1;
        let bytes = envelope::seal(&bundle, &key(1)).unwrap();
        assert!(reason(&bytes).reason.contains("not newer"));
    }
}
