//! Joins a person's terminal to the machine's: bytes pass both ways until the
//! shell there ends. A pipe does as well as a terminal.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{self, SetArg, Termios};

use crate::sys;

/// What the machine's `rig-terminal` sends when its shell has ended: the
/// ASCII record separator, which nobody types.
const END: u8 = 0x1e;
/// Size of a terminal that has none.
const ROWS_COLUMNS: (u16, u16) = (24, 80);

/// Height and width of the caller's terminal, in characters.
pub fn size() -> (u16, u16) {
    match sys::window_size(io::stdout().as_fd()) {
        Some((rows, columns)) if rows > 0 && columns > 0 => (rows, columns),
        Some(_) | None => ROWS_COLUMNS,
    }
}

/// Passes bytes on until the machine's shell ends, or the machine does.
///
/// # Errors
/// The terminal or the machine's line fails.
pub fn join(line: &UnixStream) -> io::Result<()> {
    let stdin = io::stdin();
    let _raw = Raw::new(stdin.as_fd())?;
    // `Stdin` would read ahead of what poll was asked about.
    let mut keys = File::from(stdin.as_fd().try_clone_to_owned()?);
    let mut typing = true;
    loop {
        let mut polled = vec![PollFd::new(line.as_fd(), PollFlags::POLLIN)];
        if typing {
            polled.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        poll(&mut polled, PollTimeout::NONE)?;
        let ready: Vec<bool> = polled.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        if ready.get(1) == Some(&true) {
            typing = pass_on(&mut keys, line)?;
        }
        if ready.first() == Some(&true) && !show(line)? {
            return Ok(());
        }
    }
}

/// False at the end of the input.
fn pass_on(keys: &mut File, mut line: &UnixStream) -> io::Result<bool> {
    let mut typed = [0; 1024];
    let size = keys.read(&mut typed)?;
    line.write_all(&typed[..size])?;
    Ok(size > 0)
}

/// False once the shell has ended.
fn show(mut line: &UnixStream) -> io::Result<bool> {
    let mut said = [0; 4096];
    let size = line.read(&mut said)?;
    let end = said[..size].iter().position(|&byte| byte == END);
    let mut out = io::stdout().lock();
    out.write_all(&said[..end.unwrap_or(size)])?;
    out.flush()?;
    Ok(size > 0 && end.is_none())
}

/// The person's terminal passes every key on; dropping it makes it what it
/// was. Nothing at all if it is no terminal.
struct Raw<'a> {
    terminal: BorrowedFd<'a>,
    before: Option<Termios>,
}

impl<'a> Raw<'a> {
    fn new(terminal: BorrowedFd<'a>) -> io::Result<Self> {
        let Ok(before) = termios::tcgetattr(terminal) else {
            return Ok(Self { terminal, before: None });
        };
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(terminal, SetArg::TCSANOW, &raw)?;
        Ok(Self { terminal, before: Some(before) })
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // There is nobody left to tell.
            let _ = termios::tcsetattr(self.terminal, SetArg::TCSANOW, before);
        }
    }
}
