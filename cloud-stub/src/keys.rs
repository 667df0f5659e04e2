//! The cloud's signing key and its randomness.
//!
//! `DATA/keys/signing.key` holds the 32 bytes of an ed25519 secret key, mode
//! 0600, made at the first start. Who has it can command every node; without
//! it no node takes a new bundle. Never here: what is signed.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ed25519_dalek::{SecretKey, SigningKey};

const FILE_NAME: &str = "signing.key";
/// The kernel's random numbers, see random(4).
const RANDOM: &str = "/dev/urandom";

/// Why there is no signing key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{path} has {bytes} bytes, where a key has 32: put the right file back, or remove it and \
         give every node the new key"
    )]
    Length { path: PathBuf, bytes: usize },
}

/// Reads the key below `dir`, or makes it.
///
/// # Errors
/// A file that cannot be read or written, or is not a key. A broken key is
/// never replaced: the nodes trust the old one.
pub fn open_or_create(dir: &Path) -> Result<SigningKey, KeyError> {
    let path = dir.join(FILE_NAME);
    match fs::read(&path) {
        Ok(bytes) => {
            let secret = SecretKey::try_from(bytes.as_slice())
                .map_err(|_| KeyError::Length { path, bytes: bytes.len() })?;
            Ok(SigningKey::from_bytes(&secret))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(dir, &path),
        Err(source) => Err(KeyError::Io { path, source }),
    }
}

fn create(dir: &Path, path: &Path) -> Result<SigningKey, KeyError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| KeyError::Io { path, source }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io(dir))?;
    let secret: SecretKey = random_bytes().map_err(io(Path::new(RANDOM)))?;
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(io(&temporary))?;
    file.write_all(&secret).and_then(|()| file.sync_all()).map_err(io(&temporary))?;
    fs::rename(&temporary, path).map_err(io(path))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io(dir))?;
    Ok(SigningKey::from_bytes(&secret))
}

/// Unpredictable bytes.
///
/// # Errors
/// The kernel's source cannot be read.
pub fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open(RANDOM)?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A node's password: 32 random bytes in hexadecimal, so that it needs no
/// quoting anywhere.
///
/// # Errors
/// As [`random_bytes`].
pub fn new_token() -> io::Result<String> {
    Ok(hex(&random_bytes::<32>()?))
}

#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        let first = open_or_create(&keys).unwrap();
        let again = open_or_create(&keys).unwrap();
        assert_eq!(first.to_bytes(), again.to_bytes());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&keys), mode(&keys.join(FILE_NAME))), (0o700, 0o600));
        assert_ne!(new_token().unwrap(), new_token().unwrap());
    }

    #[test]
    fn a_damaged_key_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE_NAME), b"short").unwrap();
        let error = open_or_create(dir.path()).unwrap_err().to_string();
        assert!(error.contains("5 bytes"), "{error}");
        assert_eq!(fs::read(dir.path().join(FILE_NAME)).unwrap(), b"short");
    }
}
