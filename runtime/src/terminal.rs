//! Terminals: a pair for a command in a container, and the one at which the
//! person sits. `pty(7)`, `termios(3)`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::pty::openpty;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::sys;

/// Both sides of a new terminal.
#[derive(Debug)]
pub struct Pair {
    /// What is written here, the program reads.
    pub master: OwnedFd,
    /// The program's own.
    pub program: OwnedFd,
}

/// A terminal that passes on every key; it is as it was once this is dropped.
#[derive(Debug)]
pub struct Raw<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

impl Pair {
    /// # Errors
    /// `/dev/ptmx` is missing, or no terminal is left.
    pub fn new() -> io::Result<Self> {
        let pair = openpty(None, None)?;
        Ok(Self { master: pair.master, program: pair.slave })
    }

    /// Makes it as large as `other`.
    ///
    /// # Errors
    /// `other` is no terminal.
    pub fn resize_as(&self, other: BorrowedFd<'_>) -> io::Result<()> {
        resize(self.master.as_fd(), other)
    }
}

/// Makes a terminal as large as `other`.
///
/// # Errors
/// One of them is no terminal.
pub fn resize(terminal: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<()> {
    sys::set_terminal_size(terminal, &sys::terminal_size(other)?)
}

impl<'a> Raw<'a> {
    /// # Errors
    /// It is no terminal.
    pub fn new(terminal: BorrowedFd<'a>) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(terminal, SetArg::TCSANOW, &raw)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _ = tcsetattr(self.terminal, SetArg::TCSANOW, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_raw_for_a_while_and_follows_anothers_size() {
        let (own, other) = (Pair::new().unwrap(), Pair::new().unwrap());
        let modes = |pair: &Pair| tcgetattr(&pair.program).unwrap().local_flags;
        let before = modes(&own);
        {
            let _raw = Raw::new(own.program.as_fd()).unwrap();
            assert_ne!(modes(&own), before);
        }
        assert_eq!(modes(&own), before);
        let size = libc::winsize { ws_row: 7, ws_col: 33, ws_xpixel: 0, ws_ypixel: 0 };
        sys::set_terminal_size(other.master.as_fd(), &size).unwrap();
        own.resize_as(other.program.as_fd()).unwrap();
        let found = sys::terminal_size(own.program.as_fd()).unwrap();
        assert_eq!((found.ws_row, found.ws_col), (7, 33));
        let (reader, _writer) = io::pipe().unwrap();
        assert!(Raw::new(reader.as_fd()).is_err() && own.resize_as(reader.as_fd()).is_err());
    }
}
