//! As much of HTTP/1.1 as a scraper needs: one `GET /metrics` a connection,
//! which is closed after its answer (RFC 9112).
//!
//! Whoever is slow or talks too much is cut off. Never here: what is told.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use wherry_bundle::metrics::text::CONTENT_TYPE;

/// A scraper's request has some 300 bytes.
const REQUEST_BYTES_MAX: usize = 4096;
/// From the connection to the end of its request, and again to the end of the
/// answer: nobody else is served meanwhile.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Metrics(String),
    /// There is nothing else than `/metrics`.
    NotFound,
    /// Anything but `GET`.
    NotAllowed,
    BadRequest,
    TooLarge,
    /// The supervisor did not answer.
    Unavailable,
}

/// Answers one request.
///
/// # Errors
/// The client is too slow, or gone.
pub(super) fn serve(stream: &TcpStream, metrics: impl FnOnce() -> Answer) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    let head = match head(stream, Instant::now() + TIMEOUT)? {
        Some(head) => judge(&head),
        None => Err(Answer::TooLarge),
    };
    let answer = head.map_or_else(|answer| answer, |()| metrics());
    send(stream, &answer.bytes(), Instant::now() + TIMEOUT)
}

/// A request up to its empty line; `None` if that does not come in time for
/// the largest.
fn head(mut stream: &TcpStream, until: Instant) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    let mut buffer = [0; 512];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() >= REQUEST_BYTES_MAX {
            return Ok(None);
        }
        stream.set_read_timeout(Some(left(until)?))?;
        match stream.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => head.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(head))
}

fn send(mut stream: &TcpStream, mut bytes: &[u8], until: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(left(until)?))?;
        match stream.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Whether the head of a request asks for metrics, else the answer.
fn judge(head: &[u8]) -> Result<(), Answer> {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| Answer::BadRequest)?;
    let words: Vec<&str> = line.split(' ').collect();
    let [method, target, version] = words[..] else { return Err(Answer::BadRequest) };
    if !version.starts_with("HTTP/1.") {
        return Err(Answer::BadRequest);
    }
    // A scraper may be configured to send parameters: they change nothing.
    if target.split('?').next() != Some("/metrics") {
        return Err(Answer::NotFound);
    }
    if method == "GET" { Ok(()) } else { Err(Answer::NotAllowed) }
}

impl Answer {
    fn bytes(self) -> Vec<u8> {
        let (status, body) = match self {
            Self::Metrics(text) => ("200 OK", text),
            Self::NotFound => ("404 Not Found", "only /metrics is here\n".into()),
            Self::NotAllowed => ("405 Method Not Allowed\r\nAllow: GET", String::new()),
            Self::BadRequest => ("400 Bad Request", String::new()),
            Self::TooLarge => ("431 Request Header Fields Too Large", String::new()),
            Self::Unavailable => ("503 Service Unavailable", "the node does not answer\n".into()),
        };
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Whoever comes, and what they come to.
    fn pair() -> (TcpStream, TcpStream) {
        let door = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(door.local_addr().unwrap()).unwrap();
        (client, door.accept().unwrap().0)
    }

    #[test]
    fn whoever_is_slow_is_cut_off() {
        let patience = Duration::from_millis(100);
        let start = Instant::now();
        let (_silent, served) = pair();
        assert!(head(&served, Instant::now() + patience).is_err());
        // One that goes on and on, a byte at a time.
        let (mut slow, served) = pair();
        let dripping = thread::spawn(move || {
            while slow.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(10));
            }
        });
        assert!(head(&served, Instant::now() + patience).is_err());
        drop(served);
        dripping.join().unwrap();
        // One that does not take its answer, which no buffer holds.
        let (_deaf, served) = pair();
        assert!(send(&served, &vec![b'x'; 64 << 20], Instant::now() + patience).is_err());
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }

    #[test]
    fn only_one_thing_is_here() {
        let judged = |head: &str| judge(head.as_bytes());
        assert_eq!(judged("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), Ok(()));
        assert_eq!(judged("GET /metrics?a=b HTTP/1.0\r\n\r\n"), Ok(()));
        for (head, answer) in [
            ("GET / HTTP/1.1\r\n\r\n", Answer::NotFound),
            ("GET /metrics/ HTTP/1.1\r\n\r\n", Answer::NotFound),
            ("POST /metrics HTTP/1.1\r\n\r\n", Answer::NotAllowed),
            ("HEAD /metrics HTTP/1.1\r\n\r\n", Answer::NotAllowed),
            ("GET /metrics\r\n\r\n", Answer::BadRequest),
            ("GET /metrics HTTP/2\r\n\r\n", Answer::BadRequest),
            ("\r\n\r\n", Answer::BadRequest),
            ("\u{16}\u{3}\u{1}\r\n\r\n", Answer::BadRequest),
        ] {
            assert_eq!(judged(head), Err(answer), "{head:?}");
        }
        assert_eq!(judge(b"\xff /metrics HTTP/1.1\r\n\r\n"), Err(Answer::BadRequest));
    }

    #[test]
    fn an_answer_says_how_long_it_is() {
        let text = String::from_utf8(Answer::Metrics("ü 1\n".into()).bytes()).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"));
        assert!(text.ends_with("Content-Length: 5\r\nConnection: close\r\n\r\nü 1\n"), "{text}");
        let text = String::from_utf8(Answer::NotAllowed.bytes()).unwrap();
        assert!(text.starts_with("HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\n"), "{text}");
    }
}
