//! What a command that the cloud has run writes, and how it ended: read on a
//! thread of its own, so that the loop waits for neither, and sent up.
//!
//! Never here: running commands, their time limit.

use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use wherry_bundle::exec::{Executed, Output};
use wherry_bundle::limits::{EXEC_OUTPUT_BYTES_MAX, bounded_text};
use wherry_bundle::message::{Exit, Outcome, Reply};

use super::orders::send;
use crate::agent::AgentUplink;

const STACK_BYTES: usize = 128 * 1024;
const READ_BYTES: usize = 16 * 1024;
/// While the command runs and writes nothing.
const LOOK_AFTER_END: u16 = 200;
/// Before each read of what is only counted: a command that writes without end
/// must not cost a processor.
const DROP_PAUSE: Duration = Duration::from_millis(10);
/// After the command's end, what its pipes still hold (`pipe(7)`: 64 KiB each)
/// is read. Who it left behind may go on writing, to nobody.
const LAST_READS_MAX: usize = 2 * 64 * 1024 / READ_BYTES;

/// How a command came to its end.
#[derive(Debug)]
pub struct End {
    /// Or why it could not be executed.
    pub result: Result<Exit, String>,
    pub timed_out: bool,
}

/// Where a command's output goes, and where its end is told.
#[derive(Debug)]
pub struct Collecting {
    /// Nothing to read, standard output, standard error.
    pub streams: [OwnedFd; 3],
    pub end: SyncSender<End>,
}

/// Begins to collect for the order `id`. The reply is sent after an [`End`];
/// none if its sender goes without.
///
/// # Errors
/// No pipe or thread is left.
pub fn begin(id: u64, uplink: AgentUplink) -> io::Result<Collecting> {
    let nothing = std::fs::File::open("/dev/null")?;
    let ((out, stdout), (errors, stderr)) = (io::pipe()?, io::pipe()?);
    let (end, ended) = mpsc::sync_channel(1);
    thread::Builder::new().name("wherry-exec".into()).stack_size(STACK_BYTES).spawn(move || {
        let Some(result) = collect([out, errors], &ended) else { return };
        let result = result.map(Outcome::Executed).map_err(|error| bounded_text(&error));
        if !send(|| uplink.reply(&Reply { id, result: result.clone() })) {
            log::warn!("what a command of the cloud's wrote is lost: the uplink takes nothing");
        }
    })?;
    Ok(Collecting { streams: [nothing.into(), stdout.into(), stderr.into()], end })
}

/// `None`: nobody tells its end any more.
fn collect(pipes: [PipeReader; 2], ended: &Receiver<End>) -> Option<Result<Executed, String>> {
    let mut streams = pipes.map(|pipe| (Some(pipe), Output::default()));
    let mut buffer = vec![0; READ_BYTES];
    let (mut end, mut last_reads) = (None, 0);
    while streams.iter().any(|(pipe, _)| pipe.is_some()) {
        if end.is_none() {
            end = match ended.try_recv() {
                Ok(end) => Some(end),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => return None,
            };
        }
        let wait = if end.is_some() { PollTimeout::ZERO } else { LOOK_AFTER_END.into() };
        let mut was_read = false;
        for (pipe, ready) in ready(&streams, wait).into_iter().enumerate() {
            if let Some(stream) = streams.get_mut(pipe).filter(|_| ready) {
                read(stream, &mut buffer);
                was_read = true;
                last_reads += usize::from(end.is_some());
            }
        }
        if end.is_some() && (!was_read || last_reads >= LAST_READS_MAX) {
            break;
        }
    }
    let End { result, timed_out } = match end {
        Some(end) => end,
        None => ended.recv().ok()?,
    };
    let [stdout, stderr] = streams.map(|(_, output)| output);
    Some(result.map(|exit| Executed { exit, timed_out, stdout, stderr }))
}

fn ready(streams: &[(Option<PipeReader>, Output); 2], wait: PollTimeout) -> [bool; 2] {
    let open = || streams.iter().filter_map(|(pipe, _)| pipe.as_ref());
    let mut set: Vec<PollFd<'_>> =
        open().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)).collect();
    // Interrupted: nothing is ready, and it is asked again.
    let _ = poll(&mut set, wait);
    let mut ready = set.iter().map(|fd| fd.any().unwrap_or(true));
    [0, 1].map(|at: usize| {
        let is_open = streams.get(at).is_some_and(|(pipe, _)| pipe.is_some());
        is_open && ready.next() == Some(true)
    })
}

/// One read of what is there; closes a pipe whose writers are gone.
fn read((pipe, output): &mut (Option<PipeReader>, Output), buffer: &mut [u8]) {
    let room = EXEC_OUTPUT_BYTES_MAX.saturating_sub(output.bytes.len());
    if room == 0 {
        thread::sleep(DROP_PAUSE);
    }
    match pipe.as_mut().map(|pipe| pipe.read(buffer)) {
        Some(Ok(length)) if length > 0 => {
            let kept = length.min(room);
            output.bytes.extend_from_slice(buffer.get(..kept).unwrap_or_default());
            output.bytes_dropped += (length - kept) as u64;
        }
        Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
        Some(Ok(_) | Err(_)) | None => *pipe = None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeWriter, Write};

    use super::*;

    type Result = std::result::Result<Executed, String>;

    fn with(run: impl FnOnce(PipeWriter, PipeWriter, SyncSender<End>)) -> Option<Result> {
        let ((out, stdout), (errors, stderr)) = (io::pipe().unwrap(), io::pipe().unwrap());
        let (end, ended) = mpsc::sync_channel(1);
        let reader = thread::spawn(move || collect([out, errors], &ended));
        run(stdout, stderr, end);
        reader.join().unwrap()
    }

    fn end(exit: u8) -> End {
        End { result: Ok(Exit::Code(exit)), timed_out: false }
    }

    #[test]
    fn both_streams_are_kept_to_their_bound() {
        let much = EXEC_OUTPUT_BYTES_MAX + 100_000;
        let executed = with(|mut stdout, mut stderr, ends| {
            stderr.write_all(b"aside").unwrap();
            stdout.write_all(&vec![b'x'; much]).unwrap();
            drop((stdout, stderr));
            ends.send(end(7)).unwrap();
        });
        let executed = executed.unwrap().unwrap();
        assert_eq!((executed.exit, executed.timed_out), (Exit::Code(7), false));
        assert_eq!(executed.stdout.bytes, [b'x'; EXEC_OUTPUT_BYTES_MAX]);
        assert_eq!(executed.stdout.bytes_dropped, 100_000);
        assert_eq!(executed.stderr, Output { bytes: b"aside".to_vec(), bytes_dropped: 0 });
        let largest = Output { bytes: vec![0; EXEC_OUTPUT_BYTES_MAX], bytes_dropped: u64::MAX };
        let largest = Executed { stdout: largest.clone(), stderr: largest, ..executed };
        let reply = Reply { id: u64::MAX, result: Ok(Outcome::Executed(largest)) };
        assert!(wherry_bundle::message::Message::to_bytes(&reply).is_ok());
    }

    #[test]
    fn who_is_left_behind_delays_nothing() {
        let mut left = None;
        let executed = with(|mut stdout, stderr, ends| {
            stdout.write_all(b"words").unwrap();
            ends.send(end(0)).unwrap();
            left = Some((stdout, stderr));
        });
        assert_eq!(executed.unwrap().unwrap().stdout.bytes, b"words");
        let refused = with(|_, _, ends| {
            ends.send(End { result: Err("no such program".into()), timed_out: false }).unwrap();
        });
        assert_eq!(refused, Some(Err("no such program".into())));
        assert_eq!(with(|_, _, ends| drop(ends)), None, "the supervisor is ending");
    }
}
