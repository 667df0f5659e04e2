//! `wherry exec`: a command in a container, with this command's own standard
//! streams; or with a terminal of its own, which is passed on here.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use wherry_bundle::message::Exit;
use wherry_runtime::terminal::{Pair, Raw, resize};

use super::CliError;
use crate::control::{Client, ClientError, Exec, Request, Response};

const BUFFER_BYTES: usize = 4096;

/// Runs until the command has ended, and ends with its exit code.
pub(super) fn exec(socket: &Path, exec: Exec, stdin: bool) -> Result<(), CliError> {
    let terminal = exec.terminal;
    let mut client = Client::ask(socket, &Request::Exec(exec))?;
    let response = if terminal {
        in_terminal(&mut client, stdin)?
    } else {
        client.send_streams(&streams(stdin).map_err(CliError::Terminal)?)?;
        client.answer()?
    };
    match response {
        Response::Exited(Exit::Code(0)) => Ok(()),
        Response::Exited(exit) => Err(CliError::Ended(exit)),
        _ => Err(ClientError::Unexpected.into()),
    }
}

pub(super) fn exit_code(exit: Exit) -> ExitCode {
    ExitCode::from(exit.shell_status().unwrap_or(super::FAILED))
}

fn streams(stdin: bool) -> io::Result<Vec<OwnedFd>> {
    let input = if stdin {
        io::stdin().as_fd().try_clone_to_owned()?
    } else {
        File::open("/dev/null")?.into()
    };
    let (output, errors) = (io::stdout(), io::stderr());
    Ok(vec![input, output.as_fd().try_clone_to_owned()?, errors.as_fd().try_clone_to_owned()?])
}

/// Passes keys, output and size on between the person's terminal and the
/// command's.
fn in_terminal(client: &mut Client, stdin: bool) -> Result<Response, CliError> {
    let pair = Pair::new().map_err(CliError::Terminal)?;
    let input = io::stdin();
    // Without one here, it keeps the size that it has.
    let _ = pair.resize_as(input.as_fd());
    let resized = resize_signals().map_err(|errno| CliError::Terminal(errno.into()))?;
    let Pair { master, program } = pair;
    client.send_streams(&[program])?;
    let _raw = if stdin { Raw::new(input.as_fd()).ok() } else { None };
    unblocked(&master).map_err(|errno| CliError::Terminal(errno.into()))?;
    let mut master = File::from(master);
    // Until whoever is at the other end has closed it.
    let (mut reads_input, mut reads_output) = (stdin, true);
    loop {
        let (answer, keys, output) = {
            let watched = [
                Some(client.socket()),
                Some(resized.as_fd()),
                reads_input.then(|| input.as_fd()),
                reads_output.then(|| master.as_fd()),
            ];
            let mut set: Vec<_> =
                watched.iter().flatten().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
            match poll(&mut set, PollTimeout::NONE) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(CliError::Terminal(errno.into())),
            }
            let mut ready = set.iter().map(|fd| fd.any().unwrap_or(true));
            let [answer, _, keys, output] =
                watched.map(|fd| fd.is_some() && ready.next() == Some(true));
            (answer, keys, output)
        };
        if let Ok(Some(_)) = resized.read_signal() {
            let _ = resize(master.as_fd(), input.as_fd());
        }
        if keys {
            reads_input = pass_keys(&input, &mut master)?;
        }
        if output {
            reads_output = pass_output(&mut master)?;
        }
        if answer {
            // What the command wrote last is there by now.
            pass_output(&mut master)?;
            return Ok(client.answer()?);
        }
    }
}

/// `false`: there is no more.
fn pass_keys(input: &io::Stdin, master: &mut File) -> Result<bool, CliError> {
    let mut buffer = [0; BUFFER_BYTES];
    let length = nix::unistd::read(std::os::fd::AsRawFd::as_raw_fd(input), &mut buffer)
        .map_err(|errno| CliError::Terminal(errno.into()))?;
    let keys = buffer.get(..length).unwrap_or_default();
    // A program that does not read loses them, as at any terminal.
    let _ = master.write(keys);
    Ok(length > 0)
}

/// `false`: there is no more.
fn pass_output(master: &mut File) -> Result<bool, CliError> {
    let mut out = io::stdout().lock();
    let mut buffer = [0; BUFFER_BYTES];
    let goes_on = loop {
        match master.read(&mut buffer) {
            Ok(0) => break false,
            Ok(length) => out.write_all(buffer.get(..length).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break true,
            // Nobody has it open any more (EIO).
            Err(_) => break false,
        }
    };
    out.flush()?;
    Ok(goes_on)
}

fn resize_signals() -> Result<SignalFd, Errno> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGWINCH);
    signals.thread_block()?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

fn unblocked(master: &OwnedFd) -> Result<(), Errno> {
    let fd = std::os::fd::AsRawFd::as_raw_fd(master);
    let flags = OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map(drop)
}
