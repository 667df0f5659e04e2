//! Where the launcher tells the first program that it is ready and that it
//! lives: the socket of `sd_notify(3)`, from the listener's side.
//!
//! Root's folder, so that nobody else can speak for the launcher.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use crate::notify::{ALIVE, READY, SOCKET_VARIABLE, WATCHDOG_VARIABLE};

const FOLDER: &str = "/run/wherry-init";
const SOCKET: &str = "/run/wherry-init/notify";
/// A few words.
const MESSAGE_BYTES_MAX: usize = 256;

/// What was said, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    Ready,
    Alive,
    Nothing,
}

#[derive(Debug)]
pub struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    /// # Errors
    /// `/run` cannot be written to.
    pub fn open() -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(FOLDER)?;
        if Path::new(SOCKET).exists() {
            fs::remove_file(SOCKET)?;
        }
        let socket = UnixDatagram::bind(SOCKET)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket })
    }

    /// The next word that is there.
    #[must_use]
    pub fn hear(&self) -> Option<Said> {
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(understand(buffer.get(..length).unwrap_or_default()))
    }
}

impl AsFd for Manager {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn understand(message: &[u8]) -> Said {
    let has = |word: &str| message.split(|byte| *byte == b'\n').any(|line| line == word.as_bytes());
    if has(READY) {
        Said::Ready
    } else if has(ALIVE) {
        Said::Alive
    } else {
        Said::Nothing
    }
}

/// What the launcher's environment says about this: proofs are asked for only
/// where there is a watchdog, as they cost wake-ups.
#[must_use]
pub fn variables(listens: bool, watchdog_millis: Option<u64>) -> Vec<String> {
    let socket = listens.then(|| format!("{SOCKET_VARIABLE}={SOCKET}"));
    let watchdog = watchdog_millis.filter(|_| listens);
    let watchdog = watchdog.map(|millis| format!("{WATCHDOG_VARIABLE}={}", millis * 1000));
    socket.into_iter().chain(watchdog).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_told_apart() {
        for (message, said) in [
            ("READY=1", Said::Ready),
            ("STATUS=well\nWATCHDOG=1\n", Said::Alive),
            ("STOPPING=1", Said::Nothing),
            ("WATCHDOG=10", Said::Nothing),
            ("", Said::Nothing),
        ] {
            assert_eq!(understand(message.as_bytes()), said, "{message}");
        }
    }

    #[test]
    fn proofs_are_asked_for_only_where_they_are_needed() {
        assert_eq!(variables(true, None), ["NOTIFY_SOCKET=/run/wherry-init/notify"]);
        assert_eq!(variables(true, Some(30_000)).get(1).unwrap(), "WATCHDOG_USEC=30000000");
        assert!(variables(false, Some(30_000)).is_empty());
    }
}
