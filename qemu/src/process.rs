//! One emulator process: started, watched and ended by a thread of its own,
//! so that nothing outlives its limit, nor the program that asked for it.

use std::io;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::sys;

/// How often the thread looks whether the process is still there.
const LOOK: Duration = Duration::from_millis(10);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself.
    Exited(ExitStatus),
    /// By [`Process::kill`].
    Killed,
    /// By its limit.
    TimeUp,
}

/// A process that dies with this, at the latest.
#[derive(Debug)]
pub(crate) struct Process {
    pid: u32,
    kill: Sender<()>,
    end: Arc<(Mutex<Option<End>>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts it; after `limit` it is killed.
    pub(crate) fn start(mut command: Command, limit: Duration) -> io::Result<Self> {
        let end = Arc::new((Mutex::new(None), Condvar::new()));
        let (kill, killed) = channel();
        let (started, start) = channel();
        let seen = Arc::clone(&end);
        // The kernel ties a child to the thread that made it: this one lives
        // for as long as the child does.
        let thread = std::thread::Builder::new().name("rig-guard".to_owned()).spawn(move || {
            sys::die_with_parent(&mut command);
            let mut child = match command.spawn() {
                Ok(child) => child,
                Err(error) => {
                    let _ = started.send(Err(error));
                    return;
                }
            };
            let _ = started.send(Ok(child.id()));
            let end = guard(&mut child, limit, &killed);
            *lock(&seen.0) = Some(end);
            seen.1.notify_all();
        })?;
        let pid = start.recv().map_err(io::Error::other)??;
        Ok(Self { pid, kill, end, thread: Some(thread) })
    }

    /// Of the process; nobody's any more once it ended.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// How it ended, if it did before `timeout` passed.
    pub(crate) fn wait(&self, timeout: Duration) -> Option<End> {
        let end = lock(&self.end.0);
        let waited = self.end.1.wait_timeout_while(end, timeout, |end| end.is_none());
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Ends it at once, as SIGKILL does.
    pub(crate) fn kill(&self) {
        // No receiver: it has ended.
        let _ = self.kill.send(());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn guard(child: &mut Child, limit: Duration, killed: &Receiver<()>) -> End {
    let deadline = Instant::now() + limit;
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return End::Exited(status);
        }
        let end = match killed.recv_timeout(LOOK) {
            Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => continue,
            Err(RecvTimeoutError::Timeout) => End::TimeUp,
            Ok(()) | Err(RecvTimeoutError::Disconnected) => End::Killed,
        };
        // Either fails only if it has ended already.
        let _ = child.kill();
        let _ = child.wait();
        return end;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleep(seconds: &str) -> Command {
        let mut command = Command::new("sleep");
        command.arg(seconds);
        command
    }

    #[test]
    fn each_end_is_told() {
        let check = |seconds: &str, limit: Duration, kill: bool, expected: fn(End) -> bool| {
            let process = Process::start(sleep(seconds), limit).unwrap();
            assert!(std::path::Path::new(&format!("/proc/{}", process.pid())).exists());
            if kill {
                assert_eq!(process.wait(Duration::from_millis(50)), None);
                process.kill();
            }
            let end = process.wait(Duration::from_secs(20)).unwrap();
            assert!(expected(end), "{end:?}");
        };
        let long = Duration::from_secs(60);
        check("0.1", long, false, |end| matches!(end, End::Exited(status) if status.success()));
        check("60", long, true, |end| end == End::Killed);
        check("60", Duration::from_millis(100), false, |end| end == End::TimeUp);
    }

    #[test]
    fn it_goes_with_its_owner() {
        let process = Process::start(sleep("60"), Duration::from_secs(60)).unwrap();
        let proc = format!("/proc/{}", process.pid());
        drop(process);
        assert!(!std::path::Path::new(&proc).exists());
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let started = Process::start(Command::new("no-such-program"), Duration::from_secs(1));
        assert_eq!(started.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
