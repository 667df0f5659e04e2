//! Speaks with the machine's `rig-shell` (`guest/rig-shell`), which says what
//! lines mean, over a virtio port's socket. Words travel as words: no shell
//! reads them.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// What one command may answer with, in bytes: more than the memory of the
/// machines would hold.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;
/// How long a read waits before it looks at the clock.
const LOOK: Duration = Duration::from_millis(100);
/// The ASCII record separator, which starts an answer's last line.
const MARK: u8 = 0x1e;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot speak to the machine")]
    Io(#[from] io::Error),
    #[error("the machine ended")]
    Ended,
    #[error("no answer")]
    Silent,
    #[error("an answer of more than {ANSWER_BYTES_MAX} bytes")]
    TooLarge,
    #[error("a word cannot hold a zero byte")]
    Zero,
}

/// What a command in the machine did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Exit status, as shells give it: 128 + N for signal N.
    pub status: i32,
    /// Its standard output, byte by byte.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Standard output as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Request<'a> {
    /// A command, killed by the machine after so many seconds.
    Run { words: &'a [&'a str], seconds: u64 },
    /// A command that runs on, its output in `file`.
    Start { words: &'a [&'a str], file: &'a str },
    /// A file.
    Put { path: &'a str, mode: u32, content: &'a [u8] },
}

/// A connection to the shell.
#[derive(Debug)]
pub(crate) struct Shell {
    stream: UnixStream,
    received: Vec<u8>,
    requests: u64,
}

impl Shell {
    /// Takes a fresh connection into use.
    pub(crate) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(LOOK))?;
        // A machine that stopped reads nothing either.
        stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { stream, received: Vec::new(), requests: 0 })
    }

    /// Waits for the shell's first word.
    pub(crate) fn wait_ready(&mut self, timeout: Duration) -> Result<(), Error> {
        self.answer("ready", timeout).map(drop)
    }

    /// Asks, and waits for the answer.
    pub(crate) fn ask(&mut self, what: &Request<'_>, timeout: Duration) -> Result<Output, Error> {
        self.requests += 1;
        // What is left of a request that was given up is nobody's.
        self.received.clear();
        let name = format!("{}-{:x}", self.requests, std::process::id());
        let bytes = encode(&name, what)?;
        self.stream.write_all(&bytes).map_err(ended)?;
        self.answer(&name, timeout)
    }

    fn answer(&mut self, name: &str, timeout: Duration) -> Result<Output, Error> {
        let deadline = Instant::now() + timeout;
        let mut searched = 0;
        let mut chunk = vec![0; 64 * 1024];
        loop {
            if let Some(output) = decode(&self.received, name, &mut searched) {
                self.received.clear();
                return Ok(output);
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(Error::Ended),
                Ok(size) => self.received.extend_from_slice(&chunk[..size]),
                Err(error) if is_timeout(&error) && Instant::now() < deadline => {}
                Err(error) if is_timeout(&error) => return Err(Error::Silent),
                Err(error) => return Err(ended(error)),
            }
            if self.received.len() > ANSWER_BYTES_MAX {
                return Err(Error::TooLarge);
            }
        }
    }

    /// What came of an answer that is not whole, for the transcript.
    pub(crate) fn partial(&self) -> &[u8] {
        &self.received
    }
}

fn is_timeout(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}

fn ended(error: io::Error) -> Error {
    use io::ErrorKind::{BrokenPipe, ConnectionReset};
    match error.kind() {
        BrokenPipe | ConnectionReset => Error::Ended,
        _ => Error::Io(error),
    }
}

fn encode(name: &str, request: &Request<'_>) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let mut line = |text: &str| {
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(b'\n');
    };
    line(name);
    let words = |line: &mut dyn FnMut(&str), words: &[&str]| {
        line(&words.len().to_string());
        words.iter().try_for_each(|text| {
            line(&word(text)?);
            Ok::<_, Error>(())
        })
    };
    match *request {
        Request::Run { words: list, seconds } => {
            line("run");
            line(&seconds.to_string());
            words(&mut line, list)?;
        }
        Request::Start { words: list, file } => {
            line("start");
            line(&word(file)?);
            words(&mut line, list)?;
        }
        Request::Put { path, mode, content } => {
            line("put");
            line(&word(path)?);
            line(&format!("{mode:o}"));
            line(&content.len().to_string());
            bytes.extend_from_slice(content);
        }
    }
    Ok(bytes)
}

/// A word as one line.
fn word(text: &str) -> Result<String, Error> {
    if text.contains('\0') {
        return Err(Error::Zero);
    }
    Ok(text.replace('\\', "\\\\").replace('\n', "\\n"))
}

/// The answer to request `name`, once it is whole: output, `\n`, MARK, name,
/// status, size of the errors, `\n`, errors. `searched` remembers how far
/// there is no mark.
fn decode(received: &[u8], name: &str, searched: &mut usize) -> Option<Output> {
    let mut mark = vec![b'\n', MARK];
    mark.extend_from_slice(name.as_bytes());
    mark.push(b' ');
    let found = received.get(*searched..)?.windows(mark.len()).position(|part| part == mark);
    let Some(found) = found.map(|at| at + *searched) else {
        *searched = received.len().saturating_sub(mark.len());
        return None;
    };
    *searched = found;
    let rest = &received[found + mark.len()..];
    let end = rest.iter().position(|&byte| byte == b'\n')?;
    let (line, errors) = (str::from_utf8(&rest[..end]).ok()?, &rest[end + 1..]);
    let (status, size) = line.split_once(' ')?;
    let stderr = errors.get(..size.parse().ok()?)?.to_vec();
    Some(Output { status: status.parse().ok()?, stdout: received[..found].to_vec(), stderr })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_words() {
        let words = ["echo", "a b; rm *", "two\nlines", r"c:\n", "'\"$(x)`é"];
        let bytes = encode("7-1", &Request::Run { words: &words, seconds: 9 }).unwrap();
        let expected = "7-1\nrun\n9\n5\necho\na b; rm *\ntwo\\nlines\nc:\\\\n\n'\"$(x)`é\n";
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
        let zero = encode("7-1", &Request::Start { words: &["a\0"], file: "/x" });
        assert!(matches!(zero, Err(Error::Zero)));
        let put = Request::Put { path: "/a b", mode: 0o640, content: b"\n\0\n" };
        assert_eq!(encode("8-1", &put).unwrap(), b"8-1\nput\n/a b\n640\n3\n\n\0\n");
    }

    #[test]
    fn an_answer_counts_once_it_is_whole() {
        let whole = b"out\n\x1e1-1 0 0\n more\n\n\x1e2-1 137 3\nbad".as_slice();
        let expected = Output {
            status: 137,
            stdout: b"out\n\x1e1-1 0 0\n more\n".to_vec(),
            stderr: b"bad".to_vec(),
        };
        let mut searched = 0;
        for length in 0..whole.len() {
            assert_eq!(decode(&whole[..length], "2-1", &mut searched), None, "{length}");
        }
        assert_eq!(decode(whole, "2-1", &mut searched), Some(expected));
    }

    #[test]
    fn silence_and_an_end_are_told_apart() {
        let (here, there) = UnixStream::pair().unwrap();
        let mut shell = Shell::new(here).unwrap();
        let run = Request::Run { words: &["true"], seconds: 1 };
        let silent = shell.ask(&run, Duration::from_millis(50));
        assert!(matches!(silent, Err(Error::Silent)), "{silent:?}");
        drop(there);
        let ended = shell.ask(&run, Duration::from_secs(5));
        assert!(matches!(ended, Err(Error::Ended)), "{ended:?}");
    }
}
