//! Commands that the cloud has run in a container.
//!
//! Such an order can do what a bundle can, so it is trusted for the same
//! reason: the cloud's signature, which is checked before anything is parsed.
//! It holds a number that the node gave out shortly before and takes once, so
//! that none that was kept, by a broker or on the way, is ever run later or
//! twice; no clock is asked.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::Name;
use crate::limits::{
    ASKED_BY_BYTES_MAX, EXEC_SECONDS_MAX, SIGNED_EXEC_BYTES_MAX, WORDS_BYTES_MAX, WORDS_MAX,
};
use crate::message::Exit;
use crate::wire::{self, WireError};

/// Changes whenever the postcard form of [`Exec`] does.
const SCHEMA: u8 = 1;
/// Keeps a signature made here from meaning anything elsewhere.
const SIGNATURE_CONTEXT: &[u8] = b"wherry exec v1\0";

/// What one order has to hold: random, given out by the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nonce(pub [u8; 16]);

/// A command, and in which container of which node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    pub node: Name,
    pub nonce: Nonce,
    /// A pod, or a deployment: the first of its pods.
    pub pod: Name,
    /// The pod's first main one, if none is named.
    pub container: Option<Name>,
    pub args: Vec<String>,
    /// After that the command is ended: 1 to [`EXEC_SECONDS_MAX`].
    pub seconds_max: u32,
    /// Who asked, by what the cloud was told: for the record.
    pub asked_by: String,
}

/// An [`Exec`], encoded, and the signature of these bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedExec {
    exec: Vec<u8>,
    signature: Vec<u8>,
}

/// What came of a command that was begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Executed {
    pub exit: Exit,
    /// It was ended because its time was over.
    pub timed_out: bool,
    pub stdout: Output,
    pub stderr: Output,
}

/// The beginning of what a command wrote, at most
/// [`EXEC_OUTPUT_BYTES_MAX`](crate::limits::EXEC_OUTPUT_BYTES_MAX).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    pub bytes: Vec<u8>,
    /// How much more it wrote.
    pub bytes_dropped: u64,
}

/// Why an order is refused. Its text is shown to people on both sides.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    #[error("the order's signature is by no key that this node trusts")]
    Signature,
    #[error("the order: {0}")]
    Contents(#[from] WireError),
    #[error("the order is for node `{found}`, this is `{own}`")]
    OtherNode { found: Name, own: Name },
    #[error("{0}")]
    Invalid(&'static str),
}

impl Exec {
    /// # Errors
    /// The first bound that does not hold, and what to do.
    pub fn validate(&self) -> Result<(), ExecError> {
        let bytes: usize = self.args.iter().map(|word| word.len() + 1).sum();
        let by = &self.asked_by;
        let what = if self.args.first().is_none_or(String::is_empty) {
            "there is no command: write it behind `--`"
        } else if self.args.len() > WORDS_MAX || bytes > WORDS_BYTES_MAX {
            "the command line is too long: put it into a script in the image"
        } else if self.args.iter().any(|word| word.contains('\0')) {
            "a word of the command holds a NUL character"
        } else if !(1..=EXEC_SECONDS_MAX).contains(&self.seconds_max) {
            "a command may take 1 to 300 seconds"
        } else if by.is_empty() || by.len() > ASKED_BY_BYTES_MAX || by.contains(char::is_control) {
            "who asks has to be named, in 1 to 64 bytes of plain text"
        } else {
            return Ok(());
        };
        Err(ExecError::Invalid(what))
    }
}

impl SignedExec {
    /// # Errors
    /// What [`Exec::validate`] says.
    pub fn seal(exec: &Exec, key: &SigningKey) -> Result<Self, ExecError> {
        exec.validate()?;
        let exec = wire::encode(SCHEMA, exec)?;
        let signature = key.sign(&signed_message(&exec)).to_bytes().to_vec();
        Ok(Self { exec, signature })
    }

    /// All but whether its [`Nonce`] is a good one.
    ///
    /// # Errors
    /// The first check that failed; nothing is parsed before the signature
    /// holds.
    pub fn open(&self, trusted: &[VerifyingKey], own: &Name) -> Result<Exec, ExecError> {
        let bytes = self.exec.len();
        if bytes > SIGNED_EXEC_BYTES_MAX {
            return Err(WireError::TooLarge { bytes, max: SIGNED_EXEC_BYTES_MAX }.into());
        }
        let signature = Signature::from_slice(&self.signature).map_err(|_| ExecError::Signature)?;
        let message = signed_message(&self.exec);
        if !trusted.iter().any(|key| key.verify_strict(&message, &signature).is_ok()) {
            return Err(ExecError::Signature);
        }
        let exec: Exec = wire::decode(SCHEMA, &self.exec)?;
        if exec.node != *own {
            return Err(ExecError::OtherNode { found: exec.node, own: own.clone() });
        }
        exec.validate()?;
        Ok(exec)
    }
}

fn signed_message(exec: &[u8]) -> Vec<u8> {
    [SIGNATURE_CONTEXT, exec].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn exec() -> Exec {
        Exec {
            node: "gw-1".parse().unwrap(),
            nonce: Nonce([7; 16]),
            pod: "web".parse().unwrap(),
            container: None,
            args: vec!["sh".into(), "-c".into(), String::new()],
            seconds_max: 30,
            asked_by: "anna@desk".into(),
        }
    }

    #[test]
    fn only_what_a_trusted_key_signed_for_this_node_opens() {
        let own = exec().node;
        let trusted = [key(1).verifying_key(), key(2).verifying_key()];
        let good = SignedExec::seal(&exec(), &key(2)).unwrap();
        assert_eq!(good.open(&trusted, &own), Ok(exec()));
        let foreign = SignedExec::seal(&exec(), &key(3)).unwrap();
        assert_eq!(foreign.open(&trusted, &own), Err(ExecError::Signature));
        for at in [0, good.exec.len() / 2, good.exec.len() - 1] {
            let mut changed = good.clone();
            changed.exec[at] ^= 1;
            assert_eq!(changed.open(&trusted, &own), Err(ExecError::Signature), "byte {at}");
        }
        let cut = SignedExec { signature: good.signature[1..].to_vec(), ..good.clone() };
        assert_eq!(cut.open(&trusted, &own), Err(ExecError::Signature));
        let other = good.open(&trusted, &"gw-2".parse().unwrap()).unwrap_err();
        assert!(other.to_string().contains("for node `gw-1`, this is `gw-2`"), "{other}");
        // A signature of a bundle is none of an order.
        let bare = SignedExec {
            signature: key(2).sign(&good.exec).to_bytes().to_vec(),
            exec: good.exec.clone(),
        };
        assert_eq!(bare.open(&trusted, &own), Err(ExecError::Signature));
    }

    #[test]
    fn everything_is_bounded() {
        let with = |change: &dyn Fn(&mut Exec)| {
            let mut exec = exec();
            change(&mut exec);
            SignedExec::seal(&exec, &key(1)).map_err(|error| error.to_string())
        };
        for (change, why) in [
            (&(|exec: &mut Exec| exec.args.clear()) as &dyn Fn(&mut Exec), "no command"),
            (&|exec| exec.args = vec![String::new()], "no command"),
            (&|exec| exec.args.push("x".repeat(WORDS_BYTES_MAX)), "too long"),
            (&|exec| exec.args.extend(vec![String::new(); WORDS_MAX]), "too long"),
            (&|exec| exec.args.push("a\0b".into()), "NUL"),
            (&|exec| exec.seconds_max = 0, "1 to 300 seconds"),
            (&|exec| exec.seconds_max = EXEC_SECONDS_MAX + 1, "1 to 300 seconds"),
            (&|exec| exec.asked_by.clear(), "who asks"),
            (&|exec| exec.asked_by = "\x1b[2J".into(), "who asks"),
        ] {
            let error = with(change).unwrap_err();
            assert!(error.contains(why), "{error}, not {why}");
        }
        let largest = with(&|exec| {
            exec.args = vec!["x".into(); WORDS_MAX - 1];
            exec.args.push("x".repeat(WORDS_BYTES_MAX - 2 * (WORDS_MAX - 1) - 1));
        });
        assert!(largest.unwrap().open(&[key(1).verifying_key()], &exec().node).is_ok());
    }
}
